"""A round trained by a site's processes on several machines (`compute.nodes`), which wait for work: how they are asked.

Whoever has a round to train (`hilum site start`, `hilum site pretrain`) leaves it in a folder that all machines see under one path, and waits.

<state>/group/
    beat.json        written over and over by the first process: which group it is, of how many processes on how many machines, and its newest job
    <job>/           `hilum.client.pretraining.job`; `lease.json`, written over and over by who waits; `progress.json`, the newest step

A file is looked at for what changes in it, so that the machines' clocks need not agree.
"""

import json
import logging
import os
import secrets
import shutil
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hilum.client.data.site_data import SiteData
from hilum.client.pretraining.device import Device
from hilum.client.pretraining.job import Job, take_up
from hilum.client.pretraining.loop import RoundOutcome, RoundPlace
from hilum.client.pretraining.several import smallest_batch
from hilum.client.state.workspace import Workspace
from hilum.common.config import SiteConfig, StudyConfig
from hilum.common.errors import RequestRefused
from hilum.common.files import private_folder
from hilum.common.methods import SSLMethod
from hilum.common.progress import Progress

_log = logging.getLogger(__name__)
LOOK_S = 0.5
BEAT_S = 2.0
_PATIENCE_S = 60.0  # shared storage may show a file late


@dataclass(frozen=True)
class Group:
    """A site's processes on several machines.

    Attributes:
        folder: Where they look for work.
        machines: On how many they are to be.
    """

    folder: Path
    machines: int


def train_in_group(
    method: SSLMethod,
    data: SiteData,
    study: StudyConfig,
    place: RoundPlace,
    progress: Progress,
    *,
    device: Device,
    group: Group,
) -> RoundOutcome:
    """Have the group train `method` for one round.

    Args:
        method: The method with the round's starting weights, on the CPU.
        data: The site's images, and who is trained on.
        study: The study.
        place: Which round this is.
        progress: Told of steps; what it raises ends the group's work.
        device: Of which kind.
        group: Which processes.

    Raises:
        RequestRefused: `machine`, if none waits, they are on other than so many machines, there are more processes than the smallest batch has images, or they die.
        torch.OutOfMemoryError: If the memory of a device does not hold a step.
    """
    watch = _Watch(group)
    if (smallest := smallest_batch(data, study, place)) < watch.processes:
        raise RequestRefused(
            "machine",
            f"compute.nodes: the group has {watch.processes} processes, and the smallest batch of this study {smallest} images: "
            "each must see one; write a larger training.batch_size, or start fewer processes",
        )
    job = group.folder / secrets.token_hex(8)
    private_folder(job)
    try:
        Job(study, data, place, device).write(job, method)
        known, number, next_lease = 0, 0, 0.0
        while not (job / "end.pt").exists() and not (job / "full").exists():
            watch.look()
            if time.monotonic() >= next_lease:
                number, next_lease = number + 1, time.monotonic() + BEAT_S
                put(job / "lease.json", {"number": number})
            told = look_at(job / "progress.json")
            if told and told["done"] > known:
                known = told["done"]
                progress.advance(known, told["note"])
            time.sleep(LOOK_S)
        return take_up(job, method)
    finally:
        shutil.rmtree(job, ignore_errors=True)


def waiting_processes(group: Group) -> int:
    """Return how many processes wait for work.

    Raises:
        RequestRefused: `machine`, if none does, or they are on other than so many machines.
    """
    return _Watch(group).processes


def group_of(site: SiteConfig) -> Group | None:
    """Return a site's group; None where its rounds are trained on one machine."""
    nodes = site.compute.nodes
    return Group(Workspace(site.state.folder).group, nodes) if nodes > 1 else None


class _Watch:
    """Sees that the group that was there at first goes on to be there.

    Raises:
        RequestRefused: `machine`, if none is there, or it is on other than so many machines.
    """

    def __init__(self, group: Group) -> None:
        self._file = group.folder / "beat.json"
        first = look_at(self._file)
        until = time.monotonic() + _PATIENCE_S
        _log.info("waiting for the group's processes, for up to %.0f s", _PATIENCE_S)
        while (beat := look_at(self._file)) is None or beat == first:
            if time.monotonic() > until:
                raise RequestRefused(
                    "machine",
                    "compute.nodes asks for several machines, and no group of processes waits for work: start "
                    "`torchrun ... -m hilum.client.pretraining.group_process site.toml` on each of them",
                )
            time.sleep(LOOK_S)
        self._group, self._beat, self._heard = beat["group"], beat, time.monotonic()
        self.processes = int(beat["processes"])
        if (there := int(beat["machines"])) != group.machines:
            raise RequestRefused(
                "machine",
                f"compute.nodes = {group.machines}, and the processes that wait are on {there}: write that, or start the others",
            )

    def look(self) -> None:
        """Refuse to wait for a group that is gone."""
        beat, now = look_at(self._file), time.monotonic()
        if beat is not None and beat != self._beat:
            self._beat, self._heard = beat, now
        if self._beat["group"] != self._group or now - self._heard > _PATIENCE_S:
            raise RequestRefused(
                "machine",
                "the group of processes on several machines has died; torchrun's output says why; the same round goes on from its last step checkpoint",
            )


def put(path: Path, value: dict[str, Any]) -> None:
    """Replace a small file in a folder that is there; it need not outlive the machine.

    Raises:
        OSError: If the folder is gone, or the storage.
    """
    aside = path.with_name(f".{path.name}.{os.getpid()}")
    aside.write_text(json.dumps(value))
    aside.replace(path)


def look_at(path: Path) -> dict[str, Any] | None:
    """Return what such a file holds; None where it can't be read now, as storage that others write to may have it."""
    try:
        found: dict[str, Any] = json.loads(path.read_text())
    except (OSError, ValueError):
        return None
    return found
