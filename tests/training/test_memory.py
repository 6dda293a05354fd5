"""How many clips fit: found by trying, with a reserve, whatever way memory has of running out."""

import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from rvc_core.training import memory
from rvc_core.training.memory import DeviceUse, Portions, available_bytes, largest_batch, measured_memory

CPU = torch.device("cpu")


@pytest.mark.parametrize(
    ("per_clip", "base", "most", "expected"),
    [(1, 0, 64, 21), (1, 5, 64, 16), (3, 0, 64, 7), (30, 0, 64, 1), (1, 0, 16, 16), (0, 20, 4, 4), (1, 0, 5, 5)],
)
def test_the_largest_batch_leaves_a_reserve(per_clip: int, base: int, most: int, expected: int) -> None:
    """Memory for 25; 15 % of it are not used, and what is above raises."""

    def peak(clips: int) -> int:
        if base + per_clip * clips > 25:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return base + per_clip * clips

    assert largest_batch(peak, 25, most) == expected


def test_a_failure_of_another_kind_is_not_taken_for_a_lack_of_memory() -> None:
    def broken(*_: object) -> int:
        raise RuntimeError("shapes do not fit")

    with pytest.raises(RuntimeError, match="shapes"):
        largest_batch(broken, 25)
    with pytest.raises(RuntimeError, match="shapes"):
        Portions(4).attempt(4, broken)


def test_portions_halve_until_one_clip_is_too_much() -> None:
    def full(parts: list[slice]) -> None:
        tried.append(parts[0].stop)
        raise RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling cublasCreate")

    tried: list[int] = []
    said: list[str] = []
    portions = Portions(7)
    portions.tell = said.append
    with pytest.raises(torch.OutOfMemoryError):
        portions.attempt(5, full)
    assert tried == [5, 2, 1]
    assert [line.split(" at once")[0] for line in said] == [
        "memory ran out: 2 clips pass",
        "memory ran out: 1 clip passes",
    ]


def test_a_process_may_have_what_it_has_and_what_is_free() -> None:
    with measured_memory(CPU) as measured:
        held = torch.ones(20_000_000)
    assert measured.peak_bytes > held.nbytes
    assert measured.peak_bytes < available_bytes(CPU) < 1 << 45


def test_files_that_a_container_has_cached_are_no_lack(monkeypatch: pytest.MonkeyPatch) -> None:
    """2 GB allowed, 1.9 GB of them used, 1.5 GB of that by files that can be read again."""
    read, told = (
        Path.read_text,
        {
            "memory.max": "2000000000",
            "memory.current": "1900000000",
            "memory.stat": "anon 5\ninactive_file 1500000000\n",
        },
    )
    monkeypatch.setattr(Path, "read_text", lambda path, *_: told.get(path.name) or read(path))
    assert available_bytes(CPU) - memory._own_bytes() == pytest.approx(1.6e9)


def test_a_gpu_is_asked_for_its_own_figures(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, answer in (
        ("mem_get_info", (900, 2000)),
        ("memory_reserved", 100),
        ("max_memory_reserved", 700),
        ("reset_peak_memory_stats", None),
    ):
        monkeypatch.setattr(torch.cuda, name, lambda device, answer=answer: answer)
    gpu = torch.device("cuda:0")
    with measured_memory(gpu) as measured:
        pass
    assert (available_bytes(gpu), measured.peak_bytes) == (1000, 700)


def test_the_driver_is_asked_how_busy_the_gpu_is(monkeypatch: pytest.MonkeyPatch) -> None:
    class NVMLError(Exception):
        pass

    def busy(device: torch.device) -> int:
        if asked := answers.pop(0):
            return asked if device == torch.device("cuda:1") else 0
        raise NVMLError("Not Supported")

    answers = [None, 87, None, None]
    monkeypatch.setitem(sys.modules, "pynvml", SimpleNamespace(NVMLError=NVMLError))
    monkeypatch.setattr(torch.cuda, "utilization", busy)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: ((15360 - 9830) << 20, 15360 << 20))
    use = DeviceUse(torch.device("cuda:1"))
    assert str(use) == str(use) == ""  # no answer; asked again after five seconds only
    monkeypatch.setattr(memory, "_ASK_SECONDS", -1)
    assert str(use) == "GPU 87 %, 9.6 of 15 GB"
    assert str(use) == "GPU 87 %, 9.6 of 15 GB"  # a driver that is gone is no reason to fail
    assert len(answers) == 1


def test_a_process_without_a_gpu_tells_its_own_memory() -> None:
    gigabytes = float(str(DeviceUse(CPU)).removesuffix(" GB"))
    status = Path("/proc/self/status").read_text()
    assert gigabytes == pytest.approx(int(status.split("VmRSS:")[1].split()[0]) / 1e6, abs=0.1)


@pytest.mark.slow
def test_a_real_lack_of_memory_is_recognised_and_survived() -> None:
    """The system refuses this process more than 300 MB above what it has after the first import."""
    code = (
        "import resource, torch; from rvc_core.training.memory import Portions;"
        "now = 1024 * int(open('/proc/self/status').read().split('VmSize:')[1].split()[0]);"
        "resource.setrlimit(resource.RLIMIT_AS, (now + 300_000_000, -1)); portions = Portions(8);"
        "work = lambda parts: [float(torch.ones((part.stop - part.start) * 25_000_000).sum()) for part in parts];"
        "print(sum(portions.attempt(8, work)), portions.clips)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout.split() == ["200000000.0", "2"], done.stderr
