"""Recordings from anywhere: links are fetched, zips unpacked, loose files joined; each upload is a set of its own."""

import os
import re
import tempfile
from collections.abc import Iterable, Iterator
from datetime import datetime
from pathlib import Path, PurePosixPath

from ..audio.file_kinds import is_foreign_archive, kind_of_file
from ..audio.recordings import find_recordings, unread_folders
from ..audio.waveform import AUDIO_SUFFIXES, header_seconds
from ..errors import DatasetError, printable
from ..progress import Progress, Silent
from ..system.files import folder_atomically, is_hidden, numbered, replace_atomically, signature, slug_of
from ..system.platforms import home
from .archives import UNPACK, unpack
from .links import fetch
from .typed_paths import meant

_SPLIT_ZIP = re.compile(r"(.+?)(?:-\d)?-\d{3}")  # Drive and Takeout part a download: NAME-001.zip, NAME-002.zip


def brought(source: str, name: str, progress: Progress = Silent()) -> Path:
    """The one folder or file that holds the recordings a text names: links are fetched, zips unpacked.

    Loose recordings and what came out of zips are joined in a folder of links.

    Parameters
    ----------
    source : str
        See `meant`.
    name : str
        Of the voice: what is fetched and unpacked lies in ``recordings/NAME``.

    Raises
    ------
    DatasetError
        When nothing is there, or it cannot be fetched or unpacked.
    UnsafeFileError
        When a zip would write outside of its folder.
    ResourceError
        When the disk has no room.
    """
    place, parts = _place_of(name), _parts(source, _place_of(name), progress)
    return parts[0][1] if len(parts) == 1 else _joined(parts, place)


def sources(source: str, name: str, progress: Progress = Silent()) -> list[Path]:
    """As `brought`, as the files and folders themselves."""
    return [path for _, path in _parts(source, _place_of(name), progress)]


def _place_of(name: str) -> Path:
    return home() / "recordings" / slug_of(name)


def _parts(source: str, place: Path, progress: Progress) -> list[tuple[str, Path]]:
    """Files and folders of recordings, each with the name of the zip that it came from (empty: from none)."""
    meaning = meant(source)
    if not isinstance(meaning, str):
        if not os.path.exists(source) and len(meaning) == 1:
            progress.say(f"using {meaning[0]}")
        paths = meaning
    else:
        paths = [fetch(meaning, place, progress)]
    parts = [part for path in paths for part in (_in_folder if path.is_dir() else _in_file)(path, place, progress)]
    if not parts:
        names = ", ".join(path.name for path in paths[:4])
        skipped = [f"; {name}: {reason}" for path in paths for name, reason in unread_folders(find_recordings(path))]
        raise DatasetError(
            f"no recordings in {names}{''.join(skipped[:1])}", hint="wav, flac, mp3, m4a, ogg and videos are read"
        )
    return parts


def _in_folder(folder: Path, place: Path, progress: Progress) -> Iterator[tuple[str, Path]]:
    files = find_recordings(folder)
    if files.recordings:
        yield "", folder
    others = [path for name, path in files.not_audio.items() if not is_hidden(PurePosixPath(name))]
    zips = [path for path in others if path.suffix.lower() == ".zip"]
    for path in zips:
        split = _SPLIT_ZIP.fullmatch(path.stem)
        if unpacked := unpack(path, place / "unpacked", progress):
            yield (split[1] if split else path.stem), unpacked
        else:
            progress.say(f"{path.name} holds no recordings")
    if foreign := [path.name for path in others if is_foreign_archive(path.name)]:
        if not files.recordings and not zips:
            raise DatasetError(f"{', '.join(foreign[:3])} cannot be unpacked here", hint=UNPACK)
        progress.say(f"not opened: {', '.join(foreign)}; {UNPACK}")


def _in_file(path: Path, place: Path, progress: Progress) -> Iterator[tuple[str, Path]]:
    try:
        kind = kind_of_file(path)
    except OSError as error:
        raise DatasetError(f"{path} cannot be read: {error.strerror}", hint="check its permissions") from error
    if kind.group == "zip" or path.suffix.lower() == ".zip":
        if unpacked := unpack(path, place / "unpacked", progress):
            yield path.stem, unpacked
            return
        raise DatasetError(f"{path.name} holds no recordings", hint="pack wav, flac, mp3, m4a or ogg files")
    if kind.group == "archive" or is_foreign_archive(path.name):
        title = kind.title if kind.group == "archive" else "an archive"
        raise DatasetError(f"{path.name} is {title}, which cannot be unpacked here", hint=UNPACK)
    is_named = path.suffix.lower() in AUDIO_SUFFIXES
    if kind.group == "page" or not (is_named or kind.group == "recording" or header_seconds(path)):
        raise DatasetError(f"{path.name} is {kind.title}, not a recording", hint="give a recording, a folder or a zip")
    yield "", path


def _joined(parts: list[tuple[str, Path]], place: Path) -> Path:
    """One folder of links to all recordings; zips keep a folder of their own, unless all are parts of one download."""
    loose_files = [path.parent for label, path in parts if not label and path.is_file()]
    base = Path(os.path.commonpath(loose_files)) if loose_files else Path()
    is_one = len({label for label, _ in parts}) == 1
    links: dict[Path, Path] = {}
    for label, path in parts:
        inside = find_recordings(path).recordings
        for file in inside.values():
            name = file.relative_to(base if path.is_file() else path)
            wanted = Path(slug_of(label) if label and not is_one else "", name)
            links[numbered(wanted, links.__contains__)] = file
    stats = [(str(name), str(file), file.stat().st_size, file.stat().st_mtime_ns) for name, file in links.items()]
    folder = place / "joined" / signature(stats)
    if not folder.is_dir():
        with folder_atomically(folder) as temporary:
            for name, file in links.items():
                (temporary / name).parent.mkdir(parents=True, exist_ok=True)
                (temporary / name).symlink_to(file.absolute())
    return folder


# -- uploads -------------------------------------------------------------------------------------------------------
def new_set(folder: Path) -> Path:
    """An empty folder for one upload: what was uploaded before stays in folders of its own."""
    folder.mkdir(parents=True, exist_ok=True)
    return Path(tempfile.mkdtemp(prefix=f"{datetime.now():%Y-%m-%d_%H%M%S}_", dir=folder))


def save_set(folder: Path, files: Iterable[tuple[str, bytes]]) -> Path:
    """Write the files of one upload into a new folder of `folder`; whatever their names say, they go nowhere else."""
    made = new_set(folder)
    for name, content in files:
        plain = printable(PurePosixPath(name.replace("\\", "/")).name).lstrip(".") or "upload"
        with replace_atomically(numbered(made / plain, Path.exists)) as temporary:
            temporary.write_bytes(content)
    return made
