"""The loop of a site: ask for a message, have it worked on, deliver the reply, again.

It stamps a file as it goes, in its retries and while it waits for the trainer, so that the supervisor tells it from a hung
one. It imports no torch. A broken link costs time and nothing else: what has arrived is not asked for again, and a
reply is kept until it is delivered or nobody waits for it any more.
"""

import datetime as dt
import logging
import random
import threading
import time
from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from cryptography.hazmat.primitives import hashes
from flwr.proto.message_pb2 import Message as MessageProto
from flwr.proto.message_pb2 import ObjectTree

from hilum.client.link.explain import Cause, Patience, clock_line, explain
from hilum.client.link.fleet_client import (
    HEARTBEAT_S,
    Answered,
    CallError,
    FleetClient,
    NotAServer,
)
from hilum.client.link.identity import Identity
from hilum.client.link.letters import (
    MAX_MESSAGE_BYTES,
    Arrival,
    Letter,
    Malformed,
    Reply,
    open_letter,
    refusal,
)
from hilum.client.link.teller import Teller
from hilum.client.link.trainer import Trainer, TrainerDied, TrainerLate
from hilum.common.errors import ConfigError, FederationError
from hilum.common.files import read_json, write_json
from hilum.common.records import EVALUATE, HELLO, SCORE, TRAIN
from hilum.common.supervise import FINAL, Stamp
from hilum.common.wire_ids import node_id_of

_FIRST_WAIT_S, _MAX_WAIT_S = 1.0, 30.0
_SLICE_S = 0.5
_GOODBYE_S = 2.0
_REMEMBERED = 256
_ACKNOWLEDGED_EVERY_S = 15.0
_EXPIRES_SOON = dt.timedelta(days=14)
_DAY_S = 86_400.0
_NOT_OPEN = {
    403,
    409,
    410,
}  # of a message: it is over, answered otherwise, or was a server's that has started again
_MAX_SENDS = 4  # of one object: it is sent again where the server has lost it, and the policy counts it once
_NEVER_TAKEN = {400, 413}  # of an answer: sent again, it would be refused again
_DOING = {HELLO: "greeting", SCORE: "scoring", TRAIN: "training", EVALUATE: "evaluating"}
_log = logging.getLogger("hilum.link")
_T = TypeVar("_T")


class LinkEnded(FederationError):  # noqa: N818 - what happened
    """The link can't work until someone has mended something here. The text is the line to show."""

    exit_code = FINAL


class _Closed(Exception):  # noqa: N818 - what happened
    """The server does not want an answer to this message any more."""


class _NotTaken(Exception):  # noqa: N818 - what happened
    """The server will never take this answer."""


class _Over(Exception):  # noqa: N818 - what happened
    """The time for an answer to this message is over."""


@dataclass
class Acknowledged:
    """A file that tells when the server last answered; shown to people, and decides nothing but how final a wrong root is."""

    path: Path
    identity: Identity
    _written_s: float = field(default=float("-inf"), init=False)

    def note(self) -> None:
        """Note an answer."""
        if time.monotonic() - self._written_s > _ACKNOWLEDGED_EVERY_S:
            self._written_s = time.monotonic()
            write_json(self.path, {"at": time.time(), **self._who()})

    def known(self) -> bool:
        """Tell whether this server ever answered with a certificate of this root."""
        try:
            said = read_json(self.path)
            return all(said.get(key) == value for key, value in self._who().items())
        except (OSError, ValueError, AttributeError):
            return False

    def _who(self) -> dict[str, str]:
        root = self.identity.root.fingerprint(hashes.SHA256()).hex()
        return {"server": self.identity.where, "root_sha256": root}


class Loop:
    """One site's loop.

    Args:
        read_papers: Reads the site's papers; called again after a failure, as they may have been renewed.
        trainer: Does the work.
        stamp: Says that the loop moves.
        acknowledged: Where to write when the server last answered.
        at_most_bytes: The largest message that this site takes.
    """

    def __init__(
        self,
        read_papers: Callable[[], Identity],
        trainer: Trainer,
        stamp: Stamp,
        acknowledged: Path,
        *,
        at_most_bytes: int = MAX_MESSAGE_BYTES,
    ) -> None:
        self._read_papers, self._trainer, self._stamp = read_papers, trainer, stamp
        self._at_most_bytes = at_most_bytes
        self._identity = read_papers()
        self._node_id = node_id_of(self._identity.name)
        self._client = FleetClient(self._identity)
        self._acknowledged = Acknowledged(acknowledged, self._identity)
        self._known = self._acknowledged.known()
        self._teller = Teller(_log)
        self._heartbeat = Heartbeat(lambda: self._client, self._node_id)
        self._answered: deque[str] = deque(maxlen=_REMEMBERED)
        self._connected = False
        self._wait_s = _FIRST_WAIT_S
        self._warned_s = float("-inf")
        self._round = ""

    def run(self) -> None:
        """Run until an exception ends it, such as that of a signal.

        Raises:
            LinkEnded: If trying again can't help.
        """
        self._trainer.start()
        self._heartbeat.start()
        try:
            while True:
                for sent, tree in self._persist(self._pull):
                    self._take(sent, tree)
        finally:
            self._leave()

    def _leave(self) -> None:
        self._trainer.stop()
        self._heartbeat.stop()
        if self._connected:
            try:
                self._client.deactivate(self._node_id, _GOODBYE_S)
            except CallError as error:
                _log.debug("the server was not told (%s)", type(error).__name__)
        self._client.close()

    # What is tried until it works.

    def _persist(self, step: Callable[[], _T], until_s: float = float("inf")) -> _T:
        """Do one step, over however many broken links.

        Raises:
            _Over: If it did not succeed in time.
            LinkEnded: If trying again can't help.
        """
        while True:
            self._stamp.touch()
            if time.monotonic() >= until_s:
                raise _Over
            try:
                done = step()
            except CallError as error:
                self._connected = False
                cause = self._explain(error)
                if cause.patience is Patience.NEVER and not self._renewed():
                    raise LinkEnded(cause.text) from None
                self._rest(cause, until_s)
            else:
                self._worked()
                return done

    def _explain(self, error: Exception) -> Cause:
        client = self._client
        return explain(error, self._identity, client.proxy, known=self._known, answered=client.answered)

    def _worked(self) -> None:
        self._known = True
        self._wait_s = _FIRST_WAIT_S
        self._acknowledged.note()
        if not self._connected:
            self._connected = True
            self._teller.tell(f"connected to {self._identity.where} as {self._identity.name}")
            self._warn()
        elif time.monotonic() - self._warned_s > _DAY_S:
            self._warn()

    def _warn(self) -> None:
        """Say what will go wrong before it does."""
        self._warned_s = time.monotonic()
        line = clock_line(self._client.clock_ahead_s)
        if line is not None:
            _log.warning("%s", line)
        now = dt.datetime.now(dt.UTC)
        if self._identity.ends - now < _EXPIRES_SOON:
            self._renewed()  # what `hilum site join` has put there since is taken up, and not asked for again
        left = self._identity.ends - now
        if left < _EXPIRES_SOON:
            _log.warning(
                "this site's certificate ends in %d days: send site.csr to the federation's admin again, and take what "
                "comes back with `hilum site join`",
                left.days,
            )

    def _rest(self, cause: Cause, until_s: float) -> None:
        """Say what is wrong, and wait before the next try; then begin with fresh connections and papers."""
        wait_s = _MAX_WAIT_S if cause.patience is Patience.SLOWLY else self._wait_s
        self._wait_s = min(2 * self._wait_s, _MAX_WAIT_S)
        wait_s *= random.uniform(0.5, 1.0)  # noqa: S311 - jitter, not a secret
        self._teller.trouble(cause.text, f"trying again in {max(wait_s, 1.0):.0f} s")
        self._pause(min(time.monotonic() + wait_s, until_s))
        self._renewed()

    def _pause(self, until_s: float) -> None:
        while (left_s := until_s - time.monotonic()) > 0:
            self._stamp.touch()
            time.sleep(min(left_s, _SLICE_S))

    def _renewed(self) -> bool:
        """Take up the papers as they are now; tell whether the site's certificate is another."""
        before = self._identity
        try:
            self._identity = self._read_papers()
        except ConfigError as error:
            self._teller.trouble(str(error), "the papers read before are used on")
            return False
        self._client.close()
        self._client = FleetClient(self._identity)
        self._acknowledged.identity = self._identity
        return before.certificate != self._identity.certificate

    # One call each, or a few.

    def _pull(self) -> list[tuple[MessageProto, ObjectTree]]:
        if not self._heartbeat.active:
            given = self._client.activate(self._stamp.touch)
            if given != self._node_id:
                raise NotAServer("it gives this site another number than its name's")
            self._heartbeat.active = True
        return self._client.pull_messages(self._node_id, self._stamp.touch)

    def _fetch(self, letter: Letter, arrival: Arrival) -> None:
        """Ask for the objects that have not arrived."""
        for object_id in list(arrival.missing):
            answer = self._client.pull_object(self._node_id, letter.run_id, object_id, self._stamp.touch)
            if not answer.object_found:
                raise _Closed
            if not answer.object_available:
                self._pause(time.monotonic() + _FIRST_WAIT_S)
                return
            arrival.put(object_id, answer.object_content)
        self._client.confirm(self._node_id, letter.run_id, letter.root, self._stamp.touch)

    def _send(self, letter: Letter, reply: Reply, sent: Counter[str]) -> bool:
        """Announce a reply and send what the server lacks of it; True once it has all.

        Args:
            letter: The message.
            reply: The answer to it.
            sent: How often each object went out whole.

        Raises:
            _NotTaken: If the server asks for one again and again: `max_sent_mb` counts a reply once.
        """
        answer = self._client.push_messages(self._node_id, reply.message, reply.tree, self._stamp.touch)
        for object_id in dict.fromkeys(answer.objects_to_push):
            content = reply.objects.get(object_id)
            if content is None:
                raise NotAServer("it asks for an object that was never announced")
            if sent[object_id] >= _MAX_SENDS:
                raise _NotTaken(f"it asks for one object more than {_MAX_SENDS} times")
            stored = self._client.push_object(
                self._node_id, letter.run_id, answer.session_id, object_id, content, self._stamp.touch
            )
            sent[object_id] += 1
            if not stored:
                self._pause(time.monotonic() + _FIRST_WAIT_S)
                return False
        return True

    # One message.

    def _take(self, sent: MessageProto, tree: ObjectTree) -> None:
        """Work on a message from its announcement to its answer."""
        try:
            letter = open_letter(
                sent, tree, node_id=self._node_id, clock_ahead_s=self._client.clock_ahead_s or 0.0
            )
        except Malformed as error:
            self._teller.trouble(f"a message was not taken: {error}", "")
            self._pause(time.monotonic() + _FIRST_WAIT_S)  # else a server could keep this loop spinning
            return
        if letter.message_id in self._answered:
            self._pause(time.monotonic() + _SLICE_S)
            return
        try:
            self._deliver(letter, self._reply_to(letter))
        except _Closed:
            _log.warning("the server has closed this message; its answer is dropped")
        except (_Over, TrainerLate):
            _log.warning("the time for an answer is over; the work on it is dropped")
        except _NotTaken as refused:
            _log.error("the server does not take the answer (%s); it is dropped", refused)
        self._answered.append(letter.message_id)

    def _reply_to(self, letter: Letter) -> Reply:
        arrival = Arrival(letter, self._at_most_bytes)
        try:
            while list(arrival.missing):
                self._persist(_of_message(lambda: self._fetch(letter, arrival)), letter.ends_s)
        except Malformed as error:
            _log.warning("a message was refused: %s", error)
            return refusal(letter, self._identity.name, "wrong_format")
        for again in (True, False):
            try:
                return self._trainer.work(
                    letter,
                    arrival.objects,
                    waiting=self._while_working,
                    begun=lambda number: self._say_begun(letter, number),
                    now_s=time.monotonic,
                )
            except TrainerDied as error:
                next_step = "it is started again" if again else "the message is refused"
                _log.error("the training process died: %s; %s", error, next_step)
        return refusal(letter, self._identity.name, "trainer_died")

    def _say_begun(self, letter: Letter, number: int) -> None:
        self._round = f"round {number}: " if number else ""
        self._teller.tell(f"{self._round}{_DOING[letter.kind]}")

    def _while_working(self) -> None:
        """Stamp, and say when the link is lost while the work goes on."""
        self._stamp.touch()
        failure = self._heartbeat.failure
        if failure is not None:
            self._connected = False
            cause = self._explain(failure)
            self._teller.trouble(cause.text, "the work goes on meanwhile")
        elif self._heartbeat.heard_s > time.monotonic() - 2 * HEARTBEAT_S:
            self._worked()

    def _deliver(self, letter: Letter, reply: Reply) -> None:
        began_s, sent = time.monotonic(), Counter[str]()
        while not self._persist(_of_message(lambda: self._send(letter, reply, sent)), letter.ends_s):
            continue
        took_s = time.monotonic() - began_s
        self._teller.tell(f"{self._round}sent {_size(reply.size_bytes)} in {took_s:.1f} s")
        self._round = ""


def _of_message(step: Callable[[], _T]) -> Callable[[], _T]:
    """Return a step about one message: what the server says of that message is not about the link."""

    def judged() -> _T:
        try:
            return step()
        except Answered as error:
            if error.status in _NOT_OPEN:
                raise _Closed from None
            if error.status in _NEVER_TAKEN:
                raise _NotTaken(str(error.status)) from None
            raise

    return judged


def _size(size_bytes: int) -> str:
    mega, kilo = size_bytes / 1e6, size_bytes / 1e3
    return f"{mega:.1f} MB" if round(mega, 1) > 0 else f"{kilo:.1f} kB"


class Heartbeat:
    """Says every few seconds that the site is here, from a thread, while the loop waits for its trainer.

    Attributes:
        active: The server knows that this site is here. The loop sets it, and activates the site when it is not.
        failure: Why the latest heartbeat failed, or None.
        heard_s: When the latest one succeeded.
    """

    def __init__(self, client: Callable[[], FleetClient], node_id: int) -> None:
        self._client, self._node_id = client, node_id
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._beat, daemon=True, name="heartbeat")
        self.active = False
        self.failure: Exception | None = None
        self.heard_s = float("-inf")

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def stop(self) -> None:
        """End, without waiting for a call that is on its way."""
        self._stopping.set()

    def _beat(self) -> None:
        while not self._stopping.wait(HEARTBEAT_S):
            if not self.active:
                continue
            try:
                if self._client().heartbeat(self._node_id):
                    self.heard_s = time.monotonic()
                else:
                    self.active = False
                self.failure = None
            except Exception as error:  # whatever it is, the next beat must come
                self.failure = error
