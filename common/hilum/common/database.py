"""SQLite files of site and server, all opened one way: for their owner alone, and so that a committed row survives a power cut."""

import os
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sqlalchemy import URL, Connection, MetaData, Table, create_engine, event, inspect
from sqlalchemy.exc import DatabaseError, OperationalError

from hilum.common.errors import DamagedError, RunError
from hilum.common.files import private_folder
from hilum.common.machine import machine_problem


class Database:
    """One SQLite file and its tables. What an earlier version made is brought up to date; a later one's is refused.

    Args:
        path: The file. It and its folder are made where they are missing.
        tables: All tables of the file; those that are missing are made.
        version: Of the tables, kept in `PRAGMA user_version`. Raise it when columns change.
        refilled: Tables that are emptied where the file is of an earlier version, for the next index fills them again.
        upgrades: What brings the tables of a version up to the next one, in SQL, by that version.
        remedy: What else than a backup helps where the file is damaged or of a later version, after "or".
        busy_s: How long to wait for another that writes.

    Raises:
        DamagedError: If the file is not a database.
        RunError: If it is of a later version, or can't be opened.
    """

    def __init__(
        self,
        path: Path,
        tables: MetaData,
        *,
        version: int,
        refilled: Collection[Table] = (),
        upgrades: Mapping[int, str] | None = None,
        remedy: str = "",
        busy_s: float = 30.0,
    ) -> None:
        self.engine = create_engine(URL.create("sqlite", database=str(path)))  # as text, "?" would end it
        event.listen(self.engine, "connect", lambda connection, _record: _durable(connection, busy_s))
        otherwise = f", or {remedy}" if remedy else ""
        try:
            private_folder(path.parent)
            # SQLite gives its -wal and -shm files the permissions of the file itself.
            os.close(os.open(path, os.O_RDWR | os.O_CREAT, 0o600))
            with self.transaction() as connection:
                if not _is_current(connection, tables, version):
                    connection.exec_driver_sql("BEGIN IMMEDIATE")  # of two processes, one makes the tables
                    found = _version(connection)
                    if found > version:
                        raise RunError(
                            f"{path.name} in the state folder was written by a later Hilum (its tables are version {found}, "
                            f"this one knows {version}); install that Hilum again{otherwise}"
                        )
                    _bring_up(connection, tables, version, refilled, upgrades or {})
        except (OSError, OperationalError) as error:
            problem = machine_problem(error)
            why = f" ({problem.short})" if problem else ""
            raise RunError(
                f"{path.name} in the state folder can't be opened{why}; make sure that this user may write there and that "
                "the disk is not full"
            ) from None
        except DatabaseError:
            raise DamagedError(
                f"{path.name} in the state folder is damaged: restore it from a backup{otherwise}"
            ) from None

    @contextmanager
    def transaction(self) -> Iterator[Connection]:
        """Give a connection whose changes are all kept, or none."""
        with self.engine.begin() as connection:
            yield connection

    @contextmanager
    def writing(self) -> Iterator[Connection]:
        """Give the same, with no other that writes beside it from its first line: what it reads is still so when it writes."""
        with self.transaction() as connection:
            connection.exec_driver_sql("BEGIN IMMEDIATE")
            yield connection

    def close(self) -> None:
        """Let go of the file."""
        self.engine.dispose()


def _durable(connection: Any, busy_s: float) -> None:
    connection.execute(f"PRAGMA busy_timeout={round(1000 * busy_s)}")
    connection.execute("PRAGMA journal_mode=WAL")
    connection.execute("PRAGMA synchronous=FULL")


def _version(connection: Connection) -> int:
    return int(connection.exec_driver_sql("PRAGMA user_version").scalar_one())


def _is_current(connection: Connection, tables: MetaData, version: int) -> bool:
    return _version(connection) == version and set(inspect(connection).get_table_names()) >= set(
        tables.tables
    )


def _bring_up(
    connection: Connection,
    tables: MetaData,
    version: int,
    refilled: Collection[Table],
    upgrades: Mapping[int, str],
) -> None:
    if (found := _version(connection)) < version:
        tables.drop_all(connection, tables=list(refilled))
        known = set(inspect(connection).get_table_names()) & set(tables.tables)
        for before in range(found, version) if known else ():  # a new file has nothing to be brought up
            if before in upgrades:
                connection.exec_driver_sql(upgrades[before])
    tables.create_all(connection)
    connection.exec_driver_sql(f"PRAGMA user_version = {version}")
