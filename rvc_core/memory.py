"""Making do with the memory there is: how many clips fit into one step, and what happens when they do not."""

import gc
import math
from collections.abc import Callable
from typing import TypeVar

import torch

_RESERVE = 0.15          # of the memory, for fragmentation and for other programs
_MOST = 16               # larger batches make fewer steps of the same clips, and learn no better
_SIGNS = ("out of memory", "can't allocate memory", "ALLOC_FAILED", "CUDNN_STATUS_NOT_SUPPORTED_ALLOC")
T = TypeVar("T")


def is_out_of_memory(error: BaseException) -> bool:
    """Whether a failure means that memory ran out; torch has several words for it, on a CPU a plain RuntimeError.

    Examples
    --------
    >>> is_out_of_memory(RuntimeError("DefaultCPUAllocator: can't allocate memory")), is_out_of_memory(RuntimeError())
    (True, False)
    """
    return isinstance(error, MemoryError | torch.OutOfMemoryError) or (
        isinstance(error, RuntimeError) and any(sign in str(error) for sign in _SIGNS))


class Portions:
    """How many clips of a batch pass through the networks at once: all of them, until memory runs out.

    A portion's gradients are added to those of the portions before it, so the batch that the optimizers see stays
    what it was.

    Parameters
    ----------
    clips : int
        Most clips in a portion.

    Examples
    --------
    >>> portions = Portions(8)
    >>> def work(parts):                                      # three clips fit
    ...     if parts[0].stop > 3:
    ...         raise torch.OutOfMemoryError("CUDA out of memory")
    ...     return [(part.start, part.stop) for part in parts]
    >>> portions.attempt(6, work), portions.clips
    ([(0, 2), (2, 4), (4, 6)], 2)
    """

    def __init__(self, clips: int) -> None:
        self.clips = clips

    def attempt(self, count: int, work: Callable[[list[slice]], T]) -> T:
        """Do the work on `count` clips, given as slices; again from the start with half as many in each, if need be.

        Raises
        ------
        torch.OutOfMemoryError
            When not even one clip fits.
        """
        while True:
            try:
                return work([slice(start, min(start + self.clips, count)) for start in range(0, count, self.clips)])
            except (RuntimeError, MemoryError) as error:
                if not is_out_of_memory(error):
                    raise
                if min(self.clips, count) == 1:
                    raise torch.OutOfMemoryError(str(error)) from error
            # Only here, after the exception: its frames hold what the failed attempt had allocated.
            self.clips = max(1, min(self.clips, count) // 2)
            release()


def release() -> None:
    """Give back what nobody holds any more."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def largest_batch(peak_bytes: Callable[[int], int], limit_bytes: float, most: int = _MOST) -> int:
    """The most clips whose step stays below the limit, less a reserve of 15 %.

    Steps are tried with 1, 2, 4 … clips. Memory grows in proportion to their number, so what lies between the last
    that fits and the first that does not is reckoned; at least 1.

    Parameters
    ----------
    peak_bytes : callable
        Does a step with so many clips and returns the most memory in use meanwhile; raises when memory runs out.
    limit_bytes : float
        What there is for all of it.
    most : int
        Never more than this.

    Examples
    --------
    >>> largest_batch(lambda clips: 100 + 30 * clips, 600)
    13
    """
    allowed, tried = (1 - _RESERVE) * limit_bytes, {}
    for clips in [*(2 ** power for power in range(int(math.log2(most)) + 1)), most]:
        try:
            tried[clips] = peak_bytes(clips)
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            break
        if tried[clips] > allowed:
            break
    else:
        return most
    release()
    (before, low), (last, high) = [(0, 0), *tried.items()][-2:] if len(tried) > 1 else [(0, 0), (1, math.inf)]
    each = (high - low) / (last - before)
    return max(1, min(most, last + math.floor((allowed - high) / each) if math.isfinite(each) and each > 0 else before))
