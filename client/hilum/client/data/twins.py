"""Find images that show the same: equal arrays, and copies that were rescaled, compressed, windowed, inverted or mirrored.

Shapes: N images, P pairs, G cells along an edge, F = G^2 or G^3 cells of a fingerprint.

**The rule.** An image is averaged to 32 x 32 cells, a volume to 16 x 16 x 16, whatever its proportions. What a cell has
more than the mean of itself and its neighbours is kept: fine structure, not the outline that all images of a body part
share. The result is scaled to length 1. Two images are twins where the product of their fingerprints, or of one with the
other mirrored from left to right, is at least `ALIKE`, in either sign.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F

from hilum.client.data.prepared import PreparedImages
from hilum.client.state.cache import ArrayCache
from hilum.client.state.workspace import Workspace
from hilum.common.files import replacing
from hilum.common.preparation.picture import grey_of, still_of

Fingerprints = npt.NDArray[np.float32]
Pairs = npt.NDArray[np.int64]

ALIKE = 0.95
"""Between different people at most 0.85 in chest films and 0.92 in fundus photographs; of JPEG copies at quality 30 at
least 0.99, of copies at half the size 1.00."""

_CELLS = {2: 32, 3: 16}
_NEIGHBOURHOOD = 3
_FLAT = 1e-4  # of the range of values: less structure than this is rounding
_CHUNK = 2048  # rows at a time: against 100,000 others, 0.8 GB of products


def fingerprint(values: npt.NDArray[np.generic]) -> Fingerprints:
    """Give the fingerprint of one image or volume; zeros where it shows nothing.

    Args:
        values: (H, W) or (D, H, W), on any scale.

    Returns:
        (F,), of length 1 or 0.
    """
    wide = torch.from_numpy(np.array(values, np.float32, order="C"))[None, None]
    cells = _CELLS[values.ndim]
    if values.ndim == 2:  # noqa: PLR2004 - H W
        small = F.interpolate(wide, (cells, cells), mode="bilinear", antialias=True)
        around = F.avg_pool2d(small, _NEIGHBOURHOOD, 1, _NEIGHBOURHOOD // 2, count_include_pad=False)
    else:
        fewer = [min(cells, size) for size in values.shape]
        small = F.interpolate(F.interpolate(wide, fewer, mode="area"), (cells,) * 3, mode="trilinear")
        around = F.avg_pool3d(small, _NEIGHBOURHOOD, 1, _NEIGHBOURHOOD // 2, count_include_pad=False)
    detail = (small - around).flatten().double().numpy()
    detail -= detail.mean()
    length = float(np.linalg.norm(detail))
    span = float(wide.max() - wide.min())
    if not length > _FLAT * span * detail.size**0.5:
        return np.zeros(detail.size, np.float32)
    return (detail / length).astype(np.float32)


def fingerprints(workspace: Workspace, prepared: PreparedImages) -> Fingerprints:
    """Give the fingerprints of a site's images, (N, F); they are kept beside the packed images."""
    path = prepared.folder / "fingerprints.npy"
    if not path.exists():
        cache = ArrayCache(workspace.cache)
        made = np.stack(
            [
                fingerprint(grey_of(still_of(cache.get(item.content_sha256), item.kind), item.kind))
                for item in prepared.items
            ]
        )
        _keep(path, made)
    found: Fingerprints = np.load(path, allow_pickle=False)
    return found


def twins_within(workspace: Workspace, prepared: PreparedImages) -> Pairs:
    """Give the twins among a site's images, (P, 2) rows, the smaller first; they are kept beside the packed images."""
    path = prepared.folder / "twins.npy"
    if not path.exists():
        prints = fingerprints(workspace, prepared)
        contents = [item.content_sha256 for item in prepared.items]
        pairs = twins_between((contents, prints), (contents, prints))
        _keep(path, pairs[pairs[:, 0] < pairs[:, 1]])
    found: Pairs = np.load(path, allow_pickle=False)
    return found


def twins_between(
    ours: tuple[Sequence[str], Fingerprints], theirs: tuple[Sequence[str], Fingerprints]
) -> Pairs:
    """Give the twins of two sets of images.

    Args:
        ours: SHA-256 of each image's content, and (N, F) fingerprints.
        theirs: The same of the others.

    Returns:
        (P, 2), a row of ours and a row of theirs, in ascending order.
    """
    of_content: dict[str, list[int]] = {}
    for column, content in enumerate(theirs[0]):
        of_content.setdefault(content, []).append(column)
    found = {(row, column) for row, content in enumerate(ours[0]) for column in of_content.get(content, ())}
    turned = _mirrored(theirs[1])
    for start in range(0, len(ours[1]), _CHUNK):
        part = ours[1][start : start + _CHUNK]
        alike = (np.abs(part @ theirs[1].T) >= ALIKE) | (np.abs(part @ turned.T) >= ALIKE)
        found.update((start + int(row), int(column)) for row, column in np.argwhere(alike))
    return np.array(sorted(found), np.int64).reshape(-1, 2)


def _mirrored(prints: Fingerprints) -> Fingerprints:
    """Return the fingerprints of the same images mirrored from left to right; (N, F) to (N, F)."""
    shape = next((cells,) * dims for dims, cells in _CELLS.items() if cells**dims == prints.shape[1])
    return np.ascontiguousarray(prints.reshape(-1, *shape)[..., ::-1].reshape(prints.shape))


def _keep(path: Path, values: npt.NDArray[np.generic]) -> None:
    with replacing(path) as file:
        np.save(file, values, allow_pickle=False)
