"""Stage: import an experiment of RVC WebUI or Applio, so that you can resume its training here.

The stage copies the clips and the newest pair of checkpoints; the original folder does not change. `extract` computes
pitch and content features again, so that training has the same as conversion.
"""

import shlex
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import soundfile

from ..audio.waveform import read_audio
from ..errors import DatasetError, MismatchError, ResourceError, SettingsError, StageOrderError, WeightsError
from ..features.content import content_identity, content_name
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
from ..workspace.stamps import content_of, stamp

_CLIPS = {"RVC WebUI": "0_gt_wavs", "Applio": "sliced_audios"}
_FEATURES_V1 = ("3_feature256", "v1_extracted")  # folders that only v1 voices have


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
    seconds: float
    epoch: int | None
    warnings: list[str] = field(default_factory=list)


def is_foreign(folder: Path) -> bool:
    """Whether this is an experiment of RVC WebUI or Applio.

    Examples
    --------
    >>> is_foreign(Path("nowhere"))
    False
    """
    return bool(_program_of(folder)) and not Layout(folder, folder.name).experiment.exists()


def is_imported(layout: Layout, wanted: str) -> bool:
    """Whether an experiment's clips were imported, so that it has no recordings to cut.

    Raises
    ------
    MismatchError
        When they are of another preset than the `wanted` one.
    """
    if "opened" not in content_of(layout, "prepare"):
        return False
    if (preset_ := ExperimentRecord.load(layout).preset) != wanted:
        raise MismatchError(
            f"{layout.name!r} was imported with clips for {preset_}, not {wanted}",
            hint=f"leave the preset out, or cut its clips under a new name: --dataset {shlex.quote(str(layout.clips))}",
        )
    return True


def _program_of(folder: Path) -> str:
    return next((program for program, clips in _CLIPS.items() if (folder / clips).is_dir()), "")


def open_foreign(folder: Path, layout: Layout, *, progress: Progress = Silent()) -> ForeignReport:
    """Import a folder of RVC WebUI (``logs/<name>``) or Applio as an experiment.

    Nothing is held out: a checkpoint was trained on all recordings.

    Raises
    ------
    StageOrderError, StorageError
        When it is not such a folder, or holds links, which may lead anywhere.
    DatasetError, WeightsError
        When its list or its checkpoints are damaged, or no clip can be read.
    MismatchError
        When RVC does not support its decoder or sample rate, or it was trained with another content encoder.
    SettingsError
        When an experiment of that name exists.
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
    clips, rates_hz = _clips(folder / _CLIPS[program], listed)
    last, uses_f0 = max(clip.speaker for clip in clips), not rows or rows[0].f0_hz is not None
    name, spec = _architecture(folder, checkpoint, rates_hz, uses_f0=uses_f0)
    if last >= spec.speakers:
        raise DatasetError(
            f"filelist.txt names speaker {last}, the voice has {spec.speakers} speakers",
            hint="extract the features again in that program",
        )
    progress.start(f"importing {counted(len(clips), 'clip')} from {program} for {name}", len(clips))
    with folder_atomically(layout.root) as root:
        staged = Layout(root, layout.name)
        ensure_room(root, round(6 * spec.sample_rate * sum(clip.seconds for clip in clips)))
        _copy(folder, clips, checkpoint, staged, progress)
        Manifest(clips).save(staged)
        stamp(staged, "prepare", {"opened": program, "clips": [clip.id for clip in clips]})
        speakers = [str(row) for row in range(last + 1)] if last else []
        dataset = f"recordings of {folder}"
        ExperimentRecord(layout.name, dataset, name, spec.uses_f0, spec.speakers, speakers).save(staged)
    return ForeignReport(
        str(layout.root),
        program,
        name,
        len(clips),
        round(sum(clip.seconds for clip in clips), 3),
        checkpoint.generator["iteration"] if checkpoint else None,
        [*_warnings(folder, checkpoint, clips, listed), *_missing_encoder(spec)],
    )


def _copy(folder: Path, clips: list[Clip], checkpoint: Checkpoint | None, staged: Layout, progress: Progress) -> None:
    for clip in clips:
        audio = read_audio(folder / _CLIPS[_program_of(folder)] / f"{clip.id}.wav")
        audio.save(staged.clips / f"{clip.id}.wav", float32=True)
        audio.resample(16_000).save(staged.clips_16k / f"{clip.id}.wav", float32=True)
        progress.advance(clip.id)
    if checkpoint:
        for path in (staged.generator(checkpoint.step), staged.discriminator(checkpoint.step)):
            copy_inside(folder / path.name, path)


def _clips(folder: Path, listed: dict[str, int]) -> tuple[list[Clip], list[int]]:
    """All readable clips, or those that training used, if it `listed` them with their speakers; and their rates.

    Clips are named RECORDING_NUMBER. Their positions in the recording are unknown, so each starts where the previous
    one ends.
    """
    clips, rates_hz, ends = [], set(), dict[str, float]()
    for path in sorted(folder.glob("*.wav"), key=lambda path: [(len(part), part) for part in path.stem.split("_")]):
        try:
            header = soundfile.info(path)
        except soundfile.LibsndfileError:
            continue
        if path.stem in (listed or {path.stem}):
            recording = path.stem.rpartition("_")[0] or path.stem
            start = ends.get(recording, 0.0)
            ends[recording] = start + header.duration
            clips.append(Clip(path.stem, recording, start, header.duration, False, listed.get(path.stem, 0)))
            rates_hz.add(header.samplerate)
    if not clips:
        raise DatasetError(f"no clip in {folder} can be read", hint="copy the folder again")
    return clips, sorted(rates_hz)


def _architecture(
    folder: Path, checkpoint: Checkpoint | None, rates_hz: list[int], *, uses_f0: bool
) -> tuple[str, VoiceSpec]:
    """The preset, and the architecture of the checkpoint or, without one, of a new voice."""
    spec = None
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
    return name, spec


def _warnings(folder: Path, checkpoint: Checkpoint | None, clips: list[Clip], listed: dict[str, int]) -> Iterator[str]:
    """What you should know before you resume training."""
    if lost := sorted(listed.keys() - {clip.id for clip in clips}):
        yield f"{counted(len(lost), 'clip')} of filelist.txt cannot be read: {', '.join(lost[:5])}"
    yield "nothing is held out, so the verdict cannot say which voice is the best" + (
        ": the checkpoint was trained on every recording" if checkpoint else "; rvc prepare with the recordings can"
    )
    trained = read_or(folder / "config.json", dict[str, Any], {}).get("train")
    if checkpoint and _program_of(folder) == "RVC WebUI" and isinstance(trained, dict) and "fp16_run" not in trained:
        yield "it was trained with the spectrogram epsilon of RVC WebUI 2026: resume with --mel-epsilons 2026"


def _missing_encoder(spec: VoiceSpec) -> Iterator[str]:
    """What extracting and training need that is not on this machine."""
    try:
        content_identity(content_name("auto", spec), spec.content_width)
    except (WeightsError, ResourceError) as error:
        yield f"to train it, first get its encoder: {error}; {error.hint}"
