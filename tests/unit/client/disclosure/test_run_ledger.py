"""What a run was asked and used up is known after any crash, and never for less than it was."""

import os
import signal
import subprocess
import sys
import time

import pytest

from hilum.client.disclosure import run_ledger
from hilum.client.disclosure.run_ledger import Budget, RunLedger
from hilum.common.errors import PolicyRefused, RequestRefused


@pytest.fixture
def path(tmp_path):
    return tmp_path / "state" / "runs.sqlite"


@pytest.fixture
def ledger(path):
    made = RunLedger(path)
    made.enter("run", "terms")
    yield made
    made.close()


def code_of(act, *words):
    with pytest.raises(RequestRefused) as caught:
        act(*words)
    return caught.value.code


def test_a_name_stands_for_one_study(ledger):
    ledger.enter("run", "terms")
    assert code_of(ledger.enter, "run", "other terms") == "run_taken"
    ledger.enter("another", "other terms")


def test_a_round_is_asked_from_so_many_different_weights_and_again_from_each(ledger):
    budget = Budget(repeats=2)
    for base in ("a", "b", "a", "b"):
        ledger.ask_round("run", 1, base, budget)
    assert code_of(ledger.ask_round, "run", 1, "c", budget) == "repeated"
    ledger.ask_round("run", 2, "c", budget)
    ledger.enter("another", "terms")
    ledger.ask_round("another", 1, "c", budget)


def test_a_finished_run_repeats_what_it_did_and_no_more(ledger):
    ledger.ask_round("run", 1, "a", Budget())
    ledger.finish("run")
    ledger.ask_round("run", 1, "a", Budget())
    assert code_of(ledger.ask_round, "run", 1, "b", Budget()) == "run_over"
    assert code_of(ledger.ask_round, "run", 2, "a", Budget()) == "run_over"


def test_a_run_is_told_the_number_that_it_was_told_first(ledger):
    assert ledger.examples("run", 22) == 22
    assert ledger.examples("run", 33) == 22


def test_what_was_used_is_corrected_after_the_work(ledger):
    with ledger.charging("run", 1000, Budget()) as charge:
        assert ledger.used("run") == (60.0, 1000), "counted before"
        charge.sent_bytes = 900
    seconds, sent = ledger.used("run")
    assert 0 < seconds < 5
    assert sent == 900


def test_a_refusal_costs_its_time_and_no_bytes(ledger):
    with pytest.raises(KeyError), ledger.charging("run", 1000, Budget()):
        raise KeyError
    seconds, sent = ledger.used("run")
    assert 0 < seconds < 5
    assert sent == 0


def test_a_spent_budget_is_refused_at_its_edge_and_not_before(ledger):
    budget = Budget(sent_mb=0.002)
    for _ in range(2):
        with ledger.charging("run", 1000, budget):
            pass
    with pytest.raises(PolicyRefused, match="max_sent_mb"), ledger.charging("run", 1, budget):
        pass
    ledger.enter("another", "terms")
    with ledger.charging("another", 1000, budget):
        pass


def test_spent_hours_are_refused_and_stop_the_work_on_the_way(ledger):
    with ledger.charging("run", 0, Budget(hours=1)) as charge:
        charge.advance(1)
    with ledger.charging("another", 0, Budget(hours=1e-6)) as charge:
        time.sleep(0.01)
        with pytest.raises(PolicyRefused, match="on the way") as caught:
            charge.advance(1)
    assert caught.value.code == "policy_hours"
    with pytest.raises(PolicyRefused, match="max_hours"), ledger.charging("another", 0, Budget(hours=1e-6)):
        pass


def test_while_the_work_goes_on_more_is_written_down_than_was_used(ledger, monkeypatch):
    monkeypatch.setattr(run_ledger, "_TICK_S", 0.02)
    monkeypatch.setattr(run_ledger, "_ADVANCE_S", 0.2)
    with ledger.charging("run", 1000, Budget()) as charge:
        for _ in range(10):
            time.sleep(0.05)
            assert ledger.used("run")[0] > charge.seconds


KILLED = """
import os, signal, sys
from pathlib import Path
from hilum.client.disclosure.run_ledger import Budget, RunLedger
ledger = RunLedger(Path(sys.argv[1]))
ledger.enter("run", "terms")
ledger.ask_round("run", 1, sys.argv[2], Budget(repeats=2))
with ledger.charging("run", 1000, Budget()):
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_no_kill_gives_anything_back(path):
    for base in ("a", "b"):
        done = subprocess.run([sys.executable, "-c", KILLED, str(path), base], check=False, env=os.environ)
        assert done.returncode == -signal.SIGKILL
    ledger = RunLedger(path)
    assert ledger.used("run") == (120.0, 2000)
    assert code_of(ledger.ask_round, "run", 1, "c", Budget(repeats=2)) == "repeated"
    ledger.close()


def test_a_forgotten_run_begins_again(ledger):
    ledger.ask_round("run", 1, "a", Budget())
    ledger.finish("run")
    with ledger.charging("run", 1000, Budget()):
        pass
    ledger.enter("kept", "terms")
    ledger.forget("run")
    ledger.enter("run", "other terms")
    ledger.ask_round("run", 1, "b", Budget())
    assert ledger.used("run") == (0.0, 0)
    assert code_of(ledger.enter, "kept", "other terms") == "run_taken"


def test_the_ledger_is_its_owners_alone(ledger, path):
    assert path.stat().st_mode & 0o077 == 0
