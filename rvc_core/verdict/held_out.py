"""The held-out reading: trends of what was measured on unheard recordings, and what a voice is worth by them."""

from typing import Any

import numpy as np

from .learning_curve import LEAST_POINTS, History, Trend, finite, fit_trend

_LIKENESS = 1 / 3  # what a growing similarity counts for, beside 1 for everything else; both in units of their fall
METRICS = {  # of held-out recordings: higher is better, name of the axis, description
    "heldout/mel": (False, "held-out mel", "mel distance to held-out recordings"),
    "heldout/stft": (False, "", "STFT distance to held-out recordings"),
    "heldout/f0_cents": (False, "f0", "pitch error"),
    "heldout/vuv": (True, "", "voiced/unvoiced agreement"),
    "unlike/similarity": (True, "similarity", "similarity when converting other speakers"),
    "unlike/content": (False, "content", "content lost when converting other speakers"),
    "unlike/f0_correlation": (True, "", "pitch correlation when converting other speakers"),
    "unlike/words": (False, "", "word errors when converting other speakers"),
}
AXES = {axis: metric for metric, (_, axis, _) in METRICS.items() if axis}


def trends_of(history: History) -> dict[str, Trend]:
    """The trend of each held-out metric with enough points. Signs are flipped where needed, so lower is better."""
    return {
        metric: fit_trend(steps, -values if more else values)
        for metric, (more, _, _) in METRICS.items()
        for steps, values in [history.series(metric)]
        if len(values) >= LEAST_POINTS
    }


class Worth:
    """How much worse voices are than one that is best in everything, in units of what training moved each metric.

    Metrics are weighted by their inverse noise variance. Similarity counts fully only where it falls, as it may keep
    rising while the voice gets worse at everything else; its growth counts by `_LIKENESS` for which voice to take.

    Attributes
    ----------
    curve : (array, array) or None
        Steps of the validations that have enough metrics, and all metrics as one.
    whole : Trend or None
        Its trend; None with too few points.
    """

    def __init__(self, history: History, trends: dict[str, Trend]) -> None:
        likeness = AXES["similarity"]
        self._counted = {name: one for name, one in trends.items() if name != likeness or one.turned} or trends
        self._growing = {name: one for name, one in trends.items() if name == likeness and not one.turned}
        rows = {step: _together(row, self._counted) for step, row in history.validations.items()}
        most = max((weight for _, weight in rows.values()), default=0.0)
        known = {step: value for step, (value, weight) in rows.items() if weight and weight >= most / 2}
        self.curve = (np.array([*known], float), np.array([*known.values()])) if len(known) >= LEAST_POINTS else None
        self.whole = fit_trend(*self.curve) if self.curve else None

    def at(self, step: float) -> float:
        """Of the voice of a step, by the trends."""
        assert self.whole is not None
        lost = [(one.at(step) - one.curve.min()) / one.moved for one in self._growing.values()]
        return self.whole.at(step) + _LIKENESS * sum(lost)

    def of(self, row: dict[str, Any]) -> float:
        """Of a voice by its own figures."""
        return _together(row, self._counted)[0] + _LIKENESS * _together(row, self._growing)[0]


def _together(row: dict[str, Any], trends: dict[str, Trend]) -> tuple[float, float]:
    """How far the metrics of a row are from the best of their trends, weighted; and the weight."""
    total = weight = 0.0
    for name, trend in trends.items():
        if (value := finite(row, name)) is not None:
            precision = 1 / max(trend.noise / trend.moved, 0.02) ** 2
            total += precision * ((-value if METRICS[name][0] else value) - trend.curve.min()) / trend.moved
            weight += precision
    return total / (weight or 1.0), weight
