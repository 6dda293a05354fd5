"""The cheap alternative to the content encoder: log-mel with each recording's mean and spread taken out.

Runs a module of the package with those features in the place of the embedded encoder's; all else is the same. A content
encoder is worth its weights only if it is well ahead of this::

    export RVC_HOME=cheap PYTHONPATH=.:make_embedded
    python benchmarks/cheap_content.py rvc_core.cli prepare pool --dataset RECORDINGS --preset nano --holdout-minutes 3
    python benchmarks/cheap_content.py rvc_core.cli extract pool
    python benchmarks/cheap_content.py disguise_features pool
    torchrun --standalone --nproc_per_node 2 make_embedded/train_base.py pool cheap.ckpt --export cheap
    python benchmarks/cheap_content.py rvc_core.cli run lj --dataset lj --preset nano --max-minutes 10 \\
        --base-generator cheap/base_generator.pth --base-discriminator cheap/base_discriminator.pth
    python benchmarks/cheap_content.py rvc_core.cli evaluate lj --source others
"""

import runpy
import sys
from pathlib import Path

import numpy as np
import torch

from rvc_core.features import content
from rvc_core.nn.embedded_encoder import FLOOR_POWER, WIDTH, mel_filters, power_spectrum


def cheap(_: Path) -> content.Encode:
    """Log-mel (T, 80), 50 a second, normalised over the recording, with zeros up to the encoder's width."""
    filters = mel_filters()

    def encode(samples: np.ndarray, device: str) -> np.ndarray:
        power = power_spectrum(torch.from_numpy(samples)[None])[0, ::2]
        log_mel = torch.log(power @ filters + FLOOR_POWER).numpy()
        normalised = (log_mel - log_mel.mean(0)) / (log_mel.std(0) + 0.1)
        return np.pad(normalised, ((0, 0), (0, WIDTH - normalised.shape[1])))

    return encode


if __name__ == "__main__":
    content._embedded = cheap
    content._short_hash = lambda *_: "log-mel"
    del sys.argv[0]
    runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
