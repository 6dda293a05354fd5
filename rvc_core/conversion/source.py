"""The source of a conversion: at 16 kHz without rumble, padded with context, and its pitch."""

from pathlib import Path

import numpy as np

from ..audio.waveform import Audio, highpass
from ..errors import AudioError
from ..features.high_pitch import folded
from ..features.pitch import PitchTrack, pitch_estimator, pitch_method, read_curve
from ..presets import Voicing
from ..settings import RuntimeSettings
from ..system.devices import choose_device
from ..system.threads import set_threads
from .outputs import SILENT_RMS
from .windows import CONTEXT_FRAMES, FRAME_SAMPLES

SOURCE_RATE_HZ = 16000
_LOUD_QUANTILE, _LOUD = 0.95, 0.1  # pitch is estimated where the louder samples are at least that


def prepared(source: Audio) -> np.ndarray:
    """The source as 16 kHz mono, high-passed and scaled to peaks of at most 0.95.

    It is extended by a second of its reflection, so that an offset or a hum makes no click where the sound begins.
    """
    if source.seconds == 0 or np.sqrt(np.mean(np.square(source.samples))) < SILENT_RMS:
        raise AudioError("the recording is silent", hint="choose a recording with a voice in it")
    second = source.sample_rate
    extended = np.pad(source.samples, second, mode="reflect", reflect_type="odd")
    wide = highpass(Audio(extended, second).resample(SOURCE_RATE_HZ), zero_phase=True).samples
    samples = wide[SOURCE_RATE_HZ:-SOURCE_RATE_HZ]
    return samples / max(1.0, float(np.abs(samples).max()) / 0.95)


def estimated_pitch(
    samples: np.ndarray, method: str, device: str, voicing: Voicing = "periodicity"
) -> tuple[PitchTrack, np.ndarray]:
    """Pitch of prepared samples, at a level that estimators are made for, and which frames were too high for them."""
    loudest = float(np.quantile(np.abs(samples), _LOUD_QUANTILE))
    samples = samples * np.float32(max(1.0, min(_LOUD / max(loudest, 1e-9), 1 / max(np.abs(samples).max(), 1e-9))))
    return folded(samples, pitch_estimator(pitch_method(method), device, voicing)(samples))


def source_pitch(source: Audio, method: str, runtime: RuntimeSettings = RuntimeSettings()) -> PitchTrack:
    """Pitch of a recording, estimated as in conversion."""
    set_threads(runtime.threads)
    return estimated_pitch(prepared(source), method, choose_device(runtime.device).name)[0]


def drawn_pitch(path: Path, frames: int) -> tuple[PitchTrack, list[str]]:
    """The pitch in a file, padded to `frames` like the source in `padded_with_context`, and warnings."""
    curve, wanted = read_curve(path), frames - 2 * CONTEXT_FRAMES - 4
    f0_hz = np.pad(
        curve.fitted(max(1, wanted)).f0_hz,
        (CONTEXT_FRAMES, CONTEXT_FRAMES + 4),
        mode="reflect" if wanted > 1 else "edge",
    )
    lengths = f"{path.name} is {len(curve.f0_hz) / 100:.1f} s long, the recording {wanted / 100:.1f} s"
    warnings = [lengths] if abs(len(curve.f0_hz) - wanted) > 100 else []
    return PitchTrack(f0_hz, f0_hz > 0).fitted(frames), warnings


def padded_with_context(samples: np.ndarray) -> np.ndarray:
    """The source with reflected context on both sides, and space for the last content frame."""
    context = CONTEXT_FRAMES * FRAME_SAMPLES
    return np.pad(samples, (context, context + 4 * FRAME_SAMPLES), mode="reflect" if len(samples) > 1 else "edge")
