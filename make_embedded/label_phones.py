"""Label recordings with phones: recognise the words, or take the known ones, and align their phones to the sound.

Needs ``pip install pocketsphinx``; its US English model (BSD licence) comes inside the package. Recognised words
are often wrong, but wrong words are chosen because they sound alike: their phones serve. Where a text lies beside the
recording (``<stem>.txt``), its words are aligned instead. Where the aligner loses its path, the phones are recognised
without words. Each phone is cut into three thirds, so that a class says not only which sound it is but where in the
sound the frame lies.

Restartable: a recording whose labels exist is skipped. Labels are written for each recording as ``<stem>.npy``,
int16 (frames,), 100 frames per second, ``3 * phone + third``; -1 where nothing was recognised::

    python make_embedded/label_phones.py recordings/ labels/
"""

import argparse
from pathlib import Path

import numpy as np
import soundfile
from pocketsphinx import Decoder, get_model_path

PHONES = [
    "SIL",
    "AA",
    "AE",
    "AH",
    "AO",
    "AW",
    "AY",
    "B",
    "CH",
    "D",
    "DH",
    "EH",
    "ER",
    "EY",
    "F",
    "G",
    "HH",
    "IH",
    "IY",
    "JH",
    "K",
    "L",
    "M",
    "N",
    "NG",
    "OW",
    "OY",
    "P",
    "R",
    "S",
    "SH",
    "T",
    "TH",
    "UH",
    "UW",
    "V",
    "W",
    "Y",
    "Z",
    "ZH",
    "+SPN+",
    "+NSN+",
]
CLASSES = 3 * len(PHONES)
FAST = {"fwdflat": False, "maxhmmpf": 5000}  # a sixth of real time on one core; the full search hears no better
PHONES_ONLY = {
    "allphone": get_model_path("en-us/en-us-phone.lm.bin"),
    "lm": None,
    "lw": 2.0,
    "beam": 1e-20,
    "pbeam": 1e-20,
}


def pass_through(decoder: Decoder, speech: bytes) -> None:
    """Let the decoder's present search hear a whole recording."""
    decoder.start_utt()
    decoder.process_raw(speech, full_utt=True)
    decoder.end_utt()


def aligned(decoder: Decoder, speech: bytes, text: str | None) -> list[tuple[str, int, int]]:
    """Name, first frame and end of every phone: words first, then the phones inside the words."""
    if text is None:
        decoder.activate_search("_default")
    else:
        decoder.set_align_text(text)
    pass_through(decoder, speech)
    decoder.set_alignment()  # the second pass aligns what the first one heard
    pass_through(decoder, speech)
    return [
        (phone.name, phone.start, phone.start + phone.duration) for word in decoder.get_alignment() for phone in word
    ]


def recognised(decoder: Decoder, speech: bytes) -> list[tuple[str, int, int]]:
    """Name, first frame and end of every phone, without any words."""
    pass_through(decoder, speech)
    return [(piece.word, piece.start_frame, piece.end_frame + 1) for piece in decoder.seg()]


def classes_of(phones: list[tuple[str, int, int]], frames: int) -> np.ndarray:
    """Class of every 10 ms frame, shape (frames,)."""
    labels = np.full(frames, -1, np.int16)
    for name, start, end in phones:
        if name in PHONES:
            thirds = np.minimum(np.arange(end - start) * 3 // max(end - start, 1), 2)
            labels[start:end] = (3 * PHONES.index(name) + thirds)[: max(frames - start, 0)]
    return labels


def main() -> None:
    """Label every recording of a folder."""
    parser = argparse.ArgumentParser(description="Label 16 kHz recordings with phones.")
    parser.add_argument("recordings", type=Path)
    parser.add_argument("labels", type=Path)
    arguments = parser.parse_args()
    arguments.labels.mkdir(parents=True, exist_ok=True)
    by_words = Decoder(loglevel="FATAL", **FAST)
    by_phones = Decoder(loglevel="FATAL", **PHONES_ONLY)
    for path in sorted(arguments.recordings.glob("*.flac")):
        output = arguments.labels / f"{path.stem}.npy"
        if output.exists():
            continue
        samples, _ = soundfile.read(path, dtype="int16")
        written = path.with_suffix(".txt")
        try:
            phones = aligned(by_words, samples.tobytes(), written.read_text() if written.exists() else None)
        except RuntimeError as error:
            if written.exists():  # guesses would be worse than a recording less
                print(f"{path.name}: left out ({error})")
                continue
            phones = recognised(by_phones, samples.tobytes())
            print(f"{path.name}: phones without words ({error})")
        np.save(output, classes_of(phones, len(samples) // 160))


if __name__ == "__main__":
    main()
