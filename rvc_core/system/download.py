"""One file from the web: resumed where it stopped, tried again after failures, kept only when its SHA-256 is right."""

import contextlib
import fcntl
import hashlib
import os
import re
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from http.client import HTTPException, HTTPResponse
from pathlib import Path
from typing import BinaryIO

from .. import __version__
from ..errors import WeightsError
from ..progress import Progress, Silent
from .files import ensure_room

_BLOCK_BYTES, _MB = 1 << 16, 1_000_000
_TRICKLE = 1000  # bytes a second: slower than this is a stall too
_LARGEST_BYTES = 8 << 30  # a server that never ends its answer must not fill the disk
_PASSING = {408, 425, 429}  # with every 5xx: worth another try; other refusals are final


@dataclass(frozen=True)
class Patience:
    """How long a download waits, and how often it tries.

    Parameters
    ----------
    stall_seconds : float
        Silence, or next to it, after which a connection is given up.
    attempts : int
        Attempts in a row that bring less than a megabyte each before the download fails.
    wait_seconds, longest_wait_seconds : float
        Pause before the second attempt; it doubles up to the longest one, which also bounds a server's wish.
    """

    stall_seconds: float = 30.0
    attempts: int = 5
    wait_seconds: float = 1.0
    longest_wait_seconds: float = 60.0


def download(
    url: str, path: Path, sha256: str | None, progress: Progress | None = None, patience: Patience = Patience()
) -> Path:
    """Fetch `url` to `path`, which appears whole and with the right hash, or not at all.

    What has arrived stays beside it as ``<name>.partial``, and the next call goes on from there. The hash alone decides
    when a file is complete: lengths that servers state are used, never believed. Where nobody knows the hash (None),
    the length has to do, and only a server that names the file's version (ETag) is asked for the rest of it.

    Raises
    ------
    WeightsError
        When the server refuses, gives up too often, or sends a file of another hash, which is then deleted.
    ResourceError
        When the disk has no room for the file.
    """
    _require_web(url)
    path.parent.mkdir(parents=True, exist_ok=True)
    if sha256 is None:
        partial_of(path).unlink(missing_ok=True)
    with _only_writer(partial_of(path)) as file:
        transfer = _Transfer(url, file, progress or Silent(), patience)
        found = transfer.run(sha256)
        if sha256 in (None, found):
            os.fsync(file.fileno())
            os.replace(file.name, path)
            return path
        Path(file.name).unlink()  # to resume it would be to fail again
    raise WeightsError(
        f"{path.name} from {url} has the sha256 {found}, not {sha256}",
        hint="try again; if it stays so, that server has another file: name a mirror in RVC_HUB",
    )


def partial_of(path: Path) -> Path:
    """Where an unfinished download of `path` is kept."""
    return path.with_name(path.name + ".partial")


@contextlib.contextmanager
def _only_writer(partial: Path) -> Iterator[BinaryIO]:
    with partial.open("a+b") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise WeightsError(
                f"{partial.name} is being written by another process", hint="wait until that one is done"
            ) from None
        except OSError:  # network drives without locks: the hash still holds
            pass
        try:
            yield file
        finally:
            if partial.is_file() and not partial.stat().st_size:  # a refusal leaves nothing to go on with
                partial.unlink()


class _Transfer:
    """The file so far: its bytes, their hash, and where they come from."""

    def __init__(self, url: str, file: BinaryIO, progress: Progress, patience: Patience) -> None:
        self.url, self.file, self.progress, self.patience = url, file, progress, patience
        file.seek(0)
        self.digest, self.have_bytes = hashlib.sha256(), 0
        while block := file.read(_BLOCK_BYTES):
            self._count(block)
        self.resumed, self.etag = False, ""
        self.blind, self.elsewhere = False, ""  # no hash is known; what else a user may do

    def run(self, sha256: str | None) -> str:
        """Try until the hash is right or the server insists on another file; returns the hash."""
        self.blind, self.elsewhere = sha256 is None, "fetch the file by other means"
        if sha256 is not None:
            place = self.file.name.removesuffix(".partial")
            self.elsewhere = f"name a mirror in RVC_HUB, or put the file at {place}"
        most_bytes, fruitless = self.have_bytes, 0
        while self.digest.hexdigest() != sha256:
            problem, wish_seconds = self._attempt()
            if self.digest.hexdigest() == sha256:
                break
            if not problem and (self.blind or not self.resumed):
                break  # whole, though it may be wrong
            if not problem:
                problem = "it does not fit what was fetched before"
                self._restart()
            fruitless = 0 if self.have_bytes - most_bytes >= _MB else fruitless + 1
            most_bytes = max(most_bytes, self.have_bytes)
            if fruitless >= self.patience.attempts:
                kept = "" if self.blind else ", what has arrived is kept"
                raise WeightsError(
                    f"{self.url} cannot be fetched: {problem}", hint=f"try again later{kept}; or {self.elsewhere}"
                )
            pause_seconds = max(wish_seconds, self.patience.wait_seconds * 2**fruitless)
            pause_seconds = min(pause_seconds, self.patience.longest_wait_seconds)
            self.progress.say(f"{self._name}: {problem}; going on in {pause_seconds:.0f} s")
            time.sleep(pause_seconds)
        self.file.flush()
        return self.digest.hexdigest()

    @property
    def _name(self) -> str:
        return urllib.parse.unquote(self.url.rpartition("/")[2])

    def _attempt(self) -> tuple[str, float]:
        """Receive what is missing: why it ended early (empty when it did not), and how long the server wants peace."""
        headers = {"User-Agent": f"rvc_core/{__version__}"}
        if self.have_bytes and (self.etag or not self.blind):
            headers["Range"] = f"bytes={self.have_bytes}-"
            if self.etag:
                headers["If-Range"] = self.etag  # a file that changed meanwhile is sent from its start
        request, opener = urllib.request.Request(self.url, headers=headers), urllib.request.build_opener(_WebOnly)
        try:
            response = opener.open(request, timeout=self.patience.stall_seconds)
        except urllib.error.HTTPError as error:
            with error:
                return self._refusal(error)
        except (OSError, HTTPException) as error:  # urllib's URLError is an OSError
            return _reason(error), 0.0
        with contextlib.closing(response):
            return self._receive(response), 0.0

    def _refusal(self, error: urllib.error.HTTPError) -> tuple[str, float]:
        said = f"the server answers {error.code} {str(error.reason).partition(chr(10))[0]}".rstrip()
        if error.code == 416:  # there is nothing after what we have, and its hash is wrong
            self._restart()
            return said, 0.0
        if error.code in _PASSING or error.code >= 500:
            wish = error.headers.get("Retry-After", "")
            return said, float(wish) if wish.isdecimal() else 0.0
        raise WeightsError(f"{self.url}: {said}", hint=self.elsewhere)

    def _receive(self, response: HTTPResponse) -> str:
        start_bytes, total_bytes = _extent(response)
        if start_bytes != self.have_bytes:
            self._restart()
            if start_bytes:
                return "the server sent another part than was asked for"
        self.resumed = start_bytes > 0  # what came before may belong to another version of the file
        self.etag = response.headers.get("ETag", "")
        if self.etag.startswith("W/"):  # weak: equal in meaning, not in bytes
            self.etag = ""
        if total_bytes is not None:
            ensure_room(Path(self.file.name).parent, total_bytes - self.have_bytes)
            self.progress.start(f"{self._name}, MB", total_bytes // _MB - self.have_bytes // _MB)
        since_seconds, since_bytes = time.monotonic(), self.have_bytes
        while True:
            try:
                block = response.read1(_BLOCK_BYTES)
            except (OSError, HTTPException) as error:
                return _reason(error)
            if not block:
                return "" if total_bytes in (None, self.have_bytes) else "the connection ended early"
            self.file.write(block)
            before_bytes = self.have_bytes
            self._count(block)
            if total_bytes is not None and self.have_bytes // _MB > before_bytes // _MB:
                self.progress.advance()
            passed_seconds = time.monotonic() - since_seconds
            if passed_seconds > self.patience.stall_seconds:
                if self.have_bytes - since_bytes < _TRICKLE * passed_seconds:
                    return "next to nothing came for too long"
                since_seconds, since_bytes = time.monotonic(), self.have_bytes
            if self.have_bytes > _LARGEST_BYTES:
                self._restart()
                raise WeightsError(f"{self.url} does not end", hint=self.elsewhere)

    def _count(self, block: bytes) -> None:
        self.digest.update(block)
        self.have_bytes += len(block)

    def _restart(self) -> None:
        self.file.truncate(0)  # the file is open for appending, so writing goes on at its start
        self.digest, self.have_bytes, self.resumed, self.etag = hashlib.sha256(), 0, False, ""


class _WebOnly(urllib.request.HTTPRedirectHandler):
    """Follows redirects, but never away from the web (to ftp: or file:)."""

    def redirect_request(self, req, fp, code, msg, headers, newurl):  # type: ignore[no-untyped-def]
        _require_web(newurl)
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def _require_web(url: str) -> None:
    parts = urllib.parse.urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise WeightsError(f"not an address on the web: {url}", hint="check RVC_HUB: https://… or http://…")


def _extent(response: HTTPResponse) -> tuple[int, int | None]:
    """First byte of the answer within the file, and the file's length if the server states it."""
    start_bytes = 0
    if response.status == 206:
        part = re.match(r"bytes (\d+)-", response.headers.get("Content-Range", ""))
        start_bytes = int(part[1]) if part else -1
    return start_bytes, None if response.length is None else start_bytes + response.length


def _reason(error: Exception) -> str:
    cause = getattr(error, "reason", error)
    if isinstance(cause, TimeoutError):
        return "nothing came for too long"
    return f"the connection failed ({str(cause) or type(cause).__name__})"
