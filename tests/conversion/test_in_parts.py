"""Long recordings in parts and stereo by channel: the same as the whole, in little memory."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile

from converters import Whistler
from rvc_core.audio.mixing import read_stem
from rvc_core.audio.waveform import Audio, read_audio
from rvc_core.conversion import in_parts
from rvc_core.conversion.convert import Converter, convert_to_file
from rvc_core.conversion.in_parts import convert_in_parts
from rvc_core.errors import AudioError, SettingsError
from rvc_core.settings import ConvertSettings
from rvc_core.voice import Voice
from synth import phrase

Make = Callable[..., Converter]
ROOT = Path(__file__).parents[2]


def _settings(**changes: object) -> ConvertSettings:
    return ConvertSettings.of(**{"transpose": 0, "f0_method": "dio", "rms_mix_rate": 0.25, **changes})


@pytest.fixture
def short_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(in_parts, "_PART_SECONDS", 6)


@pytest.mark.parametrize("rate", [16_000, pytest.param(22_050, marks=pytest.mark.slow)])
def test_parts_equal_the_whole(make: Make, tmp_path: Path, short_parts: None, rate: int) -> None:
    """Noise and phase go on; the difference is below -60 dB, except where the network hears a whole window."""
    source = tmp_path / "long.wav"
    Audio(phrase(3, seconds=16.5, sample_rate=rate).samples, rate).save(source, depth="32")
    converter = make(local=True)
    whole = convert_to_file(converter, read_audio(source), tmp_path / "a.wav", _settings(output_depth="32"))
    parts = convert_in_parts(converter, source, tmp_path / "b.wav", _settings(output_depth="32"))
    one, other = (read_audio(Path(made.output)).samples for made in (whole, parts))
    assert len(one) == len(other) and parts.seconds == pytest.approx(16.5)
    assert 10 * np.log10(np.mean((one - other) ** 2) / np.mean(one**2)) < -60
    assert not len(parts.audio.samples) and parts.sanity["seconds_difference"] == 0


def test_what_belongs_to_the_whole_is_the_same_in_each_part(make: Make, tmp_path: Path, short_parts: None) -> None:
    """Transposition, key and loudness: a quiet and a loud half, two octaves apart."""
    quiet, loud = phrase(1, 110, seconds=9.0).samples * 0.1, phrase(2, 220, seconds=9.0).samples
    source = tmp_path / "long.wav"
    Audio(np.concatenate([quiet, loud]).astype(np.float32), 16_000).save(source)
    converter = make(f0_median_hz=300.0)
    converter._synthesizer = Whistler()
    wanted = _settings(transpose="auto", autotune=0.5, loudness_lufs=-23, rms_mix_rate=0.0, output_depth="32")
    made = convert_in_parts(converter, source, tmp_path / "out.wav", wanted)
    samples = read_audio(made.output).samples
    assert made.transpose in range(4, 17) and made.key
    import pyloudnorm

    assert pyloudnorm.Meter(16_000).integrated_loudness(samples.astype(np.float64)) == pytest.approx(-23, abs=0.7)
    levels = [20 * np.log10(samples[16_000 * 2 :][: 16_000 * 6].std() / samples[16_000 * 11 :][: 16_000 * 6].std())]
    assert levels[0] == pytest.approx(-20, abs=2)


@pytest.mark.parametrize("suffix", ["wav", "flac", "mp3"])
def test_each_channel_is_converted_by_itself(make: Make, tmp_path: Path, suffix: str) -> None:
    left, right = phrase(1, seconds=4.0).samples, phrase(2, 220, seconds=4.0).samples
    source = tmp_path / "wide.wav"
    soundfile.write(source, np.stack([left, right], axis=1), 16_000, subtype="FLOAT")
    converter = make()
    settings = _settings(channels="each", output_format=suffix)
    made = Voice(tmp_path / "v.pth", converter, "", []).convert(source, settings, output=tmp_path / f"out.{suffix}")
    if suffix == "mp3":
        assert read_audio(made.output).seconds == pytest.approx(4, abs=0.15)
        return
    both = read_stem(Path(made.output)).samples
    assert both.shape == (64_000, 2)
    for channel, own in enumerate((left, right)):
        alone = converter.convert(Audio(own, 16_000), _settings()).audio.samples
        np.testing.assert_allclose(both[:, channel] / both[:, channel].std(), alone / alone.std(), atol=5e-3)
    assert np.abs(both).max() <= 0.9901  # one gain for both, so that the sides stay in balance


def test_a_silent_channel_and_a_mono_file_are_no_special_case(make: Make, tmp_path: Path) -> None:
    sound = phrase(1, seconds=3.0).samples
    for name, channels in (("half", [sound, 0 * sound]), ("mono", [sound])):
        soundfile.write(tmp_path / f"{name}.wav", np.stack(channels, axis=1), 16_000)
        made = convert_in_parts(
            make(), tmp_path / f"{name}.wav", tmp_path / f"{name}_out.wav", _settings(channels="each")
        )
        both = read_stem(Path(made.output)).samples
        assert both.shape == (48_000, len(channels)) and both[:, 0].std() > 1e-3
        assert name == "mono" or not both[:, 1].any()


def test_a_curve_is_not_cut_into_parts(make: Make, tmp_path: Path) -> None:
    Audio(phrase(1, seconds=1.0).samples, 16_000).save(tmp_path / "a.wav")
    voice, settings = (
        Voice(tmp_path / "v.pth", make(), "", []),
        _settings(channels="each", f0_method="auto", f0_curve="a.csv"),
    )
    with pytest.raises(SettingsError, match="of one channel"):
        voice.convert(tmp_path / "a.wav", settings, output=tmp_path / "b.wav")


def test_channels_that_cancel_out_are_heard(make: Make, tmp_path: Path) -> None:
    sound = phrase(1, seconds=3.0).samples
    soundfile.write(tmp_path / "a.wav", np.stack([sound, -sound], axis=1), 16_000)
    made = convert_in_parts(make(), tmp_path / "a.wav", tmp_path / "b.wav", _settings())
    assert made.sanity["rms_db"] > -40


def test_long_pauses_and_silence(make: Make, tmp_path: Path, short_parts: None) -> None:
    sound = phrase(1, seconds=4.0).samples
    soundfile.write(tmp_path / "a.wav", np.concatenate([sound, np.zeros(16_000 * 16), sound]), 16_000)
    made = convert_in_parts(make(), tmp_path / "a.wav", tmp_path / "b.wav", _settings(gate_db=-50))
    samples = read_audio(made.output).samples
    assert len(samples) == 24 * 16_000 and not samples[16_000 * 6 : 16_000 * 18].any()
    soundfile.write(tmp_path / "c.wav", np.zeros(16_000 * 5), 16_000)
    with pytest.raises(AudioError, match="silent"):
        convert_in_parts(make(), tmp_path / "c.wav", tmp_path / "d.wav", _settings())
    assert not (tmp_path / "d.wav").exists() and not list(tmp_path.glob(".part-*"))


@pytest.mark.slow
def test_an_hour_takes_the_memory_of_three_minutes() -> None:
    """In processes of their own, with the package's encoder and FCPE."""
    call = [sys.executable, str(ROOT / "benchmarks" / "convert.py"), "--memory", "3", "60", "--json"]
    lines = subprocess.run(call, capture_output=True, text=True, check=True).stdout.splitlines()
    short, long = (json.loads(line)["peak_mb"] for line in lines[-2:])
    assert long < 1.2 * short
