"""A song in, the song sung by a voice out: separate, convert the vocals, mix. Every stem is kept."""

import hashlib
import itertools
import math
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from typing_extensions import TypedDict

from ..audio.blocks import open_blocks
from ..audio.lazy import at_rate, blocks_of
from ..audio.loudness import Loudness, measured
from ..audio.mixing import (
    SILENT_PEAK,
    Stem,
    lag_seconds,
    lost_db,
    loudness_lufs,
    open_stem,
    part_of,
    peak,
    read_loudest,
    reverberated,
    rms_db,
    room_between,
    transposed,
    true_peak_db,
    true_peak_of,
)
from ..audio.tracks import comment_of
from ..audio.waveform import Audio, header_seconds, save_channels
from ..errors import AudioError
from ..progress import Progress, Report, Silent
from ..settings import ConvertSettings, SeparateSettings
from ..song_settings import SongSettings
from ..system.documents import read_or
from ..system.files import ensure_room, folder_atomically, readable, remove_leftovers, sha256_of, signature, write_json
from .convert import Converter
from .in_parts import LONG_SECONDS, convert_in_parts
from .naming import refuse_song
from .outputs import made_of, tag_of
from .song_stems import SongStems, separated

PREVIEW_SECONDS = 30.0
_VERSION = 1  # of what is written: another one makes songs anew
_REPORT, _SEPARATED = "song.json", "separated"
_SMALLEST_LAG, _LARGEST_LAG = 0.001, 0.005  # seconds: within the measurement's error; too much to leave unsaid
_MOST_GAIN_DB = 40.0
_CODEC_SECONDS, _CODEC_DB = 0.2, 0.1  # what a lossy codec may add
_PARTED = " | "  # between notes in a comment
_STEM_BYTES = 3 * 6  # of a sample in the stems of a song


@dataclass(frozen=True)
class Singer:
    """A voice and its name."""

    name: str
    converter: Converter


@dataclass(frozen=True)
class Singers:
    """Who sings what; without a voice of their own the backing vocals stay as they are."""

    lead: Singer
    backing: Singer | None = None

    @property
    def all(self) -> dict[str, Singer]:
        """By part."""
        return {"lead": self.lead} | ({"backing": self.backing} if self.backing else {})

    @property
    def name(self) -> str:
        """Of the song's result."""
        return "+".join(dict.fromkeys(readable(singer.name) for singer in self.all.values()))


@dataclass(frozen=True)
class SongReport(Report):
    """What was made of a song.

    Attributes
    ----------
    song : str
        What was sung; of a preview, the excerpt.
    output : str
        The mix. Its folder holds the stems and this report.
    stems : list of dict
        Of each: ``file``, ``part``, ``converted``, ``in_mix``, ``loudness_lufs``.
    voices, transpose, alignment_ms : dict
        By part: name of the voice, semitones, by how much it is later than the original (None: cannot be told).
    levels : dict
        Loudness in LUFS: ``original_vocals``, ``vocals``, ``accompaniment``, ``mix``; ``true_peak_db`` of the mix;
        ``vocals_gain_db`` and ``stems_gain_db``, which the stems have already.
    made_of : str
        Of the song, voices and settings: an equal one makes an equal song.
    skipped : bool
        Whether an earlier run had made all of it.
    """

    song: str
    output: str
    seconds: float
    sample_rate_hz: int
    stems: list[dict[str, Any]]
    voices: dict[str, str]
    transpose: dict[str, float]
    alignment_ms: dict[str, float | None]
    levels: dict[str, float]
    models: dict[str, str]
    settings: dict[str, Any]
    warnings: list[str]
    made_of: str
    skipped: bool = False


class _Converted(TypedDict):
    transpose: float
    warnings: list[str]


@dataclass
class _Mix:
    """A mix while it is made: stems by their titles, louder by `boost_db` than the song, and what is told of them."""

    stems: dict[str, Stem] = field(default_factory=dict)
    converted: set[str] = field(default_factory=set)
    transpose: dict[str, float] = field(default_factory=dict)
    alignment_ms: dict[str, float | None] = field(default_factory=dict)
    levels: dict[str, float] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)
    boost_db: float = 0.0


def make_song(
    song: Path,
    output: Path,
    singers: Singers,
    settings: SongSettings = SongSettings(),
    convert: ConvertSettings = ConvertSettings(),
    separate: SeparateSettings = SeparateSettings(),
    *,
    progress: Progress = Silent(),
) -> SongReport:
    """Let a voice sing a song. What an earlier run has done is not done again.

    Parameters
    ----------
    output : Path
        Folder. Each song gets a folder in it; ``separated`` keeps the stems for other voices.
    convert : ConvertSettings
        ``transpose`` ``auto`` moves the vocals by whole octaves; format, depth and rate are the mix's.

    Raises
    ------
    AudioError, WeightsError
        When the song cannot be read, or has no vocals; when no model separates what a second voice is to sing.
    """
    refuse_song(output, convert, settings, has_backing=singers.backing is not None)
    title = readable(song.stem) + ("_preview" if settings.preview else "")
    digest = sha256_of(song) if song.is_file() else ""
    work = output / _SEPARATED / f"{title}-{digest[:8]}"
    remove_leftovers(output, progress)  # those of its stems go with them
    source, notes = _excerpt(song, work) if settings.preview else (song, [])
    stems = separated(
        source,
        work,
        (separate, singers.lead.converter.runtime),
        backing=settings.vocals == "lead" or singers.backing is not None,
        second=singers.backing.name if singers.backing else "",
        dereverb=settings.dereverb,
        progress=progress,
    )
    if not stems.backing:
        singers = Singers(singers.lead)
    chosen = {name: one.stamp() for name, one in (("song", settings), ("convert", convert), ("separate", separate))}
    voices, name = {part: one.converter.identity for part, one in singers.all.items()}, f"{title}_{singers.name}"
    stamp = signature([_VERSION, digest, stems.models, chosen, voices])
    folder, known = _place(output, name, stamp)
    if known:
        return known
    mix = _sung(stems, work, singers, settings, convert, progress)
    _levelled(mix, stems, settings)
    told = [f"{name} holds something else, and was kept"] if folder.name != name else []
    mix.warnings[:0] = notes + stems.notes + told
    report = SongReport(
        str(source), "", 0.0, 0, [], {part: singer.name for part, singer in singers.all.items()}, mix.transpose,
        mix.alignment_ms, mix.levels, stems.models, chosen, mix.warnings, stamp,
    )  # fmt: skip
    report = _written(mix, folder, report, settings.peak_db, convert)
    for leftover in work.glob("converted-*"):
        leftover.unlink()
    return report


def _excerpt(song: Path, work: Path) -> tuple[Path, list[str]]:
    """The loudest half minute of a song, as a file of its own, and what is to know of the whole song."""
    file = work / f"excerpt of {readable(song.stem)}.flac"
    if not file.is_file():
        part, notes = read_loudest(song, PREVIEW_SECONDS)
        if peak(part) < SILENT_PEAK:
            raise AudioError(f"{song.name!r} is silent", hint="choose a song with sound in it")
        part.save(file, comment=_PARTED.join(notes))
    return file, [note for note in comment_of(file).split(_PARTED) if note]


def _place(output: Path, name: str, stamp: str) -> tuple[Path, SongReport | None]:
    """The folder of a result, and its report if it is there and whole; other results keep their folders."""
    for number in itertools.count(1):
        folder = output / (name if number == 1 else f"{name} ({number})")
        if not os.path.lexists(folder):
            return folder, None
        known = read_or(folder / _REPORT, SongReport, None)
        if known and known.made_of == stamp:
            files = [Path(known.output).name, *(stem["file"] for stem in known.stems)]
            if all(header_seconds(folder / file) > 0.9 * known.seconds for file in files):  # there, and whole
                return folder, replace(known, output=str(folder / files[0]), skipped=True)
    raise AssertionError("count ends")


def _sung(
    stems: SongStems,
    work: Path,
    singers: Singers,
    settings: SongSettings,
    convert: ConvertSettings,
    progress: Progress,
) -> _Mix:
    """All parts of the vocals, converted or as they are, each as loud as it was."""
    mix, key = _Mix(boost_db=stems.boost_db), settings.key_semitones
    title = "vocals lead" if stems.backing else "vocals"
    mix.stems[title] = _converted(mix, "lead", stems.lead, singers.lead, work, (convert, key, progress))
    mix.converted.add(title)
    if stems.reverb and settings.reverb:
        lead, reverb = (open_stem(path, mix.boost_db) for path in (stems.lead, stems.reverb))
        level_db = rms_db(reverb) - rms_db(lead)
        mix.stems["vocals reverb"] = reverberated(mix.stems[title], room_between(lead, reverb), level_db)
        mix.converted.add("vocals reverb")
    if stems.backing:
        if singer := singers.backing or (singers.lead if settings.vocals == "all" else None):
            backing = _converted(mix, "backing", stems.backing, singer, work, (convert, key, progress))
            mix.converted.add("vocals backing")
        else:
            backing = transposed(open_stem(stems.backing, mix.boost_db), key)
        mix.stems["vocals backing"] = backing
    return mix


def _converted(
    mix: _Mix, part: str, path: Path, singer: Singer, work: Path, how: tuple[ConvertSettings, int, Progress]
) -> Stem:
    """A part in another voice: in time, silent where the part is, in its place between the speakers, as loud."""
    (convert, key, progress), stem = how, open_stem(path, mix.boost_db)
    rated = convert.model_copy(update={"output_rate_hz": stem.sample_rate, "output_depth": "auto"})
    sound = hashlib.sha256()
    for block in blocks_of(stem.samples):  # not the file, which holds the time of day
        sound.update(block.tobytes())
    nothing = Audio(np.zeros(0, np.float32), stem.sample_rate)
    digits = signature([made_of(singer.converter.identity, nothing, rated), sound.hexdigest(), key])
    kept = work / f"converted-{digits}.flac"
    told = read_or(kept.with_suffix(".json"), _Converted, None)
    if told is None or not kept.is_file():
        kept.unlink(missing_ok=True)
        told = _convert_to(kept, stem, singer.converter, rated, key, progress)
        write_json(kept.with_suffix(".json"), told)
    source, audio = stem.folded, open_stem(kept).folded
    lag = lag_seconds(audio, source)
    made = part_of(audio, source, stem, lag if lag and abs(lag) >= _SMALLEST_LAG else 0.0)
    left = lag_seconds(made.folded, source)
    mix.alignment_ms[part] = None if left is None else round(1000 * left, 2)
    mix.transpose[part] = told["transpose"]
    mix.warnings += told["warnings"]
    if left is None or abs(left) >= _LARGEST_LAG:
        mix.warnings.append(f"the converted {part} may be out of time: listen to it beside the original")
    return made.gained(_gain_db(loudness_lufs(stem), made))


def _convert_to(
    kept: Path, stem: Stem, converter: Converter, settings: ConvertSettings, key: int, progress: Progress
) -> _Converted:
    """Convert a part of the vocals to a file; a long one in parts."""
    if stem.seconds > LONG_SECONDS:
        source = kept.with_suffix(".wav")
        save_channels(source, stem.folded.samples.columns(), stem.sample_rate, depth="32")
        made = convert_in_parts(converter, source, kept, settings, key_semitones=key, progress=progress)
    else:
        made = converter.convert(stem.mono, settings, key_semitones=key, progress=progress)
        made.audio.save(kept)
    return _Converted(transpose=made.transpose, warnings=made.warnings)


def _gain_db(target_lufs: float, stem: Stem) -> float:
    return max(-_MOST_GAIN_DB, min(_MOST_GAIN_DB, target_lufs - loudness_lufs(stem)))


def _levelled(mix: _Mix, stems: SongStems, settings: SongSettings) -> None:
    """Add accompaniment and original; set the vocals' level, and that of all stems so that nothing clips."""
    original, music = open_stem(stems.vocals, mix.boost_db), None
    if stems.accompaniment:
        music = open_stem(stems.accompaniment, mix.boost_db)
        lost = lost_db(original, music), lost_db(music, original)
        original, music = original.gained(lost[0]), transposed(music, settings.key_semitones).gained(lost[1])
    levels = {"original_vocals": loudness_lufs(original)} | ({"accompaniment": loudness_lufs(music)} if music else {})
    target = levels["original_vocals"]
    if settings.vocals_db != "auto" and music:
        target = levels["accompaniment"] + settings.vocals_db
    gain = _gain_db(target, _sum(mix.stems.values()))
    mix.stems = {title: stem.gained(gain) for title, stem in mix.stems.items()}
    levels["vocals"] = loudness_lufs(_sum(mix.stems.values()))
    if music:
        mix.stems["accompaniment"] = music
    peaks = [20 * math.log10(max(peak(stem), 1e-9)) for stem in mix.stems.values()]
    lower = min(
        0.0, settings.peak_db - true_peak_db(_sum(mix.stems.values())) + mix.boost_db, mix.boost_db - max(peaks)
    )
    lower -= mix.boost_db
    mix.stems = {title: stem.gained(lower) for title, stem in (mix.stems | {"original vocals": original}).items()}
    mix.levels = {name: value + lower for name, value in levels.items()}
    mix.levels |= {"vocals_gain_db": gain, "stems_gain_db": lower + mix.boost_db}


def _sum(stems: Any) -> Stem:
    first, *others = stems
    for stem in others:
        first = first + stem
    return first


def _written(mix: _Mix, folder: Path, report: SongReport, peak_db: float, convert: ConvertSettings) -> SongReport:
    """Write stems, mix and report into a folder that appears when all are there and were read again."""
    whole = _sum(stem for title, stem in mix.stems.items() if title != "original vocals")
    length, channels = whole.samples.shape
    ensure_room(folder.parent, length * channels * _STEM_BYTES, is_output=True)
    tag, name = tag_of("+".join(report.voices.values()), report.made_of), f"{folder.name}.{convert.output_format}"
    rows = []
    with folder_atomically(folder) as hidden:
        for number, (title, stem) in enumerate(mix.stems.items(), start=1):
            is_converted = title in mix.converted
            file = f"{number:02} {title}{' converted' if is_converted else ''}.flac"
            stem.save(hidden / file, comment=tag if is_converted else "")
            written = open_stem(hidden / file)
            if written.samples.shape != (length, channels):
                raise AudioError(f"{file} was not written as a whole", hint="run the same command again")
            rows.append(
                {
                    "file": file,
                    "part": title,
                    "converted": is_converted,
                    "in_mix": title != "original vocals",
                    "loudness_lufs": round(measured(written.samples, written.sample_rate).lufs(-mix.boost_db), 2),
                }
            )
        levels = _write_mix(whole, hidden / name, tag, (peak_db, mix.boost_db), convert)
        report = replace(
            report,
            output=name,
            seconds=round(whole.seconds, 3),
            sample_rate_hz=whole.sample_rate,
            stems=rows,
            levels={key: round(value, 2) for key, value in (report.levels | levels).items()},
        )
        write_json(hidden / _REPORT, report.as_json())
    return replace(report, output=str(folder / name))


def _write_mix(
    mix: Stem, file: Path, tag: str, wanted: tuple[float, float], convert: ConvertSettings
) -> dict[str, float]:
    """Write the mix and measure what was written; a codec that raises the peak gets less."""
    peak_db, boost_db = wanted
    if convert.output_rate_hz:
        mix = Stem(at_rate(mix.samples, mix.sample_rate, convert.output_rate_hz), convert.output_rate_hz)
    for _ in range(3):
        mix.save(file, comment=tag, depth=convert.output_depth)
        with open_blocks(file) as reader:
            meter, lengths = Loudness(reader.sample_rate_hz), list[int]()
            true_peak = true_peak_of(_metered(reader, meter, lengths))
        if true_peak <= peak_db + _CODEC_DB:
            break
        mix = mix.gained(peak_db - true_peak)
    if abs(sum(lengths) / reader.sample_rate_hz - mix.seconds) > _CODEC_SECONDS:
        raise AudioError(f"{file.name} was not written as a whole", hint="set `output_format` to wav")
    return {"mix": meter.lufs(-boost_db), "true_peak_db": true_peak}


def _metered(blocks: Iterable[np.ndarray], meter: Loudness, lengths: list[int]) -> Iterator[np.ndarray]:
    """Blocks (C, n) as (n, C), counted and their loudness measured on the way."""
    for block in blocks:
        meter.add(block.T)
        lengths.append(block.shape[1])
        yield block.T
