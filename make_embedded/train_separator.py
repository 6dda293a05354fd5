"""Train the embedded separator on voices and music that are mixed anew for every step.

Voices are readers' speech and their sung lines, dry or in a room, single or doubled, in the middle or on a side. Music
is two to five parts from make_songs.py at random levels and pitches. The level between both is -12 to 12 dB; sometimes
one of them is silent. Each tenth reader is held out, and gives the printed figures with the end of each part.
Restartable: the checkpoint is written every two minutes of processor time, with a running mean of the weights::

    python make_embedded/train_separator.py RECORDINGS PARTS separator.ckpt --minutes 40 --bf16 --export FILE
"""

import argparse
import copy
import json
import os
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soundfile
import torch
from scipy import signal
from torch import Tensor, nn

from rvc_core.nn.separator import BINS, SeparatorNetwork, sound, spectrum

RATE_HZ = 16_000
SECONDS = 2.544  # 160 frames
HELDOUT_SHARE = 0.04  # of each part's end
MEAN_DECAY = 0.998
FLOOR = 0.02  # of the mix's energy
PARTS = ("chords", "pads", "bass", "lead", "drums", "generated")
USED = {"chords": 0.7, "pads": 0.4, "bass": 0.6, "lead": 0.4, "drums": 0.65, "generated": 0.4}
Random = np.random.Generator


def rms(samples: np.ndarray) -> float:
    """Root mean square."""
    return float(np.sqrt(np.mean(np.square(samples, dtype=np.float64)))) if samples.size else 0.0


@dataclass
class Mixer:
    """Draws voices and music, as middle and sides (2, N)."""

    speech: list[np.ndarray]  # int16 (N,)
    lines: list[np.ndarray]  # int16 (1, N) each
    parts: dict[str, list[np.ndarray]]  # int16 (2, N) each
    random: Random
    rooms: list[np.ndarray]

    def often(self, share: float) -> bool:
        """True in this share of the calls."""
        return bool(self.random.random() < share)

    def cut(self, source: np.ndarray, length: int, scale: float = 1.0) -> np.ndarray:
        """A random stretch (C, length), played `scale` times faster."""
        need = int(length * scale) + 2
        start = int(self.random.integers(0, max(1, source.shape[1] - need)))
        piece = source[:, start : start + need].astype(np.float32) / 32768
        if piece.shape[1] < need:
            piece = np.pad(piece, ((0, 0), (0, need - piece.shape[1])))
        if scale == 1.0:
            return piece[:, :length]
        at = np.arange(length) * scale
        return np.stack([np.interp(at, np.arange(need), row) for row in piece]).astype(np.float32)

    def voice(self, length: int) -> np.ndarray:
        """One singer or speaker (2, length), dry or in a room."""
        is_sung = self.often(0.55)
        source = self.lines[self.random.integers(len(self.lines))] if is_sung else None
        source = self.speech[self.random.integers(len(self.speech))][None] if source is None else source
        line = self.cut(source, length, float(np.exp(self.random.uniform(-0.15, 0.15))) if self.often(0.5) else 1.0)[0]
        if rms(line) < 1e-3:
            return np.zeros((2, length), np.float32)
        line = line * 0.1 / rms(line)
        place = self.random.uniform(-0.7, 0.7) if self.often(0.2) else 0.0
        placed = np.stack([line, line * place])
        if self.often(0.45):
            room = self.rooms[self.random.integers(len(self.rooms))]
            wet = signal.fftconvolve(line[None], room, axes=1)[:, :length]
            wet = np.stack([wet[0] + wet[1], (wet[0] - wet[1]) * (0.0 if self.often(0.3) else 1.0)]) / 2
            placed = placed + wet * self.random.uniform(0.1, 0.8) * rms(line) / max(1e-6, rms(wet))
        return placed.astype(np.float32)

    def vocals(self, length: int) -> np.ndarray:
        """One voice, or two at once."""
        made = self.voice(length)
        if self.often(0.12):
            made = made + self.voice(length) * self.random.uniform(0.2, 0.8)
        return made

    def music(self, length: int) -> np.ndarray:
        """Several parts at random levels."""
        made = np.zeros((2, length), np.float32)
        chosen = [part for part in PARTS if self.often(USED[part])] or [PARTS[self.random.integers(len(PARTS))]]
        for part in chosen:
            source = self.parts[part][self.random.integers(len(self.parts[part]))]
            scale = float(np.exp(self.random.uniform(-0.25, 0.25))) if self.often(0.6) else 1.0
            piece = self.cut(source, length, scale)
            level = rms(piece)
            if level > 1e-4:
                gain = 0.1 / level * 10 ** (self.random.uniform(-9, 3) / 20)
                made += np.stack([piece[0] + piece[1], piece[0] - piece[1]]) * gain / 2
        if self.often(0.2):
            made = np.tanh(made * 10 ** (self.random.uniform(0, 18) / 20))
        if self.often(0.1):
            made += self.random.standard_normal(made.shape).astype(np.float32) * 10 ** (
                self.random.uniform(-60, -25) / 20
            )
        return made

    def example(self, length: int) -> np.ndarray:
        """Vocals and music (2, 2, length)."""
        vocals, music = self.vocals(length), self.music(length)
        if self.often(0.35):  # mono
            vocals[1], music[1] = 0.0, 0.0
        level = 10 ** (np.clip(self.random.normal(0, 5), -12, 12) / 20)
        vocals = vocals * level * rms(music) / max(1e-5, rms(vocals))
        silent = self.random.random()
        vocals, music = (vocals * (silent > 0.05)), (music * (silent < 0.97))
        both = np.stack([vocals, music])
        loudness = 10 ** (self.random.uniform(-40, -8) / 20)
        return (both * loudness / max(1e-6, rms(both.sum(0)))).astype(np.float32)

    def batch(self, size: int) -> tuple[Tensor, Tensor]:
        """Spectrograms of vocals and of the mix (size, 2, BINS, T), each source with a colour of its own."""
        samples = torch.from_numpy(np.stack([self.example(int(SECONDS * RATE_HZ)) for _ in range(size)]))
        frames = spectrum(samples, RATE_HZ)[..., :BINS, :]
        axis = torch.linspace(0, 1, BINS)
        wave = torch.arange(1, 5)[:, None]
        weights, phases = torch.rand(2, size, 2, 4, 1).unbind(0)
        curves = ((weights - 0.5) * 8 / wave * torch.cos(torch.pi * wave * axis + 6 * phases)).sum(2)  # dB
        frames = frames * 10 ** (curves[:, :, None, :, None] / 20)
        for item in range(size):  # what a telephone, an old recording or a codec leaves
            if self.often(0.12):
                frames[item, :, :, int(self.random.uniform(200, BINS)) :] *= 1e-3
        vocals, music = frames.unbind(1)
        return vocals, vocals + music


def rooms(random: Random, count: int = 64) -> list[np.ndarray]:
    """Responses (2, N) of rooms: noise that dies away, different on both sides."""
    made = []
    for _ in range(count):
        seconds = random.uniform(0.2, 2.0)
        length = int(seconds * RATE_HZ)
        fall = 10 ** (-3 * np.arange(length) / length)
        tail = random.standard_normal((2, length)) * fall
        tail[:, : int(random.uniform(0.0, 0.04) * RATE_HZ)] = 0
        made.append(signal.lfilter([1.0], [1.0, -random.uniform(0, 0.8)], tail, axis=1).astype(np.float32))
    return made


class Muon(torch.optim.Optimizer):
    """Momentum whose steps have all singular values near 1 (K. Jordan and others, 2024): fewer steps for matrices."""

    def __init__(self, parameters: list[nn.Parameter], lr: float) -> None:
        super().__init__(parameters, {"lr": lr})

    @torch.no_grad()
    def step(self) -> None:  # type: ignore[override]
        """Move each matrix, or kernel read as a matrix, along its orthogonalised momentum."""
        shapes: dict[tuple[int, ...], list[tuple[nn.Parameter, Tensor]]] = {}
        for group in self.param_groups:
            for parameter in group["params"]:
                momentum = self.state[parameter].setdefault("momentum", torch.zeros_like(parameter))
                momentum.lerp_(parameter.grad, 0.05)
                wanted = parameter.grad.lerp(momentum, 0.95).flatten(1)
                wanted = wanted if wanted.shape[0] <= wanted.shape[1] else wanted.T
                shapes.setdefault(tuple(wanted.shape), []).append((parameter, wanted))
        for shape, pairs in shapes.items():
            matrix = torch.stack([wanted for _, wanted in pairs]).bfloat16()
            matrix = matrix / (matrix.norm(dim=(1, 2), keepdim=True) + 1e-7)
            for _ in range(5):  # Newton and Schulz
                square = matrix @ matrix.mT
                matrix = 3.4445 * matrix + (-4.775 * square + 2.0315 * square @ square) @ matrix
            for (parameter, _), update in zip(pairs, matrix.float(), strict=True):
                flat = parameter.flatten(1)
                update = update if flat.shape == shape else update.T
                factor = max(1.0, flat.shape[0] / flat.shape[1]) ** 0.5
                parameter.add_(update.reshape(parameter.shape), alpha=-self.param_groups[0]["lr"] * factor)


def loss_of(mask: Tensor, vocals: Tensor, mix: Tensor) -> Tensor:
    """Energy of the error in dB below the mix, and the distance of compressed magnitudes.

    The floor keeps mixes of nearly nothing but music from ruling the mean: with one at -30 dB, and absolute differences
    of magnitudes, the masks shrank towards 0.
    """
    made = mask * mix
    whole = mix.abs().square().sum((1, 2, 3))
    error = (made - vocals).abs().square().sum((1, 2, 3))
    decibels = 10 * torch.log10((error + FLOOR * whole) / (whole + 1e-9) + 1e-9)
    scale = (whole / mix[0].numel()).sqrt().clamp(min=1e-6)[:, None, None, None]
    near = ((made.abs() / scale + 1e-4) ** 0.4 - (vocals.abs() / scale + 1e-4) ** 0.4).square().mean()
    return decibels.mean() + 4 * near


def si_sdr(made: np.ndarray, true: np.ndarray) -> float:
    """Scale-invariant signal-to-distortion ratio in dB."""
    target = (made @ true) / (true @ true) * true
    return float(10 * np.log10((target @ target) / max(1e-12, (made - target) @ (made - target))))


@torch.inference_mode()
def gain(network: SeparatorNetwork, mixer: Mixer) -> dict[str, float]:
    """How much nearer the vocals of held-out mixes at 0 dB come, in dB: spoken, and sung."""
    gains: dict[str, list[float]] = {"spoken": [], "sung": []}
    mixer.random = np.random.default_rng(5)
    length = 4 * RATE_HZ
    for number in range(24):
        kind = ("spoken", "sung")[number % 2]
        source = mixer.lines[0] if kind == "sung" else mixer.speech[number % len(mixer.speech)][None]
        vocals, music = mixer.cut(source, length)[0], mixer.music(length)[0]
        while rms(vocals) < 0.02:  # a pause
            vocals = mixer.cut(source, length)[0]
        mix = vocals + music * (rms(vocals) / max(1e-6, rms(music)))
        frames = spectrum(torch.from_numpy(np.stack([mix, np.zeros_like(mix)])), RATE_HZ)
        mask = network(frames[None, :, :BINS])[0, 0]
        frames[0, :BINS] *= mask
        made = sound(frames[0], RATE_HZ, length).numpy()
        gains[kind].append(si_sdr(made, vocals) - si_sdr(mix, vocals))
    return {kind: round(float(np.mean(values)), 2) for kind, values in gains.items()}


def load(arguments: argparse.Namespace, *, held_out: bool) -> Mixer:
    """All material, for training or held out."""
    paths = sorted(arguments.recordings.glob("*.flac"))
    speech = [
        soundfile.read(path, dtype="int16")[0] for number, path in enumerate(paths) if (number % 10 == 0) == held_out
    ]

    def kept(name: str) -> np.ndarray:
        whole = np.load(arguments.parts / name, mmap_mode="r")
        edge = int(whole.shape[1] * (1 - HELDOUT_SHARE))
        return whole[:, edge:] if held_out else whole[:, :edge]

    parts = {part: [kept(path.name) for path in sorted(arguments.parts.glob(f"{part}*.npy"))] for part in PARTS}
    random = np.random.default_rng(1)
    lines = [kept(path.name) for path in sorted(arguments.parts.glob("sung*.npy"))]
    return Mixer(speech, lines, parts, random, rooms(random))


def wishes() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description="Train the embedded separator.")
    parser.add_argument("recordings", type=Path, help="16 kHz FLAC, one for each reader")
    parser.add_argument("parts", type=Path, help="from make_songs.py")
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("--start", type=Path, help="weights (.safetensors) to begin with, where there is no checkpoint")
    parser.add_argument("--minutes", type=float, default=40.0, help="until the learning rate is 0")
    parser.add_argument("--clock", choices=["processor", "wall"], default="processor", help="whose minutes")
    parser.add_argument("--batch-size", type=int, default=6)
    parser.add_argument("--learning-rate", type=float, default=2e-3)
    parser.add_argument("--matrix-rate", type=float, default=0.02, help="learning rate of the matrices")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--export", type=Path, help="write the weights here after each checkpoint")
    parser.add_argument("--bf16", action="store_true", help="multiply at 16 bits")
    return parser.parse_args()


def main() -> None:
    """Train for some minutes, from the checkpoint if there is one."""
    arguments = wishes()
    torch.set_num_threads(arguments.threads)
    mixer, heldout = load(arguments, held_out=False), load(arguments, held_out=True)
    network, step, spent_before = SeparatorNetwork().train(), 0, 0.0
    named = dict(network.named_parameters())
    square = [name for name, one in named.items() if one.ndim > 1 and not name.startswith(("enter", "leave"))]
    square = [name for name in square if ".time." not in name]  # one small kernel for each channel
    others = [one for name, one in named.items() if name not in square]
    rates = {"matrices": arguments.matrix_rate, "others": arguments.learning_rate}
    optimizers: dict[str, torch.optim.Optimizer] = {
        "matrices": Muon([named[name] for name in square], rates["matrices"]),
        "others": torch.optim.AdamW(others, lr=rates["others"], weight_decay=0.01),
    }
    if arguments.start:
        network.load_state_dict(SeparatorNetwork.from_file(arguments.start).state_dict())
    mean = copy.deepcopy(network).eval()
    if arguments.checkpoint.exists():
        state = torch.load(arguments.checkpoint, weights_only=True)
        network.load_state_dict(state["latest"])
        mean.load_state_dict(state["mean"])
        for name, optimizer in optimizers.items():
            optimizer.load_state_dict(state[name])
        step, spent_before = state["step"], state["minutes"]
    mixer.random = np.random.default_rng(step + 1)
    torch.manual_seed(step)
    clock = time.process_time if arguments.clock == "processor" else time.monotonic
    started, saved, losses = clock(), clock() - 60.0, []
    spent = spent_before
    while spent < arguments.minutes:
        fall = min(1.0, 1.6 * (1.0 - spent / arguments.minutes))  # constant, then to nothing
        for name, optimizer in optimizers.items():
            optimizer.param_groups[0]["lr"] = rates[name] * min(1.0, (step + 1) / 50) * max(fall, 0.005)
        vocals, mix = mixer.batch(arguments.batch_size)
        with torch.autocast("cpu", torch.bfloat16, enabled=arguments.bf16):
            mask = network(mix)
        loss = loss_of(mask, vocals, mix)
        network.zero_grad()
        loss.backward()
        norm = nn.utils.clip_grad_norm_(network.parameters(), 5.0)
        if not torch.isfinite(norm):
            continue
        for optimizer in optimizers.values():
            optimizer.step()
        step, spent = step + 1, spent_before + (clock() - started) / 60.0
        losses.append(loss.item())
        keep = min(MEAN_DECAY, 1.0 - 1.0 / (1.0 + step / 10))
        with torch.no_grad():
            for kept, now in zip(mean.state_dict().values(), network.state_dict().values(), strict=True):
                kept.lerp_(now, 1.0 - keep) if kept.is_floating_point() else kept.copy_(now)
        if spent >= arguments.minutes or clock() - saved > 120.0:
            saved = clock()
            parts = {"latest": network, "mean": mean, **optimizers}
            content = {name: part.state_dict() for name, part in parts.items()}
            fresh = arguments.checkpoint.with_suffix(".new")
            torch.save(content | {"step": step, "minutes": spent}, fresh)
            os.replace(fresh, arguments.checkpoint)
            if arguments.export:
                mean.save(arguments.export)
            figures = {"step": step, "minutes": round(spent, 1), "loss": round(float(np.mean(losses)), 3)}
            print(json.dumps(figures | gain(mean, heldout)), flush=True)
            losses = []


if __name__ == "__main__":
    main()
