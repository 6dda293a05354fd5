"""Reading block by block gives the sound that reading at once gives, of every odd file, with all channels."""

from pathlib import Path

import numpy as np
import pytest
import soundfile
from odd_files import odd_files

from rvc_core.audio.blocks import BLOCK_FRAMES, open_blocks
from rvc_core.audio.waveform import read_recording
from rvc_core.errors import AudioError


def read(path: Path) -> tuple[np.ndarray, int, list[str]]:
    with open_blocks(path) as reader:
        blocks = list(reader)
    assert all(block.shape[0] == reader.channels and block.dtype == np.float32 for block in blocks)
    return np.concatenate([np.zeros((reader.channels, 0), np.float32), *blocks], 1), reader.sample_rate_hz, reader.notes


def test_odd_files_are_as_long_as_when_they_are_read_at_once(tmp_path):
    different = []
    for number, odd in enumerate(odd_files(tmp_path)):
        path = tmp_path / f"{number}.{odd.name.rpartition('.')[2]}"
        path.write_bytes(odd.content)
        try:
            whole = read_recording(path).audio.seconds
        except AudioError:
            with pytest.raises(AudioError):
                read(path)
            continue
        samples, rate_hz, notes = read(path)
        if abs(samples.shape[1] / rate_hz - whole) > 0.1:
            different.append((odd.name, whole, samples.shape[1] / rate_hz, notes))
    assert number > 150 and not different


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


def test_joined_files_are_read_as_mono_and_said(tmp_path):
    soundfile.write(tmp_path / "a.wav", np.full((800, 2), 0.25), 8000, subtype="FLOAT")
    (tmp_path / "b.wav").write_bytes(2 * (tmp_path / "a.wav").read_bytes())
    samples, _, notes = read(tmp_path / "b.wav")
    assert samples.shape == (1, 1600) and np.allclose(samples, 0.25) and notes[0].startswith("it was read as mono")


def test_nan_is_refused_with_the_files_name(tmp_path):
    soundfile.write(tmp_path / "a.wav", np.array([0.0, np.nan]), 8000, subtype="FLOAT")
    with pytest.raises(AudioError, match=r"'a\.wav' holds NaN"):
        read(tmp_path / "a.wav")
