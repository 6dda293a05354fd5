"""What a machine does for a training, before it begins: how many clips fit into a step, and how long a step takes.

Figures are measured on this machine where anything was, else those of docs/gpu.md and docs/benchmarks.md.
"""

import re
import socket
from dataclasses import dataclass, replace
from typing import Any

from pydantic import ConfigDict, with_config
from typing_extensions import TypedDict

from ..assets.registry import RMVPE, find
from ..errors import StageOrderError
from ..presets import PRESETS
from ..settings import RuntimeSettings
from ..system.devices import Gpu, list_gpus
from ..system.documents import Count, read_or
from ..system.platforms import detect, home, session_minutes_left
from ..verdict.overtraining import verdict_of_experiment
from ..workspace.layout import Layout
from ..workspace.manifest import ExperimentRecord
from ..workspace.retention import checkpoint_rows
from ..workspace.stamps import content_of
from .outcome import run_record

MEASURED = "gpu.json"  # under RVC_HOME: what `rvc check --gpu` measured last
USUAL_CLIPS, OVERHEAD = 8, 1.1  # validation and saving
_BATCH_OF_GB = {6: 1, 8: 2, 12: 5, 16: 8, 22: 12, 24: 14, 32: 18, 40: 24, 80: 48}  # of a guide, for slices of 10 s
_CARD_SECONDS = {"P100": 0.5, "T4": 0.16, "L4": 0.125, "A100": 0.055, "H100": 0.04, "H200": 0.038}  # v2-40k, batch 4
_BY_KERNELS = ("A100", "H100", "H200")  # limited by the number of kernels, not by memory
_CPU_SECONDS, _CPU_CLIP_SECONDS = 0.5, 7.2  # a step of nano; a clip of v2-40k: both of one core
_TWO_GPUS = 1.18  # a step of T4×2 beside one of a T4 with as many clips on each, in docs/gpu.md
OWN_RUN, OWN_GPU, OTHER_CARDS = "docs/training.md#time", "docs/gpu.md#measure-your-own", "docs/gpu.md#what-to-expect"


@with_config(ConfigDict(extra="allow"))
class MeasuredStep(TypedDict):
    """What ``rvc check --gpu`` measured."""

    gpu: str
    preset: str
    clips_per_step: Count
    step_seconds: float


@dataclass(frozen=True)
class Machine:
    """What trains: its GPUs, the minutes of this session and of a whole one, and a measured step of this very GPU."""

    gpus: tuple[Gpu, ...] = ()
    platform: str = "this machine"
    session_minutes: float | None = None
    whole_session_minutes: float | None = None
    measured: MeasuredStep | None = None
    has_rmvpe: bool = False

    @property
    def memory_gb(self) -> float:
        """Of the smallest GPU; 0 without one."""
        return min((gpu.memory_gb for gpu in self.gpus), default=0.0)

    def with_one_gpu(self) -> "Machine":
        """The same with its first GPU alone."""
        return replace(self, gpus=self.gpus[:1])

    @classmethod
    def here(cls, runtime: RuntimeSettings = RuntimeSettings()) -> "Machine":
        """What this machine is, without touching its GPUs."""
        platform, gpus = detect(), [] if runtime.device == "cpu" else list_gpus()
        measured = read_or(home() / MEASURED, MeasuredStep, None)
        return cls(
            tuple(gpus[: runtime.gpus or None]),
            platform.title,
            session_minutes_left(platform),
            session_minutes_left(platform, age_hours=0.0),
            measured if measured and gpus and measured["gpu"] == gpus[0].name else None,
            find(RMVPE) is not None,
        )


@dataclass(frozen=True)
class Begun:
    """What an experiment has behind it. `step_seconds` includes validation and saving, on this machine; 0: unknown."""

    preset: str
    epochs: int = 0
    batch_size: int | str = USUAL_CLIPS
    state: str = "cannot_tell"
    step_seconds: float = 0.0

    @classmethod
    def of(cls, layout: Layout) -> "Begun | None":
        """What this experiment has behind it; None before its first checkpoint."""
        rows = checkpoint_rows(layout)
        if not rows:
            return None
        settings, run = content_of(layout, "train").get("settings", {}), run_record(layout)
        report: dict[str, Any] = dict(run.get("report", {}))
        steps = report.get("steps", 0) - (report.get("resumed_from") or 0)
        is_own = steps > 0 and run.get("host") == socket.gethostname()
        try:
            state = verdict_of_experiment(layout).state
        except StageOrderError:  # without a record of its losses
            state = "cannot_tell"
        return cls(
            ExperimentRecord.load(layout).preset,
            max(row["epoch"] for row in rows),
            settings.get("batch_size", USUAL_CLIPS),
            state,
            float(report.get("seconds", 0)) / steps if is_own else 0.0,
        )


def guide_batch(gigabytes: float) -> tuple[int, int]:
    """The card of a guide's table that has so much memory (its GB), and its batch size for slices of 10 s.

    Examples
    --------
    >>> guide_batch(15.0), guide_batch(2), guide_batch(22.5)
    ((16, 8), (6, 1), (24, 14))
    """
    return max((row for row in _BATCH_OF_GB.items() if gigabytes >= 0.9 * row[0]), default=(6, 1))


def card_of(name: str) -> str:
    """The card of docs/gpu.md that a GPU's name means; empty if none.

    Examples
    --------
    >>> card_of("NVIDIA A100-SXM4-40GB"), card_of("NVIDIA L40S"), card_of("Tesla T4")
    ('A100', '', 'T4')
    """
    return next((card for card in _CARD_SECONDS if card in re.split(r"[\s-]+", name)), "")


def step_of(machine: Machine, name: str, clips: int, begun: Begun | None = None) -> tuple[float, str]:
    """Seconds of a step with so many clips on each GPU, and the page with the figure; 0: this GPU is unknown.

    Examples
    --------
    >>> step_of(Machine((Gpu("Tesla T4", 15.0, (7, 5)),)), "v2-40k", 8)
    (0.32, 'docs/gpu.md#what-to-expect')
    """
    spec, is_nano = PRESETS[name], name.startswith("nano")
    if begun and begun.step_seconds:
        return begun.step_seconds / OVERHEAD, OWN_RUN
    size = spec.segment_frames * spec.hop_samples / 12_800
    if not machine.gpus and is_nano:
        return _CPU_SECONDS * clips / USUAL_CLIPS, "docs/benchmarks.md#training-step-of-nano"
    if not machine.gpus:
        return _CPU_CLIP_SECONDS * clips * size, "docs/benchmarks.md#training-step-beside-rvc-webuis"
    together, known = _TWO_GPUS if len(machine.gpus) > 1 else 1.0, machine.measured
    if known and known["preset"].startswith("nano") == is_nano:
        part = 0.4 + 0.6 * clips / max(1, known["clips_per_step"])
        return together * known["step_seconds"] * part, OWN_GPU
    card = card_of(machine.gpus[0].name)
    if not card or is_nano:
        return 0.0, OWN_GPU
    part = 0.75 + clips / 16 if card in _BY_KERNELS else clips / 4
    return together * size * _CARD_SECONDS[card] * part, OTHER_CARDS
