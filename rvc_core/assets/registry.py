"""Weights that are not part of the package: their names, folders, hashes and download.

Names are paths below RVC WebUI's folder ``assets``, so both programs can share one folder.
"""

import functools
import json
import os
import urllib.parse
from dataclasses import dataclass
from pathlib import Path

from ..embedded import BASE_DISCRIMINATOR_FILE, BASE_GENERATOR_FILE
from ..errors import SettingsError, WeightsError
from ..presets import PRESETS, VoiceSpec
from ..progress import Progress
from ..system.download import Patience, download, partial_of
from ..system.files import sha256_of
from ..system.platforms import home

_HUB = "https://huggingface.co/lj1995/VoiceConversionWebUI/resolve/main"
_FOLDERS = {"v1": "pretrained", "v2": "pretrained_v2"}
CONTENTVEC = "hubert_base"
RMVPE = "rmvpe/rmvpe.pt"
SEPARATION = {  # files that separate each kind, in the order in which they are preferred
    "vocals": (
        "pymss_weights/model_bs_roformer_ep_368_sdr_12.9628.ckpt",
        "pymss_weights/model_bs_roformer_ep_317_sdr_12.9755.ckpt",
    ),
    "lead": ("pymss_weights/model_mel_band_roformer_karaoke_aufr33_viperx_sdr_10.1956.ckpt",),
    "dereverb": (
        "pymss_weights/dereverb_mel_band_roformer_less_aggressive_anvuew_sdr_18.8050.ckpt",
        "pymss_weights/dereverb_mel_band_roformer_anvuew_sdr_19.1729.ckpt",
    ),
}


@dataclass(frozen=True)
class Asset:
    """One file that can be downloaded.

    Attributes
    ----------
    name : str
        Its path below ``RVC_HOME/assets``.
    hub_path : str
        Its path in RVC's repository of weights.
    size_bytes : int or None
        As reported by others, only shown. The hash decides which file is right.
    licence : str
        ``MIT`` for RVC's own files and those of MIT-licensed projects, as its repository declares; ``unknown`` for the
        separation models of other authors in that repository.
    """

    name: str
    hub_path: str
    sha256: str
    size_bytes: int | None
    licence: str

    @property
    def url(self) -> str:
        """Its address in RVC's repository, or in the mirror that ``RVC_HUB`` names."""
        return f"{(os.environ.get('RVC_HUB') or _HUB).rstrip('/')}/{urllib.parse.quote(self.hub_path)}"


@functools.cache
def assets() -> dict[str, Asset]:
    """All files that can be downloaded, by name.

    Examples
    --------
    >>> assets()["rmvpe/rmvpe.pt"].sha256[:8]
    '6d62215f'
    """
    rows = json.loads(Path(__file__).with_name("weights.json").read_text("utf-8"))
    return {
        row["name"]: Asset(row["name"], row["hub_path"], row["sha256"], row["bytes"], row["licence"]) for row in rows
    }


def choose(names: list[str]) -> list[Asset]:
    """Find files by name, folder, unique file name, preset, or what they separate (``vocals``: the best for it).

    Raises
    ------
    SettingsError
        If a word fits no file, or several.

    Examples
    --------
    >>> [asset.name for asset in choose(["rmvpe.pt", "v2-40k"])][:3]
    ['rmvpe/rmvpe.pt', 'pretrained_v2/f0G40k.pth', 'pretrained_v2/f0D40k.pth']
    """
    chosen: dict[str, Asset] = {}
    for name in names:
        if name in PRESETS and PRESETS[name].version in _FOLDERS:
            parts = [*base_names(PRESETS[name]), CONTENTVEC, RMVPE]
        elif name in SEPARATION:
            parts = [SEPARATION[name][0]]
        else:
            parts = [name]
        for part in parts:
            found = [asset for asset in assets().values() if asset.name == part or asset.name.startswith(f"{part}/")]
            found = found or [asset for asset in assets().values() if asset.name.endswith(f"/{part}")]
            if not found or len(found) > 1 and found[0].name.endswith(f"/{part}"):
                several = ", ".join(asset.name for asset in found)
                raise SettingsError(
                    f"no file of weights has the name {name!r}" if not found else f"{name} can mean {several}",
                    hint=f"use a name from rvc weights list, a folder, a preset (v2-40k), or {', '.join(SEPARATION)}",
                )
            chosen |= {asset.name: asset for asset in found}
    return list(chosen.values())


def places(name: str) -> list[Path]:
    """Where a file or folder of weights is searched: RVC WebUI's ``assets``, then ``weights``, both in ``RVC_HOME``.

    Downloads go to the first one.
    """
    return [home() / parent / name for parent in ("assets", "weights")]


def find(name: str) -> Path | None:
    """Path of the file with this name, or None."""
    return next((path for path in places(name) if path.is_file()), None)


def missing(name: str, what: str, otherwise: str = "") -> WeightsError:
    """Error for a missing file or folder: which one, where to get it, where to put it."""
    return WeightsError(
        f"{what} is not at {places(name)[0]}", hint=f"get it with: rvc weights fetch {name}; or put it there{otherwise}"
    )


def fetch(asset: Asset, progress: Progress | None = None, patience: Patience = Patience()) -> Path:
    """Return the path of a file with the right hash; download the file if it is missing.

    Raises
    ------
    WeightsError
        If it cannot be downloaded, or another file is in its place.
    """
    if (path := find(asset.name)) is None:
        return download(asset.url, places(asset.name)[0], asset.sha256, progress, patience)
    require_hash(path, asset.sha256)
    return path


def require_hash(path: Path, sha256: str) -> None:
    """Raise a WeightsError with both hashes if a file has another hash."""
    if (found := sha256_of(path)) != sha256:
        raise WeightsError(
            f"{path} has the sha256 {found}, not {sha256}",
            hint="it is damaged, or another file with that name: move it away, then: rvc weights fetch",
        )


def state_of(asset: Asset, verify: bool = False) -> str:
    """``there``, ``partial`` or ``missing``. With `verify`, which reads the file: ``verified`` or ``damaged``."""
    path = find(asset.name)
    if path is None:
        return "partial" if partial_of(places(asset.name)[0]).is_file() else "missing"
    if not verify:
        return "there"
    return "verified" if sha256_of(path) == asset.sha256 else "damaged"


def base_names(spec: VoiceSpec) -> tuple[str, str]:
    """Names of the base generator and discriminator for a v1 or v2 architecture."""
    prefix = f"{_FOLDERS[spec.version]}/{'f0' if spec.uses_f0 else ''}"
    return f"{prefix}G{spec.rate_name}.pth", f"{prefix}D{spec.rate_name}.pth"


def base_files(spec: VoiceSpec, generator: str, discriminator: str) -> tuple[Path | None, Path | None]:
    """Files of the base generator and discriminator. None: random initial weights.

    Parameters
    ----------
    spec : VoiceSpec
    generator, discriminator : str
        ``auto`` (the base for this architecture), ``none``, or a path.

    Raises
    ------
    WeightsError
        If a file is missing, because training from scratch by accident costs days.
    """
    return _base_file(spec, generator, 0), _base_file(spec, discriminator, 1)


def _base_file(spec: VoiceSpec, wanted: str, which: int) -> Path | None:
    if wanted == "none":
        return None
    scratch = "; or train from scratch with --base-generator none --base-discriminator none"
    if wanted != "auto":
        path = Path(wanted).expanduser()
        if not path.is_file():
            raise WeightsError(f"the base model {path.name} is not at {path.parent}", hint=f"check its path{scratch}")
        return path
    if spec.version == "nano":
        embedded = (BASE_GENERATOR_FILE, BASE_DISCRIMINATOR_FILE)
        there = spec.uses_f0 and all(path.exists() for path in embedded)
        return embedded[which] if there else None
    name = base_names(spec)[which]
    if (found := find(name)) is None:
        raise missing(name, f"the base model {Path(name).name} of {spec.version} {spec.rate_name}", scratch)
    return found
