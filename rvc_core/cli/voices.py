"""The commands that export, import, merge, save and restore voices, or train many of them."""

import argparse
from dataclasses import asdict
from pathlib import Path
from typing import Any

from ..conversion.naming import ensure_folder
from ..system.files import slug_of
from ..workspace.layout import Layout, refuse_unknown, voice_path
from .arguments import named, progress_of

_VOICE = {"metavar": "VOICE", "help": "A voice file, or the name of an experiment."}
_OUTPUT = {"default": "exported", "metavar": "DIR", "help": "Folder for the results. Default: exported."}


def _export(arguments: argparse.Namespace) -> dict[str, Any]:
    from ..voices.share import export_voice

    output = Path(arguments.output)
    is_zip = output.suffix.lower() == ".zip" and not output.is_dir()
    layout = arguments.layout or ("zip" if is_zip else "rvc")
    return asdict(export_voice(voice_path(arguments.voice), output, layout=layout, file_format=arguments.format))


def _import(arguments: argparse.Namespace) -> dict[str, Any]:
    from ..preparation.foreign import is_foreign, open_foreign
    from ..voices.share import import_voices

    progress = progress_of(arguments)
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

    path, output = voice_path(arguments.voice), Path(arguments.output)
    if output.suffix.lower() != ".onnx" or output.is_dir():
        ensure_folder(arguments.output)
        output = output / f"{slug_of(path.stem)}.onnx"
    return asdict(export_onnx(path, output))


def _save(arguments: argparse.Namespace) -> dict[str, Any]:
    from ..storage.places import save

    refuse_unknown(layout := Layout.of(arguments.name))
    return save(layout, arguments.to).as_json()


def _restore(arguments: argparse.Namespace) -> dict[str, Any]:
    from ..storage.places import find_saved, restore

    if arguments.name:
        return restore(arguments.name, getattr(arguments, "from")).as_json()
    return {"saved": [save.as_json() for save in find_saved(getattr(arguments, "from"))]}


_PLACE = {
    "default": "auto",
    "metavar": "PLACE",
    "help": "A folder or kaggle:OWNER/DATASET. Default: the platform's storage.",
}


def _batch(arguments: argparse.Namespace) -> dict[str, Any]:
    from ..batch import run_all

    ensure_folder(arguments.output)
    rows = run_all(Path(arguments.file), Path(arguments.output), progress_of(arguments))
    failed = [row for row in rows if row["state"] == "failed"]
    report = {
        "runs": rows,
        **{state: sum(row["state"] == state for row in rows) for state in ("done", "skipped", "failed")},
    }
    if failed:
        report |= {
            "error": f"{len(failed)} of {len(rows)} runs failed: {failed[0]['name']}: {failed[0]['error']}",
            "hint": failed[0]["hint"],
            "failed_command": True,
        }
    return report


def _tidy(arguments: argparse.Namespace) -> dict[str, Any]:
    from ..notebook.session import all_chosen
    from ..preparation.leftovers import bytes_of, leftovers, remove

    found = vars(leftovers(all_chosen()))
    listed = {kind: [{"path": str(path), "bytes": bytes_of(path)} for path in paths] for kind, paths in found.items()}
    return listed | {
        "freed_bytes": remove(path for kind, paths in found.items() if getattr(arguments, kind) for path in paths)
    }


COMMANDS: dict[str, tuple[Any, ...]] = {
    "export": (
        _export,
        "Write a voice into the folders of RVC WebUI or Applio, or into a zip.",
        ("voice", _VOICE),
        named(
            "--layout",
            "Program to export for. Default: zip if --output ends in .zip, else rvc.",
            choices=["rvc", "applio", "zip"],
        ),
        named("--format", "Format of the voice in a zip. Default: pth.", default="pth", choices=["pth", "safetensors"]),
        ("--output", {**_OUTPUT, "help": "The program's folder, or any other. Default: exported."}),
    ),
    "import": (
        _import,
        "Import voices with their indexes, or an experiment folder of RVC WebUI or Applio.",
        named("source", "File, folder or address to import.", metavar="ZIP|PTH|FOLDER|URL"),
        named("--name", "Name of the voice here. Default: its own.", default="", metavar="NAME"),
    ),
    "merge": (
        _merge,
        "Merge two voices of the same architecture, and their indexes.",
        ("first", _VOICE),
        ("second", _VOICE),
        named("--alpha", "Weight of FIRST, 0 to 1. Default: 0.5.", type=float, default=0.5, metavar="SHARE"),
        named("--name", "Name of the new voice. Default: FIRST+SECOND.", default="", metavar="NAME"),
    ),
    "annotate": (
        _annotate,
        "Change the name, author or note in a voice file.",
        ("voice", _VOICE),
        named("--note", "Text that RVC shows as the model's info.", metavar="TEXT"),
        named("--name", "Name of the voice.", metavar="NAME"),
        named("--author", "Author of the voice.", metavar="NAME"),
    ),
    "extract-voice": (
        _extract,
        "Extract the small voice file from a training checkpoint.",
        named("checkpoint", "A G_….pth of rvc_core, RVC WebUI or Applio.", metavar="G_FILE"),
        named("--output", "The voice file. Default: beside the checkpoint.", metavar="FILE"),
        named("--name", "Name of the voice. Default: the experiment's.", default="", metavar="NAME"),
    ),
    "save": (
        _save,
        "Save an experiment to persistent storage.",
        named("name", "Name of the experiment.", metavar="NAME"),
        ("--to", _PLACE),
    ),
    "restore": (
        _restore,
        "Restore a saved experiment. Without a name, list the saved ones.",
        named("name", "Name of the experiment.", metavar="NAME", nargs="?"),
        ("--from", _PLACE),
    ),
    "tidy": (
        _tidy,
        "List what nothing uses any more, with sizes, and remove it if you say so.",
        named(
            "--recordings",
            "Remove uploads, and what was fetched or unpacked, that no voice was made of.",
            action="store_true",
        ),
        named("--set-aside", "Remove trainings that --begin-again moved aside.", action="store_true"),
    ),
    "batch": (
        _batch,
        "Train the voices of a YAML file, each in its own notebook. Finished runs are skipped.",
        named("file", "Runs with name, dataset, optionally convert, and any option.", metavar="RUNS.yaml"),
        named("--output", "Folder for notebooks and results. Default: batch.", default="batch", metavar="DIR"),
    ),
    "onnx": (_onnx, "Export a voice to ONNX and check that it matches.", ("voice", _VOICE), ("--output", _OUTPUT)),
}
