"""A planned volume, of planes that are decoded one by one."""

from collections.abc import Iterator, Sequence

from hilum.client.intake.assembly.volume import Values, VolumeBuilder
from hilum.client.intake.headers.mosaic import split_mosaic
from hilum.client.intake.indexing.planning import Planning, SeriesFile
from hilum.client.intake.pixels.images import Plane, is_plain, read_planes
from hilum.client.intake.planner import CopiesDiffer, PlaneId, PlannedVolume
from hilum.client.intake.reasons import Reason, Skip
from hilum.client.intake.sandbox.jobs import DecodePlanes, PlanesDecoded, Refused, Result


def wanted_frames(volume: PlannedVolume, members: Sequence[SeriesFile]) -> list[tuple[int, tuple[int, ...]]]:
    """Return the frames to decode for a volume, by member; of a mosaic, its one frame."""
    frames: dict[int, set[int]] = {}
    for index, frame in (*volume.planes, *(plane for pair in volume.verify_equal for plane in pair)):
        frames.setdefault(index, set()).add(0 if members[index].instance.mosaic else frame)
    return [(index, tuple(sorted(wanted))) for index, wanted in sorted(frames.items())]


def plane_jobs(volume: PlannedVolume, members: Sequence[SeriesFile]) -> Iterator[DecodePlanes]:
    """Return what a worker has to decode for a volume; bare numbers are read here."""
    for index, frames in wanted_frames(volume, members):
        if not is_plain(members[index].instance):
            yield DecodePlanes(members[index].file.path, members[index].instance, frames)


def assemble(volume: PlannedVolume, planning: Planning, results: Iterator[Result]) -> Values | Reason | None:
    """Return a volume's array, or why there is none; None where files failed, so that it has to be planned again.

    Args:
        volume: As planned.
        planning: Of its series; learns which files fail.
        results: Of `plane_jobs`.
    """
    builder = VolumeBuilder(volume)
    broken = False
    for index, frames in wanted_frames(volume, planning.members):
        read = _read(planning.members[index], index, frames, results)
        if isinstance(read, Reason):
            planning.failed[index] = read
            broken = True
        else:
            for plane, content in read.items():
                builder.add(plane, content)
    if broken:
        return None
    try:
        return builder.finished()
    except CopiesDiffer as differ:
        contradicting = [pair for pair in differ.pairs if planning.is_one_instance(*pair)]
        for kept, _copy in contradicting:
            planning.distrust(kept[0])
        return None if contradicting else differ.reason
    except Skip as skip:
        return skip.reason


def _read(
    member: SeriesFile, index: int, frames: tuple[int, ...], results: Iterator[Result]
) -> dict[PlaneId, Plane] | Reason:
    """Planes of one member, from a worker's result, or read here where nothing but numbers is to be read."""
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


def _tiles(index: int, mosaic: Plane, slices: int) -> dict[PlaneId, Plane]:
    values = split_mosaic(mosaic.values, slices)
    masks = [None] * slices if mosaic.empty is None else list(split_mosaic(mosaic.empty, slices))
    return {(index, tile): Plane(values[tile], masks[tile]) for tile in range(slices)}
