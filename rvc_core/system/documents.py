"""Read JSON and YAML that anybody may have written: limited in size and depth, and only what a schema allows."""

import functools
import logging
from pathlib import Path
from typing import Annotated, Any

from pydantic import AfterValidator, Field, TypeAdapter, ValidationError

from ..errors import RVCError, SettingsError, StorageError, printable
from .inside import open_inside, refuse_pipe

_log = logging.getLogger(__name__)

Count = Annotated[int, Field(ge=0, le=1 << 53)]
Digest = Annotated[str, Field(pattern="^[0-9a-f]{64}$")]
Line = Annotated[str, AfterValidator(printable)]  # to show: it cannot control a terminal
LEAF = r"[^/\\.\x00-\x1f][^/\\\x00-\x1f]{0,200}"  # a name that stays in its folder
Leaf = Annotated[str, Field(pattern=f"^{LEAF}$")]
_MOST_BYTES, _MOST_LINES_BYTES, _MOST_YAML_BYTES = 16 << 20, 1 << 28, 1 << 20
_known_damage: set[Path] = set()
_adapter = functools.cache(TypeAdapter)


def parsed(text: str | bytes, schema: Any) -> Any:
    """The content of a JSON text that fits a type: a TypedDict, a dataclass, a model or ``dict[str, int]``.

    Raises
    ------
    ValueError
        When it does not fit, or is no JSON.

    Examples
    --------
    >>> parsed('{"a": 1}', dict[str, int])
    {'a': 1}
    """
    return _adapter(schema).validate_json(text, strict=True)


def read_json(path: Path, schema: Any, hint: str = "", *, error: type[RVCError] = RVCError) -> Any:
    """Read a JSON file that fits a type. A missing file raises FileNotFoundError, for each caller to handle.

    Raises
    ------
    RVCError
        Of the class `error`, with `hint`, if the file is unreadable or damaged.
    """
    try:
        return parsed(_bytes_of(path, _MOST_BYTES, hint, error), schema)
    except ValidationError as problem:
        raise error(f"{path} is damaged: {first_problem(problem)}", hint=hint) from problem


def read_or(path: Path, schema: Any, default: Any) -> Any:
    """Read a JSON file that work goes on without: `default` if it is missing or damaged; damage is logged once."""
    try:
        return read_json(path, schema)
    except FileNotFoundError:
        return default
    except RVCError as error:
        if path not in _known_damage:
            _log.warning("%s", error)
        _known_damage.add(path)
        return default


def read_jsonl(
    path: Path, schema: Any, hint: str = "restore it from a copy, or remove it", *, error: type[RVCError] = RVCError
) -> list[Any]:
    """Read one JSON object a line. An incomplete last line, left by a killed process, is skipped.

    Raises
    ------
    RVCError
        Of the class `error`, with `hint`, if the file is unreadable or another line is damaged.
    """
    lines = _bytes_of(path, _MOST_LINES_BYTES, hint, error).split(b"\n")  # splitlines() also splits at U+2028
    rows = []
    for number, line in enumerate(lines, start=1):
        try:
            rows.append(parsed(line, schema))
        except ValidationError as problem:
            if number < len(lines):
                raise error(f"{path} is damaged in line {number}: {first_problem(problem)}", hint=hint) from problem
    return rows


def first_problem(error: ValidationError) -> str:
    """The first thing that does not fit, in one line."""
    problem = error.errors(include_url=False, include_context=False, include_input=False)[0]
    is_name = problem["type"] == "string_pattern_mismatch"
    said = "is not a name or a hash that belongs here" if is_name else problem["msg"]
    place = ".".join(map(str, problem["loc"]))[:200]
    return f"{place}: {said}" if place else said


def _bytes_of(path: Path, most_bytes: int, hint: str, error: type[RVCError]) -> bytes:
    try:
        with open_inside(path) as file:
            content = file.read(most_bytes + 1)
    except FileNotFoundError:
        raise
    except (OSError, StorageError) as problem:
        reason = getattr(problem, "strerror", None) or problem
        raise error(f"{path} cannot be read: {reason}", hint=hint) from problem
    if len(content) > most_bytes:
        raise error(f"{path} is damaged: it is larger than {most_bytes >> 20} MB", hint=hint)
    return content.removeprefix(b"\xef\xbb\xbf")  # as some editors begin a file


def read_yaml(path: Path, hint: str) -> Any:
    """Read YAML whose scalars stay as they are written, but for nothing: a voice may be called 007, no or 2024-05-01.

    Raises
    ------
    SettingsError
        With `hint`, if it is not YAML, is too large or too deep, or has aliases.
    """
    try:
        refuse_pipe(path)
        with path.open("rb") as file:  # named by the user, who may use a link
            text = file.read(_MOST_YAML_BYTES + 1)
    except OSError as problem:
        raise SettingsError(f"{path} cannot be read: {problem.strerror}", hint=hint) from problem
    import yaml

    class AsWritten(yaml.SafeLoader):
        yaml_implicit_resolvers = {
            first: [(tag, pattern) for tag, pattern in resolvers if tag == "tag:yaml.org,2002:null"]
            for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
        }

        def compose_node(self, parent: Any, index: Any) -> Any:
            if self.check_event(yaml.AliasEvent):
                raise yaml.YAMLError("it has an alias (*), which is not supported: write the settings out")
            node = super().compose_node(parent, index)
            if node is not None and node.tag.removeprefix("tag:yaml.org,2002:") not in ("null", "str", "seq", "map"):
                raise yaml.YAMLError(f"it has the tag {node.tag}, which is not supported")
            return node

    try:
        if len(text) > _MOST_YAML_BYTES:
            raise yaml.YAMLError(f"it is larger than {_MOST_YAML_BYTES >> 20} MB")
        return yaml.load(text, AsWritten)
    except (yaml.YAMLError, ValueError, RecursionError) as problem:  # not UTF-8; nested too deeply
        raise SettingsError(f"{path} is not valid YAML: {' '.join(str(problem).split())}", hint=hint) from problem
