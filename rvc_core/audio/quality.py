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
_EXCERPT_SECONDS = 60.0  # of a recording are enough to tell hum, reverb and music
_RATE_HZ, _FEWEST_FRAMES = 16_000, 5
_HUM_RATE_HZ, _HUM_SAMPLES, _HUM_SHARE, _LINE_DB = 2000, 800, 0.15, 10.0
_FALL_FRAMES = 12  # of 10 ms: a fall of the level
_PAUSE_SHARE = 0.2
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
    hum_hz, hum_db : float
        Frequency of the mains whose hum is in the pauses (50 or 60 Hz; 0: none), and its level, dB of full scale.
    reverb_seconds : float
        Time in which sound would fade by 60 dB, by the median of its free decays; 0: too few to tell. Dry recordings
        have 0.3 to 0.7, rooms of 1 s have 0.7 to 1.
    pause_flatness : float
        Spectral flatness of the quietest fifth, in bands of 250 Hz: 0.6 is noise, below 0.46 it is music or voices.
    """

    level_db: float
    noise_db: float
    snr_db: float
    clipped_share: float
    bandwidth_hz: float
    silent_share: float
    offset: float
    hum_hz: float = 0.0
    hum_db: float = _FLOOR_DB
    reverb_seconds: float = 0.0
    pause_flatness: float = 1.0


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
    start = max(0.0, audio.seconds - _EXCERPT_SECONDS) / 2
    middle = audio[start : start + _EXCERPT_SECONDS]
    mains = hum(middle)
    return Quality(
        level_db,
        noise_db,
        level_db - noise_db,
        clipped_share(audio.samples),
        bandwidth_hz(audio),
        float(silent.mean()),
        offset,
        mains.hz,
        mains.level_db,
        reverb_seconds(middle),
        pause_flatness(middle),
    )


@dataclass(frozen=True)
class Hum:
    """Hum of the mains: its frequency (0: none), its level in dB of full scale, and the harmonics that stand out."""

    hz: float = 0.0
    level_db: float = _FLOOR_DB
    harmonics: tuple[int, ...] = ()


def hum(audio: Audio) -> Hum:
    """Find the hum of the mains in the quietest moments: two or more lines 10 dB above their neighbours.

    Examples
    --------
    >>> time, noise = np.arange(32_000) / 16_000, np.random.default_rng(0).standard_normal(32_000)
    >>> lines = np.sin(2 * np.pi * 50 * time) + np.sin(2 * np.pi * 150 * time)
    >>> found = hum(Audio((0.01 * lines + 1e-4 * noise).astype(np.float32), 16_000))
    >>> found.hz, round(found.level_db), found.harmonics, hum(Audio(noise.astype(np.float32), 16_000)).hz
    (50.0, -40, (1, 3), 0.0)
    """
    power, window, step_hz = _quietest(audio, _HUM_RATE_HZ, _HUM_SAMPLES, _HUM_SHARE)
    if len(power) < _FEWEST_FRAMES:
        return Hum()
    median, near, far = np.median(power, axis=0) + 1e-20, round(6 / step_hz) + 1, round(16 / step_hz)
    best, most = Hum(), 0.0
    for mains_hz in (50.0, 60.0):
        bins = np.round(np.arange(1, 9) * mains_hz / step_hz).astype(int)
        sides = np.array([[*range(one - far, one - near + 1), *range(one + near, one + far + 1)] for one in bins])
        tops = np.array([median[one - 1 : one + 2].max() for one in bins])
        above_db = 10 * np.log10(tops / np.median(median[sides], axis=1))
        strong = np.flatnonzero(above_db > _LINE_DB)
        if len(strong) >= 2 and above_db[strong].sum() > most:
            lines = sum(median[bins[one] - 2 : bins[one] + 3].sum() for one in strong)
            level_db = 10 * float(np.log10(2 * lines / (len(window) * (window @ window))))
            best, most = Hum(mains_hz, level_db, tuple(int(one) + 1 for one in strong)), above_db[strong].sum()
    return best


def reverb_seconds(audio: Audio) -> float:
    """Time in which sound would fade by 60 dB: the median over straight falls of the level, 0.5 to 4 kHz, in 0.12 s."""
    from scipy import signal

    if audio.seconds < 0.02 * _FALL_FRAMES:
        return 0.0
    samples = audio.resample(_RATE_HZ).samples
    bands = signal.sosfilt(signal.butter(4, [500, 4000], "bandpass", fs=_RATE_HZ, output="sos"), samples)
    decibels = 20 * np.log10(np.maximum(frame_rms(bands.astype(np.float32), _RATE_HZ // 100, 4), 1e-6))
    time = (np.arange(_FALL_FRAMES) - (_FALL_FRAMES - 1) / 2) / 100
    spans = np.lib.stride_tricks.sliding_window_view(decibels, _FALL_FRAMES)
    slopes = spans @ time / (time @ time)  # dB per second
    falls = (
        (slopes < -40)
        & (spans[:, 0] > np.quantile(decibels, 0.95) - 20)
        & (spans[:, -1] > np.quantile(decibels, 0.05) + 6)
        & (np.diff(spans, axis=1).max(axis=1) < 0.8)
    )
    return float(np.median(-60 / slopes[falls])) if falls.sum() >= _FEWEST_FRAMES else 0.0


def pause_flatness(audio: Audio) -> float:
    """Spectral flatness of the quietest fifth, 0.1 to 4 kHz, the median over bands of 250 Hz; 1 without sound.

    Examples
    --------
    >>> noise = Audio(np.random.default_rng(0).standard_normal(32_000).astype(np.float32), 16_000)
    >>> chord = sum(np.sin(np.arange(32_000) * step) for step in (0.1, 0.13, 0.19, 0.41, 0.9, 1.3)).astype(np.float32)
    >>> round(pause_flatness(noise), 1), pause_flatness(Audio(chord, 16_000)) < 0.4
    (0.6, True)
    """
    power, _, _ = _quietest(audio, _RATE_HZ, 1024, _PAUSE_SHARE)
    if len(power) < _FEWEST_FRAMES:
        return 1.0
    bands = power[:, 8:264].reshape(len(power), -1, 16) + 1e-20
    return float(np.median(np.exp(np.log(bands).mean(axis=2)) / bands.mean(axis=2)))


def _quietest(audio: Audio, rate_hz: int, size: int, share: float) -> tuple[np.ndarray, np.ndarray, float]:
    """Power spectra (T, size // 2 + 1) of the quietest frames that are not silent, the window, Hz per bin."""
    samples, window = audio.resample(rate_hz).samples, np.hanning(size)
    if len(samples) < 4 * size:
        return np.zeros((0, size // 2 + 1)), window, rate_hz / size
    frames = np.lib.stride_tricks.sliding_window_view(samples, size)[:: size // 4]
    power = np.abs(np.fft.rfft(frames * window)) ** 2
    totals = power[:, round(80 * size / rate_hz) :].sum(axis=1)
    power, totals = power[totals > 1e-9], totals[totals > 1e-9]
    return power[np.argsort(totals)[: max(_FEWEST_FRAMES, round(share * len(totals)))]], window, rate_hz / size


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
