"""What commands were given to convert: each text as its recordings, or as the reason why it names none."""

from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import DatasetError, UnsafeFileError
from ..preparation.incoming import sources
from ..progress import Silent, Terminal
from ..settings import ConvertSettings
from ..voice import FailedFile, Voice, recordings_in

if TYPE_CHECKING:  # importing this loads torch
    from ..conversion.convert import ConvertResult


def convert_texts(
    voice: Voice, texts: list[str], output: str, settings: ConvertSettings, progress: Silent | Terminal
) -> "list[ConvertResult | FailedFile]":
    """Convert the recordings that texts name, in their order; a text that names none does not stop the others."""
    found: list[Path | FailedFile] = []
    for text in texts:
        try:
            for path in sources(text, "to convert", progress):
                found += recordings_in(path, Path(output)) if path.is_dir() else [path]
        except (DatasetError, UnsafeFileError) as error:
            found.append(FailedFile(text, str(error), error.hint))
    files = [one for one in found if isinstance(one, Path)]
    made = iter(voice.convert_all(files, output, settings, progress=progress) if files else [])
    return [next(made) if isinstance(one, Path) else one for one in found]
