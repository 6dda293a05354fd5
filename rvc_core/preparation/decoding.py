"""Decode and filter recordings one by one and find their phrases, or record why a recording is not used."""

import hashlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..audio.file_kinds import kind_of_file
from ..audio.recordings import DatasetFiles
from ..audio.slicer import Span, find_phrases
from ..audio.waveform import Audio, NonFiniteError, header_seconds, highpass, read_recording
from ..errors import AudioError
from ..settings import PrepareSettings
from ..system.files import ensure_room, replace_atomically
from ..workspace.layout import Layout
from ..workspace.manifest import Explained

CONTENT_RATE_HZ = 16_000
_TOO_SHORT_SECONDS = 0.1
_CLIPS_SHARE = 1.1  # of the sound: clips overlap


@dataclass(frozen=True)
class Recording:
    """A decoded and filtered recording at the voice's rate, on the disk until its clips are cut."""

    name: str
    number: int
    samples_file: Path
    total_samples: int
    phrases: list[Span]
    speaker: int = 0


class Decoder:
    """Decodes recordings one by one and records the result of each."""

    def __init__(self, staging: Layout, settings: PrepareSettings, rate_hz: int, speakers: list[str]) -> None:
        self.recordings: list[Recording] = []
        self.explained: list[Explained] = []
        self.notes: list[str] = []
        self.seconds_in = 0.0
        self._staging, self._settings, self._rate_hz, self._speakers = staging, settings, rate_hz, speakers
        self._seen: dict[bytes, str] = {}

    def explain_unused(self, files: DatasetFiles) -> None:
        """Record the files that are never opened."""
        for name, reason in files.ignored_folders.items():
            self._explain(f"{name}/", 0.0, "ignored folder", reason)
        for name, path in files.ignored.items():
            self._explain(name, header_seconds(path), "ignored folder", "")
        for name, path in files.not_audio.items():
            hidden = any(part.startswith(".") for part in name.split("/"))
            group = kind_of_file(path).group if path.is_file() and not hidden else "other"
            details = {"zip": "unpack it first", "archive": "unpack it first", "unknown": "its format is not known"}
            self._explain(name, 0.0, "not audio", details.get(group, ""))

    def take(self, name: str, path: Path) -> None:
        """Decode and filter a recording and find its phrases; if that fails, record why."""
        try:
            read = read_recording(path)
        except NonFiniteError as error:
            self._explain(name, error.seconds, "non-finite", str(error))
            return
        except AudioError as error:
            self._explain(name, header_seconds(path), "undecodable", str(error))
            return
        audio, end = read.audio, read.audio.seconds
        for lost in read.missing:
            self._explain(name, lost.seconds, "undecodable", f"{lost.why} at {lost.start_seconds:.1f} s", end)
            end += lost.seconds
        self.notes += [f"{name}: {note}" for note in read.notes]
        first = self._seen.setdefault(hashlib.sha256(audio.samples.data).digest(), name)
        if first != name:
            self._explain(name, audio.seconds, "duplicate", f"same audio as {first}")
        elif audio.seconds < _TOO_SHORT_SECONDS:
            self._explain(name, audio.seconds, "too short", f"shorter than {_TOO_SHORT_SECONDS} s")
        else:
            self._keep(name, audio)

    def _keep(self, name: str, audio: Audio) -> None:
        offset = np.float32(audio.samples.mean(dtype=np.float64))  # it would click where the filter starts
        level = Audio(audio.samples - offset, audio.sample_rate)
        sound = highpass(level.resample(self._rate_hz), zero_phase=False)
        phrases = find_phrases(
            sound,
            silence_db=self._settings.silence_db,
            min_silence_ms=self._settings.min_silence_ms,
            max_kept_silence_ms=self._settings.max_kept_silence_ms,
        )
        if not phrases:
            peak_db = 20 * np.log10(max(1e-9, np.abs(sound.samples).max()))
            detail = f"peak {peak_db:.0f} dB: raise its level, or lower `silence_db`" if peak_db > -70 else ""
            self._explain(name, audio.seconds, "silent", detail)
            return
        self.seconds_in += audio.seconds
        number, clips_bytes = len(self.recordings), 4 * self.seconds_in * (self._rate_hz + CONTENT_RATE_HZ)
        ensure_room(self._staging.root, round(4 * len(sound.samples) + _CLIPS_SHARE * clips_bytes))
        samples_file = self._staging.root / f"{number}.npy"
        with replace_atomically(samples_file) as temporary:
            np.save(temporary, sound.samples)
        speaker = self._speakers.index(name.split("/")[0]) if self._speakers else 0
        self.recordings.append(Recording(name, number, samples_file, len(sound.samples), phrases, speaker))

    def _explain(self, name: str, seconds: float, reason: str, detail: str, start_seconds: float = 0.0) -> None:
        self.seconds_in += seconds
        self.explained.append(Explained(name, start_seconds, seconds, reason, detail))
