"""ContentVec as fairseq saved it, ``hubert_base.pt``: read without fairseq, and without building what it asks for.

Beside tensors such a file holds objects of fairseq's own classes. Here only tensors, dicts and plain values come into
being; whatever else the pickle names becomes a stand-in that holds nothing and does nothing. As a second lock, only the
one file that the RVC project distributes is opened at all.
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
from ..system.untrusted import AGAIN, DAMAGE

SHA256 = "f54b40fd2802423a5643779c4861af1e9ee9c1564dc9d32f54f20b5ffba7db96"  # of hubert_base.pt at RVC's hub
_LAYERS = 12


def load_fairseq(path: Path, sha256: str = SHA256) -> dict[str, torch.Tensor]:
    """Weights of the HuBERT in a fairseq checkpoint, under the names of transformers' ``HubertModel``.

    Parameters
    ----------
    path : Path
    sha256 : str
        What the file must hash to; only tests name another.

    Raises
    ------
    UnsafeFileError
        When it is any other file: such pickles are programs, and this one is known.
    WeightsError
        When it holds no such model.
    """
    if sha256_of(path) != sha256:
        raise UnsafeFileError(
            f"{path.name} is not the file of that name that RVC distributes, and is not opened",
            hint="use the folder hubert_base instead, or: rvc weights fetch hubert/hubert_base.pt",
        )
    try:
        content = torch.load(path, map_location="cpu", weights_only=False, pickle_module=_PICKLE)
    except DAMAGE as error:
        raise WeightsError(f"{path.name} is no checkpoint of fairseq, or is damaged", hint=AGAIN) from error
    table = content.get("model") if isinstance(content, dict) else None
    names = fairseq_names()
    if (
        not isinstance(table, dict)
        or not names.keys() <= table.keys()
        or not all(isinstance(table[key], torch.Tensor) for key in names)
    ):
        raise WeightsError(f"{path.name} holds no HuBERT of fairseq", hint="use the folder hubert_base instead")
    return {ours: table[theirs].detach() for theirs, ours in names.items()}


def fairseq_names() -> dict[str, str]:
    """Names of all weights that are used: fairseq's → transformers'.

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
    """Stands in for any class or function: takes whatever it is given, keeps none of it, and is called to no effect."""

    __slots__ = ()

    def __new__(cls, *arguments: Any, **named: Any) -> "_Nothing":
        return super().__new__(cls)

    def __call__(self, *arguments: Any, **named: Any) -> "_Nothing":
        return self

    def __setitem__(self, key: Any, value: Any) -> None:
        """Forget it, as do the methods that unpickling calls on objects, lists and sets."""

    __setstate__ = append = extend = add = __call__


class _RebuildTensor:
    """torch's own function, in a form whose attributes no pickle can set."""

    __slots__ = ()

    def __call__(self, *arguments: Any) -> torch.Tensor:
        return torch._utils._rebuild_tensor_v2(*arguments)


_KNOWN = {("torch._utils", "_rebuild_tensor_v2"): _RebuildTensor(), ("collections", "OrderedDict"): OrderedDict}


class _TensorUnpickler(pickle.Unpickler):
    """Knows tensors and dicts; torch adds the storages that tensors lie in."""

    def find_class(self, module_name: str, name: str) -> Any:
        return _KNOWN.get((module_name, name), _Nothing)


_PICKLE = SimpleNamespace(
    __name__="tensors_only",
    Unpickler=_TensorUnpickler,
    load=lambda file, **options: _TensorUnpickler(file, **options).load(),
)
