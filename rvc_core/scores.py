"""Scores of a conversion: does it sound like the target, and does it keep the source's melody?

Each is easy alone (the target saying other words scores full similarity), so read them together, on the same files.
"""

import math
from collections.abc import Iterable

import numpy as np

from .audio import Audio
from .errors import AudioError, ResourceError
from .pitch import PitchEstimator, PitchTrack

SPEAKER_RATE_HZ = 16_000     # what GE2E hears: nothing above 8 kHz is judged


class SpeakerScorer:
    """Hears who speaks: Resemblyzer's GE2E network (Wan et al., 2018), one unit vector a recording.

    Clips under 3 s score lower for the same voice (about 0.74 at 1 s, 0.83 at 2 s, 0.87 at 3 s), so judge on sentences.

    Raises
    ------
    ResourceError
        When Resemblyzer is not installed.

    Examples
    --------
    >>> scorer = SpeakerScorer()                                         # doctest: +SKIP
    >>> centre = scorer.centre(target_recordings)                        # doctest: +SKIP
    >>> speaker_similarity(scorer.embed(converted), centre)              # doctest: +SKIP
    0.86
    """

    def __init__(self) -> None:
        try:
            import resemblyzer
        except ImportError as error:
            raise ResourceError(f"speaker similarity needs Resemblyzer ({error})",
                                hint="pip install webrtcvad-wheels && pip install --no-deps resemblyzer") from error
        self._prepare = resemblyzer.preprocess_wav
        self._encoder = resemblyzer.VoiceEncoder("cpu", verbose=False)

    def embed(self, audio: Audio) -> np.ndarray:
        """Unit vector (256,) of a recording, pauses left out.

        Raises
        ------
        AudioError
            When no speech is found in it.
        """
        samples = audio.resample(SPEAKER_RATE_HZ).samples
        spoken = self._prepare(samples) if np.any(samples) else samples[:0]
        if not len(spoken):
            raise AudioError(f"no speech in {audio.seconds:.1f} s of audio", hint="listen to it: is anybody speaking?")
        return self._encoder.embed_utterance(spoken)

    def centre(self, recordings: Iterable[Audio]) -> np.ndarray:
        """Unit vector (256,) of a speaker: the mean over recordings."""
        mean = np.mean([self.embed(audio) for audio in recordings], axis=0)
        return mean / np.linalg.norm(mean)


def speaker_similarity(embeddings: np.ndarray, centre: np.ndarray) -> float:
    """Mean cosine between embeddings ((256,) or (n, 256)) and a speaker's centre (256,).

    Different people have about 0.53, the same person about 0.87 clip by clip; differences under 0.03 are noise.

    Examples
    --------
    >>> speaker_similarity(np.array([[2.0, 0.0], [0.0, 1.0]]), np.array([1.0, 0.0]))
    0.5
    """
    norms = np.linalg.norm(embeddings, axis=-1) * np.linalg.norm(centre)
    return float(np.mean(embeddings @ centre / norms))


def similarity_gain(output: np.ndarray, source: np.ndarray, target_heldout: np.ndarray,
                    target_centre: np.ndarray) -> float:
    """How far the conversion went from the source's voice (0) to the target's own held-out speech (1).

    "Nearer to the target than to the source" would be passed by white noise; this is not. A conversion by signal
    processing alone reaches 0.13 to 0.21.

    Parameters
    ----------
    output, source, target_heldout : ndarray (256,) or (n, 256)
        Embeddings of the converted files, of what they were made from, and of the target's recordings that were
        neither trained on nor put into the centre.
    target_centre : ndarray (256,)

    Returns
    -------
    float
        NaN where the source is as near as the target itself: there is nothing to gain.
    """
    floor = speaker_similarity(source, target_centre)
    ceiling = speaker_similarity(target_heldout, target_centre)
    if ceiling - floor < 0.03:
        return math.nan
    return (speaker_similarity(output, target_centre) - floor) / (ceiling - floor)


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

    Report a conversion's share as a fraction of this one (Morise et al., 2016, for WORLD).

    Raises
    ------
    ResourceError
        When pyworld is not installed.
    """
    try:
        import pyworld
    except ImportError as error:
        raise ResourceError(f"the copy needs pyworld ({error})", hint="pip install pyworld-prebuilt") from error
    samples = audio.resample(SPEAKER_RATE_HZ).samples
    copy = pyworld.synthesize(*pyworld.wav2world(samples.astype(np.float64), SPEAKER_RATE_HZ), SPEAKER_RATE_HZ)
    return pitch_share(estimator(samples), estimator(copy[:len(samples)].astype(np.float32)), cents)


def vuv_agreement(source: PitchTrack, output: PitchTrack) -> float:
    """Share of the source's frames that are voiced, or unvoiced, in both; NaN for an empty track."""
    if not len(source.voiced):
        return math.nan
    return float(np.mean(source.voiced == output.fitted(len(source.voiced)).voiced))
