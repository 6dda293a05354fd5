"""Read and write faiss's index files without faiss: ``Flat`` and ``IVF…,Flat`` with L2 distance.

faiss trusts the sizes in a file. This reader first compares every size with the bytes in the file, so a hostile file
gives an error and never a crash. Source of the format: faiss ``impl/index_write.cpp``.
"""

import json
import struct
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import UnsafeFileError, WeightsError, printable
from ..system.documents import parsed
from ..system.files import replace_atomically

_LARGEST_BYTES = 4 << 30  # 1.4 million features of 768 values; RVC reduces them above 200,000
_MOST_PROBES = 1 << 20
_LARGEST_VALUE = 1e6  # an encoder's features are below 100
_HEADER = struct.Struct("<iqqqBi")  # width, vectors, two unused numbers, trained, metric
_L2, _UNUSED = 1, 1 << 20
_OURS = b"rvc_core "  # starts the note after our index; faiss stops reading before it
_LARGEST_NOTE_BYTES = 4096
_NOTED = ("name", "version", "content_name", "content_identity")
_HINT = "use the file whose name begins with added_IVF, or rebuild the index: rvc index NAME"


@dataclass(frozen=True)
class IndexArrays:
    """Content of an index file.

    Attributes
    ----------
    vectors : ndarray (N, D), float32
        Sorted by list.
    numbers : ndarray (N,), int64
        Position of each vector in the order of adding.
    centres : ndarray (L, D), float32
        Centres of the lists; empty for a flat index.
    sizes : ndarray (L,), int64
        Vectors in each list.
    probes : int
        Lists that a search visits.
    note : dict of str to str
        Our record of its origin, see `retrieval.FeatureIndex`; empty in files of other programs.
    """

    vectors: np.ndarray
    numbers: np.ndarray
    centres: np.ndarray
    sizes: np.ndarray
    probes: int = 1
    note: dict[str, str] = field(default_factory=dict)

    @classmethod
    def flat(cls, vectors: np.ndarray) -> "IndexArrays":
        """A flat index: vectors without lists."""
        return cls(vectors, np.arange(len(vectors)), np.empty((0, vectors.shape[1]), np.float32), np.empty(0, np.int64))

    def in_lists(self, rows: np.ndarray) -> list[np.ndarray]:
        """Rows (N, …) in the order of the vectors, list by list."""
        return np.split(rows, np.cumsum(self.sizes)[:-1])


def load_arrays(path: Path) -> IndexArrays:
    """Read an index file of any program.

    Raises
    ------
    WeightsError
        When it is missing, damaged, empty, or not an L2 index of features.
    UnsafeFileError
        When it is larger than 4 GiB.
    """
    if not path.is_file():
        raise WeightsError(f"the index {path} does not exist", hint="build it, or convert without an index")
    if path.stat().st_size > _LARGEST_BYTES:
        raise UnsafeFileError(
            f"the index {path.name} has {path.stat().st_size >> 20} MiB, above the limit of {_LARGEST_BYTES >> 20}",
            hint=_HINT,
        )
    try:
        content = np.memmap(path, np.uint8, "r") if path.stat().st_size else np.empty(0, np.uint8)
        return replace(parse(content), note=read_note(path))
    except OSError as error:
        raise WeightsError(f"cannot read {path}: {error.strerror}", hint="check its permissions") from error
    except ValueError as error:
        raise WeightsError(f"the index {path.name} cannot be used: {error}", hint=_HINT) from error


def parse(content: np.ndarray) -> IndexArrays:
    """The arrays in the bytes of an index file.

    Raises
    ------
    ValueError
        With the reason, for the user.
    """
    reader = _Reader(content)
    kind = reader.word()
    if kind in ("IxF2", "IxFl"):
        arrays = IndexArrays.flat(_flat_vectors(reader))
    elif kind == "IwFl":
        arrays = _inverted(reader)
    else:
        raise ValueError(f"its type is {kind!r}; only faiss's Flat and IVF,Flat with L2 distance are supported")
    if not len(arrays.vectors):
        raise ValueError("it holds no features")
    if not all(
        -_LARGEST_VALUE < part.min() <= part.max() < _LARGEST_VALUE
        for part in (arrays.vectors, arrays.centres)
        if part.size
    ):
        raise ValueError(f"some of its features are not finite or exceed {_LARGEST_VALUE:g}")
    return arrays


def read_note(path: Path) -> dict[str, str]:
    """Read only our note at the end of an index; empty in files of other programs."""
    with path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - _LARGEST_NOTE_BYTES))
        _, _, note = file.read().rpartition(_OURS)
    try:
        found = parsed(note, dict[str, Any])
    except ValueError:
        return {}
    return {key: printable(str(found[key]))[:200] for key in _NOTED if key in found}


def save_arrays(path: Path, arrays: IndexArrays) -> None:
    """Write a file atomically that faiss reads, and so RVC WebUI and Applio.

    Raises
    ------
    ResourceError
        When the disk is full.
    """
    vectors = np.ascontiguousarray(arrays.vectors, "<f4")
    centres = np.ascontiguousarray(arrays.centres, "<f4")
    with replace_atomically(path) as temporary, temporary.open("wb") as file:
        if not len(centres):
            order = np.argsort(arrays.numbers, kind="stable")
            file.write(_flat_bytes(vectors[order]))
        else:
            file.write(b"IwFl" + _header_bytes(vectors) + struct.pack("<QQ", len(centres), arrays.probes))
            file.write(_flat_bytes(centres) + struct.pack("<BQ", 0, 0))  # 0: no map from id to position
            file.write(b"ilar" + struct.pack("<QQ", len(centres), 4 * vectors.shape[1]))
            file.write(b"full" + struct.pack("<Q", len(centres)) + arrays.sizes.astype("<u8").tobytes())
            for parts in zip(arrays.in_lists(vectors), arrays.in_lists(arrays.numbers.astype("<i8")), strict=True):
                file.writelines(part.tobytes() for part in parts)
        if arrays.note:
            file.write(_OURS + json.dumps(arrays.note).encode())  # ASCII: a byte per character


def _flat_bytes(vectors: np.ndarray) -> bytes:
    return b"IxF2" + _header_bytes(vectors) + struct.pack("<Q", vectors.size) + vectors.tobytes()


def _header_bytes(vectors: np.ndarray) -> bytes:
    return _HEADER.pack(vectors.shape[1], len(vectors), _UNUSED, _UNUSED, 1, _L2)


class _Reader:
    """Reads the bytes of a file part by part; a truncated part is an error."""

    def __init__(self, content: np.ndarray) -> None:
        self._content, self._place = content, 0

    def bytes(self, count: int) -> bytes:
        return self.array(np.dtype(np.uint8), count).tobytes()

    def word(self) -> str:
        return self.bytes(4).decode("ascii", "replace")

    def count(self) -> int:
        return int(self.array(np.dtype("<u8"), 1)[0])

    def array(self, dtype: np.dtype, count: int) -> np.ndarray:
        size = count * dtype.itemsize
        if count < 0 or size > len(self._content) - self._place:
            raise ValueError("it is truncated or not a faiss index")
        part = np.frombuffer(self._content, dtype, count, self._place) if count else np.empty(0, dtype)
        self._place += size
        return part

    def header(self) -> tuple[int, int]:
        width, vectors, _, _, _, metric = _HEADER.unpack(self.bytes(_HEADER.size))
        if metric != _L2:
            raise ValueError("its metric is not L2 distance")
        if width <= 0 or vectors < 0:
            raise ValueError("its sizes are damaged")
        return width, vectors


def _flat_vectors(reader: _Reader) -> np.ndarray:
    width, vectors = reader.header()
    if reader.count() != width * vectors:
        raise ValueError("its sizes contradict each other")
    return reader.array(np.dtype("<f4"), width * vectors).reshape(vectors, width).astype(np.float32)


def _inverted(reader: _Reader) -> IndexArrays:
    width, vectors = reader.header()
    lists, probes = reader.count(), reader.count()
    if reader.word() not in ("IxF2", "IxFl"):
        raise ValueError("its coarse quantizer is not an L2 flat index")
    centres = _flat_vectors(reader)
    table = reader.bytes(1)[0]  # map from id to position: 0 none, 1 an array, 2 pairs
    reader.array(np.dtype("<i8"), reader.count())
    if table == 2:
        reader.array(np.dtype("<i8"), 2 * reader.count())
    if centres.shape != (lists, width) or not 0 < probes < _MOST_PROBES or table > 2:
        raise ValueError("its sizes contradict each other")
    sizes = _list_sizes(reader, lists, width)
    if int(sizes.sum()) != vectors:
        raise ValueError("its lists do not add up to its number of vectors")
    parts = [
        (reader.array(np.dtype("<f4"), size * width).reshape(size, width), reader.array(np.dtype("<i8"), size))
        for size in sizes.tolist()
    ]
    return IndexArrays(
        np.concatenate([part for part, _ in parts], dtype=np.float32) if parts else centres,
        np.concatenate([numbers for _, numbers in parts], dtype=np.int64) if parts else sizes,
        centres,
        sizes,
        min(probes, lists),
    )


def _list_sizes(reader: _Reader, lists: int, width: int) -> np.ndarray:
    """Vectors in each list, stored in full or as pairs of list and size."""
    if reader.word() != "ilar" or (reader.count(), reader.count()) != (lists, 4 * width):
        raise ValueError("its lists do not hold float32 features")
    kind, written = reader.word(), reader.array(np.dtype("<u8"), reader.count())
    if written.size and written.max() > _LARGEST_BYTES:
        raise ValueError("its sizes are damaged")
    sizes = np.zeros(lists, np.int64)
    if kind == "full" and len(written) == lists:
        sizes[:] = written
    elif kind == "sprs" and not len(written) % 2 and (written[::2] < lists).all():
        sizes[written[::2].astype(np.int64)] = written[1::2]
    else:
        raise ValueError("its sizes contradict each other")
    return sizes
