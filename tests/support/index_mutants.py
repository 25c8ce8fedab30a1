"""Folders of seeded mutants, and what a whole `hilum site index` makes of one.

Every mutant is an instance of its own, so that none is set aside as another's copy; every fourth group of eight is one
series of which about half are mutants.
"""

import json
import os
import random
import re
import subprocess
import sys
import time
import warnings
import zlib
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pydicom
from pydicom.uid import generate_uid

from hilum.client.state.cache import ArrayCache
from hilum.client.state.catalogue import Catalogue
from hilum.client.state.workspace import Workspace
from mutants import MUTATIONS, mutant
from pixel_files import BIG, DEFLATED, ENCODERS, EXPLICIT, IMPLICIT, picture, write_any

GROUP = 8
WORKERS = len(os.sched_getaffinity(0))
LIMIT_S = 10.0
MAX_MIB = 2048 + 256  # what a file may take, and what a process has before the first
MAX_SEED_FILE_BYTES = 1 << 20
CR, CT, SC = (f"1.2.840.10008.5.1.4.1.1.{end}" for end in ("1", "2", "7"))
_ROOT = b"1.2.826.1"
_UIDS = ("SOPInstanceUID", "SeriesInstanceUID", "StudyInstanceUID")
_DRIVER = r"""
import json, re, resource, sys
from pathlib import Path
from hilum.common.cli import main
code = 0
try:
    main()
except SystemExit as end:
    code = end.code or 0
own = int(re.search(r"VmHWM:\s+(\d+)", Path("/proc/self/status").read_text())[1])  # not ru_maxrss: tests/support/peaks.py
print(json.dumps([own, resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss]), file=sys.stderr)
sys.exit(code)
"""


@dataclass(frozen=True)
class Base:
    """A good file.

    Attributes:
        uids: SOP, series and study UID as they stand in it, empty where it has none.
        deflated: Whether they stand in a deflated data set.
    """

    content: bytes
    uids: tuple[bytes, ...]
    deflated: bool = False

    def renamed(self, sop: str, series: str) -> bytes:
        """The file as another instance of another series; every UID keeps its length."""
        renamed = [_like(old, name) for old, name in zip(self.uids, (sop, series, series), strict=True)]
        start = _data_set(self.content) if self.deflated else 0
        content = zlib.decompress(self.content[start:], -zlib.MAX_WBITS) if self.deflated else self.content
        for old, new in zip(self.uids, renamed, strict=True):
            content = content.replace(old, new) if old else content
        if not self.deflated:
            return content
        engine = zlib.compressobj(wbits=-zlib.MAX_WBITS)
        return self.content[:start] + engine.compress(content) + engine.flush()


def _like(uid: bytes, name: str) -> bytes:
    """Another UID of the same length, the same for the same name; a short one stays, as no number would fit."""
    digits = len(uid) - len(_ROOT)
    if digits < 8:
        return uid
    return _ROOT + str(zlib.crc32(name.encode())).zfill(digits)[-digits:].encode()


def _data_set(content: bytes) -> int:
    return 144 + int.from_bytes(content[140:144], "little")


@dataclass(frozen=True)
class Bases:
    """Single images, and series: the slices of one CT in several syntaxes, and of an archive."""

    singles: tuple[Base, ...]
    series: tuple[tuple[Base, ...], ...]


def bases(folder: Path, archive: Path | None = None) -> Bases:
    """Small files in every transfer syntax, grey and in colour, one frame and several, and those of an archive.

    Args:
        folder: Where they may be written.
        archive: Adds its files of less than 1 MiB.
    """
    singles, series = [], []
    for number, syntax in enumerate((EXPLICIT, IMPLICIT, BIG, DEFLATED, *ENCODERS)):
        bits = 8 if syntax == next(iter(ENCODERS)) or syntax.endswith(".50") else 12
        grey = np.stack([picture((48, 64), bits=bits, seed=number + k) for k in range(1 + number % 3)])
        sop_class = CR if len(grey) == 1 else SC
        singles.append(_written(folder / f"{number}g", grey, syntax, BitsStored=bits, SOPClassUID=sop_class))
        if not syntax.endswith(".51"):
            photometric = "YBR_FULL_422" if syntax.endswith(".50") else "RGB"
            colour = picture((32, 40, 3), bits=8, seed=number)[None]
            singles.append(
                _written(
                    folder / f"{number}c",
                    colour,
                    syntax,
                    SOPClassUID=SC,
                    PhotometricInterpretation=photometric,
                )
            )
        if bits > 8:
            slices = [picture((48, 64), bits=bits, seed=40 + k)[None] for k in range(GROUP)]
            series.append(
                tuple(
                    _written(folder / f"{number}s{k}", one, syntax, BitsStored=bits, **_slice(k))
                    for k, one in enumerate(slices)
                )
            )
    if archive is not None:
        real = list(_of_archive(archive))
        singles += real
        series += _long_series(real)
    return Bases(tuple(singles), tuple(series))


def _slice(k: int) -> dict[str, object]:
    return {
        "SOPClassUID": CT,
        "ImagePositionPatient": [-10, -20, 3 * k],
        "ImageOrientationPatient": [1, 0, 0, 0, 1, 0],
        "PixelSpacing": [0.7, 0.8],
        "FrameOfReferenceUID": "1.2.6",
    }


def _written(path: Path, pixels: np.ndarray, syntax: str, **attributes: object) -> Base:
    uids = {name: generate_uid(entropy_srcs=[path.name, name]) for name in _UIDS}
    write_any(path, pixels, syntax, **uids, **attributes)
    return Base(path.read_bytes(), tuple(uid.encode() for uid in uids.values()), syntax == DEFLATED)


def _of_archive(archive: Path) -> Iterator[Base]:
    for path in sorted(archive.rglob("*")):
        if path.is_file() and path.stat().st_size < MAX_SEED_FILE_BYTES and (base := _real(path)):
            yield base


def _long_series(real: list[Base]) -> list[tuple[Base, ...]]:
    """The first files of each series that has enough of them, by their order on disk."""
    by_uid: dict[bytes, list[Base]] = {}
    for base in real:
        by_uid.setdefault(base.uids[1], []).append(base)
    return [tuple(found[:GROUP]) for uid, found in by_uid.items() if uid and len(found) >= GROUP]


def _real(path: Path) -> Base | None:
    """A file that pydicom reads, whatever it says against its values."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            dataset = pydicom.dcmread(path)
            uids = tuple(str(dataset.get(name, "")).encode() for name in _UIDS)
            return Base(path.read_bytes(), uids, dataset.file_meta.TransferSyntaxUID == DEFLATED)
        except Exception:
            return None


def write_mutants(folder: Path, good: Bases, seeds: range) -> Counter[str]:
    """Write a file a seed, and say how many were changed how; `none` are the good slices among bad ones."""
    made: Counter[str] = Counter()
    folder.mkdir(parents=True, exist_ok=True)
    for seed in seeds:
        rng = random.Random(f"index {seed}")
        group, place = divmod(seed, GROUP)
        in_series = group % 4 == 0
        if in_series:
            base = random.Random(f"series {group}").choice(good.series)[place]
            content = base.renamed(f"sop {seed}", f"series {group}")
        else:
            content = rng.choice(good.singles).renamed(f"sop {seed}", f"series of {seed}")
        name = "none"
        if not in_series or rng.random() < 0.25:
            name, content = mutant(seed, content, rng.choice(good.singles).content)
        (folder / f"{seed:08d}").write_bytes(content)
        made[name] += 1
    assert set(made) <= {"none", *MUTATIONS}
    return made


@dataclass(frozen=True)
class Indexed:
    """One call of `hilum site index` in a process of its own.

    Attributes:
        code: Its exit code.
        counts: What it told on stdout; empty where it told nothing.
        errors: Its stderr, without the progress and the peaks.
        main_mib: Peak memory of the command's own process.
        worker_mib: Of the largest of its decoding processes.
    """

    code: int
    counts: dict
    errors: str
    wall_s: float
    main_mib: int
    worker_mib: int


def index(archive: Path, home: Path, timeout_s: float = 900) -> Indexed:
    """Index an archive as the command line does."""
    started = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-c", _DRIVER, "site", "index", str(archive), "--json"],
        capture_output=True,
        text=True,
        timeout=timeout_s,
        env={**os.environ, "HILUM_HOME": str(home), "NO_COLOR": "1"},
        check=False,
    )
    *told, peaks = done.stderr.strip().splitlines() or ["[0, 0]"]
    main_kib, worker_kib = json.loads(peaks)
    errors = "\n".join(
        line for line in told if not re.fullmatch(r"indexing: \d+/\d+(, [\d.]+/s)?.*", line.strip())
    )
    return Indexed(
        done.returncode,
        json.loads(done.stdout or "{}"),
        errors,
        time.monotonic() - started,
        main_kib >> 10,
        worker_kib >> 10,
    )


def faults(done: Indexed, files: int, home: Path) -> list[str]:
    """What is wrong with one call on a folder of so many files; empty where all is well."""
    found = []
    if done.code not in {0, 3} or not done.counts:
        found.append(f"exit code {done.code}: {done.errors[-200:]}")
    if done.errors and done.code == 0:
        found.append("stderr holds more than progress")
    if "Traceback" in done.errors or "internal error" in done.errors:
        found.append("it raised")
    counts = done.counts or {"files": 0, "instances": 0, "skipped": {}}
    if not counts["files"] == counts["instances"] + sum(counts["skipped"].values()) == files:
        found.append("the counts do not add up")
    if done.wall_s * WORKERS > LIMIT_S * files:
        found.append(f"{done.wall_s:.0f} s")
    if done.main_mib > MAX_MIB or done.worker_mib > MAX_MIB:
        found.append(f"{done.main_mib} MiB and {done.worker_mib} MiB in a worker")
    return found + _catalogue_faults(Workspace(home / "site"))


def _catalogue_faults(workspace: Workspace) -> list[str]:
    catalogue, cache = Catalogue(workspace.catalogue), ArrayCache(workspace.cache)
    try:
        items = catalogue.items()
        shapes = [cache.get(item.content_sha256).shape == item.shape for item in items]
    finally:
        catalogue.close()
    return [] if all(shapes) else ["a cached array is not of its item's shape"]
