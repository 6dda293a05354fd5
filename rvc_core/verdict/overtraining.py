"""The overtraining verdict: which saved voice is best, whether training went past it, and the evidence.

The module reads one history twice. The guide's reading uses training losses, as people do in TensorBoard; it is only
reported. The held-out reading decides. A voice is overtrained when the held-out metrics turned beyond their noise while
the training mel loss did not get worse. docs/overtraining.md says how often the verdict is right.
"""

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np

from ..errors import StageOrderError
from ..system.documents import read_jsonl
from ..system.inside import is_regular
from ..system.locks import holder
from ..workspace.layout import Layout, typed
from ..workspace.metrics import history as recorded
from ..workspace.metrics import on_newest_data
from .failures import Failure, failure_of, find_failures
from .guide import SMOOTHING, GuideReading, read_as_the_guide
from .held_out import AXES, METRICS, Worth, trends_of
from .learning_curve import LEAST_POINTS, History, Series, Trend, finite, running_median

NOTHING_HELD_OUT = (
    "no recordings are held out, so there is nothing to judge voices by, however long training runs. Listen to the "
    "voices and choose; or prepare again with holdout_minutes."
)
State = Literal["cannot_tell", "undertrained", "good", "overtrained", "collapsed"]

_CANDIDATES = 6
_LEVEL = 0.02  # of the fall: what is nearer to the best than this, or than half a validation's noise, is as good
_SAME_VOICE = 0.05  # of all steps: what lies nearer to a validation than this has its figures


@dataclass(frozen=True)
class Candidate:
    """A voice worth listening to: the reasons, and the trend of each metric at its step.

    An average of saved voices has its own figures, and `from_epoch`, where the first of them was saved.
    """

    epoch: int
    step: int
    path: str | None
    why: tuple[str, ...]
    scores: dict[str, float]
    from_epoch: int | None = None

    def __str__(self) -> str:
        if self.from_epoch is None:
            return f"the voice of epoch {self.epoch}"
        named = f"{Path(self.path).name}, " if self.path else ""
        return f"{named}the average of epochs {self.from_epoch} to {self.epoch}"


@dataclass(frozen=True)
class Verdict:
    """The verdict of a history.

    Attributes
    ----------
    state : State
        See docs/overtraining.md.
    running : bool
        Whether training is running.
    epoch : int
        Completed epochs.
    best : Candidate or None
        The recommended voice, or where nothing can be told the one to listen to first; its `path` is None if no voice
        was saved there.
    level_from : int or None
        The epoch from which on all voices are as good as the recommended one, within noise; None unless `good`.
    sentence, reasons : str, list of str
        The verdict for a beginner, and one line of evidence per metric.
    turning_points : dict
        Per metric: `epoch` and `step` of its best, `epochs_likely`, `turned`, `improving`.
    ranking : list of int
        Steps of the saved voices, best first; empty without validations.
    """

    state: State
    running: bool
    epoch: int
    best: Candidate | None
    level_from: int | None
    candidates: list[Candidate]
    sentence: str
    reasons: list[str]
    turning_points: dict[str, dict[str, Any]]
    failures: list[Failure]
    ranking: list[int]

    def as_json(self) -> dict[str, Any]:
        """For ``--json``."""
        return asdict(self)

    def __str__(self) -> str:
        voices = [
            f"  {'' if one.from_epoch is None else f'average of {one.from_epoch} to '}epoch {one.epoch}"
            f"{f', {one.path}' if one.path else ''}: {', '.join(one.why)}"
            for one in self.candidates
        ]
        failures = [f"  {one.name} since epoch {one.epoch}: {one.look}\n    {one.remedy}" for one in self.failures]
        return "\n".join(
            [
                f"{self.state}{' (still training)' if self.running else ''}: {self.sentence}",
                *(f"  {reason}" for reason in self.reasons),
                *failures,
                "voices to listen to:" if voices else "",
                *voices,
            ]
        )


def _training_got_worse(history: History, since: float) -> bool:
    """Whether the training mel loss rose after a step, beyond its noise and by more than 3 %."""
    steps, mel = history.series("loss/g/mel")
    span = history.last_step / 10
    then, now = mel[np.abs(steps - since) <= span], mel[steps > history.last_step - span]
    if min(len(then), len(now)) < LEAST_POINTS or since > history.last_step - 2 * span:
        return False
    error = np.hypot(then.std() / len(then) ** 0.5, now.std() / len(now) ** 0.5)
    return bool(now.mean() - then.mean() > max(3 * error, 0.03 * then.mean()))


# -- the verdict ---------------------------------------------------------------------------------------------------
def verdict_of(records: Iterable[dict[str, Any]], *, running: bool = False) -> Verdict:
    """The verdict of a history; the same records always give the same verdict.

    Parameters
    ----------
    records : iterable of dict
        Rows of ``metrics.jsonl`` (docs/file_formats.md); every loss and metric is optional.
    running : bool
        Whether training is running; copied into the result.

    Raises
    ------
    RVCError
        When a record has no step or epoch, or no record is a step, validation or voice.

    Examples
    --------
    >>> rows = [{"kind": "validation", "step": 10 * epoch, "epoch": epoch,
    ...          "heldout/mel": 0.5 + 2.0 ** -epoch + 0.01 * max(0, epoch - 20)} for epoch in range(60)]
    >>> verdict = verdict_of(rows)
    >>> verdict.state, abs(verdict.best.epoch - 20) < 4
    ('overtrained', True)
    """
    history = History.of(records)
    guide, trends = read_as_the_guide(history), trends_of(history)
    worth = Worth(history, trends)
    whole = worth.whole
    failures = find_failures(history)
    if whole and whole.turned and not failures and _training_got_worse(history, whole.best_step):
        failures = [failure_of(history, "divergence", int(whole.best_step) + 1)]
    state = _state(trends, whole, failures)
    failed_at = min((one.step for one in failures), default=None)
    first = "listen first" if state == "cannot_tell" else "recommended"
    candidates = _candidates(history, trends, worth, guide, failed_at, first)
    if state in ("undertrained", "good"):
        candidates = _with_average(candidates, history, worth, first)
    best = next((one for one in candidates if first in one.why), None)
    unjudged = state == "cannot_tell" and len(history.validations) >= LEAST_POINTS and "heldout/mel" not in trends
    level_from = _level_from(history, worth) if state == "good" else None
    points = {name: _turning_point(history, trend) for name, trend in trends.items()}
    for name, step in (("loss/g/total", guide.lowest), ("loss/g/mel", next(iter(guide.minima), None))):
        if step is not None:
            points[name] = {"epoch": history.epoch_at(step), "step": step}
    if guide.lowest is not None:
        points["loss/g/total"]["turned"] = guide.turned
    if guide.minima:
        points["loss/g/mel"]["low_epochs"] = [history.epoch_at(step) for step in guide.minima]
    return Verdict(
        state,
        running,
        history.epoch_at(history.last_step),
        best,
        level_from,
        candidates,
        _unjudged(best) if unjudged else _sentence(state, best, level_from, failures),
        _reasons(history, trends, whole, guide),
        points,
        failures,
        _ranking(history, worth.curve, best),
    )


def should_stop(verdict: Verdict, patience_epochs: int) -> bool:
    """Whether auto-stop applies: training collapsed, or it is overtrained and `patience_epochs` past its best."""
    if verdict.state == "collapsed":
        return True
    return (
        verdict.state == "overtrained"
        and verdict.best is not None
        and verdict.epoch - verdict.best.epoch >= patience_epochs
    )


def _state(trends: dict[str, Trend], whole: Trend | None, failures: list[Failure]) -> State:
    if failures:
        return "collapsed"
    if whole is None or not any(name.startswith("heldout/") for name in trends):
        return "cannot_tell"
    if whole.turned:
        return "overtrained"
    return "undertrained" if whole.improving else "good"


def _candidates(
    history: History,
    trends: dict[str, Trend],
    worth: Worth,
    guide: GuideReading,
    failed_at: int | None,
    first: str,
) -> list[Candidate]:
    """The recommended voice, whose reasons hold `first`, the best on each axis, the guide's, and the Pareto front."""
    places = history.voices or history.validations or history.steps
    steps = [step for step in places if failed_at is None or step < failed_at]
    if not steps:
        return []

    def nearest(step: float) -> int:
        return min(steps, key=lambda one: abs(one - step))

    why: dict[int, list[str]] = {}
    if (recommended := _recommended(history, worth, guide, steps)) is not None:
        why.setdefault(recommended, []).append(first)
    axes = {axis: trends[metric] for axis, metric in AXES.items() if metric in trends}
    for axis, trend in axes.items():
        why.setdefault(nearest(trend.best_step), []).append(f"best {axis}")
    if guide.minima:
        why.setdefault(nearest(guide.minima[0]), []).append("lowest mel")
    for low in guide.minima[1:_CANDIDATES] if not trends else []:
        why.setdefault(nearest(low), ["low mel"])
    front = [step for step in _unbeaten(steps, list(axes.values())) if step not in why]
    for index in np.linspace(0, len(front) - 1, min(len(front), max(0, _CANDIDATES - len(why)))).round().astype(int):
        why[front[index]] = ["unbeaten"]

    def scores(step: int) -> dict[str, float]:
        return {
            name: round(-trend.at(step) if METRICS[name][0] else trend.at(step), 4) for name, trend in trends.items()
        }

    return [
        Candidate(places[step]["epoch"], step, places[step].get("path"), tuple(why[step]), scores(step))
        for step in sorted(why, key=lambda one: (first not in why[one], one))
    ]


def _with_average(candidates: list[Candidate], history: History, worth: Worth, first: str) -> list[Candidate]:
    """The average that was made at the newest step, in the place of that step's voice: if it measures better than the
    first candidate.
    """
    average = history.averages.get(history.last_step)
    if average is None or worth.whole is None or not candidates or worth.of(average) >= worth.at(candidates[0].step):
        return candidates
    scores = {name: value for name in METRICS if (value := finite(average, name)) is not None}
    place = average["epoch"], average["step"], average.get("path")
    made = Candidate(*place, (first,), scores, average["from_epoch"])
    others = [one for one in candidates if one.step != made.step]
    return [
        made,
        *(replace(one, why=tuple(why for why in one.why if why != first) or ("best single",)) for one in others),
    ]


def _level_from(history: History, worth: Worth) -> int:
    """The epoch from which on the voices are as good as the best, within noise."""
    assert (whole := worth.whole) is not None, "or nothing could be told"
    values = [worth.at(step) for step in whole.steps]
    worse = np.flatnonzero(np.array(values) > min(values) + max(whole.noise / 2, _LEVEL * np.ptp(whole.curve)))
    level = whole.steps[worse[-1] + 1 if len(worse) else 0]
    later = [row["epoch"] for step, row in history.voices.items() if step >= level]
    return later[0] if later else history.epoch_at(level)


def _recommended(history: History, worth: Worth, guide: GuideReading, steps: list[int]) -> int | None:
    """The measured voice that is worth most; the last if none is measured.

    Without any validation the guide's lowest mel decides.
    """
    validations = [step for step, row in history.validations.items() if row.keys() & METRICS]
    if not validations:
        return min(steps, key=lambda step: abs(step - guide.minima[0])) if guide.minima else None
    near = _SAME_VOICE * history.last_step
    measured = [step for step in steps if min(abs(step - one) for one in validations) <= near]
    if not measured:
        return steps[-1]
    if worth.whole is not None:
        return min(reversed(measured), key=worth.at)
    validated, values = history.series("heldout/mel")
    if not len(validated):
        return steps[-1]
    best = min(measured, key=lambda step: values[np.abs(validated - step).argmin()])
    return steps[-1] if best == measured[-1] else best  # still improving: the last is at least as good


def _ranking(history: History, curve: Series | None, best: Candidate | None) -> list[int]:
    """Rank by the metrics, not by the trend: the trend confirms a turn late, after the best voice would be deleted."""
    steps, values = curve or history.series("heldout/mel")
    figures = np.interp(list(history.voices), steps, running_median(values, 2)) if len(steps) else []
    ranked = sorted(zip(figures, history.voices, strict=False), key=lambda pair: (best and pair[1] != best.step, pair))
    return [step for _, step in ranked]


def _unbeaten(steps: list[int], trends: list[Trend]) -> list[int]:
    """The Pareto front: no other step is as good in everything and better in something, by a tenth of the noise."""
    if not trends:
        return []
    scores = np.array([[trend.at(step) / max(trend.noise, 1e-12) for trend in trends] for step in steps])
    gaps = scores[:, None] - scores[None]  # how much worse each step is than each other
    beaten = ((gaps > -0.1).all(-1) & (gaps > 0.1).any(-1)).any(1)
    return [step for step, is_beaten in zip(steps, beaten, strict=True) if not is_beaten]


def _turning_point(history: History, trend: Trend) -> dict[str, Any]:
    return {
        "epoch": history.epoch_at(trend.best_step),
        "step": round(trend.best_step),
        "turned": trend.turned,
        "epochs_likely": [history.epoch_at(trend.earliest_step), history.epoch_at(trend.latest_step)],
        "improving": trend.improving,
    }


def _sentence(state: State, best: Candidate | None, level_from: int | None, failures: list[Failure]) -> str:
    """The verdict in one or two plain sentences."""
    voice = str(best) if best else "an earlier voice"
    return {
        "cannot_tell": "there are too few validations on held-out recordings. Listen to the voices below and choose"
        + (f", starting with {voice}." if best else "."),
        "undertrained": f"the voice still improves: train longer. Until then, take {voice}.",
        "good": f"take {voice}. From epoch {level_from} on, more training neither helps nor harms.",
        "overtrained": f"take {voice}: after that it got worse on recordings that it never heard.",
        "collapsed": f"training failed ({', '.join(one.name for one in failures)}): "
        + (f"take {voice}, saved before that." if best else "no voice was saved before that."),
    }[state]


def _unjudged(best: Candidate | None) -> str:
    return NOTHING_HELD_OUT + (f" Begin with {best}." if best else "")


def _reasons(history: History, trends: dict[str, Trend], whole: Trend | None, guide: GuideReading) -> list[str]:
    """The evidence: all metrics as one, each metric, and what is missing."""

    def course(trend: Trend) -> str:
        best, low, high = map(history.epoch_at, (trend.best_step, trend.earliest_step, trend.latest_step))
        if trend.turned:
            rise = f"by {trend.rise / trend.noise:.1f} × noise"
            return f"best at epoch {best} (likely {low} to {high}), then worse {rise}" if best else f"worse {rise}"
        return "still gets better" if trend.improving else "no longer changes beyond its noise"

    lines = [f"{METRICS[name][2]} ({name}): {course(trend)}" for name, trend in trends.items()]
    if any(name.startswith("heldout/") for name in trends):
        lines[:0] = [f"all of these together, which decides: {course(whole)}"] if whole else []
    else:
        lines.append(
            f"{len(history.series('heldout/mel')[0])} of the {LEAST_POINTS} validations on held-out recordings that a "
            "verdict needs"
        )
    if guide.lowest is not None:
        since = "flat or rising since: guides would call it overtrained" if guide.turned else "no clear turn"
        lines.append(
            f"training loss g/total, which guides read (smoothed {SMOOTHING}): lowest at epoch "
            f"{history.epoch_at(guide.lowest)}, {since}; it does not decide here"
        )
    return lines


# -- files ---------------------------------------------------------------------------------------------------------
def verdict_of_file(path: Path) -> Verdict:
    """The verdict of a ``metrics.jsonl`` outside an experiment."""
    return verdict_of(read_jsonl(path, dict[str, Any], "choose a metrics.jsonl with one JSON object per line"))


def verdict_of_experiment(layout: Layout, and_rows: Sequence[dict[str, Any]] = ()) -> Verdict:
    """The verdict of an experiment, from its metrics, rows not written yet, and the voices that still exist."""
    rows = [
        row
        for row in on_newest_data(recorded(layout))
        if row["kind"] not in ("voice", "average") or is_regular(layout.root / row.get("path", ""))
    ]
    rows = [row | {"path": str(layout.root / row["path"])} if "path" in row else row for row in [*rows, *and_rows]]
    if not rows:
        raise StageOrderError(f"{layout.name!r} has not been trained yet", hint=f"run: rvc train {typed(layout.name)}")
    verdict = verdict_of(rows, running=bool(holder(layout.lock)))
    if verdict.state != "cannot_tell" or any(layout.heldout.clips.glob("*.wav")):
        return verdict
    return replace(verdict, sentence=_unjudged(verdict.best))
