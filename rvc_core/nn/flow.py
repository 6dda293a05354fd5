"""The invertible map between the latent space with speaker and the latent space of the prior without it.

Source: RealNVP (Dinh et al. 2017) in the mean-only form of VITS.
"""

import torch
from torch import Tensor, nn

from ..presets import VoiceSpec
from .layers import Conv1d, WaveNet

COUPLINGS = 4
LAYERS_PER_COUPLING = 3


class Coupling(nn.Module):
    """Shift half of the channels by a function of the other half; initialised as the identity."""

    def __init__(self, spec: VoiceSpec) -> None:
        super().__init__()
        half = spec.inter_channels // 2
        self.pre = Conv1d(half, spec.hidden_channels, 1)
        self.enc = WaveNet(spec.hidden_channels, LAYERS_PER_COUPLING, spec.speaker_channels)
        self.post = Conv1d(spec.hidden_channels, half, 1)
        for parameter in self.post.parameters():
            nn.init.zeros_(parameter)

    def forward(self, x: Tensor, mask: Tensor, speaker: Tensor, *, reverse: bool) -> Tensor:
        """Map x (B, C, T), which is zero outside mask (B, 1, T), forward or in reverse."""
        kept, moved = x.chunk(2, dim=1)
        shift = self.post(self.enc(self.pre(kept) * mask, mask, speaker)) * mask
        return torch.cat([kept, moved - shift if reverse else moved + shift], dim=1)


class Flip(nn.Module):
    """Reverse the order of the channels, so that the next coupling shifts the other half. It is its own inverse."""

    def forward(self, x: Tensor, mask: Tensor, speaker: Tensor, *, reverse: bool) -> Tensor:
        """Flip x (B, C, T)."""
        return x.flip(1)


class Flow(nn.Module):
    """Alternating couplings and flips."""

    def __init__(self, spec: VoiceSpec) -> None:
        super().__init__()
        self.flows = nn.ModuleList(step for _ in range(COUPLINGS) for step in (Coupling(spec), Flip()))

    def forward(self, x: Tensor, mask: Tensor, speaker: Tensor, *, reverse: bool = False) -> Tensor:
        """Posterior latent → prior latent (B, C, T) under mask (B, 1, T); `reverse` inverts the map."""
        for step in reversed(self.flows) if reverse else self.flows:
            x = step(x, mask, speaker, reverse=reverse)
        return x
