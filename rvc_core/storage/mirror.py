"""Save an experiment to storage during training, in a separate process: a mount that hangs cannot block training.

The process saves new checkpoints every few minutes, at each new best voice, and at the end of training. It writes its
state and any problem to ``storage.json``. `told` and `trouble` turn them into text.
"""

import contextlib
import math
import os
import select
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from typing_extensions import TypedDict

from ..errors import RVCError, StorageError
from ..settings import MirrorSettings
from ..system.documents import Count, Line, read_or
from ..system.files import write_json
from ..system.platforms import child_environment
from ..workspace.layout import Layout
from ..workspace.retention import checkpoint_rows, voice_scores
from .places import Place, place_of

_MODULE = "rvc_core.storage.mirror"
_LOOK_SECONDS = 2.0
_AGAIN_SECONDS = 60.0  # between tries after a failure
_LONG_SECONDS = 120.0  # a longer save is reported
_END_SECONDS = 600.0  # the longest wait for the last save at the end of training
_QUICK_SECONDS = 3.0
_TAIL_BYTES = 1 << 18  # of metrics.jsonl: a few hundred steps


class _Saved(TypedDict):
    epoch: Count
    step: Count
    time: float


class _State(TypedDict):
    title: Line
    saved: _Saved | None
    problem: Line
    busy: float | None


# -- called by training and by its displays --------------------------------------------------------------------------
@contextlib.contextmanager
def mirroring(
    layout: Layout, settings: MirrorSettings = MirrorSettings(), say: Callable[[str], None] = lambda line: None
) -> Iterator[None]:
    """Save an experiment as long as the context lasts; its exit waits up to 10 min for the last save.

    Parameters
    ----------
    say : callable
        Receives one line when the exit has to wait, and one with the result.

    Raises
    ------
    SettingsError
        When `settings.mirror` is not a valid place.
    """
    with contextlib.suppress(OSError):
        layout.mirrored.unlink()
    if not is_wanted(layout, settings):
        yield
        return
    minutes = str(settings.mirror_every_minutes)
    process = subprocess.Popen(
        [sys.executable, "-m", _MODULE, str(layout.root), layout.name, settings.mirror, minutes],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        env=child_environment(),
        start_new_session=True,
    )
    try:
        yield
    finally:
        assert process.stdin is not None
        process.stdin.close()  # the process saves once more and ends, also if this process is killed
        _wait(process, layout, say)


def is_wanted(layout: Layout, settings: MirrorSettings) -> bool:
    """Whether the settings ask to save an experiment elsewhere; raises SettingsError if the place is invalid."""
    try:
        there = place_of(settings.mirror, layout) is not None
        return there and os.environ.get("RANK", "0") == "0"  # only the first of several processes writes checkpoints
    except StorageError:  # nothing is mounted yet
        return True


def _wait(process: "subprocess.Popen[bytes]", layout: Layout, say: Callable[[str], None]) -> None:
    """Wait for the last save, report it, and give up on storage that hangs."""
    problem = ""
    try:
        process.wait(_QUICK_SECONDS)
    except subprocess.TimeoutExpired:
        say(f"saving the last checkpoint to storage, {_END_SECONDS / 60:g} min at most")
        try:
            process.wait(_END_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            problem = f"could not save the last checkpoint in {_END_SECONDS / 60:g} min: only this machine has it"
    if process.returncode:
        problem = f"saving to storage failed with status {process.returncode}"
    if problem:
        _write(layout, {"title": "storage", "saved": None, **_state(layout), "busy": None, "problem": problem})
    if line := told(layout):
        say(line)


def told(layout: Layout) -> str:
    """State of saving, such as ``saved to Drive 3 min ago: epoch 120``; empty if the experiment is not saved."""
    state = _state(layout)
    if not state:
        return ""
    saved, words = state["saved"], [trouble(layout)]
    if saved:
        minutes = (time.time() - saved["time"]) / 60
        ago = f"{minutes:.0f} min ago" if minutes >= 1 else "just now"
        words.append(f"saved to {state['title']} {ago}: epoch {saved['epoch']}")
    return "; ".join(filter(None, words)) or f"not saved to {state['title']} yet"


def trouble(layout: Layout) -> str:
    """The current problem with saving, in the same words while it lasts; empty if there is none."""
    state = _state(layout)
    if state.get("busy") and time.time() - state["busy"] > _LONG_SECONDS:
        return f"saving to {state['title']} takes longer than {_LONG_SECONDS / 60:.0f} min"
    return state.get("problem", "")


def _state(layout: Layout) -> dict[str, Any]:
    return read_or(layout.mirrored, _State, {})


def _write(layout: Layout, state: dict[str, Any]) -> None:
    with contextlib.suppress(OSError, RVCError):
        if layout.root.is_dir() and _state(layout) != state:
            write_json(layout.mirrored, state)


# -- the process ---------------------------------------------------------------------------------------------------
def _mirror(layout: Layout, text: str, every_seconds: float) -> None:
    """Save repeatedly until the other end of stdin closes, then once more."""
    state: dict[str, Any] = {"title": "storage", "saved": None, "problem": "", "busy": None}
    due = quick = 0.0  # times of the next regular save and of the next save of a new best voice
    best, ending, place = math.inf, False, None
    while not ending:
        ending = bool(select.select([sys.stdin], [], [], _LOOK_SECONDS)[0])
        lowest = min(voice_scores(layout, _TAIL_BYTES).values(), default=math.inf)
        now, problem = time.monotonic(), ""
        if not (ending or now >= due or (lowest < best and now >= quick)):
            continue
        try:
            place = place or place_of(text, layout)
            assert place is not None
            _save(layout, place, state)
        except (RVCError, OSError) as error:
            problem = str(error) + (f" ({hint})" if (hint := getattr(error, "hint", "")) else "")
        state |= {"problem": problem, "busy": None}
        _write(layout, state)
        took = time.monotonic() - now
        if problem:
            due = quick = now + took + _AGAIN_SECONDS
        elif state["saved"] and place:
            due, quick, best = now + every_seconds, now + took + max(took, place.least_seconds), min(best, lowest)


def _save(layout: Layout, place: Place, state: dict[str, Any]) -> None:
    """Save if there is a checkpoint, and say meanwhile since when."""
    state |= {"title": place.title, "busy": time.time() if checkpoint_rows(layout) else None}
    _write(layout, state)
    if state["busy"]:
        save = place.save(layout)
        state |= {"saved": {"epoch": save.epoch, "step": save.step, "time": save.time}}


def main(argv: list[str]) -> int:
    """Mirror an experiment: ``FOLDER NAME PLACE MINUTES``."""
    root, name, place, minutes = argv
    os.nice(10)  # hashing must not slow down training
    _mirror(Layout(Path(root), name), place, 60 * float(minutes))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
