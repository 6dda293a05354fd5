"""The API of the README: names, files and errors; what the stages do is tested with them."""

import os
import traceback
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch

from rvc_core import batch
from rvc_core.audio.waveform import Audio
from rvc_core.cli import main
from rvc_core.conversion.naming import outputs_for
from rvc_core.embedded import voice_folder
from rvc_core.errors import RVCError, SettingsError, StageOrderError, WeightsError
from rvc_core.experiment import Experiment
from rvc_core.features.retrieval import FeatureIndex
from rvc_core.nn.synthesizer import Synthesizer
from rvc_core.preparation.extract import ExtractReport
from rvc_core.preparation.prepare import PrepareReport
from rvc_core.presets import preset
from rvc_core.settings import ConvertSettings, ExtractSettings, PrepareSettings, RuntimeSettings, TrainSettings
from rvc_core.system.files import slug_of, write_jsonl
from rvc_core.training.train import TrainReport, train
from rvc_core.voice import Voice
from rvc_core.workspace.layout import Layout
from rvc_core.workspace.manifest import ExperimentRecord, Manifest
from rvc_core.workspace.stamps import content_of, stamp, stamp_of
from rvc_core.workspace.voice_file import VoiceFile, VoiceInfo, save_voice
from synth import phrase
from tiny import experiment

REPORT = TrainReport(1, 3, "epochs", None, "a.pth", None, None, 0.0, 0)


def test_two_inputs_never_share_an_output(tmp_path: Path) -> None:
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "song.wav").touch()
    (tmp_path / "b" / "notes.txt").touch()
    pairs = outputs_for(
        [tmp_path / "a", tmp_path / "b", tmp_path / "a" / "song.wav"],
        tmp_path / "out",
        "Алиса",
        ConvertSettings.of(output_format="flac"),
    )
    assert [source.name for source, _ in pairs] == ["song.wav"] * 3
    assert len({output for _, output in pairs}) == 3
    assert [output.name for _, output in pairs][0] == "song_Алиса.flac"


@pytest.mark.parametrize(
    ("voice", "name"),
    [("my friend", "my_friend"), ("Zoë", "Zoë"), ("a/b: c?", "a_b_c_"), ("..", "voice"), ("ж" * 200, "ж" * 40)],
)
def test_results_have_names_that_people_read(voice: str, name: str, tmp_path: Path) -> None:
    [(_, output)] = outputs_for([tmp_path / "song.wav"], tmp_path, voice, ConvertSettings())
    assert output.name == f"song_{name.strip('_')}.wav"


def test_folders_are_opened_to_the_bottom_and_results_are_no_inputs(tmp_path: Path) -> None:
    for name in ("b.wav", "album/a.flac", "album/disc 2/a.wav", ".trash/c.wav", "converted/b_v.flac"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    for results, names in (
        (tmp_path / "converted", ["album/a.flac", "album/disc 2/a.wav", "b.wav"]),
        (tmp_path, ["album/a.flac", "album/disc 2/a.wav", "b.wav", "converted/b_v.flac"]),
    ):
        pairs = outputs_for([tmp_path], results, "v", ConvertSettings())
        assert [source.relative_to(tmp_path).as_posix() for source, _ in pairs] == names
        assert len({output for _, output in pairs}) == len(names)
        assert {output.parent for _, output in pairs} == {results}


def test_nothing_to_convert_is_said(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="nothing to convert"):
        outputs_for([tmp_path], tmp_path / "out", "v", ConvertSettings())


def test_voices_are_found_by_name_and_a_wrong_one_lists_the_others(tiny: None, tmp_path: Path) -> None:
    lab = Experiment.open("tiny", home=tmp_path)
    with pytest.raises(StageOrderError) as caught:
        lab.voice()
    assert "rvc train" in caught.value.hint
    train(
        experiment(tmp_path), TrainSettings.of(epochs=1, batch_size=4, base_generator="none", base_discriminator="none")
    )
    with pytest.raises(WeightsError) as missing:
        lab.voice("tiny_e99_s99.pth")
    assert "tiny_e1_s2.pth" in missing.value.hint and "tiny.pth" in missing.value.hint


@pytest.mark.parametrize("name", ["absent.pth", "absent", "absent 2.0"])
def test_a_voice_that_is_not_there_is_named_with_both_things_it_could_be(tmp_path: Path, name: str) -> None:
    with pytest.raises(WeightsError, match=r"absent.* neither a voice file nor an experiment") as caught:
        Voice.load(tmp_path / name)
    assert ".pth" in caught.value.hint and "rvc run" in caught.value.hint


def _save_voice(path: Path, name: str = "") -> Path:
    torch.manual_seed(0)
    spec = preset("nano")
    save_voice(path, VoiceFile(spec, Synthesizer(spec).state_dict(), VoiceInfo(name, content_name="embedded")))
    return path


def _save_index(folder: Path, owner: str) -> Path:
    path = folder / f"added_IVF1_Flat_nprobe_1_{owner}_nano.index"
    FeatureIndex.build(np.random.default_rng(0).standard_normal((100, 256)).astype(np.float32)).save(path)
    return path


def _speech(seconds: float = 1.0) -> Audio:
    return Audio(phrase(1, seconds=seconds, speaker=1).samples, 16000)


DIO = ConvertSettings.of(f0_method="dio", transpose=0)


@pytest.mark.parametrize("name", ["voice 2.0", "alice"])
def test_an_experiment_is_found_by_name_whatever_the_name_looks_like(
    tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RVC_HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    (tmp_path / name).mkdir()
    saved = _save_voice(Layout.of(name).final_voice, name)
    assert Voice.load(name).path == saved
    index = _save_index(tmp_path, "mine")
    assert Voice.load(name, index).index == index.name


@pytest.mark.parametrize(
    ("file", "name", "owner"),
    [
        ("alice.pth", "", "alice"),
        ("alice_e60_s120.pth", "", "alice"),
        ("renamed.pth", "alice", "alice"),
        ("x.pth", "Алиса", slug_of("Алиса")),
        ("my voice.pth", "", "my voice"),
    ],
)
def test_a_voice_takes_its_own_index_and_says_which(tmp_path: Path, file: str, name: str, owner: str) -> None:
    own = _save_index(tmp_path, owner)
    foreign = _save_index(tmp_path, f"not_{owner}")
    os.utime(own, (1, 1))
    os.utime(foreign, (2, 2))
    result = Voice.load(_save_voice(tmp_path / file, name)).convert(_speech(), DIO)
    assert result.index == own.name and not result.warnings and result.as_json()["index"] == own.name


def test_an_index_of_somebody_else_is_not_used_and_that_is_said(tmp_path: Path) -> None:
    _save_index(tmp_path, "bob")
    path = _save_voice(tmp_path / "alice.pth")
    voice = Voice.load(path)
    result = voice.convert(_speech(), DIO)
    assert result.index == "" and result.warnings == ["no index of this voice was found"]
    unwanted = voice.convert(_speech(), DIO.model_copy(update={"index_rate": 0.0}))
    assert not unwanted.warnings and not Voice.load(path, None).convert(_speech(), DIO).warnings


def test_an_index_of_earlier_content_is_used_with_a_warning(tmp_path: Path) -> None:
    layout = Layout(tmp_path, "alice")
    owner = layout.slug
    path, index = _save_voice(tmp_path / f"{owner}.pth", "alice"), _save_index(tmp_path, owner)
    stamp(layout, "content", {"prepare": 1})
    stamp(layout, "index", {"content": stamp_of(layout, "content")})
    ExperimentRecord("alice", "x", "nano").save(layout)
    assert not Voice.load(path).convert(_speech(), DIO).warnings
    stamp(layout, "content", {"prepare": 2})
    result = Voice.load(path).convert(_speech(), DIO)
    assert result.index == index.name and "rvc index alice" in result.warnings[0]


@pytest.mark.parametrize("is_file", [True, False])
def test_an_output_is_written_whatever_the_source_is(tmp_path: Path, is_file: bool) -> None:
    source: Path | Audio = _speech()
    if is_file:
        source.save(tmp_path / "song.wav")
        source = tmp_path / "song.wav"
    voice = Voice.load(_save_voice(tmp_path / "alice.pth", "alice"))
    result = voice.convert(source, DIO, output=tmp_path / "out.flac")
    assert result.output == str(tmp_path / "out.flac")
    with soundfile.SoundFile(result.output) as written:
        assert "converted" in written.comment and written.frames == len(result.audio.samples)
    assert Voice.load(voice.path).convert(source, DIO).output == ""


def test_a_voice_without_f0_goes_the_whole_way(tmp_path: Path) -> None:
    for number in range(2):
        Audio(phrase(number, seconds=1.5).samples, 16000).save(tmp_path / "takes" / f"{number}.wav")
    lab = Experiment.open("whisper", tmp_path / "takes", home=tmp_path)
    prepared = lab.prepare(PrepareSettings.of(preset="nano", uses_f0=False, holdout_minutes=0))
    assert prepared.clips == 2 and not ExperimentRecord.load(lab.layout).uses_f0
    assert lab.extract(ExtractSettings.of(f0_method="dio")).done == 2 and not lab.layout.f0_hz.exists()
    assert len(lab.layout.filelist.read_text("utf-8").splitlines()[0].split("|")) == 3
    lab.train(TrainSettings.of(epochs=1, batch_size=2))
    voice = lab.voice()
    assert not voice.converter.voice.spec.uses_f0
    result = voice.convert(_speech(), DIO, output=tmp_path / "out.wav")
    assert result.transpose == 0 and abs(result.seconds - 1) < 1e-3


@pytest.mark.parametrize(("index", "used"), [("auto", "own"), ("none", ""), ("other", "other")])
def test_unattended_conversion_takes_an_index_and_where_to_run(tmp_path: Path, index: str, used: str) -> None:
    names = {"": "", **{owner: _save_index(tmp_path, owner).name for owner in ("own", "other")}}
    _speech().save(tmp_path / "song.wav")
    voice = _save_voice(tmp_path / "own.pth")
    asked = str(tmp_path / names[index]) if index in names else index

    def convert(**runtime: object) -> dict[str, Any]:
        return batch.convert_folder(
            str(voice),
            str(tmp_path / "song.wav"),
            str(tmp_path / "out"),
            str(tmp_path / "result.json"),
            {"f0_method": "dio", **runtime},
            asked,
        )

    [file] = convert(device="cpu", threads=1)["files"]
    assert file["index"] == names[used]
    with pytest.raises(SettingsError, match="threads"):
        convert(threads=-1)
    with pytest.raises(RVCError, match="abacus"):
        convert(device="abacus")


def test_unattended_training_runs_where_it_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[RuntimeSettings] = []
    monkeypatch.setattr(Experiment, "run", lambda self, *stages: seen.append(self.runtime) or {})
    batch.train_voice(
        "x", str(voice_folder("target")), str(tmp_path / "result.json"), {"device": "cpu", "threads": 3, "epochs": 2}
    )
    assert seen == [RuntimeSettings(device="cpu", threads=3)]


@pytest.mark.parametrize("stage", ["prepare", "extract"])
def test_a_stage_that_was_stopped_ends_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stage: str) -> None:
    done: list[str] = []

    def stub(name: str, report: PrepareReport | ExtractReport) -> None:
        monkeypatch.setattr(Experiment, name, lambda *arguments: done.append(name) or report)

    stub("prepare", PrepareReport(stopped=stage == "prepare"))
    stub("extract", ExtractReport(stopped=stage == "extract"))
    stub("build_index", ExtractReport())
    stub("train", ExtractReport())
    with pytest.raises(RVCError, match=f"{stage} was stopped"):
        Experiment.open("x", home=tmp_path).run(PrepareSettings(preset="nano"))
    assert done[-1] == stage


def test_a_twin_is_trained_on_everything_up_to_the_best_epoch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(3):
        Audio(phrase(number, seconds=4.0).samples, 16000).save(tmp_path / "takes" / f"{number}.wav")
    monkeypatch.setenv("RVC_HOME", str(tmp_path))
    lab = Experiment.open("alice", tmp_path / "takes")
    lab.prepare(PrepareSettings.of(preset="nano", holdout_minutes=0.05, silence_db=-50))
    lab.extract(ExtractSettings.of(f0_method="dio"))
    write_jsonl(
        lab.layout.metrics,
        [{"kind": "validation", "step": 3 * epoch, "epoch": epoch, "heldout/mel": 0.5} for epoch in range(6)],
    )
    trained: list[tuple[str, int, int]] = []
    monkeypatch.setattr(
        Experiment,
        "train",
        lambda self, settings, **_: (
            trained.append((self.layout.name, settings.epochs, len(Manifest.load(self.layout).training))) or REPORT
        ),
    )
    best = lab.verdict().best
    assert best is not None and Manifest.load(lab.layout).heldout
    for more in ([], ["--until", "7"]):
        assert main(["train", "alice", "--on-everything", "--foreground", "--quiet", *more]) == 0
    clips = len(Manifest.load(lab.layout).clips)
    assert trained == [("alice everything", epochs, clips) for epochs in (max(1, best.epoch), 7)]
    twin = Layout.of("alice everything")
    assert content_of(twin, "f0")["method"] == "dio" and not twin.heldout.clips.exists()
    assert content_of(twin, "prepare")["settings"] == {
        **content_of(lab.layout, "prepare")["settings"],
        "holdout_minutes": 0.0,
    }


def test_a_traceback_ends_with_what_to_do() -> None:
    error = SettingsError("no such name", hint="choose another")
    assert "".join(traceback.format_exception(error)).rstrip().endswith("no such name\n→ choose another")
