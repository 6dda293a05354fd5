"""What a tiny voice cannot prove, and therefore slow: RVC's full size goes the whole way; memory stays flat."""

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import HubertConfig, HubertModel

from rvc_core.audio import Audio
from rvc_core.embedded import voice_folder
from rvc_core.experiment import Experiment
from rvc_core.progress import Silent
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


@pytest.mark.slow
def test_memory_stays_flat_over_200_epochs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RVC_HOME", str(tmp_path))
    used_pages: list[int] = []

    class Weighing(Silent):
        def advance(self, note: str = "") -> None:
            used_pages.append(int(Path("/proc/self/statm").read_text().split()[1]))

    lab = Experiment.open("long", voice_folder("target"))
    lab.prepare(PrepareSettings.of(preset="nano", holdout_minutes=0.2))
    lab.extract(ExtractSettings.of(f0_method="dio"))
    lab.progress = Weighing()
    few: dict[str, Any] = {"batch_size": 64, "save_every_epochs": 20, "validate_every_epochs": 10, "keep_voices": 2}
    assert lab.train(TrainSettings.of(epochs=200, **few)).epochs == 200
    early, late = (max(used_pages[len(used_pages) * part // 10:len(used_pages) * (part + 2) // 10]) for part in (2, 8))
    assert late < 1.03 * early + 5000, (early, late)
