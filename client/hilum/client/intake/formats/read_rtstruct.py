"""Reads a DICOM structure set (PS3.3 section C.8.8.6) in a decoding process: names, codes and contours.

Shapes: P points.
"""

from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pydicom
from pydicom.dataset import Dataset

from hilum.client.intake.formats.contents import FARTHEST_MM, MAX_POINTS, MIN_POINTS, Region
from hilum.client.intake.formats.ipc import Facts, Write, as_bytes
from hilum.client.intake.formats.objects import check_size_and_syntax, code_in, items, text
from hilum.client.intake.reasons import Reason, Skip

SOP_CLASS = "1.2.840.10008.5.1.4.1.1.481.3"  # RT Structure Set Storage

_CLOSED = {"CLOSED_PLANAR", "CLOSEDPLANAR_XOR"}
_MAX_POINTS = 20_000_000  # of a region


def read_rtstruct(path: Path, write: Write) -> Facts:
    """Write the points of all contours, and how many each has.

    Raises:
        Skip: If the whole object can't be taken.
    """
    check_size_and_syntax(path)
    try:
        dataset = pydicom.dcmread(path)
        regions = [_region(one, dataset) for one in items(dataset, "ROIContourSequence")]
        series = _series(dataset)
    except (Skip, MemoryError):
        raise
    except Exception:
        # pydicom raises what its parsers happen to raise on broken input.
        raise Skip(Reason.MALFORMED_ANNOTATION) from None
    if not regions:
        raise Skip(Reason.EMPTY_ANNOTATION)
    contours = [points for one in regions if isinstance(one, Region) for points in one.contours]
    if contours:
        write(as_bytes(np.concatenate(contours)))
        write(as_bytes(np.array([len(points) for points in contours], np.int64)))
    return {"kind": "structures", "regions": [_told(one) for one in regions], "series": series}


def _told(region: Region | Reason) -> dict[str, Any] | str:
    if isinstance(region, Reason):
        return region.value
    return {
        "name": region.name,
        "code": None if region.code is None else asdict(region.code),
        "contours": len(region.contours),
        "sources": region.sources,
    }


def _series(dataset: Dataset) -> list[str]:
    return [
        text(series, "SeriesInstanceUID")
        for frame in items(dataset, "ReferencedFrameOfReferenceSequence")
        for study in items(frame, "RTReferencedStudySequence")
        for series in items(study, "RTReferencedSeriesSequence")
    ]


def _region(contours: Dataset, dataset: Dataset) -> Region | Reason:
    number = text(contours, "ReferencedROINumber")
    names = [
        text(one, "ROIName")
        for one in items(dataset, "StructureSetROISequence")
        if text(one, "ROINumber") == number
    ]
    codes = [
        code_in(one, "RTROIIdentificationCodeSequence")
        for one in items(dataset, "RTROIObservationsSequence")
        if text(one, "ReferencedROINumber") == number
    ]
    outlines = items(contours, "ContourSequence")
    if not outlines:
        return Reason.EMPTY_ANNOTATION
    if not all(text(one, "ContourGeometricType").upper() in _CLOSED for one in outlines):
        return Reason.UNSUPPORTED_CONTOUR
    points = [_points(one) for one in outlines]
    if any(len(one) < MIN_POINTS for one in points):
        return Reason.UNSUPPORTED_CONTOUR
    if sum(map(len, points)) > _MAX_POINTS or max(map(len, points)) > MAX_POINTS:
        return Reason.TOO_LARGE
    sources = {
        text(image, "ReferencedSOPInstanceUID")
        for one in outlines
        for image in items(one, "ContourImageSequence")
    }
    code = next((one for one in codes if one is not None), None)
    return Region(names[0] if names else "", code, tuple(points), tuple(sorted(sources)))


def _points(outline: Dataset) -> npt.NDArray[np.float64]:
    values = np.array([float(value) for value in outline.ContourData], np.float64)
    if len(values) % 3 or not (np.abs(values) < FARTHEST_MM).all():
        raise Skip(Reason.MALFORMED_ANNOTATION)
    return values.reshape(-1, 3)
