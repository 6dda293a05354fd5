"""Commands and unattended runs take recordings as the forms do: a folder, a zip, a pattern or a link."""

import http.server
import json
import os
import threading
import zipfile
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from rvc_core import batch
from rvc_core.audio.recordings import find_recordings
from rvc_core.audio.waveform import Audio
from rvc_core.cli import main
from rvc_core.cli.arguments import Voice
from rvc_core.conversion.naming import songs_in
from rvc_core.errors import SettingsError
from rvc_core.preparation import links
from rvc_core.song_settings import SongSettings
from rvc_core.system.download import Patience
from rvc_core.voice import FailedFile
from torture import voice


class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *arguments: object) -> None:
        pass


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Recordings in `takes`, the same in `set.zip`, and a server for both at ``$URL``."""
    monkeypatch.setenv("RVC_HOME", str(tmp_path / "root"))
    monkeypatch.setenv("no_proxy", "*")
    monkeypatch.setattr(links, "_PATIENCE", Patience(2.0, 2, 0.01, 0.02))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "takes").mkdir()
    with zipfile.ZipFile(tmp_path / "set.zip", "w") as archive:
        for number in range(2):
            Audio(voice(3.0, number, 16_000), 16_000).save(tmp_path / "takes" / f"{number}.wav")
            archive.write(tmp_path / "takes" / f"{number}.wav", f"inside/{number}.wav")
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=tmp_path))
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    monkeypatch.setenv("URL", f"http://127.0.0.1:{server.server_port}")
    yield tmp_path
    server.shutdown()
    thread.join()
    server.server_close()


def link(name: str) -> str:
    return f"{os.environ['URL']}/{name}"


@pytest.mark.parametrize("text", ["takes", "set.zip", "takes/*.wav", "'takes'", "LINK/set.zip"])
def test_prepare_takes_recordings_from_anywhere(here: Path, text: str, capsys: pytest.CaptureFixture[str]) -> None:
    text = text.replace("LINK/", link(""))
    assert main(["prepare", "alice", "--dataset", text, "--json", "--quiet"]) == 0
    first = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert first["seconds_in"] == pytest.approx(6.0, abs=0.1)
    assert main(["prepare", "alice", "--dataset", text, "--json", "--quiet"]) == 0
    assert json.loads(capsys.readouterr().out.splitlines()[-1])["skipped"], "brought once, and up to date"
    assert main(["inspect", text, "--json", "--quiet"]) == 0
    assert len(json.loads(capsys.readouterr().out.splitlines()[-1])["recordings"]) == 2


def test_convert_takes_them_too_and_answers_in_the_order_of_the_inputs(
    here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    asked: list[Path] = []

    class Double:
        def convert_all(self, inputs: list[Path], *rest: object, **options: object) -> list[FailedFile]:
            asked.extend(inputs)
            return [FailedFile(str(one), "made", "") for one in inputs]

    monkeypatch.setattr(Voice, "load", lambda *arguments, **options: Double())
    (here / "alice").touch()
    (here / "page.wav").write_bytes(b"<!DOCTYPE html>")
    inputs = [
        "nobody.wav",
        "takes/0.wav",
        "page.wav",
        link("takes/1.wav"),
        "set.zip",
        "https://youtu.be/x",
    ]
    assert main(["convert", "alice", *inputs, "--json", "--quiet"]) == 1
    files = json.loads(capsys.readouterr().out.splitlines()[-1])["files"]
    said = ["there is no", "made", "a web page", "made", "made", "made", "page of YouTube"]
    assert [words for words, file in zip(said, files, strict=True) if words not in file["error"]] == []
    assert [path.name for path in asked] == ["0.wav", "1.wav", "0.wav", "1.wav"]


def test_unattended_runs_take_links_and_zips(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[list[str]] = []
    monkeypatch.setattr(
        batch.Experiment, "run", lambda lab, *stages: seen.append([*find_recordings(lab.dataset).recordings]) or {}
    )
    for text in (link("set.zip"), "set.zip", "takes/*.wav"):
        batch.train_voice("alice", text, str(here / "result.json"), {})
    assert seen == [["inside/0.wav", "inside/1.wav"]] * 2 + [["0.wav", "1.wav"]]
    address = link("set.zip")
    (here / "runs.yaml").write_text(f"runs: [{{name: a, dataset: '{address}', convert: set.zip}}]")
    [plan] = batch.read_plans(here / "runs.yaml")
    assert plan.dataset == address and plan.inputs == str(here / "set.zip")
    before = [*batch._depends(plan)]
    assert before == [*batch._depends(plan)] and len(before) == 3
    with zipfile.ZipFile(here / "set.zip", "a") as archive:
        archive.writestr("more.wav", b"RIFF")
    assert before != [*batch._depends(plan)], "a run whose recordings are others is run again"


# -- songs -------------------------------------------------------------------------------------------------------------
def test_song_names_voices_by_part_and_answers_for_every_song(
    here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    loaded: list[str] = []
    sung: list[tuple[str, bool, bool]] = []

    class Double:
        def __init__(self, name: str) -> None:
            loaded.append(name)

        def sing_all(self, songs: list[Path], folder: Path, song: SongSettings, *rest: object, **how: object):
            sung.extend((one.name, how["backing"] is not None, song.preview) for one in songs)
            return [FailedFile(str(one), "made", "") for one in songs]

    monkeypatch.setattr(Voice, "load", lambda name, *arguments, **options: Double(name))
    for name in ("alice", "bob", "a=b.pth"):
        (here / name).touch()
    for words, voices, expected in (
        (["alice", "takes/0.wav"], ["alice"], [("0.wav", False, False)]),
        (["alice", "takes/0.wav", "--preview"], ["alice"], [("0.wav", False, True)]),
        (
            ["--voice", "a=b.pth=lead", "--voice", "bob=backing", "set.zip"],
            ["a=b.pth", "bob"],
            [("0.wav", True, False)] * 2,
        ),
        (["alice", "takes", "nowhere"], ["alice"], [("0.wav", False, False)] * 2),
    ):
        loaded.clear()
        sung.clear()
        main(["song", *words, "--output", "out", "--json", "--quiet"])
        answer = json.loads(capsys.readouterr().out.splitlines()[-1])
        assert loaded == voices and len(sung) == len(expected), words
        assert [one[1:] for one in sung] == [one[1:] for one in expected]
        assert len(answer["files"]) == len(expected) + ("nowhere" in words)
    for words, told in (
        (["alice"], "no song was given"),
        (["alice", "--preview", "takes/0.wav"], "--preview takes no value"),
        (["--voice", "alice=lead", "--voice", "bob=lead", "takes"], "a part is named twice"),
        (["alice", "takes", "--voice", "bob=bass"], "does not name a part"),
        (["alice", "takes", "--key-semitones", "40"], "--key-semitones must be from -12 to 12"),
        (["alice", "takes", "--vocals-db", "loud"], "--vocals-db must be auto or a number of dB"),
        (["alice", "takes", "--output", "set.zip"], "cannot be a folder"),
    ):
        assert main(["song", *words, "--json", "--quiet"]) == 1
        answer = json.loads(capsys.readouterr().out.splitlines()[-1])
        assert told in answer["error"] and answer["hint"], words


def test_what_was_made_of_songs_is_no_song(tmp_path: Path) -> None:
    for name in ("a.wav", "a_v/01 vocals.flac", "a_v/song.json", "separated/a/vocals/vocals.wav"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / "separated/a/vocals/separation.json").touch()
    assert songs_in([tmp_path], tmp_path) == [tmp_path / "a.wav"]
    with pytest.raises(SettingsError, match="no songs found"):
        songs_in([tmp_path / "a_v"], tmp_path / "out")
