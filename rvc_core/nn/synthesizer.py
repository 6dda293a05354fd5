"""The whole network of a voice: prior, posterior, flow and decoder, for training and conversion.

Source: VITS (Kim et al. 2021) with RVC's changes: content features instead of text; pitch for prior and decoder.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from ..presets import VoiceSpec
from .encoders import PosteriorEncoder, PriorEncoder
from .flow import Flow
from .generator import Generator
from .layers import compute_dtype, frame_mask, fuse_weight_norm
from .source_filter import SourceFilter

NOISE_SCALE = 0.66666


@dataclass(frozen=True)
class SynthesizerOutput:
    """Output of the forward pass of a training step. S is `segment_frames * hop_samples`.

    Attributes
    ----------
    audio : Tensor
        (B, 1, S) the decoded segments.
    starts : Tensor
        (B,) first frame of each segment within its clip.
    mask : Tensor
        (B, 1, T) ones inside each clip.
    z_p : Tensor
        (B, C, T) sample of the posterior, after the flow.
    m_p, logs_p, logs_q : Tensor
        (B, C, T) mean and log standard deviation of the prior, the latter also of the posterior.
    """

    audio: Tensor
    starts: Tensor
    mask: Tensor
    z_p: Tensor
    m_p: Tensor
    logs_p: Tensor
    logs_q: Tensor


@dataclass(frozen=True)
class SynthesisNoise:
    """All random inputs of a conversion or a training step; the windows of one recording share them.

    Attributes
    ----------
    latent : Tensor
        (B, C, T) standard normal noise of the latent, before the noise scale.
    source : Tensor or None
        (B, 1, T * hop) standard normal noise of the excitation; None without f0. In training only for the segments.
    phase : Tensor or None
        (B,) phase of the sine at the first frame (see `generator.frame_phase`); None starts at 0.
    starts : Tensor or None
        (B,) first frames of the segments, in training.
    decoded : tuple of int or None
        In conversion, the frames that become sound: `source` and `phase` are of these. None: all.
    """

    latent: Tensor
    source: Tensor | None = None
    phase: Tensor | None = None
    starts: Tensor | None = None
    decoded: tuple[int, int] | None = None

    @classmethod
    def draw(
        cls,
        spec: VoiceSpec,
        frames: int,
        *,
        batch: int = 1,
        generator: torch.Generator | None = None,
        device: torch.device | str = "cpu",
    ) -> "SynthesisNoise":
        """Draw noise for `frames` frames; the same generator state gives the same noise."""

        def normal(*shape: int) -> Tensor:
            return torch.randn(shape, generator=generator, device=device)

        latent = normal(batch, spec.inter_channels, frames)
        return cls(latent, normal(batch, 1, frames * spec.hop_samples) if spec.uses_f0 else None)

    @classmethod
    def joined(cls, noises: "Sequence[SynthesisNoise]") -> "SynthesisNoise":
        """Noise of several conversions as one batch; all decode the same frames."""
        kinds = [name for name in ("latent", "source", "phase") if getattr(noises[0], name) is not None]
        together: dict[str, Any] = {name: torch.cat([getattr(one, name) for one in noises]) for name in kinds}
        return replace(noises[0], **together)

    @classmethod
    def zeros(cls, spec: VoiceSpec, frames: int) -> "SynthesisNoise":
        """Noise of zeros, for comparisons."""
        return cls(torch.zeros(1, spec.inter_channels, frames), torch.zeros(1, 1, frames * spec.hop_samples))


class Synthesizer(nn.Module):
    """A voice network of the given architecture, with random initial weights.

    Parameters
    ----------
    spec : VoiceSpec
    with_posterior : bool
        False leaves out ``enc_q``, which only training needs; voice files do not contain it.

    Examples
    --------
    >>> from rvc_core.presets import preset
    >>> voice = Synthesizer(preset("nano"), with_posterior=False)
    >>> voice.infer(torch.zeros(1, 20, 256), torch.ones(1, 20).long(), torch.zeros(1, 20), torch.tensor([0])).shape
    torch.Size([1, 1, 3200])
    """

    def __init__(self, spec: VoiceSpec, *, with_posterior: bool = True) -> None:
        super().__init__()
        self.spec = spec
        self.enc_p = PriorEncoder(spec)
        self.dec = SourceFilter(spec) if spec.source_filter_channels and spec.uses_f0 else Generator(spec)
        if with_posterior:
            self.enc_q = PosteriorEncoder(spec)
        self.flow = Flow(spec)
        self.emb_g = nn.Embedding(spec.speakers, spec.speaker_channels)
        if spec.version == "v2":  # RVC's v2 registers its prior last, and optimizer state depends on that order
            prior = self.enc_p
            del self.enc_p
            self.enc_p = prior

    def forward(
        self,
        *,
        content: Tensor,
        lengths: Tensor,
        coarse: Tensor | None,
        f0_hz: Tensor | None,
        spectrogram: Tensor,
        speaker: Tensor,
        noise: SynthesisNoise | None = None,
    ) -> SynthesizerOutput:
        """Forward pass of training: encode whole clips with prior and posterior, decode one segment of each.

        Parameters
        ----------
        content : Tensor
            (B, T, D) at 100 frames per second; each frame of the encoder is repeated once.
        lengths : Tensor
            (B,) frames of each clip; later frames are padding.
        coarse, f0_hz : Tensor or None
            (B, T) coarse pitch 1..255, and pitch in Hz, 0 where unvoiced; None for a voice without f0.
        spectrogram : Tensor
            (B, F, T) linear magnitudes.
        speaker : Tensor
            (B,) row of the speaker table.
        noise : SynthesisNoise, optional
            Noise and segment starts; drawn if not given.
        """
        mask = frame_mask(lengths, content.shape[1]).to(compute_dtype(content))
        identity = self.emb_g(speaker).unsqueeze(2)
        m_p, logs_p = self.enc_p(content, coarse, mask)
        z, _, logs_q = self.enc_q(spectrogram, mask, identity, noise.latent if noise else None)
        z_p = self.flow(z, mask, identity)
        frames = self.spec.segment_frames
        starts = draw_starts(lengths, frames) if noise is None or noise.starts is None else noise.starts
        segment_f0_hz = None if f0_hz is None else take_segments(f0_hz.unsqueeze(1), starts, frames).squeeze(1)
        audio = self.dec(take_segments(z, starts, frames), identity, segment_f0_hz, noise.source if noise else None)
        return SynthesizerOutput(audio, starts, mask, z_p, m_p, logs_p, logs_q)

    @torch.no_grad()
    def infer(
        self,
        content: Tensor,
        coarse: Tensor | None,
        f0_hz: Tensor | None,
        speaker: Tensor,
        noise_scale: float = NOISE_SCALE,
        *,
        generator: torch.Generator | None = None,
        noise: SynthesisNoise | None = None,
    ) -> Tensor:
        """Synthesise content (B, T, D) with the given pitch and `speaker` (B,) → audio (B, 1, T * hop).

        Content and pitch are as in `forward`, all of the same length. `generator` or `noise` make the result
        repeatable.
        """
        batch, frames = content.shape[:2]
        mask = content.new_ones(batch, 1, frames, dtype=compute_dtype(content))
        identity = self.emb_g(speaker).unsqueeze(2)
        if noise is None:
            noise = SynthesisNoise.draw(self.spec, frames, batch=batch, generator=generator, device=content.device)
        mean, log_deviation = self.enc_p(content, coarse, mask)
        z_p = mean + log_deviation.exp() * noise.latent.to(mean.dtype) * noise_scale
        z = self.flow(z_p, mask, identity, reverse=True)
        first, last = noise.decoded or (0, frames)
        return self.dec(
            z[:, :, first:last], identity, None if f0_hz is None else f0_hz[:, first:last], noise.source, noise.phase
        )

    def fuse(self) -> "Synthesizer":
        """Store the weight-normalised kernels, for faster conversion; prevents training and saving. Returns self."""
        fuse_weight_norm(self)
        return self


def draw_starts(lengths: Tensor, segment_frames: int, generator: torch.Generator | None = None) -> Tensor:
    """First frames (B,) of random segments, uniform over all positions; 0 for clips shorter than a segment.

    Examples
    --------
    >>> draw_starts(torch.tensor([5, 32]), 32).tolist()
    [0, 0]
    """
    choices = (lengths - segment_frames + 1).clamp(min=1)
    return (torch.rand(lengths.shape, generator=generator, device=lengths.device) * choices).long()


def take_segments(x: Tensor, starts: Tensor, length: int) -> Tensor:
    """Cut segments (B, C, length) from x (B, C, T) at `starts` (B,); shorter clips are padded with zeros.

    Examples
    --------
    >>> take_segments(torch.arange(6.).view(1, 1, 6), torch.tensor([2]), 3).tolist()
    [[[2.0, 3.0, 4.0]]]
    """
    x = functional.pad(x, (0, max(0, length - x.shape[2])))
    indices = starts[:, None] + torch.arange(length, device=x.device)
    return torch.take_along_dim(x, indices.unsqueeze(1), dim=2)
