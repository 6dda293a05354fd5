"""How a training ends early: Ctrl-C once, twice and while it loads; and one that has all of its epochs already."""

import os
import shlex
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from rvc_core.errors import CheckpointError, RVCError, StageOrderError
from rvc_core.progress import Silent
from rvc_core.settings import TrainSettings
from rvc_core.training import detached, guards
from rvc_core.training import train as train_entry
from rvc_core.training.train import train
from rvc_core.training.trainer import Trainer
from rvc_core.workspace.checkpoint import load_newest
from rvc_core.workspace.layout import Layout
from rvc_core.workspace.manifest import ExperimentRecord
from rvc_core.workspace.retention import checkpoint_rows
from tiny import experiment

BARE: dict[str, Any] = {"batch_size": 2, "base_generator": "none", "base_discriminator": "none", "unlike": "none"}


def _press() -> None:
    os.kill(os.getpid(), signal.SIGINT)


def _at(monkeypatch: pytest.MonkeyPatch, owner: object, name: str, call: int, act: Callable[[], None]) -> None:
    """Let something happen when a function is called for the n-th time."""
    inside, calls = getattr(owner, name), []

    def run(*given: Any, **named: Any) -> Any:
        calls.append(1)
        if len(calls) == call:
            act()
        return inside(*given, **named)

    monkeypatch.setattr(owner, name, run)


@pytest.mark.parametrize("where", ["open_trainer", "_opened"])
def test_ctrl_c_while_training_loads_leaves_no_voice(
    where: str, tiny: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    layout = experiment(tmp_path)
    _at(monkeypatch, train_entry, where, 1, _press)
    monkeypatch.setattr(Trainer, "validate", lambda self: pytest.fail("it took its time"))
    with pytest.raises(RVCError, match="before the first step") as caught:
        train(layout, TrainSettings.of(epochs=1, **BARE))
    assert "again" in caught.value.hint and not layout.voices() and not layout.generator_steps()


def test_pressing_twice_at_once_is_one_wish(tiny: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    layout = experiment(tmp_path)
    _at(monkeypatch, Trainer, "step", 2, lambda: [_press(), _press()] and None)
    report = train(layout, TrainSettings.of(epochs=2, **BARE))
    assert (report.stopped_by, report.steps, load_newest(layout).step) == ("interrupt", 2, 2)


def test_pressing_again_later_ends_at_once_and_keeps_the_steps(
    tiny: None,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    request: pytest.FixtureRequest,
) -> None:
    layout = experiment(tmp_path)
    monkeypatch.setattr(guards, "_TWICE_SECONDS", 0.0)
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # programs in the background ignore it
    request.addfinalizer(lambda: signal.signal(signal.SIGINT, before))
    _at(monkeypatch, Trainer, "step", 2, _press)
    _at(monkeypatch, Trainer, "finish", 1, _press)
    with pytest.raises(KeyboardInterrupt):
        train(layout, TrainSettings.of(epochs=2, **BARE))
    assert load_newest(layout).step == 2 and "press Ctrl-C again" in capfd.readouterr().err
    assert train(layout, TrainSettings.of(epochs=1, **BARE)).resumed_from == 2


def test_a_training_that_has_its_epochs_says_so_before_it_loads(
    tiny: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    layout, said = experiment(tmp_path), []
    whole = train(layout, TrainSettings.of(epochs=1, **BARE))

    class Listening(Silent):
        def say(self, text: str) -> None:
            said.append(text)

    with monkeypatch.context() as patch:
        patch.setattr(train_entry, "open_trainer", lambda *_: pytest.fail("it loads"))
        again = train(layout, TrainSettings.of(epochs=1, **BARE), progress=Listening())
    assert (again.epochs, again.steps, again.stopped_by, again.voice) == (1, whole.steps, "epochs", whole.voice)
    assert again.warnings == said and "set epochs above 1" in said[0] and again.heldout_mel_last is not None
    layout.final_voice.unlink()  # what is not there is made
    assert train(layout, TrainSettings.of(epochs=1, **BARE)).steps == whole.steps and layout.final_voice.exists()
    layout.generator(checkpoint_rows(layout)[-1]["step"]).unlink()
    with pytest.raises(CheckpointError, match="damaged"):
        train(layout, TrainSettings.of(epochs=1, **BARE))


@pytest.mark.parametrize("name", ["my voice", "Алиса's 声", "a;b", "-x"])
def test_commands_in_hints_can_be_pasted(name: str, tmp_path: Path) -> None:
    layout = Layout.of(name, tmp_path)
    for call in (lambda: detached.watch(layout), lambda: ExperimentRecord.load(layout)):
        with pytest.raises(StageOrderError) as caught:
            call()
        assert name in shlex.split(caught.value.hint.partition("run: ")[2])
