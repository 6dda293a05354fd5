"""All errors that a user can see. Each has a hint that says what to do next."""

import re
from collections.abc import Callable

_UNPRINTABLE = re.compile("[\x00-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\ud800-\udfff]+")  # controls, lines, directions


def printable(text: str) -> str:
    r"""Replace control characters by ``?``: names from untrusted files must not control the user's terminal.

    Examples
    --------
    >>> printable("alice\x1b[2J\nbob 歌")
    'alice?[2J?bob 歌'
    """
    return _UNPRINTABLE.sub("?", text)


class RVCError(Exception):
    """Base class: the message says what went wrong, ``hint`` says what to do.

    Parameters
    ----------
    message : str
        One line: what failed, with the offending name or number.
    hint : str
        One line: the next action.

    Examples
    --------
    >>> error = RVCError("no audio in 'takes'", hint="put recordings into it")
    >>> str(error), error.hint
    ("no audio in 'takes'", 'put recordings into it')
    """

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(printable(message))
        self.hint = printable(hint)
        if self.hint:
            self.add_note(f"→ {self.hint}")  # a traceback ends with it

    def _render_traceback_(self) -> list[str]:
        """Message and hint, which a notebook shows instead of a traceback; in a notebook of another language, both."""
        english = [f"{type(self).__name__}: {self}", *([f"→ {self.hint}"] if self.hint else [])]
        return [*in_words(self), *english]


def _nothing(error: RVCError) -> list[str]:
    return []


in_words: Callable[[RVCError], list[str]] = _nothing  # the notebook's, in the reader's language


class SettingsError(RVCError):
    """A setting is out of range or conflicts with another."""


class AudioError(RVCError):
    """A recording cannot be decoded or has no usable sound."""


class DatasetError(RVCError):
    """The dataset cannot be used for training."""


class StageOrderError(RVCError):
    """A stage was called before the stage it depends on."""


class WeightsError(RVCError):
    """A weights file is missing or cannot be used."""


class CheckpointError(WeightsError):
    """A training checkpoint is damaged, incomplete or not a checkpoint."""


class MismatchError(WeightsError):
    """Two files do not match: dimensions, sample rates or architectures differ."""


class UnsafeFileError(WeightsError):
    """A file would run code when loaded, or would exhaust memory or disk."""


class ResourceError(RVCError):
    """The machine lacks disk space, memory, a GPU or an optional package."""


class DivergedError(RVCError):
    """Training produced NaN or infinite values and cannot continue."""


class StorageError(RVCError):
    """Persistent storage is missing or full."""
