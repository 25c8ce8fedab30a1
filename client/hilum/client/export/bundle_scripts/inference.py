"""Run the network over prepared arrays, and write what it gives of each beside its name."""

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn


def run_network(
    network: nn.Module,
    batches: Iterable[dict[str, Any]],
    inferer: Callable[[Tensor, nn.Module], Tensor],
    output_dir: str | Path,
    device: torch.device,
) -> list[str]:
    """Write one `.npy` for each image, under the image's own name.

    Args:
        network: On the device.
        batches: Each with `image` (B, C, *S) in [0, 1], and `name`, one for each.
        inferer: Calls the network on a batch.
        output_dir: Made if it is missing.
        device: Where the network is.

    Returns:
        The files.
    """
    place = Path(output_dir)
    place.mkdir(parents=True, exist_ok=True)
    written = []
    with torch.no_grad():
        for batch in batches:
            found = inferer(batch["image"].to(device), network).cpu().numpy()
            for name, values in zip(batch["name"], found, strict=True):
                path = place / f"{name}.npy"
                np.save(path, np.asarray(values))
                written.append(str(path))
    return written
