"""Describe a file: a voice, a checkpoint, a base model, an index, or a zip."""

import math
from collections import Counter
from dataclasses import asdict
from pathlib import Path
from typing import Any

from ..errors import CheckpointError
from ..features.faiss_file import load_arrays
from ..system.untrusted import checked_weights, list_zip, load_torch
from ..workspace.rvc_config import spec_of_generator
from ..workspace.voice_file import load_voice, voice_of
from .library import architecture_of

_VERSIONS = {7: "v1", 9: "v2"}  # by the number of discriminators


def describe(path: Path) -> dict[str, Any]:
    """Read the metadata of a file, after the same safety checks as before use.

    Returns
    -------
    dict
        ``kind`` (``voice``, ``generator``, ``discriminator``, ``index`` or ``zip``), ``size_bytes``, and the metadata
        of that kind, as JSON.
    """
    suffix = path.suffix.lower()
    if suffix == ".zip":
        known = _zip(path)
    elif suffix == ".index":
        known = _index(path)
    elif suffix == ".safetensors":
        known = _voice(path)
    else:
        content = load_torch(path)
        is_network = isinstance(content, dict) and isinstance(content.get("model"), dict)
        known = _network(path, content) if is_network else _voice(path, content)
    return {"kind": known.pop("kind"), "size_bytes": path.stat().st_size, **known}


def _voice(path: Path, content: Any = None) -> dict[str, Any]:
    voice = load_voice(path) if content is None else voice_of(content, path)
    spec = voice.spec
    known = {
        "architecture": architecture_of(spec),
        "sample_rate": spec.sample_rate,
        "content_width": spec.content_width,
    }
    return {"kind": "voice", **asdict(voice.info), **known, **_sizes(voice.weights)}


def _network(path: Path, content: dict[str, Any]) -> dict[str, Any]:
    """A training checkpoint (``G_`` or ``D_``), or a base model, which is a checkpoint without optimizer state."""
    weights = checked_weights(content["model"], path.name)
    discriminators = {key.split(".")[1] for key in weights if key.startswith("discriminators.")}
    if not discriminators and "enc_q.pre.weight" not in weights:
        raise CheckpointError(
            f"{path.name} is not an RVC checkpoint", hint="choose a G_ or D_ file of a training, or a base model"
        )
    epoch = content.get("iteration")
    known = {
        "kind": "discriminator" if discriminators else "generator",
        "epoch": epoch if isinstance(epoch, int) else None,
        "can_be_continued": isinstance(content.get("optimizer"), dict),
        **_sizes(weights),
    }
    if discriminators:
        return known | {"version": _VERSIONS.get(len(discriminators), "nano")}
    name, spec = spec_of_generator(weights, path.name)
    return known | {
        "architecture": name,
        "content_width": spec.content_width,
        "uses_f0": spec.uses_f0,
        "speakers": spec.speakers,
    }


def _sizes(weights: dict[str, Any]) -> dict[str, Any]:
    types = Counter(str(value.dtype).removeprefix("torch.") for value in weights.values())
    return {
        "tensors": len(weights),
        "parameters": sum(math.prod(value.shape) for value in weights.values()),
        "precision": ", ".join(types),
    }


def _index(path: Path) -> dict[str, Any]:
    arrays = load_arrays(path)
    return {
        "kind": "index",
        "vectors": len(arrays.vectors),
        "content_width": arrays.vectors.shape[1],
        "lists": len(arrays.centres),
        "probes": arrays.probes,
        **arrays.note,
    }


def _zip(path: Path) -> dict[str, Any]:
    names = list_zip(path)
    return {"kind": "zip", "files": len(names)} | {
        what: [name for name in names if name.lower().endswith(suffixes)]
        for what, suffixes in (("voices", (".pth", ".safetensors")), ("indexes", ".index"))
    }
