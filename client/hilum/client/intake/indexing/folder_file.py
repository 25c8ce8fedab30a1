"""Research folders: NIfTI files and pictures become items of the same catalogue as DICOM.

Such a file says neither what made it nor whose it is. The family is what the caller says; each file is a patient of its
own until a table of the site says which files are one person's (the column `patient` of the label table).
"""

import json
from pathlib import Path
from typing import Any

import numpy.typing as npt

from hilum.client.intake.formats.folder_volume import ReadVolumes, VolumesRead
from hilum.client.intake.formats.nifti import is_nifti
from hilum.client.intake.formats.not_dicom import is_apple_double
from hilum.client.intake.instance import STACKED_FAMILIES, Family
from hilum.client.intake.no_suv import NoSuv
from hilum.client.intake.reasons import Reason, Skip
from hilum.client.intake.sandbox.jobs import DecodePicture, ImageDecoded, Refused, Result
from hilum.client.state.cache import ArrayCache
from hilum.client.state.catalogue import FileRow, Item, Units
from hilum.client.state.workspace import Pseudonyms

COLOUR_FAMILIES: frozenset[Family] = frozenset({"photograph", "ultrasound"})
"""The families whose pictures are kept in colour."""

_AIR_HU = -100


def folder_row(relative_name: str, identity: str, status: str, names: Pseudonyms) -> FileRow:
    """Return the catalogue's row of such a file: it is its own instance, series and study.

    Args:
        relative_name: To the indexed folder, with forward slashes; an identifier.
        identity: Size, time of change and inode.
        status: `ACCEPTED` or a reason.
        names: The site's pseudonyms.
    """
    key = names.of("file", relative_name)
    return FileRow(key, identity, status, key, key, key, key)


def folder_job(path: Path, family: Family) -> DecodePicture | ReadVolumes:
    """Return what a decoding process is to be asked of such a file.

    Args:
        path: The file.
        family: What made it.

    Raises:
        Skip: If the family's images are not of this kind, or macOS left the file beside another.
    """
    if is_apple_double(path):
        raise Skip(Reason.SYSTEM_FILE)
    if not is_nifti(path):
        if family == "ct":  # a grey level is not a Hounsfield unit
            raise Skip(Reason.NO_UNITS)
        return DecodePicture(path, family in COLOUR_FAMILIES)
    if family not in STACKED_FAMILIES:
        raise Skip(Reason.OTHER_MODALITY)
    return ReadVolumes(path)


def take_folder_file(
    result: Result, relative_name: str, family: Family, names: Pseudonyms, cache: ArrayCache
) -> list[Item]:
    """Cache what one file holds: a picture, or a volume a time point.

    Args:
        result: Of the file's `folder_job`.
        relative_name: To the indexed folder, with forward slashes; an identifier.
        family: What made it.
        names: The site's pseudonyms.
        cache: Where its arrays go.

    Raises:
        Skip: With the reason why it is not taken.
    """
    if isinstance(result, Refused):
        raise Skip(result.reason)
    if isinstance(result, VolumesRead):
        return _volumes(result, relative_name, family, names, cache)
    assert isinstance(result, ImageDecoded)
    key = names.of("file", relative_name)
    item = Item(
        item_key=key,
        kind="image",
        family=family,
        units="display",
        content_sha256=cache.put(result.image),
        shape=result.image.shape,
        spacing_mm=(),
        affine=(),
        sop_key=key,
        series_key=key,
        study_key=key,
        patient_key=names.of("file patient", relative_name),
    )
    return [item]


def _volumes(
    read: VolumesRead, relative_name: str, family: Family, names: Pseudonyms, cache: ArrayCache
) -> list[Item]:
    key = names.of("file", relative_name)
    items = []
    for time, volume in enumerate(read.volumes):
        units: Units = "hounsfield" if family == "ct" and _has_air(volume) else "arbitrary"
        items.append(
            Item(
                item_key=key if len(read.volumes) == 1 else names.of("file time", f"{relative_name}\0{time}"),
                kind="volume",
                family=family,
                units=units,
                content_sha256=cache.put(volume),
                shape=volume.shape,
                spacing_mm=read.spacing_mm,
                affine=read.affine,
                sop_key="",
                series_key=key,
                study_key=key,
                patient_key=names.of("file patient", relative_name),
                quality=json.dumps({"suv": NoSuv.NO_HEADER}) if family == "pet" else "",
            )
        )
    return items


def _has_air(volume: npt.NDArray[Any]) -> bool:
    """Tell whether values may be Hounsfield units, of which NIfTI has no word: then air is far below 0.

    Stored values without their rescale, and values brought to 0..1 or 0..255, have none.
    """
    return bool(volume.min() <= _AIR_HU)
