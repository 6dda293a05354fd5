"""Stage: separate a song into stems. File → chunks → a separator for each kind → stems that sum to what came in."""

import contextlib
import shutil
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NotRequired

import numpy as np
from typing_extensions import TypedDict

from ..audio.blocks import BLOCK_FRAMES, open_blocks
from ..audio.loudness import Loudness
from ..errors import AudioError, ResourceError, RVCError, SettingsError
from ..progress import Progress, Report, Silent, Stop
from ..settings import RuntimeSettings, SeparateSettings
from ..system.devices import choose_device
from ..system.documents import read_or
from ..system.files import ensure_room, folder_atomically, remove_leftovers, sha256_of, signature, write_json
from ..system.threads import set_threads
from .chunks import Chunks, Resampled, Separator, split
from .heard import empty_stems
from .models import KINDS, chosen, load, parsed_kinds

RECORD = "separation.json"
_SILENT_RMS = 1e-5  # -100 dBFS
_WAV_BYTES = 4_000_000_000  # a plain WAV cannot be larger
_OPPOSED = 2.0  # a correlation of -0.5
_OPPOSED_TOLD = "its channels cancel each other, so voices are missed: turn one channel over in an editor first"


@dataclass(frozen=True)
class SeparationReport(Report):
    """One song, separated.

    Attributes
    ----------
    channels : int
        Of the stems: 1 or 2. More channels were folded to stereo.
    models : dict
        What separated each kind.
    stems : dict
        Files (32-bit float WAV) by name, aligned with the source and exactly as long.
    levels_db : dict
        RMS of each stem in dBFS; None: it is silent.
    empty : list of str
        Stems in which nothing was found: silence, or what leaks of the other stem.
    notes : list of str
        What a listener should know.
    """

    source: Path
    sample_rate_hz: int
    channels: int
    seconds: float
    models: dict[str, str]
    stems: dict[str, Path]
    levels_db: dict[str, float | None]
    empty: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def as_json(self) -> dict[str, Any]:
        """The fields, for ``--json``."""
        stems = {name: str(path) for name, path in self.stems.items()}
        return super().as_json() | {"source": str(self.source), "stems": stems}


@dataclass(frozen=True)
class Stems:
    """A song, separated in memory: as `SeparationReport`, with the samples (channels, N) of each stem."""

    sample_rate_hz: int
    samples: dict[str, np.ndarray]
    models: dict[str, str]
    levels_db: dict[str, float | None]
    empty: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


class _Record(TypedDict):
    """What `RECORD` holds."""

    signature: str
    source: str
    sample_rate_hz: int
    channels: int
    frames: int
    models: dict[str, str]
    levels_db: dict[str, float | None]
    empty: NotRequired[list[str]]  # of older records it is unknown
    notes: list[str]


class _Level:
    """The running RMS and loudness of a stem."""

    def __init__(self, rate_hz: int) -> None:
        self.energy, self.count, self.loudness = 0.0, 0, Loudness(rate_hz)

    def add(self, block: np.ndarray) -> np.ndarray:
        self.energy += float(np.einsum("cn,cn->", block, block, dtype=np.float64))
        self.count += block.size
        self.loudness.add(block.T)
        return block

    @property
    def decibels(self) -> float | None:
        """RMS in dBFS."""
        rms = (self.energy / max(1, self.count)) ** 0.5
        return None if rms < _SILENT_RMS else round(20 * float(np.log10(rms)), 2)


class _Run:
    """Carries the settings, the loaded separators and what is told along the kinds."""

    def __init__(
        self,
        kinds: Sequence[str],
        settings: SeparateSettings,
        runtime: RuntimeSettings,
        progress: Progress,
        stop: Stop | None,
    ) -> None:
        self.kinds, self.overlap = parsed_kinds(kinds), settings.overlap
        self.models = {kind: chosen(kind, settings.model) for kind in self.kinds}
        self._runtime, self._progress, self._stop = runtime, progress, stop
        self._loaded: dict[str, Separator] = {}
        self.empty: list[str] = []
        self.notes: list[str] = []

    @property
    def stamp(self) -> dict[str, Any]:
        """What decides the result besides the song."""
        return {"kinds": self.kinds, "overlap": self.overlap, "models": {k: m.identity for k, m in self.models.items()}}

    @property
    def names(self) -> dict[str, str]:
        """What separates each kind."""
        return {kind: model.name for kind, model in self.models.items()}

    def judged(self, kind: str, levels: Sequence[_Level]) -> bool:
        """Note what was not found; whether the kinds that follow have something to work on."""
        stems = KINDS[kind].stems
        empty, notes = empty_stems(stems, (levels[0].loudness, levels[1].loudness), self.models[kind].name)
        self.empty += empty
        self.notes += notes
        if stems[0] not in empty:
            return True
        for skipped in self.kinds[self.kinds.index(kind) + 1 :]:
            self.notes.append(f"skipped {skipped}: nothing was found for it in {stems[0]}")
            del self.models[skipped]
        return False

    def separated(
        self, kind: str, blocks: Iterable[np.ndarray], channels: int, rate_hz: int, seconds: float
    ) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Pairs of blocks (channels, n) of both stems of a kind."""
        if kind not in self._loaded:
            device = choose_device(self._runtime.device).name
            set_threads(self._runtime.threads)
            self._loaded[kind] = load(self.models[kind], device)
        separator = self._loaded[kind]
        hop = separator.chunk_seconds * (1 - self.overlap)
        self._progress.start(f"separating {kind}", max(1, int(np.ceil(seconds / hop))))
        own = separator.rate_hz or rate_hz
        chunks: Callable[..., Iterator[np.ndarray]] = Chunks(
            separator, own, self.overlap, self._progress.advance, self._progress.say
        )
        work = chunks if own == rate_hz else Resampled(chunks, rate_hz, own)
        stereo = (np.repeat(block, 2, axis=0) if channels == 1 else block for block in self._watched(blocks))
        for wanted, rest in split(work, stereo):
            yield wanted[:channels], rest[:channels]

    def _watched(self, blocks: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
        for block in blocks:
            if self._stop is not None and self._stop.requested:
                raise RVCError("separation was stopped", hint="nothing was written")
            yield block


def separate(
    samples: np.ndarray,
    sample_rate_hz: int,
    kinds: Sequence[str] = ("vocals",),
    settings: SeparateSettings = SeparateSettings(),
    *,
    runtime: RuntimeSettings = RuntimeSettings(),
    progress: Progress = Silent(),
    stop: Stop | None = None,
) -> Stems:
    """Separate a song in memory. Each kind works on the wanted stem of the kind before it.

    Parameters
    ----------
    samples : ndarray (channels, N), float32
        Mono or stereo.
    sample_rate_hz : int
    kinds : sequence of str
        ``vocals`` gives ``vocals`` and ``instrumental``, ``lead`` gives ``lead`` and ``backing``, ``dereverb`` gives
        ``dry`` and ``reverb``, ``denoise`` gives ``clean`` and ``noise``.

    Raises
    ------
    SettingsError
        When a kind or model is unknown, or the samples are not (1 or 2, N).
    WeightsError
        When a kind has no model on this machine; the hint says what to fetch.

    Examples
    --------
    >>> stems = separate(np.zeros((1, 8000), np.float32), 8000)
    >>> sorted(stems.samples), stems.levels_db["vocals"]
    (['instrumental', 'vocals'], None)
    """
    if samples.ndim != 2 or samples.shape[0] not in (1, 2) or not samples.shape[1]:
        raise SettingsError(f"samples must be (1 or 2, N), not {samples.shape}", hint="give channels first")
    if not np.isfinite(samples).all():
        raise AudioError("the samples hold NaN or infinity", hint="export the recording again from its source")
    run = _Run(kinds, settings, runtime, progress, stop)
    current, channels, made, levels = samples.astype(np.float32, copy=False), samples.shape[0], {}, {}
    for kind in run.kinds:
        blocks = (current[:, at : at + BLOCK_FRAMES] for at in range(0, current.shape[1], BLOCK_FRAMES))
        seconds = current.shape[1] / sample_rate_hz
        pairs = list(run.separated(kind, blocks, channels, sample_rate_hz, seconds))
        found = []
        for name, pieces in zip(KINDS[kind].stems, zip(*pairs, strict=True), strict=True):
            made[name] = np.concatenate(pieces, axis=1)
            found.append(_Level(sample_rate_hz))
            found[-1].add(made[name])
            levels[name] = found[-1].decibels
        if not run.judged(kind, found):
            break
        current = made[KINDS[kind].stems[0]]
    return Stems(sample_rate_hz, made, run.names, levels, run.empty, run.notes)


def separate_file(
    song: Path,
    folder: Path,
    kinds: Sequence[str] = ("vocals",),
    settings: SeparateSettings = SeparateSettings(),
    *,
    runtime: RuntimeSettings = RuntimeSettings(),
    progress: Progress = Silent(),
    stop: Stop | None = None,
) -> SeparationReport:
    """Separate a song into files in `folder`, which appears whole or not at all. Memory does not grow with the song.

    A song that was separated into this folder before, with the same settings, is not separated again.

    Raises
    ------
    AudioError
        When the song cannot be decoded, or is silent.
    SettingsError
        When a kind or model is unknown, or `folder` holds other files.
    WeightsError
        When a kind has no model on this machine; the hint says what to fetch. Nothing is written then.
    """
    run = _Run(kinds, settings, runtime, progress, stop)
    with open_blocks(song):  # refuses what is no recording
        pass
    sign = signature({"song": sha256_of(song), **run.stamp})
    if folder.exists() and (not folder.is_dir() or (any(folder.iterdir()) and not (folder / RECORD).is_file())):
        raise SettingsError(f"{folder} holds other files", hint="choose another folder for the stems")
    remove_leftovers(folder.parent, progress)
    record = _record(folder)
    if record and record["signature"] == sign and _is_whole(folder, record):
        notes = [*record["notes"], "it was separated before with these settings; the stems are unchanged"]
        return _report(song, folder, record, notes)
    with _replaced(folder) as hidden:
        record = _written(run, song, hidden) | {"signature": sign, "source": str(song.absolute())}
        write_json(hidden / RECORD, record)
        if not _is_whole(hidden, record):
            raise AudioError(
                f"the stems of {song.name!r} could not be read again", hint="check the disk, and try again"
            )
    return _report(song, folder, record, record["notes"])


def is_of_another(folder: Path, song: Path) -> bool:
    """Whether a folder holds the stems of another song, or anything else."""
    record = _record(folder)
    return record["source"] != str(song.absolute()) if record else folder.exists()


def _record(folder: Path) -> Any:
    return read_or(folder / RECORD, _Record, None) if folder.is_dir() else None


def _written(run: _Run, song: Path, hidden: Path) -> dict[str, Any]:
    """Write the stems of all kinds; returns the record."""
    source, notes = song, list[str]()
    levels: dict[str, float | None] = {}
    facts: dict[str, Any] = {}
    for kind in run.kinds:
        with open_blocks(source) as reader:
            names = KINDS[kind].stems
            size = max(1.0, reader.seconds) * reader.sample_rate_hz * reader.channels * 4
            ensure_room(hidden, round(2 * size), is_output=True)
            whole, made = Loudness(reader.sample_rate_hz), [_Level(reader.sample_rate_hz) for _ in names]
            energies = np.zeros(2)  # of channels that have nothing in common, and of their mean
            pairs = run.separated(kind, reader, reader.channels, reader.sample_rate_hz, reader.seconds)
            with contextlib.ExitStack() as closing:
                files = [closing.enter_context(_wav(hidden / f"{name}.wav", reader, size)) for name in names]
                for pair in pairs:
                    both = (pair[0] + pair[1]).T
                    whole.add(both)
                    energies += np.vdot(both, both) / both.shape[1] ** 2, np.square(both.mean(1)).sum()
                    for file, level, block in zip(files, made, pair, strict=True):
                        _append(file, level.add(block))
            frames = made[0].count // reader.channels
            facts = facts or {"sample_rate_hz": reader.sample_rate_hz, "channels": reader.channels, "frames": frames}
            notes += reader.notes
            levels |= {name: level.decibels for name, level in zip(names, made, strict=True)}
        if source == song and whole.is_silent:
            raise AudioError(f"{song.name!r} is silent", hint="choose a song with sound in it")
        if source == song and reader.channels > 1 and energies[0] > _OPPOSED * energies[1]:
            notes.append(_OPPOSED_TOLD)
        if not run.judged(kind, made):
            break
        source = hidden / f"{names[0]}.wav"
    return {**facts, "models": run.names, "levels_db": levels, "empty": run.empty, "notes": [*notes, *run.notes]}


def _wav(path: Path, reader: Any, size_bytes: float) -> Any:
    import soundfile

    kind = "RF64" if size_bytes > _WAV_BYTES else "WAV"
    return soundfile.SoundFile(str(path), "w", reader.sample_rate_hz, reader.channels, "FLOAT", format=kind)


def _append(file: Any, block: np.ndarray) -> None:
    import soundfile

    try:
        file.write(block.T)
    except soundfile.LibsndfileError as error:  # it does not say which error of the system it met
        raise ResourceError(
            "the disk, a quota or a size limit refused to take the stems",
            hint="free some space there, or name another disk with --output",
        ) from error


def _is_whole(folder: Path, record: dict[str, Any]) -> bool:
    """Whether all stems are there, with the rate, channels and length of the record."""
    import soundfile

    try:
        found = [soundfile.info(str(folder / f"{name}.wav")) for name in record["levels_db"]]
    except (soundfile.LibsndfileError, OSError):
        return False
    facts = (record["sample_rate_hz"], record["channels"], record["frames"])
    return all((one.samplerate, one.channels, one.frames) == facts for one in found)


@contextlib.contextmanager
def _replaced(folder: Path) -> Iterator[Path]:
    """A hidden folder that takes the place of `folder`, which holds older stems, or nothing."""
    with folder_atomically(folder) as hidden:
        yield hidden
        if folder.is_dir():
            shutil.rmtree(folder)


def _report(song: Path, folder: Path, record: dict[str, Any], notes: list[str]) -> SeparationReport:
    stems = {name: folder / f"{name}.wav" for name in record["levels_db"]}
    return SeparationReport(
        song,
        record["sample_rate_hz"],
        record["channels"],
        round(record["frames"] / record["sample_rate_hz"], 3),
        record["models"],
        stems,
        record["levels_db"],
        record.get("empty", []),
        notes,
    )
