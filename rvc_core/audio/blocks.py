"""Read a recording block by block with its channels, so that memory does not depend on its length."""

import contextlib
import functools
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import AudioError
from ..system.platforms import DEAD, reaching
from .decode import DAMAGED_PART, FEWEST_BYTES_PER_SECOND, Part, claims, is_loud, parts_of
from .tracks import (
    CANCELLED_SHARE,
    END_MISSING,
    HOLE_SECONDS,
    LONGEST_HOLE_SECONDS,
    NO_SOUND,
    RAW,
    Missing,
    chosen_track,
    claimed_seconds,
    doubtful,
    frames_of,
    opened,
    track_labels,
    track_notes,
)
from .waveform import refuse_no_file

BLOCK_FRAMES = 1 << 16
_CHUNKED = {"WAV", "WAVEX", "W64", "AIFF", "CAF", "RF64"}


@dataclass
class BlockReader:
    """A recording that is being read.

    Attributes
    ----------
    channels : int
        1 or 2; more channels are folded to stereo.
    seconds : float
        By the header; 0 if it tells nothing. What is read counts.
    notes : list of str
        What a listener should know; complete when all blocks were read.
    track : int
        Which of the file's sound tracks is read, from 0.
    """

    path: Path
    sample_rate_hz: int
    channels: int
    seconds: float
    notes: list[str] = field(default_factory=list)
    track: int = 0
    _decoded: Iterator[np.ndarray] = field(default_factory=lambda: iter(()), repr=False)

    def __iter__(self) -> Iterator[np.ndarray]:
        """Blocks (channels, n), float32; NaN and infinity are refused, and a file without any."""
        come = 0
        for block in self._decoded:
            come += block.shape[1]
            if not np.isfinite(block).all():
                raise AudioError(
                    f"{self.path.name!r} holds NaN or infinite samples",
                    hint="export the recording again from its source",
                )
            yield block
        if not come:
            raise AudioError(f"{self.path.name!r} has no sound (0 samples)", hint="export the recording again")


@contextlib.contextmanager
def open_blocks(path: Path) -> Iterator[BlockReader]:
    """Open a recording or a video to read its sound in blocks.

    Raises
    ------
    AudioError
        When the file is missing, empty, or holds no sound that can be decoded; also while blocks are read.
    StorageError
        When the storage of the file went away.
    """
    import av

    with reaching(path):
        refuse_no_file(path)
        with contextlib.ExitStack() as closing:
            try:
                parts = closing.enter_context(parts_of(path))
                yield _with_soundfile(parts, closing) or _with_av(parts)
            except (av.FFmpegError, IndexError) as error:
                if getattr(error, "errno", None) in DEAD:
                    raise
                raise AudioError(
                    f"{path.name!r} cannot be decoded as audio",
                    hint="play it to check that it is a recording; if it plays, convert it to wav or flac",
                ) from error


def _with_soundfile(parts: list[Part], closing: contextlib.ExitStack) -> BlockReader | None:
    """What libsndfile reads best; None for the rest, and for more channels than two, whose places FFmpeg knows."""
    import soundfile

    path = parts[0].path
    if len(parts) > 1 or parts[0].is_mended or is_loud(path):
        return None
    try:
        file = closing.enter_context(soundfile.SoundFile(str(path)))
    except (soundfile.LibsndfileError, ValueError):
        return None
    if file.channels > 2 or not (file.format in _CHUNKED or file.subtype == "VORBIS"):
        return None

    def blocks() -> Iterator[np.ndarray]:
        while len(block := file.read(BLOCK_FRAMES, dtype="float32", always_2d=True)):
            yield np.ascontiguousarray(block.T)

    return BlockReader(path, file.samplerate, file.channels, file.frames / file.samplerate, _decoded=blocks())


def _with_av(parts: list[Part]) -> BlockReader:
    path = parts[0].path
    labels = track_labels(parts[0].source, path.name)
    levels = _levels(path, path.stat().st_mtime_ns, len(labels)) if len(labels) > 1 else [0.0]
    reader = _of_track(parts, chosen_track(levels))
    if reader is None:
        raise AudioError(f"{path.name!r} has no sound (0 samples)", hint="export the recording again")
    reader.notes += track_notes(labels, levels)
    return reader


def _of_track(parts: list[Part], number: int) -> BlockReader | None:
    """One track; None if nothing in it can be decoded."""
    size = sum(map(len, parts))
    with opened(parts[0].source) as container:
        first = next(_sounding(container, container.streams.audio[number], []), None)
        if first is None:
            return None
        channels, seconds = first.layout.nb_channels, (container.duration or 0) / 1e6 * size / len(parts[0])
    notes = [f"its {channels} channels were folded to stereo"] if channels > 2 else []
    seconds = min(seconds, size / FEWEST_BYTES_PER_SECOND)
    reader = BlockReader(parts[0].path, first.sample_rate, min(2, channels), seconds, notes, track=number)
    reader._decoded = chain.from_iterable(_read_part(reader, part) for part in parts)
    return reader


@functools.lru_cache(maxsize=64)
def _levels(path: Path, time_ns: int, count: int) -> list[float]:
    """Of all tracks, which are decoded for it once: a recording is read several times."""
    with parts_of(path) as parts:
        return [_level(_of_track(parts[:1], number)) for number in range(count)]


def _level(reader: BlockReader | None) -> float:
    """RMS of a track, mixed as `mono` does."""
    energies, mean, count = np.zeros(2), 0.0, 0
    for block in reader._decoded if reader else ():
        energies[: len(block)] += np.einsum("cn,cn->c", block, block, dtype=np.float64)
        mean, count = mean + float(np.square(block.mean(axis=0), dtype=np.float64).sum()), count + block.shape[1]
    heard = mean if mean >= CANCELLED_SHARE * energies.max() else float(energies.max())
    return (heard / count) ** 0.5 if count else NO_SOUND


def _read_part(reader: BlockReader, part: Part) -> Iterator[np.ndarray]:
    """Blocks of one of the joined files; what it claims besides is noted, and a damaged one after the first."""
    import av

    try:
        with opened(part.source) as container:
            stream, damaged, kind = container.streams.audio[reader.track], list[bool](), container.format.name
            is_alone = len(container.streams) == 1 or container.start_time is None
            origin = None if is_alone else container.start_time / 1e6
            done = 0
            for block in _blocks(reader, _sounding(container, stream, damaged), kind not in RAW, origin):
                done += block.shape[1]
                yield block
            seconds, count = done / reader.sample_rate_hz, sum(damaged)
            lack = claimed_seconds(container, stream, part.source, origin or 0.0) - seconds
            is_cut, ends_early = bool(damaged and damaged[-1]), ""
            if part.lacking:
                ends_early = claims(part.lacking * seconds)
            elif lack > HOLE_SECONDS and (is_cut or not count):
                ends_early = doubtful(kind, lack, is_cut=is_cut) or str(Missing(seconds, lack, END_MISSING))
            if count > (inside := is_cut and bool(ends_early)):
                reader.notes.append(f"{count - inside} damaged pieces of the file were skipped")
            reader.notes += filter(None, [ends_early])
    except (av.FFmpegError, IndexError) as error:
        if not part.start or getattr(error, "errno", None) in DEAD:
            raise
        reader.notes.append(DAMAGED_PART)


def _sounding(container: Any, stream: Any, damaged: list[bool]) -> Iterator[Any]:
    """Frames of one track; damaged packets are skipped, as players do, and marked."""
    for packet, frames in frames_of(container, stream):
        if packet is None or packet.size:
            damaged.append(packet is None or frames is None)
        yield from frames or ()


def _blocks(reader: BlockReader, frames: Iterable[Any], has_times: bool, origin: float | None) -> Iterator[np.ndarray]:
    """Frames at one rate, with the channels of the first; pauses in the timestamps are silence."""
    import av

    rate_hz, layout, shape, done = reader.sample_rate_hz, "stereo" if reader.channels == 2 else "mono", None, 0
    resampler: Any = None
    for frame in frames:
        fresh = frame.sample_rate, frame.layout.name, frame.format.name
        made = resampler.resample(None) if resampler and fresh != shape else []
        if fresh != shape:
            shape, resampler = fresh, av.AudioResampler(format="fltp", layout=layout, rate=rate_hz)
        for piece in made:
            done += piece.samples
            yield piece.to_ndarray()
        if has_times and frame.time is not None:
            origin = frame.time - done / rate_hz if origin is None else origin
            ahead = frame.time - origin - done / rate_hz
            if HOLE_SECONDS < ahead < LONGEST_HOLE_SECONDS:
                done += (hole := round(ahead * rate_hz))
                reader.notes.append(f"{ahead:.1f} s without sound were kept as silence")
                for start in range(0, hole, BLOCK_FRAMES):
                    yield np.zeros((reader.channels, min(BLOCK_FRAMES, hole - start)), np.float32)
            elif abs(ahead) > HOLE_SECONDS:
                origin = frame.time - done / rate_hz
        for piece in resampler.resample(frame):
            done += piece.samples
            yield piece.to_ndarray()
    for piece in resampler.resample(None) if resampler else ():
        yield piece.to_ndarray()
