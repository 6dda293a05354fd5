"""One training step: both networks move, each by its own loss, and the totals are the sums they claim to be."""

import copy

import pytest
import torch

from rvc_core.dataset import Batch
from rvc_core.gan import Networks, train_step
from rvc_core.nn.synthesizer import take_segments
from tiny import TINY


def _batch() -> Batch:
    random = torch.Generator().manual_seed(0)
    frames = 40
    return Batch(torch.randn(2, frames, 8, generator=random), torch.full((2, frames), 60),
                 torch.full((2, frames), 150.0),
                 torch.rand(2, 513, frames, generator=random), 0.1 * torch.randn(2, 1, frames * 160, generator=random),
                 torch.tensor([40, 30]), torch.tensor([0, 1]))


@pytest.fixture
def networks() -> Networks:
    return Networks.fresh(TINY, seed=1, device=torch.device("cpu"))


def test_both_networks_move(networks: Networks) -> None:
    before = copy.deepcopy((networks.generator.state_dict(), networks.discriminator.state_dict()))
    train_step(networks, _batch(), TINY, epsilons="2023")
    for old, network in zip(before, (networks.generator, networks.discriminator), strict=True):
        moved = [not torch.equal(old[key], value) for key, value in network.state_dict().items()]
        assert sum(moved) > 0.9 * len(moved)


def test_totals_are_the_sums_of_their_parts(networks: Networks) -> None:
    values = train_step(networks, _batch(), TINY, epsilons="2023").values()
    critics = len(TINY.discriminator_periods) + 1
    judged = sum(values[f"loss/g/{index}"] for index in range(critics))
    assert values["loss/g/total"] == pytest.approx(
        judged + sum(values[f"loss/g/{part}"] for part in ("fm", "mel", "kl")), rel=1e-5)
    assert values["loss/d/total"] == pytest.approx(
        sum(values[f"loss/d_{side}/{index}"] for side in "rg" for index in range(critics)), rel=1e-5)


def test_the_discriminators_learn_from_their_own_loss_alone(networks: Networks) -> None:
    """Their gradients after a step are those of LSGAN on the real and the generated segments, recomputed here."""
    batch, twin = _batch(), copy.deepcopy(networks)
    torch.manual_seed(5)
    train_step(networks, batch, TINY, epsilons="2023")
    torch.manual_seed(5)
    output = twin.generator(content=batch.content, lengths=batch.lengths, coarse=batch.f0_coarse, f0_hz=batch.f0_hz,
                            spectrogram=batch.spectrogram, speaker=batch.speaker)
    real = take_segments(batch.wave, output.starts * 160, TINY.segment_frames * 160)
    scores = twin.discriminator(real).logits, twin.discriminator(output.audio.detach()).logits
    loss = sum(((1 - true) ** 2).mean() + (false ** 2).mean() for true, false in zip(*scores, strict=True))
    loss.backward()
    for ours, expected in zip(networks.discriminator.parameters(), twin.discriminator.parameters(), strict=True):
        torch.testing.assert_close(ours.grad, expected.grad, rtol=1e-3, atol=1e-6)
