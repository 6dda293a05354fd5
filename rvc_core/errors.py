"""Every failure a user can meet, as one small tree; each error carries a hint that says what to do next."""

import re

_STEERING = re.compile("[\x00-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\ud800-\udfff]+")  # controls, lines, directions


def printable(text: str) -> str:
    r"""One line that cannot steer a terminal: names and keys in files from strangers are shown in messages.

    Examples
    --------
    >>> printable("alice\x1b[2J\nbob 歌")
    'alice?[2J?bob 歌'
    """
    return _STEERING.sub("?", text)


class RVCError(Exception):
    """Root of the tree: what went wrong, and in ``hint`` what to do about it.

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

    def _render_traceback_(self) -> list[str]:
        """What a notebook shows instead of a traceback: the message, and what to do."""
        return [f"{type(self).__name__}: {self}", *([f"→ {self.hint}"] if self.hint else [])]


class SettingsError(RVCError):
    """A setting is out of its bounds or contradicts another one."""


class AudioError(RVCError):
    """A recording cannot be decoded, or holds something that is not sound."""


class DatasetError(RVCError):
    """The recordings as a whole cannot be trained on."""


class StageOrderError(RVCError):
    """A stage was called before the one that it reads from."""


class WeightsError(RVCError):
    """A file of weights is missing or cannot be used."""


class CheckpointError(WeightsError):
    """A training checkpoint is torn, incomplete or not a checkpoint."""


class MismatchError(WeightsError):
    """Two files do not belong together: dimensions, rates or architectures differ."""


class UnsafeFileError(WeightsError):
    """A file would run code when loaded, or is built to exhaust the machine."""


class ResourceError(RVCError):
    """The machine lacks something: disk, memory, a GPU, an optional package."""


class DivergedError(RVCError):
    """Training produced non-finite numbers and cannot go on."""


class StorageError(RVCError):
    """Persistent storage is absent, full or has vanished."""
