"""A simulation's start, and sites side by side in one process.

    python benchmarks/simulation.py

Ratios are medians over interleaved repetitions in this one run; absolutes are for orientation.
"""

import os
import signal
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from timing import median_s

from hilum.client.data.site_data import SiteData
from hilum.client.data.splits import Split
from hilum.client.pretraining.device import make_fabric
from hilum.client.pretraining.site import site_round
from hilum.common.config import parse_study, study_to_toml
from hilum.common.methods import build_method
from hilum.common.methods.parts import get_federated
from hilum.simulations.phantoms import write_phantoms

STUDY = parse_study(
    {
        "study": {"name": "bench"},
        "data": {"modality": "radiograph", "image_size": 64},
        "encoder": {"name": "vit", "size": "tiny", "patch_size": 8},
        "method": {"name": "mae"},
        "training": {"batch_size": 32, "local_epochs": 1, "threads": 1},
        "federation": {"sites": 2, "rounds": 1},
        "privacy": {"min_patients": 1},
    }
)
IMAGES = 96


def _site(name: str) -> SiteData:
    rng = np.random.default_rng(len(name))
    images = rng.integers(0, 65_535, (IMAGES, 1, 80, 80)).astype(np.uint16)
    rows, none = np.arange(IMAGES), np.zeros(0, np.int64)
    return SiteData(name, images, (None,) * IMAGES, Split(rows, none, none, rows), name)


def side_by_side() -> None:
    """Two sites of a simulation train in threads of one process; the bits must be those of one after the other."""
    make_fabric("cpu", "fp32", STUDY.training.threads)
    base = get_federated(build_method(STUDY))
    sites = [_site("site-0"), _site("site-01")]
    with tempfile.TemporaryDirectory() as folder:

        def train(data: SiteData) -> bytes:
            return site_round(data, STUDY, base, 1, Path(folder) / data.name, device="cpu").update.tobytes()

        with ThreadPoolExecutor(2) as threads:
            assert list(threads.map(train, sites)) == [train(data) for data in sites]
            together, apart = median_s(
                lambda: list(threads.map(train, sites)), lambda: [train(data) for data in sites]
            )
    print(f"two sites in two threads: {2 * IMAGES / together:.0f} images/s, the same bits")
    print(f"  one after the other: {2 * IMAGES / apart:.0f} images/s, ratio {apart / together:.2f}x")


def start() -> None:
    """From the command to the first round, on an archive that is indexed already."""
    with tempfile.TemporaryDirectory() as folder:
        archives, study, home = Path(folder) / "A", Path(folder) / "study.toml", Path(folder) / "home"
        write_phantoms(archives, sites=2, patients=8, size=64, seed=1)
        study.write_text(study_to_toml(STUDY))
        runs = iter(range(100))

        def until_first_round() -> None:
            out = Path(folder) / f"run-{next(runs)}"
            words = ["simulate", study, "--archives", archives, "--out", out, "--home", home]
            hilum = Path(sys.executable).parent / "hilum"
            child = subprocess.Popen([str(w) for w in (hilum, *words)], stderr=subprocess.DEVNULL)
            while not (out / "environment.json").exists() and child.poll() is None:
                time.sleep(0.005)
            assert (out / "environment.json").exists()
            os.kill(child.pid, signal.SIGKILL)
            child.wait()

        def imports() -> None:
            subprocess.run([sys.executable, "-c", "import torch, lightning_fabric"], check=True)

        ours, bare = median_s(until_first_round, imports, warm_up=True)
    print(f"command to first round: {ours:.2f} s")
    print(f"  python with `import torch, lightning_fabric` alone: {bare:.2f} s, {bare / ours:.0%} of it")


if __name__ == "__main__":
    side_by_side()
    start()
