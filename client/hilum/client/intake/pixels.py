"""From stored values to values with units.

Shapes: H rows, W columns.
"""

from pathlib import Path

import numpy as np
import numpy.typing as npt
import pydicom
from pydicom.dataset import Dataset
from pydicom.pixels.utils import pixel_array
from pydicom.uid import ExplicitVRLittleEndian, ImplicitVRLittleEndian

from hilum.client.intake.header import Header, Window
from hilum.client.intake.reasons import Reason, Skip

Stored = npt.NDArray[np.integer]
Display = npt.NDArray[np.uint16]
DISPLAY_MAX = 65_535
_TOO_FEW = ("less than expected", "cannot reshape")  # how pydicom tells that values are missing
_TAILS = (0.5, 99.5)  # percentiles used where a radiograph carries no window


def read_stored(path: Path, header: Header) -> Stored:
    """Decode one frame, without any look-up table.

    Returns:
        (H, W), the dtype of the file.

    Raises:
        Skip: If the pixels end too early or can't be decoded. Nothing is filled in.
    """
    try:
        stored = pixel_array(_source(path), raw=True)
    except (KeyboardInterrupt, SystemExit):
        raise
    except MemoryError:
        raise Skip(Reason.IMPLAUSIBLE_SIZE) from None
    except BaseException as error:  # a decoder in Rust panics with a BaseException
        short = isinstance(error, ValueError) and any(words in str(error) for words in _TOO_FEW)
        raise Skip(Reason.TRUNCATED_PIXELS if short else Reason.UNDECODABLE_PIXELS) from None
    if stored.shape != (header.rows, header.columns):
        raise Skip(Reason.UNDECODABLE_PIXELS)
    return stored


def _source(path: Path) -> Path | Dataset:
    """The file itself; without a preamble, the data set with the syntax that its encoding shows."""
    with path.open("rb") as file:
        if file.read(132)[128:] == b"DICM":
            return path
    dataset = pydicom.dcmread(path, force=True)
    implicit, _little = dataset.original_encoding
    dataset.file_meta.TransferSyntaxUID = ImplicitVRLittleEndian if implicit else ExplicitVRLittleEndian
    return dataset


def rescaled(stored: Stored, header: Header) -> npt.NDArray[np.float32]:
    """Apply the modality rescale (PS3.3 section C.7.6.16.2.9, C.11.1): Hounsfield units for CT."""
    return stored.astype(np.float32) * np.float32(header.slope) + np.float32(header.intercept)


def padding_mask(stored: Stored, header: Header) -> npt.NDArray[np.bool_] | None:
    """True where a pixel holds no data (PS3.3 section C.7.5.1.1.2), or None where the file names no such value."""
    if header.padding is None:
        return None
    low, high = header.padding
    return (stored >= low) & (stored <= high)


def display_values(stored: Stored, header: Header) -> Display:
    """What a radiograph looks like on a light box: 0 black to 65535 white, bone bright.

    The file's window where it has one, else its percentiles; MONOCHROME1 is inverted; padding is black.

    Raises:
        Skip: If all pixels are equal.
    """
    values = rescaled(stored, header)
    padded = padding_mask(stored, header)
    inside = values if padded is None else values[~padded]
    if inside.size == 0 or inside.min() == inside.max():
        raise Skip(Reason.CONSTANT_PIXELS)
    if header.window is not None:
        shown = apply_window(values, header.window)
        if shown.min() == shown.max():  # a window that misses the data says nothing about it
            shown = _between_tails(values, inside)
    else:
        shown = _between_tails(values, inside)
    if header.inverted:
        shown = 1 - shown
    if padded is not None:
        shown[padded] = 0
    return np.rint(shown * DISPLAY_MAX).astype(np.uint16)


def apply_window(values: npt.NDArray[np.float32], window: Window) -> npt.NDArray[np.float32]:
    """Map values to 0..1 by a VOI window (PS3.3 section C.11.2.1.2.1 to C.11.2.1.3)."""
    match window.function:
        case "LINEAR":
            shown = (values - (window.center - 0.5)) / (window.width - 1) + 0.5
        case "LINEAR_EXACT":
            shown = (values - window.center) / window.width + 0.5
        case "SIGMOID":
            with np.errstate(over="ignore"):
                shown = 1 / (1 + np.exp(-4 * (values - window.center) / window.width))
    clipped: npt.NDArray[np.float32] = np.clip(shown, 0, 1).astype(np.float32)
    return clipped


def _between_tails(
    values: npt.NDArray[np.float32], inside: npt.NDArray[np.float32]
) -> npt.NDArray[np.float32]:
    low, high = np.percentile(inside, _TAILS)
    if low == high:
        low, high = inside.min(), inside.max()
    shown: npt.NDArray[np.float32] = np.clip((values - low) / (high - low), 0, 1).astype(np.float32)
    return shown
