"""The ways in which a training dies: how each is recognised in its history, what it looks like, what to do. Pure."""

from dataclasses import dataclass

import numpy as np

from .learning_curve import History, running_median

_LASTING = 3  # newest points that must all show a sign
_DISCRIMINATORS = 6  # of v1 and nano; v2 has nine. Only for histories that do not say
_KL_CAP = 9.0  # more than RVC ever draws
_SILENT_NEPERS = -2.5  # 22 dB quieter than it should be
_STILL = 0.25  # of the recording's own movement
_LOST_CENTS = 600.0  # half an octave: no melody is followed
_APART = 3.0  # times the best validation so far


@dataclass(frozen=True)
class Illness:
    """A training that has gone wrong, from which step on.

    Attributes
    ----------
    name, look, remedy : str
        What it is called, what it looks like in curves and pictures, what to do.
    """

    name: str
    step: int
    epoch: int
    look: str
    remedy: str


_EARLIER = "go back to a voice saved before; train on from there with half the learning rate"
ILLNESSES = {  # name: look, remedy
    "non-finite": ("a loss is no number any more", _EARLIER),
    "learned silence": (
        "mel_gen is one dark sheet where mel_org has bands: the voice says nothing",
        f"{_EARLIER}, and take silent recordings out of the dataset",
    ),
    "constant tone": (
        "mel_gen has the same stripes from left to right while mel_org moves: a hum instead of speech",
        _EARLIER,
    ),
    "dead f0": (
        "the melody of the result has nothing to do with the one asked for (over 600 cents away)",
        "listen to the recordings, extract pitch again with another --f0-method, then train from the base model",
    ),
    "exploding KL": (
        "loss/g/kl climbs above 9, the end of its display, and stays there",
        "look for recordings that are not of this voice, or are noise; train again with half the learning rate",
    ),
    "discriminator winning": (
        "d/total sinks towards 0 and g/fm climbs. At rest it is about 0.5 for each discriminator, 4.5 for v2's nine: "
        "0 does not mean good audio but that every fake is recognised, so the generator learns nothing more",
        f"{_EARLIER}, and add recordings",
    ),
    "coming apart": (
        "validation is three times as bad as it was, or gets worse together with the training's own mel",
        _EARLIER,
    ),
}


def find_illnesses(history: History) -> list[Illness]:
    """All illnesses that a history shows at its end, the first to begin first."""
    begun = {
        "non-finite": history.not_finite_since(),
        "dead f0": _dead_f0(history),
        "exploding KL": _exploding_kl(history),
        "discriminator winning": _discriminator_winning(history),
        "coming apart": _coming_apart(history),
        **_mel_signs(history),
    }
    return sorted(
        (illness_of(history, name, step) for name, step in begun.items() if step is not None), key=lambda one: one.step
    )


def illness_of(history: History, name: str, step: int) -> Illness:
    """An illness of `ILLNESSES` that begins at a step."""
    return Illness(name, step, history.epoch_at(step), *ILLNESSES[name])


def mel_signs(made: np.ndarray, true: np.ndarray) -> dict[str, float]:
    """What two log-mel spectrograms (M, T), a voice's and the recording's, say about silence and standing tones.

    Returns
    -------
    dict
        For a validation row: ``sanity/level_nepers``, made over true; ``sanity/movement``, spread over time, likewise.

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


def _lasting(steps: np.ndarray, ill: np.ndarray) -> int | None:
    """From which step on every point is ill, if the newest three are."""
    well = np.flatnonzero(~ill)
    first = well[-1] + 1 if len(well) else 0
    return int(steps[first]) if len(ill) - first >= _LASTING else None


def _calm(history: History, metric: str) -> tuple[np.ndarray, np.ndarray]:
    """A training loss without its spikes: running median over a twentieth of the run."""
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
    return _lasting(steps, cents > _LOST_CENTS) if len(cents) > _LASTING + 1 else None  # the first are always lost


def _coming_apart(history: History) -> int | None:
    steps, values = history.series("heldout/mel")
    return _lasting(steps, values > _APART * np.minimum.accumulate(values)) if len(values) else None


def _mel_signs(history: History) -> dict[str, int | None]:
    steps, level = history.series("sanity/level_nepers")
    moving_steps, movement = history.series("sanity/movement")
    silent = _lasting(steps, level < _SILENT_NEPERS)
    still = None if silent is not None else _lasting(moving_steps, movement < _STILL)
    return {"learned silence": silent, "constant tone": still}
