"""One series on its way into the catalogue: planned, decoded, assembled, and every file settled.

What can't be decoded is left out and the series is planned again without it: a copy may stand in, a stack with a hole
may fall into two regular ones, or be refused. So are files of one instance that can be decoded and contradict each other.
"""

from collections.abc import Iterable, Iterator
from contextlib import closing
from dataclasses import replace

from hilum.client.intake.indexing.copies import Copies, probe
from hilum.client.intake.indexing.items import Stores, keep_image, keep_volume
from hilum.client.intake.indexing.planning import Image, Planning, SeriesFile
from hilum.client.intake.indexing.volume_planes import assemble, plane_jobs, wanted_frames
from hilum.client.intake.planner import PlaneId, PlannedVolume
from hilum.client.intake.quarantine.rules import part_to_search
from hilum.client.intake.reasons import Reason
from hilum.client.intake.sandbox.jobs import DecodeImage, Job, Result
from hilum.client.intake.sandbox.pool import DecodePool
from hilum.client.state.catalogue import ACCEPTED, FileRow, Item


class SeriesProcessor:
    """A series until each of its files is settled.

    Attributes:
        planning: Its members and what is planned of them.
        decoded: Members whose pixels were read.
    """

    def __init__(self, members: list[SeriesFile], stores: Stores) -> None:
        self.planning, self.stores = Planning(members), stores
        self.decoded: set[int] = set()
        self._copies = Copies(self.planning)
        self._kept: dict[tuple[PlaneId, ...], Item | Reason] = {}
        self._looks: dict[Image, tuple[int, ...]] = {}
        self._probes: tuple[int, ...] = ()

    def plan(self) -> None:
        """Plan what has not failed, and what has to be decoded for it."""
        self.planning.plan()
        for image in self.planning.planned.images:
            if (item := self.planning.members[image[0][0]].item) is not None:
                self._kept[image] = item
        self._looks = {
            image: self._copies.to_look_at(image, is_kept=image in self._kept)
            for image in self.planning.planned.images
        }
        self._probes = self._copies.to_probe()

    def jobs(self) -> Iterator[Job]:
        """Return what is to be decoded for the plan, in order."""
        for volume in self.planning.planned.volumes:
            if volume.planes not in self._kept:
                yield from plane_jobs(volume, self.planning.members)
        for image, looks in self._looks.items():
            for index in looks:
                path, instance = self.planning.file_of(index)
                first = index == image[0][0] and image not in self._kept
                search = part_to_search(instance) if first else None
                yield DecodeImage(path, instance, tuple(frame for _index, frame in image), search)
        for index in self._probes:
            yield probe(*self.planning.file_of(index))

    def settle(self, results: Iterator[Result]) -> bool:
        """Take the results of `jobs`. False if files failed, so that the rest has to be planned again."""
        failed_before = len(self.planning.failed)
        for volume in self.planning.planned.volumes:
            if volume.planes not in self._kept:
                self._settle_volume(volume, results)
        for image, looks in self._looks.items():
            if looks:
                self._settle_image(image, looks, results)
        for index in self._probes:
            self.decoded.add(index)
            self._copies.judge_probe(index, next(results))
        return len(self.planning.failed) == failed_before

    def _settle_volume(self, volume: PlannedVolume, results: Iterator[Result]) -> None:
        members = self.planning.members
        array = self.stores.reader.read(volume, self.planning.file_of)
        if array is not None:
            self.decoded.update(index for index, _frame in volume.planes)
            self._kept[volume.planes] = keep_volume(self.stores, members, volume, array)
            return
        self.decoded.update(index for index, _frames in wanted_frames(volume, members))
        assembled = assemble(volume, self.planning, results)
        if isinstance(assembled, Reason):
            self._kept[volume.planes] = assembled
        elif assembled is not None:
            self._kept[volume.planes] = keep_volume(self.stores, members, volume, assembled)

    def _settle_image(self, image: Image, looks: tuple[int, ...], results: Iterator[Result]) -> None:
        self.decoded.update(looks)
        shown = self._copies.look_at(looks, results)
        if shown is not None and image not in self._kept:
            member = self.planning.members[image[0][0]]
            self._kept[image] = keep_image(self.stores, member, shown, len(image))

    def items(self) -> list[Item]:
        """Return what the series gives."""
        made = self.planning.planned.made
        return [item for planes in made if isinstance(item := self._kept[planes], Item)]

    def rows(self) -> list[FileRow]:
        """Return every member, settled: taken, or set aside for a reason."""
        planned = self.planning.planned
        status: dict[int, str] = {**planned.refused, **self.planning.failed}
        for volume in planned.volumes:
            if isinstance(outcome := self._kept[volume.planes], Reason):
                copies = (copy for _plane, copy in volume.verify_equal)
                status |= {index: outcome for index, _frame in (*volume.planes, *copies)}
        for image in planned.images:
            if isinstance(outcome := self._kept[image], Reason):
                status[image[0][0]] = outcome
        items: dict[int, set[str]] = {}
        for planes in planned.made:
            if isinstance(item := self._kept[planes], Item):
                for index, _frame in planes:
                    status[index] = ACCEPTED
                    items.setdefault(index, set()).add(item.item_key)
        one_item = {index: next(iter(keys)) for index, keys in items.items() if len(keys) == 1}
        return [
            replace(member.row, status=status[index], item_key=one_item.get(index, ""))
            for index, member in enumerate(self.planning.members)
        ]


def process_series(series: Iterable[SeriesProcessor], pool: DecodePool) -> None:
    """Settle several series, their files decoded side by side."""
    pending = list(series)
    while pending:
        for work in pending:
            work.plan()
        _ask([work for work in pending if work.planning.questions()], pool)
        with closing(pool.map(job for work in pending for job in work.jobs())) as results:
            pending = [work for work in pending if not work.settle(results)]


def _ask(unclear: list[SeriesProcessor], pool: DecodePool) -> None:
    """Have the private headers read of series that hold what nothing else tells apart."""
    if not unclear:
        return
    with closing(pool.map([job for work in unclear for job in work.planning.questions()])) as answers:
        for work in unclear:
            work.planning.learn(answers)
            work.plan()
