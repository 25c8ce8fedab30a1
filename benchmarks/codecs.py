"""Images a second per transfer syntax, beside pydicom with the plugins that a user would install.

    python benchmarks/codecs.py

512 x 512 images of 12 bits with the noise of a CT. The peer is pydicom's `pixel_array` on an opened file, with
pylibjpeg's permissive plugins where they read the syntax (if the package `pylibjpeg` is there) and gdcm or pyjpegls
elsewhere. Both give the same pixels,
checked first. Ratios are medians over interleaved repetitions of this one run; absolutes are for orientation. The last
column decodes to float32 planes through the pool of processes, arrays brought back.
"""

import logging
import statistics
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path

import imagecodecs
import numpy as np
import numpy.typing as npt
import pydicom
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.pixels import get_decoder
from pydicom.uid import UID
from rle.utils import encode_pixel_data

from hilum.client.intake.decoders import DECODERS
from hilum.client.intake.images import read_stored
from hilum.client.intake.instance import Frame, Instance, PixelFormat
from hilum.client.intake.jobs import DecodePlanes, PlanesDecoded
from hilum.client.intake.sandbox import DecodePool

EDGE, BITS, FILES, REPEATS, WORKERS = 512, 12, 16, 5, 2
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


SYNTAXES: list[tuple[str, str, str, Callable[[Pixels], bytes] | None]] = [
    ("uncompressed", "1.2.840.10008.1.2.1", "", None),
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
    """A smooth body with a CT's noise."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[0:EDGE, 0:EDGE]
    body = 1200 + 900 * np.sin(x / 40 + seed) * np.cos(y / 55)
    pixels: Pixels = (body + rng.normal(0, 12, body.shape)).clip(0, (1 << BITS) - 1).astype(np.uint16)
    return pixels


def write(path: Path, syntax: str, pixels: Pixels, encode: Callable[[Pixels], bytes] | None) -> None:
    """One image in one syntax."""
    dataset = Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = UID(syntax)
    dataset.file_meta.MediaStorageSOPClassUID = dataset.SOPClassUID = "1.2.840.10008.5.1.4.1.1.2"
    dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID = "1.2.3"
    dataset.Rows = dataset.Columns = EDGE
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, "MONOCHROME2"
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit, dataset.PixelRepresentation = (
        16,
        BITS,
        BITS - 1,
        0,
    )
    dataset.PixelData = pixels.tobytes() if encode is None else encapsulate([encode(pixels)])
    dataset["PixelData"].VR = "OW" if encode is None else "OB"
    pydicom.dcmwrite(path, dataset, enforce_file_format=True)


def facts(syntax: str) -> Instance:
    """What the index knows of each of these files."""
    pixels = PixelFormat(
        syntax, EDGE, EDGE, 1, 1, "MONOCHROME2", planar=False, bits_allocated=16, bits_stored=BITS, high_bit=BITS - 1, signed=False
    )  # fmt: skip
    return Instance("", "", "", "", "", "", "ct", (), pixels, (Frame(0),))


def by_pydicom(path: Path, plugin: str) -> npt.NDArray[np.uint16]:
    """What a user would write."""
    dataset = pydicom.dcmread(path)
    decoder = get_decoder(dataset.file_meta.TransferSyntaxUID)
    plugin = plugin if plugin in decoder.available_plugins else ""
    values, _ = decoder.as_array(dataset, raw=True, decoding_plugin=plugin)
    return np.asarray(values)


def seconds(work: Callable[[], object]) -> float:
    """How long one call takes."""
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def measure(name: str, syntax: str, plugin: str, paths: list[Path], pool: DecodePool) -> None:
    """Compare one syntax, correctness first."""
    instance = facts(syntax)
    jobs = [DecodePlanes(path, instance) for path in paths] * 2

    def ours() -> list[object]:
        return [next(read_stored(path, instance, (0,))) for path in paths]

    def theirs() -> list[object]:
        return [by_pydicom(path, plugin) for path in paths]

    def pooled() -> list[object]:
        return list(pool.map(jobs))

    readable = True
    try:
        np.testing.assert_array_equal(np.stack(ours()), np.stack(theirs()))
    except RuntimeError:
        readable = False  # pydicom finds no plugin
    assert all(isinstance(one, PlanesDecoded) for one in pooled())
    times = [(seconds(ours), seconds(theirs) if readable else 0.0, seconds(pooled)) for _ in range(REPEATS)]
    rate = FILES / statistics.median(one[0] for one in times)
    pool_rate = 2 * FILES / statistics.median(one[2] for one in times)
    peer = "          none"
    if readable:
        ratio = statistics.median(one[1] / one[0] for one in times)
        peer = f"{FILES / statistics.median(one[1] for one in times):7.0f} ({ratio:4.1f}x)"
    first = DECODERS[syntax][0].name if syntax in DECODERS else "-"
    print(f"{name:14} {rate:7.0f} {peer} {pool_rate:7.0f}   {first}")


def main() -> None:
    """Print one line a syntax."""
    logging.disable(logging.CRITICAL)
    warnings.simplefilter("ignore")
    print(
        f"{'images/s':14} {'ours':>7} {'pydicom':>15} {'pool':>6}   first decoder; the pool has {WORKERS} processes"
    )
    with tempfile.TemporaryDirectory() as name, DecodePool(WORKERS) as pool:
        for label, syntax, plugin, encode in SYNTAXES:
            paths = [Path(name) / f"{label}-{number}" for number in range(FILES)]
            for number, path in enumerate(paths):
                write(path, syntax, picture(number), encode)
            measure(label, syntax, plugin, paths, pool)


if __name__ == "__main__":
    main()
