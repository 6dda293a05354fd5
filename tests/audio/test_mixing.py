"""Mixing against independent truth: loudness of known tones, delays of known lags, rooms of known decay."""

import numpy as np
import pytest

from rvc_core.audio.lazy import Lazy, blocks_of
from rvc_core.audio.loudness import SILENT_LUFS
from rvc_core.audio.mixing import (
    Stem,
    lag_seconds,
    loudness_lufs,
    part_of,
    read_stem,
    reverberated,
    rms_db,
    room_between,
    transposed,
    true_peak_db,
    true_peak_of,
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
    tone = np.sin(2 * np.pi * RATE / 4 * np.arange(RATE) / RATE + np.pi / 4).astype(np.float32) * np.hanning(RATE)
    stem = Stem(tone[:, None].astype(np.float32), RATE)
    assert 20 * np.log10(tone.max()) == pytest.approx(-3.01, abs=0.02)
    assert true_peak_db(stem) == pytest.approx(0.0, abs=0.1)
    for size in (1, 700, 1000, 5000, RATE - 1):
        assert true_peak_of(blocks_of(stem.samples, size)) == pytest.approx(true_peak_db(stem), abs=1e-3)
    assert true_peak_db(Stem(np.zeros((9, 2), np.float32), RATE)) == -100


def _moved(audio: Audio, seconds: float) -> Audio:
    by = round(seconds * audio.sample_rate)
    padded = np.pad(audio.samples, abs(by))
    return Audio(padded[abs(by) - by :][: len(audio.samples)], audio.sample_rate)


@pytest.mark.parametrize("lag_ms", [-40, -3, 0, 1, 7, 60])
def test_a_lag_is_measured_and_taken_back(lag_ms: float) -> None:
    speech = _speech()
    late = _moved(speech, lag_ms / 1000)
    hoarse = late.samples * (1 + 0.3 * np.random.default_rng(0).standard_normal(len(late.samples)))  # another voice
    made = Audio(hoarse.astype(np.float32), 16000).resample(44_100)
    assert 1000 * lag_seconds(made, speech) == pytest.approx(lag_ms, abs=0.7)
    like = Stem(speech.resample(44_100).samples[:, None], 44_100)
    again = part_of(Stem(made.samples, 44_100), like.folded, like, lag_seconds(made, speech))
    assert abs(lag_seconds(again.folded, speech)) < 0.001 and again.samples.shape == like.samples.shape


@pytest.mark.parametrize("level", [1.0, 1e-3])
def test_a_gate_silences_pauses_and_leaves_the_voice_however_quiet(level: float) -> None:
    speech = _speech(2.0)
    whisper = 0.02 * speech.samples  # a verse that is 34 dB quieter
    source = np.concatenate([speech.samples, np.zeros(16000, np.float32), whisper, speech.samples]) * np.float32(level)
    made = source + np.float32(0.01 * level)
    like = Stem(source[:, None], 16000)
    out = part_of(Stem(made, 16000), like.folded, like, 0.0).samples[:][:, 0]
    assert np.abs(out[round(2.2 * 16000) : round(2.8 * 16000)]).max() == 0
    loud = np.abs(source) > 0.1 * np.abs(source).max()
    assert np.array_equal(out[loud], made[loud])
    quiet = np.abs(source[48_000:80_000]) > 0.1 * np.abs(source[48_000:80_000]).max()
    assert np.array_equal(out[48_000:80_000][quiet], made[48_000:80_000][quiet])
    silent = Stem(0 * like.samples, 16000)
    assert not part_of(Stem(made, 16000), silent.folded, silent, 0.0).samples[:].any()


def test_a_voice_takes_its_place_between_the_speakers() -> None:
    like = Stem(np.random.default_rng(0).standard_normal((8000, 2)).astype(np.float32) * np.float32([1, 0.25]), 8000)
    made = part_of(Stem(np.ones(8000, np.float32), 8000), like.folded, like, 0.0)
    assert made.samples[:1][0] == pytest.approx([1, 0.25], abs=0.02)


def test_what_is_made_block_by_block_is_what_is_made_at_once() -> None:
    speech = Stem(np.stack([phrase(one, seconds=6.0).samples for one in (1, 2)], 1), 16_000)
    lazy = Stem(Lazy(speech.samples.shape, lambda start, stop: speech.samples[start:stop]), 16_000)
    room = np.random.default_rng(0).standard_normal(4000).astype(np.float32) * 0.01
    for change in (
        lambda stem: stem.gained(-3.0),
        lambda stem: stem + stem,
        lambda stem: reverberated(stem, room, -12.0),
        lambda stem: part_of(stem.folded, stem.folded, stem, 0.01),
    ):
        whole = np.concatenate([change(speech).samples[:]])
        for size in (9_999, 30_000):
            pieces = np.concatenate([*blocks_of(change(lazy).samples, size)])
            assert np.abs(whole - pieces).max() < 1e-5 * np.abs(whole).max() + 1e-7
    assert np.array_equal(lazy.folded.samples[:], speech.mono.samples)


@pytest.mark.parametrize("rate", [8000, 22_050, 48_000])
def test_loudness_by_blocks_is_pyloudnorms(rate: int) -> None:
    import pyloudnorm

    loud, quiet = (np.random.default_rng(one).standard_normal((4 * rate, 2)) for one in (0, 1))
    sound = np.concatenate([0.1 * loud, 0.001 * quiet, np.zeros_like(loud), 0.05 * quiet]).astype(np.float32)
    assert loudness_lufs(Stem(sound, rate)) == pytest.approx(
        pyloudnorm.Meter(rate).integrated_loudness(sound), abs=0.02
    )


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
    assert np.corrcoef(made.samples[:][:, 0], truth)[0, 1] > 0.8


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
