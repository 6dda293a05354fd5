"""Find and publish voices with their indexes. A new voice appears only after it was read back and tested."""

import math
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch

from ..errors import MismatchError, SettingsError, WeightsError
from ..features.faiss_file import read_note, save_arrays
from ..features.retrieval import FeatureIndex
from ..presets import VoiceSpec
from ..system.files import folder_atomically
from ..workspace.layout import Layout, typed, voice_names
from ..workspace.stamps import content_of, stamp_of
from ..workspace.voice_file import VoiceFile, load_voice, synthesizer_of

_SILENT_RMS = 1e-6


@dataclass(frozen=True)
class MadeVoice:
    """A voice that was written, read back and tested.

    Attributes
    ----------
    rms_db : float
        Level of half a second of its output, in dBFS.
    index : str
        The index that conversion finds for it; empty without one.
    """

    path: str
    name: str
    architecture: str
    rms_db: float
    index: str = ""
    warnings: list[str] = field(default_factory=list)


def find_index(file: Path, voice: VoiceFile) -> tuple[Path | None, list[str]]:
    """The newest index of a voice, beside it or in RVC WebUI's folders, and warnings.

    An index that records its voice is matched by that record. Other indexes are matched by the exact file name that RVC
    or Applio gives them.
    """
    owners, place = voice_names(file, voice.info.name), file.absolute().parent
    places = [place]
    if place.name == "weights":  # RVC WebUI has voices in assets/weights (formerly weights), indexes in logs
        places += [parent / "logs" / owner for parent in list(place.parents)[:2] for owner in sorted(owners)]
    for layout in (Layout(folder, voice.info.name) for folder in places):
        by_name = layout.indexes(voice.spec.version, owners)
        for path in layout.indexes():
            note = read_note(path)
            recorded = (note.get("name"), note.get("version"))
            if recorded == (voice.info.name, voice.spec.version) if note else path in by_name:
                again = f"rvc index {typed(layout.name)}"
                stale = f"the index is out of date, the clips or content features changed: run {again}"
                return path, [stale] if is_stale(layout) else []
    return None, ["no index of this voice was found"]


def is_stale(layout: Layout) -> bool:
    """Whether the clips or content features of an experiment changed after its index was built."""
    made_from = content_of(layout, "index").get("content")
    return layout.experiment.exists() and (made_from is None or made_from != stamp_of(layout, "content"))


def reopened(path: Path, warnings: list[str] | None = None) -> MadeVoice:
    """Load a written voice and its index as conversion does, and synthesise half a second as a test."""
    voice = load_voice(path)
    spec, frames = voice.spec, 50
    generator = torch.Generator().manual_seed(0)
    content = torch.randn(1, frames, spec.content_width, generator=generator)
    f0_hz = torch.full((1, frames), 200.0) if spec.uses_f0 else None
    audio = synthesizer_of(voice).infer(
        content, None if f0_hz is None else (f0_hz / 4).long(), f0_hz, torch.tensor([0]), generator=generator
    )
    rms = float(audio.square().mean().sqrt())
    if not rms > _SILENT_RMS:  # also for NaN
        raise WeightsError(f"{path.name} produces no sound", hint="the voice is damaged: use another one")
    index, _ = find_index(path, voice)
    if index is not None and FeatureIndex.load(index).dimension != spec.content_width:
        raise MismatchError(
            f"the index {index.name} does not match {path.name}", hint="leave the index out, or build it again"
        )
    return MadeVoice(
        str(path),
        voice.info.name,
        architecture_of(spec),
        round(20 * math.log10(rms), 1),
        str(index or ""),
        warnings or [],
    )


def architecture_of(spec: VoiceSpec) -> str:
    """The architecture in words.

    Examples
    --------
    >>> from rvc_core.presets import preset
    >>> architecture_of(preset("v2-40k"))
    'v2, 40k, with pitch'
    """
    return f"{spec.version}, {spec.rate_name}, {'with' if spec.uses_f0 else 'without'} pitch"


def refuse_taken(layout: Layout, hint: str = "choose another --name") -> None:
    """Raise a SettingsError if the folder of `layout` exists."""
    if layout.root.exists():
        raise SettingsError(f"{layout.name!r} already exists in {layout.root}", hint=hint)


def publish(layout: Layout, fill: Callable[[Layout], list[str]]) -> MadeVoice:
    """Make the folder of a new voice. It appears only after `fill` has written the voice and the voice was tested.

    `fill` gets a hidden layout, writes voice and index there, and returns warnings.
    """
    refuse_taken(layout)
    with folder_atomically(layout.root) as hidden:
        staged = Layout(hidden, layout.name)
        warnings = fill(staged)
        made = reopened(staged.voices()[-1], warnings)
    path, index = (str(layout.root / Path(file).name) if file else "" for file in (made.path, made.index))
    return replace(made, path=path, index=index)


def save_index(layout: Layout, index: FeatureIndex, voice: VoiceFile) -> None:
    """Write an index under RVC's file name, with a record of its voice for `find_index`."""
    note = index.note | {"name": voice.info.name, "version": voice.spec.version, "content_name": voice.encoder}
    if voice.info.content_identity:
        note["content_identity"] = voice.info.content_identity
    path = layout.index(max(1, index.lists), voice.spec.version)
    save_arrays(path, replace(index.arrays, note=note))
