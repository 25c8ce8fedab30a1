"""The table of a call: a line for each image that was predicted, and for each file or image that was not, with the reason."""

import csv
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from hilum.client.predictions.results import Boxes, Classes, LabelMap, Numbers, Result

Outcome = Literal["predicted", "not_written", "quarantined", "refused", "not_asked"]
MEANINGS: dict[Outcome, str] = {
    "predicted": "predicted",
    "not_written": "predicted, but the file could not be written",
    "quarantined": "held back: text may be burned in",
    "refused": "refused",
    "not_asked": "not what the model reads",
}
_FIRST = ("source", "series_instance_uid", "sop_instance_uid", "outcome", "reason", "files")
_TEXT_DIGITS = 6


@dataclass(frozen=True)
class Line:
    """One line. All but the outcome, its reason and the values are identifiers.

    Attributes:
        source: Relative to the folder that was read.
        reason: A code, and what it means.
        values: By column: probabilities, quantities, or how many voxels or boxes of a class there are.
        files: That were written for it, relative to the output folder.
    """

    source: str = field(repr=False)
    outcome: Outcome
    reason: str = ""
    series_uid: str = field(default="", repr=False)
    instance_uid: str = field(default="", repr=False)
    values: Mapping[str, float] = field(default_factory=dict, repr=False)
    files: tuple[str, ...] = field(default=(), repr=False)


def values_of(result: Result) -> dict[str, float]:
    """Return what the table says of a result."""
    if isinstance(result, Classes | Numbers):
        return dict(zip(result.names, result.values, strict=True))
    if isinstance(result, LabelMap):
        return {
            f"{name} voxels": int((result.labels == number).sum())
            for number, name in enumerate(result.names, 1)
        }
    counts = Counter(one.name for one in result.found)
    return {"boxes": len(result.found), **{f"{name} boxes": count for name, count in sorted(counts.items())}}


def write_table(path: Path, lines: Sequence[Line]) -> None:
    """Write the lines as a CSV file; a name that is not UTF-8 comes back as it was."""
    columns = list(dict.fromkeys(name for line in lines for name in line.values))
    with path.open("w", encoding="utf-8", errors="surrogateescape", newline="") as file:
        writer = csv.writer(file)
        writer.writerow([*_FIRST, *columns])
        for line in lines:
            first = (
                line.source,
                line.series_uid,
                line.instance_uid,
                line.outcome,
                line.reason,
                " ".join(line.files),
            )
            values = [line.values.get(name) for name in columns]
            writer.writerow([*first, *("" if value is None else _written(value) for value in values)])


def write_boxes(path: Path, found: Sequence[tuple[str, Boxes]]) -> None:
    """Write every box of images by the name of its file, in pixels, with the columns that `hilum site annotate` reads."""
    with path.open("w", encoding="utf-8", errors="surrogateescape", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["file", "finding", "score", "x", "y", "w", "h", "first_slice", "last_slice"])
        for source, boxes in found:
            for one in boxes.found:
                numbers = (one.score, one.x, one.y, one.width, one.height)
                writer.writerow([source, one.name, *map(_written, numbers), *(one.slices or ("", ""))])


def _written(value: float) -> str:
    return str(value) if isinstance(value, int) else f"{value:.{_TEXT_DIGITS}g}"
