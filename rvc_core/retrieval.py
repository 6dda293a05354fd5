"""The index: the training voice's content features, searched for what is nearest to a source's and mixed with it.

Files are faiss's own, as RVC writes and reads them. Without faiss the search is exact and slower, and nothing is saved.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from .errors import MismatchError, ResourceError, WeightsError
from .files import replace_atomically
from .settings import IndexSettings

NEIGHBOURS = 8
_EXACT = 1e-8            # squared distance below which a neighbour is the same sound; it then outweighs the others
_BLOCK_FRAMES = 1024     # of queries: bounds memory at 1024 * 8 * 768 numbers
_ADDED_AT_ONCE = 8192
_KMEANS_ROUNDS, _KMEANS_VECTORS_PER_CENTRE = 4, 20

Neighbours = tuple[np.ndarray, np.ndarray]   # squared distances (T, K), inf where missing; their features (T, K, D)


@dataclass(frozen=True)
class FeatureIndex:
    """A set of content features that can be searched.

    Attributes
    ----------
    dimension : int
        Width D of the features.
    vectors : int
        How many there are.
    lists : int
        Cells of the inverted file, of which one is searched; 0 where the search is exact.

    Examples
    --------
    >>> features = np.random.default_rng(0).standard_normal((500, 4)).astype(np.float32)
    >>> index = FeatureIndex.build(features)
    >>> bool(np.allclose(index.mix(features[:3], 1.0), features[:3], atol=1e-5))
    True
    """

    dimension: int
    vectors: int
    lists: int
    _search: Callable[[np.ndarray], Neighbours]
    _faiss_index: Any = None

    @classmethod
    def build(cls, features: np.ndarray, settings: IndexSettings = IndexSettings()) -> "FeatureIndex":
        """Index features (N, D) the way RVC does: ``IVF{n},Flat``, L2, one list probed, k-means above a limit.

        Parameters
        ----------
        features : ndarray (N, D), float32
            In any order; the seed decides the order inside.
        """
        features = np.ascontiguousarray(features, np.float32)
        features = features[np.random.default_rng(settings.seed).permutation(len(features))]
        faiss = _faiss()
        if faiss is None:
            return cls._exact(features[:settings.max_vectors])
        if len(features) > settings.max_vectors:
            kmeans = faiss.Kmeans(features.shape[1], settings.reduced_vectors, niter=_KMEANS_ROUNDS, seed=settings.seed,
                                  min_points_per_centroid=1, max_points_per_centroid=_KMEANS_VECTORS_PER_CENTRE)
            kmeans.train(features)
            features = kmeans.centroids
        index = faiss.index_factory(features.shape[1], f"IVF{lists_for(len(features))},Flat", faiss.METRIC_L2)
        index.nprobe, index.cp.seed, index.cp.min_points_per_centroid = 1, settings.seed, 1   # 1: faiss stays quiet
        index.train(features)
        for start in range(0, len(features), _ADDED_AT_ONCE):
            index.add(features[start:start + _ADDED_AT_ONCE])
        return cls._of(index)

    @property
    def savable(self) -> bool:
        """Whether it can be written: only faiss can."""
        return self._faiss_index is not None

    def save(self, path: Path) -> None:
        """Write a faiss file, whole or not at all.

        Raises
        ------
        ResourceError
            Without faiss, or when the disk is full.
        """
        faiss = _faiss()
        if faiss is None or not self.savable:
            raise ResourceError("the index cannot be saved without faiss", hint="pip install faiss-cpu")
        with replace_atomically(path) as temporary:   # through memory: faiss itself cannot open every path
            faiss.serialize_index(self._faiss_index).tofile(temporary)

    @classmethod
    def load(cls, path: Path) -> "FeatureIndex":
        """Read a faiss file, ours or anyone's: inverted or flat, of all features or of k-means centres.

        Raises
        ------
        WeightsError
            When it is absent, empty or not an index that can be searched by distance.
        ResourceError
            Without faiss.
        """
        if not path.is_file():
            raise WeightsError(f"the index {path} does not exist", hint="build it, or convert without an index")
        faiss = _faiss()
        if faiss is None:
            raise ResourceError("an index file cannot be read without faiss",
                                hint="pip install faiss-cpu, or convert without an index")
        try:
            index = faiss.deserialize_index(np.fromfile(path, np.uint8))
        except (RuntimeError, AssertionError) as error:
            raise WeightsError(f"{path.name} is not a faiss index", hint="build it again, or copy it again") from error
        if index.ntotal == 0 or index.metric_type != faiss.METRIC_L2:
            what = "holds no features" if index.ntotal == 0 else "measures no distances"
            raise WeightsError(f"the index {path.name} {what}", hint="use the file whose name begins with added_IVF")
        return cls._of(index)

    def mix(self, query: np.ndarray, rate: float) -> np.ndarray:
        """Blend each frame with the weighted mean of its nearest neighbours.

        Parameters
        ----------
        query : ndarray (T, D)
        rate : float
            0 leaves the query as it is, 1 replaces it.

        Returns
        -------
        ndarray (T, D), float32

        Raises
        ------
        MismatchError
            When query and index differ in width.
        """
        if query.shape[1] != self.dimension:
            raise MismatchError(f"the index holds features of {self.dimension} values, these have {query.shape[1]}",
                                hint="use the index that was built with this voice")
        query = np.ascontiguousarray(query, np.float32)
        if rate == 0 or not len(query):
            return query
        blocks = [query[start:start + _BLOCK_FRAMES] for start in range(0, len(query), _BLOCK_FRAMES)]
        return np.concatenate([mix_neighbours(block, *self._search(block), rate) for block in blocks])

    @classmethod
    def _of(cls, index: Any) -> "FeatureIndex":
        def search(query: np.ndarray) -> Neighbours:
            distances, numbers, features = index.search_and_reconstruct(query, NEIGHBOURS)
            return np.where(numbers < 0, np.inf, distances), features
        return cls(index.d, index.ntotal, getattr(index, "nlist", 0), search, index)

    @classmethod
    def _exact(cls, vectors: np.ndarray) -> "FeatureIndex":
        squares = (vectors**2).sum(1)

        def search(query: np.ndarray) -> Neighbours:
            distances = (query**2).sum(1, keepdims=True) + squares - 2 * query @ vectors.T
            nearest = np.argpartition(distances, min(NEIGHBOURS, len(vectors)) - 1, axis=1)[:, :NEIGHBOURS]
            return np.take_along_axis(distances, nearest, 1), vectors[nearest]
        return cls(vectors.shape[1], len(vectors), 0, search)


def lists_for(vectors: int) -> int:
    """RVC's number of inverted lists.

    Examples
    --------
    >>> lists_for(10), lists_for(10_000), lists_for(200_000)
    (1, 256, 5128)
    """
    return max(1, min(int(16 * vectors**0.5), vectors // 39))


def mix_neighbours(query: np.ndarray, squared_distance: np.ndarray, neighbours: np.ndarray, rate: float) -> np.ndarray:
    """Blend frames with their neighbours, weighted by the inverse square of the squared distance, as RVC weighs them.

    Parameters
    ----------
    query : ndarray (T, D)
    squared_distance : ndarray (T, K)
        Infinite where a neighbour is missing; a frame without any keeps its query.
    neighbours : ndarray (T, K, D)
    rate : float
        0..1.
    """
    there = np.isfinite(squared_distance)
    weight = np.where(there, 1.0 / np.maximum(squared_distance, _EXACT, dtype=np.float64) ** 2, 0.0)
    weight /= np.maximum(weight.sum(1, keepdims=True), np.finfo(np.float64).tiny)
    retrieved = np.einsum("tk,tkd->td", weight.astype(np.float32), np.where(there[..., None], neighbours, 0))
    share = rate * there.any(1, keepdims=True)
    return ((1 - share) * query + share * retrieved).astype(np.float32)


def _faiss() -> ModuleType | None:
    """The optional package, or None."""
    try:
        import faiss
    except ImportError:
        return None
    return faiss
