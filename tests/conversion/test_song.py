"""A song in, the song sung by a voice out: levels, timing, keys, stems, and what goes on after a kill."""

import json
import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import soxr

from rvc_core.audio.loudness import measured
from rvc_core.audio.mixing import Stem, lag_seconds, loudness_lufs, read_stem, true_peak_db
from rvc_core.audio.tracks import comment_of
from rvc_core.audio.waveform import Audio
from rvc_core.conversion import song as module
from rvc_core.conversion import song_stems
from rvc_core.conversion.convert import ConvertResult
from rvc_core.conversion.song import Singer, Singers, SongReport, make_song
from rvc_core.errors import AudioError, RVCError, SettingsError, WeightsError
from rvc_core.progress import Silent
from rvc_core.separation.heard import empty_stems
from rvc_core.settings import ConvertSettings, RuntimeSettings
from rvc_core.song_settings import SongSettings
from synth import phrase

RATE = 22_050
DELAY_SECONDS, HUM = 0.012, 0.003  # of the voice below


class Parrot:
    """A voice that sings what it is given, late, with a hum where there should be silence, and remembers all."""

    runtime = RuntimeSettings()

    def __init__(self, identity: str = "parrot", semitones: float = 0.0) -> None:
        self.identity, self.semitones, self.asked = identity, semitones, []

    def convert(self, source: Audio, settings: ConvertSettings, **how: Any) -> ConvertResult:
        self.asked.append(how["key_semitones"])
        lag = round(DELAY_SECONDS * source.sample_rate)
        late = np.pad(source.samples, (lag, 0))[: len(source.samples)]
        audio = Audio((0.2 * late + HUM).astype(np.float32), source.sample_rate)
        return ConvertResult(audio, self.semitones + how["key_semitones"], audio.seconds, 0.1, {})


@dataclass
class Separator:
    """Knows the truth of each song; kinds that it has no model for are refused. Counts its work."""

    truths: dict[str, dict[str, np.ndarray]] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)

    def __call__(self, song: Path, folder: Path, kinds: tuple[str], settings: Any, **_: Any) -> Any:
        self.asked.append(kinds[0])
        names = {"vocals": ("vocals", "instrumental"), "lead": ("lead", "backing"), "dereverb": ("dry", "reverb")}
        samples, rate = soundfile.read(song, dtype="float32", always_2d=True)
        folder.mkdir(parents=True, exist_ok=True)
        truth = self.truths.get(song.stem, {})
        if not set(names[kinds[0]]) <= truth.keys() and kinds[0] != "vocals":
            raise WeightsError("there is no model", hint="download one")
        stems, meters = {}, []
        for name in names[kinds[0]]:
            stems[name] = folder / f"{name}.wav"
            stem = truth.get(name, samples if name == "vocals" else 0 * samples)[: len(samples)]
            soundfile.write(stems[name], stem, rate, subtype="FLOAT")
            meters.append(measured(stem, rate))
        empty, notes = empty_stems(names[kinds[0]], tuple(meters), "truth")
        return type("Report", (), {"stems": stems, "models": {kinds[0]: "truth"}, "empty": empty, "notes": notes})


@pytest.fixture
def separator(monkeypatch: pytest.MonkeyPatch) -> Separator:
    made = Separator()
    monkeypatch.setattr(song_stems, "separate_file", made)
    return made


def _vocals(seconds: float, seed: int = 1) -> np.ndarray:
    spoken = soxr.resample(phrase(seed, seconds=max(1.0, seconds)).samples, 16000, RATE)[-round(seconds * RATE) :, None]
    return (0.5 * spoken * np.array([[1.0, 0.5]])).astype(np.float32)  # more of it on the left


def _music(seconds: float, channels: int = 2) -> np.ndarray:
    time = np.arange(round(seconds * RATE)) / RATE
    chord = sum(np.sin(2 * np.pi * hz * time) for hz in (220.0, 277.2, 329.6)) * (0.4 + 0.3 * np.cos(4 * np.pi * time))
    return (0.1 * np.repeat(chord[:, None], channels, axis=1)).astype(np.float32)


@pytest.fixture
def song(tmp_path: Path, separator: Separator) -> Callable[..., Path]:
    def make(name: str = "My song.wav", seconds: float = 3.0, **parts: np.ndarray) -> Path:
        vocals = parts.pop("vocals", None)
        vocals = _vocals(seconds) if vocals is None else vocals
        music = parts.pop("instrumental", _music(seconds))
        length = min(len(vocals), len(music))
        file = tmp_path / name
        soundfile.write(file, vocals[:length] + music[:length], RATE, subtype="FLOAT")
        separator.truths[file.stem] = {"vocals": vocals[:length], "instrumental": music[:length]}
        separator.truths["vocals"] = separator.truths["lead"] = {name: part[:length] for name, part in parts.items()}
        return file

    return make


def _sing(song: Path, output: Path, voice: Parrot | None = None, backing: Parrot | None = None, **changes: Any):
    singers = Singers(Singer("my friend", voice or Parrot()), backing and Singer("Zoë", backing))
    convert = ConvertSettings.of(output_format=changes.pop("output_format", "wav"))
    return make_song(song, output, singers, SongSettings.of(**changes), convert)


def _stem(report: SongReport, part: str) -> Stem:
    [row] = [row for row in report.stems if row["part"] == part]
    return read_stem(Path(report.output).parent / row["file"])


def test_the_mix_is_in_time_as_loud_and_silent_where_the_singer_is(song: Callable[..., Path], tmp_path: Path) -> None:
    vocals = np.concatenate([_vocals(2.0), np.zeros((RATE, 2), np.float32), _vocals(2.0, seed=2)])
    report = _sing(song(vocals=vocals, instrumental=_music(5.0)), tmp_path / "out")
    made, mix = _stem(report, "vocals"), read_stem(Path(report.output))
    original = Stem(vocals[: len(made.samples)], RATE)
    assert abs(lag_seconds(made.mono, original.mono)) < 0.001 and abs(report.alignment_ms["lead"]) < 1
    assert loudness_lufs(made) == pytest.approx(loudness_lufs(original), abs=0.1)
    pause = made.samples[round(2.2 * RATE) : round(2.8 * RATE)]
    assert np.abs(pause).max() < 1e-6 and np.abs(made.samples).max() > 0.1  # the hum is gone there
    left, right = np.sqrt(np.mean(made.samples**2, axis=0))
    assert right / left == pytest.approx(0.5, abs=0.01)  # in its place between the speakers
    total = made.samples + _stem(report, "accompaniment").samples
    assert mix.samples.shape == total.shape and np.abs(mix.samples - total).max() < 1e-4
    assert report.levels["true_peak_db"] <= -0.9


def test_stems_have_names_for_a_daw_tags_and_a_report(song: Callable[..., Path], tmp_path: Path) -> None:
    lead, backing = _vocals(3.0), 0.3 * _vocals(3.0, seed=3)
    file = song("A – Não.wav", vocals=lead + backing, lead=lead, backing=backing)
    report = _sing(file, tmp_path / "out")
    folder = Path(report.output).parent
    assert folder.name == "A_–_Não_my_friend" and Path(report.output).name == "A_–_Não_my_friend.wav"
    names = ["01 vocals lead converted", "02 vocals backing", "03 accompaniment", "04 original vocals"]
    assert sorted(path.stem for path in folder.glob("*.flac")) == names
    for path in folder.glob("*.[wf]*"):
        assert ("converted" in comment_of(path)) == (" converted" in path.name or path.suffix == ".wav"), path.name
    read = json.loads((folder / "song.json").read_text("utf-8"))
    assert (
        read["transpose"] == {"lead": 0.0}
        and read["models"] == {"vocals": "truth", "lead": "truth"}
        and read["made_of"]
    )
    assert {"original_vocals", "vocals", "accompaniment", "mix", "true_peak_db"} <= read["levels"].keys()
    assert any("dereverb" in line for line in report.warnings)


def test_two_voices_sing_and_a_backing_without_a_voice_stays(song: Callable[..., Path], tmp_path: Path) -> None:
    lead, backing = _vocals(3.0), 0.3 * _vocals(3.0, seed=3)
    file = song(vocals=lead + backing, lead=lead, backing=backing)
    one, two = Parrot(), Parrot("other", semitones=-12.0)
    kept = _sing(file, tmp_path / "a", one)
    assert np.abs(_stem(kept, "vocals backing").samples - backing[: 3 * RATE]).max() < 0.01
    both = _sing(file, tmp_path / "b", one, two)
    assert both.voices == {"lead": "my friend", "backing": "Zoë"} and both.transpose["backing"] == -12
    assert Path(both.output).parent.name == "My_song_my_friend+Zoë"
    assert [row["converted"] for row in both.stems] == [True, True, False, False]
    together = _sing(file, tmp_path / "c", one, vocals="all")
    assert [row["part"] for row in together.stems][0] == "vocals" and len(together.stems) == 3


def test_a_second_voice_that_cannot_sing_is_refused_and_one_without_a_part_is_not_reported(
    song: Callable[..., Path], tmp_path: Path
) -> None:
    with pytest.raises(WeightsError, match="'Zoë' cannot sing") as unsung:
        _sing(song(), tmp_path / "a", Parrot(), Parrot("other"))
    assert "rvc weights fetch lead" in unsung.value.hint and not [*(tmp_path / "a").glob("My_song*")]
    alone = song("Alone.wav", lead=_vocals(3.0), backing=np.zeros((3 * RATE, 2), np.float32))
    report = _sing(alone, tmp_path / "b", Parrot(), Parrot("other"))
    assert report.voices == {"lead": "my friend"} and Path(report.output).name == "Alone_my_friend.wav"
    assert any("no backing vocals" in line for line in report.warnings)


def test_a_loudness_that_would_do_nothing_is_refused(song: Callable[..., Path], tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="no effect on a song"):
        make_song(
            song(),
            tmp_path / "out",
            Singers(Singer("my friend", Parrot())),
            SongSettings(),
            ConvertSettings(loudness_lufs=-20),
        )
    assert not (tmp_path / "out").exists()


def test_reverb_comes_back_as_it_was(song: Callable[..., Path], tmp_path: Path) -> None:
    dry = _vocals(6.0)
    room = np.random.default_rng(0).standard_normal(RATE // 2) * np.exp(-np.arange(RATE // 2) / (0.08 * RATE)) * 0.05
    reverb = np.stack([np.convolve(channel, room)[: len(dry)] for channel in dry.T], axis=1).astype(np.float32)
    file = song(seconds=6.0, vocals=dry + reverb, instrumental=_music(6.0), dry=dry, reverb=reverb)
    report = _sing(file, tmp_path / "out")
    made, voice = _stem(report, "vocals reverb"), _stem(report, "vocals")
    level = [
        10 * np.log10(np.mean(wet**2) / np.mean(sound**2))
        for wet, sound in ((reverb, dry), (made.samples, voice.samples))
    ]
    assert level[1] == pytest.approx(level[0], abs=0.2)
    assert np.corrcoef(made.samples[:, 0], reverb[: len(made.samples), 0])[0, 1] > 0.7  # the room, not only the level
    assert all(row["part"] != "vocals reverb" for row in _sing(file, tmp_path / "dry", reverb=False).stems)


def test_the_key_moves_everything_and_keeps_the_length(song: Callable[..., Path], tmp_path: Path) -> None:
    voice = Parrot()
    report = _sing(song(), tmp_path / "out", voice, key_semitones=3)
    music = _stem(report, "accompaniment")
    spectrum = np.abs(np.fft.rfft(music.samples[:, 0]))
    hz = np.argmax(spectrum) * RATE / len(music.samples)
    assert voice.asked == [3] and report.transpose["lead"] == 3 and len(music.samples) == 3 * RATE
    assert any(abs(hz / (note * 2 ** (3 / 12)) - 1) < 0.01 for note in (220.0, 277.2, 329.6)), hz


@pytest.mark.parametrize("wanted", [-9.0, 6.0])
def test_vocals_are_as_loud_against_the_accompaniment_as_asked(
    wanted: float, song: Callable[..., Path], tmp_path: Path
) -> None:
    report = _sing(song(), tmp_path / "out", vocals_db=wanted)
    assert report.levels["vocals"] - report.levels["accompaniment"] == pytest.approx(wanted, abs=0.1)
    measured = loudness_lufs(_stem(report, "vocals")) - loudness_lufs(_stem(report, "accompaniment"))
    assert measured == pytest.approx(wanted, abs=0.2)


@pytest.mark.parametrize("suffix", ["wav", "flac", "ogg", "mp3", "m4a"])
def test_the_true_peak_holds_in_every_format(suffix: str, song: Callable[..., Path], tmp_path: Path) -> None:
    file = song(vocals=1.6 * _vocals(3.0), instrumental=3 * _music(3.0))
    report = _sing(file, tmp_path / "out", peak_db=-3.0, output_format=suffix)
    mix = read_stem(Path(report.output))
    assert -5 < true_peak_db(mix) <= -2.85 and mix.samples.shape[1] == 2
    assert abs(mix.seconds - 3.0) < 0.2 and "converted" in comment_of(Path(report.output))


def test_a_second_run_separates_and_converts_nothing_again(
    song: Callable[..., Path], tmp_path: Path, separator: Separator
) -> None:
    file, voice = song(), Parrot()
    first = _sing(file, tmp_path / "out", voice)
    again = _sing(file, tmp_path / "out", voice)
    assert again.skipped and again.output == first.output and len(voice.asked) == 1
    other = _sing(file, tmp_path / "out", Parrot("another voice of this name"))
    assert Path(other.output).parent.name == "My_song_my_friend (2)"
    assert Path(first.output).is_file() and any("was kept" in line for line in other.warnings)
    assert _sing(file, tmp_path / "out", voice).skipped


@pytest.mark.parametrize("harm", [lambda whole: b"x" * 100, lambda whole: whole[: len(whole) // 2]])
def test_a_damaged_result_is_made_again(
    harm: Callable[[bytes], bytes], song: Callable[..., Path], tmp_path: Path
) -> None:
    file, voice = song(), Parrot()
    first = Path(_sing(file, tmp_path / "out", voice).output)
    first.write_bytes(harm(first.read_bytes()))
    again = _sing(file, tmp_path / "out", voice)
    assert not again.skipped and read_stem(Path(again.output)).seconds == pytest.approx(3.0, abs=0.1)


def test_a_killed_run_leaves_nothing_half_written_and_goes_on(
    song: Callable[..., Path], tmp_path: Path, separator: Separator, monkeypatch: pytest.MonkeyPatch
) -> None:
    file, voice, out = song(), Parrot(), tmp_path / "out"
    write = Stem.save

    def killed(self: Stem, path: Path, **how: Any) -> None:
        if path.name.startswith("02"):
            raise KeyboardInterrupt
        write(self, path, **how)

    monkeypatch.setattr(Stem, "save", killed)
    with pytest.raises(KeyboardInterrupt):
        _sing(file, out, voice)
    assert [path.name for path in out.iterdir()] == ["separated"]
    monkeypatch.setattr(Stem, "save", write)
    assert not _sing(file, out, voice).skipped
    assert len(voice.asked) == 1
    assert not [*out.rglob("converted-*"), *out.rglob(".part-*")]


def test_what_a_killed_song_left_is_removed_and_named(
    song: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told = list[str]()
    monkeypatch.setattr(Silent, "say", lambda self, line: told.append(line))
    left, running = (tmp_path / "out" / f".part-{pid}-My_song_my_friend" for pid in (999_999_999, os.getpid()))
    for folder in (left, running):
        (folder / "inside").mkdir(parents=True)
    _sing(song(), tmp_path / "out")
    assert told == [f"removed {left}: a run that was ended had left it"]
    assert not left.exists() and (tmp_path / "out" / "My_song_my_friend").is_dir()


def test_a_preview_tells_twice_that_the_song_is_cut_off(song: Callable[..., Path], tmp_path: Path) -> None:
    file = song()
    soundfile.write(whole := tmp_path / "whole.flac", *soundfile.read(file))
    content = whole.read_bytes()
    (cut := tmp_path / "cut.flac").write_bytes(content[: len(content) * 2 // 3])
    for _ in range(2):
        assert any("its end is missing" in one for one in _sing(cut, tmp_path / "out", preview=True).warnings)
    assert not any("missing" in one for one in _sing(whole, tmp_path / "out", preview=True).warnings)


def test_a_preview_is_of_the_loudest_part(
    song: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "PREVIEW_SECONDS", 2.0)
    quiet, loud = 0.1 * _vocals(3.0), _vocals(3.0, seed=2)
    file = song(vocals=np.concatenate([quiet, loud, quiet]), instrumental=0.001 * _music(9.0))
    report = _sing(file, tmp_path / "out", preview=True)
    assert report.seconds == 2 and Path(report.output).name == "My_song_preview_my_friend.wav"
    part = _stem(report, "original vocals").samples[1000:-1000, 0]
    assert np.abs(part).max() > 3 * np.abs(quiet).max()
    whole = _sing(file, tmp_path / "out")
    assert not whole.skipped and whole.seconds == 9 and Path(report.output).is_file()


@pytest.mark.parametrize(
    ("vocals", "music", "word"),
    [
        (np.zeros((RATE, 2), np.float32), _music(1.0), "no vocals"),  # an instrumental
        (1e-5 * _vocals(1.0), 0 * _music(1.0), "no vocals"),  # silence
        (0.02 * _vocals(1.0), _music(1.0), "no vocals"),  # what leaks
    ],
)
def test_songs_without_vocals_are_refused_in_one_line(
    vocals: np.ndarray, music: np.ndarray, word: str, song: Callable[..., Path], tmp_path: Path
) -> None:
    with pytest.raises(AudioError, match=word) as error:
        _sing(song(seconds=1.0, vocals=vocals, instrumental=music), tmp_path / "out")
    assert error.value.hint and "\n" not in str(error.value)
    assert not [path for path in (tmp_path / "out").iterdir() if path.name != "separated"]


def _short_vocals() -> np.ndarray:
    """Two seconds of a voice in half a minute; before and after it the music leaks."""
    return np.concatenate([0.05 * _music(14.0), _vocals(2.0), 0.05 * _music(14.0)])


@pytest.mark.parametrize(
    ("vocals", "music"),
    [
        (1e-3 * _vocals(3.0), 1e-3 * _music(3.0)),  # 60 dB quieter
        (1e-3 * _vocals(3.0), 0 * _music(3.0)),
        (20 * _vocals(3.0), 20 * _music(3.0)),
        (_vocals(3.0), _music(3.0) + np.float32(0.3)),  # an offset
        (_short_vocals(), _music(30.0)),
        (np.concatenate([0.01 * _vocals(3.0, seed=2), _vocals(3.0)]), _music(6.0)),  # a whispered verse
    ],
    ids=["quiet", "quiet and alone", "loud", "offset", "two seconds", "whisper"],
)
def test_songs_are_judged_by_their_own_level(
    vocals: np.ndarray,
    music: np.ndarray,
    song: Callable[..., Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(globals(), "HUM", 0.0)
    voice = Parrot()
    report = _sing(song(vocals=vocals, instrumental=music), tmp_path / "out", voice)
    made, original = (_stem(report, part).samples for part in ("vocals", "original vocals"))
    assert abs(report.levels["vocals"] - report.levels["original_vocals"]) < 0.2
    span = slice(500, 2 * RATE) if report.seconds == 6 else slice(None)  # the verse is there, too
    assert 20 * np.log10(made[span].std() / original[span].std()) == pytest.approx(0, abs=1.5)
    loud = np.abs(vocals[: len(made)]).max()
    assert np.abs(original).max() <= 1.01 * loud and report.levels["true_peak_db"] <= -0.9


def test_a_silent_song_leaves_nothing(tmp_path: Path) -> None:
    """With the separator inside the package."""
    for name, samples in {"silent.wav": np.zeros((2 * RATE, 2)), "offset.wav": np.full((2 * RATE, 2), 0.1)}.items():
        soundfile.write(tmp_path / name, samples, RATE, subtype="FLOAT")
        for preview in (False, True) if name == "silent.wav" else (False,):
            with pytest.raises(AudioError, match="is silent") as error:
                _sing(tmp_path / name, tmp_path / "out", preview=preview)
            assert error.value.hint and not (tmp_path / "out").exists()


@pytest.mark.parametrize(("seconds", "channels"), [(0.5, 2), (3.0, 1)])
def test_short_and_mono_songs_keep_their_shape(
    seconds: float, channels: int, song: Callable[..., Path], tmp_path: Path
) -> None:
    vocals = np.repeat(_vocals(seconds)[:, :1], channels, axis=1)
    report = _sing(song(seconds=seconds, vocals=vocals, instrumental=_music(seconds, channels)), tmp_path / "out")
    assert read_stem(Path(report.output)).samples.shape == (round(seconds * RATE), channels)


def test_a_recording_without_music_is_sung_alone(song: Callable[..., Path], tmp_path: Path) -> None:
    report = _sing(song(instrumental=0 * _music(3.0)), tmp_path / "out", vocals_db=3.0)
    assert [row["part"] for row in report.stems] == ["vocals", "original vocals"]
    assert any("no accompaniment" in line for line in report.warnings)


def test_a_disk_that_is_full_leaves_no_result(
    song: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = song()
    monkeypatch.setattr(shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(10**9, 10**9, 1000))
    with pytest.raises(RVCError, match="room"):
        _sing(file, tmp_path / "out")
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["separated"]
