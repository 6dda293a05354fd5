"""Conversion, encoders, pitch and index on a fake GPU: no device is mixed, and the host waits only for results."""

from typing import Any

import pytest
from results import needs_compiler, run, run_quick

pytestmark = needs_compiler
Report = dict[str, dict[str, Any]]


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Report:
    return run_quick(tmp_path_factory)


def _ok(report: Report, case: str) -> dict[str, Any]:
    """What a case found; a device that was mixed is an error of the case."""
    assert "error" not in report[case], report[case]["error"]
    assert set(report[case]["products"]) == {"float32"}
    return report[case]


def _assert_converted(found: dict[str, Any]) -> None:
    """Five windows, the three in the middle at once: the host waits for audio, features and neighbours only."""
    assert found["length"] == pytest.approx(51, abs=0.01)
    assert all(wait.startswith("copy of") for wait in found["waits"]), found["waits"]
    assert sum("convert.py" in wait for wait in found["waits"]) == 3
    assert {wait.split(" at ")[1].split(":")[0] for wait in found["waits"]} <= {
        "content.py",
        "retrieval.py",
        "convert.py",
    }


@pytest.mark.parametrize("of", ["v2", "v2-without-f0", "nano"])
def test_a_recording_is_converted_on_the_device_window_by_window(report: Report, of: str) -> None:
    _assert_converted(_ok(report, f"conversion {of}"))


@pytest.mark.parametrize(("name", "width"), [("embedded", 256), ("contentvec", 256), ("contentvec", 768)])
def test_a_content_encoder_waits_for_its_features_only(report: Report, name: str, width: int) -> None:
    found = _ok(report, f"encoder {name} {width}")
    assert found["shape"] == [49, width] and len(found["waits"]) == 1, found["waits"]
    assert found["operations"] > 100


@pytest.mark.parametrize(("method", "waits"), [("rmvpe", 1), ("fcpe", 3), ("crepe", 1)])
def test_a_pitch_network_waits_for_its_pitch_only(report: Report, method: str, waits: int) -> None:
    """The package of FCPE asks the device twice more."""
    found = _ok(report, f"pitch {method}")
    assert found["shape"] == [100] and len(found["waits"]) == waits, found["waits"]
    assert found["operations"] > 50


def test_the_index_is_searched_on_the_device(report: Report) -> None:
    found = _ok(report, "index search")
    assert found["shape"] == [300, 768] and found["operations"] >= 20
    assert len(found["waits"]) == 4  # distances and neighbours of two blocks


@pytest.mark.slow
@pytest.mark.parametrize("of", ["full-v2", "full-nano"])
def test_a_full_size_voice_converts_on_the_device(of: str) -> None:
    _assert_converted(_ok(run("inference_cases.py", f"full conversion {of}"), f"full conversion {of}"))
