"""Chunks: whatever the length, what comes out is aligned, has no seams, and sums to what came in."""

import numpy as np
import pytest
import torch

from rvc_core.separation.chunks import Chunks, Resampled, split

RATE_HZ = 1000


class Half:
    """Gives half of what it gets, late or early never; remembers how much it got at once."""

    name, rate_hz, chunk_seconds, batch = "half", 0, 2.0, 4

    def __init__(self, fits: int = 10**9) -> None:
        self.fits, self.seen = fits, []

    def __call__(self, chunks: torch.Tensor, rate_hz: int) -> torch.Tensor:
        if chunks.numel() > self.fits:
            raise torch.OutOfMemoryError("CUDA out of memory")
        self.seen.append(tuple(chunks.shape))
        return chunks / 2


def blocks_of(samples: np.ndarray, size: int = 700) -> list[np.ndarray]:
    return [samples[:, at : at + size] for at in range(0, samples.shape[1], size)]


def noise(frames: int) -> np.ndarray:
    return np.random.default_rng(0).standard_normal((2, frames)).astype(np.float32)


@pytest.mark.parametrize("overlap", [0.0, 0.25, 0.5, 0.75])
@pytest.mark.parametrize("frames", [1, 300, 1499, 1500, 1501, 2000, 2001, 7000, 23_456])
def test_what_comes_out_is_aligned_and_as_long(frames, overlap):
    samples, told = noise(frames), []
    made = np.concatenate(list(Chunks(Half(), RATE_HZ, overlap, lambda: told.append(1))(blocks_of(samples))), axis=1)
    assert made.shape == samples.shape and np.abs(made - samples / 2).max() < 1e-6
    step = 2000 - int(2000 * overlap)
    assert len(told) == -(-frames // step), "one advance a chunk, and none more"


def test_nothing_comes_of_nothing():
    assert list(Chunks(Half(), RATE_HZ, 0.25)([])) == []


def test_a_chunk_that_differs_from_its_neighbours_fades_over():
    class Counting(Half):
        batch = 1

        def __call__(self, chunks, rate_hz):
            self.seen.append(0)
            return torch.full_like(chunks, float(len(self.seen)))

    made = np.concatenate(list(Chunks(Counting(), RATE_HZ, 0.25)(blocks_of(noise(6000)))), axis=1)[0]
    assert np.abs(np.diff(made)).max() < 1.1 / 500, "a step of 1 spread over the 500 samples of the overlap"
    assert (np.diff(made) >= -1e-6).all() and made[0] == 1


@pytest.mark.parametrize(("fits", "largest"), [(2 * 2 * 2000, 2), (2 * 2000, 1), (2 * 1000, 1)])
def test_memory_that_runs_out_halves_the_batch_then_the_chunk(fits, largest):
    samples, said, separator = noise(23_456), [], Half(fits)
    made = np.concatenate(list(Chunks(separator, RATE_HZ, 0.25, tell=said.append)(blocks_of(samples))), axis=1)
    assert made.shape == samples.shape and np.abs(made - samples / 2).max() < 1e-6
    assert max(shape[0] for shape in separator.seen) == largest and said[-1].startswith("memory ran out")


def test_other_failures_and_hopeless_ones_are_told():
    with pytest.raises(torch.OutOfMemoryError):
        list(Chunks(Half(10), RATE_HZ, 0.25)(blocks_of(noise(5000))))

    class Broken(Half):
        def __call__(self, chunks, rate_hz):
            raise RuntimeError("a fault of its own")

    with pytest.raises(RuntimeError, match="of its own"):
        list(Chunks(Broken(), RATE_HZ, 0.25)(blocks_of(noise(5000))))


@pytest.mark.parametrize("rate_hz", [8000, 22_050, 48_000])
def test_another_rate_and_back_is_aligned(rate_hz):
    class Whole(Half):
        def __call__(self, chunks, rate_hz):
            return chunks

    time = np.arange(rate_hz * 7 + 13) / rate_hz
    samples = np.stack([np.sin(2 * np.pi * 440 * time), np.sin(2 * np.pi * 300 * time)]).astype(np.float32)
    work = Resampled(Chunks(Whole(), 44_100, 0.25), rate_hz, 44_100)
    made = np.concatenate(list(work(blocks_of(samples, 4096))), axis=1)
    assert made.shape == samples.shape
    assert np.abs(made - samples)[:, 500:-500].max() < 1e-3


def test_both_sides_sum_to_what_came_in_however_the_blocks_fall():
    samples = noise(10_000)
    wanted, rest = (
        np.concatenate(side, axis=1)
        for side in zip(*split(Chunks(Half(), RATE_HZ, 0.25), blocks_of(samples, 333)), strict=True)
    )
    assert np.abs(wanted + rest - samples).max() < 1e-6 and wanted.shape == samples.shape
