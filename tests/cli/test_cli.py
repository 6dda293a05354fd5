"""The command line: results as JSON, bad input as one line with a hint and status 1, nothing half-written."""

import itertools
import json
import shlex
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch

from rvc_core import experiment
from rvc_core.audio.waveform import Audio
from rvc_core.cli import demo as demo_module
from rvc_core.cli import main
from rvc_core.cli.stages import SETTINGS_OF
from rvc_core.conversion.naming import outputs_for
from rvc_core.embedded import voice_folder
from rvc_core.errors import RVCError, SettingsError
from rvc_core.features.pitch import PitchTrack
from rvc_core.features.retrieval import FeatureIndex
from rvc_core.nn.synthesizer import Synthesizer
from rvc_core.presets import preset
from rvc_core.settings import ConvertSettings, IndexSettings, PrepareSettings, TrainSettings
from rvc_core.system.platforms import home
from rvc_core.training.train import TrainReport
from rvc_core.workspace.layout import Layout
from rvc_core.workspace.manifest import ExperimentRecord
from rvc_core.workspace.voice_file import VoiceFile, VoiceInfo, save_voice
from synth import phrase

ROOT = Path(__file__).parents[2]


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A root of its own for each test."""
    monkeypatch.setenv("RVC_HOME", str(tmp_path / "root"))
    return tmp_path


def _result(capsys: pytest.CaptureFixture[str]) -> dict[str, object]:
    return json.loads(capsys.readouterr().out.splitlines()[-1])


def _dataset(folder: Path, recordings: int = 3) -> Path:
    folder.mkdir(parents=True)
    for number in range(recordings):
        Audio(phrase(number, seconds=4.0).samples, 16000).save(folder / f"take {number}.wav")
    return folder


def test_the_whole_journey_with_names_in_any_script(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    name, dataset = "Алиса 😀 'the \"voice\"' 歌", _dataset(here / 'записи 😀 "takes"')
    (dataset / ".ipynb_checkpoints").mkdir()
    shutil.copy(dataset / "take 0.wav", dataset / ".ipynb_checkpoints" / "take 0-checkpoint.wav")
    assert (
        main(
            [
                "run",
                name,
                "--dataset",
                str(dataset),
                "--preset",
                "nano",
                "--epochs",
                "1",
                "--batch-size",
                "2",
                "--holdout-minutes",
                "0.05",
                "--base-generator",
                "none",
                "--base-discriminator",
                "none",
                "--f0-method",
                "dio",
                "--json",
                "--quiet",
            ]
        )
        == 0
    )
    result = _result(capsys)
    prepared = result["prepare"]
    assert prepared["seconds_in"] == pytest.approx(prepared["seconds_kept"] + prepared["seconds_explained"], rel=1e-3)
    assert prepared["explained"]["ignored folder"] == pytest.approx(4.0, rel=1e-3)
    assert result["train"]["epochs"] == 1 and Path(result["train"]["voice"]).exists()
    assert result["index"]["dimension"] == 256
    source = here / "песня 'é' 歌.wav"
    Audio(phrase(9, seconds=2.0, speaker=1).samples, 16000).save(source)
    assert main(["convert", name, str(source), "--output", str(here / "out 😀"), "--json", "--quiet"]) == 0
    [file] = _result(capsys)["files"]
    assert Path(file["output"]).exists() and abs(file["seconds"] - 2) < 0.02 and file["real_time_factor"] > 0
    assert main(["info", result["train"]["voice"], "--json"]) == 0
    assert _result(capsys)["name"] == name

    assert main(["prepare", name]) == 0 and main(["index", name, "--quiet"]) == 0  # in sentences, for a reader
    told = capsys.readouterr().out
    assert f"Nothing changed since they were prepared: {prepared['clips']} clips from 3 recordings" in told
    assert "0:04 min, ignored folder" in told and "held out for validation: 0:0" in told
    assert f"{result['index']['vectors']} features" in told
    assert main(["train", name, "--epochs", "1", "--foreground", "--quiet"]) == 0
    told = capsys.readouterr().out
    assert f"{name!r} is trained to epoch 1 (" in told and "all epochs are done" in told
    command = told.split("next: ")[1].split(" SONG")[0]
    assert shlex.split(command) == ["rvc", "convert", name], "can be pasted"
    assert main([*shlex.split(command)[1:], str(source), "--output", str(here / "out 😀"), "--quiet"]) == 0
    assert f"{file['output']}: 0:02 min" in capsys.readouterr().out
    assert main(["stop", name]) == 0 and "is not being trained" in capsys.readouterr().out


def test_a_curve_can_be_written(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source, curve = here / "vowels.wav", here / "curves" / "vowels.csv"
    truth = phrase(2, seconds=1.5)
    Audio(truth.samples, 16000).save(source)
    assert main(["f0", str(source), "--output", str(curve), "--f0-method", "dio", "--json"]) == 0
    result = _result(capsys)
    assert result["f0_method"] == "dio" and result["frames"] == 150 == len(curve.read_text().splitlines()) - 1
    assert result["median_hz"] == pytest.approx(np.median(truth.f0_hz[truth.voiced]), rel=0.02)
    assert main(["convert", "x.pth", str(source), str(source), "--f0-curve", str(curve), "--json"]) == 1
    capsys.readouterr()
    with pytest.raises(SettingsError, match="one f0 curve for 2 recordings"):
        outputs_for([source, source], here, "v", ConvertSettings.of(f0_curve=str(curve)))
    assert main(["f0", str(source), "--f0-method", "yin", "--json"]) == 1
    assert "yin" in _result(capsys)["error"]
    curve.write_text("0,440\n")  # edited by hand
    (here / "link").symlink_to(here / "nowhere")
    for taken in (curve, here / "link", here):
        assert main(["f0", str(source), "--output", str(taken), "--f0-method", "dio", "--json"]) == 1
        assert _result(capsys)["error"] == (f"--output {taken} is a folder" if taken == here else f"{taken} exists")
    assert curve.read_text() == "0,440\n" and (here / "link").is_symlink()


def test_f0_and_evaluate_read_paths_as_people_type_them(
    here: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    takes = _dataset(here / "my takes", 2)
    with zipfile.ZipFile(here / "one.zip", "w") as archive:
        archive.write(takes / "take 0.wav", "take 0.wav")
    monkeypatch.setattr("rvc_core.conversion.source.source_pitch", lambda audio, *_: truth(audio))
    places = (f'"{takes}/take 0.wav"', f"file://{takes}/take%200.wav", f"{takes}/*0.wav", str(here / "one.zip"))
    for number, typed in enumerate(places):
        assert main(["f0", typed, "--output", str(here / f"{number}.csv"), "--f0-method", "dio", "--json"]) == 0, typed
        assert _result(capsys)["frames"] == 400
    assert main(["f0", str(takes), "--output", str(here / "f0.csv"), "--f0-method", "dio", "--json"]) == 1
    assert "holds 2 recordings" in _result(capsys)["error"]
    measured: list[tuple[list[Path], list[Path]]] = []

    def evaluate_files(outputs: list[str], given: list[Path], target: list[Path], *_: object, **__: object) -> None:
        measured.append((given, target))
        raise RVCError("measured")

    monkeypatch.setattr("rvc_core.evaluation.evaluate.evaluate_files", evaluate_files)
    quoted, linked = f'"{takes}/*.wav"', f"file://{takes}/take%201.wav"
    assert main(["evaluate", str(takes / "take 0.wav"), "--source", quoted, "--target", linked, "--json"]) == 1
    assert measured == [([takes / "take 0.wav", takes / "take 1.wav"], [takes / "take 1.wav"])]


def truth(audio: Audio) -> PitchTrack:
    return PitchTrack(np.full(round(100 * audio.seconds), 100.0), np.ones(round(100 * audio.seconds), bool))


def test_clean_lists_and_removes_what_nothing_uses(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    aside, upload = home() / "logs" / "v.before-1", home() / "recordings" / "v" / "uploads" / "old"
    for folder in (aside, upload):
        folder.mkdir(parents=True)
        (folder / "file").write_bytes(bytes(1000))
    assert main(["tidy", "--json"]) == 0
    listed = {"recordings": [{"path": str(upload), "bytes": 1000}], "set_aside": [{"path": str(aside), "bytes": 1000}]}
    assert _result(capsys) == listed | {"freed_bytes": 0} and aside.exists() and upload.exists()
    assert main(["tidy", "--set-aside", "--json"]) == 0
    assert _result(capsys)["freed_bytes"] == 1000 and upload.exists() and not aside.exists()
    assert main(["tidy", "--recordings", "--json"]) == 0
    assert _result(capsys)["freed_bytes"] == 1000 and not upload.exists()


def _bad_dataset(folder: Path, kind: str) -> Path:
    folder.mkdir()
    if kind == "text named wav":
        (folder / "notes.wav").write_text("this is not sound\n" * 50)
    elif kind == "0 bytes":
        (folder / "empty.wav").touch()
    elif kind == "silence":
        Audio(np.zeros(48000, np.float32), 16000).save(folder / "silence.wav")
    elif kind == "no audio":
        (folder / "readme.txt").write_text("nothing here")
    elif kind == "missing":
        folder.rmdir()
    return folder


@pytest.mark.parametrize("kind", ["no audio", "text named wav", "0 bytes", "silence", "missing"])
def test_bad_recordings_fail_in_one_line_and_leave_nothing(
    here: Path, capsys: pytest.CaptureFixture[str], kind: str
) -> None:
    dataset = _bad_dataset(here / "data", kind)
    assert main(["prepare", "x", "--dataset", str(dataset), "--preset", "nano", "--json", "--quiet"]) == 1
    captured = capsys.readouterr()
    result = json.loads(captured.out.splitlines()[-1])
    assert result["error"] and result["hint"] and "\n" not in result["error"]
    assert "Traceback" not in captured.err and result["error"] in captured.err
    assert not Layout.of("x").clips.exists() and not Layout.of("x").experiment.exists()


def test_no_room_is_said_before_anything_is_written(
    here: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    dataset = _dataset(here / "data")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(10**9, 10**9, 1000))
    assert main(["prepare", "x", "--dataset", str(dataset), "--preset", "nano", "--json", "--quiet"]) == 1
    assert "not enough room" in _result(capsys)["error"]
    assert not Layout.of("x").clips.exists()


@pytest.mark.parametrize(
    "arguments", [["extract", "nobody"], ["train", "nobody"], ["index", "nobody"], ["convert", "nobody", "x.wav"]]
)
def test_stages_out_of_order_say_which_comes_first(
    here: Path, capsys: pytest.CaptureFixture[str], arguments: list[str]
) -> None:
    assert main([*arguments, "--json", "--quiet"]) == 1
    assert "rvc " in _result(capsys)["hint"]


def test_a_missing_base_or_encoder_is_an_error_and_not_a_silent_fallback(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    dataset = _dataset(here / "data", recordings=1)
    assert main(["prepare", "x", "--dataset", str(dataset), "--preset", "v2-40k", "--quiet"]) == 0
    assert main(["extract", "x", "--json", "--quiet"]) == 1
    assert "hubert_base" in _result(capsys)["error"]
    Layout.of("x").filelist.write_text("a.wav|a.npy|a.npy|a.npy|0")
    assert main(["train", "x", "--json", "--quiet"]) == 1
    assert "f0G40k.pth" in capsys.readouterr().out


def test_an_index_of_another_width_and_other_bad_files_are_named(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    spec = preset("nano")
    torch.manual_seed(0)
    voice, index, source = here / "v.pth", here / "other.index", here / "a.wav"
    save_voice(voice, VoiceFile(spec, Synthesizer(spec).state_dict(), VoiceInfo("v", content_name="embedded")))
    FeatureIndex.build(np.random.default_rng(0).standard_normal((100, 768)).astype(np.float32), IndexSettings()).save(
        index
    )
    Audio(phrase(1, seconds=1.0).samples, 16000).save(source)
    output = here / "out"
    for arguments, said in (
        (["--index", str(index)], "768"),
        (["--index", str(source)], "index"),
        (["--index", str(here / "absent.index")], "absent.index"),
        (["--protect", "0.9"], "protect"),
        (["--transpose", "high"], "transpose"),
    ):
        assert main(["convert", str(voice), str(source), "--output", str(output), *arguments, "--json", "--quiet"]) == 1
        result = _result(capsys)
        assert said in result["error"] and result["hint"], result
        assert not output.exists() or not list(output.iterdir())


def test_one_bad_file_of_several_does_not_stop_the_others(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    spec = preset("nano")
    torch.manual_seed(0)
    save_voice(here / "v.pth", VoiceFile(spec, Synthesizer(spec).state_dict(), VoiceInfo("v", content_name="embedded")))
    (here / "in").mkdir()
    Audio(phrase(1, seconds=1.0).samples, 16000).save(here / "in" / "good.wav")
    (here / "in" / "bad.wav").write_text("no sound")
    status = main(
        [
            "convert",
            str(here / "v.pth"),
            str(here / "in"),
            "--output",
            str(here / "out"),
            "--index",
            "none",
            "--f0-method",
            "dio",
            "--json",
            "--quiet",
        ]
    )
    result = _result(capsys)
    assert status == 1 and result["failed"] == 1 and len(result["files"]) == 2
    assert [path.name for path in (here / "out").iterdir()] == ["good_v.wav"]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ("", "required: COMMAND"),
        ("chek", "did you mean check?"),
        ("xyzzy", "unknown command 'xyzzy'"),
        ("weights fetsh", "did you mean fetch?"),
        ("train", "usage: rvc train NAME"),
        ("train x --no-such-flag 1", "rvc train: unknown option --no-such-flag"),
        ("run x --datset=takes", "did you mean --dataset?"),
        (
            "run Anna Maria --dataset takes",
            "unexpected 'Maria'\n     put a name or path that contains spaces in quotes",
        ),
        ("check --preset nano24k", "unknown preset 'nano24k'\n     did you mean nano-24k?"),
        ("export v --layout aplio", "did you mean applio?"),
        ("pin x last", "argument STEP: invalid int value: 'last'"),
    ],
)
def test_wrong_usage_is_status_2_and_says_what_was_meant(
    arguments: str, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as caught:
        main(arguments.split())
    told = capsys.readouterr().err
    assert caught.value.code == 2 and said in told and len(told.splitlines()) == 2


@pytest.mark.parametrize(
    "command", ["stop", "pin 7", "save --to saves", "verdict", "index", "extract", "train", "prepare", "run"]
)
def test_a_mistyped_name_is_answered_with_the_names_there_are(
    command: str, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first, *others = command.split()

    def told(name: str) -> str:
        assert main([first, name, *others]) == 1
        return capsys.readouterr().err

    assert "there is no experiment 'Zoe'" in told("Zoe") and "rvc run" in told("Zoe")
    for name in ("Zoë", "bob"):
        ExperimentRecord(name, "synthetic", "nano").save(Layout.of(name))
    before = sorted(here.rglob("*"))
    assert "did you mean Zoë?\n" in told("zoe") and "there is: Zoë, bob\n" in told("somebody")
    assert sorted(here.rglob("*")) == before, "nothing is made, not even a folder"


@pytest.mark.parametrize(
    ("arguments", "error", "hint"),
    [
        (
            "convert v x --transpose up",
            "must be auto or a number of semitones from -60 to 60, not 'up'",
            "",
        ),
        (
            "convert v x --transpose 61",
            "must be auto or a number of semitones from -60 to 60, not '61'",
            "",
        ),
        ("train x --batch-size 1.5", "--batch-size must be auto or a whole number from 1 to 64, not '1.5'", ""),
        ("train x --learning-rate 1", "--learning-rate must be auto or a number above 0 and at most 0.01, not '1'", ""),
        ("train x --max-minutes long", "--max-minutes must be a number above 0, not 'long'", ""),
        ("convert v x --protect 0.9", "--protect must be from 0 to 0.5, not '0.9'", ""),
        ("convert v x --output-rate-hz 50", "--output-rate-hz must be 0, or at least 8000, not '50'", ""),
        ("run x --dataset . --preset nano24k", "nano or nano-24k, not 'nano24k'", "did you mean nano-24k?"),
        ("run x --dataset . --uses-f0 maybe", "--uses-f0 must be true or false, not 'maybe'", ""),
        ("convert v x --output-format Mp3s", "or m4a, not 'Mp3s'", "did you mean mp3?"),
    ],
)
def test_a_value_that_does_not_fit_is_answered_in_one_sentence(
    arguments: str, error: str, hint: str, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    ExperimentRecord("x", "synthetic", "nano").save(Layout.of("x"))
    assert main([*arguments.split(), "--json", "--quiet"]) == 1
    told = _result(capsys)
    assert str(told["error"]).endswith(error) and "; " not in str(told["error"])
    assert told["hint"] == hint if hint else str(told["hint"]).startswith(str(told["error"]).split()[0])


@pytest.mark.parametrize("command", ["verdict", "index"])
@pytest.mark.parametrize("name", ["Anna Maria", "Zoë's", "alice"])
def test_a_command_in_a_hint_can_be_pasted(
    command: str, name: str, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    ExperimentRecord(name, "synthetic", "nano").save(Layout.of(name))
    assert main([command, name]) == 1
    assert shlex.split(capsys.readouterr().err.split("run: ")[1])[2] == name


def test_nothing_is_shown_as_a_word_and_not_as_python_writes_it(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    report = {"versions": {"torch": "2.13", "faiss-gpu": None}, "device": {}, "level": np.float32(0), "problems": []}
    monkeypatch.setattr("rvc_core.system.installation.check", lambda: report)
    assert main(["check"]) == 0
    assert capsys.readouterr().out.splitlines() == [
        "versions:",
        "  torch: 2.13",
        "  faiss-gpu: none",
        "device: none",
        "level: 0.0",
        "problems: none",
    ]


def test_golden_reports_as_promised(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    from rvc_core.evaluation import golden

    cases = golden._cases  # all of them are computed in tests/nn
    monkeypatch.setattr(golden, "_cases", lambda *given: itertools.islice(cases(*given), 1))
    assert main(["golden", str(ROOT / "tests" / "golden"), "--json"]) == 0
    result = _result(capsys)
    assert result["worst_relative_error"] < 1e-4
    assert {"name", "worst_relative_error"} <= result["cases"][0].keys()


def test_json_is_the_last_line_of_a_real_process() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "rvc_core.cli", "inspect", str(voice_folder("source")), "--json"],
        capture_output=True,
        text=True,
        cwd=ROOT,
        check=True,
    )
    assert json.loads(done.stdout.splitlines()[-1])["minutes"] == pytest.approx(0.215, rel=0.05)


def test_home_is_where_the_user_says(here: Path) -> None:
    assert home() == here / "root" and Layout.of("x").root == here / "root" / "logs" / "x"


# -- failures of the machine and of the person ---------------------------------------------------------------------
def _fails_in_one_line(capsys: pytest.CaptureFixture[str], arguments: list[str]) -> str:
    assert main([*arguments, "--json", "--quiet"]) == 1
    captured = capsys.readouterr()
    result = json.loads(captured.out.splitlines()[-1])
    assert result["error"] and result["hint"] and "\n" not in result["error"]
    assert result["error"] in captured.err and result["hint"] in captured.err
    return result["error"]


def test_a_home_that_is_a_file_is_named(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (here / "root").write_text("a file")
    assert str(here / "root") in _fails_in_one_line(
        capsys, ["prepare", "x", "--dataset", str(_dataset(here / "data", 1)), "--preset", "nano"]
    )


def test_what_the_system_forbids_is_said_with_the_place(
    here: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def forbidden(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied", "/somewhere/logs")  # root itself is never refused

    Layout.of("x").root.mkdir(parents=True)
    monkeypatch.setattr(experiment.Experiment, "prepare", forbidden)
    assert _fails_in_one_line(capsys, ["prepare", "x"]) == "Permission denied: /somewhere/logs"


@pytest.mark.parametrize(
    "command, output",
    [
        (["convert", "absent.pth", "a.wav"], "out.wav/below"),
        (["convert", "absent.pth", "a.wav"], "out.wav/below.mp3"),
        (["demo"], "out.wav"),
        (["demo"], "out.wav/below"),
    ],
)
def test_an_output_that_is_a_file_is_refused_before_any_work(
    here: Path, capsys: pytest.CaptureFixture[str], command: list[str], output: str
) -> None:
    (here / "out.wav").write_text("somebody's file")
    error = _fails_in_one_line(capsys, [*command, "--output", str(here / output)])
    assert "is a file" in error and (here / "out.wav").read_text() == "somebody's file"


def test_an_interrupted_command_still_answers_in_json(
    here: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    Layout.of("x").root.mkdir(parents=True)
    monkeypatch.setattr(experiment.Experiment, "train", interrupted)
    assert _fails_in_one_line(capsys, ["train", "x", "--foreground"]) == "interrupted"


@pytest.mark.parametrize("command", [["run", "x"], ["train", "x", "--foreground"]])
@pytest.mark.parametrize(("stopped_by", "status"), [("interrupt", 1), ("epochs", 0), ("time", 0)])
def test_training_that_saved_after_ctrl_c_says_how_to_continue(
    command: list[str],
    stopped_by: str,
    status: int,
    here: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    report = TrainReport(2, 10, stopped_by, None, "x.pth", None, None, 1.0, 0)
    Layout.of("x").root.mkdir(parents=True)
    monkeypatch.setattr(experiment.Experiment, "train", lambda *_, **__: report)
    monkeypatch.setattr(experiment.Experiment, "run", lambda *_, **__: {"train": report.as_json()})
    assert main([*command, "--json"]) == status
    told = capsys.readouterr()
    assert ("run the same command again" in told.err) == bool(status) and '"steps": 10' in told.out


def test_a_demo_below_its_bars_says_which(
    here: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    report = demo_module.DemoReport(
        0.5,
        3,
        2.0,
        1.9,
        0.5,
        0.9,
        0.0,
        0.9,
        "o.wav",
        "demo.png",
        9.0,
        ["held-out mel fell by 0.05", "similarity gain 0.00"],
    )
    monkeypatch.setattr(demo_module, "demo", lambda folder, progress: report)
    assert _fails_in_one_line(capsys, ["demo", "--output", str(here)]) == (
        "held-out mel fell by 0.05; similarity gain 0.00"
    )


def test_a_killed_notebook_is_an_error_with_a_hint(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import papermill
    from nbclient.exceptions import DeadKernelError

    def killed(*_: object, **__: object) -> None:
        raise DeadKernelError("Kernel died")

    monkeypatch.setattr(papermill, "execute_notebook", killed)
    with pytest.raises(RVCError, match="killed") as caught:
        demo_module.demo(here / "demo")
    assert "memory" in caught.value.hint


# -- settings ------------------------------------------------------------------------------------------------------
def _takes_floats(settings: type, name: str) -> bool:
    return "float" in str(settings.model_fields[name].annotation)


@pytest.mark.parametrize("value", ["nan", "inf", "-inf", float("nan"), float("inf")])
def test_no_setting_takes_what_is_not_a_number(value: object) -> None:
    fields = [
        (settings, name)
        for classes in SETTINGS_OF.values()
        for settings in classes
        for name in settings.model_fields
        if _takes_floats(settings, name)
    ]
    assert len(fields) >= 10
    for settings, name in fields:
        with pytest.raises(SettingsError, match=name):
            settings.of(**{name: value})


@pytest.mark.parametrize(
    ("settings", "field", "good", "bad"),
    [
        (ConvertSettings, "transpose", {"-60": -60, 60: 60, "auto": "auto", "1.5": 1.5}, ["60.1", -61, "high"]),
        (ConvertSettings, "output_rate_hz", {"0": 0, 8000: 8000, "44100": 44100}, [1, "7999", -1, 200_000]),
        (TrainSettings, "learning_rate", {"auto": "auto", "2e-4": 2e-4}, [0, "-1e-4", 0.1, "fast"]),
        (PrepareSettings, "uses_f0", {"false": False, "true": True, "0": False}, ["maybe"]),
    ],
)
def test_bounds(settings: type, field: str, good: dict[object, object], bad: list[object]) -> None:
    for given, meant in good.items():
        assert getattr(settings.of(**{field: given}), field) == meant
    for value in bad:
        with pytest.raises(SettingsError, match=field):
            settings.of(**{field: value})


def test_the_command_line_takes_booleans(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []

    def prepare(self: experiment.Experiment, settings: PrepareSettings) -> None:
        seen.append(settings.uses_f0)
        raise RVCError("far enough")

    Layout.of("x").root.mkdir(parents=True)
    monkeypatch.setattr(experiment.Experiment, "prepare", prepare)
    for flags in ([], ["--uses-f0", "false"], ["--uses-f0", "true"]):
        assert main(["prepare", "x", *flags]) == 1
    assert seen == [True, False, True]


def test_a_flag_shared_by_several_stages_means_the_same_in_each(capsys: pytest.CaptureFixture[str]) -> None:
    meanings: dict[str, set[str | None]] = {}
    for settings in SETTINGS_OF["run"]:
        for name, field in settings.model_fields.items():
            meanings.setdefault(name, set()).add(field.description)
    assert {name: words for name, words in meanings.items() if len(words) > 1} == {}
    with pytest.raises(SystemExit):
        main(["run", "--help"])
    assert "Random seed of all stages" in " ".join(capsys.readouterr().out.split())


def test_a_reader_who_has_seen_enough_is_no_error() -> None:
    command = [sys.executable, "-m", "rvc_core.cli", "weights", "list"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        process.stdout.close()
        assert process.stderr.read() == ""
    assert process.returncode == 1
