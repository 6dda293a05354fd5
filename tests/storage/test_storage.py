"""Saved experiments are whole or not there, and restored to where training was; storage that fails stops nothing."""

import errno
import fcntl
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO

import pytest

from rvc_core.cli import main
from rvc_core.errors import CheckpointError, RVCError, SettingsError, StorageError
from rvc_core.progress import Beside, Silent
from rvc_core.settings import MirrorSettings, TrainSettings
from rvc_core.storage import listing, mirror, places, snapshot
from rvc_core.storage.mirror import mirroring, told, trouble
from rvc_core.storage.places import find_saved, restore, save
from rvc_core.system.documents import read_json
from rvc_core.system.files import write_json
from rvc_core.system.platforms import Platform
from rvc_core.training import detached
from rvc_core.workspace.checkpoint import load_newest
from rvc_core.workspace.layout import Layout
from rvc_core.workspace.metrics import history
from rvc_core.workspace.retention import checkpoint_rows
from tiny import AfterSteps, experiment
from trained import trained, tree

TESTS = Path(__file__).parents[1]
SETTINGS = TrainSettings.of(
    epochs=3, batch_size=2, save_every_epochs=100, base_generator="none", base_discriminator="none"
)


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    return trained(Layout.of("алиса", tmp_path / "home"), 10)


@pytest.fixture
def place(tmp_path: Path) -> Path:
    return tmp_path / "place"


@pytest.fixture
def elsewhere(tmp_path: Path) -> Path:
    """The root of another machine."""
    return tmp_path / "another machine"


@pytest.fixture
def drive(tmp_path: Path) -> Iterator[Path]:
    """A file system of its own, 64 MB in memory."""
    (folder := tmp_path / "drive").mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64m", "tmpfs", folder], capture_output=True).returncode:
        pytest.skip("needs the right to mount a file system")
    yield folder
    subprocess.run(["umount", "--lazy", folder], capture_output=True)


def until(true: Callable[[], object], seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline, "it never came true"
        time.sleep(0.02)


# -- saved and restored --------------------------------------------------------------------------------------------
def test_a_lost_machine_costs_nothing_that_was_saved(tiny: None, tmp_path: Path, place: Path) -> None:
    """Training ends within an epoch, its folder is deleted, and another machine goes on to the very same voice."""
    from rvc_core.training.train import train

    lost, whole = experiment(tmp_path / "home"), experiment(tmp_path / "whole")
    train(lost, SETTINGS, stop=AfterSteps(4))  # an epoch has three
    save(lost, str(place))
    shutil.rmtree(lost.root)
    assert restore("tiny", str(place), root=tmp_path / "new").step == 4
    again = Layout.of("tiny", tmp_path / "new")
    assert train(again, SETTINGS).resumed_from == 4
    train(whole, SETTINGS)
    one, other = (load_newest(each).generator["model"] for each in (again, whole))
    assert all((one[key] == other[key]).all() for key in one)
    assert [row["step"] for row in history(again) if row["kind"] == "step"] == [*range(1, 10)]


def test_the_keeper_saves_what_the_trainer_left(layout: Layout, place: Path, pretend: Callable[[str], None]) -> None:
    report = {
        "epochs": 1,
        "steps": 10,
        "stopped_by": "epochs",
        "resumed_from": None,
        "seconds": 1.0,
        "voice": str(layout.final_voice),
        "heldout_mel_first": None,
        "heldout_mel_last": None,
    }
    pretend(f"record(report={report!r})")
    assert detached.start(layout, SETTINGS, mirror=MirrorSettings(mirror=str(place)))
    assert detached.watch(layout) == report
    assert told(layout) == f"saved to {place} just now: epoch 1" and told(layout) in layout.log.read_text()
    [found] = find_saved(str(place))
    assert found.epoch == 1 and found.settings["batch_size"] == 2


@pytest.mark.slow
def test_the_whole_way_from_a_training_in_the_background_to_another_machine(
    tiny: None, tmp_path: Path, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from rvc_core.training.train import train

    monkeypatch.setattr(detached, "_MODULE", "tiny_trainer")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(TESTS), os.environ.get("PYTHONPATH", "")]))
    lost = experiment(tmp_path / "home")
    notes: list[str] = []

    class Listening(Silent):
        def advance(self, note: str = "") -> None:
            notes.append(note)
            if "just now: epoch" in note:
                lost.stop.touch()

    detached.start(
        lost,
        SETTINGS.model_copy(update={"epochs": 20_000, "save_every_epochs": 50}),
        mirror=MirrorSettings(mirror=str(place)),
    )
    report = detached.watch(lost, Listening())
    assert report["stopped_by"] == "stop" and any(f"not saved to {place} yet" in note for note in notes)
    shutil.rmtree(lost.root)
    assert restore("tiny", str(place), root=tmp_path / "new").step == report["steps"]
    assert (
        train(
            Layout.of("tiny", tmp_path / "new"), SETTINGS.model_copy(update={"epochs": report["epochs"] + 1})
        ).resumed_from
        == report["steps"]
    )


def test_what_comes_back_is_what_was_saved(layout: Layout, place: Path, elsewhere: Path) -> None:
    (place / layout.slug).mkdir(parents=True)
    (place / layout.slug / "my notes.txt").write_text("mine")
    save(layout, str(place))
    before = tree(layout.root)
    trained(layout, 20)
    save(layout, str(place))
    after = restore("алиса", str(place), root=elsewhere)
    back = Layout.of("алиса", elsewhere)
    assert (after.epoch, after.step, after.place) == (2, 20, str(place))
    now, here = tree(back.root), tree(layout.root)
    assert now == {name: digest for name, digest in here.items() if not name.endswith(("_10.pth", "state_10.pt"))}
    assert [row["step"] for row in read_json(back.checkpoints, object)] == [20]
    trained(layout, 30)
    save(layout, str(place))  # the one before stays until now, the one before that goes
    names = {path.name for path in (place / layout.slug).iterdir()}
    assert {name.split(".")[0] for name in names if name.startswith("G_")} == {"G_20", "G_30"}
    assert "my notes.txt" in names and len([name for name in names if name.startswith("clips.")]) == 1
    (layout.clips / "4.wav").write_bytes(b"new")
    save(layout, str(place))
    assert restore("алиса", str(place), root=elsewhere).step == 30 and "0_gt_wavs/4.wav" in tree(back.root)
    assert len([*elsewhere.glob("logs/*.before-*")]) == 1 and before.items() - here.items()


def test_only_the_best_voices_go_along(layout: Layout, place: Path, elsewhere: Path) -> None:
    for step, mel in zip(range(20, 100, 10), (0.9, 0.2, 0.8, 0.3, 0.7, 0.6, 0.95, 0.99), strict=True):
        trained(layout, step, mel=mel)
    write_json(layout.pinned, [10])
    save(layout, str(place))
    restore("алиса", str(place), root=elsewhere)
    steps = [Layout.step_of(layout, path) for path in Layout.of("алиса", elsewhere).voices()]
    assert steps == [10, 30, 40, 50, 60, 70, 90, 0]  # pinned, the five best, the newest, the final one


def test_this_machine_is_not_set_back(layout: Layout, place: Path) -> None:
    save(layout, str(place))
    root = layout.root.parents[1]
    trained(layout, 20)
    before = tree(layout.root)
    assert restore("алиса", str(place), root=root).place == "this machine" and tree(layout.root) == before
    layout.checkpoints.write_text("[{")  # what is here is damaged
    assert restore("алиса", str(place), root=root).step == 10
    assert len([*layout.root.parent.glob("*.before-*")]) == 1
    lock = layout.lock.open("w")
    fcntl.flock(lock, fcntl.LOCK_EX)
    with pytest.raises(StorageError, match="being trained"):
        restore("алиса", str(place), root=root)


def test_an_experiment_that_another_session_left_is_taken_as_it_is(
    layout: Layout, elsewhere: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As Kaggle shows the output of a notebook, and Lightning.AI the artifacts of a job: deep down, to be read only."""
    deep = layout.root.parents[2] / "input/notebooks/owner/name/logs" / layout.slug
    deep.parent.mkdir(parents=True)
    layout.root.rename(deep)
    monkeypatch.setattr(
        places, "detect", lambda: Platform("kaggle", "Kaggle", elsewhere, elsewhere, earlier=(deep.parents[4]))
    )
    assert [found.step for found in find_saved()] == [10]
    assert restore("алиса", root=elsewhere).step == 10
    assert tree(Layout.of("алиса", elsewhere).root) == tree(deep)
    with pytest.raises(StorageError, match="no complete save of 'bob'"):
        restore("bob", root=elsewhere)
    with pytest.raises(StorageError) as mistyped:
        restore("алисса", root=elsewhere)
    assert mistyped.value.hint == "did you mean алиса?"


# -- storage that fails --------------------------------------------------------------------------------------------
def killed(layout: Layout, place: Path, after: int) -> bool:
    """Save in a process that is killed in the middle of a file; False when it had no more so many to write."""
    child = os.fork()
    if not child:
        left, copy = after, snapshot._copy

        def dying(source: BinaryIO, target: BinaryIO, *most: int) -> None:
            nonlocal left
            copy(source, target, *most)
            if not left:
                target.truncate(target.tell() // 2)
                os.kill(os.getpid(), signal.SIGKILL)
            left -= 1

        snapshot._copy = dying
        snapshot.write_save(layout, place, "here")
        os._exit(0)
    return os.WIFSIGNALED(os.waitpid(child, 0)[1])


def test_killed_in_any_file_the_save_before_counts(layout: Layout, place: Path, elsewhere: Path) -> None:
    place.mkdir()
    snapshot.write_save(layout, place, "here")
    trained(layout, 20)
    kills = 0
    while killed(layout, place, min(kills, 1)):  # each writes one file more, and dies in the next
        kills += 1
        assert restore("алиса", str(place), root=elsewhere / str(kills)).step == 10
    assert kills == 7 and restore("алиса", str(place), root=elsewhere).step == 20
    snapshot.write_save(layout, place, "here")
    assert not [*place.glob(".part-*")]  # what the killed left is gone


def test_a_full_storage_keeps_what_it_has(
    drive: Path, tmp_path: Path, elsewhere: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    layout = trained(Layout.of("alice", tmp_path), 10, kilobytes=35_000)
    save(layout, str(drive))
    trained(layout, 20, kilobytes=35_000)
    with pytest.raises(StorageError, match=r"drive is full: 35 MB needed, 32 MB free") as caught:
        save(layout, str(drive))
    assert "trash" in caught.value.hint and restore("alice", str(drive), root=elsewhere).step == 10
    trained(layout, 30, kilobytes=25_000)
    copy, ballast = snapshot._copy, drive / "ballast"

    def filling(*arguments: object) -> None:  # another program takes the room meanwhile
        with ballast.open("wb") as file, pytest.raises(OSError, match="No space"):
            while True:
                file.write(bytes(1 << 20))
                file.flush()
        copy(*arguments)

    with monkeypatch.context() as patch, pytest.raises(StorageError, match="drive is full"):
        patch.setattr(snapshot, "_copy", filling)
        save(layout, str(drive))
    assert restore("alice", str(drive), root=elsewhere).step == 10 and not [*drive.rglob(".part-*")]
    ballast.unlink()
    assert save(layout, str(drive)).step == 30


@pytest.mark.parametrize("free", [0, None])
def test_a_save_that_fails_leaves_no_empty_folder(
    free: int | None, layout: Layout, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if free is None:
        layout.checkpoints.unlink()  # nothing to save yet
        for path in (*layout.root.glob("[GD]_*.pth"), *layout.root.glob("state_*.pt")):
            path.unlink()
    else:
        monkeypatch.setattr(snapshot.shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(100, 100, free))
        monkeypatch.setattr(snapshot, "ensure_room", lambda folder, size: None)
    with pytest.raises(RVCError, match="no checkpoint yet" if free is None else "is full"):
        save(layout, str(place))
    assert not place.exists()
    (place / "mine").mkdir(parents=True)
    with pytest.raises(RVCError):
        save(layout, str(place))
    assert [*place.iterdir()] == [place / "mine"], "a folder that was there stays"


@pytest.mark.parametrize("below", ["", "saves", "saves/deeper"])
def test_a_file_where_a_folder_belongs_is_named(below: str, layout: Layout, tmp_path: Path) -> None:
    (song := tmp_path / "song.wav").write_bytes(b"sound")
    with pytest.raises(StorageError, match=r"song\.wav is a file, and a save needs a folder") as caught:
        save(layout, str(song / below))
    assert caught.value.hint == "choose a folder, or move the file" and song.read_bytes() == b"sound"


def test_a_file_with_the_name_of_the_experiment_is_named_too(layout: Layout, place: Path) -> None:
    place.mkdir()
    (taken := place / layout.slug).write_bytes(b"")
    with pytest.raises(StorageError, match=f"{taken} is a file"):
        save(layout, str(place))


def test_a_storage_that_may_only_be_read_is_named_and_restores(drive: Path, layout: Layout, elsewhere: Path) -> None:
    save(layout, str(drive))
    trained(layout, 20)
    subprocess.run(["mount", "-o", "remount,ro", drive], check=True)
    with pytest.raises(StorageError, match="is read-only"):
        save(layout, str(drive))
    assert restore("алиса", str(drive), root=elsewhere).step == 10


def test_a_storage_that_vanishes_in_mid_copy_is_not_made_anew_below(
    drive: Path, layout: Layout, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = places.Folder(drive)
    place.save(layout)  # from now on, the folder is there or the storage is not
    trained(layout, 20)

    def vanishing(*arguments: object) -> None:
        subprocess.run(["umount", "--lazy", drive], capture_output=True)
        raise OSError(errno.ENOTCONN, os.strerror(errno.ENOTCONN))

    with monkeypatch.context() as patch, pytest.raises(StorageError, match="is not there"):
        patch.setattr(snapshot, "_copy", vanishing)
        place.save(layout)
    with pytest.raises(StorageError, match="is not there"):
        place.save(layout)
    assert not [*drive.iterdir()]
    with pytest.raises(StorageError, match="is not there"):  # nor is the folder that it is in
        save(layout, str(drive / "not there" / "rvc"))


def test_damage_is_found_and_the_older_save_taken(
    layout: Layout, place: Path, elsewhere: Path, caplog: pytest.LogCaptureFixture
) -> None:
    save(layout, str(place))
    trained(layout, 20)
    save(layout, str(place))
    [generator] = (place / layout.slug).glob("G_20.*")
    damaged = bytearray(generator.read_bytes())
    damaged[100] ^= 1
    generator.write_bytes(damaged)
    assert restore("алиса", str(place), root=elsewhere).step == 10
    [manifest] = (place / layout.slug).glob("saved-e1-*.json")
    content = read_json(manifest, object)
    content["files"]["../../outside"] = content["files"].pop("G_10.pth")
    write_json(manifest, content)
    with pytest.raises(StorageError, match=r"no complete save .*G_20.*is damaged"):
        restore("алиса", str(place), root=elsewhere / "2")
    assert "files.../../outside" in caplog.text
    assert not [*elsewhere.rglob("outside*")]
    layout.generator(20).write_bytes(b"damaged here")
    with pytest.raises(CheckpointError, match="damaged on this machine"):
        save(layout, str(place))


# -- while training goes on ----------------------------------------------------------------------------------------
@pytest.mark.parametrize("seconds", [0.02, pytest.param(0.2, marks=pytest.mark.slow)])
def test_a_slow_storage_is_waited_for_and_delays_no_step(
    layout: Layout, place: Path, seconds: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So long for whatever is opened, renamed, removed or listed there, and for each file that is written."""
    monkeypatch.setenv("SLOW_SECONDS", str(seconds))
    monkeypatch.setattr(mirror, "_MODULE", "slow_mirror")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(TESTS), os.environ.get("PYTHONPATH", "")]))
    said: list[str] = []
    monkeypatch.setattr(mirror, "_QUICK_SECONDS", 0.1)
    began = time.monotonic()
    with mirroring(layout, MirrorSettings(mirror=str(place)), said.append):
        assert not layout.mirrored.exists()  # training begins at once
        until(lambda: "not saved" in told(layout))
    assert "to storage, 10 min at most" in said[0] and said[1] == f"saved to {place} just now: epoch 1"
    assert time.monotonic() - began > 30 * seconds  # it was slow indeed
    state = read_json(layout.mirrored, object)
    write_json(
        layout.mirrored, state | {"busy": time.time() - 300, "saved": state["saved"] | {"time": time.time() - 400}}
    )
    assert told(layout) == (f"saving to {place} takes longer than 2 min; saved to {place} 7 min ago: epoch 1")


def test_a_storage_that_hangs_does_not_hold_the_end_of_training(
    layout: Layout, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SLOW_SECONDS", "60")  # for whatever is opened there
    monkeypatch.setattr(mirror, "_MODULE", "slow_mirror")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(TESTS), os.environ.get("PYTHONPATH", "")]))
    monkeypatch.setattr(mirror, "_QUICK_SECONDS", 0.3)
    monkeypatch.setattr(mirror, "_END_SECONDS", 0.6)
    said: list[str] = []
    with mirroring(layout, MirrorSettings(mirror=str(place)), said.append):
        began = time.monotonic()
    assert time.monotonic() - began < 2 and "only this machine has it" in said[-1] == trouble(layout)


class _Recording:
    """A place that only counts."""

    title, least_seconds = "Drive", 0.0

    def __init__(self) -> None:
        self.steps: list[int] = []

    def save(self, layout: Layout) -> listing.Save:
        save = listing.Save.of_experiment(layout, "Drive")
        self.steps.append(save.step)
        return save.model_copy(update={"time": time.time()})


def test_it_saves_by_minutes_at_a_new_best_and_at_the_end(layout: Layout, monkeypatch: pytest.MonkeyPatch) -> None:
    place, mounted = _Recording(), []
    monkeypatch.setattr(mirror, "_LOOK_SECONDS", 0.01)
    monkeypatch.setattr(mirror, "_AGAIN_SECONDS", 0.01)

    def find(text: str, layout: Layout) -> _Recording:
        if not mounted:
            raise StorageError("no storage mounted", hint="mount Drive")
        return place

    monkeypatch.setattr(mirror, "place_of", find)
    reading, writing = os.pipe()
    monkeypatch.setattr(sys, "stdin", os.fdopen(reading))
    thread = threading.Thread(target=mirror._mirror, args=(layout, "auto", 1000.0))
    thread.start()
    until(lambda: trouble(layout) == "no storage mounted (mount Drive)")
    mounted.append(True)
    until(lambda: told(layout) == "saved to Drive just now: epoch 1")
    trained(layout, 20)  # no judgement: it waits for the minutes
    time.sleep(0.1)
    assert place.steps == [10] and trouble(layout) == ""
    for step, mel in ((30, 0.5), (40, 0.6), (50, 0.4)):
        trained(layout, step, mel=mel)
        time.sleep(0.1)
    assert place.steps == [10, 30, 50]
    trained(layout, 60)
    os.close(writing)
    thread.join(10)
    assert place.steps == [10, 30, 50, 60]


def test_what_stands_in_the_way_is_in_the_line_that_people_watch(layout: Layout) -> None:
    notes: list[str] = []

    class Noting(Silent):
        def advance(self, note: str = "") -> None:
            notes.append(note)

    progress = Beside(Noting(), lambda: told(layout))
    progress.advance("mel 20")
    write_json(
        layout.mirrored,
        {
            "title": "Drive",
            "problem": "Drive is full",
            "busy": None,
            "saved": {"epoch": 120, "step": 9, "time": time.time() - 180},
        },
    )
    progress.advance("mel 19")
    assert notes == ["mel 20", "mel 19 · Drive is full; saved to Drive 3 min ago: epoch 120"]


# -- places --------------------------------------------------------------------------------------------------------
HUB = """
import os, pathlib, shutil
hub = pathlib.Path(os.environ["HUB"])
def dataset_upload(handle, local_dataset_dir, version_notes=""):
    if (hub / "busy").exists():
        raise PermissionError("403 Client Error: a version is being processed")
    versions = len([*hub.glob("*/*/*")])
    shutil.copytree(local_dataset_dir, hub / handle / str(versions + 1))
def dataset_download(handle):
    print("Downloading")
    folder = max((hub / handle).iterdir(), key=lambda path: int(path.name))
    for archive in folder.glob("*.tar") if os.environ.get("UNPACKS") else ():
        shutil.unpack_archive(archive, folder)
        archive.unlink()
    return str(folder)
"""


def test_a_kaggle_dataset_gets_one_archive_for_each_save(
    layout: Layout, tmp_path: Path, elsewhere: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With a double of kagglehub, whose two functions are called as its source has them; Kaggle may unpack archives."""
    (hub := tmp_path / "hub").mkdir()
    (tmp_path / "kagglehub.py").write_text(HUB)
    for name, value in (("HUB", str(hub)), ("PYTHONPATH", str(tmp_path))):
        monkeypatch.setenv(name, value)
    save(layout, "kaggle:me/alice-voice")
    trained(layout, 20)
    save(layout, "kaggle:me/alice-voice")
    for version in "12":
        assert [path.name for path in (hub / "me/alice-voice" / version).iterdir()] == [f"{layout.slug}.tar"]
    assert restore("алиса", "kaggle:me/alice-voice", root=elsewhere).place == "the Kaggle dataset me/alice-voice"
    monkeypatch.setenv("UNPACKS", "1")
    restore("алиса", "kaggle:me/alice-voice", root=elsewhere / "2")
    assert load_steps(elsewhere) == load_steps(elsewhere / "2") == [20]
    (hub / "busy").touch()
    with pytest.raises(StorageError, match="refused: .*a version is being processed"):
        save(layout, "kaggle:me/alice-voice")


def load_steps(root: Path) -> list[int]:
    return [row["step"] for row in checkpoint_rows(Layout.of("алиса", root))]


def test_the_place_is_the_platforms_own_unless_the_experiment_is_there(
    layout: Layout, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert places.place_of("auto", layout) is None and places.place_of("none", layout) is None

    def at(name: str, kept: Path | None) -> None:
        monkeypatch.setattr(places, "detect", lambda: Platform(name, name.title(), tmp_path, kept))

    at("colab", None)
    with pytest.raises(StorageError, match="no storage mounted"):
        places.place_of("auto", layout)
    at("colab", Path("/content/drive/MyDrive/rvc_core"))
    assert places.place_of("auto", layout).title == "Drive"
    at("kaggle", tmp_path)
    assert places.place_of("auto", layout) is None
    with pytest.raises(SettingsError, match="dataset"):
        places.place_of("kaggle:alice", layout)
    with pytest.raises(SettingsError, match="dataset"):
        detached.start(layout, TrainSettings(), mirror=MirrorSettings(mirror="kaggle:alice"))


def test_the_command_line_saves_lists_and_restores(
    layout: Layout, place: Path, elsewhere: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def answer(*command: str) -> dict[str, object]:
        main([*command, "--json"])
        return json.loads(capsys.readouterr().out.splitlines()[-1])

    monkeypatch.setenv("RVC_HOME", str(layout.root.parents[1]))
    assert answer("save", "алиса", "--to", str(place))["epoch"] == 1
    assert "nowhere to save" in answer("save", "алиса")["error"]
    assert "no experiment" in answer("save", "bob", "--to", str(place))["error"]
    monkeypatch.setenv("RVC_HOME", str(elsewhere))
    assert [row["name"] for row in answer("restore", "--from", str(place))["saved"]] == ["алиса"]
    assert answer("restore", "алиса", "--from", str(place))["step"] == 10 and load_steps(elsewhere) == [10]
