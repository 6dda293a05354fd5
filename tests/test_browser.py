"""Watching, TensorBoard and listening in a real browser, as people use them. Screenshots stay in the test's folder."""

import os
import shutil
import time
from pathlib import Path

import pytest

import browser
from rvc_core import launch
from rvc_core.files import write_jsonl
from rvc_core.layout import Layout
from tiny import experiment

pytestmark = pytest.mark.slow

BEGIN = """\
from pathlib import Path
import rvc_core as rvc
from rvc_core import launch, presets, ui
from tiny import TINY
presets.PRESETS["nano"], launch._MODULE = TINY, "tiny_trainer"
lab = rvc.Experiment.open("tiny", home=Path("."))
launch.start(lab.layout, rvc.TrainSettings(epochs=4000, batch_size=2, validate_every_epochs=2,
                                             save_every_epochs=4, base_generator="none", base_discriminator="none"))"""
SHOW = """\
from pathlib import Path
import rvc_core as rvc
from rvc_core import ui
ui.watch(rvc.Experiment.open("alice", home=Path(".")))"""
STOP = "launch.stop(lab.layout)"


def _until(condition, seconds: float = 120.0):
    deadline = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.3)
    return found


def test_a_live_training_is_watched_interrupted_and_stopped(tmp_path: Path, tiny: None) -> None:
    browser.need_browser()
    layout = experiment(tmp_path)
    browser.write_notebook(tmp_path / "train.ipynb", BEGIN, "ui.watch(lab)", STOP)
    with browser.jupyter_lab(tmp_path) as lab, browser.chromium() as chromium:
        notebook = browser.Notebook(chromium, lab, "train.ipynb")
        notebook.run_all()
        shown = notebook.output(1)
        shown.get_by_text("Waiting for the first step").or_(shown.locator("img").first).wait_for(timeout=60_000)
        shown.locator("img").nth(3).wait_for(timeout=120_000)
        first = shown.locator("img").first.get_attribute("src")
        _until(lambda: shown.locator("img").first.get_attribute("src") != first)
        assert shown.locator(".jp-OutputArea-output").count() == 1, "one display, drawn again"
        assert all(image.get_attribute("alt") for image in shown.locator("img").all())
        notebook.page.screenshot(path=tmp_path / "watch.png")
        notebook.command("notebook:interrupt-kernel")
        shown.get_by_text("You stopped watching").wait_for(timeout=60_000)
        assert launch.is_running(layout)
        launch.stop(layout)
        _until(lambda: not launch.is_running(layout))
        assert launch.watch(layout)["voice"]
        notebook.save()
        telephone = browser.Notebook(chromium, lab, "train.ipynb", width=420, dark=True)
        telephone.output(1).locator("img").first.wait_for(timeout=60_000)
        telephone.page.screenshot(path=tmp_path / "telephone.png")
    _keep(tmp_path, "watch.png", "telephone.png")


def test_the_last_frame_of_an_unattended_notebook_is_seen_when_somebody_opens_it(tmp_path: Path) -> None:
    browser.need_browser()
    import papermill

    from histories import simulate
    layout = Layout.of("alice", tmp_path)
    layout.root.mkdir(parents=True)
    write_jsonl(layout.metrics, simulate(1).records)
    browser.write_notebook(tmp_path / "in.ipynb", SHOW)
    papermill.execute_notebook(tmp_path / "in.ipynb", tmp_path / "out.ipynb", cwd=tmp_path, progress_bar=False)
    with browser.jupyter_lab(tmp_path) as lab, browser.chromium() as chromium:
        notebook = browser.Notebook(chromium, lab, "out.ipynb")
        images = notebook.output(0).locator("img")
        images.first.wait_for(timeout=60_000)
        assert images.count() == 6
        assert all(image.evaluate("one => one.naturalWidth") == 880 for image in images.all())
        notebook.page.screenshot(path=tmp_path / "unattended.png")
    _keep(tmp_path, "unattended.png")


def _keep(folder: Path, *names: str) -> None:
    if target := os.environ.get("RVC_SCREENSHOTS"):
        for name in names:
            shutil.copy(folder / name, target)
