"""The index: its arithmetic on hand-computed numbers, its files, and the files of others."""

import sys

import faiss
import numpy as np
import pytest

from rvc_core.errors import MismatchError, ResourceError, WeightsError
from rvc_core.retrieval import FeatureIndex, lists_for, mix_neighbours
from rvc_core.settings import IndexSettings

FEATURES = np.random.default_rng(0).standard_normal((2000, 16)).astype(np.float32)


@pytest.fixture(params=["faiss", "without faiss"])
def index(request, monkeypatch):
    if request.param == "without faiss":
        monkeypatch.setitem(sys.modules, "faiss", None)
    return FeatureIndex.build(FEATURES)


def test_hand_computed_mix():
    """Neighbours at squared distances 1 and 2 weigh 1 and 1/4; the third is missing."""
    neighbours = np.array([[[1.0, 0.0], [6.0, 5.0], [np.nan, np.nan]]])
    mixed = mix_neighbours(np.array([[0.0, 0.0]]), np.array([[1.0, 2.0, np.inf]]), neighbours, rate=0.5)
    np.testing.assert_allclose(mixed, [[1.0, 0.5]])


def test_frames_without_neighbours_keep_their_query():
    nothing = mix_neighbours(np.ones((2, 3)), np.full((2, 8), np.inf), np.full((2, 8, 3), np.nan), rate=1.0)
    np.testing.assert_array_equal(nothing, np.ones((2, 3)))


def test_mix(index):
    query = FEATURES[:50] + np.float32(0.05)
    assert index.mix(query, 0.0) is not None and np.array_equal(index.mix(query, 0.0), query)
    exact = index.mix(FEATURES[:50], 1.0)
    np.testing.assert_allclose(exact, FEATURES[:50], atol=1e-4)   # an exact match wins, and is finite
    half, whole = index.mix(query, 0.5), index.mix(query, 1.0)
    np.testing.assert_allclose(half, (query + whole) / 2, atol=1e-6)
    assert half.dtype == np.float32 and index.mix(query[:0], 1.0).shape == (0, 16)
    assert (index.dimension, index.vectors) == (16, 2000)


def test_faiss_equals_brute_force_when_every_list_is_probed():
    index, query = FeatureIndex.build(FEATURES), np.random.default_rng(1).standard_normal((40, 16)).astype(np.float32)
    index._faiss_index.nprobe = index.lists
    distance = ((query[:, None] - FEATURES) ** 2).sum(-1)
    nearest = np.argsort(distance, 1)[:, :8]
    weight = 1 / np.take_along_axis(distance, nearest, 1) ** 2
    expected = (weight[..., None] * FEATURES[nearest]).sum(1) / weight.sum(1, keepdims=True)
    np.testing.assert_allclose(index.mix(query, 1.0), expected, atol=1e-5)


def test_fewer_vectors_than_neighbours(monkeypatch):
    few = FEATURES[:3]
    with_faiss = FeatureIndex.build(few).mix(few + 0.5, 0.8)
    monkeypatch.setitem(sys.modules, "faiss", None)
    np.testing.assert_allclose(FeatureIndex.build(few).mix(few + 0.5, 0.8), with_faiss, atol=1e-5)
    assert np.isfinite(with_faiss).all()


def test_file_is_what_rvc_expects(tmp_path):
    path = tmp_path / "Голос 声 'x'" / "added_IVF51_Flat.index"
    FeatureIndex.build(FEATURES).save(path)
    plain = tmp_path / "plain.index"
    plain.write_bytes(path.read_bytes())
    read = faiss.read_index(str(plain))
    assert (read.ntotal, read.d, read.nlist, read.nprobe) == (2000, 16, lists_for(2000), 1)
    assert isinstance(read, faiss.IndexIVFFlat) and lists_for(2000) == 51
    np.testing.assert_array_equal(np.sort(read.reconstruct_n(0, 2000), 0), np.sort(FEATURES, 0))
    loaded = FeatureIndex.load(path)
    np.testing.assert_array_equal(loaded.mix(FEATURES[:9], 0.7), FeatureIndex.build(FEATURES).mix(FEATURES[:9], 0.7))
    assert [item.name for item in path.parent.iterdir()] == [path.name]


def test_same_seed_same_file(tmp_path):
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        FeatureIndex.build(FEATURES, IndexSettings(seed=seed)).save(tmp_path / name)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes() != (tmp_path / "c").read_bytes()


def test_kmeans_reduces_large_sets(capfd):
    index = FeatureIndex.build(FEATURES, IndexSettings(max_vectors=1000, reduced_vectors=100))
    assert (index.vectors, index.lists) == (100, 2)
    distance = np.linalg.norm(index.mix(FEATURES, 1.0) - FEATURES, axis=1).mean()
    assert distance < np.linalg.norm(FEATURES, axis=1).mean()
    assert capfd.readouterr() == ("", "")


def test_flat_index_of_others(tmp_path):
    flat = faiss.IndexFlatL2(16)
    flat.add(FEATURES)
    faiss.write_index(flat, str(tmp_path / "flat.index"))
    loaded = FeatureIndex.load(tmp_path / "flat.index")
    np.testing.assert_allclose(loaded.mix(FEATURES[:5], 1.0), FEATURES[:5], atol=1e-3)


@pytest.mark.parametrize("content", ["absent", "text", "nothing", "torn", "unfilled", "inner product"])
def test_refused_files(tmp_path, content):
    path, whole = tmp_path / "x.index", tmp_path / "whole.index"
    FeatureIndex.build(FEATURES).save(whole)
    if content in ("unfilled", "inner product"):
        made = faiss.index_factory(16, "IVF4,Flat" if content == "unfilled" else "Flat",
                                   faiss.METRIC_L2 if content == "unfilled" else faiss.METRIC_INNER_PRODUCT)
        made.train(FEATURES)
        if content == "inner product":
            made.add(FEATURES)
        faiss.write_index(made, str(path))
    elif content != "absent":
        path.write_bytes({"text": b"hello there, no index", "nothing": b"", "torn": whole.read_bytes()[:5000]}[content])
    with pytest.raises(WeightsError) as error:
        FeatureIndex.load(path)
    assert "x.index" in str(error.value) and error.value.hint


def test_dimension_mismatch_names_both():
    with pytest.raises(MismatchError, match=r"16.*768"):
        FeatureIndex.build(FEATURES).mix(np.zeros((3, 768)), 0.5)


def test_saving_without_faiss_is_refused_in_words(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "faiss", None)
    with pytest.raises(ResourceError, match="faiss"):
        FeatureIndex.build(FEATURES).save(tmp_path / "a.index")
