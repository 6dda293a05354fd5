"""Runs that nobody watches: the forms write their parameters cell, and none trains the demo by mistake."""

import html
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..errors import DatasetError
from .session import DEMO, Session
from .texts import say

_COPY = "const t=this.parentNode.querySelector('textarea');t.select();document.execCommand('copy');"
_LISTED = 8


def is_unattended(environment: Mapping[str, str] = os.environ) -> bool:
    """Whether Kaggle's Save & Run All, papermill, a Job or another program runs this notebook without a person."""
    if environment.get("KAGGLE_KERNEL_RUN_TYPE") == "Batch":
        return True
    from IPython import get_ipython

    kernel = getattr(get_ipython(), "kernel", None)  # programs that run notebooks say that nobody answers questions
    return kernel is not None and not getattr(kernel, "_allow_stdin", True)


def refuse_forgotten_recordings(dataset: str, found: list[Path]) -> None:
    """Refuse an unattended run without recordings where some are attached: it would train the demo.

    Raises
    ------
    DatasetError
        With the recordings that were found, and what to write into the parameters cell.
    """
    if dataset or not found or not is_unattended():
        return
    listed = ", ".join(map(str, found[:_LISTED]))
    more = f" and {len(found) - _LISTED} more" if len(found) > _LISTED else ""
    raise DatasetError(
        f"`dataset` is empty, and nobody is here to fill in the form. These recordings are attached: {listed}{more}",
        hint=f'write one of them into the cell What to make, such as dataset = "{found[0]}"; "{DEMO}" trains the demo',
    )


def parameters_text(session: Session) -> str:
    """The parameters cell with everything that was chosen in forms: a fresh machine that runs it makes the same.

    Examples
    --------
    >>> chosen = {"TrainSettings": {"epochs": 9}}
    >>> print(parameters_text(Session("Zoë", "/in/zoe", given={"mirror": "auto"}, chosen=chosen)))
    name = 'Zoë'
    dataset = '/in/zoe'
    songs = ''
    storage = 'auto'
    settings = {'epochs': 9}
    """
    settings: dict[str, Any] = dict(session.given)
    for changes in session.chosen.values():
        settings |= changes
    storage = settings.pop("mirror", "auto")
    values = {"name": session.name, "dataset": session.dataset or DEMO, "songs": session.songs, "storage": storage}
    return "\n".join(f"{name} = {value!r}" for name, value in {**values, "settings": settings}.items())


def parameters() -> None:
    """Show the parameters cell as the forms would have it, ready to copy, and what an unattended run would miss."""
    from IPython.display import HTML, display

    session = Session.load()
    text = parameters_text(session)
    print(say("copy_parameters"))
    display(
        HTML(
            f'<div><textarea readonly rows="{text.count(chr(10)) + 2}" aria-label="{html.escape(say("parameters"))}" '
            f'style="width:98%;max-width:48em;font-family:monospace" onclick="this.select()">{html.escape(text)}'
            f'</textarea><br><button onclick="{html.escape(_COPY)}">{html.escape(say("copy"))}</button></div>'
        )
    )
    for path in (session.dataset, session.songs):
        if path and "/recordings/" in path and Path(path).exists():  # links are fetched again; uploads are not
            print("! " + say("not_on_a_fresh_machine", path=path))
