"""Research folders: NIfTI files and pictures become items of the same catalogue as DICOM.

Such a file says neither what made it nor whose it is. The family is what the caller says; each file is a patient of its
own until a table of the site says which files are one person's (the column `patient` of the label table).
"""

from pathlib import Path
from typing import Protocol

import numpy as np

from hilum.client.cache import ArrayCache
from hilum.client.catalogue import FileRow, Item, Units
from hilum.client.intake.instance import STACKED_FAMILIES, Family
from hilum.client.intake.nifti import is_nifti, read_nifti
from hilum.client.intake.planner import MIN_SLICES
from hilum.client.intake.raster import Colour, Grey, is_raster, read_raster
from hilum.client.intake.reasons import Reason, Skip
from hilum.client.intake.volume import compact
from hilum.client.workspace import Pseudonyms


class ReadPicture(Protocol):
    """As `read_raster`, in this process or another."""

    def __call__(self, path: Path, *, colour: bool) -> Grey | Colour:
        """See `read_raster`."""


COLOUR_FAMILIES: frozenset[Family] = frozenset({"photograph"})
"""The families whose pictures are kept in colour."""


def is_folder_file(path: Path) -> bool:
    """Whether a file's name says that it is one of those that research folders hold."""
    return is_nifti(path) or is_raster(path)


def folder_row(relative_name: str, identity: str, status: str, names: Pseudonyms) -> FileRow:
    """The catalogue's row of such a file: it is its own instance, series and study.

    Args:
        relative_name: To the indexed folder, with forward slashes; an identifier.
        identity: Size, time of change and inode.
        status: `ACCEPTED` or a reason.
        names: The site's pseudonyms.
    """
    key = names.of("file", relative_name)
    return FileRow(key, identity, status, key, key, key, key)


def take_folder_file(
    path: Path,
    relative_name: str,
    family: Family,
    names: Pseudonyms,
    cache: ArrayCache,
    read: ReadPicture = read_raster,
) -> list[Item]:
    """Read one file and cache what it holds: a picture, or a volume a time point.

    Args:
        path: The file.
        relative_name: To the indexed folder, with forward slashes; an identifier.
        family: What made it.
        names: The site's pseudonyms.
        cache: Where its arrays go.
        read: Reads a picture.

    Raises:
        Skip: With the reason why it is not taken.
    """
    if is_nifti(path):
        return _volumes(path, relative_name, family, names, cache)
    colour = family in COLOUR_FAMILIES
    shown = read(path, colour=colour)
    key = names.of("file", relative_name)
    item = Item(
        item_key=key,
        kind="image",
        family=family,
        units="display",
        content_sha256=cache.put(shown),
        shape=shown.shape,
        spacing_mm=(),
        affine=(),
        sop_key=key,
        series_key=key,
        study_key=key,
        patient_key=names.of("file patient", relative_name),
    )
    return [item]


def _volumes(
    path: Path, relative_name: str, family: Family, names: Pseudonyms, cache: ArrayCache
) -> list[Item]:
    if family not in STACKED_FAMILIES:
        raise Skip(Reason.OTHER_MODALITY)
    file = read_nifti(path)
    key = names.of("file", relative_name)
    units: Units = "hounsfield" if family == "ct" else "arbitrary"
    items = []
    for time, volume in enumerate(file.volumes):
        if len(volume) < MIN_SLICES:
            raise Skip(Reason.TOO_FEW_SLICES)
        if volume.min() == volume.max():
            raise Skip(Reason.CONSTANT_PIXELS)
        items.append(
            Item(
                item_key=key if len(file.volumes) == 1 else names.of("file time", f"{relative_name}\0{time}"),
                kind="volume",
                family=family,
                units=units,
                content_sha256=cache.put(compact(volume.astype(np.float32))),
                shape=volume.shape,
                spacing_mm=file.spacing_mm,
                affine=tuple(float(value) for value in file.affine.ravel()),
                sop_key="",
                series_key=key,
                study_key=key,
                patient_key=names.of("file patient", relative_name),
            )
        )
    return items
