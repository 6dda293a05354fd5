"""Pitch estimators against the synthesiser's truth, and RVC's quantisation against its own figures."""

import numpy as np
import pytest

from rvc_core.errors import ResourceError, SettingsError
from rvc_core.features import pitch
from rvc_core.features.pitch import PitchTrack, auto_transpose, coarse_pitch, pitch_estimator, read_curve, write_curve
from rvc_core.presets import PRESETS
from synth import glide, phrase

METHODS = ["fcpe", "crepe", "harvest", "dio", "pm"]


def estimator(method):
    try:
        return pitch_estimator(method)
    except ResourceError as error:
        pytest.skip(str(error))


def cents(track, truth):
    both = track.voiced & truth.voiced
    return 1200 * np.log2(track.f0_hz[both] / truth.f0_hz[both])


@pytest.mark.parametrize("noise_db", [None, -20])
@pytest.mark.parametrize("method", METHODS)
def test_voiced_decision_and_accuracy(method, noise_db):
    estimate, errors, hits, claimed, true = estimator(method), [], 0, 0, 0
    for seed in (0, 1) if noise_db is None else (2, 3):
        truth = phrase(seed, seconds=2, speaker=seed, noise_db=noise_db)
        track = estimate(truth.samples)
        assert track.f0_hz.dtype == np.float32 and (track.f0_hz[~track.voiced] == 0).all()
        errors.append(cents(track, truth))
        hits += (track.voiced & truth.voiced).sum()
        claimed, true = claimed + track.voiced.sum(), true + truth.voiced.sum()
    assert 2 * hits / (claimed + true) >= 0.95
    assert np.median(np.abs(np.concatenate(errors))) < 20


@pytest.mark.parametrize("method", METHODS)
def test_no_lag(method):
    """On an upward and a downward glide a lag of d seconds reads d times the slope too low, and too high."""
    slope_cents = 1200 * np.log2(400 / 120) / 1.0
    up, down = glide(120, 400, 1.0), glide(400, 120, 1.0)
    estimate = estimator(method)
    difference = np.median(cents(estimate(down.samples), down)) - np.median(cents(estimate(up.samples), up))
    assert abs(difference / 2 / slope_cents) < 0.005


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("samples", [0, 1, 159, 160, 700, 16000])
def test_shape_for_any_length_and_silence(method, samples):
    track = estimator(method)(np.zeros(samples, np.float32))
    assert track.f0_hz.shape == track.voiced.shape == (samples // 160,)
    assert not track.voiced.any()


@pytest.mark.parametrize("method", ["fcpe", "dio"])
def test_blocks_equal_the_whole(method, monkeypatch):
    truth = phrase(11, seconds=4, speaker=1)
    whole = estimator(method)(truth.samples)
    monkeypatch.setattr(pitch, "_BLOCK_SAMPLES", 2 * 16000)
    monkeypatch.setattr(pitch, "_CONTEXT_SAMPLES", 2 * 16000)
    blocks = estimator(method)(truth.samples)
    both = whole.voiced & blocks.voiced
    assert (whole.voiced != blocks.voiced).mean() <= 0.01
    assert np.percentile(np.abs(1200 * np.log2(whole.f0_hz[both] / blocks.f0_hz[both])), 99) < 10


def test_noise_is_unvoiced():
    hiss = np.random.default_rng(0).standard_normal(32000).astype(np.float32) * 0.1
    assert estimator("fcpe")(hiss).voiced.mean() < 0.02


def test_unusable_values_become_unvoiced(monkeypatch):
    monkeypatch.setitem(pitch._METHODS, "fcpe", lambda device: lambda x: np.array([np.nan, 2000.0, 20.0, 125.0] * 100))
    pitch_estimator.cache_clear()
    tone = np.sin(2 * np.pi * 125 * np.arange(6400) / 16000).astype(np.float32)
    track = pitch_estimator("fcpe")(tone)
    pitch_estimator.cache_clear()
    assert track.f0_hz.tolist() == [0, 0, 0, 125] * 10


def test_nothing_is_printed(capsys):
    pitch_estimator.cache_clear()
    estimator("fcpe")(np.zeros(4000, np.float32))
    assert capsys.readouterr().out == ""


def test_the_estimator_alone_decides_for_voices_of_rvc():
    """RVC takes FCPE's own answer: its network's, in a noise where nothing repeats for long as well."""
    torch, torchfcpe = pytest.importorskip("torch"), pytest.importorskip("torchfcpe")
    truth = phrase(4, seconds=3, speaker=2, noise_db=-6)
    network = torchfcpe.spawn_bundled_infer_model("cpu")
    sound = torch.from_numpy(truth.samples)[None, :, None]
    theirs = network.infer(sound, sr=16000, decoder_mode="local_argmax", threshold=0.006)[0, :, 0].numpy()
    alone, repeats = (pitch_estimator("fcpe", "cpu", voicing) for voicing in ("estimator", "periodicity"))
    own = alone(truth.samples)
    np.testing.assert_array_equal(own.f0_hz, theirs[: len(own.f0_hz)])
    assert (own.voiced == (own.f0_hz > 0)).all() and repeats(truth.samples).voiced.sum() < own.voiced.sum()


@pytest.mark.parametrize("method", ["crepe", "dio", "pm"])
def test_estimators_that_decide_alone_leave_silence_and_hiss_unvoiced(method):
    estimate = pitch_estimator(method, "cpu", "estimator") if estimator(method) else None
    hiss = np.random.default_rng(0).standard_normal(16000).astype(np.float32) * 0.1
    assert estimate(np.zeros(16000, np.float32)).voiced.mean() < 0.02 and estimate(hiss).voiced.mean() < 0.2
    truth = phrase(1, seconds=2, speaker=1)
    assert (estimate(truth.samples).voiced == truth.voiced).mean() > 0.9


def test_presets_name_what_decides_as_their_base_models_heard_it():
    assert {spec.version: spec.voicing for spec in PRESETS.values()} == {
        "v1": "estimator",
        "v2": "estimator",
        "nano": "periodicity",
    }


def test_coarse_matches_the_reference():
    hz = np.array([0, 50, 100, 200, 440, 1100, 5000])
    assert coarse_pitch(hz).tolist() == [1, 1, 20, 54, 122, 255, 255]
    assert coarse_pitch(hz).dtype == np.int64


def test_track_values():
    track = PitchTrack(np.array([0, 100, 200, 0], np.float32), np.array([False, True, True, False]))
    assert track.median_hz == 150
    assert track.transposed(-12).f0_hz.tolist() == [0, 50, 100, 0]
    assert track.fitted(6).f0_hz.tolist() == [0, 100, 200, 0, 0, 0] and track.fitted(2).voiced.tolist() == [False, True]
    assert auto_transpose(track, 300.0) == 12 and auto_transpose(track, 160.0) == 1
    assert auto_transpose(track.fitted(1), 300.0) == 0 and track.fitted(0).median_hz == 0


def test_missing_package_and_unknown_method(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "pyworld", None)
    pitch_estimator.cache_clear()
    with pytest.raises(ResourceError) as error:
        pitch_estimator("harvest")
    assert "pip install pyworld-prebuilt" in error.value.hint
    with pytest.raises(SettingsError):
        pitch_estimator("yin")


def curve(folder, text):
    (folder / "f0.csv").write_bytes(text if isinstance(text, bytes) else text.encode())
    return read_curve(folder / "f0.csv")


def test_a_written_curve_is_read_as_it_was(tmp_path):
    truth = phrase(3, seconds=2)
    write_curve(tmp_path / "f0.csv", PitchTrack(truth.f0_hz, truth.voiced))
    track = read_curve(tmp_path / "f0.csv")
    assert (track.voiced == truth.voiced).all()
    np.testing.assert_allclose(track.f0_hz, truth.f0_hz, atol=0.001)


def test_a_drawn_curve_runs_straight_between_voiced_points(tmp_path):
    track = curve(tmp_path, "\ufeffseconds, hz\r\n0.02,100\r\n0.06, 200\r\n\r\n0.10,0\r\n0.12,0\r\n0.13,300\r\n")
    assert track.f0_hz.tolist() == [0, 0, 100, 125, 150, 175, 200, 200, 200, 0, 0, 0, 0, 300]
    assert (track.voiced == (track.f0_hz > 0)).all()
    assert curve(tmp_path, "0,440").f0_hz.tolist() == [440]


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("", "holds no f0 curve"),
        ("seconds,hz\n", "holds no f0 curve"),
        ("0,100\n0.1 200", "line 2: '0.1 200'"),
        ("0,100\nhello", "line 2"),
        ("0,100,3", "line 1"),
        ("0,100\n0,120", "line 2: 0 s is out of order"),
        ("-1,100", "line 1: -1 s"),
        ("0,100\nnan,100", "line 2"),
        ("0,nan", "line 1: nan Hz"),
        ("0,-5", "line 1: -5 Hz"),
        ("0,2000", "2000 Hz is outside 50 to 1100"),
        ("1e9,100", "line 1: 1e"),
        (b"\xff\xfe0\x00", "it is not text"),
    ],
)
def test_bad_curves_are_one_clear_line(tmp_path, text, named):
    with pytest.raises(SettingsError) as error:
        curve(tmp_path, text)
    assert named in str(error.value) and "\n" not in str(error.value) and "seconds,hz" in error.value.hint


@pytest.mark.parametrize("place", ["absent.csv", "."])
def test_an_absent_curve_is_one_clear_line(tmp_path, place):
    with pytest.raises(SettingsError, match="cannot read an f0 curve"):
        read_curve(tmp_path / place)
