"""What a pickle would do when it is loaded, read from its opcodes; nothing is imported, called or built.

A pickle is a program for a small stack machine. Here that machine runs on stand-ins: strings and whole numbers are
kept, names of functions stay names, a call becomes its own text. What remains is the list of calls to anything but
torch's tensors, and how large the tensors claim to be.
Source of the opcodes: Python's ``pickletools``; of torch's part in them: ``torch.serialization`` and ``torch._utils``.
"""

import math
import mmap
import pickle
import pickletools
from dataclasses import dataclass, field
from typing import IO, Any

from ..errors import printable

_ITEM_BYTES = {
    f"torch.{kind}Storage": size
    for kind, size in {
        "Half": 2,
        "BFloat16": 2,
        "Float": 4,
        "Double": 8,
        "ComplexFloat": 8,
        "ComplexDouble": 16,
        "Byte": 1,
        "Char": 1,
        "Bool": 1,
        "Short": 2,
        "Int": 4,
        "Long": 8,
    }.items()
} | {"torch.storage.UntypedStorage": 1}
_REBUILD_TENSOR = ("torch._utils._rebuild_tensor_v2", "torch._utils._rebuild_tensor")
_PLAIN = {"collections.OrderedDict", "torch._utils._rebuild_parameter", "torch.Size", *_REBUILD_TENSOR, *_ITEM_BYTES}
_EFFECTS = {  # what somebody gains who gets one function of these modules called
    "can run any program": "os posix nt subprocess pty",
    "can run any Python code": "builtins importlib runpy code codeop types marshal pickle _pickle dill "
    "cloudpickle joblib operator functools pydoc timeit bdb pdb profile cProfile imp "
    "torch.load torch.jit torch.hub torch.serialization.load",
    "can reach the network": "socket urllib http requests httpx aiohttp ftplib smtplib webbrowser asyncio ssl",
    "can read and write files": "shutil pathlib io _io tempfile glob fileinput codecs zipfile tarfile",
    "can run native code": "ctypes _ctypes cffi",
}
_OLD_NAMES = {"__builtin__": "builtins", "commands": "subprocess"}  # as protocols 0 to 2 spell them
_RETURNS_FIRST = {"APPEND", "APPENDS", "SETITEM", "SETITEMS", "ADDITEMS", "BUILD", "MEMOIZE"}  # what they leave behind
_MOST_OPCODES = 5_000_000  # a checkpoint with both optimizer moments has a hundred thousand
_MOST_DIMENSIONS = 8
_MOST_TEXT = 120
_MARK = object()


@dataclass(frozen=True)
class _Name:
    """A function or class, or the result of a call to one, as text."""

    text: str


@dataclass(frozen=True)
class _Storage:
    numbers: int
    item_bytes: int


@dataclass
class PickleScan:
    """What one or several pickles would do.

    Attributes
    ----------
    foreign : list of str
        Functions and classes that they name and that no tensor needs: ``posix.system``.
    calls : list of str
        Calls to them, with the start of their arguments: ``posix.system('true')``.
    damage : str
        Why they cannot be followed to their end; empty when they can.
    storages_bytes : dict
        Claimed size of each block of numbers, by its key.
    tensors_bytes : int
        Sum over all tensors, each as if it were copied.
    pickles : int
        How many were read.
    result : Any
        A whole number or text that the last pickle consists of, else None.
    """

    foreign: list[str] = field(default_factory=list)
    calls: list[str] = field(default_factory=list)
    damage: str = ""
    storages_bytes: dict[str, int] = field(default_factory=dict)
    tensors_bytes: int = 0
    pickles: int = 0
    result: Any = None

    @property
    def verdict(self) -> str:
        r"""What makes it unsafe, as the end of a sentence that begins with the file's name; empty if nothing does.

        Examples
        --------
        >>> import io
        >>> scan = PickleScan()
        >>> scan.read(io.BytesIO(b"cos\nsystem\n(S'rm -r *'\ntR."))
        >>> scan.verdict
        "would call os.system('rm -r *'), which can run any program"
        """
        whole = [call for call in self.calls if not any(call != other and call in other for other in self.calls)]
        what = f"would call {', then '.join(whole[:2])}" if whole else f"asks for {', '.join(self.foreign[:2])}"
        effect = next(
            (
                effect
                for name in self.foreign
                for effect, modules in _EFFECTS.items()
                if any(f"{name}.".startswith(f"{module}.") for module in modules.split())
            ),
            "no weights need",
        )
        return f"{what}, which {effect}" if whole or self.foreign else ""

    def read(self, stream: IO[bytes] | mmap.mmap) -> None:
        """Follow one pickle to its end or to the first fault; what was found before a fault counts, for it would run.

        Parameters
        ----------
        stream : binary file or memory map
            Left behind the pickle's last byte.
        """
        self.pickles += 1
        try:
            self._read(stream)
        except (ValueError, LookupError, TypeError, OverflowError, RecursionError, MemoryError) as error:
            self.damage = _cut(str(error), _MOST_TEXT)

    def _read(self, stream: Any) -> None:
        stack: list[Any] = []
        memo: dict[Any, Any] = {}
        for number, (opcode, argument, _) in enumerate(pickletools.genops(stream)):
            if number == _MOST_OPCODES:
                raise ValueError("it has no end")
            name = opcode.name
            if name == "PROTO" and (argument or 0) > pickle.HIGHEST_PROTOCOL:
                raise ValueError(f"its protocol {argument} does not exist")
            if name == "POP" and stack and stack[-1] is _MARK:
                stack.pop()
                continue
            taken = _take(stack, opcode.stack_before)
            if name.endswith("PUT"):
                memo[argument] = stack[-1]
            elif name == "MEMOIZE":
                memo[len(memo)] = taken[0]
            _check_hashing(name, taken)
            if opcode.stack_after:
                stack += self._made(name, argument, taken, memo)
            elif name == "STOP":
                self.result = taken[0] if isinstance(taken[0], int | str) else None

    def _made(self, name: str, argument: Any, taken: list[Any], memo: dict[Any, Any]) -> list[Any]:
        """What an opcode leaves on the stack."""
        if name.endswith("GET"):
            return [memo[argument]]
        if name in ("DUP", "MARK"):
            return [taken[0], taken[0]] if name == "DUP" else [_MARK]
        if name in ("GLOBAL", "INST", "STACK_GLOBAL"):
            parts = taken if name == "STACK_GLOBAL" else argument.split(" ", 1)
            known = all(isinstance(part, str) for part in parts)
            module, *attribute = parts if known else ["a function whose name is computed"]
            function = self._named(".".join([_OLD_NAMES.get(module, module), *attribute]))
            return [self._call(function, tuple(taken))] if name == "INST" else [function]
        if name.startswith("EXT"):
            return [self._named(f"copyreg's extension {argument}")]
        if name == "REDUCE":
            return [self._call(taken[0], taken[1])]
        if name in ("OBJ", "NEWOBJ", "NEWOBJ_EX"):
            return [self._call(taken[0], tuple(taken[1:]) if name == "OBJ" else taken[1])]
        if name.endswith("PERSID"):
            return [self._storage(taken[0] if taken else argument)]
        if name.endswith("DICT"):
            return [{key for key in taken[::2] if isinstance(key, str)}]
        if "TUPLE" in name:
            return [tuple(taken)]
        if name in _RETURNS_FIRST:
            return [taken[0]]
        return [argument if isinstance(argument, int | str) else None]

    def _named(self, text: str) -> _Name:
        text = _cut(text, _MOST_TEXT)
        if text not in _PLAIN and text not in self.foreign:
            self.foreign.append(text)
        return _Name(text)

    def _call(self, function: Any, arguments: Any) -> Any:
        text = _text(function)
        if text in _PLAIN and not isinstance(arguments, tuple):
            raise ValueError("a call without arguments")
        if text in _REBUILD_TENSOR:
            self._tensor(*arguments[:4])
        elif text == "collections.OrderedDict":
            if arguments:  # pairs in a list, whose keys would escape _check_keys
                raise ValueError("an ordered dictionary that torch did not write")
        elif text not in _PLAIN:
            call = f"{text}({', '.join(map(_text, arguments)) if isinstance(arguments, tuple) else '…'})"
            call = _cut(call, _MOST_TEXT)
            if len(self.calls) < 20 and call not in self.calls:
                self.calls.append(call)
            return _Name(call)
        return None

    def _storage(self, persistent: Any) -> _Storage:
        """A block of numbers that lies outside the pickle: ``('storage', type, key, device, numbers)``."""
        if not isinstance(persistent, tuple) or len(persistent) < 5 or persistent[0] != "storage":
            raise ValueError("a reference to something that is no storage")
        _, kind, key, _, numbers = persistent[:5]
        if not isinstance(key, str) or not _is_size(numbers) or _text(kind) not in _ITEM_BYTES:
            raise ValueError(f"a storage of {_text(kind)} and {_text(numbers)} numbers")
        storage = _Storage(numbers, _ITEM_BYTES[_text(kind)])
        size_bytes = storage.numbers * storage.item_bytes
        if self.storages_bytes.setdefault(key, size_bytes) != size_bytes:
            raise ValueError("one storage has two sizes")
        return storage

    def _tensor(self, storage: Any, offset: Any, shape: Any, strides: Any) -> None:
        if not (
            isinstance(storage, _Storage)
            and isinstance(shape, tuple)
            and isinstance(strides, tuple)
            and len(shape) == len(strides) <= _MOST_DIMENSIONS
            and all(map(_is_size, (offset, *shape, *strides)))
        ):
            raise ValueError("a tensor without a shape")
        last = offset + sum((size - 1) * stride for size, stride in zip(shape, strides, strict=True))
        count = math.prod(shape)
        if count and last >= storage.numbers or count > storage.numbers:
            raise ValueError(f"a tensor of {_text(shape)} numbers in a storage of {storage.numbers}")
        self.tensors_bytes += count * storage.item_bytes


def _take(stack: list[Any], before: list[Any]) -> list[Any]:
    """Remove what an opcode reads from the stack, its mark left out."""
    if pickletools.markobject in before:
        at = max(place for place, value in enumerate(stack) if value is _MARK)
        first = at - before.index(pickletools.markobject)
        taken = stack[first:at] + stack[at + 1 :]
    else:
        first = len(stack) - len(before)
        taken = stack[first:] if first >= 0 else []
    if first < 0 or _MARK in taken:
        raise ValueError("its stack runs empty")
    del stack[first:]
    return taken


def _check_hashing(name: str, taken: list[Any]) -> None:
    """Follow dictionaries and sets, each by the set of its text keys, and refuse what makes them dangerous to use."""
    hashed = {
        "SETITEM": taken[1::2],
        "SETITEMS": taken[1::2],
        "DICT": taken[::2],
        "ADDITEMS": taken[1:],
        "FROZENSET": taken,
    }.get(name, ())
    if any(isinstance(key, tuple) for key in hashed):  # hashing tuples of tuples of tuples may never end
        raise ValueError("a dictionary or set with tuples for keys")
    if name.startswith("SETITEM") and isinstance(taken[0], set):
        taken[0].update(key for key in hashed if isinstance(key, str))
    if name == "BUILD" and (not isinstance(taken[1], set) or taken[1] - {"_metadata"}):  # could replace its methods
        raise ValueError("an object with attributes of its own")


def _is_size(value: Any) -> bool:
    return isinstance(value, int) and 0 <= value < 1 << 48


def _text(value: Any) -> str:
    """A stand-in in the words of a program, of bounded length whatever it refers to."""
    if isinstance(value, _Name):
        return value.text
    if isinstance(value, tuple):
        return f"({', '.join('…' if isinstance(part, tuple) else _text(part) for part in value[:4])})"
    if isinstance(value, str):
        return repr(value[:60])
    return str(value) if isinstance(value, int) and abs(value) < 1 << 64 else "…"


def _cut(text: str, most: int) -> str:
    return printable(text) if len(text) <= most else f"{printable(text[:most])}…"
