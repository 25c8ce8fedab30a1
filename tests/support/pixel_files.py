"""Small DICOM files in every transfer syntax, made from known pixels by the packages' own encoders."""

import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
import pydicom
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.filewriter import dcmwrite
from pydicom.uid import UID, ExplicitVRBigEndian
from rle.utils import encode_pixel_data

from hilum.client.intake.instance import Frame, Instance, PixelFormat

IMPLICIT, EXPLICIT, BIG, DEFLATED = (f"1.2.840.10008.1.2{end}" for end in ("", ".1", ".2", ".1.99"))
ENCAPSULATED_NATIVE = "1.2.840.10008.1.2.1.98"
RLE = "1.2.840.10008.1.2.5"
(
    BASELINE,
    EXTENDED,
    LOSSLESS,
    LOSSLESS_SV1,
    JPEGLS,
    JPEGLS_NEAR,
    J2K_LOSSLESS,
    J2K,
    HT_LOSSLESS,
    HT_RPCL,
    HT,
) = (f"1.2.840.10008.1.2.4.{end}" for end in (50, 51, 57, 70, 80, 81, 90, 91, 201, 202, 203))


def _rle(frame: np.ndarray, bits: int) -> bytes:
    samples = frame.shape[2] if frame.ndim == 3 else 1
    return bytes(
        encode_pixel_data(
            frame.tobytes(),
            rows=frame.shape[0],
            columns=frame.shape[1],
            samples_per_pixel=samples,
            bits_allocated=8 * frame.dtype.itemsize,
            number_of_frames=1,
            byteorder="<",
            planar_configuration=0,
        )
    )


ENCODERS: dict[str, Callable[[np.ndarray, int], bytes]] = {
    RLE: _rle,
    BASELINE: lambda x, _b: imagecodecs.jpeg8_encode(x, 97),
    EXTENDED: lambda x, _b: imagecodecs.jpeg8_encode(x, 97, bitspersample=12),
    LOSSLESS: lambda x, b: imagecodecs.jpeg8_encode(x, lossless=True, predictor=4, bitspersample=b),
    LOSSLESS_SV1: lambda x, b: imagecodecs.jpeg8_encode(x, lossless=True, predictor=1, bitspersample=b),
    JPEGLS: lambda x, _b: imagecodecs.jpegls_encode(x),
    JPEGLS_NEAR: lambda x, _b: imagecodecs.jpegls_encode(x, level=2),
    J2K_LOSSLESS: lambda x, b: imagecodecs.jpeg2k_encode(
        x, level=0, reversible=True, codecformat="j2k", bitspersample=b
    ),
    J2K: lambda x, b: imagecodecs.jpeg2k_encode(x, level=60, codecformat="j2k", bitspersample=b),
    HT_LOSSLESS: lambda x, _b: imagecodecs.htj2k_encode(x, reversible=True),
    HT_RPCL: lambda x, _b: imagecodecs.htj2k_encode(x, reversible=True),
    HT: lambda x, _b: imagecodecs.htj2k_encode(x, level=0.0005, reversible=False),
}
FLOATS = {"FloatPixelData": "float", "DoubleFloatPixelData": "double"}
LOSSY = {BASELINE: 8, EXTENDED: 60, JPEGLS_NEAR: 2, J2K: 60, HT: 60}
"""The largest error of a sample that each lossy encoder above may make."""


def picture(shape=(40, 56), bits=12, *, signed=False, seed=0) -> np.ndarray:
    """Smooth with a little noise, over most of the range of `bits`, without any symmetry."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[0 : shape[0], 0 : shape[1]]
    wave = 0.45 + 0.3 * np.sin(x / 9 + y / 30) + 0.002 * y
    values = (wave + rng.normal(0, 0.004, shape[:2])).clip(0, 1) * ((1 << bits) - 1)
    dtype = np.dtype(f"u{1 if bits <= 8 else 2}")
    if len(shape) == 3:
        planes = [np.roll(values, 3 * k, axis=1) * (1 - 0.2 * k) for k in range(shape[2])]
        return np.stack(planes, axis=-1).astype(dtype)
    if signed:
        return (values - (1 << (bits - 1))).astype(dtype.str.replace("u", "i"))
    return values.astype(dtype)


def facts(dataset: Dataset, **changes: Any) -> Instance:
    """What intake would say of a data set, read by pydicom."""
    kind = next((kind for name, kind in FLOATS.items() if name in dataset), "whole")
    bits = int(dataset.BitsAllocated)
    frames = int(dataset.get("NumberOfFrames") or 1)
    padding = dataset.get("PixelPaddingValue")
    pixels = PixelFormat(
        syntax=str(dataset.file_meta.TransferSyntaxUID),
        rows=int(dataset.Rows),
        columns=int(dataset.Columns),
        frames=frames,
        samples=int(dataset.get("SamplesPerPixel", 1)),
        photometric=str(dataset.PhotometricInterpretation),
        planar=bool(dataset.get("PlanarConfiguration", 0)),
        bits_allocated=bits,
        bits_stored=int(dataset.BitsStored) if kind == "whole" else bits,
        high_bit=int(dataset.HighBit) if kind == "whole" else bits - 1,
        signed=bool(dataset.get("PixelRepresentation", 0)) and kind == "whole",
        kind=kind,
    )
    values: dict[str, Any] = {
        "sop_uid": "1.2.3",
        "series_uid": "1.2.4",
        "study_uid": "1.2.5",
        "patient_id": "ZZPHI",
        "frame_of_reference": "",
        "sop_class": "",
        "family": "ct",
        "image_type": (),
        "pixels": pixels,
        "frames": tuple(Frame(index) for index in range(frames)),
        "padding": None if padding is None else (int(padding), int(padding)),
        "has_lut": "ModalityLUTSequence" in dataset or "VOILUTSequence" in dataset,
        **changes,
    }
    return Instance(**values)


def dataset_of(pixels: np.ndarray, syntax: str, **attributes: Any) -> Dataset:
    """A data set that describes (N, H, W[, 3]) pixels, without them."""
    dataset = Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = UID(syntax)
    dataset.file_meta.MediaStorageSOPClassUID = dataset.SOPClassUID = "1.2.840.10008.5.1.4.1.1.3.1"
    dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID = "1.2.3"
    dataset.StudyInstanceUID, dataset.SeriesInstanceUID = "1.2.5", "1.2.4"
    dataset.PatientName = "ZZPHI^NAME"
    bits = 8 * pixels.dtype.itemsize
    samples = pixels.shape[3] if pixels.ndim == 4 else 1
    values = {
        "SamplesPerPixel": samples,
        "PhotometricInterpretation": "MONOCHROME2" if samples == 1 else "RGB",
        "NumberOfFrames": len(pixels),
        "Rows": pixels.shape[1],
        "Columns": pixels.shape[2],
        "BitsAllocated": bits,
        "BitsStored": bits,
        "PixelRepresentation": int(pixels.dtype.kind == "i"),
        **({"PlanarConfiguration": 0} if samples > 1 else {}),
        **attributes,
    }
    values.setdefault("HighBit", values["BitsStored"] - 1)
    for name, value in values.items():
        setattr(dataset, name, value)
    return dataset


def write_native(path: Path, pixels: np.ndarray, syntax: str, **attributes: Any) -> Instance:
    """Uncompressed (N, H, W[, 3]) pixels. Gives what the file's header says."""
    dataset = dataset_of(pixels, syntax, **attributes)
    big = syntax == BIG
    content = pixels.astype(pixels.dtype.newbyteorder(">" if big else "<")).tobytes()
    return _write(path, dataset, content, "OB" if pixels.dtype.itemsize == 1 else "OW")


def write_raw(path: Path, pixels: np.ndarray, content: bytes, syntax: str, **attributes: Any) -> Instance:
    """Uncompressed pixels whose bytes the caller laid out."""
    vr = attributes.pop("vr", "OB" if pixels.dtype.itemsize == 1 else "OW")
    return _write(path, dataset_of(pixels, syntax, **attributes), content, vr)


def _write(path: Path, dataset: Dataset, content: bytes, vr: str) -> Instance:
    dataset.PixelData = content + b"\0" * (len(content) % 2)
    dataset["PixelData"].VR = vr
    dcmwrite(path, dataset, enforce_file_format=True)
    return facts(dataset)


def write_encoded(
    path: Path, pixels: np.ndarray, syntax: str, *, streams: list[bytes] | None = None, **attributes: Any
) -> Instance:
    """Compressed (N, H, W[, 3]) pixels; `streams` stand in for what the encoder would give."""
    dataset = dataset_of(pixels, syntax, **attributes)
    if streams is None:
        unsigned = pixels
        if syntax not in {J2K_LOSSLESS, J2K, HT_LOSSLESS, HT_RPCL, HT} and pixels.dtype.kind == "i":
            unsigned = pixels.view(pixels.dtype.str.replace("i", "u")) & ((1 << dataset.BitsStored) - 1)
        streams = [ENCODERS[syntax](np.ascontiguousarray(frame), dataset.BitsStored) for frame in unsigned]
    dataset.PixelData = encapsulate(streams)
    dataset["PixelData"].VR = "OB"
    dcmwrite(path, dataset, enforce_file_format=True)
    return facts(dataset)


def write_floats(path: Path, pixels: np.ndarray, syntax: str, **attributes: Any) -> Instance:
    """(N, H, W) floating point pixels, with the attributes that PS3.3 section C.7.6.24 or C.7.6.25 asks for."""
    dataset = dataset_of(pixels, syntax, **attributes)
    for name in ("BitsStored", "HighBit", "PixelRepresentation"):
        if name not in attributes:
            delattr(dataset, name)
    name = "FloatPixelData" if pixels.dtype.itemsize == 4 else "DoubleFloatPixelData"
    setattr(dataset, name, pixels.astype(pixels.dtype.newbyteorder(">" if syntax == BIG else "<")).tobytes())
    dcmwrite(path, dataset, enforce_file_format=True)
    return facts(dataset)


def write_any(path: Path, pixels: np.ndarray, syntax: str, **attributes: Any) -> Instance:
    """Pixels in any syntax."""
    write = write_encoded if syntax in ENCODERS else write_native
    return write(path, pixels, syntax, **attributes)


def deflate_bomb(path: Path, size_bytes: int) -> Instance:
    """A deflated file whose data set is `size_bytes` of zeros."""
    pixels = np.zeros((1, 8, 8), np.uint8)
    known = write_native(path, pixels, DEFLATED)
    content = path.read_bytes()
    meta_end = 132 + 12 + int.from_bytes(content[140:144], "little")
    engine = zlib.compressobj(9, wbits=-zlib.MAX_WBITS)
    bomb = engine.compress(bytes(size_bytes)) + engine.flush()
    path.write_bytes(content[:meta_end] + bomb)
    return known


assert ExplicitVRBigEndian == BIG
assert pydicom.uid.DeflatedExplicitVRLittleEndian == DEFLATED
