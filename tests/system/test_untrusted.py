"""Files from strangers: nothing in them runs, and each is refused in one line that says why and what to do."""

import io
import json
import os
import pickle
import re
import subprocess
import sys
import time
import zipfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from hostile import COMMAND, FILES, Calls, content, packed
from rvc_core.cli import main
from rvc_core.errors import ResourceError, RVCError, StorageError, UnsafeFileError, WeightsError
from rvc_core.features.faiss_file import IndexArrays, save_arrays
from rvc_core.system.pickle_scan import PickleScan
from rvc_core.system.untrusted import checked_weights, load_torch, unzip_safely
from rvc_core.voices.describe import describe

ROOT = Path(__file__).parents[2]


@pytest.fixture
def canary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A file that appears when a payload runs."""
    path = tmp_path / "canary"
    monkeypatch.setenv("RVC_TEST_CANARY", str(path))
    return path


def test_the_payload_is_live(canary: Path) -> None:
    pickle.loads(pickle.dumps(Calls(os.system, COMMAND)))
    assert canary.exists()


def test_there_are_enough_of_them() -> None:
    assert len(FILES) >= 40 and len({hostile.says for hostile in FILES.values()}) >= 40


@pytest.mark.parametrize("name", FILES)
def test_a_hostile_file_does_nothing_and_is_named(
    tmp_path: Path, canary: Path, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    hostile = FILES[name]
    path = tmp_path / hostile.file_name
    hostile.write(path)
    before = sorted(tmp_path.rglob("*"))
    started = time.monotonic()
    with pytest.raises(RVCError) as caught:
        describe(path)
    assert type(caught.value) is hostile.error and re.search(hostile.says, str(caught.value)), repr(caught.value)
    assert caught.value.hint and str(caught.value).isprintable() and len(str(caught.value)) < 400
    assert main(["info", str(path), "--json"]) == 1
    said = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert said == {"error": str(caught.value), "hint": caught.value.hint}
    assert not canary.exists() and sorted(tmp_path.rglob("*")) == before
    assert time.monotonic() - started < 20


def test_a_real_process_says_it_in_two_lines(tmp_path: Path, canary: Path) -> None:
    FILES["a voice with os.system"].write(tmp_path / "v.pth")
    done = subprocess.run(
        [sys.executable, "-m", "rvc_core.cli", "info", str(tmp_path / "v.pth")],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 1 and not done.stdout and not canary.exists()
    assert len(done.stderr.splitlines()) == 2 and "would call posix.system('touch" in done.stderr


# -- what is allowed -----------------------------------------------------------------------------------------------
@pytest.mark.parametrize("old_form", [False, True])
def test_what_torch_saves_of_a_training_is_read_back(tmp_path: Path, old_form: bool) -> None:
    network = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.BatchNorm1d(4))
    optimizer = torch.optim.AdamW(network.parameters())
    network(torch.randn(5, 3)).sum().backward()
    optimizer.step()
    saved = {
        "model": network.state_dict(),
        "optimizer": optimizer.state_dict(),
        "empty": torch.zeros(0),
        "parameter": torch.nn.Parameter(torch.ones(2)),
        "scalar": torch.tensor(1.5),
        "half": torch.ones(3).half(),
        "bool": torch.tensor([True]),
        "transposed": torch.arange(6.0).reshape(2, 3).T,
        "none": None,
        "nested": [1, (2.5, "three"), {"4": -5 << 40}],
    }
    torch.save(saved, tmp_path / "a.pth", _use_new_zipfile_serialization=not old_form)
    again = load_torch(tmp_path / "a.pth")
    assert again["nested"] == saved["nested"] and again["none"] is None
    assert all(torch.equal(again["model"][key], value) for key, value in saved["model"].items())
    for key in ("parameter", "empty", "scalar", "half", "bool", "transposed"):
        assert torch.equal(again[key], saved[key])


def test_half_a_checksum_is_not_enough(tmp_path: Path) -> None:
    """Every byte of the numbers is under the archive's checksum, which torch itself does not check."""
    torch.save(content(), tmp_path / "v.pth")
    whole = (tmp_path / "v.pth").read_bytes()
    with zipfile.ZipFile(tmp_path / "v.pth") as archive:
        biggest = max(archive.infolist(), key=lambda entry: entry.file_size)
    place = biggest.header_offset + 200
    (tmp_path / "v.pth").write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
    torch.load(tmp_path / "v.pth", weights_only=True)
    with pytest.raises(WeightsError, match="damaged"):
        load_torch(tmp_path / "v.pth")


@pytest.mark.parametrize("old_form", [False, True])
def test_random_damage_is_always_a_named_error_or_harmless(tmp_path: Path, old_form: bool) -> None:
    """Flip bytes of a file: the scan and torch either agree that it is whole, or somebody says what is wrong."""
    value = {"weight": torch.arange(4.0), "config": [1, "a", [2, 3]]}
    whole = packed(value, _use_new_zipfile_serialization=not old_form)
    generator = torch.Generator().manual_seed(5)
    refused = 0
    for _ in range(400):
        place, value = (int(torch.randint(0, limit, (1,), generator=generator)) for limit in (len(whole), 256))
        (tmp_path / "v.pth").write_bytes(whole[:place] + bytes([value]) + whole[place + 1 :])
        try:
            load_torch(tmp_path / "v.pth")
        except (WeightsError, UnsafeFileError) as error:
            refused += 1
            assert error.hint
    assert refused > 100


def test_the_scan_agrees_with_python_about_what_is_called() -> None:
    """Python's own unpickler, asked for each name, against the scan, on protocols and shapes of calls."""

    class Listening(pickle.Unpickler):
        def find_class(self, module: str, name: str) -> object:
            asked.append(f"{module}.{name}".replace("__builtin__.", "builtins."))  # protocols 0 to 2
            return lambda *arguments: None

    for protocol in range(6):
        for value in (Calls(os.system, "id"), [Calls(getattr, Calls(eval, "1"), "real")], {"a": Calls(exec, "")}):
            asked: list[str] = []
            data, scan = pickle.dumps(value, protocol), PickleScan()
            Listening(io.BytesIO(data)).load()
            scan.read(io.BytesIO(data))
            assert scan.foreign == list(dict.fromkeys(asked)) and scan.calls and not scan.damage


def test_weights_are_a_table_of_finite_fractions() -> None:
    good = {"a": torch.ones(2, dtype=torch.float16), "b": torch.zeros(0)}
    assert checked_weights(good, "v.pth") == good
    for odd in (None, [], {"a": 1}, {1: torch.ones(2)}, {"a": torch.ones(2).to(torch.float8_e4m3fn)}):
        with pytest.raises(WeightsError):
            checked_weights(odd, "v.pth")


# -- archives ------------------------------------------------------------------------------------------------------
def _zip(path: Path, entries: dict[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in entries.items():
            archive.writestr(name, data)
    return path


def test_an_archive_is_unpacked_by_kind(tmp_path: Path) -> None:
    archive = _zip(
        tmp_path / "alice.zip",
        {
            "Алиса/голос 1.PTH": b"voice",
            "Алиса/added_x.index": b"index",
            "Алиса/readme.txt": b"text",
            "__MACOSX/Алиса/._голос 1.pth": b"junk",
            ".hidden.pth": b"junk",
            "Алиса/": b"",
        },
    )
    files = unzip_safely(archive, tmp_path / "out", {".pth", ".index"})
    assert files == [tmp_path / "out" / "Алиса" / name for name in ("added_x.index", "голос 1.PTH")]
    assert files[1].read_bytes() == b"voice" and len([path for path in tmp_path.rglob("*") if path.is_file()]) == 3
    assert describe(archive)["voices"] == ["Алиса/голос 1.PTH"]


@pytest.mark.parametrize("name", [name for name in FILES if name.startswith("a zip ")])
def test_a_hostile_archive_leaves_nothing(tmp_path: Path, name: str) -> None:
    FILES[name].write(tmp_path / "v.zip")
    with pytest.raises(FILES[name].error):
        unzip_safely(tmp_path / "v.zip", tmp_path / "out", {".pth"})
    assert [path.name for path in tmp_path.iterdir()] == ["v.zip"]


def test_nothing_is_left_when_the_second_file_is_damaged(tmp_path: Path) -> None:
    archive = _zip(tmp_path / "a.zip", {"1.pth": b"good", "2.pth": os.urandom(5000)})
    data = bytearray(archive.read_bytes())
    data[3000] ^= 1
    archive.write_bytes(data)
    with pytest.raises(WeightsError, match="damaged"):
        unzip_safely(archive, tmp_path / "out", {".pth"})
    assert [path.name for path in tmp_path.iterdir()] == ["a.zip"]


def test_a_file_where_a_folder_must_be_is_damage(tmp_path: Path) -> None:
    archive = _zip(tmp_path / "a.zip", {"a.pth": b"1", "a.pth/b.pth": b"2"})
    with pytest.raises(WeightsError, match="damaged"):
        unzip_safely(archive, tmp_path / "out", {".pth"})
    assert not (tmp_path / "out").exists()


def test_limits_and_a_full_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    archive = _zip(tmp_path / "a.zip", {"1.pth": bytes(5000)})
    with pytest.raises(UnsafeFileError, match="unpacks to"):
        unzip_safely(archive, tmp_path / "out", {".pth"}, most_bytes=4000)
    assert unzip_safely(archive, tmp_path / "out", {".index"}) == [] and not (tmp_path / "out").exists()
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine.txt").write_text("mine")
    with pytest.raises(StorageError, match="not empty"):
        unzip_safely(archive, tmp_path / "full", {".pth"})
    monkeypatch.setattr("shutil.disk_usage", lambda path: type("Usage", (), {"free": 10})())
    with pytest.raises(ResourceError, match="room"):
        unzip_safely(archive, tmp_path / "out", {".pth"})
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.zip", "full"]


# -- what good files say -------------------------------------------------------------------------------------------
def test_good_files_are_described(tmp_path: Path) -> None:
    torch.save(content() | {"author": "Bob"}, tmp_path / "v.pth")
    voice = describe(tmp_path / "v.pth")
    assert (voice["kind"], voice["name"], voice["author"], voice["epoch"]) == ("voice", "alice", "Bob", 60)
    assert voice["sample_rate"] == 16000 and voice["precision"] == "float16" and json.dumps(voice)
    embedded = ROOT / "rvc_core" / "embedded"
    assert {key: describe(embedded / "base_generator.pth")[key] for key in ("kind", "architecture", "uses_f0")} == {
        "kind": "generator",
        "architecture": "nano",
        "uses_f0": True,
    }
    assert describe(embedded / "base_discriminator.pth")["kind"] == "discriminator"


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("epoch", torch.ones(3)),
        ("step", torch.ones(3)),
        ("rvc_core", torch.ones(3)),
        ("rvc_core", "text"),
        ("f0", torch.ones(3)),
        ("version", {"a": 1}),
        ("epoch", float("inf")),
        ("config", torch.ones(18)),
        ("config", [True] * 18),
    ],
)
def test_values_that_belong_nowhere_are_damage(tmp_path: Path, key: str, value: object) -> None:
    torch.save(content() | {key: value}, tmp_path / "v.pth")
    with pytest.raises(WeightsError):
        describe(tmp_path / "v.pth")


def test_what_an_index_says_of_itself_cannot_steer_a_terminal(tmp_path: Path) -> None:
    save_arrays(
        tmp_path / "a.index",
        replace(
            IndexArrays.flat(np.ones((2, 4), np.float32)),
            note={"name": "a\x1b[2Jb", "kind": "voice", "version": "v2" * 500},
        ),
    )
    known = describe(tmp_path / "a.index")
    assert known["kind"] == "index" and known["name"] == "a?[2Jb" and len(known["version"]) == 200
