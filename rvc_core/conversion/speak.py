"""Stage: speak a text in a voice. Script → speech of an engine, sentence by sentence → conversion → one recording.

A sentence that fails is named and the rest goes on. Subtitles keep their times: each cue is spoken faster or slower,
and never cut.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from ..audio.waveform import Audio, frame_rms, read_audio, subtype_of
from ..errors import AudioError, ResourceError, RVCError, SettingsError
from ..progress import Progress, Silent
from ..scoring.words import WordRecogniser, WordScore
from ..settings import ConvertSettings, SpeakSettings
from ..system.files import signature
from .convert import Converter
from .naming import refuse_speech
from .outputs import CODEC_SECONDS, check_sanity, place_for, tag_of
from .script import Utterance, read_script
from .shaping import levelled
from .speakers import Speaker, speaker_of

_SLOWEST, _FASTEST = 0.8, 1.5  # of subtitles
_FITTED_SECONDS = 0.05  # a cue may end so much later
_PART_SECONDS, _PART_GAP_SECONDS = 60.0, 2.0  # what is converted at once
_GATE_DB = -60.0  # the engine's pauses are silent, and so are the voice's
_EDGE_DB, _EDGE_SECONDS = -45.0, 0.02  # of the loudest: quieter edges of a sentence are cut off
_MOST_HEARD = 40  # sentences that the recogniser listens to


@dataclass(frozen=True)
class Spoken:
    """One sentence or cue as it was spoken.

    Attributes
    ----------
    number : int
        Of the sentence or cue.
    start_seconds : float
        Where it begins in the result.
    speed : float
        Of the engine; 1 is its own.
    late_seconds : float
        How much later than its cue it ends; 0 if it fits.
    """

    text: str
    number: int
    start_seconds: float
    seconds: float
    speed: float
    late_seconds: float = 0.0

    def as_json(self) -> dict[str, Any]:
        """The fields, times in milliseconds."""
        return {name: round(value, 3) if isinstance(value, float) else value for name, value in vars(self).items()}


@dataclass(frozen=True)
class SpeakResult:
    """A text in a voice.

    Attributes
    ----------
    engine : str
        What spoke the text before the conversion.
    spoken : list of Spoken
    failed : list of dict
        ``text``, ``error`` and ``hint`` of each sentence that could not be spoken.
    words : dict or None
        Word errors of the recogniser: ``error_rate`` of the result, ``engine_error_rate`` of the engine's own speech;
        ``words`` and ``sentences`` that were judged, ``unknown`` words that were not. None: not English,
        or pocketsphinx is not installed.
    """

    audio: Audio
    engine: str
    transpose: float
    spoken: list[Spoken]
    failed: list[dict[str, str]]
    warnings: list[str]
    words: dict[str, float] | None = None
    real_time_factor: float = 0.0
    sanity: dict[str, float] = field(default_factory=dict)
    output: str = ""

    def as_json(self) -> dict[str, Any]:
        """For ``--json``: everything except the samples."""
        without = {name: value for name, value in vars(self).items() if name not in ("audio", "spoken")}
        return {"seconds": round(self.audio.seconds, 3), **without, "spoken": [one.as_json() for one in self.spoken]}


def speak(
    converter: Converter,
    speech: SpeakSettings,
    settings: ConvertSettings = ConvertSettings(),
    *,
    output: Path | None = None,
    progress: Progress = Silent(),
    speaker: Speaker | None = None,
) -> SpeakResult:
    """Speak a text, convert it, and listen to the result.

    Parameters
    ----------
    output : Path, optional
        File for the result, which is tagged, reopened and measured.
    speaker : Speaker, optional
        Another engine than the settings name.

    Raises
    ------
    SettingsError
        When there is nothing to say, or the engine lacks the language.
    ResourceError
        When the engine is not installed.
    AudioError
        When no sentence could be spoken.
    """
    started = time.monotonic()
    if output is not None:
        subtype_of(output, settings.output_depth)
    script = read_script(speech.text)
    refuse_speech(script, speech, settings)
    speaker, warnings = (speaker, []) if speaker else speaker_of(speech.engine, speech.language)
    said, spoken, failed = _said(script, speech, speaker, progress)
    own = settings.model_copy(update={"gate_db": _GATE_DB if settings.gate_db is None else settings.gate_db})
    audio, transpose, more = _converted(said, spoken, converter, own, progress)
    warnings += [*more, *_about_cues(script, spoken)]
    audio, unreached = levelled(audio, settings.loudness_lufs)
    result = SpeakResult(
        audio,
        speaker.name,
        transpose,
        spoken,
        failed,
        list(dict.fromkeys([*warnings, *unreached])),
        _heard(said, spoken, audio) if speech.language.lower().startswith("en") else None,
        round((time.monotonic() - started) / audio.seconds, 4),
        check_sanity(audio, audio),
    )
    if output is None:
        return result
    made_from = [converter.identity, [one.text for one in script], speech.stamp() | {"text": ""}, settings.stamp()]
    tag = tag_of(converter.voice.info.name, signature(made_from))
    output = place_for(output, tag)
    audio.save(output, comment=tag, depth=settings.output_depth)
    tolerance = CODEC_SECONDS.get(output.suffix.lower(), 0.02)
    sanity = check_sanity(read_audio(output), audio, tolerance_seconds=tolerance)
    return replace(result, output=str(output), sanity=sanity)


# -- the engine's speech -------------------------------------------------------------------------------------------
def _said(
    script: Sequence[Utterance], speech: SpeakSettings, speaker: Speaker, progress: Progress
) -> tuple[list[Audio], list[Spoken], list[dict[str, str]]]:
    """The engine's speech of each sentence, where it stands in the result, and what failed."""
    said: list[Audio] = []
    spoken: list[Spoken] = []
    failed: list[dict[str, str]] = []
    now = 0.0
    progress.start("reading aloud", len(script))
    for one in script:
        try:
            audio, speed = _utter(one, speech, speaker)
        except SettingsError:
            raise
        except RVCError as error:
            failed.append({"text": one.label, "error": str(error), "hint": error.hint})
        else:
            start = one.cue[0] if one.cue else now
            late = max(0.0, start + audio.seconds - one.cue[1]) if one.cue else 0.0
            late = late if late > _FITTED_SECONDS else 0.0
            spoken.append(Spoken(one.text, one.number, start, audio.seconds, round(speed, 3), late))
            said.append(audio)
            now = start + audio.seconds + one.pause_seconds
        progress.advance()
    if not said:
        raise AudioError(f"no sentence could be spoken: {failed[0]['error']}", hint=failed[0]["hint"])
    return said, spoken, failed


def _utter(one: Utterance, speech: SpeakSettings, speaker: Speaker) -> tuple[Audio, float]:
    """Speech of one sentence without silence around it, and its speed: of a cue, the speed that fills its time."""
    speed = speech.speed  # 1 of a cue

    def at(speed: float) -> Audio:
        return _trimmed(speaker(one.text, language=speech.language, voice=speech.engine_voice, speed=speed))

    audio = at(speed)
    for _ in range(3 if one.cue else 0):
        assert one.cue is not None
        wanted = speed * audio.seconds / (one.cue[1] - one.cue[0])
        wanted = min(max(wanted, _SLOWEST), _FASTEST)
        if abs(wanted - speed) < 0.01:
            break
        speed, audio = wanted, at(wanted)
    return audio, speed


def _trimmed(audio: Audio) -> Audio:
    hop = max(1, audio.sample_rate // 200)
    rms = frame_rms(audio.samples, hop, 2)
    loud = np.flatnonzero(rms > max(rms.max(initial=0) * 10 ** (_EDGE_DB / 20), 1e-5))
    if not len(loud):
        raise AudioError("the engine's speech is silent", hint="change the sentence, or choose another engine")
    edge = round(_EDGE_SECONDS * audio.sample_rate)
    first, last = max(0, loud[0] * hop - edge), loud[-1] * hop + edge
    return replace(audio, samples=audio.samples[first:last])


# -- in the voice --------------------------------------------------------------------------------------------------
def _converted(
    said: Sequence[Audio],
    spoken: Sequence[Spoken],
    converter: Converter,
    settings: ConvertSettings,
    progress: Progress,
) -> tuple[Audio, float, list[str]]:
    """All speech at its times, converted in parts of a minute, transposed as the first of them."""
    own = settings.model_copy(update={"loudness_lufs": None})
    made: list[tuple[float, Audio]] = []
    warnings: list[str] = []
    transpose = 0.0
    parts = _parts(spoken)
    progress.start("converting", len(parts))
    for part in parts:
        start = spoken[part[0]].start_seconds
        source = _placed([(spoken[place].start_seconds - start, said[place]) for place in part])
        result = converter.convert(source, own)
        if own.transpose == "auto":
            own = own.model_copy(update={"transpose": result.transpose})
        made.append((start, result.audio))
        transpose, warnings = result.transpose, [*warnings, *result.warnings]
        progress.advance()
    return _placed(made), transpose, warnings


def _parts(spoken: Sequence[Spoken]) -> list[list[int]]:
    """Places of the sentences that are converted together: up to a minute, without a long pause."""
    parts: list[list[int]] = []
    begins = ends = 0.0
    for place, one in enumerate(spoken):
        stop = one.start_seconds + one.seconds
        if parts and one.start_seconds - ends < _PART_GAP_SECONDS and stop - begins < _PART_SECONDS:
            parts[-1].append(place)
        else:
            parts.append([place])
            begins = one.start_seconds
            ends = stop
        ends = max(ends, stop)
    return parts


def _placed(pieces: Sequence[tuple[float, Audio]]) -> Audio:
    """Recordings at their seconds in one; what overlaps is heard together."""
    rate = pieces[0][1].sample_rate
    starts = [round(seconds * rate) for seconds, _ in pieces]
    samples = np.zeros(
        max(start + len(audio.samples) for start, (_, audio) in zip(starts, pieces, strict=True)), np.float32
    )
    for start, (_, audio) in zip(starts, pieces, strict=True):
        samples[start : start + len(audio.samples)] += audio.samples
    return Audio(samples, rate)


# -- what came of it -----------------------------------------------------------------------------------------------
def _about_cues(script: Sequence[Utterance], spoken: Sequence[Spoken]) -> list[str]:
    """Cues that do not fit their time even at the highest speed, and cues that overlap."""
    labels = {one.number: one.label for one in script}
    told = [
        f"{labels[one.number]} ends {one.late_seconds:.1f} s late, even at speed {_FASTEST}: shorten it"
        for one in spoken
        if one.late_seconds
    ]
    timed = [one for one in script if one.cue]
    for first, second in zip(timed, timed[1:], strict=False):
        assert first.cue and second.cue
        if second.cue[0] < first.cue[1] - _FITTED_SECONDS:
            told.append(f"cue {first.number} overlaps cue {second.number}: both are heard at once")
    return told


def _heard(said: Sequence[Audio], spoken: Sequence[Spoken], audio: Audio) -> dict[str, float] | None:
    """Word errors of the result and of the engine's own speech, sentence by sentence."""
    chosen = np.unique(np.linspace(0, len(spoken) - 1, min(_MOST_HEARD, len(spoken))).astype(int))
    try:
        recogniser = WordRecogniser(spoken[place].text for place in chosen)
    except (ResourceError, SettingsError):  # not installed, or none of its words is English
        return None
    ours, theirs = WordScore(), WordScore()
    for place in chosen:
        one = spoken[place]
        part = audio[one.start_seconds : one.start_seconds + one.seconds + 0.1]
        ours += recogniser.score(one.text, recogniser.transcribe(part))
        theirs += recogniser.score(one.text, recogniser.transcribe(said[place]))
    if not ours.words:
        return None
    rates = {"error_rate": round(ours.rate, 4), "engine_error_rate": round(theirs.rate, 4)}
    return {**rates, "words": ours.words, "unknown": ours.unknown, "sentences": len(chosen)}
