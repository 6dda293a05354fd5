"""The settings of songs (which vocals, in which key, how loud), and of repairs to recordings."""

from typing import Annotated, Literal

from pydantic import Field

from .settings import Settings, or_auto

VocalsLevel = Annotated[
    Annotated[float, Field(ge=-40, le=40)] | Literal["auto"], or_auto("a number of dB from -40 to 40")
]


class SongSettings(Settings):
    """How a song is sung by a voice."""

    vocals: Literal["lead", "all"] = Field(
        "lead",
        description=(
            "Convert the lead vocals, or all. lead needs a model that separates them from the backing vocals; without "
            "it, all are converted together."
        ),
    )
    vocals_db: VocalsLevel = Field(
        "auto",
        description="Loudness of the vocals against the accompaniment, in dB. auto: as in the original.",
    )
    key_semitones: int = Field(
        0,
        ge=-12,
        le=12,
        description=(
            "Move the whole song, vocals and accompaniment, by this many semitones. Its length stays. 0: the original "
            "key."
        ),
    )
    dereverb: bool = Field(
        True,
        description="Remove reverb from the vocals before they are converted, if there is a model for it.",
    )
    reverb: bool = Field(True, description="Put the removed reverb back: the same room, the same level.")
    preview: bool = Field(False, description="Make the loudest 30 s only, to hear whether key and levels are right.")
    peak_db: float = Field(
        -1.0, ge=-20, le=0, description="Lower the whole mix until its true peak is at most this (dBTP)."
    )


class RepairSettings(Settings):
    """Whether recordings are repaired before they are cut into clips."""

    repair: bool = Field(
        False,
        description=(
            "Repair copies of the recordings first: without music, hum and offset, equally loud, where a measurement "
            "asks for it."
        ),
    )
