"""What the documents and notebooks say is so."""

import argparse
import json
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import soundfile

from rvc_core.batch import CONVERT_SETTINGS, TRAIN_SETTINGS
from rvc_core.cli import _parser
from rvc_core.embedded import voice_folder

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text("utf-8")
PAGES = [*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").glob("*.md"))]
NAMES = [str(page.relative_to(ROOT)) for page in PAGES]
_FENCE = re.compile(r"^```.*?^```$", re.MULTILINE | re.DOTALL)


def command_of(words: list[str]) -> argparse.ArgumentParser:
    """The parser of ``rvc COMMAND …``; of ``rvc weights ACTION …``, the action's."""
    parser = _parser()
    for word in words[1:]:
        if parser._subparsers is None:
            break
        choices = parser._subparsers._group_actions[0].choices
        assert word in choices, f"no such command: {' '.join(words)}"
        parser = choices[word]
    return parser


def test_the_readme_is_short_and_leads_to_every_page() -> None:
    words = len(README.split())
    assert words <= 900
    assert not [page.name for page in (ROOT / "docs").glob("*.md") if f"](docs/{page.name}" not in README]


@pytest.mark.parametrize("page", PAGES, ids=NAMES)
def test_commands_in_code_blocks_exist_and_take_their_flags(page: Path) -> None:
    blocks = _FENCE.findall(page.read_text("utf-8"))
    for line in (line for block in blocks for line in block.splitlines() if line.startswith("rvc ")):
        words = shlex.split(line.partition(" > ")[0], comments=True)
        flags = {word.partition("=")[0] for word in words if word.startswith("--")}
        assert flags <= command_of(words)._option_string_actions.keys(), line  # in full: argparse takes short forms
        _parser().parse_args(words[1:])  # nothing is missing or too much


@pytest.mark.parametrize("page", PAGES, ids=NAMES)
def test_commands_in_sentences_exist_and_take_their_flags(page: Path) -> None:
    for command in re.findall(r"`rvc ([a-z][^`]*)`", _FENCE.sub("", page.read_text("utf-8"))):
        words = command.split()
        flags = {word for word in words if word.startswith("--")}
        assert flags <= command_of(["rvc", *words])._option_string_actions.keys(), command


def anchors_of(page: Path) -> set[str]:
    """What links may name behind ``#``: the headings of a page, as GitHub spells them."""
    headings = re.findall(r"^#+ (.*)$", _FENCE.sub("", page.read_text("utf-8")), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=NAMES)
def test_relative_links_resolve(page: Path) -> None:
    for link in re.findall(r"\]\(([^)\s]+)\)", _FENCE.sub("", page.read_text("utf-8"))):
        if "://" in link:
            continue
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        assert target.is_file() and target.is_relative_to(ROOT), link
        assert not anchor or anchor in anchors_of(target), link


def test_notebooks_are_in_step_with_their_sources() -> None:
    done = subprocess.run(
        [sys.executable, str(ROOT / "notebooks" / "build.py"), "--check"],
        capture_output=True,
        text=True,
        env={"PYTHONPATH": str(ROOT), "PATH": ""},
    )
    assert done.returncode == 0, done.stdout + done.stderr


NOTEBOOKS = sorted((ROOT / "notebooks").rglob("*.ipynb"))


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: f"{path.parent.name}-{path.stem}")
def test_notebooks_are_clean_short_and_take_every_setting(path: Path) -> None:
    cells = [cell for cell in json.loads(path.read_text("utf-8"))["cells"] if cell["cell_type"] == "code"]
    assert all(not cell["outputs"] and cell["execution_count"] is None for cell in cells)
    [parameters] = [cell for cell in cells if "parameters" in cell["metadata"].get("tags", [])]
    for cell in cells:  # Install finds and fetches the package itself, before there is any of its code to call
        is_install = "notebook.check(" in cell["source"][-1]
        code = [line for line in cell["source"] if not line.startswith("#@")]  # Colab's form is no code
        assert len(code) <= (50 if is_install else 12) or cell is parameters
    values: dict[str, object] = {}
    exec("".join(parameters["source"]), values)
    known = {"batch_train": TRAIN_SETTINGS, "batch_convert": CONVERT_SETTINGS, "compare_checkpoints": CONVERT_SETTINGS}
    for settings in known.get(path.stem, ()):
        for name, field in settings.model_fields.items():
            assert values[name] == field.default, name


@pytest.mark.parametrize(
    "path",
    [path for path in NOTEBOOKS if path.stem.startswith("rvc_")],
    ids=lambda path: f"{path.parent.name}-{path.stem}",
)
def test_the_journey_has_a_text_before_each_cell_and_none_of_what_platforms_bar(path: Path) -> None:
    cells = json.loads(path.read_text("utf-8"))["cells"]
    assert cells[0]["cell_type"] == "markdown" and "{" not in "".join(
        "".join(cell["source"]) for cell in cells if cell["cell_type"] == "markdown"
    ).replace('{"epochs"', "")
    for cell in cells[1:]:
        if cell["cell_type"] == "markdown":
            title, duration = cell["source"][:2]
            assert title.startswith("## ") and duration.startswith("*"), title  # what it is, how long it takes
    code = [cell for cell in cells if cell["cell_type"] == "code"]
    place = {"".join(cell["source"]).splitlines()[-1]: number for number, cell in enumerate(code)}
    assert len(code) <= 20 and place["notebook.listen()"] < 9, "nine cells make a voice"
    asked = json.loads(path.read_text("utf-8"))["metadata"]
    if path.stem == "rvc_colab":
        assert asked["accelerator"] == "GPU" and all(cell["metadata"]["cellView"] == "form" for cell in code)
        assert all(cell["source"][0].startswith("#@title ") for cell in code)
    else:
        shown = [cell for cell in code if not cell["metadata"].get("jupyter", {}).get("source_hidden")]
        assert len(shown) == 2 and shown[0]["metadata"]["tags"] == ["parameters"] and "#@" not in json.dumps(cells)
    if path.stem == "rvc_kaggle":
        assert asked["kaggle"]["isInternetEnabled"] and asked["kaggle"]["isGpuEnabled"]
    text = path.read_text("utf-8").lower()
    assert not [
        word
        for word in (
            "ngrok",
            "localtunnel",
            "gradio",
            "rvc-project",
            "applio",
            "rot13",
            "base64",
            "retrieval-based-voice-conversion-webui",
        )
        if word in text
    ]


def test_the_ten_lines_of_the_readme_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("RVC_HOME", str(tmp_path))
    shutil.copytree(voice_folder("source"), "alice_recordings")
    shutil.copy(next(voice_folder("target").glob("*.flac")), "song.wav")
    code = README.split("```python")[1].split("```")[0]
    exec(code.replace("max_minutes=10", "epochs=1"), {})
    assert 3 < soundfile.info("song_as_alice.flac").duration < 6
