"""Watching a training: one display that is drawn again while the trainer works in a process of its own."""

import base64
import html
import io
import struct
import time
from typing import Any

from ..errors import StageOrderError, StorageError
from ..experiment import Experiment
from ..system.inside import refuse_links
from ..training import detached
from ..training.beacon import read_state, stalled
from ..verdict.learning_curve import History
from ..verdict.overtraining import Verdict, verdict_of_experiment
from ..workspace.layout import Layout
from ..workspace.metrics import history as recorded
from .plots import MEL_TAGS, WIDTH_PIXELS, Picture, pictures

_SHORTEST_PAUSE_SECONDS = 3.0
_LARGEST_PICTURE_PIXELS = 4096
_PAUSE_FACTOR = 8  # of what drawing took: the trainer needs the processor more
_COLOURS = {
    "waiting": "#667180",
    "no step": "#667180",
    "cannot_tell": "#667180",
    "undertrained": "#2a6db0",
    "good": "#00796b",
    "overtrained": "#c2410c",
    "collapsed": "#b3261e",
}
PLAIN = {"cannot_tell": "too early to tell", "undertrained": "still learning"}
WAITING = "Waiting for the first step. Loading comes before it: seconds at home, minutes on a fresh cloud machine."


def watch(experiment: Experiment) -> dict[str, Any] | None:
    """Show a training until it ends, in one display that is drawn again and again.

    Interrupting this cell ends only the showing; `detached.stop`, in a cell of its own, ends the training. Where none
    is going on, the last state is shown once. An unattended notebook keeps the last frame.

    Returns
    -------
    dict or None
        The report of the training; None when the showing was interrupted, or nothing was begun here.

    Raises
    ------
    StageOrderError
        When there is neither a training nor a record of one.
    RVCError
        As the training did.
    """
    layout = experiment.layout
    if not (layout.run.exists() or layout.metrics.exists() or detached.is_running(layout)):
        raise StageOrderError(f"{layout.name!r} has not been trained yet", hint="run the cell that starts training")
    frame = _Frame(layout)
    try:
        while detached.is_running(layout):
            time.sleep(max(_SHORTEST_PAUSE_SECONDS, _PAUSE_FACTOR * frame.draw()))
        frame.draw()
    except KeyboardInterrupt:
        frame.draw("You stopped watching. Training goes on; run this cell to see it again, or the Stop cell to end it.")
        return None
    return detached.watch(layout) if layout.run.exists() else None


class _Frame:
    """The display, and what was drawn last."""

    def __init__(self, layout: Layout) -> None:
        from IPython.display import DisplayHandle

        self._layout = layout
        self._handle, self._shown = DisplayHandle(), False
        self._drawn_of: tuple[int, bool] | None = None
        self._verdict: Verdict | None = None
        self._pictures: list[Picture] = []
        self._events: Any = None

    def draw(self, note: str = "") -> float:
        """Draw what is there now; returns the seconds that took."""
        began = time.perf_counter()
        running = detached.is_running(self._layout)
        size = self._layout.metrics.stat().st_size if self._layout.metrics.exists() else 0
        if (size, running) != self._drawn_of:
            self._drawn_of = size, running
            self._look()
        status = [note or status_line(self._layout, running)]
        if self._verdict is None:
            state, sentence = ("waiting", WAITING) if running else ("no step", "nothing was trained yet.")
        else:
            state, sentence = self._verdict.state, plain_sentence(self._verdict)
            status += [
                f"{one.name} since epoch {one.epoch}: {one.look}. {one.remedy}." for one in self._verdict.failures
            ]
        lines = [line for line in status if line]
        bundle = {
            "text/plain": "\n".join([f"{state}: {sentence}", *lines, *(one.words for one in self._pictures)]),
            "text/html": _page(state, sentence, lines, _share_done(self._layout, running), self._pictures),
        }
        if self._shown:
            self._handle.update(bundle, raw=True)
        else:
            self._handle.display(bundle, raw=True)
            self._shown = True
        return time.perf_counter() - began

    def _look(self) -> None:
        rows = recorded(self._layout)
        if not any(row["kind"] == "step" for row in rows):
            return
        self._verdict = verdict_of_experiment(self._layout)
        self._pictures = pictures(History.of(rows), self._verdict, self._newest_mels())

    def _newest_mels(self) -> dict[str, bytes]:
        """What the log of TensorBoard has; nothing if it is damaged, because others may have written it."""
        from google.protobuf.message import DecodeError
        from tensorboard.backend.event_processing.event_accumulator import EventAccumulator  # slow import

        if self._events is None:
            self._events = EventAccumulator(str(self._layout.root), size_guidance={"images": 1, "scalars": 1})
        try:
            refuse_links(self._layout.root)  # a pipe would be waited for
            self._events.Reload()  # reads on from where it was
        except (StorageError, OSError, MemoryError, DecodeError):
            return {}
        there = self._events.Tags()["images"]
        found = {tag: self._events.Images(tag)[-1].encoded_image_string for tag in MEL_TAGS if tag in there}
        return {tag: png for tag, png in found.items() if _is_picture(png)}


def _is_picture(png: bytes) -> bool:
    from PIL import Image

    try:
        with Image.open(io.BytesIO(png), formats=["PNG"]) as picture:
            if max(picture.size) <= _LARGEST_PICTURE_PIXELS:
                picture.load()
                return True
    except (OSError, SyntaxError, ValueError, struct.error, Image.DecompressionBombError):  # PIL, on damage
        pass
    return False


def plain_sentence(verdict: Verdict) -> str:
    """The verdict as one line, in which a training that has only begun is not yet asked for its best voice."""
    if verdict.state == "cannot_tell" and verdict.running:
        return f"training has only begun: {verdict.reasons[0]}." if verdict.reasons else "training has only begun."
    return verdict.sentence


def status_line(layout: Layout, running: bool, now: float | None = None) -> str:
    """Where the training is, and what its trainer says of speed and time left.

    Examples
    --------
    >>> import tempfile; from pathlib import Path
    >>> layout = Layout(Path(tempfile.mkdtemp()), "alice")
    >>> status_line(layout, True, now=0.0)
    'The trainer is loading.'
    """
    if not running:
        return "Training is not running."
    if not (state := read_state(layout.beacon)) or not state["label"]:
        return ["The trainer is loading.", *(state["lines"] if state else [])][-1]
    told = f"{state['label']} {state['done']} of {state['total']}"
    return " · ".join(filter(None, [told, state["note"], stalled(state, now)]))


def _share_done(layout: Layout, running: bool) -> float | None:
    state = read_state(layout.beacon) if running else None
    return min(1.0, state["done"] / max(1, state["total"])) if state and state["label"] else None


def _page(state: str, sentence: str, lines: list[str], share: float | None, shown: list[Picture]) -> str:
    """One block of HTML that wraps to the width of the page; text takes the notebook's own colours."""
    badge = (
        f'<span style="background:{_COLOURS[state]};color:#fff;border-radius:4px;padding:1px 8px;'
        f'font-weight:600">{html.escape(PLAIN.get(state, state))}</span>'
    )
    round_ = "border-radius:3px;height:6px"
    bar = (
        ""
        if share is None
        else (
            f'<div style="background:#8a94a033;{round_};max-width:900px;margin:6px 0">'
            f'<div style="background:{_COLOURS["good"]};{round_};width:{100 * share:.1f}%"></div></div>'
        )
    )
    cards = "".join(
        f'<img alt="{html.escape(one.words)}" width="{WIDTH_PIXELS}" src="data:image/png;base64,'
        f'{base64.b64encode(one.png).decode()}" style="max-width:100%;height:auto;border-radius:6px;margin:0">'
        for one in shown
    )
    return (
        f'<div style="font-family:sans-serif;font-size:14px;line-height:1.5"><div>{badge} '
        f"<b>{html.escape(sentence[:1].upper() + sentence[1:])}</b></div>{bar}"
        + "".join(f"<div>{html.escape(line)}</div>" for line in lines)
        + f'<div style="display:flex;flex-wrap:wrap;gap:8px;margin-top:8px">{cards}</div></div>'
    )
