"""Stage: measure conversions. Whose voice is it, is the melody kept, are the words, does it sound clean?

No figure stands alone: the target saying something else has full similarity, the unconverted source has all the words.
A conversion works when similarity and words are both high on the same files. Every scorer is optional.
"""

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Protocol

import numpy as np

from ..audio.quality import measure
from ..audio.recordings import recordings_in
from ..audio.waveform import Audio, read_audio
from ..errors import AudioError, ResourceError, SettingsError
from ..features.pitch import pitch_estimator
from ..progress import Progress, Silent
from ..scoring.cleanness import NaturalnessScorer
from ..scoring.melody import pitch_share, vuv_agreement, world_copy
from ..scoring.similarity import SpeakerScorer, gain_between, speaker_similarity
from ..scoring.target_speech import TargetSpeech, spread, target_speech
from ..scoring.transcripts import texts_of
from ..scoring.words import WordRecogniser, WordScore, is_digits
from .cases import Case, match_outputs

_SHORT_SECONDS = 3.0
_MOST_RATED = 6           # pieces of the target that DNSMOS listens to
Row = dict[str, Any]


@dataclass(frozen=True)
class EvaluateReport:
    """What was measured.

    Attributes
    ----------
    files : list of dict
        One row per output; None where a figure could not be taken. The names of the figures are explained in README.
    mean : dict
        Means over the files that have the figure; ``pitch_share_of_copy`` is the ratio of two means.
    mean_of_sentences : dict or None
        The same without files under three seconds and without digits, on which any voice scores lower.
    words, digits : dict or None
        Error rate of texts, accuracy of spoken digits: ``output`` and ``source``, each with a 95 % interval.
    target : dict
        What the target's own speech reaches: the ceiling of similarity, and DNSMOS.
    absent : list of dict
        Scorers that are not installed, and how to install them.
    notes : list of str
    """

    files: list[Row]
    mean: dict[str, float | None]
    mean_of_sentences: dict[str, float | None] | None
    words: Row | None
    digits: Row | None
    target: Row
    absent: list[dict[str, str]]
    notes: list[str] = field(default_factory=list)

    def as_json(self) -> Row:
        """For ``--json``: rounded, and None where there is no number."""
        return _plain(asdict(self))

    def __str__(self) -> str:
        lines = [f"{len(self.files)} files; means:"]
        lines += [f"  {name}: {value:.3f}" for name, value in self.mean.items() if value is not None]
        for what, score, figure in (("words", self.words, "error_rate"), ("digits", self.digits, "accuracy")):
            lines += [f"  {what}, {whose}: {figure.replace('_', ' ')} {row[figure]:.3f} "
                      f"(95 %: {row['interval'][0]:.3f} to {row['interval'][1]:.3f}; {row['words']} words)"
                      for whose, row in (score or {}).items()]
        lines += [f"{row['source']}: {problem}" for row in self.files
                  for problem in (*row["notes"], *row["sanity"]["problems"])]
        return "\n".join([*lines, *self.notes])


def evaluate(cases: Sequence[Case], target: TargetSpeech, *, progress: Progress = Silent()) -> EvaluateReport:
    """Measure outputs beside their sources and the target.

    Raises
    ------
    SettingsError
        When there is nothing to measure.
    AudioError
        When a file holds no speech.
    ResourceError
        When not a single scorer is installed.
    """
    if not cases:
        raise SettingsError("nothing to evaluate", hint="name recordings with --source")
    judges: list[_Judge] = []
    absent = []
    for kind in _JUDGES:
        if kind is _Words and not any(case.text for case in cases):
            continue
        try:
            judges.append(kind(cases, target))
        except ResourceError:
            absent.append({"scorer": kind.scorer, "install": kind.install})
    if not judges:
        raise ResourceError("no scorer is installed", hint="bash setup_env.sh installs them all")
    progress.start("measuring", len(cases))
    rows = []
    for case in cases:
        rows.append(_row(case, judges))
        progress.advance(case.source.name)
    facts = {key: value for judge in judges for key, value in judge.of_target.items()}
    notes = [note for judge in judges for note in judge.notes]
    spoken = [row for row in rows if row["seconds"] >= _SHORT_SECONDS and not is_digits(row["text"])]
    return EvaluateReport(rows, _means(rows), _means(spoken) if spoken else None, _word_figures(rows, False),
                          _word_figures(rows, True), facts, absent, notes)


def evaluate_files(outputs: Sequence[Path | str], sources: Sequence[Path | str], target: Sequence[Path | str],
                   text: str | None = None, *, progress: Progress = Silent()) -> EvaluateReport:
    """Measure files that were converted elsewhere; the target's recordings stand for each other in turn.

    Parameters
    ----------
    outputs, sources, target : sequence of path
        Recordings, or folders of them; see `cases.match_outputs` for how outputs find their sources.
    text : str, optional
        What is said in the sources, see `cases.texts_of`.

    Raises
    ------
    RVCError
        As `evaluate`, and when files cannot be read, matched, or have no text.
    """
    pairs = match_outputs(recordings_in(sources), recordings_in(outputs))
    texts = texts_of([source for source, _ in pairs], text)
    speech = target_speech(target)
    return evaluate([Case(source, read_audio(output), str(output), words)
                     for (source, output), words in zip(pairs, texts, strict=True)], speech, progress=progress)


def _row(case: Case, judges: "Sequence[_Judge]") -> Row:
    """All figures of one output; those of absent scorers are None."""
    source = read_audio(case.source)
    short = [f"under {_SHORT_SECONDS:g} s: any voice scores lower; judge on sentences"]
    row: Row = {"source": str(case.source), "output": case.file, "seconds": source.seconds, "text": case.text,
                **case.facts}
    row |= {name: None for kind in _JUDGES for name in kind.figures}
    for judge in judges:
        row |= judge(case, source)
    return row | {"sanity": sanity(source, case.output),
                  "notes": [*case.notes, *(short if source.seconds < _SHORT_SECONDS else [])]}


def sanity(source: Audio, output: Audio) -> Row:
    """Signal figures of an output, and in ``problems`` what is wrong with it, in words.

    Examples
    --------
    >>> tone = np.sin(np.arange(16000) / 5).astype(np.float32)
    >>> sanity(Audio(0.3 * tone, 16000), Audio(0.3 * tone[:12000] + 0.1, 16000))["problems"]
    ['0.25 s shorter than its source', 'constant offset of 0.10']
    """
    made, original = measure(output), measure(source)
    longer = output.seconds - source.seconds
    findings = [
        (abs(longer) > 0.05, f"{abs(longer):.2f} s {'longer' if longer > 0 else 'shorter'} than its source"),
        (made.silent_share > original.silent_share + 0.5, f"{100 * made.silent_share:.0f} % silent, "
                                                          f"its source {100 * original.silent_share:.0f} %"),
        (made.clipped_share > 1e-4, f"{100 * made.clipped_share:.2f} % of it clipped"),
        (abs(made.offset) > 0.01, f"constant offset of {made.offset:.2f}"),
        (made.bandwidth_hz < 0.5 * min(original.bandwidth_hz, 8000.0), f"nothing above {made.bandwidth_hz:.0f} Hz")]
    return {"level_db": made.level_db, "silent_share": made.silent_share, "clipped_share": made.clipped_share,
            "offset": made.offset, "bandwidth_hz": made.bandwidth_hz, "seconds_difference": longer,
            "problems": [words for applies, words in findings if applies]}


# -- judges: each looks at one side of a conversion ----------------------------------------------------------------
class _Judge(Protocol):
    """A scorer that was set up for these cases and this target; raises ResourceError where a package is missing."""

    scorer: ClassVar[str]
    install: ClassVar[str]
    figures: ClassVar[tuple[str, ...]]
    of_target: Row          # figures of the target's own speech
    notes: list[str]

    def __init__(self, cases: Sequence[Case], target: TargetSpeech) -> None: ...

    def __call__(self, case: Case, source: Audio) -> Row: ...


class _Similarity(_Judge):
    scorer = "speaker similarity (Resemblyzer)"
    install = "pip install webrtcvad-wheels && pip install --no-deps resemblyzer"
    figures = ("similarity_target", "similarity_source", "similarity_floor", "similarity_gain")

    def __init__(self, cases: Sequence[Case], target: TargetSpeech) -> None:
        self._scorer, self.notes = SpeakerScorer(), []
        known = [voices for pieces in target.known if (voices := self._voices(pieces))]
        unheard = self._voices(target.heldout)
        if len(known) < (1 if unheard else 2):
            raise AudioError("no speech in the target's recordings", hint="listen to them: is anybody speaking?")
        self._centre = _centre(known)
        if unheard:
            self._ceiling = speaker_similarity(np.stack(unheard), self._centre)
        else:
            own = [speaker_similarity(np.stack(voices), _centre(known[:left] + known[left + 1:]))
                   for left, voices in enumerate(known)]
            self._ceiling = float(np.mean(own))
        self.of_target = {"similarity": self._ceiling,
                          "similarity_from": "held-out recordings" if unheard else "each recording left out in turn",
                          "recordings": len(target.heldout) if unheard else len(known)}

    def _voices(self, pieces: Sequence[Audio]) -> list[np.ndarray]:
        """Embeddings of the pieces that hold speech."""
        voices = []
        for piece in pieces:
            try:
                voices.append(self._scorer.embed(piece))
            except AudioError:   # a pause of a longer recording
                continue
        return voices

    def _voice(self, audio: Audio, name: str) -> np.ndarray:
        try:
            return self._scorer.embed(audio)
        except AudioError as error:
            raise AudioError(f"{name}: {error}", hint=error.hint) from error

    def __call__(self, case: Case, source: Audio) -> Row:
        before = self._voice(source, case.source.name)
        after = self._voice(case.output, case.file or f"what was made of {case.source.name}")
        floor, reached = (speaker_similarity(voice, self._centre) for voice in (before, after))
        return {"similarity_target": reached, "similarity_source": speaker_similarity(after, before),
                "similarity_floor": floor, "similarity_gain": gain_between(reached, floor, self._ceiling)}


def _centre(recordings: Sequence[Sequence[np.ndarray]]) -> np.ndarray:
    """Mean voice of embeddings, by recording."""
    return np.mean([voice for voices in recordings for voice in voices], axis=0)


class _Pitch(_Judge):
    scorer, install = "pitch (pyworld)", "pip install pyworld-prebuilt"
    figures = ("pitch_share", "pitch_share_copy", "pitch_share_of_copy", "vuv_agreement")

    def __init__(self, cases: Sequence[Case], target: TargetSpeech) -> None:
        self._estimate = pitch_estimator("harvest")
        self.of_target, self.notes = {}, []

    def __call__(self, case: Case, source: Audio) -> Row:
        before, after = (self._estimate(audio.resample(16_000).samples) for audio in (source, case.output))
        share = pitch_share(before, after)
        copy = pitch_share(before, self._estimate(world_copy(source).samples))
        return {"pitch_share": share, "pitch_share_copy": copy,
                "pitch_share_of_copy": share / copy if copy else math.nan,
                "vuv_agreement": vuv_agreement(before, after)}


class _Naturalness(_Judge):
    scorer, install = "DNSMOS (speechmos)", "pip install onnxruntime && pip install --no-deps speechmos"
    figures = ("dnsmos", "dnsmos_signal", "dnsmos_background", "dnsmos_source", "dnsmos_to_source", "dnsmos_to_lower")

    def __init__(self, cases: Sequence[Case], target: TargetSpeech) -> None:
        self._rate, self.notes = NaturalnessScorer(), []
        pieces = target.heldout or [piece for recording in target.known for piece in recording]
        self._target = float(np.mean([self._rate(piece).overall for piece in spread(pieces, _MOST_RATED)]))
        self.of_target = {"dnsmos": self._target}

    def __call__(self, case: Case, source: Audio) -> Row:
        made, before = self._rate(case.output), self._rate(source).overall
        return {"dnsmos": made.overall, "dnsmos_signal": made.signal, "dnsmos_background": made.background,
                "dnsmos_source": before, "dnsmos_to_source": made.overall - before,
                "dnsmos_to_lower": made.overall - min(before, self._target)}


class _Words(_Judge):
    scorer, install = "words (pocketsphinx)", "pip install pocketsphinx"
    figures = ("heard", "words", "word_errors", "source_word_errors")

    def __init__(self, cases: Sequence[Case], target: TargetSpeech) -> None:
        texts = [case.text for case in cases if case.text]
        self._recognisers = {digits: WordRecogniser(group) for digits in (False, True)
                             if (group := [text for text in texts if is_digits(text) == digits])}
        unknown = sorted({word for recogniser in self._recognisers.values() for word in recogniser.unknown})
        self.of_target = {}
        self.notes = [f"not in the recogniser's dictionary and not counted: {', '.join(unknown)}"] if unknown else []
        without = [case.source.name for case in cases if not case.text]
        self.notes += [f"no text of {', '.join(without)}"] if without else []

    def __call__(self, case: Case, source: Audio) -> Row:
        if not case.text:
            return {}
        recogniser = self._recognisers[is_digits(case.text)]
        heard = recogniser.hear(case.output)
        score = recogniser.score(case.text, heard)
        return {"heard": " ".join(heard), "words": score.words, "word_errors": score.errors,
                "source_word_errors": recogniser.score(case.text, recogniser.hear(source)).errors}


_JUDGES: tuple[type[_Judge], ...] = (_Similarity, _Pitch, _Naturalness, _Words)


# -- all files together --------------------------------------------------------------------------------------------
def _means(rows: Sequence[Row]) -> dict[str, float | None]:
    names = [*_Similarity.figures, *_Pitch.figures, *_Naturalness.figures, "real_time_factor"]
    values = {name: [row[name] for row in rows if row.get(name) is not None and math.isfinite(row[name])]
              for name in names if name in rows[0]}
    means = {name: float(np.mean(found)) if found else None for name, found in values.items()}
    if means["pitch_share"] and means["pitch_share_copy"]:   # one noisy source would carry away a mean of ratios
        means["pitch_share_of_copy"] = means["pitch_share"] / means["pitch_share_copy"]
    return means


def _word_figures(rows: Sequence[Row], digits: bool) -> Row | None:
    """Word errors of the texts that are digits, or of those that are not; None without any."""
    chosen = [row for row in rows if row["words"] and is_digits(row["text"]) == digits]
    figures = {}
    for whose, errors in (("output", "word_errors"), ("source", "source_word_errors")):
        score = sum((WordScore(row[errors], row["words"]) for row in chosen), WordScore())
        low, high = score.interval
        figures[whose] = ({"accuracy": max(0.0, 1 - score.rate), "interval": [max(0.0, 1 - high), max(0.0, 1 - low)]}
                          if digits else {"error_rate": score.rate, "interval": [low, high]})
        figures[whose] |= {"errors": score.errors, "words": score.words}
    return figures if chosen else None


def _plain(value: Any) -> Any:
    """Rounded, and without what JSON cannot say."""
    if isinstance(value, float):
        return round(value, 4) if math.isfinite(value) else None
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, list | tuple) else value
