"""Bring the catalogue and the cache in line with an archive: a folder, and the inbox of what a PACS gave.

A file whose size, time and inode are as they were is not opened again. A series with a new, changed or missing slice
is assembled anew. Each batch is committed whole, so an interrupted run goes on where it was.

A pass looks at the inbox, and at the folder if it is given one; what it does not look at stays as it is. So a series
whose slices lie in both is assembled only by a pass over both, and is set aside until then.
"""

import logging
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pydicom.config

from hilum.client.cache import ArrayCache
from hilum.client.catalogue import ACCEPTED, Catalogue, Counts, FileRow, Item, Units
from hilum.client.intake.assemble import compact, plan_stack
from hilum.client.intake.header import Header, read_header
from hilum.client.intake.pixels import Stored, display_values, padding_mask, read_stored, rescaled
from hilum.client.intake.reasons import Reason, Skip
from hilum.client.intake.scan import FoundFile, scan
from hilum.client.workspace import Pseudonyms, Workspace
from hilum.common.errors import DataError
from hilum.common.progress import Progress

_BATCH = 32


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


@dataclass(frozen=True)
class _Slice:
    """One file whose header was read, and other files that hold the same instance.

    A copy stands by: if this file's pixels are damaged, the copy's are taken.
    """

    file: FoundFile
    row: FileRow
    header: Header = field(repr=False)
    copies: "list[_Slice]" = field(default_factory=list)


@dataclass(frozen=True)
class _Decoded:
    """The pixels of an instance, from the first of its copies that decodes; `rows` are all its copies, settled."""

    used: _Slice
    stored: Stored = field(repr=False)
    rows: list[FileRow]


def index_archive(
    archive: Path | None,
    workspace: Workspace,
    progress: Progress,
    *,
    held_back: Callable[[FoundFile], bool] = lambda _file: False,
) -> IndexReport:
    """Index the site's archive: the inbox, and a folder where one is given.

    Args:
        archive: The folder to read; nothing is written there. None looks at the inbox alone, and what is known of the
            folder stays.
        workspace: Where the catalogue, the cache and the inbox lie.
        progress: Told once a file.
        held_back: Says of a file of the folder that it is to count as not there yet.

    Raises:
        DataError: If the archive is no readable folder, or holds no file at all.
        RunError: If another process is working on the site.
    """
    found = _find(archive, workspace, held_back)
    names = workspace.pseudonyms()
    with workspace.locked(), _silent_pydicom():
        catalogue = Catalogue(workspace.catalogue)
        try:
            return _Indexer(catalogue, ArrayCache(workspace.cache), names, progress).run(found)
        finally:
            catalogue.close()


_INBOX = "inbox:"  # starts the keys of its files; a file of the folder has a bare pseudonym


@dataclass(frozen=True)
class _Found:
    """The files of one pass, by source: where each is looked for, what its keys start with, and what is there."""

    sources: tuple[tuple[Path, str, tuple[FoundFile, ...]], ...]

    def keyed(self, names: Pseudonyms) -> dict[str, FoundFile]:
        return {
            prefix + names.of("file", str(file.path.relative_to(folder))): file
            for folder, prefix, files in self.sources
            for file in files
        }

    def covers(self, file_key: str) -> bool:
        """Whether this pass looked where the file would be."""
        prefix = _INBOX if file_key.startswith(_INBOX) else ""
        return any(prefix == looked_at for _folder, looked_at, _files in self.sources)


def _find(archive: Path | None, workspace: Workspace, held_back: Callable[[FoundFile], bool]) -> _Found:
    sources = []
    if archive is not None:
        there = list(scan(archive))
        if not there:
            raise DataError("the archive folder is empty; check the path (is the share mounted?)")
        sources.append((archive, "", tuple(file for file in there if not held_back(file))))
    if workspace.inbox.exists():
        sources.append((workspace.inbox, _INBOX, tuple(scan(workspace.inbox))))
    return _Found(tuple(sources))


def count_files(archive: Path | None, workspace: Workspace) -> int:
    """How many files a pass will find.

    Raises:
        DataError: As `index_archive`.
    """
    return sum(
        len(files) for _folder, _prefix, files in _find(archive, workspace, lambda _file: False).sources
    )


@contextmanager
def _silent_pydicom() -> Iterator[None]:
    """Keep pydicom from warning and logging: its messages quote values, and every file's fate is counted anyway."""
    log = logging.getLogger("pydicom")
    before = log.level
    log.setLevel(logging.CRITICAL + 1)
    try:
        with pydicom.config.disable_value_validation():
            yield
    finally:
        log.setLevel(before)


class _Indexer:
    """One pass over an archive."""

    def __init__(
        self, catalogue: Catalogue, cache: ArrayCache, names: Pseudonyms, progress: Progress
    ) -> None:
        self.catalogue, self.cache = catalogue, cache
        self.names, self.progress = names, progress
        self.unseen: list[FileRow] = []  # what an earlier pass found where this one does not look
        self.elsewhere: set[str] = set()  # the series that go on there
        self.decoded = 0
        self.done = 0

    def run(self, found: _Found) -> IndexReport:
        by_key = found.keyed(self.names)
        rows = self.catalogue.files()
        known = {key: row for key, row in rows.items() if found.covers(key)}
        self.unseen = [row for key, row in rows.items() if key not in known]
        self.elsewhere = {row.series_key for row in self.unseen if row.status != Reason.DUPLICATE} - {""}
        gone = [key for key in known if key not in by_key]
        changed = {key for key, file in by_key.items() if not self._unchanged(known.get(key), file)}
        if gone or changed:
            # The copy that was kept may be gone: look at the other one again.
            changed |= {key for key, row in known.items() if row.status == Reason.DUPLICATE and key in by_key}
        # The slices that a split series lacked may be in view now.
        changed |= {key for key, row in known.items() if row.status == Reason.SPLIT_SERIES and key in by_key}
        stale = [known[key] for key in (*gone, *changed) if key in known]
        touched = {row.series_key for row in stale if self._made_volume(row)} - {""}
        self.catalogue.record(
            [replace(row, status=Reason.SPLIT_SERIES) for row in self.unseen if row.series_key in touched],
            forget_files=[*gone, *(changed & known.keys())],
            forget_series=touched,
        )
        settled = {key: row for key, row in known.items() if key in by_key and key not in changed}
        self.done = len(settled)
        slices = self._read_headers({key: by_key[key] for key in sorted(changed)}, settled)
        self._take_radiographs([s for s in slices if s.header.family == "radiograph"])
        self._take_series([s for s in slices if s.header.family != "radiograph"], touched, settled, by_key)
        self.cache.keep_only({item.content_sha256 for item in self.catalogue.items()})
        return IndexReport(self.catalogue.counts(), self.decoded, len(gone))

    @staticmethod
    def _unchanged(row: FileRow | None, file: FoundFile) -> bool:
        return row is not None and file.readable and row.identity == file.identity

    def _tick(self, files: int = 1) -> None:
        self.done += files
        self.progress.advance(self.done)

    def _keyed(self, file_key: str, identity: str, status: str, uids: tuple[str, str, str]) -> FileRow:
        kinds = zip(("sop", "series", "study"), uids, strict=True)
        sop_key, series_key, study_key = (self.names.of(kind, uid) if uid else "" for kind, uid in kinds)
        return FileRow(file_key, identity, status, sop_key, series_key, study_key)

    def _read_headers(self, files: dict[str, FoundFile], settled: dict[str, FileRow]) -> list[_Slice]:
        """Headers of new files; those set aside are recorded at once."""
        kept = {row.sop_key for row in (*settled.values(), *self.unseen) if row.status == ACCEPTED}
        first: dict[str, _Slice] = {}
        skipped: list[FileRow] = []
        for key, file in files.items():
            try:
                one = self._candidate(key, file, kept)
                holder = first.setdefault(one.row.sop_key, one)
                if holder is not one:
                    holder.copies.append(one)
            except Skip as skip:
                skipped.append(self._keyed(key, file.identity, skip.reason, skip.uids))
                self._tick()
            if len(skipped) >= _BATCH:
                self.catalogue.record(skipped)
                skipped = []
        self.catalogue.record(skipped)
        return list(first.values())

    def _candidate(self, key: str, file: FoundFile, kept: set[str]) -> _Slice:
        """Read one header; an instance that an unchanged file already gave is a duplicate."""
        header = self._header(file)
        uids = (header.sop_uid, header.series_uid, header.study_uid)
        one = _Slice(file, self._keyed(key, file.identity, ACCEPTED, uids), header)
        if one.row.sop_key in kept:
            raise Skip(Reason.DUPLICATE, uids)
        return one

    def _decode(self, one: _Slice) -> _Decoded:
        """Read the pixels of an instance.

        Raises:
            _Undecodable: If no copy decodes.
        """
        rows: list[FileRow] = []
        copies = [one, *one.copies]
        for index, copy in enumerate(copies):
            self.decoded += 1
            try:
                stored = read_stored(copy.file.path, copy.header)
            except Skip as skip:
                rows.append(replace(copy.row, status=skip.reason))
                continue
            rest = [replace(other.row, status=Reason.DUPLICATE) for other in copies[index + 1 :]]
            return _Decoded(copy, stored, [*rows, copy.row, *rest])
        raise _Undecodable(rows)

    @staticmethod
    def _header(file: FoundFile) -> Header:
        if not file.readable:
            raise Skip(Reason.UNREADABLE)
        header = read_header(file.path)
        if header.localizer:
            raise Skip(Reason.LOCALIZER, (header.sop_uid, header.series_uid, header.study_uid))
        return header

    def _take_radiographs(self, slices: list[_Slice]) -> None:
        """Each radiograph is an item of its own."""
        for start in range(0, len(slices), _BATCH):
            rows: list[FileRow] = []
            items: list[Item] = []
            for one in slices[start : start + _BATCH]:
                found, item = self._image(one)
                rows += found
                items += item
                self._tick(len(found))
            self.catalogue.record(rows, items)

    def _image(self, one: _Slice) -> tuple[list[FileRow], list[Item]]:
        try:
            decoded = self._decode(one)
            shown = display_values(decoded.stored, decoded.used.header)
        except _Undecodable as failed:
            return failed.rows, []
        except Skip as skip:
            return [replace(copy.row, status=skip.reason) for copy in (one, *one.copies)], []
        used = decoded.used
        item = Item(
            item_key=used.row.sop_key,
            kind="image",
            family=used.header.family,
            units="display",
            content_sha256=self.cache.put(shown),
            shape=shown.shape,
            spacing_mm=used.header.spacing_mm or (),
            affine=(),
            sop_key=used.row.sop_key,
            series_key=used.row.series_key,
            study_key=used.row.study_key,
            patient_key=self.names.of("patient", used.header.patient_id),
        )
        return decoded.rows, [item]

    def _take_series(
        self,
        slices: list[_Slice],
        touched: set[str],
        settled: dict[str, FileRow],
        by_key: dict[str, FoundFile],
    ) -> None:
        """Every series with a new, changed or missing slice becomes a volume, or is set aside whole."""
        affected = touched | {one.row.series_key for one in slices}
        groups: dict[str, list[_Slice]] = {key: [] for key in sorted(affected)}
        for one in slices:
            groups[one.row.series_key].append(one)
        for one in self._settled_slices(affected, settled, by_key):
            groups[one.row.series_key].append(one)
        for series_key, members in groups.items():
            if series_key in self.elsewhere:
                stay = () if series_key in touched else settled
                self._set_aside([one for one in members if one.row.file_key not in stay], settled)
            elif members:
                rows, items = self._volume(members)
                self.catalogue.record(rows, items, forget_series=[series_key])
                self._tick(sum(row.file_key not in settled for row in rows))

    def _made_volume(self, row: FileRow) -> bool:
        """Whether the series' volume can't stay without this file: a slice that was set aside is not in it."""
        return row.status == ACCEPTED or row.series_key not in self.elsewhere

    def _set_aside(self, members: list[_Slice], settled: dict[str, FileRow]) -> None:
        """Slices whose series goes on in the source that this pass does not look at: a part of it is no volume."""
        copies = [copy for one in members for copy in (one, *one.copies)]
        self.catalogue.record([replace(copy.row, status=Reason.SPLIT_SERIES) for copy in copies])
        self._tick(sum(copy.row.file_key not in settled for copy in copies))

    def _settled_slices(
        self, affected: set[str], settled: dict[str, FileRow], by_key: dict[str, FoundFile]
    ) -> Iterator[_Slice]:
        """The unchanged slices of affected series, whose headers are needed again."""
        for key, row in settled.items():
            if row.series_key in affected and row.status != Reason.DUPLICATE:
                try:
                    header = self._header(by_key[key])
                except Skip:
                    continue  # it was set aside before for the same reason, and stays so
                if header.family != "radiograph":
                    yield _Slice(by_key[key], replace(row, status=ACCEPTED), header)

    def _volume(self, members: list[_Slice]) -> tuple[list[FileRow], list[Item]]:
        try:
            stack = plan_stack([one.header for one in members])
            rows, volume = self._stacked([members[index] for index in stack.order])
        except Skip as skip:
            copies = [copy for one in members for copy in (one, *one.copies)]
            return [replace(copy.row, status=skip.reason) for copy in copies], []
        first = members[stack.order[0]]
        units: Units = "hounsfield" if first.header.family == "ct" else "arbitrary"
        item = Item(
            item_key=first.row.series_key,
            kind="volume",
            family=first.header.family,
            units=units,
            content_sha256=self.cache.put(compact(volume)),
            shape=volume.shape,
            spacing_mm=stack.spacing_mm,
            affine=tuple(float(value) for value in stack.affine.ravel()),
            sop_key="",
            series_key=first.row.series_key,
            study_key=first.row.study_key,
            patient_key=self.names.of("patient", first.header.patient_id),
        )
        return rows, [item]

    def _stacked(self, ordered: Iterable[_Slice]) -> tuple[list[FileRow], npt.NDArray[np.float32]]:
        """Decode slices in order; voxels without data take the lowest value of those with data.

        Raises:
            Skip: If a slice has no copy that decodes: a volume with a hole in it is no volume.
        """
        rows: list[FileRow] = []
        planes, masks = [], []
        for one in ordered:
            try:
                decoded = self._decode(one)
            except _Undecodable as failed:
                raise Skip(Reason(failed.rows[0].status)) from None
            rows += decoded.rows
            header = decoded.used.header
            padded = padding_mask(decoded.stored, header)
            planes.append(rescaled(decoded.stored, header))
            masks.append(np.zeros(decoded.stored.shape, bool) if padded is None else padded)
        volume, empty = np.stack(planes), np.stack(masks)
        if empty.all():
            raise Skip(Reason.CONSTANT_PIXELS)
        volume[empty] = volume[~empty].min()
        if volume.min() == volume.max():
            raise Skip(Reason.CONSTANT_PIXELS)
        return rows, volume


class _Undecodable(Exception):  # noqa: N818 - caught where it is raised
    """No copy of an instance decodes; `rows` say why for each."""

    def __init__(self, rows: list[FileRow]) -> None:
        super().__init__()
        self.rows = rows
