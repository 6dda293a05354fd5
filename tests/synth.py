"""A vowel synthesiser whose pitch is known: the independent truth of the tests that need speech.

Source and filter (G. Fant, 1960) in the frequency domain: each harmonic of a known f0 is scaled and delayed by a
cascade of formant resonances, so there is no filter state that could shift the true pitch in time. Syllables glide and
tremble, and are parted by pauses and by fricative noise, which has no pitch.
"""

from dataclasses import dataclass, replace
from functools import cache

import numpy as np

FRAMES_PER_SECOND = 100
_VOWELS_HZ = np.array([[730, 1090, 2440], [530, 1840, 2480], [270, 2290, 3010], [570, 840, 2410], [300, 870, 2240]])
_HIGHER_FORMANTS_HZ = (3500.0, 4500.0)
_TOP_HZ = 7600.0
_RAMP_SECONDS = 0.02


@dataclass(frozen=True)
class Speaker:
    """What makes one synthetic voice differ from another: the vocal tract's length, the source's tilt, the pitch."""

    formant_scale: float
    tilt_db_per_octave: float
    f0_hz: float


SPEAKERS = (
    Speaker(1.0, -9.0, 120.0),
    Speaker(1.18, -12.0, 210.0),
    Speaker(0.88, -7.0, 95.0),
    Speaker(1.3, -10.0, 290.0),
)


@dataclass(frozen=True)
class Phrase:
    """Speech-like sound and its truth; frame t of the truth is the instant t / 100 s.

    Attributes
    ----------
    samples : ndarray (N,), float32
        Peak 0.5.
    f0_hz : ndarray (T,), float32
        T = N * 100 // sample_rate; 0 where unvoiced.
    voiced : ndarray (T,), bool
    """

    samples: np.ndarray
    sample_rate: int
    f0_hz: np.ndarray
    voiced: np.ndarray


def phrase(
    seed: int,
    f0_hz: float | None = None,
    seconds: float = 3.0,
    speaker: int = 0,
    *,
    sample_rate: int = 16_000,
    noise_db: float | None = None,
) -> Phrase:
    """Speak random syllables.

    Parameters
    ----------
    seed : int
        Same seed, same phrase.
    f0_hz : float, optional
        Middle of the pitch, which wanders within about four semitones of it; the speaker's own by default.
    speaker : int
        Row of SPEAKERS.
    noise_db : float, optional
        White noise at this level, relative to the whole phrase: -20 is 20 dB signal to noise.
    """
    spoken = _spoken(seed, f0_hz or SPEAKERS[speaker].f0_hz, seconds, speaker, sample_rate, noise_db)
    return replace(spoken, **{name: getattr(spoken, name).copy() for name in ("samples", "f0_hz", "voiced")})


@cache  # many tests need the same phrases
def _spoken(seed: int, f0_hz: float, seconds: float, speaker: int, sample_rate: int, noise_db: float | None) -> Phrase:
    random, voice = np.random.default_rng(seed), SPEAKERS[speaker]
    time = np.arange(round(seconds * sample_rate)) / sample_rate
    contour_hz = _contour(time, f0_hz, random)
    phase = 2 * np.pi * np.cumsum(contour_hz) / sample_rate
    samples, loudness = np.zeros(len(time)), np.zeros(len(time))
    for start, stop, kind in _syllables(seconds, random):
        span = slice(round(start * sample_rate), round(stop * sample_rate))
        envelope = _envelope(time[span], start, stop)
        if kind == "vowel":
            vowels = _VOWELS_HZ[random.integers(len(_VOWELS_HZ), size=2)]
            samples[span] += envelope * vowel(contour_hz[span], phase[span], vowels, voice, sample_rate)
            loudness[span] = envelope
        else:
            samples[span] += 0.12 * envelope * np.diff(random.standard_normal(len(envelope) + 1))
    if noise_db is not None:
        samples += random.standard_normal(len(samples)) * samples.std() * 10 ** (noise_db / 20)
    return _at_100_frames(samples, sample_rate, contour_hz, loudness > 0.25)


def glide(start_hz: float, stop_hz: float, seconds: float = 2.0, *, sample_rate: int = 16_000) -> Phrase:
    """One vowel whose pitch slides evenly in octaves: where an estimator lags, it reads too low or too high."""
    time = np.arange(round(seconds * sample_rate)) / sample_rate
    contour_hz = start_hz * (stop_hz / start_hz) ** (time / seconds)
    phase = 2 * np.pi * np.cumsum(contour_hz) / sample_rate
    samples = vowel(contour_hz, phase, _VOWELS_HZ[[0, 0]], SPEAKERS[0], sample_rate)
    return _at_100_frames(samples, sample_rate, contour_hz, np.ones(len(time), bool))


def vowel(
    f0_hz: np.ndarray, phase: np.ndarray, formants_hz: np.ndarray, voice: Speaker, sample_rate: int
) -> np.ndarray:
    """Voiced sound that moves from one vowel to another; `formants_hz` (2, 3), `f0_hz` and `phase` (N,), RMS 0.15."""
    mix = np.linspace(0, 1, len(f0_hz))
    moving = [voice.formant_scale * (first + (last - first) * mix) for first, last in formants_hz.T]
    resonances = moving + [np.full(len(f0_hz), voice.formant_scale * higher) for higher in _HIGHER_FORMANTS_HZ]
    squared_hz = [centre**2 for centre in resonances]
    damping_hz = [1j * (50 + 0.04 * centre) for centre in resonances]
    gain, turn = np.prod(squared_hz, axis=0), np.exp(1j * phase)
    sound, turned = np.zeros(len(f0_hz)), np.ones(len(f0_hz), complex)
    for harmonic in range(1, int(_TOP_HZ / f0_hz.min()) + 1):
        frequency, below = harmonic * f0_hz, np.ones(len(f0_hz), complex)
        turned *= turn
        for square, damping in zip(squared_hz, damping_hz, strict=True):
            below *= square - frequency**2 + frequency * damping
        response = harmonic ** (voice.tilt_db_per_octave / 6.02) * gain * (turned / below).real
        sound += np.where(frequency < min(_TOP_HZ, 0.48 * sample_rate), response, 0)
    return 0.15 * sound / np.sqrt(np.mean(sound**2))


def _at_100_frames(samples: np.ndarray, sample_rate: int, contour_hz: np.ndarray, voiced: np.ndarray) -> Phrase:
    """Scale the sound to a peak of 0.5 and read its truth at every hundredth of a second."""
    ticks = np.arange(len(samples) * FRAMES_PER_SECOND // sample_rate) * sample_rate // FRAMES_PER_SECOND
    f0_hz = np.where(voiced, contour_hz, 0)[ticks]
    return Phrase(
        (samples * 0.5 / np.abs(samples).max()).astype(np.float32), sample_rate, f0_hz.astype(np.float32), voiced[ticks]
    )


def _contour(time: np.ndarray, middle_hz: float, random: np.random.Generator) -> np.ndarray:
    """Pitch over time (N,): a slow melody and a vibrato of a third of a semitone."""
    knots = np.arange(0, time[-1] + 0.8, 0.4)
    melody = np.interp(time, knots, random.uniform(-3.5, 3.5, len(knots)))
    return middle_hz * 2 ** ((melody + 0.3 * np.sin(2 * np.pi * 5.5 * time + random.uniform(0, 6))) / 12)


def _syllables(seconds: float, random: np.random.Generator) -> list[tuple[float, float, str]]:
    """Start, stop and kind of each sound; the rest are pauses, the first of them a tenth of a second long."""
    spans, now = [], 0.1
    while True:
        vowel_seconds, gap_seconds = random.uniform(0.18, 0.5), random.uniform(0.08, 0.25)
        if now + vowel_seconds + gap_seconds > seconds:
            return spans
        spans.append((now, now + vowel_seconds, "vowel"))
        now += vowel_seconds
        if random.random() < 0.5:
            spans.append((now, now + gap_seconds, "fricative"))
        now += gap_seconds


def _envelope(time: np.ndarray, start: float, stop: float) -> np.ndarray:
    """Rises and falls within 20 ms, smoothly."""
    edge = np.clip(np.minimum(time - start, stop - time) / _RAMP_SECONDS, 0, 1)
    return np.sin(0.5 * np.pi * edge) ** 2
