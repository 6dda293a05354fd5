"""Preparing: conservation of every second, names that cannot collide, held-out sound that training never hears."""

import json
import os
import shutil
import time

import numpy as np
import pytest
import soundfile

from rvc_core.audio.slicer import Span, inside, union
from rvc_core.audio.waveform import Audio, highpass, read_audio
from rvc_core.errors import DatasetError, ResourceError, StageOrderError
from rvc_core.preparation.heldout import choose_heldout
from rvc_core.preparation.prepare import normalised, prepare
from rvc_core.progress import Stop
from rvc_core.settings import PrepareSettings
from rvc_core.workspace.layout import Layout
from rvc_core.workspace.manifest import ExperimentRecord, Manifest
from rvc_core.workspace.stamps import stamp, stamp_of
from torture import RATE_HZ, torture_set, voice

NANO = PrepareSettings(preset="nano")


@pytest.fixture
def layout(tmp_path):
    return Layout.of("Алиса's 声 😀", tmp_path)


def recordings(folder, *seconds):
    """Write one continuous recording per length."""
    folder.mkdir(exist_ok=True)
    for number, length in enumerate(seconds):
        soundfile.write(folder / f"{number:03}.wav", voice(length, number, 16_000), 16_000)
    return folder


def spans_of(rows, name):
    """Microsecond spans of all rows of one recording."""
    return [
        Span(round(1e6 * row.start_seconds), round(1e6 * (row.start_seconds + row.seconds)))
        for row in rows
        if row.recording == name
    ]


def assert_conserved(layout, truth):
    """Clips and explained stretches of each recording tile it, and nothing is in both."""
    manifest = Manifest.load(layout)
    for name, seconds in truth.items():
        kept, explained = union(spans_of(manifest.clips, name)), spans_of(manifest.explained, name)
        together = union([span for span in kept + explained if len(span)])
        assert sum(map(len, together)) == pytest.approx(1e6 * seconds, rel=1e-3, abs=100), name
        assert sum(len(piece) for span in explained for piece in inside(kept, span)) <= 100, name
    folders = {False: layout, True: layout.heldout}
    for held, place in folders.items():
        names = {f"{clip.id}.wav" for clip in manifest.clips if clip.heldout == held}
        for folder in (place.clips, place.clips_16k):
            assert {path.name for path in folder.glob("*")} == names
    assert len({clip.id for clip in manifest.clips}) == len(manifest.clips)
    assert not list(layout.root.glob(".*"))


def test_torture_set_is_conserved_and_every_file_has_its_reason(tmp_path, layout):
    truth = torture_set(tmp_path / "мои записи")
    report = prepare(layout, tmp_path / "мои записи", NANO)
    manifest = Manifest.load(layout)
    for name, expected in truth.items():
        reasons = {row.reason for row in manifest.explained if row.recording == name and row.seconds > 0.05}
        if expected.reason:
            assert {row.reason for row in manifest.explained if row.recording == name} == {expected.reason}, name
            assert name not in {clip.recording for clip in manifest.clips}
        else:
            assert not reasons and name in {clip.recording for clip in manifest.clips}, name
    measured = {name: expected.seconds for name, expected in truth.items()}
    for name in ("cover.mp3", "phone.m4a", "film.mp4", "old.wma", "call.opus"):  # codecs pad or cut their ends
        measured[name] = read_audio(tmp_path / "мои записи" / name).seconds
        assert measured[name] == pytest.approx(2.0, abs=0.07)
    assert_conserved(layout, measured)
    assert report.seconds_in == pytest.approx(sum(measured.values()), rel=1e-3)
    assert report.seconds_in == pytest.approx(report.seconds_kept + report.seconds_explained, rel=1e-3)
    assert any(".ipynb_checkpoints/: ignored folder" in line for line in report.warnings)
    assert any(line.startswith("more.zip: not audio") for line in report.warnings)
    json.dumps(report.as_json())


@pytest.mark.parametrize("seed", range(8))
def test_random_phrases_are_conserved(tmp_path, layout, seed):
    random, folder = np.random.default_rng(seed), tmp_path / "data"
    folder.mkdir()
    truth = {}
    for number in range(random.integers(1, 4)):
        pieces = []
        for _ in range(random.integers(1, 8)):
            pieces += [
                voice(random.choice([0.1, 0.5, 2, 9]), int(random.integers(1 << 30)), 16_000),
                np.zeros(int(16_000 * random.choice([0.2, 0.5, 1.2, 3])), np.float32),
            ]
        sound = np.concatenate(pieces)
        soundfile.write(folder / f"{number}.flac", sound, 16_000)
        truth[f"{number}.flac"] = len(sound) / 16_000
    report = prepare(layout, folder, PrepareSettings(preset="nano", holdout_minutes=random.choice([0, 0.05, 0.2])))
    assert_conserved(layout, truth)
    assert report.seconds_in == pytest.approx(sum(truth.values()), rel=1e-4)
    assert report.seconds_in == pytest.approx(report.seconds_kept + report.seconds_explained, rel=1e-3)
    assert set(report.explained) <= {"silent"}


def test_three_phrases_of_ten_seconds_give_nine_clips(tmp_path, layout):
    """RVC names these 0_0, 0_1, 0_3, 0_4, 0_6, 0_7, 0_9: two tails are overwritten."""
    pause = np.zeros(2 * RATE_HZ, np.float32)
    phrases = [voice(10, seed) for seed in range(3)]
    soundfile.write(tmp_path / "a.wav", np.concatenate([phrases[0], pause, phrases[1], pause, phrases[2]]), RATE_HZ)
    report = prepare(layout, tmp_path / "a.wav", PrepareSettings(preset="nano", holdout_minutes=0))
    assert report.clips == 9 and report.seconds_kept >= 30
    assert sorted(path.stem for path in layout.clips.iterdir()) == [f"0_{number}" for number in range(9)]


@pytest.mark.parametrize("seconds", [0.15, 0.5, 0.75, 2, 3.9])
def test_a_short_utterance_survives_with_all_its_sound(tmp_path, layout, seconds):
    report = prepare(layout, recordings(tmp_path / "data", seconds, 5), NANO)
    clip = next(clip for clip in Manifest.load(layout).clips if clip.recording == "000.wav")
    made, made_16k = (read_audio(folder / f"{clip.id}.wav") for folder in (layout.clips, layout.clips_16k))
    assert clip.seconds == pytest.approx(seconds) and report.explained == {}
    assert made.seconds == made_16k.seconds == pytest.approx(max(seconds, 0.8))
    true = highpass(read_audio(tmp_path / "data" / "000.wav"), zero_phase=False).samples
    assert np.corrcoef(made.samples[: len(true)], true)[0, 1] > 0.9999


def test_clips_are_float32_at_both_rates_and_normalised(tmp_path, layout):
    prepare(layout, recordings(tmp_path / "data", 3), PrepareSettings(preset="v2-40k"))
    for folder, rate_hz in ((layout.clips, 40_000), (layout.clips_16k, 16_000)):
        info = soundfile.info(folder / "0_0.wav")
        assert (info.samplerate, info.subtype, info.frames) == (rate_hz, "FLOAT", 3 * rate_hz)
    loud = normalised(np.array([0.1, -2.0], np.float32))
    np.testing.assert_allclose(loud, np.array([0.1, -2.0]) / 2 * 0.9 * 0.75 + 0.25 * np.array([0.1, -2.0]), rtol=1e-6)


def test_unchanged_is_skipped_and_changes_are_redone(tmp_path, layout):
    data = recordings(tmp_path / "data", 5, 6)
    first = prepare(layout, data, NANO)
    before = {path: path.stat().st_mtime_ns for path in layout.clips.iterdir()}
    start = time.monotonic()
    again = prepare(layout, data, NANO)
    assert time.monotonic() - start < 1 and again.skipped and not first.skipped
    assert again.as_json() == {**first.as_json(), "skipped": True}
    assert before == {path: path.stat().st_mtime_ns for path in layout.clips.iterdir()}

    for stage in ("f0", "content", "index"):
        stamp(layout, stage, {})
    for folder in (layout.f0_coarse, layout.f0_hz, layout.features(256), layout.mute.root):
        folder.mkdir()
        (folder / "stale.npy").touch()
    layout.filelist.touch()
    layout.generator(7).touch()
    layout.index(3, "nano").touch()
    changed = prepare(layout, data, PrepareSettings(preset="nano", silence_db=-40))
    assert not changed.skipped and stamp_of(layout, "index") is stamp_of(layout, "f0") is None
    assert not any(
        path.exists()
        for path in (layout.f0_coarse, layout.f0_hz, layout.features(256), layout.filelist, layout.mute.root)
    )
    assert layout.generator(7).exists() and layout.indexes()
    assert any("rvc index" in line for line in changed.warnings)

    next(layout.clips.iterdir()).unlink()
    assert not prepare(layout, data, PrepareSettings(preset="nano", silence_db=-40)).skipped
    soundfile.write(data / "new.wav", voice(4, 99, 16_000), 16_000)
    (data / "000.wav").unlink()
    assert prepare(layout, data, PrepareSettings(preset="nano", silence_db=-40)).clips == 3
    assert_conserved(layout, {"001.wav": 6, "new.wav": 4})


@pytest.mark.parametrize(
    "fill, message",
    [
        (lambda folder: None, "it is empty"),
        (lambda folder: (folder / "a.wav").write_text("hello"), "1 undecodable"),
        (lambda folder: (folder / "a.wav").touch(), "empty"),
        (lambda folder: (folder / "a.txt").write_text("hello"), "1 not audio"),
        (lambda folder: soundfile.write(folder / "a.wav", np.zeros(48_000), 16_000), "1 silent"),
        (lambda folder: soundfile.write(folder / "a.wav", 1e-3 * voice(2), 16_000), "1 silent; a.wav: peak"),
        (lambda folder: soundfile.write(folder / "a.wav", np.full(9000, np.nan), 16_000, "FLOAT"), "1 non-finite"),
    ],
)
def test_nothing_usable_is_an_error_that_leaves_nothing(tmp_path, layout, fill, message):
    folder = tmp_path / "data"
    folder.mkdir()
    fill(folder)
    with pytest.raises(DatasetError, match=message) as failure:
        prepare(layout, folder, NANO)
    assert failure.value.hint and "\n" not in str(failure.value) and not layout.root.exists()


def test_what_cannot_be_opened_is_named_and_the_rest_is_used(tmp_path, layout):
    dataset = recordings(tmp_path / "takes", 4)
    (dataset / "gone.wav").symlink_to("/nowhere/b.wav")
    os.mkfifo(dataset / "pipe.wav")
    report = prepare(layout, dataset, NANO)
    reasons = {one.recording: one.detail for one in Manifest.load(layout).explained}
    assert report.clips and "is a link to /nowhere/b.wav, and nothing is there" in reasons["gone.wav"]
    assert "is a pipe" in reasons["pipe.wav"] and "000.wav" not in reasons
    assert prepare(layout, dataset, NANO).skipped
    shutil.copy(dataset / "000.wav", tmp_path / "b.wav")
    (dataset / "gone.wav").unlink()
    (dataset / "gone.wav").symlink_to(tmp_path / "b.wav")
    assert not prepare(layout, dataset, NANO).skipped, "now it leads somewhere"


def test_a_failed_run_leaves_the_earlier_one_untouched(tmp_path, layout):
    prepare(layout, recordings(tmp_path / "data", 5), NANO)
    before = {path: path.read_bytes() for path in layout.root.rglob("*") if path.is_file()}
    (tmp_path / "bad").mkdir()
    for dataset in (tmp_path / "bad", tmp_path / "absent"):
        with pytest.raises(DatasetError):
            prepare(layout, dataset, NANO)
    stop = Stop()
    stop.request()
    soundfile.write(tmp_path / "data" / "b.wav", voice(2), 16_000)
    assert prepare(layout, tmp_path / "data", NANO, stop=stop).stopped
    assert before == {path: path.read_bytes() for path in layout.root.rglob("*") if path.is_file()}


def test_what_a_killed_run_left_is_cleared(tmp_path, layout):
    for leftover in (
        layout.root / ".preparing" / "0_gt_wavs" / "0_0.wav",
        layout.clips / "7_7.wav",
        layout.heldout.clips / "8_8.wav",
        layout.f0_hz / "7_7.wav.npy",
    ):
        leftover.parent.mkdir(parents=True)
        leftover.touch()
    prepare(layout, recordings(tmp_path / "data", 5), NANO)
    assert_conserved(layout, {"000.wav": 5})
    assert not layout.f0_hz.exists()


def test_a_full_disk_is_said_before_anything_is_written(tmp_path, layout, monkeypatch):
    data = recordings(tmp_path / "data", 5)
    monkeypatch.setattr("shutil.disk_usage", lambda _: type("Usage", (), {"free": 1 << 20}))
    with pytest.raises(ResourceError, match="not enough room"):
        prepare(layout, data, NANO)
    assert not layout.root.exists()


def test_damaged_recording_keeps_its_whole_part_and_tells_of_the_rest(tmp_path, layout):
    data = recordings(tmp_path / "data", 5)
    soundfile.write(data / "cut.flac", voice(20, 5, 16_000), 16_000)
    whole = (data / "cut.flac").read_bytes()
    (data / "cut.flac").write_bytes(whole[: len(whole) // 2])
    report = prepare(layout, data, NANO)
    assert 4 < report.explained["undecodable"] < 16 and report.seconds_in == pytest.approx(25, rel=1e-3)
    assert_conserved(layout, {"000.wav": 5, "cut.flac": 20})


@pytest.mark.parametrize(
    "lengths, minutes, seconds_held",
    [
        ([4] * 30, 0.2, (12, 24)),
        ([100], 0.2, (12, 24)),
        ([61], 0.1, (6, 12)),
        ([50, 70], 0.2, (12, 24)),
        ([50], None, (0, 0)),
        ([150, 5, 5, 5], 0.3, (18, 36)),
    ],
)
def test_heldout_is_disjoint_stable_and_of_the_right_size(lengths, minutes, seconds_held, tmp_path, layout):
    data = recordings(tmp_path / "data", *lengths)
    settings = PrepareSettings(preset="nano", holdout_minutes=minutes)
    report = prepare(layout, data, settings)
    assert seconds_held[0] <= report.heldout_seconds <= seconds_held[1] and report.explained == {}
    manifest = Manifest.load(layout)
    assert_conserved(layout, {f"{number:03}.wav": seconds for number, seconds in enumerate(lengths)})
    for name in {clip.recording for clip in manifest.heldout}:
        training, held = (union(spans_of(clips, name)) for clips in (manifest.training, manifest.heldout))
        assert sum(len(piece) for span in held for piece in inside(training, span)) <= 2  # rounding, not sound
    if len(lengths) > 10:  # whole recordings
        assert not {clip.recording for clip in manifest.heldout} & {clip.recording for clip in manifest.training}
    other = Layout.of("other", layout.root)
    prepare(other, data, settings)
    assert Manifest.load(other) == manifest


@pytest.mark.parametrize(
    "lengths, seconds_held",
    [
        ([179], (0, 0)),
        ([190], (20, 30)),
        ([19] * 10, (20, 40)),
        ([5] * 35 + [30], (20, 40)),
        ([50] * 4, (20, 30)),
        ([170, 5, 5, 5], (20, 40)),
        ([60] * 60, (360, 720)),
        ([3600], (360, 720)),
    ],
)
def test_by_default_a_tenth_and_twenty_seconds_are_held_out_none_below_three_minutes(lengths, seconds_held):
    phrases = [
        [Span(400 * at, min(400 * at + 390, 100 * seconds)) for at in range(-(-seconds // 4))] for seconds in lengths
    ]
    chosen = choose_heldout(phrases, 100, minutes=None, seed=0)
    held = sum(len(piece) for number, span in chosen.items() for piece in inside(phrases[number], span)) / 100
    assert 0.97 * seconds_held[0] <= held <= seconds_held[1]  # pauses are not counted


def test_a_stretch_out_of_the_middle_loses_nothing_around_it(tmp_path, layout):
    pause = np.zeros(16_000, np.float32)
    sound = np.concatenate([piece for seed in range(12) for piece in (voice(6, seed, 16_000), pause)])
    soundfile.write(tmp_path / "a.wav", sound, 16_000)
    starts = set()
    for seed in range(4):
        report = prepare(layout, tmp_path / "a.wav", PrepareSettings(preset="nano", seed=seed, holdout_minutes=0.12))
        assert report.seconds_kept >= 72 and 7 <= report.heldout_seconds <= 15
        assert_conserved(layout, {"a.wav": len(sound) / 16_000})
        starts.add(Manifest.load(layout).heldout[0].start_seconds)
    assert len(starts) > 1


def test_heldout_choice_for_any_layout_of_phrases():
    random = np.random.default_rng(0)
    for seed in range(400):
        phrases = []
        for _ in range(random.integers(1, 9)):
            gaps = random.uniform(80, random.choice([200, 1000, 10_000]), 2 * random.integers(1, 9))
            edges = np.cumsum(gaps).astype(int)
            phrases.append([Span(int(a), int(b)) for a, b in edges.reshape(-1, 2)])
        total = sum(len(span) for spans in phrases for span in spans)
        for minutes in (None, 0, 0.1, 30):
            chosen = choose_heldout(phrases, 100, minutes=minutes, seed=seed)
            held = sum(len(piece) for number, span in chosen.items() for piece in inside(phrases[number], span))
            if minutes == 0 or total < (18_000 if minutes is None else 600):
                assert not chosen
            else:
                target = min(max(2000, total / 10) if minutes is None else 6000 * minutes, total / 3)
                longest = max(sum(len(span) for span in spans) for spans in phrases)
                assert min(target, longest / 2) - 80 <= held <= max(2 * target, target + 160) and held < 0.62 * total
            assert all(
                len(piece) >= 79
                for number, span in chosen.items()
                for part in (Span(0, span.start), span, Span(span.stop, 1 << 40))
                for piece in inside(phrases[number], part)
            )


def test_records_load_or_say_what_comes_first(tmp_path, layout):
    for record in (Manifest, ExperimentRecord):
        with pytest.raises(StageOrderError) as failure:
            record.load(layout)
        assert "rvc prepare" in failure.value.hint
    prepare(layout, recordings(tmp_path / "data", 3), NANO, uses_f0=False)
    record = ExperimentRecord.load(layout)
    assert (record.name, record.preset, record.spec.uses_f0) == ("Алиса's 声 😀", "nano", False)
    assert record.dataset == str(tmp_path / "data")


def test_rumble_is_removed(tmp_path, layout):
    rumble = 0.3 * np.sin(2 * np.pi * 20 * np.arange(5 * 16_000) / 16_000)
    (tmp_path / "data").mkdir()
    Audio((voice(5, 0, 16_000) + rumble).astype(np.float32), 16_000).save(tmp_path / "data" / "a.wav")
    prepare(layout, tmp_path / "data", NANO)
    made = read_audio(layout.clips / "0_0.wav").samples
    spectrum = np.abs(np.fft.rfft(made)) ** 2
    assert spectrum[: len(made) * 30 // 16_000].sum() < 0.001 * spectrum.sum()


@pytest.mark.parametrize("peak_db", [-3, -12, -28, -36])
def test_a_quiet_recording_loses_no_more_than_a_loud_one(peak_db, tmp_path, layout):
    """Speech of 20 s with two pauses of 1.5 s; noise 60 dB below its peaks."""
    random, rate = np.random.default_rng(0), 24_000
    swell = np.interp(np.arange(6 * rate) / rate % 0.8, [0, 0.1, 0.5, 0.8], [0.05, 1, 0.3, 0.05])
    part, pause = voice(6, 1, rate) * swell, np.zeros(round(1.5 * rate))
    sound = np.concatenate([part, pause, part[::-1], pause, part])
    sound = 10 ** (peak_db / 20) * (sound / np.abs(sound).max() + 1e-3 * random.standard_normal(len(sound)))
    (tmp_path / "data").mkdir()
    soundfile.write(tmp_path / "data" / "a.wav", sound, rate, "FLOAT")
    report = prepare(layout, tmp_path / "data", NANO)
    assert 18 <= report.seconds_kept < 20.5 and report.seconds_in == pytest.approx(21, abs=0.01)


def test_noise_alone_is_silence_and_what_to_do_is_said(tmp_path, layout):
    data, random = recordings(tmp_path / "data", 5), np.random.default_rng(0)
    soundfile.write(data / "hiss.wav", 5e-4 * random.standard_normal(72_000), 24_000, "FLOAT")
    soundfile.write(data / "numbers.wav", 32_768 * voice(2, 7, 24_000), 24_000, "FLOAT")
    soundfile.write(data / "wild.wav", 40 * voice(2, 8, 24_000), 24_000, "FLOAT")
    report = prepare(layout, data, NANO)
    assert report.seconds_kept == pytest.approx(5, abs=0.01)
    details = {row.recording: row.detail for row in Manifest.load(layout).explained}
    assert "raise its level" in details["hiss.wav"] and "lower its level" in details["numbers.wav"]
    assert "lower its level" in details["wild.wav"]
    assert any("numbers.wav: too loud" in line and "full scale" in line for line in report.warnings)
