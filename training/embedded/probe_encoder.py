"""Measure a content encoder beside a plain baseline: what was said should be in it, who said it should not.

The recordings held out of training (each tenth) are used, and, if given, a folder in which several speakers read the
same sentences (files named ``<speaker>_<sentence>.flac``)::

    python training/embedded/probe_encoder.py encoder.safetensors recordings/ labels/ --parallel same_sentences/

- ``phones_by_neighbour``: share of speech frames whose phone is named right by the eight nearest frames of *other*
  readers; higher is better. It is what an index does in a conversion.
- ``speaker_named``: share of 2 s pieces from the second half of a recording whose mean and spread lie nearest to the
  right reader's over the first half; lower is better.
- ``same_to_different``: distance (after time alignment) between two speakers reading the same sentence, over the
  distance between two speakers reading different ones; lower is better.

The baseline is the log-mel with each recording's mean and spread per band taken out, in 64 principal components.
"""

import argparse
import itertools
import json
from collections.abc import Callable
from pathlib import Path

import librosa
import numpy as np
import soundfile
import torch

from rvc_core.nn.embedded_encoder import FLOOR_POWER, EmbeddedEncoder, mel_filters, power_spectrum

PIECE_FRAMES = 100
NEIGHBOURS = 8
Features = Callable[[np.ndarray], np.ndarray]


def normalised_mel(samples: np.ndarray) -> np.ndarray:
    """Log-mel (T, bands), 50 a second, with the recording's mean and spread taken out."""
    power = power_spectrum(torch.from_numpy(samples)[None])[0, ::2]
    log_mel = torch.log(power @ mel_filters() + FLOOR_POWER).numpy()
    return (log_mel - log_mel.mean(0)) / (log_mel.std(0) + 0.1)


def baseline(readers: list[np.ndarray]) -> Features:
    """Principal components of the normalised log-mel."""
    stacked = np.concatenate([normalised_mel(samples) for samples in readers])
    _, _, components = np.linalg.svd(stacked - stacked.mean(0), full_matrices=False)
    return lambda samples: normalised_mel(samples) @ components[:64].T


def by_encoder(path: Path) -> Features:
    """Features of the network in a file."""
    encoder = EmbeddedEncoder.from_file(path)

    def features(samples: np.ndarray) -> np.ndarray:
        with torch.inference_mode():
            return encoder(torch.from_numpy(samples)[None])[0].numpy()
    return features


def phones_by_neighbour(features: list[np.ndarray], labels: list[np.ndarray]) -> float:
    """See the module's page; silence is not counted."""
    right = total = 0
    for reader, own in enumerate(features):
        others = torch.from_numpy(np.concatenate(features[:reader] + features[reader + 1:]))
        phones = np.concatenate(labels[:reader] + labels[reader + 1:]) // 3
        nearest = torch.cdist(torch.from_numpy(own), others).topk(NEIGHBOURS, largest=False).indices.numpy()
        named = np.array([np.bincount(row[row >= 0], minlength=1).argmax() for row in phones[nearest]])
        spoken = labels[reader] >= 3
        right += int((named == labels[reader] // 3)[spoken].sum())
        total += int(spoken.sum())
    return right / total


def speaker_named(features: list[np.ndarray]) -> float:
    """See the module's page."""
    def fingerprint(piece: np.ndarray) -> np.ndarray:
        return np.concatenate([piece.mean(0), piece.std(0)])

    known = np.stack([fingerprint(own[:len(own) // 2]) for own in features])
    hits = [np.linalg.norm(known - fingerprint(own[start:start + PIECE_FRAMES]), axis=1).argmin() == reader
            for reader, own in enumerate(features)
            for start in range(len(own) // 2, len(own) - PIECE_FRAMES + 1, PIECE_FRAMES)]
    return float(np.mean(hits))


def same_to_different(features: dict[tuple[str, str], np.ndarray]) -> float:
    """See the module's page."""
    same, different = [], []
    for (one, first), (other, second) in itertools.combinations(features, 2):
        if one != other:
            costs, path = librosa.sequence.dtw(features[one, first].T, features[other, second].T, metric="euclidean")
            (same if first == second else different).append(costs[-1, -1] / len(path))
    return float(np.mean(same) / np.mean(different))


def main() -> None:
    """Print one line of figures for the encoder and one for the baseline."""
    parser = argparse.ArgumentParser(description="Measure a content encoder.")
    parser.add_argument("encoder", type=Path)
    parser.add_argument("recordings", type=Path)
    parser.add_argument("labels", type=Path)
    parser.add_argument("--parallel", type=Path)
    arguments = parser.parse_args()

    def samples_of(path: Path) -> np.ndarray:
        return soundfile.read(path, dtype="float32")[0]

    paths = [path for path in sorted(arguments.recordings.glob("*.flac"))[::10]
             if (arguments.labels / f"{path.stem}.npy").exists()]
    readers = [samples_of(path) for path in paths]
    for name, extract in (("encoder", by_encoder(arguments.encoder)), ("baseline", baseline(readers))):
        features = [extract(samples) for samples in readers]
        labels = [np.load(arguments.labels / f"{path.stem}.npy")[::2] for path in paths]
        frames = [min(len(own), len(said)) for own, said in zip(features, labels, strict=True)]
        features = [own[:count] for own, count in zip(features, frames, strict=True)]
        labels = [said[:count] for said, count in zip(labels, frames, strict=True)]
        figures = {"readers": len(readers), "phones_by_neighbour": phones_by_neighbour(features, labels),
                   "speaker_named": speaker_named(features)}
        if arguments.parallel:
            figures["same_to_different"] = same_to_different(
                {tuple(path.stem.split("_")): extract(samples_of(path)) for path in arguments.parallel.glob("*.flac")})
        print(name, json.dumps({key: round(value, 3) for key, value in figures.items()}), flush=True)


if __name__ == "__main__":
    main()
