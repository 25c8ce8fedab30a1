"""Which of a method's tensors travel, which stay, and which never change.

Every tensor of a method belongs to one part. Federated parts may hold parameters alone: a persistent buffer (batch
statistics, a counter) has no meaning as an average, so it is refused here.
"""

import numpy as np
import torch
from torch import Tensor

from hilum.common.methods.base import SSLMethod, matches
from hilum.common.weights import FlatWeights, Manifest, NamedWeights, sha256_of


def federated_manifest(method: SSLMethod) -> Manifest:
    """Names and shapes of what travels.

    Raises:
        ValueError: If a tensor belongs to no part or to several, or a federated part holds a buffer.
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


def receive(method: SSLMethod, flat: FlatWeights, kept: dict[str, Tensor] | None) -> None:
    """Begin a round: the method takes up what it received and what `get_kept` gave after the site's last round.

    Raises:
        ValueError: If what was kept is of another method.
    """
    if kept is not None and set(kept) != set(get_kept(method)):
        raise ValueError("these local parts belong to another method")
    named = federated_manifest(method).unflatten(flat)
    method.receive({name: torch.from_numpy(array.copy()) for name, array in named.items()}, kept or {})


def get_kept(method: SSLMethod) -> dict[str, Tensor]:
    """Return copies of what a site keeps between rounds: the local parts, and what the method remembers."""
    parts = method.parts
    return {
        name: tensor.detach().clone().cpu()
        for name, tensor in method.state_dict().items()
        if parts.kind_of(name) == "local" or matches(name, parts.remembered)
    }


def freeze(method: SSLMethod) -> None:
    """Let no step move the frozen parts."""
    for name, parameter in method.named_parameters():
        if method.parts.kind_of(name) == "frozen":
            parameter.requires_grad = False


def get_frozen(method: SSLMethod) -> NamedWeights:
    """Return what nobody trains and everybody has alike, by name."""
    return {
        name: tensor.float().cpu().numpy()
        for name, tensor in method.state_dict().items()
        if method.parts.kind_of(name) == "frozen"
    }


def start_sha256(manifest: Manifest, flat: FlatWeights, frozen: NamedWeights) -> str:
    """Hash what a round starts from: the weights that travel, and the frozen parts, which all must have alike."""
    return sha256_of({**manifest.unflatten(flat), **frozen})


def encoder_part(
    manifest: Manifest, flat: FlatWeights
) -> dict[str, np.ndarray[tuple[int, ...], np.dtype[np.float32]]]:
    """Return the encoder's tensors among those that travel, by their names inside the encoder."""
    prefix = "encoder."
    named = manifest.unflatten(flat)
    return {name.removeprefix(prefix): array for name, array in named.items() if name.startswith(prefix)}


def _federated(method: SSLMethod) -> dict[str, Tensor]:
    parameters = {name for name, _ in method.named_parameters()}
    travels = {}
    for name, tensor in method.state_dict().items():
        kind = method.parts.kind_of(name)
        if kind is None:
            raise ValueError(f"{method.spec.name}: {name} belongs to no declared part")
        if kind == "federated":
            if name not in parameters:
                raise ValueError(
                    f"{method.spec.name}: the buffer {name} can't be averaged; keep it out of the state"
                )
            travels[name] = tensor
    return travels
