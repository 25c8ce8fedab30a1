"""One round's training in a folder, for several processes that do it together: what they are to do, and what came of it.

<job>/
    job.pt      the study, the rows and where the images lie; while it is there, somebody waits for the end
    start.pt    the method's weights before the round
    end.pt      those after it, and what the round told of itself
    full        is there where the memory of a device was
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning_fabric import Fabric

from hilum.client.data.prepared import Stored
from hilum.client.data.site_data import SiteData
from hilum.client.data.splits import Split
from hilum.client.data.volumes import VolumeFile, Volumes
from hilum.client.pretraining.checkpoint import load_state, save_state
from hilum.client.pretraining.device import Device
from hilum.client.pretraining.loop import RoundOutcome, RoundPlace, train_round
from hilum.common.config import StudyConfig, parse_study
from hilum.common.errors import DamagedError
from hilum.common.methods import SSLMethod, build_method
from hilum.common.preparation.pieces import Geometry
from hilum.common.progress import Progress


@dataclass(frozen=True)
class Job:
    """What is to be done.

    Attributes:
        data: The rows that are trained on, without labels or anything else about them.
        device: Of which kind.
    """

    study: StudyConfig
    data: SiteData = field(repr=False)
    place: RoundPlace
    device: Device

    def write(self, folder: Path, method: SSLMethod) -> None:
        """Write it, with the weights that the round starts from."""
        place = {**vars(self.place), "checkpoint": str(self.place.checkpoint or "")}
        split = self.data.split
        save_state(folder / "start.pt", {"method": method.state_dict()})
        save_state(
            folder / "job.pt",
            {
                "study": self.study.model_dump(mode="json", exclude_none=True),
                "site": self.data.name,
                "content": self.data.content_sha256,
                "pretrain": torch.from_numpy(split.pretrain),
                "group": torch.from_numpy(split.group),
                "images": _told(self.data.images),
                "place": place,
                "device": self.device,
            },
        )

    @classmethod
    def read(cls, folder: Path) -> "Job":
        """Read what `write` wrote.

        Raises:
            DamagedError: If it is not there.
        """
        state = _state(folder / "job.pt")
        images, place = _opened(state["images"]), dict(state["place"])
        nobody = np.zeros(0, np.int64)
        split = Split(state["pretrain"].numpy(), nobody, nobody, state["group"].numpy())
        data = SiteData(state["site"], images, (None,) * len(images), split, state["content"])
        checkpoint = Path(place.pop("checkpoint")) if place["checkpoint"] else None
        where = RoundPlace(
            **{name: value for name, value in place.items() if name != "checkpoint"}, checkpoint=checkpoint
        )
        return cls(parse_study(state["study"]), data, where, state["device"])


def do_share(job: Job, folder: Path, fabric: Fabric, progress: Progress) -> None:
    """Train as one of the processes; the first writes what came of it.

    Raises:
        torch.OutOfMemoryError: If this device's memory does not hold a step; `full` says so to who waits.
    """
    torch.set_num_threads(
        job.study.training.threads
    )  # the launch has set another number, by this machine's cores
    method = build_method(job.study)
    method.load_state_dict(_state(folder / "start.pt")["method"])
    try:
        outcome = train_round(method, job.data, job.study, job.place, fabric, progress)
    except torch.OutOfMemoryError:
        (folder / "full").touch()
        raise
    if fabric.global_rank == 0 and folder.exists():
        save_state(folder / "end.pt", {"method": method.cpu().state_dict(), "outcome": vars(outcome)})


def take_up(folder: Path, method: SSLMethod) -> RoundOutcome:
    """Give the method what came of it.

    Raises:
        torch.OutOfMemoryError: If the memory of a device did not hold a step.
        DamagedError: If there is no end.
    """
    if (folder / "full").exists():
        raise torch.OutOfMemoryError
    state = _state(folder / "end.pt")
    method.load_state_dict(state["method"])
    return RoundOutcome(**state["outcome"])


def _state(path: Path) -> dict[str, Any]:
    if (state := load_state(path)) is None:
        raise DamagedError(f"{path} is missing or damaged")
    return state


def _told(images: Stored) -> dict[str, Any]:
    """Return images as plain values: where they lie, where that is a file."""
    if isinstance(images, Volumes):
        files = [[str(one.path), list(one.shape), one.begins] for one in images.files]
        return {"volumes": files, "geometry": vars(images.geometry)}
    if isinstance(images, np.memmap) and images.filename is not None:
        return {"file": str(images.filename), "shape": list(images.shape), "offset": images.offset}
    return {"values": torch.from_numpy(np.ascontiguousarray(images).view(np.int16))}


def _opened(told: dict[str, Any]) -> Stored:
    if "volumes" in told:
        files = (VolumeFile(Path(path), _box(shape), begins) for path, shape, begins in told["volumes"])
        edges = {name: _box(told["geometry"][name]) for name in ("block", "seen", "cell")}
        return Volumes(tuple(files), Geometry(**edges, flat=told["geometry"]["flat"]))
    if "file" in told:
        return np.memmap(told["file"], np.uint16, "r", told["offset"], tuple(told["shape"]))
    values: Stored = told["values"].numpy().view(np.uint16)
    return values


def _box(shape: Sequence[int]) -> tuple[int, int, int]:
    depth, height, width = shape
    return depth, height, width
