"""Evaluation: known distortions move the figures that they should, and bad input is one line with a hint."""

import builtins
import importlib.util
import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch

from rvc_core.audio.waveform import Audio, highpass, read_audio
from rvc_core.cli import main
from rvc_core.conversion import convert
from rvc_core.embedded import voice_folder
from rvc_core.errors import AudioError, ResourceError, SettingsError
from rvc_core.evaluation.cases import Case, match_outputs
from rvc_core.evaluation.evaluate import EvaluateReport, evaluate, sanity
from rvc_core.features.pitch import pitch_estimator
from rvc_core.nn.synthesizer import Synthesizer
from rvc_core.presets import preset
from rvc_core.scoring.cleanness import NaturalnessScorer
from rvc_core.scoring.target_speech import TargetSpeech, target_speech
from rvc_core.scoring.transcripts import texts_of
from rvc_core.workspace.layout import Layout
from rvc_core.workspace.voice_file import VoiceFile, VoiceInfo, save_voice
from spoken import TEXTS, noisy

PACKAGES = ("resemblyzer", "pyworld", "speechmos", "onnxruntime", "pocketsphinx")
needs_scorers = pytest.mark.skipif(not all(map(importlib.util.find_spec, PACKAGES)), reason="the scorers are extras")
SOURCE = voice_folder("source") / "awb_01.flac"
TEXT = TEXTS[SOURCE.name]
TARGET = [voice_folder("target") / f"slt_{number:02}.flac" for number in (1, 4, 2, 3)]


def without(monkeypatch: pytest.MonkeyPatch, *packages: str) -> None:
    """Hide packages, as if they were not installed."""
    real_import = builtins.__import__

    def importing(name, *arguments, **keywords):
        if name.partition(".")[0] in packages:
            raise ImportError(f"No module named {name!r}", name=name)
        return real_import(name, *arguments, **keywords)

    def import_module(name, *arguments):
        return importing(name, *arguments) and real_import_module(name, *arguments)

    pitch_estimator.cache_clear()
    real_import_module = importlib.import_module
    monkeypatch.setattr(builtins, "__import__", importing)
    monkeypatch.setattr(importlib, "import_module", import_module)


def monotone(audio: Audio) -> Audio:
    """The same words on one note."""
    import pyworld

    f0, envelope, noise = pyworld.wav2world(audio.samples.astype(np.float64), audio.sample_rate)
    flat = pyworld.synthesize(np.where(f0 > 0, 140.0, 0.0), envelope, noise, audio.sample_rate)
    return Audio(flat[: len(audio.samples)].astype(np.float32), audio.sample_rate)


# -- figures -------------------------------------------------------------------------------------------------------
@pytest.fixture(scope="module")
def report() -> EvaluateReport:
    source = read_audio(SOURCE)
    outputs = {"copy": source, "monotone and noisy": noisy(monotone(source), 5), "target": read_audio(TARGET[0])}
    known = [[audio] for audio in map(read_audio, TARGET[1:])]
    return evaluate(
        [Case(SOURCE, audio, name, TEXT) for name, audio in outputs.items()], TargetSpeech(known[1:], known[0])
    )


@needs_scorers
def test_known_distortions_move_the_figures_that_they_should(report: EvaluateReport) -> None:
    rows = {row["output"]: row for row in report.files}
    copy, flat, target = (rows[name] for name in ("copy", "monotone and noisy", "target"))
    assert copy["similarity_gain"] == pytest.approx(0) and copy["similarity_source"] == pytest.approx(1)
    assert copy["pitch_share"] == copy["vuv_agreement"] == 1 and 1 <= copy["pitch_share_of_copy"] < 1.3
    assert copy["dnsmos_to_source"] == 0 and copy["word_errors"] == copy["source_word_errors"] <= 2
    assert copy["dnsmos_to_lower"] == pytest.approx(max(0, copy["dnsmos"] - report.target["dnsmos"]))
    assert flat["pitch_share"] < 0.35 and flat["dnsmos_to_source"] < -0.5
    assert flat["dnsmos_background"] < copy["dnsmos_background"] - 1
    assert target["similarity_gain"] == pytest.approx(1, abs=0.15) and target["word_errors"] / target["words"] > 0.7


@needs_scorers
def test_a_target_that_is_somebody_else_is_named(monkeypatch: pytest.MonkeyPatch, report: EvaluateReport) -> None:
    without(monkeypatch, "pyworld", "onnxruntime")
    known, somebody_else = [[read_audio(path)] for path in TARGET[1:]], [read_audio(SOURCE)]
    made = evaluate([Case(SOURCE, read_audio(TARGET[0]), "made", "")], TargetSpeech(known, somebody_else))
    assert any("somebody else" in note for note in made.notes)
    assert not any("somebody else" in note for note in report.notes)


@needs_scorers
def test_the_report_adds_up_and_is_json(report: EvaluateReport) -> None:
    said = json.loads(json.dumps(report.as_json(), allow_nan=False))
    errors = sum(row["word_errors"] for row in said["files"])
    assert said["words"]["output"]["error_rate"] == pytest.approx(errors / (3 * len(TEXT.split())), abs=1e-3)
    low, high = said["words"]["output"]["interval"]
    assert low < said["words"]["output"]["error_rate"] < high
    assert said["words"]["source"]["errors"] == 3 * said["files"][0]["source_word_errors"] and said["digits"] is None
    shares = [row["pitch_share"] for row in said["files"]]
    assert said["mean"]["pitch_share"] == pytest.approx(np.mean(shares), abs=1e-3)
    of_copy = np.mean(shares) / said["mean"]["pitch_share_copy"]
    assert said["mean"]["pitch_share_of_copy"] == pytest.approx(of_copy, abs=1e-3)
    assert said["mean_of_sentences"] == said["mean"]
    assert said["target"]["recordings"] == 1 and said["target"]["similarity"] > 0.8 and said["absent"] == []
    assert "similarity_gain" in str(report) and "words, output" in str(report)


def test_what_json_cannot_say_is_null() -> None:
    row = {"gain": math.nan, "interval": (0.0, math.inf)}
    made = EvaluateReport([row], {"gain": 0.123456}, None, None, None, {}, [])
    assert made.as_json()["files"] == [{"gain": None, "interval": [0.0, None]}]
    assert made.as_json()["mean"] == {"gain": 0.1235}


@needs_scorers
def test_dnsmos_is_what_its_own_package_says() -> None:
    dnsmos = pytest.importorskip("speechmos.dnsmos")
    audio = read_audio(TARGET[0])
    ours, theirs = NaturalnessScorer()(audio), dnsmos.run(audio.samples, 16_000)
    assert [ours.signal, ours.background, ours.overall] == pytest.approx(
        [theirs["sig_mos"], theirs["bak_mos"], theirs["ovrl_mos"]], abs=1e-4
    )
    with pytest.raises(AudioError):
        NaturalnessScorer()(audio[:0])


@needs_scorers
def test_digits_are_counted_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    without(monkeypatch, "resemblyzer", "pyworld", "onnxruntime")
    source = read_audio(SOURCE)
    made = evaluate(
        [
            Case(SOURCE, source, text=TEXT, facts={"real_time_factor": 1.0}),
            Case(SOURCE, source, text="one two three oh five", facts={"real_time_factor": 5.0}),
            Case(SOURCE, source, facts={"real_time_factor": 3.0}),
        ],
        target_speech(TARGET),
    )
    assert made.words["output"]["words"] == len(TEXT.split()) and made.words["output"]["error_rate"] < 0.1
    assert made.digits["output"]["words"] == 5 and made.digits["output"]["accuracy"] < 0.5
    assert made.mean["real_time_factor"] == 3 and made.mean_of_sentences["real_time_factor"] == 2
    assert {*made.files[1]["heard"].split()} <= {"one", "two", "three", "oh", "five"}  # a vocabulary of their own
    assert made.files[2]["word_errors"] is None and any(SOURCE.name in note for note in made.notes)


def test_signal_faults_are_named() -> None:
    source = read_audio(SOURCE)
    quiet = Audio(np.where(np.arange(len(source.samples)) < 12_000, source.samples, 0).astype(np.float32), 16_000)
    dull = source.resample(4_000).resample(16_000)
    faults = {
        "longer": Audio(np.pad(source.samples, (0, 1600)), 16_000),
        "shorter": source[:-0.1],
        "silent": quiet,
        "clipped": Audio(np.clip(8 * source.samples, -0.9, 0.9), 16_000),
        "nothing above": dull,
        "offset": Audio(source.samples + np.float32(0.05), 16_000),
    }
    assert sanity(source, source)["problems"] == []
    for word, broken in faults.items():
        assert [problem for problem in sanity(source, broken)["problems"] if word in problem], word


# -- what is absent ------------------------------------------------------------------------------------------------
@needs_scorers
def test_absent_scorers_leave_their_figures_empty_and_say_so(monkeypatch: pytest.MonkeyPatch) -> None:
    cases, target = [Case(SOURCE, read_audio(SOURCE), text=TEXT)], target_speech(TARGET)
    without(monkeypatch, "resemblyzer", "pyworld", "onnxruntime")
    made = evaluate(cases, target)
    assert [made.files[0][name] for name in ("similarity_gain", "pitch_share", "dnsmos")] == [None] * 3
    assert made.files[0]["word_errors"] <= 2 and made.mean["similarity_gain"] is None
    assert [scorer["scorer"].split()[0] for scorer in made.absent] == ["speaker", "pitch", "DNSMOS"]
    assert all(scorer["install"].startswith("pip install") for scorer in made.absent)
    without(monkeypatch, *PACKAGES)
    with pytest.raises(ResourceError, match="no scorer") as caught:
        evaluate(cases, target)
    assert "setup_env.sh" in caught.value.hint


# -- matching ------------------------------------------------------------------------------------------------------
def test_outputs_find_their_sources_by_name_or_order() -> None:
    sources = [Path("in/one.wav"), Path("in/one_b.wav"), Path("in/two.flac")]
    by_name = [Path("two_eve.wav"), Path("one_b_eve_2.wav"), Path("one_eve.wav")]
    assert [source.stem for source, _ in match_outputs(sources, by_name)] == ["two", "one_b", "one"]
    assert match_outputs(sources, by_name[:1]) == [(sources[2], by_name[0])]
    numbered = [Path("x1.wav"), Path("x2.wav"), Path("x3.wav")]
    assert match_outputs(sources, numbered) == list(zip(sources, numbered, strict=True))
    twins = [Path("a/1.wav"), Path("b/1.wav")]
    assert match_outputs(twins, [Path("1_eve.wav"), Path("1_eve_2.wav")])[1][0] == twins[1]
    for outputs in (numbered[:2], [Path("two.wav"), Path("x.wav"), Path("y.wav")]):
        with pytest.raises(SettingsError) as caught:
            match_outputs(sources, outputs)
        assert caught.value.hint


def test_texts_come_from_tables_folders_neighbours_or_the_line(tmp_path: Path) -> None:
    sources = [tmp_path / "p1" / "a.wav", tmp_path / "p2" / "a.wav", tmp_path / "p2" / "b.c.wav"]
    table = tmp_path / "texts.tsv"
    table.write_text("p1/a.wav\tfirst\na\tsecond\n\nb.c\tthird\n", "utf-8-sig")
    assert texts_of(sources, str(table)) == ["first", "second", "third"]
    (tmp_path / "a.txt").write_text("one\n")
    assert texts_of(sources[1:], str(tmp_path)) == ["one", ""]
    sources[1].parent.mkdir()
    sources[1].with_suffix(".txt").write_text("beside")
    assert texts_of(sources) == ["", "beside", ""]
    assert texts_of(sources[:1], "Said. " * 100) == [("Said. " * 100).strip()]
    assert texts_of(sources[:1], str(tmp_path / "a.txt")) == ["one"]
    for given, said in (
        ("two words", "one text for 3"),
        (str(tmp_path / "no.tsv"), "does not exist"),
        ("", "3 sources"),
        (str(tmp_path / "p2" / "x.txt"), "3 sources"),
    ):
        with pytest.raises(SettingsError, match=said):
            texts_of(sources, given)


# -- the command ---------------------------------------------------------------------------------------------------
@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("RVC_HOME", str(tmp_path / "root"))
    (tmp_path / "empty").mkdir()
    (tmp_path / "notes.wav").write_text("no sound")
    Audio(np.zeros(32_000, np.float32), 16_000).save(tmp_path / "silence.wav")
    (tmp_path / "other.tsv").write_text("somebody.wav\thello")
    return tmp_path


SOURCES = ["--source", str(SOURCE)]
TARGETS = ["--target", *map(str, TARGET)]


@needs_scorers
def test_a_voice_is_measured_on_its_own_heldout_speech(
    home: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def as_it_is(self: convert.Converter, source: Audio, *_: object, **__: object) -> convert.ConvertResult:
        return convert.ConvertResult(source, 5.0, source.seconds, 0.5, {}, ["a warning"])  # nothing is converted

    layout, spec = Layout.of("eve"), preset("nano")
    for number, path in enumerate(TARGET):
        place = layout.heldout if number == 3 else layout
        read_audio(path).save(place.clips / f"{number}_0.wav")
    torch.manual_seed(0)
    save_voice(
        layout.final_voice, VoiceFile(spec, Synthesizer(spec).state_dict(), VoiceInfo("eve", content_name="embedded"))
    )
    monkeypatch.setattr(convert.Converter, "convert", as_it_is)
    without(monkeypatch, "pyworld", "onnxruntime")
    assert (
        main(
            [
                "evaluate",
                "eve",
                *SOURCES,
                "--text",
                TEXT,
                "--output",
                str(home / "kept"),
                "--index-rate",
                "0",
                "--json",
                "--quiet",
            ]
        )
        == 0
    )
    captured = capsys.readouterr()
    result = json.loads(captured.out.splitlines()[-1])
    [row] = result["files"]
    assert row["output"] == str(home / "kept" / "awb_01_eve.wav") and Path(row["output"]).exists()
    assert row["similarity_gain"] == pytest.approx(0, abs=0.05) and row["transpose"] == 5.0
    assert row["word_errors"] <= 2 and row["notes"] == ["a warning"] and result["mean"]["real_time_factor"] == 0.5
    assert result["target"]["similarity_from"] == "held-out recordings" and result["target"]["recordings"] == 1
    assert len(result["absent"]) == 2 and captured.err.count("rvc: skipped") == 2


@needs_scorers
def test_files_are_measured_against_the_targets_recordings(
    home: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    without(monkeypatch, "pyworld", "onnxruntime")
    read_audio(TARGET[0])[:2.5].save(home / "awb_01_slt.wav")
    assert (
        main(
            ["evaluate", str(home / "awb_01_slt.wav"), *SOURCES, "--target", *map(str, TARGET[1:]), "--json", "--quiet"]
        )
        == 0
    )
    result = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert result["files"][0]["similarity_gain"] > 0.7 and result["words"] is None
    assert "shorter than its source" in result["files"][0]["sanity"]["problems"][0]
    assert result["target"]["similarity_from"] == "each recording left out in turn" and len(result["absent"]) == 2
    assert any("nothing of the target is held out" in note for note in result["notes"])


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["nobody", *SOURCES], "neither a voice file nor an experiment"),
        (["absent.wav", *SOURCES, *TARGETS], "absent.wav' does not exist"),
        (["silence.wav", "--source", "absent.wav", *TARGETS], "there is no 'absent.wav'"),
        (["silence.wav", *SOURCES, "--target", "absent"], "there is no 'absent'"),
        (["silence.wav", "--source", "empty", *TARGETS], "no recordings in empty"),
        (["silence.wav", "notes.wav", *SOURCES, *TARGETS], "2 files and 1 sources"),
        (["silence.wav", *SOURCES], "no recording of the target"),
        (["silence.wav", *SOURCES, "--target", str(TARGET[0])], "one short recording of the target"),
        (["silence.wav", *SOURCES, *TARGETS, "--text", "absent.tsv"], "absent.tsv' does not exist"),
        (["silence.wav", *SOURCES, *TARGETS, "--text", "other.tsv"], "no text of 'awb_01.flac'"),
        (["silence.wav", *SOURCES, *TARGETS, "--text", ""], "no text of 'awb_01.flac'"),
        (["silence.wav", *SOURCES, *TARGETS, "--index-rate", "0.5"], "--index-rate has no effect"),
        (["notes.wav", *SOURCES, *TARGETS], "notes.wav"),
        pytest.param(["silence.wav", *SOURCES, *TARGETS], "silence.wav: no speech", marks=needs_scorers),
    ],
)
def test_bad_input_is_one_line_with_a_hint(
    home: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, arguments: list[str], said: str
) -> None:
    monkeypatch.chdir(home)
    without(monkeypatch, "pyworld", "onnxruntime", "pocketsphinx")
    assert main(["evaluate", *arguments, "--json", "--quiet"]) == 1
    captured = capsys.readouterr()
    result = json.loads(captured.out.splitlines()[-1])
    assert said in result["error"] and result["hint"] and "\n" not in result["error"] + result["hint"]
    assert captured.err == f"rvc: {result['error']}\n     {result['hint']}\n"


def test_a_target_without_held_out_speech_stands_for_itself(tmp_path: Path) -> None:
    layout = Layout.of("eve", tmp_path)
    for number in range(10):
        Audio(np.full(16_000, 0.1, np.float32), 16_000).save(layout.clips / f"0_{number}.wav")
    speech = target_speech((), layout.clips, layout.heldout.clips)
    assert [piece.seconds for recording in speech.reference for piece in recording] == [
        3,
        3,
        2,
        2,
    ] and not speech.heldout
    assert len(speech.reference) == 4  # each stands for a recording
    assert len(target_speech(TARGET, layout.clips, layout.heldout.clips).heldout) == 4


def test_rumble_that_clips_have_lost_is_not_taken_for_another_voice(tmp_path: Path) -> None:
    layout, (first, second) = Layout.of("eve", tmp_path), (read_audio(path) for path in TARGET[:2])
    rumble = 0.2 * np.sin(2 * np.pi * 12 * np.arange(len(second.samples)) / 16_000).astype(np.float32)
    first.save(layout.clips / "0_0.wav")
    Audio(second.samples + rumble, 16_000).save(tmp_path / "rumbling.wav")
    speech = target_speech([tmp_path / "rumbling.wav"], layout.clips)
    heard = np.concatenate([piece.samples for piece in speech.heldout])
    expected = highpass(second, zero_phase=False).samples
    assert np.std(heard[8000:] - expected[8000:]) < 0.05 * np.std(rumble)
