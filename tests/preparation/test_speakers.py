"""A voice of several speakers: each folder of the dataset is a row, from the recordings to the conversion."""

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rvc_core.audio.waveform import Audio
from rvc_core.errors import DatasetError, SettingsError
from rvc_core.experiment import Experiment
from rvc_core.presets import preset
from rvc_core.settings import ConvertSettings, ExtractSettings, PrepareSettings, RuntimeSettings, TrainSettings
from rvc_core.training.validate import heldout_files
from rvc_core.workspace.filelist import read_filelist
from rvc_core.workspace.manifest import ExperimentRecord, Manifest
from synth import phrase

FOLDERS = PrepareSettings(preset="nano", speakers="folders", holdout_minutes=0.1)


def _record(dataset: Path, *names: str) -> Path:
    """Two recordings in each folder: Anna speaks at 220 Hz, everybody else at 110 Hz."""
    for number, name in enumerate(names):
        (dataset / name).mkdir(parents=True)
        for take in range(2):
            said = phrase(10 * number + take, f0_hz=220.0 if name == "anna" else 110.0, seconds=4.0, speaker=number % 2)
            Audio(said.samples, 16000).save(dataset / name / f"{take}.wav")
    return dataset


def test_two_speakers_go_the_whole_way(tmp_path: Path) -> None:
    lab = Experiment.open(
        "duo",
        _record(tmp_path / "duo", "bruno", "anna"),
        home=tmp_path,
        runtime=RuntimeSettings(threads=1, device="cpu"),
    )
    lab.prepare(FOLDERS)
    clips = Manifest.load(lab.layout).clips
    assert {(clip.recording.split("/")[0], clip.speaker) for clip in clips} == {("anna", 0), ("bruno", 1)}
    assert (
        {clip.speaker for clip in clips if clip.heldout}
        == {clip.speaker for clip in clips if not clip.heldout}
        == {0, 1}
    )
    lab.extract(ExtractSettings(f0_method="dio"))
    assert {file.speaker for file in read_filelist(lab.layout.filelist)} == {0, 1}
    assert {file.speaker for file in heldout_files(lab.layout, preset("nano"))} == {0, 1}
    lab.train(TrainSettings(epochs=1, batch_size=2))
    voice = lab.voice()
    medians_hz = voice.converter.voice.info.speakers
    assert [*medians_hz] == ["anna", "bruno"]
    assert medians_hz["anna"] == pytest.approx(220, rel=0.1) and medians_hz["bruno"] == pytest.approx(110, rel=0.1)
    plain: dict[str, Any] = {"index_rate": 0, "f0_method": "dio"}
    source = Audio(phrase(3, f0_hz=110.0, seconds=1.0).samples, 16000)
    made = [voice.convert(source, ConvertSettings(speaker=row, **plain)) for row in (0, 1)]
    assert made[0].transpose - made[1].transpose == pytest.approx(12, abs=1)
    with pytest.raises(SettingsError, match="the voice has 2 speakers") as caught:
        voice.convert(source, ConvertSettings(speaker=2))
    assert "0 (anna), 1 (bruno)" in caught.value.hint
    same = ConvertSettings(speaker=1, transpose=made[0].transpose, **plain)
    assert not np.allclose(voice.convert(source, same).audio.samples, made[0].audio.samples, atol=1e-3)


def test_a_speaker_keeps_its_row_when_others_come(tmp_path: Path) -> None:
    dataset = _record(tmp_path / "all", "bruno")
    lab = Experiment.open("all", dataset, home=tmp_path)
    lab.prepare(FOLDERS)
    _record(dataset, "anna")
    lab.prepare(FOLDERS)
    assert ExperimentRecord.load(lab.layout).speaker_names == ["bruno", "anna"]
    assert {clip.speaker for clip in Manifest.load(lab.layout).clips if "bruno" in clip.recording} == {0}


def test_a_recording_beside_the_folders_is_refused_before_anything_is_done(tmp_path: Path) -> None:
    dataset = _record(tmp_path / "all", "bruno")
    os.replace(dataset / "bruno" / "0.wav", dataset / "0.wav")
    lab = Experiment.open("all", dataset, home=tmp_path)
    with pytest.raises(DatasetError, match="0.wav is in no speaker's folder"):
        lab.prepare(FOLDERS)
    assert not lab.layout.root.exists()
