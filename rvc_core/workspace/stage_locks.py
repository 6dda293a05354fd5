"""One process works at a stage of an experiment, and none at a stage whose files it needs."""

import functools
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Concatenate, ParamSpec, TypeVar

from ..errors import ResourceError
from ..system.inside import refuse_links
from ..system.locks import hold, holder
from .layout import Layout, typed

P = ParamSpec("P")
T = TypeVar("T")
_STAGES = {"prepare": "prepared", "extract": "extracted", "index": "indexed", "train": "trained"}
_DISTURBED_BY = {
    "prepare": ("extract", "index", "train"),
    "extract": ("prepare", "index", "train"),
    "index": ("prepare", "extract"),
    "train": ("prepare", "extract"),
}
_WAIT = "wait until that is done, then run this again"


@contextmanager
def working(layout: Layout, stage: str) -> Iterator[None]:
    """Work at a stage: alone, and in a folder without links to elsewhere.

    Raises
    ------
    ResourceError
        When another process works at it; the message says which.
    StorageError
        When the experiment holds a link or a device.
    """
    layout.root.parent.mkdir(parents=True, exist_ok=True)
    hint = f"wait for it, or end it with: rvc stop {typed(layout.name)}" if stage == "train" else _WAIT
    with hold(layout.lock_of(stage), f"{layout.name!r} is being {_STAGES[stage]} already", hint):
        if layout.root.is_dir():
            refuse_links(layout.root)
        yield


def at_stage(stage: str) -> Callable[[Callable[Concatenate[Layout, P], T]], Callable[Concatenate[Layout, P], T]]:
    """Let a function that takes a layout be `working` at this stage."""

    def decorate(function: Callable[Concatenate[Layout, P], T]) -> Callable[Concatenate[Layout, P], T]:
        @functools.wraps(function)
        def run(layout: Layout, /, *given: P.args, **named: P.kwargs) -> T:
            with working(layout, stage):
                return function(layout, *given, **named)

        return run

    return decorate


def at_work(layout: Layout, stages: Iterable[str] = _STAGES) -> str:
    """Which of these stages a process works at, in words; empty if none."""
    found = ((stage, holder(layout.lock_of(stage))) for stage in stages)
    return next((f"{layout.name!r} is being {_STAGES[stage]} by {who}" for stage, who in found if who), "")


def refuse_disturbance(layout: Layout, stage: str) -> None:
    """Raise a ResourceError if a process works at a stage that shares files with this one."""
    if busy := at_work(layout, _DISTURBED_BY[stage]):
        raise ResourceError(busy, hint=_WAIT)
