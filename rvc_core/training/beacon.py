"""The progress of work in another process: a small file that one side writes and the other follows."""

import contextlib
import json
import math
import os
import statistics
import time
from collections import deque
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field
from typing_extensions import TypedDict

from ..errors import StorageError
from ..progress import Progress
from ..system.documents import Count, Line, read_or
from ..system.inside import open_inside, remove

_STALL_FACTOR = 10.0  # times the usual seconds of a unit
_SHORTEST_STALL_SECONDS = 60.0  # longer than a validation between two steps
_FIRST_UNIT_SECONDS = 600.0  # for loading and compiling before the first unit
_Steps = Annotated[int, Field(ge=0, le=1 << 24)]  # each is shown


class BeaconState(TypedDict):
    """What the file holds."""

    label: Line
    total: _Steps
    done: _Steps
    said: Count
    note: Line
    lines: list[Line]
    time: float
    usual_seconds: float | None


class Beacon:
    """Writes the progress to a small file, at most once a second, for a `Follower` in another process.

    If the file cannot be written, the work goes on: a full disk stops it soon enough.

    Parameters
    ----------
    file : Path
    log : Progress
        Gets everything too.
    """

    def __init__(self, file: Path, log: Progress) -> None:
        self._file, self._log = file, log
        self._state: dict[str, Any] = {"label": "", "total": 0, "done": 0, "note": "", "said": 0}
        self._lines: deque[str] = deque(maxlen=20)
        self._seconds: deque[float] = deque(maxlen=50)
        self._moved, self._written = time.monotonic(), -math.inf

    def start(self, label: str, total: int) -> None:
        """Begin a piece of work of `total` units."""
        self._state |= {"label": label, "total": total, "done": 0, "note": ""}
        self._seconds.clear()
        self._moved = time.monotonic()
        self._write(lambda: self._log.start(label, total))

    def advance(self, note: str = "") -> None:
        """One unit is done."""
        self._state |= {"done": self._state["done"] + 1, "note": note}
        now = time.monotonic()
        self._seconds.append(now - self._moved)
        self._moved = now
        due = now - self._written >= 1 or self._state["done"] >= self._state["total"]
        self._write(lambda: self._log.advance(note), due)

    def say(self, line: str) -> None:
        """Pass on one line that stays."""
        self._lines.append(line)
        self._state["said"] += 1
        self._write(lambda: self._log.say(line))

    def _write(self, tell: Callable[[], None], due: bool = True) -> None:
        with contextlib.suppress(OSError, StorageError):
            tell()
            if due:
                self._written = time.monotonic()
                usual = statistics.median(self._seconds) if self._seconds else None
                state = {**self._state, "lines": [*self._lines], "usual_seconds": usual, "time": time.time()}
                temporary = self._file.with_name(f".part-{os.getpid()}-{self._file.name}")
                remove(temporary)
                with open_inside(temporary, "xb") as file:
                    file.write(json.dumps(state).encode())
                temporary.replace(self._file)


def read_state(file: Path) -> BeaconState | None:
    """What a `Beacon` wrote last; None before, or if the file is damaged."""
    return read_or(file, BeaconState, None)


class Follower:
    r"""Shows the progress that another process writes with a `Beacon`.

    Examples
    --------
    >>> import io, tempfile
    >>> from rvc_core.progress import Silent, Terminal
    >>> file, stream = Path(tempfile.mkdtemp(), "progress.json"), io.StringIO()
    >>> beacon, follower = Beacon(file, Silent()), Follower(file, Terminal(stream))
    >>> beacon.say("3 clips"); beacon.start("training", 2); beacon.advance(); beacon.advance("mel 20")
    >>> follower.look(); stream.getvalue()
    '3 clips\ntraining 2/2 mel 20\n'
    """

    def __init__(self, file: Path, progress: Progress) -> None:
        self._file, self._progress = file, progress
        self._seen: Mapping[str, Any] = {"label": "", "total": 0, "done": 0, "said": 0}
        self._has_stalled = False

    def look(self) -> None:
        """Show what is new since the last look. If the work stalls, say so once."""
        if not (now := read_state(self._file)):
            return
        seen, done = self._seen, self._seen["done"]
        lines = now["lines"][seen["said"] - now["said"] :] if now["said"] > seen["said"] else []
        for line in lines:
            self._progress.say(line)
        if (now["label"], now["total"]) != (seen["label"], seen["total"]) or now["done"] < done:
            self._progress.start(now["label"], now["total"])
            done = 0
        for _ in range(now["done"] - done):
            self._progress.advance(now["note"])
        stall = stalled(now)
        if stall and not self._has_stalled:
            self._progress.say(stall)
        self._seen, self._has_stalled = now, bool(stall)


def stalled(state: BeaconState, now: float | None = None) -> str:
    """Return a sentence if a `Beacon` has shown no step for ten times as long as usual, else an empty string.

    Examples
    --------
    >>> stalled({"label": "training", "time": 1000.0, "usual_seconds": 6.0}, now=1050.0)
    ''
    >>> stalled({"label": "training", "time": 1000.0, "usual_seconds": 6.0}, now=1090.0)
    'training: no step for 90 s, usually 6.0 s; the machine may be busy, asleep or out of memory'
    """
    silent = (time.time() if now is None else now) - state["time"]
    usual = state["usual_seconds"]
    longest = _FIRST_UNIT_SECONDS if usual is None else max(_SHORTEST_STALL_SECONDS, _STALL_FACTOR * usual + 1)
    if silent < longest or not state["label"]:
        return ""
    return (
        f"{state['label']}: no step for {silent:.0f} s"
        + (f", usually {usual:.1f} s" if usual else "")
        + "; the machine may be busy, asleep or out of memory"
    )
