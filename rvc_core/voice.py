"""A Voice converts recordings."""

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .errors import RVCError, SettingsError
from .progress import Progress, Silent
from .settings import ConvertSettings, RuntimeSettings
from .system.files import slug_of
from .workspace.layout import Layout, voice_path

if TYPE_CHECKING:  # importing these loads torch
    from .audio.waveform import Audio
    from .conversion.convert import Converter, ConvertResult
    from .evaluation.evaluate import EvaluateReport


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
    def load(
        cls, path: str | Path, index: str | Path | None = "auto", *, runtime: RuntimeSettings = RuntimeSettings()
    ) -> "Voice":
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
        from .voices.library import find_index
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

    def convert(
        self,
        source: "str | Path | Audio",
        settings: ConvertSettings = ConvertSettings(),
        *,
        output: str | Path | None = None,
        progress: Progress = Silent(),
    ) -> "ConvertResult":
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

    def convert_all(
        self,
        inputs: Iterable[str | Path],
        folder: str | Path,
        settings: ConvertSettings = ConvertSettings(),
        *,
        progress: Progress = Silent(),
    ) -> "list[ConvertResult | FailedFile]":
        """Convert many recordings into `folder`; a file that fails does not stop the others."""
        results: list[ConvertResult | FailedFile] = []
        for source, output in outputs_for([Path(item) for item in inputs], Path(folder), self.name, settings):
            try:
                results.append(self.convert(source, settings, output=output, progress=progress))
            except (RVCError, OSError) as error:
                hint = getattr(error, "hint", "check path and permissions")
                results.append(FailedFile(str(source), str(error), hint))
        return results

    def evaluate(
        self,
        sources: Iterable[str | Path],
        target: Iterable[str | Path] = (),
        text: str | None = None,
        settings: ConvertSettings = ConvertSettings(),
        *,
        output: str | Path | None = None,
        progress: Progress = Silent(),
    ) -> "EvaluateReport":
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
        for (source, file), words in zip(
            outputs_for(files, Path(output or ""), self.name, settings), texts, strict=True
        ):
            made = self.convert(source, settings, output=file if output else None)
            cases.append(
                Case(
                    source,
                    made.audio,
                    made.output,
                    words,
                    {"transpose": made.transpose, "real_time_factor": made.real_time_factor},
                    made.warnings,
                )
            )
            progress.advance(source.name)
        return evaluate(cases, speech, progress=progress)


@dataclass(frozen=True)
class FailedFile:
    """A recording that could not be converted, and why."""

    source: str
    error: str
    hint: str

    def as_json(self) -> dict[str, Any]:
        """For ``--json``."""
        return dict(vars(self))


def outputs_for(
    inputs: list[Path], folder: Path, voice_name: str, settings: ConvertSettings
) -> list[tuple[Path, Path]]:
    """Each input, folders and their sub-folders opened, beside the file its result goes to; two never share one.

    Results of an earlier call are no inputs: what lies in `folder` is left out where that is a sub-folder of an input.

    Raises
    ------
    SettingsError
        When there is nothing to convert, or one f0 curve for several recordings.
    """
    from .features.pitch import read_curve

    files = [file for item in inputs for file in (recordings_in(item, folder) if item.is_dir() else [item])]
    if not files:
        raise SettingsError("nothing to convert", hint="name recordings, or a folder that holds some")
    if settings.f0_curve and len(files) > 1:
        raise SettingsError(f"one f0 curve for {len(files)} recordings", hint="convert each with its own curve")
    if settings.f0_curve:
        read_curve(Path(settings.f0_curve).expanduser())  # fails now, and once
    taken: set[Path] = set()
    pairs = []
    for file in files:
        stem = f"{file.stem}_{slug_of(voice_name)}"
        names = (stem, *(f"{stem}_{number}" for number in range(2, len(files) + 2)))
        output = next(path for name in names if (path := folder / f"{name}.{settings.output_format}") not in taken)
        taken.add(output)
        pairs.append((file, output))
    return pairs


def recordings_in(inputs: Path, results: Path) -> list[Path]:
    """The recordings of a folder and its sub-folders, without those that lie in the sub-folder of results."""
    from .audio.recordings import find_recordings

    inputs, results = inputs.absolute(), results.absolute()
    found = find_recordings(inputs).recordings.values()
    return [path for path in found if results == inputs or not path.is_relative_to(results)]
