"""A base voice at 16 kHz as the start of a voice at 24 kHz: the same sound below 8 kHz, and something above."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from rvc_core.embedded import BASE_GENERATOR_FILE
from rvc_core.nn.rate_change import at_rate
from rvc_core.nn.spectrogram import linear_spectrogram, mel_spectrogram
from rvc_core.nn.synthesizer import Synthesizer
from rvc_core.presets import preset
from rvc_core.workspace.checkpoint import load_base
from synth import phrase

LOW, HIGH = preset("nano"), preset("nano-24k")


@pytest.fixture(scope="module")
def voices():
    weights = load_base(BASE_GENERATOR_FILE)
    made = {}
    for spec in (LOW, HIGH):
        made[spec.rate_name] = Synthesizer(spec).eval()
        made[spec.rate_name].load_state_dict(at_rate(weights, spec))
    return made


@torch.inference_mode()
def heard_and_said(voice, samples, f0_hz):
    """Mean of the latent (C, T), and what the decoder makes of it (S,)."""
    spec, frames = voice.spec, len(f0_hz)
    speaker = voice.emb_g(torch.zeros(1, dtype=torch.long))[..., None]
    spectrum = linear_spectrogram(torch.from_numpy(samples)[None], spec)
    latent = voice.enc_q(spectrum, torch.ones(1, 1, frames), speaker, torch.zeros(1, spec.inter_channels, frames))[1]
    return latent[0], voice.dec(latent, speaker, torch.from_numpy(f0_hz)[None])[0, 0].numpy()


def test_the_voice_of_another_rate_hears_and_says_the_same_below_8_khz(voices):
    import soxr

    said = phrase(3, seconds=3, speaker=1)
    high = np.ascontiguousarray(soxr.resample(said.samples, 16000, 24000, quality="VHQ"))
    low_latent, low_wave = heard_and_said(voices["16k"], said.samples, said.f0_hz)
    high_latent, high_wave = heard_and_said(voices["24k"], high, said.f0_hz)
    assert (low_latent - high_latent).std() < 0.3 * low_latent.std()
    below = np.ascontiguousarray(soxr.resample(high_wave, 24000, 16000, quality="VHQ"))
    low_mel, high_mel = (mel_spectrogram(torch.from_numpy(wave)[None], LOW) for wave in (low_wave, below))
    assert (low_mel - high_mel).abs().mean() < 0.45
    power = np.abs(np.fft.rfft(high_wave)) ** 2
    hz = np.fft.rfftfreq(len(high_wave), 1 / 24000)
    above, edge = power[(hz > 9000) & (hz < 11000)].mean(), power[(hz > 6500) & (hz < 7500)].mean()
    assert 0.1 < above / edge < 10  # the band goes on


def test_other_weights_stay_as_they_are(voices):
    weights = voices["24k"].state_dict()
    assert at_rate(weights, HIGH) is weights and at_rate(weights, LOW) is weights
    discriminator = {"discriminators.0.convs.0.weight": torch.zeros(1)}
    assert at_rate(discriminator, HIGH) is discriminator
    assert at_rate(voices["16k"].state_dict(), replace(LOW, uses_f0=True)).keys() == weights.keys()
