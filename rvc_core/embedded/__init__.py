"""The embedded default: what the package carries so that it works without a network.

Paths only; nothing is opened here. Where the files come from, and under which licence, is in ``MODEL_CARD.md``.
"""

from pathlib import Path
from typing import Literal

_FOLDER = Path(__file__).parent

ENCODER_FILE = _FOLDER / "encoder.safetensors"
SEPARATOR_FILE = _FOLDER / "separator.safetensors"
BASE_GENERATOR_FILE = _FOLDER / "base_generator.pth"  # the nano base voice; may be absent
BASE_DISCRIMINATOR_FILE = _FOLDER / "base_discriminator.pth"


def voice_folder(name: Literal["target", "source"]) -> Path:
    """Folder of short synthesised recordings (FLAC, 16 kHz) with a ``manifest.json`` that holds their texts.

    ``target`` is the voice that the demo trains, ``source`` another speaker's sentences to convert.

    Examples
    --------
    >>> sorted(path.suffix for path in voice_folder("source").iterdir())
    ['.flac', '.flac', '.flac', '.json']
    """
    return _FOLDER / "voices" / name
