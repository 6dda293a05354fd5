"""Texts of recordings: from files beside them, a table, a folder or the command line."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from ..errors import SettingsError
from ..system.inside import refuse_pipe


def texts_of(sources: Sequence[Path], given: str | None = None) -> list[str]:
    """Text of each source; empty if unknown.

    Parameters
    ----------
    sources : sequence of Path
    given : str, optional
        A ``.tsv`` of ``file<TAB>text`` or a folder of ``<stem>.txt``. For a single source also a ``.txt`` or the text
        itself. By default, a ``.txt`` beside each source.

    Raises
    ------
    SettingsError
        When the file is missing, has no text of these sources, or you give one text for several sources.
    """
    if given is None:
        return [_text_in(source.with_suffix(".txt")) for source in sources]
    if os.path.isdir(given):  # Path.is_dir would fail on a long text
        texts = [_text_in(Path(given, f"{source.stem}.txt")) for source in sources]
    elif given.lower().endswith(".tsv"):
        rows = [line.partition("\t") for line in _read(Path(given)).splitlines() if line.strip()]
        texts = [_row_of(source, {name.strip(): text.strip() for name, _, text in rows}) for source in sources]
    elif len(sources) > 1:
        raise SettingsError(
            f"one text for {len(sources)} sources",
            hint="give --text a .tsv of file<TAB>text or a folder of <name>.txt",
        )
    else:
        texts = [_read(Path(given)).strip() if given.lower().endswith(".txt") else given.strip()]
    if not any(texts):
        raise SettingsError(
            f"no text of {sources[0].name!r} in --text {given[:60]!r}",
            hint="a .tsv needs lines of file<TAB>text; a folder needs files called <name>.txt",
        )
    return texts


def _text_in(path: Path) -> str:
    return _read(path).strip() if path.is_file() else ""


def _read(path: Path) -> str:
    try:
        refuse_pipe(path)
        return path.read_text("utf-8-sig")
    except FileNotFoundError:
        raise SettingsError(f"{str(path)!r} does not exist", hint="check the path given to --text") from None
    except UnicodeDecodeError:
        raise SettingsError(f"{str(path)!r} is not UTF-8 text", hint="save it as plain text in UTF-8") from None


def _row_of(source: Path, rows: Mapping[str, str]) -> str:
    """Text of the row whose file name, with its folders, matches the end of the source's path."""
    path = source.absolute()
    fitting = [
        (len(parts), text)
        for name, text in rows.items()
        if (parts := Path(name).parts)
        and parts in (path.parts[-len(parts) :], path.with_suffix("").parts[-len(parts) :])
    ]
    return max(fitting)[1] if fitting else ""
