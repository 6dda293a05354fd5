"""The command that separates songs."""

import argparse
from functools import partial
from pathlib import Path

from ..conversion.naming import ensure_folder
from ..errors import RVCError, SettingsError
from ..settings import RuntimeSettings, SeparateSettings
from ..system.files import numbered
from ..system.platforms import in_words
from ..voice import FailedFile
from .arguments import (
    RECORDINGS,
    Result,
    inputs_of,
    named,
    progress_of,
    settings_of,
    summary_of,
)


def _separate(arguments: argparse.Namespace) -> Result:
    from ..separation.models import chosen, parsed_kinds
    from ..separation.separate import SeparationReport, is_of_another, separate_file

    settings, runtime = settings_of(SeparateSettings, arguments), settings_of(RuntimeSettings, arguments)
    kinds, output, progress = parsed_kinds(arguments.kinds), Path(arguments.output), progress_of(arguments)
    if "vocals" not in kinds and settings.model != "auto":
        raise SettingsError("`model` has no effect without vocals", hint="leave out `model`, or add vocals to --kinds")
    for kind in kinds:  # what is missing is told before anything is fetched or written
        chosen(kind, settings.model)
    ensure_folder(arguments.output)
    taken: list[Path] = []

    def is_taken(place: Path, song: Path) -> bool:
        return place in taken or is_of_another(place, song)

    results: list[SeparationReport | FailedFile] = []
    for song in inputs_of(arguments.songs, output, progress, "to separate"):
        if isinstance(song, FailedFile):
            results.append(song)
            continue
        taken.append(folder := numbered(output / song.stem, partial(is_taken, song=song)))
        try:
            made = separate_file(song, folder, kinds, settings, runtime=runtime, progress=progress)
            progress.say(f"{song.name}: separated by {', '.join(made.models.values())} into {folder}")
            results.append(made)
        except RVCError as error:
            results.append(FailedFile(str(song), str(error), error.hint))
        except OSError as error:
            results.append(FailedFile(str(song), *in_words(error)))
    return summary_of(results, "songs")


COMMANDS = {
    "separate": (
        _separate,
        "Separate songs into vocals and accompaniment, and the vocals further.",
        named("songs", f"Songs: each {RECORDINGS}.", metavar="SONG", nargs="+"),
        named(
            "--output",
            "Folder for the results, one folder for each song. Default: stems.",
            default="stems",
            metavar="DIR",
        ),
        named(
            "--kinds",
            "What to separate, in this order, with commas: vocals, lead, dereverb, denoise. Each works on the result "
            "of the one before. Default: vocals.",
            default="vocals",
            metavar="KINDS",
        ),
    ),
}
