"""Files at the edge: atomic writes, hashes, room on the disk, and ASCII folder names beside human ones."""

import contextlib
import errno
import hashlib
import json
import os
import re
import shutil
import unicodedata
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from .errors import ResourceError

_MARGIN_BYTES = 32 << 20   # what stays free for logs and the system after a checked write


@contextlib.contextmanager
def replace_atomically(path: Path) -> Iterator[Path]:
    """Yield a temporary path that becomes `path` on success; on any failure `path` is untouched.

    The data is flushed to the disk before the rename, so a machine that dies leaves the old file or the new one,
    never half of one (the pattern of facebookresearch/dora's ``write_and_rename``).

    Raises
    ------
    ResourceError
        When the disk is full.

    Examples
    --------
    >>> import tempfile
    >>> target = Path(tempfile.mkdtemp()) / "note.txt"
    >>> with replace_atomically(target) as temporary:
    ...     _ = temporary.write_text("whole")
    >>> target.read_text()
    'whole'
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".part-{os.getpid()}-{path.name}")   # matches no *.pth, [GD]_* or *.index pattern
    if path.suffix in {".npy", ".npz"}:                              # numpy appends its own suffix to other names
        temporary = temporary.with_suffix(path.suffix)
    try:
        yield temporary
        with temporary.open("rb") as written:
            os.fsync(written.fileno())
        os.replace(temporary, path)
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise ResourceError(f"the disk is full: {path.name} could not be written",
                                hint=f"free some space in {path.parent}; the previous file is untouched") from error
        raise
    finally:
        temporary.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Write `text` as UTF-8, whole or not at all."""
    with replace_atomically(path) as temporary:
        temporary.write_text(text, "utf-8")


def write_json(path: Path, content: Any) -> None:
    """Write `content` as readable JSON (sorted keys, four spaces: the form of RVC's ``config.json``)."""
    write_text(path, json.dumps(content, indent=4, sort_keys=True, ensure_ascii=False) + "\n")


def write_jsonl(path: Path, rows: list[dict[str, Any]]) -> None:
    """Write one JSON object a line, whole or not at all."""
    write_text(path, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))


def read_jsonl(path: Path) -> list[dict[str, Any]]:
    """Read one JSON object a line; a last line torn by a killed writer is left out."""
    rows = []
    for line in path.read_text("utf-8").split("\n"):   # splitlines() would also split at U+2028 in a name
        try:
            rows.append(json.loads(line))
        except json.JSONDecodeError:
            break
    return rows


def sha256_of(path: Path) -> str:
    """SHA-256 of a file's bytes, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def signature(content: Any) -> str:
    """Sixteen hex digits that name a JSON-able value: equal content, equal name.

    Examples
    --------
    >>> signature({"a": 1, "b": 2}) == signature({"b": 2, "a": 1})
    True
    """
    return hashlib.sha256(json.dumps(content, sort_keys=True, default=str).encode()).hexdigest()[:16]


def slug_of(name: str) -> str:
    """ASCII folder name for a human name; names that lose letters get a short hash, so none collide.

    faiss and several audio libraries still open paths through the C locale, so folders stay ASCII while the human
    name is kept beside them.

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


def ensure_room(folder: Path, needed_bytes: int) -> None:
    """Raise before writing `needed_bytes` into `folder` if the disk cannot hold them and a margin.

    Raises
    ------
    ResourceError
        With the figures and where the room is missing.
    """
    existing = next(parent for parent in (folder, *folder.absolute().parents) if parent.exists())
    free_bytes = shutil.disk_usage(existing).free
    if free_bytes < needed_bytes + _MARGIN_BYTES:
        raise ResourceError(
            f"not enough room in {folder}: {needed_bytes / 1e6:.0f} MB needed, {free_bytes / 1e6:.0f} MB free",
            hint="free some space, or set RVC_HOME to a larger disk")
