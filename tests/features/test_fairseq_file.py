"""fairseq's hubert_base.pt: the right features, and nothing else that its pickle asks for is built."""

import argparse
import collections
import enum
import hashlib
import sys
import types
import zlib
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch

from rvc_core.errors import UnsafeFileError, WeightsError
from rvc_core.evaluation.golden import noise
from rvc_core.features import fairseq_file
from rvc_core.features.content import content_encoder, content_identity
from rvc_core.features.fairseq_file import fairseq_names, load_fairseq
from synth import phrase

GOLDEN = Path(__file__).parents[1] / "golden" / "fairseq_hubert.npz"
THIN = {"intermediate_size": 32, "conv_dim": (32,) * 7, "num_conv_pos_embeddings": 16, "classifier_proj_size": 256}


def formula_weight(key, shape):
    """Numbers that belong to fairseq's name of a weight, of a size that keeps the signal's."""
    values = noise(int(np.prod(shape)), zlib.crc32(key.encode()) % 997).view(*shape)
    if len(shape) > 1:
        values = 1 + 0.3 * values if key.endswith("weight_g") else values * (3 * shape[0] / values.numel()) ** 0.5
    else:
        values = 1 + 0.1 * values if key.endswith("weight") else 0.1 * values
    return values.float()


def sound():
    return phrase(0, seconds=1).samples[:8000]


@pytest.fixture(autouse=True)
def no_encoder_is_kept():
    content_encoder.cache_clear()
    yield
    content_encoder.cache_clear()


@pytest.fixture(scope="module")
def thin():
    """Configuration of a thin HuBERT, and its weights as fairseq names them."""
    from transformers import HubertConfig, HubertModel

    config = HubertConfig(**THIN)
    with torch.device("meta"):
        model = HubertModel(config)
        model.final_proj = torch.nn.Linear(768, 256)
    shapes = {key: value.shape for key, value in model.state_dict().items()}
    return config, collections.OrderedDict(
        (theirs, formula_weight(theirs, shapes[ours])) for theirs, ours in fairseq_names().items()
    )


class Caller:
    """Pickles as a call of anything."""

    def __init__(self, function, *arguments):
        self.call = (function, arguments)

    def __reduce__(self):
        return self.call


@pytest.fixture
def foreign(monkeypatch):
    """Modules that exist only while the file is written, with classes of every kind that pickle knows."""
    fairseq, made = types.ModuleType("fairseq_fake"), []
    names = {"Dictionary": object, "Config": dict, "Sizes": list, "Tags": set, "Count": int}
    for name, base in names.items():
        kind = type(
            name,
            (base,),
            {
                "__module__": "fairseq_fake",
                "__new__": lambda cls, *given, base=base, **named: (
                    made.append(cls),
                    base.__new__(cls, *given, **named),
                )[1],
            },
        )
        setattr(fairseq, name, kind)
    fairseq.Choice = enum.Enum("Choice", ["STATIC"], module="fairseq_fake")
    monkeypatch.setitem(sys.modules, "fairseq_fake", fairseq)
    return fairseq, made


def foreign_objects(fairseq, marker):
    task = fairseq.Dictionary()
    task.symbols = ["a", fairseq.Choice.STATIC]
    task.itself = task
    config, sizes, tags = fairseq.Config(rate=50), fairseq.Sizes([1, 2]), fairseq.Tags({3})
    config["task"], config.note = task, "note"
    return {
        "args": argparse.Namespace(arch="hubert", size=fairseq.Count(3)),
        "cfg": config,
        "task_state": [sizes, tags],
        "path": Path("/tmp"),
        "hostile": Caller(exec, f"open({str(marker)!r}, 'w')"),
        "nested": Caller(getattr, Caller(__import__, "os"), "getcwd"),
        "key": {fairseq.Choice.STATIC: 1},
        "extra_state": {"epoch": 1, "metrics": collections.defaultdict(list, a=[1.0])},
    }


def write(path, content, archive=True):
    torch.save(content, path, _use_new_zipfile_serialization=archive)
    return hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.mark.parametrize("archive", [True, False])
def test_tensors_arrive_and_nothing_else_comes_into_being(thin, foreign, monkeypatch, tmp_path, archive):
    (fairseq, made), marker, file = foreign, tmp_path / "it_ran", tmp_path / "hubert_base.pt"
    some = {key: value for key, value in thin[1].items() if value.numel() < 1000}
    monkeypatch.setattr(fairseq_file, "fairseq_names", lambda: {key: key.upper() for key in some})
    content = {"model": {**some, "label_embs_concat": torch.zeros(2, 2)}, **foreign_objects(fairseq, marker)}
    digest = write(file, content, archive)
    monkeypatch.delitem(sys.modules, "fairseq_fake")
    made.clear()
    weights = load_fairseq(file, digest)
    assert set(weights) == {key.upper() for key in some} and not made and not marker.exists()
    assert all((weights[key.upper()] == value).all() for key, value in some.items())
    loaded = torch.load(file, weights_only=False, pickle_module=fairseq_file._PICKLE)
    kinds, stack = set(), list(loaded.values())
    while stack:
        item = stack.pop()
        kinds.add(type(item))
        stack += [*item.keys(), *item.values()] if isinstance(item, dict) else item if isinstance(item, list) else []
    assert kinds <= {dict, list, str, int, float, collections.OrderedDict, torch.Tensor, fairseq_file._Nothing}
    assert not any(hasattr(loaded[key], "__dict__") for key in ("args", "cfg", "hostile", "nested"))
    monkeypatch.setitem(sys.modules, "fairseq_fake", fairseq)  # the file is what it pretends to be: elsewhere it runs
    torch.load(file, weights_only=False)
    assert marker.exists() and {kind.__name__ for kind in made} == {"Dictionary", "Config", "Sizes", "Tags", "Count"}


@pytest.mark.parametrize("width", [256, 768])
def test_features_are_those_of_fairseq(thin, monkeypatch, tmp_path, width):
    config, weights = thin
    digest = write(
        tmp_path / "hubert_base.pt",
        {"args": argparse.Namespace(arch="hubert"), "model": {key: value.half() for key, value in weights.items()}},
    )
    config.save_pretrained(tmp_path)  # without this file it is taken for the full size
    monkeypatch.setenv("RVC_HUBERT", str(tmp_path))
    monkeypatch.setattr(fairseq_file, "load_fairseq", partial(load_fairseq, sha256=digest))
    encoder = content_encoder("contentvec", width)
    features = encoder(sound())
    expected = np.load(GOLDEN)[f"width_{width}"]
    assert features.shape == (24, width)
    np.testing.assert_allclose(features[::4, :: width // 32], expected, atol=1e-4)
    assert content_identity("contentvec", width) == encoder.identity


def test_the_names_are_those_of_fairseqs_module_tree():
    expected = np.load(GOLDEN)
    names = sorted([*fairseq_names(), "label_embs_concat"])
    assert len(names) == expected["keys"] and zlib.crc32("\n".join(names).encode()) == expected["keys_crc32"]


def test_another_file_is_not_opened(thin, tmp_path, monkeypatch):
    file, marker = tmp_path / "hubert_base.pt", tmp_path / "it_ran"
    write(file, {"model": Caller(exec, f"open({str(marker)!r}, 'w')")})
    with pytest.raises(UnsafeFileError, match="is not opened") as error:
        load_fairseq(file)
    assert "hubert_base" in error.value.hint and not marker.exists()
    monkeypatch.setenv("RVC_HUBERT", str(tmp_path))
    with pytest.raises(UnsafeFileError):
        content_encoder("contentvec", 768)


@pytest.mark.parametrize("content", [[1], {"model": 3}, {"model": {"mask_emb": torch.zeros(3)}}])
def test_another_model_is_an_error(tmp_path, content):
    file = tmp_path / "hubert_base.pt"
    digest = write(file, content)
    with pytest.raises(WeightsError) as error:
        load_fairseq(file, digest)
    assert error.value.hint


def test_a_torn_file_is_an_error(tmp_path):
    file = tmp_path / "hubert_base.pt"
    digest = write(file, {"model": {}})
    file.write_bytes(file.read_bytes()[:100])
    with pytest.raises(UnsafeFileError) as error:
        load_fairseq(file, digest)
    assert "rvc weights fetch" in error.value.hint


def test_a_pickle_cannot_change_torchs_own_function(tmp_path):
    file, before = tmp_path / "hubert_base.pt", torch._utils._rebuild_tensor_v2.__defaults__
    file.write_bytes(b"\x80\x02ctorch._utils\n_rebuild_tensor_v2\nN}X\x0c\x00\x00\x00__defaults__N\x86s\x86b.")
    with pytest.raises((AttributeError, TypeError)):
        load_fairseq(file, hashlib.sha256(file.read_bytes()).hexdigest())
    assert torch._utils._rebuild_tensor_v2.__defaults__ == before
