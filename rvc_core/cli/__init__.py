"""The command line: ``rvc <command>``. Flags are generated from the settings classes; each command is a few lines.

With ``--json`` the last line on stdout is one JSON object. Exit status: 0 done, 1 failed (one line with a hint), 2
wrong usage.
"""

import argparse
import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from pydantic_core import PydanticUndefined

from .. import __version__
from ..errors import RVCError, SettingsError
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
from .voices import COMMANDS as VOICES_COMMANDS
from .weights import COMMANDS as WEIGHTS_COMMANDS

Result = dict[str, Any]
_STAGES: dict[str, tuple[type[Settings], ...]] = {
    "prepare": (PrepareSettings,), "extract": (ExtractSettings,), "train": (TrainSettings, MirrorSettings),
    "index": (IndexSettings,), "convert": (ConvertSettings,), "f0": (), "evaluate": (ConvertSettings,),
    "run": (PrepareSettings, ExtractSettings, TrainSettings, IndexSettings, MirrorSettings)}


def main(argv: list[str] | None = None) -> int:
    """Run one command; returns the exit status."""
    arguments = _parser().parse_args(argv)
    try:
        status = _execute(arguments)
        sys.stdout.flush()
    except BrokenPipeError:      # whoever reads has seen enough, as in `rvc weights list | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    return status


def _execute(arguments: argparse.Namespace) -> int:
    """Run a command, show its result or say in one line what went wrong; returns the exit status."""
    try:
        result = arguments.run(arguments)
    except RVCError as error:
        return _fail(arguments, str(error), error.hint)
    except BrokenPipeError:
        raise
    except OSError as error:
        where = f": {error.filename}" if error.filename else ""
        return _fail(arguments, (error.strerror or str(error)) + where, _hint_for(error))
    except KeyboardInterrupt:
        return _fail(arguments, "interrupted", "the same command continues")
    failed = bool(result.pop("failed_command", False))
    if arguments.json:
        print(json.dumps(result, ensure_ascii=False))
    else:
        _show({key: value for key, value in result.items() if key not in ("error", "hint")})
    if failed:
        _complain(result["error"], result["hint"])
    return 1 if failed else 0


def _fail(arguments: argparse.Namespace, error: str, hint: str) -> int:
    """Say what went wrong: with ``--json`` also on stdout."""
    if arguments.json:
        print(json.dumps({"error": error, "hint": hint}, ensure_ascii=False))
    _complain(error, hint)
    return 1


def _complain(error: str, hint: str) -> None:
    print(f"rvc: {error}" + (f"\n     {hint}" if hint else ""), file=sys.stderr)


def _hint_for(error: OSError) -> str:
    if isinstance(error, NotADirectoryError | FileExistsError):
        return "a file stands where a folder is needed: choose another --output or RVC_HOME, or move that file"
    if isinstance(error, PermissionError):
        return "choose folders that you may read and write (inputs, --output, RVC_HOME)"
    return "check that the path exists and that its disk works"


# -- commands ------------------------------------------------------------------------------------------------------
def _check(arguments: argparse.Namespace) -> Result:
    from ..system.installation import check
    report = check()
    if report["problems"]:
        first = report["problems"][0]
        report |= {"error": first["problem"], "hint": first["hint"], "failed_command": True}
    return report


def _inspect(arguments: argparse.Namespace) -> Result:
    from ..preparation.survey import inspect
    report = inspect(Path(arguments.dataset), progress=_progress(arguments))
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
        return {"running": True, "log": str(lab.layout.log), "to_see_it": f"rvc train {lab.layout.name}",
                "to_end_it": f"rvc stop {lab.layout.name}"}


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
    return _experiment(arguments).run(*(_settings(settings, arguments) for settings in _STAGES["run"]))


def _convert(arguments: argparse.Namespace) -> Result:
    settings = _settings(ConvertSettings, arguments)
    index = None if arguments.index == "none" else arguments.index
    _ensure_folder(Path(arguments.output))
    voice = Voice.load(arguments.voice, index, runtime=_settings(RuntimeSettings, arguments))
    results = voice.convert_all(arguments.inputs, arguments.output, settings, progress=_progress(arguments))
    failures = [result for result in results if isinstance(result, FailedFile)]
    for failure in failures:
        _complain(f"{failure.source}: {failure.error}", failure.hint)
    summary: Result = {"files": [result.as_json() for result in results], "failed": len(failures),
                       "failed_command": bool(failures)}
    if failures:
        summary |= {"error": f"{len(failures)} of {len(results)} files failed: {failures[0].error}",
                    "hint": failures[0].hint}
    return summary


def _f0(arguments: argparse.Namespace) -> Result:
    from ..audio.waveform import read_audio
    from ..conversion.convert import source_pitch
    from ..features.pitch import pitch_method, write_curve
    method, output = pitch_method(arguments.f0_method), Path(arguments.output)
    track = source_pitch(read_audio(Path(arguments.input)), method, _settings(RuntimeSettings, arguments))
    write_curve(output, track)
    return {"path": str(output), "f0_method": method, "frames": len(track.f0_hz), "voiced": int(track.voiced.sum()),
            "median_hz": round(track.median_hz, 2)}


def _evaluate(arguments: argparse.Namespace) -> Result:
    from ..evaluation.evaluate import evaluate_files
    settings = _settings(ConvertSettings, arguments)
    if len(arguments.outputs) > 1 or _is_recorded(arguments.outputs[0]):
        if given := [name for name in ConvertSettings.model_fields if hasattr(arguments, name)]:
            raise SettingsError(f"{given[0]} has no effect on files that are converted already",
                                hint="leave it out, or name a voice instead of files")
        report = evaluate_files(arguments.outputs, arguments.source, arguments.target, arguments.text,
                                progress=_progress(arguments))
    else:
        if arguments.output:
            _ensure_folder(Path(arguments.output))
        index = None if arguments.index == "none" else arguments.index
        voice = Voice.load(arguments.outputs[0], index, runtime=_settings(RuntimeSettings, arguments))
        report = voice.evaluate(arguments.source, arguments.target, arguments.text, settings, output=arguments.output,
                                progress=_progress(arguments))
    for scorer in report.absent:
        _complain(f"without {scorer['scorer']}", scorer["install"])
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
    failure = {"error": "; ".join(report.failures), "hint": f"look at {report.picture} and listen to {report.output}",
               "failed_command": True}
    return report.as_json() | (failure if report.failures else {})


# -- building the parser -------------------------------------------------------------------------------------------
_INDEX = ("--index", {"default": "auto", "metavar": "FILE", "help": "auto, none, or an .index file"})
_TRAINED: tuple[tuple[str, dict[str, Any]], ...] = (
    ("--foreground", {"action": "store_true", "help": "train in this process, which Ctrl-C ends"}),
    ("--on-everything", {"action": "store_true", "help": (
        "train a second voice, 'NAME everything', from the beginning, on the held-out recordings too")}),
    ("--until", {"type": int, "metavar": "EPOCH", "help": (
        "with --on-everything: where to end; default: the epoch of the best voice by the verdict")}))
_EVALUATED: tuple[tuple[str, dict[str, Any]], ...] = (
    ("outputs", {"metavar": "NAME|FILE", "nargs": "+", "help": (
        "an experiment or a .pth, which converts the sources; or converted files, in the sources' order or named after "
        "them")}),
    ("--source", {"required": True, "nargs": "+", "metavar": "FILE",
                  "help": "recordings, or folders of them, sub-folders too"}),
    ("--target", {"default": [], "nargs": "+", "metavar": "FILE", "help": (
        "the target's own recordings, unheard by the voice; default: those that the experiment held out")}),
    ("--text", {"metavar": "TEXT", "help": (
        "what is said: a .tsv of file<TAB>text, a folder of <name>.txt, or the text of a single source; default: the "
        ".txt beside each source")}),
    ("--output", {"metavar": "DIR", "help": "folder that keeps the converted files"}))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="rvc", description="Train a voice and convert with it.")
    parser.add_argument("--version", action="version", version=__version__)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    def command(name: str, run: Callable[[argparse.Namespace], Result], text: str,
                *positional: tuple[str, dict[str, Any]], to: Any = commands) -> argparse.ArgumentParser:
        sub = to.add_parser(name, help=text, description=text)
        for argument, options in positional:
            sub.add_argument(argument, **options)
        for settings in _STAGES.get(name, ()):
            add_settings(sub, settings)
        if name in _STAGES:
            add_settings(sub, RuntimeSettings)
        sub.add_argument("--json", action="store_true", help="print one JSON object as the last line")
        sub.add_argument("--quiet", action="store_true", help="show no progress")
        sub.set_defaults(run=run)
        return sub

    name = ("name", {"metavar": "NAME", "help": "name of the experiment, in any script"})
    dataset = ("--dataset", {"metavar": "DIR", "help": "folder of recordings, or one recording"})
    command("check", _check, "report versions, device and problems")
    command("demo", _demo, "train a voice and convert with it, on recordings inside the package",
            ("--output", {"default": "demo", "metavar": "DIR", "help": "where results go"}))
    command("inspect", _inspect, "say what a folder of recordings is like", ("dataset", {"metavar": "DIR"}))
    command("prepare", _prepare, "cut recordings into clips", name, dataset)
    command("extract", _extract, "compute pitch and content of every clip", name)
    command("index", _index, "build the index of content features", name)
    command("train", _train, "train the voice in the background, or go on, and show it: Ctrl-C only ends the showing",
            name, *_TRAINED)
    command("stop", _stop, "let the training of a voice save and end", name)
    command("pin", _pin, "keep the checkpoint and the voice of a step for ever", name,
            ("step", {"metavar": "STEP", "type": int, "help": "as in G_STEP.pth"}))
    command("run", _run, "prepare, extract, index and train in one go", name, dataset)
    command("convert", _convert, "convert recordings with a voice",
            ("voice", {"metavar": "VOICE", "help": "a .pth, or the name of an experiment"}),
            ("inputs", {"metavar": "INPUT", "nargs": "+",
                        "help": "recordings, or folders of them, sub-folders too"}),
            ("--output", {"default": "converted", "metavar": "DIR", "help": "folder for the results"}), _INDEX)
    command("f0", _f0, "write the pitch of a recording, to be edited and read by rvc convert --f0-curve",
            ("input", {"metavar": "INPUT", "help": "a recording"}),
            ("--output", {"default": "f0.csv", "metavar": "FILE", "help": "the curve: lines of seconds,hz"}),
            ("--f0-method", {"default": "auto", "metavar": "METHOD",
                             "help": ConvertSettings.model_fields["f0_method"].description}))
    command("evaluate", _evaluate, "measure a voice on other people's recordings, or files converted with it",
            *_EVALUATED, _INDEX)
    command("verdict", _verdict, "say which voice of a training is the best, whether it went too far, and why",
            ("name", {"metavar": "NAME", "nargs": "?", "help": "name of the experiment"}),
            ("--metrics", {"metavar": "FILE", "help": "a bare history (metrics.jsonl) instead"}))
    command("info", _info, "say what is known about a voice, checkpoint, base model, index or zip",
            ("file", {"metavar": "FILE"}))
    for action, (run, about, *positional) in VOICES_COMMANDS.items():
        command(action, run, about, *positional)
    text = "files of weights: what there is, fetch, verify, and an archive for machines without a network"
    group = commands.add_parser("weights", help=text, description=text)
    actions = group.add_subparsers(required=True, metavar="ACTION")
    for action, (run, about, *positional) in WEIGHTS_COMMANDS.items():
        command(action, run, about, *positional, to=actions)
    command("golden", _golden, "compare the networks with reference numbers", ("folder", {"metavar": "DIR"}))
    return parser


def add_settings(parser: argparse.ArgumentParser, settings: type[Settings]) -> None:
    """Add one flag per field; absent flags leave the declared default. Fields shared by several stages appear once."""
    known = {action.dest for action in parser._actions}
    group = parser.add_argument_group(settings.__name__, (settings.__doc__ or "").splitlines()[0])
    for name, field in settings.model_fields.items():
        if name in known:
            continue
        default = "" if field.default in (None, PydanticUndefined) else f" (default: {field.default})"
        metavar = "true|false" if field.annotation is bool else name.split("_")[-1].upper()
        group.add_argument(f"--{name.replace('_', '-')}", dest=name, default=argparse.SUPPRESS, metavar=metavar,
                           help=f"{field.description}{default}".replace("%", "%%"))


def _settings(settings: type[Settings], arguments: argparse.Namespace) -> Any:
    given = {name: getattr(arguments, name) for name in settings.model_fields if hasattr(arguments, name)}
    return settings.of(**given)


def _ensure_folder(output: Path) -> None:
    """Refuse a path that is no folder and cannot become one, before any work is done."""
    standing = next(path for path in (output, *output.absolute().parents) if path.exists())
    if not standing.is_dir():
        raise SettingsError(f"--output {output} cannot be a folder: {standing} is a file", hint="name a folder")


def _experiment(arguments: argparse.Namespace) -> Experiment:
    return Experiment.open(arguments.name, getattr(arguments, "dataset", None),
                           runtime=_settings(RuntimeSettings, arguments), progress=_progress(arguments))


def _progress(arguments: argparse.Namespace) -> Silent | Terminal:
    return Silent() if arguments.quiet else Terminal()


def _show(result: Result, indent: str = "") -> None:
    """Print a result for people: one fact a line."""
    for key, value in result.items():
        if isinstance(value, dict):
            print(f"{indent}{key}:")
            _show(value, indent + "  ")
        elif isinstance(value, list) and value and isinstance(value[0], dict):
            for row in value:
                print(f"{indent}{key}:")
                _show(row, indent + "  ")
        else:
            print(f"{indent}{key}: {value}")
