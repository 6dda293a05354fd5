"""Making do with the memory there is: how many clips fit into one step, and what happens when they do not."""

import contextlib
import math
import re
import resource
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import psutil
import torch

from ..progress import counted
from ..system.memory import is_out_of_memory, release

_RESERVE = 0.15  # of the memory, for fragmentation and for other programs
_ASK_SECONDS = 5.0
MOST_CLIPS = 16  # larger batches make fewer steps of the same clips, and learn no better
T = TypeVar("T")


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
    ([(0, 3), (3, 6)], 3)
    """

    def __init__(self, clips: int) -> None:
        self.clips = clips
        self.tell: Callable[[str], object] = str  # one line, whenever there are fewer
        self.spare: Callable[[], bool] = bool  # gives back memory that one can do without; whether there was any

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
                if not is_out_of_memory(error, min(self.clips, count)):
                    raise
            # Only here, after the exception: its frames hold what the failed attempt had allocated.
            if not self.spare():
                if min(self.clips, count) == 1:
                    raise torch.OutOfMemoryError("not even a single clip fits")
                self.clips = max(1, min(self.clips, count) // 2)
                passing = counted(self.clips, "clip") + (" passes" if self.clips == 1 else " pass")
                self.tell(f"memory ran out: {passing} at once now, in batches as large as before")
            release()


@dataclass
class Memory:
    """The most memory that was in use while something was done."""

    peak_bytes: int = 0


@contextlib.contextmanager
def measured_memory(device: torch.device) -> Iterator[Memory]:
    """Measure what is done inside: on a GPU what torch had reserved, on a CPU the process, since its start."""
    memory = Memory()
    if device.type == "cuda":
        release()
        torch.cuda.reset_peak_memory_stats(device)
    yield memory
    memory.peak_bytes = (
        torch.cuda.max_memory_reserved(device)
        if device.type == "cuda"
        else 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    )


def available_bytes(device: torch.device) -> int:
    """What this process may have in all: what it has, and what nobody has."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0] + torch.cuda.memory_reserved(device)
    free = psutil.virtual_memory().available
    with contextlib.suppress(OSError, ValueError):  # a container's limit, if it has one; cached files give way
        limit, used = (int(Path("/sys/fs/cgroup", name).read_text()) for name in ("memory.max", "memory.current"))
        cached = re.findall(r"^inactive_file (\d+)", Path("/sys/fs/cgroup/memory.stat").read_text(), re.MULTILINE)
        free = min(free, limit - used + sum(map(int, cached)))
    return _own_bytes() + free


def _own_bytes() -> int:
    return psutil.Process().memory_info().rss


class DeviceUse:
    """How busy a GPU is and how much of its memory is used, or how much memory this process has, in a few words."""

    def __init__(self, device: torch.device) -> None:
        self._device, self._asked_at, self._answer = device, -math.inf, ""

    def __str__(self) -> str:
        """The newest answer; empty if the driver gives none."""
        if self._device.type != "cuda":
            return f"{_own_bytes() / 1e9:.1f} GB"
        if time.monotonic() - self._asked_at > _ASK_SECONDS:
            from pynvml import NVMLError

            self._asked_at = time.monotonic()
            with contextlib.suppress(NVMLError, RuntimeError):  # parts of a GPU (MIG) have no such figure
                busy, (free, whole) = torch.cuda.utilization(self._device), torch.cuda.mem_get_info(self._device)
                self._answer = f"GPU {busy} %, {(whole - free) / (1 << 30):.1f} of {whole / (1 << 30):.0f} GB"
        return self._answer


def largest_batch(peak_bytes: Callable[[int], int], limit_bytes: float, most: int = MOST_CLIPS) -> int:
    """The most clips whose step stays below the limit, less a reserve of 15 %; at least 1.

    Steps are tried with 1, 2, 4 … clips. Memory grows in proportion to their number, so what lies between the last
    that fits and the first that does not is reckoned.

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
    allowed, clips = (1 - _RESERVE) * limit_bytes, 1
    tried: list[tuple[int, int]] = []
    while True:
        try:
            tried.append((clips, peak_bytes(clips)))
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error, clips):
                raise
            break
        if tried[-1][1] > allowed:
            break
        if clips == most:
            return most
        clips = min(2 * clips, most)
    release()
    if len(tried) < 2:
        return 1
    (fewer, low), (more, high) = tried[-2:]
    each = (high - low) / (more - fewer)
    return max(1, min(clips - 1, math.floor(fewer + (allowed - low) / each) if each > 0 else more))
