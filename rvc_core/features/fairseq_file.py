"""Read ContentVec from fairseq's ``hubert_base.pt`` without fairseq and without running its pickle.

Beside tensors, such a file holds objects of fairseq's own classes. This reader builds only tensors, dicts and plain
values. It replaces every other class or function with an empty placeholder. As a second protection, it opens only the
one file that the RVC project distributes.
"""

import json
import pickle
from collections import OrderedDict
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch

from ..errors import UnsafeFileError, WeightsError
from ..system.files import sha256_of

SHA256 = (
    "f54b40fd2802423a5643779c4861af1e9ee9c1564dc9d32f54f20b5ffba7db96"  # of hubert_base.pt on RVC's Hugging Face hub
)
_LAYERS = 12


def load_fairseq(path: Path, sha256: str = SHA256) -> dict[str, torch.Tensor]:
    """Weights of the HuBERT in a fairseq checkpoint, with the names of transformers' ``HubertModel``.

    Parameters
    ----------
    path : Path
    sha256 : str
        Required hash of the file; only tests pass another.

    Raises
    ------
    UnsafeFileError
        When it is any other file: such a pickle can run code, and only this one is known.
    WeightsError
        When the model is not in the file.
    """
    if sha256_of(path) != sha256:
        raise UnsafeFileError(
            f"{path.name} is not the file that RVC distributes, so it is not opened",
            hint="use the folder hubert_base instead, or run: rvc weights fetch hubert/hubert_base.pt",
        )
    content = torch.load(path, map_location="cpu", weights_only=False, pickle_module=_PICKLE)
    table = content.get("model") if isinstance(content, dict) else None
    names = fairseq_names()
    if (
        not isinstance(table, dict)
        or not names.keys() <= table.keys()
        or not all(isinstance(table[key], torch.Tensor) for key in names)
    ):
        raise WeightsError(f"{path.name} does not hold fairseq's HuBERT", hint="use the folder hubert_base instead")
    return {ours: table[theirs].detach() for theirs, ours in names.items()}


def fairseq_names() -> dict[str, str]:
    """Names of all weights in use: fairseq's → transformers'.

    Examples
    --------
    >>> fairseq_names()["encoder.layers.11.fc1.bias"]
    'encoder.layers.11.feed_forward.intermediate_dense.bias'
    """
    rows = json.loads(Path(__file__).with_suffix(".json").read_text("utf-8"))["names"]
    return {
        theirs.replace("{layer}", str(layer)): ours.replace("{layer}", str(layer))
        for theirs, ours in rows.items()
        if ours
        for layer in range(_LAYERS if "{layer}" in theirs else 1)
    }


class _Nothing:
    """Replaces any class or function: accepts all arguments, stores nothing, does nothing."""

    __slots__ = ()

    def __new__(cls, *arguments: Any, **named: Any) -> "_Nothing":
        return super().__new__(cls)

    def __call__(self, *arguments: Any, **named: Any) -> "_Nothing":
        return self

    def __setitem__(self, key: Any, value: Any) -> None:
        """Ignore the item, as the methods below ignore theirs."""

    __setstate__ = append = extend = add = __call__


class _RebuildTensor:
    """torch's own function, wrapped so that a pickle cannot set its attributes."""

    __slots__ = ()

    def __call__(self, *arguments: Any) -> torch.Tensor:
        return torch._utils._rebuild_tensor_v2(*arguments)


_KNOWN = {("torch._utils", "_rebuild_tensor_v2"): _RebuildTensor(), ("collections", "OrderedDict"): OrderedDict}


class _TensorUnpickler(pickle.Unpickler):
    """Builds tensors and dicts only; torch adds the tensors' storages."""

    def find_class(self, module_name: str, name: str) -> Any:
        return _KNOWN.get((module_name, name), _Nothing)


_PICKLE = SimpleNamespace(
    __name__="tensors_only",
    Unpickler=_TensorUnpickler,
    load=lambda file, **options: _TensorUnpickler(file, **options).load(),
)
