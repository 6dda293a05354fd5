"""How training fails: how each failure is detected in the metrics, what it looks like, and what to do. Pure."""

from dataclasses import dataclass

import numpy as np

from .learning_curve import History, running_median

_LASTING = 3  # a failure must show in at least this many of the newest points in a row
_DISCRIMINATORS = 6  # v1 and nano; v2 has nine. Used when the history does not record the number
_KL_CAP = 9.0  # top of RVC's KL display
_SILENT_NEPERS = -2.5  # 22 dB quieter than the recording
_STILL = 0.25  # share of the recording's spread over time
_LOST_CENTS = 600.0  # half an octave: the voice does not follow the pitch
_DIVERGED = 3.0  # times the best validation so far


@dataclass(frozen=True)
class Failure:
    """One way in which a training failed.

    Attributes
    ----------
    name : str
        A key of `FAILURES`.
    step, epoch : int
        Where the failure begins.
    look, remedy : str
        What it looks like in curves and pictures, and what to do.
    """

    name: str
    step: int
    epoch: int
    look: str
    remedy: str


_EARLIER = "go back to an earlier voice and continue from there with half the learning rate"
FAILURES = {  # name: look, remedy
    "non-finite": ("a loss is NaN or infinite", _EARLIER),
    "learned silence": (
        "the voice is silent: mel_gen is uniformly dark where mel_org has bands",
        f"{_EARLIER}, and remove silent recordings from the dataset",
    ),
    "constant tone": (
        "the voice hums instead of speaking: mel_gen has the same stripes from left to right while mel_org changes",
        _EARLIER,
    ),
    "dead f0": (
        "the voice does not follow the pitch: the error is over 600 cents",
        "listen to the recordings, extract pitch again with another --f0-method, then train from the base model",
    ),
    "exploding KL": (
        "loss/g/kl rises above 9, the top of its display, and stays there",
        "remove recordings of other voices or noise, then train again with half the learning rate",
    ),
    "discriminator winning": (
        "d/total falls towards 0 and g/fm rises. Normal is about 0.5 per discriminator, 4.5 for the nine of v2. "
        "0 does not mean good audio: the discriminators recognise every generated sound, and the generator stops "
        "learning",
        f"{_EARLIER}, and add recordings",
    ),
    "divergence": (
        "validation is three times worse than its best, or it gets worse and the training mel loss rises too",
        _EARLIER,
    ),
}


def find_failures(history: History) -> list[Failure]:
    """Failures at the end of a history, the earliest first."""
    begun = {
        "non-finite": history.not_finite_since(),
        "dead f0": _dead_f0(history),
        "exploding KL": _exploding_kl(history),
        "discriminator winning": _discriminator_winning(history),
        "divergence": _divergence(history),
        **_mel_signs(history),
    }
    return sorted(
        (failure_of(history, name, step) for name, step in begun.items() if step is not None), key=lambda one: one.step
    )


def failure_of(history: History, name: str, step: int) -> Failure:
    """The failure called `name`, beginning at `step`."""
    return Failure(name, step, history.epoch_at(step), *FAILURES[name])


def mel_signs(made: np.ndarray, true: np.ndarray) -> dict[str, float]:
    """Compare a generated log-mel spectrogram (M, T) with its recording, to detect silence and constant tones.

    Returns
    -------
    dict
        For a validation row. ``sanity/level_nepers``: mean level, generated minus recorded. ``sanity/movement``: spread
        over time, generated over recorded.

    Examples
    --------
    >>> speech = np.random.default_rng(0).normal(size=(80, 200))
    >>> mel_signs(np.full((80, 200), -9.0), speech)
    {'sanity/level_nepers': -9.0, 'sanity/movement': 0.0}
    """
    return {
        "sanity/level_nepers": round(float(made.mean() - true.mean()), 2),
        "sanity/movement": round(float(made.std(1).mean() / max(true.std(1).mean(), 1e-9)), 3),
    }


def _lasting(steps: np.ndarray, failing: np.ndarray) -> int | None:
    """First step from which every point fails, if at least the newest three do."""
    good = np.flatnonzero(~failing)
    first = good[-1] + 1 if len(good) else 0
    return int(steps[first]) if len(failing) - first >= _LASTING else None


def _calm(history: History, metric: str) -> tuple[np.ndarray, np.ndarray]:
    """A training loss without spikes: running median over a twentieth of the run."""
    steps, values = history.series(metric)
    return steps, running_median(values, len(values) // 40 + 1) if len(values) > _LASTING else values


def _discriminator_winning(history: History) -> int | None:
    steps, values = _calm(history, "loss/d/total")
    newest = history.steps[int(steps[-1])] if len(steps) else {}
    each = values / (sum(name.startswith("loss/d_r/") for name in newest) or _DISCRIMINATORS)
    return _lasting(steps, each < 0.1) if each.max(initial=0) > 0.2 else None


def _exploding_kl(history: History) -> int | None:
    steps, values = _calm(history, "loss/g/kl")
    return _lasting(steps, values > max(_KL_CAP, 3 * values.min(initial=np.inf)))


def _dead_f0(history: History) -> int | None:
    steps, cents = history.series("heldout/f0_cents")
    return _lasting(steps, cents > _LOST_CENTS) if len(cents) > _LASTING + 1 else None  # early pitch is always wrong


def _divergence(history: History) -> int | None:
    steps, values = history.series("heldout/mel")
    return _lasting(steps, values > _DIVERGED * np.minimum.accumulate(values)) if len(values) else None


def _mel_signs(history: History) -> dict[str, int | None]:
    steps, level = history.series("sanity/level_nepers")
    moving_steps, movement = history.series("sanity/movement")
    silent = _lasting(steps, level < _SILENT_NEPERS)
    still = None if silent is not None else _lasting(moving_steps, movement < _STILL)
    return {"learned silence": silent, "constant tone": still}
