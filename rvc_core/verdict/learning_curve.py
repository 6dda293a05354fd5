"""What a history says about one metric: its points, their trend, and whether that has turned. Pure arithmetic.

A learning curve is taken as a fall that slows down (at most two exponentials) plus, perhaps, a rise from some moment on
(straight, growing, or levelling off). Every combination on a grid of speeds and moments is fitted by least squares;
how well each explains the points is its weight. So the trend comes with an uncertainty, and no single fit decides.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from ..errors import RVCError

Rows = dict[int, dict[str, Any]]
Series = tuple[np.ndarray, np.ndarray]  # steps, values

LEAST_POINTS = 8  # fewer cannot tell a turn from chance
_LARGEST = 1e30  # beyond it a loss is infinite for our purposes
_FALLS = 10  # speeds of falling
_ONSETS = np.linspace(0, 0.9, 19)  # when a rise begins, as a share of the run
_GRID = np.linspace(0, 1, 201)  # where trends are evaluated
_CLIP = 2.5  # residuals beyond so many standard deviations count as that many
_EVIDENCE = 12.0  # twice the log-likelihood that a rise must add
_RISE = 1.0  # of the noise of one validation: what a rise must reach
_MATERIAL = 0.02  # of all that training moved the metric: what anybody would call a change


@dataclass(frozen=True)
class History:
    """Rows of ``metrics.jsonl`` in order, those that a resume repeated replaced.

    Attributes
    ----------
    steps, validations, voices : dict of int to dict
        Step → row.
    """

    steps: Rows
    validations: Rows
    voices: Rows

    @classmethod
    def of(cls, records: Iterable[dict[str, Any]]) -> "History":
        """Sort records by kind; a step that comes again, or an earlier one, drops what came after it before.

        Raises
        ------
        RVCError
            When a record has no step or epoch, or there is none that counts.
        """
        kinds: dict[str, Rows] = {"step": {}, "validation": {}, "voice": {}}
        for number, row in enumerate(records, 1):
            rows = kinds.get(str(row.get("kind")))
            if rows is None:
                continue
            for name in ("step", "epoch"):
                if not _is_count(row.get(name)):
                    raise RVCError(
                        f"record {number} of the history has no {name}",
                        hint='each needs a whole number, such as {"kind": "step", "step": 1, "epoch": 1}',
                    )
            step = int(row["step"])
            while rows and next(reversed(rows)) > step:
                rows.popitem()
            rows[step] = {**rows.get(step, {}), **row, "step": step, "epoch": int(row["epoch"])}
        if not any(kinds.values()):
            raise RVCError(
                "the history holds no step, validation or voice",
                hint='give a metrics.jsonl: lines such as {"kind": "step", "step": 1, "epoch": 1, …}',
            )
        return cls(kinds["step"], kinds["validation"], kinds["voice"])

    @cached_property
    def last_step(self) -> int:
        """Newest step that anything is known of."""
        return max(next(reversed(rows), 0) for rows in (self.steps, self.validations, self.voices))

    def epochs(self, steps: np.ndarray) -> np.ndarray:
        """Completed epochs at steps; between two records, in proportion."""
        pairs = {0: 0} | {
            row["step"]: row["epoch"] for rows in (self.validations, self.voices) for row in rows.values()
        }
        if self.steps and self.last_step not in pairs:
            pairs[self.last_step] = self.steps[next(reversed(self.steps))]["epoch"]
        known = sorted(pairs)
        return np.interp(steps, known, [pairs[one] for one in known])

    def epoch_at(self, step: float) -> int:
        """Completed epochs at a step, in whole ones."""
        return round(float(self.epochs(np.array(step))))

    def series(self, metric: str) -> Series:
        """Steps and values of a metric wherever it was recorded as a finite number; losses from step rows."""
        rows = self.steps if metric.startswith("loss/") else self.validations
        found = [
            (step, row[metric])
            for step, row in rows.items()
            if _is_number(row.get(metric)) and abs(row[metric]) < _LARGEST
        ]
        steps, values = zip(*found, strict=True) if found else ((), ())
        return np.array(steps, float), np.array(values, float)

    def not_finite_since(self) -> int | None:
        """From which step on every row, up to the newest of its kind, holds a number that is none, or infinite."""
        begun = []
        for rows in (self.steps, self.validations):
            for step in reversed(rows):
                if all(abs(value) < _LARGEST for value in rows[step].values() if _is_number(value)):
                    break
                begun.append(step)
        return min(begun, default=None)


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _is_count(value: Any) -> bool:
    return _is_number(value) and 0 <= value <= 1e12 and value == int(value)


@dataclass(frozen=True)
class Trend:
    """The trend of a metric of which less is better.

    Attributes
    ----------
    steps, curve : np.ndarray
        (201,) from the first to the last point: the expected value there.
    best_step, earliest_step, latest_step : float
        Where the lowest point lies, and the 90 % interval around it; the last step if the curve has not turned.
    noise : float
        Standard deviation of one value around the trend.
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
        """How far training has moved the metric; at least what its noise would feign."""
        return float(max(np.ptp(self.curve), 4 * self.noise, 1e-12))


def _combinations() -> np.ndarray:
    """Rows of `_shapes` that make one curve: level, no to two falls, no or one rise (row 0 is nothing)."""
    falls = range(2, 2 + _FALLS)
    pairs = [(0, 0), *((0, one) for one in falls), *((one, two) for one in falls for two in falls if one < two)]
    rises = (0, *range(2 + _FALLS, 2 + _FALLS + 3 * len(_ONSETS)))
    return np.array([(1, *pair, rise) for rise in rises for pair in pairs])


_MODELS = _combinations()
_SIZES = 1 + 2 * (_MODELS[:, 1:] > 0).sum(1)  # a height each, and a speed or a moment
_RISING = _MODELS[:, 3] > 0


def _shapes(times: np.ndarray, points: int) -> np.ndarray:
    """Nothing, a level, falls and rises at `times` within 0..1: (69, T)."""
    falls = [np.exp(-speed * times) for speed in np.geomspace(0.5, 4 * points, _FALLS)]
    since = [np.maximum(times - onset, 0) / (1 - onset) for onset in _ONSETS]
    rises = [*since, *(x**2 for x in since), *(1 - np.exp(-4 * x) for x in since)]
    return np.stack([0 * times, 1 + 0 * times, *falls, *rises])


def fit_trend(steps: np.ndarray, values: np.ndarray) -> Trend:
    """Fit the trend of at least `LEAST_POINTS` values of which less is better.

    Outliers are pulled in to 2.5 standard deviations. Neighbouring residuals that are alike count as fewer points.

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
        errors[(heights[:, 1:] < 0).any(1) | (points - 2 < _SIZES)] = np.inf  # falls fall, rises rise
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
    """Weighted mean curve on the grid, and 5 %, 50 % and 95 % of where the curves are lowest."""
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
    """Median over `reach` neighbours on both sides; at the ends the outermost value stands for those beyond.

    Examples
    --------
    >>> running_median(np.array([1.0, 9.0, 1.0, 2.0]), 1)
    array([1., 1., 2., 2.])
    """
    reach = min(reach, len(values) - 1)
    padded = np.pad(values, reach, mode="edge")
    return np.median(np.lib.stride_tricks.sliding_window_view(padded, 2 * reach + 1), axis=1)
