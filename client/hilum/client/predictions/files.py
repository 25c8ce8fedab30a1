"""Masks of images that are not DICOM: a NIfTI file for a NIfTI file, a picture for a picture."""

from pathlib import Path

from PIL import Image

from hilum.client.predictions.results import LabelMap
from hilum.client.predictions.sources import FileSource


def write_beside(path: Path, source: FileSource, result: LabelMap) -> None:
    """Write the numbers of a label map: 0 is the background, 1 the first class.

    Args:
        path: `.nii.gz` for NIfTI; `.png`, grey of 8 bits, for a picture.
        source: The file that the image came from.
        result: What was found.

    Raises:
        Skip: If the file is not what it was when it was read.
    """
    if source.kind == "nifti":
        from hilum.client.predictions.nifti import write_nifti

        write_nifti(path, source, result)
    else:
        Image.fromarray(result.labels).save(path, "PNG")
