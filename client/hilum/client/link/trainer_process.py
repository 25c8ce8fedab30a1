"""Inside the trainer: the client app on one message after the other, in a process that holds torch.

    python -P -m hilum.client.link.trainer_process SITE_FILE CONNECTION_FD LIFELINE_FD

What it runs is what this site has installed. It gets messages and gives replies as plain bytes over a socket of the
loop's, and has no other connection.
"""

import gc
import json
import logging
import os
import signal
import sys
import threading
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path

from flwr.app import Context, Message, RecordDict

from hilum.client.disclosure import outgoing
from hilum.client.link.letters import Letter, pack_reply, read_request
from hilum.client.link.trainer import receive_letter
from hilum.common import records
from hilum.common.errors import RequestRefused
from hilum.common.lockdown import close_outbound
from hilum.common.log_setup import log_plainly

Answer = Callable[[Message, Context], Message]
_log = logging.getLogger(__name__)


def main() -> None:
    """Run until the loop is gone."""
    site_file, connection, lifeline = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
    close_outbound()
    log_plainly()
    die_with_lifeline(lifeline)
    from hilum.client.app import make_app
    from hilum.common.config import load_site

    name = load_site(site_file).site.name
    # The file is read for each message, so that a stricter policy holds at once.
    app = make_app(lambda _context: load_site(site_file))
    _warm_up()
    serve(Connection(connection), app, name)


def serve(connection: Connection, answer: Answer, name: str) -> None:
    """Answer messages until the loop is gone.

    Args:
        connection: To the loop.
        answer: Gives the reply to a message; Flower's ClientApp is one.
        name: The site's.
    """
    while True:
        try:
            letter, objects = receive_letter(connection)
        except EOFError:
            return
        content = _answer(connection, letter, objects, answer, name)
        _send(connection, letter, content)
        del letter, objects, content
        _tidy()


def die_with_lifeline(lifeline: int) -> None:
    """End this process and all that it has started as soon as the loop is gone, however it went."""

    def watch() -> None:
        os.read(lifeline, 1)  # returns when the loop's end is closed
        os.killpg(os.getpgid(0), signal.SIGKILL)

    threading.Thread(target=watch, daemon=True, name="lifeline").start()


def _answer(
    connection: Connection, letter: Letter, objects: dict[str, bytes], answer: Answer, name: str
) -> RecordDict:
    try:
        message = read_request(letter, objects)
    except Exception as error:  # what came can make a parser raise anything
        _log.warning("a message can't be read (%s)", type(error).__name__)
        return outgoing.refusal(name, "wrong_format")
    connection.send_bytes(json.dumps({"round": _round_of(message)}).encode())
    context = Context(
        run_id=letter.run_id,
        node_id=message.metadata.dst_node_id,
        node_config={},
        state=RecordDict(),
        run_config={},
    )
    try:
        return answer(message, context).content
    except Exception:
        _log.exception("the work on a message failed")
        return outgoing.refusal(name, "failed")


def _round_of(message: Message) -> int:
    """Return the round that is asked for, for a line in the site's log; 0 if it is none. The app checks it."""
    try:
        number = records.unpack_request(message.content).round_number
    except RequestRefused:
        return 0
    return number if 0 <= number < 10**6 else 0


def _send(connection: Connection, letter: Letter, content: RecordDict) -> None:
    message, tree, objects = pack_reply(letter, content)
    connection.send_bytes(json.dumps({"objects": list(objects)}).encode())
    connection.send_bytes(message.SerializeToString())
    connection.send_bytes(tree.SerializeToString())
    for one in objects.values():
        connection.send_bytes(one.deflate())


def _warm_up() -> None:
    """Import what the first message would wait for."""
    import hilum.client.evaluation.site
    import hilum.client.pretraining.site  # noqa: F401 - imported for the sake of the next import of it


def _tidy() -> None:
    """Give memory back: between two messages a site may wait for days."""
    gc.collect()
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_initialized():
        torch.cuda.empty_cache()


if __name__ == "__main__":
    main()
