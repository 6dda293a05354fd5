"""Features on the disk: their form, what is redone when, and what happens to a run that is stopped or killed."""

import shutil
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from rvc_core.audio.waveform import Audio
from rvc_core.errors import AudioError, DatasetError, MismatchError, ResourceError, StageOrderError
from rvc_core.features.content import ContentEncoder
from rvc_core.features.pitch import pitch_estimator
from rvc_core.features.retrieval import FeatureIndex
from rvc_core.preparation import extract as extract_module
from rvc_core.preparation.build_index import build_index
from rvc_core.preparation.extract import extract
from rvc_core.progress import Stop
from rvc_core.settings import ExtractSettings, IndexSettings
from rvc_core.voices.library import is_stale
from rvc_core.workspace.layout import Layout
from rvc_core.workspace.manifest import Clip, ExperimentRecord, Manifest
from rvc_core.workspace.stamps import content_of, stamp
from synth import phrase

DIO, OTHER = ExtractSettings(f0_method="dio"), ExtractSettings(f0_method="harvest")


class Counting:
    """Stands in for the encoder: 256 copies of each frame's mean, counted, broken or interrupted on demand."""

    def __init__(self):
        self.calls, self.identity, self.fails_at, self.stop_at = 0, "first", None, (None, None)

    def __call__(self, name, width, device="cpu"):
        def encode(samples, device):
            self.calls += 1
            if self.calls == self.stop_at[0]:
                self.stop_at[1].request()
            if self.calls == self.fails_at:
                raise AudioError("broken")
            means = np.lib.stride_tricks.sliding_window_view(samples, 400)[::320].mean(1, keepdims=True)
            return np.repeat(means, width, 1)

        return ContentEncoder(name, width, self.identity, device, encode)


@pytest.fixture
def encoder(monkeypatch):
    counting = Counting()
    monkeypatch.setattr(extract_module, "content_encoder", counting)
    monkeypatch.setattr(extract_module, "content_identity", lambda name, width: counting.identity)
    return counting


@pytest.fixture
def layout(tmp_path):
    return prepared(tmp_path)


def prepared(folder, preset="nano", uses_f0=True):
    """An experiment as prepare leaves it: three training clips, one of them silent, and one held out."""
    layout = Layout.of("alice", folder)
    clips = [Clip(f"0_{number}", "a.wav", number, 0.8, heldout=number == 3) for number in range(4)]
    for number, clip in enumerate(clips):
        place = layout.heldout if clip.heldout else layout
        sound = phrase(number, seconds=0.8).samples * (number != 1)
        Audio(sound, 16000).save(place.clips / f"{clip.id}.wav", float32=True)
        Audio(sound, 16000).save(place.clips_16k / f"{clip.id}.wav", float32=True)
    Manifest(clips).save(layout)
    ExperimentRecord("alice", str(folder), preset, uses_f0).save(layout)
    stamp(layout, "prepare", {"dataset": 1})
    return layout


def test_files_have_rvcs_form(layout, encoder):
    report = extract(layout, DIO)
    assert (report.done, report.skipped, report.failed) == (4, 0, {})
    assert report.warnings == ["no voiced frame (whispered or without a voice) in 1 clip: 0_1"]
    for place, clip in ((layout, "0_0"), (layout, "0_1"), (layout.heldout, "0_3")):
        coarse, hz = (np.load(folder / f"{clip}.wav.npy") for folder in (place.f0_coarse, place.f0_hz))
        assert coarse.shape == hz.shape == (80,) and (coarse.dtype, hz.dtype) == (np.int32, np.float32)
        assert np.load(place.features(256) / f"{clip}.npy").shape == (39, 256)
    mute = layout.mute
    assert np.load(mute.f0_coarse / "mute.wav.npy").tolist() == [1] * 301
    assert not np.load(mute.f0_hz / "mute.wav.npy").any()
    assert np.load(mute.features(256) / "mute.npy").shape == (149, 256)
    assert content_of(layout, "content")["identity"] == "first" and content_of(layout, "content")["name"] == "embedded"


@pytest.mark.parametrize("uses_f0", [True, False])
def test_filelist_has_rvcs_form(tmp_path, encoder, uses_f0):
    layout = prepared(tmp_path, uses_f0=uses_f0)
    extract(layout, DIO)
    text = layout.filelist.read_text("utf-8")
    lines = [line.split("|") for line in text.split("\n")]
    root, fields = str(layout.root.absolute()), 5 if uses_f0 else 3
    assert len(lines) == 3 + 2 and all(len(line) == fields and line[-1] == "0" for line in lines)
    assert sorted(line[0] for line in lines[:3]) == [f"{root}/0_gt_wavs/0_{number}.wav" for number in range(3)]
    folders = ["3_feature256/{}.npy", "2a_f0/{}.wav.npy", "2b-f0nsf/{}.wav.npy"]
    for line in lines[:3]:
        clip = line[0].split("/")[-1][:-4]
        assert line[1:-1] == [f"{root}/{folder.format(clip)}" for folder in folders[: fields - 2]]
    assert lines[3] == lines[4] and lines[3][0] == f"{root}/mute/0_gt_wavs/mute16k.wav"
    assert lines[3][1:-1] == [f"{root}/mute/{folder.format('mute')}" for folder in folders[: fields - 2]]
    assert layout.f0_hz.exists() == uses_f0


def test_unchanged_is_skipped_at_once(layout, encoder, monkeypatch):
    extract(layout, DIO)
    calls, text = encoder.calls, layout.filelist.read_bytes()
    monkeypatch.setattr(extract_module, "pitch_estimator", None)
    started = time.monotonic()
    report = extract(layout, DIO)
    assert time.monotonic() - started < 1.0
    assert (report.done, report.skipped, encoder.calls, layout.filelist.read_bytes()) == (0, 4, calls, text)


def test_only_what_changed_is_redone(layout, encoder):
    extract(layout, DIO)
    calls, pitch = encoder.calls, np.load(layout.f0_hz / "0_0.wav.npy")
    assert extract(layout, OTHER).done == 4
    assert encoder.calls == calls and (np.load(layout.f0_hz / "0_0.wav.npy") != pitch).any()
    times = [path.stat().st_mtime_ns for path in sorted(layout.f0_hz.iterdir())]
    encoder.identity = "second"
    extract(layout, OTHER)
    assert encoder.calls == 2 * calls and times == [path.stat().st_mtime_ns for path in sorted(layout.f0_hz.iterdir())]
    stamp(layout, "prepare", {"dataset": 2})
    assert extract(layout, OTHER).done == 4


@pytest.mark.parametrize("failure", ["estimator", "encoder", "disk"])
def test_what_cannot_run_leaves_the_earlier_features(layout, encoder, monkeypatch, failure):
    extract(layout, DIO)
    stamps = [path.read_bytes() for path in sorted((layout.root / "stamps").iterdir())]
    settings = ExtractSettings(f0_method="dio" if failure == "encoder" else "pm")

    def broken(*arguments):
        raise ResourceError("absent")

    if failure == "estimator":
        monkeypatch.setitem(sys.modules, "parselmouth", None)
        pitch_estimator.cache_clear()
    else:
        encoder.identity = "second"
        monkeypatch.setattr(extract_module, "content_encoder" if failure == "encoder" else "ensure_room", broken)
    with pytest.raises(ResourceError):
        extract(layout, settings)
    assert all((folder / "0_0.wav.npy").exists() for folder in (layout.f0_coarse, layout.f0_hz))
    assert (layout.features(256) / "0_0.npy").exists() and (layout.mute.features(256) / "mute.npy").exists()
    assert stamps == [path.read_bytes() for path in sorted((layout.root / "stamps").iterdir())]


def test_stopped_run_goes_on(layout, encoder):
    stop = Stop()
    encoder.stop_at = (2, stop)
    report = extract(layout, DIO, stop=stop)
    assert report.stopped and report.done == 2 and not layout.filelist.exists()
    assert extract(layout, DIO).done == 2 and encoder.calls == 4 + 1  # four clips and the silent one, each once
    assert layout.filelist.exists()


def test_stopped_run_starts_afresh_with_other_settings(layout, encoder):
    stop = Stop()
    encoder.stop_at = (2, stop)
    extract(layout, DIO, stop=stop)
    np.save(layout.f0_hz / "0_0.wav.npy", np.full(80, 77, np.float32))
    extract(layout, OTHER)
    assert (np.load(layout.f0_hz / "0_0.wav.npy") != 77).all()


def test_a_failing_clip_is_named_and_left_out(layout, encoder):
    encoder.fails_at = 3
    report = extract(layout, DIO)
    assert (report.done, report.failed) == (3, {"0_2": "broken"}) and "0_2" in report.warnings[0]
    assert "0_2.wav" not in layout.filelist.read_text("utf-8")
    report = extract(layout, DIO)
    assert (report.done, report.skipped, report.failed) == (1, 3, {})
    assert "0_2.wav" in layout.filelist.read_text("utf-8")


def test_a_clip_that_vanished_is_named(layout, encoder):
    (layout.clips_16k / "0_2.wav").unlink()
    assert list(extract(layout, DIO).failed) == ["0_2"]


def test_nothing_usable_is_an_error(layout, encoder):
    for path in layout.clips_16k.iterdir():
        path.unlink()
    with pytest.raises(DatasetError, match="none of 4 clips"):
        extract(layout, DIO)


def test_paths_follow_a_moved_folder(layout, encoder, tmp_path):
    extract(layout, DIO)
    shutil.move(layout.root, tmp_path / "elsewhere")
    moved = Layout(tmp_path / "elsewhere", "alice")
    assert extract(moved, DIO).done == 0
    assert str(layout.root) not in moved.filelist.read_text("utf-8")


def test_order_of_stages(tmp_path, encoder):
    with pytest.raises(StageOrderError):
        extract(Layout.of("bob", tmp_path), DIO)
    with pytest.raises(StageOrderError):
        build_index(prepared(tmp_path))


def test_encoder_must_fit_the_voice(tmp_path):
    with pytest.raises(MismatchError):
        extract(prepared(tmp_path, "v2-40k"), ExtractSettings(content="embedded"))


def test_real_models_end_to_end(layout):
    report = extract(layout, ExtractSettings())
    assert report.done == 4 and np.load(layout.features(256) / "0_0.npy").std() > 0.1


# -- index ---------------------------------------------------------------------------------------------------------
def test_index_of_training_clips_only(layout, encoder):
    extract(layout, DIO)
    report = build_index(layout)
    assert (report.vectors, report.dimension, report.lists, report.skipped) == (3 * 39, 256, 3, False)
    assert report.path == str(layout.root / "added_IVF3_Flat_nprobe_1_alice_nano.index")
    heldout = np.load(layout.heldout.features(256) / "0_3.npy")[[20]]
    training = np.load(layout.features(256) / "0_0.npy")[[20]]
    index = FeatureIndex.load(layout.indexes()[0])
    np.testing.assert_allclose(index.mix(training, 1.0), training, atol=1e-5)
    assert np.abs(index.mix(heldout, 1.0) - heldout).max() > 1e-5
    assert build_index(layout).skipped
    assert not build_index(layout, IndexSettings(seed=2)).skipped


def test_index_follows_the_features_and_leaves_no_other(layout, encoder):
    extract(layout, DIO)
    first = build_index(layout)
    Manifest(Manifest.load(layout).clips[1:]).save(layout)
    second = build_index(layout)
    assert second.vectors == 2 * 39 and first.path != second.path
    assert [str(path) for path in layout.indexes()] == [second.path]


def test_an_index_is_stale_once_its_content_is_made_anew(layout, encoder):
    extract(layout, DIO)
    build_index(layout)
    assert not is_stale(layout)
    extract(layout, OTHER)
    assert not is_stale(layout)
    encoder.identity = "second"
    extract(layout, OTHER)
    assert is_stale(layout)
    build_index(layout)
    assert not is_stale(layout)
    layout.stamp("index").unlink()  # as prepare leaves it
    assert is_stale(layout)
    layout.experiment.unlink()  # RVC's own folder says nothing about its index
    assert not is_stale(layout)


def test_an_index_whose_owner_ends_alike_is_left_alone(layout, encoder):
    extract(layout, DIO)
    other = layout.root / "added_IVF9_Flat_nprobe_1_not_alice_nano.index"
    other.write_bytes(b"somebody's")
    build_index(layout, IndexSettings(seed=2))
    assert other.exists()


def test_without_faiss_the_index_is_searched_whole(layout, encoder, monkeypatch):
    extract(layout, DIO)
    monkeypatch.setitem(sys.modules, "faiss", None)
    report = build_index(layout)
    assert report.lists == 0 and report.vectors > 8 and layout.indexes() == [layout.index(1, "nano")]


def test_an_index_says_whose_it_is_and_of_which_encoder(layout, encoder):
    extract(layout, DIO)
    note = FeatureIndex.load(Path(build_index(layout).path)).note
    assert note["name"] == layout.name and note["version"] == "nano"
    assert note["content_identity"] == content_of(layout, "content")["identity"] != ""


@pytest.mark.parametrize("finished", [True, False])
def test_auto_keeps_the_method_that_these_clips_have(layout, encoder, monkeypatch, finished):
    """The weights of RMVPE arrive after an extraction, or while one is interrupted: no clip changes its estimator."""
    chosen, stop = [], Stop()
    encoder.stop_at = (None if finished else 2, stop)
    monkeypatch.setattr(
        extract_module, "pitch_estimator", lambda method, *_: (chosen.append(method), pitch_estimator("dio"))[1]
    )
    monkeypatch.setattr(extract_module, "pitch_method", lambda choice: "fcpe" if choice == "auto" else choice)
    extract(layout, stop=stop)
    monkeypatch.setattr(extract_module, "pitch_method", lambda choice: "rmvpe" if choice == "auto" else choice)
    encoder.stop_at = (None, None)
    extract(layout)
    assert set(chosen) == {"fcpe"} and content_of(layout, "f0")["method"] == "fcpe"
    extract(layout, ExtractSettings(f0_method="rmvpe"))
    assert content_of(layout, "f0")["method"] == "rmvpe"
    stamp(layout, "prepare", {"other": "recordings"})
    extract(layout)
    assert chosen[-1] == "rmvpe"
