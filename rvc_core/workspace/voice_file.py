"""The voice file of the community: RVC's small ``.pth``, in named fields here and in RVC's exact form on the disk.

The dialects of RVC WebUI and Applio are read; what is written serves both. The same content may lie in a
``.safetensors`` file, whose header then describes the voice. Source of the format: RVC WebUI ``process_ckpt.py``
(18-value ``config`` list) and the metadata keys of Applio.
"""

import datetime
import json
import math
import re
from dataclasses import dataclass, field
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
from ..system.files import replace_atomically
from ..system.untrusted import AGAIN, DAMAGE, checked_weights, load_torch
from . import stamps
from .filelist import ClipFiles
from .layout import Layout
from .rvc_config import config_of, spec_of

_VOCODER = "HiFi-GAN"  # of the decoders that Applio offers, the one that RVC has
_ENCODER_NAMES = {"": "contentvec", "hubert_base": "contentvec"}
_HEADER = "rvc_voice"  # the key of the description in a safetensors file
# PyTorch's newer weight normalisation names the length and the direction of a kernel differently.
_SPELLINGS = {".parametrizations.weight.original0": ".weight_g", ".parametrizations.weight.original1": ".weight_v"}


@dataclass(frozen=True)
class VoiceInfo:
    """What is known about a voice besides its weights.

    Attributes
    ----------
    content_identity : str
        Hash of the content encoder that it was trained with; features of another encoder are noise to it.
    f0_median_hz : float
        Median pitch of its recordings, the aim of automatic transposition; 0 when unknown.
    speakers : dict of str to float
        Names of the speaker rows, in their order, and the median pitch of each; empty for a voice of one.
    author, dataset_length : str
        What Applio's users enter, and how long their recordings were (``hh:mm:ss``).
    note : str
        What RVC shows as the voice's info; empty where that is the number of its epochs.
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
    """What the voices of an experiment say about themselves: its name, encoder, and the pitch of its clips."""
    content = stamps.content_of(layout, "content")
    return VoiceInfo(
        name=layout.name,
        content_name=content.get("name", ""),
        content_identity=content.get("identity", ""),
        f0_median_hz=median_f0_hz(files),
    )


def median_f0_hz(files: list[ClipFiles]) -> float:
    """Median of the voiced pitch of all clips; 0 if there is none."""
    tracks = [np.load(file.f0_hz, allow_pickle=False) for file in files if file.f0_hz and file.f0_hz.exists()]
    voiced = np.concatenate([track[track > 0] for track in tracks]) if tracks else np.zeros(0)
    return float(np.median(voiced)) if len(voiced) else 0.0


@dataclass(frozen=True)
class VoiceFile:
    """A voice in memory: architecture, weights without the posterior encoder, and what is known about it."""

    spec: VoiceSpec
    weights: dict[str, torch.Tensor]
    info: VoiceInfo

    @property
    def encoder(self) -> str:
        """Name of the content encoder that it was trained with: RVC records none, and has no other than ContentVec."""
        return _ENCODER_NAMES.get(self.info.content_name, self.info.content_name)


def save_voice(path: Path, voice: VoiceFile) -> None:
    """Write a voice in RVC's form (fp16, no ``enc_q``), with Applio's keys and ours beside it.

    A path that ends in ``.safetensors`` gets that form, which this program alone reads as a voice.

    Raises
    ------
    CheckpointError
        When a weight is not finite: such a voice would be silence or noise.
    """
    weights = {
        key: value.detach().to("cpu", torch.float16).contiguous()
        for key, value in voice.weights.items()
        if not key.startswith("enc_q.")
    }
    if broken := [key for key, value in weights.items() if not torch.isfinite(value).all()]:
        raise CheckpointError(f"{len(broken)} tensors are not finite, first {broken[0]}", hint="the voice is not saved")
    description = _description_of(voice)
    with replace_atomically(path) as temporary:
        if path.suffix.lower() == ".safetensors":
            safetensors.torch.save_file(weights, temporary, {_HEADER: json.dumps(description, ensure_ascii=False)})
        else:
            torch.save({"weight": weights, **description}, temporary)


def _description_of(voice: VoiceFile) -> dict[str, Any]:
    """Everything but the weights: RVC's keys, Applio's, and ours in a dict of their own."""
    info, spec = voice.info, voice.spec
    return {
        "config": config_of(spec),
        "info": info.note or f"{info.epoch}epoch",
        "sr": spec.rate_name,
        "f0": int(spec.uses_f0),
        "version": spec.version,
        "model_name": info.name,
        "epoch": info.epoch,
        "step": info.step,
        "creation_date": info.created,
        "embedder_model": info.content_name,
        "author": info.author,
        "dataset_length": info.dataset_length,
        **({} if spec.source_filter_channels else {"vocoder": _VOCODER}),
        "rvc_core": {
            "content_identity": info.content_identity,
            "f0_median_hz": info.f0_median_hz,
            "mel_epsilons": info.mel_epsilons,
            "speakers": info.speakers,
        },
    }


def load_voice(path: Path) -> VoiceFile:
    """Read a voice file; a file of another kind is an error that says what it is.

    What a file leaves out (old ones lack ``version`` and ``f0``) is read from its weights, and so is the number of
    speakers, which the list often gets wrong.

    Raises
    ------
    WeightsError
        When the file is absent, unreadable or not a voice.
    UnsafeFileError
        When it would run code or exhaust the machine.
    MismatchError
        When its weights contradict its own description, or are not exactly those of its architecture.
    """
    content = _load_safetensors(path) if path.suffix.lower() == ".safetensors" else load_torch(path)
    return voice_of(content, path)


def voice_of(content: Any, path: Path) -> VoiceFile:
    """The voice that the content of a file describes (see `load_voice`)."""
    name = path.name
    if isinstance(content, dict) and isinstance(content.get("model"), dict):
        raise WeightsError(
            f"{name} is a training checkpoint (G_ or D_) or a base model, not a voice",
            hint="use the voice saved beside it: NAME_e…_s….pth or NAME.pth",
        )
    if not isinstance(content, dict) or not {"weight", "config"} <= content.keys():
        raise WeightsError(
            f"{name} is not a voice: it has no 'weight' and 'config'",
            hint="a voice is the small .pth that training saves",
        )
    weights = {
        _rvc_spelling(key): value
        for key, value in checked_weights(content["weight"], name).items()
        if not key.startswith("enc_q.")
    }
    try:
        ours = {} if content.get("rvc_core") is None else dict(content["rvc_core"])
        vocoder = _word(content.get("vocoder")) or _VOCODER
        stated_f0 = None if content.get("f0") is None else bool(int(content["f0"]))
        stated_version = _word(content.get("version"))
        note = _word(content.get("info"))
        told = re.fullmatch(r"(\d{1,6})epoch", note)  # RVC's own, and its only record of the epoch
        info = VoiceInfo(
            name=_word(content.get("model_name")) or path.stem,
            epoch=int(content.get("epoch") or (told and told[1]) or 0),
            step=int(content.get("step") or 0),
            content_name=_word(content.get("embedder_model")),
            content_identity=_word(ours.get("content_identity")),
            f0_median_hz=_finite(ours.get("f0_median_hz", 0.0)),
            mel_epsilons=_word(ours.get("mel_epsilons")),
            created=_word(content.get("creation_date")),
            author=_word(content.get("author")),
            dataset_length=_word(content.get("dataset_length")),
            note="" if told else note,
            speakers={_word(name): _finite(median_hz) for name, median_hz in dict(ours.get("speakers") or {}).items()},
        )
    except (TypeError, ValueError, OverflowError, RuntimeError) as error:  # RuntimeError: tensors where words belong
        reason = str(error)[:80]
        raise WeightsError(f"{name} is damaged: its description cannot be read ({reason})", hint=AGAIN) from error
    if vocoder != _VOCODER:
        raise MismatchError(
            f"{name} was trained in Applio with the vocoder {vocoder}, which is not known here",
            hint=f"only voices with {_VOCODER}, RVC's own, can be read",
        )
    spec = spec_of(content["config"], weights, stated_version, stated_f0, name)
    with Blueprint():
        network = Synthesizer(spec, with_posterior=False)
    load_strictly(network, weights, name, assign=True)
    return VoiceFile(spec, weights, info)


def _load_safetensors(path: Path) -> dict[str, Any]:
    """The content of a safetensors file, in the form of a torch file's."""
    if not path.is_file():
        raise WeightsError(f"no such file: {path}", hint="check the path")
    try:
        with safetensors.safe_open(path, framework="pt") as file:
            header = (file.metadata() or {}).get(_HEADER)
            weights = {key: file.get_tensor(key) for key in file.keys()}
        content = json.loads(header) if header else {}
    except (*DAMAGE, safetensors.SafetensorError) as error:
        raise WeightsError(f"{path.name} is no safetensors file, or is damaged", hint=AGAIN) from error
    if not isinstance(content, dict) or not content:
        raise WeightsError(
            f"{path.name} holds weights but not what voice they are of", hint="use the .pth that it was made from"
        )
    return content | {"weight": weights}


def _rvc_spelling(key: str) -> str:
    ending = next((ending for ending in _SPELLINGS if key.endswith(ending)), "")
    return key.removesuffix(ending) + _SPELLINGS.get(ending, "")


def _word(value: Any) -> str:
    """A text or number as one printable line; nothing else is rendered, for its text may have no end."""
    if value is not None and not isinstance(value, str | int | float):
        raise ValueError(f"a {type(value).__name__} where text belongs")
    return "" if value is None else printable(str(value))[:200]


def _finite(value: Any) -> float:
    number = float(value)
    if not math.isfinite(number):
        raise ValueError(f"{number} is no number")
    return number


def synthesizer_of(voice: VoiceFile) -> Synthesizer:
    """The network that speaks with this voice, ready for conversion, in float32 on the CPU.

    Raises
    ------
    MismatchError
        When a weight is missing, superfluous or of another shape: half-loaded weights are noise.
    """
    synthesizer = Synthesizer(voice.spec, with_posterior=False)
    load_strictly(
        synthesizer,
        {key: value.float() for key, value in voice.weights.items() if not key.startswith("enc_q.")},
        voice.info.name,
    )
    return synthesizer.eval().fuse()
