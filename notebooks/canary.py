"""Does a platform still fit us? Compare its list of packages with our ranges, and run its notebook.

``python notebooks/canary.py colab LIST`` reads LIST, a file or an address of lines ``name==version`` as ``pip freeze``
writes them, and fails if a package there is outside the range of pyproject.toml. With ``--run`` it also executes the
notebook with the demo voice on this machine, best inside the platform's image. What fitted and ran is written into
``tried.json``, of which ``build.py`` makes the notebooks' line about it. docs/notebooks.md has a weekly CI.
"""

import argparse
import datetime
import json
import os
import sys
import tempfile
import tomllib
import urllib.request
from collections.abc import Iterator
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from rvc_core.system.platforms import detect

HERE = Path(__file__).parent
TRIED = HERE / "tried.json"
LISTS = {"colab": "https://raw.githubusercontent.com/googlecolab/backend-info/main/pip-freeze.gpu.txt"}
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


def read(source: str) -> str:
    """The text of a file, or at an address."""
    if not source.startswith("https://"):
        return Path(source).read_text("utf-8")
    with urllib.request.urlopen(source, timeout=60) as reply:
        return str(reply.read().decode())


def run(platform: str) -> None:
    """Execute a platform's notebook to its end with the demo voice; its files go with a temporary folder.

    Raises
    ------
    papermill.PapermillExecutionError
        When a cell fails.
    """
    import papermill

    with tempfile.TemporaryDirectory() as folder:
        working = Path(folder, "notebooks")  # Install looks around it, and must not find somebody else's clone
        working.mkdir()
        os.environ |= {"RVC_HOME": folder, "PYTHONPATH": str(HERE.parent)}
        parameters = {"dataset": "demo", "settings": QUICK, "storage": "none"}
        papermill.execute_notebook(
            HERE / f"rvc_{platform}.ipynb", working / "out.ipynb", parameters, cwd=working, kernel_name="python3"
        )


def record(platform: str, **values: str) -> None:
    """Write down what was tried on a platform, beside what was tried before."""
    tried = json.loads(TRIED.read_text("utf-8"))
    tried[platform] = tried.get(platform, {}) | values
    TRIED.write_text(json.dumps(tried, indent=2, sort_keys=True) + "\n", "utf-8")


def main() -> int:
    """Check a platform; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("platform", choices=("colab", "kaggle", "lightning"))
    parser.add_argument("list", nargs="?", help="file or address of its packages; default: Colab's own list")
    parser.add_argument("--of", help="day of that list, as 2026-08-19; default: today")
    parser.add_argument("--run", action="store_true", help="execute the notebook on this machine too")
    given = parser.parse_args()
    source, found = given.list or LISTS.get(given.platform), []
    today = datetime.date.today().isoformat()
    if source is None and not given.run:
        parser.error(f"{given.platform} publishes no list: give a file that pip freeze wrote there")
    if source is not None:
        found = list(misfits(installed(read(source))))
        print("\n".join(found) or f"all packages of {given.platform} fit")
        if not found:
            record(given.platform, list=given.of or today, checked=today)
    if given.run:
        run(given.platform)
        print("the notebook ran to its end")
        record(given.platform, **{"there" if detect().name == given.platform else "elsewhere": today})
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
