"""Recordings on their way in: a path, what the platform offers, a link, or an upload; and what was understood of it."""

import html
import re
import urllib.parse
import zipfile
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import Any

from ..audio.recordings import find_recordings
from ..audio.waveform import AUDIO_SUFFIXES, header_seconds
from ..errors import DatasetError, printable
from ..progress import Progress, Silent
from ..system.download import download
from ..system.files import replace_atomically, slug_of
from ..system.platforms import Platform, detect, home
from ..system.untrusted import unzip_safely
from .texts import say

_UPLOADED = ",".join(sorted({*AUDIO_SUFFIXES, ".zip"}))
_SHOWN_NAMES, _SHOWN_FOLDERS, _OFFERED, _DEPTH = 4, 12, 30, 4
_DRIVE_LINK = re.compile(r"https://drive\.google\.com/(?:file/d/|open\?id=|uc\?(?:.*&)?id=)([\w-]{10,})")
_WEB = ("http://", "https://")


class RecordingsForm:
    """Asks for recordings: a path first; what lies about on this platform, a link or a small upload fill it in.

    Parameters
    ----------
    start : str
        Path or link to begin with.
    folder : Path
        Where uploads go.
    changed : callable
        Is given the new path or link.
    """

    def __init__(self, start: str, folder: Path, changed: Callable[[str], None]) -> None:
        import ipywidgets

        self._folder, self._changed = folder, changed
        layout = {"width": "98%", "max_width": "48em"}
        style = {"description_width": "10.5em"}
        self.path = ipywidgets.Text(
            value=start, description=say("path"), placeholder=say("path_hint"), style=style, layout=layout
        )
        options = [(say("choose"), ""), *((f"…/{path.parent.name}/{path.name}", str(path)) for path in offered())]
        self.offered = ipywidgets.Dropdown(options=options, description=say("offered"), style=style, layout=layout)
        self.upload = ipywidgets.FileUpload(
            accept=_UPLOADED, multiple=True, description=say("upload"), layout={"width": "auto", "max_width": "98%"}
        )
        self.told = ipywidgets.HTML()
        self.path.observe(lambda change: self._take(change["new"]), names="value")
        self.offered.observe(lambda change: self._set(change["new"]), names="value")
        self.upload.observe(lambda change: self._uploaded(change["new"]), names="value")
        self.widget = ipywidgets.VBox(
            [self.path, self.offered, self.upload, self.told], layout={"width": "100%", "max_width": "48em"}
        )
        self._tell()

    @property
    def value(self) -> str:
        """A path or link; empty: the recordings inside the package."""
        return self.path.value.strip()

    def _ipython_display_(self) -> None:
        from IPython.display import display

        display(self.widget)

    def _set(self, path: str) -> None:
        if path:
            self.path.value = path

    def _take(self, text: str) -> None:
        self._tell()
        self._changed(text.strip())

    def _uploaded(self, value: Any) -> None:
        names = [save_upload(self._folder, name, content) for name, content in uploads(value)]
        if names:
            self.path.value = str(self._folder)
            self._tell()

    def _tell(self) -> None:
        try:
            text, problem = (
                (
                    say("link")
                    if self.value.startswith(_WEB)
                    else tree_of(Path(self.value).expanduser())
                    if self.value
                    else say("embedded")
                ),
                False,
            )
        except DatasetError as error:
            text, problem = f"{error}; {error.hint}", True
        look = (
            ' role="alert" style="color:#d32f2f;font-weight:600;white-space:pre-wrap"'
            if problem
            else (' style="white-space:pre-wrap;line-height:1.35"')
        )
        self.told.value = f"<pre{look}>{html.escape(text)}</pre>"


def uploads(value: Any) -> Iterator[tuple[str, bytes]]:
    """Names and contents of an upload: a dict by name in ipywidgets 7, a tuple of dicts in 8.

    Examples
    --------
    >>> list(uploads({"a.wav": {"content": b"x"}})), list(uploads(({"name": "a.wav", "content": b"x"},)))
    ([('a.wav', b'x')], [('a.wav', b'x')])
    """
    files = (
        [(name, entry) for name, entry in value.items()]
        if isinstance(value, Mapping)
        else [(entry["name"], entry) for entry in value]
    )
    for name, entry in files:
        yield name, bytes(entry["content"])


def save_upload(folder: Path, name: str, content: bytes) -> Path:
    """Write an uploaded file into `folder`; whatever its name says, it goes nowhere else."""
    target = folder / (printable(PurePosixPath(name.replace("\\", "/")).name).lstrip(".") or "upload")
    with replace_atomically(target) as temporary:
        temporary.write_bytes(content)
    return target


def offered(here: Platform | None = None) -> list[Path]:
    """Folders with recordings, and zips, where this platform puts what a user attached or uploaded."""
    here = here or detect()
    roots = {
        "kaggle": ["/kaggle/input"],
        "colab": ["/content", "/content/drive/MyDrive"],
        "lightning": [str(here.home), "/teamspace/uploads"],
    }.get(here.name, [])
    found: list[Path] = []
    for root in [*map(Path, roots), home() / "recordings"]:
        found += [path for path in _candidates(root, _DEPTH if here.name == "kaggle" else 2) if path not in found]
    return found[:_OFFERED]


def _candidates(folder: Path, depth: int) -> Iterator[Path]:
    try:
        entries = sorted(path for path in folder.iterdir() if not path.name.startswith("."))
    except OSError:
        return
    if any(path.suffix.lower() in AUDIO_SUFFIXES for path in entries):
        yield folder
    for path in entries:
        if path.suffix.lower() == ".zip":
            yield path
        elif depth and path.is_dir() and path.name not in ("logs", "drive", "node_modules"):
            yield from _candidates(path, depth - 1)


def brought(source: str, name: str, progress: Progress = Silent()) -> Path:
    """The folder or file that holds the recordings: links are fetched, archives unpacked, each once.

    Raises
    ------
    DatasetError
        When nothing is there.
    WeightsError, UnsafeFileError
        When it cannot be fetched or unpacked.
    """
    place = home() / "recordings" / slug_of(name)
    path = Path(source).expanduser()
    if source.startswith(_WEB):
        path = _fetched(source, place, progress)
    if path.is_dir() and not find_recordings(path).recordings:  # a folder of one archive is what uploads leave
        path = next(iter(sorted(path.glob("*.zip"))), path)
    if path.suffix.lower() == ".zip" and path.is_file():
        folder = place / f"{slug_of(path.stem)}-{path.stat().st_size}"
        if not folder.is_dir() and not unzip_safely(path, folder, AUDIO_SUFFIXES):
            raise DatasetError(f"{path.name} holds no recordings", hint="pack wav, flac, mp3, m4a or ogg files")
        path = folder
    return path


def _fetched(link: str, place: Path, progress: Progress) -> Path:
    """The file behind a link; Drive's pages for people are turned into the file itself."""
    shared = _DRIVE_LINK.match(link)
    address = (
        f"https://drive.usercontent.google.com/download?id={shared[1]}&export=download&confirm=t"
        if shared
        else link.replace("/blob/", "/resolve/")
        if "huggingface.co/" in link
        else link
    )
    given = PurePosixPath(urllib.parse.unquote(urllib.parse.urlsplit(link).path))
    known = given.suffix.lower() in {*AUDIO_SUFFIXES, ".zip"}
    target = place / (slug_of(given.stem) + given.suffix if known else slug_of(shared[1] if shared else link) + ".zip")
    if not target.is_file():
        download(address, target, None, progress)
    if not known and not zipfile.is_zipfile(target):
        target.unlink()
        raise DatasetError(
            f"{link} is neither a recording nor a zip",
            hint="share the file with everybody who has the link, and give the address of the file itself",
        )
    return target


def tree_of(path: Path) -> str:
    """What a dataset was understood to hold, folder by folder.

    Raises
    ------
    DatasetError
        When there is nothing.
    """
    if path.suffix.lower() == ".zip" and path.is_file():
        return say("archive", name=path.name, size=f"{path.stat().st_size / 1e6:.1f}")
    files = find_recordings(path)
    seconds = {name: header_seconds(file) for name, file in files.recordings.items()}
    folders: dict[str, list[str]] = defaultdict(list)
    for name in files.recordings:
        folders[str(PurePosixPath(name).parent)].append(name)
    lines = [f"{path.name}/   " + say("counted", count=len(seconds), minutes=f"{sum(seconds.values()) / 60:.1f}")]
    for folder, names in list(folders.items())[:_SHOWN_FOLDERS]:
        listed = ", ".join(PurePosixPath(name).name for name in names[:_SHOWN_NAMES])
        listed += say("and_more", count=len(names) - _SHOWN_NAMES) if len(names) > _SHOWN_NAMES else ""
        where = "" if folder == "." else f"{folder}/   "
        lines.append(f"├── {where}{say('counted', count=len(names), minutes=_minutes(names, seconds))}: {listed}")
    if len(folders) > _SHOWN_FOLDERS:
        lines.append(f"├── {say('more_folders', count=len(folders) - _SHOWN_FOLDERS)}")
    left = [*files.not_audio, *(f"{folder}/" for folder in files.ignored_folders)]
    if left:
        lines.append(
            f"├── {say('left_out')}: {', '.join(left[:_SHOWN_NAMES])}"
            + (say("and_more", count=len(left) - _SHOWN_NAMES) if len(left) > _SHOWN_NAMES else "")
        )
    lines[-1] = lines[-1].replace("├", "└", 1)
    return "\n".join(lines)


def _minutes(names: list[str], seconds: Mapping[str, float]) -> str:
    return f"{sum(seconds[name] for name in names) / 60:.1f}"
