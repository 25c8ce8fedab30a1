"""A grid that can be taken away from the run that uses it, so that a stopped run ends at its next call."""

import threading
from collections.abc import Iterable
from typing import Any

from flwr.app import Message, RecordDict
from flwr.serverapp import Grid
from flwr.supercore.run import Run

from hilum.common.errors import FederationError


class RunStopped(FederationError):  # noqa: N818 - it is an order, not a fault
    """The run was stopped, or the server ends; raised inside the run's own loop."""


class StoppableGrid(Grid):
    """Passes every call on until it is stopped; what the other grid offers beyond Flower's is passed on too.

    Args:
        inner: The grid.
    """

    def __init__(self, inner: Grid) -> None:
        self._grid = inner
        self._stopped = threading.Event()

    def stop(self) -> None:
        """Let every further call raise `RunStopped`; from any thread."""
        self._stopped.set()

    @property
    def _inner(self) -> Grid:
        if self._stopped.is_set():
            raise RunStopped("the run was stopped")
        return self._grid

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    def set_run(self, run: Run) -> None:
        """As the other grid's."""
        self._inner.set_run(run)

    @property
    def run(self) -> Run:
        """As the other grid's."""
        return self._inner.run

    def create_message(
        self,
        content: RecordDict,
        message_type: str,
        dst_node_id: int,
        group_id: str,
        ttl: float | None = None,
    ) -> Message:
        """As the other grid's."""
        return self._inner.create_message(content, message_type, dst_node_id, group_id, ttl)

    def get_node_ids(self) -> Iterable[int]:
        """As the other grid's."""
        return self._inner.get_node_ids()

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        """As the other grid's."""
        return self._inner.push_messages(messages)

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        """As the other grid's."""
        return self._inner.pull_messages(message_ids)

    def send_and_receive(
        self, messages: Iterable[Message], *, timeout: float | None = None
    ) -> Iterable[Message]:
        """As the other grid's."""
        return self._inner.send_and_receive(messages, timeout=timeout)
