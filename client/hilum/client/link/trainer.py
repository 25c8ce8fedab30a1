"""A warm process that does the work, and is killed when it must be.

It imports torch once and keeps what was compiled. The loop only waits for it, in slices, so the loop always moves: a
trainer that hangs, or is killed for its memory, costs one message and never the link.
"""

import json
import os
import queue
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from multiprocessing.connection import Connection

from flwr.proto.message_pb2 import Message as MessageProto
from flwr.proto.message_pb2 import ObjectTree

from hilum.client.link.letters import Letter, Reply
from hilum.common.processes import die_with_parent

SLICE_S = 0.5
_PATIENCE_S = 5.0  # a killed process is gone at once, unless the kernel is stuck with it


class TrainerDied(Exception):  # noqa: N818 - what happened
    """The trainer ended before it answered; the link starts it again. The text says how, for the site's own log."""


class TrainerLate(Exception):  # noqa: N818 - what happened
    """The time for the answer is over; the trainer was killed, and the link drops the message."""


@dataclass
class _Process:
    child: "subprocess.Popen[bytes]"
    connection: Connection = field(repr=False)
    lifeline: int

    def kill(self) -> None:
        """End it, and what it has started."""
        try:
            os.killpg(self.child.pid, signal.SIGKILL)
        except ProcessLookupError:
            self.child.poll()
        self.child.wait(_PATIENCE_S)

    def close(self) -> None:
        """Let go of what led to it."""
        os.close(self.lifeline)
        self.connection.close()


class Trainer:
    """The loop's side of the trainer. Use it from the main thread: the kernel ends a child with the thread that made it.

    Args:
        command: Starts the process; two file descriptors are added as its last arguments.
    """

    def __init__(self, command: Sequence[str]) -> None:
        self._command = tuple(command)
        self._process: _Process | None = None

    def start(self) -> None:
        """Start the process if it does not run, so that it is warm before it is needed."""
        if self._process is not None and self._process.child.poll() is not None:
            self.stop()
        if self._process is None:
            self._process = _start(self._command)

    def stop(self) -> None:
        """Kill the process. What it has to keep is on disk: it may be killed at any time."""
        process, self._process = self._process, None
        if process is not None:
            process.kill()
            process.close()

    def work(
        self,
        letter: Letter,
        objects: dict[str, bytes],
        *,
        waiting: Callable[[], None],
        begun: Callable[[int], None],
        now_s: Callable[[], float],
    ) -> Reply:
        """Have a message worked on.

        Args:
            letter: The message.
            objects: All its objects; they are left as they are.
            waiting: Called in each slice of waiting.
            begun: Called with the round, or 0, once the work itself begins.
            now_s: The clock by which the letter ends.

        Raises:
            TrainerDied: If the process ended first.
            TrainerLate: If the time for an answer is over.
        """
        self.start()
        process = self._process
        assert process is not None
        heard: queue.SimpleQueue[Reply | int | None] = queue.SimpleQueue()
        # A thread talks, because a hung process may not even read; killing it ends the thread.
        talk = threading.Thread(target=_talk, args=(process.connection, letter, objects, heard), daemon=True)
        talk.start()
        try:
            return _listen(process, heard, letter.ends_s, waiting, begun, now_s)
        except BaseException:
            process.kill()
            talk.join(_PATIENCE_S)  # it reads the end of the connection before that is closed
            self.stop()
            raise


def _listen(
    process: _Process,
    heard: "queue.SimpleQueue[Reply | int | None]",
    ends_s: float,
    waiting: Callable[[], None],
    begun: Callable[[int], None],
    now_s: Callable[[], float],
) -> Reply:
    """Wait in slices for the reply; see `Trainer.work`."""
    while now_s() < ends_s:
        waiting()
        try:
            said = heard.get(timeout=SLICE_S)
        except queue.Empty:
            continue
        if isinstance(said, Reply):
            return said
        if said is None:
            raise TrainerDied(_how(process.child))
        begun(said)
    raise TrainerLate


def _start(command: Sequence[str]) -> _Process:
    ours, theirs = socket.socketpair()
    ending, lifeline = os.pipe()
    try:
        child = subprocess.Popen(  # noqa: S603 - our own command line
            [*command, str(theirs.fileno()), str(ending)],
            stdin=subprocess.DEVNULL,
            stdout=sys.__stderr__,
            start_new_session=True,  # a group of its own, to be killed with what it starts
            preexec_fn=die_with_parent,  # noqa: PLW1509 - it calls nothing but prctl
            pass_fds=(theirs.fileno(), ending),
        )
    finally:
        theirs.close()
        os.close(ending)
    return _Process(child, Connection(ours.detach()), lifeline)


def _talk(
    connection: Connection,
    letter: Letter,
    objects: dict[str, bytes],
    heard: "queue.SimpleQueue[Reply | int | None]",
) -> None:
    """Send the message, then pass on what comes back: the round, the reply, or None if the process is gone."""
    try:
        send_letter(connection, letter, objects)
        while True:
            said = json.loads(connection.recv_bytes())
            if "round" in said:
                heard.put(said["round"])
                continue
            message = MessageProto.FromString(connection.recv_bytes())
            tree = ObjectTree.FromString(connection.recv_bytes())
            heard.put(Reply(message, tree, {key: connection.recv_bytes() for key in said["objects"]}))
            return
    except (EOFError, OSError):
        heard.put(None)


def send_letter(connection: Connection, letter: Letter, objects: dict[str, bytes]) -> None:
    """Send a message to the trainer as plain bytes; `receive_letter` is the inverse."""
    head = {"root": letter.root, "made_s": letter.made_s, "objects": list(objects)}
    connection.send_bytes(json.dumps(head).encode())
    connection.send_bytes(letter.metadata.SerializeToString())
    for content in objects.values():
        connection.send_bytes(content)


def receive_letter(connection: Connection) -> tuple[Letter, dict[str, bytes]]:
    """Receive what `send_letter` sent.

    Raises:
        EOFError: If the loop is gone.
    """
    head = json.loads(connection.recv_bytes())
    metadata = MessageProto.FromString(connection.recv_bytes())
    objects = {key: connection.recv_bytes() for key in head["objects"]}
    return Letter(metadata, head["root"], {}, head["made_s"]), objects


def _how(child: "subprocess.Popen[bytes]") -> str:
    try:
        code = child.wait(_PATIENCE_S)
    except subprocess.TimeoutExpired:
        return "it closed its connection"
    if code >= 0:
        return f"it ended with code {code}"
    name = signal.Signals(-code).name
    why = "; the machine may have run out of memory" if code == -signal.SIGKILL else ""
    return f"it was ended by {name}{why}"
