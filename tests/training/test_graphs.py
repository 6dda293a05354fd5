"""Recorded steps are the same steps. A CPU records nothing: a recorder that repeats the work stands in for CUDA's."""

import copy
from dataclasses import replace

import pytest
import torch

from rvc_core.training.graphs import StepGraphs, Turn
from rvc_core.training.memory import Portions
from rvc_core.training.step import Networks, train_step
from rvc_core.workspace.dataset import Batch
from tiny import TINY, batch_of

CPU = torch.device("cpu")


@pytest.fixture
def networks() -> Networks:
    return Networks.fresh(TINY, seed=1, device=CPU)


def _batch(number: int) -> Batch:
    """Three clips of different lengths, all of one bucket."""
    return batch_of([40 + number, 35, 30], seed=number)


def _repeat(turn: Turn) -> Turn:
    return turn


def _eager(networks: Networks, count: int) -> list[dict[str, float]]:
    return [train_step(networks, _batch(number)).values() for number in range(count)]


def test_recorded_steps_on_padded_batches_are_those_of_batches_as_they_are(networks: Networks) -> None:
    twin = copy.deepcopy(networks)
    expected = _eager(networks, 6)
    graphs = StepGraphs(twin, record=_repeat)
    for number in range(6):
        assert graphs.step(_batch(number)).values() == pytest.approx(expected[number], rel=2e-4)
    assert [*graphs.recorded] == [(3, 100)]


def test_a_part_of_a_batch_says_what_the_whole_is_in_a_recorded_step_too(networks: Networks) -> None:
    twin = copy.deepcopy(networks)
    parts = [replace(_batch(number), share=0.6, whole_frames=200 + number) for number in range(5)]
    expected = [train_step(networks, part).values() for part in parts]
    graphs = StepGraphs(twin, record=_repeat)
    for part, values in zip(parts, expected, strict=True):
        assert graphs.step(part).values() == pytest.approx(values, rel=2e-4)


@pytest.mark.parametrize("fails_at", [1, 2, 3])
def test_training_goes_on_where_steps_cannot_be_recorded_and_says_so_once(networks: Networks, fails_at: int) -> None:
    twin, said, turns = copy.deepcopy(networks), list[str](), list[Turn]()

    def refuse(turn: Turn) -> Turn:
        turns.append(turn)
        if len(turns) == fails_at:
            raise RuntimeError("operation not permitted when stream is capturing\nmore")
        return turn

    portions = Portions(3)
    portions.tell = said.append
    expected = _eager(networks, 6)
    graphs = StepGraphs(twin, portions=portions, record=refuse)
    found = [graphs.step(_batch(number)).values() for number in range(6)]
    assert found == [pytest.approx(values, rel=1e-6) for values in expected]
    assert len(said) == 1 and "without CUDA graphs" in said[0] and "not permitted when stream is capturing" in said[0]
    assert graphs._record is None and len(turns) == fails_at


def test_graphs_give_way_before_clips_do_when_memory_runs_out(networks: Networks) -> None:
    portions = Portions(3)
    graphs = StepGraphs(networks, portions=portions, record=_repeat)
    for number in range(3):
        graphs.step(_batch(number))
    assert graphs.recorded

    def work(parts: list[slice]) -> int:
        if graphs.recorded:  # their memory is what is missing
            raise torch.OutOfMemoryError("CUDA out of memory")
        return len(parts)

    assert portions.attempt(3, work) == 1
    assert portions.clips == 3 and not graphs.recorded and graphs._record is None


def test_batches_that_pass_in_portions_are_not_recorded(networks: Networks) -> None:
    graphs = StepGraphs(networks, portions=Portions(2), record=_repeat)
    for number in range(4):
        graphs.step(_batch(number))
    assert not graphs.recorded
