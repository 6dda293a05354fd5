"""The Audio value: samples and their rate are one thing."""

from dataclasses import dataclass

import numpy as np

from .errors import AudioError


@dataclass(frozen=True)
class Audio:
    """Mono waveform with the rate it was sampled at.

    Attributes
    ----------
    samples : ndarray (N,), float32
        Finite; full scale is 1.
    sample_rate : int
        Hz.
    """

    samples: np.ndarray
    sample_rate: int

    def __post_init__(self) -> None:
        if self.samples.ndim != 1 or self.samples.dtype != np.float32:
            raise AudioError(f"expected mono float32 samples, got {self.samples.dtype} {self.samples.shape}",
                             hint="use read_audio(), which converts")
        if not np.isfinite(self.samples).all():
            raise AudioError("audio contains NaN or infinity", hint="decode the recording again")

    @property
    def seconds(self) -> float:
        """Length."""
        return len(self.samples) / self.sample_rate
