"""Every odd file is read whole, or what is missing is named, or it is refused by name; none ends a folder."""

from pathlib import Path

import av
import numpy as np
import pytest
import soundfile
from odd_files import Odd, odd_files

from rvc_core.audio.recordings import find_recordings
from rvc_core.audio.waveform import Audio, Recording, header_seconds, read_audio, read_recording
from rvc_core.errors import AudioError
from rvc_core.preparation.prepare import prepare
from rvc_core.settings import PrepareSettings
from rvc_core.workspace.layout import Layout


@pytest.fixture(scope="module")
def odds(tmp_path_factory) -> list[Odd]:
    made = odd_files(tmp_path_factory.mktemp("encoders"))
    assert len(made) > 150 and len({odd.name for odd in made}) == len(made)
    return made


def pitch_at(audio: Audio, second: float) -> float:
    """Strongest frequency in Hz of 0.2 s; 0 for silence."""
    samples = audio[second - 0.1 : second + 0.1].samples
    samples = samples - samples.mean()
    if np.abs(samples).max() < 3e-4:
        return 0.0
    spectrum = np.abs(np.fft.rfft(samples * np.hanning(len(samples)), 8 * len(samples)))
    return float(spectrum.argmax() * audio.sample_rate / (8 * len(samples)))


def fault(odd: Odd, read: Recording) -> str:
    """What a reader got wrong; empty if nothing."""
    missing = sum(lost.seconds for lost in read.missing)
    if odd.seconds < 0 and abs(read.audio.seconds + missing - odd.lost) > 0.1:
        return f"{read.audio.seconds:.3f} s read and {missing:.3f} s missing of {odd.lost:.3f} s"
    if odd.seconds >= 0 and (abs(read.audio.seconds - odd.seconds) > 0.02 or missing):
        return f"{read.audio.seconds:.3f} s read and {missing:.3f} s missing of {odd.seconds:.3f} s"
    wrong = [place for place in odd.tones if abs(pitch_at(read.audio, place[0]) - place[1]) > 12]
    if wrong:
        return f"another sound at {wrong}"
    said = any(odd.says in note for note in read.notes) if odd.says else not read.notes
    return "" if said else f"notes {read.notes}"


def test_odd_files_are_read_explained_or_refused(tmp_path, odds):
    faults = {}
    for odd in odds:
        path = tmp_path / odd.name
        path.write_bytes(odd.content)
        assert header_seconds(path) <= len(odd.content) / 16
        try:
            wrong = "is read" if (read := read_recording(path)) and odd.refused else fault(odd, read)
        except AudioError as error:
            wrong = "" if odd.refused and odd.name in str(error) and error.hint else f"refused: {error}"
        if wrong:
            faults[odd.name] = wrong
    assert not faults


def test_a_folder_of_odd_files_is_prepared_whole(tmp_path, odds):
    """Every second that is held or lost counts, whatever the headers claim; and no file ends the folder."""
    some = [odd for odd in odds if odd.refused or odd.name.startswith(("to ", "size ", "cut", "noise", "late"))][::2]
    for odd in some:
        (tmp_path / "data").mkdir(exist_ok=True)
        (tmp_path / "data" / odd.name).write_bytes(odd.content)
    report = prepare(Layout.of("odd", tmp_path), tmp_path / "data", PrepareSettings(preset="nano"))
    refused = [odd for odd in some if odd.refused]
    assert all(any(odd.name in warning for warning in report.warnings) for odd in refused)
    claimed = sum(header_seconds(tmp_path / "data" / odd.name) for odd in refused)
    true = sum(odd.lost if odd.seconds < 0 else odd.seconds for odd in some if not odd.refused)
    assert report.seconds_in == pytest.approx(true + claimed, abs=0.1 * len(some) / 4)
    assert report.seconds_in == pytest.approx(report.seconds_kept + report.seconds_explained, rel=1e-3)


def test_more_than_a_block_is_searched_for_joined_files(tmp_path, monkeypatch):
    """The mark of the second file may stand across two blocks."""
    soundfile.write(tmp_path / "a.flac", np.random.default_rng(0).uniform(-0.5, 0.5, 8_000), 8_000)
    content = (tmp_path / "a.flac").read_bytes()
    (tmp_path / "b.flac").write_bytes(3 * content)
    for block in (len(content) - 3, len(content), len(content) + 1, 1_000):
        monkeypatch.setattr("rvc_core.audio.decode._BLOCK_BYTES", block)
        assert read_recording(tmp_path / "b.flac").audio.seconds == 3.0


def test_files_of_unknown_names_are_looked_into(tmp_path):
    soundfile.write(tmp_path / "voice.take2", np.zeros(8_000), 8_000, format="FLAC")
    (tmp_path / "weights.take2").write_bytes(b"\x80\x02" + bytes(500))
    (tmp_path / "fake.take2").write_bytes(b"fLaC" + bytes(500))
    (tmp_path / ".voice.take2").write_bytes((tmp_path / "voice.take2").read_bytes())
    found = find_recordings(tmp_path)
    assert [*found.recordings] == ["voice.take2"] and len(found.not_audio) == 3


@pytest.mark.parametrize("seed", [0, *(pytest.param(seed, marks=pytest.mark.slow) for seed in range(1, 12))])
def test_damaged_bytes_end_in_sound_or_in_one_error(seed, tmp_path, odds):
    random = np.random.default_rng(seed)
    some = random.permutation([number for number, odd in enumerate(odds) if odd.content])[:80]
    for number in some:
        content = bytearray(odds[number].content)
        places = random.integers(min(len(content), 200) if number % 2 else len(content), size=20)
        for place in places:
            content[place] = random.integers(256)
        path = tmp_path / f"{seed}.{odds[number].name.rpartition('.')[2]}"
        path.write_bytes(content[: random.integers(1, len(content))] if number % 3 == 0 else content)
        try:
            read = read_recording(path)
            assert np.isfinite(read.audio.samples).all() and sum(one.seconds for one in read.missing) < 5 * 3600
        except AudioError as error:
            assert error.hint and path.name in str(error)


def test_eight_channels_are_read(tmp_path: Path) -> None:
    """PyAV ends the process where it hands out eight planes."""
    tone = 0.2 * np.sin(np.arange(48_000) / 9).astype(np.float32)
    with av.open(str(tmp_path / "film.m4a"), "w") as container:
        stream = container.add_stream("aac", rate=48_000, layout="7.1")
        frame = av.AudioFrame.from_ndarray(np.repeat(tone[:, None], 8, axis=1).reshape(1, -1), "flt", "7.1")
        frame.sample_rate = 48_000
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    audio = read_audio(tmp_path / "film.m4a")
    assert audio.seconds == pytest.approx(1.0, abs=0.05) and np.std(audio.samples) == pytest.approx(0.14, abs=0.02)
