"""Odd files whose true content is known by construction: joined, cut, with wrong sizes, changing, late, with holes.

Each segment is a tone of its own pitch, so that a reader that drops, doubles or swaps a part is found out.
"""

import struct
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import av
import numpy as np
import soundfile

# Samples of a codec's frame, of the encoder's delay, and how many of the delay its container tells the reader to skip.
FRAMES = {
    "aac": (1024, 1024, 0),
    "m4a": (1, 0, 0),
    "mka": (1024, 1024, 1024),
    "f4v": (1, -1024, 0),  # the container counts the delay as sound
    "mp3": (1152, 1105, 1105),
    "mp2": (1152, 0, 0),
    "ac3": (1536, 0, 0),
    "amr": (160, 40, 0),
}


@dataclass(frozen=True)
class Odd:
    """One odd file.

    Attributes
    ----------
    content : bytes
    seconds : float
        Sound that a reader must return.
    lost : float
        Seconds that are missing in the file, and that the reader must name to within 0.1 s.
    tones : list of (float, float)
        Second and pitch in Hz of what sounds there; 0 Hz: silence.
    says : str
        A word in the reader's notes; empty: no notes, which would be a false alarm.
    refused : bool
        Nothing of it can be read.
    """

    name: str
    content: bytes
    seconds: float = 0.0
    lost: float = 0.0
    tones: list[tuple[float, float]] = field(default_factory=list)
    says: str = ""
    refused: bool = False


def tone(seconds: float, rate_hz: int, hz: float, channels: int = 1, level: float = 0.3) -> np.ndarray:
    """Planes (C, N)."""
    wave = level * np.sin(2 * np.pi * hz * np.arange(round(seconds * rate_hz)) / rate_hz)
    return np.tile(wave.astype(np.float32), (channels, 1))


def written(path: Path, codec: str, pieces: list, *, video: float = 0.0, tracks: int = 1, options=None) -> bytes:
    """Encode pieces (start in seconds, planes, rate); with several tracks, each piece is a track of its own."""
    format_name = "ipod" if path.suffix == ".m4r" else None
    with av.open(str(path), "w", format=format_name, options=options or {}) as container:
        picture = None
        if video:
            picture = container.add_stream("mpeg4", rate=10)
            picture.width, picture.height, picture.pix_fmt = 16, 16, "yuv420p"
        streams = [
            container.add_stream(
                codec, rate=pieces[number][2], layout="mono" if len(pieces[number][1]) == 1 else "stereo"
            )
            for number in range(tracks)
        ]
        packets = []
        for number in range(round(10 * video)):
            frame = av.VideoFrame.from_ndarray(np.zeros((16, 16, 3), np.uint8), format="rgb24")
            frame.pts = number
            packets += picture.encode(frame)
        packets += picture.encode(None) if picture else []
        for number, (start, planes, rate) in enumerate(pieces):
            frame = av.AudioFrame.from_ndarray(planes, format="fltp", layout="mono" if len(planes) == 1 else "stereo")
            frame.sample_rate, frame.pts = rate, round(start * rate)
            packets += streams[number if tracks > 1 else 0].encode(frame)
        for stream in streams:
            packets += stream.encode(None)
        for packet in packets:
            container.mux(packet)
    return path.read_bytes()


CODECS = {  # suffix: codec, rate
    "mp3": ("libmp3lame", 44_100),
    "mp2": ("mp2", 44_100),
    "flac": ("flac", 32_000),
    "oga": ("flac", 32_000),
    "opus": ("libopus", 48_000),
    "aac": ("aac", 44_100),
    "m4a": ("aac", 44_100),
    "m4r": ("aac", 44_100),
    "f4v": ("aac", 44_100),
    "mka": ("aac", 44_100),
    "ts": ("aac", 44_100),
    "flv": ("aac", 44_100),
    "ac3": ("ac3", 44_100),
    "amr": ("libopencore_amrnb", 8_000),
    "tta": ("tta", 32_000),
    "wv": ("wavpack", 32_000),
    "wav": ("pcm_s16le", 32_000),
    "w64": ("pcm_s16le", 32_000),
    "aiff": ("pcm_s16be", 32_000),
    "caf": ("pcm_s16be", 32_000),
    "au": ("pcm_s16be", 32_000),
}
_LIKE = {"ts": "aac", "flv": "aac", "m4r": "m4a"}


def held(suffix: str, seconds: float, rate_hz: int, *, skips: bool = True) -> float:
    """Seconds that a file of one tone holds: encoders fill up their last frame."""
    frame, delay, skipped = FRAMES.get(_LIKE.get(suffix, suffix), (1, 0, 0))
    if suffix == "mp3" and skips:
        return seconds  # LAME writes the exact length
    frames = -(-(round(seconds * rate_hz) + abs(delay)) // frame)
    return (frames * frame - (skipped if skips or suffix == "mka" else 0)) / rate_hz


def single(folder: Path, suffix: str, seconds: float, hz: float, channels: int = 1, rate_hz: int = 0) -> bytes:
    """One file of one tone."""
    codec, rate = CODECS[suffix]
    planes = tone(seconds, rate_hz or rate, hz, channels)
    return written(folder / f"part.{suffix}", codec, [(0.0, planes, rate_hz or rate)])


def joined(folder: Path) -> Iterator[Odd]:
    """Two files in one: equal, of other rates, of other channels."""
    for suffix, (_, rate) in CODECS.items():
        first = single(folder, suffix, 0.6, 440)
        yield Odd(f"whole.{suffix}", first, held(suffix, 0.6, rate), tones=[(0.3, 440)])
        start = held(suffix, 0.6, rate)
        if suffix == "mp3":  # the length in the first file's tag ends nothing
            start = (-(-(round(0.6 * rate) + 1105) // 1152) * 1152 - 1105) / rate
        variants = {"joined": (0.9, rate, 1)}
        if suffix in ("wav", "flac", "opus", "aac", "m4a", "mka", "mp3", "ac3", "mp2", "ts", "aiff", "tta"):
            variants["to stereo"] = (0.9, rate, 2)
        if suffix in ("wav", "flac", "aac", "m4a", "mka", "mp3", "ac3", "mp2", "ts", "aiff", "tta"):
            variants["to another rate"] = (0.9, 48_000 if rate < 48_000 else 24_000, 1)
        for name, (seconds, other_rate, channels) in variants.items():
            second = single(folder, suffix, seconds, 880, channels, other_rate)
            yield Odd(
                f"{name}.{suffix}",
                first + second,
                start + held(suffix, seconds, other_rate, skips=False),
                tones=[(0.3, 440), (start + 0.5, 880)],
            )
    mp3 = [written(folder / "part.mp3", "libmp3lame", [(0.0, tone(0.6, 44_100, hz), 44_100)]) for hz in (440, 880)]
    picture = np.random.default_rng(0).bytes(20_000)
    tag = b"ID3\x04\0\0" + bytes(
        [len(picture) >> 21, len(picture) >> 14 & 127, len(picture) >> 7 & 127, len(picture) & 127]
    )
    both = (-(-(26_460 + 1105) // 1152) * 2304 - 1105) / 44_100
    yield Odd("a tag in the middle.mp3", mp3[0] + tag + bytes(20_000) + mp3[1], both, tones=[(0.3, 440), (1.0, 880)])
    yield Odd("a tag at the end.mp3", mp3[0] + b"TAG" + b"x" * 125, 0.6, tones=[(0.3, 440)])
    soundfile.write(folder / "v.ogg", tone(1.0, 22_050, 440)[0], 22_050)
    soundfile.write(folder / "w.ogg", tone(2.0, 44_100, 880)[0], 44_100)
    vorbis = [(folder / name).read_bytes() for name in ("v.ogg", "w.ogg")]
    yield Odd("joined.ogg", 2 * vorbis[0], 2.0, tones=[(0.5, 440), (1.5, 440)])
    yield Odd("chained to another rate.ogg", b"".join(vorbis), 3.0, tones=[(0.5, 440), (2.0, 880)])


def cut(folder: Path) -> Iterator[Odd]:
    """Downloads that ended in the middle. With an index the rest is counted; without one, whole frames are."""
    for suffix in ("mp3", "flac", "mka", "m4a", "f4v"):
        codec, rate = CODECS[suffix]
        options = {"movflags": "faststart"} if suffix in ("m4a", "f4v") else {}
        whole = written(folder / f"part.{suffix}", codec, [(0.0, tone(1.6, rate, 440), rate)], options=options)
        share = 0.6
        yield Odd(f"cut.{suffix}", whole[: int(share * len(whole))], -1.0, 1.6, [(0.2, 440)])
    for suffix in ("aac", "ac3", "mp2", "amr", "ts", "opus", "oga"):
        codec, rate = CODECS[suffix]
        path = folder / f"part.{suffix}"
        whole = written(path, codec, [(0.0, tone(3.0, rate, 440), rate)])
        with av.open(str(path)) as container:
            packets = [packet for packet in container.demux(audio=0) if packet.size]
        if suffix in ("opus", "oga"):  # a page of a second is lost as a whole
            end = whole.rindex(b"OggS")
            end, pages = (
                whole.rindex(b"OggS", 0, end),
                struct.unpack_from("<q", whole, whole.rindex(b"OggS", 0, whole.rindex(b"OggS", 0, end)) + 6),
            )
            seconds = (pages[0] - (312 if suffix == "opus" else 0)) / rate
            yield Odd(f"cut.{suffix}", whole[: end + 20], seconds, tones=[(0.2, 440)])
        else:
            at = packets[len(packets) // 2]
            frame = FRAMES[_LIKE.get(suffix, suffix)][0]
            yield Odd(f"cut.{suffix}", whole[: at.pos + 3], len(packets) // 2 * frame / rate, tones=[(0.2, 440)])
    for suffix in ("wav", "aiff", "caf", "w64", "au"):
        codec, rate = CODECS[suffix]
        whole = written(folder / f"part.{suffix}", codec, [(0.0, tone(2.0, rate, 440), rate)])
        yield Odd(f"cut.{suffix}", whole[:-64_000], 1.0, tones=[(0.5, 440)], says="claims")
    for suffix in ("m4a", "wv", "tta"):  # the index stands at the end, or the only block is damaged
        codec, rate = CODECS[suffix]
        whole = written(folder / f"part.{suffix}", codec, [(0.0, tone(0.5, rate, 440), rate)])
        yield Odd(f"cut and lost.{suffix}", whole[: len(whole) // 2], refused=True)


def wrong_sizes(folder: Path) -> Iterator[Odd]:
    """Sizes in the header that are zero, unknown, too small or too large."""
    places = {  # the mark before the size, the size's format, what it counts besides the sound
        "wav": (b"data", "<I", 0),
        "aiff": (b"SSND", ">I", 8),
        "caf": (b"data", ">q", 4),
        "w64": (b"data\xf3\xac\xd3\x11\x8c\xd1\0\xc0O\x8e\xdb\x8a", "<q", 24),
        "au": (b".snd\0\0\0", ">I", 0),
    }
    for suffix, (mark, number, besides) in places.items():
        codec, rate = CODECS[suffix]
        whole = written(folder / f"part.{suffix}", codec, [(0.0, tone(2.0, rate, 440), rate)])
        at = whole.index(mark) + len(mark) + (1 if suffix == "au" else 0)
        unknown = -1 if suffix == "caf" else 0x7FFFFFF0 if suffix == "w64" else 0xFFFFFFFF
        for name, size in {"zero": 0, "unknown": unknown, "too small": 32_000 + besides, "too large": 640_000}.items():
            content = bytearray(whole)
            struct.pack_into(number, content, at, size)
            says = "claims" if name == "too large" else ""
            yield Odd(f"size {name}.{suffix}", bytes(content), 2.0, tones=[(0.2, 440), (1.8, 440)], says=says)
    soundfile.write(folder / "a.wav", tone(1.0, 32_000, 440)[0], 32_000)
    whole = (folder / "a.wav").read_bytes()
    yield Odd("a list behind.wav", whole + b"LIST\x04\0\0\0INFO", 1.0, tones=[(0.9, 440)])
    yield Odd("a tag behind.wav", whole + b"TAG" + b"x" * 125, 1.0, tones=[(0.9, 440)])
    soundfile.write(folder / "a.rf64", tone(2.0, 32_000, 440)[0], 32_000, format="RF64")
    for mark in (b"RF64", b"BW64"):
        whole, suffix = mark + (folder / "a.rf64").read_bytes()[4:], mark.decode().lower()
        yield Odd(f"whole.{suffix}", whole, 2.0, tones=[(0.9, 440)])
        yield Odd(f"joined.{suffix}", 2 * whole, 4.0, tones=[(0.9, 440), (2.9, 440)])
        yield Odd(f"cut.{suffix}", whole[:-64_000], 1.0, tones=[(0.5, 440)], says="claims 1.0 s more")
        for name, size in {"zero": 0, "unknown": 2**64 - 1, "too small": 32_000, "too large": 640_000}.items():
            content = bytearray(whole)
            struct.pack_into("<Q", content, 28, size)
            says = "claims" if name == "too large" else ""
            yield Odd(f"size {name}.{suffix}", bytes(content), 2.0, tones=[(0.2, 440), (1.8, 440)], says=says)
    for suffix, subtype, container in (
        ("aiff", "FLOAT", "AIFF"),
        ("aifc", "ULAW", "AIFF"),
        ("caf", "ALAC_16", "CAF"),
        ("caf", "ULAW", "CAF"),
        ("w64", "FLOAT", "W64"),
        ("au", "ULAW", "AU"),
    ):
        path = folder / f"b.{suffix}"
        soundfile.write(path, tone(2.0, 32_000, 440)[0], 32_000, subtype, format=container)
        whole = path.read_bytes()
        yield Odd(f"whole {subtype}.{suffix}", whole, 2.0, tones=[(0.9, 440)])
        if subtype != "ALAC_16":  # its frames have a length each
            yield Odd(
                f"cut {subtype}.{suffix}",
                whole[: {"FLOAT": -128_000, "ULAW": -32_000}[subtype]],
                1.0,
                tones=[(0.5, 440)],
                says="claims",
            )
    for name, frames in {"zero": 0, "too small": 16_000, "too large": 640_000}.items():
        content = bytearray(
            whole := written(folder / "part.aiff", "pcm_s16be", [(0.0, tone(2.0, 32_000, 440), 32_000)])
        )
        struct.pack_into(">I", content, whole.index(b"COMM") + 10, frames)
        yield Odd(f"frames {name}.aiff", bytes(content), 2.0, tones=[(0.2, 440), (1.8, 440)])
    flac = written(folder / "a.flac", "flac", [(0.0, tone(1.0, 32_000, 440), 32_000)])
    for name, total in {"zero": 0, "too small": 8_000, "too large": 320_000}.items():
        content = bytearray(flac)
        content[21] &= 0xF0
        struct.pack_into(">I", content, 22, total)
        says = "claims" if name == "too large" else ""
        yield Odd(f"size {name}.flac", bytes(content), 1.0, tones=[(0.2, 440), (0.9, 440)], says=says)


def in_time(folder: Path) -> Iterator[Odd]:
    """Videos whose sound begins late or has a hole, and several tracks."""
    for suffix in ("mp4", "mov", "mkv", "ts", "m2ts", "webm", "3gp"):
        codec, rate = ("libopus", 48_000) if suffix == "webm" else ("aac", 44_100)
        video = 0.0 if suffix == "webm" else 3.0
        pieces = [(0.0, tone(1.0, rate, 440), rate), (1.8, tone(0.7, rate, 880), rate)]
        content = written(folder / f"part.{suffix}", codec, pieces, video=video)
        extra = {"ts": 1843, "m2ts": 1843}.get(suffix, 0) / 44_100  # the encoder's delay, and its last frame filled up
        yield Odd(f"hole.{suffix}", content, 2.5 + extra, tones=[(0.5, 440), (1.4, 0), (2.2, 880)], says="silence")
        if suffix == "ts":  # the timestamps begin again in the middle
            tones = [(0.5, 440), (1.4, 0), (2.2, 880), (3.1, 440), (4.0, 0), (4.7, 880)]
            yield Odd("two holes joined.ts", 2 * content, 5.0 + 2 * extra, tones=tones, says="silence")
        if video:
            content = written(folder / f"part.{suffix}", codec, [(1.2, tone(1.0, rate, 440), rate)], video=video)
            full = 0.0 if suffix in ("mp4", "mov", "3gp") else 956 / 44_100  # of its last frame
            yield Odd(f"late.{suffix}", content, 2.2 + full, tones=[(0.6, 0), (1.8, 440)], says="silence")
    for codec, name in (("pcm_s16le", "pcm"), ("libmp3lame", "mp3"), ("ac3", "ac3")):
        whole = written(folder / "part.avi", codec, [(0.0, tone(2.0, 44_100, 440), 44_100)], video=2.0)
        at, last = whole.index(b"auds") + 20, {"pcm": 0.0, "mp3": 1697, "ac3": 888}[name] / 44_100  # frames filled up
        content, (scale, rate) = bytearray(whole), struct.unpack_from("<II", whole, at)
        struct.pack_into("<I", content, at + 8, round(1.2 * rate / scale))  # where the sound begins
        start = round(1.2 * rate / scale) * scale / rate
        tones = [(0.6, 0), (1.8, 440), (3.0, 440)]
        yield Odd(f"late {name}.avi", bytes(content), start + 2.0 + last, tones=tones, says="silence")
        pieces = [(0.0, tone(1.0, 44_100, 440), 44_100), (1.8, tone(0.7, 44_100, 880), 44_100)]
        content, last = (
            written(folder / "part.avi", codec, pieces, video=3.0),
            {"pcm": 0.0, "mp3": 2205, "ac3": 297}[name],
        )
        yield Odd(
            f"hole {name}.avi", content, 1.7 + last / 44_100, tones=[(0.5, 440), (1.5, 880)], says="AVI does not tell"
        )
    for suffix in ("mkv", "mp4", "ts"):
        for name, levels, hz in (
            ("first track silent", (0.0, 0.3), 880),
            ("first track hums", (0.001, 0.3), 880),
            ("both tracks sound", (0.3, 0.3), 440),
            ("second track silent", (0.3, 0.0), 440),
        ):
            pieces = [
                (0.0, tone(0.8, 44_100, pitch, level=level), 44_100)
                for pitch, level in zip((440, 880), levels, strict=True)
            ]
            content = written(folder / f"part.{suffix}", "aac", pieces, tracks=2)
            seconds = held("mka" if suffix == "mkv" else "aac" if suffix == "ts" else "m4a", 0.8, 44_100)
            yield Odd(f"{name}.{suffix}", content, seconds, tones=[(0.4, hz)], says="track")


def odd_levels(folder: Path) -> Iterator[Odd]:
    """Quiet, shifted, and out of range: a reader changes no level."""
    for name, factor, offset, subtype in (
        ("quiet", 3e-3, 0.0, "FLOAT"),
        ("shifted", 1.0, 0.05, "PCM_16"),
        ("too loud", 8.0, 0.0, "FLOAT"),
        ("16-bit numbers", 32768.0, 0.0, "FLOAT"),
        ("double", 1.0, 0.0, "DOUBLE"),
    ):
        soundfile.write(folder / "a.wav", factor * tone(0.5, 24_000, 440)[0] + offset, 24_000, subtype)
        yield Odd(f"{name}.wav", (folder / "a.wav").read_bytes(), 0.5, tones=[(0.25, 440)])


def damaged(folder: Path) -> Iterator[Odd]:
    """Bytes in the middle that are no sound; and what is no recording at all."""
    noise = np.random.default_rng(1).bytes(4_000).replace(b"\xff", b"\xfe")  # no frame seems to begin in it
    for suffix in ("mp3", "mp2", "aac", "ac3"):
        codec, rate = CODECS[suffix]
        path = folder / f"part.{suffix}"
        whole = written(path, codec, [(0.0, tone(2.0, rate, 440), rate)])
        with av.open(str(path)) as container:
            packets = [packet for packet in container.demux(audio=0) if packet.size]
        at = packets[len(packets) // 2].pos
        lost = len(packets) * FRAMES[suffix][0] / rate * 4_000 / (len(whole) - 4_000)
        content = whole[:at] + noise + whole[at + 4_000 :]
        yield Odd(f"noise inside.{suffix}", content, -1.0, held(suffix, 2.0, rate) if lost else 0.0, [(0.3, 440)])
    for name, content in {
        "empty.wav": b"",
        "text.mp3": b"remember the milk\n" * 60,
        "zeros.flac": bytes(3_000),
        "page.m4a": b"<html><body>Sign in</body></html>" * 40,
        "only a head.wav": b"RIFF\x24\0\0\0WAVEfmt \x10\0\0\0\1\0\1\0\x80\x3e\0\0\0\x7d\0\0\2\0\x10\0data\0\0\0\0",
        "only a head.flac": b"fLaC\x80\0\0\x22" + bytes(34),
        "noise.opus": b"OggS\0\2" + noise,
        "noise.wav": b"RIFF\0\0\0\0WAVE" + noise,
    }.items():
        yield Odd(name, content, refused=True)


def odd_files(folder: Path) -> list[Odd]:
    """All of them; `folder` is for the encoders' own files."""
    makers = (joined, cut, wrong_sizes, in_time, odd_levels, damaged)
    return [odd for maker in makers for odd in maker(folder)]
