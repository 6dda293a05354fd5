"""Read a recording block by block with its channels, so that memory does not depend on its length."""

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import AudioError
from ..system.platforms import DEAD, reaching
from .tracks import opened
from .waveform import dead_link, header_seconds

BLOCK_FRAMES = 1 << 16
_HOLE_SECONDS, _LONGEST_HOLE_SECONDS = 0.1, 300.0  # as in tracks.py


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
    """

    path: Path
    sample_rate_hz: int
    channels: int
    seconds: float
    notes: list[str] = field(default_factory=list)
    _decoded: Iterator[np.ndarray] = field(default_factory=lambda: iter(()), repr=False)

    def __iter__(self) -> Iterator[np.ndarray]:
        """Blocks (channels, n), float32; NaN and infinity are refused."""
        for block in self._decoded:
            if not np.isfinite(block).all():
                raise AudioError(
                    f"{self.path.name!r} holds NaN or infinite samples",
                    hint="export the recording again from its source",
                )
            yield block


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
    import soundfile

    with reaching(path):
        if not path.is_file():
            kind = "is a folder" if path.is_dir() else "is a pipe or a device" if path.exists() else "does not exist"
            raise AudioError(f"{str(path)!r} {dead_link(path) or kind}", hint="give the path of one audio file")
        if not path.stat().st_size:
            raise AudioError(f"{path.name!r} is empty (0 bytes)", hint="copy or download the recording again")
        seconds = header_seconds(path)
        with contextlib.ExitStack() as closing:
            try:
                reader = _with_soundfile(path, seconds, closing)
            except (soundfile.LibsndfileError, ValueError):
                reader = None
            try:
                yield reader or _with_av(path, seconds, closing)
            except (av.FFmpegError, IndexError) as error:
                if getattr(error, "errno", None) in DEAD:
                    raise
                raise AudioError(
                    f"{path.name!r} cannot be decoded as audio",
                    hint="play it to check that it is a recording; if it plays, convert it to wav or flac",
                ) from error


def _with_soundfile(path: Path, seconds: float, closing: contextlib.ExitStack) -> BlockReader | None:
    """Files that libsndfile reads whole: mono or stereo, with a header that agrees with their bytes."""
    import soundfile

    file = closing.enter_context(soundfile.SoundFile(str(path)))
    claimed = file.frames * file.channels * {"PCM_U8": 1, "PCM_S8": 1, "PCM_16": 2, "PCM_24": 3}.get(file.subtype, 4)
    is_plain = file.format in ("WAV", "WAVEX", "W64", "AIFF", "CAF", "RF64") and file.subtype.startswith(
        ("PCM", "FLOAT")
    )
    if file.channels > 2 or not (is_plain and 0 < claimed <= path.stat().st_size <= claimed + 65536):
        if file.channels > 2 or not (file.format == "OGG" and file.subtype == "VORBIS" and file.frames > 0):
            return None  # FFmpeg knows the places of the channels, and reads to the end of the bytes

    def blocks() -> Iterator[np.ndarray]:
        while len(block := file.read(BLOCK_FRAMES, dtype="float32", always_2d=True)):
            yield np.ascontiguousarray(block.T)

    return BlockReader(path, file.samplerate, file.channels, seconds, [], blocks())


def _with_av(path: Path, seconds: float, closing: contextlib.ExitStack) -> BlockReader:
    container = closing.enter_context(opened(str(path)))
    if not container.streams.audio:
        raise AudioError(f"{path.name!r} has no sound track", hint="choose a file with sound")
    stream = container.streams.audio[0]
    channels = stream.codec_context.layout.nb_channels or stream.codec_context.channels
    notes = [f"its {channels} channels were folded to stereo"] if channels > 2 else []
    if len(container.streams.audio) > 1:
        notes.append(f"sound track 1 of {len(container.streams.audio)} was read")
    reader = BlockReader(path, stream.rate, min(2, channels), seconds, notes)
    reader._decoded = _decoded(container, stream, reader)
    return reader


def _decoded(container: Any, stream: Any, reader: BlockReader) -> Iterator[np.ndarray]:
    """Blocks of one track; damaged packets are skipped, as players do; pauses in the timestamps are silence."""
    import av

    rate_hz, layout = reader.sample_rate_hz, "stereo" if reader.channels == 2 else "mono"
    resampler = av.AudioResampler(format="fltp", layout=layout, rate=rate_hz)
    done, origin, damaged = 0, None, 0
    for packet in container.demux(stream):
        try:
            frames = packet.decode()
        except av.FFmpegError as error:
            if error.errno in DEAD:
                raise
            damaged += 1
            continue
        for frame in frames:
            if frame.time is not None and "matroska mp4 mov avi mpegts".find(container.format.name[:3]) >= 0:
                origin = frame.time - done / rate_hz if origin is None else origin
                ahead = frame.time - origin - done / rate_hz
                if _HOLE_SECONDS < ahead < _LONGEST_HOLE_SECONDS:
                    hole = round(ahead * rate_hz)
                    done += hole
                    reader.notes.append(f"{ahead:.1f} s without sound were kept as silence")
                    for start in range(0, hole, BLOCK_FRAMES):
                        yield np.zeros((reader.channels, min(BLOCK_FRAMES, hole - start)), np.float32)
                elif abs(ahead) > _HOLE_SECONDS:
                    origin = frame.time - done / rate_hz
            for made in resampler.resample(frame):
                done += made.samples
                yield made.to_ndarray()
    for made in resampler.resample(None):
        done += made.samples
        yield made.to_ndarray()
    if damaged:
        reader.notes.append(f"{damaged} damaged pieces of the file were skipped")
    if not done:
        raise AudioError(f"{reader.path.name!r} has no sound (0 samples)", hint="export the recording again")
