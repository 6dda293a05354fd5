"""Download one file: resume where it stopped, retry after failures, keep it only if its SHA-256 is right."""

import contextlib
import os
import re
import socket
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from http.client import HTTPException, HTTPResponse
from pathlib import Path
from typing import Any, BinaryIO

from .. import __version__
from ..errors import WeightsError, printable
from ..progress import Progress, Silent
from .files import ensure_room, sha256_of
from .inside import open_inside
from .locks import locked

_BLOCK_BYTES, _MB = 1 << 16, 1_000_000
_TRICKLE = 1000  # bytes a second: a slower connection counts as stalled
_LARGEST_BYTES = 8 << 30  # an answer without end must not fill the disk
_AS_THEY_ARE = "/%:@!$&'()*+,;=~-._?[]"  # in a path or a query; all else is encoded
_ADDRESS = "check the address and RVC_HUB: https://… or http://…"
_NO_SUCH_HOST = (socket.EAI_NONAME, socket.EAI_NODATA)  # EAI_AGAIN may pass


@dataclass(frozen=True)
class Patience:
    """How long a download waits and how often it retries.

    Parameters
    ----------
    stall_seconds : float
        Close a connection that sends (almost) nothing for this long.
    attempts : int
        Fail after this many attempts in a row that bring less than 1 MB each.
    wait_seconds, longest_wait_seconds : float
        Pause before the second attempt, and the longest pause. It doubles after each failed attempt. A server's
        ``Retry-After`` is followed up to the longest pause.
    """

    stall_seconds: float = 30.0
    attempts: int = 5
    wait_seconds: float = 1.0
    longest_wait_seconds: float = 60.0


def download(
    url: str, path: Path, sha256: str | None, progress: Progress | None = None, patience: Patience = Patience()
) -> Path:
    """Download `url` to `path`. The file appears whole and with the right hash, or not at all.

    An unfinished download stays beside it as ``<name>.partial``, and the next call resumes it. Only the hash decides
    that a file is complete, because servers may state wrong lengths. If the hash is unknown (None), the length decides,
    and a broken download is resumed only if the server names the file's version (ETag).

    Raises
    ------
    WeightsError
        If the server refuses, fails too often, or sends a file with another hash, which is then deleted.
    ResourceError
        If the disk has no room for the file.
    """
    address = web_address(url)
    path.parent.mkdir(parents=True, exist_ok=True)
    if sha256 is None:
        partial_of(path).unlink(missing_ok=True)
    with _only_writer(partial_of(path)) as file:
        found = _Transfer(address, file, sha256, progress or Silent(), patience).run()
        if sha256 in (None, found):
            os.fsync(file.fileno())
            os.replace(file.name, path)
            return path
        Path(file.name).unlink()  # resuming it would fail again
    raise WeightsError(
        f"{path.name} from {url} has the sha256 {found}, not {sha256}",
        hint="try again. If the same hash comes again, this server has another file: set RVC_HUB to a mirror",
    )


def partial_of(path: Path) -> Path:
    """Path of an unfinished download of `path`."""
    return path.with_name(path.name + ".partial")


@contextlib.contextmanager
def _only_writer(partial: Path) -> Iterator[BinaryIO]:
    with open_inside(partial, "a+b") as file:
        if not locked(file):
            raise WeightsError(f"another process is downloading {partial.name}", hint="wait until it is done")
        try:
            yield file
        finally:
            if partial.is_file() and not partial.stat().st_size:  # the server refused: there is nothing to resume
                partial.unlink()


class _Transfer:
    """One download and its state."""

    def __init__(self, url: str, file: BinaryIO, sha256: str | None, progress: Progress, patience: Patience) -> None:
        self.url, self.file, self.sha256, self.progress, self.patience = url, file, sha256, progress, patience
        self.name = printable(urllib.parse.unquote(url.rpartition("/")[2]))
        self.etag, self.resumed = "", False
        self.elsewhere = "get the file another way"
        if sha256:
            self.elsewhere = f"set RVC_HUB to a mirror, or put the file at {file.name.removesuffix('.partial')}"

    @property
    def have_bytes(self) -> int:
        return self.file.seek(0, os.SEEK_END)

    def run(self) -> str:
        """Try until the hash is right or the server repeats another file; return the file's hash."""
        problem, wish_seconds, fruitless, most_bytes = None, 0.0, 0, self.have_bytes
        while (found := self._hash()) != self.sha256:
            if problem == "":  # the server has sent all it has
                if not (self.sha256 and self.resumed):
                    break
                problem = "the rest does not fit the part downloaded before"
                self._restart()
            if problem:
                fruitless = 0 if self.have_bytes - most_bytes >= _MB else fruitless + 1
                most_bytes = max(most_bytes, self.have_bytes)
                if fruitless >= self.patience.attempts:
                    kept = ", the download resumes" if self.sha256 else ""
                    raise WeightsError(
                        f"cannot download {self.url}: {problem}", hint=f"try again later{kept}; or {self.elsewhere}"
                    )
                pause_seconds = max(wish_seconds, self.patience.wait_seconds * 2**fruitless)
                pause_seconds = min(pause_seconds, self.patience.longest_wait_seconds)
                self.progress.say(f"{self.name}: {problem}; retrying in {pause_seconds:.0f} s")
                time.sleep(pause_seconds)
            problem, wish_seconds = self._attempt()
        return found

    def _hash(self) -> str:
        self.file.flush()
        return sha256_of(Path(self.file.name))

    def _attempt(self) -> tuple[str, float]:
        """Request the missing part. Returns why it ended early (empty: it did not) and the server's ``Retry-After``."""
        headers = {}
        if self.have_bytes and (self.etag or self.sha256):
            headers["Range"] = f"bytes={self.have_bytes}-"
            if self.etag:
                headers["If-Range"] = self.etag  # if the file has changed, the server sends it from its start
        try:
            with ask(self.url, headers, self.patience) as response:
                return self._receive(response), 0.0
        except urllib.error.HTTPError as error:
            with error:
                return self._refusal(error)
        except ValueError as error:
            raise WeightsError(f"{self.url}: the server's answer is not valid: {error}", hint=self.elsewhere) from error
        except (OSError, HTTPException) as error:  # urllib's URLError is an OSError
            cause = getattr(error, "reason", error)
            if isinstance(cause, socket.gaierror) and cause.errno in _NO_SUCH_HOST:
                host = urllib.parse.urlsplit(self.url).hostname
                raise WeightsError(
                    f"{self.url}: there is no server {host}",
                    hint=f"check the spelling and the network, or {self.elsewhere}",
                ) from error
            if isinstance(cause, TimeoutError):
                return f"nothing came for {self.patience.stall_seconds:.0f} s", 0.0
            return f"the connection failed ({str(cause) or type(cause).__name__})", 0.0

    def _refusal(self, error: urllib.error.HTTPError) -> tuple[str, float]:
        said = printable(f"the server answers {error.code} {error.reason}".partition("\n")[0].rstrip())
        if error.code == 416:  # the file ends where our part ends, but the hash is wrong
            self._restart()
        elif not may_pass(error.code):
            raise WeightsError(f"{self.url}: {said}", hint=self.elsewhere)
        wish = error.headers.get("Retry-After", "")
        return said, float(wish) if wish.isdecimal() else 0.0

    def _receive(self, response: HTTPResponse) -> str:
        start_bytes, total_bytes = _extent(response)
        if start_bytes != self.have_bytes:
            self._restart()
            if start_bytes:
                return "the server sent a part that was not asked for"
        self.resumed = start_bytes > 0  # the earlier part may belong to another version of the file
        found = re.fullmatch(
            r'"[!-~]*"', response.headers.get("ETag", "")
        )  # a weak one, W/, stands for other bytes too
        self.etag = found[0] if found else ""
        if total_bytes is not None:
            ensure_room(Path(self.file.name).parent, total_bytes - start_bytes)
            self.progress.start(f"{self.name}, MB", total_bytes // _MB - start_bytes // _MB)
        have_bytes = since_bytes = start_bytes
        since_seconds = time.monotonic()
        while block := response.read1(_BLOCK_BYTES):
            self.file.write(block)
            if total_bytes is not None and (have_bytes + len(block)) // _MB > have_bytes // _MB:
                self.progress.advance()
            have_bytes += len(block)
            passed_seconds = time.monotonic() - since_seconds
            if passed_seconds > self.patience.stall_seconds:
                if have_bytes - since_bytes < _TRICKLE * passed_seconds:
                    return f"next to nothing came for {self.patience.stall_seconds:.0f} s"
                since_seconds, since_bytes = time.monotonic(), have_bytes
            if have_bytes > _LARGEST_BYTES:
                self._restart()
                raise WeightsError(f"{self.url} is larger than {_LARGEST_BYTES / 1e9:.1f} GB", hint=self.elsewhere)
        return "" if total_bytes in (None, have_bytes) else "the connection ended early"

    def _restart(self) -> None:
        self.file.truncate(0)  # the file is open for appending, so the next write starts at 0
        self.resumed, self.etag = False, ""


class WebOnly(urllib.request.HTTPRedirectHandler):
    """Follows redirects to http and https only, never to ftp: or file:."""

    def redirect_request(self, *request_and_address: Any) -> urllib.request.Request | None:
        """The request for the address that a server leads to."""
        request, answer, code, message, headers, address = request_and_address
        return super().redirect_request(request, answer, code, message, headers, web_address(address))


def ask(address: str, headers: dict[str, str], patience: Patience) -> HTTPResponse:
    """Begin a request; the answer is open and unread."""
    request = urllib.request.Request(address, headers={"User-Agent": f"rvc_core/{__version__}", **headers})
    answer: HTTPResponse = urllib.request.build_opener(WebOnly).open(request, timeout=patience.stall_seconds)
    return answer


def may_pass(code: int) -> bool:
    """Whether a server that refuses with this status may answer another time; other refusals are final."""
    return code in (408, 425, 429) or code >= 500


def web_address(text: str) -> str:
    """An address as browsers send it: international hosts, letters beyond ASCII and spaces are encoded.

    Raises
    ------
    WeightsError
        When it is not an address of http or https.

    Examples
    --------
    >>> web_address("https://bücher.example:8443/my voices/ü.pth#top")
    'https://xn--bcher-kva.example:8443/my%20voices/%C3%BC.pth'
    """
    try:
        parts = urllib.parse.urlsplit(text)
        host, is_web = parts.hostname or "", parts.scheme in ("http", "https") and parts.port != 0
        user, at, name = parts.netloc.rpartition("@")
        if not host.isascii():
            name = host.encode("idna").decode() + (f":{parts.port}" if parts.port else "")
        path, query = (urllib.parse.quote(part, safe=_AS_THEY_ARE) for part in (parts.path, parts.query))
        if not (is_web and host):
            raise ValueError("it names no server of the web")
    except ValueError as error:  # also of letters that no address can have
        raise WeightsError(f"not a web address: {text}: {error}", hint=_ADDRESS) from error
    return parts._replace(netloc=user + at + name, path=path, query=query, fragment="").geturl()


def _extent(response: HTTPResponse) -> tuple[int, int | None]:
    """First byte of the answer within the file, and the file's length or None."""
    start_bytes = 0
    if response.status == 206:
        part = re.match(r"bytes ([0-9]{1,15})-", response.headers.get("Content-Range", ""))
        start_bytes = int(part[1]) if part else -1
    return start_bytes, None if response.length is None else start_bytes + min(response.length, 1 << 60)
