"""Encoders and synthesizers that anybody can compute by hand, for tests of what stands around them."""

import numpy as np
import torch

from rvc_core.nn.generator import sine
from rvc_core.nn.synthesizer import Synthesizer


class Bands:
    """A content encoder that anybody can compute by hand: eight band energies."""

    name, width, identity = "embedded", 8, "bands"

    def __call__(self, samples: np.ndarray) -> np.ndarray:
        frames = np.lib.stride_tricks.sliding_window_view(samples, 400)[::320]
        return np.log(np.abs(np.fft.rfft(frames, 16))[:, 1:] + 1e-3).astype(np.float32)


class Whistler:
    """A synthesizer that whistles the pitch it is given, 0.02 of noise where there is none."""

    def infer(
        self,
        content: torch.Tensor,
        coarse: torch.Tensor,
        f0_hz: torch.Tensor,
        speaker: torch.Tensor,
        noise_scale: float,
        *,
        noise: object,
    ) -> torch.Tensor:
        whistle = sine(f0_hz, 16000, noise.phase)
        return whistle * 5 + 0.02 * noise.source * (f0_hz == 0).repeat_interleave(160, dim=1).unsqueeze(1)


class Spy:
    """A synthesizer that remembers the content it is given, and speaks like the one inside."""

    def __init__(self, inside: Synthesizer) -> None:
        self.inside, self.content = inside, np.empty(0)

    def infer(self, content: torch.Tensor, *arguments: object, **options: object) -> torch.Tensor:
        self.content = content[0].numpy()
        return self.inside.infer(content, *arguments, **options)
