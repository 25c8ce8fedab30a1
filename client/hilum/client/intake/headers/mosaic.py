"""Siemens mosaics: the slices of a volume tiled into one square image, placed by a private header.

Shapes: D slices, H rows, W columns of one tile. Axes are LPS. The private "CSA" header is described in
https://nipy.org/nibabel/dicom/siemens_csa.html and the mosaic in https://nipy.org/nibabel/dicom/dicom_mosaic.html.
"""

import math
import struct
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
from pydicom.dataset import Dataset

from hilum.client.intake.instance import Frame
from hilum.client.intake.reasons import Reason, Skip

MOSAIC_TAGS = (0x00290010, 0x00291010, 0x00180088)
"""What a reader with `specific_tags` has to ask for: the private block, the CSA image header, the slice distance."""

_CSA_HEADER = 0x00291010
_CREATOR = 0x00290010
_MAX_CSA_BYTES = 1 << 20
_MAX_TAGS = 1000
_MAX_ITEMS = 1000
_MAX_VALUE_BYTES = 64
_MAX_SLICES = 1024
_WANTED = ("NumberOfImagesInMosaic", "SliceNormalVector", "SpacingBetweenSlices")
_PARALLEL = 1e-3  # of 1, how far the product of two unit normals may be from it
_DISTANCES_AGREE = 0.01

Scalar = TypeVar("Scalar", bound=np.generic)


def tile_shape(rows: int, columns: int, slices: int) -> tuple[int, int]:
    """(H, W) of one tile: the mosaic is the smallest square of tiles that holds all slices.

    Raises:
        Skip: `UNSUPPORTED_MOSAIC` where the image can't be cut so.
    """
    side = _side(slices)
    if rows % side or columns % side or rows < side or columns < side:
        raise Skip(Reason.UNSUPPORTED_MOSAIC)
    return rows // side, columns // side


def _side(slices: int) -> int:
    if not 1 <= slices <= _MAX_SLICES:
        raise Skip(Reason.UNSUPPORTED_MOSAIC)
    return math.isqrt(slices - 1) + 1


def split_mosaic(plane: npt.NDArray[Scalar], slices: int) -> npt.NDArray[Scalar]:
    """Cut a mosaic into its slices, in the order of its frames.

    Args:
        plane: (rows, columns) of the whole mosaic.
        slices: How many tiles are filled; the rest is empty.

    Returns:
        (D, H, W), a view where numpy allows it.

    Raises:
        Skip: `UNSUPPORTED_MOSAIC` where the image can't be cut so.
    """
    height, width = tile_shape(plane.shape[0], plane.shape[1], slices)
    side = _side(slices)
    tiles = plane.reshape(side, height, side, width).swapaxes(1, 2).reshape(side * side, height, width)
    return tiles[:slices]


def mosaic_frames(dataset: Dataset, frame: Frame) -> tuple[Frame, ...]:
    """Return one frame per tile, each with its own place.

    Args:
        dataset: With the tags of `MOSAIC_TAGS`, Rows and Columns.
        frame: What the header says of the mosaic as a whole. Its position is that of the corner of an image as large
            as the mosaic around the slice's centre, so the slice's own corner lies (mosaic - tile) / 2 further in.

    Raises:
        Skip: `UNSUPPORTED_MOSAIC` where the private header is absent, damaged, or contradicts the public one.
    """
    if frame.position_mm is None or frame.orientation is None or frame.spacing_mm is None:
        raise Skip(Reason.UNSUPPORTED_MOSAIC)
    csa = _csa_of(dataset)
    count = _whole(csa.get("NumberOfImagesInMosaic", ()))
    rows, columns = int(dataset.get("Rows") or 0), int(dataset.get("Columns") or 0)
    height, width = tile_shape(rows, columns, count)
    row, column = np.array(frame.orientation[:3], float), np.array(frame.orientation[3:], float)
    normal = _normal(csa.get("SliceNormalVector", ()), np.cross(row, column))
    step = normal * _distance_mm(dataset, csa.get("SpacingBetweenSlices", ()))
    row_mm, column_mm = frame.spacing_mm
    corner = np.array(frame.position_mm, float)
    corner = corner + row * (columns - width) / 2 * column_mm + column * (rows - height) / 2 * row_mm
    if not np.isfinite(corner).all():
        raise Skip(Reason.UNSUPPORTED_MOSAIC)
    places = (corner + k * step for k in range(count))
    return tuple(
        replace(frame, index=k, position_mm=(float(place[0]), float(place[1]), float(place[2])))
        for k, place in enumerate(places)
    )


def _csa_of(dataset: Dataset) -> dict[str, tuple[str, ...]]:
    element = dataset.get(_CSA_HEADER)
    creator = dataset.get(_CREATOR)
    raw: Any = getattr(element, "value", None)
    if "SIEMENS CSA HEADER" not in str(getattr(creator, "value", "")) or not isinstance(raw, bytes):
        raise Skip(Reason.UNSUPPORTED_MOSAIC)
    return read_csa(raw)


def read_csa(raw: bytes) -> dict[str, tuple[str, ...]]:
    """Return the few values of a CSA header (version 1 or 2) that place a mosaic, as text.

    Every length is checked before it is believed, and the reader only moves forward.

    Raises:
        Skip: `UNSUPPORTED_MOSAIC` where the header is damaged.
    """
    if len(raw) > _MAX_CSA_BYTES:
        raise Skip(Reason.UNSUPPORTED_MOSAIC)
    second = raw[:4] == b"SV10"
    try:
        return _read_tags(raw, 8 if second else 0, second=second)
    except (struct.error, UnicodeDecodeError):
        raise Skip(Reason.UNSUPPORTED_MOSAIC) from None


def _read_tags(raw: bytes, at: int, *, second: bool) -> dict[str, tuple[str, ...]]:
    (count,) = struct.unpack_from("<I", raw, at)
    if not 0 < count <= _MAX_TAGS:
        raise Skip(Reason.UNSUPPORTED_MOSAIC)
    at += 8
    found: dict[str, tuple[str, ...]] = {}
    base = 0
    for number in range(count):
        name_bytes, _vm, _vr, _syngo, items, _last = struct.unpack_from("<64si4s3i", raw, at)
        at += 84
        if not 0 <= items <= _MAX_ITEMS:
            raise Skip(Reason.UNSUPPORTED_MOSAIC)
        if number == 0:
            base = items  # version 1 adds the first tag's number of items to every length
        name = name_bytes.split(b"\0", 1)[0].decode("ascii", "replace")
        values, at = _read_items(raw, at, items, None if second else base)
        if name in _WANTED:
            found[name] = values
    return found


def _read_items(raw: bytes, at: int, items: int, base: int | None) -> tuple[tuple[str, ...], int]:
    values: list[str] = []
    for _ in range(items):
        first, length, _third, _fourth = struct.unpack_from("<4i", raw, at)
        at += 16
        if base is not None:
            length = first - base
            if length < 0 or at + length > len(raw):
                break  # version 1 marks the end of the values so
        if length < 0 or at + length > len(raw):
            raise Skip(Reason.UNSUPPORTED_MOSAIC)
        text = (
            raw[at : at + min(length, _MAX_VALUE_BYTES)].split(b"\0", 1)[0].decode("ascii", "replace").strip()
        )
        if text:
            values.append(text)
        at += (length + 3) // 4 * 4
    return tuple(values), at


def _whole(values: Sequence[str]) -> int:
    numbers = _numbers(values, 1)
    if numbers[0] != int(numbers[0]):
        raise Skip(Reason.UNSUPPORTED_MOSAIC)
    return int(numbers[0])


def _numbers(values: Sequence[str], count: int) -> tuple[float, ...]:
    try:
        numbers = tuple(float(value) for value in values)
    except ValueError:
        raise Skip(Reason.UNSUPPORTED_MOSAIC) from None
    if len(numbers) != count or not all(map(math.isfinite, numbers)):
        raise Skip(Reason.UNSUPPORTED_MOSAIC)
    return numbers


def _normal(values: Sequence[str], expected: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Return the direction from slice to slice: the planes' normal, or its opposite where Siemens says so."""
    stated = float(np.array(_numbers(values, 3)) @ expected)
    if not math.isfinite(stated) or abs(abs(stated) - 1) > _PARALLEL:
        raise Skip(Reason.UNSUPPORTED_MOSAIC)
    return expected * math.copysign(1.0, stated)


def _distance_mm(dataset: Dataset, values: Sequence[str]) -> float:
    """Between slices (0018,0088), or from the private header; they must agree where both are there."""
    stated: list[float] = []
    public = dataset.get("SpacingBetweenSlices")
    if public not in (None, ""):
        stated += _numbers([str(public)], 1)
    if values:
        stated += _numbers(values, 1)
    if not stated or min(stated) <= 0 or max(stated) > (1 + _DISTANCES_AGREE) * min(stated):
        raise Skip(Reason.UNSUPPORTED_MOSAIC)
    return stated[0]
