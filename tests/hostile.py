"""Malicious and broken files, made on the spot. Each would touch a canary file if anything in it ran.

`FILES` maps a name to a `Hostile`: how to make it in a folder, the error it must give, and a word of the message.
"""

import functools
import io
import json
import os
import pickle
import struct
import warnings
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors.torch
import torch

from rvc_core.errors import CheckpointError, MismatchError, RVCError, UnsafeFileError, WeightsError
from rvc_core.nn.synthesizer import Synthesizer
from rvc_core.workspace.voice_file import VoiceFile, VoiceInfo, save_voice
from tiny import TINY

CANARY = "RVC_TEST_CANARY"  # environment variable with the path that a payload touches
COMMAND = f'touch "${CANARY}"'


@dataclass(frozen=True)
class Hostile:
    """One bad file: its name, how to write it, and what must be said about it."""

    file_name: str
    write: Callable[[Path], object]
    error: type[RVCError]
    says: str


FILES: dict[str, Hostile] = {}


def _add(
    name: str, write: Callable[[Path], object], error: type[RVCError], says: str, file_name: str = "v.pth"
) -> None:
    assert name not in FILES
    FILES[name] = Hostile(file_name, write, error, says)


# -- what good files are made of -----------------------------------------------------------------------------------
@functools.cache
def _good_file() -> bytes:
    torch.manual_seed(3)
    path = Path(os.environ["RVC_HOME"]) / "good.pth"
    weights = Synthesizer(TINY, with_posterior=False).state_dict()
    save_voice(path, VoiceFile(TINY, weights, VoiceInfo("alice", 60, 120)))
    return path.read_bytes()


def content() -> dict[str, Any]:
    """What a good voice file holds."""
    return torch.load(io.BytesIO(_good_file()), weights_only=True)


def packed(value: Any, **options: Any) -> bytes:
    """A torch file of `value`."""
    buffer = io.BytesIO()
    torch.save(value, buffer, **options)
    return buffer.getvalue()


def rezipped(path: Path, good: bytes, change: Callable[[dict[str, bytes]], object], **options: Any) -> None:
    """Write a torch archive with other entries."""
    with zipfile.ZipFile(io.BytesIO(good)) as archive:
        entries = {name: archive.read(name) for name in archive.namelist()}
    change(entries)
    with zipfile.ZipFile(path, "w", **options) as archive:
        for name, data in entries.items():
            archive.writestr(name, data)


def _weights(change: Callable[[dict[str, torch.Tensor]], object]) -> Callable[[Path], None]:
    def write(path: Path) -> None:
        voice = content()
        change(voice["weight"])
        torch.save(voice, path)

    return write


def _described(**change: Any) -> Callable[[Path], None]:
    return lambda path: torch.save(content() | change, path)


def _raw(data: bytes) -> Callable[[Path], object]:
    return lambda path: path.write_bytes(data)


# -- pickles that call something -----------------------------------------------------------------------------------
class Calls:
    """Pickles to a call."""

    def __init__(self, function: Callable[..., object], *arguments: object) -> None:
        self.call = function, arguments

    def __reduce__(self) -> tuple[object, ...]:
        return self.call


class _Stateful:
    """Pickles to an object whose state is set afterwards."""

    def __setstate__(self, state: object) -> None:
        os.system(COMMAND)

    def __getstate__(self) -> dict[str, int]:
        return {"a": 1}


def _payloads() -> dict[str, tuple[object, str]]:
    import builtins
    import importlib
    import runpy
    import shutil
    import subprocess
    import webbrowser

    touch = f"import os; os.system({COMMAND!r})"
    return {
        "os.system": (Calls(os.system, COMMAND), r"would call posix\.system\('touch .*any program"),
        "subprocess": (Calls(subprocess.Popen, COMMAND), r"subprocess\.Popen\(.*any program"),
        "exec": (Calls(exec, touch), r"builtins\.exec\('import os.*any Python code"),
        "eval": (Calls(eval, f"__import__('os').system({COMMAND!r})"), r"builtins\.eval"),
        "importlib": (Calls(importlib.import_module, "os"), r"importlib\.import_module\('os'\)"),
        "runpy": (Calls(runpy.run_module, "this"), r"runpy\.run_module"),
        "open": (Calls(open, os.path.devnull, "w"), r"io\.open|_io\.open"),
        "rmtree": (Calls(shutil.rmtree, "/nonexistent"), r"shutil\.rmtree.*files"),
        "browser": (Calls(webbrowser.open, "about:blank"), r"webbrowser\.open\('about:blank'\).*network"),
        "nested reductions": (
            Calls(getattr, Calls(builtins.__import__, "os"), "system"),
            r"builtins\.getattr\(builtins\.__import__\('os'\), 'system'\)",
        ),
        "a state": (_Stateful(), r"_Stateful"),
        "a steering name": (Calls(os.system, "a\x1b[2J\n"), r"system\('a\\x1b\[2J\\n'\)"),
    }


for _name, (_payload, _says) in _payloads().items():
    _add(f"a voice with {_name}", _described(extra=_payload), UnsafeFileError, _says)
for _protocol in range(6):
    _add(
        f"a raw pickle of protocol {_protocol}",
        _raw(pickle.dumps({"weight": Calls(os.system, COMMAND)}, _protocol)),
        UnsafeFileError,
        r"posix\.system\('touch",
    )
_add(
    "a torch file of the old form",
    _raw(packed({"weight": Calls(os.system, COMMAND)}, _use_new_zipfile_serialization=False)),
    UnsafeFileError,
    "posix.system",
)
_add(
    "a checkpoint",
    _raw(packed({"model": {}, "optimizer": Calls(os.system, COMMAND)})),
    UnsafeFileError,
    "posix.system",
    "G_10.pth",
)
_add("INST", _raw(b"(S'id'\nios\nsystem\n."), UnsafeFileError, r"os\.system\('id'\)")
_add("OBJ", _raw(b"(cos\nsystem\nS'id'\no."), UnsafeFileError, r"os\.system\('id'\)")
_add("EXT", _raw(b"\x80\x02\x82\x07)R."), UnsafeFileError, "extension 7")
_add(
    "a name from the memo",
    _raw(b"\x80\x04\x8c\x02os\x94\x8c\x06system\x940h\x00h\x01\x93\x8c\x02id\x85R."),
    UnsafeFileError,
    r"os\.system\('id'\)",
)
_add(
    "a frame of the wrong length",
    _raw(b"\x80\x04\x95\x01\0\0\0\0\0\0\0cos\nsystem\n(S'id'\ntR."),
    UnsafeFileError,
    r"os\.system\('id'\)",
)
_add("a computed name", _raw(b"\x80\x04\x8c\x02os\x8c\x03sysK\x01\x86\x93)R."), UnsafeFileError, "name is computed")
_add("a call before the end of the world", _raw(b"cos\nsystem\n(S'id'\ntR\xff\xff"), UnsafeFileError, r"os\.system")
_add("a class that is only named", _raw(packed({"weight": _Stateful})), UnsafeFileError, "asks for hostile._Stateful")
_add(
    "two pickles",
    lambda path: rezipped(
        path,
        packed(content()),
        lambda entries: entries.update({"archive/extra.pkl": pickle.dumps(Calls(os.system, COMMAND))}),
    ),
    WeightsError,
    "archive of other files",
)
_add(
    "one name twice but for capitals",
    lambda path: rezipped(
        path,
        packed(content()),
        lambda entries: entries.update({"archive/DATA.pkl": pickle.dumps(Calls(os.system, COMMAND))}),
    ),
    UnsafeFileError,
    "two files of one name",
)
_add(
    "methods replaced",
    _raw(b"\x80\x02ccollections\nOrderedDict\n)R}X\x04\x00\x00\x00keysK\x01sb."),
    WeightsError,
    "attributes of its own",
)


def _torchscript(path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.save(torch.jit.script(torch.nn.Linear(1, 1)), path)


_add("TorchScript", _torchscript, UnsafeFileError, "compiled program")


# -- sizes that would exhaust the machine --------------------------------------------------------------------------
def _tensor_pickle(
    size: int,
    shape: tuple[int, ...],
    strides: tuple[int, ...],
    *,
    offset: int = 0,
    copies: int = 1,
    kind: bytes = b"FloatStorage",
) -> bytes:
    """The pickle of a list of tensors over one storage that claims `size` numbers, written opcode by opcode."""

    def numbers(values: tuple[int, ...]) -> bytes:
        return b"(" + b"".join(b"\x8a\x08" + struct.pack("<q", value) for value in values) + b"t"

    storage = (
        b"(X\x07\x00\x00\x00storagectorch\n"
        + kind
        + b"\nX\x01\x00\x00\x000X\x03\x00\x00\x00cpu\x8a\x08"
        + struct.pack("<q", size)
        + b"tQ"
    )
    tensor = (
        b"ctorch._utils\n_rebuild_tensor_v2\n("
        + storage
        + b"\x8a\x08"
        + struct.pack("<q", offset)
        + numbers(shape)
        + numbers(strides)
        + b"\x89ccollections\nOrderedDict\n)RtR"
    )
    return b"\x80\x02](" + tensor * copies + b"e."


def _forged(pickled: bytes, numbers: int = 4, method: int = zipfile.ZIP_STORED) -> Callable[[Path], None]:
    def write(path: Path) -> None:
        with zipfile.ZipFile(path, "w", method) as archive:
            for name, data in {
                "data.pkl": pickled,
                "byteorder": b"little",
                "data/0": bytes(4 * numbers),
                "version": b"3\n",
            }.items():
                archive.writestr(f"archive/{name}", data)

    return write


_add(
    "a storage larger than the file",
    _forged(_tensor_pickle(10**12, (10**12,), (1,))),
    UnsafeFileError,
    "4000000 MB of memory",
)
_add("a storage read beyond its end", _forged(_tensor_pickle(64, (64,), (1,))), WeightsError, "claims 256 bytes")
_add("an absurd shape", _forged(_tensor_pickle(4, (10**9, 10**9), (10**9, 1))), WeightsError, "a tensor of")
_add("strides that repeat one number", _forged(_tensor_pickle(4, (10**6, 10**6), (0, 0))), WeightsError, "storage of 4")
_add("an offset beyond the end", _forged(_tensor_pickle(4, (2,), (1,), offset=3)), WeightsError, "in a storage of 4")
_add("a negative stride", _forged(_tensor_pickle(4, (2,), (-1,))), WeightsError, "without a shape")
_add(
    "many views of one storage",
    _forged(_tensor_pickle(10**5, (10**5,), (1,), copies=500), 10**5),
    UnsafeFileError,
    "of memory",
)
_add(
    "a tensor of another type than its bytes",
    _forged(_tensor_pickle(4, (4,), (1,), kind=b"HalfStorage")),
    WeightsError,
    "claims 8 bytes",
)
_add("a storage of an unknown type", _forged(_tensor_pickle(4, (4,), (1,), kind=b"Size")), WeightsError, "torch.Size")
_add(
    "zeros that were compressed",
    _forged(_tensor_pickle(10**7, (10**7,), (1,)), 10**7, zipfile.ZIP_DEFLATED),
    UnsafeFileError,
    "40 MB|40.0 MB",
)
_add(
    "an old torch file that claims more than it has",
    lambda path: path.write_bytes(packed({"weight": torch.zeros(5000)}, _use_new_zipfile_serialization=False)[:9000]),
    WeightsError,
    "truncated",
)
_add(
    "a bytearray larger than the machine",
    _raw(b"\x80\x05\x96" + struct.pack("<Q", 1 << 45) + b"ten bytes."),
    WeightsError,
    "ends too early",
)
_add("a pickle without end", _raw(b"]" * 20_000_000), WeightsError, "is a text file")
_add(
    "a million names",
    _raw(b"".join(b"ca\nf%d\n0" % n for n in range(10**6))),
    UnsafeFileError,
    r"asks for a\.f0, a\.f1",
)
_add(
    "keys whose hash has no end", _raw(b"\x80\x02}K\x01" + b"2\x86" * 60 + b"K\x01s."), WeightsError, "tuples for keys"
)


def _bomb(depth: int = 60) -> list[Any]:
    """A list that fills a few hundred bytes, and whose text fills no disk."""
    bomb: list[Any] = ["ha"] * 4
    for _ in range(depth):
        bomb = [bomb] * 4
    return bomb


_add("a description without end", _described(model_name=_bomb()), WeightsError, "a list instead of text")
_add(
    "an architecture without end",
    _described(config=[513, 32, 16, 16, 32, 2, 1, 3, 0, "1", _bomb(), *range(7)]),
    MismatchError,
    "is not a size",
)
_add(
    "a thousand layers",
    _described(
        config=[513, 32, 16, 16, 32, 2, 5000, 3, 0, "1", [3], [[1, 3, 5]], [10, 4, 4], 32, [20, 8, 8], 4, 8, 16000]
    ),
    MismatchError,
    "contradict",
)


# -- weights that are no voice -------------------------------------------------------------------------------------
def _first_entry(value: complex) -> Callable[[dict[str, torch.Tensor]], None]:
    def change(weights: dict[str, torch.Tensor]) -> None:
        weights["emb_g.weight"][0, 0] = value

    return change


def _as(dtype: torch.dtype) -> Callable[[dict[str, torch.Tensor]], None]:
    return lambda weights: weights.update({"emb_g.weight": weights["emb_g.weight"].to(dtype)})


_add("not a number", _weights(_first_entry(float("nan"))), WeightsError, r"not finite, first emb_g\.weight")
_add("infinity", _weights(_first_entry(float("inf"))), WeightsError, "not finite")
_add(
    "a checkpoint that diverged",
    lambda path: torch.save({"model": {"enc_q.pre.weight": torch.tensor([float("nan")])}, "optimizer": {}}, path),
    WeightsError,
    "not finite",
    "G_10.pth",
)
_add("whole numbers", _weights(_as(torch.int16)), WeightsError, "holds torch.int16")
_add("complex numbers", _weights(_as(torch.complex64)), WeightsError, "holds torch.complex64")
_add("truth values", _weights(_as(torch.bool)), WeightsError, "holds torch.bool")
_add(
    "sparse weights",
    _weights(lambda weights: weights.update({"emb_g.weight": weights["emb_g.weight"].to_sparse()})),
    UnsafeFileError,
    "_rebuild_sparse_tensor",
)
_add(
    "a wrong shape",
    _weights(lambda weights: weights.update({"enc_p.proj.weight": torch.zeros(7, 7)})),
    MismatchError,
    "does not fit the architecture",
)
_add("a missing weight", _weights(lambda weights: weights.pop("enc_p.proj.bias")), MismatchError, "Missing key")
_add(
    "a weight too many",
    _weights(lambda weights: weights.update({"enc_p.odd\x1b[2J": torch.zeros(1)})),
    MismatchError,
    "Unexpected key",
)
_add("a version of other weights", _described(version="v2"), MismatchError, "take 8 features")
_add("f0 that is not there", _described(f0=0), MismatchError, "without f0")
_add("another vocoder", _described(vocoder="RefineGAN"), MismatchError, "vocoder RefineGAN")
_add(
    "a checkpoint of something else",
    lambda path: torch.save({"model": {"layer.weight": torch.ones(3)}}, path),
    CheckpointError,
    "is not an RVC checkpoint",
)
_add(
    "a checkpoint with odd shapes",
    lambda path: torch.save(
        {"model": {"enc_p.emb_phone.weight": torch.ones(3), "enc_q.pre.weight": torch.ones(3)}}, path
    ),
    MismatchError,
    "unsupported architecture",
)


# -- torn and renamed files ----------------------------------------------------------------------------------------
def _torn(tenth: int) -> Callable[[Path], None]:
    def write(path: Path) -> None:
        torch.save(content(), path)
        path.write_bytes(path.read_bytes()[: path.stat().st_size * tenth // 10])

    return write


def _flipped(path: Path) -> None:
    torch.save(content(), path)
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 0x55
    path.write_bytes(data)


for _tenth in range(10):
    _add(f"torn after {_tenth} tenths", _torn(_tenth), WeightsError, "truncated|is empty")
_add("a flipped bit", _flipped, WeightsError, "checksums do not fit|damaged")
_add("text", _raw(b"not a voice"), WeightsError, "v.pth is a text file$")
for _text in ("hello, world\n", "Olá: é uma nota.\n" * 99, "gone\n", "(a list)\r\n", "\ufeffsong: 3:20"):
    _add(f"the text {_text[:4]!r}", _raw(_text.encode()), WeightsError, "is a text file$")
_add(
    "noise",
    _raw(bytes(range(1, 200))),
    WeightsError,
    "damaged: it cannot be read to its end$",
)
_add("a web page", _raw(b"\n<!DOCTYPE html><html>"), WeightsError, "web page")
_add("a pointer", _raw(b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n"), WeightsError, "a pointer")
_add("a recording", _raw(b"RIFF\x24\0\0\0WAVEfmt "), WeightsError, "WAV recording")
_add("a RAR archive", _raw(b"Rar!\x1a\x07\x01\0"), WeightsError, "RAR archive")
_add("safetensors under another name", _raw(safetensors.torch.save({"a": torch.ones(2)})), WeightsError, "safetensors")
_add("a pickle of numbers", _raw(pickle.dumps([1, 2])), WeightsError, "Python data, not a voice")
_add("a table of something", lambda path: torch.save({"something": 1}, path), WeightsError, "not a voice")
_add("a link to nothing", lambda path: path.symlink_to("nowhere"), WeightsError, "no such file")
_add("a link to itself", lambda path: path.symlink_to(path.name), WeightsError, "no such file")
_add("a folder", lambda path: path.mkdir(), WeightsError, "is a folder")
_add("a pipe", lambda path: os.mkfifo(path), WeightsError, "is not a file")


# -- safetensors and indexes ---------------------------------------------------------------------------------------
def _header(header: dict[str, str] | None, value: float = 1.0) -> Callable[[Path], object]:
    return lambda path: safetensors.torch.save_file({"emb_g.weight": torch.full((2, 2), value)}, path, header)


for _name, _write, _error, _says in (
    ("without a description", _header(None), WeightsError, "does not describe its voice"),
    ("with a description that is no JSON", _header({"rvc_voice": "{"}), WeightsError, "not a safetensors file"),
    ("with a description that is no table", _header({"rvc_voice": "[1]"}), WeightsError, "does not describe its voice"),
    ("with a deep description", _header({"rvc_voice": "[" * 10**5}), WeightsError, "not a safetensors file"),
    ("not finite", _header({"rvc_voice": json.dumps({"config": []})}, float("nan")), WeightsError, "not finite"),
    ("with an absurd header", _raw(struct.pack("<Q", 1 << 60) + b"{}"), WeightsError, "not a safetensors file"),
    (
        "with an absurd shape",
        _raw(
            (lambda text: struct.pack("<Q", len(text)) + text)(
                b'{"a":{"dtype":"F32","shape":[4000000000,4000000000],"data_offsets":[0,4]}}'
            )
            + bytes(4)
        ),
        WeightsError,
        "not a safetensors file",
    ),
):
    _add(f"safetensors {_name}", _write, _error, _says, "v.safetensors")
_add("an index of text", _raw(b"not an index"), WeightsError, "cannot be used", "v.index")
_add("an index of nothing", _raw(b""), WeightsError, "v.index", "v.index")
_add(
    "an index with absurd sizes",
    _raw(b"IxF2" + struct.pack("<iqqqBiQ", 256, 1 << 40, 1, 1, 1, 1, 1 << 48)),
    WeightsError,
    "v.index",
    "v.index",
)


# -- archives that people share ------------------------------------------------------------------------------------
def _zipped(*entries: tuple[str | zipfile.ZipInfo, bytes], method: int = zipfile.ZIP_STORED) -> Callable[[Path], None]:
    def write(path: Path) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # two entries of one name are on purpose
            with zipfile.ZipFile(path, "w", method) as archive:
                for name, data in entries:
                    archive.writestr(name, data)

    return write


def _special(kind: int) -> zipfile.ZipInfo:
    entry = zipfile.ZipInfo("v.pth")
    entry.create_system, entry.external_attr = 3, (kind | 0o644) << 16
    return entry


def _locked(path: Path) -> None:
    _zipped(("v.pth", b"x"))(path)
    data = bytearray(path.read_bytes())
    for signature, offset in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        data[data.index(signature) + offset] |= 1
    path.write_bytes(data)


for _name, _write, _error, _says in (
    ("that leaves its folder", _zipped(("../v.pth", b"")), UnsafeFileError, "outside of its folder"),
    ("with an absolute name", _zipped(("/tmp/v.pth", b"")), UnsafeFileError, "outside of its folder"),
    ("with a drive", _zipped(("C:/v.pth", b"")), UnsafeFileError, "outside of its folder"),
    ("with backslashes", _zipped(("..\\..\\v.pth", b"")), UnsafeFileError, "outside of its folder"),
    ("with a long name", _zipped((f"{'v' * 300}.pth", b"")), UnsafeFileError, "outside of its folder"),
    ("with a link", _zipped((_special(0o120000), b"/etc/passwd")), UnsafeFileError, "link or device"),
    ("with a device", _zipped((_special(0o020000), b"")), UnsafeFileError, "link or device"),
    ("with a pipe", _zipped((_special(0o010000), b"")), UnsafeFileError, "link or device"),
    ("that is a bomb", _zipped(("v.pth", bytes(60 << 20)), method=zipfile.ZIP_DEFLATED), UnsafeFileError, "unpacks to"),
    ("with a password", _locked, WeightsError, "password"),
    ("with one name twice", _zipped(("v.pth", b"1"), ("./V.PTH", b"2")), UnsafeFileError, "two files of one name"),
    ("with too many files", _zipped(*((f"{number}", b"") for number in range(8001))), UnsafeFileError, "8001 files"),
    (
        "that is torn",
        lambda path: (_zipped(("v.pth", bytes(999)))(path), path.write_bytes(path.read_bytes()[:500])),
        WeightsError,
        "damaged or truncated",
    ),
    ("that is text", _raw(b"not a zip"), WeightsError, "not a zip archive"),
):
    _add(f"a zip {_name}", _write, _error, _says, "v.zip")
