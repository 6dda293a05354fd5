"""What holds for every module: layers, purity, size, docstrings and examples that run."""

import ast
import doctest
import functools
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
    *(
        f"system.{name}"
        for name in ("files", "inside", "documents", "locks", "download", "platforms", "threads", "pickle_scan")
    ),
    *(f"audio.{name}" for name in ("recordings", "waveform", "slicer", "quality", "file_kinds")),
    *(f"workspace.{name}" for name in ("layout", "manifest", "stamps", "filelist", "retention", "metrics")),
    *(f"preparation.{name}" for name in ("incoming", "links", "archives", "typed_paths", "preview")),
    "storage.listing",
    "storage.places",
    "storage.snapshot",
    "storage.mirror",
    "training.beacon",
    "training.detached",
    "training.plan",
    *ORDER[-3],
    *(f"notebook.{name}" for name in ("cells", "results", "players", "watching", "tensorboard_server", "planning")),
    "cli",
]

HEAVY = {"torch", "torchaudio", "transformers", "librosa", "faiss", "matplotlib", "ipywidgets", "scipy", "numba"}


# What opens, parses or copies files, and the modules that may do so beside system/inside.py and system/documents.py.
OPENS = {
    *("open", "os.open", "io.open", "json.load", "json.loads", "pickle.load", "pickle.loads", "marshal.loads"),
    *("tarfile.open", "zipfile.ZipFile", "yaml.load", "yaml.safe_load", "tomllib.load", "tomllib.loads", "torch.load"),
    *("np.load", "np.fromfile", "np.memmap", "np.loadtxt", "soundfile.read", "soundfile.info", "av.open"),
    *("shutil.copy", "shutil.copy2", "shutil.copyfile", "shutil.copytree", "shutil.move", "shutil.unpack_archive"),
    *("safetensors.safe_open", "fcntl.flock", "os.kill", "os.killpg", "os.system"),
}
METHODS = {"open", "read_text", "read_bytes", "write_text", "write_bytes", "touch", "extractall", "symlink_to"}
MAY_OPEN = {
    "system/inside.py": ("it is the opener", "open os.open"),
    "system/documents.py": ("a YAML file that you name may be a link", "path.open yaml.load"),
    "separation/spleeter.py": ("pinned by its hash, and four names are allowed", "zipfile.ZipFile"),
    "separation/separate.py": ("its own stems, before it says they are done", "soundfile.info"),
    "system/locks.py": ("it is the lock", "fcntl.flock"),
    "system/files.py": ("temporary files of its own, and hashes", "path.open temporary.open temporary.write_text"),
    "system/untrusted.py": (
        "checks files before it opens them",
        "path.open torch.load np.load zipfile.ZipFile archive.open opened.open target.open",
    ),
    "system/download.py": ("an address", "urllib.request.build_opener(WebOnly).open"),
    "system/platforms.py": ("the kernel's own files", "Path(f'/proc/{process}/stat').read_text"),
    "system/threads.py": ("the kernel's own files", "Path('/sys/fs/cgroup/cpu.max').read_text"),
    "training/memory.py": (
        "the kernel's own files",
        "Path('/sys/fs/cgroup', name).read_text Path('/sys/fs/cgroup/memory.stat').read_text",
    ),
    "assets/archive.py": (
        "runs before pydantic is installed; names and hashes are checked",
        "zipfile.ZipFile json.loads temporary.open",
    ),
    "assets/bundle.py": (
        "writes a bundle",
        "constraints.write_text wanted.write_text config.write_text zipfile.ZipFile",
    ),
    "assets/registry.py": ("the package's own list", "json.loads Path(__file__).with_name('weights.json').read_text"),
    "audio/decode.py": ("recordings that you name", "path.open soundfile.info"),
    "audio/file_kinds.py": ("the first bytes of a recording", "path.open"),
    "audio/lazy.py": ("stems that it wrote", "soundfile.info soundfile.read"),
    "audio/tracks.py": ("recordings that you name", "av.open open"),
    "audio/waveform.py": ("what it writes itself", "av.open"),
    "cli/__init__.py": ("/dev/null", "os.open"),
    "conversion/speakers.py": ("checks checkpoints", "zipfile.ZipFile path.read_bytes archive.open"),
    "conversion/in_parts.py": ("a temporary file of its own", "self._path.open np.fromfile"),
    "conversion/script.py": ("a text that you name", "path.read_bytes"),
    "evaluation/golden.py": ("a folder that you name", "np.load"),
    "features/fairseq_file.py": (
        "scanned and pinned by its hash",
        "torch.load json.loads Path(__file__).with_suffix('.json').read_text",
    ),
    "features/faiss_file.py": ("compares every size with the file", "path.open np.memmap temporary.open"),
    "features/pitch.py": ("a curve that you name; weights are pinned by their hash", "torch.load path.open"),
    "notebook/child.py": ("what our own process prints", "json.loads"),
    "notebook/players.py": ("a recording that is played", "file.read_bytes"),
    "notebook/session.py": ("its own settings, made plain", "json.loads"),
    "notebook/tensorboard_server.py": ("ends what it started", "os.kill"),
    "notebook/texts.py": (
        "the package's own texts",
        "tomllib.loads (Path(__file__).parent / f'{code}.toml').read_text",
    ),
    "notebook/watching.py": ("a picture of limited size, a sound of the log", "Image.open soundfile.read"),
    "preparation/archives.py": ("checks zips of recordings", "zipfile.ZipFile opened.open target.open"),
    "preparation/foreign.py": ("after the folder was searched for links", "soundfile.info"),
    "preparation/incoming.py": (
        "uploads under names of their own; links to your own recordings",
        "temporary.write_bytes (temporary / name).symlink_to",
    ),
    "preparation/links.py": ("what was downloaded", "file.open"),
    "preparation/prepare.py": ("a temporary file of its own", "np.load"),
    "scoring/cleanness.py": (
        "a model inside a package",
        "importlib.resources.files('speechmos').joinpath('dnsmos_models', 'sig_bak_ovr.onnx').read_bytes",
    ),
    "scoring/transcripts.py": ("a text that you name", "path.read_text"),
    "scoring/words.py": ("temporary files of its own", "model.write_text dictionary.write_text"),
    "storage/places.py": ("writes an archive", "tarfile.open"),
    "storage/snapshot.py": ("regular files with known names only", "tarfile.open"),
    "voices/share.py": ("writes a zip", "zipfile.ZipFile"),
    "workspace/dataset.py": ("after the experiment was searched for links", "soundfile.read"),
    "workspace/voice_file.py": ("numbers and a header, which are checked", "safetensors.safe_open"),
}


def names(paths: list[Path]) -> list[str]:
    return [str(path.relative_to(PACKAGE)) for path in paths]


@functools.cache  # seven tests read each module
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


@pytest.mark.parametrize("path", MODULES, ids=names(MODULES))
def test_files_of_others_have_one_opener_and_one_reader(path):
    calls = {
        ast.unparse(node.func): node.lineno
        for node in ast.walk(tree(path))
        if isinstance(node, ast.Call)
        and (ast.unparse(node.func) in OPENS or (isinstance(node.func, ast.Attribute) and node.func.attr in METHODS))
        and ast.unparse(node.func) not in ("Experiment.open", "cls.open")
    }
    reason, allowed = MAY_OPEN.get(path.relative_to(PACKAGE).as_posix(), ("", ""))
    left = " ".join(calls)
    for call in sorted(calls, key=len, reverse=True):
        assert call in allowed, f"{path.name}:{calls[call]} calls {call}: use open_inside, read_json or load_array"
        left = left.replace(call, "")
        allowed = allowed.replace(call, "")
    assert not left.strip() and not allowed.strip(), f"{path.name} no longer calls {allowed.strip()} ({reason})"


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
