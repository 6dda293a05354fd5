"""What a survey found, to see and to hear: for each problem a small picture and a player of the seconds where it is."""

import base64
import html
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ..audio.recordings import find_recordings
from ..audio.waveform import Audio, read_audio
from ..preparation.findings import RANK, Finding
from ..preparation.survey import DatasetReport
from .players import compressed, labelled
from .plots import WIDTH_PIXELS, Drawing, picture
from .texts import say, translated

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_MOST = 6  # a notebook keeps what its cells show: a card is about 100 kB
_SECONDS = 4.0
_CELLS = 72, 140  # of a spectrogram: in frequency and time
_SHAPES = {"clipping", "evenness", "phase", "offset", "loudness", "loudness beside others", "speech", "level"}
_DOTS = {"green": "🟢", "amber": "🟡", "red": "🔴"}


def lines_of(found: DatasetReport) -> list[str]:
    """What was found, in the reader's language: one line for all, for each group, and for each recording at fault."""
    lines = [translated(found.head), *(f"  {name}/: {translated(reason)}" for name, reason in found.not_read)]
    lines += [f"  {_DOTS[one.colour]} {translated(str(one))}" for one in found.findings if one.reason]
    lines += [f"  {say('group_of', name=one.name, minutes=f'{one.minutes:.1f}')}" for one in found.groups]
    for one in found.recordings:
        if one.problems:
            told = "; ".join(f"{translated(problem)}{where}" for problem, where in one.told)
            lines.append(f"  {one.recording}: {translated(one.verdict)}: {told}")
    return [*lines, *(f"  {translated(why)}" for why in found.not_measured.values())]


def cards(dataset: Path, found: DatasetReport) -> str:
    """HTML of the worst problems, one of each kind first: picture, words, player."""
    files = find_recordings(dataset).recordings
    rows = [
        (one.recording, problem) for one in found.recordings for problem in one.findings if problem.colour != "green"
    ]
    rows.sort(key=lambda row: -RANK[row[1].colour])
    kinds = [problem.measure for _, problem in rows]
    order = sorted(range(len(rows)), key=lambda place: kinds[:place].count(kinds[place]))
    shown = "".join(_card(files[name], name, problem) for name, problem in (rows[place] for place in order[:_MOST]))
    return f'<div style="display:flex;flex-wrap:wrap;gap:12px;margin-top:8px">{shown}</div>' if shown else ""


def _card(file: Path, name: str, problem: Finding) -> str:
    audio = read_audio(file)
    start, stop = problem.places[0] if problem.places else (max(0.0, audio.seconds - _SECONDS) / 2, audio.seconds)
    part = audio[start : min(stop, start + _SECONDS)]
    when = f"{int(start) // 60}:{int(start) % 60:02d}"
    title = translated(problem.measure)
    drawn_of = part if problem.measure in (*_SHAPES, "bandwidth") else part.resample(16_000)  # where a voice is
    draw = _waveform if problem.measure in _SHAPES else _spectrogram
    drawn = picture(Drawing(title, f"{name[-40:]} · {when}", "", lambda axes: draw(axes, drawn_of, start)))
    words = f"{_DOTS[problem.colour]} {name}: {translated(str(problem))}"
    return (
        f'<div style="width:{WIDTH_PIXELS}px;max-width:100%"><img alt="{html.escape(words)}" '
        f'src="data:image/png;base64,{base64.b64encode(drawn.png).decode()}" '
        f'style="width:100%;height:auto;border-radius:6px">'
        f"<div>{html.escape(words)}</div>{labelled(say('from_second', time=when), compressed(part))}</div>"
    )


def _waveform(axes: "Axes", part: Audio, start: float) -> None:
    size = max(1, len(part.samples) // 1200)
    rows = part.samples[: len(part.samples) // size * size].reshape(-1, size)
    seconds = start + np.arange(len(rows)) * size / part.sample_rate
    axes.fill_between(seconds, rows.min(axis=1), rows.max(axis=1), color="#2a6db0", linewidth=0.5)
    axes.margins(x=0)


def _spectrogram(axes: "Axes", part: Audio, start: float) -> None:
    """In cells of some pixels: as fine as the picture, noise would take half a megabyte."""
    size = max(len(part.samples) // _CELLS[1], 256)
    rows = part.samples[: len(part.samples) // size * size].reshape(-1, size)
    power = np.abs(np.fft.rfft(rows * np.hanning(size), axis=1)) ** 2
    edges = np.unique(np.linspace(0, power.shape[1] - 1, _CELLS[0] + 1).astype(int))[:-1]
    cells = 10 * np.log10(np.maximum.reduceat(power, edges, axis=1) + 1e-9)
    top = float(cells.max())
    axes.imshow(
        cells.T,
        origin="lower",
        aspect="auto",
        extent=(start, start + part.seconds, 0, part.sample_rate / 2000),
        vmin=top - 80,
        vmax=top,
        cmap="magma",
        interpolation="nearest",
    )
    axes.set_ylabel("kHz")
    axes.grid(False)
