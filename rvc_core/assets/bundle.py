"""Make a bundle: one archive of wheels and weights that sets up a machine without a network.

`make_bundle` runs on a machine with a network, `archive.unpack` on the one without. torch is left out, because notebook
platforms bring their own.
"""

import json
import os
import platform as machine
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Collection
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path
from typing import Any

from .. import __version__
from ..errors import ResourceError, SettingsError
from ..progress import Progress, Silent
from ..system.files import ensure_room, replace_atomically, sha256_of
from ..system.installation import versions
from . import registry
from .archive import BESIDE, open_archive, verified

EXTRAS = "faiss,world,evaluate,espeak"  # as setup_env.sh installs them
WITHOUT_DEPENDENCIES = ("Resemblyzer>=0.1.4", "speechmos>=0.0.1.1")
_BUILD_BACKEND = "flit_core>=3.11"  # a clone is installed in place, which needs a build
_TORCH = ("torch", "torchaudio")


@dataclass(frozen=True)
class Target:
    """A kind of machine that a bundle is made for.

    Attributes
    ----------
    python : str
        Its Python version.
    brings : dict
        Packages that it has and keeps; the wheels must fit them.
    """

    python: str
    brings: dict[str, str] = field(default_factory=dict)


TARGETS = {
    "kaggle": Target(  # Kaggle's docker-python repository, 2026-08-12
        "3.12",
        {
            "torch": "2.10.0",
            "torchaudio": "2.10.0",
            "numpy": "2.0.2",
            "tensorboard": "2.20.0",
            "protobuf": "5.29.5",
            "ipywidgets": "8.1.5",
        },
    ),
    "colab": Target(  # Colab's backend-info repository, 2026-08-19
        "3.13",
        {
            "torch": "2.11.0",
            "torchaudio": "2.11.0",
            "numpy": "2.1.3",
            "scipy": "1.16.3",
            "numba": "0.61.2",
            "librosa": "0.11.0",
            "transformers": "5.15.0",
            "huggingface_hub": "1.27.0",
            "matplotlib": "3.10.0",
            "tensorboard": "2.20.0",
            "protobuf": "5.29.6",
            "setuptools": "75.2.0",
            "ipywidgets": "7.7.1",
            "ipython": "7.34.0",
            "ipykernel": "6.17.1",
            "traitlets": "5.7.1",
            "nbclient": "0.10.4",
            "nbformat": "5.11.1",
            "nbconvert": "7.17.1",
        },
    ),
}


_WITHOUT_TORCH = {
    "kaggle": "left out: Kaggle brings it",
    "colab": "left out: Colab brings it",
    "here": "left out: the other machine needs torch 2.8 or newer, or a bundle made with --with-torch",
}


def make_bundle(
    target: str,
    output: Path,
    names: list[str] | None = None,
    *,
    with_torch: bool = False,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Write a bundle and verify it.

    Parameters
    ----------
    target : str
        ``kaggle``, ``colab`` or ``here`` (a machine like this one).
    output : Path
        The archive, a ``.zip``.
    names : list of str, optional
        Weights to include, as in `registry.choose`. Default: all weights on this machine.
    with_torch : bool
        Include torch, in the version that is installed here.

    Returns
    -------
    dict
        ``path``, ``bytes``, ``python``, ``wheels`` (count), ``weights`` (names) and ``torch`` (where it comes from).

    Raises
    ------
    WeightsError
        If weights are missing or damaged.
    ResourceError
        If uv finds no fitting packages, or pip cannot download or build a wheel.
    """
    progress, facts, source = progress or Silent(), _target(target), Path(__file__).parents[2]
    if with_torch and target != "here":
        raise SettingsError(f"{target} brings its own torch", hint="leave out --with-torch")
    if not all((source / name).is_file() for name in BESIDE):
        raise ResourceError(
            "a bundle is made from a clone of the repository, and rvc_core is not installed from one",
            hint="clone the repository, run bash setup_env.sh there, and make the bundle with it",
        )
    files = {f"weights/{asset.name}": path for asset, path in _present(names).items()}
    with tempfile.TemporaryDirectory() as folder:
        for path in _collect(source, Path(folder), target, facts, with_torch, progress):
            files[f"wheels/{path.name}"] = path
        files |= {name: source / name for name in BESIDE}
        progress.say("writing the archive")
        _write(output, files, _description(target, facts.python, with_torch))
    torch = "included" if with_torch else _WITHOUT_TORCH[target]
    return {
        "path": str(output),
        "bytes": output.stat().st_size,
        "python": facts.python,
        "torch": torch,
        "wheels": sum(name.startswith("wheels/") for name in files),
        "weights": [name.removeprefix("weights/") for name in files if name.startswith("weights/")],
    }


def _description(target: str, python: str, with_torch: bool) -> dict[str, Any]:
    return {
        "format": 1,
        "target": target,
        "python": python,
        "machine": machine.machine(),
        "made": date.today().isoformat(),
        "rvc_core": __version__,
        "with_torch": with_torch,
    }


def _write(output: Path, files: dict[str, Path], facts: dict[str, Any]) -> None:
    """Write the archive. It appears only after every file in it was read again and has the right hash."""
    entries = {name: {"bytes": path.stat().st_size, "sha256": sha256_of(path)} for name, path in files.items()}
    ensure_room(output.parent, sum(path.stat().st_size for path in files.values()), is_output=True)
    with replace_atomically(output) as temporary:
        with zipfile.ZipFile(temporary, "w") as archive:  # not compressed: wheels and weights are already
            archive.writestr("manifest.json", json.dumps({**facts, "files": entries}, indent=1))
            for name, path in files.items():
                archive.write(path, name)
        with open_archive(temporary) as read:
            for name, entry in entries.items():
                verified(read, name, entry, None)


def _target(name: str) -> Target:
    if name == "here":
        installed = versions()
        return Target(
            f"{sys.version_info.major}.{sys.version_info.minor}",
            {package: version for package in _TORCH if (version := installed[package])},
        )
    if name not in TARGETS:
        raise SettingsError(f"no bundle can be made for {name!r}", hint=f"choose {', '.join(TARGETS)} or here")
    return TARGETS[name]


def _present(names: list[str] | None) -> dict[registry.Asset, Path]:
    """Requested weights and their files, each with the right hash."""
    present = {}
    for asset in registry.assets().values() if names is None else registry.choose(names):
        if path := registry.find(asset.name):
            registry.require_hash(path, asset.sha256)
            present[asset] = path
        elif names is not None:
            raise registry.missing(asset.name, asset.name)
    return present


def _collect(
    source: Path, folder: Path, target: str, facts: Target, with_torch: bool, progress: Progress
) -> list[Path]:
    """Build the wheel of rvc_core and download the wheels of everything it needs on the target."""
    progress.say("building the wheel of rvc_core")
    wheels = folder / "wheels"
    _run("pip", "wheel", "--no-deps", "--wheel-dir", wheels, source)
    progress.say(f"finding the packages for Python {facts.python}")
    needed = _resolve(source, folder, facts, () if with_torch else _TORCH, here=target == "here")
    progress.say("downloading the wheels")
    common: list[str | Path] = ["pip", "download", "--no-deps", "--only-binary", ":all:", "--dest", wheels]
    if target != "here":
        common += _flags(facts.python)
    _run(*common, "--require-hashes", "--requirement", needed)
    _run(*common, *WITHOUT_DEPENDENCIES)
    return sorted(wheels.glob("*.whl"))


def _resolve(source: Path, folder: Path, facts: Target, left_out: Collection[str], here: bool = False) -> Path:
    """Write the packages that the target needs, with versions and hashes, without the packages `left_out`.

    uv does it, because pip evaluates ``python_version`` for the Python it runs on. uv is told that the packages
    `left_out` need no others, so CUDA is left out too.
    """
    constraints, wanted, config, needed = (folder / name for name in ("constraints", "wanted.in", "uv.toml", "needed"))
    constraints.write_text(
        "".join(
            f"{name}=={version.partition('+')[0] if name in left_out else version}\n"
            for name, version in facts.brings.items()
        )
    )
    wanted.write_text(_BUILD_BACKEND)
    config.write_text("".join(f'[[dependency-metadata]]\nname = "{name}"\nrequires-dist = []\n' for name in left_out))
    _run(
        *(
            "uv",
            "pip",
            "compile",
            source / "pyproject.toml",
            wanted,
            "--config-file",
            config,
            "--python",
            sys.executable,
        ),
        *("--constraints", constraints, "--output-file", needed, "--generate-hashes", "--only-binary", ":all:"),
        *(f"--extra={extra}" for extra in EXTRAS.split(",")),
        *(f"--no-emit-package={name}" for name in left_out),
        *(() if here else ("--python-version", facts.python, "--python-platform", "x86_64-manylinux_2_35")),
    )
    return needed


def _flags(python: str) -> list[str]:
    """Options of pip for another Python, on Linux with glibc 2.35 (Ubuntu 22.04, as on Colab and Kaggle)."""
    tag = "cp" + python.replace(".", "")
    flags = ["--python-version", python, "--implementation", "cp"]
    for abi in (tag, "abi3", "none"):
        flags += ["--abi", abi]
    for name in (
        *(f"manylinux_2_{minor}" for minor in range(35, 4, -1)),
        "manylinux2014",
        "manylinux2010",
        "manylinux1",
        "linux",
    ):
        flags += ["--platform", f"{name}_x86_64"]
    return flags


def _run(*command: str | Path) -> None:
    """Run a module of this Python, pip or uv. uv also follows the ``PIP_`` variables that say where packages are."""
    addresses = {f"UV_{name}": os.environ.get(f"PIP_{name}") for name in ("INDEX_URL", "FIND_LINKS")}
    done = subprocess.run(
        [sys.executable, "-m", *map(str, command)],
        env={name: value for name, value in addresses.items() if value} | os.environ,
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
        check=False,
    )
    if done.returncode:
        lines = [line for line in done.stderr.splitlines() if line.startswith("ERROR")] or done.stderr.split()
        raise ResourceError(
            f"{command[0]} {command[1]} failed: {' '.join(lines)[:400] or 'no reason given'}",
            hint="making a bundle takes a network, pip and uv; get uv with: pip install uv",
        )
