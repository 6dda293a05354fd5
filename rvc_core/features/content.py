"""Content features: the phonetic content of speech at 50 frames per second, with little of the speaker.

ContentVec runs in transformers and loads from any of its common file formats. The embedded encoder comes with the
package. Both pass the same contract test.
"""

import contextlib
import functools
import hashlib
import os
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..assets.registry import CONTENTVEC, missing, places
from ..embedded import ENCODER_FILE
from ..errors import AudioError, MismatchError, ResourceError, SettingsError, WeightsError
from ..presets import VoiceSpec
from ..system.files import sha256_of

if TYPE_CHECKING:
    from torch import Tensor

ENCODERS = ("contentvec", "embedded")
FIELD_SAMPLES, STRIDE_SAMPLES = 400, 320  # frame t sees samples 320 t to 320 t + 400, at 16 kHz
_BLOCK_FRAMES, _CONTEXT_FRAMES = (
    1300,
    300,
)  # 26 s, and 6 s on both sides: more than the embedded encoder's receptive field
_CONTENTVEC_LAYERS = {256: 9, 768: 12}  # width → layer that RVC uses: v1 (then projected), v2
_FAIRSEQ_FILE = "hubert_base.pt"
_WEIGHT_FILES = ("model.safetensors", "pytorch_model.bin", _FAIRSEQ_FILE)
_FOLDERS = (CONTENTVEC, "content-vec-best", "hubert")  # RVC WebUI's, the Hugging Face hub's, and RVC's own until 2026
_TRAINING_ONLY = ("masked_spec_embed", "label_embs_concat")
_WEIGHT_NORM = {".weight_g": ".parametrizations.weight.original0", ".weight_v": ".parametrizations.weight.original1"}

Encode = Callable[[np.ndarray, str], np.ndarray]  # samples (n,), device → (frames, width)


@dataclass(frozen=True)
class ContentEncoder:
    """(N,) samples at 16 kHz → features (T, width) float32, finite, T = (N - 400) // 320 + 1, at least 1.

    It runs a network over windows with context, which bounds the memory for long recordings. Features, index and voice
    record the identity, because a voice only works with the encoder it was trained with.

    Attributes
    ----------
    name : str
        ``embedded`` or ``contentvec``.
    width : int
        Values per frame.
    identity : str
        Hash of the weights.
    """

    name: str
    width: int
    identity: str
    device: str
    encode: Encode

    def __call__(self, samples_16k: np.ndarray) -> np.ndarray:
        """Encode. If features on a GPU are not finite, compute them again on the CPU in float32.

        Raises
        ------
        AudioError
            When the features are not finite on the CPU either.
        """
        samples = np.pad(samples_16k.astype(np.float32), (0, max(0, FIELD_SAMPLES - len(samples_16k))))
        features = self._in_windows(samples, self.device)
        if not np.isfinite(features).all() and self.device != "cpu":
            features = self._in_windows(samples, "cpu")
        if not np.isfinite(features).all():
            raise AudioError(
                f"the {self.name} encoder returned features that are not finite",
                hint="listen to this recording, then replace or remove it",
            )
        return features

    def _in_windows(self, samples: np.ndarray, device: str) -> np.ndarray:
        frames = (len(samples) - FIELD_SAMPLES) // STRIDE_SAMPLES + 1
        features = np.empty((frames, self.width), np.float32)
        for start in range(0, frames, _BLOCK_FRAMES):
            first, stop = max(0, start - _CONTEXT_FRAMES), min(frames, start + _BLOCK_FRAMES + _CONTEXT_FRAMES)
            # HuBERT normalises over its whole input, so the last window includes the samples after the last frame.
            end = len(samples) if stop == frames else (stop - 1) * STRIDE_SAMPLES + FIELD_SAMPLES
            window = samples[first * STRIDE_SAMPLES : end]
            features[start : start + _BLOCK_FRAMES] = self.encode(window, device)[start - first :][:_BLOCK_FRAMES]
        return features


@functools.cache
def content_encoder(name: str, width: int, device: str = "cpu") -> ContentEncoder:
    """Load the encoder `name` for features of `width`, once per process and device.

    Parameters
    ----------
    name : str
        ``embedded`` (width 256) or ``contentvec`` (256: layer 9, projected, for v1; 768: layer 12, for v2).

    Raises
    ------
    WeightsError
        When the weights are missing or damaged; the hint says where to put them.
    MismatchError
        When the encoder does not support this width.
    """
    path = _weights_of(name, width)
    network, identity = _embedded(path) if name == "embedded" else _contentvec(path, width)
    return ContentEncoder(name, width, identity, device, network)


def content_identity(name: str, width: int) -> str:
    """Hash of the encoder's weights, 16 hex digits; does not build the network.

    Raises
    ------
    WeightsError, MismatchError
        As `content_encoder`.
    """
    path = _weights_of(name, width)
    changed_ns = path.stat().st_mtime_ns
    return _short_hash(path, changed_ns) if name == "embedded" else _contentvec_identity(path, width, changed_ns)


def content_name(choice: str, spec: VoiceSpec) -> str:
    """Resolve ``auto``: the embedded encoder for `nano`, ContentVec for RVC's own architectures.

    Examples
    --------
    >>> from rvc_core.presets import preset
    >>> content_name("auto", preset("v2-40k")), content_name("auto", preset("nano"))
    ('contentvec', 'embedded')
    """
    if choice != "auto":
        return choice
    return "embedded" if spec.version == "nano" else "contentvec"


def repeat_to_100fps(features: np.ndarray) -> np.ndarray:
    """Repeat each frame: (T, D) at 50 frames per second → (2T, D) at 100, RVC's rate."""
    return np.repeat(features, 2, axis=0)


def _weights_of(name: str, width: int) -> Path:
    if name not in ENCODERS:
        raise SettingsError(f"unknown content encoder {name!r}", hint=f"choose {' or '.join(ENCODERS)}")
    if width not in ((256,) if name == "embedded" else _CONTENTVEC_LAYERS):
        raise MismatchError(
            f"the {name} encoder does not support features of width {width}",
            hint="use contentvec for v1 and v2 voices; embedded works with nano and v1",
        )
    if name == "embedded":
        if not ENCODER_FILE.is_file():
            raise WeightsError(f"{ENCODER_FILE} is missing", hint="reinstall rvc_core")
        return ENCODER_FILE
    chosen = os.environ.get("RVC_HUBERT")
    folders = [Path(chosen).expanduser()] if chosen else [place for folder in _FOLDERS for place in places(folder)]
    files = [folder / file for folder in folders for file in _WEIGHT_FILES]
    if (found := next((file for file in files if file.is_file()), None)) is not None:
        return found
    if chosen:
        raise WeightsError(
            f"ContentVec is not in {folders[0]}, the folder in RVC_HUBERT",
            hint="set RVC_HUBERT to the folder hubert_base (config.json, pytorch_model.bin), or unset it",
        )
    raise missing(CONTENTVEC, "ContentVec", ", or set RVC_HUBERT to its folder; the preset nano-24k works without it")


@functools.lru_cache
def _short_hash(path: Path, changed_ns: int) -> str:
    return sha256_of(path)[:16]


def _embedded(path: Path) -> tuple[Encode, str]:
    import torch

    from ..nn.embedded_encoder import EmbeddedEncoder

    model = EmbeddedEncoder.from_file(path)

    @torch.inference_mode()
    def encode(samples: np.ndarray, device: str) -> np.ndarray:
        return model.to(device)(torch.from_numpy(samples)[None].to(device))[0].cpu().numpy()

    return encode, _short_hash(path, path.stat().st_mtime_ns)


def _contentvec(path: Path, width: int) -> tuple[Encode, str]:
    """ContentVec (Qian et al., 2022) with only the layers in use, projected to 256 for v1; and its identity."""
    import torch

    try:
        from huggingface_hub import errors as hub
        from transformers import HubertConfig, HubertModel
    except ImportError as error:
        raise ResourceError(f"transformers cannot be imported: {error}", hint="pip install transformers") from error
    described = path.with_name("config.json")
    weights = _contentvec_weights(path, width)
    config: Any = HubertConfig()  # fairseq's file comes without config.json and has the default architecture
    if path.name != _FAIRSEQ_FILE or described.is_file():
        strict = getattr(hub, "StrictDataclassError", ValueError)  # newer releases check the types
        with _refusing(path.parent, OSError, ValueError, TypeError, AttributeError, RecursionError, strict):
            config = HubertConfig.from_json_file(described)
    config.num_hidden_layers = _CONTENTVEC_LAYERS[width]  # layer 9 of 12 is the last layer of nine
    with (
        _refusing(path.parent, ValueError, TypeError, LookupError, ArithmeticError, RuntimeError),
        torch.device("meta"),  # skips drawing initial weights
    ):
        model: Any = HubertModel(config)
    if width != config.hidden_size:
        model.final_proj = torch.nn.Linear(config.hidden_size, width, device="meta")
    masked = {"masked_spec_embed": torch.zeros(config.hidden_size)}  # for training only, some files lack it
    with _refusing(path.parent, RuntimeError):
        model.load_state_dict(masked | weights, assign=True)
    model.eval()

    @torch.inference_mode()
    def encode(samples: np.ndarray, device: str) -> np.ndarray:
        hidden = model.to(device)(torch.from_numpy(samples)[None].to(device)).last_hidden_state
        return (model.final_proj(hidden) if hasattr(model, "final_proj") else hidden)[0].cpu().numpy()

    return encode, _identity_of(weights)


@contextlib.contextmanager
def _refusing(folder: Path, *errors: type[Exception]) -> Iterator[None]:
    """Turn what transformers raises for a damaged or foreign file into a `WeightsError`."""
    try:
        yield
    except errors as error:
        raise WeightsError(
            f"{folder} does not hold ContentVec: {' '.join(str(error).split())[:160]}",
            hint="use RVC's complete folder hubert_base; its model has 12 layers and final_proj",
        ) from error


def _contentvec_weights(path: Path, width: int) -> "dict[str, Tensor]":
    """The weights that features of this width depend on: float32, with transformers' names."""
    import torch

    from ..system.untrusted import AGAIN, load_torch, not_finite
    from .fairseq_file import load_fairseq

    if path.suffix == ".safetensors":
        from safetensors import SafetensorError
        from safetensors.torch import load_file

        try:
            table = load_file(path)
        except (OSError, SafetensorError) as error:
            raise WeightsError(f"{path} is damaged", hint=AGAIN) from error
    else:
        table = load_fairseq(path) if path.name == _FAIRSEQ_FILE else load_torch(path)
    weights = {}
    for key, value in table.items() if isinstance(table, dict) else ():
        name = str(key).removeprefix("hubert.")
        for old, new in _WEIGHT_NORM.items():
            name = name.replace(old, new)
        layer = re.match(r"encoder\.layers\.(\d+)\.", name)
        unused = layer and int(layer[1]) >= _CONTENTVEC_LAYERS[width] or name.startswith("final_proj.") and width == 768
        if not unused and name not in _TRAINING_ONLY and isinstance(value, torch.Tensor):
            weights[name] = value.float()
    if broken := not_finite(weights):
        raise WeightsError(f"{path} is damaged: {broken[0][:80]} is not finite", hint=AGAIN)
    return weights


@functools.lru_cache
def _contentvec_identity(path: Path, width: int, changed_ns: int) -> str:
    return _identity_of(_contentvec_weights(path, width))


def _identity_of(weights: "dict[str, Tensor]") -> str:
    """Hash of the values, 16 digits: the same for one model in any file format."""
    digest = hashlib.sha256()
    for name, value in sorted(weights.items()):
        digest.update(f"{name} {tuple(value.shape)}\n".encode())
        digest.update(value.contiguous().numpy().data)
    return digest.hexdigest()[:16]
