"""Voices made of other files: two voices merged, a label changed, a small voice taken out of a training checkpoint.

Source of the arithmetic: RVC WebUI's ``process_ckpt.py``. Labels come from the files here, never from the user.
"""

import re
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ..errors import CheckpointError, MismatchError, RVCError, SettingsError
from ..features.content import content_name
from ..features.retrieval import FeatureIndex
from ..presets import VoiceSpec
from ..settings import IndexSettings, text_of
from ..system.files import ensure_room
from ..system.untrusted import checked_weights, load_torch
from ..workspace.filelist import read_filelist
from ..workspace.layout import LATEST_ONLY, Layout
from ..workspace.manifest import ExperimentRecord
from ..workspace.rvc_config import spec_of_generator
from ..workspace.voice_file import VoiceFile, load_voice, save_voice, voice_info
from .library import MadeVoice, find_index, publish, refuse_taken, reopened, save_index

_CHECKPOINT = re.compile(r"G_(\d+)\.pth")


# -- merging -------------------------------------------------------------------------------------------------------
def merge_voices(first: Path, second: Path, layout: Layout, *, alpha: float = 0.5) -> MadeVoice:
    """Mix the weights of two voices, and their indexes when both have one, into the new voice called `layout.name`.

    The voices are of one architecture and one content encoder; as many speakers remain as the smaller one has.

    Raises
    ------
    SettingsError
        When `alpha`, the share of the first, is none, or there is a voice of that name.
    MismatchError
        When the voices do not go together, naming what differs.
    """
    if not 0 <= alpha <= 1:
        raise SettingsError(f"alpha {alpha:g} is no share", hint="choose 0 (all of the second) to 1 (all of the first)")
    refuse_taken(layout)
    one, other = load_voice(first), load_voice(second)
    voice = mixed(one, other, alpha, layout.name)
    found = [find_index(first, one), find_index(second, other)]
    indexes = [index for index, _ in found if index is not None]

    def fill(staged: Layout) -> list[str]:
        ensure_room(staged.root, sum(path.stat().st_size for path in (first, *indexes)))
        save_voice(staged.final_voice, voice)
        if len(indexes) < 2:
            return ["no index was made: not both voices have one"] if indexes else []
        features = np.concatenate([FeatureIndex.load(path).features for path in indexes])
        save_index(staged, FeatureIndex.build(features, IndexSettings()), voice)
        return [odd for _, warnings in found for odd in warnings]

    return publish(layout, fill)


def mixed(first: VoiceFile, second: VoiceFile, alpha: float, name: str) -> VoiceFile:
    """The voice between two: ``alpha * first + (1 - alpha) * second``, weight by weight, in float32.

    Raises
    ------
    MismatchError
        When they differ in anything but the number of speakers.
    """
    one, other = first.info, second.info
    refused = f"{one.name!r} and {other.name!r} cannot be merged"
    for item in fields(VoiceSpec):
        values = [getattr(spec, item.name) for spec in (first.spec, second.spec)]
        if values[0] != values[1] and item.name != "speakers":
            raise MismatchError(
                f"{refused}: {item.name} is {values[0]} in one, {values[1]} in the other",
                hint="merge voices of the same version, sample rate and pitch choice",
            )
    encoders = [f"{voice.encoder} {voice.info.content_identity}".strip() for voice in (first, second)]
    identities = {one.content_identity, other.content_identity} - {""}
    if first.encoder != second.encoder or len(identities) > 1:
        raise MismatchError(
            f"{refused}: they hear through different content encoders ({' and '.join(encoders)})",
            hint="merge voices that were trained with the same encoder",
        )
    speakers = min(first.spec.speakers, second.spec.speakers)

    def weight_of(voice: VoiceFile, key: str) -> torch.Tensor:
        return (voice.weights[key][:speakers] if key == "emb_g.weight" else voice.weights[key]).float()

    weights = {key: alpha * weight_of(first, key) + (1 - alpha) * weight_of(second, key) for key in first.weights}
    medians_hz = [one.f0_median_hz, other.f0_median_hz]
    info = replace(
        one,
        name=name,
        epoch=0,
        step=0,
        dataset_length="",
        content_identity="".join(identities),
        f0_median_hz=medians_hz[0] ** alpha * medians_hz[1] ** (1 - alpha) if all(medians_hz) else 0.0,
        speakers=one.speakers if one.speakers.keys() == other.speakers.keys() else {},
        author=", ".join(dict.fromkeys(filter(None, (one.author, other.author)))),
        mel_epsilons=one.mel_epsilons if one.mel_epsilons == other.mel_epsilons else "",
        note=f"{alpha:g} {one.name} ({_training_of(first)}) + {1 - alpha:g} {other.name} ({_training_of(second)})",
    )
    return VoiceFile(replace(first.spec, speakers=speakers), weights, info)


def _training_of(voice: VoiceFile) -> str:
    return voice.info.note or (f"{voice.info.epoch} epochs" if voice.info.epoch else "epochs unknown")


# -- labels --------------------------------------------------------------------------------------------------------
def annotate(
    path: Path, *, note: str | float | None = None, name: str | float | None = None, author: str | float | None = None
) -> MadeVoice:
    """Change what a voice file says about itself: the text that RVC shows as its info, its name, its author.

    Weights and everything else stay. An index goes by the voice's name, so the one beside it is told the new one.
    Nothing to change is a SettingsError.
    """
    labels = {"note": note, "name": name, "author": author}
    given: dict[str, Any] = {key: text_of(value) for key, value in labels.items() if value is not None}
    if not given:
        raise SettingsError("nothing to change", hint="give --note, --name or --author")
    voice = load_voice(path)
    index, _ = find_index(path, voice)
    renamed = replace(voice, info=replace(voice.info, **given))
    save_voice(path, renamed)
    if index is not None and (features := FeatureIndex.load(index)).note:
        FeatureIndex.of(replace(features.arrays, note=features.note | {"name": renamed.info.name})).save(index)
    return reopened(path)


# -- checkpoints ---------------------------------------------------------------------------------------------------
def extract_voice(checkpoint: Path, output: Path | None = None, *, name: str = "") -> MadeVoice:
    """Make the small voice of a ``G_*.pth``: ours, RVC WebUI's or Applio's, or a base model.

    The architecture is read from the weights, the rest from the experiment around the checkpoint, if there is one: its
    name too, unless `name` is given. Without `output` the voice is put beside the checkpoint, named as training does.

    Raises
    ------
    CheckpointError
        When it is no generator's checkpoint.
    MismatchError
        When its architecture is none that is known.
    SettingsError
        When `output` is not named as a voice is.
    """
    if output is not None and (output.suffix.lower() not in (".pth", ".safetensors") or output == checkpoint):
        raise SettingsError(f"{output} is no place for the voice", hint="name another file, one that ends in .pth")
    content = load_torch(checkpoint)
    model = content.get("model") if isinstance(content, dict) else None
    if not isinstance(model, dict) or "emb_g.weight" not in model:
        what = (
            "is a voice already"
            if isinstance(content, dict) and "weight" in content
            else "is a discriminator"
            if isinstance(model, dict)
            else "is no training checkpoint"
        )
        raise CheckpointError(f"{checkpoint.name} {what}", hint="name a generator: G_….pth")
    weights = checked_weights(model, checkpoint.name)
    _, spec = spec_of_generator(weights, checkpoint.name)
    layout = _layout_around(checkpoint, name)
    files = read_filelist(layout.filelist) if layout.filelist.is_file() else []
    numbered = _CHECKPOINT.fullmatch(checkpoint.name)
    step = int(numbered[1]) if numbered and int(numbered[1]) != LATEST_ONLY else 0
    epoch, info = content.get("iteration", 0), voice_info(layout, files)
    info = replace(
        info,
        epoch=epoch if isinstance(epoch, int) else 0,
        step=step,
        content_name=info.content_name or content_name("auto", spec),
    )
    path = output or layout.voice(info.epoch, info.step)
    save_voice(path, VoiceFile(spec, weights, info))
    return reopened(path)


def _layout_around(checkpoint: Path, name: str) -> Layout:
    layout = Layout(checkpoint.absolute().parent, name or checkpoint.absolute().parent.name)
    if name:
        return layout
    try:
        return replace(layout, name=ExperimentRecord.load(layout).name)
    except RVCError:  # another program's experiment, or a file by itself
        return layout
