"""The package data is whole, and the embedded encoder hears what is said rather than who says it."""

import json
import time

import numpy as np
import pytest
import torch

from rvc_core import embedded
from rvc_core.audio.waveform import read_audio
from rvc_core.errors import WeightsError
from rvc_core.nn.embedded_encoder import (
    SOUNDS,
    WIDTH,
    EmbeddedEncoder,
    mel_filters,
    normalised_log_mel,
    power_spectrum,
)
from synth import phrase


@pytest.fixture(scope="module")
def encoder() -> EmbeddedEncoder:
    return EmbeddedEncoder.from_file(embedded.ENCODER_FILE)


@torch.inference_mode()
def features(encoder: EmbeddedEncoder, samples: np.ndarray) -> torch.Tensor:
    return encoder(torch.from_numpy(np.ascontiguousarray(samples, np.float32))[None])[0]


def apart(one: torch.Tensor, other: torch.Tensor) -> float:
    """Mean cosine distance between frames."""
    return float((1.0 - torch.cosine_similarity(one, other, dim=-1)).mean())


@pytest.mark.parametrize("voice", ["target", "source"])
def test_demo_voices_are_as_their_manifest_says(voice: str) -> None:
    folder = embedded.voice_folder(voice)
    manifest = json.loads((folder / "manifest.json").read_text("utf-8"))
    assert {path.name for path in folder.glob("*.flac")} == {clip["file"] for clip in manifest["clips"]}
    assert {"speaker", "licence", "synthesiser"} <= manifest.keys()
    total_seconds = 0.0
    for clip in manifest["clips"]:
        audio = read_audio(folder / clip["file"])
        assert audio.sample_rate == manifest["sample_rate"] == 16_000
        assert audio.seconds == pytest.approx(clip["seconds"], abs=1e-3)
        assert 0.6 < np.abs(audio.samples).max() < 0.8
        assert len(clip["text"].split()) >= 8
        total_seconds += audio.seconds
    assert (75 < total_seconds < 90) if voice == "target" else (12 < total_seconds < 15)


def test_package_data_is_small() -> None:
    files = [path for path in embedded.ENCODER_FILE.parent.rglob("*") if path.suffix != ".pyc" and path.is_file()]
    assert sum(path.stat().st_size for path in files) < 20e6
    assert embedded.SEPARATOR_FILE.stat().st_size < 6e6


@pytest.mark.parametrize("samples", [400, 719, 720, 16_000, 59_200])
def test_frames_are_counted_as_huberts_are(encoder: EmbeddedEncoder, samples: int) -> None:
    found = features(encoder, np.random.default_rng(0).normal(0, 0.1, samples))
    assert found.shape == ((samples - 400) // 320 + 1, 256)
    assert torch.isfinite(found).all()


def test_features_are_roots_of_probabilities_and_a_smaller_rest(encoder: EmbeddedEncoder) -> None:
    found = features(encoder, phrase(1).samples)
    names, rest = found[:, :SOUNDS], found[:, SOUNDS:]
    torch.testing.assert_close(names.square().sum(-1), torch.full((len(found),), float(WIDTH)), atol=1e-2, rtol=1e-4)
    assert (names >= 0).all() and 0 < rest.square().sum(-1).mean() < 0.15 * WIDTH


def test_frame_t_lies_at_sample_320_t() -> None:
    samples = torch.zeros(1, 16_000)
    samples[0, 320 * 25 + 200] = 1.0  # a click in the middle of frame 25's window
    power = power_spectrum(samples).sum(-1)[0]
    assert int(power.argmax()) == 50
    torch.testing.assert_close(power[49], power[51])  # its neighbours, 160 samples away, see it alike


def test_log_mel_agrees_with_librosa_in_shape() -> None:
    librosa = pytest.importorskip("librosa")
    theirs = librosa.filters.mel(sr=16_000, n_fft=512, n_mels=80, fmin=40, fmax=7600, htk=True, norm=None).T
    ours = mel_filters().numpy()
    wide = slice(30, None)  # lower bands are narrower than a bin
    assert np.abs(ours[:, wide].argmax(0) - theirs[:, wide].argmax(0)).max() <= 1
    np.testing.assert_allclose(ours.sum(0), 1.0, atol=1e-4)


def test_warped_filters_move_a_formant() -> None:
    tone = torch.sin(2 * torch.pi * 2000.0 / 16_000 * torch.arange(16_000))[None]
    power = power_spectrum(tone).mean((0, 1))
    plain, warped = (int((power @ mel_filters(warp)).argmax()) for warp in (1.0, 1.2))
    mel_span = 2595 * np.log10((1 + 7600 / 700) / (1 + 40 / 700))
    steps = 2595 * np.log10((1 + 1.2 * 2000 / 700) / (1 + 2000 / 700)) / mel_span
    assert warped - plain == pytest.approx(81 * steps, abs=1.5)


def test_level_does_not_matter(encoder: EmbeddedEncoder) -> None:
    samples = read_audio(min(embedded.voice_folder("source").glob("*.flac"))).samples
    assert apart(features(encoder, samples), features(encoder, 0.2 * samples)) < 0.05


def test_a_cut_hardly_changes_what_lies_inside_it(encoder: EmbeddedEncoder) -> None:
    samples = read_audio(min(embedded.voice_folder("source").glob("*.flac"))).samples
    whole, part = features(encoder, samples), features(encoder, samples[320 * 20 :])
    assert apart(whole[95:], part[75:]) < 0.1


def test_silence_gives_bounded_features(encoder: EmbeddedEncoder) -> None:
    normalised = normalised_log_mel(power_spectrum(torch.zeros(1, 48_000)), mel_filters())
    assert float(normalised.abs().max()) < 0.01
    assert float(features(encoder, np.zeros(48_000)).abs().max()) <= 16.0


def test_vowels_count_more_than_voices(encoder: EmbeddedEncoder) -> None:
    """The same syllables by two vocal tracts lie nearer together than other syllables by one."""
    man, woman = (phrase(seed=4, speaker=speaker).samples for speaker in (0, 1))
    other_words = phrase(seed=5, speaker=0).samples
    same = apart(features(encoder, man), features(encoder, woman))
    assert same < 0.6 * apart(features(encoder, man), features(encoder, other_words))


def test_it_costs_little(encoder: EmbeddedEncoder) -> None:
    """Counted, not timed: at 20 GFLOP a second, 0.2 GFLOP for a second of sound is 100 times real time."""
    from torch.utils.flop_counter import FlopCounterMode

    with FlopCounterMode(display=False) as counter:
        encoder(torch.zeros(1, 10 * 16_000))
    assert 0.05e9 < counter.get_total_flops() / 10 < 0.2e9


@pytest.mark.slow
def test_it_runs_sixty_times_faster_than_real_time(encoder: EmbeddedEncoder) -> None:
    samples = phrase(2, seconds=20.0).samples
    seconds = []
    for _ in range(5):
        started = time.process_time()  # of all threads together
        features(encoder, samples)
        seconds.append(time.process_time() - started)
    assert 20.0 / min(seconds) > 60.0  # the best of five: the machine may be busy


def test_saved_weights_load_again(encoder: EmbeddedEncoder, tmp_path) -> None:
    encoder.save(tmp_path / "copy.safetensors")
    copy = EmbeddedEncoder.from_file(tmp_path / "copy.safetensors")
    samples = phrase(3).samples
    torch.testing.assert_close(features(copy, samples), features(encoder, samples))


def test_other_files_are_refused(tmp_path) -> None:
    from safetensors.torch import save_file

    save_file({"other": torch.zeros(1)}, tmp_path / "other.safetensors")
    (tmp_path / "text.safetensors").write_text("not weights")
    for name in ("other", "text", "absent"):
        with pytest.raises(WeightsError, match=f"{name}.safetensors"):
            EmbeddedEncoder.from_file(tmp_path / f"{name}.safetensors")
