"""How long training takes: seconds per step, what still fits into the time, how busy the device is."""

import statistics
from collections import deque

import torch

from ..progress import Budget
from ..system.threads import ThreadTuner
from .memory import DeviceUse
from .position import Position

_RECENT_STEPS = 50


class Pace:
    """How fast a training goes and how long it may go on.

    Parameters
    ----------
    device : torch.device
    threads : int
        CPU threads; 0 finds out while training whether all of them or one are faster.
    budget : Budget
        The minutes that training may take.

    Attributes
    ----------
    save_seconds : float
        How long the last checkpoint took to write.
    """

    def __init__(self, device: torch.device, threads: int, budget: Budget) -> None:
        self._tuner, self._budget, self._use = ThreadTuner(threads), budget, DeviceUse(device)
        self._recent: deque[float] = deque(maxlen=_RECENT_STEPS)
        self.save_seconds = 2.0
        torch.set_num_threads(self._tuner.threads)

    @property
    def step_seconds(self) -> float:
        """Seconds of a usual step; 0 before the first."""
        return statistics.median(self._recent) if self._recent else 0.0

    def record(self, seconds: float) -> None:
        """Take note of a step, and choose the threads of the next one."""
        self._recent.append(seconds)
        self._tuner.record(seconds)
        torch.set_num_threads(self._tuner.threads)

    def has_time(self, validation_seconds: float) -> bool:
        """Whether another step fits into the budget, and a last validation and checkpoint after it."""
        return self._budget.allows(self.step_seconds + validation_seconds + self.save_seconds)

    def outlook(self, position: Position, steps_left: int, steps_per_epoch: int) -> str:
        """Seconds per step, minutes to the end or epochs that the budget is enough for, and the device's use."""
        left_seconds, budget_seconds = steps_left * self.step_seconds, self._budget.left_seconds
        end = f"{left_seconds / 60:.0f} min left"
        if left_seconds > budget_seconds:
            epochs = position.epoch + (position.place + budget_seconds / self.step_seconds) / steps_per_epoch
            end = f"{max(0, budget_seconds) / 60:.0f} min left, enough for {epochs:.0f} epochs"
        use = str(self._use)
        return f"{self.step_seconds:.2f} s a step · {end}" + (f" · {use}" if use else "")
