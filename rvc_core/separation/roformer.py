"""Separators that you download: RoFormers of RVC's repository, read without running anything in their files."""

from pathlib import PurePath
from typing import Any

import torch
from torch import Tensor

from ..assets import registry
from ..errors import WeightsError
from ..nn.loading import load_strictly
from ..nn.roformer import Roformer, RoformerShape
from ..system.untrusted import AGAIN, checked_weights, load_torch

_VOCALS, _MEL = RoformerShape("split", 512, 12), RoformerShape("mel", 384, 6)
SHAPES = dict.fromkeys(registry.SEPARATION["vocals"], _VOCALS) | {
    name: _MEL for kind in ("lead", "dereverb") for name in registry.SEPARATION[kind]
}
_CHUNK_SAMPLES = 352_800  # at 44.1 kHz: what all of them were trained on


class RoformerSeparator:
    """A RoFormer with its published weights; float16 on a GPU, except for norms, rotary embedding and spectrograms."""

    chunk_seconds, batch = _CHUNK_SAMPLES / 44_100, 1

    def __init__(self, name: str, device: str = "cpu") -> None:
        self.name, shape = PurePath(name).name, SHAPES[name]
        self.rate_hz, self._device = shape.rate_hz, torch.device(device)
        path = registry.find(name)
        if path is None:
            raise registry.missing(name, f"the separator {self.name}")
        registry.require_hash(path, registry.assets()[name].sha256)
        network = Roformer(shape)
        hint = "move it away, then: rvc weights fetch"
        load_strictly(network, checked_weights(_table(load_torch(path)), self.name), self.name, hint=hint)
        self._network = network.eval().to(self._device)

    def __call__(self, chunks: Tensor, rate_hz: int) -> Tensor:
        """The wanted sound (B, 2, N) of chunks (B, 2, N) at 44.1 kHz."""
        with torch.autocast(self._device.type, torch.float16, enabled=self._device.type == "cuda"):
            return self._network(chunks.to(self._device))


def _table(content: Any) -> Any:
    """The weights in a checkpoint, which may hold them under a name."""
    if not isinstance(content, dict):
        raise WeightsError("the separator's file is damaged: it holds no table of weights", hint=AGAIN)
    return next(
        (content[key] for key in ("state_dict", "state", "model") if isinstance(content.get(key), dict)), content
    )
