"""Checkpoints: complete sets count, torn ones are put aside, a full disk loses nothing."""

import math
import shutil
from functools import partial
from pathlib import Path

import pytest
import torch

from rvc_core.errors import CheckpointError, DivergedError, ResourceError, WeightsError
from rvc_core.system.files import sha256_of
from rvc_core.training.step import Networks
from rvc_core.workspace import checkpoint as module
from rvc_core.workspace.checkpoint import (
    Checkpoint,
    continue_optimizer,
    load_base,
    load_newest,
    on_host,
    save_checkpoint,
)
from rvc_core.workspace.layout import Layout
from rvc_core.workspace.retention import pin, prune_voices
from tiny import TINY


def _set(step: int) -> Checkpoint:
    part = {"model": {"w": torch.full((4,), float(step))}, "iteration": step, "optimizer": {}, "learning_rate": 1e-4}
    return Checkpoint(step, part, part, {"epoch": step, "position": 0, "settings": {}})


def test_the_newest_set_comes_back_and_old_ones_are_removed(tmp_path: Path) -> None:
    layout = Layout.of("a", tmp_path)
    for step in (5, 10, 15):
        save_checkpoint(layout, _set(step), most=2)
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
def test_a_kill_between_the_files_leaves_the_older_set(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, survived: int
) -> None:
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
    with pytest.raises(CheckpointError, match="every checkpoint"):
        load_newest(layout)


def test_no_room_keeps_what_is_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    layout = Layout.of("a", tmp_path)
    save_checkpoint(layout, _set(5))
    before = {path: sha256_of(path) for path in layout.root.iterdir()}
    monkeypatch.setattr(shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(10**9, 10**9, 1000))
    with pytest.raises(ResourceError, match="not enough room"):
        save_checkpoint(layout, _set(10))
    assert {path: sha256_of(path) for path in layout.root.iterdir()} == before


def test_older_sets_go_before_a_new_one_has_no_room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    layout = Layout.of("a", tmp_path)
    for step in (5, 10, 15):
        save_checkpoint(layout, _set(step), most=3)

    def room_for_two(folder: Path, needed_bytes: int) -> None:
        if len(layout.generator_steps()) > 1:
            raise ResourceError("not enough room")

    monkeypatch.setattr(module, "ensure_room", room_for_two)
    save_checkpoint(layout, _set(20), most=3)
    assert layout.generator_steps() == [15, 20] and load_newest(layout).step == 20


def test_what_is_pinned_stays(tmp_path: Path) -> None:
    layout = Layout.of("a", tmp_path)
    for step in (5, 10):
        save_checkpoint(layout, _set(step))
    layout.voice(1, 7).write_bytes(b"voice")
    assert sorted(pin(layout, 5)) == ["D_5.pth", "G_5.pth", "state_5.pt"] and pin(layout, 7) == ["a_e1_s7.pth"]
    for step in (15, 20, 25):
        save_checkpoint(layout, _set(step))
    assert layout.generator_steps() == [5, 20, 25] and load_newest(layout).step == 25
    assert load_newest(layout).step == 25 and layout.generator(5).exists()  # opening does not put it aside
    with pytest.raises(CheckpointError, match="neither a checkpoint nor a voice of step 10") as caught:
        pin(layout, 10)
    assert "5, 7, 20, 25" in caught.value.hint


def test_the_best_voices_stay_and_the_newest_and_the_pinned(tmp_path: Path) -> None:
    layout = Layout.of("a", tmp_path)
    layout.root.mkdir(parents=True)
    names = [layout.voice(step, step).name for step in range(1, 8)]
    for name in (*names, layout.final_voice.name):
        (layout.root / name).write_bytes(b"voice")
    pin(layout, 1)
    ranking = [4, 2, 6, 5, 3, 1]  # the seventh has no rank
    assert prune_voices(layout, ranking, most=2) == ["a_e3_s3.pth", "a_e5_s5.pth", "a_e6_s6.pth"]
    assert [layout.step_of(path) for path in layout.voices()] == [1, 2, 4, 7, 0]


def test_a_weight_that_is_no_number_is_never_saved(tmp_path: Path) -> None:
    layout = Layout.of("a", tmp_path)
    save_checkpoint(layout, _set(5))
    bad = _set(10)
    bad.discriminator["model"]["w"][2] = math.inf
    with pytest.raises(DivergedError, match="w is not finite at step 10"):
        save_checkpoint(layout, bad)
    assert load_newest(layout).step == 5 and layout.generator_steps() == [5]


def test_what_is_written_is_what_was_copied(tmp_path: Path) -> None:
    """Training moves its weights while the thread writes."""
    part = {"model": {"w": torch.ones(4)}, "optimizer": {"state": {0: {"step": torch.tensor(1.0)}}, "groups": [{}]}}
    copied = on_host(part)
    part["model"]["w"].add_(1)
    part["optimizer"]["state"][0]["step"] += 1
    assert copied["model"]["w"].tolist() == [1.0] * 4 and copied["optimizer"]["state"][0]["step"] == 1


def test_a_base_must_be_a_base(tmp_path: Path) -> None:
    torch.save({"weight": {}, "config": []}, tmp_path / "voice.pth")
    torch.save({"model": {"w": torch.ones(2, dtype=torch.float16)}, "iteration": 1}, tmp_path / "f0G40k.pth")
    assert load_base(tmp_path / "f0G40k.pth")["w"].dtype == torch.float32
    with pytest.raises(CheckpointError, match="finished voice"):
        load_base(tmp_path / "voice.pth")
    with pytest.raises(WeightsError, match="no such file"):
        load_base(tmp_path / "absent.pth")


def _pair(layout: Layout, step: int, epoch: int, value: float = 0.0) -> None:
    """A pair as RVC WebUI leaves it."""
    for path in (layout.generator(step), layout.discriminator(step)):
        path.parent.mkdir(parents=True, exist_ok=True)
        torch.save({"model": {"w": torch.full((4,), value)}, "iteration": epoch, "optimizer": {}}, path)


def test_of_foreign_pairs_the_latest_epoch_counts_and_not_the_largest_number(tmp_path: Path) -> None:
    """RVC WebUI itself goes on from G_2333333 for ever once one was saved."""
    layout = Layout.of("a", tmp_path)
    for step, epoch in ((100, 10), (2333333, 15), (200, 20), (90, 9)):
        _pair(layout, step, epoch)
    assert load_newest(layout).step == 200
    _pair(layout, 2333333, 25)
    assert load_newest(layout).step == 2333333
    layout.discriminator(2333333).unlink()
    assert load_newest(layout).step == 200


def test_a_torn_foreign_pair_is_passed_over_and_never_taken_for_none(tmp_path: Path) -> None:
    layout = Layout.of("a", tmp_path)
    for step in (100, 200):
        _pair(layout, step, step // 10)
    layout.generator(200).write_bytes(layout.generator(200).read_bytes()[:300])
    assert load_newest(layout).step == 100
    _pair(layout, 100, 10, value=math.nan)
    with pytest.raises(CheckpointError, match=r"is damaged \(2 found\)"):
        load_newest(layout)


def _trained(order: str) -> tuple[torch.nn.Module, torch.optim.AdamW]:
    """Two weights that one optimizer has moved, registered in this order."""
    torch.manual_seed(0)
    network = torch.nn.ParameterDict()
    parts = {"a": torch.nn.Parameter(torch.ones(2)), "b": torch.nn.Parameter(torch.ones(3, 2))}
    for name in order:
        network.register_parameter(name, parts[name])
    optimizer = torch.optim.AdamW(network.parameters(), 0.1)
    for name, size in (("a", 1.0), ("b", 5.0)):
        parts[name].grad = torch.full_like(parts[name], size)
    optimizer.step()
    return network, optimizer


@pytest.mark.parametrize("order", ["ab", "ba"])
def test_moments_find_their_weights_by_name_whatever_order_a_program_has(order: str) -> None:
    """Applio registers its networks in another order than RVC; torch keeps moments by number."""
    network, optimizer = _trained(order)
    part = {"model": network.state_dict(), "optimizer": optimizer.state_dict()}
    part["optimizer"]["param_groups"][0]["lr"] = 7.0
    ours, fresh = _trained("ab")[0], torch.optim.AdamW(_trained("ab")[0].parameters(), 0.2)
    continue_optimizer(fresh, part, ours, "G_1.pth")
    state = fresh.state_dict()
    assert state["state"][0]["exp_avg"].tolist() == pytest.approx([0.1] * 2)
    assert state["state"][1]["exp_avg"].shape == (3, 2) and state["state"][1]["exp_avg"].mean() == pytest.approx(0.5)
    assert state["param_groups"][0]["lr"] == 0.2


@pytest.mark.parametrize("damage", ["numbers", "shape", "absent", "text"])
def test_moments_that_fit_no_weight_are_an_error(damage: str) -> None:
    network, optimizer = _trained("ab")
    part = {"model": network.state_dict(), "optimizer": optimizer.state_dict()}
    if damage == "numbers":
        part["optimizer"]["param_groups"][0]["params"] = [0]
    elif damage == "shape":
        part["optimizer"]["state"][1]["exp_avg"] = torch.zeros(7)
    else:
        part["optimizer"] = {} if damage == "absent" else "none"
    with pytest.raises(CheckpointError, match="optimizer in G_1"):
        continue_optimizer(optimizer, part, network, "G_1.pth")


def test_rvc_can_schedule_an_optimizer_that_we_saved(tmp_path: Path) -> None:
    """RVC WebUI goes on with ExponentialLR(last_epoch=epoch - 2), which asks for an initial rate in the file."""
    networks = Networks.fresh(TINY, seed=0, device=torch.device("cpu"))
    theirs = torch.optim.AdamW(networks.generator.parameters(), 1e-4, betas=(0.8, 0.99), eps=1e-9)
    theirs.load_state_dict(networks.generator_optimizer.state_dict())
    torch.optim.lr_scheduler.ExponentialLR(theirs, gamma=0.999875, last_epoch=40)
