"""The server's SQLite files: for their owner alone, and so that a committed row survives a power cut."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, MetaData, create_engine, event
from sqlalchemy.exc import DatabaseError, OperationalError

from hilum.common.errors import DamagedError, RunError
from hilum.common.files import private_folder

_BUSY_MS = 5000


class Database:
    """One SQLite file and its tables, used by several threads and processes at once.

    Args:
        path: The file; it and its folder are made where they are missing.
        tables: All tables of the file.
        version: Of the tables, kept in `PRAGMA user_version`. Raise it when columns change.

    Raises:
        DamagedError: If the file is not a database.
        RunError: If it is of a later version, or can't be opened.
    """

    def __init__(self, path: Path, tables: MetaData, *, version: int) -> None:
        self.engine = create_engine(f"sqlite:///{path}")
        event.listen(self.engine, "connect", _durable)
        try:
            private_folder(path.parent)
            # SQLite gives its -wal and -shm files the permissions of the file itself.
            os.close(os.open(path, os.O_RDWR | os.O_CREAT, 0o600))
            with self.transaction() as connection:
                found = int(connection.exec_driver_sql("PRAGMA user_version").scalar_one())
                if found > version:
                    raise RunError(
                        f"{path.name} was written by a later Hilum (its tables are version {found}, this one knows "
                        f"{version}); install that Hilum again"
                    )
                if found < version:
                    tables.create_all(connection)
                    connection.exec_driver_sql(f"PRAGMA user_version = {version}")
        except (OSError, OperationalError):
            raise RunError(
                f"{path.name} can't be opened; make sure that this user may write to its folder and that the disk is "
                "not full"
            ) from None
        except DatabaseError:
            raise DamagedError(f"{path.name} is damaged: restore it from a backup") from None

    @contextmanager
    def transaction(self) -> Iterator[Connection]:
        """A connection that no other process writes beside; its changes are all kept, or none."""
        with self.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            connection.exec_driver_sql("BEGIN IMMEDIATE")
            try:
                yield connection
            except BaseException:
                connection.exec_driver_sql("ROLLBACK")
                raise
            connection.exec_driver_sql("COMMIT")

    @contextmanager
    def reading(self) -> Iterator[Connection]:
        """A connection to read with; it waits for no writer."""
        with self.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            yield connection

    def close(self) -> None:
        """Let go of the file."""
        self.engine.dispose()


def _durable(connection: Any, _record: Any) -> None:
    connection.execute(f"PRAGMA busy_timeout={_BUSY_MS}")
    connection.execute("PRAGMA journal_mode=WAL")
    connection.execute("PRAGMA synchronous=FULL")
