"""What the cells of a notebook share: one voice, its recordings and settings, remembered on the disk.

A kernel forgets everything when it is restarted. What stands here it finds again, so any cell may be the first to run.
"""

import contextlib
import json
import os
import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from ..batch import SONG_SETTINGS, TRAIN_SETTINGS
from ..embedded import voice_folder
from ..errors import SettingsError, StageOrderError
from ..experiment import Experiment
from ..progress import Terminal
from ..settings import (
    MirrorSettings,
    PrepareSettings,
    RuntimeSettings,
    S,
    Settings,
    SpeakSettings,
    refuse_unknown,
    text_of,
)
from ..song_settings import RepairSettings
from ..system.devices import count_gpus
from ..system.documents import read_json, read_or
from ..system.files import signature, slug_of, write_json
from ..system.platforms import home
from ..workspace.layout import Layout
from ..workspace.manifest import ExperimentRecord
from .forms import Form, in_turn
from .texts import language, say, translated

_CLASSES = (*TRAIN_SETTINGS, *SONG_SETTINGS, SpeakSettings, MirrorSettings, RepairSettings)
_LINE_EVERY_SECONDS = 15.0
_NEWEST = "notebook.json"
DEMO = "demo"  # the recordings inside the package, and the voice that is made of them
_DEMO_HOLDOUT_MINUTES = 0.2  # so that the demo shows validation and verdict at work


class Lines(Terminal):
    """Progress in the reader's language."""

    def start(self, label: str, total: int) -> None:
        """Begin a piece of work of `total` units."""
        super().start(translated(label), total)

    def say(self, line: str) -> None:
        """Print one line that stays."""
        super().say(translated(line))


@dataclass
class Session:
    """What is being worked on.

    Attributes
    ----------
    name : str
        Of the voice.
    dataset, songs : str
        Recordings to learn from, recordings to convert, as they were given; empty: those inside the package.
    arrived : str
        Where the recordings to learn from are, once they were fetched and unpacked.
    voice : str
        File name of the voice to listen to; empty: the recommended one.
    planned : dict
        What the plan says about settings, by field: the value and its reason. Empty before there is a plan.
    given : dict
        Settings of the parameters cell, by field.
    chosen : dict
        What forms were changed to since, by settings class.
    language : str
        Of all that is said.
    """

    name: str
    dataset: str = ""
    songs: str = ""
    arrived: str = ""
    voice: str = ""
    planned: dict[str, list[Any]] = field(default_factory=dict)
    given: dict[str, Any] = field(default_factory=dict)
    chosen: dict[str, dict[str, Any]] = field(default_factory=dict)
    language: str = field(default_factory=language)

    @classmethod
    def load(cls) -> "Session":
        """The one that was in use last on this machine.

        Raises
        ------
        StageOrderError
            When there is none.
        """
        for file in (_file(), home() / _NEWEST):  # another notebook's, where this one has begun none
            try:
                session = read_json(file, cls, "delete it, and run the cell Begin", error=SettingsError)
                break
            except FileNotFoundError:
                continue
        else:
            raise StageOrderError("no voice was begun on this machine", hint="run the cell Begin")
        os.environ.setdefault("RVC_LANG", session.language)
        return session

    def save(self) -> None:
        """Remember it, for this notebook, and as the newest on this machine."""
        for file in {_file(), home() / _NEWEST}:
            write_json(file, asdict(self))

    @classmethod
    def remember(cls, **changes: Any) -> None:
        """Change what stands there."""
        with in_turn:
            session = cls.load()
            if changes.get("dataset", session.dataset) != session.dataset:
                session.arrived, session.planned = "", {}
            vars(session).update(changes)
            session.save()

    @property
    def is_demo(self) -> bool:
        """Whether the recordings are those inside the package."""
        return self.dataset in ("", DEMO)

    @property
    def voice_name(self) -> str:
        """Name of the experiment: the demo has one of its own, so that it never passes for somebody's voice."""
        return DEMO if self.is_demo else self.name

    @property
    def is_in_use(self) -> bool:
        """Whether the voice of this name was made of the very recordings that are chosen, which may be gone by now."""
        layout = Layout.of(self.voice_name)
        chosen = {self.dataset, self.arrived, str(Path(self.dataset).expanduser().absolute())}
        return layout.experiment.exists() and ExperimentRecord.load(layout).dataset in chosen

    @property
    def lab(self) -> Experiment:
        """The experiment, telling its progress in lines."""
        return Experiment.open(
            self.voice_name,
            voice_folder("target") if self.is_demo else self.arrived or self.dataset,
            runtime=self.settings(RuntimeSettings),
            progress=Lines(sys.stdout, _LINE_EVERY_SECONDS),  # a notebook shows stderr in red,
        )

    def settings(self, settings: type[S]) -> S:
        """What holds for a stage: the declared defaults, the plan, the parameters cell, what was chosen in a form.

        Raises
        ------
        SettingsError
            When a value of the parameters cell does not fit.
        """
        start: dict[str, Any] = {}
        if settings is PrepareSettings:
            start |= {"holdout_minutes": _DEMO_HOLDOUT_MINUTES} if self.is_demo else {}
            start |= {} if count_gpus() and not self.is_demo else {"preset": "nano" if self.is_demo else "nano-24k"}
        if settings is SpeakSettings:
            start |= {"language": say("spoken_language")}
        planned = {name: value for name, (value, _) in self.planned.items() if value != "auto"}
        start |= {name: planned[name] for name in settings.model_fields if name in planned}
        given = {name: value for name, value in self.given.items() if name in settings.model_fields}
        return settings.of(**start | given | self.chosen.get(settings.__name__, {}))

    def take_settings(self, settings: type[S], values: Mapping[str, Any]) -> None:
        """Take the settings that a restored training had, where they fit and the parameters cell has none."""
        known = {name: value for name, value in values.items() if name in settings.model_fields.keys() - self.given}
        with contextlib.suppress(SettingsError):  # they come from a save
            settings.of(**known)
            self.chosen.setdefault(settings.__name__, known)
            self.save()

    def choose(self, value: Settings) -> None:
        """Take a choice as if it was made in a form."""
        self.chosen[type(value).__name__] = value.model_dump(mode="json")
        self.save()

    def form(self, settings: type[S]) -> Form[S]:
        """A form that begins with what holds now, and is remembered with every change."""
        before = replace(self, chosen={}).settings(settings)

        def remember(value: S) -> None:
            session = Session.load()
            session.chosen[settings.__name__] = {
                name: new for name, new in value.stamp().items() if new != before.stamp()[name]
            }
            session.save()

        reasons = {name: translated(reason) for name, (_, reason) in self.planned.items()}
        return Form(settings, self.settings(settings).model_dump(), remember, reasons)


def opened(
    name: str | float,
    dataset: str | float = "",
    songs: str | float = "",
    settings: Mapping[str, Any] | None = None,
) -> Session:
    """The session for these parameters; what forms were changed to is kept while the parameters stay the same.

    Recordings of which no voice was made yet are kept under a new name too: Prepare asks for one.

    Raises
    ------
    SettingsError
        When a setting is unknown or does not fit.
    """
    given = json.loads(json.dumps(dict(settings or {}), default=str))
    refuse_unknown(given, *_CLASSES)
    session = Session(text_of(name), text_of(dataset), text_of(songs), given=given)
    for one in _CLASSES:
        session.settings(one)
    try:
        before = Session.load()
    except (StageOrderError, SettingsError, TypeError):
        before = session
    if (before.name, before.given) == (session.name, session.given):
        session.chosen, session.voice = before.chosen, before.voice
        session.dataset, session.songs = session.dataset or before.dataset, session.songs or before.songs
    elif not before.is_demo and not before.is_in_use:
        session.dataset = session.dataset or before.dataset
    if (before.name, before.dataset) == (session.name, session.dataset):
        session.arrived, session.planned = before.arrived, before.planned
    session.save()
    return session


def all_chosen() -> list[str]:
    """Recordings that the notebooks of this machine have chosen."""
    chosen: list[str] = []
    for file in home().glob("notebook*.json"):
        content = read_or(file, dict[str, Any], {})
        chosen += [str(content.get(name, "")) for name in ("dataset", "arrived", "songs")]
    return chosen


def _file() -> Path:
    """What this notebook remembers: two notebooks on one machine do not share it where Jupyter says which is which."""
    notebook = os.environ.get("JPY_SESSION_NAME", "")
    return home() / (f"notebook-{slug_of(Path(notebook).stem)}-{signature(notebook)[:6]}.json" if notebook else _NEWEST)
