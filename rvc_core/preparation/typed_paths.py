"""What people type for a path: quoted, relative to a server's root, as ``file://``, as a pattern, or wrong."""

import contextlib
import difflib
import errno
import glob
import os
import re
import unicodedata
import urllib.parse
from collections.abc import Iterator
from pathlib import Path

from ..audio.recordings import printable_name
from ..audio.waveform import AUDIO_SUFFIXES, dead_link
from ..errors import DatasetError
from ..system.platforms import home
from .links import address_of, is_link

_WHOLE = (  # folders that hold far more than recordings
    *("/", "/content", "/content/drive", "/content/gdrive", "/kaggle", "/teamspace", "/teamspace/studios"),
    *("/teamspace/studios/this_studio", "/home", "/root", "/Users", "/usr", "/etc", "/var", "/opt"),
    *("/proc", "/sys", "/dev"),
)
_DRIVE_ROOTS = ("MyDrive", "My Drive", "Shareddrives", "Shared drives")
_QUOTES = (('"', '"'), ("'", "'"), ("“", "”"), ("‘", "’"), ("«", "»"), ("<", ">"), ("`", "`"))
_INVISIBLE = "\u200b\u200e\u200f\u202a\u202c\ufeff"
_WILD = re.compile(r"[*?[]")


def meant(text: str) -> str | list[Path]:
    """What a text names: a link, as it was given, or files and folders that exist.

    Paths are understood as people have them: quoted, as ``file://``, with ``~`` or ``%20``, with a Windows separator,
    as a pattern like ``*.wav``, or relative to the notebook's folder, one of its parents, or the server's root.

    Raises
    ------
    DatasetError
        When nothing is there, with the places that were looked at, or when it is a whole drive or home folder.
    """
    bare, refused = _bare(text), None
    if not bare:
        raise DatasetError("no recordings are named", hint="give a folder, a recording, a zip or a link")
    if is_link(bare) and not os.path.lexists(bare):
        address_of(bare)
        return bare
    for spelled in _spellings(text, bare):
        for place in _places() if not os.path.isabs(spelled) else [Path("/")]:
            try:
                there = _exists(place / spelled)
            except DatasetError as error:  # of the likeliest place
                there, refused = False, refused or error
            if there:
                refuse_whole(place / spelled)
                return [(place / spelled).absolute()]
    if refused:
        raise refused
    if _WILD.search(bare):
        for place in _near():
            if found := _matching(place / os.path.expanduser(bare)):
                return found
    raise _nothing_there(bare)


def _bare(text: str) -> str:
    text = text.strip().strip(_INVISIBLE).strip()
    for begin, end in _QUOTES:
        if len(text) > 1 and text.startswith(begin) and text.endswith(end):
            text = text[1:-1].strip()
    if text.lower().startswith("file:"):
        parts = urllib.parse.urlsplit(text)
        text = urllib.parse.unquote(parts.path)
    return text


def _spellings(text: str, bare: str) -> Iterator[str]:
    """Ways to read a text as a path, the likeliest first."""
    yield text
    for spelled in dict.fromkeys((bare, urllib.parse.unquote(bare))):
        spelled = os.path.expanduser(spelled)
        for path in dict.fromkeys((spelled, spelled.replace("\\ ", " "), spelled.replace("\\", "/"))):
            for form in ("NFC", "NFD"):  # a Mac parts letters and their accents
                yield unicodedata.normalize(form, path)
            if path.startswith("/") and path.strip("/"):  # some file browsers begin at their own root
                yield path.strip("/")


def _near() -> list[Path]:
    """The working folder, and what the notebook server says of its root and of the notebook."""
    given = [Path(os.environ["JUPYTER_SERVER_ROOT"])] if os.environ.get("JUPYTER_SERVER_ROOT") else []
    if os.environ.get("JPY_SESSION_NAME"):  # the notebook's own path
        given.append(Path(os.environ["JPY_SESSION_NAME"]).parent.absolute())
    return [Path.cwd(), *given]


def _places() -> list[Path]:
    """Where a relative path may begin: the places nearby, parents of the working folder, home."""
    return list(dict.fromkeys([*_near(), *Path.cwd().parents[:-1], Path.home(), home()]))


def _exists(path: Path) -> bool:
    """Whether something is there.

    Raises
    ------
    DatasetError
        When the disk does not say: no permission, or a mount that is gone.
    """
    try:
        os.stat(path)
    except (FileNotFoundError, NotADirectoryError, ValueError):
        return False
    except OSError as error:
        if error.errno in (errno.ENAMETOOLONG, errno.ELOOP):
            return False
        raise DatasetError(
            f"{str(path)!r} cannot be read: {error.strerror}", hint="check its permissions, or mount the drive again"
        ) from error
    return True


def refuse_whole(folder: Path) -> None:
    """Refuse a folder that holds far more than recordings.

    Raises
    ------
    DatasetError
        For a disk, a drive, a platform's or a home folder itself, and for the folder of our own experiments.
    """
    own = home()
    for spelled in {os.path.normpath(folder.absolute()), os.path.realpath(folder)}:
        path = Path(spelled)
        has_own = own.is_relative_to(path) and any((own / name).is_dir() for name in ("logs", "recordings"))
        is_drive = path.name in _DRIVE_ROOTS and path.parent.name in ("drive", "gdrive")
        if spelled in (*_WHOLE, str(Path.home())) or is_drive or (has_own and path.is_dir()):
            raise DatasetError(
                f"{spelled} holds much more than recordings",
                hint="give the folder of the recordings inside it; for files that lie directly in it: "
                + os.path.join(spelled, "*.wav"),
            )


def _matching(pattern: Path) -> list[Path]:
    """Recordings and zips that match a pattern; folders are not entered."""
    text = str(pattern)
    fixed = text[: _WILD.search(text).start()].rpartition("/")[0] or "/"  # type: ignore[union-attr]
    if "/" in text[len(fixed) :].lstrip("/"):  # it enters folders below
        refuse_whole(Path(fixed))
    found = (Path(path) for path in sorted(glob.glob(text, recursive=True)))
    return [path.absolute() for path in found if path.suffix.lower() in {*AUDIO_SUFFIXES, ".zip"} and path.is_file()]


def _nothing_there(bare: str) -> DatasetError:
    """The sentence for a text that names nothing."""
    if re.match(r"/?[A-Za-z]:[\\/]|\\\\|[A-Za-z][A-Za-z0-9+.-]+://", bare):
        return DatasetError(
            f"there is no {bare!r} on this machine",
            hint="upload the files, or give a path here, or a link that begins with https://",
        )
    typed = Path(os.path.expanduser(bare))
    for place in _places():
        if what := dead_link(place / typed):
            return DatasetError(f"{bare!r} {what}", hint="mount the drive it leads to, or give the folder itself")
    for place in dict.fromkeys(_near()):
        standing, missing = _first_missing(place / typed)
        with contextlib.suppress(OSError):
            if close := difflib.get_close_matches(missing, os.listdir(standing), 3, 0.6):
                there = ", ".join(map(printable_name, close))
                return DatasetError(f"there is no {bare!r}", hint=f"in {standing} there is: {there}")
    looked = [standing] if typed.is_absolute() else _places()[:4]
    return DatasetError(
        f"there is no {bare!r}: looked in {', '.join(map(str, looked))}",
        hint="give the whole path, which begins with /, or a link",
    )


def _first_missing(path: Path) -> tuple[Path, str]:
    """The last folder of a path that exists, and the name in it that does not."""
    standing = next(parent for parent in path.parents if os.path.isdir(parent))
    return standing, path.relative_to(standing).parts[0]
