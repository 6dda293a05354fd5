"""The voice file of the community: RVC's small ``.pth``, in named fields here and in RVC's exact form on the disk.

Source of the format: RVC WebUI ``process_ckpt.py`` (18-value ``config`` list) and the metadata keys of Applio.
"""

import datetime
import math
import pickle
import re
import struct
import zipfile
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch

from .errors import CheckpointError, MismatchError, UnsafeFileError, WeightsError
from .files import replace_atomically
from .nn.synthesizer import Synthesizer
from .presets import PRESETS, VoiceSpec

_RVC_CONSTANT = 32   # second value of RVC's list: the training slice of its first release, read by nobody
_RATES_HZ = {"32k": 32000, "40k": 40000, "48k": 48000}   # some tools write the rate as a word, which RVC reads too
_LARGEST = 8192      # no size in any known architecture is near it; a damaged one must not exhaust the memory
_AGAIN = "fetch or copy the file again"
_DAMAGE = (OSError, RuntimeError, pickle.UnpicklingError, EOFError, ValueError, LookupError, TypeError, AttributeError,
           AssertionError, ArithmeticError, MemoryError, struct.error, zipfile.BadZipFile)   # torch's, found by trying


@dataclass(frozen=True)
class VoiceInfo:
    """What is known about a voice besides its weights.

    Attributes
    ----------
    content_identity : str
        Hash of the content encoder that it was trained with; features of another encoder are noise to it.
    f0_median_hz : float
        Median pitch of its recordings, the aim of automatic transposition; 0 when unknown.
    """

    name: str = ""
    epoch: int = 0
    step: int = 0
    content_name: str = ""
    content_identity: str = ""
    f0_median_hz: float = 0.0
    mel_epsilons: str = ""
    created: str = field(default_factory=lambda: datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"))


@dataclass(frozen=True)
class VoiceFile:
    """A voice in memory: architecture, weights without the posterior encoder, and what is known about it."""

    spec: VoiceSpec
    weights: dict[str, torch.Tensor]
    info: VoiceInfo


def load_torch(path: Path) -> Any:
    """Read a torch file as data only: nothing in it can run.

    Raises
    ------
    WeightsError
        When it is absent, torn, or no torch file.
    UnsafeFileError
        When it asks for more than data.
    """
    if not path.is_file():
        raise WeightsError(f"no such file: {path}", hint="check the path")
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except PermissionError as error:
        raise WeightsError(f"{path} may not be read", hint="check its permissions") from error
    except _DAMAGE as error:
        if asked := re.search(r"unsupported global:?(?: global)? (\S+)", str(error), re.IGNORECASE):
            raise UnsafeFileError(f"{path.name} asks for {asked[1]}, which is not data, and is not opened",
                                  hint="weights are tensors and numbers; do not open this file elsewhere") from error
        raise WeightsError(f"{path.name} is not a torch file, or is truncated", hint=_AGAIN) from error


def save_voice(path: Path, voice: VoiceFile) -> None:
    """Write a voice in RVC's form (fp16, no ``enc_q``), with Applio's keys and ours beside it.

    Raises
    ------
    CheckpointError
        When a weight is not finite: such a voice would be silence or noise.
    """
    weights = {key: value.detach().to("cpu", torch.float16).contiguous() for key, value in voice.weights.items()
               if not key.startswith("enc_q.")}
    if broken := [key for key, value in weights.items() if not torch.isfinite(value).all()]:
        raise CheckpointError(f"{len(broken)} tensors are not finite, first {broken[0]}", hint="the voice is not saved")
    info = voice.info
    content = {
        "weight": weights, "config": _config_of(voice.spec), "info": f"{info.epoch}epoch",
        "sr": voice.spec.rate_name, "f0": int(voice.spec.uses_f0), "version": voice.spec.version,
        "model_name": info.name, "epoch": info.epoch, "step": info.step, "creation_date": info.created,
        "embedder_model": info.content_name,
        "rvc_core": {"content_identity": info.content_identity, "f0_median_hz": info.f0_median_hz,
                     "mel_epsilons": info.mel_epsilons}}
    with replace_atomically(path) as temporary:
        torch.save(content, temporary)


def load_voice(path: Path) -> VoiceFile:
    """Read a voice file; a file of another kind is an error that says what it is.

    Raises
    ------
    WeightsError
        When the file is absent, unreadable or not a voice.
    MismatchError
        When its weights contradict its own description.
    """
    content = load_torch(path)
    if isinstance(content, dict) and "model" in content and "optimizer" in content:
        raise WeightsError(f"{path.name} is a training checkpoint (G_ or D_), not a voice",
                           hint="use the voice saved beside it: NAME_e…_s….pth or NAME.pth")
    if not isinstance(content, dict) or not {"weight", "config"} <= content.keys():
        raise WeightsError(f"{path.name} is not a voice: it has no 'weight' and 'config'",
                           hint="a voice is the small .pth that training saves")
    weights = _checked_weights(content["weight"], path.name)
    ours = content.get("rvc_core") or {}
    try:
        uses_f0 = bool(int(content.get("f0", 1)))
        info = VoiceInfo(
            name=str(content.get("model_name") or path.stem), epoch=int(content.get("epoch") or 0),
            step=int(content.get("step") or 0), content_name=str(content.get("embedder_model") or ""),
            content_identity=str(ours.get("content_identity", "")), f0_median_hz=_finite(ours.get("f0_median_hz", 0.0)),
            mel_epsilons=str(ours.get("mel_epsilons", "")), created=str(content.get("creation_date") or ""))
    except (TypeError, ValueError, AttributeError, OverflowError) as error:
        raise WeightsError(f"{path.name} is damaged: its description cannot be read ({error})", hint=_AGAIN) from error
    spec = _spec_of(content["config"], weights, version=str(content.get("version") or "v1"), uses_f0=uses_f0,
                    file_name=path.name)
    return VoiceFile(spec, weights, info)


def _checked_weights(weights: Any, file_name: str) -> dict[str, torch.Tensor]:
    """The table of weights, if it is one and each is a plain tensor of numbers."""
    if not isinstance(weights, dict) or not all(
            isinstance(key, str) and isinstance(value, torch.Tensor) and value.layout == torch.strided
            and not value.is_quantized for key, value in weights.items()):
        raise WeightsError(f"{file_name} is damaged: its 'weight' is not a table of tensors", hint=_AGAIN)
    if broken := [key for key, value in weights.items() if not torch.isfinite(value).all()]:
        raise WeightsError(f"{file_name}: {len(broken)} tensors are not finite, first {broken[0]}",
                           hint="such a voice is noise or silence: use one saved earlier in its training")
    return weights


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
    load_strictly(synthesizer, {key: value.float() for key, value in voice.weights.items()
                                if not key.startswith("enc_q.")}, voice.info.name)
    return synthesizer.eval().fuse()


def load_strictly(network: torch.nn.Module, weights: dict[str, torch.Tensor], name: str, *,
                  hint: str = "use a file of the same version, sample rate and f0 choice") -> None:
    """Put weights into a network, all of them or none.

    Raises
    ------
    MismatchError
        Naming the first weight that does not fit.
    """
    try:
        network.load_state_dict(weights, strict=True)
    except RuntimeError as error:
        reason = str(error).splitlines()[1].strip()[:160]
        raise MismatchError(f"{name} does not fit the architecture: {reason}", hint=hint) from error


def _config_of(spec: VoiceSpec) -> list[Any]:
    return [spec.spectrogram_bins, _RVC_CONSTANT, spec.inter_channels, spec.hidden_channels, spec.filter_channels,
            spec.heads, spec.layers, spec.kernel_size, 0, "1", list(spec.resblock_kernels),
            [list(dilations) for dilations in spec.resblock_dilations], list(spec.upsample_rates),
            spec.upsample_channels, list(spec.upsample_kernels), spec.speakers, spec.speaker_channels,
            spec.sample_rate]


def _spec_of(config: Any, weights: dict[str, torch.Tensor], *, version: str, uses_f0: bool,
             file_name: str) -> VoiceSpec:
    """The architecture that RVC's list of 18 values describes; the weights decide where the two disagree."""
    try:
        (bins, _, inter, hidden, filters, heads, layers, kernel, _, _, resblock_kernels, dilations, rates, channels,
         kernels, _, speaker_channels, rate) = config
        bins, inter, hidden, filters, heads, layers, kernel, channels, speaker_channels = _sizes(
            [bins, inter, hidden, filters, heads, layers, kernel, channels, speaker_channels])
        sample_rate = _RATES_HZ.get(rate, rate)
        known = [spec for spec in PRESETS.values() if spec.version == version]
        if not known:
            raise ValueError(f"version {version[:20]!r}")
        base = next((spec for spec in known if spec.sample_rate == sample_rate), known[0])
        spec = replace(
            base, version=version, sample_rate=sample_rate, content_width=weights["enc_p.emb_phone.weight"].shape[1],
            uses_f0=uses_f0, fft_samples=(bins - 1) * 2, inter_channels=inter, hidden_channels=hidden,
            filter_channels=filters, heads=heads, layers=layers, kernel_size=kernel,
            resblock_kernels=_sizes(resblock_kernels), resblock_dilations=tuple(map(_sizes, dilations)),
            upsample_rates=_sizes(rates), upsample_channels=channels, upsample_kernels=_sizes(kernels),
            source_filter_channels=len(weights.get("dec.pitch.bias", ())),
            speakers=weights["emb_g.weight"].shape[0], speaker_channels=speaker_channels)
    except (TypeError, ValueError, LookupError) as error:
        raise MismatchError(f"{file_name} does not describe a voice that is known here ({error})",
                            hint="voices of v1, v2 and nano are read") from error
    fits = (math.prod(spec.upsample_rates) * 100 == sample_rate and hidden % heads == 0 and inter % 2 == 0
            and len(spec.upsample_rates) == len(spec.upsample_kernels) and channels >> len(spec.upsample_rates) > 0
            and len(spec.resblock_kernels) == len(spec.resblock_dilations))
    if not fits:
        raise MismatchError(f"{file_name} is damaged: the numbers of its 'config' contradict each other", hint=_AGAIN)
    return spec


def _sizes(values: Any) -> tuple[int, ...]:
    """Positive whole numbers of a size that networks have."""
    if not isinstance(values, list | tuple) or not values:
        raise ValueError(f"{values!r} where numbers belong")
    if odd := [value for value in values if not isinstance(value, int) or not 0 < value <= _LARGEST]:
        raise ValueError(f"{odd[0]!r} is not a size")
    return tuple(values)
