"""Whether a failure means that memory ran out, in all of torch's words for it, and giving memory back."""

import gc
import re

_SIGNS = re.compile(r"out of memory|can't allocate memory|ALLOC_FAILED|could not create a primitive$")  # last: oneDNN
_LIKELY_SIGNS = re.compile(  # what cuDNN and cuBLAS say without room to work in, or when they are really broken
    "unable to find an engine|CUDNN_STATUS_NOT_SUPPORTED|CUBLAS_STATUS_NOT_INITIALIZED|ALLOCATION_FAILED"
)


def is_out_of_memory(error: BaseException, clips: int = 1) -> bool:
    """Whether a failure means that memory ran out; torch has many words for it, on a CPU in a plain RuntimeError.

    Some of them can mean a broken installation as well: those count only while more than one of the clips passes.

    Examples
    --------
    >>> is_out_of_memory(RuntimeError("DefaultCPUAllocator: can't allocate memory")), is_out_of_memory(RuntimeError())
    (True, False)
    >>> [is_out_of_memory(RuntimeError("cuDNN: unable to find an engine"), clips) for clips in (1, 2)]
    [False, True]
    """
    import torch

    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    signs = [_SIGNS, *([_LIKELY_SIGNS] if clips > 1 else [])]
    return isinstance(error, RuntimeError) and any(each.search(str(error)) for each in signs)


def release() -> None:
    """Give back what nobody holds any more."""
    import torch

    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
