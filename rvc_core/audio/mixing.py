"""Mix mono and stereo stems: loudness, true peak, alignment, gate, placing, reverb, key."""

import itertools
import math
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from .blocks import open_blocks
from .lazy import Lazy, blocks_of, in_file
from .loudness import measured
from .tracks import CANCELLED_SHARE, mono
from .waveform import Audio, frame_rms, save_channels

SILENT_PEAK = 1e-5  # -100 dB of full scale: less is rounding
_PEAK_EDGE = 512
_ENVELOPE_HZ, _MOST_LAG_SECONDS, _LAG_SAMPLES = 2000, 0.1, 1 << 17
_SURE_CORRELATION = 0.3  # below it, two envelopes have too little in common to tell a lag
_CLOSED_DB = -50.0  # of a source's loud parts
GATE_HZ = 100  # gains a second
_AHEAD, _HOLD, _RAMP = 5, 15, 3  # gains: a gate opens before a sound, and closes after its end
_ROOM_SECONDS, _ROOM_REGULAR = 1.5, 1e-3


@dataclass(frozen=True)
class Stem:
    """Mono or stereo sound.

    Attributes
    ----------
    samples : ndarray or Lazy (N, C), float32
    sample_rate : int
        Hz.
    notes : tuple of str
        What a listener should know of the file it was read from.

    Examples
    --------
    >>> stem = Stem(np.ones((8000, 2), np.float32), 8000)
    >>> stem.seconds, stem.gained(-6.0206).samples[0].round(3).tolist(), (stem + stem).samples[0].tolist()
    (1.0, [0.5, 0.5], [2.0, 2.0])
    """

    samples: Any
    sample_rate: int
    notes: tuple[str, ...] = ()

    @property
    def seconds(self) -> float:
        """Length."""
        return len(self.samples) / self.sample_rate

    @property
    def mono(self) -> Audio:
        """One channel, mixed as recordings are read."""
        return Audio(np.ascontiguousarray(mono(self.samples[:])), self.sample_rate)

    @property
    def folded(self) -> "Stem":
        """As `mono`, lazily: its samples are (N,)."""
        energies, mean = np.zeros(self.samples.shape[1]), 0.0
        for block in blocks_of(self.samples):
            energies += np.einsum("nc,nc->c", block, block, dtype=np.float64)
            mean += float(np.square(block.mean(axis=1), dtype=np.float64).sum())
        share = np.full(len(energies), 1 / len(energies), np.float32)
        if mean < CANCELLED_SHARE * energies.max():
            share = np.eye(len(energies), dtype=np.float32)[energies.argmax()]
        return replace(self, samples=Lazy((len(self.samples),), lambda start, stop: self.samples[start:stop] @ share))

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
        return Stem(np.concatenate(blocks, axis=1).T, reader.sample_rate_hz, tuple(reader.notes))


def open_stem(path: Path, gain_db: float = 0.0) -> Stem:
    """A stem in a file that we wrote, read where it is sliced; the file must stay."""
    stem = Stem(*in_file(path))
    return stem.gained(gain_db) if gain_db else stem


# -- measured ------------------------------------------------------------------------------------------------------
def loudness_lufs(stem: Stem) -> float:
    """Integrated loudness by ITU-R BS.1770-4; -70 for silence. Under 0.4 s it is that of all of it.

    Examples
    --------
    >>> tone = 0.1 * np.sin(2 * np.pi * 997 * np.arange(48000) / 48000).astype(np.float32)
    >>> round(loudness_lufs(Stem(np.stack([tone, tone], 1), 48000)), 1), loudness_lufs(Stem(tone[:, None] * 0, 48000))
    (-20.0, -70.0)
    """
    return measured(stem.samples, stem.sample_rate).lufs()


def peak(stem: Stem) -> float:
    """The largest sample, without its sign."""
    return max((float(np.abs(block).max()) for block in blocks_of(stem.samples)), default=0.0)


def true_peak_db(stem: Stem) -> float:
    """Highest peak of the waveform, also between samples, dB of full scale: four times oversampled, as in BS.1770.

    Examples
    --------
    >>> tone = np.sin(np.pi / 2 * np.arange(48000) + np.pi / 4).astype(np.float32)   # no sample meets a peak
    >>> round(20 * float(np.log10(tone.max()))), round(true_peak_db(Stem(tone[:, None], 48000)))
    (-3, 0)
    """
    return true_peak_of(blocks_of(stem.samples))


def true_peak_of(blocks: Iterable[np.ndarray]) -> float:
    """As `true_peak_db`, of blocks (n, C) in a row."""
    import soxr

    highest, known, held = 0.0, 0, np.zeros((0, 1), np.float32)
    for block in itertools.chain(blocks, [None]):
        whole = held if block is None else np.concatenate([held, block]) if len(held) else block
        if not len(whole) or (block is not None and len(whole) < 4 * _PEAK_EDGE):
            held = whole
            continue
        stop = len(whole) if block is None else len(whole) - _PEAK_EDGE
        dense = soxr.resample(whole, 1, 4, quality="HQ")[4 * known : 4 * stop]
        highest = max(highest, float(np.abs(dense).max(initial=0)))
        held, known = whole[-2 * _PEAK_EDGE :], _PEAK_EDGE
    return max(-100.0, 20 * float(np.log10(max(highest, 1e-9))))


def lag_seconds(made: Audio | Stem, source: Audio | Stem) -> float | None:
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
    found = np.zeros(2 * reach + 1)
    for start in range(0, length - reach, _LAG_SAMPLES):  # in parts: at once, half an hour takes half a gigabyte
        ours, theirs = (one[start : start + _LAG_SAMPLES + reach] for one in (first, second))
        found += correlate(ours, theirs, "full", "fft")[len(ours) - 1 - reach :][: len(found)] / energy
    best = int(found[1:-1].argmax()) + 1
    if found[best] < _SURE_CORRELATION:
        return None
    before, top, after = found[best - 1 : best + 2]
    return float(best - reach + 0.5 * (before - after) / min(before - 2 * top + after, -1e-12)) / _ENVELOPE_HZ


def _level(audio: Audio | Stem) -> np.ndarray:
    """Level in dB at 2 kHz, smoothed over 10 ms, nothing below 40 dB under the loudest."""
    hop = max(1, audio.sample_rate // _ENVELOPE_HZ)
    rms = frame_rms(audio.samples, hop, 20).astype(np.float32)
    decibels = 20 * np.log10(np.maximum(rms, 1e-2 * rms.max() + 1e-9))
    count = -(-len(audio.samples) * _ENVELOPE_HZ // audio.sample_rate)
    at = np.arange(len(rms)) * (hop / audio.sample_rate)
    starts = range(0, count, _LAG_SAMPLES)
    parts = [np.arange(start, min(count, start + _LAG_SAMPLES)) / _ENVELOPE_HZ for start in starts]
    return np.concatenate([np.interp(part, at, decibels).astype(np.float32) for part in parts])


def loudest_seconds(audio: Audio, seconds: float) -> float:
    """Where the loudest part of this length begins, in whole seconds; 0 where all of it fits.

    Examples
    --------
    >>> song = np.concatenate([np.zeros(8000 * 60), np.ones(8000 * 30), np.zeros(8000 * 60)]).astype(np.float32)
    >>> loudest_seconds(Audio(song, 8000), 30.0)
    60.0
    """
    whole = int(audio.seconds)
    blocks = audio.samples[: whole * audio.sample_rate].reshape(whole, audio.sample_rate)
    return _loudest(np.einsum("ns,ns->n", blocks, blocks, dtype=np.float64), int(seconds))


def _loudest(energies: np.ndarray, window: int) -> float:
    """Where the most energy of `window` seconds begins, of energies (K,) of a second each."""
    if len(energies) <= window:
        return 0.0
    sums = np.concatenate([[0.0], np.cumsum(energies)])
    return float(np.argmax(sums[window:] - sums[:-window]))


def read_loudest(path: Path, seconds: float) -> tuple[Stem, list[str]]:
    """The loudest part of a recording with this length, faded at both ends, and what is to know of the whole.

    Raises
    ------
    AudioError
        When the file is missing or damaged.
    """
    with open_blocks(path) as reader:
        rate, done, energies = reader.sample_rate_hz, 0, np.zeros(0)
        for block in reader:
            power = np.einsum("cn,cn->n", block, block)
            sums = np.bincount((done % rate + np.arange(len(power))) // rate, power)
            held = len(energies) - done // rate  # 1 where the last second goes on
            energies = np.concatenate(
                [energies[: done // rate], np.pad(energies[done // rate :], (0, len(sums) - held)) + sums]
            )
            done += len(power)
    first = round(_loudest(energies[: done // rate], int(seconds)) * rate)
    pieces, done = [], 0
    with open_blocks(path) as reader:
        for block in reader:
            pieces.append(block[:, max(0, first - done) : max(0, first + round(seconds * rate) - done)])
            done += block.shape[1]
    return faded(Stem(np.concatenate(pieces, axis=1).T, rate)), reader.notes


# -- changed -------------------------------------------------------------------------------------------------------
def gate_of(levels: np.ndarray, threshold: float) -> np.ndarray:
    """Gains (T,) from 0 to 1, `GATE_HZ` a second: 0 in pauses, where the levels (T,) stay at or below the threshold.

    The gate opens 50 ms before a sound and closes 150 ms after it, so it cuts no consonant.

    Examples
    --------
    >>> gate_of(np.array([0.0] * 20 + [1.0] * 20 + [0.0] * 20), 0.5)[[5, 18, 30, 50, 59]].round(1).tolist()
    [0.0, 1.0, 1.0, 1.0, 0.0]
    """
    reach = np.ones(_AHEAD + 1 + _HOLD)
    is_open = np.convolve(levels > threshold, reach)[_AHEAD : _AHEAD + len(levels)] > 0.5
    ramp = np.ones(_RAMP) / _RAMP
    return np.minimum(is_open, np.convolve(np.pad(is_open, _RAMP // 2, mode="edge"), ramp, "valid"))


def pauses_of(source: Stem) -> np.ndarray:
    """Gains (T,) of a gate that closes where a sound (N,) is 50 dB below its loud parts.

    A converted voice hums or hisses where its source is (nearly) silent.
    """
    levels = frame_rms(source.samples, max(1, round(source.sample_rate / GATE_HZ)), 4)
    sounding = levels[levels > max(SILENT_PEAK, 1e-3 * levels.max())]
    return gate_of(levels, np.quantile(sounding, 0.95) * 10 ** (_CLOSED_DB / 20) if len(sounding) else 1.0)


def gated(samples: np.ndarray, gains: np.ndarray, rate_hz: int, start: int = 0) -> np.ndarray:
    """Apply gains (T,) of a gate to samples (n,) that begin at sample `start`.

    Examples
    --------
    >>> gated(np.ones(4, np.float32), np.array([1.0, 0.0]), 400).tolist()
    [1.0, 0.75, 0.5, 0.25]
    """
    times = (start + np.arange(len(samples))) * (GATE_HZ / rate_hz)
    return (samples * np.interp(times, np.arange(len(gains)), gains)).astype(np.float32)


def part_of(made: Stem, source: Stem, like: Stem, lag_seconds: float) -> Stem:
    """A converted voice (N,) as its source is: so much earlier, silent in its pauses, with the channels of `like`.

    Each channel gets its share of the level.

    Examples
    --------
    >>> left = Stem(np.array([[1, 0]] * 8000, np.float32), 8000)
    >>> part_of(Stem(np.ones(8000, np.float32), 8000), left.folded, left, 0.0).samples[4000:4001].tolist()
    [[1.0, 0.0]]
    """
    rms = np.sqrt(sum(np.square(block, dtype=np.float64).sum(axis=0) for block in blocks_of(like.samples)))
    shares = (rms / rms.max() if rms.max() else np.ones(len(rms))).astype(np.float32)
    gains, rate, lag = pauses_of(source), made.sample_rate, round(lag_seconds * made.sample_rate)

    def part(start: int, stop: int) -> np.ndarray:
        first = start + lag
        early = made.samples[max(0, first) : max(0, stop + lag)]
        early = np.pad(early, (min(stop - start, max(0, -first)), stop - start))[: stop - start]
        return gated(early, gains, rate, start)[:, None] * shares

    return Stem(Lazy(like.samples.shape, part), rate)


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
    size, rate = len(dry.samples), dry.sample_rate
    window = min(size, round(4 * _ROOM_SECONDS * rate))
    channel = int(np.argmax(sum(np.square(block).sum(axis=0) for block in blocks_of(dry.samples))))
    shape = np.hanning(window + 1)[:-1].astype(np.float32)
    cross, power = np.zeros(window // 2 + 1, complex), np.zeros(window // 2 + 1)
    for start in range(0, size - window + 1, max(1, window // 2)):
        ours, theirs = (np.fft.rfft(one.samples[start : start + window][:, channel] * shape) for one in (dry, reverb))
        cross, power = cross + ours.conj() * theirs, power + np.abs(ours) ** 2
    response = np.fft.irfft(cross / (power + _ROOM_REGULAR * np.mean(power)), window)
    length = min(window // 2, round(_ROOM_SECONDS * rate))
    fade = np.linspace(1, 0, length) ** 0.5
    return (response[:length] * fade).astype(np.float32)


def reverberated(dry: Stem, room: np.ndarray, level_db: float) -> Stem:
    """The reverb of a sound in a room (K,), alone; `level_db` is its RMS against the dry sound's."""
    from scipy import signal

    def part(start: int, stop: int) -> np.ndarray:
        first = max(0, start - len(room))
        wet = signal.oaconvolve(dry.samples[first:stop], room[:, None], axes=0)
        return wet[start - first : stop - first].astype(np.float32)

    wet = Stem(Lazy(dry.samples.shape, part), dry.sample_rate)
    return wet.gained(level_db - rms_db(wet) + rms_db(dry))


def rms_db(stem: Stem) -> float:
    """RMS of all channels, dB of full scale; at least -120."""
    energy = sum(float(np.square(block, dtype=np.float64).sum()) for block in blocks_of(stem.samples))
    return 10 * float(np.log10(max(energy / max(1, math.prod(stem.samples.shape)), 1e-12)))


def lost_db(stem: Stem, rest: Stem) -> float:
    """How much of its level separation took from a stem, 0 to 1.5 dB; `rest` is all else of the song.

    Masks are too small where they are unsure, but mix times stem has the source's energy, where the stem is heard.

    Examples
    --------
    >>> tone, noise = np.sin(np.arange(4000.0)), np.cos(np.arange(4000.0) ** 2)
    >>> stems = [Stem((0.85 * one + 0.15 * other)[:, None], 8000) for one, other in ((tone, noise), (noise, tone))]
    >>> round(lost_db(*stems), 1)  # 20 * log10(0.85) is -1.4
    1.3
    """
    size, sums = stem.sample_rate // 5, np.zeros(2)
    for one, other in zip(blocks_of(stem.samples, size), blocks_of(rest.samples, size), strict=True):
        own = np.vdot(one, one)
        if own > np.vdot(other, other) / 4:
            sums += own, np.vdot(one, other)
    return float(np.clip(10 * np.log10(1 + max(0.0, sums[1]) / max(sums[0], 1e-20)), 0.0, 1.5))


def transposed(stem: Stem, semitones: float) -> Stem:
    """The sound in another key, its length kept (Signalsmith Stretch)."""
    if not semitones:
        return stem
    from python_stretch.Signalsmith import Stretch

    stretch = Stretch(0)
    stretch.preset(stem.samples.shape[1], stem.sample_rate)
    stretch.setTransposeSemitones(semitones)
    made = np.asarray(stretch.process(np.ascontiguousarray(stem.samples[:].T)), np.float32).T
    length = len(stem.samples)
    return replace(stem, samples=np.pad(made, ((0, max(0, length - len(made))), (0, 0)))[:length])


def faded(stem: Stem) -> Stem:
    """A sound that rises and falls over 20 ms at its ends.

    Examples
    --------
    >>> part = faded(Stem(np.ones((4000, 1), np.float32), 8000))
    >>> float(part.samples[0, 0]), float(part.samples[2000, 0])
    (0.0, 1.0)
    """
    ramp = min(len(stem.samples) // 2, round(0.02 * stem.sample_rate))
    gain = np.ones((len(stem.samples), 1), np.float32)
    gain[:ramp, 0] = np.linspace(0, 1, ramp, endpoint=False)
    gain[len(gain) - ramp :, 0] = gain[:ramp, 0][::-1]
    return replace(stem, samples=stem.samples * gain)
