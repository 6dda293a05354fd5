"""Self-attention with relative positions, and the transformer of the prior encoder.

Source: Shaw et al. 2018 for the relative embeddings; Vaswani et al. 2017, post-norm.
"""

import math

import torch
from torch import Tensor, nn

from .layers import ChannelNorm, Conv1d, compute_dtype

WINDOW_FRAMES = 10  # attention also reaches farther frames, but without relative positions
UNSEEN = -1e4  # score of padding frames: their weight becomes exactly 0, and the value fits into float16


class Band:
    """Indices of the frames within `WINDOW_FRAMES` of each frame, in a (T, T) matrix of scores or weights.

    Only these 21 diagonals are read and written. The usual implementation pads and reshapes the large matrix, which
    copies it several times.
    """

    def __init__(self, frames: int, device: torch.device) -> None:
        offsets = torch.arange(-WINDOW_FRAMES, WINDOW_FRAMES + 1, device=device)
        columns = torch.arange(frames, device=device)[:, None] + offsets
        self.inside = (columns >= 0) & (columns < frames)  # (T, 21)
        self.columns = columns.clamp(0, frames - 1)

    def add_to(self, square: Tensor, band: Tensor) -> Tensor:
        """Add band (..., T, 21) to the diagonals of square (..., T, T)."""
        band = (band * self.inside).to(square.dtype)
        return square.scatter_add(-1, self.columns.expand(band.shape), band)

    def of(self, square: Tensor) -> Tensor:
        """The diagonals (..., T, 21) of square (..., T, T); 0 beyond the edges."""
        return square.gather(-1, self.columns.expand(*square.shape[:-1], -1)) * self.inside


class RelativeAttention(nn.Module):
    """Multi-head self-attention with relative positions up to `WINDOW_FRAMES`."""

    def __init__(self, channels: int, heads: int) -> None:
        super().__init__()
        self.heads, width = heads, channels // heads
        offsets = (1, 2 * WINDOW_FRAMES + 1, width)  # shared by the heads
        self.emb_rel_k = nn.Parameter(torch.randn(offsets) / math.sqrt(width))
        self.emb_rel_v = nn.Parameter(torch.randn(offsets) / math.sqrt(width))
        self.conv_q = Conv1d(channels, channels, 1)
        self.conv_k = Conv1d(channels, channels, 1)
        self.conv_v = Conv1d(channels, channels, 1)
        self.conv_o = Conv1d(channels, channels, 1)
        for conv in (self.conv_q, self.conv_k, self.conv_v):
            nn.init.xavier_uniform_(conv.weight)

    def forward(self, x: Tensor, bias: Tensor, band: Band) -> Tensor:
        """Attend within x (B, C, T); bias (B, 1, T) is `UNSEEN` on padding frames and 0 elsewhere."""
        x = x.to(compute_dtype(x))  # once for all three convolutions
        query, key, value = (
            conv(x).unflatten(1, (self.heads, -1)).flatten(0, 1)  # (B * heads, C / heads, T)
            for conv in (self.conv_q, self.conv_k, self.conv_v)
        )
        query = query.transpose(1, 2) / math.sqrt(query.shape[1])
        scores = torch.baddbmm(bias.repeat_interleave(self.heads, dim=0).to(query.dtype), query, key)
        weights = band.add_to(scores, query @ self.emb_rel_k[0].T).softmax(dim=-1)  # (B * heads, T, T)
        mixed = weights @ value.transpose(1, 2) + band.of(weights) @ self.emb_rel_v[0]
        return self.conv_o(mixed.transpose(1, 2).reshape(x.shape))


class FeedForward(nn.Module):
    """Two convolutions over time with a ReLU between them."""

    def __init__(self, channels: int, filter_channels: int, kernel_size: int) -> None:
        super().__init__()
        self.conv_1 = Conv1d(channels, filter_channels, kernel_size, padding=kernel_size // 2)
        self.conv_2 = Conv1d(filter_channels, channels, kernel_size, padding=kernel_size // 2)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """Transform x (B, C, T) under mask (B, 1, T)."""
        return self.conv_2(self.conv_1(x * mask).relu_() * mask) * mask


class TransformerEncoder(nn.Module):
    """Post-norm transformer layers over (B, C, T)."""

    def __init__(self, channels: int, filter_channels: int, heads: int, layers: int, kernel_size: int) -> None:
        super().__init__()
        self.attn_layers = nn.ModuleList(RelativeAttention(channels, heads) for _ in range(layers))
        self.norm_layers_1 = nn.ModuleList(ChannelNorm(channels) for _ in range(layers))
        self.ffn_layers = nn.ModuleList(FeedForward(channels, filter_channels, kernel_size) for _ in range(layers))
        self.norm_layers_2 = nn.ModuleList(ChannelNorm(channels) for _ in range(layers))

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """Transform x (B, C, T) under mask (B, 1, T)."""
        bias, band = UNSEEN * (1 - mask), Band(x.shape[2], x.device)
        x = x * mask
        for attend, norm_1, feed, norm_2 in zip(
            self.attn_layers, self.norm_layers_1, self.ffn_layers, self.norm_layers_2, strict=True
        ):
            x = norm_1(x + attend(x, bias, band))
            x = norm_2(x + feed(x, mask))
        return x * mask
