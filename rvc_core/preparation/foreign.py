"""Stage: import an experiment of RVC WebUI or Applio, so that you can resume its training here.

The stage copies the clips and the newest pair of checkpoints; the original folder does not change. `extract` computes
pitch and content features again, so that training has the same as conversion.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import soundfile

from ..audio.slicer import Span
from ..audio.waveform import read_audio
from ..errors import DatasetError, MismatchError, SettingsError, StageOrderError
from ..presets import PRESETS, VoiceSpec, preset
from ..progress import Progress, Silent, counted
from ..system.documents import read_or
from ..system.files import ensure_room, folder_atomically
from ..system.inside import copy_inside, refuse_links
from ..workspace.checkpoint import Checkpoint, load_foreign
from ..workspace.filelist import read_filelist
from ..workspace.layout import Layout
from ..workspace.manifest import Clip, ExperimentRecord, Manifest
from ..workspace.rvc_config import spec_of_generator
from ..workspace.stamps import stamp
from .heldout import choose_heldout

_CLIPS = {"RVC WebUI": "0_gt_wavs", "Applio": "sliced_audios"}
_FEATURES_V1 = ("3_feature256", "v1_extracted")  # folders that only v1 voices have
_PER_SECOND = 1000  # lengths in whole milliseconds


@dataclass(frozen=True)
class ForeignReport:
    """Content of an imported folder.

    Attributes
    ----------
    program : str
        ``RVC WebUI`` or ``Applio``.
    seconds : float
        Of all clips. Overlap counts twice, because the clips' positions in their recordings are unknown.
    epoch : int or None
        Completed epochs of its newest checkpoint; None without one.
    """

    path: str
    program: str
    preset: str
    clips: int
    heldout_clips: int
    seconds: float
    epoch: int | None
    warnings: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class _Wave:
    path: Path
    seconds: float
    rate_hz: int
    speaker: int


def is_foreign(folder: Path) -> bool:
    """Whether this is an experiment of RVC WebUI or Applio.

    Examples
    --------
    >>> is_foreign(Path("nowhere"))
    False
    """
    return bool(_program_of(folder)) and not Layout(folder, folder.name).experiment.exists()


def _program_of(folder: Path) -> str:
    return next((program for program, clips in _CLIPS.items() if (folder / clips).is_dir()), "")


def open_foreign(folder: Path, layout: Layout, *, progress: Progress = Silent()) -> ForeignReport:
    """Import a folder of RVC WebUI (``logs/<name>``) or Applio as an experiment.

    Without a checkpoint, whole recordings are held out, as in `prepare`. A checkpoint was trained on all recordings, so
    then none are held out.

    Raises
    ------
    StageOrderError
        When it is not such a folder.
    DatasetError
        When its list is damaged, or no clip can be read.
    MismatchError
        When RVC does not support its decoder or sample rate, or it was trained with another content encoder.
    WeightsError
        When its checkpoints are damaged.
    SettingsError
        When an experiment of that name exists.
    StorageError
        When it holds links, which may lead anywhere.
    """
    program, folder = _program_of(folder), folder.absolute()
    if not program:
        raise StageOrderError(
            f"{folder} is not an experiment of RVC WebUI or Applio",
            hint="give the folder that contains 0_gt_wavs or sliced_audios",
        )
    refuse_links(folder)
    if layout.root.exists():
        raise SettingsError(f"{layout.name!r} already exists in {layout.root}", hint="choose another --name")
    checkpoint = load_foreign(Layout(folder, layout.name))
    rows = read_filelist(folder / "filelist.txt") if (folder / "filelist.txt").is_file() else []
    listed = {row.wave.stem: row.speaker for row in rows if not row.wave.name.startswith("mute")}
    waves = _waves(folder / _CLIPS[program], listed)
    name, spec = _architecture(folder, checkpoint, waves, uses_f0=not rows or rows[0].f0_hz is not None)
    clips = _clips_of(waves, hold_out=checkpoint is None)
    progress.start(f"importing {counted(len(clips), 'clip')} from {program} for {name}", len(clips))
    with folder_atomically(layout.root) as root:
        staged = Layout(root, layout.name)
        ensure_room(root, round(6 * sum(wave.seconds * wave.rate_hz for wave in waves)))
        _copy(folder / _CLIPS[program], clips, staged, progress)
        for path in (staged.generator(checkpoint.step), staged.discriminator(checkpoint.step)) if checkpoint else ():
            copy_inside(folder / path.name, path)
        Manifest(clips).save(staged)
        stamp(staged, "prepare", {"opened": program, "clips": [clip.id for clip in clips]})
        last = max(clip.speaker for clip in clips)
        speakers = [str(row) for row in range(last + 1)] if last else []
        dataset = f"recordings of {folder}"
        ExperimentRecord(layout.name, dataset, name, spec.uses_f0, spec.speakers, speakers).save(staged)
    return ForeignReport(
        str(layout.root),
        program,
        name,
        len(clips),
        sum(clip.heldout for clip in clips),
        round(sum(clip.seconds for clip in clips), 3),
        checkpoint.generator["iteration"] if checkpoint else None,
        [*_warnings(folder, checkpoint, clips, listed)],
    )


def _copy(folder: Path, clips: list[Clip], staged: Layout, progress: Progress) -> None:
    for clip in clips:
        place, audio = staged.heldout if clip.heldout else staged, read_audio(folder / f"{clip.id}.wav")
        audio.save(place.clips / f"{clip.id}.wav", float32=True)
        audio.resample(16_000).save(place.clips_16k / f"{clip.id}.wav", float32=True)
        progress.advance(clip.id)


def _waves(folder: Path, listed: dict[str, int]) -> list[_Wave]:
    """All readable clips, in the order of their recordings; those that training used, if that is `listed`."""
    waves = []
    for path in sorted(folder.glob("*.wav"), key=lambda path: [(len(part), part) for part in path.stem.split("_")]):
        try:
            header = soundfile.info(path)
        except soundfile.LibsndfileError:
            continue
        if path.stem in (listed or {path.stem}):
            waves.append(_Wave(path, header.duration, header.samplerate, listed.get(path.stem, 0)))
    if not waves:
        raise DatasetError(f"no clip in {folder} can be read", hint="copy the folder again")
    return waves


def _architecture(
    folder: Path, checkpoint: Checkpoint | None, waves: list[_Wave], *, uses_f0: bool
) -> tuple[str, VoiceSpec]:
    """The preset, and the architecture of the checkpoint or, without one, of a new voice."""
    rates_hz, spec = sorted({wave.rate_hz for wave in waves}), None
    if checkpoint:
        name, spec = spec_of_generator(checkpoint.generator["model"], f"G_{checkpoint.step}.pth")
    else:
        version = "v1" if any((folder / features).is_dir() for features in _FEATURES_V1) else "v2"
        name = f"{version}-{rates_hz[0] // 1000}k"
        if name in PRESETS:
            spec = preset(name, uses_f0=uses_f0)
    if spec is None or rates_hz != [spec.sample_rate]:
        raise MismatchError(
            f"RVC has no {name} voice for clips of {rates_hz} Hz",
            hint="use v1 or v2 at 32, 40 or 48 kHz: cut the recordings again in that program",
        )
    encoder = read_or(folder / "model_info.json", dict[str, Any], {}).get("embedder_model") or "contentvec"
    if checkpoint and encoder != "contentvec":
        raise MismatchError(
            f"it was trained with the encoder {str(encoder)[:40]!r}, which is not supported",
            hint="train with contentvec in Applio; to import the clips only, remove its G_ and D_ files",
        )
    if (last := max(wave.speaker for wave in waves)) >= spec.speakers:
        raise DatasetError(
            f"filelist.txt names speaker {last}, the voice has {spec.speakers} speakers",
            hint="extract the features again in that program",
        )
    return name, spec


def _clips_of(waves: list[_Wave], *, hold_out: bool) -> list[Clip]:
    """All clips. Their positions in a recording are unknown, so each starts where the previous one ends."""
    recordings: dict[str, list[_Wave]] = {}
    for wave in waves:
        recordings.setdefault(wave.path.stem.rpartition("_")[0] or wave.path.stem, []).append(wave)
    whole = [Span(0, sum(round(_PER_SECOND * wave.seconds) for wave in own)) for own in recordings.values()]
    hold_out &= len(whole) > 1 and not any(wave.speaker for wave in waves)  # validation uses speaker 0
    chosen = choose_heldout([[span] for span in whole], _PER_SECOND, minutes=None, seed=0) if hold_out else {}
    clips = []
    for number, (recording, own) in enumerate(recordings.items()):
        start = 0.0
        for wave in own:
            held = chosen.get(number) == whole[number]
            clips.append(Clip(wave.path.stem, recording, start, wave.seconds, held, wave.speaker))
            start += wave.seconds
    return clips


def _warnings(folder: Path, checkpoint: Checkpoint | None, clips: list[Clip], listed: dict[str, int]) -> Iterator[str]:
    """What you should know before you resume training."""
    if lost := sorted(listed.keys() - {clip.id for clip in clips}):
        yield f"{counted(len(lost), 'clip')} of filelist.txt cannot be read: {', '.join(lost[:5])}"
    if not any(clip.heldout for clip in clips):
        yield "nothing is held out: " + (
            "the checkpoint was trained on every recording"
            if checkpoint
            else "this needs several recordings of one speaker, three minutes in all"
        )
    trained = read_or(folder / "config.json", dict[str, Any], {}).get("train")
    if checkpoint and _program_of(folder) == "RVC WebUI" and isinstance(trained, dict) and "fp16_run" not in trained:
        yield "it was trained with the spectrogram epsilon of RVC WebUI 2026: resume with --mel-epsilons 2026"
