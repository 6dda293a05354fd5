"""The final voice: the average of the second half of training, or the last one; heard before anything is done.

What single voices have by chance cancels in the average: on unheard recordings it is nearer to the target than any of
them, while training is level and while it still improves (docs/overtraining.md has the figures).
"""

from dataclasses import replace
from pathlib import Path

import torch

from ..errors import CheckpointError
from ..workspace.dataset import ClipTensors
from ..workspace.layout import Layout
from ..workspace.metrics import MetricsLog
from ..workspace.retention import dated_voices
from ..workspace.voice_file import VoiceFile, average, load_voice, synthesizer_of
from .validate import speak
from .validation import Validation

_LEAST = 3  # voices that are averaged
_SILENT = 1e-6  # of full scale: a voice that is quieter makes no sound


def better_average(
    layout: Layout, validation: Validation, log: MetricsLog, device: torch.device | str
) -> VoiceFile | None:
    """The average of the saved voices of the second half of training, in float32, if it measures better than the best.

    It is measured like every voice, and its figures are logged. None if it is not better, or nothing tells.
    """
    voices = sorted(dated_voices(layout).items())
    chosen = [path for step, path in voices if 2 * step >= voices[-1][0]]
    if len(chosen) < _LEAST:
        return None
    made, first = average(chosen), load_voice(chosen[0]).info.epoch
    if not (figures := validation.figures_of(synthesizer_of(made).to(device))):
        return None
    log.average(made.info.step, made.info.epoch, layout.final_voice.name, first, figures)
    validation.assess(running=False)
    best = validation.verdict.best if validation.verdict else None
    if best is None or best.path != str(layout.final_voice):
        return None
    return replace(made, info=replace(made.info, note=f"average of epochs {first} to {made.info.epoch}"))


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
