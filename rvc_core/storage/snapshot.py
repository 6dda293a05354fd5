"""A save: a whole experiment in a folder of a storage that may be slow, full, or gone the next moment.

The folder holds files that carry a hash of their content in their names and therefore never change, such as
``G_1200.5e1c7f3a09bd.pth``, and for each save a ``saved-e<epoch>-s<step>.json``, written last, that names those it
consists of. The save before stays until the next one begins, because Drive uploads behind our back.
"""

import contextlib
import errno
import hashlib
import os
import re
import shutil
import tarfile
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from ..errors import CheckpointError, ResourceError, RVCError, StageOrderError, StorageError
from ..system.files import (
    ensure_room,
    folder_atomically,
    read_json,
    remove_leftovers,
    replace_atomically,
    sha256_of,
    signature,
    write_json,
)
from ..workspace.layout import Layout
from ..workspace.retention import checkpoint_rows, voices_to_save

_CHUNK_BYTES = 8 << 20  # storage that takes a moment for everything is asked for little
_TRIES = 3
_DATA, _RECORD = "clips.pack", "record.pack"  # tars; called so, Kaggle leaves them packed
_KEYS = {"name", "time", "step", "epoch", "files", "checkpoint", "data_key", "settings"}
_OURS = re.compile(r".+\.[0-9a-f]{12}(\.\w+)?|saved-e\d+-s\d+\.json")
_PREPARED = re.compile(r"\d.*|heldout|mute|stamps")  # folders that training only reads


@dataclass(frozen=True)
class Save:
    """An experiment as it was saved.

    Attributes
    ----------
    folder : Path
    manifest : str
        Name of its JSON file; empty for the folder of an experiment itself, which needs none.
    content : dict
        What that says.
    place : str
        Where it is, for people.
    """

    folder: Path
    manifest: str
    content: dict[str, Any]
    place: str

    @classmethod
    def of_experiment(cls, layout: Layout, place: str) -> "Save | None":
        """An experiment where it was trained, taken as saved at its newest checkpoint; None when it has none."""
        if not (entries := checkpoint_rows(layout)):
            return None
        name = read_json(layout.experiment, "", error=StorageError)["name"]
        return cls(
            layout.root,
            "",
            {
                "name": name,
                "epoch": entries[-1]["epoch"],
                "step": entries[-1]["step"],
                "time": layout.checkpoints.stat().st_mtime,
            },
            place,
        )

    @property
    def name(self) -> str:
        """Of the experiment."""
        return self.content["name"]

    @property
    def epoch(self) -> int:
        """Completed epochs."""
        return self.content["epoch"]

    @property
    def step(self) -> int:
        """Completed steps."""
        return self.content["step"]

    @property
    def time(self) -> float:
        """When it was saved, in seconds since 1970."""
        return self.content["time"]

    @property
    def settings(self) -> dict[str, Any]:
        """Those of the training in the background that made it, if there was one."""
        return self.content.get("settings", {})

    @property
    def rows(self) -> list[dict[str, Any]]:
        """Its files: ``as``, ``sha256`` and ``bytes``."""
        return [*self.content.get("files", {}).values()]

    @property
    def complete(self) -> bool:
        """Whether all files are there and as long as they should be; their hashes are looked at when restoring."""
        with contextlib.suppress(OSError):
            return all((self.folder / row["as"]).stat().st_size == row["bytes"] for row in self.rows)
        return False

    def as_json(self) -> dict[str, Any]:
        """For ``--json``."""
        return {
            "name": self.name,
            "epoch": self.epoch,
            "step": self.step,
            "place": self.place,
            "time": time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(self.time)),
            "bytes": sum(row["bytes"] for row in self.rows),
        }


def saves_in(folder: Path, place: str) -> list[Save]:
    """The saves in a folder, complete or not, the newest first; a damaged manifest is none."""
    found = []
    for path in folder.glob("saved-e*-s*.json"):
        with contextlib.suppress(FileNotFoundError, RVCError):
            content = read_json(path, "")
            if isinstance(content, dict) and content.keys() >= _KEYS:
                found.append(Save(folder, path.name, content, place))
    return sorted(found, key=lambda one: -one.time)


@contextlib.contextmanager
def telling(place: str) -> Iterator[None]:
    """Say in words what is wrong with a storage."""
    try:
        yield
    except (ResourceError, OSError) as error:
        full = ("is full", "free some space there, and empty its trash")
        what, hint = {
            errno.ENOSPC: full,
            errno.EDQUOT: full,
            errno.EROFS: ("may only be read", "mount it for writing"),
            errno.EACCES: ("may not be written", "choose a folder of your own"),
            errno.ENOENT: ("is not there", "mount it, or create that folder"),
            errno.ENOTCONN: ("is not there", "mount it again"),
        }.get(
            getattr(error, "errno", errno.ENOSPC),
            (f"does not work: {getattr(error, 'strerror', None) or error}", "mount it again"),
        )
        raise StorageError(f"{place} {what}", hint=hint) from error


# -- writing -------------------------------------------------------------------------------------------------------
def write_save(layout: Layout, folder: Path, place: str) -> Save:
    """Put what is not there yet of an experiment into `folder`: newest checkpoint, best voices, record, clips.

    Raises
    ------
    StageOrderError
        Before the first checkpoint.
    CheckpointError
        When the newest checkpoint is damaged here.
    StorageError
        When the storage is full, refuses, or vanishes; the complete save that it had stays.
    """
    with telling(place):
        remove_leftovers(folder)
        before = saves_in(folder, place)
        newest = next((one for one in before if one.complete), None)
    with contextlib.ExitStack() as stack:
        entry, files = _opened(layout, stack)
        files[_RECORD] = stack.enter_context(_archived(layout, _record(layout)))
        data_key = _data_key(layout)
        same_data = newest is not None and newest.content["data_key"] == data_key
        if not same_data:
            files[_DATA] = stack.enter_context(_archived(layout, _prepared(layout)))
        rows = {name: _row(name, file) for name, file in files.items()}
        if odd := [name for name, digest in entry["sha256"].items() if rows[name]["sha256"] != digest]:
            raise CheckpointError(f"{odd[0]} is damaged on this machine", hint="rvc train goes on from the one before")
        if newest is not None and same_data:
            rows[_DATA] = newest.content["files"][_DATA]
        save = Save(
            folder,
            f"saved-e{entry['epoch']}-s{entry['step']}.json",
            {
                "name": layout.name,
                "time": time.time(),
                "step": entry["step"],
                "epoch": entry["epoch"],
                "files": rows,
                "checkpoint": entry,
                "data_key": data_key,
                "settings": _settings(layout),
            },
            place,
        )
        with telling(place):
            _prune([save, newest] if newest else [save, *before])
            needed = sum(row["bytes"] for row in rows.values() if not (folder / row["as"]).exists())
            room = shutil.disk_usage(folder)
            if room.total and needed > room.free:  # some storage does not say
                raise StorageError(
                    f"{place} is full: {needed / 1e6:.0f} MB needed, {room.free / 1e6:.0f} MB free",
                    hint="free some space there, and empty its trash",
                )
            for name, file in files.items():
                _put(folder, file, rows[name])
            write_json(folder / save.manifest, save.content)
    return save


def _opened(layout: Layout, stack: contextlib.ExitStack) -> tuple[dict[str, Any], dict[str, BinaryIO]]:
    """The newest checkpoint and what belongs to it, all open: what training removes meanwhile can still be read."""
    for _ in range(_TRIES):
        if not (entries := checkpoint_rows(layout)):
            break
        paths = [*(layout.root / name for name in entries[-1]["sha256"]), *voices_to_save(layout), *layout.indexes()]
        with contextlib.suppress(FileNotFoundError):  # training has just made a newer one, and removed this
            return entries[-1], {path.name: stack.enter_context(path.open("rb")) for path in paths}
    raise StageOrderError(f"{layout.name!r} has no checkpoint yet", hint=f"run: rvc train {layout.name}")


def _record(layout: Layout) -> list[Path]:
    """The small files that training writes; many of them would each take their time on a slow storage."""
    known = (layout.experiment, layout.config, layout.metrics, layout.pinned, layout.stamp("index"))
    boards = [path for folder in (layout.root, layout.eval_board) for path in sorted(folder.glob("events.out.tf*"))]
    return [*boards, *(path for path in known if path.exists())]


def _prepared(layout: Layout) -> list[Path]:
    """Everything that the stages before training made."""
    inside = [
        path
        for folder in layout.root.iterdir()
        if folder.is_dir() and _PREPARED.fullmatch(folder.name)
        for path in folder.rglob("*")
        if path.is_file() and path != layout.stamp("index")
    ]
    return sorted([*inside, *(path for path in (layout.filelist, layout.manifest) if path.exists())])


def _data_key(layout: Layout) -> str:
    """Changes when clips or features do; the file list does not count, as it changes when the folder moves."""
    return signature(
        [
            (
                str(path.relative_to(layout.root)),
                path.stat().st_size,
                path.read_text("utf-8") if path.suffix == ".json" else "",
            )
            for path in _prepared(layout)
            if path != layout.filelist
        ]
    )


@contextlib.contextmanager
def _archived(layout: Layout, paths: list[Path]) -> Iterator[BinaryIO]:
    with tempfile.TemporaryFile() as file:
        with tarfile.open(fileobj=file, mode="w") as archive:
            for path in paths:
                archive.add(path, str(path.relative_to(layout.root)))
        yield file


def _settings(layout: Layout) -> dict[str, Any]:
    try:
        return read_json(layout.run, "").get("settings", {})
    except (FileNotFoundError, RVCError):
        return {}


def _row(name: str, file: BinaryIO) -> dict[str, Any]:
    """Where a file is put, its hash, and its size."""
    file.seek(0)
    digest = hashlib.file_digest(file, "sha256").hexdigest()  # type: ignore[arg-type]
    return {"as": f"{Path(name).stem}.{digest[:12]}{Path(name).suffix}", "sha256": digest, "bytes": file.tell()}


def _put(folder: Path, source: BinaryIO, row: dict[str, Any]) -> None:
    """Write a file under a temporary name, read it again, and rename it; one that is there is the same."""
    target = folder / row["as"]
    if target.is_file() and target.stat().st_size == row["bytes"]:
        return
    if not folder.is_dir():  # unmounted: it must not be made anew on the disk below
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(folder))
    with replace_atomically(target) as temporary:
        with temporary.open("wb") as file:
            _copy(source, file)
        if sha256_of(temporary) != row["sha256"]:
            raise OSError(errno.EIO, "what was written reads differently", str(target))


def _copy(source: BinaryIO, target: BinaryIO) -> None:
    source.seek(0)
    shutil.copyfileobj(source, target, _CHUNK_BYTES)


def _prune(kept: list[Save]) -> None:
    """Remove our files but those of these saves. They are emptied first: what is in Drive's trash counts."""
    names = {name for save in kept for name in (save.manifest, *(row["as"] for row in save.rows))}
    for path in kept[0].folder.iterdir():
        if _OURS.fullmatch(path.name) and path.name not in names:
            os.truncate(path, 0)
            path.unlink()


# -- reading -------------------------------------------------------------------------------------------------------
def restore_save(save: Save, layout: Layout) -> None:
    """Copy a save to this machine, whole and verified, before anything here is touched; that is then moved aside.

    Raises
    ------
    StorageError
        When a file is missing or damaged.
    ResourceError
        When the disk here has no room.
    """
    if not save.manifest:
        with tempfile.TemporaryDirectory() as scratch:
            return restore_save(write_save(Layout(save.folder, save.name), Path(scratch), save.place), layout)
    ensure_room(layout.root, 2 * sum(row["bytes"] for row in save.rows))
    with folder_atomically(layout.root) as staging:
        for name, row in save.content["files"].items():
            target = staging / name
            if Path(name).name != name:
                raise StorageError(f"{save.manifest} names a file outside: {name}", hint="it was tampered with")
            with telling(save.place):
                shutil.copyfile(save.folder / row["as"], target)
            if sha256_of(target) != row["sha256"]:
                raise StorageError(f"{row['as']} is damaged", hint="restore an older save")
        for name in (_DATA, _RECORD):
            unpack(staging / name, staging)
            (staging / name).unlink()
        write_json(staging / layout.checkpoints.name, [save.content["checkpoint"]])
        if layout.root.exists():
            layout.root.rename(layout.root.with_name(f"{layout.slug}.before-{time.time():.0f}"))
    return None


def unpack(archive: Path, folder: Path) -> None:
    """Unpack a tar; what would leave the folder is refused.

    Raises
    ------
    StorageError
        When it is damaged.
    """
    try:
        with tarfile.open(archive) as opened:
            opened.extractall(folder, filter="data")
    except tarfile.TarError as error:
        raise StorageError(f"{archive.name} is damaged: {error}", hint="restore an older save") from error
