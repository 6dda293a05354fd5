"""Files: atomic writes, hashes, free disk space, and ASCII folder names for names in any script."""

import contextlib
import errno
import hashlib
import json
import os
import re
import shutil
import unicodedata
from collections.abc import Callable, Iterator
from pathlib import Path, PurePath
from typing import Any

from ..errors import ResourceError
from ..progress import Progress, Silent
from .inside import remove

_MARGIN_BYTES = 32 << 20  # stays free for logs and the system
_FULL_BYTES = 1_000_000  # with less free space, a failed write means a full disk
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)  # the disk, or what you may use of it
_LONGEST_BYTES = 80  # of a readable name; file systems allow 255 in all
_UNFIT = re.compile('[\\s\x00-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\ud800-\udfff/\\\\:*?"<>|]+')
_LEFTOVER = re.compile(r"\.part-(\d{1,9})-.+")


@contextlib.contextmanager
def replace_atomically(path: Path) -> Iterator[Path]:
    """Yield a temporary path that replaces `path` on success. If anything fails, `path` stays as it was.

    The data is flushed to the disk before the rename, so a crash leaves the old file or the new one, never half of
    one (the pattern of facebookresearch/dora's ``write_and_rename``).

    Raises
    ------
    ResourceError
        If the disk is full.

    Examples
    --------
    >>> import tempfile
    >>> target = Path(tempfile.mkdtemp()) / "note.txt"
    >>> with replace_atomically(target) as temporary:
    ...     _ = temporary.write_text("whole")
    >>> target.read_text()
    'whole'
    """
    if path.is_dir():
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".part-{os.getpid()}-{path.name}")  # not found by *.pth, [GD]_* or *.index
    remove(temporary)  # it may be a link
    try:
        yield temporary
        with temporary.open("rb") as written:
            os.fsync(written.fileno())
        os.replace(temporary, path)
    except (OSError, RuntimeError) as error:  # torch and libsndfile raise RuntimeError, numpy an OSError without errno
        if _is_full(path.parent, error):
            raise ResourceError(
                f"the disk is full: {path.name} could not be written",
                hint=f"free some space in {path.parent}; the previous file is unchanged",
            ) from error
        raise
    finally:
        temporary.unlink(missing_ok=True)


@contextlib.contextmanager
def folder_atomically(folder: Path) -> Iterator[Path]:
    """Yield a hidden, empty folder that becomes `folder` on success; on failure it and the folders made for it go."""
    hidden = folder.with_name(f".part-{os.getpid()}-{folder.name}")
    absent = [parent for parent in folder.parents if not parent.exists()]
    remove(hidden)
    try:
        (hidden / folder.name).mkdir(parents=True)
        yield hidden / folder.name
        (hidden / folder.name).replace(folder)
    finally:
        shutil.rmtree(hidden, ignore_errors=True)
        for parent in absent:
            if parent.is_dir() and not any(parent.iterdir()):
                parent.rmdir()


def _is_full(folder: Path, error: Exception) -> bool:
    if getattr(error, "errno", None) in FULL:
        return True
    return folder.is_dir() and (room := shutil.disk_usage(folder)).free < _FULL_BYTES and room.total > 0


def remove_leftovers(folder: Path, progress: Progress = Silent()) -> None:
    """Delete the temporary files and folders of killed processes, and say so; those of running processes stay."""
    import psutil  # here, because set-up uses this module before it installs packages

    for path in folder.glob(".part-*"):
        if (match := _LEFTOVER.fullmatch(path.name)) and not psutil.pid_exists(int(match[1])):
            remove(path)
            progress.say(f"removed {path}: a run that was ended had left it")


def write_text(path: Path, text: str) -> None:
    """Write `text` as UTF-8, atomically."""
    with replace_atomically(path) as temporary:
        temporary.write_text(text, "utf-8")


def write_json(path: Path, content: Any) -> None:
    """Write `content` as readable JSON (sorted keys, four spaces: the form of RVC's ``config.json``)."""
    write_text(path, json.dumps(content, indent=4, sort_keys=True, ensure_ascii=False) + "\n")


def write_jsonl(path: Path, rows: list[dict[str, Any]]) -> None:
    """Write one JSON object a line, atomically."""
    write_text(path, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))


def sha256_of(path: Path) -> str:
    """SHA-256 of a file, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def signature(content: Any) -> str:
    """Sixteen hex digits for a value that fits into JSON: equal values give equal digits.

    Examples
    --------
    >>> signature({"a": 1, "b": 2}) == signature({"b": 2, "a": 1})
    True
    """
    return hashlib.sha256(json.dumps(content, sort_keys=True, default=str).encode()).hexdigest()[:16]


def slug_of(name: str) -> str:
    """ASCII folder name for a name in any script. A name that loses letters gets a short hash, so names stay distinct.

    faiss and several audio libraries open paths in the C locale, so folders are ASCII and the full name is stored in
    them.

    Examples
    --------
    >>> slug_of("alice"), slug_of("Alice's  voice")
    ('alice', 'Alice_s_voice-acc1e6')
    >>> slug_of("Алиса") != slug_of("Мария")
    True
    """
    plain = unicodedata.normalize("NFKD", name).encode("ascii", "ignore").decode()
    slug = re.sub(r"[^A-Za-z0-9._-]+", "_", plain).strip("._-")
    if slug == name and len(name) <= 80:
        return slug
    return f"{slug[:60]}-{hashlib.sha256(name.encode()).hexdigest()[:6]}".lstrip("-")


def readable(name: str) -> str:
    """A name in any script as a part of a file's name: letters and accents stay, spaces and what disks refuse do not.

    Examples
    --------
    >>> readable("my friend"), readable("Zoë / Алиса"), readable("..")
    ('my_friend', 'Zoë_Алиса', 'voice')
    """
    kept = _UNFIT.sub("_", unicodedata.normalize("NFC", name)).encode()[:_LONGEST_BYTES].decode(errors="ignore")
    return kept.strip("._-") or "voice"


def is_hidden(path: PurePath) -> bool:
    """Whether a relative path is of hidden files, or of what a Mac adds to a zip."""
    return any(part.startswith((".", "__MACOSX")) for part in path.parts)


def numbered(path: Path, is_taken: Callable[[Path], bool]) -> Path:
    """The path or, where it is taken, the first free one with a number.

    Examples
    --------
    >>> numbered(Path("a.wav"), {Path("a.wav"), Path("a (2).wav")}.__contains__).name
    'a (3).wav'
    """
    free, number = path, 2
    while is_taken(free):
        free, number = path.with_name(f"{path.stem} ({number}){path.suffix}"), number + 1
    return free


def ensure_room(folder: Path, needed_bytes: int, *, is_output: bool = False) -> None:
    """Raise if the disk of `folder` cannot hold `needed_bytes` and a margin, which a user's own output does not need.

    Raises
    ------
    ResourceError
        With the needed and the free space.
    """
    existing = next(parent for parent in (folder, *folder.absolute().parents) if parent.exists())
    free_bytes = shutil.disk_usage(existing).free
    needed_bytes += _FULL_BYTES if is_output else _MARGIN_BYTES
    if free_bytes < needed_bytes:
        raise ResourceError(
            f"not enough room in {folder}: {needed_bytes / 1e6:.0f} MB needed, {free_bytes / 1e6:.0f} MB free",
            hint="free some space there, or name another disk with --output"
            if is_output
            else "free some space, or set RVC_HOME to a larger disk",
        )
