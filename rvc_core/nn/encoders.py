"""The two encoders of the latent space: the prior takes content and pitch, the posterior takes the recording.

Source: VITS (Kim et al. 2021), with content features instead of text.
"""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

from ..presets import VoiceSpec
from .attention import TransformerEncoder
from .layers import LEAKY_SLOPE, Conv1d, WaveNet, channels_last

COARSE_PITCHES = 256


class PriorEncoder(nn.Module):
    """Content features and coarse pitch → mean and log standard deviation of the latent, without the speaker."""

    def __init__(self, spec: VoiceSpec) -> None:
        super().__init__()
        self.emb_phone = nn.Linear(spec.content_width, spec.hidden_channels)
        if spec.uses_f0:
            self.emb_pitch = nn.Embedding(COARSE_PITCHES, spec.hidden_channels)
        self.encoder = TransformerEncoder(
            spec.hidden_channels, spec.filter_channels, spec.heads, spec.layers, spec.kernel_size
        )
        self.proj = Conv1d(spec.hidden_channels, 2 * spec.inter_channels, 1)

    def forward(self, content: Tensor, coarse: Tensor | None, mask: Tensor) -> tuple[Tensor, Tensor]:
        """Content (B, T, D), coarse (B, T) 1..255 or None, mask (B, 1, T) → mean, log deviation: (B, inter, T) each."""
        x = self.emb_phone(content)
        if coarse is not None:
            x = x + self.emb_pitch(coarse)
        x = functional.leaky_relu_(x * math.sqrt(x.shape[-1]), LEAKY_SLOPE)
        mean, log_deviation = (self.proj(self.encoder(x.transpose(1, 2), mask)) * mask).chunk(2, dim=1)
        return mean, log_deviation


class PosteriorEncoder(nn.Module):
    """Linear spectrogram and speaker → a latent sample, its mean and log standard deviation. For training only."""

    def __init__(self, spec: VoiceSpec) -> None:
        super().__init__()
        self.pre = Conv1d(spec.spectrogram_bins, spec.hidden_channels, 1)
        self.enc = WaveNet(spec.hidden_channels, spec.posterior_layers, spec.speaker_channels)
        self.proj = Conv1d(spec.hidden_channels, 2 * spec.inter_channels, 1)

    def forward(
        self, spectrogram: Tensor, mask: Tensor, speaker: Tensor, noise: Tensor | None = None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Encode spectrogram (B, F, T) of speaker (B, C, 1) → sample, mean, log deviation: (B, inter, T) each.

        Standard normal noise (B, inter, T) is drawn if not given.
        """
        hidden = self.enc(self.pre(channels_last(spectrogram)) * mask, mask, speaker)
        mean, log_deviation = (self.proj(hidden) * mask).chunk(2, dim=1)
        noise = torch.randn_like(mean) if noise is None else noise
        sample = (mean + noise * log_deviation.exp()) * mask
        return sample, mean, log_deviation
