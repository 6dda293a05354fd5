"""What a song is made of: separated once, kept beside the results, found again by the next run."""

from dataclasses import dataclass, field
from pathlib import Path

from ..audio.mixing import loudness_lufs, read_stem
from ..errors import AudioError, WeightsError
from ..progress import Progress
from ..separation.separate import separate_file
from ..settings import RuntimeSettings, SeparateSettings

_SILENT_LUFS, _UNHEARD_DB = -60.0, 35.0  # a stem that is quieter, or so far below its neighbour, is silent
_FAINTEST_DB = 20.0  # vocals that are further below the accompaniment are what leaks of an instrumental
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
    """

    vocals: Path
    lead: Path
    backing: Path | None = None
    reverb: Path | None = None
    accompaniment: Path | None = None
    models: dict[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)


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
    found.vocals = found.lead = whole["vocals"]
    vocals, music = (loudness_lufs(read_stem(whole[name])) for name in ("vocals", "instrumental"))
    if not _is_heard(vocals, music, _FAINTEST_DB):
        raise AudioError(
            f"no vocals were found in {song.name!r}",
            hint="choose a song with vocals; a quiet recording of a voice alone needs rvc convert",
        )
    if _is_heard(music, vocals):
        found.accompaniment = whole["instrumental"]
    else:
        found.notes.append("no accompaniment was found: the result is the vocals alone")
    for kind, is_wanted, none in (
        ("lead", backing, "no backing vocals were found: all vocals are the lead"),
        ("dereverb", dereverb, "no reverb was found in the vocals"),
    ):
        if not is_wanted:
            continue
        try:
            kept, rest = _stage(found, work, kind, how, progress).values()
        except WeightsError as error:
            if kind == "lead" and second:
                raise WeightsError(
                    f"{second!r} cannot sing: no model here separates the backing vocals",
                    hint="get it with: rvc weights fetch lead; or leave out the second voice",
                ) from error
            found.notes.append(f"skipped {kind}: {error.hint.partition(';')[0]}")
            continue
        if not _is_heard(*(loudness_lufs(read_stem(path)) for path in (rest, kept))):
            found.notes.append(none)
            continue
        found.lead = kept
        if kind == "lead":
            found.backing = rest
        else:
            found.reverb = rest
    return found


def _stage(found: SongStems, work: Path, kind: str, how: How, progress: Progress) -> dict[str, Path]:
    """Separate the lead further: what is wanted, then the rest."""
    settings, runtime = how
    made = separate_file(found.lead, work / kind, (kind,), settings, runtime=runtime, progress=progress)
    found.models |= made.models
    found.notes += made.notes
    return made.stems


def _is_heard(own_lufs: float, beside_lufs: float, below_db: float = _UNHEARD_DB) -> bool:
    """Whether a stem is more than silence and what leaks of its neighbour."""
    return own_lufs > max(_SILENT_LUFS, beside_lufs - below_db)
