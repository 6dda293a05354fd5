"""A voice is its recordings: others under its name are refused, with both remedies; more of them are welcome."""

import shutil
from pathlib import Path

import pytest

from rvc_core.audio.waveform import Audio
from rvc_core.cli import main
from rvc_core.embedded import voice_folder
from rvc_core.errors import DatasetError, StageOrderError
from rvc_core.experiment import Experiment
from rvc_core.preparation.identity import begin_again, times_begun
from rvc_core.preparation.prepare import prepare
from rvc_core.settings import PrepareSettings
from rvc_core.system.files import sha256_of
from rvc_core.workspace.layout import Layout
from rvc_core.workspace.manifest import ExperimentRecord, Manifest
from synth import phrase

NANO = PrepareSettings.of(preset="nano")


def _record(folder: Path, *seeds: int) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for seed in seeds:
        Audio(phrase(seed, seconds=3).samples, 16_000).save(folder / f"{seed}.wav")
    return folder


@pytest.fixture
def trained(tmp_path: Path) -> Layout:
    """An experiment of the recordings 1 and 2 that looks trained."""
    layout = Layout.of("alice", tmp_path / "home")
    prepare(layout, _record(tmp_path / "alice", 1, 2), NANO)
    layout.generator(3).write_bytes(b"G")
    layout.final_voice.write_bytes(b"voice")
    return layout


def _tree(layout: Layout) -> dict[str, str]:
    return {str(path.relative_to(layout.root)): sha256_of(path) for path in layout.root.rglob("*") if path.is_file()}


def test_other_recordings_are_refused_and_nothing_is_changed(trained: Layout, tmp_path: Path) -> None:
    before = _tree(trained)
    with pytest.raises(DatasetError, match="trained on other recordings") as caught:
        prepare(trained, _record(tmp_path / "bob", 7, 8), NANO)
    assert "new name" in caught.value.hint and "--begin-again" in caught.value.hint
    assert _tree(trained) == before


@pytest.mark.parametrize("change", ["more", "fewer", "renamed", "copied", "moved", "touched"])
def test_the_same_persons_recordings_go_on(trained: Layout, tmp_path: Path, change: str) -> None:
    folder = tmp_path / "alice"
    if change == "more":
        _record(folder, 3)
    elif change == "fewer":
        (folder / "1.wav").unlink()
    elif change == "renamed":
        for path in list(folder.iterdir()):
            path.rename(path.with_name(f"take {path.name}"))
    elif change == "touched":
        (folder / "1.wav").touch()
    else:
        place = shutil.copytree if change == "copied" else shutil.move
        place(folder, folder := tmp_path / "elsewhere" / "zoë")
    prepare(trained, folder, NANO)
    assert trained.generator(3).exists() and Path(ExperimentRecord.load(trained).dataset) == folder


def test_before_anything_is_trained_recordings_may_be_replaced(tmp_path: Path) -> None:
    layout = Layout.of("alice", tmp_path / "home")
    prepare(layout, _record(tmp_path / "wrong", 1), NANO)
    prepare(layout, _record(tmp_path / "right", 2), NANO)
    assert {clip.recording for clip in Manifest.load(layout).clips} == {"2.wav"}


def test_an_imported_voice_is_not_trained_over(tmp_path: Path) -> None:
    layout = Layout.of("alice", tmp_path / "home")
    layout.root.mkdir(parents=True)
    layout.final_voice.write_bytes(b"somebody's voice")
    with pytest.raises(DatasetError, match="not trained here"):
        prepare(layout, _record(tmp_path / "bob", 7), NANO)
    assert layout.final_voice.read_bytes() == b"somebody's voice"


def test_beginning_again_loses_nothing_and_counts(trained: Layout, tmp_path: Path) -> None:
    before = _tree(trained)
    aside = Experiment(trained).begin_again()
    assert _tree(Layout(aside, "alice")) == before and not trained.generator_steps()
    prepare(trained, _record(tmp_path / "bob", 7), NANO)
    assert times_begun(trained) == 1 and begin_again(Layout.of("nobody", tmp_path)) is None
    with trained.lock.open("w") as lock:
        import fcntl

        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(StageOrderError, match="being trained"):
            begin_again(trained)


def test_the_command_line_says_it_in_one_line_with_status_1(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("RVC_HOME", str(tmp_path))
    bob, command = _record(tmp_path / "bob", 7), ["--preset", "nano", "--quiet"]
    assert main(["prepare", "alice", "--dataset", str(voice_folder("source")), *command]) == 0
    Layout.of("alice").generator(3).write_bytes(b"G")
    assert main(["prepare", "alice", "--dataset", str(bob), *command]) == 1
    assert "other recordings" in capsys.readouterr().err
    assert main(["prepare", "alice", "--dataset", str(bob), "--begin-again", *command]) == 0
    assert {clip.recording for clip in Manifest.load(Layout.of("alice")).clips} == {"7.wav"}
