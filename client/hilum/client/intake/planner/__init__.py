"""From the headers of one series to what it holds: volumes, images, cines, or a reason why not."""

from hilum.client.intake.planner.assembling import CopiesDiffer, GetPlane, assemble, upright, verify_copies
from hilum.client.intake.planner.geometry import MIN_SLICES
from hilum.client.intake.planner.plan import is_stacked, plan_series
from hilum.client.intake.planner.records import (
    PlaneId,
    PlannedCine,
    PlannedImage,
    PlannedVolume,
    Quality,
    SeriesPlan,
    Tilt,
    tilt_told,
)
from hilum.client.intake.planner.tilt import shear_mask, shear_resample

__all__ = [
    "MIN_SLICES",
    "CopiesDiffer",
    "GetPlane",
    "PlaneId",
    "PlannedCine",
    "PlannedImage",
    "PlannedVolume",
    "Quality",
    "SeriesPlan",
    "Tilt",
    "assemble",
    "is_stacked",
    "plan_series",
    "shear_mask",
    "shear_resample",
    "tilt_told",
    "upright",
    "verify_copies",
]
