"""Choose the held-out part of the recordings, for validation. Pure: reads and writes no files.

With enough recordings, whole ones are held out, else one span of time. Single clips would overlap training clips.
"""

from collections.abc import Sequence

import numpy as np

from ..audio.slicer import SHORTEST_SECONDS, Span

_SHARE, _LEAST_SECONDS = 0.1, 20.0
_LEAST_DATA_SECONDS = 180.0  # with less data, training needs all of it
_LARGEST_SHARE, _SHORTEST_DATA_SECONDS = 1 / 3, 6.0


def choose_heldout(
    phrases: list[list[Span]], rate_hz: int, *, minutes: float | None, seed: int, speakers: Sequence[int] = ()
) -> dict[int, Span]:
    """Choose the held-out part, the same share of each speaker. It depends only on phrases and seed.

    Parameters
    ----------
    phrases : list of list of Span
        The phrases of each recording, in samples.
    minutes : float, optional
        Length, at most a third of the data. None: 10 %, at least 20 s, or nothing under three minutes.
    speakers : sequence of int, optional
        Speaker of each recording.

    Returns
    -------
    dict of int to Span
        Number of a recording → its held-out span.

    Examples
    --------
    >>> choose_heldout([[Span(0, 5500)], [Span(0, 2200)], [Span(0, 12_000)]], 100, minutes=None, seed=0)
    {1: Span(start=0, stop=2200)}
    """
    lengths = [sum(map(len, spans)) for spans in phrases]
    chosen_of_all: dict[int, Span] = {}
    for speaker in sorted({*speakers}):
        own = [number for number, who in enumerate(speakers) if who == speaker]
        share = sum(lengths[number] for number in own) / sum(lengths)
        held_of_own = choose_heldout(
            [phrases[number] for number in own],
            rate_hz,
            seed=seed,
            minutes=None if minutes is None else share * minutes,
        )
        chosen_of_all |= {own[number]: span for number, span in held_of_own.items()}
    if speakers:
        return chosen_of_all
    target = heldout_seconds(sum(lengths) / rate_hz, minutes) * rate_hz
    if not target:
        return {}
    limit = max(target, min(2 * target, _LARGEST_SHARE * sum(lengths)))
    random = np.random.default_rng(seed)
    chosen: list[int] = []
    held = 0
    for number in random.permutation(len(phrases)).tolist():
        if held < target and held + lengths[number] <= limit:
            chosen.append(number)
            held += lengths[number]
    longest = int(np.argmax(lengths))
    stretch = min(target, lengths[longest] / 2)
    if held >= stretch:
        return {number: Span(phrases[number][0].start, phrases[number][-1].stop) for number in sorted(chosen)}
    return {
        longest: _stretch(phrases[longest], round(stretch), round(limit), round(SHORTEST_SECONDS * rate_hz), random)
    }


def heldout_seconds(data_seconds: float, minutes: float | None) -> float:
    """How much is to be held out of so much data.

    Examples
    --------
    >>> heldout_seconds(600, None), heldout_seconds(100, None), heldout_seconds(60, 5)
    (60.0, 0.0, 20.0)
    """
    if minutes is None:
        return max(_LEAST_SECONDS, _SHARE * data_seconds) if data_seconds >= _LEAST_DATA_SECONDS else 0.0
    return min(60 * minutes, _LARGEST_SHARE * data_seconds) if data_seconds >= _SHORTEST_DATA_SECONDS else 0.0


def _stretch(phrases: list[Span], target: int, limit: int, shortest: int, random: np.random.Generator) -> Span:
    """Consecutive phrases of about `target` samples from a random start; a long last phrase is cut."""
    following = np.cumsum([len(phrase) for phrase in phrases[::-1]])[::-1]
    first = int(random.integers(np.count_nonzero(following >= target)))
    held, stop = 0, phrases[first].start
    for phrase in phrases[first:]:
        if held >= target:
            break
        size = len(phrase)
        if held + size > limit and size >= 2 * shortest:
            size = min(max(target - held, shortest), size - shortest)
        held, stop = held + size, phrase.start + size
        if size < len(phrase):
            break
    return Span(phrases[first].start, stop)
