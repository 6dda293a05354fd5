"""The package's source voice with the texts of its sentences, and ways to spoil a recording."""

import json

import numpy as np

from rvc_core.audio.waveform import Audio
from rvc_core.embedded import voice_folder

FOLDER = voice_folder("source")
TEXTS = {clip["file"]: clip["text"] for clip in json.loads((FOLDER / "manifest.json").read_text())["clips"]}


def shuffled(audio: Audio, seconds: float = 0.08) -> Audio:
    """The recording in pieces, in another order: the sounds are there and the words are not."""
    size = round(seconds * audio.sample_rate)
    pieces = [audio.samples[start : start + size] for start in range(0, len(audio.samples), size)]
    order = np.random.default_rng(0).permutation(len(pieces))
    return Audio(np.concatenate([pieces[number] for number in order]), audio.sample_rate)


def noisy(audio: Audio, snr_db: float) -> Audio:
    """The recording in white noise."""
    noise = np.random.default_rng(0).standard_normal(len(audio.samples)).astype(np.float32)
    return Audio(audio.samples + noise * np.float32(audio.samples.std() * 10 ** (-snr_db / 20)), audio.sample_rate)
