"""What forms and notebooks say, in the reader's language: one file of texts for each, chosen by ``RVC_LANG``.

What other folders say is English there; `translated` finds it in the table ``sentences``. An error's English stays
below its translation: people search for it.
"""

import os
import re
import tomllib
from functools import cache
from pathlib import Path
from typing import Any

from .. import settings, song_settings
from ..errors import RVCError
from ..settings import Settings, spelled

LANGUAGES = ("en", "pt")
_SETTINGS = {name.replace("_", "-") for one in Settings.__subclasses__() for name in one.model_fields}
_FLAG = re.compile(rf"(?<![\w-])--({'|'.join(_SETTINGS)})(?![\w-])")
_DEEPEST, _LONGEST = 3, 2000  # levels and letters of a sentence that is translated: errors may quote what others wrote


def language() -> str:
    """The language of ``RVC_LANG`` (as ``pt`` or ``pt_BR.UTF-8``), English where there are no texts of it.

    Examples
    --------
    >>> language() in LANGUAGES
    True
    """
    wanted = os.environ.get("RVC_LANG", "")[:2].lower()
    return wanted if wanted in LANGUAGES else "en"


@cache
def texts(code: str) -> dict[str, Any]:
    """All texts of a language: ``labels``, ``help`` by settings class, ``words``, ``prose``."""
    return tomllib.loads((Path(__file__).parent / f"{code}.toml").read_text("utf-8"))


def say(key: str, /, **values: object) -> str:
    """A text of the catalogue's ``words``, with its gaps filled; `count` chooses between ``one`` and ``other``.

    Examples
    --------
    >>> say("or_word", kind="a number", word="auto"), say("more_folders", count=1), say("more_folders", count=2)
    ('a number, or auto', '1 more folder', '2 more folders')
    """
    text = texts(language())["words"][key]
    if isinstance(text, dict):
        text = text["one" if values["count"] == 1 else "other"]
    return str(text.format(**values))


def label_of(field: str) -> str:
    """What a control is called."""
    return texts(language())["labels"][field]


def help_of(settings: str, field: str, english: str) -> str:
    """What a field means; in English its own declaration says it."""
    return texts(language()).get("help", {}).get(settings, {}).get(field, english)


def translated(english: str) -> str:
    """A sentence of another folder in the reader's language; as it is where its language is English or lacks it.

    A setting, in backticks or as the flag of a command, gets its label.

    A key of the table ``sentences`` may have numbered gaps, as ``"{0} is damaged"``; what stands in them is translated
    too, so many levels deep.

    Examples
    --------
    >>> translated("training failed: {0}")
    'training failed: {0}'
    """
    told = _translated(english, _DEEPEST)
    if "rvc " not in english:  # a command in a process of its own calls settings by their flags
        told = _in_backticks(told if told != english else _translated(_in_backticks(english), _DEEPEST))
    return spelled(told, lambda name: f"«{label_of(name)}»")


def _in_backticks(text: str) -> str:
    return _FLAG.sub(lambda flag: f"`{flag[1].replace('-', '_')}`", text)


def _translated(english: str, depth: int) -> str:
    table = _sentences(language())
    if english in table:
        return table[english]
    if depth and len(english) <= _LONGEST:
        for pattern, text in _patterns(language()):
            if found := pattern.fullmatch(english):
                gaps = sorted(found.groupdict().items())
                told = text.format(*(_translated(value, depth - 1) for _, value in gaps))
                if told != english:  # of a pattern of gaps alone, none was known
                    return told
    return english


@cache
def _sentences(code: str) -> dict[str, str]:
    """What other folders say, and the settings' descriptions, which their errors repeat."""
    found = texts(code)
    described = {
        (vars(settings) | vars(song_settings))[name].model_fields[field].description: text
        for name, rows in found.get("help", {}).items()
        for field, text in rows.items()
    }
    return described | found.get("sentences", {})


@cache
def _patterns(code: str) -> list[tuple[re.Pattern[str], str]]:
    """The sentences with gaps, those with most letters of their own first."""
    table = _sentences(code)
    with_gaps = sorted((key for key in table if "{0}" in key), key=lambda key: -len(re.sub(r"\{\d\}|\W", "", key)))
    return [
        (re.compile(re.sub(r"\\\{(\d+)\\\}", r"(?P<_\1>.*?)", re.escape(key)), re.DOTALL), table[key])
        for key in with_gaps
    ]


def warn(problem: str, hint: str, about: str = "") -> None:
    """Print what went wrong, of what, and what to do."""
    print(f"! {about}{translated(problem)}\n  → {translated(hint)}")


def error_in_words(error: RVCError) -> list[str]:
    """What an error says and what to do, in another language than English; nothing in English, which follows below."""
    if language() == "en":
        return []
    message, hint = translated(str(error)), translated(error.hint)
    kind = next(
        f"error_{one.__name__}" for one in type(error).__mro__ if f"error_{one.__name__}" in texts("en")["words"]
    )
    lines = [say(kind) if message == str(error) else message]
    if error.hint:
        lines.append(f"→ {say('error_hint') if hint == error.hint else hint}")
    return [*lines, ""]
