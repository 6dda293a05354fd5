"""Stage: import an experiment folder of RVC WebUI or Applio, so that you can resume its training here.

The stage copies clips, pitch, content features and the newest pair of checkpoints to our names and adds our records.
The original folder does not change (foreign_folder.py reads it).
"""

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from ..audio.slicer import Span
from ..audio.waveform import read_audio
from ..errors import DatasetError, MismatchError, ResourceError, SettingsError, WeightsError
from ..features.content import content_encoder
from ..nn.discriminator import Discriminator
from ..nn.layers import Blueprint
from ..nn.synthesizer import Synthesizer
from ..presets import PRESETS, VoiceSpec, preset
from ..progress import Progress, Silent, counted
from ..system.documents import read_or
from ..system.files import ensure_room, folder_atomically, write_text
from ..system.inside import copy_inside
from ..system.untrusted import load_array
from ..workspace.checkpoint import Checkpoint, load_foreign
from ..workspace.filelist import filelist_text, mute_wave
from ..workspace.layout import Layout
from ..workspace.manifest import Clip, ExperimentRecord, Manifest
from ..workspace.rvc_config import VERSIONS
from ..workspace.stamps import stamp, stamp_of
from .foreign_folder import ClipParts, ForeignFolder, clip_parts, read_foreign, unvoiced_kind
from .heldout import choose_heldout

_SAME_ENCODER = 0.05  # largest difference / largest value: half precision gives 0.01, another encoder 1
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
    unvoiced : str
        Pitch of unvoiced frames: ``0 Hz``, ``interpolated`` or ``mixed``; empty without f0.
    content_identity : str
        Encoder of its features, verified; empty if that was not possible.
    """

    path: str
    program: str
    preset: str
    clips: int
    heldout_clips: int
    seconds: float
    epoch: int | None
    unvoiced: str
    content_identity: str
    warnings: list[str] = field(default_factory=list)


def open_foreign(folder: Path, layout: Layout, *, progress: Progress = Silent()) -> ForeignReport:
    """Import a folder of RVC WebUI (``logs/<name>``) or Applio as an experiment.

    Without a checkpoint, whole recordings are held out, as in `prepare`. A checkpoint was trained on all recordings, so
    then none are held out. If `folder` is the experiment's own folder and from RVC WebUI, it is opened in place.

    Raises
    ------
    StageOrderError
        When it is not such a folder, or its features are not extracted.
    DatasetError
        When its list is damaged, or no clip is complete.
    MismatchError
        When its features come from another encoder, or RVC does not support its decoder or sample rate.
    WeightsError
        When its checkpoints are damaged.
    SettingsError
        When an experiment of that name exists.
    """
    source = read_foreign(folder.absolute())
    in_place = folder.resolve() == layout.root.resolve() and source.program == "RVC WebUI"
    if layout.experiment.exists() or (layout.root.exists() and not in_place):
        raise SettingsError(f"{layout.name!r} already exists in {layout.root}", hint="choose another --name")
    checkpoint = load_foreign(Layout(source.folder, layout.name))
    spec = _architecture(source, checkpoint)
    identity = _content_identity(source, spec)
    clips = _clips_of(source, hold_out=checkpoint is None and not in_place)
    amount = counted(len(clips), "clip")
    progress.say(f"{source.folder} comes from {source.program}: {amount} for {spec.version} {spec.rate_name}")
    with contextlib.nullcontext(layout.root) if in_place else folder_atomically(layout.root) as root:
        staged = Layout(root, layout.name)
        if not in_place:
            _copy(source, staged, spec, clips, checkpoint)
        has_mute = _copy_mute(source, staged, spec)
        unvoiced = unvoiced_kind(source.pitch_tracks()) if spec.uses_f0 else ""
        _describe(source, staged, layout, spec, clips, {"identity": identity, "unvoiced": unvoiced, "mute": has_mute})
    return ForeignReport(
        str(layout.root),
        source.program,
        f"{spec.version}-{spec.rate_name}",
        len(clips),
        sum(clip.heldout for clip in clips),
        round(sum(clip.seconds for clip in clips), 3),
        checkpoint.generator["iteration"] if checkpoint else None,
        unvoiced,
        identity,
        [
            *_warnings(source, checkpoint, clips, unvoiced, identity),
            *([] if has_mute else ["the silent clip is missing beside the folder: run rvc extract to make one"]),
        ],
    )


def _architecture(source: ForeignFolder, checkpoint: Checkpoint | None) -> VoiceSpec:
    """The architecture of clips and features, with the checkpoint's number of speakers."""
    rates = {files.rate_hz for files in source.files.values()}
    widths = {files.width for stem, files in source.files.items() if source.complete(stem)}
    if not widths:
        raise DatasetError(f"no clip in {source.folder} is complete", hint="copy the folder again")
    names = [f"{VERSIONS.get(width)}-{rate // 1000}k" for width in widths for rate in rates]
    if len(names) > 1 or names[0] not in PRESETS:
        raise MismatchError(
            f"RVC has no voice for clips of {sorted(rates)} Hz with features of width {sorted(widths)}",
            hint="use v1 or v2 at 32, 40 or 48 kHz: extract the features again in that program",
        )
    spec = preset(names[0], uses_f0=source.uses_f0)
    if checkpoint:
        table = checkpoint.generator["model"].get("emb_g.weight")
        spec = replace(spec, speakers=len(table) if table is not None and table.dim() else spec.speakers)
        _refuse_other_networks(spec, checkpoint)
    if max(source.speakers.values()) >= spec.speakers:
        raise DatasetError(
            f"filelist.txt names speaker {max(source.speakers.values())}, the voice has {spec.speakers} speakers",
            hint="extract the features again in that program",
        )
    return spec


def _refuse_other_networks(spec: VoiceSpec, checkpoint: Checkpoint) -> None:
    """Check names and shapes before anything is copied."""
    with Blueprint():
        networks = {"G": Synthesizer(spec), "D": Discriminator.of(spec)}
    for (letter, network), part in zip(networks.items(), (checkpoint.generator, checkpoint.discriminator), strict=True):
        ours = {(key, tuple(value.shape)) for key, value in network.state_dict().items()}
        theirs = {(key, tuple(value.shape)) for key, value in part["model"].items()}
        if different := sorted(ours ^ theirs):
            raise MismatchError(
                f"{letter}_{checkpoint.step}.pth has another architecture than "
                f"{spec.version} {spec.rate_name}: {different[0][0][:80]}",
                hint="only RVC's own network (HiFi-GAN) can resume here; to import the clips only, remove G_ and D_",
            )


def _content_identity(source: ForeignFolder, spec: VoiceSpec) -> str:
    """Verify the features' encoder by encoding one clip again; empty if that is not possible."""
    recorded = read_or(source.folder / "model_info.json", dict[str, Any], {}).get("embedder_model") or "contentvec"
    if recorded != "contentvec":
        raise MismatchError(
            f"its features come from the encoder {str(recorded)[:40]!r}, which is not supported",
            hint="extract them with contentvec in Applio, and train from a base model for contentvec",
        )
    both = {"clips_16k", "features"}
    clip = next((files.paths for files in source.files.values() if both <= files.paths.keys()), None)
    if clip is None:
        return ""
    try:
        encoder = content_encoder("contentvec", spec.content_width)
    except (WeightsError, ResourceError):
        return ""
    theirs, ours = load_array(clip["features"]), encoder(read_audio(clip["clips_16k"], 16_000).samples)
    frames = min(len(ours), len(theirs))
    difference = float(np.abs(ours[:frames] - theirs[:frames]).max() / np.abs(ours[:frames]).max())
    if not difference < _SAME_ENCODER:
        raise MismatchError(
            f"the features of clip {clip['features'].stem} differ by {difference:.2f} from ours",
            hint="another encoder made them: extract them with contentvec in that program",
        )
    return encoder.identity


def _clips_of(source: ForeignFolder, *, hold_out: bool) -> list[Clip]:
    """All clips by recording. Their positions are unknown, so each starts where the previous one ends."""
    recordings: dict[str, list[str]] = {}
    for stem in sorted(source.files, key=lambda stem: [(len(part), part) for part in stem.split("_")]):
        recordings.setdefault(stem.rpartition("_")[0] or stem, []).append(stem)  # clips are RECORDING_NUMBER
    whole = [
        Span(0, sum(round(_PER_SECOND * source.files[stem].seconds) for stem in stems)) for stems in recordings.values()
    ]
    hold_out &= len(whole) > 1 and set(source.speakers.values()) == {0}  # validation uses speaker 0
    chosen = choose_heldout([[span] for span in whole], _PER_SECOND, minutes=None, seed=0) if hold_out else {}
    clips = []
    for number, (recording, stems) in enumerate(recordings.items()):
        start = 0.0
        for stem in stems:
            seconds = source.files[stem].seconds
            clips.append(
                Clip(stem, recording, start, seconds, chosen.get(number) == whole[number], source.speakers[stem])
            )
            start += seconds
    return clips


# -- writing the experiment -----------------------------------------------------------------------------------------
def _copy(
    source: ForeignFolder, staged: Layout, spec: VoiceSpec, clips: list[Clip], checkpoint: Checkpoint | None
) -> None:
    """Copy clips and checkpoint to our names."""
    pair = [staged.generator(checkpoint.step).name, staged.discriminator(checkpoint.step).name] if checkpoint else []
    paths = [path for files in source.files.values() for path in files.paths.values()]
    ensure_room(staged.root, sum(path.stat().st_size for path in [*paths, *(source.folder / name for name in pair)]))
    for clip in clips:
        _copy_clip(source.files[clip.id], staged.heldout if clip.heldout else staged, spec)
    for name in pair:
        copy_inside(source.folder / name, staged.root / name)


def _copy_clip(files: ClipParts, place: Layout, spec: VoiceSpec) -> None:
    folders = {
        "clips": place.clips,
        "clips_16k": place.clips_16k,
        "features": place.features(spec.content_width),
        **({"f0_coarse": place.f0_coarse, "f0_hz": place.f0_hz} if spec.uses_f0 else {}),
    }
    for part, folder in folders.items():
        if part in files.paths:
            folder.mkdir(parents=True, exist_ok=True)
            copy_inside(path := files.paths[part], folder / path.name, root=path.parents[2])


def _copy_mute(source: ForeignFolder, staged: Layout, spec: VoiceSpec) -> bool:
    """Copy the silent clip, which both programs keep beside experiments; False if it is incomplete."""
    name = mute_wave(staged.mute, spec).name
    files = clip_parts(source.folder.parent / "mute", source.parts, "mute", name)
    if files is None or not replace(source, files={"mute": files}).complete("mute"):
        return False
    _copy_clip(files, staged.mute, spec)
    return files.rate_hz == spec.sample_rate and files.width == spec.content_width


def _describe(
    source: ForeignFolder, staged: Layout, layout: Layout, spec: VoiceSpec, clips: list[Clip], found: dict[str, Any]
) -> None:
    """Write the records that later stages read, experiment.json last. The paths are those of `layout`."""
    listed = {clip.id: clip.speaker for clip in clips if source.complete(clip.id) and not clip.heldout}
    Manifest(clips).save(staged)
    stamp(staged, "prepare", {"opened": source.program, "clips": [clip.id for clip in clips]})
    prepared = stamp_of(staged, "prepare")
    stamp(
        staged,
        "content",
        {"name": "contentvec", "width": spec.content_width, "identity": found["identity"], "prepare": prepared},
    )
    if spec.uses_f0 and all({"f0_coarse", "f0_hz"} <= files.paths.keys() for files in source.files.values()):
        stamp(staged, "f0", {"method": f"{source.program}, {found['unvoiced']}", "prepare": prepared})
    write_text(staged.filelist, filelist_text(layout, spec, listed, with_mute=found["mute"]))
    last = max(source.speakers.values())
    ExperimentRecord(
        layout.name,
        f"recordings of {source.folder}",
        f"{spec.version}-{spec.rate_name}",
        spec.uses_f0,
        spec.speakers,
        [str(row) for row in range(last + 1)] if last else [],
    ).save(staged)


def _warnings(
    source: ForeignFolder, checkpoint: Checkpoint | None, clips: list[Clip], unvoiced: str, identity: str
) -> Iterator[str]:
    """What you should know before you resume training."""
    absent = [stem for stem in source.speakers if stem not in source.files]
    damaged = [stem for stem in source.files if not source.complete(stem)]
    for stems, what in (
        (absent, "in filelist.txt but not in the folder"),
        (damaged, "with missing or damaged files: run rvc extract to compute them again"),
    ):
        if stems:
            yield f"{counted(len(stems), 'clip')} {what}: {', '.join(stems[:5])}{', …' if len(stems) > 5 else ''}"
    if unvoiced in ("interpolated", "mixed"):
        yield (
            f"the pitch of unvoiced frames is {unvoiced}, so protect has little effect on this voice: "
            "run rvc extract with --f0-method to compute it again"
        )
    if not identity:
        yield "cannot verify that the features come from ContentVec: its weights or the 16 kHz clips are missing"
    if not any(clip.heldout for clip in clips):
        yield "nothing is held out: " + (
            "the checkpoint was trained on every recording"
            if checkpoint
            else "this needs several recordings of one speaker, three minutes in all, and an import as a copy"
        )
    trained = read_or(source.folder / "config.json", dict[str, Any], {}).get("train")
    if source.program == "RVC WebUI" and checkpoint and isinstance(trained, dict) and "fp16_run" not in trained:
        yield "it was trained with the spectrogram epsilon of RVC WebUI 2026: resume with --mel-epsilons 2026"
