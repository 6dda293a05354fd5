"""Watching, TensorBoard and listening in a real browser, as people use them. Screenshots stay in the test's folder."""

import json
import os
import re
import shutil
import time
import zipfile
from pathlib import Path

import nbformat
import numpy as np
import pytest
import soundfile
import torch

import browser
from rvc_core.audio.recordings import find_recordings
from rvc_core.embedded import voice_folder
from rvc_core.nn.synthesizer import Synthesizer
from rvc_core.notebook import tensorboard_server
from rvc_core.presets import preset
from rvc_core.system.files import write_jsonl
from rvc_core.training import detached
from rvc_core.voice import Voice
from rvc_core.workspace.layout import Layout
from rvc_core.workspace.voice_file import VoiceFile, VoiceInfo, save_voice
from tiny import experiment

ROOT = Path(__file__).parents[2]
LIGHTNING = {"LIGHTNING_CLOUD_SPACE_ID": "01j", "LIGHTNING_INTERACTIVE": "true"}
# Labels that are cut off; controls that nothing names; players and controls that do not fit the cell.
ILL = {
    "cut": """all => all('.widget-label').filter(one => one.scrollWidth > one.clientWidth)""",
    "nameless": """all => all('input:not([type=file]), select, textarea, button, audio, img, [role=slider]').filter(
           one => !(one.labels?.length || one.textContent.trim() || one.ariaLabel || one.alt))""",
    "narrow": """all => all('audio').filter(one => one.clientWidth < 250)""",
    "wide": """all => all('input, select, button, audio, img, pre').filter(
           one => one.getBoundingClientRect().right > one.closest(".jp-OutputArea").getBoundingClientRect().right)""",
}
BEGIN = """\
from pathlib import Path
import rvc_core as rvc
from rvc_core import notebook, presets
from rvc_core.training import detached
from tiny import TINY
presets.PRESETS["nano"], detached._MODULE = TINY, "tiny_trainer"
lab = rvc.Experiment.open("tiny", home=Path("."))
detached.start(lab.layout, rvc.TrainSettings(epochs=4000, batch_size=2, validate_every_epochs=2,
                                             save_every_epochs=4, base_generator="none", base_discriminator="none"))"""
SHOW = """\
from pathlib import Path
import rvc_core as rvc
from rvc_core import notebook
notebook.watch(rvc.Experiment.open("alice", home=Path(".")))"""
STOP = "detached.stop(lab.layout)"
FAILED = '[data-mime-type="application/vnd.jupyter.stderr"]'
SHORT = {"epochs": 1, "batch_size": 8, "f0_method": "dio", "validate_every_epochs": 1}
PERSON_MINUTES = 5


def ill(notebook: browser.Notebook) -> dict[str, list[str]]:
    """What is wrong with what the cells show."""
    found = {
        name: notebook.page.evaluate(
            f"({find})(one => [...document.querySelectorAll('.jp-OutputArea-output')].flatMap("
            "shown => [...shown.querySelectorAll(one)])).map(one => one.outerHTML.slice(0, 200))"
        )
        for name, find in ILL.items()
    }
    return {name: elements for name, elements in found.items() if elements}


def test_a_voice_is_made_by_mouse_and_keyboard(tmp_path: Path) -> None:
    browser.need_browser()
    home, studio = tmp_path / "home", tmp_path / "studio"
    studio.mkdir()
    shutil.copy(ROOT / "notebooks" / "rvc_lightning.ipynb", studio)
    recordings = [soundfile.read(file) for file in sorted(voice_folder("target").glob("*.flac"))[:4]]
    soundfile.write(tmp_path / "take one.wav", np.concatenate([samples for samples, _ in recordings]), recordings[0][1])
    layout = Layout.of("my voice", home)

    def chosen(settings: str) -> dict[str, object]:
        return json.loads((home / "notebook.json").read_text("utf-8"))["chosen"].get(settings, {})

    with (
        browser.jupyter_lab(studio, {**os.environ, **LIGHTNING, "RVC_HOME": str(home)}) as lab,
        browser.chromium() as chromium,
    ):
        notebook = browser.Notebook(chromium, lab, "rvc_lightning.ipynb")
        press = notebook.page.keyboard.press
        notebook.run("notebook.check(").get_by_text("torch").first.wait_for()
        notebook.run("name = ")
        form = notebook.run("notebook.recordings()")
        with notebook.page.expect_file_chooser() as chooser:
            form.get_by_role("button", name="Upload").click()
        chooser.value.set_files(tmp_path / "take one.wav")
        form.get_by_text("take one.wav").wait_for()

        form = notebook.run("notebook.form(PrepareSettings")  # by mouse
        form.get_by_text("take one.wav").first.wait_for()
        form.get_by_role("button", name="more settings").click()
        form.get_by_label("Follow pitch").click()
        _until(lambda: chosen("PrepareSettings") == {"uses_f0": False}, 20)
        form.get_by_label("Follow pitch").click()
        form.get_by_label("Pitch method").select_option("dio")
        _until(lambda: chosen("PrepareSettings") == {} and chosen("ExtractSettings") == {"f0_method": "dio"}, 20)
        form.get_by_role("button", name="more settings").click()

        form.get_by_label("Epochs", exact=True).focus()  # by keyboard
        for key in ("Control+a", "0", "Tab"):
            press(key)
        form.get_by_role("alert").filter(has_text="a whole number from 1 to 100000").wait_for()
        press("Shift+Tab")
        for key in ("Control+a", *"4000", "Tab", "Control+a", "2", "Tab", "Tab", "Space"):
            press(key)
        form.get_by_label("Validate every (epochs)").wait_for()
        assert form.get_by_role("alert").count() == 0
        _until(lambda: chosen("TrainSettings") == {"epochs": 4000, "batch_size": 2}, 20)

        try:
            notebook.run("notebook.start()").get_by_text(re.compile(r"\d clips; ")).first.wait_for()
            shown = notebook.run("notebook.watch_training()", wait=False)
            shown.locator("img").first.wait_for(timeout=120_000)
            first = shown.locator("img").first.get_attribute("src")
            assert not shown.locator("details").evaluate("one => one.open")
            shown.locator("summary").click()
            _until(lambda: shown.locator("img").first.get_attribute("src") != first)
            assert shown.locator("details").evaluate("one => one.open"), "as it was left"
            notebook.page.get_by_title("Interrupt the kernel").click()
            shown.get_by_text("You stopped watching; training goes on").first.wait_for(timeout=60_000)
            assert shown.get_by_text("You stopped watching; training goes on").count() == 1
            assert detached.is_running(layout)
            notebook.run("notebook.stop()")
            _until(lambda: not detached.is_running(layout))
        finally:
            detached.stop(layout)

        notebook.run("notebook.listen()").get_by_role("button", name="In use: the voice").wait_for()
        players = notebook.run("notebook.convert()").locator("audio")
        players.nth(5).wait_for()
        players.nth(1).scroll_into_view_if_needed()
        players.nth(1).click(position={"x": 27, "y": players.nth(1).bounding_box()["height"] / 2})
        _until(lambda: players.nth(1).evaluate("audio => audio.currentTime") > 0.2, 20)
        assert not ill(notebook)
        _picture(notebook, tmp_path, "journey")
        notebook.page.set_viewport_size({"width": 400, "height": 900})
        notebook.page.wait_for_timeout(1000)
        _picture(notebook, tmp_path, "journey_400")
        assert not ill(notebook)


@pytest.mark.slow
def test_a_song_is_made_and_every_stem_has_a_player(tmp_path: Path) -> None:
    browser.need_browser()
    home, studio = tmp_path / "home", tmp_path / "studio"
    studio.mkdir()
    shutil.copy(ROOT / "notebooks" / "rvc_lightning.ipynb", studio)
    spec, layout = preset("nano"), Layout.of("demo", home)
    layout.root.mkdir(parents=True)
    torch.manual_seed(0)
    info = VoiceInfo("demo", 1, 2, "embedded", f0_median_hz=150.0)
    save_voice(layout.voice(1, 2), VoiceFile(spec, Synthesizer(spec).state_dict(), info))
    write_jsonl(layout.metrics, [{"kind": "voice", "step": 2, "epoch": 1, "path": layout.voice(1, 2).name}])
    with (
        browser.jupyter_lab(studio, {**os.environ, **LIGHTNING, "RVC_HOME": str(home)}) as lab,
        browser.chromium() as chromium,
    ):
        notebook = browser.Notebook(chromium, lab, "rvc_lightning.ipynb")
        for cell in ("notebook.check(", "name = ", "notebook.begin("):
            notebook.run(cell)
        form = notebook.run("notebook.form(SongSettings")
        form.get_by_label("Preview only").click()
        form.get_by_label("Key (st)").fill("2")
        notebook.page.keyboard.press("Tab")
        _until(lambda: _chosen(home) == {"preview": True, "key_semitones": 2}, 20)
        form.get_by_label("Key (st)").fill("20")
        notebook.page.keyboard.press("Tab")
        form.get_by_role("alert").filter(has_text="a whole number from -12 to 12").wait_for()
        shown = notebook.run("notebook.sing()", seconds=240)
        assert shown.locator(FAILED).count() == 0, shown.inner_text()
        shown.get_by_text("Highest peak of the mix").wait_for()
        players = shown.locator("audio")
        assert players.count() == 5 and not players.nth(2).is_visible(), "stems are folded away"
        shown.locator("summary").click()
        _until(lambda: players.nth(4).is_visible(), 20)
        players.nth(2).click(position={"x": 27, "y": players.nth(2).bounding_box()["height"] / 2})
        _until(lambda: players.nth(2).evaluate("audio => audio.currentTime") > 0.2, 20)
        assert not ill(notebook)
        if target := os.environ.get("RVC_SCREENSHOTS"):
            for number, code in enumerate(("form(SongSettings", "sing()")):
                notebook.cell(code).evaluate("cell => cell.previousElementSibling.scrollIntoView()")
                notebook.page.wait_for_timeout(300)
                notebook.page.screenshot(path=Path(target) / f"song_{number}.png")
    [made] = (home / "songs").glob("*_preview_*/song.json")
    assert json.loads(made.read_text("utf-8"))["transpose"]["lead"] % 12 == 2


def _chosen(home: Path) -> dict[str, object]:
    return json.loads((home / "notebook.json").read_text("utf-8"))["chosen"].get("SongSettings", {})


@pytest.mark.slow
def test_a_real_persons_two_minutes_give_that_persons_voice(tmp_path: Path, request: pytest.FixtureRequest) -> None:
    """Run all without a click; a wrong folder; then somebody's, under a new name: what the zip holds is measured."""
    if not (given := request.config.getoption("--recordings")):
        pytest.skip("needs --recordings DIR")
    browser.need_browser()
    home, studio, learn = tmp_path / "home", tmp_path / "studio", tmp_path / "somebody's takes"
    studio.mkdir()
    learn.mkdir()
    unheard = []
    for number, path in enumerate(sorted(find_recordings(Path(given)).recordings.values())):
        (unheard.append if number % 4 == 3 else lambda one: shutil.copy(one, learn))(path)
    book = nbformat.read(ROOT / "notebooks" / "rvc_lightning.ipynb", as_version=4)
    [parameters] = [cell for cell in book.cells if "parameters" in cell.metadata.get("tags", [])]
    parameters.source = parameters.source.replace("settings = {}", f"settings = {SHORT}")
    nbformat.write(book, studio / "rvc_lightning.ipynb")
    exported = home / "exported"
    with (
        browser.jupyter_lab(studio, {**os.environ, **LIGHTNING, "RVC_HOME": str(home)}) as lab,
        browser.chromium() as chromium,
    ):
        notebook = browser.Notebook(chromium, lab, "rvc_lightning.ipynb", width=1280)
        try:
            began = time.monotonic()
            notebook.run_all()
            notebook.wait_until_run("notebook.job()", "", 600)
            print(f"Run all: {time.monotonic() - began:.0f} s")
            assert not notebook.errors() and [path.name for path in exported.iterdir()] == ["demo.zip"]
            _whole_picture(notebook, "person_all")
            _type_folder(notebook, voice_folder("source"))  # somebody else's, by mistake
            assert _train(notebook, home, "my voice")
            _type_folder(notebook, learn)
            refused = notebook.run("notebook.start()").locator(FAILED)
            assert "other recordings" in refused.inner_text() and "new name" in refused.inner_text()
            _whole_picture(notebook, "person_refused")
            notebook.cell("begin_again = ").locator(".cm-content").click()
            for key in ("Control+Home", "ArrowDown", "Home", "Shift+End"):  # below the title
                notebook.page.keyboard.press(key)
            notebook.page.keyboard.type('name = "Jürgen 2"')
            notebook.run("begin_again = ")
            notebook.run("notebook.begin(").get_by_text(f"“Jürgen 2” is new. Its recordings: {learn}").wait_for()
            form = notebook.run("notebook.form(PrepareSettings")
            form.get_by_label("Epochs", exact=True).fill("2000")
            form.get_by_label("Stop after (min)").fill(str(PERSON_MINUTES))
            notebook.page.keyboard.press("Tab")
            assert _train(notebook, home, "Jürgen 2")
            notebook.run("notebook.export(").get_by_text("Jurgen_2").first.wait_for()
            _whole_picture(notebook, "person_own")
            _whole_picture(notebook, "person_own_400", 400)
            assert not ill(notebook)
        finally:
            for name in ("demo", "my voice", "Jürgen 2"):
                detached.stop(Layout.of(name, home))
            tensorboard_server.stop(home / "logs")
    [zipped] = exported.glob("Jurgen_2*.zip")
    with zipfile.ZipFile(zipped) as archive:
        archive.extractall(tmp_path / "unpacked")
    [voice] = (tmp_path / "unpacked").rglob("*.pth")
    report = Voice.load(voice).evaluate(sorted(voice_folder("source").glob("*.flac")), unheard)
    print(report)
    assert report.mean["similarity_gain"] >= 0.5, report.mean


def _type_folder(notebook: browser.Notebook, folder: Path) -> None:
    """Type a folder into the form that the cell Recordings shows, and wait until it says what it understood."""
    form = notebook.run("notebook.recordings()")
    form.get_by_label("Folder, zip or link").click()
    notebook.page.keyboard.press("Control+a")
    notebook.page.keyboard.type(str(folder))
    notebook.page.keyboard.press("Enter")
    form.get_by_text(re.compile(rf"^{re.escape(folder.name)}/ +\d+ recordings")).wait_for(timeout=20_000)


def _train(notebook: browser.Notebook, home: Path, name: str) -> bool:
    """Run the cells from Settings to Watch, one by one; whether there is a voice then."""
    for cell in ("plan(minutes)", "start()", "watch_training()"):
        shown = notebook.run(f"notebook.{cell}", seconds=600)
        assert shown.locator(FAILED).count() == 0, shown.inner_text()
    return Layout.of(name, home).final_voice.exists()


def _picture(notebook: browser.Notebook, folder: Path, name: str) -> None:
    """Pictures of what is worth looking at, in the folder RVC_SCREENSHOTS, if that is set."""
    if not (target := os.environ.get("RVC_SCREENSHOTS")):
        return
    for number, code in enumerate(
        (
            "check()",
            "recordings()",
            "form(PrepareSettings",
            "start()",
            "watch_training()",
            "listen()",
            "songs()",
            "convert()",
        )
    ):
        notebook.cell(code).evaluate("cell => cell.previousElementSibling.scrollIntoView()")
        notebook.page.wait_for_timeout(300)
        notebook.page.screenshot(path=Path(target) / f"{name}_{number}.png")


def _whole_picture(notebook: browser.Notebook, name: str, width: int = 1280) -> None:
    """A picture of the whole notebook, in the folder RVC_SCREENSHOTS, if that is set; the page has that width then."""
    notebook.page.set_viewport_size({"width": width, "height": 1100})
    if not (target := os.environ.get("RVC_SCREENSHOTS")):
        return
    height = notebook.page.evaluate("document.querySelector('.jp-WindowedPanel-outer').scrollHeight")
    notebook.page.set_viewport_size({"width": width, "height": height + 200})
    notebook.cell("PROJECT = ").evaluate("cell => cell.parentElement.firstElementChild.scrollIntoView()")
    notebook.page.wait_for_timeout(1500)
    notebook.page.screenshot(path=Path(target) / f"{name}.png")
    notebook.page.set_viewport_size({"width": width, "height": 1100})


def _until(condition, seconds: float = 120.0):
    deadline = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.3)
    return found


@pytest.mark.slow
def test_a_live_training_is_watched_interrupted_and_stopped(tmp_path: Path, tiny: None) -> None:
    browser.need_browser()
    layout = experiment(tmp_path)
    browser.write_notebook(tmp_path / "train.ipynb", BEGIN, "notebook.watch(lab)", STOP)
    with browser.jupyter_lab(tmp_path) as lab, browser.chromium() as chromium:
        notebook = browser.Notebook(chromium, lab, "train.ipynb")
        notebook.run_all()
        shown = notebook.output(1)
        shown.get_by_text("Loading.").or_(shown.locator("img").first).first.wait_for(timeout=60_000)
        shown.locator("img").nth(3).wait_for(state="attached", timeout=120_000)  # folded away
        first = shown.locator("img").first.get_attribute("src")
        _until(lambda: shown.locator("img").first.get_attribute("src") != first)
        assert shown.locator(".jp-OutputArea-output").count() == 2, "two displays, drawn again"
        assert all(image.get_attribute("alt") for image in shown.locator("img").all())
        notebook.page.screenshot(path=tmp_path / "watch.png")
        notebook.command("notebook:interrupt-kernel")
        shown.get_by_text("You stopped watching").wait_for(timeout=60_000)
        assert detached.is_running(layout)
        detached.stop(layout)
        _until(lambda: not detached.is_running(layout))
        assert detached.watch(layout)["voice"]
        notebook.save()
        telephone = browser.Notebook(chromium, lab, "train.ipynb", width=420, dark=True)
        telephone.output(1).locator("img").first.wait_for(timeout=60_000)
        telephone.page.wait_for_timeout(3000)  # the other theme is being loaded
        telephone.page.screenshot(path=tmp_path / "telephone.png")
    _keep(tmp_path, "watch.png", "telephone.png")


@pytest.mark.slow
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


@pytest.mark.slow
def test_tensorboard_opens_inline_on_the_guides_view(tmp_path: Path) -> None:
    browser.need_browser()
    from rvc_core.notebook.tensorboard_server import stop
    from rvc_core.workspace.metrics import MetricsLog

    layout = Layout.of("alice", tmp_path)
    log = MetricsLog(layout, steps_per_epoch=1, resumed_step=0)
    for step in range(1, 300):
        log.step(step, step, {"loss/g/total": 30 + 9 / step, "loss/g/mel": 20 + 9 / step, "loss/g/kl": 1.0})
    log.close()
    browser.write_notebook(tmp_path / "board.ipynb", SHOW.replace("watch", "tensorboard"))
    try:
        with browser.jupyter_lab(tmp_path) as lab, browser.chromium() as chromium:
            notebook = browser.Notebook(chromium, lab, "board.ipynb")
            notebook.run_all()
            page = notebook.output(0).frame_locator("iframe")
            page.get_by_text("tag: loss/g/total").first.wait_for(timeout=90_000)
            page.get_by_text("tag: loss/g/kl").wait_for()
            assert page.get_by_text("tag: loss/g/total").count() == 2, "what the address filters for comes first"
            assert page.get_by_text("tag: loss/g/kl").count() == 1, "and then all, by group"
            assert "0.987" in [box.input_value() for box in page.locator("input").all()]
            notebook.page.wait_for_timeout(2000)
            notebook.page.screenshot(path=tmp_path / "board.png")
    finally:
        stop(layout.root)
    _keep(tmp_path, "board.png")


KAGGLE = """\
from rvc_core.notebook import tensorboard_server as server
from rvc_core.system.platforms import detect
server.list_addresses = lambda: ["/k/123/s3cret/proxy/"]
server.show(6006, detect({"KAGGLE_KERNEL_RUN_TYPE": "Interactive"}), {"KAGGLE_KERNEL_RUN_TYPE": "Interactive"})"""


@pytest.mark.slow
def test_kaggles_link_is_shown_when_asked_for_and_never_saved(tmp_path: Path) -> None:
    browser.need_browser()
    browser.write_notebook(tmp_path / "link.ipynb", KAGGLE)
    with browser.jupyter_lab(tmp_path) as lab, browser.chromium() as chromium:
        notebook = browser.Notebook(chromium, lab, "link.ipynb")
        notebook.run_all()
        button = notebook.output(0).get_by_role("button", name="Link to TensorBoard")
        button.click(timeout=60_000)
        link = notebook.output(0).get_by_role("link")
        link.wait_for(timeout=20_000)
        assert "/k/123/s3cret/proxy/proxy/6006/" in link.get_attribute("href")
        notebook.save()
        assert "s3cret" not in (tmp_path / "link.ipynb").read_text().split("server.show")[1], "while it is shown"
        button.click()
        link.wait_for(state="detached", timeout=20_000)


LISTEN = """\
from test_cells import _comparison
from pathlib import Path
from rvc_core.notebook import listening
listening.ab(_comparison(Path("clips").absolute(), clips=1), seed=1)"""


@pytest.mark.slow
def test_listening_blind_with_real_clicks(tmp_path: Path) -> None:
    browser.need_browser()
    (tmp_path / "clips").mkdir()
    browser.write_notebook(tmp_path / "listen.ipynb", LISTEN)
    with browser.jupyter_lab(tmp_path) as lab, browser.chromium() as chromium:
        notebook = browser.Notebook(chromium, lab, "listen.ipynb")
        notebook.run_all()
        shown = notebook.output(0)
        shown.locator("audio").nth(2).wait_for(timeout=90_000)
        _until(lambda: all(one.evaluate("audio => audio.duration") == 1 for one in shown.locator("audio").all()), 20)
        notebook.page.screenshot(path=tmp_path / "listen.png")
        shown.get_by_role("button", name="A is better").click()
        shown.get_by_text("Comparison 2 of 2").wait_for()
        shown.get_by_role("button", name="no difference").click()
        shown.get_by_text("Preferred, in all comparisons").wait_for()
    choices = Layout.of("alice", tmp_path / "clips").choices.read_text().splitlines()
    assert len(choices) == 2 and json.loads(choices[1])["preferred"] is None
    _keep(tmp_path, "listen.png")


def _keep(folder: Path, *names: str) -> None:
    if target := os.environ.get("RVC_SCREENSHOTS"):
        for name in names:
            shutil.copy(folder / name, target)
