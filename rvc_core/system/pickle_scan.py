"""What a pickle would do if Python loaded it: its calls and the sizes of its tensors. Nothing is imported or called.

A pickle is a program for a small stack machine. Python's own machine runs it here, but every function and class is a
stand-in that writes down its call, and every block of numbers is a stand-in that writes down its size.
Sources: ``pickle._Unpickler``, Python's unpickler in Python; ``torch.serialization`` and ``torch._utils``.
"""

import functools
import io
import math
import mmap
import pickle
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import IO, Any, NamedTuple

from ..errors import printable

_ITEM_BYTES = {"torch.storage.UntypedStorage": 1} | {
    f"torch.{kind}Storage": size
    for size, kinds in {
        1: "Byte Char Bool",
        2: "Half BFloat16 Short",
        4: "Float Int",
        8: "Double Long ComplexFloat",
        16: "ComplexDouble",
    }.items()
    for kind in kinds.split()
}
_Python: Any = pickle._Unpickler  # type: ignore[attr-defined]
_REBUILD_TENSOR = ("torch._utils._rebuild_tensor_v2", "torch._utils._rebuild_tensor")
_PLAIN = {"collections.OrderedDict", "torch._utils._rebuild_parameter", "torch.Size", *_REBUILD_TENSOR, *_ITEM_BYTES}
_EFFECTS = {  # what an attacker can do who gets one function of these modules called
    "can run any program": "os posix nt subprocess pty",
    "can run any Python code": "builtins importlib runpy code codeop types marshal pickle _pickle dill "
    "cloudpickle joblib operator functools pydoc timeit bdb pdb profile cProfile imp "
    "torch.load torch.jit torch.hub torch.serialization.load",
    "can reach the network": "socket urllib http requests httpx aiohttp ftplib smtplib webbrowser asyncio ssl",
    "can read and write files": "shutil pathlib io _io tempfile glob fileinput codecs zipfile tarfile",
    "can run native code": "ctypes _ctypes cffi",
}
_OLD_NAMES = {"__builtin__": "builtins", "commands": "subprocess"}  # as protocols 0 to 2 spell them
_LARGEST_BYTES = 1_000_000  # of one pickle; a G_ checkpoint of v1 48k has 0.24 MB. The rest is not read
_MOST_DIMENSIONS = 8
_MOST_TEXT = 120
_MOST_NAMES = 20  # foreign names and calls that are kept


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
        Why the last pickle cannot be read to its end; empty if it can.
    storages_bytes : dict
        Claimed size of each block of numbers, by its key.
    tensors_bytes : int
        Sum over all tensors, each counted as if it were copied.
    pickles : int
        Number of pickles read.
    result : Any
        The last pickle's value if it is an int or str, else None.
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
        r"""Why they are unsafe, as the end of a sentence that begins with the file's name; empty if they are safe.

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
        """Read one pickle to its end or to the first error. What it calls before an error counts: Python would call it.

        Parameters
        ----------
        stream : binary file or memory map
            Left behind the pickle's last byte.
        """
        self.pickles += 1
        start, whole = stream.tell(), _Whole(stream.read(_LARGEST_BYTES))
        try:
            value = _Unpickler(whole, self).load()
            self.result = value if isinstance(value, int | str) else None
        except (pickle.UnpicklingError, ValueError, LookupError, TypeError, AttributeError) as error:
            self.damage = _cut(str(error)) if isinstance(error, _Refused) else "it cannot be read to its end"
        stream.seek(start + whole.tell())

    def named(self, text: str) -> Callable[..., Any]:
        """Note a function or class; return its stand-in."""
        text = _cut(text)
        if text not in _PLAIN and text not in self.foreign and len(self.foreign) < _MOST_NAMES:
            self.foreign.append(text)
        return _Name(text, self)

    def called(self, text: str, arguments: tuple[Any, ...]) -> Any:
        """Note a call; return what stands for its result."""
        if text in _REBUILD_TENSOR:
            return self._tensor(*arguments[:4])
        if text == "collections.OrderedDict":
            if arguments:  # pairs in a list
                raise _Refused("an ordered dictionary that torch did not write")
            return _Ordered()
        if text in _PLAIN:
            return None
        call = _cut(f"{text}({', '.join(map(_text, arguments))})")
        if call not in self.calls and len(self.calls) < _MOST_NAMES:
            self.calls.append(call)
        return _Name(call, self)

    def storage(self, persistent: Any) -> "_Storage":
        """Note a block of numbers outside the pickle: ``('storage', type, key, device, numbers)``."""
        if not isinstance(persistent, tuple) or len(persistent) < 5 or persistent[0] != "storage":
            raise _Refused("a reference to something that is no storage")
        _, kind, key, _, numbers = persistent[:5]
        if not isinstance(key, str) or not _is_size(numbers) or _text(kind) not in _ITEM_BYTES:
            raise _Refused(f"a storage of {_text(kind)} and {_text(numbers)} numbers")
        storage = _Storage(numbers, _ITEM_BYTES[_text(kind)])
        size_bytes = storage.numbers * storage.item_bytes
        if self.storages_bytes.setdefault(key, size_bytes) != size_bytes:
            raise _Refused("one storage has two sizes")
        return storage

    def _tensor(self, storage: Any, offset: Any, shape: Any, strides: Any) -> None:
        if not (
            isinstance(storage, _Storage)
            and isinstance(shape, tuple)
            and isinstance(strides, tuple)
            and len(shape) == len(strides) <= _MOST_DIMENSIONS
            and all(map(_is_size, (offset, *shape, *strides)))
        ):
            raise _Refused("a tensor without a shape")
        last = offset + sum((size - 1) * stride for size, stride in zip(shape, strides, strict=True))
        count = math.prod(shape)
        if count and last >= storage.numbers or count > storage.numbers:
            raise _Refused(f"a tensor of {_text(shape)} numbers in a storage of {storage.numbers}")
        self.tensors_bytes += count * storage.item_bytes


class _Refused(ValueError):
    """What no torch file holds, in our words; those of Python's machine tell a user nothing."""


class _Name:
    """Stands for a function or class, or for the result of a call to one."""

    def __init__(self, text: str, scan: PickleScan) -> None:
        self.text, self._scan = text, scan

    def __call__(self, *arguments: Any) -> Any:
        return self._scan.called(self.text, arguments)

    def __setstate__(self, state: Any) -> None:
        """Ignore it: what has a state is foreign, and noted."""


class _Storage(NamedTuple):
    numbers: int
    item_bytes: int


class _Ordered(dict[Any, Any]):
    """Stands for torch's table of weights."""

    def __setstate__(self, state: Any) -> None:
        if not isinstance(state, dict) or set(state) - {"_metadata"}:  # could replace its methods
            raise _Refused("an object with attributes of its own")


class _Tuple(tuple[Any, ...]):
    def __hash__(self) -> int:  # hashing tuples of tuples of tuples may never end
        raise _Refused("a dictionary or set with tuples for keys")


class _Whole(io.BytesIO):
    def read(self, size: int | None = -1) -> bytes:
        if len(data := super().read(size)) < (size or 0):
            raise _Refused("it ends too early")
        return data


class _Unpickler(_Python):
    """Python's machine, which no longer imports, builds or calls anything."""

    def __init__(self, stream: _Whole, scan: PickleScan) -> None:
        super().__init__(stream)
        self._scan, self.persistent_load = scan, scan.storage

    def find_class(self, module: Any, name: Any) -> Any:
        if not (isinstance(module, str) and isinstance(name, str)):
            return self._scan.named("a function whose name is computed")
        return self._scan.named(f"{_OLD_NAMES.get(module, module)}.{name}")

    def get_extension(self, code: int) -> None:
        self.append(self._scan.named(f"copyreg's extension {code}"))

    def load_stack_global(self) -> None:
        name, module = self.stack.pop(), self.stack.pop()
        self.append(self.find_class(module, name))

    def load_frame(self) -> None:
        self.read(8)  # its length, which Python's faster machine does not hold it to

    dispatch = _Python.dispatch | {
        pickle.STACK_GLOBAL[0]: load_stack_global,
        pickle.NEWOBJ[0]: _Python.load_reduce,
        pickle.FRAME[0]: load_frame,
        pickle.BYTEARRAY8[0]: _Python.load_binbytes8,  # a bytearray's memory is taken before its bytes are there
    }


def _as_tuple(load: Callable[[Any], None], machine: _Unpickler) -> None:
    load(machine)
    machine.stack[-1] = _Tuple(machine.stack[-1])


for [_code] in (pickle.TUPLE, pickle.TUPLE1, pickle.TUPLE2, pickle.TUPLE3):
    _Unpickler.dispatch[_code] = functools.partial(_as_tuple, _Unpickler.dispatch[_code])


def _is_size(value: Any) -> bool:
    return isinstance(value, int) and 0 <= value < 1 << 48


def _text(value: Any) -> str:
    """A stand-in or a value as Python would write it, of bounded length."""
    if isinstance(value, _Name):
        return value.text
    if isinstance(value, tuple):
        return f"({', '.join('…' if isinstance(part, tuple) else _text(part) for part in value[:4])})"
    if isinstance(value, str):
        return repr(value[:60])
    return str(value) if isinstance(value, int) and abs(value) < 1 << 64 else "…"


def _cut(text: str) -> str:
    return printable(text) if len(text) <= _MOST_TEXT else f"{printable(text[:_MOST_TEXT])}…"
