"""What an experiment folder of RVC WebUI or Applio holds, by the names that those programs give. Nothing is written.

Files are found by their names inside the folder, wherever its ``filelist.txt`` says they were.
"""

import re
import zipfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import soundfile

from ..errors import RVCError, StageOrderError
from ..system.files import read_json
from ..workspace.filelist import read_filelist
from ..workspace.layout import Layout

_STRAIGHT, _STRAIGHT_FRAMES = 1e-6, 4  # pitch that bends less, for so many frames, was drawn with a ruler
_SUFFIXES = {"clips": ".wav", "clips_16k": ".wav", "f0_coarse": ".wav.npy", "f0_hz": ".wav.npy", "features": ".npy"}
_FOLDERS = {
    "RVC WebUI": {"clips": "0_gt_wavs", "clips_16k": "1_16k_wavs", "f0_coarse": "2a_f0", "f0_hz": "2b-f0nsf"},
    "Applio": {"clips": "sliced_audios", "clips_16k": "sliced_audios_16k", "f0_coarse": "f0", "f0_hz": "f0_voiced"},
}
_FEATURES = {"RVC WebUI": ("3_feature768", "3_feature256"), "Applio": ("extracted", "v2_extracted", "v1_extracted")}


@dataclass(frozen=True)
class ClipParts:
    """What is whole of one clip: files by part, see `_SUFFIXES`."""

    paths: dict[str, Path]
    seconds: float
    rate_hz: int
    width: int


@dataclass(frozen=True)
class ForeignFolder:
    """Whose folder it is, where its parts lie, and the clips that it trains on.

    Attributes
    ----------
    parts : dict of str to str
        Name of the folder of each part.
    speakers : dict of str to int
        Of every clip in its list.
    files : dict of str to ClipParts
        Of those with a readable recording.
    """

    folder: Path
    program: str
    parts: dict[str, str]
    uses_f0: bool
    speakers: dict[str, int]
    files: dict[str, ClipParts]

    def complete(self, stem: str) -> bool:
        """Whether nothing is missing to train on a clip."""
        return {"clips", "features", *(("f0_coarse", "f0_hz") if self.uses_f0 else ())} <= self.files[stem].paths.keys()

    def pitch_tracks(self) -> Iterator[np.ndarray]:
        """Pitch in Hz of each clip."""
        for files in self.files.values():
            if "f0_hz" in files.paths:
                yield np.load(files.paths["f0_hz"], allow_pickle=False)


def is_foreign(folder: Path) -> bool:
    """Whether this is an experiment of RVC WebUI or Applio that was not opened here before.

    Examples
    --------
    >>> is_foreign(Path("nowhere"))
    False
    """
    return _program_of(folder) is not None and not Layout(folder, folder.name).experiment.exists()


def _program_of(folder: Path) -> str | None:
    return next((program for program, parts in _FOLDERS.items() if (folder / parts["clips"]).is_dir()), None)


def read_foreign(folder: Path) -> ForeignFolder:
    """Read the list of a folder and look at every file that it names.

    Raises
    ------
    StageOrderError
        When it is no such folder, or features were not extracted in it.
    DatasetError
        When its list is damaged.
    """
    program = _program_of(folder)
    if program is None:
        raise StageOrderError(
            f"{folder} is no experiment of RVC WebUI or Applio",
            hint="name the folder that holds 0_gt_wavs or sliced_audios",
        )
    if not (folder / "filelist.txt").is_file():
        raise StageOrderError(
            f"{folder} has no filelist.txt: features were not extracted there",
            hint="extract them in that program, or run: rvc prepare NAME --dataset RECORDINGS",
        )
    rows = [row for row in read_filelist(folder / "filelist.txt") if not _names(row.wave)[-1].startswith("mute")]
    speakers = {_names(row.wave)[-1].partition(".")[0]: row.speaker for row in rows}
    features = _names(rows[0].features)[-2:][0] if rows else ""
    if features not in _FEATURES[program]:
        raise StageOrderError(f"the list of {folder} names no content features", hint="extract them in that program")
    parts = {**_FOLDERS[program], "features": features}
    files = {stem: found for stem in speakers if stem and (found := clip_parts(folder, parts, stem))}
    return ForeignFolder(folder, program, parts, rows[0].f0_hz is not None, speakers, files)


def _names(path: Path) -> list[str]:
    """The names in a path of any system: a list may come from Windows."""
    return re.split(r"[\\/]+", str(path))


def clip_parts(folder: Path, parts: dict[str, str], stem: str, wave: str = "") -> ClipParts | None:
    """What is whole of a clip; None without a readable recording."""
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
    """Of the numbers in a file; empty when it is absent, torn, or holds something else."""
    try:
        array = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError, zipfile.BadZipFile):
        return ()
    return array.shape if isinstance(array, np.ndarray) and array.size and array.dtype.kind in "fiu" else ()


def said_in(path: Path) -> dict[str, Any]:
    """What a program's JSON file says; nothing if it is absent or damaged."""
    try:
        content = read_json(path, "")
    except (FileNotFoundError, RVCError):
        return {}
    return content if isinstance(content, dict) else {}


def unvoiced_kind(tracks: Iterable[np.ndarray]) -> str:
    """What pitch tracks (T,) in Hz hold where nothing is voiced.

    RVC WebUI of 2026 draws straight lines through unvoiced frames, where base models expect 0 Hz. A track without a 0
    and with a straight piece was made so.

    Returns
    -------
    str
        ``0 Hz``, ``interpolated``, or ``mixed``, as that program keeps the tracks of earlier versions that it finds.

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
