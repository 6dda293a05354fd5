"""The resumable set of one training step: ``G_`` and ``D_`` in RVC's own form, ``state_`` for what they cannot hold.

Several files cannot be renamed at once, so the order makes a torn set recognisable: state first, D next, G after it,
the line in ``checkpoints.json`` last. What that file does not name is not a checkpoint, and is put aside on opening.
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
from ..system.untrusted import checked_weights, load_torch
from .layout import LATEST_ONLY, Layout
from .retention import CheckpointRow, checkpoint_rows, keep, pinned_steps

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Checkpoint:
    """What one set holds, in memory.

    Attributes
    ----------
    generator, discriminator : dict
        RVC's form: ``model``, ``iteration`` (the epoch), ``optimizer``, ``learning_rate``.
    state : dict
        Our own continuation: position inside the epoch, settings that must not change.
    """

    step: int
    generator: dict[str, Any]
    discriminator: dict[str, Any]
    state: dict[str, Any]


def on_host(content: Any) -> Any:
    """A copy of nested dicts and lists whose tensors are the CPU's own: training may go on while it is written."""
    if isinstance(content, torch.Tensor):
        return content.detach().to("cpu", copy=True)
    if isinstance(content, dict):
        return {key: on_host(value) for key, value in content.items()}
    return [*map(on_host, content)] if isinstance(content, list) else content


def save_checkpoint(layout: Layout, checkpoint: Checkpoint, *, most: int = 2) -> None:
    """Write a complete set, name it in ``checkpoints.json``, then remove all but the newest `most` and pinned sets.

    Where the disk has no room for one more, older sets go first; the newest never does.

    Raises
    ------
    DivergedError
        When a weight is not finite; nothing is written then.
    ResourceError, StorageError
        When the disk has no room, refuses to be written, or is gone; the newest set that was there stays.
    """
    for part in (checkpoint.generator, checkpoint.discriminator):
        if odd := [key for key, value in part["model"].items() if not value.isfinite().all()]:
            raise DivergedError(
                f"{odd[0]} is not finite at step {checkpoint.step}, which is therefore not saved",
                hint="continue from the checkpoint before, with a smaller --learning-rate",
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
        except RuntimeError as error:  # torch's word for a file that cannot be opened or written
            raise StorageError(
                f"{path} cannot be written: {str(error).splitlines()[0]}",
                hint="make the folder writable again; the same command continues",
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
    """The newest complete set whose bytes are those that were written; None when training never saved.

    Files of torn sets are moved to ``incomplete/``. A set that exists but cannot be read is never taken for none: the
    next older one is used and the log says so. A folder without ``checkpoints.json`` was trained by RVC WebUI: of its
    pairs, the one of the latest epoch is taken, which knows no position inside that.

    Raises
    ------
    CheckpointError
        When sets exist and none of them is whole.
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
    """The pair of the latest epoch that RVC WebUI or Applio left in a folder; None when there is no pair.

    Those programs take the largest number in a name instead, and with it an old pair for ever once ``G_2333333.pth``
    was written and "save only the latest" turned off.

    Raises
    ------
    CheckpointError
        When there are pairs and none can be read.
    """
    pairs = [step for step in layout.generator_steps() if layout.discriminator(step).exists()]
    found = list(itertools.islice(_readable(layout, pairs[::-1]), 2 if LATEST_ONLY in pairs else 1))
    if pairs and not found:
        raise _none_whole(layout, len(pairs))
    return max(found, key=lambda pair: pair.generator["iteration"], default=None)


def _readable(layout: Layout, steps: list[int]) -> Iterator[Checkpoint]:
    """Those of the pairs that can be read, one after the other."""
    for step in steps:
        try:
            yield Checkpoint(step, _part(layout.generator(step)), _part(layout.discriminator(step)), {})
        except UnsafeFileError:
            raise
        except WeightsError as error:
            _log.warning("the pair of step %d is passed over: %s", step, error)


def _none_whole(layout: Layout, count: int) -> CheckpointError:
    return CheckpointError(
        f"none of the {count} checkpoints of {layout.name!r} is whole",
        hint=f"restore {layout.root} from a copy, or train under another name",
    )


def continue_optimizer(
    optimizer: torch.optim.Optimizer, part: dict[str, Any], network: torch.nn.Module, name: str
) -> None:
    """Give an optimizer the moments that a checkpoint keeps for its network; its own settings stay.

    torch keeps moments by number, in the order in which a program registers its weights: RVC's and Applio's orders
    differ. The file's own ``model`` is in that order, so here each moment finds its weight by name.

    Raises
    ------
    CheckpointError
        When numbers, names or shapes do not fit together.
    """
    ours = dict(network.named_parameters())
    theirs = [key for key in part["model"] if key in ours]
    odd = CheckpointError(
        f"the optimizer in {name} does not fit its network",
        hint="the checkpoint is of another architecture: train under another name",
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
        raise odd from error
    if not fits:
        raise odd
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})


def _part(path: Path) -> dict[str, Any]:
    """One file of a pair, if it is one."""
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
            _log.warning("checkpoint of step %d is not whole: %s", entry["step"], name)
            return False
    return True


def _put_torn_aside(layout: Layout, whole: list[CheckpointRow]) -> None:
    named = {name for row in whole for name in row["sha256"]}
    for pattern in ("G_*.pth", "D_*.pth", "state_*.pt"):
        for path in layout.root.glob(pattern):
            if path.name not in named:
                layout.incomplete.mkdir(exist_ok=True)
                path.replace(layout.incomplete / path.name)
                _log.warning("%s belongs to no complete checkpoint and is now in %s", path.name, layout.incomplete.name)


def _size_bytes(content: Any) -> int:
    if isinstance(content, torch.Tensor):
        return content.numel() * content.element_size()
    if isinstance(content, dict):
        return sum(map(_size_bytes, content.values()))
    return sum(map(_size_bytes, content)) if isinstance(content, list | tuple) else 64


def load_base(path: Path) -> dict[str, torch.Tensor]:
    """Weights of a base model: RVC's pretrained ``G``/``D`` files keep them under ``model``.

    Raises
    ------
    WeightsError
        When the file is absent or unreadable.
    CheckpointError
        When it is a small voice, or something else.
    """
    content = load_torch(path)
    if isinstance(content, dict) and "weight" in content:
        raise CheckpointError(
            f"{path.name} is a finished voice, not a base model: it has no posterior encoder",
            hint="bases are files like f0G40k.pth and f0D40k.pth",
        )
    if not isinstance(content, dict) or not isinstance(content.get("model"), dict):
        raise CheckpointError(
            f"{path.name} is not a base model: it has no 'model'", hint="bases are files like f0G40k.pth and f0D40k.pth"
        )
    return {key: value.float() for key, value in checked_weights(content["model"], path.name).items()}
