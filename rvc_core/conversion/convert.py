"""Stage: convert recordings. Source audio → pitch and content → index mix → synthesis in windows → one recording.

The pipeline is RVC WebUI's (``infer/vc/pipeline.py``) with two changes: windows are crossfaded, and unvoiced frames
stay at 0 Hz, which `protect` needs.
"""

import functools
import os
import time
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ..audio.quality import beyond_full_scale
from ..audio.waveform import Audio, highpass, read_audio, subtype_of
from ..errors import AudioError, MismatchError, RVCError, SettingsError, StorageError
from ..features.content import ENCODERS, ContentEncoder, content_encoder, repeat_to_100fps
from ..features.high_pitch import folded
from ..features.pitch import F0_MAX_HZ, PitchTrack, auto_transpose, pitch_estimator, pitch_method, read_curve
from ..features.retrieval import FeatureIndex
from ..nn.synthesizer import SynthesisNoise
from ..presets import Voicing
from ..progress import Progress, Silent, Stop, counted
from ..settings import ConvertSettings, RuntimeSettings
from ..system.devices import choose_device
from ..system.platforms import MOUNT_AGAIN, is_reachable
from ..system.threads import set_threads
from ..workspace.layout import voice_path
from ..workspace.voice_file import VoiceFile, load_voice, synthesizer_of
from .outputs import CODEC_SECONDS, SILENT_RMS, check_sanity, identity_of, made_of, place_for, tag_of
from .shaping import autotuned, gate_of, gated, key_of, levelled, mix_loudness, protect_consonants, shift_formants
from .windows import (
    CONTEXT_FRAMES,
    FADE_FRAMES,
    FRAME_SAMPLES,
    Window,
    frame_noise,
    join_pieces,
    phase_at,
    plan_windows,
)

# oneDNN keeps 1024 compiled kernels: 130 recordings of different lengths took 110 MB more than the first twenty.
os.environ.setdefault("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "64")
SOURCE_RATE_HZ = 16000
_LOUD_QUANTILE, _LOUD = 0.95, 0.1  # pitch is estimated where the louder samples are at least that


@dataclass(frozen=True)
class ConvertResult:
    """One converted recording.

    Attributes
    ----------
    audio : Audio
    transpose : float
        Semitones added to the pitch.
    f0_method : str
        Pitch estimator, or ``curve``; empty for a voice without pitch.
    key : str
        Key that autotune used; empty without autotune.
    real_time_factor : float
        Seconds of computation per second of audio; below 1 is faster than real time.
    sanity : dict
        Measurements of the result: RMS and peak in dBFS, difference to the source's length in seconds.
    output : str
        Path of the written file; empty if none was written.
    index : str
        Name of the index file used; empty without an index.
    """

    audio: Audio
    transpose: float
    seconds: float
    real_time_factor: float
    sanity: dict[str, float]
    warnings: list[str] = field(default_factory=list)
    output: str = ""
    index: str = ""
    f0_method: str = ""
    key: str = ""

    def as_json(self) -> dict[str, Any]:
        """For ``--json``: everything except the samples."""
        return {key: value for key, value in asdict(self).items() if key != "audio"}


class Converter:
    """A voice with its encoder and index, loaded once for any number of recordings."""

    def __init__(
        self, voice: VoiceFile, index: FeatureIndex | None = None, runtime: RuntimeSettings = RuntimeSettings()
    ) -> None:
        if index is not None and index.dimension != voice.spec.content_width:
            raise MismatchError(
                f"the index has {index.dimension} values per feature, but the voice needs {voice.spec.content_width}",
                hint="use the index that was built with this voice",
            )
        self.device = torch.device(choose_device(runtime.device).name)
        set_threads(runtime.threads)
        self.runtime = runtime
        self.voice, self.index = voice, index.on(str(self.device)) if index else None
        self._encoder = self._matching_encoder(voice)
        self._blend: tuple[Any, Converter | None] = (None, None)
        if index is not None:
            index.refuse_other_encoder(self._encoder.identity)
        self._synthesizer = synthesizer_of(voice).to(self.device)

    @functools.cached_property
    def identity(self) -> str:
        """Of the voice and its index, in sixteen hex digits."""
        return identity_of(self.voice, self.index)

    def _matching_encoder(self, voice: VoiceFile) -> ContentEncoder:
        name = voice.encoder
        if name not in ENCODERS:
            raise MismatchError(
                f"the voice was trained with the content encoder {name!r}, which is not supported",
                hint=f"use a voice that was trained with {' or '.join(ENCODERS)}",
            )
        encoder = content_encoder(name, voice.spec.content_width, device=str(self.device))
        recorded = voice.info.content_identity
        if recorded and recorded != encoder.identity:
            raise MismatchError(
                f"the voice was trained with another {name} encoder ({recorded}) than the installed one "
                f"({encoder.identity})",
                hint="install the encoder the voice was trained with, or train the voice again",
            )
        return encoder

    def convert(
        self,
        source: Audio,
        settings: ConvertSettings = ConvertSettings(),
        *,
        key_semitones: float | None = None,
        progress: Progress = Silent(),
        stop: Stop | None = None,
    ) -> ConvertResult:
        """Convert one recording. The result has exactly the length of the source.

        `key_semitones`: it is sung over an accompaniment that was moved by so many semitones, so that ``auto``
        transposes by whole octaves besides.
        """
        if settings.blend_with:
            alone = settings.model_copy(update={"blend_with": ""})
            return self._blended(settings).convert(
                source, alone, key_semitones=key_semitones, progress=progress, stop=stop
            )
        started = time.monotonic()
        about_speaker = self._speaker_warnings(settings.speaker)
        samples = _prepared(source)
        gate = gate_of(samples, settings.gate_db)
        padded = _padded(samples)
        pitch, transpose, key, warnings = self._pitch(padded, settings, key_semitones)
        padded = shift_formants(padded, pitch.transposed(-transpose), settings.formant_semitones)
        windows = plan_windows(len(samples))
        progress.start("converting", len(windows))
        pieces, hop = [], self.voice.spec.hop_samples
        for window in windows:
            if stop is not None and stop.requested:
                raise RVCError("conversion was stopped", hint="nothing was written")
            begin, end = (frame - CONTEXT_FRAMES for frame in window.gives)
            if gate is not None and not gate[begin : end + 1].any():
                pieces.append(np.zeros((end - begin) * hop, np.float32))
            else:
                pieces.append(self._window(padded, pitch, window, settings))
            progress.advance()
        joined = join_pieces(pieces, FADE_FRAMES * hop)
        rate = self.voice.spec.sample_rate
        joined = _fitted(joined, round(len(samples) * rate / SOURCE_RATE_HZ))
        if not np.isfinite(joined).all():
            raise AudioError(
                "the voice produced NaN or infinite samples", hint="the voice is damaged: use another checkpoint"
            )
        mixed = mix_loudness(Audio(joined, rate), Audio(samples, SOURCE_RATE_HZ), settings.rms_mix_rate)
        shaped = gated(_finished(mixed, settings.output_rate_hz), gate)
        audio, unreached = levelled(shaped, settings.loudness_lufs)
        seconds = time.monotonic() - started
        method = "curve" if settings.f0_curve else pitch_method(settings.f0_method)
        return ConvertResult(
            audio,
            transpose,
            round(audio.seconds, 3),
            round(seconds / source.seconds, 4),
            check_sanity(audio, source),
            [*filter(None, [beyond_full_scale(source)]), *about_speaker, *warnings, *unreached],
            f0_method=method if self.voice.spec.uses_f0 else "",
            key=key,
        )

    def _speaker_warnings(self, speaker: int) -> list[str]:
        """Refuse a speaker that was not trained; say so where the voice file does not tell who was."""
        trained, names = self.voice.trained_speakers, [*self.voice.info.speakers]
        rows = trained or self.voice.spec.speakers
        if speaker >= rows:
            named = ", ".join(f"{row} ({name})" for row, name in enumerate(names))
            raise SettingsError(
                f"speaker {speaker} does not exist: the voice has {counted(rows, 'speaker')}",
                hint=f"choose {named or (f'0 to {rows - 1}' if rows > 1 else '0, or leave it out')}",
            )
        told = bool(trained) or not speaker
        return [] if told else [f"the voice file does not tell how many speakers it has: {speaker} may be untrained"]

    def _blended(self, settings: ConvertSettings) -> "Converter":
        """The converter of this voice and a second one, kept while these stay the same."""
        from ..voices.merge import mixed

        other = voice_path(settings.blend_with)
        what = other, other.stat().st_mtime_ns, settings.blend_share
        if self._blend[1] is None or self._blend[0] != what:
            voice = mixed(self.voice, load_voice(other), 1 - settings.blend_share, self.voice.info.name)
            self._blend = what, Converter(voice, self.index, self.runtime)
        assert self._blend[1] is not None
        return self._blend[1]

    def _pitch(
        self, padded: np.ndarray, settings: ConvertSettings, key_semitones: float | None = None
    ) -> tuple[PitchTrack, float, str, list[str]]:
        """Transposed pitch of the padded source, the semitones added, the key of autotune, and warnings."""
        if not self.voice.spec.uses_f0:
            if unused := next((name for name in ("f0_curve", "autotune") if getattr(settings, name)), ""):
                raise SettingsError(
                    f"this voice does not use pitch, so {unused} has no effect", hint=f"leave out {unused}"
                )
            empty = np.zeros(len(padded) // FRAME_SAMPLES, np.float32)
            return PitchTrack(empty, empty > 0), 0.0, "", []
        if settings.f0_curve:
            track, warnings = _drawn_pitch(Path(settings.f0_curve).expanduser(), len(padded) // FRAME_SAMPLES)
        else:
            track, high = _estimated_pitch(padded, settings.f0_method, str(self.device), self.voice.spec.voicing)
            seconds = high[CONTEXT_FRAMES : -CONTEXT_FRAMES - 4].sum() / 100
            line = f"{seconds:.1f} s are above {F0_MAX_HZ:.0f} Hz, and are sung an octave lower"
            warnings = [line] if seconds >= 0.1 else []
        key = ""
        if not track.voiced.any():
            warnings.append("no voiced sound was found: the result sounds like a whisper")
        elif settings.autotune:
            key = key_of(track.f0_hz) if settings.key == "auto" else settings.key
            track = autotuned(track, settings.autotune, key)
        semitones, unknown = self._transposition(track, settings, key_semitones)
        return track.transposed(semitones), semitones, key, warnings + unknown

    def _transposition(
        self, track: PitchTrack, settings: ConvertSettings, key_semitones: float | None
    ) -> tuple[float, list[str]]:
        """Semitones to add to the source's pitch, and a warning if they are unknown."""
        if settings.transpose != "auto":
            return float(settings.transpose) + (key_semitones or 0.0), []
        if settings.f0_curve:  # it is sung as drawn
            return key_semitones or 0.0, []
        info = self.voice.info
        median_hz = [*info.speakers.values()][settings.speaker] if info.speakers else info.f0_median_hz
        if not median_hz:
            unknown = "this voice file records no median pitch, so nothing was transposed. Set `transpose`."
            return key_semitones or 0.0, [unknown]
        semitones = auto_transpose(track, median_hz)
        return (semitones if key_semitones is None else 12.0 * round(semitones / 12) + key_semitones), []

    @torch.inference_mode()
    def _window(self, padded: np.ndarray, pitch: PitchTrack, window: Window, settings: ConvertSettings) -> np.ndarray:
        """Synthesise one window; returns the samples of `window.gives`."""
        start, stop = window.reads
        content = self._encoder(padded[start * FRAME_SAMPLES : stop * FRAME_SAMPLES])
        voiced = pitch.voiced[start:stop]
        mixed = self.index.mix(content, settings.index_rate) if self.index and settings.index_rate else content
        content, mixed = repeat_to_100fps(content), repeat_to_100fps(mixed)
        frames, uses_f0 = min(len(mixed), len(voiced)), self.voice.spec.uses_f0
        if uses_f0:
            mixed = protect_consonants(mixed[:frames], content[:frames], voiced[:frames], settings.protect)
        audio = self._synthesizer.infer(
            self._tensor(mixed[:frames]),
            self._tensor(pitch.coarse()[start : start + frames]) if uses_f0 else None,
            self._tensor(pitch.f0_hz[start : start + frames]) if uses_f0 else None,
            torch.tensor([settings.speaker], device=self.device),
            settings.noise_scale,
            noise=self._noise(pitch, start, start + frames, settings.seed),
        )
        hop = self.voice.spec.hop_samples
        begin, end = (frame - start for frame in window.gives)
        return audio[0, 0, begin * hop : end * hop].float().cpu().numpy()

    def _noise(self, pitch: PitchTrack, start: int, stop: int, seed: int) -> SynthesisNoise:
        """All noise of frames start..stop, equal in every window."""
        channels, hop = self.voice.spec.inter_channels, self.voice.spec.hop_samples
        noise = frame_noise(start, stop, channels + (hop if self.voice.spec.uses_f0 else 0), seed)
        latent = self._tensor(noise[:, :channels].T)
        if not self.voice.spec.uses_f0:
            return SynthesisNoise(latent)
        phase = torch.tensor([phase_at(pitch.f0_hz, start)], device=self.device, dtype=torch.float64)
        return SynthesisNoise(latent, self._tensor(noise[:, channels:].reshape(1, -1)), phase)

    def _tensor(self, array: np.ndarray) -> torch.Tensor:
        return torch.from_numpy(np.ascontiguousarray(array)).to(self.device)[None]


def convert_to_file(
    converter: Converter, source: Audio, output: Path, settings: ConvertSettings, *, progress: Progress = Silent()
) -> ConvertResult:
    """Convert a recording, write the result tagged as converted, then read the file and check it.

    Another result under this name is kept: a number is added to the new one's name, and a warning says so.
    """
    if not is_reachable(output.parent):
        raise StorageError(f"{output.parent} cannot be reached: its storage went away", hint=MOUNT_AGAIN)
    subtype_of(output, settings.output_depth)  # what cannot be written is refused before the work
    tag = tag_of(converter.voice.info.name, made_of(converter.identity, source, settings))
    wanted, output = output, place_for(output, tag)
    result = converter.convert(source, settings, progress=progress)
    if output != wanted:
        line = f"{wanted.name} holds something else, and was kept: this result is {output.name}"
        result = replace(result, warnings=[line, *result.warnings])
    result.audio.save(output, comment=tag, depth=settings.output_depth)
    try:
        tolerance = CODEC_SECONDS.get(output.suffix.lower(), 0.02)
        sanity = check_sanity(read_audio(output), source, tolerance_seconds=tolerance)
    except AudioError:
        output.unlink(missing_ok=True)
        raise
    return replace(result, output=str(output), sanity=sanity)


# -- samples and pitch ---------------------------------------------------------------------------------------------
def _prepared(source: Audio) -> np.ndarray:
    """The source as 16 kHz mono, high-passed and scaled to peaks of at most 0.95.

    It is extended by a second of its reflection, so that an offset or a hum makes no click where the sound begins.
    """
    if source.seconds == 0 or np.sqrt(np.mean(np.square(source.samples))) < SILENT_RMS:
        raise AudioError("the recording is silent", hint="choose a recording with a voice in it")
    second = source.sample_rate
    extended = np.pad(source.samples, second, mode="reflect", reflect_type="odd")
    wide = highpass(Audio(extended, second).resample(SOURCE_RATE_HZ), zero_phase=True).samples
    samples = wide[SOURCE_RATE_HZ:-SOURCE_RATE_HZ]
    return samples / max(1.0, float(np.abs(samples).max()) / 0.95)


def _estimated_pitch(
    samples: np.ndarray, method: str, device: str, voicing: Voicing = "periodicity"
) -> tuple[PitchTrack, np.ndarray]:
    """Pitch of prepared samples, at a level that estimators are made for, and which frames were too high for them."""
    loudest = float(np.quantile(np.abs(samples), _LOUD_QUANTILE))
    samples = samples * np.float32(max(1.0, min(_LOUD / max(loudest, 1e-9), 1 / max(np.abs(samples).max(), 1e-9))))
    return folded(samples, pitch_estimator(pitch_method(method), device, voicing)(samples))


def source_pitch(source: Audio, method: str, runtime: RuntimeSettings = RuntimeSettings()) -> PitchTrack:
    """Pitch of a recording, estimated as in conversion."""
    set_threads(runtime.threads)
    return _estimated_pitch(_prepared(source), method, choose_device(runtime.device).name)[0]


def _drawn_pitch(path: Path, frames: int) -> tuple[PitchTrack, list[str]]:
    """The pitch in a file, padded to `frames` like the source in `_padded`, and warnings."""
    curve, wanted = read_curve(path), frames - 2 * CONTEXT_FRAMES - 4
    f0_hz = np.pad(
        curve.fitted(max(1, wanted)).f0_hz,
        (CONTEXT_FRAMES, CONTEXT_FRAMES + 4),
        mode="reflect" if wanted > 1 else "edge",
    )
    lengths = f"{path.name} is {len(curve.f0_hz) / 100:.1f} s long, the recording {wanted / 100:.1f} s"
    warnings = [lengths] if abs(len(curve.f0_hz) - wanted) > 100 else []
    return PitchTrack(f0_hz, f0_hz > 0).fitted(frames), warnings


def _padded(samples: np.ndarray) -> np.ndarray:
    """The source with reflected context on both sides, and space for the last content frame."""
    context = CONTEXT_FRAMES * FRAME_SAMPLES
    return np.pad(samples, (context, context + 4 * FRAME_SAMPLES), mode="reflect" if len(samples) > 1 else "edge")


def _fitted(samples: np.ndarray, length: int) -> np.ndarray:
    return np.pad(samples, (0, max(0, length - len(samples))))[:length]


def _finished(audio: Audio, output_rate_hz: int) -> Audio:
    """High-pass, and resample to the requested rate."""
    return highpass(audio, zero_phase=True).resample(output_rate_hz or audio.sample_rate)
