"""The list of a save: what it must say, and which saves a folder holds. Other people may have written any of it."""

import contextlib
import errno
import logging
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from typing_extensions import TypedDict

from ..errors import CheckpointError, ResourceError, RVCError, StorageError
from ..system.documents import Count, Digest, Line, read_json
from ..system.files import FULL as DISK_FULL
from ..system.inside import is_regular, refuse_links
from ..workspace.layout import WEIGHTS, Layout
from ..workspace.manifest import ExperimentRecord
from ..workspace.retention import CheckpointRow, checkpoint_rows
from ..workspace.stamps import content_of

_log = logging.getLogger(__name__)

DATA, RECORD_PACK = "clips.pack", "record.pack"  # tars; Kaggle does not unpack this suffix
OLDER = "restore an older save"
STORED = r"[^/\x00-\x1f.][^/\x00-\x1f]*\.[0-9a-f]{12}\.(?:pth|pt|index|pack)"
LIST = r"saved-e\d+-s\d+\.json"
FULL = "is full", "free space there and empty its trash"
_GONE = "is not there", "mount it, or create the folder"
_PROBLEMS = {
    **dict.fromkeys(DISK_FULL, FULL),
    errno.EROFS: ("is read-only", "mount it for writing"),
    errno.EACCES: ("is not writable for you", "choose a folder that you can write to"),
    errno.ENOENT: _GONE,
    errno.ENOTCONN: _GONE,
    errno.EIO: _GONE,
}
Row = TypedDict(
    "Row",
    {
        "as": Annotated[str, Field(pattern=f"^{STORED}$")],
        "sha256": Digest,
        "bytes": Annotated[int, Field(ge=0, le=1 << 40)],
    },
)


class Save(BaseModel):
    """One save of an experiment: what its JSON file holds, and where it lies.

    An experiment folder counts as a save that has no `files` of its own.

    Attributes
    ----------
    files : dict
        Name in the experiment, and name in the save, hash and size of each file.
    data_key : str
        Changes with the clips and features.
    settings : dict
        Of the background training that made it; empty for other trainings.
    begun : int
        How often the experiment was begun again before.
    recordings : list of str
        Hashes of its recordings; empty in saves of earlier versions.
    folder, place : Path, str
        Where it was found, and the name of that storage, to display. Neither is in the file.
    """

    model_config = ConfigDict(strict=True, allow_inf_nan=False)

    name: Line = Field(min_length=1, max_length=1000)
    time: float = Field(ge=0, le=1e11)
    step: Count
    epoch: Count
    checkpoint: CheckpointRow
    files: dict[Annotated[str, Field(pattern=rf"^({WEIGHTS}|clips\.pack|record\.pack)$")], Row] = {}
    data_key: str = Field("", max_length=64)
    settings: dict[str, Any] = {}
    begun: Count = 0
    recordings: list[Annotated[str, Field(max_length=64)]] = []
    folder: Path = Path()
    place: str = ""

    @classmethod
    def of_experiment(cls, layout: Layout, place: str) -> "Save | None":
        """An experiment folder at its newest checkpoint; None if it has no checkpoint."""
        if not (rows := checkpoint_rows(layout)):
            return None
        record, begun = lineage(layout)
        return cls(
            folder=layout.root,
            place=place,
            name=record.name if record else layout.name,
            time=layout.checkpoints.stat().st_mtime,
            step=rows[-1]["step"],
            epoch=rows[-1]["epoch"],
            checkpoint=rows[-1],
            begun=begun,
            recordings=record.recordings if record else [],
        )

    @property
    def manifest(self) -> str:
        """Name of its JSON file."""
        return f"saved-e{self.epoch}-s{self.step}.json"

    @property
    def complete(self) -> bool:
        """Whether its checkpoint and all its files are there in the right size; `restore_save` also checks hashes."""
        hashes = {name: row["sha256"] for name, row in self.files.items()}
        return not self.files or (
            self.checkpoint["sha256"].items() <= hashes.items()
            and {DATA, RECORD_PACK} <= self.files.keys()
            and all(has(self.folder, row) for row in self.files.values())
        )

    def has_other_recordings(self, recordings: list[str]) -> bool:
        """Whether both recordings are known and have nothing in common."""
        return bool(self.recordings and recordings) and set(self.recordings).isdisjoint(recordings)

    def as_json(self) -> dict[str, Any]:
        """For ``--json``."""
        return self.model_dump(include={"name", "step", "epoch", "place"}) | {
            "time": time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(self.time)),
            "bytes": sum(row["bytes"] for row in self.files.values()),
        }


def lineage(layout: Layout) -> tuple[ExperimentRecord | None, int]:
    """What an experiment is, if it is prepared, and how often it was begun again."""
    begun = content_of(layout, "begun").get("count", 0)
    with contextlib.suppress(RVCError):
        return ExperimentRecord.load(layout), begun
    return None, begun


@contextlib.contextmanager
def storage_errors(place: str) -> Iterator[None]:
    """Turn errors of the file system into a StorageError that names the problem and its remedy."""
    try:
        yield
    except (ResourceError, OSError) as error:
        number = getattr(error, "errno", errno.ENOSPC)
        unknown = f"does not work: {getattr(error, 'strerror', None) or error}", "mount it again"
        what, hint = _PROBLEMS.get(number, unknown)
        raise StorageError(f"{place} {what}", hint=hint) from error


def has(folder: Path, row: Row) -> bool:
    """Whether a file is there, and not a link. Its name has its hash, so the size decides."""
    path = folder / row["as"]
    return is_regular(path) and path.stat().st_size == row["bytes"]


@contextlib.contextmanager
def passing_over(path: Path) -> Iterator[None]:
    """Warn of what cannot be used as a save, and go on with the others."""
    try:
        yield
    except StorageError as error:
        _log.warning("passing over %s: %s", path, error)


def read_list(path: Path, place: str) -> Save:
    """Read the list of a save.

    Raises
    ------
    StorageError
        When it is not one; nothing that it says was used.
    """
    save = read_json(path, Save, OLDER, error=StorageError)
    save.folder, save.place = path.parent, place
    if save.manifest != path.name or not save.files:
        raise StorageError(f"{path.name} lists another save, or no files", hint=OLDER)
    return save


def saves_in(folder: Path, place: str) -> list[Save]:
    """All saves in a folder, complete or not, newest first; what is not a save is passed over with a warning."""
    found = []
    for path in folder.glob("saved-e*-s*.json"):
        with passing_over(path), contextlib.suppress(FileNotFoundError):
            found.append(read_list(path, place))
    return sorted(found, key=lambda one: -one.time)


def experiment_in(folder: Path, place: str) -> Save | None:
    """An experiment folder that somebody left in a place, as a save; None without a checkpoint.

    Raises
    ------
    StorageError
        When it holds links or devices, or is damaged.
    """
    refuse_links(folder)
    try:
        return Save.of_experiment(Layout(folder, folder.name), place)
    except (CheckpointError, ValidationError) as error:
        raise StorageError(f"{folder} is damaged: {error}", hint="take another copy of it") from error
