"""What stands around a training: a disk that fails, another trainer, Ctrl-C, the end of the platform's session."""

import contextlib
import os
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ..errors import ResourceError, StorageError
from ..progress import Budget, Progress, Stop
from ..settings import TrainSettings
from ..system.files import FULL
from ..system.memory import is_out_of_memory
from ..system.platforms import detect, session_minutes_left
from ..workspace.layout import Layout
from ..workspace.stage_locks import refuse_disturbance, working
from .distributed import Ranks


def budget_of(settings: TrainSettings, progress: Progress) -> Budget:
    """The minutes asked for, or those that the platform leaves this session, whichever end first."""
    session, asked = session_minutes_left(), settings.max_minutes
    if session is None or (asked is not None and asked <= session):
        return Budget(asked)
    progress.say(f"{detect().title} ends this session in little more than {session:.0f} minutes: training ends by then")
    return Budget(session)


_TWICE_SECONDS = 3.0
_TOLD = b"\nsaving; press Ctrl-C again to end without that\n"


@contextlib.contextmanager
def storage_named(layout: Layout) -> Iterator[None]:
    """Name what happened when the disk fails under the work, or memory runs out, and what is still there."""
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        raise ResourceError(
            f"memory ran out: {(str(error).splitlines() or [''])[0][:100]}",
            hint=("close other programs, or use a larger GPU; then the same command continues"),
        ) from error
    except OSError as error:
        name = Path(os.fsdecode(error.filename)).name if error.filename else layout.root.name
        if error.errno in FULL:
            raise ResourceError(
                f"the disk is full: {name} could not be written",
                hint=(f"free some space for {layout.root}; the same command continues from the last checkpoint"),
            ) from error
        raise StorageError(
            f"{layout.root} cannot be used any more: {error.strerror or error} ({name})",
            hint=("bring that storage back, writable; the same command continues from the last checkpoint"),
        ) from error


@contextlib.contextmanager
def alone(layout: Layout, ranks: Ranks) -> Iterator[None]:
    """Refuse to train where somebody trains already, or prepares the clips: they would disturb each other."""
    if not (layout.root.is_dir() and ranks.is_first):
        yield  # there is nothing to guard; opening the run says what is missing
        return
    with working(layout, "train"):
        refuse_disturbance(layout, "train")
        yield


@contextlib.contextmanager
def gentle_interrupt() -> Iterator[Stop]:
    """Turn the first Ctrl-C, or a system's SIGTERM, into a wish to stop: saving is safe only between two steps.

    A second one right after it is the same wish, of somebody who pressed twice; a later one ends at once.
    """
    stop = Stop()
    if threading.current_thread() is not threading.main_thread():
        yield stop  # only the main thread is told of signals
        return

    asked_at: list[float] = []

    def ask(number: int, _: object) -> None:
        if not asked_at and number == signal.SIGINT:
            os.write(2, _TOLD)  # nothing else may be called while a step runs
        if asked_at and time.monotonic() - asked_at[0] > _TWICE_SECONDS:
            signal.signal(number, before[number])
            signal.raise_signal(number)
        asked_at.append(time.monotonic())
        stop.request()

    before: dict[int, Any] = {number: signal.signal(number, ask) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
