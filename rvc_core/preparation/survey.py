"""Measure a folder of recordings before training: figures, what is wrong, where, and what to do."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

import numpy as np

from ..audio.loudness import SILENT_LUFS
from ..audio.quality import Quality, beyond_full_scale, measure
from ..audio.recordings import find_recordings, unread_folders
from ..audio.slicer import SHORTEST_SECONDS, find_phrases, windows
from ..audio.waveform import Audio, header_seconds, read_recording
from ..errors import AudioError
from ..features.pitch import SAMPLE_RATE, pitch_estimator
from ..progress import Progress, Report, Silent, counted
from .duplicates import Duplicate, Print, duplicates, print_of
from .findings import RANK, UNEVEN_DB, Finding, finding, findings_of, merged, places_of
from .manner import LEAST_MINUTES, Group, dominating, grouped, manner_of, summed_up
from .people import WINDOW_SECONDS, Strange, Windows, can_embed, strangers, windows_of

Grade = Literal["good", "usable", "poor"]
_RANK: dict[Grade, int] = {"good": 0, "usable": 1, "poor": 2}
_FEW_MINUTES, _ENOUGH_MINUTES = 1.0, 10.0
_PITCH_MINUTES = 10.0  # of all recordings together: FCPE takes two seconds of a CPU for a minute
_TIMBRE = {"noise", "reverb", "bandwidth", "clipping", "accompaniment"}  # with these, one person sounds like another
_NARROW_SEMITONES, _MANY_STRANGERS = 6.0, 0.1


@dataclass(frozen=True)
class RecordingReport:
    """One recording: figures, grade, problems and findings; `quality` is None if it cannot be decoded."""

    recording: str
    seconds: float
    sample_rate: int
    quality: Quality | None
    verdict: Grade
    problems: list[str]
    findings: list[Finding] = field(default_factory=list)

    @property
    def told(self) -> list[tuple[str, str]]:
        """Each problem, and where it is."""
        where = {str(one): one.where for one in self.findings}
        return [(problem, where.get(problem, "")) for problem in self.problems]

    def graded(self, extra: Iterable[Finding]) -> "RecordingReport":
        """With more findings, graded by the worst one; the problems are theirs and what it had before."""
        findings = [*self.findings, *extra]
        worst = max((RANK[one.colour] for one in findings), default=0)
        problems = [*(str(one) for one in findings if one.colour != "green"), *self.problems]
        return replace(self, verdict=list(_RANK)[worst], problems=problems, findings=findings)


@dataclass(frozen=True)
class DatasetReport(Report):
    """A dataset: its recordings, an overall grade, and one line of advice.

    Attributes
    ----------
    speech_minutes : float
        Without silence.
    findings : list of Finding
        On all recordings together: pitch, other speakers, duplicates, groups.
    not_measured : dict
        Measures that this machine cannot make, and why.
    """

    minutes: float
    verdict: Grade
    advice: str
    recordings: list[RecordingReport]
    not_read: list[tuple[str, str]] = field(default_factory=list)  # sub-folders, and why
    speech_minutes: float = 0.0
    findings: list[Finding] = field(default_factory=list)
    groups: list[Group] = field(default_factory=list)
    not_measured: dict[str, str] = field(default_factory=dict)

    @property
    def head(self) -> str:
        """Minutes, grade and advice in one line."""
        of = counted(len(self.recordings), "recording")
        return f"{self.minutes:.1f} minutes in {of}: {self.verdict}. {self.advice}"

    def __str__(self) -> str:
        faulty = [
            f"  {one.recording}: {one.verdict}: {'; '.join(map(''.join, one.told))}"
            for one in self.recordings
            if one.problems
        ]
        of_all = [f"  all: {one}" for one in self.findings if one.reason]
        groups = [f"  group {one.name}: {one.minutes:.1f} minutes" for one in self.groups]
        missing = [f"  not measured: {measure}: {why}" for measure, why in self.not_measured.items()]
        unread = [f"  {name}/: {reason}" for name, reason in self.not_read]
        return "\n".join([self.head, *unread, *of_all, *groups, *faulty, *missing])


@dataclass
class _Traces:
    """What is kept of each recording to compare it with the others: a few hundred bytes a second."""

    prints: dict[str, Print] = field(default_factory=dict)
    people: dict[str, Windows] = field(default_factory=dict)
    f0_hz: list[np.ndarray] = field(default_factory=list)
    manners: list[np.ndarray] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)

    def take(self, name: str, audio: Audio, pitch_share: float, is_clear: bool) -> None:
        """Fingerprint, embeddings where it is clear, and the pitch of the recording's middle."""
        audio = audio.resample(SAMPLE_RATE)
        self.prints[name] = print_of(audio)
        if is_clear and (found := windows_of(audio)) is not None:
            self.people[name] = found
        start = (1 - pitch_share) / 2 * audio.seconds
        part = audio[start : start + max(SHORTEST_SECONDS, pitch_share * audio.seconds)]
        track = pitch_estimator("fcpe", "cpu", "periodicity")(part.samples)
        self.f0_hz.append(track.f0_hz[track.voiced])
        for phrase in find_phrases(part):
            for span in windows(phrase, SAMPLE_RATE):
                frames = slice(span.start // 160, span.stop // 160)
                own = type(track)(track.f0_hz[frames], track.voiced[frames])
                self.manners.append(manner_of(part.samples[span.start : span.stop], own))
                self.seconds.append(len(span) / SAMPLE_RATE / pitch_share)


def inspect(dataset: Path | str, *, by_folder: bool = False, progress: Progress = Silent()) -> DatasetReport:
    """Measure every recording of a dataset.

    Parameters
    ----------
    dataset : Path or str
        A folder (with its sub-folders) or one recording.
    by_folder : bool
        Whether each folder in the dataset is one speaker.

    Raises
    ------
    DatasetError
        When the path does not exist.
    """
    files = find_recordings(Path(dataset).expanduser().absolute())
    progress.start("inspecting", len(files.recordings))
    reports, traces = [], _Traces()
    claimed = sum(header_seconds(path) for path in files.recordings.values() if path.exists())
    pitch_share = min(1.0, 60 * _PITCH_MINUTES / max(claimed, 1.0))
    for name, path in files.recordings.items():
        reports.append(_report(name, path, traces, pitch_share))
        progress.advance(name)
    minutes = sum(report.seconds for report in reports) / 60
    spoken = sum(one.seconds * (1 - one.quality.silent_share) for one in reports if one.quality) / 60
    copies, others = duplicates(traces.prints), _others(traces.people, by_folder)
    usual = float(np.median([one.quality.loudness_lufs for one in reports if one.quality] or [0.0]))
    reports = [
        one.graded(_compared(one, usual, copies, others, traces.people)) if one.quality else one for one in reports
    ]
    names = grouped(np.array(traces.manners)) if spoken >= LEAST_MINUTES else []
    groups = summed_up(names, traces.seconds)
    of_all = [*_of_all(traces, copies, others, groups)]
    verdict, advice = _overall(reports, minutes, of_all)
    without = {} if can_embed() or not traces.prints else {"speaker": "install Resemblyzer to find other voices"}
    unread = unread_folders(files)
    sums = round(minutes, 3), verdict, advice, reports, unread, round(spoken, 3)
    return DatasetReport(*sums, of_all, groups, without)


def _report(name: str, path: Path, traces: _Traces, pitch_share: float) -> RecordingReport:
    try:
        read = read_recording(path)
    except AudioError as error:
        return RecordingReport(name, 0.0, 0, None, "poor", [str(error)])
    audio, quality = read.audio, measure(read.audio)
    findings = findings_of(quality, audio.sample_rate, read.opposed_db)
    if loud := beyond_full_scale(audio):
        findings.insert(0, Finding("level", "red", float(np.abs(audio.samples).max()), "", loud))
    elif len(findings) > 1:  # it is not silent
        is_clear = not any(one.colour != "green" and one.measure in _TIMBRE for one in findings)
        traces.take(name, audio, pitch_share, is_clear)
    findings = [
        replace(one, places=places_of(one.measure, audio, quality)) if one.colour != "green" else one
        for one in findings
    ]
    return RecordingReport(name, round(audio.seconds, 3), audio.sample_rate, quality, "good", read.warnings, findings)


# -- recordings against each other ---------------------------------------------------------------------------------
def _others(people: dict[str, Windows], by_folder: bool) -> dict[str, Strange]:
    """Where somebody else speaks; with `by_folder` than in most of the recording's folder."""
    folders: dict[str, dict[str, Windows]] = {}
    for name, windows_of_it in people.items():
        folders.setdefault(name.split("/")[0] if by_folder else "", {})[name] = windows_of_it
    return {name: seconds for folder in folders.values() for name, seconds in strangers(folder).items()}


def _compared(
    report: RecordingReport,
    usual_lufs: float,
    copies: list[Duplicate],
    others: dict[str, Strange],
    people: dict[str, Windows],
) -> Iterator[Finding]:
    """What one recording is beside the others: louder, spoken by somebody else, or there twice."""
    assert report.quality is not None
    name, off_db = report.recording, report.quality.loudness_lufs - usual_lufs
    than = f"{abs(off_db):.0f} dB {'louder' if off_db > 0 else 'quieter'} than most others"
    is_off = abs(off_db) > UNEVEN_DB and report.quality.loudness_lufs > SILENT_LUFS
    yield finding("loudness beside others", off_db, "dB", (is_off, "amber", than, "rvc clean levels it"))
    if name in people:
        strange = others.get(name, Strange(np.zeros(0), 0.0))
        at, share = strange.seconds, strange.share
        heard = f"somebody else speaks ({100 * share:.0f} % of it)"
        case = (share > 0, "red", heard, "remove it, or give each person a folder and use --speakers folders")
        made = finding("speaker", share, "of 1", case)
        yield replace(
            made, places=merged([(round(float(one), 2), round(float(one) + WINDOW_SECONDS, 2)) for one in at])
        )
    mine = [one for one in copies if one.other == name]
    told = "".join(f"{one.seconds:.1f} s of it are in {one.one} too" for one in mine[:1])
    twice = sum(one.seconds for one in mine)
    made = finding("duplicate", twice, "s", (bool(mine), "amber", told, "remove one of them"))
    begins = [round(one.other_seconds, 2) for one in mine]
    yield replace(made, places=[(at, round(at + one.seconds, 2)) for at, one in zip(begins, mine, strict=True)])


def _of_all(
    traces: _Traces, copies: list[Duplicate], others: dict[str, Strange], groups: list[Group]
) -> Iterator[Finding]:
    """What the recordings are together."""
    f0_hz = np.concatenate(traces.f0_hz or [np.zeros(0)])
    if len(f0_hz):
        low, high = np.quantile(f0_hz, (0.05, 0.95))
        semitones = 12 * float(np.log2(high / low))
        inside = 12 * np.log2(f0_hz[(f0_hz >= low) & (f0_hz <= high)] / low)
        counts = np.bincount(inside.astype(int), minlength=max(1, round(semitones))) / len(inside)
        counts = counts[counts > 0]
        yield Finding("pitch low", "green", round(float(low), 1), "Hz")
        yield Finding("pitch high", "green", round(float(high), 1), "Hz")
        told = f"the pitch moves by {semitones:.0f} semitones only"
        case = (semitones < _NARROW_SEMITONES, "amber", told, "add livelier speech, or singing")
        yield finding("pitch range", semitones, "semitones", case)
        even = float(np.exp(-(counts * np.log(counts)).sum())) / max(1.0, semitones)  # 1: each semitone as often
        yield finding("pitch evenness", min(1.0, even), "of 1")
    if traces.people:
        total = sum(len(one.seconds) for one in traces.people.values())
        share = sum(one.share * len(traces.people[name].seconds) for name, one in others.items()) / max(1, total)
        heard = f"{100 * share:.0f} % is somebody else's voice"
        repair = "remove it, or give each person a folder and use --speakers folders"
        many = (share >= _MANY_STRANGERS, "red", heard, repair)
        yield finding("speaker", share, "of 1", many, (share > 0, "amber", heard, repair))
    twice = sum(one.seconds for one in copies)
    case = (twice > 0, "amber", f"{twice:.0f} s are there twice", "remove what is twice: it counts double")
    yield finding("duplicate", twice, "s", case)
    if name := dominating(groups):
        told = f"{100 * groups[0].share:.0f} % is spoken in one way ({name})"
        yield finding("groups", groups[0].share, "of 1", (True, "amber", told, "record other ways of speaking too"))


def _overall(reports: list[RecordingReport], minutes: float, of_all: list[Finding]) -> tuple[Grade, str]:
    """Grade of the dataset by time, and the most useful next step."""
    if minutes < _FEW_MINUTES:
        return "poor", "Too little: collect 10 minutes or more of one person."
    shares = {
        verdict: sum(one.seconds for one in reports if one.verdict == verdict) / (60 * minutes) for verdict in _RANK
    }
    if shares["poor"] > 0.3:
        return "poor", "Remove or replace the recordings marked poor."
    if any(one.colour == "red" for one in of_all):
        return "poor", "Remove what somebody else says."
    if minutes < _ENOUGH_MINUTES:
        return "usable", "Collect 10 minutes or more for a better voice."
    if shares["good"] < 0.7:
        return "usable", "Fix the problems listed for a better voice."
    return "good", "Ready to prepare."
