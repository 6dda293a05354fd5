"""The unattended notebooks, executed whole by papermill; and that their failure is a failure."""

import json
from pathlib import Path

import papermill
import pytest

from rvc_core.audio import Audio, read_audio
from synth import phrase

NOTEBOOKS = Path(__file__).parents[1] / "notebooks"


def _execute(notebook: str, folder: Path, /, **parameters: object) -> dict[str, object]:
    result = folder / f"{notebook}.json"
    papermill.execute_notebook(NOTEBOOKS / f"{notebook}.ipynb", folder / f"{notebook}.ipynb",
                               {**parameters, "result": str(result)}, cwd=folder, kernel_name="python3",
                               progress_bar=False)
    return json.loads(result.read_text("utf-8"))


def test_the_notebooks_make_a_voice_a_file_and_a_comparison(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RVC_HOME", str(tmp_path / "root 😀"))
    (tmp_path / "takes").mkdir()
    for number in range(3):
        Audio(phrase(number, seconds=4.0).samples, 16000).save(tmp_path / "takes" / f"{number}.wav")
    Audio(phrase(7, seconds=2.0, speaker=1).samples, 16000).save(tmp_path / "song.wav")
    trained = _execute("batch_train", tmp_path, name="Алиса", dataset=str(tmp_path / "takes"), preset="nano", epochs=1,
                       batch_size=4, f0_method="dio", holdout_minutes=0.05)
    assert trained["train"]["epochs"] == 1 and trained["train"]["heldout_mel_last"] > 0
    converted = _execute("batch_convert", tmp_path, voice="Алиса", inputs=str(tmp_path / "song.wav"),
                         output=str(tmp_path / "out"), f0_method="dio", output_format="flac")
    [file] = converted["files"]
    assert Path(file["output"]).suffix == ".flac" and abs(read_audio(Path(file["output"])).seconds - 2) < 0.02
    heard = _execute("compare_checkpoints", tmp_path, name="Алиса", clips=str(tmp_path / "song.wav"), f0_method="dio",
                     export_to=str(tmp_path / "shared"))
    assert [Path(file["path"]).is_file() for file in heard["files"]] == [True]
    assert heard["chosen"] == 1 and Path(heard["exported"][0]).suffix == ".zip"
    again = _execute("batch_train", tmp_path, name="Алиса", dataset=str(tmp_path / "takes"), preset="nano", epochs=1,
                     batch_size=4, f0_method="dio", holdout_minutes=0.05)
    assert again["prepare"]["skipped"] and again["train"]["resumed_from"] == trained["train"]["steps"]


def test_a_notebook_that_fails_says_why_and_leaves_its_output(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(papermill.PapermillExecutionError) as caught:
        _execute("batch_train", tmp_path, name="x", dataset=str(tmp_path / "empty"), preset="nano")
    assert caught.value.ename == "DatasetError"
    assert "DatasetError" in (tmp_path / "batch_train.ipynb").read_text("utf-8")
    assert not (tmp_path / "batch_train.json").exists()
