"""The small separator inside the package: masks that keep the vocals of a song, from its spectrogram up to 8 kHz.

A U-Net over frequency with a stack of dilated convolutions over time at its bottom. It works at any sample rate: frames
of 64 ms every 16 ms have bins of 15.6 Hz, so the lowest 512 bins are the same at every rate. What is above 8 kHz
follows the mask of the bins below (`widened`).
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .loading import PackagedNetwork
from .spectrogram import istft, stft

BINS = 512  # up to 8 kHz
FOLD = 4  # neighbouring bins become channels
WIDTHS = (32, 48, 64, 96)  # channels where there are 128, 64, 32 and 16 bands
LASTING_FRAMES = (9, 33)
HIDDEN, INNER = 256, 384
DILATIONS = (1, 2, 4, 8)
FLOOR_RMS = 1e-4  # quieter sound is not made louder
_EDGE_BIN, _TOP_BINS = 480, (288, 480)  # 7.5 kHz; and 4.5 to 7.5 kHz, which lead the bins above
_FALL = 2.0  # how fast the voice is expected to fall above 7.5 kHz: amplitude ~ frequency ** -_FALL


def hop_of(rate_hz: int) -> int:
    """Samples between frames; a frame has four times as many.

    Examples
    --------
    >>> hop_of(16000), hop_of(44100), hop_of(48000)
    (256, 704, 768)
    """
    return 16 * max(1, round(rate_hz / 1000))


def spectrum(samples: Tensor, rate_hz: int) -> Tensor:
    """Complex spectrogram (…, bins, frames) of samples (…, N); frame t is centred at sample t * hop."""
    return stft(samples, 4 * hop_of(rate_hz), hop_of(rate_hz))


def sound(frames: Tensor, rate_hz: int, length: int) -> Tensor:
    """Samples (…, length) of a spectrogram: the inverse of `spectrum`."""
    return istft(frames, 4 * hop_of(rate_hz), hop_of(rate_hz), length)


def widened(mask: Tensor, frames: Tensor) -> Tensor:
    """Masks (B, C, bins, T) for all bins of `frames`, from those (B, C, BINS, T) of the lowest.

    Training knows nothing above 8 kHz. There the mask is that of 4.5 to 7.5 kHz, and lower where the mix is louder than
    a voice would be, whose amplitude falls with frequency.
    """
    bins = frames.shape[2]
    if bins <= _EDGE_BIN:
        return mask[:, :, :bins]
    size, lead = frames.abs(), slice(*_TOP_BINS)
    energy = size[:, :, lead].square().sum(2, keepdim=True)
    voice = (size[:, :, lead] * mask[:, :, lead]).square().sum(2, keepdim=True)
    share = (voice / energy.clamp(min=1e-12)).sqrt()
    mean = (voice / (_TOP_BINS[1] - _TOP_BINS[0])).sqrt()
    falls = (torch.arange(_EDGE_BIN, bins, device=mask.device) / _EDGE_BIN).pow(-_FALL)[:, None]
    near = F.avg_pool2d(size[:, :, _EDGE_BIN:], (9, 3), 1, (4, 1), count_include_pad=False)
    above = torch.minimum(share, 1.5 * mean * falls / near.clamp(min=1e-9)).clamp(max=1.0)
    return torch.cat([mask[:, :, :_EDGE_BIN], above], 2)


class Mixed(nn.Module):
    """Residual block on (B, C, F, T): two convolutions over neighbours, then each band sees all bands of its frame."""

    def __init__(self, width: int, bands: int) -> None:
        super().__init__()
        self.near = nn.ModuleList(nn.Conv2d(width, width, 3, padding=1, bias=False) for _ in range(2))
        self.norm = nn.ModuleList(nn.BatchNorm2d(width) for _ in range(2))
        self.squeeze = nn.Linear(bands, bands // 4)
        self.spread = nn.Linear(bands // 4, bands)

    def forward(self, hidden: Tensor) -> Tensor:
        """Map (B, C, F, T) to the same shape."""
        for near, norm in zip(self.near, self.norm, strict=True):
            hidden = hidden + F.relu(norm(near(hidden)))
        across = self.spread(F.relu(self.squeeze(hidden.transpose(2, 3))))
        return hidden + across.transpose(2, 3)


class Dilated(nn.Module):
    """Residual block on (B, HIDDEN, T): a depthwise convolution over time, then a mix within each frame."""

    def __init__(self, dilation: int) -> None:
        super().__init__()
        self.time = nn.Conv1d(HIDDEN, HIDDEN, 5, padding=2 * dilation, dilation=dilation, groups=HIDDEN)
        self.norm = nn.BatchNorm1d(HIDDEN)
        self.widen, self.narrow = nn.Conv1d(HIDDEN, INNER, 1), nn.Conv1d(INNER, HIDDEN, 1)

    def forward(self, hidden: Tensor) -> Tensor:
        """Map (B, HIDDEN, T) to the same shape."""
        return hidden + self.narrow(F.relu(self.widen(self.norm(self.time(hidden)))))


def _folded(tensor: Tensor, bins: int) -> Tensor:
    """(B, C, F, T) to (B, C * bins * 2, F / bins, T / 2)."""
    batch, width, bands, frames = tensor.shape
    split = tensor.reshape(batch, width, bands // bins, bins, frames // 2, 2)
    return split.permute(0, 1, 3, 5, 2, 4).reshape(batch, width * bins * 2, bands // bins, frames // 2)


def _unfolded(tensor: Tensor, bins: int) -> Tensor:
    """The inverse of `_folded`."""
    batch, width, bands, frames = tensor.shape
    split = tensor.reshape(batch, width // bins // 2, bins, 2, bands, frames)
    return split.permute(0, 1, 4, 2, 5, 3).reshape(batch, width // bins // 2, bands * bins, frames * 2)


class SeparatorNetwork(PackagedNetwork):
    """Masks for the middle and the sides of a stereo mix.

    Examples
    --------
    >>> network = SeparatorNetwork().eval()
    >>> network(torch.zeros(1, 2, 512, 9, dtype=torch.complex64)).shape
    torch.Size([1, 2, 512, 9])
    """

    def __init__(self) -> None:
        super().__init__()
        bands = [BINS // FOLD // 2**level for level in range(len(WIDTHS))]
        steps = list(zip(WIDTHS, WIDTHS[1:], strict=False))
        self.enter = nn.Conv2d(4 * FOLD * 2, WIDTHS[0], 3, padding=1)
        self.down = nn.ModuleList(Mixed(width, count) for width, count in zip(WIDTHS, bands, strict=True))
        self.shrink = nn.ModuleList(nn.Conv2d(4 * before, after, 1) for before, after in steps)
        self.sink = nn.Conv1d(WIDTHS[-1] * bands[-1], HIDDEN, 1)
        self.over_time = nn.Sequential(*(Dilated(dilation) for dilation in DILATIONS))
        self.rise = nn.Conv1d(HIDDEN, WIDTHS[-1] * bands[-1], 1)
        self.grow = nn.ModuleList(nn.Conv2d(after, 4 * before, 1) for before, after in steps)
        self.up = nn.ModuleList(Mixed(width, count) for width, count in zip(WIDTHS, bands, strict=True))
        self.leave = nn.Conv2d(2 * WIDTHS[0], 2 * FOLD * 2, 3, padding=1)

    def forward(self, mix: Tensor) -> Tensor:
        """Masks (B, 2, BINS, T) between 0 and 1.

        Parameters
        ----------
        mix : Tensor (B, 2, BINS, T), complex
            Middle ``(L + R) / 2`` and sides ``(L - R) / 2``.
        """
        power = mix.abs().square()
        mean = power.sum(1).mean((1, 2))[:, None, None, None]
        sizes = (power / mean.clamp(min=FLOOR_RMS**2) + 1e-7) ** 0.15
        # What lasts: instruments hold still over half a second, voices do not.
        lasting = [F.avg_pool2d(sizes[:, :1], (1, n), 1, (0, n // 2), count_include_pad=False) for n in LASTING_FRAMES]
        frames = mix.shape[-1]
        hidden = F.pad(torch.cat([sizes, *lasting], 1), (0, -frames % 2 ** len(WIDTHS)))
        hidden = first = F.relu(self.enter(_folded(hidden, FOLD)))
        kept = []
        for level, block in enumerate(self.down):
            hidden = block(F.relu(self.shrink[level - 1](_folded(hidden, 2))) if level else hidden)
            kept.append(hidden)
        flat = self.over_time(F.relu(self.sink(hidden.flatten(1, 2))))
        hidden = F.relu(self.rise(flat)).unflatten(1, hidden.shape[1:3])
        for level in reversed(range(len(self.up))):
            hidden = self.up[level](hidden + kept[level])
            if level:
                hidden = _unfolded(F.relu(self.grow[level - 1](hidden)), 2)
        masks = _unfolded(self.leave(torch.cat([hidden, first], 1)), FOLD)
        return torch.sigmoid(masks[..., :frames].float())
