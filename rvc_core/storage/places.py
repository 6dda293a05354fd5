"""Permanent storage: `save` an experiment, `find_saved`, `restore`. `mirror` saves automatically.

You name a place by text:

- a folder;
- ``kaggle:OWNER/DATASET``: a private dataset, one archive per save, through kagglehub;
- ``none``;
- ``auto``: the platform's permanent storage, unless the experiment is there already.
"""

import contextlib
import logging
import re
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from ..errors import CheckpointError, ResourceError, RVCError, SettingsError, StorageError
from ..system.files import slug_of
from ..system.platforms import DRIVE, detect, home, is_reachable
from ..workspace.layout import Layout, meant, typed
from ..workspace.stage_locks import at_work
from .listing import Save, experiment_in, lineage, passing_over, saves_in, storage_errors
from .snapshot import ARCHIVED, restore_save, unpack, write_save

_log = logging.getLogger(__name__)

_DEPTH = 3  # of folders to search for saves
_EARLIER_DEPTH = 6  # as in /kaggle/input/notebooks/OWNER/NOTEBOOK/logs/NAME
_KAGGLE_SECONDS = 3600.0
_KAGGLE = re.compile(r"kaggle:([\w-]+/[\w-]+)")


@dataclass
class Folder:
    """A folder, usually on mounted storage. The first save creates it, but not its parent folder."""

    path: Path
    least_seconds: float = 30.0
    has_saved: bool = False

    @property
    def title(self) -> str:
        """Name to display."""
        return "Drive" if self.path.is_relative_to(DRIVE) else str(self.path)

    def save(self, layout: Layout) -> Save:
        """Save. Later saves find the folder or fail: after an unmount, its path would lead to the local disk."""
        with self.opened() as root:
            folder = root / layout.slug
            with contextlib.ExitStack() as empty:
                with storage_errors(self.title):
                    for path in () if self.has_saved else (root, folder):
                        _refuse_file(path)
                        if not path.exists():
                            empty.callback(_remove_if_empty, path)
                        path.mkdir(exist_ok=True)
                save = write_save(layout, folder, self.title)
        self.has_saved = True
        return save

    @contextlib.contextmanager
    def opened(self) -> Iterator[Path]:
        """Give the folder itself, if it is what it claims to be, before and after."""
        self._prove()
        yield self.path
        self._prove()

    def _prove(self) -> None:
        if not is_reachable(self.path):
            raise StorageError(f"{self.title} is not there", hint="mount it again")


def _refuse_file(folder: Path) -> None:
    """Name the file where a folder belongs: the system only says that it exists."""
    there = next(path for path in (folder, *folder.parents) if path.exists())
    if not there.is_dir():
        raise StorageError(f"{there} is a file, and a save needs a folder", hint="choose a folder, or move the file")


def _remove_if_empty(folder: Path) -> None:
    """After a save that failed: a folder without a save looks like one that is damaged."""
    with contextlib.suppress(OSError):
        folder.rmdir()


@dataclass(frozen=True)
class KaggleDataset:
    """A private Kaggle dataset per voice; each save uploads one archive as a new version.

    kagglehub runs in a separate process with a time limit, so that it cannot block or end this one.
    """

    handle: str
    least_seconds: float = 600.0  # Kaggle refuses a new version while it processes the previous one

    @property
    def title(self) -> str:
        """Name to display."""
        return f"the Kaggle dataset {self.handle}"

    def save(self, layout: Layout) -> Save:
        """Upload an archive of the whole experiment."""
        with tempfile.TemporaryDirectory() as whole, tempfile.TemporaryDirectory() as scratch:
            save = write_save(layout, Path(whole), self.title)
            with tarfile.open(Path(scratch, f"{layout.slug}.tar"), "w") as archive:
                for path in Path(whole).iterdir():
                    archive.add(path, f"{layout.slug}/{path.name}")
                    path.unlink()  # saves disk space
            self._kagglehub("dataset_upload", scratch, f"epoch {save.epoch}, step {save.step}")
        return save

    @contextlib.contextmanager
    def opened(self) -> Iterator[Path]:
        """Download the newest version, and unpack its archive if Kaggle has not."""
        folder = Path(self._kagglehub("dataset_download"))
        with tempfile.TemporaryDirectory() as scratch:
            archives = [*folder.rglob("*.tar")]
            for path in archives:
                unpack(path, Path(scratch), ARCHIVED)
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
                f"{self.title} did not answer for {_KAGGLE_SECONDS / 60:.0f} min",
                hint="switch on internet in the notebook's settings, then try again",
            ) from error
        if done.returncode:
            reason = (done.stderr.strip().splitlines() or ["no message"])[-1]
            raise StorageError(
                f"{self.title} refused: {reason}",
                hint=(
                    "run: pip install kagglehub"
                    if "No module named 'kagglehub'" in reason
                    else "outside Kaggle, set KAGGLE_API_TOKEN; after a save, wait until Kaggle finishes processing it"
                ),
            )
        return done.stdout.strip().splitlines()[-1]


Place = Folder | KaggleDataset  # both save an experiment, and open a folder with its saves


def place_of(text: str, layout: Layout) -> Place | None:
    """The place that `text` names, or None if there is nothing to save to.

    Raises
    ------
    SettingsError
        When the text is not a valid place.
    StorageError
        For ``auto``, when the machine is temporary and no storage is mounted.
    """
    if text == "auto":
        here = detect()
        if here.name == "local" or (here.storage and layout.root.is_relative_to(here.storage)):
            return None
        if here.storage is None:
            raise StorageError(
                f"{here.title} has no storage mounted, so nothing is saved permanently", hint="mount Drive"
            )
        return Folder(here.storage)
    if text.startswith("kaggle:"):
        if not (match := _KAGGLE.fullmatch(text)):
            raise SettingsError(f"{text!r} does not name a Kaggle dataset", hint="write kaggle:OWNER/DATASET")
        return KaggleDataset(match[1])
    return Folder(Path(text).expanduser().absolute()) if text not in ("", "none") else None


def save(layout: Layout, place: str = "auto") -> Save:
    """Save an experiment now.

    Raises
    ------
    StageOrderError
        Before the first checkpoint.
    CheckpointError
        When the newest checkpoint on this machine is damaged.
    StorageError
        When the storage is missing or full, or refuses. Earlier saves are not changed.
    """
    found = place_of(place, layout)
    if found is None:
        raise StorageError(f"there is nowhere to save {layout.name!r}", hint="give a folder or kaggle:OWNER/DATASET")
    return found.save(layout)


def find_saved(place: str = "auto") -> list[Save]:
    """The newest complete save of each experiment, newest first.

    Parameters
    ----------
    place : str
        ``auto`` searches the platform's storage and the output of its earlier sessions. It also finds experiment
        folders, such as Kaggle's attached output and the artifacts of a Lightning job.
    """
    with contextlib.ExitStack() as stack:
        newest = {save.name: save for save in reversed(_found(place, stack))}
    return sorted(newest.values(), key=lambda save: -save.time)


def restore(name: str, place: str = "auto", *, root: Path | None = None) -> Save:
    """Restore the newest complete save of an experiment, unless this machine has the same step or a later one.

    An older experiment of that name on this machine is moved aside, not deleted. It stays where it is if it was begun
    again since that save, or was trained on other recordings.

    Parameters
    ----------
    root : Path, optional
        Replaces ``RVC_HOME``.

    Raises
    ------
    StorageError
        When there is no complete save, or the experiment is being trained on this machine.
    ResourceError
        When this machine's disk is full.
    """
    layout, problems = Layout.of(name, root), []
    if busy := at_work(layout):
        raise StorageError(busy, hint=f"wait for it, or stop a training with: rvc stop {typed(layout.name)}")
    here = None
    with contextlib.suppress(RVCError, OSError, ValueError):  # a damaged local experiment must not prevent restoring
        here = Save.of_experiment(layout, "this machine")
    record, begun = lineage(layout)
    others = list[str]()
    with contextlib.ExitStack() as stack:
        for save in _found(place, stack):
            if slug_of(save.name) != layout.slug:
                others.append(save.name)
                continue
            try:
                if begun > save.begun:
                    raise StorageError("it was made before this voice was begun again on this machine")
                if record and save.has_other_recordings(record.recordings):
                    raise StorageError("it was trained on other recordings than the voice on this machine")
                if here and here.step >= save.step:
                    return here
                restore_save(save, layout)
                return save
            except (StorageError, CheckpointError, ResourceError) as error:
                problems.append(f"epoch {save.epoch}: {error}")
                _log.warning("skipping the save of epoch %d: %s", save.epoch, error)
    raise StorageError(
        f"no complete save of {name!r} in {place if place != 'auto' else 'any storage here'}"
        + (f" that can be restored ({'; '.join(problems)})" if problems else ""),
        hint=meant(name, others)
        or "mount the storage that has the save, or name it: rvc restore NAME --from PLACE"
        + (f"; or move {layout.root} away first" if layout.root.exists() else ""),
    )


def _found(text: str, stack: contextlib.ExitStack) -> list[Save]:
    """All saves of a place, newest first. An experiment folder counts as a save of its newest checkpoint."""
    here, roots = detect(), list[tuple[Place, int]]()
    if text != "auto" and (named := place_of(text, Layout(home(), ""))):
        if isinstance(named, Folder) and is_reachable(named.path) and not named.path.is_dir():
            raise StorageError(f"there is no folder {named.title}", hint="check the path, or mount its storage")
        roots = [(named, _DEPTH)]
    elif text == "auto" and here.name != "local":
        both = ((here.storage, _DEPTH), (here.earlier, _EARLIER_DEPTH))
        roots = [(Folder(path), depth) for path, depth in both if path]
    saves = list[Save]()
    for place, depth in roots:
        for folder in _folders(stack.enter_context(place.opened()), depth):
            with passing_over(folder), storage_errors(place.title):
                saves += saves_in(folder, place.title)
                if (folder / "experiment.json").is_file() and folder.parent != home() / "logs":
                    saves += filter(None, [experiment_in(folder, place.title)])
    return sorted((save for save in saves if save.complete), key=lambda save: -save.time)


def _folders(root: Path, depth: int) -> Iterator[Path]:
    """A folder and its sub-folders down to `depth`, except those of an experiment."""
    yield root
    with contextlib.suppress(OSError):
        if depth and not (root / "experiment.json").exists():
            for path in sorted(root.iterdir()):
                if path.is_dir() and not path.name.startswith("."):
                    yield from _folders(path, depth - 1)
