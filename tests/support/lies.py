"""Headers whose statements contradict one another, made by a seed: encoding, bits, sizes, frames, samples, spacing, rescale.

    python tests/support/lies.py SEED COUNT

Each file is one that is right, in which one to three statements were made false. What Hilum makes of it is held against
the pixels that went in, where no statement about them was touched, and else against what pydicom reads, with the rules of
the standard applied to it here: bits beyond the stored ones are no part of a value (PS3.5 section 8.1.1).
"""

import random
import sys
import tempfile
import warnings
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
from pydicom.dataset import Dataset
from pydicom.filewriter import dcmwrite

from hilum.client.intake.headers.read_instance import read_instance
from hilum.client.intake.pixels.images import read_stored
from hilum.client.intake.reasons import Skip
from pixel_files import (
    BIG,
    DEFLATED,
    EXPLICIT,
    HT_LOSSLESS,
    IMPLICIT,
    J2K_LOSSLESS,
    JPEGLS,
    LOSSLESS_SV1,
    RLE,
    write_any,
)

CR, CT = (f"1.2.840.10008.5.1.4.1.1.{end}" for end in (1, 2))
NATIVE = (IMPLICIT, EXPLICIT, BIG)
SYNTAXES = (*NATIVE, DEFLATED, RLE, LOSSLESS_SV1, JPEGLS, J2K_LOSSLESS, HT_LOSSLESS)
_SHAPE = (24, 20)


@dataclass(frozen=True)
class Lie:
    """One file.

    Attributes:
        told: What was made false.
        pixels: (H, W) as they went in, or None where a statement about them is false.
        cells: (H, W) unsigned, as they lie in the file; None where sizes or what is compressed are lied about.
    """

    told: tuple[str, ...]
    content: bytes
    pixels: np.ndarray | None
    slope: float = 1.0
    intercept: float = 0.0
    cells: np.ndarray | None = None


def _bits(rng: random.Random, dataset: Dataset) -> None:
    dataset.BitsStored = rng.choice([1, 7, 8, 10, 12, 15, 16, 17, 0])
    dataset.HighBit = rng.choice([dataset.BitsStored - 1, 7, 11, 15, 16]) % 32


def _set(name: str, *values: Any) -> Callable[[random.Random, Dataset], None]:
    def change(rng: random.Random, dataset: Dataset) -> None:
        setattr(dataset, name, rng.choice(values))

    return change


def _without(name: str) -> Callable[[random.Random, Dataset], None]:
    def change(_rng: random.Random, dataset: Dataset) -> None:
        if name in dataset:
            delattr(dataset, name)

    return change


OF_PIXELS: dict[str, Callable[[random.Random, Dataset], None]] = {
    "bits stored": _bits,
    "bits allocated": _set("BitsAllocated", 1, 8, 12, 16, 24, 32, 64),
    "high bit": _set("HighBit", 0, 7, 11, 14, 15, 31),
    "sign": _set("PixelRepresentation", 0, 1, 2),
    "rows": _set("Rows", 0, 1, 12, 23, 25, 48, 65535),
    "columns": _set("Columns", 0, 1, 10, 19, 21, 40, 65535),
    "frames": _set("NumberOfFrames", 0, 1, 2, 3, 1000),
    "samples": _set("SamplesPerPixel", 0, 1, 2, 3, 4),
    "photometric": _set(
        "PhotometricInterpretation",
        "MONOCHROME1",
        "RGB",
        "YBR_FULL",
        "YBR_FULL_422",
        "PALETTE COLOR",
        "",
        "X",
    ),
    "planar": _set("PlanarConfiguration", 0, 1, 2),
    **{f"no {name}": _without(name) for name in ("BitsStored", "HighBit", "PixelRepresentation", "Rows")},
}
"""Statements about the pixels."""

_OF_BITS = {"bits stored", "high bit", "sign", "planar"}
OTHERS: dict[str, Callable[[random.Random, Dataset], None]] = {
    "slope": _set("RescaleSlope", 0, -1, 2.5, 1e30, 1e-9),
    "intercept": _set("RescaleIntercept", -1024, 0.5, 1e30, -32768),
    "type": _set("RescaleType", "HU", "US", "MGML", "", "OD"),
    "spacing": _set("PixelSpacing", [0, 0], [-1, 1], [1, 1, 1], [1e9, 1e9]),
    "no slope": _without("RescaleSlope"),
}
"""Statements that leave stored values as they are."""


def lie(seed: int, folder: Path) -> Lie:
    """Make one file.

    Args:
        seed: Names it; any number.
        folder: May be written to.
    """
    rng = random.Random(f"lie {seed}")
    syntax = rng.choice(SYNTAXES)
    signed = rng.random() < 0.4
    bits = rng.choice([10, 12, 16])
    numbers = np.random.default_rng(seed)
    low = -(1 << (bits - 1)) if signed else 0
    pixels = numbers.integers(low, low + (1 << bits), _SHAPE).astype(np.int16 if signed else np.uint16)
    path = folder / f"{seed}.dcm"
    write_any(
        path,
        pixels[None],
        syntax,
        BitsStored=bits,
        SOPClassUID=rng.choice([CR, CT]),
        RescaleSlope=1,
        RescaleIntercept=0,
    )
    dataset = pydicom.dcmread(path)
    told, of_pixels, of_sizes = [], False, syntax not in (*NATIVE, DEFLATED, RLE)
    for _ in range(rng.choice([0, 1, 1, 2, 3])):
        table = OF_PIXELS if rng.random() < 0.7 else OTHERS
        name = rng.choice(sorted(table))
        told.append(name)
        of_pixels |= table is OF_PIXELS
        of_sizes |= table is OF_PIXELS and name not in _OF_BITS
        table[name](rng, dataset)
    slope, intercept = dataset.get("RescaleSlope"), dataset.get("RescaleIntercept")
    dcmwrite(path, dataset, enforce_file_format=False)
    content = path.read_bytes()
    if rng.random() < 0.4 or not told:
        claimed = rng.choice([one for one in (*NATIVE, DEFLATED, RLE, J2K_LOSSLESS) if one != syntax])
        content = relabelled(content, claimed)
        told.append(f"{_short(syntax)} called {_short(claimed)}")
        of_pixels |= not (syntax in NATIVE and claimed in NATIVE)
        of_sizes |= of_pixels
    rescale = (1.0 if slope is None else float(slope), 0.0 if intercept is None else float(intercept))
    cells = None if of_sizes else pixels.view(np.uint16)
    return Lie(tuple(told), content, None if of_pixels else pixels, *rescale, cells)


def _short(syntax: str) -> str:
    return syntax.removeprefix("1.2.840.10008.1.2") or "implicit"


def relabelled(content: bytes, syntax: str) -> bytes:
    """The same file with another transfer syntax in its meta information (0002,0010); all else stays."""
    start = content.index(b"\x02\x00\x10\x00UI")
    length = int.from_bytes(content[start + 6 : start + 8], "little")
    uid = syntax.encode() + b"\0" * (len(syntax) % 2)
    changed = (
        content[:start]
        + b"\x02\x00\x10\x00UI"
        + len(uid).to_bytes(2, "little")
        + uid
        + content[start + 8 + length :]
    )
    group = 132 + 8  # the value of (0002,0000), bytes behind it
    grown = int.from_bytes(changed[group : group + 4], "little") + len(uid) - length
    return changed[:group] + grown.to_bytes(4, "little") + changed[group + 4 :]


def judge(one: Lie, path: Path) -> str:
    """What became of a file: `same`, `refused: REASON`, `pydicom refuses`, or `wrong: ...`."""
    path.write_bytes(one.content)
    try:
        instance = read_instance(path)
        [found] = read_stored(path, instance, [0])
    except Skip as skip:
        return f"refused: {skip.reason.value}"
    if one.pixels is not None:
        return "same" if _equal(found, one.pixels) else "wrong: not the pixels that went in"
    expected = _by_pydicom(path, one.cells)
    if isinstance(expected, str):
        return expected
    if not _equal(found, expected):
        return "wrong: not what pydicom reads"
    frame = instance.frames[0]
    if found.ndim == 2 and (frame.slope, frame.intercept) != (one.slope, one.intercept):
        return "wrong: another rescale"
    return "same"


def _equal(found: np.ndarray, expected: np.ndarray) -> bool:
    return found.shape == expected.shape and bool(
        np.array_equal(found.astype(np.int64), expected.astype(np.int64))
    )


def _by_pydicom(path: Path, cells: np.ndarray | None) -> np.ndarray | str:
    """The first frame as pydicom reads it, colour as stored, with the bits of each sample cut out; else why not.

    It ignores HighBit and takes off what lies above BitsStored, so where the two disagree the cells are asked.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            dataset = pydicom.dcmread(path, force=True)
            values = pydicom.pixels.pixel_array(dataset, index=0, raw=True)
            allocated, stored = int(dataset.BitsAllocated), int(dataset.BitsStored)
            top = int(dataset.HighBit) + 1
            signed = int(dataset.PixelRepresentation) == 1
        except Exception:  # whatever its parsers and decoders raise
            return "pydicom refuses"
    if top != stored and cells is None:
        return "pydicom ignores HighBit"
    values = values if cells is None else cells
    whole = values.astype(np.int64) & ((1 << allocated) - 1)
    sample = (whole >> (top - stored)) & ((1 << stored) - 1)
    return sample - ((sample >> (stored - 1)) << stored) if signed else sample


def run(seed: int, count: int) -> tuple[Counter[str], list[str]]:
    """Judge so many files; gives how many ended how, and the wrong ones by their seed."""
    outcomes: Counter[str] = Counter()
    wrong = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for number in range(seed, seed + count):
            one = lie(number, folder)
            path = folder / "now.dcm"
            outcome = judge(one, path)
            outcomes[outcome] += 1
            if outcome.startswith("wrong"):
                wrong.append(f"seed {number}: {', '.join(one.told)}: {outcome}")
            (folder / f"{number}.dcm").unlink()
    return outcomes, wrong


def main() -> int:
    """Judge from the command line."""
    outcomes, wrong = run(int(sys.argv[1]), int(sys.argv[2]))
    for outcome, number in outcomes.most_common():
        print(f"{number:6} {outcome}")
    print("\n".join(wrong) or "nothing wrong")
    return min(len(wrong), 1)


if __name__ == "__main__":
    sys.exit(main())
