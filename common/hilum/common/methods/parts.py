"""Which of a method's tensors travel and which stay.

Every tensor of a method belongs to a federated or to a local part. Federated parts may hold parameters alone: a
persistent buffer (batch statistics, a counter) has no meaning as an average, so it is refused here.
"""

import numpy as np
import torch
from torch import Tensor

from hilum.common.methods.base import SSLMethod
from hilum.common.weights import FlatWeights, Manifest


def federated_manifest(method: SSLMethod) -> Manifest:
    """Names and shapes of what travels.

    Raises:
        ValueError: If a tensor belongs to no declared part, or a federated part holds a buffer.
    """
    travels = _federated(method)
    return Manifest(tuple((name, tuple(travels[name].shape)) for name in sorted(travels)))


def get_federated(method: SSLMethod) -> FlatWeights:
    """Copy what travels into one flat vector, in the manifest's order."""
    travels = _federated(method)
    return np.concatenate([travels[name].detach().float().cpu().numpy().ravel() for name in sorted(travels)])


@torch.no_grad()
def set_federated(method: SSLMethod, flat: FlatWeights) -> None:
    """Copy a flat vector into the parts that travel."""
    named = federated_manifest(method).unflatten(flat)
    for name, tensor in _federated(method).items():
        tensor.copy_(torch.from_numpy(named[name].copy()))


def get_local(method: SSLMethod) -> dict[str, Tensor]:
    """Return copies of what stays at the site."""
    return {k: v.detach().clone().cpu() for k, v in method.state_dict().items() if _part(k) in method.local}


@torch.no_grad()
def set_local(method: SSLMethod, tensors: dict[str, Tensor]) -> None:
    """Put back what `get_local` gave.

    Raises:
        ValueError: If names differ from the method's own.
    """
    own = {k: v for k, v in method.state_dict().items() if _part(k) in method.local}
    if set(own) != set(tensors):
        raise ValueError("these local parts belong to another method")
    for name, tensor in own.items():
        tensor.copy_(tensors[name])


def encoder_part(
    manifest: Manifest, flat: FlatWeights
) -> dict[str, np.ndarray[tuple[int, ...], np.dtype[np.float32]]]:
    """Return the encoder's tensors among those that travel, by their names inside the encoder."""
    prefix = "encoder."
    named = manifest.unflatten(flat)
    return {name.removeprefix(prefix): array for name, array in named.items() if name.startswith(prefix)}


def _part(name: str) -> str:
    return name.split(".", 1)[0]


def _federated(method: SSLMethod) -> dict[str, Tensor]:
    spec = method.spec
    parameters = {name for name, _ in method.named_parameters()}
    travels = {}
    for name, tensor in method.state_dict().items():
        if _part(name) in method.federated:
            if name not in parameters:
                raise ValueError(
                    f"{spec.name}: the buffer {name} can't be averaged; keep it out of the state"
                )
            travels[name] = tensor
        elif _part(name) not in method.local:
            raise ValueError(f"{spec.name}: {name} belongs to no declared part")
    return travels
