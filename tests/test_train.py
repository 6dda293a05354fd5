"""Training: it learns, it resumes bit by bit, it stops when told, and it refuses what cannot work."""

import fcntl
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from rvc_core import stamps
from rvc_core import train as train_module
from rvc_core.checkpoint import load_newest
from rvc_core.errors import DivergedError, MismatchError, ResourceError, StageOrderError, WeightsError
from rvc_core.gan import train_step
from rvc_core.layout import Layout
from rvc_core.metrics import history
from rvc_core.progress import Silent, Stop
from rvc_core.settings import TrainSettings
from rvc_core.train import train
from rvc_core.voice_file import load_voice
from tiny import TINY, experiment

FEW = {"batch_size": 2, "save_every_epochs": 100, "validate_every_epochs": 100, "base_generator": "none",
       "base_discriminator": "none", "learning_rate": 2e-3}


def _settings(**changes: object) -> TrainSettings:
    return TrainSettings.of(**{**FEW, **changes})


class _AfterSteps(Stop):
    """Asks training to end after so many steps."""

    def __init__(self, steps: int) -> None:
        super().__init__()
        self.left = steps

    @property
    def requested(self) -> bool:
        self.left -= 1
        return self.left < 0


def test_training_brings_unheard_recordings_nearer(tiny: None, tmp_path: Path) -> None:
    report = train(experiment(tmp_path), _settings(epochs=20))
    assert report.heldout_mel_last < 0.75 * report.heldout_mel_first
    assert (report.epochs, report.steps, report.stopped_by, report.resumed_from) == (20, 60, "epochs", None)
    voice = load_voice(Path(report.voice))
    assert voice.info.epoch == 20 and voice.info.content_identity == "tiny" and 90 < voice.info.f0_median_hz < 150


def test_interrupted_training_ends_with_the_weights_of_an_uninterrupted_one(tiny: None, tmp_path: Path) -> None:
    whole = experiment(tmp_path, "whole")
    train(whole, _settings(epochs=4))
    parts = experiment(tmp_path, "parts")
    train(parts, _settings(epochs=2))
    second = train(parts, _settings(epochs=4))
    assert second.resumed_from == 6
    ours, theirs = (load_newest(layout) for layout in (whole, parts))
    for part in ("generator", "discriminator"):
        expected, found = getattr(ours, part)["model"], getattr(theirs, part)["model"]
        assert all(torch.equal(expected[key], found[key]) for key in expected)


def test_stopping_in_mid_epoch_loses_and_repeats_nothing(tiny: None, tmp_path: Path) -> None:
    layout = experiment(tmp_path, "stopped")
    first = train(layout, _settings(epochs=3), stop=_AfterSteps(4))
    assert (first.stopped_by, first.steps, first.epochs) == ("stop", 4, 1)
    train(layout, _settings(epochs=3))
    steps = [row["step"] for row in history(layout) if row["kind"] == "step"]
    assert steps == list(range(1, 10))
    whole = experiment(tmp_path, "whole")
    train(whole, _settings(epochs=3))
    ours, theirs = (load_newest(each).generator["model"] for each in (whole, layout))
    assert all(torch.equal(ours[key], theirs[key]) for key in ours)


def test_minutes_end_training_with_a_saved_voice(tiny: None, tmp_path: Path) -> None:
    began = time.monotonic()
    report = train(experiment(tmp_path), _settings(epochs=5000, max_minutes=0.12))
    assert report.stopped_by == "time" and report.steps > 0
    assert time.monotonic() - began < 0.12 * 60 + 3
    assert Path(report.voice).exists()


def test_files_tags_and_intervals_are_the_fields(tiny: None, tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    layout = experiment(tmp_path)
    train(layout, _settings(epochs=4, save_every_epochs=2, validate_every_epochs=2))
    assert [path.name for path in layout.voices()] == ["tiny_e2_s6.pth", "tiny_e4_s12.pth", "tiny.pth"]
    assert layout.generator_steps() == [6, 12] and layout.discriminator(12).exists()
    events = EventAccumulator(str(layout.root)).Reload()
    tags = set(events.Tags()["scalars"])
    assert {"loss/g/total", "loss/g/mel", "loss/g/kl", "loss/g/fm", "loss/d/total", "grad_norm_g", "grad_norm_d",
            "learning_rate", "loss/g/0", "loss/d_r/2", "loss/d_g/2", "epoch/loss/g/mel", "heldout/mel"} <= tags
    assert {"slice/mel_org", "slice/mel_gen", "all/mel"} == set(events.Tags()["images"])
    assert [event.step for event in events.Scalars("loss/g/mel")] == [3, 6, 9, 12]       # one an epoch of 3 steps
    rows = history(layout)
    assert sum(row["kind"] == "step" for row in rows) == 12
    assert [row["epoch"] for row in rows if row["kind"] == "validation"] == [0, 2, 4]
    config = json.loads(layout.config.read_text())
    assert config["data"]["sampling_rate"] == 16000 and config["train"]["segment_size"] == TINY.segment_frames * 160


def test_another_batch_size_begins_the_epoch_again_and_other_epsilons_are_refused(tiny: None, tmp_path: Path) -> None:
    layout = experiment(tmp_path)
    first = train(layout, _settings(epochs=2), stop=_AfterSteps(4))
    assert (first.steps, first.epochs) == (4, 1)
    second = train(layout, _settings(epochs=2, batch_size=5))
    assert (second.resumed_from, second.steps, second.epochs) == (4, 5, 2)
    with pytest.raises(MismatchError, match="mel_epsilons 2023"):
        train(layout, _settings(epochs=3, mel_epsilons="2026"))


def test_a_checkpoint_is_not_continued_on_another_encoders_features(tiny: None, tmp_path: Path) -> None:
    layout = experiment(tmp_path)
    train(layout, _settings(epochs=1))
    stamps.stamp(layout, "content", {"name": "embedded", "identity": "another"})
    with pytest.raises(MismatchError, match="content encoder"):
        train(layout, _settings(epochs=2))


def test_changed_recordings_begin_the_epoch_again_and_say_so(tiny: None, tmp_path: Path) -> None:
    layout, said = experiment(tmp_path), []
    train(layout, _settings(epochs=2), stop=_AfterSteps(4))
    stamps.stamp(layout, "prepare", {"other": "recordings"})

    class Listening(Silent):
        def say(self, line: str) -> None:
            said.append(line)
    report = train(layout, _settings(epochs=2), progress=Listening())
    assert report.steps == 7 and "recordings have changed" in said[0]


def test_a_folder_of_rvc_webui_is_continued_and_never_begun_anew(tiny: None, tmp_path: Path) -> None:
    layout = experiment(tmp_path)
    train(layout, _settings(epochs=2))
    for ours in (layout.checkpoints, layout.state(6), layout.metrics):
        ours.unlink()
    report = train(layout, _settings(epochs=3))
    assert (report.resumed_from, report.steps, report.epochs) == (6, 9, 3)


def test_the_record_forgets_steps_whose_work_was_lost(tiny: None, tmp_path: Path) -> None:
    layout = experiment(tmp_path)
    train(layout, _settings(epochs=2))
    lost = {"kind": "step", "step": 7, "epoch": 3, "loss/g/mel": 0.0}     # trained after the save, then killed
    with layout.metrics.open("a") as file:
        file.write(json.dumps(lost) + "\n")
    train(layout, _settings(epochs=3))
    rows = [row for row in history(layout) if row["kind"] == "step"]
    assert [row["step"] for row in rows] == list(range(1, 10)) and lost not in rows


def test_a_moved_experiment_trains_on_its_own_clips(tiny: None, tmp_path: Path) -> None:
    before = experiment(tmp_path, "before")
    before.root.rename(before.root.with_name("after"))
    after = Layout.of("after", tmp_path)
    assert train(after, _settings(epochs=1)).steps == 3
    assert str(before.root) not in after.filelist.read_text("utf-8")


def test_a_heldout_clip_without_features_is_left_out(tiny: None, tmp_path: Path) -> None:
    layout = experiment(tmp_path, heldout=2)
    next(layout.heldout.features(8).glob("*.npy")).unlink()
    assert train(layout, _settings(epochs=1)).heldout_mel_last > 0


def test_ctrl_c_ends_at_a_step_and_loses_nothing(tiny: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    steps = 0

    def interrupted(*arguments: object, **options: object) -> object:
        nonlocal steps
        steps += 1
        if steps == 4:
            os.kill(os.getpid(), signal.SIGINT)     # in the middle of a step, between the two networks' moves
        return train_step(*arguments, **options)
    monkeypatch.setattr(train_module, "train_step", interrupted)
    layout = experiment(tmp_path, "interrupted")
    first = train(layout, _settings(epochs=3))
    assert (first.stopped_by, first.steps) == ("interrupt", 4)
    train(layout, _settings(epochs=3))
    whole = experiment(tmp_path, "whole")
    train(whole, _settings(epochs=3))
    for part in ("generator", "discriminator"):
        ours, theirs = (getattr(load_newest(each), part)["model"] for each in (whole, layout))
        assert all(torch.equal(ours[key], theirs[key]) for key in ours)


def test_no_room_for_a_checkpoint_is_said_before_the_first_step(tiny: None, tmp_path: Path,
                                                                monkeypatch: pytest.MonkeyPatch) -> None:
    layout = experiment(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(10**9, 10**9, 33 << 20))
    with pytest.raises(ResourceError, match="not enough room"):
        train(layout, _settings(epochs=1))
    assert not layout.metrics.exists() and not layout.config.exists()


def test_two_trainings_of_one_voice_are_refused(tiny: None, tmp_path: Path) -> None:
    layout = experiment(tmp_path)
    with layout.lock.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        with pytest.raises(ResourceError, match="being trained already"):
            train(layout, _settings(epochs=1))
    assert train(layout, _settings(epochs=1)).epochs == 1


def test_a_non_finite_loss_is_never_saved(tiny: None, tmp_path: Path) -> None:
    layout = experiment(tmp_path)
    train(layout, _settings(epochs=1))
    saved = load_newest(layout)
    saved.generator["model"]["enc_p.proj.bias"][:] = 1e30   # a weight that is a number, and a loss that is none
    from rvc_core.checkpoint import save_checkpoint
    save_checkpoint(layout, saved)
    with pytest.raises(DivergedError, match="step 4"):
        train(layout, _settings(epochs=2))
    assert layout.generator_steps() == [3]


def test_missing_data_and_missing_base_say_what_to_do(tiny: None, tmp_path: Path) -> None:
    with pytest.raises(StageOrderError) as caught:
        train(Layout.of("nobody", tmp_path), _settings(epochs=1))
    assert "rvc prepare" in caught.value.hint
    with pytest.raises(WeightsError, match="f0G40k.pth") as caught:
        train(experiment(tmp_path), _settings(epochs=1, base_generator=str(tmp_path / "f0G40k.pth")))
    assert "--base-generator" in caught.value.hint
    assert not Layout.of("tiny", tmp_path).config.exists()


def test_the_base_model_must_know_the_features(tiny: None, tmp_path: Path) -> None:
    layout = experiment(tmp_path)
    stamps.stamp(layout, "content", {"name": "contentvec", "identity": "tiny"})
    with pytest.raises(MismatchError, match="features of embedded, and these are of contentvec") as caught:
        train(layout, _settings(epochs=1, base_generator="auto"))
    assert "--content auto" in caught.value.hint and not layout.config.exists()


CHILD = """
import sys
from pathlib import Path
import tiny
from rvc_core import presets
from rvc_core.layout import Layout
from rvc_core.settings import TrainSettings
from rvc_core.train import train
presets.PRESETS["nano"] = tiny.TINY
report = train(Layout.of("tiny", Path(sys.argv[1])), TrainSettings.of(**%r))
print(report.resumed_from, report.steps)
"""


def test_a_killed_training_continues_from_its_last_checkpoint(tiny: None, tmp_path: Path) -> None:
    layout = experiment(tmp_path)
    command = [sys.executable, "-c", CHILD % _settings(epochs=20, save_every_epochs=4).model_dump(), str(tmp_path)]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    child = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL)
    deadline = time.monotonic() + 60
    while len(layout.generator_steps()) < 2 and time.monotonic() < deadline:
        time.sleep(0.02)
    child.send_signal(signal.SIGKILL)
    child.wait()
    saved = load_newest(layout).step
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    resumed_from, steps = map(int, done.stdout.split())
    assert resumed_from == saved and steps == 60
    assert [row["step"] for row in history(layout) if row["kind"] == "step"] == list(range(1, 61))
