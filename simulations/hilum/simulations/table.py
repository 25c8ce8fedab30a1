"""The table of arms that `hilum simulate` prints."""

from typing import Any

from hilum.simulations.verdict import participation

METRIC = "auroc"


def print_table(results: dict[str, Any]) -> None:
    """Print one line an arm and protocol at the largest label fraction, one column a site."""
    from rich import box
    from rich.console import Console
    from rich.table import Table

    rows = [row for row in results["evaluation"] if row["metric"] == METRIC]
    console = Console()
    if rows:
        largest = max(row["label_fraction"] for row in rows)
        rows = [row for row in rows if row["label_fraction"] == largest]
        names = sorted({row["site"] for row in rows})
        table = Table(
            title=f"AUROC with 95 % intervals over patients, {largest:.0%} of the labels", box=box.SIMPLE_HEAD
        )
        for heading in ("protocol", "arm", *names):
            table.add_column(heading, overflow="fold")
        cells = {(row["protocol"], row["arm"], row["site"]): row for row in rows}
        for protocol, arm in dict.fromkeys((row["protocol"], row["arm"]) for row in rows):
            table.add_row(protocol, arm, *[_cell(cells.get((protocol, arm, name))) for name in names])
        console.print(table)
    console.print(participation(results["rounds"]), markup=False)
    for note in results["notes"]:
        console.print(note, markup=False)


def _cell(row: dict[str, Any] | None) -> str:
    return "" if row is None else f"{row['value']:.2f} ({row['ci_low']:.2f}-{row['ci_high']:.2f})"
