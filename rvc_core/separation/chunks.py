"""Separate sound of any length in chunks that overlap, with memory that does not depend on the length."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from ..system.memory import is_out_of_memory, release

_SMALLEST_CHUNK_SECONDS = 1.0


class Separator(Protocol):
    """What separates one kind of sound from the rest.

    Attributes
    ----------
    name : str
        As reports show it.
    rate_hz : int
        Sample rate that it needs; 0: any.
    chunk_seconds : float
        How much it takes at once, as it was trained.
    batch : int
        Chunks at once.
    """

    name: str
    rate_hz: int
    chunk_seconds: float
    batch: int

    def __call__(self, chunks: Tensor, rate_hz: int) -> Tensor:
        """The wanted sound (B, 2, N) of chunks (B, 2, N)."""


class Chunks:
    """Joins chunks of a separator with crossfades whose weights sum to exactly one.

    Parameters
    ----------
    separator : Separator
    rate_hz : int
        Of the samples that come in.
    overlap : float
        Share of a chunk that its neighbour computes too.
    advance : callable
        Called after each chunk.
    tell : callable
        Takes one line whenever memory ran out.

    Examples
    --------
    >>> class Half:
    ...     name, rate_hz, chunk_seconds, batch = "half", 0, 2.0, 3
    ...     def __call__(self, chunks, rate_hz):
    ...         return chunks / 2
    >>> blocks = [np.ones((2, 700), np.float32)] * 10
    >>> made = np.concatenate(list(Chunks(Half(), 1000, 0.25)(blocks)), axis=1)
    >>> made.shape, float(np.abs(made - 0.5).max()) < 1e-6
    ((2, 7000), True)
    """

    def __init__(
        self,
        separator: Separator,
        rate_hz: int,
        overlap: float,
        advance: Callable[[], object] = bool,
        tell: Callable[[str], object] = str,
    ) -> None:
        self._separator, self._rate, self._overlap, self._advance, self._tell = (
            separator,
            rate_hz,
            overlap,
            advance,
            tell,
        )
        self._batch, self._seconds = separator.batch, separator.chunk_seconds

    def __call__(self, blocks: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
        """The wanted sound of blocks (2, n), in blocks of other lengths; in all as many samples as came in."""
        length = round(self._seconds * self._rate)
        step = length - int(self._overlap * length)
        window = _window(length, length - step)
        waiting = np.zeros((2, 0), np.float32)
        total = np.zeros((2, length), np.float32)
        weight = np.zeros(length, np.float32)
        source, come, gone, ended = iter(blocks), 0, 0, False
        while not ended or gone < come:
            many = length + (self._batch - 1) * step
            pieces = [waiting]
            have = waiting.shape[1]
            while not ended and have < many:
                block = next(source, None)
                ended = block is None
                if block is not None:
                    pieces.append(block)
                    have, come = have + block.shape[1], come + block.shape[1]
            waiting = np.concatenate(pieces, axis=1)
            if gone == come:
                return
            count = min(self._batch, -(-(come - gone) // step)) if ended else self._batch
            lacking = max(0, length + (count - 1) * step - have)
            padded = np.pad(waiting, ((0, 0), (0, lacking)), mode="symmetric")  # as loud as the end, unlike silence
            made = self._computed(np.stack([padded[:, k * step : k * step + length] for k in range(count)]))
            for piece in made:
                total += piece * window
                weight += window
                ready = min(step, come - gone)
                if ready > 0:
                    yield total[:, :ready] / weight[:ready]
                gone += ready
                total = np.pad(total[:, step:], ((0, 0), (0, step)))
                weight = np.pad(weight[step:], (0, step))
                self._advance()
            waiting = waiting[:, count * step :]

    def _computed(self, chunks: np.ndarray) -> np.ndarray:
        """Run the separator on chunks (B, 2, N); with less at once whenever memory runs out."""
        while True:
            try:
                done = [self._separated(chunks[at : at + self._batch]) for at in range(0, len(chunks), self._batch)]
                return np.concatenate(done)
            except (RuntimeError, MemoryError) as error:
                if not is_out_of_memory(error, self._batch):
                    raise
                if self._batch == 1 and self._seconds < 2 * _SMALLEST_CHUNK_SECONDS:
                    raise
            release()
            if self._batch > 1:
                self._batch //= 2
            else:
                self._seconds /= 2
            self._tell(f"memory ran out: {self._batch} chunks of {self._seconds:.1f} s at once now")

    def _separated(self, chunks: np.ndarray) -> np.ndarray:
        """Chunks as they are, or in parts of `_seconds` with a crossfade, where memory ran out before."""
        length, part = chunks.shape[-1], round(self._seconds * self._rate)
        with torch.inference_mode():
            if part >= length:
                return self._separator(torch.from_numpy(chunks), self._rate).float().cpu().numpy()
            fade = part // 4
            starts = [*range(0, length - part, part - fade), length - part]
            total, weight, window = np.zeros_like(chunks), np.zeros(length, np.float32), _window(part, fade)
            for start in starts:
                piece = slice(start, start + part)
                made = self._separator(torch.from_numpy(np.ascontiguousarray(chunks[..., piece])), self._rate)
                total[..., piece] += made.float().cpu().numpy() * window
                weight[piece] += window
            return total / weight


def _window(length: int, overlap: int) -> np.ndarray:
    """Weights (length,) of a chunk: they rise and fall over the overlap, at most over half of the chunk."""
    distance = np.minimum(np.arange(length), np.arange(length)[::-1]) + 1.0
    return np.minimum(1.0, distance / max(1, min(overlap, length // 2))).astype(np.float32)


class Resampled:
    """Carries blocks to the rate of a separator and its result back, aligned with what came in."""

    def __init__(
        self, chunks: Callable[[Iterable[np.ndarray]], Iterator[np.ndarray]], rate_hz: int, own_hz: int
    ) -> None:
        self._chunks, self._rate, self._own = chunks, rate_hz, own_hz

    def __call__(self, blocks: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
        """As `Chunks`."""
        come = [0]

        def counted() -> Iterator[np.ndarray]:
            for block in blocks:
                come[0] += block.shape[1]
                yield block

        gone, held = 0, np.zeros((2, 0), np.float32)
        for block in _rate_changed(
            self._chunks(_rate_changed(counted(), self._rate, self._own)), self._own, self._rate
        ):
            block = np.concatenate([held, block], axis=1)
            ready = max(0, min(block.shape[1], come[0] - gone))  # never more than came in
            yield block[:, :ready]
            held, gone = block[:, ready:], gone + ready
        if gone < come[0]:
            yield np.pad(held, ((0, 0), (0, max(0, come[0] - gone - held.shape[1]))))[:, : come[0] - gone]


def _rate_changed(blocks: Iterable[np.ndarray], from_hz: int, to_hz: int) -> Iterator[np.ndarray]:
    import soxr

    stream = soxr.ResampleStream(from_hz, to_hz, 2, dtype="float32", quality="HQ")
    for block in blocks:
        yield stream.resample_chunk(np.ascontiguousarray(block.T)).T
    yield stream.resample_chunk(np.zeros((0, 2), np.float32), last=True).T


def split(
    separate: Callable[[Iterable[np.ndarray]], Iterator[np.ndarray]], blocks: Iterable[np.ndarray]
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Pairs (wanted, rest) of blocks (2, n); both sum to what came in, whatever the separator does."""
    held: deque[np.ndarray] = deque()

    def kept() -> Iterator[np.ndarray]:
        for block in blocks:
            held.append(block)
            yield block

    for wanted in separate(kept()):
        at = 0
        while at < wanted.shape[1]:
            size = min(held[0].shape[1], wanted.shape[1] - at)
            piece, mix = wanted[:, at : at + size], held[0][:, :size]
            yield piece, mix - piece
            at += size
            if size == held[0].shape[1]:
                held.popleft()
            else:
                held[0] = held[0][:, size:]
