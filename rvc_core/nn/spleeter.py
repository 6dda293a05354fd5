"""Spleeter's U-Net (Hennequin et al., 2020): the magnitudes of one source in a stereo spectrogram up to 11 kHz."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .spectrogram import istft, stft

FFT, HOP, BINS, FRAMES = 4096, 1024, 1024, 512
RATE_HZ = 44_100
_WIDTHS = (2, 16, 32, 64, 128, 256, 512)


class SpleeterNetwork(nn.Module):
    """Magnitudes of one source. Attribute names are the keys of the converted checkpoints.

    Examples
    --------
    >>> SpleeterNetwork().eval()(torch.zeros(1, 2, 64, 128)).shape
    torch.Size([1, 2, 64, 128])
    """

    def __init__(self) -> None:
        super().__init__()
        for level, (before, after) in enumerate(zip(_WIDTHS, _WIDTHS[1:], strict=False), 1):
            self.add_module(
                f"down{level}_conv", nn.Sequential(nn.ZeroPad2d((1, 2, 1, 2)), nn.Conv2d(before, after, 5, 2))
            )
            self.add_module(f"down{level}_act", nn.Sequential(nn.BatchNorm2d(after, eps=1e-3), nn.LeakyReLU(0.2)))
        for level in range(1, 7):
            before = _WIDTHS[7 - level] * (1 if level == 1 else 2)
            after = _WIDTHS[6 - level] if level < 6 else 1
            crop = nn.ZeroPad2d((-1, -2, -1, -2))
            layers = (nn.ConvTranspose2d(before, after, 5, 2), crop, nn.ReLU(), nn.BatchNorm2d(after, eps=1e-3))
            self.add_module(f"up{level}", nn.Sequential(*layers))
        self.up7 = nn.Sequential(nn.Conv2d(1, 2, 4, dilation=2, padding=3), nn.Sigmoid())

    def forward(self, magnitudes: Tensor) -> Tensor:
        """Map (B, 2, frames, bins) to the same shape; frames and bins are multiples of 64."""
        layers, hidden, kept = dict(self.named_children()), magnitudes, []
        for level in range(1, 7):
            kept.append(layers[f"down{level}_conv"](hidden))
            hidden = layers[f"down{level}_act"](kept[-1])
        hidden = kept.pop()
        for level in range(1, 7):
            hidden = layers[f"up{level}"](hidden if level == 1 else torch.cat([kept.pop(), hidden], 1))
        return magnitudes * self.up7(hidden)


def vocals_of(mix: Tensor, voice: nn.Module, music: nn.Module) -> Tensor:
    """Vocals (B, 2, N) of a mix at 44.1 kHz: the share of the voice's energy in both. Above 11 kHz, the mean share."""
    frames = stft(mix, FFT, HOP)
    sizes = frames[:, :, :BINS].abs().transpose(2, 3)
    count = sizes.shape[2]
    parts = F.pad(sizes, (0, 0, 0, -count % FRAMES)).unflatten(2, (-1, FRAMES)).transpose(1, 2).flatten(0, 1)
    energies = [network(parts).square() for network in (voice, music)]
    share = (energies[0] + 5e-11) / (energies[0] + energies[1] + 1e-10)
    share = share.unflatten(0, (len(mix), -1)).transpose(1, 2).flatten(2, 3)[:, :, :count].transpose(2, 3)
    above = share.mean(2, keepdim=True).expand(-1, -1, FFT // 2 + 1 - BINS, -1)
    return istft(frames * torch.cat([share, above], 2), FFT, HOP, mix.shape[-1])
