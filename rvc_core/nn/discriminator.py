"""The discriminators: one for the waveform itself, and one for every p-th sample for each period p.

Source: HiFi-GAN (Kong et al. 2020), with RVC's list of periods.
"""

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from ..presets import VoiceSpec
from .layers import LEAKY_SLOPE, NormedConv1d, WeightNorm, compute_dtype


class DiscriminatorOutput(NamedTuple):
    """Output of all discriminators for a waveform.

    Attributes
    ----------
    logits : list of Tensor
        (B, N) for each discriminator: near 1 for real audio, near 0 for generated audio.
    features : list of list of Tensor
        Layer outputs of each discriminator, for feature matching.
    """

    logits: list[Tensor]
    features: list[list[Tensor]]


class ScaleDiscriminator(nn.Module):
    """Grouped convolutions over the waveform itself. `divisor` divides every width."""

    def __init__(self, divisor: int) -> None:
        super().__init__()
        widths = [1, *(width // divisor for width in (16, 64, 256, 1024, 1024, 1024))]
        kernels, strides = (15, 41, 41, 41, 41, 5), (1, 4, 4, 4, 4, 1)
        self.convs = nn.ModuleList(
            NormedConv1d(
                before,
                after,
                kernel,
                stride=stride,
                padding=kernel // 2,
                groups=max(1, before // 4) if kernel == 41 else 1,
            )  # four channels a group
            for before, after, kernel, stride in zip(widths, widths[1:], kernels, strides, strict=False)
        )
        self.conv_post = NormedConv1d(widths[-1], 1, 3, padding=1)

    def forward(self, audio: Tensor) -> list[Tensor]:
        """Audio (B, 1, S) → the features of each layer; the last are the logits (B, 1, N)."""
        features, x = [], audio
        for conv in self.convs:
            x = functional.leaky_relu_(conv(x), LEAKY_SLOPE)
            features.append(x)
        return [*features, self.conv_post(x)]


class NormedConv2d(WeightNorm, nn.Conv2d):
    """`Conv2d` with a (k, 1) kernel and weight normalisation."""

    def __init__(self, before: int, after: int, kernel_size: int, stride: int) -> None:
        super().__init__(before, after, (kernel_size, 1), (stride, 1), (kernel_size // 2, 0))


class PeriodDiscriminator(nn.Module):
    """Convolutions over every `period`-th sample. `divisor` divides every width."""

    def __init__(self, period: int, divisor: int) -> None:
        super().__init__()
        self.period = period
        widths = [1, *(width // divisor for width in (32, 128, 512, 1024, 1024))]
        self.convs = nn.ModuleList(
            NormedConv2d(before, after, 5, stride)
            for before, after, stride in zip(widths, widths[1:], (3, 3, 3, 3, 1), strict=False)
        )
        self.conv_post = NormedConv2d(widths[-1], 1, 3, 1)

    def forward(self, audio: Tensor) -> list[Tensor]:
        """Audio (B, 1, S) → the features (B, C, T, period) of each layer; the last are the logits."""
        x = functional.pad(audio, (0, -audio.shape[2] % self.period), "reflect")
        x = x.unflatten(2, (-1, self.period))
        features = []
        for conv in self.convs:
            x = conv(x)
            if x.is_cuda:  # the layout that tensor cores read
                x = x.contiguous(memory_format=torch.channels_last)
            x = functional.leaky_relu_(x, LEAKY_SLOPE)
            features.append(x)
        return [*features, self.conv_post(x)]


class Discriminator(nn.Module):
    """All discriminators of a preset: the scale discriminator, then one for each period.

    Parameters
    ----------
    periods : tuple of int
        `VoiceSpec.discriminator_periods`.
    divisor : int
        `VoiceSpec.discriminator_divisor`: 1 for RVC's widths.
    """

    def __init__(self, periods: tuple[int, ...], divisor: int = 1) -> None:
        super().__init__()
        self.discriminators = nn.ModuleList(
            [ScaleDiscriminator(divisor), *(PeriodDiscriminator(period, divisor) for period in periods)]
        )

    @classmethod
    def of(cls, spec: VoiceSpec) -> "Discriminator":
        """The discriminator that belongs to a preset."""
        return cls(spec.discriminator_periods, spec.discriminator_divisor)

    def forward(self, audio: Tensor) -> DiscriminatorOutput:
        """Run all discriminators on audio (B, 1, S)."""
        audio = audio.to(compute_dtype(audio))
        features = [discriminator(audio) for discriminator in self.discriminators]
        return DiscriminatorOutput([maps[-1].flatten(1) for maps in features], features)
