"""RMVPE against numbers of the reference implementation, on weights and a sound that are formulas."""

import zlib
from pathlib import Path

import numpy as np
import pytest
import torch

from rvc_core.errors import MismatchError, UnsafeFileError, WeightsError
from rvc_core.evaluation.golden import noise
from rvc_core.features import pitch
from rvc_core.features.pitch import pitch_estimator, pitch_method
from rvc_core.nn import rmvpe
from rvc_core.nn.rmvpe import RMVPE, log_mel, peak_hz
from synth import phrase

GOLDEN = Path(__file__).parents[1] / "golden" / "rmvpe.npz"
CHANNELS = 2  # instead of 16: the same network, 35 times smaller


def formula_weights(network):
    """Weights that keep the signal's size through sixty layers, with running statistics that do something."""
    weights = {}
    for key, entry in network.state_dict().items():
        values = noise(entry.numel(), zlib.crc32(key.encode()) % 997).view(entry.shape)
        if entry.dim() > 1:
            values = values * (1.5 * len(entry) / entry.numel()) ** 0.5
        else:
            values = 1 + 0.3 * values if key.endswith(("running_var", "weight")) else 0.1 * values
        weights[key] = values.to(entry.dtype)
    return weights


def formula_sound():
    """Two seconds of eight harmonics that glide, in noise: (1, N)."""
    time = torch.arange(32000, dtype=torch.float64) / 16000
    cycles = 150 * time + 20 * torch.sin(3 * time)
    harmonics = sum(torch.sin(2 * np.pi * number * cycles) / number for number in range(1, 9))
    return (0.1 * harmonics + 0.02 * noise(len(time), 5)).float()[None]


@pytest.fixture(scope="module")
def network():
    model = RMVPE(CHANNELS).eval()
    model.load_state_dict(formula_weights(model))
    return model


@torch.inference_mode()
def layer_outputs(network, heard):
    """What every layer gives, by its name in the community's file, thinned to a few dozen numbers."""
    names = [
        "unet.encoder.bn",
        "cnn",
        "fc.0",
        "fc.1",
        "fc",
        *(
            f"unet.{part}.layers.{layer}"
            for part, layers in (("encoder", 5), ("intermediate", 4), ("decoder", 5))
            for layer in range(layers)
        ),
    ]
    found = {}
    for name in names:
        # The last block of an encoder's level: the level itself also returns its pooled half in the reference.
        place = f"{name}.conv.3" if "encoder.layers" in name else name
        network.get_submodule(place).register_forward_hook(
            lambda module, inputs, output, name=name: found.update({name: output.flatten()[:: output.numel() // 23]})
        )
    network(heard)
    return {name: found[name].numpy() for name in names}


def test_layer_by_layer(network):
    expected = np.load(GOLDEN)
    heard = log_mel(formula_sound())
    np.testing.assert_allclose(heard[0, ::16, ::16], expected["log_mel"], atol=1e-4)
    found = layer_outputs(network, torch.nn.functional.pad(heard, (0, -heard.shape[-1] % 32)))
    assert len(found) == 19 and set(found) < set(expected.files)
    for name, values in found.items():
        np.testing.assert_allclose(values, expected[name], atol=1e-4 * np.abs(expected[name]).max(), err_msg=name)


def test_keys_of_the_community_file():
    with torch.device("meta"):
        shapes = {key: tuple(entry.shape) for key, entry in RMVPE().state_dict().items()}
    text = "\n".join(f"{key} {shape}" for key, shape in shapes.items())
    expected = np.load(GOLDEN)
    assert len(shapes) == expected["keys"] and zlib.crc32(text.encode()) == expected["keys_crc32"]


def test_decoding_equals_the_reference():
    expected = np.load(GOLDEN)
    salience = noise(40 * 360, 3).float().view(40, 360).abs()
    salience[0, 0], salience[1, 359] = 2, 2  # the window of nine bins ends at the first bin and at the last
    np.testing.assert_allclose(peak_hz(salience), expected["peak_hz"], rtol=1e-6)


def test_any_number_of_frames(network):
    with torch.inference_mode():
        for frames in (1, 32, 33):
            assert network(torch.zeros(1, 128, frames)).shape == (1, frames, 360)


@pytest.fixture
def community_file(network, tmp_path, monkeypatch):
    """A small network in the place and the form of the community's file: half precision, nothing but tensors."""
    monkeypatch.setenv("RVC_HOME", str(tmp_path))
    monkeypatch.setattr(rmvpe, "RMVPE", lambda: RMVPE(CHANNELS))
    path = tmp_path / "assets" / "rmvpe" / "rmvpe.pt"
    path.parent.mkdir(parents=True)
    torch.save(
        {key: value.half() if value.is_floating_point() else value for key, value in network.state_dict().items()}, path
    )
    pitch_estimator.cache_clear()
    yield path
    pitch_estimator.cache_clear()


@pytest.mark.parametrize("samples", [0, 1, 159, 160, 700, 16000])
def test_contract(community_file, samples):
    track = pitch_estimator("rmvpe")(np.zeros(samples, np.float32))
    assert track.f0_hz.shape == track.voiced.shape == (samples // 160,) and not track.voiced.any()
    assert track.f0_hz.dtype == np.float32


def test_frames_stand_where_the_reference_has_them(community_file, monkeypatch):
    """A network that answers with the loudest mel band: what it reads off must be the pitch of that instant."""

    def loudest(self, heard):
        salience = torch.full((1, heard.shape[-1], 360), 0.01)
        salience[0, heard[0].amax(0) > -3, 160] = 1.0  # 201.28 Hz wherever there is sound
        return salience

    monkeypatch.setattr(RMVPE, "forward", loudest)
    time = np.arange(16000) / 16000
    tone = np.where(time >= 0.5, 0.3 * np.sin(2 * np.pi * 201.28 * time), 0).astype(np.float32)
    track = pitch_estimator("rmvpe")(tone)
    assert abs(int(np.argmax(track.voiced)) - 50) <= 2 and track.voiced[54:96].all() and not track.voiced[:47].any()
    np.testing.assert_allclose(track.f0_hz[track.voiced], 201.28, atol=0.01)


def test_windows_equal_the_whole(community_file, monkeypatch):
    """On random weights, which look further than trained ones: what is proposed agrees, wherever blocks end."""
    sound = np.concatenate([phrase(seed, seconds=4, speaker=seed).samples for seed in range(4)])
    monkeypatch.setattr(pitch, "periodicity", lambda samples, f0_hz: np.ones(len(f0_hz)))
    whole = pitch_estimator("rmvpe")(sound)
    monkeypatch.setattr(pitch, "_BLOCK_SAMPLES", 15 * 5120)
    blocks = pitch_estimator("rmvpe")(sound)
    assert whole.voiced.mean() > 0.5
    cents = 1200 * np.abs(np.log2(np.maximum(whole.f0_hz, 1) / np.maximum(blocks.f0_hz, 1)))
    assert (cents > 1).mean() <= 0.01


def test_the_salience_alone_decides_for_voices_of_rvc(community_file, monkeypatch):
    """As in RVC: voiced where the peak passes 0.03, whether the sound repeats or not."""

    def half(self, heard):
        salience = torch.rand((1, heard.shape[-1], 360), generator=torch.Generator().manual_seed(1)) * 0.02
        salience[0, torch.arange(0, heard.shape[-1], 2), 160] = 0.0301
        return salience

    monkeypatch.setattr(RMVPE, "forward", half)
    hiss = (0.1 * noise(16000, 5)).float().numpy()
    assert pitch_estimator("rmvpe", "cpu", "estimator")(hiss).voiced.tolist() == [True, False] * 50
    assert pitch_estimator("rmvpe", "cpu", "periodicity")(hiss).voiced.mean() < 0.1


def test_auto_prefers_it_where_its_file_is(community_file):
    assert pitch_method("auto") == "rmvpe" and pitch_method("dio") == "dio"
    community_file.unlink()
    assert pitch_method("auto") == "fcpe"
    with pytest.raises(WeightsError, match="rmvpe.pt") as error:
        pitch_estimator("rmvpe")
    assert "another f0 method" in error.value.hint


@pytest.mark.parametrize("damage", ["torn", "list", "stranger", "hostile", "not finite"])
def test_damaged_files_are_refused(community_file, damage):
    class Hostile:
        def __reduce__(self):
            return print, ("it ran",)

    whole = community_file.read_bytes()
    if damage == "torn":
        community_file.write_bytes(whole[: len(whole) // 2])
    else:
        torch.save(
            {
                "list": [1],
                "stranger": {"weight": torch.zeros(1)},
                "hostile": Hostile(),
                "not finite": {"cnn.bias": torch.full((3,), torch.inf)},
            }[damage],
            community_file,
        )
    wanted = {"stranger": MismatchError, "hostile": UnsafeFileError}.get(damage, WeightsError)
    with pytest.raises(wanted) as error:
        pitch_estimator("rmvpe")
    assert error.value.hint and "\n" not in str(error.value)
