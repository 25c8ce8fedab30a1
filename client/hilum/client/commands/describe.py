"""`hilum site describe`: the one report of a site that may be shown to others."""

import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from hilum.common.cli import AsJson, Home, print_json
from hilum.common.home import hilum_home

_BAR_WIDTH = 30


def describe(
    labels: Annotated[Path | None, typer.Option(help="A label table to count too.", readable=False)] = None,
    label: Annotated[list[str] | None, typer.Option(help="A column of it; may be given again.")] = None,
    min_patients: Annotated[int, typer.Option(help="Patients behind each number; 11 or more.")] = 11,
    budget: Annotated[int, typer.Option(help="How many different answers the site ever gives.")] = 20,
    home: Home = None,
    as_json: AsJson = False,
) -> None:
    """Describe the indexed images so that the description may leave: counts over at least 11 patients each."""
    from hilum.client.disclosure.describe import describe_site
    from hilum.client.state.workspace import Workspace

    workspace = Workspace(hilum_home(home) / "site")
    answer = describe_site(
        workspace,
        labels=_label_columns(workspace, labels, label or []),
        threshold=min_patients,
        budget=budget,
        agree=_agree,
    )
    if as_json:
        print_json(answer.content)
    else:
        _show(answer.content)
    kind = "a new answer" if answer.new else "the same answer as before, at no cost"
    typer.echo(f"{kind}; {answer.left} new answers are left", err=True)


def _agree(left: int) -> None:
    """Ask whoever sits at a terminal; a script has agreed by calling.

    Raises:
        Abort: If the answer is no.
    """
    if _at_a_terminal():
        typer.confirm(
            f"This is a new answer and costs one of the {left} that are left. Give it?", abort=True, err=True
        )


def _at_a_terminal() -> bool:
    return sys.stdin.isatty() and sys.stderr.isatty()


def _label_columns(workspace: Any, table: Path | None, columns: list[str]) -> dict[str, Any]:
    from hilum.client.state.catalogue import Catalogue
    from hilum.client.state.labels import read_labels
    from hilum.common.errors import ConfigError, DataError

    if (table is None) != (not columns):
        raise ConfigError("describe", ["--labels and --label are given together: a table and its columns"])
    if table is None:
        return {}
    if not workspace.catalogue.exists():
        raise DataError(workspace.not_indexed)
    catalogue = Catalogue(workspace.catalogue)
    try:
        names = workspace.pseudonyms()
        return {c: read_labels(table, c, catalogue, names, named_by="--label") for c in columns}
    finally:
        catalogue.close()


def _show(content: dict[str, Any]) -> None:
    threshold = content["threshold"]
    typer.echo(f"Each number is a multiple of {threshold} that is reached; < marks fewer than {threshold}.")
    for family, facts in content["families"].items():
        if facts["patients"] is None:
            typer.echo(f"\n{family}: fewer than {threshold} patients")
            continue
        counts = ", ".join(
            f"{'<' if facts[name] is None else facts[name]} {name}"
            for name in ("patients", "studies", "images", "volumes")
        )
        typer.echo(f"\n{family}: {counts}")
        if not facts["tables"]:
            typer.echo("  histograms are withheld: with them, a small count could be worked out")
        for name, cells in facts["tables"].items():
            typer.echo(f"  {name} (patients)")
            most = max(cell["patients"] or 0 for cell in cells)
            for cell in cells:
                count = cell["patients"]
                bar = "█" * round(_BAR_WIDTH * (count or 0) / most)
                typer.echo(f"    {cell['cell']:>24} {'<' if count is None else count:>7} {bar}".rstrip())
