"""DICOM files with markers in every corner, and the search for them."""

import base64
import csv
import itertools
from pathlib import Path

import numpy as np
import pydicom
from pydicom.datadict import DicomDictionary
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.sequence import Sequence
from pydicom.uid import UID, ExplicitVRLittleEndian

MARKER = "ZZPHIMARK"
UID_ROOT = "1.2.826.0.1.99777555131"
DATE, TIME = "19370213", "031337.424242"
SECRETS = (MARKER, "99777555131", DATE, "031337.424", "777777.13")
CLASSES = {
    "CR": "1.2.840.10008.5.1.4.1.1.1",
    "CT": "1.2.840.10008.5.1.4.1.1.2",
    "MR": "1.2.840.10008.5.1.4.1.1.4",
    "US": "1.2.840.10008.5.1.4.1.1.6.1",
    "SC": "1.2.840.10008.5.1.4.1.1.7",
    "PDF": "1.2.840.10008.5.1.4.1.1.104.1",
}
TEXT_VRS = {"AE", "LO", "LT", "PN", "SH", "ST", "UC", "UR", "UT"}

# What says how to read the file keeps its meaning.
KEPT = {"SpecificCharacterSet", "TimezoneOffsetFromUTC", "Modality", "ImageType", "VOILUTFunction"}
GROUPS = (0x0008, 0x0010, 0x0012, 0x0018, 0x0020, 0x0032, 0x0038, 0x0040, 0x0088, 0x4008)
NESTED = (
    "RequestAttributesSequence",
    "ReferencedStudySequence",
    "ScheduledProtocolCodeSequence",
    "OtherPatientIDsSequence",
    "RelatedSeriesSequence",
)
ONE_A_SERIES = ("Manufacturer", "ReceiveCoilName", "ConvolutionKernel", "ContrastBolusAgent")
"""What tells the slices of one volume from those of another: markers like the rest, but the same on each slice."""


class Planter:
    """Plants numbered markers and remembers where."""

    def __init__(self) -> None:
        self.places: set[tuple[str, str]] = set()
        self._number = itertools.count()

    def text(self, kind: str, place: str) -> str:
        self.places.add((kind, place))
        return f"{MARKER}{next(self._number) % 100_000:05d}"

    def uid(self, kind: str, place: str) -> str:
        self.places.add((kind, place))
        return f"{UID_ROOT}.{next(self._number)}"


def text_keywords() -> list[tuple[str, str]]:
    """Every attribute of these groups that holds free text, a name, a title or an address."""
    found = []
    for tag, (vr, _, _, retired, keyword) in DicomDictionary.items():
        if tag >> 16 in GROUPS and vr in TEXT_VRS and keyword and not retired and keyword not in KEPT:
            found.append((keyword, vr))
    return sorted(found)


def plant_attributes(data: Dataset, kind: str, planter: Planter) -> None:
    for keyword, _vr in text_keywords():
        setattr(data, keyword, planter.text(kind, keyword))
    for keyword in ("StudyID", "AccessionNumber", "PatientID", "PatientName", "IssuerOfPatientID"):
        setattr(data, keyword, planter.text(kind, keyword))
    for keyword in ("StudyDate", "SeriesDate", "AcquisitionDate", "ContentDate", "PatientBirthDate"):
        planter.places.add((kind, keyword))
        setattr(data, keyword, DATE)
    for keyword in ("StudyTime", "SeriesTime", "AcquisitionTime", "ContentTime", "PatientBirthTime"):
        planter.places.add((kind, keyword))
        setattr(data, keyword, TIME)
    data.AcquisitionDateTime = DATE + TIME
    data.PatientWeight = "777777.13"
    planter.places |= {(kind, "AcquisitionDateTime"), (kind, "PatientWeight")}
    for keyword in ("InstanceCreatorUID", "SynchronizationFrameOfReferenceUID", "IrradiationEventUID"):
        setattr(data, keyword, planter.uid(kind, keyword))


def plant_private(data: Dataset, kind: str, planter: Planter) -> None:
    for group in (0x0009, 0x0029, 0x7053):
        block = data.private_block(group, planter.text(kind, f"private creator {group}"), create=True)
        for offset, vr in enumerate(("LO", "UN", "OB", "UT", "PN", "LT")):
            value = planter.text(kind, f"private {group} {vr}")
            block.add_new(
                offset, vr, value.encode() + b" " * (len(value) % 2) if vr in ("UN", "OB") else value
            )


def plant_nested(data: Dataset, kind: str, planter: Planter) -> None:
    """Sequences within sequences to depth five, with markers on every level."""
    holder = data
    for depth, keyword in enumerate(NESTED):
        inner = Dataset()
        for name in ("PatientID", "CodeMeaning", "TextValue", "PersonName", "StudyDescription"):
            setattr(inner, name, planter.text(kind, f"depth {depth + 1} {name}"))
        inner.StudyInstanceUID = planter.uid(kind, f"depth {depth + 1} uid")
        setattr(holder, keyword, Sequence([inner]))
        holder = inner


def plant_overlay_and_icon(data: Dataset, kind: str, planter: Planter) -> None:
    if kind in ("CR", "SC", "US"):
        data.add_new(0x60000010, "US", 8)
        data.add_new(0x60000011, "US", 16)
        data.add_new(0x60000022, "LO", planter.text(kind, "overlay description"))
        data.add_new(0x60001500, "LO", planter.text(kind, "overlay label"))
        data.add_new(0x60003000, "OB", planter.text(kind, "overlay bits").encode().ljust(16))
    icon = Dataset()
    icon.Rows = icon.Columns = 4
    icon.PixelData = planter.text(kind, "icon pixels").encode().ljust(16)
    icon["PixelData"].VR = "OB"
    data.IconImageSequence = Sequence([icon])
    data.ICCProfile = b"\0" * 64 + b"desc" + planter.text(kind, "ICC profile").encode().ljust(20)
    data.DataSetTrailingPadding = planter.text(kind, "trailing padding").encode().ljust(32)


def dicom_bytes(data: Dataset, path: Path, kind: str, planter: Planter) -> None:
    """Write a file with markers around the data set too: preamble, meta, and behind its end."""
    meta = FileMetaDataset()
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    meta.MediaStorageSOPClassUID = data.SOPClassUID
    meta.MediaStorageSOPInstanceUID = data.SOPInstanceUID
    meta.ImplementationClassUID = UID(planter.uid(kind, "implementation class"))
    meta.ImplementationVersionName = planter.text(kind, "implementation version")
    for name in ("SourceApplicationEntityTitle", "SendingApplicationEntityTitle"):
        setattr(meta, name, planter.text(kind, name))
    meta.ReceivingApplicationEntityTitle = planter.text(kind, "ReceivingApplicationEntityTitle")
    meta.PrivateInformationCreatorUID = UID(planter.uid(kind, "private information creator"))
    meta.PrivateInformation = planter.text(kind, "private information").encode() + b" " * (14 % 2)
    data.file_meta = meta
    data.preamble = planter.text(kind, "preamble").encode().ljust(128, b"\0")
    path.parent.mkdir(parents=True, exist_ok=True)
    pydicom.dcmwrite(path, data, enforce_file_format=False, little_endian=True, implicit_vr=False)
    with path.open("ab") as file:
        file.write(planter.text(kind, "behind the end").encode())


def image(kind: str, pixels: np.ndarray, series: str, patient: str, planter: Planter) -> Dataset:
    data = Dataset()
    plant_attributes(data, kind, planter)
    plant_private(data, kind, planter)
    plant_nested(data, kind, planter)
    plant_overlay_and_icon(data, kind, planter)
    bits = 8 * pixels.dtype.itemsize
    for name, value in {
        "SOPClassUID": CLASSES[kind],
        "SOPInstanceUID": planter.uid(kind, "SOPInstanceUID"),
        "SeriesInstanceUID": f"{UID_ROOT}.{series}.1",
        "StudyInstanceUID": f"{UID_ROOT}.{series}.2",
        "FrameOfReferenceUID": f"{UID_ROOT}.{series}.3",
        "PatientID": f"{MARKER}{patient}",
        "Modality": "OT" if kind == "SC" else kind,
        "ImageType": ["ORIGINAL", "PRIMARY", "AXIAL"],
        "Rows": pixels.shape[0],
        "Columns": pixels.shape[1],
        "SamplesPerPixel": 1,
        "PhotometricInterpretation": "MONOCHROME2",
        "BitsAllocated": bits,
        "BitsStored": bits,
        "HighBit": bits - 1,
        "PixelRepresentation": 0,
        "PixelData": pixels.tobytes(),
    }.items():
        setattr(data, name, value)
    planter.places |= {(kind, f"{name}InstanceUID") for name in ("Series", "Study")}
    planter.places |= {(kind, "FrameOfReferenceUID")}
    data["PixelData"].VR = "OW" if bits > 8 else "OB"
    return data


def write_series(folder: Path, kind: str, number: int, planter: Planter, rng) -> None:
    scanner = {keyword: planter.text(kind, keyword) for keyword in ONE_A_SERIES}
    for k in range(6):
        pixels = rng.integers(0, 900, (24, 24)).astype(np.uint16)
        data = image(kind, pixels, f"{number}", f"-P{number}", planter)
        for keyword, text in scanner.items():
            setattr(data, keyword, text)
        data.ImagePositionPatient = [-10, -20, 3 * k]
        data.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
        data.PixelSpacing = [0.7, 0.7]
        data.SliceThickness = 3
        data.InstanceNumber = k + 1
        data.RescaleSlope, data.RescaleIntercept = 1, -200 if kind == "CT" else 0
        dicom_bytes(data, folder / f"{MARKER}-{kind}-{k}.dcm", kind, planter)


def write_site(folder: Path, site: int, planter: Planter) -> None:
    """Twelve labelled radiographs, a series of CT and MR each, ultrasound, captures, a document, damaged files."""
    rng = np.random.default_rng(site)
    archive = folder / "dicom" / f"{MARKER}-ward"
    planter.places |= {("archive", "folder name"), ("archive", "file name"), ("labels", "patient")}
    rows = []
    for n in range(12):
        pixels = rng.integers(0, 4000, (32, 32)).astype(np.uint16) // (1 + n % 2)
        data = image("CR", pixels, f"{site}77{n}", f"-{site}-{n}", planter)
        dicom_bytes(data, archive / f"{MARKER} {n}.dcm", "CR", planter)
        rows.append((data.SOPInstanceUID, f"{MARKER}-{site}-{n}", str(n % 2)))
    with (folder / "labels.csv").open("w", newline="") as file:
        csv.writer(file).writerows([("sop_instance_uid", "patient", "label"), *rows])
    write_series(archive / "ct", "CT", 10 * site + 1, planter, rng)
    write_series(archive / "mr", "MR", 10 * site + 2, planter, rng)
    for kind in ("US", "SC"):
        for n in range(2):
            pixels = rng.integers(0, 255, (64, 64)).astype(np.uint8)
            data = image(kind, pixels, f"{site}88{n}", f"-{kind}", planter)
            dicom_bytes(data, archive / f"{MARKER}-{kind}{n}.dcm", kind, planter)
    write_document(archive / f"{MARKER}-letter.dcm", planter)
    write_damaged(archive, planter)


def write_document(path: Path, planter: Planter) -> None:
    data = image("PDF", np.zeros((2, 2), np.uint8), "99", "-PDF", planter)
    for name in ("Rows", "Columns", "PixelData"):
        delattr(data, name)
    data.DocumentTitle = planter.text("PDF", "document title")
    data.EncapsulatedDocument = f"%PDF {planter.text('PDF', 'document')}".encode().ljust(40)
    dicom_bytes(data, path, "PDF", planter)


def write_damaged(archive: Path, planter: Planter) -> None:
    """Each kind of file cut at several places, and with bytes of its header flipped."""
    rng = np.random.default_rng(1)
    for source in sorted(archive.rglob("*.dcm"))[::5]:
        content = source.read_bytes()
        for share in (0.02, 0.3, 0.7, 0.97):
            name = f"{source.stem}-{MARKER}-cut{share}.dcm"
            (archive / "cut" / name).parent.mkdir(exist_ok=True)
            (archive / "cut" / name).write_bytes(content[: int(len(content) * share)])
        flipped = bytearray(content)
        for place in rng.integers(132, len(content) // 2, 12):
            flipped[place] ^= 0xFF
        (archive / "cut" / f"{source.stem}-{MARKER}-flipped.dcm").write_bytes(bytes(flipped))
    (archive / f"{MARKER}.txt").write_text(f"{MARKER} is not DICOM")
    planter.places |= {("archive", "cut file"), ("archive", "flipped file"), ("archive", "other file")}


def disguises(secret: str) -> list[bytes]:
    """A secret in the forms in which it could slip through."""
    plain = secret.encode()
    forms = [plain, plain.lower(), secret.encode("utf-16-le"), secret.encode("utf-16-be")]
    forms += [plain.hex().encode(), plain.hex().upper().encode(), plain[::-1]]
    for shift in range(3):  # base64 of a text that the secret stands anywhere in
        whole = base64.b64encode(b"\0" * shift + plain)
        forms.append(whole[-(-8 * shift // 6) : -4].rstrip(b"="))
    return [form for form in forms if len(form) >= 8]


FORMS = [form for secret in SECRETS for form in disguises(secret)]


def leaks(content: bytes) -> list[bytes]:
    return [form for form in FORMS if form in content]
