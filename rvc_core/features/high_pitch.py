"""Sound above the pitch range of the networks, as in the whistle register. Pure: reads and writes no files."""

import numpy as np

from ..audio.waveform import runs_of
from .pitch import F0_MAX_HZ, HOP_SAMPLES, SAMPLE_RATE, PitchTrack

_HIGHEST_HZ = 2600.0  # the highest notes that people sing or whistle with the voice
_SAMPLES = 1024
_LOW_SHARE, _TONAL_SHARE = 0.03, 0.5  # of the power: below the tone, and in it and its multiples
_SILENCE_POWER = 10**-6.5
_SHORTEST_FRAMES = 8  # a consonant is shorter or not a tone


def folded(samples_16k: np.ndarray, track: PitchTrack) -> tuple[PitchTrack, np.ndarray]:
    """A track whose tones above 1100 Hz are an octave lower instead of unvoiced, and which frames (T,) those are.

    A frame is such a tone if its strongest frequency lies above 1100 Hz, most of its power is there or at multiples,
    and next to nothing below.

    Parameters
    ----------
    samples_16k : ndarray (N,)
    track : PitchTrack
        T <= N // 160 frames of the same sound.

    Examples
    --------
    >>> time = np.arange(16000) / 16000
    >>> track, high = folded(np.sin(2 * np.pi * 1250 * time), PitchTrack(np.zeros(100), np.zeros(100, bool)))
    >>> round(float(track.f0_hz[50])), bool(high[50])
    (625, True)
    """
    hz = np.zeros(len(track.f0_hz), np.float32)
    padded = np.pad(samples_16k, (_SAMPLES // 2, _SAMPLES))
    frames = np.lib.stride_tricks.sliding_window_view(padded, _SAMPLES)[::HOP_SAMPLES][: len(hz)]
    for start in range(0, len(hz), 2048):  # in blocks: a whole hour would need gigabytes
        block = frames[start : start + 2048]
        hz[start : start + len(block)] = _tones_hz(block)
    for first, last in runs_of(hz > 0):
        if last - first < _SHORTEST_FRAMES:
            hz[first:last] = 0
    while (hz > F0_MAX_HZ).any():
        hz = np.where(hz > F0_MAX_HZ, hz / 2, hz)
    high = hz > 0
    return PitchTrack(np.where(high, hz, track.f0_hz).astype(np.float32), track.voiced | high), high


def _tones_hz(frames: np.ndarray) -> np.ndarray:
    """Frequency of each frame (T, 1024) that is a tone above 1100 Hz; 0 for the others."""
    power = np.abs(np.fft.rfft(frames * np.hanning(_SAMPLES))) ** 2
    bin_hz, rows = SAMPLE_RATE / _SAMPLES, np.arange(len(frames))
    low, high = int(F0_MAX_HZ / bin_hz), int(_HIGHEST_HZ / bin_hz)
    peak = low + power[:, low:high].argmax(1)
    before, at, after = (np.log(power[rows, peak + step] + 1e-12) for step in (-1, 0, 1))
    exact = peak + 0.5 * (before - after) / np.minimum(before - 2 * at + after, -1e-9)
    tonal = np.zeros(len(frames))
    for multiple in (1, 2, 3, 4):
        near = np.rint(multiple * exact).astype(int)
        for step in range(-2, 3):
            tonal += power[rows, np.clip(near + step, 0, power.shape[1] - 1)] * (near + step < power.shape[1])
    total = power.sum(1)
    below = np.where(np.arange(power.shape[1]) < 0.8 * exact[:, None], power, 0).sum(1)
    is_tone = (below < _LOW_SHARE * total) & (tonal > _TONAL_SHARE * total) & (exact * bin_hz > F0_MAX_HZ)
    return np.where(is_tone & (total > _SILENCE_POWER * _SAMPLES**2 / 8), exact * bin_hz, 0)
