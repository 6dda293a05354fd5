"""Voice files: RVC's form on the disk, strict reading, and errors that say what a file is."""

import os
from collections import OrderedDict
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch.nn.utils.parametrizations import weight_norm

from rvc_core.errors import CheckpointError, MismatchError, UnsafeFileError, WeightsError
from rvc_core.nn.synthesizer import SynthesisNoise, Synthesizer
from rvc_core.presets import PRESETS, VoiceSpec, preset
from rvc_core.workspace.voice_file import VoiceFile, VoiceInfo, load_voice, save_voice, synthesizer_of
from tiny import TINY

RVC_V2_48K_CONFIG = [
    1025,
    32,
    192,
    192,
    768,
    2,
    6,
    3,
    0,
    "1",
    [3, 7, 11],
    [[1, 3, 5], [1, 3, 5], [1, 3, 5]],
    [12, 10, 2, 2],
    512,
    [24, 20, 4, 4],
    109,
    256,
    48000,
]  # RVC WebUI configs/v2/48k.json


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


def _small(spec: VoiceSpec) -> VoiceSpec:
    """The same kind of voice, small enough to be written in a moment."""
    return replace(
        spec,
        inter_channels=16,
        hidden_channels=16,
        filter_channels=32,
        layers=1,
        upsample_channels=32,
        source_filter_channels=32 if spec.source_filter_channels and spec.uses_f0 else 0,
        resblock_kernels=(3,),
        resblock_dilations=((1, 3, 5),),
        speaker_channels=8,
        speakers=4,
    )


def _sound(voice: VoiceFile, frames: int = 12) -> torch.Tensor:
    """What a voice says to fixed features, pitch and noise."""
    generator = torch.Generator().manual_seed(1)
    noise = SynthesisNoise.draw(voice.spec, frames, generator=generator)
    content = torch.randn(1, frames, voice.spec.content_width, generator=generator)
    pitch = (torch.full((1, frames), 60), torch.full((1, frames), 200.0)) if voice.spec.uses_f0 else (None, None)
    return synthesizer_of(voice).infer(content, *pitch, torch.tensor([0]), noise=noise)


def _round_trip(spec: VoiceSpec, path: Path) -> None:
    torch.manual_seed(3)
    weights = Synthesizer(spec, with_posterior=False).state_dict()
    weights = {key: value.half().float() for key, value in weights.items()}
    halved = VoiceFile(spec, weights, VoiceInfo("a", author="Bob"))
    save_voice(path, halved)
    again = load_voice(path)
    assert again.spec == spec and again.info == halved.info
    assert torch.equal(_sound(again), _sound(halved))


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
@pytest.mark.parametrize("uses_f0", [True, False])
@pytest.mark.parametrize("name", PRESETS)
def test_every_kind_of_voice_sounds_the_same_after_a_round_trip(
    name: str, uses_f0: bool, suffix: str, tmp_path: Path
) -> None:
    _round_trip(_small(preset(name, uses_f0=uses_f0)), tmp_path / f"v{suffix}")


@pytest.mark.slow
@pytest.mark.parametrize("uses_f0", [True, False])
@pytest.mark.parametrize("name", [name for name in PRESETS if not name.startswith("nano")])
def test_every_voice_of_full_size_sounds_the_same_after_a_round_trip(name: str, uses_f0: bool, tmp_path: Path) -> None:
    _round_trip(preset(name, uses_f0=uses_f0), tmp_path / "v.pth")


@pytest.mark.parametrize("uses_f0", [True, False])
@pytest.mark.parametrize("name", ["v1-32k", "v1-40k", "v1-48k", "v2-32k", "v2-40k", "v2-48k"])
def test_a_voice_has_exactly_the_keys_of_rvcs(name: str, uses_f0: bool, tmp_path: Path) -> None:
    """Against the counts of keys and numbers in RVC WebUI's own networks without `enc_q`."""
    keys, numbers = {
        "v1-40k": (457, 27_439_042),
        "v1-32k": (516, 27_471_170),
        "v1-48k": (516, 27_479_362),
        "v2-32k": (457, 28_057_538),
        "v2-40k": (457, 27_537_346),
        "v2-48k": (457, 28_716_994),
    }[name]
    with torch.device("meta"):
        weights = Synthesizer(preset(name, uses_f0=uses_f0), with_posterior=False).state_dict()
    if uses_f0:
        assert (len(weights), sum(value.numel() for value in weights.values())) == (keys, numbers)
    else:
        assert len(weights) == keys - {4: 11, 5: 13}[len(preset(name).upsample_rates)]


# -- dialects ------------------------------------------------------------------------------------------------------
def _stranger(tmp_path: Path, name: str, *, uses_f0: bool = True, **change: object) -> Path:
    """A file as another program writes it: RVC's six keys, of which `change` replaces some and None removes them."""
    torch.manual_seed(3)
    spec = _small(preset(name, uses_f0=uses_f0))
    weights = {key: value.half() for key, value in Synthesizer(spec, with_posterior=False).state_dict().items()}
    config = [
        spec.spectrogram_bins,
        32,
        16,
        16,
        32,
        2,
        1,
        3,
        0,
        "1",
        [3],
        [[1, 3, 5]],
        list(spec.upsample_rates),
        32,
        list(spec.upsample_kernels),
        4,
        8,
        spec.sample_rate,
    ]
    content = {
        "weight": weights,
        "config": config,
        "info": "20epoch",
        "sr": spec.rate_name,
        "f0": int(uses_f0),
        "version": spec.version,
    } | change
    torch.save(OrderedDict((key, value) for key, value in content.items() if value is not None), tmp_path / "s.pth")
    return tmp_path / "s.pth"


@pytest.mark.parametrize("uses_f0", [True, False])
@pytest.mark.parametrize("name", ["v1-40k", "v2-48k"])
def test_a_file_without_version_and_f0_is_known_by_its_weights(name: str, uses_f0: bool, tmp_path: Path) -> None:
    voice = load_voice(_stranger(tmp_path, name, uses_f0=uses_f0, version=None, f0=None, info=None, sr=None))
    assert voice.spec == _small(preset(name, uses_f0=uses_f0)) and voice.info.name == "s" and voice.info.epoch == 0


def test_applios_file_is_read_with_all_that_it_tells(tmp_path: Path) -> None:
    path = _stranger(
        tmp_path,
        "v2-40k",
        info=None,
        sr=40000,
        f0=True,
        epoch=120,
        step=4800,
        author="Bob",
        speakers_id=1,
        creation_date="2026-01-02T03:04:05",
        model_hash="0" * 64,
        dataset_length="00:12:34",
        model_name="alice",
        embedder_model="contentvec",
        vocoder="HiFi-GAN",
        overtrain_info={"loss": [1.0, 2.0]},
    )
    info = load_voice(path).info
    assert (info.name, info.epoch, info.step, info.author) == ("alice", 120, 4800, "Bob")
    assert (info.content_name, info.dataset_length, info.created) == ("contentvec", "00:12:34", "2026-01-02T03:04:05")


def test_both_spellings_of_weight_norm_are_one_voice(tmp_path: Path) -> None:
    """PyTorch's own parametrisation names the keys: its layer, in the place of ours, must sound the same."""
    voice = load_voice(_stranger(tmp_path, "v2-40k"))
    normalised = weight_norm(torch.nn.Conv1d(4, 4, 3))
    spelling = {"weight_g": "parametrizations.weight.original0", "weight_v": "parametrizations.weight.original1"}
    assert {"bias", *spelling.values()} == set(normalised.state_dict())
    normalised.load_state_dict(
        {
            "bias": torch.zeros(4),
            spelling["weight_g"]: torch.ones(4, 1, 1),
            spelling["weight_v"]: torch.full((4, 4, 3), 5.0),
        }
    )  # the first is the length
    assert normalised.weight.square().sum((1, 2)).allclose(torch.ones(4))
    foreign = {
        ".".join([*key.split(".")[:-1], spelling.get(key.split(".")[-1], key.split(".")[-1])]): value
        for key, value in voice.weights.items()
    }
    assert foreign.keys() != voice.weights.keys()
    again = load_voice(_stranger(tmp_path, "v2-40k", weight=foreign))
    assert torch.equal(_sound(again), _sound(voice))


def test_the_speaker_table_decides_and_not_the_list(tmp_path: Path) -> None:
    path = _stranger(tmp_path, "v2-40k")
    content = torch.load(path, weights_only=True)
    content["config"][-3] = 109
    torch.save(content, path)
    assert load_voice(path).spec.speakers == 4


def test_a_posterior_left_in_the_file_is_left_out(tmp_path: Path) -> None:
    spec = _small(preset("v2-40k"))
    voice = load_voice(_stranger(tmp_path, "v2-40k", weight=Synthesizer(spec).half().state_dict()))
    assert not [key for key in voice.weights if key.startswith("enc_q.")]


def test_applio_finds_its_keys_in_our_file(tmp_path: Path) -> None:
    torch.manual_seed(3)
    spec = _small(preset("v2-40k"))
    save_voice(
        tmp_path / "v.pth",
        VoiceFile(
            spec,
            Synthesizer(spec).state_dict(),
            VoiceInfo("alice", 60, 120, "contentvec", author="Bob", dataset_length="00:12:34"),
        ),
    )
    content = torch.load(tmp_path / "v.pth", weights_only=True)
    assert {
        key: content[key]
        for key in ("model_name", "epoch", "step", "embedder_model", "vocoder", "author", "dataset_length")
    } == {
        "model_name": "alice",
        "epoch": 60,
        "step": 120,
        "embedder_model": "contentvec",
        "vocoder": "HiFi-GAN",
        "author": "Bob",
        "dataset_length": "00:12:34",
    }


@pytest.mark.parametrize(
    ("name", "change", "said"),
    [
        ("v1-40k", {"version": "v2"}, "says v2 with f0, but its weights take 256 features"),
        ("v2-40k", {"version": "v1"}, "says v1 with f0, but its weights take 768 features"),
        ("v2-40k", {"f0": 0}, "says v2 without f0"),
        ("v2-40k", {"vocoder": "MRF HiFi-GAN"}, "vocoder MRF HiFi-GAN"),
    ],
)
def test_a_file_that_contradicts_itself_is_an_error(
    tmp_path: Path, name: str, change: dict[str, object], said: str
) -> None:
    with pytest.raises(MismatchError, match=said):
        load_voice(_stranger(tmp_path, name, **change))


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
    config: list[object] = [
        513,
        32,
        16,
        16,
        32,
        2,
        1,
        3,
        0,
        "1",
        [3],
        [[1, 3, 5]],
        [10, 4, 4],
        32,
        [20, 8, 8],
        4,
        8,
        16000,
    ]
    config[position] = value
    return {"config": config}


DAMAGES: dict[str, tuple[dict[str, object], str]] = {
    "config is None": ({"config": None}, "does not describe"),
    "config is short": ({"config": [513, 32, 16]}, "does not describe"),
    "a size is a word": (_config(2, "wide"), "'wide' is not a size"),
    "a size is beyond any memory": (_config(13, 10**9), "1000000000 is not a size"),
    "kernels are no list": (_config(14, 7), "7 is not a list of sizes"),
    "dilations are no lists": (_config(11, [1, 3]), "does not describe"),
    "the rate is a word": (_config(17, "fast"), "does not describe"),
    "the rate is a list": (_config(17, [16000]), "does not describe"),
    "the rate is not that of the network": (_config(17, 40000), "contradict"),
    "fewer kernels than rates": (_config(14, [20, 8]), "contradict"),
    "weight is a list": ({"weight": [torch.zeros(2)]}, "not a table of tensors"),
    "weight holds a number": ({"weight": {"emb_g.weight": 3}}, "not a table of tensors"),
    "weight is empty": ({"weight": {}}, "does not describe"),
    "weight has other dimensions": ({"weight": {"enc_p.emb_phone.weight": torch.zeros(3)}}, "does not describe"),
    "a weight is not finite": ({"weight": {"emb_g.weight": torch.tensor([[torch.nan]])}}, "not finite, first emb_g"),
    "rvc_core is a word": ({"rvc_core": "ours"}, "description is invalid"),
    "the median is not a number": ({"rvc_core": {"f0_median_hz": float("nan")}}, "description is invalid"),
    "f0 is a word": ({"f0": "yes"}, "description is invalid"),
    "epoch is a word": ({"epoch": "last"}, "description is invalid"),
    "version is unknown": ({"version": "v9"}, "version 'v9'"),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_voice_is_one_line_with_a_hint(tmp_path: Path, damage: str) -> None:
    path = tmp_path / "v.pth"
    save_voice(path, _voice())
    content, (change, said) = torch.load(path, weights_only=True), DAMAGES[damage]
    assert {**content, **_config(17, 16000)} == content  # what is damaged here is otherwise a good voice
    torch.save({**content, **change}, path)
    with pytest.raises(WeightsError, match=said) as caught:
        load_voice(path)
    assert "v.pth" in str(caught.value) and caught.value.hint and "\n" not in str(caught.value)


@pytest.mark.parametrize("content", [b"", b"x", b"\x80", b"]", b"PK\x03\x04", b"not a voice", b"\x80\x02}q\x00."])
def test_what_torch_cannot_read_is_called_so(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "v.pth").write_bytes(content)
    with pytest.raises(WeightsError, match="v.pth (is|holds) ") as caught:
        load_voice(tmp_path / "v.pth")
    assert caught.value.hint


def test_a_file_that_would_run_code_is_not_opened(tmp_path: Path) -> None:
    torch.save({"weight": _Harmful(), "config": []}, tmp_path / "v.pth")
    with pytest.raises(UnsafeFileError, match=r"v\.pth would call posix\.system"):
        load_voice(tmp_path / "v.pth")


def test_a_rate_written_as_a_word_is_read_as_rvc_reads_it(tmp_path: Path) -> None:
    path = _stranger(tmp_path, "v2-40k")
    content = torch.load(path, weights_only=True)
    torch.save({**content, "config": [*content["config"][:17], "40k"]}, path)
    assert load_voice(path).spec == _small(preset("v2-40k"))
