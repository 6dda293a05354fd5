"""Repaired copies: each fault is measured, mended and measured again; what is fine stays byte for byte."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from rvc_core.audio.mixing import Stem, loudness_lufs
from rvc_core.audio.quality import hum, measure, reverb_seconds
from rvc_core.audio.waveform import Audio
from rvc_core.cli import main
from rvc_core.errors import SettingsError, WeightsError
from rvc_core.preparation import repair as module
from rvc_core.preparation.findings import findings_of
from rvc_core.preparation.repair import repair
from rvc_core.settings import SeparateSettings
from rvc_core.system.files import sha256_of
from synth import phrase

RATE = 16_000


def _speech(seconds: float = 4.0, seed: int = 1, noise_db: float = -50.0) -> np.ndarray:
    return 0.3 * phrase(seed, seconds=seconds, noise_db=noise_db).samples


def _time(samples: np.ndarray) -> np.ndarray:
    return np.arange(len(samples)) / RATE


def _hum(samples: np.ndarray, hz: float, level: float) -> np.ndarray:
    return level * sum(np.sin(2 * np.pi * hz * order * _time(samples) + order) / order for order in (1, 2, 3, 5))


def _music(samples: np.ndarray) -> np.ndarray:
    tones = (220.0, 277.2, 329.6, 440.0, 554.4, 659.3, 880.0, 1318.5, 1760.0, 2637.0, 3322.4)
    return 0.02 * sum(np.sin(2 * np.pi * hz * _time(samples)) for hz in tones)


def _in_a_room(samples: np.ndarray, seconds: float) -> np.ndarray:
    length = round(1.2 * seconds * RATE)
    room = np.random.default_rng(0).standard_normal(length) * 10 ** (-3 * np.arange(length) / RATE / seconds)
    room *= 0.8 / np.sqrt((room**2).sum())
    room[0] += 1
    return np.convolve(samples, room)[: len(samples)]


@pytest.fixture
def takes(tmp_path: Path) -> Path:
    (tmp_path / "takes" / "day 2").mkdir(parents=True)
    return tmp_path / "takes"


@pytest.fixture
def separations(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What was asked of the separator, which takes away what `_music` plays; it has no model for other kinds."""
    asked: list[str] = []

    def separate(samples: np.ndarray, rate: int, kinds: tuple[str], settings: Any, **_: Any) -> Any:
        asked.append(kinds[0])
        if kinds[0] != "vocals":
            raise WeightsError("there is no model", hint=f"fetch the model for {kinds[0]}")
        music = np.repeat(_music(samples[0])[None], len(samples), axis=0).astype(np.float32)
        share = max(0.0, float(np.vdot(samples, music) / np.vdot(music, music)))
        return type("Stems", (), {"samples": {"vocals": samples - share * music, "instrumental": share * music}})

    monkeypatch.setattr(module, "separate", separate)
    return asked


def _write(path: Path, samples: np.ndarray) -> Path:
    soundfile.write(path, samples.astype(np.float32), RATE, subtype="FLOAT")
    return path


def test_each_fault_is_mended_where_it_is_measured_and_nowhere_else(takes: Path, separations: list[str]) -> None:
    speech = {name: _speech(seed=number) for number, name in enumerate(("fine", "hums", "offset", "music", "quiet"))}
    _write(takes / "fine.wav", speech["fine"])
    _write(takes / "day 2" / "hums.wav", speech["hums"] + _hum(speech["hums"], 50, 0.01))
    _write(takes / "offset.wav", speech["offset"] + 0.05)
    _write(takes / "music.wav", speech["music"] + _music(speech["music"]))
    _write(takes / "quiet.wav", 0.05 * speech["quiet"])
    before = {path: path.read_bytes() for path in takes.rglob("*.wav")}
    output = takes.parent / "copies"
    report = repair(takes, output)
    rows = {Path(one.recording).stem: one for one in report.recordings}
    assert {name: one.repairs for name, one in rows.items()} == {
        "fine": [],
        "hums": ["hum"],
        "offset": ["offset"],
        "music": ["accompaniment"],
        "quiet": ["loudness"],
    }
    assert all(path.read_bytes() == content for path, content in before.items()), "the originals are as they were"
    assert (output / "fine.wav").read_bytes() == before[takes / "fine.wav"]
    assert (output / "day 2" / "hums.flac").is_file()
    assert rows["hums"].before.hum_db == pytest.approx(-42, abs=2)
    assert (rows["hums"].after.hum_db or -120) < -70
    assert rows["offset"].after.offset == pytest.approx(0, abs=1e-4)
    assert 0 < rows["music"].before.accompaniment_db < 10  # the tones are louder than this speech
    assert rows["music"].after.snr_db > rows["music"].before.snr_db + 10
    assert abs(rows["quiet"].after.loudness_lufs - rows["fine"].after.loudness_lufs) < 3
    for name, fault in (("hums", 0), ("offset", 0), ("music", 0)):
        made, _ = soundfile.read(output / rows[name].output)
        assert np.corrcoef(made, speech[name])[0, 1] > 0.99, (name, fault)
    table = str(report)
    assert "4 of 5 recordings repaired" in table and "accompaniment" in table and "→" in table
    assert len(json.loads((output / "repair.json").read_text())["recordings"]) == 5


def test_what_is_done_is_not_done_again(takes: Path, separations: list[str]) -> None:
    _write(takes / "a.wav", _speech() + _music(_speech()))
    _write(takes / "b.wav", _speech(seed=2))
    first = repair(takes, takes.parent / "copies")
    asked = [*separations]
    made = {path: path.stat().st_mtime_ns for path in (takes.parent / "copies").rglob("*.*[!n]")}
    again = repair(takes, takes.parent / "copies")
    assert again.recordings == first.recordings and separations == asked
    assert {path: path.stat().st_mtime_ns for path in made} == made
    _write(takes / "a.wav", _speech(seed=3) + _music(_speech()))
    assert repair(takes, takes.parent / "copies").recordings[0].sha256 != first.recordings[0].sha256
    assert separations.count("vocals") == asked.count("vocals") + 1


def test_files_of_others_in_the_folder_stay_and_a_dead_link_is_named(takes: Path, separations: list[str]) -> None:
    _write(takes / "a.wav", _speech())
    copies = takes.parent / "copies"
    repair(takes, copies)
    (copies / "b.wav").write_text("mine")
    _write(takes / "b.wav", _speech(seed=2))
    (takes / "c.wav").symlink_to("nowhere")
    report = repair(takes, copies)
    assert (copies / "b.wav").read_text() == "mine" and [row.output for row in report.recordings] == [
        "a.wav",
        "b (2).wav",
    ]
    assert report.failed[0]["recording"] == "c.wav" and "link to nowhere" in report.failed[0]["error"]


def test_copies_of_gone_recordings_go_and_damaged_ones_are_made_anew(takes: Path, separations: list[str]) -> None:
    copies = takes.parent / "copies"
    for number, name in enumerate(("a", "b", "day 2/c", "d")):
        _write(takes / f"{name}.wav", _speech(seed=number) + (_music(_speech()) if name in "ab" else 0))
    first = {one.recording: copies / one.output for one in repair(takes, copies).recordings}
    (copies / "mine.wav").write_text("mine")
    content = first["a.wav"].read_bytes()
    first["a.wav"].write_bytes(content[: len(content) // 2])  # as of a disk that was full
    first["d.wav"].write_bytes(edited := first["b.wav"].read_bytes())  # somebody's own work
    for name in ("b.wav", "day 2/c.wav", "d.wav"):
        (takes / name).unlink()
    _write(takes / "b.wav", _speech(seed=7))  # needs no repair now: its copy has another ending
    again = repair(takes, copies)
    assert sorted(again.removed) == ["b.flac", "day 2/c.wav"] and "removed b.flac" in str(again)
    found = {str(path.relative_to(copies)) for path in copies.rglob("*")}
    assert found == {"a.flac", "b.wav", "d.wav", "mine.wav", "repair.json"}
    assert first["d.wav"].read_bytes() == edited and soundfile.info(copies / "a.flac").frames == 4 * RATE
    assert not repair(takes, copies).removed


def test_a_record_of_somebody_else_leads_to_no_other_file(takes: Path, separations: list[str]) -> None:
    _write(takes / "a.wav", _speech())
    copies, other = takes.parent / "copies", _write(takes.parent / "other.wav", _speech())
    repair(takes, copies)
    record = (copies / "repair.json").read_text()
    (copies / "repair.json").write_text(record.replace('"recording": "a.wav"', '"recording": "gone.wav"'))
    record = json.loads((copies / "repair.json").read_text())
    record["recordings"][0] |= {"output": "../other.wav", "output_sha256": sha256_of(other)}
    (copies / "repair.json").write_text(json.dumps(record))
    assert not repair(takes, copies).removed and other.is_file()


def test_a_run_that_was_ended_loses_no_copy_and_other_settings_repair_again(
    takes: Path, separations: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for number, name in enumerate("abc"):
        _write(takes / f"{name}.wav", _speech(seed=number) + _music(_speech()))
    repair(takes, copies := takes.parent / "copies")
    separations.clear()
    work, other = module._copied, SeparateSettings.of(overlap=0.5)
    with monkeypatch.context() as patch, pytest.raises(ZeroDivisionError):
        patch.setattr(module, "_copied", lambda name, *rest: work(name, *rest) if name == "a.wav" else 1 / 0)
        repair(takes, copies, other)
    assert separations.count("vocals") == 1 and repair(takes, copies, other) and separations.count("vocals") == 3
    assert sorted(path.name for path in copies.iterdir()) == ["a.flac", "b.flac", "c.flac", "repair.json"]


def test_without_a_model_the_fault_stays_and_is_told(takes: Path, separations: list[str]) -> None:
    _write(takes / "room.wav", _in_a_room(_speech(8.0), 1.6))
    _write(takes / "noisy.wav", _speech(8.0, noise_db=-15.0))
    rows = {one.recording: one for one in repair(takes, takes.parent / "copies").recordings}
    assert any("reverb stays: fetch the model for dereverb" in line for line in rows["room.wav"].warnings)
    assert any("noise stays" in line for line in rows["noisy.wav"].warnings)
    assert not rows["noisy.wav"].repairs


def test_what_holds_no_speech_is_left_as_it_is_and_said(takes: Path) -> None:
    """With the separator inside the package."""
    time, random = np.arange(4 * RATE) / RATE, np.random.default_rng(0)
    beats = np.exp(-8 * (time % 0.5))
    chords = 0.2 * beats * sum(np.sin(2 * np.pi * hz * time) for hz in (196.0, 247.0, 294.0, 392.0))
    drums = 0.2 * random.standard_normal(len(time)) * np.exp(-40 * (time % 0.25))
    music = {"chords": chords, "hums": chords + _hum(chords, 50, 0.02), "drums": 0.05 * drums, "quiet": 0.03 * chords}
    before = {name: _write(takes / f"{name}.wav", samples).read_bytes() for name, samples in music.items()}
    speech = 0.05 * _speech(noise_db=-70.0)
    _write(takes / "speech.wav", speech + _hum(speech, 50, 0.0005))
    rows = {Path(one.recording).stem: one for one in repair(takes, takes.parent / "copies").recordings}
    for name, content in before.items():
        assert not rows[name].repairs and (takes.parent / "copies" / f"{name}.wav").read_bytes() == content, name
        assert name == "chords" or any("no speech" in line for line in rows[name].warnings), name
    assert "hum" in rows["speech"].repairs, "speech is repaired"


def test_broken_silent_and_short_files_do_not_stop_the_others(takes: Path, separations: list[str]) -> None:
    (takes / "broken.wav").write_bytes(b"RIFF and no more")
    _write(takes / "silent.wav", np.zeros(RATE))
    _write(takes / "short.wav", _speech(2.0)[: RATE // 2])
    soundfile.write(takes / "stereo.flac", np.stack([_speech(), 0.5 * _speech()], axis=1) + 0.05, RATE)
    _write(takes / "stereo.wav", _speech() + 0.05)  # both become .flac
    report = repair(takes, takes.parent / "copies")
    assert [one["recording"] for one in report.failed] == ["broken.wav"] and report.failed[0]["hint"]
    outputs = {one.recording: one.output for one in report.recordings}
    assert outputs["stereo.flac"] == "stereo.flac" and outputs["stereo.wav"] == "stereo (2).flac"
    assert soundfile.info(takes.parent / "copies" / "stereo.flac").channels == 2
    assert not [path for path in (takes.parent / "copies").rglob("*") if path.name.startswith(".part")]


def test_places_that_would_harm_are_refused(takes: Path, capsys: pytest.CaptureFixture[str]) -> None:
    _write(takes / "a.wav", _speech())
    (takes.parent / "full").mkdir()
    (takes.parent / "full" / "thesis.txt").write_text("mine")
    for output in (takes, takes / "copies", takes.parent, takes.parent / "full"):
        with pytest.raises(SettingsError) as error:
            repair(takes, output)
        assert error.value.hint
    assert main(["clean", str(takes), "--output", str(takes / "copies"), "--json", "--quiet"]) == 1
    assert "lies in the dataset" in json.loads(capsys.readouterr().out.splitlines()[-1])["error"]
    assert main(["clean", str(takes), "--output", str(takes.parent / "copies"), "--quiet"]) == 0
    assert "0 of 1 recording repaired" in capsys.readouterr().out


@pytest.mark.parametrize("hz", [50, 60])
@pytest.mark.parametrize("level_db", [-50, -35])
def test_hum_is_found_and_named(hz: float, level_db: float) -> None:
    speech = _speech(6.0)
    lines = _hum(speech, hz, 1.0)
    found = hum(Audio((speech + lines / lines.std() * 10 ** (level_db / 20)).astype(np.float32), RATE))
    assert found.hz == hz and found.level_db == pytest.approx(level_db, abs=2) and found.harmonics[0] == 1
    assert not hum(Audio(speech.astype(np.float32), RATE)).hz


def test_longer_rooms_read_longer() -> None:
    speech = _speech(8.0)
    rooms = [reverb_seconds(Audio(_in_a_room(speech, one).astype(np.float32), RATE)) for one in (0.4, 0.8, 1.6)]
    assert rooms[0] < rooms[1] - 0.1 < rooms[2] - 0.2


def test_the_survey_says_what_can_be_repaired() -> None:
    speech = _speech(8.0)
    for samples, word in (
        (speech + _hum(speech, 60, 0.01), "hums at 60 Hz"),
        (speech + _music(speech), "music or voices in its pauses"),
    ):
        found = [str(one) for one in findings_of(measure(Audio(samples.astype(np.float32), RATE)), RATE)]
        assert any(word in one for one in found), (word, found)
    assert not [one for one in findings_of(measure(Audio(speech.astype(np.float32), RATE)), RATE) if one.reason]
    assert loudness_lufs(Stem(speech[:, None].astype(np.float32), RATE)) < -16
