"""The learning curve of one metric: its points, their trend, and whether the trend turned upwards. Pure arithmetic.

The model of a curve is a fall that slows down (at most two exponentials) plus an optional rise from some step on
(straight, accelerating or levelling off). Every combination on a grid of speeds and onsets is fitted by least squares.
The fits are averaged, weighted by how well they explain the points. This gives the trend an uncertainty.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from ..errors import RVCError

Rows = dict[int, dict[str, Any]]
Series = tuple[np.ndarray, np.ndarray]  # steps, values

LEAST_POINTS = 8  # with fewer points, a turn cannot be told from chance
_LARGEST = 1e30  # larger losses count as infinite
_FALLS = 10  # number of decay speeds
_ONSETS = np.linspace(0, 0.9, 19)  # where a rise begins, as a share of the run
_GRID = np.linspace(0, 1, 201)  # where trends are evaluated
_CLIP = 2.5  # residuals are clipped to this many standard deviations
_EVIDENCE = 12.0  # twice the log-likelihood that a rise must add
_RISE = 1.0  # smallest rise, in units of one validation's noise
_MATERIAL = 0.02  # smallest rise, as a share of the metric's whole range


@dataclass(frozen=True)
class History:
    """Rows of ``metrics.jsonl`` in order. Rows that were repeated after a resume replace the earlier ones.

    Attributes
    ----------
    steps, validations, voices, averages : dict of int to dict
        Step → row; an average is of saved voices, made at that step.
    """

    steps: Rows
    validations: Rows
    voices: Rows
    averages: Rows

    @classmethod
    def of(cls, records: Iterable[dict[str, Any]]) -> "History":
        """Sort records by kind. When a step number repeats or goes back, the rows from there on are replaced."""
        kinds: dict[str, Rows] = {"step": {}, "validation": {}, "voice": {}, "average": {}}
        for number, row in enumerate(records, 1):
            rows = kinds.get(str(row.get("kind")))
            if rows is None:
                continue
            for name in ("step", "epoch"):
                if not _is_count(row.get(name)):
                    raise RVCError(
                        f"record {number} of the history has no valid {name}",
                        hint='each record needs whole numbers: {"kind": "step", "step": 1, "epoch": 1}',
                    )
            step = int(row["step"])
            while rows and next(reversed(rows)) > step:
                rows.popitem()
            rows[step] = {**rows.get(step, {}), **row, "step": step, "epoch": int(row["epoch"])}
        if not any(kinds.values()):
            raise RVCError(
                "the history has no step, validation or voice records",
                hint='choose a metrics.jsonl with lines like {"kind": "step", "step": 1, "epoch": 1, …}',
            )
        return cls(*kinds.values())

    @cached_property
    def last_step(self) -> int:
        """The newest recorded step."""
        return max(next(reversed(rows), 0) for rows in (self.steps, self.validations, self.voices))

    def epochs(self, steps: np.ndarray) -> np.ndarray:
        """Completed epochs at steps, interpolated between records."""
        pairs = {0: 0} | {
            row["step"]: row["epoch"] for rows in (self.validations, self.voices) for row in rows.values()
        }
        if self.steps and self.last_step not in pairs:
            pairs[self.last_step] = self.steps[next(reversed(self.steps))]["epoch"]
        known = sorted(pairs)
        return np.interp(steps, known, [pairs[one] for one in known])

    def epoch_at(self, step: float) -> int:
        """Completed epochs at a step, rounded."""
        return round(float(self.epochs(np.array(step))))

    def series(self, metric: str) -> Series:
        """Steps and finite values of a metric. Losses come from step rows, other metrics from validations."""
        rows = self.steps if metric.startswith("loss/") else self.validations
        found = [(step, value) for step, row in rows.items() if (value := finite(row, metric)) is not None]
        steps, values = zip(*found, strict=True) if found else ((), ())
        return np.array(steps, float), np.array(values, float)

    def not_finite_since(self) -> int | None:
        """First step from which every row of its kind has a NaN or an infinite value; None if the newest is finite."""
        begun = []
        for rows in (self.steps, self.validations):
            for step in reversed(rows):
                if all(abs(value) < _LARGEST for value in rows[step].values() if _is_number(value)):
                    break
                begun.append(step)
        return min(begun, default=None)


def finite(row: dict[str, Any], metric: str) -> float | None:
    """A metric in a row; None where there is none, or none that is finite."""
    value: Any = row.get(metric)
    return value if _is_number(value) and abs(value) < _LARGEST else None


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _is_count(value: Any) -> bool:
    return _is_number(value) and 0 <= value <= 1e12 and value == int(value)


@dataclass(frozen=True)
class Trend:
    """The trend of a metric for which lower is better.

    Attributes
    ----------
    steps, curve : np.ndarray
        (201,) steps from the first to the last point, and the expected value at each.
    best_step, earliest_step, latest_step : float
        Step of the lowest point, and its 90 % interval; the last step if the curve has not turned.
    noise : float
        Standard deviation of the values around the trend.
    rise : float
        How far the curve ends above its lowest point.
    turned : bool
        Whether it rose again, beyond noise and chance.
    improving : bool
        Whether it still falls in the last fifth.
    """

    steps: np.ndarray
    curve: np.ndarray
    best_step: float
    earliest_step: float
    latest_step: float
    noise: float
    rise: float
    turned: bool
    improving: bool

    def at(self, step: float) -> float:
        """Expected value at a step."""
        return float(np.interp(step, self.steps, self.curve))

    @property
    def moved(self) -> float:
        """Range of the curve, and at least four times the noise."""
        return float(max(np.ptp(self.curve), 4 * self.noise, 1e-12))


def _combinations() -> np.ndarray:
    """Which rows of `_shapes` make one curve: the level, 0 to 2 falls, 0 or 1 rise. Row 0 fills unused places."""
    falls = range(2, 2 + _FALLS)
    pairs = [(0, 0), *((0, one) for one in falls), *((one, two) for one in falls for two in falls if one < two)]
    rises = (0, *range(2 + _FALLS, 2 + _FALLS + 3 * len(_ONSETS)))
    return np.array([(1, *pair, rise) for rise in rises for pair in pairs])


_MODELS = _combinations()
_SIZES = 1 + 2 * (_MODELS[:, 1:] > 0).sum(1)  # parameters: each fall or rise has a height, and a speed or an onset
_RISING = _MODELS[:, 3] > 0


def _shapes(times: np.ndarray, points: int) -> np.ndarray:
    """Zeros, a constant, falls and rises at `times` within 0..1: (69, T)."""
    falls = [np.exp(-speed * times) for speed in np.geomspace(0.5, 4 * points, _FALLS)]
    since = [np.maximum(times - onset, 0) / (1 - onset) for onset in _ONSETS]
    rises = [*since, *(x**2 for x in since), *(1 - np.exp(-4 * x) for x in since)]
    return np.stack([0 * times, 1 + 0 * times, *falls, *rises])


def fit_trend(steps: np.ndarray, values: np.ndarray) -> Trend:
    """Fit the trend of at least `LEAST_POINTS` values for which lower is better.

    Outliers are clipped to 2.5 standard deviations. Correlated neighbouring residuals count as fewer points.

    Examples
    --------
    >>> steps = np.arange(0, 1000, 20)
    >>> bowl = np.exp(-steps / 100) + np.maximum(0, steps - 500) / 1000 + 0.01 * np.cos(7.0 * steps)
    >>> trend = fit_trend(steps, bowl)
    >>> trend.turned, round(trend.best_step, -2)
    (True, 500.0)
    """
    points = len(values)
    centre, scale = np.median(values), np.ptp(np.percentile(values, [5, 95])) or 1.0
    scaled, times = (values - centre) / scale, (steps - steps[0]) / (steps[-1] - steps[0])
    shapes = _shapes(times, points)
    products = shapes @ shapes.T
    inverses = np.linalg.inv(products[_MODELS[:, :, None], _MODELS[:, None, :]] + 1e-7 * points * np.eye(4))
    fitted = running_median(scaled, 2)
    noise = 2 * float(np.median(np.abs(scaled - fitted))) + 1e-3
    for _ in range(4):
        calm = fitted + np.clip(scaled - fitted, -_CLIP * noise, _CLIP * noise)
        projections = (shapes @ calm)[_MODELS]
        heights = np.einsum("mij,mj->mi", inverses, projections)
        errors = np.maximum(calm @ calm - np.einsum("mi,mi->m", heights, projections), 0) + 1e-6 * points
        errors[(heights[:, 1:] < 0).any(1) | (points - 2 < _SIZES)] = np.inf  # no negative falls or rises
        best = int(np.argmin(points * np.log(errors) + _SIZES * np.log(points)))
        fitted = heights[best] @ shapes[_MODELS[best]]
        noise = float(np.sqrt(errors[best] / (points - _SIZES[best])))
    residuals = calm - fitted
    alike = np.clip(residuals[1:] @ residuals[:-1] / (residuals @ residuals + 1e-12), 0, 0.8)
    independent = (points - _SIZES[best]) * (1 - alike) / (1 + alike)
    evidence = independent * np.log(errors[~_RISING].min() / errors[_RISING].min())
    weights = np.exp(-(independent * np.log(errors / errors[best]) + (_SIZES - _SIZES[best]) * np.log(points)) / 2)
    on_grid = heights, _shapes(_GRID, points)
    curve, lowest = _average(np.where(_RISING, weights, 0), *on_grid)
    rise = curve[-1] - curve.min()
    turned = bool(evidence > _EVIDENCE and rise > max(_RISE * noise, _MATERIAL * np.ptp(curve)))
    if not turned:
        curve, lowest = _average(np.where(_RISING, 0, weights), *on_grid)
        rise = 0.0
    drop = curve[4 * len(_GRID) // 5] - curve[-1]
    low, middle, high = steps[0] + np.array(lowest) * (steps[-1] - steps[0])
    return Trend(
        np.interp(_GRID, times, steps),
        curve * scale + centre,
        float(middle),
        float(low),
        float(high),
        noise * float(scale),
        float(rise * scale),
        turned,
        not turned and bool(drop > max(noise / 2, _MATERIAL / 2 * np.ptp(curve))),
    )


def _average(weights: np.ndarray, heights: np.ndarray, shapes: np.ndarray) -> tuple[np.ndarray, list[float]]:
    """Weighted mean curve on the grid, and the 5 %, 50 % and 95 % quantiles of the lowest points."""
    if not weights.max() > 0:
        return np.zeros(len(_GRID)), [1.0] * 3
    chosen = np.flatnonzero(weights > 1e-3 * weights.max())
    share = weights[chosen] / weights[chosen].sum()
    curves = np.einsum("mi,mig->mg", heights[chosen], shapes[_MODELS[chosen]])
    lowest = np.where(np.ptp(curves, axis=1) < 1e-9, 1.0, _GRID[curves.argmin(1)])
    order = np.argsort(lowest)
    reached = np.searchsorted(np.cumsum(share[order]), [0.05, 0.5, 0.95])
    return share @ curves, lowest[order][np.minimum(reached, len(order) - 1)].tolist()


def running_median(values: np.ndarray, reach: int) -> np.ndarray:
    """Median over `reach` neighbours on each side; the ends are padded with the outermost value.

    Examples
    --------
    >>> running_median(np.array([1.0, 9.0, 1.0, 2.0]), 1)
    array([1., 1., 2., 2.])
    """
    reach = min(reach, len(values) - 1)
    padded = np.pad(values, reach, mode="edge")
    return np.median(np.lib.stride_tricks.sliding_window_view(padded, 2 * reach + 1), axis=1)
