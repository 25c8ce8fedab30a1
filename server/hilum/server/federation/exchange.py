"""Ask many sites, take answers as they come, and ask again where a site was lost on the way.

Flower drops a message whose node died. So a node that is reported lost is asked anew, once it is back, with the same
request; requests are made such that doing one twice gives the same answer.
"""

import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field

from flwr.app import Message, RecordDict
from flwr.serverapp import Grid

_ASK_AGAIN_AFTER_S = 1.0
# flwr.common.constant.ErrorCode: message lost, reply lost, node gone, client process died.
_LOST = {3, 4, 5, 8}


@dataclass(frozen=True)
class Answer:
    """One node's answer: content, or the reason why there is none."""

    node_id: int
    content: RecordDict | None = field(repr=False)
    problem: str = ""
    attempts: int = 1


@dataclass
class _Pending:
    """A node that has not answered: the message it was sent, or when to send the next."""

    message_id: str | None = None
    ask_at: float = 0.0
    attempts: int = 0


def exchange(
    grid: Grid,
    requests: Mapping[int, Callable[[], RecordDict]],
    message_type: str,
    *,
    deadline_s: float,
    poll_s: float,
) -> Iterator[Answer]:
    """Send one request to each node and yield the answers in the order of arrival.

    Args:
        grid: Flower's grid.
        requests: Makes the request of each node; called again when the node is asked again.
        message_type: Flower's.
        deadline_s: When to stop waiting, from now.
        poll_s: How often to look.
    """
    until = time.monotonic() + deadline_s
    pending = {node_id: _Pending() for node_id in requests}
    while pending and time.monotonic() < until:
        _ask(grid, requests, message_type, pending, until)
        by_message = {one.message_id: node_id for node_id, one in pending.items() if one.message_id}
        for reply in grid.pull_messages(list(by_message)) if by_message else ():
            node_id = by_message[reply.metadata.reply_to_message_id]
            answer = _answer(node_id, reply, pending[node_id])
            if answer is None:
                pending[node_id].message_id = None
                pending[node_id].ask_at = time.monotonic() + _ASK_AGAIN_AFTER_S
            else:
                del pending[node_id]
                yield answer
        if pending:
            time.sleep(poll_s)
    for node_id, one in pending.items():
        yield Answer(node_id, None, f"no answer within {deadline_s:g} s", one.attempts)


def _ask(
    grid: Grid,
    requests: Mapping[int, Callable[[], RecordDict]],
    message_type: str,
    pending: dict[int, _Pending],
    until: float,
) -> None:
    """Push to the nodes that are due and online."""
    now = time.monotonic()
    due = [node_id for node_id, one in pending.items() if one.message_id is None and one.ask_at <= now]
    if not due:
        return
    online = set(grid.get_node_ids())
    for node_id in due:
        one = pending[node_id]
        if node_id not in online:
            one.ask_at = now + _ASK_AGAIN_AFTER_S
            continue
        message = Message(requests[node_id](), node_id, message_type, ttl=max(1.0, until - now))
        pushed = list(grid.push_messages([message]))
        one.message_id = pushed[0] or None
        one.ask_at = now + _ASK_AGAIN_AFTER_S
        one.attempts += 1


def _answer(node_id: int, reply: Message, one: _Pending) -> Answer | None:
    """The answer in a reply; None if the message was lost on the way."""
    if not reply.has_error():
        return Answer(node_id, reply.content, "", one.attempts)
    if reply.error.code in _LOST:
        return None
    return Answer(node_id, None, f"the site's process failed (Flower code {reply.error.code})", one.attempts)
