"""Validation: each figure against voices whose faults are known because they were made."""

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from rvc_core import presets
from rvc_core.audio.waveform import Audio, read_audio
from rvc_core.embedded import voice_folder
from rvc_core.errors import AudioError
from rvc_core.training.validate import Examiner, Findings, heldout_files
from rvc_core.training.validation import Validation
from rvc_core.workspace.dataset import ClipStore, ClipTensors
from rvc_core.workspace.layout import Layout
from rvc_core.workspace.voice_file import VoiceInfo
from synth import phrase
from tiny import TINY, experiment

SPEC, SOURCE, TARGET = presets.PRESETS["nano"], voice_folder("source"), voice_folder("target")
Answer = Callable[[ClipTensors], np.ndarray]


class Voice(torch.nn.Module):
    """Says, to the examiner's questions one after the other, what `answers` holds."""

    def __init__(self, spec: presets.VoiceSpec, answers: list[np.ndarray]) -> None:
        super().__init__()
        self.spec, self._answers, self._asked = spec, answers, 0
        self.weight = torch.nn.Parameter(torch.zeros(1))

    def infer(self, content: torch.Tensor, *_: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
        assert generator is not None
        samples = 160 * content.shape[1]
        answer = self._answers[self._asked % len(self._answers)]
        self._asked += 1
        return torch.from_numpy(np.pad(answer, (0, max(0, samples - len(answer))))[None, None, :samples])


@pytest.fixture
def held(tmp_path: Path, tiny: None) -> tuple[Examiner, list[np.ndarray]]:
    """An examiner with two held-out clips of two seconds and nobody else, and those clips."""
    layout = experiment(tmp_path, heldout=2, seconds=2.0)
    examiner = Examiner(layout, TINY, VoiceInfo(), ClipStore(heldout_files(layout, TINY), TINY), unlike="none")
    return examiner, [soundfile.read(path, dtype="float32")[0] for path in sorted(layout.heldout.clips.glob("*.wav"))]


def test_the_recordings_themselves_are_perfect(held: tuple[Examiner, list[np.ndarray]]) -> None:
    examiner, clips = held
    voice = Voice(TINY, clips)
    findings = examiner(voice)
    assert findings.values["heldout/mel"] == pytest.approx(0, abs=1e-4)
    assert findings.values["heldout/stft"] == pytest.approx(0, abs=1e-3)
    assert findings.values["heldout/f0_cents"] < 25 and findings.values["heldout/vuv"] > 0.9
    assert (findings.values["sanity/level_nepers"], findings.values["sanity/movement"]) == (0, 1)
    assert list(findings.sounds) == ["heldout"]


def test_faults_are_found_each_by_its_figure(held: tuple[Examiner, list[np.ndarray]]) -> None:
    examiner, clips = held

    def measured(answers: list[np.ndarray]) -> dict[str, float]:
        return examiner(Voice(TINY, answers)).values

    perfect = measured(clips)
    higher = measured([phrase(seed, 120 * 2 ** (1 / 12), 2.0).samples for seed in (5, 6)])  # one semitone
    assert higher["heldout/f0_cents"] == pytest.approx(100, abs=25) and higher["heldout/vuv"] > 0.9
    noise = [np.random.default_rng(0).normal(0, 0.02, len(clip)).astype(np.float32) for clip in clips]
    noisy, whisper = measured([clip + one for clip, one in zip(clips, noise, strict=True)]), measured(noise)
    assert 0.3 < noisy["heldout/mel"] < whisper["heldout/mel"] and 0.1 < noisy["heldout/stft"] < whisper["heldout/stft"]
    assert "heldout/f0_cents" not in whisper and whisper["heldout/vuv"] < perfect["heldout/vuv"] - 0.3
    assert measured([0 * clip for clip in clips])["sanity/level_nepers"] < -2.5
    assert measured([(np.arange(32000) % 128 < 2).astype(np.float32)])["sanity/movement"] < 0.25


# -- other people --------------------------------------------------------------------------------------------------
def _sentences(folder: Path, count: int) -> list[np.ndarray]:
    return [read_audio(path).samples for path in sorted(folder.glob("*.flac"))[:count]]


@pytest.fixture
def target(tmp_path: Path) -> Layout:
    """An experiment with the package's target voice: three sentences to train on, two held out."""
    layout = Layout.of("slt", tmp_path)
    for number, samples in enumerate(_sentences(TARGET, 5)):
        Audio(samples, 16_000).save((layout if number < 3 else layout.heldout).clips / f"{number}_0.wav", float32=True)
    return layout


def _examiner(layout: Layout, **options: str) -> Examiner:
    info = VoiceInfo(content_name="embedded", f0_median_hz=175.0)
    return Examiner(layout, SPEC, info, ClipStore([], SPEC), **options)


def test_what_other_people_say_is_compared_before_and_after(target: Layout) -> None:
    examiner = _examiner(target)
    assert examiner.missing == []
    unchanged, another, silent = (
        examiner(Voice(SPEC, answers)).values
        for answers in (_sentences(SOURCE, 2), _sentences(TARGET, 5)[3:], [np.zeros(80_000, np.float32)])
    )
    assert set(unchanged) == {"unlike/content", "unlike/f0_correlation", "unlike/similarity", "unlike/words"}
    assert unchanged["unlike/content"] < 0.1 and unchanged["unlike/f0_correlation"] > 0.99
    assert another["unlike/content"] > 0.8 and another["unlike/f0_correlation"] < 0.6
    assert another["unlike/similarity"] > 0.85 > 0.7 > unchanged["unlike/similarity"]
    assert unchanged["unlike/words"] < 0.1 and another["unlike/words"] > 0.8
    assert set(silent) == {"unlike/content", "unlike/words"} and silent["unlike/words"] == 1


def test_other_people_are_those_less_like_the_target_or_the_users_own(target: Layout, tmp_path: Path) -> None:
    low = Examiner(target, SPEC, VoiceInfo(f0_median_hz=110.0), ClipStore([], SPEC))
    (tmp_path / "own").mkdir()
    shutil.copy(sorted(TARGET.glob("*.flac"))[3], tmp_path / "own" / "a.flac")
    (tmp_path / "own" / "a.txt").write_text("My father chose a bright yellow coat, because fog makes grey men vanish.")
    own = _examiner(target, unlike=str(tmp_path / "own"))
    for examiner, answers in ((low, _sentences(TARGET, 2)), (own, _sentences(TARGET, 4)[3:])):
        values = examiner(Voice(SPEC, answers)).values
        assert values["unlike/content"] < 0.1 and values["unlike/words"] < 0.2
    with pytest.raises(AudioError, match="does not exist"):
        _examiner(target, unlike=str(tmp_path / "nobody"))
    assert _examiner(target, unlike="none")(Voice(SPEC, [])).values == {}


def test_what_cannot_be_measured_is_said(target: Layout) -> None:
    examiner = Examiner(target, SPEC, VoiceInfo(content_name="contentvec"), ClipStore([], SPEC))
    assert "ontent" in examiner.missing[0] and examiner(Voice(SPEC, [])).values == {}


def test_validation_takes_a_twentieth_of_the_time_unless_told_otherwise() -> None:
    for every, epoch, trained, due in ((0, 7, 39.0, False), (0, 7, 41.0, True), (5, 7, 41.0, False), (5, 10, 0, True)):
        validation = Validation(Layout.of("nobody"), ClipStore([], SPEC))
        validation.seconds = 2.0
        validation.record_step(trained)
        assert validation.is_due(epoch, every) == due


class _Slow:
    """Takes a second of an own clock, and finds something."""

    def __init__(self, clock: list[float]) -> None:
        self.clock, self.missing = clock, []

    def __call__(self, generator: object) -> Findings:
        self.clock[0] += 1
        return Findings({"heldout/mel": self.clock[0]}, {})


def test_a_saved_voice_is_measured_as_long_as_that_stays_below_a_tenth_of_the_time(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    clock = [0.0]
    monkeypatch.setattr("rvc_core.training.validation.time.monotonic", lambda: clock[0])
    validation = Validation(Layout.of("nobody"), ClipStore([], SPEC))
    validation.examiner = _Slow(clock)
    measured = 0
    for step in range(400):  # of a second, with a voice each
        validation.record_step(1.0)
        clock[0] += 1
        if validation.is_affordable():
            validation.measure(None, step)
            measured += 1
            assert validation.figures_at(step) and not validation.figures_at(step - 1)
    assert 35 <= measured <= 0.10 * clock[0]
