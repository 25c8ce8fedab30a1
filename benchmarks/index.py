"""Headers read per second: the tag walker beside pydicom on the same tags, and beside opening the file at all.

    python benchmarks/index.py [FOLDER ...]

Without folders: phantom archives written for this run, and the real files of ../shared/data/dicom where that folder is. Every
value of both is compared first. Rates are medians over interleaved passes of processor time in this one run, warm cache,
one core: what else runs on the machine changes them little. The walker learns what files of one writer have in common, so
the rate of the first pass, before anything is learnt, is printed too: an archive of millions of files has one such pass over
its first thousands.
"""

import os
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path

import pydicom
from timing import compare, median_s

from hilum.client.intake.headers.pydicom_tags import pydicom_tags
from hilum.client.intake.headers.read_instance import NeedsPydicom, walk
from hilum.client.intake.headers.tags import NOTED, TAKEN
from hilum.client.intake.headers.walker import WINDOW_BYTES, walk_tags
from hilum.client.intake.reasons import Skip
from hilum.client.intake.silence import silent_readers
from hilum.simulations.phantoms import write_phantoms

PASSES, MAX_FILES = 11, 1000
TAGS = [*(keyword for keyword, _ in TAKEN.values()), *NOTED.values()]
REAL = Path(__file__).parents[2] / "shared" / "data" / "dicom"


def dicom_files(folders: list[Path]) -> tuple[list[Path], int]:
    """Return the files that the walker answers, evenly thinned, once its values are found to be pydicom's; how many it left."""
    found, left = [], 0
    for path in every_file(folders):
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
    return found[:: max(1, len(found) // MAX_FILES)], left


def every_file(folders: list[Path]) -> list[Path]:
    """Return all of them, in order."""
    return sorted(path for folder in folders for path in folder.rglob("*") if path.is_file())


def walk_all(files: list[Path]) -> None:
    """Make one pass, whatever comes of it."""
    for path in files:
        with suppress(Skip):
            walk_tags(path)


def open_and_read(path: Path) -> None:
    """Reach the limit: no header is read faster than its bytes."""
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
    """Do what a user would pick: values stay raw bytes until they are asked for."""
    pydicom.dcmread(path, stop_before_pixels=True, force=True, specific_tags=TAGS)


def parse_and_convert(path: Path) -> None:
    """Do the same, with every value asked for, as an index does."""
    dataset = pydicom.dcmread(path, stop_before_pixels=True, force=True, specific_tags=TAGS)
    for element in dataset:
        element.value  # noqa: B018 - converts the value


def measure(folders: list[Path]) -> None:
    """Print rates, ratios and the share of the limit."""
    with silent_readers():
        everything = every_file(folders)
        for path in everything:
            open_and_read(path)  # so that the cache is warm, and nothing is learnt yet
        (first,) = median_s(lambda: walk_all(everything), repeats=1, clock=time.process_time)
        files, left = dicom_files(folders)
        if not files:
            sys.exit("give folders that hold DICOM files")
        limit, tags, facts, raw, values = median_s(
            *(
                lambda one=one: [one(path) for path in files]  # type: ignore[misc]
                for one in (open_and_read, walk_tags, whole_header, parse_only, parse_and_convert)
            ),
            repeats=PASSES,
            clock=time.process_time,
        )
    asked = sum(isinstance(outcome(path), NeedsPydicom) for path in files)
    bound = f"open and read {WINDOW_BYTES} bytes", limit
    print(f"{len(files)} headers, every value the same; {left} more left to pydicom as odd")
    print(f"  a first pass over all {len(everything)} files: {len(everything) / first:,.0f} files/s")
    read, bare = ("pydicom, the same tags read", values), ("pydicom, the same tags left as bytes", raw)
    compare("  tags with their values", "files", len(files), tags, read, bound)
    compare("  tags with their values", "files", len(files), tags, bare, bound)
    compare(f"  typed facts ({asked} stop at the walker)", "files", len(files), facts, read, bound)


def outcome(path: Path) -> object:
    """Return the facts, or None where the file is set aside."""
    try:
        return walk(path)
    except Skip:
        return None


def main() -> None:
    """Measure the given folders, or phantoms and what real files are at hand."""
    if len(sys.argv) > 1:
        measure([Path(folder) for folder in sys.argv[1:]])
        return
    with tempfile.TemporaryDirectory() as name:
        phantoms = Path(name) / "archives"
        write_phantoms(phantoms, sites=3, patients=40, size=64, seed=0)
        print("phantoms: ", end="")
        measure([phantoms])
    if REAL.is_dir():
        print("real files: ", end="")
        measure([REAL])


if __name__ == "__main__":
    main()
