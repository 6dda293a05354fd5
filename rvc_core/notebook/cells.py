"""What the cells of the notebooks do: one function each. Each can be run again, in any order, also after a restart.

What computes on the GPU does so in a process of its own: the kernel keeps no GPU memory from the training.
"""

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from .. import errors
from ..assets import registry
from ..errors import DatasetError, ResourceError, SettingsError, StageOrderError, StorageError
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
from ..song_settings import RepairSettings
from ..storage import places
from ..system.files import slug_of
from ..system.installation import gpu_report
from ..system.platforms import DRIVE, detect, home, in_drive, is_reachable, session_minutes_left
from ..training import detached
from ..workspace.layout import Layout
from ..workspace.manifest import ExperimentRecord
from ..workspace.retention import checkpoint_rows
from . import tensorboard_server
from .child import run_command
from .cleaning import repaired, told
from .forms import Form, joined
from .recordings_form import RecordingsForm, tree_of
from .session import DEMO, Session, opened
from .texts import error_in_words, say, translated, warn
from .unattended import refuse_forgotten_recordings

_LISTED = 10  # saved voices in a message
errors.in_words = error_in_words


# -- install and begin ---------------------------------------------------------------------------------------------
def check(measure_gpu: bool = False) -> None:
    """Print versions, device and every problem with its remedy; on request, what training costs on this GPU.

    Raises
    ------
    ResourceError
        When there is a GPU that this torch has no code for.
    """
    _whole_words()
    report = run_command("check", failing=False)
    found = report["versions"]
    names = ("rvc_core", "python", "torch", "numpy", "ipywidgets", "faiss-cpu", "faiss-gpu")
    print(" · ".join(f"{name} {found[name]}" for name in names if found.get(name)))
    device = report["device"]
    print(
        say("computes", title=translated(device["title"]), reason=translated(device["reason"]))
        if device
        else say("no_torch")
    )
    for problem in report["problems"]:
        warn(problem["problem"], problem["hint"])
        if "not built for" in problem["problem"]:  # before anything is downloaded for it
            raise ResourceError(problem["problem"], hint=problem["hint"])
    if measure_gpu:
        print(gpu_report())


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
    StorageError
        When a path lies in Drive, and Drive cannot be mounted.
    """
    if not isinstance(settings or {}, Mapping):
        raise SettingsError("`settings` is not a table", hint='write it like this: {"epochs": 300}')
    given = {"mirror": place, **(settings or {})}
    mount_drive(dataset, songs, given["mirror"], home())  # before anything is written under its path
    session = opened(name, dataset, songs, given)
    refuse_forgotten_recordings(session.dataset, offered())
    mount_drive(session.dataset, session.songs)  # as remembered
    if begin_again:
        session.lab.begin_again()
    else:
        bring_back(session)
        made = Layout.of(session.name)
        if session.dataset == "" and session.name != DEMO and made.experiment.exists():
            Session.remember(dataset=ExperimentRecord.load(made).dataset)
        session = Session.load()
    layout = session.lab.layout
    left = session_minutes_left()
    print(state_of(layout, session))
    print(
        say("begun", name=session.voice_name, folder=layout.root, free=f"{shutil.disk_usage(home()).free / 1e9:.0f}")
        + (say("minutes_left", minutes=round(left)) if left is not None else "")
    )
    return session.lab


def _whole_words() -> None:
    """Let what is printed wrap between words: JupyterLab breaks inside them, which shows on a telephone."""
    from IPython import get_ipython
    from IPython.display import HTML, display

    if get_ipython() is not None:
        display(HTML("<style>.jp-RenderedText pre{word-break:normal!important;overflow-wrap:anywhere}</style>"))


def mount_drive(*paths: str | float | Path) -> None:
    """Mount Google Drive on Colab if a path lies there, or is ``auto``; again, if the mount no longer answers.

    Without Drive, ``auto`` saves nothing, and this is said. A path in Drive is an error.

    Raises
    ------
    StorageError
        When a path lies in Drive, and Drive is not mounted.
    """
    inside = [path for path in map(str, paths) if path != "auto" and in_drive(path)]
    if is_reachable(DRIVE) or not (inside or "auto" in paths):
        return
    why = f"it is only on Colab, and this is {detect().title}"
    if detect().name == "colab":
        from google.colab import drive
        from google.colab import errors as colab
        from pexpect import ExceptionPexpect  # through pexpect Colab talks to the program that mounts

        print(say("mounting"))
        try:
            drive.mount(DRIVE, force_remount=True)  # a mount that no longer answers goes first
            Path(DRIVE, "MyDrive", "rvc_core").mkdir(exist_ok=True)
            if is_reachable(DRIVE):
                return
            why = "Colab reported no error, but nothing is mounted there"
        except (colab.Error, ExceptionPexpect, ValueError, RuntimeError, OSError) as error:
            why = str(error) or type(error).__name__
        if not inside:
            print(say("refused", why=translated(why)))
    if inside:
        raise StorageError(
            f"Drive is not mounted ({why}), and {inside[0]} lies there",
            hint="run this cell again and allow it, or give a path outside of Drive",
        )


def bring_back(session: Session) -> None:
    """Bring back what was saved of this voice, by its name, where this machine has less of it."""
    place, name = session.settings(MirrorSettings).mirror, DEMO if session.dataset == DEMO else session.name
    layout = Layout.of(name)
    if place == "none" or detached.is_running(layout):
        return
    try:
        if name in {save.name for save in places.find_saved(place)}:
            save = places.restore(name, place)
            if save.folder != layout.root:
                print(say("restored", name=save.name, place=save.place, epoch=save.epoch))
                session.take_settings(TrainSettings, save.settings)
    except StorageError as error:
        warn(str(error), error.hint)


def state_of(layout: Layout, session: Session) -> str:
    """How far a voice is, and which cell comes next."""
    if detached.is_running(layout):
        return say("is_training", name=layout.name)
    if layout.checkpoints.exists():
        epoch = max((row["epoch"] for row in checkpoint_rows(layout)), default=0)
        return say("to_continue", name=layout.name, epoch=epoch)
    if layout.filelist.is_file():
        return say("is_prepared", name=layout.name)
    if session.is_demo:
        return say("is_demo", name=session.name, demo=layout.name)
    return say("is_new_with", name=layout.name, dataset=session.dataset)


def lab() -> Experiment:
    """The voice that was begun last on this machine.

    Raises
    ------
    StageOrderError
        When there is none. Saved voices are listed: none is restored before somebody asks for it by name.
    """
    mount_drive(home())
    try:
        return Session.load().lab
    except StageOrderError:
        mount_drive("auto")
        if not (saves := places.find_saved()):
            raise
        listed = ", ".join(f"{save.name} (epoch {save.epoch})" for save in saves[:_LISTED])
        raise StageOrderError(
            f"no voice was begun on this machine; saved are: {listed}",
            hint="write one of these names into the cell What to make, run it, then run the cell Begin",
        ) from None


# -- recordings ----------------------------------------------------------------------------------------------------
def recordings() -> RecordingsForm:
    """The form that asks for the recordings to learn from."""
    session = Session.load()
    mount_drive(session.dataset)
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
    place, session = home() / "recordings" / "to convert" / "uploads", Session.load()
    mount_drive(session.songs)
    return RecordingsForm(
        session.songs, place, lambda path: Session.remember(songs=path), "songs_hint", "embedded_songs"
    )


def with_recordings() -> Session:
    """The session, its recordings on this machine: links are fetched, archives unpacked, faults repaired if wanted."""
    session = Session.load()
    mount_drive(session.dataset)
    if not session.is_demo:
        arrived = originals_of(session)
        if session.settings(RepairSettings).repair:
            arrived = told(repaired(session, arrived))
        Session.remember(arrived=str(arrived))
    return Session.load()


def originals_of(session: Session) -> Path:
    """The recordings to learn from, fetched and unpacked, before any repair."""
    return brought(session.dataset, session.name, session.lab.progress)


def with_recordings_or_clips() -> tuple[Session, bool]:
    """The session, and whether its recordings are on this machine; they may be gone once its clips were cut."""
    try:
        return with_recordings(), True
    except DatasetError:
        session = Session.load()
        if not (session.lab.layout.filelist.is_file() and session.is_in_use):
            raise
        return session, False


# -- forms and stages ----------------------------------------------------------------------------------------------
def form(*settings: type[Settings]) -> list[Form[Any]]:
    """Show one form for these settings classes; what it is changed to is remembered."""
    from IPython.display import display

    made = [Session.load().form(one) for one in settings]
    display(joined(made))
    return made


def prepare() -> None:
    """Cut the recordings into clips, find pitch and content, build the index: what is up to date is skipped.

    Nothing is done while the voice is being trained, or when its recordings are gone and their clips are here.
    """
    session = Session.load()
    if detached.is_running(session.lab.layout):
        return
    session, are_here = with_recordings_or_clips()
    if not are_here:
        print(say("is_prepared", name=session.voice_name))
        return
    lab = session.lab
    wanted = session.settings(PrepareSettings)
    needed = registry.choose([wanted.preset]) if wanted.preset.startswith("v") else []
    if any(registry.find(one.name) is None for one in needed):
        run_command("weights", "fetch", wanted.preset)
    made = lab.prepare(wanted)
    print(say("prepared", count=made.clips, minutes=f"{made.seconds_kept / 60:.1f}", of=f"{made.seconds_in / 60:.1f}"))
    for reason, seconds in made.explained.items():
        if seconds >= 0.1:
            print(f"  {seconds:.1f} s: {translated(reason)}")
    extracted = run_command(
        "extract",
        "--",
        session.voice_name,
        settings=(session.settings(ExtractSettings), session.settings(RuntimeSettings)),
    )
    index = lab.build_index(session.settings(IndexSettings))
    print(say("extracted", done=extracted["done"], skipped=extracted["skipped"], vectors=index.vectors))
    for warning in [*made.warnings, *extracted["warnings"]]:
        print(f"! {translated(warning)}")


def start() -> None:
    """Begin the training in the background, or continue it."""
    lab()  # on a fresh machine, says what is saved
    session, _ = with_recordings_or_clips()
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


def is_other_dataset(lab: Experiment) -> bool:
    """Whether the recordings that are chosen now are not those of which the clips were cut."""
    record = ExperimentRecord.load(lab.layout)
    return lab.dataset is not None and Path(record.dataset) != lab.dataset.absolute() and lab.dataset.exists()


def stop() -> None:
    """Let the training save and end, and end TensorBoard."""
    layout = lab().layout
    print(say("stopping" if detached.stop(layout) else "not_training", name=layout.name))
    if tensorboard_server.stop(layout.root):
        print(say("tensorboard_ended"))


def watch_training() -> None:
    """Show the training until it ends."""
    from .watching import watch

    watch(lab())
