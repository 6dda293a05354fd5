"""Clips become batches: nothing is lost, nothing is mixed up, the order can be repeated."""

import threading
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from rvc_core.errors import DatasetError, StageOrderError
from rvc_core.workspace import dataset
from rvc_core.workspace.dataset import Batch, ClipStore, bucket_batches, read_ahead
from rvc_core.workspace.filelist import read_filelist
from rvc_core.workspace.layout import Layout
from tiny import TINY, experiment


def test_every_clip_is_in_exactly_one_batch_of_an_epoch() -> None:
    frames = [int(value) for value in np.random.default_rng(0).integers(30, 900, 157)]
    batches = bucket_batches(frames, 8, seed=(1, 3))
    assert sorted(index for batch in batches for index in batch) == list(range(157))
    assert max(map(len, batches)) == 8


def test_batches_hold_clips_of_similar_length_and_follow_the_seed() -> None:
    frames = [90] * 40 + [370] * 40
    batches = bucket_batches(frames, 8, seed=(5, 0))
    assert all(len({frames[index] for index in batch}) == 1 for batch in batches)
    assert batches == bucket_batches(frames, 8, seed=(5, 0))
    assert batches != bucket_batches(frames, 8, seed=(5, 1))


def test_parts_of_a_clip_are_cut_to_the_same_frames(tiny: None, tmp_path: Path) -> None:
    layout = experiment(tmp_path, seconds=1.3)
    store = ClipStore(read_filelist(layout.filelist), TINY)
    clip = store[0]
    assert clip.frames == 2 * ((20800 - 400) // 320 + 1)
    assert clip.content.shape == (clip.frames, 8) and clip.spectrogram.shape == (513, clip.frames)
    assert len(clip.f0_hz) == len(clip.f0_coarse) == clip.frames and len(clip.wave) == clip.frames * 160
    assert torch.equal(clip.content[0], clip.content[1])  # 50 frames per second, each twice


def test_a_batch_is_padded_at_the_end_only(tiny: None, tmp_path: Path) -> None:
    lists = (experiment(tmp_path, name, clips=1, seconds=length).filelist for name, length in (("a", 1.5), ("b", 0.9)))
    long, short = (ClipStore(read_filelist(filelist), TINY)[0] for filelist in lists)
    batch = Batch.of([long, short], torch.device("cpu"))
    assert batch.lengths.tolist() == [long.frames, short.frames]
    assert torch.equal(batch.wave[1, 0, : short.frames * 160], short.wave)
    assert not batch.wave[1, 0, short.frames * 160 :].any() and not batch.content[1, short.frames :].any()


def test_long_clips_give_another_excerpt_in_each_epoch_with_all_parts_in_step(tiny: None, tmp_path: Path) -> None:
    spec = replace(TINY, excerpt_frames=50)
    store = ClipStore(read_filelist(experiment(tmp_path, clips=1, seconds=2.0).filelist), spec)
    whole, found = store[0], []
    for epoch in range(6):
        [batch] = store.batches(4, seed=(1, epoch), skip=0, device=torch.device("cpu"))
        start = next(
            start for start in range(whole.frames) if torch.equal(batch.wave[0, 0], whole.excerpt(start, 50).wave)
        )
        assert batch.lengths.tolist() == [50]
        assert torch.equal(batch.content[0], whole.content[start : start + 50])
        assert torch.equal(batch.spectrogram[0], whole.spectrogram[:, start : start + 50])
        found.append(start)
    assert len(set(found)) > 2


@pytest.mark.parametrize("share", [0.99, 1.0])
def test_clips_move_to_a_device_if_all_of_them_fit(tiny: None, tmp_path: Path, share: float) -> None:
    store = ClipStore(read_filelist(experiment(tmp_path, clips=3).filelist), TINY)
    clips = [store[index] for index in range(3)]
    fits = store.reside(torch.device("meta"), share * sum(clip.bytes for clip in clips))
    assert fits is (share == 1.0)
    for before, after in zip(clips, (store[index] for index in range(3)), strict=True):
        for part in ("content", "f0_coarse", "f0_hz", "spectrogram", "wave"):
            assert getattr(after, part).device.type == ("meta" if fits else "cpu")
            assert getattr(after, part).shape == getattr(before, part).shape


def _readers() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("clips")]


def test_clips_that_are_read_ahead_make_the_same_batches(
    tiny: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """There is room for two of seven clips; batches and their noise are those of a cache with room for all."""
    spec, layout = replace(TINY, excerpt_frames=70), experiment(tmp_path, clips=7)
    files, device = read_filelist(layout.filelist), torch.device("cpu")
    whole = ClipStore(files, spec)
    monkeypatch.setattr(dataset, "_CACHE_BYTES", int(2.5 * whole[0].bytes))
    for epoch in range(2):
        options = {"seed": (1, epoch), "skip": epoch, "device": device, "place": (epoch, 2)}
        expected, found = ([*store.batches(2, **options)] for store in (whole, ClipStore(files, spec)))
        assert len(found) == len(expected) == 4 - epoch
        for one, other in zip(found, expected, strict=True):
            assert all(torch.equal(*pair) for pair in zip(one.tensors(), other.tensors(), strict=True))
            assert (one.share, one.whole_frames) == (other.share, other.whole_frames)
    assert not _readers()


def test_what_goes_wrong_while_reading_ahead_is_told_in_its_turn_and_nothing_runs_on(
    tiny: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dataset, "_CACHE_BYTES", 1)
    layout = experiment(tmp_path, clips=6)
    store = ClipStore(read_filelist(layout.filelist), TINY)
    options = {"seed": (1, 1), "skip": 0, "device": torch.device("cpu")}
    [*store.batches(1, **options)]
    (layout.features(8) / "3_0.npy").unlink()
    with pytest.raises(DatasetError, match="3_0"):
        for number, _ in enumerate(store.batches(1, **options)):
            assert number < 5
    assert not _readers()
    batches = store.batches(1, **options | {"skip": 5})
    batches.close()  # as when training stops
    assert not _readers()


def test_the_next_items_are_read_while_one_is_worked_on() -> None:
    begun = threading.Event()

    def read(item: int) -> int:
        if item == 1:
            begun.set()
        return item

    items = read_ahead(read, range(9))
    assert next(items) == 0 and begun.wait(10)
    assert [*items] == [*range(1, 9)]


def test_a_missing_file_list_says_which_stage_to_run(tmp_path: Path) -> None:
    with pytest.raises(StageOrderError) as caught:
        read_filelist(Layout.of("nobody", tmp_path).filelist)
    assert "rvc extract" in caught.value.hint


@pytest.mark.parametrize("damage", ["missing", "nan", "width"])
def test_damaged_features_are_named(tiny: None, tmp_path: Path, damage: str) -> None:
    layout = experiment(tmp_path, clips=1)
    file = layout.features(8) / "0_0.npy"
    features = np.load(file)
    if damage == "missing":
        file.unlink()
    else:
        np.save(file, features * np.nan if damage == "nan" else features[:, :5])
    with pytest.raises(DatasetError, match="0_0"):
        ClipStore(read_filelist(layout.filelist), TINY)[0]
