"""Which SOP classes are images that Hilum takes, what made them, and why the others are set aside (PS3.4 table B.5-1)."""

from dataclasses import dataclass
from typing import NamedTuple

from hilum.client.intake.instance import Family
from hilum.client.intake.reasons import Reason

_STORAGE = "1.2.840.10008.5.1.4.1.1."


class Supported(NamedTuple):
    """A SOP class that is read.

    Attributes:
        colour: Whether three samples a pixel or a palette may be read.
        frames: Whether there may be more than one frame.
        grouped: Geometry and rescale stand in functional groups (PS3.3 section C.7.6.16), so the whole data set is read.
    """

    family: Family
    colour: bool = False
    frames: bool = False
    grouped: bool = False


@dataclass(frozen=True)
class SopClass:
    """One row of the table: what a SOP class is called and what becomes of it."""

    uid: str
    name: str
    taken: Supported | None
    reason: Reason | None


_GREY = {
    "1": ("Computed Radiography", Supported("radiograph")),
    "1.1": ("Digital X-Ray, for presentation", Supported("radiograph")),
    "1.1.1": ("Digital X-Ray, for processing", Supported("radiograph")),
    "1.3": ("Digital Intra-Oral X-Ray, for presentation", Supported("radiograph")),
    "1.3.1": ("Digital Intra-Oral X-Ray, for processing", Supported("radiograph")),
    "1.2": ("Digital Mammography X-Ray, for presentation", Supported("mammogram")),
    "1.2.1": ("Digital Mammography X-Ray, for processing", Supported("mammogram")),
    "2": ("CT", Supported("ct")),
    "2.1": ("Enhanced CT", Supported("ct", frames=True, grouped=True)),
    "2.2": ("Legacy Converted Enhanced CT", Supported("ct", frames=True, grouped=True)),
    "4": ("MR", Supported("mr")),
    "4.1": ("Enhanced MR", Supported("mr", frames=True, grouped=True)),
    "4.4": ("Legacy Converted Enhanced MR", Supported("mr", frames=True, grouped=True)),
    "128": ("Positron Emission Tomography", Supported("pet")),
    "130": ("Enhanced PET", Supported("pet", frames=True, grouped=True)),
    "128.1": ("Legacy Converted Enhanced PET", Supported("pet", frames=True, grouped=True)),
    "12.1": ("X-Ray Angiographic", Supported("angiogram", frames=True)),
    "12.1.1": ("Enhanced XA", Supported("angiogram", frames=True, grouped=True)),
    "12.2": ("X-Ray Radiofluoroscopic", Supported("angiogram", frames=True)),
    "12.2.1": ("Enhanced XRF", Supported("angiogram", frames=True, grouped=True)),
}
_COLOUR = {
    "3": ("Ultrasound Multi-frame (retired)", Supported("ultrasound", colour=True, frames=True)),
    "3.1": ("Ultrasound Multi-frame", Supported("ultrasound", colour=True, frames=True)),
    "6": ("Ultrasound (retired)", Supported("ultrasound", colour=True)),
    "6.1": ("Ultrasound", Supported("ultrasound", colour=True, frames=True)),
    "6.2": ("Enhanced US Volume", Supported("ultrasound", colour=True, frames=True, grouped=True)),
    "7": ("Secondary Capture", Supported("secondary", colour=True, frames=True)),
    "7.2": ("Multi-frame Grayscale Byte Secondary Capture", Supported("secondary", frames=True)),
    "7.3": ("Multi-frame Grayscale Word Secondary Capture", Supported("secondary", frames=True)),
    "7.4": ("Multi-frame True Color Secondary Capture", Supported("secondary", colour=True, frames=True)),
    "77.1.1": ("VL Endoscopic", Supported("photograph", colour=True)),
    "77.1.2": ("VL Microscopic", Supported("photograph", colour=True)),
    "77.1.4": ("VL Photographic", Supported("photograph", colour=True)),
    "77.1.5.1": ("Ophthalmic Photography 8 Bit", Supported("photograph", colour=True, frames=True)),
    "77.1.5.2": ("Ophthalmic Photography 16 Bit", Supported("photograph", colour=True, frames=True)),
    "77.1.7": ("Dermoscopic Photography", Supported("photograph", colour=True)),
}
_OTHER_IMAGES = {
    "4.3": "Enhanced MR Color",
    "5": "Nuclear Medicine (retired)",
    "7.1": "Multi-frame Single Bit Secondary Capture",
    "13.1.1": "X-Ray 3D Angiographic",
    "13.1.2": "X-Ray 3D Craniofacial",
    "13.1.3": "Breast Tomosynthesis",
    "13.1.4": "Breast Projection X-Ray, for presentation",
    "13.1.5": "Breast Projection X-Ray, for processing",
    "14.1": "Intravascular OCT, for presentation",
    "14.2": "Intravascular OCT, for processing",
    "20": "Nuclear Medicine",
    "30": "Parametric Map",
    "77.1.1.1": "Video Endoscopic",
    "77.1.2.1": "Video Microscopic",
    "77.1.3": "VL Slide-Coordinates Microscopic",
    "77.1.4.1": "Video Photographic",
    "77.1.5.4": "Ophthalmic Tomography",
    "77.1.5.5": "Wide Field Ophthalmic Photography, stereographic",
    "77.1.5.6": "Wide Field Ophthalmic Photography, 3D coordinates",
    "77.1.6": "VL Whole Slide Microscopy",
    "481.1": "RT Image",
    "481.2": "RT Dose",
    "66.4": "Segmentation",
    "66.7": "Label Map Segmentation",
    "66.8": "Height Map Segmentation",
}
_NO_IMAGES = {
    "4.2": "MR Spectroscopy",
    "9.1.1": "12-lead ECG Waveform",
    "9.1.2": "General ECG Waveform",
    "9.1.3": "Ambulatory ECG Waveform",
    "9.2.1": "Hemodynamic Waveform",
    "9.3.1": "Cardiac Electrophysiology Waveform",
    "9.4.1": "Basic Voice Audio Waveform",
    "11.1": "Grayscale Softcopy Presentation State",
    "11.2": "Color Softcopy Presentation State",
    "11.3": "Pseudo-Color Softcopy Presentation State",
    "11.4": "Blending Softcopy Presentation State",
    "66": "Raw Data",
    "66.1": "Spatial Registration",
    "66.2": "Spatial Fiducials",
    "66.3": "Deformable Spatial Registration",
    "66.5": "Surface Segmentation",
    "66.6": "Tractography Results",
    "67": "Real World Value Mapping",
    "88.11": "Basic Text SR",
    "88.22": "Enhanced SR",
    "88.33": "Comprehensive SR",
    "88.34": "Comprehensive 3D SR",
    "88.35": "Extensible SR",
    "88.40": "Procedure Log",
    "88.50": "Mammography CAD SR",
    "88.59": "Key Object Selection Document",
    "88.65": "Chest CAD SR",
    "88.67": "X-Ray Radiation Dose SR",
    "91.1": "Microscopy Bulk Simple Annotations",
    "104.1": "Encapsulated PDF",
    "104.2": "Encapsulated CDA",
    "104.3": "Encapsulated STL",
    "481.3": "RT Structure Set",
    "481.4": "RT Beams Treatment Record",
    "481.5": "RT Plan",
    "481.8": "RT Ion Plan",
}

SOP_CLASSES: dict[str, SopClass] = {
    row.uid: row
    for row in (
        *(SopClass(_STORAGE + end, name, taken, None) for end, (name, taken) in {**_GREY, **_COLOUR}.items()),
        *(SopClass(_STORAGE + end, name, None, Reason.OTHER_MODALITY) for end, name in _OTHER_IMAGES.items()),
        *(SopClass(_STORAGE + end, name, None, Reason.NOT_AN_IMAGE) for end, name in _NO_IMAGES.items()),
        SopClass("1.2.840.10008.1.3.10", "Media Storage Directory", None, Reason.NOT_AN_IMAGE),
    )
}
"""What becomes of each SOP class. An object that makes pixels from other images (a segmentation, a dose, a parametric
map) is an image of another kind: it must not be learned from as if a scanner had made it."""


def taken(sop_class: str) -> Supported | None:
    """Return how the images of a SOP class are read; None if they are not."""
    row = SOP_CLASSES.get(sop_class)
    return row.taken if row else None


def refusal(sop_class: str, *, has_rows: bool) -> Reason:
    """Why an object of a class that is not taken is set aside; one that the table lacks is judged by its having rows."""
    row = SOP_CLASSES.get(sop_class)
    if row and row.reason:
        return row.reason
    return Reason.OTHER_MODALITY if has_rows else Reason.NOT_AN_IMAGE
