"""Read and write voice files: RVC's small ``.pth``, or the same content as ``.safetensors``.

The reader accepts files of RVC WebUI and Applio, and both accept the files written here. A ``.safetensors`` file
describes the voice in its header. Source of the format: RVC WebUI ``process_ckpt.py`` (18-value ``config`` list) and
Applio's metadata keys.
"""

import datetime
import json
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import safetensors
import safetensors.torch
import torch

from ..errors import CheckpointError, MismatchError, WeightsError, printable
from ..nn.layers import Blueprint
from ..nn.loading import load_strictly
from ..nn.synthesizer import Synthesizer
from ..presets import VoiceSpec
from ..system.documents import parsed
from ..system.files import replace_atomically
from ..system.untrusted import AGAIN, checked_weights, load_array, load_torch, not_finite
from . import stamps
from .filelist import ClipFiles
from .layout import Layout
from .rvc_config import config_of, spec_of

_VOCODER = "HiFi-GAN"  # RVC's decoder; Applio has others too
_ENCODER_NAMES = {"": "contentvec", "hubert_base": "contentvec"}
_HEADER = "rvc_voice"  # metadata key of the description in a safetensors file
_TEXTS = {  # of `VoiceInfo`, and the key in a file
    "name": "model_name",
    "content_name": "embedder_model",
    "created": "creation_date",
    "author": "author",
    "dataset_length": "dataset_length",
}
# PyTorch's newer weight normalisation uses other names for a kernel's norm and direction.
_SPELLINGS = {".parametrizations.weight.original0": ".weight_g", ".parametrizations.weight.original1": ".weight_v"}


@dataclass(frozen=True)
class VoiceInfo:
    """Metadata of a voice.

    Attributes
    ----------
    content_identity : str
        Hash of the content encoder it was trained with; the voice needs this encoder.
    f0_median_hz : float
        Median pitch of its recordings, the target of automatic transposition; 0 if unknown.
    speakers : dict of str to float
        Name and median pitch of each speaker row, in order; empty for a single speaker.
    author, dataset_length : str
        Applio's author field, and the length of the recordings (``hh:mm:ss``).
    note : str
        RVC's info text; empty if it is just the number of epochs.
    """

    name: str = ""
    epoch: int = 0
    step: int = 0
    content_name: str = ""
    content_identity: str = ""
    f0_median_hz: float = 0.0
    mel_epsilons: str = ""
    created: str = field(default_factory=lambda: datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"))
    author: str = ""
    dataset_length: str = ""
    note: str = ""
    speakers: dict[str, float] = field(default_factory=dict)


def voice_info(layout: Layout, files: list[ClipFiles]) -> VoiceInfo:
    """Metadata for the voices of an experiment: its name, encoder and median pitch."""
    content = stamps.content_of(layout, "content")
    return VoiceInfo(
        name=layout.name,
        content_name=content.get("name", ""),
        content_identity=content.get("identity", ""),
        f0_median_hz=median_f0_hz(files),
    )


def median_f0_hz(files: list[ClipFiles]) -> float:
    """Median pitch of all voiced frames; 0 if there are none."""
    tracks = [load_array(file.f0_hz) for file in files if file.f0_hz and file.f0_hz.exists()]
    voiced = np.concatenate([track[track > 0] for track in tracks]) if tracks else np.zeros(0)
    return float(np.median(voiced)) if len(voiced) else 0.0


@dataclass(frozen=True)
class VoiceFile:
    """A voice in memory: architecture, weights without the posterior encoder, and metadata."""

    spec: VoiceSpec
    weights: dict[str, torch.Tensor]
    info: VoiceInfo

    @property
    def encoder(self) -> str:
        """Name of its content encoder; ContentVec if the file records none, because RVC has no other."""
        return _ENCODER_NAMES.get(self.info.content_name, self.info.content_name)

    @property
    def trained_speakers(self) -> int | None:
        """How many rows of speakers were trained; None: the file does not tell, as RVC's files have all rows."""
        return len(self.info.speakers) or (1 if self.info.content_identity else None)


def save_voice(path: Path, voice: VoiceFile) -> None:
    """Write a voice in RVC's format (fp16, no ``enc_q``), plus Applio's keys and ours.

    The suffix ``.safetensors`` selects that format, which only this program reads as a voice.

    Raises
    ------
    CheckpointError
        When a weight is not finite; the voice would be silence or noise.
    """
    weights = {
        key: value.detach().to("cpu", torch.float16).contiguous()
        for key, value in voice.weights.items()
        if not key.startswith("enc_q.")
    }
    if broken := not_finite(weights):
        raise CheckpointError(
            f"{len(broken)} tensors are not finite, first {broken[0]}: the voice is not saved",
            hint="use an earlier checkpoint",
        )
    description = _description_of(voice)
    with replace_atomically(path) as temporary:
        if path.suffix.lower() == ".safetensors":
            safetensors.torch.save_file(weights, temporary, {_HEADER: json.dumps(description, ensure_ascii=False)})
        else:
            torch.save({"weight": weights, **description}, temporary)


def _description_of(voice: VoiceFile) -> dict[str, Any]:
    """Everything except the weights: RVC's and Applio's keys, and ours in their own dict."""
    info, spec = voice.info, voice.spec
    return {
        "config": config_of(spec),
        "info": info.note or f"{info.epoch}epoch",
        "sr": spec.rate_name,
        "f0": int(spec.uses_f0),
        "version": spec.version,
        "epoch": info.epoch,
        "step": info.step,
        **{key: getattr(info, name) for name, key in _TEXTS.items()},
        **({"speakers_id": voice.trained_speakers} if voice.trained_speakers else {}),
        **({} if spec.source_filter_channels else {"vocoder": _VOCODER}),
        "rvc_core": {
            "content_identity": info.content_identity,
            "f0_median_hz": info.f0_median_hz,
            "mel_epsilons": info.mel_epsilons,
            "speakers": info.speakers,
        },
    }


def average(paths: Sequence[Path]) -> VoiceFile:
    """The mean of the weights of voices from one training, in float32, described as the last of them."""
    weights: dict[str, torch.Tensor] = {}
    for path in paths:  # one at a time: together they could fill the memory
        voice = load_voice(path)
        for key, value in voice.weights.items():
            weights[key] = weights.get(key, 0) + value.float() / len(paths)
    return replace(voice, weights=weights)


def load_voice(path: Path) -> VoiceFile:
    """Read a voice file. The error for another kind of file says what it is.

    Missing values (old files lack ``version`` and ``f0``) come from the weights. So does the number of speakers, which
    the list often has wrong.

    Raises
    ------
    WeightsError
        When the file is missing, damaged or not a voice.
    UnsafeFileError
        When it could run code or use up the memory.
    MismatchError
        When its weights do not match its description or architecture.
    """
    content = _load_safetensors(path) if path.suffix.lower() == ".safetensors" else load_torch(path)
    return voice_of(content, path)


def voice_of(content: Any, path: Path) -> VoiceFile:
    """Make a voice from the content of a file (see `load_voice`)."""
    name = path.name
    if isinstance(content, dict) and isinstance(content.get("model"), dict):
        raise WeightsError(
            f"{name} is a training checkpoint (G_ or D_) or a base model, not a voice",
            hint="use the voice saved beside it: NAME_e…_s….pth or NAME.pth",
        )
    if not isinstance(content, dict) or not {"weight", "config"} <= content.keys():
        raise WeightsError(
            f"{name} is not a voice: it has no 'weight' and 'config'",
            hint="use the small .pth that training saves",
        )
    weights = {
        _rvc_spelling(key): value
        for key, value in checked_weights(content["weight"], name).items()
        if not key.startswith("enc_q.")
    }
    try:
        ours = dict(content.get("rvc_core") or {})
        vocoder = _text(content.get("vocoder")) or _VOCODER
        stated_f0 = None if content.get("f0") is None else bool(int(content["f0"]))
        stated_version = _text(content.get("version"))
        note = _text(content.get("info"))
        rows = range(0 if ours else min(int(content.get("speakers_id") or 0), len(weights.get("emb_g.weight", ()))))
        epoch_note = re.fullmatch(r"(\d{1,6})epoch", note)  # RVC records the epoch only here
        texts: dict[str, Any] = {one: _text(content.get(key)) for one, key in _TEXTS.items()}
        info = VoiceInfo(
            **texts | {"name": texts["name"] or path.stem},
            epoch=int(content.get("epoch") or (epoch_note and epoch_note[1]) or 0),
            step=int(content.get("step") or 0),
            content_identity=_text(ours.get("content_identity")),
            f0_median_hz=_finite(ours.get("f0_median_hz", 0.0)),
            mel_epsilons=_text(ours.get("mel_epsilons")),
            note="" if epoch_note else note,
            speakers={_text(name): _finite(median_hz) for name, median_hz in dict(ours.get("speakers") or {}).items()}
            or {f"speaker {row}": 0.0 for row in rows},
        )
    except (TypeError, ValueError, OverflowError, RuntimeError) as error:  # RuntimeError: a tensor instead of a number
        reason = str(error)[:80]
        raise WeightsError(f"{name} is damaged: its description is invalid ({reason})", hint=AGAIN) from error
    if vocoder != _VOCODER:
        raise MismatchError(
            f"{name} was trained in Applio with the vocoder {vocoder}, which is not supported",
            hint=f"use a voice with RVC's vocoder, {_VOCODER}",
        )
    spec = spec_of(content["config"], weights, stated_version, stated_f0, name)
    with Blueprint():
        network = Synthesizer(spec, with_posterior=False)
    load_strictly(network, weights, name, assign=True)
    return VoiceFile(spec, weights, info)


def _load_safetensors(path: Path) -> dict[str, Any]:
    """Content of a safetensors file, in the form of a torch file's."""
    if not path.is_file():
        raise WeightsError(f"{path} does not exist", hint="check the path")
    try:
        with safetensors.safe_open(path, framework="pt") as file:
            header = (file.metadata() or {}).get(_HEADER)
            weights = {key: file.get_tensor(key) for key in file.keys()}
        content = parsed(header, Any) if header else {}
    except (OSError, ValueError, safetensors.SafetensorError) as error:
        raise WeightsError(f"{path.name} is not a safetensors file, or is damaged", hint=AGAIN) from error
    if not isinstance(content, dict) or not content:
        raise WeightsError(f"{path.name} does not describe its voice", hint="use the .pth that it was made from")
    return content | {"weight": weights}


def _rvc_spelling(key: str) -> str:
    for theirs, rvcs in _SPELLINGS.items():
        key = key.replace(theirs, rvcs)
    return key


def _text(value: Any) -> str:
    """Text or a number as one printable line. Other values are refused, because their text can be endless."""
    if value is not None and not isinstance(value, str | int | float):
        raise ValueError(f"a {type(value).__name__} instead of text")
    return "" if value is None else printable(str(value))[:200]


def _finite(value: Any) -> float:
    number = float(value)
    if not math.isfinite(number):
        raise ValueError(f"{number} is not finite")
    return number


def synthesizer_of(voice: VoiceFile) -> Synthesizer:
    """The voice's network, ready for conversion, in float32 on the CPU.

    Raises
    ------
    MismatchError
        When a weight is missing, unexpected or of another shape.
    """
    synthesizer = Synthesizer(voice.spec, with_posterior=False)
    load_strictly(
        synthesizer,
        {key: value.float() for key, value in voice.weights.items() if not key.startswith("enc_q.")},
        voice.info.name,
    )
    return synthesizer.eval().fuse()
