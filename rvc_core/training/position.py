"""Where a training is, and how careful it has become: the values that a checkpoint stores."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

NAN_STEPS = 3  # in a row, before training returns to a checkpoint
_RETURNS = 2  # in a row to the same checkpoint, before training gives up


@dataclass
class Position:
    """Where a training is.

    Attributes
    ----------
    step : int
        Completed steps since the very first.
    epoch : int
        Completed epochs.
    place : int
        Completed batches of the epoch that is running.
    """

    step: int = 0
    epoch: int = 0
    place: int = 0

    def advance(self) -> None:
        """One step is done."""
        self.step += 1
        self.place += 1

    def end_epoch(self) -> None:
        """All batches of the epoch are done."""
        self.epoch += 1
        self.place = 0


@dataclass
class Caution:
    """What NaN losses have taught this training.

    Attributes
    ----------
    factor : float
        On the learning rate: halved whenever training returns to a checkpoint.
    only_fp32 : bool
        Whether half the learning rate was not enough, so that nothing but float32 is tried any more.
    nan_steps : int
        Steps up to now, in a row, with NaN losses.
    returns : int
        How often in a row training returned to `return_step`.
    """

    factor: float = 1.0
    only_fp32: bool = False
    nan_steps: int = 0
    returns: int = 0
    return_step: int = -1

    def skip_step(self) -> bool:
        """Count a step with NaN losses; False when it was one too many in a row."""
        self.nan_steps += 1
        return self.nan_steps < NAN_STEPS

    def return_to(self, step: int, factor: float) -> bool:
        """Train on from a checkpoint with half the learning rate, the second time in float32; False after that.

        Parameters
        ----------
        step : int
            Of that checkpoint.
        factor : float
            On the learning rate before; the checkpoint may have brought another.
        """
        self.returns = self.returns + 1 if step == self.return_step else 1
        self.return_step = step
        self.factor = min(factor, self.factor) / 2
        self.only_fp32 = self.only_fp32 or self.returns == _RETURNS
        return self.returns <= _RETURNS

    def resume(self, state: Mapping[str, Any], learning_rate: float | str) -> None:
        """Take up the caution of a checkpoint; its factor only if the learning rate was not changed since."""
        self.only_fp32 = state.get("only_fp32", False)
        if state.get("settings", {}).get("learning_rate") == learning_rate:
            self.factor = state.get("caution", 1.0)
