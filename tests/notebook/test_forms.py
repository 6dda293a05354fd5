"""Forms made of every settings class: always valid, errors in words, complete in each language."""

import os
import re
import string
import subprocess
import sys
import tomllib
from pathlib import Path

import nbclient
import nbformat
import pytest
from sayings import is_english

from rvc_core import settings as declared
from rvc_core import song_settings
from rvc_core.errors import SettingsError
from rvc_core.notebook import Form
from rvc_core.notebook.forms import joined
from rvc_core.notebook.texts import LANGUAGES, help_of, label_of, language, say, texts
from rvc_core.preparation.survey import DatasetReport, RecordingReport
from rvc_core.settings import ConvertSettings, PrepareSettings, Settings, TrainSettings

ROOT = Path(__file__).parents[2]
CLASSES = [
    one
    for one in (vars(declared) | vars(song_settings)).values()
    if isinstance(one, type) and issubclass(one, Settings) and one is not Settings
]
LIMITS = tomllib.loads((ROOT / "notebooks" / "source" / "limits.toml").read_text("utf-8"))
# The widgets of Colab, and what they need that newer ones do not.
COLAB = (
    "ipython==7.34.0",
    "ipykernel==6.17.1",
    "ipywidgets==7.7.1",
    "ipython-genutils",
    "pickleshare",
    "backcall",
    "decorator",
    "nest-asyncio",
    "psutil",
    "widgetsnbextension==3.6.10",
)
SPECIAL = {
    "gate_db": "-50",
    "loudness_lufs": "-16",
    "output_rate_hz": 8000,
    "learning_rate_decay": "0.95",
    "learning_rate": "0,005",
    "device": "cpu",
}


@pytest.mark.parametrize("settings", CLASSES)
def test_a_form_nobody_touched_is_the_defaults_and_every_field_has_its_control(settings: type[Settings]) -> None:
    form = Form(settings)
    assert form.value == settings() and not form.problems
    assert list(form.controls) == list(settings.model_fields)
    for name, control in form.controls.items():
        assert control.description and form._notes[name].value
        assert type(control).__module__.startswith("ipywidgets.")


@pytest.mark.parametrize("code", LANGUAGES)
@pytest.mark.parametrize("settings", CLASSES)
def test_every_help_is_there_and_short(settings: type[Settings], code: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RVC_LANG", code)
    for name, field in settings.model_fields.items():
        told = help_of(settings.__name__, name, field.description or "")
        assert len(label_of(name)) <= 24, f"{name}: a longer label is cut off"
        assert told.endswith(".") and len(told) <= 170 and "  " not in told, (name, told)
        assert max(len(sentence.split()) for sentence in re.split(r"[.;:] ", told)) <= 25, (name, told)
        assert is_english(told) <= (code == "en") and (told != field.description) == (code != "en"), (name, told)


@pytest.mark.parametrize("settings", CLASSES)
def test_every_control_changes_the_value_and_is_read_back(settings: type[Settings]) -> None:
    bounds = {
        name: (field.get("minimum"), field.get("maximum"))
        for name, field in settings.model_json_schema()["properties"].items()
    }
    for name in settings.model_fields:
        form = Form(settings)
        control, before = form.controls[name], getattr(form.value, name)
        control.value = SPECIAL.get(name) or (
            next(option for option in control.options if option != before)
            if hasattr(control, "options")
            else not before
            if isinstance(before, bool)
            else before + 1
            if isinstance(control.value, int)
            else bounds[name][before == bounds[name][0]]
            if isinstance(control.value, float)
            else "7"
        )
        changed = {field for field in settings.model_fields if getattr(form.value, field) != getattr(settings(), field)}
        assert changed == {name} and not form.problems, (name, form.problems)


def test_what_few_people_need_is_behind_a_button() -> None:
    forms = [Form(PrepareSettings), Form(TrainSettings)]
    plain, button, folded = joined(forms).children
    count = len(TrainSettings.model_fields) + len(PrepareSettings.model_fields) - 4
    assert [row.children[0].description for row in plain.children][:2] == ["Kind of voice", "Epochs"]
    assert len(plain.children) == 4 and f"{count} more settings" in button.description
    assert folded.layout.display == "none" and sum(len(box.children) for box in folded.children[1::2]) == count
    button.value = True
    assert folded.layout.display == "flex"


def test_what_does_not_fit_is_said_beside_the_control_and_changes_nothing() -> None:
    told: list[Settings] = []
    form = Form(TrainSettings, {"epochs": 5}, told.append)
    form.controls["epochs"].value = 0
    form.controls["learning_rate"].value = "fast"
    form.controls["max_minutes"].value = "-3"
    assert form.value == TrainSettings(epochs=5) and not told
    assert form.problems == {
        "epochs": "a whole number from 1 to 100000",
        "max_minutes": "a number above 0, or nothing",
        "learning_rate": "a number above 0 and at most 0.01, or auto",
    }
    assert 'role="alert"' in form._notes["epochs"].value
    form.controls["epochs"].value = 7  # one mended, the others still wrong
    assert form.value.epochs == 7 and told == [TrainSettings(epochs=7)] and "epochs" not in form.problems
    assert 'role="alert"' not in form._notes["epochs"].value
    form.controls["max_minutes"].value = "2,5"  # as a Brazilian writes it
    form.controls["learning_rate"].value = " auto "
    assert form.value == TrainSettings(epochs=7, max_minutes=2.5) and not form.problems
    form.controls["max_minutes"].value = ""
    assert form.value.max_minutes is None


def test_a_validator_s_own_words_are_told() -> None:
    form = Form(ConvertSettings)
    form.controls["output_rate_hz"].value = 100
    assert form.problems == {"output_rate_hz": "0, or at least 8000"} and form.value == ConvertSettings()


def test_what_is_typed_is_no_markup() -> None:
    form = Form(ConvertSettings, {"f0_curve": "<b>"})
    form.controls["transpose"].value = "<script>"
    assert "<script>" not in form._notes["transpose"].value and form.value.transpose == "auto"


def test_a_form_begins_with_what_it_is_given_or_says_why_not() -> None:
    assert Form(PrepareSettings, {"preset": "nano"}).controls["preset"].value == "nano"
    with pytest.raises(SettingsError, match="preset"):
        Form(PrepareSettings, {"preset": "big"})


def test_every_language_says_everything(monkeypatch: pytest.MonkeyPatch) -> None:
    fields = {settings.__name__: set(settings.model_fields) for settings in CLASSES}
    english = texts("en")
    for code in LANGUAGES:
        found = texts(code)
        assert set(found["labels"]) == set.union(*fields.values()), "add the label to rvc_core/notebook/*.toml"
        assert found.keys() - {"help", "limits", "sentences"} == english.keys(), code
        for table in english.keys() - {"labels"}:
            assert found[table].keys() == english[table].keys(), (code, table)
            for key, text in english[table].items():
                own = forms_of(found[table][key])
                assert own.keys() == forms_of(text).keys() and all(one.strip() for one in own.values()), (code, key)
                assert all(gaps(one) == gaps(own[number]) for number, one in forms_of(text).items()), (code, key)
        if code != "en":
            assert set(found["limits"]) == {limit["text"] for rows in LIMITS.values() for limit in rows}, (
                "add the fact to pt.toml"
            )
            assert all(set(rows) <= fields[name] for name, rows in found["help"].items()), "add the help to pt.toml"
    monkeypatch.setenv("RVC_LANG", "pt_BR.UTF-8")
    form = Form(TrainSettings)
    assert language() == "pt" and form.controls["epochs"].description == "Épocas"
    form.controls["epochs"].value = 0
    assert form.problems["epochs"] == "um número inteiro de 1 a 100000"
    monkeypatch.setenv("RVC_LANG", "fr")
    assert language() == "en"


@pytest.mark.parametrize("code", LANGUAGES)
def test_one_is_singular(code: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RVC_LANG", code)
    without_a_noun = {"first_files", "and_more"}  # always 500; no noun follows
    keys = {
        key for key, text in texts(code)["words"].items() if "count" in set.union(*map(gaps, forms_of(text).values()))
    }
    assert len(keys - without_a_noun) >= 6
    for key in keys - without_a_noun:
        gap = dict.fromkeys(("minutes", "of", "folder"), "x")
        one, two, none = (say(key, count=count, **gap) for count in (1, 2, 0))
        assert one.replace("1", "2") != two and none.replace("0", "2") == two, key
    monkeypatch.setenv("RVC_LANG", "en")
    report = DatasetReport(0.1, "poor", "", [RecordingReport("a.wav", 6.0, 16_000, None, "poor", [])])
    assert str(report).startswith("0.1 minutes in 1 recording: poor")


def forms_of(text: str | dict[str, str]) -> dict[str, str]:
    return text if isinstance(text, dict) else {"other": text}


def gaps(text: str) -> set[str]:
    return {name for _, name, _, _ in string.Formatter().parse(text) if name}


def install_colab_s_widgets(folder: Path) -> None:
    """The stack that Colab had on 2026-08-19, beside the newer one; needs the network."""
    subprocess.run([sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--target", folder, *COLAB], check=True)


@pytest.mark.slow
def test_the_widgets_of_colab_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install_colab_s_widgets(tmp_path)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(map(str, (tmp_path, ROOT, ROOT / "tests", Path(__file__).parent))))
    subprocess.run([sys.executable, "-m", "pytest", "-q", "-p", "no:xdist", __file__], check=True)
    cell = nbformat.v4.new_code_cell("""\
import ipykernel, ipywidgets, IPython
from test_forms import CLASSES, test_every_control_changes_the_value_and_is_read_back as each
from rvc_core.notebook import Form
for settings in CLASSES:
    each(settings)
    display(Form(settings))
IPython.__version__, ipykernel.__version__, ipywidgets.__version__""")
    done = nbclient.execute(nbformat.v4.new_notebook(cells=[cell]), timeout=300, kernel_name="python3")
    outputs = done.cells[0].outputs
    assert outputs[-1].data["text/plain"] == "('7.34.0', '6.17.1', '7.7.1')"
    forms = [output for output in outputs if "application/vnd.jupyter.widget-view+json" in output.get("data", {})]
    assert len(forms) == len(CLASSES)
