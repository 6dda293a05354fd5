"""Notebooks in a real browser: JupyterLab served on this machine, opened in Chromium by Playwright.

Tests that use it are skipped where there is no Chromium: `apt install chromium` on Debian and Ubuntu; no browser is
downloaded. With RVC_REQUIRE_BROWSER=1, as in continuous integration, they fail there instead.
"""

import contextlib
import importlib.util
import json
import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import nbformat
import pytest

TESTS = Path(__file__).parent
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
_TOKEN = "tests"
# Without windows that nobody asked for; and cells keep their place in the page when they are scrolled out of sight.
_SETTINGS = {
    "apputils-extension/notification": {"fetchNews": "false", "checkForUpdates": False},
    "notebook-extension/tracker": {"windowingMode": "none"},
}


def need_browser() -> None:
    """Skip the test where there is no browser, or fail where there has to be one."""
    missing = [package for package in ("playwright", "jupyterlab") if importlib.util.find_spec(package) is None]
    if missing or not CHROMIUM:
        reason = f"no {' and no '.join([*missing, *([] if CHROMIUM else ['Chromium'])])} on this machine"
        (pytest.fail if os.environ.get("RVC_REQUIRE_BROWSER") else pytest.skip)(f"{reason}: see tests/browser.py")


@contextlib.contextmanager
def jupyter_lab(folder: Path, environment: Mapping[str, str] = os.environ) -> Iterator[str]:
    """The address of a JupyterLab that shows `folder`; tests' own modules can be imported in its notebooks."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    paths = os.pathsep.join([str(TESTS), str(TESTS / "notebook"), str(TESTS.parent), environment.get("PYTHONPATH", "")])
    for name, values in _SETTINGS.items():
        file = folder / ".jupyter" / "settings" / "@jupyterlab" / f"{name}.jupyterlab-settings"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps(values))
    own = {
        "JUPYTER_CONFIG_DIR": str(folder / ".jupyter"),
        "JUPYTERLAB_SETTINGS_DIR": str(folder / ".jupyter/settings"),
        "JUPYTERLAB_WORKSPACES_DIR": str(folder / ".jupyter/workspaces"),
        "PYTHONPATH": paths,
    }
    server = subprocess.Popen(
        [
            sys.executable,
            "-m",
            "jupyterlab",
            "--no-browser",
            "--allow-root",
            f"--port={port}",
            f"--notebook-dir={folder}",
            f"--IdentityProvider.token={_TOKEN}",
            "--LabApp.expose_app_in_browser=True",
        ],
        env={**environment, **own},
        stdout=subprocess.DEVNULL,
        stderr=(folder / "jupyter.log").open("wb"),
        start_new_session=True,
    )
    try:
        for _ in range(600):
            with contextlib.suppress(urllib.error.URLError):
                urllib.request.urlopen(f"http://127.0.0.1:{port}/api?token={_TOKEN}", timeout=5).close()
                break
            time.sleep(0.2)
        yield f"http://127.0.0.1:{port}"
    finally:
        server.terminate()
        server.wait(20)


@contextlib.contextmanager
def chromium() -> Iterator[Any]:
    """A Playwright browser."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


def write_notebook(path: Path, *cells: str) -> None:
    """A notebook of code cells."""
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in cells])
    notebook.metadata["kernelspec"] = {"display_name": "Python 3", "language": "python", "name": "python3"}
    nbformat.write(notebook, path)


class Notebook:
    """A notebook on a page of its own."""

    def __init__(self, browser: Any, lab: str, name: str, *, width: int = 1100, dark: bool = False) -> None:
        self.page = browser.new_page(viewport={"width": width, "height": 1100})
        self.page.goto(f"{lab}/doc/tree/{name}?token={_TOKEN}")
        self.page.wait_for_selector(".jp-Notebook .jp-Cell", timeout=120_000)
        if dark:
            self.command("apputils:change-theme", theme="JupyterLab Dark")
        self.page.wait_for_function(
            "window.jupyterapp.shell.currentWidget?.context?.sessionContext?.session?.kernel?.status === 'idle'",
            timeout=120_000,
        )

    def command(self, name: str, **arguments: object) -> None:
        """One of JupyterLab's commands."""
        self.page.evaluate(
            "([name, options]) => { window.jupyterapp.commands.execute(name, options); }", [name, arguments]
        )

    def run_all(self) -> None:
        """Begin to run all cells."""
        self.command("notebook:run-all-cells")

    def _place(self, code: str) -> int:
        return self.page.evaluate(
            "code => window.jupyterapp.shell.currentWidget.content.widgets.findIndex("
            "one => one.model.type === 'code' && one.model.sharedModel.getSource().includes(code))",
            code,
        )

    def cell(self, cell: int | str) -> Any:
        """A cell, by its number or by its code, which may be hidden; a Playwright locator."""
        return self.page.locator(".jp-Cell").nth(cell if isinstance(cell, int) else self._place(cell))

    def output(self, cell: int | str) -> Any:
        """What a cell shows, a Playwright locator."""
        return self.cell(cell).locator(".jp-Cell-outputWrapper")

    def run(self, code: str, *, wait: bool = True, seconds: float = 120) -> Any:
        """Click into a cell, or on the text above it if its code is hidden; press Shift and Enter; what it shows."""
        place, before = self._place(code), self.number(code)
        if self.cell(place).locator(".cm-content").count():
            self.cell(place).locator(".cm-content").click()
        else:
            self.cell(place - 1).locator(".jp-RenderedHTMLCommon").first.click(position={"x": 200, "y": 5})
            self.page.keyboard.press("Shift+Enter")
        self.page.keyboard.press("Shift+Enter")
        if wait:
            self.wait_until_run(code, before, seconds)
        return self.output(place)

    def number(self, code: str) -> str:
        """What stands beside a cell once it ran; empty before, and while it runs."""
        script = "place => window.jupyterapp.shell.currentWidget.content.widgets[place].model.executionCount"
        return str(self.page.evaluate(script, self._place(code)) or "")

    def wait_until_run(self, code: str, before: str, seconds: float) -> None:
        """Wait until a cell has run, whose number was `before`."""
        deadline = time.monotonic() + seconds
        while self.number(code) in ("", before):
            assert time.monotonic() < deadline, f"{code} has not run within {seconds:.0f} s"
            self.page.wait_for_timeout(300)

    def errors(self) -> list[str]:
        """What cells failed with."""
        return self.page.locator('.jp-RenderedText[data-mime-type="application/vnd.jupyter.stderr"]').all_inner_texts()

    def save(self) -> dict[str, Any]:
        """Save it, and give back what is in the file's cells by now."""
        self.command("docmanager:save")
        self.page.wait_for_timeout(1500)
        return self.page.evaluate("window.jupyterapp.shell.currentWidget.content.model.toJSON()")
