"""Samples that are read or computed where they are sliced, so that memory does not depend on the length of a sound."""

import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

_EDGE_SAMPLES = 2048  # more than the resampler's filter reaches
BLOCK_SAMPLES = 1 << 18


class Lazy:
    """Samples (N,) or (N, C) that are made slice by slice; they can be added, and multiplied by a number.

    Parameters
    ----------
    shape : tuple of int
    part : callable
        Takes where a slice starts and stops; gives its samples, float32.

    Examples
    --------
    >>> ramp = Lazy((6, 1), lambda start, stop: np.arange(start, stop, dtype=np.float32)[:, None])
    >>> both = ramp * 2 + ramp
    >>> both[2:4].ravel().tolist(), len(both), [len(block) for block in blocks_of(both, 4)]
    ([6.0, 9.0], 6, [4, 2])
    """

    __array_ufunc__ = None  # numpy's arrays leave sums to this class

    def __init__(self, shape: tuple[int, ...], part: Callable[[int, int], np.ndarray]) -> None:
        self.shape, self._part = shape, part

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, span: slice) -> np.ndarray:
        start, stop, _ = span.indices(len(self))
        return self._part(start, max(start, stop))

    def __add__(self, other: Any) -> "Lazy":
        return Lazy(self.shape, lambda start, stop: self[start:stop] + other[start:stop])

    __radd__ = __add__

    def columns(self) -> "Lazy":
        """Samples (N,) as (N, 1)."""
        return Lazy((len(self), 1), lambda start, stop: self[start:stop].reshape(-1, 1))

    def __mul__(self, factor: float) -> "Lazy":
        return Lazy(self.shape, lambda start, stop: self[start:stop] * np.float32(factor))


def blocks_of(samples: Any, size: int = BLOCK_SAMPLES) -> Iterator[np.ndarray]:
    """Slices of samples, lazy or not, one after the other."""
    for start in range(0, len(samples), size):
        yield samples[start : start + size]


def in_file(path: Path) -> tuple[Lazy, int]:
    """Samples (N, C) and rate of a WAV or FLAC file that we wrote; it must stay while they are used."""
    import soundfile

    facts = soundfile.info(str(path))

    def part(start: int, stop: int) -> np.ndarray:
        return soundfile.read(str(path), stop - start, start, dtype="float32", always_2d=True)[0]

    return Lazy((facts.frames, facts.channels), part), facts.samplerate


def at_rate(samples: Any, from_hz: int, to_hz: int) -> Lazy:
    """Samples (N, C), lazy or not, at another rate.

    Examples
    --------
    >>> import soxr
    >>> noise = np.random.default_rng(0).standard_normal((100_000, 1)).astype(np.float32)
    >>> made, whole = at_rate(noise, 44_100, 48_000), soxr.resample(noise, 44_100, 48_000)
    >>> made.shape == whole.shape, float(np.abs(np.concatenate([*blocks_of(made, 7000)]) - whole).max()) < 1e-3
    (True, True)
    """
    import soxr

    unit = math.gcd(from_hz, to_hz)
    down, up = from_hz // unit, to_hz // unit
    edge, length = -(-_EDGE_SAMPLES // down), round(len(samples) * to_hz / from_hz)

    def part(start: int, stop: int) -> np.ndarray:
        first = max(0, start // up - edge)
        dense = soxr.resample(samples[first * down : (-(-stop // up) + edge) * down], from_hz, to_hz, quality="HQ")
        kept = dense[start - first * up : stop - first * up]
        return np.pad(kept, ((0, stop - start - len(kept)), (0, 0)))

    return Lazy((length, samples.shape[1]), part)
