"""A save: a whole experiment in a folder on storage that can be slow, full, or vanish at any time.

File names contain a hash of the content, such as ``G_1200.5e1c7f3a09bd.pth``, so files never change. Each save ends
with a ``saved-e<epoch>-s<step>.json`` that lists its files. The previous save stays until the next one begins, because
Drive uploads in the background.
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

_CHUNK_BYTES = 8 << 20  # large blocks, because every access to remote storage is slow
_TRIES = 3
_DATA, _RECORD = "clips.pack", "record.pack"  # tars; Kaggle does not unpack this suffix
_KEYS = {"name", "time", "step", "epoch", "files", "checkpoint", "data_key", "settings"}
_OURS = re.compile(r".+\.[0-9a-f]{12}(\.\w+)?|saved-e\d+-s\d+\.json")
_PREPARED = re.compile(r"\d.*|heldout|mute|stamps")  # folders that training reads but never writes


@dataclass(frozen=True)
class Save:
    """One save of an experiment.

    Attributes
    ----------
    folder : Path
    manifest : str
        Name of its JSON file; empty if `folder` is an experiment folder.
    content : dict
        Content of the JSON file.
    place : str
        Name of the storage, to display.
    """

    folder: Path
    manifest: str
    content: dict[str, Any]
    place: str

    @classmethod
    def of_experiment(cls, layout: Layout, place: str) -> "Save | None":
        """Treat an experiment folder as a save of its newest checkpoint; None if it has no checkpoint."""
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
        """Name of the experiment."""
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
        """Time of the save, in seconds since 1970."""
        return self.content["time"]

    @property
    def settings(self) -> dict[str, Any]:
        """Settings of the background training that made it; empty for other trainings."""
        return self.content.get("settings", {})

    @property
    def rows(self) -> list[dict[str, Any]]:
        """Its files: ``as``, ``sha256`` and ``bytes``."""
        return [*self.content.get("files", {}).values()]

    @property
    def complete(self) -> bool:
        """Whether all files exist with the right size; `restore_save` also checks their hashes."""
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
    """All saves in a folder, complete or not, newest first; damaged manifests are skipped."""
    found = []
    for path in folder.glob("saved-e*-s*.json"):
        with contextlib.suppress(FileNotFoundError, RVCError):
            content = read_json(path, "")
            if isinstance(content, dict) and content.keys() >= _KEYS:
                found.append(Save(folder, path.name, content, place))
    return sorted(found, key=lambda one: -one.time)


@contextlib.contextmanager
def storage_errors(place: str) -> Iterator[None]:
    """Turn errors of the file system into a StorageError that names the problem and its remedy."""
    try:
        yield
    except (ResourceError, OSError) as error:
        full = ("is full", "free space there and empty its trash")
        what, hint = {
            errno.ENOSPC: full,
            errno.EDQUOT: full,
            errno.EROFS: ("is read-only", "mount it for writing"),
            errno.EACCES: ("is not writable for you", "choose a folder that you can write to"),
            errno.ENOENT: ("is not there", "mount it, or create the folder"),
            errno.ENOTCONN: ("is not there", "mount it again"),
        }.get(
            getattr(error, "errno", errno.ENOSPC),
            (f"does not work: {getattr(error, 'strerror', None) or error}", "mount it again"),
        )
        raise StorageError(f"{place} {what}", hint=hint) from error


# -- writing -------------------------------------------------------------------------------------------------------
def write_save(layout: Layout, folder: Path, place: str) -> Save:
    """Save an experiment into `folder`: newest checkpoint, best voices, record, clips. Skip existing files.

    Raises
    ------
    StageOrderError
        Before the first checkpoint.
    CheckpointError
        When the newest checkpoint on this machine is damaged.
    StorageError
        When the storage is full, refuses or vanishes. Its previous complete save stays.
    """
    with storage_errors(place):
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
        if damaged := [name for name, digest in entry["sha256"].items() if rows[name]["sha256"] != digest]:
            raise CheckpointError(
                f"{damaged[0]} is damaged on this machine",
                hint=f"run rvc train {layout.name}: it resumes from the previous checkpoint",
            )
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
        with storage_errors(place):
            _prune([save, newest] if newest else [save, *before])
            needed = sum(row["bytes"] for row in rows.values() if not (folder / row["as"]).exists())
            room = shutil.disk_usage(folder)
            if room.total and needed > room.free:  # 0: unknown
                raise StorageError(
                    f"{place} is full: {needed / 1e6:.0f} MB needed, {room.free / 1e6:.0f} MB free",
                    hint="free space there and empty its trash",
                )
            for name, file in files.items():
                _put(folder, file, rows[name])
            write_json(folder / save.manifest, save.content)
    return save


def _opened(layout: Layout, stack: contextlib.ExitStack) -> tuple[dict[str, Any], dict[str, BinaryIO]]:
    """Open the newest checkpoint and its voices and indexes: open files stay readable if training removes them."""
    for _ in range(_TRIES):
        if not (entries := checkpoint_rows(layout)):
            break
        paths = [*(layout.root / name for name in entries[-1]["sha256"]), *voices_to_save(layout), *layout.indexes()]
        with contextlib.suppress(FileNotFoundError):  # training has just replaced this checkpoint
            return entries[-1], {path.name: stack.enter_context(path.open("rb")) for path in paths}
    raise StageOrderError(f"{layout.name!r} has no checkpoint yet", hint=f"run: rvc train {layout.name}")


def _record(layout: Layout) -> list[Path]:
    """The small files that training writes. One archive of them is faster on slow storage."""
    single = (layout.experiment, layout.config, layout.metrics, layout.pinned, layout.stamp("index"))
    boards = [path for folder in (layout.root, layout.eval_board) for path in sorted(folder.glob("events.out.tf*"))]
    return [*boards, *(path for path in single if path.exists())]


def _prepared(layout: Layout) -> list[Path]:
    """All files of the stages before training."""
    inside = [
        path
        for folder in layout.root.iterdir()
        if folder.is_dir() and _PREPARED.fullmatch(folder.name)
        for path in folder.rglob("*")
        if path.is_file() and path != layout.stamp("index")
    ]
    return sorted([*inside, *(path for path in (layout.filelist, layout.manifest) if path.exists())])


def _data_key(layout: Layout) -> str:
    """Changes with clips or features. The file list is left out, because it changes when the folder moves."""
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
    """Name in the save, hash and size of a file."""
    file.seek(0)
    digest = hashlib.file_digest(file, "sha256").hexdigest()  # type: ignore[arg-type]
    return {"as": f"{Path(name).stem}.{digest[:12]}{Path(name).suffix}", "sha256": digest, "bytes": file.tell()}


def _put(folder: Path, source: BinaryIO, row: dict[str, Any]) -> None:
    """Write a file under a temporary name, verify it, and rename it. An existing file has the same content."""
    target = folder / row["as"]
    if target.is_file() and target.stat().st_size == row["bytes"]:
        return
    if not folder.is_dir():  # unmounted: do not create it on the local disk
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(folder))
    with replace_atomically(target) as temporary:
        with temporary.open("wb") as file:
            _copy(source, file)
        if sha256_of(temporary) != row["sha256"]:
            raise OSError(errno.EIO, "the written file reads back differently", str(target))


def _copy(source: BinaryIO, target: BinaryIO) -> None:
    source.seek(0)
    shutil.copyfileobj(source, target, _CHUNK_BYTES)


def _prune(kept: list[Save]) -> None:
    """Remove our files except those of these saves. Empty them first, because Drive's trash takes space."""
    names = {name for save in kept for name in (save.manifest, *(row["as"] for row in save.rows))}
    for path in kept[0].folder.iterdir():
        if _OURS.fullmatch(path.name) and path.name not in names:
            os.truncate(path, 0)
            path.unlink()


# -- reading -------------------------------------------------------------------------------------------------------
def restore_save(save: Save, layout: Layout) -> None:
    """Copy a save to this machine and verify it, then move an existing experiment aside.

    Raises
    ------
    StorageError
        When a file is missing or damaged.
    ResourceError
        When this machine's disk is full.
    """
    if not save.manifest:
        with tempfile.TemporaryDirectory() as scratch:
            return restore_save(write_save(Layout(save.folder, save.name), Path(scratch), save.place), layout)
    ensure_room(layout.root, 2 * sum(row["bytes"] for row in save.rows))
    with folder_atomically(layout.root) as staging:
        for name, row in save.content["files"].items():
            target = staging / name
            if Path(name).name != name:
                raise StorageError(
                    f"{save.manifest} names a file outside its folder: {name}", hint="do not use this save"
                )
            with storage_errors(save.place):
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
    """Unpack a tar; refuse files that would leave the folder.

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
