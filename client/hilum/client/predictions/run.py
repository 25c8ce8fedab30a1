"""From a folder of images to a folder of predictions.

The images are indexed as the site indexes them, in a state of its own that goes with the call; the site's catalogue stays as it is.
All is written beside the output folder and takes its name at the end, so that nothing half-written ever has it.
"""

import os
import secrets
import shutil
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import asdict, dataclass, field
from datetime import datetime
from pathlib import Path, PurePosixPath
from typing import Any

from hilum.client.data.prepared import PreparedImages, prepare
from hilum.client.intake.indexing.index import index_found
from hilum.client.intake.instance import read_family
from hilum.client.intake.reasons import Reason, Skip
from hilum.client.intake.sandbox.pool import DecodePool
from hilum.client.intake.sources.sources import Found, find
from hilum.client.predictions.dicom.making import Making
from hilum.client.predictions.model import Predictor
from hilum.client.predictions.results import Boxes, LabelMap, Result
from hilum.client.predictions.sources import DicomSource, Source, SourceFinder
from hilum.client.predictions.table import MEANINGS, Line, Outcome, values_of, write_boxes, write_table
from hilum.client.state.cache import ArrayCache
from hilum.client.state.catalogue import ACCEPTED, Catalogue, FileRow, Item
from hilum.client.state.workspace import Workspace
from hilum.common import __version__
from hilum.common.cores import usable_cores
from hilum.common.errors import ConfigError, DataError, RunError
from hilum.common.files import private_folder, sync_folder, write_json
from hilum.common.output_folder import check_output_folder
from hilum.common.progress import Progress

ProgressOf = Callable[[str, int], AbstractContextManager[Progress]]
TABLE, SUMMARY, BOXES = "predictions.csv", "summary.json", "boxes.csv"
_OBJECTS = ("seg", "sr")


@dataclass(frozen=True)
class Report:
    """What one call did.

    Attributes:
        counts: Lines of the table, by outcome.
        reasons: Of all that was not predicted, by outcome and reason.
        lines: Of the table; they hold identifiers.
        objects: The DICOM objects that were written, in the output folder.
    """

    counts: dict[Outcome, int]
    reasons: dict[str, dict[str, int]]
    lines: tuple[Line, ...] = field(repr=False)
    objects: tuple[Path, ...] = field(repr=False)


def predict_folder(
    model: Predictor,
    archive: Path,
    out: Path,
    show: ProgressOf,
    *,
    overlay: bool,
    at: datetime,
) -> Report:
    """Predict every image of a folder that the model reads, and write the files.

    Args:
        model: What predicts.
        archive: The folder; it is only read.
        out: Where to write; new or empty.
        show: Gives a progress bar for a title and a total.
        overlay: Write pictures with masks and boxes over the images, too.
        at: The time that the objects are dated with.

    Raises:
        ConfigError: If there is nothing to lay over an image.
        DataError: If there is no image that the model reads.
        RunError: If the output folder can't be used.
    """
    if overlay and not model.lays:
        raise ConfigError(
            "predict",
            ["--overlay goes with a model of masks or boxes; this one says something of whole images"],
        )
    check_output_folder(out)
    if out.resolve().is_relative_to(archive.resolve()):
        raise RunError("the output folder lies in the folder that is read; name one elsewhere")
    with _beside(out) as aside:
        workspace = Workspace(aside / "state")
        found = find(archive, workspace)
        with show("indexing", found.count) as progress:
            index_found(found, workspace, progress, images=read_family(model.study.data.facts.family))
        run = _Run(model, workspace, found, aside, Making(model.identity, at), overlay=overlay)
        lines = run.all_lines(show)
        shutil.rmtree(workspace.folder)
        write_table(aside / TABLE, lines)
        report = _report(lines, out)
        write_json(aside / SUMMARY, _summary(report, model, at))
    return report


@contextmanager
def _beside(out: Path) -> Iterator[Path]:
    """Give a folder that becomes `out` when the block ends well, and vanishes when it does not."""
    aside = out.with_name(f".{out.name}.{os.getpid()}.{secrets.token_hex(4)}.partial")
    try:
        private_folder(aside)
    except OSError as error:
        raise RunError(f"the output folder can't be written ({error.strerror}); name another") from None
    try:
        yield aside
        aside.replace(out)
        sync_folder(out.parent)
    finally:
        shutil.rmtree(aside, ignore_errors=True)


class _Run:
    """One call, once its images are indexed.

    Attributes:
        boxes: What was found on each image, by its name.
    """

    def __init__(
        self,
        model: Predictor,
        workspace: Workspace,
        found: Found,
        aside: Path,
        making: Making,
        *,
        overlay: bool,
    ) -> None:
        self.model, self.workspace, self.found = model, workspace, found
        self.aside, self.making, self.overlay = aside, making, overlay
        self.boxes: list[tuple[str, Boxes]] = []
        self._cache = ArrayCache(workspace.cache)
        self._taken: set[str] = set()

    def all_lines(self, show: ProgressOf) -> list[Line]:
        """Predict and write, and return the whole table.

        Raises:
            DataError: If there is nothing to predict.
        """
        catalogue = Catalogue(self.workspace.catalogue)
        try:
            items, rows = catalogue.items(), catalogue.files()
        finally:
            catalogue.close()
        set_aside = list(_set_aside(self.found, rows, self.workspace))
        try:
            prepared = prepare(self.workspace, self.model.study.data)
        except DataError as error:
            raise DataError(f"there is nothing to predict: {error}; {_told(set_aside)}") from None
        with DecodePool(usable_cores(), scratch=self.workspace.folder) as pool:
            finder = SourceFinder(self.workspace, self.found, pool)
            with show("predicting", len(prepared.items)) as progress:
                lines = list(self._predicted(prepared, finder, progress))
            asked = {item.item_key for item in prepared.items}
            lines += [self._not_asked(item, finder) for item in items if item.item_key not in asked]
        if self.boxes:
            write_boxes(self.aside / BOXES, sorted(self.boxes, key=lambda one: one[0]))
        return sorted([*lines, *set_aside], key=lambda line: (line.source, line.instance_uid))

    def _predicted(
        self, prepared: PreparedImages, finder: SourceFinder, progress: Progress
    ) -> Iterator[Line]:
        results = self.model.results(prepared, self._cache)
        for number, (item, result) in enumerate(zip(prepared.items, results, strict=True), 1):
            try:
                source = finder.source(item)
                files = self._write(source, result)
            except Skip as skip:
                yield Line("", "not_written", _worded(skip.reason), values=values_of(result))
            else:
                yield Line(source.name, "predicted", "", *_uids(source), values_of(result), files)
            progress.advance(number)

    def _not_asked(self, item: Item, finder: SourceFinder) -> Line:
        what = f"{item.family} {item.kind}"
        try:
            source = finder.source(item)
        except Skip as skip:
            return Line("", "not_asked", f"{what}; {_worded(skip.reason)}")
        return Line(source.name, "not_asked", what, *_uids(source))

    def _write(self, source: Source, result: Result) -> tuple[str, ...]:
        """Write what belongs to one item.

        Raises:
            Skip: If it can't be written for this image.
        """
        files = list(self._objects(source, result))
        if isinstance(result, Boxes):
            self.boxes.append((source.name, result))
        if self.overlay and isinstance(result, LabelMap | Boxes):
            from hilum.client.predictions.overlay import write_overlay

            path = self._new("overlay", self._called(source), ".png")
            write_overlay(path, self._cache.get(source.item.content_sha256), source.item, result)
            files.append(self._relative(path))
        return tuple(files)

    def _objects(self, source: Source, result: Result) -> Iterator[str]:
        if isinstance(source, DicomSource):
            if isinstance(result, Boxes) and not result.found:
                return
            made = _made(source, result, self.making)
            path = self._new(
                "seg" if isinstance(result, LabelMap) else "sr", str(made.SOPInstanceUID), ".dcm"
            )
            path.parent.mkdir(parents=True, exist_ok=True)
            made.save_as(path)
            yield self._relative(path)
        elif isinstance(result, LabelMap):
            from hilum.client.predictions.files import write_beside

            suffix = ".nii.gz" if source.kind == "nifti" else ".png"
            path = self._new("masks", self._called(source), suffix)
            path.parent.mkdir(parents=True, exist_ok=True)
            write_beside(path, source, result)
            yield self._relative(path)

    def _called(self, source: Source) -> str:
        """Return what the files of an item are called: by its UID, or as its own file."""
        if isinstance(source, DicomSource):
            return source.instance_uid or source.series_uid
        name = source.name
        for suffix in (".nii.gz", PurePosixPath(name).suffix):
            if suffix and name.lower().endswith(suffix.lower()):
                name = name[: -len(suffix)]
                break
        return name if source.time is None else f"{name}_{source.time}"

    def _new(self, folder: str, name: str, suffix: str) -> Path:
        """Return a path that no other item of this call has."""
        chosen, number = name, 1
        while f"{folder}/{chosen}" in self._taken:
            number += 1
            chosen = f"{name}-{number}"
        self._taken.add(f"{folder}/{chosen}")
        return self.aside / folder / f"{chosen}{suffix}"

    def _relative(self, path: Path) -> str:
        return path.relative_to(self.aside).as_posix()


def _made(source: DicomSource, result: Result, making: Making) -> Any:
    """Make the object of one item.

    Raises:
        Skip: If its header does not allow one.
    """
    from hilum.client.predictions.dicom.report import report_of
    from hilum.client.predictions.dicom.segmentation import segmentation_of

    try:
        if isinstance(result, LabelMap):
            return segmentation_of(source, result, making)
        return report_of(source, result, making)
    except (AttributeError, KeyError, TypeError, ValueError):
        # highdicom raises what its checks happen to raise on attributes that break the standard.
        raise Skip(Reason.DAMAGED_HEADER) from None


def _uids(source: Source) -> tuple[str, str]:
    return (source.series_uid, source.instance_uid) if isinstance(source, DicomSource) else ("", "")


def _set_aside(found: Found, rows: dict[str, FileRow], workspace: Workspace) -> Iterator[Line]:
    """Return a line for each file that the index did not take in."""
    for key, file in found.keyed(workspace.pseudonyms()).items():
        status = rows[key].status
        if status != ACCEPTED:
            held = status == Reason.BURNED_IN_TEXT
            yield Line(
                found.relative_name(file), "quarantined" if held else "refused", _worded(Reason(status))
            )


def _worded(reason: Reason) -> str:
    return f"{reason.value}: {reason.meaning}"


def _report(lines: Sequence[Line], out: Path) -> Report:
    counts = Counter(line.outcome for line in lines)
    reasons: dict[str, Counter[str]] = {}
    for line in lines:
        if line.outcome != "predicted":
            reasons.setdefault(line.outcome, Counter())[line.reason] += 1
    return Report(
        {outcome: counts[outcome] for outcome in MEANINGS if counts[outcome]},
        {outcome: dict(sorted(of_one.items())) for outcome, of_one in reasons.items()},
        tuple(lines),
        tuple(out / name for line in lines for name in line.files if name.split("/")[0] in _OBJECTS),
    )


def _told(lines: Sequence[Line]) -> str:
    counts = Counter(line.reason.partition(":")[0] for line in lines)
    if not counts:
        return "no file was set aside"
    return "set aside: " + ", ".join(f"{count} as {reason}" for reason, count in counts.most_common())


def _summary(report: Report, model: Predictor, at: datetime) -> dict[str, Any]:
    return {
        "hilum": __version__,
        "made": at.isoformat(timespec="seconds"),
        "model": asdict(model.identity),
        "counts": report.counts,
        "reasons": report.reasons,
    }
