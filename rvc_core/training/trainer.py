"""The trainer: epochs of steps, validations and saves, until something ends them. The same call resumes.

Every random draw is a function of (seed, epoch, batch, clip), so a training that was killed and resumed ends where an
uninterrupted one would: on a CPU to the bit, if `threads` is a number, which fixes the order of sums. Checkpoints are
copied in memory and written by a thread while training continues. Of several processes (distributed.py) only the first
validates, prints and writes.

A step with NaN losses is skipped. After three in a row, training returns to its last checkpoint with half the learning
rate; if that fails again before the next one, it computes in float32 as well; if even that fails, it says so.
"""

import math
import time
from collections.abc import Iterator
from typing import Any

import torch

from ..errors import DivergedError, ResourceError
from ..nn.spectrogram import mel_spectrogram
from ..presets import VoiceSpec
from ..progress import Progress, Stop
from ..settings import TrainSettings
from ..workspace import stamps
from ..workspace.checkpoint import Checkpoint, load_newest, on_host
from ..workspace.dataset import Batch
from ..workspace.layout import Layout
from ..workspace.metrics import PICTURE_INTERVAL_STEPS, SAVED_SOUND, MetricsLog
from ..workspace.retention import prune_voices
from . import start
from .distributed import Ranks
from .final_voice import average_if_better, refuse_broken
from .graphs import StepGraphs
from .memory import Portions
from .pace import Pace
from .position import NAN_STEPS, Caution, Position
from .precision import DTYPES
from .saves import Saves
from .step import Networks, StepResult
from .validation import Validation

_ENDINGS = ("", "time", "stop", "interrupt")  # where processes differ, the last of them counts


class Trainer:
    """Trains one voice: what training carries from step to step, and the loop.

    Attributes
    ----------
    layout, settings, ranks, networks, clips, info
        The experiment, what is wanted of it, the processes that train, both networks, the clips, the voice's record.
    position, caution, pace, saves, validation
        Where it is, what NaN losses have taught, how long steps take, what is being written, what was measured.
    portions, graphs
        How many clips pass through the networks at once, and what makes their steps.
    log, progress
        Where figures are written, and where people are told.
    newest : StepResult or None
        Of the last step.
    """

    def __init__(
        self, layout: Layout, settings: TrainSettings, ranks: Ranks, networks: Networks, data: start.Data, pace: Pace
    ) -> None:
        self.layout, self.settings, self.ranks, self.networks = layout, settings, ranks, networks
        self.clips, self.info, self.pace = data.clips, data.info, pace
        self.position, self.caution, self.portions = Position(), Caution(), Portions(self.batch_size)
        self.saves = Saves(layout, self.spec, data.info, keep_checkpoints=settings.keep_checkpoints)
        self.validation = Validation(layout, data.heldout)
        self.newest: StepResult | None = None

    graphs: StepGraphs
    log: MetricsLog
    progress: Progress

    # -- what follows from the attributes ------------------------------------------------------------------------------
    @property
    def spec(self) -> VoiceSpec:
        """The architecture."""
        return self.networks.spec

    @property
    def batch_size(self) -> int:
        """Clips of this process in one step."""
        assert self.settings.batch_size != "auto", "measured by now"
        return self.settings.batch_size

    @property
    def clips_per_step(self) -> int:
        """Clips of all processes in one step."""
        return self.batch_size * self.ranks.count

    @property
    def steps_per_epoch(self) -> int:
        """Batches in one pass over the clips."""
        return math.ceil(len(self.clips) / self.clips_per_step)

    @property
    def steps_left(self) -> int:
        """Steps to the end of the last epoch."""
        epochs = self.settings.epochs - self.position.epoch
        return max(0, epochs * self.steps_per_epoch - self.position.place)

    @property
    def learning_rate(self) -> float:
        """Learning rate of the first epoch."""
        chosen = self.settings.learning_rate
        return self.caution.factor * (self.spec.learning_rate if chosen == "auto" else chosen)

    # -- the loop ------------------------------------------------------------------------------------------------------
    def fit(self, stops: dict[str, Stop]) -> str:
        """Train; returns what ended it: ``epochs``, ``time``, ``stop``, ``interrupt`` or ``verdict``."""
        self.progress.start("training", self.steps_left)
        while self.position.epoch < self.settings.epochs:
            decay = self.settings.learning_rate_decay**self.position.epoch
            self.networks.set_learning_rate(self.learning_rate * decay)
            for batch in self.batches():
                if ending := self.ending(stops):
                    return ending
                if not self.step(batch):
                    self.recover()
                    break
                self.settle(wait=False)
                if self.saves.is_due(self.settings.save_every_minutes) and self.position.place < self.steps_per_epoch:
                    self.save(with_voice=False)
            else:
                self.end_epoch()
                if self.is_enough():
                    return "verdict"
        return "epochs"

    def batches(self) -> Iterator[Batch]:
        """The rest of the batches of this epoch: of each, the clips that this process trains on."""
        return self.clips.batches(
            self.clips_per_step,
            seed=(self.settings.seed, self.position.epoch),
            skip=self.position.place,
            device=self.networks.device,
            place=(self.ranks.rank, self.ranks.count),
        )

    def ending(self, stops: dict[str, Stop]) -> str:
        """What ends training before the next step; empty if nothing does. The same for all processes."""
        asked = [name for name, stop in stops.items() if stop.requested]
        if asked:
            wish = "interrupt" if asked[0] == "interrupt" else "stop"
        else:
            wish = "" if self.pace.has_time(self.validation.seconds) else "time"
        return _ENDINGS[self.ranks.most(_ENDINGS.index(wish))]

    def step(self, batch: Batch) -> bool:
        """Train on a batch; False when this was the last of too many steps in a row with NaN losses."""
        began = time.monotonic()
        with self.ranks.watched(self.networks.device.type):
            self.newest = self.graphs.step(batch)
            values = self.newest.values() | {"learning_rate": self.networks.learning_rate}
        self.position.advance()
        if not self._record(values):
            return False
        if self.position.step % PICTURE_INTERVAL_STEPS == 0:
            self._log_mels()
        self.pace.record(seconds := time.monotonic() - began)
        self.validation.record_step(seconds)
        self.progress.advance(self._note(values))
        return True

    def _record(self, values: dict[str, float]) -> bool:
        """Log the figures of a step; those of a skipped one are not logged.

        Infinite gradients are normal while a scaler looks for the scale that float16 can bear: the step is lost, its
        losses are not.
        """
        position = self.position
        bad = [tag for tag, value in values.items() if not math.isfinite(value)]
        if bad and (any(tag.startswith("loss/") for tag in bad) or not self.networks.is_finding_scale):
            self.log.skipped(position.step, position.epoch + 1)
            self.progress.say(f"step {position.step} is skipped: {bad[0]} is not finite")
            return self.caution.skip_step()
        self.caution.nan_steps = 0
        figures = {tag: value for tag, value in values.items() if tag not in bad}
        self.log.step(position.step, position.epoch + 1, figures)
        return True

    def _note(self, values: dict[str, float]) -> str:
        """The newest figures in one line."""
        verdict, epoch = self.validation.verdict, self.position.epoch + 1
        failures = "".join(f" · {failure.name}!" for failure in verdict.failures) if verdict else ""
        outlook = self.pace.outlook(self.position, self.steps_left, self.steps_per_epoch)
        return f"epoch {epoch}/{self.settings.epochs} · mel {values['loss/g/mel']:.1f} · {outlook}{failures}"

    def end_epoch(self) -> None:
        """Close the epoch; before the last one ends, validate and save where that is due."""
        self.position.end_epoch()
        self.log.epoch(self.position.step)
        epoch, settings = self.position.epoch, self.settings
        if epoch == settings.epochs:
            return  # the end validates and saves
        saves_voice, every = epoch % settings.save_every_epochs == 0, settings.validate_every_epochs
        if self.validation.is_due(epoch, every) or (saves_voice and not every and self.validation.is_affordable()):
            self.validate()
        if saves_voice:
            self.save(with_voice=True)

    def is_enough(self) -> bool:
        """Whether the verdict ends training, in one of the processes and so in all."""
        enough = self.validation.is_enough(self.settings.auto_stop)
        if enough and self.validation.verdict:
            self.progress.say(f"training ends by itself: {self.validation.verdict.sentence}")
        return bool(self.ranks.most(enough))

    def validate(self) -> None:
        """Measure the voice, log what was found, and write the verdict so far."""
        findings = self.validation.measure(self.networks.generator, self.position.step)
        if findings is not None:
            self.log.validation(self.position.step, self.position.epoch, findings.values, findings.sounds)
            self.assess(running=True)

    def assess(self, *, running: bool) -> None:
        """Write the verdict, and say which failures are new."""
        for line in self.validation.assess(running=running):
            self.progress.say(line)

    # -- after NaN losses ----------------------------------------------------------------------------------------------
    def recover(self) -> None:
        """Return to the last checkpoint, or to the beginning, with half the learning rate, then in float32 as well.

        Raises
        ------
        DivergedError
            When that was tried from the same step before.
        """
        self.settle(wait=True)
        failed, factor = self.position.step, self.caution.factor
        with self.ranks.in_turn():
            self.return_to_checkpoint()
        position, caution = self.position, self.caution
        self.ranks.refuse_different((position.step, position.epoch, position.place))  # folders of machines may differ
        if not caution.return_to(position.step, factor):
            raise DivergedError(
                f"the losses are NaN again at step {failed}, even in fp32 with a small learning rate",
                hint=f"look for broken recordings (rvc inspect), or use --learning-rate {self.learning_rate / 4:g}; "
                f"the checkpoint of step {position.step} is untouched",
            )
        if caution.only_fp32:
            self.networks.compute_in(DTYPES["fp32"])
        self.log.rewind(position.step)
        self.progress.say(
            f"{NAN_STEPS} steps in a row, up to {failed}, had NaN losses: back to step {position.step}, with "
            f"--learning-rate {self.learning_rate:g}" + (" and in fp32" if caution.only_fp32 else "")
        )
        self.recall()
        self.progress.start("training", self.steps_left)

    def return_to_checkpoint(self) -> None:
        """Load the newest checkpoint; before the first, begin again."""
        checkpoint, dtype = load_newest(self.layout), self.networks.dtype
        if checkpoint is None:
            self.networks = Networks.fresh(self.spec, seed=self.settings.seed, device=self.networks.device)
        self.load(checkpoint)
        self.networks.compute_in(dtype, scaler=checkpoint.state.get("scaler") if checkpoint else None)

    def load(self, checkpoint: Checkpoint | None) -> str:
        """Load weights, moments and position, or base weights without a checkpoint; returns which, in words."""
        self.position, self.caution.nan_steps = Position(), 0
        self.graphs = StepGraphs(self.networks, ranks=self.ranks, portions=self.portions)
        if checkpoint is None:
            return start.load_bases(self.networks, self.settings, self.info)
        start.refuse_other_beginning(checkpoint, self.settings, self.info)
        start.load_checkpoint(self.networks, checkpoint)
        self.position, how = start.resumed_position(
            checkpoint,
            self.layout,
            self.settings,
            clips_per_step=self.clips_per_step,
            steps_per_epoch=self.steps_per_epoch,
        )
        self.caution.resume(checkpoint.state, self.settings.learning_rate)
        self.saves.saved_step = self.position.step
        return how

    def recall(self) -> None:
        """Take up what earlier validations found, and a voice that was written just before training was killed."""
        self.validation.recall(self.log.validations)
        step, epoch = self.position.step, self.position.epoch
        voice = self.layout.voice(epoch, step)
        recorded = {row["path"] for row in self.log.voices}
        if self.saves.resumed_step is not None and voice.exists() and voice.name not in recorded:
            self.log.voice(step, epoch, voice.name, self.validation.figures_at(step))

    # -- what stays ----------------------------------------------------------------------------------------------------
    def save(self, *, with_voice: bool) -> None:
        """Copy a checkpoint, and maybe name a voice of this moment; both are written while training continues."""
        if not self.ranks.is_first or self.caution.nan_steps:
            return
        self.settle(wait=True)
        self.log.flush()  # a checkpoint must not know steps that the log does not
        voice = self.layout.voice(self.position.epoch, self.position.step) if with_voice else None
        self.saves.begin(self.checkpoint(), voice, self.validation.figures_at(self.position.step))
        if with_voice:
            self._log_mels()
            examiner = self.validation.examiner
            if examiner and (audio := examiner.heldout(self.networks.generator)):
                self.log.sound(SAVED_SOUND, audio, self.position.step)

    def checkpoint(self) -> Checkpoint:
        """A copy of everything that resuming needs: `state_<step>.pt` holds the position and what it depends on."""
        position, networks = self.position, self.networks
        common = {"iteration": position.epoch, "learning_rate": self.learning_rate}

        def part(network: torch.nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, Any]:
            return on_host({"model": network.state_dict(), "optimizer": networks.moments(optimizer), **common})

        state = {
            "epoch": position.epoch,
            "position": position.place,
            "settings": self.settings.stamp(),
            "clips_per_step": self.clips_per_step,
            "scaler": networks.scaler.state_dict(),
            "caution": self.caution.factor,
            "only_fp32": self.caution.only_fp32,
            "content_identity": self.info.content_identity,
            "data": stamps.stamp_of(self.layout, "prepare"),
        }
        generator = part(networks.generator, networks.generator_optimizer)
        discriminator = part(networks.discriminator, networks.discriminator_optimizer)
        return Checkpoint(position.step, generator, discriminator, state)

    def settle(self, *, wait: bool) -> None:
        """Take note of a save that is written by now; one that found no room leaves the one before."""
        if (save := self.saves.pending(wait=wait)) is None:
            return
        saved = self.saves.saved_step
        try:
            self.pace.save_seconds = save.written.result()
        except ResourceError as error:
            before = f"the one of step {saved} is kept" if saved >= 0 else "there is none before it"
            self.progress.say(f"the checkpoint of step {save.step} was not saved, {before}: {error} ({error.hint})")
            return
        self.saves.saved_step = save.step
        if save.voice:
            self.log.voice(save.step, save.epoch, save.voice.name, save.figures)
            ranking = self.validation.verdict.ranking if self.validation.verdict else []
            prune_voices(self.layout, [*ranking, save.step] if ranking else [], most=self.settings.keep_voices)

    def finish(self) -> None:
        """Validate and save; then read the checkpoint again and synthesise with the voice, before anything is done."""
        self.settle(wait=True)
        if self.caution.nan_steps:
            self._end_at_checkpoint()
        layout, step, saves = self.layout, self.position.step, self.saves
        if saves.saved_step != step or not layout.voice(self.position.epoch, step).exists():
            self.validate()
            self.save(with_voice=True)
            self.settle(wait=True)
        checkpoint = load_newest(layout)
        if checkpoint is None or saves.saved_step != step:
            raise ResourceError(
                f"step {step} could not be saved: there is no room in {layout.root}",
                hint=f"free some space; the same command continues from step {max(0, saves.saved_step)}",
            )
        if not average_if_better(layout, self.validation, self.log, self.networks.device):
            saves.write_voice(layout.final_voice, checkpoint)  # once, as it says that all is done
        clips = self.validation.clips if len(self.validation.clips) else self.clips
        refuse_broken(layout.final_voice, step, clips[0], self.networks.device)
        self.assess(running=False)

    def _end_at_checkpoint(self) -> None:
        """Return to the last checkpoint, as the last steps had NaN losses."""
        if self.saves.saved_step < 0:
            raise DivergedError(
                f"the losses of step {self.position.step} are NaN, and nothing was saved before",
                hint=f"use --learning-rate {self.learning_rate / 2:g}",
            )
        self.return_to_checkpoint()
        self.log.rewind(self.position.step)

    def _log_mels(self) -> None:
        if self.newest is not None:
            self.log.mel("slice/mel_org", self.newest.mel_real.cpu().numpy(), self.position.step)
            self.log.mel("slice/mel_gen", self.newest.mel_generated.cpu().numpy(), self.position.step)
            whole = mel_spectrogram(self.clips[0].wave[None], self.spec)
            self.log.mel("all/mel", whole[0].cpu().numpy(), self.position.step)

    def close(self) -> None:
        """Close the log, and wait for what is being written."""
        self.log.close()
        self.saves.close()
