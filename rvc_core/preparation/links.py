"""Links as people share them: turned into the address of the file, fetched, and kept only when a recording came.

A file is used again while its address and its version (ETag, Last-Modified and length) are the same. Where a server
names no version, the file is fetched again and compared.
"""

import contextlib
import re
import urllib.error
import urllib.parse
from http.client import HTTPException
from pathlib import Path, PurePosixPath
from typing import Any

from typing_extensions import TypedDict

from ..audio.file_kinds import START_BYTES, TEXTS, Kind, kind_of, kind_of_file
from ..audio.waveform import AUDIO_SUFFIXES, header_seconds
from ..errors import DatasetError, WeightsError, printable
from ..progress import Progress, Silent
from ..system.documents import Leaf, read_or
from ..system.download import Patience, ask, download, may_pass, web_address
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
_PAGES = {  # services that give their files to browsers only
    "youtube.com": "YouTube",
    "youtu.be": "YouTube",
    "soundcloud.com": "SoundCloud",
    "spotify.com": "Spotify",
    "bandcamp.com": "Bandcamp",
    "mega.nz": "MEGA",
    "wetransfer.com": "WeTransfer",
    "we.tl": "WeTransfer",
}
_FILE_ITSELF = "upload the recording, or paste a link to the file itself (.wav, .mp3, .flac, .zip)"
_SHARE = "share the file with everybody who has the link"


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
    host, path = (parts.hostname or "").removeprefix("www."), parts.path
    for name, service in _PAGES.items():
        if f".{host}".endswith(f".{name}"):
            raise DatasetError(f"{link} is a page of {service}, not a recording", hint=_FILE_ITSELF)
    if host in _DRIVE_HOSTS:
        return _drive_address(link, parts)
    wish = "dl=1" if host == "dropbox.com" else "download=1" if host.endswith(".sharepoint.com") else ""
    if wish:
        ours = ("", "dl", "raw", "download")
        others = [pair for pair in parts.query.split("&") if pair.partition("=")[0] not in ours]
        parts = parts._replace(query="&".join([*others, wish]))
    owner = r"(/(?:datasets/|spaces/)?[^/]+/[^/]+(?:/-)?)"
    if host in ("huggingface.co", "hf.co", "github.com", "gitlab.com"):
        if re.match(owner + "/tree/", path):
            raise DatasetError(f"{link} is a folder of {host}", hint="give the link of one file in it, or of a zip")
        raw = r"\1/resolve/" if host.startswith(("hugging", "hf")) else r"\1/raw/"
        path = re.sub(f"^{owner}/blob/", raw, path, count=1)
    return parts._replace(path=path).geturl()


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
        given, version = _probe(link, address)
        if kept and version and version == kept["version"]:
            return file
        download(address, arriving, None, progress, _PATIENCE)
        name = _name_of(link, given or PurePosixPath(urllib.parse.urlsplit(address).path).name, arriving)
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
    state = {"address": address, "version": version, "sha256": digest, "file": file.name, "bytes": file.stat().st_size}
    write_json(folder / "source.json", state)
    return file


def _kept(folder: Path) -> tuple[dict[str, Any], Path]:
    """What was fetched before, if it is whole: its description, and the file."""
    kept = read_or(folder / "source.json", _Kept, None)
    if kept and is_regular(file := folder / kept["file"]) and file.stat().st_size == kept["bytes"]:
        return kept, file
    return {}, folder


def _probe(link: str, address: str) -> tuple[str, list[str]]:
    """A file's name, and its version: equal versions, equal bytes. Empty where the server says nothing of it now.

    Raises
    ------
    DatasetError
        When the server refuses, or when the first bytes are of something that is no recording.
    """
    try:
        with ask(address, {"Accept-Language": "en"}, _PATIENCE) as response:
            start, told = response.read(START_BYTES), response.headers
            kind = kind_of(start)
            if kind.group in ("unknown", "other") and told.get_content_type() in ("text/html", "application/xhtml+xml"):
                kind = Kind("page", "a web page")
            if kind.group in ("archive", "page", "other"):
                _refuse(link, kind, start + response.read(_PAGE_BYTES))
            name = told.get_filename() or urllib.parse.unquote(urllib.parse.urlsplit(response.url).path)
            with contextlib.suppress(UnicodeError):  # letters that were sent as they are
                name = name.encode("latin-1").decode("utf-8")
            version = [told.get(field, "") for field in ("ETag", "Last-Modified", "Content-Length")]
            return PurePosixPath(name).name, version if any(version[:2]) else []  # a length alone is no version
    except urllib.error.HTTPError as error:
        error.close()
        if may_pass(error.code):
            return "", []
        reasons = {401: "it is not shared", 403: "it is not shared", 404: "there is no such file, or it is not shared"}
        raise DatasetError(
            f"{address}: {reasons.get(error.code, error.reason)} (the server answers {error.code})",
            hint=f"check the link; {_SHARE}",
        ) from error
    except (OSError, HTTPException, ValueError):
        return "", []  # the download tries more often, and says what is wrong


# -- what came -----------------------------------------------------------------------------------------------------
def _name_of(link: str, given: str, file: Path) -> str:
    """The name for a file that came.

    Raises
    ------
    DatasetError
        When it is neither a recording nor a zip.
    """
    kind = kind_of_file(file)
    with file.open("rb") as opened:
        _refuse(link, kind, opened.read(_PAGE_BYTES))
    name = printable(PurePosixPath(urllib.parse.unquote(given).replace("\\", "/")).name).lstrip(".")
    stem, suffix = PurePosixPath(name).stem, PurePosixPath(name).suffix.lower()[:_LONGEST_SUFFIX]
    stem = stem.encode()[:_LONGEST_NAME].decode("utf-8", "ignore") or "recording"
    if kind.group == "zip" or (kind.suffix and suffix not in AUDIO_SUFFIXES):
        return stem + kind.suffix
    if suffix not in AUDIO_SUFFIXES and not header_seconds(file):
        raise DatasetError(f"{link} is neither a recording nor a zip", hint=_FILE_ITSELF)
    return stem + suffix


def _refuse(link: str, kind: Kind, content: bytes) -> None:
    """Name what came instead of a recording, if that is plain."""
    text = content.decode("utf-8", "replace")
    if kind.group == "archive":
        raise DatasetError(f"{link} is {kind.title}, which cannot be unpacked here", hint=UNPACK)
    if kind.group == "page":
        found = re.search(r"<title[^>]*>(.*?)</title>", text, re.IGNORECASE | re.DOTALL)
        title = f" (“{' '.join(found[1].split())[:60]}”)" if found and found[1].strip() else ""
        raise DatasetError(
            f"{link} is a web page{title}, not a recording",
            hint=f"{_SHARE}; where a download limit is reached, share a copy; or open it in a browser, and copy the "
            f"address of its download button; or {_FILE_ITSELF}",
        )
    if kind.group == "other":
        said = f": {' '.join(text.split())[:80]}" if kind.title in TEXTS else ""
        raise DatasetError(f"{link} is {kind.title}, not a recording{said}", hint=_FILE_ITSELF)
