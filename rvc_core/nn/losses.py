"""The losses of training, as the reference defines them; every one in float32, whatever the networks ran in.

Sources: least-squares GAN (Mao et al. 2017); feature matching and mel loss of HiFi-GAN; KL term of VITS.
"""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional

MEL_WEIGHT = 45.0
KL_WEIGHT = 1.0


def distance_to_real(logits: Sequence[Tensor]) -> Tensor:
    """Per discriminator the mean of (1 - D)²: what remains to be taken as real. (n,)

    Examples
    --------
    >>> distance_to_real([torch.ones(2, 3), torch.zeros(2, 3)]).tolist()
    [0.0, 1.0]
    """
    return torch.stack([(1 - scores.float()).square().mean() for scores in logits])


def distance_to_fake(logits: Sequence[Tensor]) -> Tensor:
    """Per discriminator the mean of D²: what remains to be taken as generated. (n,)"""
    return torch.stack([scores.float().square().mean() for scores in logits])


def discriminator_loss(real: list[Tensor], fake: list[Tensor]) -> Tensor:
    """Real recordings should score 1 and generated ones 0; the sum over the discriminators."""
    return distance_to_real(real).sum() + distance_to_fake(fake).sum()


def generator_loss(fake: list[Tensor]) -> Tensor:
    """Generated waveforms should score 1; the sum over the discriminators."""
    return distance_to_real(fake).sum()


def feature_loss(real: list[list[Tensor]], fake: list[list[Tensor]]) -> Tensor:
    """Twice the sum over all layers of the mean distance between the features of real and generated waveforms."""
    return (
        2
        * torch.stack(
            [
                functional.l1_loss(fake_map.float(), real_map.detach().float())
                for real_maps, fake_maps in zip(real, fake, strict=True)
                for real_map, fake_map in zip(real_maps, fake_maps, strict=True)
            ]
        ).sum()
    )


def kl_loss(z_p: Tensor, logs_q: Tensor, m_p: Tensor, logs_p: Tensor, mask: Tensor, *, frames: int = 0) -> Tensor:
    """Divergence of the posterior, seen through the flow, from the prior, per frame: a sum over channels.

    All (B, C, T) but mask (B, 1, T). One sample stands for the expectation over z.
    `frames` are those of the whole batch, where these are only some of its clips.
    """
    z_p, logs_q, m_p, logs_p = (tensor.float() for tensor in (z_p, logs_q, m_p, logs_p))
    divergence = logs_p - logs_q - 0.5 + 0.5 * (z_p - m_p).square() * torch.exp(-2 * logs_p)
    return (divergence * mask).sum() / (frames or mask.sum())


def mel_loss(real_mel: Tensor, fake_mel: Tensor) -> Tensor:
    """Mean distance of two log mel spectrograms (B, mels, T); weighed with `MEL_WEIGHT` in training."""
    return functional.l1_loss(fake_mel, real_mel)
