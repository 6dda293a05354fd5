"""Stage: measure conversions by speaker similarity, pitch, words and cleanness.

Read the figures together: a conversion is good when similarity is high and word errors are low on the same files.
Similarity alone is also high for other words of the target, and word errors alone are also low for the unconverted
source. Every scorer is optional.
"""

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from ..audio.quality import measure
from ..audio.recordings import recordings_in
from ..audio.waveform import Audio, read_audio
from ..errors import ResourceError, SettingsError
from ..progress import Progress, Silent, counted
from ..scoring.target_speech import TargetSpeech, target_speech
from ..scoring.transcripts import texts_of
from ..scoring.words import WordScore, is_digits
from .cases import Case, match_outputs
from .scorers import SCORERS, Cleanness, Pitch, Row, Scorer, Similarity, Words

_SHORT_SECONDS = 3.0


@dataclass(frozen=True)
class EvaluateReport:
    """Results of an evaluation.

    Attributes
    ----------
    files : list of dict
        One row per output; None where a figure could not be measured. The README explains the figures.
    mean : dict
        Means over the files that have the figure; ``pitch_share_of_copy`` is the ratio of two means.
    mean_of_sentences : dict or None
        The same without files under three seconds and without digits, because every voice scores lower on those.
    words, digits : dict or None
        Error rate of texts, accuracy of spoken digits: ``output`` and ``source``, each with a 95 % interval.
    target : dict
        Figures of the target's own speech: the highest similarity possible, and DNSMOS.
    absent : list of dict
        Scorers that are not installed, and the commands that install them.
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
        """For ``--json``: rounded, with None for NaN."""
        return _plain(asdict(self))

    def __str__(self) -> str:
        lines = [f"{counted(len(self.files), 'file')}; means:"]
        lines += [f"  {name}: {value:.3f}" for name, value in self.mean.items() if value is not None]
        for what, score, figure in (("words", self.words, "error_rate"), ("digits", self.digits, "accuracy")):
            lines += [
                f"  {what}, {whose}: {figure.replace('_', ' ')} {row[figure]:.3f} "
                f"(95 %: {row['interval'][0]:.3f} to {row['interval'][1]:.3f}; {row['words']} words)"
                for whose, row in (score or {}).items()
            ]
        lines += [
            f"{row['source']}: {problem}"
            for row in self.files
            for problem in (*row["notes"], *row["sanity"]["problems"])
        ]
        return "\n".join([*lines, *self.notes])


def evaluate(cases: Sequence[Case], target: TargetSpeech, *, progress: Progress = Silent()) -> EvaluateReport:
    """Compare outputs with their sources and the target."""
    if not cases:
        raise SettingsError("nothing to evaluate", hint="give recordings with --source")
    scorers: list[Scorer] = []
    absent = []
    for kind in SCORERS:
        if kind is Words and not any(case.text for case in cases):
            continue
        try:
            scorers.append(kind(cases, target))
        except ResourceError:
            absent.append({"scorer": kind.scorer, "install": kind.install})
    if not scorers:
        raise ResourceError("no scorer is installed", hint="install all of them: bash setup_env.sh")
    progress.start("measuring", len(cases))
    rows = []
    for case in cases:
        rows.append(_row(case, scorers))
        progress.advance(case.source.name)
    spoken = [row for row in rows if row["seconds"] >= _SHORT_SECONDS and not is_digits(row["text"])]
    return EvaluateReport(
        rows,
        _means(rows),
        _means(spoken) if spoken else None,
        _word_figures(rows, False),
        _word_figures(rows, True),
        {key: value for scorer in scorers for key, value in scorer.of_target.items()},
        absent,
        [note for scorer in scorers for note in scorer.notes],
    )


def evaluate_files(
    outputs: Sequence[Path | str],
    sources: Sequence[Path | str],
    target: Sequence[Path | str],
    text: str | None = None,
    *,
    progress: Progress = Silent(),
) -> EvaluateReport:
    """Measure files that are already converted. Each recording of the target is compared with the others.

    Parameters
    ----------
    outputs, sources, target : sequence of path
        Recordings or folders of them; `cases.match_outputs` pairs outputs with sources.
    text : str, optional
        Words of the sources, see `transcripts.texts_of`.
    """
    pairs = match_outputs(recordings_in(sources), recordings_in(outputs))
    texts = texts_of([source for source, _ in pairs], text)
    speech = target_speech(target)
    return evaluate(
        [
            Case(source, read_audio(output), str(output), words)
            for (source, output), words in zip(pairs, texts, strict=True)
        ],
        speech,
        progress=progress,
    )


def _row(case: Case, scorers: "Sequence[Scorer]") -> Row:
    """All figures of one output, with None for scorers that are not installed."""
    source = read_audio(case.source)
    short = [f"under {_SHORT_SECONDS:g} s: every voice scores lower, so use longer sentences"]
    row: Row = {
        "source": str(case.source),
        "output": case.file,
        "seconds": source.seconds,
        "text": case.text,
        **case.facts,
    }
    row |= {name: None for kind in SCORERS for name in kind.figures}
    for scorer in scorers:
        row |= scorer(case, source)
    return row | {
        "sanity": sanity(source, case.output),
        "notes": [*case.notes, *(short if source.seconds < _SHORT_SECONDS else [])],
    }


def sanity(source: Audio, output: Audio) -> Row:
    """Signal measurements of an output; ``problems`` describes what is wrong with it.

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
        (
            made.silent_share > original.silent_share + 0.5,
            f"{100 * made.silent_share:.0f} % silent, but its source is {100 * original.silent_share:.0f} % silent",
        ),
        (made.clipped_share > 1e-4, f"{100 * made.clipped_share:.2f} % clipped"),
        (abs(made.offset) > 0.01, f"constant offset of {made.offset:.2f}"),
        (made.bandwidth_hz < 0.5 * min(original.bandwidth_hz, 8000.0), f"nothing above {made.bandwidth_hz:.0f} Hz"),
    ]
    problems = [words for applies, words in findings if applies]
    return {**asdict(made), "seconds_difference": longer, "problems": problems}


# -- all files together --------------------------------------------------------------------------------------------
def _means(rows: Sequence[Row]) -> dict[str, float | None]:
    names = [*Similarity.figures, *Pitch.figures, *Cleanness.figures, "real_time_factor"]
    values = {
        name: [row[name] for row in rows if row.get(name) is not None and math.isfinite(row[name])]
        for name in names
        if name in rows[0]
    }
    means = {name: float(np.mean(found)) if found else None for name, found in values.items()}
    if means["pitch_share"] and means["pitch_share_copy"]:  # one noisy source would dominate a mean of ratios
        means["pitch_share_of_copy"] = means["pitch_share"] / means["pitch_share_copy"]
    return means


def _word_figures(rows: Sequence[Row], digits: bool) -> Row | None:
    """Word errors of digit texts or of all other texts; None if there are none."""
    chosen = [row for row in rows if row["words"] and is_digits(row["text"]) == digits]
    figures = {}
    for whose, errors in (("output", "word_errors"), ("source", "source_word_errors")):
        score = sum((WordScore(row[errors], row["words"]) for row in chosen), WordScore())
        low, high = score.interval
        figures[whose] = (
            {"accuracy": max(0.0, 1 - score.rate), "interval": [max(0.0, 1 - high), max(0.0, 1 - low)]}
            if digits
            else {"error_rate": score.rate, "interval": [low, high]}
        )
        figures[whose] |= {"errors": score.errors, "words": score.words}
    return figures if chosen else None


def _plain(value: Any) -> Any:
    """Round numbers, and replace NaN and infinity by None."""
    if isinstance(value, float):
        return round(value, 4) if math.isfinite(value) else None
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, list | tuple) else value
