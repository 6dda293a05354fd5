"""Building blocks shared by the networks: weight-normalised convolutions, channel norm, WaveNet and residual blocks.

Attribute names are the keys of RVC's checkpoints and must not change. Tensors are (B, C, T) unless said otherwise.
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.overrides import TorchFunctionMode

LEAKY_SLOPE = 0.1


def channels_last(x: Tensor) -> Tensor:
    """Change the memory layout of x (B, C, T) to frame by frame on a CPU, where it is faster."""
    return x if x.is_cuda or torch.jit.is_tracing() else x.transpose(1, 2).contiguous().transpose(1, 2)


def compute_dtype(x: Tensor) -> torch.dtype:
    """The type that a convolution of x is computed in: autocast's, or else that of x."""
    return torch.get_autocast_dtype(x.device.type) if torch.is_autocast_enabled(x.device.type) else x.dtype


class Convolution(nn.modules.conv._ConvNd):
    """Mixin for a convolution that can use a copy of its weights, see `copies.CopiedWeights`.

    Attributes
    ----------
    in_float32 : bool
        Whether it is computed in float32 even under autocast.
    """

    copies: tuple[Tensor, Tensor | None] | None = None
    in_float32 = False

    def kernel(self) -> Tensor:
        """The kernel that is trained."""
        return self.weight

    def weights(self) -> tuple[Tensor, Tensor | None]:
        """Kernel and bias to compute with."""
        return self.copies or (self.kernel(), self.bias)

    def forward(self, x: Tensor) -> Tensor:
        """Convolve x (B, C, T) or (B, C, T, period)."""
        if not self.in_float32:
            return self._conv_forward(x, *self.weights())  # type: ignore[operator]
        with torch.autocast(x.device.type, enabled=False):
            return self._conv_forward(x.float(), self.kernel(), self.bias)  # type: ignore[operator]


class Conv1d(Convolution, nn.Conv1d):
    """`nn.Conv1d` that keeps the layout of `channels_last`; PyTorch's own copies the input."""

    def _conv_forward(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        if x.is_cuda and self.groups > 1:
            return self._grouped(x, weight, bias)
        if x.stride(1) != 1 or self.groups > 1 or x.is_cuda or torch.jit.is_tracing():
            return super()._conv_forward(x, weight, bias)
        return functional.conv2d(
            x.unsqueeze(2), weight.unsqueeze(2), bias, (1, *self.stride), (0, int(self.padding[0])), (1, *self.dilation)
        ).squeeze(2)

    def activated(self, x: Tensor) -> Tensor:
        """Leaky ReLU of the convolution of x: in one pass over memory where `_in_one_pass`."""
        if not _in_one_pass(x):
            return functional.leaky_relu_(self(x), LEAKY_SLOPE)
        made = torch.ops.mkldnn._convolution_pointwise(
            x.unsqueeze(2), *self._as_planes(), "leaky_relu", [LEAKY_SLOPE], ""
        )
        return made.squeeze(2)

    def added(self, x: Tensor, other: Tensor) -> Tensor:
        """Another tensor plus the convolution of x: in one pass over memory where `_in_one_pass`."""
        if not _in_one_pass(x):
            return other + self(x)
        made = torch.ops.mkldnn._convolution_pointwise.binary(
            x.unsqueeze(2), other.unsqueeze(2), *self._as_planes(), "add", 1.0, None, [], None
        )
        return made.squeeze(2)

    def _as_planes(self) -> tuple[Any, ...]:
        weight, bias = self.weights()
        sizes = [0, int(self.padding[0])], [1, self.stride[0]], [1, self.dilation[0]]
        return weight.unsqueeze(2), bias, *sizes, self.groups

    def _grouped(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        """Convolve in groups, as one product of many small matrices: cuDNN would start a kernel for each group."""
        groups, kernel_size = self.groups, weight.shape[2]
        padded = functional.pad(x, (int(self.padding[0]), int(self.padding[0])))
        windows = padded.unflatten(1, (groups, -1)).unfold(3, kernel_size, self.stride[0])  # (B, g, C / g, N, k)
        clips, frames = windows.shape[0], windows.shape[3]
        windows = windows.permute(1, 0, 3, 2, 4).reshape(groups, clips * frames, -1)
        product = windows @ weight.reshape(groups, -1, windows.shape[2]).transpose(1, 2)  # (g, B * N, O / g)
        out = product.view(groups, clips, frames, -1).permute(1, 0, 3, 2).reshape(clips, -1, frames)
        return out if bias is None else out + bias[:, None]


def _in_one_pass(x: Tensor) -> bool:
    """Whether oneDNN can join a convolution of x and what follows it: conversion on a CPU, in float32."""
    is_plain = x.stride(1) == 1 and x.dtype == torch.float32 and not torch.is_autocast_enabled("cpu")
    return (
        torch.backends.mkldnn.is_available()
        and is_plain
        and not (x.is_cuda or torch.is_grad_enabled() or torch.jit.is_tracing())
    )


class WeightNorm(Convolution):
    """Mixin for a convolution whose kernel is a magnitude ``weight_g`` times a direction ``weight_v``.

    PyTorch's `parametrizations.weight_norm` has other key names than RVC's files, and its predecessor with these names
    is deprecated. Source: Salimans and Kingma 2016.
    """

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        direction = self.weight.detach()
        del self.weight
        self.weight_g = nn.Parameter(torch.norm_except_dim(direction, 2, 0))
        self.weight_v = nn.Parameter(direction)

    def kernel(self) -> Tensor:
        """The kernel of the convolution, computed at each call until `fuse` stores it."""
        if "weight" in self._parameters:
            return self.weight
        return torch._weight_norm(self.weight_v, self.weight_g, 0)  # three times faster than the formula in Python

    def fuse(self) -> None:
        """Store the kernel, for inference only."""
        if "weight" not in self._parameters:
            self.weight = nn.Parameter(self.kernel().detach(), requires_grad=False)
            del self.weight_g, self.weight_v


class NormedConv1d(WeightNorm, Conv1d):
    """`Conv1d` with weight normalisation."""


class NormedConvTranspose1d(WeightNorm, nn.ConvTranspose1d):  # type: ignore[misc]  # it takes no output size
    """`ConvTranspose1d` with weight normalisation (one magnitude per input channel, as in PyTorch)."""

    def _conv_forward(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        if x.stride(1) != 1 or x.is_cuda or torch.jit.is_tracing():
            return functional.conv_transpose1d(x, weight, bias, self.stride[0], int(self.padding[0]))
        return functional.conv_transpose2d(
            x.unsqueeze(2), weight.unsqueeze(2), bias, (1, *self.stride), (0, int(self.padding[0]))
        ).squeeze(2)


def fuse_weight_norm(network: nn.Module) -> None:
    """Store all weight-normalised kernels in `network`. Inference is faster, but training and saving no longer work."""
    for layer in network.modules():
        if isinstance(layer, WeightNorm):
            layer.fuse()


class Blueprint(TorchFunctionMode):
    """``with Blueprint():`` builds networks with names and shapes but without values, to save time and memory.

    Only empty tensors are put on the meta device: arithmetic there imports torch's compiler, which takes a second.
    """

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Call `function`, unless it fills a tensor."""
        named = kwargs or {}
        if getattr(function, "__module__", "") == "torch.nn.init":
            return named["tensor"]
        if function is torch.norm_except_dim:  # keeps only the first dimension of the kernel's shape
            function, args, named = torch.empty, (len(args[0]), *[1] * (args[0].dim() - 1)), {}
        return function(*args, **(named | {"device": "meta"} if function is torch.empty else named))


class ChannelNorm(nn.Module):
    """Layer normalisation over the channels of (B, C, T)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.gamma = nn.Parameter(torch.ones(channels))
        self.beta = nn.Parameter(torch.zeros(channels))

    def forward(self, x: Tensor) -> Tensor:
        """Normalise x (B, C, T)."""
        return functional.layer_norm(x.transpose(1, 2), self.gamma.shape, self.gamma, self.beta).transpose(1, 2)


class WaveNet(nn.Module):
    """Gated convolutions with residual and skip paths, conditioned on the speaker.

    Source: van den Oord et al. 2016; this non-causal form is WaveGlow's (Prenger et al. 2018).

    Parameters
    ----------
    channels : int
        Width C of input and output.
    layers : int
        Gated layers of kernel 5.
    speaker_channels : int
        Width of the speaker vector (B, speaker_channels, 1).
    """

    def __init__(self, channels: int, layers: int, speaker_channels: int) -> None:
        super().__init__()
        self.channels = channels
        self.in_layers = nn.ModuleList(NormedConv1d(channels, 2 * channels, 5, padding=2) for _ in range(layers))
        self.res_skip_layers = nn.ModuleList(
            NormedConv1d(channels, 2 * channels if layer < layers - 1 else channels, 1) for layer in range(layers)
        )
        self.cond_layer = NormedConv1d(speaker_channels, 2 * channels * layers, 1)

    def forward(self, x: Tensor, mask: Tensor, speaker: Tensor) -> Tensor:
        """Transform x (B, C, T), which is zero outside mask (B, 1, T)."""
        conditions = self.cond_layer(speaker).chunk(len(self.in_layers), dim=1)
        skipped = torch.zeros((), dtype=x.dtype, device=x.device)
        for in_layer, res_skip_layer, condition in zip(self.in_layers, self.res_skip_layers, conditions, strict=True):
            signal, gate = (in_layer(x) + condition).chunk(2, dim=1)
            mixed = res_skip_layer(torch.tanh(signal) * torch.sigmoid(gate))
            if mixed.shape[1] > self.channels:  # the last layer has no residual half
                residual, mixed = mixed.chunk(2, dim=1)
                x = torch.addcmul(x, residual, mask)
            skipped = skipped + mixed
        return skipped * mask


class ResBlock(nn.Module):
    """Pairs of a dilated and a plain convolution, each with a residual path (HiFi-GAN's ResBlock1)."""

    def __init__(self, channels: int, kernel_size: int, dilations: tuple[int, ...]) -> None:
        super().__init__()
        half = kernel_size // 2
        self.convs1 = nn.ModuleList(
            NormedConv1d(channels, channels, kernel_size, padding=half * dilation, dilation=dilation)
            for dilation in dilations
        )
        self.convs2 = nn.ModuleList(NormedConv1d(channels, channels, kernel_size, padding=half) for _ in dilations)

    def forward(self, x: Tensor, activated: Tensor) -> Tensor:
        """Transform x (B, C, T), of which the caller has computed the leaky ReLU for all blocks that take it."""
        pairs: Any = zip(self.convs1, self.convs2, strict=True)
        for layer, (dilated, plain) in enumerate(pairs):
            step = dilated.activated(functional.leaky_relu(x, LEAKY_SLOPE) if layer else activated)
            x = plain.added(step, x)
        return x


class FrameBlock(nn.Module):
    """ConvNeXt block: a depthwise convolution over time, then a mix of the channels within each frame.

    Parameters
    ----------
    inner : int
        Width between the two layers of the mix.
    dropped : float
        Share of these channels that training drops.
    """

    def __init__(self, width: int, inner: int, *, dilation: int = 1, dropped: float = 0.0) -> None:
        super().__init__()
        self.time = nn.Conv1d(width, width, 7, padding=3 * dilation, dilation=dilation, groups=width)
        self.norm = nn.LayerNorm(width)
        self.widen = nn.Linear(width, inner)
        self.narrow = nn.Linear(inner, width)
        self.drop = nn.Dropout(dropped)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, width, T) to the same shape."""
        mixed = self.norm(self.time(x).transpose(1, 2))
        return x + self.narrow(self.drop(functional.gelu(self.widen(mixed)))).transpose(1, 2)


def frame_mask(lengths: Tensor, frames: int) -> Tensor:
    """Lengths (B,) → mask (B, 1, frames) with ones inside each clip and zeros in the padding.

    Examples
    --------
    >>> frame_mask(torch.tensor([1, 3]), 3).tolist()
    [[[1.0, 0.0, 0.0]], [[1.0, 1.0, 1.0]]]
    """
    return (torch.arange(frames, device=lengths.device) < lengths[:, None]).unsqueeze(1).float()
