"""Repair recordings before training: copies in which accompaniment, reverb, noise, hum and offset are gone.

Each repair is made only where a measurement asks for it. The originals stay as they are.
"""

import contextlib
import os
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from typing_extensions import TypedDict

from ..audio.loudness import SILENT_LUFS, measured
from ..audio.mixing import Stem, loudness_lufs, read_stem, true_peak_db
from ..audio.quality import Hum, Quality, hum, measure
from ..audio.recordings import find_recordings
from ..audio.tracks import opposed_db
from ..audio.waveform import read_recording
from ..errors import AudioError, RVCError, SettingsError, WeightsError
from ..progress import Progress, Report, Silent, counted
from ..separation.heard import DOUBTFUL_DB, balance
from ..separation.models import chosen
from ..separation.separate import separate
from ..settings import RuntimeSettings, SeparateSettings
from ..system.documents import Digest, read_or
from ..system.files import numbered, remove_leftovers, replace_atomically, sha256_of, signature, write_json
from ..system.inside import copy_inside, is_regular
from .findings import UNEVEN_DB, findings_of

_REPORT = "repair.json"
_UNHEARD_DB = 30.0  # an accompaniment so far below the vocals is what leaks
_LOUDEST_LUFS, _QUIETEST_LUFS, _PEAK_DB = -16.0, -30.0, -1.0
_HUM_WIDTH_HZ = 3.0
_SPEECH_SECONDS = 60.0  # of a recording are enough to tell whether somebody speaks
_REPAIRED = ("phase", "offset", "hum", "accompaniment", "reverb", "noise")
_NO_SPEECH = "no speech was found: it was copied as it is"


@dataclass(frozen=True)
class Figures:
    """What a recording is like; `accompaniment_db` is that of the loudness against the voice, None: not measured."""

    loudness_lufs: float
    snr_db: float
    reverb_seconds: float
    hum_db: float | None
    offset: float
    accompaniment_db: float | None = None


@dataclass(frozen=True)
class Repaired:
    """One recording: its copy with its hash, what was repaired, figures before and after, what could not be done."""

    recording: str
    sha256: Digest
    output: str
    repairs: list[str]
    before: Figures
    after: Figures
    warnings: list[str] = field(default_factory=list)
    output_sha256: str = ""  # of older copies this and the models and settings are unknown
    made_by: str = ""


class _Known(TypedDict):
    recordings: list[Repaired]


@dataclass(frozen=True)
class RepairReport(Report):
    """A dataset, repaired; `failed`: recordings that could not be read, and why; `removed`: copies of older ones."""

    output: str
    recordings: list[Repaired]
    failed: list[dict[str, str]]
    removed: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        repaired = sum(bool(one.repairs) for one in self.recordings)
        lines = [
            f"{repaired} of {counted(len(self.recordings) + len(self.failed), 'recording')} repaired, "
            f"{len(self.recordings) - repaired} copied, {len(self.failed)} not read: {self.output}",
            f"{'recording':<28} {'loudness LUFS':>17} {'above noise dB':>17} {'reverb s':>15} {'hum dB':>15}  repairs",
        ]
        for one in self.recordings:
            pairs = [f"{_shown(was)} → {_shown(now)}" for was, now in _pairs(one)]
            cells = " ".join(f"{pair:>{width}}" for pair, width in zip(pairs, (17, 17, 15, 15), strict=True))
            lines.append(f"{one.recording[-28:]:<28} {cells}  {', '.join(one.repairs) or 'none'}")
            lines += [f"    {warning}" for warning in one.warnings]
        lines += [f"{one['recording']}: {one['error']}" for one in self.failed]
        return "\n".join([*lines, *(f"removed {name}: its recording is gone or changed" for name in self.removed)])


def _pairs(one: Repaired) -> list[tuple[float | None, float | None]]:
    names = ("loudness_lufs", "snr_db", "reverb_seconds", "hum_db")
    return [(getattr(one.before, name), getattr(one.after, name)) for name in names]


def _shown(value: float | None) -> str:
    return "none" if value is None else f"{value:.1f}"


def repair(
    dataset: Path | str,
    output: Path | str,
    separation: SeparateSettings = SeparateSettings(),
    *,
    runtime: RuntimeSettings = RuntimeSettings(),
    progress: Progress = Silent(),
) -> RepairReport:
    """Write repaired copies of recordings. A recording that needs nothing is copied; done ones are not done again.

    Copies whose recording is gone or changed are removed, unless somebody changed them too. Damaged ones are made anew.

    Parameters
    ----------
    dataset : path
        A folder (with its sub-folders) or one recording.
    output : path
        Folder for the copies, outside of the dataset, and for ``repair.json``.

    Raises
    ------
    DatasetError
        When the dataset does not exist.
    SettingsError
        When the output lies in the dataset, or holds other files.
    """
    dataset, output = Path(dataset).expanduser().absolute(), Path(output).expanduser().absolute()
    if output.is_relative_to(dataset) or dataset.is_relative_to(output):
        raise SettingsError(f"{output} lies in the dataset, or around it", hint="choose another folder for the copies")
    if not (output / _REPORT).is_file() and output.exists() and (not output.is_dir() or any(output.iterdir())):
        raise SettingsError(f"{output} holds other files", hint="choose another folder for the copies")
    remove_leftovers(output, progress)
    files, made_by = find_recordings(dataset).recordings, signature([separation.stamp(), *_models(separation)])
    record = read_or(output / _REPORT, _Known, {"recordings": []}) if files else {"recordings": []}
    known = [one for one in record["recordings"] if is_regular(_inside(output, one))]
    alike = [one for one in known if one.made_by in (made_by, "")]
    done = {(one.recording, one.sha256): one for one in alike if _is_whole(_inside(output, one), one)}
    measured, failed = _measured(files, done, progress)
    usual = float(np.median([stem[1].loudness_lufs for stem in measured.values()])) if measured else 0.0
    target = min(_LOUDEST_LUFS, max(_QUIETEST_LUFS, usual))
    rows: list[Repaired] = []
    taken, ours = ({output / one.output for one in some} for some in (done.values(), known))
    progress.start("repairing", len(measured))
    for name, (digest, before) in measured.items():
        row = done.get((name, digest))
        if row is None:
            row = _copied(name, files[name], output, (taken, ours), (digest, before, target, separation, runtime))
            row = replace(row, made_by=made_by)
            taken.add(output / row.output)
        rows.append(row)
        known = [one for one in known if one.output != row.output]
        _write_record(output, [*rows, *known], failed)
        progress.advance(name)
    if not rows:
        told = failed[0] if failed else {"error": "there is none", "hint": "choose a folder with recordings"}
        raise AudioError(f"no recording could be read: {told['error']}", hint=told["hint"])
    unread = {one["recording"] for one in failed}
    removed = [one.output for one in known if one.recording not in unread and _removed(output, one)]
    _write_record(output, [*rows, *(one for one in known if one.recording in unread)], failed)
    return RepairReport(str(output), rows, failed, removed)


def _write_record(output: Path, rows: list[Repaired], failed: list[dict[str, str]]) -> None:
    write_json(output / _REPORT, {"recordings": [asdict(one) for one in rows], "failed": failed})


def _models(separation: SeparateSettings) -> Iterator[str]:
    """What separates each kind here: a model that was fetched meanwhile repairs more."""
    for kind in ("vocals", "dereverb", "denoise"):
        with contextlib.suppress(WeightsError):
            yield chosen(kind, separation.model).identity


def _inside(output: Path, row: Repaired) -> Path:
    """Where a copy lies: in its folder, whatever the record says."""
    place = output / row.output
    return place if place.resolve().is_relative_to(output.resolve()) else output / "outside"


def _is_whole(copy: Path, row: Repaired) -> bool:
    """Whether a copy is as it was written, or as somebody changed it since: not cut off or damaged."""
    if sha256_of(copy) == row.output_sha256:
        return True
    try:
        return not read_recording(copy).warnings
    except AudioError:
        return False


def _removed(output: Path, row: Repaired) -> bool:
    """Remove a copy of an older recording, if nobody changed it, and its folder if that is empty then."""
    copy = _inside(output, row)
    if sha256_of(copy) != row.output_sha256:
        return False
    copy.unlink()
    for folder in copy.parents:
        if folder == output or any(folder.iterdir()):
            break
        folder.rmdir()
    return True


def _measured(
    files: dict[str, Path], done: dict[tuple[str, str], Repaired], progress: Progress
) -> tuple[dict[str, tuple[str, Figures]], list[dict[str, str]]]:
    """Hash and figures of every recording that can be read, and the others with their errors."""
    measured: dict[str, tuple[str, Figures]] = {}
    failed: list[dict[str, str]] = []
    progress.start("measuring", len(files))
    for name, path in files.items():
        try:
            digest = sha256_of(path) if path.exists() else ""  # a dead link is told when it is read
            if row := done.get((name, digest)):
                measured[name] = digest, row.before
            else:
                stem = read_stem(path)
                measured[name] = digest, _figures(measure(stem.mono))
        except RVCError as error:
            failed.append({"recording": name, "error": str(error), "hint": error.hint})
        progress.advance(name)
    return measured, failed


def _figures(quality: Quality, accompaniment_db: float | None = None) -> Figures:
    return Figures(
        round(quality.loudness_lufs, 2),
        round(quality.snr_db, 2),
        round(quality.reverb_seconds, 2),
        round(quality.hum_db, 2) if quality.hum_hz else None,
        round(quality.offset, 5),
        None if accompaniment_db is None else round(accompaniment_db, 2),
    )


def _copied(name: str, path: Path, output: Path, places: tuple[set[Path], set[Path]], how: tuple[Any, ...]) -> Repaired:
    """Repair one recording and write the copy, or copy it as it is; what others put there is kept."""
    taken, ours = places
    digest, before, target, separation, runtime = how
    stem = read_stem(path)
    quality = measure(stem.mono)
    made, repairs, warnings, accompaniment = stem, list[str](), list[str](), None
    if needed := _needed(stem, quality, target):
        made, repairs, warnings, accompaniment = _repaired(stem, quality, needed, separation, runtime)
    if needed and _NO_SPEECH not in warnings:
        made, levelled = _levelled(made, target)
        repairs += levelled
    before = _figures(quality, accompaniment)
    wanted = output / name if not repairs else (output / name).with_suffix(".flac")
    place = numbered(wanted, lambda one: one in taken or (one.exists() and one not in ours))
    if repairs:
        made.save(place)
        written = read_stem(place)
        if written.samples.shape != stem.samples.shape:
            raise AudioError(f"{place.name} was not written as a whole", hint="run the same command again")
        after = _figures(measure(written.mono))
    else:
        with replace_atomically(place) as temporary:
            copy_inside(path.resolve(), temporary)  # a link, where recordings were joined
        after = before
    where, told = os.path.relpath(place, output), [*stem.notes, *warnings]
    return Repaired(name, digest, where, repairs, before, after, told, sha256_of(place))


def _needed(stem: Stem, quality: Quality, target_lufs: float) -> list[str]:
    """The repairs that measurements ask for."""
    found = findings_of(quality, stem.sample_rate, opposed_db(stem.samples))
    needed = [one.measure for one in found if one.measure in _REPAIRED and one.colour != "green"]
    loudness = quality.loudness_lufs
    is_uneven = loudness > SILENT_LUFS and abs(target_lufs - loudness) >= UNEVEN_DB
    return [*needed, *(["loudness"] if is_uneven else [])]


def _repaired(
    stem: Stem, quality: Quality, needed: list[str], separation: SeparateSettings, runtime: RuntimeSettings
) -> tuple[Stem, list[str], list[str], float | None]:
    """The sound without what disturbs it, what was repaired, what could not be, and the accompaniment's level."""

    def separated(sound: Stem, kind: str) -> list[Stem]:
        samples = np.ascontiguousarray(sound.samples.T)
        made = separate(samples, sound.sample_rate, (kind,), separation, runtime=runtime).samples.values()
        return [Stem(np.ascontiguousarray(part.T), sound.sample_rate) for part in made]

    repairs = [str(one) for one in ("phase", "offset", "hum") if one in needed]
    made, warnings, accompaniment = stem, list[str](), None
    if "phase" in needed:
        made = replace(made, samples=made.samples * np.array([1, -1], np.float32))
    if "offset" in needed:
        made = replace(made, samples=made.samples - made.samples.mean(axis=0, dtype=np.float64).astype(np.float32))
    if "hum" in needed:
        made = without_hum(made, hum(made.mono))
    if set(needed) - {"offset", "phase"}:
        is_whole = "accompaniment" in needed
        kept, rest = separated(made if is_whole else _middle(made), "vocals")
        if balance(*(measured(one.samples, one.sample_rate) for one in (kept, rest)))[0] < DOUBTFUL_DB:
            return stem, [], [_NO_SPEECH], None
        if is_whole:
            accompaniment = loudness_lufs(rest) - loudness_lufs(kept)
            if -_UNHEARD_DB < accompaniment < _UNHEARD_DB:
                made = kept
                repairs.append("accompaniment")
    for kind, name in (("dereverb", "reverb"), ("denoise", "noise")):
        if name not in needed or (kind == "denoise" and "accompaniment" in repairs):
            continue
        try:
            made, _ = separated(made, kind)
            repairs.append(name)
        except WeightsError as error:
            warnings.append(f"{name} stays: {error.hint.partition('; or leave out')[0]}")
    return made, repairs, warnings, accompaniment


def _middle(stem: Stem) -> Stem:
    """A minute from the middle."""
    size = round(_SPEECH_SECONDS * stem.sample_rate)
    start = max(0, len(stem.samples) - size) // 2
    return replace(stem, samples=stem.samples[start : start + size])


def without_hum(stem: Stem, found: Hum) -> Stem:
    """Cut the lines of a hum, each 3 Hz wide, without moving anything in time."""
    from scipy import signal

    samples = stem.samples.astype(np.float64)
    for harmonic in found.harmonics:
        hz = harmonic * found.hz
        if hz < stem.sample_rate / 2 - _HUM_WIDTH_HZ:
            notch = signal.iirnotch(hz, hz / _HUM_WIDTH_HZ, stem.sample_rate)
            samples = signal.filtfilt(*notch, samples, axis=0, padlen=min(len(samples) - 1, stem.sample_rate))
    return Stem(samples.astype(np.float32), stem.sample_rate)


def _levelled(stem: Stem, target_lufs: float) -> tuple[Stem, list[str]]:
    """As loud as the others, as far as its peaks allow."""
    loudness = loudness_lufs(Stem(stem.mono.samples[:, None], stem.sample_rate))
    gain = min(target_lufs - loudness, _PEAK_DB - true_peak_db(stem))
    if loudness <= SILENT_LUFS or abs(target_lufs - loudness) < UNEVEN_DB or abs(gain) < 1:
        return stem, []
    return stem.gained(gain), ["loudness"]
