"""The voice architectures: RVC's six, and `nano` for machines without a GPU.

Trained weights depend on their preset, so a preset never changes. v1 and v2 use the numbers of RVC WebUI's
``configs/{v1,v2}/{32k,40k,48k}.json``.
"""

from dataclasses import dataclass, replace
from typing import Literal

from .errors import SettingsError

Voicing = Literal["periodicity", "estimator"]


@dataclass(frozen=True)
class VoiceSpec:
    """Architecture of a voice: all network and spectrogram dimensions.

    All presets run at 100 frames per second: ``hop_samples == sample_rate // 100``.

    Attributes
    ----------
    version : str
        ``v1`` (256 content features), ``v2`` (768) or ``nano`` (256, from the embedded encoder).
    content_width : int
        Width D of the content features (T, D).
    speakers : int
        Rows of the speaker table.
    segment_frames : int
        Frames of the slice that the decoder gets in one training step.
    source_filter_channels : int
        Width of the source-filter decoder; 0 selects HiFi-GAN. Voices without f0 always use HiFi-GAN.
    excerpt_frames : int
        Most frames of a clip that the other networks get in one training step. RVC's limit is longer than an ordinary
        clip; `nano` uses fewer, to train faster on a CPU.
    mel_epsilons : str
        Epsilons inside the spectrograms, see `nn.spectrogram`. A training chooses them.
    learning_rate : float
        Default learning rate: RVC's, and a higher one for `nano`.
    """

    version: str
    sample_rate: int
    content_width: int
    fft_samples: int
    mels: int
    segment_frames: int
    upsample_rates: tuple[int, ...]
    upsample_kernels: tuple[int, ...]
    uses_f0: bool = True
    speakers: int = 109
    inter_channels: int = 192
    hidden_channels: int = 192
    filter_channels: int = 768
    heads: int = 2
    layers: int = 6
    kernel_size: int = 3
    posterior_layers: int = 16
    upsample_channels: int = 512
    source_filter_channels: int = 0
    resblock_kernels: tuple[int, ...] = (3, 7, 11)
    resblock_dilations: tuple[tuple[int, ...], ...] = ((1, 3, 5),) * 3
    speaker_channels: int = 256
    discriminator_periods: tuple[int, ...] = (2, 3, 5, 7, 11, 17, 23, 37)
    discriminator_divisor: int = 1
    excerpt_frames: int = 900
    mel_epsilons: Literal["2023", "2026"] = "2023"
    learning_rate: float = 1e-4

    @property
    def hop_samples(self) -> int:
        """Samples per frame."""
        return self.sample_rate // 100

    @property
    def spectrogram_bins(self) -> int:
        """Rows of the linear spectrogram that the posterior encoder reads."""
        return self.fft_samples // 2 + 1

    @property
    def voicing(self) -> Voicing:
        """What decides whether a frame is voiced: how well the sound repeats, or, as in RVC, the f0 estimator alone."""
        return "periodicity" if self.version == "nano" else "estimator"

    @property
    def rate_name(self) -> str:
        """Short form of the sample rate, such as ``40k``."""
        return f"{self.sample_rate // 1000}k"


_V1 = VoiceSpec(
    version="v1",
    sample_rate=40000,
    content_width=256,
    fft_samples=2048,
    mels=125,
    segment_frames=32,
    upsample_rates=(10, 10, 2, 2),
    upsample_kernels=(16, 16, 4, 4),
    discriminator_periods=(2, 3, 5, 7, 11, 17),
)
_V2 = replace(_V1, version="v2", content_width=768, discriminator_periods=(2, 3, 5, 7, 11, 17, 23, 37))
# Small enough for a training step of eight clips in under a second on two CPU cores.
_NANO = VoiceSpec(
    version="nano",
    sample_rate=16000,
    content_width=256,
    fft_samples=1024,
    mels=80,
    segment_frames=32,
    upsample_rates=(10, 4, 4),
    upsample_kernels=(20, 8, 8),
    speakers=256,
    source_filter_channels=256,
    inter_channels=64,
    hidden_channels=64,
    filter_channels=192,
    layers=2,
    posterior_layers=4,
    upsample_channels=128,
    resblock_kernels=(3, 7),
    resblock_dilations=((1, 3),) * 2,
    speaker_channels=64,
    discriminator_periods=(2, 3, 5, 7, 11),
    discriminator_divisor=8,
    excerpt_frames=200,
    learning_rate=4e-4,
)

PRESETS: dict[str, VoiceSpec] = {
    "v1-32k": replace(
        _V1,
        sample_rate=32000,
        fft_samples=1024,
        mels=80,
        segment_frames=40,
        upsample_rates=(10, 4, 2, 2, 2),
        upsample_kernels=(16, 16, 4, 4, 4),
    ),
    "v1-40k": _V1,
    "v1-48k": replace(
        _V1,
        sample_rate=48000,
        mels=128,
        segment_frames=24,
        upsample_rates=(10, 6, 2, 2, 2),
        upsample_kernels=(16, 16, 4, 4, 4),
    ),
    "v2-32k": replace(
        _V2,
        sample_rate=32000,
        fft_samples=1024,
        mels=80,
        segment_frames=40,
        upsample_rates=(10, 8, 2, 2),
        upsample_kernels=(20, 16, 4, 4),
    ),
    "v2-40k": _V2,
    "v2-48k": replace(
        _V2,
        sample_rate=48000,
        mels=128,
        segment_frames=36,
        upsample_rates=(12, 10, 2, 2),
        upsample_kernels=(24, 20, 4, 4),
    ),
    "nano": _NANO,
    "nano-24k": replace(_NANO, sample_rate=24000, upsample_rates=(10, 6, 4), upsample_kernels=(20, 12, 8)),
}


def preset(name: str, *, uses_f0: bool = True) -> VoiceSpec:
    """The architecture called `name`.

    Examples
    --------
    >>> preset("v2-40k").hop_samples
    400
    """
    if name not in PRESETS:
        raise SettingsError(f"unknown preset {name!r}", hint=f"choose one of {', '.join(PRESETS)}")
    return replace(PRESETS[name], uses_f0=uses_f0)
