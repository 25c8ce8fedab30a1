"""Can the image that a header claims be in the file at all? Asked before anything is allocated by the claim."""

from hilum.client.intake.instance import MAX_EDGE, Instance, PixelFormat
from hilum.client.intake.reasons import Reason, Skip
from hilum.client.intake.transfer_syntaxes import NATIVE, SUPPORTED_SYNTAXES, UNCOMPRESSED

MEMORY_BYTES = 2 << 30
"""What one file may take to decode."""
WORKING_BYTES = 32
"""Memory a sample needs at the most on its way: container, float32 values, mask, what is shown, and their copies."""
MAX_DECODED_BYTES = 8 << 30
"""What all frames of one file may come to: about 8,000 slices of 512 x 512 in float32."""

_BITS = {"whole": (8, 16, 32), "float": (32,), "double": (64,)}
_MIN_FRAME_BYTES = 24
"""No code stream of a frame is shorter: markers, size, one table."""


def check_size(instance: Instance, size_bytes: int) -> None:
    """Refuse an image that can't be in its file, or that would not fit in memory.

    Args:
        instance: What the header claims.
        size_bytes: Of the file.

    Raises:
        Skip: With IMPLAUSIBLE_SIZE, TRUNCATED_PIXELS, TOO_LARGE, or the syntax or pixel format that is not read.
    """
    pixels = instance.pixels
    check_format(pixels)
    if not (0 < pixels.rows <= MAX_EDGE and 0 < pixels.columns <= MAX_EDGE and pixels.frames > 0):
        raise Skip(Reason.IMPLAUSIBLE_SIZE)
    if not instance.mosaic and any(not 0 <= frame.index < pixels.frames for frame in instance.frames):
        raise Skip(Reason.IMPLAUSIBLE_SIZE)
    samples = pixels.rows * pixels.columns * pixels.samples
    claimed_bytes = frame_bytes(pixels) * pixels.frames
    if pixels.syntax not in UNCOMPRESSED and pixels.frames * _MIN_FRAME_BYTES > size_bytes:
        raise Skip(Reason.IMPLAUSIBLE_SIZE)
    most = SUPPORTED_SYNTAXES[pixels.syntax].max_compression
    if claimed_bytes > size_bytes * most:
        # Half of the pixels there is a file that was cut; a hundredth is a claim that was never true.
        cut = claimed_bytes <= 100 * size_bytes * most
        raise Skip(Reason.TRUNCATED_PIXELS if cut else Reason.IMPLAUSIBLE_SIZE)
    if samples * WORKING_BYTES > MEMORY_BYTES or 4 * samples * pixels.frames > MAX_DECODED_BYTES:
        raise Skip(Reason.TOO_LARGE)


def check_format(pixels: PixelFormat) -> None:
    """Refuse what is not read.

    Raises:
        Skip: If no decoder knows the syntax, or the bits and samples are not ones that an image has.
    """
    if pixels.syntax not in SUPPORTED_SYNTAXES:
        raise Skip(Reason.UNSUPPORTED_SYNTAX)
    if pixels.bits_allocated not in _BITS[pixels.kind] or pixels.samples not in {1, 3}:
        raise Skip(Reason.UNSUPPORTED_PIXELS)
    if pixels.kind != "whole" and (pixels.samples != 1 or pixels.syntax not in NATIVE):
        raise Skip(Reason.UNSUPPORTED_PIXELS)
    if not 0 < pixels.bits_stored <= pixels.bits_allocated:
        raise Skip(Reason.UNSUPPORTED_PIXELS)
    if not pixels.bits_stored - 1 <= pixels.high_bit < pixels.bits_allocated:
        raise Skip(Reason.UNSUPPORTED_PIXELS)


def frame_bytes(pixels: PixelFormat) -> int:
    """Bytes of one frame where it is not compressed."""
    samples = pixels.rows * pixels.columns * pixels.samples
    if pixels.photometric == "YBR_FULL_422":
        samples = samples * 2 // 3  # two pixels share a pair of colour samples (PS3.3 section C.7.6.3.1.2)
    return samples * pixels.bits_allocated // 8
