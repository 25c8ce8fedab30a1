"""The queue of runs and its worker: first come first served, one at a time, and nothing is lost to a crash."""

import gc
import threading
import time
import weakref

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from hilum.common.errors import FederationError, RequestRefused, RunError
from hilum.common.signing import SignedStudy, sign_study
from hilum.server.admin.queue import MAX_STARTS, RunQueue
from hilum.server.admin.runs import summary
from hilum.server.admin.worker import RunWorker

KEY = Ed25519PrivateKey.generate()
SITES = ["site-0", "site-1", "site-2"]


def until(condition, patience_s=10.0):
    end = time.monotonic() + patience_s
    while not condition():
        assert time.monotonic() < end, "gave up waiting"
        time.sleep(0.01)


@pytest.fixture
def queue(tmp_path):
    opened = RunQueue(tmp_path / "runs.sqlite")
    yield opened
    opened.close()


@pytest.fixture
def sign(make_study):
    def run(name, *, key=KEY, now=None, days=1.0, **changes):
        study = make_study(**changes)
        return sign_study(study, run=name, sites=SITES, days=days, now=now or time.time(), key=key)

    return run


class Grid:
    def __init__(self, run, sites):
        self.run, self.sites, self.closed = run, sites, False

    def close(self):
        self.closed = True


class Conductor:
    """Stands in for a study: it writes a round when told to, and heeds a stop."""

    def __init__(self):
        self.began, self.grids, self.problem = [], [], None
        self.release = threading.Event()

    def __call__(self, grid, order, signed, folder, stop):
        self.began.append(order.run)
        self.grids.append(grid)
        while not self.release.wait(0.01):
            if stop.is_set():
                raise FederationError("the run was stopped")
        if self.problem is not None:
            raise self.problem
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "rounds.jsonl").write_text("{}\n{}\n")


@pytest.fixture
def conductor():
    return Conductor()


@pytest.fixture
def start(queue, conductor, tmp_path):
    """Start a worker; at the end of the test it must end by itself."""
    started = []

    def run(own_queue=None):
        worker = RunWorker(own_queue or queue, tmp_path / "runs", KEY.public_key(), Grid, conductor)
        thread = threading.Thread(target=worker.work, daemon=True)
        thread.start()
        started.append((worker, thread))
        return worker

    yield run
    for worker, thread in started:
        worker.end()
        thread.join(10)
        assert not thread.is_alive()


def states(queue):
    return {run.name: run.state for run in queue.runs()}


def test_runs_go_one_at_a_time_in_the_order_of_their_coming(queue, start, sign, conductor):
    worker = start()
    for name in ("c", "a", "b"):
        worker.submit(sign(name), resume=False)
    until(lambda: conductor.began == ["c"])
    assert states(queue) == {"c": "running", "a": "queued", "b": "queued"}
    conductor.release.set()
    until(lambda: set(states(queue).values()) == {"finished"})
    assert conductor.began == ["c", "a", "b"]
    assert all(grid.closed for grid in conductor.grids)
    assert set(conductor.grids[0].sites) == set(SITES)


def test_only_the_federations_own_admin_is_obeyed(queue, start, sign):
    worker = start()
    with pytest.raises(RequestRefused, match="not the pinned admin key's"):
        worker.submit(sign("a", key=Ed25519PrivateKey.generate()), resume=False)
    good = sign("a")
    with pytest.raises(RequestRefused, match="not the pinned admin key's"):
        worker.submit(SignedStudy(good.document.replace(b'"a"', b'"b"'), good.signature), resume=False)
    with pytest.raises(RequestRefused, match="expired"):
        worker.submit(sign("a", now=time.time() - 2 * 86_400), resume=False)
    assert queue.runs() == []


def test_a_failure_is_kept_with_its_reason_and_the_next_run_goes_on(queue, start, sign, conductor, tmp_path):
    conductor.problem = FederationError("round 2 has 1 of the 2 updates that it needs")
    worker = start()
    conductor.release.set()
    worker.submit(sign("a"), resume=False)
    until(lambda: states(queue)["a"] == "failed")
    assert "1 of the 2 updates" in queue.run("a").reason
    conductor.problem = None
    worker.submit(sign("b"), resume=False)
    until(lambda: states(queue)["b"] == "finished")
    shown = summary(queue.run("b"), tmp_path / "runs")
    assert (shown.rounds_done, shown.rounds, shown.sites) == (2, 2, tuple(SITES))


def test_an_internal_error_fails_the_run_and_not_the_worker(queue, start, sign, conductor, caplog):
    conductor.problem = ZeroDivisionError("secret detail")
    worker = start()
    conductor.release.set()
    worker.submit(sign("a"), resume=False)
    until(lambda: states(queue)["a"] == "failed")
    assert queue.run("a").reason == "internal error (ZeroDivisionError); the server's log says where"
    assert "secret detail" in caplog.text  # in the log alone
    conductor.problem = None
    worker.submit(sign("b"), resume=False)
    until(lambda: states(queue)["b"] == "finished")


def test_a_running_run_stops_at_once_and_its_messages_are_dropped(queue, start, sign, conductor):
    worker = start()
    worker.submit(sign("a"), resume=False)
    until(lambda: conductor.began == ["a"])
    began = time.monotonic()
    worker.stop("a")
    assert worker.wait_idle("a", 5)
    assert time.monotonic() - began < 5
    assert states(queue) == {"a": "stopped"}
    assert conductor.grids[0].closed
    with pytest.raises(RunError, match="is not running; it is stopped"):
        worker.stop("a")


def test_a_queued_run_that_is_stopped_never_begins(queue, start, sign, conductor):
    worker = start()
    for name in ("a", "b"):
        worker.submit(sign(name), resume=False)
    until(lambda: conductor.began == ["a"])
    worker.stop("b")
    conductor.release.set()
    until(lambda: states(queue)["a"] == "finished")
    time.sleep(0.1)
    assert conductor.began == ["a"]
    assert states(queue) == {"a": "finished", "b": "stopped"}


def test_a_stopped_or_failed_run_goes_on_only_when_it_is_resumed(queue, start, sign, conductor):
    worker = start()
    worker.submit(sign("a"), resume=False)
    until(lambda: conductor.began == ["a"])
    with pytest.raises(RunError, match="is running: it needs no --resume"):
        worker.submit(sign("a"), resume=True)
    worker.stop("a")
    assert worker.wait_idle("a", 5)
    with pytest.raises(RunError, match=r"a run a already .*--resume"):
        worker.submit(sign("a"), resume=False)
    with pytest.raises(RunError, match=r"is of another study: federation\.rounds was \d+, is 3; --resume"):
        worker.submit(sign("a", federation={"rounds": 3}), resume=True)
    with pytest.raises(RunError, match="no run b to resume"):
        worker.submit(sign("b"), resume=True)
    conductor.release.set()
    worker.submit(sign("a"), resume=True)
    until(lambda: states(queue)["a"] == "finished")
    assert conductor.began == ["a", "a"]
    with pytest.raises(RunError, match="has finished; `hilum admin fetch`"):
        worker.submit(sign("a"), resume=True)


def test_a_run_directory_that_nobody_submitted_is_not_written_to(start, sign, tmp_path):
    worker = start()
    (tmp_path / "runs" / "a").mkdir(parents=True)
    (tmp_path / "runs" / "a" / "results.json").write_text("{}")
    with pytest.raises(RunError, match="is there already"):
        worker.submit(sign("a"), resume=False)


def test_after_a_crash_what_was_cut_off_goes_on_first_and_then_the_queue(tmp_path, start, sign, conductor):
    path = tmp_path / "crashed.sqlite"
    before = RunQueue(path)
    for name in ("a", "b", "c", "d"):
        signed = sign(name)
        before.submit(name, "terms", signed, resume=False, exists=False)
    before.stop("c")
    assert before.take(lambda _run: 0).name == "a"
    before.close()  # the server dies while `a` runs

    after = RunQueue(path)
    conductor.release.set()
    start(after)
    until(lambda: states(after) == {"a": "finished", "b": "finished", "c": "stopped", "d": "finished"})
    assert conductor.began == ["a", "b", "d"]
    after.close()


def test_a_run_that_keeps_killing_the_server_fails_instead_of_being_taken_up_for_ever(queue, sign):
    queue.submit("a", "terms", sign("a"), resume=False, exists=False)
    for _ in range(MAX_STARTS):
        assert queue.take(lambda _run: 1).state == "running"
    assert queue.take(lambda _run: 2).state == "running"  # a round was done: it counts from one again
    for _ in range(MAX_STARTS - 1):
        assert queue.take(lambda _run: 2).state == "running"
    assert queue.take(lambda _run: 2) is None
    assert f"died {MAX_STARTS} times" in queue.run("a").reason


def test_an_orderly_end_leaves_the_run_to_be_taken_up_and_does_not_count_as_a_crash(
    queue, sign, conductor, tmp_path
):
    for _ in range(MAX_STARTS + 2):
        worker = RunWorker(queue, tmp_path / "runs", KEY.public_key(), Grid, conductor)
        thread = threading.Thread(target=worker.work, daemon=True)
        begun = len(conductor.began)
        thread.start()
        if begun == 0:
            worker.submit(sign("a"), resume=False)
        until(lambda begun=begun: len(conductor.began) > begun)
        worker.end()
        thread.join(10)
        assert not thread.is_alive()
        assert states(queue) == {"a": "running"}


def test_a_study_that_expired_in_the_queue_fails_with_that_reason(queue, start, sign):
    signed = sign("a", now=time.time() - 2 * 86_400)
    queue.submit("a", "terms", signed, resume=False, exists=False)
    start()
    until(lambda: states(queue)["a"] == "failed")
    assert "expired" in queue.run("a").reason
    assert "submit it again" in queue.run("a").reason


def test_what_a_run_left_in_cycles_is_gone_before_the_next_one(queue, sign, tmp_path):
    class Record:
        """As Flower's records: it points at itself, so that only the collector frees it."""

        def __init__(self):
            self.itself = self

    left = []

    def run_study(*_):
        left.append(weakref.ref(Record()))

    worker = RunWorker(queue, tmp_path / "runs", KEY.public_key(), Grid, run_study)
    thread = threading.Thread(target=worker.work, daemon=True)
    gc.disable()
    try:
        thread.start()
        worker.submit(sign("a"), resume=False)
        until(lambda: states(queue) == {"a": "finished"} and worker.wait_idle("a", 1.0))
        assert [record() for record in left] == [None]
    finally:
        gc.enable()
        worker.end()
        thread.join(10)
