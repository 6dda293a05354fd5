"""Checkpoints and voices of an experiment: list, pin and prune them."""

import contextlib
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from pydantic import Field
from typing_extensions import TypedDict

from ..errors import CheckpointError, RVCError, StorageError
from ..system.documents import Count, Digest, Leaf, parsed, read_json, read_or
from ..system.files import write_json
from ..system.inside import open_inside
from .layout import Layout

_LONGEST_LINE = 1 << 16
VOICES_IN_A_SAVE = 5  # of those that are neither pinned nor the newest


class CheckpointRow(TypedDict):
    """One complete checkpoint: where training was, and the hash of each file. All lie in the experiment itself."""

    step: Count
    epoch: Count
    sha256: dict[Annotated[str, Field(pattern=r"^([GD]_[0-9]+\.pth|state_[0-9]+\.pt)$")], Digest]


class _Ranked(TypedDict):
    ranking: list[Count]


_Scored = TypedDict("_Scored", {"path": Leaf, "heldout/mel": float})


def checkpoint_rows(layout: Layout) -> list[CheckpointRow]:
    """The complete checkpoints in ``checkpoints.json``, oldest first; empty before the first.

    Raises
    ------
    CheckpointError
        When it is damaged, or names a file that is not a checkpoint of this folder.
    """
    hint = "restore it from a backup of the experiment"
    try:
        return read_json(layout.checkpoints, list[CheckpointRow], hint, error=CheckpointError)
    except FileNotFoundError:
        return []


def pinned_steps(layout: Layout) -> set[int]:
    """Steps whose checkpoints and voices are never removed."""
    hint = "write a list of steps into it, or delete it"
    try:
        return set(read_json(layout.pinned, list[Count], hint, error=CheckpointError))
    except FileNotFoundError:
        return set()


def pin(layout: Layout, step: int) -> list[str]:
    """Never remove the checkpoint and the voice of this step; returns the names of their files.

    Raises
    ------
    CheckpointError
        When neither exists; the hint lists the available steps.
    """
    kept = {row["step"]: [*row["sha256"]] for row in checkpoint_rows(layout)}
    for voice_step, path in dated_voices(layout).items():
        kept.setdefault(voice_step, []).append(path.name)
    if step not in kept:
        raise CheckpointError(
            f"{layout.name!r} has neither a checkpoint nor a voice of step {step}",
            hint=f"choose one of these steps: {', '.join(map(str, sorted(kept))) or 'none yet, train first'}",
        )
    write_json(layout.pinned, sorted(pinned_steps(layout) | {step}))
    return kept[step]


@dataclass(frozen=True)
class Kept:
    """Steps of the checkpoints and of the dated voices that stay."""

    sets: set[int]
    voices: set[int]


def keep(
    sets: Iterable[int],
    voices: Iterable[int],
    ranking: Sequence[int],
    pins: Collection[int],
    *,
    most_sets: int = 1,
    most_voices: int,
    unranked: bool = True,
) -> Kept:
    """Which checkpoints and voices stay; the final voice always does.

    Parameters
    ----------
    sets, voices : iterable of int
        Steps of all complete checkpoints, and of all dated voices.
    ranking : sequence of int
        Steps of voices that can be told apart, the best first.
    pins : collection of int
        Steps that stay besides, whatever else is chosen.
    most_sets : int
        How many of the newest checkpoints stay.
    most_voices : int
        How many voices stay, in the order of the ranking; besides, the newest voice stays.
    unranked : bool
        Whether all voices without a rank stay; otherwise the newest of them fill up what the ranking leaves.

    Examples
    --------
    >>> kept = keep([10, 20, 30], [10, 20, 30, 40], ranking=[20, 30, 10], pins=[10], most_sets=1, most_voices=1)
    >>> sorted(kept.sets), sorted(kept.voices)
    ([10, 30], [10, 20, 40])
    """
    sets, voices = set(sets), set(voices)
    free = sorted(sets.difference(pins), reverse=True)
    ranked = [step for step in ranking if step in voices and step not in pins]
    others = sorted(voices.difference(ranking, pins), reverse=True)
    chosen = [*ranked[:most_voices], *(others if unranked else others[: max(0, most_voices - len(ranked))])]
    newest = [max(voices)] if voices else []
    return Kept({*free[:most_sets], *sets.intersection(pins)}, {*chosen, *newest, *voices.intersection(pins)})


def dated_voices(layout: Layout) -> dict[int, Path]:
    """The voices of an experiment but the final one, by their step."""
    return {layout.step_of(path): path for path in layout.voices() if path != layout.final_voice}


def prune_voices(layout: Layout, ranking: Sequence[int], *, most: int) -> list[str]:
    """Remove saved voices that do not stay, see `keep`; returns their names."""
    voices = dated_voices(layout)
    kept = keep([], voices, ranking, pinned_steps(layout), most_voices=most)
    removed = [path for step, path in voices.items() if step not in kept.voices]
    for path in removed:
        path.unlink(missing_ok=True)
    return [path.name for path in removed]


def voice_scores(layout: Layout, last_bytes: int = 0) -> dict[str, float]:
    """Held-out mel distance of saved voices, lower is better, from metrics.jsonl or its last bytes."""
    found: dict[str, float] = {}
    with contextlib.suppress(FileNotFoundError, StorageError), open_inside(layout.metrics) as file:
        file.seek(max(0, layout.metrics.stat().st_size - last_bytes) if last_bytes else 0)
        for line in iter(lambda: file.readline(_LONGEST_LINE), b""):
            if b'"kind": "voice"' in line and b"heldout/mel" in line and line[:1] + line[-2:] == b"{}\n":
                with contextlib.suppress(ValueError):
                    row = parsed(line, _Scored)
                    found[row["path"]] = row["heldout/mel"]
    return found


def voices_to_save(layout: Layout) -> list[Path]:
    """The voices that go into a save: the final one, and those that stay of `VOICES_IN_A_SAVE`, see `keep`."""
    voices, pins = dated_voices(layout), set[int]()
    ranking = read_or(layout.verdict, _Ranked, {"ranking": []})["ranking"]  # goes before single figures
    with contextlib.suppress(RVCError):
        pins = pinned_steps(layout)
    scores = voice_scores(layout)
    measured = sorted((scores[path.name], step) for step, path in voices.items() if path.name in scores)
    ranking = [*ranking, *(step for _, step in measured if step not in ranking)]
    kept = keep([], voices, ranking, pins, most_voices=VOICES_IN_A_SAVE, unranked=False)
    return [path for path in layout.voices() if path == layout.final_voice or layout.step_of(path) in kept.voices]
