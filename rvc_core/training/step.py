"""One training step of RVC: what is computed, in which order, with which weights. No file, no clock, no global.

The recipe is VITS's (arXiv:2106.06103) as RVC WebUI trains it: LSGAN with feature matching, mel L1 times 45, KL between
posterior and flowed prior; AdamW for both networks.
"""

from dataclasses import dataclass, field, replace
from typing import Any

import torch

from ..nn.discriminator import Discriminator
from ..nn.losses import KL_WEIGHT, MEL_WEIGHT, distance_to_fake, distance_to_real, feature_loss, kl_loss, mel_loss
from ..nn.spectrogram import EpsilonName, mel_of_linear, mel_spectrogram
from ..nn.synthesizer import Synthesizer, SynthesizerOutput, take_segments
from ..presets import VoiceSpec
from ..workspace.dataset import Batch, draw_noise
from .distributed import ALONE, Ranks
from .memory import Portions

_BETAS, _EPSILON = (0.8, 0.99), 1e-9


@dataclass
class Networks:
    """Both networks and what moves them.

    Attributes
    ----------
    dtype : torch.dtype
        What matrix products are computed in; weights, losses and moments stay float32.
    scaler : GradScaler
        Keeps float16 gradients inside that type's range; idle otherwise.
    """

    generator: Synthesizer
    discriminator: Discriminator
    generator_optimizer: torch.optim.Optimizer
    discriminator_optimizer: torch.optim.Optimizer
    dtype: torch.dtype = torch.float32
    scaler: torch.amp.GradScaler = field(default_factory=lambda: torch.amp.GradScaler("cpu", enabled=False))

    @classmethod
    def fresh(cls, spec: VoiceSpec, *, seed: int, device: torch.device) -> "Networks":
        """Randomly initialised networks of this architecture."""
        torch.manual_seed(seed)
        generator = Synthesizer(spec).to(device)
        discriminator = Discriminator.of(spec).to(device)
        # RVC's scheduler asks a continued optimizer for its "initial_lr"; we need it for nothing.
        of_generator, of_discriminator = (
            torch.optim.AdamW(
                [{"params": network.parameters(), "initial_lr": spec.learning_rate}],
                spec.learning_rate,
                betas=_BETAS,
                eps=_EPSILON,
                fused=True,
            )
            for network in (generator, discriminator)
        )
        return cls(generator, discriminator, of_generator, of_discriminator)

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
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=dtype is torch.float16)
        if scaler and self.scaler.is_enabled():
            self.scaler.load_state_dict(scaler)

    def autocast(self) -> torch.autocast:
        """A context for one forward pass; a new one for each, as weights cast without a graph would stay so in it."""
        return torch.autocast(self.device.type, self.dtype, enabled=self.dtype is not torch.float32)

    def set_learning_rate(self, rate: float) -> None:
        """Use this step size from now on."""
        for optimizer in (self.generator_optimizer, self.discriminator_optimizer):
            for group in optimizer.param_groups:
                group["lr"] = rate


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
    spec: VoiceSpec,
    *,
    epsilons: EpsilonName,
    ranks: Ranks = ALONE,
    portions: Portions | None = None,
) -> StepResult:
    """Move both networks once; every draw is one of the batch's, or else of torch's global generator.

    A network whose gradients are not finite, as those of a loss that is not, stays where it is.

    Parameters
    ----------
    batch : Batch
        On the networks' device.
    epsilons : EpsilonName
        ``2023`` or ``2026``: floors inside the mel spectrogram.
    ranks : Ranks
        Where the other parts of the batch are; the losses are those of the whole.
    portions : Portions, optional
        How many clips pass at once; fewer from now on when memory runs out.
    """
    count = len(batch.lengths)
    portions, work = portions or Portions(count), Gradients(networks, batch, spec, epsilons)
    losses = portions.attempt(count, work.of_discriminator)
    norms = {"grad_norm_d": _move(networks, networks.discriminator, ranks)}
    losses |= portions.attempt(count, work.of_generator)
    norms |= {"grad_norm_g": _move(networks, networks.generator, ranks)}
    networks.scaler.update()
    return StepResult(ranks.add_values(losses) | norms, *work.mels)


def _move(networks: Networks, network: torch.nn.Module, ranks: Ranks) -> torch.Tensor:
    """Apply a network's gradients, if they are numbers, and return their norm; nobody waits for the device."""
    ranks.add_gradients(network)
    optimizer = networks.generator_optimizer if network is networks.generator else networks.discriminator_optimizer
    networks.scaler.unscale_(optimizer)
    norm = torch.nn.utils.get_total_norm([weight.grad for weight in network.parameters() if weight.grad is not None])
    optimizer.found_inf = (~norm.isfinite()).float()  # type: ignore[attr-defined]  # heeded by the fused AdamW
    networks.scaler.step(optimizer)
    return norm


class Gradients:
    """Losses and gradients of one batch, at once or in portions of its clips that add up to the same.

    Parameters
    ----------
    networks, batch, spec, epsilons
        As for `train_step`. What the batch does not say is drawn here, once for all attempts.

    Attributes
    ----------
    mels : tuple of Tensor
        Mel slices of a clip, recorded and generated, once the generator had its turn.
    """

    def __init__(self, networks: Networks, batch: Batch, spec: VoiceSpec, epsilons: EpsilonName) -> None:
        if batch.noise is None:
            seed = (int(torch.randint(1 << 31, ())),)
            batch = replace(batch, noise=draw_noise(batch.lengths.tolist(), spec, seed=seed, device=networks.device))
        self._networks, self._batch, self._spec, self._epsilons = networks, batch, spec, epsilons
        self._whole: SynthesizerOutput | None = None
        self.mels: tuple[torch.Tensor, torch.Tensor]

    def of_discriminator(self, parts: list[slice]) -> dict[str, torch.Tensor]:
        """Leave in the discriminators the gradients of telling recorded from generated segments; returns the losses."""
        networks, losses = self._networks, dict[str, torch.Tensor]()
        networks.discriminator_optimizer.zero_grad(set_to_none=True)
        self._whole = None
        for batch in map(self._part, parts):
            with torch.set_grad_enabled(batch is self._batch):
                output = self._generate(batch)
            if batch is self._batch:
                self._whole = output  # its graph serves the generator's turn as well
            with networks.autocast():  # one pass over both is faster than two
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
        networks, losses = self._networks, dict[str, torch.Tensor]()
        networks.generator_optimizer.zero_grad(set_to_none=True)
        networks.discriminator.requires_grad_(False)
        kept, self._whole = self._whole, None  # a second attempt would find its graph used up
        for batch in map(self._part, parts):
            output = kept if kept is not None and batch is self._batch else self._generate(batch)
            kept = None
            named, adversarial = self._judge(batch, output)
            total = adversarial.sum() + sum(named.values())
            networks.scaler.scale(total).backward()
            _add(losses, {"loss/g/total": total, **named, **_numbered("loss/g", adversarial)})
        networks.discriminator.requires_grad_(True)
        return losses

    def _judge(self, batch: Batch, output: SynthesizerOutput) -> tuple[dict[str, torch.Tensor], torch.Tensor]:
        """The generator's losses on some clips: the named ones, and what each discriminator holds against it."""
        networks, spec = self._networks, self._spec
        with networks.autocast(), torch.no_grad():
            judged_real = networks.discriminator(self._real(batch, output))
        with networks.autocast():
            judged = networks.discriminator(output.audio)
        real_mel = mel_of_linear(
            take_segments(batch.spectrogram, output.starts, spec.segment_frames), spec, self._epsilons
        )
        generated_mel = mel_spectrogram(output.audio, spec, self._epsilons)
        self.mels = real_mel[0].detach(), generated_mel[0].detach()
        kl = kl_loss(output.z_p, output.logs_q, output.m_p, output.logs_p, output.mask, frames=batch.whole_frames)
        return {
            "loss/g/fm": batch.share * feature_loss(judged_real.features, judged.features),
            "loss/g/mel": MEL_WEIGHT * batch.share * mel_loss(real_mel, generated_mel),
            "loss/g/kl": KL_WEIGHT * (kl if batch.share else 0 * kl),
        }, batch.share * distance_to_real(judged.logits)

    def _part(self, rows: slice) -> Batch:
        return self._batch if rows == slice(0, len(self._batch.lengths)) else self._batch.part(rows)

    def _generate(self, batch: Batch) -> SynthesizerOutput:
        pitch = (batch.f0_coarse, batch.f0_hz) if self._spec.uses_f0 else (None, None)
        with self._networks.autocast():
            return self._networks.generator(
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
        hop, frames = self._spec.hop_samples, self._spec.segment_frames
        return take_segments(batch.wave, output.starts * hop, frames * hop)


def _add(sums: dict[str, torch.Tensor], losses: dict[str, torch.Tensor]) -> None:
    """Add losses of a portion, without their graphs, to those of the portions before it."""
    for tag, loss in losses.items():
        sums[tag] = sums[tag] + loss.detach() if tag in sums else loss.detach()


def _numbered(tag: str, parts: torch.Tensor) -> dict[str, torch.Tensor]:
    return {f"{tag}/{index}": part for index, part in enumerate(parts)}
