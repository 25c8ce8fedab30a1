"""One training on several devices of a machine: a process for each, which gives the weights that one process would.

Each process takes every so-manieth row of each micro-batch, the random numbers of the whole batch and its own share of them, and its
gradient is averaged with the others' (arXiv 2006.15704). So the batch, its views and its loss are those of one process, and the
result differs by the order of sums alone.
"""

import contextlib
import os
import queue
import socket
import tempfile
from dataclasses import dataclass, replace
from multiprocessing.context import SpawnProcess
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.multiprocessing

from hilum.client.data.prepared import Stored
from hilum.client.data.site_data import SiteData
from hilum.client.pretraining.checkpoint import load_state, save_state
from hilum.client.pretraining.device import Device, lacks_devices, make_fabric
from hilum.client.pretraining.loop import RoundOutcome, RoundPlace, train_round
from hilum.client.pretraining.mechanisms import MECHANISMS
from hilum.common.config import StudyConfig, parse_study
from hilum.common.errors import RequestRefused
from hilum.common.lockdown import close_outbound
from hilum.common.log_setup import configure_logging
from hilum.common.methods import SSLMethod, build_method
from hilum.common.progress import NullProgress, Progress

_LOOK_S = 0.5
_FULL = "full"  # is there where the memory of a device was


@dataclass(frozen=True)
class _Mapped:
    """A memory map as another process opens it again, where pickling would copy all of it."""

    path: str
    shape: tuple[int, ...]
    dtype: str
    offset: int

    def open(self) -> Stored:
        return np.memmap(self.path, np.dtype(self.dtype), "r", self.offset, self.shape)


@dataclass(frozen=True)
class _Work:
    """What each process is to do."""

    study: dict[str, Any]
    data: SiteData
    mapped: _Mapped | None
    place: RoundPlace
    device: Device
    devices: int
    port: int
    folder: Path


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
    plan = MECHANISMS[study.privacy.mechanism].sampler(data, study)
    sizes = [
        len(draws.rows)
        for step in plan.plan(study.study.seed, place.site, place.round_number)
        for draws in step
    ]
    with tempfile.TemporaryDirectory() as folder:
        save_state(Path(folder) / "start.pt", {"method": method.state_dict()})
        mapped = None
        if isinstance(data.images, np.memmap) and data.images.filename is not None:
            images = data.images
            mapped = _Mapped(str(images.filename), images.shape, images.dtype.str, images.offset)
            data = replace(data, images=np.zeros((0, *images.shape[1:]), images.dtype))
        work = _Work(
            study.model_dump(mode="json", exclude_none=True),
            replace(data, origin=None, facts={}),
            mapped,
            place,
            device,
            min(devices, *sizes),
            _free_port(),
            Path(folder),
        )
        if not _run(work, progress):
            if (work.folder / _FULL).exists():
                raise torch.OutOfMemoryError
            raise RequestRefused(
                "machine", "a process of the training on several devices has died; its error stands above"
            )
        state = load_state(Path(folder) / "end.pt")
    assert state is not None, "the first process has written it"
    method.load_state_dict(state["method"])
    return RoundOutcome(**state["outcome"])


def _run(work: _Work, progress: Progress) -> bool:
    """Start the processes, pass on what the first tells, and see all of them end; tell whether they ended well."""
    context = torch.multiprocessing.get_context("spawn")
    told: Any = context.Queue()
    processes = [context.Process(target=_train, args=(rank, work, told)) for rank in range(work.devices)]
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


def _train(rank: int, work: _Work, told: Any) -> None:
    """Train as one of the processes."""
    close_outbound()
    configure_logging()
    os.environ |= {
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(work.port),
        "WORLD_SIZE": str(work.devices),
        "LOCAL_RANK": str(rank),
        "NODE_RANK": "0",
    }
    study = parse_study(work.study)
    data = work.data if work.mapped is None else replace(work.data, images=work.mapped.open())
    fabric = make_fabric(work.device, study.training.precision, study.training.threads, devices=work.devices)
    fabric.launch()
    method = build_method(study)
    state = load_state(work.folder / "start.pt")
    assert state is not None, "the parent has written it"
    method.load_state_dict(state["method"])
    progress: Progress = _Told(told) if rank == 0 else NullProgress()
    try:
        outcome = train_round(method, data, study, work.place, fabric, progress)
    except torch.OutOfMemoryError:
        (work.folder / _FULL).touch()
        raise
    if rank == 0:
        save_state(work.folder / "end.pt", {"method": method.cpu().state_dict(), "outcome": vars(outcome)})


def _free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])
