"""Word error rate of a conversion: a speech recogniser whose vocabulary is the words of the texts.

On clean recordings, pocketsphinx has 35 to 60 % word errors with its general English model. With the texts' own
vocabulary it has 2 to 14 %. So the rate depends on the vocabulary: give all texts at once, and compare with the source.
"""

import math
import re
import tempfile
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..audio.waveform import Audio
from ..errors import ResourceError, SettingsError

DIGITS = "zero one two three four five six seven eight nine".split()
_RATE_HZ = 16_000
_UNIFORM_SHARE = 0.5  # of the language model: any word can follow any other
_Z = 1.96  # 95 %


def words_of(text: str) -> list[str]:
    """The words of a text in lower case; a single digit becomes a word, longer numbers do not change.

    Examples
    --------
    >>> words_of("The gulls' bread -- it’s 5 o'clock!")
    ['the', 'gulls', 'bread', "it's", 'five', "o'clock"]
    """
    found = (word.strip("'") for word in re.findall(r"[\w']+", text.lower().replace("’", "'")))
    return [DIGITS[int(word)] if word in [*"0123456789"] else word for word in found if word]


def is_digits(text: str) -> bool:
    """Whether a text consists of spoken digits, including ``oh``.

    Examples
    --------
    >>> is_digits("Three, oh - five 7"), is_digits("one day"), is_digits("")
    (True, False, False)
    """
    return bool(words_of(text)) and {*words_of(text)} <= {*DIGITS, "oh"}


@dataclass(frozen=True)
class WordScore:
    """Word errors (substituted, missing, added), and the numbers of words that were judged, and that were not.

    Examples
    --------
    >>> score = WordScore(3, 60) + WordScore(1, 20)
    >>> score.rate, [round(bound, 3) for bound in score.interval]
    (0.05, [0.019, 0.129])
    """

    errors: int = 0
    words: int = 0
    unknown: int = 0

    def __add__(self, other: "WordScore") -> "WordScore":
        return WordScore(self.errors + other.errors, self.words + other.words, self.unknown + other.unknown)

    @property
    def rate(self) -> float:
        """Word error rate; above 1 with many added words, NaN without words."""
        return self.errors / self.words if self.words else math.nan

    @property
    def interval(self) -> tuple[float, float]:
        """95 % interval of the rate: the score interval of a Poisson count.

        It is valid for few errors, no errors, and more errors than words. It assumes independent errors, so it is
        slightly too narrow.
        """
        if not self.words:
            return math.nan, math.nan
        middle, spread = self.errors + _Z**2 / 2, _Z * math.sqrt(self.errors + _Z**2 / 4)
        return max(0.0, middle - spread) / self.words, (middle + spread) / self.words


class WordRecogniser:
    """Recognises the texts' words in a recording: pocketsphinx with a language model of these texts. English only.

    The model is half their bigrams and half uniform, so that it can recognise any order of the words.

    Parameters
    ----------
    texts : iterable of str
        All possible texts. Use a separate recogniser for texts of digits.

    Attributes
    ----------
    unknown : list of str
        Words that pocketsphinx's dictionary lacks: names, numbers in figures, other languages. They do not count, and
        neither does what is recognised in their place.

    Raises
    ------
    ResourceError
        When pocketsphinx is not installed.
    SettingsError
        When none of the words is in the dictionary.

    Examples
    --------
    >>> recogniser = WordRecogniser(["the train was late", "two cups of tea"])     # doctest: +SKIP
    >>> recogniser.score("the train was late", recogniser.transcribe(audio)).rate         # doctest: +SKIP
    0.0
    """

    def __init__(self, texts: Iterable[str]) -> None:
        try:
            import pocketsphinx
        except ImportError as error:
            raise ResourceError(
                f"the word error rate needs pocketsphinx ({error})", hint="pip install pocketsphinx"
            ) from error
        sentences = [words_of(text) for text in texts]
        vocabulary = sorted({word for sentence in sentences for word in sentence})
        lookup = pocketsphinx.Decoder(lm=None, loglevel="FATAL").lookup_word
        spoken = {word: phones for word in vocabulary if (phones := _pronunciations(word, lookup))}
        self.unknown = [word for word in vocabulary if word not in spoken]
        if not spoken:
            raise SettingsError(
                "pocketsphinx's dictionary contains none of the text's words",
                hint="word errors work in English only: leave --text out for other languages",
            )
        with tempfile.TemporaryDirectory() as folder:  # a small dictionary loads twenty times faster
            model, dictionary = Path(folder, "texts.lm"), Path(folder, "texts.dict")
            model.write_text(language_model(sentences, self.unknown), "utf-8")
            dictionary.write_text("".join(line for lines in spoken.values() for line in lines), "utf-8")
            self._decoder = pocketsphinx.Decoder(lm=str(model), dict=str(dictionary), loglevel="FATAL")

    def transcribe(self, audio: Audio) -> list[str]:
        """Recognise the words of a recording."""
        samples = np.clip(audio.resample(_RATE_HZ).samples, -1, 1)
        self._decoder.reinit_feat()  # otherwise the previous recording changes the result
        self._decoder.start_utt()
        self._decoder.process_raw((samples * 32767).astype("<i2").tobytes(), full_utt=True)
        self._decoder.end_utt()
        recognised = self._decoder.hyp()
        return recognised.hypstr.split() if recognised else []

    def score(self, text: str, recognised: Sequence[str]) -> WordScore:
        """Count the errors between a text and the recognised words."""
        words = words_of(text)
        unknown = sum(word in self.unknown for word in words)
        return WordScore(word_errors(words, recognised, self.unknown), len(words) - unknown, unknown)


def _pronunciations(word: str, lookup: Callable[[str], str | None]) -> list[str]:
    """Dictionary lines: all pronunciations of a word."""
    lines: list[str] = []
    while phones := lookup(name := f"{word}({len(lines) + 1})" if lines else word):
        lines.append(f"{name} {phones}\n")
    return lines


def word_errors(words: Sequence[str], recognised: Sequence[str], unknown: Sequence[str] = ()) -> int:
    """Fewest substitutions, deletions and insertions that turn `words` into `recognised` (Levenshtein distance).

    An unknown word costs nothing, whether it is recognised as another word or not at all.

    Examples
    --------
    >>> word_errors("the cat sat".split(), "the bat sat down".split())
    2
    >>> word_errors("the zyx sat".split(), "the fox sat".split(), unknown=["zyx"])
    0
    """
    row = list(range(len(recognised) + 1))
    for word in words:
        cost = 0 if word in unknown else 1
        following = [row[0] + cost]
        for column, other in enumerate(recognised):
            following.append(min(row[column] + cost * (word != other), row[column + 1] + cost, following[-1] + 1))
        row = following
    return row[-1]


def language_model(sentences: Iterable[Sequence[str]], unknown: Sequence[str] = ()) -> str:
    """Bigrams of sentences mixed with a uniform model, in ARPA format; an unknown word splits its sentence.

    A seen pair (a, b) has ``0.5 n(a, b) / n(a) + 0.5 / V``. Any other pair has only the second term, by back-off.

    Examples
    --------
    >>> [line for line in language_model([["oh", "oh"], ["oh"]]).splitlines() if line.startswith("-0.")]
    ['-0.3010 </s>', '-0.3010 oh -0.3010', '-0.1249 <s> oh', '-0.2341 oh </s>', '-0.3802 oh oh']
    """
    followers: defaultdict[str, Counter[str]] = defaultdict(Counter)
    for sentence in sentences:
        path = ["<s>", *sentence, "</s>"]
        for first, second in zip(path, path[1:], strict=False):
            if first not in unknown and second not in unknown:
                followers[first][second] += 1
    words = sorted({*followers, *(word for counts in followers.values() for word in counts)} - {"<s>", "</s>"})
    uniform, back_off = 1 / (len(words) + 1), math.log10(_UNIFORM_SHARE)
    pairs = [
        f"{math.log10((1 - _UNIFORM_SHARE) * count / counts.total() + _UNIFORM_SHARE * uniform):.4f} {first} {second}"
        for first, counts in sorted(followers.items())
        for second, count in sorted(counts.items())
    ]
    single = [
        f"-99 <s> {back_off:.4f}",
        f"{math.log10(uniform):.4f} </s>",
        *(f"{math.log10(uniform):.4f} {word} {back_off if word in followers else 0:.4f}" for word in words),
    ]
    return "\n".join(
        [
            "\\data\\",
            f"ngram 1={len(single)}",
            f"ngram 2={len(pairs)}",
            "",
            "\\1-grams:",
            *single,
            "",
            "\\2-grams:",
            *pairs,
            "",
            "\\end\\",
            "",
        ]
    )
