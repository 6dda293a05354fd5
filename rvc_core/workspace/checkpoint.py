"""Save and load checkpoints: ``G_`` and ``D_`` in RVC's format, ``state_`` for everything else that resuming needs.

A checkpoint has several files, which cannot be renamed at once. So they are written in order: state, D, G, and last the
line in ``checkpoints.json``. Files that it does not list are an incomplete checkpoint, and loading moves them aside.
"""

import itertools
import logging
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from ..errors import CheckpointError, DivergedError, ResourceError, StorageError, UnsafeFileError, WeightsError
from ..system.files import ensure_room, replace_atomically, sha256_of, write_json
from ..system.untrusted import checked_weights, load_torch, not_finite
from .layout import LATEST_ONLY, Layout
from .retention import CheckpointRow, checkpoint_rows, keep, pinned_steps

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Checkpoint:
    """One checkpoint in memory.

    Attributes
    ----------
    generator, discriminator : dict
        RVC's format: ``model``, ``iteration`` (the epoch), ``optimizer``, ``learning_rate``.
    state : dict
        For an exact resume: position inside the epoch, settings that must not change.
    """

    step: int
    generator: dict[str, Any]
    discriminator: dict[str, Any]
    state: dict[str, Any]


def on_host(content: Any) -> Any:
    """Copy nested dicts and lists with their tensors to the CPU, so that training can continue during the save."""
    if isinstance(content, torch.Tensor):
        return content.detach().to("cpu", copy=True)
    if isinstance(content, dict):
        return {key: on_host(value) for key, value in content.items()}
    return [*map(on_host, content)] if isinstance(content, list) else content


def save_checkpoint(layout: Layout, checkpoint: Checkpoint, *, most: int = 2) -> None:
    """Write a complete set, name it in ``checkpoints.json``, then remove all but the newest `most` and pinned sets.

    If the disk is full, older checkpoints are removed first, but never the newest.

    Raises
    ------
    DivergedError
        When a weight is not finite; then nothing is written.
    ResourceError, StorageError
        When the disk is full, read-only or gone; the previous checkpoint stays.
    """
    for part in (checkpoint.generator, checkpoint.discriminator):
        if broken := not_finite(part["model"]):
            raise DivergedError(
                f"{broken[0]} is not finite at step {checkpoint.step}, so this checkpoint is not saved",
                hint="resume from the previous checkpoint with a smaller --learning-rate",
            )
    parts = {
        layout.state(checkpoint.step): checkpoint.state,
        layout.discriminator(checkpoint.step): checkpoint.discriminator,
        layout.generator(checkpoint.step): checkpoint.generator,
    }
    _make_room(layout, sum(_size_bytes(content) for content in parts.values()))
    for path, content in parts.items():
        try:
            with replace_atomically(path) as temporary:
                torch.save(content, temporary)
        except RuntimeError as error:  # torch raises it if a file cannot be opened or written
            raise StorageError(
                f"cannot write {path}: {str(error).splitlines()[0]}",
                hint="make the folder writable, then run the same command again: it resumes",
            ) from error
    entry: CheckpointRow = {
        "step": checkpoint.step,
        "epoch": checkpoint.generator["iteration"],
        "sha256": {path.name: sha256_of(path) for path in parts},
    }
    rows = [*(row for row in checkpoint_rows(layout) if row["step"] != checkpoint.step), entry]
    _keep_newest(layout, rows, most)


def _make_room(layout: Layout, needed_bytes: int) -> None:
    """Give up older sets until a new one fits; pinned ones and the newest never go."""
    while True:
        try:
            ensure_room(layout.root, needed_bytes)
            return
        except ResourceError:
            rows, pins = checkpoint_rows(layout), pinned_steps(layout)
            unpinned = [row["step"] for row in rows if row["step"] not in pins]
            if not unpinned or unpinned[0] == rows[-1]["step"]:
                raise
            _log.warning("the set of step %d is given up for room", unpinned[0])
            _keep_newest(layout, rows, len(unpinned) - 1)


def _keep_newest(layout: Layout, rows: list[CheckpointRow], most: int) -> None:
    """Name the sets that stay, then remove the others."""
    kept = keep([row["step"] for row in rows], [], [], pinned_steps(layout), most_sets=most, most_voices=0).sets
    write_json(layout.checkpoints, [row for row in rows if row["step"] in kept])
    for row in rows:
        if row["step"] not in kept:
            for name in row["sha256"]:
                (layout.root / name).unlink(missing_ok=True)


def load_newest(layout: Layout) -> Checkpoint | None:
    """Load the newest complete checkpoint with correct hashes; None if there is no checkpoint.

    Files of incomplete checkpoints are moved to ``incomplete/``. If a checkpoint is damaged, the log says so and the
    next older one is loaded. A folder without ``checkpoints.json`` comes from RVC WebUI or Applio: its pair of the
    latest epoch is loaded, without a position inside the epoch.

    Raises
    ------
    CheckpointError
        When all checkpoints are damaged.
    """
    entries = checkpoint_rows(layout)
    if not entries:
        found = load_foreign(layout)
        if found is None:
            _put_torn_aside(layout, [])
        return found
    whole = [row for row in entries if _is_whole(layout, row)]
    if not whole:
        raise _none_whole(layout, len(entries))
    step = whole[-1]["step"]
    _put_torn_aside(layout, whole)
    if len(whole) < len(entries):
        write_json(layout.checkpoints, whole)
    return Checkpoint(
        step, _part(layout.generator(step)), _part(layout.discriminator(step)), load_torch(layout.state(step))
    )


def load_foreign(layout: Layout) -> Checkpoint | None:
    """Load the ``G_``/``D_`` pair of the latest epoch of RVC WebUI or Applio; None if there is no pair.

    Those programs load the largest number in a name instead. If you turn off "save only the latest", they keep loading
    the old ``G_2333333.pth``.

    Raises
    ------
    CheckpointError
        When all pairs are damaged.
    """
    pairs = [step for step in layout.generator_steps() if layout.discriminator(step).exists()]
    found = list(itertools.islice(_readable(layout, pairs[::-1]), 2 if LATEST_ONLY in pairs else 1))
    if pairs and not found:
        raise _none_whole(layout, len(pairs))
    return max(found, key=lambda pair: pair.generator["iteration"], default=None)


def _readable(layout: Layout, steps: list[int]) -> Iterator[Checkpoint]:
    for step in steps:
        try:
            yield Checkpoint(step, _part(layout.generator(step)), _part(layout.discriminator(step)), {})
        except UnsafeFileError:
            raise
        except WeightsError as error:
            _log.warning("skipping the pair of step %d: %s", step, error)


def _none_whole(layout: Layout, count: int) -> CheckpointError:
    return CheckpointError(
        f"every checkpoint of {layout.name!r} is damaged ({count} found)",
        hint=f"restore {layout.root} from a backup, or train under another name",
    )


def continue_optimizer(
    optimizer: torch.optim.Optimizer, part: dict[str, Any], network: torch.nn.Module, name: str
) -> None:
    """Load an optimizer's moments from a checkpoint; its settings do not change.

    torch stores moments by number, in the order of the network's weights, and RVC's and Applio's orders differ. The
    file's ``model`` has the same order, so this function finds each moment's weight by name.

    Raises
    ------
    CheckpointError
        When numbers, names or shapes do not match.
    """
    ours = dict(network.named_parameters())
    theirs = [key for key in part["model"] if key in ours]
    mismatch = CheckpointError(
        f"the optimizer in {name} does not match its network",
        hint="the checkpoint has another architecture: train under another name",
    )
    try:
        moments = part["optimizer"]["state"]
        numbers = dict(zip(theirs, part["optimizer"]["param_groups"][0]["params"], strict=True))
        state = {place: moments[numbers[key]] for place, key in enumerate(ours) if numbers[key] in moments}
        fits = all(
            moment[which].shape == weight.shape
            for place, weight in enumerate(ours.values())
            if place in state
            for moment in [state[place]]
            for which in ("exp_avg", "exp_avg_sq")
        )
    except (TypeError, KeyError, ValueError, AttributeError, IndexError) as error:
        raise mismatch from error
    if not fits:
        raise mismatch
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})


def _part(path: Path) -> dict[str, Any]:
    """Load one file of a pair."""
    content = load_torch(path)
    if (
        not isinstance(content, dict)
        or not {"model", "iteration", "optimizer"} <= content.keys()
        or not isinstance(content["iteration"], int)
    ):
        raise CheckpointError(
            f"{path.name} is not a training checkpoint",
            hint=f"move it out of {path.parent}, or train under another name",
        )
    checked_weights(content["model"], path.name)
    return content


def _is_whole(layout: Layout, entry: CheckpointRow) -> bool:
    for name, digest in entry["sha256"].items():
        path = layout.root / name
        if not path.is_file() or sha256_of(path) != digest:
            _log.warning("the checkpoint of step %d is damaged: %s", entry["step"], name)
            return False
    return True


def _put_torn_aside(layout: Layout, whole: list[CheckpointRow]) -> None:
    named = {name for row in whole for name in row["sha256"]}
    for pattern in ("G_*.pth", "D_*.pth", "state_*.pt"):
        for path in layout.root.glob(pattern):
            if path.name not in named:
                layout.incomplete.mkdir(exist_ok=True)
                path.replace(layout.incomplete / path.name)
                _log.warning(
                    "%s is part of an incomplete checkpoint, moved it to %s", path.name, layout.incomplete.name
                )


def _size_bytes(content: Any) -> int:
    if isinstance(content, torch.Tensor):
        return content.nbytes
    if isinstance(content, dict):
        return sum(map(_size_bytes, content.values()))
    return sum(map(_size_bytes, content)) if isinstance(content, list | tuple) else 64


def load_base(path: Path) -> dict[str, torch.Tensor]:
    """Load the weights of a base model, RVC's pretrained ``G`` or ``D`` file, from its key ``model``.

    Raises
    ------
    WeightsError
        When the file is missing or damaged.
    CheckpointError
        When it is a finished voice or another kind of file.
    """
    content = load_torch(path)
    if isinstance(content, dict) and "weight" in content:
        raise CheckpointError(
            f"{path.name} is a finished voice, not a base model: it has no posterior encoder",
            hint="use base files such as f0G40k.pth and f0D40k.pth",
        )
    if not isinstance(content, dict) or not isinstance(content.get("model"), dict):
        raise CheckpointError(
            f"{path.name} is not a base model: it has no 'model'",
            hint="use base files such as f0G40k.pth and f0D40k.pth",
        )
    return {key: value.float() for key, value in checked_weights(content["model"], path.name).items()}
