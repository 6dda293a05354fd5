"""Two processes train as one: the same losses, one decision, one who writes, and nobody waits for ever."""

import multiprocessing
import os
import socket
import time
from pathlib import Path
from typing import Any

import pytest
import torch

from kills import CONTEXT
from rvc_core import ranks as ranks_module
from rvc_core.checkpoint import load_newest
from rvc_core.layout import Layout
from rvc_core.metrics import history
from rvc_core.progress import Stop
from rvc_core.settings import RuntimeSettings, TrainSettings
from rvc_core.train import train
from tiny import TINY, experiment

FEW = {"save_every_epochs": 100, "validate_every_epochs": 100, "base_generator": "none", "base_discriminator": "none",
       "seed": 7}


class _AfterSteps(Stop):
    def __init__(self, steps: int) -> None:
        super().__init__()
        self.left = steps

    @property
    def requested(self) -> bool:
        self.left -= 1
        return self.left < 0


def _rank(rank: int, port: int, layout: Layout, settings: dict[str, Any], stop_after: int | None) -> None:
    """What one of two processes does."""
    from rvc_core import presets

    presets.PRESETS["nano"] = TINY
    os.environ |= {"RANK": str(rank), "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    train(layout, TrainSettings.of(**settings), runtime=RuntimeSettings(threads=1, device="cpu"),
          stop=None if stop_after is None else _AfterSteps(stop_after))


def _begin(rank: int, *arguments: Any) -> multiprocessing.Process:
    path = os.environ.get("PYTHONPATH", "")
    os.environ["PYTHONPATH"] = os.pathsep.join([str(Path(__file__).parent), str(Path(__file__).parents[1]), path])
    child = CONTEXT.Process(target=_rank, args=(rank, *arguments))
    child.start()
    os.environ["PYTHONPATH"] = path
    return child


def _port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def _train_two(layouts: tuple[Layout, Layout], settings: dict[str, Any], stops: tuple[int | None, int | None] = (
        None, None)) -> list[int | None]:
    port = _port()
    children = [_begin(rank, port, layouts[rank], settings, stops[rank]) for rank in range(2)]
    for child in children:
        child.join(100)
        child.kill()
    return [child.exitcode for child in children]


def test_two_processes_have_the_losses_of_one_and_write_one_experiment(tiny: None, tmp_path: Path) -> None:
    """Five clips in batches of four: in every second step, one of the two has nothing to do."""
    one, two = experiment(tmp_path, "one"), experiment(tmp_path, "two")
    train(one, TrainSettings.of(**FEW, batch_size=4, epochs=5), runtime=RuntimeSettings(threads=1))
    assert _train_two((two, two), {**FEW, "batch_size": 2, "epochs": 5}) == [0, 0]
    ours, theirs = ([row for row in history(layout) if row["kind"] == "step"] for layout in (two, one))
    assert [row["step"] for row in ours] == [*range(1, 11)]
    worst = max(abs(mine[tag] - other[tag]) / max(1, abs(other[tag])) for mine, other in zip(ours, theirs, strict=True)
                for tag in other if tag.startswith("loss"))
    assert worst < 1e-5
    assert load_newest(two).state["clips_per_step"] == load_newest(one).state["clips_per_step"] == 4
    assert len([*two.root.glob("events.*")]) == 1 and [path.name for path in two.voices()] == ["two_e5_s10.pth",
                                                                                             "two.pth"]
