"""Separating songs: files in, stems out that sum to the song; nothing half-written; the embedded network separates."""

import json
import os
import subprocess
import sys
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
import soundfile
import soxr

from rvc_core.audio.waveform import read_audio
from rvc_core.cli import main
from rvc_core.embedded import voice_folder
from rvc_core.errors import AudioError, RVCError, SettingsError, WeightsError
from rvc_core.progress import Stop
from rvc_core.separation import models
from rvc_core.separation.separate import RECORD, separate, separate_file
from rvc_core.settings import SeparateSettings

RATE_HZ = 16_000


def speech(rate_hz: int = RATE_HZ) -> np.ndarray:
    """The package's own synthesised speaker, about six seconds (N,)."""
    paths = sorted(voice_folder("source").glob("*.flac"))
    return np.concatenate([read_audio(path, rate_hz).samples for path in paths])[: 6 * rate_hz]


def chords(frames: int, rate_hz: int = RATE_HZ) -> np.ndarray:
    """Plucked chords and a drum (frames,), made here."""
    random, out = np.random.default_rng(3), np.zeros(frames, np.float32)
    for beat in range(2 * frames // rate_hz):
        start = beat * rate_hz // 2
        time = np.arange(min(rate_hz // 2, frames - start)) / rate_hz
        for hertz in ((196, 247, 294), (220, 262, 330), (175, 220, 262), (131, 196, 330))[beat // 2 % 4]:
            out[start : start + len(time)] += sum(
                np.sin(2 * np.pi * hertz * harmonic * time) * np.exp(-time * 3 * harmonic) / harmonic
                for harmonic in range(1, 6)
            )
        out[start : start + len(time)] += random.standard_normal(len(time)) * np.exp(-time * 60)
    return out


def song(rate_hz: int = RATE_HZ, channels: int = 1) -> tuple[np.ndarray, np.ndarray]:
    """A mix and its vocals (channels, N), equally loud."""
    vocals = speech(rate_hz)
    backing = chords(len(vocals), rate_hz)
    backing *= np.sqrt(np.mean(vocals**2) / np.mean(backing**2))
    return np.stack([vocals + backing] * channels).astype(np.float32), np.stack([vocals] * channels)


def si_sdr(made: np.ndarray, true: np.ndarray) -> float:
    target = (made.ravel() @ true.ravel()) / (true.ravel() @ true.ravel()) * true.ravel()
    return float(10 * np.log10(target @ target / np.sum((made.ravel() - target) ** 2)))


def written(path: Path, samples: np.ndarray, rate_hz: int = RATE_HZ, subtype: str | None = None) -> Path:
    soundfile.write(path, samples.T, rate_hz, subtype=subtype)
    return path


def read(path: Path) -> np.ndarray:
    return soundfile.read(path, dtype="float32", always_2d=True)[0].T


@pytest.fixture
def quick(monkeypatch):
    """A separator of a few operations in place of the network, that counts its calls."""

    class Quick:
        name, rate_hz, chunk_seconds, batch, calls = "quick", 0, 1.0, 2, 0

        def __call__(self, chunks, rate_hz):
            Quick.calls += 1
            return chunks * 0.5

    monkeypatch.setattr("rvc_core.separation.separate.load", lambda model, device: Quick())
    return Quick


@pytest.mark.parametrize("channels", [1, 2])
def test_the_embedded_network_separates_speech_from_chords(channels):
    mix, vocals = song(44_100, channels)
    stems = separate(mix, 44_100)
    assert stems.models == {"vocals": "embedded"}
    assert si_sdr(stems.samples["vocals"], vocals) - si_sdr(mix, vocals) > 4.5
    assert si_sdr(stems.samples["instrumental"], mix - vocals) - si_sdr(mix, mix - vocals) > 4.5
    assert np.abs(sum(stems.samples.values()) - mix).max() < 1e-6


def test_vocals_alone_stay_and_music_alone_goes():
    mix, vocals = song()
    kept = separate(vocals, RATE_HZ).levels_db
    assert kept["vocals"] - kept["instrumental"] > 10
    gone = separate(mix - vocals, RATE_HZ).levels_db
    assert gone["instrumental"] - gone["vocals"] > 6


def test_sibilants_above_8_khz_go_with_the_voice_and_cymbals_stay():
    rate, time = 44_100, np.arange(3 * 44_100) / 44_100
    random = np.random.default_rng(0)
    high = np.fft.rfftfreq(len(time), 1 / rate) > 9000
    hiss = np.fft.irfft(np.fft.rfft(random.standard_normal(len(time))) * high, len(time)).astype(np.float32)
    backing = chords(len(time), rate) * 0.05
    shares = []
    for noise in (0.0, 0.05):
        bursts = hiss * noise * (np.sin(2 * np.pi * 2 * time) > 0.9)
        stems = separate((backing + bursts)[None].astype(np.float32), rate).samples
        bands = {name: np.abs(np.fft.rfft(stem[0]))[high] for name, stem in stems.items()}
        shares.append(float(np.sum(bands["vocals"] ** 2) / sum(np.sum(band**2) for band in bands.values())))
    assert shares[1] < 0.1, "noise above 8 kHz without a voice below is a cymbal"


@pytest.mark.parametrize(
    ("rate_hz", "channels", "suffix"), [(8000, 1, "wav"), (44_100, 2, "flac"), (48_000, 2, "ogg"), (22_050, 1, "mp3")]
)
def test_stems_have_the_songs_rate_channels_and_length(tmp_path, quick, rate_hz, channels, suffix):
    samples = 0.1 * np.random.default_rng(0).standard_normal((channels, rate_hz * 3 + 17)).astype(np.float32)
    path = written(tmp_path / f"a song.{suffix}", samples, rate_hz)
    report = separate_file(path, tmp_path / "stems")
    mix = read_audio(path)
    assert (report.sample_rate_hz, report.channels, [*report.stems]) == (rate_hz, channels, ["vocals", "instrumental"])
    stems = [read(stem) for stem in report.stems.values()]
    assert all(stem.shape == (channels, len(mix.samples)) for stem in stems)
    assert np.abs(sum(stems).mean(0) - mix.samples).max() < 1e-4
    assert report.levels_db["vocals"] == pytest.approx(20 * np.log10(np.sqrt(np.mean(stems[0] ** 2))), abs=0.02)
    assert not list(tmp_path.glob(".part-*")) and json.dumps(report.as_json())


def test_surround_is_folded_to_stereo_and_said(tmp_path, quick):
    samples = np.zeros((6, 24_000), np.float32)
    samples[2] = 0.1 * np.sin(np.arange(24_000) / 20)  # the centre
    report = separate_file(written(tmp_path / "film.wav", samples, 48_000), tmp_path / "stems")
    left, right = sum(read(stem) for stem in report.stems.values())
    assert report.channels == 2 and np.allclose(left, right) and np.abs(left).max() == pytest.approx(0.0707, abs=1e-3)
    assert report.notes == ["its 6 channels were folded to stereo"]


def test_a_later_kind_works_on_the_result_of_the_earlier(tmp_path, quick, monkeypatch):
    monkeypatch.setattr("rvc_core.separation.separate.chosen", lambda kind, wanted: models.Model(f"of {kind}", "1"))
    mix = song()[0]
    report = separate_file(
        written(tmp_path / "a.wav", mix, subtype="FLOAT"), tmp_path / "s", ["vocals", "lead", "dereverb"]
    )
    assert [*report.stems] == ["vocals", "instrumental", "lead", "backing", "dry", "reverb"]
    assert report.models == {kind: f"of {kind}" for kind in ("vocals", "lead", "dereverb")}
    assert np.allclose(read(report.stems["dry"]), mix / 8, atol=1e-6)
    assert np.allclose(
        read(report.stems["lead"]) + read(report.stems["backing"]), read(report.stems["vocals"]), atol=1e-6
    )


def test_the_same_song_is_not_separated_again_but_a_changed_one_is(tmp_path, quick):
    path, folder = written(tmp_path / "a.wav", song()[0]), tmp_path / "stems"
    first = separate_file(path, folder)
    calls = quick.calls
    again = separate_file(path, folder)
    assert quick.calls == calls and again.notes[-1].startswith("it was separated before")
    assert (again.stems, again.levels_db, again.seconds) == (first.stems, first.levels_db, first.seconds)
    separate_file(path, folder, settings=SeparateSettings(overlap=0.5))
    assert quick.calls > calls
    calls = quick.calls
    (folder / "vocals.wav").write_bytes(b"RIFF")
    separate_file(path, folder, settings=SeparateSettings(overlap=0.5))
    assert quick.calls > calls, "a damaged stem is made again"
    written(path, 0.5 * song()[0])
    assert separate_file(path, folder).levels_db["vocals"] == pytest.approx(first.levels_db["vocals"] - 6.02, abs=0.1)


@pytest.mark.parametrize("record", ["", "[]", '{"signature": 3}', "\0" * 100])
def test_a_record_that_somebody_broke_is_not_believed(tmp_path, quick, record):
    path = written(tmp_path / "a.wav", song()[0])
    separate_file(path, tmp_path / "stems")
    (tmp_path / "stems" / RECORD).write_text(record)
    assert separate_file(path, tmp_path / "stems").notes == []


def test_what_stands_in_the_way_is_left_alone(tmp_path, quick):
    path = written(tmp_path / "a.wav", song()[0])
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "letter.txt").write_text("dear")
    for place in (tmp_path / "mine", path):
        with pytest.raises(SettingsError, match="holds other files"):
            separate_file(path, place)
    assert [*os.listdir(tmp_path / "mine")] == ["letter.txt"] and quick.calls == 0


def test_a_stop_a_failure_and_silence_leave_nothing(tmp_path, quick, monkeypatch):
    path, stop = written(tmp_path / "a.wav", song()[0]), Stop()
    stop.request()
    with pytest.raises(RVCError, match="was stopped"):
        separate_file(path, tmp_path / "stems", stop=stop)
    with pytest.raises(AudioError, match="is silent"):
        separate_file(written(tmp_path / "quiet.wav", np.zeros((2, 9000))), tmp_path / "stems")
    monkeypatch.setattr(quick, "__call__", lambda *_: (_ for _ in ()).throw(RuntimeError("a fault")))
    with pytest.raises(RuntimeError, match="a fault"):
        separate_file(path, tmp_path / "stems")
    assert sorted(os.listdir(tmp_path)) == ["a.wav", "quiet.wav"]


def test_a_full_disk_is_told_and_leaves_nothing(tmp_path, quick, monkeypatch, capsys):
    path = written(tmp_path / "a.wav", song()[0])

    def refuses(*_: object) -> None:
        raise soundfile.LibsndfileError(2)

    monkeypatch.setattr(soundfile.SoundFile, "write", refuses)
    assert main(["separate", str(path), "--output", str(tmp_path / "stems"), "--quiet"]) == 1
    assert "refused to take the stems" in capsys.readouterr().err and os.listdir(tmp_path) == ["a.wav"]


@pytest.mark.parametrize(
    ("content", "why"), [(b"", "empty"), (b"no sound at all" * 99, "cannot be decoded"), (None, "does not exist")]
)
def test_what_is_no_song_is_refused_before_anything_is_written(tmp_path, quick, content, why):
    path = tmp_path / "a.wav"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(AudioError, match=why):
        separate_file(path, tmp_path / "stems")
    assert not (tmp_path / "stems").exists()


def test_half_a_second_is_enough(tmp_path):
    report = separate_file(written(tmp_path / "a.wav", song()[0][:, :8000]), tmp_path / "stems")
    assert report.seconds == 0.5 and all(soundfile.info(stem).frames == 8000 for stem in report.stems.values())


@pytest.mark.parametrize("kind", ["lead", "dereverb"])
def test_a_kind_without_its_model_says_what_to_fetch_before_anything_is_written(tmp_path, kind):
    with pytest.raises(WeightsError) as caught:
        separate_file(written(tmp_path / "a.wav", song()[0]), tmp_path / "stems", ["vocals", kind])
    assert f"rvc weights fetch {kind}" in caught.value.hint and not (tmp_path / "stems").exists()


def test_unknown_kinds_and_models_are_refused_with_those_there_are():
    samples = np.zeros((1, 800), np.float32)
    for kinds in (["vocal"], [], ["vocals", "vocals"]):
        with pytest.raises(SettingsError) as caught:
            separate(samples, 8000, kinds)
        assert "vocals, lead, dereverb, denoise" in caught.value.hint
    with pytest.raises(SettingsError, match="no model for vocals has the name 'demucs'"):
        separate(samples, 8000, settings=SeparateSettings(model="demucs"))
    with pytest.raises(WeightsError, match="ep_317"):
        separate(samples, 8000, settings=SeparateSettings(model="model_bs_roformer_ep_317_sdr_12.9755"))
    with pytest.raises(SettingsError, match="must be"):
        separate(np.zeros((3, 800), np.float32), 8000)
    with pytest.raises(AudioError, match="NaN"):
        separate(np.full((1, 800), np.nan, np.float32), 8000)


_PEAK = """
import sys, resource, soundfile, numpy as np
from pathlib import Path
from rvc_core.separation.separate import separate_file
from rvc_core.settings import RuntimeSettings
path = Path(sys.argv[1], "song.wav")
random = np.random.default_rng(0)
with soundfile.SoundFile(path, "w", 22050, 2, "PCM_16") as file:
    for second in range(int(sys.argv[2])):
        file.write(random.standard_normal((22050, 2)) * 0.05)
separate_file(path, Path(sys.argv[1], "stems"), runtime=RuntimeSettings(threads=1))
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""


def _peak_kb(folder: Path, seconds: int) -> int:
    folder.mkdir()
    done = subprocess.run([sys.executable, "-c", _PEAK, str(folder), str(seconds)], capture_output=True, text=True)
    return int(done.stdout.split()[-1])


def test_memory_does_not_grow_with_the_song(tmp_path, quick):
    peaks = []
    for seconds in (6, 60):
        samples = 0.1 * np.random.default_rng(0).standard_normal((2, 44_100 * seconds)).astype(np.float32)
        path = written(tmp_path / f"{seconds}.wav", samples, 44_100)
        del samples
        tracemalloc.start()
        separate_file(path, tmp_path / f"{seconds} stems")
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] <= 1.2 * peaks[0]


@pytest.mark.slow
def test_thirty_minutes_take_no_more_memory_than_three(tmp_path):
    assert _peak_kb(tmp_path / "long", 1800) <= 1.2 * _peak_kb(tmp_path / "short", 180)


def test_resampling_a_voice_does_not_move_it():
    mix, vocals = song(22_050)
    low = separate(mix, 22_050).samples["vocals"][0]
    high = separate(soxr.resample(mix.T, 22_050, 44_100).T.astype(np.float32), 44_100).samples["vocals"][0]
    assert si_sdr(soxr.resample(high, 44_100, 22_050)[: len(low)], low[: len(high) // 2]) > 12


def test_the_command_separates_all_songs_into_folders_of_their_own(tmp_path, quick, monkeypatch, capsys):
    for place in ("one", "two"):
        (tmp_path / place).mkdir()
        written(tmp_path / place / "a song.wav", song()[0])
    (tmp_path / "two" / "broken.wav").write_bytes(b"no sound at all" * 99)
    words = ["separate", str(tmp_path / "one"), str(tmp_path / "two"), "--output", str(tmp_path / "stems"), "--json"]
    monkeypatch.chdir(tmp_path)
    assert main([*words, "gone.wav", "two/a", "song.wav"]) == 1
    told = capsys.readouterr()
    report = json.loads(told.out.splitlines()[-1])
    assert report["failed"] == 4 and "broken.wav: 'broken.wav' cannot be decoded" in told.err
    assert "rvc: gone.wav: there is no 'gone.wav'" in told.err and "in quotes: 'two/a song.wav'" in told.err
    assert sorted(os.listdir(tmp_path / "stems")) == ["a song", "a song (2)"]
    made = [song["stems"] for song in report["songs"] if "stems" in song]
    assert len(made) == 2 and all(Path(path).is_file() for stems in made for path in stems.values())
    calls = quick.calls
    (tmp_path / "two" / "broken.wav").unlink()
    assert main(words) == 0 and quick.calls == calls, "what was separated stays as it is"
    (tmp_path / "two" / "a song.wav").rename(tmp_path / "a song.wav")
    assert main(["separate", str(tmp_path / "a song.wav"), "--output", str(tmp_path / "stems")]) == 0
    assert sorted(os.listdir(tmp_path / "stems")) == ["a song", "a song (2)", "a song (3)"], "no other's is replaced"


def test_an_instrumental_is_named_and_later_kinds_are_skipped(tmp_path, quick, monkeypatch, capsys):
    monkeypatch.setattr(quick, "__call__", lambda self, chunks, rate_hz: chunks * 0.05)
    for name in ("rvc_core.separation.separate.chosen", "rvc_core.separation.models.chosen"):
        monkeypatch.setattr(name, lambda kind, wanted: models.Model(f"of {kind}", "1"))
    path = written(tmp_path / "a.wav", song()[0])
    words = ["separate", str(path), "--kinds", "vocals,lead,denoise", "--output", str(tmp_path / "stems")]
    for _ in range(2):  # the second time it was separated before
        assert main([*words, "--json"]) == 0
        report = json.loads(capsys.readouterr().out.splitlines()[-1])["songs"][0]
        assert report["empty"] == ["vocals"] and sorted(report["stems"]) == ["instrumental", "vocals"]
        assert report["models"] == {"vocals": "of vocals"} and Path(report["stems"]["vocals"]).is_file()
        assert "no vocals were found" in report["notes"][0]
        assert [note for note in report["notes"] if note.startswith("skipped")] == [
            "skipped lead: nothing was found for it in vocals",
            "skipped denoise: nothing was found for it in vocals",
        ]
    assert main(words) == 0 and "note: no vocals were found" in capsys.readouterr().out


@pytest.mark.parametrize("level", [1.0, 1e-3])
def test_the_embedded_network_tells_songs_from_instrumentals_at_any_level(level):
    mix, vocals = song()
    short = mix - vocals
    short[:, 2 * RATE_HZ : 4 * RATE_HZ] += vocals[:, 2 * RATE_HZ : 4 * RATE_HZ]
    for samples, empty in ((mix, []), (short, []), (vocals, ["instrumental"])):
        assert separate((level * samples).astype(np.float32), RATE_HZ).empty == empty
    rhythm = (mix - vocals) * (np.sin(np.arange(mix.shape[1]) / 4000) > 0)
    noise = np.random.default_rng(0).standard_normal(mix.shape)
    for samples in (mix - vocals, rhythm, noise):
        told = separate((0.1 * level * samples).astype(np.float32), RATE_HZ)
        assert told.empty == ["vocals"] or "hardly any vocals" in told.notes[0], told.levels_db


def test_a_silent_song_leaves_nothing(tmp_path, quick, capsys):
    path = written(tmp_path / "a.wav", np.zeros((2, RATE_HZ)))
    assert main(["separate", str(path), "--output", str(tmp_path / "new" / "stems")]) == 1
    assert "is silent" in capsys.readouterr().err and os.listdir(tmp_path) == ["a.wav"]


@pytest.mark.parametrize(
    ("words", "status"), [(["--kinds", "vocal"], "unknown kind vocal"), (["--kinds", "lead"], "fetch lead")]
)
def test_the_command_refuses_before_it_writes(tmp_path, words, status, capsys):
    path = written(tmp_path / "a.wav", song()[0])
    assert main(["separate", str(path), "--output", str(tmp_path / "stems"), *words]) == 1
    assert status in capsys.readouterr().err and sorted(os.listdir(tmp_path)) == ["a.wav"]


def test_channels_that_cancel_are_told(tmp_path, capsys):
    mix, _ = song()
    for name, channels, told in (("same", [mix[0], mix[0]], False), ("opposed", [mix[0], -0.9 * mix[0]], True)):
        path = written(tmp_path / f"{name}.wav", np.stack(channels))
        assert main(["separate", str(path), "--output", str(tmp_path / "stems")]) == 0
        assert ("channels cancel each other" in capsys.readouterr().out) == told
