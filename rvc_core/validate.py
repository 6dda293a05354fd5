"""How well a voice speaks recordings that it never heard, measured on the path that conversion takes."""

from pathlib import Path

import torch

from .dataset import ClipFiles, ClipStore, ClipTensors
from .layout import Layout
from .nn.spectrogram import EpsilonName, mel_spectrogram
from .nn.synthesizer import Synthesizer
from .presets import VoiceSpec

_SEED = 20_260   # the prior's noise is the same at every validation, so that only the weights differ


def heldout_files(layout: Layout, spec: VoiceSpec) -> list[ClipFiles]:
    """The clips that were kept out of training and whose features could be extracted."""
    held = layout.heldout

    def pitch(folder: Path, clip: Path) -> Path | None:
        return folder / f"{clip.name}.npy" if spec.uses_f0 else None
    clips = [ClipFiles(clip, held.features(spec.content_width) / f"{clip.stem}.npy", pitch(held.f0_coarse, clip),
                       pitch(held.f0_hz, clip), speaker=0) for clip in sorted(held.clips.glob("*.wav"))]
    return [clip for clip in clips
            if all(path.exists() for path in (clip.features, clip.f0_coarse, clip.f0_hz) if path)]


@torch.inference_mode()
def speak(generator: Synthesizer, clip: ClipTensors) -> torch.Tensor:
    """What a voice makes of a clip's content and pitch, always with the same noise: samples (1, S)."""
    device = next(generator.parameters()).device
    coarse, f0_hz = ((clip.f0_coarse[None].to(device), clip.f0_hz[None].to(device)) if generator.spec.uses_f0
                     else (None, None))
    return generator.infer(clip.content[None].to(device), coarse, f0_hz, torch.tensor([clip.speaker], device=device),
                           generator=torch.Generator(device).manual_seed(_SEED))[:, 0]


@torch.inference_mode()
def heldout_mel(generator: Synthesizer, clips: ClipStore, spec: VoiceSpec, *, epsilons: EpsilonName) -> float:
    """Mean absolute log-mel difference between recordings and what the voice makes of their content and pitch.

    The posterior encoder, which sees the recording itself, has no part in it: a voice that only copies its input
    scores badly here and well in the training loss.

    Returns
    -------
    float
        In nepers (natural log), mean over bands, frames and clips weighted by length.
    """
    device = next(generator.parameters()).device
    was_training = generator.training
    generator.eval()
    total, frames = 0.0, 0
    for index in range(len(clips)):
        clip = clips[index]
        made, true = (mel_spectrogram(wave, spec, epsilons)
                      for wave in (speak(generator, clip), clip.wave[None].to(device)))
        total += (made - true).abs().mean().item() * clip.frames
        frames += clip.frames
    generator.train(was_training)
    return total / max(1, frames)
