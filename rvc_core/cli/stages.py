"""The commands that prepare, train, convert and measure."""

import argparse
import sys
from pathlib import Path
from typing import Any

from ..errors import SettingsError
from ..experiment import Experiment
from ..progress import Silent, Terminal
from ..settings import (
    ConvertSettings,
    ExtractSettings,
    IndexSettings,
    MirrorSettings,
    PrepareSettings,
    RuntimeSettings,
    Settings,
    TrainSettings,
)
from ..voice import FailedFile, Voice

Result = dict[str, Any]
Option = tuple[str, dict[str, Any]]

SETTINGS_OF: dict[str, tuple[type[Settings], ...]] = {
    "prepare": (PrepareSettings,),
    "extract": (ExtractSettings,),
    "train": (TrainSettings, MirrorSettings),
    "index": (IndexSettings,),
    "convert": (ConvertSettings,),
    "f0": (),
    "evaluate": (ConvertSettings,),
    "run": (PrepareSettings, ExtractSettings, TrainSettings, IndexSettings, MirrorSettings),
}


def complain(error: str, hint: str) -> None:
    """Print an error and its hint on stderr."""
    print(f"rvc: {error}" + (f"\n     {hint}" if hint else ""), file=sys.stderr)


def _check(arguments: argparse.Namespace) -> Result:
    from ..system.installation import check

    report = check()
    if report["problems"]:
        first = report["problems"][0]
        report |= {"error": first["problem"], "hint": first["hint"], "failed_command": True}
    return report


def _inspect(arguments: argparse.Namespace) -> Result:
    from ..preparation.survey import inspect

    report = inspect(Path(arguments.dataset), progress=progress_of(arguments))
    if arguments.json:
        return report.as_json()
    print(report)
    return {}


def _begun(arguments: argparse.Namespace) -> Experiment:
    """The experiment, begun from nothing if that was asked for."""
    lab = _experiment(arguments)
    if arguments.begin_again and (aside := lab.begin_again()):
        lab.progress.say(f"the old {lab.layout.name!r} lies in {aside} now")
    return lab


def _prepare(arguments: argparse.Namespace) -> Result:
    return _begun(arguments).prepare(_settings(PrepareSettings, arguments)).as_json()


def _extract(arguments: argparse.Namespace) -> Result:
    return _experiment(arguments).extract(_settings(ExtractSettings, arguments)).as_json()


def _train(arguments: argparse.Namespace) -> Result:
    from ..training import detached

    settings, lab = _settings(TrainSettings, arguments), _experiment(arguments)
    mirror = _settings(MirrorSettings, arguments)
    if arguments.on_everything:
        best = lab.verdict().best
        epochs = arguments.until or (best.epoch if best else settings.epochs)
        settings, lab = settings.model_copy(update={"epochs": max(1, epochs)}), lab.on_everything()
    if arguments.foreground:
        return lab.train(settings, mirror=mirror).as_json()
    if not detached.start(lab.layout, settings, lab.runtime, mirror=mirror):
        own = detached.differing(lab.layout, settings)
        lab.progress.say(
            "this voice is already being trained" + (f"; your {', '.join(own)} will not be used" if own else "")
        )
    return _watched(lab)


def _watched(lab: Experiment) -> Result:
    """Follow the background training and return its report. Ctrl-C stops following, not training."""
    from ..training import detached

    try:
        return detached.watch(lab.layout, lab.progress)
    except KeyboardInterrupt:
        return {
            "running": True,
            "log": str(lab.layout.log),
            "to_see_it": f"rvc train {lab.layout.name}",
            "to_end_it": f"rvc stop {lab.layout.name}",
        }


def _stop(arguments: argparse.Namespace) -> Result:
    from ..training import detached

    lab = _experiment(arguments)
    return _watched(lab) if detached.stop(lab.layout) else {"running": False}


def _pin(arguments: argparse.Namespace) -> Result:
    from ..workspace.retention import pin

    return {"pinned": pin(_experiment(arguments).layout, arguments.step)}


def _index(arguments: argparse.Namespace) -> Result:
    return _experiment(arguments).build_index(_settings(IndexSettings, arguments)).as_json()


def _run(arguments: argparse.Namespace) -> Result:
    return _begun(arguments).run(*(_settings(settings, arguments) for settings in SETTINGS_OF["run"]))


def _convert(arguments: argparse.Namespace) -> Result:
    settings = _settings(ConvertSettings, arguments)
    _ensure_folder(Path(arguments.output))
    voice = _voice(arguments.voice, arguments)
    results = voice.convert_all(arguments.inputs, arguments.output, settings, progress=progress_of(arguments))
    failures = [result for result in results if isinstance(result, FailedFile)]
    for failure in failures:
        complain(f"{failure.source}: {failure.error}", failure.hint)
    summary: Result = {
        "files": [result.as_json() for result in results],
        "failed": len(failures),
        "failed_command": bool(failures),
    }
    if failures:
        summary |= {
            "error": f"{len(failures)} of {len(results)} files failed: {failures[0].error}",
            "hint": failures[0].hint,
        }
    return summary


def _f0(arguments: argparse.Namespace) -> Result:
    from ..audio.waveform import read_audio
    from ..conversion.convert import source_pitch
    from ..features.pitch import pitch_method, write_curve

    method, output = pitch_method(arguments.f0_method), Path(arguments.output)
    track = source_pitch(read_audio(Path(arguments.input)), method, _settings(RuntimeSettings, arguments))
    write_curve(output, track)
    return {
        "path": str(output),
        "f0_method": method,
        "frames": len(track.f0_hz),
        "voiced": int(track.voiced.sum()),
        "median_hz": round(track.median_hz, 2),
    }


def _evaluate(arguments: argparse.Namespace) -> Result:
    from ..evaluation.evaluate import evaluate_files

    settings = _settings(ConvertSettings, arguments)
    if len(arguments.outputs) > 1 or _is_recorded(arguments.outputs[0]):
        if given := [name for name in ConvertSettings.model_fields if hasattr(arguments, name)]:
            raise SettingsError(
                f"{given[0]} has no effect on files that are already converted",
                hint="leave it out, or give a voice instead of files",
            )
        report = evaluate_files(
            arguments.outputs, arguments.source, arguments.target, arguments.text, progress=progress_of(arguments)
        )
    else:
        if arguments.output:
            _ensure_folder(Path(arguments.output))
        report = _voice(arguments.outputs[0], arguments).evaluate(
            arguments.source,
            arguments.target,
            arguments.text,
            settings,
            output=arguments.output,
            progress=progress_of(arguments),
        )
    for scorer in report.absent:
        complain(f"skipped {scorer['scorer']}: not installed", f"to measure it, run: {scorer['install']}")
    if arguments.json:
        return report.as_json()
    print(report)
    return {}


def _is_recorded(name: str) -> bool:
    """Whether `name` is a recording or a folder of recordings, and not an experiment with a voice."""
    from ..audio.waveform import AUDIO_SUFFIXES
    from ..workspace.layout import Layout

    place = Path(name)
    if place.is_dir():
        return not (name.strip(". /") and Layout.of(name).voices())
    return place.suffix.lower() in AUDIO_SUFFIXES and not Layout.of(name).voices()


def _verdict(arguments: argparse.Namespace) -> Result:
    from ..verdict.overtraining import verdict_of_experiment, verdict_of_file
    from ..workspace.layout import Layout

    if bool(arguments.name) == bool(arguments.metrics):
        raise SettingsError("rvc verdict needs one history", hint="give the name of an experiment, or --metrics FILE")
    if arguments.metrics:
        verdict = verdict_of_file(Path(arguments.metrics))
    else:
        verdict = verdict_of_experiment(Layout.of(arguments.name))
    if arguments.json:
        return verdict.as_json()
    print(verdict)
    return {}


def _info(arguments: argparse.Namespace) -> Result:
    from ..voices.describe import describe

    return describe(Path(arguments.file))


def _golden(arguments: argparse.Namespace) -> Result:
    from dataclasses import asdict

    from ..evaluation.golden import golden

    report = golden(Path(arguments.folder))
    failure = {"error": "the networks differ from the reference", "hint": "see the cases", "failed_command": True}
    return {**asdict(report), "passed": report.passed, **({} if report.passed else failure)}


def _demo(arguments: argparse.Namespace) -> Result:
    from .demo import demo

    _ensure_folder(Path(arguments.output))
    report = demo(Path(arguments.output), progress=progress_of(arguments))
    failure = {
        "error": "; ".join(report.failures),
        "hint": f"look at {report.picture} and listen to {report.output}",
        "failed_command": True,
    }
    return report.as_json() | (failure if report.failures else {})


def _settings(settings: type[Settings], arguments: argparse.Namespace) -> Any:
    given = {name: getattr(arguments, name) for name in settings.model_fields if hasattr(arguments, name)}
    return settings.of(**given)


def _voice(path: str, arguments: argparse.Namespace) -> Voice:
    index = None if arguments.index == "none" else arguments.index
    return Voice.load(path, index, runtime=_settings(RuntimeSettings, arguments))


def _ensure_folder(output: Path) -> None:
    """Fail before any work is done if `output` cannot be a folder."""
    existing = next(path for path in (output, *output.absolute().parents) if path.exists())
    if not existing.is_dir():
        raise SettingsError(f"--output {output} cannot be a folder: {existing} is a file", hint="choose another folder")


def _experiment(arguments: argparse.Namespace) -> Experiment:
    return Experiment.open(
        arguments.name,
        getattr(arguments, "dataset", None),
        runtime=_settings(RuntimeSettings, arguments),
        progress=progress_of(arguments),
    )


def progress_of(arguments: argparse.Namespace) -> Silent | Terminal:
    """Where a command shows its progress."""
    return Silent() if arguments.quiet else Terminal()


_INDEX = ("--index", {"default": "auto", "metavar": "FILE", "help": "An .index file, or none. Default: the voice's."})
_TRAINED: tuple[Option, ...] = (
    ("--foreground", {"action": "store_true", "help": "Train in this process: Ctrl-C then stops training."}),
    (
        "--on-everything",
        {
            "action": "store_true",
            "help": "Train a second voice, 'NAME everything', from the start, with the held-out recordings too.",
        },
    ),
    (
        "--until",
        {
            "type": int,
            "metavar": "EPOCH",
            "help": "Last epoch of --on-everything. Default: the epoch of the best voice by the verdict.",
        },
    ),
)
_EVALUATED: tuple[Option, ...] = (
    (
        "outputs",
        {
            "metavar": "NAME|FILE",
            "nargs": "+",
            "help": (
                "An experiment or a .pth to convert the sources with. Or converted files, in the order of the sources "
                "or named after them."
            ),
        },
    ),
    (
        "--source",
        {"required": True, "nargs": "+", "metavar": "FILE", "help": "Recordings, or folders with sub-folders."},
    ),
    (
        "--target",
        {
            "default": [],
            "nargs": "+",
            "metavar": "FILE",
            "help": "Recordings of the target that were not used for training. Default: the held-out recordings.",
        },
    ),
    (
        "--text",
        {
            "metavar": "TEXT",
            "help": (
                "Words of the sources: a .tsv of file<TAB>text, a folder of <name>.txt, or the text of one source. "
                "Default: the .txt beside each source."
            ),
        },
    ),
    ("--output", {"metavar": "DIR", "help": "Folder for the converted files. Default: they are not kept."}),
)
_NAME = ("name", {"metavar": "NAME", "help": "Name of the experiment, in any script."})
_AGAIN = "Move what was trained under this name aside, and begin anew."
_DATASET = (
    ("--dataset", {"metavar": "DIR", "help": "Folder of recordings, or one recording."}),
    ("--begin-again", {"action": "store_true", "help": _AGAIN}),
)
COMMANDS: dict[str, tuple[Any, ...]] = {
    "check": (_check, "Report versions, device and problems."),
    "demo": (
        _demo,
        "Train a voice and convert with it, using recordings inside the package.",
        ("--output", {"default": "demo", "metavar": "DIR", "help": "Folder for the results. Default: demo."}),
    ),
    "inspect": (_inspect, "Report the quality of recordings.", ("dataset", {"metavar": "DIR"})),
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
        ("step", {"metavar": "STEP", "type": int, "help": "The number in G_STEP.pth."}),
    ),
    "run": (_run, "Prepare, extract, index and train.", _NAME, *_DATASET),
    "convert": (
        _convert,
        "Convert recordings with a voice.",
        ("voice", {"metavar": "VOICE", "help": "A .pth, or the name of an experiment."}),
        ("inputs", {"metavar": "INPUT", "nargs": "+", "help": "Recordings, or folders with sub-folders."}),
        ("--output", {"default": "converted", "metavar": "DIR", "help": "Folder for the results. Default: converted."}),
        _INDEX,
    ),
    "f0": (
        _f0,
        "Write the pitch of a recording to a file. Edit it, then use it with rvc convert --f0-curve.",
        ("input", {"metavar": "INPUT", "help": "A recording."}),
        ("--output", {"default": "f0.csv", "metavar": "FILE", "help": "Lines of seconds,hz. Default: f0.csv."}),
        (
            "--f0-method",
            {"default": "auto", "metavar": "METHOD", "help": ConvertSettings.model_fields["f0_method"].description},
        ),
    ),
    "evaluate": (
        _evaluate,
        "Measure the quality of a voice on recordings of other speakers, or of converted files.",
        *_EVALUATED,
        _INDEX,
    ),
    "verdict": (
        _verdict,
        "Report which voice of a training is best, whether it is overtrained, and why.",
        ("name", {"metavar": "NAME", "nargs": "?", "help": "Name of the experiment."}),
        ("--metrics", {"metavar": "FILE", "help": "A metrics.jsonl file, instead of an experiment."}),
    ),
    "info": (_info, "Describe a voice, checkpoint, base model, index or zip.", ("file", {"metavar": "FILE"})),
    "golden": (_golden, "Compare the networks with reference numbers.", ("folder", {"metavar": "DIR"})),
}
