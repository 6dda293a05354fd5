"""Training on a fake GPU: ``python training_cases.py NAME ...`` prints a line of JSON for each case."""

# isort: off
from fake_gpu import GPU, FakeGpu, counts, report  # before torch

# isort: on
import gc
import sys
import tempfile
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
import torch.distributed
from torch.testing._internal.distributed.fake_pg import FakeStore

from rvc_core.presets import PRESETS, VoiceSpec
from rvc_core.training import precision, start, validate
from rvc_core.training.distributed import ALONE, Ranks
from rvc_core.training.graphs import StepGraphs, Turn
from rvc_core.training.memory import Portions
from rvc_core.training.precision import DTYPES
from rvc_core.training.step import Gradients, Networks, StepResult, train_step
from rvc_core.workspace import dataset
from rvc_core.workspace.checkpoint import Checkpoint, on_host
from rvc_core.workspace.dataset import Batch, ClipTensors, _part, draw_noise
from rvc_core.workspace.filelist import read_filelist
from tiny import TINY, experiment

LIMITS = (("of_discriminator", 0.9), ("of_generator", 0.75), ("of_generator", 0.0))
FRAMES = 370  # of RVC's clips
SMALL: dict[str, Any] = {
    "inter_channels": 16,
    "hidden_channels": 16,
    "filter_channels": 32,
    "layers": 1,
    "posterior_layers": 1,
    "upsample_channels": 64,
    "resblock_kernels": (3,),
    "resblock_dilations": ((1,),),
    "discriminator_periods": (2,),
    "discriminator_divisor": 16,
}
SMALL_V2 = replace(PRESETS["v2-40k"], upsample_rates=(20, 20), upsample_kernels=(40, 40), **SMALL)
SPECS = {
    "v2": SMALL_V2,
    "v2-without-f0": replace(SMALL_V2, uses_f0=False),
    "nano": replace(TINY, discriminator_periods=(2,), resblock_dilations=((1,),)),
    **{name: PRESETS[name] for name in ("v2-40k", "v1-48k")},
}
SPECS["full-nano"] = PRESETS["nano"]


def clip_of(spec: VoiceSpec, frames: int, device: torch.device) -> ClipTensors:
    """A clip as `ClipStore` holds it."""
    return ClipTensors(
        torch.zeros(frames, spec.content_width, device=device),
        torch.ones(frames, dtype=torch.int64, device=device),
        torch.ones(frames, device=device),
        torch.zeros(spec.spectrogram_bins, frames, device=device),
        torch.zeros(frames * spec.hop_samples, device=device),
        0,
    )


def clips_of(spec: VoiceSpec, count: int, device: torch.device) -> list[ClipTensors]:
    """Clips of different lengths."""
    return [clip_of(spec, min(FRAMES, spec.excerpt_frames) - 3 * number, device) for number in range(count)]


def batch_of(clips: list[ClipTensors], spec: VoiceSpec, device: torch.device = GPU) -> Batch:
    """A batch as `ClipStore.batches` makes it."""
    lengths = [clip.frames for clip in clips]
    noise = draw_noise(lengths, spec, seed=(1, 2), device=device)
    return replace(
        Batch.of(clips, device), noise=_part(noise, slice(None), max(lengths)), whole_frames=sum(lengths), share=1.0
    )


def networks_of(spec: VoiceSpec, dtype: str, device: torch.device = GPU) -> Networks:
    """Random networks that compute in this format."""
    networks = Networks.fresh(spec, seed=1, device=device)
    networks.compute_in(DTYPES[dtype])
    return networks


def places_of(networks: Networks, ranks: Ranks = ALONE) -> list[str]:
    """Devices and formats of all weights, gradients and moments, each once."""
    tensors = [weight for network in (networks.generator, networks.discriminator) for weight in network.parameters()]
    moments = [
        value
        for optimizer in (networks.generator_optimizer, networks.discriminator_optimizer)
        for state in optimizer.state.values()
        for value in state.values()
    ]
    assert len(moments) == 3 * len(tensors)
    return sorted({f"{tensor.device} {str(tensor.dtype).removeprefix('torch.')}" for tensor in [*tensors, *moments]})


# -- steps ---------------------------------------------------------------------------------------------------------
def step(gpu: FakeGpu, *, of: str, dtype: str, clips: int = 2, portions: int = 99, steps: int = 1) -> dict[str, Any]:
    """The last of some steps, from clips on the device to numbers; the first makes the optimizers' moments."""
    spec = SPECS[of]
    networks, resident, at_once = networks_of(spec, dtype), clips_of(spec, clips, GPU), Portions(min(portions, clips))
    for _ in range(steps):
        gpu.reset()
        result = train_step(networks, batch_of(resident, spec), portions=at_once)
        values = result.values()
    formats = {str(loss.dtype) for loss in result.losses.values()} | {str(result.mel_generated.dtype)}
    return counts(gpu) | {"places": places_of(networks), "losses": sorted(formats), "values": len(values)}


def host_clips(gpu: FakeGpu) -> dict[str, Any]:
    """An epoch of clips that are read ahead, as there is no room for them in any memory."""
    PRESETS["nano"], dataset._CACHE_BYTES = TINY, 1
    with tempfile.TemporaryDirectory() as home:
        store = dataset.ClipStore(read_filelist(experiment(Path(home), clips=5).filelist), TINY)
        gpu.reset()
        batches = [*store.batches(2, seed=(1, 1), skip=0, device=GPU)]
    tensors = [tensor for batch in batches for tensor in batch.tensors()]
    return counts(gpu) | {"devices": sorted({str(tensor.device) for tensor in tensors}), "batches": len(batches)}


def resume(gpu: FakeGpu) -> dict[str, Any]:
    """A step after the weights, moments and scale of another training were loaded from the host."""
    spec, before = SPECS["v2"], networks_of(SPECS["v2"], "fp16")
    batch = batch_of(clips_of(spec, 2, GPU), spec)
    train_step(before, batch)
    parts = [
        on_host({"model": network.state_dict(), "optimizer": optimizer.state_dict(), "iteration": 1})
        for network, optimizer in (
            (before.generator, before.generator_optimizer),
            (before.discriminator, before.discriminator_optimizer),
        )
    ]
    networks = networks_of(spec, "fp16")
    start.load_checkpoint(networks, Checkpoint(1, *parts, {}))
    networks.compute_in(torch.float16, scaler=before.scaler.state_dict())
    networks.set_learning_rate(5e-5)
    del before
    gpu.reset()
    train_step(networks, batch).values()
    rates = {
        f"{type(group['lr']).__name__} {group['lr'].device}" for group in networks.generator_optimizer.param_groups
    }
    return counts(gpu) | {"places": places_of(networks), "rates": sorted(rates)}


def two_ranks(gpu: FakeGpu, *, dtype: str) -> dict[str, Any]:
    """A step of the second of two processes, on the second GPU."""
    torch.distributed.init_process_group("fake", store=FakeStore(), rank=1, world_size=2)
    device, spec, sums = torch.device("cuda:1"), SPECS["v2"], list[torch.Tensor]()

    class Two(Ranks):
        def _add(self, numbers: torch.Tensor, how: str = "SUM") -> None:
            sums.append(numbers)
            super()._add(numbers, how)

    networks = networks_of(spec, dtype, device)
    batch = replace(batch_of(clips_of(spec, 2, device), spec, device), share=0.5, whole_frames=1000)
    gpu.reset()
    train_step(networks, batch, ranks=Two(1, 2)).values()
    weights = [
        sum(weight.numel() for weight in network.parameters())
        for network in (networks.discriminator, networks.generator)
    ]
    torch.distributed.destroy_process_group()
    return counts(gpu) | {
        "places": places_of(networks),
        "sums": [[each.numel(), str(each.device), str(each.dtype)] for each in sums],
        "weights": weights,
    }


def graphs(gpu: FakeGpu) -> dict[str, Any]:
    """Steps of three lengths in one bucket; the recorder repeats the turns and notes what a graph must not contain."""
    spec, networks, within = SPECS["v2"], networks_of(SPECS["v2"], "fp16"), []

    def record(turn: Turn) -> Turn:
        before = len(gpu.waits), len(gpu.uploads)
        turn()
        within.extend([*gpu.waits[before[0] :], *gpu.uploads[before[1] :]])
        return turn

    portions = Portions(2)
    steps = StepGraphs(networks, portions=portions, record=record)
    held = []
    for number in range(4):
        batch = batch_of([clip_of(spec, frames - number, GPU) for frames in (370, 340)], spec)
        gpu.reset()
        result: StepResult | None = steps.step(batch)
        assert result is not None
        result.values()
        result = batch = None  # type: ignore[assignment]
        held.append(gpu.held_bytes)
    shapes, counted = [*steps.recorded], counts(gpu)
    gave_back = steps.clear()
    gc.collect()
    return counted | {
        "within": [f"{note.what} at {note.place}" for note in within],
        "shapes": shapes,
        "held": held,
        "after_clear": gpu.held_bytes if gave_back else -1,
        "places": places_of(networks),
    }


# -- memory runs out -----------------------------------------------------------------------------------------------
def recovery(gpu: FakeGpu, *, of: str, clips: int, limits: tuple[tuple[str, float], ...]) -> dict[str, Any]:
    """Steps in float16 with less room, from some turn on, than a step takes: what portions make of it, what stays."""
    spec, rows = SPECS[of], []
    networks = networks_of(spec, "fp16")
    batch = batch_of(clips_of(spec, clips, GPU), spec)
    gpu.reset()
    train_step(networks, batch)
    before = gpu.held_bytes
    room = gpu.peak_bytes - before
    for turn, share in limits:
        gpu.reset()
        portions, work = Portions(clips), getattr(Gradients, turn)

        def limited(self: Gradients, parts: list[slice], limit: float = before + share * room, work: Any = work) -> Any:
            gpu.limit_bytes = limit
            return work(self, parts)

        setattr(Gradients, turn, limited)
        try:
            train_step(networks, batch, portions=portions).values()
            passed = portions.clips
        except torch.OutOfMemoryError:
            passed = 0
        setattr(Gradients, turn, work)
        gpu.limit_bytes = float("inf")
        rows.append(
            {
                "passed": passed,
                "ran_out": [turn in names for names in gpu.ran_out],
                "held": gpu.held_bytes - before,
                "learns": all(weight.requires_grad for weight in networks.discriminator.parameters()),
            }
        )
    return {"rows": rows}


# -- what else training does on the device ---------------------------------------------------------------------------
def comparison(gpu: FakeGpu, *, of: str) -> dict[str, Any]:
    """Choosing a number format by comparison with float32."""
    spec = SPECS[of]
    networks = networks_of(spec, "fp32")
    gpu.reset()
    gpu.answer = 0.25  # nepers between two mels
    chosen = precision.choose_precision("auto", networks, clip_of(spec, 60, GPU))
    return counts(gpu) | {"chosen": chosen.name}


def validation(gpu: FakeGpu, *, of: str) -> dict[str, Any]:
    """Speaking held-out clips, which are in the host's memory, and measuring them."""
    spec = SPECS[of]
    generator, clips = networks_of(spec, "fp32").generator, clips_of(spec, 2, torch.device("cpu"))
    gpu.reset()
    made = [validate.speak(generator, clip) for clip in clips]
    found = validate.heldout_distances(made, clips, spec)
    return counts(gpu) | {"devices": sorted({str(each.device) for each in made}), "found": sorted(found)}


CASES: dict[str, Callable[[FakeGpu], dict[str, Any]]] = {
    **{f"step v2 {dtype}": partial(step, of="v2", dtype=dtype) for dtype in DTYPES},
    **{f"step {of} fp16": partial(step, of=of, dtype="fp16") for of in ("nano", "v2-without-f0")},
    "portions v2 fp16": partial(step, of="v2", dtype="fp16", clips=2, portions=1),
    "host clips": host_clips,
    "resume": resume,
    "graphs": graphs,
    "two ranks": partial(two_ranks, dtype="fp16"),
    "recovery v2": partial(recovery, of="v2", clips=2, limits=LIMITS),
    "comparison nano": partial(comparison, of="nano"),
    **{f"validation {of}": partial(validation, of=of) for of in ("v2", "v2-without-f0", "nano")},
    # full size
    **{
        f"full {of} {dtype} {clips}": partial(step, of=of, dtype=dtype, clips=clips, steps=2)
        for of in ("v2-40k", "v1-48k", "full-nano")
        for dtype in DTYPES
        for clips in (4, 8)
    },
    **{
        f"full portions {of}": partial(step, of=of, dtype="fp16", clips=8, portions=3) for of in ("v2-40k", "full-nano")
    },
    "full recovery": partial(recovery, of="v2-40k", clips=8, limits=LIMITS),
}

if __name__ == "__main__":
    report(CASES, sys.argv[1:])
