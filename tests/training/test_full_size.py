"""What a tiny voice cannot prove, and therefore slow: RVC's full size, flat memory, the verdict on a real training."""

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import HubertConfig, HubertModel

from rvc_core.audio.waveform import Audio, read_audio
from rvc_core.embedded import voice_folder
from rvc_core.experiment import Experiment
from rvc_core.nn.spectrogram import mel_spectrogram
from rvc_core.progress import Silent
from rvc_core.settings import ConvertSettings, ExtractSettings, PrepareSettings, RuntimeSettings, TrainSettings
from rvc_core.voice import Voice
from rvc_core.workspace.voice_file import load_voice
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
    reports = lab.run(
        PrepareSettings.of(preset=preset),
        ExtractSettings.of(f0_method="dio"),
        TrainSettings.of(epochs=2, batch_size=1, base_generator="none", base_discriminator="none"),
    )
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
    early, late = (
        max(used_pages[len(used_pages) * part // 10 : len(used_pages) * (part + 2) // 10]) for part in (2, 8)
    )
    assert late < 1.03 * early + 5000, (early, late)


@pytest.mark.slow
def test_of_a_long_training_the_verdict_takes_a_voice_that_scoring_all_cannot_better(tmp_path: Path) -> None:
    (tmp_path / "few").mkdir()
    known, unheard = np.split(np.array(sorted(voice_folder("target").glob("*.flac"))[:7]), [3])
    for path in known:
        shutil.copy(path, tmp_path / "few")
    lab = Experiment.open("few", tmp_path / "few", home=tmp_path, runtime=RuntimeSettings(threads=1, device="cpu"))
    lab.prepare(PrepareSettings.of(preset="nano", holdout_minutes=0.07))
    lab.extract(ExtractSettings())
    lab.train(
        TrainSettings.of(
            epochs=300,
            batch_size=2,
            learning_rate=1.2e-3,
            validate_every_epochs=10,
            save_every_epochs=10,
            keep_voices=1000,
        )
    )
    verdict, settings = lab.verdict(), ConvertSettings.of(index_rate=0, transpose=0)
    assert verdict.state in ("good", "overtrained") and verdict.best is not None

    def distance(voice: Voice, path: Path) -> float:
        spec = voice.converter.voice.spec
        pair = [
            torch.from_numpy(one.resample(spec.sample_rate).samples)[None]
            for one in (voice.convert(path, settings).audio, read_audio(path))
        ]
        ours, theirs = (mel_spectrogram(one[:, : min(wave.shape[1] for wave in pair)], spec) for one in pair)
        return (ours - theirs).abs().mean().item()

    steps = {lab.layout.step_of(path): path for path in lab.layout.voices()[:-1]}
    scores = [np.mean([distance(Voice.load(path, None), one) for one in unheard]) for path in steps.values()]
    chosen, scatter = scores[[*steps].index(verdict.best.step)], np.std(np.diff(scores)) / 2**0.5
    assert len(scores) == 30 and chosen < scores[0] - scatter
    assert chosen - min(scores) < 3 * scatter  # of thirty alike the luckiest is two below their mean
