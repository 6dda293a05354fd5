"""Convert a recording to a file in parts: memory does not depend on its length, and each channel can be converted.

The parts are a minute long and overlap. Noise and the phase of the sine continue from part to part, so a crossfade
joins them without a trace. What belongs to the whole (peak, transposition, key, loudness) is measured before and after.
"""

import os
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from ..audio.blocks import open_blocks
from ..audio.loudness import Loudness
from ..audio.tracks import CANCELLED_SHARE
from ..audio.waveform import Audio, encoder_rate_hz, header_seconds, save_channels
from ..errors import AudioError
from ..progress import Progress, Silent
from ..settings import ConvertSettings
from ..system.files import ensure_room, remove_leftovers
from ..system.platforms import reaching
from .convert import Converter, ConvertResult, Part
from .outputs import CODEC_SECONDS, SILENT_RMS, check_figures, made_of, place_for, tag_of
from .shaping import gain_of
from .windows import CONTEXT_FRAMES, join_pieces

LONG_SECONDS = 240.0  # longer recordings are converted in parts
_PART_SECONDS, _EDGE_SECONDS, _FADE_SECONDS = 60, 2, 0.1
_SAMPLED, _SAMPLED_SECONDS = 8, 7.5  # parts from which transposition and key are found


@dataclass(frozen=True)
class _Survey:
    """What the first reading of a recording tells of the whole."""

    sample_rate: int
    frames: int
    weights: np.ndarray  # (converted channels, channels): how the recording's channels are mixed
    peak: float
    rms: float
    sample: Audio
    notes: list[str]


def is_long(path: Path) -> bool:
    """Whether a recording is converted in parts because of its length."""
    with reaching(path):
        return header_seconds(path) > LONG_SECONDS


def convert_in_parts(
    converter: Converter,
    path: Path,
    output: Path,
    settings: ConvertSettings,
    *,
    key_semitones: float | None = None,
    progress: Progress = Silent(),
) -> ConvertResult:
    """Convert a recording to a tagged file, in parts. The result's `audio` is empty: it may be hours long.

    There must be no f0 curve: one is of one channel, and of the whole.

    `key_semitones`: see `Converter.convert`.

    Raises
    ------
    AudioError
        When the recording is silent or cannot be read, or the file is not what was made.
    """
    started = time.monotonic()
    survey = _surveyed(path, settings)
    seconds = survey.frames / survey.sample_rate
    tag = tag_of(converter.voice.info.name, made_of(converter.identity, path, settings))
    wanted, output = output, place_for(output, tag)
    rate = encoder_rate_hz(output.suffix, settings.output_rate_hz or converter.voice.spec.sample_rate)
    whole, result = _of_the_whole(
        converter, survey, settings.model_copy(update={"output_rate_hz": rate}), key_semitones
    )
    ensure_room(output.parent, round(4 * seconds * rate * len(survey.weights)), is_output=True)
    output.parent.mkdir(parents=True, exist_ok=True)
    remove_leftovers(output.parent, progress)
    with tempfile.TemporaryDirectory(prefix=f".part-{os.getpid()}-", dir=output.parent) as folder:
        made = _OnDisk(Path(folder, "made"), len(survey.weights), rate)
        made.fill(_converted(converter, path, survey, whole, progress))
        made.gain, unreached = gain_of(made.peak, settings.loudness_lufs, made.loudness_lufs)
        save_channels(output, made, rate, comment=tag, depth=settings.output_depth)
    try:
        sanity = _reopened(output, seconds, survey.rms)
    except AudioError:
        output.unlink(missing_ok=True)
        raise
    kept = f"{wanted.name} holds something else, and was kept: this result is {output.name}"
    return replace(
        result,
        audio=Audio(np.zeros(0, np.float32), rate),
        seconds=round(seconds, 3),
        real_time_factor=round((time.monotonic() - started) / seconds, 4),
        sanity=sanity,
        warnings=[*([kept] if output != wanted else []), *survey.notes, *result.warnings, *unreached],
        output=str(output),
    )


# -- the whole -----------------------------------------------------------------------------------------------------
def _surveyed(path: Path, settings: ConvertSettings) -> _Survey:
    with open_blocks(path) as reader:
        rate, frames, peak = reader.sample_rate_hz, 0, 0.0
        energies, mean_energy = np.zeros(reader.channels), 0.0
        every = max(reader.seconds, _SAMPLED * _SAMPLED_SECONDS) / _SAMPLED
        sampled = []
        for block in reader:
            mean = block.mean(axis=0)
            if (frames / rate) % every < _SAMPLED_SECONDS:
                sampled.append(block)
            energies += np.einsum("cn,cn->c", block, block, dtype=np.float64)
            mean_energy += float(np.dot(mean.astype(np.float64), mean))
            peak, frames = max(peak, float(np.abs(block).max())), frames + block.shape[1]
        notes = list(reader.notes)
    rms = float(np.sqrt(energies.max(initial=0) / max(1, frames)))
    if rms < SILENT_RMS:
        raise AudioError("the recording is silent", hint="choose a recording with a voice in it")
    count = len(energies)
    if settings.channels == "each":
        weights = np.eye(count)
    elif mean_energy < CANCELLED_SHARE * energies.max():  # the channels cancel out
        weights = np.eye(count)[[energies.argmax()]]
    else:
        weights = np.full((1, count), 1 / count)
    weights = weights.astype(np.float32)
    loudest = weights[int((weights @ energies).argmax())]
    sample = Audio(np.ascontiguousarray(loudest @ np.concatenate(sampled, axis=1)), rate)
    return _Survey(rate, frames, weights, peak, rms, sample, notes)


def _of_the_whole(
    converter: Converter, survey: _Survey, settings: ConvertSettings, key_semitones: float | None
) -> tuple[ConvertSettings, ConvertResult]:
    """Settings in which what belongs to the whole is fixed, and a result with what was fixed."""
    found = converter.planned(survey.sample, settings, key_semitones)
    fixed = {"transpose": found.transpose, "loudness_lufs": None, "key": found.key or settings.key}
    return settings.model_copy(update=fixed), found


# -- its parts -----------------------------------------------------------------------------------------------------
def _parts(path: Path, survey: _Survey) -> Iterator[tuple[int, np.ndarray]]:
    """Where each part begins, in seconds, and its samples (channels, n) with the overlap on both sides."""
    rate, total = survey.sample_rate, survey.frames
    count = _count(survey)
    with open_blocks(path) as reader:
        blocks, held, begins = iter(reader), np.zeros((reader.channels, 0), np.float32), 0
        for number in range(count):
            first = max(0, number * _PART_SECONDS - _EDGE_SECONDS)
            last = total if number == count - 1 else ((number + 1) * _PART_SECONDS + _EDGE_SECONDS) * rate
            held, begins = held[:, first * rate - begins :], first * rate
            pieces, have = [held], held.shape[1]
            while begins + have < last and (block := next(blocks, None)) is not None:
                pieces.append(block)
                have += block.shape[1]
            held = np.concatenate(pieces, axis=1)
            yield first, held[:, : last - begins]


def _converted(
    converter: Converter, path: Path, survey: _Survey, settings: ConvertSettings, progress: Progress
) -> Iterator[np.ndarray]:
    """Converted samples (n, converted channels), one piece after the other."""
    scale = np.float32(min(1.0, 0.95 / survey.peak))
    count, rate = _count(survey), settings.output_rate_hz
    fade = 2 * round(_FADE_SECONDS * rate / 2)
    cycles: list[float | None] = [None] * len(survey.weights)
    tails: list[np.ndarray] = []
    progress.start("converting", count * len(survey.weights))
    for number, (first, samples) in enumerate(_parts(path, survey)):
        is_last, made = number == count - 1, []
        for place, weights in enumerate(survey.weights):
            source = Audio(np.ascontiguousarray(weights @ samples) * scale, survey.sample_rate)
            anchor = CONTEXT_FRAMES + 100 * (number * _PART_SECONDS - first)
            result = _or_silence(converter, source, settings, Part(100 * first, anchor, cycles[place]))
            cycles[place] = _cycles_after(result, anchor, cycles[place])
            start = (number * _PART_SECONDS - first) * rate - (fade // 2 if number else 0)
            stop = None if is_last else ((number + 1) * _PART_SECONDS - first) * rate + fade // 2
            kept = result.audio.samples[start:stop]
            made.append(join_pieces([tails[place], kept], fade) if tails else kept)
            progress.advance()
        tails = [one[-fade:] for one in made]
        yield np.stack([one if is_last else one[:-fade] for one in made], axis=1)


def _count(survey: _Survey) -> int:
    return max(1, round(survey.frames / survey.sample_rate / _PART_SECONDS))


def _or_silence(converter: Converter, source: Audio, settings: ConvertSettings, at: Part) -> ConvertResult:
    """A part; of a long pause, or of a channel in which nobody sings, silence."""
    if np.sqrt(np.mean(np.square(source.samples, dtype=np.float64))) >= SILENT_RMS:
        return converter.convert(source, settings, at=at)
    length = round(source.seconds * settings.output_rate_hz)
    return ConvertResult(Audio(np.zeros(length, np.float32), settings.output_rate_hz), 0.0, source.seconds, 0.0, {})


def _cycles_after(result: ConvertResult, anchor: int, cycles: float | None) -> float | None:
    """Cycles of the sine where the following part has its anchor."""
    if result.f0_hz is None:
        return cycles
    begun = float(result.f0_hz[:anchor].sum(dtype=np.float64)) / 100 if cycles is None else cycles
    return begun + float(result.f0_hz[anchor : anchor + 100 * _PART_SECONDS].sum(dtype=np.float64)) / 100


# -- the result ----------------------------------------------------------------------------------------------------
class _OnDisk:
    """Samples (N, C) in a file, read where they are needed; times a gain."""

    def __init__(self, path: Path, channels: int, rate_hz: int) -> None:
        self._path, self.shape = path, (0, channels)
        self.peak, self.gain = 0.0, 1.0
        self._loudness = Loudness(rate_hz)

    def fill(self, pieces: Iterator[np.ndarray]) -> None:
        """Write all pieces."""
        with self._path.open("wb") as file:
            for samples in pieces:
                file.write(np.ascontiguousarray(samples, np.float32).tobytes())
                self.shape = self.shape[0] + len(samples), self.shape[1]
                self.peak = max(self.peak, float(np.abs(samples).max(initial=0)))
                self._loudness.add(samples)

    @property
    def loudness_lufs(self) -> float:
        """Of all pieces."""
        return self._loudness.lufs()

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, span: slice) -> np.ndarray:
        start, stop, _ = span.indices(len(self))
        channels = self.shape[1]
        read = np.fromfile(self._path, np.float32, (stop - start) * channels, offset=4 * start * channels)
        return read.reshape(-1, channels) * np.float32(self.gain)


def _reopened(output: Path, seconds: float, source_rms: float) -> dict[str, float]:
    """Measurements of the written file."""
    energy, count, peak = 0.0, 0, 0.0
    with open_blocks(output) as reader:
        for block in reader:
            energy += float(np.square(block, dtype=np.float64).mean(axis=0).sum())
            count, peak = count + block.shape[1], max(peak, float(np.abs(block).max()))
        length = count / reader.sample_rate_hz
    rms = float(np.sqrt(energy / max(1, count)))
    tolerance = CODEC_SECONDS.get(output.suffix.lower(), 0.02)
    return check_figures(rms, peak, length - seconds, source_rms, tolerance_seconds=tolerance)
