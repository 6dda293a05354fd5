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
from ..audio.waveform import Audio, highpass, read_audio, rms_envelope, subtype_of
from ..errors import AudioError, MismatchError, RVCError, SettingsError, StorageError
from ..features.content import ENCODERS, ContentEncoder, content_encoder, repeat_to_100fps
from ..features.high_pitch import folded
from ..features.pitch import (
    F0_MAX_HZ,
    PitchTrack,
    auto_transpose,
    octave_transpose,
    pitch_estimator,
    pitch_method,
    read_curve,
)
from ..features.retrieval import FeatureIndex
from ..nn.synthesizer import SynthesisNoise
from ..presets import Voicing
from ..progress import Progress, Silent, Stop, counted
from ..settings import ConvertSettings, RuntimeSettings
from ..system.devices import choose_device
from ..system.platforms import MOUNT_AGAIN, is_reachable
from ..system.threads import set_threads
from ..workspace.voice_file import VoiceFile, synthesizer_of
from .outputs import SILENT_RMS, check_sanity, identity_of, made_of, place_for, tag_of
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
_PEAK = 0.99
_LOUD_QUANTILE, _LOUD = 0.95, 0.1  # pitch is estimated where the louder samples are at least that
_CODEC_SECONDS = {".mp3": 0.15, ".m4a": 0.15}  # these codecs add frames at both ends


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
        started = time.monotonic()
        about_speaker = self._speaker_warnings(settings.speaker)
        samples = _prepared(source)
        padded = _padded(samples)
        pitch, transpose, warnings = self._pitch(padded, settings, key_semitones)
        windows = plan_windows(len(samples))
        progress.start("converting", len(windows))
        pieces = []
        for window in windows:
            if stop is not None and stop.requested:
                raise RVCError("conversion was stopped", hint="nothing was written")
            pieces.append(self._window(padded, pitch, window, settings))
            progress.advance()
        hop = self.voice.spec.hop_samples
        joined = join_pieces(pieces, FADE_FRAMES * hop)
        rate = self.voice.spec.sample_rate
        joined = _fitted(joined, round(len(samples) * rate / SOURCE_RATE_HZ))
        if not np.isfinite(joined).all():
            raise AudioError(
                "the voice produced NaN or infinite samples", hint="the voice is damaged: use another checkpoint"
            )
        mixed = mix_loudness(Audio(joined, rate), Audio(samples, SOURCE_RATE_HZ), settings.rms_mix_rate)
        audio = _finished(mixed, settings.output_rate_hz)
        seconds = time.monotonic() - started
        method = "curve" if settings.f0_curve else pitch_method(settings.f0_method)
        return ConvertResult(
            audio,
            transpose,
            round(audio.seconds, 3),
            round(seconds / source.seconds, 4),
            check_sanity(audio, source),
            [*filter(None, [beyond_full_scale(source)]), *about_speaker, *warnings],
            f0_method=method if self.voice.spec.uses_f0 else "",
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

    def _pitch(
        self, padded: np.ndarray, settings: ConvertSettings, key_semitones: float | None = None
    ) -> tuple[PitchTrack, float, list[str]]:
        """Transposed pitch of the padded source, the semitones added, and warnings."""
        if not self.voice.spec.uses_f0:
            if settings.f0_curve:
                raise SettingsError(
                    "this voice does not use pitch, so an f0 curve has no effect", hint="leave out f0_curve"
                )
            empty = np.zeros(len(padded) // FRAME_SAMPLES, np.float32)
            return PitchTrack(empty, empty > 0), 0.0, []
        if settings.f0_curve:
            track, warnings = _drawn_pitch(Path(settings.f0_curve).expanduser(), len(padded) // FRAME_SAMPLES)
        else:
            track, high = _estimated_pitch(padded, settings.f0_method, str(self.device), self.voice.spec.voicing)
            seconds = high[CONTEXT_FRAMES : -CONTEXT_FRAMES - 4].sum() / 100
            line = f"{seconds:.1f} s are above {F0_MAX_HZ:.0f} Hz, and are sung an octave lower"
            warnings = [line] if seconds >= 0.1 else []
        if not track.voiced.any():
            warnings.append("no voiced sound was found: the result sounds like a whisper")
        if settings.transpose != "auto" or settings.f0_curve:  # a curve is sung as drawn
            semitones = (0.0 if settings.transpose == "auto" else float(settings.transpose)) + (key_semitones or 0.0)
            return track.transposed(semitones), semitones, warnings
        info = self.voice.info
        median_hz = [*info.speakers.values()][settings.speaker] if info.speakers else info.f0_median_hz
        if not median_hz:
            warnings.append("this voice file records no median pitch, so nothing was transposed. Set `transpose`.")
            return track.transposed(key_semitones or 0.0), key_semitones or 0.0, warnings
        semitones = auto_transpose(track, median_hz)
        if key_semitones is not None:
            semitones = octave_transpose(track, padded, median_hz) + key_semitones
        return track.transposed(semitones), semitones, warnings

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
        tolerance = _CODEC_SECONDS.get(output.suffix.lower(), 0.02)
        sanity = check_sanity(read_audio(output), source, tolerance_seconds=tolerance)
    except AudioError:
        output.unlink(missing_ok=True)
        raise
    return replace(result, output=str(output), sanity=sanity)


# -- arithmetic on features and samples ----------------------------------------------------------------------------
def protect_consonants(mixed: np.ndarray, original: np.ndarray, voiced: np.ndarray, protect: float) -> np.ndarray:
    """Mix the source's own features back into unvoiced frames: (T, D), (T, D), (T,) bool; 0.5 changes nothing.

    Examples
    --------
    >>> protect_consonants(np.ones((2, 1)), np.zeros((2, 1)), np.array([True, False]), 0.25).ravel().tolist()
    [1.0, 0.25]
    """
    if protect >= 0.5:
        return mixed
    share = np.where(voiced, 1.0, protect).astype(mixed.dtype)[:, None]
    return mixed * share + original * (1 - share)


def mix_loudness(made: Audio, source: Audio, rms_mix_rate: float) -> Audio:
    """Adjust the volume of the result: 0 follows the source, 1 keeps the voice's own.

    RVC's formula: ``y *= rms_source ** (1 - r) * rms_made ** (r - 1)`` with RMS over 1 s every 0.5 s, interpolated.
    """
    if rms_mix_rate >= 1:
        return made

    def envelope_of(audio: Audio) -> np.ndarray:
        values = rms_envelope(audio)
        return np.interp(np.linspace(0, 1, len(made.samples)), np.linspace(0, 1, len(values)), values)

    gain = (envelope_of(source) / np.maximum(envelope_of(made), 1e-6)) ** (1 - rms_mix_rate)
    return Audio((made.samples * gain).astype(np.float32), made.sample_rate)


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
    """Resample to the requested rate, high-pass, and reduce peaks that would clip."""
    audio = highpass(audio, zero_phase=True).resample(output_rate_hz or audio.sample_rate)
    peak = float(np.abs(audio.samples).max())
    return audio if peak <= _PEAK else Audio(audio.samples * np.float32(_PEAK / peak), audio.sample_rate)
