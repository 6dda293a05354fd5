"""The commands for voices, as a user types them: names in, one JSON object out, errors in one line."""

import json
from pathlib import Path

import pytest
import torch

from rvc_core.cli import main
from rvc_core.nn.synthesizer import Synthesizer
from rvc_core.workspace.layout import Layout
from rvc_core.workspace.voice_file import VoiceFile, VoiceInfo, load_voice, save_voice
from tiny import TINY


@pytest.fixture
def here(tiny: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("RVC_HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    for name in ("alice", "bob"):
        network = Synthesizer(TINY)
        voice = VoiceFile(TINY, network.state_dict(), VoiceInfo(name, 1, 2, "embedded"))
        save_voice(Layout.of(name).final_voice, voice)
        torch.save({"model": network.state_dict(), "iteration": 3}, Layout.of(name).generator(9))
    return tmp_path


def _run(capsys: pytest.CaptureFixture[str], *command: str, status: int = 0) -> dict[str, object]:
    assert main([*command, "--json", "--quiet"]) == status
    return json.loads(capsys.readouterr().out.splitlines()[-1])


def test_each_command_says_what_it_made(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    [packed] = _run(capsys, "export", "alice", "--layout", "zip")["paths"]
    assert packed == "exported/alice.zip"
    [taken] = _run(capsys, "import", packed, "--name", "carol")["voices"]
    assert taken["path"] == str(here / "home" / "logs" / "carol" / "carol.pth") and taken["rms_db"] < 0
    made = _run(capsys, "merge", "alice", "carol", "--alpha", "0.25")
    assert made["name"] == "alice+carol" and Path(made["path"]).is_file()
    assert _run(capsys, "annotate", "alice+carol", "--note", "half of each")["name"] == "alice+carol"
    assert _run(capsys, "info", made["path"])["note"] == "half of each"
    assert _run(capsys, "extract-voice", str(Layout.of("bob").generator(9)))["path"].endswith("logs/bob/bob_e3_s9.pth")
    pytest.importorskip("onnx")
    report = _run(capsys, "onnx", "bob")
    assert report["path"] == "exported/bob.onnx" and max(report["parity"].values()) < 1e-4


def test_failures_are_one_line_with_a_hint(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    bob = str(Layout.of("bob").generator(9))
    for command, said in (
        (["export", "alice"], "small encoder"),
        (["export", "nobody"], "neither a voice file nor"),
        (["merge", "alice", "bob", "--alpha", "2"], "is out of range"),
        (["annotate", "bob"], "nothing to change"),
        (["import", "nothing.zip"], "no such file"),
        (["extract-voice", "x.pth"], "no such file"),
        (["import", ""], "nothing to import"),
        (["extract-voice", bob, "--output", "voices"], "cannot be the voice file"),
        (["extract-voice", bob, "--output", bob], "cannot be the voice file"),
        (["weights", "verify"], "no weights files on this machine"),
    ):
        failure = _run(capsys, *command, status=1)
        assert said in failure["error"] and "\n" not in failure["error"] and failure["hint"]
    assert sorted(path.name for path in (here / "home" / "logs").iterdir()) == ["alice", "bob"]


@pytest.mark.parametrize(
    "command",
    [
        "convert {} x.wav",
        "export {}",
        "merge alice {}",
        "annotate {} --note x",
        "onnx {}",
        "evaluate {} --source x.wav",
    ],
)
def test_a_mistyped_voice_is_answered_with_the_one_that_was_meant(
    command: str, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (here / "x.wav").write_bytes(b"")
    Layout.of("ulrich").root.mkdir()  # has no voice
    save_voice(here / "singer.pth", load_voice(Layout.of("bob").final_voice))
    for typed, meant in (("alcie", "alice"), ("BOB", "bob"), ("singr.pth", "singer.pth"), ("bob.pth", "bob")):
        assert _run(capsys, *command.format(typed).split(), status=1)["hint"] == f"did you mean {meant}?"
    assert "rvc run" in str(_run(capsys, *command.format("ulrihc").split(), status=1)["hint"])
    Layout.of("alic").root.mkdir()  # meant, but without a voice
    assert "rvc run" in str(_run(capsys, *command.format("alic").split(), status=1)["hint"])


def test_info_takes_names_as_other_commands_do(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    told = _run(capsys, "info", str(Layout.of("bob").final_voice))
    assert told["name"] == "bob" and told == _run(capsys, "info", "bob")
    (here / "bob").mkdir()
    assert told == _run(capsys, "info", "bob"), "a folder of that name is not what was meant"
    assert _run(capsys, "info", "bpb", status=1)["hint"] == "did you mean bob?"
    assert "no such file" in str(_run(capsys, "info", "bob.zip", status=1)["error"])
