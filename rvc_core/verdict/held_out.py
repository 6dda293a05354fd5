"""The held-out reading: trends of what was measured on unheard recordings, and what a voice is worth by them."""

from collections.abc import Callable

import numpy as np

from .learning_curve import LEAST_POINTS, History, Series, Trend, fit_trend

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


def together(history: History, trends: dict[str, Trend]) -> Series | None:
    """Combine all metrics into one curve: each scaled by its range and weighted by its inverse noise variance.

    Similarity counts only once it falls: it may keep rising while the voice gets worse at everything else.
    """
    if not trends:
        return None
    counted = [name for name, trend in trends.items() if name != AXES["similarity"] or trend.turned]
    total = dict.fromkeys(history.validations, 0.0)
    weight = dict(total)
    for name in counted or list(trends):
        trend, more = trends[name], METRICS[name][0]
        precision = 1 / max(trend.noise / trend.moved, 0.02) ** 2
        for step, value in zip(*history.series(name), strict=True):
            total[int(step)] += precision * ((-value if more else value) - trend.curve.min()) / trend.moved
            weight[int(step)] += precision
    steps = [step for step in total if weight[step] >= max(weight.values()) / 2]  # not every validation has all metrics
    if len(steps) < LEAST_POINTS:
        return None
    return np.array(steps, float), np.array([total[step] / weight[step] for step in steps])


def worth_of(trends: dict[str, Trend], whole: Trend | None) -> Callable[[float], float] | None:
    """How much worse the voice of a step is than one that is best in everything, in units of the fall.

    Similarity is in `whole` only where it falls; here its growth counts too, by `_LIKENESS`.
    """
    if whole is None:
        return None
    likeness = trends.get(AXES["similarity"])

    def worth(step: float) -> float:
        lost = (likeness.at(step) - likeness.curve.min()) / likeness.moved if likeness and not likeness.turned else 0.0
        return whole.at(step) + _LIKENESS * lost

    return worth
