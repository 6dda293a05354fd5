"""The Portuguese notebook to the end: errors, hints, warnings and progress, not only what its cells print."""

import json
import re
import time
from pathlib import Path

import pytest
from sayings import is_english, sayings

from rvc_core import TrainSettings, notebook
from rvc_core.errors import DatasetError, RVCError, SettingsError
from rvc_core.notebook import unattended
from rvc_core.notebook.recordings_form import RecordingsForm
from rvc_core.notebook.texts import error_in_words, texts, translated
from rvc_core.preparation.links import address_of
from rvc_core.preparation.typed_paths import meant
from rvc_core.system.download import download
from rvc_core.training import detached
from rvc_core.workspace.layout import Layout


@pytest.fixture(autouse=True)
def in_portuguese(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RVC_HOME", str(tmp_path))
    monkeypatch.setenv("RVC_LANG", "pt")


def test_all_that_a_cell_can_show_is_in_the_table() -> None:
    found = dict(sayings())
    assert len(found) > 400
    missing = []
    for sentence, place in found.items():
        if len(re.findall(r"[A-Za-z]{2,}", re.sub(r"\{\d\}", "", sentence))) < 2:
            continue  # gaps alone
        filled = re.sub(r"\{(\d)\}", r"X\1", sentence)
        if (told := translated(filled)) == filled or is_english(told):
            missing.append(f"{place}: {sentence}")
    assert not missing, "add these to the table `sentences` of rvc_core/notebook/pt.toml:\n" + "\n".join(missing)


def test_the_table_is_portuguese_and_keeps_every_gap() -> None:
    for english, told in texts("pt")["sentences"].items():
        assert set(re.findall(r"\{\d\}", told)) <= set(re.findall(r"\{\d\}", english)), english
        assert not is_english(told), told


def caught(call) -> RVCError:
    with pytest.raises(RVCError) as found:
        call()
    return found.value


@pytest.mark.parametrize(
    ("typed", "told"),
    [
        ("/nowhere/takes", "não existe '/nowhere/takes'"),
        (r"C:\takes", "não existe 'C:\\\\takes' nesta máquina"),
        ("ftp://x.org/a.wav", "não existe 'ftp://x.org/a.wav' nesta máquina"),
    ],
)
def test_a_typo_is_answered_in_portuguese(typed: str, told: str, tmp_path: Path) -> None:
    lines = error_in_words(caught(lambda: meant(typed)))
    assert told in lines[0] and lines[1].startswith("→ ") and not any(map(is_english, lines))
    form = RecordingsForm(typed, tmp_path, lambda path: None)
    assert (
        "role=" in form.told.value
        and told in form.told.value.replace("&#x27;", "'")
        and not is_english(re.sub("<[^>]*>", "", form.told.value))
    )


@pytest.mark.parametrize(
    ("link", "told"),
    [
        ("https://www.youtube.com/watch?v=x", "é uma página do YouTube, não uma gravação"),
        ("https://drive.google.com/drive/folders/1a", "é uma pasta do Google Drive, não um arquivo"),
        ("https://", "não é um endereço da web"),
    ],
)
def test_a_link_that_cannot_be_fetched_too(link: str, told: str) -> None:
    lines = error_in_words(caught(lambda: address_of(link)))
    assert told in lines[0] and not any(map(is_english, lines)), lines


def test_a_failed_download_too(tmp_path: Path) -> None:
    from rvc_core.system.download import Patience

    patience = Patience(attempts=1, wait_seconds=0.0)
    error = caught(lambda: download("http://127.0.0.1:9/a.pth", tmp_path / "a.pth", None, None, patience))
    lines = error_in_words(error)
    assert lines[0].startswith("não foi possível baixar http://127.0.0.1:9/a.pth: a conexão falhou"), lines
    assert lines[1] == "→ tente mais tarde; ou consiga o arquivo de outra forma"


@pytest.mark.parametrize(
    ("name", "content", "told"),
    [
        ("a.txt", b"words", "a.txt é um texto, não uma gravação"),
        ("a.rar", b"Rar!\x1a\x07\x00", "a.rar é um pacote RAR, que não pode ser descompactado aqui"),
        ("a.zip", b"PK\x03\x04 and no more", "a.zip está danificado ou incompleto"),
        ("empty", None, "não há gravações em "),
    ],
)
def test_files_that_are_no_recordings_too(name: str, content: bytes | None, told: str, tmp_path: Path) -> None:
    (tmp_path / name).mkdir() if content is None else (tmp_path / name).write_bytes(content)
    notebook.begin("alice", str(tmp_path / name))
    lines = error_in_words(caught(notebook.report))
    assert told in lines[0] and not any(map(is_english, lines)) and "inglês" not in " ".join(lines), lines


def test_an_unattended_run_without_recordings_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(unattended, "is_unattended", lambda: True)
    found = [Path(f"/in/{number}") for number in range(10)]
    error = caught(lambda: unattended.refuse_forgotten_recordings("", found))
    assert isinstance(error, DatasetError) and "?" not in str(error) and "/in/7 and 2 more" in str(error)
    lines = error_in_words(error)
    assert "não há ninguém" in lines[0] and "/in/7 e mais 2" in lines[0] and 'dataset = "/in/0"' in lines[1]


def test_a_training_that_was_killed_too(tmp_path: Path) -> None:
    layout = Layout.of("alice")
    layout.root.mkdir(parents=True)
    layout.log.write_text("torch.distributed: exitcode: -9")
    layout.run.write_text(json.dumps({"pid": 1, "host": "gone", "state": "running", "log_begins": 0}))
    lines = error_in_words(caught(lambda: detached.watch(layout)))
    assert lines[0].startswith("o treino falhou: o sistema o encerrou (sinal 9)"), lines
    assert lines[1].endswith("Treinar continua do último checkpoint") and not any(map(is_english, lines)), lines


def test_a_setting_that_does_not_fit_is_explained_with_its_own_help() -> None:
    error = caught(lambda: notebook.begin("alice", settings={"epochs": 0}))
    assert isinstance(error, SettingsError)
    help_text = texts("pt")["help"]["TrainSettings"]["epochs"]
    assert error_in_words(error)[:2] == [
        "«Épocas» precisa estar entre 1 e 100000, não 0",
        f"→ «Épocas»: {help_text}",
    ]
    for settings in ({"batch_size": "x"}, {"learning_rate": 2}, {"epochs": "many"}, {"precision": "fp8"}):
        assert "precisa ser" in error_in_words(caught(lambda own=settings: notebook.begin("alice", settings=own)))[0]
    error = caught(lambda: notebook.begin("alice", settings={"preset": "v3"}))
    assert error_in_words(error)[1] == f"→ «Tipo de voz»: {texts('pt')['help']['PrepareSettings']['preset']}"
    error = caught(lambda: notebook.begin("alice", settings="epochs=3"))
    assert error_in_words(error)[:2] == ["`settings` não é uma tabela", '→ escreva assim: {"epochs": 300}']
    assert translated(str(TrainSettings.model_fields["epochs"].description)) == help_text


@pytest.mark.parametrize("quoted", ["; " * 900, ": ; or is a damaged " * 90, "x" * 100_000])
def test_what_others_wrote_neither_stops_nor_slows_it(quoted: str) -> None:
    began = time.monotonic()
    translated(quoted)
    assert time.monotonic() - began < 2
