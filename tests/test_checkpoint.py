"""Checkpoints: complete sets count, torn ones are put aside, a full disk loses nothing."""

import shutil
from functools import partial
from pathlib import Path

import pytest
import torch

from rvc_core import checkpoint as module
from rvc_core.checkpoint import Checkpoint, load_base, load_newest, save_checkpoint
from rvc_core.errors import CheckpointError, ResourceError, WeightsError
from rvc_core.files import sha256_of
from rvc_core.layout import Layout


def _set(step: int) -> Checkpoint:
    part = {"model": {"w": torch.full((4,), float(step))}, "iteration": step, "optimizer": {}, "learning_rate": 1e-4}
    return Checkpoint(step, part, part, {"epoch": step, "position": 0, "settings": {}})


def test_the_newest_set_comes_back_and_old_ones_are_removed(tmp_path: Path) -> None:
    layout = Layout.of("a", tmp_path)
    for step in (5, 10, 15):
        save_checkpoint(layout, _set(step), keep=2)
    assert load_newest(layout).generator["model"]["w"].tolist() == [15.0] * 4
    assert layout.generator_steps() == [10, 15] and not layout.state(5).exists()


def test_no_checkpoint_is_none_and_not_an_error(tmp_path: Path) -> None:
    assert load_newest(Layout.of("a", tmp_path)) is None


@pytest.mark.parametrize("part", ["generator", "discriminator", "state"])
@pytest.mark.parametrize("damage", ["truncated", "missing"])
def test_a_torn_newest_set_is_put_aside_for_the_one_before(tmp_path: Path, part: str, damage: str) -> None:
    layout = Layout.of("a", tmp_path)
    for step in (5, 10):
        save_checkpoint(layout, _set(step))
    file = getattr(layout, part)(10)
    if damage == "missing":
        file.unlink()
    else:
        file.write_bytes(file.read_bytes()[:-100])
    assert load_newest(layout).step == 5
    assert not list(layout.root.glob("*_10.*")) and list(layout.incomplete.iterdir())


@pytest.mark.parametrize("survived", range(4))
def test_a_kill_between_the_files_leaves_the_older_set(tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
                                                       survived: int) -> None:
    """Stop the save before each of its four writes: what was there before must still be the newest complete set."""
    layout = Layout.of("killed", tmp_path)
    save_checkpoint(layout, _set(5))
    left = survived
    write = {name: getattr(module, name) for name in ("replace_atomically", "write_json")}

    def dying(name: str, *arguments: object) -> object:
        nonlocal left
        if left == 0:
            raise KeyboardInterrupt
        left -= 1
        return write[name](*arguments)
    for name in write:
        monkeypatch.setattr(module, name, partial(dying, name))
    with pytest.raises(KeyboardInterrupt):
        save_checkpoint(layout, _set(10))
    monkeypatch.undo()
    assert load_newest(layout).step == 5
    assert layout.generator_steps() == [5]


def test_all_sets_torn_is_an_error_and_never_a_silent_restart(tmp_path: Path) -> None:
    layout = Layout.of("a", tmp_path)
    save_checkpoint(layout, _set(5))
    layout.generator(5).write_bytes(b"torn")
    with pytest.raises(CheckpointError, match="whole"):
        load_newest(layout)


def test_no_room_keeps_what_is_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    layout = Layout.of("a", tmp_path)
    save_checkpoint(layout, _set(5))
    before = {path: sha256_of(path) for path in layout.root.iterdir()}
    monkeypatch.setattr(shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(10**9, 10**9, 1000))
    with pytest.raises(ResourceError, match="not enough room"):
        save_checkpoint(layout, _set(10))
    assert {path: sha256_of(path) for path in layout.root.iterdir()} == before


def test_a_base_must_be_a_base(tmp_path: Path) -> None:
    torch.save({"weight": {}, "config": []}, tmp_path / "voice.pth")
    torch.save({"model": {"w": torch.ones(2, dtype=torch.float16)}, "iteration": 1}, tmp_path / "f0G40k.pth")
    assert load_base(tmp_path / "f0G40k.pth")["w"].dtype == torch.float32
    with pytest.raises(CheckpointError, match="finished voice"):
        load_base(tmp_path / "voice.pth")
    with pytest.raises(WeightsError, match="no such file"):
        load_base(tmp_path / "absent.pth")
