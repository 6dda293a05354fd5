"""Stamps record the settings and inputs of a stage's results: if they match, the stage is skipped.

A stage writes its stamp after its results, so an interrupted stage has none and runs again. Stamps have their own
folder, because RVC WebUI treats every file inside its data folders as a clip.
"""

from typing import Any

from pydantic import ConfigDict, with_config
from typing_extensions import TypedDict

from ..system.documents import Count, read_or
from ..system.files import signature, write_json
from .layout import Layout


@with_config(ConfigDict(extra="allow"))
class _Content(TypedDict, total=False):
    """What other modules read of a stamp; each stage writes more."""

    count: Count
    method: str
    name: str
    identity: str
    settings: dict[str, Any]
    files: list[tuple[str, int, int]]
    recordings: dict[str, str]


class _Stamp(TypedDict):
    signature: str
    content: _Content


def is_current(layout: Layout, stage: str, content: dict[str, Any]) -> bool:
    """Whether the stage's results were made from exactly `content` (settings and inputs, JSON-serialisable)."""
    return stamp_of(layout, stage) == signature(content)


def stamp_of(layout: Layout, stage: str) -> str | None:
    """Signature of the settings and inputs of the current results; None without results."""
    return _read(layout, stage).get("signature")


def content_of(layout: Layout, stage: str) -> dict[str, Any]:
    """Settings and inputs of the current results; empty without results or for another program's."""
    return _read(layout, stage).get("content", {})


def stamp(layout: Layout, stage: str, content: dict[str, Any]) -> None:
    """Record that the stage's results were made from `content`. Call it after writing all results."""
    write_json(layout.stamp(stage), {"signature": signature(content), "content": content})


def clear(layout: Layout, stage: str) -> None:
    """Remove a stage's stamp. Call it before changing its results."""
    layout.stamp(stage).unlink(missing_ok=True)


def _read(layout: Layout, stage: str) -> dict[str, Any]:
    return read_or(layout.stamp(stage), _Stamp, {})  # without a valid stamp the stage runs again
