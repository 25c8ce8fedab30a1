"""Works the queue of runs off, one at a time."""

import gc
import logging
import threading
import time
from collections.abc import Callable, Collection
from contextlib import closing
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from hilum.common.errors import HilumError, RequestRefused, RunError
from hilum.common.machine import machine_problem
from hilum.common.signing import SignedStudy, StudyOrder, verify_study
from hilum.server.admin.queue import FAILED, FINISHED, RUNNING, QueuedRun, RunQueue
from hilum.server.admin.runs import rounds_done
from hilum.server.federation.start_file import start_file

GridOf = Callable[[str, Collection[str]], Any]
RunStudy = Callable[[Any, StudyOrder, SignedStudy, Path, threading.Event], None]
_LOOK_EVERY_S = 5.0
_log = logging.getLogger(__name__)


class RunWorker:
    """Takes runs from the queue and conducts them, in a thread of its own.

    Args:
        queue: The queue.
        runs: The folder of run directories.
        study_key: The public key that every study must be signed with.
        grid_of: Gives the grid of a run and its sites; it is closed when the run ends.
        run_study: Runs a study on a grid; it raises a HilumError soon after the event that it is given is set.
    """

    def __init__(
        self, queue: RunQueue, runs: Path, study_key: Ed25519PublicKey, grid_of: GridOf, run_study: RunStudy
    ) -> None:
        self._queue, self._runs, self._study_key = queue, runs, study_key
        self._grid_of, self._run_study = grid_of, run_study
        self._changed = threading.Condition()
        self._current: tuple[str, threading.Event] | None = None
        self._ending = False

    def submit(self, signed: SignedStudy, *, resume: bool) -> StudyOrder:
        """Check a signed study and put it into the queue.

        Raises:
            RequestRefused: If the signature or what it is over does not hold.
            RunError: If the name is taken, there is nothing to go on with, or the weights it starts from are not here.
        """
        order = verify_study(signed, self._study_key, now=time.time(), site=None)
        folder = self._runs / order.run
        if order.start_sha256 and not start_file(self._runs, order.run, order.start_sha256).exists():
            raise RunError(
                "the weights that the study starts from are not here; submit it with `hilum admin submit` on this machine, which "
                "puts them there"
            )
        exists = folder.exists() and any(folder.iterdir())
        self._queue.submit(order.run, order.terms, signed, resume=resume, exists=exists)
        _log.info("run %s is queued for %s", order.run, ", ".join(order.sites))
        self.wake()
        return order

    def stop(self, run: str) -> None:
        """Stop a run; its checkpoints stay. `wait_idle` tells when it has let go of its sites.

        Raises:
            RunError: If there is no such run, or it is over.
        """
        before = self._queue.stop(run)
        with self._changed:
            if self._current is not None and self._current[0] == run:
                self._current[1].set()
        _log.info("run %s is to stop; it was %s", run, before)

    def wait_idle(self, run: str, timeout_s: float) -> bool:
        """Wait until nothing of a run is under way, and tell whether that came about in time."""
        with self._changed:
            return self._changed.wait_for(lambda: self._current is None or self._current[0] != run, timeout_s)

    def wake(self) -> None:
        """Let the worker look into the queue."""
        with self._changed:
            self._changed.notify_all()

    def work(self) -> None:
        """Take runs until `end` is called."""
        while not self._ending:
            queued = self._queue.take(lambda run: rounds_done(self._runs / run))
            if queued is not None:
                self._one(queued)
                continue
            with self._changed:
                if not self._ending:
                    self._changed.wait(_LOOK_EVERY_S)

    def end(self) -> None:
        """Let go: a run that is under way is cut off at its next call, and goes on at the server's next start."""
        with self._changed:
            self._ending = True
            if self._current is not None:
                self._current[1].set()
            self._changed.notify_all()

    def _one(self, queued: QueuedRun) -> None:
        """Conduct one run to its end, and note how it ended."""
        run, stop = queued.name, threading.Event()
        with self._changed:
            self._current = run, stop
            if self._ending:
                stop.set()
        try:
            if self._queue.run(run).state == RUNNING:  # else it was stopped since it was taken
                self._conduct_run(queued, stop)
        except HilumError as error:
            if not stop.is_set():
                self._failed(run, str(error))
        except Exception as error:
            problem = machine_problem(error)
            if problem is None:
                _log.exception("run %s met an internal error", run)
                self._failed(run, f"internal error ({type(error).__name__}); the server's log says where")
            else:
                self._failed(run, f"{problem}; then submit it again with --resume")
        else:
            self._queue.end(run, FINISHED)
        finally:
            gc.collect()  # Flower's records are cycles: without it the weights of several runs wait for the collector
            if stop.is_set():
                self._tell_stopped(run)
            with self._changed:
                self._current = None
                self._changed.notify_all()

    def _conduct_run(self, queued: QueuedRun, stop: threading.Event) -> None:
        try:
            order = verify_study(queued.signed, self._study_key, now=time.time(), site=None)
        except RequestRefused as refused:
            raise RunError(
                f"its signed study does not hold: {refused}; submit it again with --resume"
            ) from None
        folder = self._runs / queued.name
        with closing(self._grid_of(order.run, order.sites)) as grid:
            done, rounds = rounds_done(folder), order.study.federation.rounds
            _log.info("run %s starts: %d of %d rounds are done", queued.name, done, rounds)
            self._run_study(grid, order, queued.signed, folder, stop)

    def _tell_stopped(self, run: str) -> None:
        if self._ending and self._queue.run(run).state == RUNNING:
            self._queue.cut_off(run)
            _log.info("run %s is cut off; it goes on at the server's next start", run)
        else:
            _log.info("run %s has let go of its sites", run)

    def _failed(self, run: str, reason: str) -> None:
        if self._queue.end(run, FAILED, reason):
            _log.error("run %s failed: %s", run, reason)
