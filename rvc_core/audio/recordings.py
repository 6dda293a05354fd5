"""Find recordings: one file, or a folder with its sub-folders."""

import os
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from ..errors import AudioError, DatasetError
from ..system.files import is_hidden
from ..system.platforms import is_reachable
from .file_kinds import kind_of_file
from .waveform import AUDIO_SUFFIXES, dead_link, header_seconds

HIDDEN = "hidden, or created by another program"
LINKED = "a linked folder, which is not followed: copy the folder itself"
UNREADABLE = "it cannot be read: check its permissions"


@dataclass(frozen=True)
class DatasetFiles:
    """The files of a dataset; keys are paths relative to it."""

    recordings: dict[str, Path]
    ignored: dict[str, Path]  # recordings inside ignored folders
    not_audio: dict[str, Path]
    ignored_folders: dict[str, str]  # and why

    def fingerprint(self, time: str = "st_mtime_ns") -> list[tuple[str, int, int]]:
        """Name, size and modification time of every file: if they change, look at what is in it.

        Linked folders are in it by their names, so that a new one is reported.

        Parameters
        ----------
        time : str
            The time of ``os.stat``. ``st_ctime_ns`` also changes where a modification time was set back.
        """
        return [(name, 0, 0) for name, reason in self.ignored_folders.items() if reason == LINKED] + [
            (name, (status := path.stat() if path.exists() else path.lstat()).st_size, getattr(status, time))
            for name, path in {**self.recordings, **self.ignored, **self.not_audio}.items()
        ]


def find_recordings(dataset: Path, enough: Callable[[], bool] = lambda: False) -> DatasetFiles:
    """List a dataset: a folder with its sub-folders, or one file.

    Hidden folders such as ``.ipynb_checkpoints``, and ``__MACOSX``, hold copies and leftovers. Their recordings are
    listed as ignored. Sub-folders that may not be read, and linked ones, are among the ignored folders.

    Parameters
    ----------
    enough : callable
        Asked before each entry whether to stop listing.

    Raises
    ------
    DatasetError
        When the path does not exist, may not be read, or is in a Drive that is not mounted.
    """
    if not is_reachable(dataset):
        raise DatasetError(f"{dataset} cannot be reached: its storage is not mounted", hint="mount it: run Begin")
    if dataset.is_file():
        return DatasetFiles({printable_name(dataset.name): dataset}, {}, {}, {})
    if not dataset.is_dir():
        raise DatasetError(
            f"{str(dataset)!r} {dead_link(dataset) or 'does not exist'}",
            hint="give the path of your folder of recordings",
        )
    files = DatasetFiles({}, {}, {}, {})
    unreadable: list[Path] = []
    for path, is_folder in _walk(dataset, unreadable):
        if enough():
            break
        inner = path.relative_to(dataset)
        is_ignored, name = is_hidden(inner.parent), printable_name(inner.as_posix())
        if is_folder:
            if not is_ignored and (is_hidden(inner) or path.is_symlink()):
                files.ignored_folders[name] = HIDDEN if is_hidden(inner) else LINKED
        elif path.name.startswith(".") or not _is_recording(path):
            files.not_audio[name] = path
        else:
            (files.ignored if is_ignored else files.recordings)[name] = path
    for path in unreadable:
        files.ignored_folders[printable_name(path.relative_to(dataset).as_posix())] = UNREADABLE
    return files


def unread_folders(files: DatasetFiles) -> list[tuple[str, str]]:
    """The folders whose recordings somebody may miss, and why they are not read."""
    return [(name, reason) for name, reason in files.ignored_folders.items() if reason != HIDDEN]


def _walk(folder: Path, unreadable: list[Path], *, is_top: bool = True) -> Iterator[tuple[Path, bool]]:
    """Everything in a folder, in the order of sorted paths, and whether it is a folder itself."""
    try:
        with os.scandir(folder) as opened:
            entries = sorted((entry.name, entry.is_dir(), entry.is_symlink()) for entry in opened)
    except OSError as error:
        if is_top:
            raise DatasetError(
                f"{str(folder)!r} cannot be read: {error.strerror}", hint="check its permissions, or mount it again"
            ) from error
        unreadable.append(folder)
        return
    for name, is_folder, is_link in entries:
        yield folder / name, is_folder
        if is_folder and not is_link:
            yield from _walk(folder / name, unreadable, is_top=False)


def recordings_in(places: Iterable[Path | str]) -> list[Path]:
    """The given files, plus all recordings in the given folders and their sub-folders.

    Raises
    ------
    AudioError
        When a path does not exist, or a folder holds no recording.
    """
    found: list[Path] = []
    for place in map(Path, places):
        if not place.exists():
            raise AudioError(
                f"{str(place)!r} {dead_link(place) or 'does not exist'}",
                hint="give the path of a recording or a folder",
            )
        files = list(find_recordings(place).recordings.values())
        if not files:
            raise AudioError(f"no recording in {str(place)!r}", hint="put recordings into it, or give another path")
        found += files
    return found


def _is_recording(path: Path) -> bool:
    """By its name; a file of another name is looked into."""
    if path.suffix.lower() in AUDIO_SUFFIXES:
        return True
    try:
        return path.is_file() and kind_of_file(path).group == "recording" and header_seconds(path) > 0
    except OSError:
        return False


def printable_name(name: str) -> str:
    """The file name as valid UTF-8; undecodable bytes become a replacement character."""
    return os.fsencode(name).decode("utf-8", "replace")
