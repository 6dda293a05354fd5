"""Simulated training histories whose truth is known: when the voice was best, and whether training went past that.

Held-out curves are falls (exponential, power law, two speeds) with rises (straight, curved, levelling off, soft) or
without; noise is partly common to all metrics and to neighbouring validations. The verdict's own model knows neither
power laws nor soft beginnings nor noise with a memory.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np

KINDS = (
    "U-shape",
    "long plateau, then a turn",
    "plateau to the end",
    "slow convergence",
    "small set",
    "g/total rises, held-out does not",
    "similarity rises after the turn",
)
TIMES = np.linspace(0, 1, 1001)
# start and end of the fall; similarity is better the higher
_METRICS = {
    "heldout/mel": (0.80, 0.55),
    "heldout/f0_cents": (70.0, 25.0),
    "unlike/content": (0.60, 0.30),
    "unlike/similarity": (0.60, 0.85),
}


@dataclass(frozen=True)
class Simulated:
    """A history and its truth.

    `best` is the share of the run at which the noise-free held-out curve (all metrics but similarity, each in units of
    its fall) is lowest, `curve` that curve on `TIMES`. `truth` is "overtrained", "improving" or "level" at the end.
    """

    kind: str
    records: list[dict[str, Any]]
    epochs: int
    best: float
    curve: np.ndarray
    truth: str

    def regret(self, epoch: int) -> float:
        """How much worse an epoch is than the best, in units of the fall."""
        return float(np.interp(epoch / self.epochs, TIMES, self.curve) - self.curve.min())


def simulate(seed: int) -> Simulated:
    """The history of this seed; kinds take turns."""
    random, kind = np.random.default_rng([20261121, seed]), KINDS[seed % len(KINDS)]
    turns = kind in (KINDS[0], KINDS[1], KINDS[6]) or (kind == KINDS[4] and random.random() < 0.5)
    slow = kind == KINDS[3] or (kind == KINDS[5] and random.random() < 0.5)
    fall = _fall(random, slow=slow)
    onset = random.uniform(0.55, 0.8) if kind == KINDS[1] else random.uniform(0.1, 0.6)
    height, shape = random.uniform(0.1, 0.6), random.integers(4)
    names = ["heldout/mel"] if random.random() < 0.15 and kind != KINDS[6] else list(_METRICS)
    curves = {}
    for name in names:
        rise = height * random.uniform(0.6, 1.4) * _rise(onset + random.uniform(-0.03, 0.03), shape) if turns else 0
        if kind == KINDS[6] and name == "unlike/similarity":
            rise = -random.uniform(0.05, 0.2) * TIMES
        curves[name] = fall + rise
    truth = np.mean([curve for name, curve in curves.items() if name != "unlike/similarity"], axis=0)
    best = float(TIMES[truth.argmin()])
    epochs = int(random.uniform(60, 600))
    validations = int(np.exp(random.uniform(*np.log((10, 17) if kind == KINDS[4] else (20, 100)))))
    state = (
        "overtrained"
        if truth[-1] - truth.min() > 0.05
        else "improving"
        if best == 1 and truth[800] - truth[-1] > 0.02
        else "level"
    )
    records = _records(
        random, curves, fall, epochs, min(validations, epochs), g_total_rises=kind == KINDS[5] or random.random() < 0.3
    )
    if random.random() < 0.3:
        records = _restarted(random, records)
    return Simulated(kind, records, epochs, best, truth, state)


def _fall(random: np.random.Generator, *, slow: bool) -> np.ndarray:
    """From 1 towards 0."""
    pace = random.uniform(0.35, 1.2) if slow else np.exp(random.uniform(np.log(0.02), np.log(0.2)))
    return [
        np.exp(-TIMES / pace),
        (1 + TIMES / pace) ** -random.uniform(0.7, 2),
        0.6 * np.exp(-5 * TIMES / pace) + 0.4 * np.exp(-TIMES / pace / 1.5),
    ][random.integers(3)]


def _rise(onset: float, shape: int) -> np.ndarray:
    """From 0 to 1 at the end."""
    since = np.maximum(TIMES - onset, 0) / (1 - onset)
    soft = np.logaddexp(0, (TIMES - onset) / 0.06)
    levelling = (1 - np.exp(-3 * since)) / (1 - np.exp(-3))
    return [since, since**1.8, levelling, (soft - soft[0]) / (soft[-1] - soft[0])][shape]


def noise_of(random: np.random.Generator, count: int, alike: float) -> np.ndarray:
    """Standard normal; neighbours correlate by `alike`."""
    noise = random.normal(size=count)
    for at in range(1, count):
        noise[at] = alike * noise[at - 1] + np.sqrt(1 - alike**2) * noise[at]
    return noise


def _records(
    random: np.random.Generator,
    curves: dict[str, np.ndarray],
    fall: np.ndarray,
    epochs: int,
    validations: int,
    *,
    g_total_rises: bool,
) -> list[dict[str, Any]]:
    """Steps, validations and voices in the order in which a trainer writes them."""
    epoch_steps = int(np.clip(random.integers(3, 20), 1, 4000 // epochs))
    every = max(1, epochs // validations)
    heard = np.unique([*range(0, epochs, every), epochs])
    alike, level = random.choice([0, 0, 0.3, 0.5]), np.exp(random.uniform(np.log(0.01), np.log(0.06)))
    shared, outlying = noise_of(random, len(heard), alike), 0.06 if random.random() < 0.3 else 0.0
    values = {}
    for name, curve in curves.items():
        noise = 0.58 * shared + 0.82 * noise_of(random, len(heard), alike)
        off = random.random(len(heard)) < outlying
        noise[off] += random.choice([-1, 1], off.sum(), p=[0.3, 0.7]) * random.uniform(5, 20, off.sum())
        start, end = _METRICS[name]
        values[name] = end + (start - end) * (np.interp(heard / epochs, TIMES, curve) + level * noise)
    losses = _losses(random, fall, epochs * epoch_steps, g_total_rises=g_total_rises)
    save_every = max(1, epochs // int(random.integers(20, 60)))
    rows: list[dict[str, Any]] = []
    for epoch in range(epochs + 1):
        for step in range((epoch - 1) * epoch_steps, epoch * epoch_steps) if epoch else ():
            rows.append(
                {
                    "kind": "step",
                    "step": step + 1,
                    "epoch": epoch,
                    **{name: float(loss[step]) for name, loss in losses.items()},
                }
            )
        at = {"step": epoch * epoch_steps, "epoch": epoch}
        if epoch in heard:
            number = int(np.searchsorted(heard, epoch))
            rows.append({"kind": "validation", **at, **{name: float(one[number]) for name, one in values.items()}})
        if epoch and (epoch % save_every == 0 or epoch == epochs):
            rows.append({"kind": "voice", **at, "path": f"voice_e{epoch}_s{epoch * epoch_steps}.pth"})
    return rows


def _losses(random: np.random.Generator, fall: np.ndarray, steps: int, *, g_total_rises: bool) -> dict[str, np.ndarray]:
    """A GAN's training losses: mel sinks for ever, feature matching may climb, d/total stays near its rest."""
    times = np.arange(1, steps + 1) / steps
    sinking = np.interp(times, TIMES, fall)
    mel = (16 + 8 * sinking - random.uniform(0.5, 3) * times) * (1 + 0.1 * random.normal(size=steps))
    climb = random.uniform(4, 10) if g_total_rises else random.uniform(0, 1)
    fm = 2 + climb * times + 0.3 * random.normal(size=steps)
    kl = 0.8 + sinking + 0.2 * np.abs(random.normal(size=steps))
    d_total = 2.9 - random.uniform(0, 0.4) * times + 0.09 * random.normal(size=steps)
    total = mel + fm + kl + 1.8 + 0.1 * random.normal(size=steps)
    total[random.random(steps) < 0.002] *= 2
    return {"loss/g/total": total, "loss/g/mel": mel, "loss/g/fm": fm, "loss/g/kl": kl, "loss/d/total": d_total}


def _restarted(random: np.random.Generator, rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """As if killed somewhere, and continued from an earlier checkpoint: the steps between come twice."""
    killed = int(random.uniform(0.2, 0.9) * len(rows))
    resumed = killed - int(random.uniform(0.02, 0.15) * len(rows))
    lost = [
        {name: value * 1.01 if isinstance(value, float) else value for name, value in row.items()}
        for row in rows[resumed:killed]
    ]
    return [*rows[:resumed], *lost, *rows[resumed:]]
