"""What `evaluate` judges: which output was made of which source, what is said in it, and how the target sounds."""

import math
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from ..audio.recordings import recordings_in
from ..audio.waveform import Audio, highpass, read_audio
from ..errors import SettingsError
from ..workspace.layout import Layout

_SENTENCE_SECONDS = 12.0   # similarity grows with length, so the target is heard in pieces as long as sentences
_CLIPS_A_SENTENCE = 3      # training clips have at most 3.7 s
_MOST_PIECES = 60
T = TypeVar("T")


@dataclass(frozen=True)
class Case:
    """One source and what was made of it.

    Attributes
    ----------
    source : Path
    output : Audio
    file : str
        Where the output is; empty if it is in memory only.
    text : str
        What is said; empty if that is not known.
    facts : mapping
        What else is known of it, such as its transposition; goes into the report as it is.
    notes : sequence of str
    """

    source: Path
    output: Audio
    file: str = ""
    text: str = ""
    facts: Mapping[str, Any] = field(default_factory=dict)
    notes: Sequence[str] = ()


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


# -- which output belongs to which source --------------------------------------------------------------------------
def match_outputs(sources: Sequence[Path], outputs: Sequence[Path]) -> list[tuple[Path, Path]]:
    """Pair sources with outputs, in the order of the outputs: by file name, else by order.

    ``hello_alice.wav`` was made of ``hello.wav``: an output's name is its source's, or begins with it.

    Raises
    ------
    SettingsError
        When names do not tell, and there are not as many outputs as sources, or their order contradicts the names.

    Examples
    --------
    >>> pairs = match_outputs([Path("a.wav"), Path("a_b.wav")], [Path("a_b_eve.flac"), Path("a_eve.flac")])
    >>> [source.name for source, _ in pairs]
    ['a_b.wav', 'a.wav']
    """
    named = [_source_named(output.stem, sources) for output in outputs]
    if None not in named and len(set(named)) == len(named):
        return [(source, output) for source, output in zip(named, outputs, strict=True) if source]
    if len(sources) != len(outputs):
        lost = next((output for output, source in zip(outputs, named, strict=True) if not source), outputs[0])
        raise SettingsError(f"{len(outputs)} files and {len(sources)} sources: which was {lost.name!r} made of?",
                            hint="name the files after their sources (hello_alice.wav of hello.wav), or give as many")
    for source, output, other in zip(sources, outputs, named, strict=True):
        if other not in (None, source) and named.count(other) == 1:
            raise SettingsError(f"{output.name!r} stands where {source.name!r} does, and is named after {other.name!r}",
                                hint="give files and sources in one order, or name every file after its source")
    return list(zip(sources, outputs, strict=True))


def _source_named(stem: str, sources: Sequence[Path]) -> Path | None:
    """The one source after which an output is named: the longest stem that it begins with."""
    fitting = [source for source in sources if stem == source.stem or stem.startswith(f"{source.stem}_")]
    longest = max((len(source.stem) for source in fitting), default=0)
    best = [source for source in fitting if len(source.stem) == longest]
    return best[0] if len(best) == 1 else None


# -- what is said --------------------------------------------------------------------------------------------------
def texts_of(sources: Sequence[Path], given: str | None = None) -> list[str]:
    """What is said in each source; empty where that is not known.

    Parameters
    ----------
    sources : sequence of Path
    given : str, optional
        A ``.tsv`` of ``file<TAB>text``, a folder of ``<stem>.txt``, or, for a single source, a ``.txt`` or the text
        itself. By default what stands in a ``.txt`` beside each source.

    Raises
    ------
    SettingsError
        When the file or folder is not there or has no text of these sources, or one text is given for several.
    """
    if given is None:
        return [_text_in(source.with_suffix(".txt")) for source in sources]
    if os.path.isdir(given):   # which, unlike Path.is_dir, takes a text of any length
        texts = [_text_in(Path(given, f"{source.stem}.txt")) for source in sources]
    elif given.lower().endswith(".tsv"):
        rows = [line.partition("\t") for line in _read(Path(given)).splitlines() if line.strip()]
        texts = [_row_of(source, {name.strip(): text.strip() for name, _, text in rows}) for source in sources]
    elif len(sources) > 1:
        raise SettingsError(f"one text for {len(sources)} sources",
                            hint="give --text a .tsv of file<TAB>text, or a folder of <name>.txt")
    else:
        texts = [_read(Path(given)).strip() if given.lower().endswith(".txt") else given.strip()]
    if not any(texts):
        raise SettingsError(f"no text of {sources[0].name!r} in --text {given[:60]!r}",
                            hint="lines of a .tsv are file<TAB>text; files of a folder are called <name>.txt")
    return texts


def _text_in(path: Path) -> str:
    return _read(path).strip() if path.is_file() else ""


def _read(path: Path) -> str:
    try:
        return path.read_text("utf-8-sig")
    except FileNotFoundError:
        raise SettingsError(f"{str(path)!r} does not exist", hint="check the path given to --text") from None
    except UnicodeDecodeError:
        raise SettingsError(f"{str(path)!r} is not UTF-8 text", hint="save it as plain text in UTF-8") from None


def _row_of(source: Path, rows: Mapping[str, str]) -> str:
    """The text whose file name, with as many folders as it has, is the end of the source's path."""
    path = source.absolute()
    fitting = [(len(parts), text) for name, text in rows.items() if (parts := Path(name).parts)
               and parts in (path.parts[-len(parts):], path.with_suffix("").parts[-len(parts):])]
    return max(fitting)[1] if fitting else ""


# -- how the target sounds -----------------------------------------------------------------------------------------
def target_speech(places: Iterable[Path | str] = (), layout: Layout | None = None) -> TargetSpeech:
    """The target's speech: an experiment's clips, or recordings.

    Parameters
    ----------
    places : iterable of path
        Recordings of the target; beside an experiment's clips they are the held-out ones, and are heard without the
        rumble that clips have lost, which would pass for another voice.
    layout : Layout, optional
        Of the experiment that made the voice.

    Raises
    ------
    SettingsError
        When there is too little to tell the target's own spread.
    AudioError
        When a recording cannot be read.
    """
    given = [read_audio(path) for path in recordings_in(places)]
    clips, unheard = (_joined_clips(part.clips) for part in (layout, layout.heldout)) if layout else ([], [])
    pieces = [sentences(highpass(audio, zero_phase=False) if clips else audio) for audio in given]
    known, heldout = (clips, _flat(pieces or unheard)) if clips else (pieces, [])
    if not heldout and len(known) == 1:   # a single recording: each of its pieces stands for one
        known = [[piece] for piece in known[0]]
    if not heldout and len(known) < 2:
        what = "one short recording" if known else "no recording"
        raise SettingsError(f"{what} of the target: how like itself it sounds cannot be told",
                            hint=f"give --target at least two recordings, or one of more than {_SENTENCE_SECONDS:g} s")
    return TargetSpeech(known, heldout)


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
        groups += [(recording, [clips[number] for number in part])
                   for part in np.array_split(np.arange(len(clips)), count)]
    return [[_joined(clips) for _, clips in pieces]
            for _, pieces in groupby(spread(groups, _MOST_PIECES), key=lambda group: group[0])]


def _joined(files: Sequence[Path]) -> Audio:
    clips = [read_audio(file) for file in files]
    return Audio(np.concatenate([clip.samples for clip in clips]), clips[0].sample_rate)


def _flat(recordings: Iterable[list[Audio]]) -> list[Audio]:
    return [piece for pieces in recordings for piece in pieces]
