"""The NIfTI files and pictures of a research folder, some at a time, each in the catalogue or set aside for a reason."""

from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass, field

from hilum.client.intake.formats.folder_volume import ReadVolumes
from hilum.client.intake.indexing.folder_file import folder_job, folder_row, take_folder_file
from hilum.client.intake.indexing.items import Stores
from hilum.client.intake.instance import Family
from hilum.client.intake.reasons import Reason, Skip
from hilum.client.intake.sandbox.jobs import DecodePicture, Refused
from hilum.client.intake.sandbox.pool import DecodePool
from hilum.client.intake.sources.scan import FoundFile
from hilum.client.state.catalogue import ACCEPTED, FileRow, Item
from hilum.client.state.workspace import Pseudonyms


@dataclass(frozen=True)
class Picture:
    """One file and its name relative to the indexed folder, an identifier."""

    file: FoundFile
    relative_name: str = field(repr=False)


def preference(one: Picture) -> tuple[bool, bool, str]:
    """Order the names of one file by which of them a table is likely to use.

    A name in a hidden folder comes last: git-annex keeps there what its links name. A file comes before links to it.
    """
    hidden = any(part.startswith(".") for part in one.relative_name.split("/"))
    return hidden, one.file.path.is_symlink(), one.relative_name


def linked_row(one: Picture, first: FileRow, names: Pseudonyms) -> FileRow:
    """Return the row of a further name of a file that was read: a copy of its instance, or set aside as it was."""
    key = names.of("file", one.relative_name)
    if first.status not in (ACCEPTED, Reason.DUPLICATE):
        return FileRow(key, one.file.identity, first.status, key, key, key, key)
    return FileRow(key, one.file.identity, Reason.DUPLICATE, first.sop_key, first.series_key, first.study_key)


def take_pictures(
    pictures: Sequence[Picture], family: Family, stores: Stores, pool: DecodePool
) -> tuple[list[FileRow], list[Item]]:
    """Have files read by the pool's processes, and cache what they hold.

    Args:
        pictures: Files of which `is_folder_file` holds.
        family: What made them.
        stores: Where arrays go.
        pool: Decodes.
    """
    rows: list[FileRow] = []
    items: list[Item] = []
    asked = [_asked(one, family) for one in pictures]
    with closing(pool.map(job for job in asked if not isinstance(job, Refused))) as results:
        for one, job in zip(pictures, asked, strict=True):
            status: str = ACCEPTED
            try:
                result = job if isinstance(job, Refused) else next(results)
                items += take_folder_file(result, one.relative_name, family, stores.names, stores.cache)
            except Skip as skip:
                status = skip.reason
            rows.append(folder_row(one.relative_name, one.file.identity, status, stores.names))
    return rows, items


def _asked(one: Picture, family: Family) -> DecodePicture | ReadVolumes | Refused:
    try:
        return folder_job(one.file.path, family)
    except Skip as skip:
        return Refused(skip.reason)
