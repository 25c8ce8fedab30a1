"""A label map as a DICOM segmentation (PS3.3 section A.51) on the grid of the images that it was made from.

A PACS shows a frame over the source image that lies where it lies. So what was found on a volume that was brought upright goes back to
the slices as they were stored, and what was found on a part of a picture to its place in the whole.

Shapes: K classes, D slices, H rows, W columns.
"""

from typing import Any

import numpy as np
import numpy.typing as npt
from highdicom.seg import SegmentAlgorithmTypeValues, Segmentation, SegmentationTypeValues, SegmentDescription
from pydicom.sr.codedict import codes

from hilum.client.intake.silence import silent_readers
from hilum.client.predictions.dicom.concepts import Concept, concept_of, private_scheme
from hilum.client.predictions.dicom.making import LONG, MAKER, Making, finish
from hilum.client.predictions.dicom.stand_ins import settle_references, stand_ins
from hilum.client.predictions.dicom.uids import derived_uid
from hilum.client.predictions.results import LabelMap
from hilum.client.predictions.sources import DicomSource
from hilum.client.predictions.stored_grid import on_stored_frames
from hilum.client.state.cache import content_of

_FULL = 255  # the largest fractional value


def segmentation_of(
    source: DicomSource, result: LabelMap, making: Making, *, fractional: bool = False
) -> Segmentation:
    """Make a segmentation, one segment a class.

    Args:
        source: Of the item that the label map lies on.
        result: What was found.
        making: Of this call.
        fractional: Write the probabilities, which the result then has, in 255 steps instead of the label map.
    """
    if fractional:
        assert result.probabilities is not None, "a fractional segmentation is made of probabilities"
        found = np.stack([on_stored_frames(one, source) for one in result.probabilities], axis=-1)
        pixels: npt.NDArray[Any] = np.rint(found.clip(0, 1) * _FULL) / _FULL
    else:
        pixels = on_stored_frames(result.labels, source)
    frames = [(one.instance.sop_uid, one.number) for one in source.frames]
    facts = [frames, result.names, fractional, content_of(pixels)]
    concepts = [concept_of(name) for name in result.names]
    with silent_readers():  # highdicom's warnings quote the patient's name
        made = Segmentation(
            source_images=stand_ins(source),
            pixel_array=pixels,
            segmentation_type=SegmentationTypeValues.FRACTIONAL
            if fractional
            else SegmentationTypeValues.BINARY,
            segment_descriptions=[
                _described(number, name, concept, making)
                for number, (name, concept) in enumerate(zip(result.names, concepts, strict=True), 1)
            ],
            max_fractional_value=_FULL,
            content_label="PREDICTION",
            content_description=f"{MAKER} {making.model.name}"[:LONG],
            coding_schemes=private_scheme(),
            **making.common(source, "segmentation", facts),
        )
    for segment, concept in zip(made.SegmentSequence, concepts, strict=True):
        if concept.modifier is not None:
            segment.SegmentedPropertyTypeCodeSequence[0].SegmentedPropertyTypeModifierCodeSequence = [
                concept.modifier
            ]
    settle_references(made, source)
    if source.item.kind != "volume":
        # Without a place in the patient, what tells the directions (PS3.3 section C.7.6.1.1.1); empty where nothing is known.
        made.PatientOrientation = source.attributes.get("00200020", {}).get("Value", "")
    finish(made, making)
    organization = derived_uid("dimensions", str(made.SOPInstanceUID))
    for one in (*made.DimensionOrganizationSequence, *made.DimensionIndexSequence):
        one.DimensionOrganizationUID = organization
    return made


def _described(number: int, name: str, concept: Concept, making: Making) -> SegmentDescription:
    return SegmentDescription(
        segment_number=number,
        segment_label=name[:LONG],
        segmented_property_category=codes.SCT.SpatialAndRelationalConcept,
        segmented_property_type=concept.code,
        algorithm_type=SegmentAlgorithmTypeValues.AUTOMATIC,
        algorithm_identification=making.algorithm(),
    )
