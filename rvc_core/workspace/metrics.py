"""Log training: steps, validations and voices to ``metrics.jsonl``, curves and pictures to TensorBoard.

Tag names are RVC WebUI's, so its guides still apply: ``loss/g/total loss/g/mel loss/g/kl loss/g/fm loss/d/total
grad_norm_g grad_norm_d learning_rate`` and ``slice/mel_org slice/mel_gen all/mel``. Validations are a separate
TensorBoard run, ``eval``.
"""

import json
import math
import os
import threading
import time
from collections import defaultdict
from pathlib import Path
from typing import Any, NotRequired

import numpy as np
from pydantic import ConfigDict, with_config
from typing_extensions import TypedDict

from ..audio.waveform import Audio
from ..system.documents import Count, Leaf, read_jsonl
from ..system.files import write_jsonl
from ..system.inside import open_inside
from .layout import Layout
from .stamps import stamp_of

PICTURE_INTERVAL_STEPS = 200  # RVC's interval; drawing takes as long as a small step
_AUDIO_INTERVAL_SECONDS = 300  # each takes 0.5 MB
_DIGITS = 16  # of the stamp of the clips: enough to tell data sets apart
_LONGEST_INTERVAL_STEPS = 200  # of the curves; small datasets get a point every epoch
SAVED_SOUND = "heldout/saved"  # a recording that training never heard, as each saved voice says it
_CAPS = {"loss/g/mel": 75.0, "loss/g/kl": 9.0}  # RVC's display limits, so that the first steps do not hide the rest


@with_config(ConfigDict(extra="allow"))
class _Row(TypedDict):
    kind: str
    step: Count
    epoch: Count
    path: NotRequired[Leaf]


class MetricsLog:
    """Logs training. Opening an existing log removes all rows after `resumed_step`.

    Parameters
    ----------
    layout : Layout
    steps_per_epoch : int
        Sets the interval of the curves: one point every min(steps_per_epoch, 200) steps.
    resumed_step : int
        Step of the checkpoint that training resumes from; 0 starts a new log.

    Attributes
    ----------
    voices, validations : list of dict
        Rows of saved voices and of validations so far; of validations on these recordings only.
    """

    def __init__(self, layout: Layout, *, steps_per_epoch: int, resumed_step: int) -> None:
        self.interval_steps = max(1, min(steps_per_epoch, _LONGEST_INTERVAL_STEPS))
        self._epoch_values: dict[str, list[float]] = defaultdict(list)
        self._layout = layout
        self._open(history(layout) if resumed_step else [], resumed_step)

    def _open(self, rows: list[dict[str, Any]], resumed_step: int) -> None:
        from torch.utils.tensorboard import SummaryWriter  # slow import

        self._data = {"data": stamp[:_DIGITS]} if (stamp := stamp_of(self._layout, "prepare")) else {}
        kept = [row for row in rows if row["step"] <= resumed_step]
        self.voices = [row for row in kept if row["kind"] == "voice"]
        known = (None, self._data.get("data"))  # what others were measured on cannot be compared
        self.validations = [row for row in kept if row["kind"] == "validation" and row.get("data") in known]
        write_jsonl(self._layout.metrics, kept)
        self._file = open_inside(self._layout.metrics, "ab")
        purge_step = resumed_step + 1 if resumed_step else None
        self._board = SummaryWriter(str(self._layout.root), purge_step=purge_step, flush_secs=10)
        self._eval = SummaryWriter(str(self._layout.eval_board), purge_step=purge_step, flush_secs=10)
        self._audio_logged_at = -math.inf
        self._previous_hook = threading.excepthook
        threading.excepthook = self._ignore_writer_errors

    def step(self, step: int, epoch: int, values: dict[str, float]) -> None:
        """Record one training step."""
        self._line({"kind": "step", "step": step, "epoch": epoch, **values})
        for tag, value in values.items():
            self._epoch_values[tag].append(value)
        if step % self.interval_steps == 0:
            for tag, value in values.items():
                self._board.add_scalar(tag, min(value, _CAPS.get(tag, value)), step)

    def skipped(self, step: int, epoch: int) -> None:
        """Record that a step was skipped because of a NaN loss."""
        self._line({"kind": "skipped", "step": step, "epoch": epoch})

    def rewind(self, step: int) -> None:
        """Remove all rows after `step`: training returns to it."""
        self.close()
        self._epoch_values.clear()
        self._open(history(self._layout), step)

    def epoch(self, step: int) -> None:
        """Record the means of the epoch that ends at this step."""
        for tag, values in self._epoch_values.items():
            self._board.add_scalar(f"epoch/{tag}", float(np.mean(values)), step)
        self._epoch_values.clear()
        self._file.flush()

    def validation(self, step: int, epoch: int, values: dict[str, float], sounds: dict[str, Audio]) -> None:
        """Record a validation's values, and its audio at most every 5 min."""
        self.validations.append({"kind": "validation", "step": step, "epoch": epoch, **self._data, **values})
        self._line(self.validations[-1])
        for tag, value in values.items():
            self._eval.add_scalar(tag, value, step)
        if time.monotonic() - self._audio_logged_at > _AUDIO_INTERVAL_SECONDS:
            self._audio_logged_at = time.monotonic()
            for tag, audio in sounds.items():
                self.sound(tag, audio, step)

    def sound(self, tag: str, audio: Audio, step: int) -> None:
        """Record a sound of a validation, or of a voice that is being saved."""
        self._eval.add_audio(tag, audio.samples[None], step, audio.sample_rate)

    def voice(self, step: int, epoch: int, path: str, values: dict[str, float]) -> None:
        """Record a saved voice with its last validation values."""
        self.voices.append({"kind": "voice", "step": step, "epoch": epoch, "path": path, **self._data, **values})
        self._line(self.voices[-1])

    def average(self, row: dict[str, Any]) -> None:
        """Record the average of saved voices that became the final voice."""
        self._line(row | self._data)

    def mel(self, tag: str, mel: np.ndarray, step: int) -> None:
        """Record a log-mel spectrogram (M, T) as a picture, low frequencies at the bottom."""
        self._board.add_image(tag, picture_of(mel), step, dataformats="HWC")

    def flush(self) -> None:
        """Write all rows to the disk."""
        self._file.flush()
        os.fsync(self._file.fileno())

    def close(self) -> None:
        """Close all files."""
        try:
            self._file.close()
            self._board.close()
            self._eval.close()
        finally:
            threading.excepthook = self._previous_hook

    def _ignore_writer_errors(self, failure: threading.ExceptHookArgs) -> None:
        """TensorBoard's thread raises its error again at our next call, so do not print it here."""
        if not isinstance(failure.exc_value, OSError) or type(failure.thread).__name__ != "_AsyncWriterThread":
            self._previous_hook(failure)

    def _line(self, row: dict[str, Any]) -> None:
        self._file.write(json.dumps(row).encode() + b"\n")
        if row["kind"] != "step":
            self._file.flush()


class NoLog(MetricsLog):
    """Logs nothing; for all training processes except the first."""

    def __init__(self, layout: Layout, *, steps_per_epoch: int, resumed_step: int) -> None:
        self.voices, self.validations = [], []

    def _ignore(self, *values: Any) -> None:
        """Do nothing."""

    step = skipped = rewind = epoch = validation = average = _ignore  # type: ignore[assignment]
    sound = voice = mel = flush = close = _ignore  # type: ignore[assignment]


def history(layout: Layout) -> list[dict[str, Any]]:
    """All rows of ``metrics.jsonl``, oldest first; empty before training."""
    return read_jsonl(layout.metrics, _Row) if layout.metrics.exists() else []


def row_of(layout: Layout, voice: Path) -> dict[str, Any]:
    """The row of a saved voice, or of the average that the final one is; empty if there is none."""
    rows = history(layout)
    return next(
        (
            row
            for row in reversed(rows)
            if row.get("path") == voice.name and (row["kind"] == "voice" or row["step"] == rows[-1]["step"])
        ),
        {},
    )


def on_newest_data(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Rows of a history without figures that were measured on earlier recordings; the voices themselves stay.

    Examples
    --------
    >>> rows = [{"kind": "voice", "step": 1, "epoch": 1, "path": "a.pth", "data": "x", "heldout/mel": 0.1}]
    >>> on_newest_data([*rows, {"kind": "validation", "step": 2, "epoch": 2, "data": "y", "heldout/mel": 0.5}])[0]
    {'kind': 'voice', 'step': 1, 'epoch': 1, 'path': 'a.pth'}
    """
    newest = next((row["data"] for row in reversed(rows) if row["kind"] == "validation" and "data" in row), None)
    kept = []
    for row in rows:
        is_other = newest is not None and row.get("data", newest) != newest
        if is_other and row["kind"] == "voice":
            row = {name: row[name] for name in ("kind", "step", "epoch", "path") if name in row}
        if not (is_other and row["kind"] in ("validation", "average")):
            kept.append(row)
    return kept


def picture_of(mel: np.ndarray) -> np.ndarray:
    """Colour picture (H, W, 3) uint8 of a spectrogram (M, T), with 3 x 3 pixels per value.

    Examples
    --------
    >>> picture_of(np.zeros((80, 32))).shape
    (240, 96, 3)
    """
    import matplotlib  # slow import

    low, high = float(mel.min()), float(mel.max())
    scaled = (mel - low) / max(high - low, 1e-6)
    enlarged = np.kron(scaled[::-1], np.ones((3, 3)))
    return (matplotlib.colormaps["viridis"](enlarged)[..., :3] * 255).astype(np.uint8)
