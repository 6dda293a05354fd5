"""The notebooks of the platforms, run whole without a click; the double of google.colab; cells after a restart."""

import errno
import importlib
import inspect
import io
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
import types
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import papermill
import pytest
import soundfile
from sayings import is_english
from test_forms import install_colab_s_widgets

from rvc_core import ConvertSettings, PrepareSettings, RuntimeSettings, TrainSettings, notebook
from rvc_core.audio.recordings import find_recordings
from rvc_core.cli import main
from rvc_core.embedded import voice_folder
from rvc_core.errors import DatasetError, ResourceError, SettingsError, StageOrderError, StorageError
from rvc_core.notebook import cells, cleaning, tensorboard_server
from rvc_core.notebook import session as session_module
from rvc_core.notebook.cells import with_recordings
from rvc_core.notebook.session import DEMO, Session
from rvc_core.notebook.texts import say
from rvc_core.preparation.incoming import brought, save_set, sources
from rvc_core.preparation.prepare import prepare
from rvc_core.song_settings import RepairSettings
from rvc_core.storage import places
from rvc_core.system import platforms
from rvc_core.system.files import sha256_of, signature
from rvc_core.training import detached
from rvc_core.workspace.layout import Layout
from rvc_core.workspace.voice_file import load_voice
from synth import phrase
from tiny import experiment
from trained import trained

ROOT = Path(__file__).parents[2]
TESTS = ROOT / "tests"
COLAB = TESTS / "colab"
QUICK = {"preset": "nano", "epochs": 1, "batch_size": 16, "f0_method": "dio", "validate_every_epochs": 1}
MARKS = {
    "kaggle": {"KAGGLE_KERNEL_RUN_TYPE": "Batch", "COLAB_RELEASE_TAG": "r1", "RVC_LANG": "pt"},
    "lightning": {"LIGHTNING_CLOUD_SPACE_ID": "01j", "LIGHTNING_INTERACTIVE": "true"},
    "colab": {"COLAB_RELEASE_TAG": "r1", "DRIVE_REFUSES": "declined", "RVC_LANG": "pt"},
}
# of github.com/googlecolab/colabtools at 3c07d776a9d3b78eb15375362bd6a60549082d3d, 2026-04-07
SIGNATURES = {
    "drive.mount": "(mountpoint, force_remount=False, timeout_ms=120000, readonly=False)",
    "drive.flush_and_unmount": "(timeout_ms=86400000)",
    "files.upload": "(target_dir='')",
    "files.download": "(filename)",
    "userdata.get": "(key)",
    "output.serve_kernel_port_as_iframe": "(port, path='/', width='100%', height='400', cache_in_notebook=False)",
}


def run(notebook: str, folder: Path, monkeypatch: pytest.MonkeyPatch, **parameters: object) -> list[dict]:
    """Execute a notebook as the platform would; its code cells, with their outputs."""
    platform = notebook.rpartition("_")[2]
    monkeypatch.setenv("RVC_HOME", str(folder / "home"))
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(folder / "older"), str(ROOT), str(COLAB)]))
    for name, value in MARKS[platform].items():
        monkeypatch.setenv(name, value)
    output = folder / "out.ipynb"
    try:
        papermill.execute_notebook(
            ROOT / "notebooks" / f"{notebook}.ipynb",
            output,
            parameters,
            cwd=folder,
            kernel_name="python3",
            progress_bar=False,
        )
    finally:
        tensorboard_server.stop(folder)
    return [cell for cell in json.loads(output.read_text("utf-8"))["cells"] if cell["cell_type"] == "code"]


def said(cells: list[dict], line: str) -> str:
    [cell] = [cell for cell in cells if line in "".join(cell["source"])]
    return "".join(
        "".join(output.get("text", output.get("data", {}).get("text/plain", ""))) for output in cell["outputs"]
    )


def english_sentences(ran: list[dict]) -> list[str]:
    """Lines of outputs that hold two English words or more."""
    shown = [output.get("text", "") for cell in ran for output in cell["outputs"]]
    shown += [output.get("data", {}).get("text/html", "") for cell in ran for output in cell["outputs"]]
    text = re.sub(r"base64,[^\"]*|<script>.*?</script>|<[^>]*>|\S*/\S+", "\n", "\n".join("".join(one) for one in shown))
    return [line for line in text.splitlines() if is_english(line)]


@pytest.mark.parametrize(
    ("error", "message", "hint"),
    [
        (
            StageOrderError("'alice' has no voice yet", "run the cells Start and Watch"),
            "'alice' ainda não tem voz",
            "→ execute as células Treinar e Acompanhar",
        ),
        (
            DatasetError("new words", "do it"),
            "Há um problema com as gravações.",
            "→ As linhas em inglês abaixo dizem o que fazer.",
        ),
    ],
)
def test_an_error_speaks_portuguese_first_and_its_english_can_be_searched_for(
    error: DatasetError, message: str, hint: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    english = error._render_traceback_()
    assert english == [f"{type(error).__name__}: {error}", f"→ {error.hint}"]
    monkeypatch.setenv("RVC_LANG", "pt")
    assert error._render_traceback_() == [message, hint, "", *english]


def test_the_plan_fills_the_form(
    home: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its numbers stand in the form with their reasons; what somebody chose goes before it, other recordings end it."""
    monkeypatch.setenv("RVC_LANG", "pt")
    (home / "takes").mkdir()
    shutil.copy(next(voice_folder("target").glob("*.flac")), home / "takes")
    notebook.begin("alice", str(home / "takes"), settings={"save_every_epochs": 7})
    notebook.plan(30)
    told = capsys.readouterr().out
    assert "O plano" in told and not [line for line in told.splitlines() if is_english(line)]
    [form] = notebook.form(TrainSettings)
    planned = {name: value for name, (value, _) in Session.load().planned.items()}
    assert form.value.epochs == planned["epochs"] != TrainSettings().epochs
    assert form.value.save_every_epochs == 7 and form.value.max_minutes == 30
    assert form.value.learning_rate == "auto" and "<b>Um orçamento de " in form._notes["epochs"].value
    form.controls["epochs"].value = 77
    notebook.plan()
    assert Session.load().settings(TrainSettings).epochs == 77 and "max_minutes" not in Session.load().planned
    Session.remember(dataset=str(home))
    assert not Session.load().planned and "<b>" not in notebook.form(TrainSettings)[0]._notes["epochs"].value


def test_the_plan_of_the_demo_keeps_its_preset(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (home / "demo").mkdir()
    shutil.copy(next(voice_folder("target").glob("*.flac")), home / "demo")  # one stands for all
    monkeypatch.setattr(session_module, "voice_folder", lambda name: home / "demo")
    notebook.begin("alice")
    notebook.plan()
    session = Session.load()
    assert session.is_demo and session.settings(PrepareSettings).preset == "nano"
    assert session.settings(PrepareSettings).holdout_minutes == 0.2


def test_kaggle_saves_and_runs_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    quick = {**QUICK, "unlike": "none"}  # the slow ones judge that too
    ran = run("pt/rvc_kaggle", tmp_path, monkeypatch, settings=quick, name="Алиса")
    check_journey(ran, tmp_path, DEMO)
    if keep := os.environ.get("RVC_KEEP"):
        shutil.copy(tmp_path / "out.ipynb", keep)
    assert english_sentences(ran) == [] and "lendo 21/21" in said(ran, "notebook.prepare()")
    assert "Save & Run All" in json.dumps(ran, ensure_ascii=False).replace("&amp;", "&")  # TensorBoard says why not
    again = Session(**json.loads((tmp_path / "home" / "notebook.json").read_text("utf-8")))
    assert again.name == "Алиса" and again.given == {"mirror": "auto", **quick}
    own_recordings_after_run_all(tmp_path)


def own_recordings_after_run_all(folder: Path) -> None:
    """Somebody types a folder into the form and runs the cells again: the voice in the zip is that person's."""
    demo = sha256_of(Layout.of(DEMO).final_voice)
    people = shutil.copytree(voice_folder("source"), folder / "me")
    Session.remember(dataset=str(people))
    notebook.start()  # without Report and Prepare: a person in a hurry
    assert detached.watch(Layout.of("Алиса"))["steps"] > 0
    [exported] = notebook.export()
    with zipfile.ZipFile(exported) as archive:
        [name] = [name for name in archive.namelist() if name.endswith(".pth")]
        archive.extract(name, folder / "exported")
    voice = load_voice(folder / "exported" / name)
    man_hz = voice.info.f0_median_hz  # the package's target is a woman
    assert (voice.info.name, voice.info.epoch) == ("Алиса", 1) and 80 < man_hz < 150
    assert sha256_of(Layout.of(DEMO).final_voice) == demo
    Session.remember(dataset=str(voice_folder("target")))  # and the same name for somebody else
    with pytest.raises(DatasetError, match="other recordings"):
        notebook.start()


@pytest.mark.slow
@pytest.mark.parametrize("stem", ["rvc_lightning", "pt/rvc_colab"])
def test_the_other_platforms_too(
    stem: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    if stem == "pt/rvc_colab":
        install_colab_s_widgets(tmp_path / "older")
    ran = run(stem, tmp_path, monkeypatch, settings=QUICK, name="alice")
    check_journey(ran, tmp_path, DEMO)
    if stem == "pt/rvc_colab":
        assert "não foi montado (Error: credential propagation was unsuccessful: declined)" in said(
            ran, "notebook.begin"
        )
        assert "ipywidgets 7.7.1" in said(ran, "notebook.check")
        assert "Drive" not in said(ran, "notebook.export")  # who refused is not asked again
        return
    assert run_job(said(ran, "notebook.job"), tmp_path / "job")["train"]["epochs"] == 1
    # the machine is lost: on another one, two cells
    places.save(Layout.of(DEMO), str(tmp_path / "kept"))
    shutil.rmtree(tmp_path / "home")
    monkeypatch.setattr(places, "detect", lambda: platforms.Platform("colab", "Colab", tmp_path, tmp_path / "kept"))
    notebook.check()
    notebook.begin(DEMO)
    notebook.start()
    told = capsys.readouterr().out
    assert "Brought “demo” back" in told and "epoch 1" in told
    report = detached.watch(Layout.of(DEMO))
    assert report["epochs"] == 1 and report["resumed_from"] and Session.load().settings(TrainSettings).epochs == 1


def run_job(recipe: str, artifacts: Path, *options: str) -> dict | None:
    """What a Job's machine makes of the recipe; packages are there already."""
    jobs: list[dict[str, str]] = []
    sdk = types.SimpleNamespace(
        Machine=types.SimpleNamespace(T4="T4"), Job=types.SimpleNamespace(run=lambda **job: jobs.append(job))
    )
    sys.modules["lightning_sdk"] = sdk  # type: ignore[assignment]
    exec(recipe, {})
    del sys.modules["lightning_sdk"]
    command = re.sub(r"bash \S+setup_env.sh", "true", jobs[0]["command"]).rstrip() + " " + " ".join(options)
    artifacts.mkdir()
    marks = {"LIGHTNING_CLOUD_SPACE_ID": "01j", "LIGHTNING_ARTIFACTS_DIR": str(artifacts), "RVC_HOME": ""}
    subprocess.run(["bash", "-ec", command], check=True, cwd=artifacts, env={**os.environ, **marks}, timeout=600)
    result = artifacts / "train_result.json"
    return json.loads(result.read_text("utf-8")) if result.exists() else None


def check_journey(ran: list[dict], folder: Path, name: str) -> None:
    """Everything was done, nothing failed, and nothing stands on the red ground that Jupyter gives to stderr."""
    outputs = [output for cell in ran for output in cell["outputs"]]
    assert not [one for one in outputs if one["output_type"] == "error" or one.get("name") == "stderr"]
    layout = Layout.of(name, folder / "home")
    assert "torch" in said(ran, "notebook.check") and "28" in said(ran, "notebook.prepare()")
    assert layout.final_voice.exists() and json.loads(layout.run.read_text("utf-8"))["state"] == "done"
    assert len(list((folder / "home" / "converted" / layout.slug).glob("*.wav"))) == 3
    [song] = (folder / "home" / "songs").glob("*/song.json")
    assert len(list(song.parent.glob("0*.flac"))) == 3 and (song.parent / f"{song.parent.name}.wav").is_file()
    assert "ms" in said(ran, "notebook.sing()")
    [exported] = (folder / "home" / "exported").glob("*.zip")
    assert exported.stat().st_size > 1e6
    assert not list(folder.glob("*.wav"))  # nothing beside the notebook


# -- after a restart, in any order ---------------------------------------------------------------------------------
@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("RVC_HOME", str(tmp_path))
    return tmp_path


def test_changes_of_two_forms_at_once_are_both_remembered(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    notebook.begin("alice")
    forms = notebook.form(PrepareSettings, TrainSettings)
    save = Session.save
    monkeypatch.setattr(Session, "save", lambda session: (time.sleep(0.2), save(session)))
    threads = [
        threading.Thread(target=setattr, args=(form.controls[name], "value", value))
        for form, (name, value) in zip(forms, (("uses_f0", False), ("epochs", 7)), strict=True)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert Session.load().chosen == {"PrepareSettings": {"uses_f0": False}, "TrainSettings": {"epochs": 7}}


def test_what_a_form_was_changed_to_outlives_the_kernel(home: Path) -> None:
    with pytest.raises(StageOrderError, match="no voice was begun"):
        Session.load()
    notebook.begin("alice", settings={"epochs": 30})
    [form] = notebook.form(TrainSettings)
    assert form.value.epochs == 30
    form.controls["batch_size"].value = "3"
    assert Session.load().settings(TrainSettings) == TrainSettings(epochs=30, batch_size=3)
    notebook.begin("alice", settings={"epochs": 30})  # Run all again: the form's choice stays
    assert Session.load().settings(TrainSettings).batch_size == 3
    notebook.begin("alice", settings={"epochs": 31})  # the parameters were changed: they count
    assert Session.load().settings(TrainSettings) == TrainSettings(epochs=31)
    notebook.recordings().path.value = str(home)
    notebook.songs().path.value = "https://example.org/a.zip"
    assert (Session.load().dataset, Session.load().songs) == (str(home), "https://example.org/a.zip")
    for refused in (lambda: notebook.begin("alice", settings={"epoch": 3}), lambda: TrainSettings.of(epoch=3)):
        with pytest.raises(SettingsError, match="^unknown setting epoch") as caught:
            refused()
        assert caught.value.hint == "did you mean epochs?"
    assert Session.load().name == "alice" and Session.load().settings(ConvertSettings) == ConvertSettings()


def test_a_number_is_a_name_and_a_path_and_a_text(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(home)
    (home / "1999").mkdir()
    shutil.copy(next(voice_folder("target").glob("*.flac")), home / "1999")
    lab = notebook.begin(2024, 1999, 1999, settings={"mel_epsilons": 2026, "f0_curve": Path("curve"), "unlike": None})
    assert lab.layout.root.name == "2024" and Session.load().name == "2024"
    assert Session.load().settings(TrainSettings) == TrainSettings(mel_epsilons="2026")
    assert Session.load().settings(ConvertSettings).f0_curve == "curve"
    assert Session.load().songs == "1999" and notebook.songs().path.value == "1999"
    notebook.recordings()
    notebook.report()


def test_a_job_does_what_the_forms_say(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (home / "it's mine").mkdir()
    shutil.copy(next(voice_folder("target").glob("*.flac")), home / "it's mine")
    notebook.begin("007", dataset=str(home / "it's mine"), settings={"epochs": 30})
    [train, runtime] = notebook.form(TrainSettings, RuntimeSettings)
    train.controls["max_minutes"].value, runtime.controls["device"].value = "2.5", "cpu"
    capsys.readouterr()
    notebook.job()
    recipe = capsys.readouterr().out
    assert 'name="rvc-007"' in recipe and "weights fetch" not in recipe  # no GPU here: nano
    run_job(recipe, home / "artifacts", "--prepare-only")
    cells = json.loads((home / "artifacts" / "out.ipynb").read_text("utf-8"))["cells"]
    given: dict[str, object] = {}
    exec("".join(next(cell["source"] for cell in cells if "injected-parameters" in cell["metadata"]["tags"])), given)
    assert {name: given[name] for name in given.keys() - {"__builtins__"}} == {
        "name": "007",
        "dataset": str(home / "it's mine"),
        "preset": "nano-24k",
        "epochs": 30,
        "max_minutes": 2.5,
        "device": "cpu",
        "result": str(home / "artifacts" / "train_result.json"),
    }
    form = notebook.form(PrepareSettings)[0]
    form.controls["preset"].value = "v2-40k"
    notebook.job()
    assert "weights fetch v2-40k" in capsys.readouterr().out


def test_a_new_kernel_watches_what_a_killed_one_began(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from jupyter_client.manager import start_new_kernel

    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(ROOT), str(TESTS)]))
    experiment(home)
    begin = [
        "from rvc_core import notebook, presets",
        "from rvc_core.training import detached",
        "from tiny import TINY",
        "presets.PRESETS['nano'], detached._MODULE = TINY, 'tiny_trainer'",
        "notebook.begin('tiny', 'synthetic', settings={'epochs': 40_000, 'batch_size': 2, 'unlike': 'none', "
        "'preset': 'nano', 'base_generator': 'none', 'base_discriminator': 'none'})",
        "notebook.start()",
    ]
    manager, client = start_new_kernel()
    reply = client.execute_interactive("; ".join(begin), timeout=60, output_hook=lambda message: None)
    assert reply["content"]["status"] == "ok", reply
    manager.signal_kernel(signal.SIGKILL)
    client.stop_channels()
    manager.shutdown_kernel(now=True)
    layout = Layout.of("tiny", home)
    assert detached.is_running(layout)
    shown: list[str] = []

    def seen(message: dict) -> None:
        if "data" in message["content"]:
            shown.append(message["content"]["data"]["text/plain"])
            if "Epoch" in shown[-1]:
                detached.stop(layout)

    manager, client = start_new_kernel()
    reply = client.execute_interactive(
        "from rvc_core import notebook; notebook.watch_training()", timeout=120, output_hook=seen
    )
    client.stop_channels()
    manager.shutdown_kernel(now=True)
    assert reply["content"]["status"] == "ok" and any("You stopped training after epoch" in one for one in shown[-2:])
    assert detached.watch(layout)["stopped_by"] == "stop"


def test_each_cell_says_which_one_comes_before_it(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for cell in (
        notebook.start,
        notebook.stop,
        notebook.report,
        notebook.listen,
        notebook.convert,
        notebook.export,
        notebook.clean_up,
        notebook.watch_training,
    ):
        with pytest.raises(StageOrderError) as caught:
            cell()
        assert "run the cell Begin" in caught.value.hint
    notebook.begin("alice", settings=QUICK)
    for cell in (notebook.listen, notebook.convert, notebook.export, notebook.watch_training):
        with pytest.raises(StageOrderError) as caught:
            cell()
        assert "run the cell" in caught.value.hint
    notebook.stop()
    notebook.clean_up()
    assert "is not being trained" in capsys.readouterr().out
    assert "→ run the cell" in "\n".join(caught.value._render_traceback_())


def test_a_gpu_without_code_ends_the_first_cell(monkeypatch: pytest.MonkeyPatch) -> None:
    problem = {"problem": "torch 2 is not built for the P100", "hint": "T4"}
    monkeypatch.setattr(cells, "run_command", lambda *_, **__: {"versions": {}, "device": None, "problems": [problem]})
    with pytest.raises(ResourceError, match="P100"):
        cells.check()


@pytest.mark.parametrize("cell", [notebook.stop, notebook.clean_up])
def test_the_last_cells_end_tensorboard(
    home: Path, cell: Callable[[], None], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    asked: list[Path] = []
    monkeypatch.setattr(tensorboard_server, "stop", lambda place: asked.append(place) or len(asked) == 1)
    root = notebook.begin("alice").layout.root
    cell()
    assert asked == [root if cell is notebook.stop else root.parent] and "was ended" in capsys.readouterr().out
    cell()
    assert "was ended" not in capsys.readouterr().out


def test_clean_up_removes_what_it_is_told_to_and_no_more(home: Path) -> None:
    layout = notebook.begin("alice").layout
    for name in (
        "0_gt_wavs/a.wav",
        "G_2.pth",
        "D_2.pth",
        "state_2.pt",
        "alice.pth",
        "filelist.txt",
        "checkpoints.json",
    ):
        (layout.root / name).parent.mkdir(parents=True, exist_ok=True)
        (layout.root / name).write_text("[]")
    notebook.clean_up()
    assert len(list(layout.root.iterdir())) == 7
    notebook.clean_up(clips=True)
    assert not layout.clips.exists() and (layout.root / "G_2.pth").exists() and not layout.filelist.exists()
    notebook.clean_up(checkpoints=True)
    assert [path.name for path in layout.root.iterdir()] == ["alice.pth"]


def test_clean_up_lists_and_removes_recordings_that_nothing_uses(
    home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Old uploads, unpacked zips and what begin again set aside go; what is chosen, or a voice was made of, stays."""
    sound = next(voice_folder("target").glob("*.flac")).read_bytes()
    notebook.begin("alice")
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        archive.writestr("b.flac", sound)
    uploads = home / "recordings" / "alice" / "uploads"
    old, zipped, other = (
        save_set(uploads, [file]) for file in (("a.flac", sound), ("b.zip", packed.getvalue()), ("c.flac", sound))
    )
    brought(str(old / "a.flac"), "alice")
    unpacked = brought(str(zipped), "alice")
    bob = Layout.of("bob")
    prepare(bob, other, PrepareSettings(preset="nano"))  # made of an upload in the same folder
    forgotten = home / "logs" / "alice.before-1" / "G_1.pth"
    forgotten.parent.mkdir(parents=True)
    forgotten.write_bytes(bytes(2_000_000))
    notebook.begin("alice", str(zipped))
    notebook.report()
    capsys.readouterr()
    notebook.clean_up()
    told = capsys.readouterr().out
    assert old.exists() and forgotten.exists() and "Freed: 0.0 MB" in told
    size = f"{len(sound) / 1e6:.1f} MB"
    assert f"{size}  {old}" in told and f"2.0 MB  {forgotten.parent}" in told
    assert not any(str(path) in told for path in (zipped, unpacked, other))
    notebook.clean_up(recordings=True)
    assert not old.exists() and forgotten.exists() and f"Freed: {size}" in capsys.readouterr().out
    notebook.clean_up(set_aside=True)
    assert not forgotten.parent.exists() and "Freed: 2.0 MB" in capsys.readouterr().out
    assert all(path.exists() for path in (zipped / "b.zip", unpacked / "b.flac", other / "c.flac", bob.filelist.parent))
    songs = save_set(home / "recordings" / "to convert" / "uploads", [("s.zip", packed.getvalue())])
    [song] = sources(str(songs), "to convert")
    fetched = [home / "recordings" / "v" / "links" / signature(f"https://x.org/{name}.wav") for name in "ab"]
    for folder in fetched:
        folder.mkdir(parents=True)
        (folder / "a.wav").write_bytes(sound)
    notebook.begin("alice", "https://x.org/a.wav", f'"{songs}"')  # now the first zip is an old one
    notebook.clean_up(recordings=True)
    assert not zipped.exists() and not unpacked.exists() and other.exists()
    assert song.exists() and (songs / "s.zip").exists() and [one.exists() for one in fetched] == [True, False]


# -- Colab ---------------------------------------------------------------------------------------------------------
@pytest.fixture
def colab(home: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The double in the place of google.colab, and a Drive inside the test's folder."""
    for name in [name for name in sys.modules if name.startswith("google.colab")]:
        monkeypatch.delitem(sys.modules, name)
    import google

    monkeypatch.setattr(google, "__path__", [*google.__path__, str(COLAB / "google")])
    monkeypatch.setenv("COLAB_RELEASE_TAG", "r1")
    from google.colab import drive

    there = str(home / "drive")
    for module in (platforms, places, cells):
        monkeypatch.setattr(module, "DRIVE", there)
    monkeypatch.setattr(platforms, "is_mount", lambda path: path in drive.MOUNTED - drive.DEAD)
    stat = os.stat

    def dead_or_alive(path: object, **options: object) -> os.stat_result:
        if drive.DEAD and str(path).startswith(there):
            raise OSError(errno.ENOTCONN, os.strerror(errno.ENOTCONN), str(path))
        return stat(path, **options)

    monkeypatch.setattr(os, "stat", dead_or_alive)
    return home


def test_the_double_has_colab_s_signatures(colab: Path) -> None:
    for name, expected in SIGNATURES.items():
        module, _, function = name.partition(".")
        assert str(inspect.signature(getattr(importlib.import_module(f"google.colab.{module}"), function))) == expected


def test_drive_is_mounted_or_refused(
    colab: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("DRIVE_REFUSES", "you said no")
    notebook.begin("alice")
    assert "Drive was not mounted (Error: credential propagation was unsuccessful: you said no)" in (
        capsys.readouterr().out
    )
    monkeypatch.delenv("DRIVE_REFUSES")
    notebook.begin("alice")
    assert (colab / "drive" / "MyDrive" / "rvc_core").is_dir() and "allow it" in capsys.readouterr().out
    notebook.begin("alice")  # mounted already: nothing is asked
    assert "allow it" not in capsys.readouterr().out


@pytest.mark.parametrize(
    "given", [("dataset", "auto"), ("dataset", "none"), ("songs", "none"), ("dataset", "elsewhere"), ("place", "")]
)
def test_a_path_in_drive_mounts_drive_whatever_the_storage_is(
    colab: Path, given: tuple[str, str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    name, place = given
    path = str(colab / "drive" / "MyDrive" / "takes")
    parameters = {"place": str(colab / place) if place == "elsewhere" else place} | {name: path}
    monkeypatch.setenv("DRIVE_REFUSES", "you said no")
    with pytest.raises(StorageError, match=r"not mounted \(.*you said no\), and .*MyDrive/takes lies there"):
        notebook.begin("alice", **parameters)
    assert "works without it" not in capsys.readouterr().out and not (colab / "drive").exists()
    monkeypatch.delenv("DRIVE_REFUSES")
    notebook.begin("alice", **parameters)
    assert (colab / "drive" / "MyDrive").is_dir() and "allow it" in capsys.readouterr().out


def test_an_rvc_home_in_drive_is_mounted_before_anything_is_written_there(
    colab: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RVC_HOME", str(colab / "drive" / "MyDrive" / "rvc"))
    with pytest.raises(StageOrderError):
        notebook.report()
    notebook.begin("alice", place="none")
    from google.colab import drive

    assert drive.MOUNTED and (colab / "drive" / "MyDrive" / "rvc" / "notebook.json").is_file()


def test_nothing_is_mounted_for_paths_elsewhere(colab: Path, capsys: pytest.CaptureFixture[str]) -> None:
    notebook.begin("alice", dataset=str(colab), place="none")
    assert not (colab / "drive").exists() and "allow it" not in capsys.readouterr().out


def test_a_mount_that_died_is_mounted_again_or_named_in_one_sentence(
    colab: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from google.colab import drive

    takes = colab / "drive" / "MyDrive" / "takes"
    notebook.begin("alice", dataset=str(takes), songs=str(takes), place="none")
    takes.mkdir(parents=True)
    shutil.copy(next(voice_folder("target").glob("*.flac")), takes)
    cells_ = (notebook.recordings, notebook.report, notebook.songs)
    for cell in cells_:
        drive.DEAD.add(str(colab / "drive"))
        cell()
        assert not drive.DEAD
    drive.DEAD.add(str(colab / "drive"))
    monkeypatch.setenv("DRIVE_REFUSES", "no")
    for cell in (*cells_, notebook.convert, lambda: notebook.begin("alice", place=str(takes))):
        with pytest.raises(StorageError, match=r"Drive is not mounted \(.*no\), and .*takes lies there"):
            cell()
    assert platforms.detect().storage is None  # export goes to the machine then
    with pytest.raises(DatasetError, match="cannot be reached"):
        find_recordings(takes)
    with pytest.raises(StorageError, match="Drive is not there"):
        places.find_saved(str(takes))


def test_a_fresh_machine_lists_what_is_saved_and_restores_what_is_named(
    home: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    lost = trained(Layout.of("tiny", tmp_path / "lost"), 10)
    lost.run.write_text(json.dumps({"settings": TrainSettings(epochs=77, save_every_epochs=3).stamp()}))
    places.save(lost, str(tmp_path / "kept"))
    kept = platforms.Platform("colab", "Colab", tmp_path, tmp_path / "kept")
    monkeypatch.setattr(places, "detect", lambda: kept)
    with pytest.raises(StageOrderError, match=r"saved are: tiny \(epoch 1\)") as caught:
        notebook.start()
    assert "run the cell Begin" in caught.value.hint and not (home / "logs").exists()
    notebook.begin("tiny", settings={"save_every_epochs": 9})
    assert Layout.of("tiny").generator_steps() == [10]
    settings = Session.load().settings(TrainSettings)
    assert (settings.epochs, settings.save_every_epochs) == (77, 9)  # as it was trained, and as the cell says
    notebook.form(TrainSettings)[0].controls["batch_size"].value = "3"
    assert (Session.load().settings(TrainSettings).epochs, Session.load().settings(TrainSettings).batch_size) == (77, 3)


def test_files_come_through_colab_s_own_upload(colab: Path) -> None:
    notebook.begin("alice")
    notebook.upload()
    assert Session.load().dataset == ""
    notebook.upload(wanted=True)
    assert [path.name for path in Path(Session.load().dataset).iterdir()] == ["take one.wav"]


def test_the_embedded_recordings_are_the_default(home: Path) -> None:
    assert notebook.begin("alice").dataset == voice_folder("target")


# -- clean ---------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("code", ["en", pytest.param("pt", marks=pytest.mark.slow)])
def test_the_cell_clean_repairs_copies_and_the_next_training_takes_them(
    code: str, home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def in_process(command: str, *arguments: str, **_: object) -> dict:
        assert main([command, *arguments, "--quiet", "--json"]) == 0
        return json.loads(capsys.readouterr().out.splitlines()[-1])

    monkeypatch.setattr(cleaning, "run_command", in_process)
    monkeypatch.setenv("RVC_LANG", code)
    takes = home / "takes"
    takes.mkdir()
    fine = 0.3 * phrase(1, seconds=4.0, noise_db=-70.0).samples
    time = np.arange(len(fine)) / 16_000
    hum = sum(np.sin(2 * np.pi * hertz * time) for hertz in (50, 100, 150))
    soundfile.write(takes / "fine.wav", fine, 16_000)
    notebook.begin("alice", dataset=str(takes))
    capsys.readouterr()
    notebook.clean()
    assert "repair" in capsys.readouterr().out and not Session.load().settings(RepairSettings).repair
    notebook.clean(True)
    assert say("clean_unneeded") in capsys.readouterr().out and not Session.load().settings(RepairSettings).repair
    soundfile.write(takes / "hums.wav", fine + 0.01 * hum, 16_000)
    before = {path: path.read_bytes() for path in takes.iterdir()}
    shown: list[dict] = []
    monkeypatch.setattr("IPython.display.display", lambda page, raw: shown.append(page))
    notebook.clean(True)
    assert {path: path.read_bytes() for path in takes.iterdir()} == before
    table, players = shown
    assert "<table>" in table["text/html"] and "hums.wav" in table["text/html"] and "→" in table["text/html"]
    assert players["text/html"].count("<audio") == 2 and "hums" in players["text/html"]
    session = with_recordings()
    assert session.settings(RepairSettings).repair and sorted(find_recordings(Path(session.arrived)).recordings) == [
        "fine.wav",
        "hums.flac",
    ]
