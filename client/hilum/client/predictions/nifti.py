"""A label map beside the NIfTI file that it was made from: the same voxels, in the same order, with the same affine."""

from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import numpy.typing as npt

from hilum.client.intake.annotations.grid import Grid, place
from hilum.client.predictions.results import LabelMap
from hilum.client.predictions.sources import FileSource

_LPS_OF_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])
_AXES = 3


def write_nifti(path: Path, source: FileSource, result: LabelMap) -> None:
    """Write the numbers of a label map as a NIfTI file (uint8); the class of 1 is the first of `names`.

    Raises:
        Skip: If the voxels of the file no longer lie where the item has them.
    """
    image: Any = nibabel.load(source.path)
    header = image.header.copy()
    voxels = in_file_order(result.labels, np.array(source.item.affine).reshape(4, 4), image)
    header.set_data_shape(voxels.shape)
    header.set_data_dtype(np.uint8)
    header.set_slope_inter(1, 0)
    header["cal_min"], header["cal_max"] = 0, 0
    made = type(image)(voxels, None, header)
    made.header.set_sform(*_placed(image, "sform"))
    made.header.set_qform(*_placed(image, "qform"))
    path.parent.mkdir(parents=True, exist_ok=True)
    nibabel.save(made, path)


def _placed(image: Any, name: str) -> tuple[Any, int]:
    affine, code = getattr(image.header, f"get_{name}")(coded=True)
    return affine, int(code)


def in_file_order(
    labels: npt.NDArray[np.uint8], affine: npt.NDArray[np.float64], image: Any
) -> npt.NDArray[np.uint8]:
    """Return an array on an item's grid in the order of axes of the NIfTI file that it came from.

    Args:
        labels: (D, H, W).
        affine: (4, 4), array index (d, h, w, 1) to LPS millimetres.
        image: The file, of which the header alone is looked at.
    """
    shape = tuple(int(edge) for edge in image.shape[:_AXES])
    shape = (*shape, *[1] * (_AXES - len(shape)))
    target = Grid("", (shape[0], shape[1], shape[2]), _LPS_OF_RAS @ image.affine)
    depth, height, width = labels.shape
    return np.ascontiguousarray(place(affine, (depth, height, width), target).laid(labels))
