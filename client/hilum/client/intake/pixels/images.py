"""From a file to what the rest of intake wants of it: an image to look at, or planes of a volume.

Shapes: H rows, W columns.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from hilum.client.intake.instance import Frame, Instance
from hilum.client.intake.pixels.colour import to_rgb
from hilum.client.intake.pixels.integer_rescale import in_units
from hilum.client.intake.pixels.luts import LookUpTables, read_luts
from hilum.client.intake.pixels.raw_frames import PixelReader, StoredFrame, open_frames
from hilum.client.intake.pixels.rescale import display_values, padding_mask
from hilum.client.intake.reasons import Reason, Skip
from hilum.client.intake.transfer_syntaxes import DEFLATED, UNCOMPRESSED

Image = npt.NDArray[Any]
"""(H, W) uint16, or (H, W, 3) uint8 in RGB."""

_GREY = {"MONOCHROME1", "MONOCHROME2"}


@dataclass(frozen=True)
class Plane:
    """One plane of a volume.

    Attributes:
        values: (H, W) with units; for CT Hounsfield units. Int16 where all are whole numbers that fit, else float32.
            MONOCHROME1 is never inverted here.
        empty: (H, W), True where there is no data, or None where all is.
    """

    values: npt.NDArray[np.float32] | npt.NDArray[np.int16] = field(repr=False)
    empty: npt.NDArray[np.bool_] | None = field(repr=False)


def read_stored(path: Path, instance: Instance, indices: Iterable[int]) -> Iterator[npt.NDArray[Any]]:
    """Frames as stored: (H, W) or (H, W, 3), in the header's dtype.

    Raises:
        Skip: If the file's pixels can't be read, with the reason.
    """
    with open_frames(path, instance) as reader:
        for index in indices:
            yield _frame(reader, instance, index).values


def read_planes(path: Path, instance: Instance, indices: Iterable[int]) -> Iterator[Plane]:
    """Grey frames as planes of a volume, one at a time.

    Args:
        path: The file.
        instance: What its header says.
        indices: Which frames, from 0; each needs an entry in `instance.frames`.

    Raises:
        Skip: If the file's pixels can't be read or are not a grey image, with the reason.
    """
    _require_grey(instance)
    frames = {frame.index: frame for frame in instance.frames}
    with open_frames(path, instance) as reader:
        luts = _luts(reader, instance)
        for index in indices:
            stored = _frame(reader, instance, index)
            values = in_units(stored.values, frames[index], luts)
            yield Plane(values, padding_mask(stored, instance, frames[index]))


def read_image(path: Path, instance: Instance, index: int = 0) -> Image:
    """Return one frame to look at, whole: where only a part of it is taken, the quarantine crops.

    Returns:
        Grey: (H, W) uint16, 0 black to 65535 white. Colour: (H, W, 3) uint8, RGB.

    Raises:
        Skip: If the pixels can't be read or are all equal, with the reason.
    """
    return next(read_images(path, instance, (index,)))


def read_images(path: Path, instance: Instance, indices: Iterable[int]) -> Iterator[Image]:
    """Like `read_image` for several frames, one at a time: a cine is never held whole."""
    frames = {frame.index: frame for frame in instance.frames}
    with open_frames(path, instance) as reader:
        luts = _luts(reader, instance)
        for index in indices:
            stored = _frame(reader, instance, index)
            if instance.pixels.photometric in _GREY:
                _require_grey(instance)
                yield display_values(stored, instance, frames.get(index, Frame(index)), luts)
            else:
                yield _not_constant(to_rgb(stored, instance.pixels, luts))


def _frame(reader: PixelReader, instance: Instance, index: int) -> StoredFrame:
    if not 0 <= index < instance.pixels.frames:
        raise Skip(Reason.MISSING_ATTRIBUTE)
    return reader.frame(index)


def is_plain(instance: Instance) -> bool:
    """Tell whether the pixels are bare numbers in grey: no decoder, no table, nothing to parse on the way to them."""
    pixels = instance.pixels
    bare = pixels.syntax in UNCOMPRESSED - {DEFLATED}
    return bare and not instance.has_lut and pixels.photometric in _GREY and pixels.samples == 1


def _luts(reader: PixelReader, instance: Instance) -> LookUpTables | None:
    wanted = instance.has_lut or instance.pixels.photometric == "PALETTE COLOR"
    return read_luts(reader.layout) if wanted else None


def _require_grey(instance: Instance) -> None:
    if instance.pixels.photometric not in _GREY or instance.pixels.samples != 1:
        raise Skip(Reason.UNSUPPORTED_PIXELS)


def _not_constant(image: Image) -> Image:
    if (image == image[0, 0]).all():
        raise Skip(Reason.CONSTANT_PIXELS)
    return image
