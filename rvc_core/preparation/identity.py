"""Whose voice an experiment is: the recordings that it was made of. Others under its name are refused."""

import contextlib
import functools
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..audio.recordings import DatasetFiles
from ..errors import DatasetError, MismatchError, StageOrderError
from ..settings import ExtractSettings, PrepareSettings, S, TrainSettings
from ..system.files import sha256_of
from ..workspace.layout import Layout, typed
from ..workspace.manifest import ExperimentRecord
from ..workspace.stage_locks import at_work
from ..workspace.stamps import content_of, is_current, stamp, stamp_of

SET_ASIDE = ".before-"  # in the name of a folder whose experiment was begun again, or replaced by a save
_SEEN = "seen"  # a stamp with the times of files whose hashes are known
_DIGITS = 16  # of a SHA-256: enough to tell recordings apart
_REMEDY = (
    "choose a new name, or begin again, which moves the old training to a folder beside it: "
    "--begin-again, or begin_again = True in a notebook"
)


def digests_of(files: DatasetFiles) -> dict[str, str]:
    """Hashes of the bytes of all recordings, by name: what a copy with another date has too.

    Files that cannot be opened have none: a link to nothing, a pipe, a file without permission. Preparing names them.
    """
    digests = {}
    for name, path in files.recordings.items():
        with contextlib.suppress(PermissionError):
            if path.is_file():
                digests[name] = sha256_of(path)[:_DIGITS]
    return digests


class Identity:
    """Of which recordings clips are made: names and hashes. Files are read only where a name, size or time differs.

    A size and a modification time do not identify a recording: archives set them, and a recording that replaces another
    of the same length has both.

    Parameters
    ----------
    how : dict
        What else the clips depend on, for the stamp.
    """

    def __init__(self, layout: Layout, files: DatasetFiles, how: dict[str, Any]) -> None:
        self._layout, self._files, self._how = layout, files, how
        self._seen = {**how, "files": files.fingerprint("st_ctime_ns")}  # now: a file may change while it is decoded

    @functools.cached_property
    def digests(self) -> dict[str, str]:
        """Hash of each recording, by name."""
        return digests_of(self._files)

    @property
    def content(self) -> dict[str, Any]:
        """What the clips depend on."""
        sizes = [(name, size, 0) for name, size, _ in self._files.fingerprint()]
        return {**self._how, "files": sizes, "recordings": self.digests}

    def is_current(self) -> bool:
        """Whether the experiment's clips were made of exactly these recordings, in this way."""
        if not stamp_of(self._layout, "prepare"):
            return False
        if is_current(self._layout, _SEEN, self._seen) or is_current(self._layout, "prepare", self.content):
            return True
        before = {**self._how, "files": self._files.fingerprint()}  # as earlier versions stamped
        if not is_current(self._layout, "prepare", before):
            return False
        known = ExperimentRecord.load(self._layout).recordings
        return not known or known == sorted(self.digests.values())

    def note(self) -> None:
        """Remember that these files, as they were at the beginning, were looked at."""
        if not is_current(self._layout, _SEEN, self._seen):
            stamp(self._layout, _SEEN, self._seen)


def refuse_other_recordings(layout: Layout, digests: list[str]) -> None:
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
    if known.recordings and not set(known.recordings) & set(digests):
        raise DatasetError(
            f"{layout.name!r} was trained on other recordings ({known.dataset}); none of these is among them",
            hint=_REMEDY,
        )


def kept_settings(
    layout: Layout, prepare: PrepareSettings, extract: ExtractSettings
) -> tuple[PrepareSettings, ExtractSettings]:
    """These settings; where none was given, an existing experiment keeps its own.

    Raises
    ------
    MismatchError
        When its training could not go on with them; nothing has been changed.
    """
    try:
        record = ExperimentRecord.load(layout)
    except (StageOrderError, DatasetError):
        return prepare, extract
    own = {"preset": record.preset, "uses_f0": record.uses_f0}
    encoder = content_of(layout, "content").get("name", "auto")
    prepare = kept(layout, "prepare", prepare, own)
    extract = ExtractSettings.of(**{"content": encoder, **extract.model_dump(exclude_unset=True)})
    _refuse_change(layout, own | {"content": encoder}, prepare.model_dump() | extract.model_dump())
    return prepare, extract


def kept_training(layout: Layout, train: TrainSettings) -> TrainSettings:
    """As `kept_settings`, for training. A limit in minutes is of one run."""
    train = kept(layout, "train", train, {"max_minutes": train.max_minutes})
    before = content_of(layout, "train").get("settings", {}).get("mel_epsilons", train.mel_epsilons)
    _refuse_change(layout, {"mel_epsilons": before}, train.model_dump())
    return train


def kept(layout: Layout, stage: str, settings: S, own: Mapping[str, Any]) -> S:
    """The settings of a stage: what is given, else what is recorded, else what else is known of the experiment."""
    recorded = content_of(layout, stage).get("settings", {})
    known = {name: recorded[name] for name in type(settings).model_fields if name in recorded}
    return settings.of(**{**known, **own, **settings.model_dump(exclude_unset=True)})


def _refuse_change(layout: Layout, before: Mapping[str, Any], now: Mapping[str, Any]) -> None:
    differing = [
        f"{name} {value}, not {now[name]}" for name, value in before.items() if value != now[name] != "auto" != value
    ]
    if differing and layout.generator_steps():
        raise MismatchError(
            f"{layout.name!r} was begun with {' and '.join(differing)}, and can only go on so",
            hint=f"leave that setting out, or {_REMEDY}",
        )


def refuse_own_clips(layout: Layout, dataset: Path) -> None:
    """Refuse a dataset that is a part of the experiment's own folder, or that holds it.

    Raises
    ------
    DatasetError
        It would replace the recordings by clips that were cut from them.
    """
    own, given = layout.root.resolve(), dataset.resolve()
    if given.is_relative_to(own) or own.is_relative_to(given):
        raise DatasetError(
            f"{str(dataset)!r} holds the experiment's own clips, not its recordings",
            hint="give the folder of the recordings themselves, outside of logs",
        )


def times_begun(layout: Layout) -> int:
    """How often this experiment was begun again from nothing."""
    return int(content_of(layout, "begun").get("count", 0))


def begin_again(layout: Layout) -> Path | None:
    """Move an experiment aside, so that its name begins from nothing; returns where it lies now.

    Raises
    ------
    StageOrderError
        While a process works on it.
    """
    if not layout.root.exists():
        return None
    if busy := at_work(layout):
        raise StageOrderError(busy, hint=f"wait for it, or stop a training with: rvc stop {typed(layout.name)}")
    count, aside = times_begun(layout) + 1, layout.root.with_name(f"{layout.slug}{SET_ASIDE}{time.time():.0f}")
    layout.root.rename(aside)
    stamp(layout, "begun", {"count": count})
    return aside
