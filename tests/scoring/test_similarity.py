"""Scores against closed forms, and against voices whose identity is known."""

import builtins
import importlib.util
import math

import numpy as np
import pytest

from rvc_core import embedded
from rvc_core.audio.waveform import Audio, read_audio
from rvc_core.errors import AudioError, ResourceError
from rvc_core.features.pitch import PitchTrack, pitch_estimator
from rvc_core.scoring.melody import pitch_share, vuv_agreement, world_copy
from rvc_core.scoring.similarity import SpeakerScorer, similarity_gain, speaker_similarity
from synth import phrase

needs_resemblyzer = pytest.mark.skipif(not importlib.util.find_spec("resemblyzer"), reason="Resemblyzer is an extra")
needs_pyworld = pytest.mark.skipif(not importlib.util.find_spec("pyworld"), reason="pyworld is an extra")


def melody(seconds: float = 4.0) -> PitchTrack:
    """A track that wanders by an octave, with a pause every second."""
    frames = np.arange(int(100 * seconds))
    time, voiced = frames / 100, frames % 100 < 80
    return PitchTrack(np.where(voiced, 150.0 * 2 ** (0.5 * np.sin(2.3 * time)), 0.0).astype(np.float32), voiced)


def tuned(track: PitchTrack, cents: np.ndarray) -> PitchTrack:
    return PitchTrack((track.f0_hz * 2 ** (cents / 1200)).astype(np.float32), track.voiced)


@pytest.mark.parametrize("semitones", [0.0, 7.0, -12.0])
def test_a_transposed_copy_keeps_all_of_the_pitch(semitones: float) -> None:
    assert pitch_share(melody(), melody().transposed(semitones)) == 1.0


def test_pitch_share_counts_frames_beyond_the_limit() -> None:
    cents = np.where(np.arange(400) % 4 == 0, 60.0, 0.0)
    assert pitch_share(melody(), tuned(melody(), cents)) == pytest.approx(0.75)
    assert pitch_share(melody(), tuned(melody(), cents), cents=61.0) == 1.0


def test_shuffled_pitch_scores_low() -> None:
    track = melody()
    mixed = track.f0_hz.copy()
    mixed[track.voiced] = np.random.default_rng(0).permutation(mixed[track.voiced])
    assert pitch_share(track, PitchTrack(mixed, track.voiced)) < 0.3


def test_a_whisper_and_a_cut_output_lose_frames() -> None:
    track = melody()
    whisper = PitchTrack(np.zeros(400, np.float32), np.zeros(400, bool))
    assert pitch_share(track, whisper) == 0.0
    assert math.isnan(pitch_share(whisper, track))
    assert pitch_share(track, track.fitted(200)) == pytest.approx(0.5)
    assert pitch_share(track, track.fitted(403)) == 1.0


def test_voicing_agreement() -> None:
    track = melody()
    assert vuv_agreement(track, track.transposed(5)) == 1.0
    assert vuv_agreement(track, PitchTrack(np.zeros(400, np.float32), np.zeros(400, bool))) == pytest.approx(0.2)
    assert vuv_agreement(track, PitchTrack(track.f0_hz, ~track.voiced)) == 0.0
    assert math.isnan(vuv_agreement(track.fitted(0), track))


@needs_pyworld
def test_a_copy_by_world_keeps_nearly_all_of_a_clean_voice() -> None:
    spoken = phrase(3)
    estimator, copy = pitch_estimator("harvest"), world_copy(Audio(spoken.samples, spoken.sample_rate))
    tracks = estimator(spoken.samples), estimator(copy.samples)
    assert 0.85 < pitch_share(*tracks) <= 1.0 and pitch_share(*tracks, 1.0) < pitch_share(*tracks)


def at_cosine(cosine: float) -> np.ndarray:
    return 3.0 * np.array([cosine, math.sqrt(1.0 - cosine**2), 0.0])


def test_similarity_gain_runs_from_the_source_to_the_target() -> None:
    centre = np.array([1.0, 0.0, 0.0])
    source, heldout = at_cosine(0.5), np.stack([at_cosine(0.8), at_cosine(1.0)])
    assert speaker_similarity(heldout, centre) == pytest.approx(0.9)
    assert similarity_gain(source, source, heldout, centre) == pytest.approx(0.0)
    assert similarity_gain(at_cosine(0.9), source, heldout, centre) == pytest.approx(1.0)
    assert similarity_gain(at_cosine(0.7), source, heldout, centre) == pytest.approx(0.5)
    assert similarity_gain(at_cosine(0.4), source, heldout, centre) == pytest.approx(-0.25)
    assert math.isnan(similarity_gain(source, at_cosine(0.9), heldout, centre))


@needs_resemblyzer
def test_the_scorer_tells_the_demo_voices_apart() -> None:
    scorer = SpeakerScorer()
    target = [read_audio(path) for path in sorted(embedded.voice_folder("target").glob("*.flac"))[:6]]
    source = read_audio(min(embedded.voice_folder("source").glob("*.flac")))
    centre = scorer.centre(target[:4])
    assert np.linalg.norm(centre) == pytest.approx(1.0)
    own = np.stack([scorer.embed(audio) for audio in target[4:]])
    other = scorer.embed(source)
    assert speaker_similarity(own, centre) > 0.85
    assert speaker_similarity(other, centre) < 0.65
    assert similarity_gain(own[0], other, own[1], centre) == pytest.approx(1.0, abs=0.2)
    assert speaker_similarity(scorer.embed(source.resample(44_100)), other) > 0.99
    with pytest.raises(AudioError, match="no speech"):
        scorer.embed(Audio(np.zeros(16_000, np.float32), 16_000))


def test_a_missing_scorer_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    real_import = builtins.__import__

    def without_extras(name, *arguments, **keywords):
        if name in {"resemblyzer", "pyworld"}:
            raise ImportError(f"No module named {name!r}", name=name)
        return real_import(name, *arguments, **keywords)

    monkeypatch.setattr(builtins, "__import__", without_extras)
    with pytest.raises(ResourceError, match="Resemblyzer") as caught:
        SpeakerScorer()
    assert "--no-deps" in caught.value.hint
    with pytest.raises(ResourceError, match="pyworld"):
        world_copy(Audio(np.zeros(16_000, np.float32), 16_000))
