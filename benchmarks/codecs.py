"""Compressed series to volume per transfer syntax, beside pydicom with the plugins that a user would install.

    python benchmarks/codecs.py

One CT series a syntax: 120 slices of 512 x 512 and 12 bits with a CT's noise, files on a local disk, warm cache. Ours does what
the indexer does: headers, plan, pixels by a pool of two decoding processes, array in Hounsfield units. The peer reads the
files one after the other with pydicom's `pixel_array`, by pylibjpeg and its permissive plugins where they read the
syntax and by gdcm or pyjpegls elsewhere, then applies slope and intercept and stacks. Both give the same values, checked
first. The limit is the first decoder alone, on streams in memory, twice as fast for two processes.
"""

import logging
import os
import statistics
import sys
import tempfile
import warnings
from collections.abc import Callable
from pathlib import Path

import imagecodecs
import numpy as np
import numpy.typing as npt
import pydicom
import pylibjpeg
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.encaps import encapsulate, generate_frames
from pydicom.pixels import get_decoder
from pydicom.uid import UID, CTImageStorage
from rle.utils import encode_pixel_data
from timing import compare, median_s

from hilum.client.intake.assembly.volume import VolumeBuilder
from hilum.client.intake.headers.read_instance import read_instance
from hilum.client.intake.pixels.decoders import DECODERS
from hilum.client.intake.pixels.images import Plane
from hilum.client.intake.planner import plan_series
from hilum.client.intake.sandbox.jobs import DecodePlanes, PlanesDecoded
from hilum.client.intake.sandbox.pool import DecodePool

EDGE, BITS, SLICES, WORKERS, INTERCEPT = 512, 12, 120, 2, -1024
Pixels = npt.NDArray[np.uint16]


def rle(pixels: Pixels) -> bytes:
    """RLE, as pylibjpeg writes it."""
    size = {
        "rows": EDGE,
        "columns": EDGE,
        "samples_per_pixel": 1,
        "bits_allocated": 16,
        "number_of_frames": 1,
    }
    return bytes(encode_pixel_data(pixels.tobytes(), byteorder="<", **size))


SYNTAXES: list[tuple[str, str, str, Callable[[Pixels], bytes]]] = [
    ("RLE", "1.2.840.10008.1.2.5", "pylibjpeg", rle),
    (
        "JPEG lossless",
        "1.2.840.10008.1.2.4.70",
        "gdcm",
        lambda x: imagecodecs.jpeg8_encode(x, lossless=True, predictor=1, bitspersample=BITS),
    ),
    ("JPEG-LS", "1.2.840.10008.1.2.4.80", "pyjpegls", imagecodecs.jpegls_encode),
    (
        "JPEG 2000",
        "1.2.840.10008.1.2.4.90",
        "pylibjpeg",
        lambda x: imagecodecs.jpeg2k_encode(
            x, level=0, reversible=True, codecformat="j2k", bitspersample=BITS
        ),
    ),
    ("HTJ2K", "1.2.840.10008.1.2.4.201", "pylibjpeg", lambda x: imagecodecs.htj2k_encode(x, reversible=True)),
]


def picture(seed: int) -> Pixels:
    """Return a smooth body with a CT's noise."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[0:EDGE, 0:EDGE]
    body = 1200 + 900 * np.sin(x / 40 + seed) * np.cos(y / 55)
    pixels: Pixels = (body + rng.normal(0, 12, body.shape)).clip(0, (1 << BITS) - 1).astype(np.uint16)
    return pixels


def write(path: Path, syntax: str, number: int, encode: Callable[[Pixels], bytes]) -> None:
    """Write one slice in one syntax."""
    dataset = Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = UID(syntax)
    dataset.file_meta.MediaStorageSOPClassUID = dataset.SOPClassUID = CTImageStorage
    dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID = f"1.2.3.{number + 1}"
    dataset.StudyInstanceUID, dataset.SeriesInstanceUID, dataset.PatientID = "1.2.4", "1.2.5", "phantom"
    dataset.ImageOrientationPatient, dataset.ImagePositionPatient = [1, 0, 0, 0, 1, 0], [-180, -180, number]
    dataset.PixelSpacing, dataset.InstanceNumber = [0.7, 0.7], number + 1
    dataset.Rows = dataset.Columns = EDGE
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, "MONOCHROME2"
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit = 16, BITS, BITS - 1
    dataset.PixelRepresentation, dataset.RescaleSlope, dataset.RescaleIntercept = 0, 1, INTERCEPT
    dataset.PixelData = encapsulate([encode(picture(number))])
    dataset["PixelData"].VR = "OB"
    pydicom.dcmwrite(path, dataset, enforce_file_format=True)


def ours(paths: list[Path], pool: DecodePool) -> npt.NDArray[np.generic]:
    """Return what the indexer does with a series."""
    instances = [read_instance(path) for path in paths]
    (planned,) = plan_series(instances).volumes
    jobs = (DecodePlanes(paths[index], instances[index], (frame,)) for index, frame in planned.planes)
    builder = VolumeBuilder(planned)
    for plane, result in zip(planned.planes, pool.map(jobs), strict=True):
        assert isinstance(result, PlanesDecoded)
        builder.add(plane, Plane(result.values[0], None))
    return builder.finished()


def by_pydicom(paths: list[Path], plugin: str) -> npt.NDArray[np.generic]:
    """Return what a user would write."""
    planes = []
    for path in paths:
        dataset = pydicom.dcmread(path)
        dataset.pixel_array_options(decoding_plugin=plugin)
        planes.append(dataset.pixel_array * float(dataset.RescaleSlope) + float(dataset.RescaleIntercept))
    return np.stack(planes)


def measure(name: str, syntax: str, plugin: str, paths: list[Path], pool: DecodePool) -> tuple[float, float]:
    """Compare one syntax, correctness first. Gives the ratio, and what it would be at the limit."""
    first = DECODERS[syntax][0]
    pixels = read_instance(paths[0]).pixels
    streams = [next(generate_frames(pydicom.dcmread(path).PixelData, number_of_frames=1)) for path in paths]
    if plugin not in get_decoder(UID(syntax)).available_plugins:
        sys.exit(f"pydicom finds no {plugin} for {name}: install `.[bench]`")
    if not np.array_equal(ours(paths, pool), by_pydicom(paths, plugin)):
        sys.exit(f"the volumes of {name} differ")
    mine, theirs, limit = median_s(
        lambda: ours(paths, pool),
        lambda: by_pydicom(paths, plugin),
        lambda: [first.decode(stream, pixels) for stream in streams],
    )
    bound = f"{first.name} alone, times {WORKERS}", limit / WORKERS
    compare(f"  {name}", "slices", len(paths), mine, (f"pydicom with {plugin}", theirs), bound)
    return theirs / mine, theirs * WORKERS / limit


def main() -> None:
    """Print one line a syntax."""
    logging.disable(logging.CRITICAL)
    warnings.simplefilter("ignore")
    print(
        f"compressed series of {SLICES} slices of {EDGE} x {EDGE}, {BITS} bits, to volume; {WORKERS} processes on "
        f"{os.cpu_count()} cores, pylibjpeg {pylibjpeg.__version__} with its permissive plugins"
    )
    ratios = []
    with tempfile.TemporaryDirectory() as name, DecodePool(WORKERS) as pool:
        for label, syntax, plugin, encode in SYNTAXES:
            paths = [Path(name) / f"{label}-{number}" for number in range(SLICES)]
            for number, path in enumerate(paths):
                write(path, syntax, number, encode)
            ratios.append(measure(label, syntax, plugin, paths, pool))
    ours_mean, limit_mean = (statistics.geometric_mean(column) for column in zip(*ratios, strict=True))
    best = ", ".join(f"{label} {best:.1f}x" for (label, *_), (_, best) in zip(SYNTAXES, ratios, strict=True))
    print(f"  geometric mean of the ratios {ours_mean:.1f}x; at the limits {limit_mean:.1f}x: {best}")


if __name__ == "__main__":
    main()
