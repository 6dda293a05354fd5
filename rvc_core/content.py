"""Content features: what is said, 50 times a second, with little of who says it.

ContentVec is read through transformers from a local ``hubert_base`` folder; the embedded encoder comes with the
package. Both stand behind `ContentEncoder` and pass the same contract test.
"""

import contextlib
import functools
import os
import pickle
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from .embedded import ENCODER_FILE
from .errors import AudioError, MismatchError, ResourceError, SettingsError, WeightsError
from .files import sha256_of
from .platforms import home
from .presets import VoiceSpec

FIELD_SAMPLES, STRIDE_SAMPLES = 400, 320     # frame t sees samples 320 t to 320 t + 400, at 16 kHz
_BLOCK_FRAMES, _CONTEXT_FRAMES = 1300, 300   # 26 s; 6 s on both sides, more than the embedded encoder sees
_CONTENTVEC_LAYERS = {256: 9, 768: 12}       # width → layer that RVC reads: v1 (then projected), v2
_WEIGHT_FILES = ("model.safetensors", "pytorch_model.bin")

Encode = Callable[[np.ndarray, str], np.ndarray]   # samples (n,), device → (frames, width)


class ContentEncoder(Protocol):
    """(N,) samples at 16 kHz → features (T, width) float32, finite, T = (N - 400) // 320 + 1, at least 1.

    The identity is recorded with features, index and voice: another encoder's features are noise to a voice.
    """

    @property
    def name(self) -> str:
        """``embedded`` or ``contentvec``."""

    @property
    def width(self) -> int:
        """Numbers in each frame."""

    @property
    def identity(self) -> str:
        """Hash of the weights."""

    def __call__(self, samples_16k: np.ndarray) -> np.ndarray:
        """Encode."""


@dataclass(frozen=True)
class WindowedEncoder:
    """Runs a network over windows with context, so that memory stays bounded however long the recording is."""

    name: str
    width: int
    identity: str
    device: str
    encode: Encode

    def __call__(self, samples_16k: np.ndarray) -> np.ndarray:
        """Encode; what is not finite is computed again on the CPU, whose float32 is exact.

        Raises
        ------
        AudioError
            When the features are not finite there either.
        """
        samples = np.pad(samples_16k.astype(np.float32), (0, max(0, FIELD_SAMPLES - len(samples_16k))))
        features = self._in_windows(samples, self.device)
        if not np.isfinite(features).all() and self.device != "cpu":
            features = self._in_windows(samples, "cpu")
        if not np.isfinite(features).all():
            raise AudioError(f"the {self.name} encoder gives features that are not finite",
                             hint="listen to this recording; replace it or leave it out")
        return features

    def _in_windows(self, samples: np.ndarray, device: str) -> np.ndarray:
        frames = (len(samples) - FIELD_SAMPLES) // STRIDE_SAMPLES + 1
        features = np.empty((frames, self.width), np.float32)
        for start in range(0, frames, _BLOCK_FRAMES):
            first, stop = max(0, start - _CONTEXT_FRAMES), min(frames, start + _BLOCK_FRAMES + _CONTEXT_FRAMES)
            end = len(samples) if stop == frames else (stop - 1) * STRIDE_SAMPLES + FIELD_SAMPLES   # HuBERT
            window = samples[first * STRIDE_SAMPLES:end]   # normalises over all it is given, the odd end included
            features[start:start + _BLOCK_FRAMES] = self.encode(window, device)[start - first:][:_BLOCK_FRAMES]
        return features


@functools.cache
def content_encoder(name: str, width: int, device: str = "cpu") -> ContentEncoder:
    """The encoder called `name` giving features of `width`; loaded once per process and device.

    Parameters
    ----------
    name : str
        ``embedded`` (width 256) or ``contentvec`` (256: layer 9, projected, as v1 has it; 768: layer 12, as v2).

    Raises
    ------
    WeightsError
        When the weights are missing or damaged; the hint says where they belong.
    MismatchError
        When the encoder has no features of this width.
    """
    path = _weights_of(name, width)
    network = _embedded(path) if name == "embedded" else _contentvec(path.parent, width)
    return WindowedEncoder(name, width, content_identity(name, width), device, network)


def content_identity(name: str, width: int) -> str:
    """Hash of the encoder's weights, 16 hex digits, without loading them.

    Raises
    ------
    WeightsError, MismatchError
        As `content_encoder`.
    """
    path = _weights_of(name, width)
    return _short_hash(path, path.stat().st_mtime_ns)


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
    """Each frame twice: (T, D) at 50 frames per second → (2T, D) at 100, as RVC feeds its networks."""
    return np.repeat(features, 2, axis=0)


def _weights_of(name: str, width: int) -> Path:
    """File of the encoder's weights."""
    if name not in ("embedded", "contentvec"):
        raise SettingsError(f"unknown content encoder {name!r}", hint="choose embedded or contentvec")
    if width not in ((256,) if name == "embedded" else _CONTENTVEC_LAYERS):
        raise MismatchError(f"the {name} encoder has no features of width {width}",
                            hint="use contentvec with v1 and v2 voices; embedded fits nano and v1")
    if name == "embedded":
        if not ENCODER_FILE.is_file():
            raise WeightsError(f"{ENCODER_FILE.name} is not in the package", hint="reinstall rvc_core")
        return ENCODER_FILE
    chosen = os.environ.get("RVC_HUBERT")
    places = [home() / parent / "hubert_base" for parent in ("assets", "weights")]
    folders = [Path(chosen).expanduser()] if chosen else places
    files = [folder / file for folder in folders for file in _WEIGHT_FILES]
    if (found := next((file for file in files if file.is_file()), None)) is None:
        raise WeightsError(f"ContentVec is not at {folders[0]}", hint=(
            "put the folder hubert_base (config.json, pytorch_model.bin) there, or name its place in RVC_HUBERT; "
            "without it, use the preset nano"))
    return found


@functools.lru_cache
def _short_hash(path: Path, changed_ns: int) -> str:
    return sha256_of(path)[:16]


def _embedded(path: Path) -> Encode:
    import torch

    from .nn.embedded_encoder import EmbeddedEncoder
    model = EmbeddedEncoder.from_file(path)

    @torch.inference_mode()
    def encode(samples: np.ndarray, device: str) -> np.ndarray:
        return model.to(device)(torch.from_numpy(samples)[None].to(device))[0].cpu().numpy()
    return encode


def _contentvec(folder: Path, width: int) -> Encode:
    """Load ContentVec (Qian et al., 2022) with as many layers as are used; in v1 its output is projected to 256."""
    import torch
    try:
        from transformers import HubertConfig, HubertModel
    except ImportError as error:
        raise ResourceError(f"transformers cannot be imported: {error}", hint="pip install transformers") from error
    from safetensors import SafetensorError

    class ContentVec(HubertModel):
        _keys_to_ignore_on_load_unexpected = [r"^final_proj\.", r"^encoder\.layers\.", r"^label_embs_concat$"]

        def __init__(self, config: Any) -> None:
            super().__init__(config)
            if width != config.hidden_size:
                self.final_proj = torch.nn.Linear(config.hidden_size, width)

    try:
        config = HubertConfig.from_pretrained(folder, local_files_only=True)
        config.num_hidden_layers = _CONTENTVEC_LAYERS[width]   # layer 9 of 12 is the last layer of nine
        with _quiet_transformers():
            loader: Any = ContentVec.from_pretrained   # its stubs know nothing of output_loading_info
            model, loaded = loader(folder, config=config, local_files_only=True, output_loading_info=True)
    except (OSError, ValueError, RuntimeError, EOFError, pickle.UnpicklingError, SafetensorError) as error:
        raise WeightsError(f"{folder} does not hold ContentVec: {str(error).strip().splitlines()[0]}",
                           hint="copy the folder hubert_base again, whole") from error
    if missing := sorted(set(loaded["missing_keys"]) - {"masked_spec_embed"}):   # that one is used in training only
        raise WeightsError(f"{folder} does not hold ContentVec: {len(missing)} weights are missing, {missing[0]} first",
                           hint="use the folder hubert_base of RVC, whose model has 12 layers and final_proj")
    model = model.float().eval()

    @torch.inference_mode()
    def encode(samples: np.ndarray, device: str) -> np.ndarray:
        hidden = model.to(device)(torch.from_numpy(samples)[None].to(device)).last_hidden_state
        return (model.final_proj(hidden) if hasattr(model, "final_proj") else hidden)[0].cpu().numpy()
    return encode


@contextlib.contextmanager
def _quiet_transformers() -> Iterator[None]:
    """No bars and no loading report: what is missing, we say ourselves."""
    from transformers.utils import logging
    level, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if bars:
            logging.enable_progress_bar()
