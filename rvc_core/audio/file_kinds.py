"""What a file is, by its first bytes: a recording, an archive, a web page or something else. Names and servers lie."""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from ..system.inside import refuse_pipe

START_BYTES = 512
TEXTS = ("JSON", "an XML text", "a text")
_ARCHIVE_NAME = re.compile(
    r".+\.(?:rar|r\d\d|7z|tar|tgz|tbz2?|txz|gz|bz2|xz|zst|lz|lzma|lzh|arj|cab|ace|sitx?|dmg|iso|z\d\d|(?:zip|7z)\.\d+)",
    re.IGNORECASE,
)
_STARTS = (  # at which byte, what stands there, what it is, the suffix of a recording
    (0, b"PK\x03\x04", "zip", "a zip archive", ".zip"),
    (0, b"PK\x05\x06", "zip", "an empty zip archive", ".zip"),
    (0, b"PK\x07\x08", "archive", "a part of a split zip archive", ""),
    (0, b"Rar!\x1a\x07", "archive", "a RAR archive", ""),
    (0, b"7z\xbc\xaf\x27\x1c", "archive", "a 7z archive", ""),
    (0, b"\x1f\x8b", "archive", "a gzip archive", ""),
    (0, b"BZh", "archive", "a bzip2 archive", ""),
    (0, b"\xfd7zXZ", "archive", "an xz archive", ""),
    (0, b"\x28\xb5\x2f\xfd", "archive", "a zstd archive", ""),
    (257, b"ustar", "archive", "a tar archive", ""),
    (8, b"WAVE", "recording", "a WAV recording", ".wav"),
    (8, b"AVI ", "recording", "an AVI video", ".avi"),
    (0, b"riff\x2e\x91\xcf\x11", "recording", "a W64 recording", ".w64"),
    (0, b"fLaC", "recording", "a FLAC recording", ".flac"),
    (0, b"OggS", "recording", "an Ogg recording", ".ogg"),
    (0, b"ID3", "recording", "an MP3 recording", ".mp3"),
    (4, b"ftyp", "recording", "an MP4 recording", ".m4a"),
    (0, b"\x1a\x45\xdf\xa3", "recording", "a WebM or Matroska recording", ".webm"),
    (0, b"FORM", "recording", "an AIFF recording", ".aiff"),
    (0, b"caff", "recording", "a CAF recording", ".caf"),
    (0, b".snd", "recording", "an AU recording", ".au"),
    (0, b"#!AMR", "recording", "an AMR recording", ".amr"),
    (0, b"0&\xb2u\x8e\x66\xcf\x11", "recording", "a Windows Media recording", ".wma"),
    (0, b"FLV\x01", "recording", "a Flash video", ".flv"),
    (0, b"%PDF", "other", "a PDF document", ""),
    (0, b"\x89PNG", "other", "a picture", ""),
    (0, b"\xff\xd8\xff", "other", "a picture", ""),
    (0, b"GIF8", "other", "a picture", ""),
    (0, b"\x7fELF", "other", "a program", ""),
    (0, b"MZ", "other", "a program", ""),
    (0, b"version https://git-lfs", "other", "a pointer of Git LFS, not the file itself", ""),
)
_PAGE = re.compile(rb"<(?:!doctype\s+html|html|head|body|script|title|meta|!--)", re.IGNORECASE)


@dataclass(frozen=True)
class Kind:
    """What a file is; ``unknown`` may still be a recording of a rare format."""

    group: Literal["recording", "zip", "archive", "page", "other", "unknown"]
    title: str
    suffix: str = ""


def kind_of(start: bytes) -> Kind:
    r"""What a file is, by its first bytes.

    Examples
    --------
    >>> kind_of(b"fLaC\x00").suffix, kind_of(b"\n <!DOCTYPE html><title>Sign in").group, kind_of(b"Rar!\x1a\x07").title
    ('.flac', 'page', 'a RAR archive')
    """
    for place, mark, group, title, suffix in _STARTS:
        if start[place : place + len(mark)] == mark:
            return Kind(group, title, suffix)  # type: ignore[arg-type]
    text = start.removeprefix(b"\xef\xbb\xbf").lstrip()
    if _PAGE.match(text) or b"<html" in text.lower():
        return Kind("page", "a web page")
    if not start:
        return Kind("other", "an empty file")
    if start[0] == 0xFF and len(start) > 1 and start[1] & 0xE0 == 0xE0 and start[:2] != b"\xff\xfe":
        return Kind("recording", "an MPEG recording", ".aac" if start[1] & 6 == 0 else ".mp3")
    if not set(start) & {*range(9), *range(14, 27), *range(28, 32)} and _is_text(start):
        return Kind("other", TEXTS[0 if text[:1] in (b"{", b"[") else 1 if text[:1] == b"<" else 2])
    return Kind("unknown", "a file of an unknown kind")


def kind_of_file(path: Path) -> Kind:
    """As `kind_of`, of a file on the disk."""
    refuse_pipe(path)
    with path.open("rb") as file:
        return kind_of(file.read(START_BYTES))


def is_foreign_archive(name: str) -> bool:
    """Whether a file is called like an archive that only other programs unpack.

    Examples
    --------
    >>> [is_foreign_archive(name) for name in ("a.rar", "a.tar.gz", "a.7z.001", "a.Z01", "a.zip", "gz.wav")]
    [True, True, True, True, False, False]
    """
    return _ARCHIVE_NAME.fullmatch(name) is not None


def _is_text(start: bytes) -> bool:
    try:
        start.decode("utf-8")
    except UnicodeDecodeError as error:
        return error.start > len(start) - 4  # a letter that the end cuts in two
    return True
