"""RMVPE (Wei et al., 2023): a pitch estimator with a U-Net on a mel spectrogram and a recurrent layer.

Sub-modules have the names in the community's file ``rmvpe.pt``, so that its weights load strictly.
"""

from collections import OrderedDict
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from .spectrogram import area_triangles

MELS, BINS = 128, 360
GRID_FRAMES = 32  # the U-Net halves time five times, so it needs a multiple of 32 frames
_SAMPLE_RATE, _FFT_SAMPLES, _HOP_SAMPLES = 16_000, 1024, 160
_LOWEST_HZ, _HIGHEST_HZ = 30, 8000
_FLOOR = 1e-5
_LEVELS, _BLOCKS, _HIDDEN = 5, 4, 256
_CENTS_PER_BIN, _FIRST_BIN_CENTS = 20, 1997.3794084376191  # over 10 Hz; CREPE's bins, so the first is at 31.7 Hz
_NEAR_BINS = 4


class RMVPE(nn.Module):
    """Log-mel spectrogram (B, 128, T) → salience (B, T, 360): the likelihood of each pitch, 0..1.

    Parameters
    ----------
    channels : int
        Width of the U-Net's first level, doubled at each of five; 16 in the community's file.
    """

    def __init__(self, channels: int = 16) -> None:
        super().__init__()
        self.unet = _UNet(channels)
        self.cnn = nn.Conv2d(channels, 3, 3, padding=1)
        self.fc = nn.Sequential(_BidirectionalGRU(), nn.Linear(2 * _HIDDEN, BINS), nn.Dropout(0.25), nn.Sigmoid())

    def forward(self, log_mel: Tensor) -> Tensor:
        frames = log_mel.shape[-1]
        image = functional.pad(log_mel, (0, -frames % GRID_FRAMES)).transpose(1, 2).unsqueeze(1)  # (B, 1, T', 128)
        return self.fc(self.cnn(self.unet(image)).transpose(1, 2).flatten(2))[:, :frames]


def log_mel(audio: Tensor) -> Tensor:
    """Input of the network: audio (B, N) at 16 kHz, N > 512 → (B, 128, N // 160 + 1), frame t centred on 160 t."""
    bins = torch.stft(
        audio.float(),
        _FFT_SAMPLES,
        _HOP_SAMPLES,
        center=True,
        return_complex=True,
        window=torch.hann_window(_FFT_SAMPLES, device=audio.device),
    )
    return (_filters(audio.device) @ bins.abs()).clamp(min=_FLOOR).log()


def peak_hz(salience: Tensor) -> Tensor:
    """Pitch in Hz (T,) of salience (T, 360): the mean of the nine bins around the peak, weighted by salience.

    Examples
    --------
    >>> salience = torch.zeros(1, 360)
    >>> salience[0, 160] = 1.0
    >>> [round(hz, 2) for hz in peak_hz(salience).tolist()]
    [201.28]
    """
    steps = torch.arange(2 * _NEAR_BINS + 1, device=salience.device)
    near = salience.argmax(1, keepdim=True) + steps  # indices into `padded`, where bin 0 is at 4
    padded = functional.pad(salience.double(), (_NEAR_BINS, _NEAR_BINS))
    weight = padded.gather(1, near)
    cents = _CENTS_PER_BIN * (near.double() - _NEAR_BINS) + _FIRST_BIN_CENTS
    return 10 * 2 ** ((weight * cents).sum(1) / weight.sum(1) / 1200)


class _UNet(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        widths = [channels << level for level in range(_LEVELS + 1)]
        self.encoder = _Encoder(widths[:-1])
        inner = nn.Sequential(_Stage(widths[-2], widths[-1]), *(_Stage(widths[-1], widths[-1]) for _ in range(3)))
        self.intermediate = nn.Sequential(OrderedDict(layers=inner))
        self.decoder = nn.ModuleDict(
            {"layers": nn.ModuleList(_UpStage(widths[level + 1], widths[level]) for level in reversed(range(_LEVELS)))}
        )

    def forward(self, image: Tensor) -> Tensor:
        image, skipped = self.encoder(image)
        image = self.intermediate(image)
        for layer in self.decoder["layers"].children():
            image = layer(image, skipped.pop())
        return image


class _Encoder(nn.Module):
    def __init__(self, widths: list[int]) -> None:
        super().__init__()
        self.bn = nn.BatchNorm2d(1)
        self.layers = nn.ModuleList(_Stage(before, width) for before, width in zip([1, *widths], widths, strict=False))

    def forward(self, image: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Returns the encoded image, and the image of each level for the skip connections."""
        image, skipped = self.bn(image), []
        for layer in self.layers:
            skipped.append(layer(image))
            image = functional.avg_pool2d(skipped[-1], 2)
        return image, skipped


class _Stage(nn.Module):
    def __init__(self, before: int, width: int) -> None:
        super().__init__()
        self.conv = _residual_blocks(before, width)

    def forward(self, image: Tensor) -> Tensor:
        return self.conv(image)


class _UpStage(nn.Module):
    """Doubles time and frequency, and concatenates the skip connection of the same size."""

    def __init__(self, before: int, width: int) -> None:
        super().__init__()
        self.conv1 = nn.Sequential(
            nn.ConvTranspose2d(before, width, 3, stride=2, padding=1, output_padding=1, bias=False),
            nn.BatchNorm2d(width),
            nn.ReLU(),
        )
        self.conv2 = _residual_blocks(2 * width, width)

    def forward(self, image: Tensor, skipped: Tensor) -> Tensor:
        return self.conv2(torch.cat([self.conv1(image), skipped], 1))


def _residual_blocks(before: int, width: int) -> nn.Sequential:
    return nn.Sequential(_Block(before, width), *(_Block(width, width) for _ in range(_BLOCKS - 1)))


class _Block(nn.Module):
    """Two convolutions with a shortcut."""

    def __init__(self, before: int, width: int) -> None:
        super().__init__()
        self.conv = nn.Sequential(
            nn.Conv2d(before, width, 3, padding=1, bias=False),
            nn.BatchNorm2d(width),
            nn.ReLU(),
            nn.Conv2d(width, width, 3, padding=1, bias=False),
            nn.BatchNorm2d(width),
            nn.ReLU(),
        )
        if before != width:
            self.shortcut = nn.Conv2d(before, width, 1)

    def forward(self, image: Tensor) -> Tensor:
        return self.conv(image) + (self.shortcut(image) if hasattr(self, "shortcut") else image)


class _BidirectionalGRU(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.gru = nn.GRU(3 * MELS, _HIDDEN, batch_first=True, bidirectional=True)

    def forward(self, frames: Tensor) -> Tensor:
        return self.gru(frames)[0]


@lru_cache(maxsize=4)
def _filters(device: torch.device) -> Tensor:
    """Mel bands from 30 to 8000 Hz on HTK's scale (S. Young, The HTK Book): 2595 lg(1 + f / 700)."""
    low, high = (2595 * np.log10(1 + limit / 700) for limit in (_LOWEST_HZ, _HIGHEST_HZ))
    edge_hz = 700 * (10 ** (np.linspace(low, high, MELS + 2) / 2595) - 1)
    with torch.inference_mode(False):  # the cached tensor may be used in another mode later
        return torch.from_numpy(area_triangles(edge_hz, _SAMPLE_RATE, _FFT_SAMPLES)).to(device)
