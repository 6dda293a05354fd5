"""The public API for conversion: a Voice converts recordings."""

import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from .errors import RVCError, SettingsError
from .progress import Beside, Progress, Report, Silent
from .settings import ConvertSettings, RuntimeSettings, SeparateSettings, SpeakSettings
from .song_settings import SongSettings
from .system.files import readable
from .system.platforms import in_words
from .workspace.layout import Layout, voice_path

if TYPE_CHECKING:  # importing these loads torch
    from .audio.waveform import Audio
    from .conversion.convert import Converter, ConvertResult
    from .conversion.song import SongReport
    from .conversion.speak import SpeakResult
    from .evaluation.evaluate import EvaluateReport

R = TypeVar("R")
MADE = ("song.json", "separation.json")  # a folder with one of these holds what was made of a song
_LONGEST_NAME = 160  # bytes of a recording's name in that of its result; file systems allow 255 in all


@dataclass
class Voice:
    """A trained voice, ready to convert.

    Attributes
    ----------
    index : str
        File name of the index used in conversions; empty without one.
    warnings : list of str
        Problems with the index; repeated in the result of every conversion that uses an index.
    """

    path: Path
    converter: "Converter"
    index: str = ""
    warnings: list[str] = field(default_factory=list)

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
        return cls(file, Converter(voice, features, runtime), Path(chosen).name if chosen else "", warnings)

    @property
    def name(self) -> str:
        """Name of the voice, or of its file."""
        return self.converter.voice.info.name or self.path.stem

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
        return [
            _attempted(
                source, partial(self.convert, source, settings, output=output, progress=_named(progress, source))
            )
            for source, output in outputs_for([Path(item) for item in inputs], Path(folder), self.name, settings)
        ]

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
        return [
            _attempted(
                song,
                partial(self.sing, song, *settings, output=folder, backing=backing, progress=_named(progress, song)),
            )
            for song in songs_in([Path(item) for item in songs], Path(folder))
        ]

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

        file = None if output is None else spoken_to(Path(output), text, self.name, settings)
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
class FailedFile(Report):
    """A recording that could not be converted, the error, and what to do."""

    source: str
    error: str
    hint: str


def _attempted(source: Path, work: Callable[[], R]) -> "R | FailedFile":
    """What the work returns, or why it failed."""
    try:
        return work()
    except RVCError as error:
        return FailedFile(str(source), str(error), error.hint)
    except OSError as error:
        return FailedFile(str(source), *in_words(error))


def _named(progress: Progress, source: Path) -> Progress:
    """Progress that says which recording it is about."""
    return Beside(progress, partial(str, source.name))


def songs_in(inputs: list[Path], folder: Path) -> list[Path]:
    """The songs that are given, and those in folders and their sub-folders; what was made of songs is none.

    Raises
    ------
    SettingsError
        When there is none.
    """
    found = [file for item in inputs for file in (recordings_in(item, folder) if item.is_dir() else [item])]
    songs = [file for file in found if not any((parent / name).exists() for parent in file.parents for name in MADE)]
    if not songs:
        raise SettingsError("no songs found", hint="give songs, or a folder with songs")
    return songs


def outputs_for(
    inputs: list[Path], folder: Path, voice_name: str, settings: ConvertSettings
) -> list[tuple[Path, Path]]:
    """Pairs of recording and result file, each file name used once. Folders are searched with their sub-folders.

    If `folder` ends in .wav or another audio suffix and does not exist as a folder, it is the file of the one result.
    If it is inside an input folder, its files are skipped: they are results of earlier calls.

    Raises
    ------
    SettingsError
        When there are no recordings, or several for one file or f0 curve: convert those one by one. When the format
        cannot be written.
    """
    from .features.pitch import read_curve

    files = [file for item in inputs for file in (recordings_in(item, folder) if item.is_dir() else [item])]
    if not files:
        raise SettingsError(
            "nothing to convert: no recordings found", hint="give recordings, or a folder with recordings"
        )
    if settings.f0_curve and len(files) > 1:
        raise SettingsError(f"one f0 curve for {len(files)} recordings", hint="convert each one with its own curve")
    if settings.f0_curve:
        read_curve(Path(settings.f0_curve).expanduser())  # fail before the voice is loaded
    if is_file_name(folder):
        refuse_output(folder, settings)
        if len(files) > 1:
            raise SettingsError(f"{folder.name} is one file for {len(files)} recordings", hint="give a folder instead")
        if folder.resolve() == files[0].resolve():
            raise SettingsError(f"{folder} is the recording itself", hint="give another name for the result")
        return [(files[0], folder)]
    refuse_output(folder / f"a.{settings.output_format}", settings)
    taken: set[Path] = set()
    pairs = []
    for file in files:
        name = file.stem if len(os.fsencode(file.stem)) < _LONGEST_NAME else file.stem[: _LONGEST_NAME // 4]
        stem = f"{name}_{readable(voice_name)}"
        names = (stem, *(f"{stem}_{number}" for number in range(2, len(files) + 2)))
        output = next(path for name in names if (path := folder / f"{name}.{settings.output_format}") not in taken)
        taken.add(output)
        pairs.append((file, output))
    return pairs


def spoken_to(output: Path, text: str, voice_name: str, settings: ConvertSettings) -> Path:
    """The file for a text: `output` itself, or in that folder a name from the text's file and the voice.

    Examples
    --------
    >>> spoken_to(Path("out"), "news.txt", "alice", ConvertSettings()).name
    'news_alice.wav'
    >>> spoken_to(Path("out"), "Hello there.", "alice", ConvertSettings()).name
    'speech_alice.wav'
    """
    if is_file_name(output):
        refuse_output(output, settings)
        return output
    name = text.strip()
    stem = Path(name).stem if len(name) < _LONGEST_NAME and name.lower().endswith((".txt", ".srt")) else "speech"
    file = output / f"{stem}_{readable(voice_name)}.{settings.output_format}"
    refuse_output(file, settings)
    return file


def is_file_name(output: Path) -> bool:
    """Whether a place for results is the name of one sound file, not of a folder."""
    from .audio.waveform import AUDIO_SUFFIXES

    return output.suffix.lower() in AUDIO_SUFFIXES and not output.is_dir()


def refuse_output(output: Path, settings: ConvertSettings) -> None:
    """Refuse the name of a result that cannot be written, or that the settings contradict.

    Raises
    ------
    AudioError, SettingsError
    """
    from .audio.waveform import subtype_of

    subtype_of(output, settings.output_depth)
    suffix = output.suffix.lower().removeprefix(".")
    if "output_format" in settings.model_fields_set and settings.output_format != suffix:
        raise SettingsError(
            f"{output.name} is not {settings.output_format}, which output_format says", hint="leave one of them out"
        )


def recordings_in(inputs: Path, results: Path) -> list[Path]:
    """The recordings of a folder and its sub-folders, without those that lie in the sub-folder of results."""
    from .audio.recordings import find_recordings

    inputs, results = inputs.absolute(), results.absolute()
    found = find_recordings(inputs).recordings.values()
    return [path for path in found if results == inputs or not path.is_relative_to(results)]
