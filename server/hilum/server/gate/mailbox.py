"""Messages to sites and their replies: plain state under one lock, because the grid's threads and the event loop share it.

A site is known by the name in its certificate alone. Whatever a call names that is not part of this site's own open
messages is refused. Every message is answered once: by the site, or by an error when its time is over or its reply fails.
"""

import asyncio
import threading
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Literal

from flwr.app import Error
from flwr.app.metadata import Metadata
from flwr.common.constant import ErrorCode
from flwr.proto.message_pb2 import Message as ProtoMessage
from flwr.proto.message_pb2 import ObjectTree

from hilum.server.gate.bounds import GateBounds
from hilum.server.gate.objects import (
    MALFORMED,
    TOO_LARGE,
    ArrivingReply,
    Malformed,
    SharedObjects,
    TooLarge,
    error_of,
)
from hilum.server.gate.refused import Refused

_NEVER = float("-inf")

# How a message may end, and what a site is told that answers it afterwards.
Outcome = Literal["answered", "too_large", "malformed", "expired", "dropped"]
_TOLD: dict[Outcome, int] = {
    "answered": 409,
    "too_large": 413,
    "malformed": 400,
    "expired": 410,
    "dropped": 410,
}
_ERRORS: dict[Outcome, int] = {
    "too_large": TOO_LARGE,
    "malformed": MALFORMED,
    "expired": ErrorCode.MESSAGE_UNAVAILABLE,
}


@dataclass
class OpenMessage:
    """A message to a site, from when it is pushed until its answer is taken.

    Attributes:
        site: The addressee's name.
        metadata: As the server made it; a reply's is derived from it, never from what the site sent.
        proto: What pull-messages gives: the message without its content.
        tree: What the content is made of.
        object_ids: Every object of the tree.
        deadline: On the monotonic clock; there is no answer after it.
        reply_limit_bytes: The most that the reply may hold.
        delivered_at: When it was handed out last, or when an object of it was asked for.
        delivered: It was handed out since the site was activated last.
        confirmed: The site said since then that it has all of it.
        outcome: How it ended; None while the site may still answer.
        reply_id: The root of the site's complete reply.
        reply: That reply, until the grid takes it.
        taken: The grid has the answer.
    """

    site: str
    metadata: Metadata
    proto: ProtoMessage
    tree: ObjectTree
    object_ids: frozenset[str]
    deadline: float
    reply_limit_bytes: int
    delivered_at: float = _NEVER
    delivered: bool = False
    confirmed: bool = False
    outcome: Outcome | None = None
    reply_id: str = ""
    reply: ArrivingReply | None = None
    taken: bool = False

    @property
    def message_id(self) -> str:
        """Flower's id: the hash of the whole message."""
        return self.metadata.message_id


@dataclass
class _Site:
    """What the gate knows of one site.

    Attributes:
        seen: When the last authenticated call came; None after it signed off.
        arriving: The reply whose objects are coming, and the message it answers: one at a time.
        arrived: The objects of the reply before, so that one sent twice is not an error.
        polls: Calls for messages that are being held.
    """

    seen: float | None = None
    arriving: tuple[OpenMessage, ArrivingReply] | None = None
    arrived: frozenset[str] = frozenset()
    polls: set[tuple[asyncio.AbstractEventLoop, asyncio.Event]] = field(default_factory=set)

    def wake(self) -> None:
        """Let the held calls look again; from any thread."""
        for loop, event in self.polls:
            loop.call_soon_threadsafe(event.set)


class Mailbox:
    """The gate's whole state."""

    def __init__(self, bounds: GateBounds) -> None:
        self.bounds = bounds
        self._changed = threading.Condition()
        self._sites: dict[str, _Site] = {}
        self._messages: dict[str, OpenMessage] = {}
        self._objects = SharedObjects()

    # What sites ask for: the event loop's side. `site` is always the name in the certificate.

    def saw(self, site: str) -> None:
        """Note a sign of life."""
        with self._state() as sites:
            sites.setdefault(site, _Site()).seen = time.monotonic()

    def activate(self, site: str) -> None:
        """Begin again with a site whose process is new: what it had but did not answer is delivered again."""
        with self._state() as sites:
            sites[site].arriving = None
            for message in self._open_messages(site):
                message.delivered = message.confirmed = False
            sites[site].wake()

    def deactivate(self, site: str) -> None:
        """Note that a site signed off."""
        with self._state() as sites:
            sites[site].seen = None

    @contextmanager
    def poll(self, site: str) -> Iterator[asyncio.Event]:
        """Give an event of the running loop that is set when the site has a message."""
        waiting = asyncio.get_running_loop(), asyncio.Event()
        with self._state() as sites:
            sites[site].polls.add(waiting)
        try:
            yield waiting[1]
        finally:
            with self._state() as sites:
                sites[site].polls.discard(waiting)

    def next_message(self, site: str) -> OpenMessage | None:
        """Hand out the site's oldest message that it does not have."""
        with self._state():
            now = time.monotonic()
            lost = now - self.bounds.redeliver_after_s
            for message in self._open_messages(site):
                if not message.delivered or (not message.confirmed and message.delivered_at < lost):
                    message.delivered, message.delivered_at = True, now
                    return message
            return None

    def object_of(self, site: str, run_id: int, object_id: str) -> Callable[[], bytes]:
        """Return what makes the bytes of an object of one of the site's delivered messages.

        Raises:
            Refused: If it is of no such message.
        """
        with self._state():
            for message in self._open_messages(site):
                if (
                    message.delivered
                    and message.metadata.run_id == run_id
                    and object_id in message.object_ids
                ):
                    message.delivered_at = time.monotonic()
                    return self._objects.get(object_id)
        raise Refused(403, "not_yours")

    def confirm(self, site: str, run_id: int, message_id: str) -> None:
        """Note that the site has the whole message.

        Raises:
            Refused: If it is not this site's.
        """
        with self._state():
            self._message(site, run_id, message_id).confirmed = True

    def announce(self, site: str, run_id: int, message_id: str, tree: ObjectTree) -> list[str]:
        """Begin a reply, or go on with it, and return the objects that are missing.

        Args:
            site: The sender.
            run_id: The run that it says the reply is of.
            message_id: The message that it answers.
            tree: The objects that the reply is made of.

        Raises:
            Refused: If the message is not this site's, or was answered otherwise, or is over; or the tree is malformed.
        """
        with self._state() as sites:
            message = self._message(site, run_id, message_id)
            if message.outcome is not None:
                if message.reply_id == tree.object_id:
                    return []
                raise Refused(_TOLD[message.outcome], message.outcome)
            message.confirmed = True
            arriving = sites[site].arriving
            if arriving is None or arriving[0] is not message or arriving[1].root != tree.object_id:
                with self._failing(message):
                    arriving = message, ArrivingReply(tree, message.reply_limit_bytes, self.bounds)
                sites[site].arriving = arriving
            return arriving[1].missing

    def check_room(self, site: str, size_bytes: int) -> None:
        """Refuse the body of an object before it is read, if no reply is arriving or it is too large for that one.

        Raises:
            Refused: With the reason; a reply that is too large fails at once.
        """
        with self._state() as sites:
            if (arriving := sites[site].arriving) is None:
                if not sites[site].arrived:
                    raise Refused(403, "not_announced")
                return
            message, reply = arriving
            # A request is the object and less than a kilobyte around it.
            if size_bytes > reply.limit_bytes + 1024:
                with self._failing(message):
                    raise TooLarge

    def put_object(self, site: str, run_id: int, object_id: str, content: bytes) -> None:
        """Keep an object of the site's reply; the last one closes the message.

        Raises:
            Refused: If it was not announced, is not what it says, or is too large; the reply fails with the last two.
        """
        with self._state() as sites:
            arriving = sites[site].arriving
            if arriving is None or object_id not in arriving[1].ids:
                if object_id in sites[site].arrived:
                    return
                raise Refused(403, "not_announced")
            message, reply = arriving
            if message.metadata.run_id != run_id:
                raise Refused(403, "not_yours")
            with self._failing(message):
                reply.put(object_id, content)
            if not reply.missing:
                sites[site].arrived = reply.ids
                message.reply_id, message.reply = reply.root, reply
                self._close(message, "answered")

    # What the grid asks for, from other threads.

    def post(self, message: OpenMessage, objects: Mapping[str, Callable[[], bytes]]) -> None:
        """Put a message into its site's box.

        Raises:
            ValueError: If the very same message was pushed before.
        """
        with self._state() as sites:
            if message.message_id in self._messages:
                raise ValueError("this message was pushed before; make a new one")
            self._messages[message.message_id] = message
            self._objects.hold(objects)
            sites.setdefault(message.site, _Site()).wake()

    def take(
        self, run_id: int, message_ids: Collection[str]
    ) -> list[tuple[OpenMessage, ArrivingReply | Error]]:
        """Return the answers that are there, each once; the mailbox keeps nothing of them but that they were given."""
        answers: list[tuple[OpenMessage, ArrivingReply | Error]] = []
        with self._state():
            for message in self._to_take(message_ids):
                if message.metadata.run_id == run_id and message.outcome is not None:
                    answers.append((message, message.reply or error_of(_ERRORS[message.outcome])))
                    message.taken, message.reply = True, None
        return answers

    def wait(self, message_ids: Collection[str], timeout_s: float) -> bool:
        """Return as soon as there is an answer to take, or when the time is over; False if none can come."""
        with self._state():
            if not (waiting := self._to_take(message_ids)):
                return False
            first_end_s = min(one.deadline for one in waiting) - time.monotonic()
            self._changed.wait_for(
                lambda: not all(one.outcome is None for one in self._to_take(message_ids)),
                min(timeout_s, first_end_s),
            )
            return True

    def withdraw(self, run_id: int, message_ids: Iterable[str]) -> None:
        """Forget messages of a run: nobody waits for their answers any more."""
        with self._state():
            for message_id in message_ids:
                message = self._messages.get(message_id)
                if message is not None and message.metadata.run_id == run_id:
                    self._close(message, "dropped")
                    del self._messages[message_id]

    def drop_run(self, run_id: int) -> None:
        """Forget everything of a run."""
        with self._state():
            for message in [one for one in self._messages.values() if one.metadata.run_id == run_id]:
                self._close(message, "dropped")
                del self._messages[message.message_id]

    def silence_s(self) -> dict[str, float]:
        """Return how long ago each site gave a sign of life; those that signed off are left out."""
        now = time.monotonic()
        with self._state() as sites:
            return {name: now - site.seen for name, site in sites.items() if site.seen is not None}

    def wake_all(self) -> None:
        """Let all held calls look again."""
        with self._state() as sites:
            for site in sites.values():
                site.wake()

    # Under the lock.

    @contextmanager
    def _state(self) -> Iterator[dict[str, _Site]]:
        """Hold the lock, with every message closed whose time is over; one that is also taken is forgotten."""
        with self._changed:
            now = time.monotonic()
            for message in [one for one in self._messages.values() if one.deadline <= now]:
                if message.taken:
                    del self._messages[message.message_id]
                elif message.outcome is None:
                    self._close(message, "expired")
            yield self._sites

    def _open_messages(self, site: str) -> list[OpenMessage]:
        return [one for one in self._messages.values() if one.site == site and one.outcome is None]

    def _to_take(self, message_ids: Iterable[str]) -> list[OpenMessage]:
        found = (self._messages.get(message_id) for message_id in message_ids)
        return [one for one in found if one is not None and not one.taken]

    def _message(self, site: str, run_id: int, message_id: str) -> OpenMessage:
        """Return a message that the site was handed."""
        message = self._messages.get(message_id)
        if (
            message is None
            or message.site != site
            or message.metadata.run_id != run_id
            or not message.delivered
        ):
            raise Refused(403, "not_yours")
        return message

    @contextmanager
    def _failing(self, message: OpenMessage) -> Iterator[None]:
        """Close the message if its reply turns out malformed or too large."""
        try:
            yield
        except TooLarge:
            self._close(message, "too_large")
            raise
        except Malformed:
            self._close(message, "malformed")
            raise

    def _close(self, message: OpenMessage, outcome: Outcome) -> None:
        """End a message, and let go of its objects and of those of a reply that is still arriving."""
        if message.outcome is None:
            self._objects.release(message.object_ids)
            message.outcome = outcome
        site = self._sites[message.site]
        if site.arriving is not None and site.arriving[0] is message:
            site.arriving = None
        self._changed.notify_all()
