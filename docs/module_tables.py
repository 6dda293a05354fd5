"""Write the tables of docs/architecture.md from the code: ``python docs/module_tables.py``.

Each folder of the package, and each module with the first line of its docstring. With ``--check`` nothing is written,
and the exit status is 1 where the tables differ from the code.
"""

import ast
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PACKAGE, PAGE = ROOT / "rvc_core", ROOT / "docs" / "architecture.md"
BEGIN, END = "<!-- modules: made by docs/module_tables.py -->\n", "<!-- end of modules -->"

# What everything uses, then folders in the order of imports, then the API: each imports what stands before it.
ORDER = (
    ("errors", "presets", "settings_base", "settings", "song_settings", "progress"),
    "system",
    "audio",
    "nn",
    "assets",
    "features",
    "scoring",
    "workspace",
    "storage",
    "separation",
    "preparation",
    "verdict",
    "training",
    "voices",
    "conversion",
    "evaluation",
    ("voice", "experiment", "sweep", "batch"),
    "notebook",
    "cli",
)
DATA = "embedded"  # only says where its files are, so anybody may ask it


def first_line(path: Path) -> str:
    """The first line of a module's docstring; the first sentence of one that goes on."""
    return (ast.get_docstring(ast.parse(path.read_text("utf-8"))) or "").partition("\n")[0]


def tables() -> str:
    """All tables, in Markdown."""
    parts = []
    for step in ORDER:
        if isinstance(step, str):
            folder = PACKAGE / step
            parts.append(f"**`{step}/`** {first_line(folder / '__init__.py')}")
            paths = [path for path in sorted(folder.glob("*.py")) if not path.name.startswith("__")]
        else:
            parts.append("**`rvc_core/`** " + ("What everything uses." if step[0] == "errors" else "The API."))
            paths = [PACKAGE / f"{name}.py" for name in step]
        rows = [f"| `{path.name}` | {first_line(path)} |" for path in paths]
        parts.append("\n".join(["| module | what it is |", "|---|---|", *rows]) if rows else "")
    return "\n\n".join(filter(None, parts)) + "\n\n"


def main() -> int:
    """Write the page, or compare it."""
    text = PAGE.read_text("utf-8")
    head, rest = text.split(BEGIN)
    new = head + BEGIN + "\n" + tables() + END + rest.split(END)[1]
    if new != text and "--check" not in sys.argv:
        PAGE.write_text(new, "utf-8")
    return int(new != text and "--check" in sys.argv)


if __name__ == "__main__":
    sys.exit(main())
