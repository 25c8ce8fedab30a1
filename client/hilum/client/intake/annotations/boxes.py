"""Boxes from the site's own tables: CSV, and COCO (cocodataset.org/#format-data).

x runs along a row and y down a column, in pixels of the image as it is catalogued, from the upper left corner.
"""

import codecs
import csv
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hilum.client.intake.annotations.marks import Box, Mark
from hilum.client.intake.annotations.targets import Targets, the_one_that_fits
from hilum.client.intake.formats.naming import LabelMap
from hilum.client.intake.reasons import Reason, Skip
from hilum.client.state.catalogue import Item, Source

MAX_BYTES = 256 << 20
_ROUNDING_PX = 1.0  # tables hold rounded numbers
_SIZE_COLUMNS = (("width", "height"), ("w", "h"))
_LABEL_COLUMNS = ("label", "finding", "category")
_IMAGE_COLUMNS = ("sop_instance_uid", "file")
_STATED_SIZE = ("image_width", "image_height")


@dataclass(frozen=True)
class _Columns:
    """Which columns a table of boxes uses."""

    image: str
    label: str
    width: str
    height: str


@dataclass(frozen=True)
class _Found:
    """One box as its table has it.

    Attributes:
        image_size: Width and height of the image that it was drawn on, where the table says.
    """

    label: str = field(repr=False)
    x: float
    y: float
    width: float
    height: float
    image_size: tuple[float, float] | None


def box_columns(header: Sequence[str]) -> _Columns | None:
    """Return the columns of a table of boxes; None if it is another table."""
    size = next((pair for pair in _SIZE_COLUMNS if set(pair) <= set(header)), None)
    label = next((name for name in _LABEL_COLUMNS if name in header), None)
    image = next((name for name in _IMAGE_COLUMNS if name in header), None)
    if size is None or label is None or image is None or not {"x", "y"} <= set(header):
        return None
    return _Columns(image, label, *size)


def read_csv_boxes(path: Path, columns: _Columns, targets: Targets, labels: LabelMap) -> Iterator[Mark]:
    """Give each row as a box, or why not.

    Raises:
        Skip: If the table breaks off.
    """
    for row in read_rows(path):
        try:
            name = row.get(columns.image) or ""
            candidates = targets.of_file(name) if columns.image == "file" else targets.of_instances([name])
            stated = _STATED_SIZE if all(row.get(column) for column in _STATED_SIZE) else None
            found = _Found(
                label=row.get(columns.label) or "",
                x=_number(row.get("x")),
                y=_number(row.get("y")),
                width=_number(row.get(columns.width)),
                height=_number(row.get(columns.height)),
                image_size=(_number(row[stated[0]]), _number(row[stated[1]])) if stated else None,
            )
            yield _box(found, candidates, "csv", labels)
        except Skip as skip:
            yield skip.reason


def read_rows(path: Path) -> Iterator[dict[str, str | None]]:
    """Return the rows of a CSV table in UTF-8, or UTF-16 with its mark.

    Bytes that are not UTF-8 come as surrogates (PEP 383), for they may be the name of a file.

    Raises:
        Skip: If it is too large, or no such table.
    """
    try:
        if path.stat().st_size > MAX_BYTES:
            raise Skip(Reason.TOO_LARGE)
        with path.open("rb") as file:
            wide = file.read(2) in {codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE}
        encoding, errors = ("utf-16", "strict") if wide else ("utf-8-sig", "surrogateescape")
        with path.open(newline="", encoding=encoding, errors=errors) as table:
            yield from csv.DictReader(table)
    except (UnicodeError, csv.Error):
        raise Skip(Reason.MALFORMED_ANNOTATION) from None
    except OSError:
        raise Skip(Reason.UNREADABLE) from None


def read_coco_boxes(path: Path, targets: Targets, labels: LabelMap) -> Iterator[Mark]:
    """Give each annotation of a COCO file as a box, or why not. Outlines are left aside.

    An image's `file_name` is its name relative to the indexed folder, or its SOP instance UID with any ending.

    Raises:
        Skip: If it is not a COCO file.
    """
    table = _coco(path)
    images = {one.get("id"): one for one in _records(table, "images") if _is_id(one.get("id"))}
    categories = {
        one.get("id"): one.get("name") for one in _records(table, "categories") if _is_id(one.get("id"))
    }
    for one in _records(table, "annotations"):
        try:
            yield _coco_box(one, images, categories, targets, labels)
        except Skip as skip:
            yield skip.reason


def _coco(path: Path) -> dict[str, Any]:
    try:
        if path.stat().st_size > MAX_BYTES:
            raise Skip(Reason.TOO_LARGE)
        table = json.loads(path.read_bytes())
    except OSError:
        raise Skip(Reason.UNREADABLE) from None
    except (ValueError, RecursionError):
        raise Skip(Reason.MALFORMED_ANNOTATION) from None
    if not isinstance(table, dict) or not {"images", "annotations"} <= set(table):
        raise Skip(Reason.NOT_AN_ANNOTATION)
    return table


def _records(table: dict[str, Any], name: str) -> list[dict[str, Any]]:
    found = table.get(name, [])
    if not isinstance(found, list) or not all(isinstance(one, dict) for one in found):
        raise Skip(Reason.MALFORMED_ANNOTATION)
    return found


def _is_id(value: Any) -> bool:
    return isinstance(value, int | str)


def _coco_box(
    one: dict[str, Any],
    images: Mapping[Any, dict[str, Any]],
    categories: Mapping[Any, Any],
    targets: Targets,
    labels: LabelMap,
) -> Mark:
    if not _is_id(one.get("image_id")) or not _is_id(one.get("category_id")):
        raise Skip(Reason.MALFORMED_ANNOTATION)
    image, label = images.get(one["image_id"]), categories.get(one["category_id"])
    bounds = one.get("bbox")
    if image is None or not isinstance(label, str) or not isinstance(image.get("file_name"), str):
        raise Skip(Reason.MALFORMED_ANNOTATION)
    if not isinstance(bounds, list) or len(bounds) != 4:  # noqa: PLR2004 - x, y, width, height
        raise Skip(Reason.MALFORMED_ANNOTATION)
    name = image["file_name"]
    candidates = targets.of_file(name) or targets.of_instances([name, name.rpartition(".")[0]])
    x, y, width, height = map(_number, bounds)
    size = (_number(image.get("width")), _number(image.get("height")))
    return _box(_Found(label, x, y, width, height, size), candidates, "coco", labels)


def _number(value: Any) -> float:
    """Return a finite number.

    Raises:
        Skip: If it is none.
    """
    try:
        number = float(value)
    except (TypeError, ValueError, OverflowError):
        raise Skip(Reason.MALFORMED_ANNOTATION) from None
    if not math.isfinite(number):
        raise Skip(Reason.MALFORMED_ANNOTATION)
    return number


def _box(found: _Found, candidates: Sequence[Item], source: Source, labels: LabelMap) -> Box:
    """Check a box against its image; what reaches out by a rounding is cut off."""
    item, _ = the_one_that_fits(candidates, lambda item: _check_size(item, found))
    height, width = item.shape[:2]
    if min(found.width, found.height) <= 0:
        raise Skip(Reason.EMPTY_ANNOTATION)
    left, top, right, bottom = found.x, found.y, found.x + found.width, found.y + found.height
    if min(left, top) < -_ROUNDING_PX or right > width + _ROUNDING_PX or bottom > height + _ROUNDING_PX:
        raise Skip(Reason.OUTSIDE_IMAGE)
    left, top, right, bottom = max(left, 0.0), max(top, 0.0), min(right, width), min(bottom, height)
    if right <= left or bottom <= top:
        raise Skip(Reason.OUTSIDE_IMAGE)
    return Box(item.item_key, labels.of_table(found.label), source, left, top, right - left, bottom - top)


def _check_size(item: Item, found: _Found) -> None:
    """Check that the box was drawn on the image as it is catalogued.

    Raises:
        Skip: If the table states another size, or none for a family whose images are cropped to their scan area.
    """
    if item.kind != "image":
        raise Skip(Reason.BOX_ON_VOLUME)
    height, width = item.shape[:2]
    if found.image_size is None:
        if item.family == "ultrasound":
            raise Skip(Reason.OFF_GRID)
    elif found.image_size != (width, height):
        raise Skip(Reason.OFF_GRID)
