"""What one series holds by its headers: planned, and planned again whenever files of it fail or tell more."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from hilum.client.intake.headers.diffusion import Diffusion, may_tell, told_apart
from hilum.client.intake.instance import Instance
from hilum.client.intake.planner import PlaneId, PlannedVolume, plan_series
from hilum.client.intake.reasons import Reason
from hilum.client.intake.sandbox.jobs import Job, ReadDiffusion, Result
from hilum.client.intake.sources.scan import FoundFile
from hilum.client.state.catalogue import FileRow, Item


@dataclass(frozen=True)
class SeriesFile:
    """One file of a series whose header is an image's.

    Attributes:
        item: What it gave in an earlier pass, if it is unchanged and was an image of its own.
        was_copy: It is unchanged, and was seen to be a copy of one that was taken.
    """

    file: FoundFile
    row: FileRow
    instance: Instance = field(repr=False)
    item: Item | None = None
    was_copy: bool = False


Image = tuple[PlaneId, ...]
"""The frames of an item that is not a volume, all of one file: one of an image, all of a cine."""


@dataclass(frozen=True)
class Planned:
    """A plan of the members that have not failed. Planes are named by the index of the member and of its frame.

    Attributes:
        refused: Members that are in nothing.
        copies: Pairs of members with one instance UID and one header, the second refused.
    """

    volumes: tuple[PlannedVolume, ...] = ()
    images: tuple[Image, ...] = ()
    refused: Mapping[int, Reason] = field(default_factory=dict)
    copies: tuple[tuple[int, int], ...] = ()

    @property
    def made(self) -> tuple[tuple[PlaneId, ...], ...]:
        """The planes of each volume and image."""
        return (*(volume.planes for volume in self.volumes), *self.images)


class Planning:
    """The members of a series, which of them failed, and the plan of the others.

    Attributes:
        members: All files of the series that hold images.
        failed: Members that can't be decoded, or are believed no more.
        planned: The plan as it stands.
    """

    def __init__(self, members: list[SeriesFile]) -> None:
        self.members = members
        self.failed: dict[int, Reason] = {}
        self.planned = Planned()
        self._was_in_volume: set[int] = set()
        self._asked: list[int] = []
        self._answered: set[int] = set()

    def plan(self) -> None:
        """Plan what has not failed."""
        alive = [index for index in range(len(self.members)) if index not in self.failed]
        plan = plan_series([self.members[index].instance for index in alive])

        def named(plane: PlaneId) -> PlaneId:
            return alive[plane[0]], plane[1]

        volumes = tuple(
            replace(
                volume,
                planes=tuple(map(named, volume.planes)),
                verify_equal=tuple((named(one), named(other)) for one, other in volume.verify_equal),
            )
            for volume in plan.volumes
        )
        images = (
            *((named(image.plane),) for image in plan.images),
            *(tuple(map(named, cine.planes)) for cine in plan.cines),
        )
        refused = {alive[index]: reason for index, reason in plan.refused.items()}
        left = [index for index in self._was_in_volume if refused.get(index) == Reason.TOO_FEW_SLICES]
        refused.update(dict.fromkeys(left, Reason.TOO_FEW_LEFT))
        self._was_in_volume.update(index for volume in volumes for index, _frame in volume.planes)
        copies = tuple((alive[kept], alive[copy]) for kept, copy in plan.copies)
        self.planned = Planned(volumes, images, refused, copies)

    def questions(self) -> list[Job]:
        """Return the files to ask for private diffusion elements: all, where images lie at one place and nothing says why."""
        pairs = (pair for volume in self.planned.volumes for pair in volume.verify_equal)
        unclear = Reason.MULTIPLE_TIMES in self.planned.refused.values() or any(
            not self.is_one_instance(kept, copy) for kept, copy in pairs
        )
        self._asked = [
            index
            for index, member in enumerate(self.members)
            if unclear and index not in self._answered and may_tell(member.instance)
        ]
        return [
            ReadDiffusion(path, instance.pixels.syntax) for path, instance in map(self.file_of, self._asked)
        ]

    def learn(self, answers: Iterator[Result]) -> None:
        """Take the answers to `questions`; what they tell apart is to be planned again."""
        self._answered.update(self._asked)
        for index in self._asked:
            found = next(answers)
            if isinstance(found, Diffusion) and found.b_value is not None:
                member = self.members[index]
                self.members[index] = replace(member, instance=told_apart(member.instance, found))

    def file_of(self, index: int) -> tuple[Path, Instance]:
        """Return where a member lies and what its header says."""
        return self.members[index].file.path, self.members[index].instance

    def is_one_instance(self, one: PlaneId, other: PlaneId) -> bool:
        """Tell whether two planes are of files with one instance UID."""
        return self.members[one[0]].row.sop_key == self.members[other[0]].row.sop_key

    def distrust(self, index: int) -> None:
        """Fail all files of an instance that are not damaged: they contradict each other."""
        sop_key = self.members[index].row.sop_key
        for other, member in enumerate(self.members):
            if member.row.sop_key == sop_key:
                self.failed.setdefault(other, Reason.CONTRADICTING_COPIES)
