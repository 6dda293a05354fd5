"""What cannot work is refused before anything is touched; what was not asked for stays as it was."""

import json
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch

from rvc_core.audio.waveform import Audio, read_audio
from rvc_core.cli import main
from rvc_core.conversion.naming import outputs_for
from rvc_core.errors import AudioError, DatasetError, MismatchError, RVCError, SettingsError
from rvc_core.experiment import Experiment
from rvc_core.nn.synthesizer import Synthesizer
from rvc_core.preparation.identity import kept_settings
from rvc_core.presets import preset
from rvc_core.progress import Silent
from rvc_core.settings import ConvertSettings, ExtractSettings, PrepareSettings, TrainSettings
from rvc_core.training.train import train
from rvc_core.workspace.layout import Layout
from rvc_core.workspace.manifest import ExperimentRecord
from rvc_core.workspace.stamps import stamp
from rvc_core.workspace.voice_file import VoiceFile, VoiceInfo, load_voice, save_voice
from synth import phrase
from tiny import experiment


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("RVC_HOME", str(tmp_path / "root"))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def _files(folder: Path) -> dict[str, int]:
    return {str(path): path.stat().st_mtime_ns for path in sorted(folder.rglob("*"))}


def _fails(capsys: pytest.CaptureFixture[str], *command: str) -> dict[str, Any]:
    """The error of a command that ends with status 1, a line and a hint."""
    assert main([*command, "--json", "--quiet"]) == 1
    told = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert told["error"] and told["hint"] and "\n" not in told["error"]
    return told


def _dataset(folder: Path, seconds: float = 3.0) -> Path:
    folder.mkdir(parents=True)
    for number in range(2):
        Audio(phrase(number, seconds=seconds).samples, 16000).save(folder / f"take {number}.wav")
    return folder


# -- an experiment keeps its settings --------------------------------------------------------------------------------
@pytest.fixture
def nano(here: Path) -> Experiment:
    """An experiment that was prepared as nano, with a checkpoint."""
    lab = Experiment.open("alice", _dataset(here / "takes"))
    lab.prepare(PrepareSettings.of(preset="nano", silence_db=-50))
    stamp(lab.layout, "content", {"name": "embedded"})
    lab.layout.generator(10).write_bytes(b"")
    lab.layout.discriminator(10).write_bytes(b"")
    return lab


def test_settings_that_are_not_given_stay_and_given_ones_change(nano: Experiment) -> None:
    prepare, extract = kept_settings(nano.layout, PrepareSettings.of(min_silence_ms=600), ExtractSettings())
    assert (prepare.preset, prepare.silence_db, prepare.min_silence_ms) == ("nano", -50, 600)
    assert extract.content == "embedded"
    assert nano.prepare().skipped, "the same settings as before: nothing is done again"
    fresh = Layout.of("bob")
    assert kept_settings(fresh, PrepareSettings(), ExtractSettings()) == (PrepareSettings(), ExtractSettings())


@pytest.mark.parametrize(
    "flags, word",
    [
        (["--preset", "nano-24k"], "preset nano, not nano-24k"),
        (["--preset", "v2-40k"], "preset nano, not v2-40k"),
        (["--uses-f0", "false"], "uses_f0 True, not False"),
        (["--content", "contentvec"], "content embedded, not contentvec"),
    ],
)
def test_what_cannot_resume_is_refused_before_anything_is_touched(
    flags: list[str], word: str, nano: Experiment, capsys: pytest.CaptureFixture[str]
) -> None:
    before = _files(nano.layout.root)
    told = _fails(capsys, "run", "alice", *flags)
    assert word in told["error"] and "--begin-again" in told["hint"]
    assert _files(nano.layout.root) == before
    for stage in (lambda: nano.prepare(PrepareSettings.of(preset="v2-40k")),):
        with pytest.raises(MismatchError):
            stage()


def test_without_a_checkpoint_another_preset_is_fine(here: Path) -> None:
    lab = Experiment.open("alice", _dataset(here / "takes"))
    lab.prepare(PrepareSettings.of(preset="nano"))
    assert not lab.prepare(PrepareSettings.of(preset="nano-24k")).skipped
    assert ExperimentRecord.load(lab.layout).preset == "nano-24k"
    lab.prepare()
    assert ExperimentRecord.load(lab.layout).preset == "nano-24k"


@pytest.mark.parametrize("place", ["0_gt_wavs", "1_16k_wavs", "heldout", ".", ".."])
def test_an_experiments_own_clips_are_no_recordings(place: str, nano: Experiment, tmp_path: Path) -> None:
    before, given = _files(nano.layout.root), nano.layout.root / place
    (tmp_path / "link").symlink_to(given)
    for dataset in (given, tmp_path / "link"):
        with pytest.raises(DatasetError, match="own clips"):
            replace(nano, dataset=dataset).prepare()
    assert _files(nano.layout.root) == before


# -- names of results --------------------------------------------------------------------------------------------------
def test_one_recording_and_a_name_with_an_ending_is_a_file(tmp_path: Path) -> None:
    source = tmp_path / "song.wav"
    source.touch()
    for name in ("made.mp3", "made.MP3", "new folder/made.FLAC", "a.b.ogg"):
        assert outputs_for([source], tmp_path / name, "v", ConvertSettings()) == [(source, tmp_path / name)]
    for name in ("folder.mp3", "out.v2"):
        (tmp_path / name).mkdir()
        [(_, inside)] = outputs_for([source], tmp_path / name, "v", ConvertSettings())
        assert inside == tmp_path / name / "song_v.wav"
    [(_, named)] = outputs_for([source], f"{tmp_path}/new.v2/", "v", ConvertSettings())
    assert named == tmp_path / "new.v2" / "song_v.wav"
    [(_, plain)] = outputs_for([source], tmp_path / "results v1.2", "v", ConvertSettings())
    assert plain == tmp_path / "results v1.2" / "song_v.wav"


@pytest.mark.parametrize(
    "inputs, output, settings, error, word",
    [
        (2, "made.mp3", {}, SettingsError, "one file for 2 recordings"),
        (1, "0.wav", {}, SettingsError, "is the recording itself"),
        (1, "made.mp3", {"output_format": "flac"}, SettingsError, "is not flac"),
        (1, "made.opus", {}, AudioError, "cannot write 'made.opus'"),
        (1, "made.mp4", {}, AudioError, "cannot write 'made.mp4'"),
        (1, "made.wave", {}, AudioError, "cannot write 'made.wave'"),
        (1, "made.xyz", {}, AudioError, "cannot write 'made.xyz'"),
        (2, "out.v2", {}, AudioError, "cannot write 'out.v2'"),
        (1, "made.flac", {"output_depth": 32}, AudioError, "32-bit float"),
        (1, "made.mp3", {"output_depth": 24}, AudioError, "24 bits"),
        (2, "folder", {"output_format": "ogg", "output_depth": 16}, AudioError, "16 bits"),
    ],
)
def test_names_that_mean_nothing_are_refused(
    inputs: int, output: str, settings: dict[str, Any], error: type, word: str, tmp_path: Path
) -> None:
    files = [tmp_path / f"{number}.wav" for number in range(inputs)]
    for file in files:
        file.touch()
    with pytest.raises(error, match=word) as caught:
        outputs_for(files, tmp_path / output, "v", ConvertSettings.of(**settings))
    assert caught.value.hint and {*tmp_path.iterdir()} == {*files}
    assert not output.endswith((".xyz", ".v2")) or ".wav, .flac, .ogg, .mp3, .m4a; for a folder" in caught.value.hint


def _voice(path: Path, **info: Any) -> Path:
    torch.manual_seed(0)
    spec = preset("nano")
    save_voice(path, VoiceFile(spec, Synthesizer(spec).state_dict(), VoiceInfo("alice", 1, 2, "embedded", **info)))
    return path


def test_a_result_is_the_file_that_was_named(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    voice = str(_voice(here / "v.pth", f0_median_hz=120.0))
    Audio(phrase(1, seconds=1.5).samples, 16000).save(here / "in.wav")
    assert main(["convert", voice, "in.wav", "--output", "new/song.flac", "--output-depth", "16", "--quiet"]) == 0
    assert soundfile.info("new/song.flac").subtype == "PCM_16" and [*(here / "new").iterdir()] == [
        here / "new" / "song.flac"
    ]


def test_files_are_not_made_into_folders(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    voice = str(_voice(here / "v.pth"))
    Audio(phrase(1, seconds=1.5).samples, 16000).save(here / "in.wav")
    assert main(["export", voice, "--output", "voice.zip", "--json"]) == 0
    assert json.loads(capsys.readouterr().out.splitlines()[-1])["paths"] == ["voice.zip"]
    before = _files(here)
    for command in (
        ["export", voice, "--output", "voice.zip ", "--layout", "rvc"],
        ["export", voice, "--output", "voice.pth"],
        ["export", voice, "--output", "new.zip", "--layout", "applio"],
        ["onnx", voice, "--output", "voice.zip"],
        ["convert", voice, "in.wav", "--output", "song.opus"],
        ["convert", voice, "in.wav", "--output", "song.zip"],
        ["demo", "--output", "song.wav"],
    ):
        _fails(capsys, *command)
        assert _files(here) == before, command


# -- speakers ----------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("speakers, last, word", [({}, 0, "1 speaker"), ({"a": 100.0, "b": 200.0}, 1, "2 speakers")])
def test_a_speaker_that_was_not_trained_is_refused(
    speakers: dict[str, float], last: int, word: str, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from rvc_core.features.content import content_identity

    identity = content_identity("embedded", preset("nano").content_width)
    voice = str(_voice(here / "v.pth", speakers=speakers, content_identity=identity))
    Audio(phrase(1, seconds=1.5).samples, 16000).save(here / "in.wav")
    for speaker in (last + 1, 3, 255):
        if speaker > last:
            told = _fails(capsys, "convert", voice, "in.wav", "--speaker", str(speaker))
            assert word in told["error"] and str(last) in told["hint"]
    assert main(["convert", voice, "in.wav", "--speaker", str(last), "--quiet", "--json"]) == 0


@pytest.mark.parametrize("recorded, last", [(1, 0), (3, 2), (10**6, 255), (None, 255), (0, 255)])
def test_speakers_of_another_programs_voice(
    recorded: int | None, last: int, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Applio records how many were trained; RVC's files do not, and hold all rows whatever was trained."""
    path = _voice(here / "v.pth")
    content = torch.load(path, weights_only=True)
    del content["rvc_core"]
    content |= {"speakers_id": recorded} if recorded is not None else {}
    torch.save(content, path)
    Audio(phrase(1, seconds=1.5).samples, 16000).save(here / "in.wav")
    told = _fails(capsys, "convert", str(path), "in.wav", "--speaker", str(last + 1))
    assert f"{last + 1} speaker" in told["error"] and str(last) in told["hint"]
    assert main(["convert", str(path), "in.wav", "--speaker", str(last), "--quiet", "--json"]) == 0
    [made] = json.loads(capsys.readouterr().out.splitlines()[-1])["files"]
    assert any("may be untrained" in line for line in made["warnings"]) == (not recorded)
    again = VoiceFile(load_voice(path).spec, load_voice(path).weights, load_voice(path).info)
    save_voice(here / "again.pth", again)
    assert load_voice(here / "again.pth").trained_speakers == again.trained_speakers == (last + 1 if recorded else None)
    assert torch.load(here / "again.pth", weights_only=True).get("speakers_id") == again.trained_speakers


# -- training that trained nothing -------------------------------------------------------------------------------------
BARE = {"batch_size": 4, "base_generator": "none", "base_discriminator": "none", "unlike": "none"}


def test_training_that_trained_nothing_says_so(tiny: None, here: Path) -> None:
    layout, said = experiment(here), []

    class Listening(Silent):
        def say(self, text: str) -> None:
            said.append(text)

    assert train(layout, TrainSettings.of(epochs=1, **BARE)).warnings == []
    [warning] = train(layout, TrainSettings.of(epochs=1, **BARE), progress=Listening()).warnings
    assert "1 epoch already" in warning and warning in said


def test_time_that_ends_before_the_first_step_saves_no_voice(tiny: None, here: Path) -> None:
    layout = experiment(here)
    with pytest.raises(RVCError, match="before the first step") as caught:
        train(layout, TrainSettings.of(epochs=2, max_minutes=1e-9, **BARE))
    assert "max_minutes" in caught.value.hint
    assert not layout.voices() and not layout.generator_steps()


def test_levels_outside_of_full_scale_survive_in_float(tmp_path: Path) -> None:
    sound = Audio(np.array([0.5, 1.5, -1.5], np.float32), 8000)
    sound.save(tmp_path / "a.wav", depth="32", comment="x")
    assert np.array_equal(read_audio(tmp_path / "a.wav").samples, sound.samples)


def test_the_demo_deletes_no_experiment_of_its_name(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for folder in (here, here / "root"):
        own = Layout.of("demo", folder)
        ExperimentRecord("demo", str(here / "takes"), "nano").save(own)
        own.generator(10).write_bytes(b"x")
        before = _files(folder)
        assert "your own" in _fails(capsys, "demo", "--output", str(folder))["error"]
        assert _files(folder) == before


def test_progress_names_the_recording(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    voice = str(_voice(here / "v.pth", f0_median_hz=120.0))
    for name in ("a", "b c"):
        Audio(phrase(1, seconds=1.0).samples, 16000).save(here / f"{name}.wav")
    assert main(["convert", voice, "a.wav", "b c.wav", "--output", "new"]) == 0
    said = capsys.readouterr().err.splitlines()
    assert [line for line in said if line.startswith("converting")] == [
        "converting 1/1 a.wav",
        "converting 1/1 b c.wav",
    ]


# -- what strangers type -----------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    "command",
    [
        ["convert", "v.pth", "pipe"],
        ["convert", "v.pth", "in.wav", "--f0-curve", "pipe"],
        ["inspect", "pipe"],
        ["prepare", "alice", "--dataset", "pipe"],
        ["batch", "pipe"],
        ["info", "pipe"],
        ["import", "pipe"],
        ["extract-voice", "pipe"],
        ["verdict", "--metrics", "pipe"],
        ["evaluate", "v.pth", "--source", "in.wav", "--text", "pipe"],
        ["evaluate", "v.pth", "--source", "pipe"],
        ["golden", "pipe"],
        ["restore", "--from", "pipe"],
        ["restore", "--from", "nowhere"],
        ["restore", "alice", "--from", "in.wav"],
        ["weights", "bundle", "--for", "here", "--output", "folder"],
        ["convert", "v.pth", "nowhere.wav"],
    ],
)
def test_a_pipe_a_missing_place_and_a_folder_end_in_one_line(
    command: list[str], here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    _voice(here / "v.pth")
    Audio(phrase(1, seconds=1.5).samples, 16000).save(here / "in.wav")
    os.mkfifo(here / "pipe")
    (here / "folder").mkdir()
    before = {path for path in here.iterdir() if path.name != "root"}
    assert main([*command, "--quiet"]) == 1
    said = capsys.readouterr().err.splitlines()
    assert len(said) == 2 and said[0].startswith("rvc: ") and said[1].strip()
    assert {path for path in here.iterdir() if path.name != "root"} == before


@pytest.mark.parametrize("samples", [1, 2, 160])
def test_the_shortest_recordings_are_converted_or_refused(
    samples: int, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    voice = str(_voice(here / "v.pth", f0_median_hz=120.0))
    Audio(0.3 * np.sin(1 + np.arange(samples, dtype=np.float32)), 16000).save(here / "in.wav")
    assert main(["convert", voice, "in.wav", "--quiet", "--output", "new"]) in (0, 1)
    assert "Traceback" not in capsys.readouterr().err


@pytest.mark.parametrize("letter, count", [("x", 246), ("é", 120), ("歌", 80)])
def test_the_longest_names_have_room_for_the_voice(
    letter: str, count: int, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    voice = str(_voice(here / "v.pth", f0_median_hz=120.0))
    Audio(phrase(1, seconds=1.0).samples, 16000).save(here / "a.wav")
    (here / "takes").mkdir()
    for end in ("1", "2"):
        (here / "takes" / f"{letter * count}{end}.wav").write_bytes((here / "a.wav").read_bytes())
    assert main(["convert", voice, "takes", "--quiet", "--output", "new"]) == 0
    assert len([*(here / "new").iterdir()]) == 2
