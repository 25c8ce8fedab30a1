r"""One of a site's processes on several machines: it waits for rounds, and trains them together with the others.

On each machine, with the site's state folder on storage that all of them see:

    torchrun --nnodes 2 --nproc-per-node 4 --max-restarts 1000 --rdzv-backend c10d --rdzv-endpoint gpu1:29400 \
        -m hilum.client.pretraining.group_process site.toml

The processes open no connection but those among themselves. One that dies, or whose job is gone, ends; torchrun then ends the others
and starts all of them again. How work is handed over: `hilum.client.pretraining.group`.
"""

import os
import secrets
import sys
import threading
import time
from pathlib import Path

from lightning_fabric import Fabric

from hilum.client.pretraining.device import Device, make_fabric
from hilum.client.pretraining.job import Job, do_share
from hilum.client.state.workspace import Workspace
from hilum.common.config import load_site
from hilum.common.files import write_json
from hilum.common.lockdown import close_outbound
from hilum.common.log_setup import configure_logging

_LOOK_S = 0.5
_BEAT_S = 2.0


def serve(site_file: Path) -> None:
    """Wait for jobs as one of the processes that torchrun has started, and do them."""
    close_outbound()
    configure_logging()
    site = load_site(site_file)
    folder = Workspace(site.state.folder).group
    rank, processes = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    seen = _now(folder)
    together = _fabric(site.compute.device, "fp32", 1)
    together.barrier()  # whoever hears the beat may leave a job, and all must take it for a new one
    if rank == 0:
        threading.Thread(target=_beat, args=(folder, processes), daemon=True, name="beat").start()
    while True:
        if (name := _now(folder)) not in (seen, None):
            seen = name
            _do(folder / str(name), rank)
        time.sleep(_LOOK_S)


def _do(folder: Path, rank: int) -> None:
    job = Job.read(folder)
    training = job.study.training
    fabric = _fabric(job.device, training.precision, training.threads)
    do_share(job, folder, fabric, _Told(folder, rank))


def _fabric(device: Device, precision: str, threads: int) -> Fabric:
    """Return this process's part of all, as torchrun has told it."""
    here, nodes = int(os.environ["LOCAL_WORLD_SIZE"]), int(os.environ["GROUP_WORLD_SIZE"])
    fabric = make_fabric(device, precision, threads, devices=here, nodes=nodes)
    fabric.launch()
    return fabric


class _Told:
    """Tells who waits of the newest step, now and then, and ends this process where nobody waits any more."""

    def __init__(self, folder: Path, rank: int) -> None:
        self._folder, self._rank = folder, rank
        self._next = 0.0

    def advance(self, done: int, note: str = "") -> None:
        if time.monotonic() < self._next:
            return
        self._next = time.monotonic() + _LOOK_S
        if not (self._folder / "job.pt").exists():
            sys.exit("nobody waits for this job any more")
        if self._rank == 0:
            write_json(self._folder / "progress.json", {"done": done, "note": note})


def _beat(folder: Path, processes: int) -> None:
    group, number = secrets.token_hex(8), 0
    while True:
        number += 1
        write_json(folder / "beat.json", {"group": group, "processes": processes, "number": number})
        time.sleep(_BEAT_S)


def _now(folder: Path) -> str | None:
    try:
        return (folder / "now").read_text()
    except FileNotFoundError:
        return None


if __name__ == "__main__":
    serve(Path(sys.argv[1]))
