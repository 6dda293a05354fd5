"""How many CPU threads compute: all that are allowed, or one if that is faster.

torch's threads spin while they wait for each other. That is fastest on idle cores, but very slow beside another busy
process: a training step of 0.3 s on two idle cores took 5 to 26 s, and 0.5 s on one thread.
"""

import os
from pathlib import Path

_FIRST_PROBE_STEPS = 3
_PROBE_AFTER_STEPS = 60  # doubled each time the other choice is not faster
_SUDDENLY = 4.0  # times the usual seconds: probe at once after such a step


def choose_threads(requested: int = 0) -> int:
    """Number of CPU threads. 0: as many as this process may use.

    A container shows all cores of its host, even if it may use only two. Too many threads are much slower.

    Examples
    --------
    >>> choose_threads(3), choose_threads() >= 1
    (3, True)
    """
    if requested > 0:
        return requested
    available = len(os.sched_getaffinity(0))
    if os.environ.get("OMP_NUM_THREADS", "").isdigit():
        available = min(available, int(os.environ["OMP_NUM_THREADS"]))
    try:
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text().split()
        return max(1, min(available, round(int(quota) / int(period))))
    except (OSError, ValueError):  # no such file, or "max": no quota
        return max(1, available)


def set_threads(requested: int = 0) -> int:
    """Set torch's threads to `choose_threads` and return their number."""
    import torch

    threads = choose_threads(requested)
    torch.set_num_threads(threads)
    return threads


class ThreadTuner:
    """Measures during long work whether all threads or one thread is faster, and keeps measuring.

    Parameters
    ----------
    requested : int
        A number fixes the threads, and with them the order of every sum. 0: measure.

    Examples
    --------
    >>> tuner = ThreadTuner(0, most=2)
    >>> for _ in range(12):                                   # two threads are ten times slower here
    ...     tuner.record(5.0 if tuner.threads == 2 else 0.5)
    >>> tuner.threads
    1
    """

    def __init__(self, requested: int = 0, most: int | None = None) -> None:
        self.threads = most or choose_threads(requested)
        self._other = None if requested or self.threads == 1 else 1
        self._usual: float | None = None  # seconds of a step with the current choice
        self._probing = False
        self._wait, self._left = _PROBE_AFTER_STEPS, _FIRST_PROBE_STEPS

    def record(self, seconds: float) -> None:
        """Report the seconds of a step. `threads` is then the number for the next step."""
        if self._other is None:
            return
        if self._probing:
            self._judge(seconds)
            return
        slow = self._usual is not None and seconds > _SUDDENLY * self._usual
        self._usual = seconds if self._usual is None else min(seconds, 0.7 * self._usual + 0.3 * seconds)
        self._left -= 1
        if slow or self._left <= 0:
            self._probing = True
            self.threads, self._other = self._other, self.threads

    def _judge(self, seconds: float) -> None:
        """Keep the choice that was probed for one step, or return to the other and wait longer."""
        self._probing = False
        assert self._usual is not None and self._other is not None
        if seconds < self._usual:
            self._usual, self._wait = seconds, _PROBE_AFTER_STEPS
        else:
            self.threads, self._other, self._wait = self._other, self.threads, self._wait * 2
        self._left = self._wait
