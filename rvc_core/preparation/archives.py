"""Zips of recordings: unpacked once for each content, with names as people wrote them, from whatever system they come.

A dataset is the user's own: odd names are repaired, and what lies in it is limited by the disk. Voices of strangers
have stricter rules, see `system.untrusted`.
"""

import contextlib
import hashlib
import itertools
import lzma
import re
import shutil
import stat
import struct
import unicodedata
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from ..audio.file_kinds import is_foreign_archive, kind_of_file
from ..audio.waveform import AUDIO_SUFFIXES
from ..errors import DatasetError, UnsafeFileError, printable
from ..progress import Progress, Silent
from ..system.files import ensure_room, folder_atomically, is_hidden, numbered, sha256_of, slug_of

UNPACK = "unpack it first, or pack a .zip"
_MOST_FILES = 100_000
_NESTED = 2  # zips inside zips
_LONGEST_BYTES = 200  # of a file name; disks take 255
_LINKS = (stat.S_IFLNK, stat.S_IFCHR, stat.S_IFBLK, stat.S_IFIFO, stat.S_IFSOCK)
_METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA)
_CODE_PAGES = ("cp932", "gbk", "cp866", "cp850", "cp437")  # of Windows: Japan, China, Russia, Western Europe, USA
_UNICODE_NAME = 0x7075  # an extra field: the name in UTF-8, beside one in a code page


def unpack(archive: Path, place: Path, progress: Progress = Silent()) -> Path | None:
    """Unpack the recordings of a zip, zips in it too, into a folder of `place` that is named after the zip's content.

    Returns
    -------
    Path or None
        The folder, which is used again while the zip's bytes stay the same; None when no recording is in it.

    Raises
    ------
    DatasetError
        When it is damaged, protected by a password, packed in an unknown way, or holds too many files.
    UnsafeFileError
        When a name would leave the folder, or an entry is a link; nothing is unpacked then.
    ResourceError
        When the disk has no room.
    """
    with _readable(archive):
        folder = place / f"{slug_of(archive.stem)}-{sha256_of(archive)[:12]}"
    if folder.is_dir():
        return folder
    with folder_atomically(folder) as temporary:
        count = _unpack_into(archive, temporary, _NESTED, progress)
    if count:
        return folder
    shutil.rmtree(folder)
    return None


def _unpack_into(archive: Path, folder: Path, nested: int, progress: Progress) -> int:
    """Unpack into an existing folder; how many recordings there were."""
    with _readable(archive), zipfile.ZipFile(archive) as opened:
        wanted = _wanted(archive, opened.infolist(), nested, progress)
        ensure_room(folder, sum(entry.file_size for entry in wanted.values()))
        progress.start(f"unpacking {archive.name}", len(wanted))
        for name, entry in wanted.items():
            target = folder / name
            target.parent.mkdir(parents=True, exist_ok=True)
            with opened.open(entry) as source, target.open("xb") as written:
                shutil.copyfileobj(source, written, 1 << 20)
            progress.advance(name.name)
    count = 0
    for name in wanted:
        if name.suffix.lower() != ".zip":
            count += 1
            continue
        inner, into = folder / name, numbered(folder / name.with_suffix(""), Path.exists)
        into.mkdir()
        inside = _unpack_into(inner, into, nested - 1, progress)
        if not inside:
            shutil.rmtree(into)
        inner.unlink()
        count += inside
    return count


def _wanted(
    archive: Path, entries: list[zipfile.ZipInfo], nested: int, progress: Progress
) -> dict[Path, zipfile.ZipInfo]:
    """The entries to unpack, by their place in the folder: recordings, and zips while `nested` allows them.

    What a Mac adds (``__MACOSX``, ``.DS_Store``) and hidden files are left out.
    """
    if len(entries) > _MOST_FILES:
        raise DatasetError(
            f"{archive.name} holds {len(entries)} files, more than {_MOST_FILES}", hint="pack fewer recordings a zip"
        )
    wanted: dict[Path, zipfile.ZipInfo] = {}
    kept_packed = []
    for entry, name in zip(entries, names_of(entries), strict=True):
        _refuse_escape(archive, entry, name)
        parts = [_short(printable(part).rstrip() or "_") for part in PurePosixPath(name).parts]
        if name.endswith("/") or not parts or is_hidden(PurePosixPath(name)):
            continue
        suffix = PurePosixPath(parts[-1]).suffix.lower()
        if is_foreign_archive(parts[-1]) or (suffix == ".zip" and not nested):
            kept_packed.append(parts[-1])
        elif suffix in AUDIO_SUFFIXES or suffix == ".zip":
            if entry.flag_bits & 1:
                raise DatasetError(
                    f"{archive.name} is protected by a password",
                    hint="unpack it yourself, and pack the recordings again without a password",
                )
            if entry.compress_type not in _METHODS:
                raise DatasetError(
                    f"{archive.name} is packed in a way that cannot be read here (method {entry.compress_type})",
                    hint="Windows does so above 2 GB: pack several smaller zips, or use 7-Zip with Deflate",
                )
            wanted[numbered(Path(*parts), wanted.__contains__)] = entry
    if kept_packed:
        progress.say(f"{archive.name}: not opened: {', '.join(kept_packed[:5])}; {UNPACK}")
    return wanted


def _refuse_escape(archive: Path, entry: zipfile.ZipInfo, name: str) -> None:
    if name.startswith("/") or re.match(r"[A-Za-z]:(?:/|$)", name) or ".." in PurePosixPath(name).parts:
        raise UnsafeFileError(
            f"{archive.name} would write a recording outside of its folder, to {name[:80]!r}",
            hint="pack the folder of the recordings again, from inside that folder",
        )
    if stat.S_IFMT(entry.external_attr >> 16) in _LINKS:
        raise UnsafeFileError(
            f"{archive.name} holds a link instead of a file: {name[:80]!r}",
            hint="pack the recordings themselves: zip -r does so without the option -y",
        )


@contextlib.contextmanager
def _readable(archive: Path) -> Iterator[None]:
    """Turns what goes wrong while a zip is read into one sentence about recordings."""
    again = "download or copy it again; if it stays so, pack the recordings again"
    try:
        yield
    except zipfile.BadZipFile as error:
        if archive.with_suffix(".z01").exists() or "multiple disks" in str(error):
            raise DatasetError(
                f"{archive.name} is one part of a split archive", hint="join and unpack its parts on your computer"
            ) from error
        what = kind_of_file(archive)
        if what.group in ("zip", "unknown"):
            raise DatasetError(f"{archive.name} is damaged or incomplete", hint=again) from error
        raise DatasetError(
            f"{archive.name} is {what.title}, not a zip", hint=UNPACK if what.group == "archive" else again
        ) from error
    except (zlib.error, lzma.LZMAError, EOFError, RuntimeError, UnicodeDecodeError, struct.error) as error:
        raise DatasetError(f"{archive.name} is damaged or incomplete", hint=again) from error
    except OSError as error:
        raise DatasetError(
            f"{archive.name} cannot be unpacked: {error.strerror or error}",
            hint="check the disk, or mount the drive again, and run this again",
        ) from error


# -- names ---------------------------------------------------------------------------------------------------------
def names_of(entries: list[zipfile.ZipInfo]) -> list[str]:
    """The names in a zip as they were written: backslashes are folders, and code pages are guessed for all together."""
    raw = [_raw_name(entry) for entry in entries]
    page = _code_page([name for name in raw if isinstance(name, bytes)])
    decoded = [name if isinstance(name, str) else name.decode(page, "replace") for name in raw]
    return [name.partition("\0")[0].replace("\\", "/").removeprefix("./") for name in decoded]


def _raw_name(entry: zipfile.ZipInfo) -> str | bytes:
    """The name, if its encoding is known; else its bytes."""
    if entry.flag_bits & 0x800:
        return entry.orig_filename
    raw, extra = entry.orig_filename.encode("cp437"), entry.extra
    while len(extra) >= 4:
        kind, length = struct.unpack("<HH", extra[:4])
        field, extra = extra[4 : 4 + length], extra[4 + length :]
        if kind == _UNICODE_NAME and field[1:5] == struct.pack("<L", zlib.crc32(raw)):
            return field[5:].decode("utf-8", "replace")
    return raw


def _code_page(names: list[bytes]) -> str:
    """The encoding in which all names are text, and look most like it."""
    odd = [name for name in names if not name.isascii()]
    costs: dict[str, int] = {}
    for page in ("utf-8", *_CODE_PAGES):
        with contextlib.suppress(UnicodeDecodeError):
            costs[page] = sum(_strangeness(name.decode(page)) for name in odd)
            if page == "utf-8":  # other encodings are hardly ever UTF-8 by chance
                return page
    return min(costs, key=costs.__getitem__)


def _strangeness(text: str) -> int:
    """How unlike a name this is: symbols, and scripts that change inside a word."""
    symbols = sum(not char.isascii() and _script(char) in ("", "HALFWIDTH") for char in text)
    letters = [_script(char) for char in text]
    return 3 * symbols + sum(bool(one and other and one != other) for one, other in itertools.pairwise(letters))


def _script(char: str) -> str:
    if "\u3000" <= char <= "\u9fff" or "\uff00" <= char <= "\uff65":
        return "wide"
    return unicodedata.name(char, "").partition(" ")[0] if char.isalpha() else ""


def _short(part: str) -> str:
    """A name that every disk takes; what is cut is replaced by a hash."""
    raw = part.encode("utf-8", "replace")
    if len(raw) <= _LONGEST_BYTES:
        return part
    suffix = PurePosixPath(part).suffix[-12:]
    return raw[:_LONGEST_BYTES].decode("utf-8", "ignore") + "-" + hashlib.sha256(raw).hexdigest()[:8] + suffix
