"""A training run: what it carries from step to step, how it begins, and how it continues from a checkpoint."""

import math
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ..assets.registry import base_files
from ..errors import DatasetError, MismatchError, ResourceError
from ..features.content import content_name
from ..nn.loading import load_strictly
from ..presets import VoiceSpec
from ..progress import Budget, Progress
from ..settings import RuntimeSettings, TrainSettings
from ..system.devices import choose_device
from ..system.files import ensure_room, remove_leftovers, write_json
from ..system.threads import ThreadTuner
from ..verdict.overtraining import Verdict
from ..workspace import stamps
from ..workspace.checkpoint import Checkpoint, continue_optimizer, load_base, load_newest
from ..workspace.dataset import Batch, ClipStore
from ..workspace.filelist import read_filelist, rebase_filelist
from ..workspace.layout import LATEST_ONLY, Layout
from ..workspace.manifest import ExperimentRecord
from ..workspace.rvc_config import experiment_config
from ..workspace.voice_file import VoiceInfo, median_f0_hz, voice_info
from .distributed import ALONE, Ranks, own_device
from .memory import MOST_CLIPS, DeviceUse, Portions, available_bytes, largest_batch, measured_memory
from .precision import DTYPES, Precision, choose_precision, native_precision
from .step import Networks, StepResult, train_step
from .validate import Examiner, heldout_files

_RESIDENT_SHARE = 0.25  # of a GPU's memory, at the most, for clips: networks and batches need the rest


@dataclass(frozen=True)
class Saving:
    """A checkpoint on its way to the disk: `written` answers with the seconds that it took, or raises.

    `judgement` is what was known of the voice when it was copied; by the time it is written, another validation may
    have come.
    """

    step: int
    epoch: int
    voice: Path | None
    judgement: dict[str, float]
    written: Future[float]


@dataclass
class Run:
    """Everything that one training carries from step to step.

    Attributes
    ----------
    epoch, position, step : int
        Completed epochs, completed batches of the epoch that is running, completed steps since the very first.
    saved_step : int
        Step of the newest complete checkpoint; -1 before the first.
    saved_at : float
        When the last one was begun, in seconds of the monotonic clock.
    judgement : dict
        What the last validation found.
    trained_seconds : float
        Time in steps since that.
    portions : Portions
        How many clips pass through the networks at once.
    caution : float
        Factor on the step size: halved whenever training had to go back.
    only_fp32 : bool
        Whether that did not help, so that nothing else is tried any more.
    odd_steps : int
        Steps up to now, in a row, whose losses were not finite.
    setbacks : int
        How often in a row training went back to `setback_step`.
    """

    layout: Layout
    settings: TrainSettings
    spec: VoiceSpec
    device: torch.device
    tuner: ThreadTuner
    networks: Networks
    clips: ClipStore
    heldout: ClipStore
    info: VoiceInfo
    examiner: Examiner | None
    ranks: Ranks = ALONE
    epoch: int = 0
    position: int = 0
    step: int = 0
    saved_step: int = -1
    saved_at: float = field(default_factory=time.monotonic)
    saving: Saving | None = None
    writer: ThreadPoolExecutor = field(default_factory=lambda: ThreadPoolExecutor(1, "checkpoint"))
    judgement: dict[str, float] = field(default_factory=dict)
    resumed_from: int | None = None
    newest: StepResult | None = None
    step_seconds: list[float] = field(default_factory=list)
    validation_seconds: float = 0.0
    trained_seconds: float = 0.0
    verdict: Verdict | None = None
    save_seconds: float = 2.0
    portions: Portions = field(init=False)
    use: DeviceUse = field(init=False)
    caution: float = 1.0
    only_fp32: bool = False
    odd_steps: int = 0
    setbacks: int = 0
    setback_step: int = -1

    def __post_init__(self) -> None:
        self.portions, self.use = Portions(self.batch_size), DeviceUse(self.device)

    @property
    def batch_size(self) -> int:
        """Clips of this process in one step: measured by now, if it was to be."""
        assert self.settings.batch_size != "auto"
        return self.settings.batch_size

    @property
    def steps_per_epoch(self) -> int:
        """Batches in one pass over the clips."""
        return math.ceil(len(self.clips) / self.clips_per_step)

    @property
    def steps_left(self) -> int:
        """To the last of the epochs."""
        return max(0, (self.settings.epochs - self.epoch) * self.steps_per_epoch - self.position)

    @property
    def clips_per_step(self) -> int:
        """Of all processes together."""
        return self.batch_size * self.ranks.count

    @property
    def learning_rate(self) -> float:
        """Step size of the first epoch."""
        chosen = self.settings.learning_rate
        return self.caution * (self.spec.learning_rate if chosen == "auto" else chosen)

    @property
    def pace(self) -> float:
        """Seconds of a usual step."""
        return float(np.median(self.step_seconds)) if self.step_seconds else 0.0

    def note(self, values: dict[str, float], budget: Budget) -> str:
        """Newest figures: speed, when all epochs are done or how many the time is enough for, what the device does."""
        left = self.steps_left * self.pace
        end = f"{left / 60:.0f} min left"
        if left > budget.left_seconds:
            fit = self.epoch + (self.position + budget.left_seconds / self.pace) / self.steps_per_epoch
            end = f"{max(0, budget.left_seconds) / 60:.0f} min left, enough for {fit:.0f} epochs"
        use = f" · {self.use}" if str(self.use) else ""
        failed = "".join(f" · {failure.name}!" for failure in self.verdict.failures) if self.verdict else ""
        return (
            f"epoch {self.epoch + 1}/{self.settings.epochs} · mel {values['loss/g/mel']:.1f} · "
            f"{self.pace:.2f} s a step · {end}{use}{failed}"
        )

    def continuation(self) -> dict[str, Any]:
        """What `state_<step>.pt` holds: the position, and what it depends on."""
        return {
            "epoch": self.epoch,
            "position": self.position,
            "settings": self.settings.stamp(),
            "clips_per_step": self.clips_per_step,
            "scaler": self.networks.scaler.state_dict(),
            "caution": self.caution,
            "only_fp32": self.only_fp32,
            "content_identity": self.info.content_identity,
            "data": stamps.stamp_of(self.layout, "prepare"),
        }


def open_run(
    layout: Layout, settings: TrainSettings, runtime: RuntimeSettings, progress: Progress, *, ranks: Ranks = ALONE
) -> Run:
    """Networks, data and position: from the newest checkpoint if there is one, else from the base weights.

    Raises
    ------
    StageOrderError, DatasetError, WeightsError, CheckpointError, MismatchError, ResourceError
        Each with its remedy; nothing has been changed then.
    """
    record = ExperimentRecord.load(layout)
    spec = record.spec
    checkpoint = load_newest(layout)
    bases = (None, None) if checkpoint else base_files(spec, settings.base_generator, settings.base_discriminator)
    if ranks.is_first:
        remove_leftovers(layout.root)
        rebase_filelist(layout)
    files = read_filelist(layout.filelist)
    if not files:
        raise DatasetError(f"{layout.filelist} names no clip", hint="run: rvc prepare, rvc extract")
    device = torch.device(own_device(choose_device(runtime.device).name))
    tuner = ThreadTuner(runtime.threads)
    torch.set_num_threads(tuner.threads)
    speakers = {
        name: median_f0_hz([file for file in files if file.speaker == row])
        for row, name in enumerate(record.speaker_names)
    }
    info = replace(voice_info(layout, files), mel_epsilons=settings.mel_epsilons, speakers=speakers)
    clips, heldout = (ClipStore(each, spec, settings.mel_epsilons) for each in (files, heldout_files(layout, spec)))
    if device.type == "cuda":
        torch.set_float32_matmul_precision("high")  # TF32, which convolutions use anyway
        clips.reside(device, _RESIDENT_SHARE * available_bytes(device))
    settings = _with_batch_size(
        settings, checkpoint, ranks.count, lambda: measured_batch_size(spec, clips, settings, device)
    )
    networks = Networks.fresh(spec, seed=settings.seed, device=device)
    examiner = (
        Examiner(
            layout, spec, info, heldout, unlike=settings.unlike, epsilons=settings.mel_epsilons, device=str(device)
        )
        if ranks.is_first
        else None
    )
    run = Run(layout, settings, spec, device, tuner, networks, clips, heldout, info, examiner, ranks)
    _ensure_room(run, progress)  # now, not after an hour of training
    how = _begin(run, bases) if checkpoint is None else _continue(run, checkpoint)
    precision = choose_precision(
        "fp32" if run.only_fp32 else settings.precision, run.networks, clips[0], spec, epsilons=settings.mel_epsilons
    )
    _compute_in(run, precision.dtype, checkpoint)
    if ranks.is_first:
        write_json(layout.config, experiment_config(run.spec, run.settings, run.batch_size, run.learning_rate))
    _announce(run, precision, how, progress)
    return run


def _with_batch_size(
    settings: TrainSettings, checkpoint: Checkpoint | None, processes: int, measured: Callable[[], int]
) -> TrainSettings:
    """Settings whose ``auto`` is a number: the checkpoint's, so that another card continues the same run."""
    if settings.batch_size != "auto":
        return settings
    known = checkpoint.state.get("clips_per_step", 0) if checkpoint else 0
    return settings.model_copy(update={"batch_size": max(1, known // processes) if known else measured()})


def _announce(run: Run, precision: Precision, how: str, progress: Progress) -> None:
    """Say what is trained, on what, and what validation goes without."""
    ranks = run.ranks
    together = (
        f" and {ranks.count - 1} more, {ranks.count} × {run.batch_size} = {run.clips_per_step} clips a step"
        if ranks.count > 1
        else ""
    )
    progress.say(
        f"training {run.layout.name!r} on {run.device}{together} in {precision.name} ({precision.reason}): "
        f"{how}; {len(run.clips)} clips, {run.steps_per_epoch} steps per epoch, {len(run.heldout)} held-out "
        "clips"
    )
    for gap in run.examiner.missing if run.examiner else []:
        progress.say(f"validation goes without this: {gap}")


def measured_batch_size(spec: VoiceSpec, clips: ClipStore, settings: TrainSettings, device: torch.device) -> int:
    """As many clips as fit into memory, by real steps of networks of their own with the longest clip there is."""
    networks = Networks.fresh(spec, seed=settings.seed, device=device)
    networks.compute_in(
        (native_precision(device) if settings.precision == "auto" else Precision(settings.precision, "")).dtype
    )
    longest = clips[max(range(len(clips)), key=lambda index: clips[index].frames)].excerpt(0, spec.excerpt_frames)

    def peak_bytes(count: int) -> int:
        portions = Portions(count)
        with measured_memory(device) as memory:
            train_step(
                networks, Batch.of([longest] * count, device), spec, epsilons=settings.mel_epsilons, portions=portions
            )
        if portions.clips < count:
            raise torch.OutOfMemoryError(f"{count} clips do not fit")
        return memory.peak_bytes

    return largest_batch(peak_bytes, available_bytes(device), most=min(len(clips), MOST_CLIPS))


def agree(run: Run) -> None:
    """Let all processes take the smallest batch that one of them has room for, and one number format."""
    smallest = -run.ranks.most(-run.batch_size)
    run.settings = run.settings.model_copy(update={"batch_size": smallest})
    run.portions.clips = smallest
    place = list(DTYPES.values()).index(run.networks.dtype)
    if run.ranks.most(place) != -run.ranks.most(-place):
        run.networks.compute_in(torch.float32)


def _compute_in(run: Run, dtype: torch.dtype, checkpoint: Checkpoint | None) -> None:
    """Use a number format, and the gradients' scale that was found before."""
    run.networks.compute_in(dtype)
    scaler = checkpoint.state.get("scaler") if checkpoint else None
    if scaler and run.networks.scaler.is_enabled():
        run.networks.scaler.load_state_dict(scaler)


def go_back(run: Run) -> None:
    """Put a run back to its newest checkpoint, or to its beginning where there is none yet."""
    checkpoint, resumed_from, dtype = load_newest(run.layout), run.resumed_from, run.networks.dtype
    run.epoch = run.position = run.step = run.odd_steps = 0
    if checkpoint is None:
        run.networks = Networks.fresh(run.spec, seed=run.settings.seed, device=run.device)
        _begin(run, base_files(run.spec, run.settings.base_generator, run.settings.base_discriminator))
    else:
        _continue(run, checkpoint)
    _compute_in(run, dtype, checkpoint)
    run.resumed_from = resumed_from


def _begin(run: Run, bases: tuple[Path | None, Path | None]) -> str:
    """Start from base models, or from random weights; returns which, in words."""
    learnt, here = content_name("auto", run.spec), run.info.content_name
    if bases[0] and run.settings.base_generator == "auto" and here not in ("", learnt):
        raise MismatchError(
            f"{bases[0].name} was trained on features of {learnt}, and these are of {here}",
            hint="extract with --content auto, or name a --base-generator made for these",
        )
    for path, network in zip(bases, (run.networks.generator, run.networks.discriminator), strict=True):
        if path is not None:
            load_strictly(network, load_base(path), path.name)
    return f"starting from {bases[0].name}" if bases[0] else "starting from random weights"


def _continue(run: Run, checkpoint: Checkpoint) -> str:
    """Put a checkpoint's weights, optimizers and position into `run`; returns from where, in words."""
    state, networks = checkpoint.state, run.networks
    recorded = state.get("settings", {})
    for what, before, now in (
        ("mel_epsilons", recorded.get("mel_epsilons"), run.settings.mel_epsilons),
        ("the content encoder", state.get("content_identity"), run.info.content_identity),
    ):
        if before and before != now:
            raise MismatchError(
                f"this training was begun with {what} {before}, not {now}",
                hint="go back to that, or train under another name",
            )
    other_name = "the checkpoint is of another architecture: train under another name"
    for part, network, optimizer, letter in (
        (checkpoint.generator, networks.generator, networks.generator_optimizer, "G"),
        (checkpoint.discriminator, networks.discriminator, networks.discriminator_optimizer, "D"),
    ):
        name = f"{letter}_{checkpoint.step}.pth"
        load_strictly(network, part["model"], name, hint=other_name)
        continue_optimizer(optimizer, part, network, name)
    run.epoch = state.get("epoch", checkpoint.generator["iteration"])
    step = checkpoint.step if checkpoint.step != LATEST_ONLY else run.epoch * run.steps_per_epoch
    run.step = run.saved_step = run.resumed_from = step
    how = f"continuing from step {step}, epoch {run.epoch}"
    run.only_fp32 = state.get("only_fp32", False)
    if recorded.get("learning_rate") == run.settings.learning_rate:  # another one was chosen knowing better
        run.caution = state.get("caution", 1.0)
    if state.get("data") != stamps.stamp_of(run.layout, "prepare"):
        return f"{how}; the recordings have changed, so this epoch begins again"
    clips_per_step = state.get("clips_per_step", recorded.get("batch_size"))
    if (clips_per_step, recorded.get("seed")) != (run.clips_per_step, run.settings.seed):
        return f"{how}; batches are another, so this epoch begins again"
    run.position = state.get("position", 0)
    return how


def _ensure_room(run: Run, progress: Progress) -> None:
    """Refuse to begin without room for one checkpoint and voice; say when fewer can be kept than was asked for."""
    generator, discriminator = (
        sum(parameter.nbytes for parameter in network.parameters())
        for network in (run.networks.generator, run.networks.discriminator)
    )
    pair, voice = 3 * (generator + discriminator), generator // 2  # weights and two moments; float16
    ensure_room(run.layout.root, pair + voice)
    present = sum(
        run.layout.generator(step).stat().st_size + run.layout.discriminator(step).stat().st_size
        for step in run.layout.generator_steps()
        if run.layout.discriminator(step).exists()
    )
    wanted = (run.settings.keep_checkpoints + 1) * pair + voice - present  # a new set is whole before an old one goes
    try:
        ensure_room(run.layout.root, max(0, wanted))
    except ResourceError as error:
        progress.say(f"{error}: fewer checkpoints will be kept")
