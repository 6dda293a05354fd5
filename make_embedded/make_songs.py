"""Make what the embedded separator learns from: parts of music, and sung lines from recordings of readers.

Music comes from General MIDI soundfonts (Debian's ``fluidsynth`` with ``fluid-soundfont-gm`` and
``musescore-general-soundfont-small``, both MIT) and from generators in code. Every part stands alone, so that training
mixes them anew. Sung lines are readers' own syllables, held on notes with glides and vibrato by WORLD
(``pip install pyworld-prebuilt``)::

    python make_embedded/make_songs.py RECORDINGS PARTS

The generator `plucked` and all other soundfonts are kept for judging (benchmarks/separation.py).
"""

import argparse
import struct
import subprocess
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import soundfile
import soxr
from scipy import signal

RATE_HZ = 16_000
RENDER_HZ = 44_100
PASSAGE_SECONDS = 12.0
FRAMES = 100  # per second, of sung lines
SOUNDFONTS = (Path("/usr/share/sounds/sf2/FluidR3_GM.sf2"), Path("/usr/share/sounds/sf3/MuseScore_General_Lite.sf3"))
VOICES = {52, 53, 54, 85, 91}  # General MIDI programs that sing; they are neither music nor vocals here
PROGRAMS = {
    "chords": [*range(0, 32)],
    "pads": [*range(16, 21), *range(40, 52), *range(60, 64), *range(88, 96)],
    "bass": [*range(32, 40)],
    "lead": [*range(4, 16), *range(22, 32), *range(40, 43), *range(56, 88), *range(104, 112)],
    "drums": [0, 8, 16, 24, 25, 32, 40],
}
SCALES = ((0, 2, 4, 5, 7, 9, 11), (0, 2, 3, 5, 7, 8, 10), (0, 2, 3, 5, 7, 9, 10))
Note = tuple[float, float, int, int]  # start and length in seconds, MIDI number, velocity
Random = np.random.Generator


# -- notes ---------------------------------------------------------------------------------------------------------
def compose(part: str, random: Random, seconds: float = PASSAGE_SECONDS) -> list[Note]:
    """One part over some seconds: a chord progression, arpeggios, a bass line, a melody or drums."""
    beat = 60.0 / random.uniform(64, 168)
    root, scale = int(random.integers(45, 57)), SCALES[random.integers(len(SCALES))]
    degrees = [0, *random.integers(0, 7, 3)]
    loud = int(random.integers(60, 110))
    notes: list[Note] = []

    def pitch(degree: int) -> int:
        return root + 12 * (degree // 7) + scale[degree % 7]

    def add(at: float, length: float, number: int) -> None:
        notes.append((at, length, int(np.clip(number, 24, 108)), int(np.clip(loud + random.normal(0, 10), 20, 127))))

    bar, style, at = 4 * beat, random.integers(3), 0.0
    pattern = (random.random((8, 5)) < np.array([0.35, 0.3, 0.75, 0.1, 0.1])).astype(int).tolist()
    while at < seconds - beat:
        degree = int(degrees[int(at / bar + 1e-6) % 4])
        chord = [pitch(degree + step) for step in (0, 2, 4, *([6] if style == 2 else []))]
        if part == "pads" or (part == "chords" and style == 0):
            for number in chord:
                add(at, bar * 0.98, number + 12 * int(random.integers(0, 2)))
            at += bar
        elif part == "chords" and style == 1:  # strummed on every beat or half beat
            for order, number in enumerate(chord):
                add(at + 0.012 * order, beat * 0.45, number)
            at += beat * random.choice([0.5, 1.0])
        elif part == "chords":
            add(at, beat * random.uniform(0.3, 2.0), chord[int(at / beat * 2) % len(chord)] + 12)
            at += beat / 2
        elif part == "bass":
            add(at, beat * 0.8, chord[0] - 12 if random.random() < 0.7 else chord[-1] - 24)
            at += beat * random.choice([0.5, 1.0, 1.0, 2.0])
        elif part == "lead":
            length = beat * random.choice([0.25, 0.5, 0.5, 1.0, 1.0, 2.0, 3.0])
            if random.random() < 0.85:
                add(at, length * 0.95, pitch(degree + int(random.integers(0, 9))) + 12)
            at += length
        else:
            step = int(at / beat * 2) % 8
            hits = [36] * pattern[step][0] + [38] * (step in (2, 6)) + [42] * pattern[step][2]
            hits += [int(random.choice([46, 51, 49, 39]))] * pattern[step][3]
            hits += [int(random.integers(41, 76))] * pattern[step][4]
            for number in hits:
                add(at, 0.1, number)
            at += beat / 2
    return notes


def midi_file(passages: list[tuple[int, list[Note]]], is_drums: bool, random: Random) -> bytes:
    """A MIDI file of passages in a row, each with its program, place between left and right, vibrato and bends."""
    channel, ticks = (9 if is_drums else 0), 960  # a second, at 120 beats per minute and 480 ticks per beat
    events: list[tuple[int, int, bytes]] = []
    for count, (program, notes) in enumerate(passages):
        begin = round(count * PASSAGE_SECONDS * ticks)
        controls = [(10, 64 if random.random() < 0.5 else int(random.integers(0, 128))), (1, 0), (91, 0), (93, 0)]
        controls[1] = (1, int(random.integers(0, 100)) if random.random() < 0.4 else 0)
        controls[2] = (91, int(random.integers(0, 110)))
        events.append((begin, 0, bytes([0xC0 | channel, program])))
        events += [(begin, 0, bytes([0xB0 | channel, number, value])) for number, value in controls]
        bends = not is_drums and random.random() < 0.3
        for at, length, number, velocity in notes:
            on, off = begin + round(at * ticks), begin + round(min(at + length, PASSAGE_SECONDS - 0.02) * ticks)
            events += [(on, 2, bytes([0x90 | channel, number, velocity])), (off, 1, bytes([0x80 | channel, number, 0]))]
            if bends and random.random() < 0.4:
                for step in range(8):
                    events.append((on + 12 * step, 1, bytes([0xE0 | channel, 0, 50 + 2 * step])))
                events.append((off, 0, bytes([0xE0 | channel, 0, 64])))
    track, last = bytearray(), 0
    for time, _, message in sorted(events, key=lambda event: event[:2]):
        delta, last = time - last, time
        track += bytes([0x80 | (delta >> 14) & 127, 0x80 | (delta >> 7) & 127, delta & 127]) + message
    track += b"\0\xff\x2f\0"
    header = struct.pack(">4sIHHH", b"MThd", 6, 0, 1, 480)
    return header + struct.pack(">4sI", b"MTrk", len(track)) + bytes(track)


def rendered(midi: bytes, soundfont: Path, rate_hz: int) -> np.ndarray:
    """Sound (2, N) of a MIDI file, with peaks of at most 1."""
    with tempfile.TemporaryDirectory() as folder:
        score, sound = Path(folder, "score.mid"), Path(folder, "sound.wav")
        score.write_bytes(midi)
        command = ["fluidsynth", "-niq", "-g", "0.5", "-r", str(RENDER_HZ), "-T", "wav", "-O", "float"]
        subprocess.run([*command, "-F", str(sound), str(soundfont), str(score)], check=True, capture_output=True)
        samples, _ = soundfile.read(sound, dtype="float32", always_2d=True)
    samples = soxr.resample(samples, RENDER_HZ, rate_hz) if rate_hz != RENDER_HZ else samples
    return (samples / max(1.0, float(np.abs(samples).max()))).T


def played(part: str, soundfont: Path, count: int, random: Random, rate_hz: int = RATE_HZ) -> np.ndarray:
    """Passages of one part (2, N), each on another instrument."""
    programs = [program for program in PROGRAMS[part] if program not in VOICES]
    passages = [(int(random.choice(programs)), compose(part, random)) for _ in range(count)]
    return rendered(midi_file(passages, part == "drums", random), soundfont, rate_hz)


# -- generators ----------------------------------------------------------------------------------------------------
def hertz(number: float) -> float:
    """Frequency of a MIDI number."""
    return 440.0 * 2.0 ** ((number - 69) / 12)


def saw(f0_hz: np.ndarray, rate_hz: int, phase: float = 0.0) -> np.ndarray:
    """A band-limited sawtooth: harmonics up to the Nyquist frequency of its highest pitch."""
    angle = 2 * np.pi * (phase + np.cumsum(f0_hz) / rate_hz)
    harmonics = np.arange(1, max(2, min(40, int(0.45 * rate_hz / f0_hz.max()))))
    return np.sin(angle[:, None] * harmonics) @ (0.5 / harmonics)


def envelope(length: int, attack: float, release: float, rate_hz: int) -> np.ndarray:
    """Rise and fall in seconds."""
    time = np.arange(length) / rate_hz
    return np.minimum(1.0, time / attack) * np.minimum(1.0, (length / rate_hz - time) / release).clip(0)


def bowed(f0_hz: float, length: int, random: Random, rate_hz: int) -> np.ndarray:
    """Detuned saws with a slow attack and vibrato: strings, which move most like a voice."""
    time = np.arange(length) / rate_hz
    bend = np.exp(random.uniform(0, 0.02) * np.sin(2 * np.pi * random.uniform(4, 7) * time))
    tone = sum(saw(f0_hz * detune * bend, rate_hz, random.random()) for detune in (0.996, 1.0, 1.005))
    cut = signal.butter(2, min(0.9, random.uniform(1500, 6000) / rate_hz * 2), output="sos")
    return signal.sosfilt(cut, tone) * envelope(length, random.uniform(0.02, 0.3), 0.1, rate_hz)


def swept(f0_hz: float, length: int, random: Random, rate_hz: int) -> np.ndarray:
    """Saws through a filter that opens or closes: synthesizers."""
    tone = saw(np.full(length, f0_hz), rate_hz) + saw(np.full(length, f0_hz * 1.006), rate_hz, 0.3)
    out, step, state = np.empty(length), 512, None
    edges = np.geomspace(*random.uniform(300, 7000, 2), length // step + 2)
    for count, edge in enumerate(edges[: -(-length // step)]):
        cut = signal.butter(2, min(0.95, edge / rate_hz * 2), output="sos")
        state = np.zeros((1, 2)) if state is None else state
        piece = slice(count * step, (count + 1) * step)
        out[piece], state = signal.sosfilt(cut, tone[piece], zi=state)
    return out * envelope(length, 0.005, 0.05, rate_hz)


def modulated(f0_hz: float, length: int, random: Random, rate_hz: int) -> np.ndarray:
    """Frequency modulation: bells and electric pianos."""
    time = np.arange(length) / rate_hz
    fall = np.exp(-time * random.uniform(1, 6))
    ratio, depth = random.choice([1.0, 2.0, 3.0, 3.5, 7.0]), random.uniform(0.5, 4)
    return np.sin(2 * np.pi * f0_hz * time + depth * fall * np.sin(2 * np.pi * ratio * f0_hz * time)) * fall


def distorted(f0_hz: float, length: int, random: Random, rate_hz: int) -> np.ndarray:
    """Power chords through a limiter and a loudspeaker: electric guitars."""
    fall = np.exp(-np.arange(length) / rate_hz * random.uniform(0.3, 2))
    tone = sum(saw(np.full(length, f0_hz * ratio), rate_hz, random.random()) for ratio in (1.0, 1.4983, 2.0)) * fall
    driven = np.tanh(tone * random.uniform(3, 20))
    cut = signal.butter(2, [100 / rate_hz * 2, random.uniform(2500, 5500) / rate_hz * 2], "bandpass", output="sos")
    return signal.sosfilt(cut, driven) * envelope(length, 0.003, 0.03, rate_hz)


def plucked(f0_hz: float, length: int, random: Random, rate_hz: int) -> np.ndarray:
    """Karplus and Strong's plucked string. Judges only; it never trains."""
    period = max(2, round(rate_hz / f0_hz))
    burst = np.zeros(length)
    burst[: min(period, length)] = random.uniform(-1, 1, min(period, length))
    loop = np.zeros(period + 2)
    loop[0], loop[period], loop[period + 1] = 1.0, -0.498, -0.498
    return signal.lfilter([1.0], loop, burst) * envelope(length, 0.001, 0.05, rate_hz)


def beaten(number: int, random: Random, rate_hz: int) -> np.ndarray:
    """A drum: a falling sine, noise, or both."""
    time = np.arange(int(0.35 * rate_hz)) / rate_hz
    noise = random.standard_normal(len(time))
    if number in (35, 36):
        sweep = 45 * time + random.uniform(2, 6) * (1 - np.exp(-time * 30))
        return np.sin(2 * np.pi * sweep) * np.exp(-time * random.uniform(8, 20)) * 1.5
    if number in (38, 39, 40):
        return (noise + np.sin(2 * np.pi * 190 * time)) * np.exp(-time * random.uniform(12, 30)) * 0.6
    bright = signal.sosfilt(signal.butter(2, random.uniform(0.3, 0.8), "high", output="sos"), noise)
    return bright * np.exp(-time * random.uniform(10, 80)) * 0.5


TONES = (bowed, swept, modulated, distorted)


def generated(
    random: Random, rate_hz: int = RATE_HZ, tones: tuple[Callable[..., np.ndarray], ...] = TONES
) -> np.ndarray:
    """A passage (2, N) of one generator: notes, drums, or a sweep of noise."""
    total = int(PASSAGE_SECONDS * rate_hz)
    kind, out = random.random(), np.zeros(total + rate_hz)
    if kind < 0.06:
        noise, time = random.standard_normal(total), np.linspace(0, 1, total)
        rise = time ** random.uniform(0.5, 4)
        out[:total] = noise * (rise if random.random() < 0.5 else 1 - rise) * 0.3
    elif kind < 0.25:
        for at, _, number, velocity in compose("drums", random):
            hit = beaten(number, random, rate_hz) * velocity / 100
            out[int(at * rate_hz) :][: len(hit)] += hit
    else:
        tone = tones[random.integers(len(tones))]
        part = str(random.choice(["chords", "pads", "bass", "lead"]))
        for at, length, number, velocity in compose(part, random):
            note = tone(hertz(number), int((length + 0.05) * rate_hz), random, rate_hz) * velocity / 300
            place = out[int(at * rate_hz) :]
            place[: len(note)] += note[: len(place)]
    out = out[:total] / max(0.3, np.abs(out).max())
    pan = 0.5 if random.random() < 0.5 else random.random()
    late = int(random.choice([0, 0, random.uniform(0.003, 0.02) * rate_hz]))  # a widened copy on one side
    return np.stack([out * np.cos(pan * np.pi / 2), np.roll(out, late) * np.sin(pan * np.pi / 2)]).astype(np.float32)


# -- sung lines ----------------------------------------------------------------------------------------------------
def sung(samples: np.ndarray, random: Random, rate_hz: int = RATE_HZ, pace: float = 1.0) -> np.ndarray:
    """A reader's passage, sung: each voiced stretch is held on a note with glide and vibrato, sometimes in harmony.

    With a `pace` above 1, notes last so much longer, and mouths are up to a fifth smaller or larger.
    """
    import pyworld

    speech = samples.astype(np.float64)
    f0, time = pyworld.dio(speech, rate_hz, f0_floor=60.0, f0_ceil=500.0, frame_period=1000 / FRAMES)
    f0 = pyworld.stonemask(speech, f0, time, rate_hz)
    spectrum = pyworld.cheaptrick(speech, f0, time, rate_hz)
    noise = pyworld.d4c(speech, f0, time, rate_hz)
    if pace > 1.0:
        bins = (np.arange(spectrum.shape[1]) * np.exp(random.uniform(-0.2, 0.2))).clip(0, spectrum.shape[1] - 1)
        spectrum = np.ascontiguousarray(spectrum[:, bins.astype(int)])
    voiced = f0 > 0
    if voiced.sum() < 20:
        return np.zeros(0, np.float32)
    centre = 12 * np.log2(np.median(f0[voiced]) / 440) + 69 + random.uniform(-4, 12)
    scale, degree = SCALES[random.integers(len(SCALES))], 0
    edges = np.flatnonzero(np.diff(voiced.astype(int), prepend=0, append=0))
    frames: list[np.ndarray] = []
    pitch: list[np.ndarray] = []
    last, done = None, 0
    for begin, end in zip(edges[::2], edges[1::2], strict=True):
        between = np.arange(done, begin)[-FRAMES // 3 :]
        frames.append(between), pitch.append(np.zeros(len(between)))
        done = end
        degree = int(np.clip(degree + random.integers(-3, 4), -5, 7))
        number = centre + 12 * (degree // 7) + scale[degree % 7]
        length = max(
            end - begin,
            int(pace * FRAMES * random.choice([0.15, 0.25, 0.4, 0.8, 1.5], p=[0.25, 0.3, 0.25, 0.15, 0.05])),
        )
        warp = np.linspace(0, 1, length)
        frames.append(begin + (warp ** random.uniform(0.7, 1.4) * (end - begin - 1)).astype(int))
        seconds = np.arange(length) / FRAMES
        curve = number + random.normal(0, 0.1) + np.cumsum(random.normal(0, 0.01, length))
        if random.random() < 0.6:
            depth = random.uniform(0.1, 0.9) * (seconds / 0.4).clip(0, 1)
            curve = curve + depth * np.sin(2 * np.pi * random.uniform(4.5, 7) * seconds)
        start = last if last is not None and len(between) < 5 else number - random.uniform(0, 2)
        pitch.append(curve + (start - number) * np.exp(-seconds / random.uniform(0.02, 0.08)))
        last = number
    index, notes = np.concatenate(frames), np.concatenate(pitch)
    sounding = notes > 0
    lines = [0.0] + ([float(random.choice([-12, -5, 3, 4, 7, 12]))] if random.random() < 0.25 else [])
    out = np.zeros(len(index) * rate_hz // FRAMES + 1)
    for count, interval in enumerate(lines):
        curve = np.where(sounding, 440.0 * 2 ** ((notes + interval - 69) / 12), 0.0).clip(0, 1100)
        late = np.roll(index, count * int(random.integers(-2, 3)))
        made = pyworld.synthesize(
            curve, np.ascontiguousarray(spectrum[late]), np.ascontiguousarray(noise[late]), rate_hz, 1000 / FRAMES
        )
        out[: len(made)] += made[: len(out)] * (1.0 if count == 0 else random.uniform(0.3, 0.9))
    return (out / max(0.05, np.abs(out).max()) * 0.9).astype(np.float32)


def stored(path: Path, pieces: list[np.ndarray]) -> None:
    """Write pieces in a row as 16-bit samples (channels, N)."""
    whole = np.concatenate([np.atleast_2d(piece) for piece in pieces], axis=1)
    np.save(path, (whole.clip(-1, 1) * 32767).astype(np.int16))
    print(path.name, f"{whole.shape[1] / RATE_HZ / 60:.0f} minutes", flush=True)


def main() -> None:
    """Make all parts that are not there yet."""
    parser = argparse.ArgumentParser(description="Make music and sung lines for the embedded separator.")
    parser.add_argument("recordings", type=Path, help="16 kHz FLAC, one for each reader")
    parser.add_argument("parts", type=Path, help="folder for what is made")
    parser.add_argument("--passages", type=int, default=80, help="of each part and soundfont")
    arguments = parser.parse_args()
    folder, random = arguments.parts, np.random.default_rng(7)
    folder.mkdir(parents=True, exist_ok=True)
    readers = sorted(arguments.recordings.glob("*.flac"))
    jobs: dict[str, Callable[[], list[np.ndarray]]] = {
        f"{part}_{font.stem}": lambda part=part, font=font: [played(part, font, arguments.passages, random)]
        for font in SOUNDFONTS
        for part in PROGRAMS
    }
    jobs["generated"] = lambda: [generated(random) for _ in range(2 * arguments.passages)]
    for name, begin, pace in (("sung", 0, 1.0), ("sung_slowly", 8, 2.2)):
        jobs[name] = lambda begin=begin, pace=pace: [
            sung(soundfile.read(path, dtype="float32")[0][begin * RATE_HZ :][: 10 * RATE_HZ], random, pace=pace)
            for number, path in enumerate(readers)
            if number % 10
        ]
    for name, job in jobs.items():
        if not (path := folder / f"{name}.npy").exists():
            stored(path, job())


if __name__ == "__main__":
    main()
