"""Find sound that is in two recordings, under another name, format or level, or as a cut. Pure: reads no files.

Each 16 ms have 20 bits: whether the energy between neighbouring bands rises or falls (Haitsma & Kalker, 2002). Equal
bits are votes for an offset between two recordings, and all their bits are compared there.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np

from ..audio.waveform import Audio

_RATE_HZ, _SAMPLES, _HOP, _LAG = 8000, 2048, 128, 4
_EDGES = np.round(np.geomspace(250, 2500, 22) * _SAMPLES / _RATE_HZ).astype(int)
_BITS, _BLOCK = 20, 2048
_QUIET = 1e-3  # of the loud frames' power: 30 dB below them the bits are of noise
_VOTES, _MOST_VOTERS, _WRONG_SHARE, _LEAST_SECONDS = 10, 40, 0.3, 0.7


@dataclass(frozen=True)
class Print:
    """Bits of a recording, one frame every 16 ms, and which frames count."""

    bits: np.ndarray
    counts: np.ndarray


@dataclass(frozen=True)
class Duplicate:
    """Sound that two recordings have in common: where it begins in each, and its length."""

    one: str
    other: str
    one_seconds: float
    other_seconds: float
    seconds: float


def print_of(audio: Audio) -> Print:
    """Fingerprint of a recording; empty under half a second."""
    samples = audio.resample(_RATE_HZ).samples
    if len(samples) < _SAMPLES + 2 * _LAG * _HOP:
        return Print(np.zeros(0, np.uint32), np.zeros(0, bool))
    frames = np.lib.stride_tricks.sliding_window_view(samples, _SAMPLES)[::_HOP]
    window = np.hanning(_SAMPLES).astype(np.float32)
    powers = [np.abs(np.fft.rfft(frames[at : at + _BLOCK] * window)) ** 2 for at in range(0, len(frames), _BLOCK)]
    bands = np.concatenate([np.add.reduceat(power, _EDGES, axis=1)[:, :-1] for power in powers])
    slopes = np.diff(np.log(bands + 1e-12), axis=1)
    total = bands.sum(axis=1)[_LAG:]
    bits = (slopes[_LAG:] > slopes[:-_LAG]) @ (1 << np.arange(_BITS))
    return Print(bits.astype(np.uint32), total > max(1e-9, _QUIET * np.quantile(total, 0.95)))


def duplicates(prints: Mapping[str, Print]) -> list[Duplicate]:
    """All sound that is in two recordings, the longest first.

    Examples
    --------
    >>> noise = np.cumsum(np.random.default_rng(0).standard_normal((4, 12_000)), 1).ravel().astype(np.float32) % 1 - 0.5
    >>> sounds = {"a": Audio(noise, 8000), "b": Audio(0.2 * noise[16_400:32_400], 8000)}
    >>> [found] = duplicates({name: print_of(sound) for name, sound in sounds.items()})
    >>> found.one, found.other, round(found.one_seconds, 1), round(found.seconds, 1)
    ('a', 'b', 2.0, 2.0)
    """
    names = list(prints)
    found = [
        made
        for one, other, offset in _candidates([prints[name] for name in names])
        if (made := _compared(names[one], names[other], prints, offset))
    ]
    return sorted(found, key=lambda made: -made.seconds)


def _candidates(prints: list[Print]) -> Iterator[tuple[int, int, int]]:
    """Pairs of recordings, and the offset in frames that most equal bits vote for."""
    bits = np.concatenate([one.bits[one.counts] for one in prints] or [np.zeros(0, np.uint32)])
    owner = np.concatenate([np.full(int(one.counts.sum()), number) for number, one in enumerate(prints)] or [bits])
    place = np.concatenate([np.flatnonzero(one.counts) for one in prints] or [bits]).astype(np.int64)
    order = np.argsort(bits, kind="stable")
    bits, owner, place = bits[order], owner[order].astype(np.int64), place[order]
    pairs = []
    for step in range(1, _MOST_VOTERS):  # equal bits are neighbours now, in the order of recordings
        same = np.flatnonzero((bits[step:] == bits[:-step]) & (owner[step:] != owner[:-step]))
        pairs.append(np.stack([owner[same], owner[same + step], (place[same] - place[same + step]) // 2], axis=1))
    votes, counts = np.unique(np.concatenate(pairs), axis=0, return_counts=True)
    best: dict[tuple[int, int], tuple[int, int]] = {}
    for (one, other, offset), count in zip(votes[counts >= _VOTES], counts[counts >= _VOTES], strict=True):
        best[one, other] = max(best.get((one, other), (0, 0)), (int(count), 2 * int(offset)))
    for (one, other), (_, offset) in best.items():
        yield one, other, offset


def _compared(one: str, other: str, prints: Mapping[str, Print], offset: int) -> Duplicate | None:
    """The stretch that two recordings have in common at an offset; None if most of it differs."""
    best, least = None, _WRONG_SHARE
    for shift in (offset, offset + 1):
        first, second = max(0, shift), max(0, -shift)
        size = min(len(prints[one].bits) - first, len(prints[other].bits) - second)
        ours, theirs = (prints[name].bits[at : at + size] for name, at in ((one, first), (other, second)))
        both = prints[one].counts[first : first + size] & prints[other].counts[second : second + size]
        equal = np.bitwise_count(ours ^ theirs)[both] < _WRONG_SHARE * _BITS
        if not both.any() or equal.sum() * _HOP < _LEAST_SECONDS * _RATE_HZ:
            continue
        span = np.flatnonzero(both)[np.flatnonzero(equal)[[0, -1]]]  # a part may be all that they share
        inside = np.bitwise_count(ours ^ theirs)[span[0] : span[1] + 1][both[span[0] : span[1] + 1]]
        if (wrong := float(inside.mean()) / _BITS) < least:
            starts = [float(at + span[0]) * _HOP / _RATE_HZ for at in (first, second)]
            length = (float(np.ptp(span)) + _LAG) * _HOP + _SAMPLES
            best, least = Duplicate(one, other, starts[0], starts[1], length / _RATE_HZ), wrong
    return best
