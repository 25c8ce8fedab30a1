"""A volume of plain files, read straight into its array: no copy, no float, no walk over the header.

It gives what `build_volume` gives from the planes of `read_planes`, or None where only those two can tell. So every
refusal, and its reason, stays theirs.

Shapes: D slices, H rows, W columns.
"""

import math
import os
import sys
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt

from hilum.client.intake.assembly.volume import fill_empty, lowest_with_data
from hilum.client.intake.instance import Frame, Instance
from hilum.client.intake.pixels.integer_rescale import fits_container, rescale_whole
from hilum.client.intake.pixels.raw_frames import StoredFrame
from hilum.client.intake.pixels.rescale import padding_mask
from hilum.client.intake.pixels.size_checks import check_size, frame_bytes
from hilum.client.intake.pixels.value_range import ValueRange, is_constant
from hilum.client.intake.planner import PlannedVolume
from hilum.client.intake.reasons import Skip
from hilum.client.intake.transfer_syntaxes import EXPLICIT_LITTLE, IMPLICIT_LITTLE

Volume = npt.NDArray[np.int16]
Mask = npt.NDArray[np.bool_]

_HEAD_BYTES = 12
_PIXEL_DATA = b"\xe0\x7f\x10\x00"  # (7FE0,0010), least significant byte first
_EXPLICIT_HEADS = (_PIXEL_DATA + b"OW\0\0", _PIXEL_DATA + b"OB\0\0")
_UNDEFINED = 0xFFFF_FFFF


class _Unsure(Exception):  # noqa: N818 - not an error: the general way is taken
    """Something here is not the plain case; caught where the reading began."""


class DirectReader:
    """Reads volumes one after the other, all into the same memory: what the system newly gives, it clears first."""

    def __init__(self) -> None:
        self._memory: Volume = np.empty(0, np.int16)

    def read(self, planned: PlannedVolume, file_of: Callable[[int], tuple[Path, Instance]]) -> Volume | None:
        """Read one volume.

        Args:
            planned: What the planner says.
            file_of: Gives file and header of an instance by its index.

        Returns:
            (D, H, W), good until the next call; or None where planes must be looked at one by one: compressed, tilted,
            copies to be verified, values that are not whole numbers of 16 bits, or anything wrong with a file.
        """
        if planned.tilt is not None or planned.verify_equal or sys.byteorder != "little":
            return None
        wanted: dict[int, list[tuple[int, int]]] = defaultdict(list)
        for place, (index, frame) in enumerate(planned.planes):
            wanted[index].append((place, frame))
        files = {index: file_of(index) for index in wanted}
        if not all(_is_simple(instance, planned) for _path, instance in files.values()):
            return None
        filler = _Filler(self._array(planned.shape))
        try:
            for index, places in wanted.items():
                filler.read(*files[index], places)
            return filler.finished()
        except (_Unsure, Skip, OSError):
            return None

    def _array(self, shape: tuple[int, int, int]) -> Volume:
        size = math.prod(shape)
        if size > self._memory.size:
            self._memory = np.empty(0, np.int16)  # let go of what is too small before asking for more
            self._memory = np.empty(size, np.int16)
        return self._memory[:size].reshape(shape)


def _is_simple(instance: Instance, planned: PlannedVolume) -> bool:
    pixels = instance.pixels
    return (
        pixels.syntax in {EXPLICIT_LITTLE, IMPLICIT_LITTLE}
        and instance.pixel_offset is not None
        and not (instance.has_lut or instance.mosaic)
        and pixels.photometric in {"MONOCHROME1", "MONOCHROME2"}
        and (pixels.samples, pixels.bits_allocated) == (1, 16)
        and pixels.high_bit == pixels.bits_stored - 1
        and (pixels.rows, pixels.columns) == planned.shape[1:]
    )


class _Filler:
    """Fills an array plane by plane, and keeps what is to be done once all are known."""

    def __init__(self, volume: Volume) -> None:
        self._volume = volume
        self._cells = np.empty(volume.shape[1:], np.int16)  # small enough to stay in the processor's cache
        self._masks: dict[int, Mask] = {}
        self._first: int | None = None  # of the values with data
        self._varies = False

    def read(self, path: Path, instance: Instance, places: list[tuple[int, int]]) -> None:
        """Read frames of one file.

        Args:
            path: The file.
            instance: Its header.
            places: Index of the slice, and of the frame that it takes.

        Raises:
            _Unsure: If this is not the plain case.
            Skip: If what the header claims can't be in the file.
            OSError: If it can't be read.
        """
        frames = {frame.index: frame for frame in instance.frames}
        size = frame_bytes(instance.pixels)
        handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            check_size(instance, os.fstat(handle).st_size)
            offset, length = _element(handle, instance)
            for place, index in places:
                begin = index * size
                fits = index in frames and index < instance.pixels.frames and begin + size <= length
                if not fits or os.preadv(handle, [self._cells.data.cast("B")], offset + begin) != size:
                    raise _Unsure
                self._convert(place, instance, frames[index])
        finally:
            os.close(handle)

    def _convert(self, place: int, instance: Instance, frame: Frame) -> None:
        """Turn stored values into values with units, in their place."""
        plane = self._volume[place]
        stored = self._cells if instance.pixels.signed else self._cells.view(np.uint16)
        extent = ValueRange(stored)
        if not (fits_container(extent, instance.pixels) and rescale_whole(stored, extent, frame, out=plane)):
            raise _Unsure
        empty = padding_mask(StoredFrame(stored, stored), instance, frame)
        if empty is not None:
            self._masks[place] = empty
        self._look_at(plane if empty is None else plane[~empty])

    def _look_at(self, values: Volume) -> None:
        """Find out whether there is anything to see: mostly the first plane tells."""
        if not self._varies and values.size:
            first = int(values.flat[0])
            self._varies = not is_constant(values) or self._first not in (None, first)
            self._first = first

    def finished(self) -> Volume:
        """Return the array, voxels without data at the lowest value of those with data.

        Raises:
            _Unsure: If there is nothing to see.
        """
        if not self._varies:
            raise _Unsure
        if self._masks:
            fill_empty(self._volume, self._masks, lowest_with_data(self._volume, self._masks))
        return self._volume


def _element(handle: int, instance: Instance) -> tuple[int, int]:
    """Offset and length of the pixel data, once its head is seen to stand where the header was read to have it.

    Raises:
        _Unsure: If it does not, or has no length.
    """
    assert instance.pixel_offset is not None
    if instance.pixel_offset < _HEAD_BYTES:
        raise _Unsure
    head = os.pread(handle, _HEAD_BYTES, instance.pixel_offset - _HEAD_BYTES)
    length = int.from_bytes(head[8:], "little")
    if not (head.startswith(_EXPLICIT_HEADS) or head[4:8] == _PIXEL_DATA) or length == _UNDEFINED:
        raise _Unsure
    return instance.pixel_offset, length
