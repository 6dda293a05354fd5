"""Retrieval-based voice conversion for free cloud GPUs: train a voice and convert recordings with it.

>>> import rvc_core as rvc
>>> sorted(name for name in dir(rvc) if name[0].isupper())[:3]
['Audio', 'ConvertSettings', 'Experiment']
"""

import importlib
from typing import Any

__version__ = "0.1.0"

# Importing the package is instant: each public name is imported from its module at first use.
_PUBLIC = {
    "Audio": "audio.waveform",
    "read_audio": "audio.waveform",
    "Experiment": "experiment",
    "Voice": "voice",
    "RVCError": "errors",
    "PrepareSettings": "settings",
    "ExtractSettings": "settings",
    "TrainSettings": "settings",
    "IndexSettings": "settings",
    "ConvertSettings": "settings",
    "SpeakSettings": "settings",
    "SongSettings": "song_settings",
    "RepairSettings": "song_settings",
    "SeparateSettings": "settings",
    "RuntimeSettings": "settings",
    "MirrorSettings": "settings",
}
__all__ = [*_PUBLIC, "__version__"]


def __getattr__(name: str) -> Any:
    if name not in _PUBLIC:
        raise AttributeError(f"module 'rvc_core' has no attribute {name!r}")
    return getattr(importlib.import_module(f".{_PUBLIC[name]}", __name__), name)


def __dir__() -> list[str]:
    return sorted(__all__)
