"""From arrays to the items of the catalogue: cached, or held in quarantine, and described."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace

from hilum.client.intake.assembly.direct_read import DirectReader
from hilum.client.intake.assembly.volume import Values
from hilum.client.intake.indexing.planning import SeriesFile
from hilum.client.intake.instance import Instance
from hilum.client.intake.no_suv import NoSuv
from hilum.client.intake.planner import PlannedVolume
from hilum.client.intake.quarantine.rules import hold_back, is_suspect
from hilum.client.intake.quarantine.store import Quarantine
from hilum.client.intake.reasons import Reason, Skip
from hilum.client.intake.sandbox.jobs import ImageDecoded
from hilum.client.state.cache import ArrayCache
from hilum.client.state.catalogue import Item, Units
from hilum.client.state.workspace import Pseudonyms


@dataclass(frozen=True)
class Stores:
    """Where arrays go, and what reads those that no worker has to."""

    cache: ArrayCache
    quarantine: Quarantine
    names: Pseudonyms
    reader: DirectReader = field(default_factory=DirectReader)


def keep_image(stores: Stores, member: SeriesFile, shown: ImageDecoded, frames: int) -> Item | Reason:
    """Keep an image, or a cine of several frames; what is suspect is for the quarantine, which may say no."""
    instance, row, array = member.instance, member.row, shown.image
    draft = Item(
        item_key=row.sop_key,
        kind="image" if frames == 1 else "cine",
        family=instance.family,
        units="display",
        content_sha256="",
        shape=(),
        spacing_mm=_whole_spacing(instance) or (),
        affine=(),
        sop_key=row.sop_key,
        series_key=row.series_key,
        study_key=row.study_key,
        patient_key=stores.names.of("patient", instance.patient_id),
    )
    if not is_suspect(instance):
        return replace(draft, content_sha256=stores.cache.put(array), shape=array.shape)
    try:
        return stores.quarantine.admit(draft, array, hold_back(instance, shown.has_text))
    except Skip as skip:
        return skip.reason


def keep_volume(stores: Stores, members: Sequence[SeriesFile], volume: PlannedVolume, array: Values) -> Item:
    """Keep a volume of a series."""
    first = members[volume.planes[0][0]]
    series_key = first.row.series_key
    quality = {"part": volume.key, **asdict(volume.quality)}
    if volume.tilt is not None:
        quality["tilt"] = volume.tilt.told()
    if volume.family == "pet":
        quality["suv"] = _suv(volume, members)
    units: Units = "hounsfield" if _in_hounsfield(volume, members) else "arbitrary"
    return Item(
        item_key=stores.names.of("volume", f"{series_key} {volume.key}") if volume.key else series_key,
        kind="volume",
        family=volume.family,
        units=units,
        content_sha256=stores.cache.put(array),
        shape=volume.shape,
        spacing_mm=volume.spacing_mm,
        affine=tuple(float(value) for value in volume.affine.ravel()),
        sop_key="",
        series_key=series_key,
        study_key=first.row.study_key,
        patient_key=stores.names.of("patient", first.instance.patient_id),
        quality=json.dumps(quality),
    )


def _suv(volume: PlannedVolume, members: Sequence[SeriesFile]) -> float | NoSuv:
    """Return what makes SUV of all values of a PET volume alike, or why nothing does."""
    copies = (plane for pair in volume.verify_equal for plane in pair)
    found = {members[index].instance.suv for index, _frame in (*volume.planes, *copies)} - {None}
    reasons = sorted(one for one in found if isinstance(one, NoSuv))
    factors = [one for one in found if isinstance(one, float)]
    if reasons:
        return reasons[0]
    return factors[0] if len(factors) == 1 else NoSuv.SLICES_DIFFER


def _in_hounsfield(volume: PlannedVolume, members: Sequence[SeriesFile]) -> bool:
    """Tell whether every plane of a volume is known to be in Hounsfield units."""
    if volume.family != "ct":
        return False
    files = {index for index, _frame in volume.planes}
    known = {
        (index, frame.index)
        for index in files
        for frame in members[index].instance.frames
        if frame.hounsfield
    }
    return known.issuperset(volume.planes)


def _whole_spacing(instance: Instance) -> tuple[float, float] | None:
    """Of an uncropped image. An ultrasound's regions know it, but only where all that lie in space say the same."""
    stated = {region.spacing_mm for region in instance.regions} - {None}
    if not stated:
        return instance.frames[0].spacing_mm
    return stated.pop() if len(stated) == 1 else None
