"""Frames of a file as it stores them, one at a time: no copy of the whole is ever made.

Shapes: H rows, W columns.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from hilum.client.intake.instance import Instance, PixelFormat
from hilum.client.intake.pixels.codestream import StreamInfo
from hilum.client.intake.pixels.decoders import decode_frame, in_bits
from hilum.client.intake.pixels.encapsulated import Fragment, frame_fragments, read_fragments
from hilum.client.intake.pixels.layout import Layout, open_layout
from hilum.client.intake.pixels.size_checks import check_size, frame_bytes
from hilum.client.intake.reasons import Reason, Skip
from hilum.client.intake.transfer_syntaxes import ENCAPSULATED_UNCOMPRESSED, NATIVE

Stored = npt.NDArray[Any]
"""(H, W) or (H, W, 3): whole numbers in the header's dtype, or floats as they are, NaN where the file calls it padding."""


@dataclass(frozen=True)
class StoredFrame:
    """One frame as stored.

    Attributes:
        values: Samples, with what lies outside their bits taken off.
        cells: The same with those bits: where a file marks "no data" by a value that no sample can have, it is here.
        info: What a code stream says of itself, or None.
    """

    values: Stored
    cells: Stored = field(repr=False)
    info: StreamInfo | None = None


class PixelReader:
    """Reads the frames of one open file."""

    def __init__(self, layout: Layout, pixels: PixelFormat) -> None:
        self.layout = layout
        self._pixels = pixels
        self._fragments: list[tuple[Fragment, ...]] | None = None
        if layout.pixels.length is None:
            self._fragments = frame_fragments(layout.source, layout.pixels, pixels.frames)

    def frame(self, index: int) -> StoredFrame:
        """Return one frame, from 0.

        Raises:
            Skip: If the pixels end too early or can't be decoded. Nothing is filled in.
        """
        if self._fragments is None:
            return self._native(self._native_bytes(index))
        stream = read_fragments(self.layout.source, self._fragments[index])
        if self._pixels.syntax == ENCAPSULATED_UNCOMPRESSED:
            self._check_halved(len(stream), 1)
            return self._native(stream)
        decoded = decode_frame(stream, self._pixels)
        return StoredFrame(decoded.stored, decoded.cells, decoded.info)

    def _native_bytes(self, index: int) -> bytes:
        layout, size = self.layout, frame_bytes(self._pixels)
        begin, end = index * size, (index + 1) * size
        element = layout.pixels
        assert element.length is not None
        if end > element.length:
            raise Skip(Reason.TRUNCATED_PIXELS)
        self._check_halved(element.length, self._pixels.frames)
        swapped = layout.big_endian and element.words and self._pixels.bits_allocated == 8  # noqa: PLR2004 - a byte
        if not swapped:
            return layout.source.read_at(element.offset + begin, size)
        # Bytes lie in 16-bit words, most significant first (PS3.5 section A.3): swap whole words, then cut.
        even = begin - begin % 2
        words = layout.source.read_at(element.offset + even, end + end % 2 - even)
        return np.frombuffer(words[: len(words) // 2 * 2], "<u2").byteswap().tobytes()[begin - even :][:size]

    def _check_halved(self, held_bytes: int, frames: int) -> None:
        """Refuse what is called YBR_FULL_422 and has colour for every pixel: nothing says how its samples lie."""
        pixels = self._pixels
        whole_bytes = pixels.rows * pixels.columns * pixels.samples * pixels.bits_allocated // 8
        if pixels.photometric == "YBR_FULL_422" and held_bytes >= frames * whole_bytes:
            raise Skip(Reason.UNSUPPORTED_PIXELS)

    def _native(self, content: bytes) -> StoredFrame:
        pixels = self._pixels
        size = frame_bytes(pixels)
        if len(content) < size:
            raise Skip(Reason.TRUNCATED_PIXELS)
        order = ">" if self.layout.big_endian else "<"
        kind = self.layout.pixels.kind
        if kind != "whole":
            floats = np.frombuffer(content[:size], f"{order}f{pixels.bits_allocated // 8}")
            values = _shaped(floats.astype(floats.dtype.newbyteorder("="), copy=False), pixels)
            if self.layout.pixels.padding is not None:
                low, high = self.layout.pixels.padding
                values = np.where((values >= low) & (values <= high), values.dtype.type(np.nan), values)
            return StoredFrame(values, values)
        cells = np.frombuffer(content[:size], f"{order}u{pixels.bits_allocated // 8}")
        cells = _shaped(cells.astype(cells.dtype.newbyteorder("="), copy=False), pixels)
        signed = cells.view(cells.dtype.str.replace("u", "i")) if pixels.signed else cells
        values = in_bits(cells, pixels.bits_stored, pixels.high_bit + 1, signed=pixels.signed)
        return StoredFrame(values, signed)


@contextmanager
def open_frames(path: Path, instance: Instance) -> Iterator[PixelReader]:
    """Open a file to read its frames one by one.

    Raises:
        Skip: If the claimed size is implausible, the file can't be read, or its structure is broken.
    """
    try:
        size_bytes = path.stat().st_size
    except OSError:
        raise Skip(Reason.UNREADABLE) from None
    check_size(instance, size_bytes)
    with open_layout(path, instance.pixels.syntax) as layout:
        pixels = instance.pixels
        if layout.pixels.kind != pixels.kind:
            raise Skip(Reason.UNSUPPORTED_PIXELS)
        if (layout.pixels.length is None) == (pixels.syntax in NATIVE):
            raise Skip(Reason.UNDECODABLE_PIXELS)
        yield PixelReader(layout, pixels)


def _shaped(cells: Stored, pixels: PixelFormat) -> Stored:
    """Return the samples of a pixel side by side, whatever their order in the file (PS3.3 section C.7.6.3.1.3)."""
    rows, columns, samples = pixels.rows, pixels.columns, pixels.samples
    if samples == 1:
        return cells.reshape(rows, columns)
    if pixels.photometric == "YBR_FULL_422":
        if columns % 2:
            raise Skip(Reason.UNSUPPORTED_PIXELS)
        pairs = cells.reshape(rows, columns // 2, 4)  # Y1 Y2 Cb Cr
        luma = pairs[..., :2].reshape(rows, columns, 1)
        return np.concatenate([luma, np.repeat(pairs[..., 2:], 2, axis=1)], axis=2)
    if pixels.planar:
        return np.moveaxis(cells.reshape(samples, rows, columns), 0, -1)
    return cells.reshape(rows, columns, samples)
