"""The cells after training: listen and choose, convert, export, clean up, and the recipe for a Job."""

import html
import re
import shlex
import shutil
import sys
from pathlib import Path
from typing import Any

from ..audio.recordings import find_recordings
from ..batch import TRAIN_SETTINGS
from ..embedded import voice_folder
from ..errors import SettingsError, StageOrderError, StorageError
from ..preparation.incoming import sources
from ..preparation.leftovers import bytes_of, leftovers, remove
from ..settings import ConvertSettings, PrepareSettings, RuntimeSettings, SpeakSettings
from ..song_settings import RepairSettings
from ..system.files import readable, slug_of, write_text
from ..system.platforms import detect, home, is_reachable
from ..training import detached
from ..workspace.layout import Layout
from . import tensorboard_server
from .cells import lab, mount_drive, originals_of
from .child import run_command
from .choosing import buttons, called, row
from .cleaning import repaired, show_figures, told
from .outcome import advice, failure_line
from .players import labelled, player, preview, show, shown_path
from .session import Session, all_chosen
from .texts import say, translated, warn

_MOST_PLAYED, _MOST_COMPARED = 6, 3


def voices(layout: Layout) -> list[Path]:
    """The saved voices, the recommended first, then the newest.

    Raises
    ------
    StageOrderError
        When nothing was trained yet.
    """
    saved = layout.voices()[::-1]
    if not saved:
        raise StageOrderError(f"{layout.name!r} has no voice yet", hint="run the cells Start and Watch")
    from ..verdict.overtraining import verdict_of_experiment

    best = verdict_of_experiment(layout).best
    first = Path(best.path).name if best and best.path else ""
    return sorted(saved, key=lambda path: path.name != first)


def listen() -> None:
    """Say which voice to take, and let those worth hearing say the same sentence, each with a button to take it."""
    from IPython.display import display

    session = Session.load()
    layout = session.lab.layout
    found = voices(layout)
    print(advice(verdict := session.lab.verdict()))
    for failure in verdict.failures:
        print(failure_line(failure))
    source = sorted(find_recordings(songs_of(session)[0]).recordings.values())[0]
    places = {Path(one.path).name: place for place, one in enumerate(verdict.candidates) if one.path}
    dated = [path for path in found if path != layout.final_voice or path.name in places]  # else it is one of them
    dated.sort(key=lambda path: places.get(path.name, len(found)))
    shown, taken = (dated or found)[:_MOST_COMPARED], chosen_voice(session)
    if taken not in shown:
        shown.append(taken)
    show(labelled(say("said_by_another"), preview(source)), "")
    for voice, button in zip(shown, buttons(shown, taken, layout), strict=True):
        [made] = converted(session, voice, [source], home() / "listen" / voice.stem, quiet=True)
        if "error" in made:
            warn(made["error"], made["hint"])
            continue
        page = row(
            voice, Path(made["output"]), layout, recommended=voice == found[0] and verdict.state != "cannot_tell"
        )
        show(page, called(voice, layout))
        display(button)
    print(say("without_a_click", voice=called(taken, layout)))


def choose(voice: str | int = "") -> None:
    """Take a voice for the cells below, by its epoch or its file name; empty: the recommended one."""
    layout = lab().layout
    found = {path.name: path for path in voices(layout)}
    by_epoch = {match[1]: name for name in found if (match := re.search(r"_e(\d+)_s\d+\.pth$", name))}
    voice = by_epoch.get(str(voice), str(voice))
    if voice and voice not in found:
        raise SettingsError(f"no voice {voice}", hint=f"there are the epochs {', '.join(by_epoch)}")
    Session.remember(voice=voice)
    print(say("chosen", voice=called(found[voice or next(iter(found))], layout)))


def convert() -> list[dict[str, Any]]:
    """Convert the recordings with the chosen voice, and play each beside its source."""
    session = Session.load()
    mount_drive(session.songs)
    voice, output = voice_in_use(session), home() / "converted" / readable(session.voice_name)
    made = converted(session, voice, songs_of(session), output)
    done = without_failures(made)
    for one in done[:_MOST_PLAYED]:
        for warning in one.get("warnings", []):
            print(f"! {Path(one['source']).name}: {translated(warning)}")
        play(Path(one["output"]).name, Path(one["source"]), Path(one["output"]))
    if unheard := done[_MOST_PLAYED:]:  # what is shown is saved in the notebook
        print(say("unplayed", count=len(unheard), folder=shown_path(Path(unheard[0]["output"]).parent)))
    return made


def speak() -> dict[str, Any]:
    """Speak the text in the chosen voice, and play it. Without an engine or a text file this says so, and goes on."""
    session = Session.load()
    speech, voice = session.settings(SpeakSettings), voice_in_use(session)
    text = speech.text.strip() or say("sample_text")
    if not text.lower().endswith((".txt", ".srt")):  # a process takes no text of any length
        write_text(file := home() / "speak" / "speech.txt", text)
        text = str(file)
    made = run_command(
        "speak",
        str(voice),
        "--output",
        str(home() / "spoken" / readable(session.voice_name)),
        failing=False,
        settings=(
            speech.model_copy(update={"text": text}),
            session.settings(ConvertSettings),
            session.settings(RuntimeSettings),
        ),
    )
    for one in made.get("failed", []):
        warn(one["error"], one["hint"], f"{one['text']}: ")
    if "output" not in made:
        warn(made["error"], made["hint"])
        return made
    for warning in made["warnings"]:
        print(f"! {translated(warning)}")
    print(say("spoken", engine=made["engine"], seconds=f"{made['seconds']:.0f}", path=shown_path(Path(made["output"]))))
    if words := made["words"]:
        print(say("heard", share=f"{100 * words['error_rate']:.0f}", own=f"{100 * words['engine_error_rate']:.0f}"))
        if words["unknown"]:
            print(say("unjudged", unknown=words["unknown"], words=words["words"] + words["unknown"]))
    output = Path(made["output"])
    show(player(say("after"), output.absolute(), preview(output)), str(output))
    return made


def voice_in_use(session: Session) -> Path:
    """The chosen voice, of which is said which one it is, and that it takes its owner's consent."""
    voice = chosen_voice(session)
    print(say("consent"))
    print(say("uses", voice=called(voice, session.lab.layout)))
    return voice


def without_failures(made: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The reports of what was made; of the others, the error and what to do is printed."""
    for one in made:
        if "error" in one:
            warn(one["error"], one["hint"], f"{shown_path(Path(one['source']))}: ")
    return [one for one in made if "error" not in one]


def songs_of(session: Session) -> list[Path]:
    """The recordings to convert, fetched and unpacked."""
    return sources(session.songs, "to convert", session.lab.progress) if session.songs else [voice_folder("source")]


def converted(
    session: Session, voice: Path, sources: list[Path], output: Path, *, quiet: bool = False
) -> list[dict[str, Any]]:
    """Convert in a process of its own; a file that fails is among the results, with its error."""
    files = [file for source in sources for file in sorted(find_recordings(source).recordings.values())]
    reports = run_command(
        "convert",
        str(voice),
        *map(str, files),
        "--output",
        str(output),
        failing=False,
        quiet=quiet,
        settings=(session.settings(ConvertSettings), session.settings(RuntimeSettings)),
    )["files"]
    return [{"source": str(file), **report} for file, report in zip(files, reports, strict=True)]


def export(download: bool = False) -> list[str]:
    """Write the chosen voice, its index and a card into one zip where this platform keeps it.

    Parameters
    ----------
    download : bool
        On Colab, send it to the browser too; needs somebody there.

    Raises
    ------
    StorageError
        When Drive was unmounted meanwhile.
    """
    session, here = Session.load(), detect()
    output = (here.storage if here.name == "colab" and here.storage else home()) / "exported"
    paths = run_command("export", str(chosen_voice(session)), "--layout", "zip", "--output", str(output))["paths"]
    if not is_reachable(output):
        raise StorageError(f"{output} went away while the voice was written", hint="run Begin, then this cell again")
    for path in paths:
        print(say("exported", path=path, size=f"{Path(path).stat().st_size / 1e6:.1f}"))
        if download and here.name == "colab":
            from google.colab import files

            files.download(path)
    return paths


def chosen_voice(session: Session) -> Path:
    """The saved voice that was taken, else the recommended one."""
    found = voices(session.lab.layout)
    return next((path for path in found if path.name == session.voice), found[0])


def play(title: str, source: Path, output: Path) -> None:
    """Two players, of the source and of what became of it: the same half minute, and the paths of the whole files."""
    converted = preview(output)
    players = player(say("before"), source.absolute(), preview(source, converted.start_seconds))
    players += player(say("after"), output.absolute(), converted)
    page = f'<b>{html.escape(title)}</b><div style="display:flex;flex-wrap:wrap;gap:12px">{players}</div>'
    show(page, f"{title}: {output.absolute()}")


def clean(repair: bool = False) -> None:
    """Repair copies of the recordings where a measurement asks for it, show both, and let the next Start take them.

    Without `repair` nothing is done, and nothing where no recording needs it.
    """
    session = Session.load()
    if not repair or session.is_demo:
        print(say("clean_demo" if repair else "clean_unasked"))
        return
    mount_drive(session.dataset)
    originals = originals_of(session)
    copies = told(made := repaired(session, originals))
    if not (changed := [one for one in made["recordings"] if one["repairs"]]):
        print(say("clean_unneeded"))
        return
    show_figures(made["recordings"])
    root = originals if originals.is_dir() else originals.parent
    for one in changed[:_MOST_PLAYED]:
        play(one["recording"], root / one["recording"], copies / one["output"])
    Session.load().choose(RepairSettings(repair=True))
    print(say("cleaned", folder=shown_path(copies)))


# -- the disk, and unattended ----------------------------------------------------------------------------------------
def clean_up(clips: bool = False, checkpoints: bool = False, recordings: bool = False, set_aside: bool = False) -> None:
    """End TensorBoard, also that of other voices; print what lies on the disk, and remove what is named.

    Parameters
    ----------
    clips : bool
        Clips and features: the cell Start makes them again.
    checkpoints : bool
        Training cannot go on without them; the voices stay.
    recordings : bool
        Uploads, and what was fetched and unpacked, that no voice here was made of and no notebook has chosen.
    set_aside : bool
        Trainings that `begin` moved aside, of all voices.

    Raises
    ------
    StageOrderError
        While the voice is being trained.
    ResourceError
        When something cannot be removed.
    """
    layout = lab().layout
    if tensorboard_server.stop(layout.root.parent):
        print(say("tensorboard_ended"))
    if (clips or checkpoints) and detached.is_running(layout):
        raise StageOrderError(f"{layout.name!r} is being trained", hint="run the cell Stop first")
    groups = {
        "clips": [path for path in layout.root.glob("*") if path.is_dir() and path.name != "incomplete"],
        "checkpoints": [*layout.root.glob("[GD]_*.pth"), *layout.root.glob("state_*.pt")],
        "voices": layout.voices(),
        "index": layout.indexes(),
    } | vars(leftovers(all_chosen()))
    for group, paths in groups.items():
        sizes = {path: bytes_of(path) for path in paths}
        print(f"{say(group):<30}{sum(sizes.values()) / 1e6:>10.1f} MB")
        if group in ("recordings", "set_aside"):
            for path, size in sizes.items():
                print(f"    {size / 1e6:.1f} MB  {path}")
    wanted = {"clips": clips, "checkpoints": checkpoints, "recordings": recordings, "set_aside": set_aside}
    lists = {"clips": [layout.filelist], "checkpoints": [layout.checkpoints]}  # of what goes
    freed = remove([path for name in wanted if wanted[name] for path in [*groups[name], *lists.get(name, [])]])
    print(say("disk", freed=f"{freed / 1e6:.1f}", free=f"{shutil.disk_usage(home()).free / 1e9:.1f}"))


def job() -> None:
    """Print how to train this voice, as the forms say, in a Job of Lightning.AI, which needs no open page."""
    session, project = Session.load(), shlex.quote(str(Path(__file__).parents[2]))
    given: dict[str, Any] = {}
    for one in TRAIN_SETTINGS:
        given |= session.settings(one).model_dump(exclude_defaults=True)
    dataset = voice_folder("target") if session.is_demo else originals_of(session)
    given |= {"name": session.voice_name, "dataset": str(dataset.absolute())}
    flags = " \\\n        ".join(
        f"-{'r' if isinstance(value, str) else 'p'} {name} {shlex.quote(str(value))}" for name, value in given.items()
    )
    python, preset = shlex.quote(sys.executable), given.get("preset", PrepareSettings().preset)
    weights = f"\n    {python} -m rvc_core.cli weights fetch {preset}" if preset.startswith("v") else ""
    print(f"""from lightning_sdk import Job, Machine
Job.run(name="rvc-{slug_of(session.voice_name).lower()}", machine=Machine.T4, command=r'''
    RVC_PYTHON={python} bash {project}/setup_env.sh{weights}
    timeout 3h {python} -m papermill {project}/notebooks/batch_train.ipynb "$LIGHTNING_ARTIFACTS_DIR/out.ipynb" \\
        -r result "$LIGHTNING_ARTIFACTS_DIR/train_result.json" {flags}
''')""")
