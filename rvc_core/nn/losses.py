"""The training losses, defined as in the reference and always computed in float32.

Sources: least-squares GAN (Mao et al. 2017); feature matching and mel loss of HiFi-GAN; KL term of VITS.
"""

import itertools
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

MEL_WEIGHT = 45.0
KL_WEIGHT = 1.0


def distance_to_real(logits: Sequence[Tensor]) -> Tensor:
    """Mean of (1 - D)² for each discriminator, the distance to the score of real audio: (n,).

    Examples
    --------
    >>> distance_to_real([torch.ones(2, 3), torch.zeros(2, 3)]).tolist()
    [0.0, 1.0]
    """
    return _means((1 - torch.cat([*logits], 1).float()).square(), logits)


def distance_to_fake(logits: Sequence[Tensor]) -> Tensor:
    """Mean of D² for each discriminator, the distance to the score of generated audio: (n,)."""
    return _means(torch.cat([*logits], 1).float().square(), logits)


def _means(squares: Tensor, logits: Sequence[Tensor]) -> Tensor:
    return torch.stack([part.mean() for part in squares.split([scores.shape[1] for scores in logits], 1)])


class _MeanDistances(torch.autograd.Function):
    """The sum of the mean absolute differences of pairs of tensors, added up in float32 without copies in float32."""

    @staticmethod
    def forward(ctx: Any, *maps: Tensor) -> Tensor:
        distances, signs = [], []
        for one, other in zip(maps[: len(maps) // 2], maps[len(maps) // 2 :], strict=True):
            difference = one - other
            total = torch.linalg.vector_norm(difference, 1, dtype=torch.float32)
            distances.append(total / difference.numel())
            signs.append(difference.sign_())
        ctx.save_for_backward(*signs)
        return torch.stack(distances).sum()

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        signs = ctx.saved_tensors
        return *(sign * (gradient / sign.numel()) for sign in signs), *(None for _ in signs)


def feature_loss(real: list[list[Tensor]], fake: list[list[Tensor]]) -> Tensor:
    """Mean feature distance between real and generated audio, summed over all layers, times two."""
    real_maps, fake_maps = (list(itertools.chain(*maps)) for maps in (real, fake))
    return 2 * _MeanDistances.apply(*fake_maps, *(each.detach() for each in real_maps))


def kl_loss(
    z_p: Tensor, logs_q: Tensor, m_p: Tensor, logs_p: Tensor, mask: Tensor, *, frames: int | Tensor | None = None
) -> Tensor:
    """KL divergence between the posterior, mapped by the flow, and the prior: summed over channels, mean over frames.

    All tensors are (B, C, T), mask is (B, 1, T). The expectation over z is estimated from one sample. If the tensors
    hold only a part of the batch, `frames` is the number of frames in the whole batch.
    """
    z_p, logs_q, m_p, logs_p = (tensor.float() for tensor in (z_p, logs_q, m_p, logs_p))
    divergence = logs_p - logs_q - 0.5 + 0.5 * (z_p - m_p).square() * torch.exp(-2 * logs_p)
    return (divergence * mask).sum() / (mask.sum(dtype=torch.float32) if frames is None else frames)


def mel_loss(real_mel: Tensor, fake_mel: Tensor) -> Tensor:
    """Mean absolute difference of two log-mel spectrograms (B, mels, T); training multiplies it by `MEL_WEIGHT`."""
    return functional.l1_loss(fake_mel, real_mel)
