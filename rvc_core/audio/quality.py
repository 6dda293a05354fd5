"""Measure a recording: level, noise, clipping, bandwidth, silence. Pure: reads and writes no files."""

from dataclasses import dataclass

import numpy as np

from .slicer import own_silence_db
from .waveform import Audio, frame_rms

_FLOOR_DB = -100.0
_SILENCE_DB = -42.0  # of full scale: the slicer's silence threshold
_NOISE_SHARE = 0.02
_FLAT, _FLAT_SAMPLES = 1e-4, 4  # four samples in a row this close to the peak count as clipped
_SPECTRUM_SAMPLES = 2048
_EMPTY_DB = -75.0  # of the strongest bin: a weaker band counts as empty
TOO_LOUD = 2.5  # of full scale: RVC's limit; a clip with a higher peak is not used
_FULL_SCALES = (32768, 8388608, 2147483648)  # of whole numbers in a file of floats


@dataclass(frozen=True)
class Quality:
    """Figures of one recording.

    Attributes
    ----------
    level_db : float
        RMS of the frames above silence, dB of full scale.
    noise_db : float
        RMS of the quietest 2 % of the 30 ms frames, without digital silence; dB of full scale, at least -100.
    snr_db : float
        Level minus noise. On speech, within 2 dB of the truth from 10 to 30 dB. Sound without pauses, such as music,
        reads too low.
    clipped_share : float
        Share of samples in flat tops at the recording's own peak, 0..1. Resampling and lossy coding hide clipping.
    bandwidth_hz : float
        Highest frequency with sound, up to half the sample rate.
    silent_share : float
        Share of time below -42 dB, or below a quiet recording's own level of silence, 0..1.
    offset : float
        Mean of the samples (DC), of full scale.
    """

    level_db: float
    noise_db: float
    snr_db: float
    clipped_share: float
    bandwidth_hz: float
    silent_share: float
    offset: float


def measure(audio: Audio) -> Quality:
    """Measure a recording of at least one sample.

    Examples
    --------
    >>> tone = np.sin(2 * np.pi * 1000 / 16000 * np.arange(16000)).astype(np.float32)
    >>> quality = measure(Audio(0.1 * tone, 16000))
    >>> round(quality.level_db), quality.clipped_share, quality.silent_share
    (-23, 0.0, 0.0)
    """
    offset = float(audio.samples.mean(dtype=np.float64))
    samples = audio.samples - np.float32(offset)
    hop = max(1, round(0.015 * audio.sample_rate))
    rms = frame_rms(samples, hop, 4)
    silent = rms < 10 ** (own_silence_db(rms, _SILENCE_DB) / 20)
    level_db = _decibels(rms if silent.all() else rms[~silent])
    short = frame_rms(samples, hop, 2)[1:-1]  # the first and last frame reach beyond the ends
    audible = np.sort(short[short > 10 ** (_FLOOR_DB / 20)])
    noise_db = _decibels(audible[: 1 + round(_NOISE_SHARE * len(audible))])
    return Quality(
        level_db,
        noise_db,
        level_db - noise_db,
        clipped_share(audio.samples),
        bandwidth_hz(audio),
        float(silent.mean()),
        offset,
    )


def clipped_share(samples: np.ndarray) -> float:
    """Share of samples (N,) in flat tops: at least four in a row at the highest or at the lowest value.

    Examples
    --------
    >>> clipped_share(np.array([0, 0.5, 0.5, 0.5, 0.5, 0, -0.2, 0.3]))
    0.5
    """
    clipped = 0
    for side in (samples, -samples):
        at_peak = np.concatenate([[False], side >= max(side.max() * (1 - _FLAT), 1e-6), [False]])
        starts, stops = np.flatnonzero(at_peak[1:] != at_peak[:-1]).reshape(-1, 2).T
        runs = stops - starts
        clipped += int(runs[runs >= _FLAT_SAMPLES].sum())
    return clipped / len(samples)


def beyond_full_scale(audio: Audio) -> str:
    """How much of a recording is too loud for training, and what to do about it; empty if nothing is.

    Examples
    --------
    >>> beyond_full_scale(Audio(np.full(8000, -9000, np.float32), 8000))
    '1.0 s beyond full scale (peak 9000, where 1 is full scale): divide its samples by 32768'
    """
    starts = range(0, len(audio.samples), max(1, audio.sample_rate // 10))
    peaks = np.maximum.reduceat(np.abs(audio.samples), starts)
    if (peak := float(peaks.max())) <= TOO_LOUD:
        return ""
    full = next((full for full in _FULL_SCALES if peak <= 1.1 * full), 0) if peak > 32 else 0
    seconds = np.count_nonzero(peaks > TOO_LOUD) / 10
    remedy = f"divide its samples by {full}" if full else "lower its level"
    return f"{seconds:.1f} s beyond full scale (peak {peak:.4g}, where 1 is full scale): {remedy}"


def bandwidth_hz(audio: Audio) -> float:
    """Highest frequency whose average power is within 75 dB of the strongest one's; 0 for silence.

    A 48 kHz file converted from 16 kHz shows 8000 Hz.
    """
    window = np.hanning(_SPECTRUM_SAMPLES).astype(np.float32)
    samples = np.pad(audio.samples, (0, max(0, _SPECTRUM_SAMPLES - len(audio.samples))))
    frames = np.lib.stride_tricks.sliding_window_view(samples, _SPECTRUM_SAMPLES)[::_SPECTRUM_SAMPLES]
    power = np.zeros(_SPECTRUM_SAMPLES // 2 + 1)
    for start in range(0, len(frames), 512):  # in blocks: a whole hour would need gigabytes
        power += (np.abs(np.fft.rfft(frames[start : start + 512] * window)) ** 2).sum(axis=0)
    power = np.convolve(power, np.full(5, 0.2), "same")
    filled = np.flatnonzero(power > power.max() * 10 ** (_EMPTY_DB / 10))
    return float(filled[-1] * audio.sample_rate / _SPECTRUM_SAMPLES) if len(filled) else 0.0


def _decibels(rms: np.ndarray) -> float:
    power = float(np.mean(rms**2)) if len(rms) else 0.0
    return max(_FLOOR_DB, 10 * float(np.log10(power))) if power > 0 else _FLOOR_DB
