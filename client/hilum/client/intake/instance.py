"""What intake knows of one file before it decodes a pixel: typed facts, and nothing else of the data set.

The identifiers are for grouping in memory and never shown. Axes are LPS: x to the patient's left, y to the back, z to
the head. Attributes are named as in DICOM PS3.6; their meaning is in PS3.3 sections C.7.6 (images) and C.11 (look-up
tables).
"""

from dataclasses import dataclass, field
from typing import Literal, get_args

from hilum.client.intake.no_suv import NoSuv
from hilum.client.intake.quantity import HOUNSFIELD
from hilum.common.errors import DataError

PixelKind = Literal["whole", "float", "double"]
"""Whole numbers (7FE0,0010), or floating point numbers of 32 (7FE0,0008) or 64 bits (7FE0,0009)."""

Family = Literal[
    "radiograph", "mammogram", "ct", "mr", "pet", "ultrasound", "angiogram", "photograph", "secondary"
]
"""What made the image. `secondary` is a secondary capture: it may be anything, a screen save among them."""

FAMILIES: tuple[Family, ...] = get_args(Family)

IMAGES_HELP = (
    f"What made the folder's pictures and NIfTI files, else set aside. One of {', '.join(FAMILIES)}; "
    "NIfTI is ct, mr or pet."
)

MAX_EDGE = 16_384
"""Rows or columns of one frame or picture; no detector has as many."""

MAX_FRAMES = 1 << 17
"""Frames of one object, image or segmentation: a hundred structures on a thousand slices, or an hour of film."""

STACKED_FAMILIES: frozenset[Family] = frozenset({"ct", "mr", "pet"})
"""The families whose slices make volumes."""


@dataclass(frozen=True)
class PixelFormat:
    """How pixels are stored (PS3.3 sections C.7.6.3, C.7.6.24 and C.7.6.25).

    Attributes:
        syntax: Transfer syntax UID (0002,0010).
        photometric: Photometric interpretation, upper case, as the file states it.
        planar: True where colour planes follow one another instead of pixels.
        kind: Of numbers that are not whole, all bits are stored, whatever the header says.
    """

    syntax: str
    rows: int
    columns: int
    frames: int
    samples: int
    photometric: str
    planar: bool
    bits_allocated: int
    bits_stored: int
    high_bit: int
    signed: bool
    kind: PixelKind = "whole"


@dataclass(frozen=True)
class Window:
    """A VOI window (PS3.3 section C.11.2.1.2)."""

    center: float
    width: float
    function: Literal["LINEAR", "LINEAR_EXACT", "SIGMOID"]


@dataclass(frozen=True)
class Contrast:
    """What tells frames at one place apart: echo, phase, coil, time, ... None or empty where the file says nothing.

    Attributes:
        component: Of complex MR data: `M`, `P`, `R`, `I` or empty.
        temporal_position: Temporal position identifier or index (0020,0100), (0020,9128).
        acquisition_time_s: Seconds after midnight.
        stack: Stack identifier of an enhanced object (0020,9056).
        kvp_kv: Peak voltage of the tube (0018,0060); of CT alone, as are the next two.
        kernel: Convolution kernel (0018,1210).
        contrast_agent: Contrast/bolus agent (0018,0010), which is free text.
    """

    vendor: str = ""
    image_type: tuple[str, ...] = ()
    component: str = ""
    coil: str = field(default="", repr=False)
    echo_number: int | None = None
    echo_time_ms: float | None = None
    repetition_time_ms: float | None = None
    inversion_time_ms: float | None = None
    flip_angle_deg: float | None = None
    b_value: float | None = None
    gradient: tuple[float, ...] | None = None
    temporal_position: float | None = None
    trigger_time_ms: float | None = None
    acquisition_number: int | None = None
    acquisition_time_s: float | None = field(default=None, repr=False)
    instance_number: int | None = None
    stack: str = field(default="", repr=False)
    kvp_kv: float | None = None
    kernel: str = field(default="", repr=False)
    contrast_agent: str = field(default="", repr=False)


@dataclass(frozen=True)
class Frame:
    """One plane of an instance: where it lies, and how its stored values become values with units.

    Attributes:
        index: Which frame of the file, from 0.
        spacing_mm: Distance between rows and between columns, or None.
        thickness_mm: Nominal slice thickness (0018,0050), or None.
        position_mm: LPS position of the first voxel's centre, or None.
        orientation: Direction cosines of a row and of a column, or None.
        slope: Modality rescale (PS3.3 section C.11.1); a frame of an enhanced object has its own.
        quantity: What the rescaled values of a CT measure; see `quantity_of`.
    """

    index: int
    spacing_mm: tuple[float, float] | None = None
    thickness_mm: float | None = None
    position_mm: tuple[float, float, float] | None = None
    orientation: tuple[float, ...] | None = None
    slope: float = 1.0
    intercept: float = 0.0
    window: Window | None = None
    contrast: Contrast = Contrast()
    quantity: str = ""

    @property
    def hounsfield(self) -> bool:
        """Whether the rescaled values are Hounsfield units."""
        return self.quantity == HOUNSFIELD


@dataclass(frozen=True)
class Region:
    """A calibrated part of an ultrasound image (PS3.3 section C.8.5.5), in pixels, both ends inside.

    Attributes:
        spacing_mm: Distance between rows and between columns, or None where the region is not a plane of space.
    """

    row_first: int
    column_first: int
    row_last: int
    column_last: int
    spacing_mm: tuple[float, float] | None = None


@dataclass(frozen=True)
class Instance:
    """One file's technical facts.

    Attributes:
        patient_id: Without blanks and NUL around it; falls back to the study where the file has none.
        frame_of_reference: Frame of reference UID, or empty.
        image_type: Upper case.
        padding: Lowest and highest stored value that means "no data", or None.
        inverted: MONOCHROME1, low values bright.
        has_lut: A modality LUT or palette stands in the data set, so the whole of it is needed to decode.
        mosaic: A Siemens mosaic: many slices tiled into one plane.
        regions: Of ultrasound; empty elsewhere.
        frame_time_ms: Of a cine; None elsewhere.
        burned_in: Whether BurnedInAnnotation (0028,0301) says that text stands in the pixels.
        lossy: The file says that its pixels went through a compression that loses (0028,2110).
        suv: Of PET: what a rescaled value is multiplied by to be in SUV by body weight, or why there is nothing; None elsewhere.
            Copies are compared without it.
        pixel_offset: Where the value of the pixel data starts in the file as it lies there, or None if not known.
    """

    sop_uid: str = field(repr=False)
    series_uid: str = field(repr=False)
    study_uid: str = field(repr=False)
    patient_id: str = field(repr=False)
    frame_of_reference: str = field(repr=False)
    sop_class: str
    family: Family
    image_type: tuple[str, ...]
    pixels: PixelFormat
    frames: tuple[Frame, ...]
    padding: tuple[int, int] | None = None
    has_lut: bool = False
    mosaic: bool = False
    regions: tuple[Region, ...] = ()
    frame_time_ms: float | None = None
    pixel_offset: int | None = None
    burned_in: bool = False
    lossy: bool = False
    suv: float | NoSuv | None = field(default=None, repr=False, compare=False)

    @property
    def inverted(self) -> bool:
        """Whether low values are bright."""
        return self.pixels.photometric == "MONOCHROME1"

    @property
    def localizer(self) -> bool:
        """Whether the file says that it is a scout image."""
        return "LOCALIZER" in self.image_type


def read_family(name: str | None) -> Family | None:
    """Return the family of this name; None for None.

    Raises:
        DataError: If there is no such family.
    """
    for family in FAMILIES:
        if family == name:
            return family
    if name is not None:
        raise DataError(f"there is no such family; --images takes one of {', '.join(FAMILIES)}")
    return None
