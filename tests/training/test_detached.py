"""The detached trainer: it outlives who began it, is never begun twice, and nobody calls a failure a success."""

import fcntl
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from rvc_core.cli import main
from rvc_core.errors import ResourceError, RVCError, StageOrderError, WeightsError
from rvc_core.progress import Silent
from rvc_core.settings import TrainSettings
from rvc_core.system.documents import read_json
from rvc_core.system.files import sha256_of, write_json
from rvc_core.system.platforms import started_ticks
from rvc_core.training import detached
from rvc_core.training.beacon import Beacon, stalled
from rvc_core.workspace.checkpoint import load_newest
from rvc_core.workspace.layout import Layout
from rvc_core.workspace.metrics import history
from rvc_core.workspace.voice_file import load_voice
from tiny import experiment

TESTS = Path(__file__).parents[1]
SETTINGS = TrainSettings.of(
    epochs=2000, batch_size=2, save_every_epochs=100, base_generator="none", base_discriminator="none"
)
REPORT = {
    "epochs": 1,
    "steps": 3,
    "stopped_by": "epochs",
    "resumed_from": None,
    "voice": "",
    "seconds": 1.0,
    "heldout_mel_first": 2.0,
    "heldout_mel_last": 1.0,
}
Pretend = Callable[[str], None]


@pytest.fixture
def layout(tmp_path: Path, tiny: None) -> Layout:
    return experiment(tmp_path)


@pytest.fixture
def tiny_trainer(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the real trainer train the tiny voice."""
    monkeypatch.setattr(detached, "_MODULE", "tiny_trainer")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(TESTS), os.environ.get("PYTHONPATH", "")]))


class _Listening(Silent):
    def __init__(self) -> None:
        self.lines: list[str] = []

    def say(self, line: str) -> None:
        self.lines.append(line)


def _until(true: Callable[[], object], seconds: float = 120) -> None:
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline, "it never came true"
        time.sleep(0.02)


# -- the real trainer ----------------------------------------------------------------------------------------------
STARTER = """
import sys, time
from pathlib import Path
from rvc_core.training import detached
from rvc_core.training.beacon import Beacon, stalled
from rvc_core.workspace.layout import Layout
from rvc_core.settings import RuntimeSettings, TrainSettings
detached._MODULE = "tiny_trainer"
layout = Layout(Path(sys.argv[1]), "tiny")
assert detached.start(layout, TrainSettings.of(**%r), RuntimeSettings(threads=1))
detached.watch(layout)
"""


def test_training_outlives_who_began_it_and_stops_when_told(layout: Layout, tiny_trainer: None) -> None:
    starter = subprocess.Popen(
        [sys.executable, "-c", STARTER % SETTINGS.model_dump(), str(layout.root)],
        start_new_session=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        stderr=subprocess.DEVNULL,
    )
    _until(lambda: layout.beacon.exists() and read_json(layout.beacon, object)["done"] > 2)
    os.killpg(starter.pid, signal.SIGINT)  # as a notebook's Stop button, and then its restart
    time.sleep(0.1)
    os.killpg(starter.pid, signal.SIGKILL)
    starter.wait()
    assert detached.is_running(layout)
    assert not detached.start(layout, SETTINGS) and detached.differing(layout, SETTINGS) == []
    assert detached.differing(layout, TrainSettings.of(epochs=2000, batch_size=2)) == [], "what is not given is kept"
    assert detached.differing(layout, TrainSettings.of(epochs=2001, base_generator="auto", seed=1234)) == [
        "epochs",
        "base_generator",
    ]
    assert detached.stop(layout)
    said = _Listening()
    report = detached.watch(layout, said)
    assert report["stopped_by"] == "stop" and report["steps"] == load_newest(layout).step > 2
    assert load_voice(Path(report["voice"])).info.step == report["steps"]
    assert "starting from random weights" in said.lines[0]
    assert [row["step"] for row in history(layout) if row["kind"] == "step"] == [*range(1, report["steps"] + 1)]
    record = read_json(layout.run, object)
    assert (record["state"], record["exit_code"], record["host"]) == ("done", 0, socket.gethostname())
    assert not detached.is_running(layout) and not detached.stop(layout) and not layout.stop.exists()
    assert detached.watch(layout) == report  # asked again later, by anybody


def test_an_error_of_the_trainer_is_the_watchers_own(layout: Layout, tiny_trainer: None) -> None:
    settings = SETTINGS.model_copy(update={"base_generator": "/nowhere/f0G40k.pth"})
    assert detached.start(layout, settings)
    with pytest.raises(WeightsError, match="f0G40k.pth") as caught:
        detached.watch(layout)
    assert "--base-generator" in caught.value.hint and read_json(layout.run, object)["exit_code"] == 1


@pytest.mark.slow
def test_several_trainers_are_run_by_torch(layout: Layout, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "ranks.py").write_text(
        "import os, sys; from rvc_core.training import detached; detached._MODULE = 'ranks'\n"
        "if sys.argv[1] == 'keep': sys.exit(detached.main(sys.argv[1:]))\n"
        "print('rank', os.environ['RANK'], 'of', os.environ['WORLD_SIZE']); sys.exit(3)"
    )
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setattr(detached, "_MODULE", "ranks")
    assert detached.start(layout, SETTINGS, processes=2)
    with pytest.raises(RVCError, match="training failed"):
        detached.watch(layout)
    assert {"rank 0 of 2", "rank 1 of 2"} <= set(layout.log.read_text().splitlines())


# -- what the keeper makes of an end -------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("lines", "cause"),
    [
        ("os.kill(os.getpid(), signal.SIGKILL)", "lack of memory"),
        ("os.kill(os.getpid(), signal.SIGSEGV)", "compiled library"),
        ("sys.exit('exitcode  : -9 (pid: 77)')", "lack of memory"),
        ("sys.exit('OSError: [Errno 28] No space left on device')", "disk is full"),
        ("sys.exit('torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB')", "GPU's memory ran out"),
        ("sys.exit('RuntimeError: No CUDA GPUs are available')", "GPU cannot be used"),
        ("import no_such_package", "package is missing"),
        ("sys.exit(7)", "status 7"),
        ("sys.exit(0)", "without a result"),
    ],
)
def test_a_failure_is_told_with_its_cause_and_its_last_lines(
    layout: Layout, pretend: Pretend, lines: str, cause: str
) -> None:
    layout.log.write_text("Segmentation fault of an earlier run\n")
    pretend("for n in range(60): print('line', n, flush=True)\n" + lines)
    assert detached.start(layout, SETTINGS)
    said = _Listening()
    with pytest.raises(RVCError, match=cause) as caught:
        detached.watch(layout, said)
    assert caught.value.hint and len(said.lines) <= 40 and "    line 59" in said.lines
    assert not any("earlier run" in line for line in said.lines)
    with pytest.raises(RVCError, match=cause):  # it stays a failure for who asks later
        detached.watch(layout)


@pytest.mark.parametrize("damage", ["none", "checkpoint", "voice", "loss", "status"])
def test_done_needs_a_whole_checkpoint_a_voice_and_finite_losses(layout: Layout, pretend: Pretend, damage: str) -> None:
    for path in (layout.generator(3), layout.final_voice):
        path.write_bytes(b"weights")
    digest = "9ba5fc1d7ec7bf8a" if damage == "checkpoint" else sha256_of(layout.generator(3))
    write_json(layout.checkpoints, [{"step": 3, "epoch": 1, "sha256": {"G_3.pth": digest}}])
    report = REPORT | {"voice": str(layout.final_voice)}
    if damage == "loss":
        report["heldout_mel_last"] = float("nan")
    if damage == "voice":
        layout.final_voice.unlink()
    pretend(f"nan = float('nan'); record(report={report!r}); sys.exit({int(damage == 'status')})")
    detached.start(layout, SETTINGS)
    if damage == "none":
        assert detached.watch(layout) == report
    else:
        with pytest.raises(RVCError, match="training failed"):
            detached.watch(layout)


def test_a_stall_is_said_once_by_the_log_and_by_who_watches(layout: Layout, pretend: Pretend) -> None:
    pretend(
        "beacon = {'label': 'training', 'total': 9, 'done': 1, 'note': '', 'said': 0, 'lines': [],"
        " 'usual_seconds': 2.0, 'time': time.time() - 60}\n"
        "layout.beacon.write_text(json.dumps(beacon)); time.sleep(2); sys.exit(1)"
    )
    detached.start(layout, SETTINGS)
    said = _Listening()
    with pytest.raises(RVCError):
        detached.watch(layout, said)
    for lines in (said.lines, layout.log.read_text().splitlines()):
        assert len([line for line in lines if line.startswith("training: no step for 6")]) == 1


def test_what_is_usual_for_steps_is_not_for_what_comes_after_them(layout: Layout) -> None:
    beacon = Beacon(layout.beacon, Silent())
    beacon.start("training", 2)
    beacon.advance()
    beacon.advance()
    state = read_json(layout.beacon, object)
    assert stalled(state, state["time"] + 70)
    beacon.start("saving and opening again", 1)
    assert not stalled(read_json(layout.beacon, object), state["time"] + 70)


# -- who is alive --------------------------------------------------------------------------------------------------
def test_ten_who_ask_at_once_begin_one_training(layout: Layout, pretend: Pretend) -> None:
    pretend("time.sleep(60)")
    with ThreadPoolExecutor(10) as pool:
        begun = [*pool.map(lambda _: detached.start(layout, SETTINGS), range(10))]
    keeper = read_json(layout.run, object)["pid"]
    os.killpg(keeper, signal.SIGKILL)  # the keeper's session: it and its trainer
    assert sum(begun) == 1
    _until(lambda: not detached.is_running(layout))


def test_a_training_whose_keeper_was_killed_is_still_found_and_judged(
    layout: Layout, pretend: Pretend, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(detached, "_BEGIN_SECONDS", 0.1)
    pretend(
        "lock = layout.lock.open('a'); fcntl.flock(lock, fcntl.LOCK_EX); (layout.root / 'up').touch()\n"
        "while not layout.stop.exists(): time.sleep(0.02)\nsys.exit('CUDA out of memory')"
    )
    detached.start(layout, SETTINGS)
    _until((layout.root / "up").exists)
    os.kill(read_json(layout.run, object)["pid"], signal.SIGKILL)
    _until(lambda: not detached._keeper_lives(layout))
    assert detached.is_running(layout) and not detached.start(layout, SETTINGS)
    assert detached.stop(layout)
    with pytest.raises(RVCError, match="memory ran out"):
        detached.watch(layout)


def test_a_number_that_another_process_has_now_is_no_training(layout: Layout) -> None:
    mine = {
        "pid": os.getpid(),
        "host": socket.gethostname(),
        "started_ticks": started_ticks(os.getpid()),
        "state": "running",
        "log_begins": 0,
    }
    write_json(layout.run, mine)
    assert detached.is_running(layout)
    for change in ({"started_ticks": 1}, {"host": "another machine"}, {"pid": 2**22 + 1}):
        write_json(layout.run, mine | change)
        assert not detached.is_running(layout)
    with pytest.raises(RVCError, match="without a result"):
        detached.watch(layout)


def test_nothing_is_begun_beside_a_training_in_the_foreground_or_without_data(
    layout: Layout, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(detached, "_BEGIN_SECONDS", 0.1)
    with layout.lock.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        with pytest.raises(ResourceError, match="being trained already"):
            detached.start(layout, SETTINGS)
    with pytest.raises(StageOrderError, match="no training"):
        detached.watch(layout)
    layout.filelist.unlink()
    with pytest.raises(StageOrderError, match="not extracted"):
        detached.start(layout, SETTINGS)
    assert not layout.run.exists()


def test_the_command_line_begins_watches_and_stops(
    layout: Layout, pretend: Pretend, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def answer(*command: str) -> dict[str, object]:
        assert main([*command, "--json", "--quiet"]) == 0
        return json.loads(capsys.readouterr().out.splitlines()[-1])

    monkeypatch.setenv("RVC_HOME", str(layout.root.parents[1]))
    assert answer("stop", "tiny") == {"running": False}
    write_json(layout.checkpoints, [{"step": 3, "epoch": 1, "sha256": {}}])
    layout.final_voice.write_bytes(b"voice")
    pretend(
        "while not layout.stop.exists(): time.sleep(0.02)\n"
        f"record(report={REPORT | {'voice': str(layout.final_voice)}!r})"
    )
    with monkeypatch.context() as patch:
        patch.setattr(time, "sleep", _interrupt)  # Ctrl-C in the one who watches
        shown = answer("train", "tiny", "--epochs", "9")
    assert shown["running"] and shown["to_end_it"] == "rvc stop tiny" and detached.is_running(layout)
    assert answer("stop", "tiny")["steps"] == 3


def _interrupt(seconds: float) -> None:
    raise KeyboardInterrupt
