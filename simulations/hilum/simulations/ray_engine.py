"""The work of virtual sites as Ray tasks: in processes of this machine, or on the nodes of a cluster.

A site keeps to one node as long as that node lives, because its state is files: databases on a shared disk are written by one
machine at a time. A task whose process or node died is asked for again by the round loop, as in a deployment.
"""

import math
from collections.abc import Sequence
from concurrent.futures import Future
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from flwr.app import Context, Error, Message, RecordDict
from flwr.clientapp import ClientApp
from flwr.common.constant import ErrorCode
from flwr.serverapp import ServerApp
from flwr.supercore.task_identity import TaskIdentity

from hilum.common.errors import RunError
from hilum.common.lockdown import close_outbound
from hilum.common.log_setup import configure_logging
from hilum.simulations.grid import SimulatedGrid
from hilum.simulations.ray_cluster import Node, check_nodes, cluster_address, ray_nodes


def run_on_ray(
    server_app: ServerApp,
    client_app: ClientApp,
    *,
    archives: Sequence[Path],
    home: Path,
    threads: int,
    address: str | None,
) -> int:
    """Run the two apps under Ray.

    Args:
        server_app: Runs in this process.
        client_app: Sent to the workers.
        archives: One folder a site, for every node to see.
        home: The state folder, likewise.
        threads: CPU cores that one site takes.
        address: Of a cluster that runs already; None looks at RAY_ADDRESS, and then starts a Ray here.

    Returns:
        How many nodes worked.

    Raises:
        RunError: If the cluster can't be used.
        Exception: What the server app raised.
    """
    cluster = cluster_address(address)
    with ray_nodes(cluster, threads=threads) as nodes:
        if cluster is not None:
            check_nodes(nodes, archives, home)
        with RayGrid(client_app, deal_sites(len(archives), nodes, threads), threads=threads) as grid:
            context = Context(run_id=1, node_id=1, node_config={}, state=RecordDict(), run_config={})
            server_app(grid=grid, context=context)
            return len(grid.worked)


def deal_sites(sites: int, nodes: Sequence[Node], threads: int) -> list[tuple[str, float]]:
    """Give each site a node and a share of a GPU: in turn, and to larger nodes more.

    Returns:
        For each site the node's id, and the share, 0 where the node has no GPU.
    """
    with_gpu = [node for node in nodes if node.gpus] or list(nodes)
    rounds = range(max(int(node.cpus // threads) for node in with_gpu))
    turns = [node for turn in rounds for node in with_gpu if node.cpus // threads > turn]
    dealt = [turns[index % len(turns)] for index in range(sites)]
    on_node = {node.node_id: sum(one is node for one in dealt) for node in with_gpu}
    return [
        (node.node_id, 1 / math.ceil(on_node[node.node_id] / node.gpus) if node.gpus else 0.0)
        for node in dealt
    ]


class RayGrid(SimulatedGrid):
    """Delivers messages to client apps in Ray tasks.

    Args:
        client_app: The one client app of all nodes.
        places: Of each site the Ray node, and the share of a GPU.
        threads: CPU cores that one site takes.

    Attributes:
        worked: The ids of the Ray nodes that have given an answer.
    """

    def __init__(self, client_app: ClientApp, places: Sequence[tuple[str, float]], *, threads: int) -> None:
        import ray
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        super().__init__(nodes=len(places))
        self._app = ray.put(client_app)
        work = ray.remote(num_cpus=threads, max_retries=0)(work_on)
        self._work = {
            node_id: work.options(
                num_gpus=share, scheduling_strategy=NodeAffinitySchedulingStrategy(place, soft=True)
            )
            for node_id, (place, share) in zip(self._contexts, places, strict=True)
        }
        self._under_way: set[Any] = set()
        self.worked: set[str] = set()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        import ray

        for task in self._under_way:
            ray.cancel(task, force=True)

    def _submit(self, message: Message, context: Context) -> Future[Message]:
        task = self._work[message.metadata.dst_node_id].remote(self._app, message, context)
        self._under_way.add(task)
        answer: Future[Message] = Future()

        def settle(done: Future[tuple[str, Message]]) -> None:
            self._under_way.discard(task)
            try:
                node, reply = done.result()
                self.worked.add(node)
                answer.set_result(reply)
            except Exception as error:
                answer.set_exception(error)

        task.future().add_done_callback(settle)
        return answer

    def _result(self, message: Message, answer: Future[Message]) -> Message:
        """Return a site's answer; one whose process or node died is told as such, and asked again."""
        import ray

        try:
            return answer.result()
        except ray.exceptions.OutOfMemoryError:
            raise RunError(
                "Ray ended a site's process because its node had little memory left; choose a smaller training.batch_size "
                "or data.image_size, or fewer CPU cores for Ray, and go on with --resume"
            ) from None
        except (ray.exceptions.WorkerCrashedError, ray.exceptions.NodeDiedError):
            return Message(Error(ErrorCode.CLIENT_APP_CRASHED), reply_to=message)


def work_on(client_app: ClientApp, message: Message, context: Context) -> tuple[str, Message]:
    """Have a client app answer a message, and say on which node; runs there."""
    import ray

    close_outbound()
    configure_logging()
    TaskIdentity.task_id, TaskIdentity.run_id, TaskIdentity.node_id = (
        context.run_id,
        context.run_id,
        context.node_id,
    )
    return ray.get_runtime_context().get_node_id(), client_app(message, context)
