"""Choosing a voice by ear: for each saved voice a player, figures with names, and a button that takes it."""

import functools
import html
import re
from pathlib import Path
from typing import Any

from ..audio.waveform import read_audio
from ..errors import ResourceError
from ..workspace.layout import Layout
from ..workspace.metrics import row_of
from .players import audio_tag, preview
from .session import Session
from .texts import say

_MEASURED = {"likeness": "unlike/similarity", "words_kept": "unlike/words", "pitch_kept": "unlike/f0_correlation"}
_RATED_SECONDS = 10.0  # two windows of DNSMOS: all of a song would take a minute


def called(voice: Path, layout: Layout) -> str:
    """What a voice is called: by its epochs; the final one is that of the newest checkpoint, or an average."""
    if found := re.search(r"_e(\d+)_s\d+\.pth$", voice.name):
        return say("after_epochs", count=int(found[1]))
    if voice != layout.final_voice:
        return voice.stem
    if "from_epoch" in (average := row_of(layout, voice)):
        return say("the_average", first=average["from_epoch"], last=average["epoch"])
    return say("final_voice")


def figures(voice: Path, output: Path, layout: Layout) -> dict[str, float]:
    """What is known of a voice, each from 0 to 1, the more the better; by the names of `say`."""
    row = row_of(layout, voice)
    found = {name: row[metric] for name, metric in _MEASURED.items() if metric in row}
    if "words_kept" in found:  # it is the share of those that were lost
        found["words_kept"] = 1 - found["words_kept"]
    try:
        from ..scoring.cleanness import NaturalnessScorer

        part = read_audio(output)[:_RATED_SECONDS]
        found["cleanness"] = (NaturalnessScorer()(part).signal - 1) / 4  # from 1 to 5
    except ResourceError:  # an extra that is not installed
        pass
    return {name: min(1.0, max(0.0, value)) for name, value in found.items()}


def row(voice: Path, output: Path, layout: Layout, *, recommended: bool) -> str:
    """HTML of a voice: its name, a player of what it made of the sentence that all say, a bar for each figure."""
    name = called(voice, layout)
    badge = f' · <span style="color:#00796b">{html.escape(say("recommended"))}</span>' if recommended else ""
    bars = "".join(
        f'<tr><td style="text-align:left;padding:0 8px 0 0">{html.escape(say(figure))}</td>'
        '<td style="width:110px"><div style="background:#8a94a033;border-radius:3px;height:6px">'
        f'<div style="background:#00796b;border-radius:3px;height:6px;width:{100 * share:.0f}%"></div></div></td>'
        f'<td style="padding:0 0 0 8px;white-space:nowrap">{100 * share:.0f} %</td></tr>'
        for figure, share in figures(voice, output, layout).items()
    )
    table = f'<table style="font-size:90%;margin:0">{bars}</table>' if bars else ""
    player = audio_tag(name, preview(output))
    return (
        '<div style="display:flex;flex-wrap:wrap;gap:4px 20px;align-items:center;margin:8px 0 0">'
        f'<div style="width:300px;max-width:100%"><b>{html.escape(name)}</b>{badge}<br>{player}</div>{table}</div>'
    )


def buttons(voices: list[Path], chosen: Path, layout: Layout) -> list[Any]:
    """A button for each voice that takes it for the cells below; that of the chosen one says so."""
    import ipywidgets

    made = [ipywidgets.Button(layout={"width": "auto", "min_width": "14em", "max_width": "98%"}) for _ in voices]

    def show(taken: Path) -> None:
        for voice, button in zip(voices, made, strict=True):
            is_taken = voice == taken
            button.description = say("in_use" if is_taken else "use_this", voice=called(voice, layout))
            button.icon, button.button_style = ("check", "success") if is_taken else ("", "")

    def press(voice: Path, _: Any) -> None:
        Session.remember(voice=voice.name)
        show(voice)

    for voice, button in zip(voices, made, strict=True):
        button.on_click(functools.partial(press, voice))
    show(chosen)
    return made
