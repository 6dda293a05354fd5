"""The unattended notebooks: parameters in; a voice or converted recordings, and a JSON report, out.

`execute` runs one notebook with papermill. `run_all` runs them for every voice of a YAML file.
"""

import json
import os
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from typing_extensions import TypedDict

from .audio.recordings import find_recordings
from .conversion.naming import ensure_folder, is_file_name, refuse_missing
from .errors import ResourceError, RVCError, SettingsError, printable
from .experiment import Experiment
from .preparation.incoming import brought, sources
from .preparation.links import is_link
from .progress import Progress, Silent, Terminal
from .settings import (
    ConvertSettings,
    ExtractSettings,
    IndexSettings,
    MirrorSettings,
    PrepareSettings,
    RuntimeSettings,
    SeparateSettings,
    Settings,
    SpeakSettings,
    TrainSettings,
    refuse_unknown,
    text_of,
)
from .song_settings import SongSettings
from .system.documents import Digest, read_json, read_or, read_yaml
from .system.files import sha256_of, signature, slug_of, write_json
from .system.platforms import in_words
from .voice import FailedFile, Voice
from .workspace.layout import Layout

_STAGES = (PrepareSettings, ExtractSettings, TrainSettings, IndexSettings, MirrorSettings)
TRAIN_SETTINGS = (*_STAGES, RuntimeSettings)
CONVERT_SETTINGS = (ConvertSettings, RuntimeSettings)
SONG_SETTINGS = (SongSettings, ConvertSettings, SeparateSettings)
_LINE_EVERY_SECONDS = 15.0  # on stderr, which `execute` passes on; stdout is for the reports
_LONGEST_LINE = 4096
_YAML = (
    "write  runs: [{name: alice, dataset: alice_recordings, convert: songs, epochs: 300}]  (optional:  defaults: {})"
)


class _Mark(TypedDict):
    stamp: str
    sha256: dict[str, Digest]


def parameters_cell(*classes: type[Settings]) -> str:
    """Code of a papermill parameters cell: every field of the settings with its default and help.

    Examples
    --------
    >>> parameters_cell(ExtractSettings).splitlines()[1]
    "content = 'auto'   # Find what is said with this encoder. auto: the preset's own."
    """
    fields = {name: field for settings in classes for name, field in settings.model_fields.items()}
    return "\n".join(f"{name} = {field.default!r}   # {field.description}" for name, field in fields.items())


def settings_from(settings: type[Settings], parameters: Mapping[str, Any]) -> Any:
    """Settings from a notebook's variables; variables that are not settings are ignored."""
    return settings.of(**{name: parameters[name] for name in settings.model_fields if name in parameters})


def train_voice(
    name: str | float, dataset: str | float, result: str | float, parameters: Mapping[str, Any]
) -> dict[str, Any]:
    """Run all stages and write their reports to the file `result`.

    Parameters
    ----------
    dataset : str
        A folder, a recording, a zip, a pattern or a link.
    """
    progress = Terminal(sys.stderr, _LINE_EVERY_SECONDS)
    runtime = settings_from(RuntimeSettings, parameters)
    lab = Experiment.open(
        name, brought(text_of(dataset), Layout.of(name).name, progress), runtime=runtime, progress=progress
    )
    reports = lab.run(*(settings_from(settings, parameters) for settings in _STAGES))
    write_json(Path(text_of(result)), reports)
    return reports


def convert_folder(
    voice: str | float,
    inputs: str | float,
    output: str | float,
    result: str | float,
    parameters: Mapping[str, Any],
    index: str | float | None = "auto",
) -> dict[str, Any]:
    """Convert recordings, sing songs, or speak the parameters' text; write the reports to the file `result`.

    Parameters
    ----------
    voice : str
        Name of an experiment, or a ``.pth``.
    inputs, output, result : str
        Recordings: a file, a folder, a zip, a pattern or a link; the folder for the results; the file for the reports.
    parameters : mapping
        Settings by name; ``song``: whether the recordings are songs to be sung; ``backing_voice``: sings in their
        background.
    index : str
        ``auto``, ``none`` or a file.

    Raises
    ------
    RVCError
        When a file or a sentence failed. The others are converted; `result` lists both.
    """
    progress, runtime = Terminal(sys.stderr, _LINE_EVERY_SECONDS), settings_from(RuntimeSettings, parameters)
    settings, speech = settings_from(ConvertSettings, parameters), settings_from(SpeakSettings, parameters)
    chosen = [settings_from(one, parameters) for one in SONG_SETTINGS]
    own_index, folder, backing = text_of(index or "none"), text_of(output), text_of(parameters.get("backing_voice"))
    refuse_missing(settings, text_of(voice), backing, index=own_index)
    if not is_file_name(folder):
        ensure_folder(folder)
    files = [] if speech.text else sources(text_of(inputs), "to convert", progress)
    loaded = Voice.load(text_of(voice), None if own_index == "none" else own_index, runtime=runtime)
    if speech.text:
        return _spoken(loaded, speech, settings, folder, Path(text_of(result)))
    results = list[Any]()
    if parameters.get("song") in (True, "True", "true"):
        second = Voice.load(backing, runtime=runtime) if backing else None
        results += loaded.sing_all(files, folder, *chosen, backing=second, progress=progress)
    else:
        results += loaded.convert_all(files, folder, settings, progress=progress)
    reports = {"files": [item.as_json() for item in results]}
    write_json(Path(text_of(result)), reports)
    if failed := [item for item in results if isinstance(item, FailedFile)]:
        raise RVCError(
            f"{len(failed)} of {len(results)} files failed: {failed[0].source}: {failed[0].error}", hint=failed[0].hint
        )
    return reports


def _spoken(
    voice: Voice, speech: SpeakSettings, settings: ConvertSettings, output: str, result: Path
) -> dict[str, Any]:
    """Speak the text, and write the report."""
    progress = Terminal(sys.stderr, _LINE_EVERY_SECONDS)
    made = voice.speak(speech.text, speech, settings, output=output, progress=progress)
    reports = {"files": [made.as_json()]}
    write_json(result, reports)
    if made.failed:
        first = made.failed[0]
        raise RVCError(f"{len(made.failed)} sentences failed: {first['text']}: {first['error']}", hint=first["hint"])
    return reports


def summary(reports: Mapping[str, Any]) -> str:
    """Reports as indented JSON."""
    return json.dumps(reports, indent=2, ensure_ascii=False)


# -- notebooks, executed -------------------------------------------------------------------------------------------
def execute(notebook: str, place: Path, parameters: Mapping[str, Any], progress: Progress = Silent()) -> dict[str, Any]:
    """Run one of the project's notebooks with papermill, and return the content of its result file.

    Parameters
    ----------
    notebook : str
        ``batch_train`` or ``batch_convert``.
    place : Path
        Path without suffix: the executed notebook becomes ``<place>.ipynb``, its result ``<place>.json``.

    Raises
    ------
    RVCError
        When a cell failed; the executed notebook shows where.
    """
    import papermill
    from nbclient.exceptions import DeadKernelError

    source = Path(__file__).parents[1] / "notebooks" / f"{notebook}.ipynb"
    if not source.exists():
        raise ResourceError(f"{source} is missing", hint="run this command from a clone of the project")
    output, result = place.with_name(f"{place.name}.ipynb"), place.with_name(f"{place.name}.json")
    for path in (output, result):
        path.unlink(missing_ok=True)  # papermill would write through a link
    try:
        papermill.execute_notebook(
            *(str(path).replace("{", "{{").replace("}", "}}") for path in (source, output)),  # papermill formats them
            {**parameters, "result": str(result)},
            log_output=False,
            progress_bar=False,
            cwd=place.parent,
            kernel_name="python3",
            iopub_timeout=60,
            extra_arguments=["--IPKernelApp.log_level=40"],  # errors only
            stderr_file=_Relay(progress),
        )
    except papermill.PapermillExecutionError as error:
        told = [line.removeprefix("→ ").strip() for line in error.traceback if line.startswith("→ ")]
        raise RVCError(
            f"{notebook}.ipynb failed: {error.evalue}", hint="; ".join([*told, f"the whole output is in {output}"])
        ) from error
    except DeadKernelError as error:
        raise RVCError(
            f"the process that ran {notebook}.ipynb was killed",
            hint="it probably ran out of memory: close other programs, then run this again",
        ) from error
    return read_json(result, dict[str, Any], "run this again")


class _Relay:
    """A stream that passes a notebook's progress lines on."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress

    def write(self, text: str) -> None:
        """Pass on lines that are not blank."""
        for line in filter(str.strip, text.splitlines()):
            self._progress.say("    " + line.strip())

    def flush(self) -> None:
        """Do nothing: there is no buffer."""


# -- many voices ---------------------------------------------------------------------------------------------------
@dataclass(frozen=True)
class Plan:
    """One voice of a YAML file.

    Attributes
    ----------
    inputs : str
        Recordings to convert with the voice; empty: none.
    song : bool
        Whether they are songs to be sung.
    settings : dict
        Settings of training and conversion by name.
    """

    name: str
    dataset: str
    inputs: str
    song: bool
    settings: dict[str, Any]


def read_plans(file: Path) -> list[Plan]:
    """Read the runs of a YAML file: a list ``runs`` of ``name``, ``dataset``, ``convert``, ``song`` and settings.

    ``defaults`` hold for all runs.

    Paths are relative to the file. All values are checked before anything runs.

    Raises
    ------
    SettingsError
        When the file is missing or invalid; the message names the run.
    """
    content = read_yaml(file, _YAML)
    if (
        not isinstance(content, dict)
        or not isinstance(content.get("runs"), list)
        or content.keys() - {"runs", "defaults"}
        or not isinstance(content.get("defaults", {}), dict)
    ):
        raise SettingsError(f"{file} has no valid list of runs", hint=_YAML)
    plans = []
    for number, row in enumerate(content["runs"], start=1):
        row = content.get("defaults", {}) | row if isinstance(row, dict) else {}
        if not all(_is_line(row.get(key)) for key in ("name", "dataset")):
            raise SettingsError(f"{file}: run {number} needs a name and a dataset", hint=_YAML)
        if not _is_line(row.get("convert") or ""):
            raise SettingsError(f"{file}: {row['name']}: convert is not one path", hint="give a recording or a folder")
        plans.append(_plan(file, row))
    if doubled := {plan.name for plan in plans if sum(other.name == plan.name for other in plans) > 1}:
        raise SettingsError(
            f"{file} has several runs called {', '.join(sorted(doubled))}", hint="give each run its own name"
        )
    return plans


def _is_line(value: Any) -> bool:
    return isinstance(value, str) and value == printable(value) and "\n" not in value and len(value) < _LONGEST_LINE


def _plan(file: Path, row: dict[str, Any]) -> Plan:
    def absolute(text: str) -> str:
        return str(file.absolute().parent / os.path.expanduser(text)) if text and not is_link(text) else text

    settings = {name: value for name, value in row.items() if name not in ("name", "dataset", "convert", "song")}
    if (song := str(row.get("song") or "false").lower()) not in ("true", "false"):
        raise SettingsError(f"{file}: {row['name']}: song must be true or false", hint="true: convert names songs")
    try:
        refuse_unknown(settings, *TRAIN_SETTINGS, *SONG_SETTINGS)
        for one in (*TRAIN_SETTINGS, *SONG_SETTINGS):
            read = settings_from(one, settings).stamp()
            settings |= {name: read[name] for name in settings.keys() & read.keys()}
    except SettingsError as error:
        raise SettingsError(
            f"{file}: {row['name']}: {error}".replace("`", ""), hint=error.hint.replace("`", "")
        ) from None
    return Plan(row["name"], absolute(row["dataset"]), absolute(row.get("convert") or ""), song == "true", settings)


def run_all(file: Path, output: Path, progress: Progress = Silent()) -> list[dict[str, Any]]:
    """Train every voice of a YAML file and convert with it, one run after the other. Other runs go on after a failure.

    A run is skipped if its settings, recordings and results have not changed since it was done.

    Returns
    -------
    list of dict
        Per run: ``name``, ``state`` (done, skipped or failed), ``minutes``; ``notebook`` and ``result`` if the run got
        so far; after a failure ``error`` and ``hint``.
    """
    plans = read_plans(file)
    output.mkdir(parents=True, exist_ok=True)
    rows = []
    for number, plan in enumerate(plans, start=1):
        progress.say(f"{number}/{len(plans)} {plan.name}")
        began, place = time.monotonic(), output.absolute() / slug_of(plan.name)
        row: dict[str, Any] = {"name": plan.name}
        try:
            stamp = signature([*_depends(plan)])  # fails without recordings, before a notebook is run
            written = {"notebook": f"{place}.ipynb", "result": f"{place}.json"}
            try:
                row["state"] = _run(plan, place, stamp, progress)
            finally:
                row |= {kind: path for kind, path in written.items() if Path(path).exists()}
        except (RVCError, OSError) as error:
            words, hint = in_words(error) if isinstance(error, OSError) else (str(error), error.hint)
            row |= {"state": "failed", "error": words, "hint": hint}
        rows.append({**row, "minutes": round((time.monotonic() - began) / 60, 2)})
        progress.say(f"    {row['state']}" + (f": {row['error']}" if "error" in row else ""))
        write_json(output / "summary.json", rows)
    return rows


def _run(plan: Plan, place: Path, stamp: str, progress: Progress) -> str:
    """Run a plan unless its results are up to date; returns ``done`` or ``skipped``."""
    mark = place.with_name(f"{place.name}.stamp.json")
    kept = read_or(mark, _Mark, None)
    if (
        kept
        and kept["stamp"] == stamp
        and all(Path(made).is_file() and sha256_of(Path(made)) == digest for made, digest in kept["sha256"].items())
    ):
        return "skipped"
    mark.unlink(missing_ok=True)
    trained = execute("batch_train", place, {"name": plan.name, "dataset": plan.dataset, **plan.settings}, progress)
    made = [trained["train"]["voice"], f"{place}.json"]
    if plan.inputs:
        converted = place.with_name(f"{place.name}_converted")
        settings = {
            name: value
            for name, value in plan.settings.items()
            if any(name in one.model_fields for one in (*SONG_SETTINGS, RuntimeSettings))
        }
        report = execute(
            "batch_convert",
            converted,
            {"voice": plan.name, "inputs": plan.inputs, "output": str(converted), "song": plan.song, **settings},
            progress,
        )
        made += [one["output"] for one in report["files"]]
    write_json(mark, {"stamp": stamp, "sha256": {path: sha256_of(Path(path)) for path in made}})
    return "done"


def _depends(plan: Plan) -> Iterator[Any]:
    """Everything that determines the results of a plan."""
    yield vars(plan)
    for text, name in ((plan.dataset, plan.name), (plan.inputs, "to convert")):
        for path in sources(text, name) if text else []:
            yield find_recordings(path).fingerprint()
