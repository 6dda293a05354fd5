"""Copies of a network's weights in half precision, made once after each change of the weights, for all calls."""

import contextlib
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from .layers import Convolution, WeightNorm

_AT_ONCE = 16  # layers whose gradients are in float32 at the same time: those of all would be large


class _Lent(torch.autograd.Function):
    """Copies as functions of the weights they were made of: their gradients return in float32, through the norm."""

    @staticmethod
    def forward(ctx: Any, copies: list[Tensor], norms: list[Tensor | None], *weights: Tensor) -> tuple[Tensor, ...]:
        ctx.norms = norms
        ctx.save_for_backward(*weights)
        return tuple(copy.detach() for copy in copies)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        results = [torch.empty(each.shape, dtype=torch.float32, device=each.device) for each in gradients]
        torch._foreach_copy_(results, gradients)
        weights, of_magnitudes = ctx.saved_tensors, list[Tensor]()
        magnitudes = iter(weights[len(results) :])
        for place, norm in enumerate(ctx.norms):
            if norm is not None:
                results[place], of_magnitude = torch.ops.aten._weight_norm_interface_backward(
                    results[place], weights[place], next(magnitudes), norm, 0
                )
                of_magnitudes.append(of_magnitude)
        return None, None, *results, *of_magnitudes


class _Part:
    """Some layers: their directions, kernels and biases, each with a copy, and the magnitudes of the directions."""

    def __init__(self, layers: list[Convolution], dtype: torch.dtype) -> None:
        self.layers = layers
        normed = [layer for layer in layers if isinstance(layer, WeightNorm)]
        biases = [layer.bias for layer in layers if layer.bias is not None]
        self.magnitudes: list[Tensor] = [layer.weight_g for layer in normed]
        self.weights = [layer.weight_v if isinstance(layer, WeightNorm) else layer.weight for layer in layers] + biases
        self.norms = [torch.empty_like(layer.weight_g) if isinstance(layer, WeightNorm) else None for layer in layers]
        self.norms += [None] * len(biases)
        self.copies = [
            torch.empty_like(
                weight, dtype=dtype, memory_format=torch.channels_last if weight.dim() == 4 else torch.preserve_format
            )
            for weight in self.weights
        ]

    def copy(self) -> None:
        """Make the copies of what the weights are now."""
        parts = [*zip(self.weights, self.copies, self.norms, strict=True)]
        if plain := [(copy, weight) for weight, copy, norm in parts if norm is None]:
            torch._foreach_copy_([copy for copy, _ in plain], [weight for _, weight in plain])
        if normed := [(weight, copy, norm) for weight, copy, norm in parts if norm is not None]:
            for weight, _, norm in normed:
                torch.linalg.vector_norm(weight, dim=tuple(range(1, weight.dim())), keepdim=True, out=norm)
            scales = torch._foreach_div(self.magnitudes, [norm for *_, norm in normed])
            for (weight, copy, _), scale in zip(normed, scales, strict=True):
                torch.mul(weight, scale, out=copy)

    def lend(self) -> None:
        """Let the layers compute with the copies."""
        lent = _Lent.apply(self.copies, self.norms, *self.weights, *self.magnitudes)
        biases = iter(lent[len(self.layers) :])
        for layer, kernel in zip(self.layers, lent, strict=False):
            layer.copies = kernel, None if layer.bias is None else next(biases)


class CopiedWeights:
    """What the convolutions of a network compute with in a number format, gradients as if they used their weights.

    Autocast would cast each weight at each call, and its gradient back. Copies stay where they are in memory, so that
    a recorded step finds what the step before it made.

    Examples
    --------
    >>> from .layers import NormedConv1d
    >>> network = nn.Sequential(NormedConv1d(1, 2, 3, padding=1))
    >>> with torch.autocast("cpu", torch.bfloat16), CopiedWeights(network, torch.bfloat16).lent():
    ...     network(torch.ones(1, 1, 4)).shape
    torch.Size([1, 2, 4])
    """

    def __init__(self, network: nn.Module, dtype: torch.dtype) -> None:
        self._layers = [layer for layer in network.modules() if isinstance(layer, Convolution) and not layer.in_float32]
        self._parts = []
        if dtype is not torch.float32:
            self._parts = [
                _Part(self._layers[start : start + _AT_ONCE], dtype) for start in range(0, len(self._layers), _AT_ONCE)
            ]
        self._versions: list[int] = []

    def expire(self) -> None:
        """Copy again at the next occasion: fused optimizers move weights without a new version of the tensors."""
        self._versions = []

    def _refresh(self) -> None:
        """Make new copies if the weights changed."""
        versions = [weight._version for part in self._parts for weight in (*part.weights, *part.magnitudes)]
        if versions != self._versions:
            with torch.no_grad():
                for part in self._parts:
                    part.copy()
            self._versions = versions

    @contextlib.contextmanager
    def lent(self) -> Iterator[None]:
        """Inside, all convolutions compute with the copies; those in float32 with kernels that are computed once."""
        self._refresh()
        for part in self._parts:
            part.lend()
        if not self._parts:
            for layer in self._layers:
                layer.copies = layer.kernel(), layer.bias
        try:
            yield
        finally:
            for layer in self._layers:
                layer.copies = None
