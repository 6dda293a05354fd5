"""Paths of an experiment: which files are taken for its voices and indexes, and in what order."""

import os
from pathlib import Path

from rvc_core.workspace.layout import Layout, voice_names


def test_voices_come_in_the_order_of_epoch_and_step_as_numbers(tmp_path: Path) -> None:
    layout = Layout(tmp_path, "alice")
    slug = layout.slug
    names = [f"{slug}_e{epoch}_s{step}.pth" for epoch, step in ((2, 9), (10, 90), (10, 100), (10, 1000))]
    for name in [*reversed(names), f"{slug}.pth", "G_100.pth", "D_100.pth", "other.pth"]:
        (tmp_path / name).touch()
    assert [path.name for path in layout.voices()] == [*names, f"{slug}.pth"]


def test_a_name_that_looks_like_a_date_is_listed_once(tmp_path: Path) -> None:
    layout = Layout(tmp_path / "take_e1_s2", "take_e1_s2")
    layout.root.mkdir()
    layout.final_voice.touch()
    assert layout.voices() == [layout.final_voice]


def test_indexes_of_others_are_not_taken_for_the_voices_own(tmp_path: Path) -> None:
    layout = Layout(tmp_path, "bob")
    for age, name in enumerate(("jim_bob_v2", "bobby_v2", "bob_v1", "bob_v2", "Bob_v2")):
        path = tmp_path / f"added_IVF3_Flat_nprobe_1_{name}.index"
        path.touch()
        os.utime(path, (age, age))
    assert len(layout.indexes()) == 5 and layout.indexes()[0].stem.endswith("Bob_v2")
    owners = voice_names(tmp_path / "bob_e3_s20.pth", "")
    assert [path.name for path in layout.indexes("v2", owners)] == ["added_IVF3_Flat_nprobe_1_bob_v2.index"]


def test_the_names_of_rvcs_links_and_of_applio_are_known(tmp_path: Path) -> None:
    names = {"bob_added_IVF9_Flat_nprobe_1_bob_v2.index", "added_IVF9_Flat_nprobe_3_bob_v2.index", "bob.index"}
    for name in names | {"trained_IVF9_Flat_nprobe_1_bob_v2.index", "bob_2.index", "big_bob.index", "bobby.index"}:
        (tmp_path / name).touch()
    assert {path.name for path in Layout(tmp_path, "bob").indexes("v2", {"bob"})} == names


def test_a_voice_is_known_by_its_name_its_slug_and_its_file() -> None:
    assert voice_names(Path("x_e3_s20.pth"), "Алиса") >= {"x", "Алиса", Layout.of("Алиса", Path("/")).slug}
    assert "song_e3" in voice_names(Path("song_e3.pth"), "song_e3")
