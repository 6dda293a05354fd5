"""The commands that prepare, train, convert and measure."""

import argparse
import shlex
from argparse import SUPPRESS
from pathlib import Path
from typing import Any

from ..conversion.naming import (
    ensure_folder,
    is_file_name,
    outputs_for,
    refuse_missing,
    refuse_output,
    refuse_song,
    refuse_speech,
)
from ..conversion.script import read_script
from ..conversion.speakers import refuse_engine
from ..errors import SettingsError
from ..experiment import Experiment
from ..preparation.incoming import brought
from ..settings import (
    ConvertSettings,
    ExtractSettings,
    IndexSettings,
    MirrorSettings,
    PrepareSettings,
    RuntimeSettings,
    SeparateSettings,
    Settings,
    SpeakSettings,
    TrainSettings,
)
from ..song_settings import SongSettings
from ..voice import FailedFile, Voice
from ..workspace.layout import typed
from .arguments import (
    INDEX,
    RECORDINGS,
    Option,
    Result,
    complain,
    existing_experiment,
    experiment_of,
    inputs_of,
    named,
    progress_of,
    refuse_swapped,
    settings_of,
    summary_of,
    voice_of,
)

SETTINGS_OF: dict[str, tuple[type[Settings], ...]] = {
    "plan": (PrepareSettings,),
    "prepare": (PrepareSettings,),
    "extract": (ExtractSettings,),
    "train": (TrainSettings, MirrorSettings),
    "index": (IndexSettings,),
    "convert": (ConvertSettings,),
    "speak": (SpeakSettings, ConvertSettings),
    "separate": (SeparateSettings,),
    "clean": (SeparateSettings,),
    "song": (SongSettings, ConvertSettings, SeparateSettings),
    "f0": (),
    "evaluate": (ConvertSettings,),
    "run": (PrepareSettings, ExtractSettings, TrainSettings, IndexSettings, MirrorSettings),
}


def _begun(arguments: argparse.Namespace) -> Experiment:
    """The experiment, begun from nothing if that was asked for."""
    lab = experiment_of(arguments) if arguments.dataset else existing_experiment(arguments)
    if arguments.begin_again and (aside := lab.begin_again()):
        lab.progress.say(f"the old {lab.layout.name!r} lies in {aside} now")
    return lab


def _plan(arguments: argparse.Namespace) -> Result:
    lab = experiment_of(arguments) if arguments.dataset else existing_experiment(arguments)
    made = lab.plan(arguments.minutes, settings_of(PrepareSettings, arguments))
    if arguments.json:
        return made.as_json()
    print(made)
    return {}


def _prepare(arguments: argparse.Namespace) -> Result:
    return _begun(arguments).prepare(settings_of(PrepareSettings, arguments)).as_json()


def _extract(arguments: argparse.Namespace) -> Result:
    return existing_experiment(arguments).extract(settings_of(ExtractSettings, arguments)).as_json()


def _train(arguments: argparse.Namespace) -> Result:
    from ..training import detached

    settings, lab = settings_of(TrainSettings, arguments), existing_experiment(arguments)
    mirror = settings_of(MirrorSettings, arguments)
    if arguments.until is not None and not arguments.on_everything:
        raise SettingsError("--until belongs to --on-everything", hint="to train this voice, use --epochs")
    if arguments.on_everything:
        best = lab.verdict().best
        epochs = arguments.until or (best.epoch if best else settings.epochs)
        settings, lab = settings.model_copy(update={"epochs": max(1, epochs)}), lab.on_everything()
    if arguments.foreground:
        return _or_interrupted(lab.train(settings, mirror=mirror).as_json())
    if not detached.start(lab.layout, settings, lab.runtime, mirror=mirror):
        own = detached.differing(lab.layout, settings)
        lab.progress.say(
            "this voice is already being trained" + (f"; your {', '.join(own)} will not be used" if own else "")
        )
    return _watched(lab)


def _or_interrupted(trained: Result, report: Result | None = None) -> Result:
    """The report; after Ctrl-C with the error that every interrupted command has, as training itself saves and ends."""
    told: Result = {
        "error": "interrupted; training is saved",
        "hint": "run the same command again to continue",
        "failed_command": True,
    }
    return {**(report or trained), **(told if trained["stopped_by"] == "interrupt" else {})}


def _watched(lab: Experiment) -> Result:
    """Follow the background training and return its report. Ctrl-C stops following, not training."""
    from ..training import detached

    try:
        return detached.watch(lab.layout, lab.progress)
    except KeyboardInterrupt:
        return {
            "running": True,
            "log": str(lab.layout.log),
            "to_see_it": f"rvc train {typed(lab.layout.name)}",
            "to_end_it": f"rvc stop {typed(lab.layout.name)}",
        }


def _stop(arguments: argparse.Namespace) -> Result:
    from ..training import detached

    lab = existing_experiment(arguments)
    return _watched(lab) if detached.stop(lab.layout) else {"running": False}


def _pin(arguments: argparse.Namespace) -> Result:
    from ..workspace.retention import pin

    lab = existing_experiment(arguments)
    return {"pinned": pin(lab.layout, arguments.step)}


def _index(arguments: argparse.Namespace) -> Result:
    return existing_experiment(arguments).build_index(settings_of(IndexSettings, arguments)).as_json()


def _run(arguments: argparse.Namespace) -> Result:
    report = _begun(arguments).run(*(settings_of(settings, arguments) for settings in SETTINGS_OF["run"]))
    return _or_interrupted(report["train"], report)


def _refuse(arguments: argparse.Namespace, settings: ConvertSettings) -> None:
    """Fail before any work if a file that is named is not there, or the results cannot be written."""
    if is_file_name(arguments.output):
        refuse_output(output := Path(arguments.output), settings)
        ensure_folder(output.parent)
    else:
        refuse_output(Path(f"a.{settings.output_format}"), settings)
        ensure_folder(arguments.output)
    refuse_missing(settings, arguments.voice, index=arguments.index)


def _speak(arguments: argparse.Namespace) -> Result:
    settings, speech = settings_of(ConvertSettings, arguments), settings_of(SpeakSettings, arguments)
    refuse_swapped(arguments, arguments.voice, [arguments.said or ""])
    _refuse(arguments, settings)
    if arguments.said and speech.text:
        raise SettingsError("`text` has no effect: the text was given before it", hint="leave out one of them")
    text = arguments.said or speech.text
    refuse_speech(read_script(text), speech, settings)
    refuse_engine(speech)
    result = voice_of(arguments.voice, arguments).speak(
        text, speech, settings, output=arguments.output, progress=progress_of(arguments)
    )
    for one in result.failed:
        complain(f"{one['text']}: {one['error']}", one["hint"])
    report = result.as_json()
    if result.failed:
        count = f"{len(result.failed)} of {len(result.failed) + len(result.spoken)} sentences failed"
        report |= {"error": count, "hint": "the others are in the result", "failed_command": True}
    return report


def _convert(arguments: argparse.Namespace) -> Result:
    settings = settings_of(ConvertSettings, arguments)
    refuse_swapped(arguments, arguments.voice, arguments.inputs)
    _refuse(arguments, settings)
    inputs = inputs_of(arguments.inputs, Path(arguments.output), progress_of(arguments))
    made: list[Any] = []
    if files := [one for one in inputs if isinstance(one, Path)]:
        outputs_for(files, arguments.output, "", settings)
        voice = voice_of(arguments.voice, arguments)
        made = voice.convert_all(files, arguments.output, settings, progress=progress_of(arguments))
    in_turn = iter(made)
    return summary_of([next(in_turn) if isinstance(one, Path) else one for one in inputs])


def _song(arguments: argparse.Namespace) -> Result:
    parts, songs = [_part_and_voice(text) for text in arguments.voice], list(arguments.songs)
    named_voices = dict(parts)
    if len(named_voices) < len(parts):
        raise SettingsError("a part is named twice", hint="write: --voice NAME=lead --voice NAME=backing")
    if str(swallowed := getattr(arguments, "preview", True)).lower() not in ("true", "false"):
        left = {"--preview", f"--preview={swallowed}"} | (set() if Path(str(swallowed)).exists() else {swallowed})
        words = [*(word for word in arguments.typed if word not in left), "--preview"]
        raise SettingsError(f"--preview takes no value, not {swallowed!r}", hint=f"write: rvc {shlex.join(words)}")
    lead = named_voices.get("lead") or songs.pop(0)
    if not songs:
        raise SettingsError("no song was given", hint="write: rvc song VOICE SONG")
    if "lead" not in named_voices:
        refuse_swapped(arguments, lead, songs)
    song, convert, separate = (settings_of(one, arguments) for one in SETTINGS_OF["song"])
    refuse_missing(convert, lead, *filter(None, [backing := named_voices.get("backing")]), index=arguments.index)
    ensure_folder(arguments.output, writes_formats=True)
    refuse_song(output := Path(arguments.output), convert, song, has_backing=bool(backing))
    inputs, made = inputs_of(songs, output, progress_of(arguments)), list[Any]()
    if files := [one for one in inputs if isinstance(one, Path)]:
        voice = voice_of(lead, arguments)
        second = Voice.load(backing, runtime=settings_of(RuntimeSettings, arguments)) if backing else None
        made += voice.sing_all(files, output, song, convert, separate, backing=second, progress=progress_of(arguments))
    return summary_of([*made, *(one for one in inputs if isinstance(one, FailedFile))])


def _part_and_voice(text: str) -> tuple[str, str]:
    voice, _, part = text.rpartition("=")
    if part not in ("lead", "backing") or not voice:
        raise SettingsError(
            f"--voice {text} does not name a part", hint="write: --voice NAME=lead --voice NAME=backing"
        )
    return part, voice


def _clean(arguments: argparse.Namespace) -> Result:
    from ..preparation.repair import repair

    separation, runtime = settings_of(SeparateSettings, arguments), settings_of(RuntimeSettings, arguments)
    ensure_folder(arguments.output)
    progress = progress_of(arguments)
    dataset = brought(arguments.dataset, "repair", progress)
    report = repair(dataset, arguments.output, separation, runtime=runtime, progress=progress)
    failure = (
        {
            "error": f"{len(report.failed)} recordings could not be read: {report.failed[0]['error']}",
            "hint": report.failed[0]["hint"],
            "failed_command": True,
        }
        if report.failed
        else {}
    )
    if arguments.json:
        return report.as_json() | failure
    print(report)
    return failure


def _demo(arguments: argparse.Namespace) -> Result:
    from .demo import demo

    ensure_folder(arguments.output)
    report = demo(Path(arguments.output), progress=progress_of(arguments))
    failure = {
        "error": "; ".join(report.failures),
        "hint": f"look at {report.picture} and listen to {report.output}",
        "failed_command": True,
    }
    return report.as_json() | (failure if report.failures else {})


_TRAINED: tuple[Option, ...] = (
    named("--foreground", "Train in this process: Ctrl-C then stops training.", action="store_true"),
    named(
        "--on-everything",
        "Train a second voice, 'NAME everything', from the start, with the held-out recordings too.",
        action="store_true",
    ),
    named(
        "--until",
        "Last epoch of --on-everything. Default: the epoch of the best voice by the verdict.",
        type=int,
        metavar="EPOCH",
    ),
)
_NAME = named("name", "Name of the experiment, in any script.", metavar="NAME")
_AGAIN = "Move what was trained under this name aside, and begin anew."
_DATASET = (
    named("--dataset", f"Recordings: {RECORDINGS}.", metavar="PLACE"),
    named("--begin-again", _AGAIN, action="store_true"),
)
COMMANDS: dict[str, tuple[Any, ...]] = {
    "demo": (
        _demo,
        "Train a voice and convert with it, using recordings inside the package.",
        named("--output", "Folder for the results. Default: demo.", default="demo", metavar="DIR"),
    ),
    "plan": (
        _plan,
        "Plan a training for these recordings and this machine, with reasons. A preset that you give stays.",
        _NAME,
        _DATASET[0],
        named(
            "--minutes",
            "Time for training. Default: until the session ends, or as long as it takes.",
            type=float,
            metavar="MINUTES",
        ),
    ),
    "prepare": (_prepare, "Cut recordings into clips.", _NAME, *_DATASET),
    "extract": (_extract, "Compute pitch and content features of every clip.", _NAME),
    "index": (_index, "Build the index of content features.", _NAME),
    "train": (
        _train,
        "Start or resume training and follow it. Ctrl-C stops following, not training.",
        _NAME,
        *_TRAINED,
    ),
    "stop": (_stop, "Save and stop the training of a voice.", _NAME),
    "pin": (
        _pin,
        "Keep the checkpoint and the voice of a step permanently.",
        _NAME,
        named("step", "The number in G_STEP.pth.", metavar="STEP", type=int),
    ),
    "run": (_run, "Prepare, extract, index and train.", _NAME, *_DATASET),
    "convert": (
        _convert,
        "Convert recordings with a voice.",
        named("voice", "A .pth, or the name of an experiment.", metavar="VOICE"),
        named("inputs", f"Recordings: each {RECORDINGS}.", metavar="INPUT", nargs="+"),
        named(
            "--output",
            "Folder for the results; for one recording also a file, as song.mp3. Default: converted.",
            default="converted",
            metavar="PLACE",
        ),
        INDEX,
    ),
    "clean": (
        _clean,
        "Write repaired copies of recordings: without accompaniment, reverb, noise, hum and offset, where measured.",
        named("dataset", RECORDINGS, metavar="PLACE"),
        named("--output", "Folder for the copies. Default: repaired.", default="repaired", metavar="DIR"),
    ),
    "speak": (
        _speak,
        "Speak a text in a voice.",
        named("voice", "A .pth, or the name of an experiment.", metavar="VOICE"),
        named("said", "The text in quotes, or a .txt or .srt with it.", metavar="TEXT", nargs="?"),
        named(
            "--output",
            "Folder for the result, or a file, as news.mp3. Default: converted.",
            default="converted",
            metavar="PLACE",
        ),
        INDEX,
    ),
    "song": (
        _song,
        "Let a voice sing songs: separate, convert the vocals, mix. Every stem is kept.",
        named(
            "songs", f"A voice (.pth or experiment), then songs: each {RECORDINGS}.", metavar="VOICE SONG", nargs="+"
        ),
        named(
            "--voice",
            "Name voices by part instead: --voice alice=lead --voice bob=backing. All that follows is songs.",
            action="append",
            default=[],
            metavar="NAME=PART",
        ),
        named("--output", "Folder for the results. Default: songs.", default="songs", metavar="DIR"),
        named("--preview", SongSettings.model_fields["preview"].description, nargs="?", const="true", default=SUPPRESS),
        INDEX,
    ),
}
