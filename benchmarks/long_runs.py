"""Was the verdict right? Every saved voice of a training, on recordings that neither training nor validation heard.

    python benchmarks/long_runs.py NAME --target unheard/ --source others/ --text texts.tsv --curve NAME.jsonl
    python benchmarks/long_runs.py --report tests/curves/*.jsonl

The first scores the voices of a training, without an index, and writes its record: the target's unheard recordings,
converted to itself (`mel`: log-mel distance to the recording, nepers; `pitch`: share of voiced frames whose pitch is
lost), and other people's sentences (`similarity` to the target's unheard recordings, GE2E; `words` misheard,
pocketsphinx; `clean`: the rating that DNSMOS predicts). Scores so far are kept beside the record.

The second compares ways to choose a voice. `together` is the mean of all figures, each from 0 (the best voice) to 1
(the worst). A pick's regret is what it is worse by than the best of all; its noise is the standard error of that
difference over 2000 draws of the recordings, unknown where a record has only their means. The best of many voices is
partly the luckiest, so `crossed` chooses it by one half of the recordings and compares on the other. Records are named
PERSON-anything.jsonl; intervals are over people.
"""

import argparse
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch

from rvc_core.audio.recordings import recordings_in
from rvc_core.audio.waveform import read_audio
from rvc_core.conversion import convert
from rvc_core.features.pitch import SAMPLE_RATE, pitch_estimator, pitch_method
from rvc_core.nn.spectrogram import mel_spectrogram
from rvc_core.scoring.cleanness import NaturalnessScorer
from rvc_core.scoring.melody import pitch_share
from rvc_core.scoring.similarity import SpeakerScorer, speaker_similarity
from rvc_core.scoring.transcripts import texts_of
from rvc_core.scoring.words import WordRecogniser
from rvc_core.settings import ConvertSettings, RuntimeSettings
from rvc_core.system.documents import read_jsonl
from rvc_core.system.files import write_jsonl
from rvc_core.verdict.guide import read_as_the_guide
from rvc_core.verdict.learning_curve import History
from rvc_core.verdict.overtraining import verdict_of
from rvc_core.voice import Voice
from rvc_core.workspace.layout import Layout
from rvc_core.workspace.metrics import history
from rvc_core.workspace.voice_file import load_voice

DRAWS, STEPS_KEPT = 2000, 150
FIGURES = {"mel": 1, "pitch": 1, "similarity": -1, "words": 1, "clean": -1}  # -1: more is better
Row = dict[str, Any]
LOSSES = ("loss/g/total", "loss/g/mel", "loss/g/kl", "loss/g/fm", "loss/d/total")


class Scorer:
    """Scores one voice after the other on the same recordings."""

    def __init__(self, target: list[Path], sources: list[Path], text: str) -> None:
        self.target, self.sources = ([(path.name, read_audio(path)) for path in paths] for paths in (target, sources))
        self.texts = texts_of(sources, text)
        self.recogniser, self.speakers = WordRecogniser(self.texts), SpeakerScorer()
        self.naturalness = NaturalnessScorer()
        self.centre = self.speakers.centre([audio for _, audio in self.target])
        estimate = pitch_estimator(pitch_method("auto"), "cpu")  # half the time, and the same for every voice
        known = cache(lambda samples: estimate(np.frombuffer(samples, np.float32)))
        self.pitch = lambda samples: known(samples.tobytes())
        convert.pitch_estimator = lambda *_: self.pitch

    def __call__(self, path: Path) -> dict[str, dict[str, Any]]:
        """By figure: by recording."""
        voice = Voice.load(path, None, runtime=RuntimeSettings(threads=1))
        spec, settings = voice.converter.voice.spec, ConvertSettings(index_rate=0)
        found: dict[str, dict[str, Any]] = {name: {} for name in FIGURES}
        for name, audio in self.target:
            made = voice.convert(audio, settings.model_copy(update={"transpose": 0})).audio
            pair = [torch.from_numpy(one.resample(spec.sample_rate).samples)[None] for one in (made, audio)]
            size = min(wave.shape[1] for wave in pair)
            ours, theirs = (mel_spectrogram(wave[:, :size], spec)[0] for wave in pair)
            found["mel"][name] = round((ours - theirs).abs().mean().item(), 5)
            tracks = [self.pitch(one.resample(SAMPLE_RATE).samples) for one in (audio, made)]
            found["pitch"][name] = round(1 - pitch_share(*tracks), 5)
        for (name, audio), text in zip(self.sources, self.texts, strict=True):
            made = voice.convert(audio, settings).audio
            found["similarity"][name] = round(speaker_similarity(self.speakers.embed(made), self.centre), 5)
            found["clean"][name] = round(self.naturalness(made).overall, 4)
            score = self.recogniser.score(text, self.recogniser.transcribe(made))
            found["words"][name] = [score.errors, score.words]
        return found


def figures(voices: list[Row], heard: dict[int, np.ndarray] | None = None) -> dict[str, np.ndarray]:
    """Means of each figure (voices,), less is better; `heard`: which recordings count, by how many there are."""
    found: dict[str, np.ndarray] = {}
    for name, sign in FIGURES.items():
        if name in voices[0]["unheard"]:
            table = np.array([voice["unheard"][name] for voice in voices], float)
            table = table[:, heard[table.shape[1]]] if heard else table
            counted = name == "words"
            found[name] = table[..., 0].sum(1) / table[..., 1].sum(1) if counted else sign * table.mean(1)
    return found


def with_together(found: dict[str, np.ndarray], of: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """And all figures in one, each by its range `of` all voices on all recordings."""
    return {**found, "together": np.mean([(found[name] - of[name].min()) / np.ptp(of[name]) for name in of], axis=0)}


def picks(record: list[Row], voices: list[Row]) -> dict[str, int]:
    """Which of `voices` each way of choosing takes; only the verdict can take an average."""
    best, (heard, values) = verdict_of(record).best, History.of(record).series("heldout/mel")
    steps, ours = [row["step"] for row in voices], {}
    if best is not None:
        paths = [row.get("path") for row in voices]
        ours = {"this verdict": paths.index(best.path) if best.path else steps.index(best.step)}
    places = {
        "this verdict, no average": next((one.step for one in verdict_of(singles(record)).candidates), None),
        **next((row["picks"] for row in record if row["kind"] == "guide"), {}),
        "lowest held-out mel": heard[values.argmin()] if len(values) else None,
        "the last voice": steps[-1],
        "the first voice": steps[0],
    }
    return ours | {
        name: int(np.argmin([abs(step - place) for step in steps]))
        for name, place in places.items()
        if place is not None
    }


def singles(record: list[Row]) -> list[Row]:
    """A record as if no average had been made."""
    return [row for row in record if row["kind"] != "average"]


def report(name: str, record: list[Row]) -> dict[str, float]:
    """Print what each pick of a record loses; returns the regrets in all figures together."""
    voices = [row for row in record if "unheard" in row]
    of, random = figures(voices), np.random.default_rng(0)
    sizes = {len(values) for values in voices[0]["unheard"].values()}
    whole, drawn, halves = with_together(of, of), [], []
    for _ in range(DRAWS if min(sizes) > 1 else 0):
        drawn.append(with_together(figures(voices, {size: random.integers(size, size=size) for size in sizes}), of))
        shuffled = {size: random.permutation(size) for size in sizes}
        halves.append(
            [
                with_together(figures(voices, half), of)["together"]
                for half in (
                    {size: order[: size // 2] for size, order in shuffled.items()},
                    {size: order[size // 2 :] for size, order in shuffled.items()},
                )
            ]
        )
    verdict, regrets = verdict_of(record), {}
    print(f"\n{name}: {len(voices)} voices to epoch {voices[-1]['epoch']}; {verdict.state}: {verdict.sentence}")
    print("| pick | epoch | " + " | ".join(whole) + " | crossed |")
    print("|---" * (3 + len(whole)) + "|")
    for way, number in picks(record, voices).items():
        losses = [values[number] - values.min() for values in whole.values()]
        cells = [f"{loss:.3f}" for loss in losses]
        if drawn:
            noises = [
                np.std([draw[figure][number] - draw[figure][values.argmin()] for draw in drawn])
                for figure, values in whole.items()
            ]
            crossed = [other[number] - other[half.argmin()] for half, other in halves]
            cells = [
                ("**{:.3f} ± {:.3f}**" if loss > 2 * noise else "{:.3f} ± {:.3f}").format(loss, noise)
                for loss, noise in [*zip(losses, noises, strict=True), (np.mean(crossed), np.std(crossed))]
            ]
        print(f"| {way} | {called(voices[number])} | " + " | ".join(cells) + " |")
        regrets[way] = float(losses[-1])
    for figure, values in whole.items():
        print(f"best {figure}: epoch {called(voices[int(values.argmin())])}, {values.min():.4f} to {values.max():.4f}")
    return regrets


def called(voice: Row) -> str:
    """The epoch of a voice, or those of an average."""
    return f"{voice['from_epoch']} to {voice['epoch']}" if voice["kind"] == "average" else str(voice["epoch"])


def compare(regrets: dict[str, dict[str, float]]) -> None:
    """Print the mean regret of each way, and how much less the verdict loses: paired, intervals over people."""
    people = sorted({name.split("-")[0] for name in regrets})
    random = np.random.default_rng(1)
    print("\n| way | runs | mean regret | more than this verdict (95 % over people) |")
    print("|---" * 4 + "|")
    for way in dict.fromkeys(way for one in regrets.values() for way in one):
        more = {
            person: [
                one[way] - one["this verdict"]
                for name, one in regrets.items()
                if way in one and name.split("-")[0] == person
            ]
            for person in people
        }
        known = [person for person in people if more[person]]
        draws = [np.mean(np.concatenate([more[one] for one in random.choice(known, len(known))])) for _ in range(DRAWS)]
        low, high = np.percentile(draws, [2.5, 97.5])
        told = [one[way] for one in regrets.values() if way in one]
        mean = np.mean(np.concatenate([more[one] for one in known]))
        print(f"| {way} | {len(told)} | {np.mean(told):.3f} | {mean:+.3f} ({low:+.3f} to {high:+.3f}) |")


def curve(layout: Layout, scores: list[Row]) -> list[Row]:
    """The record of a training: 150 of its steps, all validations, its voices with their scores, the guide's picks."""
    by_path = {row["path"]: {name: list(row[name].values()) for name in FIGURES} for row in scores}
    rows = history(layout)
    guide = read_as_the_guide(History.of(rows))
    low = {"guide: lowest g/total": guide.lowest, "guide: lowest mel": next(iter(guide.minima), None)}
    kept, every = [], max(1, rows[-1]["step"] // STEPS_KEPT)
    for row in rows:
        place = {name: row[name] for name in ("kind", "step", "epoch")}
        if row["kind"] == "step" and row["step"] % every == 0:
            kept.append({**place, **{name: round(row[name], 3) for name in LOSSES}})
        elif row["kind"] == "validation":
            kept.append(row)
        elif row.get("path") in by_path:
            measured = row if row["kind"] == "average" else place | {"path": row["path"]}
            kept.append({**measured, "unheard": by_path[row["path"]]})
    return [*kept, {"kind": "guide", "picks": low}]


def main() -> None:
    """Score what is not scored yet and write the record; or compare records."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name", nargs="?")
    for flag in ("--target", "--source"):
        parser.add_argument(flag, nargs="+")
    parser.add_argument("--text")
    parser.add_argument("--curve", type=Path)
    parser.add_argument("--report", type=Path, nargs="+", default=[])
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    if arguments.name:
        layout, kept = Layout.of(arguments.name), arguments.curve.with_suffix(".scores.jsonl")
        rows = read_jsonl(kept, dict) if kept.exists() else []
        scorer = Scorer(recordings_in(arguments.target), recordings_in(arguments.source), arguments.text)
        for path in layout.voices():
            is_average = bool(load_voice(path).info.note)
            if (path != layout.final_voice or is_average) and path.name not in {row["path"] for row in rows}:
                rows.append({"path": path.name, **scorer(path)})
                write_jsonl(kept, rows)
        write_jsonl(arguments.curve, curve(layout, rows))
    compare({path.stem: report(path.stem, read_jsonl(path, dict)) for path in arguments.report or [arguments.curve]})


if __name__ == "__main__":
    main()
