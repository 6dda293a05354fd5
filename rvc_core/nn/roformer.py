"""RoFormers that separate sound: BS-RoFormer and Mel-Band RoFormer (Lu et al., 2023; Wang et al., 2023).

The spectrogram is cut into bands, transformers run along time and along the bands in turn, and each band gives its part
of a complex mask. Attribute names are the keys of the published checkpoints. Norms, rotary embedding and Fourier
transforms stay in float32 under autocast: angles of 800 frames lose their meaning in float16.
"""

from dataclasses import dataclass
from typing import Literal, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .spectrogram import istft, stft

_SPLIT = (2,) * 24 + (4,) * 12 + (12,) * 8 + (24,) * 8 + (48,) * 8 + (128, 129)  # bins of each band, 1025 in all
_MEL_BANDS = 60


@dataclass(frozen=True)
class RoformerShape:
    """What differs between the checkpoints.

    Attributes
    ----------
    bands : str
        ``split``: bands side by side. ``mel``: 60 bands that overlap, with a norm after each transformer.
    """

    bands: Literal["split", "mel"]
    width: int
    depth: int
    heads: int = 8
    head_width: int = 64
    fft: int = 2048
    hop: int = 441
    rate_hz: int = 44_100

    @property
    def bins_of_bands(self) -> list[Tensor]:
        """The bins of each band."""
        if self.bands == "split":
            if sum(_SPLIT) != self.fft // 2 + 1:
                raise ValueError(f"split bands need an FFT of 2048, not {self.fft}")
            return list(torch.arange(sum(_SPLIT)).split(_SPLIT))
        from torchaudio.functional import melscale_fbanks  # librosa's, and imported in a twentieth of the time

        covers = (
            melscale_fbanks(self.fft // 2 + 1, 0.0, self.rate_hz / 2, _MEL_BANDS, self.rate_hz, None, "slaney").T > 0
        )
        covers[0, 0] = covers[-1, -1] = True
        return [row.nonzero()[:, 0] for row in covers]


class Norm(nn.Module):
    """Scale vectors to length sqrt(width), then by learned factors."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.gamma = nn.Parameter(torch.ones(width))

    def forward(self, hidden: Tensor) -> Tensor:
        """Map (…, width) to float32 of the same shape."""
        return F.normalize(hidden.float(), dim=-1) * self.gamma.float() * self.gamma.numel() ** 0.5


class Rotary(nn.Module):
    """Turn pairs of values by angles that grow with the position."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.freqs = nn.Parameter(10_000.0 ** -(torch.arange(0, width, 2) / width), requires_grad=False)

    def forward(self, vectors: Tensor) -> Tensor:
        """Map (B, heads, N, width) to the same shape."""
        angles = torch.arange(vectors.shape[-2], device=vectors.device).float()[:, None] * self.freqs.float()
        even, odd = vectors.float().unflatten(-1, (-1, 2)).unbind(-1)
        turned = [even * angles.cos() - odd * angles.sin(), odd * angles.cos() + even * angles.sin()]
        return torch.stack(turned, -1).flatten(-2).to(vectors.dtype)


class Attention(nn.Module):
    """Attention with rotary positions, and a gate for each head."""

    def __init__(self, width: int, heads: int, head_width: int, rotary: Rotary) -> None:
        super().__init__()
        self.heads, self.rotary_embed, self.norm = heads, rotary, Norm(width)
        self.to_qkv = nn.Linear(width, 3 * heads * head_width, bias=False)
        self.to_gates = nn.Linear(width, heads)
        self.to_out = nn.Sequential(nn.Linear(heads * head_width, width, bias=False))

    def forward(self, hidden: Tensor) -> Tensor:
        """Map (B, N, width) to the same shape."""
        hidden = self.norm(hidden)
        query, key, value = self.to_qkv(hidden).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        mixed = F.scaled_dot_product_attention(self.rotary_embed(query), self.rotary_embed(key), value)
        gates = self.to_gates(hidden).sigmoid().transpose(1, 2)[..., None]
        return self.to_out((mixed * gates).transpose(1, 2).flatten(-2))


class FeedForward(nn.Module):
    """Two layers within each position."""

    def __init__(self, width: int) -> None:
        super().__init__()
        # The places of dropout stay empty, so that the keys fit.
        layers = (Norm(width), nn.Linear(width, 4 * width), nn.GELU(), nn.Identity(), nn.Linear(4 * width, width))
        self.net = nn.Sequential(*layers)

    def forward(self, hidden: Tensor) -> Tensor:
        """Map (B, N, width) to the same shape."""
        return self.net(hidden)


class Transformer(nn.Module):
    """One layer of attention and feed-forward along one axis."""

    def __init__(self, shape: RoformerShape, rotary: Rotary) -> None:
        super().__init__()
        attention = Attention(shape.width, shape.heads, shape.head_width, rotary)
        self.layers = nn.ModuleList([nn.ModuleList([attention, FeedForward(shape.width)])])
        self.norm = Norm(shape.width) if shape.bands == "mel" else nn.Identity()

    def forward(self, hidden: Tensor) -> Tensor:
        """Map (B, N, width) to the same shape."""
        for block in cast(nn.ModuleList, self.layers[0]):  # one layer, as in all published checkpoints
            hidden = hidden + block(hidden)
        return self.norm(hidden)


class BandSplit(nn.Module):
    """Each band becomes one vector."""

    def __init__(self, width: int, sizes: list[int]) -> None:
        super().__init__()
        self.to_features = nn.ModuleList(nn.Sequential(Norm(size), nn.Linear(size, width)) for size in sizes)

    def forward(self, bands: list[Tensor]) -> Tensor:
        """Vectors (B, T, bands, width) of bands (B, T, size)."""
        return torch.stack([layer(band) for layer, band in zip(self.to_features, bands, strict=True)], 2)


class MaskEstimator(nn.Module):
    """Each band's vector becomes the complex mask of its bins."""

    def __init__(self, width: int, sizes: list[int], hidden_layers: int) -> None:
        super().__init__()

        def layers(size: int) -> nn.Sequential:
            widths = [width, *([4 * width] * hidden_layers)]
            inner = [
                layer
                for before, after in zip(widths, widths[1:], strict=False)
                for layer in (nn.Linear(before, after), nn.Tanh())
            ]
            return nn.Sequential(nn.Sequential(*inner, nn.Linear(widths[-1], 2 * size)), nn.GLU(-1))

        self.to_freqs = nn.ModuleList(layers(size) for size in sizes)

    def forward(self, hidden: Tensor) -> list[Tensor]:
        """Masks (B, T, size) of vectors (B, T, bands, width)."""
        return [layer(band) for layer, band in zip(self.to_freqs, hidden.unbind(2), strict=True)]


class Roformer(nn.Module):
    """The wanted sound of a stereo mix.

    Examples
    --------
    >>> network = Roformer(RoformerShape("mel", 16, 1, heads=2, head_width=8)).eval()
    >>> network(torch.zeros(1, 2, 8820)).shape
    torch.Size([1, 2, 8820])
    """

    bins: Tensor
    shares: Tensor

    def __init__(self, shape: RoformerShape) -> None:
        super().__init__()
        self.shape, bands = shape, shape.bins_of_bands
        self._counts = [len(band) for band in bands]
        sizes = [4 * count for count in self._counts]  # two channels, two parts of a complex number
        self.register_buffer("bins", torch.cat(bands), persistent=False)
        self.register_buffer("shares", 1.0 / torch.bincount(self.bins), persistent=False)
        time, across = Rotary(shape.head_width), Rotary(shape.head_width)
        self.layers = nn.ModuleList(
            nn.ModuleList([Transformer(shape, time), Transformer(shape, across)]) for _ in range(shape.depth)
        )
        self.final_norm = Norm(shape.width) if shape.bands == "split" else nn.Identity()
        self.band_split = BandSplit(shape.width, sizes)
        self.mask_estimators = nn.ModuleList([MaskEstimator(shape.width, sizes, 1 + (shape.bands == "mel"))])

    def forward(self, mix: Tensor) -> Tensor:
        """The wanted sound (B, 2, N), float32, of a mix (B, 2, N)."""
        shape, (batch, channels, length) = self.shape, mix.shape
        frames = stft(mix.float(), shape.fft, shape.hop, "reflect")
        parts = torch.view_as_real(frames)[:, :, self.bins].permute(0, 3, 2, 1, 4)  # B, T, bins of bands, channels, 2
        hidden = self.band_split([part.flatten(2) for part in parts.split(self._counts, 2)])
        for time, across in (cast(nn.ModuleList, pair) for pair in self.layers):
            hidden = time(hidden.transpose(1, 2).flatten(0, 1)).unflatten(0, (batch, -1)).transpose(1, 2)
            hidden = across(hidden.flatten(0, 1)).unflatten(0, (batch, -1))
        pieces = self.mask_estimators[0](self.final_norm(hidden))
        stacked = torch.cat([piece.float().unflatten(-1, (-1, channels, 2)) for piece in pieces], 2)
        stacked = torch.view_as_complex(stacked.permute(0, 3, 2, 1, 4).contiguous())  # B, channels, bins of bands, T
        mask = torch.zeros_like(frames).index_add_(2, self.bins, stacked) * self.shares[:, None]
        made = frames * mask
        if shape.bands == "mel":
            made[:, :, 0] = 0.0  # as it was trained: without an offset
        return istft(made, shape.fft, shape.hop, length)
