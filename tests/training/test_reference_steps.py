"""Training beside RVC WebUI's own: from equal weights, data and draws its gradients, and its losses step by step.

`tests/golden/train_steps.npz` is what the reference gave (`benchmarks/train_step.py --record`).
"""

import sys
from pathlib import Path

import numpy as np
import pytest

sys.path.append(str(Path(__file__).parents[2] / "benchmarks"))
from train_step import GOLDEN_STEPS, our_golden_numbers

REFERENCE = dict(np.load(Path(__file__).parents[1] / "golden" / "train_steps.npz"))
SOFTMAX_IGNORES = "conv_k.bias"  # adds the same to all scores: its gradient is rounding alone


def test_gradients_of_the_first_step_and_losses_of_five_are_those_of_the_reference() -> None:
    ours = our_golden_numbers(5)
    np.testing.assert_allclose(ours.pop("losses"), REFERENCE["losses"][:5], rtol=1e-4)
    assert {*ours, "losses"} == {*REFERENCE}
    for name, (norm, *eighths) in ours.items():
        if not name.endswith(SOFTMAX_IGNORES):
            expected, *sums = REFERENCE[name]
            assert norm == pytest.approx(expected, rel=1e-3), name
            assert np.linalg.norm(np.subtract(eighths, sums)) < 1e-3 * expected, name


@pytest.mark.slow
def test_mean_losses_of_fifty_steps_are_those_of_the_reference() -> None:
    losses = our_golden_numbers(GOLDEN_STEPS)["losses"]
    np.testing.assert_allclose(losses.mean(0), REFERENCE["losses"].mean(0), rtol=0.02)
