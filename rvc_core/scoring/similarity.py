"""Speaker similarity of a conversion to its target, and change of its content features.

Similarity alone proves little: the target saying other words reaches all of it. Read it together with melody and
words, on the same files.
"""

import math
from collections.abc import Iterable

import numpy as np

from ..audio.slicer import own_silence_db
from ..audio.waveform import Audio, frame_rms
from ..errors import AudioError, ResourceError

SPEAKER_RATE_HZ = 16_000  # GE2E's rate: it ignores everything above 8 kHz
_LEVEL_DB, _WINDOWS_A_SECOND, _BLOCK_SECONDS = -30, 1.3, 60.0
_WINDOWS, _WINDOW_SECONDS, _SPOKEN = 3, 3.1, 0.5  # three windows of GE2E are one of ours; of which half is speech


class SpeakerScorer:
    """Computes speaker embeddings: Resemblyzer's GE2E network (Wan et al., 2018), one unit vector per recording.

    Short clips score lower for the same voice (about 0.74 at 1 s, 0.83 at 2 s, 0.87 at 3 s), so use whole sentences.

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
            raise ResourceError(
                f"speaker similarity needs Resemblyzer ({error})",
                hint="pip install webrtcvad-wheels && pip install --no-deps resemblyzer",
            ) from error
        self._prepare, self._levelled = resemblyzer.preprocess_wav, resemblyzer.normalize_volume
        self._encoder = resemblyzer.VoiceEncoder("cpu", verbose=False)

    def embed(self, audio: Audio) -> np.ndarray:
        """Unit vector (256,) of a recording without its pauses.

        Raises
        ------
        AudioError
            When it contains no speech.
        """
        samples = audio.resample(SPEAKER_RATE_HZ).samples
        spoken = self._prepare(samples) if np.any(samples) else samples[:0]
        if not len(spoken):
            raise AudioError(
                f"no speech in {audio.seconds:.1f} s of audio", hint="listen to it and check that somebody speaks"
            )
        return self._encoder.embed_utterance(spoken)

    def windows(self, audio: Audio) -> tuple[np.ndarray, np.ndarray]:
        """Unit vectors (n, 256) of about 3 s each where somebody speaks, and the seconds (n,) where they begin.

        Under two seconds of speech there are none: a vector of so little differs from its own speaker's.
        """
        samples = audio.resample(SPEAKER_RATE_HZ).samples
        hop = SPEAKER_RATE_HZ // 100
        rms = frame_rms(samples, hop, 4)
        spoken = rms > 10 ** (own_silence_db(rms, -42.0) / 20)
        vectors, begins = [np.zeros((0, 256), np.float32)], [np.zeros(0)]
        for start in range(0, len(samples), round(_BLOCK_SECONDS * SPEAKER_RATE_HZ)):
            block = samples[start : start + round(_BLOCK_SECONDS * SPEAKER_RATE_HZ)]
            if spoken[start // hop : start // hop + len(block) // hop].sum() < 200:
                continue
            block = self._levelled(block, _LEVEL_DB, increase_only=True)
            _, parts, places = self._encoder.embed_utterance(block, return_partials=True, rate=_WINDOWS_A_SECOND)
            starts = np.array([(place.start + start) / SPEAKER_RATE_HZ for place in places])
            together = min(_WINDOWS, len(parts))
            means = np.lib.stride_tricks.sliding_window_view(parts, together, axis=0).mean(axis=-1)
            vectors.append(means / np.linalg.norm(means, axis=1, keepdims=True))
            begins.append(starts[: len(means)])
        at = np.concatenate(begins)
        totals = np.concatenate([[0], np.cumsum(spoken)])
        first = (100 * at).astype(int)
        last = np.minimum(first + round(100 * _WINDOW_SECONDS), len(spoken))
        kept = totals[last] - totals[first] >= _SPOKEN * (last - first)
        return np.concatenate(vectors)[kept], at[kept]

    def centre(self, recordings: Iterable[Audio]) -> np.ndarray:
        """Unit vector (256,) of a speaker: the mean of the recordings' vectors."""
        mean = np.mean([self.embed(audio) for audio in recordings], axis=0)
        return mean / np.linalg.norm(mean)


def speaker_similarity(embeddings: np.ndarray, centre: np.ndarray) -> float:
    """Mean cosine between embeddings ((256,) or (n, 256)) and a speaker's centre (256,).

    Clips of different people have about 0.53, clips of one person about 0.87. Differences under 0.03 are noise.

    Examples
    --------
    >>> speaker_similarity(np.array([[2.0, 0.0], [0.0, 1.0]]), np.array([1.0, 0.0]))
    0.5
    """
    norms = np.linalg.norm(embeddings, axis=-1) * np.linalg.norm(centre)
    return float(np.mean(embeddings @ centre / norms))


def similarity_gain(
    output: np.ndarray, source: np.ndarray, target_heldout: np.ndarray, target_centre: np.ndarray
) -> float:
    """Position of the output between the source's voice (0) and the target's own held-out speech (1).

    A test for "nearer to the target than to the source" would pass white noise; the gain does not. Signal processing
    alone reaches 0.13 to 0.21.

    Parameters
    ----------
    output, source, target_heldout : ndarray (256,) or (n, 256)
        Embeddings of the converted files, of their sources, and of held-out recordings of the target. Held-out means
        used neither for training nor for the centre.
    target_centre : ndarray (256,)

    Returns
    -------
    float
        NaN if the source is as similar as the target itself.
    """
    return gain_between(
        speaker_similarity(output, target_centre),
        speaker_similarity(source, target_centre),
        speaker_similarity(target_heldout, target_centre),
    )


def gain_between(similarity: float, floor: float, ceiling: float) -> float:
    """Position of a similarity between the source's (0) and the target's own (1); NaN if these are equal.

    Examples
    --------
    >>> gain_between(0.75, 0.5, 1.0), gain_between(0.75, 0.94, 0.95)
    (0.5, nan)
    """
    return (similarity - floor) / (ceiling - floor) if ceiling - floor >= 0.03 else math.nan


def content_distance(before: np.ndarray, after: np.ndarray) -> float:
    """RMS change of content features (T, D) in units of their spread: 0 unchanged, about 1.4 other words.

    Examples
    --------
    >>> words, others = np.random.default_rng(0).normal(size=(2, 500, 8))
    >>> content_distance(words, words), round(content_distance(words, others), 1)
    (0.0, 1.4)
    """
    frames = min(len(before), len(after))
    before, after = before[:frames], after[:frames]
    return float(np.sqrt(np.mean((after - before) ** 2) / np.mean((before - before.mean(0)) ** 2)))
