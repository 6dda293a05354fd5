"""Conversion: windows that do not show, options that do what they say, results that are measured."""

import errno
import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import av
import numpy as np
import pytest
import soundfile
import torch

from converters import Bands, Spy, Whistler
from rvc_core import presets
from rvc_core.audio import waveform
from rvc_core.audio.waveform import Audio, read_audio
from rvc_core.conversion import convert as module
from rvc_core.conversion import windows as windowing
from rvc_core.conversion.convert import Converter, ConvertResult, convert_to_file, mix_loudness
from rvc_core.conversion.source import source_pitch
from rvc_core.conversion.windows import join_pieces, plan_windows
from rvc_core.errors import AudioError, MismatchError, SettingsError, StorageError
from rvc_core.features.pitch import pitch_estimator, write_curve
from rvc_core.features.retrieval import FeatureIndex
from rvc_core.nn.synthesizer import SynthesisNoise, Synthesizer
from rvc_core.settings import ConvertSettings, IndexSettings
from rvc_core.voice import Voice
from synth import phrase
from tiny import TINY


def _speech(seconds: float = 2.0, seed: int = 1) -> Audio:
    return Audio(phrase(seed, seconds=seconds).samples, 16000)


def _settings(**changes: object) -> ConvertSettings:
    return ConvertSettings.of(**{"transpose": 0, "f0_method": "dio", "rms_mix_rate": 1.0, **changes})


@pytest.mark.parametrize("seconds", [0.01, 0.3, 9.99, 10, 14.9, 15.1, 37.77, 200])
def test_windows_cover_the_source_once_and_overlap_by_the_fade(seconds: float) -> None:
    windows = plan_windows(round(seconds * 16000))
    assert windows[0].gives[0] == windowing.CONTEXT_FRAMES
    for before, after in zip(windows, windows[1:], strict=False):
        assert before.gives[1] - after.gives[0] == windowing.FADE_FRAMES
    assert windows[-1].gives[1] - windowing.CONTEXT_FRAMES >= seconds * 100
    for window in windows:
        assert window.reads[0] <= window.gives[0] and window.gives[1] <= window.reads[1]
        assert window.reads[0] % 2 == 0
        assert window.reads[1] - window.reads[0] <= 1.5 * windowing.WINDOW_FRAMES + 2 * windowing.CONTEXT_FRAMES + 2


@pytest.mark.parametrize(("at_once", "fitting"), [(1, 1), (2, 2), (4, 4), (4, 1)])
def test_windows_equal_the_whole(
    at_once: int, fitting: int, make: Callable[..., Converter], monkeypatch: pytest.MonkeyPatch
) -> None:
    source, settings, computed = _speech(13.0), _settings(), list[int]()
    converter = make(local=True)
    infer = converter._synthesizer.infer

    def limited(content: torch.Tensor, *rest: object, **named: object) -> torch.Tensor:
        computed.append(len(content))
        if len(content) > fitting:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return infer(content, *rest, **named)

    monkeypatch.setattr(converter._synthesizer, "infer", limited)
    monkeypatch.setattr(converter, "_at_once", at_once)
    monkeypatch.setattr(windowing, "WINDOW_FRAMES", 200)
    pieces = converter.convert(source, settings).audio.samples
    assert len(plan_windows(len(source.samples))) > 5 and max(computed) == at_once
    assert converter._at_once == fitting, "what did not fit is not tried again"
    noise = module.frame_noise(0, 2000, TINY.inter_channels + 160, settings.seed)
    monkeypatch.setattr(module, "frame_noise", lambda start, stop, channels, seed: noise[start:stop])
    monkeypatch.setattr(windowing, "WINDOW_FRAMES", 2000)
    assert len(plan_windows(len(source.samples))) == 1
    whole = converter.convert(source, settings).audio.samples
    assert np.mean((pieces - whole) ** 2) < 1e-6 * np.mean(whole**2)  # -60 dB; on some machines there is no difference


@pytest.mark.parametrize("name", ["v2-32k", "v2-40k", "v2-48k"])
def test_the_decoder_hears_no_more_than_the_frames_that_it_is_given(name: str) -> None:
    """What is not decoded changes nothing: RVC's architectures with narrow layers."""
    narrow = {"upsample_channels": 64, "inter_channels": 16, "hidden_channels": 16, "filter_channels": 32, "layers": 1}
    spec = replace(presets.PRESETS[name], content_width=8, **narrow)
    torch.manual_seed(1)
    network, frames, first, last = Synthesizer(spec, with_posterior=False).eval(), 80, 20, 60
    content, coarse = torch.randn(1, frames, 8), torch.full((1, frames), 80)
    f0_hz, noise = torch.full((1, frames), 180.0), SynthesisNoise.draw(spec, frames)
    phase = torch.zeros(1, dtype=torch.float64)
    speaker, hop, margin = torch.tensor([0]), spec.hop_samples, module._DECODER_FRAMES
    noise = replace(noise, phase=phase)
    whole = network.infer(content, coarse, f0_hz, speaker, noise=noise)
    begin, end = first - margin, last + margin
    part = replace(
        noise, source=noise.source[..., begin * hop : end * hop], phase=phase + begin * 1.8 % 1, decoded=(begin, end)
    )
    made = network.infer(content, coarse, f0_hz, speaker, noise=part)
    expected = whole[..., first * hop : last * hop]
    difference = (made[..., margin * hop : -margin * hop] - expected).abs().max()
    assert difference < 1e-4 * expected.abs().max()


def test_a_curve_stands_in_for_the_estimate(make: Callable[..., Converter], tmp_path: Path) -> None:
    converter, source, file = make(), _speech(3.0), tmp_path / "curve.csv"
    track = source_pitch(source, "dio")
    write_curve(file, track)
    estimated = converter.convert(source, _settings(transpose="auto"))
    drawn = converter.convert(source, _settings(transpose="auto", f0_curve=str(file)))
    assert (estimated.f0_method, drawn.f0_method, drawn.warnings) == ("dio", "curve", [])
    padded = module.padded_with_context(module.prepared(source))
    heard, read = (converter._pitch(padded, _settings(f0_curve=curve))[0] for curve in ("", str(file)))
    assert len(heard.f0_hz) == len(read.f0_hz) and (heard.voiced != read.voiced).mean() < 0.02
    both = heard.voiced & read.voiced
    assert np.median(np.abs(heard.f0_hz[both] - read.f0_hz[both])) < 0.01
    file.write_text("0,300\n1.5,300\n")
    with_line = converter.convert(source, _settings(f0_curve=str(file)))
    assert "1.5 s long, the recording 3.0 s" in with_line.warnings[0]
    assert (with_line.audio.samples != drawn.audio.samples).mean() > 0.5


def _strongest_hz(samples: np.ndarray, rate_hz: int) -> float:
    spectrum = np.abs(np.fft.rfft(samples * np.hanning(len(samples)), 1 << 18))
    return float(spectrum.argmax() * rate_hz / (1 << 18))


def test_a_drawn_pitch_is_sung_as_drawn(make: Callable[..., Converter], tmp_path: Path) -> None:
    converter, file = make(f0_median_hz=105.0), tmp_path / "curve.csv"
    converter._synthesizer = Whistler()
    file.write_text("0,200\n2,200\n")
    for transpose, expected in (("auto", 200), (0, 200), (12, 400)):
        made = converter.convert(_speech(), _settings(transpose=transpose, f0_curve=str(file)))
        assert _strongest_hz(made.audio.samples[4000:-4000], 16000) == pytest.approx(expected, rel=0.005)
    assert converter.convert(_speech(), _settings(transpose="auto")).transpose != 0


@pytest.mark.parametrize("method", ["dio", "crepe", "harvest"])
def test_whistle_register_leaves_no_hole_and_is_named(make: Callable[..., Converter], method: str) -> None:
    converter, time = make(), np.arange(48000) / 16000
    converter._synthesizer = Whistler()
    sound = 0.2 * np.sin(2 * np.pi * np.where(time < 1, 600, 1250) * time).astype(np.float32)
    made = converter.convert(Audio(sound, 16000), _settings(f0_method=method))
    assert _strongest_hz(made.audio.samples[20000:44000], 16000) == pytest.approx(625, rel=0.01)
    assert any("2.0 s are above 1100 Hz" in line for line in made.warnings)
    levels = np.abs(made.audio.samples[16400:-2000]).reshape(-1, 400).max(1)
    assert levels.min() > 0.25 * np.median(levels)


@pytest.mark.parametrize("rate_hz", [8000, 16000, 22050, 44100, 48000])
@pytest.mark.parametrize("kind", ["offset", "hum", "both"])
def test_an_offset_or_a_hum_makes_no_click(rate_hz: int, kind: str) -> None:
    """The ends of a recording are as quiet as its pauses, and its length stays to the sample."""
    time = np.arange(round(2.5 * rate_hz)) / rate_hz
    pause = 3e-5 * np.random.default_rng(0).standard_normal(len(time))
    speech = 0.2 * np.sin(2 * np.pi * 300 * time) * ((time > 1.0) & (time < 1.5))
    unwanted = 0.05 * (kind != "hum") + 0.03 * np.sin(2 * np.pi * 12 * time + 1) * (kind != "offset")
    made = module.prepared(Audio((pause + speech + unwanted).astype(np.float32), rate_hz))
    assert len(made) == 40000
    rest = np.abs(made[8000:14000]).max()
    assert max(np.abs(made[:1600]).max(), np.abs(made[-1600:]).max()) < max(3 * rest, 5e-4)
    clean = module.prepared(Audio((pause + speech).astype(np.float32), rate_hz))
    assert np.abs(made - clean)[1600:-1600].max() < 2e-3


def test_quiet_sources_keep_their_voicing_and_hiss_is_the_sources_fault(make: Callable[..., Converter]) -> None:
    loud = _speech(3.0)
    voiced = source_pitch(loud, "dio").voiced
    for level_db in (-36, -46, -56):
        gain = 10 ** (level_db / 20) / np.sqrt(np.mean(loud.samples**2))
        quiet = Audio((gain * loud.samples).astype(np.float32), 16000)
        assert (source_pitch(quiet, "dio").voiced != voiced).mean() < 0.01
    hiss = Audio((1.8e-4 * np.random.default_rng(0).standard_normal(32000)).astype(np.float32), 16000)
    assert abs(make().convert(hiss, _settings(rms_mix_rate=0)).seconds - 2) < 0.01
    with pytest.raises(AudioError, match="the recording is too quiet: -75 dB"):
        module.check_sanity(Audio(0.3 * hiss.samples, 16000), hiss)
    with pytest.raises(AudioError, match="the result is silent"):
        module.check_sanity(Audio(0.3 * hiss.samples, 16000), loud[:2.0])


def test_numbers_that_are_no_levels_are_converted_and_named(make: Callable[..., Converter]) -> None:
    """Float files that hold whole numbers sound the same as what they mean."""
    plain = _speech(2.0)
    plain = Audio(plain.samples / np.abs(plain.samples).max() * np.float32(0.95), 16000)
    numbers = Audio(plain.samples * np.float32(32768), 16000)
    made = [make().convert(source, _settings(rms_mix_rate=1)) for source in (plain, numbers)]
    assert np.abs(made[0].audio.samples - made[1].audio.samples).max() < 0.01
    said = [[line for line in one.warnings if "full scale" in line] for one in made]
    assert not said[0] and len(said[1]) == 1 and "s beyond" in said[1][0] and "32768" in said[1][0]


def test_a_curve_needs_a_voice_that_follows_pitch(make: Callable[..., Converter], tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="does not use pitch"):
        make(spec=replace(TINY, uses_f0=False)).convert(_speech(), _settings(f0_curve=str(tmp_path / "curve.csv")))


@pytest.mark.parametrize("likeness", [0.0, 0.5, 1.0])
def test_a_fade_keeps_the_power_whatever_the_two_sides_have_in_common(likeness: float) -> None:
    random = np.random.default_rng(0)
    shared, left, right = random.standard_normal((3, 300_000)).astype(np.float32)
    mixed = [np.sqrt(likeness) * shared + np.sqrt(1 - likeness) * own for own in (left, right)]
    fade = 200_000
    joined = join_pieces([piece[:fade].astype(np.float32) for piece in mixed], fade)
    power_db = 10 * np.log10([np.mean(part**2) for part in np.split(joined, 10)])
    assert len(joined) == fade and np.abs(power_db).max() < 0.15


@pytest.mark.parametrize("rate", [8000, 16000, 44100, 48000])
def test_the_result_is_as_long_as_the_source(make: Callable[..., Converter], rate: int) -> None:
    source = Audio(phrase(1, seconds=1.2345, sample_rate=rate).samples, rate)
    result = make().convert(source, _settings())
    assert abs(result.audio.seconds - source.seconds) <= 1 / 16000 and result.real_time_factor > 0


def test_nothing_below_the_voice_comes_out(make: Callable[..., Converter]) -> None:
    """A decoder's bias is a constant pressure: silence would start with a thump."""
    converter = make()

    class Biased(Whistler):
        def infer(self, *arguments: object, **options: object) -> torch.Tensor:
            return super().infer(*arguments, **options) + 0.1

    converter._synthesizer = Biased()
    made = converter.convert(_speech(3.0), _settings()).audio.samples
    assert abs(made[8000:-8000].mean()) < 1e-4 and made.std() > 0.05


def test_the_pitch_follows_the_transposition(make: Callable[..., Converter]) -> None:
    source = _speech(3.0)
    converter = make(f0_median_hz=240.0)
    converter._synthesizer = Whistler()
    estimate = pitch_estimator("dio")
    original = estimate(source.samples)
    for asked, expected in ((0, 0), (7, 7), (-12, -12), ("auto", round(12 * np.log2(240 / original.median_hz)))):
        result = converter.convert(source, _settings(transpose=asked))
        made = estimate(result.audio.samples).fitted(len(original.f0_hz))
        both = made.voiced & original.voiced
        semitones = np.median(12 * np.log2(made.f0_hz[both] / original.f0_hz[both]))
        assert result.transpose == expected and abs(semitones - expected) < 0.1


def test_a_voice_without_a_known_pitch_says_so(make: Callable[..., Converter]) -> None:
    result = make().convert(_speech(), _settings(transpose="auto"))
    assert result.transpose == 0 and "Set `transpose`" in result.warnings[0]


def test_same_seed_same_audio_other_seed_other_audio(make: Callable[..., Converter]) -> None:
    converter, source = make(), _speech()
    first, again, other = (converter.convert(source, _settings(seed=seed)).audio.samples for seed in (0, 0, 1))
    assert np.array_equal(first, again) and not np.allclose(first, other)


@pytest.mark.parametrize(
    "change",
    [
        {"index_rate": 0.0},
        {"protect": 0.0},
        {"noise_scale": 0.0},
        {"speaker": 1},
        {"transpose": 3},
        {"rms_mix_rate": 0.0},
    ],
)
def test_every_option_changes_the_result(make: Callable[..., Converter], change: dict[str, object]) -> None:
    source = _speech()
    features = np.random.default_rng(0).standard_normal((200, 8)).astype(np.float32) * 3
    converter = make(index=FeatureIndex.build(features, IndexSettings()))
    plain, changed = (converter.convert(source, _settings(**options)).audio.samples for options in ({}, change))
    assert np.abs(plain - changed).max() > 1e-5


def _content(converter: Converter, source: Audio, **options: object) -> np.ndarray:
    """What the synthesizer is given for one window."""
    converter._synthesizer = spy = Spy(converter._synthesizer)
    converter.convert(source, _settings(**options))
    converter._synthesizer = spy.inside
    return spy.content


def test_index_rate_moves_content_to_the_index_and_protect_keeps_it_where_nothing_is_voiced(
    make: Callable[..., Converter],
) -> None:
    source, everywhere = _speech(), 7.0
    converter = make(index=FeatureIndex.build(np.full((50, 8), everywhere, np.float32), IndexSettings()))
    own, half, moved, protected = (
        _content(converter, source, index_rate=rate, protect=protect)
        for rate, protect in ((0.0, 0.5), (0.5, 0.5), (1.0, 0.5), (1.0, 0.0))
    )
    padded = module.padded_with_context(module.prepared(source))
    voiced = pitch_estimator("dio")(padded).voiced[: len(own)]
    assert 20 < voiced.sum() < len(own) - 20
    hand = np.repeat(Bands()(padded), 2, axis=0)
    np.testing.assert_allclose(own[:-8], hand[: len(own) - 8], atol=1e-5)
    np.testing.assert_allclose(half, (own + everywhere) / 2, atol=1e-4)
    np.testing.assert_allclose(moved, everywhere, atol=1e-4)
    np.testing.assert_allclose(protected[voiced], everywhere, atol=1e-4)
    np.testing.assert_allclose(protected[~voiced], own[~voiced], atol=1e-5)


def test_without_noise_the_prior_is_the_same_for_every_seed(make: Callable[..., Converter]) -> None:
    converter, source = make(spec=replace(TINY, uses_f0=False)), _speech()  # with f0, the excitation is random too
    silent, other = (converter.convert(source, _settings(seed=seed, noise_scale=0)).audio.samples for seed in (0, 1))
    assert np.array_equal(silent, other)
    little, much = (converter.convert(source, _settings(noise_scale=scale)).audio.samples for scale in (0.1, 1.0))
    assert 0 < np.abs(little - silent).mean() < np.abs(much - silent).mean()


def test_a_speaker_is_its_row_of_the_table_and_nothing_else(make: Callable[..., Converter]) -> None:
    converter, source = make(same_speakers=(0, 2)), _speech()
    first, second, third = (converter.convert(source, _settings(speaker=speaker)).audio.samples for speaker in range(3))
    assert np.array_equal(first, third) and not np.allclose(first, second)


def test_a_voice_of_an_unknown_encoder_is_refused_by_name(make: Callable[..., Converter]) -> None:
    for known in ("", "contentvec", "hubert_base", "embedded"):
        make(content_name=known)
    with pytest.raises(MismatchError, match="japanese-hubert-base") as caught:
        make(content_name="japanese-hubert-base")
    assert "contentvec" in caught.value.hint


def test_protect_gives_unvoiced_frames_their_own_features_back() -> None:
    mixed, original = np.full((4, 2), 10.0, np.float32), np.zeros((4, 2), np.float32)
    voiced = np.array([True, False, True, False])
    protected = module.protect_consonants(mixed, original, voiced, 0.1)
    assert protected[:, 0].tolist() == pytest.approx([10, 1, 10, 1])


def test_loudness_follows_the_source_at_0_and_the_voice_at_1() -> None:
    time = np.arange(64000) / 16000
    swelling = (np.sin(2 * np.pi * 200 * time) * np.linspace(0.05, 0.8, 64000)).astype(np.float32)
    steady = (0.3 * np.sin(2 * np.pi * 300 * time)).astype(np.float32)
    made, source = Audio(steady, 16000), Audio(swelling, 16000)
    assert mix_loudness(made, source, 1.0) is made
    followed = mix_loudness(made, source, 0.0).samples
    for second in (1, 2):
        part = slice(second * 16000, (second + 1) * 16000)
        assert np.std(followed[part]) == pytest.approx(np.std(swelling[part]), rel=0.1)


def test_what_cannot_be_converted_is_refused_with_a_hint(make: Callable[..., Converter]) -> None:
    converter = make()
    with pytest.raises(AudioError, match="silent"):
        converter.convert(Audio(np.zeros(16000, np.float32), 16000), _settings())
    with pytest.raises(SettingsError) as caught:
        converter.convert(_speech(), _settings(speaker=4))
    assert "0 to 3" in caught.value.hint
    foreign = FeatureIndex.build(np.ones((50, 5), np.float32), IndexSettings())
    with pytest.raises(MismatchError, match="5"):
        make(index=foreign)
    with pytest.raises(MismatchError, match="another embedded encoder"):
        make(content_identity="somebody else's")


def test_unvoiced_sources_whisper_and_say_so(make: Callable[..., Converter]) -> None:
    noise = Audio(0.1 * np.random.default_rng(0).standard_normal(24000).astype(np.float32), 16000)
    assert "whisper" in make().convert(noise, _settings()).warnings[0]


def test_a_voice_without_f0_converts(make: Callable[..., Converter]) -> None:
    result = make(spec=replace(TINY, uses_f0=False)).convert(_speech(), _settings())
    assert abs(result.audio.seconds - 2) < 1e-3


@pytest.mark.parametrize(
    "suffix, depth, subtype",
    [
        ("wav", "auto", "PCM_16"),
        ("wav", "24", "PCM_24"),
        ("wav", "32", "FLOAT"),
        ("flac", "auto", "PCM_24"),
        ("flac", "16", "PCM_16"),
        ("ogg", "auto", "VORBIS"),
        ("mp3", "auto", ""),
        ("MP3", "auto", ""),
        ("m4a", "auto", ""),
    ],
)
def test_what_was_written_is_opened_measured_and_tagged(
    make: Callable[..., Converter], tmp_path: Path, suffix: str, depth: str, subtype: str
) -> None:
    converter, output = make(), tmp_path / f"it's «søng» 歌.{suffix}"
    converter._synthesizer = Whistler()
    result = convert_to_file(converter, _speech(), output, _settings(output_depth=depth))
    assert abs(read_audio(Path(result.output)).seconds - 2) < 0.15 and result.sanity["rms_db"] > -30
    assert not subtype or soundfile.info(output).subtype == subtype
    with av.open(str(output)) as container:
        tags = json.dumps([dict(container.metadata), dict(container.streams.audio[0].metadata)])
    assert "converted by rvc_core" in tags


@pytest.mark.parametrize("number", [errno.ENOTCONN, errno.EIO, errno.ESTALE])
def test_a_drive_that_goes_away_in_the_middle_is_one_clear_line(
    number: int, make: Callable[..., Converter], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    drive, gone, stat = tmp_path / "drive", [], os.stat

    def stat_or_fail(path: object, **options: object) -> os.stat_result:
        if gone and str(path).startswith(str(drive)):
            raise OSError(number, os.strerror(number), str(path))
        return stat(path, **options)

    monkeypatch.setattr(os, "stat", stat_or_fail)
    for name in ("a", "b", "c"):
        _speech().save(drive / f"{name}.wav")
    voice = Voice(tmp_path / "v.pth", make(), "", [])
    convert = voice.converter.convert

    def convert_and_lose(audio: Audio, *rest: object, **options: object) -> ConvertResult:
        made = convert(audio, *rest, **options)
        gone.append(len(gone)) if (drive / "out" / "a_v.wav").exists() else None
        return made

    monkeypatch.setattr(voice.converter, "convert", convert_and_lose)
    inputs = [drive / f"{name}.wav" for name in "abc"]
    first, *others = voice.convert_all(inputs, drive / "out", _settings())
    assert first.output == str(drive / "out" / "a_v.wav")
    for failed, path in zip(others, (drive / "out" / "b_v.wav", inputs[2]), strict=True):
        assert failed.error == f"{path} cannot be reached: its storage went away" and "run Begin" in failed.hint

    def fail(path: object) -> None:
        raise OSError(number, os.strerror(number), str(path))

    gone.clear()
    monkeypatch.setattr(voice.converter, "convert", convert)
    monkeypatch.setattr(waveform, "replace_atomically", fail)
    [failed] = voice.convert_all(inputs[:1], tmp_path / "full", _settings())
    assert failed.error == f"{tmp_path / 'full' / 'a_v.wav'} cannot be reached: its storage went away"
    number = errno.ENOSPC
    [failed] = voice.convert_all(inputs[:1], tmp_path / "full", _settings())
    assert failed.error.startswith("No space left on device: /") and "is full: free some space" in failed.hint
    number, _ = errno.ENOTCONN, gone.append(1)
    for lost in (lambda: read_audio(inputs[0]), lambda: _speech().save(drive / "d.wav")):
        with pytest.raises(StorageError, match="its storage went away"):
            lost()


def test_an_output_that_is_not_what_was_made_is_removed(
    make: Callable[..., Converter], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Audio, "save", lambda self, path, **_: path.write_bytes(b"torn"))
    with pytest.raises(AudioError):
        convert_to_file(make(), _speech(), tmp_path / "out.wav", _settings())
    assert not (tmp_path / "out.wav").exists()


@pytest.mark.parametrize("suffix", ["wav", "flac", "ogg", "mp3", "m4a"])
def test_a_result_never_takes_the_place_of_another(suffix: str, make: Callable[..., Converter], tmp_path: Path) -> None:
    output, source = tmp_path / f"song_v.{suffix}", tmp_path / "song.wav"
    _speech().save(source)
    voice = Voice(tmp_path / "v.pth", make(), "", [])
    first = voice.convert(source, _settings(), output=output)
    again = voice.convert(source, _settings(), output=output)
    assert first.output == again.output == str(output) and not again.warnings
    before = output.read_bytes()
    other = voice.convert(source, _settings(transpose=5), output=output)
    assert Path(other.output).name == f"song_v (2).{suffix}" and output.read_bytes() == before
    assert "was kept" in other.warnings[0] and Path(other.output).is_file()
    _speech(seed=2).save(source)  # another song of this name
    [third] = voice.convert_all([source], tmp_path, _settings(output_format=suffix))
    assert Path(third.output).name == f"song_v (3).{suffix}" and output.read_bytes() == before
    output.write_text("notes")  # of the user
    assert Path(voice.convert(source, _settings(), output=output).output).name != output.name
    assert output.read_text() == "notes"


@pytest.mark.slow
def test_recordings_of_many_lengths_do_not_fill_the_memory(tmp_path: Path) -> None:
    """In a process of its own: after the first twenty, memory stays."""
    code = """
import sys
import numpy as np, torch
from pathlib import Path
from rvc_core.audio.waveform import Audio
from rvc_core.nn.synthesizer import SynthesisNoise, Synthesizer
from rvc_core.presets import preset
from rvc_core.settings import ConvertSettings, RuntimeSettings
from rvc_core.voice import Voice
from rvc_core.workspace.voice_file import VoiceFile, VoiceInfo, save_voice

spec, path = preset("nano"), Path(sys.argv[1])
save_voice(path, VoiceFile(spec, Synthesizer(spec).state_dict(), VoiceInfo("a", 1, 2, "embedded")))
voice, random = Voice.load(path, None, runtime=RuntimeSettings(threads=1)), np.random.default_rng(0)
sound = random.uniform(-0.1, 0.1, 120_000).astype(np.float32)
for number in range(100):
    part = Audio(sound[: random.integers(24_000, 120_000)], 16_000)
    voice.convert(part, ConvertSettings.of(f0_method="dio", transpose=0))
    if number in (19, 99):
        print(int(Path("/proc/self/statm").read_text().split()[1]) * 4096 / 1e6)
"""
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "v.pth")], capture_output=True, text=True, check=True
    )
    first, last = map(float, done.stdout.split())
    assert last - first < 45  # MB; 65 to 80 with oneDNN's own number of kernels
