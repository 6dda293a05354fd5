"""Differentiable linear and mel spectrograms, computed exactly as in the reference.

There are two pairs of epsilons: the base models were trained with those of 2023, and RVC changed them in 2026.
"""

from functools import lru_cache
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from ..presets import VoiceSpec


class Epsilons(NamedTuple):
    """Epsilons of the square root of the magnitude and of the logarithm of the mel bands."""

    power: float
    mel: float


EPSILONS: dict[str, Epsilons] = {"2023": Epsilons(1e-6, 1e-5), "2026": Epsilons(2e-7, 2e-6)}


def linear_spectrogram(audio: Tensor, spec: VoiceSpec) -> Tensor:
    """Magnitudes of the short-time Fourier transform: audio (B, S) or (B, 1, S) → (B, F, S // hop).

    Both sides are padded by reflection with half a window minus half a hop, so frames are centred on their hops.
    """
    audio = audio.float().flatten(1)
    margin = (spec.fft_samples - spec.hop_samples) // 2
    padded = functional.pad(audio.unsqueeze(1), (margin, margin), "reflect").squeeze(1)
    window = _hann(spec.fft_samples, audio.device)
    bins = torch.stft(padded, spec.fft_samples, spec.hop_samples, window=window, center=False, return_complex=True)
    return torch.view_as_real(bins).square().sum(-1).add(EPSILONS[spec.mel_epsilons].power).sqrt()


def mel_of_linear(linear: Tensor, spec: VoiceSpec) -> Tensor:
    """Log-mel bands of a linear spectrogram (natural logarithm): (B, F, T) → (B, mels, T)."""
    filters = _mel_filters(spec.sample_rate, spec.fft_samples, spec.mels, linear.device)
    with torch.autocast(linear.device.type, enabled=False):  # half precision is audible in quiet bands
        return (filters @ linear.float()).clamp(min=EPSILONS[spec.mel_epsilons].mel).log()


def mel_spectrogram(audio: Tensor, spec: VoiceSpec) -> Tensor:
    """Log-mel spectrogram: audio (B, S) or (B, 1, S) → (B, mels, S // hop)."""
    return mel_of_linear(linear_spectrogram(audio, spec), spec)


def stft(samples: Tensor, size: int, hop: int, pad_mode: str = "constant") -> Tensor:
    """Complex spectrogram (…, bins, frames) of samples (…, N); frame t is centred at sample t * hop."""
    window = torch.hann_window(size, device=samples.device)
    flat = samples.reshape(-1, samples.shape[-1])
    made = torch.stft(flat, size, hop, window=window, return_complex=True, pad_mode=pad_mode)
    return made.reshape(*samples.shape[:-1], *made.shape[-2:])


def istft(frames: Tensor, size: int, hop: int, length: int) -> Tensor:
    """Samples (…, length) of a spectrogram: the inverse of `stft`."""
    window = torch.hann_window(size, device=frames.device)
    made = torch.istft(frames.reshape(-1, *frames.shape[-2:]), size, hop, window=window, length=length)
    return made.reshape(*frames.shape[:-2], length)


def mel_filterbank(sample_rate: int, fft_samples: int, mels: int) -> np.ndarray:
    """Triangular filters of equal area on Slaney's mel scale from 0 Hz to half the rate: (mels, F) float32.

    The scale is linear up to 1000 Hz (15 mel) and logarithmic above (Slaney 1998, Auditory Toolbox). The values equal
    ``librosa.filters.mel``, but importing librosa takes a second.
    """
    top_mel = 15 + 27 * np.log(sample_rate / 2 / 1000) / np.log(6.4)
    edge_mel = np.linspace(0, top_mel, mels + 2)
    edge_hz = np.where(edge_mel < 15, edge_mel * 200 / 3, 1000 * np.exp((edge_mel - 15) * np.log(6.4) / 27))
    return area_triangles(edge_hz, sample_rate, fft_samples)


def area_triangles(edge_hz: np.ndarray, sample_rate: int, fft_samples: int) -> np.ndarray:
    """Overlapping triangular filters of equal area: M + 2 edges in Hz → (M, F) float32."""
    bin_hz = np.fft.rfftfreq(fft_samples, 1 / sample_rate)
    low, centre, high = edge_hz[:-2, None], edge_hz[1:-1, None], edge_hz[2:, None]
    triangles = np.minimum((bin_hz - low) / (centre - low), (high - bin_hz) / (high - centre)).clip(min=0)
    return (triangles * 2 / (high - low)).astype(np.float32)


@lru_cache(maxsize=16)
def _mel_filters(sample_rate: int, fft_samples: int, mels: int, device: torch.device) -> Tensor:
    with torch.inference_mode(False):  # the cached tensor may be used in another mode later
        return torch.from_numpy(mel_filterbank(sample_rate, fft_samples, mels)).to(device)


@lru_cache(maxsize=16)
def _hann(samples: int, device: torch.device) -> Tensor:
    with torch.inference_mode(False):
        return torch.hann_window(samples, device=device)
