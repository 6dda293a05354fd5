"""A voice of RVC's full size goes the whole way on a CPU: slow, and the proof that nothing is special to `nano`."""

from pathlib import Path

import pytest
import torch
from transformers import HubertConfig, HubertModel

from rvc_core.audio import Audio
from rvc_core.experiment import Experiment
from rvc_core.settings import ConvertSettings, ExtractSettings, PrepareSettings, TrainSettings
from rvc_core.voice_file import load_voice
from synth import phrase


@pytest.mark.slow
@pytest.mark.parametrize("preset", ["v2-40k", "v1-48k"])
def test_a_full_size_voice_trains_and_converts(preset: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RVC_HOME", str(tmp_path))
    torch.manual_seed(0)
    hubert = HubertModel(HubertConfig(num_hidden_layers=12, intermediate_size=256, classifier_proj_size=256))
    hubert.final_proj = torch.nn.Linear(768, 256)
    hubert.save_pretrained(tmp_path / "assets" / "hubert_base")
    (tmp_path / "takes").mkdir()
    for number in range(2):
        Audio(phrase(number, seconds=3.0, sample_rate=48000).samples, 48000).save(tmp_path / "takes" / f"{number}.wav")
    lab = Experiment.open("full", tmp_path / "takes")
    reports = lab.run(PrepareSettings.of(preset=preset), ExtractSettings.of(f0_method="dio"),
                      TrainSettings.of(epochs=2, batch_size=1, base_generator="none", base_discriminator="none"))
    assert reports["train"]["epochs"] == 2
    voice = load_voice(Path(reports["train"]["voice"]))
    assert voice.spec.version == preset[:2] and voice.info.content_name == "contentvec"
    result = lab.voice().convert(Audio(phrase(5, seconds=1.0).samples, 16000), ConvertSettings.of(f0_method="dio"))
    assert result.audio.sample_rate == int(preset[3:5]) * 1000 and abs(result.audio.seconds - 1) < 1e-3
