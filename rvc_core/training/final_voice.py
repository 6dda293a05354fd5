"""The final voice: the average of the second half of training, or the last one; heard before anything is done.

What single voices have by chance cancels in the average: on unheard recordings it is nearer to the target than any of
them, while training is level and while it still improves (docs/overtraining.md has the figures).
"""

from dataclasses import replace
from pathlib import Path

import torch

from ..errors import CheckpointError
from ..verdict.overtraining import verdict_of_experiment
from ..workspace.dataset import ClipTensors
from ..workspace.layout import Layout
from ..workspace.metrics import MetricsLog
from ..workspace.voice_file import average, load_voice, save_voice, synthesizer_of
from .validate import speak
from .validation import Validation

_LEAST = 3  # voices that are averaged
_SILENT = 1e-6  # of full scale: a voice that is quieter makes no sound


def average_if_better(layout: Layout, validation: Validation, log: MetricsLog, device: torch.device) -> bool:
    """Write the average of the saved voices of the second half of training, if it measures better than the best.

    It is measured like every voice. False, and nothing written, if it is not better, or too little was measured.
    """
    halves = {row["path"]: layout.root / row["path"] for row in log.voices if 2 * row["step"] >= log.voices[-1]["step"]}
    chosen = [path for path in halves.values() if path.exists()]
    if len(chosen) < _LEAST:
        return False
    made, first = average(chosen), load_voice(chosen[0]).info.epoch
    place = {"step": made.info.step, "epoch": made.info.epoch, "path": layout.final_voice.name, "from_epoch": first}
    row = {"kind": "average", **place, **validation.figures_of(synthesizer_of(made).to(device))}
    best = verdict_of_experiment(layout, [row]).best
    if best is None or best.from_epoch is None:
        return False
    note = f"average of epochs {first} to {made.info.epoch}"
    log.average(row)  # first: without the voice of this step, training finishes again
    save_voice(layout.final_voice, replace(made, info=replace(made.info, note=note)))
    return True


def refuse_broken(path: Path, step: int, clip: ClipTensors, device: torch.device) -> None:
    """Read a voice that was written at `step` again, and let it say three seconds of a clip.

    Raises
    ------
    CheckpointError
        When it is of another step, or makes no sound.
    """
    voice = load_voice(path)
    audio = speak(synthesizer_of(voice).to(device), clip.excerpt(0, 300))
    if voice.info.step != step or not audio.isfinite().all() or audio.std() < _SILENT:
        raise CheckpointError(
            f"{path.name} does not sound as it should after it was written",
            hint="check the disk, then run the same command: the checkpoint is there",
        )
