"""Windows over a recording: where they lie, how they are joined, and noise that is the same in each."""

from dataclasses import dataclass

import numpy as np

FRAME_SAMPLES = 160  # at 16 kHz: 100 frames per second

WINDOW_FRAMES = 1000  # what one window contributes
CONTEXT_FRAMES = 100  # what it hears beyond that on either side
FADE_FRAMES = 10  # over which neighbouring windows are faded


@dataclass(frozen=True)
class Window:
    """One window, in frames of the padded source: what it hears, and the part of it that is used."""

    heard: tuple[int, int]
    gives: tuple[int, int]


def plan_windows(samples: int) -> list[Window]:
    """Windows over a source of so many 16 kHz samples, padded by the context on both sides.

    Neighbours give the same `FADE_FRAMES` frames, over which they are faded. All bounds are even, so content frames
    (two pitch frames each) fall on the same instants in every window.

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


def join_pieces(pieces: list[np.ndarray], fade_samples: int) -> np.ndarray:
    """Lay pieces end to end, each fading into the next over `fade_samples` at constant power.

    The plain equal-power fade is right for unrelated signals and 3 dB too loud for equal ones; the two sides of a seam
    are anything between, so the fade is normalised with their measured correlation.
    """
    parts, last = [], pieces[0]
    angle = (np.arange(fade_samples) + 0.5) / fade_samples * np.pi / 2
    fade_out, fade_in = np.cos(angle), np.sin(angle)
    for piece in pieces[1:]:
        old, new = last[-fade_samples:], piece[:fade_samples]
        likeness = float(old @ new / max(np.sqrt((old @ old) * (new @ new)), 1e-9))
        power = np.sqrt(1 + 2 * max(0.0, likeness) * fade_out * fade_in)
        seam = (old * fade_out + new * fade_in) / power
        parts.append(last[:-fade_samples])
        last = np.concatenate([seam.astype(np.float32), piece[fade_samples:]])
    return np.concatenate([*parts, last])


def frame_noise(start: int, stop: int, channels: int, seed: int) -> np.ndarray:
    """Standard normal noise (T, C) of frames start..stop: a function of the frame, so windows agree where they overlap.

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
    """Phase of the sine source, in cycles, at the start of a frame: it runs on from window to window."""
    return float(f0_hz[:frame].sum(dtype=np.float64) / 100.0 % 1.0)
