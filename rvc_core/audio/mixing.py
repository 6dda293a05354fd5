"""Mix mono and stereo stems: loudness, true peak, alignment, gate, placing, reverb, key."""

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from .blocks import open_blocks
from .tracks import mono
from .waveform import Audio, frame_rms, save_channels

SILENT_LUFS = -70.0  # BS.1770's absolute gate
_BLOCK_SECONDS, _LONGEST_SECONDS = 0.4, 300.0  # of one measurement of loudness
_PEAK_SAMPLES, _PEAK_EDGE = 1 << 18, 512
_ENVELOPE_HZ, _MOST_LAG_SECONDS = 2000, 0.1
_SURE_CORRELATION = 0.3  # below it, two envelopes have too little in common to tell a lag
_GATE_SECONDS = 0.02
_CLOSED_DB, _OPEN_DB, _FLOOR_DB = -50.0, -40.0, -70.0  # of the loud parts; of full scale
_ROOM_SECONDS, _ROOM_REGULAR = 1.5, 1e-3


@dataclass(frozen=True)
class Stem:
    """Mono or stereo sound.

    Attributes
    ----------
    samples : ndarray (N, C), float32
    sample_rate : int
        Hz.

    Examples
    --------
    >>> stem = Stem(np.ones((8000, 2), np.float32), 8000)
    >>> stem.seconds, stem.gained(-6.0206).samples[0].round(3).tolist(), (stem + stem).samples[0].tolist()
    (1.0, [0.5, 0.5], [2.0, 2.0])
    """

    samples: np.ndarray
    sample_rate: int

    @property
    def seconds(self) -> float:
        """Length."""
        return len(self.samples) / self.sample_rate

    @property
    def mono(self) -> Audio:
        """One channel, mixed as recordings are read."""
        return Audio(np.ascontiguousarray(mono(self.samples)), self.sample_rate)

    def __add__(self, other: "Stem") -> "Stem":
        return replace(self, samples=self.samples + other.samples)

    def gained(self, gain_db: float) -> "Stem":
        """Louder by so many dB."""
        return replace(self, samples=self.samples * np.float32(10 ** (gain_db / 20)))

    def save(self, path: Path, *, comment: str = "", depth: str = "auto") -> None:
        """Write the file atomically, in the format of its suffix; see `waveform.Audio.save`."""
        save_channels(path, self.samples, self.sample_rate, comment=comment, depth=depth)


def read_stem(path: Path) -> Stem:
    """Read a recording with its channels; more than two are folded to stereo.

    Raises
    ------
    AudioError
        When the file is missing or damaged.
    """
    with open_blocks(path) as reader:
        blocks = list(reader)
        return Stem(np.concatenate(blocks, axis=1).T, reader.sample_rate_hz)


# -- measured ------------------------------------------------------------------------------------------------------
def loudness_lufs(stem: Stem) -> float:
    """Integrated loudness by ITU-R BS.1770-4 (pyloudnorm); -70 for silence. Under 0.4 s the sound is repeated.

    What is longer than five minutes is measured in parts of that length, whose energies are averaged.

    Examples
    --------
    >>> tone = 0.1 * np.sin(2 * np.pi * 997 * np.arange(48000) / 48000).astype(np.float32)
    >>> round(loudness_lufs(Stem(np.stack([tone, tone], 1), 48000)), 1), loudness_lufs(Stem(tone[:, None] * 0, 48000))
    (-20.0, -70.0)
    """
    import pyloudnorm

    samples, rate = stem.samples, stem.sample_rate
    if not len(samples) or not np.abs(samples).max():
        return SILENT_LUFS
    shortest = round(_BLOCK_SECONDS * rate) + 1
    if len(samples) < shortest:
        samples = np.tile(samples, (-(-shortest // len(samples)), 1))
    parts = np.array_split(samples, max(1, -(-len(samples) // round(_LONGEST_SECONDS * rate))))
    meter = pyloudnorm.Meter(rate)
    with np.errstate(divide="ignore", invalid="ignore"):  # of a part in which nothing is above the gate
        measured = np.array([meter.integrated_loudness(part) for part in parts])
    weights = np.array([len(part) for part in parts])[audible] if (audible := measured > SILENT_LUFS).any() else None
    if weights is None:
        return SILENT_LUFS
    return float(10 * np.log10(np.average(10 ** (measured[audible] / 10), weights=weights)))


def true_peak_db(stem: Stem) -> float:
    """Highest peak of the waveform, also between samples, dB of full scale: four times oversampled, as in BS.1770.

    Examples
    --------
    >>> tone = np.sin(np.pi / 2 * np.arange(48000) + np.pi / 4).astype(np.float32)   # no sample meets a peak
    >>> round(20 * float(np.log10(tone.max()))), round(true_peak_db(Stem(tone[:, None], 48000)))
    (-3, 0)
    """
    import soxr

    peak, total = 0.0, len(stem.samples)
    for start in range(0, total, _PEAK_SAMPLES):
        first, last = max(0, start - _PEAK_EDGE), min(total, start + _PEAK_SAMPLES + _PEAK_EDGE)
        dense = soxr.resample(stem.samples[first:last], 1, 4, quality="HQ")
        kept = dense[4 * (start - first) : 4 * (min(total, start + _PEAK_SAMPLES) - first)]
        peak = max(peak, float(np.abs(kept).max(initial=0)))
    return max(-100.0, 20 * float(np.log10(max(peak, 1e-9))))


def lag_seconds(made: Audio, source: Audio) -> float | None:
    """By how much a recording is later than another one of the same words, from the rise and fall of their levels.

    Within 0.1 s. None: their levels have too little in common to tell.

    Examples
    --------
    >>> random = np.random.default_rng(0)
    >>> bursts = np.repeat(random.random(60), 800) ** 3 * random.standard_normal(48000)
    >>> early, late = (Audio(np.roll(bursts, by).astype(np.float32), 16000) for by in (0, 320))
    >>> round(lag_seconds(late, early), 3), lag_seconds(Audio(np.ones(48000, np.float32), 16000), early)
    (0.02, None)
    """
    from scipy.signal import correlate

    first, second = (_level(audio) for audio in (made, source))
    length = min(len(first), len(second))
    first, second = first[:length] - first[:length].mean(), second[:length] - second[:length].mean()
    energy = np.sqrt((first @ first) * (second @ second))
    reach = min(length - 1, round(_MOST_LAG_SECONDS * _ENVELOPE_HZ))
    if energy < 1e-9 or reach < 2:
        return None
    found = correlate(first, second, "full", "fft")[length - 1 - reach : length + reach] / energy
    best = int(found[1:-1].argmax()) + 1
    if found[best] < _SURE_CORRELATION:
        return None
    before, top, after = found[best - 1 : best + 2]
    return float(best - reach + 0.5 * (before - after) / min(before - 2 * top + after, -1e-12)) / _ENVELOPE_HZ


def _level(audio: Audio) -> np.ndarray:
    """Level in dB at 2 kHz, smoothed over 10 ms, nothing below 40 dB under the loudest."""
    hop = max(1, audio.sample_rate // _ENVELOPE_HZ)
    rms = frame_rms(audio.samples, hop, 20)
    times = np.arange(0, len(audio.samples) / audio.sample_rate, 1 / _ENVELOPE_HZ)
    decibels = 20 * np.log10(np.maximum(rms, 1e-2 * rms.max() + 1e-9))
    return np.interp(times, np.arange(len(rms)) * hop / audio.sample_rate, decibels)


def loudest_seconds(audio: Audio, seconds: float) -> float:
    """Where the loudest part of this length begins, in whole seconds; 0 where all of it fits.

    Examples
    --------
    >>> song = np.concatenate([np.zeros(8000 * 60), np.ones(8000 * 30), np.zeros(8000 * 60)]).astype(np.float32)
    >>> loudest_seconds(Audio(song, 8000), 30.0)
    60.0
    """
    whole, window = int(audio.seconds), int(seconds)
    if whole <= window:
        return 0.0
    blocks = audio.samples[: whole * audio.sample_rate].reshape(whole, audio.sample_rate)
    sums = np.concatenate([[0.0], np.cumsum(np.einsum("ns,ns->n", blocks, blocks, dtype=np.float64))])
    return float(np.argmax(sums[window:] - sums[:-window]))


# -- changed -------------------------------------------------------------------------------------------------------
def shifted(audio: Audio, lag_seconds: float, length: int) -> Audio:
    """The recording so much earlier, `length` samples long.

    Examples
    --------
    >>> shifted(Audio(np.arange(4, dtype=np.float32), 1000), 0.001, 5).samples.tolist()
    [1.0, 2.0, 3.0, 0.0, 0.0]
    """
    lag = round(lag_seconds * audio.sample_rate)
    moved = np.pad(audio.samples, (max(0, -lag), 0))[max(0, lag) :]
    return replace(audio, samples=np.pad(moved, (0, max(0, length - len(moved))))[:length])


def gated(made: Audio, source: Audio) -> Audio:
    """Silence a recording where its source is silent: open above -40 dB of the source's loud parts, closed below -50.

    A converted voice hums or hisses where its source is (nearly) silent. Both have the same rate and length.

    Examples
    --------
    >>> source = Audio(np.repeat([1.0, 0.001, 1.0], 8000).astype(np.float32), 8000)
    >>> made = gated(Audio(np.ones(24000, np.float32), 8000), source).samples
    >>> made[[4000, 12000, 20000]].tolist()
    [1.0, 0.0, 1.0]
    """
    hop = max(1, round(_GATE_SECONDS / 2 * source.sample_rate))
    decibels = 20 * np.log10(np.maximum(frame_rms(source.samples, hop, 4), 1e-9))
    loud = np.quantile(decibels[decibels > _FLOOR_DB], 0.95) if (decibels > _FLOOR_DB).any() else 0.0
    gain = np.clip((decibels - max(loud + _CLOSED_DB, _FLOOR_DB)) / (_OPEN_DB - _CLOSED_DB), 0, 1)
    held = np.lib.stride_tricks.sliding_window_view(np.pad(gain, 4, mode="edge"), 9).max(axis=1)  # opens 40 ms early
    smooth = np.convolve(np.pad(held, 1, mode="edge"), [0.25, 0.5, 0.25], "valid")
    curve = np.interp(np.arange(len(made.samples)), np.arange(len(smooth)) * hop, smooth)
    return replace(made, samples=(made.samples * curve).astype(np.float32))


def placed(audio: Audio, like: Stem) -> Stem:
    """Give a recording the channels of a stem, each with the stem's share of the level there.

    Examples
    --------
    >>> left = Stem(np.array([[1, 0]] * 100, np.float32), 8000)
    >>> placed(Audio(np.ones(100, np.float32), 8000), left).samples[0].tolist()
    [1.0, 0.0]
    """
    rms = np.sqrt(np.mean(np.square(like.samples, dtype=np.float64), axis=0))
    shares = rms / rms.max() if rms.max() else np.ones(len(rms))
    return Stem(audio.samples[:, None] * shares.astype(np.float32), audio.sample_rate)


def room_between(dry: Stem, reverb: Stem) -> np.ndarray:
    """Impulse response (K,) that makes a reverb of its dry sound: the quotient of their averaged cross-spectra.

    Examples
    --------
    >>> random = np.random.default_rng(0)
    >>> dry = random.standard_normal((80_000, 1)).astype(np.float32)
    >>> wet = np.pad(dry, ((400, 0), (0, 0)))[:80_000] * np.float32(0.5)
    >>> room = room_between(Stem(dry, 8000), Stem(wet, 8000))
    >>> int(np.abs(room).argmax()), round(float(room[400]), 1)
    (400, 0.5)
    """
    from scipy import signal

    window = min(len(dry.samples), round(4 * _ROOM_SECONDS * dry.sample_rate))
    channel = int(np.square(dry.samples).sum(axis=0).argmax())
    ours, theirs = dry.samples[:, channel], reverb.samples[:, channel]
    _, cross = signal.csd(ours, theirs, nperseg=window, detrend=False)
    _, power = signal.welch(ours, nperseg=window, detrend=False)
    response = np.fft.irfft(cross / (power + _ROOM_REGULAR * power.mean()), window)
    length = min(window // 2, round(_ROOM_SECONDS * dry.sample_rate))
    fade = np.linspace(1, 0, length) ** 0.5
    return (response[:length] * fade).astype(np.float32)


def reverberated(dry: Stem, room: np.ndarray, level_db: float) -> Stem:
    """The reverb of a sound in a room (K,), alone; `level_db` is its RMS against the dry sound's."""
    from scipy import signal

    wet = signal.oaconvolve(dry.samples, room[:, None], axes=0)[: len(dry.samples)]
    ratio = rms_db(Stem(wet, dry.sample_rate)) - rms_db(dry)
    return Stem(wet.astype(np.float32), dry.sample_rate).gained(level_db - ratio)


def rms_db(stem: Stem) -> float:
    """RMS of all channels, dB of full scale; at least -120."""
    power = np.mean(np.square(stem.samples, dtype=np.float64)) if stem.samples.size else 0.0
    return 10 * float(np.log10(max(power, 1e-12)))


def transposed(stem: Stem, semitones: float) -> Stem:
    """The sound in another key, its length kept (Signalsmith Stretch)."""
    if not semitones:
        return stem
    from python_stretch.Signalsmith import Stretch

    stretch = Stretch(0)
    stretch.preset(stem.samples.shape[1], stem.sample_rate)
    stretch.setTransposeSemitones(semitones)
    made = np.asarray(stretch.process(np.ascontiguousarray(stem.samples.T)), np.float32).T
    length = len(stem.samples)
    return replace(stem, samples=np.pad(made, ((0, max(0, length - len(made))), (0, 0)))[:length])


def excerpt(stem: Stem, start_seconds: float, seconds: float) -> Stem:
    """A part of a sound, faded over 20 ms at both ends.

    Examples
    --------
    >>> part = excerpt(Stem(np.ones((8000, 1), np.float32), 8000), 0.25, 0.5)
    >>> part.seconds, float(part.samples[0, 0]), float(part.samples[2000, 0])
    (0.5, 0.0, 1.0)
    """
    first = round(start_seconds * stem.sample_rate)
    part = stem.samples[first : first + round(seconds * stem.sample_rate)]
    ramp = min(len(part) // 2, round(0.02 * stem.sample_rate))
    gain = np.ones((len(part), 1), np.float32)
    gain[:ramp, 0] = np.linspace(0, 1, ramp, endpoint=False)
    gain[len(part) - ramp :, 0] = gain[:ramp, 0][::-1]
    return replace(stem, samples=part * gain)
