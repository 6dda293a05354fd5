"""What a song is made of: separated once, kept beside the results, found again by the next run."""

import math
from dataclasses import dataclass, field
from pathlib import Path

from ..audio.mixing import open_stem, peak
from ..errors import AudioError, WeightsError
from ..progress import Progress
from ..separation.separate import SeparationReport, separate_file
from ..settings import RuntimeSettings, SeparateSettings

_QUIET_PEAK, _USUAL_PEAK = 0.05, 0.5  # a song below the first is made at the second, and lowered again
How = tuple[SeparateSettings, RuntimeSettings]


@dataclass
class SongStems:
    """The stems of a song, sample-aligned, with the song's rate.

    Attributes
    ----------
    vocals : Path
        All vocals, as they were separated.
    lead : Path
        What is converted: the lead vocals, or all, without their reverb where that was removed.
    backing, reverb, accompaniment : Path or None
        None: silent, or not separated.
    models : dict
        What separated each kind.
    notes : list of str
    boost_db : float
        By how much stems are made louder while the song is made: a very quiet one is made at a usual level.
    """

    vocals: Path
    lead: Path
    backing: Path | None = None
    reverb: Path | None = None
    accompaniment: Path | None = None
    models: dict[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    boost_db: float = 0.0


def separated(
    song: Path, work: Path, how: How, *, backing: bool, second: str = "", dereverb: bool, progress: Progress
) -> SongStems:
    """Separate a song; stages that are done are not done again.

    Parameters
    ----------
    work : Path
        Folder of this song's stages.
    backing, dereverb : bool
        Separate the backing vocals, and the reverb of the lead, where there is a model.
    second : str
        Name of the voice that is to sing the backing vocals.

    Raises
    ------
    AudioError
        When there are no vocals in it.
    WeightsError
        When a second voice is named, and no model separates the backing vocals.
    """
    found = SongStems(song, song)
    whole = _stage(found, work, "vocals", how, progress)
    found.vocals = found.lead = whole.stems["vocals"]
    if "vocals" in whole.empty:
        raise AudioError(
            f"no vocals were found in {song.name!r}",
            hint="choose a song with vocals, or a larger separator: rvc weights fetch vocals",
        )
    found.boost_db = _boost_db(max(peak(open_stem(path)) for path in whole.stems.values()))
    if "instrumental" in whole.empty:
        found.notes.append("no accompaniment was found: the result is the vocals alone")
    else:
        found.accompaniment = whole.stems["instrumental"]
    for kind, is_wanted, none in (
        ("lead", backing, "no backing vocals were found: all vocals are the lead"),
        ("dereverb", dereverb, "no reverb was found in the vocals"),
    ):
        if not is_wanted:
            continue
        try:
            made = _stage(found, work, kind, how, progress)
        except WeightsError as error:
            if kind == "lead" and second:
                raise WeightsError(
                    f"{second!r} cannot sing: no model here separates the backing vocals",
                    hint="get it with: rvc weights fetch lead; or leave out the second voice",
                ) from error
            found.notes.append(f"skipped {kind}: {error.hint.partition(';')[0]}")
            continue
        kept, rest = made.stems
        if made.empty:
            found.notes.append(none)
            continue
        found.lead = made.stems[kept]
        if kind == "lead":
            found.backing = made.stems[rest]
        else:
            found.reverb = made.stems[rest]
    return found


def _boost_db(loudest: float) -> float:
    return 20 * math.log10(_USUAL_PEAK / loudest) if loudest < _QUIET_PEAK else 0.0


def _stage(found: SongStems, work: Path, kind: str, how: How, progress: Progress) -> SeparationReport:
    """Separate the lead further."""
    settings, runtime = how
    made = separate_file(found.lead, work / kind, (kind,), settings, runtime=runtime, progress=progress)
    found.models |= made.models
    found.notes += [note for note in made.notes if note not in found.notes]
    return made
