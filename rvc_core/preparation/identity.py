"""Whose voice an experiment is: the recordings that it was trained on. Others under its name are refused."""

import contextlib
import shlex
import time
from pathlib import Path

from ..audio.recordings import DatasetFiles
from ..errors import DatasetError, StageOrderError
from ..system.files import is_locked, sha256_of
from ..workspace.layout import Layout
from ..workspace.manifest import ExperimentRecord
from ..workspace.stamps import content_of, stamp

SET_ASIDE = ".before-"  # in the name of a folder whose experiment was begun again, or replaced by a save
_DIGITS = 16  # of a SHA-256: enough to tell recordings apart
_REMEDY = (
    "choose a new name, or begin again, which moves the old training to a folder beside it: "
    "--begin-again, or begin_again = True in a notebook"
)


def digests_of(files: DatasetFiles) -> list[str]:
    """Hashes of the bytes of all recordings, in order: what a copy under another name or date has too.

    Files that cannot be opened have none: a link to nothing, a pipe, a file without permission. Preparing names them.
    """
    digests = []
    for path in files.recordings.values():
        with contextlib.suppress(PermissionError):
            if path.is_file():
                digests.append(sha256_of(path)[:_DIGITS])
    return sorted(digests)


def refuse_other_recordings(layout: Layout, files: DatasetFiles, digests: list[str]) -> None:
    """Refuse recordings that have nothing in common with those that a voice of this name was trained on.

    More recordings, fewer, renamed or moved ones are fine: training resumes with them.

    Raises
    ------
    DatasetError
        With both remedies; nothing has been changed.
    """
    if not (layout.generator_steps() or layout.voices()):
        return
    if not layout.experiment.exists():
        if not layout.filelist.exists():
            raise DatasetError(
                f"{layout.name!r} is a voice that was not trained here", hint="choose another name for your own voice"
            )
        return
    known = ExperimentRecord.load(layout)
    if known.recordings:
        is_other = not set(known.recordings) & set(digests)
    else:  # an experiment of an earlier version: names and sizes say as much as can be known
        before = {(name, size) for name, size, *_ in content_of(layout, "prepare").get("files", [])}
        is_other = bool(before) and not before & {(name, size) for name, size, _ in files.fingerprint()}
    if is_other:
        raise DatasetError(
            f"{layout.name!r} was trained on other recordings ({known.dataset}); none of these is among them",
            hint=_REMEDY,
        )


def times_begun(layout: Layout) -> int:
    """How often this experiment was begun again from nothing."""
    return int(content_of(layout, "begun").get("count", 0))


def begin_again(layout: Layout) -> Path | None:
    """Move an experiment aside, so that its name begins from nothing; returns where it lies now.

    Raises
    ------
    StageOrderError
        While it is being trained.
    """
    if not layout.root.exists():
        return None
    if is_locked(layout.lock):
        raise StageOrderError(
            f"{layout.name!r} is being trained", hint=f"stop that first: rvc stop {shlex.quote(layout.name)}"
        )
    count, aside = times_begun(layout) + 1, layout.root.with_name(f"{layout.slug}{SET_ASIDE}{time.time():.0f}")
    layout.root.rename(aside)
    stamp(layout, "begun", {"count": count})
    return aside
