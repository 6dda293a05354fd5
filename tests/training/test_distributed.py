"""Two processes train as one: the same losses, one decision, one who writes, and nobody waits for ever."""

import contextlib
import functools
import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from kills import CONTEXT
from rvc_core.errors import MismatchError, RVCError
from rvc_core.progress import Silent
from rvc_core.settings import MirrorSettings, RuntimeSettings, TrainSettings
from rvc_core.storage.mirror import is_wanted
from rvc_core.system.documents import read_json
from rvc_core.system.files import write_json
from rvc_core.training import detached
from rvc_core.training.distributed import CANNOT_EXCHANGE, GONE, Ranks
from rvc_core.training.position import Caution, Position
from rvc_core.training.train import train
from rvc_core.training.trainer import Trainer
from rvc_core.workspace.checkpoint import load_newest
from rvc_core.workspace.layout import Layout
from rvc_core.workspace.metrics import history
from tiny import TINY, AfterSteps, experiment

TESTS = Path(__file__).parents[1]
FEW = {
    "save_every_epochs": 100,
    "validate_every_epochs": 100,
    "base_generator": "none",
    "base_discriminator": "none",
    "seed": 7,
}
ON_CPU = RuntimeSettings(threads=1, device="cpu")


def _be(rank: int, port: int, layout: Layout, settings: dict[str, Any], stop_after: int, silent: str) -> None:
    """What one of two processes does; it complains into a file."""
    from rvc_core import presets
    from rvc_core.training import distributed

    presets.PRESETS["nano"] = TINY
    os.dup2(os.open(layout.root / f"complaints{rank}", os.O_WRONLY | os.O_CREAT), 2)
    os.environ |= {"RANK": str(rank), "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    if silent == "at first":
        distributed._FIRST_SECONDS = 0.5
        if rank == 1:
            distributed._refuse_unconnected = lambda *_: time.sleep(60)
    if silent == "in a step":
        distributed._STEP_SECONDS["cpu"] = 3.0
        if rank == 1:
            Ranks.add = lambda *_: time.sleep(60)
    train(layout, TrainSettings.of(**settings), runtime=ON_CPU, stop=AfterSteps(stop_after))


def _train_two(
    layouts: tuple[Layout, Layout],
    settings: dict[str, Any],
    *,
    stops: tuple[int, int] = (9999, 9999),
    silent: str = "",
) -> list[int | None]:
    """Exit codes of two processes that train together."""
    port, path = _free_port(), os.environ.get("PYTHONPATH", "")
    os.environ["PYTHONPATH"] = os.pathsep.join([str(TESTS), str(TESTS.parent), path])
    children = [
        CONTEXT.Process(target=_be, args=(rank, port, layouts[rank], settings, stops[rank], silent))
        for rank in range(2)
    ]
    for child in children:
        child.start()
    os.environ["PYTHONPATH"] = path
    children[0].join(200)
    for child in children:
        child.join(0 if silent else 100)
        child.kill()
        child.join()
    return [child.exitcode for child in children]


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def _worst(*layouts: Layout) -> float:
    """Largest relative difference of two trainings' losses, step by step."""
    ours, theirs = ([row for row in history(layout) if row["kind"] == "step"] for layout in layouts)
    assert [row["step"] for row in ours] == [row["step"] for row in theirs] == [*range(1, 11)]
    return max(
        abs(mine[tag] - other[tag]) / max(1e-3, abs(other[tag]))
        for mine, other in zip(ours, theirs, strict=True)
        for tag in other
        if tag.startswith("loss")
    )


@pytest.fixture
def one(tiny: None, tmp_path: Path) -> Layout:
    """Ten steps of one process: five clips in batches of four, so that of two processes one is idle in every second."""
    layout = experiment(tmp_path, "one")
    train(layout, TrainSettings.of(**FEW, batch_size=4, epochs=5), runtime=ON_CPU)
    return layout


def test_two_processes_have_the_losses_of_one_and_write_one_experiment(one: Layout, tmp_path: Path) -> None:
    two = experiment(tmp_path, "two")
    assert _train_two((two, two), {**FEW, "batch_size": 2, "epochs": 5}) == [0, 0]
    assert _worst(two, one) < 1e-5
    assert [path.name for path in two.voices()] == ["two_e5_s10.pth", "two.pth"]
    assert len([*two.root.glob("events.*")]) == 1 and len(read_json(two.checkpoints, object)) == 1


def test_who_is_asked_to_stop_stops_both_and_one_goes_on_alone(one: Layout, tmp_path: Path) -> None:
    two = experiment(tmp_path, "two")
    assert _train_two((two, two), {**FEW, "batch_size": 2, "epochs": 5}, stops=(9999, 3)) == [0, 0]
    assert load_newest(two).step == 3
    report = train(two, TrainSettings.of(**FEW, batch_size=4, epochs=5), runtime=ON_CPU)
    assert (report.resumed_from, report.steps) == (3, 10) and _worst(two, one) < 1e-5


def test_two_machines_with_different_experiments_are_told(tiny: None, tmp_path: Path) -> None:
    both = experiment(tmp_path, "here"), experiment(tmp_path, "there", clips=4)
    assert _train_two(both, {**FEW, "epochs": 1}) == [1, 1]
    for rank, layout in enumerate(both):
        assert "do not have the same experiment" in (layout.root / f"complaints{rank}").read_text()
        assert not layout.metrics.exists()


@pytest.mark.parametrize("silent", ["at first", "in a step"])
def test_a_process_that_does_not_answer_is_not_waited_for(tiny: None, tmp_path: Path, silent: str) -> None:
    layout = experiment(tmp_path)
    assert _train_two((layout, layout), {**FEW, "epochs": 1}, silent=silent)[0] == 1
    [line] = [line for line in (layout.root / "complaints0").read_text().splitlines() if CANNOT_EXCHANGE in line]
    assert "What to do: " in line


SILENT = """
print("try", processes, os.environ.get("NCCL_P2P_DISABLE"), flush=True)
if processes == "2":
    print("%s", *range(100), sep="\\n")
    record(error="%s", kind="RVCError", hint="")
    sys.exit(1)
record(report=%r)
"""


NCCL = "[rank1]:[E] [PG ID 0] ProcessGroupNCCL's watchdog got stuck; terminate called after an exception"


@pytest.mark.parametrize(
    ("line", "error", "tries"),
    [
        (CANNOT_EXCHANGE, "the first sum", ["try 2 None", "try 2 1", "try 1 None"]),
        (NCCL, f"{GONE}: NCCL error", ["try 2 None", "try 2 1", "try 1 None"]),
        (NCCL, "clip 3_0 is empty", ["try 2 None"]),
    ],
)
def test_gpus_that_cannot_exchange_data_end_as_one(
    tiny: None,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    pretend: Callable[[str], None],
    line: str,
    error: str,
    tries: list[str],
) -> None:
    """Of one with an error of its own, the others' failing sums are no reason to try again."""
    layout = experiment(tmp_path)
    layout.final_voice.write_bytes(b"voice")
    write_json(layout.checkpoints, [{"step": 3, "epoch": 1, "sha256": {}}])
    report = {"steps": 3, "voice": str(layout.final_voice), "heldout_mel_first": None, "heldout_mel_last": None}
    pretend(SILENT % (line, error, report))
    monkeypatch.setattr(detached, "count_gpus", lambda: 2)
    assert detached.start(layout, TrainSettings.of(**FEW))
    if len(tries) == 1:
        with pytest.raises(RVCError, match=error):
            detached.watch(layout)
    else:
        assert detached.watch(layout) == report
        assert read_json(layout.run, object)["note"].endswith("goes on with one of them")
    log = layout.log.read_text().splitlines()
    assert [row for row in log if row.startswith("try")] == tries
    assert sum("GPUs cannot exchange data:" in row for row in log) == len(tries) - 1


@pytest.mark.parametrize(
    ("device", "gpus", "there", "processes"),
    [("auto", 0, 2, 2), ("auto", 1, 2, 1), ("auto", 0, 0, 1), ("cuda", 0, 4, 4), ("cuda:1", 0, 2, 1), ("cpu", 0, 2, 1)],
)
def test_one_process_for_each_gpu(
    monkeypatch: pytest.MonkeyPatch, device: str, gpus: int, there: int, processes: int
) -> None:
    monkeypatch.setattr(detached, "count_gpus", lambda: there)
    assert detached._processes(RuntimeSettings(device=device, gpus=gpus)) == processes


def test_machines_whose_folders_differ_do_not_go_back_to_different_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only the first writes checkpoints; one with a folder of its own finds none there."""
    told = []

    class Two(Ranks):
        def refuse_different(self, mine: Any) -> None:
            told.append(mine)
            raise MismatchError("the machines do not have the same experiment")

    trainer = Trainer.__new__(Trainer)
    trainer.ranks, trainer.position, trainer.caution = Two(), Position(step=9, epoch=2), Caution()
    monkeypatch.setattr(trainer, "settle", lambda wait: None, raising=False)
    monkeypatch.setattr(trainer, "return_to_checkpoint", lambda: setattr(trainer.position, "step", 6))
    with pytest.raises(MismatchError):
        trainer.recover()
    assert told == [(6, 2, 0)] and trainer.caution.factor == 1


def test_of_several_machines_only_the_first_saves_elsewhere(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    wanted = functools.partial(is_wanted, Layout(tmp_path / "logs" / "a", "a"), MirrorSettings(mirror=str(tmp_path)))
    assert wanted()
    monkeypatch.setenv("RANK", "1")
    assert not wanted()


class _Listening(Silent):
    def __init__(self) -> None:
        self.lines: list[str] = []

    def say(self, line: str) -> None:
        self.lines.append(line)


@pytest.mark.slow
def test_the_keeper_runs_two_trainers(tiny: None, tmp_path: Path, one: Layout, monkeypatch: pytest.MonkeyPatch) -> None:
    two, said = experiment(tmp_path, "two"), _Listening()
    monkeypatch.setattr(detached, "_MODULE", "tiny_trainer")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(TESTS), os.environ.get("PYTHONPATH", "")]))
    assert detached.start(two, TrainSettings.of(**FEW, batch_size=2, epochs=5), ON_CPU, processes=2)
    assert detached.watch(two, said)["steps"] == 10 and _worst(two, one) < 1e-5
    assert "2 × 2 = 4 clips a step" in said.lines[0]


@pytest.mark.slow
def test_two_machines_meet_by_torchrun(one: Layout, tmp_path: Path) -> None:
    """Two agents on loopback, each with a home of its own that holds a copy of the experiment."""
    port, agents = _free_port(), []
    homes = [tmp_path / name for name in ("first machine", "second machine")]
    twos = [experiment(home, "two") for home in homes]
    options = [f"--{name.replace('_', '-')}={value}" for name, value in {**FEW, "batch_size": 2, "epochs": 5}.items()]
    for home in homes:
        agents.append(
            subprocess.Popen(
                [
                    sys.executable,
                    "-m",
                    "torch.distributed.run",
                    "--nnodes=2",
                    "--rdzv-backend=c10d",
                    f"--rdzv-endpoint=127.0.0.1:{port}",
                    "-m",
                    "tiny_trainer",
                    "rvc",
                    "train",
                    "two",
                    "--foreground",
                    "--json",
                    "--device=cpu",
                    "--threads=1",
                    *options,
                ],
                stdout=subprocess.PIPE,
                text=True,
                env={**os.environ, "RVC_HOME": str(home), "PYTHONPATH": os.pathsep.join([str(TESTS), *sys.path])},
            )
        )
    with contextlib.ExitStack() as stack:
        for agent in agents:
            stack.callback(agent.kill)
        answers = [json.loads(agent.communicate(timeout=300)[0].splitlines()[-1]) for agent in agents]
    assert [agent.returncode for agent in agents] == [0, 0] and {answer["steps"] for answer in answers} == {10}
    written = [two for two in twos if two.checkpoints.exists()]
    assert len(written) == 1 and _worst(written[0], one) < 1e-5
