"""Ask many sites, take answers as they come, and ask again where a message was lost on the way.

Flower drops a message whose node died, so a node whose message is reported lost is asked again, once it is back, with
the same request; requests are made such that doing one twice gives the same answer. Answers are taken one at a time:
each may be as large as the model.
"""

import logging
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Protocol, runtime_checkable

from flwr.app import Message, RecordDict
from flwr.serverapp import Grid

from hilum.common import records
from hilum.common.errors import UpdateRefused
from hilum.common.refusals import REFUSALS

_ASK_AGAIN_AFTER_S = 1.0
_MAX_ATTEMPTS = 20
_DAY_S = 86_400.0
# flwr.common.constant.ErrorCode: message lost, reply lost, node gone, client process died.
_LOST = {3, 4, 5, 8}
# hilum.server.gate: what was refused before it was read.
_REFUSED_AT_GATE = {
    101: ("too_large", "the reply is larger than this kind of message allows"),
    102: ("wrong_format", "the reply is not a well-formed message"),
}
_log = logging.getLogger(__name__)


@runtime_checkable
class NamingGrid(Protocol):
    """A grid that knows by certificate whose each node is."""

    names: Mapping[int, str]


@runtime_checkable
class BoundedGrid(Protocol):
    """A grid that refuses replies before it holds them."""

    def reply_limit(self, message_type: str, size_bytes: int) -> None:
        """Set the most that a reply to this kind of message may hold."""


@runtime_checkable
class WithdrawingGrid(Protocol):
    """A grid that can take a message back."""

    def withdraw(self, message_ids: Collection[str]) -> None:
        """Forget messages whose answers nobody waits for any more."""


@dataclass(frozen=True)
class Answer:
    """One node's answer: content, or why there is none."""

    node_id: int
    content: RecordDict | None = field(repr=False)
    problem: UpdateRefused | None = None
    attempts: int = 1


def content_of(answer: Answer) -> RecordDict:
    """Return the content of an answer.

    Raises:
        UpdateRefused: If there is none: the site was lost, or refused with a code; the words are ours.
    """
    if answer.problem is not None:
        raise answer.problem
    assert answer.content is not None
    refusal = records.unpack_refusal(answer.content)
    if refusal is not None:
        raise UpdateRefused(refusal.code, REFUSALS[refusal.code])
    return answer.content


class Presence:
    """Sees and says when a site is lost, and when it is back.

    Args:
        grid: Lists the nodes that gave a sign of life lately.
        name_of: What to call a node.
    """

    def __init__(self, grid: Grid, name_of: Callable[[int], str] = str) -> None:
        self._grid, self._name_of = grid, name_of
        self._lost: set[int] = set()

    def look(self, nodes: Collection[int]) -> set[int]:
        """Return all nodes that are there now; tell what changed about the given ones."""
        online = set(self._grid.get_node_ids())
        for node_id in nodes:
            if node_id not in online and node_id not in self._lost:
                self._lost.add(node_id)
                _log.warning("%s lost: no sign of life", self._name_of(node_id))
            elif node_id in online and node_id in self._lost:
                self._lost.discard(node_id)
                _log.info("%s is back", self._name_of(node_id))
        return online


@dataclass
class _Pending:
    """A node that has not answered: the message it was sent, or when to send the next."""

    request: Callable[[], RecordDict]
    until: float | None
    message_id: str | None = None
    ask_at: float = 0.0
    attempts: int = 0


class Mail:
    """Requests of one kind on their way, and what came back."""

    def __init__(self, grid: Grid, message_type: str) -> None:
        self._grid, self._type = grid, message_type
        self._pending: dict[int, _Pending] = {}

    @property
    def pending(self) -> Collection[int]:
        """The nodes that have not answered."""
        return self._pending.keys()

    def ask(self, node_id: int, request: Callable[[], RecordDict], *, until: float | None = None) -> None:
        """Have a node asked as soon as it is there."""
        self._pending[node_id] = _Pending(request, until)

    def post(self, online: Collection[int]) -> None:
        """Push to the nodes that are due and there."""
        now = time.monotonic()
        for node_id, one in self._pending.items():
            if one.message_id is not None or one.ask_at > now or node_id not in online:
                continue
            ttl = _DAY_S if one.until is None else max(1.0, one.until - now)
            [pushed] = self._grid.push_messages([Message(one.request(), node_id, self._type, ttl=ttl)])
            one.message_id = pushed or None
            one.ask_at = now + _ASK_AGAIN_AFTER_S
            one.attempts += 1

    def collect(self) -> Iterator[Answer]:
        """Take the answers that are there, one after the other."""
        for node_id, one in list(self._pending.items()):
            answer = self._pull(node_id, one)
            if answer is not None:
                del self._pending[node_id]
                yield answer
            del answer  # as large as the model, and the next one is about to come

    def _pull(self, node_id: int, one: _Pending) -> Answer | None:
        """Return a node's answer; None if there is none yet, or its message was lost on the way."""
        if one.message_id is None:
            return None
        for reply in self._grid.pull_messages([one.message_id]):
            if (answer := _answer(node_id, reply, one.attempts)) is not None:
                return answer
            one.message_id, one.ask_at = None, time.monotonic() + _ASK_AGAIN_AFTER_S
        return None

    def give_up(self) -> list[tuple[int, int]]:
        """Forget what has not been answered; return each node and how often it was asked."""
        left = [(node_id, one.attempts) for node_id, one in self._pending.items()]
        messages = [one.message_id for one in self._pending.values() if one.message_id]
        if messages and isinstance(self._grid, WithdrawingGrid):
            self._grid.withdraw(messages)
        self._pending.clear()
        return left


@dataclass
class Closing:
    """When to go on without sites that are lost.

    Attributes:
        enough: Whether the answers so far would do.
        return_s: How long to wait then for one of the lost to come back.
    """

    enough: Callable[[], bool]
    return_s: float
    _since: float | None = None

    def is_over(self, pending: Collection[int], online: Collection[int]) -> bool:
        """Return whether all who have not answered have been lost for long enough."""
        if any(node_id in online for node_id in pending) or not self.enough():
            self._since = None
            return False
        now = time.monotonic()
        if self._since is None:
            self._since = now
            _log.info("all other answers are here; waiting %g s for the lost to come back", self.return_s)
        return now - self._since >= self.return_s


def _nothing() -> None:
    return


def exchange(
    grid: Grid,
    requests: Mapping[int, Callable[[], RecordDict]],
    message_type: str,
    *,
    deadline_s: float,
    poll_s: float,
    presence: Presence | None = None,
    closing: Closing | None = None,
    on_poll: Callable[[], None] = _nothing,
) -> Iterator[Answer]:
    """Send one request to each node and yield the answers in the order of arrival; each node has one.

    Args:
        grid: Flower's grid.
        requests: Makes the request of each node; called again when the node is asked again.
        message_type: Flower's.
        deadline_s: When to stop waiting, from now.
        poll_s: How often to look.
        presence: Tells who is lost and back.
        closing: When to stop waiting for sites that are lost; default: at the deadline.
        on_poll: Called at each look; what it raises ends the exchange.
    """
    until = time.monotonic() + deadline_s
    presence = presence or Presence(grid)
    mail = Mail(grid, message_type)
    for node_id, request in requests.items():
        mail.ask(node_id, request, until=until)
    online: Collection[int] = set()
    try:
        while mail.pending and time.monotonic() < until:
            on_poll()
            online = presence.look(mail.pending)
            mail.post(online)
            yield from mail.collect()
            if mail.pending:
                if closing is not None and closing.is_over(mail.pending, online):
                    break
                time.sleep(poll_s)
    finally:
        left = mail.give_up()
    for node_id, attempts in left:
        silent = UpdateRefused("late", f"no answer within {deadline_s:g} s")
        lost = UpdateRefused("lost", "no sign of life")
        yield Answer(node_id, None, silent if node_id in online else lost, attempts)


def _answer(node_id: int, reply: Message, attempts: int) -> Answer | None:
    """Return the answer in a reply; None if the message was lost on the way."""
    if not reply.has_error():
        return Answer(node_id, reply.content, None, attempts)
    code = reply.error.code
    if code in _LOST and attempts < _MAX_ATTEMPTS:
        return None
    failed = "failed", f"the site's process failed (Flower code {code})"
    return Answer(node_id, None, UpdateRefused(*_REFUSED_AT_GATE.get(code, failed)), attempts)
