"""Loudness by ITU-R BS.1770-4, measured from blocks, so that memory does not depend on the length."""

from typing import Any

import numpy as np

from .lazy import blocks_of

SILENT_LUFS = -70.0  # BS.1770's absolute gate
_SILENCE_LUFS = -100.0


class Loudness:
    """Measures integrated loudness by ITU-R BS.1770-4 from blocks: the filters are pyloudnorm's."""

    def __init__(self, rate_hz: int) -> None:
        import pyloudnorm

        filters = pyloudnorm.Meter(rate_hz)._filters.values()
        self._filters = [(one.b, one.a) for one in filters]  # their gain in the pass band is 1
        self._states: list[np.ndarray] = []
        self._hop, self._rest = max(1, round(0.1 * rate_hz)), np.zeros(0)
        self._energies: list[np.ndarray] = []  # of 0.1 s each

    def add(self, samples: np.ndarray) -> None:
        """The next samples (n, C)."""
        from scipy.signal import lfilter, lfilter_zi

        if not len(samples):
            return
        heard, states = samples.astype(np.float64), []
        for number, (b, a) in enumerate(self._filters):
            begun = self._states[number] if self._states else lfilter_zi(b, a)[:, None] * heard[:1]  # no click at first
            heard, state = lfilter(b, a, heard, axis=0, zi=begun)
            states.append(state)
        self._states = states
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

    @property
    def is_silent(self) -> bool:
        """Whether nothing is above -100 LUFS; a constant offset is silence."""
        return bool(self.levels().max(initial=-np.inf) < _SILENCE_LUFS)

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
    meter = Loudness(rate_hz)
    for block in blocks_of(samples):
        meter.add(block)
    return meter
