"""The command line: ``rvc <command>``. Flags are generated from the settings classes.

With ``--json`` the last line on stdout is one JSON object. Exit status: 0 done, 1 failed (one line and a hint), 2 wrong
usage.
"""

import argparse
import difflib
import json
import os
import re
import shlex
import sys
from collections.abc import Callable, Iterable
from typing import Any, NoReturn

from pydantic_core import PydanticUndefined

from .. import __version__
from ..errors import RVCError
from ..settings import RuntimeSettings, Settings
from ..system.platforms import in_words
from .arguments import Option, Result, complain, in_flags
from .reports import COMMANDS as REPORTS
from .sentences import in_sentences
from .separate import COMMANDS as SEPARATION
from .stages import COMMANDS as STAGES
from .stages import SETTINGS_OF
from .voices import COMMANDS as VOICES
from .weights import COMMANDS as WEIGHTS

_MESSAGES = ("error", "hint", "warnings", "notes")


def main(argv: list[str] | None = None) -> int:
    """Run one command; returns the exit status."""
    arguments = _parser().parse_args(argv)
    arguments.typed = [*(sys.argv[1:] if argv is None else argv)]
    try:
        status = _execute(arguments)
        sys.stdout.flush()
    except BrokenPipeError:  # the reader closed the pipe, as in `rvc weights list | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    return status


def _execute(arguments: argparse.Namespace) -> int:
    """Run a command and print its result or error; returns the exit status."""
    try:
        result = _in_flags(arguments.run(arguments))
    except RVCError as error:
        return _fail(arguments, str(error), error.hint)
    except BrokenPipeError:
        raise
    except OSError as error:
        return _fail(arguments, *in_words(error))
    except KeyboardInterrupt:
        return _fail(arguments, "interrupted", "run the same command again to continue")
    failed = bool(result.pop("failed_command", False))
    if arguments.json:
        print(json.dumps(result, ensure_ascii=False))
    else:
        told = {key: value for key, value in result.items() if key not in ("error", "hint")}
        sentences = in_sentences(arguments.command, getattr(arguments, "name", ""), told)
        _show(told) if sentences is None else print("\n".join(sentences))
    if failed:
        complain(result["error"], result["hint"])
    return 1 if failed else 0


def _fail(arguments: argparse.Namespace, error: str, hint: str) -> int:
    """Print an error on stderr, with ``--json`` also on stdout."""
    if arguments.json:
        print(json.dumps(_in_flags({"error": error, "hint": hint}), ensure_ascii=False))
    complain(error, hint)
    return 1


def _in_flags(value: Any, is_message: bool = False) -> Any:
    """A result in whose messages each setting has the name of its flag."""
    if isinstance(value, dict):
        return {key: _in_flags(one, is_message or key in _MESSAGES) for key, one in value.items()}
    if isinstance(value, list):
        return [_in_flags(one, is_message) for one in value]
    return in_flags(value) if is_message and isinstance(value, str) else value


class _Parser(argparse.ArgumentParser):
    """Tells wrong usage in two lines: what is wrong, and what was probably meant."""

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        """Refuse here what this command does not know; argparse leaves that to ``rvc``, which has no such option."""
        self._given = [*(sys.argv[1:] if args is None else args)]
        parsed, unknown = super().parse_known_args(args, namespace)
        options = [text.partition("=")[0] for text in unknown if text.startswith("-")]
        if options:
            self._refuse(f"unknown option {', '.join(options)}", _meant(options, self._option_string_actions))
        last = self._get_positional_actions()[-1:]
        if unknown and last and last[0].nargs == "+":  # names after the options
            getattr(parsed, last[0].dest).extend(unknown)
        elif unknown:
            self._refuse(f"unexpected {' '.join(unknown)!r}", "put a name or path that contains spaces in quotes")
        return parsed, []

    def error(self, message: str) -> NoReturn:
        """What argparse found, with the words that would have fitted."""
        if wrong := re.search(r"argument ([\w-]+): invalid choice: '(.*?)'", message):
            kind, word = wrong.groups()
            of_kind = [one for one in self._actions if kind in (*one.option_strings, one.metavar, one.dest)]
            known = [name for action in of_kind for name in action.choices or ()]
            self._refuse(f"unknown {kind.lower().lstrip('-')} {word!r}", _meant([word], known))
        words = [str(action.metavar or action.dest) for action in self._get_positional_actions()]
        self._refuse(message, f"usage: {' '.join([self.prog, *words])} [options]")

    def _refuse(self, message: str, hint: str) -> NoReturn:
        words = self._with_dashes_understood()
        hint = f"write: {self.prog} {shlex.join(words)}" if words else f"{hint} ({self.prog} --help lists all)"
        self.exit(2, f"{self.prog}: {message}\n     {hint}\n")

    def _with_dashes_understood(self) -> list[str]:
        """The words of the command if names among them begin with a dash, in an order in which that works."""
        words, last = list[str](), list[str]()
        for word in self._given:
            action = self._option_string_actions.get(words[-1]) if words else None
            if not re.match("-[^-]", word) or word in self._option_string_actions:
                words.append(word)
            elif action and action.nargs != 0:
                words[-1] += f"={word}"
            elif os.path.lexists(word):
                words.append(f"./{word}")
            else:
                last.append(word)
        changed = words != self._given and "--" not in words
        return [*words, *(["--"] if last else []), *last] if changed else []


def _meant(words: list[str], known: Iterable[str]) -> str:
    near = [close[0] for word in words if (close := difflib.get_close_matches(word.lower(), [*known], 1))]
    return f"did you mean {' and '.join(near)}?" if near else "check the spelling"


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(prog="rvc", description="Train a voice and convert recordings with it.")
    parser.add_argument("--version", action="version", version=__version__)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    for name, command in (STAGES | REPORTS | SEPARATION | VOICES).items():
        _add(commands, name, *command)
    text = "List, download or verify weights files, or pack them for a machine without internet."
    weights = commands.add_parser("weights", help=text, description=text)
    actions = weights.add_subparsers(required=True, metavar="ACTION")
    for name, command in WEIGHTS.items():
        _add(actions, name, *command)
    return parser


def _add(commands: Any, name: str, run: Callable[[argparse.Namespace], Result], text: str, *options: Option) -> None:
    """Add a command with its own options and one flag per field of its settings."""
    parser = commands.add_parser(name, help=text, description=text)
    for option, declared in options:
        parser.add_argument(option, **declared)
    classes: tuple[type[Settings], ...] = (*SETTINGS_OF[name], RuntimeSettings) if name in SETTINGS_OF else ()
    for settings in classes:
        add_settings(parser, settings)
    parser.add_argument("--json", action="store_true", help="Print the result as JSON on the last line.")
    parser.add_argument("--quiet", action="store_true", help="Hide progress.")
    parser.set_defaults(run=run, command=name)


def add_settings(parser: argparse.ArgumentParser, settings: type[Settings]) -> None:
    """Add one flag per field. Fields shared by several stages are added once."""
    known = {action.dest for action in parser._actions}
    group = parser.add_argument_group(settings.__name__, (settings.__doc__ or "").splitlines()[0])
    for name, field in settings.model_fields.items():
        if name in known:
            continue
        default = "" if field.default in (None, "", PydanticUndefined) else f" Default: {field.default}."
        metavar = "true|false" if field.annotation is bool else name.split("_")[-1].upper()
        group.add_argument(
            f"--{name.replace('_', '-')}",
            dest=name,
            default=argparse.SUPPRESS,
            metavar=metavar,
            help=f"{field.description}{default}".replace("%", "%%"),
        )


def _show(result: Result, indent: str = "") -> None:
    """Print a result as text, one value per line."""
    for key, value in result.items():
        if value is None or (isinstance(value, list | dict) and not value):
            print(f"{indent}{key}: none")
        elif isinstance(value, dict):
            print(f"{indent}{key}:")
            _show(value, indent + "  ")
        elif isinstance(value, list) and value and isinstance(value[0], dict):
            for row in value:
                print(f"{indent}{key}:")
                _show(row, indent + "  ")
        else:
            print(f"{indent}{key}: {value}")
