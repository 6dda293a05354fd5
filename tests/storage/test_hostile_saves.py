"""Saves and experiments that a stranger left in a shared folder: each is refused by name, and changes nothing outside.

Around every test stands a tree of files that belong to nobody here; it is the same afterwards, and none of it is read.
"""

import errno
import io
import json
import os
import shutil
import socket
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from rvc_core.audio.recordings import find_recordings
from rvc_core.errors import CheckpointError, DatasetError, RVCError, StorageError
from rvc_core.preparation.identity import begin_again, times_begun
from rvc_core.storage import listing, places, snapshot
from rvc_core.storage.places import find_saved, restore, save
from rvc_core.system import platforms
from rvc_core.system.documents import read_json
from rvc_core.system.files import sha256_of, write_json
from rvc_core.workspace.checkpoint import load_newest
from rvc_core.workspace.layout import Layout
from rvc_core.workspace.manifest import ExperimentRecord
from rvc_core.workspace.retention import checkpoint_rows
from trained import trained, tree

SECRET = "the sentinel's own words"


@pytest.fixture
def sentinel(tmp_path: Path) -> Iterator[Path]:
    """Files outside of everything, which nothing may change, remove or copy."""
    folder = tmp_path / "sentinel"
    folder.mkdir()
    for name in ("x", "G_10.pth", "state_10.pt", "experiment.json", "clips.000000000000.pack"):
        (folder / name).write_text(SECRET)
    before = {path.name: (path.read_text(), path.stat().st_ino) for path in folder.iterdir()}
    yield folder
    assert {path.name: (path.read_text(), path.stat().st_ino) for path in folder.iterdir()} == before
    for path in tmp_path.rglob("*"):
        if path.is_file() and not path.is_symlink() and folder not in path.parents and path.stat().st_size < 1 << 20:
            assert SECRET.encode() not in path.read_bytes(), f"{path} has a copy"


@pytest.fixture
def place(tmp_path: Path, sentinel: Path) -> Path:
    """A folder with one save of alice, at step 10."""
    save(trained(Layout.of("alice", tmp_path / "first"), 10), str(tmp_path / "place"))
    return tmp_path / "place"


@pytest.fixture
def home(tmp_path: Path) -> Path:
    return tmp_path / "home"


@pytest.fixture
def manifest(place: Path) -> Path:
    [path] = place.rglob("saved-*.json")
    return path


def changed(manifest: Path, change: Callable[[dict[str, Any]], Any]) -> None:
    content = read_json(manifest, object)
    change(content)
    manifest.write_text(json.dumps(content))


def put(manifest: Path, name: str, content: bytes) -> None:
    """Another file in the place of one of a save, with its true hash and size."""

    def change(listed: dict[str, Any]) -> None:
        row = snapshot._row(name, io.BytesIO(content)) | {"bytes": len(content)}
        listed["files"][name] = row
        manifest.with_name(row["as"]).write_bytes(content)

    changed(manifest, change)


def pack(*entries: tuple[tarfile.TarInfo, bytes]) -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as archive:
        for entry, content in entries:
            archive.addfile(entry, io.BytesIO(content))
    return file.getvalue()


def entry(name: str, kind: bytes = tarfile.REGTYPE, link: str = "", size: int = 0) -> tarfile.TarInfo:
    made = tarfile.TarInfo(name)
    made.type, made.linkname, made.size = kind, link, size
    return made


def sparse() -> bytes:
    """A file of 64 MB in a few bytes, as GNU tar writes it."""
    made = entry("0_gt_wavs/a.wav")
    made.pax_headers = {"GNU.sparse.major": "0", "GNU.sparse.minor": "1", "GNU.sparse.size": str(1 << 26)}
    made.pax_headers |= {"GNU.sparse.map": f"{1 << 26},0", "GNU.sparse.name": "0_gt_wavs/a.wav"}
    return pack((made, b""))


def negative() -> bytes:
    """An entry of less than nothing: reading on from there never ends."""
    content = bytearray(pack((entry("0_gt_wavs/a.wav"), b"")))
    content[124:136] = b"\xff" * 10 + b"\xfe\x00"
    content[148:156] = b"%06o\0 " % (sum(content[:148]) + sum(content[156:512]) + 8 * 32)
    return bytes(content)


def check_nothing_came(home: Path) -> None:
    assert not [path for path in home.rglob("*") if path.is_file()]


# -- packs -----------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (pack((entry("0_gt_wavs/a.wav", tarfile.SYMTYPE, "../../../sentinel/x"), b"")), "holds '0_gt_wavs/a.wav'"),
        (pack((entry("0_gt_wavs/a.wav", tarfile.LNKTYPE, "../sentinel/x"), b"")), "holds '0_gt_wavs/a.wav'"),
        (pack((entry("0_gt_wavs/a.wav", tarfile.CHRTYPE), b"")), "holds '0_gt_wavs/a.wav'"),
        (pack((entry("0_gt_wavs/a.wav", tarfile.BLKTYPE), b"")), "holds '0_gt_wavs/a.wav'"),
        (pack((entry("0_gt_wavs/a.wav", tarfile.FIFOTYPE), b"")), "holds '0_gt_wavs/a.wav'"),
        (pack((entry("0_gt_wavs", tarfile.DIRTYPE), b"")), "holds '0_gt_wavs'"),
        (pack((entry("/etc/x"), b"")), "holds '/etc/x'"),
        (pack((entry("../../../sentinel/x"), b"")), "holds '../../../sentinel/x'"),
        (pack((entry("0_gt_wavs/../../x"), b"")), r"holds '0_gt_wavs/\.\./\.\./x'"),
        (pack((entry("run.json"), b"")), "holds 'run.json'"),  # has the command of the training
        (pack((entry("checkpoints.json"), b"")), "holds 'checkpoints.json'"),
        (pack((entry("G_10.pth"), b"")), "holds 'G_10.pth'"),
        (pack((entry("0_gt_wavs/.hidden"), b"")), "holds '0_gt_wavs/.hidden'"),
        (pack((entry("config.json"), b""), (entry("config.json"), b"")), "File exists"),
        (sparse(), "holds '0_gt_wavs/a.wav'"),
        (negative(), "holds '0_gt_wavs/a.wav'"),
        (b"no tar" * 200, "is damaged"),
        (pack(*[(entry(f"0_gt_wavs/{'n' * 300}"), b"")]), "holds '0_gt_wavs/nnn"),
        (b"".join(pack((entry("x", tarfile.XHDTYPE), b""))[:512] for _ in range(3000)), "is damaged"),
    ],
)
@pytest.mark.parametrize("which", ["clips.pack", "record.pack"])
def test_a_pack_gives_regular_files_of_an_experiment_or_nothing(
    which: str, content: bytes, problem: str, manifest: Path, place: Path, home: Path
) -> None:
    put(manifest, which, content)
    with pytest.raises(StorageError, match=problem) as caught:
        restore("alice", str(place), root=home)
    assert caught.value.hint
    check_nothing_came(home)


def test_a_kaggle_archive_is_checked_too(tmp_path: Path, sentinel: Path) -> None:
    for name in ("../x", "/x", "alice/../x", "alice/notes.txt", ".alice/saved-e1-s1.json"):
        (tmp_path / "a.tar").write_bytes(pack((entry(name), b"")))
        with pytest.raises(StorageError, match="not a file of a save"):
            snapshot.unpack(tmp_path / "a.tar", tmp_path / "out", snapshot.ARCHIVED)


# -- lists -----------------------------------------------------------------------------------------------------------
def deep(content: dict[str, Any]) -> None:
    content["settings"] = {}
    here = content["settings"]
    for _ in range(400):
        here["a"] = here = {}


LISTS: list[tuple[Callable[[dict[str, Any]], Any] | str, str]] = [
    ("[" * 200_000, "is damaged"),
    ('{"a":' * 200_000, "is damaged"),
    ("not json", "is damaged"),
    ("[]", "is damaged"),
    (" " * (17 << 20), "is damaged"),
    (deep, "is damaged"),
    (lambda one: one.update(name=["alice"]), "name: "),
    (lambda one: one.update(name=""), "name: "),
    (lambda one: one.update(step="10"), "step: "),
    (lambda one: one.update(step=-1), "step: "),
    (lambda one: one.update(epoch=10**40), "epoch: "),
    (lambda one: one.update(time=float("nan")), "is damaged: "),
    (lambda one: one.update(time=1e300), "time: "),
    (lambda one: one.update(begun="many"), "begun: "),
    (lambda one: one.update(recordings=[3]), "recordings.0: "),
    (lambda one: one.update(settings=[]), "settings: "),
    (lambda one: one.update(files=[]), "files: "),
    (lambda one: one.update(files={}), "no files"),
    (lambda one: one.update(step=11), "lists another save"),
    (lambda one: one.pop("checkpoint"), "checkpoint: "),
    (lambda one: one["checkpoint"].update(sha256={"../../../sentinel/x": "0" * 64}), "checkpoint.sha256"),
    (lambda one: one["files"].update({"../../sentinel/x": one["files"]["G_10.pth"]}), "files"),
    (lambda one: one["files"].update({"run.json": one["files"]["G_10.pth"]}), "files"),
    (lambda one: one["files"]["G_10.pth"].update({"as": "../../sentinel/G_10.pth"}), "files.G_10.pth.as: "),
    (lambda one: one["files"]["G_10.pth"].update({"as": "/dev/zero"}), "files.G_10.pth.as: "),
    (lambda one: one["files"]["G_10.pth"].update({"as": ".."}), "files.G_10.pth.as: "),
    (lambda one: one["files"]["G_10.pth"].update(bytes=-1), "files.G_10.pth.bytes: "),
    (lambda one: one["files"]["G_10.pth"].update(bytes=1 << 60), "files.G_10.pth.bytes: "),
    (lambda one: one["files"]["G_10.pth"].update(sha256="abc"), "files.G_10.pth.sha256: "),
]


@pytest.mark.parametrize(("change", "problem"), LISTS, ids=map(str, range(len(LISTS))))
def test_a_list_that_does_not_fit_its_schema_is_named_and_passed_over(
    change: Callable[[dict[str, Any]], Any] | str,
    problem: str,
    tmp_path: Path,
    place: Path,
    manifest: Path,
    home: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    save(trained(Layout.of("bob", tmp_path / "first"), 20), str(place))
    manifest.write_text(change) if isinstance(change, str) else changed(manifest, change)
    with pytest.raises(StorageError, match=problem) as caught:
        listing.read_list(manifest, "here")
    assert caught.value.hint
    assert [one.name for one in find_saved(str(place))] == ["bob"] and manifest.name in caplog.text
    assert restore("bob", str(place), root=home).step == 20
    with pytest.raises(StorageError, match="no complete save of 'alice'"):
        restore("alice", str(place), root=home)


def test_a_list_that_is_not_a_file_is_passed_over(
    tmp_path: Path, place: Path, sentinel: Path, manifest: Path, home: Path
) -> None:
    save(trained(Layout.of("bob", tmp_path / "first"), 20), str(place))
    manifest.rename(sentinel.parent / "real.json")
    for make in (
        lambda: manifest.symlink_to(sentinel.parent / "real.json"),
        lambda: manifest.symlink_to("/dev/zero"),
        lambda: os.mkfifo(manifest),
        lambda: manifest.mkdir(),
        lambda: socket.socket(socket.AF_UNIX).bind(str(manifest)),
    ):
        make()
        with pytest.raises(StorageError, match="is a link, a device or a folder"):
            listing.read_list(manifest, "here")
        assert [one.name for one in find_saved(str(place))] == ["bob"]
        manifest.rmdir() if manifest.is_dir() else manifest.unlink()
    assert restore("bob", str(place), root=home).step == 20


# -- the files of a save -----------------------------------------------------------------------------------------------
@pytest.mark.parametrize("kind", ["link", "device", "pipe", "missing", "longer", "announced less", "other bytes"])
def test_a_file_that_is_not_what_the_list_announced(
    kind: str, place: Path, sentinel: Path, manifest: Path, home: Path
) -> None:
    row = read_json(manifest, object)["files"]["G_10.pth"]
    path = manifest.with_name(row["as"])
    content = path.read_bytes()
    path.unlink()
    if kind == "link":
        path.symlink_to(sentinel / "G_10.pth")
    elif kind == "device":
        path.symlink_to("/dev/zero")
    elif kind == "pipe":
        os.mkfifo(path)
    elif kind == "longer":
        path.write_bytes(content + b"more")
    elif kind == "announced less":
        path.write_bytes(content)
        changed(manifest, lambda one: one["files"]["G_10.pth"].update(bytes=100))
    elif kind == "other bytes":
        path.write_bytes(bytes(len(content)))
    [one] = listing.saves_in(manifest.parent, "here")
    if kind != "longer":  # of that, only what was announced would be copied
        with pytest.raises(StorageError, match=r"is not there|is a link|is damaged"):
            snapshot.restore_save(one, Layout.of("alice", home))  # also if it changed after it was listed
    with pytest.raises(StorageError, match="no complete save"):
        restore("alice", str(place), root=home)
    check_nothing_came(home)


def test_no_more_is_copied_than_was_announced(
    place: Path, manifest: Path, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    row = read_json(manifest, object)["files"]["G_10.pth"]
    [one] = listing.saves_in(manifest.parent, "here")
    with manifest.with_name(row["as"]).open("ab") as file:
        file.truncate(1 << 33)
    copied: list[int] = []
    copy = snapshot._copy

    def counting(source: Any, target: Any, most_bytes: int) -> None:
        copy(source, target, most_bytes)
        copied.append(target.tell())

    monkeypatch.setattr(snapshot, "_copy", counting)
    snapshot.restore_save(one, Layout.of("alice", home))
    assert max(copied) <= max(file["bytes"] for file in one.files.values())


def test_a_checkpoint_that_the_list_has_no_file_for(place: Path, manifest: Path, home: Path) -> None:
    changed(manifest, lambda one: one["files"].pop("G_10.pth"))
    with pytest.raises(StorageError, match="no complete save"):
        restore("alice", str(place), root=home)


def test_of_two_saves_one_bad_the_other_is_restored(tmp_path: Path, place: Path, manifest: Path, home: Path) -> None:
    save(trained(Layout.of("alice", tmp_path / "first"), 20), str(place))
    newest = manifest.with_name("saved-e2-s20.json")
    put(newest, "record.pack", pack((entry("../../x"), b"")))
    assert restore("alice", str(place), root=home).step == 10
    changed(newest, lambda one: one["files"]["state_20.pt"].update(bytes=1 << 40))
    with newest.with_name(read_json(newest, object)["files"]["state_20.pt"]["as"]).open("ab") as file:
        file.truncate(1 << 40)  # takes no room
    assert restore("alice", str(place), root=tmp_path / "another").step == 10


# -- experiments that lie in a place -----------------------------------------------------------------------------------
@pytest.mark.parametrize("bad", ["../../../sentinel/x", "/etc/hostname", "run.json", "G_10.pth/../x", "x\n"])
def test_a_name_in_checkpoints_json_that_leaves_the_folder(bad: str, tmp_path: Path, sentinel: Path) -> None:
    layout = trained(Layout.of("eve", tmp_path / "first"), 10)
    digest = sha256_of(sentinel / "x")
    rows = [{"step": 1, "epoch": 1, "sha256": {bad: digest}}, *checkpoint_rows(layout)]
    write_json(layout.checkpoints, rows)
    for use in (
        lambda: checkpoint_rows(layout),
        lambda: load_newest(layout),
        lambda: save(layout, str(tmp_path / "place")),
    ):
        with pytest.raises(CheckpointError, match=r"checkpoints.json is damaged: 0.sha256"):
            use()
    shutil.move(layout.root, tmp_path / "shared" / "eve")
    save(trained(Layout.of("bob", tmp_path / "first"), 20), str(tmp_path / "shared"))
    assert [one.name for one in find_saved(str(tmp_path / "shared"))] == ["bob"]
    with pytest.raises(StorageError, match="no complete save"):
        restore("eve", str(tmp_path / "shared"), root=tmp_path / "home")


@pytest.mark.parametrize(
    "rows", ["{}", "[3]", '[{"step": "1"}]', '[{"step": 1, "epoch": 1, "sha256": []}]', "[" * 200_000]
)
def test_checkpoints_json_of_wrong_types(rows: str, tmp_path: Path) -> None:
    layout = trained(Layout.of("eve", tmp_path / "first"), 10)
    layout.checkpoints.write_text(rows)
    with pytest.raises(CheckpointError, match=r"checkpoints.json is damaged"):
        checkpoint_rows(layout)


@pytest.mark.parametrize("name", ["verdict.json", "G_10.pth", "stamps/begun.json", "metrics.jsonl"])
@pytest.mark.parametrize("kind", ["link", "pipe"])
def test_an_experiment_with_links_or_pipes_is_not_taken(
    name: str, kind: str, tmp_path: Path, sentinel: Path, home: Path, caplog: pytest.LogCaptureFixture
) -> None:
    layout = trained(Layout.of("eve", tmp_path / "shared"), 10)
    (path := layout.root / name).unlink(missing_ok=True)
    if kind == "link":
        path.symlink_to(sentinel / "x")
    else:
        os.mkfifo(path)
    assert find_saved(str(tmp_path / "shared")) == [] and "is a link" in caplog.text
    with pytest.raises(StorageError, match="no complete save"):
        restore("eve", str(tmp_path / "shared"), root=home)


def test_wrong_types_in_an_experiment_of_another_person(tmp_path: Path, home: Path) -> None:
    for content in ({"name": 3}, {"recordings": "x"}, {"recordings": [[]]}, {"dataset": 5}):
        layout = trained(Layout.of("eve", tmp_path / "shared"), 10)
        write_json(layout.experiment, read_json(layout.experiment, object) | content)
        with pytest.raises(DatasetError, match="is damaged"):
            ExperimentRecord.load(layout)
    write_json(layout.experiment, {"name": "", "dataset": "", "preset": "nano"})
    assert find_saved(str(tmp_path / "shared")) == []
    write_json(layout.stamp("begun"), {"signature": "", "content": {"count": [1]}})
    assert find_saved(str(tmp_path / "shared")) == []


# -- writing -----------------------------------------------------------------------------------------------------------
def test_nothing_is_restored_that_nobody_asked_for(place: Path, home: Path) -> None:
    assert [one.name for one in find_saved(str(place))] == ["alice"]
    with pytest.raises(StorageError):
        restore("bob", str(place), root=home)
    check_nothing_came(home)


def test_a_save_is_not_written_through_a_link(tmp_path: Path, sentinel: Path) -> None:
    layout, place = trained(Layout.of("alice", tmp_path / "first"), 10), tmp_path / "place"
    place.mkdir()
    (place / "alice").symlink_to(sentinel, target_is_directory=True)
    with pytest.raises(StorageError, match="alice is a link"):
        save(layout, str(place))
    (place / "alice").unlink()
    made = save(layout, str(place))
    for victim in ("saved-e1-s10.json", made.files["G_10.pth"]["as"]):
        (place / "alice" / victim).unlink()
        (place / "alice" / victim).symlink_to(sentinel / "x")
        with pytest.raises(StorageError, match="is a link, a device or a folder"):
            save(layout, str(place))
        assert (place / "alice" / victim).is_symlink()
        (place / "alice" / victim).unlink()
        save(layout, str(place))


def test_only_files_of_a_save_are_removed(tmp_path: Path, place: Path, sentinel: Path) -> None:
    layout, folder = Layout.of("alice", tmp_path / "first"), place / "alice"
    for name in ("holiday.123456789abc.jpg", "saved.json", "notes", ".part-notes", ".part-1-notes"):
        (folder / name).write_text("mine")
    (folder / ".part-999999999-album").mkdir()
    (folder / "G_5.123456789abc.pth").symlink_to(sentinel / "G_10.pth")
    (folder / "G_6.123456789abc.pth").mkdir()
    os.link(sentinel / "x", folder / "G_7.123456789abc.pth")  # a second name of a file elsewhere
    (folder / "G_8.123456789abc.pth").write_text("left by a save that was killed")
    (folder / ".part-999999999-G_9.123456789abc.pth").write_text("left by a save that was killed")
    before = {path.name for path in folder.iterdir()}
    save(trained(layout, 20), str(place))
    gone = before - {path.name for path in folder.iterdir()}
    assert gone == {"G_7.123456789abc.pth", "G_8.123456789abc.pth", ".part-999999999-G_9.123456789abc.pth"}
    assert (folder / "notes").read_text() == "mine"


def test_what_a_link_in_the_experiment_points_to_is_not_copied(
    tmp_path: Path, sentinel: Path, home: Path, caplog: pytest.LogCaptureFixture
) -> None:
    layout, place = trained(Layout.of("alice", tmp_path / "first"), 10), str(tmp_path / "place")
    (layout.clips / "9.wav").symlink_to(sentinel / "x")
    layout.heldout.root.symlink_to(sentinel)
    (layout.root / "2a_f0").symlink_to(sentinel)
    (layout.root / "events.out.tfevents.1").symlink_to(sentinel / "x")
    (layout.root / "added_IVF1_Flat_nprobe_1_alice_v2.index").symlink_to(sentinel / "x")
    layout.voice(9, 99).symlink_to(sentinel / "x")
    save(layout, place)
    assert "9.wav is a link" in caplog.text
    restore("alice", place, root=home)
    came = tree(Layout.of("alice", home).root)
    assert "0_gt_wavs/2.wav" in came and not {"0_gt_wavs/9.wav", "alice_e9_s99.pth"} & came.keys()
    layout.generator(10).unlink()
    layout.generator(10).symlink_to(sentinel / "x")
    with pytest.raises(RVCError, match=r"G_10.pth is a link"):
        save(layout, place)


# -- lineage -----------------------------------------------------------------------------------------------------------
def recorded(layout: Layout, *recordings: str) -> Layout:
    write_json(layout.experiment, read_json(layout.experiment, object) | {"recordings": list(recordings)})
    return layout


def test_a_voice_that_was_begun_again_is_not_replaced_by_its_old_saves(tmp_path: Path) -> None:
    place, root = str(tmp_path / "place"), tmp_path / "home"
    layout = trained(Layout.of("alice", root), 100)
    save(layout, place)
    begin_again(layout)
    assert times_begun(layout) == 1
    with pytest.raises(StorageError, match="before this voice was begun again") as caught:
        restore("alice", place, root=root)
    assert "move" in caught.value.hint
    trained(layout, 200)  # further than the old run
    before = tree(layout.root)
    with pytest.raises(StorageError, match="before this voice was begun again"):
        restore("alice", place, root=root)
    assert tree(layout.root) == before
    made = save(layout, place)  # the old run goes aside, whole
    assert made.begun == 1 and len([*Path(place).glob("alice.before-*/saved-e10-s100.json")]) == 1
    assert restore("alice", place, root=root).place == "this machine"
    assert restore("alice", place, root=tmp_path / "new").step == 200  # the newest
    again = Layout.of("alice", tmp_path / "new")
    assert times_begun(again) == 1  # it came along
    save(trained(again, 210), place)
    assert len([*Path(place).glob("alice.before-*")]) == 1


def test_other_recordings_under_the_same_name(tmp_path: Path) -> None:
    place = str(tmp_path / "place")
    mine = recorded(trained(Layout.of("alice", tmp_path / "mine"), 10), "a", "b")
    save(mine, place)
    theirs = recorded(trained(Layout.of("alice", tmp_path / "theirs"), 5), "c")
    before = tree(theirs.root)
    with pytest.raises(StorageError, match="other recordings than the voice on this machine"):
        restore("alice", place, root=tmp_path / "theirs")
    assert tree(theirs.root) == before
    save(recorded(trained(theirs, 30), "c"), place)
    assert [path.name for path in Path(place).glob("alice.before-*/saved*")] == ["saved-e1-s10.json"]
    more = recorded(trained(Layout.of("alice", tmp_path / "more"), 2), "c", "d")
    assert restore("alice", place, root=tmp_path / "more").step == 30 and more.root.is_dir()


def test_a_run_that_began_anew_without_the_old_save_does_not_push_it_out(tmp_path: Path) -> None:
    place = str(tmp_path / "place")
    save(trained(Layout.of("alice", tmp_path / "lost"), 100), place)
    fresh = Layout.of("alice", tmp_path / "fresh")
    for step in (10, 20, 30):
        save(trained(fresh, step), place)
    assert len([*Path(place).glob("alice.before-*/saved-e10-s100.json")]) == 1


# -- a place is what it claims to be -----------------------------------------------------------------------------------
def test_a_drive_that_is_not_mounted_is_not_written_to(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (places, platforms):
        monkeypatch.setattr(module, "DRIVE", str(tmp_path / "drive"))
    (drive := tmp_path / "drive" / "MyDrive").mkdir(parents=True)  # left on the local disk
    layout = trained(Layout.of("alice", tmp_path / "home"), 10)
    for use in (lambda: save(layout, str(drive)), lambda: find_saved(str(drive))):
        with pytest.raises(StorageError, match="Drive is not there"):
            use()
    assert not [*drive.iterdir()]
    assert platforms.detect({"COLAB_RELEASE_TAG": "r1"}).storage is None
    monkeypatch.setattr(platforms, "is_mount", lambda path: path == str(tmp_path / "drive"))
    assert save(layout, str(drive)).place == "Drive"
    assert platforms.detect({"COLAB_RELEASE_TAG": "r1"}).storage == drive / "rvc_core"
    write, mounted = snapshot._put, [True]
    monkeypatch.setattr(platforms, "is_mount", lambda path: mounted[-1])
    monkeypatch.setattr(snapshot, "_put", lambda *given: (write(*given), mounted.append(False)))
    with pytest.raises(StorageError, match="Drive is not there"):  # gone before the end: not saved
        save(trained(layout, 20), str(drive))


def test_a_folder_of_kaggle_or_lightning_counts_there_only(monkeypatch: pytest.MonkeyPatch) -> None:
    assert not platforms.is_reachable("/kaggle/working/x") and not platforms.is_reachable("/teamspace/x")
    monkeypatch.setenv("KAGGLE_KERNEL_RUN_TYPE", "Batch")
    assert platforms.is_reachable("/kaggle/working/x") and not platforms.is_reachable("/teamspace/x")


@pytest.mark.parametrize("number", [errno.ENOTCONN, errno.EIO])
def test_a_dead_mount_anywhere_counts_as_unmounted(
    number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stat = os.stat

    def dead(path: Any, **options: Any) -> os.stat_result:
        if str(path).startswith(str(tmp_path / "nas")):
            raise OSError(number, os.strerror(number), str(path))
        return stat(path, **options)

    monkeypatch.setattr(os, "stat", dead)
    assert not platforms.is_reachable(tmp_path / "nas") and platforms.is_reachable(tmp_path / "missing")
    with pytest.raises(StorageError, match="nas is not there"):
        find_saved(str(tmp_path / "nas"))
    with pytest.raises(DatasetError, match="cannot be reached"):
        find_recordings(tmp_path / "nas" / "takes")


def test_what_reads_back_differently_is_not_saved(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    layout, copy = trained(Layout.of("alice", tmp_path / "home"), 10), snapshot._copy

    def losing(source: Any, target: Any, *most: int) -> None:
        copy(source, target, *most)
        target.seek(0)
        target.write(b"?")

    monkeypatch.setattr(snapshot, "_copy", losing)
    with pytest.raises(StorageError, match="reads back differently"):
        save(layout, str(tmp_path / "place"))
    assert not (tmp_path / "place").exists() or not [*(tmp_path / "place").rglob("*")]
