"""What nothing on this machine uses any more: old uploads, fetched and unpacked recordings, trainings set aside."""

import contextlib
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from ..errors import DatasetError, ResourceError, RVCError
from ..system import inside
from ..system.files import signature, slug_of
from ..system.platforms import home
from ..workspace.layout import Layout
from ..workspace.manifest import ExperimentRecord
from .identity import SET_ASIDE
from .links import address_of
from .typed_paths import meant

_KINDS = ("uploads", "links", "unpacked", "joined")  # folders in ``recordings/NAME``


@dataclass(frozen=True)
class Leftovers:
    """Files and folders that may be removed.

    Attributes
    ----------
    recordings : list of Path
        Uploads, and what was fetched, unpacked and joined, that no voice was made of and no notebook has chosen.
    set_aside : list of Path
        Experiments that were moved aside when their name was begun again, or when a save replaced them.
    """

    recordings: list[Path]
    set_aside: list[Path]


def leftovers(chosen: Iterable[str]) -> Leftovers:
    """Find what may be removed.

    Parameters
    ----------
    chosen : iterable of str
        Paths and links of recordings that are in use, besides those that the experiments here were made of.
    """
    used, links = set[Path](), set[str]()
    for text in filter(None, (*chosen, *_datasets())):
        used.add(Path(os.path.realpath(text)))
        with contextlib.suppress(DatasetError):  # gone, or no recordings
            meaning = meant(text)
            if isinstance(meaning, str):
                links.add(signature(address_of(meaning)))
            else:
                used |= {Path(os.path.realpath(path)) for path in meaning}
    entries = sorted(
        path for kind in _KINDS for folder in (home() / "recordings").glob(f"*/{kind}") for path in folder.iterdir()
    )
    kept = {entry for entry in entries if entry.name in links or _overlaps(entry, used)}
    held = [file for path in kept for file in _files(path)] + [path for path in used if path.is_file()]
    aimed = {Path(os.path.realpath(file)) for file in held if file.is_symlink()}  # joined folders hold links
    zips = {slug_of(file.stem) for file in held if file.suffix.lower() == ".zip"}
    kept |= {
        entry
        for entry in entries
        if _overlaps(entry, aimed) or (entry.parent.name == "unpacked" and entry.name.rpartition("-")[0] in zips)
    }
    return Leftovers(
        [entry for entry in entries if entry not in kept], sorted((home() / "logs").glob(f"*{SET_ASIDE}*"))
    )


def _datasets() -> Iterator[str]:
    """Of every experiment here; all recordings under its name where its record cannot be read."""
    for file in (home() / "logs").glob("*/experiment.json"):
        if SET_ASIDE not in file.parent.name:
            try:
                yield ExperimentRecord.load(Layout(file.parent, file.parent.name)).dataset
            except RVCError:
                yield str(home() / "recordings" / file.parent.name)


def _overlaps(entry: Path, used: set[Path]) -> bool:
    real = Path(os.path.realpath(entry))
    return any(path.is_relative_to(real) or real.is_relative_to(path) for path in used)


def _files(path: Path) -> Iterable[Path]:
    return path.rglob("*") if path.is_dir() else [path]


def bytes_of(path: Path) -> int:
    """What a file or a folder takes on the disk; 0 where nothing is."""
    return sum(file.lstat().st_size for file in _files(path) if file.is_symlink() or file.is_file())


def remove(paths: Iterable[Path]) -> int:
    """Remove files and folders; returns how many bytes are gone, measured before and after.

    Raises
    ------
    ResourceError
        When something cannot be removed; the others are removed first.
    """
    freed, problems = 0, []
    for path in paths:
        before = bytes_of(path)
        try:
            inside.remove(path)
        except OSError as error:
            problems.append(f"{path} cannot be removed: {error.strerror}")
        freed += before - bytes_of(path)
    if problems:
        raise ResourceError(problems[0], hint="check its permissions, and that no other program uses it")
    return freed
