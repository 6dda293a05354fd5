"""What cases on the fake GPU report: the quick ones run once, in one process, for all tests and workers."""

import fcntl
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

HERE = Path(__file__).parent


def _has_guard() -> bool:
    from torch.version import cuda

    return cuda is not None or shutil.which("g++") is not None


needs_compiler = pytest.mark.skipif(not _has_guard(), reason="a CPU build of torch needs g++ for fake CUDA tensors")


def run(script: str, *cases: str) -> dict[str, dict[str, Any]]:
    """Run these cases of a script; returns what each found, by name."""
    command = [sys.executable, str(HERE / script), *cases]
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"})
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    rows = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    return {row.pop("case"): row for row in rows}


def run_quick(factory: pytest.TempPathFactory) -> dict[str, dict[str, Any]]:
    """What the quick cases found; all workers of a session share it."""
    found = shared_folder(factory) / "quick_cases.json"
    with found.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not found.exists():
            found.write_text(json.dumps(run("quick_cases.py")))
    return json.loads(found.read_text())


def shared_folder(factory: pytest.TempPathFactory) -> Path:
    """A folder of this session, the same for all its workers."""
    return factory.getbasetemp().parent if "PYTEST_XDIST_WORKER" in os.environ else factory.getbasetemp()
