"""The separator inside the package: it works on any machine, and is rougher than the models you can download."""

import torch
from torch import Tensor

from ..embedded import SEPARATOR_FILE
from ..nn.separator import BINS, SeparatorNetwork, sound, spectrum, widened


class EmbeddedSeparator:
    """Vocals of a mix at any sample rate, by the small network inside the package."""

    name, rate_hz, chunk_seconds, batch = "embedded", 0, 12.0, 1

    def __init__(self, device: str = "cpu") -> None:
        self._network = SeparatorNetwork.from_file(SEPARATOR_FILE).to(device)
        self._device = device

    def __call__(self, chunks: Tensor, rate_hz: int) -> Tensor:
        """Vocals (B, 2, N) of chunks (B, 2, N)."""
        left, right = chunks.to(self._device).unbind(1)
        frames = spectrum(torch.stack([left + right, left - right], 1) / 2, rate_hz)
        low = frames[:, :, :BINS]
        missing = BINS - low.shape[2]
        mask = self._network(torch.nn.functional.pad(low, (0, 0, 0, max(0, missing))))
        middle, sides = sound(frames * widened(mask, frames), rate_hz, chunks.shape[-1]).unbind(1)
        return torch.stack([middle + sides, middle - sides], 1)
