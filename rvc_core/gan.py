"""One training step of RVC: what is computed, in which order, with which weights. No file, no clock, no global.

The recipe is VITS's (arXiv:2106.06103) as RVC WebUI trains it: LSGAN with feature matching, mel L1 times 45, KL between
posterior and flowed prior; AdamW for both networks.
"""

from dataclasses import dataclass

import torch

from .dataset import Batch
from .nn.discriminator import Discriminator
from .nn.losses import KL_WEIGHT, MEL_WEIGHT, distance_to_fake, distance_to_real, feature_loss, kl_loss, mel_loss
from .nn.spectrogram import EpsilonName, mel_of_linear, mel_spectrogram
from .nn.synthesizer import Synthesizer, take_segments
from .presets import VoiceSpec
from .ranks import ALONE, Ranks

_BETAS, _EPSILON = (0.8, 0.99), 1e-9


@dataclass
class Networks:
    """Both networks and what moves them."""

    generator: Synthesizer
    discriminator: Discriminator
    generator_optimizer: torch.optim.Optimizer
    discriminator_optimizer: torch.optim.Optimizer

    @classmethod
    def fresh(cls, spec: VoiceSpec, *, seed: int, device: torch.device) -> "Networks":
        """Randomly initialised networks of this architecture."""
        torch.manual_seed(seed)
        generator = Synthesizer(spec).to(device)
        discriminator = Discriminator.of(spec).to(device)
        # RVC's scheduler asks a continued optimizer for its "initial_lr"; we need it for nothing.
        optimizers = [torch.optim.AdamW([{"params": network.parameters(), "initial_lr": spec.learning_rate}],
                                        spec.learning_rate, betas=_BETAS, eps=_EPSILON, foreach=True)
                      for network in (generator, discriminator)]
        return cls(generator, discriminator, *optimizers)

    def set_learning_rate(self, rate: float) -> None:
        """Use this step size from now on."""
        for optimizer in (self.generator_optimizer, self.discriminator_optimizer):
            for group in optimizer.param_groups:
                group["lr"] = rate


@dataclass(frozen=True)
class StepResult:
    """Named losses of one step, on the device, and the two mel slices (M, T) of its first clip."""

    losses: dict[str, torch.Tensor]
    mel_real: torch.Tensor
    mel_generated: torch.Tensor

    def values(self) -> dict[str, float]:
        """All losses as numbers: one transfer from the device."""
        return dict(zip(self.losses, torch.stack([*self.losses.values()]).tolist(), strict=True))


def train_step(networks: Networks, batch: Batch, spec: VoiceSpec, *, epsilons: EpsilonName,
               ranks: Ranks = ALONE) -> StepResult:
    """Move both networks once; every draw is one of the batch's, or else of torch's global generator.

    Parameters
    ----------
    batch : Batch
        On the networks' device.
    epsilons : EpsilonName
        ``2023`` or ``2026``: floors inside the mel spectrogram.
    ranks : Ranks
        Where the other parts of the batch are; the losses are those of the whole.
    """
    pitch = (batch.f0_coarse, batch.f0_hz) if spec.uses_f0 else (None, None)
    output = networks.generator(content=batch.content, lengths=batch.lengths, coarse=pitch[0], f0_hz=pitch[1],
                                spectrogram=batch.spectrogram, speaker=batch.speaker,
                                noise=batch.noise)
    hop, frames = spec.hop_samples, spec.segment_frames
    real = take_segments(batch.wave, output.starts * hop, frames * hop)
    real_mel = mel_of_linear(take_segments(batch.spectrogram, output.starts, frames), spec, epsilons)
    generated_mel = mel_spectrogram(output.audio, spec, epsilons)

    losses = _move_discriminator(networks, real, output.audio.detach(), batch.share, ranks)
    kl = kl_loss(output.z_p, output.logs_q, output.m_p, output.logs_p, output.mask, frames=batch.whole_frames)
    own = {"loss/g/mel": MEL_WEIGHT * batch.share * mel_loss(real_mel, generated_mel),
           "loss/g/kl": KL_WEIGHT * (kl if batch.share else 0 * kl)}
    losses |= _move_generator(networks, real, output.audio, own, batch.share, ranks)
    norms = {tag: losses.pop(tag) for tag in ("grad_norm_d", "grad_norm_g")}       # each process has them whole
    return StepResult(ranks.add_values(losses) | norms, real_mel[0].detach(), generated_mel[0].detach())


def _move_discriminator(networks: Networks, real: torch.Tensor, generated: torch.Tensor, share: float,
                        ranks: Ranks) -> dict[str, torch.Tensor]:
    """Teach the discriminators to tell `real` from `generated`, both (B, 1, S)."""
    networks.discriminator_optimizer.zero_grad(set_to_none=True)
    real_logits, generated_logits = zip(*(logits.chunk(2) for logits in networks.discriminator(
        torch.cat([real, generated])).logits), strict=True)        # one pass over both is faster than two
    real_parts, generated_parts = share * distance_to_real(real_logits), share * distance_to_fake(generated_logits)
    total = real_parts.sum() + generated_parts.sum()
    total.backward()
    ranks.add_gradients(networks.discriminator)
    norm = _gradient_norm(networks.discriminator)
    networks.discriminator_optimizer.step()
    return {"loss/d/total": total.detach(), "grad_norm_d": norm,
            **_numbered("loss/d_r", real_parts), **_numbered("loss/d_g", generated_parts)}


def _move_generator(networks: Networks, real: torch.Tensor, generated: torch.Tensor, own: dict[str, torch.Tensor],
                    share: float, ranks: Ranks) -> dict[str, torch.Tensor]:
    """Move the generator by its `own` losses and the discriminators', which get no gradients of their own."""
    networks.generator_optimizer.zero_grad(set_to_none=True)
    networks.discriminator.requires_grad_(False)
    with torch.no_grad():
        judged_real = networks.discriminator(real)
    judged = networks.discriminator(generated)
    adversarial = share * distance_to_real(judged.logits)
    losses = {"loss/g/fm": share * feature_loss(judged_real.features, judged.features), **own}
    total = adversarial.sum() + sum(losses.values())
    total.backward()
    networks.discriminator.requires_grad_(True)
    ranks.add_gradients(networks.generator)
    norm = _gradient_norm(networks.generator)
    networks.generator_optimizer.step()
    return {"loss/g/total": total.detach(), "grad_norm_g": norm, **_numbered("loss/g", adversarial),
            **{tag: loss.detach() for tag, loss in losses.items()}}


def _numbered(tag: str, parts: torch.Tensor) -> dict[str, torch.Tensor]:
    return {f"{tag}/{index}": part for index, part in enumerate(parts.detach())}


def _gradient_norm(network: torch.nn.Module) -> torch.Tensor:
    """Total L2 norm of a network's gradients, in one reduction and without asking the device to wait."""
    return torch.nn.utils.get_total_norm([parameter.grad for parameter in network.parameters()
                                          if parameter.grad is not None])
