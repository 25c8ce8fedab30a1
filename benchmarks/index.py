"""Headers read per second: the tag walker beside pydicom on the same tags, and beside opening the file at all.

    python benchmarks/index.py FOLDER [FOLDER ...]

Every value of both is compared first. Rates are medians over interleaved passes of processor time in this
one run, warm cache, one core: what else runs on the machine changes them little.
"""

import os
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pydicom

from hilum.client.intake.pydicom_tags import pydicom_tags, silent_pydicom
from hilum.client.intake.read_instance import NeedsPydicom, walk
from hilum.client.intake.reasons import Skip
from hilum.client.intake.tags import KEYWORDS
from hilum.client.intake.walker import WINDOW_BYTES, walk_tags

PASSES, MOST_FILES = 7, 1000
TAGS = list(KEYWORDS)


def dicom_files(folders: list[str]) -> tuple[list[Path], int]:
    """The files that the walker answers, evenly thinned, once its values are found to be pydicom's; how many it left."""
    found, left = [], 0
    for path in sorted(path for folder in folders for path in Path(folder).rglob("*") if path.is_file()):
        try:
            tags = walk_tags(path)
        except Skip:
            continue
        if tags is None:
            left += 1
        elif tags != pydicom_tags(path):
            sys.exit("a value differs between the walker and pydicom")
        else:
            found.append(path)
    return found[:: max(1, len(found) // MOST_FILES)], left


def open_and_read(path: Path) -> None:
    """The limit: no header is read faster than its bytes."""
    handle = os.open(path, os.O_RDONLY)
    os.read(handle, WINDOW_BYTES)
    os.close(handle)


def whole_header(path: Path) -> None:
    """From the file to typed facts, or to the reason why not."""
    try:
        found = walk(path)
    except Skip:
        return
    if isinstance(found, NeedsPydicom):
        return  # timed as far as the walker goes; pydicom's share is printed


def parse_only(path: Path) -> None:
    """What a user would pick: values stay raw bytes until they are asked for."""
    pydicom.dcmread(path, stop_before_pixels=True, force=True, specific_tags=TAGS)


def parse_and_convert(path: Path) -> None:
    """The same, with every value asked for, as an index does."""
    dataset = pydicom.dcmread(path, stop_before_pixels=True, force=True, specific_tags=TAGS)
    for element in dataset:
        element.value  # noqa: B018 - converts the value


def rates(files: list[Path], *work: Callable[[Path], object]) -> list[float]:
    """Median files per second of each function, taken in turn."""
    times: list[list[float]] = [[] for _ in work]
    for _ in range(PASSES):
        for taken, one in zip(times, work, strict=True):
            started = time.process_time()
            for path in files:
                one(path)
            taken.append(time.process_time() - started)
    return [len(files) / statistics.median(taken) for taken in times]


def main() -> None:
    """Print rates, ratios and the share of the limit."""
    files, left = dicom_files(sys.argv[1:])
    if not files:
        sys.exit("give folders that hold DICOM files")
    with silent_pydicom():
        limit, tags, facts, raw, values = rates(
            files, open_and_read, walk_tags, whole_header, parse_only, parse_and_convert
        )
    grouped = sum(isinstance(outcome(path), NeedsPydicom) for path in files)
    print(f"{len(files)} files, every value the same; {left} more left to pydicom as odd")
    print(f"open and read {WINDOW_BYTES} bytes: {limit:.0f}/s")
    print(f"walker, all values parsed: {tags:.0f}/s, {tags / limit:.0%} of the limit")
    print(f"walker to typed facts: {facts:.0f}/s ({grouped} of them need their sequences from pydicom)")
    print(f"pydicom, values left raw: {raw:.0f}/s; ratio {tags / raw:.1f}x")
    print(
        f"pydicom, all values parsed: {values:.0f}/s; ratio {tags / values:.1f}x, to facts {facts / values:.1f}x"
    )


def outcome(path: Path) -> object:
    """The facts, or None where the file is set aside."""
    try:
        return walk(path)
    except Skip:
        return None


if __name__ == "__main__":
    main()
