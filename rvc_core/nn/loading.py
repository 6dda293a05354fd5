"""Load weights into a network, all or none."""

from pathlib import Path
from typing import Self

import torch

from ..errors import MismatchError, WeightsError
from ..system.files import replace_atomically


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


class PackagedNetwork(torch.nn.Module):
    """A network whose weights are a file of the package."""

    @classmethod
    def from_file(cls, path: Path) -> Self:
        """Load weights as float32, in evaluation mode."""
        from safetensors import SafetensorError
        from safetensors.torch import load_file

        network = cls()
        try:
            network.load_state_dict({key: value.float() for key, value in load_file(path).items()})
        except (OSError, SafetensorError, RuntimeError) as error:
            raise WeightsError(
                f"{path.name} is not the file of the package: {str(error).splitlines()[0]}",
                hint="reinstall rvc_core, which carries the file",
            ) from error
        return network.eval()

    def save(self, path: Path) -> None:
        """Write the matrices as float16, atomically; variances of the norms would overflow, so vectors stay float32."""
        from safetensors.torch import save_file

        state = {key: value.detach() for key, value in self.state_dict().items() if not key.endswith("tracked")}
        with replace_atomically(path) as temporary:
            save_file(
                {key: (value.half() if value.ndim > 1 else value).contiguous() for key, value in state.items()},
                temporary,
            )
