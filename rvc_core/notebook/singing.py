"""The section "Make a song": the chosen voice sings, and every stem has a player."""

import html
from pathlib import Path
from typing import Any

import numpy as np

from ..audio.waveform import Audio, read_audio
from ..batch import SONG_SETTINGS
from ..embedded import voice_folder
from ..settings import RuntimeSettings
from ..system.platforms import home
from .cells import mount_drive
from .child import run_command
from .players import player, preview, show, shown_path
from .results import play, songs_of, voice_in_use, without_failures
from .session import Session
from .texts import say, translated

_MOST_SHOWN = 3  # what is shown is saved in the notebook
_ROOT_HZ = 110.0
_CHORDS = ((0, 4, 7), (9, 12, 16), (5, 9, 12), (7, 11, 14))  # semitones above the root


def sing() -> list[dict[str, Any]]:
    """Let the chosen voice sing the chosen songs; play the song before and after, and its stems."""
    session = Session.load()
    mount_drive(session.songs)
    voice, output = voice_in_use(session), home() / "songs"
    songs = songs_of(session) if session.songs else [demo_song()]
    made = run_command(
        "song",
        str(voice),
        *map(str, songs),
        "--output",
        str(output),
        failing=False,
        settings=(*(session.settings(one) for one in SONG_SETTINGS), session.settings(RuntimeSettings)),
    )["files"]
    done = without_failures(made)
    for one in done[:_MOST_SHOWN]:
        _show(one)
    if unheard := done[_MOST_SHOWN:]:
        print(say("unplayed", count=len(unheard), folder=shown_path(output)))
    return list(made)


def _show(made: dict[str, Any]) -> None:
    """Warnings and levels of a song, the song before and after, and its stems folded away."""
    mix, levels = Path(made["output"]), made["levels"]
    for warning in made["warnings"]:
        print(f"! {Path(made['song']).name}: {translated(warning)}")
    play(mix.name, Path(made["song"]), mix)
    lag = next(iter(made["alignment_ms"].values()))
    print(
        say(
            "song_levels",
            transpose=f"{next(iter(made['transpose'].values())):+.0f}",
            vocals=f"{levels['vocals'] - levels['original_vocals'] - levels['stems_gain_db']:+.1f}",
            peak=f"{levels['true_peak_db']:.1f}",
            lag="?" if lag is None else f"{abs(lag):.1f}",
        )
    )
    start = preview(mix).start_seconds
    files = [mix.parent / stem["file"] for stem in made["stems"]]
    players = "".join(player(file.stem, file, preview(file, start)) for file in files)
    page = (
        f'<details><summary style="cursor:pointer">{html.escape(say("stems", count=len(files)))}</summary>'
        f'<div style="display:flex;flex-wrap:wrap;gap:12px">{players}</div></details>'
    )
    show(page, "\n".join(map(str, files)))


def demo_song() -> Path:
    """The sentences inside the package over chords: a song to try things out."""
    file = home() / "recordings" / "demo song.flac"
    if not file.is_file():
        spoken = [read_audio(path) for path in sorted(voice_folder("source").glob("*.flac"))]
        rate = spoken[0].sample_rate
        voice = np.concatenate([np.pad(one.samples, rate // 4) for one in spoken])
        mixed = voice / np.abs(voice).max() * 0.5 + chords(len(voice), rate) * 0.3
        Audio(mixed.astype(np.float32), rate).save(file)
    return file


def chords(length: int, rate_hz: int) -> np.ndarray:
    """Plucked chords (length,) that change every two seconds, at most 1.

    Examples
    --------
    >>> music = chords(48_000, 16_000)
    >>> music.shape, bool(np.abs(music).max() <= 1)
    ((48000,), True)
    """
    beat = rate_hz // 2
    time = np.arange(beat) / rate_hz
    beats = [
        sum(
            np.sin(2 * np.pi * _ROOT_HZ * 2 ** (semitone / 12) * overtone * time) / overtone**2
            for semitone in _CHORDS[number // 4 % len(_CHORDS)]
            for overtone in range(1, 6)
        )
        * np.exp(-4 * time)
        for number in range(-(-length // beat))
    ]
    music = np.concatenate(beats)[:length]
    return np.asarray(music / max(1.0, np.abs(music).max()))
