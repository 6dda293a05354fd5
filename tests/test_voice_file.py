"""Voice files: RVC's form on the disk, strict reading, and errors that say what a file is."""

from pathlib import Path

import pytest
import torch

from rvc_core.errors import CheckpointError, MismatchError, WeightsError
from rvc_core.nn.synthesizer import SynthesisNoise, Synthesizer
from rvc_core.presets import PRESETS, preset
from rvc_core.voice_file import VoiceFile, VoiceInfo, load_voice, save_voice, synthesizer_of
from tiny import TINY

RVC_V2_48K_CONFIG = [1025, 32, 192, 192, 768, 2, 6, 3, 0, "1", [3, 7, 11], [[1, 3, 5], [1, 3, 5], [1, 3, 5]],
                     [12, 10, 2, 2], 512, [24, 20, 4, 4], 109, 256, 48000]   # RVC WebUI configs/v2/48k.json


def _voice(spec=TINY) -> VoiceFile:
    torch.manual_seed(3)
    info = VoiceInfo("Алиса", 60, 120, "embedded", "abc", 210.0, "2023")
    return VoiceFile(spec, Synthesizer(spec).state_dict(), info)


def test_the_file_has_rvcs_keys_values_and_precision(tmp_path: Path) -> None:
    spec = preset("v2-48k")
    weights = {key: value for key, value in Synthesizer(spec).state_dict().items() if ".resblocks." not in key}
    save_voice(tmp_path / "v.pth", VoiceFile(spec, weights, VoiceInfo("a", 60, 120)))
    content = torch.load(tmp_path / "v.pth", weights_only=True)
    assert content["config"] == RVC_V2_48K_CONFIG
    assert (content["sr"], content["f0"], content["version"], content["info"]) == ("48k", 1, "v2", "60epoch")
    assert not any(key.startswith("enc_q") for key in content["weight"])
    assert {value.dtype for value in content["weight"].values()} == {torch.float16}
    assert isinstance(content["weight"]["dec.ups.0.weight_g"], torch.Tensor)


def test_a_voice_sounds_the_same_after_a_round_trip(tiny: None, tmp_path: Path) -> None:
    voice = _voice()
    save_voice(tmp_path / "v.pth", voice)
    again = load_voice(tmp_path / "v.pth")
    assert again.info == voice.info and again.spec == TINY
    noise = SynthesisNoise.draw(TINY, 30, generator=torch.Generator().manual_seed(1))
    inputs = (torch.randn(1, 30, 8), torch.full((1, 30), 60), torch.full((1, 30), 200.0), torch.tensor([0]))
    halved = {key: value.half().float() for key, value in voice.weights.items()}
    audio = [synthesizer_of(VoiceFile(TINY, weights, voice.info)).infer(*inputs, noise=noise)
             for weights in (halved, again.weights)]
    assert torch.equal(*audio)


@pytest.mark.parametrize("name", PRESETS)
def test_the_architecture_is_read_back_from_the_18_values(name: str, tmp_path: Path) -> None:
    spec = preset(name)
    few = {"enc_p.emb_phone.weight": torch.zeros(spec.hidden_channels, spec.content_width),
           "emb_g.weight": torch.zeros(spec.speakers, spec.speaker_channels)}
    save_voice(tmp_path / "v.pth", VoiceFile(spec, few, VoiceInfo("a")))
    assert load_voice(tmp_path / "v.pth").spec == spec


def test_missing_weights_are_an_error_and_never_noise(tmp_path: Path) -> None:
    voice = _voice()
    weights = dict(voice.weights)
    del weights["dec.conv_post.weight"]
    with pytest.raises(MismatchError, match="conv_post"):
        synthesizer_of(VoiceFile(TINY, weights, voice.info))


def test_non_finite_weights_are_not_saved(tmp_path: Path) -> None:
    voice = _voice()
    voice.weights["emb_g.weight"][0, 0] = torch.nan
    with pytest.raises(CheckpointError):
        save_voice(tmp_path / "v.pth", voice)
    assert not list(tmp_path.iterdir())


def test_other_files_are_named_for_what_they_are(tmp_path: Path) -> None:
    (tmp_path / "text.pth").write_text("not a voice")
    save_voice(tmp_path / "whole.pth", _voice())
    (tmp_path / "torn.pth").write_bytes((tmp_path / "whole.pth").read_bytes()[:5000])
    torch.save({"model": {}, "optimizer": {}, "iteration": 1, "learning_rate": 1e-4}, tmp_path / "G_1.pth")
    torch.save({"something": 1}, tmp_path / "other.pth")
    said = {}
    for name in ("text.pth", "torn.pth", "G_1.pth", "other.pth", "absent.pth"):
        with pytest.raises(WeightsError) as caught:
            load_voice(tmp_path / name)
        assert caught.value.hint and "\n" not in str(caught.value)
        said[name] = str(caught.value)
    assert "training checkpoint" in said["G_1.pth"] and "no such file" in said["absent.pth"]
    assert "not a voice" in said["other.pth"]
