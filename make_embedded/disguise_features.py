"""Give each clip of an experiment a few more sets of features, heard in voices of chance.

The base voice learns from them that a reader's own pitch, vocal tract and microphone say nothing: the same sound is
wanted whichever set it is given, so what leaks of a speaker through the encoder is not relied upon::

    python make_embedded/disguise_features.py pool --sets 3

Set `n` lies in the experiment's folder ``disguised_<n>``, one file a clip, frame by frame at the clip's own times.
"""

import argparse
from pathlib import Path

import numpy as np
import soundfile
import soxr

from rvc_core.features.content import ContentEncoder, content_encoder
from rvc_core.workspace.layout import Layout

RATE_HZ, HOP_SAMPLES, WINDOW_SAMPLES = 16_000, 320, 400
SPREAD = 0.2  # of the natural logarithm of the speed: pitch and vocal tract move together
COLOUR_DB = 4.0  # standard deviation of each cosine of the microphone's curve


def disguised(samples: np.ndarray, encoder: ContentEncoder, random: np.random.Generator) -> np.ndarray:
    """Features (T, D) of a clip (N,) heard in another voice, T as of the clip itself."""
    speed = float(np.exp(random.uniform(-SPREAD, SPREAD)))
    heard = soxr.resample(samples, RATE_HZ * speed, RATE_HZ)
    bins = np.fft.rfft(heard)
    axis = np.linspace(0.0, np.pi, len(bins))
    curve_db = sum(random.normal(0.0, COLOUR_DB / wave) * np.cos(wave * axis) for wave in range(1, 5))
    heard = np.fft.irfft(bins * 10.0 ** (curve_db / 20.0), len(heard))
    snr_db = random.uniform(15.0, 50.0)
    heard = heard + random.normal(0.0, np.std(heard) * 10.0 ** (-snr_db / 20.0), len(heard))
    features = encoder(heard.astype(np.float32))
    frames = (len(samples) - WINDOW_SAMPLES) // HOP_SAMPLES + 1
    centres = (np.arange(frames) * HOP_SAMPLES + WINDOW_SAMPLES // 2) / speed
    at = np.clip((centres - WINDOW_SAMPLES // 2) / HOP_SAMPLES, 0, len(features) - 1)
    below = np.minimum(at.astype(int), len(features) - 2)
    share = (at - below)[:, None]
    return features[below] * (1 - share) + features[below + 1] * share


def main() -> None:
    """Write all sets."""
    parser = argparse.ArgumentParser(description="Features of an experiment's clips in voices of chance.")
    parser.add_argument("experiment", help="prepared, preset nano")
    parser.add_argument("--sets", type=int, default=3)
    arguments = parser.parse_args()
    layout, encoder = Layout.of(arguments.experiment), content_encoder("embedded", 256)
    for number in range(arguments.sets):
        folder = layout.root / f"disguised_{number}"
        folder.mkdir(exist_ok=True)
        random = np.random.default_rng(number)
        for path in sorted(layout.clips_16k.glob("*.wav")):
            samples = soundfile.read(path, dtype="float32")[0]
            if len(samples) > 2 * WINDOW_SAMPLES:
                np.save(folder / f"{Path(path).stem}.npy", disguised(samples, encoder, random).astype(np.float16))


if __name__ == "__main__":
    main()
