"""Cutting: nothing is lost, nothing is too short, windows are RVC's."""

import numpy as np
import pytest

from rvc_core.audio.slicer import SHORTEST_SECONDS, Span, find_phrases, inside, lengthened, outside, union, windows
from rvc_core.audio.waveform import Audio, frame_rms

RATE_HZ = 8000


def layout_of_phrases(seed: int) -> tuple[np.ndarray, list[Span]]:
    """Random noise bursts and pauses (quiet noise or none at all), and where the bursts are."""
    random = np.random.default_rng(seed)
    pieces, bursts, now = [], [], 0
    for _ in range(random.integers(1, 12)):
        burst, pause = (
            round(RATE_HZ * random.choice(choices) * random.uniform(0.5, 1.5))
            for choices in ([0.05, 0.3, 1, 3, 12], [0.1, 0.3, 0.6, 1, 4])
        )
        quiet = random.choice([0, 1e-4]) * random.standard_normal(pause)
        order = [0.2 * random.standard_normal(burst), quiet]
        bursts.append(Span(now, now + burst))
        pieces += order
        now += burst + pause
    lead = round(RATE_HZ * random.choice([0, 0.3, 0.9, 5]))
    return (
        np.concatenate([np.zeros(lead), *pieces]).astype(np.float32),
        [Span(span.start + lead, span.stop + lead) for span in bursts],
    )


@pytest.mark.parametrize("seed", range(150))
def test_every_loud_sample_is_in_a_phrase_and_no_phrase_is_too_short(seed):
    samples, bursts = layout_of_phrases(seed)
    phrases = find_phrases(Audio(samples, RATE_HZ))
    assert phrases == sorted(phrases) and len(union(phrases)) >= 1
    assert all(first.stop <= second.start for first, second in zip(phrases, phrases[1:], strict=False))
    shortest = min(round(SHORTEST_SECONDS * RATE_HZ), len(samples))
    assert all(len(phrase) >= shortest for phrase in phrases)
    lost = outside(phrases, len(samples))
    # what is dropped is silent in the slicer's own measure, and no burst loses more than the edge of one frame
    assert all(np.sqrt(np.mean(samples[span.start : span.stop].astype(float) ** 2)) < 0.02 for span in lost)
    assert sum(len(piece) for burst in bursts for piece in inside(lost, burst)) <= 0.03 * RATE_HZ * len(bursts)


def test_dropped_pauses_keep_half_a_second_on_each_side():
    tone = 0.3 * np.random.default_rng(0).standard_normal(2 * RATE_HZ)
    hiss = 1e-4 * np.random.default_rng(1).standard_normal(4 * RATE_HZ)
    first, second = find_phrases(Audio(np.concatenate([tone, hiss, tone]).astype(np.float32), RATE_HZ))
    assert 2 * RATE_HZ <= first.stop <= 2.55 * RATE_HZ
    assert 5.45 * RATE_HZ <= second.start <= 6 * RATE_HZ and second.stop == 8 * RATE_HZ


def test_cuts_fall_where_the_kept_silence_is_quietest():
    random = np.random.default_rng(0)
    level = np.concatenate([np.full(2 * RATE_HZ, 0.3), np.full(4 * RATE_HZ, 1e-3), np.full(2 * RATE_HZ, 0.3)])
    for dip_seconds in (2.3, 3.0, 5.8):  # the one at 3 s is further than half a second from both phrases
        level[round((dip_seconds - 0.04) * RATE_HZ) : round((dip_seconds + 0.04) * RATE_HZ)] = 1e-5
    first, second = find_phrases(Audio((level * random.standard_normal(len(level))).astype(np.float32), RATE_HZ))
    assert first.stop / RATE_HZ == pytest.approx(2.3, abs=0.03)
    assert second.start / RATE_HZ == pytest.approx(5.8, abs=0.03)


@pytest.mark.parametrize("pause_seconds, count", [(0.3, 1), (0.45, 2), (0.7, 2), (3, 2)])
def test_only_pauses_of_400_ms_separate(pause_seconds, count):
    tone = 0.3 * np.random.default_rng(0).standard_normal(3 * RATE_HZ)
    samples = np.concatenate([tone, np.zeros(round(pause_seconds * RATE_HZ)), tone]).astype(np.float32)
    assert len(find_phrases(Audio(samples, RATE_HZ))) == count


def test_threshold_is_in_decibels_of_full_scale():
    noise = np.random.default_rng(0).standard_normal(9 * RATE_HZ)
    loud = 0.1 * noise[: 3 * RATE_HZ]
    just_above, just_below = (
        Audio(np.concatenate([loud, 10 ** (db / 20) * noise, loud]).astype(np.float32), RATE_HZ)
        for db in (-40.5, -43.5)
    )
    assert find_phrases(just_above) == [Span(0, 15 * RATE_HZ)]
    assert len(find_phrases(just_below)) == 2
    assert find_phrases(just_below, silence_db=-50) == [Span(0, 15 * RATE_HZ)]


@pytest.mark.parametrize("level_db", [-20, -33, -42, -55])
def test_the_threshold_of_a_quiet_recording_is_lower_but_noise_alone_is_silence(level_db):
    noise = np.random.default_rng(0).standard_normal(9 * RATE_HZ)
    gain = 10 ** (level_db / 20)
    sound = Audio((gain * np.concatenate([noise, 0.003 * noise, noise])).astype(np.float32), RATE_HZ)
    assert len(find_phrases(sound)) == 2
    assert find_phrases(Audio((1e-3 * 0.7 * noise).astype(np.float32), RATE_HZ)) == []


def test_short_words_between_long_pauses_survive_whole():
    samples = np.zeros(30 * RATE_HZ, np.float32)
    words = [Span(second * RATE_HZ, second * RATE_HZ + RATE_HZ // 4) for second in (3, 9, 15, 28)]
    for word in words:
        samples[word.start : word.stop] = 0.3 * np.random.default_rng(2).standard_normal(len(word))
    phrases = find_phrases(Audio(samples, RATE_HZ))
    assert len(phrases) == 4 and all(len(phrase) >= SHORTEST_SECONDS * RATE_HZ for phrase in phrases)
    assert all(
        phrase.start <= word.start and word.stop <= phrase.stop for phrase, word in zip(phrases, words, strict=True)
    )


def test_lengthened_never_loses_and_never_overlaps():
    random = np.random.default_rng(3)
    for _ in range(300):
        edges = np.sort(random.choice(400, size=2 * random.integers(1, 9), replace=random.random() < 0.3)).tolist()
        before = [Span(a, b) for a, b in zip(edges[::2], edges[1::2], strict=True) if b > a]
        after = lengthened(before, 400, 30)
        assert all(first.stop <= second.start for first, second in zip(after, after[1:], strict=False))
        assert all(len(span) >= 30 for span in after)
        assert not [piece for span in before for piece in inside(outside(after, 400), span)]
    assert lengthened([Span(2, 9)], 10, 30) == [Span(0, 10)]


@pytest.mark.parametrize(
    "seconds, cuts",
    [
        (10, [(0, 3.7), (3.4, 7.1), (6.8, 10)]),
        (4, [(0, 4)]),
        (4.01, [(0, 3.7), (3.21, 4.01)]),
        (0.3, [(0, 0.3)]),
        (7.4, [(0, 3.7), (3.4, 7.4)]),
        (7.5, [(0, 3.7), (3.4, 7.1), (6.7, 7.5)]),
    ],
)
def test_windows_are_rvcs_but_for_tails_below_the_shortest(seconds, cuts):
    offset = 700
    spans = windows(Span(offset, offset + round(seconds * 1000)), 1000)
    assert [((span.start - offset) / 1000, (span.stop - offset) / 1000) for span in spans] == cuts


def test_windows_cover_a_phrase_of_any_length():
    for length in range(1, 20_000, 37):
        spans = windows(Span(0, length), 1000)
        assert union(spans) == [Span(0, length)]
        assert all(min(length, 800) <= len(span) <= 4000 for span in spans)


@pytest.mark.parametrize("length", [1, 119, 120, 121, 5000])
def test_frames_equal_librosas(length):
    import librosa

    samples = np.random.default_rng(length).standard_normal(length).astype(np.float32)
    truth = librosa.feature.rms(y=samples, frame_length=480, hop_length=120, pad_mode="constant")[0]
    np.testing.assert_allclose(frame_rms(samples, 120, 4), truth, rtol=1e-5)
