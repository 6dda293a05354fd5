"""Folders of RVC WebUI and Applio: each opens under our names, goes on training, and is left as it was."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from rvc_core import presets
from rvc_core.audio.waveform import read_audio
from rvc_core.cli import main
from rvc_core.embedded import voice_folder
from rvc_core.errors import DatasetError, MismatchError, RVCError, SettingsError, StageOrderError, WeightsError
from rvc_core.experiment import Experiment
from rvc_core.preparation import extract as extracting
from rvc_core.preparation import foreign as module
from rvc_core.preparation.extract import extract
from rvc_core.preparation.foreign import is_foreign, open_foreign
from rvc_core.settings import ExtractSettings, PrepareSettings, RuntimeSettings, TrainSettings
from rvc_core.system.files import sha256_of
from rvc_core.training.step import Networks
from rvc_core.training.train import train
from rvc_core.workspace.layout import LATEST_ONLY, Layout
from rvc_core.workspace.manifest import ExperimentRecord, Manifest
from tiny import TINY

RATE = 32000
SMALL = replace(
    TINY,
    version="v2",
    sample_rate=RATE,
    content_width=768,
    fft_samples=1024,
    source_filter_channels=0,
    upsample_rates=(10, 8, 4),
    upsample_kernels=(20, 16, 8),
)
NAMES = {
    "RVC WebUI": ("0_gt_wavs", "1_16k_wavs", "2a_f0", "2b-f0nsf", "3_feature768"),
    "Applio": ("sliced_audios", "sliced_audios_16k", "f0", "f0_voiced", "extracted"),
}


@pytest.fixture(autouse=True)
def small(monkeypatch):
    monkeypatch.setitem(presets.PRESETS, "v2-32k", SMALL)


@pytest.fixture
def encoder(monkeypatch):
    """In the place of ContentVec, whose weights are not here."""
    monkeypatch.setattr(
        extracting,
        "content_encoder",
        lambda name, width, device: lambda samples: np.ones((len(samples) // 320, width), np.float32),
    )
    monkeypatch.setattr(extracting, "content_identity", lambda name, width: "0123")


def write_clip(folder, names, stem, *, wave="", seconds=1.0, seed=0):
    """The five files of a clip, as those programs write them: float64 pitch, clips of random sound."""
    random, frames = np.random.default_rng(seed), int(100 * seconds)
    f0 = 150 + 20 * np.sin(np.arange(frames) / 9)
    f0[frames // 4 : frames // 2] = 0
    for name in names:
        (folder / name).mkdir(parents=True, exist_ok=True)
    for name, rate in zip(names[:2], (RATE, 16000), strict=True):
        soundfile.write(
            folder / name / (wave if rate == RATE and wave else f"{stem}.wav"),
            0.1 * random.standard_normal(int(rate * seconds)).astype(np.float32),
            rate,
            subtype="FLOAT",
        )
    np.save(folder / names[2] / f"{stem}.wav.npy", np.clip(f0 / 5, 1, 255).astype(np.int64))
    np.save(folder / names[3] / f"{stem}.wav.npy", f0)
    np.save(folder / names[4] / f"{stem}.npy", random.standard_normal((frames // 2, 768)).astype(np.float32))


def make_folder(place, program="RVC WebUI", stems=("0_0", "0_1", "1_0"), *, speaker=0, **clip):
    """An experiment that has moved: its list says where it was, on Windows or relative to Applio's folder."""
    folder, names = place / "logs" / "alice", NAMES[program]
    for seed, stem in enumerate(stems):
        write_clip(folder, names, stem, seed=seed, **clip)
    write_clip(place / "logs" / "mute", names, "mute", wave="mute32k.wav")
    root = r"D:\\RVC\\logs" if program == "RVC WebUI" else "logs"
    slash = r"\\" if program == "RVC WebUI" else "/"
    lines = [
        slash.join((root, owner, names[0], wave))
        + "".join(
            f"|{slash.join((root, owner, name, stem + end))}"
            for name, end in ((names[4], ".npy"), (names[2], ".wav.npy"), (names[3], ".wav.npy"))
        )
        + f"|{speaker}"
        for owner, stem, wave in [
            *(("alice", stem, f"{stem}.wav") for stem in stems),
            *2 * [("mute", "mute", "mute32k.wav")],
        ]
    ]
    (folder / "filelist.txt").write_text("\n".join(lines), "utf-8")
    (folder / "config.json").write_text(json.dumps({"train": {"fp16_run": True}}))
    return folder


def save_pair(folder, spec=SMALL, step=40, epoch=20, **more):
    """A pair with moments, in RVC's form."""
    networks = Networks.fresh(spec, seed=3, device=torch.device("cpu"))
    for letter, network, optimizer in (
        ("G", networks.generator, networks.generator_optimizer),
        ("D", networks.discriminator, networks.discriminator_optimizer),
    ):
        for parameter in network.parameters():
            parameter.grad = torch.full_like(parameter, 0.01)
        optimizer.step()
        torch.save(
            {
                "model": network.state_dict(),
                "iteration": epoch,
                "optimizer": optimizer.state_dict(),
                "learning_rate": 1e-4,
                **more,
            },
            folder / f"{letter}_{step}.pth",
        )
    return networks


def contents(folder: Path) -> dict[str, str]:
    return {str(path.relative_to(folder)): sha256_of(path) for path in folder.rglob("*") if path.is_file()}


DIO = ExtractSettings(f0_method="dio")
FEW = TrainSettings.of(epochs=1, batch_size=2, base_generator="none", base_discriminator="none")


@pytest.mark.parametrize("program", NAMES)
def test_a_folder_that_has_moved_opens_trains_and_is_left_as_it_was(tmp_path, program, encoder):
    folder = make_folder(tmp_path / "theirs", program)
    before, layout = contents(folder), Layout.of("Alice 2", tmp_path)
    assert is_foreign(folder)
    report = open_foreign(folder, layout)
    assert (report.program, report.preset, report.clips, report.epoch) == (program, "v2-32k", 3, None)
    assert report.seconds == 3 and contents(folder) == before and ExperimentRecord.load(layout).spec == SMALL
    theirs, ours = (read_audio(place / "0_1.wav") for place in (folder / NAMES[program][0], layout.clips))
    assert ours.sample_rate == RATE and np.array_equal(ours.samples, theirs.samples)
    with pytest.raises(StageOrderError, match="not extracted") as caught:
        train(layout, FEW)
    assert "rvc extract" in caught.value.hint
    assert not extract(layout, DIO).failed and train(layout, FEW).epochs == 1


@pytest.mark.parametrize("extracted", [True, False])
def test_clips_are_those_that_training_used(tmp_path, extracted):
    """Another program may leave clips out of its list; without a list all are used."""
    folder = make_folder(tmp_path / "theirs", stems=("0_0", "0_1"))
    write_clip(folder, NAMES["RVC WebUI"], "0_2")
    if not extracted:
        (folder / "filelist.txt").unlink()
    open_foreign(folder, layout := Layout.of("b", tmp_path))
    assert [clip.id for clip in Manifest.load(layout).clips] == ["0_0", "0_1", *["0_2"] * (not extracted)]


@pytest.mark.parametrize(("program", "step"), [("RVC WebUI", 40), ("Applio", LATEST_ONLY)])
def test_training_goes_on_from_a_pair(tmp_path, program, step, encoder):
    """Also with as many speakers as Applio gives it; a checkpoint was trained on everything, so nothing is held out."""
    folder = make_folder(tmp_path / "theirs", program, [f"{number}_0" for number in range(5)])
    save_pair(folder, replace(SMALL, speakers=2), step, scaler={})
    layout = Layout.of("b", tmp_path)
    report = open_foreign(folder, layout)
    assert report.epoch == 20 and any("trained on every" in odd for odd in report.warnings)
    extract(layout, DIO)
    trained = train(layout, FEW.model_copy(update={"epochs": 21}))
    assert trained.epochs == 21 and trained.resumed_from == (40 if step == 40 else 20 * 4)  # 7 clips, 2 a step


def test_what_is_odd_is_said(tmp_path):
    folder = make_folder(tmp_path / "theirs")
    save_pair(folder)
    (folder / "config.json").write_text(json.dumps({"train": {}}))
    (folder / "0_gt_wavs" / "0_0.wav").write_bytes(b"torn")
    layout = Layout.of("b", tmp_path)
    report = open_foreign(folder, layout)
    for words in ("0_0", "trained on every", "--mel-epsilons 2026"):
        assert sum(words in warning for warning in report.warnings) == 1, words
    assert [clip.id for clip in Manifest.load(layout).clips] == ["0_1", "1_0"]


def test_speakers_stay_with_their_clips(tmp_path):
    layout, stems = Layout.of("b", tmp_path), [f"1_{number}_0" for number in range(9)]
    open_foreign(make_folder(tmp_path, "Applio", stems, speaker=1, seconds=8.0), layout)
    clips = Manifest.load(layout).clips
    assert {clip.speaker for clip in clips} == {1}
    assert {clip.recording for clip in clips} == {f"1_{number}" for number in range(9)}


def test_a_folder_that_is_not_imported_yet_says_so(tmp_path):
    make_folder(tmp_path)
    with pytest.raises(StageOrderError, match="another program") as caught:
        ExperimentRecord.load(Layout.of("alice", tmp_path))
    assert "rvc import" in caught.value.hint


@pytest.mark.parametrize(
    ("damage", "error", "words"),
    [
        ("absent", StageOrderError, "not an experiment"),
        ("list", DatasetError, "line 1"),
        ("taken", SettingsError, "already"),
        ("encoder", MismatchError, "spin"),
        ("no clip", DatasetError, "no clip"),
        ("decoder", MismatchError, "G_40.pth has an unsupported architecture"),
        ("speaker", DatasetError, "speaker 9"),
        ("checkpoint", WeightsError, "is damaged"),
        ("rate", MismatchError, r"\[22050\] Hz"),
    ],
)
def test_what_cannot_go_on_is_refused_and_nothing_is_written(tmp_path, damage, error, words):
    folder, layout = make_folder(tmp_path, speaker=9 if damage == "speaker" else 0), Layout.of("b", tmp_path)
    if damage == "absent":
        folder = tmp_path
    elif damage == "list":
        (folder / "filelist.txt").write_text("nonsense")
    elif damage == "taken":
        layout.root.mkdir()
    elif damage == "encoder":
        save_pair(folder)
        (folder / "model_info.json").write_text('{"embedder_model": "spin-v2"}')
    elif damage in ("decoder", "checkpoint"):
        save_pair(folder, replace(SMALL, upsample_kernels=(16, 16, 8)) if damage == "decoder" else SMALL)
        if damage == "checkpoint":
            (folder / "D_40.pth").write_bytes(b"torn")
    elif damage in ("no clip", "rate"):
        for path in (folder / "0_gt_wavs").iterdir():
            path.write_bytes(b"")
            if damage == "rate":
                soundfile.write(path, np.zeros(22050), 22050)
    before = set(tmp_path.rglob("*"))
    with pytest.raises(error, match=words) as caught:
        open_foreign(folder, layout)
    assert caught.value.hint and set(tmp_path.rglob("*")) == before


def test_a_failure_half_way_leaves_nothing(tmp_path, monkeypatch):
    def fail(*_: object) -> None:
        raise RVCError("no room")

    monkeypatch.setattr(module, "stamp", fail)
    folder = make_folder(tmp_path)
    before = contents(tmp_path)
    with pytest.raises(RVCError, match="no room"):
        open_foreign(folder, Layout.of("b", tmp_path))
    assert contents(tmp_path) == before


def test_the_command_line_opens_it_under_its_own_name(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("RVC_HOME", str(tmp_path / "home"))
    folder = make_folder(tmp_path / "theirs")
    assert main(["import", str(folder), "--json", "--quiet"]) == 0
    opened = json.loads(capsys.readouterr().out.splitlines()[-1])["experiment"]
    assert opened["path"] == str(tmp_path / "home" / "logs" / "alice") and opened["program"] == "RVC WebUI"
    assert main(["import", str(folder), "--json", "--quiet"]) == 1
    assert "already" in json.loads(capsys.readouterr().out.splitlines()[-1])["error"]


def test_running_an_import_needs_no_recordings_and_names_what_is_missing_first(tmp_path):
    folder = make_folder(tmp_path)
    lab = Experiment.open("b", home=tmp_path, runtime=RuntimeSettings(device="cpu", threads=1))
    report = open_foreign(folder, lab.layout)
    assert any("get its encoder" in line and "ContentVec" in line for line in report.warnings)
    before = sorted(lab.layout.root.rglob("*"))
    with pytest.raises(WeightsError, match="ContentVec"):
        lab.run(PrepareSettings(preset="v2-32k"))
    with pytest.raises(MismatchError, match="imported with clips for v2-32k, not nano-24k") as error:
        lab.run(PrepareSettings(preset="nano-24k"))
    assert "--dataset" in error.value.hint and sorted(lab.layout.root.rglob("*")) == before


def test_missing_weights_are_named_before_recordings_are_cut(tmp_path):
    lab = Experiment.open("a", voice_folder("target"), home=tmp_path, runtime=RuntimeSettings(device="cpu", threads=1))
    with pytest.raises(WeightsError, match="ContentVec") as error:
        lab.run(PrepareSettings(preset="v2-40k"))
    assert "nano-24k" in error.value.hint and not lab.layout.root.exists()
