"""Was the verdict right? Every saved voice of a training, on recordings that neither training nor validation heard.

    python benchmarks/long_runs.py NAME --target unheard/ --source others/ --text texts.tsv --scores NAME.jsonl

Converts the target's unheard recordings to itself (`mel`: log-mel distance to the recording, nepers; `pitch`: share of
voiced frames whose pitch is lost) and other people's sentences (`similarity` to the target's unheard recordings, GE2E;
`words` misheard, pocketsphinx; `clean`: the rating that DNSMOS predicts), without an index. Scores are kept in
--scores, so that it goes on where it was interrupted. `together` is the mean of all figures, each from 0 (the best
voice) to 1 (the worst). A pick's regret is what it is worse by than the best of all; its noise is the standard error of
that difference over 2000 draws of the recordings. The best of many voices is partly the luckiest, so the last column
chooses it by one half of the recordings and compares on the other, 2000 times. With --curve FILE, the
record of the training is written there, thinned, with the scores in its rows of voices.
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
from rvc_core.verdict.overtraining import verdict_of_experiment
from rvc_core.voice import Voice
from rvc_core.workspace.layout import Layout
from rvc_core.workspace.metrics import history

DRAWS, STEPS_KEPT = 2000, 150
FIGURES = {"mel": 1, "pitch": 1, "similarity": -1, "words": 1, "clean": -1}  # -1: more is better
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


def figures(rows: list[dict[str, Any]], heard: dict[int, np.ndarray] | None = None) -> dict[str, np.ndarray]:
    """Means of each figure (voices,), less is better; `heard`: which recordings count, by how many there are."""
    found: dict[str, np.ndarray] = {}
    for name, sign in FIGURES.items():
        if name in rows[0]:
            table = np.array([list(row[name].values()) for row in rows], float)
            table = table[:, heard[table.shape[1]]] if heard else table
            counted = name == "words"
            found[name] = table[..., 0].sum(1) / table[..., 1].sum(1) if counted else sign * table.mean(1)
    return found


def with_together(found: dict[str, np.ndarray], of: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """And all figures in one, each by its range `of` all voices on all recordings."""
    return {**found, "together": np.mean([(found[name] - of[name].min()) / np.ptp(of[name]) for name in of], axis=0)}


def picks(layout: Layout, steps: list[int]) -> dict[str, int]:
    """Which voice each way of choosing takes: number in `steps`."""
    record = History.of(history(layout))
    guide, verdict = read_as_the_guide(record), verdict_of_experiment(layout)
    heard, values = record.series("heldout/mel")
    places = {
        "this verdict": verdict.best.step if verdict.best else None,
        "guide: lowest g/total": guide.lowest,
        "guide: lowest mel": guide.minima[0] if guide.minima else None,
        "lowest held-out mel": heard[values.argmin()] if len(values) else None,
        "the last voice": steps[-1],
        "the first voice": steps[0],
    }
    return {
        name: int(np.argmin([abs(step - place) for step in steps]))
        for name, place in places.items()
        if place is not None
    }


def report(layout: Layout, rows: list[dict[str, Any]]) -> None:
    """Print what each pick loses."""
    of, random = figures(rows), np.random.default_rng(0)
    sizes = {len(rows[0][name]) for name in of}
    whole, drawn, halves = with_together(of, of), [], []
    for _ in range(DRAWS):
        drawn.append(with_together(figures(rows, {size: random.integers(size, size=size) for size in sizes}), of))
        shuffled = {size: random.permutation(size) for size in sizes}
        halves.append(
            [
                with_together(figures(rows, half), of)["together"]
                for half in (
                    {size: order[: size // 2] for size, order in shuffled.items()},
                    {size: order[size // 2 :] for size, order in shuffled.items()},
                )
            ]
        )
    verdict = verdict_of_experiment(layout)
    print(f"{layout.name}: {len(rows)} voices to epoch {rows[-1]['epoch']}; {verdict.state}: {verdict.sentence}")
    print("| pick | epoch | " + " | ".join(f"regret, {name}" for name in whole) + " | best of one half, on the other |")
    print("|---" * (3 + len(whole)) + "|")
    for name, number in picks(layout, [row["step"] for row in rows]).items():
        losses = [values[number] - values.min() for values in whole.values()]
        noises = [
            np.std([draw[figure][number] - draw[figure][values.argmin()] for draw in drawn])
            for figure, values in whole.items()
        ]
        crossed = [other[number] - other[half.argmin()] for half, other in halves]
        cells = [
            ("**{:.3f} ± {:.3f}**" if loss > 2 * noise else "{:.3f} ± {:.3f}").format(loss, noise)
            for loss, noise in [*zip(losses, noises, strict=True), (np.mean(crossed), np.std(crossed))]
        ]
        print(f"| {name} | {rows[number]['epoch']} | " + " | ".join(cells) + " |")
    for name, values in whole.items():
        print(
            f"best {name}: epoch {rows[int(values.argmin())]['epoch']}, {values.min():.4f} to {values.max():.4f}; "
            f"one voice and the next differ by {np.std(np.diff(values)):.4f}"
        )


def curve(layout: Layout, rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The record of a training: 150 of its steps, all validations, and its voices with their scores."""
    found = figures(rows)
    scores = {
        row["step"]: {f"unheard/{name}": round(float(values[number]), 5) for name, values in found.items()}
        for number, row in enumerate(rows)
    }
    kept, every = [], max(1, rows[-1]["step"] // STEPS_KEPT)
    for row in history(layout):
        place = {name: row[name] for name in ("kind", "step", "epoch")}
        if row["kind"] == "step" and row["step"] % every == 0:
            kept.append({**place, **{name: round(row[name], 3) for name in LOSSES}})
        elif row["kind"] == "validation":
            kept.append(row)
        elif row["kind"] == "voice" and row["step"] in scores:
            kept.append({**place, "path": row["path"], **scores[row["step"]]})
    return kept


def main() -> None:
    """Score what is not scored yet, then print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name")
    for flag in ("--target", "--source"):
        parser.add_argument(flag, nargs="+", required=True)
    parser.add_argument("--text", required=True)
    parser.add_argument("--scores", type=Path, required=True)
    parser.add_argument("--curve", type=Path)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    layout = Layout.of(arguments.name)
    rows = read_jsonl(arguments.scores, dict) if arguments.scores.exists() else []
    scorer = Scorer(recordings_in(arguments.target), recordings_in(arguments.source), arguments.text)
    for path in layout.voices():
        step = layout.step_of(path)
        if path == layout.final_voice or step in {row["step"] for row in rows}:
            continue
        epoch = int(path.stem.rsplit("_e", 1)[1].split("_")[0])
        rows.append({"step": step, "epoch": epoch, **scorer(path)})
        write_jsonl(arguments.scores, rows)
    rows = sorted(rows, key=lambda row: row["step"])
    report(layout, rows)
    if arguments.curve:
        write_jsonl(arguments.curve, curve(layout, rows))


if __name__ == "__main__":
    main()
