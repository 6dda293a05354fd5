"""The settings of every stage. One declaration gives validation, CLI flags, papermill parameters and form controls.

Stage settings change results, so they are recorded in the stamps of those results. `RuntimeSettings` cannot change
results and is not recorded. Architectures are in presets.py.
"""

import datetime
import difflib
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar, get_args

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    WrapValidator,
    model_validator,
)
from pydantic_core import PydanticCustomError

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


def or_auto(number: str) -> WrapValidator:
    """Take a number, also as text, or the word auto; one sentence says so of anything else."""

    def checked(value: Any, check: Callable[[Any], Any]) -> Any:
        try:
            value = float(value) if isinstance(value, str) else value  # command lines and notebooks pass "12" for 12
        except ValueError:
            pass
        try:
            return check(value)
        except ValidationError:
            raise PydanticCustomError("or_auto", "{expected}", {"expected": f"auto or {number}"}) from None

    return WrapValidator(checked)


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
_MUST_BE = {  # by the start of pydantic's name for what is wrong
    "greater_than_equal": "at least {ge:g}",
    "less_than_equal": "at most {le:g}",
    "greater_than": "more than {gt:g}",
    "less_than": "less than {lt:g}",
    "float_": "a number",
    "finite_": "a number",
    "int_": "a whole number",
    "bool_": "true or false",
    "string_": "text",
    "value_": "{error}",
    "literal_": "{expected}",
    "or_auto": "{expected}",
}
_SEED_MEANING = "Random seed of all stages: held-out recordings, training and order of the index."


class Settings(BaseModel):
    """Base class of all settings: immutable, refuses unknown names, reports errors in one line."""

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
        """Build and check settings.

        Raises
        ------
        SettingsError
            When a value is invalid; the message lists every invalid field, the hint what it accepts.

        Examples
        --------
        >>> TrainSettings.of(epochs=3).epochs
        3
        >>> TrainSettings.of(epochs=0)
        Traceback (most recent call last):
        rvc_core.errors.SettingsError: epochs must be at least 1, not 0
        → epochs: Train for this many passes over the clips, earlier training included.
        """
        refuse_unknown(values, cls)
        try:
            return cls(**values)
        except ValidationError as error:
            problems = error.errors()
            fields = dict.fromkeys(str(problem["loc"][0]) for problem in problems if problem["loc"])
            hints = [_meant(cls, name, values.get(name)) for name in fields if name in cls.model_fields]
            raise SettingsError("; ".join(map(_in_words, problems)), hint=" ".join(hints)) from error

    def stamp(self) -> dict[str, Any]:
        """The values recorded with a result, to detect whether it is still up to date."""
        return self.model_dump(mode="json")


def _in_words(problem: Any) -> str:
    """A problem that pydantic found, in one sentence."""
    name, given = problem["loc"][0] if problem["loc"] else "settings", f"{problem['input']!r:.80}"
    limits = problem.get("ctx", {})
    if "expected" in limits:
        limits = {"expected": limits["expected"].replace("'", "")}
    for start, must_be in _MUST_BE.items():
        if problem["type"].startswith(start):
            return f"{name} must be {must_be.format(**limits)}, not {given}"
    return f"{name}: {problem['msg']} (got {given})"


def _meant(settings: type[Settings], name: str, given: Any) -> str:
    """The word that was probably meant; else what the setting does."""
    field = settings.model_fields[name]
    words = [word for word in get_args(field.annotation) if isinstance(word, str)]
    near = difflib.get_close_matches(str(given).lower(), words, 1)
    return f"did you mean {near[0]}?" if near else f"{name}: {field.description}"


def refuse_unknown(names: Iterable[Any], *classes: type[Settings]) -> None:
    """Refuse names that none of these classes has as a setting.

    Raises
    ------
    SettingsError
        The hint says which setting was probably meant.

    Examples
    --------
    >>> try: refuse_unknown(["epoch"], TrainSettings)
    ... except SettingsError as error: print(error, "→", error.hint)
    unknown setting epoch → did you mean epochs?
    """
    known = [field for one in classes for field in one.model_fields]
    if unknown := sorted({str(text_of(name)) for name in names} - set(known)):
        near = [close[0] for name in unknown if (close := difflib.get_close_matches(name.lower(), known, 1))]
        hint = f"did you mean {' and '.join(near)}?" if near else f"choose from: {', '.join(sorted(set(known)))}"
        raise SettingsError(f"unknown setting {', '.join(unknown)}", hint=hint)


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
