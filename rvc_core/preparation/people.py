"""Find a second speaker in recordings, by speaker embeddings of 3 s of speech each."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache

import numpy as np

from ..audio.waveform import Audio
from ..errors import ResourceError
from ..scoring.similarity import SpeakerScorer

WINDOW_SECONDS = 3.0
_MOST_WINDOWS = 1500  # of all recordings: of longer ones every second or third window is compared
_SAME_PERSON = 0.3  # 1 - cosine, on average between two groups of windows: see docs/survey.md
_FEWEST_WINDOWS = 3  # a cough is no speaker


@dataclass(frozen=True)
class Windows:
    """Speaker embeddings (n, 256) of a recording, and where they begin (n,), in seconds."""

    vectors: np.ndarray
    seconds: np.ndarray


@dataclass(frozen=True)
class Strange:
    """Somebody else in a recording: the seconds at which windows begin, and their share of its speech."""

    seconds: np.ndarray
    share: float


@cache
def _scorer() -> SpeakerScorer | None:
    try:
        return SpeakerScorer()
    except ResourceError:
        return None


def can_embed() -> bool:
    """Whether Resemblyzer is installed."""
    return _scorer() is not None


def windows_of(audio: Audio) -> Windows | None:
    """Speaker embeddings of a recording; None without Resemblyzer."""
    scorer = _scorer()
    return None if scorer is None else Windows(*scorer.windows(audio))


def strangers(people: Mapping[str, Windows]) -> dict[str, Strange]:
    """Where somebody else speaks than in most of the recordings, by recording.

    Windows are joined to groups by average linkage. The largest group is the speaker; of the others, groups of three
    windows or more are strangers.
    """
    from sklearn.cluster import AgglomerativeClustering

    every = -(-sum(len(one.seconds) for one in people.values()) // _MOST_WINDOWS) or 1
    vectors = np.concatenate([one.vectors[::every] for one in people.values()] or [np.zeros((0, 256))])
    if len(vectors) < 2:
        return {}
    linkage = AgglomerativeClustering(None, metric="cosine", linkage="average", distance_threshold=_SAME_PERSON)
    groups = linkage.fit_predict(vectors)
    sizes = np.bincount(groups)
    is_strange = (groups != sizes.argmax()) & (sizes[groups] >= _FEWEST_WINDOWS)
    names = np.concatenate([[name] * len(one.seconds[::every]) for name, one in people.items()])
    seconds = np.concatenate([one.seconds[::every] for one in people.values()])
    return {
        str(name): Strange(seconds[is_strange & (names == name)], float(is_strange[names == name].mean()))
        for name in np.unique(names[is_strange])
    }
