"""What all tests share: the option --slow, few threads, and a home of their own."""

import gc
import os
import sys
from collections.abc import Callable
from pathlib import Path

# Before torch and numpy are imported: one thread, so that sums have one order and a busy machine cannot stall a test.
for _variable in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMBA_NUM_THREADS"):
    os.environ.setdefault(_variable, "1")
os.environ.setdefault("MPLBACKEND", "agg")
os.environ.setdefault("HF_HUB_OFFLINE", "1")  # the suite runs offline, and must not wait for a network
os.environ.setdefault("JUPYTER_PREFER_ENV_PATH", "1")
sys.path.insert(0, str(Path(__file__).parent))  # tests share tests/synth.py

import pytest  # noqa: E402

# Files with tests of half a minute and more. They run first: at the end of the suite one core would wait for the other.
_LONGEST = ("test_browser.py", "test_journey.py", "_on_gpu.py")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--slow", action="store_true", help="run the slow proofs too (minutes each)")
    parser.addoption("--recordings", default="", help="a real person's two minutes, for the slow proof of the notebook")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    items.sort(key=lambda item: not item.path.name.endswith(_LONGEST))
    if config.getoption("--slow"):
        return
    for item in items:
        if "slow" in item.keywords:
            item.add_marker(pytest.mark.skip(reason="slow: runs with --slow"))


def pytest_collection_finish() -> None:
    """Spare every later collection the half million objects of imported modules, which would cost 0.2 s each time."""
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session", autouse=True)
def rvc_home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A fresh root for experiments, caches and weights, so that no test meets the user's files."""
    home = tmp_path_factory.mktemp("rvc home")
    os.environ["RVC_HOME"] = str(home)
    return home


@pytest.fixture
def pretend(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Let a few lines of Python, which know `layout` and the number of `processes`, be the trainer."""
    from rvc_core.training import detached

    before = (
        "import fcntl, json, os, signal, sys, time\nfrom pathlib import Path\n"
        "from rvc_core.system.documents import *\nfrom rvc_core.system.files import *\n"
        "from rvc_core.workspace.layout import Layout\n"
        "layout, processes = Layout(Path(sys.argv[1]), 'tiny'), sys.argv[2]\n"
        "def record(**changes): write_json(layout.run, read_json(layout.run, object) | changes)\n"
    )
    monkeypatch.setattr(detached, "_MODULE", "pretended")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")]))
    return lambda lines: monkeypatch.setenv("PRETENDED", before + lines)


@pytest.fixture
def tiny(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make the preset ``nano`` a voice that trains within a test."""
    from rvc_core import presets
    from tiny import TINY

    monkeypatch.setitem(presets.PRESETS, "nano", TINY)
