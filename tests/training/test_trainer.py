"""Training: it learns, it resumes bit by bit, it stops when told, and it refuses what cannot work."""

import contextlib
import fcntl
import functools
import json
import os
import re
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from kills import moments, train_until_killed
from rvc_core import presets
from rvc_core.errors import (
    CheckpointError,
    DivergedError,
    MismatchError,
    ResourceError,
    StageOrderError,
    StorageError,
    WeightsError,
)
from rvc_core.experiment import Experiment
from rvc_core.progress import Silent
from rvc_core.settings import TrainSettings
from rvc_core.system.documents import read_json
from rvc_core.training import final_voice, guards, start, step
from rvc_core.training import graphs as graphs_module
from rvc_core.training import train as train_entry
from rvc_core.training.memory import Memory
from rvc_core.training.saves import Saves
from rvc_core.training.step import train_step
from rvc_core.training.train import train
from rvc_core.training.trainer import Trainer
from rvc_core.training.validate import Findings
from rvc_core.training.validation import Validation
from rvc_core.verdict.overtraining import verdict_of_experiment
from rvc_core.voice import Voice
from rvc_core.workspace import checkpoint as checkpoint_module
from rvc_core.workspace import stamps
from rvc_core.workspace.checkpoint import Checkpoint, load_newest
from rvc_core.workspace.layout import Layout
from rvc_core.workspace.metrics import MetricsLog, history
from rvc_core.workspace.retention import dated_voices
from rvc_core.workspace.voice_file import load_voice
from tiny import TINY, AfterSteps, experiment

FEW = {
    "batch_size": 2,
    "save_every_epochs": 100,
    "validate_every_epochs": 100,
    "base_generator": "none",
    "base_discriminator": "none",
    "learning_rate": 2e-3,
    "unlike": "none",
}


def _settings(**changes: object) -> TrainSettings:
    return TrainSettings.of(**{**FEW, **changes})


def test_training_brings_unheard_recordings_nearer(tiny: None, tmp_path: Path) -> None:
    report = train(experiment(tmp_path), _settings(epochs=20))
    assert report.heldout_mel_last < 0.75 * report.heldout_mel_first
    assert (report.epochs, report.steps, report.stopped_by, report.resumed_from) == (20, 60, "epochs", None)
    voice = load_voice(Path(report.voice))
    assert voice.info.epoch == 20 and voice.info.content_identity == "tiny" and 90 < voice.info.f0_median_hz < 150


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Layout:
    """An uninterrupted training of three epochs."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(presets.PRESETS, "nano", TINY)
        layout = experiment(tmp_path_factory.mktemp("uninterrupted"), "whole")
        train(layout, _settings(epochs=3))
    return layout


def test_interrupted_training_ends_with_the_weights_of_an_uninterrupted_one(
    tiny: None, tmp_path: Path, whole: Layout
) -> None:
    parts = experiment(tmp_path, "parts")
    train(parts, _settings(epochs=2))
    second = train(parts, _settings(epochs=3))
    assert second.resumed_from == 6
    ours, theirs = (load_newest(layout) for layout in (whole, parts))
    for part in ("generator", "discriminator"):
        expected, found = getattr(ours, part)["model"], getattr(theirs, part)["model"]
        assert all(torch.equal(expected[key], found[key]) for key in expected)


def test_half_precision_continues_with_the_scale_that_it_had_found(tiny: None, tmp_path: Path) -> None:
    whole, parts, said = experiment(tmp_path, "whole"), experiment(tmp_path, "parts"), _Listening()
    train(whole, _settings(epochs=1, precision="fp16"))
    train(parts, _settings(epochs=1, precision="fp16"), stop=AfterSteps(2), progress=said)
    train(parts, _settings(epochs=1, precision="fp16"))
    assert " in fp16 (asked for; beside fp32: mel " in said.lines[0] and _same_weights(whole, parts)
    ours, theirs = (load_newest(each).state["scaler"] for each in (whole, parts))
    assert ours == theirs and ours["scale"] < 2**16  # each step that overflows halves it


def test_stopping_in_mid_epoch_loses_and_repeats_nothing(tiny: None, tmp_path: Path, whole: Layout) -> None:
    layout = experiment(tmp_path, "stopped")
    first = train(layout, _settings(epochs=3), stop=AfterSteps(4))
    assert (first.stopped_by, first.steps, first.epochs) == ("stop", 4, 1)
    train(layout, _settings(epochs=3))
    steps = [row["step"] for row in history(layout) if row["kind"] == "step"]
    assert steps == list(range(1, 10))
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
    assert {
        "loss/g/total",
        "loss/g/mel",
        "loss/g/kl",
        "loss/g/fm",
        "loss/d/total",
        "grad_norm_g",
        "grad_norm_d",
        "learning_rate",
        "loss/g/0",
        "loss/d_r/2",
        "loss/d_g/2",
        "epoch/loss/g/mel",
    } <= tags
    validations = EventAccumulator(str(layout.eval_board)).Reload()  # the run that people untick
    assert {"heldout/mel", "heldout/stft", "heldout/f0_cents"} <= set(validations.Tags()["scalars"])
    assert [event.step for event in validations.Scalars("heldout/mel")] == [0, 6, 12]
    assert set(validations.Tags()["audio"]) == {"heldout", "heldout/saved"}
    assert [event.step for event in validations.Audio("heldout/saved")] == [6, 12]
    assert not any(tag.startswith("heldout") for tag in tags)
    assert {"slice/mel_org", "slice/mel_gen", "all/mel"} == set(events.Tags()["images"])
    assert [event.step for event in events.Scalars("loss/g/mel")] == [3, 6, 9, 12]  # one an epoch of 3 steps
    rows = history(layout)
    assert sum(row["kind"] == "step" for row in rows) == 12
    assert [row["epoch"] for row in rows if row["kind"] == "validation"] == [0, 2, 4]
    config = json.loads(layout.config.read_text())
    assert config["data"]["sampling_rate"] == 16000 and config["train"]["segment_size"] == TINY.segment_frames * 160


def test_another_batch_size_begins_the_epoch_again_and_other_epsilons_are_refused(tiny: None, tmp_path: Path) -> None:
    layout = experiment(tmp_path)
    first = train(layout, _settings(epochs=2), stop=AfterSteps(4))
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
    train(layout, _settings(epochs=2), stop=AfterSteps(4))
    stamps.stamp(layout, "prepare", {"other": "recordings"})

    class Listening(Silent):
        def say(self, line: str) -> None:
            said.append(line)

    report = train(layout, _settings(epochs=2), progress=Listening())
    assert report.steps == 7 and "recordings have changed" in said[0]


def test_what_was_measured_on_earlier_recordings_does_not_judge_the_new_ones(tmp_path: Path) -> None:
    """Nine validations on easy recordings, then nine on harder ones, where the voice gets better all the time."""
    layout = Layout.of("alice", tmp_path)
    for number, level in enumerate((0.2, 0.9)):
        stamps.stamp(layout, "prepare", {"set": number})
        log = MetricsLog(layout, steps_per_epoch=1, resumed_step=100 * number)
        assert log.validations == []
        for at in range(100 * number + 1, 100 * number + 100):
            log.step(at, at, {"loss/g/mel": 20.0, "loss/g/total": 30.0})
            if at % 10 == 0:
                figures = {"heldout/mel": level * (1 - 0.05 * (at % 100) / 10)}
                log.validation(at, at, figures, {})
                layout.voice(at, at).write_bytes(b"voice")
                log.voice(at, at, layout.voice(at, at).name, figures)
        log.close()
    verdict = verdict_of_experiment(layout)
    assert verdict.state == "undertrained" and verdict.best.epoch > 150, verdict.sentence
    old = next(row for row in history(layout) if row["kind"] == "voice")
    assert old["heldout/mel"] == pytest.approx(0.19), "the log keeps what was measured"


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
    lost = {"kind": "step", "step": 7, "epoch": 3, "loss/g/mel": 0.0}  # trained after the save, then killed
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


def test_ctrl_c_ends_at_a_step_and_loses_nothing(
    tiny: None, tmp_path: Path, whole: Layout, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps = 0

    def interrupted(*arguments: object, **options: object) -> object:
        nonlocal steps
        steps += 1
        if steps == 4:
            os.kill(os.getpid(), signal.SIGINT)  # in the middle of a step, between the two networks' moves
        return train_step(*arguments, **options)

    monkeypatch.setattr(graphs_module, "train_step", interrupted)
    layout = experiment(tmp_path, "interrupted")
    first = train(layout, _settings(epochs=3))
    assert (first.stopped_by, first.steps) == ("interrupt", 4)
    train(layout, _settings(epochs=3))
    for part in ("generator", "discriminator"):
        ours, theirs = (getattr(load_newest(each), part)["model"] for each in (whole, layout))
        assert all(torch.equal(ours[key], theirs[key]) for key in ours)


def test_no_room_for_a_checkpoint_is_said_before_the_first_step(
    tiny: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
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
    saved.generator["model"]["enc_p.proj.bias"][:] = 1e30  # a weight that is a number, and a loss that is none
    from rvc_core.workspace.checkpoint import save_checkpoint

    save_checkpoint(layout, saved)
    said = _Listening()
    with pytest.raises(DivergedError, match="step 6, even in fp32"):
        train(layout, _settings(epochs=3), progress=said)
    assert layout.generator_steps() == [3] and len(layout.voices()) == 2
    assert [line for line in said.lines if "back to step 3" in line] == [
        "3 steps in a row, up to 6, had NaN losses: back to step 3, with --learning-rate 0.001",
        "3 steps in a row, up to 6, had NaN losses: back to step 3, with --learning-rate 0.0005 and in fp32",
    ]


class _Odd:
    """Makes the losses of some calls of `train_step` no numbers."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, calls: set[int]) -> None:
        self.calls, self.made = calls, 0
        self._real = step.distance_to_real
        monkeypatch.setattr(graphs_module, "train_step", self._step)
        monkeypatch.setattr(step, "distance_to_real", self._judge)

    def _step(self, *arguments: object, **options: object) -> object:
        self.made += 1
        return train_step(*arguments, **options)

    def _judge(self, logits: list[torch.Tensor]) -> torch.Tensor:
        return self._real(logits) * (torch.nan if self.made in self.calls else 1)


def test_a_single_odd_loss_is_skipped_counted_and_forgotten(
    tiny: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _Odd(monkeypatch, {2, 5})
    layout = experiment(tmp_path)
    report = train(layout, _settings(epochs=2))
    assert (report.steps, report.skipped) == (6, 2) and load_newest(layout).state["caution"] == 1
    assert [row["step"] for row in history(layout) if row["kind"] == "step"] == [1, 3, 4, 6]


def test_odd_losses_in_a_row_go_back_to_the_checkpoint_with_half_the_step_size(
    tiny: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    layout, said = experiment(tmp_path), _Listening()
    train(layout, _settings(epochs=1))
    before = load_newest(layout).generator["model"]
    odd = _Odd(monkeypatch, {2, 3, 4})  # steps 5, 6, 7
    seen = []
    monkeypatch.setattr(Trainer, "save", lambda self, **_: seen.append((self.position.step, self.caution.nan_steps)))
    monkeypatch.setattr(Trainer, "recall", lambda self: seen.append(_same(self.networks, before)))
    monkeypatch.setattr(Trainer, "finish", lambda self: None)
    report = train(layout, _settings(epochs=4, save_every_epochs=1), progress=said)
    assert seen == [True, (6, 2), True, (6, 0), (9, 0)] and odd.made == 4 + 9  # the save in between is declined
    assert any("back to step 3, with --learning-rate 0.001" in line for line in said.lines)
    rows = [row for row in history(layout) if row["kind"] == "step"]
    assert [row["step"] for row in rows] == [*range(1, 13)] and report.skipped == 0
    assert [round(row["learning_rate"], 5) for row in rows[2:4]] == [0.002, 0.001]


def _same(networks: step.Networks, weights: dict[str, torch.Tensor]) -> bool:
    return all(torch.equal(weights[key], value) for key, value in networks.generator.state_dict().items())


def test_odd_losses_before_the_first_checkpoint_begin_again(
    tiny: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _Odd(monkeypatch, {1, 2, 3})
    layout = experiment(tmp_path)
    assert train(layout, _settings(epochs=1)).steps == 3
    state = load_newest(layout).state
    assert (state["caution"], state["only_fp32"]) == (0.5, False)
    assert train(layout, _settings(epochs=2)).steps == 6 and load_newest(layout).state["caution"] == 0.5
    assert train(layout, _settings(epochs=3, learning_rate=1e-3)).steps == 9
    assert load_newest(layout).state["caution"] == 1  # who chooses a step size knows better


def test_a_training_that_ends_with_odd_losses_ends_where_it_was_saved(
    tiny: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    layout = experiment(tmp_path)
    train(layout, _settings(epochs=1))
    saved = layout.generator(3).read_bytes()
    with monkeypatch.context() as patch:
        _Odd(patch, {3})
        report = train(layout, _settings(epochs=2))
    assert (report.steps, layout.generator_steps(), layout.generator(3).read_bytes()) == (3, [3], saved)
    with monkeypatch.context() as patch, pytest.raises(DivergedError, match="nothing was saved"):
        _Odd(patch, {3})
        train(experiment(tmp_path, "other"), _settings(epochs=1))


def test_memory_that_runs_out_leaves_the_batches_as_they_were(
    tiny: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, short, said = experiment(tmp_path, "whole"), experiment(tmp_path, "short"), _Listening()
    train(whole, _settings(epochs=3, batch_size=4))
    work = {name: getattr(step.Gradients, name) for name in ("of_discriminator", "of_generator")}
    calls = 0

    def capped(name: str, self: step.Gradients, parts: list[slice]) -> object:
        nonlocal calls
        calls += 1
        if calls > 4 and parts[0].stop > 2:  # in the middle of the run another program takes memory
            raise torch.OutOfMemoryError("CUDA out of memory")
        return work[name](self, parts)

    for name in work:
        monkeypatch.setattr(
            step.Gradients,
            name,
            functools.partialmethod(lambda self, parts, name: capped(name, self, parts), name=name),
        )
    train(short, _settings(epochs=3, batch_size=4), progress=said)
    assert "memory ran out: 2 clips pass at once now, in batches as large as before" in said.lines
    ours, theirs = ([row for row in history(layout) if row["kind"] == "step"] for layout in (short, whole))
    assert len(ours) == len(theirs) == 6
    for mine, other in zip(ours, theirs, strict=True):
        assert mine["loss/g/total"] == pytest.approx(other["loss/g/total"], rel=1e-3)
        assert mine["loss/d/total"] == pytest.approx(other["loss/d/total"], rel=1e-3)


def test_not_even_one_clip_is_an_error_that_says_so(
    tiny: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> object:
        raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 12 bytes")

    monkeypatch.setattr(step.Gradients, "of_generator", full)
    with pytest.raises(ResourceError, match="memory ran out: not even a single clip"):
        train(experiment(tmp_path), _settings(epochs=1))


def test_a_validation_without_memory_is_told_as_that(
    tiny: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> object:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB")

    monkeypatch.setattr(Trainer, "validate", full)
    with pytest.raises(ResourceError, match="memory ran out: CUDA"):
        train(experiment(tmp_path), _settings(epochs=1))


@pytest.fixture
def small_card(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    """Sets how many frames, of all clips together, the networks have memory for."""
    held, cap, work = [0], [0], step.Gradients.of_generator

    def within(self: step.Gradients, parts: list[slice]) -> object:
        frames = (parts[0].stop - parts[0].start) * self.batch.content.shape[1]
        if frames > cap[0]:
            raise torch.OutOfMemoryError("CUDA out of memory")
        held[0] = max(held[0], frames)
        return work(self, parts)

    @contextlib.contextmanager
    def measured(device: torch.device) -> Iterator[Memory]:
        memory, held[0] = Memory(), 0
        yield memory
        memory.peak_bytes = held[0]

    monkeypatch.setattr(step.Gradients, "of_generator", within)
    monkeypatch.setattr(start, "measured_memory", measured)
    monkeypatch.setattr(start, "available_bytes", lambda device: cap[0])
    return lambda frames: cap.__setitem__(0, frames)


def test_a_batch_is_measured_once_and_continued_on_any_card(
    tiny: None, tmp_path: Path, whole: Layout, small_card: Callable[[int], None]
) -> None:
    """Three clips of a second fit, but not into what a reserve of 15 % leaves: two."""
    layout, said = experiment(tmp_path), _Listening()
    small_card(340)
    first = train(layout, _settings(epochs=3, batch_size="auto"), stop=AfterSteps(2))
    assert (first.steps, json.loads(layout.config.read_text())["train"]["batch_size"]) == (2, 2)
    small_card(150)
    second = train(layout, _settings(epochs=3, batch_size="auto"), stop=AfterSteps(2), progress=said)
    assert (second.resumed_from, second.steps, second.epochs) == (2, 4, 1)
    assert any("1 clip passes at once" in line for line in said.lines)
    small_card(10**6)
    assert train(layout, _settings(epochs=3, batch_size="auto")).steps == 9
    losses = [[row["loss/g/mel"] for row in history(each) if row["kind"] == "step"] for each in (layout, whole)]
    assert losses[0] == pytest.approx(losses[1], rel=1e-3)


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


def _same_weights(*layouts: Layout) -> bool:
    """Whether two experiments end with the same networks and optimizers, to the bit."""
    ours, theirs = (load_newest(layout) for layout in layouts)
    return ours.step == theirs.step and all(
        all(torch.equal(mine["model"][key], other["model"][key]) for key in mine["model"])
        and all(
            torch.equal(value, other["optimizer"]["state"][number][key])
            for number, moments in mine["optimizer"]["state"].items()
            for key, value in moments.items()
        )
        for mine, other in ((ours.generator, theirs.generator), (ours.discriminator, theirs.discriminator))
    )


def _train_through_kills(home: Path, kills: list[dict[str, object]], epochs: int) -> None:
    """However often it is killed, a training loses at most what one save and its interval hold, and ends the same."""
    settings = _settings(epochs=epochs, save_every_epochs=2, validate_every_epochs=2, keep_voices=3).model_dump()
    interval = 2 * 3  # three steps in an epoch
    whole, killed = experiment(home, "whole"), experiment(home, "killed")
    train_until_killed(whole, settings)
    for kill in kills:
        before = load_newest(killed)
        steps = train_until_killed(killed, settings, **kill)
        assert steps is not None, "the training ended before it could be killed"
        after = load_newest(killed)
        made, kept = (before.step if before else 0) + steps, after.step if after else 0
        assert kept <= made and made - kept <= 2 * interval  # the set that was being written, and what came since
        assert not [path for path in killed.root.glob("[GD]_*.pth") if not killed.state(int(path.stem[2:])).exists()]
    assert train_until_killed(killed, settings) is None
    assert _same_weights(whole, killed)
    assert [row["step"] for row in history(killed) if row["kind"] == "step"] == [*range(1, 3 * epochs + 1)]
    records, verdicts = (
        [
            re.sub(f"logs/{one.name}/|{one.name}(?=_e|[.]pth)", "", getattr(one, record).read_text())
            for one in (whole, killed)
        ]
        for record in ("metrics", "verdict")
    )
    assert sorted(records[0].splitlines()) == sorted(records[1].splitlines())  # a voice's row waits for the disk
    assert verdicts[0] == verdicts[1] and verdict_of_experiment(killed).state != "cannot_tell"


def test_a_voice_that_is_written_late_keeps_its_own_judgement(
    tiny: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write, validated = Saves.write, threading.Event()

    def late(saves: Saves, checkpoint: Checkpoint, voice: Path) -> float:
        assert checkpoint.step != 3 or validated.wait(60)
        return write(saves, checkpoint, voice)

    def validate(trainer: Trainer, measure: Callable[[Trainer], None] = Trainer.validate) -> None:
        measure(trainer)
        if trainer.position.step == 6:
            validated.set()

    monkeypatch.setattr(Saves, "write", late)
    monkeypatch.setattr(Trainer, "validate", validate)
    layout = experiment(tmp_path)
    train(layout, _settings(epochs=3, save_every_epochs=1, validate_every_epochs=1))
    rows = history(layout)
    found = {row["step"]: row["heldout/mel"] for row in rows if row["kind"] == "validation"}
    assert [row["heldout/mel"] for row in rows if row["kind"] == "voice"] == [found[step] for step in (3, 6, 9)]
    assert len({*found.values()}) == 4


def test_a_killed_training_ends_with_the_weights_of_an_uninterrupted_one(tiny: None, tmp_path: Path) -> None:
    _train_through_kills(tmp_path, [{"seconds": 0.1}, {"write": 4}, {"seconds": 0.2}], epochs=16)


def test_the_final_voice_is_the_average_of_the_second_half_where_that_measures_better(
    tiny: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def weights(path: Path) -> dict[str, np.ndarray]:
        return {key: value.numpy() for key, value in torch.load(path, weights_only=True)["weight"].items()}

    layout = experiment(tmp_path)
    often = {"save_every_epochs": 1, "validate_every_epochs": 1}
    monkeypatch.setattr(Validation, "figures_of", lambda *_: {"heldout/mel": 0.1})
    assert train(layout, _settings(epochs=8, **often)).averaged_from == 4
    best, voices = verdict_of_experiment(layout).best, dated_voices(layout)
    assert best and (best.path, best.from_epoch, best.epoch) == (str(layout.final_voice), 4, 8)
    assert load_voice(layout.final_voice).info.note == "average of epochs 4 to 8"
    halves = [weights(path) for step, path in voices.items() if step >= max(voices) / 2]
    for key, weight in weights(layout.final_voice).items():
        exact = np.mean([one[key].astype(np.float64) for one in halves], axis=0)
        np.testing.assert_allclose(weight.astype(np.float64), exact, rtol=2e-3, atol=1e-6)
    layout.final_voice.unlink()  # as if it was killed before the voice was written
    assert train(layout, _settings(epochs=8, **often)).averaged_from == 4 and layout.final_voice.exists()
    monkeypatch.setattr(Validation, "figures_of", lambda *_: {"heldout/mel": 9.0})
    assert train(layout, _settings(epochs=9, **often)).averaged_from is None
    last, best = weights(dated_voices(layout)[max(dated_voices(layout))]), verdict_of_experiment(layout).best
    assert best and best.from_epoch is None
    assert all((weights(layout.final_voice)[key] == value).all() for key, value in last.items())


@pytest.mark.slow
def test_forty_kills_lose_nothing(tiny: None, tmp_path: Path) -> None:
    _train_through_kills(tmp_path, moments(40, seed=5), epochs=400)


@pytest.mark.parametrize("said", [torch.zeros(1, 100), torch.full((1, 100), torch.nan)])
def test_a_voice_that_does_not_speak_is_not_called_done(
    tiny: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, said: torch.Tensor
) -> None:
    monkeypatch.setattr(final_voice, "speak", lambda *_: said)
    with pytest.raises(CheckpointError, match="does not sound"):
        train(experiment(tmp_path), _settings(epochs=1))


def test_minutes_save_within_an_epoch_without_a_voice(tiny: None, tmp_path: Path) -> None:
    layout, whole = experiment(tmp_path), experiment(tmp_path, "whole")
    first = train(layout, _settings(epochs=2, save_every_minutes=1e-9), stop=AfterSteps(5))
    assert first.steps == 5 and [row["step"] for row in read_json(layout.checkpoints, object)] == [4, 5]
    assert [path.name for path in layout.voices()] == ["tiny_e1_s5.pth", "tiny.pth"]
    train(layout, _settings(epochs=2))
    train(whole, _settings(epochs=2))
    assert _same_weights(whole, layout)


def test_a_save_without_room_keeps_the_old_pair_and_says_so(
    tiny: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    layout, said = experiment(tmp_path), _Listening()
    free = iter([10**9] + [1000] * 100)  # enough for the first save only
    with monkeypatch.context() as patch, pytest.raises(ResourceError, match="step 12 could not be saved") as caught:
        patch.setattr(checkpoint_module, "ensure_room", lambda *_: _room(next(free)))
        train(layout, _settings(epochs=4, save_every_epochs=1), progress=said)
    assert "continues from step 3" in caught.value.hint
    [_, first, *_] = said.lines
    assert "the checkpoint of step 6 was not saved, the one of step 3 is kept: not enough room" in first
    assert load_newest(layout).step == 3 and train(layout, _settings(epochs=4)).resumed_from == 3


def _room(free_bytes: int) -> None:
    if free_bytes < 10**6:
        raise ResourceError("not enough room", hint="free some space")


class _Listening(Silent):
    """Remembers what was said."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def say(self, line: str) -> None:
        self.lines.append(line)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of its own, 60 MB in memory."""
    disk = tmp_path / "small disk"
    disk.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=60m", "tmpfs", disk], capture_output=True).returncode:
        pytest.skip("needs the right to mount a file system")
    yield disk
    subprocess.run(["umount", "--lazy", disk], check=True)


def test_a_disk_that_fills_loses_nothing(
    tiny: None, tmp_path: Path, small_disk: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not even the check for room helps: another program takes it while a set is being written."""
    layout, ballast = experiment(small_disk), small_disk / "ballast"

    def filling(*arguments: object, **options: object) -> object:
        if len(layout.generator_steps()) == 2 and not ballast.exists():
            with contextlib.suppress(OSError), ballast.open("wb") as file:
                while True:
                    file.write(bytes(1 << 12))
                    file.flush()
        return train_step(*arguments, **options)

    with monkeypatch.context() as patch, pytest.raises(ResourceError) as caught:
        patch.setattr(checkpoint_module, "ensure_room", lambda *_: None)
        patch.setattr(graphs_module, "train_step", filling)
        train(layout, _settings(epochs=30, save_every_epochs=2))
    assert "full" in str(caught.value) or "no room" in str(caught.value)
    assert "\n" not in str(caught.value) and caught.value.hint
    saved = load_newest(layout).step
    assert saved >= 12
    ballast.unlink()
    whole = experiment(tmp_path, "whole")
    for each in (layout, whole):
        report = train(each, _settings(epochs=14))
        assert report.resumed_from == (saved if each is layout else None)
    assert _same_weights(whole, layout)


def test_a_folder_that_may_only_be_read_is_refused_in_one_line(tiny: None, small_disk: Path) -> None:
    layout = experiment(small_disk)
    subprocess.run(["mount", "-o", "remount,ro", small_disk], check=True)
    with pytest.raises(StorageError, match="Read-only") as caught:
        train(layout, _settings(epochs=1))
    assert "writable" in caught.value.hint


def test_storage_that_vanishes_is_named_and_nothing_is_written_in_its_place(
    tiny: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    layout = experiment(tmp_path)
    away = layout.root.with_name("away")
    steps = 0

    def vanishing(*arguments: object, **options: object) -> object:
        nonlocal steps
        steps += 1
        if steps == 10:
            layout.root.rename(away)
        return train_step(*arguments, **options)

    monkeypatch.setattr(graphs_module, "train_step", vanishing)
    with pytest.raises(StorageError, match="tiny (is gone|cannot be used any more)") as caught:
        train(layout, _settings(epochs=30, save_every_epochs=2))
    assert "bring that storage back" in caught.value.hint and not layout.root.exists()
    away.rename(layout.root)
    assert train(layout, _settings(epochs=5)).resumed_from == 6


def test_the_end_of_a_session_ends_training_with_a_saved_voice(
    tiny: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(guards, "session_minutes_left", lambda: 0.05)
    layout, said = experiment(tmp_path), _Listening()
    report = train(layout, _settings(epochs=5000, max_minutes=60), progress=said)
    assert report.stopped_by == "time" and load_newest(layout).step == report.steps
    assert "ends this session" in said.lines[0]


def test_the_progress_line_tells_speed_end_and_epochs_that_still_fit(tiny: None, tmp_path: Path) -> None:
    notes: list[str] = []

    class Noting(Silent):
        def advance(self, note: str = "") -> None:
            notes.append(note)

    train(experiment(tmp_path), _settings(epochs=2), progress=Noting())
    train(experiment(tmp_path, "other"), _settings(epochs=5000, max_minutes=0.06), progress=Noting())
    assert re.fullmatch(r"epoch 2/2 · mel [\d.]+ · [\d.]+ s a step · 0 min left · [\d.]+ GB", notes[5])
    fits = [
        fit
        for note in notes[6:]
        if (fit := re.fullmatch(r"epoch (\d+)/5000 · .* 0 min left, enough for (\d+) epochs · .*", note))
    ]
    assert fits and all(int(fit[1]) <= int(fit[2]) + 1 < 1000 for fit in fits)


# -- the verdict while training runs -------------------------------------------------------------------------------
class _Findings:
    """An examiner that finds what a curve over the epochs says, and hears nobody."""

    missing: tuple[str, ...] = ()
    heldout = staticmethod(lambda generator: None)

    def __init__(self, curve: Callable[[float], dict[str, float]]) -> None:
        self.curve, self.validations = curve, 0

    def __call__(self, generator: object) -> Findings:
        self.validations += 1
        return Findings(self.curve(self.validations - 1), {})


def _bowl(epoch: float) -> dict[str, float]:
    """Best at epoch 20, with some noise."""
    return {"heldout/mel": 0.5 + 0.4 * 0.8**epoch + 0.01 * max(0, epoch - 20) + 0.004 * np.sin(17.0 * epoch)}


def test_training_stops_by_itself_past_its_best_and_keeps_the_best_voices(
    tiny: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(train_entry, "Examiner", lambda *_, **__: _Findings(_bowl))
    lab, said = Experiment(experiment(tmp_path, clips=2)), _Listening()
    lab.progress = said
    every = {"validate_every_epochs": 1, "save_every_epochs": 2, "keep_voices": 3}
    report = lab.train(_settings(epochs=500, auto_stop=8, **every))
    verdict = lab.verdict()
    assert report.stopped_by == "verdict" and verdict.state == "overtrained" and not verdict.running
    assert abs(verdict.best.epoch - 20) <= 3 and 8 <= report.epochs - verdict.best.epoch <= 16
    assert said.lines[-1].startswith("training ends by itself: take the voice of epoch")
    assert json.loads(lab.layout.verdict.read_text())["best"]["path"] == verdict.best.path
    kept = [lab.layout.step_of(path) for path in lab.layout.voices()[:-1]]
    assert len(kept) == 4 and kept[-1] == report.steps and all(abs(step - 20) <= 4 for step in kept[:-1])
    assert set(verdict.ranking[:3]) == set(kept[:-1])
    assert verdict.best.step in kept
    monkeypatch.setattr(Voice, "load", lambda path, **_: path)  # the tiny voice's encoder is none of ours
    assert lab.voice("best") == Path(verdict.best.path)
    assert lab.train(_settings(epochs=report.epochs + 2, **every)).stopped_by == "epochs"  # it only advises


def test_a_failure_is_said_once_and_stands_in_the_progress_line(
    tiny: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        train_entry,
        "Examiner",
        lambda *_, **__: _Findings(
            lambda epoch: {"heldout/mel": 0.5, "sanity/level_nepers": -0.1 if epoch < 3 else -4.0}
        ),
    )
    said, notes = _Listening(), []
    said.advance = lambda note="": notes.append(note)
    train(experiment(tmp_path), _settings(epochs=8, validate_every_epochs=1), progress=said)
    assert sum("learned silence since epoch 3" in line for line in said.lines) == 1
    told = [note for note in notes if note.startswith("epoch")]
    assert "!" not in told[0] and told[-1].endswith(" · learned silence!")
