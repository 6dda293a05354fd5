"""Make the package's encoder from checkpoints: average them, fit the detail that the sounds' names leave out, round.

python make_embedded/export_encoder.py recordings/ encoder.safetensors early.ckpt late.ckpt
"""

import argparse
from pathlib import Path

import soundfile
import torch

from rvc_core.nn.embedded_encoder import SOUNDS, WIDTH, EmbeddedEncoder, normalised_log_mel, power_spectrum

EACH = 5  # every so many recordings serve for the fit


def main() -> None:
    """Average, fit, write."""
    parser = argparse.ArgumentParser(description="Export the embedded content encoder.")
    parser.add_argument("recordings", type=Path, help="16 kHz FLAC, one for each reader")
    parser.add_argument("output", type=Path)
    parser.add_argument("checkpoints", type=Path, nargs="+")
    arguments = parser.parse_args()
    states = [torch.load(path, map_location="cpu", weights_only=True)["encoder"] for path in arguments.checkpoints]
    encoder = EmbeddedEncoder().eval()
    encoder.load_state_dict({key: torch.stack([state[key] for state in states]).mean(0) for key in states[0]})
    with torch.inference_mode():
        hidden = torch.cat([hidden_of(encoder, path) for path in sorted(arguments.recordings.glob("*.flac"))[::EACH]])
        _, _, directions = torch.linalg.svd(hidden - hidden.mean(0), full_matrices=False)
        encoder.detail.weight.copy_(directions[: WIDTH - SOUNDS])
    encoder.save(arguments.output)


def hidden_of(encoder: EmbeddedEncoder, path: Path) -> torch.Tensor:
    """The hidden layer (T, 256) of a recording."""
    samples, _ = soundfile.read(path, dtype="float32")
    return encoder.encode(normalised_log_mel(power_spectrum(torch.from_numpy(samples)[None]), encoder.filters))[0]


if __name__ == "__main__":
    main()
