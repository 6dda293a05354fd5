"""Trainings that are killed: each in a process forked from a server that has imported torch once."""

import io
import multiprocessing
import os
import random
import signal
import time
from pathlib import Path
from typing import Any

from rvc_core.workspace.layout import Layout

CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload(
    ["matplotlib", "torch.utils.tensorboard", "torchfcpe", "rvc_core.training.train", "tiny"]
)
_FILES_OF_A_SET = 3


def train_until_killed(
    layout: Layout, settings: dict[str, Any], *, seconds: float | None = None, write: int | None = None
) -> int | None:
    """Train the tiny voice; SIGKILL it `seconds` after its first step, or in the middle of its `write`-th file.

    Returns the steps that it had made, counted from this start; None when it came to its end before.
    """
    path = os.environ.get("PYTHONPATH", "")
    os.environ["PYTHONPATH"] = os.pathsep.join([str(Path(__file__).parent), str(Path(__file__).parents[1]), path])
    steps = CONTEXT.Value("i", 0)
    child = CONTEXT.Process(target=_train, args=(layout, settings, write, steps))
    child.start()
    os.environ["PYTHONPATH"] = path
    while seconds is not None and not steps.value and child.is_alive():
        time.sleep(0.005)
    child.join(seconds)
    child.kill()
    child.join()
    if child.exitcode == 0:
        return None
    assert child.exitcode == -signal.SIGKILL, child.exitcode
    return steps.value


def _train(layout: Layout, settings: dict[str, Any], write: int | None, steps: Any) -> None:
    from rvc_core import presets
    from rvc_core.settings import RuntimeSettings, TrainSettings
    from rvc_core.training import graphs as module
    from rvc_core.training.train import train
    from rvc_core.workspace import checkpoint
    from tiny import TINY

    presets.PRESETS["nano"] = TINY
    step = module.train_step

    def counted(*arguments: Any, **options: Any) -> Any:
        result = step(*arguments, **options)
        steps.value += 1
        return result

    module.train_step = counted
    if write is not None:
        checkpoint.torch = _Dying(checkpoint.torch, write)
    train(layout, TrainSettings.of(**settings), runtime=RuntimeSettings(threads=1))


class _Dying:
    """torch, whose `save` kills its process with half of the chosen file written; files count from 0."""

    def __init__(self, torch: Any, write: int) -> None:
        self._torch, self._left = torch, write

    def __getattr__(self, name: str) -> Any:
        return getattr(self._torch, name)

    def save(self, content: Any, path: Path) -> None:
        """Write, or die of it."""
        if self._left:
            self._left -= 1
            self._torch.save(content, path)
            return
        whole = io.BytesIO()
        self._torch.save(content, whole)
        with path.open("wb") as file:
            file.write(whole.getvalue()[: len(whole.getvalue()) // 2])
            file.flush()
            os.kill(os.getpid(), signal.SIGKILL)


def moments(kills: int, seed: int) -> list[dict[str, Any]]:
    """When to kill: half of them inside a save, of any of its files, half at any time; the same for the same seed."""
    chance = random.Random(seed)
    inside = [{"write": chance.randrange(2 * _FILES_OF_A_SET)} for _ in range(kills // 2)]
    anywhere = [{"seconds": chance.uniform(0, 0.6)} for _ in range(kills - kills // 2)]
    return chance.sample(inside + anywhere, kills)
