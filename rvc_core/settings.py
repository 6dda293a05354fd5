"""The settings of every stage. One declaration gives validation, CLI flags, papermill parameters and form controls.

Stage settings change results, so they are recorded in the stamps of those results. `RuntimeSettings` cannot change
results and is not recorded. Architectures are in presets.py.
"""

from typing import Annotated, Literal

from pydantic import AfterValidator, BeforeValidator, Field

from .presets import PRESETS
from .settings_base import S as S
from .settings_base import Settings as Settings
from .settings_base import or_auto
from .settings_base import refuse_unknown as refuse_unknown
from .settings_base import spelled as spelled
from .settings_base import text_of as text_of

F0Method = Literal["auto", "rmvpe", "fcpe", "crepe", "harvest", "dio", "pm"]
ContentName = Literal["auto", "embedded", "contentvec"]
PresetName = Literal[*PRESETS]  # type: ignore[valid-type]
NOTES = tuple("C C# D D# E F F# G G# A A# B".split())
_FLATS = {"Db": "C#", "Eb": "D#", "Gb": "F#", "Ab": "G#", "Bb": "A#"}
KeyName = Literal[  # type: ignore[valid-type]
    "auto", "chromatic", *(f"{note}{mode}" for mode in ("", "m") for note in sorted({*NOTES, *_FLATS}))
]


def _written(key: object) -> object:
    """A key in the spelling of its list: "b♭m" is "Bbm"."""
    if not isinstance(key, str) or key.lower() in ("auto", "chromatic"):
        return key.lower() if isinstance(key, str) else key
    return (key[:1].upper() + key[1:]).translate({ord("♭"): "b", ord("♯"): "#"})


def _sharp(key: str) -> str:
    """A key with a flat under its other name."""
    return _FLATS[key[:2]] + key[2:] if key[:2] in _FLATS else key


def _zero_or_rate(value: int) -> int:
    if 0 < value < 8000:  # lower rates are typing errors
        raise ValueError("0, or at least 8000")
    return value


Semitones = Annotated[
    Annotated[float, Field(ge=-60, le=60)] | Literal["auto"], or_auto("a number of semitones from -60 to 60")
]
LearningRate = Annotated[
    Annotated[float, Field(gt=0, le=1e-2)] | Literal["auto"], or_auto("a number above 0 and at most 0.01")
]
BatchSize = Annotated[Annotated[int, Field(ge=1, le=64)] | Literal["auto"], or_auto("a whole number from 1 to 64")]
_SEED_MEANING = "Random seed of all stages: held-out recordings, training and order of the index."


class PrepareSettings(Settings):
    """How recordings become training clips."""

    preset: PresetName = Field(
        "v2-40k",
        description="Size and sample rate of the voice. v2-40k sounds best on a GPU; nano-24k trains on a CPU.",
    )
    uses_f0: bool = Field(
        True,
        description="Make the voice follow pitch. Turn off only for voices without melody, like RVC's no-f0 models.",
    )
    speakers: Literal["one", "folders"] = Field(
        "one",
        description="one: all recordings are of one speaker. folders: each folder in the dataset is one speaker.",
    )
    silence_db: float = Field(-42.0, ge=-90, le=-10, description="Treat sound below this level (dBFS) as silence.")
    min_silence_ms: int = Field(
        400, ge=100, le=2000, description="Split phrases at pauses of this length or longer, in ms."
    )
    max_kept_silence_ms: int = Field(
        500, ge=15, le=2000, description="Keep at most this much silence at the edges of a phrase, in ms."
    )
    holdout_minutes: float | None = Field(
        None,
        ge=0,
        le=30,
        description=(
            "Hold out this many minutes of recordings for validation. Empty: 10 % of the data, or nothing under three "
            "minutes."
        ),
    )
    seed: int = Field(1234, ge=0, description=_SEED_MEANING)


class ExtractSettings(Settings):
    """How clips become pitch and content features."""

    f0_method: F0Method = Field(
        "auto",
        description=(
            "Find pitch with this method. auto: the one used before for these clips, else rmvpe if "
            "installed, else fcpe."
        ),
    )
    content: ContentName = Field("auto", description="Find what is said with this encoder. auto: the preset's own.")


class TrainSettings(Settings):
    """How a voice is trained."""

    epochs: int = Field(
        200, ge=1, le=100_000, description="Train for this many passes over the clips, earlier training included."
    )
    groups: str = Field(
        "",
        description="Train on these groups of clips only: their names, parted by commas. Empty: all clips.",
    )
    batch_size: BatchSize = Field(
        8,
        description="Train on this many clips per step; two GPUs take twice as many. auto: as many as fit, at most 16.",
    )
    max_minutes: float | None = Field(
        None,
        gt=0,
        description="Save and stop after this many minutes, or before a known end of the session. Empty: no limit.",
    )
    save_every_epochs: int = Field(
        15, ge=1, le=10_000, description="Save a checkpoint and a voice after this many epochs."
    )
    save_every_minutes: float = Field(
        10, gt=0, description="Save a checkpoint after this many minutes, also within an epoch."
    )
    validate_every_epochs: int = Field(
        0, ge=0, le=10_000, description="Validate after this many epochs. 0: as often as fits into 5 % of the time."
    )
    unlike: str = Field(
        "auto",
        description=(
            "Convert these recordings of other speakers during validation: a folder, or none. auto: the package's own."
        ),
    )
    auto_stop: int = Field(
        0,
        ge=0,
        le=100_000,
        description="Stop this many epochs after the best voice once overtraining is detected. 0: never.",
    )
    keep_checkpoints: int = Field(
        2, ge=1, le=1000, description="Keep this many complete checkpoint pairs (G and D) on disk."
    )
    keep_voices: int = Field(
        10,
        ge=1,
        le=10_000,
        description=(
            "Keep this many saved voices: the best by the verdict, and the newest. Without validations, all are kept."
        ),
    )
    learning_rate: LearningRate = Field(
        "auto", description="Learning rate of the first epoch (AdamW). auto: the preset's own."
    )
    learning_rate_decay: float = Field(
        0.999875, gt=0.9, le=1, description="Multiply the learning rate by this after each epoch."
    )
    base_generator: str = Field(
        "auto", description="Start from these generator weights (G): a path, or none. auto: the preset's base model."
    )
    base_discriminator: str = Field(
        "auto",
        description=("Start from these discriminator weights (D): a path, or none. auto: the preset's base model."),
    )
    precision: Literal["auto", "fp32", "fp16", "bf16"] = Field(
        "auto",
        description="Number format of matrix products. auto: the GPU's fastest, if it matches fp32 in a test.",
    )
    mel_epsilons: Literal["2023", "2026"] = Field(
        "2023", description="Spectrogram epsilon: 2023 matches the base models, 2026 current RVC WebUI."
    )
    seed: int = Field(1234, ge=0, description=_SEED_MEANING)


class IndexSettings(Settings):
    """How the index of content features is built."""

    max_vectors: int = Field(200_000, ge=1000, description="Reduce the vectors by k-means if there are more than this.")
    reduced_vectors: int = Field(10_000, ge=100, description="Reduce them to this many k-means centres.")
    seed: int = Field(1234, ge=0, description=_SEED_MEANING)


class ConvertSettings(Settings):
    """How a recording is converted."""

    transpose: Semitones = Field(
        "auto",
        description=(
            "Raise the pitch by this many semitones. auto: from the source's median to the voice's. "
            "For songs with backing, use 0, 12 or -12."
        ),
    )
    index_rate: float = Field(
        0.75,
        ge=0,
        le=1,
        description=(
            "Mix in this share of the index: more sounds more like the voice, less keeps the source's pronunciation."
        ),
    )
    protect: float = Field(
        0.33, ge=0, le=0.5, description="Protect consonants and breaths: lower is stronger. 0.5: off."
    )
    rms_mix_rate: float = Field(0.25, ge=0, le=1, description="Volume mix: 0 follows the source, 1 the voice.")
    formant_semitones: float = Field(
        0,
        ge=-12,
        le=12,
        description="Shift the source's formants by this many semitones first; pitch and length stay. 0: off.",
    )
    autotune: float = Field(
        0, ge=0, le=1, description="Pull the pitch to the notes of the key: 1 puts it on them. 0: off."
    )
    key: Annotated[KeyName, BeforeValidator(_written), AfterValidator(_sharp)] = Field(  # type: ignore[valid-type]
        "auto",
        description="Key of the source for autotune, as C, F#m or Bb. auto: found in its pitch. chromatic: all notes.",
    )
    gate_db: float | None = Field(
        None, ge=-90, le=-10, description="Silence the result where the source is below this level (dBFS). Empty: off."
    )
    loudness_lufs: float | None = Field(
        None, ge=-60, le=-5, description="Bring the result to this loudness in LUFS, for example -16. Empty: off."
    )
    blend_with: str = Field(
        "", description="Blend in this second voice: an experiment, or a .pth of the same kind. Empty: none."
    )
    blend_share: float = Field(0.5, ge=0, le=1, description="Share of the second voice in the blend.")
    channels: Literal["mix", "each"] = Field(
        "mix", description="mix: convert the middle of a stereo recording. each: convert left and right separately."
    )
    f0_method: F0Method = Field("auto", description="Find pitch with this method. auto: rmvpe if installed, else fcpe.")
    f0_curve: str = Field(
        "",
        description=(
            "Read the pitch from this file of lines seconds,hz, as rvc f0 writes one. transpose auto does not change "
            "it. Empty: estimate the pitch."
        ),
    )
    speaker: int = Field(0, ge=0, le=1000, description="Use this speaker of a voice with several speakers.")
    noise_scale: float = Field(
        0.66666, ge=0, le=2, description="Randomness of the sound: the standard deviation of the prior's noise."
    )
    output_rate_hz: Annotated[int, AfterValidator(_zero_or_rate)] = Field(
        0, ge=0, le=192_000, description="Sample rate of the result in Hz, at least 8000. 0: the voice's own."
    )
    output_format: Literal["wav", "flac", "ogg", "mp3", "m4a"] = Field("wav", description="File format of the result.")
    output_depth: Literal["auto", "16", "24", "32"] = Field(
        "auto",
        description="Bits per sample: 16, 24, or 32 for float. auto: 16 in wav, 24 in flac. Other formats have none.",
    )
    seed: int = Field(0, ge=0, description="Random seed: the same seed gives the same audio.")


class SpeakSettings(Settings):
    """How a text is spoken before it is converted."""

    text: str = Field("", description="Say this text, or the .txt or .srt whose path it is.")
    language: str = Field("en", description="Language of the text, as en, pt-br or fr.")
    engine: Literal["auto", "espeak-ng", "pocket-tts", "gsv-tts-lite"] = Field(
        "auto",
        description="Speak with this engine. auto: pocket-tts if it is installed and has the language, else espeak-ng.",
    )
    engine_voice: str = Field(
        "",
        description="Voice of the engine, as en-gb or +f3; for gsv-tts-lite a folder. Empty: its own.",
    )
    speed: float = Field(1.0, ge=0.5, le=2, description="Speed of speech. Subtitles are fitted to their times instead.")


class SeparateSettings(Settings):
    """How a song is separated into stems."""

    model: str = Field(
        "auto",
        description=(
            "Separate the vocals with this model: embedded, or a file of rvc weights list. auto: the best that is "
            "there."
        ),
    )
    overlap: float = Field(
        0.25,
        ge=0,
        le=0.75,
        description="Compute this share of each chunk twice and crossfade: more has fewer seams and takes longer.",
    )


class RuntimeSettings(Settings):
    """Where the work runs; this does not change results."""

    device: str = Field("auto", description="Compute on this device: auto, cpu, cuda or cuda:N.")
    gpus: int = Field(0, ge=0, le=64, description="Train on this many GPUs. 0: all.")
    threads: int = Field(
        0, ge=0, le=256, description="Use this many CPU threads. 0: the fastest number, measured during training."
    )


class MirrorSettings(Settings):
    """Where training is saved while it runs, in case the machine is lost."""

    mirror: str = Field(
        "auto",
        description=(
            "Save training to this storage: a folder, kaggle:OWNER/DATASET, or none. auto: the platform's, unless the "
            "experiment is already there."
        ),
    )
    mirror_every_minutes: float = Field(
        10, gt=0, description="Save there after this many minutes. A new best voice is saved too."
    )
