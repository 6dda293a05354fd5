"""Reading block by block gives the sound that reading at once gives, of every odd file, with all channels."""

import struct
from pathlib import Path

import numpy as np
import pytest
import soundfile
from odd_files import in_time, odd_files

from rvc_core.audio.blocks import BLOCK_FRAMES, open_blocks
from rvc_core.audio.mixing import Stem
from rvc_core.audio.waveform import header_seconds, read_recording
from rvc_core.errors import AudioError


def read(path: Path) -> tuple[np.ndarray, int, list[str]]:
    with open_blocks(path) as reader:
        blocks = list(reader)
    assert all(block.shape[0] == reader.channels and block.dtype == np.float32 for block in blocks)
    return np.concatenate([np.zeros((reader.channels, 0), np.float32), *blocks], 1), reader.sample_rate_hz, reader.notes


def test_odd_files_are_as_long_as_when_they_are_read_at_once_and_cut_ones_are_said(tmp_path, capfd):
    different = []
    for number, odd in enumerate(odd_files(tmp_path)):
        path = tmp_path / f"{number}.{odd.name.rpartition('.')[2]}"
        path.write_bytes(odd.content)
        header_seconds(path)
        try:
            whole = read_recording(path)
        except AudioError:
            with pytest.raises(AudioError):
                read(path)
            continue
        samples, rate_hz, notes = read(path)
        says = {word for word in ("its end is missing", "its header claims") if word in " ".join(whole.warnings)}
        says |= {note for note in whole.notes if note.startswith("sound track")}
        if abs(samples.shape[1] / rate_hz - whole.audio.seconds) > 0.1 or not all(
            one in " ".join(notes) for one in says
        ):
            different.append((odd.name, whole.audio.seconds, samples.shape[1] / rate_hz, notes, whole.warnings))
    assert number > 150 and not different
    assert capfd.readouterr() == ("", ""), "no decoder writes to the terminal"


def test_the_track_with_the_sound_is_read(tmp_path):
    videos = [odd for odd in in_time(tmp_path) if odd.says == "track"]
    for number, odd in enumerate(videos):
        path = tmp_path / f"{number}.{odd.name.rpartition('.')[2]}"
        path.write_bytes(odd.content)
        samples, rate_hz, notes = read(path)
        heard_hz = np.abs(np.fft.rfft(samples[0])).argmax() * rate_hz / samples.shape[1]
        assert heard_hz == pytest.approx(odd.tones[0][1], abs=5), (odd.name, notes)
    assert len(videos) >= 8


def _sized(content: bytes, size: int) -> bytes:
    """A WAV whose sound claims so many bytes."""
    at = content.index(b"data") + 4
    return content[:at] + struct.pack("<I", size) + content[at + 4 :]


@pytest.mark.parametrize("subtype", ["PCM_16", "PCM_24", "FLOAT"])
@pytest.mark.parametrize("fault", ["cut", "less", "zero", "streamed", "joined"])
def test_a_wav_with_a_wrong_size_keeps_its_channels(tmp_path, subtype, fault):
    time = np.arange(3 * BLOCK_FRAMES) / 44_100
    samples = 0.3 * np.stack([np.sin(2 * np.pi * 440 * time), np.sin(2 * np.pi * 700 * time)])
    path = tmp_path / "a.wav"
    soundfile.write(path, samples.T, 44_100, subtype)
    whole, frame = path.read_bytes(), {"PCM_16": 4, "PCM_24": 6, "FLOAT": 8}[subtype]
    begins = whole.index(b"data") + 8
    path.write_bytes(
        {
            "cut": whole[: begins + 2 * BLOCK_FRAMES * frame + 3],
            "less": _sized(whole, BLOCK_FRAMES * frame),
            "zero": _sized(whole, 0),
            "streamed": _sized(whole, 0xFFFFFFFF),
            "joined": 2 * whole,
        }[fault]
    )
    made, rate_hz, notes = read(path)
    expected = {"cut": samples[:, : 2 * BLOCK_FRAMES], "joined": np.tile(samples, 2)}.get(fault, samples)
    assert (made.shape, rate_hz) == (expected.shape, 44_100) and np.abs(made - expected).max() < 1e-4
    assert [*map(bool, [notes])] == [fault == "cut"] and all("claims 1.5 s more" in note for note in notes)


@pytest.mark.parametrize("suffix", ["flac", "mp3", "ogg", "wav"])
def test_a_cut_file_keeps_its_channels_and_says_so(tmp_path, suffix):
    time = np.arange(6 * BLOCK_FRAMES) / 44_100
    samples = np.stack([0.3 * np.sin(2 * np.pi * 440 * time), 0.1 * np.sin(2 * np.pi * 700 * time)])
    path = tmp_path / f"a.{suffix}"
    if suffix == "wav":  # 5.1: folded to stereo
        samples = np.concatenate([samples, 0 * samples, 0 * samples])
    if suffix == "mp3":
        Stem(samples.T.astype(np.float32), 44_100).save(path)
    else:
        soundfile.write(path, samples.T, 44_100)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    made, _, notes = read(path)
    left, right = np.sqrt(np.mean(made**2, axis=1))
    assert left / right == pytest.approx(3, abs=0.3) and 0.3 * len(time) < made.shape[1] < 0.7 * len(time)
    assert suffix == "ogg" or any("end is missing" in note for note in notes), "Ogg holds no length"


@pytest.mark.parametrize(
    ("suffix", "tolerance"), [("wav", 1e-4), ("flac", 1e-4), ("ogg", 0.2), ("aiff", 1e-4), ("mp3", 0.2)]
)
def test_both_channels_are_kept_apart(tmp_path, suffix, tolerance):
    time = np.arange(3 * BLOCK_FRAMES + 5) / 44_100
    samples = 0.3 * np.stack([np.sin(2 * np.pi * 440 * time), np.sin(2 * np.pi * 700 * time)])
    soundfile.write(tmp_path / f"a.{suffix}", samples.T, 44_100)
    made, rate_hz, notes = read(tmp_path / f"a.{suffix}")
    assert (made.shape, rate_hz, notes) == (samples.shape, 44_100, [])
    assert np.abs(made - samples)[:, 2000:-2000].max() < tolerance


def test_nan_is_refused_with_the_files_name(tmp_path):
    soundfile.write(tmp_path / "a.wav", np.array([0.0, np.nan]), 8000, subtype="FLOAT")
    with pytest.raises(AudioError, match=r"'a\.wav' holds NaN"):
        read(tmp_path / "a.wav")
