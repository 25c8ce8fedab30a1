"""One training on several devices: a process for each, which together give the weights that one process would.

Each process takes every so-manieth row of each micro-batch, the random numbers of the whole batch and its own share of them, and its
gradient is averaged with the others' (arXiv 2006.15704). So the batch, its views and its loss are those of one process, and the
result differs by the order of sums alone. Processes of one machine are started here; those of several wait in a group.
"""

import contextlib
import os
import queue
import socket
import tempfile
from multiprocessing.context import SpawnProcess
from pathlib import Path
from typing import Any

import torch.multiprocessing

from hilum.client.data.site_data import SiteData
from hilum.client.pretraining.device import Device, lacks_devices, make_fabric
from hilum.client.pretraining.job import Job, do_share, take_up
from hilum.client.pretraining.loop import RoundOutcome, RoundPlace
from hilum.client.pretraining.mechanisms import MECHANISMS
from hilum.common.config import StudyConfig
from hilum.common.errors import RequestRefused
from hilum.common.lockdown import close_outbound
from hilum.common.log_setup import configure_logging
from hilum.common.methods import SSLMethod
from hilum.common.progress import NullProgress, Progress

_LOOK_S = 0.5


def train_on_several(
    method: SSLMethod,
    data: SiteData,
    study: StudyConfig,
    place: RoundPlace,
    progress: Progress,
    *,
    device: Device,
    devices: int,
) -> RoundOutcome:
    """Train `method` in place for one round, on as many devices as there are or as its smallest micro-batch has images.

    Args:
        method: The method with the round's starting weights, on the CPU.
        data: The site's images, and who is trained on.
        study: The study.
        place: Which round this is.
        progress: Told after each step; what it raises ends all processes.
        device: Of which kind.
        devices: How many.

    Raises:
        RequestRefused: `machine`, if there are not so many GPUs, or a process dies.
        torch.OutOfMemoryError: If the memory of a device does not hold a step.
    """
    if (problem := lacks_devices(device, devices)) is not None:
        raise RequestRefused("machine", problem)
    count = min(devices, smallest_batch(data, study, place))
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        Job(study, data, place, device).write(folder, method)
        if not _run(folder, count, progress) and not (folder / "full").exists():
            raise RequestRefused(
                "machine",
                "a process of the training on several devices has died; its error stands above; asked again, the round goes on from its last step checkpoint",
            )
        return take_up(folder, method)


def smallest_batch(data: SiteData, study: StudyConfig, place: RoundPlace) -> int:
    """Return the images of a round's smallest micro-batch: each process must see one."""
    plan = MECHANISMS[study.privacy.mechanism].sampler(data, study)
    steps = plan.plan(study.study.seed, place.site, place.round_number)
    return min(len(draws.rows) for step in steps for draws in step)


def _run(folder: Path, count: int, progress: Progress) -> bool:
    """Start the processes, pass on what the first tells, and see all of them end; tell whether they ended well."""
    context = torch.multiprocessing.get_context("spawn")
    told: Any = context.Queue()
    port = _free_port()
    processes = [
        context.Process(target=_train, args=(rank, count, port, folder, told)) for rank in range(count)
    ]
    for process in processes:
        process.start()
    well = False
    try:
        while any(process.is_alive() for process in processes) and not _died(processes):
            with contextlib.suppress(queue.Empty):
                progress.advance(*told.get(timeout=_LOOK_S))
        well = not _died(processes)
    finally:
        for process in processes:
            if not well:
                process.terminate()  # who waits for one that has died waits for ever
            process.join()
    return well


def _died(processes: list[SpawnProcess]) -> bool:
    return any(process.exitcode not in (None, 0) for process in processes)


class _Told:
    """A `Progress` that another process listens to."""

    def __init__(self, told: Any) -> None:
        self._told = told

    def advance(self, done: int, note: str = "") -> None:
        self._told.put((done, note))


def _train(rank: int, count: int, port: int, folder: Path, told: Any) -> None:
    """Train as one of the processes."""
    close_outbound()
    configure_logging()
    os.environ |= {
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
        "WORLD_SIZE": str(count),
        "LOCAL_RANK": str(rank),
        "NODE_RANK": "0",
    }
    job = Job.read(folder)
    training = job.study.training
    fabric = make_fabric(job.device, training.precision, training.threads, devices=count)
    fabric.launch()
    do_share(job, folder, fabric, _Told(told) if rank == 0 else NullProgress())


def _free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])
