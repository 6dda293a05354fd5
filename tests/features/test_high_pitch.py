"""Tones above the networks' range are sung an octave lower; speech, hiss and lower tones are left alone."""

import numpy as np
import pytest

from rvc_core.features.high_pitch import folded
from rvc_core.features.pitch import PitchTrack, pitch_estimator
from synth import phrase

RATE_HZ = 16_000


def _tone(hz: np.ndarray | float, seconds: float = 1.0, partials: tuple[float, ...] = (1.0, 0.2, 0.1)) -> np.ndarray:
    hz = np.broadcast_to(hz, round(seconds * RATE_HZ))
    phase = 2 * np.pi * np.cumsum(hz) / RATE_HZ
    return 0.2 * sum(share * np.sin(number * phase) for number, share in enumerate(partials, 1))


@pytest.mark.parametrize("hz", [1110.0, 1250.0, 1568.0, 2093.0, 2350.0])
@pytest.mark.parametrize("partials", [(1.0,), (1.0, 0.5, 0.3)])
def test_whistle_register_is_an_octave_lower(hz, partials):
    samples = _tone(hz, 1.0, partials) + 1e-4 * np.random.default_rng(0).standard_normal(RATE_HZ)
    track, high = folded(samples, PitchTrack(np.zeros(100, np.float32), np.zeros(100, bool)))
    expected = hz / 2 if hz / 2 <= 1100 else hz / 4
    assert high.sum() == pytest.approx(100, abs=5) and track.voiced[3:-3].all()
    np.testing.assert_allclose(track.f0_hz[5:-5], expected, rtol=0.005)


def test_a_glide_through_the_limit_has_no_hole():
    hz = np.geomspace(700, 1700, 2 * RATE_HZ)
    estimated = pitch_estimator("dio")(_tone(hz, 2.0))
    track, high = folded(_tone(hz, 2.0), estimated)
    assert estimated.voiced[120:190].mean() < 0.5 and track.voiced[5:-5].mean() > 0.97
    assert high.sum() / 100 == pytest.approx(2 * np.log(1700 / 1100) / np.log(1700 / 700), abs=0.12)


@pytest.mark.parametrize(
    "samples",
    [
        phrase(1, seconds=3.0).samples,
        phrase(2, seconds=3.0, speaker=3).samples,
        0.1 * np.random.default_rng(0).standard_normal(3 * RATE_HZ),
        np.diff(0.1 * np.random.default_rng(1).standard_normal(3 * RATE_HZ + 1)),
        _tone(900.0, 3.0),
        _tone(300.0, 3.0, (0.1, 0.1, 0.2, 1.0, 0.5)),
        1e-5 * _tone(1250.0, 3.0),
        np.zeros(3 * RATE_HZ),
    ],
)
def test_other_sound_is_left_alone(samples):
    track = PitchTrack(np.full(300, 200, np.float32), np.ones(300, bool))
    same, high = folded(samples, track)
    assert not high.any() and np.array_equal(same.f0_hz, track.f0_hz)
