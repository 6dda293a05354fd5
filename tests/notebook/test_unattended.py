"""What was chosen in forms reaches a run that nobody watches, and such a run never trains the demo by mistake."""

import shutil
from pathlib import Path

import nbclient
import nbformat
import pytest

import rvc_core
from rvc_core import notebook
from rvc_core.embedded import voice_folder
from rvc_core.errors import DatasetError, SettingsError, StageOrderError
from rvc_core.notebook import unattended
from rvc_core.notebook.session import DEMO, Session
from rvc_core.settings import ConvertSettings, PrepareSettings, TrainSettings
from rvc_core.storage import places
from rvc_core.training.train import train
from rvc_core.workspace.layout import Layout
from rvc_core.workspace.manifest import ExperimentRecord
from tiny import experiment


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("RVC_HOME", str(tmp_path / "home"))
    monkeypatch.delenv("JPY_SESSION_NAME", raising=False)
    return tmp_path / "home"


def test_the_parameters_cell_makes_the_same_session_on_a_fresh_machine(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    notebook.begin("Zoë's 2nd", str(tmp_path), settings={"seed": 7, "max_minutes": None})
    notebook.form(TrainSettings)[0].controls["epochs"].value = 33
    notebook.form(PrepareSettings)[0].controls["preset"].value = "v1-48k"
    notebook.form(ConvertSettings)[0].controls["protect"].value = 0.1
    text = unattended.parameters_text(Session.load())
    shown: list = []
    monkeypatch.setattr("IPython.display.display", shown.append)
    notebook.parameters()
    assert "epochs" in shown[0].data and "<script" not in shown[0].data
    values: dict = {}
    exec(text, values)
    monkeypatch.setenv("RVC_HOME", str(tmp_path / "fresh machine"))
    notebook.begin(values["name"], values["dataset"], values["songs"], values["storage"], values["settings"])
    session = Session.load()
    assert (session.name, session.dataset) == ("Zoë's 2nd", str(tmp_path))
    train, prepare, convert = (session.settings(one) for one in (TrainSettings, PrepareSettings, ConvertSettings))
    assert (train.epochs, train.seed, prepare.preset, convert.protect) == (33, 7, "v1-48k", 0.1)


@pytest.mark.parametrize("mark", [{"KAGGLE_KERNEL_RUN_TYPE": "Batch"}, {"KAGGLE_KERNEL_RUN_TYPE": "Interactive"}, {}])
def test_save_and_run_all_is_known(mark: dict[str, str]) -> None:
    assert unattended.is_unattended(mark) == (mark.get("KAGGLE_KERNEL_RUN_TYPE") == "Batch")


def test_recordings_that_were_forgotten_stop_a_run_that_nobody_watches(
    monkeypatch: pytest.MonkeyPatch, home: Path
) -> None:
    found = [Path("/kaggle/input/zoe/recordings"), Path("/kaggle/input/bob.zip")]
    monkeypatch.setenv("KAGGLE_KERNEL_RUN_TYPE", "Batch")
    monkeypatch.setattr("rvc_core.notebook.cells.offered", lambda: found)
    with pytest.raises(DatasetError, match="/kaggle/input/bob.zip") as caught:
        notebook.begin("zoe")
    assert 'dataset = "/kaggle/input/zoe/recordings"' in caught.value.hint
    unattended.refuse_forgotten_recordings(DEMO, found)  # asked for by name
    unattended.refuse_forgotten_recordings("", [])  # nothing is attached
    monkeypatch.setenv("KAGGLE_KERNEL_RUN_TYPE", "Interactive")
    unattended.refuse_forgotten_recordings("", found)  # somebody is there to fill in the form


def test_programs_that_run_notebooks_are_known_by_their_kernel(home: Path) -> None:
    cell = nbformat.v4.new_code_cell("from rvc_core.notebook.unattended import is_unattended; print(is_unattended())")
    done = nbclient.execute(nbformat.v4.new_notebook(cells=[cell]), timeout=60, kernel_name="python3")
    assert done.cells[0].outputs[0]["text"] == "True\n"


def test_the_demo_has_a_name_of_its_own(home: Path, tmp_path: Path) -> None:
    notebook.begin("my voice")
    assert Session.load().lab.layout.name == DEMO and Session.load().settings(PrepareSettings).holdout_minutes
    Session.remember(dataset=str(tmp_path))
    assert Session.load().lab.layout.name == "my voice"
    assert Session.load().settings(PrepareSettings).holdout_minutes is None


def test_recordings_without_a_voice_go_with_a_new_name(
    home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Prepare refuses them under the old name and asks for a new one: the demo must not take their place."""
    takes = tmp_path / "takes"
    shutil.copytree(voice_folder("source"), takes)
    notebook.begin("alice")
    Session.remember(dataset=str(takes))
    notebook.begin("bob")  # renamed before anything was made of them
    assert Session.load().dataset == str(takes) and f"“bob” is new. Its recordings: {takes}" in capsys.readouterr().out
    ExperimentRecord("bob", str(takes), "nano").save(Layout.of("bob"))
    notebook.begin("carol")  # a second voice: bob's recordings stay with bob
    assert Session.load().dataset == ""
    notebook.begin("bob")
    assert Session.load().dataset == str(takes)
    Session.remember(dataset=str(tmp_path / "others"))
    notebook.begin("dora")
    assert Session.load().dataset == str(tmp_path / "others")


def test_two_notebooks_on_one_machine_keep_to_their_own_voice(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("one", "two"):
        monkeypatch.setenv("JPY_SESSION_NAME", f"/home/me/{name}/train.ipynb")
        notebook.begin(name, "recordings")
    monkeypatch.setenv("JPY_SESSION_NAME", "/home/me/one/train.ipynb")  # also after a restart of its kernel
    assert Session.load().name == "one"
    Session.remember(voice="x.pth")
    monkeypatch.setenv("JPY_SESSION_NAME", "/home/me/two/train.ipynb")
    assert (Session.load().name, Session.load().voice) == ("two", "")


def test_what_is_remembered_may_be_damaged(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    notebook.begin("alice", "recordings")
    (home / "notebook.json").write_text('{"surprise": 1}')
    with pytest.raises(SettingsError, match="damaged"):
        Session.load()
    notebook.begin("alice", "recordings")
    assert Session.load().name == "alice"
    (home / "notebook.json").unlink()
    with pytest.raises(StageOrderError, match="no voice was begun"):
        Session.load()


def test_the_next_day_a_name_alone_brings_the_voice_back(home: Path, tiny: None, tmp_path: Path) -> None:
    layout, kept = experiment(home, "alice"), str(tmp_path / "kept")
    train(layout, TrainSettings.of(epochs=1, base_generator="none", base_discriminator="none"))
    places.save(layout, kept)
    shutil.rmtree(home)
    assert notebook.begin("alice", place=kept).layout.generator_steps() == [1]
    assert (Session.load().lab.layout.name, Session.load().dataset) == ("alice", "synthetic")
    assert notebook.begin("bob", place=kept).layout.name == DEMO  # a new name without recordings is the demo


def test_no_module_takes_the_name_of_a_cell() -> None:
    """A module that is imported becomes an attribute of its package, and would stand where its function was."""
    for package in (rvc_core, notebook):
        modules = {file.stem for file in Path(package.__file__).parent.glob("*")}
        assert not modules & {*package.__all__} - {"notebook"}
