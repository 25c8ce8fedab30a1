"""Collect: every site of a round is asked to train from the current weights, and each gives one answer."""

from collections.abc import Callable, Iterable, Iterator

from flwr.app import RecordDict
from flwr.serverapp import Grid

from hilum.common import records
from hilum.common.config.study import FederationSection
from hilum.server.federation.exchange import Answer, Closing, Presence, exchange
from hilum.server.federation.roster import Site


def collect(
    grid: Grid,
    sites: Iterable[Site],
    request: RecordDict,
    *,
    federation: FederationSection,
    enough: Callable[[], bool],
    poll_s: float,
    presence: Presence,
    on_poll: Callable[[], None],
) -> Iterator[tuple[Site, Answer]]:
    """Yield what each site answered, in the order of arrival, or at the end that and why it did not.

    Args:
        grid: Reaches the sites.
        sites: Who is asked.
        request: To train, with the weights to begin from.
        federation: How long to wait: for everybody, and for the lost once there is `enough`.
        enough: Whether the answers so far would do.
        poll_s: How often to look.
        presence: Tells who is lost and back.
        on_poll: Called at each look; what it raises ends the round.
    """
    of_node = {site.node_id: site for site in sites}
    for answer in exchange(
        grid,
        {node_id: lambda: request for node_id in of_node},
        records.TRAIN,
        deadline_s=federation.deadline_s,
        poll_s=poll_s,
        presence=presence,
        closing=Closing(enough, federation.return_s),
        on_poll=on_poll,
    ):
        yield of_node[answer.node_id], answer
        del answer  # as large as the model, and the next one is about to come
