"""Make the notebooks from their sources: ``python notebooks/build.py``; with ``--check`` only say whether they differ.

The README's badges are made here too. They and the cell Install take the project's address from pyproject.toml, where
``[project.urls]`` may declare a ``Repository``; without one there are no badges, and the reader fills in the address.

The unattended notebooks each have a source; their cell tagged ``parameters`` ends with every field of the settings that
they use, so a notebook's parameters, the command line's flags and the API are one declaration. The notebooks of the
platforms are all made of ``journey.py``, in each language, with the texts of ``rvc_core/notebook``.
"""

import argparse
import json
import re
import sys
import textwrap
import tomllib
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

import jupytext
import nbformat

from rvc_core import SpeakSettings
from rvc_core.batch import CONVERT_SETTINGS, SONG_SETTINGS, TRAIN_SETTINGS, parameters_cell
from rvc_core.notebook.texts import LANGUAGES, texts

HERE = Path(__file__).parent
LIMITS = tomllib.loads((HERE / "source" / "limits.toml").read_text("utf-8"))
SETTINGS = {
    "batch_train": TRAIN_SETTINGS,
    "batch_convert": (SpeakSettings, *CONVERT_SETTINGS, *SONG_SETTINGS),
    "compare_checkpoints": CONVERT_SETTINGS,
}
KERNEL = {"display_name": "Python 3", "language": "python", "name": "python3"}
PLATFORMS = {  # where a project lies that a user brought there
    "colab": ("/content",),
    "kaggle": ("/kaggle/input", "/kaggle/input/datasets"),
    "lightning": ("..", "/teamspace/studios/this_studio"),
}
TITLES = {"colab": "Google Colab", "kaggle": "Kaggle", "lightning": "Lightning.AI"}
BRANCH = "main"
BADGES = {  # picture, and where it leads; of other hosts than GitHub no platform opens a notebook
    "colab": ("https://colab.research.google.com/assets/colab-badge.svg", "https://colab.research.google.com/{path}"),
    "kaggle": ("https://kaggle.com/static/images/open-in-kaggle.svg", "https://kaggle.com/kernels/welcome?src={url}"),
    "lightning": (
        "https://pl-bolts-doc-images.s3.us-east-2.amazonaws.com/app-2/studio-badge.svg",
        "https://lightning.ai/new?repo_url={quoted}",
    ),
}
TITLES = {"colab": "Open in Colab", "kaggle": "Open in Kaggle", "lightning": "Open in Studio"}
METADATA: dict[str, dict[str, object]] = {  # ask a platform for a GPU and for Internet
    "colab": {"accelerator": "GPU", "colab": {"gpuType": "T4", "provenance": []}},
    "kaggle": {
        "kaggle": {
            "accelerator": "nvidiaTeslaT4",
            "dataSources": [],
            "isGpuEnabled": True,
            "isInternetEnabled": True,
            "language": "python",
            "sourceType": "notebook",
        }
    },
}
HIDDEN: dict[str, dict[str, object]] = {  # how each hides the code of a cell
    "colab": {"cellView": "form"},
    "kaggle": {"_kg_hide-input": True, "jupyter": {"source_hidden": True}},
    "lightning": {"jupyter": {"source_hidden": True}},
}
_PARAM = re.compile(r"^(\w+ = .*?) *# (.*?) (#@param .*)$")
_WIDTH = 100  # of a message in a cell of code
_BADGES = re.compile(r"(<!-- badges -->\n).*?(<!-- /badges -->)", re.DOTALL)


def repository(project: Path = HERE.parent) -> str:
    """The address that pyproject.toml declares; empty without one."""
    urls = tomllib.loads((project / "pyproject.toml").read_text("utf-8"))["project"].get("urls", {})
    return str(urls.get("Repository", "")).removesuffix("/").removesuffix(".git")


def badge(platform: str, folder: str, address: str) -> str:
    """Markdown of the picture that opens a notebook on its platform; empty where that cannot be."""
    if not (known := re.fullmatch(r"https://github\.com/([\w.-]+/[\w.-]+)", address)):
        return ""
    place = f"{known[1]}/blob/{BRANCH}/notebooks/{folder}rvc_{platform}.ipynb"
    picture, link = BADGES[platform]
    url = f"https://github.com/{place}"
    return f"[![{TITLES[platform]}]({picture})]({link.format(path=f'github/{place}', url=url, quoted=quote(url, ''))})"


def readme(text: str, address: str) -> str:
    """The README with its badges, or without."""
    badges = "\n".join(filter(None, (badge(platform, "", address) for platform in PLATFORMS)))
    return _BADGES.sub(lambda found: found[1] + (badges and f"{badges}\n") + found[2], text)


def written(address: str) -> Iterator[tuple[Path, str]]:
    """Every file that is made here, and its text."""
    yield from notebooks(address)
    page = HERE.parent / "README.md"
    yield page, readme(page.read_text("utf-8"), address)


def notebooks(address: str) -> Iterator[tuple[Path, str]]:
    """Every notebook: its file, and its text without outputs, with stable cell ids."""
    for source in sorted((HERE / "source").glob("*.py")):
        if source.stem != "journey":
            yield HERE / f"{source.stem}.ipynb", _text(source.stem, jupytext.read(source).cells)
    for code in LANGUAGES:
        for platform in PLATFORMS:
            stem = f"rvc_{platform}"
            folder = "" if code == "en" else f"{code}/"
            yield HERE / folder / f"{stem}.ipynb", _text(stem, _journey(platform, code, address))


def _text(stem: str, cells: list[nbformat.NotebookNode]) -> str:
    asked = METADATA.get(stem.removeprefix("rvc_"), {})
    for number, cell in enumerate(cells):
        cell.id = f"{stem}-{number}".replace("_", "-")
        if "parameters" in cell.metadata.get("tags", []) and stem in SETTINGS:
            cell.source += "\n" + parameters_cell(*SETTINGS[stem])
    notebook = nbformat.v4.new_notebook(
        cells=cells, metadata={"kernelspec": KERNEL, "language_info": {"name": "python"}, **asked}
    )
    return nbformat.writes(notebook) + "\n"


def tried(platform: str, code: str) -> str:
    """On which image a notebook was last tried, as canary.py wrote it down."""
    known, prose = json.loads((HERE / "tried.json").read_text("utf-8")).get(platform, {}), texts(code)["prose"]
    ran = next((key for key in ("there", "elsewhere") if key in known), "never")
    told = [prose["tried_list"]] if "list" in known else []
    return " ".join([*told, prose[f"tried_{ran}"]]).format(**known, platform=TITLES[platform])


def _journey(platform: str, code: str, address: str) -> list[nbformat.NotebookNode]:
    """The cells of the journey on one platform: where it has texts of its own, they follow the common ones."""
    prose, places = texts(code)["prose"] | {"repository": address}, PLATFORMS[platform]
    prose["title"] = prose["title"].replace("{gpu}", prose[f"gpu_{platform}"]) + f"\n*{tried(platform, code)}*"
    limits = "\n".join(
        f"- {texts(code).get('limits', {}).get(one['text'], one['text'])} ({one['date']}, {one['source']})"
        for one in LIMITS[platform]
    )

    def told(match: re.Match[str]) -> str:
        found = [prose[key] for key in (match[1], f"{match[1]}_{platform}") if key in prose] or [match[0]]
        text = between.join(text.strip() for text in found).replace("{limits}", limits)
        return textwrap.fill(text, _WIDTH) if match.string[: match.start()].endswith('"""') else text

    cells = []
    for cell in jupytext.read(HERE / "source" / "journey.py").cells[1:]:  # the first says what the file is
        if cell.metadata.pop("platform", platform) != platform:
            continue
        between = " " if cell.cell_type == "code" else "\n\n"
        cell.source = re.sub(r"\{(\w+)\}", told, cell.source)
        cell.source = cell.source.replace("*PLACES", ", ".join(f'"{place}"' for place in places))
        if cell.cell_type == "code":
            _dress(cell, platform, cells[-1].source.splitlines()[0].lstrip("# "))
        cells.append(cell)
    if shown := badge(platform, "" if code == "en" else f"{code}/", address):
        cells[0].source += f"\n\n{shown}"
    return cells


def _dress(cell: nbformat.NotebookNode, platform: str, title: str) -> None:
    """Give a cell its title and hide its code; on Colab its values become fields."""
    on_colab, lines = platform == "colab", [("#@title " if platform == "colab" else "# ") + title]
    for line in cell.source.splitlines():
        if line.endswith("#@elsewhere" if on_colab else "#@colab"):
            continue
        line = re.sub(r" *#@(elsewhere|colab)$", "", line)
        if on_colab and (found := _PARAM.match(line)):
            value, about, field = found.groups()
            lines += [f"#@markdown {about}", f"{value} {field}"]
        else:
            lines.append(re.sub(r" #@param .*$", "", line))
    cell.source = "\n".join(lines)
    if on_colab or not (cell.metadata.get("tags") or "clips, checkpoints" in cell.source):  # people change those
        cell.metadata |= HIDDEN[platform]


def main() -> int:
    """Write the notebooks, or with ``--check`` compare; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing; fail if a notebook is out of step")
    check = parser.parse_args().check
    stale = []
    for target, text in written(repository()):
        if not target.exists() or target.read_text("utf-8") != text:
            stale.append(str(target.relative_to(HERE.parent)))
            if not check:
                target.parent.mkdir(exist_ok=True)
                target.write_text(text, "utf-8")
    print(("out of step: " if check else "written: ") + (", ".join(stale) or "none"))
    return 1 if check and stale else 0


if __name__ == "__main__":
    sys.exit(main())
