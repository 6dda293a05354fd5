"""The community guide's reading of training losses, as people do it in TensorBoard."""

from dataclasses import dataclass

import numpy as np

from .learning_curve import LEAST_POINTS, History, Series, running_median

SMOOTHING = 0.987  # the guide's TensorBoard setting
_CURVE_STEPS = 200  # RVC's interval between two points; small datasets have one point per epoch
_CLEAR = 0.2  # the guide's "very clear" turn: this share of the run comes after the lowest point


def tensorboard_smoothed(values: np.ndarray, weight: float = SMOOTHING) -> np.ndarray:
    """TensorBoard's smoothing: an exponential moving average with bias correction.

    Examples
    --------
    >>> tensorboard_smoothed(np.array([1.0, 3.0]), 0.5).round(3).tolist()
    [1.0, 2.333]
    """
    smoothed, mean = np.empty(len(values)), 0.0
    for number, value in enumerate(values):
        mean = weight * mean + (1 - weight) * value
        smoothed[number] = mean / (1 - weight ** (number + 1))
    return smoothed


@dataclass(frozen=True)
class GuideReading:
    """The guide's reading of training losses.

    Attributes
    ----------
    total : Series
        Smoothed ``loss/g/total``, without outliers.
    lowest : int or None
        Step of its lowest point.
    turned : bool
        Whether it has been flat or rising since, for a fifth of the run.
    minima : list of int
        Steps of the low points of the unsmoothed ``loss/g/mel``, the lowest first.
    """

    total: Series
    lowest: int | None
    turned: bool
    minima: list[int]


def read_as_the_guide(history: History) -> GuideReading:
    """Read g/total and mel as the guide recommends."""
    steps, total = curve_of(history, "loss/g/total")
    total = tensorboard_smoothed(total)
    low = int(total.argmin()) if len(total) else 0
    after = len(total) - 1 - low
    mel_steps, mel = curve_of(history, "loss/g/mel")
    reach = max(1, len(mel) // 20)
    padded = np.pad(mel, reach, constant_values=np.inf)
    around = np.lib.stride_tricks.sliding_window_view(padded, 2 * reach + 1).min(1) if len(mel) else mel
    minima = sorted(np.flatnonzero(mel == around), key=lambda at: mel[at])
    return GuideReading(
        (steps, total),
        int(steps[low]) if len(total) else None,
        after >= max(LEAST_POINTS, _CLEAR * len(total)),
        [int(mel_steps[at]) for at in minima],
    )


def curve_of(history: History, metric: str) -> Series:
    """A loss as TensorBoard shows it, without outliers: one point per epoch and at least every 200 steps."""
    steps, values = history.series(metric)
    if len(steps) < LEAST_POINTS:
        return steps, values
    epoch_steps = history.last_step / max(1, history.epoch_at(history.last_step))
    interval = max(1, min(round(epoch_steps), _CURVE_STEPS))
    shown = np.diff(steps // interval, prepend=0) > 0
    steps, values = steps[shown], values[shown]
    off = np.abs(values - running_median(values, 2))  # an outlier is a lone point
    kept = off <= max(6 * 1.4826 * np.median(off), 0.05 * np.ptp(np.percentile(values, [5, 95])))
    return steps[kept], values[kept]
