"""What there is to learn from, in a few figures: summed up from a survey, or from clips. Pure: reads no files."""

import math
from dataclasses import dataclass, replace

from ..settings import PrepareSettings
from ..workspace.manifest import Manifest, covered_seconds
from .heldout import heldout_seconds
from .survey import DatasetReport, Grade

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
        Names of recordings and the first problem of each, the worst and longest first.
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
    worst = sorted(report.recordings, key=lambda one: (one.verdict != "poor", -one.seconds))
    folders = {one.recording.split("/")[0] for one, *_ in usable} if settings.speakers == "folders" else ()
    held = heldout_seconds(total, settings.holdout_minutes)
    minutes = (total - held) / 60
    planned = Material(minutes, None, 0.0, math.ceil(60 * minutes / _CLIP_SECONDS), held > 0)
    return replace(
        of_clips(manifest) if manifest else planned,
        grade=grade,
        bandwidth_hz=_reached_hz([(quality.bandwidth_hz, seconds) for _, quality, seconds in usable]),
        to_fix=tuple((one.recording, one.problems[0]) for one in worst if one.problems),
        speakers=max(1, len(folders)),
    )


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
