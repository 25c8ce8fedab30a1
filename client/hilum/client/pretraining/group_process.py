r"""One of a site's processes on several machines: it waits for rounds, and trains them together with the others.

On each machine, with the site's state folder on storage that all of them see under one path:

    torchrun --nnodes 2 --nproc-per-node 4 --max-restarts 1000 --rdzv-backend c10d --rdzv-endpoint gpu1:29400 \
        -m hilum.client.pretraining.group_process site.toml

The first process chooses a job whose lease is renewed, and tells the others by its beat; so all have the same one. They open no
connection but those among themselves. One that dies, or whose job nobody waits for any more, ends; torchrun then ends the others and
starts all of them again. How work is handed over: `hilum.client.pretraining.group`.
"""

import logging
import os
import secrets
import shutil
import sys
import threading
import time
from pathlib import Path
from typing import Any

from lightning_fabric import Fabric

from hilum.client.pretraining.compiling import keep_compiled_in
from hilum.client.pretraining.device import Device, make_fabric
from hilum.client.pretraining.fitting import release
from hilum.client.pretraining.group import BEAT_S, LOOK_S, look_at, put
from hilum.client.pretraining.job import Job, do_share
from hilum.client.state.workspace import Workspace
from hilum.common.config import load_site
from hilum.common.errors import RunError
from hilum.common.files import private_folder
from hilum.common.lockdown import close_outbound
from hilum.common.log_setup import configure_logging
from hilum.common.processes import die_with_parent

_PATIENCE_S = 60.0
_FORGOTTEN_S = 600.0
_log = logging.getLogger(__name__)


def serve(site_file: Path) -> None:
    """Wait for jobs as one of the processes that torchrun has started, and do them."""
    die_with_parent()  # torchrun, however it ends
    os.umask(0o077)
    close_outbound()
    configure_logging()
    site = load_site(site_file)
    workspace = Workspace(site.state.folder)
    keep_compiled_in(workspace.compiled)
    private_folder(workspace.folder)
    private_folder(workspace.group)
    together = _fabric(site.compute.device, "fp32", 1)
    group: str = together.broadcast(secrets.token_hex(8))
    chosen = (
        _Chooser(workspace.group, group, together.world_size)
        if together.global_rank == 0
        else _Listener(workspace.group, group)
    )
    while True:
        if (name := chosen.next()) is not None:
            _do(workspace.group / name)
        time.sleep(LOOK_S)


class _Listener:
    """Hears from the first process which job is next."""

    def __init__(self, folder: Path, group: str) -> None:
        self._file, self._group, self._done = folder / "beat.json", group, 0

    def next(self) -> str | None:
        """Return the name of a new job, if there is one."""
        beat = look_at(self._file)
        if beat is None or beat["group"] != self._group or beat["jobs"] <= self._done:
            return None
        self._done = beat["jobs"]
        return str(beat["job"])


class _Chooser:
    """Chooses the next job, and tells the others in its beat."""

    def __init__(self, folder: Path, group: str, processes: int) -> None:
        self._folder = folder
        machines = int(os.environ["GROUP_WORLD_SIZE"])
        self._beat: dict[str, Any] = {"group": group, "processes": processes, "machines": machines}
        self._beat |= {"job": None, "jobs": 0}
        self._leases: dict[str, tuple[Any, float]] = {}
        self._seen: set[str] = set()
        self._lock = threading.Lock()
        threading.Thread(target=self._go_on, daemon=True, name="beat").start()

    def next(self) -> str | None:
        """Return the name of a job that somebody waits for now, the oldest first; what nobody has waited for in a while goes."""
        now = time.monotonic()
        jobs = [path for path in self._folder.iterdir() if path.is_dir() and path.name not in self._seen]
        for path in sorted(jobs, key=_written):
            lease = look_at(path / "lease.json")
            before, since = self._leases.setdefault(path.name, (lease, now))
            if lease in (None, before):
                if now - since > _FORGOTTEN_S:
                    shutil.rmtree(path, ignore_errors=True)
                continue
            self._seen.add(path.name)
            with self._lock:
                self._beat |= {"job": path.name, "jobs": self._beat["jobs"] + 1}
            self._tell()
            return path.name
        return None

    def _tell(self) -> None:
        with self._lock:
            beat = self._beat | {"number": time.monotonic()}
            try:
                put(self._folder / "beat.json", beat)
            except OSError as error:
                _log.warning("the group's beat can't be written (%s)", error.strerror)

    def _go_on(self) -> None:
        while True:
            self._tell()
            time.sleep(BEAT_S)


def _written(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except OSError:
        return 0.0


def _do(folder: Path) -> None:
    job = Job.read(folder)
    training = job.study.training
    fabric = _fabric(job.device, training.precision, training.threads)
    do_share(job, folder, fabric, _Told(folder, is_first=fabric.global_rank == 0))
    release(fabric)  # who asked may need the same device until the next round


def _fabric(device: Device, precision: str, threads: int) -> Fabric:
    """Return this process's part of all, as torchrun has told it."""
    here, nodes = int(os.environ["LOCAL_WORLD_SIZE"]), int(os.environ["GROUP_WORLD_SIZE"])
    fabric = make_fabric(device, precision, threads, devices=here, nodes=nodes)
    fabric.launch()
    return fabric


class _Told:
    """Tells who waits of the newest step, now and then; ends the work where nobody waits any more."""

    def __init__(self, folder: Path, *, is_first: bool) -> None:
        self._folder, self._is_first = folder, is_first
        self._next, self._heard = 0.0, time.monotonic()
        self._lease: Any = None

    def advance(self, done: int, note: str = "") -> None:
        now = time.monotonic()
        if not self._is_first or now < self._next:
            return
        self._next = now + LOOK_S
        if (lease := look_at(self._folder / "lease.json")) not in (None, self._lease):
            self._lease, self._heard = lease, now
        if not (self._folder / "job.pt").exists() or now - self._heard > _PATIENCE_S:
            shutil.rmtree(self._folder, ignore_errors=True)
            raise RunError("nobody waits for this round any more; torchrun starts the processes again")
        try:
            put(self._folder / "progress.json", {"done": done, "note": note})
        except OSError as error:
            _log.warning("progress can't be told (%s)", error.strerror)


if __name__ == "__main__":
    serve(Path(sys.argv[1]))
