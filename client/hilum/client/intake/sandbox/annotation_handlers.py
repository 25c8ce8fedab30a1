"""How a decoding process reads a file of annotations, and how that becomes an answer.

The process reads the file; what of it belongs to which image is judged by the parent, which alone knows the images.

Shapes: D slices, H rows, W columns; F frames of an object, P points.
"""

from dataclasses import dataclass
from importlib import import_module
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from pydantic import TypeAdapter

from hilum.client.intake.formats.contents import (
    FARTHEST_MM,
    MAX_POINTS,
    MIN_POINTS,
    LabelsRead,
    PlanePlace,
    Region,
    Segment,
    SegRead,
    StructuresRead,
)
from hilum.client.intake.formats.ipc import Array, Facts, Write, from_bytes
from hilum.client.intake.formats.naming import Code
from hilum.client.intake.reasons import Reason
from hilum.client.intake.sandbox.jobs import ReadLabels, ReadObject

_PLACE_COLUMNS = 13


def read_labels(job: ReadLabels, write: Write) -> Facts:
    """Write the numbers of the labels, slice by slice."""
    reader: Any = import_module("hilum.client.intake.formats.read_labels")  # brings nibabel
    found: Facts = reader.read_labels(job.path, write)
    return found


def read_object(job: ReadObject, write: Write) -> Facts:
    """Write the frames of a segmentation, or the contours of a structure set."""
    reader: Any = import_module("hilum.client.intake.formats.read_object")  # brings highdicom
    found: Facts = reader.read_object(job.path, write)
    return found


@dataclass(frozen=True)
class _LabelFacts:
    shape: tuple[int, int, int]
    affine: tuple[float, ...]
    values: tuple[int, ...] | None


@dataclass(frozen=True)
class _SegFacts:
    kind: Literal["seg"]
    shape: tuple[int, int]
    source: Literal["seg", "seg_fractional"]
    segments: tuple[Segment, ...]
    sources: tuple[str, ...]
    instances: tuple[str, ...]
    series: tuple[str, ...]
    undecodable: frozenset[int]
    bits: bool


@dataclass(frozen=True)
class _RegionFacts:
    name: str
    code: Code | None
    contours: int
    sources: tuple[str, ...]


@dataclass(frozen=True)
class _StructureFacts:
    kind: Literal["structures"]
    regions: tuple[_RegionFacts | Reason, ...]
    series: tuple[str, ...]


_LABEL_FACTS = TypeAdapter(_LabelFacts)
_OBJECT_FACTS: TypeAdapter[_SegFacts | _StructureFacts] = TypeAdapter(_SegFacts | _StructureFacts)


def labels_read(_job: ReadLabels, runs: list[Array], facts: Facts) -> LabelsRead:
    """Return the answer.

    Raises:
        ValueError: If it is none.
    """
    told = _LABEL_FACTS.validate_python(facts)
    if len(told.affine) != 16:  # noqa: PLR2004 - four rows of four
        raise ValueError("no affine")
    if not told.values:
        return LabelsRead(told.shape, told.affine, told.values, None)
    (numbers,) = runs
    if numbers.shape != told.shape or numbers.dtype not in (np.uint8, np.uint16):
        raise ValueError("no label volume")
    if numbers.max() > len(told.values) or any(value <= 0 for value in told.values):
        raise ValueError("not the labels that were announced")
    return LabelsRead(told.shape, told.affine, told.values, numbers)


def object_read(_job: ReadObject, runs: list[Array], facts: Facts) -> SegRead | StructuresRead:
    """Return the answer.

    Raises:
        ValueError: If it is none.
    """
    told = _OBJECT_FACTS.validate_python(facts)
    return _seg(told, runs) if isinstance(told, _SegFacts) else _structures(told, runs)


def _seg(told: _SegFacts, runs: list[Array]) -> SegRead:
    frames, encoded = runs
    places = from_bytes(encoded, np.float64).reshape(-1, _PLACE_COLUMNS)
    height, width = told.shape
    wanted = ((height * width + 7) // 8,) if told.bits else told.shape
    kinds = (np.uint8,) if told.bits else (np.uint8, np.uint16)
    if frames.shape != (len(places), *wanted) or frames.dtype not in kinds:
        raise ValueError("no frames")
    planes = tuple(
        PlanePlace(
            segment=None if np.isnan(row[0]) else int(row[0]),
            position_mm=_stated(row[1:4]),
            orientation=_stated(row[4:10]),
            spacing_mm=_stated(row[10:12]),
            gap_mm=None if np.isnan(row[12]) else float(row[12]),
        )
        for row in places
    )
    return SegRead(
        shape=told.shape,
        source=told.source,
        segments=told.segments,
        sources=told.sources,
        instances=told.instances,
        series=told.series,
        undecodable=told.undecodable,
        planes=planes,
        frames=frames,
    )


def _stated(values: npt.NDArray[np.float64]) -> tuple[float, ...] | None:
    return tuple(values.tolist()) if np.isfinite(values).all() else None


def _structures(told: _StructureFacts, runs: list[Array]) -> StructuresRead:
    wanted = [one.contours for one in told.regions if isinstance(one, _RegionFacts)]
    if not wanted:
        return StructuresRead(tuple(one for one in told.regions if isinstance(one, Reason)), told.series)
    encoded_points, encoded_counts = runs
    points = from_bytes(encoded_points, np.float64).reshape(-1, 3)
    counts = from_bytes(encoded_counts, np.int64)
    if (
        len(counts) != sum(wanted)
        or counts.sum() != len(points)
        or not MIN_POINTS <= counts.min() <= counts.max() <= MAX_POINTS
    ):
        raise ValueError("not the contours that were announced")
    if min(wanted) < 1 or not (np.abs(points) < FARTHEST_MM).all():
        raise ValueError("no contours")
    contours = iter(np.split(points, np.cumsum(counts)[:-1]))
    regions = tuple(
        one
        if isinstance(one, Reason)
        else Region(one.name, one.code, tuple(next(contours) for _ in range(one.contours)), one.sources)
        for one in told.regions
    )
    return StructuresRead(regions, told.series)
