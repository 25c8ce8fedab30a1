"""Early stopping: the weights with the least validation loss are kept, and training ends when it no longer falls."""

import math

import torch
from torch import Tensor, nn


class Watch:
    """Look at the validation loss from time to time.

    Args:
        module: Whose training parameters are kept.
        patience: So many looks in a row without a lower loss end the training.
    """

    def __init__(self, module: nn.Module, patience: int) -> None:
        self._trained = [parameter for parameter in module.parameters() if parameter.requires_grad]
        self._patience = patience
        self._least, self._since = math.inf, 0
        self._best: list[Tensor] = []

    def should_stop(self, loss: float) -> bool:
        """Take notice of a loss; one that is not finite is not a lower one."""
        if loss < self._least:
            self._least, self._since = loss, 0
            self._best = [parameter.detach().clone() for parameter in self._trained]
        else:
            self._since += 1
        return self._since >= self._patience

    @torch.no_grad()
    def restore(self) -> None:
        """Give the module the weights of the least loss; those that it has, if there was none."""
        for parameter, best in zip(self._trained, self._best, strict=False):
            parameter.copy_(best)
