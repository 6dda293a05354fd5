"""Decode any sound file, and the files that are joined to it. The bytes count, not the sizes in a header.

soundfile reads Vorbis, and WAV, AIFF, CAF and W64 whose sizes agree with their bytes. FFmpeg (PyAV) reads the rest.
"""

import io
import re
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from ..errors import AudioError
from ..system.platforms import DEAD
from .tracks import Decoded, Missing, decode_tracks, joined, opened

FEWEST_BYTES_PER_SECOND = 16  # no codec needs less, even for silence
_JOINTS = {  # by a mark: how a file begins, which is also where a second one was joined to it
    b"RIFF": rb"RIFF.{4}WAVE",
    b"RF64": rb"RF64.{4}WAVE",
    b"BW64": rb"BW64.{4}WAVE",
    b"FORM": rb"FORM.{4}AIF[FC]",
    b"caff": rb"caff\x00[\x01\x02]..desc",
    b"riff": rb"riff\x2e\x91\xcf\x11",
    b"fLaC": rb"fLaC[\x00\x80]\x00\x00\x22",
    b"OggS": rb"OggS\x00\x02.{20}.",
    b"FLV\x01": rb"FLV\x01[\x01\x04\x05]\x00\x00\x00\x09",
    b"wvpk": rb"wvpk.{4}[\x02-\x10]\x04.{6}\x00{4}.{5}[%b]" % re.escape(bytes(byte for byte in range(256) if byte & 8)),
    b"TTA1": rb"TTA1\x01\x00",
    b"\x1aE\xdf\xa3": rb"\x1aE\xdf\xa3.{1,40}(?:matroska|webm)",
    b".snd": rb"\.snd\x00\x00.{6}\x00\x00\x00[\x01-\x1b]",
    b"#!AMR": rb"#!AMR(?:-WB)?\n",
    b"ftyp": rb"\x00\x00\x00.ftyp",
}
_RIFF = (12, "<4sI", 0, 2, b"data")
_CHUNKS = {  # the first chunk, its name and size, what the size counts besides the content, padding, the sound's name
    b"RIFF": _RIFF,
    b"RF64": _RIFF,
    b"BW64": _RIFF,
    b"FORM": (12, ">4sI", 0, 2, b"SSND"),
    b"caff": (8, ">4sq", 0, 1, b"data"),
    b"riff": (40, "<16sq", 24, 8, b"data"),
}
_WITH_LONG_SIZES, _MOST_BYTES = (b"RF64", b"BW64"), 0xFFFFFFFF
_LARGEST_CLAIM = 0x7FFF0000  # recorders write such a size while they do not know the size yet
_TRAILING_BYTES = 1024  # of tags behind the last chunk
_BLOCK_BYTES, _MARK_BYTES, _BLOCK_SAMPLES = 1 << 24, 64, 1 << 22
_VORBIS = b"\x01vorbis"  # FFmpeg loses the first block
_MPEG_SUFFIXES = (".mp1", ".mp2", ".mp3", ".mpa", ".mpga")
DAMAGED_PART = "a file joined to this one is damaged"


def decode(path: Path) -> Decoded:
    """Decode a file with all files that are joined to it.

    Raises
    ------
    AudioError
        When nothing in it can be decoded as sound.
    """
    import av
    import soundfile

    try:
        with parts_of(path) as parts:
            done: list[Decoded] = []
            for part in parts:
                try:
                    done.append(_decode_part(part))
                except (av.FFmpegError, AudioError, ValueError, IndexError) as error:
                    if not done or getattr(error, "errno", None) in DEAD:
                        raise
                    lost = len(part) * sum(one.seconds for one in done) / part.start
                    missing = [Missing(0.0, lost, DAMAGED_PART)]
                    done.append(Decoded(np.zeros(0, np.float32), done[0].sample_rate, missing))
        return joined(done)
    except (av.FFmpegError, OSError, ValueError, IndexError, MemoryError) as error:  # IndexError: PyAV, of lost streams
        if isinstance(error, OSError) and error.errno in DEAD:  # of the storage, not of the recording
            raise OSError(error.errno, error.strerror) from error
        try:
            if is_loud(path):
                raise ValueError("libsndfile would print notes")
            return _read_with_soundfile(str(path))  # a few old formats that FFmpeg does not know
        except (soundfile.LibsndfileError, ValueError, MemoryError):
            raise AudioError(
                f"{path.name!r} cannot be decoded as audio",
                hint="play it to check that it is a recording; if it plays, convert it to wav or flac",
            ) from error


def header_seconds(path: Path) -> float:
    """Length by the file's header, without decoding; 0 if it records none. At most what the file's bytes can hold."""
    import av
    import soundfile

    if not path.is_file():  # opening a pipe would wait for somebody to write into it
        return 0.0
    try:
        most = path.stat().st_size / FEWEST_BYTES_PER_SECOND
        length = 0.0 if is_loud(path) else soundfile.info(str(path)).duration
    except OSError:
        return 0.0
    except (soundfile.LibsndfileError, ValueError):
        length = 0.0
    if 0 < length <= most:
        return length
    try:
        with opened(str(path)) as container:
            return min(most, max(0, container.duration or 0) / 1e6) if container.streams.audio else 0.0
    except (av.FFmpegError, OSError, ValueError):
        return 0.0


def is_loud(path: Path) -> bool:
    """Whether libsndfile may take a file for MPEG sound, whose decoder writes to the terminal: FFmpeg does not."""
    with path.open("rb") as file:
        start = file.read(_MARK_BYTES)
    return not _kind(start) and (start[:3] == b"ID3" or start[:1] == b"\xff" or path.suffix.lower() in _MPEG_SUFFIXES)


def _kind(start: bytes) -> bytes:
    """The key in `_JOINTS`; empty for other files."""
    return next((kind for kind, mark in _JOINTS.items() if re.match(mark, start, re.DOTALL)), b"")


class Part(io.RawIOBase):
    """The bytes of one of the joined files, with the right sizes in its header: a binary file for FFmpeg.

    They are read, not mapped: a drive that goes away must not kill us.

    Attributes
    ----------
    source : str or Part
        What to decode: the path of a whole file that is as it claims, or this.
    lacking : float
        How much longer it claims to be: 0.5 is half of what is there.
    """

    def __init__(self, path: Path, file: BinaryIO, span: tuple[int, int], kind: bytes, *, is_whole: bool) -> None:
        self.path, self.kind, self.lacking = path, kind, 0.0
        (self.start, self._stop), self._file, self._at = span, file, 0
        self._right: dict[int, bytes] = {}
        if wrong := _wrong_size(self):
            self._mend(*wrong)
        self.source: str | Part = str(path) if is_whole and not wrong else self

    @property
    def is_mended(self) -> bool:
        """Whether its sizes were wrong."""
        return bool(self._right)

    def __len__(self) -> int:
        return self._stop - self.start

    def readable(self) -> bool:
        """Yes."""
        return True

    seekable = readable

    def seek(self, at: int, whence: int = 0) -> int:
        """As for any file."""
        self._at = max(0, at + (0, self._at, len(self))[whence])
        return self._at

    def readinto(self, buffer: Any) -> int:
        """As for any file; over the sizes in the header are the right ones."""
        data = bytearray(self.bytes_at(self._at, min(len(buffer), max(0, len(self) - self._at))))
        for at, right in self._right.items():
            first, last = max(at, self._at), min(at + len(right), self._at + len(data))
            if first < last:
                data[first - self._at : last - self._at] = right[first - at : last - at]
        buffer[: len(data)] = data
        self._at += len(data)
        return len(data)

    def bytes_at(self, at: int, size: int) -> bytes:
        """What the file holds there."""
        self._file.seek(self.start + at)
        return self._file.read(size)

    def _mend(self, begins: int, claimed: int) -> None:
        """The sound goes on to the end of the bytes, whatever the header claims."""
        size = len(self) - begins
        if self.kind == b".snd":
            self._right[8] = struct.pack(">I", size)
        else:
            _, head, counted, _, _ = _CHUNKS[self.kind]
            number = head[0] + head[-1]
            most = _MOST_BYTES if head[-1] == "I" else size + counted  # FFmpeg reads to the end then
            self._right[begins - struct.calcsize(number)] = struct.pack(number, min(most, size + counted))
            if head[-1] == "I":
                self._right[4] = struct.pack(number, min(most, len(self) - 8))
            if self.kind in _WITH_LONG_SIZES:
                self._right[0] = b"RIFF"
        if size < claimed < _LARGEST_CLAIM:
            self.lacking = (claimed - size) / size


@contextmanager
def parts_of(path: Path) -> Iterator[list[Part]]:
    """The files that are joined in a file, usually one."""
    with path.open("rb") as file:
        kind = _kind(file.read(_MARK_BYTES))
        edges = [*(_starts(file, kind) if kind else [0]), path.stat().st_size]
        spans = list(zip(edges, edges[1:], strict=False))
        yield [Part(path, file, span, kind, is_whole=len(spans) == 1) for span in spans]


def _starts(file: BinaryIO, kind: bytes) -> Iterator[int]:
    """Where each of the joined files begins."""
    base, page_end = 0, -1
    while True:
        file.seek(base)
        data = file.read(_BLOCK_BYTES + _MARK_BYTES)
        for found in re.finditer(_JOINTS[kind], data, re.DOTALL) if kind in data else ():
            at = base + found.start()
            if found.start() >= _BLOCK_BYTES:
                break
            if kind == b"OggS":  # the streams of one file begin with a page each, one after the other
                table = data[found.end() : found.end() + data[found.end() - 1]]
                follows, page_end = at == page_end, base + found.end() + len(table) + sum(table)
                if follows:
                    continue
            yield at
        base += _BLOCK_BYTES
        if len(data) <= _BLOCK_BYTES:
            return


def _decode_part(part: Part) -> Decoded:
    """Decode one of the joined files, or the whole file."""
    import soundfile

    if not part.is_mended and (part.kind in _CHUNKS or _VORBIS in part.bytes_at(0, _MARK_BYTES)):
        try:
            part.seek(0)
            return _read_with_soundfile(part.source)
        except (soundfile.LibsndfileError, ValueError):
            pass  # a codec that FFmpeg may know
    decoded = decode_tracks(part.source, part.path.name)
    if part.lacking:
        return replace(decoded, notes=[*decoded.notes, claims(part.lacking * decoded.seconds)])
    return decoded


def claims(seconds: float) -> str:
    """What to say of a header that claims more than there is."""
    return f"its header claims {seconds:.1f} s more than the file holds: its end is missing, or the header is wrong"


def _wrong_size(part: Part) -> tuple[int, int] | None:
    """Where the sound begins and the bytes its chunk claims, if the chunks do not fit the bytes; else None."""
    kind = part.kind
    if kind == b".snd":
        begins, claimed = struct.unpack(">II", part.bytes_at(4, 8))
        return (begins, claimed) if begins + claimed != len(part) > begins else None
    if kind not in _CHUNKS:
        return None
    at, head, counted, padding, name = _CHUNKS[kind]
    sound: tuple[int, int] | None = None
    while at + struct.calcsize(head) <= len(part):
        chunk, size = struct.unpack(head, part.bytes_at(at, struct.calcsize(head)))
        begins = at + struct.calcsize(head)
        if kind in _WITH_LONG_SIZES and size == _MOST_BYTES:  # the first chunk holds it
            (size,) = struct.unpack("<Q", part.bytes_at(28, 8))
        end = begins + size - counted
        if sound is None and chunk.startswith(name):
            sound = begins, size - counted
        named = len(chunk) > 4 or all(32 <= byte < 127 for byte in chunk)
        if not named or end > len(part) or size < counted:
            left = len(part) - sum(sound) if sound else 0
            return sound if left > _TRAILING_BYTES or left < 0 or (sound and not sound[1]) else None
        at = end + -size % padding
    return None


def _read_with_soundfile(source: Any) -> Decoded:
    """Decode as far as it gets, in blocks: the number of samples in the header may be wrong."""
    import soundfile

    with soundfile.SoundFile(source) as file:
        blocks = [file.read(_BLOCK_SAMPLES, dtype="float32", always_2d=True)]
        while len(blocks[-1]):
            blocks.append(file.read(_BLOCK_SAMPLES, dtype="float32", always_2d=True))
        return Decoded.of(np.concatenate(blocks), file.samplerate)
