"""Weights into a network: all of them or none."""

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
    """Put weights into a network, all of them or none; `assign` puts them in the place of its own tensors.

    Raises
    ------
    MismatchError
        Naming the first weight that does not fit.
    """
    try:
        network.load_state_dict(weights, strict=True, assign=assign)
    except RuntimeError as error:
        reason = str(error).splitlines()[1].strip()[:160]
        raise MismatchError(f"{name} does not fit the architecture: {reason}", hint=hint) from error
