"""Two processes at one stage of one experiment: one works, the other says who does, and nothing is lost."""

import importlib
import multiprocessing
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rvc_core.audio.waveform import Audio
from rvc_core.errors import ResourceError, RVCError, StageOrderError, StorageError
from rvc_core.features.pitch import PitchTrack
from rvc_core.features.retrieval import FeatureIndex
from rvc_core.preparation import extract as extraction
from rvc_core.preparation.build_index import build_index
from rvc_core.preparation.extract import extract
from rvc_core.preparation.identity import begin_again
from rvc_core.preparation.prepare import prepare
from rvc_core.settings import PrepareSettings, RuntimeSettings, TrainSettings
from rvc_core.storage.places import restore
from rvc_core.system import locks
from rvc_core.system.locks import hold, holder
from rvc_core.training import detached
from rvc_core.training.train import train
from rvc_core.workspace import stage_locks
from rvc_core.workspace.checkpoint import load_newest
from rvc_core.workspace.filelist import read_filelist
from rvc_core.workspace.layout import Layout
from rvc_core.workspace.manifest import Manifest
from rvc_core.workspace.stage_locks import at_work, working
from synth import phrase
from trained import tree

for _name in ("torch._dynamo", "torch.utils.tensorboard", "torchfcpe"):  # or each forked process imports them again
    importlib.import_module(_name)
FORK = multiprocessing.get_context("fork")
SETTINGS = TrainSettings.of(epochs=1, batch_size=2, base_generator="none", base_discriminator="none")
STAGES: dict[str, tuple[Callable[[Layout], Any], Callable[[Layout], object]]] = {
    "prepare": (
        lambda one: prepare(one, one.root.parents[1] / "takes", PrepareSettings(preset="nano")),
        lambda one: all((one.clips / f"{clip.id}.wav").is_file() for clip in Manifest.load(one).training),
    ),
    "extract": (extract, lambda one: all(row.features.is_file() for row in read_filelist(one.filelist))),
    "index": (build_index, lambda one: FeatureIndex.load(one.indexes()[0]).vectors),
    "train": (lambda one: train(one, SETTINGS, runtime=RuntimeSettings(device="cpu")), load_newest),
}


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch, tiny: None) -> None:
    """Features from a formula, and time for two to meet."""
    check = stage_locks.refuse_links
    monkeypatch.setattr(stage_locks, "refuse_links", lambda folder: (time.sleep(0.2), check(folder)))
    monkeypatch.setattr(extraction, "content_identity", lambda name, width: "formula")
    monkeypatch.setattr(
        extraction,
        "content_encoder",
        lambda name, width, device: lambda it: np.ones((len(it) // 320, width), np.float32),
    )

    def pitch(samples: np.ndarray) -> PitchTrack:
        frames = len(samples) // 160
        return PitchTrack(np.full(frames, 200, np.float32), np.ones(frames, bool))

    monkeypatch.setattr(extraction, "pitch_estimator", lambda *_: pitch)


def _work(stage: str, layout: Layout, ready: Any, answers: Any) -> None:
    ready.wait()
    try:
        STAGES[stage][0](layout)
    except RVCError as error:
        answers.put((os.getpid(), type(error).__name__, str(error)))
    else:
        answers.put((os.getpid(), "done", ""))


def two_at_once(stage: str, layout: Layout) -> None:
    """Let two processes do the same; check what each says, and what is there."""
    ready, answers = FORK.Barrier(2), FORK.Queue()
    both = [FORK.Process(target=_work, args=(stage, layout, ready, answers)) for _ in range(2)]
    for process in both:
        process.start()
    said = {how: (process, text) for process, how, text in (answers.get(timeout=60) for _ in both)}
    for process in both:
        process.join()
    assert said.keys() == {"done", "ResourceError"}, said
    assert f"by process {said['done'][0]} on " in said["ResourceError"][1] and not at_work(layout)
    assert STAGES[stage][1](layout)


def test_what_disturbs_a_stage_waits_for_it(quick: None, tmp_path: Path) -> None:
    Audio(phrase(1, seconds=1.5).samples, 16000).save(tmp_path / "takes" / "1.wav")
    layout = Layout.of("alice", tmp_path)
    for stage in ("prepare", "extract", "index"):
        STAGES[stage][0](layout)
    before = tree(layout.root)
    with working(layout, "train"):
        for stage in ("prepare", "extract", "index"):  # all up to date: nothing is disturbed
            assert STAGES[stage][0](layout).as_json()
        with pytest.raises(ResourceError, match="is being trained by process"):
            prepare(layout, tmp_path / "takes", PrepareSettings(preset="nano", silence_db=-50))
        with pytest.raises(StageOrderError, match="is being trained by process"):
            begin_again(layout)
    with working(layout, "prepare"):
        for use in (build_index, lambda one: train(one, SETTINGS), lambda one: detached.start(one, SETTINGS)):
            layout.stamp("index").unlink(missing_ok=True)
            with pytest.raises(ResourceError, match="is being prepared by process"):
                use(layout)
        with pytest.raises(StorageError, match="is being prepared by process"):
            restore("alice", str(tmp_path / "place"), root=tmp_path)
    assert tree(layout.root).keys() == before.keys() - {"stamps/index.json"} | {"train.lock"}


@pytest.mark.parametrize("rounds", [1, pytest.param(20, marks=pytest.mark.slow)])
def test_two_at_every_stage(rounds: int, quick: None, tmp_path: Path) -> None:
    for number in range(3):
        Audio(phrase(number, seconds=1.5).samples, 16000).save(tmp_path / "takes" / f"{number}.wav")
    for number in range(rounds):
        layout = Layout.of(f"voice {number}", tmp_path)
        layout.root.mkdir(parents=True)
        for stage in STAGES:
            two_at_once(stage, layout)


def test_a_lock_ends_with_its_process(tmp_path: Path) -> None:
    ready = FORK.Barrier(2)

    def keep() -> None:
        with hold(tmp_path / "lock", "it is done", "wait"):
            ready.wait()
            time.sleep(60)

    process = FORK.Process(target=keep)
    process.start()
    ready.wait()
    assert f"process {process.pid} on " in holder(tmp_path / "lock")
    process.kill()
    process.join()
    assert holder(tmp_path / "lock") == "" == holder(tmp_path / "none")
    with hold(tmp_path / "lock", "it is done", "wait"):
        pass


def test_storage_without_locks_is_named_and_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(file: Any, how: int) -> None:
        raise OSError(95, "Operation not supported")

    monkeypatch.setattr(locks.fcntl, "flock", refuse)
    with hold(tmp_path / "lock", "it is done", "wait"):
        assert "cannot lock files (" in caplog.text and "do not run two commands" in caplog.text
