"""Where we run: which platform it is, what it allows, which device computes, and what is wrong with the installation.

Facts about other people's services change; each therefore carries its date and its source.
"""

import importlib.metadata
import os
import platform as machine
import re
import shutil
import subprocess
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

from .. import __version__
from ..errors import ResourceError, SettingsError
from .threads import choose_threads

_REPORTED_PACKAGES = ("torch", "torchaudio", "numpy", "scipy", "librosa", "transformers", "faiss-cpu",
                      "faiss-gpu", "torchfcpe", "torchcrepe", "pyworld-prebuilt", "praat-parselmouth", "Resemblyzer",
                      "speechmos", "onnxruntime", "pocketsphinx", "papermill", "ipywidgets", "tensorboard")
_NEEDED_PACKAGES = ("torch", "torchaudio", "numpy", "scipy", "librosa", "transformers", "torchfcpe", "torchcrepe")
_OLDEST_TORCH = (2, 8)
_SET_UP = "run: bash setup_env.sh"
_UNBUILT = ("choose another accelerator (on Kaggle GPU T4 x2: it retired the P100 in September 2026); or install torch "
            "for CUDA 12.6, which trains in fp32 there (setup_env.sh: RVC_TORCH_INDEX=.../cu126); or do without it: "
            "CUDA_VISIBLE_DEVICES=-1")
_COMFORTABLE_BYTES = 5 << 30   # a checkpoint pair of a 48k voice takes 1 GB, and two are kept
_SESSION_MARGIN_MINUTES = 20.0  # for copying results out of a session, and for figures that are only nearly right


@dataclass(frozen=True)
class Limit:
    """One thing that a platform restricts, with the date and the source of the statement.

    Attributes
    ----------
    session_hours : tuple of float
        Ages at which it ends a session, ascending; the second for those who pay.
    """

    text: str
    date: str
    source: str
    session_hours: tuple[float, ...] = ()


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
    earlier : Path or None
        Where it shows what earlier sessions and jobs left, to be read only.
    """

    name: str
    title: str
    home: Path
    storage: Path | None
    limits: tuple[Limit, ...] = ()
    earlier: Path | None = None


_KAGGLE_LIMITS = (
    Limit("12 hours a session, 30 GPU hours a week", "2026-07", "Kaggle's documentation, as summarised by users",
          session_hours=(12.0,)),
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
    Limit("about 90 minutes idle, about 12 hours a session (24 when paid)", "2026-07-30", "google-colab-cli docs",
          session_hours=(12.0, 24.0)),
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
        return Platform("kaggle", "Kaggle", working, working, _KAGGLE_LIMITS, Path("/kaggle/input"))
    if "LIGHTNING_CLOUD_SPACE_ID" in environment:   # a job may not write to the Studio: its files go to the artifacts
        home = Path(environment.get("LIGHTNING_ARTIFACTS_DIR") or "/teamspace/studios/this_studio")
        return Platform("lightning", "Lightning.AI", home, home, _LIGHTNING_LIMITS, Path("/teamspace/jobs"))
    if "COLAB_RELEASE_TAG" in environment or exists("/var/colab/hostname"):
        drive = "/content/drive/MyDrive"
        storage = Path(drive, "rvc_core") if exists(drive) else None
        return Platform("colab", "Google Colab", Path("/content"), storage, _COLAB_LIMITS)
    return Platform("local", "this machine", Path.cwd(), Path.cwd())


def child_environment() -> dict[str, str]:
    """For processes that we start: they must find this package, also where it is not installed."""
    place = str(Path(__file__).parents[2])
    if place.endswith("-packages"):
        return dict(os.environ)
    return {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, [place, os.environ.get("PYTHONPATH")]))}


def started_ticks(process: int) -> int | None:
    """When a process began, in clock ticks since the machine's start: with its number, its identity.

    None when there is no such process, or it has ended and only waits to be forgotten.
    """
    try:
        fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return None
    return None if fields[0] in "ZX" else int(fields[19])


def session_minutes_left(here: Platform | None = None, age_hours: float | None = None) -> float | None:
    """Minutes until this platform ends the session, less a margin; None where no such end is known.

    Parameters
    ----------
    here : Platform, optional
        Where we run.
    age_hours : float, optional
        Age of the session: that of the container's first process.

    Examples
    --------
    >>> kaggle = detect({"KAGGLE_KERNEL_RUN_TYPE": "Batch"})
    >>> session_minutes_left(kaggle, age_hours=11.0)
    40.0
    """
    ends = [hours for limit in (here or detect()).limits for hours in limit.session_hours]
    if not ends:
        return None
    age_hours = _session_hours() if age_hours is None else age_hours
    ahead = [hours for hours in ends if hours > age_hours]   # who is beyond the first has the longer session
    return max(0.0, 60 * (min(ahead) - age_hours) - _SESSION_MARGIN_MINUTES) if ahead else None


def _session_hours() -> float:
    uptime_seconds = float(Path("/proc/uptime").read_text().split()[0])
    return (uptime_seconds - (started_ticks(1) or 0) / os.sysconf("SC_CLK_TCK")) / 3600


def home() -> Path:
    """Root of experiments, caches and weights: ``RVC_HOME``, else the platform's working folder."""
    return Path(os.environ.get("RVC_HOME") or detect().home).expanduser().absolute()


class Device(NamedTuple):
    """What computes, as ``torch.device`` takes it, and why it was chosen."""

    name: str
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
        return Device("cpu", "asked for")
    number = int(name.partition(":")[2] or 0)
    obstacle = gpu_obstacle(number)
    if obstacle is None:
        return Device(f"cuda:{number}", "a GPU is there and usable" if name == "auto" else "asked for")
    if name != "auto":
        raise ResourceError(f"{name} cannot be used: {obstacle}", hint="use the device auto, or choose a GPU machine")
    return Device("cpu", obstacle)


def count_gpus(environment: Mapping[str, str] = os.environ) -> int:
    """GPUs that a process begun here would see, counted without torch.

    Examples
    --------
    >>> count_gpus({"CUDA_VISIBLE_DEVICES": "0,2"})
    2
    """
    chosen = environment.get("CUDA_VISIBLE_DEVICES")
    if chosen is not None:
        return len([number for number in chosen.split("-1")[0].split(",") if number.strip()])
    if shutil.which("nvidia-smi") is None:
        return 0
    listed = subprocess.run(["nvidia-smi", "--list-gpus"], capture_output=True, text=True, check=False).stdout
    return sum(line.startswith("GPU ") for line in listed.splitlines())


def device_title(name: str) -> str:
    """A device's name for people, as ``NVIDIA T4, 15 GB``."""
    if not name.startswith("cuda"):
        return f"{machine.machine()} processor, {choose_threads()} threads"
    import torch

    properties = torch.cuda.get_device_properties(name)
    return f"{properties.name}, {properties.total_memory / 1e9:.0f} GB"


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
    return _unbuilt(number)


def _unbuilt(number: int) -> str | None:
    import torch

    capability = torch.cuda.get_device_capability(number)
    if _built_for(capability, torch.cuda.get_arch_list()):
        return None
    return (f"torch {torch.__version__} is not built for the {torch.cuda.get_device_name(number)} "
            f"(compute capability {capability[0]}.{capability[1]})")


def refuse_unbuilt(name: str = "auto") -> None:
    """Raise where a GPU is there that this torch has no code for: nobody chose the CPU that would train instead.

    Raises
    ------
    ResourceError
        With what works.
    """
    import torch

    if name == "auto" and torch.cuda.is_available() and (obstacle := _unbuilt(0)):
        raise ResourceError(obstacle, hint=_UNBUILT)


def _built_for(capability: tuple[int, int], architectures: list[str]) -> bool:
    """Code for sm_XY runs on X.Z with Z >= Y; compute_XY is translated for anything from X.Y on."""
    for architecture in architectures:
        kind, _, digits = architecture.rstrip("af").partition("_")
        built = int(digits[:-1]), int(digits[-1])
        if built <= capability and (kind == "compute" or built[0] == capability[0]):
            return True
    return False


def versions() -> dict[str, str | None]:
    """Versions of Python and of the packages that matter; None for one that is absent. Imports none of them."""
    found: dict[str, str | None] = {"rvc_core": __version__, "python": machine.python_version()}
    for package in _REPORTED_PACKAGES:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            found[package] = None
    return found


def check() -> dict[str, Any]:
    """Report on the installation: platform, versions, device and every problem with its remedy.

    Returns
    -------
    dict
        ``platform``, ``home``, ``limits`` (list of dict), ``versions``, ``device`` (None without torch, else a dict
        of ``name``, ``reason`` and ``title``), ``threads`` and ``problems`` (list of ``{"problem", "hint"}``, empty
        when all is well).
    """
    here, found, device = detect(), versions(), None
    if found["torch"]:
        chosen = choose_device()
        device = {"name": chosen.name, "reason": chosen.reason, "title": device_title(chosen.name)}
    problems = [*_package_problems(found), *_gpu_problems(device), *_disk_problems(home())]
    return {"platform": here.name, "home": str(home()), "limits": [asdict(limit) for limit in here.limits],
            "versions": found, "device": device, "threads": choose_threads(),
            "problems": [{"problem": problem, "hint": hint} for problem, hint in problems]}


def _package_problems(found: dict[str, str | None]) -> Iterator[tuple[str, str]]:
    for package in _NEEDED_PACKAGES:
        if found[package] is None:
            yield f"{package} is not installed", _SET_UP
    if found["torch"] and tuple(map(int, found["torch"].split(".")[:2])) < _OLDEST_TORCH:
        yield f"torch {found['torch']} is older than 2.8", "choose a newer runtime or environment"
    if found["torch"] and found["torchaudio"]:
        try:
            import torchaudio  # noqa: F401
        except (ImportError, OSError) as error:   # OSError: its compiled part was built for another torch
            yield f"torchaudio does not import: {str(error).splitlines()[0]}", _SET_UP
    if found["faiss-cpu"] and found["faiss-gpu"]:
        yield "faiss-cpu and faiss-gpu overwrite each other", "uninstall both with pip, then install one of them"
    if not (found["faiss-cpu"] or found["faiss-gpu"]):
        yield "faiss is not installed, so no index can be built", _SET_UP


def _gpu_problems(device: dict[str, str] | None) -> Iterator[tuple[str, str]]:
    if device and device["name"] == "cpu" and shutil.which("nvidia-smi"):
        yield (f"there is a GPU, but {device['reason']}", _UNBUILT if "not built for" in device["reason"] else
               "install a torch built for it (RVC_TORCH_INDEX, see setup_env.sh), or stay on the CPU")


def _disk_problems(home: Path) -> Iterator[tuple[str, str]]:
    existing = next(folder for folder in (home, *home.parents) if folder.exists())
    if not os.access(existing, os.W_OK):
        yield f"{home} is not writable", "set RVC_HOME to a folder of your own"
    if shutil.disk_usage(existing).free < _COMFORTABLE_BYTES:
        yield f"{home} has less than 5 GB free", "free some space, or set RVC_HOME to a larger disk"
