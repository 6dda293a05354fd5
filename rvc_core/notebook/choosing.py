"""Choosing a voice by ear: for each saved voice a player, figures with names, and a button that takes it."""

import html
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..audio.waveform import read_audio
from ..errors import ResourceError
from ..workspace.layout import Layout
from ..workspace.metrics import history
from .players import audio_tag, preview
from .texts import say

_MEASURED: dict[str, tuple[str, Callable[[float], float]]] = {  # of a validation: its name here, as a share of the best
    "unlike/similarity": ("likeness", lambda value: value),
    "unlike/words": ("words_kept", lambda rate: 1 - rate),
    "unlike/f0_correlation": ("pitch_kept", lambda value: value),
}
_RATED_SECONDS = 10.0  # two windows of DNSMOS: all of a song would take a minute


@dataclass(frozen=True)
class Heard:
    """A saved voice, and what it made of the recording that all of them say."""

    voice: Path
    output: Path
    recommended: bool


def called(voice: Path, layout: Layout) -> str:
    """What a voice is called: by its epochs; the final one is that of the newest checkpoint."""
    if found := re.search(r"_e(\d+)_s\d+\.pth$", voice.name):
        return say("after_epochs", count=int(found[1]))
    return say("final_voice") if voice == layout.final_voice else voice.stem


def figures(voice: Path, output: Path, layout: Layout) -> dict[str, float]:
    """What is known of a voice, each from 0 to 1, the more the better; by the names of `say`."""
    step = layout.step_of(voice)
    rows = [row for row in (history(layout) if layout.metrics.exists() else []) if row["kind"] == "voice"]
    row: Mapping[str, Any] = next((one for one in rows[::-1] if one["step"] == step), {})
    found = {name: share(row[metric]) for metric, (name, share) in _MEASURED.items() if metric in row}
    try:
        from ..scoring.cleanness import NaturalnessScorer

        part = read_audio(output)[:_RATED_SECONDS]
        found["cleanness"] = (NaturalnessScorer()(part).signal - 1) / 4  # from 1 to 5
    except ResourceError:  # an extra that is not installed
        pass
    return {name: min(1.0, max(0.0, value)) for name, value in found.items()}


def row(heard: Heard, layout: Layout) -> str:
    """HTML of a voice: its name, a player, a bar for each figure."""
    name = called(heard.voice, layout)
    badge = f' · <span style="color:#00796b">{html.escape(say("recommended"))}</span>' if heard.recommended else ""
    bars = "".join(
        f'<tr><td style="text-align:left;padding:0 8px 0 0">{html.escape(say(figure))}</td>'
        '<td style="width:110px"><div style="background:#8a94a033;border-radius:3px;height:6px">'
        f'<div style="background:#00796b;border-radius:3px;height:6px;width:{100 * share:.0f}%"></div></div></td>'
        f'<td style="padding:0 0 0 8px">{100 * share:.0f} %</td></tr>'
        for figure, share in figures(heard.voice, heard.output, layout).items()
    )
    table = f'<table style="font-size:90%;margin:0">{bars}</table>' if bars else ""
    player = audio_tag(name, preview(heard.output))
    return (
        '<div style="display:flex;flex-wrap:wrap;gap:4px 20px;align-items:center;margin:8px 0 0">'
        f'<div style="width:300px;max-width:100%"><b>{html.escape(name)}</b>{badge}<br>{player}</div>{table}</div>'
    )


def buttons(voices: list[Path], chosen: Path, layout: Layout, choose: Callable[[Path], None]) -> list[Any]:
    """A button for each voice that takes it for the cells below; that of the chosen one says so.

    Parameters
    ----------
    choose : callable
        Is given the voice whose button was pressed.
    """
    import ipywidgets

    made = [ipywidgets.Button(layout={"width": "auto", "min_width": "14em", "max_width": "98%"}) for _ in voices]

    def show(taken: Path) -> None:
        for voice, button in zip(voices, made, strict=True):
            is_taken = voice == taken
            button.description = say("in_use" if is_taken else "use_this", voice=called(voice, layout))
            button.icon, button.button_style = ("check", "success") if is_taken else ("", "")

    def press(voice: Path) -> Callable[[Any], None]:
        def pressed(_: Any) -> None:
            choose(voice)
            show(voice)

        return pressed

    for voice, button in zip(voices, made, strict=True):
        button.on_click(press(voice))
    show(chosen)
    return made
