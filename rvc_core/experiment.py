"""The API of the README: an Experiment makes a voice, a Voice converts recordings. Wiring only."""

import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .errors import RVCError, StageOrderError, WeightsError
from .progress import Beside, Progress, Silent, Stop
from .settings import (
    ExtractSettings,
    IndexSettings,
    MirrorSettings,
    PrepareSettings,
    RuntimeSettings,
    TrainSettings,
    text_of,
)
from .voice import Voice
from .workspace.layout import Layout

if TYPE_CHECKING:  # importing these loads torch
    from .preparation.build_index import IndexReport
    from .preparation.extract import ExtractReport
    from .preparation.prepare import PrepareReport
    from .preparation.survey import DatasetReport
    from .storage.snapshot import Save
    from .training.train import TrainReport
    from .verdict.overtraining import Verdict


@dataclass
class Experiment:
    """One voice in the making: a name, a folder, and the stages that fill it.

    Every stage skips what is up to date, continues what was interrupted, and returns a report.

    Attributes
    ----------
    layout : Layout
        Where everything is.
    dataset : Path or None
        Recordings; needed until they are prepared.

    Examples
    --------
    >>> import tempfile
    >>> lab = Experiment.open("alice", home=Path(tempfile.mkdtemp()))
    >>> lab.layout.root.name
    'alice'
    """

    layout: Layout
    dataset: Path | None = None
    runtime: RuntimeSettings = RuntimeSettings()
    progress: Progress = Silent()

    @classmethod
    def open(
        cls,
        name: str | float,
        dataset: str | float | Path | None = None,
        *,
        home: Path | None = None,
        runtime: RuntimeSettings = RuntimeSettings(),
        progress: Progress = Silent(),
    ) -> "Experiment":
        """The experiment called `name` under ``RVC_HOME``, new or existing."""
        folder = Path(text_of(dataset)).expanduser() if dataset is not None else None
        return cls(Layout.of(name, home), folder, runtime, progress)

    def inspect(self) -> "DatasetReport":
        """What the recordings are like, and what to do about it."""
        from .preparation.survey import inspect

        return inspect(self._recordings())

    def prepare(self, settings: PrepareSettings = PrepareSettings(), stop: Stop | None = None) -> "PrepareReport":
        """Cut the recordings into clips."""
        from .preparation.prepare import prepare

        return prepare(
            self.layout,
            self._recordings(),
            settings,
            uses_f0=settings.uses_f0,
            progress=self.progress,
            stop=stop or Stop(),
        )

    def extract(self, settings: ExtractSettings = ExtractSettings(), stop: Stop | None = None) -> "ExtractReport":
        """Compute pitch and content of every clip."""
        from .preparation.extract import extract

        return extract(self.layout, settings, runtime=self.runtime, progress=self.progress, stop=stop or Stop())

    def train(
        self,
        settings: TrainSettings = TrainSettings(),
        stop: Stop | None = None,
        *,
        mirror: MirrorSettings = MirrorSettings(),
    ) -> "TrainReport":
        """Train the voice, or go on training it, and save it to storage meanwhile."""
        from .storage.mirror import mirroring, told
        from .training.train import train

        progress = Beside(self.progress, lambda: told(self.layout))
        with mirroring(self.layout, mirror, self.progress.say):
            return train(self.layout, settings, runtime=self.runtime, progress=progress, stop=stop)

    def save(self, place: str = "auto") -> "Save":
        """Save everything that training goes on from, and the best voices, to storage that outlives this machine."""
        from .storage.places import save

        return save(self.layout, place)

    @classmethod
    def restore(cls, name: str | float, place: str = "auto", *, home: Path | None = None) -> "Experiment":
        """Bring an experiment back from there, unless this machine is as far."""
        from .storage.places import restore

        restore(text_of(name), place, root=home)
        return cls.open(name, home=home)

    def on_everything(self) -> "Experiment":
        """A twin called ``NAME everything``, prepared as this one was but with nothing held out.

        Trained to the epoch that this one's verdict recommends, it has heard all recordings.

        Raises
        ------
        RVCError
            When this one has not been prepared, or its recordings are not there any more.
        """
        from .workspace.manifest import ExperimentRecord
        from .workspace.stamps import content_of

        record = ExperimentRecord.load(self.layout)
        twin = replace(
            self,
            layout=Layout.of(f"{self.layout.name} everything", self.layout.root.parents[1]),
            dataset=Path(record.dataset),
        )
        settings = content_of(self.layout, "prepare").get("settings", {"preset": record.preset})
        _complete("prepare", twin.prepare(PrepareSettings.of(**{**settings, "holdout_minutes": 0})))
        _complete(
            "extract",
            twin.extract(
                ExtractSettings.of(
                    f0_method=content_of(self.layout, "f0").get("method", "auto"),
                    content=content_of(self.layout, "content").get("name", "auto"),
                )
            ),
        )
        return twin

    def build_index(self, settings: IndexSettings = IndexSettings()) -> "IndexReport":
        """Build the index of content features."""
        from .preparation.build_index import build_index

        return build_index(self.layout, settings, progress=self.progress)

    def run(
        self,
        prepare: PrepareSettings = PrepareSettings(),
        extract: ExtractSettings = ExtractSettings(),
        train: TrainSettings = TrainSettings(),
        index: IndexSettings = IndexSettings(),
        mirror: MirrorSettings = MirrorSettings(),
    ) -> dict[str, Any]:
        """All stages in one go; `train.max_minutes` counts from here.

        Returns
        -------
        dict
            The reports by stage, JSON-able.

        Raises
        ------
        RVCError
            When a stage fails, or is stopped before it is complete.
        """
        from .system.devices import refuse_unbuilt

        refuse_unbuilt(self.runtime.device)
        started = time.monotonic()
        reports: dict[str, Any] = {
            "prepare": _complete("prepare", self.prepare(prepare)),
            "extract": _complete("extract", self.extract(extract)),
            "index": self.build_index(index).as_json(),
        }
        if train.max_minutes is not None:
            left = max(0.05, train.max_minutes - (time.monotonic() - started) / 60)
            train = train.model_copy(update={"max_minutes": left})
        reports["train"] = self.train(train, mirror=mirror).as_json()
        return reports

    def verdict(self) -> "Verdict":
        """Which saved voice is the best, whether training went too far, and why."""
        from .verdict.overtraining import judge_experiment

        return judge_experiment(self.layout)

    def voice(self, which: str | Path = "final") -> "Voice":
        """A voice of this experiment: ``best`` by the verdict, ``final``, an epoch's file name, or a path.

        Raises
        ------
        StageOrderError
            When nothing was trained yet.
        WeightsError
            When there is no such voice; those that exist are listed.
        """
        saved = self.layout.voices()
        if not saved:
            raise StageOrderError(f"{self.layout.name!r} has no voice yet", hint=f"run: rvc train {self.layout.name}")
        if str(which) == "best":
            best = self.verdict().best
            which = best.path if best and best.path else "final"
        path = saved[-1] if str(which) == "final" else self.layout.root / which
        if path not in saved:
            raise WeightsError(
                f"no voice {which} in {self.layout.root}", hint=f"there are: {', '.join(voice.name for voice in saved)}"
            )
        return Voice.load(path, runtime=self.runtime)

    def _recordings(self) -> Path:
        if self.dataset is not None:
            return self.dataset
        from .workspace.manifest import ExperimentRecord

        return Path(ExperimentRecord.load(self.layout).dataset)


def _complete(stage: str, report: "PrepareReport | ExtractReport") -> dict[str, Any]:
    """A report as JSON, if its stage came to the end."""
    if report.stopped:
        raise RVCError(f"{stage} was stopped before it was complete", hint="run the same again to go on")
    return report.as_json()
