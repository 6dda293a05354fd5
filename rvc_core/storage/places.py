"""Storage that outlives the machine: `save` an experiment there, `find_saved`, `restore`. `mirror` does it by itself.

A place is given as text: a folder; ``kaggle:OWNER/DATASET``, through kagglehub, one archive for each save; ``none``; or
``auto``: what the platform keeps, unless the experiment is there already.
"""

import contextlib
import errno
import logging
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from ..errors import CheckpointError, RVCError, SettingsError, StorageError
from ..system.files import is_locked, slug_of
from ..system.platforms import detect, home
from ..workspace.layout import Layout
from .snapshot import Save, restore_save, saves_in, telling, unpack, write_save

_log = logging.getLogger(__name__)

_DEPTH = 3  # of folders in which saves are looked for
_EARLIER_DEPTH = 6  # as in /kaggle/input/notebooks/OWNER/NOTEBOOK/logs/NAME
_KAGGLE_SECONDS = 3600.0
_KAGGLE = re.compile(r"kaggle:([\w-]+/[\w-]+)")


class Place(Protocol):
    """Somewhere to save to."""

    @property
    def title(self) -> str:
        """Its name for people."""

    @property
    def least_seconds(self) -> float:
        """How long to wait at least between two saves."""

    def save(self, layout: Layout, *, again: bool = False) -> Save:
        """Save what is new of an experiment; `again`, where this program has saved before."""

    def opened(self) -> contextlib.AbstractContextManager[Path]:
        """A folder with what was saved, to be read."""


@dataclass(frozen=True)
class Folder:
    """A folder, most often of a mounted storage. It is created, but not the folder that it is in."""

    path: Path
    least_seconds: float = 30.0

    @property
    def title(self) -> str:
        """Its name for people."""
        return "Drive" if self.path.is_relative_to("/content/drive") else str(self.path)

    def save(self, layout: Layout, *, again: bool = False) -> Save:
        """Save; `again` only where something was saved: an unmounted folder looks empty, and is another disk."""
        folder = self.path / layout.slug
        with telling(self.title):
            if not again:
                self.path.mkdir(exist_ok=True)
                folder.mkdir(exist_ok=True)
            elif not folder.is_dir():
                raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(folder))
        return write_save(layout, folder, self.title)

    @contextlib.contextmanager
    def opened(self) -> Iterator[Path]:
        """The folder itself."""
        yield self.path


@dataclass(frozen=True)
class KaggleDataset:
    """A private dataset of Kaggle, one for each voice; each save is a version of it, and one archive.

    kagglehub runs in a process of its own: whatever it does, and however long, it can be waited for and named.
    """

    handle: str
    least_seconds: float = 600.0  # Kaggle refuses a version while it still works on the one before

    @property
    def title(self) -> str:
        """Its name for people."""
        return f"the Kaggle dataset {self.handle}"

    def save(self, layout: Layout, *, again: bool = False) -> Save:
        """Upload an archive of everything."""
        with tempfile.TemporaryDirectory() as scratch:
            (whole := Path(scratch, "whole")).mkdir()
            save = write_save(layout, whole, self.title)
            with tarfile.open(Path(scratch, f"{layout.slug}.tar"), "w") as archive:
                for path in sorted(whole.iterdir()):
                    archive.add(path, f"{layout.slug}/{path.name}")
                    path.unlink()  # the disk need not hold it twice
            shutil.rmtree(whole)
            self._kagglehub("dataset_upload", scratch, f"epoch {save.epoch}, step {save.step}")
        return save

    @contextlib.contextmanager
    def opened(self) -> Iterator[Path]:
        """The newest version, downloaded, and its archive unpacked if Kaggle has not done so."""
        folder = Path(self._kagglehub("dataset_download"))
        with tempfile.TemporaryDirectory() as scratch:
            archives = [*folder.rglob("*.tar")]
            for path in archives:
                unpack(path, Path(scratch))
            yield Path(scratch) if archives else folder

    def _kagglehub(self, call: str, *arguments: str) -> str:
        code = f"import sys, kagglehub; print(kagglehub.{call}(*sys.argv[1:]))"
        try:
            done = subprocess.run(
                [sys.executable, "-c", code, self.handle, *arguments],
                capture_output=True,
                text=True,
                timeout=_KAGGLE_SECONDS,
            )
        except subprocess.TimeoutExpired as error:
            raise StorageError(
                f"{self.title} did not answer for {_KAGGLE_SECONDS / 60:.0f} min", hint="is the notebook's internet on?"
            ) from error
        if done.returncode:
            said = (done.stderr.strip().splitlines() or ["no word"])[-1]
            raise StorageError(
                f"{self.title} refused: {said}",
                hint=(
                    "run: pip install kagglehub"
                    if "No module named 'kagglehub'" in said
                    else "outside of Kaggle, set KAGGLE_API_TOKEN; after a save, wait until Kaggle has processed it"
                ),
            )
        return done.stdout.strip().splitlines()[-1]


def place_of(text: str, layout: Layout) -> Place | None:
    """Where an experiment is to be saved; None where nothing has to be.

    Raises
    ------
    SettingsError
        When the text means nothing.
    StorageError
        For ``auto`` where the platform forgets this machine, and no storage is mounted.
    """
    if text == "auto":
        here = detect()
        if here.name == "local" or (here.storage and layout.root.is_relative_to(here.storage)):
            return None
        if here.storage is None:
            raise StorageError(f"{here.title} has no storage mounted: all is on this machine only", hint="mount Drive")
        return Folder(here.storage)
    if text.startswith("kaggle:"):
        if not (match := _KAGGLE.fullmatch(text)):
            raise SettingsError(f"no name of a dataset: {text!r}", hint="write kaggle:OWNER/DATASET")
        return KaggleDataset(match[1])
    return Folder(Path(text).expanduser().absolute()) if text not in ("", "none") else None


def save(layout: Layout, place: str = "auto") -> Save:
    """Save an experiment now.

    Raises
    ------
    StageOrderError
        Before the first checkpoint.
    CheckpointError
        When the newest checkpoint is damaged here.
    StorageError
        When the place is not there, full, or refuses; what it had before is untouched.
    """
    found = place_of(place, layout)
    if found is None:
        raise StorageError(f"there is nowhere to save {layout.name!r}", hint="name a folder, or kaggle:OWNER/DATASET")
    return found.save(layout)


def find_saved(place: str = "auto") -> list[Save]:
    """The newest complete save of each experiment, the newest first.

    Parameters
    ----------
    place : str
        ``auto``: the platform's storage, and where it shows what earlier sessions left. Folders of experiments
        themselves are found too, such as Kaggle's attached output and the artifacts of a Lightning job.
    """
    with contextlib.ExitStack() as stack:
        newest = {save.name: save for save in reversed(_found(place, stack)) if save.complete}
    return sorted(newest.values(), key=lambda save: -save.time)


def restore(name: str, place: str = "auto", *, root: Path | None = None) -> Save:
    """Bring back the newest complete save of an experiment; where this machine is as far, nothing is done.

    What is here of that name, and is not as far, is moved aside.

    Parameters
    ----------
    root : Path, optional
        Instead of ``RVC_HOME``.

    Raises
    ------
    StorageError
        When there is no complete save, or the experiment is being trained here.
    ResourceError
        When this machine's disk has no room.
    """
    layout, faults = Layout.of(name, root), []
    if is_locked(layout.lock):
        raise StorageError(f"{name!r} is being trained on this machine", hint=f"end that first: rvc stop {name}")
    here = None
    with contextlib.suppress(RVCError, OSError):  # what is here is no reason not to bring back what is there
        here = Save.of_experiment(layout, "this machine")
    with contextlib.ExitStack() as stack:
        for save in _found(place, stack):
            if slug_of(save.name) != layout.slug:
                continue
            if here and here.step >= save.step:
                return here
            try:
                restore_save(save, layout)
                return save
            except (StorageError, CheckpointError) as error:
                faults.append(f"epoch {save.epoch}: {error}")
                _log.warning("the save of epoch %d is passed over: %s", save.epoch, error)
    raise StorageError(
        f"no complete save of {name!r} in {place if place != 'auto' else 'any storage here'}"
        + (f" ({'; '.join(faults)})" if faults else ""),
        hint="mount the storage that it was saved to, or name it: rvc restore NAME --from PLACE",
    )


def _found(text: str, stack: contextlib.ExitStack) -> list[Save]:
    """All that a place has, the newest first; an experiment's own folder counts as saved when it was last trained."""
    here, places = detect(), list[tuple[Place, int]]()
    if text != "auto" and (named := place_of(text, Layout(home(), ""))):
        places = [(named, _DEPTH)]
    elif text == "auto" and here.name != "local":
        both = ((here.storage, _DEPTH), (here.earlier, _EARLIER_DEPTH))
        places = [(Folder(path), depth) for path, depth in both if path]
    saves = []
    for place, depth in places:
        for folder in _folders(stack.enter_context(place.opened()), depth):
            saves += saves_in(folder, place.title)
            if (folder / "experiment.json").is_file() and folder.parent != home() / "logs":
                with contextlib.suppress(RVCError, OSError):
                    saves += filter(None, [Save.of_experiment(Layout(folder, folder.name), place.title)])
    return sorted(saves, key=lambda save: -save.time)


def _folders(root: Path, depth: int) -> Iterator[Path]:
    """A folder and those in it, to some depth; not those inside an experiment."""
    yield root
    if depth and not (root / "experiment.json").exists():
        with contextlib.suppress(OSError):
            for path in sorted(root.iterdir()):
                if path.is_dir() and not path.name.startswith("."):
                    yield from _folders(path, depth - 1)
