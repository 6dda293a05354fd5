"""Stage: train a voice. Reads the file list, moves the networks, writes checkpoints, voices, metrics; resumes itself.

Every random draw is a function of (seed, epoch) or (seed, step), so a run that was killed and continued ends where an
uninterrupted one would: on a CPU to the bit, if `threads` is a number, which fixes the order of sums.
"""

import math
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from . import stamps
from .checkpoint import Checkpoint, load_base, load_newest, save_checkpoint
from .dataset import ClipStore, read_filelist
from .errors import CheckpointError, DatasetError, DivergedError, MismatchError
from .files import write_json
from .gan import Networks, StepResult, train_step
from .layout import Layout
from .manifest import ExperimentRecord
from .metrics import PICTURE_INTERVAL_STEPS, MetricsLog, history
from .nn.spectrogram import mel_spectrogram
from .platforms import choose_device
from .presets import VoiceSpec
from .progress import Budget, Progress, Silent, Stop
from .settings import RuntimeSettings, TrainSettings
from .threads import ThreadTuner
from .validate import heldout_files, heldout_mel
from .voice_file import VoiceFile, VoiceInfo, load_strictly, load_voice, save_voice
from .weights import base_files

_RESULTS = ("learning_rate", "learning_rate_decay", "mel_epsilons", "seed", "batch_size")   # fixed once a run began


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


@dataclass
class Run:
    """Everything that one training carries from step to step."""

    layout: Layout
    settings: TrainSettings
    spec: VoiceSpec
    device: torch.device
    tuner: ThreadTuner
    networks: Networks
    clips: ClipStore
    heldout: ClipStore
    info: VoiceInfo
    epoch: int = 0              # completed epochs
    position: int = 0           # completed batches of the epoch that is running
    step: int = 0
    saved_step: int = -1
    resumed_from: int | None = None
    begun_from: str = ""
    newest: StepResult | None = None
    step_seconds: list[float] = field(default_factory=list)

    @property
    def steps_per_epoch(self) -> int:
        """Batches in one pass over the clips."""
        return math.ceil(len(self.clips) / self.settings.batch_size)


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
        Ends training after the running step; a file ``STOP`` in the experiment does the same.

    Raises
    ------
    StageOrderError, DatasetError, WeightsError, CheckpointError, MismatchError, ResourceError
        Before the first step, each with its remedy.
    DivergedError
        When a loss is no longer finite; the last checkpoint is untouched.
    """
    started = time.monotonic()
    budget = Budget(settings.max_minutes)
    layout.stop.unlink(missing_ok=True)
    stop = stop or Stop(layout.stop)
    run = open_run(layout, settings, runtime)
    progress.say(_opening_line(run))
    log = MetricsLog(layout, steps_per_epoch=run.steps_per_epoch, resumed_step=run.step)
    try:
        if run.step == 0:
            _validate(run, log)
        stopped_by = _fit(run, log, budget, progress, stop)
        voice = _finish(run, log)
    finally:
        log.close()
    mels = [row["heldout/mel"] for row in history(layout) if row["kind"] == "validation" and "heldout/mel" in row]
    first, last = (mels[0], mels[-1]) if mels else (None, None)
    return TrainReport(run.epoch, run.step, stopped_by, run.resumed_from, str(voice), first, last,
                       round(time.monotonic() - started, 1))


def open_run(layout: Layout, settings: TrainSettings, runtime: RuntimeSettings) -> Run:
    """Networks, data and position: from the newest checkpoint if there is one, else from the base weights."""
    spec = ExperimentRecord.load(layout).spec
    checkpoint = load_newest(layout)
    bases = (None, None) if checkpoint else base_files(spec, settings.base_generator, settings.base_discriminator)
    device = torch.device(choose_device(runtime.device).name)
    tuner = ThreadTuner(runtime.threads)
    torch.set_num_threads(tuner.threads)
    clips = ClipStore(read_filelist(layout.filelist), spec, settings.mel_epsilons)
    if len(clips) == 0:
        raise DatasetError(f"{layout.filelist} names no clip", hint="run: rvc prepare, rvc extract")
    heldout = ClipStore(heldout_files(layout, spec), spec, settings.mel_epsilons)
    content = stamps.content_of(layout, "content")
    info = VoiceInfo(name=layout.name, content_name=content.get("name", ""),
                     content_identity=content.get("identity", ""), f0_median_hz=_median_f0_hz(clips),
                     mel_epsilons=settings.mel_epsilons)
    networks = Networks.fresh(spec, seed=settings.seed, learning_rate=settings.learning_rate, device=device)
    run = Run(layout, settings, spec, device, tuner, networks, clips, heldout, info)
    if checkpoint is None:
        _start_from(run, bases)
    else:
        _continue_from(run, checkpoint)
    write_json(layout.config, rvc_config(spec, settings))
    return run


def _start_from(run: Run, bases: tuple[Path | None, Path | None]) -> None:
    generator, discriminator = bases
    run.begun_from = f"starting from {generator.name}" if generator else "starting from random weights"
    for path, network in ((generator, run.networks.generator), (discriminator, run.networks.discriminator)):
        if path is not None:
            load_strictly(network, load_base(path), path.name)


def _continue_from(run: Run, checkpoint: Checkpoint) -> None:
    """Put a checkpoint's weights, optimizers and position into `run`."""
    fixed = {name: getattr(run.settings, name) for name in _RESULTS}
    recorded = checkpoint.state["settings"]
    if changed := {name: recorded[name] for name in _RESULTS if recorded[name] != fixed[name]}:
        raise MismatchError(
            f"this training was begun with {', '.join(f'{name}={value}' for name, value in changed.items())}",
            hint="continue with these, or train under another name")
    networks = run.networks
    load_strictly(networks.generator, checkpoint.generator["model"], f"G_{checkpoint.step}.pth")
    load_strictly(networks.discriminator, checkpoint.discriminator["model"], f"D_{checkpoint.step}.pth")
    try:
        networks.generator_optimizer.load_state_dict(checkpoint.generator["optimizer"])
        networks.discriminator_optimizer.load_state_dict(checkpoint.discriminator["optimizer"])
    except (ValueError, KeyError) as error:
        raise CheckpointError(f"the optimizers of step {checkpoint.step} do not fit: {error}",
                              hint="train under another name") from error
    run.step = run.saved_step = run.resumed_from = checkpoint.step
    run.epoch, run.position = checkpoint.state["epoch"], checkpoint.state["position"]


def _opening_line(run: Run) -> str:
    where = f"continuing from step {run.step}, epoch {run.epoch}" if run.resumed_from is not None else run.begun_from
    return (f"training {run.layout.name!r} on {run.device}: {where}; {len(run.clips)} clips, "
            f"{run.steps_per_epoch} steps per epoch, {len(run.heldout)} held-out clips")


# -- the loop ------------------------------------------------------------------------------------------------------
def _fit(run: Run, log: MetricsLog, budget: Budget, progress: Progress, stop: Stop) -> str:
    """Epoch after epoch; returns what ended it."""
    remaining = (run.settings.epochs - run.epoch) * run.steps_per_epoch - run.position
    progress.start("training", max(0, remaining))
    while run.epoch < run.settings.epochs:
        try:
            ended_by = _epoch(run, log, budget, progress, stop)
        except KeyboardInterrupt:
            ended_by = "interrupt"
        if ended_by:
            return ended_by
        run.epoch, run.position = run.epoch + 1, 0
        log.epoch(run.step)
        if run.epoch % run.settings.validate_every_epochs == 0 and run.epoch < run.settings.epochs:
            _validate(run, log)
        if run.epoch % run.settings.save_every_epochs == 0 and run.epoch < run.settings.epochs:
            _save(run, log)
    return "epochs"


def _epoch(run: Run, log: MetricsLog, budget: Budget, progress: Progress, stop: Stop) -> str | None:
    """The rest of one pass over the clips; returns what interrupted it, if anything did."""
    settings = run.settings
    run.networks.set_learning_rate(settings.learning_rate * settings.learning_rate_decay ** run.epoch)
    batches = run.clips.batches(settings.batch_size, seed=(settings.seed, run.epoch), skip=run.position,
                                device=run.device)
    for batch in batches:
        if stop.requested:
            return "stop"
        if not budget.allows(_closing_seconds(run)):
            return "time"
        began = time.monotonic()
        torch.manual_seed(settings.seed * 1_000_003 + run.step)   # every draw of the step follows from its number
        result = train_step(run.networks, batch, run.spec, epsilons=settings.mel_epsilons)
        values = result.values()
        if not all(map(math.isfinite, values.values())):
            bad = [tag for tag, value in values.items() if not math.isfinite(value)]
            raise DivergedError(f"step {run.step + 1}: {bad[0]} is not finite",
                                hint="run the same command to continue from the last checkpoint; "
                                     "if it happens again, lower --learning-rate under another name")
        run.step, run.position = run.step + 1, run.position + 1
        values["learning_rate"] = run.networks.generator_optimizer.param_groups[0]["lr"]
        log.step(run.step, run.epoch + 1, values)
        run.newest = result
        if run.step % PICTURE_INTERVAL_STEPS == 0:
            _show_mels(run, log)
        run.step_seconds = [*run.step_seconds[-49:], time.monotonic() - began]
        run.tuner.record(run.step_seconds[-1])
        torch.set_num_threads(run.tuner.threads)
        progress.advance(_note(run, values))
    return None


def _closing_seconds(run: Run) -> float:
    """What another step, the last validation and the last save will take: a step, and a cautious multiple of it."""
    usual = float(np.median(run.step_seconds)) if run.step_seconds else 0.0
    return usual * (1 + 2 * len(run.heldout)) + 2.0


def _note(run: Run, values: dict[str, float]) -> str:
    pace = float(np.median(run.step_seconds))
    left = ((run.settings.epochs - run.epoch) * run.steps_per_epoch - run.position) * pace
    return (f"epoch {run.epoch + 1}/{run.settings.epochs} · mel {values['loss/g/mel']:.1f} · "
            f"{pace:.2f} s a step · {left / 60:.0f} min left")


def _validate(run: Run, log: MetricsLog) -> None:
    if len(run.heldout):
        mel = heldout_mel(run.networks.generator, run.heldout, run.spec, epsilons=run.settings.mel_epsilons)
        log.validation(run.step, run.epoch, {"heldout/mel": mel})


def _show_mels(run: Run, log: MetricsLog) -> None:
    if run.newest is None:
        return
    log.mel("slice/mel_org", run.newest.mel_real.cpu().numpy(), run.step)
    log.mel("slice/mel_gen", run.newest.mel_generated.cpu().numpy(), run.step)
    whole = mel_spectrogram(run.clips[0].wave[None], run.spec, run.settings.mel_epsilons)
    log.mel("all/mel", whole[0].numpy(), run.step)


# -- what stays ----------------------------------------------------------------------------------------------------
def _save(run: Run, log: MetricsLog) -> Path:
    """Write a complete checkpoint and the voice of this moment."""
    networks, settings = run.networks, run.settings
    generator, discriminator = (
        {"model": network.state_dict(), "iteration": run.epoch, "optimizer": optimizer.state_dict(),
         "learning_rate": settings.learning_rate}
        for network, optimizer in ((networks.generator, networks.generator_optimizer),
                                   (networks.discriminator, networks.discriminator_optimizer)))
    state = {"epoch": run.epoch, "position": run.position, "settings": settings.stamp()}
    save_checkpoint(run.layout, Checkpoint(run.step, generator, discriminator, state), keep=settings.keep_checkpoints)
    voice = run.layout.voice(run.epoch, run.step)
    _save_voice(run, voice)
    _show_mels(run, log)
    log.voice(run.step, run.epoch, voice.name)
    run.saved_step = run.step
    return voice


def _save_voice(run: Run, path: Path) -> None:
    info = VoiceInfo(**{**asdict(run.info), "epoch": run.epoch, "step": run.step})
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


def _median_f0_hz(clips: ClipStore) -> float:
    voiced = torch.cat([clips[index].f0_hz for index in range(len(clips))])
    voiced = voiced[voiced > 0]
    return float(voiced.median()) if len(voiced) else 0.0


def rvc_config(spec: VoiceSpec, settings: TrainSettings) -> dict[str, Any]:
    """RVC's ``config.json`` for this architecture and these settings, so that RVC WebUI can continue the folder."""
    segment_samples = spec.segment_frames * spec.hop_samples
    return {
        "data": {"filter_length": spec.fft_samples, "hop_length": spec.hop_samples, "max_wav_value": 32768.0,
                 "mel_fmax": None, "mel_fmin": 0.0, "n_mel_channels": spec.mels, "sampling_rate": spec.sample_rate,
                 "win_length": spec.fft_samples},
        "model": {"filter_channels": spec.filter_channels, "gin_channels": spec.speaker_channels,
                  "hidden_channels": spec.hidden_channels, "inter_channels": spec.inter_channels,
                  "kernel_size": spec.kernel_size, "n_heads": spec.heads, "n_layers": spec.layers, "p_dropout": 0,
                  "resblock": "1", "resblock_dilation_sizes": spec.resblock_dilations,
                  "resblock_kernel_sizes": spec.resblock_kernels, "spk_embed_dim": spec.speakers,
                  "upsample_initial_channel": spec.upsample_channels, "upsample_kernel_sizes": spec.upsample_kernels,
                  "upsample_rates": spec.upsample_rates, "use_spectral_norm": False},
        "train": {"batch_size": settings.batch_size, "betas": [0.8, 0.99], "c_kl": 1.0, "c_mel": 45, "epochs": 20000,
                  "eps": 1e-9, "init_lr_ratio": 1, "learning_rate": settings.learning_rate, "log_interval": 200,
                  "lr_decay": settings.learning_rate_decay, "seed": settings.seed, "segment_size": segment_samples,
                  "warmup_epochs": 0}}
