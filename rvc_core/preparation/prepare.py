"""Stage: cut recordings into clips: decode, filter, cut, choose held-out clips, normalise.

The manifest records every second of input: in a clip, or the reason why not. The stage writes to a temporary folder
and moves it into place at the end, so a failure does not change the experiment. The arithmetic is RVC's
``train/preprocess.py`` (filter, silence rule, 3.7 s windows, peak formula).
"""

import contextlib
import os
import shutil
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from ..audio.quality import TOO_LOUD, beyond_full_scale
from ..audio.recordings import DatasetFiles, find_recordings, printable_name
from ..audio.slicer import SHORTEST_SECONDS, Span, inside, outside, windows
from ..audio.waveform import Audio
from ..errors import DatasetError, StageOrderError
from ..presets import PRESETS, preset
from ..progress import Progress, Report, Silent, Stop
from ..settings import PrepareSettings
from ..system.inside import remove
from ..workspace.layout import Layout
from ..workspace.manifest import Clip, ExperimentRecord, Explained, Manifest, speaker_names
from ..workspace.stage_locks import at_stage, refuse_disturbance
from ..workspace.stamps import clear, stamp
from .decoding import CONTENT_RATE_HZ, Decoder, Recording
from .heldout import choose_heldout
from .identity import Identity, refuse_other_recordings, refuse_own_clips

_NORMAL_PEAK, _OWN_SHARE = 0.675, 0.25  # new peak = 0.675 + 0.25 * old peak
_FORMAT = 1  # increase it when the same settings give other clips
_STAGES = ("prepare", "seen", "index")  # pitch and content keep theirs: they name the estimator and the encoder


@dataclass(frozen=True)
class PrepareReport(Report):
    """Use of the recordings; ``seconds_in == seconds_kept + seconds_explained``.

    Attributes
    ----------
    seconds_in : float
        Length of all recordings, including unused ones.
    seconds_kept : float
        Time in clips, including held-out clips; overlap counts once.
    explained : dict
        Seconds outside clips, by reason; ``manifest.jsonl`` lists each part.
    skipped : bool
        True if the clips were up to date.
    stopped : bool
        Stopped early on request; the experiment did not change.
    """

    seconds_in: float = 0.0
    seconds_kept: float = 0.0
    seconds_explained: float = 0.0
    clips: int = 0
    explained: dict[str, float] = field(default_factory=dict)
    recordings: int = 0
    heldout_seconds: float = 0.0
    skipped: bool = False
    stopped: bool = False
    warnings: list[str] = field(default_factory=list)

    @classmethod
    def of(cls, manifest: Manifest, seconds_in: float | None = None, *, skipped: bool = False) -> "PrepareReport":
        """Sum up a manifest; `seconds_in` defaults to the sum of its parts."""
        kept, explained = manifest.seconds_kept, manifest.explained_seconds
        total = seconds_in if seconds_in is not None else kept + sum(explained.values())
        recordings = {clip.recording for clip in manifest.clips}
        return cls(
            round(total, 3),
            round(kept, 3),
            round(sum(explained.values()), 3),
            len(manifest.clips),
            explained,
            len(recordings),
            round(Manifest(manifest.heldout).seconds_kept, 3),
            skipped=skipped,
            warnings=_warnings(manifest, kept, total),
        )


@at_stage("prepare")
def prepare(
    layout: Layout,
    dataset: Path | str,
    settings: PrepareSettings,
    *,
    uses_f0: bool = True,
    progress: Progress = Silent(),
    stop: Stop | None = None,
) -> PrepareReport:
    """Cut the recordings of `dataset` into the training clips of an experiment.

    Writes ``0_gt_wavs`` and ``1_16k_wavs``, the same under ``heldout``, ``manifest.jsonl`` and ``experiment.json``.
    Removes features, file list and stamps of earlier clips. Checkpoints, voices and indexes stay.

    Parameters
    ----------
    dataset : Path or str
        A folder (with its sub-folders) or one recording.
    uses_f0 : bool
        Whether the voice uses pitch.

    Raises
    ------
    DatasetError, ResourceError
        When there is no usable audio, this voice was trained on other recordings, or another process works on it; then
        nothing changes.
    """
    refuse_own_clips(layout, dataset := Path(dataset).expanduser().absolute())
    files = find_recordings(dataset)
    record = _record(layout, dataset, files, settings, uses_f0)
    identity = Identity(layout, files, {"format": _FORMAT, "settings": settings.stamp()})
    if identity.is_current() and _is_complete(layout):
        identity.note()
        replace(record, recordings=ExperimentRecord.load(layout).recordings).save(layout)
        return PrepareReport.of(Manifest.load(layout), skipped=True)
    refuse_disturbance(layout, "prepare")
    content = identity.content
    record = replace(record, recordings=sorted(identity.digests.values()))
    refuse_other_recordings(layout, record.recordings)
    rate_hz = preset(settings.preset).sample_rate
    with _aside(layout) as staging:
        decoder = Decoder(staging, settings, rate_hz, record.speaker_names)
        decoder.explain_unused(files)
        progress.start("decoding", len(files.recordings))
        for name, path in files.recordings.items():
            if stop is not None and stop.requested:
                return PrepareReport(stopped=True)
            decoder.take(name, path)
            progress.advance(name)
        clips, explained = _cut(decoder.recordings, staging, settings, rate_hz, progress)
        manifest = Manifest(clips, decoder.explained + explained)
        if not clips:
            raise _nothing_usable(dataset, manifest)
        warnings = _move_into_place(staging, layout)
    manifest.save(layout)
    record.save(layout)
    stamp(layout, "prepare", content)
    identity.note()
    report = PrepareReport.of(manifest, decoder.seconds_in)
    return replace(report, warnings=[*report.warnings, *decoder.notes, *warnings])


def _record(
    layout: Layout, dataset: Path, files: DatasetFiles, settings: PrepareSettings, uses_f0: bool
) -> ExperimentRecord:
    """The experiment's record. Raises an error if the voice supports fewer speakers."""
    names = speaker_names(layout, files.recordings) if settings.speakers == "folders" else []
    record = ExperimentRecord(layout.name, printable_name(str(dataset)), settings.preset, uses_f0, speaker_names=names)
    if len(names) > record.spec.speakers:
        raise DatasetError(
            f"{len(names)} speakers are too many: a {settings.preset} voice supports {record.spec.speakers}",
            hint="remove some speakers' folders",
        )
    return record


def normalised(samples: np.ndarray) -> np.ndarray:
    """Bring a clip (N,) towards one loudness by RVC's formula; its peak becomes 0.675 + a quarter of what it was.

    Examples
    --------
    >>> normalised(np.array([0.5, -0.25], np.float32)).tolist()
    [0.800000011920929, -0.4000000059604645]
    """
    return (samples * (_NORMAL_PEAK / np.abs(samples).max() + _OWN_SHARE)).astype(np.float32)


def _cut(
    recordings: list[Recording], staging: Layout, settings: PrepareSettings, rate_hz: int, progress: Progress
) -> tuple[list[Clip], list[Explained]]:
    """Write all clips aside; return them, and what of the recordings is in none."""
    heldout = choose_heldout(
        [recording.phrases for recording in recordings],
        rate_hz,
        minutes=settings.holdout_minutes,
        seed=settings.seed,
        speakers=[recording.speaker for recording in recordings],
    )
    clips, explained = [], []
    progress.start("cutting", len(recordings))
    for recording in recordings:
        samples = np.load(recording.samples_file, mmap_mode="r")
        held = heldout.get(recording.number, Span(0, 0))
        parts = (Span(0, held.start), held, Span(held.stop, recording.total_samples))
        phrases = [phrase for part in parts for phrase in inside(recording.phrases, part)]
        covered: list[Span] = []
        for number, span in enumerate(window for phrase in phrases for window in windows(phrase, rate_hz)):
            name, is_held = f"{recording.number}_{number}", held.start <= span.start < held.stop
            if _write_clip(samples[span.start : span.stop], rate_hz, staging.heldout if is_held else staging, name):
                start, seconds = span.start / rate_hz, len(span) / rate_hz
                clips.append(Clip(name, recording.name, start, seconds, is_held, recording.speaker))
                covered.append(span)
        silent = outside(phrases, recording.total_samples)
        too_loud = outside(covered + silent, recording.total_samples)
        peak = beyond_full_scale(Audio(np.asarray(samples), rate_hz)) if too_loud else ""
        for reason, spans, detail in (("silent", silent, ""), ("too loud", too_loud, peak)):
            for span in spans:
                start, seconds = span.start / rate_hz, len(span) / rate_hz
                explained.append(Explained(recording.name, start, seconds, reason, detail))
        recording.samples_file.unlink()
        progress.advance(recording.name)
    return clips, explained


def _write_clip(samples: np.ndarray, rate_hz: int, folder: Layout, name: str) -> bool:
    """Write a clip at both rates; False if it is silent or too loud.

    A recording shorter than `SHORTEST_SECONDS` is padded with silence, because RVC's sampler drops shorter files.
    """
    peak = np.abs(samples).max()
    if not 0 < peak <= TOO_LOUD:
        return False
    missing = max(0, round(SHORTEST_SECONDS * rate_hz) - len(samples))
    clip = Audio(np.pad(normalised(samples), (0, missing)), rate_hz)
    clip.save(folder.clips / f"{name}.wav", float32=True)
    clip.resample(CONTENT_RATE_HZ).save(folder.clips_16k / f"{name}.wav", float32=True)
    return True


def normal_gain(peak: float) -> float:
    """What `normalised` multiplied a clip by, from the peak that it has now.

    Examples
    --------
    >>> clip = normalised(np.array([0.5, -0.25], np.float32))
    >>> round(normal_gain(float(clip.max())), 6)
    1.6
    """
    return peak / max((peak - _NORMAL_PEAK) / _OWN_SHARE, 1e-3)


@contextlib.contextmanager
def _aside(layout: Layout) -> Iterator[Layout]:
    """A temporary folder in the experiment's; an empty experiment folder is removed afterwards too."""
    staging = Layout(layout.root / ".preparing", layout.name)
    shutil.rmtree(staging.root, ignore_errors=True)  # from an interrupted run
    try:
        yield staging
    finally:
        shutil.rmtree(staging.root, ignore_errors=True)
        with contextlib.suppress(OSError):
            layout.root.rmdir()  # only succeeds when it is empty


def _move_into_place(staging: Layout, layout: Layout) -> list[str]:
    """Replace earlier clips and remove their features; returns warnings about what is out of date."""
    for stage in _STAGES:
        clear(layout, stage)
    widths = sorted({spec.content_width for spec in PRESETS.values()})
    places = {
        staging.clips: layout.clips,
        staging.clips_16k: layout.clips_16k,
        staging.heldout.root: layout.heldout.root,
    }
    features = [layout.features(width) for width in widths]
    for old in (*places.values(), layout.f0_coarse, layout.f0_hz, layout.mute.root, layout.filelist, *features):
        remove(old)
    for new, place in places.items():
        if new.exists():
            os.replace(new, place)
    warnings = []
    if layout.indexes():
        warnings.append("the index was built from earlier clips: rebuild it with rvc index")
    if layout.generator_steps():
        warnings.append(
            "training will resume from its checkpoints, but with new clips: to start again, choose a new experiment "
            "name"
        )
    return warnings


def _is_complete(layout: Layout) -> bool:
    """Whether the manifest and all its clips exist."""
    try:
        manifest = Manifest.load(layout)
    except (StageOrderError, DatasetError):
        return False
    return all(
        {path.name for path in folder.glob("*.wav")} >= {f"{clip.id}.wav" for clip in clips}
        for place, clips in ((layout, manifest.training), (layout.heldout, manifest.heldout))
        for folder in (place.clips, place.clips_16k)
    )


def _warnings(manifest: Manifest, kept: float, total: float) -> list[str]:
    """What you should know before you continue."""
    reported = [
        row
        for row in manifest.explained
        if row.reason in ("undecodable", "non-finite", "too loud")
        or (row.detail and row.reason in ("ignored folder", "not audio"))
    ]
    warnings = [
        f"{row.recording}: {row.reason}, {row.seconds:.1f} s not used" + (f" ({row.detail})" if row.detail else "")
        for row in reported
    ]
    if kept < 0.8 * total:
        reasons = ", ".join(f"{seconds:.1f} s {reason}" for reason, seconds in manifest.explained_seconds.items())
        remedy = "; if that is no silence, lower silence_db" if "silent" in manifest.explained_seconds else ""
        warnings.append(f"only {100 * kept / total:.0f} % of the input is in clips: {reasons}{remedy}")
    if not manifest.heldout:
        warnings.append(
            "nothing is held out, so the verdict cannot say which voice is the best: collect three minutes "
            "or more, or set holdout_minutes"
        )
    return warnings


def _nothing_usable(dataset: Path, manifest: Manifest) -> DatasetError:
    """The error for a dataset without usable audio."""
    reasons = Counter(row.reason for row in manifest.explained)
    found = ", ".join(f"{count} {reason}" for reason, count in reasons.items()) or "it is empty"
    details = [row for row in manifest.explained if row.reason != "not audio" and row.detail][:1]
    if "silent" in reasons:
        hint = "the recordings are too quiet: raise their level or lower silence_db"
    else:
        hint = "add recordings of one person: wav, flac, mp3, m4a, ogg …"
    example = f"; {details[0].recording}: {details[0].detail}" if details else ""
    return DatasetError(f"no usable audio in {printable_name(str(dataset))!r} ({found}{example})", hint=hint)
