"""Where base models are found: beside the experiments, in RVC WebUI's own folders, or inside the package."""

from pathlib import Path

from .embedded import BASE_DISCRIMINATOR_FILE, BASE_GENERATOR_FILE
from .errors import WeightsError
from .platforms import home
from .presets import VoiceSpec

_FOLDERS = {"v1": "pretrained", "v2": "pretrained_v2"}


def base_files(spec: VoiceSpec, generator: str, discriminator: str) -> tuple[Path | None, Path | None]:
    """Files of the base generator and discriminator; None means random initial weights.

    Parameters
    ----------
    spec : VoiceSpec
    generator, discriminator : str
        ``auto`` for the base of this architecture, ``none``, or a path.

    Raises
    ------
    WeightsError
        When a wanted file is not there; a training from scratch by accident costs days.
    """
    names = _default_files(spec)
    return _resolve(generator, names[0], spec), _resolve(discriminator, names[1], spec)


def _default_files(spec: VoiceSpec) -> tuple[Path | None, Path | None]:
    if spec.version == "nano":
        embedded = (BASE_GENERATOR_FILE, BASE_DISCRIMINATOR_FILE)
        there = spec.rate_name == "16k" and spec.uses_f0 and all(path.exists() for path in embedded)
        return embedded if there else (None, None)
    folder = home() / "assets" / _FOLDERS[spec.version]
    prefix = "f0" if spec.uses_f0 else ""
    return folder / f"{prefix}G{spec.rate_name}.pth", folder / f"{prefix}D{spec.rate_name}.pth"


def _resolve(wanted: str, default: Path | None, spec: VoiceSpec) -> Path | None:
    if wanted == "none":
        return None
    path = default if wanted == "auto" else Path(wanted).expanduser()
    if path is not None and not path.is_file():
        raise WeightsError(
            f"the base model {path.name} of {spec.version} {spec.rate_name} is not at {path.parent}",
            hint="put it there, name another with --base-generator and --base-discriminator, "
                 "or train from scratch with both set to none")
    return path
