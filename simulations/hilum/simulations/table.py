"""The table of arms that `hilum simulate` prints."""

from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING, Any

from hilum.common.config.tasks import METRICS
from hilum.common.participation import participation
from hilum.common.results_table import NOTE_WORDS

if TYPE_CHECKING:
    from rich.console import Console


def print_table(results: dict[str, Any]) -> None:
    """Print a table for each task and its headline, then what a reader must know."""
    from rich.console import Console

    console = Console()
    for verdict in results["verdicts"]:
        rows = [
            row
            for row in results["evaluation"]
            if (row["task"], row["metric"]) == (verdict["task"], verdict["metric"])
        ]
        named = f"{verdict['task']}: " if len(results["verdicts"]) > 1 else ""
        if rows:
            _print_rows(console, rows, verdict, named)
        console.print(named + verdict["headline"], markup=False)
    console.print(participation(results["rounds"]), markup=False)
    for note in results["notes"]:
        console.print(note, markup=False)


def _print_rows(
    console: "Console", rows: list[dict[str, Any]], verdict: Mapping[str, Any], named: str
) -> None:
    """Print one line an arm and protocol at the share of the labels that the verdict rests on, one column a site."""
    from rich import box
    from rich.table import Table

    share = verdict["label_fraction"]
    if rows := [row for row in rows if row["label_fraction"] == share]:
        names = sorted({row["site"] for row in rows})
        table = Table(
            title=f"{named}{METRICS[verdict['metric']].words} with 95 % intervals over patients, {share:.0%} of the labels",
            box=box.SIMPLE_HEAD,
        )
        for heading in ("protocol", "arm", *names):
            table.add_column(heading, overflow="fold")
        cells = {(row["protocol"], row["arm"], row["site"]): row for row in rows}
        marks = _marks({row["note"] for row in rows} - {""}, console.encoding)
        for protocol, arm in dict.fromkeys((row["protocol"], row["arm"]) for row in rows):
            table.add_row(protocol, arm, *[_cell(cells.get((protocol, arm, name)), marks) for name in names])
        console.print(table)
        for note, mark in marks.items():
            console.print(f"{mark} {NOTE_WORDS[note]}", markup=False)


def _marks(notes: Collection[str], encoding: str) -> dict[str, str]:
    """Return a mark of its own for each note."""
    daggers = "*†‡§¶#" if encoding.lower().startswith("utf") else ""
    marks = [*daggers, *("*" * (number + 1) for number in range(len(daggers) > 0, len(notes)))]
    return dict(zip(sorted(notes), marks, strict=False))


def _cell(row: dict[str, Any] | None, marks: Mapping[str, str]) -> str:
    if row is None:
        return ""
    mark = marks.get(row["note"], "")
    return f"{row['value']:.2f}{mark} ({row['ci_low']:.2f}-{row['ci_high']:.2f})"
