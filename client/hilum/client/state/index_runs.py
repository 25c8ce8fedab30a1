"""What the catalogue remembers of how it was made: the last index of a folder, that of the inbox alone, and any that never ended.

A run is listed before it starts and completed at its end; one that was killed, stopped or failed stays without an end until
a later run has looked at the same places again.
"""

import os
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from sqlalchemy import delete, insert, select, update

from hilum.client.state.catalogue import Catalogue
from hilum.client.state.tables import INDEX_RUNS


@dataclass(frozen=True)
class IndexRun:
    """One index of a site.

    Attributes:
        folder: As it was named, absolute; empty where the inbox alone was looked at.
        began: UTC, ISO 8601.
        seconds: How long it took; None if it never ended.
        decoded: How many files had their pixels read.
        removed: How many known files were gone.
    """

    folder: str
    began: str
    seconds: float | None
    decoded: int
    removed: int


def begin_run(catalogue: Catalogue, folder: Path | None) -> int:
    """List a run that starts now, in place of those without an end whose work it does; gives its number."""
    name = "" if folder is None else os.fsencode(folder.absolute()).decode(errors="replace")
    unended = delete(INDEX_RUNS).where(INDEX_RUNS.c.seconds.is_(None))
    if folder is None:  # a run over a folder looks at the inbox too, but not the other way round
        unended = unended.where(INDEX_RUNS.c.folder == "")
    began = datetime.now(UTC).isoformat(timespec="seconds")
    with catalogue.database.transaction() as connection:
        connection.execute(unended)
        made = connection.execute(insert(INDEX_RUNS).values(folder=name, began=began, decoded=0, removed=0))
        assert made.inserted_primary_key is not None
        return int(made.inserted_primary_key[0])


def end_run(catalogue: Catalogue, number: int, *, seconds: float, decoded: int, removed: int) -> None:
    """Complete a run, in place of the one before it of a folder, or of the inbox alone."""
    with catalogue.database.transaction() as connection:
        folder = connection.scalar(select(INDEX_RUNS.c.folder).where(INDEX_RUNS.c.number == number))
        alike = INDEX_RUNS.c.folder == "" if folder == "" else INDEX_RUNS.c.folder != ""
        connection.execute(delete(INDEX_RUNS).where(alike, INDEX_RUNS.c.number != number))
        connection.execute(
            update(INDEX_RUNS)
            .where(INDEX_RUNS.c.number == number)
            .values(seconds=seconds, decoded=decoded, removed=removed)
        )


def index_runs(catalogue: Catalogue) -> list[IndexRun]:
    """Return what is remembered, the latest first."""
    columns = (INDEX_RUNS.c[name] for name in ("folder", "began", "seconds", "decoded", "removed"))
    with catalogue.database.transaction() as connection:
        rows = connection.execute(select(*columns).order_by(INDEX_RUNS.c.number.desc()))
        return [IndexRun(*row) for row in rows]
