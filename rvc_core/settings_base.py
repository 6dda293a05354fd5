"""The base class of all settings: it checks values, and says in one sentence what is wrong with one."""

import datetime
import difflib
import re
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, TypeVar, get_args

from pydantic import (
    BaseModel,
    ConfigDict,
    ValidationError,
    WrapValidator,
    model_validator,
)
from pydantic.fields import FieldInfo
from pydantic_core import PydanticCustomError

from .errors import SettingsError

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


_MUST_BE = {  # by the start of pydantic's name for what is wrong
    "greater_": "{limits}",
    "less_": "{limits}",
    "float_": "a number {limits}",
    "finite_": "a number {limits}",
    "int_": "a whole number {limits}",
    "bool_": "true or false",
    "string_": "text",
    "value_": "{error}",
    "literal_": "{expected}",
    "or_auto": "{expected}",
}


_LIMITS = {"gt": "above {:g}", "ge": "at least {:g}", "lt": "below {:g}", "le": "at most {:g}"}


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
        >>> from rvc_core.settings import TrainSettings
        >>> TrainSettings.of(epochs=3).epochs
        3
        >>> TrainSettings.of(epochs=0)
        Traceback (most recent call last):
        rvc_core.errors.SettingsError: `epochs` must be from 1 to 100000, not 0
        → `epochs`: Train for this many passes over the clips, earlier training included.
        """
        refuse_unknown(values, cls)
        try:
            return cls(**values)
        except ValidationError as error:
            problems = error.errors()
            fields = dict.fromkeys(str(problem["loc"][0]) for problem in problems if problem["loc"])
            hints = [_meant(cls, name, values.get(name)) for name in fields if name in cls.model_fields]
            told = [_in_words(problem, cls.model_fields) for problem in problems]
            raise SettingsError("; ".join(told), hint=" ".join(hints)) from error

    def stamp(self) -> dict[str, Any]:
        """The values recorded with a result, to detect whether it is still up to date."""
        return self.model_dump(mode="json")


def _in_words(problem: Any, fields: Mapping[str, FieldInfo]) -> str:
    """A problem that pydantic found, in one sentence."""
    name, given = problem["loc"][0] if problem["loc"] else "settings", f"{problem['input']!r:.80}"
    words = problem.get("ctx", {}) | {"limits": _limits(fields[name]) if name in fields else ""}
    if "expected" in words:
        words["expected"] = words["expected"].replace("'", "")
    for start, must_be in _MUST_BE.items():
        if problem["type"].startswith(start):
            return f"`{name}` must be {must_be.format(**words).strip()}, not {given}"
    return f"`{name}`: {problem['msg']} (got {given})"


def _limits(field: FieldInfo) -> str:
    """Between which numbers a value must lie."""
    found = {kind: getattr(limit, kind) for limit in field.metadata for kind in _LIMITS if hasattr(limit, kind)}
    if found.keys() == {"ge", "le"}:
        return f"from {found['ge']:g} to {found['le']:g}"
    return " and ".join(_LIMITS[kind].format(value) for kind, value in found.items())


def spelled(text: str, spell: Callable[[str], str]) -> str:
    """A message in which each setting has the name that its reader knows: messages have settings in backticks.

    Examples
    --------
    >>> spelled("`index_rate` and `x`", str.upper)
    'INDEX_RATE and `x`'
    """
    known = {name for one in Settings.__subclasses__() for name in one.model_fields}
    return re.sub(r"`(\w+)`", lambda found: spell(found[1]) if found[1] in known else found[0], text)


def _meant(settings: type[Settings], name: str, given: Any) -> str:
    """The word that was probably meant; else what the setting does."""
    field = settings.model_fields[name]
    words = [word for word in get_args(field.annotation) if isinstance(word, str)]
    near = difflib.get_close_matches(str(given).lower(), words, 1)
    return f"did you mean {near[0]}?" if near else f"`{name}`: {field.description}"


def refuse_unknown(names: Iterable[Any], *classes: type[Settings]) -> None:
    """Refuse names that none of these classes has as a setting.

    Raises
    ------
    SettingsError
        The hint says which setting was probably meant.

    Examples
    --------
    >>> from rvc_core.settings import TrainSettings
    >>> try: refuse_unknown(["epoch"], TrainSettings)
    ... except SettingsError as error: print(error, "→", error.hint)
    unknown setting epoch → did you mean epochs?
    """
    known = [field for one in classes for field in one.model_fields]
    if unknown := sorted({str(text_of(name)) for name in names} - set(known)):
        near = [close[0] for name in unknown if (close := difflib.get_close_matches(name.lower(), known, 1))]
        hint = f"did you mean {' and '.join(near)}?" if near else f"choose from: {', '.join(sorted(set(known)))}"
        raise SettingsError(f"unknown setting {', '.join(unknown)}", hint=hint)
