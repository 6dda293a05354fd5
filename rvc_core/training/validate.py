"""How well a voice speaks what it never heard: the target's held-out recordings, and sentences of other people.

Always on the path that conversion takes, without an index and with the same noise, so that only the weights differ.
docs/overtraining.md says what each figure means.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch

from ..audio.recordings import recordings_in
from ..audio.waveform import Audio, highpass, read_audio
from ..embedded import voice_folder
from ..errors import AudioError, ResourceError, SettingsError, StageOrderError, WeightsError
from ..features.content import ContentEncoder, content_encoder
from ..features.pitch import SAMPLE_RATE, PitchTrack, auto_transpose, pitch_estimator, pitch_method
from ..nn.spectrogram import mel_spectrogram
from ..nn.synthesizer import Synthesizer
from ..presets import VoiceSpec
from ..scoring.melody import melody_correlation, pitch_error_cents, vuv_agreement
from ..scoring.similarity import SpeakerScorer, content_distance, speaker_similarity
from ..scoring.target_speech import sentences, spread, target_speech
from ..scoring.transcripts import texts_of
from ..scoring.words import WordRecogniser, WordScore
from ..system.documents import read_json
from ..verdict.failures import mel_signs
from ..workspace.dataset import ClipStore, ClipTensors
from ..workspace.filelist import ClipFiles
from ..workspace.layout import Layout
from ..workspace.manifest import Manifest
from ..workspace.voice_file import VoiceInfo

_SEED = 20_260  # the prior's noise is the same at every validation
_HEARD_FRAMES = 2000  # 20 s of held-out recordings, evenly chosen: more would take time from training
_SENTENCES = 2  # of other people
_STFT_SAMPLES = (512, 1024, 2048)
_STFT_FLOOR = 1e-2  # about 80 dB below the loudest
T = TypeVar("T")


@dataclass(frozen=True)
class Findings:
    """What one validation found.

    Attributes
    ----------
    values : dict
        By the names of docs/file_formats.md: what could be measured, all finite.
    sounds : dict
        Name → what the voice said, to be listened to.
    """

    values: dict[str, float]
    sounds: dict[str, Audio]


@dataclass(frozen=True)
class _Sentence:
    """Somebody else's sentence as the voice is asked to say it, its content (T, D), 50 frames a second, its words."""

    clip: ClipTensors
    content: np.ndarray
    text: str


class Examiner:
    """Measures a voice in training; what that takes is loaded once.

    Parameters
    ----------
    layout : Layout
        Of the experiment, for how the target sounds.
    info : VoiceInfo
        Names the content encoder and the target's median pitch.
    clips : ClipStore
        Held-out clips; may be empty.
    unlike : str
        ``auto``: sentences of that voice inside the package which is less like the target; ``none``; or a folder.

    Attributes
    ----------
    missing : list of str
        What cannot be measured here, and why.

    Raises
    ------
    AudioError
        When `unlike` names recordings that are not there or cannot be read.
    """

    def __init__(
        self,
        layout: Layout,
        spec: VoiceSpec,
        info: VoiceInfo,
        clips: ClipStore,
        *,
        unlike: str = "auto",
        device: str = "cpu",
    ) -> None:
        self._spec, self.missing = spec, list[str]()
        self._median_hz = next(iter(info.speakers.values()), info.f0_median_hz)  # other people become its first row
        held = [clips[number] for number in range(len(clips))]
        self._clips = spread(held, max(1, _HEARD_FRAMES * len(held) // max(1, sum(clip.frames for clip in held))))
        self._pitch = (
            self._if_possible(lambda: pitch_estimator(pitch_method("auto"), device, spec.voicing))
            if spec.uses_f0
            else None
        )
        wanted = unlike != "none" and bool(self._pitch or not spec.uses_f0)
        self._encoder = (
            self._if_possible(lambda: content_encoder(info.content_name or "embedded", spec.content_width, device))
            if wanted
            else None
        )
        others = self._others(unlike) if self._encoder else []
        self._sentences = [self._sentence(self._encoder, *other) for other in others] if self._encoder else []
        self._likeness = self._if_possible(lambda: _Likeness(layout)) if self._sentences else None
        texts = [sentence.text for sentence in self._sentences if sentence.text]
        self._words = self._if_possible(lambda: WordRecogniser(texts)) if texts else None

    def __call__(self, generator: Synthesizer) -> Findings:
        """Let the voice speak, and measure what it says."""
        made = [speak(generator, clip) for clip in self._clips]
        values = heldout_distances(made, self._clips, self._spec)
        said = [speak(generator, sentence.clip) for sentence in self._sentences]
        spoken, told = ([self._audio(wave) for wave in waves] for waves in (made, said))
        pairs = [
            (_asked(clip), self._pitch(_heard(audio)))
            for clip, audio in zip(self._clips, spoken, strict=True)
            if self._pitch
        ]
        values |= _means(
            {
                "heldout/f0_cents": [pitch_error_cents(*pair) for pair in pairs],
                "heldout/vuv": [vuv_agreement(*pair) for pair in pairs],
            }
        )
        values |= self._understood(told)
        sounds = {name: audios[0] for name, audios in (("heldout", spoken), ("unlike", told)) if audios}
        return Findings({name: round(value, 5) for name, value in values.items() if math.isfinite(value)}, sounds)

    def heldout(self, generator: Synthesizer) -> Audio | None:
        """What the voice makes of the first held-out clip; None without one."""
        return self._audio(speak(generator, self._clips[0])) if self._clips else None

    def _audio(self, wave: torch.Tensor) -> Audio:
        return Audio(wave[0].float().cpu().numpy(), self._spec.sample_rate)

    def _if_possible(self, load: Callable[[], T]) -> T | None:
        """What may be absent: a package, a file of weights, enough of the target's speech."""
        try:
            return load()
        except (ResourceError, WeightsError, SettingsError, AudioError) as error:
            self.missing.append(f"{error} ({error.hint})")
            return None

    def _others(self, unlike: str) -> list[tuple[Audio, str]]:
        """Sentences of other people: of the package's two voices, the one whose pitch is farther from the target's."""
        if unlike != "auto":
            files = spread(recordings_in([Path(unlike)]), 2 * _SENTENCES)
            pieces = [sentences(read_audio(path)) for path in files]
            return [
                (parts[0], text if len(parts) == 1 else "") for parts, text in zip(pieces, texts_of(files), strict=True)
            ]
        voices = [
            [
                (read_audio(voice_folder(name) / clip["file"]), clip["text"])
                for clip in read_json(voice_folder(name) / "manifest.json", dict, "install rvc_core again")["clips"][
                    :_SENTENCES
                ]
            ]
            for name in ("source", "target")
        ]
        if not self._pitch or not self._median_hz:
            return voices[0]
        medians = [self._pitch(_heard(voice[0][0])).median_hz for voice in voices]
        return max(zip(medians, voices, strict=True), key=lambda pair: abs(math.log(pair[0] / self._median_hz)))[1]

    def _sentence(self, encoder: ContentEncoder, audio: Audio, text: str) -> _Sentence:
        samples = _heard(audio)
        content = encoder(samples)
        track = self._pitch(samples) if self._pitch else PitchTrack(np.zeros(0, np.float32), np.zeros(0, bool))
        track = track.fitted(2 * len(content)).transposed(auto_transpose(track, self._median_hz))
        empty = torch.zeros(0)
        return _Sentence(
            ClipTensors(
                torch.from_numpy(np.repeat(content, 2, axis=0)),
                torch.from_numpy(track.coarse()),
                torch.from_numpy(track.f0_hz),
                empty,
                empty,
                speaker=0,
            ),
            content,
            text,
        )

    def _understood(self, told: Sequence[Audio]) -> dict[str, float]:
        """Whose voice other people got, and what was lost of what they say."""
        if not self._encoder or not told:
            return {}
        pairs = [(sentence, _heard(audio)) for sentence, audio in zip(self._sentences, told, strict=True)]
        scores = [
            self._words.score(sentence.text, self._words.transcribe(audio))
            for sentence, audio in zip(self._sentences, told, strict=True)
            if self._words and sentence.text
        ]
        return _means(
            {
                "unlike/words": [sum(scores, WordScore()).rate] if scores else [],
                "unlike/content": [content_distance(one.content, self._encoder(samples)) for one, samples in pairs],
                "unlike/f0_correlation": [
                    melody_correlation(_asked(one.clip), self._pitch(samples)) for one, samples in pairs if self._pitch
                ],
                "unlike/similarity": self._likeness(told) if self._likeness else [],
            }
        )


class _Likeness:
    """How like the target's own speech something sounds, unheard speech if there is any."""

    def __init__(self, layout: Layout) -> None:
        self._scorer = SpeakerScorer()
        speech = target_speech(clips=layout.clips, heldout=layout.heldout.clips)
        self._target = self._scorer.centre(speech.heldout or [one for part in speech.reference for one in part])

    def __call__(self, audios: Sequence[Audio]) -> list[float]:
        likenesses = []
        for audio in audios:
            try:
                likenesses.append(speaker_similarity(self._scorer.embed(audio), self._target))
            except AudioError:  # no speech at all: the other figures say so
                continue
        return likenesses


def heldout_files(layout: Layout, spec: VoiceSpec) -> list[ClipFiles]:
    """The clips that were kept out of training and whose features could be extracted."""
    held = layout.heldout
    try:
        rows = {clip.id: clip.speaker for clip in Manifest.load(layout).heldout}
    except StageOrderError:  # of another program: with several speakers, that holds nothing out
        rows = {}

    def pitch(folder: Path, clip: Path) -> Path | None:
        return folder / f"{clip.name}.npy" if spec.uses_f0 else None

    clips = [
        ClipFiles(
            clip,
            held.features(spec.content_width) / f"{clip.stem}.npy",
            pitch(held.f0_coarse, clip),
            pitch(held.f0_hz, clip),
            rows.get(clip.stem, 0),
        )
        for clip in sorted(held.clips.glob("*.wav"))
    ]
    return [
        clip for clip in clips if all(path.exists() for path in (clip.features, clip.f0_coarse, clip.f0_hz) if path)
    ]


@torch.inference_mode()
def speak(generator: Synthesizer, clip: ClipTensors) -> torch.Tensor:
    """What a voice makes of a clip's content and pitch, always with the same noise: samples (1, S)."""
    device = next(generator.parameters()).device
    coarse, f0_hz = (
        (clip.f0_coarse[None].to(device), clip.f0_hz[None].to(device)) if generator.spec.uses_f0 else (None, None)
    )
    return generator.infer(
        clip.content[None].to(device),
        coarse,
        f0_hz,
        torch.tensor([clip.speaker], device=device),
        generator=torch.Generator(device).manual_seed(_SEED),
    )[:, 0]


@torch.inference_mode()
def heldout_distances(made: Sequence[torch.Tensor], clips: Sequence[ClipTensors], spec: VoiceSpec) -> dict[str, float]:
    """How far what a voice made of recordings' content and pitch is from those recordings, and whether it is speech.

    The posterior encoder, which sees the recording itself, has no part in it: a voice that only copies its input
    scores badly here and well in the training loss.

    Parameters
    ----------
    made : sequence of Tensor (1, S)
        From `speak`, of each of the clips.

    Returns
    -------
    dict
        ``heldout/mel``: mean absolute log-mel difference in nepers; ``heldout/stft``: spectral convergence and log
        magnitude at three resolutions (Yamamoto et al., 2020); the signs of `failures.mel_signs`. Weighted by length.
    """
    rows = []
    for wave, clip in zip(made, clips, strict=True):
        true = clip.wave[None].to(wave.device)
        mels = [mel_spectrogram(one, spec)[0].cpu().numpy() for one in (wave, true)]
        rows.append(
            {
                "heldout/mel": float(np.abs(mels[0] - mels[1]).mean()),
                "heldout/stft": _stft_distance(wave, true),
                **mel_signs(*mels),
            }
        )
    lengths = [clip.frames for clip in clips]
    return {name: float(np.average([row[name] for row in rows], weights=lengths)) for name in rows[0]} if rows else {}


def _stft_distance(made: torch.Tensor, true: torch.Tensor) -> float:
    total = 0.0
    for size in _STFT_SAMPLES:
        ours, theirs = (
            torch.stft(wave, size, size // 4, window=torch.hann_window(size, device=wave.device), return_complex=True)
            .abs()
            .clamp_min(_STFT_FLOOR)
            for wave in (made, true)
        )
        total += ((ours - theirs).norm() / theirs.norm() + (ours.log() - theirs.log()).abs().mean()).item()
    return total / len(_STFT_SAMPLES)


def _heard(audio: Audio) -> np.ndarray:
    """A recording as conversion hears it: 16 kHz without rumble."""
    return highpass(audio.resample(SAMPLE_RATE), zero_phase=True).samples


def _asked(clip: ClipTensors) -> PitchTrack:
    return PitchTrack(clip.f0_hz.numpy(), clip.f0_hz.numpy() > 0)


def _means(figures: dict[str, list[float]]) -> dict[str, float]:
    """Means of what could be measured."""
    found = {name: [value for value in values if math.isfinite(value)] for name, values in figures.items()}
    return {name: float(np.mean(values)) for name, values in found.items() if values}
