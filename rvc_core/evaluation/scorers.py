"""The scorers of an evaluation: speaker similarity, pitch, cleanness and words."""

import math
from collections.abc import Sequence
from typing import Any, ClassVar, Protocol

import numpy as np

from ..audio.waveform import Audio
from ..errors import AudioError
from ..features.pitch import pitch_estimator
from ..scoring.cleanness import NaturalnessScorer
from ..scoring.melody import pitch_share, vuv_agreement, world_copy
from ..scoring.similarity import SpeakerScorer, gain_between, speaker_similarity
from ..scoring.target_speech import TargetSpeech, spread
from ..scoring.words import WordRecogniser, is_digits
from .cases import Case

_NOT_HELD_OUT = (
    "nothing of the target is held out: a gain of 1 stands for recordings that the voice learned from, each compared "
    "with the others"
)
_MARGIN = 0.1  # of similarity: what recordings of one person differ by
_SOMEBODY_ELSE = (
    "outputs sound more like the voice's own recordings than the given target does: is that somebody else? Then the "
    "gain means nothing"
)
_MOST_RATED = 6  # pieces of the target that DNSMOS rates
Row = dict[str, Any]


class Scorer(Protocol):
    """A scorer for these cases and this target; creating it raises ResourceError if a package is missing."""

    scorer: ClassVar[str]
    install: ClassVar[str]
    figures: ClassVar[tuple[str, ...]]
    of_target: Row  # figures of the target's own speech
    notes: list[str]

    def __init__(self, cases: Sequence[Case], target: TargetSpeech) -> None: ...

    def __call__(self, case: Case, source: Audio) -> Row: ...


class Similarity(Scorer):
    """Speaker similarity of an output to the target and the source; the target's own recordings set the ceiling."""

    scorer = "speaker similarity (Resemblyzer)"
    install = "pip install webrtcvad-wheels && pip install --no-deps resemblyzer"
    figures = ("similarity_target", "similarity_source", "similarity_floor", "similarity_gain")

    def __init__(self, cases: Sequence[Case], target: TargetSpeech) -> None:
        self._scorer, self.notes = SpeakerScorer(), []
        reference = [voices for pieces in target.reference if (voices := self._voices(pieces))]
        heldout = self._voices(target.heldout)
        if len(reference) < (1 if heldout else 2):
            raise AudioError("no speech in the target's recordings", hint="choose recordings with speech")
        self._centre = _centre(reference)
        if heldout:
            self._ceiling = speaker_similarity(np.stack(heldout), self._centre)
        else:
            own = [
                speaker_similarity(np.stack(voices), _centre(reference[:left] + reference[left + 1 :]))
                for left, voices in enumerate(reference)
            ]
            self._ceiling = float(np.mean(own))
            self.notes = [_NOT_HELD_OUT]
        self.of_target = {
            "similarity": self._ceiling,
            "similarity_from": "held-out recordings" if heldout else "each recording left out in turn",
            "recordings": len(target.heldout) if heldout else len(reference),
        }

    def _voices(self, pieces: Sequence[Audio]) -> list[np.ndarray]:
        """Embeddings of the pieces with speech."""
        voices = []
        for piece in pieces:
            try:
                voices.append(self._scorer.embed(piece))
            except AudioError:  # a pause in a longer recording
                continue
        return voices

    def _voice(self, audio: Audio, name: str) -> np.ndarray:
        try:
            return self._scorer.embed(audio)
        except AudioError as error:
            raise AudioError(f"{name}: {error}", hint=error.hint) from error

    def __call__(self, case: Case, source: Audio) -> Row:
        before = self._voice(source, case.source.name)
        after = self._voice(case.output, case.file or f"the output of {case.source.name}")
        floor = speaker_similarity(before, self._centre)
        reached = speaker_similarity(after, self._centre)
        if reached > self._ceiling + _MARGIN and _SOMEBODY_ELSE not in self.notes:
            self.notes.append(_SOMEBODY_ELSE)
        return {
            "similarity_target": reached,
            "similarity_source": speaker_similarity(after, before),
            "similarity_floor": floor,
            "similarity_gain": gain_between(reached, floor, self._ceiling),
        }


def _centre(recordings: Sequence[Sequence[np.ndarray]]) -> np.ndarray:
    """Mean of the embeddings of several recordings."""
    return np.mean([voice for voices in recordings for voice in voices], axis=0)


class Pitch(Scorer):
    """Share of the source's pitch that the output keeps, and that a WORLD copy of the source keeps."""

    scorer, install = "pitch (pyworld)", "pip install pyworld-prebuilt"
    figures = ("pitch_share", "pitch_share_copy", "pitch_share_of_copy", "vuv_agreement")

    def __init__(self, cases: Sequence[Case], target: TargetSpeech) -> None:
        self._estimate = pitch_estimator("harvest")
        self.of_target, self.notes = {}, []

    def __call__(self, case: Case, source: Audio) -> Row:
        before = self._estimate(source.resample(16_000).samples)
        after = self._estimate(case.output.resample(16_000).samples)
        share = pitch_share(before, after)
        copy = pitch_share(before, self._estimate(world_copy(source).samples))
        return {
            "pitch_share": share,
            "pitch_share_copy": copy,
            "pitch_share_of_copy": share / copy if copy else math.nan,
            "vuv_agreement": vuv_agreement(before, after),
        }


class Cleanness(Scorer):
    """DNSMOS ratings of output, source and target."""

    scorer, install = "DNSMOS (speechmos)", "pip install onnxruntime && pip install --no-deps speechmos"
    figures = ("dnsmos", "dnsmos_signal", "dnsmos_background", "dnsmos_source", "dnsmos_to_source", "dnsmos_to_lower")

    def __init__(self, cases: Sequence[Case], target: TargetSpeech) -> None:
        self._rate, self.notes = NaturalnessScorer(), []
        pieces = target.heldout or [piece for recording in target.reference for piece in recording]
        self._target = float(np.mean([self._rate(piece).overall for piece in spread(pieces, _MOST_RATED)]))
        self.of_target = {"dnsmos": self._target}

    def __call__(self, case: Case, source: Audio) -> Row:
        made, before = self._rate(case.output), self._rate(source).overall
        return {
            "dnsmos": made.overall,
            "dnsmos_signal": made.signal,
            "dnsmos_background": made.background,
            "dnsmos_source": before,
            "dnsmos_to_source": made.overall - before,
            "dnsmos_to_lower": made.overall - min(before, self._target),
        }


class Words(Scorer):
    """Word errors of a speech recogniser on output and source."""

    scorer, install = "words (pocketsphinx)", "pip install pocketsphinx"
    figures = ("heard", "words", "word_errors", "source_word_errors")

    def __init__(self, cases: Sequence[Case], target: TargetSpeech) -> None:
        texts = [case.text for case in cases if case.text]
        self._recognisers = {
            digits: WordRecogniser(group)
            for digits in (False, True)
            if (group := [text for text in texts if is_digits(text) == digits])
        }
        unknown = sorted({word for recogniser in self._recognisers.values() for word in recogniser.unknown})
        self.of_target = {}
        self.notes = [f"not in the recogniser's dictionary and not counted: {', '.join(unknown)}"] if unknown else []
        without = [case.source.name for case in cases if not case.text]
        self.notes += [f"no text of {', '.join(without)}"] if without else []

    def __call__(self, case: Case, source: Audio) -> Row:
        if not case.text:
            return {}
        recogniser = self._recognisers[is_digits(case.text)]
        recognised = recogniser.transcribe(case.output)
        score = recogniser.score(case.text, recognised)
        return {
            "heard": " ".join(recognised),
            "words": score.words,
            "word_errors": score.errors,
            "source_word_errors": recogniser.score(case.text, recogniser.transcribe(source)).errors,
        }


SCORERS: tuple[type[Scorer], ...] = (Similarity, Pitch, Cleanness, Words)
