"""How many patients of a site have a label for a task, and between which numbers. For the site's owner alone."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from hilum.client.data.kept_split import Side, sides_of
from hilum.client.data.site_data import SiteData
from hilum.client.evaluation.class_table import Count
from hilum.client.tasks.regression import MIN_PATIENTS


@dataclass(frozen=True)
class NumberTable:
    """The labels of one site: numbers, or what has no names and no size, such as masks.

    Attributes:
        site: Its name.
        train: Trained on.
        test: Tested.
        left_out: Neither, for the patient is tested at another site, or came after the run began.
        unlabelled: Images without a label.
        least: Of all images; None where there are no numbers, as are the next two.
        median: Of all images.
        most: Of all images.
        warnings: What may mislead.
    """

    site: str
    train: Count
    test: Count
    left_out: Count
    unlabelled: Count
    least: float | None
    median: float | None
    most: float | None
    warnings: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        """Plain values, as JSON gives them back."""
        return {**asdict(self), "warnings": list(self.warnings)}


def number_table(data: SiteData, kind: str, *, numbers: bool = True) -> NumberTable:
    """Count the labels of a site for one task as its split has them; `numbers` says whether they are any."""
    data = data.of_task(kind)
    sides = np.array([side.value for side in sides_of(data.split)])
    labelled = np.array([label is not None for label in data.labels], bool)
    values = np.array([float(label) for label in data.labels if label is not None and numbers])

    def count(rows: np.ndarray[Any, np.dtype[np.bool_]]) -> Count:
        return Count(len(np.unique(data.split.group[rows])), int(rows.sum()))

    test = count(labelled & (sides == Side.TESTED))
    warnings = list(data.notes)
    if not labelled.any():
        warnings.append("no image has a label, so nothing can be evaluated")
    elif len(np.unique(values)) == 1:
        warnings.append("every image has the same number, so nothing can be evaluated")
    elif test.patients < MIN_PATIENTS:
        warnings.append(
            f"fewer than {MIN_PATIENTS} test patients ({test.patients}): numbers of so few say little"
        )
    least, median, most = (
        (float(np.quantile(values, at)) for at in (0, 0.5, 1)) if len(values) else [None] * 3
    )
    return NumberTable(
        data.name,
        count(labelled & (sides == Side.TRAINED)),
        test,
        count(labelled & (sides == Side.LEFT_OUT)),
        count(~labelled),
        least,
        median,
        most,
        tuple(warnings),
    )


def number_lines(tables: Sequence[NumberTable], column: str) -> list[str]:
    """Return the tables as lines of text: patients, and images in brackets, and the range; then the warnings."""
    ranged = any(one.least is not None for one in tables)
    head = (
        "site",
        "train",
        "test",
        "left out",
        "unlabelled",
        f"`{column}`: least, median, most" if ranged else "",
    )
    cells: list[tuple[str, ...]] = [head]
    for one in tables:
        span = "" if one.least is None else f"{one.least:g}, {one.median:g}, {one.most:g}"
        counts = (one.train, one.test, one.left_out, one.unlabelled)
        cells.append((one.site, *[count.words() for count in counts], span))
    widths = [max(len(row[place]) for row in cells) for place in range(len(head))]
    return [
        "patients, and images in brackets:",
        *[
            "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
            for row in cells
        ],
        *[f"{one.site}: {warning}" for one in tables for warning in one.warnings],
    ]
