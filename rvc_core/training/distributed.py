"""Several processes that train one voice together: each has a part of every batch, and all make the same step.

The gradients of the parts are added up, as are their losses, so that the networks of all processes stay equal to the
bit without ever being sent. What is decided on the way, such as to stop, is decided by all. ``torch.distributed.run``
starts the processes, on one machine or on several.
"""

import contextlib
import datetime
import os
import sys
import threading
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from ..errors import MismatchError, ResourceError

if TYPE_CHECKING:  # the keeper of a training, which knows this module, goes without
    import torch

CANNOT_EXCHANGE = "the processes of this training cannot exchange data"
GONE = "another process of this training is gone"
_FIRST_SECONDS = 30.0  # for the first sum
_STEP_SECONDS = {"cuda": 300.0, "cpu": 1800.0}  # for a step and its sums; the first one on a GPU takes half a minute
_TEST_NUMBERS = 1 << 22  # 16 MB: the ways that large transfers take are those that fail
_LOST = (
    "the log says what became of it (several machines: that of each); the same command continues from the last "
    "checkpoint"
)


class Ranks:
    """The processes that train together, and which of them this is.

    Parameters
    ----------
    rank, count : int
        This one's number, and how many there are.

    Examples
    --------
    >>> ALONE.is_first, ALONE.most(3)
    (True, 3)
    """

    def __init__(self, rank: int = 0, count: int = 1) -> None:
        self.rank, self.count = rank, count

    @property
    def is_first(self) -> bool:
        """Whether this is the one that speaks, judges and writes."""
        return self.rank == 0

    def add(self, numbers: "torch.Tensor | None") -> None:
        """Make these numbers, if there are any, the sums over all processes."""
        if self.count > 1 and numbers is not None:
            self._add(numbers)

    def most(self, number: int) -> int:
        """The largest of the numbers that all processes name here; a device is not made to wait for it."""
        if self.count == 1:
            return number
        import torch

        numbers = torch.tensor([number])
        self._add(numbers, "MAX")
        return int(numbers)

    def watched(self, device: str) -> contextlib.AbstractContextManager[None]:
        """End this process, with a line that holds `CANNOT_EXCHANGE`, if a step takes too long inside.

        A sum on a GPU that never comes back raises no error: whoever reads its numbers would wait for half an hour.
        """
        return _limited(_STEP_SECONDS[device]) if self.count > 1 else contextlib.nullcontext()

    def wait(self) -> None:
        """Go on when all processes are here."""
        self.most(0)

    @contextlib.contextmanager
    def in_turn(self) -> Iterator[None]:
        """Let the first process do something, then the others."""
        if not self.is_first:
            self.wait()
        yield
        if self.is_first:
            self.wait()

    def refuse_different(self, mine: Any) -> None:
        """Raise if not all processes know the same.

        Raises
        ------
        MismatchError
            On several machines, when their folders of the experiment differ.
        """
        if self.count == 1:
            return
        import torch.distributed

        all_of_them: list[Any] = [None] * self.count
        with _lost():
            torch.distributed.all_gather_object(all_of_them, mine)
        if any(theirs != mine for theirs in all_of_them):
            raise MismatchError(
                "the machines do not have the same experiment, or not the same settings",
                hint=(
                    "copy its whole folder from the first one to the others, or share it; give each the same command"
                ),
            )

    def _add(self, numbers: "torch.Tensor", how: str = "SUM") -> None:
        import torch.distributed

        with _lost():
            torch.distributed.all_reduce(numbers, getattr(torch.distributed.ReduceOp, how))


ALONE = Ranks()


@contextlib.contextmanager
def joined(device: str) -> Iterator[Ranks]:
    """The processes that ``torch.distributed.run`` has started together; this one alone if it has started none.

    Ends this process, with a line that holds `CANNOT_EXCHANGE`, when they cannot add up a few numbers in half a minute.
    """
    count = int(os.environ.get("WORLD_SIZE", "1"))
    if count == 1:
        yield ALONE
        return
    import torch

    on_gpu = device.startswith("cuda")
    if on_gpu:
        torch.cuda.set_device(device)
    with _lost():  # numbers on the CPU, which decisions are, go over gloo in any case
        torch.distributed.init_process_group(
            "cpu:gloo,cuda:nccl" if on_gpu else "gloo", timeout=datetime.timedelta(minutes=30)
        )
    ranks = Ranks(torch.distributed.get_rank(), count)
    ranks.wait()  # one process loads torch in a second, another in a minute
    _refuse_unconnected(ranks, device)
    yield ranks
    torch.distributed.destroy_process_group()  # not after an error: that would wait for those that are lost


def own_device(name: str) -> str:
    """The GPU of this process, where several share a machine: each has the one of its number.

    Examples
    --------
    >>> own_device("cpu")
    'cpu'
    """
    return f"cuda:{os.environ['LOCAL_RANK']}" if name.startswith("cuda") and "LOCAL_RANK" in os.environ else name


def _give_up(reason: str) -> None:
    sys.stderr.write(f"{CANNOT_EXCHANGE}: {reason}\n")
    sys.stderr.flush()
    os._exit(1)


@contextlib.contextmanager
def _limited(seconds: float) -> Iterator[None]:
    """End this process if what is done inside takes longer: a transfer that hangs cannot be taken back."""
    reason = (
        f"no answer within {seconds:.0f} s. What to do: start training with one GPU (--gpus 1); "
        "in the background that happens by itself"
    )
    watchdog = threading.Timer(seconds, _give_up, [reason])
    watchdog.daemon = True
    watchdog.start()
    try:
        yield
    finally:
        watchdog.cancel()


def _refuse_unconnected(ranks: Ranks, device: str) -> None:
    """Add up a few numbers, or end this process."""
    import torch

    with _limited(_FIRST_SECONDS):
        try:
            numbers = torch.full((_TEST_NUMBERS,), ranks.rank + 1.0, device=device)
            ranks._add(numbers)
            if not (numbers == ranks.count * (ranks.count + 1) / 2).all():
                _give_up("their sum is wrong")
        except ResourceError as error:
            _give_up(str(error))


@contextlib.contextmanager
def _lost() -> Iterator[None]:
    """Say what it means when a transfer fails."""
    import torch

    try:
        yield
    except torch.OutOfMemoryError:
        raise
    except RuntimeError as error:  # gloo's and NCCL's word for it
        raise ResourceError(f"{GONE}: {str(error).splitlines()[0]}", hint=_LOST) from error
