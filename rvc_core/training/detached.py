"""Training in a process of its own: begun detached, watched by anybody, ended by a file, and judged when it is over.

Three processes take part. Whoever asks, a command line or a notebook's kernel, may go away at any time. The keeper, in
a process session of its own that no Ctrl-C and no restart of a kernel reaches, waits without torch for the trainer, and
writes into ``run.json`` how that ended. The trainer trains; several of them, one for each GPU, are run by
``torch.distributed.run``; if GPUs cannot exchange data, training goes on with one. What they print is in
``train.log``, where they are in ``progress.json``.
"""

import contextlib
import json
import os
import re
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, BinaryIO

from typing_extensions import TypedDict

from .. import errors
from ..errors import ResourceError, RVCError, SettingsError, StageOrderError
from ..preparation.identity import kept_training
from ..progress import Beside, Progress, Silent, Stop, Terminal
from ..settings import MirrorSettings, RuntimeSettings, TrainSettings
from ..storage.mirror import is_wanted, mirroring, told, trouble
from ..system.devices import count_gpus
from ..system.documents import parsed
from ..system.files import write_json
from ..system.inside import open_inside
from ..system.locks import holder, locked
from ..system.platforms import child_environment, started_ticks
from ..workspace.layout import Layout, typed
from ..workspace.manifest import ExperimentRecord
from ..workspace.stage_locks import refuse_disturbance
from .beacon import Beacon, Follower, read_state, stalled
from .distributed import CANNOT_EXCHANGE, GONE
from .outcome import judged, log_of, run_record

_MODULE = "rvc_core.training.detached"
_LOOK_SECONDS = 0.5
_BEGIN_SECONDS = 5.0
_NO_EXCHANGE = "the GPUs cannot exchange data"
_NCCL_FAILURE = re.compile(r"NCCL error|DistBackendError|ProcessGroupNCCL.*(exception|timeout|terminat)", re.IGNORECASE)


class Order(TypedDict):
    """What the keeper is asked to do, from process to process."""

    settings: TrainSettings
    runtime: RuntimeSettings
    mirror: MirrorSettings
    processes: int


# -- for whoever asks ----------------------------------------------------------------------------------------------
def start(
    layout: Layout,
    settings: TrainSettings,
    runtime: RuntimeSettings = RuntimeSettings(),
    *,
    mirror: MirrorSettings = MirrorSettings(),
    processes: int | None = None,
) -> bool:
    """Begin training in the background, unless it is going on already.

    Parameters
    ----------
    layout : Layout
        An experiment whose features were extracted.
    processes : int, optional
        Trainers; by default one for each GPU, of as many as `runtime` says.

    Returns
    -------
    bool
        Whether it was begun here. False: it goes on since before, with the settings that it was begun with.

    Raises
    ------
    StageOrderError
        When there is nothing to train on.
    ResourceError
        When another program trains this voice in the foreground.
    SettingsError
        When there are not that many GPUs.
    """
    settings, processes = kept_training(layout, settings), processes or _processes(runtime)
    is_wanted(layout, mirror)  # a place that means nothing is refused now
    _refuse_unready(layout)
    refuse_disturbance(layout, "train")
    with open_inside(layout.lock, "ab") as lock:  # two that ask at once: the second finds what the first began
        free = _locked_soon(layout, lock)
        if _keeper_lives(layout) or (not free and run_record(layout).get("state") == "running"):
            return False
        if not free:
            raise ResourceError(
                f"{layout.name!r} is being trained already",
                hint=f"wait for it, or end it with: rvc stop {typed(layout.name)}",
            )
        keeper, begins = _begin_keeper(layout)
        record = {
            "pid": keeper.pid,
            "started_ticks": started_ticks(keeper.pid),  # with the number, it is one process of all that ever ran
            "host": socket.gethostname(),
            "began": time.strftime("%Y-%m-%d %H:%M:%S"),
            "log_begins": begins,
            "settings": settings.stamp(),
            "state": "running",
        }
        write_json(layout.run, record)
    order = {"settings": settings.stamp(), "runtime": runtime.stamp(), "mirror": mirror.stamp()}
    assert keeper.stdin is not None
    with contextlib.suppress(BrokenPipeError), keeper.stdin as stdin:  # the keeper waits for its end
        stdin.write(json.dumps(order | {"processes": processes}).encode())
    return True


def _refuse_unready(layout: Layout) -> None:
    ExperimentRecord.load(layout)
    if not layout.filelist.is_file():
        raise StageOrderError(
            f"{layout.filelist} is missing: features were not extracted",
            hint=f"run: rvc extract {typed(layout.name)}",
        )


def _begin_keeper(layout: Layout) -> "tuple[subprocess.Popen[bytes], int]":
    """The keeper's process, which waits for the end of its input, and where its part of the log begins."""
    for leftover in (layout.stop, layout.beacon):
        leftover.unlink(missing_ok=True)
    with open_inside(layout.log, "ab") as log:
        begins = log.tell()
        return subprocess.Popen(
            [sys.executable, *_call("keep", layout)],
            stdin=subprocess.PIPE,
            stdout=log,
            stderr=log,
            env=child_environment(),
            start_new_session=True,
        ), begins


def _processes(runtime: RuntimeSettings) -> int:
    """As many as GPUs are wanted; one on the CPU, or on a GPU that was chosen by its number."""
    if runtime.device not in ("auto", "cuda"):
        return 1
    there = count_gpus()
    if runtime.gpus > max(1, there):
        raise SettingsError(f"gpus: {runtime.gpus} are asked for, and there are {there}", hint="0 takes all of them")
    return max(1, runtime.gpus or there)


def _locked_soon(layout: Layout, lock: BinaryIO) -> bool:
    """Take the lock, or wait until whoever took it to begin a training has begun."""
    deadline = time.monotonic() + _BEGIN_SECONDS
    while True:
        if locked(lock):
            return True
        if _keeper_lives(layout) or time.monotonic() > deadline:
            return False
        time.sleep(0.05)


def _keeper_lives(layout: Layout) -> bool:
    record = run_record(layout)
    return (
        record.get("state") == "running"
        and record["host"] == socket.gethostname()
        and started_ticks(record["pid"]) == record.get("started_ticks", 0)
        and record.get("started_ticks") is not None
    )


def is_running(layout: Layout) -> bool:
    """Whether somebody trains this voice: the keeper of ``run.json``, or whoever holds the lock."""
    return _keeper_lives(layout) or bool(holder(layout.lock))


def watch(layout: Layout, progress: Progress = Silent()) -> Any:
    """Show the training until it ends, and return its report; interrupting this leaves the training alone.

    Raises
    ------
    StageOrderError
        When none was begun here.
    RVCError
        Of the class that training raised, or with the cause that its log and its end tell.
    """
    if not run_record(layout):
        raise StageOrderError(f"no training of {layout.name!r} was begun", hint=f"run: rvc train {typed(layout.name)}")
    follower, known = Follower(layout.beacon, Beside(progress, lambda: told(layout))), ""
    while is_running(layout):
        follower.look()
        if (problem := trouble(layout)) != known:
            progress.say(problem or told(layout))
            known = problem
        time.sleep(_LOOK_SECONDS)
    follower.look()
    record = run_record(layout)
    if record.get("state") == "running":  # its keeper was killed too, so nobody has judged yet
        record = judged(layout, None)
    if record.get("state") == "done" and "report" in record:
        return record["report"]
    for line in record.get("log", []):
        progress.say("    " + line)
    kinds = {kind.__name__: kind for kind in vars(errors).values() if isinstance(kind, type)}
    problem = record.get("error", f"{layout.run} does not say how training ended")
    raise kinds.get(record.get("kind", ""), RVCError)(problem, hint=record.get("hint", f"look at {layout.log}"))


def stop(layout: Layout) -> bool:
    """Ask the training to save and end; False when none is going on."""
    running = is_running(layout)
    if running:
        open_inside(layout.stop, "ab").close()
    return running


def differing(layout: Layout, settings: TrainSettings) -> list[str]:
    """Names of the given settings that the training that goes on does not use."""
    before, wanted = run_record(layout).get("settings", {}), settings.model_dump(mode="json", exclude_unset=True)
    return [name for name in wanted if before.get(name) != wanted[name]]


def _command(layout: Layout, order: str, processes: int) -> list[str]:
    """How trainers are run; torch's agent costs a second and a half to start, so one trainer goes without."""
    agent = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes)]
    return [sys.executable, *(agent if processes > 1 else []), *_call("work", layout), order]


def _call(role: str, layout: Layout) -> list[str]:
    return ["-m", _MODULE, role, str(layout.root), layout.name]


# -- the keeper ----------------------------------------------------------------------------------------------------
def _keep(layout: Layout) -> int:
    """Run the trainer, or several, or one in their place, and write down how that ended."""
    text = sys.stdin.read()  # from `start`; nothing is run from a file that others may write
    order: Order = parsed(text, Order)
    command = _command(layout, text, order["processes"])
    with mirroring(layout, order["mirror"], _log):
        exit_code = _run(layout, command)
        if exit_code and _lacks_exchange(layout):
            _change(layout, f"{_NO_EXCHANGE}: they try again without direct transfers (NCCL_P2P_DISABLE=1)")
            exit_code = _run(layout, command, NCCL_P2P_DISABLE="1")
        if exit_code and _lacks_exchange(layout):
            _change(layout, f"{_NO_EXCHANGE}: training goes on with one of them")
            exit_code = _run(layout, _command(layout, text, 1))
    record = judged(layout, exit_code)
    _log(f"ended: {record['state']}" + (f": {record['error']}" if "error" in record else ""))
    with contextlib.suppress(RVCError, OSError):  # a disk that refuses this: whoever watches judges for itself
        write_json(layout.run, record)
    return 0 if record["state"] == "done" else 1


def _lacks_exchange(layout: Layout) -> bool:
    """Whether training ended because GPUs could not exchange data, and not by an error that one of them knows of."""
    log, error = log_of(layout), run_record(layout).get("error", GONE)
    return any(CANNOT_EXCHANGE in line for line in log) or (GONE in error and any(map(_NCCL_FAILURE.search, log)))


def _change(layout: Layout, note: str) -> None:
    """Say what is tried now, also to whoever watches, and forget what the try before left."""
    _log(note)
    record = {key: value for key, value in run_record(layout).items() if key not in ("error", "kind", "hint")}
    write_json(layout.run, record | {"note": note, "log_begins": layout.log.stat().st_size})


def _run(layout: Layout, command: list[str], **environment: str) -> int:
    """Run the trainer to its end, and say when it stalls."""
    trainer = subprocess.Popen(command, stdin=subprocess.DEVNULL, env={**os.environ, **environment})
    told_of = ""
    while trainer.poll() is None:
        with contextlib.suppress(subprocess.TimeoutExpired):
            trainer.wait(_LOOK_SECONDS)
        if state := read_state(layout.beacon):
            stall = stalled(state)
            if stall and not told_of:
                _log(stall)
            told_of = stall
    return trainer.returncode


def _log(line: str) -> None:
    with contextlib.suppress(OSError):
        sys.stderr.write(line + "\n")
        sys.stderr.flush()


# -- the trainer ---------------------------------------------------------------------------------------------------
def _work(layout: Layout, order: Order) -> int:
    """Train, and write the report, or the error, into ``run.json``."""
    record = run_record(layout)
    from .train import train

    asked = Stop()
    if layout.stop.exists():  # since torch is loaded: training would take it for an old one
        asked.request()
    first = os.environ.get("RANK", "0") == "0"
    progress = Beacon(layout.beacon, Terminal(line_every_seconds=60)) if first else Terminal()
    result: dict[str, Any]
    try:
        if first and "note" in record:
            progress.say(record["note"])
        result = {
            "report": train(
                layout, order["settings"], runtime=order["runtime"], progress=progress, stop=asked
            ).as_json()
        }
    except RVCError as error:
        result = {"kind": type(error).__name__, "error": str(error), "hint": error.hint}
        _log(f"{error}\n     {error.hint}")  # who watches is told by an error of its own
    with contextlib.suppress(RVCError, OSError):
        if "error" not in (now := run_record(layout)) and (first or "error" in result):  # of errors, the first
            write_json(layout.run, {**record, **now, **result})
    return 0 if "report" in result else 1


def main(argv: list[str]) -> int:
    """Be the keeper or the trainer of an experiment: ``keep FOLDER NAME`` or ``work FOLDER NAME ORDER``."""
    role, root, name, *order = argv
    layout = Layout(Path(root), name)
    return _keep(layout) if role == "keep" else _work(layout, parsed(order[0], Order))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
