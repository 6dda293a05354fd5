"""The form that asks for recordings: a path, what the platform offers, a link or an upload; and what was understood."""

import html
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import Any

from ..audio.waveform import AUDIO_SUFFIXES
from ..errors import DatasetError
from ..preparation.incoming import save_set
from ..preparation.preview import PREVIEW_FILES, PREVIEW_SECONDS, listing, offered, within
from ..preparation.typed_paths import meant
from .texts import say, translated

_UPLOADED = ",".join(sorted({*AUDIO_SUFFIXES, ".zip"}))
_SHOWN_NAMES, _SHOWN_FOLDERS = 4, 12


class RecordingsForm:
    """Asks for recordings: a path first; what lies about on this platform, a link or a small upload fill it in.

    Parameters
    ----------
    start : str
        Path or link to begin with.
    folder : Path
        Where uploads go, each into a folder of its own: the newest one is what counts.
    changed : callable
        Is given the new path or link.
    hint, nothing : str
        What the empty field says, and what is used then, as `say` knows them. Default: of recordings to learn from.
    """

    def __init__(
        self,
        start: str,
        folder: Path,
        changed: Callable[[str], None],
        hint: str = "path_hint",
        nothing: str = "embedded",
    ) -> None:
        import ipywidgets

        self._folder, self._changed, self._nothing = folder, changed, nothing
        layout = {"width": "98%", "max_width": "48em"}
        style = {"description_width": "10.5em"}
        self.path = ipywidgets.Text(
            value=start,
            description=say("path"),
            placeholder=say(hint),
            continuous_update=False,  # on Enter or on leaving the field: half a path must not be listed
            style=style,
            layout=layout,
        )
        options = [(say("choose"), ""), *((f"…/{path.parent.name}/{path.name}", str(path)) for path in offered())]
        self.offered = ipywidgets.Dropdown(options=options, description=say("offered"), style=style, layout=layout)
        self.upload = ipywidgets.FileUpload(
            accept=_UPLOADED, multiple=True, description=say("upload"), layout={"width": "auto", "max_width": "98%"}
        )
        self.told = ipywidgets.HTML()
        self.path.observe(lambda change: self._take(change["new"]), names="value")
        self.offered.observe(lambda change: self._set(change["new"]), names="value")
        self.upload.observe(lambda change: self._uploaded(change["new"]), names="value")
        self.widget = ipywidgets.VBox(
            [self.path, self.offered, self.upload, self.told], layout={"width": "100%", "max_width": "48em"}
        )
        self._tell()

    @property
    def value(self) -> str:
        """A path or link; empty: the recordings inside the package."""
        return self.path.value.strip()

    def _ipython_display_(self) -> None:
        from IPython.display import display

        display(self.widget)

    def _set(self, path: str) -> None:
        if path:
            self.path.value = path

    def _take(self, text: str) -> None:
        self._tell()
        self._changed(text.strip())

    def _uploaded(self, value: Any) -> None:
        if files := list(uploads(value)):
            self.path.value = str(save_set(self._folder, files))

    def _tell(self) -> None:
        problem = ""
        try:
            text = within(PREVIEW_SECONDS + 0.5, self._understood) or say("slow", seconds=PREVIEW_SECONDS)
        except DatasetError as error:
            text = problem = f"{translated(str(error))}; {translated(error.hint)}"
        except OSError as error:
            text = problem = f"{self.value}: {error.strerror}"
        look = ' role="alert" style="color:#d32f2f;font-weight:600;' if problem else ' style="line-height:1.35;'
        look += 'white-space:pre-wrap;word-break:normal;overflow-wrap:anywhere"'  # JupyterLab cuts words anywhere
        self.told.value = f"<pre{look}>{html.escape(text)}</pre>"

    def _understood(self) -> str:
        """What the field means, in words; nothing is fetched, and a long list is cut."""
        if not self.value:
            return say(self._nothing)
        meaning = meant(self.value)
        return say("link") if isinstance(meaning, str) else tree_of(meaning, PREVIEW_FILES, PREVIEW_SECONDS)


def uploads(value: Any) -> Iterator[tuple[str, bytes]]:
    """Names and contents of an upload: a dict by name in ipywidgets 7, a tuple of dicts in 8.

    Examples
    --------
    >>> list(uploads({"a.wav": {"content": b"x"}})), list(uploads(({"name": "a.wav", "content": b"x"},)))
    ([('a.wav', b'x')], [('a.wav', b'x')])
    """
    files = (
        [(name, entry) for name, entry in value.items()]
        if isinstance(value, Mapping)
        else [(entry["name"], entry) for entry in value]
    )
    for name, entry in files:
        yield name, bytes(entry["content"])


def tree_of(paths: Path | list[Path], most: float = float("inf"), seconds: float = float("inf")) -> str:
    """What recordings were understood to be, folder by folder, as far as time and number allow.

    Raises
    ------
    DatasetError
        When there is nothing.
    """
    found = listing([paths] if isinstance(paths, Path) else paths, most, seconds)
    folders: dict[str, list[str]] = defaultdict(list)
    for name in found.seconds:
        folders[str(PurePosixPath(name).parent)].append(name)
    title = f"{found.title}/   " if found.title else ""
    lines = [title + say("counted", count=len(found.seconds), minutes=f"{sum(found.seconds.values()) / 60:.1f}")]
    if found.cut_by:
        lines[0] += "   " + say(f"first_{found.cut_by}", count=f"{most:.0f}", seconds=f"{seconds:.0f}")
    for folder, names in list(folders.items())[:_SHOWN_FOLDERS]:
        where = "" if folder == "." else f"{folder}/   "
        minutes = f"{sum(found.seconds[name] for name in names) / 60:.1f}"
        listed = _named([PurePosixPath(name).name for name in names])
        lines.append(f"├── {where}{say('counted', count=len(names), minutes=minutes)}: {listed}")
    if len(folders) > _SHOWN_FOLDERS:
        lines.append(f"├── {say('more_folders', count=len(folders) - _SHOWN_FOLDERS)}")
    zips = [say("archive", name=name, size=f"{size:.1f}") for name, size in found.zips.items()]
    lines += [f"├── {line}" for line in zips[:_SHOWN_FOLDERS]]
    if len(zips) > _SHOWN_FOLDERS:
        lines.append(f"├── {say('more_archives', count=len(zips) - _SHOWN_FOLDERS)}")
    if found.foreign:
        lines.append(f"├── {say('foreign', names=_named(found.foreign))}")
    if found.left_out:
        lines.append(f"├── {say('left_out')}: {_named(found.left_out)}")
    lines[-1] = lines[-1].replace("├", "└", 1)
    return "\n".join(lines[1:] if zips and not found.seconds and not found.cut_by else lines)


def _named(names: list[str]) -> str:
    more = say("and_more", count=len(names) - _SHOWN_NAMES) if len(names) > _SHOWN_NAMES else ""
    return ", ".join(names[:_SHOWN_NAMES]) + more
