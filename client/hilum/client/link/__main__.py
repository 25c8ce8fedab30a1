"""The loop as a process: `python -P -m hilum.client.link SITE_FILE`, started by the supervisor of `hilum site start`."""

import logging
import os
import signal
import sys
from pathlib import Path
from types import FrameType

from hilum.client.link.identity import Identity, read_identity
from hilum.client.link.loop import Loop
from hilum.client.link.start import ACKNOWLEDGED, STAMP, link_folder, link_of, most_message_bytes
from hilum.client.link.trainer import Trainer
from hilum.common.config import load_site
from hilum.common.errors import HilumError
from hilum.common.lockdown import close_outbound
from hilum.common.log_setup import log_plainly
from hilum.common.supervise import Stamp

_log = logging.getLogger("hilum.link")


def main() -> int:
    """Run the loop until it is stopped; give the exit code."""
    site_file = Path(sys.argv[1])
    close_outbound()
    log_plainly()
    signal.signal(signal.SIGTERM, _stop)

    def read_papers() -> Identity:
        site = load_site(site_file)
        return read_identity(link_of(site, site_file), site.site.name)

    try:
        site = load_site(site_file)
        folder = link_folder(site)
        trainer = Trainer(
            [sys.executable, "-P", "-m", "hilum.client.link.trainer_process", str(site_file.absolute())]
        )
        Loop(
            read_papers,
            trainer,
            Stamp(folder / STAMP),
            folder / ACKNOWLEDGED,
            at_most_bytes=most_message_bytes(site.policy),
        ).run()
    except HilumError as error:
        _log.error("%s", error)
        return error.exit_code
    except SystemExit:
        return 0
    return 1


def _stop(_number: int, _frame: FrameType | None) -> None:
    raise SystemExit


if __name__ == "__main__":
    code = main()
    logging.shutdown()
    os._exit(code)  # whatever thread is left, the supervisor must see this process end
