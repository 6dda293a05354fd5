"""Which device computes and why, and why a GPU cannot be used."""

import os
import platform as machine
import re
import shutil
import subprocess
from collections.abc import Mapping
from typing import NamedTuple

from ..errors import ResourceError, SettingsError
from ..progress import counted
from .threads import choose_threads

UNBUILT = (
    "choose another accelerator (on Kaggle GPU T4 x2, because it retired the P100 in September 2026); or install torch "
    "for CUDA 12.6, which trains in fp32 on it (setup_env.sh: RVC_TORCH_INDEX=.../cu126); or train on the CPU: "
    "CUDA_VISIBLE_DEVICES=-1"
)


class Device(NamedTuple):
    """A device's name, as ``torch.device`` takes it, and why it was chosen."""

    name: str
    reason: str


def choose_device(name: str = "auto") -> Device:
    """Choose the device that computes.

    Parameters
    ----------
    name : str
        ``auto``, ``cpu``, ``cuda`` or ``cuda:N``.

    Raises
    ------
    SettingsError
        If it is none of these.
    ResourceError
        If you ask for a GPU by name and it cannot be used.

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
    """Number of GPUs that a new process would see, counted without torch.

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


class Gpu(NamedTuple):
    """An NVIDIA GPU: its name, memory in GiB, and compute capability."""

    name: str
    memory_gb: float
    capability: tuple[int, int]


def list_gpus(environment: Mapping[str, str] = os.environ) -> list[Gpu]:
    """The GPUs that a new process would see, as the driver describes them: they are not touched, torch is not loaded.

    Examples
    --------
    >>> list_gpus({"CUDA_VISIBLE_DEVICES": "-1"})
    []
    """
    if not (count := count_gpus(environment)) or shutil.which("nvidia-smi") is None:
        return []
    asked = ["nvidia-smi", "--query-gpu=name,memory.total,compute_cap", "--format=csv,noheader,nounits"]
    listed = subprocess.run(asked, capture_output=True, text=True, check=False).stdout
    rows = re.findall(r"^(.+), (\d+), (\d+)\.(\d+)$", listed, re.MULTILINE)
    gpus = [Gpu(name.strip(), int(mib) / 1024, (int(major), int(minor))) for name, mib, major, minor in rows]
    chosen = [number for number in environment.get("CUDA_VISIBLE_DEVICES", "").split(",") if number.strip().isdigit()]
    return [gpus[int(number)] for number in chosen if int(number) < len(gpus)] or gpus[:count]


def device_title(name: str) -> str:
    """A device's name as shown to people: ``NVIDIA T4, 15 GB``."""
    if not name.startswith("cuda"):
        return f"{machine.machine()} processor, {counted(choose_threads(), 'thread')}"
    import torch

    properties = torch.cuda.get_device_properties(name)
    return f"{properties.name}, {properties.total_memory / 1e9:.0f} GB"


def gpu_obstacle(number: int = 0) -> str | None:
    """Why this GPU cannot be used, as the end of a sentence. None if it can."""
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
    return (
        f"torch {torch.__version__} is not built for the {torch.cuda.get_device_name(number)} "
        f"(compute capability {capability[0]}.{capability[1]})"
    )


def refuse_unbuilt(name: str = "auto") -> None:
    """Raise if this torch has no code for the GPU, because nobody chose to train on the CPU instead.

    Raises
    ------
    ResourceError
        With what you can do.
    """
    import torch

    if name == "auto" and torch.cuda.is_available() and (obstacle := _unbuilt(0)):
        raise ResourceError(obstacle, hint=UNBUILT)


def _built_for(capability: tuple[int, int], architectures: list[str]) -> bool:
    """Code for sm_XY runs on X.Z if Z >= Y. compute_XY is translated for X.Y and anything newer."""
    for architecture in architectures:
        kind, _, digits = architecture.rstrip("af").partition("_")
        built = int(digits[:-1]), int(digits[-1])
        if built <= capability and (kind == "compute" or built[0] == capability[0]):
            return True
    return False
