"""Cells of a label table that hold several findings: `Effusion|Infiltration`, or with semicolons."""

import re
from collections import Counter
from collections.abc import Mapping

from hilum.client.state.label_values import alike, check_spellings, tidy
from hilum.common.errors import LabelError

MAX_FINDINGS = 64
_BETWEEN = re.compile(r"[|;]")


def findings_of(cell: str, nothing: str) -> frozenset[str]:
    """Return the findings that a cell names; none where it says that there is none.

    Args:
        cell: As the label table has it.
        nothing: What a cell without any finding says, in any spelling of case, blanks and hyphens.
    """
    named = {tidy(part) for part in _BETWEEN.split(cell)} - {""}
    return frozenset(name for name in named if alike(name) != alike(nothing))


def check_is_findings(column: str, cells: Mapping[str, int], nothing: str) -> None:
    """Refuse a column whose cells are not findings.

    Args:
        column: Its name.
        cells: How often each cell occurs.
        nothing: As of `findings_of`.

    Raises:
        LabelError: If a finding is spelled in several ways, or beside the word for none; or if there are too many.
    """
    counts: Counter[str] = Counter()
    for cell, count in cells.items():
        for name in findings_of(cell, nothing):
            counts[name] += count
    check_spellings(column, counts)
    both = sum(
        count
        for cell, count in cells.items()
        if findings_of(cell, nothing)
        and any(alike(tidy(part)) == alike(nothing) for part in _BETWEEN.split(cell))
    )
    if both:
        raise LabelError(
            f"the column `{column}` has {both} images with a finding beside `{nothing}`; write the findings alone"
        )
    if len(counts) > MAX_FINDINGS:
        raise LabelError(
            f"the column `{column}` names {len(counts)} findings, and {MAX_FINDINGS} are the most; findings stand in one cell "
            "with `|` or `;` between them: name another column in tasks.multilabel.label"
        )
