"""What the figures of a recording mean: each measure green, amber or red, with the reason and the repair. Pure.

The survey shows the findings, and `repair` mends what they name, so both decide alike. docs/survey.md says where the
limits come from, and how often the findings are right.
"""

import math
from dataclasses import dataclass, field
from typing import Literal, cast

import numpy as np

from ..audio.quality import Quality, flat_tops, noises
from ..audio.waveform import Audio, frame_rms

Colour = Literal["green", "amber", "red"]
Places = list[tuple[float, float]]
RANK: dict[Colour, int] = {"green": 0, "amber": 1, "red": 2}
UNEVEN_DB, _STEP_DB = 4.5, 4.1
_SILENT_SHARE, _MUCH_SILENCE, _QUIET_DB = 0.99, 0.6, -35.0
_NOISY_DB, _VERY_NOISY_DB, _HEARD_DB = 28.0, 12.0, 45.0
_HUM_BELOW_DB, _OFFSET = 45.0, 0.02  # a hum that is further below the voice is not heard
_TONAL, _TONAL_IN_A_ROOM, _ROOM_SECONDS = 0.42, 0.34, 0.21  # a room too makes pauses less flat
_REVERBERANT_SECONDS, _VERY_REVERBERANT_SECONDS, _NOISE_HIDES_DB = 0.2, 1.0, 15.0
_CLIPPED_SHARE, _MUCH_CLIPPED_SHARE = 0.0002, 0.01
_TELEPHONE_HZ, _NARROW_HZ, _HIGH_RATE_HZ = 5000.0, 13_000.0, 32_000
_OPPOSED_DB = 3.0  # a correlation of -0.5
_MOST_PLACES, _PLACE_SECONDS, _APART_SECONDS = 5, 4.0, 2.0
_Case = tuple[bool, str, str, str]


@dataclass(frozen=True)
class Finding:
    """What one measure says about a recording, or about all of them.

    Attributes
    ----------
    reason, repair : str
        What is wrong, and what to do; empty where it is green.
    places : list of (float, float)
        Seconds where it begins and ends; empty where it is all over the recording.
    """

    measure: str
    colour: Colour
    value: float
    unit: str
    reason: str = ""
    repair: str = ""
    places: Places = field(default_factory=list)

    def __str__(self) -> str:
        return f"{self.reason}: {self.repair}" if self.repair else self.reason

    @property
    def where(self) -> str:
        """Minutes and seconds of its places; empty where it is all over the recording.

        Examples
        --------
        >>> Finding("noise", "red", 9, "dB", places=[(10.0, 20.0), (61.5, 65.5)]).where
        ' (0:10–0:20, 1:01–1:06)'
        """
        times = [f"{_clock(math.floor(start))}–{_clock(math.ceil(stop))}" for start, stop in self.places]
        return f" ({', '.join(times)})" if times else ""


def _clock(seconds: int) -> str:
    return f"{seconds // 60}:{seconds % 60:02d}"


def merged(places: Places) -> Places:
    """Places less than two seconds apart as one; the five longest, in order.

    Examples
    --------
    >>> merged([(0.0, 3.0), (1.5, 4.5), (9.0, 12.0)])
    [(0.0, 4.5), (9.0, 12.0)]
    """
    made: Places = []
    for start, stop in sorted(places):
        if made and start < made[-1][1] + _APART_SECONDS:
            made[-1] = (made[-1][0], max(stop, made[-1][1]))
        else:
            made.append((start, stop))
    return sorted(sorted(made, key=lambda place: place[0] - place[1])[:_MOST_PLACES])


def finding(measure: str, value: float, unit: str, *cases: _Case) -> Finding:
    """A finding by the first case that applies: (applies, colour, reason, repair); green if none does."""
    colour, reason, repair = next((case[1:] for case in cases if case[0]), ("green", "", ""))
    return Finding(measure, cast(Colour, colour), round(float(value), 4), unit, reason, repair)


def findings_of(quality: Quality, sample_rate: int, opposed_db: float = 0.0) -> list[Finding]:
    """What the figures of one recording mean.

    Examples
    --------
    >>> [str(one) for one in findings_of(Quality(-20, -40, 20, 0, 10_000, 0.1, 0), 24_000) if one.reason]
    ['noisy (20 dB above its noise): record closer to the microphone, or rvc clean removes noise']
    """
    level_db, silent = quality.level_db, quality.silent_share
    if silent > _SILENT_SHARE:
        case = (True, "red", "almost all of it is silent", "raise its level or remove it")
        return [finding("speech", 100 * (1 - silent), "%", case)]
    step, hum = f"{quality.step_db:.0f} dB", f"hums at {quality.hum_hz:.0f} Hz"
    is_tonal = quality.pause_flatness < (_TONAL if quality.reverb_seconds < _ROOM_SECONDS else _TONAL_IN_A_ROOM)
    is_heard = quality.hum_hz > 0 and quality.hum_db > level_db - _HUM_BELOW_DB
    music = (is_tonal and quality.snr_db < _HEARD_DB, "amber", "music or voices in its pauses")
    offset = (abs(quality.offset) > _OFFSET, "amber", "has a DC offset, which will be filtered out")
    phase = (opposed_db > _OPPOSED_DB, "amber", "its channels cancel each other")
    uneven = (quality.step_db > _STEP_DB, "amber", f"its level changes by {step} in the middle")
    return [
        _clipping(100 * quality.clipped_share),
        _noise(quality.snr_db),
        _bandwidth(quality, sample_rate),
        finding(
            "speech",
            100 * (1 - silent),
            "%",
            (silent > _MUCH_SILENCE, "amber", f"{100 * silent:.0f} % silence, which is cut out", ""),
        ),
        finding(
            "loudness",
            quality.loudness_lufs,
            "LUFS",
            (level_db < _QUIET_DB, "amber", f"quiet ({level_db:.0f} dB)", "raise its level"),
        ),
        finding("evenness", quality.step_db, "dB", (*uneven, "cut it in two there, so that rvc clean levels both")),
        _reverb(quality),
        finding("accompaniment", quality.pause_flatness, "", (*music, "rvc clean separates the voice")),
        finding("hum", quality.hum_db - level_db, "dB", (is_heard, "amber", hum, "rvc clean removes it")),
        finding("offset", quality.offset, "", (*offset, "check the recorder")),
        finding("phase", opposed_db, "dB", (*phase, "rvc clean turns one of them over")),
    ]


def _clipping(percent: float) -> Finding:
    much = f"clipped ({percent:.1f} % of it)"
    return finding(
        "clipping",
        percent,
        "%",
        (percent > 100 * _MUCH_CLIPPED_SHARE, "red", much, "record again at a lower level"),
        (percent > 100 * _CLIPPED_SHARE, "amber", "clipped in places", "lower the recording level"),
    )


def _noise(snr_db: float) -> Finding:
    very = f"very noisy or without pauses ({snr_db:.0f} dB above its quietest part)"
    return finding(
        "noise",
        snr_db,
        "dB",
        (snr_db < _VERY_NOISY_DB, "red", very, "listen to it"),
        (
            snr_db < _NOISY_DB,
            "amber",
            f"noisy ({snr_db:.0f} dB above its noise)",
            "record closer to the microphone, or rvc clean removes noise",
        ),
    )


def _bandwidth(quality: Quality, sample_rate: int) -> Finding:
    hz, khz = quality.bandwidth_hz, f"{quality.bandwidth_hz / 1000:.1f} kHz"
    rate = f"{sample_rate / 1000:g} kHz"
    edge = f"cut off at {quality.edge_hz / 1000:.1f} kHz, as by a lossy codec"
    return finding(
        "bandwidth",
        hz,
        "Hz",
        (hz < _TELEPHONE_HZ, "red", f"nothing above {khz}, like a telephone", "look for a better copy"),
        (
            hz < _NARROW_HZ and sample_rate >= _HIGH_RATE_HZ,
            "amber",
            f"nothing above {khz} in a {rate} file",
            "look for the original",
        ),
        (quality.edge_hz > 0, "green", edge, "the original has more"),
    )


def _reverb(quality: Quality) -> Finding:
    seconds = quality.reverb_seconds
    least_db = _VERY_NOISY_DB if seconds > _VERY_REVERBERANT_SECONDS else _NOISE_HIDES_DB
    is_sure = quality.snr_db > least_db  # noise hides how fast sound fades
    room, repair = f"recorded in a room (reverb of {seconds:.1f} s)", "rvc clean removes reverb, or record closer"
    return finding(
        "reverb",
        seconds,
        "s",
        (is_sure and seconds > _VERY_REVERBERANT_SECONDS, "red", room, repair),
        (is_sure and seconds > _REVERBERANT_SECONDS, "amber", room, repair),
    )


def places_of(measure: str, audio: Audio, quality: Quality) -> Places:
    """The seconds to listen to for a problem, at most five; none where it is all over the recording."""
    rate, total = audio.sample_rate, audio.seconds
    starts, noises_db = noises(audio.samples, rate) if measure == "noise" else (np.zeros(0), np.zeros(0))
    noisy = np.flatnonzero(noises_db > quality.level_db - _NOISY_DB)
    if 0 < len(noisy) < len(starts):
        ends = np.append(starts[1:], total)
        return merged([(round(float(starts[one]), 2), round(float(ends[one]), 2)) for one in noisy])
    if measure == "clipping":
        starts, _ = flat_tops(audio.samples)
        at = np.unique(np.floor(starts / rate))
    elif measure == "evenness":
        at = np.array([quality.step_seconds])
    elif measure in ("noise", "hum", "accompaniment", "reverb") and total > _PLACE_SECONDS:
        second = frame_rms(audio.samples, rate // 4, 4)  # of a second, every quarter of one
        levels = np.where(second > 1e-5, second, np.inf)
        if measure == "reverb":  # what fades after a loud second
            levels = np.where(second[:-4] > np.median(second), second[4:] / np.maximum(second[:-4], 1e-5), np.inf)
        at = np.array([np.argmin(levels) / 4])
    else:
        return []
    begins = np.clip(at - _PLACE_SECONDS / 2, 0, max(0.0, total - _PLACE_SECONDS))
    _, first = np.unique(begins // _PLACE_SECONDS, return_index=True)
    return [
        (round(float(one), 2), round(float(min(total, one + _PLACE_SECONDS)), 2))
        for one in begins[first][:_MOST_PLACES]
    ]
