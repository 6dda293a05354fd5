"""The decoder that filters pulses and noise: what it is given, what it does when its filters do nothing."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from rvc_core.nn.source_filter import SourceFilter, pulse_train
from rvc_core.presets import preset

SPEC = replace(preset("nano"), source_filter_channels=16)


@pytest.mark.parametrize("f0_hz", [70.0, 213.7, 900.0])
def test_pulses_are_the_sum_of_all_harmonics(f0_hz):
    wave = pulse_train(torch.full((1, 20), f0_hz), 16000)[0].numpy()
    time = np.arange(1, 3201) / 16000
    count = math.floor(7999 / f0_hz)
    cosines = sum(np.cos(2 * np.pi * f0_hz * harmonic * time) for harmonic in range(1, count + 1))
    assert np.abs(wave - cosines * math.sqrt(2 / count)).max() < 2e-2 * np.abs(wave).max()


def test_pulses_fall_silent_where_there_is_no_pitch_and_cut_windows_equal_the_whole():
    f0_hz = torch.tensor([[120.0] * 10 + [0.0] * 5 + [180.0] * 10])
    whole = pulse_train(f0_hz, 16000)
    assert not whole[:, 1600:2400].any() and whole[:, 2400:].abs().max() > 1
    from rvc_core.nn.generator import frame_phase

    later = pulse_train(f0_hz[:, 18:], 16000, frame_phase(f0_hz)[:, 18])
    assert torch.allclose(later, whole[:, 18 * 160 :], atol=2e-3)


def decoder(pulses: float, noise: float, delay: float = 0.0) -> SourceFilter:
    """One whose filters are these logarithmic gains everywhere."""
    network = SourceFilter(SPEC).eval()
    with torch.no_grad():
        network.filters.weight.zero_()
        network.filters.bias.copy_(torch.tensor([pulses, delay, noise]).repeat_interleave(network.bins))
    return network


@torch.no_grad()
def test_filters_that_do_nothing_give_the_pulses_back():
    f0_hz = torch.full((2, 30), 150.0)
    out = decoder(0.0, -80.0)(torch.randn(2, 64, 30), torch.randn(2, 64, 1), f0_hz)
    assert out.shape == (2, 1, 4800)
    assert torch.allclose(out[:, 0], pulse_train(f0_hz, 16000), atol=1e-4)


@torch.no_grad()
def test_noise_is_given_back_and_scaled():
    noise = torch.randn(1, 1, 4800)
    arguments = torch.randn(1, 64, 30), torch.randn(1, 64, 1), torch.zeros(1, 30)
    out = decoder(0.0, math.log(0.25), delay=1.0)(*arguments, noise)
    assert torch.allclose(out, noise * 0.25, atol=1e-5)
    assert not torch.equal(decoder(0.0, 0.0)(*arguments), decoder(0.0, 0.0)(*arguments))  # drawn if not given


def test_every_weight_learns_and_half_precision_agrees():
    torch.manual_seed(0)
    network = SourceFilter(SPEC)
    latent, speaker, f0_hz = torch.randn(1, 64, 40), torch.randn(1, 64, 1), torch.full((1, 40), 200.0)
    noise = torch.randn(1, 1, 6400)
    full = network(latent, speaker, f0_hz, noise)
    full.square().mean().backward()
    assert all(parameter.grad is not None and parameter.grad.abs().sum() > 0 for parameter in network.parameters())
    with torch.autocast("cpu", dtype=torch.bfloat16), torch.no_grad():
        half = network(latent, speaker, f0_hz, noise)
    assert half.dtype == torch.float32 and (half - full).abs().max() < 0.05 * full.abs().max()
