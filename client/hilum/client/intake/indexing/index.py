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

from hilum.client.intake.formats.not_dicom import is_dicom, is_folder_file
from hilum.client.intake.indexing.pictures import Picture, linked_row, preference, take_pictures
from hilum.client.intake.indexing.read_headers import read_headers
from hilum.client.intake.indexing.series import SeriesFile, SeriesProcessor, Stores, process_series
from hilum.client.intake.instance import Family, Instance
from hilum.client.intake.planner import is_stacked
from hilum.client.intake.quarantine.store import Quarantine
from hilum.client.intake.reasons import Reason, Skip
from hilum.client.intake.sandbox.pool import DecodePool
from hilum.client.intake.sources.scan import FoundFile
from hilum.client.intake.sources.sources import Found, find, is_removed
from hilum.client.state.cache import ArrayCache
from hilum.client.state.catalogue import ACCEPTED, Catalogue, Counts, FileRow, Item
from hilum.client.state.index_runs import begin_run, end_run
from hilum.client.state.workspace import Workspace
from hilum.common.cores import usable_cores
from hilum.common.progress import Progress

_BATCH = 32  # files
_NOT_YET_A_PICTURE = frozenset(
    {Reason.NEEDS_FAMILY, Reason.NOT_DICOM}
)  # where no earlier pass was told what it is
_Uids = tuple[str, str, str]


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
            keepers = Stores(ArrayCache(workspace.cache), Quarantine(workspace, catalogue), names)
            number, began_s = begin_run(catalogue, found.archive), time.monotonic()
            with DecodePool(usable_cores(), scratch=workspace.folder) as pool:
                report = _Indexer(
                    catalogue, keepers, pool, progress, images, forget_images=forget_images
                ).run(found)
            seconds = round(time.monotonic() - began_s, 1)
            end_run(catalogue, number, seconds=seconds, decoded=report.decoded, removed=report.removed)
            return report
        finally:
            catalogue.close()


class _Indexer:
    """One pass over an archive."""

    def __init__(
        self,
        catalogue: Catalogue,
        keepers: Stores,
        pool: DecodePool,
        progress: Progress,
        images: Family | None,
        *,
        forget_images: bool,
    ) -> None:
        self.catalogue, self.keepers, self.images = catalogue, keepers, images
        self.forget_images = forget_images
        self.pool, self.progress = pool, progress
        self.unseen: list[FileRow] = []  # what an earlier pass found where this one does not look
        self.elsewhere: set[str] = set()  # the series that go on there
        self.removed: set[str] = set()  # those of them that were removed from the inbox, and stay as they are
        self.decoded = 0
        self.done = 0

    def run(self, found: Found) -> IndexReport:
        by_key = found.keyed(self.keepers.names)
        rows = self.catalogue.files()
        known = {key: row for key, row in rows.items() if found.covers(key)}
        self.unseen = [row for key, row in rows.items() if key not in known]
        apart = [row for row in self.unseen if row.status != Reason.DUPLICATE and row.series_key]
        self.elsewhere = {row.series_key for row in apart}
        self.removed = {row.series_key for row in apart if is_removed(row.file_key)}
        gone = [key for key in known if key not in by_key]
        changed = {key for key, file in by_key.items() if not self._unchanged(known.get(key), file)}
        # The slices that a split series lacked may be in view now.
        changed |= {key for key, row in known.items() if row.status == Reason.SPLIT_SERIES and key in by_key}
        stale = [known[key] for key in (*gone, *changed) if key in known]
        orphans = self._orphans(stale, known, by_key)
        stale += [known[key] for key in orphans - changed]
        changed |= orphans
        touched = {row.series_key for row in stale if self._made_volume(row)} - {"", *self.removed}
        self.catalogue.record(
            [
                replace(row, status=Reason.SPLIT_SERIES)
                for row in self.unseen
                if row.series_key in touched and not is_removed(row.file_key)
            ],
            forget_files=[*gone, *(changed & known.keys())],
            forget_series=touched,
        )
        settled = {key: row for key, row in known.items() if key in by_key and key not in changed}
        self.done = len(settled)
        named = [key for key in sorted(changed) if self._is_picture(by_key[key])]
        pictures = [key for key in named if not is_dicom(by_key[key].path)]
        headed = sorted(changed.difference(pictures))
        members = self._read_headers({key: by_key[key] for key in headed}, settled)
        self._take(members, touched, settled, by_key)
        self._take_pictures([self._picture(by_key[key], found) for key in pictures], settled.values())
        self._sweep()
        return IndexReport(self.catalogue.counts(), self.decoded, len(gone))

    def _is_picture(self, file: FoundFile) -> bool:
        return self.images is not None and file.set_aside is None and is_folder_file(file.path)

    def _picture(self, file: FoundFile, found: Found) -> Picture:
        return Picture(replace(file, identity=self._picture_identity(file)), found.relative_name(file))

    def _take_pictures(self, pictures: list[Picture], settled: Iterable[FileRow]) -> None:
        """Read each file once, however many links name it."""
        read = {row.identity: row for row in settled if row.sop_key}
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
            assert self.images is not None
            rows, items = take_pictures(batch, self.images, self.keepers, self.pool)
            self.catalogue.record(rows, items)
            read |= {row.identity: row for row in rows}
            self.decoded += len(batch)
            self._tick(len(batch))
        names = self.keepers.names
        self.catalogue.record([linked_row(one, read[one.file.identity], names) for one in linked])
        self._tick(len(linked))

    def _sweep(self) -> None:
        """Let go of arrays that no item has any more."""
        self.keepers.quarantine.sweep({row.sop_key for row in self.catalogue.files().values()})
        self.keepers.cache.keep_only({item.content_sha256 for item in self.catalogue.items()})

    def _unchanged(self, row: FileRow | None, file: FoundFile) -> bool:
        # Of a file that could not be read, no time of change tells that its permissions are others now.
        if row is None or row.status == Reason.UNREADABLE:
            return False
        if file.set_aside is not None:
            return (row.identity, row.status) == (file.identity, file.set_aside)
        if self.images is None and not self.forget_images:  # a picture stays as an earlier pass was told
            return row.identity == file.identity or row.identity.startswith(f"{file.identity}:")
        if not self._is_picture(file):
            return row.identity == file.identity
        read_as_dicom = row.identity == file.identity and row.status not in _NOT_YET_A_PICTURE
        return read_as_dicom or row.identity == self._picture_identity(file)

    def _picture_identity(self, file: FoundFile) -> str:
        """With what made it: told otherwise, it is another file."""
        return f"{file.identity}:{self.images}"

    @staticmethod
    def _orphans(
        stale: Iterable[FileRow], known: dict[str, FileRow], by_key: dict[str, FoundFile]
    ) -> set[str]:
        """Other files of instances of which one is gone or changed: each may stand in now, in the series that it names."""
        sops = {row.sop_key for row in stale} - {""}
        return {key for key, row in known.items() if row.sop_key in sops and key in by_key}

    def _tick(self, files: int = 1) -> None:
        self.done += files
        self.progress.advance(self.done)

    def _keyed(self, file_key: str, identity: str, status: str, uids: _Uids) -> FileRow:
        kinds = zip(("sop", "series", "study"), uids, strict=True)
        of = self.keepers.names.of
        sop_key, series_key, study_key = (of(kind, uid) if uid else "" for kind, uid in kinds)
        return FileRow(file_key, identity, status, sop_key, series_key, study_key)

    def _read_headers(self, files: dict[str, FoundFile], settled: dict[str, FileRow]) -> list[SeriesFile]:
        """Headers of new files; those set aside are recorded at once."""
        damaged: list[FileRow] = []
        elsewhere = {row.sop_key for row in self.unseen if row.status == ACCEPTED}
        members: list[SeriesFile] = []
        skipped: list[FileRow] = []
        for read in read_headers(files.items(), self.pool):
            if isinstance(read.header, Skip):
                skip = read.header
                skipped.append(self._keyed(read.key, read.file.identity, skip.reason, skip.uids))
                damaged.append(skipped[-1])
            else:
                row = self._keyed(read.key, read.file.identity, ACCEPTED, _uids(read.header))
                if row.sop_key not in elsewhere:
                    members.append(SeriesFile(read.file, row, read.header))
                    continue
                skipped.append(replace(row, status=Reason.DUPLICATE))
            self._tick()
            if len(skipped) >= _BATCH:
                self.catalogue.record(skipped)
                skipped = []
        self.catalogue.record(skipped)
        return _gathered(members, settled.values(), damaged)

    def _take(
        self,
        members: list[SeriesFile],
        touched: set[str],
        settled: dict[str, FileRow],
        by_key: dict[str, FoundFile],
    ) -> None:
        """Plan every series with a new, changed or missing file, decode what it needs, and settle its files."""
        affected = touched | {one.row.series_key for one in members}
        groups: dict[str, list[SeriesFile]] = {key: [] for key in sorted(affected)}
        for one in (*members, *self._settled_members(affected, settled, by_key)):
            groups[one.row.series_key].append(one)
        whole: list[list[SeriesFile]] = []
        for series_key, group in groups.items():
            group.sort(key=lambda one: (one.item is None, one.row.file_key))  # what was taken stays taken
            if series_key in self.elsewhere and _is_stacked(group):
                stay = () if series_key in touched else settled
                self._set_aside([one for one in group if one.row.file_key not in stay], settled)
            elif group:
                whole.append(group)
        for batch in _batches(whole):
            self._take_batch(batch, settled)

    def _take_batch(self, batch: list[list[SeriesFile]], settled: dict[str, FileRow]) -> None:
        works = [SeriesProcessor(group, self.keepers) for group in batch]
        process_series(works, self.pool)
        rows = [row for work in works for row in work.rows()]
        self.catalogue.record(
            rows,
            [item for work in works for item in work.items()],
            # Other images of a series are no reason to forget a volume whose slices lie where this pass does not look.
            forget_series=[group[0].row.series_key for group in batch if _is_stacked(group)],
        )
        self.decoded += sum(len(work.decoded) for work in works)
        self._tick(sum(row.file_key not in settled for row in rows))

    def _made_volume(self, row: FileRow) -> bool:
        """Tell whether the series' volume can't stay without this file: a slice that was set aside is not in it."""
        return row.status == ACCEPTED or row.series_key not in self.elsewhere

    def _set_aside(self, members: list[SeriesFile], settled: dict[str, FileRow]) -> None:
        """Slices whose series goes on in the source that this pass does not look at: a part of it is not a volume."""
        self.catalogue.record([replace(one.row, status=Reason.SPLIT_SERIES) for one in members])
        self._tick(sum(one.row.file_key not in settled for one in members))

    def _settled_members(
        self, affected: set[str], settled: dict[str, FileRow], by_key: dict[str, FoundFile]
    ) -> Iterator[SeriesFile]:
        """Return the unchanged files of affected series, whose headers are needed again."""
        items: dict[str, Item] = {item.sop_key: item for item in self.catalogue.items() if item.sop_key}
        again = {key: by_key[key] for key, row in settled.items() if row.series_key in affected}
        for read in read_headers(again.items(), self.pool):
            if isinstance(read.header, Skip):
                continue  # it was set aside before for the same reason, and stays so
            row = settled[read.key]
            item = items.get(row.sop_key) if row.status == ACCEPTED else None
            was_copy = row.status == Reason.DUPLICATE
            yield SeriesFile(read.file, replace(row, status=ACCEPTED), read.header, item, was_copy)


def _uids(instance: Instance) -> _Uids:
    return instance.sop_uid, instance.series_uid, instance.study_uid


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
