"""One training step: both networks move, each by its own loss, and the totals are the sums they claim to be."""

import copy
import math
import os
import subprocess
import sys

import pytest
import torch
from torch import Tensor

from rvc_core.nn import losses
from rvc_core.nn.layers import WeightNorm
from rvc_core.nn.synthesizer import take_segments
from rvc_core.training import step
from rvc_core.training.distributed import ALONE, Ranks
from rvc_core.training.memory import Portions
from rvc_core.training.step import Gradients, GradScaler, Networks, train_step
from rvc_core.workspace.dataset import Batch, draw_noise
from tiny import TINY, batch_of


def _batch() -> Batch:
    random = torch.Generator().manual_seed(0)
    frames = 40
    noise = draw_noise([frames, 30], TINY, seed=(0,), device=torch.device("cpu"))
    return Batch(
        torch.randn(2, frames, 8, generator=random),
        torch.full((2, frames), 60),
        torch.full((2, frames), 150.0),
        torch.rand(2, 513, frames, generator=random),
        0.1 * torch.randn(2, 1, frames * 160, generator=random),
        torch.tensor([40, 30]),
        torch.tensor([0, 1]),
        noise,
    )


@pytest.fixture
def networks() -> Networks:
    return Networks.fresh(TINY, seed=1, device=torch.device("cpu"))


def _step(
    networks: Networks, batch: Batch, portions: Portions | None = None, ranks: Ranks = ALONE
) -> tuple[dict[str, float], list[Tensor]]:
    """The losses of a step, and the gradients that the optimizers saw: the generator's, then the discriminators'."""
    gradients: dict[str, list[Tensor]] = {}
    hooks = []
    for part in ("generator", "discriminator"):
        weights = [*getattr(networks, part).parameters()]

        def note(*_: object, part: str = part, weights: list[Tensor] = weights) -> None:
            gradients[part] = [weight.grad.clone() for weight in weights if weight.grad is not None]

        hooks.append(getattr(networks, f"{part}_optimizer").register_step_pre_hook(note))
    values = train_step(networks, batch, portions=portions, ranks=ranks).values()
    for hook in hooks:
        hook.remove()
    return values, gradients["generator"] + gradients["discriminator"]


def test_both_networks_move(networks: Networks) -> None:
    before = copy.deepcopy((networks.generator.state_dict(), networks.discriminator.state_dict()))
    train_step(networks, _batch())
    for old, network in zip(before, (networks.generator, networks.discriminator), strict=True):
        moved = [not torch.equal(old[key], value) for key, value in network.state_dict().items()]
        assert sum(moved) > 0.9 * len(moved)


def test_totals_are_the_sums_of_their_parts(networks: Networks) -> None:
    values = train_step(networks, _batch()).values()
    critics = len(TINY.discriminator_periods) + 1
    judged = sum(values[f"loss/g/{index}"] for index in range(critics))
    assert values["loss/g/total"] == pytest.approx(
        judged + sum(values[f"loss/g/{part}"] for part in ("fm", "mel", "kl")), rel=1e-5
    )
    assert values["loss/d/total"] == pytest.approx(
        sum(values[f"loss/d_{side}/{index}"] for side in "rg" for index in range(critics)), rel=1e-5
    )


def test_the_discriminators_learn_from_their_own_loss_alone(networks: Networks) -> None:
    """Their gradients after a step are those of LSGAN on the real and the generated segments, recomputed here."""
    batch, twin = _batch(), copy.deepcopy(networks)
    _, gradients = _step(networks, batch)
    output = twin.generator(
        content=batch.content,
        lengths=batch.lengths,
        coarse=batch.f0_coarse,
        f0_hz=batch.f0_hz,
        spectrogram=batch.spectrogram,
        speaker=batch.speaker,
        noise=batch.noise,
    )
    real = take_segments(batch.wave, output.starts * 160, TINY.segment_frames * 160)
    scores = twin.discriminator(real).logits, twin.discriminator(output.audio.detach()).logits
    loss = sum(((1 - true) ** 2).mean() + (false**2).mean() for true, false in zip(*scores, strict=True))
    loss.backward()
    weights = [*twin.discriminator.parameters()]
    for ours, expected in zip(gradients[-len(weights) :], weights, strict=True):
        torch.testing.assert_close(ours, expected.grad, rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize("clips", [1, 2, 3])
def test_portions_of_a_batch_give_its_losses_and_its_gradients(networks: Networks, clips: int) -> None:
    batch, twin = _longer_batch(), copy.deepcopy(networks)
    _assert_same_step(_step(networks, batch), _step(twin, batch, Portions(clips)))


def _assert_same_step(*both: tuple[dict[str, float], list[Tensor]]) -> None:
    assert both[0][0] == pytest.approx(both[1][0], rel=2e-5)
    for mine, other in zip(both[0][1], both[1][1], strict=True):
        torch.testing.assert_close(other, mine, rtol=1e-3, atol=1e-5 * float(mine.abs().max()) + 1e-6)


def _longer_batch() -> Batch:
    """Five clips of different lengths."""
    return batch_of([40, 35, 30, 25, 20], seed=1)


@pytest.mark.parametrize("where", ["of_discriminator", "of_generator"])
def test_a_step_that_runs_out_of_memory_makes_the_same_step_in_portions(
    networks: Networks, where: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Three clips fit; the discriminators have moved already when it shows in the generator's turn."""
    batch, twin, portions = _longer_batch(), copy.deepcopy(networks), Portions(5)
    expected, work = _step(networks, batch), getattr(Gradients, where)

    def capped(self: Gradients, parts: list[slice]) -> object:
        losses = work(self, parts)
        if parts[0].stop > 3:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return losses

    monkeypatch.setattr(Gradients, where, capped)
    _assert_same_step(expected, _step(twin, batch, portions))
    assert portions.clips == 2


class _Twins(Ranks):
    """Two processes with the same part of a batch; notes what they exchange."""

    def __init__(self) -> None:
        super().__init__(0, 2)
        self.exchanged: list[torch.dtype] = []

    def _add(self, numbers: Tensor, how: str = "SUM") -> None:
        self.exchanged.append(numbers.dtype)
        numbers.mul_(2)


@pytest.mark.parametrize(
    ("dtype", "exchanged", "tolerance"),
    [
        (torch.float32, torch.float32, 0.0),
        (torch.bfloat16, torch.bfloat16, 4e-3),
        (torch.float16, torch.bfloat16, 4e-3),
    ],
)
def test_processes_that_compute_in_half_precision_exchange_half_the_bytes(
    networks: Networks, dtype: torch.dtype, exchanged: torch.dtype, tolerance: float
) -> None:
    """The sums of two that are alike are twice the gradients of one; bfloat16 rounds to within 1 in 256.

    The generator's depend on how the discriminators moved, which is nearly the same.
    """
    twin, ranks = Networks.fresh(TINY, seed=1, device=torch.device("cpu")), _Twins()
    for each in (networks, twin):
        each.compute_in(dtype)
        each.scaler = GradScaler("cpu", init_scale=2.0**6, enabled=dtype is torch.float16)
    _, alone = _step(networks, _batch())
    _, together = _step(twin, _batch(), ranks=ranks)
    assert ranks.exchanged == [exchanged, exchanged, torch.float32]
    discriminators = len([*networks.discriminator.parameters()])
    for place, (one, other) in enumerate(zip(alone, together, strict=True), start=discriminators - len(alone)):
        assert other.dtype is torch.float32
        if place >= 0:
            torch.testing.assert_close(other, 2 * one, rtol=tolerance, atol=0)
    norms = [float(torch.nn.utils.get_total_norm(gradients)) for gradients in (together, alone)]
    assert norms[0] == pytest.approx(2 * norms[1], rel=0.05)


@pytest.mark.parametrize("part", ["generator", "discriminator"])
def test_a_loss_that_is_no_number_moves_nothing(networks: Networks, part: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        step,
        "distance_to_real" if part == "generator" else "distance_to_fake",
        lambda logits: losses.distance_to_real(logits) * torch.nan,
    )
    before = copy.deepcopy(getattr(networks, part).state_dict())
    values = train_step(networks, _batch()).values()
    assert not all(map(math.isfinite, values.values()))
    assert all(torch.equal(before[key], value) for key, value in getattr(networks, part).state_dict().items())


def test_infinite_gradients_under_a_scaler_halve_its_scale_and_move_nothing(networks: Networks) -> None:
    networks.compute_in(torch.float16)
    networks.scaler = GradScaler("cpu", init_scale=2.0**60)
    before = copy.deepcopy(networks.generator.state_dict())
    values = train_step(networks, _batch()).values()
    assert all(math.isfinite(value) for tag, value in values.items() if tag.startswith("loss/"))
    assert networks.scaler.get_scale() == 2.0**59
    assert all(torch.equal(before[key], value) for key, value in networks.generator.state_dict().items())


def test_the_scale_of_gradients_changes_neither_their_norm_nor_the_step(networks: Networks) -> None:
    twin, found = Networks.fresh(TINY, seed=1, device=torch.device("cpu")), []
    for each, scale in ((networks, 2.0**6), (twin, 2.0**9)):
        each.compute_in(torch.float16)
        each.scaler = GradScaler("cpu", init_scale=scale)
        found.append(train_step(each, _batch()).values())
        assert each.scaler.get_scale() == scale
    for tag in ("grad_norm_d", "grad_norm_g"):
        assert found[1][tag] == pytest.approx(found[0][tag], rel=0.01)
    for part in ("generator", "discriminator"):
        first, second = (
            torch.cat([weight.flatten() for weight in getattr(each, part).parameters()]) for each in (networks, twin)
        )
        assert float((first - second).detach().abs().mean()) < 0.1 * TINY.learning_rate


@pytest.mark.parametrize("part", ["generator", "discriminator"])
def test_copies_in_half_precision_follow_the_weights(networks: Networks, part: str) -> None:
    """An optimizer moves them in every step, and a checkpoint replaces them."""
    network = getattr(networks, part)
    networks.compute_in(torch.bfloat16)
    beginning = copy.deepcopy(network.state_dict())

    def farthest() -> float:
        with networks.computing(network):
            layers = [layer for layer in network.modules() if isinstance(layer, WeightNorm)]
            return max(
                float(((layer.weights()[0] - layer.kernel()).norm() / layer.kernel().norm()).detach())
                for layer in layers
            )

    assert farthest() < 2**-8
    networks.set_learning_rate(0.1)
    train_step(networks, _batch())
    assert farthest() < 2**-8
    network.load_state_dict(beginning)
    assert farthest() < 2**-8


def test_a_step_does_without_torchs_compiler() -> None:
    """Its import takes longer than all else at the start of a training."""
    lines = (
        "import sys, torch; from rvc_core.training.step import Networks; from tiny import TINY\n"
        "networks = Networks.fresh(TINY, seed=1, device=torch.device('cpu'))\n"
        "for weight in networks.discriminator.parameters(): weight.grad = torch.ones_like(weight)\n"
        "optimizer = networks.discriminator_optimizer\n"
        "optimizer.step(); optimizer.zero_grad(); optimizer.load_state_dict(optimizer.state_dict())\n"
        "sys.exit('torch._dynamo' in sys.modules)"
    )
    assert (
        subprocess.run(
            [sys.executable, "-c", lines], env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
        ).returncode
        == 0
    )
