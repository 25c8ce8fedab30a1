"""One series on its way into the catalogue: planned, decoded, assembled, and every file settled.

What can't be decoded is left out and the series is planned again without it: a copy may stand in, a stack with a hole
may fall into two regular ones, or be refused. So are files of one instance that can be decoded and contradict each other.
"""

import json
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

import numpy as np

from hilum.client.intake.assembly.direct_read import StraightReader
from hilum.client.intake.assembly.volume import VolumeBuilder
from hilum.client.intake.headers.diffusion import Diffusion, may_tell, told_apart
from hilum.client.intake.headers.mosaic import split_mosaic
from hilum.client.intake.instance import Instance
from hilum.client.intake.pixels.images import Plane, is_plain, read_planes
from hilum.client.intake.planner import CopiesDiffer, PlaneId, PlannedVolume, plan_series
from hilum.client.intake.quarantine.rules import hold_back, is_suspect, part_to_search
from hilum.client.intake.quarantine.store import Quarantine
from hilum.client.intake.reasons import Reason, Skip
from hilum.client.intake.sandbox.jobs import (
    DecodeImage,
    DecodePlanes,
    ImageDecoded,
    Job,
    PlanesDecoded,
    ReadDiffusion,
    Refused,
    Result,
)
from hilum.client.intake.sandbox.pool import DecodePool
from hilum.client.intake.sources.scan import FoundFile
from hilum.client.state.cache import ArrayCache
from hilum.client.state.catalogue import ACCEPTED, FileRow, Item, Kind, Units
from hilum.client.state.workspace import Pseudonyms


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


@dataclass(frozen=True)
class Stores:
    """Where arrays go, and what reads those that no worker has to."""

    cache: ArrayCache
    quarantine: Quarantine
    names: Pseudonyms
    reader: StraightReader = field(default_factory=StraightReader)


Image = tuple[PlaneId, ...]
"""The frames of an item that is not a volume, all of one file: one of an image, all of a cine."""


@dataclass(eq=False)
class SeriesProcessor:
    """A series until each of its files is settled. Planes are named by the index of the member and of its frame.

    Attributes:
        members: All files of the series that hold images.
        decoded: Members whose pixels were read.
    """

    members: list[SeriesFile]
    keepers: Stores
    decoded: set[int] = field(default_factory=set)
    _failed: dict[int, Reason] = field(default_factory=dict)
    _kept: dict[tuple[PlaneId, ...], Item | Reason] = field(default_factory=dict)
    _volumes: tuple[PlannedVolume, ...] = ()
    _images: tuple[Image, ...] = ()
    _looks: dict[Image, tuple[int, ...]] = field(default_factory=dict)
    _verified: set[int] = field(default_factory=set)
    _probes: tuple[int, ...] = ()
    _probed: set[int] = field(default_factory=set)
    _asked: list[int] = field(default_factory=list)
    _answered: set[int] = field(default_factory=set)
    _refused: dict[int, Reason] = field(default_factory=dict)
    _was_planned: set[int] = field(default_factory=set)

    def plan(self) -> None:
        """Plan what has not failed."""
        alive = [index for index in range(len(self.members)) if index not in self._failed]
        plan = plan_series([self.members[index].instance for index in alive])

        def named(plane: PlaneId) -> PlaneId:
            return alive[plane[0]], plane[1]

        self._volumes = tuple(
            replace(
                volume,
                planes=tuple(map(named, volume.planes)),
                verify_equal=tuple((named(one), named(other)) for one, other in volume.verify_equal),
            )
            for volume in plan.volumes
        )
        self._images = (
            *((named(image.plane),) for image in plan.images),
            *(tuple(map(named, cine.planes)) for cine in plan.cines),
        )
        self._refused = {alive[index]: reason for index, reason in plan.refused.items()}
        left = [index for index in self._was_planned if self._refused.get(index) == Reason.TOO_FEW_SLICES]
        self._refused.update(dict.fromkeys(left, Reason.TOO_FEW_LEFT))
        self._was_planned.update(index for volume in self._volumes for index, _frame in volume.planes)
        for image in self._images:
            if (item := self.members[image[0][0]].item) is not None:
                self._kept[image] = item
        copies = [(alive[kept], alive[copy]) for kept, copy in plan.copies]
        self._looks = {image: self._to_look_at(image, copies) for image in self._images}
        self._probes = tuple(
            index
            for index, reason in self._refused.items()
            if reason == Reason.CONTRADICTING_COPIES and index not in self._probed
        )

    def _to_look_at(self, image: Image, copies: list[tuple[int, int]]) -> tuple[int, ...]:
        """Return the member of an image and its copies, as far as they have to be decoded: all, or nothing is new."""
        index = image[0][0]
        mine = [copy for kept, copy in copies if kept == index]
        if self.members[index].item is not None:
            self._verified.update(copy for copy in mine if self.members[copy].was_copy)
        new = [copy for copy in mine if copy not in self._verified]
        return (index, *new) if new or image not in self._kept else ()

    def questions(self) -> list[Job]:
        """Return the files to ask for private diffusion elements: all, where images lie at one place and nothing says why."""
        pairs = (pair for volume in self._volumes for pair in volume.verify_equal)
        unclear = Reason.MULTIPLE_TIMES in self._refused.values() or any(
            self._key(kept) != self._key(copy) for kept, copy in pairs
        )
        self._asked = [
            index
            for index, member in enumerate(self.members)
            if unclear and index not in self._answered and may_tell(member.instance)
        ]
        return [
            ReadDiffusion(path, instance.pixels.syntax) for path, instance in map(self._file_of, self._asked)
        ]

    def learn(self, answers: Iterator[Result]) -> None:
        """Take the answers to `questions`, and plan again."""
        self._answered.update(self._asked)
        for index in self._asked:
            found = next(answers)
            if isinstance(found, Diffusion) and found.b_value is not None:
                member = self.members[index]
                self.members[index] = replace(member, instance=told_apart(member.instance, found))
        self.plan()

    def _key(self, plane: PlaneId) -> str:
        return self.members[plane[0]].row.sop_key

    def jobs(self) -> Iterator[Job]:
        """Return what is to be decoded for the plan, in order."""
        for volume in self._volumes:
            for index, frames in self._wanted(volume):
                if not is_plain(self.members[index].instance):
                    yield DecodePlanes(self.members[index].file.path, self.members[index].instance, frames)
        for image in self._images:
            for index in self._looks[image]:
                path, instance = self._file_of(index)
                first = index == image[0][0] and image not in self._kept
                search = part_to_search(instance) if first else None
                yield DecodeImage(path, instance, tuple(frame for _index, frame in image), search)
        for index in self._probes:
            yield _probe(*self._file_of(index))

    def settle(self, results: Iterator[Result]) -> bool:
        """Take the results of `jobs`. False if files failed, so that the rest has to be planned again."""
        before = len(self._failed)
        for volume in self._volumes:
            if volume.planes not in self._kept:
                self._keep_volume(volume, results)
        for image in self._images:
            if self._looks[image]:
                self._keep_image(image, results)
        for index in self._probes:
            self._judge_probe(index, results)
        return len(self._failed) == before

    def items(self) -> list[Item]:
        """Return what the series gives."""
        made = (*(volume.planes for volume in self._volumes), *self._images)
        return [item for planes in made if isinstance(item := self._kept[planes], Item)]

    def rows(self) -> list[FileRow]:
        """Return every member, settled: taken, or set aside for a reason."""
        status: dict[int, str] = {**self._refused, **self._failed}
        for volume in self._volumes:
            if isinstance(outcome := self._kept[volume.planes], Reason):
                copies = (copy for _plane, copy in volume.verify_equal)
                status |= {index: outcome for index, _frame in (*volume.planes, *copies)}
        for image in self._images:
            if isinstance(outcome := self._kept[image], Reason):
                status[image[0][0]] = outcome
        for planes in (*(volume.planes for volume in self._volumes), *self._images):
            if isinstance(self._kept[planes], Item):
                status |= {index: ACCEPTED for index, _frame in planes}
        items = self._item_keys()
        return [
            replace(member.row, status=status[index], item_key=items.get(index, ""))
            for index, member in enumerate(self.members)
        ]

    def _item_keys(self) -> dict[int, str]:
        """Return the item of each member that is in one alone."""
        found: dict[int, set[str]] = {}
        for planes in (*(volume.planes for volume in self._volumes), *self._images):
            if isinstance(item := self._kept[planes], Item):
                for index, _frame in planes:
                    found.setdefault(index, set()).add(item.item_key)
        return {index: next(iter(keys)) for index, keys in found.items() if len(keys) == 1}

    def _wanted(self, volume: PlannedVolume) -> list[tuple[int, tuple[int, ...]]]:
        """Frames to decode for a volume, by member; of a mosaic, its one frame. Nothing for one that is kept."""
        if volume.planes in self._kept:
            return []
        frames: dict[int, set[int]] = {}
        for index, frame in (*volume.planes, *(plane for pair in volume.verify_equal for plane in pair)):
            mosaic = self.members[index].instance.mosaic
            frames.setdefault(index, set()).add(0 if mosaic else frame)
        return [(index, tuple(sorted(wanted))) for index, wanted in sorted(frames.items())]

    def _keep_volume(self, volume: PlannedVolume, results: Iterator[Result]) -> None:
        array = self.keepers.reader.read(volume, self._file_of)
        if array is None:
            self._assemble(volume, results)
        else:
            self.decoded.update(index for index, _frame in volume.planes)
            self._kept[volume.planes] = self._volume_item(volume, self.keepers.cache.put(array))

    def _file_of(self, index: int) -> tuple[Path, Instance]:
        return self.members[index].file.path, self.members[index].instance

    def _assemble(self, volume: PlannedVolume, results: Iterator[Result]) -> None:
        """Keep a volume of planes that have to be looked at one by one."""
        builder = VolumeBuilder(volume)
        broken = False
        for index, frames in self._wanted(volume):
            self.decoded.add(index)
            read = self._read(index, frames, results)
            if isinstance(read, Reason):
                self._failed[index] = read
                broken = True
            else:
                for plane, content in read.items():
                    builder.add(plane, content)
        if broken:
            return
        try:
            array = builder.finished()
        except CopiesDiffer as differ:
            for kept, copy in differ.pairs:
                if self._key(kept) == self._key(copy):
                    self._distrust(kept[0])
                    broken = True
            if not broken:
                self._kept[volume.planes] = differ.reason
            return
        except Skip as skip:
            self._kept[volume.planes] = skip.reason
            return
        self._kept[volume.planes] = self._volume_item(volume, self.keepers.cache.put(array))

    def _read(
        self, index: int, frames: tuple[int, ...], results: Iterator[Result]
    ) -> dict[PlaneId, Plane] | Reason:
        """Planes of one member, from a worker's result, or read here where nothing but numbers is to be read."""
        member = self.members[index]
        if is_plain(member.instance):
            try:
                planes = list(read_planes(member.file.path, member.instance, frames))
            except Skip as skip:
                return skip.reason
        else:
            result = next(results)
            if isinstance(result, Refused):
                return result.reason
            assert isinstance(result, PlanesDecoded)
            empty = result.empty if result.empty is not None else [None] * len(result.values)
            planes = [Plane(values, mask) for values, mask in zip(result.values, empty, strict=True)]
        if member.instance.mosaic:
            return _tiles(index, planes[0], len(member.instance.frames))
        return {(index, frame): plane for frame, plane in zip(frames, planes, strict=True)}

    def _distrust(self, index: int) -> None:
        """Refuse all files of an instance that are not damaged: they contradict each other."""
        sop_key = self.members[index].row.sop_key
        for other, member in enumerate(self.members):
            if member.row.sop_key == sop_key:
                self._failed.setdefault(other, Reason.CONTRADICTING_COPIES)

    def _judge_probe(self, index: int, results: Iterator[Result]) -> None:
        """Drop what contradicts another file and can't be decoded itself: it speaks against nothing."""
        self.decoded.add(index)
        self._probed.add(index)
        result = next(results)
        if isinstance(result, Refused) and result.reason != Reason.CONSTANT_PIXELS:
            self._failed[index] = result.reason

    def _keep_image(self, image: Image, results: Iterator[Result]) -> None:
        """Keep an image, unless it can't be decoded or a copy that can shows something else."""
        index, *copies = self._looks[image]
        shown = self._shown(index, results)
        alike = True
        for copy in copies:
            other = self._shown(copy, results)
            alike = alike and (shown is None or other is None or np.array_equal(shown.image, other.image))
        if shown is None:
            return
        if not alike:
            self._kept.pop(image, None)
            self._distrust(index)
            return
        self._verified.update(copies)
        if image not in self._kept:
            self._admit(image, shown)

    def _shown(self, index: int, results: Iterator[Result]) -> ImageDecoded | None:
        """Return what a member looks like, or None where it failed."""
        self.decoded.add(index)
        result = next(results)
        if isinstance(result, Refused):
            self._failed[index] = result.reason
            return None
        assert isinstance(result, ImageDecoded)
        return result

    def _admit(self, image: Image, shown: ImageDecoded) -> None:
        index, array = image[0][0], shown.image
        instance = self.members[index].instance
        draft = self._image_item(index, "image" if len(image) == 1 else "cine")
        try:
            if not is_suspect(instance):
                kept = replace(draft, content_sha256=self.keepers.cache.put(array), shape=array.shape)
            else:
                kept = self.keepers.quarantine.admit(draft, array, hold_back(instance, shown.has_text))
        except Skip as skip:
            self._kept[image] = skip.reason
            return
        self._kept[image] = kept

    def _image_item(self, index: int, kind: Kind) -> Item:
        member = self.members[index]
        instance = member.instance
        return Item(
            item_key=member.row.sop_key,
            kind=kind,
            family=instance.family,
            units="display",
            content_sha256="",
            shape=(),
            spacing_mm=_whole_spacing(instance) or (),
            affine=(),
            sop_key=member.row.sop_key,
            series_key=member.row.series_key,
            study_key=member.row.study_key,
            patient_key=self.keepers.names.of("patient", instance.patient_id),
        )

    def _volume_item(self, volume: PlannedVolume, content_sha256: str) -> Item:
        first = self.members[volume.planes[0][0]]
        series_key = first.row.series_key
        quality = {"part": volume.key, **asdict(volume.quality)}
        if volume.tilt is not None:
            quality["tilt"] = volume.tilt.told()
        units: Units = "hounsfield" if _in_hounsfield(volume, self.members) else "arbitrary"
        return Item(
            item_key=self.keepers.names.of("volume", f"{series_key} {volume.key}")
            if volume.key
            else series_key,
            kind="volume",
            family=volume.family,
            units=units,
            content_sha256=content_sha256,
            shape=volume.shape,
            spacing_mm=volume.spacing_mm,
            affine=tuple(float(value) for value in volume.affine.ravel()),
            sop_key="",
            series_key=series_key,
            study_key=first.row.study_key,
            patient_key=self.keepers.names.of("patient", first.instance.patient_id),
            quality=json.dumps(quality),
        )


def _in_hounsfield(volume: PlannedVolume, members: Sequence[SeriesFile]) -> bool:
    """Tell whether every plane of a volume is known to be in Hounsfield units."""
    if volume.family != "ct":
        return False
    files = {index for index, _frame in volume.planes}
    known = {
        (index, frame.index)
        for index in files
        for frame in members[index].instance.frames
        if frame.hounsfield
    }
    return known.issuperset(volume.planes)


def _whole_spacing(instance: Instance) -> tuple[float, float] | None:
    """Of an uncropped image. An ultrasound's regions know it, but only where all that lie in space say the same."""
    stated = {region.spacing_mm for region in instance.regions} - {None}
    if not stated:
        return instance.frames[0].spacing_mm
    return stated.pop() if len(stated) == 1 else None


def _probe(path: Path, instance: Instance) -> Job:
    """Return what shows whether the pixels of a file can be decoded."""
    frames = (0,) if instance.mosaic else tuple(frame.index for frame in instance.frames)
    if instance.pixels.photometric.startswith("MONOCHROME"):
        return DecodePlanes(path, instance, frames)
    return DecodeImage(path, instance, frames)


def _tiles(index: int, mosaic: Plane, slices: int) -> dict[PlaneId, Plane]:
    values = split_mosaic(mosaic.values, slices)
    masks = [None] * slices if mosaic.empty is None else list(split_mosaic(mosaic.empty, slices))
    return {(index, tile): Plane(values[tile], masks[tile]) for tile in range(slices)}


def process_series(series: Iterable[SeriesProcessor], pool: DecodePool) -> None:
    """Settle several series, their files decoded side by side."""
    pending = list(series)
    while pending:
        for work in pending:
            work.plan()
        _ask([work for work in pending if work.questions()], pool)
        with closing(pool.map(job for work in pending for job in work.jobs())) as results:
            pending = [work for work in pending if not work.settle(results)]


def _ask(unclear: list[SeriesProcessor], pool: DecodePool) -> None:
    """Have the private headers read of series that hold what nothing else tells apart."""
    if not unclear:
        return
    with closing(pool.map([job for work in unclear for job in work.questions()])) as answers:
        for work in unclear:
            work.learn(answers)
