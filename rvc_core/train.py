"""Stage: train a voice. Moves the networks, writes checkpoints, voices and metrics; the same call continues.

Every random draw is a function of (seed, epoch) or (seed, step), so a run that was killed and continued ends where an
uninterrupted one would: on a CPU to the bit, if `threads` is a number, which fixes the order of sums.
"""

import contextlib
import fcntl
import math
import signal
import threading
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch

from .checkpoint import Checkpoint, save_checkpoint
from .errors import CheckpointError, DivergedError, ResourceError
from .gan import train_step
from .layout import Layout
from .metrics import PICTURE_INTERVAL_STEPS, MetricsLog, history
from .nn.spectrogram import mel_spectrogram
from .progress import Budget, Progress, Silent, Stop
from .run import Run, open_run
from .settings import RuntimeSettings, TrainSettings
from .validate import heldout_mel
from .voice_file import VoiceFile, load_voice, save_voice


@dataclass(frozen=True)
class TrainReport:
    """What a training did.

    Attributes
    ----------
    stopped_by : str
        ``epochs``, ``time``, ``stop`` or ``interrupt``.
    resumed_from : int or None
        Step of the checkpoint that this run continued from.
    heldout_mel_first, heldout_mel_last : float or None
        First and newest validation of the experiment; None without held-out recordings.
    """

    epochs: int
    steps: int
    stopped_by: str
    resumed_from: int | None
    voice: str
    heldout_mel_first: float | None
    heldout_mel_last: float | None
    seconds: float

    def as_json(self) -> dict[str, Any]:
        """For ``--json``."""
        return asdict(self)


def train(layout: Layout, settings: TrainSettings, *, runtime: RuntimeSettings = RuntimeSettings(),
          progress: Progress = Silent(), stop: Stop | None = None) -> TrainReport:
    """Train until the epochs, the minutes or somebody's patience end; a later call continues.

    Parameters
    ----------
    layout : Layout
        An experiment whose features were extracted.
    settings : TrainSettings
    runtime : RuntimeSettings
    progress : Progress
    stop : Stop, optional
        Ends training after the running step, and saves. So do a file ``STOP`` in the experiment, and Ctrl-C; a second
        Ctrl-C ends at once.

    Raises
    ------
    StageOrderError, DatasetError, WeightsError, CheckpointError, MismatchError, ResourceError
        Before the first step, each with its remedy; `ResourceError` also when memory or disk runs out.
    DivergedError
        When a loss is no longer finite; the last checkpoint is untouched.
    """
    started = time.monotonic()
    budget = Budget(settings.max_minutes)
    with _alone(layout), _gentle_interrupt() as interrupt:
        layout.stop.unlink(missing_ok=True)
        run = open_run(layout, settings, runtime, progress)
        log = MetricsLog(layout, steps_per_epoch=run.steps_per_epoch, resumed_step=run.step)
        stops = {"interrupt": interrupt, "stop": Stop(layout.stop), "asked": stop or Stop()}
        try:
            if run.step == 0:
                _validate(run, log)
            stopped_by = _fit(run, log, budget, progress, stops)
            voice = _finish(run, log)
        finally:
            log.close()
    mels = [row["heldout/mel"] for row in history(layout) if row["kind"] == "validation" and "heldout/mel" in row]
    first, last = (mels[0], mels[-1]) if mels else (None, None)
    return TrainReport(run.epoch, run.step, stopped_by, run.resumed_from, str(voice), first, last,
                       round(time.monotonic() - started, 1))


@contextlib.contextmanager
def _alone(layout: Layout) -> Iterator[None]:
    """Refuse to train where somebody trains already: two would write into each other's checkpoints."""
    if not layout.root.is_dir():
        yield                      # there is nothing to guard; opening the run says what is missing
        return
    with layout.lock.open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise ResourceError(f"{layout.name!r} is being trained already",
                                hint=f"wait for it, or end it by creating {layout.stop}") from error
        yield


@contextlib.contextmanager
def _gentle_interrupt() -> Iterator[Stop]:
    """Turn the first Ctrl-C into a wish to stop: between two optimizers' moves there is nothing worth saving."""
    stop = Stop()
    if threading.current_thread() is not threading.main_thread():
        yield stop                 # only the main thread is told of signals
        return

    def ask(*_: object) -> None:
        stop.request()
        signal.signal(signal.SIGINT, before)
    before = signal.signal(signal.SIGINT, ask)
    try:
        yield stop
    finally:
        signal.signal(signal.SIGINT, before)


# -- the loop ------------------------------------------------------------------------------------------------------
def _fit(run: Run, log: MetricsLog, budget: Budget, progress: Progress, stops: dict[str, Stop]) -> str:
    """Epoch after epoch; returns what ended it."""
    settings = run.settings
    progress.start("training", max(0, (settings.epochs - run.epoch) * run.steps_per_epoch - run.position))
    while run.epoch < settings.epochs:
        try:
            ended_by = _epoch(run, log, budget, progress, stops)
        except torch.OutOfMemoryError as error:
            raise ResourceError(f"memory ran out at step {run.step + 1}",
                                hint=f"the same command with --batch-size {max(1, settings.batch_size // 2)} continues "
                                     "from the last checkpoint") from error
        if ended_by:
            return ended_by
        run.epoch, run.position = run.epoch + 1, 0
        log.epoch(run.step)
        if run.epoch < settings.epochs and run.epoch % settings.validate_every_epochs == 0:
            _validate(run, log)
        if run.epoch < settings.epochs and run.epoch % settings.save_every_epochs == 0:
            _save(run, log)
    return "epochs"


def _epoch(run: Run, log: MetricsLog, budget: Budget, progress: Progress, stops: dict[str, Stop]) -> str | None:
    """The rest of one pass over the clips; returns what ended it early, if anything did."""
    settings = run.settings
    run.networks.set_learning_rate(run.learning_rate * settings.learning_rate_decay ** run.epoch)
    batches = run.clips.batches(settings.batch_size, seed=(settings.seed, run.epoch), skip=run.position,
                                device=run.device)
    for batch in batches:
        if asked := [name for name, stop in stops.items() if stop.requested]:
            return "interrupt" if asked[0] == "interrupt" else "stop"
        if not budget.allows(run.pace + run.validation_seconds + run.save_seconds):
            return "time"
        began = time.monotonic()
        torch.manual_seed(settings.seed * 1_000_003 + run.step)   # every draw of the step follows from its number
        result = train_step(run.networks, batch, run.spec, epsilons=settings.mel_epsilons)
        values = result.values()
        _refuse_divergence(run, values)
        run.step, run.position, run.newest = run.step + 1, run.position + 1, result
        values["learning_rate"] = run.networks.generator_optimizer.param_groups[0]["lr"]
        log.step(run.step, run.epoch + 1, values)
        if run.step % PICTURE_INTERVAL_STEPS == 0:
            _show_mels(run, log)
        run.step_seconds = [*run.step_seconds[-49:], time.monotonic() - began]
        run.tuner.record(run.step_seconds[-1])
        torch.set_num_threads(run.tuner.threads)
        progress.advance(_note(run, values))
    return None


def _refuse_divergence(run: Run, values: dict[str, float]) -> None:
    if bad := [tag for tag, value in values.items() if not math.isfinite(value)]:
        raise DivergedError(f"step {run.step + 1}: {bad[0]} is not finite",
                            hint=f"continue from the last checkpoint with --learning-rate {run.learning_rate / 2:g}")


def _note(run: Run, values: dict[str, float]) -> str:
    left = ((run.settings.epochs - run.epoch) * run.steps_per_epoch - run.position) * run.pace
    return (f"epoch {run.epoch + 1}/{run.settings.epochs} · mel {values['loss/g/mel']:.1f} · "
            f"{run.pace:.2f} s a step · {left / 60:.0f} min left")


def _validate(run: Run, log: MetricsLog) -> None:
    if len(run.heldout):
        began = time.monotonic()
        mel = heldout_mel(run.networks.generator, run.heldout, run.spec, epsilons=run.settings.mel_epsilons)
        log.validation(run.step, run.epoch, {"heldout/mel": mel})
        run.validation_seconds = time.monotonic() - began


def _show_mels(run: Run, log: MetricsLog) -> None:
    if run.newest is not None:
        log.mel("slice/mel_org", run.newest.mel_real.cpu().numpy(), run.step)
        log.mel("slice/mel_gen", run.newest.mel_generated.cpu().numpy(), run.step)
        whole = mel_spectrogram(run.clips[0].wave[None], run.spec, run.settings.mel_epsilons)
        log.mel("all/mel", whole[0].numpy(), run.step)


# -- what stays ----------------------------------------------------------------------------------------------------
def _save(run: Run, log: MetricsLog) -> None:
    """Write a complete checkpoint and the voice of this moment."""
    began = time.monotonic()
    networks, settings = run.networks, run.settings
    log.flush()                    # a checkpoint must not know steps that the record does not
    generator, discriminator = (
        {"model": network.state_dict(), "iteration": run.epoch, "optimizer": optimizer.state_dict(),
         "learning_rate": run.learning_rate}
        for network, optimizer in ((networks.generator, networks.generator_optimizer),
                                   (networks.discriminator, networks.discriminator_optimizer)))
    save_checkpoint(run.layout, Checkpoint(run.step, generator, discriminator, run.continuation()),
                    keep=settings.keep_checkpoints)
    voice = run.layout.voice(run.epoch, run.step)
    _save_voice(run, voice)
    _show_mels(run, log)
    log.voice(run.step, run.epoch, voice.name)
    run.saved_step, run.save_seconds = run.step, time.monotonic() - began


def _save_voice(run: Run, path: Path) -> None:
    info = replace(run.info, epoch=run.epoch, step=run.step)
    save_voice(path, VoiceFile(run.spec, run.networks.generator.state_dict(), info))


def _finish(run: Run, log: MetricsLog) -> Path:
    """Validate, save, and open the final voice again before anybody calls it done."""
    if run.saved_step != run.step:
        _validate(run, log)
        _save(run, log)
    _save_voice(run, run.layout.final_voice)
    reopened = load_voice(run.layout.final_voice)
    if reopened.info.step != run.step or reopened.spec.sample_rate != run.spec.sample_rate:
        raise CheckpointError(f"{run.layout.final_voice.name} does not read back as it was written",
                              hint="check the disk, then run the same command: the checkpoint is there")
    return run.layout.final_voice
