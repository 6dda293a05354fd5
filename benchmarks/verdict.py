"""How often each way of reading a history finds the best voice, and how often it cries overtraining for nothing.

Simulated histories with known truth (tests/histories.py). Seeds below 10,000 were for tuning, those from there report::

    python benchmarks/verdict.py --histories 840        # prints the tables of docs/overtraining.md, and JSON
    python benchmarks/verdict.py --stop 70              # what auto_stop would have done, asked at every validation
"""

import argparse
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

sys.path[:0] = [str(Path(__file__).parents[1]), str(Path(__file__).parents[1] / "tests")]
from histories import KINDS, Simulated, simulate  # noqa: E402
from rvc_core.verdict.guide import read_as_the_guide  # noqa: E402
from rvc_core.verdict.learning_curve import History  # noqa: E402
from rvc_core.verdict.overtraining import should_stop, verdict_of  # noqa: E402

REPORTED = 10_000  # the first seed that tuning has not seen
THRESHOLD = 50  # epochs: the default of both detectors
Answer = tuple[int, bool]  # best epoch, whether it says overtrained


def ours(records: list[dict[str, Any]]) -> Answer:
    """The verdict of this package."""
    verdict = verdict_of(records)
    return verdict.best.epoch if verdict.best else verdict.epoch, verdict.state == "overtrained"


def guide_total(records: list[dict[str, Any]]) -> Answer:
    """The guide: lowest point of smoothed g/total, overtrained once it is flat or rising."""
    history = History.of(records)
    guide = read_as_the_guide(history)
    return history.epoch_at(guide.lowest or 0), guide.turned


def guide_mel(records: list[dict[str, Any]]) -> Answer:
    """The guide's shortcut: the lowest point of unsmoothed mel."""
    history = History.of(records)
    guide = read_as_the_guide(history)
    return history.epoch_at(guide.minima[0]), guide.turned


def lowest_heldout(records: list[dict[str, Any]]) -> Answer:
    """The naive use of held-out data: the lowest single value, overtrained unless it is the newest."""
    history = History.of(records)
    steps, values = history.series("heldout/mel")
    return history.epoch_at(steps[values.argmin()]), bool(values.argmin() < len(values) - 1)


def applio(records: list[dict[str, Any]]) -> Answer:
    """Applio's detector as it was when it was removed in July 2026, at its default threshold, never interrupted."""
    lows, lasts, epochs = _by_epoch(records, np.min), _by_epoch(records, lambda x: x[-1], "loss/d/total"), 0
    generator, discriminator = _ema(np.minimum.accumulate(lows)), _ema(lasts)
    streaks = [0, 0]
    for epochs in range(2, len(lows) + 1):
        for track, (curve, window, least) in enumerate(
            ((generator, THRESHOLD, 0.01), (discriminator, 2 * THRESHOLD, 0.004))
        ):
            flat = epochs > window and _flat_or_rising(curve[epochs - window - 1 : epochs], least)
            streaks[track] = streaks[track] + 1 if flat else 0
        if streaks[0] >= THRESHOLD or streaks[1] >= 2 * THRESHOLD:
            return epochs, True  # its best is the latest before it stops
    return epochs, False


def _flat_or_rising(values: np.ndarray, least: float) -> bool:
    for before, after in zip(values, values[1:], strict=False):
        if after > before:
            return True
        if before - after >= least:
            return False
    return True


def ultimate(records: list[dict[str, Any]]) -> Answer:
    """ultimate-rvc's detector: epoch sums over clips (batch 8 here), epochs since the best of either network."""
    generator = _by_epoch(records, np.mean) / 8
    discriminator = _by_epoch(records, np.mean, "loss/d/total") / 8
    bests, since, best_epoch = [np.inf, np.inf], [0, 0], 1
    for epoch, losses in enumerate(zip(generator, discriminator, strict=True), 1):
        for track, loss in enumerate(losses):
            if loss < bests[track] - 0.004:
                bests[track], since[track] = loss, 0
                best_epoch = epoch if track == 0 else best_epoch
            else:
                since[track] += 1
        if since[0] >= THRESHOLD or since[1] >= 2 * THRESHOLD:
            return best_epoch, True
    return best_epoch, False


def _by_epoch(records: list[dict[str, Any]], of: Callable[[np.ndarray], Any], tag: str = "loss/g/total") -> np.ndarray:
    epochs: dict[int, list[float]] = {}
    for row in History.of(records).steps.values():
        epochs.setdefault(row["epoch"], []).append(row[tag])
    return np.array([of(np.array(values)) for _, values in sorted(epochs.items())])


def _ema(values: np.ndarray) -> np.ndarray:
    smoothed = values.copy()
    for at in range(1, len(values)):
        smoothed[at] = 0.987 * smoothed[at - 1] + 0.013 * values[at]
    return smoothed


READERS = {
    "this verdict": ours,
    "guide: lowest g/total": guide_total,
    "guide: lowest mel": guide_mel,
    "lowest held-out mel": lowest_heldout,
    "Applio, until July 2026": applio,
    "ultimate-rvc": ultimate,
}


def score(reader: Callable[[list[dict[str, Any]]], Answer], histories: list[Simulated]) -> dict[str, Any]:
    """Shares of: best within a tenth of the run; cries on runs that improve, are level, went too far; mean regret."""
    answers = [reader(one.records) for one in histories]
    pairs = [(epoch, said, one) for (epoch, said), one in zip(answers, histories, strict=True)]
    near = np.array([abs(epoch / one.epochs - one.best) <= 0.1 for epoch, _, one in pairs])
    regret = np.array([one.regret(epoch) for epoch, _, one in pairs])
    cries = {
        truth: [said for _, said, one in pairs if one.truth == truth] for truth in ("improving", "level", "overtrained")
    }
    return {
        "best_within_tenth": round(float(near.mean()), 3),
        "mean_regret": round(float(regret.mean()), 4),
        "regret_above_5_percent": round(float((regret > 0.05).mean()), 3),
        **{f"overtrained_said_when_{truth}": round(float(np.mean(said or [0])), 3) for truth, said in cries.items()},
        "histories": {truth: len(said) for truth, said in cries.items()},
        "by_kind": {
            kind: round(float(near[[one.kind == kind for one in histories]].mean()), 2)
            for kind in KINDS
            if any(one.kind == kind for one in histories)
        },
    }


def stopping(histories: list[Simulated], patience: float = 0.2) -> dict[str, Any]:
    """What stopping after `patience` of the run past the best would do, asked again at every validation."""
    stopped: dict[str, list[bool]] = {}
    regrets = []
    for one in histories:
        history = History.of(one.records)
        ends, answer = False, one.epochs
        rows = [row for kind in (history.steps, history.validations, history.voices) for row in kind.values()]
        for row in history.validations.values():
            verdict = verdict_of([known for known in rows if known["step"] <= row["step"]])
            if ends := should_stop(verdict, round(patience * one.epochs)):
                break
        if verdict.best:
            answer = verdict.best.epoch
        stopped.setdefault(one.truth, []).append(ends)
        regrets.append(one.regret(answer))
    return {
        **{f"stopped_when_{truth}": f"{sum(ends)} of {len(ends)}" for truth, ends in sorted(stopped.items())},
        "mean_regret": round(float(np.mean(regrets)), 4),
    }


def main() -> None:
    """Print the table, then JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--histories", type=int, default=420)
    parser.add_argument("--first-seed", type=int, default=REPORTED)
    parser.add_argument("--only", choices=READERS)
    parser.add_argument("--stop", type=int, default=0)
    arguments = parser.parse_args()
    if arguments.stop:
        first = arguments.first_seed
        print(json.dumps(stopping([simulate(seed) for seed in range(first, first + arguments.stop)])))
        return
    histories = [simulate(seed) for seed in range(arguments.first_seed, arguments.first_seed + arguments.histories)]
    scores = {name: score(reader, histories) for name, reader in READERS.items() if arguments.only in (None, name)}
    columns = [key for key in next(iter(scores.values())) if key not in ("histories", "by_kind")]
    print("|", " | ".join(["reading", *(column.replace("_", " ") for column in columns)]), "|")
    print("|---" * (len(columns) + 1) + "|")
    for name, one in scores.items():
        print("|", " | ".join([name, *(str(one[column]) for column in columns)]), "|")
    print("\n|", " | ".join(["best within a tenth, by kind", *scores]), "|")
    print("|---" * (len(scores) + 1) + "|")
    for kind in KINDS:
        print("|", " | ".join([kind, *(str(one["by_kind"].get(kind)) for one in scores.values())]), "|")
    print(json.dumps(scores))


if __name__ == "__main__":
    main()
