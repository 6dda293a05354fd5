"""Train the embedded content encoder to name phone thirds from voices whose pitch, formants and room keep changing.

Two views of each passage differ in pitch, vocal tract, colour, level and noise; both must give the same phone third
(cross-entropy) and the same features (cosine). Restartable: the checkpoint is written every minute of processor time,
and the same command goes on from it. Each tenth recording is held out of training and used for the printed accuracy::

    python training/embedded/train_encoder.py recordings/ labels/ encoder.ckpt --minutes 20
"""

import argparse
import json
import math
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soundfile
import soxr
import torch
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
FORMANT_SPREAD = 0.2         # of the natural logarithm: vocal tracts from a child's to a large man's
CHUNK_FRAMES = 400           # 4 s
NOISE_SHARE = 0.6            # of the passages
WARPS = torch.linspace(-0.45, 0.45, 61)


@dataclass
class Recording:
    """One reader's recording: phone labels, and log power at several pitches with its timing kept."""

    labels: Tensor           # (frames,) int64, 100 per second
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


class Views:
    """Draws passages, and disguises them."""

    def __init__(self, recordings: list[Recording], seed: int) -> None:
        self.recordings = recordings
        self.weights = np.array([len(recording.labels) for recording in recordings], np.float64)
        self.weights /= self.weights.sum()
        self.random = np.random.default_rng(seed)
        self.filters = torch.stack([mel_filters(float(torch.exp(warp))) for warp in WARPS])

    def passage(self) -> tuple[Recording, int]:
        """A recording, chosen by its length, and where in it the passage starts."""
        recording = self.recordings[self.random.choice(len(self.recordings), p=self.weights)]
        return recording, int(self.random.integers(0, max(1, len(recording.labels) - CHUNK_FRAMES)))

    def spectrum(self, recording: Recording, start: int, pitch: int) -> Tensor:
        """Power (CHUNK_FRAMES, bins) of a passage; a short one is followed by silence."""
        cut = torch.exp(recording.log_power[pitch][start:start + CHUNK_FRAMES].float())
        return F.pad(cut, (0, 0, 0, CHUNK_FRAMES - len(cut)), value=FLOOR_POWER)

    def coloured(self, power: Tensor) -> Tensor:
        """Another microphone, room noise or a second voice, another level."""
        random = self.random
        axis = torch.linspace(0.0, 1.0, FFT_BINS)
        colour_db = sum(random.normal(0.0, 5.0 / (wave + 1)) * torch.cos(torch.pi * wave * axis + random.uniform(0, 6))
                        for wave in range(5))
        power = power * torch.exp(colour_db * 0.23)
        if random.random() < NOISE_SHARE:
            if random.random() < 0.3:
                other = self.spectrum(*self.passage(), 2)
            else:
                slope = torch.exp(-random.uniform(0.0, 7.0) * axis)
                other = slope * -torch.log(torch.rand(power.shape).clamp(min=1e-6))     # noise power is exponential
            snr_db = random.uniform(5.0, 40.0)
            power = power + other * (power.mean() / other.mean() * 10.0 ** (-snr_db / 10.0))
        return power * float(np.exp(random.normal(0.0, 1.5)))

    def view(self, recording: Recording, start: int) -> Tensor:
        """Normalised log-mel (bands, CHUNK_FRAMES) of a passage in a voice of chance."""
        pitch = int(self.random.integers(len(PITCH_SCALES)))
        warp = self.random.uniform(-FORMANT_SPREAD, FORMANT_SPREAD) - np.log(PITCH_SCALES[pitch])
        filters = self.filters[int(np.abs(WARPS.numpy() - warp).argmin())]
        return normalised_log_mel(self.coloured(self.spectrum(recording, start, pitch))[None], filters)[0]

    def batch(self, size: int) -> tuple[Tensor, Tensor]:
        """Two views of `size` passages (2 * size, bands, CHUNK_FRAMES) and their labels (size, CHUNK_FRAMES / 2)."""
        first, second, labels = [], [], []
        for _ in range(size):
            recording, start = self.passage()
            first.append(self.view(recording, start))
            second.append(self.view(recording, start))
            cut = recording.labels[start:start + CHUNK_FRAMES]
            labels.append(F.pad(cut, (0, CHUNK_FRAMES - len(cut)), value=-1)[::2])
        return torch.stack(first + second), torch.stack(labels)


@torch.inference_mode()
def accuracy(encoder: EmbeddedEncoder, recordings: list[Recording]) -> dict[str, float]:
    """Share of undisguised frames whose phone third, and whose phone, is named right."""
    encoder.eval()
    thirds = phones = total = 0
    plain = mel_filters()
    for recording in recordings:
        power = torch.exp(recording.log_power[PITCH_SCALES.index(1.0)].float())[None]
        said = encoder.namer(encoder.encode(normalised_log_mel(power, plain)))[0].argmax(-1)
        meant = recording.labels[::2]
        known = meant >= 3                                     # silence is easy
        thirds += int((said == meant)[known].sum())
        phones += int((said // 3 == meant // 3)[known].sum())
        total += int(known.sum())
    encoder.train()
    return {"thirds": thirds / total, "phones": phones / total}


def losses(features: Tensor, logits: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Cross-entropy of both views, and how far apart their features lie."""
    classes = F.cross_entropy(logits.flatten(0, 1), labels.repeat(2, 1).flatten(), ignore_index=-1, label_smoothing=0.1)
    first, second = features.chunk(2)
    return classes, (1.0 - F.cosine_similarity(first, second, dim=-1)).mean()


def main() -> None:
    """Train for some minutes, from the checkpoint if there is one."""
    parser = argparse.ArgumentParser(description="Train the embedded content encoder.")
    parser.add_argument("recordings", type=Path, help="16 kHz FLAC, one for each reader")
    parser.add_argument("labels", type=Path, help="from label_phones.py")
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("--minutes", type=float, default=20.0, help="of processor time, for this run")
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--learning-rate", type=float, default=2e-3)
    parser.add_argument("--same", type=float, default=1.0, help="weight of 'both views, same features'")
    arguments = parser.parse_args()

    paths = sorted(arguments.recordings.glob("*.flac"))
    heldout = load(paths[::10], arguments.labels)
    taught = load([path for number, path in enumerate(paths) if number % 10], arguments.labels)
    print(f"{len(taught)} recordings to learn from, {len(heldout)} held out", flush=True)
    encoder = EmbeddedEncoder().train()
    encoder.detail.requires_grad_(False)                       # fitted by export_encoder.py
    parameters = [*filter(lambda parameter: parameter.requires_grad, encoder.parameters())]
    optimizer = torch.optim.AdamW(parameters, lr=arguments.learning_rate, weight_decay=0.02)
    step = 0
    if arguments.checkpoint.exists():
        state = torch.load(arguments.checkpoint, weights_only=True)
        encoder.load_state_dict(state["encoder"])
        optimizer.load_state_dict(state["optimizer"])
        step = state["step"]
    views = Views(taught, seed=step)

    started = saved = time.process_time()
    while (spent := (time.process_time() - started) / 60.0) < arguments.minutes:
        for group in optimizer.param_groups:                   # warm up, then fall to nothing over this run's minutes
            fall = 0.5 * (1.0 + math.cos(math.pi * spent / arguments.minutes))
            group["lr"] = arguments.learning_rate * min(1.0, (step + 1) / 100) * max(fall, 0.01)
        log_mel, labels = views.batch(arguments.batch_size)
        features = encoder.encode(log_mel)
        classes, apart = losses(features, encoder.namer(features), labels)
        optimizer.zero_grad()
        (classes + arguments.same * apart).backward()
        nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        step += 1
        last = (time.process_time() - started) / 60.0 >= arguments.minutes
        if last or time.process_time() - saved > 60.0:
            saved = time.process_time()
            torch.save({"encoder": encoder.state_dict(), "optimizer": optimizer.state_dict(),
                        "step": step}, arguments.checkpoint)
            print(json.dumps({"step": step, "minutes": round(spent, 1), "classes": round(classes.item(), 3),
                              "apart": round(apart.item(), 3), **accuracy(encoder, heldout)}), flush=True)


if __name__ == "__main__":
    main()
