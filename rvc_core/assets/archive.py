"""Use a bundle, packed or unpacked: verify it and put its wheels and weights in place.

``setup_env.sh --offline BUNDLE`` calls `unpack` before any package is installed, so this module and its imports need
only the standard library.
"""

import contextlib
import hashlib
import json
import platform as machine
import re
import sys
import zipfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any

from ..errors import ResourceError, UnsafeFileError, WeightsError
from ..system.files import ensure_room, replace_atomically
from ..system.inside import open_inside
from . import registry

_BLOCK_BYTES = 1 << 20
BESIDE = ("setup_env.sh", "pyproject.toml")  # so that a machine can be set up from the bundle without a clone
_NAME = re.compile(r"wheels/[\w.+-]+\.whl|weights(/\w[\w.-]*)+|" + "|".join(map(re.escape, BESIDE)), re.ASCII)


def unpack(bundle: Path, wheels: Path) -> list[Path]:
    """Verify a bundle, copy its wheels to the folder `wheels` and its weights to `registry.places`.

    Parameters
    ----------
    bundle : Path
        The archive, or the folder it was unpacked to. Kaggle unpacks uploads.

    Returns
    -------
    list of Path
        Path of each of its weights. Weights that were already there are verified, not copied.

    Raises
    ------
    WeightsError
        If the bundle is damaged or incomplete, or other files are in the place of its weights.
    ResourceError
        If it was made for another Python or processor.
    UnsafeFileError
        If it contains files that rvc_core does not put into a bundle.
    """
    placed = []
    with open_archive(bundle) as read:
        files = _files_of(bundle, read)
        ensure_room(wheels, sum(entry["bytes"] for name, entry in files.items() if name.startswith("wheels/")))
        for name, entry in files.items():
            kind, _, rest = name.partition("/")
            target = {"wheels": wheels / rest, "weights": registry.places(rest)[0]}.get(kind)
            if kind == "weights":
                if rest not in registry.assets() or registry.assets()[rest].sha256 != entry["sha256"]:
                    raise UnsafeFileError(
                        f"{bundle} has a file {rest} that is not the known one",
                        hint="do not use this bundle; make your own",
                    )
                if present := registry.find(rest):
                    registry.require_hash(present, entry["sha256"])
                    placed.append(present)
                    continue
                placed.append(registry.places(rest)[0])
                ensure_room(placed[-1].parent, entry["bytes"])
            verified(read, name, entry, target)
    return placed


@contextlib.contextmanager
def open_archive(bundle: Path) -> Iterator[Callable[[str], IO[bytes]]]:
    """Yield a function that opens a file of the bundle by name."""
    if bundle.is_dir():
        yield lambda name: open_inside(bundle / name, root=bundle)
        return
    if not bundle.is_file():
        raise WeightsError(f"no bundle at {bundle}", hint="make one with: rvc weights bundle")
    try:
        with zipfile.ZipFile(bundle) as archive:
            yield archive.open
    except (zipfile.BadZipFile, zlib.error, EOFError, RuntimeError) as error:  # RuntimeError: encrypted, odd methods
        raise WeightsError(f"{bundle} is no whole archive: {error}", hint="copy it again, completely") from error


def _files_of(bundle: Path, read: Callable[[str], IO[bytes]]) -> dict[str, dict[str, Any]]:
    """Read the manifest's list of files, and check its form, its names, and the machine it was made for."""
    try:
        with read("manifest.json") as file:
            manifest = json.loads(file.read(_BLOCK_BYTES))
        files, made_for = manifest["files"], (manifest["python"], manifest["machine"])
        whole = all(
            type(entry["bytes"]) is int and 0 <= entry["bytes"] < 1 << 40 and len(entry["sha256"]) == 64
            for entry in files.values()
        )
    except (OSError, KeyError, TypeError, ValueError, AttributeError, RecursionError) as error:
        raise WeightsError(
            f"{bundle} is not a bundle: its manifest.json cannot be read", hint="make one with: rvc weights bundle"
        ) from error
    if manifest.get("format") != 1 or not whole:
        raise WeightsError(f"{bundle} is a bundle of another kind", hint="make a bundle with this version of rvc_core")
    if bad := next((name for name in files if not _NAME.fullmatch(name)), None):
        raise UnsafeFileError(f"{bundle} has a file named {bad!r}", hint="do not use this bundle; make your own")
    here = f"{sys.version_info.major}.{sys.version_info.minor}", machine.machine()
    if made_for != here:
        raise ResourceError(
            f"this bundle is for Python {made_for[0]} on {made_for[1]}; this is {here[0]} on {here[1]}",
            hint="use that Python (RVC_PYTHON=/path/to/python), or make a bundle for this one",
        )
    return files


def verified(read: Callable[[str], IO[bytes]], name: str, entry: dict[str, Any], target: Path | None) -> None:
    """Check the hash of one file. If there is a target, copy the file to it, only if the hash is right."""
    with contextlib.ExitStack() as stack:
        temporary = stack.enter_context(replace_atomically(target)) if target else Path("/dev/null")
        digest, left_bytes = (
            hashlib.sha256(),
            entry["bytes"] + 1,
        )  # one more byte is noticed, and a zip bomb is not unpacked
        try:
            with read(name) as file, temporary.open("wb") as copy:
                while left_bytes and (block := file.read(min(_BLOCK_BYTES, left_bytes))):
                    digest.update(block)
                    copy.write(block)
                    left_bytes -= len(block)
        except (KeyError, FileNotFoundError):
            raise WeightsError(f"{name} is missing from the bundle", hint="copy the bundle again, completely") from None
        if digest.hexdigest() != entry["sha256"]:
            raise WeightsError(
                f"{name} has the sha256 {digest.hexdigest()}, not {entry['sha256']}",
                hint="the bundle is damaged: copy it again, or make a new one",
            )
