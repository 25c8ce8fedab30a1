"""A site's SQLite files, all opened one way: for their owner alone, and so that a committed row survives a power cut."""

import os
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, MetaData, Table, create_engine, event, inspect
from sqlalchemy.exc import DatabaseError, OperationalError

from hilum.common.errors import DamagedError, RunError
from hilum.common.files import private_folder


class Database:
    """One SQLite file and its tables. What an earlier version made is brought up to date; a later one's is refused.

    Args:
        path: The file. It and its folder are made where they are missing.
        tables: All tables of the file; those that are missing are made.
        version: Of the tables, kept in `PRAGMA user_version`. Raise it when columns change.
        refilled: Tables that are emptied where the file is of an earlier version, for the next index fills them again.
        upgrades: What brings the tables of a version up to the next one, in SQL, by that version.

    Raises:
        DamagedError: If the file is no database.
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
    ) -> None:
        self._engine = create_engine(f"sqlite:///{path}")
        event.listen(self._engine, "connect", _durable)
        try:
            private_folder(path.parent)
            # SQLite gives its -wal and -shm files the permissions of the file itself.
            os.close(os.open(path, os.O_RDWR | os.O_CREAT, 0o600))
            with self.transaction() as connection:
                if not _is_current(connection, tables, version):
                    connection.exec_driver_sql("BEGIN IMMEDIATE")  # of two processes, one makes the tables
                    _bring_up(connection, path.name, tables, version, refilled, upgrades or {})
        except (OSError, OperationalError):
            raise RunError(
                f"{path.name} in the state folder can't be opened; make sure that this user may write there and that "
                "the disk is not full"
            ) from None
        except DatabaseError:
            raise DamagedError(
                f"{path.name} in the state folder is damaged: restore it from a backup, or remove the site's state "
                "folder and index again"
            ) from None

    @contextmanager
    def transaction(self) -> Iterator[Connection]:
        """A connection whose changes are all kept, or none."""
        with self._engine.begin() as connection:
            yield connection

    def close(self) -> None:
        """Let go of the file."""
        self._engine.dispose()


def _durable(connection: Any, _record: Any) -> None:
    connection.execute("PRAGMA busy_timeout=30000")
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
    name: str,
    tables: MetaData,
    version: int,
    refilled: Collection[Table],
    upgrades: Mapping[int, str],
) -> None:
    found = _version(connection)
    if found > version:
        raise RunError(
            f"{name} in the state folder was written by a later Hilum (its tables are version {found}, this one knows "
            f"{version}); install that Hilum again, or remove the site's state folder and index again"
        )
    if found < version:
        tables.drop_all(connection, tables=list(refilled))
        known = set(inspect(connection).get_table_names()) & set(tables.tables)
        for before in range(found, version) if known else ():  # a new file has nothing to be brought up
            if before in upgrades:
                connection.exec_driver_sql(upgrades[before])
    tables.create_all(connection)
    connection.exec_driver_sql(f"PRAGMA user_version = {version}")
