"""What stays of checkpoints and voices is one rule, for training, the disk and storage."""

import json
import random
from pathlib import Path

import pytest

from rvc_core.system.files import write_json
from rvc_core.workspace.layout import Layout
from rvc_core.workspace.retention import VOICES_IN_A_SAVE, keep, voices_to_save


@pytest.mark.parametrize(
    ("ranking", "pins", "most_voices", "unranked", "stay"),
    [
        ([], [], 1, True, {1, 2, 3, 4, 5}),  # nothing tells them apart
        ([], [], 2, False, {4, 5}),  # the newest of those without a rank
        ([3, 1, 5, 2, 4], [], 2, True, {3, 1, 5}),  # the two best, and the newest
        ([3, 1, 5, 2, 4], [2], 1, True, {3, 2, 5}),  # pinned ones do not count
        ([3, 1], [], 1, True, {3, 2, 4, 5}),  # one without a rank is not worse than one with
        ([3, 1], [], 3, False, {3, 1, 5}),
        ([9, 3], [8], 1, False, {3, 5}),  # voices that are gone do not count
    ],
)
def test_which_voices_stay(ranking: list, pins: list, most_voices: int, unranked: bool, stay: set) -> None:
    kept = keep([], [1, 2, 3, 4, 5], ranking, pins, most_voices=most_voices, unranked=unranked)
    assert kept.voices == stay and kept.sets == set()


@pytest.mark.parametrize(
    ("sets", "pins", "most", "stay"),
    [([], [1], 2, set()), ([1, 2, 3], [], 2, {2, 3}), ([3, 1, 2], [1], 1, {1, 3}), ([1, 2], [1, 2], 0, {1, 2})],
)
def test_which_checkpoints_stay(sets: list, pins: list, most: int, stay: set) -> None:
    assert keep(sets, [], [], pins, most_sets=most, most_voices=0).sets == stay


def test_the_newest_and_the_pinned_always_stay_and_more_room_never_keeps_less() -> None:
    random.seed(0)
    for _ in range(300):
        steps = random.sample(range(100), random.randint(1, 12))
        ranking, pins = random.sample(steps, random.randint(0, len(steps))), random.sample(range(100), 3)
        fewer, more = (
            keep(steps, steps, ranking, pins, most_sets=most, most_voices=most, unranked=False) for most in (1, 3)
        )
        assert max(steps) in fewer.voices and fewer.voices <= more.voices <= set(steps)
        assert set(pins) & set(steps) <= fewer.voices & fewer.sets and fewer.sets <= more.sets


def test_a_save_takes_the_verdicts_order_before_single_figures(tmp_path: Path) -> None:
    layout = Layout.of("a", tmp_path)
    layout.root.mkdir(parents=True)
    for step in range(1, 10):
        layout.voice(step, step).write_bytes(b"voice")
    layout.final_voice.write_bytes(b"voice")
    rows = [
        {"kind": "voice", "step": n, "epoch": n, "path": layout.voice(n, n).name, "heldout/mel": n / 10.0}
        for n in range(1, 9)
    ]
    layout.metrics.write_text("".join(json.dumps(row) + "\n" for row in rows))
    measured = [layout.step_of(path) for path in voices_to_save(layout)]
    assert measured == [1, 2, 3, 4, 5, 9, 0] and len(measured) == VOICES_IN_A_SAVE + 2
    write_json(layout.verdict, {"ranking": [8, 7]})
    write_json(layout.pinned, [6])
    assert [layout.step_of(path) for path in voices_to_save(layout)] == [1, 2, 3, 6, 7, 8, 9, 0]
