"""The overtraining verdict: which saved voice is the best, whether training went past it, and why we think so.

Two readings of one history. The guide's watches training losses, as people do in TensorBoard; it is reported. The other
watches recordings that training never heard; it decides: a voice is overtrained when those have turned beyond their
noise while the training's own mel loss does not get worse. docs/overtraining.md says how often it is right.
"""

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from ..errors import StageOrderError
from ..system.files import is_locked, read_jsonl
from ..workspace.layout import Layout
from ..workspace.metrics import history as recorded
from .failures import Illness, find_illnesses, illness_of
from .guide import SMOOTHING, GuideReading, read_as_the_guide
from .learning_curve import LEAST_POINTS, History, Series, Trend, fit_trend, running_median

State = Literal["cannot_tell", "undertrained", "good", "overtrained", "collapsed"]

_CANDIDATES = 6
METRICS = {  # of unheard recordings: whether more is better, the axis of the choice, plain words
    "heldout/mel": (False, "held-out mel", "distance to the target's unheard recordings"),
    "heldout/stft": (False, "", "their distance at several resolutions"),
    "heldout/f0_cents": (False, "f0", "pitch error"),
    "heldout/vuv": (True, "", "voiced and unvoiced in the right places"),
    "unlike/similarity": (True, "similarity", "likeness to the target, from other people's speech"),
    "unlike/content": (False, "content", "loss of what other people say"),
    "unlike/f0_correlation": (True, "", "melody of other people's speech"),
    "unlike/words": (False, "", "words of other people misheard"),
}
_AXES = {axis: metric for metric, (_, axis, _) in METRICS.items() if axis}


@dataclass(frozen=True)
class Candidate:
    """A voice worth hearing: why, and what the trends say at its step."""

    epoch: int
    step: int
    path: str | None
    why: tuple[str, ...]
    scores: dict[str, float]


@dataclass(frozen=True)
class Verdict:
    """What a history says.

    Attributes
    ----------
    state : State
        See docs/overtraining.md.
    running : bool
        Whether training goes on.
    epoch : int
        Completed epochs.
    best : Candidate or None
        The recommended voice; its `path` is None where no voice was saved.
    sentence, reasons : str, list of str
        The verdict for a beginner, and its evidence, a line each.
    turning_points : dict
        Per metric: `epoch` and `step` of its best, `epochs_likely`, `turned`, `improving`.
    ranking : list of int
        Steps of the saved voices, the one to keep longest first; empty where nothing tells them apart.
    """

    state: State
    running: bool
    epoch: int
    best: Candidate | None
    candidates: list[Candidate]
    sentence: str
    reasons: list[str]
    turning_points: dict[str, dict[str, Any]]
    illnesses: list[Illness]
    ranking: list[int]

    def as_json(self) -> dict[str, Any]:
        """For ``--json``."""
        return asdict(self)

    def __str__(self) -> str:
        heard = [
            f"  epoch {one.epoch}{f', {one.path}' if one.path else ''}: {', '.join(one.why)}" for one in self.candidates
        ]
        ill = [f"  {one.name} since epoch {one.epoch}: {one.look}\n    {one.remedy}" for one in self.illnesses]
        return "\n".join(
            [
                f"{self.state}{' (still training)' if self.running else ''}: {self.sentence}",
                *(f"  {reason}" for reason in self.reasons),
                *ill,
                "worth hearing:" if heard else "",
                *heard,
            ]
        )


# -- the held-out reading ------------------------------------------------------------------------------------------
def trends_of(history: History) -> dict[str, Trend]:
    """The trend of every metric of unheard recordings that has enough points, turned so that less is better."""
    return {
        metric: fit_trend(steps, -values if more else values)
        for metric, (more, _, _) in METRICS.items()
        for steps, values in [history.series(metric)]
        if len(values) >= LEAST_POINTS
    }


def together(history: History, trends: dict[str, Trend]) -> Series | None:
    """All metrics in one curve: each in units of what training moved it, weighted by how little it scatters.

    Similarity counts only when it falls: a voice that forgets how to speak may go on growing more like its target.
    """
    if not trends:
        return None
    counted = [name for name, trend in trends.items() if name != _AXES["similarity"] or trend.turned]
    total, weight = (dict.fromkeys(history.validations, 0.0) for _ in range(2))
    for name in counted or list(trends):
        trend, more = trends[name], METRICS[name][0]
        trust = 1 / max(trend.noise / trend.moved, 0.02) ** 2
        for step, value in zip(*history.series(name), strict=True):
            total[int(step)] += trust * ((-value if more else value) - trend.curve.min()) / trend.moved
            weight[int(step)] += trust
    steps = [step for step in total if weight[step] >= max(weight.values()) / 2]  # words are not heard every time
    if len(steps) < LEAST_POINTS:
        return None
    return np.array(steps, float), np.array([total[step] / weight[step] for step in steps])


def _training_got_worse(history: History, since: float) -> bool:
    """Whether the training's own mel loss rose after a step, beyond its noise and by more than 3 %."""
    steps, mel = history.series("loss/g/mel")
    span = history.last_step / 10
    then, now = mel[np.abs(steps - since) <= span], mel[steps > history.last_step - span]
    if min(len(then), len(now)) < LEAST_POINTS or since > history.last_step - 2 * span:
        return False
    error = np.hypot(then.std() / len(then) ** 0.5, now.std() / len(now) ** 0.5)
    return bool(now.mean() - then.mean() > max(3 * error, 0.03 * then.mean()))


# -- the verdict ---------------------------------------------------------------------------------------------------
def judge(records: Iterable[dict[str, Any]], *, running: bool = False) -> Verdict:
    """Judge a history; the same records always give the same verdict.

    Parameters
    ----------
    records : iterable of dict
        Rows of ``metrics.jsonl`` (docs/file_formats.md); every loss and metric may be missing.
    running : bool
        Whether training goes on; only repeated in the result.

    Raises
    ------
    RVCError
        When a record has no step or epoch, or there is none that counts.

    Examples
    --------
    >>> rows = [{"kind": "validation", "step": 10 * epoch, "epoch": epoch,
    ...          "heldout/mel": 0.5 + 2.0 ** -epoch + 0.01 * max(0, epoch - 20)} for epoch in range(60)]
    >>> verdict = judge(rows)
    >>> verdict.state, abs(verdict.best.epoch - 20) < 4
    ('overtrained', True)
    """
    history = History.of(records)
    guide, trends = read_as_the_guide(history), trends_of(history)
    whole = fit_trend(*curve) if (curve := together(history, trends)) else None
    illnesses = find_illnesses(history)
    if whole and whole.turned and not illnesses and _training_got_worse(history, whole.best_step):
        illnesses = [illness_of(history, "coming apart", int(whole.best_step) + 1)]
    state = _state(trends, whole, illnesses)
    healthy_until = min((one.step for one in illnesses), default=None)
    candidates = _candidates(history, trends, whole, guide, healthy_until)
    best = next((one for one in candidates if "recommended" in one.why), None)
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
        candidates,
        _sentence(state, best, illnesses),
        _reasons(history, trends, guide),
        points,
        illnesses,
        _ranking(history, curve, best),
    )


def should_stop(verdict: Verdict, patience_epochs: int) -> bool:
    """Whether a training that is to stop by itself has gone on long enough: collapsed, or past its best for so long."""
    if verdict.state == "collapsed":
        return True
    return (
        verdict.state == "overtrained"
        and verdict.best is not None
        and verdict.epoch - verdict.best.epoch >= patience_epochs
    )


def _state(trends: dict[str, Trend], whole: Trend | None, illnesses: list[Illness]) -> State:
    if illnesses:
        return "collapsed"
    if whole is None or not any(name.startswith("heldout/") for name in trends):
        return "cannot_tell"
    if whole.turned:
        return "overtrained"
    return "undertrained" if whole.improving else "good"


def _candidates(
    history: History, trends: dict[str, Trend], whole: Trend | None, guide: GuideReading, healthy_until: int | None
) -> list[Candidate]:
    """The recommended voice, the best on each axis, the guide's, and others that no voice beats in everything."""
    places = history.voices or history.validations or history.steps
    steps = [step for step in places if healthy_until is None or step < healthy_until]
    if not steps:
        return []

    def nearest(step: float) -> int:
        return min(steps, key=lambda one: abs(one - step))

    why: dict[int, list[str]] = {}
    if (recommended := _recommended(history, whole, guide, steps)) is not None:
        why.setdefault(recommended, []).append("recommended")
    axes = {axis: trends[metric] for axis, metric in _AXES.items() if metric in trends}
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
        for step in sorted(why, key=lambda one: ("recommended" not in why[one], one))
    ]


def _recommended(history: History, whole: Trend | None, guide: GuideReading, steps: list[int]) -> int | None:
    """The saved voice next to the best moment: of its two neighbours, the one that the trend finds better."""
    if whole is not None:
        before, after = ([step for step in steps if (step <= whole.best_step) == side] for side in (True, False))
        return min([*before[-1:], *after[:1]], key=whole.at)
    heard, values = history.series("heldout/mel")
    if len(heard):
        return min(steps, key=lambda step: abs(step - heard[values.argmin()]))
    return min(steps, key=lambda step: abs(step - guide.minima[0])) if guide.minima else None


def _ranking(history: History, curve: Series | None, best: Candidate | None) -> list[int]:
    """By the figures themselves: a trend knows of no turn until it is sure, and by then the best would be gone."""
    steps, values = curve or history.series("heldout/mel")
    figures = np.interp(list(history.voices), steps, running_median(values, 2)) if len(steps) else []
    ranked = sorted(zip(figures, history.voices, strict=False), key=lambda pair: (best and pair[1] != best.step, pair))
    return [step for _, step in ranked]


def _unbeaten(steps: list[int], trends: list[Trend]) -> list[int]:
    """The Pareto front: steps that no other matches in everything and beats in something, by a tenth of the noise."""
    if not trends:
        return []
    scores = np.array([[trend.at(step) / max(trend.noise, 1e-12) for trend in trends] for step in steps])
    gaps = scores[:, None] - scores[None]  # how much worse each is than each other
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


def _sentence(state: State, best: Candidate | None, illnesses: list[Illness]) -> str:
    """The verdict as a friend would say it."""
    voice = f"the voice of epoch {best.epoch}" if best else "an earlier voice"
    return {
        "cannot_tell": "there is too little to judge by: hear the voices below and choose"
        + (f", beginning with {voice}." if best else "."),
        "undertrained": f"it is still learning: train on. Until then take {voice}.",
        "good": f"take {voice}: it has learnt what it can from these recordings, and nothing is lost yet.",
        "overtrained": f"take {voice}: after that it learnt its own recordings by heart and got worse on all others.",
        "collapsed": f"this training has failed ({', '.join(one.name for one in illnesses)}): "
        + (f"take {voice}, from before that." if best else "no voice was saved before that."),
    }[state]


def _reasons(history: History, trends: dict[str, Trend], guide: GuideReading) -> list[str]:
    """What the verdict rests on, a line for each metric, and what is missing."""
    lines = []
    for name, trend in trends.items():
        best, low, high = map(history.epoch_at, (trend.best_step, trend.earliest_step, trend.latest_step))
        said = (
            f"best at epoch {best} ({low} to {high} likely), worse since, by {trend.rise / trend.noise:.1f} of its "
            "noise"
            if trend.turned
            else "still improving"
            if trend.improving
            else "level within its noise"
        )
        lines.append(f"{METRICS[name][2]} ({name}): {said}")
    if not any(name.startswith("heldout/") for name in trends):
        lines.append(
            f"recordings of the target that training never heard judge it from {LEAST_POINTS} validations on; "
            f"there are {len(history.series('heldout/mel')[0])}"
        )
    if guide.lowest is not None:
        since = "flat or rising since: here the guide would speak of overtraining" if guide.turned else "no clear turn"
        lines.append(
            f"g/total, smoothed {SMOOTHING}: lowest at epoch {history.epoch_at(guide.lowest)}, {since} "
            "(training losses are reported, they do not decide)"
        )
    return lines


# -- files ---------------------------------------------------------------------------------------------------------
def judge_file(path: Path) -> Verdict:
    """Judge a bare history, such as somebody else's ``metrics.jsonl``.

    Raises
    ------
    RVCError
        When it cannot be read, is damaged, or is no history.
    """
    return judge(read_jsonl(path, "give a metrics.jsonl: one JSON object a line"))


def judge_experiment(layout: Layout) -> Verdict:
    """Judge an experiment by its record and the voices that are still there.

    Raises
    ------
    StageOrderError
        Before training.
    """
    rows = [row | {"path": str(layout.root / str(row["path"]))} if "path" in row else row for row in recorded(layout)]
    rows = [row for row in rows if row.get("kind") != "voice" or Path(row.get("path", "")).is_file()]
    if not rows:
        raise StageOrderError(f"{layout.name!r} has not been trained yet", hint=f"run: rvc train {layout.name}")
    return judge(rows, running=is_locked(layout.lock))
