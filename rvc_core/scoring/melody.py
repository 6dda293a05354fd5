"""Melody: whether a conversion keeps its source's pitch and voicing."""

import math

import numpy as np

from ..audio.waveform import Audio
from ..errors import ResourceError
from ..features.pitch import PitchTrack

_WORLD_RATE_HZ = 16_000


def pitch_share(source: PitchTrack, output: PitchTrack, cents: float = 50.0) -> float:
    """Share of the source's voiced frames whose pitch the output keeps, after the median transposition.

    A frame that is unvoiced or missing in the output does not count as kept.

    Parameters
    ----------
    source, output : PitchTrack
        Frame t is the same instant in both.
    cents : float
        Largest difference that counts as kept; 100 cents are a semitone.

    Returns
    -------
    float
        NaN if the source has no voiced frames.
    """
    if not source.voiced.any():
        return math.nan
    fitted = output.fitted(len(source.voiced))
    both = source.voiced & fitted.voiced
    if not both.any():
        return 0.0
    difference_cents = 1200.0 * np.log2(fitted.f0_hz[both].astype(np.float64) / source.f0_hz[both])
    kept = np.abs(difference_cents - np.median(difference_cents)) <= cents
    return float(kept.sum() / source.voiced.sum())


def world_copy(audio: Audio) -> Audio:
    """Analyse a recording into pitch, envelope and noise, and synthesise it again (WORLD, Morise et al., 2016).

    The copy's `pitch_share` is the highest that the estimator's own errors allow.

    Raises
    ------
    ResourceError
        When pyworld is not installed.
    """
    try:
        import pyworld
    except ImportError as error:
        raise ResourceError(f"the WORLD copy needs pyworld ({error})", hint="pip install pyworld-prebuilt") from error
    samples = audio.resample(_WORLD_RATE_HZ).samples
    copy = pyworld.synthesize(*pyworld.wav2world(samples.astype(np.float64), _WORLD_RATE_HZ), _WORLD_RATE_HZ)
    return Audio(copy[: len(samples)].astype(np.float32), _WORLD_RATE_HZ)


def vuv_agreement(source: PitchTrack, output: PitchTrack) -> float:
    """Share of the source's frames with the same voicing in both; NaN for an empty track."""
    if not len(source.voiced):
        return math.nan
    return float(np.mean(source.voiced == output.fitted(len(source.voiced)).voiced))


def pitch_error_cents(asked: PitchTrack, output: PitchTrack) -> float:
    """Mean difference between wanted and output pitch over frames voiced in both; NaN without any.

    Examples
    --------
    >>> track = PitchTrack(np.array([0, 100, 200], np.float32), np.array([False, True, True]))
    >>> round(pitch_error_cents(track, track.transposed(1)), 2)
    100.0
    """
    ours, theirs = _octaves(asked, output)
    return float(1200 * np.abs(theirs - ours).mean()) if len(ours) else math.nan


def melody_correlation(asked: PitchTrack, output: PitchTrack) -> float:
    """Correlation of log f0 over frames voiced in both; NaN if the pitch of either is constant.

    Examples
    --------
    >>> track = PitchTrack(np.array([100, 150, 200], np.float32), np.ones(3, bool))
    >>> round(melody_correlation(track, track.transposed(5)), 3)
    1.0
    """
    ours, theirs = _octaves(asked, output)
    moves = len(ours) > 1 and ours.std() > 0 and theirs.std() > 0
    return float(np.corrcoef(ours, theirs)[0, 1]) if moves else math.nan


def _octaves(*tracks: PitchTrack) -> tuple[np.ndarray, ...]:
    """Log2 of both pitches, for frames voiced in both."""
    frames = min(len(track.voiced) for track in tracks)
    both = np.all([track.voiced[:frames] for track in tracks], axis=0)
    return tuple(np.log2(track.f0_hz[:frames][both].astype(np.float64)) for track in tracks)
