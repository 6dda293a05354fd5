"""Merge two voices, change the metadata of a voice, or extract a voice from a training checkpoint.

Source of the arithmetic: RVC WebUI's ``process_ckpt.py``. Unlike there, the architecture is read from the files.
"""

import re
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ..errors import CheckpointError, MismatchError, RVCError, SettingsError
from ..features.content import content_name
from ..features.faiss_file import load_arrays, save_arrays
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
    """Merge the weights of two voices into a new voice called `layout.name`; also their indexes if both have one.

    Both voices must have the same architecture and content encoder. The new voice has the smaller number of speakers.
    `alpha` is the weight of the first voice, 0 to 1.
    """
    if not 0 <= alpha <= 1:
        raise SettingsError(f"alpha {alpha:g} is out of range", hint="choose 0 (only the second) to 1 (only the first)")
    refuse_taken(layout)
    one, other = load_voice(first), load_voice(second)
    voice = mixed(one, other, alpha, layout.name)
    found = [find_index(first, one), find_index(second, other)]
    indexes = [index for index, _ in found if index is not None]

    def fill(staged: Layout) -> list[str]:
        ensure_room(staged.root, sum(path.stat().st_size for path in (first, *indexes)))
        save_voice(staged.final_voice, voice)
        if len(indexes) < 2:
            return ["no index was made, because only one of the voices has one"] if indexes else []
        features = np.concatenate([FeatureIndex.load(path).features for path in indexes])
        save_index(staged, FeatureIndex.build(features, IndexSettings()), voice)
        return [warning for _, warnings in found for warning in warnings]

    return publish(layout, fill)


def mixed(first: VoiceFile, second: VoiceFile, alpha: float, name: str) -> VoiceFile:
    """Weighted average of two voices: ``alpha * first + (1 - alpha) * second``, in float32."""
    one, other = first.info, second.info
    refused = f"{one.name!r} and {other.name!r} cannot be merged"
    for item in fields(VoiceSpec):
        values = [getattr(spec, item.name) for spec in (first.spec, second.spec)]
        if values[0] != values[1] and item.name != "speakers":
            raise MismatchError(
                f"{refused}: {item.name} is {values[0]} in the first, {values[1]} in the second",
                hint="merge voices with the same version, sample rate and use of pitch",
            )
    encoders = [f"{voice.encoder} {voice.info.content_identity}".strip() for voice in (first, second)]
    identities = {one.content_identity, other.content_identity} - {""}
    if first.encoder != second.encoder or len(identities) > 1:
        raise MismatchError(
            f"{refused}: they use different content encoders ({' and '.join(encoders)})",
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
    """Change the name, the author or the note (the text that RVC shows as info) of a voice file.

    The index beside the voice is updated too, because it records the name of its voice.
    """
    labels = {"note": note, "name": name, "author": author}
    given: dict[str, Any] = {key: text_of(value) for key, value in labels.items() if value is not None}
    if not given:
        raise SettingsError("nothing to change", hint="give --note, --name or --author")
    voice = load_voice(path)
    index, _ = find_index(path, voice)
    renamed = replace(voice, info=replace(voice.info, **given))
    save_voice(path, renamed)
    if index is not None and (arrays := load_arrays(index)).note:
        save_arrays(index, replace(arrays, note=arrays.note | {"name": renamed.info.name}))
    return reopened(path)


# -- checkpoints ---------------------------------------------------------------------------------------------------
def extract_voice(checkpoint: Path, output: Path | None = None, *, name: str = "") -> MadeVoice:
    """Extract the small voice file from a ``G_*.pth`` of rvc_core, RVC WebUI or Applio, or from a base model.

    The architecture is read from the weights; other metadata from the experiment around the checkpoint, if there is
    one. Without `output`, the voice is written beside the checkpoint, under the file name that training uses.
    """
    if output is not None and (output.suffix.lower() not in (".pth", ".safetensors") or output == checkpoint):
        raise SettingsError(f"{output} cannot be the voice file", hint="choose another file name that ends in .pth")
    content = load_torch(checkpoint)
    model = content.get("model") if isinstance(content, dict) else None
    if not isinstance(model, dict) or "emb_g.weight" not in model:
        what = (
            "is already a voice"
            if isinstance(content, dict) and "weight" in content
            else "is a discriminator"
            if isinstance(model, dict)
            else "is not a training checkpoint"
        )
        raise CheckpointError(f"{checkpoint.name} {what}", hint="choose a generator checkpoint: G_….pth")
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
    except RVCError:  # an experiment of another program, or a single file
        return layout
