"""Flower's grid inside one process: the same two apps, with messages passed by reference.

Each virtual site runs in a thread; torch leaves Python's lock during its operations, so sites train side by side. A
federation starts in milliseconds, where an engine of processes takes tens of seconds.
"""

import uuid
from collections.abc import Callable, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType
from typing import Self

from flwr.app import Context, Message, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid
from flwr.supercore.run import Run
from flwr.supercore.task_identity import TaskIdentity

_SERVER = 1
_RUN = 1


class InProcessGrid(Grid):
    """Delivers messages to client apps in this process.

    Args:
        client_app: Makes the one client app of all nodes.
        nodes: How many nodes; their ids are 0 to nodes - 1 plus 2, and `node_config["partition-id"]` counts from 0.
        workers: How many nodes work at a time.
    """

    def __init__(self, client_app: ClientApp, *, nodes: int, workers: int) -> None:
        # Flower's Message reads who is speaking from this process-wide place.
        TaskIdentity.task_id, TaskIdentity.run_id, TaskIdentity.node_id = _RUN, _RUN, _SERVER
        self._app = client_app
        self._contexts = {
            _SERVER + 1 + index: Context(
                run_id=_RUN,
                node_id=_SERVER + 1 + index,
                node_config={"partition-id": index, "num-partitions": nodes},
                state=RecordDict(),
                run_config={},
            )
            for index in range(nodes)
        }
        self._pool = ThreadPoolExecutor(workers, thread_name_prefix="site")
        self._answers: dict[str, Future[Message]] = {}
        self._run = Run.create_empty(_RUN)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._pool.shutdown(wait=True, cancel_futures=True)

    def set_run(self, run: Run) -> None:
        """Set the run."""
        self._run = run

    @property
    def run(self) -> Run:
        """The run."""
        return self._run

    def create_message(
        self,
        content: RecordDict,
        message_type: str,
        dst_node_id: int,
        group_id: str,
        ttl: float | None = None,
    ) -> Message:
        """Make a message; Flower's interface still asks for it."""
        return Message(content, dst_node_id, message_type, ttl=ttl, group_id=group_id)

    def get_node_ids(self) -> Iterable[int]:
        """All nodes: they are always online."""
        return list(self._contexts)

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        """Start work on each message; give their ids."""
        return [self._push(message) for message in messages]

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        """The replies that are ready, each once.

        Raises:
            Exception: What a client app raised; ours turns failures into replies, so this is a defect.
        """
        ready = [key for key in message_ids if key in self._answers and self._answers[key].done()]
        return [self._answers.pop(key).result() for key in ready]

    def send_and_receive(
        self, messages: Iterable[Message], *, timeout: float | None = None
    ) -> Iterable[Message]:
        """Push, wait for all, pull."""
        futures = [self._answers.pop(key) for key in self.push_messages(messages)]
        return [future.result(timeout) for future in futures]

    def _push(self, message: Message) -> str:
        key = uuid.uuid4().hex
        facts = message.metadata.__dict__  # Flower's own engines set these; there is no setter
        facts["_message_id"], facts["_run_id"], facts["_src_node_id"] = key, _RUN, _SERVER
        context = self._contexts[message.metadata.dst_node_id]
        work: Callable[[Message, Context], Message] = self._app
        self._answers[key] = self._pool.submit(work, message, context)
        return key
