"""The commands that measure and report."""

import argparse
import os
import re
import shlex
from pathlib import Path
from typing import Any, get_args

from ..conversion.naming import ensure_folder, refuse_missing
from ..errors import ResourceError, SettingsError
from ..preparation.incoming import brought
from ..presets import PRESETS
from ..settings import ConvertSettings, PrepareSettings, RuntimeSettings
from .arguments import (
    INDEX,
    RECORDINGS,
    Option,
    Result,
    complain,
    named,
    progress_of,
    recordings_of,
    refuse_swapped,
    settings_of,
    voice_of,
)


def _check(arguments: argparse.Namespace) -> Result:
    from ..system.installation import check

    report = check()
    if arguments.gpu:
        report["gpu"] = _measured_gpu(arguments.preset)
    if report["problems"]:
        first = report["problems"][0]
        report |= {"error": first["problem"], "hint": first["hint"], "failed_command": True}
    return report


def _measured_gpu(name: str) -> dict[str, Any]:
    import torch

    from ..presets import preset
    from ..system.devices import choose_device
    from ..system.files import write_json
    from ..system.platforms import home
    from ..training.capacity import MEASURED
    from ..training.preflight import preflight

    chosen = choose_device()
    if not chosen.name.startswith("cuda"):
        raise ResourceError(f"no GPU to measure: {chosen.reason}", hint="leave out --gpu, or choose a runtime with one")
    torch.set_float32_matmul_precision("high")
    measured = preflight(name, preset(name), torch.device(chosen.name)).as_json()
    write_json(home() / MEASURED, measured)  # for rvc plan
    return measured


def _inspect(arguments: argparse.Namespace) -> Result:
    from ..preparation.survey import inspect

    progress = progress_of(arguments)
    place = brought(arguments.dataset, "inspect", progress)
    report = inspect(place, by_folder=arguments.speakers == "folders", progress=progress)
    if arguments.json:
        return report.as_json()
    print(report)
    path = shlex.quote(str(place))
    if any("rvc clean" in finding.repair for one in report.recordings for finding in one.findings):
        print(f"repair: rvc clean {path}")
    speakers = " --speakers folders" if arguments.speakers == "folders" else ""
    print(f"plan: rvc plan {shlex.quote(place.stem)} --dataset {path}{speakers}")
    return {}


def _f0(arguments: argparse.Namespace) -> Result:
    from ..audio.waveform import read_recording
    from ..conversion.source import source_pitch
    from ..features.pitch import pitch_method, write_curve

    method, output = pitch_method(arguments.f0_method), Path(arguments.output)
    if output.is_dir() or arguments.output.endswith(("/", os.sep)):
        inside = shlex.quote(str(output / "f0.csv"))
        raise SettingsError(f"--output {output} is a folder", hint=f"write: --output {inside}")
    if os.path.lexists(output):  # it may have been edited by hand
        raise SettingsError(f"{output} exists", hint="choose another name with --output, or remove it first")
    files = recordings_of([arguments.input], progress_of(arguments))
    if len(files) > 1:
        raise SettingsError(
            f"{arguments.input!r} holds {len(files)} recordings", hint="give one: a pitch file is of one"
        )
    read = read_recording(files[0])
    track = source_pitch(read.audio, method, settings_of(RuntimeSettings, arguments))
    write_curve(output, track)
    return {
        "path": str(output),
        "f0_method": method,
        "frames": len(track.f0_hz),
        "voiced": int(track.voiced.sum()),
        "median_hz": round(track.median_hz, 2),
        "warnings": read.warnings,
    }


def _evaluate(arguments: argparse.Namespace) -> Result:
    from ..evaluation.evaluate import evaluate_files

    refuse_swapped(arguments, arguments.outputs[0], arguments.source)
    settings, progress = settings_of(ConvertSettings, arguments), progress_of(arguments)
    has_files = len(arguments.outputs) > 1 or _is_recorded(arguments.outputs[0])
    if not has_files:
        refuse_missing(settings, arguments.outputs[0], index=arguments.index)
    if arguments.output:
        ensure_folder(arguments.output)
    elif given := [name for name in ("output_format", "output_depth") if hasattr(arguments, name)]:
        raise SettingsError(f"`{given[0]}` has no effect without --output", hint=f"leave out `{given[0]}`")
    given_sources, target = recordings_of(arguments.source, progress), recordings_of(arguments.target, progress)
    if has_files:
        names = (*ConvertSettings.model_fields, "index", "output")
        if given := [name for name in names if getattr(arguments, name, None) not in (None, INDEX[1]["default"])]:
            raise SettingsError(
                f"--{given[0].replace('_', '-')} has no effect on files that are already converted",
                hint="leave it out, or give a voice instead of files",
            )
        report = evaluate_files(arguments.outputs, given_sources, target, arguments.text, progress=progress)
    else:
        report = voice_of(arguments.outputs[0], arguments).evaluate(
            given_sources, target, arguments.text, settings, output=arguments.output, progress=progress
        )
    for scorer in report.absent:
        complain(f"skipped {scorer['scorer']}: not installed", f"to measure it, run: {scorer['install']}")
    if arguments.json:
        return report.as_json()
    print(report)
    return {}


def _sweep(arguments: argparse.Namespace) -> Result:
    from ..sweep import SWEPT, Tried, sweep
    from ..workspace.layout import Layout, voice_path

    refuse_swapped(arguments, arguments.voice, [arguments.source])
    progress, saved = progress_of(arguments), Layout.of(arguments.voice).voices()
    files = recordings_of([arguments.source], progress)
    if len(files) > 1:
        raise SettingsError(f"{arguments.source!r} holds {len(files)} recordings", hint="a sweep takes one clip")
    chosen = [voice_path(arguments.voice)]
    if arguments.epochs:
        known = {match[1]: path for path in saved if (match := re.search(r"_e(\d+)_s\d+$", path.stem))}
        wanted = [*known] if arguments.epochs == ["all"] else arguments.epochs
        if missing := [epoch for epoch in wanted if epoch not in known]:
            there = f"there are the epochs {', '.join(known)}" if known else "name an experiment, or leave out --epochs"
            raise SettingsError(f"no voice of epoch {missing[0]}", hint=there)
        chosen = [known[epoch] for epoch in wanted]
    grid = {name: values for name in SWEPT if (values := getattr(arguments, name))}
    ensure_folder(arguments.output)
    tried = Tried(files[0], arguments.text, recordings_of(arguments.target, progress))
    report = sweep(chosen, tried, grid, output=Path(arguments.output), progress=progress)
    if arguments.json:
        return report.as_json()
    print("\n".join([report.table(), *report.notes]))
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
    from ..workspace.layout import Layout, refuse_unknown

    if bool(arguments.name) == bool(arguments.metrics):
        raise SettingsError("rvc verdict needs one history", hint="give the name of an experiment, or --metrics FILE")
    if arguments.metrics:
        verdict = verdict_of_file(Path(arguments.metrics))
    else:
        refuse_unknown(layout := Layout.of(arguments.name))
        verdict = verdict_of_experiment(layout)
    if arguments.json:
        return verdict.as_json()
    print(verdict)
    return {}


def _info(arguments: argparse.Namespace) -> Result:
    from ..voices.describe import describe
    from ..workspace.layout import voice_path

    path = Path(arguments.file).expanduser()
    is_file = path.suffix.lower() in (".pth", ".safetensors", ".index", ".zip") or (path.exists() and not path.is_dir())
    return describe(path if is_file else voice_path(arguments.file))


def _golden(arguments: argparse.Namespace) -> Result:
    from dataclasses import asdict

    from ..evaluation.golden import golden

    report = golden(Path(arguments.folder))
    failure = {"error": "the networks differ from the reference", "hint": "see the cases", "failed_command": True}
    return {**asdict(report), "passed": report.passed, **({} if report.passed else failure)}


_EVALUATED: tuple[Option, ...] = (
    named(
        "outputs",
        "An experiment or a .pth to convert the sources with. Or converted files, in the order of the sources "
        "or named after them.",
        metavar="NAME|FILE",
        nargs="+",
    ),
    named("--source", f"Recordings: each {RECORDINGS}.", required=True, nargs="+", metavar="FILE"),
    named(
        "--target",
        f"Recordings of the target that were not used for training: each {RECORDINGS}. "
        "Default: the held-out recordings.",
        default=[],
        nargs="+",
        metavar="FILE",
    ),
    named(
        "--text",
        "Words of the sources: a .tsv of file<TAB>text, a folder of <name>.txt, or the text of one source. "
        "Default: the .txt beside each source.",
        metavar="TEXT",
    ),
    named("--output", "Folder for the converted files. Default: they are not kept.", metavar="DIR"),
)
_SWEPT: tuple[Option, ...] = (
    named("voice", "An experiment, or a .pth.", metavar="VOICE"),
    named("--source", "One clip of somebody else.", required=True, metavar="FILE"),
    named("--epochs", "Saved voices of the experiment by epoch, or all. Default: the newest.", nargs="+", default=[]),
    *(
        named(f"--{name.replace('_', '-')}", f"Values to try. {ConvertSettings.model_fields[name].description}", **more)
        for name in ("index_rate", "protect", "transpose")
        for more in [{"nargs": "+", "default": [], "metavar": "VALUE", "dest": name}]
    ),
    named("--text", "Words of the clip.", metavar="TEXT"),
    named("--target", f"Recordings of the target: each {RECORDINGS}.", default=[], nargs="+", metavar="FILE"),
    named("--output", "Folder for the files. Default: sweep.", default="sweep", metavar="DIR"),
)
_SPEAKERS = PrepareSettings.model_fields["speakers"]
COMMANDS: dict[str, tuple[Any, ...]] = {
    "sweep": (_sweep, "Convert one clip with many settings and checkpoints, and compare the figures.", *_SWEPT),
    "check": (
        _check,
        "Report versions, device and problems.",
        named("--gpu", "Also train a few steps of noise on the GPU, in under a minute.", action="store_true"),
        named(
            "--preset", "What --gpu trains. Default: v2-40k.", default="v2-40k", choices=[*PRESETS], metavar="PRESET"
        ),
    ),
    "inspect": (
        _inspect,
        "Report the quality of recordings.",
        named("dataset", RECORDINGS, metavar="PLACE"),
        named("--speakers", _SPEAKERS.description, default="one", choices=get_args(_SPEAKERS.annotation)),
    ),
    "f0": (
        _f0,
        "Write the pitch of a recording to a file. Edit it, then use it with rvc convert --f0-curve.",
        named("input", "A recording: its path, a zip of it or a link.", metavar="INPUT"),
        named("--output", "New file for lines of seconds,hz. Default: f0.csv.", default="f0.csv", metavar="FILE"),
        named("--f0-method", ConvertSettings.model_fields["f0_method"].description, default="auto", metavar="METHOD"),
    ),
    "evaluate": (
        _evaluate,
        "Measure the quality of a voice on recordings of other speakers, or of converted files.",
        *_EVALUATED,
        INDEX,
    ),
    "verdict": (
        _verdict,
        "Report which voice of a training is best, whether it is overtrained, and why.",
        named("name", "Name of the experiment.", metavar="NAME", nargs="?"),
        named("--metrics", "A metrics.jsonl file, instead of an experiment.", metavar="FILE"),
    ),
    "info": (
        _info,
        "Describe a voice, checkpoint, base model, index or zip.",
        named("file", "The file, or the name of an experiment: its newest voice.", metavar="VOICE|FILE"),
    ),
    "golden": (_golden, "Compare the networks with reference numbers.", ("folder", {"metavar": "DIR"})),
}
