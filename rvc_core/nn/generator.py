"""The HiFi-GAN decoder: latent frames to a waveform, with a sine at the given pitch for voices with f0.

Sources: HiFi-GAN (Kong et al. 2020); neural source-filter excitation (Wang et al. 2019).
"""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

from ..presets import VoiceSpec
from .layers import LEAKY_SLOPE, Conv1d, NormedConvTranspose1d, ResBlock, channels_last

SINE_AMPLITUDE = 0.1
VOICED_NOISE = 0.003  # standard deviation of the noise added to the sine
UNVOICED_NOISE = SINE_AMPLITUDE / 3  # standard deviation in unvoiced frames
FINAL_SLOPE = 0.01  # PyTorch's default, as in the reference's last activation


def frame_phase(f0_hz: Tensor) -> Tensor:
    """Phase of the sine at the start of each frame, in cycles [0, 1): f0_hz (B, T) → (B, T) float64.

    The sum is in float64, so the phase stays exact for hours.

    Examples
    --------
    >>> frame_phase(torch.full((1, 4), 125.0)).tolist()
    [[0.0, 0.25, 0.5, 0.75]]
    """
    cycles = f0_hz.double() * 0.01  # of a frame
    return (cycles.cumsum(1) - cycles) % 1.0


def cycles_of(f0_hz: Tensor, sample_rate: int, start: Tensor | None) -> Tensor:
    """Phase at each sample, in cycles below 20: f0_hz (B, T), phase of the first frame (B,) or None → (B, T, hop)."""
    phase = frame_phase(f0_hz)
    if start is not None:
        phase = (phase + start[:, None]) % 1.0
    within = torch.arange(1, sample_rate // 100 + 1, device=f0_hz.device) / sample_rate
    return phase.float().unsqueeze(2) + f0_hz.float().unsqueeze(2) * within


def sine(f0_hz: Tensor, sample_rate: int, start: Tensor | None = None) -> Tensor:
    """A sine with the pitch f0_hz (B, T), constant within each frame → (B, 1, T * hop); 0 where f0 is 0.

    Parameters
    ----------
    start : Tensor, optional
        (B,) phase of the first frame, from `frame_phase` of the whole track. Windows of one track then have the same
        samples as the whole.
    """
    cycles = cycles_of(f0_hz, sample_rate, start)
    return (SINE_AMPLITUDE * torch.sin(2 * math.pi * cycles) * (f0_hz > 0).unsqueeze(2)).flatten(1).unsqueeze(1)


class SourceModule(nn.Module):
    """The excitation: a sine with a little noise in voiced frames, noise in unvoiced ones, and one learned gain."""

    def __init__(self, spec: VoiceSpec) -> None:
        super().__init__()
        self.hop_samples, self.sample_rate = spec.hop_samples, spec.sample_rate
        self.l_linear = nn.Linear(1, 1)

    def forward(self, f0_hz: Tensor, noise: Tensor | None, start: Tensor | None) -> Tensor:
        """f0_hz (B, T), standard normal noise (B, 1, S) or None to draw it, start phase (B,) or None → (B, 1, S)."""
        wave = sine(f0_hz, self.sample_rate, start)
        deviation = torch.where(f0_hz > 0, VOICED_NOISE, UNVOICED_NOISE).repeat_interleave(self.hop_samples, dim=1)
        noise = torch.randn_like(wave) if noise is None else noise
        excitation = torch.addcmul(wave, deviation.unsqueeze(1).to(wave.dtype), noise.to(wave.dtype))
        gain, offset = self.l_linear.weight, self.l_linear.bias
        return torch.tanh(excitation.to(gain.dtype) * gain + offset)


class Generator(nn.Module):
    """Latent (B, inter, T) and speaker → waveform (B, 1, T * hop), with or without pitch."""

    def __init__(self, spec: VoiceSpec) -> None:
        super().__init__()
        rates, widest = spec.upsample_rates, spec.upsample_channels
        widths = [widest >> stage for stage in range(len(rates) + 1)]
        if spec.uses_f0:
            self.m_source = SourceModule(spec)
            self.noise_convs = nn.ModuleList()
            for stage, width in enumerate(widths[1:], start=1):
                stride = math.prod(rates[stage:])
                kernel, padding = (2 * stride, stride // 2) if stage < len(rates) else (1, 0)
                self.noise_convs.append(Conv1d(1, width, kernel, stride, padding))
        self.conv_pre = Conv1d(spec.inter_channels, widest, 7, padding=3)
        self.ups = nn.ModuleList(
            NormedConvTranspose1d(width, width // 2, kernel, stride=rate, padding=(kernel - rate) // 2)
            for width, rate, kernel in zip(widths, rates, spec.upsample_kernels, strict=False)
        )
        self.resblocks = nn.ModuleList(
            ResBlock(width, kernel, dilations)
            for width in widths[1:]
            for kernel, dilations in zip(spec.resblock_kernels, spec.resblock_dilations, strict=True)
        )
        self.conv_post = Conv1d(widths[-1], 1, 7, padding=3, bias=False)
        self.conv_post.in_float32 = True  # half precision is audible in quiet bands
        self.cond = Conv1d(spec.speaker_channels, widest, 1)
        self.uses_f0, self.blocks_per_stage = spec.uses_f0, len(spec.resblock_kernels)

    def forward(
        self,
        latent: Tensor,
        speaker: Tensor,
        f0_hz: Tensor | None = None,
        noise: Tensor | None = None,
        start: Tensor | None = None,
    ) -> Tensor:
        """Decode latent (B, inter, T), speaker (B, C, 1), f0_hz (B, T), noise and start as in `SourceModule`."""
        source = self.m_source(f0_hz, noise, start) if self.uses_f0 else None
        x = self.conv_pre(channels_last(latent)) + self.cond(speaker)
        for stage, upsample in enumerate(self.ups):
            x = upsample(functional.leaky_relu_(x, LEAKY_SLOPE))
            if source is not None:
                x = x + channels_last(self.noise_convs[stage](source))
            first, *others = self.resblocks[stage * self.blocks_per_stage : (stage + 1) * self.blocks_per_stage]
            activated = functional.leaky_relu(x, LEAKY_SLOPE)
            x = sum((block(x, activated) for block in others), start=first(x, activated)) / self.blocks_per_stage
        return torch.tanh(self.conv_post(functional.leaky_relu_(x, FINAL_SLOPE)))
