"""Files at the edge: nothing half-written, a full disk is called so, and damage is said rather than skipped."""

import errno
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from rvc_core.audio.waveform import Audio
from rvc_core.errors import DatasetError, ResourceError, RVCError, StageOrderError
from rvc_core.preparation.prepare import prepare
from rvc_core.settings import PrepareSettings
from rvc_core.system.documents import read_json, read_jsonl
from rvc_core.system.files import remove_leftovers, replace_atomically
from rvc_core.workspace import stamps
from rvc_core.workspace.layout import Layout
from rvc_core.workspace.manifest import Clip, ExperimentRecord, Manifest
from synth import phrase


# -- reading -------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("content", "rows"),
    [
        (b"", []),
        (b'{"a": 1}\n{"a": 2}\n', 2),
        (b'{"a": 1}\n{"a": 2}', 2),
        (b'{"a": 1}\n{"a": ', 1),
        ('{"a": 1}\n{"a": "я'.encode()[:-1], 1),
        ('{"a": "\u2028"}\n'.encode(), 1),
    ],
)
def test_only_a_torn_last_line_is_left_out(tmp_path: Path, content: bytes, rows: object) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_bytes(content)
    assert len(read_jsonl(path, dict)) == (rows or 0)


@pytest.mark.parametrize(
    "content",
    [
        b'{"a": 1}\n{"a": \n{"a": 3}\n',
        b'{"a": 1}\n\n{"a": 3}\n',
        b'{"a": 1}\n{"a"\n',
        b'[1]\n{"a": 1}\n',
        b'\xff\xfe\n{"a": 1}\n',
    ],
)
def test_a_damaged_line_elsewhere_is_an_error_that_names_it(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_bytes(content)
    with pytest.raises(DatasetError, match=r"rows\.jsonl is damaged in line [12]") as caught:
        read_jsonl(path, dict, "the hint", error=DatasetError)
    assert caught.value.hint == "the hint"


@pytest.mark.parametrize("content", [b"", b"{", b"\xff\xfe{}", b'{"a": 1} and more'])
def test_damaged_json_is_one_line_and_a_missing_file_stays_missing(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "x.json"
    with pytest.raises(FileNotFoundError):
        read_json(path, object, "the hint")
    path.write_bytes(content)
    with pytest.raises(RVCError, match="damaged") as caught:
        read_json(path, object, "the hint")
    assert caught.value.hint == "the hint" and "\n" not in str(caught.value)
    with pytest.raises(RVCError, match="cannot be read"):
        read_json(tmp_path, object, "the hint")


@pytest.mark.parametrize("content", ["{", "[1]", '{"signature": "abc"}', "\udcff"])
def test_a_damaged_stamp_counts_as_none(tmp_path: Path, content: str) -> None:
    layout = Layout(tmp_path, "x")
    stamps.stamp(layout, "f0", {"a": 1})
    assert stamps.is_current(layout, "f0", {"a": 1})
    layout.stamp("f0").write_bytes(content.encode("utf-8", "surrogateescape"))
    assert stamps.stamp_of(layout, "f0") is None and stamps.content_of(layout, "f0") == {}


@pytest.mark.parametrize("content", [b"{", b'{"name": "x"}\n', b"[1, 2]\n", b'{"kind": "song"}\n', b"\xff\n"])
def test_damaged_records_say_what_to_run(tmp_path: Path, content: bytes) -> None:
    layout = Layout(tmp_path, "x")
    for path, load in ((layout.experiment, ExperimentRecord.load), (layout.manifest, Manifest.load)):
        with pytest.raises(StageOrderError):
            load(layout)
        path.write_bytes(content)
        if content == b"{" and path == layout.manifest:
            continue  # a torn last line
        with pytest.raises(DatasetError, match=path.name) as caught:
            load(layout)
        assert caught.value.hint.startswith("run: rvc prepare")


def test_what_the_hint_says_mends_a_damaged_manifest(tmp_path: Path) -> None:
    (tmp_path / "takes").mkdir()
    Audio(phrase(1, seconds=4.0).samples, 16000).save(tmp_path / "takes" / "a.wav")
    layout, settings = Layout.of("x", tmp_path), PrepareSettings(preset="nano")
    prepare(layout, tmp_path / "takes", settings)
    clips = Manifest.load(layout).clips
    for damage in (lambda: layout.manifest.write_text("{\n{}\n"), layout.manifest.unlink):
        damage()
        assert not prepare(layout, tmp_path / "takes", settings).skipped
        assert Manifest.load(layout).clips == clips
    assert prepare(layout, tmp_path / "takes", settings).skipped


# -- writing -------------------------------------------------------------------------------------------------------
WRITERS: dict[str, Callable[[Path], object]] = {
    "text": lambda path: path.write_text("a" * 400_000),
    "torch": lambda path: torch.save({"weight": torch.zeros(100_000)}, path),
    "numpy": lambda path: np.save(path, np.zeros(100_000)),
    "tofile": lambda path: np.zeros(100_000).tofile(path),
    "soundfile": lambda path: soundfile.write(path, np.zeros(200_000), 16000, format="WAV"),
}


@pytest.fixture
def full_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 64 kB with an older file in it."""
    folder = tmp_path / "disk"
    folder.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", folder], capture_output=True).returncode:
        pytest.skip("only root mounts file systems")
    yield folder
    subprocess.run(["umount", "--lazy", folder], check=True)  # torch still holds the file that it could not write


@pytest.mark.skipif(sys.platform != "linux" or os.geteuid() != 0 or not shutil.which("mount"), reason="needs root")
@pytest.mark.parametrize("writer", WRITERS)
def test_a_really_full_disk_is_called_full(full_disk: Path, writer: str) -> None:
    path = full_disk / ("a.npy" if writer == "numpy" else "a.bin")
    path.write_text("the previous file")
    with pytest.raises(ResourceError, match="the disk is full: a") as caught, replace_atomically(path) as temporary:
        WRITERS[writer](temporary)
    assert caught.value.hint and [*full_disk.iterdir()] == [path] and path.read_text() == "the previous file"


@pytest.mark.parametrize(
    "error",
    [
        RuntimeError("unexpected pos 576 vs 534"),
        OSError("8 requested and 1 written"),
        soundfile.LibsndfileError(2),
        OSError(errno.ENOSPC, "No space left"),
        OSError(errno.EFBIG, "File too large"),  # of a quota
    ],
)
def test_errors_that_libraries_make_of_a_full_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def write() -> None:
        with replace_atomically(tmp_path / "a.bin") as temporary:
            temporary.write_text("half")
            raise error

    if getattr(error, "errno", None) is None:
        with pytest.raises(type(error)):  # with room on the disk it is what it was
            write()
    monkeypatch.setattr(shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(10**9, 10**9, 1000))
    with pytest.raises(ResourceError, match="the disk is full"):
        write()
    assert not list(tmp_path.iterdir())


def test_leftovers_of_dead_processes_are_removed_and_nothing_else(tmp_path: Path) -> None:
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    kept = {f".part-{os.getpid()}-a.pth", ".part-notes.txt", "G_1.pth", f".part-{os.getppid()}-b.npy"}
    for name in kept | {f".part-{dead.pid}-a.pth", f".part-{dead.pid}-b.npy"}:
        (tmp_path / name).touch()
    (tmp_path / f".part-{dead.pid}-folder" / "in it").mkdir(parents=True)
    remove_leftovers(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == kept
    remove_leftovers(tmp_path / "absent")


def test_a_manifest_comes_back_as_it_was(tmp_path: Path) -> None:
    manifest = Manifest([Clip("0_0", "a\u2028\n😀.wav", 0.0, 3.7)])
    manifest.save(Layout(tmp_path, "x"))
    assert Manifest.load(Layout(tmp_path, "x")) == manifest
