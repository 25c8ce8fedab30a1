"""What this site was asked in each run, and what each run has used up (SQLite, in the state folder).

A run's name stands for one study. A round is trained from few different weights, and none after the run was finished:
whoever could ask for round after round from weights of their choice would get as many gradients of the site's images
as they like. Hours and bytes are counted over restarts.

What is used up is counted before it is used, and corrected after: a process that is killed in between has paid for
more than it used, never for less. A finished run is marked before its last answer leaves.
"""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from sqlalchemy import (
    Boolean,
    Column,
    Connection,
    Float,
    Integer,
    MetaData,
    String,
    Table,
    delete,
    func,
    select,
    update,
)

from hilum.client.disclosure.answers import FORGET
from hilum.common.database import Database
from hilum.common.errors import PolicyRefused, RequestRefused

_VERSION = 1  # of the tables below
_ADVANCE_S = 60.0  # is charged ahead, again and again while the work goes on
_TICK_S = 20.0
_HOUR_S = 3600
_MB = 10**6

_metadata = MetaData()
_runs = Table(
    "runs",
    _metadata,
    Column("run", String, primary_key=True),
    Column("terms", String, nullable=False),
    Column("examples", Integer),
    Column("finished", Boolean, nullable=False),
)
_rounds = Table(
    "rounds",
    _metadata,
    Column("run", String, primary_key=True),
    Column("round", Integer, primary_key=True),
    Column("base_sha256", String, primary_key=True),
)
_charges = Table(
    "charges",
    _metadata,
    Column("charge", Integer, primary_key=True),
    Column("run", String, nullable=False, index=True),
    Column("seconds", Float, nullable=False),
    Column("sent_bytes", Integer, nullable=False),
)


@dataclass(frozen=True)
class Budget:
    """What one run may use up. In a simulation nothing is bounded."""

    hours: float = float("inf")
    sent_mb: float = float("inf")
    repeats: float = float("inf")


class Charge:
    """One request's use of its run's budget; a `Progress` that stops a training whose hours are used up."""

    def __init__(self, write: Callable[[float, int], None], left_s: float, sent_bytes: int) -> None:
        self._write, self._left_s = write, left_s
        self._started = time.monotonic()
        self.sent_bytes = sent_bytes

    @property
    def seconds(self) -> float:
        """Since the work began."""
        return time.monotonic() - self._started

    def advance(self, done: int, note: str = "") -> None:
        """Go on, unless the hours are used up.

        Raises:
            PolicyRefused: `policy_hours`, if they are.
        """
        del done, note
        if self.seconds > self._left_s:
            raise PolicyRefused("policy_hours", "max_hours of the run were used up on the way")

    def keep_ahead(self, stop: threading.Event) -> None:
        """Write down more than was used, until `stop`."""
        while not stop.wait(_TICK_S):
            self._write(self.seconds + _ADVANCE_S, self.sent_bytes)


class RunLedger:
    """Reads and writes the ledger of one site."""

    def __init__(self, path: Path) -> None:
        self._database = Database(path, _metadata, version=_VERSION, remedy=FORGET)

    def close(self) -> None:
        """Let go of the file."""
        self._database.close()

    def enter(self, run: str, terms: str) -> None:
        """Note a run when it is first seen.

        Args:
            run: Its name.
            terms: `StudyOrder.terms`.

        Raises:
            RequestRefused: `run_taken`, if the name stands for other terms.
        """
        with self._database.writing() as connection:  # of two requests, one is first
            known = connection.scalar(select(_runs.c.terms).where(_runs.c.run == run))
            if known is None:
                connection.execute(_runs.insert().values(run=run, terms=terms, finished=False))
            elif known != terms:
                raise RequestRefused("run_taken", "a run of this name with another study was seen before")

    def examples(self, run: str, found: int) -> int:
        """Keep the number of images that a run was told first: it is told no other, whatever is indexed meanwhile."""
        with self._database.writing() as connection:
            told = connection.scalar(select(_runs.c.examples).where(_runs.c.run == run))
            if told is None:
                connection.execute(update(_runs).where(_runs.c.run == run).values(examples=found))
            return found if told is None else int(told)

    def ask_round(self, run: str, round_number: int, base_sha256: str, budget: Budget) -> None:
        """Note from which weights a round is asked. The same round from the same weights may always be asked again.

        Raises:
            RequestRefused: `run_over` or `repeated`.
        """
        with self._database.writing() as connection:
            here = (_rounds.c.run == run) & (_rounds.c.round == round_number)
            asked = set(connection.scalars(select(_rounds.c.base_sha256).where(here)))
            if base_sha256 in asked:
                return
            if connection.scalar(select(_runs.c.finished).where(_runs.c.run == run)):
                raise RequestRefused(
                    "run_over", f"round {abs(round_number)} from new weights, after the run was finished here"
                )
            if len(asked) >= budget.repeats:
                raise RequestRefused(
                    "repeated",
                    f"max_repeats is {budget.repeats}; round {abs(round_number)} was asked from as many",
                )
            connection.execute(_rounds.insert().values(run=run, round=round_number, base_sha256=base_sha256))

    def ask_score(self, run: str, round_number: int, weights_sha256: str, budget: Budget) -> None:
        """Note which weights are to be scored after a round; as `ask_round`.

        Raises:
            RequestRefused: `run_over` or `repeated`.
        """
        self.ask_round(run, -round_number, weights_sha256, budget)  # beside the rounds, which count from 1

    def finish(self, run: str) -> None:
        """Train no more for a run."""
        with self._database.transaction() as connection:
            connection.execute(update(_runs).where(_runs.c.run == run).values(finished=True))

    def used(self, run: str) -> tuple[float, int]:
        """Seconds that a run has trained and evaluated here, and bytes that were sent for it."""
        with self._database.transaction() as connection:
            return _used(connection, run)

    @contextmanager
    def charging(self, run: str, sent_bytes: int, budget: Budget) -> Iterator[Charge]:
        """Count what the work inside the block uses.

        Args:
            run: Whose budget is charged.
            sent_bytes: What the answer will weigh; set `Charge.sent_bytes` inside the block where it is known better.
            budget: Of the run.

        Raises:
            PolicyRefused: `policy_hours` or `policy_bytes`, if the budget does not hold it.
        """
        with self._database.writing() as connection:
            seconds, sent = _used(connection, run)
            _check_budget(seconds, sent, sent_bytes, budget)
            values = {"run": run, "seconds": _ADVANCE_S, "sent_bytes": sent_bytes}
            [number] = connection.execute(_charges.insert().values(values)).inserted_primary_key or (0,)

        def write(used_s: float, used_bytes: int) -> None:
            with self._database.transaction() as connection:
                row = update(_charges).where(_charges.c.charge == number)
                connection.execute(row.values(seconds=used_s, sent_bytes=used_bytes))

        charge = Charge(write, budget.hours * _HOUR_S - seconds, sent_bytes)
        stop = threading.Event()
        ahead = threading.Thread(target=charge.keep_ahead, args=(stop,), name="charge", daemon=True)
        ahead.start()
        try:
            yield charge
        except Exception:
            charge.sent_bytes = 0  # a refusal weighs nothing
            raise
        finally:
            stop.set()
            ahead.join()
            write(charge.seconds, charge.sent_bytes)

    def forget(self, run: str) -> None:
        """Drop all that is known of a run: for simulations, which may run again in the same place."""
        with self._database.transaction() as connection:
            for table in (_runs, _rounds, _charges):
                connection.execute(delete(table).where(table.c.run == run))


def _used(connection: Connection, run: str) -> tuple[float, int]:
    columns = select(func.sum(_charges.c.seconds), func.sum(_charges.c.sent_bytes))
    seconds, sent = connection.execute(columns.where(_charges.c.run == run)).one()
    return float(seconds or 0), int(sent or 0)


def _check_budget(seconds: float, sent: int, more: int, budget: Budget) -> None:
    if seconds >= budget.hours * _HOUR_S:
        used = f"{seconds / _HOUR_S:.2f} are used up"
        raise PolicyRefused("policy_hours", f"max_hours is {budget.hours:g}, {used}")
    if sent + more > budget.sent_mb * _MB:
        used = f"{sent / _MB:.6g} were sent, and this would be {more / _MB:.6g} more"
        raise PolicyRefused("policy_bytes", f"max_sent_mb is {budget.sent_mb:g}, {used}")
