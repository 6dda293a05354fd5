"""Players in a notebook: a short compressed preview of a recording, and where the whole of it is.

What a cell shows is saved in the notebook, and a song as it is would make that a hundred megabytes.
"""

import base64
import html
import io
import os
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

from ..audio.mixing import loudest_seconds
from ..audio.waveform import Audio, encode, header_seconds, read_audio
from ..system.platforms import detect, home
from .texts import say

MOST_BYTES = 300_000  # of one player, as it is saved in a notebook
_SECONDS = 30.0
_BIT_RATE = 56_000  # 30 s are 210 kB, and 280 kB as a notebook stores them
_RATE_HZ = 32_000
_TYPES = {".wav": "audio/wav", ".mp3": "audio/mpeg", ".ogg": "audio/ogg", ".flac": "audio/flac"}  # every browser's


@dataclass(frozen=True)
class Preview:
    """What a player plays.

    Attributes
    ----------
    data : bytes
        A small file as it is; of a large one, a part as MP3.
    start_seconds, seconds, of_seconds : float
        Where the part begins, its length, the length of the whole.
    """

    data: bytes
    mime: str
    start_seconds: float
    seconds: float
    of_seconds: float

    @property
    def told(self) -> str:
        """In words, which part it is; nothing when it is the whole."""
        if self.of_seconds - self.seconds < 0.5:
            return ""
        key = "preview_first" if self.start_seconds < 0.5 else "preview"
        minutes, seconds = divmod(round(self.start_seconds), 60)
        return say(key, seconds=f"{self.seconds:.0f}", of=f"{self.of_seconds:.0f}", start=f"{minutes}:{seconds:02d}")


def preview(file: Path, start_seconds: float | None = None) -> Preview:
    """A part of a recording that is small enough for a notebook.

    Parameters
    ----------
    start_seconds : float, optional
        Where it begins; by default so that it is the loudest half minute.

    Raises
    ------
    AudioError
        When the file is absent or is no recording.
    """
    mime = _TYPES.get(file.suffix.lower(), "")
    if mime and file.is_file() and _as_text(file.stat().st_size) <= MOST_BYTES:
        seconds = header_seconds(file)
        if 0 < seconds <= _SECONDS:
            return Preview(file.read_bytes(), mime, 0.0, seconds, seconds)
    audio = read_audio(file)
    start = loudest_seconds(audio, _SECONDS) if start_seconds is None else start_seconds
    start = min(start, max(0.0, audio.seconds - _SECONDS))
    part = audio[start : start + _SECONDS]
    return Preview(_mp3(part), _TYPES[".mp3"], start, part.seconds, audio.seconds)


def compressed(audio: Audio) -> Preview:
    """The first half minute of what is not in a file."""
    part = audio[:_SECONDS]
    return Preview(_mp3(part), _TYPES[".mp3"], 0.0, part.seconds, audio.seconds)


def _mp3(audio: Audio) -> bytes:
    audio, target = audio.resample(_RATE_HZ), io.BytesIO()
    encode(audio.samples[:, None], _RATE_HZ, target, suffix=".mp3", bit_rate=_BIT_RATE)
    return target.getvalue()


def _as_text(size_bytes: int) -> int:
    """Bytes that these bytes take in a notebook."""
    return 4 * -(-size_bytes // 3)


def shown_path(path: Path) -> str:
    """A path below the home of all voices from there on; of another one, its last two names.

    Examples
    --------
    >>> shown_path(Path("/home/me/songs/take one.wav")), shown_path(home() / "converted" / "a.wav")
    ('…/songs/take one.wav', 'converted/a.wav')
    """
    return str(path.relative_to(home()) if path.is_relative_to(home()) else Path("…", *path.parts[-2:]))


def show(page: str, text: str) -> None:
    """Display HTML, and text where none is shown."""
    from IPython.display import display

    display({"text/html": page, "text/plain": text}, raw=True)


# -- as HTML -------------------------------------------------------------------------------------------------------
def player(label: str, file: Path, shown: Preview) -> str:
    """HTML of a labelled player, of what part it plays, and where the whole file is."""
    path = html.escape(shown_path(file))
    if detect().name != "colab":  # the others serve files beside the notebook, as paths relative to it
        path = f'<a href="{quote(os.path.relpath(file))}" target="_blank" download>{path}</a>'
    return labelled(
        label, shown, f'<div style="font-size:smaller;overflow-wrap:anywhere">{html.escape(shown.told)} {path}</div>'
    )


def audio_tag(label: str, shown: Preview) -> str:
    """HTML of a player alone; its name is what a screen reader says."""
    return (
        f'<audio aria-label="{html.escape(label)}" style="width:100%" controls preload="none" '
        f'src="data:{shown.mime};base64,{base64.b64encode(shown.data).decode()}"></audio>'
    )


def labelled(label: str, shown: Preview, below: str = "") -> str:
    """HTML of a player under its name, as wide as a telephone."""
    return f'<div style="width:300px;max-width:100%">{html.escape(label)}<br>{audio_tag(label, shown)}{below}</div>'
