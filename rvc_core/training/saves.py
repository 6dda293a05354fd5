"""Checkpoints and voices on their way to the disk, written by a thread while training goes on."""

import time
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

from ..errors import StorageError
from ..presets import VoiceSpec
from ..workspace.checkpoint import Checkpoint, save_checkpoint
from ..workspace.layout import Layout
from ..workspace.voice_file import VoiceFile, VoiceInfo, save_voice


@dataclass(frozen=True)
class Save:
    """A checkpoint, and maybe the voice of that moment, on the way to the disk.

    Attributes
    ----------
    figures : dict
        What the last validation had found when they were copied; another one may follow before they are written.
    written : Future of float
        The seconds that writing took, or what went wrong.
    """

    step: int
    epoch: int
    voice: Path | None
    figures: dict[str, float]
    written: Future[float]


class Saves:
    """Writes one save after the other in a thread of its own.

    Parameters
    ----------
    layout : Layout
    spec, info
        Of the voice in training.
    keep_checkpoints : int
        How many sets stay besides the pinned ones.

    Attributes
    ----------
    saved_step : int
        Step of the newest complete checkpoint; -1 before the first.
    resumed_step : int or None
        Step of the checkpoint from which this training continues; None where it began.
    """

    def __init__(self, layout: Layout, spec: VoiceSpec, info: VoiceInfo, *, keep_checkpoints: int) -> None:
        self._layout, self._spec, self._info, self._keep = layout, spec, info, keep_checkpoints
        self._thread = ThreadPoolExecutor(1, "checkpoint")
        self._pending: Save | None = None
        self._begun_at = time.monotonic()
        self.saved_step, self.resumed_step = -1, None

    resumed_step: int | None

    def is_due(self, every_minutes: float) -> bool:
        """Whether the last save began longer ago than this."""
        return time.monotonic() - self._begun_at > 60 * every_minutes

    def begin(self, checkpoint: Checkpoint, voice: Path | None, figures: dict[str, float]) -> None:
        """Hand a copied checkpoint to the thread, and the path of the voice of this moment if there is to be one."""
        epoch = checkpoint.generator["iteration"]
        self._begun_at = time.monotonic()
        written = self._thread.submit(self.write, checkpoint, voice)
        self._pending = Save(checkpoint.step, epoch, voice, figures, written)

    def pending(self, *, wait: bool) -> Save | None:
        """The save that is written by now, once; with `wait`, the one that is being written."""
        save = self._pending
        if save is None or not (wait or save.written.done()):
            return None
        self._pending = None
        return save

    def write(self, checkpoint: Checkpoint, voice: Path | None) -> float:
        """Write both; the thread's work. Returns its seconds."""
        began = time.monotonic()
        if not self._layout.root.is_dir():
            raise StorageError(
                f"{self._layout.root} is gone",
                hint="bring that storage back; the same command continues from the last checkpoint there",
            )
        if voice:  # first: a kill could leave out what comes after a complete checkpoint
            self.write_voice(voice, checkpoint)
        if self.saved_step != checkpoint.step:  # a set is never written over: it may be the only one
            save_checkpoint(self._layout, checkpoint, most=self._keep)
        return time.monotonic() - began

    def write_voice(self, path: Path, checkpoint: Checkpoint) -> None:
        """Write the voice of a checkpoint."""
        info = replace(self._info, epoch=checkpoint.generator["iteration"], step=checkpoint.step)
        save_voice(path, VoiceFile(self._spec, checkpoint.generator["model"], info))

    def close(self) -> None:
        """Wait for the thread."""
        self._thread.shutdown()
