"""The voice file of the community: RVC's small ``.pth``, in named fields here and in RVC's exact form on the disk.

Source of the format: RVC WebUI ``process_ckpt.py`` (18-value ``config`` list) and the metadata keys of Applio.
"""

import datetime
import pickle
import zipfile
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch

from .errors import CheckpointError, MismatchError, WeightsError
from .files import replace_atomically
from .nn.synthesizer import Synthesizer
from .presets import PRESETS, VoiceSpec

_RVC_CONSTANT = 32   # second value of RVC's list: the training slice of its first release, read by nobody


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
        When it is absent, torn, or no torch file of plain tensors.
    """
    if not path.is_file():
        raise WeightsError(f"no such file: {path}", hint="check the path")
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, RuntimeError, pickle.UnpicklingError, EOFError, ValueError, KeyError, zipfile.BadZipFile) as error:
        raise WeightsError(f"{path.name} is not a readable file of weights: {str(error).splitlines()[0][:120]}",
                           hint="it may be truncated or not a torch file: fetch or copy it again") from error


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
    weights = content["weight"]
    ours = content.get("rvc_core") or {}
    info = VoiceInfo(
        name=str(content.get("model_name") or path.stem), epoch=int(content.get("epoch") or 0),
        step=int(content.get("step") or 0), content_name=str(content.get("embedder_model") or ""),
        content_identity=str(ours.get("content_identity", "")), f0_median_hz=float(ours.get("f0_median_hz", 0.0)),
        mel_epsilons=str(ours.get("mel_epsilons", "")), created=str(content.get("creation_date") or ""))
    spec = _spec_of(content["config"], weights, version=str(content.get("version") or "v1"),
                    uses_f0=bool(int(content.get("f0", 1))), file_name=path.name)
    return VoiceFile(spec, weights, info)


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


def _spec_of(config: list[Any], weights: dict[str, torch.Tensor], *, version: str, uses_f0: bool,
             file_name: str) -> VoiceSpec:
    """The architecture that RVC's list of 18 values describes; the weights decide where the two disagree."""
    try:
        (bins, _, inter, hidden, filters, heads, layers, kernel, _, _, resblock_kernels, dilations, rates, channels,
         kernels, _, speaker_channels, sample_rate) = config
        content_width = weights["enc_p.emb_phone.weight"].shape[1]
        speakers = weights["emb_g.weight"].shape[0]
    except (ValueError, KeyError, AttributeError, IndexError) as error:
        raise MismatchError(f"{file_name} does not describe a voice that is known here ({error})",
                            hint="voices of v1, v2 and nano are read") from error
    base = next((known for known in PRESETS.values() if known.version == version and known.sample_rate == sample_rate),
                PRESETS["v2-40k"])
    return replace(
        base, version=version, sample_rate=int(sample_rate), content_width=content_width, uses_f0=uses_f0,
        fft_samples=(int(bins) - 1) * 2, inter_channels=inter, hidden_channels=hidden, filter_channels=filters,
        heads=heads, layers=layers, kernel_size=kernel, resblock_kernels=tuple(resblock_kernels),
        resblock_dilations=tuple(tuple(row) for row in dilations), upsample_rates=tuple(rates),
        upsample_channels=channels, upsample_kernels=tuple(kernels), speakers=speakers,
        speaker_channels=speaker_channels)
