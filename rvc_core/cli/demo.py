"""The demo: train a voice on this machine, convert with it, and measure the result.

It runs the unattended notebooks with papermill on the two synthesised voices inside the package.
"""

import os
import shutil
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import torch

from ..audio.waveform import Audio, read_audio
from ..batch import execute
from ..embedded import voice_folder
from ..errors import SettingsError
from ..features.pitch import pitch_estimator
from ..nn.spectrogram import mel_spectrogram
from ..presets import preset
from ..progress import Progress, Silent
from ..scoring.melody import pitch_share
from ..scoring.similarity import SpeakerScorer, similarity_gain, speaker_similarity
from ..system.files import replace_atomically, write_json
from ..workspace.layout import Layout
from ..workspace.manifest import ExperimentRecord
from ..workspace.metrics import history

NAME = "demo"
_TRAINING = {
    "preset": "nano",
    "epochs": 1000,
    "max_minutes": 3.8,
    "save_every_epochs": 1000,
    "holdout_minutes": 0.2,
    "batch_size": 8,
}
_LEAST_MEL_FALL, _LEAST_GAIN, _LEAST_PITCH_SHARE = 0.25, 0.2, 0.7


@dataclass(frozen=True)
class DemoReport:
    """Measurements of the demo; `failures` is empty if all reached their thresholds.

    Attributes
    ----------
    similarity_target, similarity_source : float
        Cosine similarity of the output to the target's and to the source's speech (Resemblyzer, GE2E).
    similarity_gain : float
        0: as close to the target as the source was; 1: as close as the target's own held-out speech.
    pitch_share : float
        Share of the source's voiced frames kept within 50 cents after transposition.
    """

    training_minutes: float
    epochs: int
    heldout_mel_first: float
    heldout_mel_last: float
    similarity_target: float
    similarity_source: float
    similarity_gain: float
    pitch_share: float
    output: str
    picture: str
    seconds: float
    failures: list[str]

    @property
    def passed(self) -> bool:
        """Whether every measurement reached its threshold."""
        return not self.failures

    def as_json(self) -> dict[str, Any]:
        """For ``--json``."""
        return {**asdict(self), "passed": self.passed}


def demo(folder: Path, *, progress: Progress = Silent()) -> DemoReport:
    """Train on the package's target voice, convert its source voice, measure, and draw a picture.

    Parameters
    ----------
    folder : Path
        Folder for all results. An earlier demo in it is replaced.
    """
    started = time.monotonic()
    folder = folder.absolute()
    layout = Layout.of(NAME, folder)
    if layout.root.exists():
        _refuse_others(layout)
        shutil.rmtree(layout.root)
    folder.mkdir(parents=True, exist_ok=True)
    with mock.patch.dict(os.environ, RVC_HOME=str(folder)):
        progress.say("1/3 training a voice for about four minutes (notebooks/batch_train.ipynb)")
        trained = execute(
            "batch_train",
            folder / "batch_train",
            {"name": NAME, "dataset": str(voice_folder("target")), **_TRAINING},
            progress,
        )
        progress.say("2/3 converting another person's sentences (notebooks/batch_convert.ipynb)")
        converted = execute(
            "batch_convert",
            folder / "batch_convert",
            {"voice": NAME, "inputs": str(voice_folder("source")), "output": str(folder / "converted")},
            progress,
        )
        progress.say("3/3 measuring")
    report = _report(layout, trained, converted, started)
    write_json(folder / "figures.json", report.as_json())
    return report


def _refuse_others(layout: Layout) -> None:
    """Refuse a folder with somebody's own experiment of the demo's name: it would be deleted.

    Raises
    ------
    RVCError
    """
    ours = voice_folder("target").parts[-3:]
    if not layout.experiment.exists() or Path(ExperimentRecord.load(layout).dataset).parts[-3:] != ours:
        raise SettingsError(
            f"{layout.root} is an experiment of your own, which the demo would delete",
            hint="give another folder: rvc demo --output FOLDER",
        )


# -- measuring -----------------------------------------------------------------------------------------------------
def _report(layout: Layout, trained: dict[str, Any], converted: dict[str, Any], started: float) -> DemoReport:
    scorer, estimator = SpeakerScorer(), pitch_estimator("fcpe")
    sources = [read_audio(path) for path in _recordings(voice_folder("source"))]
    outputs = [read_audio(Path(row["output"])) for row in converted["files"]]
    centre = scorer.centre([_joined(layout.clips)])
    heldout = scorer.embed(_joined(layout.heldout.clips))
    source_voice = np.stack([scorer.embed(audio) for audio in sources])
    output_voice = np.stack([scorer.embed(audio) for audio in outputs])
    shares = [
        pitch_share(estimator(source.samples), estimator(output.resample(16000).samples))
        for source, output in zip(sources, outputs, strict=True)
    ]
    training = trained["train"]
    figures = {
        "training_minutes": round(trained["prepare"]["seconds_kept"] / 60, 2),
        "epochs": training["epochs"],
        "heldout_mel_first": round(training["heldout_mel_first"], 4),
        "heldout_mel_last": round(training["heldout_mel_last"], 4),
        "similarity_target": round(speaker_similarity(output_voice, centre), 3),
        "similarity_source": round(speaker_similarity(output_voice, source_voice.mean(axis=0)), 3),
        "similarity_gain": round(similarity_gain(output_voice, source_voice, heldout, centre), 3),
        "pitch_share": round(float(np.mean(shares)), 3),
    }
    picture = layout.root.parent.parent / "demo.png"
    _draw(picture, layout, sources[0], _joined(layout.heldout.clips), outputs[0])
    return DemoReport(
        **figures,
        output=converted["files"][0]["output"],
        picture=str(picture),
        seconds=round(time.monotonic() - started, 1),
        failures=_failures(figures),
    )


def _failures(figures: dict[str, Any]) -> list[str]:
    """Measurements below their thresholds, in words."""
    fall = 1 - figures["heldout_mel_last"] / figures["heldout_mel_first"]
    bars = [
        ("held-out mel fell by", fall, _LEAST_MEL_FALL),
        ("similarity gain", figures["similarity_gain"], _LEAST_GAIN),
        ("pitch share", figures["pitch_share"], _LEAST_PITCH_SHARE),
    ]
    return [f"{what} {value:.2f}, below {bar:.2f}" for what, value, bar in bars if not value >= bar]


def _recordings(folder: Path) -> list[Path]:
    return sorted(folder.glob("*.flac"))


def _joined(folder: Path) -> Audio:
    """All clips of a folder as one recording: similarity is more reliable on long audio."""
    clips = [read_audio(path) for path in sorted(folder.glob("*.wav"))]
    return Audio(np.concatenate([clip.samples for clip in clips]), clips[0].sample_rate)


def _draw(path: Path, layout: Layout, source: Audio, target: Audio, output: Audio) -> None:
    """Draw the training curves, and the mel spectrograms of source, target and output."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    rows = history(layout)
    figure = Figure(figsize=(11, 8), layout="constrained")
    FigureCanvasAgg(figure)
    curves, *pictures = figure.subplots(4, 1, height_ratios=[1.6, 1, 1, 1])
    steps = [(row["step"], row["loss/g/mel"]) for row in rows if row["kind"] == "step"]
    curves.plot(*zip(*steps, strict=True), color="0.7", label="training: loss/g/mel")
    held = [(row["step"], row["heldout/mel"]) for row in rows if row["kind"] == "validation"]
    right = curves.twinx()
    right.plot(*zip(*held, strict=True), "o-", color="tab:red", label="held-out recordings: log-mel distance")
    curves.set(xlabel="step", ylabel="training loss", title="Training")
    right.set(ylabel="held-out", ylim=(0, None))
    figure.legend(loc="outside upper right", ncols=2)
    spec = preset("nano")
    shown = (
        ("source", source),
        ("target, held out", target),
        ("output: the source's words in the target's voice", output),
    )
    for axes, (title, audio) in zip(pictures, shown, strict=True):
        wave = torch.from_numpy(audio.resample(spec.sample_rate)[:5.0].samples)[None]
        mel = mel_spectrogram(wave, spec)[0].numpy()
        axes.imshow(mel, origin="lower", aspect="auto", extent=(0, mel.shape[1] / 100, 0, spec.mels), cmap="magma")
        axes.set(title=title, ylabel="mel band")
    pictures[-1].set(xlabel="seconds")
    with replace_atomically(path) as temporary:
        figure.savefig(temporary, dpi=80, format="png")
