"""The target's own speech, as the reference for conversions."""

import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import chain, groupby
from pathlib import Path
from typing import TypeVar

import numpy as np

from ..audio.recordings import recordings_in
from ..audio.waveform import Audio, highpass, read_audio
from ..errors import SettingsError

_SENTENCE_SECONDS = 12.0  # similarity grows with length, so pieces of the target are as long as sentences
_CLIPS_A_SENTENCE = 3  # training clips have at most 3.7 s
_MOST_PIECES = 60
T = TypeVar("T")


@dataclass(frozen=True)
class TargetSpeech:
    """The target's own speech, cut into pieces as long as sentences.

    Attributes
    ----------
    reference : list of list of Audio
        Pieces by recording: the training recordings, or all recordings if unknown.
    heldout : list of Audio
        Pieces that were not trained on. Empty if unknown; then each recording in turn is left out.
    """

    reference: list[list[Audio]]
    heldout: list[Audio]


def target_speech(
    places: Iterable[Path | str] = (), clips: Path | None = None, heldout: Path | None = None
) -> TargetSpeech:
    """Load the target's speech from an experiment's clips or from recordings.

    Parameters
    ----------
    places : iterable of path
        Recordings of the target. Together with an experiment's clips, they count as held-out, and lose their rumble as
        the clips did: rumble alone would change the similarity.
    clips, heldout : Path, optional
        Folders of the training clips and of the held-out clips.

    Raises
    ------
    SettingsError
        When the target has fewer than two pieces.
    AudioError
        When a recording cannot be read.
    """
    given = [read_audio(path) for path in recordings_in(places)]
    trained = _joined_clips(clips) if clips else []
    untrained = _joined_clips(heldout) if heldout else []
    pieces = [sentences(highpass(audio, zero_phase=False) if trained else audio) for audio in given]
    reference, held = (trained, [*chain.from_iterable(pieces or untrained)]) if trained else (pieces, [])
    if not held and len(reference) == 1:  # a single recording: each piece counts as one
        reference = [[piece] for piece in reference[0]]
    if not held and len(reference) < 2:
        what = "one short recording" if reference else "no recording"
        raise SettingsError(
            f"{what} of the target: its similarity to itself cannot be measured",
            hint=f"give --target two or more recordings, or one longer than {_SENTENCE_SECONDS:g} s",
        )
    return TargetSpeech(reference, held)


def sentences(audio: Audio) -> list[Audio]:
    """Split a recording into equal pieces of at most 12 s.

    Examples
    --------
    >>> [piece.seconds for piece in sentences(Audio(np.zeros(25_000, np.float32), 1000))]
    [8.334, 8.333, 8.333]
    """
    count = max(1, math.ceil(audio.seconds / _SENTENCE_SECONDS))
    return [Audio(part, audio.sample_rate) for part in np.array_split(audio.samples, count)]


def spread(items: Sequence[T], most: int) -> list[T]:
    """At most `most` items, evenly spaced.

    Examples
    --------
    >>> spread(range(10), 4)
    [0, 3, 6, 9]
    """
    if len(items) <= most:
        return list(items)
    return [items[round(number)] for number in np.linspace(0, len(items) - 1, most)]


def _joined_clips(folder: Path) -> list[list[Audio]]:
    """Clips ``RECORDING_NUMBER.wav`` by recording; three neighbours are joined into a sentence."""
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
