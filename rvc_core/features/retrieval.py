"""The index: find the training features nearest to the source's features, and mix both.

Files are in faiss's format, as in RVC (faiss_file.py). faiss itself only builds the lists. Without faiss, the search
visits every vector, which is exact and slower.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from types import ModuleType

import numpy as np

from ..errors import MismatchError
from ..settings import IndexSettings
from .faiss_file import IndexArrays, load_arrays, parse, save_arrays

NEIGHBOURS = 8
_CANDIDATES = 32
_EXACT = 1e-8  # squared distance below which a neighbour is the same sound and outweighs the others
_BLOCK_FRAMES = 256  # per search: bounds the memory at 256 * 200,000 distances
_ADDED_AT_ONCE = 8192
_KMEANS_ROUNDS, _KMEANS_VECTORS_PER_CENTRE = 4, 20

Neighbours = tuple[np.ndarray, np.ndarray]  # squared distances (T, K), inf if missing; features (T, K, D)


@dataclass(frozen=True)
class FeatureIndex:
    """A searchable set of content features.

    On a CPU, a search visits the nearest lists. On a GPU (`device`), it compares with all features.

    Examples
    --------
    >>> features = np.random.default_rng(0).standard_normal((500, 4)).astype(np.float32)
    >>> index = FeatureIndex.build(features)
    >>> bool(np.allclose(index.mix(features[:3], 1.0), features[:3], atol=1e-5))
    True
    """

    arrays: IndexArrays
    device: str = "cpu"
    _whole_search: Callable[[np.ndarray], Neighbours] | None = None

    @classmethod
    def build(
        cls, features: np.ndarray, settings: IndexSettings = IndexSettings(), note: dict[str, str] | None = None
    ) -> "FeatureIndex":
        """Index features (N, D) as RVC does: ``IVF{n},Flat``, L2, one list probed, k-means above a limit.

        Parameters
        ----------
        features : ndarray (N, D), float32
            In any order; the seed shuffles them.
        note : dict of str to str, optional
            Their origin: ``name`` of the voice, ``content_identity`` of the encoder. The index file stores it.
        """
        features = np.ascontiguousarray(features, np.float32)
        features = features[np.random.default_rng(settings.seed).permutation(len(features))]
        faiss = _faiss()
        if faiss is None:
            return cls.of(replace(IndexArrays.flat(features[: settings.max_vectors]), note=note or {}))
        if len(features) > settings.max_vectors:
            kmeans = faiss.Kmeans(
                features.shape[1],
                settings.reduced_vectors,
                niter=_KMEANS_ROUNDS,
                seed=settings.seed,
                min_points_per_centroid=1,
                max_points_per_centroid=_KMEANS_VECTORS_PER_CENTRE,
            )
            kmeans.train(features)
            features = kmeans.centroids
        index = faiss.index_factory(features.shape[1], f"IVF{lists_for(len(features))},Flat", faiss.METRIC_L2)
        index.nprobe, index.cp.seed, index.cp.min_points_per_centroid = 1, settings.seed, 1  # 1: no warning
        index.train(features)
        for start in range(0, len(features), _ADDED_AT_ONCE):
            index.add(features[start : start + _ADDED_AT_ONCE])
        return cls.of(replace(parse(faiss.serialize_index(index)), note=note or {}))

    @classmethod
    def of(cls, arrays: IndexArrays) -> "FeatureIndex":
        """Make an index from arrays, for search on the CPU."""
        return cls(arrays).on("cpu")

    @property
    def dimension(self) -> int:
        """Width D of a feature."""
        return self.arrays.vectors.shape[1]

    @property
    def vectors(self) -> int:
        """Number of features."""
        return len(self.arrays.vectors)

    @property
    def lists(self) -> int:
        """Number of inverted lists; 0 for a flat index."""
        return len(self.arrays.centres)

    @property
    def note(self) -> dict[str, str]:
        """Recorded origin; empty in files of other programs."""
        return self.arrays.note

    @property
    def features(self) -> np.ndarray:
        """All features (N, D), in the order of adding."""
        return self.arrays.vectors[np.argsort(self.arrays.numbers, kind="stable")]

    def save(self, path: Path) -> None:
        """Write a faiss file atomically.

        Raises
        ------
        ResourceError
            When the disk is full.
        """
        save_arrays(path, self.arrays)

    @classmethod
    def load(cls, path: Path) -> "FeatureIndex":
        """Read a faiss file of any program: inverted or flat, with all features or k-means centres.

        Raises
        ------
        WeightsError
            When it is missing, damaged or not an L2 index.
        """
        return cls.of(load_arrays(path))

    def on(self, device: str) -> "FeatureIndex":
        """The same index, searched on this torch device; the search on a GPU is exact."""
        whole = device.startswith("cuda") or self.arrays.probes >= self.lists
        return replace(self, device=device, _whole_search=whole_search(self.arrays.vectors, device) if whole else None)

    def refuse_other_encoder(self, content_identity: str) -> None:
        """Raise an error if this index records another content encoder: mixing its features would give noise.

        Raises
        ------
        MismatchError
            When the encoders differ. Files of other programs record no encoder and are accepted.
        """
        ours = self.note.get("content_identity", "")
        if ours and content_identity and ours != content_identity:
            raise MismatchError(
                f"the index was made with content encoder {ours}, the voice with {content_identity}",
                hint="rebuild the index (rvc index NAME), or convert without an index",
            )

    def mix(self, query: np.ndarray, rate: float) -> np.ndarray:
        """Blend each frame with the weighted mean of its nearest neighbours.

        Parameters
        ----------
        query : ndarray (T, D)
        rate : float
            0 keeps the query, 1 replaces it.

        Returns
        -------
        ndarray (T, D), float32

        Raises
        ------
        MismatchError
            When query and index differ in width.
        """
        if query.shape[1] != self.dimension:
            raise MismatchError(
                f"the index has features of width {self.dimension}, the voice needs {query.shape[1]}",
                hint="use the index that belongs to this voice",
            )
        query = np.ascontiguousarray(query, np.float32)
        if rate == 0 or not len(query):
            return query
        search = self._whole_search or self._list_search
        blocks = [query[start : start + _BLOCK_FRAMES] for start in range(0, len(query), _BLOCK_FRAMES)]
        return np.concatenate([mix_neighbours(block, *search(block), rate) for block in blocks])

    def _list_search(self, query: np.ndarray) -> Neighbours:
        """Search the lists with the nearest centres, as faiss does."""
        centres, probes = self.arrays.centres, self.arrays.probes
        in_lists = self.arrays.in_lists(self.arrays.vectors)
        # Without the query's own square, which is the same for all.
        to_centre = (centres**2).sum(1) - 2 * query @ centres.T
        probed = np.argpartition(to_centre, probes - 1, axis=1)[:, :probes]
        distances = np.full((len(query), NEIGHBOURS), np.inf, np.float32)
        neighbours = np.zeros((len(query), NEIGHBOURS, self.dimension), np.float32)
        for row, lists in enumerate(probed):
            near = np.concatenate([in_lists[number] for number in lists])
            distance = ((near - query[row]) ** 2).sum(1)
            best = np.argsort(distance)[:NEIGHBOURS]
            distances[row, : len(best)], neighbours[row, : len(best)] = distance[best], near[best]
        return distances, neighbours


def whole_search(vectors: np.ndarray, device: str) -> Callable[[np.ndarray], Neighbours]:
    """Exact search among vectors (N, D), in torch on this device."""
    import torch

    searched = torch.from_numpy(vectors).to(device)
    squares = (searched**2).sum(1)

    def search(query: np.ndarray) -> Neighbours:
        asked = torch.from_numpy(query).to(device)
        roughly = squares - 2 * asked @ searched.T  # a difference of large numbers: only good for preselection
        found = searched[roughly.topk(min(_CANDIDATES, len(vectors)), largest=False).indices]
        exactly, best = ((found - asked[:, None]) ** 2).sum(2).topk(min(NEIGHBOURS, len(vectors)), largest=False)
        return exactly.cpu().numpy(), found.take_along_dim(best[..., None], 1).cpu().numpy()

    return search


def lists_for(vectors: int) -> int:
    """RVC's number of inverted lists for `vectors` vectors.

    Examples
    --------
    >>> lists_for(10), lists_for(10_000), lists_for(200_000)
    (1, 256, 5128)
    """
    return max(1, min(int(16 * vectors**0.5), vectors // 39))


def mix_neighbours(query: np.ndarray, squared_distance: np.ndarray, neighbours: np.ndarray, rate: float) -> np.ndarray:
    """Blend frames with their neighbours, weighted as in RVC by 1 / squared distance².

    Parameters
    ----------
    query : ndarray (T, D)
    squared_distance : ndarray (T, K)
        Infinite if a neighbour is missing; a frame without neighbours stays unchanged.
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
    try:
        import faiss
    except ImportError:
        return None
    return faiss
