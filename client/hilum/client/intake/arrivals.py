"""What the network brings goes into the inbox, and from there into the catalogue."""

import threading
from collections.abc import Callable
from dataclasses import dataclass

from hilum.client.intake.indexing.index import IndexReport, index_archive, index_found
from hilum.client.intake.network.pull import ProgressOf, PullReport, pull
from hilum.client.intake.network.pull_options import PullRequest
from hilum.client.intake.network.receive import Receiver, ReceiveReport, serve
from hilum.client.intake.network.receive_options import Listening
from hilum.client.intake.network.shutdown import Stoppable, StoppedError
from hilum.client.intake.sources.inbox import Inbox
from hilum.client.intake.sources.sources import find
from hilum.client.state.workspace import Workspace
from hilum.common.errors import RunError
from hilum.common.progress import NullProgress


@dataclass(frozen=True)
class Pulled:
    """What one pull did: to the inbox, and to the catalogue."""

    pull: PullReport
    index: IndexReport


def pull_and_index(
    request: PullRequest,
    workspace: Workspace,
    show: ProgressOf,
    stop: threading.Event,
    *,
    reserve_bytes: int,
) -> Pulled:
    """Fetch what a DICOMweb service has and the inbox lacks, then index it.

    Args:
        request: What to pull, and from where.
        workspace: Of the site.
        show: Gives a progress bar for a title and a total.
        stop: Ends it between two objects.
        reserve_bytes: Free disk below which nothing more is fetched.

    Raises:
        ServiceError: If the service can't be used; what was fetched stays.
        NoRoomError: If the disk is nearly full.
        RunError: If it was stopped, or another process is working on the site.
    """
    try:
        with Inbox(workspace, reserve_bytes=reserve_bytes) as inbox:
            pulled = pull(request, inbox, show, stop)
        found = find(None, workspace)
        with show("indexing", found.count) as progress:
            return Pulled(pulled, index_found(found, workspace, Stoppable(progress, stop)))
    except StoppedError:
        raise RunError("stopped before the end; what was fetched is kept, run again to go on") from None


def receive_and_index(
    where: Listening,
    workspace: Workspace,
    stop: threading.Event,
    *,
    max_bytes: int,
    reserve_bytes: int,
    index_every_s: float,
    ready: Callable[[int], None],
    tell: Callable[[IndexReport], None],
    warn: Callable[[str], None],
) -> ReceiveReport:
    """Receive by C-STORE until stopped, and index what came whenever senders are quiet.

    Args:
        where: Where and as whom to listen, and who may send.
        workspace: Of the site.
        stop: Ends it.
        max_bytes: Of one object.
        reserve_bytes: Free disk below which nothing more is taken.
        index_every_s: Longest time between an object and the index that takes it in.
        ready: Told the port once connections are taken.
        tell: Told the report of each index.
        warn: Told why an index could not be made; it is tried again.

    Raises:
        DataError: If the port or the certificates can't be used.
    """

    def index() -> bool:
        try:
            tell(index_archive(None, workspace, Stoppable(NullProgress(), stop)))
        except RunError as error:
            warn(str(error))
            return False
        except StoppedError:
            return False
        return True

    with Inbox(workspace, max_bytes=max_bytes, reserve_bytes=reserve_bytes) as inbox:
        receiver = Receiver(where, inbox)
        serve(receiver, stop, index_every_s, index, ready)
    return receiver.report()
