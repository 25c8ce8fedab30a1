"""Flower's grid for a simulation: the same two apps as a deployment, without a network between them.

`InProcessGrid` runs each virtual site in a thread and passes messages by reference; torch leaves Python's lock during its
operations, so sites train side by side. A federation starts in milliseconds. `hilum.simulations.ray_engine` has the grid
whose sites work in other processes, on this machine or on others.
"""

import uuid
from abc import abstractmethod
from collections.abc import Callable, Iterable
from concurrent.futures import Future, ThreadPoolExecutor, wait
from types import TracebackType
from typing import Self

from flwr.app import Context, Message, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid
from flwr.supercore.run import Run
from flwr.supercore.task_identity import TaskIdentity

from hilum.common.interrupt import Interrupted

_SERVER = 1
_RUN = 1


class SimulatedGrid(Grid):
    """Delivers messages to virtual sites; what does the work is up to the kind of grid.

    Args:
        nodes: How many nodes; their ids are 0 to nodes - 1 plus 2, and `node_config["partition-id"]` counts from 0.
    """

    def __init__(self, *, nodes: int) -> None:
        # Flower's Message reads who is speaking from this process-wide place.
        TaskIdentity.task_id, TaskIdentity.run_id, TaskIdentity.node_id = _RUN, _RUN, _SERVER
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
        self._answers: dict[str, tuple[Message, Future[Message]]] = {}
        self._run = Run.create_empty(_RUN)

    @abstractmethod
    def _submit(self, message: Message, context: Context) -> Future[Message]:
        """Have a site work on a message."""

    def _result(self, message: Message, answer: Future[Message]) -> Message:
        """Return the reply to a message, once it is there."""
        del message
        return answer.result()

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
        """Return all nodes: they are always online."""
        return list(self._contexts)

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        """Start work on each message; give their ids."""
        return [self._push(message) for message in messages]

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        """Return the replies that are ready, each once.

        Raises:
            Exception: What a client app raised; ours turns failures into replies, so this is a defect.
        """
        ready = [key for key in message_ids if key in self._answers and self._answers[key][1].done()]
        return [self._result(*self._answers.pop(key)) for key in ready]

    def send_and_receive(
        self, messages: Iterable[Message], *, timeout: float | None = None
    ) -> Iterable[Message]:
        """Push, wait for all, pull."""
        answers = [self._answers.pop(key) for key in self.push_messages(messages)]
        wait([future for _, future in answers], timeout)
        return [self._result(message, future) for message, future in answers if future.done()]

    def _push(self, message: Message) -> str:
        key = uuid.uuid4().hex
        facts = message.metadata.__dict__  # Flower's own engines set these; there is no setter
        facts["_message_id"], facts["_run_id"], facts["_src_node_id"] = key, _RUN, _SERVER
        context = self._contexts[message.metadata.dst_node_id]
        self._answers[key] = message, self._submit(message, context)
        return key


class InProcessGrid(SimulatedGrid):
    """Delivers messages to client apps in threads of this process.

    Args:
        client_app: Makes the one client app of all nodes.
        nodes: How many nodes.
        workers: How many nodes work at a time.
    """

    def __init__(self, client_app: ClientApp, *, nodes: int, workers: int) -> None:
        super().__init__(nodes=nodes)
        self._app: Callable[[Message, Context], Message] = client_app
        self._pool = ThreadPoolExecutor(workers, thread_name_prefix="site")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        # Whoever pressed Ctrl-C does not wait for a round: what a site has on disk is whole at any moment.
        self._pool.shutdown(wait=not isinstance(error, Interrupted), cancel_futures=True)

    def _submit(self, message: Message, context: Context) -> Future[Message]:
        return self._pool.submit(self._app, message, context)
