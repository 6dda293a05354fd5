"""What a training came to, in the reader's language: how it goes or ended, which epoch to take, what to run next."""

import re
from collections.abc import Iterator, Mapping
from typing import Any, cast

from ..training.beacon import BeaconState, stalled
from ..verdict.failures import Failure
from ..verdict.held_out import METRICS
from ..verdict.learning_curve import LEAST_POINTS, History
from ..verdict.overtraining import NOTHING_HELD_OUT, Candidate, Verdict
from .texts import say, translated

_LEAST_STEPS, _LEAST_SECONDS = 20, 30.0  # before these, a time left would be a guess


def headline(verdict: Verdict, minutes_left: float | None = None) -> str:
    """How a running training goes, and what to do.

    Parameters
    ----------
    minutes_left : float, optional
        None: not known yet.
    """
    if verdict.sentence.startswith(NOTHING_HELD_OUT):
        sentence = say("goes_unjudged")
    elif verdict.best is None or verdict.state == "cannot_tell":
        sentence = say("goes_collapsed" if verdict.state == "collapsed" else "goes_cannot_tell")
    else:
        sentence = say(f"goes_{verdict.state}", epoch=verdict.best.epoch, since=verdict.level_from)
    if verdict.state in ("cannot_tell", "undertrained") and minutes_left is not None:
        return f"{sentence} {say('time_left', time=in_words(minutes_left))}"
    return sentence


def ending(verdict: Verdict | None, record: Mapping[str, Any]) -> str:
    """How a training ended, which epoch to take, and which cell comes next.

    Parameters
    ----------
    record : dict
        `training.outcome.run_record`; empty for a training in the foreground.
    """
    if verdict is None:
        return say("nothing_trained")
    how = "failed" if record.get("state") == "failed" else record.get("report", {}).get("stopped_by", "unknown")
    ended = say(f"ended_{how}", epoch=verdict.epoch, count=verdict.epoch)
    return f"{ended} {advice(verdict)}" + (f" {say('next_listen')}" if verdict.best else "")


def advice(verdict: Verdict) -> str:
    """Which voice to take, and why."""
    if verdict.best is None:
        return say("take_none")
    return say(f"take_{verdict.state}", voice=named_voice(verdict.best), since=verdict.level_from)


def named_voice(voice: Candidate) -> str:
    """A voice within a sentence."""
    if voice.from_epoch is None:
        return say("the_epoch", epoch=voice.epoch)
    return say("the_average", first=voice.from_epoch, last=voice.epoch)


def in_words(minutes: float) -> str:
    """A time that is left, as coarse as it is known.

    Examples
    --------
    >>> [in_words(minutes) for minutes in (0.4, 7.2, 43, 200)]
    ['a minute', '7 minutes', '45 minutes', '3 h 20 min']
    """
    coarse = round(minutes) if minutes < 10 else 5 * round(minutes / 5)
    if coarse <= 1:
        return say("a_minute")
    return say("minutes", count=coarse) if coarse < 90 else say("hours", hours=coarse // 60, minutes=coarse % 60)


# -- what the trainer tells of itself --------------------------------------------------------------------------------
def minutes_left(state: Mapping[str, Any]) -> float | None:
    """Minutes to the end, or to the end of the time that is allowed; None before that is more than a guess.

    Parameters
    ----------
    state : dict
        What a `progress.Beacon` wrote.
    """
    usual = state.get("usual_seconds")
    if not usual or state["done"] < _LEAST_STEPS or state["done"] * usual < _LEAST_SECONDS:
        return None
    told = re.search(r"(\d+) min left", state["note"])
    return float(told[1]) if told else (state["total"] - state["done"]) * usual / 60


def progress_line(state: Mapping[str, Any], now: float | None = None) -> str:
    """Where the training is; that it stands still, if it does.

    Examples
    --------
    >>> state = {"label": "training", "total": 300, "done": 100, "note": "epoch 34/100", "usual_seconds": 1, "time": 0}
    >>> progress_line(state, now=0.0)
    'Epoch 34 of 100, step 100 of 300.'
    """
    if state.get("label") != "training":
        return ""
    epoch = re.search(r"epoch (\d+)/(\d+)", state["note"])
    steps = {"done": state["done"], "total": state["total"]}
    line = say("at_epoch", epoch=epoch[1], epochs=epoch[2], **steps) if epoch else say("at_step", **steps)
    enough = re.search(r"enough for (\d+) epochs", state["note"])
    if enough and minutes_left(state) is not None:
        line += " " + say("time_for", epoch=enough[1])
    return line + (" " + say("stands_still") if stalled(cast(BeaconState, state), now) else "")


# -- the evidence --------------------------------------------------------------------------------------------------
def named(metric: str) -> str:
    """What a beginner calls a metric."""
    return say("metric_" + metric.replace("/", "_"))


def course(verdict: Verdict, metric: str, points: int) -> str:
    """How a metric of unheard recordings goes."""
    point = verdict.turning_points.get(metric)
    if point is None:
        return say("few_points", points=points, least=LEAST_POINTS)
    if point["turned"]:
        return say("worse_since", epoch=point["epoch"])
    return say("still_improving" if point["improving"] else "level")


def evidence(history: History, verdict: Verdict) -> Iterator[str]:
    """One line for each metric: its name, the guide's, and how it goes."""
    for metric in METRICS:
        points = len(history.series(metric)[0])
        if points:
            yield f"{named(metric)} ({metric}): {course(verdict, metric, points)}"
    if low := verdict.turning_points.get("loss/g/total"):
        yield f"{say('curve_total')} (g/total): {say('lowest_at', epoch=low['epoch'])}; {say('for_information')}"


def failure_line(failure: Failure) -> str:
    """What went wrong, since when, and what to do; the name of it stays, as everybody searches for it."""
    look, remedy = translated(failure.look), translated(failure.remedy)
    return say("failure", name=failure.name, epoch=failure.epoch, look=look, remedy=remedy)
