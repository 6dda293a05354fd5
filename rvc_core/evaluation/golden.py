"""Parity with RVC: compare the networks with stored outputs of the original, for the same weights and inputs.

Weights and inputs are computed by formulas (`noise`, `golden_weights`), so only outputs are stored: in ``index.json``,
``synth_*.npz`` and ``mel_*.npz``. All random noise is zero.
"""

import zipfile
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from ..errors import RVCError
from ..presets import VoiceSpec, preset
from ..system.documents import read_json

if TYPE_CHECKING:
    from torch import Tensor, nn

N = TypeVar("N", bound="nn.Module")
TOLERANCE = 1e-4
_FRAME_STRIDE = 4  # stored latents keep every fourth frame


@dataclass(frozen=True)
class GoldenCase:
    """Worst relative error of one network over its stored arrays."""

    name: str
    worst_relative_error: float


@dataclass(frozen=True)
class GoldenReport:
    """All cases of a folder, and the worst error."""

    worst_relative_error: float
    cases: tuple[GoldenCase, ...]

    @property
    def passed(self) -> bool:
        """Whether every case is within `TOLERANCE`."""
        return self.worst_relative_error < TOLERANCE


def golden(folder: Path) -> GoldenReport:
    """Recompute every case of `folder`; this takes half a minute on one core."""
    try:
        cases = tuple(_cases(folder, read_json(folder / "index.json", Any)))
    except (RVCError, OSError, ValueError, KeyError, TypeError, zipfile.BadZipFile) as error:
        raise RVCError(
            f"no golden numbers in {folder}: {error}",
            hint="choose a folder with index.json and its .npz files, such as tests/golden",
        ) from error
    if not cases:
        raise RVCError(f"no golden numbers in {folder}: index.json lists no cases", hint="use tests/golden")
    return GoldenReport(max(case.worst_relative_error for case in cases), cases)


def relative_error(actual: Any, expected: Any) -> float:
    """Largest difference over largest magnitude, max|a - b| / max|b|; 1 if the shapes differ.

    Examples
    --------
    >>> relative_error([1.0, 2.0], [1.0, 4.0])
    0.5
    """
    actual, expected = np.asarray(actual, np.float64), np.asarray(expected, np.float64)
    if actual.shape != expected.shape:
        return 1.0
    return float(np.abs(actual - expected).max() / np.abs(expected).max())


def noise(count: int, seed: int) -> "Tensor":
    """Pseudo-random numbers in [-1, 1) from a formula: (count,) float64, the same on every machine.

    Examples
    --------
    >>> [round(number, 3) for number in noise(2, 1).tolist()]
    [-0.634, 0.48]
    """
    import torch

    numbers = torch.arange(count, dtype=torch.float64)
    for block in numbers.split(1 << 15):  # small blocks stay in the CPU cache
        block.mul_(12.9898).add_(78.233 * seed).sin_().mul_(43758.5453)
        block.sub_(block.floor()).mul_(2).sub_(1)
    return numbers


def golden_weights(network: "nn.Module") -> dict[str, "Tensor"]:
    """Weights from `noise` for every entry of a state dict, seeded by its key."""
    import torch

    weights = {}
    for key, entry in network.state_dict().items():
        values = noise(entry.numel(), zlib.crc32(key.encode()) % 997).view(entry.shape)
        if key.endswith("weight_g"):
            continue
        if entry.dim() >= 2:
            values *= (3 * len(entry) / entry.numel()) ** 0.5
        else:
            values = 1 + 0.1 * values if key.endswith("gamma") else 0.02 * values
        weights[key] = values.float()
    for key in [key for key in weights if key.endswith("weight_v")]:  # weight norm becomes the identity
        weights[key[:-1] + "g"] = torch.norm_except_dim(weights[key], 2, 0)
    return weights


def _cases(folder: Path, index: dict[str, Any]) -> Iterator[GoldenCase]:
    import torch

    with torch.no_grad():
        for row in index["synth"]:
            name = f"synth_{row['config']}_{'f0' if row['f0'] else 'nof0'}"
            yield GoldenCase(name, _synthesizer_error(folder / f"{name}.npz", row))
        for path in sorted(folder.glob("mel_*.npz")):
            yield GoldenCase(path.stem, _mel_error(path))
        for row in index["disc"]:
            yield GoldenCase(f"disc_{row['version']}", _discriminator_error(row))


def _with_golden_weights(build: Callable[[], N]) -> N:
    """Build a network without random initial weights: drawing them would take longer than the case itself."""
    from ..nn.layers import Blueprint

    with Blueprint():
        network = build()
    network.load_state_dict(golden_weights(network), assign=True)
    return network.eval()


def _spec_of(config: str, uses_f0: bool = True) -> VoiceSpec:
    return preset(config.replace("_", "-"), uses_f0=uses_f0)


def _synthesizer_error(path: Path, row: dict[str, Any]) -> float:
    import torch

    from ..features.pitch import PitchTrack
    from ..nn.layers import frame_mask
    from ..nn.synthesizer import SynthesisNoise, Synthesizer

    spec, frames, seed = _spec_of(row["config"], bool(row["f0"])), row["T"], row["seed"]
    expected = _arrays(path)
    network = _with_golden_weights(lambda: Synthesizer(spec))
    frame = np.arange(frames)
    voiced = (frame // 7) % 4 != 3
    track = PitchTrack(np.where(voiced, 180 + 60 * np.sin(frame / 9 + seed), 0).astype(np.float32), voiced)
    coarse = torch.from_numpy(track.coarse())[None] if spec.uses_f0 else None
    f0_hz = torch.from_numpy(track.f0_hz)[None] if spec.uses_f0 else None
    content = noise(frames * spec.content_width, seed).float().view(1, frames, spec.content_width)
    spectrogram = noise(spec.spectrogram_bins * frames, seed + 5).abs().float().view(1, -1, frames)
    speaker = torch.tensor([seed % spec.speakers])
    identity, mask = network.emb_g(speaker).unsqueeze(2), frame_mask(torch.tensor([frames]), frames)

    m_p, _ = network.enc_p(content, coarse, mask)
    _, m_q, _ = network.enc_q(spectrogram, mask, identity)
    silent = SynthesisNoise.zeros(spec, frames)
    audio = network.infer(content, coarse, f0_hz, speaker, noise=silent)[0, 0]
    latents = {
        "m_p": m_p,
        "z": network.flow(m_p, mask, identity, reverse=True),
        "m_q": m_q,
        "z_flow": network.flow(m_q, mask, identity),
    }
    errors = [relative_error(latent[0, :, ::_FRAME_STRIDE], expected[name]) for name, latent in latents.items()]
    return max(*errors, relative_error(audio, expected["audio"]))


def _mel_error(path: Path) -> float:
    from ..nn.spectrogram import linear_spectrogram, mel_of_linear

    expected = _arrays(path)
    spec = replace(_spec_of(path.stem.removeprefix("mel_")), mel_epsilons="2026")
    audio = 0.3 * noise(spec.sample_rate, 51).float()[None]
    linear = linear_spectrogram(audio, spec)
    mel = mel_of_linear(linear, spec)
    return max(relative_error(linear[0, :, ::8], expected["spec"]), relative_error(mel[0, :, ::2], expected["mel"]))


def _discriminator_error(row: dict[str, Any]) -> float:
    from ..nn.discriminator import Discriminator
    from ..nn.losses import distance_to_fake, distance_to_real, feature_loss

    network = _with_golden_weights(lambda: Discriminator.of(_spec_of(f"{row['version']}_40k")))
    real = network(0.3 * noise(row["n"], row["seed"]).float().view(1, 1, -1))
    fake = network(0.3 * noise(row["n"], row["seed"] + 1).float().view(1, 1, -1))
    shapes = [[list(feature.shape) for feature in maps] for maps in real.features]
    if shapes != row["fmap_shapes"]:
        return 1.0
    return max(
        relative_error((distance_to_real(real.logits) + distance_to_fake(fake.logits)).sum(), row["loss_d"]),
        relative_error(distance_to_real(fake.logits).sum(), row["loss_g"]),
        relative_error(feature_loss(real.features, fake.features), row["loss_fm"]),
    )


def _arrays(path: Path) -> dict[str, np.ndarray]:
    with np.load(path) as file:  # pickled objects are refused by default
        return dict(file)
