"""Which checkpoints and voices an experiment has, which its owner pinned, and which are worth keeping."""

import contextlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..errors import CheckpointError, RVCError
from ..system.files import read_json, write_json
from .layout import Layout

_BEST_VOICES = 5


def checkpoint_rows(layout: Layout) -> list[dict[str, Any]]:
    """The complete checkpoints that ``checkpoints.json`` names, oldest first; none before the first."""
    try:
        return read_json(layout.checkpoints, "restore it from a copy of the experiment", error=CheckpointError)
    except FileNotFoundError:
        return []


def pinned_steps(layout: Layout) -> set[int]:
    """Steps whose sets and voices their owner wants kept for ever."""
    try:
        return set(read_json(layout.pinned, "write a list of steps into it, or remove it", error=CheckpointError))
    except FileNotFoundError:
        return set()


def pin(layout: Layout, step: int) -> list[str]:
    """Keep the set and the voice of this step for ever; returns the names of their files.

    Raises
    ------
    CheckpointError
        When neither exists; the steps that do are listed.
    """
    kept = {row["step"]: [*row["sha256"]] for row in checkpoint_rows(layout)}
    for path in layout.voices():
        if path != layout.final_voice:
            kept.setdefault(layout.step_of(path), []).append(path.name)
    if step not in kept:
        raise CheckpointError(
            f"{layout.name!r} has nothing of step {step}",
            hint=f"there are the steps {', '.join(map(str, sorted(kept))) or 'of no training yet'}",
        )
    write_json(layout.pinned, sorted(pinned_steps(layout) | {step}))
    return kept[step]


def prune_voices(layout: Layout, scores: Mapping[str, float], *, keep: int) -> list[str]:
    """Remove saved voices beyond the `keep` best; returns their names.

    Parameters
    ----------
    scores : mapping
        Distance from unheard recordings by file name, lower is better; a voice without one stays. So do the newest, the
        final one, and those of pinned steps.
    """
    pins = pinned_steps(layout)
    judged = [path for path in layout.voices()[::-1] if path.name in scores and path != layout.final_voice]
    ranked = sorted(judged, key=lambda path: scores[path.name])
    removed = [path for path in ranked[keep:] if path != judged[0] and layout.step_of(path) not in pins]
    for path in removed:
        path.unlink(missing_ok=True)
    return [path.name for path in removed]


def voice_scores(layout: Layout, last_bytes: int = 0) -> dict[str, float]:
    """What unheard recordings said of saved voices, less is better: in the whole record, or in the end of it."""
    found: dict[str, float] = {}
    with contextlib.suppress(FileNotFoundError), layout.metrics.open("rb") as file:
        file.seek(max(0, layout.metrics.stat().st_size - last_bytes) if last_bytes else 0)
        for line in file:
            if b'"kind": "voice"' in line and b"heldout/mel" in line and line[:1] + line[-2:] == b"{}\n":
                row = json.loads(line)
                found[row["path"]] = row["heldout/mel"]
    return found


def best_voices(layout: Layout) -> list[Path]:
    """The final voice, the newest, those that are pinned, and the best few; of unjudged ones the newest."""
    known = voice_scores(layout)
    with contextlib.suppress(FileNotFoundError, RVCError):  # the verdict's order goes before single figures
        ranks = {step: rank for rank, step in enumerate(read_json(layout.verdict, "")["ranking"])}
        known |= {path.name: 1e-9 * ranks[step] for path in layout.voices() if (step := layout.step_of(path)) in ranks}
    with contextlib.suppress(FileNotFoundError, RVCError):
        known |= {path.name: -1.0 for path in layout.voices() if layout.step_of(path) in read_json(layout.pinned, "")}
    dated = [path for path in layout.voices()[::-1] if path != layout.final_voice]
    best = sorted(dated, key=lambda path: known.get(path.name, float("inf")))
    pins = sum(score < 0 for score in known.values())
    return [path for path in layout.voices() if path in [*best[: _BEST_VOICES + pins], *dated[:1], layout.final_voice]]
