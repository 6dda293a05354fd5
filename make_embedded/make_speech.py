"""Speak texts with free synthesizers, for training the encoder: voices without number, and every word known.

Needs Debian's ``flite``, ``espeak-ng``, ``festival``, ``festvox-kallpc16k``, ``festvox-kdlpc16k`` and
``festvox-us-slt-hts``, and ``pip install pocketsphinx soxr soundfile`` (for its dictionary). A quarter of the
recordings are sentences, a quarter words of chance in a row, half single words or digits, cut close and with silence
between them. Each is written as ``<number>-<voice>.flac`` (16 kHz) with its words in ``.txt`` beside it, which
label_phones.py aligns. Restartable; the same number gives the same recording::

    python make_embedded/make_speech.py speech/ --recordings 160
"""

import argparse
import random
import subprocess
import tempfile
from pathlib import Path

import numpy as np
import soundfile
import soxr
from pocketsphinx import get_model_path

SAMPLE_RATE_HZ = 16_000
DIGITS = "zero one two three four five six seven eight nine oh".split()
PEOPLE = (
    "the old captain|a young nurse|my neighbour|her brother|every farmer|the judge|our teacher|some children"
).split("|")
DEEDS = (
    "carried|watched|painted|measured|forgot about|laughed at|quickly sold|would never touch|had to wash|"
    "is going to fix|should have thrown|enjoys"
).split("|")
THINGS = (
    "a yellow boat|those heavy boxes|the broken chair|five green apples|a piece of chalk|the long rope|"
    "their new shoes|an orange cup|the village church|a very thick book|cold water|the little dog"
).split("|")
PLACES = (
    "by the river|before noon|in the garden|under the bridge|last thursday|without a word|near the south gate|"
    "for a joke|while it rained|because of the noise|after the show|with both hands"
).split("|")
VOICES = (
    [("flite", name) for name in ("kal", "kal16", "awb", "rms", "slt")] * 2
    + [("festival", name) for name in ("kal_diphone", "ked_diphone", "cmu_us_slt_arctic_hts")] * 2
    + [
        ("espeak-ng", f"{accent}+{kind}")
        for accent, kind in zip(
            ["en-us", "en-us", "en-gb"] * 4,
            ("m1", "m2", "m3", "m4", "m5", "m7", "f1", "f2", "f3", "f4", "f5", "klatt2"),
            strict=True,
        )
    ]
)


def say(text: str, voice: tuple[str, str], hasty: float) -> np.ndarray:
    """Samples (N,) at 16 kHz of `text`; `hasty` above 1 is faster than the voice's own rate."""
    program, name = voice
    with tempfile.NamedTemporaryFile(suffix=".wav") as file:
        stretch = f"{1 / hasty:.2f}"
        commands = {
            "flite": ["flite", "-voice", name, "--setf", f"duration_stretch={stretch}", "-t", text, "-o", file.name],
            "festival": [
                "text2wave",
                "-o",
                file.name,
                "-eval",
                f"(voice_{name})",
                "-eval",
                f"(Parameter.set 'Duration_Stretch {stretch})",
            ],
            "espeak-ng": ["espeak-ng", "-v", name, "-s", str(round(150 * hasty)), "-w", file.name, text],
        }
        subprocess.run(commands[program], input=text, text=True, check=True, capture_output=True)
        samples, rate = soundfile.read(file.name)
    return soxr.resample(samples, rate, SAMPLE_RATE_HZ)


def cut_close(samples: np.ndarray) -> np.ndarray:
    """What lies between the first and the last 10 ms that are at most 45 dB under the loudest."""
    level = np.sqrt(np.mean(samples[: len(samples) // 160 * 160].reshape(-1, 160) ** 2, axis=1))
    heard = np.flatnonzero(level >= level.max() * 10.0 ** (-45.0 / 20.0))
    return samples[heard[0] * 160 : (heard[-1] + 1) * 160]


def sentence(chance: random.Random) -> str:
    """A sentence of chance."""
    return " ".join(chance.choice(part) for part in (PEOPLE, DEEDS, THINGS, PLACES))


def recording(number: int, words: list[str]) -> tuple[str, str, np.ndarray]:
    """Voice, text and samples of the recording with this number."""
    chance = random.Random(number)
    voice, kind, hasty = VOICES[number % len(VOICES)], chance.randrange(4), chance.uniform(0.85, 1.2)
    if kind == 0:
        pieces = [f"{sentence(chance)}, and {sentence(chance)}", sentence(chance)]
    elif kind == 1:
        pieces = [" ".join(chance.sample(words, 9)) for _ in range(2)]
    else:
        one_digit = chance.random() < 0.6
        pieces = [chance.choice(DIGITS if one_digit else words) for _ in range(12)]
    sound = [np.zeros(3200)]
    for piece in pieces:
        spoken, gap = say(piece, voice, hasty), np.zeros(int(chance.uniform(0.0, 0.5) * SAMPLE_RATE_HZ))
        sound += [cut_close(spoken) if kind > 1 else spoken, gap]
    samples = np.concatenate(sound)
    return voice[1].replace("+", "_"), " ".join(pieces).replace(",", ""), samples * (0.5 / np.abs(samples).max())


def main() -> None:
    """Write the recordings that are not there yet."""
    parser = argparse.ArgumentParser(description="Synthesise speech with known words.")
    parser.add_argument("output", type=Path)
    parser.add_argument("--recordings", type=int, default=160)
    arguments = parser.parse_args()
    arguments.output.mkdir(parents=True, exist_ok=True)
    dictionary = Path(get_model_path("en-us/cmudict-en-us.dict")).read_text().splitlines()
    words = [word for word in (line.split()[0] for line in dictionary) if word.isalpha() and 3 <= len(word) <= 8]
    for number in range(arguments.recordings):
        if not [*arguments.output.glob(f"{number:04d}-*.txt")]:
            voice, text, samples = recording(number, words)
            path = arguments.output / f"{number:04d}-{voice}.flac"
            soundfile.write(path, samples, SAMPLE_RATE_HZ)
            path.with_suffix(".txt").write_text(text)


if __name__ == "__main__":
    main()
