"""The commands that make voices of other files or many at once, and that send voices out and take them in."""

import argparse
from dataclasses import asdict
from pathlib import Path
from typing import Any

from ..progress import Silent, Terminal
from ..system.files import slug_of
from ..workspace.layout import Layout, voice_path

_VOICE = {"metavar": "VOICE", "help": "a voice file, or the name of an experiment"}
_OUTPUT = {"default": "exported", "metavar": "DIR", "help": "folder for the results (default: exported)"}


def _export(arguments: argparse.Namespace) -> dict[str, Any]:
    from ..voices.share import export_voice

    return asdict(
        export_voice(
            voice_path(arguments.voice), Path(arguments.output), layout=arguments.layout, file_format=arguments.format
        )
    )


def _import(arguments: argparse.Namespace) -> dict[str, Any]:
    from ..preparation.foreign import open_foreign
    from ..preparation.foreign_folder import is_foreign
    from ..voices.share import import_voices

    progress = Silent() if arguments.quiet else Terminal()
    if is_foreign(folder := Path(arguments.source).expanduser()):
        layout = Layout.of(arguments.name or folder.absolute().name)
        return {"experiment": asdict(open_foreign(folder, layout, progress=progress))}
    made = import_voices(arguments.source, name=arguments.name, progress=progress)
    return {"voices": [asdict(voice) for voice in made]}


def _merge(arguments: argparse.Namespace) -> dict[str, Any]:
    from ..voices.merge import merge_voices

    first, second = voice_path(arguments.first), voice_path(arguments.second)
    layout = Layout.of(arguments.name or f"{first.stem}+{second.stem}")
    return asdict(merge_voices(first, second, layout, alpha=arguments.alpha))


def _annotate(arguments: argparse.Namespace) -> dict[str, Any]:
    from ..voices.merge import annotate

    return asdict(
        annotate(voice_path(arguments.voice), note=arguments.note, name=arguments.name, author=arguments.author)
    )


def _extract(arguments: argparse.Namespace) -> dict[str, Any]:
    from ..voices.merge import extract_voice

    output = Path(arguments.output) if arguments.output else None
    return asdict(extract_voice(Path(arguments.checkpoint), output, name=arguments.name))


def _onnx(arguments: argparse.Namespace) -> dict[str, Any]:
    from ..voices.onnx_export import export_onnx

    path = voice_path(arguments.voice)
    return asdict(export_onnx(path, Path(arguments.output) / f"{slug_of(path.stem)}.onnx"))


def _save(arguments: argparse.Namespace) -> dict[str, Any]:
    from ..storage.places import save

    return save(Layout.of(arguments.name), arguments.to).as_json()


def _restore(arguments: argparse.Namespace) -> dict[str, Any]:
    from ..storage.places import find_saved, restore

    if arguments.name:
        return restore(arguments.name, getattr(arguments, "from")).as_json()
    return {"saved": [save.as_json() for save in find_saved(getattr(arguments, "from"))]}


_PLACE = {"default": "auto", "metavar": "PLACE", "help": "a folder or kaggle:OWNER/DATASET (default: the platform's)"}


def _batch(arguments: argparse.Namespace) -> dict[str, Any]:
    from ..batch import run_all

    rows = run_all(Path(arguments.file), Path(arguments.output), Silent() if arguments.quiet else Terminal())
    failed = [row for row in rows if row["state"] == "failed"]
    report = {
        "runs": rows,
        **{state: sum(row["state"] == state for row in rows) for state in ("done", "skipped", "failed")},
    }
    return report | (
        {
            "error": f"{len(failed)} of {len(rows)} runs failed: {failed[0]['name']}: {failed[0]['error']}",
            "hint": failed[0]["hint"],
            "failed_command": True,
        }
        if failed
        else {}
    )


COMMANDS: dict[str, tuple[Any, ...]] = {
    "export": (
        _export,
        "write a voice where RVC WebUI or Applio look for it, or into a zip",
        ("voice", _VOICE),
        ("--layout", {"default": "rvc", "choices": ["rvc", "applio", "zip"], "help": "for whom (default: rvc)"}),
        ("--format", {"default": "pth", "choices": ["pth", "safetensors"], "help": "of the voice in a zip"}),
        ("--output", {**_OUTPUT, "help": "that program's folder, or any other (default: exported)"}),
    ),
    "import": (
        _import,
        "take in voices with their indexes, or an experiment folder of RVC WebUI or Applio",
        ("source", {"metavar": "ZIP|PTH|FOLDER|URL", "help": "where they are"}),
        ("--name", {"default": "", "metavar": "NAME", "help": "what to call it (default: its own name)"}),
    ),
    "merge": (
        _merge,
        "mix two voices of one architecture, and their indexes",
        ("first", _VOICE),
        ("second", _VOICE),
        (
            "--alpha",
            {"type": float, "default": 0.5, "metavar": "SHARE", "help": "share of the first, 0 to 1 (default: 0.5)"},
        ),
        ("--name", {"default": "", "metavar": "NAME", "help": "what to call it (default: FIRST+SECOND)"}),
    ),
    "annotate": (
        _annotate,
        "change what a voice file says about itself",
        ("voice", _VOICE),
        ("--note", {"metavar": "TEXT", "help": "what RVC shows as its info"}),
        ("--name", {"metavar": "NAME", "help": "its name"}),
        ("--author", {"metavar": "NAME", "help": "who made it"}),
    ),
    "extract-voice": (
        _extract,
        "make the small voice of a training checkpoint",
        ("checkpoint", {"metavar": "G_FILE", "help": "G_….pth: ours, RVC WebUI's or Applio's"}),
        ("--output", {"metavar": "FILE", "help": "the voice (default: beside the checkpoint)"}),
        ("--name", {"default": "", "metavar": "NAME", "help": "its name (default: the experiment's)"}),
    ),
    "save": (
        _save,
        "save an experiment to storage that outlives this machine",
        ("name", {"metavar": "NAME", "help": "name of the experiment"}),
        ("--to", _PLACE),
    ),
    "restore": (
        _restore,
        "bring a saved experiment back; without a name, list what is saved",
        ("name", {"metavar": "NAME", "nargs": "?", "help": "name of the experiment"}),
        ("--from", _PLACE),
    ),
    "batch": (
        _batch,
        "train the voices of a YAML file, each in a notebook of its own; what is done is skipped",
        ("file", {"metavar": "RUNS.yaml", "help": "its runs: name, dataset, maybe convert, and any setting"}),
        ("--output", {"default": "batch", "metavar": "DIR", "help": "notebooks and results (default: batch)"}),
    ),
    "onnx": (_onnx, "write a voice as ONNX and compare the two", ("voice", _VOICE), ("--output", _OUTPUT)),
}
