"""What shapes a conversion: formants, autotune, protection, volume mix, noise gate, loudness. Pure arithmetic."""

from dataclasses import replace

import numpy as np

from ..audio.loudness import SILENT_LUFS
from ..audio.mixing import Stem, gate_of, gated
from ..audio.mixing import loudness_lufs as measured_lufs
from ..audio.waveform import Audio, frame_rms, highpass, rms_envelope
from ..errors import AudioError
from ..features.pitch import PitchTrack
from ..settings import NOTES
from .windows import FRAME_SAMPLES

PEAK = 0.99
_FRAME, _HOP = 1024, 256  # of the formant shift, in samples at 16 kHz
_ORDER_HZ = 5600.0
_ENVELOPE_ORDERS, _ENVELOPE_ROUNDS = (14, 60), 15  # coefficients of the cepstrum: half a period, in samples
_LARGEST_GAIN = np.log(10 ** (30 / 20))  # of one frequency
_SMOOTHED_FRAMES = 21  # a vibrato does not change the note
_SCALE = (0, 2, 4, 5, 7, 9, 11)  # of major; natural minor begins at its sixth note
# How well each note fits a key: the probe tones of Krumhansl and Kessler (1982), from the tonic up.
_PROFILES = {
    "": (6.35, 2.23, 3.48, 2.33, 4.38, 4.09, 2.52, 5.19, 2.39, 3.66, 2.29, 2.88),
    "m": (6.33, 2.68, 3.52, 5.38, 2.60, 3.53, 2.54, 4.75, 3.98, 2.69, 3.34, 3.17),
}


# -- before synthesis ----------------------------------------------------------------------------------------------
def shift_formants(samples_16k: np.ndarray, track: PitchTrack, semitones: float) -> np.ndarray:
    """Move the spectral envelope by `semitones`; harmonics stay where they are, so pitch and length do not change.

    Each frame is multiplied by its moved envelope over its own. The envelope is the smooth curve through the tops of
    the harmonics (the "true envelope" of Röbel and Rodet, 2005), as fine as the pitch allows.

    Parameters
    ----------
    samples_16k : ndarray (N,)
    track : PitchTrack
        Of these samples, 100 frames a second.

    Returns
    -------
    ndarray (N,), float32
    """
    if not semitones:
        return samples_16k
    bins = (np.arange(_FRAME // 2 + 1) / 2 ** (semitones / 12)).clip(max=_FRAME // 2)
    lower = np.minimum(bins.astype(int), _FRAME // 2 - 1)
    share = (bins - lower).astype(np.float32)
    window = np.sqrt(np.hanning(_FRAME + 1)[:-1]).astype(np.float32)
    padded = np.pad(samples_16k, (_FRAME, _FRAME + _HOP))
    frames = np.lib.stride_tricks.sliding_window_view(padded, _FRAME)[::_HOP]
    at = (np.arange(len(frames)) * _HOP - _FRAME // 2) // FRAME_SAMPLES
    f0_hz = track.f0_hz[at.clip(0, len(track.f0_hz) - 1)]
    orders = (
        np.where(f0_hz > 0, _ORDER_HZ / np.maximum(f0_hz, 1), _ENVELOPE_ORDERS[1]).clip(*_ENVELOPE_ORDERS).astype(int)
    )
    made = np.zeros((len(frames) + _FRAME // _HOP, _HOP), np.float32)
    for start in range(0, len(frames), 512):  # in blocks: a whole hour would need gigabytes
        spectra = np.fft.rfft(frames[start : start + 512] * window)
        envelopes = _envelopes(np.log(np.abs(spectra) + 1e-6), orders[start : start + 512])
        moved = envelopes[:, lower] * (1 - share) + envelopes[:, lower + 1] * share
        spectra *= np.exp((moved - envelopes).clip(-_LARGEST_GAIN, _LARGEST_GAIN))
        pieces = (np.fft.irfft(spectra) * window).reshape(len(spectra), -1, _HOP) / 2  # the windows add up to 2
        for part in range(_FRAME // _HOP):
            made[start + part : start + part + len(pieces)] += pieces[:, part]
    return made.ravel()[_FRAME : _FRAME + len(samples_16k)]


def _envelopes(spectra_log: np.ndarray, orders: np.ndarray) -> np.ndarray:
    """Envelopes (T, F) over log spectra, from `orders` (T,) coefficients each."""
    coefficient = np.minimum(np.arange(_FRAME), _FRAME - np.arange(_FRAME))
    kept = coefficient <= orders[:, None]
    filled = spectra_log
    for _ in range(_ENVELOPE_ROUNDS):
        smooth = np.fft.rfft(np.fft.irfft(filled) * kept).real
        filled = np.maximum(spectra_log, smooth)
    return smooth


def key_of(f0_hz: np.ndarray) -> str:
    """The key whose profile fits the histogram of the notes best.

    Examples
    --------
    >>> scale_hz = 440 * 2 ** (np.array([0, 2, 3, 5, 7, 8, 10, 12, 0, 0]) / 12)
    >>> key_of(scale_hz)
    'Am'
    """
    notes = np.rint(_notes(f0_hz[f0_hz > 0])).astype(int) % 12
    counts = np.bincount(notes, minlength=12)
    fits = {
        note + mode: float(np.dot(counts, np.roll(_standard(profile), place)))
        for mode, profile in _PROFILES.items()
        for place, note in enumerate(NOTES)
    }
    return max(fits, key=fits.__getitem__)


def _standard(profile: tuple[float, ...]) -> np.ndarray:
    values = np.array(profile)
    return (values - values.mean()) / values.std()


def _notes(f0_hz: np.ndarray) -> np.ndarray:
    """Pitch as MIDI note numbers; A4 is 69 at 440 Hz."""
    return 69 + 12 * np.log2(np.maximum(f0_hz, 1).astype(np.float64) / 440)


def notes_of(key: str) -> np.ndarray:
    """Pitch classes of a key, C is 0.

    Examples
    --------
    >>> notes_of("G").tolist(), notes_of("Em").tolist() == notes_of("G").tolist(), len(notes_of("chromatic"))
    ([0, 2, 4, 6, 7, 9, 11], True, 12)
    """
    if key == "chromatic":
        return np.arange(12)
    tonic = NOTES.index(key.removesuffix("m")) + 3 * key.endswith("m")
    return np.sort((np.array(_SCALE) + tonic) % 12)


def autotuned(track: PitchTrack, strength: float, key: str) -> PitchTrack:
    """Move each voiced frame by `strength` of its distance to the nearest note of the key.

    The nearest note is that of the median over 210 ms, so a vibrato does not jump between two notes.

    Examples
    --------
    >>> track = PitchTrack(np.full(20, 452.0, np.float32), np.ones(20, bool))
    >>> [round(float(autotuned(track, strength, "C").f0_hz[9]), 1) for strength in (0.5, 1)]
    [446.0, 440.0]
    """
    from scipy.ndimage import median_filter

    f0_hz, allowed = track.f0_hz.copy(), notes_of(key)
    edges = np.flatnonzero(np.diff(np.concatenate([[False], track.voiced, [False]])))
    for first, last in edges.reshape(-1, 2):
        notes = _notes(f0_hz[first:last])
        smooth = median_filter(notes, _SMOOTHED_FRAMES, mode="nearest")
        steps = (allowed[None] - smooth[:, None] + 6) % 12 - 6  # to the nearest of each pitch class
        target = smooth + steps[np.arange(len(smooth)), np.abs(steps).argmin(1)]
        f0_hz[first:last] *= 2 ** (strength * (target - notes) / 12)
    return PitchTrack(f0_hz, track.voiced)


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


# -- after synthesis -----------------------------------------------------------------------------------------------
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


def gate_at(samples_16k: np.ndarray, level_db: float | None, *, is_whole: bool = True) -> np.ndarray | None:
    """Gains (T,) from 0 to 1, one every 10 ms: 0 in pauses, where the source stays below `level_db`.

    Raises
    ------
    AudioError
        When the source is below the level, and it is a whole recording, not a part.
    """
    if level_db is None:
        return None
    levels, threshold = frame_rms(samples_16k, FRAME_SAMPLES, 4), 10 ** (level_db / 20)
    if is_whole and levels.max() <= threshold:
        raise AudioError(f"the whole recording is below `gate_db`, {level_db:g} dB", hint="set `gate_db` lower")
    return gate_of(levels, threshold)


def finished(audio: Audio, output_rate_hz: int, gate: np.ndarray | None) -> Audio:
    """High-pass, resample to the requested rate, and silence the pauses."""
    made = highpass(audio, zero_phase=True).resample(output_rate_hz or audio.sample_rate)
    return made if gate is None else replace(made, samples=gated(made.samples, gate, made.sample_rate))


def levelled(audio: Audio, loudness_lufs: float | None) -> tuple[Audio, list[str]]:
    """Bring audio to a loudness (ITU-R BS.1770, gated), without peaks that would clip, and say what was not reached.

    Without a loudness, only peaks that would clip are reduced.
    """
    own = None if loudness_lufs is None else measured_lufs(Stem(audio.samples[:, None], audio.sample_rate))
    gain, warnings = gain_of(float(np.abs(audio.samples).max()), loudness_lufs, own)
    return (audio if gain == 1 else replace(audio, samples=audio.samples * np.float32(gain))), warnings


def gain_of(peak: float, wanted_lufs: float | None, own_lufs: float | None) -> tuple[float, list[str]]:
    """The gain that brings a sound of this peak and loudness to the wanted loudness, and what peaks do not allow.

    Examples
    --------
    >>> gain_of(0.1, -17.0, -23.0)[0].__round__(2), gain_of(1.98, None, None), gain_of(0.5, -16.0, -23.0)[1]
    (2.0, (0.5, []), ['peaks allow -17.1 LUFS, not -16'])
    """
    has_both = wanted_lufs is not None and own_lufs is not None and own_lufs > SILENT_LUFS
    gain = 10 ** ((wanted_lufs - own_lufs) / 20) if has_both else 1.0  # type: ignore[operator]
    if peak * gain <= PEAK:
        return gain, []
    reached = f"peaks allow {wanted_lufs - 20 * np.log10(peak * gain / PEAK):.1f} LUFS" if has_both else ""
    return PEAK / peak, [f"{reached}, not {wanted_lufs:g}"] if has_both and gain > 1 else []
