"""One training step of RVC: what is computed, in which order, with which weights. No file, no clock, no global.

The recipe is VITS's (arXiv:2106.06103) as RVC WebUI trains it: LSGAN with feature matching, mel L1 times 45, KL between
posterior and flowed prior; AdamW for both networks.
"""

import contextlib
import inspect
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any

import torch

from ..nn.copies import CopiedWeights
from ..nn.discriminator import Discriminator
from ..nn.losses import KL_WEIGHT, MEL_WEIGHT, distance_to_fake, distance_to_real, feature_loss, kl_loss, mel_loss
from ..nn.spectrogram import mel_of_linear, mel_spectrogram
from ..nn.synthesizer import Synthesizer, SynthesizerOutput, take_segments
from ..presets import VoiceSpec
from ..workspace.dataset import Batch, draw_noise
from .distributed import ALONE, Ranks
from .memory import Portions

_BETAS, _EPSILON = (0.8, 0.99), 1e-9


class AdamW(torch.optim.AdamW):
    """torch's, without what leads to its compiler, whose import takes five seconds of every start."""

    step = torch.no_grad()(inspect.unwrap(torch.optim.AdamW.step))  # type: ignore[assignment]
    add_param_group = inspect.unwrap(torch.optim.AdamW.add_param_group)
    zero_grad = inspect.unwrap(torch.optim.AdamW.zero_grad)
    state_dict = inspect.unwrap(torch.optim.AdamW.state_dict)
    load_state_dict = inspect.unwrap(torch.optim.AdamW.load_state_dict)


class GradScaler(torch.amp.GradScaler):
    """torch's, for fused optimizers that know `found_inf`: they alone unscale the gradients, while they read them."""

    def unscaled(self, norm: torch.Tensor) -> torch.Tensor:
        """The norm of gradients, from that of scaled ones."""
        if not self.is_enabled():
            return norm
        assert self._scale is not None, "losses were scaled"
        return norm / self._scale

    def _check_inf_per_device(self, optimizer: torch.optim.Optimizer) -> dict[str, Any]:
        found = {optimizer.found_inf.device: optimizer.found_inf}  # type: ignore[attr-defined]
        self._per_optimizer_states[id(optimizer)]["found_inf_per_device"] = found
        return found


@dataclass
class Networks:
    """Both networks and what moves them.

    Attributes
    ----------
    dtype : torch.dtype
        What matrix products are computed in; weights, losses and moments stay float32.
    learning_rate : float
        Step size of both optimizers, which hold it as a tensor on a GPU, where a recorded step reads it.
    scaler : GradScaler
        Keeps float16 gradients inside that type's range; idle otherwise.
    """

    generator: Synthesizer
    discriminator: Discriminator
    generator_optimizer: torch.optim.Optimizer
    discriminator_optimizer: torch.optim.Optimizer
    dtype: torch.dtype = torch.float32
    learning_rate: float = 0.0
    scaler: GradScaler = field(default_factory=lambda: GradScaler("cpu", enabled=False))
    _copied: dict[torch.nn.Module, CopiedWeights] = field(default_factory=dict)

    @classmethod
    def fresh(cls, spec: VoiceSpec, *, seed: int, device: torch.device) -> "Networks":
        """Randomly initialised networks of this architecture."""
        torch.manual_seed(seed)
        generator = Synthesizer(spec).to(device)
        discriminator = Discriminator.of(spec).to(device)
        # RVC's scheduler asks a continued optimizer for its "initial_lr"; we need it for nothing.
        of_generator, of_discriminator = (
            AdamW(
                [{"params": network.parameters(), "initial_lr": spec.learning_rate}],
                torch.tensor(spec.learning_rate, device=device) if device.type == "cuda" else spec.learning_rate,
                betas=_BETAS,
                eps=_EPSILON,
                fused=True,
            )
            for network in (generator, discriminator)
        )
        return cls(generator, discriminator, of_generator, of_discriminator, learning_rate=spec.learning_rate)

    @property
    def spec(self) -> VoiceSpec:
        """The architecture."""
        return self.generator.spec

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return next(self.generator.parameters()).device

    @property
    def is_finding_scale(self) -> bool:
        """Whether the scale that float16 gradients can bear is still being looked for, so that steps may be lost."""
        return self.scaler.is_enabled() and self.scaler.get_scale() > 1

    def compute_in(self, dtype: torch.dtype, *, scaler: dict[str, Any] | None = None) -> None:
        """Use this type for matrix products from now on, and the gradients' scale that was found before."""
        self.dtype = dtype
        self._copied.clear()
        self.scaler = GradScaler(self.device.type, enabled=dtype is torch.float16)
        if scaler and self.scaler.is_enabled():
            self.scaler.load_state_dict(scaler)

    def autocast(self) -> torch.autocast:
        """A context for one forward pass; a new one for each, as weights cast without a graph would stay so in it."""
        return torch.autocast(self.device.type, self.dtype, enabled=self.dtype is not torch.float32)

    @contextlib.contextmanager
    def computing(self, network: torch.nn.Module) -> Iterator[None]:
        """A context for forward passes of one network, whose weights are cast once between two moves."""
        if network not in self._copied:
            self._copied[network] = CopiedWeights(network, self.dtype)
        with self.autocast(), self._copied[network].lent():
            yield

    def moved(self, network: torch.nn.Module) -> None:
        """Cast this network's weights again before its next pass: an optimizer moved them."""
        if network in self._copied:
            self._copied[network].expire()

    def moments(self, optimizer: torch.optim.Optimizer) -> dict[str, Any]:
        """An optimizer's state, with the step size as a number on every device."""
        state = optimizer.state_dict()
        return {**state, "param_groups": [{**group, "lr": self.learning_rate} for group in state["param_groups"]]}

    def set_learning_rate(self, rate: float) -> None:
        """Use this step size from now on."""
        self.learning_rate = rate
        for optimizer in (self.generator_optimizer, self.discriminator_optimizer):
            for group in optimizer.param_groups:
                group["lr"] = group["lr"].fill_(rate) if isinstance(group["lr"], torch.Tensor) else rate


@dataclass(frozen=True)
class StepResult:
    """Named losses of one step, on the device, and the two mel slices (M, T) of one of its clips."""

    losses: dict[str, torch.Tensor]
    mel_real: torch.Tensor
    mel_generated: torch.Tensor

    def values(self) -> dict[str, float]:
        """All losses as numbers: one transfer from the device."""
        return dict(zip(self.losses, torch.stack([*self.losses.values()]).tolist(), strict=True))


def train_step(
    networks: Networks,
    batch: Batch,
    *,
    ranks: Ranks = ALONE,
    portions: Portions | None = None,
) -> StepResult:
    """Move both networks once; every draw is one of the batch's, or else of torch's global generator.

    A network whose gradients are not finite, as those of a loss that is not, stays where it is.

    Parameters
    ----------
    batch : Batch
        On the networks' device.
    ranks : Ranks
        Where the other parts of the batch are; the losses are those of the whole.
    portions : Portions, optional
        How many clips pass at once; fewer from now on when memory runs out.
    """
    portions = portions or Portions(len(batch.lengths))
    step = Step(Gradients(networks, batch), portions.attempt, is_alone=ranks.count == 1)
    for turn in step.turns:
        ranks.add(turn())
    return step.result


class Step:
    """One step in three turns, none of which waits for the device.

    Parameters
    ----------
    work : Gradients
        The batch, and the networks to move.
    attempt : callable
        `Portions.attempt`, or another that calls the work with slices of so many clips.
    is_alone : bool
        Whether no other process has a part of the batch.

    Attributes
    ----------
    result : StepResult
        After the last turn.
    """

    result: StepResult

    def __init__(self, work: "Gradients", attempt: Callable[..., dict[str, torch.Tensor]], *, is_alone: bool) -> None:
        self._work, self._attempt, self._is_alone = work, attempt, is_alone
        self._losses: dict[str, torch.Tensor] = {}
        self._norms: dict[str, torch.Tensor] = {}
        self._sums: list[torch.Tensor] = []

    @property
    def turns(self) -> tuple[Callable[[], torch.Tensor | None], ...]:
        """The parts of a step; each returns numbers that all processes must add up before the next, or None."""
        return self._turn_of_discriminator, self._turn_of_generator, self._end  # stored, they would keep the step alive

    def _turn_of_discriminator(self) -> torch.Tensor | None:
        work = self._work
        self._losses = self._attempt(len(work.batch.lengths), work.of_discriminator)
        return self._flat_gradients(work.networks.discriminator)

    def _turn_of_generator(self) -> torch.Tensor | None:
        work = self._work
        self._norms = {"grad_norm_d": self._move(work.networks.discriminator)}
        self._losses |= self._attempt(len(work.batch.lengths), work.of_generator)
        return self._flat_gradients(work.networks.generator)

    def _end(self) -> torch.Tensor | None:
        networks = self._work.networks
        self._norms["grad_norm_g"] = self._move(networks.generator)
        networks.scaler.update()
        values = torch.stack([*self._losses.values()])
        losses = dict(zip(self._losses, values.unbind(), strict=True))
        self.result = StepResult(losses | self._norms, *self._work.mels)
        return None if self._is_alone else values

    def _flat_gradients(self, network: torch.nn.Module) -> torch.Tensor | None:
        """All gradients of a network in one tensor (N,), for the sum; in bfloat16 where networks compute in half."""
        if self._is_alone:
            return None
        gradients = [weight.grad for weight in network.parameters() if weight.grad is not None]
        half = self._work.networks.dtype is not torch.float32  # half of what GPUs exchange; float16 could overflow
        sizes, dtype = [gradient.numel() for gradient in gradients], torch.bfloat16 if half else torch.float32
        flat = torch.empty(sum(sizes), dtype=dtype, device=gradients[0].device)
        self._sums = [part.view_as(each) for part, each in zip(flat.split(sizes), gradients, strict=True)]
        torch._foreach_copy_(self._sums, gradients)
        return flat

    def _move(self, network: torch.nn.Module) -> torch.Tensor:
        """Apply a network's gradients, if they are numbers, and return their norm."""
        networks = self._work.networks
        optimizer = networks.generator_optimizer if network is networks.generator else networks.discriminator_optimizer
        gradients = [weight.grad for weight in network.parameters() if weight.grad is not None]
        if self._sums:  # those of all processes
            torch._foreach_copy_(gradients, self._sums)
            self._sums = []
        norm = networks.scaler.unscaled(torch.nn.utils.get_total_norm(gradients))
        optimizer.found_inf = (~norm.isfinite()).float()  # type: ignore[attr-defined]  # heeded by the fused AdamW
        networks.scaler.step(optimizer)
        networks.moved(network)
        optimizer.zero_grad(set_to_none=True)  # the other network's turn needs the memory
        return norm


class Gradients:
    """Losses and gradients of one batch, at once or in portions of its clips that add up to the same.

    Parameters
    ----------
    networks, batch
        As for `train_step`. What the batch does not say is drawn here, once for all attempts.

    Attributes
    ----------
    mels : tuple of Tensor
        Mel slices of a clip, recorded and generated, once the generator had its turn.
    """

    mels: tuple[torch.Tensor, torch.Tensor]

    def __init__(self, networks: Networks, batch: Batch) -> None:
        if batch.noise is None:
            seed, lengths = (int(torch.randint(1 << 31, ())),), batch.lengths.tolist()
            batch = replace(batch, noise=draw_noise(lengths, networks.spec, seed=seed, device=networks.device))
        self.networks, self.batch = networks, batch
        self._whole: SynthesizerOutput | None = None

    def of_discriminator(self, parts: list[slice]) -> dict[str, torch.Tensor]:
        """Leave in the discriminators the gradients of telling recorded from generated segments; returns the losses."""
        networks, losses = self.networks, dict[str, torch.Tensor]()
        networks.discriminator_optimizer.zero_grad(set_to_none=True)
        self._whole = None
        for batch in map(self._part, parts):
            with torch.set_grad_enabled(batch is self.batch):
                output = self._generate(batch)
            if batch is self.batch:
                self._whole = output  # its graph serves the generator's turn as well
            with networks.computing(networks.discriminator):  # one pass over both is faster than two
                judged = networks.discriminator(torch.cat([self._real(batch, output), output.audio.detach()])).logits
            real_logits, generated_logits = zip(*(logits.chunk(2) for logits in judged), strict=True)
            real, generated = (
                batch.share * distances
                for distances in (distance_to_real(real_logits), distance_to_fake(generated_logits))
            )
            total = real.sum() + generated.sum()
            networks.scaler.scale(total).backward()
            _add(losses, {"loss/d/total": total, **_numbered("loss/d_r", real), **_numbered("loss/d_g", generated)})
        return losses

    def of_generator(self, parts: list[slice]) -> dict[str, torch.Tensor]:
        """Leave in the generator its gradients; the discriminators judge and get none. Returns the losses."""
        networks, losses = self.networks, dict[str, torch.Tensor]()
        networks.generator_optimizer.zero_grad(set_to_none=True)
        kept, self._whole = self._whole, None  # a second attempt would find its graph used up
        with _frozen(networks.discriminator):
            for batch in map(self._part, parts):
                output = kept if kept is not None and batch is self.batch else self._generate(batch)
                kept = None
                named, adversarial = self._judge(batch, output)
                total = adversarial.sum() + sum(named.values())
                networks.scaler.scale(total).backward()
                _add(losses, {"loss/g/total": total, **named, **_numbered("loss/g", adversarial)})
        return losses

    def _judge(self, batch: Batch, output: SynthesizerOutput) -> tuple[dict[str, torch.Tensor], torch.Tensor]:
        """The generator's losses on some clips: the named ones, and what each discriminator holds against it."""
        networks, spec = self.networks, self.networks.spec
        with networks.computing(networks.discriminator):
            with torch.no_grad():
                judged_real = networks.discriminator(self._real(batch, output))
            judged = networks.discriminator(output.audio)
        real_mel = mel_of_linear(take_segments(batch.spectrogram, output.starts, spec.segment_frames), spec)
        generated_mel = mel_spectrogram(output.audio, spec)
        self.mels = real_mel[0].detach(), generated_mel[0].detach()
        kl = kl_loss(output.z_p, output.logs_q, output.m_p, output.logs_p, output.mask, frames=batch.whole_frames)
        return {
            "loss/g/fm": batch.share * feature_loss(judged_real.features, judged.features),
            "loss/g/mel": MEL_WEIGHT * batch.share * mel_loss(real_mel, generated_mel),
            "loss/g/kl": KL_WEIGHT * kl * (batch.share > 0),
        }, batch.share * distance_to_real(judged.logits)

    def _part(self, rows: slice) -> Batch:
        return self.batch if rows == slice(0, len(self.batch.lengths)) else self.batch.part(rows)

    def _generate(self, batch: Batch) -> SynthesizerOutput:
        pitch = (batch.f0_coarse, batch.f0_hz) if self.networks.spec.uses_f0 else (None, None)
        with self.networks.computing(self.networks.generator):
            return self.networks.generator(
                content=batch.content,
                lengths=batch.lengths,
                coarse=pitch[0],
                f0_hz=pitch[1],
                spectrogram=batch.spectrogram,
                speaker=batch.speaker,
                noise=batch.noise,
            )

    def _real(self, batch: Batch, output: SynthesizerOutput) -> torch.Tensor:
        """The recorded segments (B, 1, S) that stand beside the generated ones."""
        spec = self.networks.spec
        hop, frames = spec.hop_samples, spec.segment_frames
        return take_segments(batch.wave, output.starts * hop, frames * hop)


def _add(sums: dict[str, torch.Tensor], losses: dict[str, torch.Tensor]) -> None:
    """Add losses of a portion, without their graphs, to those of the portions before it."""
    for tag, loss in losses.items():
        sums[tag] = sums[tag] + loss.detach() if tag in sums else loss.detach()


def _numbered(tag: str, parts: torch.Tensor) -> dict[str, torch.Tensor]:
    return {f"{tag}/{index}": part for index, part in enumerate(parts)}


@contextlib.contextmanager
def _frozen(network: torch.nn.Module) -> Iterator[None]:
    """Inside, a network gets no gradients."""
    network.requires_grad_(False)
    try:
        yield
    finally:
        network.requires_grad_(True)
