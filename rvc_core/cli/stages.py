"""The commands of one experiment, from its recordings to converted ones, and those that look at something."""

import argparse
import sys
from pathlib import Path
from typing import Any

from ..errors import SettingsError
from ..experiment import Experiment
from ..preparation.incoming import brought
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
from .inputs import convert_texts

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
    """Say on stderr what went wrong, and what to do."""
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

    progress = _progress(arguments)
    report = inspect(brought(arguments.dataset, "inspect", progress), progress=progress)
    if arguments.json:
        return report.as_json()
    print(report)
    return {}


def _prepare(arguments: argparse.Namespace) -> Result:
    return _experiment(arguments).prepare(_settings(PrepareSettings, arguments)).as_json()


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
        lab.progress.say("this voice is being trained already" + (f", with its own {', '.join(own)}" if own else ""))
    return _watched(lab)


def _watched(lab: Experiment) -> Result:
    """The report of the training in the background; Ctrl-C leaves that alone."""
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
    return _experiment(arguments).run(*(_settings(settings, arguments) for settings in SETTINGS_OF["run"]))


def _convert(arguments: argparse.Namespace) -> Result:
    settings = _settings(ConvertSettings, arguments)
    index = None if arguments.index == "none" else arguments.index
    _ensure_folder(Path(arguments.output))
    voice = Voice.load(arguments.voice, index, runtime=_settings(RuntimeSettings, arguments))
    results = convert_texts(voice, arguments.inputs, arguments.output, settings, _progress(arguments))
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
                f"{given[0]} has no effect on files that are converted already",
                hint="leave it out, or name a voice instead of files",
            )
        report = evaluate_files(
            arguments.outputs, arguments.source, arguments.target, arguments.text, progress=_progress(arguments)
        )
    else:
        if arguments.output:
            _ensure_folder(Path(arguments.output))
        index = None if arguments.index == "none" else arguments.index
        voice = Voice.load(arguments.outputs[0], index, runtime=_settings(RuntimeSettings, arguments))
        report = voice.evaluate(
            arguments.source,
            arguments.target,
            arguments.text,
            settings,
            output=arguments.output,
            progress=_progress(arguments),
        )
    for scorer in report.absent:
        complain(f"without {scorer['scorer']}", scorer["install"])
    if arguments.json:
        return report.as_json()
    print(report)
    return {}


def _is_recorded(name: str) -> bool:
    """Whether this names recordings: an experiment with a voice comes before a folder that is called the same."""
    from ..audio.waveform import AUDIO_SUFFIXES
    from ..workspace.layout import Layout

    place = Path(name)
    if place.is_dir():
        return not (name.strip(". /") and Layout.of(name).voices())
    return place.suffix.lower() in AUDIO_SUFFIXES and not Layout.of(name).voices()


def _verdict(arguments: argparse.Namespace) -> Result:
    from ..verdict.overtraining import judge_experiment, judge_file
    from ..workspace.layout import Layout

    if bool(arguments.name) == bool(arguments.metrics):
        raise SettingsError("one history at a time", hint="give the name of an experiment, or --metrics FILE")
    verdict = judge_file(Path(arguments.metrics)) if arguments.metrics else judge_experiment(Layout.of(arguments.name))
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
    failure = {} if report.passed else {"error": "the networks differ from the reference", "hint": "see cases"}
    return {**asdict(report), "passed": report.passed, **failure, "failed_command": not report.passed}


def _demo(arguments: argparse.Namespace) -> Result:
    from .demo import demo

    _ensure_folder(Path(arguments.output))
    report = demo(Path(arguments.output), progress=_progress(arguments))
    failure = {
        "error": "; ".join(report.failures),
        "hint": f"look at {report.picture} and listen to {report.output}",
        "failed_command": True,
    }
    return report.as_json() | (failure if report.failures else {})


def _settings(settings: type[Settings], arguments: argparse.Namespace) -> Any:
    given = {name: getattr(arguments, name) for name in settings.model_fields if hasattr(arguments, name)}
    return settings.of(**given)


def _ensure_folder(output: Path) -> None:
    """Refuse a path that is no folder and cannot become one, before any work is done."""
    standing = next(path for path in (output, *output.absolute().parents) if path.exists())
    if not standing.is_dir():
        raise SettingsError(f"--output {output} cannot be a folder: {standing} is a file", hint="name a folder")


def _experiment(arguments: argparse.Namespace) -> Experiment:
    dataset, progress = getattr(arguments, "dataset", None), _progress(arguments)
    return Experiment.open(
        arguments.name,
        brought(dataset, arguments.name, progress) if dataset else None,
        runtime=_settings(RuntimeSettings, arguments),
        progress=progress,
    )


def _progress(arguments: argparse.Namespace) -> Silent | Terminal:
    return Silent() if arguments.quiet else Terminal()


_INDEX = ("--index", {"default": "auto", "metavar": "FILE", "help": "auto, none, or an .index file"})
_TRAINED: tuple[Option, ...] = (
    ("--foreground", {"action": "store_true", "help": "train in this process, which Ctrl-C ends"}),
    (
        "--on-everything",
        {
            "action": "store_true",
            "help": ("train a second voice, 'NAME everything', from the beginning, on the held-out recordings too"),
        },
    ),
    (
        "--until",
        {
            "type": int,
            "metavar": "EPOCH",
            "help": ("with --on-everything: where to end; default: the epoch of the best voice by the verdict"),
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
                "an experiment or a .pth, which converts the sources; or converted files, in the sources' order or "
                "named after them"
            ),
        },
    ),
    (
        "--source",
        {"required": True, "nargs": "+", "metavar": "FILE", "help": "recordings, or folders of them, sub-folders too"},
    ),
    (
        "--target",
        {
            "default": [],
            "nargs": "+",
            "metavar": "FILE",
            "help": ("the target's own recordings, unheard by the voice; default: those that the experiment held out"),
        },
    ),
    (
        "--text",
        {
            "metavar": "TEXT",
            "help": (
                "what is said: a .tsv of file<TAB>text, a folder of <name>.txt, or the text of a single source; "
                "default: the .txt beside each source"
            ),
        },
    ),
    ("--output", {"metavar": "DIR", "help": "folder that keeps the converted files"}),
)
_NAME = ("name", {"metavar": "NAME", "help": "name of the experiment, in any script"})
_PLACE = {"metavar": "PLACE", "help": "recordings: a folder, a file, a zip, a pattern or a link"}
_DATASET = ("--dataset", _PLACE)
COMMANDS: dict[str, tuple[Any, ...]] = {
    "check": (_check, "report versions, device and problems"),
    "demo": (
        _demo,
        "train a voice and convert with it, on recordings inside the package",
        ("--output", {"default": "demo", "metavar": "DIR", "help": "where results go"}),
    ),
    "inspect": (_inspect, "say what recordings are like", ("dataset", _PLACE)),
    "prepare": (_prepare, "cut recordings into clips", _NAME, _DATASET),
    "extract": (_extract, "compute pitch and content of every clip", _NAME),
    "index": (_index, "build the index of content features", _NAME),
    "train": (
        _train,
        "train the voice in the background, or go on, and show it: Ctrl-C only ends the showing",
        _NAME,
        *_TRAINED,
    ),
    "stop": (_stop, "let the training of a voice save and end", _NAME),
    "pin": (
        _pin,
        "keep the checkpoint and the voice of a step for ever",
        _NAME,
        ("step", {"metavar": "STEP", "type": int, "help": "as in G_STEP.pth"}),
    ),
    "run": (_run, "prepare, extract, index and train in one go", _NAME, _DATASET),
    "convert": (
        _convert,
        "convert recordings with a voice",
        ("voice", {"metavar": "VOICE", "help": "a .pth, or the name of an experiment"}),
        ("inputs", {**_PLACE, "metavar": "INPUT", "nargs": "+"}),
        ("--output", {"default": "converted", "metavar": "DIR", "help": "folder for the results"}),
        _INDEX,
    ),
    "f0": (
        _f0,
        "write the pitch of a recording, to be edited and read by rvc convert --f0-curve",
        ("input", {"metavar": "INPUT", "help": "a recording"}),
        ("--output", {"default": "f0.csv", "metavar": "FILE", "help": "the curve: lines of seconds,hz"}),
        (
            "--f0-method",
            {"default": "auto", "metavar": "METHOD", "help": ConvertSettings.model_fields["f0_method"].description},
        ),
    ),
    "evaluate": (
        _evaluate,
        "measure a voice on other people's recordings, or files converted with it",
        *_EVALUATED,
        _INDEX,
    ),
    "verdict": (
        _verdict,
        "say which voice of a training is the best, whether it went too far, and why",
        ("name", {"metavar": "NAME", "nargs": "?", "help": "name of the experiment"}),
        ("--metrics", {"metavar": "FILE", "help": "a bare history (metrics.jsonl) instead"}),
    ),
    "info": (
        _info,
        "say what is known about a voice, checkpoint, base model, index or zip",
        ("file", {"metavar": "FILE"}),
    ),
    "golden": (_golden, "compare the networks with reference numbers", ("folder", {"metavar": "DIR"})),
}
