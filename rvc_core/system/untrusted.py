"""Files from other people, checked before they are read: they can neither run code nor fill memory or disk.

A torch file is first scanned for calls and for sizes that contradict the file, then loaded with ``weights_only``. An
archive is unpacked completely or not at all, and only into its folder.
"""

import contextlib
import lzma
import mmap
import pickle
import shutil
import stat
import tokenize
import zipfile
import zlib
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

from ..errors import DatasetError, StorageError, UnsafeFileError, WeightsError
from .files import ensure_room, folder_atomically, is_hidden
from .inside import open_inside
from .pickle_scan import PickleScan

if TYPE_CHECKING:  # a notebook unpacks recordings and does not need torch
    import numpy as np
    import torch

AGAIN = "fetch or copy the file again"
_ELSEWHERE = "do not open this file with another program; get the voice from somebody you trust"
_NO_VOICE = "choose the small .pth file that training saves as a voice"
_UNZIPS = (zipfile.BadZipFile, zlib.error, lzma.LZMAError, EOFError, RuntimeError, ValueError)  # zipfile, on damage
_LOADS = (OSError, RuntimeError, AssertionError, ValueError, TypeError, AttributeError)  # torch, after the scan
_NO_HEADER = (
    ValueError,
    EOFError,
    TypeError,
    OverflowError,
    tokenize.TokenError,
    zipfile.BadZipFile,
)  # numpy, on damage
_TORCH_MAGIC = 0x1950A86A20F9469CFC6C  # first value of torch files older than the archive form
_SHARED = 4  # times the file's size: tensors may share numbers, but not more often
_LARGEST_RATIO = 100  # of an archive's content to its size; recordings and weights hardly compress
_MOST_ENTRIES = 8000  # a G_ checkpoint of v1 48k has 2482: four tensors for each of 619 weights
_SLACK_BYTES = 16 << 20  # small archives of text may compress better
_STARTS = (  # what a file really is, by its first bytes
    (b"RIFF", "a WAV recording"),
    (b"fLaC", "a FLAC recording"),
    (b"ID3", "an MP3 recording"),
    (b"OggS", "an Ogg recording"),
    (b"\x1f\x8b", "a gzip archive"),
    (b"7z\xbc\xaf", "a 7z archive"),
    (b"Rar!", "a RAR archive"),
    (b"IwFl", "an index"),
    (b"IxF", "an index"),
    (b"<", "a web page: the download failed"),
    (b"version https://git-lfs", "a pointer to a file (Git LFS), not the file"),
)


def load_torch(path: Path) -> Any:
    """Load a torch file with ``weights_only``, after scanning it. Nothing in it can run.

    Returns
    -------
    Any
        Usually a dict; tensors are on the CPU.

    Raises
    ------
    WeightsError
        If it is missing, damaged or not a torch file; the message says what it is instead.
    UnsafeFileError
        If it calls a function, or claims more memory than its size allows; the message says which.
    """
    import torch

    check_torch(path)
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:  # rare: the scan allows no more than torch does
        raise UnsafeFileError(f"torch's weights_only reader refuses {path.name}", hint=_ELSEWHERE) from error
    except _LOADS as error:
        raise WeightsError(f"{path.name} is neither a voice nor a checkpoint, or is damaged", hint=AGAIN) from error
    return content


def check_torch(path: Path) -> None:
    """Scan a torch file without loading it.

    Raises
    ------
    WeightsError, UnsafeFileError
        As `load_torch`.
    """
    start = _start_of(path)
    try:
        if start.startswith(b"PK\x03\x04"):
            with _opened(path) as archive:
                _check_torch_archive(path, archive)
        else:
            _check_torch_stream(path)
    except OSError as error:
        raise WeightsError(f"{path.name} is neither a voice nor a checkpoint, or is damaged", hint=AGAIN) from error


def checked_weights(table: Any, file_name: str) -> "dict[str, torch.Tensor]":
    """Return the table of weights, if each is a dense tensor of finite floating-point numbers.

    Raises
    ------
    WeightsError
        If one is not; the message names the first one.
    """
    import torch

    if not isinstance(table, dict) or not all(
        isinstance(key, str)
        and isinstance(value, torch.Tensor)
        and value.layout == torch.strided
        and not value.is_quantized
        for key, value in table.items()
    ):
        raise WeightsError(f"{file_name} is damaged: its weights are not a table of tensors", hint=AGAIN)
    if odd := [key for key, value in table.items() if not value.is_floating_point() or value.element_size() == 1]:
        raise WeightsError(
            f"{file_name} is damaged: {odd[0][:80]} holds {table[odd[0]].dtype}, which no weight is", hint=AGAIN
        )
    if broken := not_finite(table):
        raise WeightsError(
            f"{file_name}: {len(broken)} tensors are not finite, first {broken[0][:80]}",
            hint="this voice gives noise or silence: use one that was saved earlier in its training",
        )
    return dict(table)


def not_finite(weights: "Mapping[str, torch.Tensor]") -> list[str]:
    """Names of the tensors that hold NaN or infinity."""
    return [name for name, value in weights.items() if not value.isfinite().all()]


def load_array(path: Path) -> "np.ndarray":
    """The numbers in a ``.npy`` file, mapped: all that it claims is there.

    Raises
    ------
    DatasetError
        When it is missing, damaged, or holds anything else.
    """
    import numpy as np

    try:
        open_inside(path).close()
        array = np.load(path, mmap_mode="r", allow_pickle=False)
        if array.dtype.kind in "fiu" and array.size:
            return array
        reason = f"it holds {array.size} values of {array.dtype}"
    except (OSError, StorageError, AttributeError, *_NO_HEADER) as error:
        reason = getattr(error, "strerror", None) or str(error)
    raise DatasetError(f"{path.name} is damaged: {reason}", hint="run: rvc extract NAME")


def unzip_safely(
    archive: Path, folder: Path, suffixes: Collection[str], *, most_bytes: int = 8 << 30, is_output: bool = False
) -> list[Path]:
    """Unpack all files of an archive that end in one of `suffixes` (lower case, with dots), or none.

    Hidden files and the folder ``__MACOSX`` are skipped. `most_bytes` limits the size of all files together.

    Returns
    -------
    list of Path
        The files, sorted. Empty if the archive has no such file; then `folder` is not created.

    Raises
    ------
    WeightsError
        If it is damaged, not an archive, or has a password.
    UnsafeFileError
        If a name leads out of the folder, an entry is a link or device, or the content is far too large.
    ResourceError
        If the disk has no room.
    """
    if folder.exists() and any(folder.iterdir()):
        raise StorageError(f"{folder} is not empty", hint="name a new folder")
    names = [name for name in list_zip(archive) if PurePosixPath(name).suffix.lower() in suffixes]
    if not names:
        return []
    try:
        with folder_atomically(folder) as temporary, _opened(archive) as opened:
            size_bytes = sum(opened.getinfo(name).file_size for name in names)
            if size_bytes > most_bytes:
                raise UnsafeFileError(
                    f"{archive.name} unpacks to {size_bytes / 1e9:.1f} GB",
                    hint=f"the limit is {most_bytes / 1e9:.1f} GB: unpack it yourself",
                )
            ensure_room(folder, size_bytes, is_output=is_output)
            for name in names:
                target = temporary / name
                target.parent.mkdir(parents=True, exist_ok=True)
                with opened.open(name) as source, target.open("xb") as written:
                    shutil.copyfileobj(source, written, 1 << 20)
    except (FileExistsError, NotADirectoryError) as error:
        raise WeightsError(f"{archive.name} is damaged: it holds a file where a folder belongs", hint=AGAIN) from error
    return sorted(folder / name for name in names)


def list_zip(archive: Path) -> list[str]:
    """List the files in an archive, after checking all names.

    Raises
    ------
    WeightsError, UnsafeFileError
        As `unzip_safely`.
    """
    if not _start_of(archive).startswith(b"PK"):
        raise WeightsError(f"{archive.name} is not a zip archive, or is truncated", hint=AGAIN)
    with _opened(archive) as opened:
        for entry in opened.infolist():
            _check_entry(archive, entry)
        names = [entry.filename for entry in opened.infolist() if not entry.is_dir()]
    return [name for name in names if not is_hidden(PurePosixPath(name))]


def _check_entry(archive: Path, entry: zipfile.ZipInfo) -> None:
    """Refuse an entry that is not a plain file inside the folder."""
    name = entry.filename
    parts = PurePosixPath(name).parts
    if not parts or name.startswith("/") or ".." in parts or "\\" in name or ":" in name or len(name.encode()) > 240:
        raise UnsafeFileError(f"{archive.name} would write outside of its folder, to {name[:80]!r}", hint=_ELSEWHERE)
    kind = stat.S_IFMT(entry.external_attr >> 16)
    if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
        raise UnsafeFileError(f"{archive.name} holds a link or device, {name[:80]!r}", hint=_ELSEWHERE)
    if entry.flag_bits & 1:
        raise WeightsError(
            f"{archive.name} is protected by a password", hint="unpack it yourself and use its .pth file"
        )


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[zipfile.ZipFile]:
    """Open an archive after checking its table of contents: not too large, no name twice."""
    try:
        with zipfile.ZipFile(path) as archive:
            entries = archive.infolist()
            names = {str(PurePosixPath(entry.filename)).casefold() for entry in entries}  # torch ignores capitals
            total, size = sum(entry.file_size for entry in entries), path.stat().st_size
            if len(entries) > _MOST_ENTRIES:
                raise UnsafeFileError(f"{path.name} holds {len(entries)} files", hint=_NO_VOICE)
            if len(names) < len(entries):
                raise UnsafeFileError(f"{path.name} holds two files of one name", hint=_ELSEWHERE)
            if total > _LARGEST_RATIO * size + _SLACK_BYTES:
                raise UnsafeFileError(
                    f"{path.name} has {size / 1e6:.1f} MB and unpacks to {total / 1e6:.0f} MB", hint=_ELSEWHERE
                )
            yield archive
    except _UNZIPS as error:
        raise WeightsError(f"{path.name} is damaged or truncated", hint=AGAIN) from error


def _check_torch_archive(path: Path, archive: zipfile.ZipFile) -> None:
    sizes = {entry.filename: entry.file_size for entry in archive.infolist()}
    pickles = [name for name in sizes if name.casefold().endswith(".pkl")]
    if any(name.endswith("/constants.pkl") for name in pickles):
        raise UnsafeFileError(f"{path.name} is a compiled program (TorchScript), not weights", hint=_NO_VOICE)
    if len(pickles) != 1 or not pickles[0].endswith("/data.pkl"):
        raise WeightsError(
            f"{path.name} is an archive of other files, not a voice",
            hint="rename it to .zip and import it, or unpack it",
        )
    if sum(sizes.values()) > path.stat().st_size:  # torch never compresses
        raise UnsafeFileError(
            f"{path.name} claims {sum(sizes.values()) / 1e6:.1f} MB in {path.stat().st_size / 1e6:.1f} MB",
            hint=_ELSEWHERE,
        )
    scan = PickleScan()
    with archive.open(pickles[0]) as stream:
        scan.read(stream)
    _judge(path, scan, sum(sizes.values()))
    folder = pickles[0].removesuffix("data.pkl")
    for key, claimed in scan.storages_bytes.items():
        there = sizes.get(f"{folder}data/{key}", 0)
        if claimed != there:
            raise WeightsError(f"{path.name} is damaged: it claims {claimed} bytes for a block of {there}", hint=AGAIN)
    if archive.testzip() is not None:
        raise WeightsError(f"{path.name} is damaged: its checksums do not fit", hint=AGAIN)


def _check_torch_stream(path: Path) -> None:
    """Scan a file that is not an archive: torch's old form (five pickles, then the numbers) or any other pickle."""
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as stream:
        scan = PickleScan()
        scan.read(stream)
        is_torch = scan.result == _TORCH_MAGIC
        while is_torch and scan.pickles < 5 and not scan.damage:
            scan.read(stream)
        _judge(path, scan, len(stream))
    if not is_torch:
        raise WeightsError(f"{path.name} holds Python data, not a voice", hint=_NO_VOICE)
    if sum(scan.storages_bytes.values()) > path.stat().st_size:
        raise WeightsError(
            f"{path.name} claims {sum(scan.storages_bytes.values()) / 1e6:.1f} MB and has "
            f"{path.stat().st_size / 1e6:.1f} MB: it is truncated",
            hint=AGAIN,
        )


def _judge(path: Path, scan: PickleScan, size_bytes: int) -> None:
    if scan.verdict:
        raise UnsafeFileError(f"{path.name} {scan.verdict}; it was not opened", hint=_ELSEWHERE)
    if scan.damage:
        with path.open("rb") as file:
            is_text = not any(byte < 9 or 13 < byte < 32 for byte in file.read(512))
        if is_text:
            raise WeightsError(f"{path.name} is a text file", hint=_NO_VOICE)
        raise WeightsError(f"{path.name} is neither a voice nor a checkpoint, or is damaged: {scan.damage}", hint=AGAIN)
    if scan.tensors_bytes > _SHARED * size_bytes:
        raise UnsafeFileError(
            f"{path.name} has {size_bytes / 1e6:.1f} MB and would take {scan.tensors_bytes / 1e6:.0f} MB of memory",
            hint=_ELSEWHERE,
        )


def _start_of(path: Path) -> bytes:
    """Read the first bytes of a file that may be a torch file or an archive.

    Raises
    ------
    WeightsError
        If it is missing, empty, not a file, or a known file of another kind.
    """
    if not path.is_file():
        what = "is a folder, not a file" if path.is_dir() else "is not a file" if path.exists() else ""
        raise WeightsError(f"{path} {what}" if what else f"no such file: {path}", hint="check the path")
    try:
        with path.open("rb") as file:
            start = file.read(512)
    except PermissionError as error:
        raise WeightsError(f"{path} cannot be read: permission denied", hint="check its permissions") from error
    if not start:
        raise WeightsError(f"{path.name} is empty", hint=AGAIN)
    kind = next((words for first, words in _STARTS if start.lstrip().startswith(first)), None)
    if start[8:9] == b"{" and int.from_bytes(start[:8], "little") < path.stat().st_size:
        kind = "a safetensors file: rename it to .safetensors"
    if kind:
        raise WeightsError(f"{path.name} is {kind}", hint=_NO_VOICE)
    return start
