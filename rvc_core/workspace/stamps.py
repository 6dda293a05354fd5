"""Stamps say what a stage's results were made from: the same stamp means nothing is to be redone.

A stamp is written after the results, so a stage that was killed half-way has none and is done again. Stamps stand in a
folder of their own because RVC WebUI takes every name inside its data folders for a clip.
"""

from typing import Any

from ..errors import RVCError
from ..system.files import read_json, signature, write_json
from .layout import Layout


def is_current(layout: Layout, stage: str, content: dict[str, Any]) -> bool:
    """Whether the stage's results were made from exactly `content` (settings, inputs; JSON-able)."""
    return stamp_of(layout, stage) == signature(content)


def stamp_of(layout: Layout, stage: str) -> str | None:
    """Signature of what the stage's present results were made from; None if there are none."""
    return _read(layout, stage).get("signature")


def content_of(layout: Layout, stage: str) -> dict[str, Any]:
    """What the stage's present results were made from; empty if there are none, or if another program made them."""
    return _read(layout, stage).get("content", {})


def stamp(layout: Layout, stage: str, content: dict[str, Any]) -> None:
    """Record that the stage's results, all on the disk by now, were made from `content`."""
    write_json(layout.stamp(stage), {"signature": signature(content), "content": content})


def clear(layout: Layout, stage: str) -> None:
    """Forget a stage's stamp, before its results are touched."""
    layout.stamp(stage).unlink(missing_ok=True)


def _read(layout: Layout, stage: str) -> dict[str, Any]:
    try:
        found = read_json(layout.stamp(stage), "")
    except (FileNotFoundError, RVCError):  # a damaged stamp is none: the stage is done again
        return {}
    return found if isinstance(found, dict) and isinstance(found.get("content"), dict) else {}
