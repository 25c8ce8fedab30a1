"""Look-up tables that stand in a data set: modality, VOI and palette (PS3.3 sections C.11.1, C.11.2, C.7.9).

They are the only part of a data set that is parsed to decode pixels, and only where the header says that there are any.
"""

import io
import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from hilum.client.intake.pixels.layout import Layout
from hilum.client.intake.reasons import Reason, Skip

if TYPE_CHECKING:  # pydicom takes a third of a second to import, and most files have no tables
    from pydicom.dataset import Dataset

_HEADER_MAX_BYTES = 64 << 20
_SIGN_BIT, _WORD = 1 << 15, 1 << 16
_COLOURS = ("Red", "Green", "Blue")
_WANTED = [
    0x0028_0103,  # pixel representation, by which pydicom tells US from SS
    0x0028_3000,  # modality LUT sequence
    0x0028_3010,  # VOI LUT sequence
    *(0x0028_0000 | n for n in (0x1101, 0x1102, 0x1103, 0x1201, 0x1202, 0x1203, 0x1221, 0x1222, 0x1223)),
]


@dataclass(frozen=True)
class Table:
    """One look-up table.

    Attributes:
        first: The value that the first entry is for, as 16 bits.
        signed: The file itself says that `first` is signed.
        bits: Declared bits of an entry.
    """

    entries: npt.NDArray[np.int64]
    first: int
    signed: bool
    bits: int

    def look_up(self, values: npt.NDArray[Any]) -> npt.NDArray[np.int64]:
        """Return the entry for each value; below the first and above the last, the ends (PS3.3 section C.11.1.1.1)."""
        below_zero = values.dtype.kind == "i" or bool(values.min() < 0)
        negative = self.first >= _SIGN_BIT and (self.signed or below_zero)
        first = self.first - _WORD if negative else self.first
        last = first + len(self.entries) - 1
        if values.dtype.kind == "f":  # clipped first, for a number may lie beyond int64
            values = np.clip(np.rint(values), first, last)
        index = np.clip(values.astype(np.int64), first, last) - first
        found: npt.NDArray[np.int64] = self.entries[index]
        return found


@dataclass(frozen=True)
class LookUpTables:
    """The tables of one data set, None where it has no such."""

    modality: Table | None = None
    voi: Table | None = None
    palette: tuple[Table, Table, Table] | None = None

    def manufacturers_values(self, stored: npt.NDArray[Any]) -> npt.NDArray[np.float32]:
        """Return stored values through the modality table, (H, W)."""
        assert self.modality is not None
        return self.modality.look_up(stored).astype(np.float32)

    def brightness(self, values: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """Values through the VOI table, (H, W), 0 to 1."""
        assert self.voi is not None
        top = (1 << self.voi.bits) - 1
        highest = int(self.voi.entries.max())
        # Some writers declare 16 bits for entries of fewer; then the table's own range is what it spans.
        if highest <= top // 2 or highest > top:
            top = max(highest, 1)
        return (self.voi.look_up(values) / top).astype(np.float32)

    def colours(self, stored: npt.NDArray[Any]) -> npt.NDArray[np.uint8]:
        """Turn indices into colours, (H, W, 3)."""
        if self.palette is None:
            raise Skip(Reason.MISSING_ATTRIBUTE)
        # A table of 16 bits whose entries never leave the low byte is one of 8 bits in words.
        wide = max(int(table.entries.max()) for table in self.palette) > 255  # noqa: PLR2004 - a byte
        planes = [table.look_up(stored) >> (8 if wide else 0) for table in self.palette]
        return np.stack(planes, axis=-1).astype(np.uint8)


def read_luts(layout: Layout) -> LookUpTables:
    """Parse the look-up tables of an open file.

    Raises:
        Skip: If the part of the file before its pixels is larger than any header, or a table is malformed.
    """
    size = layout.pixels.offset - layout.start
    if size > _HEADER_MAX_BYTES:
        raise Skip(Reason.DAMAGED_HEADER)
    import pydicom.config
    from pydicom.filereader import read_dataset
    from pydicom.tag import BaseTag

    try:
        with pydicom.config.disable_value_validation():
            dataset = read_dataset(
                io.BytesIO(layout.source.read_at(layout.start, size)),
                is_implicit_VR=layout.implicit,
                is_little_endian=not layout.big_endian,
                stop_when=_at_pixels,
                specific_tags=[BaseTag(tag) for tag in _WANTED],
            )
            order = ">" if layout.big_endian else "<"
            return LookUpTables(
                modality=_first_of(dataset, "ModalityLUTSequence", order),
                voi=_first_of(dataset, "VOILUTSequence", order),
                palette=_palette(dataset, order),
            )
    except (Skip, MemoryError):
        raise
    except Exception:
        # pydicom raises what its parsers happen to raise on broken input.
        raise Skip(Reason.MISSING_ATTRIBUTE) from None


def _at_pixels(tag: int, _vr: str | None, _length: int) -> bool:
    return tag >= 0x7FE0_0000  # noqa: PLR2004 - the group of pixel data


def _first_of(dataset: "Dataset", name: str, order: str) -> Table | None:
    items = dataset.get(name)
    if not items:
        return None
    return _table(items[0], "LUTDescriptor", items[0]["LUTData"].value, order)


def _palette(dataset: "Dataset", order: str) -> tuple[Table, Table, Table] | None:
    if "RedPaletteColorLookupTableDescriptor" not in dataset:
        return None
    if "SegmentedRedPaletteColorLookupTableData" in dataset:
        red, green, blue = _unrolled(dataset)
    else:
        red, green, blue = (
            _table(
                dataset,
                f"{colour}PaletteColorLookupTableDescriptor",
                dataset[f"{colour}PaletteColorLookupTableData"].value,
                order,
            )
            for colour in _COLOURS
        )
    return red, green, blue


def _table(dataset: "Dataset", descriptor: str, raw: Any, order: str) -> Table:
    count, first, bits, signed = _descriptor(dataset, descriptor, order)
    if isinstance(raw, bytes):
        # Entries of 8 bits lie in bytes or, by other writers, each in a word.
        packed = bits <= 8 and len(raw) < 2 * count  # noqa: PLR2004 - bits of a byte
        values = np.frombuffer(raw[: len(raw) // 2 * 2], "u1" if packed else f"{order}u2").astype(np.int64)
    else:
        values = np.atleast_1d(np.asarray(raw, np.int64)) & (_WORD - 1)
    if len(values) < count or not 0 < bits <= 16:  # noqa: PLR2004 - bits of a word
        raise Skip(Reason.MISSING_ATTRIBUTE)
    return Table(values[:count], first, signed, bits)


def _descriptor(dataset: "Dataset", name: str, order: str) -> tuple[int, int, int, bool]:
    """Entries, first value as 16 bits, bits of an entry, and whether the first value is declared signed."""
    element = dataset[name]
    count, first, bits = (
        struct.unpack(order + "3H", element.value) if isinstance(element.value, bytes) else element.value
    )
    return (int(count) & (_WORD - 1)) or _WORD, int(first) & (_WORD - 1), int(bits), element.VR == "SS"


def _unrolled(dataset: "Dataset") -> list[Table]:
    """Segmented tables (PS3.3 section C.7.9.2) as plain ones: pydicom's colours of every index."""
    from pydicom.pixels.processing import apply_color_lut

    count, first, bits, signed = _descriptor(dataset, "RedPaletteColorLookupTableDescriptor", "<")
    if bits == 8 and count > 256:  # noqa: PLR2004 - pydicom's index has the width of an entry
        raise Skip(Reason.UNSUPPORTED_PIXELS)
    start = int(dataset.RedPaletteColorLookupTableDescriptor[1])
    colours = apply_color_lut(np.arange(start, start + count, dtype=np.int64), dataset).astype(np.int64)
    return [Table(colours[:, channel], first, signed, bits) for channel in range(3)]
