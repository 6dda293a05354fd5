"""Nothing of an earlier data set enters the next one, and nothing is made again that did not change."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from rvc_core.audio.waveform import Audio, read_audio
from rvc_core.preparation import extract as extracting
from rvc_core.preparation import identity
from rvc_core.preparation.build_index import build_index
from rvc_core.preparation.extract import extract
from rvc_core.preparation.prepare import prepare
from rvc_core.settings import ExtractSettings, IndexSettings, PrepareSettings
from rvc_core.voices.library import is_stale
from rvc_core.workspace.filelist import read_filelist
from rvc_core.workspace.layout import Layout
from rvc_core.workspace.manifest import ExperimentRecord, Manifest
from rvc_core.workspace.stamps import content_of, stamp, stamp_of
from synth import phrase

NANO = PrepareSettings.of(preset="nano", holdout_minutes=0)


def say(path: Path, seed: int, seconds: float = 1.0) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Audio(phrase(seed, seconds=seconds).samples, 16_000).save(path)


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Two speakers' folders with a recording of the same name and length in each."""
    for number, folder in enumerate(("ann", "ben")):
        say(tmp_path / "data" / folder / "a.wav", number)
    return tmp_path / "data"


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    return Layout.of("alice", tmp_path / "home")


@pytest.fixture(autouse=True)
def encoder(monkeypatch: pytest.MonkeyPatch) -> None:
    """Content features that are quick to compute, and of the sound."""

    def encode(samples: np.ndarray) -> np.ndarray:
        return np.repeat(np.lib.stride_tricks.sliding_window_view(samples, 400)[::320].mean(1, keepdims=True), 256, 1)

    monkeypatch.setattr(extracting, "content_encoder", lambda name, width, device: encode)
    monkeypatch.setattr(extracting, "content_identity", lambda name, width: "quick")


def made(layout: Layout, data: Path, settings: PrepareSettings = NANO) -> dict[str, bytes]:
    """Run all stages; every file that training or conversion reads, by its path."""
    prepare(layout, data, settings)
    extract(layout, ExtractSettings(f0_method="dio"))
    build_index(layout, IndexSettings())
    files = [path for path in layout.root.rglob("*") if path.is_file() and path.suffix in (".wav", ".npy", ".index")]
    return {str(path.relative_to(layout.root)): path.read_bytes() for path in sorted(files)}


def replaced_alike(data: Path) -> None:
    """Another recording with the name, the length and the dates of the first, as archives set them."""
    path = data / "ann" / "a.wav"
    before = path.stat()
    say(path, 7)
    assert path.stat().st_size == before.st_size
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def swapped(data: Path) -> None:
    first, second = (data / folder / "a.wav" for folder in ("ann", "ben"))
    dates = (first.stat().st_atime_ns, first.stat().st_mtime_ns)
    for path in (first, second):
        os.utime(path, ns=dates)
    first.rename(data / "x")
    second.rename(first)
    (data / "x").rename(second)


CHANGES: dict[str, Callable[[Path], object]] = {
    "the same name, length and dates, other sound": replaced_alike,
    "two recordings swapped": swapped,
    "a recording removed": lambda data: shutil.rmtree(data / "ann"),
    "a recording added": lambda data: say(data / "ann" / "b.wav", 3),
    "a recording shortened": lambda data: say(data / "ann" / "a.wav", 0, 0.9),
    "a sub-folder renamed": lambda data: (data / "ann").rename(data / "zoe"),
}


@pytest.mark.parametrize(("change", "speakers"), zip(CHANGES, ["one", "folders"] * 3, strict=True))
def test_what_follows_a_change_is_what_a_fresh_experiment_has(
    change: str, speakers: str, data: Path, layout: Layout, tmp_path: Path
) -> None:
    """All clips and features are those of the new data set, to the byte, and no other file is there."""
    settings = NANO.model_copy(update={"speakers": speakers})
    before = made(layout, data, settings)
    stamped = stamp_of(layout, "prepare")
    CHANGES[change](data)
    report = prepare(layout, data, settings)
    assert not report.skipped and stamp_of(layout, "prepare") != stamped
    assert not layout.filelist.exists() and not list(layout.root.glob("3_feature*"))
    assert any("rebuild it with rvc index" in line for line in report.warnings) and is_stale(layout)
    after = made(layout, data, settings)
    fresh = made(Layout.of("fresh", tmp_path / "home"), data, settings)
    named = {name.replace("fresh", "alice"): content for name, content in fresh.items()}
    assert after.keys() == named.keys() and after != before
    assert {name for name in after if after[name] != named[name] and not name.endswith(".index")} == set()
    clips = {path.name for path in layout.clips.iterdir()}
    assert {file.wave.name for file in read_filelist(layout.filelist)} - {"mute16k.wav"} == clips
    assert len(layout.indexes()) == 1 and not is_stale(layout)


UNCHANGED: dict[str, Callable[[Path], object]] = {
    "nothing": lambda data: None,
    "touched": lambda data: (data / "ann" / "a.wav").touch(),
    "its rights": lambda data: (data / "ann" / "a.wav").chmod(0o600),
    "copied": lambda data: shutil.move(shutil.copytree(data, data.parent / "copy"), data.parent / "moved"),
}


@pytest.mark.parametrize("change", UNCHANGED)
def test_what_changes_no_sound_makes_nothing_again(change: str, data: Path, layout: Layout) -> None:
    made(layout, data)
    stamps = {stage: stamp_of(layout, stage) for stage in ("prepare", "f0", "content", "index")}
    UNCHANGED[change](data)
    place = data.parent / "moved" if change == "copied" else data
    assert prepare(layout, place, NANO).skipped
    assert extract(layout, ExtractSettings(f0_method="dio")).done == 0 and build_index(layout, IndexSettings()).skipped
    assert stamps == {stage: stamp_of(layout, stage) for stage in stamps}
    assert Path(ExperimentRecord.load(layout).dataset) == place and len(ExperimentRecord.load(layout).recordings) == 2


def test_files_are_hashed_only_where_something_changed(
    data: Path, layout: Layout, monkeypatch: pytest.MonkeyPatch
) -> None:
    hashed: list[Path] = []
    real = identity.sha256_of
    monkeypatch.setattr(identity, "sha256_of", lambda path: hashed.append(path) or real(path))
    prepare(layout, data, NANO)
    assert len(hashed) == 2
    prepare(layout, data, NANO)
    assert len(hashed) == 2, "thousands of recordings are up to date at once"
    (data / "ann" / "a.wav").touch()
    prepare(layout, data, NANO)
    prepare(layout, data, NANO)
    assert len(hashed) == 4


def test_clips_of_earlier_versions_stay_current_while_their_recordings_do(data: Path, layout: Layout) -> None:
    from rvc_core.audio.recordings import find_recordings

    prepare(layout, data, NANO)
    settings = content_of(layout, "prepare")["settings"]
    old = {"format": 1, "settings": settings, "files": find_recordings(data).fingerprint()}
    layout.stamp("seen").unlink()
    stamp(layout, "prepare", old)
    signature = stamp_of(layout, "prepare")
    assert prepare(layout, data, NANO).skipped and stamp_of(layout, "prepare") == signature
    layout.stamp("seen").unlink()
    replaced_alike(data)
    assert not prepare(layout, data, NANO).skipped


def test_a_clip_is_of_the_recording_that_has_its_name_now(data: Path, layout: Layout) -> None:
    prepare(layout, data, NANO)
    replaced_alike(data)
    prepare(layout, data, NANO)
    clip = next(one for one in Manifest.load(layout).clips if one.recording == "ann/a.wav")
    sound, truth = read_audio(layout.clips_16k / f"{clip.id}.wav").samples, phrase(7, seconds=1.0).samples
    start = round(clip.start_seconds * 16_000)
    assert np.corrcoef(sound, truth[start : start + len(sound)])[0, 1] > 0.7, "high-passed"
