"""Training in a process of its own: begun detached, watched by anybody, ended by a file, and judged when it is over.

Three processes take part. Whoever asks, a command line or a notebook's kernel, may go away at any time. The keeper, in
a process session of its own that no Ctrl-C and no restart of a kernel reaches, waits without torch for the trainer, and
writes into ``run.json`` how that ended. The trainer trains; several of them, one for each GPU, are run by
``torch.distributed.run``; GPUs that do not hear each other are given up but for one. What they print is in
``train.log``, where they are in ``progress.json``.
"""

import contextlib
import fcntl
import json
import math
import os
import re
import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import IO, Any

from .. import errors
from ..errors import ResourceError, RVCError, SettingsError, StageOrderError
from ..progress import Beacon, Beside, Follower, Progress, Silent, Stop, Terminal, stalled
from ..settings import MirrorSettings, RuntimeSettings, TrainSettings
from ..storage.mirror import is_wanted, mirroring, told, trouble
from ..system.devices import count_gpus
from ..system.files import is_locked, read_json, sha256_of, write_json
from ..system.platforms import child_environment, started_ticks
from ..workspace.layout import Layout
from ..workspace.manifest import ExperimentRecord
from ..workspace.retention import checkpoint_rows
from .distributed import UNHEARD

_MODULE = "rvc_core.training.detached"
_LOOK_SECONDS = 0.5
_BEGIN_SECONDS = 5.0
_TAIL_LINES = 40
_FULL_BYTES = 1_000_000
_DEAF = "the GPUs do not hear each other"
_AGAIN = "the same command continues from the last checkpoint"

# What the end of a log, or the way in which a process ended, is known to mean: the first that fits is told.
_CAUSES = (
    (r"No space left on device|Disk quota exceeded", "the disk is full", f"free some space; {_AGAIN}"),
    (r"CUDA out of memory|OutOfMemoryError|CUBLAS_STATUS_ALLOC_FAILED", "the GPU's memory ran out",
     f"halve --batch-size; {_AGAIN}"),
    (r"Unable to find a usable device|No CUDA GPUs are available|no kernel image|CUDA driver|NVIDIA driver",
     "the GPU cannot be used", "rvc check says why; choose another accelerator, or --device cpu"),
    (r"Transport endpoint|Stale file handle|Input/output error|Read-only file system",
     "the storage of the experiment vanished or refuses to be written", f"bring it back; {_AGAIN}"),
    (r"exit(code)?\s*:? -9\b|Signal 9|SIGKILL", "the system killed it (signal 9), most often for lack of memory",
     f"close other programs, or halve --batch-size; {_AGAIN}"),
    (r"exit(code)?\s*:? -15\b|SIGTERM", "the system told it to end (signal 15), as at the end of a session", _AGAIN),
    (r"exit(code)?\s*:? -(4|6|7|8|11)\b|Segmentation fault|Bus error", "it crashed inside a compiled library",
     "run: bash setup_env.sh; it repairs packages that do not fit each other"),
    (r"ModuleNotFoundError|ImportError", "a package is missing or does not fit", "run: bash setup_env.sh"))


# -- for whoever asks ----------------------------------------------------------------------------------------------
def start(layout: Layout, settings: TrainSettings, runtime: RuntimeSettings = RuntimeSettings(), *,
          mirror: MirrorSettings = MirrorSettings(), processes: int | None = None) -> bool:
    """Begin training in the background, unless it is going on already.

    Parameters
    ----------
    layout : Layout
        An experiment whose features were extracted.
    processes : int, optional
        Trainers; by default one for each GPU, of as many as `runtime` says.

    Returns
    -------
    bool
        Whether it was begun here. False: it goes on since before, with the settings that it was begun with.

    Raises
    ------
    StageOrderError
        When there is nothing to train on.
    ResourceError
        When another program trains this voice in the foreground.
    SettingsError
        When there are not that many GPUs.
    """
    processes = processes or _processes(runtime)
    ExperimentRecord.load(layout)
    is_wanted(layout, mirror)                # a place that means nothing is refused now
    if not layout.filelist.is_file():
        raise StageOrderError(f"{layout.filelist} is missing: features were not extracted",
                              hint=f"run: rvc extract {layout.name}")
    with layout.lock.open("a") as lock:      # two that ask at once: the second finds what the first began
        free = _locked_soon(layout, lock)
        if _keeper_lives(layout) or (not free and _record(layout).get("state") == "running"):
            return False
        if not free:
            raise ResourceError(f"{layout.name!r} is being trained already", hint=(
                f"wait for it, or end it with: rvc stop {layout.name}"))
        for leftover in (layout.stop, layout.beacon):
            leftover.unlink(missing_ok=True)
        with layout.log.open("ab") as log:
            begins = log.tell()
            keeper = subprocess.Popen([sys.executable, "-m", _MODULE, "keep", str(layout.root), layout.name],
                                      stdin=subprocess.PIPE, stdout=log, stderr=log, env=child_environment(),
                                      start_new_session=True)
        write_json(layout.run, {
            "pid": keeper.pid, "started_ticks": started_ticks(keeper.pid), "host": socket.gethostname(),
            "began": time.strftime("%Y-%m-%d %H:%M:%S"), "command": _command(layout, processes),
            "command_of_one": _command(layout, 1), "log_begins": begins, "settings": settings.stamp(),
            "runtime": runtime.stamp(), "mirror": mirror.stamp(), "state": "running"})
    assert keeper.stdin is not None
    keeper.stdin.close()                     # the keeper waits for this: now it may read run.json
    return True


def _processes(runtime: RuntimeSettings) -> int:
    """As many as GPUs are wanted; one on the CPU, or on a GPU that was chosen by its number."""
    if runtime.device not in ("auto", "cuda"):
        return 1
    there = count_gpus()
    if runtime.gpus > max(1, there):
        raise SettingsError(f"gpus: {runtime.gpus} are asked for, and there are {there}", hint="0 takes all of them")
    return max(1, runtime.gpus or there)


def _locked_soon(layout: Layout, lock: IO[str]) -> bool:
    """Take the lock, or wait until whoever took it to begin a training has begun."""
    deadline = time.monotonic() + _BEGIN_SECONDS
    while True:
        with contextlib.suppress(BlockingIOError):
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
        if _keeper_lives(layout) or time.monotonic() > deadline:
            return False
        time.sleep(0.05)


def _keeper_lives(layout: Layout) -> bool:
    record = _record(layout)
    return (record.get("state") == "running" and record["host"] == socket.gethostname()
            and record["started_ticks"] is not None and started_ticks(record["pid"]) == record["started_ticks"])


def is_running(layout: Layout) -> bool:
    """Whether somebody trains this voice: the keeper of ``run.json``, or whoever holds the lock."""
    return _keeper_lives(layout) or is_locked(layout.lock)


def watch(layout: Layout, progress: Progress = Silent()) -> dict[str, Any]:
    """Show the training until it ends, and return its report; interrupting this leaves the training alone.

    Raises
    ------
    StageOrderError
        When none was begun here.
    RVCError
        Of the class that training raised, or with the cause that its log and its end tell.
    """
    if not _record(layout):
        raise StageOrderError(f"no training of {layout.name!r} was begun", hint=f"run: rvc train {layout.name}")
    follower, known = Follower(layout.beacon, Beside(progress, lambda: told(layout))), ""
    while is_running(layout):
        follower.look()
        if (problem := trouble(layout)) != known:
            progress.say(problem or told(layout))
            known = problem
        time.sleep(_LOOK_SECONDS)
    follower.look()
    record = _record(layout)
    if record["state"] == "running":         # its keeper was killed too, so nobody has judged yet
        record |= _judged(layout, None)
    if record["state"] == "done":
        return record["report"]
    for line in record.get("log", []):
        progress.say("    " + line)
    raise getattr(errors, record["kind"], RVCError)(record["error"], hint=record["hint"])


def stop(layout: Layout) -> bool:
    """Ask the training to save and end; False when none is going on."""
    running = is_running(layout)
    if running:
        layout.stop.touch()
    return running


def differing(layout: Layout, settings: TrainSettings) -> list[str]:
    """Names of the settings in which the training that goes on differs from these."""
    before, wanted = _record(layout).get("settings", {}), settings.stamp()
    return [name for name in wanted if before.get(name) != wanted[name]]


def _record(layout: Layout) -> dict[str, Any]:
    try:
        found = read_json(layout.run, "remove it; then run: rvc train")
    except FileNotFoundError:
        return {}
    return found if isinstance(found, dict) and {"pid", "host", "state"} <= found.keys() else {}


def _command(layout: Layout, processes: int) -> list[str]:
    """How trainers are run; torch's agent costs a second and a half to start, so one trainer goes without."""
    agent = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes)]
    return [sys.executable, *(agent if processes > 1 else []), "-m", _MODULE, "work", str(layout.root), layout.name]


# -- the keeper ----------------------------------------------------------------------------------------------------
def _keep(layout: Layout) -> int:
    """Run the trainer, or several, or one in their place, and write down how that ended."""
    sys.stdin.read()
    with mirroring(layout, MirrorSettings.of(**_record(layout)["mirror"]), _log):
        exit_code = _run(layout)
        if _are_deaf(layout):
            _change(layout, f"{_DEAF}: they try again without direct transfers (NCCL_P2P_DISABLE=1)")
            exit_code = _run(layout, NCCL_P2P_DISABLE="1")
        if _are_deaf(layout):
            _change(layout, f"{_DEAF}: training goes on with one of them", alone=True)
            exit_code = _run(layout)
    record = _judged(layout, exit_code)
    _log(f"ended: {record['state']}" + (f": {record['error']}" if "error" in record else ""))
    with contextlib.suppress(RVCError, OSError):     # a disk that refuses this: whoever watches judges for itself
        write_json(layout.run, record)
    return 0 if record["state"] == "done" else 1


def _are_deaf(layout: Layout) -> bool:
    return any(UNHEARD in line for line in _log_of(layout))


def _change(layout: Layout, note: str, *, alone: bool = False) -> None:
    """Say what is tried now, also to whoever watches, and forget what the try before left."""
    _log(note)
    record = {key: value for key, value in _record(layout).items() if key not in ("error", "kind", "hint")}
    write_json(layout.run, record | {"note": note, "command": record["command_of_one" if alone else "command"],
                                     "log_begins": layout.log.stat().st_size})


def _run(layout: Layout, **environment: str) -> int:
    """Run the trainer to its end, and say when it stalls."""
    trainer = subprocess.Popen(_record(layout)["command"], stdin=subprocess.DEVNULL, env={**os.environ, **environment})
    told_of = ""
    while trainer.poll() is None:
        with contextlib.suppress(subprocess.TimeoutExpired):
            trainer.wait(_LOOK_SECONDS)
        with contextlib.suppress(OSError, ValueError):
            stall = stalled(json.loads(layout.beacon.read_text("utf-8")))
            if stall and not told_of:
                _log(stall)
            told_of = stall
    return trainer.returncode


def _log(line: str) -> None:
    with contextlib.suppress(OSError):
        sys.stderr.write(line + "\n")
        sys.stderr.flush()


def _judged(layout: Layout, exit_code: int | None) -> dict[str, Any]:
    """The record of a training that is over, with the truth about it: ``done`` only if everything says so."""
    record = {**_record(layout), "exit_code": exit_code}
    if "error" in record:                            # it knew itself why
        return {**record, "state": "failed"}
    reason = _refuted(layout, record["report"]) if "report" in record else "it ended without a result"
    if not reason and exit_code in (0, None):
        return {**record, "state": "done"}
    lines = _log_of(layout)[-_TAIL_LINES:]
    ending = "" if exit_code is None else f"exit {exit_code}"
    cause, hint = _cause("\n".join([*lines, ending]), layout) or (
        f"it ended with status {exit_code}" if exit_code else reason, f"look at {layout.log}; {_AGAIN}")
    return {**record, "state": "failed", "kind": "RVCError", "error": f"training failed: {cause}", "hint": hint,
            "log": lines}


def _refuted(layout: Layout, report: dict[str, Any]) -> str:
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


def _log_of(layout: Layout) -> list[str]:
    """The lines that this training has logged, or its newest try."""
    try:
        with layout.log.open("rb") as log:
            log.seek(_record(layout)["log_begins"])
            return log.read().decode("utf-8", "replace").splitlines()
    except (OSError, KeyError):
        return []


# -- the trainer ---------------------------------------------------------------------------------------------------
def _work(layout: Layout) -> int:
    """Train with the settings of ``run.json``, and write the report, or the error, into it."""
    record = _record(layout)
    from .trainer import train

    asked = Stop()
    if layout.stop.exists():                         # since torch is loaded: training would take it for an old one
        asked.request()
    settings, runtime = TrainSettings.of(**record["settings"]), RuntimeSettings.of(**record["runtime"])
    first = os.environ.get("RANK", "0") == "0"
    progress = Beacon(layout.beacon, Terminal(line_every_seconds=60)) if first else Terminal()
    result: dict[str, Any]
    try:
        if first and "note" in record:
            progress.say(record["note"])
        result = {"report": train(layout, settings, runtime=runtime, progress=progress, stop=asked).as_json()}
    except RVCError as error:
        result = {"kind": type(error).__name__, "error": str(error), "hint": error.hint}
        _log(f"{error}\n     {error.hint}")       # who watches is told by an error of its own
    with contextlib.suppress(RVCError, OSError):
        if "error" not in (now := _record(layout)) and (first or "error" in result):    # of errors, the first
            write_json(layout.run, {**record, **now, **result})
    return 0 if "report" in result else 1


def main(argv: list[str]) -> int:
    """Be the keeper or the trainer of an experiment: ``keep FOLDER NAME`` or ``work FOLDER NAME``."""
    role, root, name = argv
    return (_keep if role == "keep" else _work)(Layout(Path(root), name))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
