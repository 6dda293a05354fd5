"""Measure a content encoder beside a plain baseline: what was said should be in it, who said it should not.

The recordings held out of training (each tenth) are used, and, if given, a folder in which several speakers read the
same sentences (files named ``<speaker>_<sentence>.flac``)::

    python make_embedded/probe_encoder.py encoder.safetensors recordings/ labels/ --parallel same_sentences/

- ``phones_by_neighbour``: share of speech frames whose phone is named right by the eight nearest frames of *other*
  readers; higher is better. It is what an index does in a conversion.
- ``disguised``: the same for a bad recording of the reader among the good ones of the others: cut at 4 kHz, in noise at
  10 dB, with a room's tail, in pieces of 0.4 s with digital silence of 0.5 s between them; and the mean of the four.
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
import soxr
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


def phones_by_neighbour(queries: list[np.ndarray], features: list[np.ndarray], labels: list[np.ndarray]) -> float:
    """See the module's page; silence is not counted."""
    right = total = 0
    for reader, own in enumerate(queries):
        others = torch.from_numpy(np.concatenate(features[:reader] + features[reader + 1 :]))
        phones = np.concatenate(labels[:reader] + labels[reader + 1 :]) // 3
        nearest = torch.cdist(torch.from_numpy(own), others).topk(NEIGHBOURS, largest=False).indices.numpy()
        named = np.array([np.bincount(row[row >= 0], minlength=1).argmax() for row in phones[nearest]])
        spoken = labels[reader][: len(own)] >= 3
        right += int((named == labels[reader][: len(own)] // 3)[spoken].sum())
        total += int(spoken.sum())
    return right / total


def telephone(samples: np.ndarray) -> np.ndarray:
    """Nothing above 4 kHz, in 16 bits."""
    narrow = soxr.resample(soxr.resample(samples, 16_000, 8_000), 8_000, 16_000)
    return (np.round(narrow[: len(samples)] * 32768.0) / 32768.0).astype(np.float32)


def noisy(samples: np.ndarray) -> np.ndarray:
    """White noise 10 dB under the voice."""
    noise = np.random.default_rng(0).standard_normal(len(samples))
    return (samples + noise * np.sqrt(np.mean(samples**2) / 10.0)).astype(np.float32)


def in_a_room(samples: np.ndarray) -> np.ndarray:
    """A tail of 0.5 s, together as loud as the voice itself."""
    tail = np.random.default_rng(0).standard_normal(8_000) * 10.0 ** (-3.0 * np.arange(8_000) / 8_000)
    tail[:80] = 0.0
    impulse = tail / np.linalg.norm(tail)
    impulse[0] = 1.0
    size = 1 << (len(samples) + 8_000).bit_length()
    wet = np.fft.irfft(np.fft.rfft(samples, size) * np.fft.rfft(impulse, size), size)
    return wet[: len(samples)].astype(np.float32)


def in_pieces(extract: Features) -> Features:
    """Features of pieces of 20 frames that stand alone, the silence between them left out again."""
    voice, silence = 20 * 320, 25 * 320

    def features(samples: np.ndarray) -> np.ndarray:
        pieces = samples[: len(samples) // voice * voice].reshape(-1, voice)
        heard = extract(np.pad(pieces, ((0, 0), (0, silence))).ravel())
        heard = np.pad(heard, ((0, 45 * len(pieces) - len(heard)), (0, 0)))
        return np.ascontiguousarray(heard.reshape(len(pieces), 45, -1)[:, :20].reshape(20 * len(pieces), -1))

    return features


def speaker_named(features: list[np.ndarray]) -> float:
    """See the module's page."""

    def fingerprint(piece: np.ndarray) -> np.ndarray:
        return np.concatenate([piece.mean(0), piece.std(0)])

    known = np.stack([fingerprint(own[: len(own) // 2]) for own in features])
    hits = [
        np.linalg.norm(known - fingerprint(own[start : start + PIECE_FRAMES]), axis=1).argmin() == reader
        for reader, own in enumerate(features)
        for start in range(len(own) // 2, len(own) - PIECE_FRAMES + 1, PIECE_FRAMES)
    ]
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

    paths = [
        path
        for path in sorted(arguments.recordings.glob("*.flac"))[::10]
        if (arguments.labels / f"{path.stem}.npy").exists()
    ]
    readers = [samples_of(path) for path in paths]
    for name, extract in (("encoder", by_encoder(arguments.encoder)), ("baseline", baseline(readers))):
        features = [extract(samples) for samples in readers]
        labels = [np.load(arguments.labels / f"{path.stem}.npy")[::2] for path in paths]
        frames = [min(len(own), len(said)) for own, said in zip(features, labels, strict=True)]
        features = [own[:count] for own, count in zip(features, frames, strict=True)]
        labels = [said[:count] for said, count in zip(labels, frames, strict=True)]
        heard = {
            spoil.__name__: [extract(spoil(samples)) for samples in readers] for spoil in (telephone, noisy, in_a_room)
        }
        heard["pieces"] = [in_pieces(extract)(samples) for samples in readers]
        bad = {}
        for kind, queries in heard.items():
            cut = [own[:count] for own, count in zip(queries, frames, strict=True)]
            bad[kind] = phones_by_neighbour(cut, features, labels)
        figures = {
            "readers": len(readers),
            "phones_by_neighbour": phones_by_neighbour(features, features, labels),
            **bad,
            "disguised": float(np.mean([*bad.values()])),
            "speaker_named": speaker_named(features),
        }
        if arguments.parallel:
            figures["same_to_different"] = same_to_different(
                {tuple(path.stem.split("_")): extract(samples_of(path)) for path in arguments.parallel.glob("*.flac")}
            )
        print(name, json.dumps({key: round(value, 3) for key, value in figures.items()}), flush=True)


if __name__ == "__main__":
    main()
