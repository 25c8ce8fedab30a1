"""A trainer for tests of the link: the real process's inside, with an answer that does what the message says.

    python tests/support/stand_in_trainer.py FOLDER CONNECTION_FD LIFELINE_FD

The message's facts hold `do`: a word of `_answer`. FOLDER/taken gets a line for each message.
"""

import os
import signal
import subprocess
import sys
import time
from multiprocessing.connection import Connection
from pathlib import Path

from flwr.app import ConfigRecord, Message, RecordDict

from hilum.client.link.trainer_process import die_with_lifeline, serve
from hilum.common.log_setup import log_plainly

folder = Path(sys.argv[1])


def _answer(message, _context):
    do = str(message.content["facts"]["do"])
    with (folder / "taken").open("a") as taken:
        taken.write(f"{os.getpid()} {do}\n")
    if do == "die" or (do == "die once" and len((folder / "taken").read_text().splitlines()) == 1):
        os.kill(os.getpid(), signal.SIGKILL)
    if do == "hang":
        child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
        (folder / "grandchild").write_text(str(child.pid))
        time.sleep(600)
    if do.startswith("take "):
        time.sleep(float(do.split()[1]))
    if do == "fail":
        raise KeyError("ZZPHI in the text of an exception")
    if do == "twice":
        content = RecordDict(dict(message.content))
        content["again"] = message.content["arrays"]
        return Message(content, reply_to=message)
    return Message(RecordDict({**message.content, "did": ConfigRecord({"do": do})}), reply_to=message)


if __name__ == "__main__":
    log_plainly()
    die_with_lifeline(int(sys.argv[3]))
    serve(Connection(int(sys.argv[2])), _answer, "site-a")
