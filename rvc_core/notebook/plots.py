"""The pictures of a training, one small picture a question, each with its answer in words.

Each is a card of its own colours, so that light and dark notebooks show the same, and as wide as a telephone.
"""

import io
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from ..verdict.guide import SMOOTHING, curve_of, read_as_the_guide
from ..verdict.held_out import METRICS, trends_of
from ..verdict.learning_curve import History, Trend
from ..verdict.overtraining import Verdict
from .outcome import course, named, named_voice
from .texts import say

if TYPE_CHECKING:
    from matplotlib.axes import Axes

WIDTH_PIXELS = 440  # of a browser; drawn with twice as many
_LEFT = 0.025  # of the width: where text begins
_INCHES, _DOTS_AN_INCH = (4.4, 2.75), 200
_INK, _QUIET, _GRID, _PAPER = "#1f2a37", "#667180", "#e7e9ed", "#fdfdfb"
_TRAINING, _UNHEARD, _BEST, _LIKELY = "#2a6db0", "#00796b", "#c2410c", "#f0b429"
_STYLE: dict[Any, Any] = {
    "font.size": 9.5,
    "axes.edgecolor": "#c3c9d1",
    "axes.labelcolor": _QUIET,
    "axes.linewidth": 0.8,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": _GRID,
    "grid.linewidth": 0.8,
    "xtick.color": _QUIET,
    "ytick.color": _QUIET,
    "text.color": _INK,
    "figure.facecolor": _PAPER,
    "axes.facecolor": _PAPER,
    "lines.solid_capstyle": "round",
    "legend.frameon": False,
    "legend.fontsize": 8.5,
    "font.family": "DejaVu Sans",
}
MEL_TAGS = ("slice/mel_org", "slice/mel_gen")
_LEAST_DRAWN = 3  # points: fewer are no curve
_FIRST = ("heldout/mel", "unlike/similarity", "loss/g/total")  # what decides, what people ask for, the guide's curve


@dataclass(frozen=True)
class Picture:
    """A picture and what it says, for those who do not see it."""

    png: bytes
    words: str


def pictures(history: History, verdict: Verdict, mels: Mapping[str, bytes]) -> list[Picture]:
    """All that a history has to show, what matters most first; a lone point is not drawn.

    Parameters
    ----------
    mels : mapping of str to bytes
        The newest ``slice/mel_org`` and ``slice/mel_gen`` of TensorBoard, PNG; may be empty.
    """
    drawings = {**_unheard_curves(history, verdict), **_training_curves(history, verdict)}
    order = sorted(drawings, key=lambda name: _FIRST.index(name) if name in _FIRST else len(_FIRST))
    drawn = [drawings[name] for name in order]
    if mels:
        drawn.append(Drawing(say("mels"), " · ".join(MEL_TAGS), say("mels_told"), lambda axes: _mels(axes, mels)))
    return [picture(one) for one in drawn]


class Drawing(NamedTuple):
    """What becomes a picture: its title, the name of it in guides and TensorBoard, its answer, what draws it."""

    title: str
    term: str
    words: str
    draw: Callable[["Axes"], None]


def picture(drawing: Drawing) -> Picture:
    """Draw a card."""
    import matplotlib
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    with matplotlib.rc_context(_STYLE):
        figure = Figure(figsize=_INCHES, dpi=_DOTS_AN_INCH)
        FigureCanvasAgg(figure)
        axes = figure.add_axes((0.11, 0.15, 0.86, 0.62))
        drawing.draw(axes)
        _make_room(axes)
        figure.text(_LEFT, 0.93, drawing.title, fontsize=11, fontweight="bold", va="center")
        figure.text(0.97, 0.93, drawing.term, fontsize=7, color=_QUIET, va="center", ha="right")
        figure.text(_LEFT, 0.845, drawing.words, fontsize=9, color=_QUIET, va="center")
        file = io.BytesIO()
        figure.savefig(file, format="png", facecolor=_PAPER)
    return Picture(file.getvalue(), f"{drawing.title}: {drawing.words}")


def _make_room(axes: "Axes") -> None:
    """Move the curve to the right where the numbers beside it are long, as 0.5345 is: they must not be cut off."""
    labels = [label.get_window_extent() for label in axes.get_yticklabels() if axes.axison]
    missing = _LEFT - min((box.x0 for box in labels), default=1e9) / axes.figure.bbox.width
    if missing > 0:
        left, bottom, width, height = axes.get_position().bounds
        axes.set_position((left + missing, bottom, width - missing, height))


# -- losses of training --------------------------------------------------------------------------------------------
def _training_curves(history: History, verdict: Verdict) -> dict[str, Drawing]:
    points, drawings = verdict.turning_points, {}
    steps, total = curve_of(history, "loss/g/total")
    if len(steps) >= _LEAST_DRAWN:
        guide = read_as_the_guide(history).total
        low = points["loss/g/total"]

        def draw_total(axes: "Axes") -> None:
            axes.plot(history.epochs(steps), total, color=_TRAINING, linewidth=1, alpha=0.3)
            axes.plot(history.epochs(guide[0]), guide[1], color=_TRAINING, linewidth=2)
            _mark(axes, history.epochs(np.array([low["step"]]))[0], guide[1].min(), say("lowest"))
            _limit(axes, total)

        words = say("lowest_turned" if low["turned"] else "lowest_at", epoch=low["epoch"])
        drawings["loss/g/total"] = Drawing(say("curve_total"), f"g/total, smoothed {SMOOTHING}", words, draw_total)
    mel_steps, mel = curve_of(history, "loss/g/mel")
    if len(mel_steps) >= _LEAST_DRAWN:

        def draw_mel(axes: "Axes") -> None:
            axes.plot(history.epochs(mel_steps), mel, color=_TRAINING, linewidth=1)
            for one in verdict.candidates if verdict.state != "cannot_tell" else ():
                height = float(np.interp(one.step, mel_steps, mel))
                if one == verdict.best:
                    _mark(axes, one.epoch, height, say("epoch", epoch=one.epoch))
                else:
                    axes.plot(one.epoch, height, "o", color=_PAPER, markeredgecolor=_BEST, markersize=5)
            _limit(axes, mel)

        drawings["loss/g/mel"] = Drawing(say("curve_mel"), "g/mel", _candidates_in_words(verdict), draw_mel)
    return drawings


def _candidates_in_words(verdict: Verdict) -> str:
    epochs = sorted(one.epoch for one in verdict.candidates)
    if verdict.best is None or not epochs:
        return say("take_none")
    if verdict.state == "cannot_tell":
        return say("lower_better")
    others = ", ".join(str(epoch) for epoch in epochs if epoch != verdict.best.epoch)
    return say("take", voice=named_voice(verdict.best)) + (f"; {say('worth_hearing', epochs=others)}" if others else "")


# -- recordings that training never heard --------------------------------------------------------------------------
def _unheard_curves(history: History, verdict: Verdict) -> dict[str, Drawing]:
    trends = trends_of(history)
    drawings = {}
    for metric, (more, axis, _) in METRICS.items():
        steps, _ = history.series(metric)
        if not axis or len(steps) < _LEAST_DRAWN:
            continue
        trend = trends.get(metric)
        words = f"{say('higher_better' if more else 'lower_better')}: {course(verdict, metric, len(steps))}"
        drawings[metric] = Drawing(named(metric), metric, words, _unheard(history, verdict, metric, trend))
    return drawings


def _unheard(history: History, verdict: Verdict, metric: str, trend: Trend | None) -> Callable[["Axes"], None]:
    steps, values = history.series(metric)
    sign = -1 if METRICS[metric][0] else 1

    def draw(axes: "Axes") -> None:
        axes.plot(history.epochs(steps), values, "o", color=_UNHEARD, markersize=3, alpha=0.55)
        if trend is not None:
            epochs, curve = history.epochs(trend.steps), sign * trend.curve
            axes.fill_between(epochs, curve - trend.noise, curve + trend.noise, color=_UNHEARD, alpha=0.13, linewidth=0)
            axes.plot(epochs, curve, color=_UNHEARD, linewidth=2)
            if trend.turned:
                axes.axvspan(
                    *history.epochs(np.array([trend.earliest_step, trend.latest_step])),
                    color=_LIKELY,
                    alpha=0.3,
                    linewidth=2,
                )  # a line too, where the turn is known to an epoch
            if verdict.best:
                height = sign * trend.at(verdict.best.step)
                _mark(axes, verdict.best.epoch, height, say("epoch", epoch=verdict.best.epoch))
        _limit(axes, values)

    return draw


# -- shapes --------------------------------------------------------------------------------------------------------
def _mark(axes: "Axes", epoch: float, value: float, label: str) -> None:
    """A point, and its name at the upper end of a line through it, where curves seldom are."""
    from matplotlib.patheffects import withStroke

    axes.axvline(epoch, color=_BEST, linewidth=0.8, linestyle=(0, (3, 3)), zorder=1)
    axes.plot(epoch, value, "o", color=_BEST, markersize=6, markeredgecolor=_PAPER, zorder=5)
    late = epoch > np.mean(axes.get_xlim())
    axes.annotate(
        label,
        (epoch, 1),
        (-4 if late else 4, -3),
        xycoords=("data", "axes fraction"),
        va="top",
        zorder=6,
        textcoords="offset points",
        color=_BEST,
        fontweight="bold",
        ha="right" if late else "left",
        path_effects=[withStroke(linewidth=3, foreground=_PAPER)],
    )


def _limit(axes: "Axes", values: np.ndarray) -> None:
    """Heights that show the curve, not its first fall or a lone point."""
    low, high = np.percentile(values, [0, 99 if len(values) > 50 else 100])
    later = values[len(values) // 20 :]
    high = min(high, later.max() + 0.5 * np.ptp(later)) if len(later) else high
    room = 0.12 * (high - low) or 0.01
    axes.set_ylim(low - room, high + 1.5 * room)
    axes.set_xlabel(say("epoch_axis"), labelpad=1)
    axes.locator_params("x", integer=True)


def _mels(axes: "Axes", mels: Mapping[str, bytes]) -> None:
    from matplotlib.image import imread

    axes.set_axis_off()
    for place, tag in enumerate(MEL_TAGS):
        if tag in mels:
            inner = axes.inset_axes((-0.08 + 0.55 * place, -0.14, 0.53, 1.14))
            inner.imshow(imread(io.BytesIO(mels[tag])), aspect="auto", interpolation="bilinear")
            inner.set_axis_off()
