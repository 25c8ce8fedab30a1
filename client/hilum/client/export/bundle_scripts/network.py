"""The network of this bundle: graph and weights lie in models/model.pt2 (`torch.export`)."""

from pathlib import Path

import torch
from torch import Tensor, nn


class ExportedNetwork(nn.Module):
    """Runs an exported program as a module: it can be moved, and is always in evaluation mode.

    Args:
        program: The `.pt2` file.
        device: Where it runs.
    """

    def __init__(self, program: str | Path, device: str | torch.device = "cpu") -> None:
        super().__init__()
        exported = torch.export.load(program)
        device = torch.device(device)
        if device.type != "cpu":
            from torch.export.passes import move_to_device_pass

            exported = move_to_device_pass(exported, device)
        self.graph = exported.module()
        self.training = False

    def train(self, mode: bool = True) -> "ExportedNetwork":
        """Stay as it is: the graph is that of evaluation, whatever is asked for."""
        del mode
        return self

    def forward(self, images: Tensor) -> Tensor:
        """(B, C, *S) in [0, 1] -> what docs/README.md says."""
        found: Tensor = self.graph(images)
        return found
