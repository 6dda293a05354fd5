"""What the sections of `gpu.py` measure with: equal networks and batches, times, kernels, memory."""

import contextlib
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))
import torch

from rvc_core.nn.synthesizer import SynthesisNoise
from rvc_core.presets import VoiceSpec, preset
from rvc_core.progress import Stop
from rvc_core.settings import RuntimeSettings
from rvc_core.system.memory import release
from rvc_core.training.graphs import StepGraphs
from rvc_core.training.memory import Portions
from rvc_core.training.preflight import noisy_clip
from rvc_core.training.step import Networks
from rvc_core.workspace.dataset import Batch, draw_noise


class Bench:
    """The device, the architecture that counts, and what did not hold."""

    def __init__(self, device: str, preset_name: str, reference: Path | None) -> None:
        self.device, self.name, self.reference = torch.device(device), preset_name, reference
        self.spec = preset(preset_name)
        self.on_gpu = self.device.type == "cuda"
        self.runtime = RuntimeSettings(device=device, gpus=1, threads=0 if self.on_gpu else 1)
        self.failed: list[str] = []

    def hold(self, claim: str, true: bool) -> None:
        """Note a claim that does not hold."""
        if not true:
            self.failed.append(claim)

    def networks(
        self, dtype: torch.dtype, spec: VoiceSpec | None = None, device: torch.device | None = None
    ) -> Networks:
        """Random networks, the same each time."""
        networks = Networks.fresh(spec or self.spec, seed=1, device=device or self.device)
        networks.compute_in(dtype)
        return networks

    def batch(self, clips: int, spec: VoiceSpec | None = None, device: torch.device | None = None) -> Batch:
        """A batch whose draws are fixed, drawn on the CPU."""
        spec, device = spec or self.spec, device or self.device
        clip = noisy_clip(spec)
        frames = clip.frames * clips
        noise = draw_noise([clip.frames] * clips, spec, seed=(7,), device=torch.device("cpu"))
        moved = {name: part if part is None else part.to(device) for name, part in vars(noise).items()}
        return replace(Batch.of([clip] * clips, device), noise=SynthesisNoise(**moved), whole_frames=frames)

    def seconds(self, work: Callable[[], object], times: int) -> float:
        """The median time of some work, after one time for nothing."""
        taken = []
        for _ in range(times + 1):
            self.synchronize()
            began = time.perf_counter()
            work()
            self.synchronize()
            taken.append(time.perf_counter() - began)
        return statistics.median(taken[1:])

    def synchronize(self) -> None:
        """Wait for the device, if it is one that runs ahead."""
        if self.on_gpu:
            torch.cuda.synchronize()

    def graphs(self, networks: Networks, clips: int) -> StepGraphs:
        """Recorded steps of these networks."""
        return StepGraphs(networks, portions=Portions(clips))


class AfterSteps(Stop):
    """Asks training to end after so many steps."""

    def __init__(self, steps: int) -> None:
        super().__init__()
        self._left = steps

    @property
    def requested(self) -> bool:
        """Whether the steps are done."""
        self._left -= 1
        return self._left < 0


def apart(one: dict[str, float], other: dict[str, float]) -> float:
    """The largest relative difference of two steps' losses."""
    losses = [name for name in one if name.startswith("loss/")]
    return max(abs(one[name] - other[name]) / max(abs(one[name]), 1e-3) for name in losses)


@contextlib.contextmanager
def no_waiting(bench: Bench) -> Iterator[None]:
    """Inside, torch raises where the processor would wait for the device."""
    if bench.on_gpu:
        torch.cuda.set_sync_debug_mode("error")
    try:
        yield
    finally:
        if bench.on_gpu:
            torch.cuda.set_sync_debug_mode("default")


def kernels(bench: Bench, work: Callable[[], object]) -> tuple[list[tuple[str, float]], float]:
    """Name and seconds of each kernel, and their sum."""
    kinds = [torch.profiler.ProfilerActivity.CPU] + [torch.profiler.ProfilerActivity.CUDA] * bench.on_gpu
    with torch.profiler.profile(activities=kinds) as profile:
        work()
        bench.synchronize()
    cuda = torch.autograd.DeviceType.CUDA
    kernels = [(each.name, each.self_device_time_total / 1e6) for each in profile.events() if each.device_type == cuda]
    return kernels, sum(seconds for _, seconds in kernels)


def kernels_by_time(kernels: list[tuple[str, float]]) -> list[tuple[str, int, float]]:
    """Name, number and milliseconds of each kind of kernel, the longest first."""
    found: dict[str, list[float]] = {}
    for name, seconds in kernels:
        found.setdefault(name, []).append(seconds)
    rows = [(name[:90], len(taken), round(1000 * sum(taken), 2)) for name, taken in found.items()]
    return sorted(rows, key=lambda row: -row[2])


def timed_steps(bench: Bench, step: Callable[[], object]) -> tuple[float, int]:
    """The median time of a step, and the most memory that was reserved."""
    for _ in range(3):
        step()
    if bench.on_gpu:
        release()
        torch.cuda.reset_peak_memory_stats()
    seconds = bench.seconds(step, 7 if bench.on_gpu else 1)
    return seconds, torch.cuda.max_memory_reserved() if bench.on_gpu else 0
