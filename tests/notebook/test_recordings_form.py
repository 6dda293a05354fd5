"""The form that asks for recordings: it answers at once whatever is typed, and each upload is a set of its own."""

import datetime
import os
import re
import threading
import time
import zipfile
from pathlib import Path

import pytest

from rvc_core import notebook
from rvc_core.audio.waveform import Audio
from rvc_core.notebook import cells, recordings_form, results
from rvc_core.notebook.recordings_form import RecordingsForm, tree_of, uploads
from rvc_core.notebook.session import Session
from rvc_core.preparation import preview, typed_paths
from rvc_core.preparation.incoming import save_set
from rvc_core.preparation.preview import listing, offered, within
from rvc_core.system.platforms import Platform
from torture import voice


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("RVC_HOME", str(tmp_path / "rvc"))
    monkeypatch.setenv("HOME", str(tmp_path / "me"))
    (tmp_path / "takes").mkdir()
    for number in range(3):
        Audio(voice(0.5, number, 16_000), 16_000).save(tmp_path / "takes" / f"{number}.wav")
    return tmp_path


def form_of(home: Path, start: str = "") -> tuple[RecordingsForm, list[str]]:
    changed: list[str] = []
    return RecordingsForm(start, home / "uploads", changed.append), changed


def said(form: RecordingsForm) -> str:
    return re.sub("<[^>]+>", "", form.told.value)


def sent(*names: str, content: bytes = b"RIFF") -> tuple[dict[str, object], ...]:
    """What the browser sends for one choice of files."""
    now = datetime.datetime.now(datetime.UTC)
    return tuple(
        {"name": name, "type": "audio/wav", "size": len(content), "content": content, "last_modified": now}
        for name in names
    )


def test_nothing_is_listed_while_somebody_types(home: Path) -> None:
    form, changed = form_of(home)
    assert form.path.continuous_update is False
    form.path.value = f' "{home}/takes/" '
    assert "3 recordings" in said(form) and changed == [f'"{home}/takes/"']


def test_each_form_says_what_is_used_when_nothing_is_given(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    notebook.begin("alice")
    assert "“alice” has no recordings yet: give them below. Until then the cells make “demo”" in capsys.readouterr().out
    learned, converted = notebook.recordings(), notebook.songs()
    assert "voice inside" in said(learned) and "voice inside" in learned.path.placeholder
    assert "sentences inside" in said(converted) and "sentences inside" in converted.path.placeholder


@pytest.mark.parametrize("text", ["/", "~", "/proc", "/home", "/root"])
def test_a_whole_machine_is_answered_at_once_in_words(home: Path, text: str) -> None:
    (home / "me").mkdir()
    form, _ = form_of(home)
    began = time.monotonic()
    form.path.value = text
    assert time.monotonic() - began < 2 and "much more than recordings" in said(form) and "alert" in form.told.value


def test_a_large_folder_shows_its_first_files(home: Path) -> None:
    (home / "many").mkdir()
    for number in range(600):
        (home / "many" / f"{number:03}.wav").touch()
    form, _ = form_of(home, str(home / "many"))
    assert "500 recordings" in said(form) and "the first 500 files" in said(form)
    assert "600 recordings" in tree_of(home / "many"), "the cell lists all of them"


def test_a_slow_drive_is_listed_for_two_seconds(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(60):
        (home / "takes" / f"x{number}.wav").touch()
    monkeypatch.setattr(preview, "header_seconds", lambda path: time.sleep(0.1) or 60.0)
    began = time.monotonic()
    form, _ = form_of(home, str(home / "takes"))
    assert time.monotonic() - began < 6 and "what was listed within 2 s" in said(form)
    assert 10 < int(re.search(r"(\d+) recordings", said(form))[1]) < 30  # type: ignore[index]


def test_a_drive_that_hangs_does_not_hang_the_notebook(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    released = threading.Event()
    real = os.scandir
    monkeypatch.setattr(os, "scandir", lambda path: released.wait(20) and real(path))
    began = time.monotonic()
    form, _ = form_of(home, str(home / "takes"))
    assert time.monotonic() - began < 8 and "Not listed within 2 s" in said(form)
    released.set()


@pytest.mark.parametrize("error", [PermissionError(13, "Permission denied"), OSError(107, "not connected")])
def test_a_drive_that_is_gone_is_words(home: Path, monkeypatch: pytest.MonkeyPatch, error: OSError) -> None:
    form, _ = form_of(home)

    def scandir(path: object) -> object:
        raise error

    monkeypatch.setattr(os, "scandir", scandir)
    form.path.value = str(home / "takes")
    assert str(error.strerror) in said(form) and "alert" in form.told.value and "Traceback" not in said(form)
    with pytest.raises(OSError, match="anything"):
        within(1, lambda: (_ for _ in ()).throw(OSError(5, "anything")))


def test_links_and_wrong_things_are_named_in_the_form(home: Path) -> None:
    form, _ = form_of(home)
    for text, words in (
        ("https://example.org/a.zip", "the cell below fetches it"),
        ("https://youtu.be/dQw4w9WgXcQ", "YouTube"),
        ("https://drive.google.com/drive/folders/0123456789abc", "a folder of Google Drive"),
        (str(home / "nothing"), "there is no"),
        ("", "synthesised voice"),
    ):
        form.path.value = text
        assert words in said(form)
    (home / "takes" / "more.rar").write_bytes(b"Rar!")
    (home / "takes" / "notes.txt").touch()
    with zipfile.ZipFile(home / "takes" / "set.zip", "w") as archive:
        archive.writestr("a.wav", b"")
    form.path.value = str(home / "takes")
    told = said(form)
    assert "3 recordings" in told and "set.zip" in told and "cannot be unpacked here: more.rar" in told
    assert "left out: notes.txt" in told and told.count("└") == 1


def test_each_upload_counts_alone_and_the_form_says_what_it_holds(home: Path) -> None:
    form, changed = form_of(home)
    form.upload.value = sent("wrong.wav", "wrong 2.wav")
    assert "2 recordings" in said(form)
    form.upload.value = sent("right.wav")
    assert "1 recording, " in said(form) and "right.wav" in said(form) and "wrong" not in said(form)
    assert len(changed) == 2 and [path.name for path in Path(changed[1]).iterdir()] == ["right.wav"]
    assert sorted(path.name for path in Path(changed[0]).iterdir()) == ["wrong 2.wav", "wrong.wav"], "kept, not used"
    assert [*uploads({"a.wav": {"content": memoryview(b"x")}})] == [("a.wav", b"x")]


def test_the_second_song_is_converted_alone(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    notebook.begin("alice")
    sung = (home / "takes" / "0.wav").read_bytes()
    asked: list[list[str]] = []
    monkeypatch.setattr(results, "chosen_voice", lambda session: home / "alice.pth")
    monkeypatch.setattr(results, "play", lambda *arguments: None)
    monkeypatch.setattr(
        results,
        "run_command",
        lambda _, voice, *files, **options: (
            asked.append([Path(file).name for file in files if str(file).endswith(".wav")])
            or {"files": [{"output": file} for file in files if str(file).endswith(".wav")]}
        ),
    )
    form = notebook.songs()
    for name in ("one.wav", "two.wav"):
        form.upload.value = sent(name, content=sung)
        notebook.convert()
    assert asked == [["one.wav"], ["two.wav"]]


def test_colab_s_uploads_are_sets_and_a_cancelled_one_changes_nothing(home: Path, monkeypatch) -> None:
    import sys
    import types

    chosen = [["a.wav"], ["b.wav"], []]

    def upload(target: str) -> dict[str, bytes]:
        names = chosen.pop(0)
        for name in names:
            Path(target, name).write_bytes((home / "takes" / "0.wav").read_bytes())
        return dict.fromkeys(names, b"")

    colab = types.SimpleNamespace(files=types.SimpleNamespace(upload=upload))
    monkeypatch.setitem(sys.modules, "google.colab", colab)
    notebook.begin("alice")
    for expected in ("a.wav", "b.wav", "b.wav"):
        notebook.upload(wanted=True)
        assert [path.name for path in Path(Session.load().dataset).iterdir()] == [expected]
    assert len(list(Path(Session.load().dataset).parent.iterdir())) == 2


def test_what_was_given_is_remembered_beside_where_it_arrived(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A link stays a link, so that a new file behind it is noticed; Prepare fetches it without Report too."""
    for number in range(2):
        with zipfile.ZipFile(home / f"{number}.zip", "w") as archive:
            archive.write(home / "takes" / f"{number}.wav", f"{number}.wav")
    (home / "0.zip").replace(home / "set.zip")
    notebook.begin("alice", dataset=f"'{home}/set.zip'")
    prepared: list[list[str]] = []
    monkeypatch.setattr(
        cells.Experiment, "prepare", lambda lab, settings: prepared.append(os.listdir(lab.dataset)) or 1 / 0
    )
    for name in ("0.wav", "1.wav"):
        with pytest.raises(ZeroDivisionError):
            notebook.prepare()
        assert prepared[-1] == [name]
        if name == "0.wav":
            (home / "1.zip").replace(home / "set.zip")
    assert Session.load().dataset == f"'{home}/set.zip'"
    notebook.begin("alice")
    assert Session.load().lab.dataset == Path(Session.load().arrived)
    Session.remember(dataset=str(home / "takes"))
    assert Session.load().lab.dataset == home / "takes"
    notebook.report()


def test_what_a_platform_offers_is_no_whole_drive_and_does_not_take_long(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    studio = home / "studio"
    (studio / "set").mkdir(parents=True)
    for path in (studio / "a.wav", studio / "set" / "b.wav", studio / "c.zip"):
        path.touch()
    monkeypatch.setattr(typed_paths, "_WHOLE", (str(studio),))
    here = Platform("lightning", "Lightning.AI", studio, None)
    assert offered(here) == [studio / "*", studio / "c.zip", studio / "set"]
    for path in offered(here):
        assert typed_paths.meant(str(path))
    uploaded = save_set(home / "rvc" / "recordings" / "alice" / "uploads", [("a.wav", b"RIFF")])
    (home / "rvc" / "recordings" / "alice" / "links" / "x").mkdir(parents=True)
    (home / "rvc" / "recordings" / "alice" / "links" / "x" / "a.wav").touch()
    assert offered(here)[3:] == [uploaded], "an earlier upload can be chosen again"
    monkeypatch.setattr(preview, "PREVIEW_SECONDS", -1.0)
    assert offered(here) == [studio / "*"]


def test_a_listing_of_single_files_knows_what_they_are(home: Path) -> None:
    (home / "take").write_bytes((home / "takes" / "0.wav").read_bytes())  # a recording without a suffix
    (home / "notes.txt").write_text("text")
    found = listing([home / "take", home / "notes.txt"])
    assert found.seconds == {"take": 0.5} and found.left_out == ["notes.txt"]
    assert recordings_form.tree_of(home / "takes").splitlines()[0].startswith("takes/   3 recordings")
