"""Losses that are no numbers any more: such a step moves nothing; after several in a row, training goes back.

A single one happens, by an unlucky draw or a broken clip. Several mean that the weights are broken, though they may
still be numbers: nothing is saved meanwhile. Training then goes back to its last checkpoint with half the step size; if
it fails again before the next one, in float32 as well; and if even that fails, it says so.
"""

import math

from ..errors import DivergedError
from ..progress import Progress
from ..workspace.metrics import MetricsLog
from .precision import DTYPES
from .run import Run, go_back

DIVERGED = "diverged"  # why an epoch ended
_IN_A_ROW = 3
_TRIES = 2


def record(run: Run, log: MetricsLog, progress: Progress, values: dict[str, float]) -> bool:
    """Note the losses of the step that was made; False when it was one too many without.

    Infinite gradients are normal while a scaler looks for the scale that float16 can bear; the step is lost, its
    losses are not.
    """
    odd = [tag for tag, value in values.items() if not math.isfinite(value)]
    scaling = run.networks.scaler.is_enabled() and run.networks.scaler.get_scale() > 1 if odd else False
    if odd and (not scaling or any(tag.startswith("loss/") for tag in odd)):
        run.odd_steps += 1
        log.skipped(run.step, run.epoch + 1)
        progress.say(f"step {run.step} moves nothing: {odd[0]} is not finite")
        return run.odd_steps < _IN_A_ROW
    run.odd_steps = 0
    log.step(run.step, run.epoch + 1, {tag: value for tag, value in values.items() if tag not in odd})
    return True


def recover(run: Run, log: MetricsLog, progress: Progress) -> None:
    """Go back to the last checkpoint, or to the beginning, and go on from there with more caution.

    Raises
    ------
    DivergedError
        When that was tried from the same step before, in float32 as well.
    """
    failed, caution = run.step, run.caution
    with run.ranks.in_turn():
        go_back(run)
    run.ranks.refuse_different((run.step, run.epoch, run.position))  # only the first machine's folder has them all
    run.setbacks = run.setbacks + 1 if run.step == run.setback_step else 1
    run.setback_step = run.step
    if run.setbacks > _TRIES:
        raise DivergedError(
            f"the losses are not finite any more at step {failed}, even in fp32 with a small step size",
            hint=f"look for broken recordings (rvc inspect), or use --learning-rate "
            f"{run.learning_rate / 4:g}; the checkpoint of step {run.step} is untouched",
        )
    run.caution = min(caution, run.caution) / 2
    run.only_fp32 = run.only_fp32 or run.setbacks == _TRIES
    if run.only_fp32:
        run.networks.compute_in(DTYPES["fp32"])
    log.rewind(run.step)
    progress.say(
        f"{_IN_A_ROW} steps in a row, up to {failed}, had no finite losses: back to step {run.step}, with "
        f"--learning-rate {run.learning_rate:g}" + (" and in fp32" if run.only_fp32 else "")
    )


def end_before(run: Run, log: MetricsLog) -> None:
    """End a training whose last steps had no finite losses where it was last saved.

    Raises
    ------
    DivergedError
        When it never was.
    """
    if run.saved_step < 0:
        raise DivergedError(
            f"the losses of step {run.step} are not finite, and nothing was saved before",
            hint=f"use --learning-rate {run.learning_rate / 2:g}",
        )
    go_back(run)
    log.rewind(run.step)
