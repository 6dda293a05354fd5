"""Converters of small voices with random weights."""

from collections.abc import Callable

import pytest
import torch

from converters import Bands
from rvc_core.conversion import convert as module
from rvc_core.conversion.convert import Converter
from rvc_core.features.retrieval import FeatureIndex
from rvc_core.nn.synthesizer import Synthesizer
from rvc_core.workspace.voice_file import VoiceFile, VoiceInfo
from tiny import TINY


@pytest.fixture
def make(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Converter]:
    monkeypatch.setattr(module, "content_encoder", lambda name, width, device: Bands())

    def converter(
        *,
        local: bool = False,
        index: FeatureIndex | None = None,
        spec=TINY,
        same_speakers: tuple[int, int] = (0, 0),
        seed: int = 1,
        **info: object,
    ) -> Converter:
        torch.manual_seed(seed)
        weights = Synthesizer(spec).state_dict()
        if local:  # attention hears a whole window; without it the network is local, and windows must not show at all
            weights = {key: value * 0 if ".conv_o." in key else value for key, value in weights.items()}
        first, second = same_speakers
        weights["emb_g.weight"][second] = weights["emb_g.weight"][first]
        return Converter(VoiceFile(spec, weights, VoiceInfo("v", **{"content_name": "embedded", **info})), index)

    return converter
