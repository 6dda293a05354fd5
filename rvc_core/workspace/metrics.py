"""The record of a training: every step in ``metrics.jsonl``, the field's curves and pictures in TensorBoard.

Tag names are RVC WebUI's, so the guides people follow keep working: ``loss/g/total loss/g/mel loss/g/kl loss/g/fm
loss/d/total grad_norm_g grad_norm_d learning_rate`` and ``slice/mel_org slice/mel_gen all/mel``. Validations
are a run of their own: ``eval``.
"""

import json
import math
import os
import threading
import time
from collections import defaultdict
from typing import Any

import numpy as np

from ..audio.waveform import Audio
from ..system.files import read_jsonl, write_jsonl
from .layout import Layout

PICTURE_INTERVAL_STEPS = 200  # RVC's interval for everything; drawing takes as long as a small step
_SOUND_INTERVAL_SECONDS = 300  # half a megabyte each time
_LONGEST_INTERVAL_STEPS = 200  # of the curves; small sets get a point every epoch
_CAPS = {"loss/g/mel": 75.0, "loss/g/kl": 9.0}  # RVC's display limits, which keep the first steps from hiding the rest


class MetricsLog:
    """Writes what training measures; opening it again forgets what came after `resumed_step`.

    Parameters
    ----------
    layout : Layout
    steps_per_epoch : int
        Sets the interval of the curves: one point every min(steps_per_epoch, 200) steps.
    resumed_step : int
        Step of the checkpoint that training continues from; later lines were lost with the work they describe.

    Attributes
    ----------
    voices, validations : list of dict
        The rows of saved voices, and of validations, so far.
    """

    def __init__(self, layout: Layout, *, steps_per_epoch: int, resumed_step: int) -> None:
        self.interval_steps = max(1, min(steps_per_epoch, _LONGEST_INTERVAL_STEPS))
        self._epoch_values: dict[str, list[float]] = defaultdict(list)
        self._layout = layout
        self._open(history(layout) if resumed_step else [], resumed_step)

    def _open(self, rows: list[dict[str, Any]], resumed_step: int) -> None:
        from torch.utils.tensorboard import SummaryWriter  # slow import

        kept = [row for row in rows if row["step"] <= resumed_step]
        self.voices, self.validations = (
            [row for row in kept if row["kind"] == kind] for kind in ("voice", "validation")
        )
        write_jsonl(self._layout.metrics, kept)
        self._file = self._layout.metrics.open("a", encoding="utf-8")
        self._board, self._eval = (
            SummaryWriter(str(folder), purge_step=resumed_step + 1 if resumed_step else None, flush_secs=10)
            for folder in (self._layout.root, self._layout.eval_board)
        )
        self._sounded_at = -math.inf
        self._told_of = threading.excepthook
        threading.excepthook = self._expect

    def step(self, step: int, epoch: int, values: dict[str, float]) -> None:
        """Record one training step."""
        self._line({"kind": "step", "step": step, "epoch": epoch, **values})
        for tag, value in values.items():
            self._epoch_values[tag].append(value)
        if step % self.interval_steps == 0:
            for tag, value in values.items():
                self._board.add_scalar(tag, min(value, _CAPS.get(tag, value)), step)

    def skipped(self, step: int, epoch: int) -> None:
        """Record that a step moved nothing, as its losses were no numbers."""
        self._line({"kind": "skipped", "step": step, "epoch": epoch})

    def rewind(self, step: int) -> None:
        """Forget what came after a step: training goes back to it."""
        self.close()
        self._epoch_values.clear()
        self._open(history(self._layout), step)

    def epoch(self, step: int) -> None:
        """Record the means of the epoch that ends with this step."""
        for tag, values in self._epoch_values.items():
            self._board.add_scalar(f"epoch/{tag}", float(np.mean(values)), step)
        self._epoch_values.clear()
        self._file.flush()

    def validation(self, step: int, epoch: int, values: dict[str, float], sounds: dict[str, Audio]) -> None:
        """Record what unheard recordings say, and now and then how it sounds."""
        self.validations.append({"kind": "validation", "step": step, "epoch": epoch, **values})
        self._line(self.validations[-1])
        for tag, value in values.items():
            self._eval.add_scalar(tag, value, step)
        if time.monotonic() - self._sounded_at > _SOUND_INTERVAL_SECONDS:
            self._sounded_at = time.monotonic()
            for tag, audio in sounds.items():
                self._eval.add_audio(tag, audio.samples[None], step, audio.sample_rate)

    def voice(self, step: int, epoch: int, path: str, values: dict[str, float]) -> None:
        """Record that a voice was saved, and what unheard recordings said last."""
        self.voices.append({"kind": "voice", "step": step, "epoch": epoch, "path": path, **values})
        self._line(self.voices[-1])

    def mel(self, tag: str, mel: np.ndarray, step: int) -> None:
        """Show a log-mel spectrogram (M, T) as a picture, low frequencies at the bottom."""
        self._board.add_image(tag, picture_of(mel), step, dataformats="HWC")

    def flush(self) -> None:
        """Put everything so far on the disk."""
        self._file.flush()
        os.fsync(self._file.fileno())

    def close(self) -> None:
        """Write everything out."""
        try:
            self._file.close()
            self._board.close()
            self._eval.close()
        finally:
            threading.excepthook = self._told_of

    def _expect(self, failure: threading.ExceptHookArgs) -> None:
        """TensorBoard's thread prints what stopped it, and raises it again at our next word: once is enough."""
        if not isinstance(failure.exc_value, OSError) or type(failure.thread).__name__ != "_AsyncWriterThread":
            self._told_of(failure)

    def _line(self, row: dict[str, Any]) -> None:
        self._file.write(json.dumps(row) + "\n")
        if row["kind"] != "step":
            self._file.flush()


class NoLog(MetricsLog):
    """Keeps nothing: what all processes of a training but the first write into."""

    def __init__(self, layout: Layout, *, steps_per_epoch: int, resumed_step: int) -> None:
        self.voices, self.validations = [], []

    def _forget(self, *values: Any) -> None:
        """Do nothing."""

    step = skipped = rewind = epoch = validation = voice = mel = flush = close = _forget  # type: ignore[assignment]


def history(layout: Layout) -> list[dict[str, Any]]:
    """All rows of ``metrics.jsonl``, oldest first; none before training."""
    return read_jsonl(layout.metrics) if layout.metrics.exists() else []


def picture_of(mel: np.ndarray) -> np.ndarray:
    """Colour picture (H, W, 3) uint8 of a spectrogram (M, T), three pixels a frame wide at the least legible size.

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
