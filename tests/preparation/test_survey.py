"""Figures of recordings against signals whose truth is known, and the verdicts drawn from them."""

import functools
import json

import numpy as np
import pytest
import soundfile
import soxr

from rvc_core.audio.quality import bandwidth_hz, clipped_share, measure
from rvc_core.audio.waveform import Audio
from rvc_core.errors import DatasetError
from rvc_core.preparation import survey
from rvc_core.preparation.survey import inspect
from synth import phrase
from torture import torture_set

RATE_HZ = 48_000


@functools.cache
def speech(seconds: float = 4.0, seed: int = 0, noise_db: float = -60.0, rate_hz: int = RATE_HZ) -> np.ndarray:
    """Syllables in white noise."""
    return phrase(seed, seconds=seconds, sample_rate=rate_hz, noise_db=noise_db).samples


@pytest.mark.parametrize("noise_db", [-10, -20, -30, -45])
def test_noise_is_measured_between_the_sounds(noise_db):
    """The synthesiser's noise is relative to the whole phrase; level is that of its sounding part, up to 2 dB more."""
    quality = measure(Audio(speech(noise_db=noise_db), RATE_HZ))
    assert -1 < quality.snr_db + noise_db < 3.5


def test_level_silence_and_offset():
    random = np.random.default_rng(0)
    sound = np.concatenate([0.1 * random.standard_normal(3 * RATE_HZ), 1e-3 * random.standard_normal(RATE_HZ)])
    quality = measure(Audio((sound + 0.05).astype(np.float32), RATE_HZ))
    assert quality.level_db == pytest.approx(-20, abs=0.2) and quality.noise_db == pytest.approx(-60, abs=0.5)
    steady = measure(Audio((0.1 * random.standard_normal(RATE_HZ)).astype(np.float32), RATE_HZ))
    assert 0 <= steady.snr_db < 1
    assert quality.silent_share == pytest.approx(0.25, abs=0.01) and quality.offset == pytest.approx(0.05, abs=1e-3)


def test_digital_silence_is_not_taken_for_a_low_noise_floor():
    noisy = np.concatenate([speech(noise_db=-20), np.zeros(2 * RATE_HZ, np.float32)])
    assert measure(Audio(noisy, RATE_HZ)).snr_db == pytest.approx(20, abs=3.5)
    empty = measure(Audio(np.zeros(RATE_HZ, np.float32), RATE_HZ))
    assert (empty.level_db, empty.silent_share, empty.clipped_share, empty.bandwidth_hz) == (-100, 1, 0, 0)
    assert measure(Audio(np.ones(1, np.float32), RATE_HZ)).silent_share == 1


@pytest.mark.parametrize("limit", [0.1, 0.5, 0.9, 0.98])
def test_clipped_samples_are_counted(limit):
    """A sine is beyond a limit for 1 - 2 asin(limit) / pi of the time."""
    sine = np.sin(2 * np.pi * 150.7 * np.arange(4 * RATE_HZ) / RATE_HZ)
    share = clipped_share((0.6 * sine.clip(-limit, limit)).astype(np.float32))
    assert share == pytest.approx(1 - 2 * np.arcsin(limit) / np.pi, rel=0.01)
    assert clipped_share((0.6 * sine.clip(-2, limit)).astype(np.float32)) == pytest.approx(share / 2, rel=0.01)


def test_pure_tones_are_not_clipped():
    time = np.arange(RATE_HZ) / RATE_HZ
    for hz in (100, 440, 3000):
        assert clipped_share(np.sin(2 * np.pi * hz * time).astype(np.float32)) == 0


@pytest.mark.parametrize("rate_hz", [8000, 16_000, 24_000, 44_100])
def test_upsampled_recordings_show_their_true_bandwidth(rate_hz):
    original = np.random.default_rng(0).standard_normal(4 * rate_hz).astype(np.float32) * 0.1
    upsampled = soxr.resample(original, rate_hz, RATE_HZ)
    assert bandwidth_hz(Audio(upsampled, RATE_HZ)) == pytest.approx(rate_hz / 2, rel=0.05)


@pytest.mark.parametrize(
    "fault, verdict, word",
    [
        (lambda sound: sound, "good", None),
        (lambda sound: sound.clip(-0.2, 0.2), "poor", "clipped"),
        (lambda sound: sound + 0.04 * np.random.default_rng(0).standard_normal(len(sound)), "poor", "noisy"),
        (lambda sound: 0.002 * sound, "poor", "silent"),
        (lambda sound: 0.15 * sound, "usable", "quiet"),
        (lambda sound: soxr.resample(soxr.resample(sound, RATE_HZ, 8000), 8000, RATE_HZ), "poor", "telephone"),
        (lambda sound: soxr.resample(soxr.resample(sound, RATE_HZ, 16_000), 16_000, RATE_HZ), "usable", "original"),
        (
            lambda sound: np.concatenate([sound, 1e-3 * np.random.default_rng(0).standard_normal(3 * len(sound))]),
            "usable",
            "silence",
        ),
        (lambda sound: sound + 0.1, "usable", "offset"),
    ],
)
def test_each_fault_is_named_and_only_it(tmp_path, fault, verdict, word):
    soundfile.write(tmp_path / "a.wav", fault(speech(noise_db=-50)), RATE_HZ, "FLOAT")
    report = inspect(tmp_path).recordings[0]
    assert report.verdict == verdict and len(report.problems) == (word is not None)
    assert word is None or word in report.problems[0]


def test_dataset_verdict_and_advice(tmp_path, monkeypatch):
    monkeypatch.setattr(survey, "_PITCH_MINUTES", 0.1)  # networks over eleven minutes would take one
    monkeypatch.setattr(survey, "windows_of", lambda audio: None)
    for minutes, verdict in ((0.5, "poor"), (3, "usable"), (11, "good")):
        sound = np.tile(speech(10, rate_hz=16_000), round(6 * minutes))
        soundfile.write(tmp_path / "a.wav", sound, 16_000)
        report = inspect(tmp_path)
        assert report.verdict == verdict and report.advice and report.minutes == pytest.approx(minutes)
    soundfile.write(tmp_path / "b.wav", sound.clip(-0.05, 0.05), 16_000)
    report = inspect(tmp_path)
    assert report.verdict == "poor" and "b.wav: poor: clipped" in str(report)


def test_broken_files_are_listed_and_missing_folders_said(tmp_path):
    torture_set(tmp_path / "data")
    report = inspect(tmp_path / "data")
    broken = {one.recording: one.problems[0] for one in report.recordings if one.quality is None}
    assert set(broken) == {"zero.wav", "header only.wav", "text.wav", "noise.m4a", "nan.wav"}
    assert "2 of 24000 samples" in broken["nan.wav"]
    assert json.loads(json.dumps(report.as_json()))["verdict"] == "poor"
    with pytest.raises(DatasetError):
        inspect(tmp_path / "absent")


@pytest.mark.parametrize(
    "scale, remedy",
    [(20_000, "32768"), (300, "32768"), (5e6, "8388608"), (1.9e9, "2147483648"), (8, "lower its level"), (1, None)],
)
def test_numbers_that_are_no_levels_are_named_with_seconds_and_remedy(scale, remedy, tmp_path):
    sound = speech(4.0) / np.abs(speech(4.0)).max()
    soundfile.write(tmp_path / "a.wav", scale * sound, RATE_HZ, "DOUBLE")
    [one] = inspect(tmp_path).recordings
    found = [problem for problem in one.problems if "full scale" in problem]
    if remedy is None:
        assert not found
        return
    assert one.verdict == "poor" and len(found) == 1 and remedy in found[0]
    seconds = float(found[0].split(" s ")[0])
    truth = np.abs(scale * sound[: 40 * 4800]).reshape(40, -1).max(axis=1) > 2.5
    assert seconds == pytest.approx(truth.sum() / 10) and 0 < seconds <= 4
