"""Files inside a folder that others may write to: regular files only, by their own name, never through a link."""

import contextlib
import errno
import os
import shutil
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, Literal

from ..errors import StorageError

_REFUSED = (errno.ELOOP, errno.EISDIR, errno.ENOTDIR, errno.ENXIO)
_REMEDY = "remove it, or replace it by a copy of the file"


def open_inside(path: Path, mode: Literal["rb", "ab", "a+b", "xb"] = "rb", *, root: Path | None = None) -> BinaryIO:
    """Open a file in a folder: to read, to append (made if missing), or as a new file.

    Parameters
    ----------
    root : Path, optional
        The folder that the file must be in, at any depth; by default its own. Links above it are followed.

    Raises
    ------
    StorageError
        When the file or a folder below `root` is a link, a device or a pipe, or lies elsewhere.
    """
    refused = StorageError(f"{path.name} is a link, a device or a folder, not a file", hint=_REMEDY)
    *folders, name = path.relative_to(root or path.parent).parts or ("..",)
    if ".." in (*folders, name):
        raise refused
    try:
        with contextlib.ExitStack() as stack:
            place = _folder(root or path.parent, stack)
            for folder in folders:
                place = _folder(folder, stack, place)
            flags = os.O_NOFOLLOW | os.O_NONBLOCK  # without the second, opening a pipe waits for its other end
            file = open(path, mode, opener=lambda _, given: os.open(name, given | flags, 0o666, dir_fd=place))
    except OSError as error:
        if error.errno in _REFUSED:
            raise refused from error
        raise type(error)(error.errno, error.strerror, str(path)) from error
    if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
        file.close()
        raise refused
    return file


def _folder(name: str | Path, stack: contextlib.ExitStack, place: int | None = None) -> int:
    follow = 0 if place is None else os.O_NOFOLLOW
    opened = os.open(name, os.O_RDONLY | os.O_DIRECTORY | follow, dir_fd=place)
    stack.callback(os.close, opened)
    return opened


def copy_inside(source: Path, target: Path) -> None:
    """Copy a file to a new one, see `open_inside`."""
    with open_inside(source) as read, open_inside(target, "xb") as write:
        shutil.copyfileobj(read, write, 1 << 20)


def refuse_links(folder: Path) -> None:
    """Check that a folder holds files and folders only: what another person left there must not lead elsewhere.

    Raises
    ------
    StorageError
        Which names the first link, device or pipe.
    """
    for entry in entries_of(folder):
        if not entry.is_file(follow_symlinks=False):
            raise StorageError(f"{entry.path} is a link or a device", hint=_REMEDY)


def entries_of(folder: Path) -> "Iterator[os.DirEntry[str]]":
    """Everything in a folder at any depth, but for the folders. Links are not followed."""
    folders = [str(folder)]
    for place in folders:
        with os.scandir(place) as entries:
            for entry in entries:
                if entry.is_dir(follow_symlinks=False):
                    folders.append(entry.path)
                else:
                    yield entry


def is_regular(path: Path) -> bool:
    """Whether this is a file, and not a link to one."""
    return path.is_file() and not path.is_symlink()


def remove(path: Path) -> None:
    """Remove a file, a folder or a link, if it is there; never what a link points to."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def refuse_pipe(path: Path) -> None:
    """Raise an OSError for a pipe or a device that somebody named: to open one may wait without end."""
    if path.exists() and not (path.is_file() or path.is_dir()):
        raise OSError(errno.EINVAL, "it is a pipe or a device", str(path))
