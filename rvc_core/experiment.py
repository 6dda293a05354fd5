"""The public API for training: an Experiment makes a voice. Wiring only; each stage is in its own module."""

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
from .workspace.layout import Layout, typed

if TYPE_CHECKING:  # importing these loads torch
    from .preparation.build_index import IndexReport
    from .preparation.extract import ExtractReport
    from .preparation.prepare import PrepareReport
    from .preparation.survey import DatasetReport
    from .storage.listing import Save
    from .training.plan import Plan
    from .training.train import TrainReport
    from .verdict.overtraining import Verdict


@dataclass
class Experiment:
    """An experiment: a name, a folder, and the stages that train a voice there.

    Every stage skips results that are up to date, resumes after an interruption, and returns a report.

    Attributes
    ----------
    layout : Layout
        Paths of all files of the experiment.
    dataset : Path or None
        Folder of recordings; needed until they are prepared.

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
        """Open the experiment called `name` under ``RVC_HOME``, or start a new one."""
        folder = Path(text_of(dataset)).expanduser() if dataset is not None else None
        return cls(Layout.of(name, home), folder, runtime, progress)

    def inspect(self, *, by_folder: bool = False) -> "DatasetReport":
        """Report the quality of the recordings, and what to do about problems; each folder may be a speaker."""
        from .preparation.survey import inspect

        return inspect(self._recordings(), by_folder=by_folder)

    def plan(self, minutes: float | None = None, settings: PrepareSettings = PrepareSettings()) -> "Plan":
        """Plan a training: settings for these recordings, this machine and these minutes, each with its reason.

        Parameters
        ----------
        minutes : float, optional
            What you have. None: until the session ends, or as long as it takes.
        settings : PrepareSettings
            What you chose yourself: a preset, speakers, what is held out.

        Raises
        ------
        StageOrderError
            When there are no recordings yet.
        """
        from .training.plan import plan_of

        return plan_of(self.layout, self.dataset, minutes, settings, runtime=self.runtime, progress=self.progress)[1]

    def prepare(self, settings: PrepareSettings = PrepareSettings(), stop: Stop | None = None) -> "PrepareReport":
        """Cut the recordings into clips. Settings that you do not give stay as they were."""
        from .preparation.identity import kept_settings
        from .preparation.prepare import prepare

        settings, _ = kept_settings(self.layout, settings, ExtractSettings())
        return prepare(
            self.layout,
            self._recordings(),
            settings,
            uses_f0=settings.uses_f0,
            progress=self.progress,
            stop=stop,
        )

    def begin_again(self) -> Path | None:
        """Move what this experiment holds to a folder beside it, which is returned, and begin from nothing.

        Raises
        ------
        StageOrderError
            While it is being trained.
        """
        from .preparation.identity import begin_again

        return begin_again(self.layout)

    def extract(self, settings: ExtractSettings = ExtractSettings(), stop: Stop | None = None) -> "ExtractReport":
        """Compute pitch and content features of every clip. Settings that you do not give stay as they were."""
        from .preparation.extract import extract
        from .preparation.identity import kept_settings

        _, settings = kept_settings(self.layout, PrepareSettings(), settings)
        return extract(self.layout, settings, runtime=self.runtime, progress=self.progress, stop=stop)

    def train(
        self,
        settings: TrainSettings = TrainSettings(),
        stop: Stop | None = None,
        *,
        mirror: MirrorSettings = MirrorSettings(),
    ) -> "TrainReport":
        """Start or resume training, and save it to storage meanwhile."""
        from .preparation.identity import kept_training
        from .storage.mirror import mirroring, told
        from .training.train import train

        settings = kept_training(self.layout, settings)
        progress = Beside(self.progress, lambda: told(self.layout))
        with mirroring(self.layout, mirror, self.progress.say):
            return train(self.layout, settings, runtime=self.runtime, progress=progress, stop=stop)

    def save(self, place: str = "auto") -> "Save":
        """Save everything needed to resume training, and the best voices, to persistent storage."""
        from .storage.places import save

        return save(self.layout, place)

    @classmethod
    def restore(cls, name: str | float, place: str = "auto", *, home: Path | None = None) -> "Experiment":
        """Restore an experiment from storage, unless this machine is at the same step or later."""
        from .storage.places import restore

        restore(text_of(name), place, root=home)
        return cls.open(name, home=home)

    def on_everything(self) -> "Experiment":
        """Prepare a second experiment, ``NAME everything``, with the same settings but nothing held out.

        Train it to the epoch that the verdict of the first one recommends: it then learns from all recordings.

        Raises
        ------
        RVCError
            When this experiment is not prepared: call `prepare` first. When its recordings are missing: restore them.
        """
        from .preparation.identity import kept_settings
        from .workspace.manifest import ExperimentRecord
        from .workspace.stamps import content_of

        twin = replace(
            self,
            layout=Layout.of(f"{self.layout.name} everything", self.layout.root.parents[1]),
            dataset=Path(ExperimentRecord.load(self.layout).dataset),
        )
        method = content_of(self.layout, "f0").get("method", "auto")
        prepare, extract = kept_settings(
            self.layout, PrepareSettings(holdout_minutes=0), ExtractSettings(f0_method=method)
        )
        _complete("prepare", twin.prepare(prepare))
        _complete("extract", twin.extract(extract))
        return twin

    def build_index(self, settings: IndexSettings = IndexSettings()) -> "IndexReport":
        """Build the index of content features."""
        from .preparation.build_index import build_index
        from .preparation.identity import kept

        return build_index(self.layout, kept(self.layout, "index", settings, {}), progress=self.progress)

    def run(
        self,
        prepare: PrepareSettings = PrepareSettings(),
        extract: ExtractSettings = ExtractSettings(),
        train: TrainSettings = TrainSettings(),
        index: IndexSettings = IndexSettings(),
        mirror: MirrorSettings = MirrorSettings(),
    ) -> dict[str, Any]:
        """Run all stages; `train.max_minutes` limits the total time.

        Returns
        -------
        dict
            The report of each stage, as JSON.

        Raises
        ------
        RVCError
            When a stage fails or is stopped. Call `run` again to continue.
        """
        from .assets.registry import base_files
        from .features.content import content_identity, content_name
        from .features.pitch import pitch_estimator
        from .preparation.foreign import is_imported
        from .preparation.identity import kept, kept_settings, kept_training
        from .presets import preset
        from .storage.mirror import is_wanted
        from .system.devices import choose_device, refuse_unbuilt

        refuse_unbuilt(self.runtime.device)
        device = choose_device(self.runtime.device).name
        is_wanted(self.layout, mirror)
        prepare, extract = kept_settings(self.layout, prepare, extract)
        if prepare.uses_f0 and extract.f0_method != "auto":
            pitch_estimator(extract.f0_method, device)  # a missing package is named before the old clips are replaced
        train, index = kept_training(self.layout, train), kept(self.layout, "index", index, {})
        spec = preset(prepare.preset, uses_f0=prepare.uses_f0)  # missing weights are named before anything is cut
        content_identity(content_name(extract.content, spec), spec.content_width)
        if not self.layout.generator_steps():
            base_files(spec, train.base_generator, train.base_discriminator)
        started = time.monotonic()
        has_clips = self.dataset is None and is_imported(self.layout, prepare.preset)
        reports: dict[str, Any] = {} if has_clips else {"prepare": _complete("prepare", self.prepare(prepare))}
        reports |= {
            "extract": _complete("extract", self.extract(extract)),
            "index": self.build_index(index).as_json(),
        }
        if train.max_minutes is not None:
            left = max(0.05, train.max_minutes - (time.monotonic() - started) / 60)
            train = train.model_copy(update={"max_minutes": left})
        reports["train"] = self.train(train, mirror=mirror).as_json()
        return reports

    def verdict(self) -> "Verdict":
        """Report which saved voice is best, whether the voice is overtrained, and why."""
        from .verdict.overtraining import verdict_of_experiment

        return verdict_of_experiment(self.layout)

    def voice(self, which: str | Path = "final") -> "Voice":
        """Load a voice of this experiment: ``best`` by the verdict, ``final``, a file name, or a path.

        Raises
        ------
        StageOrderError
            When there is no voice yet: call `train` first.
        WeightsError
            When this voice does not exist. The hint lists the existing ones.
        """
        saved = self.layout.voices()
        if not saved:
            raise StageOrderError(
                f"{self.layout.name!r} has no voice yet", hint=f"run: rvc train {typed(self.layout.name)}"
            )
        if str(which) == "best":
            best = self.verdict().best
            which = best.path if best and best.path else "final"
        path = saved[-1] if str(which) == "final" else self.layout.root / which
        if path not in saved:
            raise WeightsError(
                f"no voice {which} in {self.layout.root}",
                hint=f"choose one of {', '.join(voice.name for voice in saved)}",
            )
        return Voice.load(path, runtime=self.runtime)

    def _recordings(self) -> Path:
        if self.dataset is not None:
            return self.dataset
        from .workspace.manifest import ExperimentRecord

        return Path(ExperimentRecord.load(self.layout).dataset)


def _complete(stage: str, report: "PrepareReport | ExtractReport") -> dict[str, Any]:
    """The report as JSON; raises if the stage was stopped."""
    if report.stopped:
        raise RVCError(f"{stage} was stopped before it was complete", hint="run it again to continue")
    return report.as_json()
