"""Measure a recording: level, noise, clipping, bandwidth, reverb, music, hum. Pure: reads and writes no files."""

import math
from dataclasses import dataclass

import numpy as np

from .loudness import SILENT_LUFS
from .mixing import Stem, loudness_lufs
from .slicer import own_silence_db
from .waveform import Audio, frame_rms, runs_of

_FLOOR_DB = -100.0
_SILENCE_DB = -42.0  # of full scale: the slicer's silence threshold
_NOISE_SHARE, _STRETCH_SECONDS, _NOISY_QUANTILE, _LEAST_AUDIBLE = 0.02, 10.0, 0.75, 30
_FLAT, _FLAT_SAMPLES = 1e-4, 4  # four samples in a row this close to the peak count as clipped
_SPECTRUM_SAMPLES = 2048
_EMPTY_DB = -75.0  # of the strongest bin: a weaker band counts as empty
TOO_LOUD = 2.5  # of full scale: RVC's limit; a clip with a higher peak is not used
_EXCERPT_SECONDS = 60.0  # of a recording are enough to tell hum, reverb and music
_RATE_HZ, _FEWEST_FRAMES = 16_000, 5
_HUM_RATE_HZ, _HUM_SAMPLES, _HUM_SHARE, _HUM_QUANTILE, _LINE_DB = 2000, 800, 0.3, 0.1, 8.0
_FALL_FRAMES, _FALL_SHARE, _FALLS_FROM_DB = 12, 0.03, 15.0  # frames of 10 ms; see docs/survey.md
_FALL_TO_RT60 = 2.6
_PAUSE_SHARE, _PAUSE_SAMPLES, _PAUSE_QUANTILE = 0.1, 2048, 0.25
_STEP_SECONDS, _STEP_BLOCKS, _STEP_SHARE, _SURE_STEP = 1.0, 2, 0.2, 6.0
_EDGE_HZ, _LEAST_EDGE_HZ, _EDGE_DB = 400.0, 3500.0, 30.0
_FULL_SCALES = (32768, 8388608, 2147483648)  # of whole numbers in a file of floats


@dataclass(frozen=True)
class Quality:
    """Figures of one recording.

    Attributes
    ----------
    level_db : float
        RMS of the frames above silence, dB of full scale.
    noise_db : float
        RMS of the quietest 2 % of the 30 ms frames, without digital silence; dB of full scale, at least -100. Of the
        stretches of 10 s, a quarter or one is as noisy or noisier.
    snr_db : float
        Level without the noise, minus noise; at least 0. Sound without pauses, such as music, reads too low.
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
        RT60: time in which sound fades by 60 dB, by the fastest falls of the level. 0: too short to tell.
    pause_flatness : float
        Spectral flatness of the quietest tenth, in bands of 125 Hz: 0.5 is noise, below 0.42 it is music or voices.
    loudness_lufs : float
        Integrated loudness of the one channel that training gets, BS.1770.
    step_db : float
        How much louder the speech is on one side of `step_seconds` than on the other, at the time where that is
        surest. 0: nowhere sure. A fifth of the speech and two seconds at least are on each side.
    edge_hz : float
        Where a lossy codec or a lower sample rate cut the sound off: 30 dB within 800 Hz. 0: nowhere.
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
    loudness_lufs: float = SILENT_LUFS
    step_db: float = 0.0
    step_seconds: float = 0.0
    edge_hz: float = 0.0


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
    _, noises_db = noises(samples, audio.sample_rate)
    noise_db = float(np.quantile(noises_db, _NOISY_QUANTILE, method="higher"))
    level_db = _decibels(rms if silent.all() else rms[~silent])
    middle = middle_of(audio)
    mains, spectrum = hum(middle), _spectrum(audio)
    return Quality(
        level_db,
        noise_db,
        10 * float(np.log10(max(1.0, 10 ** ((level_db - noise_db) / 10) - 1))),
        clipped_share(audio.samples),
        bandwidth_hz(audio, spectrum),
        float(silent.mean()),
        offset,
        mains.hz,
        mains.level_db,
        reverb_seconds(middle),
        pause_flatness(middle),
        loudness_lufs(Stem(audio.samples[:, None], audio.sample_rate)),
        *_step(rms, ~silent, hop / audio.sample_rate),
        _edge_hz(spectrum, audio.sample_rate),
    )


def noises(samples: np.ndarray, rate_hz: int) -> tuple[np.ndarray, np.ndarray]:
    """Where stretches of about 10 s begin, in seconds, and the noise of each (dB of full scale)."""
    hop = max(1, round(0.015 * rate_hz))
    short = frame_rms(samples, hop, 2)[1:-1]  # the first and last frame reach beyond the ends
    edges = np.linspace(0, len(short), max(1, round(len(short) * hop / rate_hz / _STRETCH_SECONDS)) + 1).astype(int)
    rows = []
    for start, stop in zip(edges[:-1], edges[1:], strict=True):
        audible = np.sort(short[start:stop][short[start:stop] > 10 ** (_FLOOR_DB / 20)])
        if len(audible) >= _LEAST_AUDIBLE or len(edges) == 2:
            rows.append((start * hop / rate_hz, _decibels(audible[: 1 + round(_NOISE_SHARE * len(audible))])))
    starts, levels_db = np.array(rows or [(0.0, _FLOOR_DB)]).T
    return starts, levels_db


def middle_of(audio: Audio) -> Audio:
    """The minute in the middle: enough to tell hum, reverb and music."""
    start = max(0.0, audio.seconds - _EXCERPT_SECONDS) / 2
    return audio[start : start + _EXCERPT_SECONDS]


@dataclass(frozen=True)
class Hum:
    """Hum of the mains: its frequency (0: none), its level in dB of full scale, and the harmonics that stand out."""

    hz: float = 0.0
    level_db: float = _FLOOR_DB
    harmonics: tuple[int, ...] = ()


def hum(audio: Audio) -> Hum:
    """Find the hum of the mains in the quieter moments: two or more lines 8 dB above their neighbours.

    A hum never stops, so each frequency counts in its own quietest tenth of them: speech needs no pauses.

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
    floor, near, far = np.quantile(power, _HUM_QUANTILE, axis=0) + 1e-20, round(6 / step_hz) + 1, round(16 / step_hz)
    best, most = Hum(), 0.0
    for mains_hz in (50.0, 60.0):
        bins = np.round(np.arange(1, 9) * mains_hz / step_hz).astype(int)
        sides = np.array([[*range(one - far, one - near + 1), *range(one + near, one + far + 1)] for one in bins])
        tops = np.array([floor[one - 1 : one + 2].max() for one in bins])
        above_db = 10 * np.log10(tops / np.median(floor[sides], axis=1))
        strong = np.flatnonzero(above_db > _LINE_DB)
        if len(strong) >= 2 and above_db[strong].sum() > most:
            lines = sum(floor[bins[one] - 2 : bins[one] + 3].sum() for one in strong)
            level_db = 10 * float(np.log10(2 * lines / (len(window) * (window @ window))))
            best, most = Hum(mains_hz, level_db, tuple(int(one) + 1 for one in strong)), above_db[strong].sum()
    return best


def reverb_seconds(audio: Audio) -> float:
    """RT60 by the steepest falls of the level in 0.12 s, 0.5 to 4 kHz: a room lets nothing fade faster than it does.

    ``2.6 * fall**2``, where `fall` is the time for 60 dB at the slope that 3 % of the falls exceed; fitted on people in
    rooms of 0.3 to 1.5 s. Noise within 15 dB of the voice hides the falls, and it reads too long.

    Examples
    --------
    >>> bursts = np.random.default_rng(0).standard_normal((8, 8000)) * (np.arange(8000) < 3000)
    >>> room = np.random.default_rng(1).standard_normal(16_000) * 10 ** (-3 * np.arange(16_000) / 16_000)
    >>> far = np.convolve(bursts.ravel(), room)[:64_000].astype(np.float32)
    >>> reverb_seconds(Audio(bursts.ravel().astype(np.float32), 16_000)) < 0.3, reverb_seconds(Audio(far, 16_000)) > 0.6
    (True, True)
    """
    from scipy import signal

    if audio.seconds < 0.02 * _FALL_FRAMES:
        return 0.0
    samples = audio.resample(_RATE_HZ).samples
    bands = signal.sosfilt(signal.butter(4, [500, 4000], "bandpass", fs=_RATE_HZ, output="sos"), samples)
    decibels = 20 * np.log10(np.maximum(frame_rms(bands.astype(np.float32), _RATE_HZ // 100, 4), 1e-6))
    time = (np.arange(_FALL_FRAMES) - (_FALL_FRAMES - 1) / 2) / 100
    spans = np.lib.stride_tricks.sliding_window_view(decibels, _FALL_FRAMES)
    slopes = (spans @ time / (time @ time))[spans[:, 0] > np.quantile(decibels, 0.95) - _FALLS_FROM_DB]
    slope = float(np.quantile(slopes, _FALL_SHARE)) if len(slopes) >= _FEWEST_FRAMES else 0.0  # dB per second
    return _FALL_TO_RT60 * (60 / slope) ** 2 if slope < -20 else 0.0


def pause_flatness(audio: Audio) -> float:
    """Spectral flatness of the quietest tenth, 0.1 to 4 kHz: the lower quartile over bands of 125 Hz; 1 without sound.

    Examples
    --------
    >>> noise = Audio(np.random.default_rng(0).standard_normal(32_000).astype(np.float32), 16_000)
    >>> chord = sum(np.sin(np.arange(32_000) * step) for step in (0.1, 0.13, 0.19, 0.41, 0.9, 1.3)).astype(np.float32)
    >>> round(pause_flatness(noise), 1), pause_flatness(Audio(chord, 16_000)) < 0.4
    (0.5, True)
    """
    power, _, _ = _quietest(audio, _RATE_HZ, _PAUSE_SAMPLES, _PAUSE_SHARE)
    if len(power) < _FEWEST_FRAMES:
        return 1.0
    bands = power[:, 16:512].reshape(len(power), -1, 16) + 1e-20
    return float(np.quantile(np.exp(np.log(bands).mean(axis=2)) / bands.mean(axis=2), _PAUSE_QUANTILE))


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
    """Share of samples (N,) in flat tops.

    Examples
    --------
    >>> clipped_share(np.array([0, 0.5, 0.5, 0.5, 0.5, 0, -0.2, 0.3]))
    0.5
    """
    starts, stops = flat_tops(samples)
    return float((stops - starts).sum()) / len(samples)


def flat_tops(samples: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Where flat tops begin and end, as samples: at least four in a row at the highest or at the lowest value."""
    found = []
    for side in (samples, -samples):
        runs = runs_of(side >= max(side.max() * (1 - _FLAT), 1e-6))
        found.append(runs[np.diff(runs, axis=1)[:, 0] >= _FLAT_SAMPLES])
    starts, stops = np.sort(np.concatenate(found), axis=0).T
    return starts, stops


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


def bandwidth_hz(audio: Audio, spectrum: np.ndarray | None = None) -> float:
    """Highest frequency whose average power is within 75 dB of the strongest one's; 0 for silence.

    A 48 kHz file converted from 16 kHz shows 8000 Hz.
    """
    power = _spectrum(audio) if spectrum is None else spectrum
    filled = np.flatnonzero(power > power.max() * 10 ** (_EMPTY_DB / 10))
    return float(filled[-1] * audio.sample_rate / _SPECTRUM_SAMPLES) if len(filled) else 0.0


def _spectrum(audio: Audio) -> np.ndarray:
    """Power (1025,), summed over the recording and smoothed over five bins."""
    window = np.hanning(_SPECTRUM_SAMPLES).astype(np.float32)
    samples = np.pad(audio.samples, (0, max(0, _SPECTRUM_SAMPLES - len(audio.samples))))
    frames = np.lib.stride_tricks.sliding_window_view(samples, _SPECTRUM_SAMPLES)[::_SPECTRUM_SAMPLES]
    power = np.zeros(_SPECTRUM_SAMPLES // 2 + 1)
    for start in range(0, len(frames), 512):  # in blocks: a whole hour would need gigabytes
        power += (np.abs(np.fft.rfft(frames[start : start + 512] * window)) ** 2).sum(axis=0)
    return np.convolve(power, np.full(5, 0.2), "same")


def _edge_hz(power: np.ndarray, rate_hz: int) -> float:
    decibels, step_hz = 10 * np.log10(power + 1e-20), rate_hz / _SPECTRUM_SAMPLES
    near, first, last = round(_EDGE_HZ / step_hz), round(_LEAST_EDGE_HZ / step_hz), round(0.45 * rate_hz / step_hz)
    if first >= last or not power.any():
        return 0.0
    drops = decibels[first - near : last - near] - decibels[first + near : last + near]
    return float((first + drops.argmax()) * step_hz) if drops.max() > _EDGE_DB else 0.0


def _step(rms: np.ndarray, spoken: np.ndarray, hop_seconds: float) -> tuple[float, float]:
    """The surest difference in level, dB, between what is before and after a time, and that time in seconds."""
    size = round(_STEP_SECONDS / hop_seconds)
    counts = np.add.reduceat(spoken, np.arange(0, len(spoken), size))
    sums = np.add.reduceat(rms**2 * spoken, np.arange(0, len(spoken), size))
    full = np.flatnonzero(counts > size / 3)
    totals = np.cumsum([0, *(10 * np.log10(sums[full] / counts[full]))])
    least = max(_STEP_BLOCKS, math.ceil(_STEP_SHARE * len(full)))
    before = np.arange(least, len(full) - least)  # blocks; the one in between may hold the step
    if not len(before):
        return 0.0, 0.0
    after = len(full) - 1 - before
    steps = np.abs(totals[before] / before - (totals[-1] - totals[before + 1]) / after)
    sure = steps * np.sqrt(before * after / (before + after))
    best = sure.argmax()
    at = float((full[before[best]] + 0.5) * _STEP_SECONDS)
    return (float(steps[best]), at) if sure[best] > _SURE_STEP else (0.0, 0.0)


def _decibels(rms: np.ndarray) -> float:
    power = float(np.mean(rms**2)) if len(rms) else 0.0
    return max(_FLOOR_DB, 10 * float(np.log10(power))) if power > 0 else _FLOOR_DB
