"""In which number format the networks compute: the one that the device is made for, if it shows there that it is right.

Lists of cards age and cards lie (some GTX 16xx compute silence in float16), so a clip of the run itself is spoken, and
its training gradients are taken, in that format and in float32.
"""

from dataclasses import replace
from typing import NamedTuple

import numpy as np
import torch

from ..errors import ResourceError
from ..nn.spectrogram import mel_spectrogram
from ..workspace.dataset import Batch, ClipTensors, draw_noise
from .step import Gradients, GradScaler, Networks
from .validate import speak

DTYPES = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}
_TENSOR_CORES = (7, 0)  # the first compute capability for which float16 is faster than float32
_MOST_NEPERS = 0.5  # mean difference of log mels: silence has 5; random weights, which whisper, have 0.3 in bfloat16
_LEAST_COSINE = 0.8  # of nine in ten weight tensors; bfloat16 has 0.95, what is broken has none
_LENGTHS = (0.8, 1.25)  # of the median tensor's gradient over float32's; bfloat16 stays within 0.97 and 1.02
_SEED = 20_261


class Precision(NamedTuple):
    """A number format, ``fp32``, ``fp16`` or ``bf16``, and why it was chosen."""

    name: str
    reason: str

    @property
    def dtype(self) -> torch.dtype:
        """As torch names it."""
        return DTYPES[self.name]


def native_precision(device: torch.device) -> Precision:
    """The format that a device multiplies matrices in fastest.

    Examples
    --------
    >>> native_precision(torch.device("cpu")).name
    'fp32'
    """
    if device.type == "cpu":
        return Precision("fp32", "a CPU")
    with torch.cuda.device(device):
        if torch.cuda.is_bf16_supported(including_emulation=False):
            return Precision("bf16", "Ampere or later")
        major, minor = torch.cuda.get_device_capability()
    if (major, minor) >= _TENSOR_CORES:
        return Precision("fp16", "tensor cores without bfloat16")
    return Precision("fp32", f"compute capability {major}.{minor} has no tensor cores")


def choose_precision(requested: str, networks: Networks, clip: ClipTensors) -> Precision:
    """Decide by comparison with float32; the networks are not moved.

    Parameters
    ----------
    requested : str
        ``auto``, or a format by name.
    clip : ClipTensors
        What is spoken and learnt from.

    Raises
    ------
    ResourceError
        When a format is asked for by name and is not right on this device.
    """
    chosen = native_precision(networks.device) if requested == "auto" else Precision(requested, "asked for")
    if chosen.name == "fp32":
        return chosen
    reasons = [chosen.reason]
    for name in ("bf16", "fp16") if (requested, chosen.name) == ("auto", "bf16") else (chosen.name,):
        difference = compare(DTYPES[name], networks, clip)
        if not difference.wrong:
            return Precision(name, "; ".join([*reasons, f"beside fp32: {difference}"]))
        reasons.append(f"{name} is wrong on this device: {difference}")
    if requested == "auto":
        return Precision("fp32", "; ".join(reasons[1:]))
    raise ResourceError(reasons[-1], hint="leave --precision at auto, or choose fp32")


class Difference(NamedTuple):
    """What a number format does to a voice.

    Attributes
    ----------
    nepers : float
        Mean absolute difference of the log mels of what is spoken.
    cosine, length : float
        Of each weight tensor's gradient and float32's: the cosine that nine in ten tensors reach, the less good network
        counting; the quotient of their lengths in the median tensor. A single tensor says little: some gradients are
        nearly 0 in sum.
    """

    nepers: float
    cosine: float
    length: float

    @property
    def wrong(self) -> bool:
        """Whether training must not use it; what is no number is wrong."""
        return not (
            self.nepers <= _MOST_NEPERS and self.cosine >= _LEAST_COSINE and _LENGTHS[0] <= self.length <= _LENGTHS[1]
        )

    def __str__(self) -> str:
        """In one line."""
        return f"mel {self.nepers:.3f} nepers apart, gradients' cosine {self.cosine:.3f}, length × {self.length:.2f}"


def compare(dtype: torch.dtype, networks: Networks, clip: ClipTensors) -> Difference:
    """Speak and learn from one clip in float32 and in `dtype`, with the same noise."""
    clip, before = clip.excerpt(0, networks.spec.excerpt_frames), networks.dtype
    results = []
    for each in (torch.float32, dtype):
        networks.compute_in(each)
        with networks.autocast():
            audio = speak(networks.generator, clip)
        results.append((mel_spectrogram(audio, networks.spec), *_gradients(networks, clip)))
    networks.compute_in(before)
    (mel, *gradients), (other_mel, *others) = results
    cosines, lengths = zip(*(_likeness(*pair) for pair in zip(gradients, others, strict=True)), strict=True)
    return Difference(
        float((mel - other_mel).abs().mean()),
        min(float(np.quantile(each, 0.1)) for each in cosines),
        float(np.median(np.concatenate(lengths))),
    )


def _gradients(networks: Networks, clip: ClipTensors) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
    """Both networks' gradients of one step, generator first; float16's are scaled as in training, less each time."""
    noise = draw_noise([clip.frames], networks.spec, seed=(_SEED,), device=networks.device)
    batch, whole = replace(Batch.of([clip], networks.device), noise=noise), [slice(0, 1)]
    half = networks.scaler.is_enabled()
    for power in range(16, -1, -4):
        networks.scaler = GradScaler(networks.device.type, init_scale=2.0**power, enabled=half)
        work = Gradients(networks, batch)
        work.of_discriminator(whole)
        work.of_generator(whole)
        scale = networks.scaler.get_scale()  # once: a GPU is made to wait for it
        generator, discriminator = (
            [weight.grad / scale for weight in network.parameters() if weight.grad is not None]
            for network in (networks.generator, networks.discriminator)
        )
        if not half or torch.nn.utils.get_total_norm([*generator, *discriminator]).isfinite():
            break
    for optimizer in (networks.generator_optimizer, networks.discriminator_optimizer):
        optimizer.zero_grad(set_to_none=True)
    return generator, discriminator


def _likeness(ours: list[torch.Tensor], theirs: list[torch.Tensor]) -> tuple[np.ndarray, np.ndarray]:
    """Cosines and quotients of lengths, tensor by tensor; those without any gradient in float32 are left out."""
    dots = (
        torch.stack(
            [
                torch.stack([(one * one).sum(), (one * other).sum(), (other * other).sum()])
                for one, other in zip(ours, theirs, strict=True)
            ]
        )
        .double()
        .cpu()
        .numpy()
    )
    own, both, other = dots[dots[:, 0] > 0].T
    return both / np.sqrt(own * np.where(other == 0, 1, other)), np.sqrt(other / own)
