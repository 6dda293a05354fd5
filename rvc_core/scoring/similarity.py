"""Scores of a conversion: does it sound like the target, does it keep the source's melody, does it sound clean?

Each is easy alone (the target saying other words scores full similarity), so read them together, on the same files,
and with the words (``words.py``).
"""

import importlib.resources
import math
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from ..audio.waveform import Audio
from ..errors import AudioError, ResourceError
from ..features.pitch import PitchEstimator, PitchTrack

SPEAKER_RATE_HZ = 16_000     # what GE2E hears: nothing above 8 kHz is judged
_DNSMOS_RATE_HZ, _DNSMOS_SECONDS = 16_000, 9.01   # what one look of the network takes, once a second
_DNSMOS_SCALES = {"signal": (-0.08397278, 1.22083953, 0.0052439),      # its raw answers to mean opinions, as published
                  "background": (-0.13166888, 1.60915514, -0.39604546),
                  "overall": (-0.06766283, 1.11546468, 0.04602535)}


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
    return gain_between(speaker_similarity(output, target_centre), speaker_similarity(source, target_centre),
                        speaker_similarity(target_heldout, target_centre))


def gain_between(similarity: float, floor: float, ceiling: float) -> float:
    """Where a similarity lies between the unconverted source's (0) and the target's own (1); NaN if those are one.

    Examples
    --------
    >>> gain_between(0.75, 0.5, 1.0), gain_between(0.75, 0.94, 0.95)
    (0.5, nan)
    """
    return (similarity - floor) / (ceiling - floor) if ceiling - floor >= 0.03 else math.nan


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
    samples = audio.resample(SPEAKER_RATE_HZ).samples
    copy = pyworld.synthesize(*pyworld.wav2world(samples.astype(np.float64), SPEAKER_RATE_HZ), SPEAKER_RATE_HZ)
    return Audio(copy[:len(samples)].astype(np.float32), SPEAKER_RATE_HZ)


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


def content_distance(before: np.ndarray, after: np.ndarray) -> float:
    """How far content features (T, D) have moved, in units of their own spread: 0 unchanged, about 1.4 other words.

    Examples
    --------
    >>> words, others = np.random.default_rng(0).normal(size=(2, 500, 8))
    >>> content_distance(words, words), round(content_distance(words, others), 1)
    (0.0, 1.4)
    """
    frames = min(len(before), len(after))
    before, after = before[:frames], after[:frames]
    return float(np.sqrt(np.mean((after - before) ** 2) / np.mean((before - before.mean(0)) ** 2)))


@dataclass(frozen=True)
class Naturalness:
    """Mean opinions that DNSMOS expects of listeners, 1 (bad) to 5 (excellent), by ITU-T P.835.

    Attributes
    ----------
    signal, background, overall : float
        Of the speech itself, of what else is heard, and of all together.
    """

    signal: float
    background: float
    overall: float


class NaturalnessScorer:
    """Guesses how listeners would rate a recording: DNSMOS P.835 (Reddy et al., 2022), from the wheel of speechmos.

    It hardly notices a vocoder (3.28 becomes 3.20) but catches noise, buzz and whisper. Good recordings differ, 2.7 to
    3.4: compare with the source's and the target's own.

    Raises
    ------
    ResourceError
        When speechmos or onnxruntime is not installed.

    Examples
    --------
    >>> NaturalnessScorer()(recording)                                     # doctest: +SKIP
    Naturalness(signal=3.33, background=4.07, overall=3.09)
    """

    def __init__(self) -> None:
        try:
            import onnxruntime
            model = importlib.resources.files("speechmos").joinpath("dnsmos_models", "sig_bak_ovr.onnx").read_bytes()
        except ImportError as error:
            raise ResourceError(f"DNSMOS needs speechmos and onnxruntime ({error})",
                                hint="pip install onnxruntime && pip install --no-deps speechmos") from error
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1   # its waiting threads would hold the other cores
        self._network = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])

    def __call__(self, audio: Audio) -> Naturalness:
        """Rate a recording; one shorter than nine seconds is repeated.

        Raises
        ------
        AudioError
            When there is nothing in it.
        """
        samples = np.clip(audio.resample(_DNSMOS_RATE_HZ).samples, -1, 1)
        if not len(samples):
            raise AudioError("no sound to rate", hint="export the recording again")
        length = int(_DNSMOS_SECONDS * _DNSMOS_RATE_HZ)
        while len(samples) < length:
            samples = np.concatenate([samples, samples])
        looks = np.lib.stride_tricks.sliding_window_view(samples, length)[::_DNSMOS_RATE_HZ]
        raw = np.stack([self._network.run(None, {"input_1": look[None]})[0][0] for look in looks])
        return Naturalness(**{name: float(np.polyval(scale, raw[:, column]).mean())
                              for column, (name, scale) in enumerate(_DNSMOS_SCALES.items())})
