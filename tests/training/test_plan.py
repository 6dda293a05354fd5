"""The plan: each decision for machines and recordings of every kind, traceable, and readable in both languages."""

import json
import math
import re
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile

sys.path.insert(0, str(Path(__file__).parents[1] / "notebook"))
from sayings import is_english

from rvc_core.audio.quality import Quality
from rvc_core.cli import main
from rvc_core.errors import DatasetError, SettingsError
from rvc_core.experiment import Experiment
from rvc_core.notebook.texts import translated
from rvc_core.preparation.findings import Finding
from rvc_core.preparation.material import Material, material_of, of_clips
from rvc_core.preparation.survey import DatasetReport, RecordingReport
from rvc_core.settings import ExtractSettings, PrepareSettings, RuntimeSettings, TrainSettings
from rvc_core.system import devices
from rvc_core.system.devices import Gpu, list_gpus
from rvc_core.system.files import write_json
from rvc_core.training.capacity import MEASURED, Begun, Machine, step_of
from rvc_core.training.plan import Plan, budget_steps, plan
from rvc_core.workspace.manifest import Clip, Manifest
from synth import phrase
from test_docs import anchors_of
from trained import trained

ROOT = Path(__file__).parents[2]
T4, L4, H200 = Gpu("Tesla T4", 15.0, (7, 5)), Gpu("NVIDIA L4", 22.5, (8, 9)), Gpu("NVIDIA H200", 140.0, (9, 0))
SMALL, UNKNOWN = Gpu("GeForce GTX 1050", 2.0, (6, 1)), Gpu("RTX 9090", 32.0, (12, 0))
COLAB = {"platform": "Google Colab", "session_minutes": 700.0, "whole_session_minutes": 700.0}


def material(minutes: float, quality: str | None = "good", hz: float = 20_000, **others) -> Material:
    """So many minutes of recordings, a tenth of them held out."""
    minutes *= 0.9 if minutes >= 3 else 1
    return Material(minutes, quality, hz, math.ceil(minutes * 60 / 2.7), minutes >= 2.7, **others)


PHONE, CLEAN = material(4, "poor", 3_900, to_fix=(("call.m4a", "very noisy"),)), material(45)
STUDIO, DESK = material(180, hz=24_000), material(10, "usable", 11_000)
CASES = {
    "4 minutes of noisy phone audio, a T4, 4 hours": (PHONE, Machine((T4,), **COLAB), 240),
    "45 clean minutes, two T4": (CLEAN, Machine((T4, T4), **COLAB), None),
    "3 hours of high quality, 24 GB": (STUDIO, Machine((L4,)), None),
    "10 minutes, a CPU": (DESK, Machine(), 240),
    "5 seconds": (material(5 / 60, "good"), Machine((T4,), **COLAB), 60),
    "30 hours": (material(1800), Machine((T4, T4), **COLAB), None),
    "several speakers": (material(40, speakers=3), Machine((H200,)), None),
    "a GPU with 2 GB": (material(10), Machine((SMALL,)), 60),
    "two unknown GPUs": (material(10), Machine((UNKNOWN, UNKNOWN)), 60),
    "recordings that are gone": (of_clips(Manifest([Clip(f"{n}_0", "a", 3 * n, 3) for n in range(99)])), Machine(), 5),
}


def of(made: Plan, setting: str):
    """The line of a setting; None without one."""
    return next((line for line in made.lines if line.setting == setting), None)


@pytest.mark.parametrize("case", CASES)
def test_every_line_has_a_reason_in_both_languages_a_page_and_a_valid_value(
    case: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = plan(*CASES[case])
    monkeypatch.setenv("RVC_LANG", "pt")
    for line in made.lines:
        path, _, anchor = line.source.partition("#")
        assert anchor in anchors_of(ROOT / path), line.source
        assert line.reason == "very noisy" or not is_english(translated(line.reason)), line.reason
        assert len(line.reason) < 130 and line.reason != translated(line.reason) or line.reason == "very noisy"
        assert str(line.value) in str(made) and line.reason in str(made)
    for settings in (PrepareSettings, ExtractSettings, TrainSettings, RuntimeSettings):
        settings.of(**made.values(settings))
    assert json.loads(json.dumps(made.as_json()))["lines"][0]["setting"] == "preset"
    assert {"preset", "epochs", "batch_size", "save_every_epochs", "verdict"} <= {line.setting for line in made.lines}


def test_noisy_phone_audio_gets_few_passes_no_high_rate_and_what_to_fix() -> None:
    made = plan(*CASES["4 minutes of noisy phone audio, a T4, 4 hours"])
    assert of(made, "preset").value == "v2-32k" and "3.9 kHz" in of(made, "preset").reason
    clean = plan(material(4, "good"), Machine((T4,), **COLAB), 240)
    assert of(made, "epochs").value == pytest.approx(of(clean, "epochs").value / 2, rel=0.02)
    assert [line.value for line in made.lines if line.setting == "recordings"] == ["call.m4a", "3.6 min"]
    assert of(made, "sessions").value == 1 and "times as much" in of(made, "sessions").reason


def test_two_gpus_share_the_batch_where_they_pay() -> None:
    made = plan(*CASES["45 clean minutes, two T4"])
    assert (of(made, "preset").value, of(made, "batch_size").value, of(made, "gpus").value) == ("v2-40k", 4, 0)
    alone = plan(CLEAN, Machine((T4,), **COLAB))
    assert of(alone, "batch_size").value == 8 and of(alone, "gpus") is None
    assert of(made, "epochs").value == of(alone, "epochs").value
    assert of(made, "training_minutes").value < 0.8 * of(alone, "training_minutes").value
    short = plan(PHONE, Machine((T4, T4), **COLAB))
    assert of(short, "gpus").value == 1 and of(short, "batch_size").value == 8, "over in minutes: not worth it"


def test_three_clean_hours_bear_more_passes_and_a_larger_batch() -> None:
    made = plan(*CASES["3 hours of high quality, 24 GB"])
    assert (of(made, "preset").value, of(made, "batch_size").value) == ("v2-48k", 14)
    assert budget_steps(180, "good", "v2-48k") == pytest.approx(3 * budget_steps(180, "poor", "v2-48k"), rel=0.01)
    assert "27549 steps" in of(made, "epochs").reason and of(made, "sessions") is None


ADVICE = {  # each title of the guide: the plan's line, its value, and a word of its reason
    "GPT-SoVITS-V2 Training Guidelines": ("epochs", 61, "of the usual"),
    "High Training Rounds Considerations": ("epochs", 61, "150 % of the usual"),
    "Epoch vs. Step Definition": ("epochs", 61, "27549 steps of 8 clips"),
    "GPT-SoVITS-V2 Training Unpredictability": ("verdict", "rvc verdict", "no plan knows"),
    "Evaluating Model Training Difficulty": ("verdict", "rvc verdict", "It names the saved voice"),
    "Evaluating GPT-SoVITS-V2 Training Quality": ("verdict", "rvc verdict", "read the verdict"),
    "GPT-SoVITS-V2 Round Comparison Video": ("save_every_epochs", 3, "20 voices to choose from"),
    "Learning Rate Weights Recommendation": ("learning_rate", "auto", "raising it gains nothing"),
    "GSV Batch Size Recommendation Table": ("batch_size", 14, "A guide allows 14 on a card of 24 GB"),
    "GSV Fine-tuning Batch Size Optimization": ("batch_size", 14, "16 a step suit 3600 clips"),
    "GPT-SoVITS Dataset Length Recommendation": ("recordings", "162.0 min", "Enough"),
    "Emotion Classification for GPT-SoVITS Datasets": ("recordings", "rvc extract", "manner of speaking"),
    "GSV Training and Inference Flexibility": ("base_generator", "auto", "base model"),
    "GSV Training Hardware Requirements": ("preset", "v2-48k", "24 kHz"),
    **dict.fromkeys(
        ("DPO Training Details", "DPO Training Prerequisites", "DPO Batch Size Table", "Monitor CUDA Occupancy")
        + ("GPT-SoVITS Dataset Processing Guidelines", "GPT-SoVITS Audio Quality Requirements")
        + ("GSV CPU Training for Short Audio", "Training a Second GPT-SoVITS-V2 Model")
        + ("Troubleshoot Win11 CUDA Interface", "Troubleshoot GSV Training Freeze")
        + ("GSV Training Completion Indicators", "GSV Training Safety Precautions")
    ),
}


def test_the_plan_of_three_hours_answers_each_advice_of_the_guide_by_its_title() -> None:
    made = plan(*CASES["3 hours of high quality, 24 GB"])
    table = (ROOT / "docs" / "guides.md").read_text("utf-8").partition("## Held against it")[2]
    rows = dict(re.findall(r"^\| ([^|]+) \| ([^|]+) \|$", table, re.MULTILINE)[1:])
    assert set(rows) == set(ADVICE)
    for title, line in ADVICE.items():
        if line is None:
            assert not re.search(rf"`({'|'.join(one.setting for one in made.lines)})`", rows[title]), title
            continue
        setting, value, words = line
        assert any((one.setting, one.value) == (setting, value) and words in one.reason for one in made.lines), title
        assert rows[title].startswith(f"`{setting}`") and (setting == "verdict" or f"` {value}" in rows[title]), title
    assert "27,549 steps of 8 clips, 150 %" in rows["High Training Rounds Considerations"]
    assert not [one.value for one in made.lines if one.source.endswith("#recordings")], "nothing to fix"
    assert f"`training_minutes` is {of(made, 'training_minutes').value:.0f}" in table


def test_the_machine_is_named_where_it_is_the_reason() -> None:
    for gpus, hz, words in (
        ((), 20_000, "this preset 12 kHz. None for a CPU reaches higher"),
        ((), 11_000, "A higher rate has nothing to learn"),
        ((), 3_900, "only. Of the presets for a CPU this one has the lowest rate"),
        ((T4,), 40_000, "this preset 24 kHz. None for a GPU reaches higher"),
        ((T4,), 22_050, "this preset 20 kHz. The next higher one goes beyond them"),
    ):
        assert words in of(plan(material(10, hz=hz), Machine(gpus)), "preset").reason


def test_lines_do_not_contradict_each_other() -> None:
    made = plan(*CASES["45 clean minutes, two T4"])
    both, alone = map(int, re.findall(r"(\d+) minutes instead of (\d+)", of(made, "gpus").reason)[0])
    assert both == round(of(made, "training_minutes").value)
    assert alone == round(of(plan(CLEAN, Machine((T4,), **COLAB)), "training_minutes").value)
    assert "8 a step suit 900 clips, shared by 2 GPUs" in of(made, "batch_size").reason
    studio = plan(*CASES["3 hours of high quality, 24 GB"])
    assert "15738 steps of 14 clips" in of(studio, "training_minutes").reason, "epochs are counted in steps of 8"


def test_each_kind_of_problem_is_named_once_with_the_recordings_that_have_it() -> None:
    def one(name: str, seconds: float, *found: tuple[str, str]) -> RecordingReport:
        rows = [Finding(measure, colour, 0, "", f"{measure} in {name}", "mend it") for measure, colour in found]
        return RecordingReport(name, seconds, 8_000, Quality(-20, -80, 60, 0, 3_900, 0, 0), "good", []).graded(rows)

    phone = [one(f"call{n}", 10 + n, ("noise", "red"), ("bandwidth", "red")) for n in range(4)]
    phone += [one("long", 300, ("hum", "amber")), one("short", 2, ("noise", "amber"))]
    phone += [one("codec", 20, ("bandwidth", "green"))]  # a note is nothing to fix
    assert material_of(DatasetReport(7, "poor", "", phone)).to_fix == (
        ("call3, call2, … (4)", "noise in call3: mend it"),
        ("call3, call2, … (4)", "bandwidth in call3: mend it"),
        ("long", "hum in long: mend it"),
        ("short", "noise in short: mend it"),  # milder than that of the calls
    )


@pytest.mark.parametrize(
    ("hz", "gpus", "preset"),
    [(24_000, (T4,), "v2-48k"), (22_050, (T4,), "v2-40k"), (16_000, (T4,), "v2-32k"), (0, (T4,), "v2-40k")]
    + [(24_000, (), "nano-24k"), (10_800, (), "nano-24k"), (8_000, (), "nano"), (0, (), "nano-24k")]
    + [(24_000, (SMALL,), "nano-24k"), (24_000, (T4, SMALL), "nano-24k")],
)
def test_the_rate_stays_below_what_the_recordings_have(hz: float, gpus: tuple[Gpu, ...], preset: str) -> None:
    assert of(plan(material(10, hz=hz), Machine(gpus)), "preset").value == preset


def test_time_sessions_and_measurements() -> None:
    long = plan(material(1800), Machine((T4,), "Kaggle", 100.0, 700.0))
    minutes = of(long, "training_minutes").value
    assert minutes > 100 and of(long, "sessions").value == 1 + math.ceil((minutes - 100) / 700)
    split = plan(CLEAN, Machine((T4,), **COLAB), 20)
    assert of(split, "sessions").value == math.ceil(of(split, "training_minutes").value / 20)
    assert of(split, "max_minutes").value == 20 and of(plan(CLEAN, Machine((T4,))), "max_minutes") is None
    measured = Machine((T4,), measured={"gpu": T4.name, "preset": "v2-40k", "clips_per_step": 4, "step_seconds": 0.2})
    assert of(plan(CLEAN, measured), "batch_size").value == 4 and step_of(measured, "v2-40k", 4)[0] == 0.2
    for card, clips, seconds in ((H200, 4, 0.038), (H200, 8, 0.047), (H200, 16, 0.068), (T4, 4, 0.16)):
        assert step_of(Machine((card,)), "v2-40k", clips)[0] == pytest.approx(seconds, rel=0.03)  # docs/gpu.md
    unknown = plan(*CASES["two unknown GPUs"])
    assert of(unknown, "training_minutes").value == "?" and of(unknown, "gpus").value == 0
    assert [of(plan(CLEAN, Machine(gpus)), "precision").reason.split()[2] for gpus in ((T4,), (L4,), ())] == [
        *("fp16", "bf16", "fp32"),
    ]


@pytest.mark.parametrize(
    ("begun", "epochs", "sessions"),
    [
        (Begun("v2-40k", 20, 6), None, 1),  # half-way
        (Begun("v2-40k", 20, 6, "overtrained"), 20, 0),
        (Begun("v2-40k", 20, 6, "good"), 20, 0),
        (Begun("v2-40k", 400, 6), 400, 0),
        (Begun("v2-40k", 400, 6, "undertrained"), 600, 1),
        (Begun("v2-40k", 20, "auto"), None, 1),
    ],
)
def test_a_training_that_has_begun_is_planned_to_its_end(begun: Begun, epochs: int | None, sessions: int) -> None:
    made, fresh = plan(CLEAN, Machine((T4,), **COLAB), None, begun), plan(CLEAN, Machine((T4,), **COLAB))
    assert of(made, "epochs").value == (epochs or of(fresh, "epochs").value)
    assert of(made, "batch_size").value == begun.batch_size and of(made, "sessions").value == sessions
    left = of(made, "training_minutes")
    assert (left is None) == (sessions == 0)
    own = plan(CLEAN, Machine((T4,), **COLAB), None, Begun("v2-40k", 20, 6, step_seconds=2.2))
    assert "2.00 s each, as this training took" in of(own, "training_minutes").reason


@pytest.mark.parametrize("minutes", [0, -5, math.inf, math.nan])
def test_no_time_and_no_sound_are_refused(minutes: float) -> None:
    with pytest.raises(SettingsError, match="minutes must be more than 0"):
        plan(CLEAN, Machine(), minutes)
    with pytest.raises(DatasetError, match="no sound"):
        plan(Material(0, "poor", 0, 0, False), Machine())


@pytest.mark.parametrize("minutes", [0.05, 0.5, 1, 2.9, 3, 9, 30, 59, 60, 600, 6000])
@pytest.mark.parametrize("quality", ["good", "usable", "poor", None])
def test_numbers_stay_in_bounds_whatever_the_recordings(minutes: float, quality: str | None) -> None:
    for gpus in ((), (T4,), (T4,) * 8, (H200,)):
        made = plan(material(minutes, quality), Machine(gpus))
        epochs, batch = of(made, "epochs").value, of(made, "batch_size").value
        assert 1 <= epochs <= 500 and 1 <= batch <= 16 and 1 <= of(made, "save_every_epochs").value <= epochs
        assert budget_steps(minutes, "poor", "v2") <= budget_steps(minutes, quality, "v2")


def test_a_survey_is_summed_up_by_time() -> None:
    def one(name: str, seconds: float, hz: float, verdict: str, *problems: str, silent: float = 0.0):
        return RecordingReport(name, seconds, 48_000, Quality(-20, -80, 60, 0, hz, silent, 0), verdict, [*problems])

    rows = [
        one("a", 600, 20_000, "good"),
        one("b", 160, 8_000, "poor", "clipped", "noisy"),
        one("c", 60, 0, "poor", "x"),
    ]
    rows[2] = RecordingReport("c", 60, 48_000, None, "poor", ["damaged"])
    found = material_of(DatasetReport(13.7, "good", "", rows))
    assert found.minutes == pytest.approx(0.9 * 760 / 60) and found.has_heldout and found.bandwidth_hz == 20_000
    assert found.grade == "good" and found.to_fix == (("b", "clipped"), ("c", "damaged"))
    rows[1] = one("b", 400, 8_000, "poor", "clipped", silent=0.2)
    found = material_of(DatasetReport(17.0, "good", "", rows))
    assert found.bandwidth_hz == 8_000 and found.grade == "poor", "a third of the time"
    assert found.minutes == pytest.approx(0.9 * (600 + 320) / 60)
    silent = one("s", 600, 0, "poor", "silent", silent=1.0)
    assert material_of(DatasetReport(10, "poor", "", [silent])).clips == 0
    kept = material_of(
        DatasetReport(17.0, "good", "", rows), manifest=Manifest([Clip("0_0", "a", 0, 3), Clip("0_1", "a", 3, 3)])
    )
    assert (kept.minutes, kept.clips, kept.has_heldout, kept.grade) == (0.1, 2, False, "poor")
    choir = DatasetReport(4, "good", "", [one(f"{who}/a", 100, 20_000, "good") for who in ("ann", "ben")])
    asked = PrepareSettings(speakers="folders", holdout_minutes=0)
    assert (material_of(choir).speakers, material_of(choir, asked).speakers) == (1, 2)
    assert material_of(choir).has_heldout and not material_of(choir, asked).has_heldout
    assert material_of(choir, asked).minutes == pytest.approx(200 / 60)


def test_the_driver_is_asked_about_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    class Answer:
        stdout = "Tesla T4, 15360, 7.5\nNVIDIA H100 80GB HBM3, 81559, 9.0\nbroken line\n"

    monkeypatch.setattr(devices.shutil, "which", lambda program: "/usr/bin/nvidia-smi")
    monkeypatch.setattr(devices.subprocess, "run", lambda *call, **options: Answer)
    monkeypatch.setattr(devices, "count_gpus", lambda environment: 2)
    assert list_gpus({}) == [("Tesla T4", 15.0, (7, 5)), ("NVIDIA H100 80GB HBM3", 81559 / 1024, (9, 0))]
    assert [gpu.name for gpu in list_gpus({"CUDA_VISIBLE_DEVICES": "1"})] == ["NVIDIA H100 80GB HBM3"]


@pytest.mark.parametrize(("name", "seconds", "best"), [("lj", 56, 1080), ("gd", 173, 1536), ("enrico", 36, 560)])
def test_the_budget_is_near_the_verdict_s_best_of_real_trainings(name: str, seconds: int, best: int) -> None:
    """It was fitted on them: this holds the constants, and the epoch that the plan says."""
    from rvc_core.verdict.overtraining import verdict_of_file

    record = ROOT / "tests" / "curves" / f"{name}-long.jsonl"
    rows = [json.loads(line) for line in record.read_text().splitlines()]
    chosen = verdict_of_file(record).best
    assert chosen.step == best and 0.5 < budget_steps(seconds / 60, "good", "nano") / best < 2
    per_epoch = math.ceil(rows[-2]["step"] / rows[-2]["epoch"])
    had = Material(seconds / 60, "good", 8_000, 8 * per_epoch, False)
    assert 0.5 < of(plan(had, Machine()), "epochs").value / chosen.epoch < 2


# -- from the command line and from Python -------------------------------------------------------------------------
@pytest.fixture
def recorded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("RVC_HOME", str(tmp_path / "home"))
    (tmp_path / "data").mkdir()
    soundfile.write(tmp_path / "data" / "a.wav", phrase(1, seconds=8.0).samples, 16_000)
    return tmp_path / "data"


def test_the_command_prints_or_dumps_it_and_changes_nothing(
    recorded: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["plan", "alice", "--dataset", str(recorded), "--minutes", "30", "--device", "cpu", "--quiet"]) == 0
    said = capsys.readouterr().out
    assert said.startswith("preset: nano\n") and re.search(r"\nepochs: \d+\n    A budget of \d+ steps", said)
    arguments = ["plan", "alice", "--dataset", str(recorded), "--preset", "nano-24k", "--json", "--quiet"]
    assert main(arguments) == 0
    assert json.loads(capsys.readouterr().out)["lines"][0]["value"] == "nano-24k"
    assert not (tmp_path / "home" / "logs" / "alice").exists()
    for wrong, told in (("0", "more than 0"), ("-3", "more than 0")):
        assert main(["plan", "alice", "--dataset", str(recorded), "--minutes", wrong, "--quiet"]) == 1
        assert told in capsys.readouterr().err
    assert main(["plan", "alice", "--quiet"]) == 1
    assert "no experiment 'alice'" in capsys.readouterr().err
    soundfile.write(recorded / "a.wav", np.zeros(80_000, np.float32), 16_000)
    assert main(["plan", "alice", "--dataset", str(recorded), "--quiet"]) == 1
    assert "no sound" in capsys.readouterr().err


def test_it_looks_at_what_is_prepared_and_trained(recorded: Path) -> None:
    lab = Experiment.open("alice", dataset=recorded, runtime=RuntimeSettings(device="cpu"))
    lab.prepare(PrepareSettings(preset="nano"))
    clips = len(Manifest.load(lab.layout).training)
    assert f"{clips} clip" in of(lab.plan(), "batch_size").reason
    record = lab.layout.experiment.read_text()
    trained(lab.layout, 400)
    lab.layout.experiment.write_text(record)
    made = lab.plan(60)
    assert (of(made, "epochs").value, of(made, "sessions")) != (None, None)
    assert "can only go on" in of(made, "preset").reason and of(made, "batch_size").value == 8
    (recorded / "a.wav").unlink()
    recorded.rmdir()
    gone = Experiment.open("alice", runtime=RuntimeSettings(device="cpu")).plan()
    assert "not here to be measured" in of(gone, "epochs").reason


def test_a_measured_gpu_counts_only_for_that_gpu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RVC_HOME", str(tmp_path))
    monkeypatch.setattr("rvc_core.training.capacity.list_gpus", lambda: [T4])
    row = {"gpu": T4.name, "preset": "v2-40k", "clips_per_step": 6, "step_seconds": 0.3, "torch": "2.11"}
    write_json(tmp_path / MEASURED, row)
    assert Machine.here().measured == row and Machine.here().gpus == (T4,)
    assert Machine.here(RuntimeSettings(device="cpu")).gpus == ()
    write_json(tmp_path / MEASURED, row | {"gpu": "NVIDIA L4"})
    assert Machine.here().measured is None
    (tmp_path / MEASURED).write_text("{")
    assert Machine.here().measured is None
