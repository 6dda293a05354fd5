"""A fake GPU for a CPU build of torch: shapes, number formats and devices of CUDA tensors, but no numbers.

Import this before torch. Inside ``with FakeGpu() as gpu:`` tensors can be on ``cuda:0`` and ``cuda:1``. An operation
that mixes devices raises an error, autocast has CUDA's lists, and every operation that a GPU would start is counted.
Numbers are never computed: whoever asks for one gets `answer`, and the wait for the device is noted with its place.

torch's CPU build has no device guard for CUDA, so a C++ compiler builds one (device_guard.cpp) once per torch version.
A CUDA build of torch on a machine without a GPU has the guard built in.
"""

import collections
import contextlib
import ctypes
import hashlib
import importlib.util
import json
import os
import subprocess
import sys
import tempfile
import time
import traceback
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType, TracebackType
from typing import Any, NamedTuple

HERE = Path(__file__).resolve().parent
PACKAGE = str(HERE.parents[1] / "rvc_core")
sys.path[:0] = [str(HERE.parents[1]), str(HERE.parent)]  # the package, and what all tests share


def _load_guard(torch_folder: Path) -> None:
    """Give a CPU build of torch the device guard and the hooks of CUDA."""
    if (torch_folder / "lib" / "libtorch_cuda.so").exists():
        return
    assert "torch" not in sys.modules, "import fake_gpu before torch, which looks for hooks once"
    source, version = HERE / "device_guard.cpp", torch_folder / "version.py"
    digest = hashlib.sha256(source.read_bytes() + version.read_bytes()).hexdigest()[:16]
    library = Path(tempfile.gettempdir(), f"rvc_device_guard_{digest}_{os.getuid()}.so")
    if not library.exists():
        built = library.with_suffix(f".{os.getpid()}")
        options = ["-O0", "-w", "-std=c++20", "-fPIC", "-shared", f"-I{torch_folder}/include", f"-L{torch_folder}/lib"]
        subprocess.run(["g++", *options, str(source), "-o", str(built), "-lc10", "-ltorch_cpu"], check=True)
        built.replace(library)
    for each in (torch_folder / "lib" / "libtorch_cpu.so", library):
        ctypes.CDLL(str(each), ctypes.RTLD_GLOBAL)


_SPEC = importlib.util.find_spec("torch")
assert _SPEC is not None and _SPEC.origin is not None
_load_guard(Path(_SPEC.origin).parent)

import numpy as np  # noqa: E402
import safetensors.torch  # noqa: E402
import torch  # noqa: E402
from torch._prims_common import suggest_memory_format  # noqa: E402
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode  # noqa: E402
from torch.optim import optimizer  # noqa: E402
from torch.utils import _foreach_utils  # noqa: E402
from torch.utils._python_dispatch import TorchDispatchMode, _disable_current_modes  # noqa: E402
from torch.utils._pytree import tree_map_only  # noqa: E402

GPU = torch.device("cuda:0")
_LOCKED: weakref.WeakSet[Any] = weakref.WeakSet()  # memory of the host from which copies do not block
_ALLOCATED_BYTES = 512  # torch's allocator rounds up to this
_WITHOUT_KERNEL = {
    "empty",
    "empty_like",
    "empty_strided",
    "new_empty",
    "new_empty_strided",
    "detach",
    "detach_",
    "alias",
}
_WITHOUT_KERNEL |= {"_unsafe_view", "lift_fresh", "set_", "resize_", "_reshape_alias", "is_same_size", "real", "imag"}
_WITHOUT_FAKE = {"_fused_adamw_"}  # no fake kernel for a learning rate that is a tensor; it returns nothing anyway
_COUNTING = {"nonzero", "masked_select", "unique", "_unique2"}  # the host has to know how large the result is
_PRODUCTS = {"convolution", "convolution_backward", "mm", "addmm", "bmm", "baddbmm"}


class Note(NamedTuple):
    """What happened, and the line of the project that made it happen."""

    what: str
    place: str


class FakeGpu(TorchDispatchMode):
    """See the module's text.

    Attributes
    ----------
    operations : Counter
        How often each operation was started on the device, without those that start nothing.
    products : Counter
        Number formats of convolutions and matrix products, and how many there were of each.
    casts : int
        Operations that only change a number format.
    waits : list of Note
        Where the host waits for the device: numbers that it asks for, results whose size depends on numbers.
    uploads : list of Note
        Copies from the host; ``blocking`` ones make it wait as well.
    ran_out : list of list of str
        The functions of the project in which memory ran out, each time.
    peak_bytes, held_bytes, limit_bytes : number
        Memory of the device at most, now, and above which it runs out.
    answer : float
        Every number that somebody asks for; numbers of an array are within a tenth of it.
    """

    def __init__(self) -> None:
        super().__init__()
        self.held_bytes = self.peak_bytes = 0
        self.limit_bytes, self.answer = float("inf"), 1.0
        self._sizes: weakref.WeakKeyDictionary[Any, int] = weakref.WeakKeyDictionary()
        self._patches = contextlib.ExitStack()
        self.reset()

    def reset(self) -> None:
        """Begin to count again; memory stays."""
        self.operations, self.products = collections.Counter[str](), collections.Counter[str]()
        self.casts, self.bytes_moved = 0, 0
        self.waits, self.uploads, self.ran_out = list[Note](), list[Note](), list[list[str]]()
        self.peak_bytes = self.held_bytes

    def __enter__(self) -> "FakeGpu":
        mode = type(
            "Mode", (FakeTensorMode,), {"avoid_device_init": True}
        )  # as `is_available` says that there is a GPU
        self._patches.enter_context(mode(allow_non_fake_inputs=True))
        for owner, name, value in _replacements(self):
            self._patches.callback(setattr, owner, name, getattr(owner, name))
            setattr(owner, name, value)
        for types in (_foreach_utils._foreach_supported_types, optimizer._foreach_supported_types):
            if FakeTensor not in types:  # otherwise weights would be moved one by one
                types.append(FakeTensor)
        super().__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        super().__exit__(kind, error, trace)
        self._patches.close()

    def wait(self, what: str) -> None:
        """Note that the host waits for the device."""
        self.waits.append(Note(what, place()))

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs, name = kwargs or {}, function.overloadpacket.__name__
        if torch.is_inference_mode_enabled() and function.namespace == "aten" and function._can_decompose():
            with self._inside():  # without autograd, what is made of other operations arrives in one piece
                return function.decompose(*args, **kwargs)
        if function.is_view:
            return function(*args, **kwargs)
        given = _tensors((args, kwargs))
        on_gpu = any(tensor.is_cuda for tensor in given)
        if name == "_local_scalar_dense":
            if on_gpu:
                self.wait("item")
            kind = args[0].dtype
            return True if kind is torch.bool else self.answer if kind.is_floating_point else 1
        if name in _COUNTING and on_gpu:
            self.wait(name)
        result = None if name in _WITHOUT_FAKE else function(*args, **kwargs)
        if name in ("convolution", "convolution_backward"):
            result = _as_cudnn_lays_out(result, given)
        made = _tensors(result)
        if name in ("_to_copy", "copy_"):
            self._note_transfer(args[1] if name == "copy_" else args[0], made[0], name, args, kwargs)
        if on_gpu or any(tensor.is_cuda for tensor in made):
            read = _tensors((args, [each for key, each in kwargs.items() if key != "out"]))
            self._count(function, name, read, made)
        for tensor in made:
            if tensor.is_cuda:
                self._hold(tensor)
        return result

    @contextlib.contextmanager
    def _inside(self) -> Iterator[None]:
        """Receive the operations that an operation consists of."""
        TorchDispatchMode.__enter__(self)
        try:
            yield
        finally:
            TorchDispatchMode.__exit__(self, None, None, None)

    def _note_transfer(self, source: torch.Tensor, made: torch.Tensor, name: str, args: Any, kwargs: Any) -> None:
        if source.is_cuda and not made.is_cuda:
            self.wait(f"copy of {source.numel()} to the host")
        elif made.is_cuda and not source.is_cuda:
            asynchronous = kwargs.get("non_blocking") or (name == "copy_" and len(args) > 2 and args[2])
            waits = not (asynchronous and source.untyped_storage() in _LOCKED)
            self.uploads.append(Note("blocking" if waits else "asynchronous", place()))
        elif made.is_cuda and source.device == made.device and source.dtype != made.dtype:
            self.casts += 1

    def _count(self, function: Any, name: str, given: list[torch.Tensor], made: list[torch.Tensor]) -> None:
        if function.namespace != "aten" or name in _WITHOUT_KERNEL:
            return
        self.operations[name] += 1
        self.bytes_moved += sum(tensor.numel() * tensor.element_size() for tensor in (*given, *made))
        if name in _PRODUCTS:
            self.products[str(given[0].dtype).removeprefix("torch.")] += 1

    def _hold(self, tensor: torch.Tensor) -> None:
        storage = tensor.untyped_storage()
        if storage in self._sizes:
            return
        size = -(-storage.nbytes() // _ALLOCATED_BYTES) * _ALLOCATED_BYTES
        if self.held_bytes + size > self.limit_bytes:
            self.ran_out.append([frame.f_code.co_name for frame in callers()])
            raise torch.OutOfMemoryError(f"CUDA out of memory. Tried to allocate {size} bytes")
        self._sizes[storage] = size
        self.held_bytes += size
        self.peak_bytes = max(self.peak_bytes, self.held_bytes)
        weakref.finalize(storage, self._free, size)

    def _free(self, size: int) -> None:
        self.held_bytes -= size


class _Generator:
    """A source of random numbers that only knows its device."""

    def __init__(self, device: torch.device | str = "cpu") -> None:
        self.device = torch.device(device)

    def manual_seed(self, seed: int) -> "_Generator":
        return self


def _replacements(gpu: FakeGpu) -> list[tuple[Any, str, Any]]:
    """What of torch asks the hardware, and what answers instead."""

    def numpy(tensor: torch.Tensor) -> np.ndarray:
        if tensor.is_cuda:
            raise TypeError("the host cannot read memory of the device: use Tensor.cpu()")
        dtype = str(tensor.dtype).removeprefix("torch.")
        if not tensor.dtype.is_floating_point:
            return np.ones(tensor.shape, dtype)
        return (gpu.answer * np.random.default_rng(0).uniform(0.9, 1.1, tensor.shape)).astype(dtype)

    def tolist(tensor: torch.Tensor) -> list[float]:
        if tensor.is_cuda:
            gpu.wait(f"tolist of {tensor.numel()}")
        return [gpu.answer if tensor.dtype.is_floating_point else 1] * tensor.numel()

    return [
        (torch.cuda, "is_available", lambda: True),
        (torch.cuda, "_lazy_init", lambda: None),
        (torch.cuda, "device_count", lambda: 2),
        (torch.cuda, "is_bf16_supported", lambda including_emulation=True: True),
        (torch.cuda, "get_device_capability", lambda device=None: (8, 0)),
        (torch.cuda, "get_arch_list", lambda: ["sm_80"]),
        (torch.cuda, "device", lambda device: contextlib.nullcontext()),
        (torch.backends.cudnn, "is_acceptable", lambda tensor: False),
        (torch, "Generator", _Generator),
        (torch, "randn", _drawing(torch.randn)),
        (torch, "rand", _drawing(torch.rand)),
        (FakeTensor, "tolist", tolist),
        (FakeTensor, "numpy", numpy),
        (FakeTensor, "__deepcopy__", lambda tensor, memo: tensor.detach().clone()),  # torch's copies the mode as well
        (torch.Tensor, "pin_memory", _page_locked),
        (torch.nn.Module, "to", _moved),
        (torch.nn.Module, "to_empty", _emptied),
        (_foreach_utils, "_get_foreach_kernels_supported_devices", lambda: ["cuda"]),
    ]


def _drawing(draw: Callable[..., torch.Tensor]) -> Callable[..., torch.Tensor]:
    """`torch.rand` or `torch.randn`, which refuse a generator of another device."""

    def drawn(*shape: Any, generator: Any = None, device: Any = "cpu", **options: Any) -> torch.Tensor:
        wanted = torch.device(device)
        if generator is not None and (generator.device.type, generator.device.index or 0) != (
            wanted.type,
            wanted.index or 0,
        ):
            raise RuntimeError(f"a generator on {generator.device} cannot draw on {wanted}")
        return draw(*shape, device=device, **options)

    return drawn


def _page_locked(tensor: torch.Tensor) -> torch.Tensor:
    """`Tensor.pin_memory`: a copy from which transfers do not block."""
    if tensor.is_cuda:
        raise RuntimeError("only memory of the host can be pinned")
    if tensor.untyped_storage() in _LOCKED:
        return tensor
    copy = tensor.clone()
    _LOCKED.add(copy.untyped_storage())
    return copy


def _moved(module: torch.nn.Module, device: torch.device | str, *_: Any, **__: Any) -> torch.nn.Module:
    """`Module.to` for fake tensors, which cannot be replaced in place."""
    return _changed(module, lambda tensor: tensor.detach().to(device))


def _emptied(module: torch.nn.Module, *, device: torch.device | str) -> torch.nn.Module:
    """`Module.to_empty` for fake tensors."""
    return _changed(module, lambda tensor: torch.empty_like(tensor, device=device))


def _changed(module: torch.nn.Module, change: Callable[[torch.Tensor], torch.Tensor]) -> torch.nn.Module:
    for part in module.modules():
        for name, weight in part._parameters.items():
            if weight is not None:
                part._parameters[name] = torch.nn.Parameter(change(weight), weight.requires_grad)
        for name, value in part._buffers.items():
            if value is not None:
                part._buffers[name] = change(value)
    return module


@contextlib.contextmanager
def weights_without_numbers() -> Iterator[None]:
    """Inside, files of weights are read as usual, to the host, and give fake tensors of the same shapes."""

    def without_numbers(read: Callable[..., Any], **options: Any) -> Callable[..., Any]:
        def loaded(*args: Any, **kwargs: Any) -> Any:
            with _disable_current_modes():
                content = read(*args, **kwargs | options)
            return tree_map_only(torch.Tensor, lambda one: torch.empty(one.shape, dtype=one.dtype), content)

        return loaded

    before = torch.load, safetensors.torch.load_file
    torch.load = without_numbers(torch.load, map_location="cpu")
    safetensors.torch.load_file = without_numbers(safetensors.torch.load_file)
    try:
        yield
    finally:
        torch.load, safetensors.torch.load_file = before


def callers() -> list[FrameType]:
    """The project's frames that led here, the innermost first; none in a thread of autograd's."""
    frames: list[FrameType] = []
    frame: FrameType | None = sys._getframe()
    while frame is not None:
        if PACKAGE in frame.f_code.co_filename:
            frames.append(frame)
        frame = frame.f_back
    return frames


def place() -> str:
    """The innermost line of the project that led here."""
    for frame in callers():
        return f"{Path(frame.f_code.co_filename).name}:{frame.f_lineno}"
    return "?"


def _tensors(content: Any) -> list[torch.Tensor]:
    """All tensors in nested tuples, lists and dicts."""
    if isinstance(content, torch.Tensor):
        return [content]
    if isinstance(content, dict):
        content = content.values()
    elif not isinstance(content, tuple | list):
        return []
    return [tensor for part in content for tensor in _tensors(part)]


def _as_cudnn_lays_out(result: Any, given: list[torch.Tensor]) -> Any:
    """Results in the layout channels last if any of what was given is in it: so cuDNN's convolutions decide."""
    layout = torch.channels_last
    if not any(suggest_memory_format(tensor) is layout for tensor in given):
        return result
    return tree_map_only(
        torch.Tensor, lambda one: one.contiguous(memory_format=layout) if one.dim() == 4 else one, result
    )


def _forget() -> None:
    """Empty the caches of the project: a fake tensor belongs to the mode that made it."""
    for name in [name for name in sys.modules if name.startswith("rvc_core")]:
        for value in vars(sys.modules[name]).values():
            if hasattr(value, "cache_clear"):
                value.cache_clear()


def counts(gpu: FakeGpu) -> dict[str, Any]:
    """What a GPU had to do since the counts were reset."""
    return {
        "operations": sum(gpu.operations.values()),
        "products": dict(gpu.products),
        "casts": gpu.casts,
        "waits": [f"{note.what} at {note.place}" for note in gpu.waits],
        "uploads": [f"{note.what} at {note.place}" for note in gpu.uploads],
        "peak_gb": gpu.peak_bytes / 1e9,
        "moved_gb": gpu.bytes_moved / 1e9,
    }


def report(cases: dict[str, Callable[[FakeGpu], dict[str, Any]]], chosen: list[str]) -> None:
    """Run each chosen case on a fake GPU of its own, and print a line of JSON with what it found or how it failed."""
    for name in chosen:
        found: dict[str, Any]
        began = time.process_time()
        _forget()
        try:
            with FakeGpu() as gpu:
                found = cases[name](gpu)
        except Exception:  # noqa: BLE001  (whatever it is, the test shows it)
            found = {"error": traceback.format_exc()[-3000:]}
        print(json.dumps({"case": name, "seconds": time.process_time() - began, **found}), flush=True)
