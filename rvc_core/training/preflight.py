"""Pre-flight: what this GPU does for a training, measured in under a minute, for a report that users can send."""

import statistics
import time
from dataclasses import dataclass, replace

import torch

from ..nn.spectrogram import linear_spectrogram
from ..presets import VoiceSpec
from ..progress import Report
from ..settings import TrainSettings
from ..workspace.dataset import Batch, ClipTensors, draw_noise
from .graphs import StepGraphs
from .memory import Portions, measured_memory
from .precision import choose_precision
from .start import measured_batch_size
from .step import Networks

CLIP_FRAMES = 370  # what recordings are cut into
_STEPS = 10
_MINUTES, _EPOCHS = 10, 200  # of the training whose hours are reckoned
_SETTINGS = TrainSettings(batch_size="auto")


@dataclass(frozen=True)
class GpuReport(Report):
    """How a GPU trains a voice of one architecture.

    Attributes
    ----------
    precision, reason : str
        The number format that training would use, and why.
    clips_per_step : int
        What ``--batch-size auto`` would choose.
    step_seconds : float
        Of a usual step with so many clips.
    peak_bytes : int
        The most memory that was reserved meanwhile.
    is_recorded : bool
        Whether steps run as CUDA graphs, which are several times faster.
    hours : float
        Of 200 epochs with ten minutes of speech.
    """

    gpu: str
    torch: str
    preset: str
    precision: str
    reason: str
    clips_per_step: int
    step_seconds: float
    peak_bytes: int
    is_recorded: bool
    hours: float


def noisy_clip(spec: VoiceSpec, frames: int = CLIP_FRAMES) -> ClipTensors:
    """A clip that needs no recording: noise with a pitch, the same each time.

    Examples
    --------
    >>> from rvc_core.presets import preset
    >>> noisy_clip(preset("nano"), 100).spectrogram.shape
    torch.Size([513, 100])
    """
    random, frames = torch.Generator().manual_seed(1), min(frames, spec.excerpt_frames)
    wave = 0.1 * torch.randn(frames * spec.hop_samples, generator=random)
    return ClipTensors(
        torch.randn(frames, spec.content_width, generator=random),
        torch.full((frames,), 60),
        torch.full((frames,), 150.0),
        linear_spectrogram(wave[None], spec)[0],
        wave,
        0,
    )


def preflight(name: str, spec: VoiceSpec, device: torch.device) -> GpuReport:
    """Train for a few steps on noise, and reckon from that; leaves nothing behind.

    Raises
    ------
    torch.OutOfMemoryError
        When not even a single clip fits.
    """
    clip = noisy_clip(spec).to(device)
    clips = measured_batch_size(spec, [clip] * 16, _SETTINGS, device)
    networks = Networks.fresh(spec, seed=1, device=device)
    precision = choose_precision("auto", networks, clip)
    networks.compute_in(precision.dtype)
    noise = draw_noise([clip.frames] * clips, spec, seed=(1,), device=device)
    batch = replace(Batch.of([clip] * clips, device), noise=noise)
    graphs, seconds = StepGraphs(networks, portions=Portions(clips)), []
    with measured_memory(device) as memory:
        for number in range(_STEPS + 5):
            began = time.perf_counter()
            graphs.step(batch).values()
            if number >= 5:  # the first ones look for algorithms, and one records
                seconds.append(time.perf_counter() - began)
    step_seconds = statistics.median(seconds)
    clips_in_all = _MINUTES * 60 * 100 / clip.frames
    return GpuReport(
        gpu=torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu",
        torch=torch.__version__,
        preset=name,
        precision=precision.name,
        reason=precision.reason,
        clips_per_step=clips,
        step_seconds=round(step_seconds, 4),
        peak_bytes=memory.peak_bytes,
        is_recorded=bool(graphs.recorded),
        hours=round(_EPOCHS * -(-clips_in_all // clips) * step_seconds / 3600, 2),
    )
