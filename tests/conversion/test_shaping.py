"""Formants, autotune, gate, loudness, blend: each changes what it says, by as much as it says, and nothing else."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyloudnorm
import pytest

from converters import Whistler
from rvc_core.audio.waveform import Audio
from rvc_core.conversion import shaping
from rvc_core.conversion.convert import Converter
from rvc_core.errors import AudioError, MismatchError, SettingsError
from rvc_core.features.pitch import PitchTrack, pitch_estimator
from rvc_core.settings import ConvertSettings
from rvc_core.workspace.voice_file import load_voice, save_voice
from synth import _VOWELS_HZ, SPEAKERS, Speaker, phrase, vowel
from tiny import TINY

RATE = 16_000
Make = Callable[..., Converter]


def _settings(**changes: object) -> ConvertSettings:
    return ConvertSettings.of(**{"transpose": 0, "f0_method": "dio", "rms_mix_rate": 1.0, **changes})


def _vowel(number: int, f0_hz: float, formant_scale: float) -> np.ndarray:
    pitch = np.full(RATE, f0_hz)
    voice = Speaker(formant_scale, SPEAKERS[0].tilt_db_per_octave, f0_hz)
    return vowel(pitch, 2 * np.pi * np.cumsum(pitch) / RATE, _VOWELS_HZ[[number, number]], voice, RATE)


def _harmonics_db(samples: np.ndarray, f0_hz: float) -> np.ndarray:
    """Levels of the harmonics below 4 kHz."""
    spectrum = np.abs(np.fft.rfft(samples[4000:12000] * np.hanning(8000)))
    centres = (np.arange(1, int(4000 / f0_hz)) * f0_hz * 0.5).astype(int)
    return 20 * np.log10([spectrum[centre - 4 : centre + 5].max() for centre in centres])


@pytest.mark.parametrize("semitones", [-4, 4])
@pytest.mark.parametrize("f0_hz", [120.0, 220.0])
def test_formants_move_by_the_stated_factor_and_pitch_and_length_stay(f0_hz: float, semitones: int) -> None:
    """The truth: the same vowel spoken by a vocal tract of the other length."""
    track = PitchTrack(np.full(100, f0_hz, np.float32), np.ones(100, bool))
    apart, before = [], []
    for number in (0, 2, 3):
        source, truth = (_vowel(number, f0_hz, scale) for scale in (1.0, 2 ** (semitones / 12)))
        made = shaping.shift_formants(source.astype(np.float32), track, semitones)
        assert len(made) == len(source)
        assert pitch_estimator("dio")(made).median_hz == pytest.approx(f0_hz, rel=0.005)
        own, moved, wanted = (_harmonics_db(samples, f0_hz) for samples in (source, made, truth))
        apart.append((moved - wanted).std())
        before.append((own - wanted).std())
    assert np.mean(apart) < 0.5 * np.mean(before)  # 1.7 to 3.5 dB, 7.9 to 9.8 before
    assert shaping.shift_formants(source, track, 0) is source


def test_formants_change_what_the_voice_is_given_and_not_its_pitch(make: Make) -> None:
    converter, source = make(), Audio(phrase(1, seconds=2.0).samples, RATE)
    plain, moved = (converter.convert(source, _settings(formant_semitones=shift)).audio.samples for shift in (0, 4))
    assert np.abs(plain - moved).max() > 1e-3 and len(plain) == len(moved)
    converter._synthesizer = Whistler()
    plain, moved = (converter.convert(source, _settings(formant_semitones=shift)).audio.samples for shift in (0, 4))
    assert np.abs(plain - moved).max() < 1e-3


# -- autotune ------------------------------------------------------------------------------------------------------
def _off_key(f0_hz: np.ndarray, key: str) -> float:
    """Mean distance to the nearest note of the key, in semitones."""
    notes = 69 + 12 * np.log2(f0_hz / 440)
    return float(np.abs((notes[:, None] - shaping.notes_of(key) + 6) % 12 - 6).min(1).mean())


def test_autotune_moves_the_pitch_to_the_scale_by_its_strength(make: Make) -> None:
    """What is heard, not only what is asked for: a slow glide over an octave."""
    time = np.arange(3 * RATE) / RATE
    pitch = 220 * 2 ** (time / 3)
    source = Audio((0.2 * np.sin(2 * np.pi * np.cumsum(pitch) / RATE)).astype(np.float32), RATE)
    converter, off = make(), {}
    converter._synthesizer = Whistler()
    for strength in (0, 0.5, 1):
        made = converter.convert(source, _settings(autotune=strength, key="C"))
        track = pitch_estimator("dio")(made.audio.samples)
        off[strength] = _off_key(track.f0_hz[20:-20][track.voiced[20:-20]], "C")
        assert made.key == ("C" if strength else "")
    assert off[0] > 0.35 and off[0.5] == pytest.approx(off[0] / 2, rel=0.15) and off[1] < 0.12
    assert track.median_hz == pytest.approx(311, rel=0.06)


def test_autotune_keeps_the_note_of_a_vibrato_and_leaves_unvoiced_frames(make: Make) -> None:
    steps = np.arange(300) / 100
    f0_hz = (440 * 2 ** ((0.3 + 0.4 * np.sin(2 * np.pi * 5.5 * steps)) / 12)).astype(np.float32)  # A, up to A sharp
    f0_hz[100:120] = 0
    tuned = shaping.autotuned(PitchTrack(f0_hz, f0_hz > 0), 1.0, "chromatic")
    assert (tuned.f0_hz[100:120] == 0).all() and tuned.voiced.sum() == 280
    assert np.abs(12 * np.log2(tuned.f0_hz[tuned.voiced] / 440)).max() < 0.02


@pytest.mark.parametrize("key", ["C", "F#", "A#", "Am", "Fm", "C#m"])
def test_the_key_is_found_in_a_melody(key: str) -> None:
    """Melodies as people write them: up and down the scale, home on the tonic, rests on the triad."""
    degrees = [0, 1, 2, 3, 4, 4, 2, 0, 5, 4, 3, 2, 4, 1, 2, 0, 0, 4, 0]
    is_minor = key.endswith("m")
    scale = (0, 2, 3, 5, 7, 8, 10) if is_minor else (0, 2, 4, 5, 7, 9, 11)
    tonic = ("C", "C#", "D", "D#", "E", "F", "F#", "G", "G#", "A", "A#", "B").index(key.removesuffix("m"))
    notes = np.repeat([48 + tonic + scale[degree] for degree in degrees], 30)
    trembling = notes + 0.3 * np.sin(np.arange(len(notes)) / 3)
    assert shaping.key_of((440 * 2 ** ((trembling - 69) / 12)).astype(np.float32)) == key


def test_keys_may_be_written_with_flats_and_others_are_refused() -> None:
    written = {"Bb": "A#", "Ebm": "D#m", "bb": "A#", "D♭m": "C#m", "f#m": "F#m", "AUTO": "auto"}
    assert {key: _settings(key=key).key for key in written} == written
    for key in ("H", "Hb", "Cmm", ""):
        with pytest.raises(SettingsError, match=r"`key` must be auto, .*Bb.*Eb.*Dbm"):
            _settings(key=key)


def test_autotune_needs_a_voice_that_follows_pitch(make: Make) -> None:
    with pytest.raises(SettingsError, match="`autotune` has no effect"):
        make(spec=replace(TINY, uses_f0=False)).convert(Audio(phrase(1).samples, RATE), _settings(autotune=1))


# -- gate ----------------------------------------------------------------------------------------------------------
class Hisser:
    """A synthesizer that hisses all the time, as voices breathe in pauses; it counts how often it is asked."""

    asked = 0

    def infer(self, content, coarse, f0_hz, speaker, noise_scale, *, noise):
        self.asked += 1
        return 0.1 * noise.source


def test_the_gate_silences_pauses_and_nothing_else(make: Make) -> None:
    tone = 0.2 * np.sin(2 * np.pi * 200 * np.arange(RATE) / RATE)
    room = 1e-4 * np.random.default_rng(0).standard_normal(3 * RATE)
    source = Audio((room + np.concatenate([tone, 0 * tone, tone])).astype(np.float32), RATE)
    converter = make()
    converter._synthesizer = Hisser()
    plain, made = (converter.convert(source, _settings(gate_db=level)).audio.samples for level in (None, -50))
    pause = slice(round(1.3 * RATE), round(1.9 * RATE))
    assert plain[pause].std() > 0.05 and not made[pause].any()
    for sound in (slice(0, RATE), slice(2 * RATE, 3 * RATE)):
        np.testing.assert_array_equal(made[sound], plain[sound])
    assert np.abs(np.diff(made)).max() <= np.abs(np.diff(plain)).max()  # no click


def test_long_pauses_are_not_even_synthesised(make: Make) -> None:
    sound = phrase(1, seconds=3.0).samples
    source = Audio(np.concatenate([sound, np.zeros(20 * RATE, np.float32), sound]), RATE)
    converter = make()
    counts = []
    for level in (None, -60):
        converter._synthesizer = Hisser()
        converter.convert(source, _settings(gate_db=level))
        counts.append(converter._synthesizer.asked)
    assert counts[0] == 3 and counts[1] == 2


def test_a_gate_above_the_whole_recording_says_so(make: Make) -> None:
    quiet = Audio(phrase(1).samples * np.float32(0.01), RATE)
    with pytest.raises(AudioError, match="whole recording is below `gate_db`, -20 dB") as caught:
        make().convert(quiet, _settings(gate_db=-20))
    assert "lower" in caught.value.hint


# -- loudness ------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("wanted", [-30.0, -23.0, -16.0])
def test_the_result_has_the_loudness_that_was_asked_for(make: Make, wanted: float) -> None:
    converter = make()
    converter._synthesizer = Whistler()
    made = converter.convert(Audio(phrase(1, seconds=4.0).samples, RATE), _settings(loudness_lufs=wanted))
    heard = pyloudnorm.Meter(RATE).integrated_loudness(made.audio.samples.astype(np.float64))
    assert heard == pytest.approx(wanted, abs=0.1) and not made.warnings


def test_loudness_that_peaks_forbid_is_named_and_never_clips() -> None:
    clicks = np.zeros(RATE, np.float32)
    clicks[::2000] = 0.5
    made, warnings = shaping.levelled(Audio(clicks, RATE), -8.0)
    assert np.abs(made.samples).max() == pytest.approx(shaping.PEAK) and "not -8" in warnings[0]
    silent, warnings = shaping.levelled(Audio(0 * clicks, RATE), -8.0)
    assert not silent.samples.any() and not warnings


# -- blend ---------------------------------------------------------------------------------------------------------
def test_a_blend_lies_between_its_voices(make: Make, tmp_path: Path) -> None:
    source = Audio(phrase(1, seconds=2.0).samples, RATE)
    save_voice(tmp_path / "first.pth", make(f0_median_hz=100.0).voice)
    save_voice(tmp_path / "second.pth", make(f0_median_hz=200.0, seed=2).voice)
    first, second = (Converter(load_voice(tmp_path / f"{name}.pth")) for name in ("first", "second"))
    own, other = (one.convert(source, _settings()).audio.samples for one in (first, second))
    blended = {
        share: first.convert(source, _settings(blend_with=str(tmp_path / "second.pth"), blend_share=share))
        for share in (0.0, 0.5, 1.0)
    }
    np.testing.assert_allclose(blended[0.0].audio.samples, own, atol=1e-4)
    np.testing.assert_allclose(blended[1.0].audio.samples, other, atol=2e-3)  # the file holds 16-bit floats
    assert np.abs(blended[0.5].audio.samples - own).max() > 1e-3 < np.abs(blended[0.5].audio.samples - other).max()
    auto = _settings(transpose="auto", blend_with=str(tmp_path / "second.pth"))
    semitones = [
        one.convert(source, auto.model_copy(update=change)).transpose
        for one, change in ((first, {"blend_with": ""}), (first, {}), (second, {"blend_with": ""}))
    ]
    assert semitones[0] + 6 == semitones[1] == semitones[2] - 6


def test_voices_of_different_kinds_are_not_blended(make: Make, tmp_path: Path) -> None:
    save_voice(tmp_path / "own.pth", make().voice)
    save_voice(tmp_path / "other.pth", make(spec=replace(TINY, uses_f0=False)).voice)
    source = Audio(phrase(1, seconds=1.0).samples, RATE)
    with pytest.raises(MismatchError, match="uses_f0 is True in the first, False in the second"):
        Converter(load_voice(tmp_path / "own.pth")).convert(source, _settings(blend_with=str(tmp_path / "other.pth")))
