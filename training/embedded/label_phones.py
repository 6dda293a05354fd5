"""Label recordings with phones: recognise the words, then align their phones to the sound.

Needs ``pip install pocketsphinx``; its US English model (BSD licence) comes inside the package. The recognised words
are often wrong, but wrong words are chosen because they sound alike: their phones serve. Each phone is cut into three
thirds, so that a class says not only which sound it is but where in the sound the frame lies.

Restartable: a recording whose labels exist is skipped. Labels are written for each recording as ``<stem>.npy``,
int16 (frames,), 100 frames per second, ``3 * phone + third``; -1 where nothing was recognised::

    python training/embedded/label_phones.py recordings/ labels/
"""

import argparse
from pathlib import Path

import numpy as np
import soundfile
from pocketsphinx import Decoder

PHONES = ["SIL", "AA", "AE", "AH", "AO", "AW", "AY", "B", "CH", "D", "DH", "EH", "ER", "EY", "F", "G", "HH", "IH", "IY",
          "JH", "K", "L", "M", "N", "NG", "OW", "OY", "P", "R", "S", "SH", "T", "TH", "UH", "UW", "V", "W", "Y", "Z",
          "ZH", "+SPN+", "+NSN+"]
CLASSES = 3 * len(PHONES)
FAST = {"fwdflat": False, "maxhmmpf": 5000}   # a sixth of real time on one core; the full search hears no better


def pass_through(decoder: Decoder, speech: bytes) -> None:
    """Let the decoder's present search hear a whole recording."""
    decoder.start_utt()
    decoder.process_raw(speech, full_utt=True)
    decoder.end_utt()


def phones_of(decoder: Decoder, speech: bytes, frames: int) -> np.ndarray:
    """Class of every 10 ms frame, shape (frames,): words first, then the phones inside the words."""
    decoder.activate_search("_default")
    pass_through(decoder, speech)
    decoder.set_alignment()                        # the second pass aligns what the first one recognised
    pass_through(decoder, speech)
    labels = np.full(frames, -1, np.int16)
    for word in decoder.get_alignment():
        for phone in word:
            thirds = np.minimum(np.arange(phone.duration) * 3 // max(phone.duration, 1), 2)
            stop = min(phone.start + phone.duration, frames)
            labels[phone.start:stop] = (3 * PHONES.index(phone.name) + thirds)[:stop - phone.start]
    return labels


def main() -> None:
    """Label every recording of a folder."""
    parser = argparse.ArgumentParser(description="Label 16 kHz recordings with phones.")
    parser.add_argument("recordings", type=Path)
    parser.add_argument("labels", type=Path)
    arguments = parser.parse_args()
    arguments.labels.mkdir(parents=True, exist_ok=True)
    decoder = Decoder(loglevel="FATAL", **FAST)
    for path in sorted(arguments.recordings.glob("*.flac")):
        output = arguments.labels / f"{path.stem}.npy"
        if output.exists():
            continue
        samples, _ = soundfile.read(path, dtype="int16")
        try:
            np.save(output, phones_of(decoder, samples.tobytes(), len(samples) // 160))
        except RuntimeError as error:              # the aligner lost its path: a recording less
            print(f"{path.name}: not aligned ({error})")


if __name__ == "__main__":
    main()
