"""How a training in a process of its own ended: ``done`` only if everything says so, else the cause that is known."""

import math
import os
import re
import shutil
from pathlib import Path
from typing import Any, Literal, Required

from pydantic import ConfigDict, with_config
from typing_extensions import TypedDict

from ..errors import RVCError, printable
from ..system.documents import Count, Line, read_or
from ..system.files import sha256_of
from ..system.inside import open_inside
from ..workspace.layout import Layout
from ..workspace.retention import checkpoint_rows

_AGAIN = "the same command continues from the last checkpoint"
_TAIL_LINES = 40
_LONGEST_LOG_BYTES = 1 << 22
_FULL_BYTES = 1_000_000
# What the end of a log, or the way in which a process ended, is known to mean: the first that fits is told.
_CAUSES = (
    (r"No space left on device|Disk quota exceeded", "the disk is full", f"free some space; {_AGAIN}"),
    (
        r"CUDA out of memory|OutOfMemoryError|CUBLAS_STATUS_ALLOC_FAILED",
        "the GPU's memory ran out",
        f"halve --batch-size; {_AGAIN}",
    ),
    (
        r"Unable to find a usable device|No CUDA GPUs are available|no kernel image|CUDA driver|NVIDIA driver",
        "the GPU cannot be used",
        "rvc check says why; choose another accelerator, or --device cpu",
    ),
    (
        r"Transport endpoint|Stale file handle|Input/output error|Read-only file system",
        "the storage of the experiment vanished or refuses to be written",
        f"bring it back; {_AGAIN}",
    ),
    (
        r"exit(code)?\s*:? -9\b|Signal 9|SIGKILL",
        "the system killed it (signal 9), most often for lack of memory",
        f"close other programs, or halve --batch-size; {_AGAIN}",
    ),
    (r"exit(code)?\s*:? -15\b|SIGTERM", "the system told it to end (signal 15), as at the end of a session", _AGAIN),
    (
        r"exit(code)?\s*:? -(4|6|7|8|11)\b|Segmentation fault|Bus error",
        "it crashed inside a compiled library",
        "run: bash setup_env.sh; it repairs packages that do not fit each other",
    ),
    (r"ModuleNotFoundError|ImportError", "a package is missing or does not fit", "run: bash setup_env.sh"),
)


@with_config(ConfigDict(extra="allow"))
class _Report(TypedDict):
    steps: Count
    voice: str
    heldout_mel_first: float | None
    heldout_mel_last: float | None


class RunRecord(TypedDict, total=False):
    """What ``run.json`` says: the process, for whom it may concern, and how it ended. Nothing is run from it."""

    pid: Required[Count]
    host: Required[str]
    state: Required[Literal["running", "done", "failed"]]
    started_ticks: Count | None
    began: str
    log_begins: Count
    settings: dict[str, Any]
    note: Line
    exit_code: int | None
    report: _Report
    error: Line
    kind: str
    hint: str
    log: list[Line]


def judged(layout: Layout, exit_code: int | None) -> RunRecord:
    """The record of a training that is over, with the truth about it: ``done`` only if everything says so."""
    record: RunRecord = {**run_record(layout), "exit_code": exit_code}
    if "error" in record:  # it knew itself why
        return {**record, "state": "failed"}
    reason = _refuted(layout, record["report"]) if "report" in record else "it ended without a result"
    if not reason and exit_code in (0, None):
        return {**record, "state": "done"}
    lines = log_of(layout)[-_TAIL_LINES:]
    ending = "" if exit_code is None else f"exit {exit_code}"
    cause, hint = _cause("\n".join([*lines, ending]), layout) or (
        f"it ended with status {exit_code}" if exit_code else reason,
        f"look at {layout.log}; {_AGAIN}",
    )
    return {
        **record,
        "state": "failed",
        "kind": "RVCError",
        "error": f"training failed: {cause}",
        "hint": hint,
        "log": lines,
    }


def _refuted(layout: Layout, report: _Report) -> str:
    """What speaks against a report of success; nothing if all that it names is there, whole, and a number."""
    numbers = [report["heldout_mel_first"], report["heldout_mel_last"]]
    if not all(math.isfinite(number) for number in numbers if number is not None):
        return "its losses are not finite"
    try:
        newest = checkpoint_rows(layout)[-1]
        whole = all(sha256_of(layout.root / name) == digest for name, digest in newest["sha256"].items())
        if not whole or newest["step"] != report["steps"] or not Path(report["voice"]).stat().st_size:
            return "its checkpoint or its voice is not what it wrote"
    except (RVCError, OSError, IndexError) as error:
        return f"its checkpoint or its voice cannot be read: {error}"
    return ""


def _cause(log: str, layout: Layout) -> tuple[str, str] | None:
    """Cause and remedy, where they are known."""
    if not layout.root.is_dir() or shutil.disk_usage(layout.root).free < _FULL_BYTES:
        return _CAUSES[3 if not layout.root.is_dir() else 0][1:]
    return next(((cause, hint) for pattern, cause, hint in _CAUSES if re.search(pattern, log)), None)


def log_of(layout: Layout) -> list[str]:
    """The lines that this training has logged, or its newest try."""
    try:
        with open_inside(layout.log) as log:
            log.seek(max(run_record(layout)["log_begins"], log.seek(0, os.SEEK_END) - _LONGEST_LOG_BYTES))
            return [*map(printable, log.read().decode("utf-8", "replace").splitlines())]
    except (OSError, KeyError, RVCError):
        return []


def run_record(layout: Layout) -> RunRecord:
    """What ``run.json`` says of the training that was begun last; empty before the first."""
    return read_or(layout.run, RunRecord, {})
