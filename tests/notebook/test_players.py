"""Players: short previews that say what they are, so that a notebook stays small."""

import io
import re
from base64 import b64decode
from pathlib import Path

import numpy as np
import pytest
import soundfile
from test_cells import _comparison

from histories import simulate
from rvc_core.errors import AudioError, SettingsError
from rvc_core.notebook import choosing, listening, players, plots, results
from rvc_core.notebook.session import Session
from rvc_core.system.files import write_jsonl
from rvc_core.system.platforms import detect
from rvc_core.verdict.learning_curve import History
from rvc_core.verdict.overtraining import verdict_of
from rvc_core.workspace.layout import Layout

RATE_HZ, SONG_SECONDS = 44100, 94
MOST_OF_A_NOTEBOOK = 10_000_000


@pytest.fixture(scope="module")
def song(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A minute and a half of stereo noise; from 60 s to 90 s a loud tone of 440 Hz."""
    noise = np.random.default_rng(0).normal(0, 0.02, (SONG_SECONDS * RATE_HZ, 2)).astype(np.float32)
    tone = 0.5 * np.sin(2 * np.pi * 440 * np.arange(30 * RATE_HZ) / RATE_HZ).astype(np.float32)
    noise[60 * RATE_HZ : 90 * RATE_HZ] += tone[:, None]
    path = tmp_path_factory.mktemp("songs") / "it's <my> song #1.wav"
    soundfile.write(path, noise, RATE_HZ)
    return path


def decoded(data: bytes) -> tuple[np.ndarray, int]:
    return soundfile.read(io.BytesIO(data), always_2d=True)


def test_of_a_song_the_loudest_half_minute_is_played(song: Path) -> None:
    shown = players.preview(song)
    samples, rate_hz = decoded(shown.data)
    assert samples.shape[1] == 1 and abs(len(samples) / rate_hz - 30) < 0.2
    spectrum = np.abs(np.fft.rfft(samples[rate_hz:-rate_hz, 0]))
    assert abs(np.argmax(spectrum) * rate_hz / (len(samples) - 2 * rate_hz) - 440) < 1
    assert shown.told == "Preview: 30 of 94 s, from 1:00."
    assert players.preview(song, 0.0).told == "Preview: first 30 of 94 s."
    late = players.preview(song, 1000.0)  # a source that is shorter than its conversion
    assert (late.start_seconds, late.seconds) == (64.0, 30.0)


@pytest.mark.parametrize(
    ("seconds", "suffix", "as_it_is", "told"),
    [
        (2.0, ".wav", True, ""),
        (2.0, ".flac", True, ""),
        (2.0, ".aiff", False, ""),  # no browser plays it
        (8.0, ".wav", False, ""),  # 700 kB
        (31.0, ".ogg", False, "Preview: first 30 of 31 s."),  # small, and still a preview
    ],
)
def test_small_files_are_played_as_they_are(
    tmp_path: Path, seconds: float, suffix: str, as_it_is: bool, told: str
) -> None:
    file = tmp_path / f"clip{suffix}"
    soundfile.write(file, 0.3 * np.sin(np.arange(int(seconds * RATE_HZ)) / 9), RATE_HZ)
    shown = players.preview(file)
    assert (shown.data == file.read_bytes()) == as_it_is and shown.told == told
    samples, rate_hz = decoded(shown.data)
    assert abs(len(samples) / rate_hz - min(seconds, 30)) < 0.2


@pytest.mark.parametrize("name", ["absent.wav", "empty.wav", "text.mp3"])
def test_what_cannot_be_played_is_an_error_in_words(tmp_path: Path, name: str) -> None:
    if name != "absent.wav":
        (tmp_path / name).write_text("" if "empty" in name else "hello")
    with pytest.raises(AudioError):
        players.preview(tmp_path / name)


def shown_by(call, monkeypatch: pytest.MonkeyPatch) -> list[dict[str, str]]:
    bundles: list[dict[str, str]] = []
    buttons: list[object] = []
    monkeypatch.setattr(
        "IPython.display.display", lambda shown, raw=False: bundles.append(shown) if raw else buttons.append(shown)
    )
    call()
    return bundles


@pytest.mark.slow
def test_the_notebook_stays_small_after_the_whole_journey(
    song: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Two voices listened to, twelve songs converted, the curves, a blind comparison."""
    monkeypatch.setenv("RVC_HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    Session("alice", songs=str(song)).save()
    files = [tmp_path / f"{number}.wav" for number in range(12)]
    for file in files:
        file.symlink_to(song)
    monkeypatch.setattr(results, "chosen_voice", lambda session: tmp_path / "alice.pth")
    monkeypatch.setattr(results, "voices", lambda layout: [tmp_path / "alice_e2_s2.pth", tmp_path / "alice_e1_s1.pth"])
    made = [{"source": str(song), "output": str(file)} for file in files]
    failed = {"source": "broken.wav", "error": "no sound", "hint": "record it again"}
    monkeypatch.setattr(results, "converted", lambda *_, **__: [made[0]])
    simulated = simulate(1).records
    monkeypatch.setattr("rvc_core.experiment.Experiment.verdict", lambda lab: verdict_of(simulated))
    pages = shown_by(results.listen, monkeypatch)
    monkeypatch.setattr(results, "converted", lambda *_, **__: [failed, *made])
    pages += shown_by(results.convert, monkeypatch)
    told = capsys.readouterr().out
    assert "6 more results are in" in told and "no sound" in told
    pictures = [len(one.png) for one in plots.pictures(History.of(simulated), verdict_of(simulated), {})]
    comparison = _comparison(tmp_path / "compared", epochs=(5, 10), clips=1)
    for clip in [*comparison.files.values(), *comparison.clips]:
        clip.unlink()
        clip.symlink_to(song)
    _, panel, _ = listening.ab(comparison).children
    heard = [box.children[1].value for box in (*panel.children[0].children, panel.children[2])]
    assert "Preview: 30 of 94 s, from 1:00." in panel.children[0].children[0].children[0].value
    sizes = [len(page["text/html"]) for page in pages] + [players._as_text(size) for size in pictures]
    sizes += [players._as_text(len(sound)) for sound in heard]
    assert len(pages) == 4 + 6 and len(heard) == 3
    assert sum(sizes) < 0.7 * MOST_OF_A_NOTEBOOK, "code, texts and forms are the rest"
    players_of_a_page = re.findall(r"<audio[^>]*>", pages[-1]["text/html"])
    assert len(players_of_a_page) == 2 and max(map(len, players_of_a_page)) <= players.MOST_BYTES
    assert all(players._as_text(len(sound)) <= players.MOST_BYTES for sound in heard)


@pytest.mark.parametrize("platform", ["colab", "kaggle", "local"])
def test_a_player_says_where_the_whole_file_is(
    song: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, platform: str
) -> None:
    marks = {"colab": {"COLAB_RELEASE_TAG": "r"}, "kaggle": {"KAGGLE_KERNEL_RUN_TYPE": "Batch"}, "local": {}}[platform]
    monkeypatch.setattr(players, "detect", lambda: detect(marks, exists=lambda path: False))
    (tmp_path / "notebooks").mkdir()
    monkeypatch.chdir(tmp_path / "notebooks")
    output = tmp_path / "converted" / "my song #1 <b>.wav"
    output.parent.mkdir()
    output.symlink_to(song)
    [page] = shown_by(lambda: results.play(output.name, song, output), monkeypatch)
    assert page["text/plain"].endswith(f": {output}")
    text = page["text/html"]
    assert "<b>.wav" not in text and "…/converted/my song #1 &lt;b&gt;.wav" in text and str(tmp_path) not in text
    assert text.count("Preview: 30 of 94 s, from 1:00.") == 2
    links = re.findall(r'href="([^"]+)"', text)
    assert links[1:] == ([] if platform == "colab" else ["../converted/my%20song%20%231%20%3Cb%3E.wav"])
    for data in re.findall(r"data:audio/mpeg;base64,([^\"]+)", text):
        assert decoded(b64decode(data))[0].size


def test_the_final_voice_is_called_what_it_is(tmp_path: Path) -> None:
    layout = Layout.of("averaged", tmp_path)
    layout.root.mkdir(parents=True)
    end = {"step": 40, "epoch": 8}
    average = {"kind": "average", **end, "path": layout.final_voice.name, "from_epoch": 4, "unlike/similarity": 0.75}
    write_jsonl(layout.metrics, [{"kind": "voice", **end, "path": "averaged_e8_s40.pth"}])
    assert choosing.called(layout.final_voice, layout) == "of the last epoch"
    write_jsonl(layout.metrics, [{"kind": "voice", **end, "path": "averaged_e8_s40.pth"}, average])
    assert choosing.called(layout.final_voice, layout) == "the average of epochs 4 to 8"
    write_jsonl(layout.metrics, [average, {"kind": "step", "step": 50, "epoch": 9}])  # training went on since
    assert choosing.called(layout.final_voice, layout) == "of the last epoch"


def test_a_voice_is_taken_by_its_button_and_nothing_internal_is_shown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("RVC_HOME", str(tmp_path))
    Session("alice", "recordings").save()
    layout = Layout.of("alice")
    layout.root.mkdir(parents=True)
    records = simulate(1).records
    for row in records:
        if row["kind"] == "voice":
            (layout.root / row["path"].replace("voice", "alice")).touch()
            row["path"] = row["path"].replace("voice", "alice")
    write_jsonl(layout.metrics, [row | {"unlike/words": 0.25} if row["kind"] == "voice" else row for row in records])
    output = tmp_path / "said.wav"
    soundfile.write(output, np.zeros(8000), 16000)
    monkeypatch.setattr(results, "converted", lambda *_, **__: [{"output": str(output)}])
    shown: list[object] = []
    monkeypatch.setattr("IPython.display.display", lambda one, raw=False: shown.append(one))
    results.listen()
    best = verdict_of(records).best.epoch
    pages = [one["text/html"] for one in shown if isinstance(one, dict)]
    first, second, third = (one for one in shown if not isinstance(one, dict))
    told = capsys.readouterr().out + "".join(re.sub(r"base64,[^\"]*", "", page) for page in pages)
    assert f"Take epoch {best}, not the last" in told and "words kept" in pages[1] and "75 %" in pages[1]
    assert f"after {best} epochs</b> · " in pages[1] and "recommended" in pages[1] and "recommended" not in pages[2]
    assert str(tmp_path) not in told and ".pth" not in told and "unlike" not in told
    assert first.description == f"In use: the voice after {best} epochs" and Session.load().voice == ""
    second.click()
    taken = results.chosen_voice(Session.load())
    assert (
        f"_e{next(one.epoch for one in verdict_of(records).candidates[1:])}_" in taken.name
        and second.icon == "check"
        and not first.icon
    )
    assert second.description.startswith("In use: ") and first.description.startswith("Use the voice ")
    results.choose(best)
    assert results.chosen_voice(Session.load()) == results.voices(layout)[0]
    with pytest.raises(SettingsError, match="no voice 7"):
        results.choose(7)
