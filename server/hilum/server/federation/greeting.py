"""Ask sites who they are, before the first round and in between: deployed hospitals come and go.

A run begins when every site has answered, or after a while with those that have greeted, if they reach the quorum. Who
comes later greets later, while a round is under way, and takes part from the next one on.
"""

import time
from collections.abc import Callable

from flwr.app import RecordDict
from flwr.serverapp import Grid

from hilum.common import records
from hilum.common.errors import FederationError, UpdateRefused
from hilum.common.signing import SignedStudy
from hilum.server.federation.exchange import Answer, Mail, NamingGrid, content_of
from hilum.server.federation.roster import Roster, Site

_MAX_EXAMPLES = 2**40  # of a greeting: more is not a count of images


class Greeter:
    """Binds each node of a grid to one of the study's sites.

    Where the grid knows by certificate whose a node is, a greeting must say the same. Where it does not (in one
    process, under Ray), the greeting must name one of the study's sites that no other node has named.
    """

    def __init__(self, grid: Grid, signed: SignedStudy, roster: Roster) -> None:
        self.roster = roster
        self._grid = grid
        self._names = grid.names if isinstance(grid, NamingGrid) else None
        self._mail = Mail(grid, records.HELLO)
        self._request = records.pack_request(signed)
        self._asked: set[int] = set()

    def step(self) -> None:
        """Ask who is there and not known yet; take what has been answered."""
        if not any(self.roster.is_open(name) for name in self.roster.names):
            return
        online = set(self._grid.get_node_ids())
        for node_id in sorted(online - self._asked):
            if self._names is None or self.roster.is_open(self._names.get(node_id, "")):
                self._asked.add(node_id)
                self._mail.ask(node_id, lambda: self._request)
        self._mail.post(online)
        for answer in self._mail.collect():
            self._take(answer)

    def begin_turn(self) -> None:
        """Let those who were refused be asked once more."""
        bound = {site.node_id for site in self.roster.present}
        self._asked = bound | set(self._mail.pending)

    def wait(
        self, enough: int, *, seconds: float, poll_s: float, on_poll: Callable[[], None], for_all: bool
    ) -> None:
        """Wait for greetings.

        Args:
            enough: How many sites are needed.
            seconds: How long to wait at most.
            poll_s: How often to look.
            on_poll: Called at each look; what it raises ends the waiting.
            for_all: Wait for every site that may still come, not just for enough of them.

        Raises:
            FederationError: If there are too few by then; it gives each site's reason.
        """
        until = time.monotonic() + seconds
        while True:
            on_poll()
            self.step()
            present = len(self.roster.present)
            if (present >= enough and not for_all) or self._is_settled() or time.monotonic() > until:
                break
            time.sleep(poll_s)
        if present < enough:
            absences = self.roster.absences(site.name for site in self.roster.present)
            why = [f"{name}: {reason}" for name, reason in sorted(absences.items())]
            raise FederationError(
                f"{present} of {len(self.roster.names)} sites have greeted, {enough} are needed "
                f"({'; '.join([*why, *self.roster.strangers])}); start or mend the others, and go on with --resume"
            )

    def _is_settled(self) -> bool:
        if self._names is not None:
            return self.roster.settled
        answered = len(self._asked) - len(self._mail.pending)
        return self.roster.settled or (not self._mail.pending and answered >= len(self.roster.names))

    def _take(self, answer: Answer) -> None:
        name = None if self._names is None else self._names[answer.node_id]
        try:
            if answer.content is not None and name is None:
                name = self._claimed(answer.content)
            self.roster.bind(_site_of(answer, name))
        except UpdateRefused as refused:
            self.roster.refuse(name, refused)

    def _claimed(self, content: RecordDict) -> str:
        """Return the site that a node of a grid without names says it is.

        Raises:
            UpdateRefused: If it may not be that one.
        """
        claimed = records.sender_of(content)
        if claimed not in self.roster.names:
            raise UpdateRefused("wrong_site", "the study names no site of this name")
        if not self.roster.is_open(claimed):
            raise UpdateRefused("wrong_site", f"a second {claimed}")
        return claimed


def _site_of(answer: Answer, name: str | None) -> Site:
    """Return the site that has greeted.

    Raises:
        UpdateRefused: If it refused, or its greeting is not that of the site of this name.
    """
    hello = records.unpack_hello(content_of(answer))
    if hello.site != name:
        raise UpdateRefused("wrong_site", "the greeting has another name than the site's certificate")
    if not 1 <= hello.examples <= _MAX_EXAMPLES:
        raise UpdateRefused("no_examples", "the greeting does not say how many images there are")
    return Site(hello.site, answer.node_id, hello.examples)
