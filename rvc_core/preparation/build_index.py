"""Stage: build the index from the training clips' content features."""

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from ..errors import DatasetError, StageOrderError
from ..features.retrieval import FeatureIndex
from ..progress import Progress, Report, Silent
from ..settings import IndexSettings
from ..system.files import ensure_room
from ..system.untrusted import load_array
from ..workspace.layout import Layout, typed
from ..workspace.manifest import ExperimentRecord, Manifest
from ..workspace.stage_locks import at_stage, refuse_disturbance
from ..workspace.stamps import clear, content_of, is_current, stamp, stamp_of


@dataclass(frozen=True)
class IndexReport(Report):
    """The current index.

    Attributes
    ----------
    path : str
    vectors : int
        Content features in it, after k-means if there were too many.
    dimension : int
        Values per feature.
    lists : int
        Number of inverted lists.
    skipped : bool
        True if the index was up to date.
    """

    path: str = ""
    vectors: int = 0
    dimension: int = 0
    lists: int = 0
    skipped: bool = False
    warnings: list[str] = field(default_factory=list)


@at_stage("index")
def build_index(
    layout: Layout, settings: IndexSettings = IndexSettings(), *, progress: Progress = Silent()
) -> IndexReport:
    """Build ``added_IVF…index`` from the content features of the training clips, without held-out and silent clips.

    Raises
    ------
    StageOrderError
        When content features are not extracted yet.
    """
    spec = ExperimentRecord.load(layout).spec
    extracted = stamp_of(layout, "content")
    if extracted is None:
        raise StageOrderError(f"{layout.name!r} has no content features", hint=f"run: rvc extract {typed(layout.name)}")
    folder = layout.features(spec.content_width)
    clips = [clip.id for clip in Manifest.load(layout).training if (folder / f"{clip.id}.npy").exists()]
    content = {"settings": settings.stamp(), "content": extracted, "clips": clips}
    old = layout.indexes(spec.version, [layout.slug])
    if is_current(layout, "index", content) and len(old) == 1:
        return _report(old[0], FeatureIndex.load(old[0]), skipped=True)
    if not clips:
        raise DatasetError(f"{layout.name!r} has no features to index", hint=f"run: rvc extract {typed(layout.name)}")

    refuse_disturbance(layout, "index")
    encoder = content_of(layout, "content")
    note = {
        "name": layout.name,
        "version": spec.version,
        "content_name": encoder.get("name", ""),
        "content_identity": encoder.get("identity", ""),
    }
    index = FeatureIndex.build(_load_features([folder / f"{clip}.npy" for clip in clips], progress), settings, note)
    path = layout.index(max(1, index.lists), spec.version)
    ensure_room(layout.root, 5 * index.vectors * index.dimension)  # 4 bytes per value, plus the lists
    clear(layout, "index")
    index.save(path)
    for other in old:
        if other != path:
            other.unlink()
    stamp(layout, "index", content)
    return _report(path, FeatureIndex.load(path))


def _load_features(paths: list[Path], progress: Progress) -> np.ndarray:
    """All frames (N, D) in one array."""
    shapes = [load_array(path).shape for path in paths]
    if odd := [path for path, shape in zip(paths, shapes, strict=True) if shape[1:] != shapes[0][1:2]]:
        raise DatasetError(
            f"{odd[0].name} is damaged: its shape is not that of the others", hint="run: rvc extract NAME"
        )
    features = np.empty((sum(frames for frames, _ in shapes), shapes[0][1]), np.float32)
    progress.start("indexing", len(paths))
    row = 0
    for path, (frames, _) in zip(paths, shapes, strict=True):
        features[row : row + frames] = load_array(path)
        row += frames
        progress.advance(path.stem)
    return features


def _report(path: Path, index: FeatureIndex, *, skipped: bool = False) -> IndexReport:
    return IndexReport(str(path), index.vectors, index.dimension, index.lists, skipped)
