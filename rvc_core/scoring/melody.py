"""Whether a conversion keeps the melody of its source: pitch, and where there is any."""

import math

import numpy as np

from ..audio.waveform import Audio
from ..errors import ResourceError
from ..features.pitch import PitchEstimator, PitchTrack

_WORLD_RATE_HZ = 16_000


def pitch_share(source: PitchTrack, output: PitchTrack, cents: float = 50.0) -> float:
    """Share of the source's voiced frames whose pitch the output keeps, after the median transposition.

    A frame that is unvoiced in the output is not kept; frames beyond the shorter track are lost as well.

    Parameters
    ----------
    source, output : PitchTrack
        Frame t of both is the same instant.
    cents : float
        Largest difference that counts as kept; 100 is a semitone.

    Returns
    -------
    float
        NaN for a source without voiced frames.
    """
    if not source.voiced.any():
        return math.nan
    fitted = output.fitted(len(source.voiced))
    both = source.voiced & fitted.voiced
    if not both.any():
        return 0.0
    apart_cents = 1200.0 * np.log2(fitted.f0_hz[both].astype(np.float64) / source.f0_hz[both])
    kept = np.abs(apart_cents - np.median(apart_cents)) <= cents
    return float(kept.sum() / source.voiced.sum())


def pitch_share_of_copy(audio: Audio, estimator: PitchEstimator, cents: float = 50.0) -> float:
    """The pitch share that a WORLD copy of the source itself reaches: what the estimator's own slips leave to reach.

    Report a conversion's share as a fraction of this one.

    Raises
    ------
    ResourceError
        When pyworld is not installed.
    """
    copy = world_copy(audio)
    return pitch_share(estimator(audio.resample(copy.sample_rate).samples), estimator(copy.samples), cents)


def world_copy(audio: Audio) -> Audio:
    """A recording taken apart into pitch, envelope and noise, and put together again (WORLD, Morise et al., 2016).

    Raises
    ------
    ResourceError
        When pyworld is not installed.
    """
    try:
        import pyworld
    except ImportError as error:
        raise ResourceError(f"the copy needs pyworld ({error})", hint="pip install pyworld-prebuilt") from error
    samples = audio.resample(_WORLD_RATE_HZ).samples
    copy = pyworld.synthesize(*pyworld.wav2world(samples.astype(np.float64), _WORLD_RATE_HZ), _WORLD_RATE_HZ)
    return Audio(copy[: len(samples)].astype(np.float32), _WORLD_RATE_HZ)


def vuv_agreement(source: PitchTrack, output: PitchTrack) -> float:
    """Share of the source's frames that are voiced, or unvoiced, in both; NaN for an empty track."""
    if not len(source.voiced):
        return math.nan
    return float(np.mean(source.voiced == output.fitted(len(source.voiced)).voiced))


def pitch_error_cents(asked: PitchTrack, output: PitchTrack) -> float:
    """Mean distance of an output's pitch from the one it should have, over frames voiced in both; NaN without any.

    Examples
    --------
    >>> track = PitchTrack(np.array([0, 100, 200], np.float32), np.array([False, True, True]))
    >>> round(pitch_error_cents(track, track.transposed(1)), 2)
    100.0
    """
    ours, theirs = _octaves(asked, output)
    return float(1200 * np.abs(theirs - ours).mean()) if len(ours) else math.nan


def melody_correlation(asked: PitchTrack, output: PitchTrack) -> float:
    """Correlation of log f0 over the frames that are voiced in both; NaN where there is no melody to follow.

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
    """Log2 of the pitch of both tracks where both are voiced."""
    frames = min(len(track.voiced) for track in tracks)
    both = np.all([track.voiced[:frames] for track in tracks], axis=0)
    return tuple(np.log2(track.f0_hz[:frames][both].astype(np.float64)) for track in tracks)
