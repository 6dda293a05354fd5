"""One process at a time: locks on files. The kernel releases them when their process ends, however it ends."""

import contextlib
import fcntl
import logging
import os
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from ..errors import ResourceError, StorageError, printable
from .inside import open_inside

_log = logging.getLogger(__name__)

_RECORDED_SECONDS = 0.5  # from taking a lock to writing down who has it


def locked(file: BinaryIO, how: int = fcntl.LOCK_EX) -> bool:
    """Lock an open file until it is closed; False if another process holds it.

    Some network drives have no locks, and others lock for each machine alone: then the log says so, or nothing can.
    """
    try:
        fcntl.flock(file, how | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:
        _log.warning("this storage cannot lock files (%s): do not run two commands on one voice at once", error)
    return True


@contextlib.contextmanager
def hold(path: Path, busy: str, hint: str) -> Iterator[None]:
    """Hold the lock on a file, and record in it who does.

    Raises
    ------
    ResourceError
        When another process holds it: `busy`, with what that process recorded.
    """
    with open_inside(path, "ab") as file:
        if not locked(file):
            raise ResourceError(f"{busy} by {_recorded(path)}", hint=hint)
        file.truncate(0)
        file.write(f"process {os.getpid()} on {socket.gethostname()} since {time.strftime('%H:%M:%S')}".encode())
        file.flush()
        try:
            yield
        finally:
            file.truncate(0)


def holder(path: Path) -> str:
    """Who holds the lock on a file; empty if nobody does."""
    with contextlib.suppress(FileNotFoundError, StorageError), open_inside(path) as file:
        return "" if locked(file, fcntl.LOCK_SH) else _recorded(path)
    return ""


def _recorded(path: Path) -> str:
    deadline = time.monotonic() + _RECORDED_SECONDS
    while time.monotonic() < deadline:
        with open_inside(path) as file:
            if text := file.read(200).decode("utf-8", "replace"):
                return printable(text)
        time.sleep(0.01)
    return "another process"
