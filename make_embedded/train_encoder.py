"""Train the embedded content encoder to name phone thirds from voices and recordings that keep changing.

Two views of each passage differ in pitch, vocal tract, colour, band, room, noise, holes and level; both must give the
same phone third (cross-entropy), the same features (cosine) and the same names (Bhattacharyya). Rate and pauses change
for both views alike. Restartable: the checkpoint is written every minute of processor time, with a running mean of the
weights, and the same command goes on from it. Each tenth recording is held out of training and used for the printed
accuracy; synthesised speech, labelled in its own folder, only teaches::

    python make_embedded/train_encoder.py recordings/ labels/ encoder.ckpt --minutes 20 --spoken speech/
"""

import argparse
import copy
import json
import math
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soundfile
import soxr
import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional as F

from rvc_core.nn.embedded_encoder import (
    FFT_BINS,
    FLOOR_POWER,
    HOP_SAMPLES,
    SAMPLE_RATE_HZ,
    WINDOW_SAMPLES,
    EmbeddedEncoder,
    mel_filters,
    normalised_log_mel,
    power_spectrum,
)

PITCH_SCALES = (0.8, 0.9, 1.0, 1.12, 1.25)
FORMANT_SPREAD = 0.2  # of the natural logarithm: vocal tracts from a child's to a large man's
CHUNK_FRAMES = 400  # 4 s
NOISE_SHARE = 0.6  # of the passages
SPOKEN_SHARE = 0.35  # of the passages, if there are any
PAUSED_SHARE = 0.3
MEAN_DECAY = 0.995  # of the running mean of the weights
AXIS = torch.linspace(0.0, 1.0, FFT_BINS)
WARPS = torch.linspace(-0.45, 0.45, 61)


@dataclass
class Recording:
    """One reader's recording: phone labels, and log power at several pitches with its timing kept."""

    labels: Tensor  # (frames,) int64, 100 per second
    log_power: list[Tensor]  # for each of PITCH_SCALES (frames, bins) float16


def pitched_spectrum(samples: np.ndarray, scale: float, frames: int) -> Tensor:
    """Log power (frames, bins) of a recording played `scale` times faster, read out at the original times."""
    faster = torch.from_numpy(soxr.resample(samples, SAMPLE_RATE_HZ * scale, SAMPLE_RATE_HZ).astype(np.float32))
    centres = (HOP_SAMPLES * torch.arange(frames) + WINDOW_SAMPLES // 2) / scale
    starts = (centres.round().long() - WINDOW_SAMPLES // 2).clamp(0, len(faster) - WINDOW_SAMPLES)
    windows = faster[starts[:, None] + torch.arange(WINDOW_SAMPLES)]
    return torch.log(power_spectrum(windows)[:, 0] + FLOOR_POWER).half()


def load(paths: list[Path], labels: Path) -> list[Recording]:
    """The labelled ones of these recordings."""
    loaded = []
    for path in paths:
        if not (labels / f"{path.stem}.npy").exists():
            continue
        samples, _ = soundfile.read(path, dtype="float32")
        classes = np.load(labels / f"{path.stem}.npy").astype(np.int64)
        frames = min((len(samples) - WINDOW_SAMPLES) // HOP_SAMPLES + 1, len(classes))
        spectra = [pitched_spectrum(samples, scale, frames) for scale in PITCH_SCALES]
        loaded.append(Recording(torch.from_numpy(classes[:frames]), spectra))
    return loaded


@dataclass(frozen=True)
class Passage:
    """Frames of a recording as they will follow each other; -1 is a pause put in."""

    recording: Recording
    frames: Tensor  # (CHUNK_FRAMES,) int64

    def labels(self) -> Tensor:
        """Class of every second frame; a pause put in is silence."""
        return torch.where(self.frames < 0, 1, self.recording.labels[self.frames.clamp(min=0)])[::2]

    def power(self, pitch: int) -> Tensor:
        """Power (CHUNK_FRAMES, bins)."""
        power = torch.exp(self.recording.log_power[pitch][self.frames.clamp(min=0)].float())
        power[self.frames < 0] = FLOOR_POWER
        return power


class Views:
    """Draws passages, and disguises them."""

    def __init__(self, read: list[Recording], spoken: list[Recording], seed: int) -> None:
        self.groups = [group for group in (read, spoken) if group]
        self.weights = [np.array([len(recording.labels) for recording in group], np.float64) for group in self.groups]
        self.random = np.random.default_rng(seed)
        self.filters = torch.stack([mel_filters(float(torch.exp(warp))) for warp in WARPS])

    def often(self, share: float) -> bool:
        """True in this share of the calls."""
        return bool(self.random.random() < share)

    def passage(self) -> Passage:
        """Somewhere in a recording, chosen by its length; often at another rate, sometimes with pauses put in."""
        random = self.random
        group = len(self.groups) - 1 if self.often(SPOKEN_SHARE) else 0
        weights = self.weights[group]
        recording = self.groups[group][random.choice(len(weights), p=weights / weights.sum())]
        count = len(recording.labels)
        rate = random.uniform(0.85, 1.15) if self.often(0.5) else 1.0
        start = random.uniform(0.0, max(1.0, count - CHUNK_FRAMES * rate))
        frames = (torch.arange(CHUNK_FRAMES) * rate + start).long()
        frames = torch.where(frames < count, frames, -1)
        if self.often(PAUSED_SHARE):
            for place in sorted(random.integers(0, CHUNK_FRAMES, random.integers(1, 6)), reverse=True):
                pause = torch.full((int(random.integers(10, 60)),), -1)
                frames = torch.cat([frames[:place], pause, frames[place:]])[:CHUNK_FRAMES]
        return Passage(recording, frames)

    def noise(self, power: Tensor) -> Tensor:
        """Coloured noise, or other people talking, as loud as `power` on the mean."""
        if self.often(0.3):
            other = torch.stack([self.passage().power(2) for _ in range(self.random.integers(1, 4))]).sum(0)
        else:
            slope = torch.exp(-self.random.uniform(0.0, 7.0) * AXIS)
            other = slope * -torch.log(torch.rand(power.shape).clamp(min=1e-6))  # noise power is exponential
        return other * (power.mean() / other.mean())

    def reverberant(self, power: Tensor) -> Tensor:
        """Each frame's power dies away over the frames that follow."""
        decay = math.exp(-0.138 / self.random.uniform(0.15, 0.9))  # 60 dB over the room's time, frames of 10 ms
        age = torch.arange(CHUNK_FRAMES)[:, None] - torch.arange(CHUNK_FRAMES)
        tail = torch.where(age > 0, decay ** age.clamp(min=0), 0.0) * (1.0 - decay) * self.random.uniform(0.05, 0.8)
        return power + tail @ power

    def banded(self, power: Tensor) -> Tensor:
        """What a telephone, an old recording or a resampled one leaves."""
        hertz = AXIS * SAMPLE_RATE_HZ / 2
        top, sharp = self.random.uniform(3200.0, 8000.0), self.random.uniform(0.01, 0.2)
        gain_db = -((hertz - top).clamp(min=0.0) * sharp).clamp(max=self.random.uniform(40.0, 90.0))
        if self.often(0.4):
            below = torch.log2(self.random.uniform(80.0, 300.0) / hertz.clamp(min=30.0)).clamp(min=0.0)
            gain_db = gain_db - 12.0 * below  # for each octave
        return power * 10.0 ** (gain_db / 10.0)

    def disguised(self, power: Tensor) -> Tensor:
        """Another microphone, room, noise, line and level."""
        random = self.random
        colour_db = sum(
            random.normal(0.0, 5.0 / (wave + 1)) * torch.cos(torch.pi * wave * AXIS + random.uniform(0, 6))
            for wave in range(5)
        )
        power = power * torch.exp(colour_db * 0.23)
        if self.often(0.3):
            power = self.reverberant(power)
        late = self.often(0.4)  # the line, then the noise, or the reverse
        if late and self.often(0.8):
            power = self.banded(power)
        if self.often(NOISE_SHARE):
            power = power + self.noise(power) * 10.0 ** (-random.uniform(0.0, 35.0) / 10.0)
        if not late and self.often(0.5):
            power = self.banded(power)
        if self.often(0.15):  # a codec drops what its neighbours mask
            heard = power.mean(1, keepdim=True) * 10.0 ** -random.uniform(1.0, 3.0)
            power = power * torch.where(power < heard, 1e-3, 1.0)
        return power * float(np.exp(random.normal(0.0, 1.5)))

    def view(self, passage: Passage, disguise: bool) -> Tensor:
        """Normalised log-mel (bands, CHUNK_FRAMES) of a passage in a voice of chance."""
        pitch = int(self.random.integers(len(PITCH_SCALES)))
        warp = self.random.uniform(-FORMANT_SPREAD, FORMANT_SPREAD) - np.log(PITCH_SCALES[pitch])
        filters = self.filters[int(np.abs(WARPS.numpy() - warp).argmin())]
        power = passage.power(pitch)
        if disguise:
            power = self.disguised(power)
            if self.often(0.5):
                power[passage.frames < 0] = FLOOR_POWER  # digital silence
        log_mel = normalised_log_mel(power[None], filters)[0]
        if disguise and self.often(0.5):  # a stretch of bands or of time is missing
            band, moment = self.random.integers(0, len(log_mel) - 12), self.random.integers(0, CHUNK_FRAMES - 20)
            log_mel[band : band + int(self.random.integers(1, 12))] = 0.0
            log_mel[:, moment : moment + int(self.random.integers(1, 20))] = 0.0
        return log_mel

    def batch(self, size: int) -> tuple[Tensor, Tensor]:
        """Two views of `size` passages (2 * size, bands, CHUNK_FRAMES) and their labels (size, CHUNK_FRAMES / 2).

        Half of the first views are of the voice alone: features of a bad recording are drawn to those of a good one.
        """
        passages = [self.passage() for _ in range(size)]
        first = [self.view(passage, disguise=self.often(0.5)) for passage in passages]
        second = [self.view(passage, disguise=True) for passage in passages]
        return torch.stack(first + second), torch.stack([passage.labels() for passage in passages])


@torch.inference_mode()
def accuracy(encoder: EmbeddedEncoder, recordings: list[Recording]) -> dict[str, float]:
    """Share of undisguised frames whose phone third, and whose phone, is named right."""
    device = encoder.namer.weight.device
    thirds = phones = total = 0
    plain = mel_filters()
    for recording in recordings:
        power = torch.exp(recording.log_power[PITCH_SCALES.index(1.0)].float())[None]
        said = encoder.namer(encoder.encode(normalised_log_mel(power, plain).to(device)))[0].argmax(-1).cpu()
        meant = recording.labels[::2]
        known = meant >= 3  # silence is easy
        thirds += int((said == meant)[known].sum())
        phones += int((said // 3 == meant // 3)[known].sum())
        total += int(known.sum())
    return {"thirds": thirds / total, "phones": phones / total}


def losses(features: Tensor, logits: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Cross-entropy of both views, and how far apart their features and their names lie."""
    classes = F.cross_entropy(logits.flatten(0, 1), labels.repeat(2, 1).flatten(), ignore_index=-1, label_smoothing=0.1)
    first, second = features.chunk(2)
    one, other = torch.softmax(logits, -1).clamp(min=1e-6).sqrt().chunk(2)
    return classes, (1.5 - 0.5 * F.cosine_similarity(first, second, dim=-1) - (one * other).sum(-1)).mean()


def begin(encoder: EmbeddedEncoder, path: Path) -> None:
    """Take over the weights of an older encoder; blocks that it lacks begin as no change."""
    state = load_file(path)
    encoder.load_state_dict({key: value.float() for key, value in state.items()}, strict=False)
    for number, block in enumerate(encoder.blocks):
        if f"blocks.{number}.norm.weight" not in state:
            nn.init.zeros_(block.narrow.weight)
            nn.init.zeros_(block.narrow.bias)


def wishes() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description="Train the embedded content encoder.")
    parser.add_argument("recordings", type=Path, help="16 kHz FLAC, one for each reader")
    parser.add_argument("labels", type=Path, help="from label_phones.py")
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("--spoken", type=Path, help="from make_speech.py, labelled in the same folder")
    parser.add_argument("--start", type=Path, help="an older encoder (.safetensors) to start from")
    parser.add_argument("--minutes", type=float, default=20.0, help="of processor time, for this run")
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--learning-rate", type=float, default=2e-3)
    parser.add_argument("--same", type=float, default=1.0, help="weight of 'both views, same features'")
    parser.add_argument("--seed", type=int, default=0, help="runs of different seeds can be averaged when exported")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--bf16", action="store_true", help="multiply at 16 bits")
    return parser.parse_args()


def main() -> None:
    """Train for some minutes, from the checkpoint if there is one."""
    arguments = wishes()
    paths = sorted(arguments.recordings.glob("*.flac"))
    heldout = load(paths[::10], arguments.labels)
    taught = load([path for number, path in enumerate(paths) if number % 10], arguments.labels)
    spoken = load(sorted(arguments.spoken.glob("*.flac")), arguments.spoken) if arguments.spoken else []
    print(f"{len(taught)} recordings to learn from, {len(spoken)} synthesised, {len(heldout)} held out", flush=True)
    device = torch.device(arguments.device)
    encoder = EmbeddedEncoder().train()
    if arguments.start:
        begin(encoder, arguments.start)
    encoder.to(device).detail.requires_grad_(False)  # fitted by export_encoder.py
    parameters = [*filter(lambda parameter: parameter.requires_grad, encoder.parameters())]
    optimizer = torch.optim.AdamW(parameters, lr=arguments.learning_rate, weight_decay=0.02)
    mean = copy.deepcopy(encoder).eval()
    step = 0
    if arguments.checkpoint.exists():
        state = torch.load(arguments.checkpoint, map_location=device, weights_only=True)
        encoder.load_state_dict(state["latest"])
        mean.load_state_dict(state["encoder"])
        optimizer.load_state_dict(state["optimizer"])
        step = state["step"]
    views = Views(taught, spoken, seed=arguments.seed + step)

    started = saved = time.process_time()
    while (spent := (time.process_time() - started) / 60.0) < arguments.minutes:
        for group in optimizer.param_groups:  # warm up, then fall to nothing over this run's minutes
            fall = 0.5 * (1.0 + math.cos(math.pi * spent / arguments.minutes))
            group["lr"] = arguments.learning_rate * min(1.0, (step + 1) / 100) * max(fall, 0.01)
        log_mel, labels = (tensor.to(device) for tensor in views.batch(arguments.batch_size))
        with torch.autocast(device.type, torch.bfloat16, enabled=arguments.bf16):
            features = encoder.encode(log_mel)
            logits = encoder.namer(features)
        classes, apart = losses(features.float(), logits.float(), labels)
        optimizer.zero_grad()
        (classes + arguments.same * apart).backward()
        nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        step += 1
        with torch.no_grad():
            for kept, now in zip(mean.parameters(), encoder.parameters(), strict=True):
                kept.lerp_(now, max(1.0 - MEAN_DECAY, 1.0 / step))
        last = (time.process_time() - started) / 60.0 >= arguments.minutes
        if last or time.process_time() - saved > 60.0:
            saved = time.process_time()
            torch.save(
                {
                    "encoder": mean.state_dict(),
                    "latest": encoder.state_dict(),
                    "optimizer": optimizer.state_dict(),
                    "step": step,
                },
                arguments.checkpoint,
            )
            print(
                json.dumps(
                    {
                        "step": step,
                        "minutes": round(spent, 1),
                        "classes": round(classes.item(), 3),
                        "apart": round(apart.item(), 3),
                        **accuracy(mean, heldout),
                    }
                ),
                flush=True,
            )


if __name__ == "__main__":
    main()
