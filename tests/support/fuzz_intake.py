"""Run seeded mutants of files of every transfer syntax through the sandbox.

    python tests/support/fuzz_intake.py SEED COUNT [ARCHIVE] [--headers | --index]

Every mutant ends as an image or under a reason, within its time and memory; the counts add up; this process lives. A
line names each mutant that killed or hung a worker by its seed, so that it can be made again. ARCHIVE adds the files of
a folder to those that the tests write; `--headers` has the mutants' own headers read, instead of the good files'.
`--index` has whole folders of mutants indexed by the command line, each with a state folder of its own, twice: what is
wrong with one is named by its first seed.
"""

import random
import resource
import shutil
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pydicom

import index_mutants
from hilum.client.intake.instance import Frame, Instance
from hilum.client.intake.reasons import Reason
from hilum.client.intake.sandbox.jobs import DecodeImage, DecodePlanes, HeaderRead, Job, ReadHeader, Refused
from hilum.client.intake.sandbox.pool import DecodePool
from mutants import mutant
from pixel_files import BIG, DEFLATED, ENCODERS, EXPLICIT, IMPLICIT, LOSSLESS, RLE, facts, picture, write_any

WORKERS = 2
FATAL = {Reason.DECODER_DIED, Reason.DECODER_TIMEOUT, Reason.TOO_LARGE}
MAX_SEED_FILE_BYTES = 1 << 20


@dataclass(frozen=True)
class Fuzzed:
    """What became of the mutants.

    Attributes:
        outcomes: How many ended how.
        fatal: Seed, mutation and reason of each that cost a worker.
        longest_s: The longest that the pool gave nothing.
    """

    outcomes: Counter[str]
    fatal: list[tuple[int, str, str]]
    longest_s: float


def good_files(folder: Path) -> list[tuple[bytes, Instance]]:
    """One small file a syntax, grey and in colour, one frame and several, and what their headers say."""
    made = []
    for number, syntax in enumerate((EXPLICIT, IMPLICIT, BIG, DEFLATED, *ENCODERS)):
        bits = 8 if syntax == next(iter(ENCODERS)) or syntax.endswith(".50") else 12
        grey = np.stack([picture((48, 64), bits=bits, seed=number + k) for k in range(1 + number % 3)])
        made.append(write_any(folder / f"{number}g", grey, syntax, BitsStored=bits))
        if not syntax.endswith(".51"):
            photometric = "YBR_FULL_422" if syntax.endswith(".50") else "RGB"
            colour = picture((32, 40, 3), bits=8, seed=number)[None]
            made.append(
                write_any(folder / f"{number}c", colour, syntax, PhotometricInterpretation=photometric)
            )
    names = sorted(folder.iterdir(), key=lambda path: (int(path.name[:-1]), path.name[-1] == "c"))
    return [(path.read_bytes(), instance) for path, instance in zip(names, made, strict=True)]


def archive_files(archive: Path) -> list[tuple[bytes, Instance]]:
    """The smaller images of a folder."""
    found = []
    for path in sorted(archive.rglob("*")):
        if path.is_file() and path.stat().st_size < MAX_SEED_FILE_BYTES:
            try:
                dataset = pydicom.dcmread(path)
                found.append((path.read_bytes(), facts(dataset)))
            except Exception:
                continue
    return found


def claims(rng: random.Random, instance: Instance) -> Instance:
    """Sometimes the header's own claims are forged as well, for they come from the same file."""
    if rng.random() < 0.8:
        return instance
    lies = {
        "rows": [0, 1, 16_384, 65_535, instance.pixels.rows * 2],
        "columns": [0, 1, 16_384, 65_535, instance.pixels.columns * 2],
        "frames": [0, 1, 2, 1000, 2_000_000_000],
        "bits_stored": [1, 7, 8, 12, 16, 40],
        "syntax": [EXPLICIT, RLE, LOSSLESS, *ENCODERS],
        "samples": [1, 3],
    }
    name = rng.choice(sorted(lies))
    return replace(instance, pixels=replace(instance.pixels, **{name: rng.choice(lies[name])}))


def jobs_of(
    files: list[tuple[bytes, Instance]], seeds: range, folder: Path, told: dict[int, str]
) -> Iterator[Job]:
    """One job a seed, written as the pool asks for it."""
    for seed in seeds:
        rng = random.Random(f"file {seed}")
        (content, instance), (other, _) = rng.choice(files), rng.choice(files)
        told[seed], changed = mutant(seed, content, other)
        path = folder / f"{seed % 64}"
        path.write_bytes(changed)
        claimed = claims(rng, instance)
        claimed = replace(claimed, frames=claimed.frames or (Frame(0),), has_lut=rng.random() < 0.2)
        grey = claimed.pixels.photometric.startswith("MONO")
        yield DecodePlanes(path, claimed) if grey and seed % 2 else DecodeImage(path, claimed)


def fuzz(seed: int, count: int, archive: Path | None = None, timeout_s: float = 10.0) -> Fuzzed:
    """Make and decode `count` mutants."""
    outcomes: Counter[str] = Counter()
    fatal, told, longest_s = [], {}, 0.0
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "good").mkdir()
        files = good_files(folder / "good") + (archive_files(archive) if archive else [])
        (folder / "bad").mkdir()
        with DecodePool(WORKERS, timeout_s=timeout_s, scratch=folder) as pool:
            seeds = range(seed, seed + count)
            before = time.monotonic()
            for number, result in zip(
                seeds, pool.map(jobs_of(files, seeds, folder / "bad", told)), strict=True
            ):
                longest_s, before = max(longest_s, time.monotonic() - before), time.monotonic()
                outcome = result.reason.value if isinstance(result, Refused) else "decoded"
                outcomes[outcome] += 1
                if isinstance(result, Refused) and result.reason in FATAL:
                    fatal.append((number, told[number], outcome))
    return Fuzzed(outcomes, fatal, longest_s)


def fuzz_headers(seed: int, count: int, archive: Path | None = None) -> Fuzzed:
    """Read the headers of `count` mutants with pydicom, and decode the images of those that are taken."""
    outcomes: Counter[str] = Counter()
    fatal, told = [], {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "good").mkdir()
        files = good_files(folder / "good") + (archive_files(archive) if archive else [])
        (folder / "bad").mkdir()
        with DecodePool(WORKERS, scratch=folder) as pool:
            for start in range(seed, seed + count, 32):  # the pool's folder holds 64 mutants at a time
                seeds = range(start, min(start + 32, seed + count))
                paths = [job.path for job in jobs_of(files, seeds, folder / "bad", told)]
                headers = list(pool.map(ReadHeader(path) for path in paths))
                taken = [
                    DecodeImage(path, header.instance)
                    for path, header in zip(paths, headers, strict=True)
                    if isinstance(header, HeaderRead)
                ]
                images = iter(list(pool.map(taken)))
                for number, header in zip(seeds, headers, strict=True):
                    result = next(images) if isinstance(header, HeaderRead) else header
                    outcome = result.reason.value if isinstance(result, Refused) else "decoded"
                    outcomes[outcome] += 1
                    if isinstance(result, Refused) and result.reason in FATAL:
                        fatal.append((number, told[number], outcome))
    return Fuzzed(outcomes, fatal, 0.0)


def fuzz_index(seed: int, count: int, archive: Path | None = None, folder_files: int = 400) -> list[str]:
    """Index `count` files in folders of some hundreds. Gives what was wrong, by the folder's first seed."""
    wrong: list[str] = []
    outcomes, mutations = Counter[str](), Counter[str]()
    peaks, slowest_s = [(0, 0)], 0.0
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "good").mkdir()
        good = index_mutants.bases(folder / "good", archive)
        for start in range(seed, seed + count, folder_files):
            seeds = range(start, min(start + folder_files, seed + count))
            bad, home = folder / f"bad{start}", folder / f"home{start}"
            mutations += index_mutants.write_mutants(bad, good, seeds)
            first = index_mutants.index(bad, home)
            again = index_mutants.index(bad, home)
            faults = index_mutants.faults(first, len(seeds), home)
            if first.counts and again.counts != {**first.counts, "decoded": 0}:
                faults.append("a second call differs")
            wrong += [f"seed {start}: {fault}" for fault in faults]
            print(f"seed {start}: {first.wall_s:.1f} s", faults or "", flush=True)
            if first.counts:
                outcomes += Counter({"instances": first.counts["instances"], **first.counts["skipped"]})
                outcomes["volumes"] += first.counts["volumes"]
            peaks.append((first.main_mib, first.worker_mib))
            slowest_s = max(slowest_s, first.wall_s)
            for path in (bad, home):
                shutil.rmtree(path)
    for told in (mutations, outcomes):
        for word, number in told.most_common():
            print(f"{number:7} {word}")
    main_mib, worker_mib = (max(column) for column in zip(*peaks, strict=True))
    print(
        f"{sum(mutations.values()) - mutations['none']} mutants among {count} files; slowest folder of "
        f"{folder_files}: {slowest_s:.1f} s; peaks: {main_mib} MiB, in a worker {worker_mib} MiB"
    )
    return wrong


def main() -> int:
    """Fuzz from the command line."""
    seed, count = int(sys.argv[1]), int(sys.argv[2])
    if "--index" in sys.argv:
        archives = [Path(word) for word in sys.argv[3:] if not word.startswith("--")]
        wrong = fuzz_index(seed, count, archives[0] if archives else None)
        print("\n".join(wrong) or "nothing wrong")
        return min(len(wrong), 1)
    started = time.monotonic()
    run = fuzz_headers if "--headers" in sys.argv else fuzz
    folders = [Path(word) for word in sys.argv[3:] if not word.startswith("--")]
    done = run(seed, count, folders[0] if folders else None)
    for number, mutation, outcome in done.fatal:
        print(f"seed {number}: {mutation}: {outcome}")
    for outcome, number in done.outcomes.most_common():
        print(f"{number:7} {outcome}")
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    print(
        f"{count} mutants in {time.monotonic() - started:.0f} s, longest wait {done.longest_s:.1f} s, "
        f"largest worker {usage.ru_maxrss >> 10} MiB"
    )
    return 0 if sum(done.outcomes.values()) == count else 1


if __name__ == "__main__":
    sys.exit(main())
