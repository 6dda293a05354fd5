"""A first look at recordings that never makes a notebook wait: what is listed is limited in time and in number."""

import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from ..audio.file_kinds import is_foreign_archive
from ..audio.recordings import find_recordings
from ..audio.waveform import AUDIO_SUFFIXES, header_seconds
from ..errors import DatasetError, RVCError
from ..system.platforms import Platform, detect, home
from .typed_paths import refuse_whole

T = TypeVar("T")
PREVIEW_FILES, PREVIEW_SECONDS = 500, 2.0
_OFFERED, _DEPTH = 30, 4
_NOT_OFFERED = ("logs", "drive", "node_modules", "links", "unpacked", "joined")  # ours, or not recordings


@dataclass
class Listing:
    """What was seen of files and folders: recordings with their seconds, zips in MB, and what is left out."""

    title: str
    seconds: dict[str, float] = field(default_factory=dict)
    zips: dict[str, float] = field(default_factory=dict)
    foreign: list[str] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)
    cut_by: str = ""  # what ended the listing: ``files``, ``seconds`` or nothing


def listing(paths: list[Path], most: float = float("inf"), seconds: float = float("inf")) -> Listing:
    """List recordings and read how long they are, as far as the time and the number of files allow.

    Raises
    ------
    DatasetError
        When something is not there or may not be read.
    """
    ends, found, seen = time.monotonic() + seconds, Listing(paths[0].name if len(paths) == 1 else ""), 0

    def enough() -> bool:
        nonlocal seen
        seen += 1
        found.cut_by = "files" if seen > most else "seconds" if time.monotonic() > ends else found.cut_by
        return bool(found.cut_by)

    waiting: dict[str, Path] = {}
    for path in paths:
        files = find_recordings(path, enough)
        waiting |= files.recordings
        found.left_out += [*files.ignored_folders]
        for name, file in files.not_audio.items():
            if file.suffix.lower() == ".zip" and not file.name.startswith("."):
                waiting[name] = file
            else:
                (found.foreign if is_foreign_archive(file.name) else found.left_out).append(name)
    for name, file in waiting.items():
        if time.monotonic() > ends:
            found.cut_by = "seconds"
            break
        length = 0.0 if file.suffix.lower() == ".zip" else header_seconds(file)
        if file.suffix.lower() == ".zip":
            found.zips[name] = file.stat().st_size / 1e6
        elif file.suffix.lower() in AUDIO_SUFFIXES or length:
            found.seconds[name] = length
        else:  # a file that was named itself
            (found.foreign if is_foreign_archive(file.name) else found.left_out).append(name)
    return found


def within(seconds: float, work: Callable[[], T]) -> T | None:
    """What `work` returns or raises, or None when it takes longer: a drive that hangs must not stop a notebook."""
    results: list[T] = []
    errors: list[RVCError | OSError] = []

    def run() -> None:
        try:
            results.append(work())
        except (RVCError, OSError) as error:
            errors.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join(seconds)
    if errors:
        raise errors[0]
    return results[0] if results else None


def offered(here: Platform | None = None) -> list[Path]:
    """Folders with recordings, and zips, where this platform puts what a user attached or uploaded."""
    here, ends = here or detect(), time.monotonic() + PREVIEW_SECONDS
    roots = {
        "kaggle": ["/kaggle/input"],
        "colab": ["/content", "/content/drive/MyDrive"],
        "lightning": [str(here.home), "/teamspace/uploads"],
    }.get(here.name, [])
    found: list[Path] = []
    places = [(Path(root), _DEPTH if here.name == "kaggle" else 2) for root in roots]
    for root, depth in [*places, (home() / "recordings", _DEPTH)]:
        found += [path for path in _candidates(root, depth, ends) if path not in found]
    return found[:_OFFERED]


def _candidates(folder: Path, depth: int, ends: float) -> Iterator[Path]:
    try:
        entries = sorted(path for path in folder.iterdir() if not path.name.startswith("."))
    except OSError:
        return
    if any(path.suffix.lower() in AUDIO_SUFFIXES for path in entries):
        try:
            refuse_whole(folder)
        except DatasetError:
            yield folder / "*"
        else:
            yield folder
    for path in entries:
        if time.monotonic() > ends:
            return
        if path.suffix.lower() == ".zip":
            yield path
        elif depth and path.is_dir() and path.name not in _NOT_OFFERED:
            yield from _candidates(path, depth - 1, ends)
