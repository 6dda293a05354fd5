"""Repaired copies of the recordings: made, told, and their figures before and after in one table."""

import html
from pathlib import Path
from typing import Any

from ..settings import RuntimeSettings, SeparateSettings
from ..system.files import signature, slug_of
from ..system.platforms import home
from .child import run_command
from .players import show
from .session import Session
from .texts import say, translated, warn

_FIGURES = ("loudness_lufs", "snr_db", "reverb_seconds", "hum_db")


def repaired(session: Session, recordings: Path) -> dict[str, Any]:
    """Make repaired copies of recordings in a process of its own; the report of ``rvc clean``."""
    output = home() / "recordings" / slug_of(session.name) / "repaired" / signature(str(recordings))
    chosen = (session.settings(SeparateSettings), session.settings(RuntimeSettings))
    return run_command("clean", str(recordings), "--output", str(output), settings=chosen, failing=False)


def told(made: dict[str, Any]) -> Path:
    """Print what was repaired, and what could not be; returns the folder of the copies."""
    rows = made["recordings"]
    print(say("repaired", done=sum(bool(row["repairs"]) for row in rows), of=len(rows)))
    for row in rows:
        lines = [", ".join(map(translated, row["repairs"])), *map(translated, row["warnings"])]
        if any(lines):
            print(f"  {row['recording']}: {'; '.join(filter(None, lines))}")
    for one in made["failed"]:
        warn(one["error"], one["hint"], f"{one['recording']}: ")
    return Path(made["output"])


def show_figures(rows: list[dict[str, Any]]) -> None:
    """One table: each recording, its figures before and after, and what was repaired."""

    def shown(value: float | None) -> str:
        return "–" if value is None else f"{value:.1f}"

    lines = [[say("recording"), *(say(f"figure_{name}") for name in _FIGURES), say("repairs")]]
    for row in rows:
        pairs = [f"{shown(row['before'][name])} → {shown(row['after'][name])}" for name in _FIGURES]
        lines.append([row["recording"], *pairs, ", ".join(map(translated, row["repairs"])) or "–"])
    cells = ["".join(f"<td>{html.escape(cell)}</td>" for cell in line) for line in lines]
    head = cells[0].replace("td>", "th>")
    page = f"<table><tr>{head}</tr>{''.join(f'<tr>{one}</tr>' for one in cells[1:])}</table>"
    show(page, "\n".join(" | ".join(line) for line in lines))
