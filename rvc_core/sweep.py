"""Sweep: one clip over checkpoints, index rates, protection and transpositions, equally loud, as a table of figures."""

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .audio.waveform import read_recording
from .errors import ResourceError, SettingsError
from .evaluation.cases import Case
from .evaluation.evaluate import evaluate
from .progress import Progress, Silent
from .scoring.target_speech import TargetSpeech, target_speech
from .scoring.transcripts import texts_of
from .settings import ConvertSettings, RuntimeSettings
from .voice import Voice
from .workspace.layout import Layout

SWEPT = ("index_rate", "protect", "transpose")
FIGURES = ("similarity_target", "pitch_share", "word_errors", "dnsmos")
_MOST = 200


@dataclass(frozen=True)
class Tried:
    """What is converted: a clip, its words if they are known, recordings of the target (default: the held-out ones)."""

    clip: Path
    text: str | None = None
    target: Sequence[Path | str] = ()


@dataclass(frozen=True)
class Trial:
    """One combination: its checkpoint, settings, file and figures (None: not measured)."""

    number: int
    checkpoint: str
    settings: dict[str, Any]
    output: str
    transpose: float
    figures: dict[str, float | None]

    @property
    def label(self) -> str:
        """The combination in a few words."""
        return ", ".join([self.checkpoint, *(f"{name} {value}" for name, value in self.settings.items())])


@dataclass(frozen=True)
class SweepReport:
    """All trials, the best similarity first, and what was not measured and why."""

    clip: str
    trials: list[Trial]
    notes: list[str] = field(default_factory=list)

    def as_json(self) -> dict[str, Any]:
        """For ``--json``."""
        return {"clip": self.clip, "trials": [vars(one) for one in self.trials], "notes": self.notes}

    def table(self) -> str:
        """In Markdown; an arrow says where better is."""
        arrows = dict(zip(FIGURES, "↑↑↓↑", strict=True))
        shown = [name for name in FIGURES if any(one.figures[name] is not None for one in self.trials)]
        rows = [["", "checkpoint", *SWEPT, *(f"{name} {arrows[name]}" for name in shown)]]
        rows.append(["---"] * len(rows[0]))
        for one in self.trials:
            values = (one.figures[name] for name in shown)
            told = ["" if value is None else f"{value:.3g}" for value in values]
            rows.append([str(one.number), one.checkpoint, *(f"{one.settings[name]}" for name in SWEPT), *told])
        return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def sweep(
    checkpoints: Sequence[Path],
    tried: Tried,
    grid: Mapping[str, Sequence[Any]],
    settings: ConvertSettings = ConvertSettings(),
    *,
    output: Path,
    runtime: RuntimeSettings = RuntimeSettings(),
    progress: Progress = Silent(),
) -> SweepReport:
    """Convert a clip with every combination, into files of equal loudness, and measure each.

    Parameters
    ----------
    grid : mapping
        Values of `index_rate`, `protect` and `transpose`; a name that is missing keeps the settings' value.

    Raises
    ------
    SettingsError
        When a name or value does not fit, there are more than 200 combinations, or there is no recording of the target.
    """
    chosen = _combinations(grid, settings)  # checked before any work
    if len(chosen) * len(checkpoints) > _MOST:
        raise SettingsError(
            f"{len(chosen) * len(checkpoints)} combinations are more than {_MOST}", hint="choose fewer values"
        )
    made_in = Layout(checkpoints[0].absolute().parent, checkpoints[0].stem)
    speech = target_speech(tried.target, made_in.clips, made_in.heldout.clips)
    progress.start("converting", len(chosen) * len(checkpoints))
    [words] = texts_of([tried.clip], tried.text)
    source, cases, trials = read_recording(tried.clip), list[Case](), list[Trial]()
    told = [*source.warnings]
    for checkpoint in checkpoints:
        voice = Voice.load(checkpoint, runtime=runtime)
        for one, row in chosen.items():
            number = len(trials) + 1
            file = output / f"{number:03}_{checkpoint.stem}.{one.output_format}"
            file.unlink(missing_ok=True)  # of an earlier sweep
            made = voice.convert(source.audio, one, output=file)
            cases.append(Case(tried.clip, made.audio, made.output, words, {}, []))
            told += made.warnings
            trials.append(Trial(number, checkpoint.stem, row, made.output, made.transpose, {}))
            progress.advance(f"{number}")
    measured, notes = _measured(cases, speech, progress)
    rated = [
        Trial(**vars(one) | {"figures": {name: row.get(name) for name in FIGURES}})
        for one, row in zip(trials, measured, strict=True)
    ]
    rated.sort(key=lambda one: -(one.figures["similarity_target"] or 0.0))
    return SweepReport(str(tried.clip), rated, [*dict.fromkeys(told), *notes])


def _combinations(
    grid: Mapping[str, Sequence[Any]], settings: ConvertSettings
) -> dict[ConvertSettings, dict[str, Any]]:
    """The settings of each combination that differs from the others, and its values as they were given."""
    if unknown := sorted({*grid} - {*SWEPT}):
        raise SettingsError(f"{', '.join(unknown)} cannot be swept", hint=f"choose from {', '.join(SWEPT)}")
    values = [list(grid.get(name) or [getattr(settings, name)]) for name in SWEPT]
    own = equally_loud(settings).stamp()
    chosen: dict[ConvertSettings, dict[str, Any]] = {}
    for combination in itertools.product(*values):
        row = dict(zip(SWEPT, combination, strict=True))
        one = ConvertSettings.of(**own | row)
        if not one.index_rate:  # there is nothing to protect from
            one, row["protect"] = one.model_copy(update={"protect": 0.5}), 0.5
        chosen.setdefault(one, row)
    return chosen


def equally_loud(settings: ConvertSettings) -> ConvertSettings:
    """Settings with a loudness: the louder one of two results would seem the better one."""
    return settings if settings.loudness_lufs is not None else settings.model_copy(update={"loudness_lufs": -23.0})


def _measured(
    cases: Sequence[Case], speech: TargetSpeech, progress: Progress
) -> tuple[list[dict[str, Any]], list[str]]:
    """The figures of each case; without scorers none, and the reason."""
    try:
        report = evaluate(cases, speech, progress=progress)
    except ResourceError as error:
        return [{} for _ in cases], [f"nothing was measured: {error}. {error.hint}"]
    notes = [*report.notes, *(f"{one['scorer']} is not installed: {one['install']}" for one in report.absent)]
    return report.files, notes
