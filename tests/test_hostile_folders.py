"""What strangers leave in shared folders and on servers: each is refused in a line, and nothing outside is touched."""

import copy
import io
import json
import logging
import os
import re
import shutil
import signal
import socket
import struct
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

import hostile_folders
from hostile_folders import ANSWERS, ATTACKS, BATCHES, DAMAGED, DAMAGES, READERS, SECRET, Ground
from rvc_core import batch
from rvc_core.audio.waveform import Audio
from rvc_core.errors import RVCError, SettingsError, StorageError, WeightsError
from rvc_core.nn.synthesizer import Synthesizer
from rvc_core.notebook.watching import _Frame
from rvc_core.preparation import links
from rvc_core.progress import Terminal
from rvc_core.settings import MirrorSettings, RuntimeSettings, TrainSettings
from rvc_core.system import documents
from rvc_core.system.download import Patience, download
from rvc_core.system.inside import refuse_links
from rvc_core.training import detached, outcome
from rvc_core.voices.share import card
from rvc_core.workspace.layout import Layout
from rvc_core.workspace.manifest import Clip, Manifest
from rvc_core.workspace.voice_file import VoiceFile, VoiceInfo, save_voice
from synth import phrase
from tiny import TINY, experiment

_PROCESSES = {"subprocess.Popen", "os.system", "os.exec", "os.posix_spawn", "os.fork", "os.kill", "os.killpg"}
_heard: list[str] | None = None


def _hear(event: str, arguments: tuple[Any, ...]) -> None:
    if _heard is not None and event in _PROCESSES and arguments[-1] != 0:  # signal 0 only asks
        _heard.append(f"{event}{arguments}")


sys.addaudithook(_hear)  # it can never be removed, so it only listens while `watched`


@contextmanager
def watched(sentinel: Path) -> Iterator[None]:
    """Nothing in a folder changes, none of it is copied beside it, and no process is started or signalled."""
    global _heard

    def state() -> dict[str, tuple[bytes, int, int]]:
        return {
            path.name: (path.read_bytes(), (at := path.stat()).st_ino, at.st_mtime_ns) for path in sentinel.iterdir()
        }

    before, _heard = state(), []
    try:
        yield
        assert not _heard
    finally:
        _heard = None
    assert state() == before
    for path in sentinel.parent.rglob("*"):
        if path.is_file() and not path.is_symlink() and sentinel not in path.parents and path.stat().st_size < 1 << 20:
            assert SECRET.encode() not in path.read_bytes(), f"{path} has a copy"


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An experiment, made once: each case gets a copy."""
    home = tmp_path_factory.mktemp("made")
    layout = experiment(home)
    Manifest([Clip(f"{number}_0", "a.wav", number, 1.0) for number in range(5)]).save(layout)
    Audio(phrase(1, seconds=1.0).samples, 16000).save(home / "recordings" / "1.wav")
    return home


@pytest.fixture
def ground(tmp_path: Path, made: Path, tiny: None, monkeypatch: pytest.MonkeyPatch) -> Ground:
    monkeypatch.setenv("RVC_HOME", str(tmp_path))
    shutil.copytree(made, tmp_path, dirs_exist_ok=True)
    (tmp_path / "sentinel").mkdir()
    for name in ("x", "0_0.wav", "G_10.pth", "experiment.json", "0_0.npy"):
        (tmp_path / "sentinel" / name).write_text(SECRET)
    return Ground(Layout.of("tiny", tmp_path), tmp_path / "sentinel")


def test_there_are_enough_of_them() -> None:
    assert len(DAMAGED) + len(ATTACKS) + len(BATCHES) + len(ANSWERS) >= 60 and min(map(len, (ATTACKS, ANSWERS))) >= 25


@pytest.mark.parametrize(("name", "damage"), DAMAGED, ids=[", ".join(one) for one in DAMAGED])
def test_a_damaged_file_is_named_once_and_the_rest_goes_on(
    name: str, damage: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("RVC_HOME", str(tmp_path))
    monkeypatch.setattr(documents, "_MOST_LINES_BYTES", 1 << 25)
    (sentinel := tmp_path / "sentinel").mkdir()
    (sentinel / "x").write_text(SECRET)
    layout, reader = Layout.of("a", tmp_path), READERS[name]
    path = reader.path(layout)
    path.parent.mkdir(parents=True, exist_ok=True)
    nothing = copy.deepcopy(reader.use(layout)) if reader.error is None else None
    DAMAGES[damage](path, sentinel)
    with watched(sentinel):
        if reader.error is None:
            assert reader.use(layout) == nothing == reader.use(layout)
            said = [record for record in caplog.records if path.name in record.message]
            assert len(said) == (0 if name.startswith("scores") else 1)
        else:
            with pytest.raises(reader.error, match=r"damaged|cannot be read") as caught:
                reader.use(layout)
            assert type(caught.value) is reader.error and path.name in str(caught.value) and caught.value.hint
            assert len(str(caught.value)) < 500


@pytest.mark.parametrize("name", ATTACKS)
def test_a_folder_that_leads_elsewhere(name: str, ground: Ground) -> None:
    attack = ATTACKS[name]
    attack.make(ground)
    with watched(ground.sentinel):
        if attack.error is None:
            attack.use(ground)
            return
        with pytest.raises(attack.error) as caught:
            attack.use(ground)
    assert re.search(attack.says, str(caught.value)), caught.value
    assert caught.value.hint and "\n" not in str(caught.value)


def test_the_keeper_runs_nothing_that_a_file_names(ground: Ground, monkeypatch: pytest.MonkeyPatch) -> None:
    layout, canary, ran = ground.layout, ground.home / "canary", list[list[str]]()
    settings = {"settings": TrainSettings(), "runtime": RuntimeSettings(), "mirror": MirrorSettings(mirror="none")}
    order = {name: one.stamp() for name, one in settings.items()} | {"processes": 1}
    hostile_folders.write_json(
        layout.run,
        {"pid": 1, "host": "x", "state": "running", "log_begins": 0}
        | dict.fromkeys(("command", "command_of_one"), ["touch", str(canary)]),
    )

    def run(layout: Layout, command: list[str], **environment: str) -> int:
        with layout.log.open("a") as log:
            log.write(detached.CANNOT_EXCHANGE + "\n")
        return ran.append(command) or 1

    layout.log.touch()
    monkeypatch.setattr(sys, "stdin", io.StringIO(json.dumps(order)))
    monkeypatch.setattr(detached, "_run", run)
    with watched(ground.sentinel):
        assert detached._keep(layout) == 1
    assert len(ran) == 3 and not canary.exists()
    for command in ran:
        assert command[:2] == [sys.executable, "-m"] and str(layout.root) in command and "touch" not in command
    assert "command" not in outcome.run_record(layout)


def test_an_index_behind_a_link_is_not_exported(ground: Ground) -> None:
    layout = ground.layout
    weights = Synthesizer(TINY, with_posterior=False).state_dict()
    save_voice(layout.final_voice, VoiceFile(TINY, weights, VoiceInfo("tiny")))
    layout.index(1, "nano").symlink_to(ground.sentinel / "x")
    layout.voice(9, 99).symlink_to(ground.sentinel / "x")
    with watched(ground.sentinel):
        hostile_folders._export(ground)
    assert layout.voices() == [layout.final_voice]


def test_a_name_makes_no_markup_in_the_card() -> None:
    info = VoiceInfo(
        "<img src=x onerror=alert(1)>\n# [a](http://x)", author="![t](http://x/pixel) | `y`", note="<script>"
    )
    page = card(VoiceFile(TINY, {}, info), ["a.pth"])
    assert not re.search(r"[<>`\[\]]", page) and page.count("\n# ") == 0 and len(page.splitlines()) < 20


# -- batches ---------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("name", BATCHES)
def test_a_hostile_batch(name: str, ground: Ground, monkeypatch: pytest.MonkeyPatch) -> None:
    text, says = BATCHES[name]
    (file := ground.home / "runs.yaml").write_bytes(text if isinstance(text, bytes) else text.encode())
    monkeypatch.setattr(batch, "execute", lambda *everything: pytest.fail("nothing may run"))
    with watched(ground.sentinel), pytest.raises(SettingsError, match=says) as caught:
        batch.run_all(file, ground.home / "out")
    assert caught.value.hint and len(str(caught.value)) < 1000 and not (ground.home / "out").exists()


def test_braces_in_a_path_are_a_name(ground: Ground, monkeypatch: pytest.MonkeyPatch) -> None:
    import papermill

    given: list[Any] = []

    def execute(source: str, output: str, parameters: dict[str, Any], **options: Any) -> None:
        given.extend([source.format(**parameters), output.format(**parameters)])  # as papermill does
        Path(parameters["result"]).write_text("{}")

    monkeypatch.setattr(papermill, "execute_notebook", execute)
    (place := ground.home / "out_{y}" / "{0}").parent.mkdir()
    place.with_name("{0}.ipynb").symlink_to(ground.sentinel / "x")
    with watched(ground.sentinel):
        assert batch.execute("batch_train", place, {"name": "a"}) == {}
    assert given[1] == f"{place}.ipynb" and Path(given[0]).is_file() and not Path(given[1]).is_symlink()


# -- servers ---------------------------------------------------------------------------------------------------------
@contextmanager
def answering(answer: bytes) -> Iterator[str]:
    """A server that says the same to everybody, and hangs up."""
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def serve() -> None:
            while True:
                try:
                    asked, _ = listening.accept()
                    with asked:
                        asked.recv(1 << 16)
                        asked.sendall(answer)
                except OSError:
                    return

        threading.Thread(target=serve, daemon=True).start()
        yield f"http://127.0.0.1:{listening.getsockname()[1]}/ü voice.wav"
        listening.shutdown(socket.SHUT_RDWR)


@pytest.mark.parametrize("name", ANSWERS)
def test_whatever_a_server_says_is_a_file_or_a_line(name: str, ground: Ground, monkeypatch: pytest.MonkeyPatch) -> None:
    haste = Patience(stall_seconds=2, attempts=1, wait_seconds=0.01, longest_wait_seconds=0.01)
    monkeypatch.setattr(links, "_PATIENCE", haste)
    with answering(ANSWERS[name]) as address, watched(ground.sentinel):
        for use in (
            lambda: download(address, ground.home / "a" / "x", "0" * 64, patience=haste),
            lambda: download(address, ground.home / "b" / "x", None, patience=haste),
            lambda: links.fetch(address, ground.home / "c"),
        ):
            try:
                made = use()
                assert made.is_relative_to(ground.home) and len(made.name.encode()) < 200
            except RVCError as error:
                assert error.hint and str(error).isprintable()
    assert not (ground.home / "a" / "x").exists()


@pytest.mark.parametrize("text", ["http://[::1", "http://a:b/", "http://\udcff/", "http://..", "http://", "file:///x"])
def test_what_is_no_address_is_said_in_a_line(text: str, tmp_path: Path) -> None:
    for use in (
        lambda: download(text, tmp_path / "x", None),
        lambda: hostile_folders.import_voices(text, root=tmp_path),
    ):
        with pytest.raises(WeightsError) as caught:
            use()
        assert caught.value.hint and "\n" not in str(caught.value)


def test_addresses_with_letters_beyond_ascii_arrive(tmp_path: Path) -> None:
    with answering(b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\nx") as address:
        path = download(f"{address}?q=ö ü#part", tmp_path / "x", None)
    assert path.read_bytes() == b"x"


def test_the_watch_hears(tmp_path: Path) -> None:
    (tmp_path / "sentinel").mkdir()
    with pytest.raises(AssertionError, match="os.kill"), watched(tmp_path / "sentinel"):
        os.kill(os.getpid(), signal.SIGCONT)
    with pytest.raises(AssertionError), watched(tmp_path / "sentinel"):
        (tmp_path / "sentinel" / "made").touch()
    (tmp_path / "copy").write_text(SECRET)
    with pytest.raises(AssertionError, match="has a copy"), watched(tmp_path / "sentinel"):
        logging.debug("nothing")


@pytest.mark.slow
def test_folders_below_folders_are_walked_without_recursion(tmp_path: Path) -> None:
    path = tmp_path
    for _ in range(sys.getrecursionlimit() + 100):
        (path := path / "d").mkdir()
    refuse_links(tmp_path)
    (path / "x").symlink_to("/")
    with pytest.raises(StorageError, match="x is a link"):
        refuse_links(tmp_path)
    (path / "x").unlink()
    os.removedirs(path)
    tmp_path.mkdir(exist_ok=True)


def test_what_is_shown_cannot_control_a_terminal(ground: Ground, capsys: pytest.CaptureFixture[str]) -> None:
    layout, evil = ground.layout, "\x1b[2J\x1b]0;x\x07"
    state = {"label": evil, "total": 2, "done": 1, "said": 1, "note": evil, "lines": [evil], "time": 0}
    hostile_folders.write_json(layout.beacon, state | {"usual_seconds": None})
    record = {"pid": 1, "host": "x", "state": "failed", "log_begins": 0, "error": evil, "hint": evil, "log": [evil]}
    hostile_folders.write_json(layout.run, record)
    hostile_folders.write_json(layout.experiment, {"name": evil, "dataset": evil, "preset": "nano"})
    with pytest.raises(RVCError) as caught:
        detached.watch(layout, Terminal(line_every_seconds=0))
    assert "\x1b" not in capsys.readouterr().err + str(caught.value) + caught.value.hint
    assert "\x1b" not in repr(hostile_folders.ExperimentRecord.load(layout))


def _record(content: bytes) -> bytes:
    """A record of TensorBoard's file."""
    from tensorboard.compat.tensorflow_stub.pywrap_tensorflow import masked_crc32c

    length = struct.pack("<Q", len(content))
    return b"".join([length, *(struct.pack("<I", masked_crc32c(length)), content)]) + struct.pack(
        "<I", masked_crc32c(content)
    )


@pytest.mark.parametrize("kind", ["record", "length", "picture", "large picture", "pipe"])
def test_a_damaged_log_of_tensorboard_leaves_the_curves(kind: str, ground: Ground) -> None:
    from tensorboard.compat.proto.event_pb2 import Event

    png = (b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR" + struct.pack(">II", 9, 9) + b"\x08\0\0\0\0") * (kind == "picture") or b"x"
    event = Event(step=1)
    event.summary.value.add(tag="all/mel").image.encoded_image_string = png
    if kind == "large picture":
        with io.BytesIO() as made:
            Image.new("L", (20_000, 1)).save(made, "PNG")
            event.summary.value[0].image.encoded_image_string = made.getvalue()
    path = ground.layout.root / "events.out.tfevents.1.x"
    if kind == "pipe":
        os.mkfifo(path)
    else:
        length = struct.pack("<Q", 1 << 40)
        content = {"record": _record(b"\xff" * 50), "length": length + _record(b"")[8:12]}
        path.write_bytes(content.get(kind, _record(event.SerializeToString())))
    rows = [{"kind": "step", "step": step, "epoch": 1, "loss/g/total": 1.0} for step in (1, 2)]
    (ground.layout.metrics).write_text("".join(json.dumps(row) + "\n" for row in rows))
    with watched(ground.sentinel):
        frame = _Frame(ground.layout)
        frame._look()
    assert frame._verdict and frame._newest_mels() == {}
