"""The commands ``rvc weights list | fetch | verify | bundle``."""

import argparse
import math
from pathlib import Path
from typing import Any

from ..assets import registry
from ..assets.bundle import TARGETS, make_bundle
from ..errors import SettingsError, WeightsError
from .arguments import named, progress_of

_NAMES = {
    "metavar": "NAME",
    "help": "Files or folders from `rvc weights list`, presets such as v2-40k, or vocals, lead, dereverb.",
}


def _list(arguments: argparse.Namespace) -> dict[str, Any]:
    return _report(arguments, list(registry.assets().values()), verify=False)


def _fetch(arguments: argparse.Namespace) -> dict[str, Any]:
    chosen = registry.choose(arguments.names)
    progress = progress_of(arguments)
    for asset in chosen:
        if asset.licence == "unknown" and not registry.find(asset.name):
            progress.say(f"{asset.name}: its authors state no licence; use it at your own risk")
        registry.fetch(asset, progress)
    return _report(arguments, chosen, state="verified")


def _verify(arguments: argparse.Namespace) -> dict[str, Any]:
    chosen = (
        registry.choose(arguments.names)
        if arguments.names
        else [asset for asset in registry.assets().values() if registry.find(asset.name)]
    )
    if not chosen:
        raise WeightsError("no weights files on this machine", hint="download some: rvc weights fetch v2-40k")
    return _report(arguments, chosen, verify=True)


def _bundle(arguments: argparse.Namespace) -> dict[str, Any]:
    output = Path(arguments.output or f"rvc_core-{arguments.target}.zip")
    if output.is_dir():
        raise SettingsError(f"--output {output} is a folder", hint="give the name of the archive: bundle.zip")
    return make_bundle(
        arguments.target,
        output,
        arguments.weights,
        with_torch=arguments.with_torch,
        progress=progress_of(arguments),
    )


def _report(
    arguments: argparse.Namespace, chosen: list[registry.Asset], *, verify: bool = False, state: str = ""
) -> dict[str, Any]:
    """List `chosen`; with `verify`, the command fails if a hash is wrong."""
    rows: list[dict[str, Any]] = [
        {
            "name": asset.name,
            "state": state or registry.state_of(asset, verify),
            "sha256": asset.sha256,
            "path": str(registry.find(asset.name) or registry.places(asset.name)[0]),
            "bytes": asset.size_bytes,
            "licence": asset.licence,
            "url": asset.url,
        }
        for asset in chosen
    ]
    if not arguments.json:
        for row in rows:
            size = f"{math.ceil(row['bytes'] / 1e6)} MB" if row["bytes"] else "?"
            print(f"{row['state']:9} {size:>7}  {row['licence']:8} {row['name']}")
    report: dict[str, Any] = {"weights": rows} if arguments.json else {}
    if verify and (bad := [row for row in rows if row["state"] != "verified"]):
        report |= {
            "error": ", ".join(f"{row['name']} is {row['state']}" for row in bad),
            "failed_command": True,
            "hint": "move damaged files away, then download again: rvc weights fetch NAME",
        }
    return report


COMMANDS: dict[str, tuple[Any, ...]] = {
    "list": (_list, "List the files that you can download, and which are present."),
    "fetch": (
        _fetch,
        "Download and verify files. Interrupted downloads resume.",
        ("names", {**_NAMES, "nargs": "+"}),
    ),
    "verify": (_verify, "Check the hashes of the files that are present.", ("names", {**_NAMES, "nargs": "*"})),
    "bundle": (
        _bundle,
        "Make an archive that installs rvc_core on a machine without internet.",
        named(
            "--for",
            "The target machine; it determines the wheels in the archive.",
            dest="target",
            required=True,
            choices=[*TARGETS, "here"],
        ),
        ("--weights", {**_NAMES, "nargs": "*", "help": f"{_NAMES['help']} Default: all that are present."}),
        named("--output", "The archive. Default: rvc_core-TARGET.zip.", metavar="FILE"),
        named("--with-torch", "Include torch. Only with `--for here`.", action="store_true"),
    ),
}
