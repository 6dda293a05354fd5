"""Every setting of an experiment, changed after training: it works, or is refused before any file changes."""

import hashlib
import shutil
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from rvc_core import presets
from rvc_core.audio.waveform import Audio
from rvc_core.errors import MismatchError, RVCError
from rvc_core.experiment import Experiment
from rvc_core.settings import (
    ExtractSettings,
    IndexSettings,
    MirrorSettings,
    PrepareSettings,
    RuntimeSettings,
    Settings,
    TrainSettings,
)
from rvc_core.training import detached
from rvc_core.workspace.checkpoint import load_newest
from rvc_core.workspace.layout import Layout
from rvc_core.workspace.stamps import content_of
from synth import phrase
from tiny import TINY

REFUSED = "refused"
OWN: dict[str, dict[str, Any]] = {  # all of them differ from the defaults
    "prepare": {"preset": "nano", "silence_db": -45.0, "min_silence_ms": 300, "holdout_minutes": 0, "seed": 7},
    "extract": {"f0_method": "dio"},
    "index": {"max_vectors": 5000, "seed": 7},
    "train": {
        "epochs": 2,
        "batch_size": 3,
        "mel_epsilons": "2026",
        "learning_rate": 2e-4,
        "base_generator": "none",
        "base_discriminator": "none",
        "unlike": "none",
        "seed": 7,
    },
}
CLASSES: dict[str, type[Settings]] = {
    "prepare": PrepareSettings,
    "extract": ExtractSettings,
    "index": IndexSettings,
    "train": TrainSettings,
    "mirror": MirrorSettings,
    "runtime": RuntimeSettings,
}
CHANGES: list[tuple[str, str, Any, str]] = [  # the stage, its setting, another value, what happens
    ("prepare", "preset", "nano-24k", REFUSED),
    ("prepare", "preset", "v2-40k", REFUSED),
    ("prepare", "uses_f0", False, REFUSED),
    ("prepare", "speakers", "folders", REFUSED),  # these recordings lie in no folder
    ("prepare", "silence_db", -60.0, ""),
    ("prepare", "min_silence_ms", 900, ""),
    ("prepare", "max_kept_silence_ms", 100, ""),
    ("prepare", "holdout_minutes", 0.05, ""),
    ("prepare", "seed", 9, ""),
    ("extract", "f0_method", "harvest", ""),
    ("extract", "f0_method", "crepe", REFUSED),  # without its package
    ("extract", "content", "contentvec", REFUSED),
    ("extract", "content", "auto", ""),
    ("index", "max_vectors", 9000, ""),
    ("index", "reduced_vectors", 200, ""),
    ("index", "seed", 9, ""),
    ("train", "epochs", 4, ""),
    ("train", "groups", "", ""),  # which there are is known after extraction only
    ("train", "batch_size", 2, ""),
    ("train", "batch_size", "auto", ""),
    ("train", "max_minutes", 0.5, ""),
    ("train", "save_every_epochs", 1, ""),
    ("train", "save_every_minutes", 0.5, ""),
    ("train", "validate_every_epochs", 1, ""),
    ("train", "unlike", "auto", ""),
    ("train", "auto_stop", 5, ""),
    ("train", "keep_checkpoints", 1, ""),
    ("train", "keep_voices", 1, ""),
    ("train", "learning_rate", 1e-4, ""),
    ("train", "learning_rate_decay", 0.99, ""),
    ("train", "base_generator", "auto", ""),  # both are for the first step only
    ("train", "base_discriminator", "auto", ""),
    ("train", "precision", "bf16", ""),
    ("train", "mel_epsilons", "2023", REFUSED),
    ("train", "seed", 9, ""),
    ("mirror", "mirror", "none", ""),
    ("mirror", "mirror", "kaggle:alice", REFUSED),
    ("mirror", "mirror_every_minutes", 1, ""),
    ("runtime", "device", "cuda", REFUSED),
    ("runtime", "device", "gpu", REFUSED),
    ("runtime", "gpus", 0, ""),
    ("runtime", "threads", 1, ""),
]


def test_the_table_names_every_setting() -> None:
    every = {(stage, name) for stage, settings in CLASSES.items() for name in settings.model_fields}
    assert {(stage, name) for stage, name, _, _ in CHANGES} == every


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The home of an experiment that was trained for two epochs."""
    home = tmp_path_factory.mktemp("trained")
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(presets.PRESETS, "nano", replace(TINY, content_width=presets.PRESETS["nano"].content_width))
        patch.setenv("CUDA_VISIBLE_DEVICES", "-1")
        (home / "takes").mkdir()
        for number in range(2):
            Audio(phrase(number, seconds=4.0).samples, 16000).save(home / "takes" / f"take {number}.wav")
        _run(home, OWN)
        yield home


@pytest.fixture
def home(trained: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(trained, tmp_path / "copy"))


def _run(home: Path, given: dict[str, dict[str, Any]]) -> dict[str, Any]:
    runtime = RuntimeSettings.of(**given.get("runtime", {}))
    lab = Experiment.open("alice", home / "takes", home=home, runtime=runtime)
    stages = {stage: settings.of(**given.get(stage, {})) for stage, settings in CLASSES.items() if stage != "runtime"}
    return lab.run(**stages)


def _hashes(folder: Path) -> dict[str, str]:
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.suffix != ".lock"
    }


@pytest.mark.parametrize(
    "stage, name, value, outcome",
    [pytest.param(*row, marks=[] if row[3] == REFUSED else [pytest.mark.slow]) for row in CHANGES],
)
def test_a_changed_setting_works_or_changes_no_file(
    stage: str, name: str, value: Any, outcome: str, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    layout = Layout.of("alice", home)
    steps, before = layout.generator_steps()[-1], _hashes(layout.root)
    given: dict[str, dict[str, Any]] = {"train": {"epochs": 3}}
    given[stage] = {**given.get(stage, {}), name: value}
    if outcome == REFUSED:
        monkeypatch.setitem(sys.modules, "torchcrepe", None)
        given["prepare"] = {"silence_db": -60.0, **given.get("prepare", {})}  # what works alone is not begun either
        with pytest.raises(RVCError) as caught:
            _run(home, given)
        assert str(value) in str(caught.value) + caught.value.hint
        assert _hashes(layout.root) == before
        return
    report = _run(home, given)["train"]
    assert report["epochs"] == given["train"]["epochs"] and report["steps"] > steps
    assert report["resumed_from"] == steps


def test_settings_that_are_not_given_stay_through_every_stage(home: Path) -> None:
    layout = Layout.of("alice", home)
    reports = _run(home, {"train": {"epochs": 3}})
    assert reports["prepare"]["skipped"] and not reports["extract"]["done"] and reports["index"]["skipped"]
    checkpoint = load_newest(layout)
    assert checkpoint is not None
    stays = {name: value for name, value in OWN["train"].items() if name != "epochs"}
    assert stays.items() <= checkpoint.state["settings"].items()


def test_they_stay_when_the_stages_are_run_one_by_one(home: Path) -> None:
    """Preparing removes the features, not the memory of how they were made."""
    lab = Experiment.open("alice", home / "takes", home=home)
    lab.prepare(PrepareSettings.of(silence_db=-60))
    lab.extract()
    assert content_of(lab.layout, "f0")["method"] == "dio"
    assert content_of(lab.layout, "content")["name"] == "embedded"
    assert content_of(lab.layout, "prepare")["settings"]["min_silence_ms"] == 300


def test_a_training_in_the_background_is_refused_alike(home: Path) -> None:
    layout = Layout.of("alice", home)
    before = _hashes(layout.root)
    with pytest.raises(MismatchError, match="mel_epsilons 2026, not 2023"):
        detached.start(layout, TrainSettings.of(mel_epsilons="2023"))
    assert _hashes(layout.root) == before
