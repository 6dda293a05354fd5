"""Measure a voice on recordings of other people: whose voice comes out, whether the melody stays, how fast it is.

    python benchmarks/conversion.py VOICE --target recordings/ --heldout unheard/ --sources other_people/

Prints one JSON object: a row per source, and the means. Similarity is Resemblyzer's (GE2E); gain 0 is the source's own
similarity to the target, 1 that of the target's unheard speech. Beside the pitch share stands its ratio to that of a
WORLD copy of the source, which is what the pitch estimator's own slips leave to reach.
"""

import argparse
import json
from pathlib import Path

import numpy as np

from rvc_core.audio import AUDIO_SUFFIXES, Audio, read_audio
from rvc_core.experiment import Voice
from rvc_core.pitch import pitch_estimator
from rvc_core.scores import SpeakerScorer, pitch_share, pitch_share_of_copy, similarity_gain, speaker_similarity
from rvc_core.settings import ConvertSettings


def recordings(places: list[Path]) -> list[Path]:
    """All audio files in folders, and files named themselves."""
    return [file for place in places for file in (sorted(place.rglob("*")) if place.is_dir() else [place])
            if file.suffix.lower() in AUDIO_SUFFIXES]


def main() -> None:
    """Convert, measure, print."""
    parser = argparse.ArgumentParser(description="Measure a voice on other people's recordings.")
    parser.add_argument("voice", help="a .pth, or the name of an experiment")
    parser.add_argument("--target", type=Path, nargs="+", required=True, help="what the voice was trained on")
    parser.add_argument("--heldout", type=Path, nargs="+", required=True, help="the target's unheard speech")
    parser.add_argument("--sources", type=Path, nargs="+", required=True, help="other people's speech")
    parser.add_argument("--index-rate", type=float, default=ConvertSettings().index_rate)
    parser.add_argument("--output", type=Path, help="keep the converted files here")
    arguments = parser.parse_args()
    scorer, estimate = SpeakerScorer(), pitch_estimator("harvest")
    centre = scorer.centre(read_audio(path) for path in recordings(arguments.target))
    unheard = np.stack([scorer.embed(read_audio(path)) for path in recordings(arguments.heldout)])
    voice = Voice.load(arguments.voice)
    rows = []
    for path in recordings(arguments.sources):
        source = read_audio(path)
        result = voice.convert(source, ConvertSettings.of(index_rate=arguments.index_rate))
        if arguments.output:
            result.audio.save(arguments.output / f"{path.stem}.wav", comment="converted")
        rows.append({"source": path.name, "real_time_factor": result.real_time_factor, "transpose": result.transpose,
                     **measured(scorer, estimate, source, result.audio, unheard, centre)})
    means = {key: round(float(np.mean([row[key] for row in rows])), 3) for key in rows[0] if key != "source"}
    ceiling = round(speaker_similarity(unheard, centre), 3)
    print(json.dumps({"files": rows, "mean": means, "target_own_similarity": ceiling}))


def measured(scorer: SpeakerScorer, estimate, source: Audio, made: Audio, unheard: np.ndarray,
             centre: np.ndarray) -> dict[str, float]:
    """The scores of one conversion."""
    voices = scorer.embed(made), scorer.embed(source)
    share = pitch_share(*(estimate(audio.resample(16000).samples) for audio in (source, made)))
    copy = pitch_share_of_copy(source, estimate)
    return {"similarity_target": round(speaker_similarity(voices[0], centre), 3),
            "similarity_source": round(float(voices[0] @ voices[1]), 3),
            "similarity_gain": round(similarity_gain(voices[0], voices[1], unheard, centre), 3),
            "pitch_share": round(share, 3), "pitch_share_of_copy": round(share / copy, 3)}


if __name__ == "__main__":
    main()
