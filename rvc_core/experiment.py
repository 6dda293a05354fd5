"""The API of the README: an Experiment makes a voice, a Voice converts recordings. Wiring only."""

import time
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .errors import RVCError, SettingsError, StageOrderError, WeightsError
from .progress import Beside, Progress, Silent, Stop
from .settings import (
    ConvertSettings,
    ExtractSettings,
    IndexSettings,
    MirrorSettings,
    PrepareSettings,
    RuntimeSettings,
    TrainSettings,
)
from .system.files import slug_of
from .workspace.layout import Layout

if TYPE_CHECKING:   # importing these loads torch
    from .audio.waveform import Audio
    from .conversion.convert import Converter, ConvertResult
    from .evaluation.evaluate import EvaluateReport
    from .preparation.build_index import IndexReport
    from .preparation.extract import ExtractReport
    from .preparation.prepare import PrepareReport
    from .preparation.survey import DatasetReport
    from .storage.snapshot import Save
    from .training.trainer import TrainReport
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
    def open(cls, name: str, dataset: str | Path | None = None, *, home: Path | None = None,
             runtime: RuntimeSettings = RuntimeSettings(), progress: Progress = Silent()) -> "Experiment":
        """The experiment called `name` under ``RVC_HOME``, new or existing."""
        folder = Path(dataset).expanduser() if dataset is not None else None
        return cls(Layout.of(name, home), folder, runtime, progress)

    def inspect(self) -> "DatasetReport":
        """What the recordings are like, and what to do about it."""
        from .preparation.survey import inspect
        return inspect(self._recordings())

    def prepare(self, settings: PrepareSettings = PrepareSettings(), stop: Stop | None = None) -> "PrepareReport":
        """Cut the recordings into clips."""
        from .preparation.prepare import prepare
        return prepare(self.layout, self._recordings(), settings, uses_f0=settings.uses_f0, progress=self.progress,
                       stop=stop or Stop())

    def extract(self, settings: ExtractSettings = ExtractSettings(), stop: Stop | None = None) -> "ExtractReport":
        """Compute pitch and content of every clip."""
        from .preparation.extract import extract
        return extract(self.layout, settings, runtime=self.runtime, progress=self.progress, stop=stop or Stop())

    def train(self, settings: TrainSettings = TrainSettings(), stop: Stop | None = None, *,
              mirror: MirrorSettings = MirrorSettings()) -> "TrainReport":
        """Train the voice, or go on training it, and save it to storage meanwhile."""
        from .storage.mirror import mirroring, told
        from .training.trainer import train
        progress = Beside(self.progress, lambda: told(self.layout))
        with mirroring(self.layout, mirror, self.progress.say):
            return train(self.layout, settings, runtime=self.runtime, progress=progress, stop=stop)

    def save(self, place: str = "auto") -> "Save":
        """Save everything that training goes on from, and the best voices, to storage that outlives this machine."""
        from .storage.places import save
        return save(self.layout, place)

    @classmethod
    def restore(cls, name: str, place: str = "auto", *, home: Path | None = None) -> "Experiment":
        """Bring an experiment back from there, unless this machine is as far."""
        from .storage.places import restore
        restore(name, place, root=home)
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
        twin = replace(self, layout=Layout.of(f"{self.layout.name} everything", self.layout.root.parents[1]),
                       dataset=Path(record.dataset))
        settings = content_of(self.layout, "prepare").get("settings", {"preset": record.preset})
        _complete("prepare", twin.prepare(PrepareSettings.of(**{**settings, "holdout_minutes": 0})))
        _complete("extract", twin.extract(ExtractSettings.of(
            f0_method=content_of(self.layout, "f0").get("method", "auto"),
            content=content_of(self.layout, "content").get("name", "auto"))))
        return twin

    def build_index(self, settings: IndexSettings = IndexSettings()) -> "IndexReport":
        """Build the index of content features."""
        from .preparation.build_index import build_index
        return build_index(self.layout, settings, progress=self.progress)

    def run(self, prepare: PrepareSettings = PrepareSettings(), extract: ExtractSettings = ExtractSettings(),
            train: TrainSettings = TrainSettings(), index: IndexSettings = IndexSettings(),
            mirror: MirrorSettings = MirrorSettings()) -> dict[str, Any]:
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
        from .system.platforms import refuse_unbuilt
        refuse_unbuilt(self.runtime.device)
        started = time.monotonic()
        reports: dict[str, Any] = {"prepare": _complete("prepare", self.prepare(prepare)),
                                   "extract": _complete("extract", self.extract(extract)),
                                   "index": self.build_index(index).as_json()}
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
            raise WeightsError(f"no voice {which} in {self.layout.root}",
                               hint=f"there are: {', '.join(voice.name for voice in saved)}")
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


@dataclass
class Voice:
    """A trained voice, ready to convert.

    Attributes
    ----------
    index : str
        File name of the index that conversions mix with; empty without one.
    warnings : list of str
        What is odd about the index; repeated in the result of every conversion that wants one.
    """

    path: Path
    converter: "Converter"
    index: str = ""
    warnings: list[str] = field(default_factory=list)

    @classmethod
    def load(cls, path: str | Path, index: str | Path | None = "auto", *,
             runtime: RuntimeSettings = RuntimeSettings()) -> "Voice":
        """Open a voice file, RVC's or ours.

        Parameters
        ----------
        path : path
            The ``.pth``, or the name of an experiment: what is no file is a name.
        index : path, "auto" or None
            ``auto``: the index of this voice in the same folder, if there is one.
        runtime : RuntimeSettings

        Raises
        ------
        WeightsError
            When a file is missing or is not what it should be, or no experiment of that name has a voice.
        MismatchError
            When voice, index and encoder do not belong together.
        """
        from .conversion.convert import Converter
        from .features.retrieval import FeatureIndex
        from .preparation.build_index import find_index
        from .workspace.voice_file import load_voice
        file = voice_path(path)
        voice = load_voice(file)
        chosen, warnings = find_index(file, voice) if index == "auto" else (index, [])
        features = FeatureIndex.load(Path(chosen).expanduser()) if chosen else None
        return cls(file, Converter(voice, features, runtime), Path(chosen).name if chosen else "", warnings)

    @property
    def name(self) -> str:
        """Human name."""
        return self.converter.voice.info.name or self.path.stem

    def convert(self, source: "str | Path | Audio", settings: ConvertSettings = ConvertSettings(), *,
                output: str | Path | None = None, progress: Progress = Silent()) -> "ConvertResult":
        """Convert a recording; with `output`, write it there, tagged as converted, and measure what was written."""
        from .audio.waveform import Audio, read_audio
        from .conversion.convert import convert_to_file
        audio = source if isinstance(source, Audio) else read_audio(Path(source))
        if output is None:
            result = self.converter.convert(audio, settings, progress=progress)
        else:
            result = convert_to_file(self.converter, audio, Path(output), settings, progress=progress)
        if settings.index_rate == 0:
            return result
        return replace(result, index=self.index, warnings=[*result.warnings, *self.warnings])

    def convert_all(self, inputs: Iterable[str | Path], folder: str | Path,
                    settings: ConvertSettings = ConvertSettings(), *,
                    progress: Progress = Silent()) -> "list[ConvertResult | FailedFile]":
        """Convert many recordings into `folder`; a file that fails does not stop the others."""
        results: list[ConvertResult | FailedFile] = []
        for source, output in outputs_for([Path(item) for item in inputs], Path(folder), self.name, settings):
            try:
                results.append(self.convert(source, settings, output=output, progress=progress))
            except (RVCError, OSError) as error:
                hint = getattr(error, "hint", "check path and permissions")
                results.append(FailedFile(str(source), str(error), hint))
        return results

    def evaluate(self, sources: Iterable[str | Path], target: Iterable[str | Path] = (), text: str | None = None,
                 settings: ConvertSettings = ConvertSettings(), *, output: str | Path | None = None,
                 progress: Progress = Silent()) -> "EvaluateReport":
        """Convert recordings of other people and measure how well that went.

        Parameters
        ----------
        sources : iterable of path
            Recordings, or folders of them; sentences of three seconds or more.
        target : iterable of path
            Recordings of the target that the voice was not made from; by default the experiment's held-out ones.
        text : str, optional
            What is said in the sources, see `cases.texts_of`.
        output : path, optional
            Folder that keeps the converted files.

        Raises
        ------
        RVCError
            When something cannot be read, converted or told apart, or no scorer is installed.
        """
        from .audio.recordings import recordings_in
        from .evaluation.cases import Case
        from .evaluation.evaluate import evaluate
        from .scoring.target_speech import target_speech
        from .scoring.transcripts import texts_of
        files = recordings_in(sources)
        texts = texts_of(files, text)
        made_in = Layout(self.path.absolute().parent, self.name)
        speech = target_speech(target, made_in.clips, made_in.heldout.clips)
        progress.start("converting", len(files))
        cases = []
        for (source, file), words in zip(outputs_for(files, Path(output or ""), self.name, settings), texts,
                                         strict=True):
            made = self.convert(source, settings, output=file if output else None)
            cases.append(Case(source, made.audio, made.output, words, {
                "transpose": made.transpose, "real_time_factor": made.real_time_factor}, made.warnings))
            progress.advance(source.name)
        return evaluate(cases, speech, progress=progress)


def voice_path(path: str | Path) -> Path:
    """The voice file itself, or the final voice of the experiment with this name."""
    file = Path(path).expanduser()
    if file.is_file():
        return file
    layout = Layout.of(str(path))
    if saved := layout.voices():
        return saved[-1]
    raise WeightsError(f"{str(path)!r} is neither a voice file nor an experiment with a voice",
                       hint=f"give the path of a .pth; or train it, with rvc run, until {layout.root} holds one")


@dataclass(frozen=True)
class FailedFile:
    """A recording that could not be converted, and why."""

    source: str
    error: str
    hint: str

    def as_json(self) -> dict[str, Any]:
        """For ``--json``."""
        return dict(vars(self))


def outputs_for(inputs: list[Path], folder: Path, voice_name: str,
                settings: ConvertSettings) -> list[tuple[Path, Path]]:
    """Each input, folders opened, beside the file its result goes to; two inputs never share one.

    Raises
    ------
    SettingsError
        When there is nothing to convert, or one f0 curve for several recordings.
    """
    from .features.pitch import read_curve
    files = [file for item in inputs for file in (_audio_in(item) if item.is_dir() else [item])]
    if not files:
        raise SettingsError("nothing to convert", hint="name recordings, or a folder that holds some")
    if settings.f0_curve and len(files) > 1:
        raise SettingsError(f"one f0 curve for {len(files)} recordings", hint="convert each with its own curve")
    if settings.f0_curve:
        read_curve(Path(settings.f0_curve).expanduser())   # fails now, and once
    taken: set[Path] = set()
    pairs = []
    for file in files:
        stem = f"{file.stem}_{slug_of(voice_name)}"
        names = (stem, *(f"{stem}_{number}" for number in range(2, len(files) + 2)))
        output = next(path for name in names if (path := folder / f"{name}.{settings.output_format}") not in taken)
        taken.add(output)
        pairs.append((file, output))
    return pairs


def _audio_in(folder: Path) -> list[Path]:
    from .audio.waveform import AUDIO_SUFFIXES
    return sorted(path for path in folder.iterdir() if path.suffix.lower() in AUDIO_SUFFIXES)
