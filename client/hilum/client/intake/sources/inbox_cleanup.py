"""Make room: remove from the inbox what the site needs no more, and remember that it was here.

A file goes once it is settled: its images lie in the cache, it was refused for what it is, or it is a copy of an instance
that was taken. A series goes whole or stays. The catalogue keeps the rows of what went, as those of a place where no index
looks: so the images stay indexed, a pull does not fetch the files again, and one that is sent again counts as a copy.
"""

import time
from collections import Counter, defaultdict
from dataclasses import dataclass

from hilum.client.intake.reasons import Reason
from hilum.client.intake.sources.scan import FoundFile, identity_of
from hilum.client.intake.sources.sources import find, is_of_inbox, is_removed, removed_key
from hilum.client.state.cache import ArrayCache
from hilum.client.state.catalogue import ACCEPTED, Catalogue, FileRow, Item
from hilum.client.state.workspace import Workspace
from hilum.common.errors import DataError

_BATCH = 500  # files
_UNSETTLED = frozenset(
    {
        Reason.BURNED_IN_TEXT,  # a person decides
        Reason.SPLIT_SERIES,  # the next index over both places decides
        Reason.NOT_A_FILE,  # nothing that came by the network, so nothing to remove
        Reason.LINKED_FOLDER,
        Reason.DANGLING_LINK,
        Reason.PATH_TOO_LONG,
        Reason.UNREADABLE_FOLDER,  # these may have been for the moment only
        Reason.UNREADABLE,
        Reason.DECODER_DIED,
        Reason.DECODER_TIMEOUT,
    }
)


@dataclass(frozen=True)
class EmptyingReport:
    """What one call did.

    Attributes:
        removed: Files.
        freed_bytes: Their size.
        kept: Files that stay, by why: `too_new`, `not_indexed`, `unsettled`, or `series_stays` for settled files of a
            series that has others which are not, or goes on in the indexed folder, or whose images the cache lacks.
    """

    removed: int
    freed_bytes: int
    kept: dict[str, int]


def empty_inbox(workspace: Workspace, *, older_than_s: float) -> EmptyingReport:
    """Remove from the inbox what is settled and came at least so long ago.

    Raises:
        DataError: If nothing is indexed yet.
        RunError: If another process is working on the site.
    """
    if not workspace.catalogue.exists():
        raise DataError(
            "nothing is indexed yet, so nothing in the inbox is settled; run `hilum site index` first"
        )
    names = workspace.pseudonyms()
    with workspace.locked():
        catalogue = Catalogue(workspace.catalogue)
        try:
            here = find(None, workspace).keyed(names)
            chosen = _Choice(catalogue, ArrayCache(workspace.cache), here, time.time() - older_than_s)
            return _remove(catalogue, here, chosen.settled(), chosen.kept)
        finally:
            catalogue.close()


class _Choice:
    """Which files of the inbox may go, and why the others stay."""

    def __init__(
        self, catalogue: Catalogue, cache: ArrayCache, here: dict[str, FoundFile], newest_s: float
    ) -> None:
        self.here, self.cache, self.newest_s = here, cache, newest_s
        self.rows = catalogue.files()
        self.taken = {row.sop_key for row in self.rows.values() if row.status == ACCEPTED} - {""}
        self.items: dict[str, list[Item]] = defaultdict(list)
        for item in catalogue.items():
            self.items[item.series_key].append(item)
        self.kept: Counter[str] = Counter()

    def settled(self) -> list[FileRow]:
        """Return the rows of the files that may go."""
        alone: list[FileRow] = []
        series: dict[str, list[FileRow]] = defaultdict(list)
        staying = {row.series_key for key, row in self.rows.items() if self._goes_on_elsewhere(key, row)}
        for key, file in sorted(self.here.items()):
            row = self.rows.get(key)
            why = self._unsettled(row, file)
            if why:
                self.kept[why] += 1
                staying.add("" if row is None else row.series_key)
            elif row is not None and (self._is_copy(row) or not row.series_key):
                alone.append(row)
            elif row is not None:
                series[row.series_key].append(row)
        for key, rows in series.items():
            if key in staying or not self._is_cached(rows):
                self.kept["series_stays"] += len(rows)
            else:
                alone += rows
        return alone

    def _unsettled(self, row: FileRow | None, file: FoundFile) -> str:
        """Why a file stays whatever the rest of its series does; empty where it need not."""
        if row is None or row.identity != file.identity:
            return "not_indexed"
        if row.status in _UNSETTLED:
            return "unsettled"
        return "too_new" if file.path.stat().st_mtime > self.newest_s else ""

    def _goes_on_elsewhere(self, key: str, row: FileRow) -> bool:
        return not is_of_inbox(key) and not is_removed(key) and row.status != Reason.DUPLICATE

    def _is_copy(self, row: FileRow) -> bool:
        return row.status == Reason.DUPLICATE and row.sop_key in self.taken

    def _is_cached(self, rows: list[FileRow]) -> bool:
        """Tell whether all that a series gave is in the cache."""
        if all(row.status != ACCEPTED for row in rows):
            return True
        items = self.items[rows[0].series_key]
        known = {item.item_key for item in items} | {""}
        whole = bool(items) and all(row.item_key in known for row in rows if row.status == ACCEPTED)
        return whole and all(self.cache.has(item.content_sha256) for item in items)


def _remove(
    catalogue: Catalogue, here: dict[str, FoundFile], settled: list[FileRow], kept: Counter[str]
) -> EmptyingReport:
    """Change the catalogue first, then remove files: one that a killed call left behind counts as a copy, but one that it lacks would be lost."""
    removed = freed_bytes = 0
    for start in range(0, len(settled), _BATCH):
        batch = settled[start : start + _BATCH]
        catalogue.rename_files({row.file_key: removed_key(row.file_key) for row in batch})
        for row in batch:
            file = here[row.file_key]
            status = file.path.stat()
            if identity_of(status) != file.identity:  # it came again just now
                kept["not_indexed"] += 1
                continue
            file.path.unlink()
            removed += 1
            freed_bytes += status.st_size
    return EmptyingReport(removed, freed_bytes, dict(sorted(kept.items())))


def remembered(workspace: Workspace) -> frozenset[str]:
    """Return the keys of files that were removed from the inbox and are not to be fetched again.

    A copy is, once the instance that it was a copy of has gone from the indexed folder.
    """
    if not workspace.catalogue.exists():
        return frozenset()
    catalogue = Catalogue(workspace.catalogue)
    try:
        rows = catalogue.files()
    finally:
        catalogue.close()
    taken = {row.sop_key for row in rows.values() if row.status == ACCEPTED}
    return frozenset(
        key
        for key, row in rows.items()
        if is_removed(key) and (row.status != Reason.DUPLICATE or row.sop_key in taken)
    )
