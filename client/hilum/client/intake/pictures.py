"""The NIfTI files and pictures of a research folder, some at a time, each in the catalogue or set aside for a reason."""

from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path

from hilum.client.catalogue import ACCEPTED, FileRow, Item
from hilum.client.intake.folder_file import COLOUR_FAMILIES, folder_row, take_folder_file
from hilum.client.intake.instance import Family
from hilum.client.intake.jobs import DecodePicture, ImageDecoded, Refused, Result
from hilum.client.intake.raster import Colour, Grey, is_raster
from hilum.client.intake.reasons import Skip
from hilum.client.intake.sandbox import DecodePool
from hilum.client.intake.scan import FoundFile
from hilum.client.intake.series import Keepers


@dataclass(frozen=True)
class Picture:
    """One file and its name relative to the indexed folder, an identifier."""

    file: FoundFile
    relative_name: str = field(repr=False)


def take_pictures(
    pictures: Sequence[Picture], family: Family, keepers: Keepers, pool: DecodePool
) -> tuple[list[FileRow], list[Item]]:
    """Read files and cache what they hold; pictures are decoded in the pool's processes.

    Args:
        pictures: Files of which `is_folder_file` holds.
        family: What made them.
        keepers: Where arrays go.
        pool: Decodes.
    """
    rows: list[FileRow] = []
    items: list[Item] = []
    colour = family in COLOUR_FAMILIES
    jobs = (DecodePicture(one.file.path, colour) for one in pictures if is_raster(one.file.path))
    with closing(pool.map(jobs)) as results:
        for one in pictures:
            status: str = ACCEPTED
            try:
                items += _take(one, family, keepers, results)
            except Skip as skip:
                status = skip.reason
            rows.append(folder_row(one.relative_name, one.file.identity, status, keepers.names))
    return rows, items


def _take(one: Picture, family: Family, keepers: Keepers, results: Iterator[Result]) -> list[Item]:
    def read(path: Path, *, colour: bool) -> Grey | Colour:
        del path, colour  # the job was told
        result = next(results)
        if isinstance(result, Refused):
            raise Skip(result.reason)
        assert isinstance(result, ImageDecoded)
        return result.image

    return take_folder_file(one.file.path, one.relative_name, family, keepers.names, keepers.cache, read)
