"""Make the two demo voices of the package with flite, and print what they measure.

Needs Debian's ``flite`` (``apt-get install flite``, version 2.2) and the Python packages ``soundfile`` and ``numpy``.
The voices are flite's ``slt`` (a woman) and ``awb`` (a man, Scottish): statistical parametric models made at Carnegie
Mellon University from the CMU ARCTIC recordings. Licences are in MODEL_CARD.md; every sentence below was written for
this project. The output is the same every time::

    python make_embedded/make_voices.py rvc_core/embedded/voices
"""

import argparse
import json
import subprocess
import tempfile
from pathlib import Path

import numpy as np
import soundfile

SAMPLE_RATE_HZ = 16_000
PEAK = 0.7  # of full scale: room for the filters that follow
LICENCE = "Carnegie Mellon University's permissive licence (see MODEL_CARD.md)"

TARGET_TEXTS = [
    "The quiet harbour wakes before dawn, while gulls argue over yesterday's bread.",
    "Joyful children jumped through puddles and shouted at the passing geese.",
    "Measure the sugar with care, or the whole pie will taste of nothing.",
    "My father chose a bright yellow coat, because fog makes grey men vanish.",
    "Few people know how thick the ice was when we crossed that river.",
    "She sells sharp scissors and cheap watches near the old church wharf.",
    "Could you put the good books back on the wooden shelf, please?",
    "Twelve robins nested under our roof, and both cats watched them for hours.",
    "The engine coughed, hummed, and finally roared up the long hill.",
    "Nothing in the garden smells so sweet as rain on warm earth.",
    "We weighed every orange by hand, then packed them in blue boxes.",
    "A vague noise from the garage made the young nurse lock her door.",
    "Once the fire was out, they heard an owl call from the oak.",
    "Usually this path is dusty, but today it gleams like silver thread.",
    "Give the boy his toy, and let us all enjoy a moment of silence.",
    "That clever judge laughed at a joke nobody else had understood.",
    "Do these shoes fit you, or should I bring the larger pair?",
    "We sang a song about five frogs and a huge green log.",
    "Pauline paid eight pounds for that vase, though it was hardly worth half.",
    "Why does the moon look larger when it rises behind those trees?",
    "Each evening the baker leaves five warm rolls upon our window sill.",
]
SOURCE_TEXTS = [
    "Our train was late again, so we shared a pot of tea beside the station clock.",
    "Very few voices carry over the water when a north wind is blowing.",
    "Take the second turning, pass the mill, and you will find my house.",
]
VOICES = {
    "target": {"speaker": "slt", "sex": "F", "texts": TARGET_TEXTS},
    "source": {"speaker": "awb", "sex": "M", "texts": SOURCE_TEXTS},
}


def speak(text: str, speaker: str) -> np.ndarray:
    """Samples (N,) at 16 kHz of `text` in flite's voice `speaker`, its peak at a fixed level."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "spoken.wav"
        subprocess.run(["flite", "-voice", speaker, "-t", text, "-o", str(path)], check=True)
        samples, rate_hz = soundfile.read(path)
    if rate_hz != SAMPLE_RATE_HZ:
        raise SystemExit(f"flite wrote {rate_hz} Hz, expected {SAMPLE_RATE_HZ}")
    return samples * (PEAK / np.abs(samples).max())


def make_voice(folder: Path, speaker: str, sex: str, texts: list[str]) -> None:
    """Write one FLAC file a sentence and ``manifest.json`` into `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    clips = []
    for number, text in enumerate(texts, start=1):
        samples = speak(text, speaker)
        name = f"{speaker}_{number:02d}.flac"
        soundfile.write(folder / name, samples, SAMPLE_RATE_HZ, subtype="PCM_16", compression_level=1.0)
        clips.append({"file": name, "seconds": round(len(samples) / SAMPLE_RATE_HZ, 3), "text": text})
    manifest = {
        "speaker": f"flite {speaker}",
        "sex": sex,
        "language": "en",
        "sample_rate": SAMPLE_RATE_HZ,
        "synthesiser": "flite 2.2",
        "licence": LICENCE,
        "clips": clips,
    }
    (folder / "manifest.json").write_text(json.dumps(manifest, indent=4) + "\n", "utf-8")
    print(
        f"{folder.name}: {speaker}, {len(clips)} files, {sum(clip['seconds'] for clip in clips):.1f} s, "
        f"{sum(path.stat().st_size for path in folder.glob('*.flac')) / 1e6:.2f} MB"
    )


def main() -> None:
    """Make both voices."""
    parser = argparse.ArgumentParser(description="Make the demo voices of the package with flite.")
    parser.add_argument("folder", type=Path, help="where the folders target/ and source/ go")
    folder = parser.parse_args().folder
    for name, voice in VOICES.items():
        make_voice(folder / name, **voice)


if __name__ == "__main__":
    main()
