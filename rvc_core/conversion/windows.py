"""Overlapping windows over a recording: their positions, how to join them, and noise that is equal in overlaps."""

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

FRAME_SAMPLES = 160  # at 16 kHz: 100 frames per second

WINDOW_FRAMES = 1000  # output of one window
CONTEXT_FRAMES = 100  # more input on each side
FADE_FRAMES = 10  # crossfade between neighbouring windows


@dataclass(frozen=True)
class Window:
    """One window, in frames of the padded source: the frames it reads, and the frames whose output is used."""

    reads: tuple[int, int]
    gives: tuple[int, int]


def plan_windows(samples: int) -> list[Window]:
    """Windows over a source of `samples` 16 kHz samples that is padded by the context on both sides.

    Neighbours overlap by `FADE_FRAMES` frames. All bounds are even, because one content frame covers two pitch frames.

    Examples
    --------
    >>> [window.gives for window in plan_windows(16000 * 15)]
    [(100, 1105), (1095, 1602)]
    """
    frames = -(-samples // FRAME_SAMPLES)
    total = frames + frames % 2
    cores = max(1, round(total / WINDOW_FRAMES))
    bounds = [min(total, index * WINDOW_FRAMES) for index in range(cores)] + [total]
    half, windows = FADE_FRAMES // 2, []
    for first, last in zip(bounds[:-1], bounds[1:], strict=True):
        begin = CONTEXT_FRAMES + first - (half if first > 0 else 0)
        end = CONTEXT_FRAMES + last + (half if last < total else 2)
        windows.append(Window((first, last + 2 * CONTEXT_FRAMES), (begin, end)))
    return windows


def alike(windows: Sequence[Window], gate: np.ndarray | None, most: int) -> Iterator[tuple[bool, list[Window]]]:
    """At most so many neighbours of one size, and whether `gate` (gains every 10 ms) silences all of them.

    Examples
    --------
    >>> [len(group) for _, group in alike(plan_windows(16000 * 60), None, 4)]
    [1, 4, 1]
    """

    def kind(window: Window) -> tuple[bool, int, int, int]:
        (start, stop), (begin, end) = window.reads, window.gives
        is_silent = gate is not None and not gate[begin - CONTEXT_FRAMES : end - CONTEXT_FRAMES + 1].any()
        return is_silent, stop - start, begin - start, end - start

    for (is_silent, *_), group in itertools.groupby(windows, kind):
        rows = [*group]
        for first in range(0, len(rows), most):
            yield is_silent, rows[first : first + most]


def join_pieces(pieces: list[np.ndarray], fade_samples: int) -> np.ndarray:
    """Join pieces with a constant-power crossfade over `fade_samples`.

    An equal-power crossfade suits uncorrelated signals, but is 3 dB too loud for equal ones. So each crossfade is
    normalised by the measured correlation of its two sides.
    """
    parts, last = [], pieces[0]
    angle = (np.arange(fade_samples) + 0.5) / fade_samples * np.pi / 2
    fade_out, fade_in = np.cos(angle), np.sin(angle)
    for piece in pieces[1:]:
        old, new = last[-fade_samples:], piece[:fade_samples]
        correlation = float(old @ new / max(np.sqrt((old @ old) * (new @ new)), 1e-9))
        power = np.sqrt(1 + 2 * max(0.0, correlation) * fade_out * fade_in)
        seam = (old * fade_out + new * fade_in) / power
        parts.append(last[:-fade_samples])
        last = np.concatenate([seam.astype(np.float32), piece[fade_samples:]])
    return np.concatenate([*parts, last])


def frame_noise(start: int, stop: int, channels: int, seed: int) -> np.ndarray:
    """Standard normal noise (T, C) of frames start..stop. It depends on the frame only, so overlapping windows agree.

    Examples
    --------
    >>> bool(np.array_equal(frame_noise(0, 1200, 4, seed=7)[990:1010], frame_noise(990, 1010, 4, seed=7)))
    True
    """
    blocks = range(start // WINDOW_FRAMES, (stop - 1) // WINDOW_FRAMES + 1)
    noise = np.concatenate(
        [
            np.random.default_rng((seed, block)).standard_normal((WINDOW_FRAMES, channels), np.float32)
            for block in blocks
        ]
    )
    offset = start - blocks[0] * WINDOW_FRAMES
    return noise[offset : offset + stop - start]


def phase_at(f0_hz: np.ndarray, frame: int) -> float:
    """Phase of the sine source at the start of a frame, in cycles; it is continuous across windows."""
    return float(f0_hz[:frame].sum(dtype=np.float64) / 100.0 % 1.0)
