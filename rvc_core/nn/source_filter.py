"""A decoder for machines without a GPU: it filters a pulse train and noise in the frequency domain.

HiFi-GAN learns every sample. Here the pulse train already has the harmonics of the pitch, and noise models the breath.
The network only predicts, 100 times per second, the gain of each frequency and the delay of the harmonics. It converges
in minutes and decodes a second of audio in milliseconds.

Sources: differentiable harmonics plus noise (Engel et al. 2020, DDSP); a ConvNeXt at frame rate with an inverse Fourier
transform instead of upsampling (Siuzdak 2023, Vocos); one excitation for the whole band (Wang et al. 2019).
"""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

from ..presets import VoiceSpec
from .generator import cycles_of
from .layers import FrameBlock

LAYERS = 6
WINDOW_HOPS = 4  # frames overlap by three quarters
QUIET_PULSES, QUIET_NOISE = -3.0, -5.0  # initial log gains, similar to speech
LOUDEST = 4.0


def pulse_train(f0_hz: Tensor, sample_rate: int, start: Tensor | None = None) -> Tensor:
    """All harmonics of f0_hz (B, T) below half the sample rate, with equal power, 1 in total → (B, T * hop).

    Unvoiced frames are 0. The sum of the cosines is computed in closed form (Dirichlet kernel).

    Parameters
    ----------
    start : Tensor, optional
        (B,) phase of the first frame, as for `generator.sine`.

    Examples
    --------
    >>> wave = pulse_train(torch.full((1, 100), 200.0), 16000)
    >>> round(float(wave.square().mean()), 2)
    1.0
    """
    cycles = cycles_of(f0_hz, sample_rate, start)
    cycles = cycles - cycles.round()  # in [-1/2, 1/2]: exact sines
    voiced = f0_hz > 0
    harmonics = torch.where(voiced, ((sample_rate / 2 - 1) / f0_hz.clamp(min=1.0)).floor(), 1.0).unsqueeze(2)
    below = torch.sin(math.pi * cycles)
    at_peak = below.abs() < 1e-4
    kernel = torch.where(
        at_peak, 2 * harmonics + 1, torch.sin(math.pi * (2 * harmonics + 1) * cycles) / torch.where(at_peak, 1.0, below)
    )
    return ((kernel - 1) / 2 * (2 / harmonics).sqrt() * voiced.unsqueeze(2)).flatten(1)


class SourceFilter(nn.Module):
    """Latent (B, inter, T) and speaker → waveform (B, 1, T * hop) at a given pitch."""

    window: Tensor

    def __init__(self, spec: VoiceSpec) -> None:
        super().__init__()
        self.hop_samples, self.sample_rate = spec.hop_samples, spec.sample_rate
        self.fft_samples = WINDOW_HOPS * spec.hop_samples
        self.bins = self.fft_samples // 2 + 1
        width = spec.source_filter_channels
        self.conv_pre = nn.Conv1d(spec.inter_channels, width, 7, padding=3)
        self.cond = nn.Conv1d(spec.speaker_channels, width, 1)
        self.pitch = nn.Conv1d(2, width, 1)
        self.blocks = nn.Sequential(*(FrameBlock(width, 2 * width) for _ in range(LAYERS)))
        self.norm = nn.LayerNorm(width)
        self.filters = nn.Linear(width, 3 * self.bins)
        self.register_buffer("window", torch.hann_window(self.fft_samples), persistent=False)
        with torch.no_grad():
            self.filters.weight.mul_(0.1)
            self.filters.bias.copy_(torch.tensor([QUIET_PULSES, 0.0, QUIET_NOISE]).repeat_interleave(self.bins))

    def forward(
        self, latent: Tensor, speaker: Tensor, f0_hz: Tensor, noise: Tensor | None = None, start: Tensor | None = None
    ) -> Tensor:
        """Decode latent (B, inter, T), speaker (B, C, 1), f0_hz (B, T).

        Standard normal noise (B, 1, S) is drawn if not given; start (B,) is the phase before the first frame.
        """
        gain, delay, noise_gain = self.filters_at(latent, speaker, f0_hz)
        with torch.autocast(latent.device.type, enabled=False):
            pulses = pulse_train(f0_hz, self.sample_rate, start)
            noise = torch.randn_like(pulses) if noise is None else noise.float().flatten(1)
            bins = self.spectrum(pulses) * torch.polar(gain, delay) + self.spectrum(noise) * noise_gain
            return self.wave(bins).unsqueeze(1)

    def filters_at(self, latent: Tensor, speaker: Tensor, f0_hz: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Gain and phase delay (radians) of the pulses, and gain of the noise: (B, bins, T) each, float32."""
        voiced = (f0_hz > 0).to(latent.dtype)
        octave = torch.log2(f0_hz.clamp(min=1.0) / 200).to(latent.dtype) * voiced
        x = self.conv_pre(latent) + self.cond(speaker) + self.pitch(torch.stack([octave, voiced], 1))
        filters = self.filters(self.norm(self.blocks(x).transpose(1, 2))).transpose(1, 2)
        gain, delay, noise_gain = filters.float().chunk(3, 1)
        return gain.clamp(max=LOUDEST).exp(), delay, noise_gain.clamp(max=LOUDEST).exp()

    def spectrum(self, wave: Tensor) -> Tensor:
        """STFT (B, bins, T) of wave (B, T * hop); frame t is centred on the middle of its hop."""
        margin = (self.fft_samples - self.hop_samples) // 2
        return torch.stft(
            functional.pad(wave, (margin, margin)),
            self.fft_samples,
            self.hop_samples,
            window=self.window,
            center=False,
            return_complex=True,
        )

    def wave(self, bins: Tensor) -> Tensor:
        """The inverse of `spectrum`: (B, bins, T) → (B, T * hop)."""
        frames, margin = bins.shape[2], (self.fft_samples - self.hop_samples) // 2
        pieces = torch.fft.irfft(bins, n=self.fft_samples, dim=1) * self.window[:, None]
        weights = self.window.square()[:, None].expand(1, -1, frames)
        summed, weight = (
            functional.fold(
                part,
                (1, (frames - 1) * self.hop_samples + self.fft_samples),
                (1, self.fft_samples),
                stride=(1, self.hop_samples),
            ).flatten(1)
            for part in (pieces, weights)
        )
        inside = slice(margin, margin + frames * self.hop_samples)
        return summed[:, inside] / weight[:, inside]
