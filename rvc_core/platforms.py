"""Where we run: which platform it is, what it allows, which device computes, and what is wrong with the installation.

Facts about other people's services change; each therefore carries its date and its source.
"""

import importlib.metadata
import os
import platform as machine
import re
import shutil
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from .errors import ResourceError, SettingsError

_REPORTED_PACKAGES = ("rvc_core", "torch", "torchaudio", "numpy", "scipy", "librosa", "transformers", "faiss-cpu",
                      "faiss-gpu", "torchfcpe", "torchcrepe", "pyworld-prebuilt", "praat-parselmouth", "Resemblyzer",
                      "papermill", "ipywidgets", "tensorboard")
_OLDEST_TORCH = (2, 8)
_COMFORTABLE_BYTES = 5 << 30   # a checkpoint pair of a 48k voice takes 1 GB, and two are kept


@dataclass(frozen=True)
class Limit:
    """One thing that a platform restricts, with the date and the source of the statement."""

    text: str
    date: str
    source: str


@dataclass(frozen=True)
class Platform:
    """A place to run in.

    Parameters
    ----------
    name : str
        ``kaggle``, ``lightning``, ``colab`` or ``local``.
    title : str
        Its name for people.
    home : Path
        Where experiments are written while they run: a fast local disk.
    storage : Path or None
        What outlives the session; None where nothing does until the user mounts it.
    limits : tuple of Limit
        What ends or restricts a session.
    """

    name: str
    title: str
    home: Path
    storage: Path | None
    limits: tuple[Limit, ...] = ()


_KAGGLE_LIMITS = (
    Limit("12 hours a session, 30 GPU hours a week", "2026-07", "Kaggle's documentation, as summarised by users"),
    Limit("the GPU choice is two T4; the P100 is retired", "2026-09-17", "kaggle-cli issues 1192, 1196"),
    Limit("20 GB in /kaggle/working, kept only by Save & Run All", "2026-08-12", "docker-python repository"),
    Limit("no click reaches a notebook that runs under Save & Run All", "2026-08-12", "docker-python repository"),
)
_LIGHTNING_LIMITS = (
    Limit("one free Studio with 4 CPUs and 10 GB; GPU time is paid from credits by the second", "2026-07-19",
          "billing FAQ"),
    Limit("a Studio falls asleep when idle; home and installed packages stay", "2026-08-18", "Lightning-AI/skills"),
    Limit("one environment per Studio: no conda env and no venv beside it", "2026-08-18", "environment docs"),
)
_COLAB_LIMITS = (
    Limit("about 90 minutes idle, about 12 hours a session (24 when paid)", "2026-07-30", "google-colab-cli docs"),
    Limit("no guarantee of a GPU; usually a T4 with 15 GB", "2026-08-19", "backend-info repository"),
    Limit("deepfakes are barred on every tier, web UIs and tunnels on the free one", "2026-10", "Colab FAQ"),
)


def detect(environment: Mapping[str, str] = os.environ, exists: Callable[[str], bool] = os.path.exists) -> Platform:
    """Say where we run.

    Kaggle is asked for first because its image is built on Colab's and carries Colab's marks.

    Parameters
    ----------
    environment : mapping
        The environment variables.
    exists : callable
        Whether a path exists.

    Examples
    --------
    >>> detect({"KAGGLE_KERNEL_RUN_TYPE": "Batch", "COLAB_RELEASE_TAG": "r1"}, exists=lambda path: False).name
    'kaggle'
    """
    if "KAGGLE_KERNEL_RUN_TYPE" in environment:
        working = Path("/kaggle/working")
        return Platform("kaggle", "Kaggle", working, working, _KAGGLE_LIMITS)
    if "LIGHTNING_CLOUD_SPACE_ID" in environment:   # a job may not write to the Studio: its files go to the artifacts
        home = Path(environment.get("LIGHTNING_ARTIFACTS_DIR") or "/teamspace/studios/this_studio")
        return Platform("lightning", "Lightning.AI", home, home, _LIGHTNING_LIMITS)
    if "COLAB_RELEASE_TAG" in environment or exists("/var/colab/hostname"):
        drive = "/content/drive/MyDrive"
        storage = Path(drive, "rvc_core") if exists(drive) else None
        return Platform("colab", "Google Colab", Path("/content"), storage, _COLAB_LIMITS)
    return Platform("local", "this machine", Path.cwd(), Path.cwd())


@dataclass(frozen=True)
class Device:
    """What computes: ``name`` for ``torch.device``, ``title`` for people, and why it was chosen."""

    name: str
    title: str
    reason: str


def choose_device(name: str = "auto") -> Device:
    """Choose the device that computes, and say why.

    Parameters
    ----------
    name : str
        ``auto``, ``cpu``, ``cuda`` or ``cuda:N``.

    Raises
    ------
    SettingsError
        When it is none of these.
    ResourceError
        When a GPU is asked for by name and cannot be used.

    Examples
    --------
    >>> choose_device("cpu").name
    'cpu'
    """
    if not re.fullmatch(r"auto|cpu|cuda(:\d+)?", name):
        raise SettingsError(f"not a device: {name!r}", hint="use auto, cpu, cuda or cuda:N")
    if name == "cpu":
        return Device("cpu", _processor(), "asked for")
    number = int(name.partition(":")[2] or 0)
    obstacle = gpu_obstacle(number)
    if obstacle is None:
        import torch

        return Device(f"cuda:{number}", torch.cuda.get_device_name(number),
                      "fastest" if name == "auto" else "asked for")
    if name != "auto":
        raise ResourceError(f"{name} cannot be used: {obstacle}", hint="use the device auto, or choose a GPU machine")
    return Device("cpu", _processor(), obstacle)


def gpu_obstacle(number: int = 0) -> str | None:
    """Why this GPU cannot be used, in plain words; None when it can."""
    import torch

    if not torch.cuda.is_available():
        if shutil.which("nvidia-smi") is None:
            return "this machine has no NVIDIA GPU"
        if torch.version.cuda is None:
            return "the installed torch has no CUDA"
        return f"torch for CUDA {torch.version.cuda} finds no usable GPU or driver"
    if number >= torch.cuda.device_count():
        return f"there are {torch.cuda.device_count()} GPUs, numbered from 0"
    capability = torch.cuda.get_device_capability(number)
    if not _built_for(capability, torch.cuda.get_arch_list()):
        return (f"torch {torch.__version__} is not built for the {torch.cuda.get_device_name(number)} "
                f"(compute capability {capability[0]}.{capability[1]})")
    return None


def _built_for(capability: tuple[int, int], architectures: list[str]) -> bool:
    """Code for sm_XY runs on X.Z with Z >= Y; compute_XY is translated for anything from X.Y on."""
    for architecture in architectures:
        kind, _, digits = architecture.rstrip("af").partition("_")
        built = int(digits[:-1]), int(digits[-1])
        if built <= capability and (kind == "compute" or built[0] == capability[0]):
            return True
    return False


def choose_threads(requested: int = 0) -> int:
    """CPU threads to compute with; 0 means as many as this process may really use.

    A container shows all cores of its host while it may use two of them; far too many threads are then far slower.

    Examples
    --------
    >>> choose_threads(3), choose_threads() >= 1
    (3, True)
    """
    if requested > 0:
        return requested
    available = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    try:
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text().split()
        return max(1, min(available, round(int(quota) / int(period))))
    except (OSError, ValueError):   # no such file, or "max": no quota
        return available


def _processor() -> str:
    return f"{machine.machine()} processor, {choose_threads()} threads"


def versions() -> dict[str, str | None]:
    """Versions of Python and of the packages that matter; None for one that is absent. Imports none of them."""
    found: dict[str, str | None] = {"python": machine.python_version()}
    for package in _REPORTED_PACKAGES:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            found[package] = None
    return found


def check(home: Path) -> dict[str, Any]:
    """Report on the installation: platform, versions, device and every problem with its remedy.

    Parameters
    ----------
    home : Path
        The root of experiments, caches and weights, which has to be writable and roomy.

    Returns
    -------
    dict
        ``platform``, ``home``, ``limits`` (list of dict), ``versions``, ``device`` (dict), ``threads`` and
        ``problems`` (list of ``{"problem", "hint"}``, empty when all is well).
    """
    here, found = detect(), versions()
    device = asdict(choose_device()) if found["torch"] else None
    return {"platform": here.name, "home": str(home), "limits": [asdict(limit) for limit in here.limits],
            "versions": found, "device": device, "threads": choose_threads(),
            "problems": [{"problem": problem, "hint": hint} for problem, hint in _problems(home, found, device)]}


def _problems(home: Path, found: dict[str, str | None], device: dict[str, str] | None) -> list[tuple[str, str]]:
    problems, set_up = [], "run: bash setup_env.sh"
    for package in ("torch", "torchaudio", "numpy", "librosa", "torchfcpe", "torchcrepe"):
        if found[package] is None:
            problems.append((f"{package} is not installed", set_up))
    if found["torch"] and tuple(map(int, found["torch"].split(".")[:2])) < _OLDEST_TORCH:
        problems.append((f"torch {found['torch']} is older than 2.8", "choose a newer runtime or environment"))
    if found["torchaudio"]:
        try:
            import torchaudio  # noqa: F401
        except (ImportError, OSError) as error:
            problems.append((f"torchaudio does not import: {str(error).splitlines()[0]}", set_up))
    if found["faiss-cpu"] and found["faiss-gpu"]:
        problems.append(("faiss-cpu and faiss-gpu are both installed and overwrite each other",
                         "pip uninstall both, then install one"))
    if not (found["faiss-cpu"] or found["faiss-gpu"]):
        problems.append(("faiss is not installed, so no index can be built", set_up))
    if device and device["name"] == "cpu" and shutil.which("nvidia-smi"):
        problems.append((f"there is a GPU, but {device['reason']}",
                         "install a torch that is built for it (RVC_TORCH_INDEX in setup_env.sh), or train on the CPU"))
    existing = next(folder for folder in (home, *home.absolute().parents) if folder.exists())
    if not os.access(existing, os.W_OK):
        problems.append((f"{home} is not writable", "set RVC_HOME to a folder of your own"))
    if shutil.disk_usage(existing).free < _COMFORTABLE_BYTES:
        problems.append((f"{home} has less than 5 GB free", "set RVC_HOME to a larger disk, or free some space"))
    return problems
