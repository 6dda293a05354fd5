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
from ..audio.waveform import Audio, read_audio, subtype_of
from ..errors import AudioError, MismatchError, RVCError, SettingsError, StorageError
from ..features.content import ENCODERS, ContentEncoder, content_encoder, repeat_to_100fps
from ..features.pitch import F0_MAX_HZ, PitchTrack, auto_transpose, octave_transpose, pitch_method
from ..features.retrieval import FeatureIndex
from ..nn.synthesizer import SynthesisNoise
from ..progress import Progress, Silent, Stop, counted
from ..settings import ConvertSettings, RuntimeSettings
from ..system.devices import choose_device
from ..system.memory import is_out_of_memory, release
from ..system.platforms import MOUNT_AGAIN, is_reachable
from ..system.threads import set_threads
from ..workspace.layout import voice_path
from ..workspace.voice_file import VoiceFile, load_voice, synthesizer_of
from .naming import is_changed
from .outputs import CODEC_SECONDS, check_sanity, identity_of, made_of, place_for, tag_of
from .shaping import autotuned, finished, gate_at, key_of, levelled, mix_loudness, protect_consonants, shift_formants
from .source import SOURCE_RATE_HZ, drawn_pitch, estimated_pitch, padded_with_context, prepared
from .windows import (
    CONTEXT_FRAMES,
    FADE_FRAMES,
    FRAME_SAMPLES,
    Window,
    alike,
    frame_noise,
    join_pieces,
    phase_at,
    plan_windows,
)

# oneDNN keeps 1024 compiled kernels: 130 recordings of different lengths took 110 MB more than the first twenty.
os.environ.setdefault("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "64")
_DECODER_FRAMES = 16  # RVC's decoder hears 11 frames on each side
_AT_ONCE_ON_GPU = 4  # windows; one after the other is no slower on a CPU


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
    f0_hz : ndarray or None
        The pitch that was synthesised, with a second of context before and after.
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
    f0_hz: np.ndarray | None = field(default=None, repr=False)

    def as_json(self) -> dict[str, Any]:
        """For ``--json``: everything except the samples."""
        return {key: value for key, value in asdict(self).items() if key not in ("audio", "f0_hz")}


@dataclass(frozen=True)
class Part:
    """Where a part stands in its recording, so that noise and sine go on.

    Attributes
    ----------
    frame : int
        Its first frame.
    anchor : int
        A frame of the part with its context, and the sine's cycles before it; None: this is the first part.
    """

    frame: int = 0
    anchor: int = 0
    cycles: float | None = None


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
        self._at_once = _AT_ONCE_ON_GPU if self.device.type == "cuda" else 1
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
        at: Part | None = None,
        progress: Progress = Silent(),
        stop: Stop | None = None,
    ) -> ConvertResult:
        """Convert one recording. The result has exactly the length of the source.

        `key_semitones`: it is sung over an accompaniment that was moved by so many semitones, so that ``auto``
        transposes by whole octaves besides. `at`: it is a part of a longer recording.
        """
        if settings.blend_with:
            other, alone = self._blended(settings)
            return other.convert(source, alone, key_semitones=key_semitones, at=at, progress=progress, stop=stop)
        started = time.monotonic()
        about_speaker = self._speaker_warnings(settings.speaker)
        samples = prepared(source)
        gate = gate_at(samples, settings.gate_db, is_whole=at is None)
        padded = padded_with_context(samples)
        pitch, transpose, key, warnings = self._pitch(padded, settings, key_semitones)
        padded = shift_formants(padded, pitch.transposed(-transpose), settings.formant_semitones)
        windows, pieces = plan_windows(len(samples)), list[np.ndarray]()
        rate, hop = self.voice.spec.sample_rate, self.voice.spec.hop_samples
        progress.start("converting", len(windows))
        for is_silent, group in alike(windows, gate, self._at_once):
            if stop is not None and stop.requested:
                raise RVCError("conversion was stopped", hint="nothing was written")
            if is_silent:
                pieces += [np.zeros((window.gives[1] - window.gives[0]) * hop, np.float32) for window in group]
            else:
                pieces += self._fitting(padded, pitch, group, settings, at or Part())
            for _ in group:
                progress.advance()
        joined = join_pieces(pieces, FADE_FRAMES * hop)
        length = round(len(samples) * rate / SOURCE_RATE_HZ)
        joined = np.pad(joined, (0, max(0, length - len(joined))))[:length]
        if not np.isfinite(joined).all():
            raise AudioError(
                "the voice produced NaN or infinite samples", hint="the voice is damaged: use another checkpoint"
            )
        mixed = mix_loudness(Audio(joined, rate), Audio(samples, SOURCE_RATE_HZ), settings.rms_mix_rate)
        shaped = finished(mixed, settings.output_rate_hz, gate)
        audio, unreached = levelled(shaped, settings.loudness_lufs) if at is None else (shaped, [])
        method = "curve" if settings.f0_curve else pitch_method(settings.f0_method)
        return ConvertResult(
            audio,
            transpose,
            round(audio.seconds, 3),
            round((time.monotonic() - started) / source.seconds, 4),
            check_sanity(audio, source) if at is None else {},
            [*filter(None, [beyond_full_scale(source)]), *about_speaker, *warnings, *unreached],
            f0_method=method if self.voice.spec.uses_f0 else "",
            key=key,
            f0_hz=pitch.f0_hz,
        )

    def planned(self, source: Audio, settings: ConvertSettings, key_semitones: float | None = None) -> ConvertResult:
        """What a conversion would choose: transposition, pitch method, key, warnings; without sound."""
        if settings.blend_with:
            other, alone = self._blended(settings)
            return other.planned(source, alone, key_semitones)
        about_speaker = self._speaker_warnings(settings.speaker)
        _, transpose, key, warnings = self._pitch(padded_with_context(prepared(source)), settings, key_semitones)
        method = pitch_method(settings.f0_method) if self.voice.spec.uses_f0 else ""
        nothing = Audio(np.zeros(0, np.float32), self.voice.spec.sample_rate)
        return ConvertResult(nothing, transpose, 0.0, 0.0, {}, [*about_speaker, *warnings], f0_method=method, key=key)

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

    def _blended(self, settings: ConvertSettings) -> "tuple[Converter, ConvertSettings]":
        """The converter of this voice and a second one, kept while these stay the same, and what else was set."""
        from ..voices.merge import mixed

        other = voice_path(settings.blend_with)
        what = other, other.stat().st_mtime_ns, settings.blend_share
        if self._blend[1] is None or self._blend[0] != what:
            voice = mixed(self.voice, load_voice(other), 1 - settings.blend_share, self.voice.info.name)
            self._blend = what, Converter(voice, self.index, self.runtime)
        assert self._blend[1] is not None
        return self._blend[1], settings.model_copy(update={"blend_with": ""})

    def _pitch(
        self, padded: np.ndarray, settings: ConvertSettings, key_semitones: float | None = None
    ) -> tuple[PitchTrack, float, str, list[str]]:
        """Transposed pitch of the padded source, the semitones added, the key of autotune, and warnings."""
        if not self.voice.spec.uses_f0:
            if unused := next((name for name in ("f0_curve", "autotune") if getattr(settings, name)), ""):
                raise SettingsError(
                    f"this voice does not use pitch, so `{unused}` has no effect", hint=f"leave out `{unused}`"
                )
            empty = np.zeros(len(padded) // FRAME_SAMPLES, np.float32)
            idle = [name for name in ("transpose", "f0_method", "protect") if is_changed(settings, name)]
            warnings = [f"this voice does not use pitch, so `{name}` has no effect" for name in idle]
            return PitchTrack(empty, empty > 0), 0.0, "", warnings
        if settings.f0_curve:
            track, warnings = drawn_pitch(Path(settings.f0_curve).expanduser(), len(padded) // FRAME_SAMPLES)
        else:
            track, high = estimated_pitch(padded, settings.f0_method, str(self.device), self.voice.spec.voicing)
            seconds = high[CONTEXT_FRAMES : -CONTEXT_FRAMES - 4].sum() / 100
            line = f"{seconds:.1f} s are above {F0_MAX_HZ:.0f} Hz, and are sung an octave lower"
            warnings = [line] if seconds >= 0.1 else []
        key = ""
        if not track.voiced.any():
            warnings.append("no voiced sound was found: the result sounds like a whisper")
        elif settings.autotune:
            key = key_of(track.f0_hz) if settings.key == "auto" else settings.key
            track = autotuned(track, settings.autotune, key)
        semitones, unknown = self._transposition(track, padded, settings, key_semitones)
        return track.transposed(semitones), semitones, key, warnings + unknown

    def _transposition(
        self, track: PitchTrack, padded: np.ndarray, settings: ConvertSettings, key_semitones: float | None
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
        if key_semitones is None:
            return auto_transpose(track, median_hz), []
        return octave_transpose(track, padded, median_hz) + key_semitones, []

    def _fitting(
        self, padded: np.ndarray, pitch: PitchTrack, windows: list[Window], settings: ConvertSettings, at: Part
    ) -> list[np.ndarray]:
        """The samples of windows of one kind; fewer are synthesised at once from where memory runs out."""
        while True:
            try:
                return [
                    piece
                    for start in range(0, len(windows), self._at_once)
                    for piece in self._synthesised(padded, pitch, windows[start : start + self._at_once], settings, at)
                ]
            except (RuntimeError, MemoryError) as error:
                if self._at_once == 1 or not is_out_of_memory(error, self._at_once):
                    raise
            release()
            self._at_once //= 2

    @torch.inference_mode()
    def _synthesised(
        self, padded: np.ndarray, pitch: PitchTrack, windows: list[Window], settings: ConvertSettings, at: Part
    ) -> np.ndarray:
        """Samples (B, N) of `gives` of windows of one kind."""
        features, uses_f0 = [], self.voice.spec.uses_f0
        for start, stop in (window.reads for window in windows):
            content = self._encoder(padded[start * FRAME_SAMPLES : stop * FRAME_SAMPLES])
            voiced = pitch.voiced[start:stop]
            mixed = self.index.mix(content, settings.index_rate) if self.index and settings.index_rate else content
            content, mixed = repeat_to_100fps(content), repeat_to_100fps(mixed)
            frames = min(len(mixed), len(voiced))
            if uses_f0:
                mixed = protect_consonants(mixed[:frames], content[:frames], voiced[:frames], settings.protect)
            features.append(mixed[:frames])
        hop, starts = self.voice.spec.hop_samples, [window.reads[0] for window in windows]
        begin, end = (frame - starts[0] for frame in windows[0].gives)
        first, last = max(0, begin - self._margin), min(frames, end + self._margin)
        coarse = pitch.coarse() if uses_f0 else None
        audio = self._synthesizer.infer(
            self._tensor(np.stack(features)),
            None if coarse is None else self._tensor(np.stack([coarse[start : start + frames] for start in starts])),
            self._tensor(np.stack([pitch.f0_hz[start : start + frames] for start in starts])) if uses_f0 else None,
            torch.tensor([settings.speaker] * len(windows), device=self.device),
            settings.noise_scale,
            noise=SynthesisNoise.joined(
                [self._noise(pitch, (start, start + frames), (first, last), settings.seed, at) for start in starts]
            ),
        )
        return audio[:, 0, (begin - first) * hop : (end - first) * hop].float().cpu().numpy()

    @property
    def _margin(self) -> int:
        """Frames around a window's output that its decoder hears: less than the rest of the network."""
        return CONTEXT_FRAMES if self.voice.spec.source_filter_channels else _DECODER_FRAMES

    def _noise(
        self, pitch: PitchTrack, frames: tuple[int, int], decoded: tuple[int, int], seed: int, at: Part
    ) -> SynthesisNoise:
        """All noise of these frames, of which only some are decoded; equal in every window and part."""
        start, stop = frames
        channels, hop = self.voice.spec.inter_channels, self.voice.spec.hop_samples
        noise = frame_noise(start + at.frame, stop + at.frame, channels + (hop if self.voice.spec.uses_f0 else 0), seed)
        latent = self._tensor(noise[:, :channels].T)[None]
        if not self.voice.spec.uses_f0:
            return SynthesisNoise(latent, decoded=decoded)
        begun = 0.0 if at.cycles is None else at.cycles - phase_at(pitch.f0_hz, at.anchor)
        cycles = (begun + phase_at(pitch.f0_hz, start + decoded[0])) % 1.0
        phase = torch.tensor([cycles], device=self.device, dtype=torch.float64)
        source = self._tensor(noise[slice(*decoded), channels:].reshape(1, 1, -1))
        return SynthesisNoise(latent, source, phase, decoded=decoded)

    def _tensor(self, array: np.ndarray) -> torch.Tensor:
        return torch.from_numpy(np.ascontiguousarray(array)).to(self.device)


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
