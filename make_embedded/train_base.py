"""Train the base voice of the preset `nano` on many readers at once, each a row of the speaker table.

First without discriminators, at a high learning rate, until the mel is roughly right; then with the package's own
training step. Restartable: the same command goes on from its checkpoint. With several processes (one for each core
beats threads) gradients are averaged::

    rvc prepare pool --dataset RECORDINGS --preset nano --holdout-minutes 0 && rvc extract pool
    torchrun --standalone --nproc_per_node 2 make_embedded/train_base.py pool base.ckpt --minutes 60 --export DIR

Row 0 of the table, where every new voice starts, becomes the mean of all readers. Each tenth reader is held out, as in
`train_encoder.py`. ``--base DIR`` begins with the base models in a folder instead of random weights.
"""

import argparse
import json
import math
import random
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
import torch.distributed as distributed
from torch.nn import functional as F

from rvc_core.nn.losses import MEL_WEIGHT, kl_loss, mel_loss
from rvc_core.nn.spectrogram import mel_of_linear, mel_spectrogram
from rvc_core.nn.synthesizer import take_segments
from rvc_core.presets import VoiceSpec, preset
from rvc_core.system.files import replace_atomically
from rvc_core.training.step import Networks, train_step
from rvc_core.training.validate import Examiner
from rvc_core.workspace.checkpoint import load_base
from rvc_core.workspace.dataset import Batch, ClipStore, ClipTensors
from rvc_core.workspace.filelist import ClipFiles, read_filelist
from rvc_core.workspace.layout import Layout
from rvc_core.workspace.voice_file import VoiceInfo

BATCH_SIZE = 8
SAVE_SECONDS = 150
SHOWN = ("loss/g/mel", "loss/g/kl", "loss/g/fm", "loss/d/total")
WARM_RATE, FIRST_RATE, LAST_RATE = 1e-3, 4e-4, 5e-5


class DisguisedClips(ClipStore):
    """Clips whose content is, at each look, a random one of their sets of features (see disguise_features.py)."""

    def __init__(self, files: list[ClipFiles], spec: VoiceSpec, folders: list[Path]) -> None:
        super().__init__(files, spec)
        paths = [[folder / f"{file.wave.stem}.npy" for folder in folders] for file in files]
        self.sets = [[torch.from_numpy(np.load(path)) for path in row if path.exists()] for row in paths]

    def __getitem__(self, index: int) -> ClipTensors:
        clip, sets = super().__getitem__(index), self.sets[index]
        if (chosen := random.randrange(-1, len(sets))) < 0:
            return clip
        content = sets[chosen].repeat_interleave(2, 0).float()
        return replace(clip, content=F.pad(content, (0, 0, 0, max(0, clip.frames - len(content))))[: clip.frames])


def clips_of(layout: Layout, spec: VoiceSpec) -> tuple[ClipStore, ClipStore]:
    """Clips for training and, of each tenth reader, one to judge with; the row is the recording's number, from 1."""
    files = [file for file in read_filelist(layout.filelist) if file.wave.parent == layout.clips]
    numbered = [(int(file.wave.stem.split("_")[0]), file) for file in files]
    taught = [replace(file, speaker=1 + number) for number, file in numbered if number % 10]
    heldout = {number: file for number, file in numbered if number % 10 == 0}
    return (
        DisguisedClips(taught, spec, sorted(layout.root.glob("disguised_*"))),
        ClipStore([*heldout.values()][:10], spec),
    )


def average_gradients(optimizer: torch.optim.Optimizer, *_: object) -> None:
    """Average the gradients of all processes, in one message."""
    gradients = [
        parameter.grad
        for group in optimizer.param_groups
        for parameter in group["params"]
        if parameter.grad is not None
    ]
    flat = torch.cat([gradient.flatten() for gradient in gradients])
    distributed.all_reduce(flat)
    for gradient, mean in zip(
        gradients, (flat / distributed.get_world_size()).split([g.numel() for g in gradients]), strict=True
    ):
        gradient.copy_(mean.view_as(gradient))


def warm_step(networks: Networks, batch: Batch, spec: VoiceSpec) -> dict[str, float]:
    """Move the generator by mel and KL alone."""
    output = networks.generator(
        content=batch.content,
        lengths=batch.lengths,
        coarse=batch.f0_coarse,
        f0_hz=batch.f0_hz,
        spectrogram=batch.spectrogram,
        speaker=batch.speaker,
    )
    real = mel_of_linear(take_segments(batch.spectrogram, output.starts, spec.segment_frames), spec)
    mel = MEL_WEIGHT * mel_loss(real, mel_spectrogram(output.audio.float(), spec))
    kl = kl_loss(output.z_p, output.logs_q, output.m_p, output.logs_p, output.mask)
    networks.generator_optimizer.zero_grad(set_to_none=True)
    (mel + kl).backward()
    networks.generator_optimizer.step()
    return {"loss/g/mel": mel.item(), "loss/g/kl": kl.item()}


def learning_rate(spent: float, warm: float, whole: float) -> float:
    """Constant while warm, then falling along half a cosine."""
    if spent < warm:
        return WARM_RATE
    done = min(1.0, (spent - warm) / (whole - warm))
    return LAST_RATE + (FIRST_RATE - LAST_RATE) * 0.5 * (1 + math.cos(math.pi * done))


def fill_first_row(networks: Networks) -> None:
    """Put the mean reader into row 0."""
    with torch.no_grad():
        table = networks.generator.emb_g.weight
        table[0] = table[1:252].mean(0)


def export(networks: Networks, folder: Path) -> None:
    """Write both networks as half-precision base models."""
    for name, network in (("generator", networks.generator), ("discriminator", networks.discriminator)):
        weights = {key: value.half().cpu() for key, value in network.state_dict().items()}
        with replace_atomically(folder / f"base_{name}.pth") as temporary:
            torch.save({"model": weights, "iteration": 0}, temporary)


def begin(networks: Networks, modules: tuple, arguments: argparse.Namespace) -> tuple[int, float]:
    """Load the checkpoint, or else the base models that are named; returns its step and minutes."""
    if arguments.base:
        for name, network in (("generator", networks.generator), ("discriminator", networks.discriminator)):
            network.load_state_dict(load_base(arguments.base / f"base_{name}.pth"))
    if not arguments.checkpoint.exists():
        return 0, 0.0
    state = torch.load(arguments.checkpoint, map_location=arguments.device, weights_only=True)
    for module, content in zip(modules, state["modules"], strict=True):
        module.load_state_dict(content)
    return state["step"], state["minutes"]


def main() -> None:
    """Train until the minutes are over, counted over all runs."""
    parser = argparse.ArgumentParser(description="Train the nano base voice.")
    parser.add_argument("experiment", help="prepared and extracted, preset nano")
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("--minutes", type=float, default=60.0, help="wall time over all runs")
    parser.add_argument("--warm-minutes", type=float, default=15.0, help="of these, without discriminators")
    parser.add_argument("--bf16", action="store_true", help="half precision, on processors that have it")
    parser.add_argument("--device", type=torch.device, default="cpu")
    parser.add_argument("--base", type=Path, help="folder of base models to begin with")
    parser.add_argument("--export", type=Path, help="folder for the base models")
    arguments = parser.parse_args()
    distributed.init_process_group("gloo")
    rank = distributed.get_rank()
    torch.set_num_threads(1)
    spec, layout = preset("nano"), Layout.of(arguments.experiment)
    clips, heldout = clips_of(layout, spec)
    examiner = Examiner(layout, spec, VoiceInfo(), heldout, unlike="none")
    networks = Networks.fresh(spec, seed=1, device=arguments.device)
    optimizers = (networks.generator_optimizer, networks.discriminator_optimizer)
    modules = (networks.generator, networks.discriminator, *optimizers)
    step, spent, values = *begin(networks, modules, arguments), {}
    for optimizer in optimizers:
        optimizer.register_step_pre_hook(average_gradients)
    torch.manual_seed(1000 * rank + step)  # each process draws its own segments and noise
    began, saved = time.monotonic() - 60 * spent, time.monotonic()
    while True:
        for batch in clips.batches(BATCH_SIZE, seed=(rank, step), skip=0, device=arguments.device):
            clock = torch.tensor([(time.monotonic() - began) / 60, time.monotonic() - saved])
            distributed.broadcast(clock, 0)  # all processes change their minds together
            spent, unsaved = clock.tolist()
            if unsaved > SAVE_SECONDS or spent >= arguments.minutes:
                saved = time.monotonic()
                if rank == 0:
                    fill_first_row(networks)
                    torch.save(
                        {"step": step, "minutes": spent, "modules": [module.state_dict() for module in modules]},
                        arguments.checkpoint,
                    )
                    print(
                        json.dumps(
                            {"step": step, "minutes": round(spent, 1), **values, **examiner(networks.generator).values}
                        ),
                        flush=True,
                    )
                    if arguments.export:
                        export(networks, arguments.export)
                distributed.barrier()
                if spent >= arguments.minutes:
                    return
            networks.set_learning_rate(learning_rate(spent, arguments.warm_minutes, arguments.minutes))
            with torch.autocast(arguments.device.type, dtype=torch.bfloat16, enabled=arguments.bf16):
                if spent < arguments.warm_minutes:
                    values = warm_step(networks, batch, spec)
                else:
                    result = train_step(networks, batch).values()
                    values = {tag: round(result[tag], 3) for tag in SHOWN}
            step += 1


if __name__ == "__main__":
    main()
