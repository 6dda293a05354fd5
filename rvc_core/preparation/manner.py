"""Groups of clips by manner of speaking: pitch and its movement, energy, rate, brightness. Pure: reads no files."""

from dataclasses import dataclass

import numpy as np

from ..audio.waveform import frame_rms
from ..features.pitch import HOP_SAMPLES, SAMPLE_RATE, PitchTrack

LEAST_MINUTES = 60.0  # of less speech there are no groups
_MOST_GROUPS, _LEAST_SEPARATION, _LEAST_SHARE = 4, 0.45, 0.05
_PITCH_AND_LEVEL, _AS_GOOD = [0, 2], 0.02  # the other features name groups, but blur them: see docs/survey.md
_DOMINATES = 0.8
_LOUD_SHARE, _SYLLABLE_DB = 0.1, 3.0  # a tenth of the loud frames' level; the rise of a syllable
_WORDS = (("low", "high"), ("even", "lively"), ("quiet", "loud"), ("slow", "fast"), ("dark", "bright"))
_REMARKABLE = 0.5  # standard deviations from the mean of all


@dataclass(frozen=True)
class Group:
    """Clips that are spoken alike."""

    name: str
    minutes: float
    share: float


def manner_of(samples_16k: np.ndarray, track: PitchTrack) -> np.ndarray:
    """How a clip is spoken (5,): pitch and its spread in semitones, level in dB, syllables a second, log of brightness.

    NaN without voiced sound. Brightness is the centre of the spectrum of voiced frames.
    """
    from scipy import signal

    rms = frame_rms(samples_16k, HOP_SAMPLES, 4)[: len(track.voiced)]
    loud = rms > _LOUD_SHARE * np.quantile(rms, 0.95)
    voiced = track.voiced & loud
    if voiced.sum() < 20:
        return np.full(5, np.nan)
    semitones = 12 * np.log2(track.f0_hz[voiced])
    level_db = 10 * np.log10(np.mean(rms[loud] ** 2))
    envelope = np.convolve(20 * np.log10(np.maximum(rms, 1e-5)), np.hanning(9) / np.hanning(9).sum(), "same")
    syllables, _ = signal.find_peaks(envelope, prominence=_SYLLABLE_DB, height=20 * np.log10(rms[loud].min()))
    _, _, power = signal.stft(samples_16k, SAMPLE_RATE, nperseg=512, noverlap=512 - HOP_SAMPLES)
    power = np.abs(power[:, : len(voiced)][:, voiced[: power.shape[1]]]) ** 2
    centre_hz = (power.sum(axis=1) @ np.arange(257)) / power.sum() * SAMPLE_RATE / 512
    spread = np.subtract(*np.quantile(semitones, (0.9, 0.1)))
    return np.array([np.median(semitones), spread, level_db, 100 * len(syllables) / loud.sum(), np.log2(centre_hz)])


def grouped(manners: np.ndarray) -> list[str]:
    """Name the group of each clip (n, 5); all names are empty if the clips form no groups.

    Pitch and level form the groups. Their number has the best silhouette, of two to four, or one more that is as good;
    below 0.45 there are none. All five features name them.

    Examples
    --------
    >>> calm, shouted = np.random.default_rng(0).normal(size=(2, 50, 5)) * 0.3
    >>> names = grouped(np.concatenate([calm, shouted + [6, 0, 9, 0, 0]]))
    >>> names[0], names[-1], len(set(names))
    ('low-quiet', 'high-loud', 2)
    """
    from sklearn.cluster import KMeans
    from sklearn.metrics import silhouette_score

    known = np.isfinite(manners).all(axis=1)
    rows = manners[known]
    if len(rows) < 10 * _MOST_GROUPS:
        return [""] * len(manners)
    scaled = (rows - rows.mean(axis=0)) / np.maximum(rows.std(axis=0), 1e-6)
    by, best, most = scaled[:, _PITCH_AND_LEVEL], np.zeros(len(rows), int), _LEAST_SEPARATION
    for count in range(2, _MOST_GROUPS + 1):
        labels = KMeans(count, n_init=5, random_state=0).fit_predict(by)
        separation = silhouette_score(by, labels, sample_size=2000, random_state=0)
        if separation > most - _AS_GOOD * best.any() and np.bincount(labels).min() >= _LEAST_SHARE * len(rows):
            best, most = labels, max(most, separation)
    if not best.any():
        return [""] * len(manners)
    names = _names(np.array([scaled[best == label].mean(axis=0) for label in range(best.max() + 1)]))
    made = np.full(len(manners), "", dtype=object)
    made[known] = [names[label] for label in best]
    return made.tolist()


def _names(centres: np.ndarray) -> list[str]:
    """A name for each group by its two most remarkable features, with a number where two would be the same."""
    names: list[str] = []
    for centre in centres:
        order = np.argsort(-np.abs(centre))[:2]
        words = [_WORDS[place][int(centre[place] > 0)] for place in sorted(order) if abs(centre[place]) > _REMARKABLE]
        name = "-".join(words) or "usual"
        names.append(f"{name}-{len(names) + 1}" if name in names else name)
    return names


def summed_up(names: list[str], seconds: list[float]) -> list[Group]:
    """The groups with their minutes, the largest first."""
    found = {name: sum(one for own, one in zip(names, seconds, strict=True) if own == name) for name in {*names} - {""}}
    total = sum(found.values())
    ordered = sorted(found.items(), key=lambda row: -row[1])
    return [Group(name, round(length / 60, 2), round(length / total, 3)) for name, length in ordered]


def dominating(groups: list[Group]) -> str:
    """The name of a group that holds four fifths or more; empty if none does."""
    return groups[0].name if groups and groups[0].share >= _DOMINATES else ""
