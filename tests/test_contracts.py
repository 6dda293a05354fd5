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

# The rows of docs/architecture.md: a module imports its own row or a lower one.
ROWS = {
    1: "errors settings presets layout files pickle_scan progress platforms stamps threads download saves "
       "storage mirror",
    2: "audio slicer quality",
    3: "nn",
    4: "pitch content retrieval weights untrusted voice_file checkpoint describe manifest "
       "faiss_file fairseq_file heldout dataset gan memory precision ranks metrics scores words "
       "learning_curve illness",
    5: "inspect prepare extract run recovery train validate overtraining index convert cases evaluate merge "
       "foreign_folder foreign share onnx_export separate bundle",
    6: "experiment compare batch launch cli cli_weights cli_voices demo golden ui",
}
ROW_OF = {name: row for row, names in ROWS.items() for name in names.split()}
ROW_OF["embedded"] = 1   # package data: it only says where its files are

HEAVY = {"torch", "torchaudio", "transformers", "librosa", "faiss", "matplotlib", "ipywidgets", "scipy", "numba"}


def names(paths: list[Path]) -> list[str]:
    return [str(path.relative_to(PACKAGE)) for path in paths]


def tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text("utf-8"))


def imported_units(path: Path) -> set[str]:
    """First names below rvc_core that a module imports, at its top or inside its functions."""
    inside = path.relative_to(PACKAGE).parts[:-1]
    units = set()
    for node in ast.walk(tree(path)):
        targets: list[tuple[str, ...]] = []
        if isinstance(node, ast.Import):
            targets = [tuple(alias.name.split(".")[1:]) for alias in node.names if alias.name.startswith("rvc_core.")]
        elif isinstance(node, ast.ImportFrom):
            module = tuple((node.module or "").split(".")) if node.module else ()
            if node.level:
                base = inside[:len(inside) - (node.level - 1)] + module
            elif module[:1] == ("rvc_core",):
                base = module[1:]
            else:
                continue
            targets = [base] if base else [(alias.name,) for alias in node.names]
        units |= {target[0] for target in targets if target and target[0] != "__version__"}
    return units


@pytest.mark.parametrize("path", MODULES, ids=names(MODULES))
def test_imports_go_down_only(path):
    if path == PACKAGE / "__init__.py":
        return   # resolves public names lazily; the purity test holds it
    unit = path.relative_to(PACKAGE).parts[0].removesuffix(".py")
    assert unit in ROW_OF, f"give {unit} a row in ROWS and in docs/architecture.md"
    upwards = {target for target in imported_units(path) if ROW_OF[target] > ROW_OF[unit]}
    assert not upwards, f"{unit} (row {ROW_OF[unit]}) imports upwards: {sorted(upwards)}"


def test_importing_the_package_is_instant_and_pure():
    code = ("import json, sys, time; before = set(sys.modules); start = time.perf_counter(); import rvc_core;"
            "print(json.dumps([time.perf_counter() - start, sorted(set(sys.modules) - before)]))")
    reports = [json.loads(subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True,
                                         check=True).stdout) for _ in range(3)]
    assert min(seconds for seconds, _ in reports) < 0.3
    assert not {module.split(".")[0] for module in reports[0][1]} & (HEAVY | {"numpy", "pydantic"})


@pytest.mark.parametrize("row", [1, 2])
def test_the_lower_rows_do_not_import_torch(row):
    existing = [name for name in ROWS[row].split() if (PACKAGE / f"{name}.py").exists()]
    code = f"import sys; import {', '.join('rvc_core.' + name for name in existing)}; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert not {"torch", "torchaudio", "transformers", "matplotlib", "ipywidgets"} & set(loaded.split())


@pytest.mark.parametrize("path", MODULES, ids=names(MODULES))
def test_modules_and_functions_stay_small(path):
    assert len(path.read_text("utf-8").splitlines()) <= 400
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            lines = node.end_lineno - node.lineno + 1
            assert lines <= 60, f"{node.name} has {lines} lines"
            arguments = [argument.arg for argument in
                         [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs]]
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
    for word in ("TODO", "FIXME", "XXX", "NotImplementedError"):
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


def test_the_linter_is_content():
    linter = subprocess.run([sys.executable, "-m", "ruff", "check", "--no-cache", "--output-format", "concise", "."],
                            cwd=ROOT, capture_output=True, text=True)
    assert linter.returncode == 0, linter.stdout + linter.stderr


@pytest.mark.slow
def test_the_types_are_consistent():
    types = subprocess.run([sys.executable, "-m", "mypy"], cwd=ROOT, capture_output=True, text=True)
    assert types.returncode == 0, types.stdout[-4000:] + types.stderr
