"""Check an installation: what is wrong, and what to do about it."""

import importlib.metadata
import os
import platform as machine
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from .. import __version__
from .devices import UNBUILT, choose_device, device_title
from .platforms import child_environment, detect, home
from .threads import choose_threads

_NEEDED_PACKAGES = ("torch", "torchaudio", "numpy", "scipy", "librosa", "transformers", "torchfcpe", "torchcrepe")
_REPORTED_PACKAGES = (
    *_NEEDED_PACKAGES,
    "faiss-cpu",
    "faiss-gpu",
    "pyworld-prebuilt",
    "praat-parselmouth",
    "Resemblyzer",
    "speechmos",
    "onnxruntime",
    "pocketsphinx",
    "papermill",
    "ipywidgets",
    "tensorboard",
)
_OLDEST_TORCH = (2, 8)
_SET_UP = "run: bash setup_env.sh"
_COMFORTABLE_BYTES = 5 << 30  # a pair of checkpoints of a 48k voice takes 1 GB, and two pairs are kept


def versions() -> dict[str, str | None]:
    """Versions of Python and of the packages that matter, without importing them. None: not installed."""
    found: dict[str, str | None] = {"rvc_core": __version__, "python": machine.python_version()}
    for package in _REPORTED_PACKAGES:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            found[package] = None
    return found


def check() -> dict[str, Any]:
    """Report on the installation: platform, versions, device, and each problem with a hint.

    Returns
    -------
    dict
        ``platform``, ``home``, ``versions``, ``device`` (None without torch, else a dict
        of ``name``, ``reason`` and ``title``), ``threads`` and ``problems`` (list of ``{"problem", "hint"}``).
    """
    here, found, device = detect(), versions(), None
    if found["torch"]:
        chosen = choose_device()
        device = {"name": chosen.name, "reason": chosen.reason, "title": device_title(chosen.name)}
    problems = [*_package_problems(found), *_gpu_problems(device), *_disk_problems(home())]
    return {
        "platform": here.name,
        "home": str(home()),
        "versions": found,
        "device": device,
        "threads": choose_threads(),
        "problems": [{"problem": problem, "hint": hint} for problem, hint in problems],
    }


def gpu_report() -> str:
    """What ``rvc check --gpu`` prints, in under a minute, or why it cannot measure.

    A process of its own measures, so that a notebook's kernel takes no memory of the GPU.
    """
    done = subprocess.run(
        [sys.executable, "-m", "rvc_core.cli", "check", "--gpu", "--preset", "v2-40k"],
        env=child_environment(),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    return (done.stderr if done.returncode else done.stdout).strip()


def _package_problems(found: dict[str, str | None]) -> Iterator[tuple[str, str]]:
    for package in _NEEDED_PACKAGES:
        if found[package] is None:
            yield f"{package} is not installed", _SET_UP
    if found["torch"] and tuple(map(int, found["torch"].split(".")[:2])) < _OLDEST_TORCH:
        yield f"torch {found['torch']} is older than 2.8", "choose a newer runtime or environment"
    if found["torch"] and found["torchaudio"]:
        try:
            import torchaudio  # noqa: F401
        except (ImportError, OSError) as error:  # OSError: its compiled part is for another torch
            yield f"torchaudio does not import: {str(error).splitlines()[0]}", _SET_UP
    if found["faiss-cpu"] and found["faiss-gpu"]:
        yield "faiss-cpu and faiss-gpu overwrite each other", "uninstall both with pip, then install one of them"
    if not (found["faiss-cpu"] or found["faiss-gpu"]):
        yield "faiss is not installed, so no index can be built", _SET_UP


def _gpu_problems(device: dict[str, str] | None) -> Iterator[tuple[str, str]]:
    if device and device["name"] == "cpu" and shutil.which("nvidia-smi"):
        yield (
            f"there is a GPU, but {device['reason']}",
            UNBUILT
            if "not built for" in device["reason"]
            else "install a torch that is built for it (RVC_TORCH_INDEX, see setup_env.sh), or train on the CPU",
        )


def _disk_problems(home: Path) -> Iterator[tuple[str, str]]:
    existing = next(folder for folder in (home, *home.parents) if folder.exists())
    if not os.access(existing, os.W_OK):
        yield f"{home} is not writable", "set RVC_HOME to a folder of your own"
    if shutil.disk_usage(existing).free < _COMFORTABLE_BYTES:
        yield f"{home} has less than 5 GB free", "free some space, or set RVC_HOME to a larger disk"
