"""What the survey finds, against defects of known size planted in synthetic speech and in the package's voices."""

import itertools
import re
from pathlib import Path

import numpy as np
import pytest
import soundfile
from scipy import signal

from rvc_core.audio.quality import hum, measure, reverb_seconds
from rvc_core.audio.waveform import Audio, read_audio
from rvc_core.cli import main
from rvc_core.embedded import voice_folder
from rvc_core.errors import DatasetError
from rvc_core.notebook.survey_cards import cards, lines_of
from rvc_core.preparation import extract as extract_module
from rvc_core.preparation import people, survey
from rvc_core.preparation.extract import extract
from rvc_core.preparation.findings import Finding, findings_of
from rvc_core.preparation.manner import dominating, grouped, summed_up
from rvc_core.preparation.repair import repair
from rvc_core.preparation.survey import RecordingReport, inspect
from rvc_core.settings import ExtractSettings, TrainSettings
from rvc_core.training.start import load_data
from rvc_core.workspace.layout import Layout
from rvc_core.workspace.manifest import Clip, ExperimentRecord, Manifest
from rvc_core.workspace.stamps import stamp
from synth import phrase

RATE = 16_000


def _speech(seconds: float = 8.0, seed: int = 1) -> np.ndarray:
    return 0.3 * phrase(seed, seconds=seconds, noise_db=-45.0).samples


def _findings(samples: np.ndarray, rate: int = RATE) -> dict[str, Finding]:
    found = findings_of(measure(Audio(samples.astype(np.float32), rate)), rate)
    return {one.measure: one for one in found if one.colour != "green"}


def _surveyed(folder: Path) -> dict[str, dict[str, Finding]]:
    return {
        one.recording: {each.measure: each for each in one.findings if each.colour != "green"}
        for one in inspect(folder).recordings
    }


@pytest.mark.parametrize(("rt60", "colour"), [(0.7, "amber"), (1.6, "red")])
def test_a_room_is_found_and_its_reverb_told(rt60: float, colour: str) -> None:
    length = round(1.2 * rt60 * RATE)
    room = np.random.default_rng(0).standard_normal(length) * 10 ** (-3 * np.arange(length) / RATE / rt60)
    room *= 1 / np.sqrt((room**2).sum())
    room[0] += 1
    far = np.convolve(_speech(), room)[: 8 * RATE]
    found = _findings(far)
    assert found["reverb"].colour == colour and found["reverb"].value == pytest.approx(rt60, rel=0.5)
    assert "accompaniment" not in found and not _findings(_speech())
    assert reverb_seconds(Audio(_speech().astype(np.float32), RATE)) < 0.35


def test_a_step_of_the_level_is_found_where_it_is(tmp_path: Path) -> None:
    samples = _speech(24.0)
    samples[round(15.0 * RATE) :] *= 10 ** (-9 / 20)
    soundfile.write(tmp_path / "a.wav", samples, RATE)
    [found] = _surveyed(tmp_path).values()
    [(start, stop)] = found["evenness"].places
    assert start < 15.5 and stop > 14.5 and found["evenness"].value == pytest.approx(9, abs=2.5)


def test_a_step_is_found_in_six_seconds_too_and_none_where_there_is_none() -> None:
    samples = _speech(6.0)
    assert "evenness" not in _findings(samples)
    samples[3 * RATE :] *= 10 ** (-9 / 20)
    assert _findings(samples)["evenness"].value == pytest.approx(9, abs=2.5)


def test_noise_in_one_half_is_found_and_its_seconds_are_told_in_both_languages(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(survey, "_PITCH_MINUTES", 0.02)
    monkeypatch.setattr(survey, "windows_of", lambda audio: None)
    folder = tmp_path / "my takes"
    folder.mkdir()
    samples = _speech(24.0)
    level = np.sqrt(np.mean(samples[np.abs(samples) > 0.01] ** 2))
    samples[12 * RATE :] += level * 10 ** (-14 / 20) * np.random.default_rng(0).standard_normal(12 * RATE)
    soundfile.write(folder / "a.wav", samples, RATE)
    assert main(["inspect", str(folder), "--speakers", "folders", "--quiet"]) == 0
    said = capsys.readouterr().out
    assert re.search(r"a\.wav: usable: noisy \(1[2-7] dB above its noise\): .* \(0:1[12]–0:24\)\n", said)
    assert said.endswith(
        f"repair: rvc clean '{folder}'\nplan: rvc plan 'my takes' --dataset '{folder}' --speakers folders\n"
    )
    monkeypatch.setenv("RVC_LANG", "pt")
    assert any("ruído" in line and "–0:24)" in line for line in lines_of(inspect(folder)))


def test_a_hum_is_found_in_pauses_shorter_than_its_own_measurement() -> None:
    """Each pause has 0.3 s, a frame 0.4 s."""
    samples, random = _speech(24.0), np.random.default_rng(0)
    for start in range(0, len(samples), 2 * RATE):
        samples[start : start + round(0.3 * RATE)] = 1e-3 * random.standard_normal(round(0.3 * RATE))
    time = np.arange(len(samples)) / RATE
    lines = sum(np.sin(2 * np.pi * 50 * order * time + order) / order for order in (1, 2, 3, 5))
    lines *= samples.std() / np.std(lines) * 10 ** (-30 / 20)
    found = hum(Audio((samples + lines).astype(np.float32), RATE))
    assert found.hz == 50 and found.level_db == pytest.approx(20 * np.log10(lines.std()), abs=2)
    assert not hum(Audio(samples.astype(np.float32), RATE)).hz


def test_the_clipped_seconds_are_named() -> None:
    from rvc_core.preparation.findings import places_of

    samples = np.tile(_speech(), 2).astype(np.float32)
    samples[10 * RATE : 11 * RATE] = (90 * samples[10 * RATE : 11 * RATE]).clip(-0.9, 0.9)
    audio = Audio(samples, RATE)
    [(start, stop)] = places_of("clipping", audio, measure(audio))
    assert start <= 10 and stop >= 11 and stop - start <= 4.5


def test_a_lossy_edge_is_told_and_a_narrow_recording_graded() -> None:
    import soxr

    noise = 0.1 * np.random.default_rng(0).standard_normal(10 * 44_100)
    for cut_hz, colour in ((16_000, "green"), (10_000, "amber")):
        cut = soxr.resample(soxr.resample(noise, 44_100, 2 * cut_hz), 2 * cut_hz, 44_100).astype(np.float32)
        quality = measure(Audio(cut, 44_100))
        assert quality.edge_hz == pytest.approx(cut_hz, rel=0.05)
        [found] = [one for one in findings_of(quality, 44_100) if one.measure == "bandwidth"]
        assert found.colour == colour and found.reason
    assert not measure(Audio(noise.astype(np.float32), 44_100)).edge_hz


def test_channels_that_cancel_are_found_and_turned_over(tmp_path: Path) -> None:
    speech = _speech()
    (tmp_path / "takes").mkdir()
    soundfile.write(tmp_path / "takes" / "a.wav", np.stack([speech, -0.8 * speech], axis=1), RATE)
    assert "phase" in _surveyed(tmp_path / "takes")["a.wav"]
    [row] = repair(tmp_path / "takes", tmp_path / "copies").recordings
    assert row.repairs == ["phase"]
    assert not _surveyed(tmp_path / "copies").get(row.output)
    assert np.corrcoef(read_audio(tmp_path / "copies" / row.output).samples, speech)[0, 1] > 0.999


def test_the_same_sound_is_found_under_another_name_format_and_level_and_as_a_cut(tmp_path: Path) -> None:
    one, other = (Audio(_speech(seed=seed).astype(np.float32), RATE) for seed in (1, 2))
    one.save(tmp_path / "a.wav")
    other.save(tmp_path / "b.wav")
    Audio(0.5 * one.samples, RATE).save(tmp_path / "c.mp3")
    one[3.0:6.0].save(tmp_path / "d.wav")
    found = {name: of["duplicate"] for name, of in _surveyed(tmp_path).items() if "duplicate" in of}
    assert set(found) == {"c.mp3", "d.wav"} and found["d.wav"].value == pytest.approx(3.0 + 3.0, abs=1.0)
    assert "a.wav" in found["d.wav"].reason or "c.mp3" in found["d.wav"].reason


def test_another_voice_is_found_with_its_share_and_said_to_be_not_measured_without_the_scorer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("resemblyzer")
    ours, theirs = (sorted(voice_folder(name).glob("*.flac")) for name in ("target", "source"))
    for path in [*ours[:6], theirs[0], theirs[1]]:
        (tmp_path / f"{path.parent.name} {path.name}").write_bytes(path.read_bytes())
    known = read_audio(ours[6])  # the same person on a telephone
    narrow = signal.sosfilt(
        signal.butter(8, (300, 3400), "bandpass", fs=known.sample_rate, output="sos"), known.samples
    )
    Audio(narrow.astype(np.float32), known.sample_rate).save(tmp_path / "telephone.flac")
    report = inspect(tmp_path)
    strange = {one.recording for one in report.recordings for each in one.findings if str(each).startswith("somebody")}
    assert strange == {f"source {path.name}" for path in theirs[:2]}
    [share] = [one for one in report.findings if one.measure == "speaker"]
    truth = sum(one.seconds for one in report.recordings if one.recording in strange) / 60 / report.minutes
    assert share.value == pytest.approx(truth, abs=0.12) and share.colour == "red"
    monkeypatch.setattr(people, "_scorer", lambda: None)
    assert "speaker" in inspect(tmp_path).not_measured


def test_the_notebook_shows_a_picture_and_a_player_in_both_languages(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    soundfile.write(tmp_path / "a.wav", (30 * _speech()).clip(-0.9, 0.9), RATE)
    report = inspect(tmp_path)
    for language, word in (("en", "clipped"), ("pt", "estourada")):
        monkeypatch.setenv("RVC_LANG", language)
        shown = cards(tmp_path, report)
        assert 1 <= shown.count("<img") == shown.count("<audio") <= 6
        assert f"a.wav: {word}" in shown and "🔴" in shown
        assert any(word in line for line in lines_of(report))
    assert isinstance(report.recordings[0], RecordingReport) and len(shown) < 400_000


@pytest.fixture
def spoken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Layout:
    """Forty calm low clips and as many loud high ones, prepared."""
    layout = Layout.of("alice", tmp_path)
    clips = [Clip(f"0_{number}", "a.wav", 2 * number, 1.5) for number in range(80)]
    for number, clip in enumerate(clips):
        sound = phrase(number, 110 if number % 2 else 260, seconds=1.5).samples
        level = 0.05 if number % 2 else 0.6
        made = Audio((sound * (0.675 + 0.25 * level) / np.abs(sound).max()).astype(np.float32), RATE)
        for folder in (layout.clips, layout.clips_16k):
            made.save(folder / f"{clip.id}.wav", float32=True)
    Manifest(clips).save(layout)
    ExperimentRecord("alice", str(tmp_path), "nano", True).save(layout)
    stamp(layout, "prepare", {"dataset": 1})
    monkeypatch.setattr(extract_module, "LEAST_MINUTES", 1.0)
    return layout


def test_clips_are_grouped_by_manner_and_training_takes_the_chosen_ones(spoken: Layout) -> None:
    import torch

    report = extract(spoken, ExtractSettings(f0_method="dio"))
    groups = {clip.id: clip.group for clip in Manifest.load(spoken).clips}
    low, high = ({groups[f"0_{number}"] for number in range(start, 80, 2)} for start in (1, 0))
    assert len(low) == len(high) == 1 and low != high, groups
    assert "low" in min(low) and "high" in min(high) and sum(one.share for one in report.groups) == pytest.approx(1)
    record = ExperimentRecord.load(spoken)

    def clips_of(groups: str) -> int:
        settings, device = TrainSettings(groups=groups), torch.device("cpu")
        return len(load_data(spoken, record.spec, record.speaker_names, settings, device).clips)

    assert clips_of("") - clips_of(min(low)) == 40
    with pytest.raises(DatasetError, match="there is no group 'shouted'") as error:
        clips_of("shouted")
    assert min(low) in error.value.hint


def test_known_manners_are_found_by_pitch_and_level_and_the_usual_one_dominates() -> None:
    """Movement, rate and brightness vary as much inside a manner as between them."""
    random = np.random.default_rng(0)
    usual, low, high = random.normal(size=(3, 100, 5)) * (1, 1, 2, 1, 1) + np.array([[[0]], [[-5]], [[5]]]) * (
        *(1, 0, 2, 0, 0),
    )
    names = grouped(np.concatenate([usual, low, high]))
    assert [len(set(names[start : start + 100])) for start in (0, 100, 200)] == [1, 1, 1]
    assert (names[0], names[100], names[200]) == ("usual", "low-quiet", "high-loud")
    names = grouped(np.concatenate([usual, high[:15]]))
    assert set(names[100:]) == {"high-loud"} and dominating(summed_up(names, [1.0] * 115)) == names[0]
    assert not any(grouped(usual))


def test_few_minutes_form_no_groups(spoken: Layout, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(extract_module, "LEAST_MINUTES", 60.0)
    assert not extract(spoken, ExtractSettings(f0_method="dio")).groups
    assert not any(clip.group for clip in Manifest.load(spoken).clips)
    assert len(list(itertools.islice(spoken.f0_hz.glob("*.npy"), 90))) == 80
