"""Checkpoints and voices of an experiment: list, pin and prune them."""

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
    """The complete checkpoints in ``checkpoints.json``, oldest first; empty before the first."""
    try:
        return read_json(layout.checkpoints, "restore it from a backup of the experiment", error=CheckpointError)
    except FileNotFoundError:
        return []


def pinned_steps(layout: Layout) -> set[int]:
    """Steps whose checkpoints and voices are never removed."""
    try:
        return set(read_json(layout.pinned, "write a list of steps into it, or delete it", error=CheckpointError))
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
    for path in layout.voices():
        if path != layout.final_voice:
            kept.setdefault(layout.step_of(path), []).append(path.name)
    if step not in kept:
        raise CheckpointError(
            f"{layout.name!r} has neither a checkpoint nor a voice of step {step}",
            hint=f"choose one of these steps: {', '.join(map(str, sorted(kept))) or 'none yet, train first'}",
        )
    write_json(layout.pinned, sorted(pinned_steps(layout) | {step}))
    return kept[step]


def prune_voices(layout: Layout, scores: Mapping[str, float], *, keep: int) -> list[str]:
    """Remove saved voices beyond the `keep` best; returns their names.

    Parameters
    ----------
    scores : mapping
        Held-out mel distance by file name; lower is better. Voices without a score stay, and so do the newest, the
        final and pinned voices.
    """
    pins = pinned_steps(layout)
    scored = [path for path in layout.voices()[::-1] if path.name in scores and path != layout.final_voice]
    ranked = sorted(scored, key=lambda path: scores[path.name])
    removed = [path for path in ranked[keep:] if path != scored[0] and layout.step_of(path) not in pins]
    for path in removed:
        path.unlink(missing_ok=True)
    return [path.name for path in removed]


def voice_scores(layout: Layout, last_bytes: int = 0) -> dict[str, float]:
    """Held-out mel distance of saved voices, lower is better, from metrics.jsonl or its last bytes."""
    found: dict[str, float] = {}
    with contextlib.suppress(FileNotFoundError), layout.metrics.open("rb") as file:
        file.seek(max(0, layout.metrics.stat().st_size - last_bytes) if last_bytes else 0)
        for line in file:
            if b'"kind": "voice"' in line and b"heldout/mel" in line and line[:1] + line[-2:] == b"{}\n":
                row = json.loads(line)
                found[row["path"]] = row["heldout/mel"]
    return found


def best_voices(layout: Layout) -> list[Path]:
    """The final, the newest and pinned voices, and the five best; without scores, the newest."""
    scores = voice_scores(layout)
    with contextlib.suppress(FileNotFoundError, RVCError):  # the verdict's ranking takes precedence over single scores
        ranks = {step: rank for rank, step in enumerate(read_json(layout.verdict, "")["ranking"])}
        scores |= {path.name: 1e-9 * ranks[step] for path in layout.voices() if (step := layout.step_of(path)) in ranks}
    with contextlib.suppress(FileNotFoundError, RVCError):
        scores |= {path.name: -1.0 for path in layout.voices() if layout.step_of(path) in read_json(layout.pinned, "")}
    dated = [path for path in layout.voices()[::-1] if path != layout.final_voice]
    best = sorted(dated, key=lambda path: scores.get(path.name, float("inf")))
    pins = sum(score < 0 for score in scores.values())
    return [path for path in layout.voices() if path in [*best[: _BEST_VOICES + pins], *dated[:1], layout.final_voice]]
