"""The cell Install on each platform: what it finds, fetches and runs, and that every failure is two sentences."""

import functools
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Callable
from dataclasses import dataclass
from datetime import date
from pathlib import Path

import papermill
import pytest

from rvc_core.notebook.texts import LANGUAGES

ROOT = Path(__file__).parents[2]
sys.path.append(str(ROOT / "notebooks"))
import build  # noqa: E402
import canary  # noqa: E402

# Stands for the project: it says what it is, and its set-up and first cell leave a note of themselves.
SETUP = 'echo "$0 ${1:-}" >>"$HOME/ran"\n'
CHECK = "import os, pathlib\ndef check(*_): pathlib.Path(os.environ['HOME'], 'checked').write_text(__file__)\n"
GIT = {f"GIT_{who}_{what}": "tests@example.org" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")}


def project(folder: Path, name: str = "rvc_core") -> Path:
    (folder / "rvc_core" / "notebook").mkdir(parents=True)
    (folder / "rvc_core" / "embedded").mkdir()
    for module in ("", "embedded/"):
        (folder / "rvc_core" / module / "__init__.py").touch()
    (folder / "rvc_core" / "notebook" / "__init__.py").write_text(CHECK)
    (folder / "pyproject.toml").write_text(f'[project]\nname = "{name}"\n')
    (folder / "setup_env.sh").write_text(SETUP)
    return folder


def git(folder: Path, *words: str) -> str:
    done = subprocess.run(["git", "-C", folder, *words], capture_output=True, text=True, env={**os.environ, **GIT})
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def repository(folder: Path, name: str = "rvc_core") -> str:
    project(folder, name)
    git(folder, "init", "-q", "-b", "main")
    git(folder, "add", "-A")
    git(folder, "commit", "-qm", "first")
    return f"file://{folder}"


@dataclass
class Machine:
    """Where the cell runs: the folders of a platform, inside a test's own."""

    root: Path
    platform: str = "colab"
    code: str = "en"

    def at(self, path: str) -> Path:
        """``/content`` and the like, inside the test's folder."""
        return self.root / path.lstrip("/")

    def run(self, address: str = "", git: str = "", typed: str | None = None) -> str:
        """What the cell says: nothing when all went well; `git` stands for an answer of git's, `typed` of a person."""
        cells = build._journey(self.platform, self.code, address)
        [cell] = [cell.source for cell in cells if "notebook.check(" in cell.source]
        for place in build.PLATFORMS[self.platform]:
            cell = cell.replace(f'"{place}"', f'"{self.at(place) if place.startswith("/") else place}"')
        if typed is not None:
            cell = f"input = lambda asked: {typed!r} if 'its address' in asked else asked\n{cell}"
        working = self.at({"colab": "/content", "kaggle": "/kaggle/working"}.get(self.platform, "/studio/notebooks"))
        working.mkdir(parents=True, exist_ok=True)
        (self.root / "home").mkdir(exist_ok=True)
        (self.root / "bin").mkdir(exist_ok=True)
        if git:
            (self.root / "bin" / "git").write_text(f'#!/bin/sh\necho "$@" >>"{self.root}/asked"\n{git}\n')
            (self.root / "bin" / "git").chmod(0o755)
        environment = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "RVC_LANG")}
        environment |= {"HOME": str(self.root / "home"), "PATH": f"{self.root / 'bin'}:{os.environ['PATH']}", **GIT}
        said, self.told = in_a_kernel(cell, working, environment)
        return said

    def used(self) -> str:
        """The folder whose set-up ran and whose package was imported: one and the same, once."""
        home = self.root / "home"
        [ran] = (home / "ran").read_text().splitlines()
        (home / "ran").unlink()
        folder = Path((home / "checked").read_text()).parents[2]
        working = self.at({"colab": "/content", "kaggle": "/kaggle/working"}.get(self.platform, "/studio/notebooks"))
        assert (working / ran.strip().removesuffix("/setup_env.sh")).resolve() == folder.resolve()
        return os.path.relpath(folder, self.root)


# As kernels run cells: an error is shown by what it says of itself. Each has a process of its own, forked from one that
# has imported IPython; so the hundred kernels of this file start at once.
KERNELS = """
import json, os, signal, sys
from IPython.core.interactiveshell import InteractiveShell
from traitlets.config import Config
plain = Config(HistoryManager={"enabled": False})
InteractiveShell(config=plain)  # imports the rest
hidden = [place for place in sys.path if os.path.isfile(place + "/rvc_core/settings.py")]  # it is installed here
for line in sys.stdin:
    asked = json.loads(line)
    if child := os.fork():
        print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
        continue
    signal.alarm(100)
    for number, place in enumerate([os.devnull, asked["out"], asked["err"]]):
        os.dup2(os.open(place, os.O_RDWR | os.O_CREAT), number)
    sys.stdin = open(0)
    os.environ.clear()
    os.environ.update(asked["environment"])
    os.chdir(asked["working"])
    sys.path = [place for place in sys.path if place not in hidden] + os.environ.get("INSTALLED", "").split()
    shell = InteractiveShell.instance(config=plain)
    for repeat in range(asked["times"]):
        shell.run_cell(asked["cell"], store_history=False)
    sys.stdout.flush()
    os._exit(0)
"""


@functools.cache
def kernels() -> subprocess.Popen[str]:
    command = [sys.executable, "-B", "-c", KERNELS]
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    environment["HOME"] = os.environ["RVC_HOME"]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment)


def in_a_kernel(cell: str, working: Path, environment: dict[str, str], times: int = 1) -> tuple[str, str]:
    """What a cell prints, to stdout and to stderr, where it runs in a new kernel, once or several times."""
    with tempfile.TemporaryDirectory() as folder:
        out, err = Path(folder, "out"), Path(folder, "err")
        asked = {"cell": cell, "working": str(working), "environment": environment, "times": times}
        process = kernels()
        process.stdin.write(json.dumps(asked | {"out": str(out), "err": str(err)}) + "\n")
        process.stdin.flush()
        status, said, told = process.stdout.readline().strip(), out.read_text("utf-8"), err.read_text("utf-8")
    assert status == "0" and "Traceback" not in said + told, said + told
    return said.strip(), told


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


# -- among the files -----------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("platform", "place"),
    [
        ("colab", "content/rvc_core"),
        ("colab", "content/drive/MyDrive/rvc"),
        ("kaggle", "kaggle/input/rvc-core/rvc_core-main"),
        ("kaggle", "kaggle/input/datasets/me/rvc/rvc_core-main"),
        ("lightning", "studio"),
        ("lightning", "teamspace/studios/this_studio/my projects/rvc"),
    ],
)
def test_the_project_is_found_where_a_platform_puts_it(tmp_path: Path, platform: str, place: str) -> None:
    machine = Machine(tmp_path, platform)
    project(tmp_path / place)
    assert machine.run() == "" and machine.used() == place


@pytest.mark.parametrize("platform", build.PLATFORMS)
def test_another_project_s_script_is_never_run(tmp_path: Path, platform: str) -> None:
    machine = Machine(tmp_path, platform)
    for number, place in enumerate(
        ("content/a", "kaggle/input/a", "studio/a", "studio", "teamspace/studios/this_studio")
    ):
        (tmp_path / place).mkdir(parents=True, exist_ok=True)
        (tmp_path / place / "setup_env.sh").write_text(SETUP)
        name = ("other", 'rvc_core_fork", "x', "my_rvc_core")[number % 3]
        (tmp_path / place / "pyproject.toml").write_text(f'[project]\nname = "{name}"\ndependencies = ["rvc_core"]\n')
    assert "was not found with PROJECT = ''. Give its address" in machine.run()
    assert not (tmp_path / "home" / "ran").exists()
    there = {"colab": "content/b", "kaggle": "kaggle/input/b", "lightning": "studio/b"}[platform]
    project(tmp_path / there)
    assert machine.run() == "" and machine.used() == there


def test_one_that_is_installed_is_used_where_nothing_else_is_named(
    machine: Machine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("INSTALLED", str(project(tmp_path / "site-packages")))
    assert "was not found with PROJECT = '/nowhere'" in machine.run("/nowhere")
    checked = tmp_path / "home" / "checked"
    assert not checked.exists()
    assert machine.run() == "" and "site-packages" in checked.read_text()
    assert not (tmp_path / "home" / "ran").exists(), "it is as it is"
    project(tmp_path / "content" / "rvc")
    assert machine.run() == "" and machine.used() == "content/rvc"


def test_a_person_is_asked_where_it_is_only_if_nothing_is_found(tmp_path: Path) -> None:
    machine = Machine(tmp_path, "lightning")
    there = project(tmp_path / "far away" / "rvc")
    assert machine.run(typed=f" {there} ") == "" and machine.used() == "far away/rvc"
    assert "was not found with PROJECT = '/nowhere'" in machine.run(typed="/nowhere")
    assert "was not found with PROJECT = '/typing'" in machine.run("/typing", typed=str(there)), "it is named already"
    project(tmp_path / "studio" / "rvc")
    assert machine.run(typed=str(there)) == "" and machine.used() == "studio/rvc"


def zipped(folder: Path, target: Path) -> Path:
    """As GitHub offers it: one folder, named after the branch, is everything."""
    target.parent.mkdir(parents=True, exist_ok=True)
    archive = shutil.make_archive(str(target.parent / "made"), "zip", folder.parent, folder.name)
    return Path(shutil.move(archive, target))


def test_the_zip_that_github_offers_is_unpacked_and_a_newer_one_replaces_it(machine: Machine, tmp_path: Path) -> None:
    source = project(tmp_path / "github" / "rvc_core-main")
    (source / "old").touch()
    zip_file = zipped(source, tmp_path / "content" / "rvc_core-main (1).zip")
    unpacked = "home/.cache/rvc_core/unpacked/rvc_core-main"
    assert machine.run() == "" and machine.used() == unpacked and (tmp_path / unpacked / "old").exists()
    (source / "old").unlink()
    zipped(source, zip_file)
    assert machine.run(str(zip_file)) == "" and machine.used() == unpacked
    assert not (tmp_path / unpacked / "old").exists()
    project(tmp_path / "content" / "rvc_core-main")  # unpacked by hand, perhaps changed: that one
    assert machine.run() == "" and machine.used() == "content/rvc_core-main"


@pytest.mark.parametrize("damage", ["truncated", "another project's", "text"])
def test_a_zip_that_is_not_the_project_is_two_sentences(machine: Machine, tmp_path: Path, damage: str) -> None:
    name = "other" if damage == "another project's" else "rvc_core"
    zip_file = zipped(project(tmp_path / "github" / "x-main", name), tmp_path / "content" / "my-rvc.zip")
    if damage != "another project's":
        zip_file.write_bytes(zip_file.read_bytes()[:-200] if damage == "truncated" else b"hello /rvc_core/embedded/")
    assert "Give its address" in machine.run() and not (tmp_path / "home" / "ran").exists()


def test_an_offline_bundle_installs_itself(tmp_path: Path) -> None:
    machine = Machine(tmp_path, "kaggle")
    place = tmp_path / "kaggle" / "input" / "rvc-bundle"
    project(place)
    shutil.rmtree(place / "rvc_core" / "embedded")
    (place / "pyproject.toml").unlink()
    (place / "manifest.json").write_text(json.dumps({"format": 1, "rvc_core": "0.1.0"}, indent=1))
    assert machine.run() == "" and machine.used() == "kaggle/input/rvc-bundle"


# -- an address ----------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("platform", build.PLATFORMS)
def test_an_address_means_exactly_that_project(tmp_path: Path, platform: str) -> None:
    machine = Machine(tmp_path, platform)
    for place in ("content/x", "kaggle/input/x", "studio"):
        project(tmp_path / place)
    address = repository(tmp_path / "served" / "rvc")
    for _ in range(2):
        assert machine.run(address) == ""
        assert "/rvc_core_project/" in machine.used()
    other = repository(tmp_path / "served" / "fork")
    before = machine.run(other), machine.used()
    assert "fork" in before[1] and machine.run(address) == "" and machine.used() != before[1]


@pytest.mark.parametrize(
    ("typed", "fetched"),
    [
        ("github.com/me/rvc", "https://github.com/me/rvc"),
        (" www.github.com/me/rvc/ ", "https://www.github.com/me/rvc"),
        ("https://github.com/me/rvc/", "https://github.com/me/rvc"),
        ("https://github.com/me/rvc.git", "https://github.com/me/rvc.git"),
        ("git clone https://github.com/me/rvc.git", "https://github.com/me/rvc.git"),
        ("https://github.com/me/rvc/blob/main/notebooks/rvc_colab.ipynb", "-b main https://github.com/me/rvc"),
        ("github.com/me/rvc/tree/dev", "-b dev https://github.com/me/rvc"),
        ("gitlab.com/a/b/rvc", "https://gitlab.com/a/b/rvc"),
        ("git@github.com:me/rvc.git", "git@github.com:me/rvc.git"),
    ],
)
def test_addresses_are_taken_as_people_paste_them(machine: Machine, tmp_path: Path, typed: str, fetched: str) -> None:
    machine.run(typed, git="exit 1")
    assert (tmp_path / "asked").read_text().rpartition(" rvc_core_project")[0] == f"clone -q --depth=1 {fetched}"


NO_INTERNET = "fatal: unable to access 'https://github.com/me/rvc/': Could not resolve host: github.com"
PRIVATE = "fatal: could not read Username for 'https://github.com': terminal prompts disabled"


@pytest.mark.parametrize("code", ["en", "pt"])
@pytest.mark.parametrize("platform", build.PLATFORMS)
@pytest.mark.parametrize(
    ("typed", "answer", "said"),
    [
        ("", "", ""),
        ("https://github.com/me/rvc", NO_INTERNET, "Could not resolve host"),
        ("github.com/me/private", PRIVATE, "terminal prompts disabled"),
        ("https://github.com/me/{rvc}", "fatal: repository not found", "not found"),
        ("/content/drive/MyDrive/rvc", "", "/content/drive/MyDrive/rvc"),
        ("~/rvc", "", "~/rvc"),
        ("me", "", "me"),
    ],
)
def test_every_failure_is_two_sentences(
    tmp_path: Path, platform: str, code: str, typed: str, answer: str, said: str
) -> None:
    machine = Machine(tmp_path, platform, code)
    told = machine.run(typed, git=f'echo "Cloning" >&2; echo "{answer}" >&2; exit 128' if answer else "")
    assert said in told and len(told.splitlines()) == 1 and len(told) < 420
    assert told.endswith(".") and "PROJECT" in told or answer
    assert re.search("GitHub|github|Internet|internet", told) and not (tmp_path / "home" / "ran").exists()
    if platform == "colab" and typed.startswith("/content/drive"):
        assert re.search("[Mm]ount Drive|monte antes o Drive", told)


def test_a_machine_without_git_and_a_repository_of_something_else(machine: Machine, tmp_path: Path) -> None:
    other = repository(tmp_path / "served" / "other", name="other")
    for _ in range(2):
        assert "cannot be fetched" in machine.run(other)
    assert not (tmp_path / "home" / "ran").exists()
    assert "it is another project" in Machine(tmp_path / "fresh").run(other)
    assert "not found" in machine.run("github.com/me/rvc", git="echo 'git: not found' >&2; exit 127")


def test_an_installation_that_fails_is_told_by_its_own_words(machine: Machine, tmp_path: Path) -> None:
    place = project(tmp_path / "content" / "rvc_core")
    (place / "setup_env.sh").write_text("echo 'setup_env: no room on the disk' >&2; exit 1\n")
    assert "did not finish. The last lines above say why" in machine.run()
    assert "no room on the disk" in machine.told and not (tmp_path / "home" / "checked").exists()


def test_no_line_of_the_cell_is_longer_than_a_screen() -> None:
    for platform in build.PLATFORMS:
        for code in build.LANGUAGES:
            lines = [line for cell in build._journey(platform, code, "") for line in cell.source.splitlines()
                     if cell.cell_type == "code"]  # fmt: skip
            assert max(map(len, lines)) <= 130, max(lines, key=len)


def test_what_was_imported_before_is_imported_again(tmp_path: Path) -> None:
    """A second run in the same kernel, after the project was changed, uses the new one."""
    place = project(tmp_path / "content" / "rvc_core")
    (place / "setup_env.sh").write_text(
        SETUP + "echo \"def check(*_): print('newer' if $(wc -l <\"$HOME/ran\") > 1 else 'older')\" "
        f'>"{place}/rvc_core/notebook/__init__.py"\n'
    )
    cells = build._journey("colab", "en", "")
    [cell] = [cell.source for cell in cells if "notebook.check(" in cell.source]
    (tmp_path / "home").mkdir()
    environment = {**os.environ, "HOME": str(tmp_path / "home"), "PYTHONPATH": ""}
    said, _ = in_a_kernel(
        cell.replace('"/content"', f'"{tmp_path}/content"'), tmp_path / "content", environment, times=2
    )
    assert said.split() == ["older", "newer"]


# -- updates: setup_env.sh -----------------------------------------------------------------------------------------
@pytest.fixture
def fetched(tmp_path: Path) -> tuple[Path, Path, Callable[[], subprocess.CompletedProcess[str]]]:
    """The repository, what a notebook fetched of it, and the set-up's update; the script is the real one."""
    served = tmp_path / "served"
    repository(served)
    shutil.copy(ROOT / "setup_env.sh", served)
    git(served, "commit", "-qam", "the real set-up")
    clone = tmp_path / "rvc_core_project" / "x"
    git(tmp_path, "clone", "-q", "--depth=1", f"file://{served}", str(clone))

    def update() -> subprocess.CompletedProcess[str]:
        code = f'source "{clone}/setup_env.sh"; update help; echo "went on"'
        environment = {name: value for name, value in os.environ.items() if name != "RVC_UPDATED"} | GIT
        return subprocess.run(["bash", "-c", code], capture_output=True, text=True, env=environment)

    return served, clone, update


def test_a_second_run_takes_the_newest_commit(fetched) -> None:
    served, clone, update = fetched
    assert update().stdout == "went on\n"
    (served / "newer").touch()
    git(served, "add", "-A")
    git(served, "commit", "-qm", "newer")
    (clone / "untracked").touch()
    done = update()
    assert "updated to" in done.stdout and "newer" in done.stdout and "One command from" in done.stdout, done.stderr
    assert (clone / "newer").exists() and (clone / "untracked").exists()
    assert update().stdout == "went on\n"
    git(served, "commit", "-q", "--amend", "-m", "history was rewritten", "--allow-empty")
    assert "rewritten" in update().stdout


@pytest.mark.parametrize(("command", "newest"), [("", True), ("install", True), ("check", False), ("help", False)])
def test_only_an_installation_updates_and_the_newest_script_installs(fetched, command: str, newest: bool) -> None:
    served, clone, _ = fetched
    (served / "setup_env.sh").write_text("echo the newest script $*")
    git(served, "commit", "-qam", "newer")
    code = f'source "{clone}/setup_env.sh"; install() {{ echo "$1"; }}; check() {{ echo check; }}; main {command}'
    done = subprocess.run(["bash", "-c", code], capture_output=True, text=True)
    assert ("the newest script" in done.stdout) == newest, done.stdout + done.stderr
    assert newest != (git(clone, "log", "-1", "--format=%s") != "newer")


def test_a_bundle_is_installed_by_the_script_inside_it(tmp_path: Path) -> None:
    for place, told in (("bundle", str(tmp_path / "bundle")), ("clone", "")):
        (tmp_path / place).mkdir()
        (tmp_path / place / "manifest.json").touch()
        shutil.copy(ROOT / "setup_env.sh", tmp_path / place)
        if place == "clone":
            (tmp_path / place / "rvc_core").mkdir()
        code = f'source "{tmp_path / place}/setup_env.sh"; install() {{ echo "from: $bundle"; }}; locate; main install'
        done = subprocess.run(["bash", "-c", code], capture_output=True, text=True)
        assert done.stdout.splitlines()[0] == f"from: {told}", done.stderr


@pytest.mark.parametrize("change", ["edited", "committed", "staged"])
def test_changes_of_one_s_own_are_kept_and_said(fetched, change: str) -> None:
    served, clone, update = fetched
    (served / "newer").touch()
    git(served, "add", "-A")
    git(served, "commit", "-qm", "newer")
    (clone / "pyproject.toml").write_text("mine")
    if change != "edited":
        git(clone, "add", "-A")
    if change == "committed":
        git(clone, "commit", "-qm", "mine")
    done = update()
    assert "has changes of your own" in done.stdout and done.stdout.endswith("went on\n")
    assert (clone / "pyproject.toml").read_text() == "mine" and not (clone / "newer").exists()


def test_without_internet_what_was_fetched_is_used(fetched) -> None:
    served, clone, update = fetched
    shutil.move(served, served.with_name("gone"))
    done = update()
    assert "cannot be fetched" in done.stdout and "used as it is" in done.stdout and done.stdout.endswith("went on\n")


def test_a_clone_of_one_s_own_is_never_touched(fetched) -> None:
    served, clone, _ = fetched
    own = clone.parents[1] / "mine"
    shutil.move(clone, own)
    (served / "newer").touch()
    git(served, "add", "-A")
    git(served, "commit", "-qm", "newer")
    done = subprocess.run(["bash", "-c", f'source "{own}/setup_env.sh"; update'], capture_output=True, text=True)
    assert done.stdout + done.stderr == "" and not (own / "newer").exists()


# -- the declared address ------------------------------------------------------------------------------------------
def test_a_declared_address_is_in_every_notebook_and_in_the_badges(tmp_path: Path) -> None:
    declared = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"].get("urls", {})
    assert build.repository() == declared.get("Repository", "")
    (tmp_path / "pyproject.toml").write_text(
        '[project]\n[project.urls]\nRepository = "https://github.com/me/rvc.git"\n'
    )
    address = build.repository(tmp_path)
    assert address == "https://github.com/me/rvc"
    page = (ROOT / "README.md").read_text("utf-8")
    badges = build.readme(page, address)
    assert build.readme(badges, "") == build.readme(page, "") and len(badges.split()) <= 900
    for platform, link in {
        "colab": "(https://colab.research.google.com/github/me/rvc/blob/main/notebooks/rvc_colab.ipynb)",
        "kaggle": "(https://kaggle.com/kernels/welcome?src=https://github.com/me/rvc/blob/main/notebooks/rvc_kaggle.ipynb)",
        "lightning": "(https://lightning.ai/new?repo_url=https%3A%2F%2Fgithub.com%2Fme%2Frvc%2Fblob%2Fmain%2Fnotebooks%2F"
        "rvc_lightning.ipynb)",
    }.items():
        assert link in badges
        for code, folder in (("en", ""), ("pt", "pt/")):
            cells = build._journey(platform, code, address)
            assert (
                link.replace("notebooks/", f"notebooks/{folder}").replace(
                    "notebooks%2F", f"notebooks%2F{folder.replace('/', '%2F')}"
                )
                in cells[0].source
            )
            assert any(f'PROJECT = "{address}"' in cell.source for cell in cells)
            assert not any("[![" in cell.source for cell in build._journey(platform, code, ""))


@pytest.mark.parametrize("address", ["", "https://gitlab.com/me/rvc", "https://github.com/me", "ssh://github.com/me/x"])
def test_without_an_address_on_github_there_is_no_badge(address: str) -> None:
    assert "[![" not in build.readme((ROOT / "README.md").read_text("utf-8"), address)


# -- a platform's packages -----------------------------------------------------------------------------------------
def test_the_canary_names_what_no_longer_fits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    freeze, record = tmp_path / "freeze.txt", tmp_path / "tried.json"
    record.write_text("{}")
    monkeypatch.setattr(canary, "TRIED", record)
    freeze.write_text("# Colab\nTorch==2.11.0+cu128\nnumpy==2.0.2\nstrange @ https://x/y.whl\n")
    monkeypatch.setattr(sys, "argv", ["canary.py", "colab", str(freeze), "--of", "2026-08-19"])
    assert canary.main() == 0 and "all packages of colab fit" in capsys.readouterr().out
    today = date.today().isoformat()
    assert json.loads(record.read_text()) == {"colab": {"list": "2026-08-19", "checked": today}}
    freeze.write_text("torch==1.13.1\nnumpy==2.0.2\n")
    monkeypatch.setattr(sys, "argv", ["canary.py", "kaggle", str(freeze)])
    assert canary.main() == 1 and capsys.readouterr().out.startswith("torch 1.13.1 is there; we need >=")
    assert list(json.loads(record.read_text())) == ["colab"], "what does not fit is not recorded"


def test_the_canary_records_where_the_notebook_ran_and_only_if_it_did(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "freeze.txt").write_text("numpy==2.0.2\n")
    (record := tmp_path / "tried.json").write_text('{"colab": {"elsewhere": "2026-01-01"}}')
    monkeypatch.setattr(canary, "TRIED", record)
    monkeypatch.setattr(sys, "argv", ["canary.py", "colab", str(tmp_path / "freeze.txt"), "--run"])
    monkeypatch.setenv("RVC_HOME", "")
    monkeypatch.setenv("PYTHONPATH", "")
    ran: list[Path] = []

    def execute(notebook: Path, output: Path, parameters: dict, cwd: Path, kernel_name: str) -> None:
        assert os.environ["RVC_HOME"] == str(cwd.parent) and parameters["dataset"] == "demo"
        assert [*cwd.parent.iterdir()] == [cwd], "nobody else's project is beside it"
        ran.append(notebook)
        if len(ran) == 1:
            raise papermill.PapermillExecutionError(1, 1, "", "ValueError", "no", [])

    monkeypatch.setattr(papermill, "execute_notebook", execute)
    with pytest.raises(papermill.PapermillExecutionError):
        canary.main()
    assert json.loads(record.read_text())["colab"]["elsewhere"] == "2026-01-01"
    assert canary.main() == 0 and [one.name for one in ran] == ["rvc_colab.ipynb"] * 2
    today = date.today().isoformat()
    assert json.loads(record.read_text())["colab"] == {"list": today, "checked": today, "elsewhere": today}
    monkeypatch.setenv("COLAB_RELEASE_TAG", "r1")
    assert canary.main() == 0 and json.loads(record.read_text())["colab"]["there"] == today


@pytest.mark.parametrize("code", LANGUAGES)
@pytest.mark.parametrize(
    ("known", "days"),
    [
        ({}, []),
        ({"list": "day 1", "checked": "day 2"}, ["day 2", "day 1"]),
        ({"list": "day 1", "checked": "day 2", "elsewhere": "day 3"}, ["day 2", "day 1", "day 3"]),
        ({"there": "day 4", "elsewhere": "day 3"}, ["day 4"]),
    ],
)
def test_the_banner_says_on_what_the_notebook_was_tried_and_no_more(
    known: dict[str, str], days: list[str], code: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "tried.json").write_text(json.dumps({"colab": known, "kaggle": {"there": "2020-01-01"}}))
    monkeypatch.setattr(build, "HERE", tmp_path)
    told = build.tried("colab", code)
    assert re.findall(r"day \d", told) == days and "Colab" in told and "{" not in told
    assert ("not yet" in told.lower() or "ainda não" in told.lower()) == ("there" not in known)
