"""The tables of docs/reference that are made of the code itself.

    python tests/support/reference_tables.py

writes them into their pages.
"""

import inspect
import re
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path

from hilum.client.disclosure.leaves import as_markdown
from hilum.client.intake.no_suv import NoSuv
from hilum.client.intake.reasons import Reason
from hilum.client.intake.transfer_syntaxes import SUPPORTED_SYNTAXES
from hilum.client.views.batch import recipes_of
from hilum.client.views.recipe import Recipe
from hilum.common.config.modalities import MODALITIES
from hilum.common.config.views import ViewsSection
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


def no_suv_rows() -> list[str]:
    """Every reason why a PET volume has no SUV."""
    return [f"| `{reason.value}` | {reason.meaning} |" for reason in NoSuv]


def leaving_rows() -> list[str]:
    """Every value that leaves a site."""
    return as_markdown().splitlines()[2:]


def health_rows() -> list[str]:
    """Every number of the health of training."""
    return [f"| `{name}` | {number.words} |" for name, number in HEALTH.items()]


def value_rows() -> list[str]:
    """Every modality, and what its values are."""
    return [
        f"| `{name}` | `{facts.family}`{', volumes too' if facts.volumes else ''} | {facts.channels} | {facts.intensity} | "
        f"{facts.mean:g}, {facts.deviation:g} ({facts.origin}) |"
        for name, facts in MODALITIES.items()
    ]


def range_rows() -> list[str]:
    """Every modality, and the ranges of its two recipes that do something."""
    return [
        f"| `{name}` | {_words(recipes['crop'])} | {_words(recipes['strong'])} |"
        for name in MODALITIES
        for recipes in [recipes_of(name, ViewsSection())]
    ]


def _words(recipe: Recipe) -> str:
    told = []
    for one in fields(recipe):
        value = getattr(recipe, one.name)
        if value != one.default:
            told.append(
                f"{one.name} {f'{value[0]:g} to {value[1]:g}' if isinstance(value, tuple) else f'{value:g}'}"
            )
    return ", ".join(told)


def meaning_rows() -> list[str]:
    """Every range, and what its docstring says it is."""
    doc = inspect.getdoc(Recipe) or ""
    found = re.findall(r"^    (\w+): ((?:.|\n(?!    \w+: ))+)", doc.split("Attributes:\n")[1], re.MULTILINE)
    return [f"| `{name}` | {' '.join(text.split())} |" for name, text in found]


def refused_rows() -> list[str]:
    """Every reason against a view, with what it is against."""
    by_reason: dict[str, tuple[list[str], list[str]]] = {}
    for name, facts in MODALITIES.items():
        for operation, reason in facts.refused.items():
            operations, names = by_reason.setdefault(reason, ([], []))
            operations.append(f"`{operation}`")
            names.append(f"`{name}`")
    return [
        f"| {', '.join(dict.fromkeys(operations))} | {', '.join(dict.fromkeys(names))} | {reason} |"
        for reason, (operations, names) in by_reason.items()
    ]


TABLES: dict[tuple[Path, str], Callable[[], list[str]]] = {
    (REFERENCE / "dicom.md", "| transfer syntax | UID | pixels are decoded by |"): syntax_rows,
    (REFERENCE / "dicom.md", "| no SUV | because |"): no_suv_rows,
    (REFERENCE / "reason-codes.md", "| code | meaning |"): reason_rows,
    (REFERENCE / "results.md", "| number | what |"): health_rows,
    (
        REFERENCE / "views.md",
        "| modality | family of the index | channels | becomes 0 to 1 | mean, deviation |",
    ): value_rows,
    (REFERENCE / "views.md", "| modality | mild views | strong views |"): range_rows,
    (REFERENCE / "views.md", "| range | what it is |"): meaning_rows,
    (REFERENCE / "views.md", "| refused | for | because |"): refused_rows,
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
