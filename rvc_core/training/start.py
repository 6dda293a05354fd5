"""How a training begins: its clips, its batch size, and weights from base models or from the newest checkpoint."""

from dataclasses import dataclass, replace

import torch

from ..assets.registry import base_files
from ..errors import DatasetError, MismatchError, ResourceError
from ..features.content import content_name
from ..nn.loading import load_strictly
from ..nn.rate_change import at_rate
from ..presets import VoiceSpec
from ..progress import Progress
from ..settings import TrainSettings
from ..system.files import ensure_room
from ..workspace import stamps
from ..workspace.checkpoint import Checkpoint, continue_optimizer, load_base
from ..workspace.dataset import Batch, ClipStore, ClipTensors
from ..workspace.filelist import ClipFiles, read_filelist
from ..workspace.layout import LATEST_ONLY, Layout
from ..workspace.manifest import Manifest
from ..workspace.voice_file import VoiceInfo, median_f0_hz, voice_info
from .memory import MOST_CLIPS, Portions, available_bytes, largest_batch, measured_memory
from .position import Position
from .precision import Precision, native_precision
from .step import Networks, train_step
from .validate import heldout_files

_RESIDENT_SHARE = 0.25  # of a GPU's memory, at the most, for clips: networks and batches need the rest


@dataclass(frozen=True)
class Data:
    """What a voice is trained on: clips, held-out clips, and what its files say about it."""

    clips: ClipStore
    heldout: ClipStore
    info: VoiceInfo


def load_data(
    layout: Layout, spec: VoiceSpec, speakers: list[str], settings: TrainSettings, device: torch.device
) -> Data:
    """The clips of an experiment, kept in the GPU's memory where they are small enough.

    Raises
    ------
    StageOrderError, DatasetError
        When features were not extracted, or the file list names no clip.
    """
    files = read_filelist(layout.filelist)
    if settings.groups:
        files = _of_groups(layout, files, [name.strip() for name in settings.groups.split(",")])
    if not files:
        raise DatasetError(f"{layout.filelist} names no clip", hint="run: rvc prepare, rvc extract")
    medians_hz = {
        name: median_f0_hz([file for file in files if file.speaker == row]) for row, name in enumerate(speakers)
    }
    info = replace(voice_info(layout, files), mel_epsilons=spec.mel_epsilons, speakers=medians_hz)
    clips = ClipStore(files, spec)
    if device.type == "cuda":
        torch.set_float32_matmul_precision("high")  # TF32, which convolutions use anyway
        clips.reside(device, _RESIDENT_SHARE * available_bytes(device))
    return Data(clips, ClipStore(heldout_files(layout, spec), spec), info)


def _of_groups(layout: Layout, files: list[ClipFiles], wanted: list[str]) -> list[ClipFiles]:
    """The clips of some groups, and the silent clip."""
    group_of = {clip.id: clip.group for clip in Manifest.load(layout).training}
    known = sorted({*group_of.values()} - {""})
    if unknown := [name for name in wanted if name not in known]:
        raise DatasetError(
            f"there is no group {unknown[0]!r}",
            hint=f"choose from: {', '.join(known)}" if known else "leave out groups: these clips form none",
        )
    return [file for file in files if group_of.get(file.wave.stem, wanted[0]) in wanted]


# -- batch size ----------------------------------------------------------------------------------------------------
def measured_batch_size(
    spec: VoiceSpec, clips: ClipStore | list[ClipTensors], settings: TrainSettings, device: torch.device
) -> int:
    """As many clips as fit into memory, by real steps of other networks with the longest clip there is."""
    networks = Networks.fresh(spec, seed=settings.seed, device=device)
    networks.compute_in(
        (native_precision(device) if settings.precision == "auto" else Precision(settings.precision, "")).dtype
    )
    longest = clips[max(range(len(clips)), key=lambda index: clips[index].frames)].excerpt(0, spec.excerpt_frames)

    def peak_bytes(count: int) -> int:
        portions, batch = Portions(count), Batch.of([longest] * count, device)
        with measured_memory(device) as memory:
            train_step(networks, batch, portions=portions)
        if portions.clips < count:
            raise torch.OutOfMemoryError(f"{count} clips do not fit")
        return memory.peak_bytes

    return largest_batch(peak_bytes, available_bytes(device), most=min(len(clips), MOST_CLIPS))


# -- weights -------------------------------------------------------------------------------------------------------
def load_bases(networks: Networks, settings: TrainSettings, info: VoiceInfo) -> str:
    """Start from base weights, or from random ones; returns which, in words.

    Raises
    ------
    MismatchError
        When the base weights were trained on another content encoder, or are of another architecture.
    WeightsError
        When a file is missing.
    """
    spec, encoder = networks.spec, content_name("auto", networks.spec)
    bases = base_files(spec, settings.base_generator, settings.base_discriminator)
    if bases[0] and settings.base_generator == "auto" and info.content_name not in ("", encoder):
        raise MismatchError(
            f"{bases[0].name} was trained on features of {encoder}, and these are of {info.content_name}",
            hint="extract with --content auto, or name a --base-generator made for these",
        )
    for path, network in zip(bases, (networks.generator, networks.discriminator), strict=True):
        if path is not None:
            load_strictly(network, at_rate(load_base(path), spec), path.name)
    return f"starting from {bases[0].name}" if bases[0] else "starting from random weights"


def load_checkpoint(networks: Networks, checkpoint: Checkpoint) -> None:
    """Put a checkpoint's weights and moments into the networks.

    Raises
    ------
    MismatchError, CheckpointError
        When it is of another architecture.
    """
    for part, network, optimizer, letter in (
        (checkpoint.generator, networks.generator, networks.generator_optimizer, "G"),
        (checkpoint.discriminator, networks.discriminator, networks.discriminator_optimizer, "D"),
    ):
        name = f"{letter}_{checkpoint.step}.pth"
        hint = "the checkpoint is of another architecture: train under another name"
        load_strictly(network, part["model"], name, hint=hint)
        continue_optimizer(optimizer, part, network, name)


def refuse_other_beginning(checkpoint: Checkpoint, settings: TrainSettings, info: VoiceInfo) -> None:
    """Raise a MismatchError when this training began with other spectrograms or another content encoder."""
    state = checkpoint.state
    for what, before, now in (
        ("mel_epsilons", state.get("settings", {}).get("mel_epsilons"), settings.mel_epsilons),
        ("the content encoder", state.get("content_identity"), info.content_identity),
    ):
        if before and before != now:
            raise MismatchError(
                f"this training was begun with {what} {before}, not {now}",
                hint="go back to that, or train under another name",
            )


def resumed_position(
    checkpoint: Checkpoint, layout: Layout, settings: TrainSettings, *, clips_per_step: int, steps_per_epoch: int
) -> tuple[Position, str]:
    """Where a checkpoint resumes, and the same in words; its epoch begins again where its batches would be others."""
    state, recorded = checkpoint.state, checkpoint.state.get("settings", {})
    epoch = state.get("epoch", checkpoint.generator["iteration"])
    step = checkpoint.step if checkpoint.step != LATEST_ONLY else epoch * steps_per_epoch
    position, how = Position(step, epoch), f"continuing from step {step}, epoch {epoch}"
    if state.get("data") != stamps.stamp_of(layout, "prepare"):
        return position, f"{how}; the recordings have changed, so this epoch begins again"
    before = (state.get("clips_per_step", recorded.get("batch_size")), recorded.get("seed"))
    if before != (clips_per_step, settings.seed):
        return position, f"{how}; batches are another, so this epoch begins again"
    position.place = state.get("position", 0)
    return position, how


# -- the disk ------------------------------------------------------------------------------------------------------
def ensure_room_for_checkpoints(layout: Layout, networks: Networks, keep: int, progress: Progress) -> None:
    """Refuse to begin without room for one checkpoint and voice; say when fewer fit than are to be kept."""
    generator = sum(parameter.nbytes for parameter in networks.generator.parameters())
    discriminator = sum(parameter.nbytes for parameter in networks.discriminator.parameters())
    pair, voice = 3 * (generator + discriminator), generator // 2  # weights and two moments; float16
    ensure_room(layout.root, pair + voice)
    present = sum(
        layout.generator(step).stat().st_size + layout.discriminator(step).stat().st_size
        for step in layout.generator_steps()
        if layout.discriminator(step).exists()
    )
    wanted = (keep + 1) * pair + voice - present  # a new set is complete before an old one goes
    try:
        ensure_room(layout.root, max(0, wanted))
    except ResourceError as error:
        progress.say(f"{error}: fewer checkpoints will be kept")
