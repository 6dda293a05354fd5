"""RVC's descriptions of an architecture: a voice's list of 18 values, an experiment's ``config.json``."""

import math
import reprlib
from dataclasses import replace
from typing import Any

import torch

from ..errors import MismatchError
from ..nn.layers import Blueprint
from ..nn.synthesizer import Synthesizer
from ..presets import PRESETS, VoiceSpec
from ..settings import TrainSettings
from ..system.untrusted import AGAIN

# RVC's list of 18 values by the names of `VoiceSpec`; three of them are always the same.
_NAMES = (
    "spectrogram_bins segment inter_channels hidden_channels filter_channels heads layers kernel_size dropout resblock "
    "resblock_kernels resblock_dilations upsample_rates upsample_channels upsample_kernels speakers speaker_channels "
    "sample_rate"
).split()
_CONSTANTS = {"segment": 32, "dropout": 0, "resblock": "1"}
_LISTS = ("resblock_kernels", "upsample_rates", "upsample_kernels")
_RATES_HZ = {"32k": 32000, "40k": 40000, "48k": 48000}  # some tools write the rate as text, which RVC accepts
VERSIONS = {256: "v1", 768: "v2"}  # by the width of the content features
_LARGEST, _MOST = 8192, 24  # far above real sizes and layer counts; a damaged file must not use up the memory


def spec_of_generator(weights: dict[str, torch.Tensor], file_name: str) -> tuple[str, VoiceSpec]:
    """Find the preset and architecture with exactly these names and shapes, including ``enc_q``.

    Raises
    ------
    MismatchError
        When no preset matches.
    """
    shapes = {key: value.shape for key, value in weights.items()}
    speakers = next(iter(shapes.get("emb_g.weight", ())), 0)
    for name, base in PRESETS.items():
        spec = replace(base, uses_f0="enc_p.emb_pitch.weight" in shapes, speakers=speakers)
        with Blueprint():
            network = Synthesizer(spec)
        if {key: value.shape for key, value in network.state_dict().items()} == shapes:
            return name, spec
    raise MismatchError(
        f"{file_name} has an unsupported architecture",
        hint="use RVC's v1 or v2 at 32k, 40k or 48k, or nano",
    )


def config_of(spec: VoiceSpec) -> list[Any]:
    """RVC's list of 18 values for an architecture."""
    return [_CONSTANTS[name] if name in _CONSTANTS else _listed(getattr(spec, name)) for name in _NAMES]


def _listed(value: Any) -> Any:
    """Tuples, also inside tuples, as lists."""
    return [*map(_listed, value)] if isinstance(value, tuple) else value


def spec_of(
    config: Any, weights: dict[str, torch.Tensor], version: str, uses_f0: bool | None, file_name: str
) -> VoiceSpec:
    """The architecture in RVC's list of 18 values; the weights tell what the list leaves out.

    Raises
    ------
    MismatchError
        When it is unsupported, or its values contradict each other or the weights.
    """
    try:
        spec, base = _described(config, weights, version)
    except (TypeError, ValueError, LookupError) as error:
        raise MismatchError(
            f"{file_name} does not describe a supported voice ({error})",
            hint="use a voice of RVC v1, v2 or nano",
        ) from error
    if not _is_consistent(spec):
        raise MismatchError(f"{file_name} is damaged: the values of its 'config' contradict each other", hint=AGAIN)
    other_width = spec.content_width != base.content_width and spec.version != "nano"
    if uses_f0 not in (None, spec.uses_f0) or other_width:
        raise MismatchError(
            f"{file_name} says {spec.version} {'with' if uses_f0 else 'without'} f0, but its weights "
            f"take {spec.content_width} features {'with' if spec.uses_f0 else 'without'} f0",
            hint=AGAIN,
        )
    return spec


def _described(config: Any, weights: dict[str, torch.Tensor], version: str) -> tuple[VoiceSpec, VoiceSpec]:
    """The architecture of a list, and the nearest preset, which completes it."""
    told = dict(zip(_NAMES, config, strict=True))
    lists: dict[str, Any] = {name: _sizes(told.pop(name)) for name in _LISTS}
    dilations, rate = tuple(map(_sizes, told.pop("resblock_dilations"))), told.pop("sample_rate")
    sample_rate = _RATES_HZ[rate] if isinstance(rate, str) else _sizes([rate], 192_000)[0]
    numbers: dict[str, Any] = {
        name: _sizes([value])[0] for name, value in told.items() if name not in (*_CONSTANTS, "speakers")
    }
    width = weights["enc_p.emb_phone.weight"].shape[1]
    version = version or VERSIONS.get(width, "")
    presets = [spec for spec in PRESETS.values() if spec.version == version]
    if not presets:
        raise ValueError(f"unknown version {version[:20]!r}")
    base = next((spec for spec in presets if spec.sample_rate == sample_rate), presets[0])
    return replace(
        base,
        version=version,
        sample_rate=sample_rate,
        content_width=width,
        uses_f0="enc_p.emb_pitch.weight" in weights,
        fft_samples=(numbers.pop("spectrogram_bins") - 1) * 2,
        resblock_dilations=dilations,
        source_filter_channels=len(weights.get("dec.pitch.bias", ())),
        speakers=weights["emb_g.weight"].shape[0],
        **lists,
        **numbers,
    ), base


def _is_consistent(spec: VoiceSpec) -> bool:
    return (
        math.prod(spec.upsample_rates) * 100 == spec.sample_rate
        and spec.hidden_channels % spec.heads == 0
        and spec.inter_channels % 2 == 0
        and len(spec.upsample_rates) == len(spec.upsample_kernels)
        and spec.upsample_channels >> len(spec.upsample_rates) > 0
        and len(spec.resblock_kernels) == len(spec.resblock_dilations) <= _MOST
        and spec.layers <= _MOST
    )


def _sizes(values: Any, largest: int = _LARGEST) -> tuple[int, ...]:
    """Check that values are positive integers of plausible size."""
    if not isinstance(values, list | tuple) or not 0 < len(values) <= _MOST:
        raise ValueError(f"{reprlib.repr(values)[:60]} is not a list of sizes")
    if wrong := [value for value in values if type(value) is not int or not 0 < value <= largest]:
        raise ValueError(f"{reprlib.repr(wrong[0])[:60]} is not a size")
    return tuple(values)


def experiment_config(
    spec: VoiceSpec, settings: TrainSettings, batch_size: int, learning_rate: float
) -> dict[str, Any]:
    """RVC's ``config.json``, so that RVC WebUI can resume the experiment."""
    return {
        "data": {
            "filter_length": spec.fft_samples,
            "hop_length": spec.hop_samples,
            "max_wav_value": 32768.0,
            "mel_fmax": None,
            "mel_fmin": 0.0,
            "n_mel_channels": spec.mels,
            "sampling_rate": spec.sample_rate,
            "win_length": spec.fft_samples,
        },
        "model": {
            "filter_channels": spec.filter_channels,
            "gin_channels": spec.speaker_channels,
            "hidden_channels": spec.hidden_channels,
            "inter_channels": spec.inter_channels,
            "kernel_size": spec.kernel_size,
            "n_heads": spec.heads,
            "n_layers": spec.layers,
            "p_dropout": 0,
            "resblock": "1",
            "resblock_dilation_sizes": spec.resblock_dilations,
            "resblock_kernel_sizes": spec.resblock_kernels,
            "spk_embed_dim": spec.speakers,
            "upsample_initial_channel": spec.upsample_channels,
            "upsample_kernel_sizes": spec.upsample_kernels,
            "upsample_rates": spec.upsample_rates,
            "use_spectral_norm": False,
        },
        "train": {
            "batch_size": batch_size,
            "betas": [0.8, 0.99],
            "c_kl": 1.0,
            "c_mel": 45,
            "epochs": 20000,
            "eps": 1e-9,
            "init_lr_ratio": 1,
            "learning_rate": learning_rate,
            "log_interval": 200,
            "lr_decay": settings.learning_rate_decay,
            "seed": settings.seed,
            "segment_size": spec.segment_frames * spec.hop_samples,
            "warmup_epochs": 0,
        },
    }
