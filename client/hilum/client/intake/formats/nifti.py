"""NIfTI-1 and NIfTI-2 volumes (nifti.nimh.nih.gov), laid out as the volumes of DICOM series are.

Shapes: D slices, H rows, W columns. Axes are LPS here and RAS in the file.
"""

import gzip
import math
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from io import BufferedReader
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import numpy.typing as npt

from hilum.client.intake.reasons import Reason, Skip

Stream = BufferedReader | gzip.GzipFile

MAX_BYTES = 2 << 30
"""Of one file's voxels: what a site's machine is asked to hold at once."""

_SUFFIXES = (".nii", ".nii.gz")
_GZIP = b"\x1f\x8b"  # RFC 1952
_HEADER_BYTES: dict[int, Any] = {348: nibabel.Nifti1Header, 540: nibabel.Nifti2Header}
_MAX_VOX_OFFSET = 16 << 20  # header extensions of a few megabytes exist
_MAX_INFLATION = 1032  # deflate reaches no more on any data (zlib.net/zlib_tech.html)
_MAX_TIMES = 4096
_PIECE_BYTES = 1 << 20
_MM_OF_UNIT = {0: 1.0, 1: 1000.0, 2: 1.0, 3: 0.001}  # unknown (taken as mm, as everywhere), m, mm, micrometre
_LPS_OF_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])
_AXES = 3
# By the slice axis' nearest patient axis (x, y, z): how columns, rows and slices run in a DICOM series of standard
# orientation, as (patient axis, sign). Rows and columns come as a radiologist views them, and slices along their normal.
_STANDARD = {
    0: {"w": (1, 1), "h": (2, -1), "d": (0, -1)},  # sagittal
    1: {"w": (0, 1), "h": (2, -1), "d": (1, 1)},  # coronal
    2: {"w": (0, 1), "h": (1, 1), "d": (2, 1)},  # axial
}


@dataclass(frozen=True)
class NiftiVolume:
    """One time point, its voxels as the file stores them.

    Attributes:
        stored: (D, H, W), a view in the standard order of axes.
        scale: Slope and intercept, or None where the file scales nothing.
    """

    stored: npt.NDArray[Any] = field(repr=False)
    scale: tuple[float, float] | None

    def planes(self) -> Iterator[npt.NDArray[Any]]:
        """Return each slice, (H, W): float32 after scaling, or whole numbers where the file holds these and scales nothing.

        Raises:
            Skip: If one holds numbers that are not finite.
        """
        for plane in self.stored:
            yield _scaled(plane, self.scale)


class NiftiFile:
    """An open file whose header was believed.

    Attributes:
        shape: D, H, W.
        times: How many volumes it holds.
        affine: (4, 4), array index (d, h, w, 1) to LPS millimetres.
        spacing_mm: Between slices, rows and columns.
    """

    def __init__(self, file: Stream, most_bytes: int) -> None:
        header = _header(file)
        self._stored_shape, self.times = _shape(header)
        self._dtype = _dtype(header)
        affine = _affine(header)
        self._volume_bytes = math.prod(self._stored_shape) * self._dtype.itemsize
        offset, claimed_bytes = _offset(header), self._volume_bytes * self.times
        if claimed_bytes + offset > most_bytes:
            raise Skip(Reason.TRUNCATED_PIXELS)
        if claimed_bytes > MAX_BYTES:
            raise Skip(Reason.TOO_LARGE)
        _exactly(file, offset - int(header["sizeof_hdr"]))
        self._file = file
        self._scale = _scale(header)
        self._order, signs = _standard_axes(affine)
        self._flips = tuple(slice(None, None, sign) for sign in signs)
        self.affine = _turned(affine, self._stored_shape, self._order, signs)
        self.shape: tuple[int, int, int] = (
            self._stored_shape[self._order[0]],
            self._stored_shape[self._order[1]],
            self._stored_shape[self._order[2]],
        )
        between = np.linalg.norm(self.affine[:3, :3], axis=0)
        self.spacing_mm = (float(between[0]), float(between[1]), float(between[2]))

    def volumes(self) -> Iterator[NiftiVolume]:
        """Return each time point, in memory that the next one takes.

        Raises:
            Skip: If the file ends before.
        """
        content = np.empty(self._volume_bytes, np.uint8)
        for _ in range(self.times):
            for start in range(0, len(content), _PIECE_BYTES):
                piece = content[start : start + _PIECE_BYTES]
                if self._file.readinto(piece.data) != len(piece):
                    raise Skip(Reason.TRUNCATED_PIXELS)
            stored = content.view(self._dtype).reshape(self._stored_shape, order="F")
            yield NiftiVolume(stored.transpose(self._order)[self._flips], self._scale)


def is_nifti(path: Path) -> bool:
    """Tell whether a file's name says that it is NIfTI."""
    return path.name.lower().endswith(_SUFFIXES)


@contextmanager
def open_nifti(path: Path) -> Iterator[NiftiFile]:
    """Open one file. Axes are swapped and flipped to DICOM's standard, never resampled: every voxel keeps its place.

    The third axis of the file is the slice axis, as converters write it. The header's size is checked against the file
    before a voxel is inflated, and no more than it states is.

    Raises:
        Skip: If it is broken, too large, in colour, holds numbers that are not finite, or has no place in the patient;
            also while volumes are read.
    """
    try:
        size_bytes = path.stat().st_size
        with path.open("rb") as raw:
            if raw.peek(len(_GZIP)).startswith(_GZIP):  # whatever its name says
                with gzip.GzipFile(fileobj=raw) as file:
                    yield NiftiFile(file, size_bytes * _MAX_INFLATION)
            else:
                yield NiftiFile(raw, size_bytes)
    except (EOFError, zlib.error, gzip.BadGzipFile):
        raise Skip(Reason.DAMAGED_FILE) from None
    except OSError:
        raise Skip(Reason.UNREADABLE) from None


def _exactly(file: Stream, count: int) -> bytes:
    """So many bytes, and not one more inflated.

    Raises:
        Skip: If the file ends before.
    """
    found = file.read(count)
    if len(found) != count:
        raise Skip(Reason.TRUNCATED_PIXELS)
    return found


def _header(file: Stream) -> Any:
    start = _exactly(file, 4)
    for size, kind in _HEADER_BYTES.items():
        for endianness in ("<", ">"):
            if start == size.to_bytes(4, "little" if endianness == "<" else "big"):
                block = start + _exactly(file, size - 4)
                header = kind(block, endianness=endianness, check=False)
                if bytes(header["magic"].item())[:3] not in {b"n+1", b"n+2"}:
                    raise Skip(
                        Reason.DAMAGED_FILE
                    )  # the voxels are in another file, or it is not a NIfTI file
                return header
    raise Skip(Reason.DAMAGED_FILE)


def _shape(header: Any) -> tuple[tuple[int, int, int], int]:
    dim = [int(size) for size in header["dim"]]
    if not 1 <= dim[0] <= 7 or min(dim[1 : dim[0] + 1]) < 1:  # noqa: PLR2004 - NIfTI's own limit
        raise Skip(Reason.DAMAGED_FILE)
    sizes = [*dim[1 : dim[0] + 1], *[1] * (7 - dim[0])]
    if math.prod(sizes[4:]) != 1:
        raise Skip(Reason.UNSUPPORTED_PIXELS)  # a vector or tensor at each voxel
    if sizes[3] > _MAX_TIMES:
        raise Skip(Reason.TOO_LARGE)
    return (sizes[0], sizes[1], sizes[2]), sizes[3]


def _dtype(header: Any) -> np.dtype[Any]:
    try:
        dtype = header.get_data_dtype()
    except Exception:
        # nibabel raises its own error or a KeyError on codes that it does not know.
        raise Skip(Reason.DAMAGED_FILE) from None
    if dtype.kind not in "iuf" or dtype.itemsize > 8:  # noqa: PLR2004 - bytes; colour, complex and extended floats
        raise Skip(Reason.UNSUPPORTED_PIXELS)
    found: np.dtype[Any] = np.dtype(dtype)
    return found


def _offset(header: Any) -> int:
    offset = float(header["vox_offset"])
    smallest = int(header["sizeof_hdr"])
    if not math.isfinite(offset) or offset > _MAX_VOX_OFFSET or (offset != 0 and offset < smallest):
        raise Skip(Reason.DAMAGED_FILE)
    return int(offset) or smallest + 4  # four bytes say whether extensions follow


def _scale(header: Any) -> tuple[float, float] | None:
    """Slope and intercept; None where the file scales nothing (a slope of 0 says so)."""
    slope, intercept = float(header["scl_slope"]), float(header["scl_inter"])
    if slope == 0 or (slope, intercept) == (1, 0) or math.isnan(slope):
        return None
    if not (math.isfinite(slope) and math.isfinite(intercept)):
        raise Skip(Reason.DAMAGED_FILE)
    return slope, intercept


def _scaled(stored: npt.NDArray[Any], scale: tuple[float, float] | None) -> npt.NDArray[Any]:
    if stored.dtype.kind == "f" and not np.isfinite(stored).all():
        raise Skip(Reason.NOT_FINITE)
    if scale is None and stored.dtype.kind in "iu":
        return stored.astype(stored.dtype.newbyteorder("="), order="C")
    slope, intercept = scale or (1.0, 0.0)
    with np.errstate(over="ignore"):
        values = (stored.astype(np.float64, order="C") * slope + intercept).astype(np.float32)
    if not np.isfinite(values).all():
        raise Skip(Reason.NOT_FINITE)
    return values


def _affine(header: Any) -> npt.NDArray[np.float64]:
    """Array index (i, j, k, 1) to LPS millimetres: the sform where it is set, else the qform.

    Raises:
        Skip: If neither is set, or it puts several voxels in one place.
    """
    if int(header["sform_code"]) > 0:
        ras = np.asarray(header.get_sform(), np.float64)
    elif int(header["qform_code"]) > 0:
        if header["pixdim"][0] == 0:
            header["pixdim"][0] = 1  # as NIfTI says of its qfac
        try:
            ras = np.asarray(header.get_qform(), np.float64)
        except Exception:
            # nibabel raises a ValueError or its HeaderDataError on quaternions and voxel sizes that can't be.
            raise Skip(Reason.LYING_GEOMETRY) from None
    else:
        raise Skip(Reason.MISSING_ATTRIBUTE)
    mm = _MM_OF_UNIT.get(int(header["xyzt_units"]) & 7)
    if mm is None or not np.isfinite(ras).all():
        raise Skip(Reason.LYING_GEOMETRY)
    affine = _LPS_OF_RAS @ np.diag([mm, mm, mm, 1.0]) @ ras
    lengths = np.linalg.norm(affine[:3, :3], axis=0)
    if lengths.min() <= 0 or abs(np.linalg.det(affine[:3, :3] / lengths)) < 1e-3:  # noqa: PLR2004 - axes in one plane
        raise Skip(Reason.LYING_GEOMETRY)
    return np.asarray(affine)


def _standard_axes(
    affine: npt.NDArray[np.float64],
) -> tuple[tuple[int, int, int], tuple[int, int, int]]:
    """For slices, rows and columns: the file's axis, and 1 or -1 where it runs the other way."""
    # For each axis of the file: its nearest patient axis, and its sign.
    nearest = nibabel.io_orientation(affine)  # type: ignore[no-untyped-call]
    axis_of = {int(patient): axis for axis, (patient, _) in enumerate(nearest)}
    standard = _STANDARD[int(nearest[_AXES - 1][0])]
    order, signs = [], []
    for name in ("d", "h", "w"):
        patient, sign = standard[name]
        axis = axis_of[patient]
        order.append(axis)
        signs.append(int(sign * nearest[axis][1]))
    return (order[0], order[1], order[2]), (signs[0], signs[1], signs[2])


def _turned(
    affine: npt.NDArray[np.float64], shape: Sequence[int], order: Sequence[int], signs: Sequence[int]
) -> npt.NDArray[np.float64]:
    """Return the affine of the array once its axes are in `order` and those with a negative sign are flipped."""
    turned = np.eye(4)
    turned[:3, 3] = affine[:3, 3]
    for position, (axis, sign) in enumerate(zip(order, signs, strict=True)):
        turned[:3, position] = sign * affine[:3, axis]
        if sign < 0:
            turned[:3, 3] += affine[:3, axis] * (shape[axis] - 1)
    return turned
