"""Listening without knowing: two voices on one clip, which is better, and only at the end who was who."""

import functools
import html
import random
from pathlib import Path
from typing import Any

from .compare import Comparison, preferences, record_choice
from .players import preview


class Blind:
    """A knockout on each clip: two voices as A and B in random order, the better one meets the next.

    Each choice is written down at once (`compare.record_choice`), so stopping in the middle loses nothing.

    Parameters
    ----------
    comparison : Comparison
    seed : int or None
        Of the order of voices and sides; None: another one every time.
    """

    def __init__(self, comparison: Comparison, seed: int | None = None) -> None:
        self._comparison, self._random = comparison, random.Random(seed)
        self.total = len(comparison.clips) * (len(comparison.voices) - 1)
        self.done = 0
        self.clip: Path | None = None
        self.pair: tuple[int, int] = (0, 0)
        self._waiting: list[int] = []
        self._clips = list(comparison.clips)
        self._next(None)

    @property
    def files(self) -> tuple[Path, Path]:
        """What A and B sound like."""
        assert self.clip is not None
        return self._comparison.files[self.pair[0], self.clip], self._comparison.files[self.pair[1], self.clip]

    def choose(self, side: int | None) -> None:
        """A (0) or B (1) is better, or neither (None)."""
        assert self.clip is not None
        record_choice(self._comparison.layout, self.clip.name, self.pair, None if side is None else self.pair[side])
        self.done += 1
        self._next(self._random.choice(self.pair) if side is None else self.pair[side])

    def _next(self, stays: int | None) -> None:
        if not self._waiting:
            if not self._clips or not self.total:
                self.clip = None
                return
            self.clip, stays = self._clips.pop(0), None
            self._waiting = [one.epoch for one in self._comparison.voices]
            self._random.shuffle(self._waiting)
        pair = [self._waiting.pop() if stays is None else stays, self._waiting.pop()]
        self._random.shuffle(pair)
        self.pair = pair[0], pair[1]


def ab(comparison: Comparison, seed: int | None = None) -> Any:
    """Players and buttons for a blind comparison, as one widget; what came of it is shown at its end.

    Unattended notebooks show the first pair and go on; the files are there to be heard.
    """
    import ipywidgets

    blind = Blind(comparison, seed)
    heading, ending = ipywidgets.HTML(), ipywidgets.HTML()
    players, source = [_Player("A"), _Player("B")], _Player("what was said, by another voice")
    buttons = [
        ipywidgets.Button(description=text, button_style=style, layout={"width": "auto", "min_width": "7.5em"})
        for text, style in (("A is better", "primary"), ("no difference", ""), ("B is better", "primary"))
    ]
    panel = ipywidgets.VBox(
        [
            ipywidgets.HBox([one.box for one in players], layout={"flex_flow": "row wrap"}),
            ipywidgets.HBox(buttons, layout={"flex_flow": "row wrap"}),
            source.box,
        ]
    )

    def show() -> None:
        if blind.clip is None:
            panel.layout.display = "none"
            heading.value, ending.value = "", outcome(comparison)
            return
        heading.value = (
            f"<b>{html.escape(blind.clip.stem)}</b>: which voice is better? "
            f"Comparison {blind.done + 1} of {blind.total}"
        )
        start = preview(blind.files[0]).start_seconds
        for one, file in zip([*players, source], [*blind.files, blind.clip], strict=True):
            one.play(file, start)

    def press(side: int | None, _: Any) -> None:
        blind.choose(side)
        show()

    for button, side in zip(buttons, (0, None, 1), strict=True):
        button.on_click(functools.partial(press, side))
    show()
    return ipywidgets.VBox([heading, panel, ending])


class _Player:
    """A player that begins when its button is pressed: one widget for all clips, as widgets are saved in a notebook."""

    def __init__(self, name: str) -> None:
        import ipywidgets

        self._name = name
        self._label = ipywidgets.HTML()
        self._audio = ipywidgets.Audio(autoplay=False, loop=False, layout={"width": "19em"})
        self.box = ipywidgets.VBox([self._label, self._audio])

    def play(self, file: Path, start_seconds: float) -> None:
        """Take another recording; its path would say who is who."""
        shown = preview(file, start_seconds)
        told = f" ({html.escape(shown.told)})" if shown.told else ""
        self._label.value = f"<b>{self._name}</b>{told}"
        self._audio.format, self._audio.value = shown.mime.removeprefix("audio/"), shown.data


def outcome(comparison: Comparison) -> str:
    """Who was preferred how often, as HTML: what the listener may know at the end."""
    counted = preferences(comparison.layout)
    if not counted:
        return "There is one voice only: nothing to compare."
    rows = "".join(
        f"<tr><td>{html.escape(comparison.name_of(epoch))}"
        f"{' (recommended)' if comparison.is_recommended(epoch) else ''}</td>"
        f"<td style='text-align:right'>{won:g} of {heard}</td></tr>"
        for epoch, (won, heard) in counted.items()
    )
    return (
        f"<b>Done.</b> Preferred, in all comparisons so far:<table>{rows}</table>"
        f"The files are in {html.escape(str(comparison.layout.listening))}. "
        "The next cell exports the voice that you preferred most."
    )
