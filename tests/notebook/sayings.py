"""What the folders below the notebooks can say to a person: errors, hints, warnings, lines of progress.

Found in the source, so that nothing new stays untranslated. A value in a sentence becomes a gap, ``{0}``.
"""

import ast
import importlib
import re
from collections.abc import Iterator
from pathlib import Path

from rvc_core import errors

PACKAGE = Path(errors.__file__).parent
# No cell reaches these: other commands, folders of other programs, several machines, files for other programs, and the
# scorers, of whose absence only the log of a training tells.
UNREACHED = (
    "assets/archive.py assets/bundle.py batch.py cli/ evaluation/ features/fairseq_file.py notebook/compare.py "
    "notebook/listening.py preparation/foreign.py preparation/foreign_folder.py scoring/ sweep.py "
    "training/distributed.py verdict/learning_curve.py voices/describe.py voices/merge.py voices/onnx_export.py"
).split()
_ERRORS = {name for name, value in vars(errors).items() if isinstance(value, type)} | {"error"}
_OWN = {"errors.py", "progress.py", "training/beacon.py"}  # examples and passing on


def sayings() -> Iterator[tuple[str, str]]:
    """Each sentence, and where it stands."""
    for path in sorted(PACKAGE.rglob("*.py")):
        name = path.relative_to(PACKAGE).as_posix()
        if name in _OWN or name.startswith(tuple(UNREACHED)):
            continue
        tree = ast.parse(path.read_text("utf-8"))
        names = vars(importlib.import_module(f"rvc_core.{name.removesuffix('.py').replace('/', '.')}"))
        constants = {key: {value} for key, value in names.items() if isinstance(value, str)}
        for node in ast.walk(tree):
            if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
                found = _sentences(node.value, {})
                constants.setdefault(node.targets[0].id, set()).update(found)
        for call in ast.walk(tree):
            if isinstance(call, ast.Tuple) and _is_case(call):
                for text in call.elts[2:4]:
                    for sentence in _sentences(text, constants):
                        yield sentence, f"{name}:{call.lineno}"
            if isinstance(call, ast.Call):
                for text in _said(call):
                    for sentence in _sentences(text, constants):
                        yield sentence, f"{name}:{call.lineno}"


def _is_case(row: ast.Tuple) -> bool:
    """Of a finding: whether it applies, its colour, the reason and the repair."""
    colour = row.elts[1] if len(row.elts) > 2 else None
    return isinstance(colour, ast.Constant) and colour.value in ("amber", "red", "green")


def _said(call: ast.Call) -> list[ast.expr]:
    """The arguments that a person will read."""
    function = call.func
    if isinstance(function, ast.Name) and function.id == "Line":  # of a plan
        return call.args[2:3]
    if isinstance(function, ast.Name) and function.id in _ERRORS:
        return [*call.args[:2], *(word.value for word in call.keywords if word.arg == "hint")]
    if isinstance(function, ast.Attribute) and function.attr in ("say", "start", "append"):
        whose = ast.unparse(function.value)
        if whose.endswith("progress") or (whose == "warnings" and function.attr == "append"):
            return call.args[:1]
    return []


def _sentences(text: ast.expr, constants: dict[str, set[str]]) -> list[str]:
    """The sentences that an expression may be, given what names stand for: nothing for one that is computed."""
    match text:
        case ast.Constant(value=str(words)):
            return [words]
        case ast.IfExp(body=one, orelse=other):
            return _sentences(one, constants) + _sentences(other, constants)
        case ast.Name(id=name):
            return sorted(constants.get(name, ()))
        case ast.JoinedStr(values=parts):
            words, gaps = "", 0
            for part in parts:
                if isinstance(part, ast.Constant):
                    words += str(part.value)
                    continue
                known = _sentences(part.value, constants) if isinstance(part, ast.FormattedValue) else []
                if len(known) == 1:
                    words += known[0]
                else:
                    words, gaps = words + f"{{{gaps}}}", gaps + 1
            return [words]
    return []


_ENGLISH = {"the", "and", "is", "are", "with", "was", "your", "this", "not", "of", "to", "run", "from", "nothing", "it"}
_ENGLISH |= {"has", "there", "recordings", "voice", "voices", "still", "better", "machine", "clips", "training", "took"}


def is_english(line: str) -> bool:
    """Whether it holds two English words or more; paths and code do not count."""
    words = re.findall(r"[a-z]+", re.sub(r"\S*/\S+|`[^`]*`|rvc [a-z -]+", "", line).lower())
    return len(_ENGLISH & set(words)) >= 2
