"""The public API for conversion: a Voice converts recordings."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from .conversion.naming import outputs_for, refuse_missing, songs_in, spoken_to
from .errors import ResourceError, RVCError, SettingsError, WeightsError
from .progress import Beside, Progress, Report, Silent
from .settings import ConvertSettings, RuntimeSettings, SeparateSettings, SpeakSettings, text_of
from .song_settings import SongSettings
from .system.files import slug_of
from .system.platforms import in_words
from .workspace.layout import Layout, voice_path

if TYPE_CHECKING:  # importing these loads torch
    from .audio.waveform import Audio
    from .conversion.convert import Converter, ConvertResult
    from .conversion.song import SongReport
    from .conversion.speak import SpeakResult
    from .evaluation.evaluate import EvaluateReport

R = TypeVar("R")


@dataclass
class Voice:
    """A trained voice, ready to convert.

    Attributes
    ----------
    index : str
        File name of the index used in conversions; empty without one.
    warnings : list of str
        Problems with the index; repeated in the result of every conversion that uses an index.
    name : str
        As the user called it: the name of the experiment, or of the file. Results are named so.
    """

    path: Path
    converter: "Converter"
    index: str = ""
    warnings: list[str] = field(default_factory=list)
    name: str = ""

    def __post_init__(self) -> None:
        self.name = self.name or self.path.stem

    @classmethod
    def load(
        cls, path: str | Path, index: str | Path | None = "auto", *, runtime: RuntimeSettings = RuntimeSettings()
    ) -> "Voice":
        """Open a voice file of RVC WebUI, Applio or rvc_core.

        Parameters
        ----------
        path : path
            A ``.pth`` file, or the name of an experiment.
        index : path, "auto" or None
            ``auto``: the index of this voice in the same folder, if there is one. None: no index.
        runtime : RuntimeSettings

        Raises
        ------
        WeightsError
            When a file is missing or invalid, or the experiment has no voice: check the path, or train first.
        MismatchError
            When voice, index and content encoder do not match: use the index that was built with this voice.
        """
        from .conversion.convert import Converter
        from .features.retrieval import FeatureIndex
        from .voices.library import find_index
        from .workspace.voice_file import load_voice

        file = voice_path(path)
        voice = load_voice(file)
        chosen, warnings = find_index(file, voice) if index == "auto" else (index, [])
        features = FeatureIndex.load(Path(chosen).expanduser()) if chosen else None
        used = Path(chosen).name if chosen else ""
        name, own = text_of(path), voice.info.name
        if file == Path(name).expanduser():  # in a file's name, the experiment's is in ASCII
            slug = slug_of(own) if own else ""
            name = own + file.stem.removeprefix(slug) if slug and file.stem.startswith(slug) else file.stem
        return cls(file, Converter(voice, features, runtime), used, warnings, name)

    def convert(
        self,
        source: "str | Path | Audio",
        settings: ConvertSettings = ConvertSettings(),
        *,
        output: str | Path | None = None,
        progress: Progress = Silent(),
    ) -> "ConvertResult":
        """Convert a recording. With `output`, write the result to that file, tagged as converted, and check it.

        A file that is long, or of which each channel is converted, is done in parts, and the result's `audio` is empty.
        """
        from .audio.waveform import Audio, Recording, read_recording
        from .conversion.convert import convert_to_file
        from .conversion.in_parts import convert_in_parts, is_long

        refuse_missing(settings)
        if output is not None and not isinstance(source, Audio):
            if settings.channels == "each" or (not settings.f0_curve and is_long(Path(source))):
                made = convert_in_parts(self.converter, Path(source), Path(output), settings, progress=progress)
                return replace(made, index=self.index if settings.index_rate else "")
        read = Recording(source) if isinstance(source, Audio) else read_recording(Path(source))
        if output is None:
            result = self.converter.convert(read.audio, settings, progress=progress)
        else:
            result = convert_to_file(self.converter, read.audio, Path(output), settings, progress=progress)
        result = replace(result, warnings=[*read.warnings, *result.warnings])
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
        """Convert recordings into `folder`. If one fails, the others are still converted."""
        pairs = outputs_for([Path(item) for item in inputs], folder, self.name, settings)
        return _each(
            [
                (source, partial(self.convert, source, settings, output=output, progress=_named(progress, source)))
                for source, output in pairs
            ]
        )

    def sing(
        self,
        song: str | Path,
        settings: SongSettings = SongSettings(),
        convert: ConvertSettings = ConvertSettings(),
        separate: SeparateSettings = SeparateSettings(),
        *,
        output: str | Path = "songs",
        backing: "Voice | None" = None,
        progress: Progress = Silent(),
    ) -> "SongReport":
        """Sing a song: its vocals are separated, converted and mixed with the accompaniment again.

        Parameters
        ----------
        output : path
            Folder; the song gets a folder in it, with the mix and every stem.
        backing : Voice, optional
            Sings the backing vocals.

        Raises
        ------
        RVCError
            When the song cannot be read, or has no vocals.
        """
        from .conversion.song import Singer, Singers, make_song

        singers = Singers(*(Singer(one.name, one.converter) for one in (self, backing) if one))
        return make_song(Path(song), Path(output), singers, settings, convert, separate, progress=progress)

    def sing_all(
        self,
        songs: Iterable[str | Path],
        folder: str | Path,
        *settings: Any,
        backing: "Voice | None" = None,
        progress: Progress = Silent(),
    ) -> "list[SongReport | FailedFile]":
        """Sing songs, and those in folders, into `folder`. If one fails, the others are still sung."""
        own: dict[str, Any] = {"output": folder, "backing": backing}
        return _each(
            [
                (song, partial(self.sing, song, *settings, **own, progress=_named(progress, song)))
                for song in songs_in([Path(item) for item in songs], Path(folder))
            ]
        )

    def speak(
        self,
        text: str,
        speech: SpeakSettings = SpeakSettings(),
        settings: ConvertSettings = ConvertSettings(),
        *,
        output: str | Path | None = None,
        progress: Progress = Silent(),
    ) -> "SpeakResult":
        """Speak a text, or the .txt or .srt with this name. With `output`, write the result to that file or folder.

        Raises
        ------
        SettingsError
            When there is nothing to say, a cue's time is wrong, or the engine lacks the language.
        ResourceError
            When no engine is installed; the hint has the command.
        AudioError
            When no sentence could be spoken.
        """
        from .conversion.speak import speak

        file = None if output is None else spoken_to(output, text, self.name, settings)
        told = speech.model_copy(update={"text": text})
        result = speak(self.converter, told, settings, output=file, progress=progress)
        own = self.warnings if settings.index_rate else []
        return replace(result, warnings=[*result.warnings, *own])

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
        """Convert recordings of other speakers and measure the quality.

        Parameters
        ----------
        sources : iterable of path
            Recordings or folders of them; use sentences of three seconds or more.
        target : iterable of path
            Recordings of the target that were not used for training; default: the experiment's held-out recordings.
        text : str, optional
            The words of the sources, see `transcripts.texts_of`.
        output : path, optional
            Folder for the converted files; without it they are not kept.

        Raises
        ------
        ResourceError
            When no scorer is installed; the hint has the commands that install them.
        RVCError
            When a recording cannot be read or converted.
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
        for (source, file), words in zip(outputs_for(files, output or "", self.name, settings), texts, strict=True):
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
class FailedFile(Report):
    """A recording that could not be converted, the error, and what to do."""

    source: str
    error: str
    hint: str


def _each(works: list[tuple[Path, Callable[[], R]]]) -> "list[R | FailedFile]":
    """What each work returns, or why it failed. What no other file would mend is raised, unless some are done."""
    made: list[R | FailedFile] = []
    for source, work in works:
        try:
            made.append(work())
        except RVCError as error:
            nothing_is_done = all(isinstance(one, FailedFile) for one in made)
            if nothing_is_done and isinstance(error, SettingsError | WeightsError | ResourceError):
                raise
            made.append(FailedFile(str(source), str(error), error.hint))
        except OSError as error:
            made.append(FailedFile(str(source), *in_words(error)))
    return made


def _named(progress: Progress, source: Path) -> Progress:
    """Progress that says which recording it is about."""
    return Beside(progress, partial(str, source.name))
