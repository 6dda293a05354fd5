"""Sound in, sound out: every format people have, and one clear error for what is none."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile

from rvc_core.audio.tracks import mono
from rvc_core.audio.waveform import Audio, NonFiniteError, header_seconds, highpass, read_audio, rms_envelope
from rvc_core.errors import AudioError, RVCError
from torture import encode, extensible_wav, voice


def correlation(first: np.ndarray, second: np.ndarray) -> float:
    """Likeness at the best shift: codecs delay."""
    size = 1 << (len(first) + len(second)).bit_length()
    cross = np.fft.irfft(np.fft.rfft(first, size) * np.conj(np.fft.rfft(second, size)))
    return float(cross.max() / np.linalg.norm(first) / np.linalg.norm(second))


@pytest.mark.parametrize(
    "subtype, tolerance",
    [("PCM_U8", 1 / 127), ("PCM_16", 1e-4), ("PCM_24", 1e-6), ("PCM_32", 1e-7), ("FLOAT", 0), ("DOUBLE", 0)],
)
def test_wav_of_every_width(tmp_path, subtype, tolerance):
    sound = voice(0.5, rate_hz=22_050)
    soundfile.write(tmp_path / "a.wav", sound, 22_050, subtype)
    audio = read_audio(tmp_path / "a.wav")
    assert audio.sample_rate == 22_050 and audio.samples.dtype == np.float32
    np.testing.assert_allclose(audio.samples, sound, atol=tolerance)


def test_extensible_wav(tmp_path):
    sound = voice(0.5)
    (tmp_path / "a.wav").write_bytes(extensible_wav(sound, 24_000))
    np.testing.assert_allclose(read_audio(tmp_path / "a.wav").samples, sound, atol=2e-7)


@pytest.mark.parametrize(
    "name, codec, rate_hz",
    [
        ("a.mp3", "libmp3lame", 44_100),
        ("a.m4a", "aac", 44_100),
        ("a.wma", "wmav2", 44_100),
        ("a.mp4", "aac", 48_000),
        ("a.opus", "libopus", 48_000),
        ("a.mkv", "aac", 48_000),
        ("a.flac", "flac", 32_000),
    ],
)
def test_compressed_formats(tmp_path, name, codec, rate_hz):
    sound = voice(2.0, rate_hz=rate_hz)
    if codec == "flac":
        soundfile.write(tmp_path / name, sound, rate_hz)
    else:
        encode(tmp_path / name, sound, rate_hz, codec, cover=name == "a.mp3", video=name == "a.mp4")
    audio = read_audio(tmp_path / name)
    assert audio.sample_rate == rate_hz
    assert abs(audio.seconds - 2.0) < 0.07 and abs(header_seconds(tmp_path / name) - 2.0) < 0.1
    assert correlation(audio.samples, sound) > 0.97


@pytest.mark.parametrize("suffix", [".wav", ".flac", ".ogg", ".mp3", ".m4a"])
def test_saved_files_read_back_with_length_level_and_comment(tmp_path, suffix):
    import av

    path = tmp_path / f"голос 'x' 声 😀{suffix}"
    sound = Audio(voice(2.0, rate_hz=40_000), 40_000)  # RVC's rate, which mp3 and m4a lack
    sound.save(path, comment="converted")
    again = read_audio(path)
    assert abs(again.seconds - 2.0) < 0.025
    assert correlation(again.resample(40_000).samples, sound.samples) > 0.98
    assert again.samples.std() == pytest.approx(sound.samples.std(), rel=0.1)
    with av.open(str(path)) as container:
        assert "converted" in json.dumps([dict(container.metadata), dict(container.streams.audio[0].metadata)])


def test_float_wav_is_exact_and_the_same_bytes_every_time(tmp_path):
    sound = Audio(3 * voice(0.5), 24_000)
    sound.save(tmp_path / "a.wav", float32=True)
    sound.save(tmp_path / "b.wav", float32=True)
    assert np.array_equal(read_audio(tmp_path / "a.wav").samples, sound.samples)
    assert (tmp_path / "a.wav").read_bytes() == (tmp_path / "b.wav").read_bytes()


def test_too_loud_samples_are_clipped_not_wrapped(tmp_path):
    Audio(np.array([0.5, 1.5, -1.5], np.float32), 8000).save(tmp_path / "a.wav")
    np.testing.assert_allclose(read_audio(tmp_path / "a.wav").samples, [0.5, 1, -1], atol=1e-4)


def test_long_ogg_is_written(tmp_path):
    Audio(np.zeros(8000 * 600, np.float32), 8000).save(tmp_path / "a.ogg")
    assert read_audio(tmp_path / "a.ogg").seconds == 600


def test_failed_save_leaves_the_old_file(tmp_path, monkeypatch):
    sound = Audio(voice(0.1), 24_000)
    sound.save(tmp_path / "a.flac")
    before = (tmp_path / "a.flac").read_bytes()
    monkeypatch.setattr(soundfile.SoundFile, "write", lambda *_: (_ for _ in ()).throw(OSError(28, "no space")))
    with pytest.raises(RVCError, match="disk is full"):
        Audio(voice(0.2), 24_000).save(tmp_path / "a.flac")
    assert [path.name for path in tmp_path.iterdir()] == ["a.flac"] and (tmp_path / "a.flac").read_bytes() == before


@pytest.mark.parametrize("name, float32", [("a.xyz", False), ("a", False), ("a.flac", True)])
def test_unknown_format_is_refused(tmp_path, name, float32):
    with pytest.raises(AudioError, match="cannot write") as failure:
        Audio(voice(0.1), 24_000).save(tmp_path / name, float32=float32)
    assert ".flac" in failure.value.hint and not list(tmp_path.iterdir())


def test_channels_average_but_never_cancel():
    sound = voice(1.0)
    other = voice(1.0, seed=1)
    np.testing.assert_allclose(mono(np.stack([sound, other], 1)), (sound + other) / 2, atol=1e-7)
    np.testing.assert_array_equal(mono(np.stack([sound, -sound], 1)), sound)
    np.testing.assert_array_equal(mono(np.stack([sound, -1.1 * sound], 1)), np.float32(-1.1) * sound)
    np.testing.assert_array_equal(mono(np.stack([sound, 0 * sound], 1)), sound / 2)
    six = np.zeros((24_000, 6), np.float32)
    six[:, 2] = sound
    np.testing.assert_array_equal(mono(six), sound)


@pytest.mark.parametrize(
    "content, message",
    [
        (b"", "empty"),
        (b"not a recording at all\n" * 40, "cannot be decoded"),
        (b"#EXTM3U\nhttp://127.0.0.1/x.wav\n", "cannot be decoded"),
        (b"RIFF\0\0\0\0WAVE", "cannot be decoded"),
        (b"\0" * 5000, "cannot be decoded"),
    ],
)
def test_what_is_no_recording_says_so(tmp_path, content, message):
    (tmp_path / "a.wav").write_bytes(content)
    with pytest.raises(AudioError, match=message) as failure:
        read_audio(tmp_path / "a.wav")
    assert failure.value.hint and "\n" not in str(failure.value)


def test_absent_folder_silent_video_and_no_samples(tmp_path):
    import av

    soundfile.write(tmp_path / "none.wav", np.zeros(0), 8000)
    with av.open(str(tmp_path / "mute.mp4"), "w") as container:
        stream = container.add_stream("mpeg4", rate=10)
        stream.width, stream.height, stream.pix_fmt = 64, 64, "yuv420p"
        container.mux([*stream.encode(av.VideoFrame(64, 64, "yuv420p")), *stream.encode(None)])
    for name, message in (
        ("gone.wav", "does not exist"),
        (".", "is a folder"),
        ("none.wav", "no sound"),
        ("mute.mp4", "no sound track"),
    ):
        with pytest.raises(AudioError, match=message):
            read_audio(tmp_path / name)


def test_non_finite_samples_are_counted(tmp_path):
    sound = voice(1.0)
    sound[[1, 2, 3]] = np.nan, np.inf, -np.inf
    soundfile.write(tmp_path / "a.wav", sound, 24_000, "FLOAT")
    with pytest.raises(NonFiniteError, match="3 of 24000 samples") as failure:
        read_audio(tmp_path / "a.wav")
    assert failure.value.seconds == 1.0
    with pytest.raises(AudioError):
        Audio(np.zeros((2, 2), np.float32), 8000)


def test_resampling_keeps_a_tone_and_removes_what_does_not_fit():
    time = np.arange(48_000) / 48_000
    low, high = (np.sin(2 * np.pi * hz * time).astype(np.float32) for hz in (1000, 15_000))
    half = Audio(low + high, 48_000).resample(16_000)
    truth = np.sin(2 * np.pi * 1000 * np.arange(16_000) / 16_000)
    assert half.sample_rate == 16_000 and half.seconds == 1.0
    np.testing.assert_allclose(half.samples[800:-800], truth[800:-800], atol=2e-3)


def test_highpass_is_rvcs_filter():
    from scipy import signal

    sound = voice(1.0, rate_hz=16_000) + np.float32(0.3)
    numerator = 0.96996065 * np.array([1, -5, 10, -10, 5, -1])  # as printed for 16 kHz by RVC
    denominator = signal.butter(5, 48, "highpass", fs=16_000)[1]
    causal = highpass(Audio(sound, 16_000), zero_phase=False).samples
    both = highpass(Audio(sound, 16_000), zero_phase=True).samples
    np.testing.assert_allclose(causal, signal.lfilter(numerator, denominator, sound), atol=1e-5)
    np.testing.assert_allclose(both, signal.filtfilt(numerator, denominator, sound), atol=1e-4)
    assert abs(both.mean()) < 1e-3
    assert len(highpass(Audio(sound[:5], 16_000), zero_phase=True).samples) == 5


@pytest.mark.parametrize("rate_hz, length", [(16_000, 100_000), (22_050, 50_001), (11_025, 33_333)])
def test_rms_envelope_equals_librosas(rate_hz, length):
    import librosa

    sound = np.random.default_rng(0).standard_normal(length).astype(np.float32)
    truth = librosa.feature.rms(y=sound, frame_length=rate_hz // 2 * 2, hop_length=rate_hz // 2, pad_mode="constant")[0]
    np.testing.assert_allclose(rms_envelope(Audio(sound, rate_hz)), truth, rtol=1e-4)


def test_cut_by_seconds():
    audio = Audio(np.arange(100, dtype=np.float32), 10)
    assert audio[1.5:3.0].samples.tolist() == list(range(15, 30)) and audio[9:].seconds == 1.0


@pytest.mark.parametrize("suffix", [".wav", ".flac", ".ogg", ".mp3"])
def test_a_size_limit_or_quota_is_an_error_of_the_disk(suffix: str, tmp_path: Path) -> None:
    """As ``ulimit -f`` or a quota has it: the disk has room, and does not take the file."""
    program = f"""
import resource
import numpy as np
from rvc_core.audio.waveform import Audio
from rvc_core.errors import ResourceError
sound = Audio(np.random.default_rng(0).uniform(-1, 1, 960_000).astype(np.float32), 48_000)
resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))
try:
    sound.save({str(tmp_path / "a")!r} + {suffix!r})
except ResourceError as error:
    print("refused:", error)
"""
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, env=environment)
    assert ran.stdout.startswith("refused: ") and not list(tmp_path.iterdir()), ran.stderr
