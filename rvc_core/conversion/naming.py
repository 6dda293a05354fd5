"""Where results go: which file each recording becomes. What cannot be made is refused before anything is loaded."""

import os
import re
import shlex
import tempfile
from pathlib import Path

from ..audio.recordings import find_recordings
from ..audio.waveform import WRITTEN, subtype_of
from ..errors import AudioError, SettingsError, StorageError
from ..features.faiss_file import load_arrays
from ..features.pitch import read_curve
from ..settings import ConvertSettings, Settings, SpeakSettings
from ..system.files import readable
from ..system.platforms import MOUNT_AGAIN, is_reachable
from ..workspace.layout import voice_path
from .script import Utterance

MADE = ("song.json", "separation.json")  # a folder with one of these holds what was made of a song
_LONGEST_NAME = 160  # bytes of a recording's name in that of its result; file systems allow 255 in all
_NEEDS = {  # settings that have no effect without another one
    "key": "autotune",
    "blend_share": "blend_with",
    "blend_with": "blend_share",
    "protect": "index_rate",
    "reverb": "dereverb",
}
_OFF = {"transpose": 0, "index_rate": 0, "protect": 0.5}  # values that ask for nothing
_IDLE_ON = {
    "a song": ("loudness_lufs", "channels", "f0_curve"),
    "a song of two voices": ("vocals",),
    "speech": ("channels", "f0_curve"),
    "subtitles": ("speed",),
}
_ENDING = re.compile(r"\.[a-z][a-z0-9]{1,10}")  # of a file; "results v1.2" has none


def songs_in(inputs: list[Path], folder: Path) -> list[Path]:
    """The songs that are given, and those in folders and their sub-folders; what was made of songs is none.

    Raises
    ------
    SettingsError
        When there is none.
    """
    found = [file for item in inputs for file in (recordings_outside(folder, item) if item.is_dir() else [item])]
    songs = [file for file in found if not any((parent / name).exists() for parent in file.parents for name in MADE)]
    if not songs:
        raise SettingsError("no songs found", hint="give songs, or a folder with songs")
    return songs


def outputs_for(
    inputs: list[Path], output: str | Path, voice_name: str, settings: ConvertSettings
) -> list[tuple[Path, Path]]:
    """Pairs of recording and result file, each file name used once. Folders are searched with their sub-folders.

    `output` is a folder, or the file of the one result: see `is_file_name`. If the folder is inside an input folder,
    its files are skipped: they are results of earlier calls.

    Raises
    ------
    SettingsError
        When there are no recordings, or several for one file or f0 curve: convert those one by one.
    AudioError
        When the format cannot be written.
    """
    folder = Path(output)
    files = [file for item in inputs for file in (recordings_outside(folder, item) if item.is_dir() else [item])]
    if not files:
        raise SettingsError(
            "nothing to convert: no recordings found", hint="give recordings, or a folder with recordings"
        )
    if settings.f0_curve and len(files) > 1:
        raise SettingsError(f"one f0 curve for {len(files)} recordings", hint="convert each one with its own curve")
    if is_file_name(output):
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


def spoken_to(output: str | Path, text: str, voice_name: str, settings: ConvertSettings) -> Path:
    """The file for a text: `output` itself, or in that folder a name from the text's file and the voice.

    Examples
    --------
    >>> spoken_to(Path("out"), "news.txt", "alice", ConvertSettings()).name
    'news_alice.wav'
    >>> spoken_to(Path("out"), "Hello there.", "alice", ConvertSettings()).name
    'speech_alice.wav'
    """
    if is_file_name(output):
        refuse_output(Path(output), settings)
        return Path(output)
    name = text.strip()
    stem = Path(name).stem if len(name) < _LONGEST_NAME and name.lower().endswith((".txt", ".srt")) else "speech"
    file = Path(output) / f"{stem}_{readable(voice_name)}.{settings.output_format}"
    refuse_output(file, settings)
    return file


def is_file_name(output: str | Path) -> bool:
    """Whether a place for results is one sound file. A folder exists, ends in ``/``, or has no ending.

    Raises
    ------
    AudioError
        When the ending is of no format that can be written.

    Examples
    --------
    >>> is_file_name("song.MP3"), is_file_name("song"), is_file_name("song.mp3/"), is_file_name("results v1.2")
    (True, False, False, False)
    """
    path = Path(output)
    if not _has_ending(output):
        return False
    if path.suffix.lower() not in WRITTEN:
        raise AudioError(
            f"cannot write {path.name!r}: its ending is of no format",
            hint=f"use one of {', '.join(WRITTEN)}; for a folder write {shlex.quote(f'{path}/')}",
        )
    return True


def _has_ending(output: str | Path) -> bool:
    path = Path(output)
    is_folder = os.fspath(output).endswith(("/", os.sep)) or path.is_dir()
    return not is_folder and bool(_ENDING.fullmatch(path.suffix.lower().strip()))


def ensure_folder(output: str | Path, *, writes_formats: bool = False) -> None:
    """Fail before any work if `output` cannot be a folder, or nothing can be written there.

    `writes_formats`: a format of sound may have been meant by its ending, and can be chosen.

    Raises
    ------
    SettingsError, OSError
    """
    path = Path(output)
    existing = next(one for one in (path, *path.absolute().parents) if one.exists())
    if not existing.is_dir():
        raise SettingsError(f"--output {path} cannot be a folder: {existing} is a file", hint="choose another folder")
    if _has_ending(output):
        meant, kind = shlex.quote(str(path.with_suffix(""))), path.suffix.lower()
        if writes_formats and kind in WRITTEN:
            meant += f" --output-format {kind[1:]}"
        raise SettingsError(
            f"--output {path} must be a folder", hint=f"write: --output {meant}, or {shlex.quote(f'{path}/')}"
        )
    with tempfile.TemporaryFile(dir=existing):  # only a trial tells on every kind of storage
        pass


def refuse_missing(settings: ConvertSettings, *voices: str, index: str | None = None) -> None:
    """Fail before anything is loaded if a voice, an index or a pitch file is not there, or settings contradict.

    Raises
    ------
    WeightsError, SettingsError
    """
    files = [voice_path(voice) for voice in filter(None, voices)]
    refuse_idle(settings)
    if settings.blend_with and {*files} == {voice_path(settings.blend_with)}:
        raise SettingsError("`blend_with` is the voice itself", hint="name another voice, or leave out `blend_with`")
    if index == "none":
        for name in ("index_rate", "protect"):
            if is_changed(settings, name):
                raise SettingsError(f"`{name}` has no effect without an index", hint=f"leave out `{name}`")
    elif index not in ("auto", "", None):
        if not settings.index_rate:
            raise SettingsError("an index has no effect where `index_rate` is 0", hint="leave out one of them")
        if not (file := Path(index).expanduser()).is_file():
            load_arrays(file)  # says so
    if settings.f0_curve:
        if settings.channels == "each":
            raise SettingsError("a pitch file is of one channel", hint="leave out `channels`, or `f0_curve`")
        read_curve(Path(settings.f0_curve).expanduser())


def refuse_idle(settings: Settings, on: str = "") -> None:
    """Refuse a setting that was changed but has no effect: beside the others, or `on` what the work is about.

    Raises
    ------
    SettingsError

    Examples
    --------
    >>> refuse_idle(ConvertSettings(key="C"))
    Traceback (most recent call last):
    rvc_core.errors.SettingsError: `key` has no effect without `autotune`
    → set `autotune` too, or leave out `key`
    """
    for name in _IDLE_ON.get(on, ()):
        if is_changed(settings, name):
            raise SettingsError(f"`{name}` has no effect on {on}", hint=f"leave out `{name}`")
    for name, other in _NEEDS.items():
        if is_changed(settings, name) and not getattr(settings, other):
            raise SettingsError(
                f"`{name}` has no effect without `{other}`", hint=f"set `{other}` too, or leave out `{name}`"
            )
    if is_changed(settings, "f0_method") and is_changed(settings, "f0_curve"):
        raise SettingsError("`f0_method` has no effect beside `f0_curve`", hint="leave out one of them")


def is_changed(settings: Settings, name: str) -> bool:
    """Whether a setting asks for something that its default does not."""
    field = type(settings).model_fields.get(name)
    return field is not None and getattr(settings, name) not in (field.default, _OFF.get(name))


def refuse_output(output: Path, settings: ConvertSettings) -> None:
    """Refuse the name of a result that cannot be written, or that the settings contradict.

    Raises
    ------
    AudioError, SettingsError
    """
    subtype_of(output, settings.output_depth)
    suffix = output.suffix.lower().removeprefix(".")
    if "output_format" in settings.model_fields_set and settings.output_format != suffix:
        raise SettingsError(
            f"{output.name} is not {settings.output_format}, which `output_format` says", hint="leave one of them out"
        )


def refuse_song(output: Path, convert: ConvertSettings, song: Settings, *, has_backing: bool) -> None:
    """Refuse before the work what cannot be written, or would have no effect.

    Raises
    ------
    StorageError, AudioError, SettingsError
    """
    if not is_reachable(output):
        raise StorageError(f"{output} cannot be reached: its storage went away", hint=MOUNT_AGAIN)
    subtype_of(Path(f"a.{convert.output_format}"), convert.output_depth)
    refuse_idle(convert, "a song")
    refuse_idle(song, "a song of two voices" if has_backing else "")


def refuse_speech(script: list[Utterance], speech: SpeakSettings, convert: ConvertSettings) -> None:
    """Refuse before the work what would have no effect.

    Raises
    ------
    SettingsError
    """
    refuse_idle(speech, "subtitles" if script[0].cue else "")
    refuse_idle(convert, "speech")


def recordings_outside(results: Path, inputs: Path) -> list[Path]:
    """The recordings of a folder and its sub-folders, without those that lie in the sub-folder of results."""
    inputs, results = inputs.absolute(), results.absolute()
    found = find_recordings(inputs).recordings.values()
    return [path for path in found if results == inputs or not path.is_relative_to(results)]
