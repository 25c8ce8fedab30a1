"""The queue of runs: what was submitted, in which order, and how it went. It survives whatever kills the server.

A run is `queued`, then `running`, then `finished`, `failed` or `stopped`. One that was running or queued when the server
died goes on by itself at the next start; a failed or stopped one only by `submit --resume`.
"""

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sqlalchemy import (
    Column,
    Float,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    func,
    insert,
    select,
    update,
)

from hilum.common.config.resume import MAY_DIFFER
from hilum.common.database import Database
from hilum.common.errors import RunError
from hilum.common.signing import SignedStudy, changes

QUEUED, RUNNING, FINISHED, FAILED, STOPPED = "queued", "running", "finished", "failed", "stopped"
OVER = {FINISHED, FAILED, STOPPED}
MAX_STARTS = 5
"""How often a run is taken up again after a crash without a further round done, until it counts as the cause."""

_MAX_REASON = 2000
_BEGIN_AGAIN = "move it away; the queue is then empty, and the run directories stay"
_log = logging.getLogger(__name__)
_tables = MetaData()
_runs = Table(
    "runs",
    _tables,
    Column("name", String, primary_key=True),
    Column("place", Integer, nullable=False, unique=True),  # in the queue; a resumed run comes last again
    Column("state", String, nullable=False),
    Column("terms", String, nullable=False),  # of the signed study: the same study, whenever it was signed
    Column("document", LargeBinary, nullable=False),
    Column("signature", LargeBinary, nullable=False),
    Column("submitted_at", Float, nullable=False),  # seconds since 1970, as all times here
    Column("changed_at", Float, nullable=False),
    Column("reason", String, nullable=False, default=""),
    Column("starts", Integer, nullable=False, default=0),  # without a further round done
    Column("rounds_at_start", Integer, nullable=False, default=0),
)


@dataclass(frozen=True)
class QueuedRun:
    """One run of the queue.

    Attributes:
        state: Of this module's.
        changed_at: Since when it has this state, in seconds since 1970.
        reason: Why it failed.
    """

    name: str
    state: str
    submitted_at: float
    changed_at: float
    reason: str
    signed: SignedStudy = field(repr=False)


class RunQueue:
    """The queue, in one SQLite file.

    Args:
        path: The file.
        clock: Seconds since 1970.
    """

    def __init__(self, path: Path, clock: Callable[[], float] = time.time) -> None:
        self._database = Database(path, _tables, version=1, remedy=_BEGIN_AGAIN)
        self._clock = clock

    def submit(self, run: str, terms: str, signed: SignedStudy, *, resume: bool, exists: bool) -> None:
        """Enter a run, or one that failed or was stopped again.

        Args:
            run: Its name.
            terms: Of the study order.
            signed: The study.
            resume: Go on with a run of this name.
            exists: Whether there is a run directory of this name.

        Raises:
            RunError: If the name is taken, or there is nothing to go on with.
        """
        with self._database.writing() as connection:
            known = connection.execute(select(_runs).where(_runs.c.name == run)).first()
            if known is None and resume:
                raise RunError(
                    f"there is no run {run} to resume; leave out --resume, or see `hilum admin runs`"
                )
            if known is None and exists:
                raise RunError(f"the run directory {run} is there already; choose another name with --run")
            if known is not None:
                _check_again(known, terms, signed, resume=resume)
            place = connection.execute(select(func.coalesce(func.max(_runs.c.place), 0) + 1)).scalar_one()
            now = self._clock()
            facts: dict[str, Any] = {
                "place": place,
                "state": QUEUED,
                "terms": terms,
                "document": signed.document,
                "signature": signed.signature,
                "submitted_at": now,
                "changed_at": now,
                "reason": "",
                "starts": 0,
                "rounds_at_start": 0,
            }
            if known is None:
                connection.execute(insert(_runs).values(name=run, **facts))
            else:
                connection.execute(update(_runs).where(_runs.c.name == run).values(**facts))

    def take(self, rounds_done: Callable[[str], int]) -> QueuedRun | None:
        """Take the run whose turn it is: one that was cut off first, then the one that waits longest.

        A run that was started `MAX_STARTS` times without a further round done fails here, so that one that kills the
        server does not keep killing it.
        """
        while True:
            with self._database.writing() as connection:
                row = connection.execute(
                    select(_runs)
                    .where(_runs.c.state.in_([RUNNING, QUEUED]))
                    .order_by(_runs.c.state == QUEUED, _runs.c.place)
                ).first()
                if row is None:
                    return None
                rounds = rounds_done(row.name)
                starts = 1 if rounds > row.rounds_at_start else row.starts + 1
                facts: dict[str, Any] = {"state": RUNNING, "starts": starts, "rounds_at_start": rounds}
                if starts > MAX_STARTS:
                    facts = {
                        "state": FAILED,
                        "reason": f"the server died {MAX_STARTS} times during this run without a round done; see its log",
                    }
                if facts["state"] != row.state:
                    facts["changed_at"] = self._clock()
                connection.execute(update(_runs).where(_runs.c.name == row.name).values(**facts))
            if facts["state"] == RUNNING:
                return self.run(row.name)
            _log.error("run %s failed: %s", row.name, facts["reason"])

    def end(self, run: str, state: str, reason: str = "") -> bool:
        """Note how a running run ended.

        Returns:
            False if it was not running any more: it had been stopped.
        """
        return self._move(run, [RUNNING], state, reason[:_MAX_REASON])

    def cut_off(self, run: str) -> None:
        """Note that the server ends in good order during a run: that is not a start without a further round."""
        with self._database.writing() as connection:
            connection.execute(update(_runs).where(_runs.c.name == run).values(starts=0))

    def stop(self, run: str) -> str:
        """Note that a run is to stop.

        Returns:
            The state that it had, `queued` or `running`.

        Raises:
            RunError: If there is no such run, or it is over.
        """
        known = self.run(run)
        if known.state in OVER or not self._move(run, [known.state], STOPPED, ""):
            raise RunError(f"run {run} is not running; it is {self.run(run).state}")
        return known.state

    def run(self, run: str) -> QueuedRun:
        """Return one run.

        Raises:
            RunError: If there is none of this name.
        """
        with self._database.transaction() as connection:
            row = connection.execute(select(_runs).where(_runs.c.name == run)).first()
        if row is None:
            raise RunError(f"there is no run {run}; `hilum admin runs` lists them")
        return _run(row)

    def runs(self) -> list[QueuedRun]:
        """Return all runs, in the order of the queue."""
        with self._database.transaction() as connection:
            return [_run(row) for row in connection.execute(select(_runs).order_by(_runs.c.place))]

    def close(self) -> None:
        """Let go of the file."""
        self._database.close()

    def _move(self, run: str, before: list[str], state: str, reason: str) -> bool:
        with self._database.writing() as connection:
            moved = connection.execute(
                update(_runs)
                .where(_runs.c.name == run, _runs.c.state.in_(before))
                .values(state=state, reason=reason, changed_at=self._clock())
            )
            return moved.rowcount == 1


def _check_again(known: Any, terms: str, signed: SignedStudy, *, resume: bool) -> None:
    if not resume:
        how = (
            "choose another name with --run"
            if known.state == FINISHED
            else "choose another name with --run, or go on with it by --resume"
        )
        raise RunError(f"there is a run {known.name} already ({known.state}); {how}")
    if known.state in {QUEUED, RUNNING}:
        raise RunError(
            f"run {known.name} is {known.state}: it needs no --resume, `hilum admin runs` shows how it goes"
        )
    if known.state == FINISHED:
        raise RunError(f"run {known.name} has finished; `hilum admin fetch` copies it")
    if known.terms != terms:
        raise RunError(
            f"run {known.name} is of another study: {changes(known.document, signed.document)}; --resume goes on with the "
            f"same study, sites and version only, and these alone may change: {', '.join(MAY_DIFFER)}"
        )


def _run(row: Any) -> QueuedRun:
    return QueuedRun(
        row.name,
        row.state,
        row.submitted_at,
        row.changed_at,
        row.reason,
        SignedStudy(row.document, row.signature),
    )
