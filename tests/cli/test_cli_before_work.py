"""What can be refused without loading a voice is refused first, once, in the words that the user typed."""

import json
import os
import shlex
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rvc_core.audio.waveform import Audio
from rvc_core.cli import main
from rvc_core.conversion import convert
from rvc_core.conversion.naming import ensure_folder
from rvc_core.features import content
from rvc_core.features.retrieval import FeatureIndex
from rvc_core.nn.synthesizer import Synthesizer
from rvc_core.presets import preset
from rvc_core.settings import ConvertSettings, IndexSettings
from rvc_core.voice import Voice
from rvc_core.workspace import voice_file
from rvc_core.workspace.layout import Layout
from rvc_core.workspace.manifest import ExperimentRecord
from rvc_core.workspace.voice_file import VoiceFile, VoiceInfo, save_voice
from synth import phrase


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with two recordings and a `nano` voice whose name inside is "inner"."""
    monkeypatch.setenv("RVC_HOME", str(tmp_path / "root"))
    monkeypatch.chdir(tmp_path)
    _save("v.pth")
    for name in ("a.wav", "b.wav"):
        Audio(phrase(1, seconds=1.0).samples, 16000).save(tmp_path / name)
    return tmp_path


def _save(name: str, **spec: Any) -> None:
    made = replace(preset("nano"), **spec)
    info = VoiceInfo("inner", 1, 2, "embedded", f0_median_hz=120.0)
    save_voice(Path(name), VoiceFile(made, Synthesizer(made, with_posterior=False).state_dict(), info))


def _never(*arguments: Any, **options: Any) -> None:
    raise AssertionError("a voice was loaded")


@pytest.mark.parametrize(
    ("command", "told"),
    [
        ("convert v.pth gone.wav", "gone.wav"),
        ("convert nobody a.wav", "'nobody' is neither"),
        ("convert v.pth a.wav --blend-with nobody", "'nobody' is neither"),
        ("convert v.pth a.wav --index gone.index", "gone.index does not exist"),
        ("convert v.pth a.wav --f0-curve gone.csv", "gone.csv"),
        ("convert v.pth a.wav b.wav --f0-curve curve.csv", "one f0 curve for 2 recordings"),
        ("convert v.pth a.wav --f0-curve curve.csv --channels each", "a pitch file is of one channel"),
        ("convert v.pth a.wav --output b.wav/new", "b.wav is a file"),
        ("convert v.pth a.wav --output a.wav", "is the recording itself"),
        ("convert v.pth a.wav b.wav --output c.wav", "one file for 2 recordings"),
        ("convert v.pth a.wav --output song.xyz", "cannot write 'song.xyz'"),
        ("convert v.pth a.wav --output /proc/new", "/proc"),
        ("convert v.pth a.wav --output-format mp3 --output-depth 24", "24 bits"),
        ("convert v.pth a.wav --output-format xyz", "--output-format must be wav"),
        ("speak v.pth Hi. --output song.xyz", "cannot write 'song.xyz'"),
        ("speak v.pth Hi. --blend-with nobody", "'nobody' is neither"),
        ("speak v.pth gone.txt", "gone.txt does not exist"),
        ("speak v.pth a.wav", "a.wav is not a text file"),
        ("speak v.pth Hi. --engine gsv-tts-lite", "gsv-tts-lite is not installed"),
        ("song v.pth gone.wav", "gone.wav"),
        ("song v.pth a.wav --output song.xyz", "must be a folder"),
        ("song v.pth a.wav --output new.mp3", "write: --output new --output-format mp3, or new.mp3/"),
        ("clean a.wav --output new.mp3", "write: --output new, or new.mp3/"),
        ("convert a.wav b.wav v.pth --seed 1", "write: rvc convert v.pth b.wav a.wav --seed 1 "),
        ("song a.wav v.pth", "write: rvc song v.pth a.wav "),
        ("speak Hi. v.pth", "write: rvc speak v.pth Hi. "),
        ("sweep a.wav --source v.pth", "write: rvc sweep v.pth --source a.wav "),
        ("evaluate a.wav --source v.pth", "write: rvc evaluate v.pth --source a.wav "),
        ("song v.pth --preview a.wav", "write: rvc song v.pth a.wav --quiet --preview"),
        ("song v.pth a.wav --preview 10", "write: rvc song v.pth a.wav --quiet --preview"),
        ("song v.pth a.wav --preview=10", "write: rvc song v.pth a.wav --quiet --preview"),
        ("song v.pth a.wav --loudness-lufs -16", "--loudness-lufs has no effect on a song"),
        ("song --voice v.pth=lead --voice nobody=backing a.wav", "'nobody' is neither"),
        ("convert v.pth a.wav --key C", "--key has no effect without --autotune"),
        ("convert v.pth a.wav --blend-share 0.2", "--blend-share has no effect without --blend-with"),
        ("convert v.pth a.wav --blend-with w.pth --blend-share 0", "--blend-with has no effect without --blend-share"),
        ("convert v.pth a.wav --blend-with ./v.pth", "--blend-with is the voice itself"),
        ("convert v.pth a.wav --protect 0.1 --index-rate 0", "--protect has no effect without --index-rate"),
        ("convert v.pth a.wav --protect 0.1 --index none", "--protect has no effect without an index"),
        ("convert v.pth a.wav --index-rate 1 --index none", "--index-rate has no effect without an index"),
        ("convert v.pth a.wav --index-rate 0 --index x.index", "an index has no effect where --index-rate is 0"),
        ("convert v.pth a.wav --f0-curve curve.csv --f0-method dio", "--f0-method has no effect beside --f0-curve"),
        ("speak v.pth Hi. --f0-curve curve.csv", "--f0-curve has no effect on speech"),
        ("speak v.pth Hi. --channels each", "--channels has no effect on speech"),
        ("speak v.pth cues.srt --speed 1.2", "--speed has no effect on subtitles"),
        ("speak v.pth Hi. --text Ho.", "--text has no effect: the text was given before it"),
        ("song v.pth a.wav --f0-curve curve.csv", "--f0-curve has no effect on a song"),
        ("song v.pth a.wav --channels each", "--channels has no effect on a song"),
        ("song v.pth a.wav --dereverb false --reverb false", "--reverb has no effect without --dereverb"),
        ("song --voice v.pth=lead --voice w.pth=backing a.wav --vocals all", "no effect on a song of two voices"),
        ("separate a.wav --kinds denoise --model embedded", "--model has no effect without vocals"),
        ("evaluate v.pth --source a.wav --output-format mp3", "--output-format has no effect without --output"),
        ("evaluate a.wav --source b.wav --index x.index", "--index has no effect on files that are already converted"),
        ("evaluate a.wav --source b.wav --output new", "--output has no effect on files that are already converted"),
        ("sweep v.pth --source a.wav --target gone", "gone"),
        ("sweep v.pth --source a.wav", "no recording of the target"),
        ("sweep v.pth --source a.wav --protect 2", "--protect must be from 0 to 0.5"),
        ("sweep v.pth --source a.wav --output a.wav", "is a file"),
        ("f0 a.wav --output .", "is a folder"),
        ("f0 a.wav --output new/", "write: --output new/f0.csv"),
        ("evaluate nobody --source a.wav", "'nobody' is neither"),
        ("evaluate v.pth --source a.wav --output a.wav", "is a file"),
    ],
)
def test_what_cannot_be_is_refused_before_a_voice_is_loaded(
    command: str, told: str, here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (here / "curve.csv").write_text("0,200\n1,200\n")
    (here / "cues.srt").write_text("1\n00:00:00,000 --> 00:00:02,000\nHi.\n")
    shutil.copy("v.pth", "w.pth")
    monkeypatch.setattr(Voice, "load", _never)
    before = sorted(here.rglob("*"))
    assert main([*command.split(), "--quiet"]) == 1
    said = capsys.readouterr()
    assert told in said.err and len(said.err.splitlines()) == 2 and not said.out.strip(), said
    assert sorted(here.rglob("*")) == before


def test_what_a_voice_without_pitch_ignores_is_told(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    _save("flat.pth", uses_f0=False)
    assert main(["convert", "flat.pth", "a.wav", "--quiet", "--transpose", "12", "--protect", "0.1"]) == 0
    told = capsys.readouterr().out
    assert [told.count(f"this voice does not use pitch, so --{name} has") for name in ("transpose", "protect")] == [
        1,
        1,
    ]


def test_settings_as_they_were_ask_for_nothing(here: Path) -> None:
    """A notebook hands over all of them."""
    given = [f"--{name.replace('_', '-')}={value}" for name, value in ConvertSettings().stamp().items() if value]
    given.append("--f0-method=dio")
    assert main(["convert", "v.pth", "a.wav", "--quiet", "--index", "none", *given]) == 0
    assert (
        main(["convert", "v.pth", "b.wav", "--quiet", "--index", "none", "--index-rate", "0", "--protect", ".5"]) == 0
    )


def test_a_folder_that_takes_no_files_is_told_with_its_name() -> None:
    with pytest.raises(OSError, match="/proc"):
        ensure_folder("/proc/new")


# -- each failure once -------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("setting", ["--speaker 1000", "--f0-method crepe"])
def test_what_no_other_file_mends_is_told_once(
    setting: str, here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(__import__("sys").modules, "torchcrepe", None)
    assert main(["convert", "v.pth", "a.wav", "b.wav", "--quiet", *setting.split()]) == 1
    said = capsys.readouterr()
    assert len(said.err.splitlines()) == 2 and not said.out.strip(), said


def test_each_failed_file_is_told_once(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("x.wav", "y.wav", "z.wav"):
        (here / name).write_text(f"no sound in {name}")
    assert main(["convert", "v.pth", "x.wav", "y.wav", "a.wav", "z.wav", "--f0-method", "dio", "--quiet"]) == 1
    said = capsys.readouterr()
    assert [said.err.count(name + ":") for name in ("x.wav", "y.wav", "z.wav")] == [1, 1, 1]
    assert "(3 of 4 files failed)" in said.err and "fail" not in said.out and "a_v.wav" in said.out


# -- names as they were typed ------------------------------------------------------------------------------------------
def test_results_are_named_as_the_voice_was_called(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    layout = Layout.of("Anna Maria")
    layout.root.mkdir(parents=True)
    (here / "v.pth").rename(layout.voice(60, 120))
    for voice, name in (("Anna Maria", "a_Anna_Maria.wav"), (str(layout.voice(60, 120)), "")):
        assert main(["convert", voice, "a.wav", "--f0-method", "dio", "--quiet"]) == 0
        assert (here / "converted" / (name or f"a_{layout.voice(60, 120).stem}.wav")).is_file()


@pytest.mark.parametrize("name", ["-x", "-x y", "--json"])
@pytest.mark.parametrize("command", ["verdict", "index", "train"])
def test_a_command_in_a_hint_works_for_a_name_that_begins_with_a_dash(
    command: str, name: str, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    ExperimentRecord(name, "synthetic", "nano").save(Layout.of(name))
    assert main([command, "--", name]) == 1
    hint = shlex.split(capsys.readouterr().err.split("run: ")[1])
    assert main([word if word != "FOLDER" else "." for word in hint[1:]]) == 1, "there is nothing to train on"
    assert Layout.of(name).slug in (said := capsys.readouterr().err) or repr(name) in said


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        ("convert v.pth -x.wav", "rvc convert v.pth ./-x.wav"),
        ("convert v.pth a.wav -x.wav --json", "rvc convert v.pth a.wav ./-x.wav --json"),
        ("train -x", "rvc train -- -x"),
        ("train -x --json", "rvc train --json -- -x"),
        ("prepare alice --dataset -takes", "rvc prepare alice --dataset=-takes"),
    ],
)
def test_a_name_that_begins_with_a_dash_is_answered_with_a_command_that_works(
    typed: str, meant: str, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    os.rename(here / "b.wav", here / "-x.wav")
    with pytest.raises(SystemExit):
        main(typed.split())
    assert f"write: {meant}\n" in capsys.readouterr().err
    if "convert" in typed:
        assert main([*meant.split()[1:], "--f0-method", "dio", "--quiet"]) == 0
        assert (here / "converted" / "-x_v.wav").is_file()
    else:
        assert main(meant.split()[1:]) == 1, "the name is understood, but there is no such experiment or folder"
        assert "-x" in (said := capsys.readouterr().err) or "-takes" in said


def test_the_same_sentence_names_a_setting_as_each_reader_knows_it(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], here: Path
) -> None:
    from rvc_core.errors import SettingsError
    from rvc_core.notebook.texts import translated
    from rvc_core.settings import ConvertSettings

    with pytest.raises(SettingsError) as caught:
        ConvertSettings.of(index_rate=2)
    assert str(caught.value) == "`index_rate` must be from 0 to 1, not 2"
    assert main(["convert", "v.pth", "a.wav", "--index-rate", "2", "--json", "--quiet"]) == 1
    told = json.loads(capsys.readouterr().out)["error"]
    assert told == "--index-rate must be from 0 to 1, not '2'"
    for code, label, words in (("en", "Index rate", "must be from"), ("pt", "Taxa do índice", "precisa estar entre")):
        monkeypatch.setenv("RVC_LANG", code)
        for text in (str(caught.value), told):
            assert translated(text).startswith(f"«{label}» {words} 0"), translated(text)
    monkeypatch.delenv("RVC_LANG")
    assert translated("write: rvc run x --preset nano") == "write: rvc run x --preset nano"


# -- loaded once -------------------------------------------------------------------------------------------------------
def test_a_batch_loads_each_model_once(
    here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    loads: list[str] = []

    def counted(module: Any, name: str) -> None:
        work = getattr(module, name)
        monkeypatch.setattr(module, name, lambda *given, **named: loads.append(name) or work(*given, **named))

    counted(voice_file, "load_voice")
    counted(convert, "load_voice")
    counted(convert, "synthesizer_of")
    counted(FeatureIndex, "load")
    counted(content, "_embedded")
    content.content_encoder.cache_clear()
    _save("w.pth")
    vectors = np.random.default_rng(0).standard_normal((100, 256)).astype(np.float32)
    FeatureIndex.build(vectors, IndexSettings()).save(here / "v.index")
    loads.clear()
    plain = ["--index", "v.index", "--f0-method", "dio", "--quiet"]
    assert main(["convert", "v.pth", "a.wav", "b.wav", "a.wav", *plain]) == 0
    assert sorted(loads) == ["_embedded", "load", "load_voice", "synthesizer_of"]
    loads.clear()
    assert main(["convert", "v.pth", "a.wav", "b.wav", "a.wav", "--blend-with", "w.pth", *plain]) == 0
    assert sorted(loads) == ["load", "load_voice", "load_voice", "synthesizer_of", "synthesizer_of"]
