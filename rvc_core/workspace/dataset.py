"""Load clips and form batches of tensors: ClipStore, Batch, and the order of clips."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import numpy as np
import soundfile
import torch
from torch.nn.functional import pad

from ..errors import DatasetError
from ..nn.encoders import COARSE_PITCHES
from ..nn.spectrogram import linear_spectrogram
from ..nn.synthesizer import SynthesisNoise, draw_starts
from ..presets import VoiceSpec
from ..system.untrusted import load_array
from .filelist import ClipFiles

BUCKET_FRAMES = 100  # RVC's bucket width
_CACHE_BYTES = 3 << 30  # an hour at 48 kHz; clips beyond it are read again in each epoch
_READERS = 4  # threads, and batches that they are ahead
Item = TypeVar("Item")
Result = TypeVar("Result")


@dataclass(frozen=True)
class ClipTensors:
    """One clip in memory; all parts have the same T frames (100 per second).

    Attributes
    ----------
    content : Tensor (T, D)
    f0_coarse : Tensor (T,) int64
        1..255; all 1 for a voice without f0.
    f0_hz : Tensor (T,)
        0 where unvoiced.
    spectrogram : Tensor (F, T)
        Linear magnitude.
    wave : Tensor (T * hop,)
    """

    content: torch.Tensor
    f0_coarse: torch.Tensor
    f0_hz: torch.Tensor
    spectrogram: torch.Tensor
    wave: torch.Tensor
    speaker: int

    @property
    def frames(self) -> int:
        """Number of frames, T."""
        return len(self.content)

    @property
    def bytes(self) -> int:
        """Memory of all parts, in bytes."""
        return sum(part.nbytes for part in _tensors(self).values())

    def to(self, device: torch.device) -> "ClipTensors":
        """Copy to a device."""
        return replace(self, **{name: part.to(device) for name, part in _tensors(self).items()})

    def excerpt(self, start: int, frames: int) -> "ClipTensors":
        """Cut `frames` frames from `start`."""
        hop, part = len(self.wave) // self.frames, slice(start, start + frames)
        return ClipTensors(
            self.content[part],
            self.f0_coarse[part],
            self.f0_hz[part],
            self.spectrogram[:, part],
            self.wave[start * hop : (start + frames) * hop],
            self.speaker,
        )


@dataclass(frozen=True)
class Batch:
    """B clips, zero-padded at the end to the longest; ``lengths`` (B,) are their real frames.

    A batch can be part of one step's whole batch, with the other clips in another process or pass. The split changes
    neither the random numbers nor the sum of the losses.

    Attributes
    ----------
    noise : SynthesisNoise or None
        All random numbers of a step; None draws from torch's global generator.
    share : float or Tensor ()
        B / clips of the whole batch; 0 for a filler clip in a process that has no clip of its own.
    whole_frames : int or Tensor (), optional
        Frames of the whole batch; the sum of these clips by default.
    """

    content: torch.Tensor
    f0_coarse: torch.Tensor
    f0_hz: torch.Tensor
    spectrogram: torch.Tensor
    wave: torch.Tensor
    lengths: torch.Tensor
    speaker: torch.Tensor
    noise: SynthesisNoise | None = None
    share: float | torch.Tensor = 1.0
    whole_frames: int | torch.Tensor | None = None

    @classmethod
    def of(cls, clips: list[ClipTensors], device: torch.device) -> "Batch":
        """Pad and stack clips; the wave becomes (B, 1, T * hop)."""
        return cls.stacked(clips).on(device)

    @classmethod
    def stacked(cls, clips: list[ClipTensors], *, pinned: bool = False) -> "Batch":
        """Pad and stack clips where they are; `pinned` takes memory of the host from which a GPU copies by itself."""

        def stack(parts: list[torch.Tensor]) -> torch.Tensor:
            padded = torch.nn.utils.rnn.pad_sequence(parts, batch_first=True)
            return padded.pin_memory() if pinned and padded.device.type == "cpu" else padded

        return cls(
            content=stack([clip.content for clip in clips]),
            f0_coarse=stack([clip.f0_coarse for clip in clips]),
            f0_hz=stack([clip.f0_hz for clip in clips]),
            spectrogram=stack([clip.spectrogram.T for clip in clips]).transpose(1, 2),
            wave=stack([clip.wave for clip in clips]).unsqueeze(1),
            lengths=torch.tensor([clip.frames for clip in clips]),
            speaker=torch.tensor([clip.speaker for clip in clips]),
        )

    def on(self, device: torch.device) -> "Batch":
        """The same clips on a device; a GPU copies them while the host goes on."""
        sent: dict[str, Any] = {name: _sent(part, device) for name, part in _tensors(self).items()}
        return replace(self, **sent)

    def padded(self, frames: int) -> "Batch":
        """The same clips with zeros up to `frames` frames, in new tensors, which all parts are."""
        more, hop = frames - self.content.shape[1], self.wave.shape[2] // self.content.shape[1]
        assert self.noise is not None, "drawn by now"
        whole = self.lengths.sum() if self.whole_frames is None else self.whole_frames
        share, whole_frames = (
            number if isinstance(number, torch.Tensor) else torch.full((), number, device=self.wave.device)
            for number in (self.share, whole)
        )
        return Batch(
            pad(self.content, (0, 0, 0, more)),
            pad(self.f0_coarse, (0, more)),
            pad(self.f0_hz, (0, more)),
            pad(self.spectrogram, (0, more)),
            pad(self.wave, (0, more * hop)),
            self.lengths.clone(),
            self.speaker.clone(),
            replace(self.noise, latent=pad(self.noise.latent, (0, more))),
            share,
            whole_frames,
        )

    def tensors(self) -> list[torch.Tensor]:
        """All tensors in it, in a fixed order."""
        return [*_tensors(self).values(), *(_tensors(self.noise).values() if self.noise else ())]

    def part(self, clips: slice) -> "Batch":
        """Some of these clips, as a part of the whole batch and as long: a GPU is not asked which is longest."""
        parts: dict[str, Any] = {name: part[clips] for name, part in _tensors(self).items() if part.dim()}
        return replace(
            self,
            **parts,
            noise=_part(self.noise, clips) if self.noise else None,
            share=self.share * len(parts["lengths"]) / len(self.lengths),
            whole_frames=self.lengths.sum() if self.whole_frames is None else self.whole_frames,
        )


class ClipStore:
    """All clips of a file list, cached in memory up to `_CACHE_BYTES`.

    Parameters
    ----------
    files : list of ClipFiles
    spec : VoiceSpec
    """

    def __init__(self, files: list[ClipFiles], spec: VoiceSpec) -> None:
        self._files, self._spec = files, spec
        self._clips: dict[int, ClipTensors] = {}
        self._frames: list[int] = []
        self._bytes, self._left_bytes = 0, _CACHE_BYTES

    def __len__(self) -> int:
        return len(self._files)

    def __getitem__(self, index: int) -> ClipTensors:
        return self._kept(index, self._read(index))

    def _read(self, index: int) -> ClipTensors:
        return self._clips.get(index) or load_clip(self._files[index], self._spec)

    def _kept(self, index: int, clip: ClipTensors) -> ClipTensors:
        """The same clip, cached if there is room."""
        if index not in self._clips:
            self._left_bytes -= clip.bytes
            if self._left_bytes > 0:
                self._clips[index] = clip
        return clip

    def _read_all(self) -> None:
        """Read every clip once, cache what there is room for, and remember how long and how large all are."""
        if not self._frames:
            clips = [
                (clip.frames, self._kept(index, clip).bytes)
                for index, clip in enumerate(read_ahead(self._read, range(len(self))))
            ]
            self._frames, self._bytes = [frames for frames, _ in clips], sum(size for _, size in clips)

    def reside(self, device: torch.device, room_bytes: float) -> bool:
        """Move all clips to a device if they fit into `room_bytes`; returns whether they do."""
        self._read_all()
        if self._bytes > room_bytes or len(self._clips) < len(self):
            return False
        self._clips = {index: clip.to(device) for index, clip in self._clips.items()}
        return True

    def batches(
        self,
        batch_size: int,
        *,
        seed: tuple[int, int],
        skip: int,
        device: torch.device,
        place: tuple[int, int] = (0, 1),
    ) -> Iterator[Batch]:
        """Yield the batches of one epoch, without the first `skip`. They depend only on `seed` (run, epoch).

        A clip longer than the architecture's `excerpt_frames` gives a random excerpt, a new one in each epoch. With
        `place` (process, number of processes), yield only this process's clips of each batch of `batch_size`.
        """
        self._read_all()
        frames, longest, pinned = self._frames, self._spec.excerpt_frames, device.type == "cuda"
        starts = np.random.default_rng((*seed, 1)).integers(0, [max(1, count - longest + 1) for count in frames])
        mine = slice(place[0], None, place[1])
        order = [*enumerate(bucket_batches(frames, batch_size, seed=seed))][skip:]

        def read(indices: list[int]) -> Batch:
            clips = [self._read(index).excerpt(int(starts[index]), longest) for index in indices]
            return Batch.stacked(clips, pinned=pinned)

        own = [indices[mine] or indices[:1] for _, indices in order]
        at_hand = len(self._clips) == len(self) and self._clips[0].content.device == device
        for (number, indices), batch in zip(order, (map if at_hand else read_ahead)(read, own), strict=True):
            lengths = [min(frames[index], longest) for index in indices]
            here = mine if indices[mine] else slice(1)
            noise = draw_noise(lengths, self._spec, seed=(*seed, 2, number), device=device)
            yield replace(
                batch.on(device),
                noise=_part(noise, here, max(lengths[here])),
                whole_frames=sum(lengths),
                share=len(indices[mine]) / len(indices),
            )


def read_ahead(read: Callable[[Item], Result], items: Iterable[Item]) -> Iterator[Result]:
    """Yield what `read` makes of each item, in order; threads work on the next items. What it raises is raised here.

    Examples
    --------
    >>> [*read_ahead(str, range(3))]
    ['0', '1', '2']
    """
    waiting: deque[Future[Result]] = deque()
    with ThreadPoolExecutor(_READERS, "clips") as pool:
        try:
            for item in items:
                waiting.append(pool.submit(read, item))
                if len(waiting) > _READERS:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for each in waiting:
                each.cancel()


def _tensors(of: Any) -> dict[str, Any]:
    """The tensors among the values of a dataclass, by name."""
    return {name: part for name, part in vars(of).items() if isinstance(part, torch.Tensor)}


def _sent(tensor: torch.Tensor, device: torch.device) -> torch.Tensor:
    """A tensor on a device; copies from the host to a GPU are not waited for."""
    if device.type == "cuda" and tensor.device.type == "cpu":
        return tensor.pin_memory().to(device, non_blocking=True)  # which memory is pinned already stays as it is
    return tensor.to(device)


def draw_noise(lengths: list[int], spec: VoiceSpec, *, seed: tuple[int, ...], device: torch.device) -> SynthesisNoise:
    """All random numbers of a training step on clips of these lengths; they depend only on `seed`."""

    def normal(*shape: int) -> torch.Tensor:
        return torch.randn(len(lengths), *shape, generator=random, device=device)

    random = torch.Generator(device).manual_seed(int(np.random.SeedSequence(seed).generate_state(1)[0]))
    source = normal(1, spec.segment_frames * spec.hop_samples) if spec.uses_f0 else None
    return SynthesisNoise(
        normal(spec.inter_channels, max(lengths)),
        source,
        starts=draw_starts(_sent(torch.tensor(lengths), device), spec.segment_frames, random),
    )


def _part(noise: SynthesisNoise, clips: slice, frames: int | None = None) -> SynthesisNoise:
    parts = {name: part[clips] for name, part in _tensors(noise).items()}
    return replace(noise, **parts | {"latent": parts["latent"][..., :frames]})


def bucket_batches(frames: list[int], batch_size: int, *, seed: tuple[int, int]) -> list[list[int]]:
    """Batches of clips of similar length, each clip exactly once, in random order.

    RVC drops clips under 100 frames and repeats clips to fill each bucket of 100 frames. This function uses each clip
    once: it joins the buckets before it cuts them into batches.

    Parameters
    ----------
    frames : list of int
        Length of each clip.
    seed : (int, int)
        Seed of the run and epoch.

    Examples
    --------
    >>> sorted(sum(bucket_batches([370, 90, 370, 200, 370], 2, seed=(1, 1)), []))
    [0, 1, 2, 3, 4]
    """
    random = np.random.default_rng(seed)
    order = random.permutation(len(frames))
    buckets = np.asarray(frames)[order] // BUCKET_FRAMES
    order = order[np.argsort(buckets, kind="stable")]
    batches = [order[start : start + batch_size].tolist() for start in range(0, len(order), batch_size)]
    return [batches[position] for position in random.permutation(len(batches))]


def load_clip(files: ClipFiles, spec: VoiceSpec) -> ClipTensors:
    """Read one clip and cut all its parts to the same length.

    Raises
    ------
    DatasetError
        When a file is missing or not finite, or has another sample rate or width than the voice.
    """
    try:
        wave, rate = soundfile.read(files.wave, dtype="float32")
        features = load_array(files.features).astype(np.float32)
        if spec.uses_f0 and files.f0_hz and files.f0_coarse:
            f0_hz = load_array(files.f0_hz).astype(np.float32)
            coarse = load_array(files.f0_coarse).astype(np.int64)
        else:
            f0_hz, coarse = np.zeros(2 * len(features), np.float32), np.ones(2 * len(features), np.int64)
    except (OSError, DatasetError, soundfile.LibsndfileError) as error:
        raise DatasetError(f"clip {files.wave.stem}: {error}", hint="run: rvc extract NAME") from error
    if rate != spec.sample_rate or wave.ndim != 1 or features.ndim != 2 or features.shape[1] != spec.content_width:
        raise DatasetError(
            f"clip {files.wave.stem}: {rate} Hz and features {features.shape} do not match the voice's "
            f"{spec.sample_rate} Hz and width {spec.content_width}",
            hint="run rvc prepare NAME, then rvc extract NAME",
        )
    content = np.repeat(features, 2, axis=0)
    frames = min(len(content), len(f0_hz), len(coarse), len(wave) // spec.hop_samples)
    if frames == 0 or not (np.isfinite(content).all() and np.isfinite(f0_hz).all() and np.isfinite(wave).all()):
        raise DatasetError(f"clip {files.wave.stem} is empty or not finite", hint="run: rvc extract NAME")
    if not (0 <= coarse.min() and coarse.max() < COARSE_PITCHES and 0 <= files.speaker < spec.speakers):
        raise DatasetError(  # a GPU would stop with an error that names nothing
            f"clip {files.wave.stem}: coarse pitch from {coarse.min()} to {coarse.max()} and speaker {files.speaker} "
            f"are not all below {COARSE_PITCHES} and {spec.speakers}",
            hint="run: rvc extract NAME",
        )
    wave_tensor = torch.from_numpy(wave)
    spectrogram = linear_spectrogram(wave_tensor[None], spec)[0]
    return ClipTensors(
        torch.from_numpy(content[:frames]),
        torch.from_numpy(coarse[:frames]),
        torch.from_numpy(f0_hz[:frames]),
        spectrogram[:, :frames],
        wave_tensor[: frames * spec.hop_samples],
        files.speaker,
    )
