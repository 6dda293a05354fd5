"""Read an experiment folder of RVC WebUI or Applio; writes nothing.

Files are found by name inside the folder, because the paths in its ``filelist.txt`` can be out of date.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soundfile

from ..errors import DatasetError, StageOrderError
from ..system.inside import refuse_links
from ..system.untrusted import load_array
from ..workspace.filelist import read_filelist
from ..workspace.layout import Layout

_STRAIGHT, _STRAIGHT_FRAMES = 1e-6, 4  # pitch with less curvature over four frames is interpolated
_SUFFIXES = {"clips": ".wav", "clips_16k": ".wav", "f0_coarse": ".wav.npy", "f0_hz": ".wav.npy", "features": ".npy"}
_FOLDERS = {
    "RVC WebUI": {"clips": "0_gt_wavs", "clips_16k": "1_16k_wavs", "f0_coarse": "2a_f0", "f0_hz": "2b-f0nsf"},
    "Applio": {"clips": "sliced_audios", "clips_16k": "sliced_audios_16k", "f0_coarse": "f0", "f0_hz": "f0_voiced"},
}
_FEATURES = {"RVC WebUI": ("3_feature768", "3_feature256"), "Applio": ("extracted", "v2_extracted", "v1_extracted")}


@dataclass(frozen=True)
class ClipParts:
    """Intact files of one clip by part, see `_SUFFIXES`."""

    paths: dict[str, Path]
    seconds: float
    rate_hz: int
    width: int


@dataclass(frozen=True)
class ForeignFolder:
    """A foreign experiment: its program, its folders, and its training clips.

    Attributes
    ----------
    parts : dict of str to str
        Folder name of each part.
    speakers : dict of str to int
        Speaker of every clip in ``filelist.txt``.
    files : dict of str to ClipParts
        Files of every clip with a readable recording.
    """

    folder: Path
    program: str
    parts: dict[str, str]
    uses_f0: bool
    speakers: dict[str, int]
    files: dict[str, ClipParts]

    def complete(self, stem: str) -> bool:
        """Whether a clip has all files that training needs."""
        return {"clips", "features", *(("f0_coarse", "f0_hz") if self.uses_f0 else ())} <= self.files[stem].paths.keys()

    def pitch_tracks(self) -> Iterator[np.ndarray]:
        """Pitch in Hz of each clip."""
        for files in self.files.values():
            if "f0_hz" in files.paths:
                yield load_array(files.paths["f0_hz"])


def is_foreign(folder: Path) -> bool:
    """Whether this is an experiment of RVC WebUI or Applio that is not imported yet.

    Examples
    --------
    >>> is_foreign(Path("nowhere"))
    False
    """
    return _program_of(folder) is not None and not Layout(folder, folder.name).experiment.exists()


def _program_of(folder: Path) -> str | None:
    return next((program for program, parts in _FOLDERS.items() if (folder / parts["clips"]).is_dir()), None)


def read_foreign(folder: Path) -> ForeignFolder:
    """Read a folder's file list and check every file in it.

    Raises
    ------
    StageOrderError
        When it is not such a folder, or its features are not extracted.
    DatasetError
        When its list is damaged.
    StorageError
        When it holds links, which may lead anywhere.
    """
    program = _program_of(folder)
    if program is None:
        raise StageOrderError(
            f"{folder} is not an experiment of RVC WebUI or Applio",
            hint="give the folder that contains 0_gt_wavs or sliced_audios",
        )
    refuse_links(folder)
    if not (folder / "filelist.txt").is_file():
        raise StageOrderError(
            f"{folder} has no filelist.txt: its features are not extracted yet",
            hint="extract them in that program, or run: rvc prepare NAME --dataset RECORDINGS",
        )
    rows = [row for row in read_filelist(folder / "filelist.txt") if not row.wave.name.startswith("mute")]
    speakers = {row.wave.name.partition(".")[0]: row.speaker for row in rows}
    features = rows[0].features.parent.name if rows else ""
    if features not in _FEATURES[program]:
        raise StageOrderError(f"filelist.txt of {folder} has no content features", hint="extract them in that program")
    parts = {**_FOLDERS[program], "features": features}
    files = {stem: found for stem in speakers if stem and (found := clip_parts(folder, parts, stem))}
    return ForeignFolder(folder, program, parts, rows[0].f0_hz is not None, speakers, files)


def clip_parts(folder: Path, parts: dict[str, str], stem: str, wave: str = "") -> ClipParts | None:
    """Intact files of a clip; None without a readable recording."""
    paths = {part: folder / name / (stem + _SUFFIXES[part]) for part, name in parts.items()}
    paths["clips"] = paths["clips"].with_name(wave or paths["clips"].name)
    try:
        header = soundfile.info(paths["clips"])
    except soundfile.LibsndfileError:
        return None
    shapes = {part: _shape(path) for part, path in paths.items() if path.suffix == ".npy"}
    whole = {"clips", *(part for part, shape in shapes.items() if len(shape) == (2 if part == "features" else 1))}
    whole |= {"clips_16k"} if paths["clips_16k"].is_file() else set()
    return ClipParts(
        {part: path for part, path in paths.items() if part in whole},
        header.duration,
        header.samplerate,
        shapes["features"][1] if "features" in whole else 0,
    )


def _shape(path: Path) -> tuple[int, ...]:
    """Shape of the array in a file; empty if the file is missing, damaged or not numeric."""
    try:
        return load_array(path).shape
    except DatasetError:
        return ()


def unvoiced_kind(tracks: Iterable[np.ndarray]) -> str:
    """How pitch tracks (T,) in Hz mark unvoiced frames.

    RVC WebUI 2026 interpolates the pitch of unvoiced frames, but base models expect 0 Hz there. A track with a straight
    piece and without a 0 counts as interpolated.

    Returns
    -------
    str
        ``0 Hz``, ``interpolated`` or ``mixed``: that program keeps existing tracks of its earlier versions.

    Examples
    --------
    >>> unvoiced_kind([np.array([100.0, 103, 0, 0, 0, 0, 110, 112])])
    '0 Hz'
    >>> unvoiced_kind([np.array([100.0, 103, 105, 107, 109, 111, 113, 112])])
    'interpolated'
    """
    kinds = set()
    for track in tracks:
        bends = np.abs(np.diff(track.astype(np.float64), 2))
        if (track == 0).any():
            kinds.add("0 Hz")
        elif np.count_nonzero(bends <= _STRAIGHT * track[1:-1]) >= _STRAIGHT_FRAMES:
            kinds.add("interpolated")
    return "mixed" if len(kinds) > 1 else "".join(kinds) or "0 Hz"
