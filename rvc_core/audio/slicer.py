"""Decide where to cut a recording, as spans of samples. Pure: reads and writes no files.

The silence rule and its numbers are those of openvpi's audio-slicer as RVC sets them. Windows are RVC's 3.7 s with
0.3 s of overlap. RVC loses audio in two ways that this module avoids:

- Two windows can get the same file name. Here one list numbers all windows of a recording.
- RVC's sampler silently drops short clips. Here no clip is shorter than `SHORTEST_SECONDS`.
"""

from dataclasses import dataclass

import numpy as np

from .waveform import Audio, frame_rms, runs_of

WINDOW_SECONDS, OVERLAP_SECONDS = 3.7, 0.3
SHORTEST_SECONDS = 0.8  # RVC's sampler drops clips below about 0.76 s
_HOP_SECONDS, _HOPS_PER_FRAME = 0.015, 4
_MIN_PHRASE_SECONDS = 1.5
_LOUD_QUANTILE, _LOUD_DB, _QUIETEST_DB = 0.95, -25.0, -60.0


@dataclass(frozen=True, order=True)
class Span:
    """Samples from `start` up to, not including, `stop`."""

    start: int
    stop: int

    def __len__(self) -> int:
        return self.stop - self.start


def find_phrases(
    audio: Audio, *, silence_db: float = -42.0, min_silence_ms: float = 400.0, max_kept_silence_ms: float = 500.0
) -> list[Span]:
    """Split a recording at its long pauses and return the parts with sound.

    A pause separates two phrases if it lasts at least `min_silence_ms` and ends at least 1.5 s after the previous cut.
    Each side keeps up to `max_kept_silence_ms` of it and ends at the quietest frame; the middle is dropped. A phrase
    shorter than `SHORTEST_SECONDS` keeps more of the pauses around it. If no pause is left, it joins its neighbour.

    Parameters
    ----------
    silence_db : float
        A 60 ms frame with a lower RMS is silent; dB of full scale, less for a quiet recording: see `own_silence_db`.

    Returns
    -------
    list of Span
        In order, disjoint; empty when all is silent. Everything outside the spans is silent.

    Examples
    --------
    >>> tone = np.sin(np.arange(16000, dtype=np.float32))
    >>> audio = Audio(np.concatenate([tone, tone, np.zeros(48000, np.float32), tone]), 16000)
    >>> [round(len(span) / 16000, 1) for span in find_phrases(audio)]
    [2.0, 1.5]
    """
    hop = round(_HOP_SECONDS * audio.sample_rate)
    rms = frame_rms(audio.samples, hop, _HOPS_PER_FRAME)
    frames_per_ms = audio.sample_rate / 1000 / hop
    pauses = _pauses(
        rms,
        10 ** (own_silence_db(rms, silence_db) / 20),
        min_silence=round(min_silence_ms * frames_per_ms),
        max_kept=round(max_kept_silence_ms * frames_per_ms),
        min_phrase=round(1000 * _MIN_PHRASE_SECONDS * frames_per_ms),
    )
    total = len(audio.samples)
    edges = [0, *(min(frame * hop, total) for pause in pauses for frame in (pause.start, pause.stop)), total]
    phrases = [Span(start, stop) for start, stop in zip(edges[::2], edges[1::2], strict=True) if stop > start]
    return lengthened(phrases, total, round(SHORTEST_SECONDS * audio.sample_rate))


def own_silence_db(rms: np.ndarray, silence_db: float) -> float:
    """The level below which a recording is silent: lower than `silence_db` by what its loud frames are below -25 dB.

    Noise alone stays silence: the result is at least -60 dB, unless `silence_db` is lower.

    Parameters
    ----------
    rms : ndarray (T,)
        Of frames.

    Examples
    --------
    >>> own_silence_db(np.full(9, 0.1), -42), own_silence_db(np.full(9, 0.01), -42), own_silence_db(np.zeros(9), -42)
    (-42.0, -57.0, -60.0)
    """
    loud_db = 20 * np.log10(max(float(np.quantile(rms, _LOUD_QUANTILE)), 1e-9))
    return round(float(max(min(silence_db, _QUIETEST_DB), silence_db + min(0.0, loud_db - _LOUD_DB))), 6)


def windows(phrase: Span, sample_rate: int) -> list[Span]:
    """Cut a phrase into 3.7 s windows that overlap by 0.3 s; the last window takes the rest, up to 4 s.

    Examples
    --------
    >>> [(span.start, span.stop) for span in windows(Span(0, 1000), 100)]
    [(0, 370), (340, 710), (680, 1000)]
    """
    length, overlap = round(WINDOW_SECONDS * sample_rate), round(OVERLAP_SECONDS * sample_rate)
    shortest = round(SHORTEST_SECONDS * sample_rate)
    spans, start = [], phrase.start
    while phrase.stop - start > length + overlap:
        spans.append(Span(start, start + length))
        start += length - overlap
    return [*spans, Span(max(phrase.start, min(start, phrase.stop - shortest)), phrase.stop)]


def lengthened(phrases: list[Span], total: int, shortest: int) -> list[Span]:
    """Extend each phrase to at least `shortest` samples, first into the pauses beside it.

    Examples
    --------
    >>> lengthened([Span(0, 50), Span(90, 92), Span(100, 150)], 150, 10)   # extends into the pauses
    [Span(start=0, stop=50), Span(start=86, stop=96), Span(start=100, stop=150)]
    >>> lengthened([Span(0, 50), Span(50, 52), Span(52, 150)], 150, 10)    # no pause left: joins the previous phrase
    [Span(start=0, stop=52), Span(start=52, stop=150)]
    """
    result: list[Span] = []
    waiting: int | None = None  # start of a first phrase that is too short and must join the next one
    for number, phrase in enumerate(phrases):
        floor = result[-1].stop if result else 0
        ceiling = phrases[number + 1].start if number + 1 < len(phrases) else total
        start, stop = phrase.start if waiting is None else waiting, phrase.stop
        if stop - start < shortest:
            start = max(floor, start - (shortest - (stop - start)) // 2)
            stop = min(ceiling, start + shortest)
            start = max(floor, stop - shortest)
        waiting = None
        if stop - start >= shortest:
            result.append(Span(start, stop))
        elif result:
            result[-1] = Span(result[-1].start, stop)
        elif number + 1 < len(phrases):
            waiting = start
        else:
            result.append(Span(start, stop))
    return result


def union(spans: list[Span]) -> list[Span]:
    """Merge overlapping spans; the result is in order and disjoint.

    Examples
    --------
    >>> union([Span(3, 9), Span(0, 4), Span(12, 13)])
    [Span(start=0, stop=9), Span(start=12, stop=13)]
    """
    joined: list[Span] = []
    for span in sorted(spans):
        if joined and span.start <= joined[-1].stop:
            joined[-1] = Span(joined[-1].start, max(joined[-1].stop, span.stop))
        else:
            joined.append(span)
    return joined


def outside(spans: list[Span], total: int) -> list[Span]:
    """The parts of 0..total that no span covers.

    Examples
    --------
    >>> outside([Span(3, 9), Span(0, 4)], 20)
    [Span(start=9, stop=20)]
    """
    joined = union(spans)
    starts, stops = [0, *(span.stop for span in joined)], [*(span.start for span in joined), total]
    return [Span(start, stop) for start, stop in zip(starts, stops, strict=True) if stop > start]


def inside(spans: list[Span], bounds: Span) -> list[Span]:
    """The parts of the spans that lie within the bounds.

    Examples
    --------
    >>> inside([Span(0, 4), Span(6, 9), Span(12, 13)], Span(3, 8))
    [Span(start=3, stop=4), Span(start=6, stop=8)]
    """
    return [
        Span(max(span.start, bounds.start), min(span.stop, bounds.stop))
        for span in spans
        if span.start < bounds.stop and bounds.start < span.stop
    ]


def _pauses(rms: np.ndarray, threshold: float, *, min_silence: int, max_kept: int, min_phrase: int) -> list[Span]:
    """Spans of frames to drop, in order; an empty span cuts without dropping."""
    pauses: list[Span] = []
    for start, stop in runs_of(rms < threshold).tolist():
        after_start, before_stop = min(stop, start + max_kept), max(start, stop - max_kept)
        first, last = _quietest(rms, start, after_start), _quietest(rms, before_stop, stop)
        if start == 0 and stop == len(rms):
            return [Span(0, len(rms))]
        if start == 0:
            if stop > max_kept:
                pauses.append(Span(0, last))
        elif stop == len(rms):
            if stop - start >= min_silence:
                pauses.append(Span(first, stop))
        elif stop - start >= min_silence and stop - (pauses[-1].stop if pauses else 0) >= min_phrase:
            pauses.append(Span(first, last))  # first <= last, even where the two searches overlap
    return pauses


def _quietest(rms: np.ndarray, start: int, stop: int) -> int:
    """Frame with the lowest RMS from `start` to `stop`, both included."""
    return start + int(rms[start : stop + 1].argmin())
