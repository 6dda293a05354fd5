"""Make the notebooks from their sources: ``python notebooks/build.py``; with ``--check`` only say whether they differ.

The cell tagged ``parameters`` ends with every field of the settings that the notebook uses, so a notebook's parameters,
the command line's flags and the API are one declaration.
"""

import argparse
import sys
from pathlib import Path

import jupytext
import nbformat

from rvc_core.batch import CONVERT_SETTINGS, TRAIN_SETTINGS, parameters_cell

HERE = Path(__file__).parent
SETTINGS = {"batch_train": TRAIN_SETTINGS, "batch_convert": CONVERT_SETTINGS, "compare_checkpoints": CONVERT_SETTINGS}
KERNEL = {"display_name": "Python 3", "language": "python", "name": "python3"}


def notebook_text(source: Path) -> str:
    """The notebook that belongs to a source file, without outputs, with stable cell ids."""
    notebook = jupytext.read(source)
    for number, cell in enumerate(notebook.cells):
        cell.id = f"{source.stem}-{number}".replace("_", "-")
        if "parameters" in cell.metadata.get("tags", []):
            cell.source += "\n" + parameters_cell(*SETTINGS[source.stem])
    notebook.metadata = nbformat.from_dict({"kernelspec": KERNEL, "language_info": {"name": "python"}})
    notebook.nbformat_minor = 5
    return nbformat.writes(notebook) + "\n"


def main() -> int:
    """Write the notebooks, or with ``--check`` compare; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing; fail if a notebook is out of step")
    check = parser.parse_args().check
    stale = []
    for source in sorted((HERE / "source").glob("*.py")):
        target, text = HERE / f"{source.stem}.ipynb", notebook_text(source)
        if not target.exists() or target.read_text("utf-8") != text:
            stale.append(target.name)
            if not check:
                target.write_text(text, "utf-8")
    print(("out of step: " if check else "written: ") + (", ".join(stale) or "none"))
    return 1 if check and stale else 0


if __name__ == "__main__":
    sys.exit(main())
