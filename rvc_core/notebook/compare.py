"""Saved voices compared by ear: the verdict's candidates on the same clips, equally loud, and who was preferred.

Everything stands beside the metrics: the clips in ``listening/``, each choice as a line of ``choices.jsonl``.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from typing_extensions import TypedDict

from ..audio.recordings import recordings_in
from ..embedded import voice_folder
from ..errors import StageOrderError, WeightsError
from ..experiment import Experiment
from ..progress import Progress, Silent
from ..settings import ConvertSettings, text_of
from ..sweep import SweepReport, Tried, equally_loud, sweep
from ..system.documents import Count, read_jsonl
from ..system.files import signature, write_json
from ..system.inside import open_inside
from ..verdict.held_out import METRICS
from ..verdict.overtraining import Candidate
from ..voice import Voice
from ..voices.share import export_voice
from ..workspace.layout import Layout


class _Choice(TypedDict):
    clip: str
    epochs: list[Count]
    preferred: Count | None


@dataclass(frozen=True)
class Comparison:
    """Voices in the order of their epochs, clips, and what each voice makes of each clip.

    Attributes
    ----------
    files : dict
        (epoch, clip) to the converted file; all files of a clip are equally loud.
    labels : dict
        Of a sweep: what each number stands for.
    recommended : int or None
        The epoch that the verdict recommends, or where it cannot tell the one to listen to first.
    """

    layout: Layout
    voices: list[Candidate]
    clips: list[Path]
    files: dict[tuple[int, Path], Path]
    recommended: int | None
    labels: dict[int, str] = field(default_factory=dict)

    def name_of(self, epoch: int) -> str:
        """How a voice is called once everything was heard."""
        return self.labels.get(epoch, f"epoch {epoch}")

    def table(self) -> str:
        """Voices with their scores and the choices so far, in Markdown."""
        metrics = [name for name in METRICS if any(name in one.scores for one in self.voices)]
        counted = preferences(self.layout)
        rows = [
            ["epoch", "why", *(f"{name} {'↑' if METRICS[name][0] else '↓'}" for name in metrics), "preferred"],
            ["---"] * (len(metrics) + 3),
        ]
        for one in self.voices:
            won, heard = counted.get(one.epoch, (0, 0))
            rows.append(
                [
                    str(one.epoch),
                    ", ".join(one.why),
                    *(f"{one.scores[name]:.3g}" for name in metrics),
                    f"{won:g} of {heard}" if heard else "",
                ]
            )
        return "\n".join(f"| {' | '.join(row)} |" for row in rows)

    def is_recommended(self, epoch: int | None) -> bool:
        """Whether the verdict recommends the voice of an epoch: not where it cannot tell."""
        return any(one.epoch == epoch and "recommended" in one.why for one in self.voices)

    def as_json(self) -> dict[str, Any]:
        """For the notebook's result file."""
        return {
            "recommended": self.recommended if self.is_recommended(self.recommended) else None,
            "voices": [
                {"epoch": one.epoch, "step": one.step, "path": one.path, "why": list(one.why), "scores": one.scores}
                for one in self.voices
            ],
            "files": [
                {"epoch": epoch, "clip": str(clip), "path": str(file)} for (epoch, clip), file in self.files.items()
            ],
            "preferences": {str(epoch): list(counts) for epoch, counts in preferences(self.layout).items()},
        }


def compare(
    experiment: Experiment,
    clips: str | float = "",
    settings: ConvertSettings = ConvertSettings(),
    progress: Progress = Silent(),
) -> Comparison:
    """Let each candidate of the verdict speak the same clips; what was made before is taken as it is.

    Parameters
    ----------
    clips : str
        A recording, or a folder of them, of other people; empty: those in the package.

    Raises
    ------
    StageOrderError
        When no voice is saved yet.
    RVCError
        When a clip cannot be read or converted.
    """
    verdict, layout, settings = experiment.verdict(), experiment.layout, equally_loud(settings)
    voices = sorted((one for one in verdict.candidates if one.path), key=lambda one: one.epoch)
    if not voices:
        raise _nothing_to_hear(layout)
    sources = recordings_in([text_of(clips) or voice_folder("source")])
    files: dict[tuple[int, Path], Path] = {}
    progress.start("speaking", len(voices) * len(sources))
    for one in voices:
        for clip in sources:
            files[one.epoch, clip] = file = _file_of(layout, one, clip, settings)
            if not file.exists():
                Voice.load(str(one.path), runtime=experiment.runtime).convert(clip, settings, output=file)
            progress.advance(f"epoch {one.epoch}, {clip.name}")
    averages = {one.epoch: f"average of epochs {one.from_epoch} to {one.epoch}" for one in voices if one.from_epoch}
    return Comparison(layout, voices, sources, files, verdict.best.epoch if verdict.best else None, averages)


def swept(
    experiment: Experiment,
    clips: str | float,
    grid: Mapping[str, Sequence[Any]],
    settings: ConvertSettings = ConvertSettings(),
    progress: Progress = Silent(),
) -> tuple[SweepReport, Comparison]:
    """Sweep the first clip over the verdict's candidates and these values: the figures, and a blind comparison.

    Parameters
    ----------
    grid : mapping
        Lists of values: `index_rate`, `protect`, `transpose`.
    """
    layout, verdict = experiment.layout, experiment.verdict()
    saved = [Path(one.path) for one in verdict.candidates if one.path] or layout.voices()[-1:]
    if not saved:
        raise _nothing_to_hear(layout)
    clip = recordings_in([text_of(clips) or voice_folder("source")])[0]
    folder = layout.listening / "sweep"
    report = sweep(saved, Tried(clip), grid, settings, output=folder, runtime=experiment.runtime, progress=progress)
    voices = [Candidate(one.number, 0, one.output, (), {}) for one in report.trials]
    files = {(one.number, clip): Path(one.output) for one in report.trials}
    labels = {one.number: one.label for one in report.trials}
    return report, Comparison(Layout(folder, layout.name), voices, [clip], files, None, labels)


def _file_of(layout: Layout, voice: Candidate, clip: Path, settings: ConvertSettings) -> Path:
    """A name that changes with all that the sound depends on."""
    spoken = [settings.stamp(), *((str(path), path.stat().st_mtime_ns) for path in (clip, Path(str(voice.path))))]
    return layout.listening / f"{clip.stem}_e{voice.epoch}_{signature(spoken)[:8]}.{settings.output_format}"


def _nothing_to_hear(layout: Layout) -> StageOrderError:
    return StageOrderError(f"{layout.name!r} has no saved voice to hear", hint="train until one is saved")


# -- choices -------------------------------------------------------------------------------------------------------
def record_choice(layout: Layout, clip: str, epochs: tuple[int, int], preferred: int | None) -> None:
    """Write down which of two voices was preferred on a clip; None: neither."""
    row = {"clip": clip, "epochs": list(epochs), "preferred": preferred}
    with open_inside(layout.choices, "ab") as file:
        file.write(json.dumps(row).encode() + b"\n")


def preferences(layout: Layout) -> dict[int, tuple[float, int]]:
    """By epoch, in order: how often it was preferred (a draw counts half), of how many comparisons."""
    rows: list[_Choice] = read_jsonl(layout.choices, _Choice) if layout.choices.exists() else []
    counted: dict[int, tuple[float, int]] = {}
    for row in rows:
        for epoch in row["epochs"]:
            won, heard = counted.get(epoch, (0.0, 0))
            share = 0.5 if row["preferred"] is None else float(row["preferred"] == epoch)
            counted[epoch] = won + share, heard + 1
    return dict(sorted(counted.items()))


def chosen(comparison: Comparison, choice: str | int = "auto") -> Candidate:
    """The voice of an epoch; ``auto``: the most often preferred, and before anybody listened, the recommended.

    Raises
    ------
    WeightsError
        When there is no such voice; those that there are are listed.
    """
    choice = str(choice)
    by_epoch = {one.epoch: one for one in comparison.voices}
    if choice == "auto":
        counted = preferences(comparison.layout).items()
        heard = {epoch: won / compared for epoch, (won, compared) in counted if epoch in by_epoch}
        epoch = max(heard, key=lambda one: (heard[one], one == comparison.recommended), default=comparison.recommended)
        return by_epoch.get(epoch if epoch is not None else -1, comparison.voices[-1])
    if not choice.isdigit() or int(choice) not in by_epoch:
        raise WeightsError(
            f"no voice of epoch {choice} was compared", hint=f"there are auto, {', '.join(map(str, by_epoch))}"
        )
    return by_epoch[int(choice)]


def export(
    comparison: Comparison, choice: str | int, output: str | float, layout: str, result: str | float
) -> dict[str, Any]:
    """Write the chosen voice, its index and a card for other programs, and all that is known to the file `result`.

    Parameters
    ----------
    choice : str
        See `chosen`.
    output, layout : str
        See `share.export_voice`.

    Raises
    ------
    RVCError
        When there is no such voice, or that program could not use it.
    """
    voice = chosen(comparison, choice)
    exported = export_voice(Path(str(voice.path)), Path(text_of(output)).expanduser(), layout=layout)
    report = comparison.as_json() | {"chosen": voice.epoch, "exported": exported.paths}
    write_json(Path(text_of(result)), report)
    return report
