"""The cell Settings: what the recordings are like, and the plan that fills the form below."""

from dataclasses import replace
from pathlib import Path

from ..batch import TRAIN_SETTINGS
from ..preparation.survey import DatasetReport
from ..settings import PrepareSettings, RuntimeSettings, TrainSettings
from ..training.plan import plan_of
from .cells import with_recordings, with_recordings_or_clips
from .recordings_form import tree_of
from .session import Session
from .survey_cards import cards, lines_of
from .texts import label_of, say, translated

_BESIDE = ("training_minutes", "sessions", "recordings", "verdict")  # what a plan says beside settings


def report() -> None:
    """Bring the recordings here, print the tree that was understood, and what they are like."""
    lab = with_recordings().lab
    assert lab.dataset is not None
    print(tree_of(lab.dataset))
    _told(lab.inspect(), lab.dataset)


def plan(minutes: float = 0) -> None:
    """Say what the recordings are like and how to train them here, and fill the form with it.

    Parameters
    ----------
    minutes : float
        The time that you have. 0: until the session ends.
    """
    session, are_here = with_recordings_or_clips()
    lab = session.lab
    if are_here and lab.dataset is not None:
        print(tree_of(lab.dataset))
    fresh = replace(session, planned={})  # without what an earlier plan said
    own = fresh.settings(PrepareSettings)
    if not session.is_demo:
        chosen = {*session.given, *session.chosen.get("PrepareSettings", {})}
        own = PrepareSettings(**{name: value for name, value in own if name in chosen})
    time = minutes or fresh.settings(TrainSettings).max_minutes
    survey, made = plan_of(
        lab.layout,
        lab.dataset if are_here else None,
        time,
        own,
        runtime=fresh.settings(RuntimeSettings),
        progress=lab.progress,
    )
    if survey and lab.dataset is not None:
        _told(survey, lab.dataset)
    print(f"\n{say('plan')}")
    for line in made.lines:
        name = say(f"plan_{line.setting}") if line.setting in _BESIDE else label_of(line.setting)
        print(f"  {name}: {line.value} · {translated(line.reason)} ({line.source.partition('#')[0]})")
    known = {name for settings in TRAIN_SETTINGS for name in settings.model_fields}
    Session.remember(planned={one.setting: [one.value, one.reason] for one in made.lines if one.setting in known})


def _told(found: DatasetReport, dataset: Path) -> None:
    """Show a survey: its lines, then pictures and players of the worst problems."""
    from IPython.display import HTML, display

    print("\n".join(lines_of(found)))
    if shown := cards(dataset, found):
        display(HTML(shown))
