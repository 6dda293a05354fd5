"""Decode the sound tracks of one file with FFmpeg, frame by frame. What was decoded counts, not a header's claim."""

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import AudioError
from ..system.platforms import DEAD

HOLE_SECONDS = 0.1  # smaller jumps of the timestamps are jitter, as for FFmpeg's resampler
LONGEST_HOLE_SECONDS = 300.0  # a clock that jumps further was set, or files were joined
END_MISSING = "its end is missing"
_MOST_LACK_SECONDS = 4 * 3600.0  # a header that claims more is wrong
CANCELLED_SHARE = 0.1  # of the loudest channel's energy: below it, the channels' mean has cancelled out
NO_SOUND = -1.0  # level of a track of which nothing can be decoded
_SILENT_RMS, _QUIETER = 1e-4, 0.1  # a later track is taken if the first is silent, or 20 dB quieter
# These files have no timestamps: FFmpeg computes them from the first frame's rate. Lengths by header are estimates.
RAW = frozenset("mp3 aac ac3 eac3 amr amrnb amrwb flac dts dtshd truehd mlp loas gsm g722".split())
_TAGS = (b"ID3", b"TAG", b"APETAGEX", b"LYRICS", b"3DI")
_XING = re.compile(rb"(?:Xing|Info)\x00\x00\x00[\x01\x03\x05\x07\x09\x0b\x0d\x0f](.{4})", re.DOTALL)


@dataclass(frozen=True)
class Missing:
    """Sound that a file should hold but does not: where, how long, and why."""

    start_seconds: float
    seconds: float
    why: str

    def __str__(self) -> str:
        return f"{self.why} ({self.seconds:.1f} s not read)"


@dataclass(frozen=True)
class Decoded:
    """A decoded file.

    Attributes
    ----------
    samples : ndarray (N,), float32
        Mono; pauses in the timestamps are silence.
    sample_rate : int
        Hz.
    missing : list of Missing
        Damaged or lost sound, which is not in `samples`.
    notes : list of str
        What a listener should know besides: other tracks, pauses, a wrong header.
    opposed_db : float
        See `opposed_db`, of the file's channels.
    """

    samples: np.ndarray
    sample_rate: int
    missing: list[Missing] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    opposed_db: float = 0.0

    @classmethod
    def of(cls, channels: np.ndarray, sample_rate: int) -> "Decoded":
        """Mix channels (N, C), float32, to one."""
        return cls(mono(channels), sample_rate, opposed_db=opposed_db(channels))

    @property
    def seconds(self) -> float:
        """Length of the samples."""
        return len(self.samples) / self.sample_rate


def mono(channels: np.ndarray) -> np.ndarray:
    """Mix to one channel: the mean, or the loudest channel if the mean cancels out.

    Parameters
    ----------
    channels : ndarray (N, C), float32

    Returns
    -------
    ndarray (N,), float32

    Examples
    --------
    >>> mono(np.array([[0.5, -0.5], [-1, 1]], np.float32)).tolist()
    [0.5, -1.0]
    """
    if channels.shape[1] == 1:
        return channels[:, 0]
    mean = channels.mean(axis=1)
    energies = np.einsum("nc,nc->c", channels, channels, dtype=np.float64)
    if np.einsum("n,n->", mean, mean, dtype=np.float64) < CANCELLED_SHARE * energies.max():
        return np.ascontiguousarray(channels[:, energies.argmax()])
    return mean


def opposed_db(channels: np.ndarray) -> float:
    """How much of the sound is lost when channels (N, C) are averaged, beyond what unrelated ones lose: 0 to 60 dB.

    Examples
    --------
    >>> left, other = np.random.default_rng(0).standard_normal((2, 9999)).astype(np.float32)
    >>> [round(opposed_db(np.stack([left, right], 1))) for right in (left, other, 0 * left, -0.9 * left, -left)]
    [0, 0, 0, 23, 60]
    """
    if channels.shape[1] == 1:
        return 0.0
    mean = channels.mean(axis=1)
    unrelated = np.einsum("nc,nc->", channels, channels, dtype=np.float64) / channels.shape[1] ** 2
    left = np.einsum("n,n->", mean, mean, dtype=np.float64)
    return float(10 * np.log10(np.clip(unrelated / max(left, 1e-12), 1, 1e6)))


def joined(parts: list[Decoded]) -> Decoded:
    """Parts in a row, at the highest rate of them."""
    import soxr

    if len(parts) == 1:
        return parts[0]
    rate, seconds, missing = max(part.sample_rate for part in parts), 0.0, []
    for part in parts:
        missing += [replace(one, start_seconds=one.start_seconds + seconds) for one in part.missing]
        seconds += part.seconds
    pieces = [
        part.samples if part.sample_rate == rate else soxr.resample(part.samples, part.sample_rate, rate, quality="HQ")
        for part in parts
        if len(part.samples)
    ]
    notes = [note for part in parts for note in part.notes]
    return Decoded(np.concatenate(pieces), rate, missing, notes, max(part.opposed_db for part in parts))


def opened(source: Any) -> Any:
    """Open a path or a binary file. Local files only: a playlist must not open network addresses."""
    import av

    if not isinstance(source, str):
        source.seek(0)
    return av.open(source, metadata_errors="ignore", options={"protocol_whitelist": "file"})


def comment_of(path: Path) -> str:
    """The comment in a recording's metadata; empty without one.

    Raises
    ------
    AudioError
        When it is no recording.
    """
    import av

    try:
        with opened(str(path)) as container:
            known = {**container.metadata, **(container.streams[0].metadata if container.streams else {})}
    except (av.FFmpegError, OSError, ValueError) as error:
        raise AudioError(f"{path.name!r} cannot be decoded as audio", hint="choose a recording") from error
    return next((value for key, value in known.items() if key.lower() == "comment"), "")


def decode_tracks(source: Any, name: str) -> Decoded:
    """Decode the first sound track, or a later one if that is silent or much quieter; the others are named.

    Parameters
    ----------
    source : str or binary file
    name : str
        Of the file, for messages.

    Raises
    ------
    AudioError
        When there is no sound track, or every frame is damaged.
    """
    labels = track_labels(source, name)
    best, levels = None, list[float]()
    for number in range(len(labels)):
        decoded = _decode_track(source, number)
        samples = decoded.samples
        levels.append(float(np.sqrt(np.mean(np.square(samples, dtype=np.float64)))) if len(samples) else NO_SOUND)
        if chosen_track(levels) == number:
            best = decoded
    if best is None or not len(best.samples):
        why = "every frame is damaged" if best and best.missing else "it holds no sound"
        raise AudioError(f"{name!r} cannot be decoded as audio: {why}", hint="copy or download the recording again")
    return replace(best, notes=[*track_notes(labels, levels), *best.notes])


def track_labels(source: Any, name: str) -> list[str]:
    """The titles or languages of a file's sound tracks; a file without one is refused."""
    with opened(source) as container:
        labels = [track.metadata.get("title", track.metadata.get("language", "")) for track in container.streams.audio]
    if not labels:
        raise AudioError(f"{name!r} has no sound track", hint="choose a file with sound")
    return labels


def chosen_track(levels: list[float]) -> int:
    """Which of a file's tracks is read, by their RMS: the first, or a later one if that is silent or much quieter.

    Examples
    --------
    >>> chosen_track([0.1, 0.2]), chosen_track([0.0, 0.2]), chosen_track([0.001, 0.2]), chosen_track([NO_SOUND])
    (0, 1, 1, 0)
    """
    chosen = 0
    for number, level in enumerate(levels):
        if levels[chosen] < max(_SILENT_RMS, _QUIETER * level) < level:
            chosen = number
    return chosen


def track_notes(labels: list[str], levels: list[float]) -> list[str]:
    """Which track was read, and which were not; nothing where there is one."""
    chosen = chosen_track(levels)
    others = [
        f"{number + 1}{f' ({label})' if label else ''}{' (silent)' if levels[number] < _SILENT_RMS else ''}"
        for number, label in enumerate(labels)
        if number != chosen
    ]
    return [f"sound track {chosen + 1} of {len(labels)} was read, not {', '.join(others)}"] if others else []


class _Track:
    """Frames of one track in a row. A hole in their timestamps becomes silence."""

    def __init__(self, origin_seconds: float | None) -> None:
        self.seconds, self.origin_seconds = 0.0, origin_seconds
        self.holes: list[tuple[float, float]] = []
        self._shape: Any = None
        self._resampler: Any = None
        self._runs: list[tuple[int, list[np.ndarray]]] = []  # a rate, and planes (C, n)

    def add(self, frame: Any, time_seconds: float | None) -> None:
        """Append a frame; `time_seconds` is None where the file has no timestamps."""
        import av

        shape = frame.sample_rate, frame.layout.nb_channels, frame.format.name
        if shape != self._shape:
            self.flush()
            self._shape, self._resampler = shape, av.AudioResampler(format="flt")
            if not self._runs or (self._runs[-1][0], self._runs[-1][1][0].shape[0]) != shape[:2]:
                self._runs.append((frame.sample_rate, []))
        if time_seconds is not None:
            self._keep_time(time_seconds)
        self._take(self._resampler.resample(frame))

    def flush(self) -> None:
        """Append what the resampler still holds."""
        if self._resampler is not None:
            self._take(self._resampler.resample(None))

    def _keep_time(self, time_seconds: float) -> None:
        if self.origin_seconds is None:
            self.origin_seconds = time_seconds - self.seconds
        ahead = time_seconds - self.origin_seconds - self.seconds
        if HOLE_SECONDS < ahead < LONGEST_HOLE_SECONDS:
            self.holes.append((self.seconds, ahead))
            rate, channels, _ = self._shape
            self._runs[-1][1].append(np.zeros((channels, round(ahead * rate)), np.float32))
            self.seconds += ahead
        elif abs(ahead) > HOLE_SECONDS:  # the timestamps begin again
            self.origin_seconds = time_seconds - self.seconds

    def _take(self, frames: list[Any]) -> None:
        for frame in frames:
            samples = frame.to_ndarray().reshape(-1, frame.layout.nb_channels)  # as planes, PyAV crashes with eight
            self._runs[-1][1].append(samples.T)
            self.seconds += frame.samples / frame.sample_rate

    def decoded(self) -> Decoded:
        """All frames, mono, at one rate."""
        parts = [Decoded.of(np.concatenate(planes, axis=1).T, rate) for rate, planes in self._runs if planes]
        return joined(parts) if parts else Decoded(np.zeros(0, np.float32), 1)


def _decode_track(source: Any, number: int) -> Decoded:
    """Decode one track and compare it with its packets, its bytes and the length that its index counts."""
    with opened(source) as container:
        stream = container.streams.audio[number]
        kind = container.format.name
        is_raw = kind in RAW
        is_alone = len(container.streams) == 1 or container.start_time is None
        track = _Track(None if is_alone else container.start_time / 1e6)
        sound: list[tuple[int, int]] = []  # position and size of the packets that were decoded
        is_cut = is_broken = False
        for packet, frames in frames_of(container, stream):
            for frame in frames or ():
                track.add(frame, None if is_raw else frame.time)
            if packet is None:
                is_cut = is_broken = True
            elif packet.size:
                is_cut = frames is None
                if packet.pos is not None and not is_cut:
                    sound.append((packet.pos, packet.pos + packet.size))
        track.flush()
        decoded, claimed = track.decoded(), claimed_seconds(container, stream, source, track.origin_seconds or 0.0)
    if not len(decoded.samples):
        return replace(decoded, missing=[Missing(0.0, 0.0, "it is damaged")] if is_cut else [])
    lack = claimed - decoded.seconds if claimed else 0.0
    missing, notes = [], []
    if is_raw or is_broken:
        damaged = _damaged(source, sound if is_raw else [(sound[0][0], sound[-1][1])], decoded.seconds)
        missing = [replace(damaged, seconds=min(damaged.seconds, lack)) if lack > HOLE_SECONDS else damaged]
        lack -= missing[0].seconds if lack > 0 else 0.0
    if -HOLE_SECONDS < lack < 0 and stream.codec_context.name == "aac":  # the encoder filled up its last frame
        decoded = replace(decoded, samples=decoded.samples[: round(claimed * decoded.sample_rate)])
    elif lack > HOLE_SECONDS and (doubt := doubtful(kind, lack, is_cut=is_cut)):
        notes = [doubt]
    elif lack > HOLE_SECONDS:
        missing.append(Missing(decoded.seconds, lack, END_MISSING))
    if track.holes:
        seconds = sum(length for _, length in track.holes)
        notes.append(f"{seconds:.1f} s without sound were kept as silence, the first at {track.holes[0][0]:.1f} s")
    return replace(decoded, missing=[one for one in missing if one.seconds > HOLE_SECONDS], notes=notes)


def doubtful(kind: str, lack: float, *, is_cut: bool) -> str:
    """What to say of a lack that may be the header's fault; empty: the end of the file is missing."""
    if kind == "avi":
        return f"its header claims {lack:.1f} s more: AVI does not tell whether sound pauses, ends early or is lost"
    if (kind == "flac" and not is_cut) or lack > _MOST_LACK_SECONDS:
        return f"its header claims {lack:.1f} s more than the file holds"
    return ""


def frames_of(container: Any, stream: Any) -> Iterator[tuple[Any, list[Any] | None]]:
    """Packets and what they decode to; None of a damaged one, which is skipped, as players do.

    If the container is damaged and no more packets are found, the last packet is None.
    """
    import av

    packets = container.demux(stream)
    while True:
        packet = None
        try:
            packet = next(packets)
            frames = packet.decode()
        except StopIteration:
            return
        except av.FFmpegError as error:
            if error.errno in DEAD:
                raise
            frames = None
        yield packet, frames


def _damaged(source: Any, sound: list[tuple[int, int]], seconds: float) -> Missing:
    """The bytes that no decoded packet holds, as seconds at the file's average rate."""
    read, lost, begins, done = sum(stop - start for start, stop in sound), 0, seconds, 0
    end, size = sound[0][0], os.path.getsize(source) if isinstance(source, str) else source.seek(0, os.SEEK_END)
    for start, stop in [*sound, (size, size)]:
        gap = _bytes(source, end, start).strip(b"\0") if end < start else b""
        if gap and not gap.startswith(_TAGS) and not _XING.search(gap):
            begins = min(begins, seconds * done / read)
            lost += len(gap)
        done, end = done + stop - start, max(end, stop)
    return Missing(begins, lost * seconds / read, "it is damaged")


def claimed_seconds(container: Any, stream: Any, source: Any, origin_seconds: float) -> float:
    """Where the track ends by an index that counts its frames; 0 without one."""
    kind = container.format.name
    if kind == "mp3":
        frame_samples = 1152 if stream.rate >= 32000 else 576
        found = _XING.search(_after_tags(source))
        return int.from_bytes(found[1], "big") * frame_samples / stream.rate if found else 0.0
    if "matroska" in kind:
        if tag := stream.metadata.get("DURATION"):
            hours, minutes, seconds = map(float, tag.split(":"))
            return 3600 * hours + 60 * minutes + seconds - origin_seconds
        return container.duration / 1e6 - origin_seconds if container.duration and len(container.streams) == 1 else 0.0
    if kind == "avi":
        return (container.duration or 0) / 1e6
    if kind in ("flac", "tta", "wv") or "mp4" in kind:
        return float(((stream.start_time or 0) + (stream.duration or 0)) * stream.time_base) - origin_seconds
    return 0.0


def _after_tags(source: Any) -> bytes:
    """The first bytes of an MP3 file after its ID3 tag."""
    start = _bytes(source, 0, 10)
    at = 10 + sum(byte << 7 * (3 - place) for place, byte in enumerate(start[6:])) if start[:3] == b"ID3" else 0
    return _bytes(source, at, at + 4096)


def _bytes(source: Any, start: int, stop: int) -> bytes:
    """Bytes of a path or a binary file."""
    if isinstance(source, str):
        with open(source, "rb") as file:
            return _bytes(file, start, stop)
    source.seek(start)
    return bytes(source.read(stop - start))
