"""A folder of recordings as people really have them: broken, silent, odd, and oddly named. The truth stands beside."""

import struct
import zipfile
from dataclasses import dataclass
from pathlib import Path

import av
import numpy as np
import soundfile

RATE_HZ = 24_000


@dataclass(frozen=True)
class Expected:
    """What must become of one file: its length, and the reason why it is in no clip (none: it is used)."""

    seconds: float
    reason: str = ""


def voice(seconds: float, seed: int = 0, rate_hz: int = RATE_HZ) -> np.ndarray:
    """Sound (N,) without pauses that differs from seed to seed."""
    random = np.random.default_rng(seed)
    time = np.arange(round(seconds * rate_hz)) / rate_hz
    tones = sum(np.sin(2 * np.pi * hz * time + random.uniform(0, 6)) for hz in random.uniform(100, 2000, 5))
    return (0.1 * tones).astype(np.float32)


def encode(
    path: Path, samples: np.ndarray, rate_hz: int, codec: str, *, cover: bool = False, video: bool = False
) -> None:
    """Write samples (N,) with any of FFmpeg's encoders, with a cover picture or beside a moving one."""
    with av.open(str(path), "w") as container:
        picture = None
        if cover or video:
            picture = container.add_stream("mjpeg" if cover else "mpeg4", rate=10)
            picture.width, picture.height, picture.pix_fmt = 64, 64, "yuvj420p" if cover else "yuv420p"
            if cover:
                picture.disposition = av.stream.Disposition.attached_pic
        stream = container.add_stream(codec, rate=rate_hz, layout="mono")
        stream.bit_rate = 96_000
        for _ in range(1 if cover else 5 if video else 0):
            container.mux(picture.encode(av.VideoFrame.from_ndarray(np.zeros((64, 64, 3), np.uint8), format="rgb24")))
        if picture is not None:
            container.mux(picture.encode(None))
        frame = av.AudioFrame.from_ndarray(samples[None], format="fltp", layout="mono")
        frame.sample_rate, frame.pts = rate_hz, 0
        container.mux([*stream.encode(frame), *stream.encode(None)])


def extensible_wav(samples: np.ndarray, rate_hz: int) -> bytes:
    """A 24-bit WAVE_FORMAT_EXTENSIBLE file, as many recorders write it."""
    data = b"".join(int(sample * 8388607).to_bytes(3, "little", signed=True) for sample in samples)
    guid = struct.pack("<H", 1) + bytes.fromhex("000000001000800000AA00389B71")
    form = struct.pack("<HHIIHHHHI", 0xFFFE, 1, rate_hz, rate_hz * 3, 3, 24, 22, 24, 4) + guid
    chunks = b"fmt " + struct.pack("<I", len(form)) + form + b"data" + struct.pack("<I", len(data)) + data
    return b"RIFF" + struct.pack("<I", 4 + len(chunks)) + b"WAVE" + chunks


def torture_set(folder: Path) -> dict[str, Expected]:
    """Fill `folder`; return what must become of each file, by its name within the folder."""
    truth: dict[str, Expected] = {}

    def add(name: str, seconds: float, reason: str = "") -> Path:
        truth[name] = Expected(seconds, reason)
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        return folder / name

    for number, subtype in enumerate(("PCM_U8", "PCM_16", "PCM_24", "PCM_32", "FLOAT", "DOUBLE")):
        soundfile.write(add(f"{subtype}.wav", 1.5), voice(1.5, number), RATE_HZ, subtype)
    add("extensible.wav", 1.2).write_bytes(extensible_wav(voice(1.2, 10), RATE_HZ))
    left = voice(2.0, 11, 44_100)
    soundfile.write(add("out of phase.wav", 2.0), np.stack([left, -left], axis=1), 44_100)
    for number, name in enumerate(
        (
            "мой голос.flac",
            "我的声音.ogg",
            'it\'s "quoted" 😀.wav',
            "sub/folder/line\u2028nested.WAV",
            "a.wav",
            "a.flac",
        )
    ):
        soundfile.write(add(name, 1.3), voice(1.3, 20 + number), RATE_HZ)
    for number, (name, codec) in enumerate(
        (
            ("cover.mp3", "libmp3lame"),
            ("phone.m4a", "aac"),
            ("film.mp4", "aac"),
            ("old.wma", "wmav2"),
            ("call.opus", "libopus"),
        )
    ):
        rate_hz = 48_000 if codec == "libopus" else 44_100
        encode(
            add(name, 2.0),
            voice(2.0, 30 + number, rate_hz),
            rate_hz,
            codec,
            cover=name == "cover.mp3",
            video=name == "film.mp4",
        )
    soundfile.write(add("ha.wav", 0.3), voice(0.3, 40), RATE_HZ)
    soundfile.write(add("click.wav", 0.02, "too short"), voice(0.02, 41), RATE_HZ)
    soundfile.write(add("silence.wav", 3.0, "silent"), np.zeros(3 * RATE_HZ, np.float32), RATE_HZ)
    broken = voice(1.0, 42)
    broken[[5, 500]] = np.nan, np.inf
    soundfile.write(add("nan.wav", 1.0, "non-finite"), broken, RATE_HZ, "FLOAT")
    soundfile.write(add("wild.wav", 1.0, "too loud"), 40 * voice(1.0, 43), RATE_HZ, "FLOAT")
    soundfile.write(add("z copy of a.wav", 1.3, "duplicate"), voice(1.3, 24), RATE_HZ)
    soundfile.write(add(".ipynb_checkpoints/a-checkpoint.wav", 1.3, "ignored folder"), voice(1.3, 24), RATE_HZ)
    add("zero.wav", 0.0, "undecodable").write_bytes(b"")
    soundfile.write(add("header only.wav", 0.0, "undecodable"), np.zeros(0, np.float32), RATE_HZ)
    add("text.wav", 0.0, "undecodable").write_text("this is no recording\n" * 50)
    add("noise.m4a", 0.0, "undecodable").write_bytes(np.random.default_rng(0).bytes(20_000))
    add("notes.txt", 0.0, "not audio").write_text("remember the milk")
    with zipfile.ZipFile(add("more.zip", 0.0, "not audio"), "w") as archive:
        archive.writestr("inner.wav", b"")
    return truth
