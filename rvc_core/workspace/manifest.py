"""The experiment's records: its clips with all unused audio, and its name, dataset and preset."""

import shlex
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, field, replace
from typing import Annotated, Any

from pydantic import Discriminator, Field, Tag

from ..errors import DatasetError, StageOrderError
from ..presets import VoiceSpec, preset
from ..system.documents import Leaf, Line, read_json, read_jsonl
from ..system.files import write_json, write_jsonl
from .layout import Layout, typed

_DIGITS = 6  # microseconds: shorter than one sample
_Seconds = Annotated[float, Field(ge=0, le=1e9)]
_Speakers = Annotated[int, Field(ge=0, le=4096)]  # a voice has a row of weights for each


@dataclass(frozen=True)
class Clip:
    """A part of a recording that became a training or held-out clip.

    Attributes
    ----------
    id : str
        Stem of its files, ``{recording's number}_{clip's number}``.
    recording : str
        Path within the dataset.
    start_seconds, seconds : float
        Its part of the recording. The file is longer only if the whole recording is shorter than 0.8 s.
    heldout : bool
        Not in training or index, for validation.
    speaker : int
        Row of the voice's speaker table.
    group : str
        Manner of speaking, of an hour of training clips or more.
    """

    id: Leaf
    recording: str
    start_seconds: _Seconds
    seconds: _Seconds
    heldout: bool = False
    speaker: _Speakers = 0
    group: Line = ""


@dataclass(frozen=True)
class Explained:
    """A part of the input that is in no clip, with the reason.

    Attributes
    ----------
    reason : str
        ``silent``, ``too short``, ``too loud``, ``undecodable``, ``non-finite``, ``duplicate``, ``ignored folder`` or
        ``not audio``.
    detail : str
        More about the reason, one line for the user.
    """

    recording: str
    start_seconds: _Seconds
    seconds: _Seconds
    reason: str
    detail: str = ""


_Row = Annotated[
    Annotated[Clip, Tag("clip")] | Annotated[Explained, Tag("explained")],
    Discriminator(lambda row: row.get("kind") if isinstance(row, dict) else None),
]


@dataclass(frozen=True)
class Manifest:
    """All clips of an experiment, and all audio outside clips.

    Examples
    --------
    >>> manifest = Manifest([Clip("0_0", "a.wav", 0, 3.7), Clip("0_1", "a.wav", 3.4, 3.7)],
    ...                     [Explained("a.wav", 7.1, 2.9, "silent")])
    >>> round(manifest.seconds_kept, 6), manifest.explained_seconds
    (7.1, {'silent': 2.9})
    """

    clips: list[Clip] = field(default_factory=list)
    explained: list[Explained] = field(default_factory=list)

    @property
    def training(self) -> list[Clip]:
        """Training clips."""
        return [clip for clip in self.clips if not clip.heldout]

    @property
    def heldout(self) -> list[Clip]:
        """Held-out clips, for validation."""
        return [clip for clip in self.clips if clip.heldout]

    @property
    def seconds_kept(self) -> float:
        """Time in clips; overlap counts once."""
        return covered_seconds(self.clips)

    @property
    def explained_seconds(self) -> dict[str, float]:
        """Seconds outside clips, by reason."""
        totals: dict[str, float] = defaultdict(float)
        for row in self.explained:
            totals[row.reason] += row.seconds
        return {reason: round(seconds, _DIGITS) for reason, seconds in sorted(totals.items())}

    @classmethod
    def load(cls, layout: Layout) -> "Manifest":
        """Read ``manifest.jsonl``.

        Raises
        ------
        StageOrderError
            When the recordings have not been prepared.
        DatasetError
            When the file is damaged.
        """
        hint = _prepare_command(layout)
        try:
            rows = read_jsonl(layout.manifest, _Row, hint, error=DatasetError)
        except FileNotFoundError:
            raise _not_prepared(layout) from None
        clips = [row for row in rows if isinstance(row, Clip)]
        return cls(clips, [row for row in rows if isinstance(row, Explained)])

    def save(self, layout: Layout) -> None:
        """Write ``manifest.jsonl``: one clip or one unused part per line."""
        write_jsonl(layout.manifest, list(self._rows()))

    def _rows(self) -> Iterator[dict[str, Any]]:
        for kind, rows in (("clip", self.clips), ("explained", self.explained)):
            for row in rows:
                times = {"start_seconds": round(row.start_seconds, _DIGITS), "seconds": round(row.seconds, _DIGITS)}
                yield {"kind": kind, **asdict(row), **times}


@dataclass(frozen=True)
class ExperimentRecord:
    """Description of an experiment: name, dataset, and architecture of its voice.

    Attributes
    ----------
    speakers : int
        Rows of the speaker table; 0: the preset's number.
    speaker_names : list of str
        Of the first rows, where each folder of the dataset was a speaker.
    recordings : list of str
        Hashes of the recordings; empty in experiments of earlier versions.
    """

    name: Line
    dataset: Line
    preset: str
    uses_f0: bool = True
    speakers: _Speakers = 0
    speaker_names: list[str] = field(default_factory=list)
    recordings: list[str] = field(default_factory=list)

    @property
    def spec(self) -> VoiceSpec:
        """Architecture of the voice."""
        spec = preset(self.preset, uses_f0=self.uses_f0)
        return replace(spec, speakers=self.speakers) if self.speakers else spec

    @classmethod
    def load(cls, layout: Layout) -> "ExperimentRecord":
        """Read ``experiment.json``.

        Raises
        ------
        StageOrderError
            When the recordings have not been prepared.
        DatasetError
            When the file is damaged.
        """
        hint = _prepare_command(layout)
        try:
            return read_json(layout.experiment, cls, hint, error=DatasetError)
        except FileNotFoundError:
            raise _not_prepared(layout) from None

    def save(self, layout: Layout) -> None:
        """Write ``experiment.json``."""
        write_json(layout.experiment, asdict(self))


def speaker_names(layout: Layout, recordings: Iterable[str]) -> list[str]:
    """The speakers' folders in the order of their rows; existing speakers keep their rows.

    Raises
    ------
    DatasetError
        When a recording is in no speaker's folder.
    """
    folder_of = {name: name.split("/")[0] for name in recordings}
    if beside := [name for name, folder in folder_of.items() if folder == name]:
        raise DatasetError(
            f"{beside[0]} is in no speaker's folder",
            hint="with speakers=folders, make one folder per person and put their recordings into it",
        )
    try:
        existing = ExperimentRecord.load(layout).speaker_names
    except (StageOrderError, DatasetError):
        existing = []
    return [*existing, *sorted({*folder_of.values()} - {*existing})]


def covered_seconds(clips: list[Clip]) -> float:
    """Time in clips; overlap counts once."""
    total, recording, reached = 0.0, "", 0.0
    for clip in sorted(clips, key=lambda clip: (clip.recording, clip.start_seconds)):
        if clip.recording != recording:
            recording, reached = clip.recording, 0.0
        stop = clip.start_seconds + clip.seconds
        total += max(0.0, stop - max(reached, clip.start_seconds))
        reached = max(reached, stop)
    return total


def _not_prepared(layout: Layout) -> StageOrderError:
    if layout.filelist.is_file():
        return StageOrderError(
            f"{layout.root} comes from another program and is not imported yet",
            hint=f"run: rvc import {shlex.quote(str(layout.root))}",
        )
    return StageOrderError(f"nothing is prepared for {layout.name!r}", hint=_prepare_command(layout))


def _prepare_command(layout: Layout) -> str:
    return f"run: rvc prepare --dataset FOLDER {typed(layout.name)}"
