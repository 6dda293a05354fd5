"""What the cells of the notebooks do: one function each. Each can be run again, in any order, also after a restart.

What computes on the GPU does so in a process of its own: the kernel keeps no GPU memory from the training.
"""

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..assets import registry
from ..errors import DatasetError, ResourceError, RVCError, StageOrderError, StorageError
from ..experiment import Experiment
from ..preparation.incoming import brought, new_set
from ..preparation.preview import offered
from ..settings import (
    ExtractSettings,
    IndexSettings,
    MirrorSettings,
    PrepareSettings,
    RuntimeSettings,
    Settings,
    TrainSettings,
)
from ..storage import places
from ..system.files import read_json, slug_of
from ..system.platforms import detect, home, session_minutes_left
from ..training import detached
from ..workspace.layout import Layout
from ..workspace.manifest import ExperimentRecord
from .child import run_command
from .forms import Form
from .recordings_form import RecordingsForm, tree_of
from .session import DEMO, Session, opened
from .texts import say
from .unattended import refuse_forgotten_recordings

_DRIVE = "/content/drive"


# -- install and begin ---------------------------------------------------------------------------------------------
def check() -> None:
    """Print versions, device and every problem with its remedy.

    Raises
    ------
    ResourceError
        When there is a GPU that this torch has no code for.
    """
    report = run_command("check", failing=False)
    found = {name: version for name, version in report["versions"].items() if version}
    print(
        " · ".join(
            f"{name} {found[name]}"
            for name in ("rvc_core", "python", "torch", "numpy", "ipywidgets", "faiss-cpu", "faiss-gpu")
            if name in found
        )
    )
    device = report["device"]
    print(say("computes", title=device["title"], reason=device["reason"]) if device else say("no_torch"))
    for problem in report["problems"]:
        print(f"! {problem['problem']}\n  → {problem['hint']}")
        if "not built for" in problem["problem"]:  # before anything is downloaded for it
            raise ResourceError(problem["problem"], hint=problem["hint"])


def begin(
    name: str,
    dataset: str = "",
    songs: str = "",
    place: str = "auto",
    settings: Mapping[str, Any] | None = None,
    *,
    begin_again: bool = False,
) -> Experiment:
    """Open a voice: storage is mounted, and what was saved of the voice elsewhere comes back.

    Parameters
    ----------
    begin_again : bool
        Move what was trained under this name to a folder beside it, and begin from nothing.

    Raises
    ------
    SettingsError
        When a setting is unknown or does not fit.
    DatasetError
        When nobody watches, no dataset is given, and recordings are attached.
    """
    session = opened(name, dataset, songs, {"mirror": place, **(settings or {})})
    refuse_forgotten_recordings(session.dataset, offered())
    if place == "auto":
        mount_drive()
    if begin_again:
        session.lab.begin_again()
    else:
        bring_back(session)
        session = with_known_dataset(session)
    layout = session.lab.layout
    left = session_minutes_left()
    print(
        say("begun", name=session.voice_name, folder=layout.root, free=f"{shutil.disk_usage(home()).free / 1e9:.0f}")
        + (say("minutes_left", minutes=round(left)) if left is not None else "")
    )
    print(state_of(layout))
    return session.lab


def mount_drive() -> None:
    """On Colab, mount Google Drive; when it is refused, say what that means and go on without."""
    if detect().name != "colab" or detect().storage:
        return
    from google.colab import drive
    from google.colab import errors as colab
    from pexpect import ExceptionPexpect  # through pexpect Colab talks to the program that mounts

    print(say("mounting"))
    try:
        drive.mount(_DRIVE)
        Path(_DRIVE, "MyDrive", "rvc_core").mkdir(exist_ok=True)
    except (colab.Error, ExceptionPexpect, ValueError, RuntimeError, OSError) as error:
        print(say("refused", why=str(error) or type(error).__name__))


def bring_back(session: Session) -> None:
    """Bring back what was saved of this voice, where this machine has less of it."""
    place, name = session.settings(MirrorSettings).mirror, DEMO if session.dataset == DEMO else session.name
    layout = Layout.of(name)
    if place == "none" or detached.is_running(layout):
        return
    try:
        if name in {save.name for save in places.find_saved(place)}:
            save = places.restore(name, place)
            if save.folder != layout.root:
                print(say("restored", name=save.name, place=save.place, epoch=save.epoch))
    except StorageError as error:
        print(f"! {error}\n  → {error.hint}")


def with_known_dataset(session: Session) -> Session:
    """The session; with no dataset given, that of the experiment of this name, if there is one."""
    layout = Layout.of(session.name)
    if session.dataset == "" and session.name != DEMO and layout.experiment.exists():
        Session.remember(dataset=ExperimentRecord.load(layout).dataset)
    return Session.load()


def state_of(layout: Layout) -> str:
    """How far a voice is, and which cell comes next."""
    if detached.is_running(layout):
        return say("is_training", name=layout.name)
    if layout.checkpoints.exists():
        rows = read_json(layout.checkpoints, "restore it from a copy of the experiment")
        return say("to_continue", name=layout.name, epoch=max((row["epoch"] for row in rows), default=0))
    return say("is_prepared", name=layout.name) if layout.filelist.is_file() else say("is_new", name=layout.name)


def lab() -> Experiment:
    """The voice that was begun last on this machine; on a fresh one, the newest that was saved elsewhere.

    Raises
    ------
    StageOrderError
        When there is neither.
    """
    try:
        return Session.load().lab
    except StageOrderError:
        mount_drive()
        saves = places.find_saved()
        if not saves:
            raise
        known = TrainSettings.model_fields.keys() & saves[0].settings
        session = opened(saves[0].name, settings={name: saves[0].settings[name] for name in known})
        bring_back(session)
        return with_known_dataset(session).lab


# -- recordings ----------------------------------------------------------------------------------------------------
def recordings() -> RecordingsForm:
    """The form that asks for the recordings to learn from."""
    session = Session.load()
    return RecordingsForm(session.dataset, _uploads(session), lambda path: Session.remember(dataset=path))


def upload(wanted: bool = False) -> None:
    """On Colab, let the browser send files into a folder of their own, and take that as the recordings."""
    if not wanted:
        return
    from google.colab import files

    folder = new_set(_uploads(Session.load()))
    if files.upload(str(folder)):
        Session.remember(dataset=str(folder))
        print(tree_of(folder))
    else:
        folder.rmdir()


def _uploads(session: Session) -> Path:
    return home() / "recordings" / slug_of(session.name) / "uploads"


def songs() -> RecordingsForm:
    """The form that asks for the recordings to convert."""
    place = home() / "recordings" / "to convert" / "uploads"
    return RecordingsForm(Session.load().songs, place, lambda path: Session.remember(songs=path))


def report() -> None:
    """Bring the recordings here, print the tree that was understood, and what they are like."""
    lab = with_recordings().lab
    assert lab.dataset is not None
    print(tree_of(lab.dataset))
    print(lab.inspect())


def with_recordings() -> Session:
    """The session, its recordings on this machine: links are fetched, archives unpacked."""
    session = Session.load()
    if not session.is_demo:
        Session.remember(arrived=str(brought(session.dataset, session.name, session.lab.progress)))
    return Session.load()


# -- forms and stages ----------------------------------------------------------------------------------------------
def form(*settings: type[Settings]) -> list[Form[Any]]:
    """Show a form for each settings class; what they are changed to is remembered."""
    from IPython.display import display

    made = [Session.load().form(one) for one in settings]
    for form in made:
        display(form)
    return made


def prepare() -> None:
    """Cut the recordings into clips, find pitch and content, build the index: what is up to date is skipped."""
    session = with_recordings()
    lab = session.lab
    wanted = session.settings(PrepareSettings)
    needed = registry.choose([wanted.preset]) if wanted.preset.startswith("v") else []
    if any(registry.find(one.name) is None for one in needed):
        run_command("weights", "fetch", wanted.preset)
    made = lab.prepare(wanted)
    print(say("prepared", clips=made.clips, minutes=f"{made.seconds_kept / 60:.1f}", of=f"{made.seconds_in / 60:.1f}"))
    for reason, seconds in made.explained.items():
        if seconds >= 0.1:
            print(f"  {seconds:.1f} s: {reason}")
    extracted = run_command(
        "extract", session.voice_name, settings=(session.settings(ExtractSettings), session.settings(RuntimeSettings))
    )
    index = lab.build_index(session.settings(IndexSettings))
    print(say("extracted", done=extracted["done"], skipped=extracted["skipped"], vectors=index.vectors))
    for warning in [*made.warnings, *extracted["warnings"]]:
        print(f"! {warning}")


def start() -> None:
    """Begin the training, or go on with it, in the background; on a fresh machine, from what was saved elsewhere."""
    lab()  # on a fresh machine, brings back what was saved elsewhere
    session = Session.load()
    try:
        session = with_recordings()
    except DatasetError:
        if not is_prepared_from(session):
            raise
    lab_ = session.lab
    print(say("consent"))
    if not lab_.layout.filelist.is_file() or is_other_dataset(lab_):
        prepare()
    begun = detached.start(
        lab_.layout,
        session.settings(TrainSettings),
        session.settings(RuntimeSettings),
        mirror=session.settings(MirrorSettings),
    )
    print(say("started" if begun else "is_training", name=session.voice_name))


def is_prepared_from(session: Session) -> bool:
    """Whether the clips are of the very recordings that are chosen, which may be gone by now."""
    layout = session.lab.layout
    if not layout.filelist.is_file():
        return False
    chosen = {session.dataset, session.arrived, str(Path(session.dataset).expanduser().absolute())}
    return ExperimentRecord.load(layout).dataset in chosen


def is_other_dataset(lab: Experiment) -> bool:
    """Whether the recordings that are chosen now are not those of which the clips were cut."""
    record = ExperimentRecord.load(lab.layout)
    return lab.dataset is not None and Path(record.dataset) != lab.dataset.absolute() and lab.dataset.exists()


def stop() -> None:
    """Let the training save and end."""
    layout = lab().layout
    print(say("stopping" if detached.stop(layout) else "not_training", name=layout.name))


class Unwatched(RVCError):
    """Somebody interrupted the watching: an error, so that Run all does not go on to the cell that ends training."""


def watch_training() -> None:
    """Show the training until it ends.

    Raises
    ------
    Unwatched
        When this is interrupted; training goes on.
    RVCError
        As training did.
    """
    from .watching import watch

    lab_ = lab()
    watch(lab_)
    if detached.is_running(lab_.layout):
        raise Unwatched(say("unwatched"))
