"""Stage: train a voice, or resume training it."""

import contextlib
import time
from dataclasses import dataclass, field, replace

import torch

from ..assets.registry import base_files
from ..errors import RVCError
from ..progress import Budget, Progress, Report, Silent, Stop, counted
from ..settings import RuntimeSettings, TrainSettings
from ..system.devices import choose_device, refuse_unbuilt
from ..system.files import remove_leftovers, write_json
from ..workspace.checkpoint import load_newest
from ..workspace.filelist import rebase_filelist
from ..workspace.layout import Layout
from ..workspace.manifest import ExperimentRecord
from ..workspace.metrics import MetricsLog, NoLog, history, row_of
from ..workspace.retention import checkpoint_rows
from ..workspace.rvc_config import experiment_config
from ..workspace.stamps import stamp
from ..workspace.voice_file import load_voice
from . import start
from .distributed import Ranks, joined, own_device
from .guards import alone, budget_of, gentle_interrupt, storage_named
from .pace import Pace
from .position import Position
from .precision import DTYPES, Precision, choose_precision
from .step import Networks
from .trainer import Trainer
from .validate import Examiner

_STOPPED = ("training was stopped before the first step", "run the same command again to begin")
_NOTHING = {  # what ended a training that has no step yet: the message and the hint
    "time": ("the time ended before the first step", "raise max_minutes, or begin a new session"),
    "interrupt": _STOPPED,
    "stop": _STOPPED,
}


@dataclass(frozen=True)
class TrainReport(Report):
    """What a training did.

    Attributes
    ----------
    stopped_by : str
        ``epochs``, ``time``, ``stop``, ``interrupt``, or ``verdict``, see `TrainSettings.auto_stop`.
    resumed_from : int or None
        Step of the checkpoint from which it resumed.
    averaged_from : int or None
        If the voice is an average of saved voices: the epoch of the first of them.
    heldout_mel_first, heldout_mel_last : float or None
        First and newest validation of the experiment; None without held-out recordings.
    skipped : int
        Steps that were skipped because of NaN losses.
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
    warnings: list[str] = field(default_factory=list)
    averaged_from: int | None = None


def train(
    layout: Layout,
    settings: TrainSettings,
    *,
    runtime: RuntimeSettings = RuntimeSettings(),
    progress: Progress = Silent(),
    stop: Stop | None = None,
) -> TrainReport:
    """Train until the epochs or minutes are over, or you stop it; the same call resumes.

    Parameters
    ----------
    layout : Layout
        An experiment whose features were extracted.
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
        When losses stay NaN whatever is tried; the last checkpoint is untouched.
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
        end = _end_of(layout, settings.epochs)
        if not ranks.most(end is None) and end:  # said at once: nothing is loaded
            return _report(layout, end, end.step, "epochs", started, progress)
        stops = {"interrupt": interrupt, "stop": Stop(layout.stop), "asked": stop or Stop()}
        with contextlib.closing(open_trainer(layout, settings, runtime, progress, ranks, budget)) as trainer:
            if trainer.position.step == 0 and not interrupt.requested:
                trainer.validate()
            trainer.recall()
            stopped_by = trainer.fit(stops)
            if not trainer.position.step:
                raise RVCError(*_NOTHING[stopped_by])
            if stopped_by == "interrupt":
                trainer.save(with_voice=False)  # first: another Ctrl-C may end the work on what follows
            progress.start("saving and opening again", 1)
            if ranks.is_first:
                trainer.finish()
            progress.advance(layout.final_voice.name)
        ranks.wait()
        layout.stop.unlink(missing_ok=True)
    return _report(layout, trainer.position, trainer.saves.resumed_step, stopped_by, started, progress)


def _report(
    layout: Layout, position: Position, resumed: int | None, stopped_by: str, started: float, progress: Progress
) -> TrainReport:
    rows, warnings = history(layout), []
    mels = [row["heldout/mel"] for row in rows if row["kind"] == "validation" and "heldout/mel" in row]
    if position.step == resumed:
        already = f": it has {counted(position.epoch, 'epoch')} already; set epochs above {position.epoch}"
        remedy = {"epochs": already, "time": "; raise max_minutes"}
        warnings = [f"no step of {layout.name!r} was trained{remedy.get(stopped_by, '')}"]
        progress.say(warnings[0])
    return TrainReport(
        epochs=position.epoch,
        steps=position.step,
        stopped_by=stopped_by,
        resumed_from=resumed,
        voice=str(layout.final_voice),
        heldout_mel_first=mels[0] if mels else None,
        heldout_mel_last=mels[-1] if mels else None,
        seconds=round(time.monotonic() - started, 1),
        skipped=sum(row["kind"] == "skipped" for row in rows),
        warnings=warnings,
        averaged_from=row_of(layout, layout.final_voice).get("from_epoch"),
    )


def _end_of(layout: Layout, epochs: int) -> Position | None:
    """Where a training is that has so many epochs, with a checkpoint and a voice of its end; None: it goes on."""
    for newest in checkpoint_rows(layout)[-1:]:
        files = [layout.final_voice, *(layout.root / name for name in newest["sha256"])]
        if newest["epoch"] >= epochs and all(file.exists() for file in files):
            step = newest["step"]
            return Position(step, newest["epoch"]) if load_voice(files[0]).info.step == step else None
    return None


# -- beginning -----------------------------------------------------------------------------------------------------
def open_trainer(
    layout: Layout, settings: TrainSettings, runtime: RuntimeSettings, progress: Progress, ranks: Ranks, budget: Budget
) -> Trainer:
    """A trainer at the newest checkpoint of its experiment, or at base weights before the first.

    Raises
    ------
    StageOrderError, DatasetError, WeightsError, CheckpointError, MismatchError, ResourceError
        Each with its remedy; nothing has been changed then.
    """
    with ranks.in_turn():  # the first process tidies up; the others find it done
        trainer = _opened(layout, settings, runtime, progress, ranks, budget)
    position = trainer.position
    mine = (settings.stamp(), position.step, position.epoch, position.place, len(trainer.clips))
    ranks.refuse_different(mine)
    _agree(trainer)
    log = MetricsLog if ranks.is_first else NoLog
    trainer.log = log(layout, steps_per_epoch=trainer.steps_per_epoch, resumed_step=position.step)
    return trainer


def _opened(
    layout: Layout, settings: TrainSettings, runtime: RuntimeSettings, progress: Progress, ranks: Ranks, budget: Budget
) -> Trainer:
    record, checkpoint = ExperimentRecord.load(layout), load_newest(layout)
    spec = replace(record.spec, mel_epsilons=settings.mel_epsilons)
    if checkpoint is None:
        base_files(spec, settings.base_generator, settings.base_discriminator)  # missing ones are named first
    if ranks.is_first:
        remove_leftovers(layout.root)
        rebase_filelist(layout)
    device = torch.device(own_device(choose_device(runtime.device).name))
    pace = Pace(device, runtime.threads, budget)
    data = start.load_data(layout, spec, record.speaker_names, settings, device)
    asked = settings.stamp()
    if settings.batch_size == "auto":  # the checkpoint's, so that another card resumes with the same batches
        known = checkpoint.state.get("clips_per_step", 0) if checkpoint else 0
        size = max(1, known // ranks.count) if known else start.measured_batch_size(spec, data.clips, settings, device)
        settings = settings.model_copy(update={"batch_size": size})
    networks = Networks.fresh(spec, seed=settings.seed, device=device)
    trainer = Trainer(layout, settings, ranks, networks, data, pace)
    trainer.progress = progress
    trainer.portions.tell = progress.say
    if ranks.is_first:
        trainer.validation.examiner = Examiner(
            layout, spec, data.info, data.heldout, unlike=settings.unlike, device=str(device)
        )
    start.ensure_room_for_checkpoints(layout, networks, settings.keep_checkpoints, progress)
    how = trainer.load(checkpoint)
    trainer.saves.resumed_step = trainer.position.step if checkpoint else None
    wanted = "fp32" if trainer.caution.only_fp32 else settings.precision
    precision = choose_precision(wanted, networks, data.clips[0])
    networks.compute_in(precision.dtype, scaler=checkpoint.state.get("scaler") if checkpoint else None)
    if ranks.is_first:
        stamp(layout, "train", {"settings": asked})
        config = experiment_config(spec, settings, trainer.batch_size, trainer.learning_rate)
        write_json(layout.config, config)
    _announce(trainer, precision, how)
    return trainer


def _agree(trainer: Trainer) -> None:
    """Let all processes take the smallest batch that one of them has room for, and one number format."""
    ranks, networks = trainer.ranks, trainer.networks
    smallest = -ranks.most(-trainer.batch_size)
    trainer.settings = trainer.settings.model_copy(update={"batch_size": smallest})
    trainer.portions.clips = smallest
    place = list(DTYPES.values()).index(networks.dtype)
    if ranks.most(place) != -ranks.most(-place):
        networks.compute_in(torch.float32)


def _announce(trainer: Trainer, precision: Precision, how: str) -> None:
    """Say what is trained, on what, and what validation goes without."""
    ranks, clips = trainer.ranks, f"{trainer.batch_size} = {trainer.clips_per_step} clips a step"
    together = f" and {ranks.count - 1} more, {ranks.count} × {clips}" if ranks.count > 1 else ""
    trainer.progress.say(
        f"training {trainer.layout.name!r} on {trainer.networks.device}{together} in {precision.name} "
        f"({precision.reason}): {how}; {len(trainer.clips)} clips, {trainer.steps_per_epoch} steps per epoch, "
        f"{len(trainer.validation.clips)} held-out clips"
    )
    examiner = trainer.validation.examiner
    for gap in examiner.missing if examiner else ():
        trainer.progress.say(f"validation goes without this: {gap}")
