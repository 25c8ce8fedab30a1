"""The server itself, as `hilum admin serve` starts it: the gate, the admin's socket, and the worker of the queue.

    python -m hilum.server.process --home HOME --host HOST --port PORT

One thread has the event loop of gate and socket, and stamps from within it: a loop that hangs stops stamping, and the
supervisor kills the process and starts another. A second thread works the queue off; what was running goes on.
"""

import argparse
import asyncio
import logging
import os
import signal
import sys
import threading
from pathlib import Path

import uvicorn
from sqlalchemy.exc import OperationalError

from hilum.common.errors import ConfigError, DamagedError, FederationError, HilumError
from hilum.common.lockdown import close_outbound
from hilum.common.locks import only_one
from hilum.common.signing import public_key_of
from hilum.common.supervise import FINAL, Stamp
from hilum.server.admin.authority import ONE_SERVER, SERVER_LOCK, FederationFolder
from hilum.server.admin.plane import listen, make_plane, plane_server
from hilum.server.admin.queue import RunQueue
from hilum.server.admin.worker import RunWorker
from hilum.server.gate import Gate, GateServer, make_server
from hilum.server.serve import STAMP
from hilum.server.server_log import SiteWatch, log_to
from hilum.server.sites import SiteRegistry

_TURN_S = 30.0  # a server whose supervisor was killed needs a moment to end
_LOOK_EVERY_S = 1.0
_STOP_S = 3.0  # for each of two threads: together less than the supervisor's patience
_log = logging.getLogger("hilum.server")


def main() -> None:
    """Serve until asked to end, and end with a code that tells the supervisor whether to start again."""
    parser = argparse.ArgumentParser(description="The server that `hilum admin serve` keeps running.")
    parser.add_argument("--home", type=Path, required=True)
    parser.add_argument("--host", required=True)
    parser.add_argument("--port", type=int, required=True)
    options = parser.parse_args()
    os.umask(0o077)
    close_outbound()
    folder = FederationFolder(options.home)
    try:
        log_to(folder.file("server.log"))
        with only_one(folder.file(SERVER_LOCK), ONE_SERVER, patience_s=_TURN_S):
            Server(folder, options.host, options.port).run()
    except HilumError as error:
        _log.error("%s", error)
        sys.exit(FINAL if isinstance(error, ConfigError | DamagedError) else error.exit_code)


class Server:
    """One server: everything that it holds, and its two threads.

    Args:
        folder: The federation.
        host: The address to listen on.
        port: The port to listen on.
    """

    def __init__(self, folder: FederationFolder, host: str, port: int) -> None:
        self._folder = folder
        self._where = f"{host or 'all addresses'}:{port}"
        self._registry: SiteRegistry = folder.sites()
        self._queue = RunQueue(folder.file("runs.sqlite"))
        study_key = public_key_of(folder.study_key_text())
        self._gate = Gate(self._registry)
        self._gate_server: GateServer = make_server(
            self._gate,
            host=host,
            port=port,
            certificate=folder.file("server.crt"),
            key=folder.file("server.key"),
            roots=folder.file("root.crt"),
        )
        self._worker = RunWorker(self._queue, folder.runs, study_key, self._gate.grid, _run_study)
        plane = make_plane(self._queue, self._worker, folder.runs, self._gate.seen, self._take_up_certificate)
        self._plane_server: uvicorn.Server = plane_server(plane)
        self._stamp = Stamp(folder.file(STAMP))
        self._ending = threading.Event()
        self._failure = ""

    def run(self) -> None:
        """Serve until this process is asked to end.

        Raises:
            FederationError: If a part of the server ended by itself.
        """
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda _number, _frame: self._ending.set())
        parts = {
            "the gate": threading.Thread(target=self._serve_forever, name="gate", daemon=True),
            "the queue of runs": threading.Thread(target=self._work_forever, name="runs", daemon=True),
        }
        for thread in parts.values():
            thread.start()
        self._ending.wait()
        _log.info("ending")
        self._worker.end()
        for thread in parts.values():
            thread.join(_STOP_S)
        if self._failure:
            raise FederationError(self._failure)
        _log.info("ended")

    def _work_forever(self) -> None:
        try:
            self._worker.work()
        except Exception as error:
            _log.exception("the queue of runs met an internal error")
            self._failure = f"the queue of runs ended ({type(error).__name__})"
            self._ending.set()

    def _serve_forever(self) -> None:
        try:
            asyncio.run(self._serve())
        except Exception as error:
            _log.exception("the gate met an internal error")
            self._failure = f"the gate ended ({type(error).__name__})"
        finally:
            self._ending.set()

    async def _serve(self) -> None:
        with listen(self._folder.file("admin.sock")) as socket:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self._gate_server.serve())
                tasks.create_task(self._plane_server.serve([socket]))
                tasks.create_task(self._look_around())
        self._folder.file("admin.sock").unlink(missing_ok=True)

    async def _look_around(self) -> None:
        """Stamp, and tell of sites that come and go, until the server is to end."""
        watch, told = SiteWatch(), False
        while not self._ending.is_set():
            self._stamp.touch()
            try:
                watch.look_at_registry(await asyncio.to_thread(self._registry.sites))
            except OperationalError:
                _log.warning("sites.sqlite can't be read just now")
            watch.look_at_signs(self._gate.seen())
            if self._gate_server.started and not told:
                _log.info("serving on %s; runs are kept in %s", self._where, self._folder.runs)
                told = True
            await asyncio.sleep(_LOOK_EVERY_S if told else 0.1)
        self._gate_server.should_exit = self._plane_server.should_exit = True

    def _take_up_certificate(self) -> None:
        """Use a renewed certificate for the connections that are made from now on."""
        self._folder.check_server(self._folder.address().hosts)
        self._gate_server.tls.load_cert_chain(
            self._folder.file("server.crt"), self._folder.file("server.key")
        )
        _log.info("the server's certificate was renewed")


def _run_study(*work: object) -> None:
    """Run a study; torch is imported when the first one begins."""
    from hilum.server.app import conduct_order

    conduct_order(*work)  # type: ignore[arg-type]


if __name__ == "__main__":
    main()
