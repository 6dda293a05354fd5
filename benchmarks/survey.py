"""How right the survey is: defects of known size in recordings of people, its figures and findings against them.

VOICES has a folder of sentences for each person. Limits were chosen on TUNED people; the tables are of all others.
Music is that of `benchmarks/separation.py`; espeak-ng adds a synthesised speaker to both sides::

    python benchmarks/survey.py VOICES                    # figures, findings and false alarms
    python benchmarks/survey.py VOICES --hour             # time and memory of an hour in files of five minutes
"""

import argparse
import io
import json
import resource
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import soundfile
import soxr
from scipy.signal import butter, fftconvolve, sosfiltfilt

from rvc_core.audio.quality import Quality, measure
from rvc_core.audio.slicer import own_silence_db
from rvc_core.audio.tracks import opposed_db
from rvc_core.audio.waveform import Audio, frame_rms, read_audio
from rvc_core.preparation.duplicates import duplicates, print_of
from rvc_core.preparation.findings import findings_of
from rvc_core.preparation.people import strangers, windows_of

FOLDERS = {
    "enrico": "targets/enrico",
    "lj": "targets/lj",
    "gd": "targets/gd",
    "p226": "sources/vctk/p226*",
    "p228": "sources/vctk/p228*",
    "austen": "sources/austen",
    "jackson": "sources/digits",
    "jfk": "sources/jfk",
    **{name: f"long/{name}" for name in ("ca", "fr", "pt", "sl")},
}
TUNED = {"enrico", "lj", "p226", "austen", "ca", "pt", "espeak en"}
SECONDS, EACH = 20.0, 3  # of a recording, and how many of a person
TEXTS = {
    "en": (
        "The north wind and the sun were disputing which was the stronger. A traveller came along, wrapped in a cloak.",
        "When the sunlight strikes raindrops in the air, they act as a prism and form a rainbow of beautiful colours.",
    ),
    "pt": (
        "O vento norte e o sol discutiam qual dos dois era o mais forte. Passou um viajante envolto em uma capa.",
        "Quando a luz do sol atinge as gotas de chuva, elas formam um arco de muitas cores bonitas no céu da tarde.",
    ),
}
Random = np.random.Generator


class Defect(NamedTuple):
    """A defect: the finding it should make, its levels, which of them harm, how it is planted, what is estimated."""

    measure: str
    unit: str
    levels: tuple[float, ...]
    harms: Callable[[float], bool]
    plant: Callable[[Audio, float, Random], np.ndarray]
    estimate: Callable[[Quality, float], float]
    source: str


# -- recordings ----------------------------------------------------------------------------------------------------
def sentences(voices: Path, person: str) -> list[Path]:
    """The files of a person."""
    pattern = FOLDERS[person] if "*" in FOLDERS[person] else f"{FOLDERS[person]}/*"
    return sorted(path for path in voices.glob(pattern) if path.suffix in (".flac", ".ogg"))


def originals(voices: Path) -> Iterator[tuple[str, Audio]]:
    """Person and recording: sentences in a row."""
    for person in FOLDERS:
        made, parts = 0, list[Audio]()
        files = sentences(voices, person)
        for path in files:
            parts.append(read_audio(path))
            if sum(part.seconds for part in parts) >= SECONDS or path == files[-1]:
                yield person, Audio(np.concatenate([part.samples for part in parts]), parts[0].sample_rate)
                made, parts = made + 1, []
            if made == EACH:
                break
    for language, texts in TEXTS.items():
        for text in texts:
            with tempfile.TemporaryDirectory() as folder:
                subprocess.run(["espeak-ng", "-v", language, "-w", f"{folder}/a.wav", text], check=True)
                samples, rate = soundfile.read(f"{folder}/a.wav", dtype="float32")
            floor = 1e-4 * np.random.default_rng(0).standard_normal(len(samples)).astype(np.float32)
            yield f"espeak {language}", Audio(0.5 * samples + floor, rate)


# -- defects -------------------------------------------------------------------------------------------------------
def spoken_rms(audio: Audio) -> float:
    """Level of the speech without pauses: what levels of noise and music are relative to."""
    rms = frame_rms(audio.samples, round(0.015 * audio.sample_rate), 4)
    return float(np.sqrt(np.mean(rms[rms >= 10 ** (own_silence_db(rms, -42) / 20)] ** 2)))


def _added(audio: Audio, sound: np.ndarray, level_db: float) -> np.ndarray:
    return audio.samples + sound * spoken_rms(audio) * 10 ** (level_db / 20) / sound.std()


def _noisy(audio: Audio, snr_db: float, random: Random) -> np.ndarray:
    noise = np.fft.rfft(random.standard_normal(len(audio.samples)))
    if random.random() < 0.5:  # pink
        noise[1:] /= np.sqrt(np.arange(1, len(noise)))
    return _added(audio, np.fft.irfft(noise, len(audio.samples)), -snr_db)


def _clipped(audio: Audio, percent: float, random: Random) -> np.ndarray:
    limit = np.quantile(np.abs(audio.samples), 1 - percent / 100)
    return audio.samples.clip(-limit, limit)


def _low_passed(audio: Audio, khz: float, random: Random) -> np.ndarray:
    rate = audio.sample_rate
    return soxr.resample(soxr.resample(audio.samples, rate, 2000 * khz), 2000 * khz, rate)


def _in_a_room(audio: Audio, rt60: float, random: Random) -> np.ndarray:
    length = round(1.2 * rt60 * audio.sample_rate)
    room = random.standard_normal(length) * 10 ** (-3 * np.arange(length) / audio.sample_rate / rt60)
    room[: round(0.003 * audio.sample_rate)] = 0
    room *= random.uniform(0.8, 1.4) / np.sqrt((room**2).sum())  # as loud as the direct sound, within 3 dB
    room[0] = 1
    return fftconvolve(audio.samples, room)[: len(audio.samples)]


def _stepped(audio: Audio, step_db: float, random: Random) -> np.ndarray:
    at = round(random.uniform(0.35, 0.65) * len(audio.samples))
    return np.concatenate([audio.samples[:at], audio.samples[at:] * 10 ** (-step_db / 20)])


def _humming(audio: Audio, level_db: float, random: Random) -> np.ndarray:
    time_ = np.arange(len(audio.samples)) / audio.sample_rate
    mains_hz = random.choice([50.0, 60.0])
    lines = sum(np.sin(2 * np.pi * mains_hz * order * time_ + order) / order for order in (1, 2, 3, 5))
    return _added(audio, np.asarray(lines), level_db)


def _accompanied(audio: Audio, level_db: float, random: Random) -> np.ndarray:
    band = soxr.resample(_band(int(random.integers(3))), 44_100, audio.sample_rate)
    return _added(audio, np.resize(band, len(audio.samples)), level_db)


@cache
def _band(number: int) -> np.ndarray:
    from separation import music

    return music(number)[1].mean(axis=0)


def _opposed(audio: Audio, share: float, random: Random) -> np.ndarray:
    other = sosfiltfilt(butter(2, [200, 3000], "bandpass", fs=audio.sample_rate, output="sos"), audio.samples)
    return np.stack([audio.samples, -share * audio.samples - (1 - share) * 0.3 * other], axis=1)


DEFECTS = {
    "noise": Defect(
        "noise", "SNR dB", (60, 40, 30, 25, 20, 15, 10, 0), lambda db: db <= 25, _noisy, lambda q, _: q.snr_db,
        "benchmarks/harm.py",
    ),
    "clipping": Defect(
        "clipping", "%", (0.01, 0.1, 0.5, 2, 5), lambda percent: percent >= 1, _clipped,
        lambda q, _: 100 * q.clipped_share, "benchmarks/harm.py",
    ),
    "low-pass": Defect(
        "bandwidth", "kHz", (4, 8, 11, 16, 20), lambda khz: khz < 13, _low_passed,
        lambda q, _: q.bandwidth_hz / 1000, "Hi-Fi TTS (2021) leaves out what is below 13 kHz",
    ),
    "room": Defect(
        "reverb", "RT60 s", (0.1, 0.3, 0.5, 0.7, 1.0, 1.5), lambda rt60: rt60 >= 0.3, _in_a_room,
        lambda q, _: q.reverb_seconds, "benchmarks/harm.py",
    ),
    "loudness step": Defect(
        "evenness", "dB", (3, 6, 9, 12), lambda db: db >= 6, _stepped, lambda q, _: q.step_db, "our choice"
    ),
    "hum": Defect(
        "hum", "dB", (-60, -40, -30, -20), lambda db: db >= -30, _humming, lambda q, _: q.hum_db - q.level_db,
        "our choice",
    ),
    "music": Defect(
        "accompaniment", "dB", (-30, -25, -20, -15, -10, 0), lambda db: db >= -25, _accompanied,
        lambda q, _: q.pause_flatness, "benchmarks/harm.py",
    ),
    "opposite phase": Defect(
        "phase", "share", (1.0, 0.8), lambda share: True, _opposed, lambda _, opposed: opposed,
        "the channels' mean loses half or more",
    ),
}  # fmt: skip


def measured(samples: np.ndarray, rate: int) -> tuple[Quality, float, set[str]]:
    """Figures, opposition of the channels, and the measures that are not green."""
    channels = samples.astype(np.float32).reshape(len(samples), -1)
    opposed = opposed_db(channels)
    quality = measure(Audio(np.ascontiguousarray(channels[:, 0]), rate))
    found = {one.measure for one in findings_of(quality, rate, opposed) if one.colour != "green"}
    return quality, opposed, found


def tables(voices: Path) -> dict[str, Any]:
    """Rows of each defect and level: estimates and share found, of tuned and of other people."""
    people = [*originals(voices)]
    alarms = {person: [] for person, _ in people}
    own: list[set[str]] = []  # what the untouched recordings have already
    for person, audio in people:
        _, _, found = measured(audio.samples, audio.sample_rate)
        own.append(found)
        alarms[person].append(sorted(found))
    rows = []
    for name, defect in DEFECTS.items():
        for level in defect.levels:
            for number, (person, audio) in enumerate(people):
                if name == "low-pass" and audio.sample_rate < 44_100 or defect.measure in own[number]:
                    continue
                made = defect.plant(audio, level, np.random.default_rng(number))
                loudest = max(1.0, float(np.abs(made).max()))
                rate = audio.sample_rate
                quality, opposed, found = measured(made / loudest, rate)
                rows.append(
                    {
                        "defect": name,
                        "level": level,
                        "person": person,
                        "estimate": round(defect.estimate(quality, opposed), 3),
                        "found": defect.measure in found,
                        "others": sorted(found - own[number] - {defect.measure}),
                    }
                )
            ours = [row for row in rows if row["defect"] == name and row["level"] == level]
            print(told(name, level, defect, ours), flush=True)
    return {"alarms": alarms, "rows": rows}


def told(name: str, level: float, defect: Defect, rows: list[dict[str, Any]]) -> str:
    """A line of the table, of people that nothing was tuned on."""
    ours = [row for row in rows if row["person"] not in TUNED]
    low, median, high = np.quantile([row["estimate"] for row in ours], (0.05, 0.5, 0.95))
    found = 100 * np.mean([row["found"] for row in ours])
    tuned = 100 * np.mean([row["found"] for row in rows if row["person"] in TUNED])
    harm = "harms" if defect.harms(level) else ""
    return (
        f"| {name} | {level:g} {defect.unit} | {harm} | {median:.2f} ({low:.2f} to {high:.2f}) | "
        f"{found:.0f} % | {tuned:.0f} % | {len(ours)} |"
    )


# -- between recordings --------------------------------------------------------------------------------------------
def speakers(voices: Path) -> None:
    """Print how much of a second speaker is found, with each person as the first and as the second."""
    people: dict[str, dict[str, Any]] = {}
    for person in FOLDERS:
        files = sentences(voices, person)[:40]
        people[person] = {f"{person} {path.stem}": windows_of(read_audio(path)) for path in files}
    for person, own in people.items():
        strange = sum(len(one.seconds) for one in strangers(own).values())
        print(f"alone: {person}: {strange} of {sum(len(one.seconds) for one in own.values())} windows strange")
    for share in (0.1, 0.3, 0.5, 0.7, 0.9):
        errors = []
        for first, second in ((one, other) for one in people for other in people if one != other):
            if "fr" in (first, second) or {first, second} <= TUNED:  # fr holds two voices
                continue
            mixed, sizes = {}, {}
            for person, wanted in ((first, 1 - share), (second, share)):
                total = 0
                for name, windows in people[person].items():
                    if total >= 60 * wanted:
                        break
                    mixed[name], total = windows, total + len(windows.seconds)
                sizes[person] = total
            if min(sizes.values()) < 0.5 * 60 * min(share, 1 - share):
                continue
            truth = min(sizes.values()) / sum(sizes.values())
            errors.append((sum(len(one.seconds) for one in strangers(mixed).values()) / sum(sizes.values()), truth))
        made = np.array(errors)
        found = 100 * np.mean(made[:, 0] > made[:, 1] / 2)
        print(f"| {share:.0%} | {100 * np.abs(made[:, 0] - made[:, 1]).max():.1f} % | {found:.0f} % | {len(made)} |")


def copies(voices: Path) -> None:
    """Print how many duplicates are found, by what was done to them, and how many are named that are none."""
    people = [*originals(voices)]
    known = {f"{person} {number}": print_of(audio) for number, (person, audio) in enumerate(people)}
    before = {(one.one, one.other) for one in duplicates(known)}
    print("in the recordings themselves:", sorted(before))
    ways: dict[str, Callable[[Audio], Audio]] = {
        "10 dB quieter": lambda audio: Audio(0.316 * audio.samples, audio.sample_rate),
        "MP3, 48 kbit/s": _mp3,
        "16 kHz": lambda audio: audio.resample(16_000),
        "a cut of 5 s": lambda audio: audio[3.123:8.123],
        "a cut of 2 s": lambda audio: audio[4.0137:6.0137],
        "a cut of 4 s as MP3": lambda audio: _mp3(audio[2.0417:6.0417]),
        "in noise, 20 dB": lambda audio: Audio(
            _noisy(audio, 20, np.random.default_rng(0)).astype(np.float32), audio.sample_rate
        ),
    }
    for way, changed in ways.items():
        made = {f"copy of {name}": print_of(changed(audio)) for name, (_, audio) in zip(known, people, strict=True)}
        found = {(one.one, one.other) for one in duplicates({**known, **made})}
        right = {(name, f"copy of {name}") for name in known}
        wrong = {
            pair
            for pair in found - right
            if {name.removeprefix("copy of ") for name in pair} not in [{*one} for one in before]
        }
        print(f"| {way} | {100 * len(found & right) / len(right):.0f} % of {len(right)} | {len(wrong)} |", flush=True)


def _mp3(audio: Audio) -> Audio:
    import av

    target = io.BytesIO()
    with av.open(target, "w", format="mp3") as container:
        stream: Any = container.add_stream("libmp3lame", rate=audio.sample_rate, layout="mono", bit_rate=48_000)
        for start in range(0, len(audio.samples), 1 << 16):
            block = audio.samples[None, start : start + (1 << 16)].clip(-1, 1)
            frame = av.AudioFrame.from_ndarray(block, format="fltp", layout="mono")
            frame.sample_rate, frame.pts = audio.sample_rate, start
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    target.seek(0)
    samples, rate = soundfile.read(target, dtype="float32")
    return Audio(samples, rate)


# -- time and memory --------------------------------------------------------------------------------------------------
def hour(voices: Path) -> None:
    """Print the processor time and the memory of an hour, in twelve files of five minutes."""
    from rvc_core.preparation.survey import inspect

    with tempfile.TemporaryDirectory() as folder:
        number, parts, total = 0, list[np.ndarray](), 0
        for person in ("fr", "pt", "ca", "sl", "gd", "enrico", "lj") * 2:
            for path in sentences(voices, person):
                parts.append(read_audio(path, 44_100).samples)
                total += len(parts[-1])
                if total >= 300 * 44_100 and number < 12:
                    soundfile.write(f"{folder}/{number}.wav", np.concatenate(parts), 44_100)
                    number, parts, total = number + 1, [], 0
        print(f"{number} files; before: {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024:.0f} MiB")
        parts.clear()
        began, wall = time.process_time(), time.monotonic()
        report = inspect(folder)
        print(f"{report.minutes:.1f} minutes: {time.process_time() - began:.0f} s of processor, ", end="")
        print(f"{time.monotonic() - wall:.0f} s, {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024:.0f} MiB")
        print(report)


def main() -> None:
    """Measure what was asked for."""
    parser = argparse.ArgumentParser(description="Compare the survey's figures with defects of known size.")
    parser.add_argument("voices", type=Path)
    parser.add_argument("--hour", action="store_true")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    if arguments.hour:
        hour(arguments.voices)
    else:
        made = tables(arguments.voices)
        for person, found in made["alarms"].items():
            print(f"untouched: {person}{' (tuned)' if person in TUNED else ''}: {found}")
        speakers(arguments.voices)
        copies(arguments.voices)
        if arguments.json:
            arguments.json.write_text(json.dumps(made, indent=1))


if __name__ == "__main__":
    main()
