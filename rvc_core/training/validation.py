"""What validations found so far, the verdict on it, and when the next one is due."""

import time
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from ..nn.synthesizer import Synthesizer
from ..system.files import write_json
from ..verdict.overtraining import Verdict, should_stop, verdict_of_experiment
from ..workspace.dataset import ClipStore
from ..workspace.layout import Layout
from .validate import Examiner, Findings

_SHARE = 0.05  # of the time in steps, between saves
_MOST_SHARE = 0.10  # of the whole time, with those that measure a voice as it is saved
_COLD = 2.0  # how much longer the first validation takes than the later ones, which find everything loaded


class Validation:
    """Measures the voice in training now and then, and keeps what was found.

    Parameters
    ----------
    layout : Layout
    clips : ClipStore
        Held-out clips; may be empty.

    Attributes
    ----------
    examiner : Examiner or None
        What measures; None in all processes of a training but the first.
    figures : dict
        What the last validation found.
    verdict : Verdict or None
        On the training so far; None before the first validation.
    seconds : float
        How long a validation takes.
    step : int
        Of the last validation; -1 before the first.
    """

    def __init__(self, layout: Layout, clips: ClipStore) -> None:
        self._layout, self.clips = layout, clips
        self.examiner: Examiner | None = None
        self.figures: dict[str, float] = {}
        self.verdict: Verdict | None = None
        self.seconds, self.step = 0.0, -1
        self._trained_seconds = self._trained_since = self._spent_seconds = 0.0

    def record_step(self, seconds: float) -> None:
        """Take note of the time that training took since the last validation."""
        self._trained_seconds += seconds
        self._trained_since += seconds

    def is_due(self, epoch: int, every_epochs: int) -> bool:
        """Whether to validate after this epoch: every so many; with 0, when validations take 5 % of the time."""
        return epoch % every_epochs == 0 if every_epochs else self._trained_since * _SHARE >= self.seconds

    def is_affordable(self) -> bool:
        """Whether one more leaves all validations within 10 % of the time: then a voice is measured as it is saved."""
        spent = self._spent_seconds + self.seconds
        return spent <= _MOST_SHARE * (spent + self._trained_seconds)

    def figures_at(self, step: int) -> dict[str, float]:
        """What a validation at this very step found; empty for a voice that was not measured."""
        return self.figures if step == self.step else {}

    def measure(self, generator: Synthesizer, step: int) -> Findings | None:
        """Measure the voice; None where nothing can be measured."""
        if self.examiner is None:
            return None
        began = time.monotonic()
        findings = self.examiner(generator)
        took = time.monotonic() - began
        self.seconds = took if self._spent_seconds else took / _COLD
        self._trained_since, self._spent_seconds = 0.0, self._spent_seconds + self.seconds
        if not findings.values:
            return None
        self.figures, self.step = findings.values, step
        return findings

    def figures_of(self, generator: Synthesizer) -> dict[str, float]:
        """What is measured of a voice that is not the one in training; nothing is noted."""
        return self.examiner(generator).values if self.examiner else {}

    def assess(self, *, running: bool) -> list[str]:
        """Write the verdict on the training so far; returns a line for each failure that is new since the last one."""
        known = {failure.name for failure in self.verdict.failures} if self.verdict else set()
        self.verdict = replace(verdict_of_experiment(self._layout), running=running)
        write_json(self._layout.verdict, self.verdict.as_json())
        return [
            f"{failure.name} since epoch {failure.epoch}: {failure.look}. What to do: {failure.remedy}"
            for failure in self.verdict.failures
            if failure.name not in known
        ]

    def recall(self, rows: Sequence[dict[str, Any]]) -> None:
        """Take up what earlier validations of this experiment found, oldest first."""
        newest = rows[-1] if rows else {}
        self.step = newest.get("step", -1)
        self.figures = {name: value for name, value in newest.items() if name not in ("kind", "step", "epoch", "data")}
        self.verdict = verdict_of_experiment(self._layout) if rows else None

    def is_enough(self, patience_epochs: int) -> bool:
        """Whether training went so many epochs past its best voice, or has failed; never with 0."""
        return bool(patience_epochs and self.verdict and should_stop(self.verdict, patience_epochs))
