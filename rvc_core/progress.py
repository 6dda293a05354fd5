"""Long work shows its progress, can be stopped, and keeps to a time limit."""

import math
import sys
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any, Protocol, TextIO


def counted(count: int, what: str) -> str:
    """A number and its noun, singular for one.

    Examples
    --------
    >>> counted(1, "clip"), counted(0, "clip"), counted(2, "clip")
    ('1 clip', '0 clips', '2 clips')
    """
    return f"{count} {what}" if count == 1 else f"{count} {what}s"


class Report:
    """What a stage did: a dataclass of plain values."""

    def as_json(self) -> dict[str, Any]:
        """The fields, for ``--json``."""
        return asdict(self)  # type: ignore[call-overload]


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
