"""Results: measured, and tagged with what they were made of, so that another one never replaces one silently."""

import hashlib
from pathlib import Path

import numpy as np

from ..audio.tracks import comment_of
from ..audio.waveform import Audio
from ..errors import AudioError
from ..features.retrieval import FeatureIndex
from ..settings import ConvertSettings
from ..system.files import numbered, sha256_of, signature
from ..workspace.layout import voice_path
from ..workspace.voice_file import VoiceFile

SILENT_RMS, _QUIET_RMS = 1e-4, 1e-3
CODEC_SECONDS = {".mp3": 0.15, ".m4a": 0.15}  # these codecs add frames at both ends
_TAG = "voice converted by rvc_core with {name} ({made_of})"


def identity_of(voice: VoiceFile, index: FeatureIndex | None) -> str:
    """Sixteen hex digits of a voice's weights and its index."""
    digest = hashlib.sha256()
    for name, tensor in sorted(voice.weights.items()):
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return signature([digest.hexdigest(), [index.vectors, index.note] if index else None])


def made_of(identity: str, source: Audio | Path, settings: ConvertSettings) -> str:
    """Sixteen hex digits for a voice, a source (its samples, or its file), and the settings that change the sound."""
    values = settings.model_dump(mode="json", exclude={"output_format", "output_depth"})
    curve = sha256_of(Path(settings.f0_curve).expanduser()) if settings.f0_curve else ""
    curve += sha256_of(voice_path(settings.blend_with)) if settings.blend_with else ""
    if isinstance(source, Path):
        return signature([identity, sha256_of(source), values, curve])
    samples = hashlib.sha256(source.samples.tobytes()).hexdigest()
    return signature([identity, source.sample_rate, samples, values, curve])


def tag_of(name: str, made_of: str) -> str:
    """The comment in a result's metadata.

    Examples
    --------
    >>> tag_of("alice", "0123456789abcdef")
    'voice converted by rvc_core with alice (0123456789abcdef)'
    """
    return _TAG.format(name=name or "a voice", made_of=made_of)


def place_for(output: Path, tag: str) -> Path:
    """The path itself if it is free or holds this very result, else the first free one with a number."""

    def is_taken(path: Path) -> bool:
        try:
            return path.is_symlink() or (path.exists() and (not path.is_file() or comment_of(path) != tag))
        except AudioError:  # not a recording
            return True

    return numbered(output, is_taken)


def check_sanity(made: Audio, source: Audio, *, tolerance_seconds: float = 0.02) -> dict[str, float]:
    """Measure a result; raises an AudioError if it is silent or does not have the length of its source."""
    rms, source_rms = (_rms(audio.samples) for audio in (made, source))
    peak = float(np.abs(made.samples).max(initial=0))
    return check_figures(rms, peak, made.seconds - source.seconds, source_rms, tolerance_seconds=tolerance_seconds)


def _rms(samples: np.ndarray) -> float:
    return float(np.sqrt(np.mean(np.square(samples, dtype=np.float64)))) if len(samples) else 0.0


def check_figures(
    rms: float, peak: float, difference_seconds: float, source_rms: float, *, tolerance_seconds: float
) -> dict[str, float]:
    """As `check_sanity`, of what was measured already."""
    if rms < SILENT_RMS and source_rms < _QUIET_RMS:
        raise AudioError(
            f"the recording is too quiet: {20 * np.log10(source_rms):.0f} dB", hint="raise its level, then convert it"
        )
    if rms < SILENT_RMS:
        raise AudioError("the result is silent", hint="the voice is damaged or untrained: use another checkpoint")
    if abs(difference_seconds) > tolerance_seconds:
        raise AudioError(
            f"the result's length differs from the source's by {difference_seconds:+.2f} s",
            hint="set `output_format` to wav",
        )
    return {
        "rms_db": round(20 * np.log10(rms), 2),
        "peak_db": round(20 * float(np.log10(peak)), 2),
        "seconds_difference": round(difference_seconds, 4),
    }
