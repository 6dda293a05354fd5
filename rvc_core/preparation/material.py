"""What there is to learn from, in a few figures: summed up from a survey, or from clips. Pure: reads no files."""

import math
from dataclasses import dataclass, replace

from ..settings import PrepareSettings
from ..workspace.manifest import Manifest, covered_seconds
from .heldout import heldout_seconds
from .survey import DatasetReport, Grade, RecordingReport

_CLIP_SECONDS = 2.7  # of a usual clip: 2964 s in 1130 clips
_SILENT = 0.99
_MOST_POOR, _MOST_FAULTY, _MOST_BELOW = 0.3, 0.3, 0.25


@dataclass(frozen=True)
class Material:
    """What there is to learn from.

    Attributes
    ----------
    minutes : float
        Of sound to train on: neither silent nor held out.
    grade : str or None
        Of the survey. None: not measured.
    bandwidth_hz : float
        Reached by three quarters of the time. 0: not measured.
    clips : int
        Training clips, estimated where nothing is prepared.
    has_heldout : bool
        Whether recordings are held out for validation.
    to_fix : tuple
        Recordings with a problem, and the problem as the first of them has it: one row for each kind, the worst first.
    """

    minutes: float
    grade: Grade | None
    bandwidth_hz: float
    clips: int
    has_heldout: bool
    to_fix: tuple[tuple[str, str], ...] = ()
    speakers: int = 1


def material_of(
    report: DatasetReport, settings: PrepareSettings = PrepareSettings(), manifest: Manifest | None = None
) -> Material:
    """Sum up a survey; with the clips that were made of these recordings, if there are any."""
    usable = [
        (one, one.quality, one.seconds * (1 - one.quality.silent_share))
        for one in report.recordings
        if one.quality and one.quality.silent_share <= _SILENT
    ]
    total = sum(seconds for *_, seconds in usable)
    poor = sum(seconds for one, _, seconds in usable if one.verdict == "poor")
    good = sum(seconds for one, _, seconds in usable if one.verdict == "good")
    grade: Grade = "poor" if poor > _MOST_POOR * total else "usable" if total - good > _MOST_FAULTY * total else "good"
    folders = {one.recording.split("/")[0] for one, *_ in usable} if settings.speakers == "folders" else ()
    held = heldout_seconds(total, settings.holdout_minutes)
    minutes = (total - held) / 60
    planned = Material(minutes, None, 0.0, math.ceil(60 * minutes / _CLIP_SECONDS), held > 0)
    return replace(
        of_clips(manifest) if manifest else planned,
        grade=grade,
        bandwidth_hz=_reached_hz([(quality.bandwidth_hz, seconds) for _, quality, seconds in usable]),
        to_fix=_kinds_of(report.recordings),
        speakers=max(1, len(folders)),
    )


def _kinds_of(recordings: list[RecordingReport]) -> tuple[tuple[str, str], ...]:
    """Each kind of problem with the recordings that have it: red before amber, then by the seconds of those."""
    kinds: dict[tuple[str, bool], list[tuple[bool, float, str, str]]] = {}
    for one in recordings:
        rows = [(each.measure, each.colour != "red", str(each)) for each in one.findings if each.colour != "green"]
        for kind, is_mild, problem in rows or [(why, one.verdict != "poor", why) for why in one.problems[:1]]:
            kinds.setdefault((kind, is_mild), []).append((is_mild, -one.seconds, one.recording, problem))
    order = sorted(map(sorted, kinds.values()), key=lambda rows: (rows[0][0], sum(row[1] for row in rows)))
    return tuple((_named([row[2] for row in rows]), rows[0][3]) for rows in order)


def _named(names: list[str]) -> str:
    """The first two, and how many there are.

    Examples
    --------
    >>> _named(["a.wav"]), _named(["a.wav", "b.wav", "c.wav"])
    ('a.wav', 'a.wav, b.wav, … (3)')
    """
    return ", ".join(names[:2]) + (f", … ({len(names)})" if len(names) > 2 else "")


def _reached_hz(rows: list[tuple[float, float]]) -> float:
    """The bandwidth that all but a quarter of the seconds reach."""
    left = _MOST_BELOW * sum(seconds for _, seconds in rows)
    for bandwidth_hz, seconds in sorted(rows):
        left -= seconds
        if left < 0:
            return bandwidth_hz
    return 0.0


def of_clips(manifest: Manifest) -> Material:
    """What is known of recordings that are gone, by the clips that were made of them."""
    training = manifest.training
    return Material(covered_seconds(training) / 60, None, 0.0, len(training), bool(manifest.heldout))
