"""How well vocals and accompaniment are separated: SI-SDR on mixes of real voices with music that trained nothing.

Voices are recordings that judge and never train, spoken and sung; ``held`` are spoken ones that WORLD holds on notes.
Music is played by soundfonts (Debian's ``timgm6mb-soundfont`` and ``opl3-soundfont``) and by a generator that are kept
out of the training of the embedded separator. SI-SDR (Le Roux et al., 2019) is taken over both channels::

    python benchmarks/separation.py VOICES --model embedded
"""

import argparse
import json
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import soundfile
import soxr

from make_embedded.make_songs import beaten, compose, generated, played, plucked, sung
from rvc_core.separation.separate import separate
from rvc_core.settings import SeparateSettings

RATE_HZ = 44_100
SECONDS = 9.0
FONTS = (Path("/usr/share/sounds/sf2/TimGM6mb.sf2"), Path("/usr/share/sounds/sf2/OPL-3_FM_128M.sf2"))
SPOKEN = (
    "heldout/lj/lj_LJ001-0010.flac",
    "heldout/enrico/enrico_chat.flac",
    "heldout/gd/gd_geography.flac",
    "sources/vctk/p226_003.flac",
    "sources/vctk/p228_003.flac",
    "sources/jfk/jfk.flac",
    "sources/austen/austen_0870.flac",
)
SUNG = ("sources/sing/vocadito_10.flac",)
Mix = tuple[str, str, str, float, np.ndarray, np.ndarray]


def voice(path: Path) -> np.ndarray:
    """A recording (N,) at RATE_HZ, at most SECONDS long."""
    samples, rate = soundfile.read(path, dtype="float32")
    return soxr.resample(samples, rate, RATE_HZ)[: int(SECONDS * RATE_HZ)]


def music(number: int) -> tuple[str, np.ndarray]:
    """A band (2, N) on held-out instruments."""
    random = np.random.default_rng(100 + number)
    if number % 3 < 2:
        font = FONTS[number % 3]
        parts = [played(part, font, 1, random, RATE_HZ) for part in ("chords", "bass", "drums", "lead")]
        name = font.stem
    else:
        parts, name = [generated(random, RATE_HZ, (plucked,)) for _ in range(2)], "plucked"
        drums = np.zeros((2, int(SECONDS * RATE_HZ) + RATE_HZ), np.float32)
        for at, _, drum, velocity in compose("drums", random):
            hit = beaten(drum, random, RATE_HZ) * velocity / 200
            drums[:, int(at * RATE_HZ) :][:, : len(hit)] += hit[: max(0, drums.shape[1] - int(at * RATE_HZ))]
        parts.append(drums)
    length = int(SECONDS * RATE_HZ)
    levels = [part[:, :length] / max(1e-4, np.sqrt(np.mean(np.square(part[:, :length])))) for part in parts]
    return name, sum(np.pad(level, ((0, 0), (0, length - level.shape[1]))) for level in levels) * 0.05


def mixes(voices: Path) -> Iterator[Mix]:
    """Group, voice, music, level of the vocals in dB, vocals and accompaniment (channels, N)."""
    held = [(path, "held") for path in SPOKEN[:4]]
    jobs = [(path, "spoken", level) for path in SPOKEN for level in (0.0,)]
    jobs += [(path, "spoken", level) for path in SPOKEN[:3] for level in (-6.0, 6.0)]
    jobs += [(path, "sung", level) for path in SUNG for level in (0.0, 0.0, 0.0, -6.0, -6.0, 6.0, 6.0)]
    jobs += [(path, kind, 0.0) for path, kind in held]
    for number, (path, group, level) in enumerate(jobs):
        line = voice(voices / path)
        if group == "held":
            line = soxr.resample(
                sung(soxr.resample(line, RATE_HZ, 16_000), np.random.default_rng(number)), 16_000, RATE_HZ
            )
        name, backing = music(number)
        length = min(len(line), backing.shape[1])
        vocals, backing = np.stack([line[:length]] * 2), backing[:, :length]
        if number % 2:
            vocals, backing = vocals[:1], backing.mean(0, keepdims=True)
        gain = np.sqrt(np.mean(vocals**2) / np.mean(backing**2)) * 10 ** (-level / 20)
        scale = 0.9 / max(0.9, float(np.abs(vocals + backing * gain).max()))
        yield group, Path(path).stem, name, level, vocals * scale, (backing * gain * scale).astype(np.float32)


def si_sdr(made: np.ndarray, true: np.ndarray) -> float:
    """Scale-invariant signal-to-distortion ratio in dB."""
    made, true = made.ravel().astype(np.float64), true.ravel().astype(np.float64)
    target = (made @ true) / (true @ true) * true
    return float(10 * np.log10((target @ target) / max(1e-20, (made - target) @ (made - target))))


def main() -> None:
    """Print a line for each mix, then the means."""
    parser = argparse.ArgumentParser(description="Measure the separation of songs.")
    parser.add_argument("voices", type=Path)
    parser.add_argument("--model", default="embedded")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    rows = []
    for group, name, backing, level, vocals, music_ in mixes(arguments.voices):
        mix = vocals + music_
        started = time.process_time()
        stems = separate(mix, RATE_HZ, settings=SeparateSettings(model=arguments.model))
        spent = time.process_time() - started
        made, rest = stems.samples["vocals"], stems.samples["instrumental"]
        rows.append(
            {
                "group": group,
                "voice": name,
                "music": backing,
                "channels": len(mix),
                "level_db": level,
                "mix": round(si_sdr(mix, vocals), 2),
                "vocals": round(si_sdr(made, vocals), 2),
                "mix_music": round(si_sdr(mix, music_), 2),
                "music_made": round(si_sdr(rest, music_), 2),
                "sum_db": round(20 * float(np.log10(np.abs(made + rest - mix).max() + 1e-12)), 1),
                "times_real_time": round(mix.shape[1] / RATE_HZ / spent, 1),
            }
        )
        print(json.dumps(rows[-1]), flush=True)
    print(f"\n{'group':8} {'level':>6} {'mixes':>5} {'vocals, dB better':>18} {'music, dB better':>17}")
    for key in sorted({(row["group"], row["level_db"]) for row in rows}):
        chosen = [row for row in rows if (row["group"], row["level_db"]) == key]
        better = [
            float(np.mean([row[a] - row[b] for row in chosen]))
            for a, b in (("vocals", "mix"), ("music_made", "mix_music"))
        ]
        print(f"{key[0]:8} {key[1]:6.0f} {len(chosen):5} {better[0]:18.1f} {better[1]:17.1f}")
    print("sums differ from the mix by at most", max(row["sum_db"] for row in rows), "dBFS")
    print("processor seconds: a song's length /", float(np.median([row["times_real_time"] for row in rows])))
    if arguments.json:
        arguments.json.write_text(json.dumps(rows, indent=1))


if __name__ == "__main__":
    main()
