"""Measure a folder of recordings before training: figures, a grade, and what to do."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from ..audio.quality import Quality, beyond_full_scale, measure
from ..audio.recordings import find_recordings, unread_folders
from ..audio.waveform import read_recording
from ..errors import AudioError
from ..progress import Progress, Report, Silent, counted

Grade = Literal["good", "usable", "poor"]
_RANK: dict[Grade, int] = {"good": 0, "usable": 1, "poor": 2}
NOISY_SNR_DB, OFFSET = 22.0, 0.02
HUM_BELOW_DB = 45.0  # a hum that is further below the voice is not heard
ACCOMPANIED_FLATNESS = 0.46  # in the pauses; see docs/decisions.md
_FEW_MINUTES, _ENOUGH_MINUTES = 1.0, 10.0


@dataclass(frozen=True)
class RecordingReport:
    """One recording: figures, grade and problems; `quality` is None if it cannot be decoded."""

    recording: str
    seconds: float
    sample_rate: int
    quality: Quality | None
    verdict: Grade
    problems: list[str]


@dataclass(frozen=True)
class DatasetReport(Report):
    """A dataset: its recordings, an overall grade, and one line of advice."""

    minutes: float
    verdict: Grade
    advice: str
    recordings: list[RecordingReport]
    not_read: list[tuple[str, str]] = field(default_factory=list)  # sub-folders, and why

    def __str__(self) -> str:
        faulty = [
            f"  {one.recording}: {one.verdict}: {'; '.join(one.problems)}" for one in self.recordings if one.problems
        ]
        head = (
            f"{self.minutes:.1f} minutes in {counted(len(self.recordings), 'recording')}: {self.verdict}. {self.advice}"
        )
        return "\n".join([head, *(f"  {name}/: {reason}" for name, reason in self.not_read), *faulty])


def inspect(dataset: Path | str, *, progress: Progress = Silent()) -> DatasetReport:
    """Measure every recording of a dataset.

    Parameters
    ----------
    dataset : Path or str
        A folder (with its sub-folders) or one recording.

    Raises
    ------
    DatasetError
        When the path does not exist.
    """
    files = find_recordings(Path(dataset).expanduser().absolute())
    progress.start("inspecting", len(files.recordings))
    reports = []
    for name, path in files.recordings.items():
        reports.append(_report(name, path))
        progress.advance(name)
    minutes = sum(report.seconds for report in reports) / 60
    verdict, advice = _overall(reports, minutes)
    return DatasetReport(round(minutes, 3), verdict, advice, reports, unread_folders(files))


def grade(quality: Quality, sample_rate: int) -> tuple[Grade, list[str]]:
    """Grade a recording by its figures; returns the grade, and each problem with its remedy.

    Examples
    --------
    >>> grade(Quality(-20, -40, 20, 0, 10_000, 0.1, 0), 24_000)
    ('usable', ['noisy (20 dB above its noise): record closer to the microphone or remove the noise'])
    """
    if quality.silent_share > 0.99:
        return "poor", ["almost all of it is silent: raise its level or remove it"]
    clipped_percent, snr_db = 100 * quality.clipped_share, quality.snr_db
    bandwidth_khz, rate_khz = quality.bandwidth_hz / 1000, sample_rate / 1000
    findings: list[tuple[bool, Grade, str]] = [
        (clipped_percent > 1, "poor", f"clipped ({clipped_percent:.1f} % of it): record again at a lower level"),
        (0.01 < clipped_percent <= 1, "usable", "clipped in places: lower the recording level"),
        (snr_db < 12, "poor", f"very noisy or without pauses ({snr_db:.0f} dB above its quietest part): listen to it"),
        (
            12 <= snr_db < NOISY_SNR_DB,
            "usable",
            f"noisy ({snr_db:.0f} dB above its noise): record closer to the microphone or remove the noise",
        ),
        (quality.level_db < -35, "usable", f"quiet ({quality.level_db:.0f} dB): raise its level"),
        (bandwidth_khz < 5, "poor", f"nothing above {bandwidth_khz:.1f} kHz, like a telephone: look for a better copy"),
        (
            bandwidth_khz >= 5 and rate_khz >= 32 and bandwidth_khz < 0.3 * rate_khz,
            "usable",
            f"nothing above {bandwidth_khz:.1f} kHz in a {rate_khz:g} kHz file: look for the original",
        ),
        (quality.silent_share > 0.6, "usable", f"{100 * quality.silent_share:.0f} % silence, which is cut out"),
        (abs(quality.offset) > OFFSET, "usable", "has a DC offset, which will be filtered out: check the recorder"),
        (
            quality.hum_hz > 0 and quality.hum_db > quality.level_db - HUM_BELOW_DB,
            "usable",
            f"hums at {quality.hum_hz:.0f} Hz: rvc repair removes it",
        ),
        (
            quality.pause_flatness < ACCOMPANIED_FLATNESS and snr_db < 35,
            "usable",
            "music or voices in its pauses: rvc repair separates the voice",
        ),
    ]
    found = [(verdict, problem) for applies, verdict, problem in findings if applies]
    worst: Grade = max((verdict for verdict, _ in found), key=_RANK.__getitem__, default="good")
    return worst, [problem for _, problem in found]


def _report(name: str, path: Path) -> RecordingReport:
    try:
        read = read_recording(path)
    except AudioError as error:
        return RecordingReport(name, 0.0, 0, None, "poor", [str(error)])
    audio, quality = read.audio, measure(read.audio)
    verdict, problems = grade(quality, audio.sample_rate)
    if loud := beyond_full_scale(audio):
        verdict, problems = "poor", [loud, *problems]
    problems += read.warnings
    return RecordingReport(name, round(audio.seconds, 3), audio.sample_rate, quality, verdict, problems)


def _overall(reports: list[RecordingReport], minutes: float) -> tuple[Grade, str]:
    """Grade of the dataset by time, and the most useful next step."""
    if minutes < _FEW_MINUTES:
        return "poor", "Too little: collect 10 minutes or more of one person."
    shares = {
        verdict: sum(one.seconds for one in reports if one.verdict == verdict) / (60 * minutes) for verdict in _RANK
    }
    if shares["poor"] > 0.3:
        return "poor", "Remove or replace the recordings marked poor."
    if minutes < _ENOUGH_MINUTES:
        return "usable", "Collect 10 minutes or more for a better voice."
    if shares["good"] < 0.7:
        return "usable", "Fix the problems listed for a better voice."
    return "good", "Ready to prepare."
