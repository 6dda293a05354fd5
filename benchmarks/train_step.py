"""Our training step beside that of an RVC WebUI checkout: pairs in turn, in one process, on the same batch.

    python benchmarks/train_step.py --reference DIR --threads 1 --json          # v2-40k, batch 4, float32, 7 pairs
    python benchmarks/train_step.py --preset nano --batch 8 --frames 200        # ours alone
    python benchmarks/train_step.py --reference DIR --record tests/golden/train_steps.npz   # for a test

`ratio` is reference_s / ours_s. `peak_bytes`: weights, gradients, optimizer state and what a step holds on top of
them at most. `floor_s`: the multiplications of our step's convolutions and matrix products, at the rate of one large
matrix product on the same device.
"""

import argparse
import json
import sys
import time
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional
from torch.overrides import TorchFunctionMode
from torch.utils.flop_counter import FlopCounterMode

sys.path.insert(0, str(Path(__file__).parents[1]))
from rvc_core.evaluation.golden import golden_weights, noise
from rvc_core.nn.spectrogram import linear_spectrogram
from rvc_core.presets import PRESETS, VoiceSpec, preset
from rvc_core.training.step import Networks, train_step
from rvc_core.workspace.dataset import Batch

CPU = torch.device("cpu")
# What RVC's classes leave free, small; its posterior, flow and discriminators (the first two of them) have one size.
SMALL = replace(
    PRESETS["v1-40k"],
    mel_epsilons="2026",
    sample_rate=16000,
    fft_samples=1024,
    mels=80,
    segment_frames=12,
    content_width=256,
    upsample_rates=(10, 4, 4),
    upsample_kernels=(20, 8, 8),
    inter_channels=16,
    hidden_channels=16,
    filter_channels=32,
    layers=2,
    upsample_channels=32,
    resblock_kernels=(3, 7),
    resblock_dilations=((1, 3, 5),) * 2,
    speaker_channels=8,
    speakers=4,
    discriminator_periods=(2,),
)
GOLDEN_STEPS = 50
LOSSES = ("loss/g/total", "loss/d/total", "loss/g/fm", "loss/g/mel", "loss/g/kl")


class SharedDraws(TorchFunctionMode):
    """Inside, a random tensor is a formula of its size, so that two programs draw the same."""

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Call `function`, unless it draws."""
        if function not in (torch.rand, torch.randn, torch.randn_like):
            return function(*args, **(kwargs or {}))
        drawn = function(*args, **(kwargs or {})).detach()
        values = noise(drawn.numel(), drawn.numel() % 997).view(drawn.shape).to(drawn)
        return values.abs() if function is torch.rand else values * 3**0.5  # of variance one


def formula_batch(spec: VoiceSpec, size: int, frames: int, device: torch.device = CPU, *, seed: int = 1) -> Batch:
    """Clips that are formulas: a tone with noise, voiced but for every fourth stretch, the last one shorter."""
    frame = torch.arange(frames)
    f0_hz = torch.stack(
        [torch.where((frame // 7) % 4 == 3, 0, 180 + 60 * torch.sin(frame / 9 + seed + row)) for row in range(size)]
    ).float()
    phase = torch.cumsum(f0_hz.double().repeat_interleave(spec.hop_samples, 1) / spec.sample_rate, 1)
    wave = (0.2 * torch.sin(2 * torch.pi * phase) + 0.03 * noise(phase.numel(), seed).view(phase.shape)).float()
    content = noise(size * frames * spec.content_width, seed + 1).float().view(size, frames, -1)
    lengths = torch.full((size,), frames)
    lengths[1:][-1:] -= frames // 5  # a clip alone has its full length
    parts = (
        content,
        (f0_hz / 4 + 1).long(),
        f0_hz,
        linear_spectrogram(wave, spec),
        wave[:, None],
        lengths,
        torch.arange(size) % spec.speakers,
    )
    return Batch(*(part.to(device) for part in parts))


def formula_networks(spec: VoiceSpec, device: torch.device = CPU) -> Networks:
    """Our networks with weights that are formulas."""
    networks = Networks.fresh(spec, seed=1, device=device)
    for network in (networks.generator, networks.discriminator):
        network.load_state_dict(golden_weights(network))
    return networks


def golden_numbers(
    steps: int, step: Callable[[Batch], dict[str, float]], sides: Iterable[tuple[str, nn.Module, torch.optim.Optimizer]]
) -> dict[str, np.ndarray]:
    """Losses (steps, names) of the small voice; of each gradient of step 1 the norm and the sums of every eighth."""
    numbers: dict[str, np.ndarray] = {}

    def note(side: str, network: nn.Module) -> None:
        for name, weight in network.named_parameters():
            if weight.grad is not None:
                eighths = functional.pad(weight.grad.flatten(), (0, -weight.numel() % 8)).view(-1, 8).sum(0)
                numbers[f"{side}.{name}"] = torch.cat([weight.grad.norm()[None], eighths]).numpy()

    rows, hooks = (
        [],
        [
            optimizer.register_step_pre_hook(lambda *_, side=side, network=network: note(side, network))
            for side, network, optimizer in sides
        ],
    )
    with SharedDraws():
        for number in range(steps):
            losses = step(formula_batch(SMALL, 2, 30 + number % 5, seed=number))
            rows.append([losses[name] for name in LOSSES])
            while hooks:
                hooks.pop().remove()
    return numbers | {"losses": np.array(rows)}


def our_golden_numbers(steps: int) -> dict[str, np.ndarray]:
    """The numbers of our own step, to be compared with the recorded ones of the reference."""
    networks = formula_networks(SMALL)
    return golden_numbers(
        steps,
        lambda batch: train_step(networks, batch).values(),
        (
            ("g", networks.generator, networks.generator_optimizer),
            ("d", networks.discriminator, networks.discriminator_optimizer),
        ),
    )


def compare(options: argparse.Namespace) -> dict[str, Any]:
    """Steps in turn, ours first in every other pair, and what they took."""
    device, dtype = torch.device(options.device), getattr(torch, options.dtype)
    torch.set_num_threads(options.threads)
    spec = replace(preset(options.preset), mel_epsilons="2026")
    batch = formula_batch(spec, options.batch, options.frames, device)
    networks = Networks.fresh(spec, seed=1, device=device)
    sides: dict[str, Callable[[], dict[str, float]]] = {}
    networks.compute_in(dtype)
    if options.reference:
        from reference_trainer import ReferenceTrainer

        reference = ReferenceTrainer(options.reference, spec, networks, dtype)
        sides["reference"] = lambda: reference.step(batch)

    def our_step() -> dict[str, float]:
        return train_step(networks, batch).values()

    sides["ours"] = our_step
    with SharedDraws():  # the first step of both sides, from equal weights
        losses = {f"{side}_losses": step() for side, step in sides.items()}
    pairs: list[dict[str, float]] = []
    for number in range(-1, options.pairs):  # the pair before the first warms up
        pair: dict[str, float] = {}
        for side in sorted(sides, reverse=number % 2 == 0):
            pair |= timed(side, sides[side], device)
        if options.reference:
            pair["ratio"] = pair["reference_s"] / pair["ours_s"]
            pair["processor_ratio"] = pair["reference_processor_s"] / pair["ours_processor_s"]
        pairs += [pair] * (number >= 0)
        print({name: round(value, 4) for name, value in pair.items()}, flush=True)
    with FlopCounterMode(display=False) as counter:
        our_step()
    floor = counter.get_total_flops() / matrix_rate(device, dtype)
    return {
        **vars(options),
        "reference": bool(options.reference),
        "torch": torch.__version__,
        **{name: round(median(pair[name] for pair in pairs), 4) for name in pairs[0]},
        "floor_s": round(floor, 4),
        "operations": counter.get_total_flops(),
        **{f"{side}_peak_bytes": peak_bytes(step, device) for side, step in sides.items()},
        **losses,
        "pairs": pairs,
    }


def timed(side: str, step: Callable[[], object], device: torch.device) -> dict[str, float]:
    """Seconds by the clock and of the processor: the latter hardly see what else the machine does."""
    synchronize(device)
    began, processor = time.perf_counter(), time.process_time()
    step()
    synchronize(device)
    return {f"{side}_s": time.perf_counter() - began, f"{side}_processor_s": time.process_time() - processor}


def synchronize(device: torch.device) -> None:
    """Wait for the device, if it is one that runs ahead."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def matrix_rate(device: torch.device, dtype: torch.dtype) -> float:
    """Operations per second of a product of large matrices, the best of ten."""
    size = 8192 if device.type == "cuda" else 2048
    left = torch.randn(size, size, device=device, dtype=dtype)
    best = float("inf")
    for _ in range(10):
        synchronize(device)
        began = time.perf_counter()
        left @ left
        synchronize(device)
        best = min(best, time.perf_counter() - began)
    return 2 * size**3 / best


def peak_bytes(step: Callable[[], object], device: torch.device) -> int:
    """What one step holds at most beyond what was there before it, as torch's allocator counts."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        step()
        return torch.cuda.max_memory_allocated(device) - before
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as profile:
        step()
    changes = sorted(
        (event.start_ns(), event.nbytes())
        for event in profile.profiler.kineto_results.events()
        if event.name() == "[memory]"
    )
    return int(np.cumsum([change for _, change in changes]).max())


def record(options: argparse.Namespace) -> None:
    """Write the reference's numbers of the small voice."""
    from reference_trainer import ReferenceTrainer

    torch.set_num_threads(1)
    reference = ReferenceTrainer(options.reference, SMALL, formula_networks(SMALL), torch.float32)
    numbers = golden_numbers(
        GOLDEN_STEPS,
        reference.step,
        zip("gd", (reference.generator, reference.discriminator), reference.optimizers, strict=True),
    )
    np.savez_compressed(options.record, **{name: value.astype(np.float32) for name, value in numbers.items()})


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--reference", type=Path, help="folder of an RVC WebUI checkout; without it, ours alone")
    parser.add_argument("--preset", default="v2-40k")
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--frames", type=int, default=370, help="length of the clips, 100 a second")
    parser.add_argument("--pairs", type=int, default=7)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--dtype", default="float32", choices=["float32", "bfloat16", "float16"])
    parser.add_argument("--record", type=Path, help="write the reference's numbers of a small voice to this file")
    parser.add_argument("--json", action="store_true", help="one JSON object on the last line")
    chosen = parser.parse_args()
    if chosen.record:
        record(chosen)
    else:
        del chosen.record
        as_json = vars(chosen).pop("json")
        report = compare(chosen)
        print(json.dumps(report, indent=None if as_json else 1))
