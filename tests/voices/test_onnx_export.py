"""ONNX files: RVC's inputs, any length, the same audio as the voice, and nothing kept that does not agree."""

import json
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from rvc_core.errors import MismatchError, ResourceError
from rvc_core.nn.source_filter import SourceFilter
from rvc_core.nn.synthesizer import SynthesisNoise, Synthesizer
from rvc_core.presets import VoiceSpec, preset
from rvc_core.voices import onnx_export
from rvc_core.voices.onnx_export import RealSourceFilter, export_onnx
from rvc_core.workspace.voice_file import VoiceFile, VoiceInfo, load_voice, save_voice, synthesizer_of
from tiny import TINY

onnxruntime = pytest.importorskip("onnxruntime")
HIFI = replace(TINY, source_filter_channels=0)


def _saved(path: Path, spec: VoiceSpec) -> Path:
    torch.manual_seed(3)
    info = VoiceInfo("Алиса", 60, 120, "embedded", "abc", 210.0)
    save_voice(path, VoiceFile(spec, Synthesizer(spec).state_dict(), info))
    return path


@pytest.mark.parametrize("spec", [TINY, HIFI, replace(HIFI, uses_f0=False)], ids=["filter", "hifi-gan", "no f0"])
def test_the_file_speaks_as_the_voice_at_any_length(tiny: None, tmp_path: Path, spec: VoiceSpec) -> None:
    pytest.importorskip("onnx")
    path = _saved(tmp_path / "v.pth", spec)
    report = export_onnx(path, tmp_path / "out" / "v.onnx")
    assert len(report.parity) == 2 and max(report.parity.values()) < 1e-4
    names = ["phone", "phone_lengths", "pitch", "pitchf", "ds", "rnd"]
    session = onnxruntime.InferenceSession(report.path, providers=["CPUExecutionProvider"])
    assert [value.name for value in session.get_inputs()] == [
        name for name in names if spec.uses_f0 or not name.startswith("pitch")
    ]
    told = session.get_modelmeta().custom_metadata_map
    assert (told["sample_rate"], told["content_width"]) == ("16000", "8")
    assert json.loads(told["rvc_core"])["content_identity"] == "abc"

    frames, rng = 83, np.random.default_rng(0)
    fed = {
        "phone": rng.standard_normal((1, frames, 8), np.float32),
        "phone_lengths": np.array([frames]),
        "pitch": np.full((1, frames), 60),
        "pitchf": np.full((1, frames), 123.4, np.float32),
        "ds": np.array([1]),
        "rnd": rng.standard_normal((1, 16, frames), np.float32),
    }
    fed = {value.name: fed[value.name] for value in session.get_inputs()}
    [audio] = session.run(["audio"], fed)
    assert audio.shape == (1, 1, frames * 160)
    assert np.array_equal(audio, session.run(["audio"], fed)[0])  # nothing random inside
    voice = synthesizer_of(load_voice(path))
    tensors = {name: torch.from_numpy(value) for name, value in fed.items()}
    noise = torch.randn(4 * 16000, generator=torch.Generator().manual_seed(0))[: frames * 160][None, None]
    wanted = voice.infer(
        tensors["phone"],
        tensors.get("pitch"),
        tensors.get("pitchf"),
        tensors["ds"],
        noise=SynthesisNoise(tensors["rnd"], noise),
    ).numpy()
    assert np.abs(audio - wanted).max() < 1e-4 * np.abs(wanted).max()


def test_transforms_without_complex_numbers_are_the_same_transforms() -> None:
    torch.manual_seed(0)
    source = SourceFilter(preset("nano")).eval()
    torch.nn.init.normal_(source.filters.weight, std=0.05)
    f0_hz = torch.tensor([[0.0] * 7 + [220.0] * 30 + [95.5] * 20])
    inputs = (torch.randn(1, 64, 57), torch.randn(1, 64, 1), f0_hz, torch.randn(1, 1, 57 * 160))
    with torch.no_grad():
        wanted, made = source(*inputs), RealSourceFilter(source)(*inputs)
    assert made.shape == wanted.shape and float((made - wanted).abs().max() / wanted.abs().max()) < 1e-5


def test_a_file_that_speaks_otherwise_is_not_kept(tiny: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("onnx")
    monkeypatch.setattr(onnx_export, "NOISE_SCALE", 0.6)
    with pytest.raises(MismatchError, match="differs from the voice by"):
        export_onnx(_saved(tmp_path / "v.pth", HIFI), tmp_path / "v.onnx")
    assert [path.name for path in tmp_path.iterdir()] == ["v.pth"]


def test_without_the_package_it_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(ResourceError, match="onnx") as caught:
        export_onnx(_saved(tmp_path / "v.pth", HIFI), tmp_path / "v.onnx")
    assert "pip install onnx" in caught.value.hint


@pytest.mark.slow
@pytest.mark.parametrize("name", ["v2-40k", "v1-48k", "nano"])
def test_voices_of_full_size(tmp_path: Path, name: str) -> None:
    pytest.importorskip("onnx")
    report = export_onnx(_saved(tmp_path / "v.pth", preset(name)), tmp_path / "v.onnx")
    assert max(report.parity.values()) < 1e-4
