"""The settings of every stage: one declaration gives validation, CLI flags, papermill parameters and form controls.

Stage settings are choices that change results and are stamped on what they produced. `RuntimeSettings` cannot change
results and stays out of the stamps. Architectures are no settings: see presets.py.
"""

import datetime
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar, get_args

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    model_validator,
)

from .errors import SettingsError
from .presets import PRESETS

F0Method = Literal["auto", "rmvpe", "fcpe", "crepe", "harvest", "dio", "pm"]
ContentName = Literal["auto", "embedded", "contentvec"]
PresetName = Literal[*PRESETS]  # type: ignore[valid-type]
S = TypeVar("S", bound="Settings")


def text_of(value: Any) -> Any:
    """Text that was written as a number, a truth value, a date, a path or nothing; what cannot be text stays as it is.

    Examples
    --------
    >>> text_of(2024), text_of(True), text_of(None), text_of(datetime.date(2024, 5, 1)), text_of([1])
    ('2024', 'True', '', '2024-05-01', [1])
    """
    if value is None:
        return ""
    return str(value) if isinstance(value, int | float | datetime.date | Path) else value


def _is_text(annotation: Any) -> bool:
    """Whether a field holds text: any, or one of some words."""
    choices = get_args(annotation)
    return annotation is str or (bool(choices) and all(isinstance(choice, str) for choice in choices))


def _number_or_word(value: Any) -> Any:
    """Command lines and notebooks hand over ``"12"``; it means 12."""
    try:
        return float(value) if isinstance(value, str) else value
    except ValueError:
        return value


def _zero_or_rate(value: int) -> int:
    """Below telephone quality a rate is a slip of the keyboard."""
    if 0 < value < 8000:
        raise ValueError("0, or at least 8000")
    return value


Semitones = Annotated[Annotated[float, Field(ge=-60, le=60)] | Literal["auto"], BeforeValidator(_number_or_word)]
StepSize = Annotated[Annotated[float, Field(gt=0, le=1e-2)] | Literal["auto"], BeforeValidator(_number_or_word)]
BatchSize = Annotated[Annotated[int, Field(ge=1, le=64)] | Literal["auto"], BeforeValidator(_number_or_word)]
_SEED_MEANING = "seeds every random draw of every stage: held-out recordings, training, order of the index"


class Settings(BaseModel):
    """Base of all settings: immutable, strict about names, errors in one line."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    @model_validator(mode="before")
    @classmethod
    def _text_as_written(cls, values: Any) -> Any:
        """Papermill, YAML and Python hand over ``2023`` where the text "2023" is meant, and None for the default."""
        if not isinstance(values, Mapping):
            return values
        texts = {name: field.default for name, field in cls.model_fields.items() if _is_text(field.annotation)}
        return {
            name: (texts[name] if value is None else text_of(value)) if name in texts else value
            for name, value in values.items()
        }

    @classmethod
    def of(cls: type[S], **values: Any) -> S:
        """Build and check settings, with an error a user can act on.

        Raises
        ------
        SettingsError
            Naming every field that is wrong and what it may be.

        Examples
        --------
        >>> TrainSettings.of(epochs=3).epochs
        3
        >>> TrainSettings.of(epochs=0)
        Traceback (most recent call last):
        rvc_core.errors.SettingsError: epochs: Input should be greater than or equal to 1 (got 0)
        """
        try:
            return cls(**values)
        except ValidationError as error:
            problems = [
                f"{problem['loc'][0] if problem['loc'] else cls.__name__}: {problem['msg']} (got {problem['input']!r})"
                for problem in error.errors()
            ]
            fields = [str(problem["loc"][0]) for problem in error.errors() if problem["loc"]]
            help_lines = [
                f"{name}: {cls.model_fields[name].description}"
                for name in dict.fromkeys(fields)
                if name in cls.model_fields
            ]
            hint = "; ".join(help_lines) or f"known settings: {', '.join(cls.model_fields)}"
            raise SettingsError("; ".join(problems), hint=hint) from error

    def stamp(self) -> dict[str, Any]:
        """What is recorded beside a result to know whether it is still up to date."""
        return self.model_dump(mode="json")


class PrepareSettings(Settings):
    """How recordings become training clips."""

    preset: PresetName = Field("v2-40k", description="architecture and sample rate of the voice")
    uses_f0: bool = Field(
        True,
        description=("whether the voice follows pitch; off only for voices without a melody, as RVC's no-f0 models"),
    )
    speakers: Literal["one", "folders"] = Field(
        "one",
        description=(
            "one: all recordings are of one person; folders: each folder inside the dataset is a person of its own"
        ),
    )
    silence_db: float = Field(-42.0, ge=-90, le=-10, description="dB of full scale below which a frame is silence")
    min_silence_ms: int = Field(400, ge=100, le=2000, description="shortest pause, in ms, that separates phrases")
    max_kept_silence_ms: int = Field(500, ge=15, le=2000, description="longest pause, in ms, kept at a phrase's edges")
    holdout_minutes: float | None = Field(
        None,
        ge=0,
        le=30,
        description=(
            "minutes of recordings kept out of training to judge it; empty: a tenth, none below three minutes of data"
        ),
    )
    seed: int = Field(1234, ge=0, description=_SEED_MEANING)


class ExtractSettings(Settings):
    """How clips become pitch and content features."""

    f0_method: F0Method = Field(
        "auto", description=("pitch estimator; auto: the one these clips have, else rmvpe where its file is, else fcpe")
    )
    content: ContentName = Field("auto", description="content encoder; auto: the preset's own")


class TrainSettings(Settings):
    """How a voice is trained."""

    epochs: int = Field(200, ge=1, le=100_000, description="passes over the clips, counted from the very first")
    batch_size: BatchSize = Field(
        8,
        description=(
            "clips in one step on each GPU, so two GPUs take twice as many in all; auto: as many as fit, 16 at most"
        ),
    )
    max_minutes: float | None = Field(
        None, gt=0, description=("wall time after which training saves and ends; a session's known end counts too")
    )
    save_every_epochs: int = Field(15, ge=1, le=10_000, description="epochs between two checkpoints and voices")
    save_every_minutes: float = Field(10, gt=0, description="minutes between two checkpoints, also within an epoch")
    validate_every_epochs: int = Field(
        0,
        ge=0,
        le=10_000,
        description=("epochs between two validations; 0: as often as a twentieth of the time allows"),
    )
    unlike: str = Field(
        "auto",
        description=("other people's recordings that a validation converts: auto (the package's), none, or a folder"),
    )
    auto_stop: int = Field(
        0,
        ge=0,
        le=100_000,
        description=("epochs past the best voice after which an overtrained training ends by itself; 0: never"),
    )
    keep_checkpoints: int = Field(2, ge=1, le=1000, description="complete checkpoint pairs kept on the disk")
    keep_voices: int = Field(
        10,
        ge=1,
        le=10_000,
        description=(
            "saved voices kept: the best by the verdict, and the newest; all, while there is nothing to judge by"
        ),
    )
    learning_rate: StepSize = Field(
        "auto", description=("AdamW step size at the first epoch; auto: the architecture's own")
    )
    learning_rate_decay: float = Field(0.999875, gt=0.9, le=1, description="factor on the step size after each epoch")
    base_generator: str = Field("auto", description="G weights to start from: auto, none, or a path")
    base_discriminator: str = Field("auto", description="D weights to start from: auto, none, or a path")
    precision: Literal["auto", "fp32", "fp16", "bf16"] = Field(
        "auto",
        description=(
            "number format of matrix products; auto: what the GPU is made for, if a comparison with fp32 shows it right"
        ),
    )
    mel_epsilons: Literal["2023", "2026"] = Field(
        "2023", description=("floors inside spectrograms: of the base models (2023), or of RVC WebUI since July 2026")
    )
    seed: int = Field(1234, ge=0, description=_SEED_MEANING)


class IndexSettings(Settings):
    """How the index of content features is built."""

    max_vectors: int = Field(200_000, ge=1000, description="above this many vectors, k-means reduces them")
    reduced_vectors: int = Field(10_000, ge=100, description="number of k-means centres")
    seed: int = Field(1234, ge=0, description=_SEED_MEANING)


class ConvertSettings(Settings):
    """How a recording is converted."""

    transpose: Semitones = Field(
        "auto",
        description=(
            "semitones added to the pitch; auto: from the source's median to the voice's; songs with backing: 0, 12, "
            "-12"
        ),
    )
    index_rate: float = Field(0.75, ge=0, le=1, description="share of the index's features in the mix")
    protect: float = Field(0.33, ge=0, le=0.5, description="consonant protection; 0.5 turns it off, lower is stronger")
    rms_mix_rate: float = Field(0.25, ge=0, le=1, description="loudness: 0 follows the source, 1 the voice")
    f0_method: F0Method = Field("auto", description="pitch estimator; auto: rmvpe where its file is, else fcpe")
    f0_curve: str = Field(
        "",
        description=(
            "file of lines seconds,hz that is the recording's pitch, instead of an estimate; rvc f0 writes one"
        ),
    )
    speaker: int = Field(0, ge=0, le=1000, description="speaker row of a voice with several")
    noise_scale: float = Field(0.66666, ge=0, le=2, description="spread of the prior's noise")
    output_rate_hz: Annotated[int, AfterValidator(_zero_or_rate)] = Field(
        0, ge=0, le=192_000, description=("resample the result to this rate, at least 8000; 0: the voice's own")
    )
    output_format: Literal["wav", "flac", "ogg", "mp3", "m4a"] = Field("wav", description="file format of the result")
    seed: int = Field(0, ge=0, description="start of the random draws: same seed, same audio")


class RuntimeSettings(Settings):
    """Where the work runs; never what comes out of it."""

    device: str = Field("auto", description="auto, cpu, cuda or cuda:N")
    gpus: int = Field(0, ge=0, le=64, description="GPUs that train together; 0: all that there are")
    threads: int = Field(0, ge=0, le=256, description="CPU threads; 0: as many cores as pay, measured while training")


class MirrorSettings(Settings):
    """Where a training is saved to while it goes on, so that it survives the loss of its machine."""

    mirror: str = Field(
        "auto",
        description=(
            "a folder, kaggle:OWNER/DATASET, or none; auto: the platform's storage, unless the experiment is there "
            "anyway"
        ),
    )
    mirror_every_minutes: float = Field(10, gt=0, description="minutes between two saves; a new best is saved too")
