"""The API of the README: names, files and errors; what the stages do is tested with them."""

from pathlib import Path

import pytest

from rvc_core.errors import SettingsError, StageOrderError, WeightsError
from rvc_core.experiment import Experiment, Voice, outputs_for
from rvc_core.settings import ConvertSettings, TrainSettings
from rvc_core.train import train
from tiny import experiment


def test_two_inputs_never_share_an_output(tmp_path: Path) -> None:
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "song.wav").touch()
    (tmp_path / "b" / "notes.txt").touch()
    pairs = outputs_for([tmp_path / "a", tmp_path / "b", tmp_path / "a" / "song.wav"], tmp_path / "out", "Алиса",
                        ConvertSettings.of(output_format="flac"))
    assert [source.name for source, _ in pairs] == ["song.wav"] * 3
    assert len({output for _, output in pairs}) == 3
    assert all(output.suffix == ".flac" and output.name.isascii() for _, output in pairs)


def test_nothing_to_convert_is_said(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="nothing to convert"):
        outputs_for([tmp_path], tmp_path / "out", "v", ConvertSettings())


def test_voices_are_found_by_name_and_a_wrong_one_lists_the_others(tiny: None, tmp_path: Path) -> None:
    lab = Experiment.open("tiny", home=tmp_path)
    with pytest.raises(StageOrderError) as caught:
        lab.voice()
    assert "rvc train" in caught.value.hint
    train(experiment(tmp_path), TrainSettings.of(epochs=1, batch_size=4, base_generator="none",
                                                 base_discriminator="none"))
    with pytest.raises(WeightsError) as missing:
        lab.voice("tiny_e99_s99.pth")
    assert "tiny_e1_s2.pth" in missing.value.hint


def test_a_voice_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match=r"absent\.pth"):
        Voice.load(tmp_path / "absent.pth")
