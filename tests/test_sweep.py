"""A sweep: every combination once, equally loud, measured, and heard blind."""

import json
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pyloudnorm
import pytest

from rvc_core import sweep as module
from rvc_core.audio.waveform import Audio, read_audio
from rvc_core.cli import main
from rvc_core.errors import SettingsError
from rvc_core.nn.synthesizer import Synthesizer
from rvc_core.notebook import listening
from rvc_core.notebook.compare import Comparison, compare, preferences
from rvc_core.presets import preset
from rvc_core.settings import ConvertSettings, RuntimeSettings
from rvc_core.sweep import SweepReport, Trial, Tried, sweep
from rvc_core.verdict.overtraining import Candidate
from rvc_core.workspace.layout import Layout
from rvc_core.workspace.voice_file import VoiceFile, VoiceInfo, save_voice
from synth import phrase

PLAIN = ConvertSettings.of(f0_method="dio", transpose=0)


@pytest.fixture(scope="module")
def voices(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("voices")
    weights = Synthesizer(preset("nano"), with_posterior=False).state_dict()
    paths = [folder / f"v_e{epoch}_s{epoch}.pth" for epoch in (1, 2)]
    for path in paths:
        save_voice(path, VoiceFile(preset("nano"), weights, VoiceInfo("v", content_name="embedded")))
    Audio(phrase(1, seconds=1.5).samples, 16_000).save(folder / "clip.wav")
    return paths


def test_every_combination_is_made_once_and_equally_loud(
    voices: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_measured", lambda cases, *_: ([{} for _ in cases], []))
    clip = voices[0].parent / "clip.wav"
    tried = Tried(clip, target=[clip, clip])
    report = sweep(voices, tried, {"protect": [0.1, 0.5], "transpose": [0, "12"]}, PLAIN, output=tmp_path)
    seen = {(one.checkpoint, one.settings["protect"], str(one.settings["transpose"])) for one in report.trials}
    assert len(report.trials) == len(seen) == 8 and all(one.settings["index_rate"] == 0.75 for one in report.trials)
    assert {one.transpose for one in report.trials} == {0, 12}
    for one in report.trials[:2]:
        audio = read_audio(one.output)
        assert pyloudnorm.Meter(16_000).integrated_loudness(audio.samples.astype(float)) == pytest.approx(-23, abs=0.2)
    with pytest.raises(SettingsError, match="no recording of the target"):
        sweep([tmp_path / "never loaded.pth"], Tried(clip), {}, PLAIN, output=tmp_path)
    assert "| protect |" in report.table() and "no index of this voice was found" in report.notes
    rated = sweep(voices[:1], tried, {"index_rate": [0, 0.0, 1], "protect": [0.1, 0.2]}, PLAIN, output=tmp_path).trials
    assert [(float(one.settings["index_rate"]), one.settings["protect"]) for one in rated] == [
        (0, 0.5),
        (1, 0.1),
        (1, 0.2),
    ]
    with pytest.raises(SettingsError, match="`protect` must be from 0 to 0.5"):
        sweep(voices, tried, {"protect": [0.1, 2]}, PLAIN, output=tmp_path)
    with pytest.raises(SettingsError, match="seed cannot be swept"):
        sweep(voices, tried, {"seed": [1]}, PLAIN, output=tmp_path)
    with pytest.raises(SettingsError, match="400 combinations"):
        sweep(voices, tried, {"transpose": [*range(-50, 50)], "protect": [0.1, 0.2]}, PLAIN, output=tmp_path)


def test_the_best_stands_first_and_the_command_takes_epochs(
    voices: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def rated(cases: list, speech: object, progress: object) -> tuple[list, list]:
        return [{"similarity_target": float(place)} for place, _ in enumerate(cases)], []

    monkeypatch.setattr(module, "_measured", rated)
    layout = Layout.of("swept")
    layout.root.mkdir(parents=True)
    for path in voices:
        shutil.copy(path, layout.root / path.name.replace("v_", "swept_"))
    call = ["sweep", "swept", "--source", str(voices[0].parent / "clip.wav"), "--transpose", "0", "--json", "--quiet"]
    call += [
        "--target",
        *[str(voices[0].parent / "clip.wav")] * 2,
        "--protect",
        "0.1",
        "0.5",
        "--output",
        str(tmp_path / "out"),
    ]
    assert main([*call, "--epochs", "all"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert [one["figures"]["similarity_target"] for one in report["trials"]] == [3, 2, 1, 0]
    assert {one["checkpoint"] for one in report["trials"]} == {"swept_e1_s1", "swept_e2_s2"}
    assert main([*call, "--epochs", "7"]) == 1
    assert json.loads(capsys.readouterr().out)["error"] == "no voice of epoch 7"


def test_candidates_say_the_same_clip_equally_loud(voices: list[Path], tmp_path: Path) -> None:
    candidates = [Candidate(epoch, epoch, str(path), (), {}) for epoch, path in enumerate(voices, 1)]
    verdict = SimpleNamespace(candidates=candidates, best=candidates[1])
    lab: Any = SimpleNamespace(layout=Layout(tmp_path, "v"), runtime=RuntimeSettings(), verdict=lambda: verdict)
    made = compare(lab, str(voices[0].parent / "clip.wav"), PLAIN)
    written = {file: file.stat().st_mtime_ns for file in made.files.values()}
    assert len(written) == 2 and made.recommended == 2
    for file in written:
        samples = read_audio(file).samples.astype(float)
        assert pyloudnorm.Meter(16_000).integrated_loudness(samples) == pytest.approx(-23, abs=0.2)
    assert compare(lab, str(voices[0].parent / "clip.wav"), PLAIN).files == made.files
    assert all(file.stat().st_mtime_ns == time for file, time in written.items()), "made once"


def test_trials_are_heard_blind_and_named_at_the_end(tmp_path: Path) -> None:
    clip = tmp_path / "clip.wav"
    files = {}
    for number in (1, 2):
        files[number, clip] = tmp_path / f"{number}.wav"
        Audio(phrase(number, seconds=1.0).samples, 16_000).save(files[number, clip])
    Audio(phrase(3, seconds=1.0).samples, 16_000).save(clip)
    settings = [{"index_rate": rate, "protect": 0.33, "transpose": 0} for rate in (0.0, 0.75)]
    trials = [Trial(n, "v_e1", row, str(files[n, clip]), 0.0, {}) for n, row in enumerate(settings, 1)]
    labels = {one.number: one.label for one in trials}
    voices = [Candidate(one.number, 0, one.output, (), {}) for one in trials]
    made = Comparison(Layout(tmp_path, "v"), voices, [clip], files, None, labels)
    blind = listening.Blind(made, seed=1)
    blind.choose(blind.pair.index(2))
    assert preferences(made.layout) == {1: (0.0, 1), 2: (1.0, 1)}
    assert "v_e1, index_rate 0.75, protect 0.33, transpose 0" in listening.outcome(made)
    assert SweepReport(str(clip), trials).as_json()["trials"][0]["checkpoint"] == "v_e1"
