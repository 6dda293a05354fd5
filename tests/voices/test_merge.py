"""Merged voices, changed labels, and voices out of checkpoints: against the arithmetic and the trainer's own voices."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

import tiny as tiny_voices
from rvc_core.embedded import BASE_GENERATOR_FILE
from rvc_core.errors import CheckpointError, MismatchError, SettingsError, WeightsError
from rvc_core.features.retrieval import FeatureIndex
from rvc_core.nn.layers import Blueprint
from rvc_core.nn.synthesizer import Synthesizer
from rvc_core.presets import PRESETS, VoiceSpec, preset
from rvc_core.settings import TrainSettings
from rvc_core.training.train import train
from rvc_core.voice import Voice
from rvc_core.voices.library import find_index, publish, save_index
from rvc_core.voices.merge import annotate, extract_voice, merge_voices
from rvc_core.workspace import stamps
from rvc_core.workspace.layout import Layout
from rvc_core.workspace.rvc_config import spec_of_generator
from rvc_core.workspace.voice_file import VoiceFile, VoiceInfo, load_voice, save_voice
from tiny import TINY

INFO = VoiceInfo("alice", 60, 120, "embedded", "abc", 100.0)
RVC = replace(TINY, version="v2", content_width=768, source_filter_channels=0)


def _voice(home: Path, info: VoiceInfo = INFO, spec: VoiceSpec = TINY, *, seed: int = 0, indexed: bool = True) -> Path:
    torch.manual_seed(seed)
    layout = Layout.of(info.name, home)
    voice = VoiceFile(spec, Synthesizer(spec).state_dict(), info)
    save_voice(layout.final_voice, voice)
    if indexed:
        features = np.random.default_rng(seed).standard_normal((60 + 40 * seed, spec.content_width), np.float32)
        save_index(layout, FeatureIndex.build(features), voice)
    return layout.final_voice


# -- merging -------------------------------------------------------------------------------------------------------
def test_a_merged_voice_is_the_weighted_sum_and_says_of_what(tiny: None, tmp_path: Path) -> None:
    first = _voice(tmp_path)
    bob = replace(INFO, name="bob", epoch=0, note="by hand", f0_median_hz=400.0, content_identity="", author="Bob")
    second = _voice(tmp_path, bob, replace(TINY, speakers=2), seed=1)
    made = merge_voices(first, second, Layout.of("both", tmp_path), alpha=0.25)
    one, other, both = load_voice(first), load_voice(second), load_voice(Path(made.path))
    for key, value in both.weights.items():
        rows = slice(2) if key == "emb_g.weight" else slice(None)
        wanted = 0.25 * one.weights[key][rows].double() + 0.75 * other.weights[key][rows].double()
        assert torch.allclose(value.double(), wanted, rtol=1e-3, atol=1e-6), key
    assert both.spec == replace(TINY, speakers=2)
    assert both.info == replace(
        INFO,
        name="both",
        epoch=0,
        step=0,
        created=both.info.created,
        author="Bob",
        note="0.25 alice (60 epochs) + 0.75 bob (by hand)",
        f0_median_hz=pytest.approx(100**0.25 * 400**0.75),
    )
    assert torch.load(made.path, weights_only=True)["info"] == both.info.note
    index = FeatureIndex.load(Path(made.index))
    assert index.vectors == 160 and find_index(Path(made.path), both)[0] == Path(made.index)
    alone = FeatureIndex.load(find_index(first, one)[0]).features
    assert np.allclose(index.mix(alone[:5], 1.0), alone[:5], atol=1e-4)  # the features of either are in it


@pytest.mark.parametrize(("alpha", "whole"), [(0.0, 1), (1.0, 0)])
def test_at_its_ends_merging_gives_one_of_the_two(tiny: None, tmp_path: Path, alpha: float, whole: int) -> None:
    paths = [_voice(tmp_path, indexed=False), _voice(tmp_path, replace(INFO, name="bob"), seed=1)]
    made = merge_voices(*paths, Layout.of("both", tmp_path), alpha=alpha)
    wanted = load_voice(paths[whole]).weights
    assert all(torch.equal(value, wanted[key]) for key, value in load_voice(Path(made.path)).weights.items())
    assert made.index == "" and "only one of the voices has one" in made.warnings[0]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"spec": RVC}, "version is nano in the first, v2 in the second"),
        ({"spec": replace(TINY, hidden_channels=32)}, "hidden_channels is 16 in the first, 32"),
        ({"info": replace(INFO, name="bob", content_identity="xyz")}, "different content encoders .embedded abc and"),
        ({"info": replace(INFO, name="bob", content_name="spin")}, "different content encoders"),
    ],
)
def test_what_does_not_go_together_is_not_merged(tiny: None, tmp_path: Path, change: dict, said: str) -> None:
    first = _voice(tmp_path)
    second = _voice(tmp_path, **({"info": replace(INFO, name="bob")} | change), seed=1)
    with pytest.raises(MismatchError, match=said):
        merge_voices(first, second, Layout.of("both", tmp_path))
    assert sorted(path.name for path in (tmp_path / "logs").iterdir()) == ["alice", "bob"]


@pytest.mark.parametrize("alpha", [-0.1, 1.1, float("nan")])
def test_alpha_is_a_share(tiny: None, tmp_path: Path, alpha: float) -> None:
    with pytest.raises(SettingsError, match="is out of range"):
        merge_voices(_voice(tmp_path), _voice(tmp_path), Layout.of("c", tmp_path), alpha=alpha)


def test_a_new_voice_takes_nobodys_place_and_appears_whole(tiny: None, tmp_path: Path) -> None:
    path = _voice(tmp_path)
    before = path.read_bytes()
    with pytest.raises(SettingsError, match="'alice' already exists"):
        merge_voices(path, path, Layout.of("alice", tmp_path))
    silent = load_voice(path)
    for key in ("dec.filters.weight", "dec.filters.bias"):
        silent.weights[key] = torch.full_like(silent.weights[key], -100.0 if key.endswith("bias") else 0.0)

    def fill(staged: Layout) -> list[str]:
        save_voice(staged.final_voice, silent)
        return []

    with pytest.raises(WeightsError, match="produces no sound"):
        publish(Layout.of("new", tmp_path), fill)
    assert [item.name for item in (tmp_path / "logs").iterdir()] == ["alice"] and path.read_bytes() == before


# -- labels --------------------------------------------------------------------------------------------------------
def test_a_label_changes_and_nothing_else(tiny: None, tmp_path: Path) -> None:
    path = _voice(tmp_path)
    before = load_voice(path)
    made = annotate(path, note="sings, does not speak", name="Алиса", author="me")
    after = load_voice(path)
    assert after.info == replace(before.info, note="sings, does not speak", name="Алиса", author="me")
    assert after.spec == before.spec
    assert all(torch.equal(value, before.weights[key]) for key, value in after.weights.items())
    assert made.index and FeatureIndex.load(Path(made.index)).note["name"] == "Алиса"  # or it would be lost
    assert load_voice(path).info.epoch == 60
    with pytest.raises(SettingsError, match="nothing to change"):
        annotate(path)
    annotate(path, note=7, name=2024, author=1.5)
    numbered = load_voice(path).info
    assert (numbered.note, numbered.name, numbered.author) == ("7", "2024", "1.5")


def test_rvcs_own_label_is_the_number_of_epochs(tiny: None, tmp_path: Path) -> None:
    path = _voice(tmp_path)
    content = torch.load(path, weights_only=True)
    rvc = {key: content[key] for key in ("weight", "config", "info", "sr", "f0", "version")}
    torch.save(rvc, path)
    assert load_voice(path).info.epoch == 60 and load_voice(path).info.note == ""
    torch.save(rvc | {"info": "trained by hand"}, path)
    assert load_voice(path).info.note == "trained by hand"


# -- checkpoints ---------------------------------------------------------------------------------------------------
def test_a_checkpoint_gives_the_voice_that_training_saved(tiny: None, tmp_path: Path) -> None:
    layout = tiny_voices.experiment(tmp_path, "Tiny one")
    train(layout, TrainSettings(epochs=1, batch_size=3, base_generator="none", base_discriminator="none"))
    saved = load_voice(layout.voices()[0])
    layout.voices()[0].unlink()
    made = extract_voice(layout.generator(2))
    again = load_voice(Path(made.path))
    assert Path(made.path) == layout.voice(1, 2) and again.spec == saved.spec
    assert again.info == replace(saved.info, created=again.info.created, mel_epsilons="")
    assert again.info.content_identity == "tiny" and again.info.f0_median_hz > 50
    assert again.weights.keys() == saved.weights.keys()
    assert all(torch.equal(value, saved.weights[key]) for key, value in again.weights.items())


@pytest.mark.parametrize("name", PRESETS)
@pytest.mark.parametrize("uses_f0", [True, False])
def test_the_architecture_of_strangers_is_in_their_weights(name: str, uses_f0: bool) -> None:
    spec = replace(preset(name, uses_f0=uses_f0), speakers=3)
    with Blueprint():
        weights = Synthesizer(spec).state_dict()
    assert spec_of_generator(weights, "G_1.pth") == (name, spec)
    weights["emb_g.weight"] = torch.zeros(())
    with pytest.raises(MismatchError, match="unsupported architecture"):
        spec_of_generator(weights, "G_1.pth")


def test_a_base_model_gives_a_voice_by_its_file_name(tmp_path: Path) -> None:
    made = extract_voice(BASE_GENERATOR_FILE, tmp_path / "base.pth", name="base")
    assert Voice.load(made.path, None).name == "base" and made.architecture == "nano, 16k, with pitch"


def test_other_files_give_no_voice(tiny: None, tmp_path: Path) -> None:
    voice = _voice(tmp_path)
    torch.save({"model": {"discriminators.0.bias": torch.zeros(2)}, "iteration": 1}, tmp_path / "D_1.pth")
    torch.save({"model": Synthesizer(replace(TINY, hidden_channels=32)).state_dict()}, tmp_path / "G_1.pth")
    torch.save([1], tmp_path / "x.pth")
    for path, error, said in (
        (voice, CheckpointError, "is already a voice"),
        (tmp_path / "x.pth", CheckpointError, "is not a training checkpoint"),
        (tmp_path / "D_1.pth", CheckpointError, "is a discriminator"),
        (tmp_path / "G_1.pth", MismatchError, "unsupported architecture"),
    ):
        with pytest.raises(error, match=said):
            extract_voice(path, tmp_path / "out.pth")
    assert not (tmp_path / "out.pth").exists() and stamps.content_of(Layout(tmp_path, "x"), "content") == {}
