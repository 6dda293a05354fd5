"""Links as people share them: turned into the address of the file, fetched, and kept only when a recording came.

A file is used again while its address and its version (ETag, Last-Modified and length) are the same. Where a server
names no version, the file is fetched again and compared.
"""

import contextlib
import re
import urllib.error
import urllib.parse
import urllib.request
from dataclasses import dataclass
from http.client import HTTPException, HTTPResponse
from pathlib import Path, PurePosixPath
from typing import Any

from typing_extensions import TypedDict

from .. import __version__
from ..audio.file_kinds import START_BYTES, TEXTS, Kind, kind_of, kind_of_file
from ..audio.waveform import AUDIO_SUFFIXES, header_seconds
from ..errors import DatasetError, WeightsError, printable
from ..progress import Progress, Silent
from ..system.documents import Leaf, read_or
from ..system.download import Patience, WebOnly, download, web_address
from ..system.files import sha256_of, signature, write_json
from ..system.inside import is_regular
from .archives import UNPACK

_PATIENCE = Patience()
_PAGE_BYTES, _LONGEST_NAME, _LONGEST_SUFFIX = 200_000, 100, 10  # bytes, bytes, letters
_DRIVE = "https://drive.usercontent.google.com/download"
_DRIVE_HOSTS = ("drive.google.com", "docs.google.com", "drive.usercontent.google.com")
_DRIVE_ID = re.compile(r"[\w-]{10,}")
_SCHEMELESS = re.compile(
    r"(?:www\.)?(?:drive\.google|docs\.google|dropbox|huggingface|github|youtube|soundcloud|vimeo)\.(?:com|co)/"
    r"|youtu\.be/|www\.[\w.-]+/"
)
_VIDEO_PAGES = {
    "youtube.com": "YouTube",
    "youtu.be": "YouTube",
    "soundcloud.com": "SoundCloud",
    "vimeo.com": "Vimeo",
    "tiktok.com": "TikTok",
    "twitch.tv": "Twitch",
    "dailymotion.com": "Dailymotion",
    "bilibili.com": "Bilibili",
    "spotify.com": "Spotify",
    "music.apple.com": "Apple Music",
    "deezer.com": "Deezer",
    "bandcamp.com": "Bandcamp",
    "instagram.com": "Instagram",
    "facebook.com": "Facebook",
    "fb.watch": "Facebook",
    "twitter.com": "X",
    "x.com": "X",
}
_BROWSER_ONLY = {"mega.nz": "MEGA", "mega.co.nz": "MEGA", "wetransfer.com": "WeTransfer", "we.tl": "WeTransfer"}
_FILE_ITSELF = "upload the recording, or paste a link to the file itself (.wav, .mp3, .flac, .zip)"
_SHARE = "share the file with everybody who has the link, and run this again"


@dataclass(frozen=True)
class _Answer:
    """What a server says about a file before all of it is fetched."""

    name: str
    kind: Kind
    etag: str = ""
    modified: str = ""
    length: str = ""
    page: str = ""  # where a page is, and its beginning

    @property
    def version(self) -> list[str]:
        """Equal versions, equal bytes; empty where the server names none: a length alone is no version."""
        return [self.etag, self.modified, self.length] if self.etag or self.modified else []


class _Kept(TypedDict):
    version: list[str]
    sha256: str
    file: Leaf
    bytes: int


def is_link(text: str) -> bool:
    """Whether a text is meant as an address on the web, also one without ``https://``.

    Examples
    --------
    >>> is_link("HTTPS://example.org/a.wav"), is_link("drive.google.com/file/d/0123456789a"), is_link("songs/a.wav")
    (True, True, False)
    """
    return re.match(r"https?://", text, re.IGNORECASE) is not None or _SCHEMELESS.match(text) is not None


def address_of(link: str) -> str:
    """The address of the file behind a link that people share: Google Drive, Dropbox, Hugging Face, GitHub and others.

    Raises
    ------
    DatasetError
        When the link is known to lead to a folder, a video or another page.

    Examples
    --------
    >>> address_of("https://www.dropbox.com/s/k/a.wav?dl=0"), address_of("https://github.com/o/r/blob/main/a.wav")
    ('https://www.dropbox.com/s/k/a.wav?dl=1', 'https://github.com/o/r/raw/main/a.wav')
    """
    try:
        address = web_address(link if re.match(r"https?://", link, re.IGNORECASE) else f"https://{link}")
    except WeightsError as error:
        raise DatasetError(str(error), hint="copy the link again, all of it") from error
    parts = urllib.parse.urlsplit(address)
    host, path = (parts.hostname or "").removeprefix("www.").removeprefix("m."), parts.path
    has_suffix = PurePosixPath(path).suffix.lower() in {*AUDIO_SUFFIXES, ".zip"}
    if not has_suffix and (service := _service(host, _VIDEO_PAGES)):
        raise DatasetError(f"{link} is a page of {service}, not a recording", hint=_FILE_ITSELF)
    if service := _service(host, _BROWSER_ONLY):
        raise DatasetError(
            f"{service} gives its files to browsers only: {link}", hint="download the file yourself, then upload it"
        )
    if host in _DRIVE_HOSTS:
        return _drive_address(link, parts)
    if host == "dropbox.com":
        pairs = [pair for pair in parts.query.split("&") if pair.partition("=")[0] not in ("", "dl", "raw")]
        parts = parts._replace(query="&".join([*pairs, "dl=1"]))
    owner = r"(/(?:datasets/|spaces/)?[^/]+/[^/]+(?:/-)?)"
    if host in ("huggingface.co", "hf.co", "github.com", "gitlab.com"):
        if re.match(owner + "/tree/", path):
            raise DatasetError(f"{link} is a folder of {host}", hint="give the link of one file in it, or of a zip")
        raw = r"\1/resolve/" if host.startswith(("hugging", "hf")) else r"\1/raw/"
        path = re.sub(f"^{owner}/blob/", raw, path, count=1)
    if host.endswith(".sharepoint.com") and "download=1" not in parts.query:
        parts = parts._replace(query="&".join(filter(None, [parts.query, "download=1"])))
    return parts._replace(path=path).geturl()


def _service(host: str, services: dict[str, str]) -> str:
    return next((title for name, title in services.items() if host == name or host.endswith(f".{name}")), "")


def _drive_address(link: str, parts: urllib.parse.SplitResult) -> str:
    """Any link of Google Drive that holds the id of a file."""
    query = dict(urllib.parse.parse_qsl(parts.query))
    folders = [*parts.path.split("/")]
    if "folders" in folders or parts.path.lower().endswith("folderview"):
        raise DatasetError(
            f"{link} is a folder of Google Drive, not a file",
            hint="pack its recordings into one zip, share that, and paste its link; or mount your Drive",
        )
    if {"document", "spreadsheets", "presentation", "forms"} & {*folders}:
        raise DatasetError(f"{link} is a Google document, not a recording", hint=_FILE_ITSELF)
    named = folders[folders.index("d") + 1] if "d" in folders[:-1] else query.get("id", "")
    if not _DRIVE_ID.fullmatch(named):
        raise DatasetError(
            f"{link} does not name a file of Google Drive", hint="choose Share › Copy link at the file, and paste that"
        )
    given = {"id": named, "export": "download", "confirm": "t"}
    if "resourcekey" in query:
        given["resourcekey"] = query["resourcekey"]
    return f"{_DRIVE}?{urllib.parse.urlencode(given)}"


# -- fetching ------------------------------------------------------------------------------------------------------
def fetch(link: str, place: Path, progress: Progress = Silent()) -> Path:
    """The file behind a link, in a folder of `place` that belongs to its address alone.

    Raises
    ------
    DatasetError
        When the link leads to a page, a folder or something that is no recording; nothing of it is kept.
    ResourceError
        When the disk has no room.
    """
    address = address_of(link)
    folder = place / "links" / signature(address)
    arriving, (kept, file) = folder / "arriving", _kept(folder)
    try:
        answer = _probe(address)
        if answer is not None:
            _refuse(link, answer.kind, answer.page)
            if kept and answer.version and answer.version == kept["version"]:
                return file
        download(address, arriving, None, progress, _PATIENCE)
        name = _checked(link, address, arriving, answer)
    except (DatasetError, WeightsError) as error:
        arriving.unlink(missing_ok=True)
        with contextlib.suppress(OSError):
            folder.rmdir()  # only succeeds when it is empty
        if kept:
            progress.say(f"{error}; using the copy that was fetched before")
            return file
        if isinstance(error, DatasetError):
            raise
        raise DatasetError(str(error), hint=f"check the link and the network; or {_FILE_ITSELF}") from error
    digest = sha256_of(arriving)
    if kept and digest == kept["sha256"]:
        arriving.unlink()
    else:
        if kept:
            file.unlink(missing_ok=True)
        file = arriving.replace(folder / name)
    version = answer.version if answer else []
    state = {"address": address, "version": version, "sha256": digest, "file": file.name, "bytes": file.stat().st_size}
    write_json(folder / "source.json", state)
    return file


def _kept(folder: Path) -> tuple[dict[str, Any], Path]:
    """What was fetched before, if it is whole: its description, and the file."""
    kept = read_or(folder / "source.json", _Kept, None)
    if kept and is_regular(file := folder / kept["file"]) and file.stat().st_size == kept["bytes"]:
        return kept, file
    return {}, folder


def _probe(address: str) -> _Answer | None:
    """Ask for a file and read its first bytes; None where the server does not answer now.

    Raises
    ------
    DatasetError
        When the server refuses.
    """
    headers = {"User-Agent": f"rvc_core/{__version__}", "Accept-Language": "en"}
    request, opener = urllib.request.Request(address, headers=headers), urllib.request.build_opener(WebOnly)
    try:
        with opener.open(request, timeout=_PATIENCE.stall_seconds) as response:
            return _answer(response)
    except urllib.error.HTTPError as error:
        with error:
            refused = _refusal(address, error)
        if refused:
            raise refused from error
        return None
    except (OSError, HTTPException, ValueError):
        return None  # the download tries more often, and says what is wrong


def _answer(response: HTTPResponse) -> _Answer:
    start = response.read(START_BYTES)
    headers, kind = response.headers, kind_of(start)
    named = headers.get_filename() or ""
    with contextlib.suppress(UnicodeError):  # letters that were sent as they are
        named = named.encode("latin-1").decode("utf-8")
    if kind.group in ("unknown", "other") and headers.get_content_type() in ("text/html", "application/xhtml+xml"):
        kind = Kind("page", "a web page")
    page = ""
    if kind.group in ("page", "other"):
        page = f"{response.url}\n" + (start + response.read(_PAGE_BYTES)).decode("utf-8", "replace")
    path = PurePosixPath(urllib.parse.unquote(urllib.parse.urlsplit(response.url).path))
    etag, modified, length = (headers.get(name, "") for name in ("ETag", "Last-Modified", "Content-Length"))
    return _Answer(named or path.name, kind, etag, modified, length, page)


def _refusal(address: str, error: urllib.error.HTTPError) -> DatasetError | None:
    """Why a server refuses for good, in words; None where it may answer another time."""
    if error.code in (408, 425, 429) or error.code >= 500:
        return None
    said = f"{address}: the server answers {error.code} {error.reason}".rstrip()
    page = error.read(_PAGE_BYTES).decode("utf-8", "replace")
    if error.code in (401, 403) and (problem := _page_problem(address, f"{error.url}\n{page}")):
        return problem
    if error.code in (401, 403):
        return DatasetError(f"{said}: the file is not shared", hint=_SHARE)
    if error.code in (404, 410):
        return DatasetError(f"{said}: there is no such file, or it is not shared", hint=f"check the link; {_SHARE}")
    return DatasetError(said, hint=f"open the link in a browser; {_FILE_ITSELF}")


# -- what came -----------------------------------------------------------------------------------------------------
def _checked(link: str, address: str, file: Path, answer: _Answer | None) -> str:
    """The name for a file that came.

    Raises
    ------
    DatasetError
        When it is neither a recording nor a zip.
    """
    kind = kind_of_file(file)
    with file.open("rb") as opened:
        _refuse(link, kind, f"{address}\n{opened.read(_PAGE_BYTES).decode('utf-8', 'replace')}")
    given = (answer.name if answer else "") or PurePosixPath(urllib.parse.urlsplit(address).path).name
    name = printable(PurePosixPath(urllib.parse.unquote(given).replace("\\", "/")).name).lstrip(".")
    stem, suffix = PurePosixPath(name).stem, PurePosixPath(name).suffix.lower()[:_LONGEST_SUFFIX]
    stem = stem.encode()[:_LONGEST_NAME].decode("utf-8", "ignore") or "recording"
    if kind.group == "zip" or (kind.suffix and suffix not in AUDIO_SUFFIXES):
        return stem + kind.suffix
    if suffix not in AUDIO_SUFFIXES and not header_seconds(file):
        raise DatasetError(f"{link} is neither a recording nor a zip", hint=_FILE_ITSELF)
    return stem + suffix


def _refuse(link: str, kind: Kind, page: str) -> None:
    """Name what came instead of a recording, if that is plain; `page` begins with a line that says where it is."""
    if kind.group == "archive":
        raise DatasetError(f"{link} is {kind.title}, which cannot be unpacked here", hint=UNPACK)
    if kind.group == "page":
        raise _page_problem(link, page) or DatasetError(
            f"{link} is a web page{_title(page)}, not a recording",
            hint=f"open it in a browser, and copy the address of its download button; or {_FILE_ITSELF}",
        )
    if kind.group == "other":
        text = " ".join(page.partition("\n")[2].split())[:80] if kind.title in TEXTS else ""
        raise DatasetError(
            f"{link} is {kind.title}, not a recording" + (f": {text}" if text else ""), hint=_FILE_ITSELF
        )


def _page_problem(link: str, page: str) -> DatasetError | None:
    """What a page of a service says, where that is known: its download limit, or that somebody must sign in."""
    where, _, text = page.partition("\n")
    low, title = text.lower(), _title(text).lower()
    if "quota exceeded" in low or "too many users have viewed or downloaded" in low or "download limit" in low:
        return DatasetError(
            f"{link} has reached its download limit for today",
            hint="make a copy of the file and share the copy, or try again tomorrow; in your own Drive: mount it",
        )
    host = urllib.parse.urlsplit(where).hostname or ""
    if (
        re.match(r"(?:accounts|login|signin|auth|sso)\.", host)
        or re.search(r"/(?:login|signin|sign_in|servicelogin|authorize)\b", urllib.parse.urlsplit(where).path.lower())
        or re.search(r"sign[ -]?in|log[ -]?in|request access|need access|access denied", title)
        or 'type="password"' in low
        or "you need access" in low
    ):
        return DatasetError(f"{link} is not shared: its server asks to sign in", hint=_SHARE)
    return None


def _title(page: str) -> str:
    found = re.search(r"<title[^>]*>(.*?)</title>", page, re.IGNORECASE | re.DOTALL)
    return f" (“{' '.join(found[1].split())[:60]}”)" if found and found[1].strip() else ""
