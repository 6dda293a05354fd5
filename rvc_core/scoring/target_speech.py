"""How the target of a voice sounds: the speech that a conversion is compared with."""

import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import TypeVar

import numpy as np

from ..audio.recordings import recordings_in
from ..audio.waveform import Audio, highpass, read_audio
from ..errors import SettingsError

_SENTENCE_SECONDS = 12.0  # similarity grows with length, so the target is heard in pieces as long as sentences
_CLIPS_A_SENTENCE = 3  # training clips have at most 3.7 s
_MOST_PIECES = 60
T = TypeVar("T")


@dataclass(frozen=True)
class TargetSpeech:
    """The target's own speech, recordings cut into pieces as long as sentences.

    Attributes
    ----------
    known : list of list of Audio
        By recording: what the voice was made from, or all there is.
    heldout : list of Audio
        What the voice was not made from; empty where that is not known, and each recording in turn stands for it.
    """

    known: list[list[Audio]]
    heldout: list[Audio]


def target_speech(
    places: Iterable[Path | str] = (), clips: Path | None = None, heldout: Path | None = None
) -> TargetSpeech:
    """The target's speech: an experiment's clips, or recordings.

    Parameters
    ----------
    places : iterable of path
        Recordings of the target; beside an experiment's clips they are the held-out ones, and are heard without the
        rumble that clips have lost, which would pass for another voice.
    clips, heldout : Path, optional
        Folders of the clips that the voice was trained on, and of those that it never heard.

    Raises
    ------
    SettingsError
        When there is too little to tell the target's own spread.
    AudioError
        When a recording cannot be read.
    """
    given = [read_audio(path) for path in recordings_in(places)]
    trained, unheard = (_joined_clips(folder) if folder else [] for folder in (clips, heldout))
    pieces = [sentences(highpass(audio, zero_phase=False) if trained else audio) for audio in given]
    known, held = (trained, _flat(pieces or unheard)) if trained else (pieces, [])
    if not held and len(known) == 1:  # a single recording: each of its pieces stands for one
        known = [[piece] for piece in known[0]]
    if not held and len(known) < 2:
        what = "one short recording" if known else "no recording"
        raise SettingsError(
            f"{what} of the target: how like itself it sounds cannot be told",
            hint=f"give --target at least two recordings, or one of more than {_SENTENCE_SECONDS:g} s",
        )
    return TargetSpeech(known, held)


def sentences(audio: Audio) -> list[Audio]:
    """A recording in equal pieces of at most twelve seconds.

    Examples
    --------
    >>> [piece.seconds for piece in sentences(Audio(np.zeros(25_000, np.float32), 1000))]
    [8.334, 8.333, 8.333]
    """
    count = max(1, math.ceil(audio.seconds / _SENTENCE_SECONDS))
    return [Audio(part, audio.sample_rate) for part in np.array_split(audio.samples, count)]


def spread(items: Sequence[T], most: int) -> list[T]:
    """At most so many items, evenly chosen.

    Examples
    --------
    >>> spread(range(10), 4)
    [0, 3, 6, 9]
    """
    if len(items) <= most:
        return list(items)
    return [items[round(number)] for number in np.linspace(0, len(items) - 1, most)]


def _joined_clips(folder: Path) -> list[list[Audio]]:
    """Training clips, named ``recording_number.wav``: by recording, neighbours joined to the length of a sentence."""
    files = sorted(folder.glob("*.wav"), key=lambda path: [int(part) for part in re.findall(r"\d+", path.stem)])
    groups = []
    for recording, members in groupby(files, key=lambda path: path.stem.partition("_")[0]):
        clips = list(members)
        count = math.ceil(len(clips) / _CLIPS_A_SENTENCE)
        groups += [
            (recording, [clips[number] for number in part]) for part in np.array_split(np.arange(len(clips)), count)
        ]
    return [
        [_joined(clips) for _, clips in pieces]
        for _, pieces in groupby(spread(groups, _MOST_PIECES), key=lambda group: group[0])
    ]


def _joined(files: Sequence[Path]) -> Audio:
    clips = [read_audio(file) for file in files]
    return Audio(np.concatenate([clip.samples for clip in clips]), clips[0].sample_rate)


def _flat(recordings: Iterable[list[Audio]]) -> list[Audio]:
    return [piece for pieces in recordings for piece in pieces]
