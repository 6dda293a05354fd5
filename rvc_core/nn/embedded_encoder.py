"""The small content encoder inside the package: 50 features per second that depend little on the speaker.

It replaces ContentVec when nothing can be downloaded. Frames are aligned with HuBERT's: frame t covers samples 320 t to
320 t + 400 at 16 kHz, so both encoders give the same number of frames.
"""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .layers import FrameBlock
from .loading import PackagedNetwork

SAMPLE_RATE_HZ = 16_000
WINDOW_SAMPLES = 400
HOP_SAMPLES = 160  # the front end runs at 100 frames per second; the stem halves that
FFT_BINS = 257
MEL_BANDS = 80
WIDTH = 256
DILATIONS = (1, 1, 2, 2, 3, 3, 1, 2)
SOUNDS = 126  # classes of the classifier: thirds of 42 phones and noises
DROPPED_SHARE = 0.1  # dropout of a block's inner channels in training
DETAIL_SHARE = 0.3  # weight of the detail features; measured: they do not make probes worse
FLOOR_POWER = 1e-6  # about -80 dBFS: below this there is only rounding noise
RELATIVE_FLOOR = 1e-5  # 50 dB below the local power: not speech
NORM_FRAMES = 301  # 3 s: averages over many sounds, but follows a change of voice


def mel_filters(warp: float = 1.0) -> Tensor:
    """Triangular filters (bins, bands) from a power spectrum to mel bands, 40 Hz to 7.6 kHz.

    Parameters
    ----------
    warp : float
        Scale of the frequency axis; 1.1 has the effect of a vocal tract that is a tenth shorter.
    """
    low, high = (2595.0 * math.log10(1.0 + hz / 700.0) for hz in (40.0, 7600.0))
    edges_hz = 700.0 * (10.0 ** (torch.linspace(low, high, MEL_BANDS + 2) / 2595.0) - 1.0)
    edges = (edges_hz / warp).clamp(max=SAMPLE_RATE_HZ / 2) / SAMPLE_RATE_HZ * 2 * (FFT_BINS - 1)
    left, centre, right = edges[:-2], edges[1:-1], edges[2:]
    bins = torch.arange(FFT_BINS, dtype=torch.float32)[:, None]
    rise = (bins - left) / (centre - left).clamp(min=1.0)  # at least one bin wide, otherwise narrow bands are empty
    fall = (right - bins) / (right - centre).clamp(min=1.0)
    filters = torch.minimum(rise, fall).clamp(min=0.0)
    return filters / filters.sum(0).clamp(min=1e-3)


def power_spectrum(samples: Tensor) -> Tensor:
    """Power spectrum (B, frames, bins) of samples (B, N): frames every 10 ms, without padding."""
    window = torch.hann_window(WINDOW_SAMPLES, device=samples.device)
    return torch.fft.rfft(samples.unfold(-1, WINDOW_SAMPLES, HOP_SAMPLES) * window, n=2 * (FFT_BINS - 1)).abs().square()


def normalised_log_mel(power: Tensor, filters: Tensor) -> Tensor:
    """Log-mel (B, bands, frames) with local mean and variance normalisation of each band.

    The statistics come from a sliding window of 3 s that weights loud frames more. This removes the effect of voice,
    microphone and level, and pauses hardly matter. A floor relative to the window's level hides rounding noise in empty
    bands and digital silence.

    Parameters
    ----------
    power : Tensor (B, frames, bins)
    filters : Tensor (bins, bands) or (B, bins, bands)
    """

    def local(values: Tensor) -> Tensor:
        return F.avg_pool1d(values, NORM_FRAMES, stride=1, padding=NORM_FRAMES // 2, count_include_pad=False)

    mel = (power @ filters).transpose(1, 2)
    log_mel = torch.log(mel + RELATIVE_FLOOR * local(mel.mean(1, keepdim=True)) + FLOOR_POWER)
    level = log_mel.mean(1, keepdim=True)
    weight = torch.sigmoid(2.0 * (level - local(level))) + 1e-3
    total = local(weight)
    mean = local(weight * log_mel) / total
    variance = local(weight * log_mel.square()) / total - mean.square()
    return ((log_mel - mean) / torch.sqrt(variance.clamp(min=0.0) + 0.1)).clamp(-4.0, 4.0)


class EmbeddedEncoder(PackagedNetwork):
    """Content features of 16 kHz sound.

    Examples
    --------
    >>> EmbeddedEncoder().eval()(torch.zeros(1, 16_000)).shape
    torch.Size([1, 49, 256])
    """

    filters: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("filters", mel_filters(), persistent=False)
        self.stem = nn.Conv1d(MEL_BANDS, WIDTH, 5, stride=2, padding=2)
        self.blocks = nn.Sequential(
            *(FrameBlock(WIDTH, 384, dilation=dilation, dropped=DROPPED_SHARE) for dilation in DILATIONS)
        )
        self.namer = nn.Linear(WIDTH, SOUNDS)
        self.detail = nn.Linear(WIDTH, WIDTH - SOUNDS, bias=False)

    def forward(self, samples: Tensor) -> Tensor:
        """Features (B, T, 256) of samples (B, N), T = (N - 400) // 320 + 1.

        The square roots of the class probabilities, a unit vector that depends little on the speaker, then detail
        features with a smaller weight. Values are scaled to about 1.
        """
        hidden = self.encode(normalised_log_mel(power_spectrum(samples), self.filters))
        names = torch.softmax(self.namer(hidden), -1).sqrt()
        return torch.cat([names * WIDTH**0.5, self.detail(hidden) * DETAIL_SHARE], -1)

    def encode(self, log_mel: Tensor) -> Tensor:
        """Hidden layer (B, T, 256) of a normalised log-mel (B, bands, frames); T is half of frames.

        Each frame has mean 0 and variance 1.
        """
        return F.layer_norm(self.blocks(self.stem(log_mel)).transpose(1, 2), (WIDTH,))
