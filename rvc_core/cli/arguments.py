"""From parsed arguments to settings, experiments and progress."""

import argparse
import os
import shlex
import sys
from pathlib import Path
from typing import Any

from ..audio.recordings import recordings_in
from ..conversion.naming import recordings_outside
from ..errors import DatasetError, SettingsError, UnsafeFileError
from ..experiment import Experiment
from ..preparation.incoming import brought, sources
from ..progress import Silent, Terminal
from ..settings import RuntimeSettings, Settings, spelled
from ..voice import FailedFile, Voice
from ..workspace.layout import Layout, refuse_unknown

Result = dict[str, Any]
Option = tuple[str, dict[str, Any]]


def named(name: str, text: str | None, **declared: Any) -> Option:
    """An option or argument with its help, as argparse takes it."""
    return name, {"help": text, **declared}


def complain(error: str, hint: str) -> None:
    """Print an error and its hint on stderr."""
    fresh = "\r\033[K" if sys.stderr.isatty() else ""  # a bar may stand on this line
    print(in_flags(f"{fresh}rvc: {error}" + (f"\n     {hint}" if hint else "")), file=sys.stderr)


def in_flags(text: str) -> str:
    """A message in which each setting has the name of its flag.

    Examples
    --------
    >>> in_flags("`index_rate` must be from 0 to 1, not '2'")
    "--index-rate must be from 0 to 1, not '2'"
    """
    return spelled(text, lambda name: f"--{name.replace('_', '-')}")


def summary_of(results: list[Any], key: str = "files") -> Result:
    """The reports of files, of which some may have failed: all failures but the last are told on stderr.

    The command itself tells of the last.
    """
    failures = [result for result in results if isinstance(result, FailedFile)]
    summary: Result = {key: [result.as_json() for result in results], "failed": len(failures)}
    if not failures:
        return summary
    *others, last = failures
    for failure in others:
        complain(f"{failure.source}: {failure.error}", failure.hint)
    count = f" ({len(failures)} of {len(results)} {key} failed)" if len(results) > 1 else ""
    return summary | {"error": f"{last.source}: {last.error}{count}", "hint": last.hint, "failed_command": True}


def settings_of(settings: type[Settings], arguments: argparse.Namespace) -> Any:
    """The settings of these flags; absent ones have their default."""
    given = {name: getattr(arguments, name) for name in settings.model_fields if hasattr(arguments, name)}
    return settings.of(**given)


def experiment_of(arguments: argparse.Namespace) -> Experiment:
    """The experiment that is named, its recordings brought here, with its progress on the terminal."""
    dataset, progress = getattr(arguments, "dataset", None), progress_of(arguments)
    return Experiment.open(
        arguments.name,
        brought(dataset, arguments.name, progress) if dataset else None,
        runtime=settings_of(RuntimeSettings, arguments),
        progress=progress,
    )


def existing_experiment(arguments: argparse.Namespace) -> Experiment:
    """The experiment that is named; a name that no experiment has is refused before anything is made."""
    refuse_unknown(Layout.of(arguments.name))
    return experiment_of(arguments)


def inputs_of(
    texts: list[str], output: Path, progress: Silent | Terminal, name: str = "to convert"
) -> list[Path | FailedFile]:
    """The recordings that texts name, without results of earlier calls; one that names none stops no other."""
    found: list[Path | FailedFile] = []
    for at, text in enumerate(texts):
        try:
            for path in sources(text, name, progress):
                found += recordings_outside(output, path) if path.is_dir() else [path]
        except (DatasetError, UnsafeFileError) as error:
            joined = [" ".join(texts[at:end]) for end in range(at + 2, len(texts) + 1)]
            whole = next(filter(os.path.exists, joined), "")
            hint = f"put a name with spaces in quotes: {shlex.quote(whole)}" if whole else error.hint
            found.append(FailedFile(text, str(error), hint))
    return found


def recordings_of(texts: list[str], progress: Silent | Terminal, name: str = "to convert") -> list[Path]:
    """All recordings that texts name, brought here: folders with their sub-folders, zips, patterns and links."""
    return recordings_in(path for text in texts for path in sources(text, name, progress))


def refuse_swapped(arguments: argparse.Namespace, first: str, others: list[str]) -> None:
    """Refuse a command whose voice stands where its recordings belong, with the command that was meant.

    Raises
    ------
    SettingsError
    """
    if not _is_voice(first) and (voice := next(filter(_is_voice, others), None)):
        words = [{first: voice, voice: first}.get(word, word) for word in arguments.typed]
        raise SettingsError(f"the voice comes first: {voice!r}", hint=f"write: rvc {shlex.join(words)}")


def _is_voice(text: str) -> bool:
    """Whether a text names a voice file that is there, or an experiment with a voice."""
    path = Path(text).expanduser()
    if path.suffix.lower() in (".pth", ".safetensors"):
        return path.is_file()
    return not path.is_file() and bool(text.strip(". /")) and bool(Layout.of(text).voices())


def progress_of(arguments: argparse.Namespace) -> Silent | Terminal:
    """Where a command shows its progress."""
    return Silent() if arguments.quiet else Terminal()


def voice_of(path: str, arguments: argparse.Namespace) -> Voice:
    """A voice with the index that the flags name."""
    index = None if arguments.index == "none" else arguments.index
    return Voice.load(path, index, runtime=settings_of(RuntimeSettings, arguments))


RECORDINGS = "a folder, a recording, a zip, a pattern or a link"
INDEX = named("--index", "An .index file, or none. Default: the voice's.", default="auto", metavar="FILE")
