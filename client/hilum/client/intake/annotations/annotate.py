"""Tie a folder of annotations to the catalogue. Each is checked against its image, or counted under why it was not taken.

Objects and label volumes are read in a process with bounded memory and time; what they mark is judged here.
"""

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from hilum.client.intake.annotations.boxes import box_columns, read_coco_boxes, read_csv_boxes, read_rows
from hilum.client.intake.annotations.marks import Box, Mark, Mask
from hilum.client.intake.annotations.nifti_mask import mark_labels
from hilum.client.intake.annotations.rtstruct import mark_structures
from hilum.client.intake.annotations.seg import mark_segments
from hilum.client.intake.annotations.targets import Targets
from hilum.client.intake.formats.contents import LabelsRead, SegRead, StructuresRead
from hilum.client.intake.formats.naming import LabelMap
from hilum.client.intake.formats.nifti import is_nifti
from hilum.client.intake.reasons import Reason, Skip
from hilum.client.intake.sandbox.jobs import ReadLabels, ReadObject, Refused, Result
from hilum.client.intake.sandbox.pool import DecodePool
from hilum.client.intake.sources.scan import FoundFile, scan
from hilum.client.state.cache import ArrayCache
from hilum.client.state.catalogue import Annotation, Catalogue, Item, Source, state_of
from hilum.client.state.file_names import spellings
from hilum.client.state.workspace import Pseudonyms, Workspace
from hilum.common.errors import DataError
from hilum.common.progress import Progress

_Find = Callable[[], list[Item]]


@dataclass(frozen=True)
class AnnotationReport:
    """What one call found.

    Attributes:
        files: Looked at.
        annotations: Taken: `masks + boxes`.
        images: How many items they lie on.
        skipped: Files, structures and rows that were not taken, by reason.
    """

    files: int
    annotations: int
    masks: int
    boxes: int
    images: int
    skipped: dict[str, int]


def found_files(source: Path) -> list[FoundFile]:
    """Return the files of a folder, or the one file.

    Raises:
        DataError: If there is none that can be read.
    """
    if source.is_file():
        return [FoundFile(source)]
    if not source.exists():
        raise DataError("the folder of annotations does not exist; check the path")
    found = list(scan(source))
    if not found:
        raise DataError("the folder of annotations is empty; check the path")
    return found


def annotate(source: Path, workspace: Workspace, labels: LabelMap, progress: Progress) -> AnnotationReport:
    """Read the annotations in a folder or file; they replace what it gave before.

    Args:
        source: A folder, or one file; it is only read.
        workspace: Of an indexed site.
        labels: The names that the site wants.
        progress: Told once a file.

    Raises:
        DataError: If there is nothing to read, or nothing is indexed.
        RunError: If another process is working on the site.
    """
    found = found_files(source)
    if not workspace.catalogue.exists():
        raise DataError("nothing is indexed yet; run `hilum site index FOLDER` first, then annotate")
    names = workspace.pseudonyms()
    with workspace.locked(), DecodePool(1, scratch=workspace.folder) as pool:
        catalogue = Catalogue(workspace.catalogue)
        try:
            masks = ArrayCache(workspace.masks)
            return _Annotator(source, catalogue, masks, names, labels, pool).run(found, progress)
        finally:
            catalogue.close()


class _Annotator:
    """One pass over a folder of annotations."""

    def __init__(
        self,
        source: Path,
        catalogue: Catalogue,
        masks: ArrayCache,
        names: Pseudonyms,
        labels: LabelMap,
        pool: DecodePool,
    ) -> None:
        self.pool = pool
        self.root = source if source.is_dir() else source.parent
        self.folder_key = names.of("annotations", str(source.resolve()))
        self.catalogue, self.masks, self.names, self.labels = catalogue, masks, names, labels
        self.targets = Targets(catalogue, names)
        self.states = {item.item_key: state_of(item) for item in catalogue.items()}
        self.ties: dict[str, _Find] = {}

    def run(self, found: list[FoundFile], progress: Progress) -> AnnotationReport:
        skipped: Counter[str] = Counter()
        taken: dict[str, Annotation] = {}
        tables = {file.path for file in found if self._learn_ties(file)}
        for done, file in enumerate(found, start=1):
            if file.path not in tables:
                for mark in self._marks(file):
                    if isinstance(mark, Reason):
                        skipped[mark] += 1
                        continue
                    row = self._row(mark)
                    skipped[Reason.DUPLICATE_ANNOTATION] += row.annotation_key in taken
                    taken[row.annotation_key] = row
            progress.advance(done)
        self.catalogue.annotate(self.folder_key, taken.values())
        self.masks.keep_only(self.catalogue.stored_masks())
        masks = sum(row.kind == "mask" for row in taken.values())
        return AnnotationReport(
            files=len(found),
            annotations=len(taken),
            masks=masks,
            boxes=len(taken) - masks,
            images=len({row.item_key for row in taken.values()}),
            skipped={str(reason): count for reason, count in sorted(skipped.items()) if count},
        )

    def _marks(self, file: FoundFile) -> Iterator[Mark]:
        """Return what one file holds; a reason instead of what could not be read, and the rest is read on."""
        if file.set_aside is not None:
            yield file.set_aside
            return
        try:
            yield from self._read(file.path)
        except Skip as skip:
            yield skip.reason

    def _read(self, path: Path) -> Iterator[Mark]:
        if is_nifti(path):
            candidates = self._marked_by(path)
            if not candidates:
                raise Skip(Reason.UNKNOWN_IMAGE)
            labelled = self._ask(ReadLabels(path))
            assert isinstance(labelled, LabelsRead)
            return mark_labels(labelled, candidates, self.labels)
        match path.suffix.lower():
            case ".csv":
                columns = box_columns(_header(path))
                if columns is None:
                    raise Skip(Reason.NOT_AN_ANNOTATION)
                return read_csv_boxes(path, columns, self.targets, self.labels)
            case ".json":
                return read_coco_boxes(path, self.targets, self.labels)
        if not _is_dicom(path):
            raise Skip(Reason.NOT_AN_ANNOTATION)
        found = self._ask(ReadObject(path))
        if isinstance(found, StructuresRead):
            return mark_structures(found, self.targets, self.labels)
        assert isinstance(found, SegRead)
        return mark_segments(found, self.targets, self.labels)

    def _ask(self, job: ReadLabels | ReadObject) -> Result:
        """Have one file read in a process of its own, so that no more than one is in memory.

        Raises:
            Skip: If it can't be taken.
        """
        with closing(self.pool.map([job])) as results:
            result = next(results)
        if isinstance(result, Refused):
            raise Skip(result.reason)
        return result

    def _learn_ties(self, file: FoundFile) -> bool:
        """Tell whether a file is a table that says which image each mask marks; its lines are kept for this pass.

        Such a table has a column `mask` beside `series_instance_uid` or `file` (the image), or the columns `file` (the
        mask) and `series_instance_uid`. File names of masks are relative to the table's folder.
        """
        if file.set_aside is not None or file.path.suffix.lower() != ".csv":
            return False
        try:
            header = set(_header(file.path))
            if box_columns(list(header)) is not None:
                return False
            by_series = "series_instance_uid" in header
            mask = "mask" if "mask" in header else "file"
            if mask not in header or not (by_series or {"mask", "file"} <= header):
                return False
            for row in read_rows(file.path):
                find = (
                    _later(self.targets.of_series, row.get("series_instance_uid") or "")
                    if by_series
                    else _later(self.targets.of_file, row.get("file") or "")
                )
                for name in spellings(row.get(mask) or ""):
                    self.ties[str(file.path.parent / name)] = find
        except Skip:
            return False
        return True

    def _marked_by(self, path: Path) -> list[Item]:
        """Return the items that a mask file may mark: by a table, by the image's relative name, by a UID as its name."""
        if str(path) in self.ties:
            return self.ties[str(path)]()
        relative = str(path.relative_to(self.root))
        uid = path.name[: path.name.lower().index(".nii")]
        return self.targets.of_file(relative) or self.targets.of_series(uid) or self.targets.of_image(uid)

    def _row(self, mark: Mask | Box) -> Annotation:
        source: Source = mark.source
        if isinstance(mark, Mask):
            content, place = self.masks.put(mark.voxels), tuple(float(start) for start in mark.start)
        else:
            content, place = "", (mark.x, mark.y, mark.width, mark.height)
        what = f"{mark.item_key}|{mark.label}|{source}|{content}|{place}"
        return Annotation(
            annotation_key=self.names.of("annotation", what),
            item_key=mark.item_key,
            item_state=self.states[mark.item_key],
            kind="mask" if content else "box",
            label=mark.label,
            content_sha256=content,
            place=place,
            source=source,
            folder_key=self.folder_key,
        )


def _header(path: Path) -> list[str]:
    """Return the column names of a table; none if it is empty or no table."""
    for row in read_rows(path):
        return [name for name in row if isinstance(name, str)]
    return []


def _is_dicom(path: Path) -> bool:
    """Tell whether a file begins as one in DICOM's file format does (PS3.10 section 7.1).

    Raises:
        Skip: If it can't be opened.
    """
    try:
        with path.open("rb") as file:
            return file.read(132)[128:] == b"DICM"
    except OSError:
        raise Skip(Reason.UNREADABLE) from None


def _later(find: Callable[[str], list[Item]], name: str) -> _Find:
    return lambda: find(name)
