"""Mixing against independent truth: loudness of known tones, delays of known lags, rooms of known decay."""

import numpy as np
import pytest

from rvc_core.audio.mixing import (
    SILENT_LUFS,
    Stem,
    gated,
    lag_seconds,
    loudness_lufs,
    placed,
    read_stem,
    reverberated,
    rms_db,
    room_between,
    shifted,
    transposed,
    true_peak_db,
)
from rvc_core.audio.tracks import comment_of
from rvc_core.audio.waveform import Audio, read_audio
from rvc_core.errors import AudioError
from synth import phrase

RATE = 44_100


def _tone(hz: float = 997.0, seconds: float = 2.0, rate: int = RATE) -> np.ndarray:
    return np.sin(2 * np.pi * hz * np.arange(round(seconds * rate)) / rate).astype(np.float32)


def _speech(seconds: float = 4.0) -> Audio:
    return Audio(phrase(1, seconds=seconds).samples, 16000)


@pytest.mark.parametrize(("channels", "expected"), [(1, -23.01), (2, -20.0)])
@pytest.mark.parametrize("rate", [8000, 44_100, 48_000])
def test_loudness_is_that_of_the_standard(channels: int, expected: float, rate: int) -> None:
    tone = 0.1 * np.repeat(_tone(rate=rate)[:, None], channels, axis=1)
    assert loudness_lufs(Stem(tone, rate)) == pytest.approx(expected, abs=0.1 if rate > 8000 else 0.25)


def test_loudness_of_pauses_short_long_and_silent_sounds() -> None:
    tone = 0.1 * _tone(seconds=4.0)[:, None]
    whole = loudness_lufs(Stem(tone, RATE))
    assert loudness_lufs(Stem(np.concatenate([tone, 0 * tone, 0 * tone]), RATE)) == pytest.approx(whole, abs=0.5)
    assert loudness_lufs(Stem(tone[:2000], RATE)) == pytest.approx(whole, abs=0.5)
    for silent in (0 * tone, 1e-7 * tone, tone[:0]):
        assert loudness_lufs(Stem(silent, RATE)) == SILENT_LUFS
    long = np.tile(0.1 * _tone(rate=8000)[:, None], (310, 1))  # over ten minutes: in parts
    assert loudness_lufs(Stem(long, 8000)) == pytest.approx(-23.0, abs=0.2)


def test_true_peak_sees_between_samples_and_across_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    from rvc_core.audio import mixing

    tone = np.sin(2 * np.pi * RATE / 4 * np.arange(RATE) / RATE + np.pi / 4).astype(np.float32) * np.hanning(RATE)
    stem = Stem(tone[:, None].astype(np.float32), RATE)
    assert 20 * np.log10(tone.max()) == pytest.approx(-3.01, abs=0.02)
    assert true_peak_db(stem) == pytest.approx(0.0, abs=0.1)
    monkeypatch.setattr(mixing, "_PEAK_SAMPLES", 1000)
    assert true_peak_db(stem) == pytest.approx(0.0, abs=0.1)
    assert true_peak_db(Stem(np.zeros((9, 2), np.float32), RATE)) == -100


@pytest.mark.parametrize("lag_ms", [-40, -3, 0, 1, 7, 60])
def test_a_lag_is_measured_and_taken_back(lag_ms: float) -> None:
    speech = _speech()
    late = shifted(speech, -lag_ms / 1000, len(speech.samples))
    hoarse = late.samples * (1 + 0.3 * np.random.default_rng(0).standard_normal(len(late.samples)))  # another voice
    made = Audio(hoarse.astype(np.float32), 16000).resample(44_100)
    assert 1000 * lag_seconds(made, speech) == pytest.approx(lag_ms, abs=0.7)
    again = shifted(made, lag_seconds(made, speech), len(made.samples))
    assert abs(lag_seconds(again, speech)) < 0.001


def test_a_gate_silences_pauses_and_leaves_the_voice() -> None:
    speech = _speech(2.0)
    source = Audio(np.concatenate([speech.samples, np.zeros(16000, np.float32), speech.samples]), 16000)
    made = Audio(source.samples + np.float32(0.01), 16000)
    out = gated(made, source).samples
    assert np.abs(out[round(2.2 * 16000) : round(2.8 * 16000)]).max() == 0
    loud = np.abs(source.samples) > 0.1 * np.abs(source.samples).max()
    assert np.array_equal(out[loud], made.samples[loud])
    assert not gated(made, Audio(0 * source.samples, 16000)).samples.any()


def test_a_voice_takes_its_place_between_the_speakers() -> None:
    like = Stem(np.random.default_rng(0).standard_normal((8000, 2)).astype(np.float32) * [1, 0.25], 8000)
    made = placed(Audio(np.ones(8000, np.float32), 8000), like)
    assert made.samples[0] == pytest.approx([1, 0.25], abs=0.02)


def test_a_room_is_found_and_used_again() -> None:
    random, rate = np.random.default_rng(1), 16_000
    room = random.standard_normal(rate // 2) * np.exp(-np.arange(rate // 2) / (0.1 * rate))
    dry = phrase(1, seconds=12.0).samples
    wet = (np.convolve(dry, room)[: len(dry)] * 0.05).astype(np.float32)
    found = room_between(Stem(dry[:, None], rate), Stem(wet[:, None], rate))
    other = Stem(phrase(2, seconds=4.0, speaker=1).samples[:, None], rate)
    made = reverberated(other, found, -12.0)
    truth = np.convolve(other.samples[:, 0], room)[: len(other.samples)]
    assert rms_db(made) - rms_db(other) == pytest.approx(-12, abs=0.01)
    assert np.corrcoef(made.samples[:, 0], truth)[0, 1] > 0.8


@pytest.mark.parametrize("semitones", [-5, 2, 12])
@pytest.mark.parametrize("channels", [1, 2])
def test_another_key_is_in_tune_in_time_and_as_long(semitones: int, channels: int) -> None:
    clicks = np.zeros(3 * RATE, np.float32)
    for start in range(RATE // 4, 3 * RATE - RATE // 2, RATE // 2):
        clicks[start : start + 4000] += _tone(440, 4000 / RATE)[:4000] * np.exp(-np.arange(4000) / 900).astype(
            np.float32
        )
    stem = Stem(np.repeat(clicks[:, None], channels, axis=1), RATE)
    made = transposed(stem, semitones)
    assert made.samples.shape == stem.samples.shape
    assert abs(lag_seconds(made.mono, stem.mono)) < 0.005
    hz = np.argmax(np.abs(np.fft.rfft(made.samples[:, 0]))) / 3
    assert hz == pytest.approx(440 * 2 ** (semitones / 12), rel=0.02)
    assert transposed(stem, 0) is stem


@pytest.mark.parametrize("suffix", ["wav", "flac", "ogg", "mp3", "m4a"])
@pytest.mark.parametrize("channels", [1, 2])
def test_every_format_takes_channels_and_a_comment(suffix: str, channels: int, tmp_path) -> None:
    file = tmp_path / f"a.{suffix}"
    tone = 0.1 * np.repeat(_tone()[:, None], channels, axis=1)
    Stem(tone, RATE).save(file, comment="voice converted, é")
    assert comment_of(file) == "voice converted, é"
    audio = read_audio(file)
    assert abs(audio.seconds - 2) < 0.15 and audio.sample_rate == RATE
    if suffix in ("wav", "flac"):
        assert np.abs(read_stem(file).samples - tone).max() < 1e-4


def test_what_is_no_stem_is_said(tmp_path) -> None:
    (tmp_path / "a.flac").write_bytes(b"fLaC and no more")
    for call in (read_stem, comment_of):
        with pytest.raises(AudioError) as error:
            call(tmp_path / "a.flac")
        assert error.value.hint
