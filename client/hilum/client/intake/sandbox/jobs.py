"""What a decoding process may be asked, and what it answers: plain facts and arrays, never code or pickles."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from hilum.client.intake.formats.contents import LabelsRead, SegRead, StructuresRead
from hilum.client.intake.formats.folder_volume import ReadVolumes, VolumesRead
from hilum.client.intake.headers.diffusion import Diffusion
from hilum.client.intake.instance import Instance
from hilum.client.intake.pixels.crop import Crop
from hilum.client.intake.pixels.images import Image
from hilum.client.intake.reasons import Reason


@dataclass(frozen=True)
class DecodeImage:
    """One frame to look at, or those of a cine, whole; answered by `ImageDecoded`.

    Attributes:
        search: The part in which text is to be looked for, if in any.
    """

    path: Path = field(repr=False)
    instance: Instance
    indices: tuple[int, ...] = (0,)
    search: Crop | None = None


@dataclass(frozen=True)
class DecodePlanes:
    """Frames as planes of a volume, in the order of `indices`; answered by `PlanesDecoded`."""

    path: Path = field(repr=False)
    instance: Instance
    indices: tuple[int, ...] = (0,)


@dataclass(frozen=True)
class ReadHeader:
    """A header that only pydicom can read; answered by `HeaderRead`."""

    path: Path = field(repr=False)


@dataclass(frozen=True)
class DecodePicture:
    """A picture of a research folder; answered by `ImageDecoded`."""

    path: Path = field(repr=False)
    colour: bool = False


@dataclass(frozen=True)
class ReadDiffusion:
    """The private diffusion elements of one image; answered by `Diffusion`."""

    path: Path = field(repr=False)
    syntax: str


@dataclass(frozen=True)
class ReadAttributes:
    """What an object made from an image takes over of it; answered by `AttributesRead`."""

    path: Path = field(repr=False)
    syntax: str


@dataclass(frozen=True)
class ReadLabels:
    """A NIfTI label volume; answered by `LabelsRead`."""

    path: Path = field(repr=False)


@dataclass(frozen=True)
class ReadObject:
    """A DICOM file that may be a segmentation or a structure set; answered by `SegRead` or `StructuresRead`."""

    path: Path = field(repr=False)


Job: TypeAlias = (
    DecodePicture
    | DecodeImage
    | DecodePlanes
    | ReadHeader
    | ReadDiffusion
    | ReadAttributes
    | ReadVolumes
    | ReadLabels
    | ReadObject
)


@dataclass(frozen=True)
class ImageDecoded:
    """One frame, or those of a cine with an axis for time in front.

    Attributes:
        image: (H, W) uint16, 0 black to 65535 white, or (H, W, 3) uint8 in RGB; (T, H, W) or (T, H, W, 3).
        has_text: Whether there is text in the part that was to be searched; None where none was.
    """

    image: Image = field(repr=False)
    has_text: bool | None = None


@dataclass(frozen=True)
class PlanesDecoded:
    """Planes with units.

    Attributes:
        values: (N, H, W); int16 where all are whole numbers that fit, else float32.
        empty: (N, H, W), True where there is no data, or None where all is.
    """

    values: npt.NDArray[np.float32] | npt.NDArray[np.int16] = field(repr=False)
    empty: npt.NDArray[np.bool_] | None = field(repr=False)


@dataclass(frozen=True)
class HeaderRead:
    """What the header says."""

    instance: Instance


@dataclass(frozen=True)
class AttributesRead:
    """Attributes of the patient and the study.

    Attributes:
        attributes: DICOM JSON (PS3.18 annex F), by tag.
    """

    attributes: dict[str, Any] = field(repr=False)


@dataclass(frozen=True)
class Refused:
    """The file is not taken, and why.

    Attributes:
        uids: SOP, series and study UID where the header gave them; see `Skip`.
    """

    reason: Reason
    uids: tuple[str, str, str] = field(default=("", "", ""), repr=False)


Result: TypeAlias = (
    ImageDecoded
    | PlanesDecoded
    | HeaderRead
    | Diffusion
    | AttributesRead
    | VolumesRead
    | LabelsRead
    | SegRead
    | StructuresRead
    | Refused
)
