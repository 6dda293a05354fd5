"""Whether a stem holds anything: more than silence, and more than what leaks of the other stem."""

import numpy as np

from ..audio.loudness import Loudness
from .models import EMBEDDED, SPLEETER

_WINDOW = 30  # levels, every 0.1 s: a stem is judged by the three seconds in which it stands out most
_FAR_BELOW = 1e-3  # of the energy of the loudest moment of both
_LEAK_DB = {EMBEDDED: -13.0, SPLEETER: -13.0}  # what is left of an instrumental in the vocals, by its separator
_WELL_SEPARATED_DB, _REST_DB = -20.0, -35.0
DOUBTFUL_DB = -7.5  # of the embedded separator: nine instrumentals read -20 to -8, songs -8 to +3


def balance(kept: Loudness, rest: Loudness) -> tuple[float, float]:
    """How far two stems stand out against each other where each does most, in dB; -inf: it is silent.

    Moments in which a stem is 30 dB below the loudest moment of both do not count.
    """
    energies = [10 ** (meter.levels() / 10) for meter in (kept, rest)]
    window = min(_WINDOW, len(energies[0]))
    if kept.is_silent and rest.is_silent:
        return -np.inf, -np.inf
    one, two = (np.convolve(energy, np.full(window, 1 / window), "valid") for energy in energies)
    counts, ratios = (one + two).max() * _FAR_BELOW, 10 * np.log10((one + 1e-20) / (two + 1e-20))
    return (
        float(ratios[one > counts].max(initial=-np.inf)),
        float(-ratios[two > counts].min(initial=np.inf)),
    )


def empty_stems(stems: tuple[str, str], meters: tuple[Loudness, Loudness], model: str) -> tuple[list[str], list[str]]:
    """Which of two stems hold nothing, and what a listener should know of it."""
    kept_db, rest_db = balance(*meters)
    least_db = _LEAK_DB.get(model, _WELL_SEPARATED_DB)
    empty = [name for name, is_empty in zip(stems, (kept_db < least_db, rest_db < _REST_DB), strict=True) if is_empty]
    if stems[0] != "vocals":
        return empty, []
    if "vocals" in empty:
        return empty, ["no vocals were found: the stem holds what leaked of the music"]
    if model == EMBEDDED and kept_db < DOUBTFUL_DB:
        return empty, ["hardly any vocals were found: a larger separator can tell whether there are any"]
    return empty, []
