"""What a song costs a voice: known vocals over music from code, sung through the whole chain, against the same vocals
converted without any music.

    python benchmarks/song.py VOICE --source vocals.flac … --target heldout/ [--text texts.tsv] [--music-db 0]

Prints one JSON line for each song, and one for all: similarity gain and words of the song's vocals and of the direct
conversion, SI-SDR of the separated accompaniment, the vocals' level and timing. Exit status 1 where a limit is missed.
"""

import argparse
import json
import sys
import tempfile
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))
from rvc_core.audio.mixing import Stem, lag_seconds, loudness_lufs, read_stem
from rvc_core.audio.waveform import read_audio
from rvc_core.evaluation.evaluate import evaluate_files
from rvc_core.settings import ConvertSettings
from rvc_core.voice import Voice

RATE_HZ = 44_100
CHORDS = ((45, 52, 57, 60, 64), (41, 48, 53, 57, 60), (48, 55, 60, 64, 67), (43, 50, 55, 59, 62))
LIMITS = {"gain_lost": 0.1, "words_lost": 0.1, "si_sdr_db": 8.0, "level_db": 1.0, "lag_ms": 5.0}


def music(length: int, seed: int) -> np.ndarray:
    """Plucked chords between the speakers, bass, a drum and a snare (length, 2)."""
    random, beat = np.random.default_rng(seed), round(60 / (90 + 10 * (seed % 4)) * RATE_HZ)
    made = np.zeros((length + 2 * RATE_HZ, 2))
    time, short = np.arange(round(1.8 * RATE_HZ)) / RATE_HZ, np.arange(RATE_HZ // 6) / RATE_HZ
    for number, start in enumerate(range(0, length, beat)):
        chord = CHORDS[(number // 4 + seed) % len(CHORDS)]
        for place, note in enumerate(chord):
            hz = 440 * 2 ** ((note - 69) / 12)
            tone = sum(
                np.sin(2 * np.pi * hz * order * time + random.uniform(0, 6)) / order**1.5 for order in range(1, 9)
            )
            pan = (place + 0.5) / len(chord)
            made[start : start + len(time)] += (tone * np.exp(-time / 0.6))[:, None] * np.sqrt([1 - pan, pan]) * 0.06
        bass = np.tanh(2 * np.sin(2 * np.pi * 440 * 2 ** ((chord[0] - 81) / 12) * time)) * np.exp(-time / 0.4) * 0.15
        made[start : start + len(time)] += bass[:, None]
        kick = np.sin(2 * np.pi * (50 * short + (1 - np.exp(-30 * short)))) * np.exp(-short / 0.06) * 0.3
        snare = random.standard_normal(len(short)) * np.exp(-short / 0.04) * 0.12
        made[start : start + len(short)] += (snare if number % 2 else kick)[:, None]
    return made[:length].astype(np.float32)


def si_sdr_db(made: np.ndarray, truth: np.ndarray) -> float:
    """Scale-invariant signal-to-distortion ratio (Le Roux et al., 2019) of all channels together."""
    made, truth = made.ravel().astype(np.float64), truth.ravel().astype(np.float64)
    target = truth * (made @ truth) / (truth @ truth)
    return 10 * float(np.log10((target @ target) / np.square(made - target).sum()))


def main() -> int:
    """Make the songs, let the voice sing them, compare; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("voice")
    parser.add_argument("--source", nargs="+", required=True)
    parser.add_argument("--target", nargs="+", required=True)
    parser.add_argument("--text")
    parser.add_argument("--music-db", type=float, default=0.0, help="loudness of the music against the vocals")
    parser.add_argument("--output", default="", help="keep the songs here")
    options = parser.parse_args()
    voice = Voice.load(options.voice)
    folder = Path(options.output or tempfile.mkdtemp())
    rows, sung, direct = [], [], []
    for seed, source in enumerate(options.source):
        vocals = read_audio(source, RATE_HZ)
        both = Stem(np.repeat(vocals.samples[:, None], 2, axis=1), RATE_HZ)
        band = Stem(music(len(vocals.samples), seed), RATE_HZ)
        band = band.gained(loudness_lufs(both) + options.music_db - loudness_lufs(band))
        song = folder / f"{Path(source).stem}.wav"
        (both + band).save(song, depth="32")
        made = voice.sing(song, output=folder / "songs")
        place = Path(made.output).parent
        stems = {stem["part"]: read_stem(place / stem["file"]) for stem in made.stems}
        sung.append(folder / f"{Path(source).stem}_sung.flac")
        stems["vocals"].save(sung[-1])
        direct.append(folder / f"{Path(source).stem}_direct.flac")
        voice.convert(source, ConvertSettings(transpose=made.transpose["lead"]), output=direct[-1])
        lag = lag_seconds(stems["vocals"].mono, vocals)
        level_db = loudness_lufs(stems["vocals"]) - made.levels["stems_gain_db"] - loudness_lufs(both)
        rows.append(
            {
                "song": song.name,
                "transpose": made.transpose["lead"],
                "accompaniment_si_sdr_db": round(si_sdr_db(stems["accompaniment"].samples, band.samples), 2),
                "original_vocals_si_sdr_db": round(si_sdr_db(stems["original vocals"].samples, both.samples), 2),
                "level_db": round(level_db, 2),
                "lag_ms": None if lag is None else round(1000 * lag, 2),
            }
        )
        print(json.dumps(rows[-1]), flush=True)
    reports = [evaluate_files(files, options.source, options.target, options.text) for files in (sung, direct)]
    gains = [report.mean["similarity_gain"] or 0.0 for report in reports]
    errors = [(report.words or {}).get("output", {}).get("error_rate", 0.0) for report in reports]
    summary = {
        "gain_sung": gains[0],
        "gain_direct": gains[1],
        "words_wrong_sung": errors[0],
        "words_wrong_direct": errors[1],
        "si_sdr_db": min(row["accompaniment_si_sdr_db"] for row in rows),
        "level_db": max(abs(row["level_db"]) for row in rows),
        "lag_ms": max(abs(row["lag_ms"] or 0.0) for row in rows),
    }
    print(json.dumps({name: round(value, 3) for name, value in summary.items()}))
    missed = [
        gains[1] - gains[0] > LIMITS["gain_lost"],
        errors[0] - errors[1] > LIMITS["words_lost"],
        summary["si_sdr_db"] < LIMITS["si_sdr_db"],
        summary["level_db"] > LIMITS["level_db"],
        summary["lag_ms"] > LIMITS["lag_ms"],
    ]
    return int(any(missed))


if __name__ == "__main__":
    sys.exit(main())
