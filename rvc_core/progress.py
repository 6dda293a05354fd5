"""Long work shows its progress, can be stopped, and keeps to a time limit."""

import contextlib
import json
import math
import os
import statistics
import sys
import time
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol, TextIO

_STALL_FACTOR = 10.0  # times the usual seconds of a unit
_SHORTEST_STALL_SECONDS = 60.0  # longer than a validation between two steps
_FIRST_UNIT_SECONDS = 600.0  # for loading and compiling before the first unit


def counted(count: int, what: str) -> str:
    """A number and its noun, singular for one.

    Examples
    --------
    >>> counted(1, "clip"), counted(0, "clip"), counted(2, "clip")
    ('1 clip', '0 clips', '2 clips')
    """
    return f"{count} {what}" if count == 1 else f"{count} {what}s"


class Progress(Protocol):
    """What a stage reports while it works. A terminal, a notebook and `Silent` each show it in their own way."""

    def start(self, label: str, total: int) -> None:
        """Begin a piece of work of `total` units."""

    def advance(self, note: str = "") -> None:
        """One unit is done; `note` is the newest figure."""

    def say(self, line: str) -> None:
        """Print one line that stays."""


class Silent:
    """Shows nothing: the default of the API and of tests."""

    def start(self, *args: Any, **kwargs: Any) -> None:
        """Ignore it."""

    advance = say = start


class Terminal:
    r"""Shows a bar on a terminal, and at most one line a minute in a file or pipe.

    Parameters
    ----------
    stream : text stream
        Default: stderr, because ``--json`` writes its object to stdout; in a notebook stdout, because Jupyter shows
        stderr on red, like an error.
    line_every_seconds : float
        Interval between lines if the stream is not a terminal.

    Examples
    --------
    >>> import io
    >>> stream = io.StringIO()
    >>> progress = Terminal(stream)
    >>> progress.start("slicing", 1); progress.advance("a.wav")
    >>> stream.getvalue()
    'slicing 1/1 a.wav\n'
    """

    def __init__(self, stream: TextIO | None = None, line_every_seconds: float = 60.0) -> None:
        in_kernel = type(sys.stderr).__module__.startswith("ipykernel.")
        self._stream = stream if stream is not None else sys.stdout if in_kernel else sys.stderr
        self._redraws = self._stream.isatty()
        self._every = 0.1 if self._redraws else line_every_seconds
        self._label, self._total, self._done, self._last = "", 0, 0, time.monotonic()

    def start(self, label: str, total: int) -> None:
        """Begin a piece of work of `total` units."""
        self._label, self._total, self._done, self._last = label, total, 0, time.monotonic()

    def advance(self, note: str = "") -> None:
        """One unit is done; draw if the interval is over."""
        self._done += 1
        finished, now = self._done >= self._total, time.monotonic()
        if not finished and now - self._last < self._every:
            return
        self._last = now
        count = f"{self._label} {self._done}/{self._total} {note}".rstrip()
        if self._redraws:
            filled = round(24 * min(1.0, self._done / max(1, self._total)))
            self._write(f"\r\033[K[{'█' * filled}{'·' * (24 - filled)}] {count}" + ("\n" if finished else ""))
        else:
            self._write(count + "\n")

    def say(self, line: str) -> None:
        """Print one line that stays."""
        self._write(("\r\033[K" if self._redraws else "") + line + "\n")

    def _write(self, text: str) -> None:
        self._stream.write(text)
        self._stream.flush()


class Beside:
    """Adds a remark to every note, for example where the work was last saved."""

    def __init__(self, progress: Progress, remark: Callable[[], str]) -> None:
        self.start, self.say = progress.start, progress.say
        self._progress, self._remark = progress, remark

    def advance(self, note: str = "") -> None:
        """One unit is done."""
        self._progress.advance(" · ".join(filter(None, [note, self._remark()])))


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
        with contextlib.suppress(OSError):
            tell()
            if due:
                self._written = time.monotonic()
                usual = statistics.median(self._seconds) if self._seconds else None
                temporary = self._file.with_name(f".part-{os.getpid()}-{self._file.name}")
                temporary.write_text(
                    json.dumps({**self._state, "lines": [*self._lines], "usual_seconds": usual, "time": time.time()}),
                    "utf-8",
                )
                temporary.replace(self._file)


class Follower:
    r"""Shows the progress that another process writes with a `Beacon`.

    Examples
    --------
    >>> import io, tempfile
    >>> file, stream = Path(tempfile.mkdtemp(), "progress.json"), io.StringIO()
    >>> beacon, follower = Beacon(file, Silent()), Follower(file, Terminal(stream))
    >>> beacon.say("3 clips"); beacon.start("training", 2); beacon.advance(); beacon.advance("mel 20")
    >>> follower.look(); stream.getvalue()
    '3 clips\ntraining 2/2 mel 20\n'
    """

    def __init__(self, file: Path, progress: Progress) -> None:
        self._file, self._progress = file, progress
        self._seen: dict[str, Any] = {"label": "", "total": 0, "done": 0, "said": 0, "stalled": False}

    def look(self) -> None:
        """Show what is new since the last look. If the work stalls, say so once."""
        try:
            now = json.loads(self._file.read_text("utf-8"))
        except (OSError, ValueError):  # not yet there
            return
        seen = self._seen
        lines = now["lines"][seen["said"] - now["said"] :] if now["said"] > seen["said"] else []
        for line in lines:
            self._progress.say(line)
        if (now["label"], now["total"]) != (seen["label"], seen["total"]) or now["done"] < seen["done"]:
            self._progress.start(now["label"], now["total"])
            seen["done"] = 0
        for _ in range(now["done"] - seen["done"]):
            self._progress.advance(now["note"])
        stall = stalled(now)
        if stall and not seen["stalled"]:
            self._progress.say(stall)
        self._seen = {**now, "stalled": bool(stall)}


def stalled(state: dict[str, Any], now: float | None = None) -> str:
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


class Stop:
    """Asks work to stop early, through a file from another process or through `request` in this one.

    Examples
    --------
    >>> stop = Stop()
    >>> stop.requested
    False
    >>> stop.request(); stop.requested
    True
    """

    def __init__(self, file: Path | None = None) -> None:
        self._file, self._wanted = file, False

    def request(self) -> None:
        """Ask the work to stop at its next safe point."""
        self._wanted = True

    @property
    def requested(self) -> bool:
        """Whether somebody asked."""
        return self._wanted or (self._file is not None and self._file.exists())


class Budget:
    """Tells before each unit of work whether there is time for it.

    Parameters
    ----------
    minutes : float or None
        Wall time for all units. None: no limit.
    clock : callable
        Seconds, monotonic.

    Examples
    --------
    >>> now = [0.0]
    >>> budget = Budget(1.0, clock=lambda: now[0])
    >>> budget.allows(20.0)
    True
    >>> now[0] = 45.0
    >>> budget.allows(20.0)
    False
    """

    def __init__(self, minutes: float | None, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock, self._start = clock, clock()
        self._seconds = None if minutes is None else 60.0 * minutes

    def allows(self, next_seconds: float) -> bool:
        """Whether work of `next_seconds`, plus a reserve of 20 %, ends in time."""
        return self._seconds is None or self._clock() - self._start + 1.2 * next_seconds < self._seconds

    @property
    def left_seconds(self) -> float:
        """Time until the end; infinite if there is no limit."""
        return math.inf if self._seconds is None else self._start + self._seconds - self._clock()
