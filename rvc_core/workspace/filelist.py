"""RVC's ``filelist.txt``: the clips that training reads, one per line."""

import os
import random
import re
from dataclasses import dataclass
from pathlib import Path

from ..errors import DatasetError, StageOrderError
from ..presets import VoiceSpec
from ..system.files import write_text
from ..system.inside import open_inside
from .layout import Layout

_MUTE_LINES = 2
_MOST_BYTES = 1 << 28
_SHUFFLE_SEED = 1234


@dataclass(frozen=True)
class ClipFiles:
    """Files of one clip: one line of RVC's ``filelist.txt``."""

    wave: Path
    features: Path
    f0_coarse: Path | None
    f0_hz: Path | None
    speaker: int


def filelist_text(layout: Layout, spec: VoiceSpec, clips: dict[str, int]) -> str:
    """RVC's file list: absolute paths, clips in a fixed random order, then the silent clip twice.

    Each line is ``wave|content|coarse f0|f0 in Hz|speaker``, or ``wave|content|speaker`` for a voice without f0.

    Parameters
    ----------
    layout : Layout
    spec : VoiceSpec
    clips : dict of str to int
        Speaker of each clip.
    """

    def line(place: Layout, wave: Path, stem: str, speaker: int) -> str:
        pitch = [folder / f"{stem}.wav.npy" for folder in (place.f0_coarse, place.f0_hz)] if spec.uses_f0 else []
        paths = [wave, place.features(spec.content_width) / f"{stem}.npy", *pitch]
        return "|".join([*(str(path.absolute()).replace("\\", "\\\\") for path in paths), str(speaker)])

    ordered = sorted(clips)
    random.Random(_SHUFFLE_SEED).shuffle(ordered)
    lines = [line(layout, layout.clips / f"{clip}.wav", clip, clips[clip]) for clip in ordered]
    mute = [line(layout.mute, mute_wave(layout.mute, spec), "mute", speaker) for speaker in sorted({*clips.values()})]
    return "\n".join(lines + _MUTE_LINES * mute)


def read_filelist(path: Path) -> list[ClipFiles]:
    """The clips of an experiment, from RVC's ``filelist.txt`` (5 fields with f0, 3 without).

    Only the last names of a path count, so nothing outside the experiment is read, and its folder may have moved.

    Raises
    ------
    StageOrderError
        When features are not extracted yet.
    DatasetError
        When a line is not in RVC's format.
    """
    if not path.is_file():
        raise StageOrderError(f"{path} is missing: features are not extracted yet", hint="run: rvc extract NAME")
    clips = []
    for number, line in enumerate(filter(None, listed_text(path).split("\n")), start=1):
        *files, speaker = line.replace("\\\\", "\\").split("|")
        names = [re.split(r"[\\/]+", file)[-2:] for file in files]
        if len(files) not in (2, 4) or not re.fullmatch("[0-9]{1,4}", speaker) or {"", ".", ".."} & {*sum(names, [])}:
            raise DatasetError(
                f"line {number} of {path.name} is not in RVC's format: {line[:80]!r}", hint="run: rvc extract NAME"
            )
        place = path.parent / "mute" if names[0][-1].startswith("mute") else path.parent
        wave, features, *pitch = (place.joinpath(*name) for name in names)
        f0_coarse, f0_hz = pitch or (None, None)
        clips.append(ClipFiles(wave, features, f0_coarse, f0_hz, int(speaker)))
    return clips


def listed_text(path: Path) -> str:
    """The text of a file list."""
    with open_inside(path) as file:
        return file.read(_MOST_BYTES).decode("utf-8", "replace")


def rebase_filelist(layout: Layout) -> None:
    """Update the absolute paths of a file list after its experiment moved."""
    if not layout.filelist.is_file():
        return
    text = listed_text(layout.filelist)
    first = Path(text.split("|", 1)[0].replace("\\\\", "\\"))
    before = first.parent.parent
    if before != layout.root and (layout.clips / first.name).exists():
        write_text(layout.filelist, text.replace(f"{before}{os.sep}", f"{layout.root}{os.sep}"))


def mute_wave(mute: Layout, spec: VoiceSpec) -> Path:
    """The silent clip at the voice's rate."""
    return mute.clips / f"mute{spec.rate_name}.wav"
