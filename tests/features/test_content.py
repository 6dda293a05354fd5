"""Content encoders: one contract for all, and ContentVec against transformers' own hidden states."""

import json
import logging
import re

import numpy as np
import pytest
import safetensors.torch
import torch

from rvc_core.embedded import ENCODER_FILE
from rvc_core.errors import AudioError, MismatchError, SettingsError, WeightsError
from rvc_core.features import content
from rvc_core.features.content import ContentEncoder, content_encoder, content_identity, content_name, repeat_to_100fps
from rvc_core.presets import preset
from synth import phrase


@pytest.fixture(scope="module")
def hubert_base(tmp_path_factory):
    """A HuBERT of random weights in the form of the hub's folder: 12 layers of 768, thin feed-forward, final_proj."""
    from transformers import HubertConfig, HubertModel

    torch.manual_seed(0)
    config = HubertConfig(
        intermediate_size=32, conv_dim=(32,) * 7, num_conv_pos_embeddings=16, classifier_proj_size=256
    )
    model = HubertModel(config).eval()
    model.final_proj = torch.nn.Linear(768, 256)
    folder = tmp_path_factory.mktemp("assets") / "hubert_base"
    config.save_pretrained(folder)
    torch.save(model.state_dict(), folder / "pytorch_model.bin")
    return folder, model


@pytest.fixture
def contentvec(hubert_base, monkeypatch):
    monkeypatch.setenv("RVC_HUBERT", str(hubert_base[0]))
    content_encoder.cache_clear()
    yield hubert_base[1]
    content_encoder.cache_clear()


@pytest.mark.parametrize("width", [256, 768])
def test_contentvec_equals_transformers(contentvec, width, caplog):
    samples = phrase(0, seconds=1).samples
    with torch.inference_mode(), caplog.at_level(logging.WARNING):
        states = contentvec(torch.from_numpy(samples)[None], output_hidden_states=True).hidden_states
        expected = contentvec.final_proj(states[9]) if width == 256 else states[12]
        features = content_encoder("contentvec", width)(samples)
    assert features.shape == (49, width) and features.dtype == np.float32
    assert np.abs(features - expected[0].numpy()).max() < 1e-4
    assert not caplog.records


ENCODERS = [("embedded", 256), ("contentvec", 256), ("contentvec", 768)]


@pytest.mark.parametrize(("name", "width"), ENCODERS)
@pytest.mark.parametrize("samples", [0, 399, 719, 720, 16000])
def test_contract(contentvec, name, width, samples):
    if name == "embedded" and not ENCODER_FILE.exists():
        pytest.skip("the embedded encoder is not built")
    encoder = content_encoder(name, width)
    features = encoder(np.random.default_rng(0).standard_normal(samples) * 0.1)
    assert features.shape == (max(1, (samples - 400) // 320 + 1), width) == (len(features), encoder.width)
    assert features.dtype == np.float32 and np.isfinite(features).all()
    assert encoder.name == name and encoder.identity == content_identity(name, width)


def frame_means(samples, device):
    """A fake network of width 1 whose frames see exactly what HuBERT's frames see."""
    return np.lib.stride_tricks.sliding_window_view(samples, 400)[::320].mean(1, keepdims=True)


def test_windows_equal_the_whole():
    samples = np.random.default_rng(0).standard_normal(70 * 16000 + 123).astype(np.float32)
    longest = []

    def network(window, device):
        longest.append(len(window))
        return frame_means(window, device)

    features = ContentEncoder("fake", 1, "", "cpu", network)(samples)
    np.testing.assert_array_equal(features, frame_means(samples, "cpu"))
    assert len(longest) == 3 and max(longest) <= 39 * 16000


def test_embedded_windows_equal_the_whole(monkeypatch):
    if not ENCODER_FILE.exists():
        pytest.skip("the embedded encoder is not built")
    encoder, samples = content_encoder("embedded", 256), phrase(0, seconds=10).samples
    whole = encoder(samples)
    monkeypatch.setattr(content, "_BLOCK_FRAMES", 100)
    np.testing.assert_allclose(encoder(samples), whole, atol=1e-4)


def test_non_finite_features_are_computed_again_on_the_cpu_or_refused():
    def network(samples, device):
        return frame_means(samples, device) * (np.nan if device == "cuda" else 1)

    assert np.isfinite(ContentEncoder("fake", 1, "", "cuda", network)(np.zeros(800))).all()
    with pytest.raises(AudioError, match="not finite"):
        ContentEncoder("fake", 1, "", "cpu", lambda samples, device: network(samples, "cuda"))(np.zeros(800))


def test_missing_weights_say_where_they_belong(monkeypatch, tmp_path):
    monkeypatch.setenv("RVC_HOME", str(tmp_path))
    monkeypatch.delenv("RVC_HUBERT", raising=False)
    with pytest.raises(WeightsError, match="hubert_base") as error:
        content_encoder("contentvec", 768)
    assert str(tmp_path) in str(error.value) and "RVC_HUBERT" in error.value.hint


DAMAGES = {
    "torn": "truncated",
    "text": "is a text file",
    "list": "does not hold ContentVec",
    "stranger": "Missing key",
    "other shape": "size mismatch",
    "not finite": "is not finite",
    "torn safetensors": "is damaged",
    "no config": "No such file",
    "odd config": "does not hold ContentVec",
    "no heads": "does not hold ContentVec",
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_damaged_weights_are_refused(hubert_base, monkeypatch, tmp_path, damage):
    whole = (hubert_base[0] / "pytorch_model.bin").read_bytes()
    config = json.loads((hubert_base[0] / "config.json").read_bytes())
    file = tmp_path / ("model.safetensors" if damage == "torn safetensors" else "pytorch_model.bin")
    weights = hubert_base[1].state_dict()
    if damage in ("torn", "text", "torn safetensors"):
        file.write_bytes(b"no weights" if damage == "text" else whole[: len(whole) // 2])
    else:  # a stranger's weights would otherwise be made up at random, silently
        tables = {
            "list": [1],
            "stranger": {"final_proj.weight": torch.zeros(256, 768)},
            "other shape": weights | {"final_proj.bias": torch.zeros(2)},
            "not finite": weights | {"final_proj.bias": torch.full((256,), torch.nan)},
        }
        torch.save(tables.get(damage, weights), file)
    config |= {"odd config": {"conv_dim": "many"}, "no heads": {"num_attention_heads": 0}}.get(damage, {})
    if damage != "no config":
        (tmp_path / "config.json").write_text(json.dumps(config))
    monkeypatch.setenv("RVC_HUBERT", str(tmp_path))
    with pytest.raises(WeightsError, match=DAMAGES[damage]) as error:
        content_encoder("contentvec", 256)
    assert error.value.hint and "\n" not in str(error.value)


def as_content_vec_best(model, folder):
    """The hub's `content-vec-best`: the older spelling of weight normalisation, nothing that only training needs."""
    old = {".parametrizations.weight.original0": ".weight_g", ".parametrizations.weight.original1": ".weight_v"}
    weights = {
        re.sub(r"\.parametrizations.*", lambda found: old[found[0]], key): value
        for key, value in model.state_dict().items()
        if key != "masked_spec_embed"
    }
    torch.save(weights, folder / "pytorch_model.bin")


def as_safetensors(model, folder):
    safetensors.torch.save_file(
        {key: value.clone() for key, value in model.state_dict().items()}, folder / "model.safetensors"
    )


def as_a_part_of_a_larger_model(model, folder):
    torch.save(
        {f"hubert.{key}": value for key, value in model.state_dict().items() if "final_proj" not in key}
        | {key: value for key, value in model.state_dict().items() if "final_proj" in key},
        folder / "pytorch_model.bin",
    )


@pytest.mark.parametrize("save", [as_content_vec_best, as_safetensors, as_a_part_of_a_larger_model])
def test_the_same_model_in_another_file_is_the_same_encoder(contentvec, hubert_base, monkeypatch, tmp_path, save):
    sound, identities = phrase(0, seconds=1).samples, [content_identity("contentvec", width) for width in (256, 768)]
    features = content_encoder("contentvec", 256)(sound)
    save(contentvec, tmp_path)
    (tmp_path / "config.json").write_bytes((hubert_base[0] / "config.json").read_bytes())
    monkeypatch.setenv("RVC_HUBERT", str(tmp_path))
    content_encoder.cache_clear()
    encoder = content_encoder("contentvec", 256)
    np.testing.assert_array_equal(encoder(sound), features)
    assert [content_identity("contentvec", width) for width in (256, 768)] == identities
    assert encoder.identity == identities[0]


def test_only_needed_layers_are_computed(contentvec):
    heard = []
    for width in (256, 768):
        encode = content_encoder("contentvec", width).encode
        model = next(
            cell.cell_contents
            for cell in encode.__wrapped__.__closure__
            if isinstance(cell.cell_contents, torch.nn.Module)
        )
        heard.append(len(model.encoder.layers))
    assert heard == [9, 12]


@pytest.mark.parametrize(
    ("key", "same"),
    [
        ("final_proj.bias", (False, True)),
        ("encoder.layers.8.layer_norm.bias", (False, False)),
        ("encoder.layers.9.layer_norm.bias", (True, False)),
        ("masked_spec_embed", (True, True)),
    ],
)
def test_identity_follows_the_weights_that_count(contentvec, monkeypatch, tmp_path, key, same):
    before = [content_identity("contentvec", width) for width in (256, 768)]
    weights = contentvec.state_dict()
    torch.save(weights | {key: weights[key] + 1}, tmp_path / "pytorch_model.bin")
    monkeypatch.setenv("RVC_HUBERT", str(tmp_path))
    after = [content_identity("contentvec", width) for width in (256, 768)]
    assert all(len(identity) == 16 for identity in before + after) and len(set(before)) == 2
    assert tuple(one == other for one, other in zip(before, after, strict=True)) == same


def test_names_and_widths():
    assert content_name("auto", preset("nano")) == "embedded" and content_name("auto", preset("v1-40k")) == "contentvec"
    assert content_name("embedded", preset("v1-40k")) == "embedded"
    with pytest.raises(MismatchError):
        content_encoder("embedded", 768)
    with pytest.raises(SettingsError):
        content_encoder("whisper", 768)


def test_repeat():
    assert repeat_to_100fps(np.array([[1], [2]])).ravel().tolist() == [1, 1, 2, 2]
