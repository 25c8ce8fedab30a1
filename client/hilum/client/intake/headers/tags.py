"""Which attributes intake takes from the top level of a header, and the value that carries them."""

from collections.abc import Mapping
from typing import NamedTuple, TypeAlias

Value: TypeAlias = str | int | float | bool | tuple[str | int | float, ...] | None
"""Strings are stripped as pydicom strips them, DS and FD are float, IS and US are int, several values are a tuple."""

TAKEN: dict[int, tuple[str, str]] = {
    0x0008_0005: ("SpecificCharacterSet", "CS"),
    0x0008_0008: ("ImageType", "CS"),
    0x0008_0016: ("SOPClassUID", "UI"),
    0x0008_0018: ("SOPInstanceUID", "UI"),
    0x0008_0032: ("AcquisitionTime", "TM"),
    0x0008_0070: ("Manufacturer", "LO"),
    0x0008_9208: ("ComplexImageComponent", "CS"),
    0x0010_0020: ("PatientID", "LO"),
    0x0018_0010: ("ContrastBolusAgent", "LO"),
    0x0018_0050: ("SliceThickness", "DS"),
    0x0018_0060: ("KVP", "DS"),
    0x0018_0080: ("RepetitionTime", "DS"),
    0x0018_0081: ("EchoTime", "DS"),
    0x0018_0082: ("InversionTime", "DS"),
    0x0018_0086: ("EchoNumbers", "IS"),
    0x0018_1060: ("TriggerTime", "DS"),
    0x0018_1063: ("FrameTime", "DS"),
    0x0018_1164: ("ImagerPixelSpacing", "DS"),
    0x0018_1210: ("ConvolutionKernel", "SH"),
    0x0018_1250: ("ReceiveCoilName", "SH"),
    0x0018_1314: ("FlipAngle", "DS"),
    0x0018_2010: ("NominalScannedPixelSpacing", "DS"),
    0x0018_9087: ("DiffusionBValue", "FD"),
    0x0018_9089: ("DiffusionGradientOrientation", "FD"),
    0x0020_000D: ("StudyInstanceUID", "UI"),
    0x0020_000E: ("SeriesInstanceUID", "UI"),
    0x0020_0012: ("AcquisitionNumber", "IS"),
    0x0020_0013: ("InstanceNumber", "IS"),
    0x0020_0032: ("ImagePositionPatient", "DS"),
    0x0020_0037: ("ImageOrientationPatient", "DS"),
    0x0020_0052: ("FrameOfReferenceUID", "UI"),
    0x0020_0100: ("TemporalPositionIdentifier", "IS"),
    0x0028_0002: ("SamplesPerPixel", "US"),
    0x0028_0004: ("PhotometricInterpretation", "CS"),
    0x0028_0006: ("PlanarConfiguration", "US"),
    0x0028_0008: ("NumberOfFrames", "IS"),
    0x0028_0010: ("Rows", "US"),
    0x0028_0011: ("Columns", "US"),
    0x0028_0030: ("PixelSpacing", "DS"),
    0x0028_0100: ("BitsAllocated", "US"),
    0x0028_0101: ("BitsStored", "US"),
    0x0028_0102: ("HighBit", "US"),
    0x0028_0103: ("PixelRepresentation", "US"),
    0x0028_0120: ("PixelPaddingValue", "US or SS"),
    0x0028_0121: ("PixelPaddingRangeLimit", "US or SS"),
    0x0028_0301: ("BurnedInAnnotation", "CS"),
    0x0028_1050: ("WindowCenter", "DS"),
    0x0028_1051: ("WindowWidth", "DS"),
    0x0028_1052: ("RescaleIntercept", "DS"),
    0x0028_1053: ("RescaleSlope", "DS"),
    0x0028_1054: ("RescaleType", "LO"),
    0x0028_1056: ("VOILUTFunction", "CS"),
    0x0028_2110: ("LossyImageCompression", "CS"),
}
"""Tag to keyword and value representation (PS3.6 chapter 6): the allow-list of values."""

NOTED: dict[int, str] = {
    0x0018_6011: "SequenceOfUltrasoundRegions",
    0x0028_1101: "RedPaletteColorLookupTableDescriptor",
    0x0028_3000: "ModalityLUTSequence",
    0x0028_3010: "VOILUTSequence",
    0x5200_9229: "SharedFunctionalGroupsSequence",
}
"""Attributes of which only the presence is taken: `True` in the tags."""


IMPLICIT_PIXEL_VRS = {0x7FE0_0008: "OF", 0x7FE0_0009: "OD", 0x7FE0_0010: "OW"}
"""What pixel data is where no value representation is written (PS3.5 annex A.1)."""


class PixelElement(NamedTuple):
    """Where the pixel data lies (7FE0,0008), (7FE0,0009) or (7FE0,0010).

    Attributes:
        vr: `OB`, `OW`, `OF` or `OD`.
        offset_bytes: Of the value, from the start of the file.
        size_bytes: Of the value; None where it is undefined, as it is for encapsulated frames (PS3.5 section A.4).
    """

    vr: str
    offset_bytes: int
    size_bytes: int | None


class Tags(NamedTuple):
    """The allow-listed attributes of one file, the same whichever way they were read.

    Attributes:
        syntax: Transfer syntax UID; where the file states none, the native one that its encoding shows.
        media_class: Media storage SOP class UID (0002,0002), or empty.
        size_bytes: Of the whole file.
        pixels: None where there is no pixel data.
    """

    values: Mapping[str, Value]
    syntax: str
    media_class: str
    size_bytes: int
    pixels: PixelElement | None

    def get(self, keyword: str) -> Value:
        """Return the value; None where the attribute is absent, or empty and a number."""
        return self.values.get(keyword)

    def __repr__(self) -> str:
        """Without values: identifiers are among them."""
        return f"Tags({len(self.values)} values)"
