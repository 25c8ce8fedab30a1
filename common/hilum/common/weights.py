"""Weights as plain arrays: one flat float32 vector and the manifest that says what lies where.

Shapes: P all parameters of one model, laid end to end in the manifest's order.

An update is the difference from what was received, on a fixed grid of 2**-40. On that grid a weighted sum is a sum of
integers: exact, the same for every order of arrival, and ready for secure aggregation. A float32 difference of at
least 2**-16 lies on the grid by itself; smaller ones move by at most 4.6e-13. As integers know one zero, so does an
update: a negative zero in it would turn up in weights that were -0.0 themselves, by one way of training and not another.
"""

import hashlib
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

FlatWeights = npt.NDArray[np.float32]
NamedWeights = Mapping[str, npt.NDArray[np.float32]]

GRID_BITS = 40
_PART = 16_384
_ZERO = np.float32(0)  # -0.0 + 0.0 is 0.0; every other number stays
MAX_ABS_CHANGE = 8.0  # no sane step moves one weight further; it bounds the integer sum


@dataclass(frozen=True)
class Manifest:
    """Names and shapes of a model's tensors, in the order in which they lie in the flat vector."""

    entries: tuple[tuple[str, tuple[int, ...]], ...]

    @classmethod
    def of(cls, weights: NamedWeights) -> "Manifest":
        """Return the manifest of named arrays, sorted by name."""
        return cls(tuple((name, tuple(weights[name].shape)) for name in sorted(weights)))

    @property
    def size(self) -> int:
        """P, the number of values."""
        return sum(math.prod(shape) for _, shape in self.entries)

    def flatten(self, weights: NamedWeights) -> FlatWeights:
        """Lay named arrays end to end.

        Raises:
            ValueError: If a name is missing or unknown, or a shape differs.
        """
        if Manifest.of(weights) != self:
            raise ValueError("these weights do not have the manifest's names and shapes")
        parts = [np.asarray(weights[name], np.float32).ravel() for name, _ in self.entries]
        return np.concatenate(parts) if parts else np.zeros(0, np.float32)

    def unflatten(self, flat: FlatWeights) -> dict[str, npt.NDArray[np.float32]]:
        """Cut a flat vector (P,) into named views of it.

        Raises:
            ValueError: If the vector does not have P values.
        """
        if flat.shape != (self.size,):
            raise ValueError(f"expected {self.size} values, found an array of shape {flat.shape}")
        named, start = {}, 0
        for name, shape in self.entries:
            stop = start + math.prod(shape)
            named[name] = flat[start:stop].reshape(shape)
            start = stop
        return named

    def to_json(self) -> list[dict[str, Any]]:
        """Names, shapes and dtypes as plain values."""
        return [{"name": name, "shape": list(shape), "dtype": "float32"} for name, shape in self.entries]


def sha256_of(weights: NamedWeights) -> str:
    """SHA-256 over names, shapes, dtypes and little-endian bytes, sorted by name."""
    digest = hashlib.sha256()
    for name in sorted(weights):
        array = np.ascontiguousarray(weights[name], dtype="<f4")
        digest.update(f"{name}|{array.shape}|float32|".encode())
        digest.update(array.tobytes())
    return digest.hexdigest()


def flat_sha256(flat: FlatWeights) -> str:
    """Hash (P,) weights without their names, where both sides know the manifest."""
    return sha256_of({"flat": flat})


def difference(after: FlatWeights, before: FlatWeights) -> FlatWeights:
    """Return the update that leads from `before` to `after`, on the grid.

    Returns:
        float32 (P,); values beyond `MAX_ABS_CHANGE` are clipped to it.
    """
    changed = np.empty(after.shape, np.float32)
    for part in _parts(after):
        change = after[part].astype(np.float64) - before[part]
        np.clip(change, -MAX_ABS_CHANGE, MAX_ABS_CHANGE, out=change)
        # To float32 first, then to the grid: what is rounded to the grid is again a float32.
        change = change.astype(np.float32).astype(np.float64)
        on_grid = np.ldexp(np.rint(np.ldexp(change, GRID_BITS)), -GRID_BITS)
        changed[part] = on_grid.astype(np.float32) + _ZERO
    return changed


def apply_update(before: FlatWeights, update: npt.NDArray[np.floating[Any]]) -> FlatWeights:
    """Add an update in float64 and round once to float32."""
    moved = np.empty(before.shape, np.float32)
    for part in _parts(before):
        moved[part] = before[part].astype(np.float64) + update[part]
    return moved


def limit_norm(update: FlatWeights, max_norm: float) -> FlatWeights:
    """Scale an update down, if it must be, so that its Euclidean norm is at most `max_norm`."""
    wide = (update[part].astype(np.float64) for part in _parts(update))
    norm = math.sqrt(math.fsum(float(part @ part) for part in wide))
    if norm <= max_norm:
        return update
    limited = np.empty(update.shape, np.float32)
    for part in _parts(update):
        scaled = update[part].astype(np.float64) * (max_norm / norm)
        # Both roundings, to the grid and to float32, go towards zero, so the norm stays under the bound.
        on_grid = np.ldexp(np.trunc(np.ldexp(scaled, GRID_BITS)), -GRID_BITS)
        rounded = on_grid.astype(np.float32)
        inward = np.where(np.abs(rounded) > np.abs(on_grid), np.nextafter(rounded, _ZERO), rounded)
        limited[part] = inward + _ZERO
    return limited


def _parts(flat: npt.NDArray[np.floating[Any]]) -> Iterator[slice]:
    """Cut (P,) into pieces that stay in a processor's cache through several operations."""
    return (slice(start, start + _PART) for start in range(0, len(flat), _PART))
