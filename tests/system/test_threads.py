"""Threads: what a container allows, and what measurements say."""

import pytest

from rvc_core.system import threads
from rvc_core.system.threads import ThreadTuner


@pytest.fixture(autouse=True)
def sixty_four_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr(threads.os, "sched_getaffinity", lambda pid: set(range(64)))


def test_a_container_quota_limits_the_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(threads.Path, "read_text", lambda self: "200000 100000\n")
    assert threads.choose_threads() == 2 and threads.choose_threads(5) == 5
    monkeypatch.setattr(threads.Path, "read_text", lambda self: "max 100000\n")
    assert threads.choose_threads() == 64
    monkeypatch.setenv("OMP_NUM_THREADS", "4")
    assert threads.choose_threads() == 4


def _work(tuner: ThreadTuner, steps: int, seconds: dict[int, float]) -> float:
    spent = 0.0
    for _ in range(steps):
        spent += seconds[tuner.threads]
        tuner.record(seconds[tuner.threads])
    return spent


def test_quiet_cores_are_used_and_trying_the_other_choice_costs_little() -> None:
    tuner = ThreadTuner(0, most=2)
    spent = _work(tuner, 1000, {2: 0.3, 1: 0.5})
    assert tuner.threads == 2 and spent < 1000 * 0.3 * 1.01


def test_a_competitor_is_noticed_at_once_and_so_is_its_end() -> None:
    tuner = ThreadTuner(0, most=2)
    _work(tuner, 50, {2: 0.3, 1: 0.5})
    assert _work(tuner, 100, {2: 15.0, 1: 0.6}) < 15 + 15 + 100 * 0.6
    assert tuner.threads == 1
    _work(tuner, 300, {2: 0.3, 1: 0.5})
    assert tuner.threads == 2


def test_a_number_fixes_the_choice() -> None:
    tuner = ThreadTuner(2)
    _work(tuner, 50, {2: 15.0, 1: 0.5})
    assert tuner.threads == 2
