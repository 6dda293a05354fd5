"""The Audio value (samples with their rate): read, encode, resample, filter, measure level.

You do not need the ffmpeg program: PyAV brings its libraries.
"""

import errno
import os
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from ..errors import AudioError
from ..system.files import replace_atomically
from ..system.platforms import reaching
from .decode import decode
from .decode import header_seconds as header_seconds
from .lazy import BLOCK_SAMPLES, at_rate
from .tracks import Missing

AUDIO_SUFFIXES = frozenset(
    ".wav .wave .w64 .rf64 .bwf .flac .ogg .oga .ogv .opus .spx .mp3 .mp2 .mp1 .mpa .mpga .m4a .m4b .m4r .aac .adts "
    ".ac3 .eac3 .dts .thd .wma .aif .aiff .aifc .au .snd .caf .amr .awb .mka .wv .tta .ape .mpc .tak .voc .ra .weba "
    ".mp4 .m4v .f4v .mkv .webm .mov .qt .avi .3gp .3g2 .3ga .mpg .mpeg .vob .wmv .asf .flv .ts .mts .m2ts .m2t .mxf "
    ".rm .dv .bw64".split()
)
_SUBTYPES = {  # by the suffix: libsndfile's name of each depth; the first is the default
    ".wav": {"16": "PCM_16", "24": "PCM_24", "32": "FLOAT"},
    ".flac": {"24": "PCM_24", "16": "PCM_16"},
    ".ogg": {"": "VORBIS"},
}
# FFmpeg's container, encoder and its sample rates; other audio is resampled to the next higher rate.
_ENCODERS = {
    ".mp3": ("mp3", "libmp3lame", (8000, 11025, 12000, 16000, 22050, 24000, 32000, 44100, 48000)),
    ".m4a": ("ipod", "aac", (8000, 11025, 12000, 16000, 22050, 24000, 32000, 44100, 48000, 64000, 88200, 96000)),
}
WRITTEN = (*_SUBTYPES, *_ENCODERS)
_BIT_RATE = 160_000  # of one channel
_HIGHPASS_HZ, _HIGHPASS_ORDER = 48.0, 5


class NonFiniteError(AudioError):
    """A recording holds NaN or infinity.

    Attributes
    ----------
    seconds : float
        Length of the recording.
    """

    def __init__(self, message: str, hint: str, seconds: float) -> None:
        super().__init__(message, hint)
        self.seconds = seconds


@dataclass(frozen=True)
class Audio:
    """Mono waveform with its sample rate.

    Attributes
    ----------
    samples : ndarray (N,), float32
        Finite; full scale is 1.
    sample_rate : int
        Hz.

    Examples
    --------
    >>> audio = Audio(np.zeros(16000, np.float32), 16000)
    >>> audio.seconds, audio[0.25:0.75].seconds, audio.resample(8000).sample_rate
    (1.0, 0.5, 8000)
    """

    samples: np.ndarray
    sample_rate: int

    def __post_init__(self) -> None:
        if self.samples.ndim != 1 or self.samples.dtype != np.float32:
            raise AudioError(
                f"expected mono float32 samples, got {self.samples.dtype} {self.samples.shape}",
                hint="load the file with read_audio(), which converts",
            )
        broken = len(self.samples) - np.count_nonzero(np.isfinite(self.samples))
        if broken:
            raise NonFiniteError(
                f"{broken} of {len(self.samples)} samples are NaN or infinite",
                hint="export the recording again from its source",
                seconds=self.seconds,
            )

    @property
    def seconds(self) -> float:
        """Length."""
        return len(self.samples) / self.sample_rate

    def __getitem__(self, span: slice) -> "Audio":
        """Cut by seconds: ``audio[1.5:3.0]``."""
        start = round((span.start or 0) * self.sample_rate)
        stop = None if span.stop is None else round(span.stop * self.sample_rate)
        return replace(self, samples=self.samples[start:stop])

    def resample(self, rate_hz: int) -> "Audio":
        """Resample with soxr's high quality, librosa's default."""
        if rate_hz == self.sample_rate:
            return self
        import soxr

        return Audio(soxr.resample(self.samples, self.sample_rate, rate_hz, quality="HQ"), rate_hz)

    def save(self, path: Path | str, *, float32: bool = False, comment: str = "", depth: str = "auto") -> None:
        """Write the file atomically, in the format of its suffix.

        Parameters
        ----------
        path : Path or str
            ``.wav`` (16 bit), ``.flac`` (24 bit), ``.ogg``, ``.mp3`` or ``.m4a``. The last two do not support
            all sample rates; audio at, say, 40000 Hz is resampled to the next higher one.
        float32 : bool
            Write 32-bit float, as RVC's training clips are; ``.wav`` only, without metadata.
        comment : str
            Text for the file's metadata; ignored with `float32`.
        depth : str
            ``16`` or ``24`` bits, or ``32``-bit float; ``auto``: the format's own.

        Raises
        ------
        AudioError
            When the suffix is not supported, or not with this depth.
        ResourceError
            When the disk is full.
        """
        path = Path(path)
        if not float32:
            save_channels(path, self.samples[:, None], self.sample_rate, comment=comment, depth=depth)
            return
        subtype_of(path, "32")
        with reaching(path), replace_atomically(path) as temporary:
            # libsndfile adds a chunk with the time of day, and RVC's reader warns about it
            from scipy.io import wavfile

            wavfile.write(temporary, self.sample_rate, self.samples)


def save_channels(path: Path, samples: Any, rate_hz: int, *, comment: str = "", depth: str = "auto") -> None:
    """As `Audio.save`, for samples (N, 1 or 2), lazy or not."""
    subtype = subtype_of(path, depth)
    write = partial(_write_with_soundfile, subtype=subtype) if subtype else partial(encode, suffix=path.suffix.lower())
    with reaching(path), replace_atomically(path) as temporary:
        write(samples, rate_hz, str(temporary), comment=comment)


def encoder_rate_hz(suffix: str, rate_hz: int) -> int:
    """The rate at which a file of this suffix is written: MP3 and M4A support only some.

    Examples
    --------
    >>> encoder_rate_hz(".mp3", 40000), encoder_rate_hz(".wav", 40000)
    (44100, 40000)
    """
    rates_hz = _ENCODERS[suffix.lower()][2] if suffix.lower() in _ENCODERS else (rate_hz,)
    return next((rate for rate in rates_hz if rate >= rate_hz), rates_hz[-1])


def subtype_of(path: Path, depth: str = "auto") -> str:
    """libsndfile's name of the format that a path and a depth mean; empty for formats that FFmpeg writes.

    Raises
    ------
    AudioError
        When the suffix is not supported, or not with this depth.

    Examples
    --------
    >>> subtype_of(Path("a.flac"), "16"), subtype_of(Path("a.mp3"))
    ('PCM_16', '')
    """
    suffix = path.suffix.lower()
    depths = _SUBTYPES.get(suffix, {"": ""} if suffix in _ENCODERS else {})
    if not depths or depth not in ("auto", *depths):
        kind = {"auto": "", "32": " as 32-bit float"}.get(depth, f" with {depth} bits")
        raise AudioError(
            f"cannot write {path.name!r}{kind}",
            hint=f"use one of {', '.join(WRITTEN)}; 16 or 24 bits in .wav and .flac; 32-bit float in .wav only",
        )
    return next(iter(depths.values())) if depth == "auto" else depths[depth]


def read_audio(path: Path | str, sample_rate: int | None = None) -> Audio:
    """Decode any recording to mono float32.

    Channels are averaged. If they cancel out (stereo out of phase), the loudest channel is used instead. Levels are
    not changed.

    Parameters
    ----------
    path : Path or str
        Any format of libsndfile or FFmpeg, including video files.
    sample_rate : int, optional
        Resample to this rate. By default the file keeps its own.

    Raises
    ------
    AudioError
        When the file is missing, empty, not audio or has no samples; `NonFiniteError` if it holds NaN or infinity.
    StorageError
        When the storage of the file went away.

    Examples
    --------
    >>> import tempfile
    >>> path = Path(tempfile.mkdtemp()) / "silence.flac"
    >>> Audio(np.zeros(8000, np.float32), 8000).save(path)
    >>> read_audio(path, sample_rate=16000).seconds
    1.0
    """
    audio = read_recording(path).audio
    return audio.resample(sample_rate or audio.sample_rate)


@dataclass(frozen=True)
class Recording:
    """A file that was read: its sound, what is missing in it, what else to know, and `tracks.opposed_db`."""

    audio: Audio
    missing: list[Missing] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    opposed_db: float = 0.0

    @property
    def warnings(self) -> list[str]:
        """What is missing, and the notes."""
        return [*map(str, self.missing), *self.notes]


def read_recording(path: Path | str) -> Recording:
    """As `read_audio`, with what is missing in the file, and notes on other tracks, pauses and wrong headers."""
    path = Path(path)
    with reaching(path):
        refuse_no_file(path)
        decoded = decode(path)
    if not len(decoded.samples):
        raise AudioError(f"{path.name!r} has no sound (0 samples)", hint="export the recording again")
    try:
        audio = Audio(decoded.samples, decoded.sample_rate)
        return Recording(audio, decoded.missing, decoded.notes, decoded.opposed_db)
    except NonFiniteError as error:
        raise NonFiniteError(f"{path.name!r}: {error}", error.hint, error.seconds) from None


def refuse_no_file(path: Path) -> None:
    """Refuse what is no file, or is empty.

    Raises
    ------
    AudioError
        With what it is.
    """
    if not path.is_file():
        kind = "is a folder" if path.is_dir() else "is a pipe or a device" if path.exists() else "does not exist"
        what = dead_link(path) or kind
        raise AudioError(f"{str(path)!r} {what}", hint="give the path of one audio file")
    if not path.stat().st_size:
        raise AudioError(f"{path.name!r} is empty (0 bytes)", hint="copy or download the recording again")


def dead_link(path: Path) -> str:
    """What to say of a path that ends at a link to nothing; empty: it does not.

    Examples
    --------
    >>> import tempfile
    >>> link = Path(tempfile.mkdtemp(), "takes")
    >>> link.symlink_to("/nowhere")
    >>> dead_link(link / "a.wav")[-43:], dead_link(link.parent)
    ('is a link to /nowhere, and nothing is there', '')
    """
    for one in (path, *path.parents):
        if os.path.islink(one) and not os.path.exists(one):
            which = "" if one == path else f"lies in {one}, which "
            return f"{which}is a link to {one.readlink()}, and nothing is there"
    return ""


def highpass(audio: Audio, *, zero_phase: bool) -> Audio:
    """Remove rumble and DC below 48 Hz with RVC's fifth-order Butterworth filter.

    Parameters
    ----------
    zero_phase : bool
        True filters forwards and backwards, as conversion does to keep the timing of the pitch. False is causal, as
        for training clips.
    """
    from scipy import signal

    numerator, denominator = signal.butter(_HIGHPASS_ORDER, _HIGHPASS_HZ, "highpass", fs=audio.sample_rate)
    if zero_phase:
        padding = min(3 * len(denominator), len(audio.samples) - 1)
        filtered = signal.filtfilt(numerator, denominator, audio.samples, padlen=padding)
    else:
        filtered = signal.lfilter(numerator, denominator, audio.samples)
    return replace(audio, samples=filtered.astype(np.float32))


def frame_rms(samples: Any, hop_samples: int, hops_per_frame: int) -> np.ndarray:
    """Root mean square of centred frames, zeros beyond the ends.

    Parameters
    ----------
    samples : ndarray or Lazy (N,)
    hop_samples : int
        Frame k is centred at sample k * hop_samples.
    hops_per_frame : int
        Length of a frame in hops, even.

    Returns
    -------
    ndarray (1 + N // hop_samples,), float64
    """
    before, size = hops_per_frame // 2, hop_samples * max(1, BLOCK_SAMPLES // hop_samples)
    hops = np.zeros(len(samples) // hop_samples + hops_per_frame)
    for start in range(0, len(samples), size):
        block = np.asarray(samples[start : start + size])
        block = np.pad(block, (0, -len(block) % hop_samples)).reshape(-1, hop_samples)
        at = before + start // hop_samples
        hops[at : at + len(block)] = np.einsum("bh,bh->b", block, block, dtype=np.float64)[: len(hops) - at]
    sums = np.concatenate([[0.0], np.cumsum(hops)])
    energies = sums[hops_per_frame:] - sums[:-hops_per_frame]
    return np.sqrt(np.maximum(energies, 0) / (hops_per_frame * hop_samples))


def runs_of(mask: np.ndarray) -> np.ndarray:
    """Where runs of True begin and end in a mask (N,), as rows (K, 2).

    Examples
    --------
    >>> runs_of(np.array([False, True, True, False, True])).tolist()
    [[1, 3], [4, 5]]
    """
    return np.flatnonzero(np.diff(np.concatenate([[False], mask, [False]]))).reshape(-1, 2)


def rms_envelope(audio: Audio) -> np.ndarray:
    """Loudness over time (1 + N // hop,): 1 s frames every 0.5 s, framed as in `librosa.feature.rms`."""
    return frame_rms(audio.samples, audio.sample_rate // 2, 2)


def _write_with_soundfile(samples: Any, rate_hz: int, path: str, *, subtype: str, comment: str) -> None:
    import soundfile

    try:
        with soundfile.SoundFile(path, "w", rate_hz, samples.shape[1], subtype) as file:
            if comment:
                file.comment = comment
            for start in range(0, len(samples), 1 << 16):  # libsndfile's Vorbis overflows its stack on long blocks
                file.write(samples[start : start + (1 << 16)])
    except soundfile.LibsndfileError as error:  # it does not say which error of the system it met
        raise OSError(errno.EFBIG, "the disk, a quota or a size limit refused to take the file", path) from error


def encode(
    samples: Any, rate_hz: int, target: str | BinaryIO, *, suffix: str, comment: str = "", bit_rate: int = _BIT_RATE
) -> None:
    """Write samples (N, 1 or 2), lazy or not, as ``.mp3`` or ``.m4a`` with so many bits a second for each channel."""
    import av

    container_name, codec, _ = _ENCODERS[suffix]
    rate = encoder_rate_hz(suffix, rate_hz)
    if rate != rate_hz:
        samples = at_rate(samples, rate_hz, rate)
    layout = "mono" if samples.shape[1] == 1 else "stereo"
    with av.open(target, "w", format=container_name) as container:
        if comment:
            container.metadata["comment"] = comment
        stream: Any = container.add_stream(codec, rate=rate, layout=layout)
        stream.bit_rate = bit_rate * samples.shape[1]
        for start in range(0, len(samples), 1 << 16):
            block = samples[start : start + (1 << 16)].clip(-1, 1).reshape(1, -1)
            frame = av.AudioFrame.from_ndarray(block, format="flt", layout=layout)
            frame.sample_rate, frame.pts = rate, start
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
