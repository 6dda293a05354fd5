"""Loudness by ITU-R BS.1770-4, measured from blocks, so that memory does not depend on the length."""

from typing import Any

import numpy as np

from .lazy import blocks_of

SILENT_LUFS = -70.0  # BS.1770's absolute gate


class Loudness:
    """Measures integrated loudness by ITU-R BS.1770-4 from blocks: the filters are pyloudnorm's."""

    def __init__(self, rate_hz: int, channels: int) -> None:
        import pyloudnorm

        self._filters = [(one.b, one.a, one.passband_gain) for one in pyloudnorm.Meter(rate_hz)._filters.values()]
        self._states = [np.zeros((max(len(b), len(a)) - 1, channels)) for b, a, _ in self._filters]
        self._hop, self._rest = max(1, round(0.1 * rate_hz)), np.zeros(0)
        self._energies: list[np.ndarray] = []  # of 0.1 s each

    def add(self, samples: np.ndarray) -> None:
        """The next samples (n, C)."""
        from scipy.signal import lfilter

        heard = samples.astype(np.float64)
        for number, (b, a, gain) in enumerate(self._filters):
            heard, self._states[number] = lfilter(b, a, heard, axis=0, zi=self._states[number])
            heard *= gain
        power = np.concatenate([self._rest, np.einsum("nc,nc->n", heard, heard)])
        whole = len(power) // self._hop * self._hop
        self._rest = power[whole:]
        self._energies.append(power[:whole].reshape(-1, self._hop).mean(axis=1))

    def levels(self) -> np.ndarray:
        """Loudness of each 0.4 s (K,), in LUFS, every 0.1 s; of all where it is shorter."""
        energies = np.concatenate([*self._energies, np.zeros(0)])
        if len(energies) < 4:  # shorter than one of them: all of it
            power = np.concatenate([np.repeat(energies, self._hop), self._rest])
            sums = power.mean(keepdims=True) if len(power) else power
        else:
            sums = np.convolve(energies, np.full(4, 0.25), "valid")
        return -0.691 + 10 * np.log10(np.maximum(sums, 1e-20))

    def lufs(self, gate_db: float = 0.0) -> float:
        """Of what is above the absolute gate, moved by `gate_db`, and not 10 LU below the rest; -70 of nothing."""
        levels = self.levels()
        heard = levels[levels > SILENT_LUFS + gate_db]
        heard = heard[heard > _mean(heard) - 10] if len(heard) else heard
        return _mean(heard) if len(heard) else SILENT_LUFS


def _mean(decibels: np.ndarray) -> float:
    return 10 * float(np.log10(np.mean(10 ** (decibels / 10))))


def measured(samples: Any, rate_hz: int) -> Loudness:
    """The loudness of samples (N, C), lazy or not."""
    meter = Loudness(rate_hz, samples.shape[1])
    for block in blocks_of(samples):
        meter.add(block)
    return meter
