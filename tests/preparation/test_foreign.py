"""Folders of RVC WebUI and Applio: each opens under our names, goes on training, and is left as it was."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from rvc_core import presets
from rvc_core.cli import main
from rvc_core.errors import DatasetError, MismatchError, RVCError, SettingsError, StageOrderError, WeightsError
from rvc_core.preparation import foreign as module
from rvc_core.preparation.foreign import open_foreign
from rvc_core.preparation.foreign_folder import is_foreign, unvoiced_kind
from rvc_core.settings import TrainSettings
from rvc_core.system.files import sha256_of
from rvc_core.training.step import Networks
from rvc_core.training.train import train
from rvc_core.workspace.filelist import read_filelist
from rvc_core.workspace.layout import LATEST_ONLY, Layout
from rvc_core.workspace.manifest import ExperimentRecord, Manifest
from rvc_core.workspace.stamps import content_of
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


def write_clip(folder, names, stem, *, wave="", seconds=1.0, drawn=False, seed=0):
    """The five files of a clip, as those programs write them: float64 pitch, clips of random sound."""
    random, frames = np.random.default_rng(seed), int(100 * seconds)
    f0 = 150 + 20 * np.sin(np.arange(frames) / 9)
    f0[frames // 4 : frames // 2] = 0
    if drawn:
        voiced = np.flatnonzero(f0)
        f0 = np.interp(np.arange(frames), voiced, f0[voiced])
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


FEW = TrainSettings.of(epochs=1, batch_size=2, base_generator="none", base_discriminator="none")


@pytest.mark.parametrize("program", NAMES)
def test_a_folder_that_has_moved_opens_trains_and_is_left_as_it_was(tmp_path, program):
    folder = make_folder(tmp_path / "theirs", program)
    before, layout = contents(folder), Layout.of("Alice 2", tmp_path)
    assert is_foreign(folder)
    report = open_foreign(folder, layout)
    assert (report.program, report.preset, report.clips, report.epoch) == (program, "v2-32k", 3, None)
    assert report.unvoiced == "0 Hz" and report.seconds == 3 and contents(folder) == before
    rows = read_filelist(layout.filelist)
    assert all(
        path.is_relative_to(layout.root) and path.exists()
        for row in rows
        for path in (row.wave, row.features, row.f0_coarse, row.f0_hz)
    )
    assert [row.wave.name for row in rows[-2:]] == 2 * ["mute32k.wav"] and ExperimentRecord.load(layout).spec == SMALL
    assert layout.filelist.read_text().count(str(layout.root)) == 4 * len(rows)
    assert train(layout, FEW).epochs == 1


def test_whole_recordings_are_held_out_and_never_slices_of_one(tmp_path):
    folder = make_folder(
        tmp_path, stems=[f"{recording}_{number}" for recording in range(10) for number in range(2)], seconds=10.0
    )
    layout = Layout.of("b", tmp_path)
    report, clips = open_foreign(folder, layout), Manifest.load(layout).clips
    held = {clip.recording for clip in clips if clip.heldout}
    assert len(held) == 1 and report.heldout_clips == 2
    listed = {row.wave.stem for row in read_filelist(layout.filelist)}
    assert listed == {clip.id for clip in clips if clip.recording not in held} | {"mute32k"}
    assert {path.stem.partition("_")[0] for path in layout.heldout.features(768).iterdir()} == held


def test_slices_of_one_recording_are_not_held_out(tmp_path):
    folder = make_folder(tmp_path, stems=[f"0_{number}" for number in range(10)], seconds=8.0)
    report = open_foreign(folder, Layout.of("c", tmp_path))
    assert report.heldout_clips == 0 and any("nothing is held out" in odd for odd in report.warnings)


@pytest.mark.parametrize(("program", "step"), [("RVC WebUI", 40), ("Applio", LATEST_ONLY)])
def test_training_goes_on_from_a_pair(tmp_path, monkeypatch, program, step):
    """Also with as many speakers as Applio gives it; a checkpoint was trained on everything, so nothing is held out."""
    monkeypatch.setattr(module, "choose_heldout", lambda phrases, rate_hz, **_: {0: phrases[0][0]})
    folder = make_folder(tmp_path / "theirs", program, [f"{number}_0" for number in range(5)])
    save_pair(folder, replace(SMALL, speakers=2), step, scaler={})
    layout = Layout.of("b", tmp_path)
    report = open_foreign(folder, layout)
    assert (
        report.epoch == 20 and report.heldout_clips == 0 and any("trained on every" in odd for odd in report.warnings)
    )
    trained = train(layout, FEW.model_copy(update={"epochs": 21}))
    assert trained.epochs == 21 and trained.resumed_from == (40 if step == 40 else 20 * 4)  # 7 clips, 2 a step


def test_what_is_odd_is_said(tmp_path):
    folder = make_folder(tmp_path, drawn=True)
    save_pair(folder)
    (folder / "config.json").write_text(json.dumps({"train": {}}))
    (folder / "0_gt_wavs" / "0_0.wav").unlink()
    torn = folder / "3_feature768" / "0_1.npy"
    torn.write_bytes(torn.read_bytes()[:1000])
    (folder.parent / "mute" / "2a_f0" / "mute.wav.npy").unlink()
    layout = Layout.of("b", tmp_path)
    report = open_foreign(folder, layout)
    assert report.unvoiced == "interpolated"
    for words in ("0_0", "0_1", "--f0-method", "silent clip", "ContentVec", "trained on every", "--mel-epsilons 2026"):
        assert sum(words in warning for warning in report.warnings) == 1, words
    assert [row.wave.name for row in read_filelist(layout.filelist)] == ["1_0.wav"]
    assert [clip.id for clip in Manifest.load(layout).clips] == ["0_1", "1_0"]
    assert content_of(layout, "f0")["method"] == "RVC WebUI, interpolated"


def test_speakers_stay_with_their_clips(tmp_path):
    layout = Layout.of("b", tmp_path)
    report = open_foreign(
        make_folder(tmp_path, "Applio", [f"1_{number}_0" for number in range(9)], speaker=1, seconds=8.0), layout
    )
    assert {row.speaker for row in read_filelist(layout.filelist)} == {1} and report.heldout_clips == 0
    assert {clip.recording for clip in Manifest.load(layout).clips} == {f"1_{number}" for number in range(9)}


def test_the_encoder_of_the_features_is_found_by_encoding_a_clip_again(tmp_path, monkeypatch):
    folder = make_folder(tmp_path)
    features = np.load(folder / "3_feature768" / "0_0.npy")

    class Encoder:
        identity = "0123"

        def __call__(self, samples):
            assert len(samples) == 16000
            return features.astype(np.float16).astype(np.float32)[:49]

    monkeypatch.setattr(module, "content_encoder", lambda name, width: Encoder())
    layout = Layout.of("b", tmp_path)
    assert open_foreign(folder, layout).content_identity == content_of(layout, "content")["identity"] == "0123"
    features = features[::-1]
    with pytest.raises(MismatchError, match="0_0 differ"):
        open_foreign(folder, Layout.of("c", tmp_path))


def test_rvcs_own_folder_opens_where_it_is(tmp_path):
    folder = make_folder(tmp_path)
    before = contents(folder)
    layout = Layout.of("alice", tmp_path)
    with pytest.raises(StageOrderError, match="another program") as caught:
        ExperimentRecord.load(layout)
    assert "rvc import" in caught.value.hint
    assert open_foreign(folder, layout).path == str(folder) and not is_foreign(folder)
    after = contents(folder)
    assert {name for name in before if before[name] != after[name]} == {"filelist.txt"}
    assert train(layout, FEW).epochs == 1


@pytest.mark.parametrize(
    ("damage", "error", "words"),
    [
        ("absent", StageOrderError, "not an experiment"),
        ("no list", StageOrderError, "filelist"),
        ("list", DatasetError, "line 1"),
        ("empty", StageOrderError, "no content features"),
        ("taken", SettingsError, "already"),
        ("encoder", MismatchError, "spin"),
        ("no clip", DatasetError, "is complete"),
        ("decoder", MismatchError, "G_40.pth has another architecture"),
        ("speaker", DatasetError, "speaker 9"),
        ("checkpoint", WeightsError, "is damaged"),
        ("rate", MismatchError, r"\[22050\] Hz"),
    ],
)
def test_what_cannot_go_on_is_refused_and_nothing_is_written(tmp_path, damage, error, words):
    folder, layout = make_folder(tmp_path, speaker=9 if damage == "speaker" else 0), Layout.of("b", tmp_path)
    listed = folder / "filelist.txt"
    if damage == "absent":
        folder = tmp_path
    elif damage == "no list":
        listed.unlink()
    elif damage in ("list", "empty"):
        listed.write_text("nonsense" if damage == "list" else "")
    elif damage == "taken":
        layout.root.mkdir()
    elif damage == "encoder":
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

    monkeypatch.setattr(module, "_describe", fail)
    folder = make_folder(tmp_path)
    before = contents(tmp_path)
    with pytest.raises(RVCError, match="no room"):
        open_foreign(folder, Layout.of("b", tmp_path))
    assert contents(tmp_path) == before


def test_how_unvoiced_frames_were_written():
    random = np.random.default_rng(0)
    sung = 200 + random.standard_normal(300).cumsum()
    gaps, drawn = sung.copy(), sung.copy()
    gaps[50:80] = 0
    drawn[50:80] = np.linspace(drawn[50], drawn[79], 30)
    assert unvoiced_kind([sung, gaps]) == "0 Hz" and unvoiced_kind([sung]) == "0 Hz"
    assert unvoiced_kind([sung, drawn, drawn.astype(np.float32)]) == "interpolated"
    assert unvoiced_kind([gaps, drawn]) == "mixed"


def test_the_command_line_opens_it_under_its_own_name(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("RVC_HOME", str(tmp_path / "home"))
    folder = make_folder(tmp_path / "theirs")
    assert main(["import", str(folder), "--json", "--quiet"]) == 0
    opened = json.loads(capsys.readouterr().out.splitlines()[-1])["experiment"]
    assert opened["path"] == str(tmp_path / "home" / "logs" / "alice") and opened["program"] == "RVC WebUI"
    assert main(["import", str(folder), "--json", "--quiet"]) == 1
    assert "already" in json.loads(capsys.readouterr().out.splitlines()[-1])["error"]
