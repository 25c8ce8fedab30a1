"""A small reader of DICOM files for the planner's tests: headers to instances, files to planes with units.

It is written apart from the product's reader, so that the planner is tested without it.
"""

import warnings
from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pydicom
from pydicom.uid import (
    CTImageStorage,
    EnhancedCTImageStorage,
    EnhancedMRImageStorage,
    EnhancedPETImageStorage,
    LegacyConvertedEnhancedCTImageStorage,
    LegacyConvertedEnhancedMRImageStorage,
    MRImageStorage,
    PositronEmissionTomographyImageStorage,
)

from hilum.client.intake.headers.mosaic import mosaic_frames, split_mosaic
from hilum.client.intake.headers.multiframe import frames_of
from hilum.client.intake.instance import Contrast, Frame, Instance, PixelFormat
from hilum.client.intake.reasons import Reason, Skip
from pixel_files import FLOATS

FAMILIES = {
    CTImageStorage: "ct",
    EnhancedCTImageStorage: "ct",
    LegacyConvertedEnhancedCTImageStorage: "ct",
    MRImageStorage: "mr",
    EnhancedMRImageStorage: "mr",
    LegacyConvertedEnhancedMRImageStorage: "mr",
    PositronEmissionTomographyImageStorage: "pet",
    EnhancedPETImageStorage: "pet",
}


@dataclass
class ReadSeries:
    """The files of one series, and what could not be read."""

    instances: list[Instance] = field(default_factory=list)
    paths: list[Path] = field(default_factory=list)
    skipped: dict[Path, Reason] = field(default_factory=dict)

    def plane(self, instance, frame):
        """(H, W) float32 with units: a frame, or a tile of a mosaic."""
        dataset = pydicom.dcmread(self.paths[instance])
        stored = dataset.pixel_array
        one = self.instances[instance]
        if one.mosaic:
            stored = split_mosaic(stored, len(one.frames))[frame]
        elif one.pixels.frames > 1:
            stored = stored[frame]
        facts = one.frames[frame]
        return (stored * np.float64(facts.slope) + facts.intercept).astype(np.float32)


def read_folder(folder, recursive=False):
    """Each series of the stacked families in a folder, by its UID."""
    series = defaultdict(ReadSeries)
    for path in sorted(folder.rglob("*") if recursive else folder.iterdir()):
        if not path.is_file():
            continue
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                dataset = pydicom.dcmread(path, stop_before_pixels=True)
            except pydicom.errors.InvalidDicomError:
                continue
            if dataset.get("SOPClassUID") not in FAMILIES:
                continue
            found = series[str(dataset.SeriesInstanceUID)]
            try:
                instance = instance_of(dataset)
            except Skip as skip:
                found.skipped[path] = skip.reason
                continue
        found.instances.append(instance)
        found.paths.append(path)
    return dict(series)


def instance_of(dataset):
    """What the product's reader would say of one file."""
    image_type = tuple(str(value).upper() for value in dataset.get("ImageType") or ())
    frames = int(dataset.get("NumberOfFrames") or 1)
    is_mosaic = "MOSAIC" in image_type
    kind = next((kind for name, kind in FLOATS.items() if name in dataset), "whole")
    if "PerFrameFunctionalGroupsSequence" in dataset or frames > 1:
        planes = frames_of(dataset, FAMILIES[str(dataset.SOPClassUID)])
    else:
        planes = (_single(dataset, image_type),)
    if is_mosaic:
        planes = mosaic_frames(dataset, planes[0])
    return Instance(
        sop_uid=str(dataset.SOPInstanceUID),
        series_uid=str(dataset.SeriesInstanceUID),
        study_uid=str(dataset.StudyInstanceUID),
        patient_id="p",
        frame_of_reference=str(dataset.get("FrameOfReferenceUID") or ""),
        sop_class=str(dataset.SOPClassUID),
        family=FAMILIES[dataset.SOPClassUID],
        image_type=image_type,
        pixels=PixelFormat(
            str(dataset.file_meta.TransferSyntaxUID),
            dataset.Rows,
            dataset.Columns,
            frames,
            dataset.SamplesPerPixel,
            dataset.PhotometricInterpretation,
            False,
            dataset.BitsAllocated,
            dataset.BitsStored if kind == "whole" else dataset.BitsAllocated,
            dataset.HighBit if kind == "whole" else dataset.BitsAllocated - 1,
            kind == "whole" and dataset.PixelRepresentation == 1,
            kind,
        ),
        frames=planes,
        mosaic=is_mosaic,
    )


def _single(dataset, image_type):
    position = _numbers(dataset, "ImagePositionPatient", 3)
    orientation = _numbers(dataset, "ImageOrientationPatient", 6)
    return Frame(
        index=0,
        spacing_mm=_numbers(dataset, "PixelSpacing", 2),
        thickness_mm=_number(dataset, "SliceThickness"),
        position_mm=position,
        orientation=orientation,
        slope=_number(dataset, "RescaleSlope") or 1.0,
        intercept=_number(dataset, "RescaleIntercept") or 0.0,
        contrast=Contrast(
            vendor=str(dataset.get("Manufacturer") or ""),
            image_type=image_type,
            component=next((word for word in image_type[2:] if word in {"M", "P", "R", "I"}), ""),
            echo_number=_whole(dataset, "EchoNumbers"),
            echo_time_ms=_number(dataset, "EchoTime"),
            repetition_time_ms=_number(dataset, "RepetitionTime"),
            inversion_time_ms=_number(dataset, "InversionTime"),
            flip_angle_deg=_number(dataset, "FlipAngle"),
            b_value=_number(dataset, "DiffusionBValue"),
            gradient=_numbers(dataset, "DiffusionGradientOrientation", 3),
            temporal_position=_number(dataset, "TemporalPositionIdentifier"),
            trigger_time_ms=_number(dataset, "TriggerTime"),
            acquisition_number=_whole(dataset, "AcquisitionNumber"),
            acquisition_time_s=_seconds(str(dataset.get("AcquisitionTime") or "")),
            instance_number=_whole(dataset, "InstanceNumber"),
        ),
    )


def _numbers(dataset, name, count):
    values = dataset.get(name)
    if values is None or values == "":
        return None
    numbers = tuple(float(value) for value in values)
    return numbers if len(numbers) == count else None


def _number(dataset, name):
    value = dataset.get(name)
    if value is None or value == "":
        return None
    return float(value[0] if isinstance(value, pydicom.multival.MultiValue) else value)


def _whole(dataset, name):
    number = _number(dataset, name)
    return None if number is None else int(number)


def _seconds(text):
    if len(text.partition(".")[0]) != 6:
        return None
    return int(text[:2]) * 3600 + int(text[2:4]) * 60 + float(text[4:])
