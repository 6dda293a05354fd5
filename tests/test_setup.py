"""The set-up script, driven function by function without a network, and the lists of packages it shares."""

import importlib
import json
import os
import re
import shutil
import subprocess
import sys
import time
import tomllib
from pathlib import Path

import nbformat
import papermill
import pytest
import yaml
from packaging.utils import canonicalize_name

from rvc_core.assets import bundle
from rvc_core.system.platforms import detect

ROOT = Path(__file__).resolve().parents[1]
SCRIPT = ROOT / "setup_env.sh"
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
CONDA_NAMES = {"torch": "pytorch", "soundfile": "pysoundfile", "soxr": "soxr-python"}
MARKS = (
    "KAGGLE_KERNEL_RUN_TYPE",
    "LIGHTNING_CLOUD_SPACE_ID",
    "COLAB_RELEASE_TAG",
    "CONDA_PREFIX",
    "RVC_PYTHON",
    "CONDA_DEFAULT_ENV",
    "RVC_USE_CURRENT_ENV",
    "RVC_TORCH_INDEX",
)


def bash(code: str, script: Path = SCRIPT, **environment: str) -> subprocess.CompletedProcess:
    """Source the script, then run `code` among its functions."""
    clean = {name: value for name, value in os.environ.items() if name not in MARKS} | environment
    return subprocess.run(["bash", "-c", f'source "{script}"; {code}'], capture_output=True, text=True, env=clean)


def script(*arguments: str, **environment: str) -> subprocess.CompletedProcess:
    clean = {name: value for name, value in os.environ.items() if name not in MARKS} | environment
    return subprocess.run(["bash", str(SCRIPT), *arguments], capture_output=True, text=True, env=clean)


@pytest.fixture
def python(tmp_path: Path) -> Path:
    """A Python that sees none of the installed packages, only those that a test puts into the folder `packages`."""
    wrapper = tmp_path / "python"
    (tmp_path / "packages").mkdir()
    wrapper.write_text(f'#!/bin/sh\nPYTHONPATH="{tmp_path}/packages" exec "{sys.executable}" -S "$@"\n')
    wrapper.chmod(0o755)
    return wrapper


def pretend_installed(python: Path, **packages: str) -> None:
    for name, version in packages.items():
        folder = python.parent / "packages" / f"{name}-{version}.dist-info"
        folder.mkdir()
        (folder / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")


# -- one set of packages in three files --------------------------------------------------------------------------------
def test_conda_has_the_same_set():
    conda = yaml.safe_load((ROOT / "environment.yml").read_text("utf-8"))["dependencies"]
    [pip] = [entry["pip"] for entry in conda if isinstance(entry, dict)]
    extras = PROJECT["optional-dependencies"]
    wanted = [
        *PROJECT["dependencies"],
        *extras["faiss"],
        *extras["world"],
        *extras["evaluate"],
        *extras["espeak"],
        *extras["onnx"],
        *extras["test"],
    ]
    as_conda = set()
    for requirement in wanted:
        name, version = re.fullmatch(r"([\w-]+)(.*)", requirement).groups()
        as_conda |= {requirement} if requirement in pip else {CONDA_NAMES.get(name, name) + version}
    python = f"python{PROJECT['requires-python']},<3.14"
    assert as_conda | {python, "pip"} == {entry for entry in conda if isinstance(entry, str)} | set(pip)


def test_the_script_installs_the_extras_that_exist():
    lines = dict(re.findall(r'^(extras_\w+)="(.+)"$', SCRIPT.read_text("utf-8"), re.MULTILINE))
    names = lines["extras_test"].replace("$extras_base", lines["extras_base"]).split(",")
    unasked = {"gpu", "praat", "pocket", "gsv", "spleeter", "denoise"}  # another faiss, GPL, and large downloads
    assert set(names) == set(PROJECT["optional-dependencies"]) - unasked
    assert not any("parselmouth" in requirement for requirement in PROJECT["dependencies"])


def test_torch_has_a_floor_and_no_cap():
    assert "torch>=2.8" in PROJECT["dependencies"]
    assert not [entry for entry in PROJECT["dependencies"] if "<" in entry or "==" in entry or "~=" in entry]
    assert '"torch>=2.8"' in SCRIPT.read_text("utf-8")


def test_no_two_packages_provide_one_module():
    sets = PROJECT["optional-dependencies"]
    assert not any("faiss" in requirement for requirement in PROJECT["dependencies"])
    assert not any("faiss-cpu" in requirement for requirement in sets["gpu"])


def test_the_entry_point_exists():
    module, _, function = PROJECT["scripts"]["rvc"].partition(":")
    assert callable(getattr(importlib.import_module(module), function))


def test_continuous_integration_calls_the_readmes_command():
    assert "exec bash setup_env.sh test" in (ROOT / ".ci" / "run").read_text("utf-8")


# -- usage -------------------------------------------------------------------------------------------------------------
def test_an_unknown_sub_command_is_one_line_and_status_2():
    result = script("demmo")
    assert result.returncode == 2 and result.stdout == ""
    assert len(result.stderr.splitlines()) == 1 and "demo, test, check" in result.stderr


def test_an_old_python_is_one_line_and_status_1(tmp_path):
    old = tmp_path / "python3.9"
    old.write_text("#!/bin/sh\nexit 1\n")  # what its answer to "are you 3.11 or newer?" looks like
    old.chmod(0o755)
    copy = Path(shutil.copy(SCRIPT, tmp_path))
    result = bash("install base", copy, RVC_PYTHON=str(old))
    assert result.returncode == 1
    assert len(result.stderr.splitlines()) == 1 and "no Python 3.11 or newer" in result.stderr


def test_the_callers_own_python_is_preferred(tmp_path):
    for name in ("python3", "python3.13"):
        (tmp_path / name).symlink_to(sys.executable)
    assert bash("find_python", PATH=f"{tmp_path}:{os.environ['PATH']}").stdout.strip() == str(tmp_path / "python3")
    (tmp_path / "python3").unlink()
    (tmp_path / "python3").write_text("#!/bin/sh\nexit 1\n")
    (tmp_path / "python3").chmod(0o755)
    assert bash("find_python", PATH=f"{tmp_path}:{os.environ['PATH']}").stdout.strip() == str(tmp_path / "python3.13")


def test_check_changes_nothing(tmp_path):
    for name in ("setup_env.sh", "pyproject.toml"):
        shutil.copy(ROOT / name, tmp_path)
    before = sorted(tmp_path.rglob("*"))
    result = bash("main check", tmp_path / "setup_env.sh")
    assert result.returncode == 1 and "not installed yet" in result.stderr
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize(
    "marks",
    [
        {"KAGGLE_KERNEL_RUN_TYPE": "Batch", "COLAB_RELEASE_TAG": "r"},
        {"COLAB_RELEASE_TAG": "r"},
        {"LIGHTNING_CLOUD_SPACE_ID": "x", "CONDA_PREFIX": "/c", "CONDA_DEFAULT_ENV": "cloudspace"},
    ],
)
def test_script_and_package_agree_on_the_platform(marks):
    assert bash("platform", **marks).stdout.strip() == detect(marks, lambda path: False).name


@pytest.mark.parametrize(
    ("marks", "expected"),
    [
        ({}, "bare machine"),
        ({"RVC_USE_CURRENT_ENV": "1"}, "current environment"),
        ({"CONDA_PREFIX": "/c", "CONDA_DEFAULT_ENV": "rvc_core"}, "conda environment"),
        ({"CONDA_PREFIX": "/c", "CONDA_DEFAULT_ENV": "base"}, "bare machine"),
    ],
)
def test_where_to_install_elsewhere(marks, expected):
    assert bash("platform", **marks).stdout.strip() == expected


# -- which torch -------------------------------------------------------------------------------------------------------
NO_GPU, GPU = "has_gpu() { false; };", "has_gpu() { true; };"
ONLINE, OFFLINE = "answers() { true; };", "answers() { false; };"
CPU_WHEELS, CUDA_WHEELS = "brings_cuda() { false; };", "brings_cuda() { true; };"
SHOW = 'pip_install() { echo "pip $*"; };'


@pytest.mark.parametrize(
    ("machine", "environment", "shown", "asked"),
    [
        (NO_GPU + ONLINE, {}, "pip --index-url https://download.pytorch.org/whl/cpu torch>=2.8", "torch>=2.8"),
        (NO_GPU + OFFLINE + CPU_WHEELS, {}, "", "torch>=2.8,<2.14"),
        (GPU + ONLINE, {}, "with CUDA, about 3 GB", "torch>=2.8"),
        (
            GPU + OFFLINE,
            {"RVC_TORCH_INDEX": "http://mirror/cu126"},
            "pip --index-url http://mirror/cu126",
            "torch>=2.8",
        ),
        (NO_GPU + ONLINE + CUDA_WHEELS, {"RVC_TORCH_INDEX": "default"}, "with CUDA, about 3 GB", "torch>=2.8,<2.14"),
    ],
)
def test_the_torch_that_fits_the_machine(python, machine, environment, shown, asked):
    result = bash(f'python="{python}"; {SHOW} {machine} choose_torch; echo "asked: $torch"', **environment)
    assert result.returncode == 0, result.stderr
    assert shown in result.stdout and result.stdout.endswith(f"asked: {asked}\n")


def test_cuda_is_not_pulled_silently_where_there_is_no_gpu(python):
    result = bash(f'python="{python}"; {SHOW} {NO_GPU} {OFFLINE} {CUDA_WHEELS} choose_torch; echo "$torch"')
    assert result.returncode == 1 and result.stdout == ""
    assert "RVC_TORCH_INDEX" in result.stderr and "about 3 GB" in result.stderr


def test_a_torch_that_is_there_is_kept(python):
    pretend_installed(python, torch="2.10.0+cu128", numpy="2.0.2", protobuf="5.29.5", ipywidgets="7.7.1")
    kept = bash(f'python="{python}"; where=colab; {SHOW} {GPU} {ONLINE} choose_torch; constraints')
    lines = kept.stdout.splitlines()
    assert lines[0].endswith("keeping torch 2.10.0+cu128")
    assert {
        "torch==2.10.0+cu128",
        "numpy==2.0.2",
        "protobuf==5.29.5",
        "ipywidgets==7.7.1",
        "torchaudio==2.10.*",
    } == set(lines[1:])


def test_an_old_gpu_gets_a_torch_with_code_for_it_or_is_refused_before_anything_is_downloaded(python, tmp_path):
    smi = tmp_path / "nvidia-smi"
    smi.write_text("#!/bin/sh\necho 6.0\n")
    smi.chmod(0o755)
    path = {"PATH": f"{tmp_path}:{os.environ['PATH']}"}
    fresh = bash(f'python="{python}"; {SHOW} {GPU} {ONLINE} choose_torch', **path)
    assert "pip --index-url https://download.pytorch.org/whl/cu126 torch>=2.8" in fresh.stdout
    pretend_installed(python, torch="2.10.0+cu128")
    (tmp_path / "packages" / "torch.py").write_text(
        "from types import SimpleNamespace as N\n__version__ = '2.10.0+cu128'\ncuda = N(is_available=lambda: True, "
        "get_device_capability=lambda n: (6, 0), get_arch_list=lambda: ['sm_75'], get_device_name=lambda n: 'P100')\n"
    )
    kept = bash(f'python="{python}"; {SHOW} {GPU} choose_torch; echo more', **path)
    assert kept.returncode == 1 and "more" not in kept.stdout and len(kept.stderr.splitlines()) == 1
    assert "not built for the P100 (compute capability 6.0)" in kept.stderr and "cu126" in kept.stderr


def test_a_torch_that_is_too_old_is_not_replaced_either(python):
    pretend_installed(python, torch="2.6.0")
    result = bash(f'python="{python}"; {SHOW} {GPU} choose_torch')
    assert result.returncode == 1 and "torch 2.6.0 is here" in result.stderr


# -- torchaudio's compiled part ----------------------------------------------------------------------------------------
BROKEN_BESIDE_ITS_LIBRARY = """
import pathlib
if list((pathlib.Path(__file__).parent / "lib").glob("*.so")):
    raise OSError("libcudart.so.13: cannot open shared object file")
"""


def pretend_torchaudio(python: Path, source: str) -> Path:
    packages = python.parent / "packages"
    (packages / "torchaudio" / "lib").mkdir(parents=True)
    (packages / "torch.py").write_text("")
    (packages / "torchaudio" / "__init__.py").write_text(source)
    library = packages / "torchaudio" / "lib" / "libtorchaudio.abi3.so"
    library.write_bytes(b"ELF")
    return library


@pytest.mark.parametrize(
    ("source", "status", "aside"),
    [
        (BROKEN_BESIDE_ITS_LIBRARY, 0, True),  # the measured trap
        ("", 0, False),  # it works: nothing is touched
        ("raise ImportError('other reason')", 1, False),  # setting it aside did not help: it is put back
    ],
)
def test_torchaudios_library_is_set_aside_only_if_that_helps(python, source, status, aside):
    library = pretend_torchaudio(python, source)
    result = bash(f'python="{python}"; repair_torchaudio')
    assert result.returncode == status
    assert library.exists() != aside and library.with_name(library.name + ".disabled").exists() == aside
    assert ("set aside" in result.stdout) == aside


# -- idempotence -------------------------------------------------------------------------------------------------------
def test_a_second_run_does_nothing_until_something_changes(python, tmp_path):
    home = tmp_path / "a clone"
    home.mkdir()
    for name in ("setup_env.sh", "pyproject.toml"):
        shutil.copy(ROOT / name, home)
    pretend_installed(python, torch="2.13.0+cpu", Resemblyzer="0.1.4", speechmos="0.0.1.1")
    library = pretend_torchaudio(python, BROKEN_BESIDE_ITS_LIBRARY)
    stubs = (
        f'locate() {{ where=colab; python="{python}"; }}; {SHOW}'
        f'stamp_file() {{ echo "{tmp_path}/stamp-$1"; }}; install "$which"'
    )

    def run(which: str) -> str:
        result = bash(f"which={which}; {stubs}", home / "setup_env.sh")
        assert result.returncode == 0, result.stderr
        return result.stdout

    first = run("base")
    assert f"torch>=2.8 --editable {home}[faiss,world,evaluate,espeak]" in first and "set aside" in first
    assert run("base") == ""
    assert "[faiss,world,evaluate,espeak,onnx,test]" in run("test")
    assert run("base") == run("test") == ""
    library.write_bytes(b"ELF")  # somebody reinstalled torchaudio
    assert "set aside" in run("base")
    (home / "pyproject.toml").open("a").write("\n# changed\n")
    assert "pip " in run("base")
    pretend_installed(python, **{"faiss_gpu": "1.15.1"})
    (home / "pyproject.toml").open("a").write("\n# changed again\n")
    assert f"{home}[world,evaluate,espeak]" in run("base")  # never a second faiss


def test_notebooks_run_on_the_python_that_runs_papermill(tmp_path, monkeypatch):
    other = tmp_path / "kernels" / "python3"
    other.mkdir(parents=True)
    (other / "kernel.json").write_text(json.dumps({"argv": ["/nowhere/python", "-m", "x"], "display_name": "other"}))
    monkeypatch.setenv("JUPYTER_DATA_DIR", str(tmp_path))  # where a user's own kernels are registered
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell("import sys; print(sys.prefix)")])
    notebook.metadata.kernelspec = {"name": "python3", "display_name": "Python 3", "language": "python"}
    nbformat.write(notebook, tmp_path / "in.ipynb")
    done = papermill.execute_notebook(tmp_path / "in.ipynb", tmp_path / "out.ipynb", progress_bar=False)
    assert done.cells[0].outputs[0].text.strip() == sys.prefix


@pytest.mark.slow
def test_a_fresh_clone_is_set_up_within_three_minutes(tmp_path):
    clone = tmp_path / "fresh clone"
    subprocess.run(["git", "clone", "-q", str(ROOT), str(clone)], check=True)
    environment = {name: value for name, value in os.environ.items() if name not in MARKS}
    environment |= {"PIP_CACHE_DIR": str(tmp_path / "empty")}

    def seconds_of_set_up() -> float:
        start = time.monotonic()
        subprocess.run(["bash", str(clone / "setup_env.sh")], check=True, env=environment, stdin=subprocess.DEVNULL)
        return time.monotonic() - start

    assert seconds_of_set_up() < 180
    assert seconds_of_set_up() < 10
    code = (
        "from resemblyzer import VoiceEncoder; import onnxruntime, pocketsphinx, speechmos;"
        "import pyworld, torchcrepe, torchfcpe, faiss, rvc_core"
    )
    subprocess.run([str(clone / ".venv/bin/python"), "-c", code], check=True, cwd=tmp_path)
    subprocess.run([str(clone / ".venv/bin/rvc"), "--version"], check=True, cwd=tmp_path)


# What the platforms bring: Colab's backend-info of 2026-08-19 and its older runtime 2026.07, Kaggle's docker-python of
# 2026-08-12 on Colab's image of 2026-05-14. torch's local tag is left out, as no index has these builds.
COLAB = (
    "torch==2.11.0 torchaudio==2.11.0 numpy==2.1.3 scipy==1.16.3 numba==0.61.2 librosa==0.11.0 "
    "transformers==5.15.0 huggingface_hub==1.27.0 matplotlib==3.10.0 ipywidgets==7.7.1 widgetsnbextension==3.6.10 "
    "jupyterlab_widgets==3.0.16 ipython==7.34.0 ipykernel==6.17.1 traitlets==5.7.1 notebook==6.5.7 "
    "nbclient==0.10.4 nbformat==5.11.1 nbconvert==7.17.1 tensorboard==2.20.0 protobuf==5.29.6 setuptools==75.2.0"
)
KAGGLE = (
    "torch==2.10.0 torchaudio==2.10.0 numpy==2.0.2 ipywidgets==8.1.5 ipython==7.34.0 nbconvert==6.4.5 "
    "tensorboard==2.20.0 protobuf==5.29.5 setuptools==75.2.0"
)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("version", "brought"),
    [("3.13", COLAB), ("3.12", COLAB.replace("numpy==2.1.3", "numpy==2.0.2")), ("3.12", KAGGLE)],
    ids=["colab", "colab-2026.07", "kaggle"],
)
def test_nothing_that_a_platform_brings_is_replaced(version: str, brought: str, python: Path, tmp_path: Path) -> None:
    """What set-up asks for can be resolved for the platform's Python and beside its packages."""
    there = dict(line.split("==") for line in brought.split())
    pretend_installed(python, **there)
    limits = bash(f'python="{python}"; where=colab; constraints').stdout
    assert set(limits.split()) == set(brought.split())
    needed = bundle._resolve(ROOT, tmp_path, bundle.Target(version, there), ("torch", "torchaudio"))
    found = {
        canonicalize_name(name): found_version
        for name, found_version in re.findall(r"^([\w.-]+)==(\S+)", needed.read_text(), re.MULTILINE)
    }
    assert {name: found.get(canonicalize_name(name), wanted) for name, wanted in there.items()} == there
    assert {"numpy", "ipywidgets", "tensorboard", "protobuf", "setuptools"} <= found.keys()
    assert not [name for name in found if name in ("torch", "torchaudio", "triton") or name.endswith("-cu12")]
    assert ("standard-aifc" in found) == (version == "3.13")  # which librosa needs there, whatever Python asks
