"""The index: its arithmetic on hand-computed numbers, its files, and the files of others."""

import sys
import tempfile
from dataclasses import replace
from pathlib import Path

import faiss
import numpy as np
import pytest

from rvc_core.errors import MismatchError, UnsafeFileError, WeightsError
from rvc_core.features.faiss_file import parse, read_note
from rvc_core.features.retrieval import FeatureIndex, lists_for, mix_neighbours, whole_search
from rvc_core.presets import preset
from rvc_core.settings import IndexSettings
from rvc_core.voices.library import find_index
from rvc_core.workspace.voice_file import VoiceFile, VoiceInfo

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
    np.testing.assert_allclose(exact, FEATURES[:50], atol=1e-4)  # an exact match wins, and is finite
    half, whole = index.mix(query, 0.5), index.mix(query, 1.0)
    np.testing.assert_allclose(half, (query + whole) / 2, atol=1e-6)
    assert half.dtype == np.float32 and index.mix(query[:0], 1.0).shape == (0, 16)
    assert (index.dimension, index.vectors) == (16, 2000)


def as_faiss_has_it(index, query):
    """Distances and neighbours from faiss itself, infinite where there are none."""
    with tempfile.TemporaryDirectory() as folder:
        index.save(Path(folder) / "x.index")
        found = faiss.read_index(str(Path(folder) / "x.index"))
    distances, numbers, features = found.search_and_reconstruct(query, 8)
    return np.where(numbers < 0, np.inf, distances), features


@pytest.mark.parametrize("probes", [1, 3, 51])
def test_searching_the_lists_equals_faiss(probes):
    built, query = FeatureIndex.build(FEATURES), np.random.default_rng(1).standard_normal((40, 16)).astype(np.float32)
    index = FeatureIndex.of(replace(built.arrays, probes=probes))
    assert index.lists == 51
    distances, features = as_faiss_has_it(index, query)
    np.testing.assert_allclose(index.mix(query, 1.0), mix_neighbours(query, distances, features, 1.0), atol=1e-5)


@pytest.mark.parametrize("width", [256, 768])
@pytest.mark.parametrize("far", [0, 10])
def test_the_search_of_the_gpu_is_exact(width, far):
    """The same code as on a GPU, here on the CPU device; also with features far from 0, where faiss itself errs."""
    random = np.random.default_rng(2)
    features = (far + random.standard_normal((700, width))).astype(np.float32)
    query = (features[:30] + 0.1 * random.standard_normal((30, width))).astype(np.float32)
    flat = faiss.IndexFlatL2(width)
    flat.add(features)
    distances, found = whole_search(features, "cpu")(query)
    every = ((features.astype(np.float64) - query[:, None]) ** 2).sum(2)
    nearest = np.argsort(every, 1)[:, :8]
    np.testing.assert_array_equal(found, features[nearest])
    np.testing.assert_allclose(distances, np.take_along_axis(every, nearest, 1), rtol=1e-5)
    if not far:
        np.testing.assert_array_equal(flat.search(query, 8)[1], nearest)


def test_an_index_of_another_encoder_is_refused():
    index = FeatureIndex.build(FEATURES, note={"name": "alice", "content_identity": "one"})
    index.refuse_other_encoder("one")
    index.refuse_other_encoder("")
    FeatureIndex.build(FEATURES).refuse_other_encoder("two")
    with pytest.raises(MismatchError, match="encoder one.*two"):
        index.refuse_other_encoder("two")


def test_fewer_vectors_than_neighbours(monkeypatch):
    few = FEATURES[:3]
    with_faiss = FeatureIndex.build(few).mix(few + 0.5, 0.8)
    monkeypatch.setitem(sys.modules, "faiss", None)
    np.testing.assert_allclose(FeatureIndex.build(few).mix(few + 0.5, 0.8), with_faiss, atol=1e-5)
    assert np.isfinite(with_faiss).all()


def test_file_is_what_rvc_expects(tmp_path):
    path = tmp_path / "Голос 声 'x'" / "added_IVF51_Flat.index"
    note = {"name": "Голос", "content_identity": "0123"}
    FeatureIndex.build(FEATURES, note=note).save(path)
    plain = tmp_path / "plain.index"
    plain.write_bytes(path.read_bytes())
    read = faiss.read_index(str(plain))
    assert (read.ntotal, read.d, read.nlist, read.nprobe) == (2000, 16, lists_for(2000), 1)
    assert isinstance(read, faiss.IndexIVFFlat) and lists_for(2000) == 51
    loaded = FeatureIndex.load(path)
    np.testing.assert_array_equal(read.reconstruct_n(0, 2000), loaded.features)
    np.testing.assert_array_equal(loaded.mix(FEATURES[:9], 0.7), FeatureIndex.build(FEATURES).mix(FEATURES[:9], 0.7))
    assert [item.name for item in path.parent.iterdir()] == [path.name]
    assert loaded.note == note == read_note(path)


@pytest.mark.parametrize("kind", ["Flat", "IVF7,Flat", "IVF300,Flat", "array of places", "pairs of places"])
def test_files_of_faiss_are_read_and_written_to_the_byte(tmp_path, kind):
    """Also with lists that are mostly empty, which faiss writes as pairs, and with its tables of places."""
    made = faiss.index_factory(16, kind if kind.endswith("Flat") else "IVF7,Flat")
    made.train(FEATURES)
    made.add(FEATURES[:20] if "300" in kind else FEATURES)
    if not kind.endswith("Flat"):
        made.set_direct_map_type(faiss.DirectMap.Array if "array" in kind else faiss.DirectMap.Hashtable)
    path = tmp_path / "x.index"
    faiss.write_index(made, str(path))
    loaded = FeatureIndex.load(path)
    np.testing.assert_array_equal(loaded.features, FEATURES[: loaded.vectors])
    assert loaded.vectors == made.ntotal and loaded.lists == getattr(made, "nlist", 0)
    loaded.save(tmp_path / "again.index")
    if kind in ("Flat", "IVF7,Flat"):
        assert (tmp_path / "again.index").read_bytes() == path.read_bytes()
    assert faiss.read_index(str(tmp_path / "again.index")).ntotal == made.ntotal


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


@pytest.mark.parametrize("content", ["absent", "text", "nothing", "unfilled", "inner product", "not finite", "PQ"])
def test_refused_files(tmp_path, content):
    path = tmp_path / "x.index"
    factory = {"unfilled": "IVF4,Flat", "PQ": "IVF4,PQ4x4"}.get(content, "Flat")
    if content in ("text", "nothing"):
        path.write_bytes(b"hello there, no index" if content == "text" else b"")
    elif content != "absent":
        metric = faiss.METRIC_INNER_PRODUCT if content == "inner product" else faiss.METRIC_L2
        made = faiss.index_factory(16, factory, metric)
        made.train(FEATURES)
        if content != "unfilled":
            made.add(FEATURES * np.float32(np.nan if content == "not finite" else 1))
        faiss.write_index(made, str(path))
    with pytest.raises(WeightsError) as error:
        FeatureIndex.load(path)
    assert "x.index" in str(error.value) and error.value.hint


@pytest.mark.parametrize("kind", ["Flat", "IVF3,Flat"])
def test_a_damaged_file_is_an_error_and_no_crash(tmp_path, kind):
    """Cut at every place among the sizes, and every byte of theirs replaced by what a liar would write."""
    made = faiss.index_factory(4, kind)
    made.train(FEATURES[:200, :4].copy())
    made.add(FEATURES[:20, :4].copy())
    whole = faiss.serialize_index(made)
    index = FeatureIndex.of(parse(whole))
    for stop in range(len(whole)):
        with pytest.raises(ValueError, match="truncated|no faiss"):
            parse(whole[:stop])
    for place in range(len(whole)):
        for value in (0, 1, 127, 128, 255):
            changed = whole.copy()
            changed[place] = value
            try:
                index = FeatureIndex.of(parse(changed))
            except ValueError:
                continue
            assert index.vectors == 20 and np.isfinite(index.mix(FEATURES[:2, :4], 1.0)).all() or index.dimension != 4


def test_a_file_too_large_is_not_opened(tmp_path):
    with (tmp_path / "bomb.index").open("wb") as file:
        file.truncate(5 << 30)  # no bytes on the disk
    with pytest.raises(UnsafeFileError, match=r"bomb.index.*5120 MiB"):
        FeatureIndex.load(tmp_path / "bomb.index")


def test_dimension_mismatch_names_both():
    with pytest.raises(MismatchError, match=r"16.*768"):
        FeatureIndex.build(FEATURES).mix(np.zeros((3, 768)), 0.5)


def test_without_faiss_files_are_read_and_written_all_the_same(monkeypatch, tmp_path):
    FeatureIndex.build(FEATURES).save(tmp_path / "lists.index")
    monkeypatch.setitem(sys.modules, "faiss", None)
    FeatureIndex.build(FEATURES).save(tmp_path / "flat.index")
    lists, flat = (FeatureIndex.load(tmp_path / name) for name in ("lists.index", "flat.index"))
    monkeypatch.undo()
    assert (lists.lists, flat.lists) == (51, 0)
    np.testing.assert_array_equal(lists.features, flat.features)
    assert faiss.read_index(str(tmp_path / "flat.index")).ntotal == 2000


def saved(path, **note):
    FeatureIndex.build(FEATURES, note=note).save(path)
    return path


def test_a_voice_finds_its_index_by_what_is_recorded_whatever_it_is_called(tmp_path):
    voice = VoiceFile(preset("nano"), {}, VoiceInfo("Алиса"))
    own = saved(tmp_path / "my favourite.index", name="Алиса", version="nano")
    saved(tmp_path / "added_IVF51_Flat_nprobe_1_x_nano.index", name="Мария", version="nano")
    saved(tmp_path / "Алиса.index", name="Алиса", version="v2")  # recorded as another's, though the name fits
    assert find_index(tmp_path / "x.pth", voice) == (own, [])
    own.unlink()
    assert find_index(tmp_path / "x.pth", voice) == (None, ["no index of this voice was found"])


@pytest.mark.parametrize(
    ("name", "found"),
    [
        ("added_IVF51_Flat_nprobe_1_bob_v2", True),
        ("bob_added_IVF51_Flat_nprobe_1_bob_v2", True),
        ("bob", True),
        ("added_IVF51_Flat_nprobe_1_bob_v1", False),
        ("added_IVF51_Flat_nprobe_1_bobby_v2", False),
        ("my bob", False),
        ("added_IVF51_Flat_nprobe_1_jim_bob_v2", False),
        ("trained_IVF51_Flat_nprobe_1_bob_v2", False),
    ],
)
def test_an_index_of_others_is_found_by_its_exact_name(tmp_path, name, found):
    path = saved(tmp_path / f"{name}.index")
    voice = VoiceFile(preset("v2-40k"), {}, VoiceInfo("bob_e60_s120"))  # RVC records no name: it is the file's
    assert (find_index(tmp_path / "bob_e60_s120.pth", voice)[0] == path) is found
