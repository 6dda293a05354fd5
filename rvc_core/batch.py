"""What the unattended notebooks do: a cell of parameters in, a voice or converted recordings and a JSON file out."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from .errors import RVCError
from .experiment import Experiment, FailedFile, Voice
from .files import write_json
from .progress import Terminal
from .settings import (
    ConvertSettings,
    ExtractSettings,
    IndexSettings,
    MirrorSettings,
    PrepareSettings,
    RuntimeSettings,
    Settings,
    TrainSettings,
)

_STAGES = (PrepareSettings, ExtractSettings, TrainSettings, IndexSettings, MirrorSettings)
TRAIN_SETTINGS = (*_STAGES, RuntimeSettings)
CONVERT_SETTINGS = (ConvertSettings, RuntimeSettings)
_LINE_EVERY_SECONDS = 15.0


def parameters_cell(*classes: type[Settings]) -> str:
    """Python text of a papermill parameters cell: every field of the settings, its default and its help.

    Examples
    --------
    >>> parameters_cell(ExtractSettings).splitlines()[0]
    "f0_method = 'auto'   # pitch estimator; auto: the one these clips have, else rmvpe where its file is, else fcpe"
    """
    fields = {name: field for settings in classes for name, field in settings.model_fields.items()}
    return "\n".join(f"{name} = {field.default!r}   # {field.description}" for name, field in fields.items())


def settings_from(settings: type[Settings], parameters: Mapping[str, Any]) -> Any:
    """Settings from a notebook's variables; what is not a field is not looked at.

    Raises
    ------
    SettingsError
        When a value is out of its bounds.
    """
    return settings.of(**{name: parameters[name] for name in settings.model_fields if name in parameters})


def train_voice(name: str, dataset: str, result: str, parameters: Mapping[str, Any]) -> dict[str, Any]:
    """Run all stages and write their reports to the file `result`.

    Raises
    ------
    RVCError
        Whatever a stage raises; the notebook fails with it.
    """
    lab = Experiment.open(name, dataset, runtime=settings_from(RuntimeSettings, parameters),
                          progress=Terminal(line_every_seconds=_LINE_EVERY_SECONDS))
    reports = lab.run(*(settings_from(settings, parameters) for settings in _STAGES))
    write_json(Path(result), reports)
    return reports


def convert_folder(voice: str, inputs: str, output: str, result: str, parameters: Mapping[str, Any],
                   index: str = "auto") -> dict[str, Any]:
    """Convert a recording, or each of a folder, and write what came out to the file `result`.

    Parameters
    ----------
    voice : str
        Name of an experiment, or a ``.pth``.
    inputs, output, result : str
        A recording or a folder of them; the folder for the results; the file for the reports.
    parameters : mapping
        Holds the settings, by field.
    index : str
        ``auto``, ``none`` or a file.

    Raises
    ------
    RVCError
        When a file failed; the others are converted and `result` says which are which.
    """
    progress = Terminal(line_every_seconds=_LINE_EVERY_SECONDS)
    loaded = Voice.load(voice, None if index == "none" else index, runtime=settings_from(RuntimeSettings, parameters))
    results = loaded.convert_all([inputs], output, settings_from(ConvertSettings, parameters), progress=progress)
    reports = {"files": [item.as_json() for item in results]}
    write_json(Path(result), reports)
    if failed := [item for item in results if isinstance(item, FailedFile)]:
        raise RVCError(f"{len(failed)} of {len(results)} files failed: {failed[0].source}: {failed[0].error}",
                       hint=failed[0].hint)
    return reports


def summary(reports: Mapping[str, Any]) -> str:
    """Reports as readable JSON, for a notebook's last line."""
    return json.dumps(reports, indent=2, ensure_ascii=False)
