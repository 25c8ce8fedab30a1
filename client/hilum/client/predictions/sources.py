"""From an item of a catalogue back to the files that it was made of, frame by frame.

The catalogue knows files by pseudonym, so each name that was indexed is keyed as the index does it. Frames are matched to the
slices of a volume by where they lie.

Shapes: D slices of a volume as they were stored; of a tilted one these are not the item's own.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path, PurePosixPath
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from hilum.client.intake.formats.not_dicom import is_dicom
from hilum.client.intake.indexing.read_headers import read_headers
from hilum.client.intake.instance import Frame, Instance
from hilum.client.intake.pixels.crop import Crop
from hilum.client.intake.planner import Tilt, tilt_told
from hilum.client.intake.quarantine.rules import hold_back
from hilum.client.intake.reasons import Reason, Skip
from hilum.client.intake.sandbox.jobs import AttributesRead, ReadAttributes
from hilum.client.intake.sandbox.pool import DecodePool
from hilum.client.intake.sources.scan import FoundFile
from hilum.client.intake.sources.sources import Found
from hilum.client.state.catalogue import ACCEPTED, Catalogue, FileRow, Item
from hilum.client.state.workspace import Workspace

_NEAR = 0.25  # of the slice distance: how far a frame may lie from its slice; positions wander by a hundredth
_ALIKE = 0.01  # likewise, between two frames that lie at one place


@dataclass(frozen=True)
class SourceFrame:
    """One frame of one instance.

    Attributes:
        number: Of the frame from 1, as DICOM counts; None where the instance has only one, or is a mosaic.
    """

    instance: Instance = field(repr=False)
    frame: Frame = field(repr=False)
    number: int | None


@dataclass(frozen=True)
class DicomSource:
    """The DICOM files of an item.

    Attributes:
        item: As it is in the catalogue.
        name: Of the file, or of the folder of a series, relative to the indexed folder; an identifier.
        frames: Of a volume its D stored slices, in their order; else the one frame that is shown.
        attributes: Of the patient and the study; DICOM JSON.
        tilt: How the item was brought upright from its slices, or None.
        crop: The part of the frame that the item shows, or None where that is all of it.
    """

    item: Item = field(repr=False)
    name: str = field(repr=False)
    frames: tuple[SourceFrame, ...] = field(repr=False)
    attributes: Mapping[str, Any] = field(repr=False)
    tilt: Tilt | None = None
    crop: Crop | None = None

    @property
    def series_uid(self) -> str:
        """The series instance UID."""
        return self.frames[0].instance.series_uid

    @property
    def instance_uid(self) -> str:
        """The SOP instance UID of an image; empty for a volume of several instances."""
        uids = {one.instance.sop_uid for one in self.frames}
        return uids.pop() if len(uids) == 1 else ""

    @property
    def study_uid(self) -> str:
        """The study instance UID."""
        return self.frames[0].instance.study_uid

    @property
    def stored_affine(self) -> npt.NDArray[np.float64]:
        """(4, 4), array index (d, h, w, 1) of the stored slices to LPS millimetres."""
        if self.tilt is not None:
            return self.tilt.sheared
        return np.array(self.item.affine).reshape(4, 4)


@dataclass(frozen=True)
class FileSource:
    """The picture or NIfTI file of an item.

    Attributes:
        path: Where it lies; an identifier, as is `name`, which is relative to the indexed folder.
        time: Which volume of a NIfTI file of several it is, or None.
    """

    item: Item = field(repr=False)
    name: str = field(repr=False)
    path: Path = field(repr=False)
    kind: Literal["picture", "nifti"]
    time: int | None = None


Source = DicomSource | FileSource


@dataclass(frozen=True)
class _Named:
    """A file that was taken in: its row and its name."""

    row: FileRow
    file: FoundFile
    name: str


class SourceFinder:
    """Finds the files of items.

    Args:
        workspace: Where they were indexed.
        found: What was indexed: nothing else is looked for.
        pool: Reads headers.
    """

    def __init__(self, workspace: Workspace, found: Found, pool: DecodePool) -> None:
        self._pool = pool
        self._names = names = workspace.pseudonyms()
        catalogue = Catalogue(workspace.catalogue)
        try:
            rows = catalogue.files()
        finally:
            catalogue.close()
        self._of_series: dict[str, list[_Named]] = {}
        for key, file in found.keyed(names).items():
            row = rows.get(key)
            if row is not None and row.status == ACCEPTED:
                named = _Named(row, file, found.relative_name(file))
                self._of_series.setdefault(row.series_key, []).append(named)

    def source(self, item: Item) -> Source:
        """Return where an item came from.

        Raises:
            Skip: If a header that was read before can't be read now, or slices are not where the volume has them.
        """
        files = self._files(item)
        if not is_dicom(files[0].file.path):
            return self._file_source(item, files[0])
        read = read_headers([(one.row.file_key, one.file) for one in files], self._pool)
        headers = [one.header for one in read]
        instances = [one for one in headers if isinstance(one, Instance)]
        if len(instances) != len(headers):
            raise Skip(Reason.DAMAGED_HEADER)
        told = json.loads(item.quality or "{}").get("tilt")
        tilt = None if told is None else tilt_told(told)
        frames = _slices(item, tilt, instances) if item.kind == "volume" else (_shown(item, instances[0]),)
        first = files[instances.index(frames[0].instance)].file.path
        return DicomSource(
            item,
            _name(item, files),
            frames,
            self._attributes(first, frames[0].instance),
            tilt,
            None if item.kind == "volume" else hold_back(instances[0], has_text=False).crop,
        )

    def _files(self, item: Item) -> list[_Named]:
        of_series = self._of_series.get(item.series_key, [])
        if item.sop_key:
            found = [one for one in of_series if one.row.sop_key == item.sop_key]
        else:
            found = [one for one in of_series if one.row.item_key in {item.item_key, ""}]
        if not found:
            raise Skip(Reason.UNREADABLE)
        return found

    def _file_source(self, item: Item, file: _Named) -> FileSource:
        if item.kind != "volume":
            return FileSource(item, file.name, file.file.path, "picture")
        time = None
        if item.item_key != item.series_key:
            keys = ((t, self._names.of("file time", f"{file.name}\0{t}")) for t in count())
            time = next(t for t, key in keys if key == item.item_key)
        return FileSource(item, file.name, file.file.path, "nifti", time)

    def _attributes(self, path: Path, instance: Instance) -> Mapping[str, Any]:
        with closing(self._pool.map([ReadAttributes(path, instance.pixels.syntax)])) as answers:
            answer = next(answers)
        if not isinstance(answer, AttributesRead):
            raise Skip(Reason.DAMAGED_HEADER)
        return answer.attributes


def _name(item: Item, files: Sequence[_Named]) -> str:
    if len(files) == 1 or item.kind != "volume":
        return files[0].name
    parents = [PurePosixPath(one.name).parent for one in files]
    common = parents[0]
    while not all(parent.is_relative_to(common) for parent in parents):
        common = common.parent
    return str(common)


def _shown(item: Item, instance: Instance) -> SourceFrame:
    """Return the frame of an image; of a clip the middle one, which stands for it."""
    place = item.shape[0] // 2 if item.kind == "cine" else 0
    many = instance.pixels.frames > 1
    frame = next((one for one in instance.frames if one.index == place), Frame(place))
    return SourceFrame(instance, frame, place + 1 if many else None)


def _slices(item: Item, tilt: Tilt | None, instances: Sequence[Instance]) -> tuple[SourceFrame, ...]:
    """Return the frame of each stored slice.

    Of several frames at one place, as an object of several volumes has them, the first stands for the slice, without its number.

    Raises:
        Skip: If a slice has none.
    """
    affine = tilt.sheared if tilt is not None else np.array(item.affine).reshape(4, 4)
    to_index = np.linalg.inv(affine)
    at: dict[int, list[tuple[float, SourceFrame]]] = {}
    for one in _positioned(instances):
        depth = float((to_index @ np.array([*(one.frame.position_mm or ()), 1.0]))[0])
        off = abs(depth - round(depth))
        if off <= _NEAR:
            at.setdefault(round(depth), []).append((off, one))
    depths = tilt.shape[0] if tilt is not None else item.shape[0]
    return tuple(_the_one(at.get(depth, [])) for depth in range(depths))


def _positioned(instances: Sequence[Instance]) -> Iterator[SourceFrame]:
    for instance in instances:
        many = instance.pixels.frames > 1 and not instance.mosaic
        for frame in instance.frames:
            if frame.position_mm is not None and frame.orientation is not None:
                yield SourceFrame(instance, frame, frame.index + 1 if many else None)


def _the_one(candidates: list[tuple[float, SourceFrame]]) -> SourceFrame:
    if not candidates:
        raise Skip(Reason.OFF_GRID)
    nearest = min(off for off, _ in candidates)
    near = [one for off, one in candidates if off <= nearest + _ALIKE]
    first = near[0]
    if len(near) == 1:
        return first
    return SourceFrame(first.instance, first.frame, None)
