"""A save: a whole experiment in a folder on storage that can be slow, full, or vanish at any time.

File names contain a hash of the content, such as ``G_1200.5e1c7f3a09bd.pth``, so files never change. Each save ends
with a ``saved-e<epoch>-s<step>.json`` that lists its files. The previous save stays until the next one begins, because
Drive uploads in the background. Other people may have put anything into the folder: what is read is checked first, and
what is not a file of a save is neither changed nor followed.
"""

import contextlib
import errno
import hashlib
import io
import logging
import os
import re
import shutil
import tarfile
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

import psutil
from typing_extensions import TypedDict

from ..errors import CheckpointError, StageOrderError, StorageError
from ..system.documents import read_or
from ..system.files import (
    ensure_room,
    folder_atomically,
    replace_atomically,
    sha256_of,
    signature,
    write_json,
)
from ..system.inside import entries_of, is_regular, open_inside
from ..workspace.layout import PREPARED, RECORD, Layout, typed
from ..workspace.retention import voices_to_save
from .listing import DATA, FULL, LIST, OLDER, RECORD_PACK, STORED, Row, Save, has, saves_in, storage_errors

_log = logging.getLogger(__name__)

_CHUNK_BYTES = 8 << 20  # large blocks, because every access to remote storage is slow
_TRIES = 3


class _Run(TypedDict):
    settings: dict[str, Any]


_PACKED = re.compile(f"{PREPARED.pattern}|{RECORD.pattern}")
_OURS = re.compile(rf"(?:\.part-(?P<pid>\d{{1,9}})-)?(?:{STORED}|{LIST})")
ARCHIVED = re.compile(rf"[\w-][\w.-]*/(?:{STORED}|{LIST})")  # in the archive of a Kaggle dataset


# -- writing -------------------------------------------------------------------------------------------------------
def write_save(layout: Layout, folder: Path, place: str) -> Save:
    """Save an experiment into `folder`: newest checkpoint, best voices, record, clips. Skip existing files.

    A folder with a save of another beginning, of other recordings or of a later step is first moved aside.

    Raises
    ------
    StageOrderError
        Before the first checkpoint.
    CheckpointError
        When the newest checkpoint on this machine is damaged.
    StorageError
        When the storage is full, refuses or vanishes. Its previous complete save stays.
    """
    with contextlib.ExitStack() as stack:
        save, files = _opened(layout, place, stack)
        save.folder = folder
        with storage_errors(place):
            newest = _previous(save, layout.slug)
        files[RECORD_PACK] = _packed(layout, RECORD, stack)
        if newest and newest.data_key == save.data_key:
            save.files[DATA] = newest.files[DATA]
        else:
            files[DATA] = _packed(layout, PREPARED, stack)
        save.files |= {name: _row(name, file) for name, file in files.items()}
        for name, digest in save.checkpoint["sha256"].items():
            if save.files[name]["sha256"] != digest:
                raise CheckpointError(
                    f"{name} is damaged on this machine",
                    hint=f"run rvc train {typed(layout.name)}: it resumes from the previous checkpoint",
                )
        with storage_errors(place):
            _prune([save, newest] if newest else [save, *saves_in(folder, place)])
            missing = [name for name in files if not has(folder, save.files[name])]
            needed, room = sum(save.files[name]["bytes"] for name in missing), shutil.disk_usage(folder)
            if room.total and needed > room.free:  # 0: unknown
                raise StorageError(
                    f"{place} is full: {needed / 1e6:.0f} MB needed, {room.free / 1e6:.0f} MB free", hint=FULL[1]
                )
            for name in missing:
                _put(files[name], folder / save.files[name]["as"], save.files[name]["sha256"])
            text = save.model_dump_json(indent=4, exclude={"folder", "place"}).encode()
            _put(io.BytesIO(text), folder / save.manifest, hashlib.sha256(text).hexdigest())
    return save


def _opened(layout: Layout, place: str, stack: contextlib.ExitStack) -> tuple[Save, dict[str, BinaryIO]]:
    """Open the newest checkpoint and its voices and indexes: open files stay readable if training removes them."""
    for _ in range(_TRIES):
        if not (save := Save.of_experiment(layout, place)):
            break
        save.time, save.data_key = time.time(), _data_key(layout)
        save.settings = read_or(layout.run, _Run, {"settings": {}})["settings"]
        checkpoint = (layout.root / name for name in save.checkpoint["sha256"])
        paths = [*checkpoint, *voices_to_save(layout), *layout.indexes()]
        with contextlib.suppress(FileNotFoundError):  # training has just replaced this checkpoint
            return save, {path.name: stack.enter_context(open_inside(path)) for path in paths}
    raise StageOrderError(f"{layout.name!r} has no checkpoint yet", hint=f"run: rvc train {typed(layout.name)}")


def _previous(save: Save, slug: str) -> Save | None:
    """The newest complete save in the folder; one that this experiment does not go on from is moved aside."""
    if save.folder.is_symlink():
        raise StorageError(f"{save.folder} is a link", hint="remove it: saves need a folder of their own")
    newest = next((one for one in saves_in(save.folder, save.place) if one.complete), None)
    if newest is None or not (
        (newest.name, newest.begun) != (save.name, save.begun)
        or newest.has_other_recordings(save.recordings)
        or newest.step > save.step
    ):
        return newest
    save.folder.rename(save.folder.with_name(f"{slug}.before-{time.time():.0f}"))
    save.folder.mkdir()
    return None


def _files(layout: Layout, names: re.Pattern[str]) -> Iterator[tuple[str, Path]]:
    """Regular files of an experiment by their name in it; what a link points to is not part of it."""
    for entry in entries_of(layout.root):
        if names.fullmatch(name := str(Path(entry.path).relative_to(layout.root))):
            if entry.is_file(follow_symlinks=False):
                yield name, Path(entry.path)
            else:
                _log.warning("%s is a link or a device, so it is not saved", entry.path)


def _data_key(layout: Layout) -> str:
    """Changes with clips or features. The file list is left out, because it changes when the folder moves."""
    return signature(
        sorted(
            (name, path.stat().st_size, sha256_of(path) if path.suffix == ".json" else "")
            for name, path in _files(layout, PREPARED)
            if path != layout.filelist
        )
    )


def _packed(layout: Layout, names: re.Pattern[str], stack: contextlib.ExitStack) -> BinaryIO:
    """Many small files in one, because each access to remote storage is slow."""
    pack = stack.enter_context(tempfile.TemporaryFile())
    files = sorted(_files(layout, names))
    ensure_room(Path(tempfile.gettempdir()), sum(path.stat().st_size for _, path in files))
    with tarfile.open(fileobj=pack, mode="w") as archive:
        for name, path in files:
            with open_inside(path, root=layout.root) as file:
                entry = tarfile.TarInfo(name)
                entry.size = os.fstat(file.fileno()).st_size
                archive.addfile(entry, file)
    return pack


def _row(name: str, file: BinaryIO) -> Row:
    file.seek(0)
    digest = hashlib.file_digest(file, "sha256").hexdigest()  # type: ignore[arg-type]
    return {"as": f"{Path(name).stem}.{digest[:12]}{Path(name).suffix}", "sha256": digest, "bytes": file.tell()}


def _put(source: BinaryIO, target: Path, digest: str) -> None:
    """Write a file under a temporary name, read it back and compare, then rename it."""
    target.parent.stat()  # unmounted: do not create it on the local disk
    if os.path.lexists(target):
        open_inside(target).close()  # a link or a folder of this name is not ours to replace
    with replace_atomically(target) as temporary:
        with open_inside(temporary, "xb") as file:
            source.seek(0)
            _copy(source, file)
        if sha256_of(temporary) != digest:
            raise OSError(errno.EBADMSG, "the written file reads back differently", str(target))


def _copy(source: BinaryIO, target: BinaryIO, most_bytes: int = 1 << 60) -> None:
    """Copy what is there, and no more than so many bytes."""
    while block := source.read(min(most_bytes, _CHUNK_BYTES)):
        target.write(block)
        most_bytes -= len(block)


def _prune(kept: list[Save]) -> None:
    """Remove our files except those of these saves. Empty them first, because Drive's trash takes space."""
    names = {name for save in kept for name in (save.manifest, *(row["as"] for row in save.files.values()))}
    for path in kept[0].folder.iterdir():
        match = _OURS.fullmatch(path.name)
        if not match or path.name in names or not is_regular(path):
            continue
        if match["pid"] and psutil.pid_exists(int(match["pid"])):  # another process is writing it
            continue
        if path.stat().st_nlink == 1:  # another name of the same file would become empty too
            os.truncate(path, 0)
        path.unlink()


# -- reading -------------------------------------------------------------------------------------------------------
def restore_save(save: Save, layout: Layout) -> None:
    """Copy a save to this machine and verify it, then move an existing experiment aside.

    Raises
    ------
    StorageError
        When a file is missing, damaged or not what a save holds.
    ResourceError
        When this machine's disk is full.
    """
    if not save.files:
        with tempfile.TemporaryDirectory() as scratch:
            return restore_save(write_save(Layout(save.folder, save.name), Path(scratch), save.place), layout)
    ensure_room(layout.root, 2 * sum(row["bytes"] for row in save.files.values()))
    with folder_atomically(layout.root) as staging:
        for name, row in save.files.items():
            target = staging / name
            with (
                storage_errors(save.place),
                open_inside(save.folder / row["as"]) as source,
                open_inside(target, "xb") as file,
            ):
                _copy(source, file, row["bytes"])
            if sha256_of(target) != row["sha256"]:
                raise StorageError(f"{row['as']} is damaged", hint=OLDER)
        for name in (DATA, RECORD_PACK):
            unpack(staging / name, staging, _PACKED)
            (staging / name).unlink()
        write_json(staging / layout.checkpoints.name, [save.checkpoint])
        if layout.root.exists():
            layout.root.rename(layout.root.with_name(f"{layout.slug}.before-{time.time():.0f}"))
    return None


def unpack(archive: Path, folder: Path, names: re.Pattern[str]) -> None:
    """Unpack a tar: regular files of these names, each once, together no more bytes than the archive has.

    Raises
    ------
    StorageError
        When it holds anything else, or is damaged.
    """
    left = archive.stat().st_size
    try:
        with tarfile.open(archive, "r:") as opened:
            for entry in opened:
                left -= entry.size
                is_file = entry.type in (tarfile.REGTYPE, tarfile.AREGTYPE)
                if not (is_file and names.fullmatch(entry.name) and 0 <= entry.size and left >= 0):
                    raise StorageError(f"{archive.name} holds {entry.name[:200]!r}, not a file of a save", hint=OLDER)
                target = folder / entry.name
                target.parent.mkdir(parents=True, exist_ok=True)
                source = opened.extractfile(entry)
                assert source is not None
                with open_inside(target, "xb") as file:
                    _copy(source, file, entry.size)  # type: ignore[arg-type]
    except (tarfile.TarError, OSError, ValueError, LookupError, RecursionError) as error:
        raise StorageError(f"{archive.name} is damaged: {error}", hint=OLDER) from error
