"""Platform detection by the marks that platforms set, the choice of device, and the report on the installation."""

from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from rvc_core.errors import ResourceError, SettingsError
from rvc_core.experiment import Experiment
from rvc_core.system import devices, installation, platforms
from rvc_core.system.platforms import home


def nowhere(path: str) -> bool:
    return False


@pytest.mark.parametrize(
    ("environment", "paths", "name"),
    [
        ({}, (), "local"),
        ({"COLAB_RELEASE_TAG": "release-colab"}, (), "colab"),
        ({"COLAB_GPU": ""}, ("/var/colab/hostname",), "colab"),
        ({"KAGGLE_KERNEL_RUN_TYPE": "Interactive", "COLAB_RELEASE_TAG": "r"}, ("/var/colab/hostname",), "kaggle"),
        ({"KAGGLE_KERNEL_RUN_TYPE": "Batch"}, (), "kaggle"),
        ({"LIGHTNING_CLOUD_SPACE_ID": "x", "LIGHTNING_INTERACTIVE": "true"}, (), "lightning"),
    ],
)
def test_each_platform_is_known_by_its_marks(environment, paths, name):
    assert platforms.detect(environment, lambda path: path in paths).name == name


def test_colab_keeps_files_only_on_a_mounted_drive():
    marks = {"COLAB_RELEASE_TAG": "r"}
    assert platforms.detect(marks, nowhere).storage is None
    mounted = platforms.detect(marks, lambda path: path == "/content/drive/MyDrive")
    assert mounted.storage == Path("/content/drive/MyDrive/rvc_core") and mounted.home == Path("/content")


def test_a_lightning_job_writes_to_its_artifacts():
    marks = {"LIGHTNING_CLOUD_SPACE_ID": "x"}
    assert platforms.detect(marks, nowhere).home == Path("/teamspace/studios/this_studio")
    assert platforms.detect(marks | {"LIGHTNING_ARTIFACTS_DIR": "/a"}, nowhere).home == Path("/a")


def test_the_platform_gives_the_default_home(monkeypatch, tmp_path):
    monkeypatch.delenv("RVC_HOME")
    monkeypatch.chdir(tmp_path)
    assert home() == tmp_path
    monkeypatch.setenv("RVC_HOME", str(tmp_path / "mine"))
    assert home() == tmp_path / "mine"


@pytest.fixture
def gpu(monkeypatch):
    """Pretend that one GPU of this compute capability is there, and what torch is built for."""

    def pretend(capability, architectures):
        fake = SimpleNamespace(
            is_available=lambda: True,
            device_count=lambda: 1,
            get_device_name=lambda n: "GPU",
            get_device_capability=lambda n: capability,
            get_arch_list=lambda: architectures,
        )
        monkeypatch.setattr(torch, "cuda", fake)

    return pretend


CU126 = ["sm_50", "sm_60", "sm_70", "sm_75", "sm_80", "sm_86", "sm_90"]
CU130 = ["sm_75", "sm_80", "sm_86", "sm_90", "sm_100", "sm_120", "compute_120"]


@pytest.mark.parametrize(
    ("capability", "architectures", "usable"),
    [
        ((7, 5), CU130, True),
        ((8, 9), CU130, True),
        ((9, 0), CU130, True),
        ((12, 1), CU130, True),
        ((6, 0), CU126, True),
        ((6, 0), CU130, False),
        ((7, 0), CU130, False),
        ((9, 0), ["sm_90a"], True),
    ],
)
def test_a_gpu_is_used_only_if_torch_has_code_for_it(gpu, capability, architectures, usable):
    gpu(capability, architectures)
    assert devices.choose_device("auto").name == ("cuda:0" if usable else "cpu")
    if not usable:
        assert "not built for" in devices.choose_device("auto").reason
        with pytest.raises(ResourceError, match="not built for"):
            devices.choose_device("cuda")


def test_a_gpu_without_code_is_refused_with_what_works_unless_the_cpu_was_chosen(gpu, tmp_path):
    gpu((6, 0), CU130)
    lab = Experiment.open("nobody", home=tmp_path)
    for work in (devices.refuse_unbuilt, lab.train, lab.run):  # before anything is looked for or made
        with pytest.raises(ResourceError, match="not built for") as caught:
            work()
    for remedy in ("GPU T4 x2", "P100 in September 2026", "cu126", "fp32", "CUDA_VISIBLE_DEVICES"):
        assert remedy in caught.value.hint
    devices.refuse_unbuilt("cpu")
    gpu((6, 0), CU126)
    devices.refuse_unbuilt()


def test_a_gpu_that_is_not_there_is_refused_by_number(gpu):
    gpu((7, 5), CU130)
    assert devices.choose_device("cuda:0").name == "cuda:0"
    with pytest.raises(ResourceError, match="there are 1 GPUs"):
        devices.choose_device("cuda:3")


@pytest.mark.parametrize("name", ["gpu", "cuda:", "cuda:x", "CPU", ""])
def test_an_unknown_device_is_refused(name):
    with pytest.raises(SettingsError) as caught:
        devices.choose_device(name)
    assert "cuda:N" in caught.value.hint


def test_without_a_gpu_the_reason_is_said(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(devices.shutil, "which", lambda program: None)
    assert devices.choose_device() == ("cpu", "this machine has no NVIDIA GPU")
    monkeypatch.setattr(devices.shutil, "which", lambda program: "/usr/bin/nvidia-smi")
    monkeypatch.setattr(torch.version, "cuda", None)
    assert devices.choose_device().reason == "the installed torch has no CUDA"


def test_the_report_finds_what_is_wrong(monkeypatch):
    assert installation.check()["device"]["name"] in ("cpu", "cuda:0")
    broken = installation.versions() | {"torch": "2.6.0", "torchaudio": None, "faiss-cpu": "1.15", "faiss-gpu": "1.15"}
    monkeypatch.setattr(installation, "versions", lambda: broken)
    problems = {entry["problem"]: entry["hint"] for entry in installation.check()["problems"]}
    assert {
        "torchaudio is not installed",
        "torch 2.6.0 is older than 2.8",
        "faiss-cpu and faiss-gpu overwrite each other",
    } <= set(problems)
    assert all(problems.values())
