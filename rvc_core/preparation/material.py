"""What there is to learn from, in a few figures: summed up from a survey, or from clips. Pure: reads no files."""

import math
from dataclasses import dataclass, replace

from ..workspace.manifest import Manifest, covered_seconds
from .survey import DatasetReport, Grade

_CLIP_SECONDS = 2.7  # of a usual clip: 2964 s in 1130 clips
_HOLDOUT_MINUTES, _HOLDOUT_SHARE = 3.0, 0.1
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


def material_of(report: DatasetReport, manifest: Manifest | None = None, speakers: int = 1) -> Material:
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
    bandwidth_hz = _reached_hz([(quality.bandwidth_hz, seconds) for _, quality, seconds in usable])
    worst = sorted(report.recordings, key=lambda one: (one.verdict != "poor", -one.seconds))
    to_fix = tuple((one.recording, one.problems[0]) for one in worst if one.problems)
    if manifest:
        return replace(of_clips(manifest), grade=grade, bandwidth_hz=bandwidth_hz, to_fix=to_fix, speakers=speakers)
    has_heldout = total >= 60 * _HOLDOUT_MINUTES
    minutes = total / 60 * (1 - _HOLDOUT_SHARE if has_heldout else 1)
    clips = math.ceil(60 * minutes / _CLIP_SECONDS)
    return Material(minutes, grade, bandwidth_hz, clips, has_heldout, to_fix, speakers)


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
