"""How many patients of a site have masks for a task. For the site's owner alone."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from hilum.client.data.kept_split import Side, sides_of
from hilum.client.data.site_data import SiteData
from hilum.client.evaluation.class_table import Count
from hilum.client.tasks.small_samples import MIN_CLASS_PATIENTS


@dataclass(frozen=True)
class MaskTable:
    """The images with masks of one site.

    Attributes:
        site: Its name.
        train: Trained on.
        test: Tested.
        left_out: Neither, for the patient is tested at another site, or came after the run began.
        unlabelled: Images without a mask.
        warnings: What may mislead.
    """

    site: str
    train: Count
    test: Count
    left_out: Count
    unlabelled: Count
    warnings: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        """Plain values, as JSON gives them back."""
        return {**asdict(self), "warnings": list(self.warnings)}


def mask_table(data: SiteData, kind: str) -> MaskTable:
    """Count the images with masks of a site for one task as its split has them."""
    data = data.of_task(kind)
    sides = np.array([side.value for side in sides_of(data.split)])
    marked = np.array([label is not None for label in data.labels], bool)

    def count(rows: np.ndarray[Any, np.dtype[np.bool_]]) -> Count:
        return Count(len(np.unique(data.split.group[rows])), int(rows.sum()))

    test = count(marked & (sides == Side.TESTED))
    warnings = list(data.notes)
    if test.patients < MIN_CLASS_PATIENTS:
        warnings.append(
            f"fewer than {MIN_CLASS_PATIENTS} test patients with a mask ({test.patients}): arms are not compared"
        )
    train, left_out = (count(marked & (sides == side)) for side in (Side.TRAINED, Side.LEFT_OUT))
    return MaskTable(data.name, train, test, left_out, count(~marked), tuple(warnings))


def mask_lines(tables: Sequence[MaskTable]) -> list[str]:
    """Return the tables as lines of text: patients, and images in brackets; then the warnings."""
    cells: list[tuple[str, ...]] = [("site", "train", "test", "left out", "without a mask")]
    for one in tables:
        counts = (one.train, one.test, one.left_out, one.unlabelled)
        cells.append((one.site, *[count.words() for count in counts]))
    widths = [max(len(row[place]) for row in cells) for place in range(len(cells[0]))]
    return [
        "patients whose images have masks, and images in brackets:",
        *[
            "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
            for row in cells
        ],
        *[f"{one.site}: {warning}" for one in tables for warning in one.warnings],
    ]
