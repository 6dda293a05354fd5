"""What notebooks show: pictures and words of a training, TensorBoard, players."""

import json
import re
import time
import urllib.request
from pathlib import Path

import pytest

from histories import simulate
from rvc_core.errors import StageOrderError
from rvc_core.experiment import Experiment
from rvc_core.files import write_jsonl
from rvc_core.learning_curve import History
from rvc_core.overtraining import judge
from rvc_core.ui import panels, plots
from rvc_core.ui.board import start, stop


class Display:
    """Stands for the notebook: keeps the last frame."""

    frames: list[dict[str, str]]

    def __init__(self) -> None:
        self.frames = []

    def display(self, bundle, raw):
        assert raw and not self.frames, "one display, drawn again"
        self.frames.append(bundle)

    def update(self, bundle, raw):
        assert raw and self.frames
        self.frames.append(bundle)


@pytest.fixture
def notebook(monkeypatch):
    shown = Display()
    monkeypatch.setattr("IPython.display.DisplayHandle", lambda: shown)
    return shown


def test_a_history_becomes_one_picture_a_question_and_words_that_say_the_same():
    simulated = simulate(1)
    verdict = judge(simulated.records)
    drawn = plots.pictures(History.of(simulated.records), verdict, {})
    assert [one.png[:4] for one in drawn] == [b"\x89PNG"] * 6
    said = " ".join(one.words for one in drawn)
    assert f"take epoch {verdict.best.epoch}" in said
    assert f"lowest at epoch {verdict.turning_points['loss/g/total']['epoch']}" in said
    assert f"worse since epoch {verdict.turning_points['heldout/mel']['epoch']}" in said


def test_watching_a_finished_training_shows_its_verdict_once(tmp_path: Path, notebook) -> None:
    lab = Experiment.open("Алиса <b>", home=tmp_path)
    with pytest.raises(StageOrderError):
        panels.watch(lab)
    lab.layout.root.mkdir(parents=True)
    lab.layout.metrics.touch()
    assert panels.watch(lab) is None
    assert "Waiting for the first step" in notebook.frames.pop()["text/html"]
    write_jsonl(lab.layout.metrics, simulate(0).records)
    panels.watch(lab)
    [frame] = notebook.frames
    alts = re.findall(r'<img alt="([^"]+)"', frame["text/html"])
    assert len(alts) >= 3 and all(alts) and "<script" not in frame["text/html"]
    assert frame["text/plain"].startswith("overtrained: ")


def test_tensorboard_answers_with_our_tags_and_all_their_points(tmp_path: Path, capsys) -> None:
    from torch.utils.tensorboard import SummaryWriter
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
        stop(lab.layout)


def _answer(address: str, complete) -> object:
    for _ in range(100):
        with urllib.request.urlopen(address, timeout=5) as reply:
            found = json.load(reply)
        if complete(found):
            break
        time.sleep(0.1)
    return found
