"""An uncompressed CT series to its volume, beside MONAI's PydicomReader.

    python benchmarks/volume.py

Files of one series on a local disk, warm cache, one process each. Ours does what the indexer does: headers, plan, pixels,
array in Hounsfield units. MONAI's does `read` and `get_data` of the folder. Both give the same values, checked first. The
limit is a plain read of the same bytes into one array.
"""

import os
import sys
import tempfile
import warnings
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pydicom
from monai.data import PydicomReader
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian
from timing import compare, median_s

from hilum.client.intake.assembly.direct_read import DirectReader
from hilum.client.intake.assembly.volume import VolumeBuilder
from hilum.client.intake.headers.read_instance import read_instance
from hilum.client.intake.pixels.images import read_planes
from hilum.client.intake.planner import plan_series

EDGE, SLICES, PLANE_BYTES = 512, 120, 512 * 512 * 2


def write_series(folder: Path) -> None:
    """Write an axial CT series of noise."""
    rng = np.random.default_rng(0)
    for k in range(SLICES):
        dataset = Dataset()
        dataset.file_meta = FileMetaDataset()
        dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        dataset.file_meta.MediaStorageSOPClassUID = dataset.SOPClassUID = CTImageStorage
        dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID = f"1.2.3.{k + 1}"
        dataset.StudyInstanceUID, dataset.SeriesInstanceUID = "1.2.4", "1.2.5"
        dataset.Modality, dataset.PatientID, dataset.InstanceNumber = "CT", "phantom", k + 1
        dataset.ImageOrientationPatient, dataset.ImagePositionPatient = (
            [1, 0, 0, 0, 1, 0],
            [-180, -180, k * 2],
        )
        dataset.PixelSpacing, dataset.SliceThickness = [0.7, 0.7], 2
        dataset.Rows = dataset.Columns = EDGE
        dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, "MONOCHROME2"
        dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit = 16, 16, 15
        dataset.PixelRepresentation, dataset.RescaleSlope, dataset.RescaleIntercept = 1, 1, -24
        dataset.PixelData = rng.integers(-1000, 2000, (EDGE, EDGE)).astype(np.int16).tobytes()
        dataset["PixelData"].VR = "OW"
        pydicom.dcmwrite(folder / f"{k:04d}.dcm", dataset, enforce_file_format=True)


def ours(folder: Path, reader: DirectReader) -> npt.NDArray[np.int16]:
    """Return what the indexer does with a series."""
    paths = sorted(folder.iterdir())
    instances = [read_instance(path) for path in paths]
    (planned,) = plan_series(instances).volumes
    volume = reader.read(planned, lambda index: (paths[index], instances[index]))
    assert volume is not None
    return volume


def plane_by_plane(folder: Path) -> npt.NDArray[np.generic]:
    """Return the volume as of a series that can't be read directly."""
    paths = sorted(folder.iterdir())
    instances = [read_instance(path) for path in paths]
    (planned,) = plan_series(instances).volumes
    builder = VolumeBuilder(planned)
    for index, frame in planned.planes:
        builder.add((index, frame), next(read_planes(paths[index], instances[index], (frame,))))
    return builder.finished()


def monai(folder: Path) -> npt.NDArray[np.generic]:
    """Return what a user would write; (W, H, D)."""
    reader = PydicomReader()
    values: npt.NDArray[np.generic] = reader.get_data(reader.read(folder))[0]
    return values


def plain_read(folder: Path, volume: npt.NDArray[np.uint8]) -> None:
    """Reach the limit: the same bytes into one array that is there."""
    for plane, path in zip(volume, sorted(folder.iterdir()), strict=True):
        handle = os.open(path, os.O_RDONLY)
        os.preadv(handle, [plane.data], os.fstat(handle).st_size - PLANE_BYTES)
        os.close(handle)


def main() -> None:
    """Print rates, the ratio and the share of the limit."""
    warnings.simplefilter("ignore")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_series(folder)
        reader, memory = DirectReader(), np.empty((SLICES, PLANE_BYTES), np.uint8)
        volume, reference = ours(folder, reader), np.asarray(monai(folder)).T
        if not (np.array_equal(volume, reference) and np.array_equal(volume, plane_by_plane(folder))):
            sys.exit("the volumes differ")
        mine, planes, theirs, limit = median_s(
            lambda: ours(folder, reader),
            lambda: plane_by_plane(folder),
            lambda: monai(folder),
            lambda: plain_read(folder, memory),
            warm_up=True,
        )
    peer, bound = ("MONAI PydicomReader", theirs), ("a plain read", limit)
    print(f"{SLICES} slices of {EDGE} x {EDGE} int16, the same values")
    compare("  uncompressed series to volume", "slices", SLICES, mine, peer, bound)
    compare("  the same, plane by plane", "slices", SLICES, planes, peer, bound)


if __name__ == "__main__":
    main()
