"""The training step of an RVC WebUI checkout (tried with commit 4338f12), driven as its own trainer drives it.

Nothing of it is copied: networks, losses, mel and gradient norm are imported from the checkout, and the order of work
is repeated: both discriminator passes, the discriminator's own gradients in the generator's pass, and the number
that it asks the device for after each gradient and each loss.
"""

import contextlib
import importlib.util
import sys
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch.nn import functional

from rvc_core.nn.spectrogram import mel_filterbank
from rvc_core.presets import VoiceSpec
from rvc_core.training.step import Networks
from rvc_core.workspace.dataset import Batch


class ReferenceTrainer:
    """RVC WebUI's networks with the weights of ours, and its step."""

    def __init__(self, folder: Path, spec: VoiceSpec, ours: Networks, dtype: torch.dtype) -> None:
        sys.path.insert(0, str(folder))
        with _librosas_filters():
            from infer.module import commons, models
            from train import losses, mel_processing

        self.spec, self.device = spec, next(ours.generator.parameters()).device
        self.losses, self.mels, self.commons = losses, mel_processing, commons
        build = models.SynthesizerTrnMs256NSFsid if spec.version == "v1" else models.SynthesizerTrnMs768NSFsid
        judge = models.MultiPeriodDiscriminator if spec.version == "v1" else models.MultiPeriodDiscriminatorV2
        self.generator = build(
            spec.spectrogram_bins,
            spec.segment_frames,
            spec.inter_channels,
            spec.hidden_channels,
            spec.filter_channels,
            spec.heads,
            spec.layers,
            spec.kernel_size,
            0,
            "1",
            list(spec.resblock_kernels),
            [list(row) for row in spec.resblock_dilations],
            list(spec.upsample_rates),
            spec.upsample_channels,
            list(spec.upsample_kernels),
            spec.speakers,
            spec.speaker_channels,
            spec.sample_rate,
            is_half=dtype == torch.float16,
        ).to(self.device)
        self.discriminator = judge(False).to(self.device)
        del self.discriminator.discriminators[1 + len(spec.discriminator_periods) :]
        self.generator.load_state_dict(ours.generator.state_dict())
        self.discriminator.load_state_dict(ours.discriminator.state_dict())
        self.optimizers = [
            torch.optim.AdamW(network.parameters(), spec.learning_rate, betas=(0.8, 0.99), eps=1e-9)
            for network in (self.generator, self.discriminator)
        ]
        self.dtype = dtype
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=dtype == torch.float16)

    def step(self, batch: Batch) -> dict[str, float]:
        """Move both networks once; its losses by our names."""
        spec, mels, commons = self.spec, self.mels, self.commons
        mixed = torch.autocast(self.device.type, self.dtype, enabled=self.dtype != torch.float32)
        plain = torch.autocast(self.device.type, enabled=False)
        bands = (spec.fft_samples, spec.mels, spec.sample_rate)
        with mixed:
            audio, starts, _, mask, (_, z_p, m_p, logs_p, _, logs_q) = self.generator(
                batch.content,
                batch.lengths,
                batch.f0_coarse,
                batch.f0_hz,
                batch.spectrogram,
                batch.lengths,
                batch.speaker,
            )
            whole = mels.spec_to_mel_torch(batch.spectrogram, *bands, 0.0, None)
            real_mel = commons.slice_segments(whole, starts, spec.segment_frames)
            with plain:
                mel = mels.mel_spectrogram_torch(
                    audio.float().squeeze(1), *bands, spec.hop_samples, spec.fft_samples, 0.0, None
                )
            mel = mel.to(self.dtype)
            real = commons.slice_segments(batch.wave, starts * spec.hop_samples, spec.segment_frames * spec.hop_samples)
            real_logits, fake_logits, _, _ = self.discriminator(real, audio.detach())
            with plain:
                total_d, _, _ = self.losses.discriminator_loss(real_logits, fake_logits)
        norm_d = self._move(1, self.discriminator, total_d)
        with mixed:
            _, fake_logits, real_maps, fake_maps = self.discriminator(real, audio)
            with plain:
                mel_loss = functional.l1_loss(real_mel, mel) * 45
                kl = self.losses.kl_loss(z_p, logs_q, m_p, logs_p, mask)
                features = self.losses.feature_loss(real_maps, fake_maps)
                adversarial, _ = self.losses.generator_loss(fake_logits)
                total = adversarial + features + mel_loss + kl
        norm_g = self._move(0, self.generator, total)
        self.scaler.update()
        parts: dict[str, Any] = {
            "loss/g/total": total,
            "loss/d/total": total_d,
            "loss/g/fm": features,
            "loss/g/mel": mel_loss,
            "loss/g/kl": kl,
            "grad_norm_g": norm_g,
            "grad_norm_d": norm_d,
        }
        return {name: float(part) for name, part in parts.items()}

    def _move(self, which: int, network: torch.nn.Module, loss: torch.Tensor) -> float:
        optimizer = self.optimizers[which]
        optimizer.zero_grad()
        self.scaler.scale(loss).backward()
        self.scaler.unscale_(optimizer)
        norm = self.commons.clip_grad_value_(network.parameters(), None)
        self.scaler.step(optimizer)
        return norm


@contextlib.contextmanager
def _librosas_filters() -> Iterator[None]:
    """Inside, librosa's mel filters can be imported, where it is not installed: the checkout needs no more of it."""
    if importlib.util.find_spec("librosa"):
        yield
        return
    filters = types.ModuleType("librosa.filters")
    filters.__dict__["mel"] = lambda sr, n_fft, n_mels, fmin=0, fmax=None: mel_filterbank(sr, n_fft, n_mels)
    sys.modules |= {"librosa": types.ModuleType("librosa"), "librosa.filters": filters}
    yield
    del sys.modules["librosa"], sys.modules["librosa.filters"]
