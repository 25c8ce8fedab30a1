"""Bring the catalogue and the cache in line with an archive: a folder, and the inbox of what a PACS gave.

A file whose size, time and inode are as they were is not opened again. A series with a new, changed or missing file
is planned again. Each batch is committed whole, so an interrupted run goes on where it was.

A pass looks at the inbox, and at the folder if it is given one; what it does not look at stays as it is. So a series
whose slices lie in both is assembled only by a pass over both, and is set aside until then.
"""

import time
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from hilum.client.intake.formats.not_dicom import is_dicom
from hilum.client.intake.indexing.changes import Told, compare
from hilum.client.intake.indexing.items import Stores
from hilum.client.intake.indexing.pictures import Picture, linked_row, preference, take_pictures
from hilum.client.intake.indexing.planning import SeriesFile
from hilum.client.intake.indexing.read_headers import ReadFile, read_headers
from hilum.client.intake.indexing.series import SeriesProcessor, process_series
from hilum.client.intake.instance import Family
from hilum.client.intake.planner import is_stacked
from hilum.client.intake.quarantine.store import Quarantine
from hilum.client.intake.reasons import Reason, Skip
from hilum.client.intake.sandbox.pool import DecodePool
from hilum.client.intake.sources.scan import FoundFile
from hilum.client.intake.sources.sources import Found, find
from hilum.client.state.cache import ArrayCache
from hilum.client.state.catalogue import ACCEPTED, Catalogue, Counts, FileRow, Item
from hilum.client.state.index_runs import begin_run, end_run
from hilum.client.state.workspace import Workspace
from hilum.common.cores import usable_cores
from hilum.common.progress import Progress

_BATCH = 32  # files


@dataclass(frozen=True)
class IndexReport:
    """What one call found.

    Attributes:
        counts: The catalogue afterwards.
        decoded: How many files had their pixels read in this call.
        removed: How many known files were gone.
    """

    counts: Counts
    decoded: int
    removed: int


def index_archive(
    archive: Path | None,
    workspace: Workspace,
    progress: Progress,
    *,
    images: Family | None = None,
    forget_images: bool = False,
) -> IndexReport:
    """Index the site's archive: the inbox, and a folder where one is given.

    Args:
        archive: The folder to read; nothing is written there. None looks at the inbox alone, and what is known of the
            folder stays.
        workspace: As of `index_found`.
        progress: Likewise.
        images: Likewise.
        forget_images: Likewise.

    Raises:
        DataError: If the archive is not a readable folder, or holds no file at all.
        RunError: If another process is working on the site.
    """
    return index_found(
        find(archive, workspace), workspace, progress, images=images, forget_images=forget_images
    )


def index_found(
    found: Found,
    workspace: Workspace,
    progress: Progress,
    *,
    images: Family | None = None,
    forget_images: bool = False,
) -> IndexReport:
    """Index what a look at the archive and the inbox has found; `found.count` files will be told of.

    Args:
        found: By `sources.find`, in this workspace.
        workspace: Where the catalogue, the cache and the inbox lie.
        progress: Told once a file.
        images: What made the NIfTI files and pictures of the folder; None sets new ones aside.
        forget_images: Where `images` is None, set those aside too that an earlier call was told of.

    Raises:
        RunError: If another process is working on the site.
    """
    names = workspace.pseudonyms()
    with workspace.locked():
        catalogue = Catalogue(workspace.catalogue)
        try:
            stores = Stores(ArrayCache(workspace.cache), Quarantine(workspace, catalogue), names)
            number, began_s = begin_run(catalogue, found.archive), time.monotonic()
            with DecodePool(usable_cores(), scratch=workspace.folder) as pool:
                told = Told(images, forget_images)
                report = _Indexer(catalogue, stores, pool, progress, told, found).run()
            seconds = round(time.monotonic() - began_s, 1)
            end_run(catalogue, number, seconds=seconds, decoded=report.decoded, removed=report.removed)
            return report
        finally:
            catalogue.close()


class _Indexer:
    """One pass: does what the changes ask for.

    Attributes:
        decoded: How many files had their pixels read.
        done: How many files are settled.
    """

    def __init__(
        self,
        catalogue: Catalogue,
        stores: Stores,
        pool: DecodePool,
        progress: Progress,
        told: Told,
        found: Found,
    ) -> None:
        self.catalogue, self.stores, self.told, self.found = catalogue, stores, told, found
        self.pool, self.progress = pool, progress
        self.changes = compare(catalogue.files(), found, stores.names, told)
        self.decoded = 0
        self.done = len(self.changes.unchanged)

    def run(self) -> IndexReport:
        changes = self.changes
        self.catalogue.record(
            [replace(row, status=Reason.SPLIT_SERIES) for row in changes.split],
            forget_files=[*changes.gone, *changes.changed],
            forget_series=changes.touched,
        )
        files = {key: changes.files[key] for key in sorted(changes.unread)}
        pictures = {
            key: file for key, file in files.items() if self.told.is_picture(file) and not is_dicom(file.path)
        }
        self._take_series(self._read_headers({key: files[key] for key in files if key not in pictures}))
        self._take_pictures(
            [
                Picture(replace(file, identity=self.told.identity_of(file)), self.found.relative_name(file))
                for file in pictures.values()
            ]
        )
        # Let go of arrays that no item has any more.
        self.stores.quarantine.sweep({row.sop_key for row in self.catalogue.files().values()})
        self.stores.cache.keep_only({item.content_sha256 for item in self.catalogue.items()})
        return IndexReport(self.catalogue.counts(), self.decoded, len(changes.gone))

    def _tick(self, files: int = 1) -> None:
        self.done += files
        self.progress.advance(self.done)

    def _read_headers(self, files: dict[str, FoundFile]) -> list[SeriesFile]:
        """Headers of new files; those set aside are recorded at once."""
        damaged: list[FileRow] = []
        elsewhere = {row.sop_key for row in self.changes.unseen if row.status == ACCEPTED}
        members: list[SeriesFile] = []
        skipped: list[FileRow] = []
        for read in read_headers(files.items(), self.pool):
            if isinstance(read.header, Skip):
                skip = read.header
                skipped.append(self._row(read, skip.reason, skip.uids))
                damaged.append(skipped[-1])
            else:
                one = read.header
                row = self._row(read, ACCEPTED, (one.sop_uid, one.series_uid, one.study_uid))
                if row.sop_key not in elsewhere:
                    members.append(SeriesFile(read.file, row, one))
                    continue
                skipped.append(replace(row, status=Reason.DUPLICATE))
            self._tick()
            if len(skipped) >= _BATCH:
                self.catalogue.record(skipped)
                skipped = []
        self.catalogue.record(skipped)
        return _gathered(members, self.changes.unchanged.values(), damaged)

    def _row(self, read: ReadFile, status: str, uids: tuple[str, str, str]) -> FileRow:
        kinds = zip(("sop", "series", "study"), uids, strict=True)
        of = self.stores.names.of
        sop_key, series_key, study_key = (of(kind, uid) if uid else "" for kind, uid in kinds)
        return FileRow(read.key, read.file.identity, status, sop_key, series_key, study_key)

    def _take_series(self, members: list[SeriesFile]) -> None:
        """Plan every series with a new, changed or missing file, decode what it needs, and settle its files."""
        changes = self.changes
        # PET of an earlier Hilum, which did not look for what makes SUV of its values.
        unasked = {one.series_key for one in self.catalogue.items(family="pet") if one.lacks_suv_answer}
        affected = changes.touched | {one.row.series_key for one in members} | unasked
        groups: dict[str, list[SeriesFile]] = {key: [] for key in sorted(affected)}
        for one in (*members, *self._unchanged_members(affected)):
            groups[one.row.series_key].append(one)
        whole: list[list[SeriesFile]] = []
        for series_key, group in groups.items():
            group.sort(key=lambda one: (one.item is None, one.row.file_key))  # what was taken stays taken
            if series_key in changes.elsewhere and _is_stacked(group):
                stay = () if series_key in changes.touched else changes.unchanged
                self._set_aside([one for one in group if one.row.file_key not in stay])
            elif group:
                whole.append(group)
        for batch in _batches(whole):
            self._take_batch(batch)

    def _unchanged_members(self, affected: frozenset[str]) -> Iterator[SeriesFile]:
        """Return the unchanged files of affected series, whose headers are needed again."""
        items: dict[str, Item] = {item.sop_key: item for item in self.catalogue.items() if item.sop_key}
        rows, files = self.changes.unchanged, self.changes.files
        again = {key: files[key] for key, row in rows.items() if row.series_key in affected}
        for read in read_headers(again.items(), self.pool):
            if isinstance(read.header, Skip):
                continue  # it was set aside before for the same reason, and stays so
            row = rows[read.key]
            item = items.get(row.sop_key) if row.status == ACCEPTED else None
            was_copy = row.status == Reason.DUPLICATE
            yield SeriesFile(read.file, replace(row, status=ACCEPTED), read.header, item, was_copy)

    def _set_aside(self, members: list[SeriesFile]) -> None:
        """Slices whose series goes on in the source that this pass does not look at: a part of it is not a volume."""
        self.catalogue.record([replace(one.row, status=Reason.SPLIT_SERIES) for one in members])
        self._tick(sum(one.row.file_key not in self.changes.unchanged for one in members))

    def _take_batch(self, batch: list[list[SeriesFile]]) -> None:
        works = [SeriesProcessor(group, self.stores) for group in batch]
        process_series(works, self.pool)
        rows = [row for work in works for row in work.rows()]
        self.catalogue.record(
            rows,
            [item for work in works for item in work.items()],
            # Other images of a series are no reason to forget a volume whose slices lie where this pass does not look.
            forget_series=[group[0].row.series_key for group in batch if _is_stacked(group)],
        )
        self.decoded += sum(len(work.decoded) for work in works)
        self._tick(sum(row.file_key not in self.changes.unchanged for row in rows))

    def _take_pictures(self, pictures: list[Picture]) -> None:
        """Read each file once, however many links name it."""
        read = {row.identity: row for row in self.changes.unchanged.values() if row.sop_key}
        names_of: dict[str, list[Picture]] = {}
        for one in pictures:
            names_of.setdefault(one.file.identity, []).append(one)
        firsts = [
            group[0] if len(group) == 1 else min(group, key=preference)
            for identity, group in names_of.items()
            if identity not in read
        ]
        kept = {one.relative_name for one in firsts}
        linked = [one for one in pictures if one.relative_name not in kept]
        for start in range(0, len(firsts), _BATCH):
            batch = firsts[start : start + _BATCH]
            assert self.told.images is not None
            rows, items = take_pictures(batch, self.told.images, self.stores, self.pool)
            self.catalogue.record(rows, items)
            read |= {row.identity: row for row in rows}
            self.decoded += len(batch)
            self._tick(len(batch))
        names = self.stores.names
        self.catalogue.record([linked_row(one, read[one.file.identity], names) for one in linked])
        self._tick(len(linked))


def _is_stacked(group: list[SeriesFile]) -> bool:
    """Tell whether a series has slices of a volume."""
    return any(is_stacked(one.instance) for one in group)


def _gathered(
    members: list[SeriesFile], settled: Iterable[FileRow], damaged: list[FileRow]
) -> list[SeriesFile]:
    """Return the files of one instance in one series, even where they name several: so they are compared, and stand in.

    It is the series that had the instance before, else that of most files: a copy makes no hole in a whole series.

    Args:
        members: New files.
        settled: Those that stay as they are.
        damaged: New files that are set aside, with what their headers still say.
    """
    rows = [*damaged, *(one.row for one in members)]
    files = Counter(row.series_key for row in (*settled, *rows) if row.series_key)
    believed = (ACCEPTED, Reason.CONTRADICTING_COPIES)
    place = {row.sop_key: row for row in settled if row.status in believed}
    for row in sorted(rows, key=lambda row: (-files[row.series_key], row.series_key)):
        if row.series_key:
            place.setdefault(row.sop_key, row)

    def moved(one: SeriesFile) -> SeriesFile:
        there = place[one.row.sop_key]
        if there.series_key == one.row.series_key:
            return one
        return replace(one, row=replace(one.row, series_key=there.series_key, study_key=there.study_key))

    return [moved(one) for one in members]


def _batches(groups: Iterable[list[SeriesFile]]) -> Iterator[list[list[SeriesFile]]]:
    """Whole series, some tens of files together."""
    batch: list[list[SeriesFile]] = []
    files = 0
    for group in groups:
        batch.append(group)
        files += len(group)
        if files >= _BATCH:
            yield batch
            batch, files = [], 0
    if batch:
        yield batch
