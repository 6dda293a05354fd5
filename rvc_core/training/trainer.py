"""Stage: train a voice. Moves the networks, writes checkpoints, voices and metrics; the same call continues.

Every random draw is a function of (seed, epoch, batch, clip), so a run that was killed and continued ends where an
uninterrupted one would: on a CPU to the bit, if `threads` is a number, which fixes the order of sums. Checkpoints are
copied in memory and written by a thread while training goes on. Of several processes (ranks.py) only the first judges,
speaks and writes.
"""

import contextlib
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch

from ..errors import CheckpointError, ResourceError, StorageError
from ..nn.spectrogram import mel_spectrogram
from ..progress import Budget, Progress, Silent, Stop
from ..settings import RuntimeSettings, TrainSettings
from ..system.devices import choose_device, refuse_unbuilt
from ..system.files import write_json
from ..verdict.overtraining import should_stop, verdict_of_experiment
from ..workspace.checkpoint import Checkpoint, load_newest, on_host, save_checkpoint
from ..workspace.layout import Layout
from ..workspace.metrics import PICTURE_INTERVAL_STEPS, MetricsLog, NoLog, history
from ..workspace.retention import prune_voices
from ..workspace.voice_file import VoiceFile, load_voice, save_voice, synthesizer_of
from .distributed import joined, own_device
from .guards import alone, budget_of, gentle_interrupt, storage_named
from .recovery import DIVERGED, end_before, record, recover
from .run import Run, Saving, agree, open_run
from .step import train_step
from .validate import speak

_SILENT = 1e-6  # of full scale: less is no voice
_VALIDATION_SHARE = 0.05  # of the time in steps
_ENDINGS = ("", "time", "stop", "interrupt")  # where processes differ, the last of them counts


@dataclass(frozen=True)
class TrainReport:
    """What a training did.

    Attributes
    ----------
    stopped_by : str
        ``epochs``, ``time``, ``stop``, ``interrupt``, or ``verdict``, see `TrainSettings.auto_stop`.
    resumed_from : int or None
        Step of the checkpoint that this run continued from.
    heldout_mel_first, heldout_mel_last : float or None
        First and newest validation of the experiment; None without held-out recordings.
    skipped : int
        Steps that moved nothing, as their losses were no numbers.
    """

    epochs: int
    steps: int
    stopped_by: str
    resumed_from: int | None
    voice: str
    heldout_mel_first: float | None
    heldout_mel_last: float | None
    seconds: float
    skipped: int

    def as_json(self) -> dict[str, Any]:
        """For ``--json``."""
        return asdict(self)


def train(
    layout: Layout,
    settings: TrainSettings,
    *,
    runtime: RuntimeSettings = RuntimeSettings(),
    progress: Progress = Silent(),
    stop: Stop | None = None,
) -> TrainReport:
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
    StorageError
        When the experiment's folder cannot be written, or is gone; what was saved there is untouched.
    DivergedError
        When losses stay without numbers, whatever is tried; the last checkpoint is untouched.
    """
    started = time.monotonic()
    refuse_unbuilt(runtime.device)
    with (
        joined(own_device(choose_device(runtime.device).name)) as ranks,
        storage_named(layout),
        alone(layout, ranks),
        gentle_interrupt() as interrupt,
    ):
        progress = progress if ranks.is_first else Silent()
        budget = budget_of(settings, progress)
        layout.stop.unlink(missing_ok=True)
        with ranks.in_turn():  # the first tidies up; the others find it done
            run = open_run(layout, settings, runtime, progress, ranks=ranks)
        ranks.refuse_different((settings.stamp(), run.step, run.epoch, run.position, len(run.clips)))
        agree(run)
        stops = {"interrupt": interrupt, "stop": Stop(layout.stop), "asked": stop or Stop()}
        stopped_by = _to_the_end(run, budget, progress, stops)
        ranks.wait()
        layout.stop.unlink(missing_ok=True)
    return _report(run, stopped_by, round(time.monotonic() - started, 1))


def _to_the_end(run: Run, budget: Budget, progress: Progress, stops: dict[str, Stop]) -> str:
    """Train, save, open again; returns what ended it."""
    log = (MetricsLog if run.ranks.is_first else NoLog)(
        run.layout, steps_per_epoch=run.steps_per_epoch, resumed_step=run.step
    )
    with contextlib.closing(log), run.writer:
        if run.step == 0:
            _validate(run, log, progress)
        _recollect(run, log)
        stopped_by = _fit(run, log, budget, progress, stops)
        progress.start("saving and opening again", 1)
        if run.ranks.is_first:
            _finish(run, log, progress)
            _judge(run, progress, running=False)
        progress.advance(run.layout.final_voice.name)
    return stopped_by


def _report(run: Run, stopped_by: str, seconds: float) -> TrainReport:
    rows = history(run.layout)
    mels = [row["heldout/mel"] for row in rows if row["kind"] == "validation" and "heldout/mel" in row]
    first, last = (mels[0], mels[-1]) if mels else (None, None)
    return TrainReport(
        run.epoch,
        run.step,
        stopped_by,
        run.resumed_from,
        str(run.layout.final_voice),
        first,
        last,
        seconds,
        sum(row["kind"] == "skipped" for row in rows),
    )


# -- the loop ------------------------------------------------------------------------------------------------------
def _fit(run: Run, log: MetricsLog, budget: Budget, progress: Progress, stops: dict[str, Stop]) -> str:
    """Epoch after epoch; returns what ended it."""
    settings = run.settings
    progress.start("training", run.steps_left)
    run.portions.tell = progress.say
    while run.epoch < settings.epochs:
        ended_by = _epoch(run, log, budget, progress, stops)
        if ended_by == DIVERGED:
            _settle(run, log, progress, wait=True)
            recover(run, log, progress)
            _recollect(run, log)
            progress.start("training", run.steps_left)
            continue
        if ended_by:
            return ended_by
        run.epoch, run.position = run.epoch + 1, 0
        log.epoch(run.step)
        if run.epoch < settings.epochs and _validation_is_due(run):
            _validate(run, log, progress)
        if run.epoch < settings.epochs and run.epoch % settings.save_every_epochs == 0:
            _save(run, log, progress, with_voice=True)
        enough = settings.auto_stop and run.verdict and should_stop(run.verdict, settings.auto_stop)
        if run.verdict and enough:
            progress.say(f"training ends by itself: {run.verdict.sentence}")
        if run.ranks.most(bool(enough)):
            return "verdict"
    return "epochs"


def _epoch(run: Run, log: MetricsLog, budget: Budget, progress: Progress, stops: dict[str, Stop]) -> str | None:
    """The rest of one pass over the clips; returns what ended it early, if anything did."""
    settings = run.settings
    run.networks.set_learning_rate(run.learning_rate * settings.learning_rate_decay**run.epoch)
    batches = run.clips.batches(
        run.clips_per_step,
        seed=(settings.seed, run.epoch),
        skip=run.position,
        device=run.device,
        place=(run.ranks.rank, run.ranks.count),
    )
    for batch in batches:
        if ending := _ending(run, budget, stops):
            return ending
        began = time.monotonic()
        result = train_step(
            run.networks, batch, run.spec, epsilons=settings.mel_epsilons, ranks=run.ranks, portions=run.portions
        )
        values = result.values()
        run.step, run.position, run.newest = run.step + 1, run.position + 1, result
        values["learning_rate"] = run.networks.generator_optimizer.param_groups[0]["lr"]
        if not record(run, log, progress, values):
            return DIVERGED
        if run.step % PICTURE_INTERVAL_STEPS == 0:
            _show_mels(run, log)
        run.step_seconds = [*run.step_seconds[-49:], time.monotonic() - began]
        run.trained_seconds += run.step_seconds[-1]
        run.tuner.record(run.step_seconds[-1])
        torch.set_num_threads(run.tuner.threads)
        progress.advance(run.note(values, budget))
        _settle(run, log, progress, wait=False)
        if time.monotonic() - run.saved_at > 60 * settings.save_every_minutes and run.position < run.steps_per_epoch:
            _save(run, log, progress, with_voice=False)
    return None


def _ending(run: Run, budget: Budget, stops: dict[str, Stop]) -> str:
    """What ends training before the next step, nothing if nothing does: the same for all processes."""
    asked = [name for name, stop in stops.items() if stop.requested]
    if asked:
        wish = "interrupt" if asked[0] == "interrupt" else "stop"
    else:
        wish = "" if budget.allows(run.pace + run.validation_seconds + run.save_seconds) else "time"
    return _ENDINGS[run.ranks.most(_ENDINGS.index(wish))]


def _recollect(run: Run, log: MetricsLog) -> None:
    """What unheard recordings said last, and the voice that was written when the training was killed."""
    newest = log.validations[-1] if log.validations else {}
    run.judgement = {name: value for name, value in newest.items() if name not in ("kind", "step", "epoch")}
    run.verdict = verdict_of_experiment(run.layout) if log.validations else None
    voice = run.layout.voice(run.epoch, run.step)
    if run.resumed_from is not None and voice.exists() and voice.name not in {row["path"] for row in log.voices}:
        log.voice(run.step, run.epoch, voice.name, run.judgement)


def _validation_is_due(run: Run) -> bool:
    every = run.settings.validate_every_epochs
    return run.epoch % every == 0 if every else run.trained_seconds * _VALIDATION_SHARE >= run.validation_seconds


def _validate(run: Run, log: MetricsLog, progress: Progress) -> None:
    """Hear the voice, record what was found, and judge the training so far."""
    if run.examiner is None:
        return
    began = time.monotonic()
    findings = run.examiner(run.networks.generator)
    if findings.values:
        run.judgement = findings.values
        log.validation(run.step, run.epoch, run.judgement, findings.sounds)
        _judge(run, progress)
    run.trained_seconds, run.validation_seconds = 0.0, time.monotonic() - began


def _judge(run: Run, progress: Progress, *, running: bool = True) -> None:
    """Write the verdict, and say what has gone wrong since the last one."""
    known = {failure.name for failure in run.verdict.failures} if run.verdict else set()
    run.verdict = replace(verdict_of_experiment(run.layout), running=running)
    write_json(run.layout.verdict, run.verdict.as_json())
    for failure in run.verdict.failures:
        if failure.name not in known:
            progress.say(f"{failure.name} since epoch {failure.epoch}: {failure.look}. What to do: {failure.remedy}")


def _show_mels(run: Run, log: MetricsLog) -> None:
    if run.newest is not None:
        log.mel("slice/mel_org", run.newest.mel_real.cpu().numpy(), run.step)
        log.mel("slice/mel_gen", run.newest.mel_generated.cpu().numpy(), run.step)
        whole = mel_spectrogram(run.clips[0].wave[None], run.spec, run.settings.mel_epsilons)
        log.mel("all/mel", whole[0].cpu().numpy(), run.step)


# -- what stays ----------------------------------------------------------------------------------------------------
def _save(run: Run, log: MetricsLog, progress: Progress, *, with_voice: bool) -> None:
    """Copy a complete checkpoint, and write it, and the voice of this moment if asked, while training goes on."""
    if not run.ranks.is_first or run.odd_steps:
        return
    _settle(run, log, progress, wait=True)
    networks = run.networks
    log.flush()  # a checkpoint must not know steps that the record does not
    generator, discriminator = (
        on_host(
            {
                "model": network.state_dict(),
                "iteration": run.epoch,
                "optimizer": optimizer.state_dict(),
                "learning_rate": run.learning_rate,
            }
        )
        for network, optimizer in (
            (networks.generator, networks.generator_optimizer),
            (networks.discriminator, networks.discriminator_optimizer),
        )
    )
    checkpoint = Checkpoint(run.step, generator, discriminator, run.continuation())
    voice = run.layout.voice(run.epoch, run.step) if with_voice else None
    run.saved_at = time.monotonic()
    run.saving = Saving(run.step, run.epoch, voice, run.judgement, run.writer.submit(_write, run, checkpoint, voice))
    if with_voice:
        _show_mels(run, log)


def _write(run: Run, checkpoint: Checkpoint, voice: Path | None) -> float:
    """The writing thread's work; returns its seconds."""
    began = time.monotonic()
    if not run.layout.root.is_dir():
        raise StorageError(
            f"{run.layout.root} is gone",
            hint=("bring that storage back; the same command continues from the last checkpoint there"),
        )
    if voice:
        _save_voice(run, voice, checkpoint)  # first: what is after a complete checkpoint, a kill might leave out
    if run.saved_step != checkpoint.step:  # a set is never written over: it may be the only one
        save_checkpoint(run.layout, checkpoint, keep=run.settings.keep_checkpoints)
    return time.monotonic() - began


def _save_voice(run: Run, path: Path, checkpoint: Checkpoint) -> None:
    info = replace(run.info, epoch=checkpoint.generator["iteration"], step=checkpoint.step)
    save_voice(path, VoiceFile(run.spec, checkpoint.generator["model"], info))


def _settle(run: Run, log: MetricsLog, progress: Progress, *, wait: bool) -> None:
    """Take note of a checkpoint that is written by now; one that found no room leaves the one before."""
    saving = run.saving
    if saving is None or not (wait or saving.written.done()):
        return
    run.saving = None
    try:
        run.save_seconds = saving.written.result()
    except ResourceError as error:
        before = f"the one of step {run.saved_step} is kept" if run.saved_step >= 0 else "there is none before it"
        progress.say(f"the checkpoint of step {saving.step} was not saved, {before}: {error} ({error.hint})")
        return
    run.saved_step = saving.step
    if saving.voice:
        log.voice(saving.step, saving.epoch, saving.voice.name, saving.judgement)
        ranking = run.verdict.ranking if run.verdict else []
        names = {row["step"]: row["path"] for row in log.voices}
        ranks = {names[step]: rank for rank, step in enumerate([*ranking, saving.step]) if step in names}
        prune_voices(run.layout, ranks if ranking else {}, keep=run.settings.keep_voices)


def _finish(run: Run, log: MetricsLog, progress: Progress) -> None:
    """Validate and save; then read the checkpoint again, and hear the voice, before anybody calls it done."""
    layout = run.layout
    _settle(run, log, progress, wait=True)
    if run.odd_steps:
        end_before(run, log)
    if run.saved_step != run.step or not layout.voice(run.epoch, run.step).exists():
        _validate(run, log, progress)
        _save(run, log, progress, with_voice=True)
        _settle(run, log, progress, wait=True)
    checkpoint = load_newest(layout)
    if checkpoint is None or run.saved_step != run.step:
        raise ResourceError(
            f"step {run.step} could not be saved: there is no room in {layout.root}",
            hint=(f"free some space; the same command continues from step {max(0, run.saved_step)}"),
        )
    _save_voice(run, layout.final_voice, checkpoint)
    _refuse_unheard(run, load_voice(layout.final_voice))


def _refuse_unheard(run: Run, voice: VoiceFile) -> None:
    """Let the voice that was written speak three seconds of a clip."""
    clip = (run.heldout if len(run.heldout) else run.clips)[0]
    audio = speak(synthesizer_of(voice).to(run.device), clip.excerpt(0, 300))
    if voice.info.step != run.step or not audio.isfinite().all() or audio.std() < _SILENT:
        raise CheckpointError(
            f"{run.layout.final_voice.name} does not speak as it should after it was written",
            hint="check the disk, then run the same command: the checkpoint is there",
        )
