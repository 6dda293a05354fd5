"""Does a platform still fit us? Compare its list of packages with our ranges, and run its notebook.

``python notebooks/canary.py colab LIST`` reads LIST, a file or an address of lines ``name==version`` as ``pip freeze``
writes them, and fails if a package there is outside the range of pyproject.toml. With ``--run`` it also executes the
notebook with the demo voice on this machine, so run it inside the platform's image. docs/notebooks.md has a weekly CI.
"""

import argparse
import sys
import tempfile
import tomllib
import urllib.request
from collections.abc import Iterator
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

HERE = Path(__file__).parent
LISTS = {"colab": "https://raw.githubusercontent.com/googlecolab/backend-info/main/pip-freeze.txt"}
QUICK = {"epochs": 1, "batch_size": 16, "f0_method": "dio"}


def installed(text: str) -> dict[str, str]:
    """Versions by package, of what ``pip freeze`` writes.

    Examples
    --------
    >>> installed("NumPy==2.0.2\\ntorch @ https://x/torch-2.11.0.whl\\n# a note")
    {'numpy': '2.0.2'}
    """
    pairs = [line.strip().partition("==") for line in text.splitlines() if "==" in line and line[0] != "#"]
    return {canonicalize_name(name): version.partition(" ")[0] for name, _, version in pairs}


def misfits(there: dict[str, str], project: Path = HERE.parent / "pyproject.toml") -> Iterator[str]:
    """Packages of a platform outside the ranges that we declare; those that it lacks are installed there."""
    for line in tomllib.loads(project.read_text("utf-8"))["project"]["dependencies"]:
        wanted = Requirement(line)
        version = there.get(canonicalize_name(wanted.name))
        if version and not wanted.specifier.contains(version, prereleases=True):
            yield f"{wanted.name} {version} is there; we need {wanted.specifier}"


def main() -> int:
    """Check a platform; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("platform", choices=("colab", "kaggle", "lightning"))
    parser.add_argument("list", nargs="?", help="file or address of its packages; default: Colab's own list")
    parser.add_argument("--run", action="store_true", help="execute the notebook on this machine too")
    given = parser.parse_args()
    source = given.list or LISTS.get(given.platform)
    if source is None:
        parser.error(f"{given.platform} publishes no list: give a file that pip freeze wrote there")
    if source.startswith("https://"):
        with urllib.request.urlopen(source, timeout=60) as reply:
            text = reply.read().decode()
    else:
        text = Path(source).read_text("utf-8")
    found = list(misfits(installed(text)))
    print("\n".join(found) or f"all packages of {given.platform} fit")
    if given.run:
        import papermill

        with tempfile.TemporaryDirectory() as folder:
            notebook, settings = HERE / f"rvc_{given.platform}.ipynb", {"settings": QUICK, "storage": "none"}
            papermill.execute_notebook(notebook, Path(folder, "out.ipynb"), settings, cwd=folder, iopub_timeout=60)
        print("the notebook ran to its end")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
