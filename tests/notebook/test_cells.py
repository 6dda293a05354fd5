"""What notebooks show: pictures and words of a training, TensorBoard, players."""

import io
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
import types
import urllib.request
from base64 import b64decode
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile
from matplotlib.image import imread

from histories import simulate
from rvc_core.audio.waveform import Audio
from rvc_core.errors import ResourceError, StageOrderError, WeightsError
from rvc_core.experiment import Experiment
from rvc_core.notebook import listening, outcome, plots, tensorboard_server, watching
from rvc_core.notebook.compare import Comparison, chosen, preferences, record_choice
from rvc_core.notebook.tensorboard_server import show, start, stop
from rvc_core.notebook.texts import LANGUAGES
from rvc_core.system.files import write_jsonl
from rvc_core.system.platforms import detect
from rvc_core.verdict.learning_curve import History
from rvc_core.verdict.overtraining import NOTHING_HELD_OUT, Candidate, verdict_of
from rvc_core.workspace.layout import Layout
from synth import phrase


class Display:
    """Stands for the notebook: keeps every frame of its displays."""

    def __init__(self) -> None:
        self.places: list[list[dict[str, str]]] = []

    def handle(self):
        frames: list[dict[str, str]] = []

        def display(bundle, raw):
            assert raw and not frames, "one display, drawn again"
            self.places.append(frames)
            frames.append(bundle)

        def update(bundle, raw):
            assert raw and frames
            frames.append(bundle)

        return types.SimpleNamespace(display=display, update=update)

    @property
    def top(self) -> dict[str, str]:
        return [place for place in self.places if "<img" not in place[-1]["text/html"]][-1][-1]

    @property
    def below(self) -> dict[str, str]:
        return self.places[-1][-1]


@pytest.fixture
def notebook(monkeypatch):
    shown = Display()
    monkeypatch.setattr("IPython.display.DisplayHandle", shown.handle)
    return shown


def test_a_history_becomes_one_picture_a_question_and_words_that_say_the_same():
    simulated = simulate(1)
    verdict = verdict_of(simulated.records)
    drawn = plots.pictures(History.of(simulated.records), verdict, {})
    assert [one.png[:4] for one in drawn] == [b"\x89PNG"] * 6
    for one in drawn:  # no title runs over the edge
        image = imread(io.BytesIO(one.png))
        assert np.ptp(image[: image.shape[0] // 5, -8:], axis=(0, 1)).max() < 0.01, one.words
    said = " ".join(one.words for one in drawn)
    assert f"take epoch {verdict.best.epoch}" in said
    assert f"lowest at epoch {verdict.turning_points['loss/g/total']['epoch']}" in said
    assert f"worse since epoch {verdict.turning_points['heldout/mel']['epoch']}" in said


@pytest.mark.parametrize("values", [(0.5345, 0.536), (-12345.5, -12300.25), (1.00001, 1.00002), (3.0, 90.0)])
def test_no_number_beside_a_curve_is_cut_off(values: tuple[float, float]) -> None:
    drawn = plots.picture(plots.Drawing("title", "term", "words", lambda axes: axes.plot([0, 1], values)))
    image = imread(io.BytesIO(drawn.png))
    edge = image[image.shape[0] // 5 :, : image.shape[1] // 50]
    assert np.ptp(edge, axis=(0, 1)).max() < 0.01


def test_watching_a_finished_training_shows_its_verdict_once(tmp_path: Path, notebook, monkeypatch) -> None:
    lab = Experiment.open("Алиса <b>", home=tmp_path)
    with pytest.raises(StageOrderError):
        watching.watch(lab)
    lab.layout.root.mkdir(parents=True)
    lab.layout.metrics.touch()
    assert watching.watch(lab) is None
    assert "Nothing is trained yet" in notebook.top["text/plain"]
    with monkeypatch.context() as patch:
        patch.setattr("rvc_core.training.detached.is_running", lambda layout: True)
        watching._Frame(lab.layout).draw()
    assert "getting ready: Loading." in notebook.top["text/plain"]
    records = simulate(0).records
    write_jsonl(lab.layout.metrics, records)
    for row in records:
        if row["kind"] == "voice":
            (lab.layout.root / row["path"]).touch()
    watching.watch(lab)
    best = verdict_of(records).best
    assert f"Take epoch {best.epoch}, not the last" in notebook.top["text/plain"]
    assert "Next: run “Listen and choose”" in notebook.top["text/plain"]
    assert [len(frames) for frames in notebook.places[-2:]] == [1, 1]
    assert notebook.places[-2][-1] == notebook.top, "the outcome stands above the pictures"
    page = notebook.below["text/html"]
    shown, folded = re.split("<details [^>]*>", page)
    alts = re.findall(r'<img alt="([^"]+)"', shown), re.findall(r'<img alt="([^"]+)"', folded)
    assert len(alts[0]) == 2 and len(alts[1]) >= 1 and all(map(all, alts))
    assert re.findall("<(script|b)>", page) == ["script"], "the one that keeps the details open"
    assert shown.index("Distance to unheard recordings") and "heldout/mel" not in shown and "heldout/mel" in folded


def test_a_lone_point_is_not_drawn_and_a_time_is_told_only_when_it_is_known() -> None:
    rows = [{"kind": "step", "step": 1, "epoch": 1, "loss/g/mel": 20.0, "loss/g/total": 30.0}]
    rows += [{"kind": "validation", "step": 1, "epoch": 1, "heldout/mel": 0.5}]
    assert plots.pictures(History.of(rows), verdict_of(rows), {}) == []
    state = {"label": "training", "total": 1000, "done": 19, "note": "", "usual_seconds": 6.0, "time": 0}
    assert outcome.minutes_left(state) is None
    assert outcome.minutes_left({**state, "done": 20, "usual_seconds": 1.0}) is None  # 20 s
    assert outcome.minutes_left({**state, "done": 20}) == 98
    assert outcome.minutes_left({**state, "done": 20, "note": "epoch 3/9 · 12 min left, enough for 7 epochs"}) == 12
    early = verdict_of(rows)
    assert early.state == "cannot_tell" and "take epoch" not in plots._candidates_in_words(early)
    told = outcome.headline(verdict_of(simulate(3).records), 98.0)
    assert "Getting better. Take epoch" in told and "About 1 h 40 min left." in told


@pytest.mark.parametrize("code", LANGUAGES)
def test_without_unheard_recordings_watch_says_that_it_cannot_judge(code: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RVC_LANG", code)
    rows = [{"kind": "step", "step": 1, "epoch": 1, "loss/g/mel": 20.0, "loss/g/total": 30.0}]
    early, unjudged = verdict_of(rows), replace(verdict_of(rows), sentence=NOTHING_HELD_OUT)
    assert outcome.headline(early) != outcome.headline(unjudged)
    assert {"en": "judge by ear", "pt": "julgue de ouvido"}[code] in outcome.headline(unjudged)


@pytest.mark.parametrize("how", ["epochs", "time", "stop", "interrupt", "verdict"])
@pytest.mark.parametrize("code", LANGUAGES)
def test_every_ending_says_what_to_take_and_what_to_run(code: str, how: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RVC_LANG", code)
    for seed in range(7):
        verdict = verdict_of(simulate(seed).records)
        told = outcome.ending(verdict, {"state": "done", "report": {"stopped_by": how}})
        assert str(verdict.best.epoch) in told and {"en": "Listen and choose", "pt": "Ouvir e escolher"}[code] in told
    assert outcome.ending(verdict, {"state": "failed"}) != outcome.ending(verdict, {})


def test_the_voice_as_it_is_now_stands_beside_a_recording_it_never_heard(tmp_path: Path, notebook) -> None:
    from torch.utils.tensorboard import SummaryWriter

    lab = Experiment.open("alice", home=tmp_path)
    lab.layout.heldout.clips.mkdir(parents=True)
    Audio(phrase(1, seconds=2.0).samples, 16000).save(lab.layout.heldout.clips / "1_0.wav", float32=True)
    rows = [{"kind": kind, "step": step, "epoch": step // 5} for kind in ("step", "validation") for step in (10, 20)]
    write_jsonl(lab.layout.metrics, rows)
    for tag, label, seconds in (
        ("heldout", "The voice after epoch 4", 3.0),
        ("heldout/saved", "The saved voice of epoch 4", 3.5),
    ):
        board = SummaryWriter(str(lab.layout.eval_board))
        for step in (10, 20):
            board.add_audio(tag, phrase(step, seconds=seconds - 2 + step / 10).samples[None], step, 16000)
        board.close()
        watching.watch(lab)
        players = re.findall(r'<audio aria-label="([^"]+)".*?base64,([^"]+)"', notebook.below["text/html"])
        assert [label for label, _ in players] == ["A recording it never heard", label]
        lengths = [
            len(samples) / rate
            for _, data in players
            for samples, rate in [soundfile.read(io.BytesIO(b64decode(data)))]
        ]
        assert np.allclose(lengths, [2.0, seconds], atol=0.15)


def test_watch_says_where_training_is_saved_or_why_not(tmp_path: Path, notebook) -> None:
    layout = Layout.of("alice", tmp_path)
    layout.root.mkdir(parents=True)
    layout.metrics.touch()
    state = {"title": "Drive", "saved": None, "problem": "", "busy": None}
    for changed, told in (
        ({}, "not saved to Drive yet"),
        ({"problem": "Drive is full (free space there)"}, "Drive is full (free space there)"),
        ({"saved": {"epoch": 9, "step": 90, "time": time.time()}}, "saved to Drive just now: epoch 9"),
    ):
        layout.mirrored.write_text(json.dumps(state | changed))
        watching._Frame(layout).draw()
        assert told in notebook.top["text/plain"] and told in notebook.top["text/html"]


def test_tensorboard_answers_with_our_tags_and_all_their_points(tmp_path: Path, monkeypatch) -> None:
    from torch.utils.tensorboard import SummaryWriter

    (planted := tmp_path / "tmp" / ".tensorboard-info").mkdir(parents=True)  # anybody may write there
    os.mkfifo(planted / "pid-1.info")
    (planted / "pid-2.info").write_text("[" * 100_000)
    monkeypatch.setenv("TMPDIR", str(tmp_path / "tmp"))
    monkeypatch.setattr(tempfile, "tempdir", None)
    lab = Experiment.open("alice", home=tmp_path)
    lab.layout.root.mkdir(parents=True)
    board = SummaryWriter(str(lab.layout.root))
    for step in range(3000):
        board.add_scalar("loss/g/total", 30 / (step + 1), step)
    board.close()
    port = start(lab.layout)
    try:
        address = f"http://127.0.0.1:{port}/data/plugin/scalars/"
        tags = _answer(address + "tags", lambda found: found.get("."))
        assert "loss/g/total" in tags["."]
        points = _answer(address + "scalars?run=.&tag=loss%2Fg%2Ftotal", lambda found: len(found) == 3000)
        assert len(points) == 3000 and points[-1][1] == 2999
        assert start(lab.layout) == port, "asked again, the same server"
    finally:
        assert stop(lab.layout.root) == 1


@pytest.fixture
def servers(tmp_path: Path) -> Iterator[Callable[..., subprocess.Popen[bytes]]]:
    """Stand-ins for TensorBoard: processes with such a command line; they end with the test."""
    (tmp_path / "tensorboard").mkdir()
    (tmp_path / "tensorboard" / "__init__.py").touch()
    (tmp_path / "tensorboard" / "main.py").write_text("import time\nprint('up', flush=True)\ntime.sleep(60)\n")
    begun: list[subprocess.Popen[bytes]] = []

    def begin(*arguments: str) -> subprocess.Popen[bytes]:
        process = subprocess.Popen([sys.executable, *arguments], cwd=tmp_path, stdout=subprocess.PIPE)
        begun.append(process)
        assert process.stdout is not None and process.stdout.readline() == b"up\n"
        return process

    yield begin
    for process in begun:
        process.kill()
        process.communicate()


def test_only_a_server_that_we_started_is_shown_or_ended(tmp_path: Path, servers, monkeypatch) -> None:
    layout = Layout.of("alice", tmp_path)
    layout.root.mkdir(parents=True)
    module = ("-m", "tensorboard.main", "--logdir")
    ours = servers(*module, str(layout.root), "--port", "6100", "--host", "localhost")
    for other in (
        (*module, str(layout.root), "--bind_all"),  # somebody's own, for the same folder
        (*module, str(layout.root) + "_2", "--port", "6101"),  # another voice's
        ("tensorboard/main.py", "--logdir", str(layout.root), "--port", "6102"),
        (str(tmp_path / "tensorboard" / "main.py"), *module, str(layout.root), "--port", "6103"),
    ):
        servers(*other)
    assert [one.port for one in tensorboard_server._ours([layout.root])] == [6100] and start(layout) == 6100
    with monkeypatch.context() as patch:
        patch.setattr(os, "getuid", lambda: 54321)  # we are somebody else
        assert tensorboard_server._ours([layout.root]) == [] and stop(layout.root) == 0
    assert ours.poll() is None
    assert stop(layout.root) == 1 and ours.wait(5) == -signal.SIGTERM
    assert stop(layout.root) == 0
    assert stop(layout.root.parent) == 1, "clean up ends those of other voices too"


def test_a_server_without_its_folder_is_not_shown_but_ended(tmp_path: Path, servers, monkeypatch) -> None:
    layout = Layout.of("alice", tmp_path)
    servers("-m", "tensorboard.main", "--logdir", str(layout.root), "--port", "6100")
    with pytest.raises(StageOrderError, match="no training to show"):
        tensorboard_server.tensorboard(Experiment.open("alice", home=tmp_path))
    monkeypatch.setattr(sys, "executable", "/bin/false")
    with pytest.raises(ResourceError, match="does not start"):
        start(layout)
    assert stop(layout.root) == 1


@pytest.mark.parametrize(("marks", "loopback"), [({}, True), ({"LIGHTNING_CLOUD_SPACE_ID": "x"}, False)])
def test_it_answers_on_this_machine_only_where_the_platform_leads_to_it(
    tmp_path: Path, monkeypatch, capsys, marks: dict[str, str], loopback: bool
) -> None:
    lab = Experiment.open("alice", home=tmp_path)
    lab.layout.root.mkdir(parents=True)
    monkeypatch.setattr(tensorboard_server, "detect", lambda: detect(marks, exists=lambda path: False))
    monkeypatch.setattr("IPython.display.display", lambda *_: None)
    monkeypatch.setenv("LIGHTNING_CLOUD_SPACE_ID", "x")
    try:
        address = tensorboard_server.tensorboard(lab)
        told = capsys.readouterr().out
        assert ("answers this machine only" in told) == loopback and ("Anybody with its address" in told) != loopback
        port = int(address.split(":")[-1].strip("/"))
        rows = [line.split() for name in ("tcp", "tcp6") for line in Path(f"/proc/net/{name}").read_text().splitlines()]
        listening = {row[1].split(":")[0] for row in rows if row[3] == "0A" and int(row[1].split(":")[1], 16) == port}
        own = {"0100007F", "00000000000000000000000001000000"}
        assert listening and (listening <= own) == loopback
    finally:
        assert stop(lab.layout.root) == 1


def _answer(address: str, complete) -> object:
    for _ in range(100):
        with urllib.request.urlopen(address, timeout=5) as reply:
            found = json.load(reply)
        if complete(found):
            break
        time.sleep(0.1)
    return found


def test_each_platform_gets_the_page_that_it_allows(monkeypatch) -> None:
    shown = []
    monkeypatch.setattr("IPython.display.display", shown.append)
    show(6006, detect({}, exists=lambda path: False), {})
    assert "window.location.hostname" in shown[-1].data and "smoothing=0.987" in shown[-1].data
    show(6006, detect({}, exists=lambda path: False), {"TENSORBOARD_PROXY_URL": "https://hub/proxy/%PORT%/"})
    assert shown[-1].src.startswith("https://hub/proxy/6006/?smoothing=0.987")
    studio = {"LIGHTNING_CLOUD_SPACE_ID": "01abc"}
    show(6006, detect(studio), studio)
    assert 'href="https://6006-01abc.cloudspaces.litng.ai/?' in shown[-1].data
    for kind in ("Batch", "Interactive"):
        kaggle = {"KAGGLE_KERNEL_RUN_TYPE": kind}
        show(6006, detect(kaggle), kaggle)
    assert "only while you edit" in shown[-2].data
    button, place = shown[-1].children
    monkeypatch.setattr("rvc_core.notebook.tensorboard_server.list_addresses", lambda: ["/k/123/s3cret/proxy/"])
    assert place.value == ""
    button.value = True
    assert "/k/123/s3cret/proxy/proxy/6006/" in place.value
    button.value = False
    assert place.value == "", "hidden again"


# -- listening -----------------------------------------------------------------------------------------------------
def _comparison(folder: Path, epochs=(5, 10, 100), clips=2, why="recommended") -> Comparison:
    layout = Layout.of("alice", folder)
    layout.root.mkdir(parents=True)
    sources, files = [folder / f"{number}.wav" for number in range(clips)], {}
    for clip in sources:
        Audio(phrase(1, seconds=1.0).samples, 16000).save(clip)
        for epoch in epochs:
            files[epoch, clip] = folder / f"{clip.stem}_{epoch}.wav"
            Audio(phrase(epoch, seconds=1.0).samples, 16000).save(files[epoch, clip])
    voices = [
        Candidate(epoch, 3 * epoch, f"alice_e{epoch}.pth", (why if epoch == 10 else "unbeaten",), {"heldout/mel": 0.5})
        for epoch in epochs
    ]
    return Comparison(layout, voices, sources, files, 10)


def test_what_the_verdict_cannot_tell_is_not_called_recommended(tmp_path: Path) -> None:
    for why, recommended in (("recommended", 10), ("listen first", None)):
        made = _comparison(tmp_path / why, why=why)
        record_choice(made.layout, "0.wav", (5, 10), 10)
        assert made.as_json()["recommended"] == recommended
        assert ("(recommended)" in listening.outcome(made)) == bool(recommended)
        assert chosen(made).epoch == 10


def test_who_always_prefers_one_voice_makes_it_the_choice_without_knowing_it(tmp_path: Path) -> None:
    made = _comparison(tmp_path)
    assert chosen(made).epoch == 10, "nobody has listened: the recommended one"
    blind = listening.Blind(made, seed=3)
    sides = []
    while blind.clip is not None:
        assert [file.exists() for file in blind.files] == [True, True] and blind.pair[0] != blind.pair[1]
        side = blind.pair.index(100) if 100 in blind.pair else None
        sides.append(side)
        blind.choose(side)
    assert blind.done == blind.total == 4 and {0, 1} <= set(sides), "sides must not give it away"
    assert preferences(made.layout)[100][0] == preferences(made.layout)[100][1]
    assert chosen(made).epoch == 100 and chosen(made, "5").epoch == chosen(made, 5).epoch == 5
    with pytest.raises(WeightsError, match="epoch 7"):
        chosen(made, "7")
    rows = made.table().splitlines()[2:]
    assert [row.split()[1] for row in rows] == ["5", "10", "100"], "natural order"


def test_the_players_are_widgets_that_click_through_to_the_outcome(tmp_path: Path) -> None:
    import ipywidgets

    made = _comparison(tmp_path, epochs=(5, 10))
    Audio(phrase(9, seconds=1.0).samples, 16000).save(made.clips[1])
    heading, panel, ending = listening.ab(made, seed=1).children
    buttons = panel.children[1].children
    assert "Comparison 1 of 2" in heading.value and not ending.value
    heard = [box.children[1] for box in (*panel.children[0].children, panel.children[2])]
    assert [type(one) for one in heard] == [ipywidgets.Audio] * 3 and bytes(heard[0].value)[:4] == b"RIFF"
    first = bytes(heard[2].value)
    assert not {"5", "10"} & set(re.findall(r"\d+", panel.children[0].children[0].children[0].value))
    buttons[0].click()
    assert heard == [box.children[1] for box in (*panel.children[0].children, panel.children[2])], "no more widgets"
    assert bytes(heard[2].value) != first
    buttons[2].click()
    assert panel.layout.display == "none" and "recommended" in ending.value
    assert len(made.layout.choices.read_text().splitlines()) == 2
