"""What `rvc check --gpu` and the sections of `benchmarks/gpu.py` measure, tried on a CPU, where numbers mean little."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from rvc_core.presets import preset
from rvc_core.system.installation import gpu_report
from rvc_core.training import preflight as preflight_module
from rvc_core.training.preflight import noisy_clip, preflight
from rvc_core.training.step import Networks

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
sys.path.insert(0, str(BENCHMARKS))
import gpu  # noqa: E402
import measured  # noqa: E402

FRAMES = 60

SMALL = ("environment", "equal", "conversion", "formats", "scarcity", "nccl", "pairs")
LARGE = ("waiting", "training", "journey", "estimators", "flight")


@pytest.fixture
def short(tiny: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Few steps on short clips."""
    for module in (preflight_module, measured):
        monkeypatch.setattr(module, "noisy_clip", lambda spec: noisy_clip(spec, FRAMES))
    monkeypatch.setattr(preflight_module, "_STEPS", 3)


def test_preflight_measures_what_training_will_do(short: None) -> None:
    report = preflight("nano", preset("nano"), torch.device("cpu"))
    assert (report.gpu, report.precision, report.is_recorded) == ("cpu", "fp32", False)
    assert 1 <= report.clips_per_step <= 16 and report.step_seconds > 0
    clips = 10 * 60 * 100 / FRAMES
    steps = 200 * -(-clips // report.clips_per_step)
    assert report.hours == pytest.approx(steps * report.step_seconds / 3600, abs=0.01)


def test_check_says_that_there_is_no_gpu_to_measure() -> None:
    if torch.cuda.is_available():
        pytest.skip("there is one")
    assert "no GPU to measure" in gpu_report()


def test_the_small_sections_of_the_gpu_benchmark_run_on_a_cpu(short: None) -> None:
    bench = gpu.Bench("cpu", "nano", None)
    report = gpu.run(bench, [*SMALL], budget_seconds=120)
    assert bench.failed == [] and set(SMALL) <= report.keys()
    assert report["equal"]["to_the_cpu"] == 0 == report["equal"]["recorded_and_eager_apart"]
    assert report["conversion"]["ours_times_real_time"] > 0
    json.dumps(report, default=str)


def test_the_gpu_benchmark_notices_a_step_that_is_another(short: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Weights that differ from one device to the next, as a broken kernel makes them."""
    seeds = iter(range(100))
    real = Networks.fresh.__func__
    monkeypatch.setattr(
        Networks,
        "fresh",
        classmethod(lambda cls, spec, *, seed, device: real(cls, spec, seed=next(seeds), device=device)),
    )
    bench = gpu.Bench("cpu", "nano", None)
    gpu.run(bench, ["equal"], budget_seconds=60)
    assert "a float32 step has the CPU's losses" in bench.failed


def test_the_gpu_benchmark_notices_a_separator_that_is_another(monkeypatch: pytest.MonkeyPatch) -> None:
    from rvc_core.separation.embedded import EmbeddedSeparator

    real, calls = EmbeddedSeparator.__call__, iter(range(100))
    monkeypatch.setattr(EmbeddedSeparator, "__call__", lambda *words: real(*words) * (1 + 0.01 * next(calls)))
    bench = gpu.Bench("cpu", "nano", None)
    report = gpu.run(bench, ["separation"], budget_seconds=60)
    assert bench.failed == ["the embedded separator is as on the CPU"]
    assert report["separation"]["fp16"]["s_per_minute"] > 0


def test_a_section_that_raises_is_noted_and_the_others_go_on(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(bench: gpu.Bench) -> dict[str, object]:
        raise RuntimeError("CUDA error: misaligned address")

    monkeypatch.setattr(gpu, "SECTIONS", (broken, gpu.environment))
    bench = gpu.Bench("cpu", "nano", None)
    report = gpu.run(bench, [], budget_seconds=60)
    assert report["failed"] == ["broken: RuntimeError"] and "misaligned" in report["broken"]["error"]
    assert "torch" in report["environment"]


@pytest.mark.slow
def test_the_large_sections_of_the_gpu_benchmark_run_on_a_cpu(tmp_path: Path) -> None:
    output = tmp_path / "gpu.json"
    options = ["--device", "cpu", "--preset", "nano", "--budget", "600", "--output", str(output)]
    done = subprocess.run([sys.executable, str(BENCHMARKS / "gpu.py"), *LARGE, *options], check=False)
    report = json.loads(output.read_text())
    assert done.returncode == 0 and report["failed"] == [] and set(LARGE) <= report.keys()


def test_what_was_measured_is_kept_for_the_plan(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from rvc_core.cli import main
    from rvc_core.system import devices
    from rvc_core.training.capacity import Machine

    told = preflight_module.GpuReport("Tesla T4", "2.11", "v2-40k", "fp16", "", 7, 0.31, 1 << 30, True, 1.0)
    monkeypatch.setenv("RVC_HOME", str(tmp_path))
    monkeypatch.setattr(devices, "choose_device", lambda: devices.Device("cuda:0", "pretended"))
    monkeypatch.setattr(preflight_module, "preflight", lambda *arguments: told)
    main(["check", "--gpu", "--json"])
    monkeypatch.setattr("rvc_core.training.capacity.list_gpus", lambda: [devices.Gpu("Tesla T4", 15.0, (7, 5))])
    measured = Machine.here().measured
    assert measured is not None and (measured["clips_per_step"], measured["step_seconds"]) == (7, 0.31)
