"""Forms over the settings classes: one control a field, made from its declaration. Forms collect; cells act.

Only widgets and arguments that ipywidgets 7.7 and 8.1 share are used.
"""

import contextlib
import functools
import html
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Generic

from pydantic import ValidationError

from ..errors import SettingsError
from ..settings import S
from .texts import help_of, label_of, say, translated

if TYPE_CHECKING:
    import ipywidgets

# What most people change; everything else is folded away.
_PLAIN = {"preset", "epochs", "batch_size", "max_minutes", "transpose", "index_rate", "protect", "output_format"}
_PLAIN |= {"repair", "preview", "vocals", "vocals_db", "key_semitones", "text", "language", "engine", "speed"}
_UNITS = {"hz": "Hz", "db": "dB", "ms": "ms", "minutes": "min", "seconds": "s", "transpose": "st", "semitones": "st"}
_UNITS |= {"lufs": "LUFS"}
_LABEL_WIDTH, _COLUMN_WIDTH, _FORM_WIDTH = "13em", "34em", "40em"

# JupyterLab may deliver changes of two controls on two threads: without turns the older reading could be kept.
in_turn = threading.RLock()


class Form(Generic[S]):
    """A form whose `value` is valid settings at every moment.

    Whatever is typed that does not fit is told beside its control, and the last fitting value stays in force; without
    any click the value is what the form began with.

    Parameters
    ----------
    settings : type of Settings
        The class that the form makes.
    start : mapping
        Values to begin with, by field; the declared defaults for the others.
    changed : callable
        Is given the new value after each change.
    advice : mapping, optional
        A sentence to stand first beside a control, by field.

    Raises
    ------
    SettingsError
        When `start` does not fit.

    Examples
    --------
    >>> from rvc_core.settings import TrainSettings
    >>> form = Form(TrainSettings, {"epochs": 30})
    >>> form.controls["batch_size"].value = "4"
    >>> form.value.epochs, form.value.batch_size
    (30, 4)
    >>> form.controls["epochs"].value = 0
    >>> form.value.epochs, form.problems["epochs"]
    (30, 'a whole number from 1 to 100000')
    """

    def __init__(
        self,
        settings: type[S],
        start: Mapping[str, Any] | None = None,
        changed: Callable[[S], None] = lambda value: None,
        advice: Mapping[str, str] | None = None,
    ) -> None:
        self.settings, self._changed, self._advice = settings, changed, advice or {}
        self.value: S = settings.of(**(start or {}))
        self.problems: dict[str, str] = {}
        self._fields = settings.model_json_schema()["properties"]
        self.controls: dict[str, Any] = {}
        self._notes: dict[str, Any] = {}
        self.rows = {name: self._row(name) for name in self._fields}

    def _ipython_display_(self) -> None:
        from IPython.display import display

        display(joined([self]))

    def _row(self, name: str) -> "ipywidgets.VBox":
        """A control, and under it what it means and what is wrong with it."""
        import ipywidgets

        control = control_for(name, self._fields[name], getattr(self.value, name))
        self.controls[name], self._notes[name] = control, ipywidgets.HTML()
        self._tell(name)
        control.observe(lambda change: self._read(), names="value")
        layout = {"margin": "0 12px 6px 0", "flex": f"1 1 {_COLUMN_WIDTH}", "min_width": "0", "max_width": _FORM_WIDTH}
        return ipywidgets.VBox([control, self._notes[name]], layout=layout)

    def _read(self) -> None:
        """Take over what fits of all that the controls show."""
        with in_turn:
            shown = {name: _entered(self._fields[name], control.value) for name, control in self.controls.items()}
            found = dict(self._faults(shown))
            for name in {*self.problems, *found}:
                self.problems.pop(name, None)
                self.problems |= {name: found[name]} if name in found else {}
                self._tell(name)
            before = self.value
            with contextlib.suppress(SettingsError):  # fields that fit, but not each other
                self.value = self.settings.of(
                    **{name: getattr(before, name) if name in found else shown[name] for name in shown}
                )
            if self.value != before:
                self._changed(self.value)

    def _faults(self, values: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
        """Fields that do not fit, and what would."""
        try:
            self.settings(**values)
        except ValidationError as error:
            for problem in error.errors():
                if not problem["loc"]:
                    continue
                name = str(problem["loc"][0])
                own = problem["type"] == "value_error"  # of a validator that knows better than the bounds
                yield name, translated(problem["msg"].partition(", ")[2]) if own else expectation(self._fields[name])

    def _tell(self, name: str) -> None:
        about = help_of(self.settings.__name__, name, self._fields[name]["description"])
        text = f'<span style="opacity:.75">{html.escape(about)}</span>'
        if name in self._advice:
            text = f"<b>{html.escape(self._advice[name])}</b> {text}"
        if name in self.problems:
            wanted = html.escape(say("wanted", kind=self.problems[name], value=getattr(self.value, name)))
            text = f'<span role="alert" style="color:#d32f2f;font-weight:600">{wanted}</span><br>{text}'
        self._notes[name].value = f'<div style="line-height:1.35;font-size:90%;white-space:normal">{text}</div>'


def control_for(name: str, field: Mapping[str, Any], value: Any) -> Any:
    """The control that fits a field's JSON schema: a list, a switch, a number with arrows, or a line to type into.

    No sliders: ipywidgets gives theirs no name, so a screen reader says only "slider".

    Examples
    --------
    >>> type(control_for("protect", {"type": "number", "minimum": 0, "maximum": 0.5}, 0.33)).__name__
    'FloatText'
    """
    import ipywidgets

    unit = _UNITS.get(name.rpartition("_")[2])
    common = {
        "value": value,
        "description": label_of(name) + (f" ({unit})" if unit else ""),
        "style": {"description_width": _LABEL_WIDTH},
        "layout": {"width": "98%", "max_width": _FORM_WIDTH},
    }
    kind, low, high = field.get("type"), field.get("minimum"), field.get("maximum")
    if "enum" in field:
        return ipywidgets.Dropdown(options=field["enum"], **common)
    if kind == "boolean":
        return ipywidgets.Checkbox(indent=False, **common)
    if kind == "integer":
        return ipywidgets.IntText(**common)
    if kind == "number" and low is not None and high is not None:
        return ipywidgets.FloatText(step=0.05 if high - low <= 2 else 0.5, **common)
    kind_of_line = ipywidgets.Textarea if name == "text" else ipywidgets.Text
    return kind_of_line(
        placeholder=expectation(field),
        continuous_update=False,
        **common | {"value": "" if value is None else str(value)},
    )


def expectation(field: Mapping[str, Any]) -> str:
    """What a field takes, in words.

    Examples
    --------
    >>> expectation({"anyOf": [{"type": "number", "exclusiveMinimum": 0, "maximum": 0.01}, {"const": "auto"}]})
    'a number above 0 and at most 0.01, or auto'
    """
    if "anyOf" in field:
        first, *others = field["anyOf"]
        words = [say("empty") if other.get("type") == "null" else other["const"] for other in others]
        return functools.reduce(lambda kind, word: say("or_word", kind=kind, word=word), words, expectation(first))
    kind = say({"integer": "whole_number", "number": "number"}.get(field.get("type", ""), "text"))
    low, high = field.get("minimum"), field.get("maximum")
    if low is not None and high is not None:
        return say("between", kind=kind, low=low, high=high)
    above, below = field.get("exclusiveMinimum"), field.get("exclusiveMaximum")
    bounds = [
        say(word, bound=bound)
        for word, bound in (("at_least", low), ("above", above), ("at_most", high), ("below", below))
        if bound is not None
    ]
    return " ".join([kind, say("and").join(bounds)]).strip()


def _entered(field: Mapping[str, Any], shown: Any) -> Any:
    """What a control's value means: a number may have a comma, and an empty line is no value where that is allowed."""
    if not isinstance(shown, str):
        return shown
    kinds = {option.get("type") for option in field.get("anyOf", [field])}
    if not shown.strip() and "null" in kinds:
        return None
    return shown.strip().replace(",", ".") if "number" in kinds else shown.strip()


def joined(forms: Sequence[Form[Any]]) -> "ipywidgets.VBox":
    """Several forms as one, in two columns where there is room; what few people change is folded away.

    Behind a button, as nobody reaches the titles of ipywidgets' Accordion by keyboard.
    """
    import ipywidgets

    plain = [row for form in forms for name, row in form.rows.items() if name in _PLAIN]
    folded = []
    for form in forms:
        rows = [row for name, row in form.rows.items() if name not in _PLAIN]
        title = say("form_" + form.settings.__name__)
        if plain and rows and len(forms) > 1:
            folded.append(ipywidgets.HTML(f"<b>{html.escape(title)}</b>"))
        folded += [_columns(rows)] if rows else []
    layout = {"width": "100%", "max_width": "84em"}
    if not plain or not folded:
        return ipywidgets.VBox([_columns(plain)] if plain else folded, layout=layout)
    count = sum(len(form.rows) for form in forms) - len(plain)
    button = ipywidgets.ToggleButton(
        description=say("advanced", count=count),
        icon="caret-right",
        layout={"width": "98%", "max_width": _FORM_WIDTH, "margin": "0 0 6px 0"},
    )
    below = ipywidgets.VBox(folded, layout={"display": "none"})

    def fold(change: dict[str, Any]) -> None:
        button.icon = "caret-down" if change["new"] else "caret-right"
        below.layout.display = "flex" if change["new"] else "none"

    button.observe(fold, names="value")
    return ipywidgets.VBox([_columns(plain), button, below], layout=layout)


def _columns(rows: Sequence[Any]) -> "ipywidgets.HBox":
    """Rows side by side, as many as there is room for."""
    import ipywidgets

    return ipywidgets.HBox(list(rows), layout={"flex_flow": "row wrap", "width": "100%"})
