"""Training: it learns, it resumes bit by bit, it stops when told, and it refuses what cannot work."""

import json
import math
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from rvc_core.checkpoint import load_newest
from rvc_core.errors import DivergedError, MismatchError, StageOrderError, WeightsError
from rvc_core.layout import Layout
from rvc_core.metrics import history
from rvc_core.progress import Stop
from rvc_core.settings import TrainSettings
from rvc_core.train import train
from rvc_core.voice_file import load_voice
from tiny import TINY, experiment

FEW = {"batch_size": 2, "save_every_epochs": 100, "validate_every_epochs": 100, "base_generator": "none",
       "base_discriminator": "none", "learning_rate": 2e-3}


def _settings(**changes: object) -> TrainSettings:
    return TrainSettings.of(**{**FEW, **changes})


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
    class AfterFour(Stop):
        asked = 0

        @property
        def requested(self) -> bool:
            self.asked += 1
            return self.asked > 4
    layout = experiment(tmp_path, "stopped")
    first = train(layout, _settings(epochs=3), stop=AfterFour())
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


def test_changed_recipe_on_resume_is_refused(tiny: None, tmp_path: Path) -> None:
    layout = experiment(tmp_path)
    train(layout, _settings(epochs=1))
    with pytest.raises(MismatchError, match="batch_size=2"):
        train(layout, _settings(epochs=2, batch_size=4))


def test_a_non_finite_loss_is_never_saved(tiny: None, tmp_path: Path) -> None:
    layout = experiment(tmp_path)
    train(layout, _settings(epochs=1))
    saved = load_newest(layout)
    saved.generator["model"]["enc_p.proj.bias"][:] = math.inf
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
