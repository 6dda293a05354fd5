"""The unattended notebooks, executed whole by papermill; and that their failure is a failure."""

import importlib.util
import io
import json
import shutil
from datetime import date
from pathlib import Path

import papermill
import pytest

from rvc_core import batch, cli
from rvc_core.audio.waveform import Audio, read_audio
from rvc_core.embedded import voice_folder
from rvc_core.errors import DatasetError, SettingsError, WeightsError
from rvc_core.experiment import Experiment
from rvc_core.progress import Terminal
from rvc_core.settings import Settings
from synth import phrase

NOTEBOOKS = Path(__file__).parents[2] / "notebooks"


def _execute(notebook: str, folder: Path, /, **parameters: object) -> dict[str, object]:
    result = folder / f"{notebook}.json"
    papermill.execute_notebook(
        NOTEBOOKS / f"{notebook}.ipynb",
        folder / f"{notebook}.ipynb",
        {**parameters, "result": str(result)},
        cwd=folder,
        kernel_name="python3",
        progress_bar=False,
    )
    return json.loads(result.read_text("utf-8"))


def test_the_notebooks_make_a_voice_a_file_and_a_comparison(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> None:
    monkeypatch.setenv("RVC_HOME", str(tmp_path / "root 😀"))
    (tmp_path / "takes").mkdir()
    for number in range(3):
        Audio(phrase(number, seconds=4.0).samples, 16000).save(tmp_path / "takes" / f"{number}.wav")
    Audio(phrase(7, seconds=2.0, speaker=1).samples, 16000).save(tmp_path / "song.wav")
    takes = str(tmp_path / "takes")
    settings = {"preset": "nano", "epochs": 1, "batch_size": 4, "f0_method": "dio", "holdout_minutes": 0.05}
    trained = _execute("batch_train", tmp_path, name="Алиса", dataset=takes, **settings)
    assert trained["train"]["epochs"] == 1 and trained["train"]["heldout_mel_last"] > 0
    told, inputs = io.StringIO(), {"inputs": str(tmp_path / "song.wav"), "output": str(tmp_path / "out")}
    chosen = {"voice": "Алиса", "f0_method": "dio", "output_format": "flac"}
    converted = batch.execute("batch_convert", tmp_path / "batch_convert", inputs | chosen, Terminal(told))
    assert "converting 1/1" in told.getvalue(), "somebody who waits in a terminal sees that it goes on"
    [file] = converted["files"]
    assert Path(file["output"]).suffix == ".flac" and abs(read_audio(Path(file["output"])).seconds - 2) < 0.02
    if request.config.getoption("--slow"):
        song = {"inputs": str(sorted(voice_folder("source").glob("*.flac"))[0]), "output": str(tmp_path / "songs")}
        [sung] = batch.execute("batch_convert", tmp_path / "batch_song", song | chosen | {"song": True})["files"]
        assert Path(sung["output"]).suffix == ".flac" and sung["stems"] and sung["voices"] == {"lead": "Алиса"}
        if importlib.util.find_spec("espeakng_loader"):
            said = {"voice": "Алиса", "text": "Bom dia!", "language": "pt-br", "output": str(tmp_path / "out")}
            [file] = batch.execute("batch_convert", tmp_path / "batch_speak", said)["files"]
            assert file["engine"] == "espeak-ng" and read_audio(Path(file["output"])).seconds > 0.4
    heard = _execute(
        "compare_checkpoints",
        tmp_path,
        name="Алиса",
        clips=str(tmp_path / "song.wav"),
        f0_method="dio",
        export_to=str(tmp_path / "shared"),
    )
    assert [Path(file["path"]).is_file() for file in heard["files"]] == [True]
    assert heard["chosen"] == 1 and Path(heard["exported"][0]).suffix == ".zip"
    again = batch.train_voice("Алиса", takes, str(tmp_path / "again.json"), settings)  # as a cell calls it
    assert again["prepare"]["skipped"] and again["train"]["resumed_from"] == trained["train"]["steps"]


def test_a_notebook_that_fails_says_why_and_leaves_its_output(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(papermill.PapermillExecutionError) as caught:
        _execute("batch_train", tmp_path, name="x", dataset=str(tmp_path / "empty"), preset="nano")
    assert caught.value.ename == "DatasetError"
    assert "DatasetError" in (tmp_path / "batch_train.ipynb").read_text("utf-8")
    assert not (tmp_path / "batch_train.json").exists()


# -- many voices: rvc batch ----------------------------------------------------------------------------------------
def runs_file(folder: Path, text: str) -> Path:
    (folder / "runs.yaml").write_text(text, "utf-8")
    return folder / "runs.yaml"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("runs: [", "is not valid YAML"),
        ("defaults: &a {epochs: 3}\nruns: [{name: a, dataset: d, convert: *a}]", "an alias"),
        ("defaults: {convert: [b]}\nruns: [{name: a, dataset: d}]", "a: convert is not one path"),
        ("runs: " + "[" * 30_000, "is not valid YAML"),
        ("runs: [{name: a, dataset: d, epochs: !!timestamp x}]", "has the tag"),
        ("runs: [{name: a, dataset: d, epochs: " + "1" * 5000 + "}]", r"(?m)epochs must be .{,300}$"),
        ('runs: [{name: a, dataset: "d\\0"}]', "needs a name and a dataset"),
        ("- a", "no valid list of runs"),
        ("runs: 3", "no valid list of runs"),
        ("runs: []\nrun: []", "no valid list of runs"),
        ("runs: [{name: a}]", "run 1 needs a name and a dataset"),
        ("runs: [{name: ~, dataset: d}]", "run 1 needs a name"),
        ("runs: [{name: [1], dataset: d}]", "run 1 needs a name"),
        ("runs: [{name: a, dataset: d, convert: [b]}]", "a: convert is not one path"),
        ("runs: [{name: a, dataset: d, 3: 4, ~: 5}]", "a: unknown setting , 3"),
        ("runs: [{name: a, dataset: d, convert: b, song: maybe}]", "a: song must be true or false"),
        ("runs: [{name: a, dataset: d, convert: b, song: true, vocals: some}]", "a: vocals must be lead or all"),
        (
            "runs: [{name: a, dataset: d, epochs: many}]",
            "a: epochs must be a whole number from 1 to 100000, not",
        ),
        ("runs: [{name: a, dataset: d, epoch: 3}]", "a: unknown setting epoch"),
        ("runs: [{name: a, dataset: d, epochs: 0}]", "a: epochs must be from 1 to 100000, not"),
        ("defaults: {index_rate: 2}\nruns: [{name: a, dataset: d}]", "a: index_rate must be from 0 to 1, not"),
        ("runs: [{name: a, dataset: d}, {name: a, dataset: e}]", "several runs called a"),
        ("runs: !!python/object/apply:os.system ['touch pwned']", "is not valid YAML"),
    ],
)
def test_a_file_of_runs_is_checked_before_anything_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(batch, "execute", lambda *everything: pytest.fail("nothing may run"))
    with pytest.raises(SettingsError, match=message):
        batch.run_all(runs_file(tmp_path, text), tmp_path / "out")
    assert [path.name for path in tmp_path.iterdir()] == ["runs.yaml"]


def test_a_file_of_runs_takes_names_and_numbers_as_they_are_written(tmp_path: Path) -> None:
    text = """
defaults: {epochs: 1_000, uses_f0: no, mel_epsilons: 2023}
runs:
- {name: 007, dataset: 2024, convert: 12, transpose: -2, learning_rate: 1e-4, holdout_minutes: ~, base_generator: }
- {name: 2024-05-01, dataset: 1.50}
- {name: no, dataset: d, epochs: 3, convert: e, song: true, key_semitones: -2}
"""
    bond, dated, no = batch.read_plans(runs_file(tmp_path, text))
    assert (bond.name, bond.dataset, bond.inputs) == ("007", str(tmp_path / "2024"), str(tmp_path / "12"))
    common = {"epochs": 1000, "uses_f0": False, "mel_epsilons": "2023"}
    given = {"transpose": -2.0, "learning_rate": 1e-4, "holdout_minutes": None, "base_generator": "auto"}
    assert bond.settings == common | given
    assert (dated.name, dated.dataset, no.name) == ("2024-05-01", str(tmp_path / "1.50"), "no")
    assert (bond.song, dated.song, no.song) == (False, False, True) and no.settings.pop("key_semitones") == -2
    assert no.settings == common | {"epochs": 3} and isinstance(no.settings["epochs"], int)


def test_numbers_are_names_in_every_unattended_notebook(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RVC_HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    opened: list[tuple[str, Path | None]] = []

    def run(lab: Experiment, *settings: Settings) -> dict[str, object]:
        opened.append((lab.layout.name, lab.dataset))
        return {}

    monkeypatch.setattr(Experiment, "run", run)
    texts = ("2024", "3.5", "True", "2024-05-01")
    for number, (name, text) in enumerate(zip((2024, 3.5, True, date(2024, 5, 1)), texts, strict=True)):
        (tmp_path / text).mkdir()
        Audio(phrase(1, seconds=1.0).samples, 16000).save(tmp_path / text / "1.wav")
        batch.train_voice(name, name, number, {"mel_epsilons": 2026, "unlike": None, "base_generator": 7})
    assert [(name, dataset and dataset.name) for name, dataset in opened] == [(text, text) for text in texts]
    assert json.loads(Path("0").read_text("utf-8")) == {}
    for nothing in (None, "", [1]):
        with pytest.raises(SettingsError, match="not a valid experiment name"):
            batch.train_voice(nothing, "2024", "r", {})
    for call in (
        lambda: batch.convert_folder(2025, 1, 2, 3, {}, index=None),
        lambda: batch.convert_folder(2025, 1, 2, 3, {}, index=5),
    ):
        with pytest.raises(WeightsError, match="'2025' is neither a voice file nor an experiment"):
            call()


def test_done_runs_are_skipped_changed_and_broken_ones_are_not_and_failures_do_not_stop_the_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ran: list[tuple[str, dict[str, object]]] = []

    def execute(notebook: str, place: Path, parameters: dict[str, object], progress: object) -> dict[str, object]:
        ran.append((notebook, parameters))
        if parameters.get("name") == "broken":
            raise DatasetError("no audio", hint="bring some")
        made = place.with_name(f"{place.name}.{notebook}")
        made.write_text("result")
        place.with_name(f"{place.name}.json").write_text("{}")
        return {"train": {"voice": str(made)}, "files": [{"output": str(made)}]}

    monkeypatch.setattr(batch, "execute", execute)
    for name in ("takes", "songs"):
        (tmp_path / name).mkdir()
        Audio(phrase(1, seconds=1.0).samples, 16000).save(tmp_path / name / "1.wav")
    text = """
defaults: {epochs: 3}
runs:
- {name: broken, dataset: takes}
- {name: alice, dataset: takes, convert: songs, transpose: 2}
- {name: Боб, dataset: takes, epochs: 4}
"""
    states = lambda: [row["state"] for row in batch.run_all(file, tmp_path / "out")]
    file = runs_file(tmp_path, text)
    assert states() == ["failed", "done", "done"]
    assert [(notebook, parameters.get("epochs")) for notebook, parameters in ran] == [
        ("batch_train", 3),
        ("batch_train", 3),
        ("batch_convert", None),
        ("batch_train", 4),
    ]
    assert ran[2][1]["inputs"] == str(tmp_path / "songs") and ran[2][1]["transpose"] == 2
    ran.clear()
    assert states() == ["failed", "skipped", "skipped"] and len(ran) == 1
    broken, alice, _ = json.loads((tmp_path / "out" / "summary.json").read_text("utf-8"))
    assert (broken["error"], broken["hint"]) == ("no audio", "bring some")
    assert "result" not in broken and Path(alice["result"]).exists(), "only what is there"
    (tmp_path / "out" / "alice.batch_train").write_text("damaged")
    assert states() == ["failed", "done", "skipped"]
    runs_file(tmp_path, text.replace("epochs: 4", "epochs: 5"))
    assert states() == ["failed", "skipped", "done"]
    Audio(phrase(2, seconds=1.0).samples, 16000).save(tmp_path / "takes" / "2.wav")
    assert states() == ["failed", "done", "done"]


def test_a_run_without_recordings_fails_at_once_and_says_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing there, an empty folder, no sound, a broken zip: each has its reason and remedy, and no notebook."""
    monkeypatch.setenv("RVC_HOME", str(tmp_path / "home"))
    monkeypatch.setattr(batch, "execute", lambda *everything: pytest.fail("nothing may run"))
    (tmp_path / "empty").mkdir()
    (tmp_path / "texts").mkdir()
    (tmp_path / "texts" / "a.txt").write_text("words")
    (tmp_path / "broken.zip").write_bytes(b"PK\x03\x04 and no more")
    names = {"away": "there is no", "empty": "no recordings in empty", "texts": "no recordings in texts"}
    names["broken.zip"] = "broken.zip is damaged or incomplete"
    runs = "\n".join(f"- {{name: {name}, dataset: {name}}}" for name in names)
    (tmp_path / "out").mkdir()
    rows = batch.run_all(runs_file(tmp_path, f"runs:\n{runs}"), tmp_path / "out")
    assert [row["state"] for row in rows] == ["failed"] * 4
    for row, reason in zip(rows, names.values(), strict=True):
        assert reason in row["error"] and row["hint"] and not {"notebook", "result"} & row.keys(), row
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["summary.json"]


@pytest.mark.slow
def test_rvc_batch_tells_the_truth(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("RVC_HOME", str(tmp_path / "home"))
    shutil.copytree(voice_folder("source"), tmp_path / "takes")
    (tmp_path / "empty").mkdir()
    file = runs_file(
        tmp_path,
        """
defaults: {preset: nano, epochs: 1, f0_method: dio}
runs:
- {name: nobody, dataset: empty}
- {name: alice, dataset: takes, convert: takes, output_format: flac}
""",
    )
    call = ["batch", str(file), "--output", str(tmp_path / "out"), "--json"]
    for state in ("done", "skipped"):
        assert cli.main(call) == 1
        report = json.loads(capsys.readouterr().out.splitlines()[-1])
        assert [row["state"] for row in report["runs"]] == ["failed", state]
        assert "nobody: no recordings in empty" in report["error"] and report["hint"]
        assert [Path(row["notebook"]).exists() for row in report["runs"] if "notebook" in row] == [True]
    assert len(list((tmp_path / "out" / "alice_converted").glob("*.flac"))) == 3
    (tmp_path / "noise").mkdir()
    (tmp_path / "noise" / "no.wav").write_bytes(b"RIFF and no more")
    runs_file(
        tmp_path,
        file.read_text("utf-8")
        .replace("{name: nobody, dataset: empty}", "{name: nobody, dataset: noise}")
        .replace("dataset: takes", f"dataset: {voice_folder('target')}"),
    )
    assert cli.main(call) == 1
    nobody, alice = json.loads(capsys.readouterr().out.splitlines()[-1])["runs"]
    assert nobody["state"] == "failed" and "DatasetError" in Path(nobody["notebook"]).read_text("utf-8"), nobody
    assert "trained on other recordings" in alice["error"] and "choose a new name" in alice["hint"], alice
    runs_file(tmp_path, file.read_text("utf-8").replace("- {name: nobody, dataset: noise}\n", ""))
    runs_file(tmp_path, file.read_text("utf-8").replace(str(voice_folder("target")), "takes"))
    assert cli.main(call) == 0
