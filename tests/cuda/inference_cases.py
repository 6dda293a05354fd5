"""Everything but training on a fake GPU: ``python inference_cases.py NAME ...`` prints a line of JSON for each case."""

# isort: off
from fake_gpu import FakeGpu, counts, report, weights_without_numbers  # before torch

# isort: on
import os
import sys
import tempfile
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils._python_dispatch import _disable_current_modes
from transformers import HubertConfig, HubertModel

from rvc_core.audio.waveform import Audio
from rvc_core.conversion.convert import Converter
from rvc_core.features import content, pitch
from rvc_core.features.content import content_encoder
from rvc_core.features.faiss_file import IndexArrays
from rvc_core.features.pitch import pitch_estimator
from rvc_core.features.retrieval import FeatureIndex
from rvc_core.nn.rmvpe import RMVPE
from rvc_core.nn.synthesizer import Synthesizer
from rvc_core.presets import PRESETS
from rvc_core.settings import ConvertSettings, RuntimeSettings
from rvc_core.system import untrusted
from rvc_core.workspace.voice_file import VoiceFile, VoiceInfo
from tiny import TINY

SECOND = np.random.default_rng(0).uniform(-0.5, 0.5, 16_000).astype(np.float32)
TINY_V2 = replace(
    PRESETS["v2-40k"],
    inter_channels=16,
    hidden_channels=16,
    filter_channels=32,
    layers=1,
    upsample_channels=64,
    resblock_kernels=(3,),
    resblock_dilations=((1, 3),),
)
SPECS = {"nano": replace(TINY, content_width=256), "v2": TINY_V2, "v2-without-f0": replace(TINY_V2, uses_f0=False)}
SPECS |= {"full-v2": PRESETS["v2-40k"], "full-nano": PRESETS["nano"]}


class _Converter(Converter):
    """One that does without ContentVec: its features have no numbers anyway."""

    def _matching_encoder(self, voice: VoiceFile) -> Any:
        width = voice.spec.content_width
        if width == 256:
            return super()._matching_encoder(voice)

        def encode(samples: np.ndarray, device: str) -> np.ndarray:
            return np.ones(((len(samples) - 400) // 320 + 1, width), np.float32)

        return content.ContentEncoder("contentvec", width, "", str(self.device), encode)


def conversion(gpu: FakeGpu, *, of: str, seconds: int = 51) -> dict[str, Any]:
    """A whole conversion of a recording of five windows, with an index, and with pitch from a file."""
    spec = SPECS[of]
    voice = VoiceFile(spec, Synthesizer(spec, with_posterior=False).state_dict(), VoiceInfo(content_name="embedded"))
    vectors = np.ones((600, spec.content_width), np.float32)
    with weights_without_numbers(), tempfile.TemporaryDirectory() as folder:
        converter = _Converter(
            voice, FeatureIndex.of(IndexArrays.flat(vectors)), RuntimeSettings(device="cuda", threads=1)
        )
        curve = Path(folder, "curve.csv")
        curve.write_text(f"seconds,hz\n0,200\n{seconds},210\n")
        settings = ConvertSettings.of(f0_curve=str(curve) if spec.uses_f0 else "", index_rate=0.5, transpose=2)
        gpu.reset()
        result = converter.convert(Audio(np.tile(SECOND, seconds), 16_000), settings)
    return counts(gpu) | {"length": result.audio.seconds}


def encoder(gpu: FakeGpu, *, name: str, width: int) -> dict[str, Any]:
    """Content features of a second; ContentVec with random weights and thin layers."""
    with tempfile.TemporaryDirectory() as folder:
        with _disable_current_modes():
            config = HubertConfig(
                intermediate_size=32, conv_dim=(32,) * 7, num_conv_pos_embeddings=16, classifier_proj_size=256
            )
            model = HubertModel(config)
            model.final_proj = torch.nn.Linear(768, 256)
            config.save_pretrained(folder)
            torch.save(model.state_dict(), Path(folder, "pytorch_model.bin"))
        os.environ["RVC_HUBERT"] = folder
        with weights_without_numbers():
            loaded = content_encoder(name, width, device="cuda:0")
    gpu.reset()
    return {"shape": loaded(SECOND).shape} | counts(gpu)


def estimator(gpu: FakeGpu, *, method: str) -> dict[str, Any]:
    """Pitch of a second."""
    pitch.find = lambda name: Path("rmvpe.pt")
    untrusted.load_torch = lambda path: RMVPE().state_dict()
    with weights_without_numbers():
        estimate = pitch_estimator(method, "cuda:0")
    gpu.reset()
    return {"shape": estimate(SECOND).f0_hz.shape} | counts(gpu)


def search(gpu: FakeGpu) -> dict[str, Any]:
    """Neighbours of 300 frames among 5000."""
    index = FeatureIndex.of(IndexArrays.flat(np.ones((5000, 768), np.float32))).on("cuda:0")
    gpu.reset()
    return {"shape": index.mix(np.ones((300, 768), np.float32), 0.5).shape} | counts(gpu)


CASES: dict[str, Callable[[FakeGpu], dict[str, Any]]] = {
    **{f"conversion {of}": partial(conversion, of=of) for of in SPECS if not of.startswith("full")},
    "encoder embedded 256": partial(encoder, name="embedded", width=256),
    **{f"encoder contentvec {width}": partial(encoder, name="contentvec", width=width) for width in (256, 768)},
    **{f"pitch {method}": partial(estimator, method=method) for method in ("rmvpe", "fcpe", "crepe")},
    "index search": search,
    **{f"full conversion {of}": partial(conversion, of=of) for of in SPECS if of.startswith("full")},
}

if __name__ == "__main__":
    report(CASES, sys.argv[1:])
