"""What holds for every module: layers, purity, size, docstrings and examples that run."""

import ast
import doctest
import importlib
import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "rvc_core"
MODULES = sorted(path for path in PACKAGE.rglob("*.py"))

sys.path.append(str(ROOT / "docs"))
from module_tables import DATA, ORDER  # noqa: E402

STEP_OF = {name: step for step, names in enumerate(ORDER) for name in ([names] if isinstance(names, str) else names)}
STEP_OF[DATA] = -1  # package data: it only says where its files are

# What a notebook's kernel, the keeper of a training and its mirror are made of.
WITHOUT_TORCH = [
    *ORDER[0],
    *(f"system.{name}" for name in ("files", "download", "platforms", "threads", "pickle_scan")),
    *(f"audio.{name}" for name in ("recordings", "waveform", "slicer", "quality", "file_kinds")),
    *(f"workspace.{name}" for name in ("layout", "manifest", "stamps", "filelist", "retention", "metrics")),
    *(f"preparation.{name}" for name in ("incoming", "links", "archives", "typed_paths", "preview")),
    "storage.listing",
    "storage.places",
    "storage.snapshot",
    "storage.mirror",
    "training.detached",
    *ORDER[-4],
    *(f"notebook.{name}" for name in ("cells", "results", "players", "watching", "tensorboard_server")),
    "cli",
]

HEAVY = {"torch", "torchaudio", "transformers", "librosa", "faiss", "matplotlib", "ipywidgets", "scipy", "numba"}


def names(paths: list[Path]) -> list[str]:
    return [str(path.relative_to(PACKAGE)) for path in paths]


def tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text("utf-8"))


def imported(path: Path) -> set[str]:
    """Modules of the package that a module imports, at its top or inside its functions, as ``features.pitch``."""
    inside = path.relative_to(PACKAGE).parts[:-1]
    found = set()
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.Import):
            found |= {alias.name[len("rvc_core.") :] for alias in node.names if alias.name.startswith("rvc_core.")}
        elif isinstance(node, ast.ImportFrom) and (node.level or (node.module or "").split(".")[0] == "rvc_core"):
            module = tuple(node.module.split(".")) if node.module else ()
            base = inside[: len(inside) - (node.level - 1)] + module if node.level else module[1:]
            found |= {".".join((*base, alias.name) if is_module((*base, alias.name)) else base) for alias in node.names}
    return found - {"", "__version__"}


def is_module(parts: tuple[str, ...]) -> bool:
    place = PACKAGE.joinpath(*parts)
    return place.is_dir() or place.with_suffix(".py").exists()


@pytest.mark.parametrize("path", MODULES, ids=names(MODULES))
def test_imports_go_down_only(path):
    if path == PACKAGE / "__init__.py":
        return  # resolves public names lazily; the purity test holds it
    unit = path.relative_to(PACKAGE).parts[0].removesuffix(".py")
    assert unit in STEP_OF, f"give {unit} its place in ORDER of docs/module_tables.py"
    upwards = {target for target in imported(path) if STEP_OF[target.split(".")[0]] > STEP_OF[unit]}
    assert not upwards, f"{unit} imports what stands behind it: {sorted(upwards)}"


def test_imports_run_in_no_circle():
    modules = {
        ".".join(path.relative_to(PACKAGE).with_suffix("").parts).removesuffix(".__init__"): imported(path)
        for path in MODULES
    }
    while free := [name for name, targets in modules.items() if not targets & (modules.keys() - {name})]:
        for name in free:
            del modules[name]
    assert not modules, f"in a circle, or above one: {sorted(modules)}"


def test_the_map_is_in_step_with_the_code():
    done = subprocess.run([sys.executable, str(ROOT / "docs" / "module_tables.py"), "--check"], cwd=ROOT)
    assert done.returncode == 0, "run: python docs/module_tables.py"


def test_importing_the_package_is_instant_and_pure():
    code = (
        "import json, sys, time; before = set(sys.modules); start = time.perf_counter(); import rvc_core;"
        "print(json.dumps([time.perf_counter() - start, sorted(set(sys.modules) - before)]))"
    )
    reports = [
        json.loads(
            subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True).stdout
        )
        for _ in range(3)
    ]
    assert min(seconds for seconds, _ in reports) < 0.3
    assert not {module.split(".")[0] for module in reports[0][1]} & (HEAVY | {"numpy", "pydantic"})


def test_kernel_keeper_and_mirror_do_without_torch():
    code = f"import sys; import {', '.join('rvc_core.' + name for name in WITHOUT_TORCH)}; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert not {"torch", "torchaudio", "transformers", "matplotlib", "ipywidgets"} & set(loaded.split())


@pytest.mark.parametrize("path", MODULES, ids=names(MODULES))
def test_modules_and_functions_stay_small(path):
    assert len(path.read_text("utf-8").splitlines()) <= 400
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            lines = node.end_lineno - node.lineno + 1
            assert lines <= 60, f"{node.name} has {lines} lines"
            arguments = [argument.arg for argument in [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs]]
            count = len([argument for argument in arguments if argument not in ("self", "cls")])
            assert count <= 7, f"{node.name} has {count} parameters"


def public_nodes(node: ast.Module | ast.ClassDef):
    """Public classes, functions and methods that need words; a network's forward is told by its class."""
    for child in node.body:
        if isinstance(child, ast.ClassDef | ast.FunctionDef) and not child.name.startswith("_"):
            if child.name not in ("forward", "backward"):
                yield child
            if isinstance(child, ast.ClassDef):
                yield from public_nodes(child)


@pytest.mark.parametrize("path", MODULES, ids=names(MODULES))
def test_everything_public_has_a_docstring_and_types(path):
    module = tree(path)
    assert ast.get_docstring(module) or not module.body
    for node in public_nodes(module):
        assert ast.get_docstring(node), f"{node.name} has no docstring"
        if isinstance(node, ast.FunctionDef):
            arguments = [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs]
            bare = [a.arg for a in arguments if a.annotation is None and a.arg not in ("self", "cls")]
            assert not bare and node.returns is not None, f"{node.name}: no types for {bare or 'the result'}"


@pytest.mark.parametrize("path", MODULES, ids=names(MODULES))
def test_no_failure_is_hidden_and_nothing_is_left_undone(path):
    source = path.read_text("utf-8")
    for word in ("TODO", "FIXME", "XXX", "raise NotImplementedError"):
        assert word not in source
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.ExceptHandler):
            caught = ast.unparse(node.type) if node.type else "everything"
            assert caught not in ("Exception", "BaseException", "everything"), f"line {node.lineno} catches {caught}"


@pytest.mark.parametrize("path", MODULES, ids=names(MODULES))
def test_examples_run(path, tmp_path, monkeypatch):
    parts = path.relative_to(ROOT).with_suffix("").parts
    module = importlib.import_module(".".join(parts[:-1] if parts[-1] == "__init__" else parts))
    monkeypatch.chdir(tmp_path)
    result = doctest.testmod(module, optionflags=doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE)
    assert result.failed == 0


@pytest.mark.parametrize("command", [["check", "--output-format", "concise"], ["format", "--check"]], ids="-".join)
def test_the_linter_is_content(command):
    linter = subprocess.run(
        [sys.executable, "-m", "ruff", *command, "--no-cache", "."], cwd=ROOT, capture_output=True, text=True
    )
    assert linter.returncode == 0, linter.stdout + linter.stderr


@pytest.mark.slow
def test_the_types_are_consistent():
    types = subprocess.run([sys.executable, "-m", "mypy"], cwd=ROOT, capture_output=True, text=True)
    assert types.returncode == 0, types.stdout[-4000:] + types.stderr
