"""PNG, JPEG and TIFF pictures, brought to the meaning that radiographs and photographs have in the cache.

Shapes: H rows, W columns.
"""

import warnings
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageOps, UnidentifiedImageError

from hilum.client.intake.instance import MAX_EDGE
from hilum.client.intake.pixels.rescale import DISPLAY_MAX
from hilum.client.intake.reasons import Reason, Skip

Grey = npt.NDArray[np.uint16]
Colour = npt.NDArray[np.uint8]

_SUFFIXES = {".png", ".jpg", ".jpeg", ".tif", ".tiff"}
_FORMATS = ("PNG", "JPEG", "TIFF")
_MAX_PIXELS = 1 << 26  # a radiograph of 8192 x 8192
_FINE = np.uint16(DISPLAY_MAX // 255)  # display values in one level of 8 bits
_NEUTRAL = 8  # levels of 255 that JPEG lets the channels of a grey picture differ
_GREY_MODES = {"1", "L", "LA", "La", "I;16", "I;16B", "I;16L", "I"}
_COLOUR_MODES = {"RGB", "RGBA", "RGBa", "P", "PA", "YCbCr"}
_WHITE_IS_ZERO, _PHOTOMETRIC = 0, 262  # TIFF 6.0, tag PhotometricInterpretation


def is_raster(path: Path) -> bool:
    """Tell whether a file's name says that it is a picture of a kind that is read."""
    return path.suffix.lower() in _SUFFIXES


def read_raster(path: Path, *, colour: bool) -> Grey | Colour:
    """Read one picture, upright as its EXIF orientation says. What is transparent is black.

    Args:
        path: The picture.
        colour: Whether the images of this family are in colour.

    Returns:
        With `colour`, (H, W, 3) uint8. Without, (H, W) uint16 from 0 black to 65535 white; a picture whose channels are
        equal counts as grey.

    Raises:
        Skip: If it is broken, too large, has several pages, is of another depth, or is in colour without `colour`.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(path, formats=_FORMATS) as image:
                _check(image)
                upright = ImageOps.exif_transpose(image)
                values = _grey(upright, image)
                shown = _in_colour(upright, values) if colour else _without_colour(upright, values)
    except Skip:
        raise
    except (Image.DecompressionBombError, Image.DecompressionBombWarning, MemoryError):
        raise Skip(Reason.TOO_LARGE) from None
    except UnidentifiedImageError:
        raise Skip(Reason.DAMAGED_FILE) from None
    except OSError as error:
        # Pillow tells of broken content with an OSError of its own; the system's has a number.
        raise Skip(Reason.DAMAGED_FILE if error.errno is None else Reason.UNREADABLE) from None
    except Exception:
        # Pillow's parsers raise what they happen to raise on broken input; the file is counted, not guessed at.
        raise Skip(Reason.DAMAGED_FILE) from None
    if shown.min() == shown.max():
        raise Skip(Reason.CONSTANT_PIXELS)
    return shown


def _check(image: Image.Image) -> None:
    """Judge the stated size and depth before a pixel is decoded."""
    width, height = image.size
    if max(width, height) > MAX_EDGE or width * height > _MAX_PIXELS:
        raise Skip(Reason.TOO_LARGE)
    if min(width, height) < 1:
        raise Skip(Reason.DAMAGED_FILE)
    if getattr(image, "n_frames", 1) != 1 or image.mode not in _GREY_MODES | _COLOUR_MODES:
        raise Skip(Reason.UNSUPPORTED_PIXELS)


def _grey(upright: Image.Image, file: Image.Image) -> Grey | None:
    """Return a grey picture's values from black to white; None for one that may be in colour."""
    if upright.mode in {"1", "L"}:
        eight: Grey = np.asarray(upright.convert("L")).astype(np.uint16) * _FINE
        return eight
    if upright.mode in {"LA", "La"}:
        shown = np.asarray(upright.convert("LA"), np.float32)
        over_black: Grey = np.rint(shown[..., 0] * shown[..., 1] * (DISPLAY_MAX / 255**2)).astype(np.uint16)
        return over_black
    if upright.mode not in _GREY_MODES:
        return None
    values = np.asarray(upright)
    if values.min() < 0 or values.max() > DISPLAY_MAX:
        raise Skip(Reason.UNSUPPORTED_PIXELS)
    deep: Grey = values.astype(np.uint16)
    # Pillow turns white-is-zero round for pictures of 8 bits, and leaves those of 16 as they are.
    if getattr(file, "tag_v2", {}).get(_PHOTOMETRIC) == _WHITE_IS_ZERO:
        return np.invert(deep)
    return deep


def _rgb(upright: Image.Image) -> Colour:
    if upright.mode in {"P", "PA", "RGBA", "RGBa"}:
        shown = np.asarray(upright.convert("RGBA"), np.float32)
        return np.rint(shown[..., :3] * shown[..., 3:] / 255).astype(np.uint8)
    return np.asarray(upright.convert("RGB"))


def _in_colour(upright: Image.Image, grey: Grey | None) -> Colour:
    if grey is None:
        return _rgb(upright)
    return np.repeat(np.rint(grey / _FINE).astype(np.uint8)[..., None], 3, axis=2)


def _without_colour(upright: Image.Image, grey: Grey | None) -> Grey:
    if grey is None:
        shown = _rgb(upright)
        if (shown.max(axis=2) - shown.min(axis=2)).max() > _NEUTRAL:
            raise Skip(Reason.UNSUPPORTED_PIXELS)
        grey = shown[..., 1].astype(np.uint16) * _FINE  # of grey pictures, green has the finest steps
    return grey
