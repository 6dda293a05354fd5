"""Watching a training: one display that is drawn again while the trainer works in a process of its own."""

import base64
import html
import io
import struct
import time
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import soundfile

from ..audio.waveform import Audio
from ..errors import RVCError, StageOrderError, StorageError
from ..experiment import Experiment
from ..storage.mirror import told as saved_to
from ..system.inside import refuse_links
from ..training import detached
from ..training.beacon import read_state
from ..training.outcome import run_record
from ..verdict.learning_curve import History
from ..verdict.overtraining import Verdict, verdict_of_experiment
from ..workspace.layout import Layout
from ..workspace.metrics import SAVED_SOUND
from ..workspace.metrics import history as recorded
from .outcome import ending, evidence, failure_line, headline, minutes_left, progress_line
from .players import compressed, labelled, preview
from .plots import MEL_TAGS, WIDTH_PIXELS, Picture, pictures
from .texts import say, translated

_SHORTEST_PAUSE_SECONDS = 3.0
_LARGEST_PICTURE_PIXELS = 4096
_PAUSE_FACTOR = 8  # of what drawing took: the trainer needs the processor more
_DRAWN_EVERY_SECONDS = 20.0
_AT_ONCE = 2  # pictures that are shown; the others are folded
_COLOURS = {
    "undertrained": "#2a6db0",
    "good": "#00796b",
    "overtrained": "#c2410c",
    "collapsed": "#b3261e",
}


class Unwatched(RVCError):
    """Somebody interrupted the watching: an error, so that Run all does not go on to the cell that ends training."""

    def _render_traceback_(self) -> list[str]:
        return [str(self)]  # in the reader's language already


def watch(experiment: Experiment) -> dict[str, Any] | None:
    """Show a training until it ends, in one display that is drawn again and again.

    Interrupting this cell ends only the showing; `detached.stop`, in a cell of its own, ends the training. Where none
    is going on, the last state is shown once. An unattended notebook keeps the last frame.

    Returns
    -------
    dict or None
        The report of the training; None when nothing was begun here.

    Raises
    ------
    StageOrderError
        When there is neither a training nor a record of one.
    Unwatched
        When this is interrupted; training goes on.
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
    except KeyboardInterrupt:
        if detached.is_running(layout):
            raise Unwatched(say("unwatched")) from None
    frame.draw()
    return detached.watch(layout) if layout.run.exists() else None


class _Frame:
    """Two displays: the outcome with a bar, which changes all the time, and the evidence, which is drawn less often."""

    def __init__(self, layout: Layout) -> None:
        self._layout = layout
        self._top, self._below = _Display(), _Display()
        self._drawn_of: tuple[int, bool] | None = None
        self._drawn_at = -_DRAWN_EVERY_SECONDS
        self._verdict: Verdict | None = None
        self._evidence = ("", "")
        self._boards: dict[Path, Any] = {}
        self._fold = f"fold_{uuid.uuid4().hex}"  # the page remembers under this name whether the details are open

    def draw(self) -> float:
        """Draw what is there now; returns the seconds that took."""
        began = time.perf_counter()
        running = detached.is_running(self._layout)
        size = self._layout.metrics.stat().st_size if self._layout.metrics.exists() else 0
        due = not running or time.monotonic() - self._drawn_at >= _DRAWN_EVERY_SECONDS
        if due and (size, running) != self._drawn_of:
            self._drawn_of, self._drawn_at = (size, running), time.monotonic()
            self._look()
        self._top.show(*self._status(running))
        if any(self._evidence):
            self._below.show(*self._evidence)
        return time.perf_counter() - began

    def _status(self, running: bool) -> tuple[str, str]:
        """The outcome and what to do next, as text and as HTML."""
        verdict = self._verdict
        state = verdict.state if verdict else "waiting"
        beacon: Mapping[str, Any] = read_state(self._layout.beacon) or {}
        if running:
            sentence = headline(verdict, minutes_left(beacon)) if verdict else say("loading")
        else:
            sentence = ending(verdict, run_record(self._layout))
        saved = translated(saved_to(self._layout))
        lines = [progress_line(beacon) if running else "", saved and say("storage", told=saved)]
        lines = [*filter(None, lines), *map(failure_line, verdict.failures if verdict else [])]
        words = "\n".join([f"{say('state_' + state)}: {sentence}", *lines])
        share = min(1.0, beacon["done"] / max(1, beacon["total"])) if running and beacon.get("label") else None
        return words, _headed(state, sentence, lines, share)

    def _look(self) -> None:
        """Read the history again, and draw the evidence."""
        rows = recorded(self._layout)
        if not any(row["kind"] == "step" for row in rows):
            return
        self._verdict, history = verdict_of_experiment(self._layout), History.of(rows)
        shown = pictures(history, self._verdict, self._newest_mels())
        self._evidence = (
            "\n".join(one.words for one in shown),
            f'<div style="font-family:sans-serif;font-size:14px;line-height:1.5">{self._sounds(history)}'
            + _cards(shown[:_AT_ONCE])
            + f'<details id="{self._fold}" ontoggle="window.{self._fold}=this.open">'
            + f"<summary>{html.escape(say('details'))}</summary>{_cards(shown[_AT_ONCE:])}"
            + "".join(
                f'<div style="overflow-wrap:anywhere">{html.escape(line)}</div>'
                for line in evidence(history, self._verdict)
            )
            + "</details></div>"
            + f'<script>document.getElementById("{self._fold}").open = window.{self._fold} === true</script>',
        )

    def _sounds(self, history: History) -> str:
        """A recording that training never heard, and beside it the newest saved voice, or what was recorded before."""
        board = self._board(self._layout.eval_board)
        clip = next(iter(sorted(self._layout.heldout.clips.glob("*.wav"))), None)
        tags = [tag for tag in (SAVED_SOUND, "heldout") if board and tag in board.Tags()["audio"]]
        if clip is None or not tags:
            return ""
        newest = board.Audio(tags[0])[-1]
        epoch = history.epoch_at(newest.step)
        try:
            samples, rate_hz = soundfile.read(io.BytesIO(newest.encoded_audio_string), dtype="float32", always_2d=True)
            label = say(tags[0].replace("/", "_"), epoch=epoch) if epoch else say("heldout_before")
            shown = labelled(say("heldout_recording"), preview(clip))
            shown += labelled(label, compressed(Audio(samples[:, 0], rate_hz)))
        except (RVCError, soundfile.LibsndfileError):  # the clips were cleaned up or cut again; a damaged log
            return ""
        return f'<div style="display:flex;flex-wrap:wrap;gap:8px;margin:8px 0">{shown}</div>'

    def _newest_mels(self) -> dict[str, bytes]:
        board = self._board(self._layout.root)
        there = board.Tags()["images"] if board else []
        found = {tag: board.Images(tag)[-1].encoded_image_string for tag in MEL_TAGS if tag in there}
        return {tag: png for tag, png in found.items() if _is_picture(png)}

    def _board(self, folder: Path) -> Any:
        """What TensorBoard has of a folder; None if it is damaged, because others may have written it."""
        from google.protobuf.message import DecodeError
        from tensorboard.backend.event_processing.event_accumulator import EventAccumulator  # slow import

        if not folder.is_dir():
            return None
        if folder not in self._boards:
            newest = {"images": 1, "scalars": 1, "audio": 1}
            self._boards[folder] = EventAccumulator(str(folder), size_guidance=newest)
        try:
            refuse_links(folder)  # a pipe would be waited for
            return self._boards[folder].Reload()  # reads on from where it was
        except (StorageError, OSError, MemoryError, DecodeError):
            return None


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


class _Display:
    """A place in the cell's output that is drawn again and again."""

    def __init__(self) -> None:
        from IPython.display import DisplayHandle

        self._handle, self._drawn = DisplayHandle(), ("", "")

    def show(self, text: str, page: str) -> None:
        """Draw it, unless it looks like that."""
        if (text, page) == self._drawn:
            return
        draw = self._handle.update if any(self._drawn) else self._handle.display
        draw({"text/plain": text, "text/html": page}, raw=True)
        self._drawn = text, page


# -- as HTML that wraps to the width of the page; text takes the notebook's own colours ------------------------------
def _headed(state: str, sentence: str, lines: list[str], share: float | None) -> str:
    badge = (
        f'<span style="background:{_COLOURS.get(state, "#667180")};color:#fff;border-radius:4px;padding:1px 8px;'
        f'font-weight:600">{html.escape(say("state_" + state))}</span>'
    )
    bar = (
        ""
        if share is None
        else (
            f'<div style="background:#8a94a033;border-radius:3px;overflow:clip;max-width:900px;margin:6px 0">'
            f'<div style="background:{_COLOURS["good"]};height:6px;width:{100 * share:.1f}%"></div></div>'
        )
    )
    return (
        f'<div style="font-family:sans-serif;font-size:14px;line-height:1.5"><div>{badge} '
        f"<b>{html.escape(sentence)}</b></div>{bar}"
        + "".join(f"<div>{html.escape(line)}</div>" for line in lines)
        + "</div>"
    )


def _cards(shown: list[Picture]) -> str:
    cards = "".join(
        f'<img alt="{html.escape(one.words)}" width="{WIDTH_PIXELS}" src="data:image/png;base64,'
        f'{base64.b64encode(one.png).decode()}" style="max-width:100%;height:auto;border-radius:6px;margin:0">'
        for one in shown
    )
    return f'<div style="display:flex;flex-wrap:wrap;gap:8px;margin-top:8px">{cards}</div>'
