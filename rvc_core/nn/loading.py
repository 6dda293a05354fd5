"""Load weights into a network, all or none."""

import torch

from ..errors import MismatchError


def load_strictly(
    network: torch.nn.Module,
    weights: dict[str, torch.Tensor],
    name: str,
    *,
    assign: bool = False,
    hint: str = "use a file of the same version, sample rate and f0 choice",
) -> None:
    """Load weights into a network, or raise a MismatchError; `assign` replaces the network's tensors without a copy."""
    try:
        network.load_state_dict(weights, strict=True, assign=assign)
    except RuntimeError as error:
        reason = str(error).splitlines()[1].strip()[:160]
        raise MismatchError(f"{name} does not fit the architecture: {reason}", hint=hint) from error
