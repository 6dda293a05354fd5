"""The API of the README: an Experiment makes a voice, a Voice converts recordings. Wiring only."""

import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .errors import RVCError, SettingsError, StageOrderError, WeightsError
from .files import slug_of
from .layout import Layout
from .progress import Progress, Silent, Stop
from .settings import (
    ConvertSettings,
    ExtractSettings,
    IndexSettings,
    PrepareSettings,
    RuntimeSettings,
    TrainSettings,
)

if TYPE_CHECKING:   # importing these loads torch
    from .audio import Audio
    from .convert import Converter, ConvertResult
    from .extract import ExtractReport
    from .index import IndexReport
    from .inspect import DatasetReport
    from .prepare import PrepareReport
    from .train import TrainReport


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
        from .inspect import inspect
        return inspect(self._recordings())

    def prepare(self, settings: PrepareSettings = PrepareSettings(), stop: Stop | None = None) -> "PrepareReport":
        """Cut the recordings into clips."""
        from .prepare import prepare
        return prepare(self.layout, self._recordings(), settings, progress=self.progress, stop=stop or Stop())

    def extract(self, settings: ExtractSettings = ExtractSettings(), stop: Stop | None = None) -> "ExtractReport":
        """Compute pitch and content of every clip."""
        from .extract import extract
        return extract(self.layout, settings, runtime=self.runtime, progress=self.progress, stop=stop or Stop())

    def train(self, settings: TrainSettings = TrainSettings(), stop: Stop | None = None) -> "TrainReport":
        """Train the voice, or go on training it."""
        from .train import train
        return train(self.layout, settings, runtime=self.runtime, progress=self.progress, stop=stop)

    def build_index(self, settings: IndexSettings = IndexSettings()) -> "IndexReport":
        """Build the index of content features."""
        from .index import build_index
        return build_index(self.layout, settings, progress=self.progress)

    def run(self, prepare: PrepareSettings = PrepareSettings(), extract: ExtractSettings = ExtractSettings(),
            train: TrainSettings = TrainSettings(), index: IndexSettings = IndexSettings()) -> dict[str, Any]:
        """All stages in one go; `train.max_minutes` counts from here.

        Returns
        -------
        dict
            The reports by stage, JSON-able.
        """
        started = time.monotonic()
        reports: dict[str, Any] = {"prepare": self.prepare(prepare).as_json(),
                                   "extract": self.extract(extract).as_json(),
                                   "index": self.build_index(index).as_json()}
        if train.max_minutes is not None:
            left = max(0.05, train.max_minutes - (time.monotonic() - started) / 60)
            train = train.model_copy(update={"max_minutes": left})
        reports["train"] = self.train(train).as_json()
        return reports

    def voice(self, which: str | Path = "final") -> "Voice":
        """A voice of this experiment: ``final``, an epoch's file name, or a path.

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
        path = saved[-1] if str(which) in ("final", "best") else self.layout.root / which
        if path not in saved:
            raise WeightsError(f"no voice {which} in {self.layout.root}",
                               hint=f"there are: {', '.join(voice.name for voice in saved)}")
        return Voice.load(path, runtime=self.runtime)

    def _recordings(self) -> Path:
        if self.dataset is not None:
            return self.dataset
        from .manifest import ExperimentRecord
        return Path(ExperimentRecord.load(self.layout).dataset)


@dataclass
class Voice:
    """A trained voice, ready to convert."""

    path: Path
    converter: "Converter"

    @classmethod
    def load(cls, path: str | Path, index: str | Path | None = "auto", *,
             runtime: RuntimeSettings = RuntimeSettings()) -> "Voice":
        """Open a voice file, RVC's or ours.

        Parameters
        ----------
        path : path
            The ``.pth``, or the name of an experiment.
        index : path, "auto" or None
            ``auto``: the index in the same folder, if there is one.
        runtime : RuntimeSettings

        Raises
        ------
        WeightsError
            When a file is missing or is not what it should be.
        MismatchError
            When voice, index and encoder do not belong together.
        """
        from .convert import Converter
        from .retrieval import FeatureIndex
        from .voice_file import load_voice
        file = Path(path).expanduser()
        if not file.suffix and not file.exists():
            return Experiment.open(str(path), runtime=runtime).voice()
        voice = load_voice(file)
        if index == "auto":
            found = Layout(file.absolute().parent, voice.info.name).indexes()
            index = found[0] if found else None
        features = FeatureIndex.load(Path(index).expanduser()) if index else None
        return cls(file, Converter(voice, features, runtime))

    @property
    def name(self) -> str:
        """Human name."""
        return self.converter.voice.info.name or self.path.stem

    def convert(self, source: "str | Path | Audio", settings: ConvertSettings = ConvertSettings(), *,
                output: str | Path | None = None, progress: Progress = Silent()) -> "ConvertResult":
        """Convert a recording; with `output`, write it there and measure what was written."""
        from .audio import Audio, read_audio
        from .convert import convert_file
        if output is not None and not isinstance(source, Audio):
            return convert_file(self.converter, Path(source), Path(output), settings, progress=progress)
        audio = source if isinstance(source, Audio) else read_audio(Path(source))
        return self.converter.convert(audio, settings, progress=progress)

    def convert_all(self, inputs: Iterable[str | Path], folder: str | Path,
                    settings: ConvertSettings = ConvertSettings(), *,
                    progress: Progress = Silent()) -> "list[ConvertResult | FailedFile]":
        """Convert many recordings into `folder`; a file that fails does not stop the others."""
        results: list[ConvertResult | FailedFile] = []
        for source, output in outputs_for([Path(item) for item in inputs], Path(folder), self.name, settings):
            try:
                results.append(self.convert(source, settings, output=output, progress=progress))
            except RVCError as error:
                results.append(FailedFile(str(source), str(error), error.hint))
        return results


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
        When there is nothing to convert.
    """
    files = [file for item in inputs for file in (_audio_in(item) if item.is_dir() else [item])]
    if not files:
        raise SettingsError("nothing to convert", hint="name recordings, or a folder that holds some")
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
    from .audio import AUDIO_SUFFIXES
    return sorted(path for path in folder.iterdir() if path.suffix.lower() in AUDIO_SUFFIXES)
