"""Notebooks that people saved go on working: they import what was called `rvc_core.ui` and `rvc_core.compare`."""

import subprocess
import sys

CELLS = """
from rvc_core import ConvertSettings, ui
from rvc_core import batch, compare
from rvc_core.ui import Form, players
from rvc_core import notebook
import rvc_core.ui
for name in notebook.__all__:
    assert getattr(rvc_core.ui, name) is getattr(notebook, name), name
assert callable(compare.compare) and callable(players.ab) and Form is ui.Form
try:
    ui.no_such_cell
except AttributeError:
    print("as before")
"""


def test_saved_notebooks_find_what_they_import() -> None:
    done = subprocess.run([sys.executable, "-c", CELLS], capture_output=True, text=True)
    assert done.stdout == "as before\n", done.stderr
