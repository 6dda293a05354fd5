"""Training on a fake GPU: no device is mixed, number formats are as chosen, and the host waits once a step.

The numbers of operations, casts and bytes are ceilings, for the torch they were counted with: another splits some
operations differently.
"""

from typing import Any

import pytest
import torch
from results import needs_compiler, run, run_quick

pytestmark = needs_compiler
COUNTED_WITH = "2.13"
NAMES = {"fp32": "float32", "fp16": "float16", "bf16": "bfloat16"}
COMBINATIONS = [*(("v2", dtype) for dtype in NAMES), *((of, "fp16") for of in ("nano", "v2-without-f0"))]
Report = dict[str, dict[str, Any]]


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Report:
    return run_quick(tmp_path_factory)


def _ok(report: Report, case: str) -> dict[str, Any]:
    """What a case found; a device that was mixed is an error of the case."""
    assert "error" not in report[case], report[case]["error"]
    return report[case]


def _assert_format(found: dict[str, Any], dtype: str, *, in_float32: int) -> None:
    """Convolutions and matrix products are in the chosen format, but for those whose rounding would be audible."""
    others = {} if dtype == "fp32" else {"float32": in_float32}
    in_format = found["products"].pop(NAMES[dtype])
    assert found["products"] == others and in_format >= 100


def _in_float32(of: str) -> int:
    """Two mel filters and the gradient of one; HiFi-GAN's last convolution and its gradient."""
    return 3 if "nano" in of else 5


def _assert_one_wait(found: dict[str, Any]) -> None:
    assert len(found["waits"]) == 1 and found["waits"][0].startswith("tolist"), found["waits"]


@pytest.mark.parametrize(("of", "dtype"), COMBINATIONS)
def test_a_step_stays_on_its_device_in_its_format_and_waits_once(report: Report, of: str, dtype: str) -> None:
    found = _ok(report, f"step {of} {dtype}")
    _assert_format(found, dtype, in_float32=_in_float32(of))
    _assert_one_wait(found)
    assert found["places"] == ["cuda:0 float32"] and found["losses"] == ["torch.float32"]
    assert not [upload for upload in found["uploads"] if upload.startswith("blocking at dataset.py")]


def _assert_at_most(found: dict[str, Any], *, operations: int, casts: int) -> None:
    if not torch.__version__.startswith(f"{COUNTED_WITH}."):
        pytest.skip(f"counts are those of torch {COUNTED_WITH}")
    assert found["operations"] <= operations and found["casts"] <= casts


def test_a_step_takes_no_more_operations_and_casts_than_it_did(report: Report) -> None:
    """Its first step, which makes the optimizers' moments as well."""
    _assert_at_most(_ok(report, "step v2 fp16"), operations=1925, casts=96)


def test_a_step_in_portions_stays_on_its_device_and_waits_once(report: Report) -> None:
    found = _ok(report, "portions v2 fp16")
    _assert_format(found, "fp16", in_float32=12)  # of each clip; the discriminators' turn speaks without a graph
    _assert_one_wait(found)
    assert found["places"] == ["cuda:0 float32"] and found["losses"] == ["torch.float32"]


def test_batches_of_clips_in_the_hosts_memory_reach_the_device_without_a_wait(report: Report) -> None:
    found = _ok(report, "host clips")
    assert found["devices"] == ["cuda:0"] and found["batches"] == 3
    assert not found["waits"] and len(found["uploads"]) == 3 * 8
    assert all(upload.startswith("asynchronous") for upload in found["uploads"]), found["uploads"]


def test_a_resumed_training_has_its_moments_and_its_learning_rate_on_the_device(report: Report) -> None:
    found = _ok(report, "resume")
    _assert_one_wait(found)
    assert found["places"] == ["cuda:0 float32"] and found["rates"] == ["FakeTensor cuda:0"]


def test_recorded_turns_hold_nothing_that_a_graph_must_not(report: Report) -> None:
    """Neither waits nor copies from the host; and what a recorded step takes, it takes once and gives back."""
    found = _ok(report, "graphs")
    assert found["within"] == [] and found["shapes"] == [[2, 400]]
    _assert_one_wait(found)
    eager, _, recorded, again = found["held"]
    assert recorded == again > eager == found["after_clear"]


def test_the_second_of_two_processes_works_on_its_own_gpu(report: Report) -> None:
    found = _ok(report, "two ranks")
    _assert_one_wait(found)
    assert found["places"] == ["cuda:1 float32"]
    assert [count for count, *_ in found["sums"][:2]] == found["weights"]
    assert {device for _, device, _ in found["sums"]} == {"cuda:1"}
    assert [dtype for *_, dtype in found["sums"]] == ["torch.bfloat16", "torch.bfloat16", "torch.float32"]


def _assert_recovered(rows: list[dict[str, Any]], clips: int) -> None:
    """With less room fewer clips pass at once; no memory stays held, and the discriminators go on learning."""
    in_discriminators_turn, in_generators_turn, without_any_room = rows
    assert without_any_room["passed"] == 0
    for row in (in_discriminators_turn, in_generators_turn):
        assert 0 < row["passed"] < clips and row["held"] == 0, row
    assert all(row["ran_out"][0] and row["learns"] for row in rows), rows


def test_after_memory_ran_out_not_a_byte_more_is_held(report: Report) -> None:
    _assert_recovered(_ok(report, "recovery v2")["rows"], clips=2)


def test_formats_are_compared_on_the_device_with_few_questions_to_it(report: Report) -> None:
    found = _ok(report, "comparison nano")
    assert found["chosen"] == "bf16" and set(found["products"]) == {"float32", "bfloat16"}
    assert len(found["waits"]) <= 8, found["waits"]


@pytest.mark.parametrize("of", ["v2", "v2-without-f0", "nano"])
def test_validation_speaks_and_measures_on_the_device(report: Report, of: str) -> None:
    found = _ok(report, f"validation {of}")
    assert found["devices"] == ["cuda:0"] and set(found["products"]) == {"float32"}
    assert {"heldout/mel", "heldout/stft"} <= set(found["found"])


# -- full size -----------------------------------------------------------------------------------------------------
@pytest.mark.slow
def test_a_step_of_a_full_size_voice_takes_no_more_than_it_did() -> None:
    found = _ok(run("training_cases.py", "full v2-40k fp16 4"), "full v2-40k fp16 4")
    _assert_one_wait(found)
    assert found["peak_gb"] <= 2.4 and found["moved_gb"] <= 16
    _assert_at_most(found, operations=3800, casts=500)


@pytest.mark.slow
def test_full_size_voices_train_on_the_device_in_every_format() -> None:
    cases = [f"full {of} {dtype} 8" for of in ("v2-40k", "v1-48k", "full-nano") for dtype in NAMES]
    found = run("training_cases.py", *cases, "full portions v2-40k", "full portions full-nano")
    for case in cases:
        _assert_format(_ok(found, case), case.split()[2], in_float32=_in_float32(case))
        _assert_one_wait(found[case])
    assert all(_ok(found, case)["places"] == ["cuda:0 float32"] for case in found)


@pytest.mark.slow
def test_after_memory_ran_out_of_a_full_size_voice_not_a_byte_more_is_held() -> None:
    _assert_recovered(_ok(run("training_cases.py", "full recovery"), "full recovery")["rows"], clips=8)
