"""Voice files: RVC's form on the disk, strict reading, and errors that say what a file is."""

import os
from pathlib import Path

import pytest
import torch

from rvc_core.errors import CheckpointError, MismatchError, UnsafeFileError, WeightsError
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
    if spec.source_filter_channels:
        few["dec.pitch.bias"] = torch.zeros(spec.source_filter_channels)
    save_voice(tmp_path / "v.pth", VoiceFile(spec, few, VoiceInfo("a")))
    assert load_voice(tmp_path / "v.pth").spec == spec


def test_missing_weights_are_an_error_and_never_noise(tmp_path: Path) -> None:
    voice = _voice()
    weights = dict(voice.weights)
    del weights["dec.conv_pre.weight"]
    with pytest.raises(MismatchError, match="conv_pre"):
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


# -- damaged files -------------------------------------------------------------------------------------------------
class _Harmful:
    def __reduce__(self) -> tuple[object, ...]:
        return os.system, ("true",)


def _config(position: int, value: object) -> dict[str, object]:
    config: list[object] = [513, 32, 16, 16, 32, 2, 1, 3, 0, "1", [3], [[1, 3, 5]], [10, 4, 4], 32, [20, 8, 8], 4, 8,
                            16000]
    config[position] = value
    return {"config": config}


DAMAGES: dict[str, tuple[dict[str, object], str]] = {
    "config is None": ({"config": None}, "does not describe"),
    "config is short": ({"config": [513, 32, 16]}, "does not describe"),
    "a size is a word": (_config(2, "wide"), "'wide' is not a size"),
    "a size is beyond any memory": (_config(13, 10**9), "1000000000 is not a size"),
    "kernels are no list": (_config(14, 7), "7 where numbers belong"),
    "dilations are no lists": (_config(11, [1, 3]), "does not describe"),
    "the rate is a word": (_config(17, "fast"), "contradict"),
    "the rate is a list": (_config(17, [16000]), "does not describe"),
    "the rate is not that of the network": (_config(17, 40000), "contradict"),
    "fewer kernels than rates": (_config(14, [20, 8]), "contradict"),
    "weight is a list": ({"weight": [torch.zeros(2)]}, "not a table of tensors"),
    "weight holds a number": ({"weight": {"emb_g.weight": 3}}, "not a table of tensors"),
    "weight is empty": ({"weight": {}}, "does not describe"),
    "weight has other dimensions": ({"weight": {"enc_p.emb_phone.weight": torch.zeros(3)}}, "does not describe"),
    "a weight is not finite": ({"weight": {"emb_g.weight": torch.tensor([[torch.nan]])}}, "not finite, first emb_g"),
    "rvc_core is a word": ({"rvc_core": "ours"}, "description cannot be read"),
    "the median is not a number": ({"rvc_core": {"f0_median_hz": float("nan")}}, "description cannot be read"),
    "f0 is a word": ({"f0": "yes"}, "description cannot be read"),
    "epoch is a word": ({"epoch": "last"}, "description cannot be read"),
    "version is unknown": ({"version": "v9"}, "version 'v9'"),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_voice_is_one_line_with_a_hint(tmp_path: Path, damage: str) -> None:
    path = tmp_path / "v.pth"
    save_voice(path, _voice())
    content, (change, said) = torch.load(path, weights_only=True), DAMAGES[damage]
    assert {**content, **_config(17, 16000)} == content   # what is damaged here is otherwise a good voice
    torch.save({**content, **change}, path)
    with pytest.raises(WeightsError, match=said) as caught:
        load_voice(path)
    assert "v.pth" in str(caught.value) and caught.value.hint and "\n" not in str(caught.value)


@pytest.mark.parametrize("content", [b"", b"x", b"\x80", b"]", b"PK\x03\x04", b"not a voice", b"\x80\x02}q\x00."])
def test_what_torch_cannot_read_is_called_so(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "v.pth").write_bytes(content)
    with pytest.raises(WeightsError, match="is not a torch file, or is truncated|is not a voice") as caught:
        load_voice(tmp_path / "v.pth")
    assert caught.value.hint


def test_a_file_that_would_run_code_is_not_opened(tmp_path: Path) -> None:
    torch.save({"weight": _Harmful(), "config": []}, tmp_path / "v.pth")
    with pytest.raises(UnsafeFileError, match=r"v\.pth asks for posix\.system"):
        load_voice(tmp_path / "v.pth")


def test_a_rate_written_as_a_word_is_read_as_rvc_reads_it(tmp_path: Path) -> None:
    spec = preset("v2-40k")
    few = {"enc_p.emb_phone.weight": torch.zeros(spec.hidden_channels, spec.content_width),
           "emb_g.weight": torch.zeros(spec.speakers, spec.speaker_channels)}
    if spec.source_filter_channels:
        few["dec.pitch.bias"] = torch.zeros(spec.source_filter_channels)
    save_voice(tmp_path / "v.pth", VoiceFile(spec, few, VoiceInfo("a")))
    content = torch.load(tmp_path / "v.pth", weights_only=True)
    torch.save({**content, "config": [*content["config"][:17], "40k"]}, tmp_path / "v.pth")
    assert load_voice(tmp_path / "v.pth").spec == spec
