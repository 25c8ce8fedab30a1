"""The tables of docs/reference that are made of the code itself.

    python tests/support/reference_tables.py

writes them into their pages.
"""

import re
from collections.abc import Callable
from pathlib import Path

from hilum.client.disclosure.outgoing import as_markdown
from hilum.client.intake.reasons import Reason
from hilum.client.intake.transfer_syntaxes import SUPPORTED_SYNTAXES
from hilum.common.training_health import HEALTH
from places import ROOT

REFERENCE = ROOT / "docs" / "reference"


def syntax_rows() -> list[str]:
    """Every transfer syntax, and what its pixels are decoded by."""
    rows = []
    for syntax in SUPPORTED_SYNTAXES.values():
        bare = "inflated within a bound" if syntax.deflated else "as they are"
        rows.append(f"| {syntax.name} | {syntax.uid} | {', '.join(syntax.decoders) or bare} |")
    return rows


def reason_rows() -> list[str]:
    """Every reason code, and what it means."""
    return [f"| `{reason.value}` | {reason.meaning} |" for reason in Reason]


def leaving_rows() -> list[str]:
    """Every value that leaves a site."""
    return as_markdown().splitlines()[2:]


def health_rows() -> list[str]:
    """Every number of the health of training."""
    return [f"| `{name}` | {number.words} |" for name, number in HEALTH.items()]


TABLES: dict[tuple[Path, str], Callable[[], list[str]]] = {
    (REFERENCE / "dicom.md", "| transfer syntax | UID | pixels are decoded by |"): syntax_rows,
    (REFERENCE / "reason-codes.md", "| code | meaning |"): reason_rows,
    (REFERENCE / "results.md", "| number | what |"): health_rows,
    (REFERENCE / "what-leaves.md", "| message | record | key | type | what it is | bound |"): leaving_rows,
}
"""By page and by the table's first line: what gives its rows."""


def in_page(page: str, head: str, rows: list[str]) -> str:
    """The page with these rows in the table below that head."""
    lines = re.escape(head) + r"\n(\| ---[^\n]*\n)(?:\|[^\n]*\n)*"
    return re.sub(lines, lambda found: "\n".join((head, found[1] + rows[0], *rows[1:], "")), page)


if __name__ == "__main__":
    for (path, head), rows in TABLES.items():
        path.write_text(in_page(path.read_text(), head, rows()))
