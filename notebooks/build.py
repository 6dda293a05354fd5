"""Make the notebooks from their sources: ``python notebooks/build.py``; with ``--check`` only say whether they differ.

The unattended notebooks each have a source; their cell tagged ``parameters`` ends with every field of the settings that
they use, so a notebook's parameters, the command line's flags and the API are one declaration. The notebooks of the
platforms are all made of ``journey.py``, in each language, with the texts of ``rvc_core/notebook``.
"""

import argparse
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import jupytext
import nbformat

from rvc_core.batch import CONVERT_SETTINGS, TRAIN_SETTINGS, parameters_cell
from rvc_core.notebook.texts import LANGUAGES, texts
from rvc_core.system.platforms import detect

HERE = Path(__file__).parent
SETTINGS = {"batch_train": TRAIN_SETTINGS, "batch_convert": CONVERT_SETTINGS, "compare_checkpoints": CONVERT_SETTINGS}
KERNEL = {"display_name": "Python 3", "language": "python", "name": "python3"}
PLATFORMS = {  # the mark that `platforms.detect` knows each by, and where a project lies that a user brought there
    "colab": ("COLAB_RELEASE_TAG", ("/content",)),
    "kaggle": ("KAGGLE_KERNEL_RUN_TYPE", ("/kaggle/input", "/kaggle/input/datasets")),
    "lightning": ("LIGHTNING_CLOUD_SPACE_ID", ("..", "/teamspace/studios/this_studio")),
}


def notebooks() -> Iterator[tuple[Path, str]]:
    """Every notebook: its file, and its text without outputs, with stable cell ids."""
    for source in sorted((HERE / "source").glob("*.py")):
        if source.stem != "journey":
            yield HERE / f"{source.stem}.ipynb", _text(source.stem, jupytext.read(source).cells)
    for code in LANGUAGES:
        for platform in PLATFORMS:
            stem = f"rvc_{platform}"
            yield HERE / ("" if code == "en" else code) / f"{stem}.ipynb", _text(stem, _journey(platform, code))


def _text(stem: str, cells: list[nbformat.NotebookNode]) -> str:
    for number, cell in enumerate(cells):
        cell.id = f"{stem}-{number}".replace("_", "-")
        if "parameters" in cell.metadata.get("tags", []) and stem in SETTINGS:
            cell.source += "\n" + parameters_cell(*SETTINGS[stem])
    notebook = nbformat.v4.new_notebook(
        cells=cells, metadata={"kernelspec": KERNEL, "language_info": {"name": "python"}}
    )
    return nbformat.writes(notebook) + "\n"


def _journey(platform: str, code: str) -> list[nbformat.NotebookNode]:
    """The cells of the journey on one platform: where it has texts of its own, they follow the common ones."""
    prose, (mark, places) = texts(code)["prose"], PLATFORMS[platform]
    limits = "\n".join(
        f"- {texts(code).get('limits', {}).get(one.text, one.text)} ({one.date}, {one.source})"
        for one in detect({mark: ""}, exists=lambda path: False).limits
    )

    def told(match: re.Match[str]) -> str:
        found = [prose[key] for key in (match[1], f"{match[1]}_{platform}") if key in prose] or [match[0]]
        return "\n\n".join(text.strip() for text in found).replace("{limits}", limits)

    cells = []
    for cell in jupytext.read(HERE / "source" / "journey.py").cells[1:]:  # the first says what the file is
        if cell.metadata.pop("platform", platform) != platform:
            continue
        cell.source = re.sub(r"\{(\w+)\}", told, cell.source)
        cell.source = cell.source.replace("*PLACES", ", ".join(f'"{place}"' for place in places))
        cells.append(cell)
    return cells


def main() -> int:
    """Write the notebooks, or with ``--check`` compare; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing; fail if a notebook is out of step")
    check = parser.parse_args().check
    stale = []
    for target, text in notebooks():
        if not target.exists() or target.read_text("utf-8") != text:
            stale.append(str(target.relative_to(HERE)))
            if not check:
                target.parent.mkdir(exist_ok=True)
                target.write_text(text, "utf-8")
    print(("out of step: " if check else "written: ") + (", ".join(stale) or "none"))
    return 1 if check and stale else 0


if __name__ == "__main__":
    sys.exit(main())
