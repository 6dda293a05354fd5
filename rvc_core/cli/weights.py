"""The commands ``rvc weights list | fetch | verify | bundle``."""

import argparse
import math
from pathlib import Path
from typing import Any

from ..assets import registry
from ..assets.bundle import TARGETS, make_bundle
from ..errors import WeightsError
from ..progress import Silent, Terminal

_NAMES = {"metavar": "NAME", "help": "files or folders as `rvc weights list` shows them, or presets (v2-40k)"}


def _list(arguments: argparse.Namespace) -> dict[str, Any]:
    return _report(arguments, list(registry.assets().values()), verify=False)


def _fetch(arguments: argparse.Namespace) -> dict[str, Any]:
    progress = Silent() if arguments.quiet else Terminal()
    chosen = registry.choose(arguments.names)
    for asset in chosen:
        registry.fetch(asset, progress)
    return _report(arguments, chosen, state="verified")


def _verify(arguments: argparse.Namespace) -> dict[str, Any]:
    chosen = (
        registry.choose(arguments.names)
        if arguments.names
        else [asset for asset in registry.assets().values() if registry.find(asset.name)]
    )
    if not chosen:
        raise WeightsError("no file of weights is here to verify", hint="get some with: rvc weights fetch v2-40k")
    return _report(arguments, chosen, verify=True)


def _bundle(arguments: argparse.Namespace) -> dict[str, Any]:
    output = Path(arguments.output or f"rvc_core-{arguments.target}.zip")
    return make_bundle(
        arguments.target,
        output,
        arguments.weights,
        with_torch=arguments.with_torch,
        progress=Silent() if arguments.quiet else Terminal(),
    )


def _report(
    arguments: argparse.Namespace, chosen: list[registry.Asset], *, verify: bool = False, state: str = ""
) -> dict[str, Any]:
    """Rows for `chosen`; a failure when hashes were asked for and one is not right."""
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
            "hint": "move damaged files away; get missing ones with: rvc weights fetch NAME",
        }
    return report


COMMANDS: dict[str, tuple[Any, ...]] = {
    "list": (_list, "show the files that can be fetched, and which are there"),
    "fetch": (
        _fetch,
        "download files and verify them; an interrupted one goes on",
        ("names", {**_NAMES, "nargs": "+"}),
    ),
    "verify": (_verify, "compare the hashes of files that are there", ("names", {**_NAMES, "nargs": "*"})),
    "bundle": (
        _bundle,
        "make an archive that sets up a machine without a network",
        (
            "--for",
            {
                "dest": "target",
                "required": True,
                "choices": [*TARGETS, "here"],
                "help": "the machine: its Python decides which wheels are in the archive",
            },
        ),
        ("--weights", {**_NAMES, "nargs": "*", "help": f"{_NAMES['help']}; default: all that are there"}),
        ("--output", {"metavar": "FILE", "help": "the archive (default: rvc_core-TARGET.zip)"}),
        ("--with-torch", {"action": "store_true", "help": "include torch; for `here` only"}),
    ),
}
