"""Words: closed forms, and what pocketsphinx hears of voices whose texts are known."""

import importlib.util
import math

import numpy as np
import pytest

from rvc_core.audio.waveform import read_audio
from rvc_core.errors import SettingsError
from rvc_core.scoring.words import WordRecogniser, WordScore, is_digits, language_model, word_errors, words_of
from spoken import FOLDER, TEXTS, noisy, shuffled

needs_pocketsphinx = pytest.mark.skipif(not importlib.util.find_spec("pocketsphinx"), reason="pocketsphinx is an extra")


@pytest.mark.parametrize(
    ("said", "heard", "errors"),
    [
        ("a b c", "a b c", 0),
        ("a b c", "", 3),
        ("", "a b", 2),
        ("a b c", "a x c", 1),
        ("a b c", "a c", 1),
        ("a b c", "a b x c", 1),
        ("a b c d", "b c d a", 2),
        ("k i t t e n", "s i t t i n g", 3),
    ],
)
def test_word_errors_are_levenshteins_distance(said: str, heard: str, errors: int) -> None:
    assert word_errors(said.split(), heard.split()) == errors == word_errors(heard.split(), said.split())


def test_what_is_heard_for_an_unknown_word_costs_nothing() -> None:
    said = "my friend zbigniew left".split()
    for heard, errors in (("my friend left", 0), ("my friend big left", 0), ("my friend big new left", 1), ("left", 2)):
        assert word_errors(said, heard.split(), ["zbigniew"]) == errors


def test_texts_become_words() -> None:
    assert words_of("“Don’t” — he said, 3 times; in 1998!") == ["don't", "he", "said", "three", "times", "in", "1998"]
    assert words_of("Ça va?") == ["ça", "va"] and words_of(" -- ") == []
    assert is_digits("3 4 1") and is_digits("Nine oh two.") and not is_digits("nine days") and not is_digits("34")


def test_the_interval_covers_poisson_counts() -> None:
    draws = np.random.default_rng(0).poisson(0.05 * 200, 4000)
    covered = [low <= 0.05 <= high for low, high in (WordScore(int(count), 200).interval for count in draws)]
    assert 0.93 < np.mean(covered) < 0.97
    assert WordScore(0, 50).interval == pytest.approx((0.0, 0.0768), abs=1e-4)
    low, high = WordScore(14, 10).interval
    assert low < WordScore(14, 10).rate < high
    assert math.isnan(WordScore().rate) and WordScore(1, 2) + WordScore(3, 4) == WordScore(4, 6)


def test_probabilities_of_the_language_model_add_up_to_one() -> None:
    model = language_model([["a", "b", "a"], ["b"], ["a", "x", "b"]], unknown=["x"])
    ones, twos = (section.split("\n\n")[0].strip().splitlines() for section in model.split("-grams:")[1:])
    single = {line.split()[1]: 10 ** float(line.split()[0]) for line in ones if "<s>" not in line}
    pairs = {tuple(line.split()[1:]): 10 ** float(line.split()[0]) for line in twos}
    assert sum(single.values()) == pytest.approx(1, abs=1e-3) and ("a", "x") not in pairs and ("x", "b") not in pairs
    for first in ("<s>", "a", "b"):
        assert sum(pairs.get((first, second), 0.5 * single[second]) for second in single) == pytest.approx(1, abs=1e-3)


@needs_pocketsphinx
def test_words_of_the_demo_voice_are_heard_and_shuffled_ones_are_not() -> None:
    recogniser = WordRecogniser(TEXTS.values())
    assert recogniser.unknown == []
    recordings = {name: read_audio(FOLDER / name) for name in TEXTS}
    heard = {name: recogniser.transcribe(audio) for name, audio in recordings.items()}
    assert sum((recogniser.score(TEXTS[name], heard[name]) for name in TEXTS), WordScore()).rate < 0.1
    mixed = [
        recogniser.score(TEXTS[name], recogniser.transcribe(shuffled(audio))) for name, audio in recordings.items()
    ]
    assert sum(mixed, WordScore()).rate > 0.7


@needs_pocketsphinx
def test_what_was_heard_before_has_no_part_in_what_is_heard_now() -> None:
    recogniser = WordRecogniser(TEXTS.values())
    recordings = [noisy(read_audio(FOLDER / name), 5) for name in TEXTS]
    forwards = [recogniser.transcribe(audio) for audio in recordings]
    assert [recogniser.transcribe(audio) for audio in reversed(recordings)] == forwards[::-1]


@needs_pocketsphinx
def test_words_that_the_dictionary_lacks_are_named_and_not_counted() -> None:
    name, text = next(iter(TEXTS.items()))
    recogniser = WordRecogniser([text.replace("train", "Zbigniewowa"), "it was 1998"])
    assert recogniser.unknown == ["1998", "zbigniewowa"]
    score = recogniser.score(text.replace("train", "Zbigniewowa"), recogniser.transcribe(read_audio(FOLDER / name)))
    assert score.words == len(words_of(text)) - 1 and score.rate < 0.2
    with pytest.raises(SettingsError, match="dictionary") as caught:
        WordRecogniser(["żółć zbigniewowa"])
    assert "English" in caught.value.hint
