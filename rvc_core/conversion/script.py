"""A script: what is said, and when. Read from a text, a .txt or an .srt; split into sentences."""

import html
import re
from dataclasses import dataclass
from pathlib import Path

from ..errors import SettingsError
from ..system.inside import refuse_pipe

_MOST_BYTES = 20_000_000
_LONGEST_CHARACTERS = 300  # of one call of an engine
_SHORT_LINE_CHARACTERS = 60  # a longer one was broken to fit the page
SENTENCE_PAUSE_SECONDS, PARAGRAPH_PAUSE_SECONDS = 0.25, 0.7
_TIMES = re.compile(
    r"\s*(\d{1,3}):(\d{1,2}):(\d{1,2})[,.](\d{1,3})\s*-->\s*(\d{1,3}):(\d{1,2}):(\d{1,2})[,.](\d{1,3})(?:\s.*)?"
)
_TAG = re.compile(r"</?[A-Za-z][^<>]*>|<!--.*?-->|\{\\[^{}]*\}", re.DOTALL)
_MARKDOWN = (
    (re.compile(r"^ {0,3}(?:#{1,6}|>|[-*+]|```\w*)[ \t]+", re.MULTILINE), ""),
    (re.compile(r"!?\[([^\]\n]+)\]\([^)\s]+\)"), r"\1"),  # links and pictures
    (re.compile(r"(\*\*|__|`)(?=\S)(.+?)(?<=\S)\1"), r"\2"),
    (re.compile(r"(?<!\w)([*_])(?=\S)([^*_\n]+?)(?<=\S)\1(?!\w)"), r"\2"),
)
_ABBREVIATION = re.compile(
    r"(?:^|[\s(])(?:[A-Z]|Mr|Mrs|Ms|Dr|Dra|Prof|Profa|St|Sr|Sra|Jr|vs|No|Nr|Mme|Mlle|bzw|ca|e\.g|i\.e|p\.ex|z\.B)\.$"
)
_SENTENCE_END = re.compile(r"[.!?…]+[\"'”’»)\]]*(?=\s)|[。！？]+[」』”]*")


@dataclass(frozen=True)
class Utterance:
    """One sentence, or one cue of subtitles.

    Attributes
    ----------
    pause_seconds : float
        Silence after it; of a cue 0.
    cue : tuple of float or None
        When it begins and ends, in seconds.
    number : int
        Its place, from 1.
    """

    text: str
    number: int
    pause_seconds: float = 0.0
    cue: tuple[float, float] | None = None

    @property
    def label(self) -> str:
        """How messages call it."""
        short = self.text if len(self.text) <= 40 else self.text[:39] + "…"
        return f"{'cue' if self.cue else 'sentence'} {self.number} ({short})"


def read_script(given: str) -> list[Utterance]:
    """What to say: the text itself, or the content of the .txt, .srt or other file with an ending that it names.

    Raises
    ------
    SettingsError
        When the file is missing or not text, a cue's time is wrong, or there is nothing to say.
    """
    name = given.strip()
    suffix = Path(name).suffix if len(name) < 1000 and "\n" not in name else ""
    is_file = suffix.lower() in (".txt", ".srt") or (bool(suffix) and Path(name).is_file())
    text = _read(Path(name).expanduser()) if is_file else given
    found = cues(text, Path(name).name) if is_file and name.lower().endswith(".srt") else sentences(text)
    if not found:
        raise SettingsError("there is nothing to say: the text has no words", hint="give a text, a .txt or an .srt")
    return found


def _read(path: Path) -> str:
    """Text in UTF-8, UTF-16 or, failing these, Windows' Latin-1."""
    try:
        refuse_pipe(path)
        content = path.read_bytes()
    except OSError as error:
        missing = isinstance(error, FileNotFoundError)
        raise SettingsError(
            f"{path} {'does not exist' if missing else f'cannot be read: {error.strerror}'}",
            hint="check the path; if it is the text itself, end it with a full stop",
        ) from None
    if len(content) > _MOST_BYTES:
        raise SettingsError(f"{path.name} has more than 20 MB", hint="give a text file")
    if content.startswith((b"\xff\xfe", b"\xfe\xff")):
        encodings = ["utf-16"]
    elif b"\0" in content[:1000]:
        encodings = ["utf-16-le" if b"\0" in content[1:1000:2] else "utf-16-be"]
    else:
        encodings = ["utf-8-sig", "cp1252", "latin-1"]
    for encoding in encodings:
        try:
            text = content.decode(encoding)
            break
        except UnicodeDecodeError:
            continue
    else:
        text = "\0"
    odd = sum(letter < " " and letter not in "\t\r\n\f\x1a" for letter in text[:10_000])
    if odd > 0.01 * min(len(text), 10_000):
        raise SettingsError(f"{path.name} is not a text file", hint="save it as plain text in UTF-8")
    return text


def plain(text: str) -> str:
    r"""Text without markup: tags of HTML, SSML and subtitles, entities, and the marks of Markdown.

    Examples
    --------
    >>> plain("# News\n<b>Tom &amp; *Ann*</b> said 3 < 5, see [here](http://a.b)")
    'News\nTom & Ann said 3 < 5, see here'
    """
    text = html.unescape(_TAG.sub("", text.replace("\r\n", "\n").replace("\r", "\n")))
    for pattern, kept in _MARKDOWN:
        text = pattern.sub(kept, text)
    return "".join(letter if letter.isprintable() or letter == "\n" else " " for letter in text)


def sentences(text: str) -> list[Utterance]:
    r"""Split a text at its sentences; a pause follows each, a longer one each paragraph.

    A short line that the next one does not go on ends a sentence too: a title, a verse.

    Examples
    --------
    >>> [one.text for one in sentences("Dr. Lee paid $3.50. Why?\nNobody knows.\n\nThe end")]
    ['Dr. Lee paid $3.50.', 'Why?', 'Nobody knows.', 'The end']
    """
    found: list[Utterance] = []
    for paragraph in re.split(r"\n\s*\n", plain(text)):
        said = [piece for line in _lines(paragraph) for one in _split(line) for piece in _pieces(one)]
        said = [piece for piece in said if _has_words(piece)]
        for place, piece in enumerate(said, start=1):
            pause = PARAGRAPH_PAUSE_SECONDS if place == len(said) else SENTENCE_PAUSE_SECONDS
            found.append(Utterance(piece, len(found) + 1, pause))
    return found


def _lines(paragraph: str) -> list[str]:
    """A paragraph without the line breaks inside its sentences."""
    found: list[str] = []
    last = ""
    for line in (" ".join(line.split()) for line in paragraph.split("\n")):
        if found and (len(last) >= _SHORT_LINE_CHARACTERS or line[:1].islower()):
            found[-1] += " " + line
        else:
            found.append(line)
        last = line
    return found


def _split(paragraph: str) -> list[str]:
    parts, start = [], 0
    for end in _SENTENCE_END.finditer(paragraph):
        follows = paragraph[end.end() :].lstrip()[:1]
        if follows.islower() or _ABBREVIATION.search(paragraph[start : end.end()]):
            continue
        parts.append(paragraph[start : end.end()].strip())
        start = end.end()
    return [*parts, paragraph[start:].strip()]


def _pieces(sentence: str) -> list[str]:
    """A sentence in pieces that an engine can take: cut at a clause, else between words, else anywhere."""
    pieces = []
    while len(sentence) > _LONGEST_CHARACTERS:
        head = sentence[:_LONGEST_CHARACTERS]
        cuts = [max(head.rfind(mark) for mark in marks) + 1 for marks in (",;:—、，；", " ")]
        cut = next((one for one in cuts if one > _LONGEST_CHARACTERS // 3), _LONGEST_CHARACTERS)
        pieces.append(sentence[:cut].strip())
        sentence = sentence[cut:].strip()
    return [*pieces, sentence]


def _has_words(text: str) -> bool:
    return any(letter.isalnum() for letter in text)


def cues(text: str, name: str) -> list[Utterance]:
    """The cues of subtitles in the form SubRip, in the order of their times; those without words are left out.

    Raises
    ------
    SettingsError
        When a cue has no time, or ends before it begins.
    """
    found = []
    blocks = re.split(r"\n\s*\n", text.replace("\r\n", "\n").replace("\r", "\n").strip("\n\ufeff\x1a "))
    for count, block in enumerate(filter(str.strip, blocks), start=1):
        lines = block.strip().split("\n")
        place = next((row for row, line in enumerate(lines[:2]) if _TIMES.fullmatch(line)), None)
        if place is None:
            raise SettingsError(
                f"{name}: cue {count} has no time: {lines[0][:60]!r}",
                hint="write it as 00:00:01,000 --> 00:00:03,500, and a blank line between cues",
            )
        times = [float(part) for part in _TIMES.fullmatch(lines[place]).groups()]  # type: ignore[union-attr]
        fractions = [len(part) for part in _TIMES.fullmatch(lines[place]).groups()[3::4]]  # type: ignore[union-attr]
        start, stop = (
            3600 * hours + 60 * minutes + seconds + part / 10**digits
            for (hours, minutes, seconds, part), digits in zip((times[:4], times[4:]), fractions, strict=True)
        )
        if stop <= start:
            raise SettingsError(f"{name}: cue {count} ends before it begins", hint=f"correct {lines[place].strip()!r}")
        said = " ".join(plain("\n".join(lines[place + 1 :])).split())
        if _has_words(said):
            found.append(Utterance(said, count, cue=(start, stop)))
    return sorted(found, key=lambda one: one.cue or (0.0, 0.0))
