"""HeaderTemplates of elements are learnt from what comes again, and hold only where every head is the same."""

import pytest

from hilum.client.intake.headers import header_templates
from hilum.client.intake.headers.header_templates import HeaderTemplate, HeaderTemplates, Part
from hilum.client.intake.headers.parsing import SHARED

ROWS = (0x0028_0010, "Rows", SHARED["US"])
COLUMNS = (0x0028_0011, "Columns", SHARED["US"])


def part(head, value_bytes=2, wanted=None):
    return Part(((head, value_bytes),), wanted)


def holds(run, data, p=0):
    return run.heads_at(data, p) == run.heads


def test_a_run_compares_heads_and_gives_values():
    run = HeaderTemplate(
        [part(b"--a", 3), part(b"--b", 2, ROWS), Part(((b"--c", 0), (b"--d", 1))), part(b"--e", 2, COLUMNS)]
    )
    data = b"xx--axyz--b\1\0--c--d?--e\2\0"
    assert run.size_bytes == len(data) - 2
    assert holds(run, data, 2)
    assert run.values_at(data, 2) == (b"\1\0", b"\2\0")
    assert [keyword for keyword, _ in run.taken] == ["Rows", "Columns"]
    assert (run.first, run.last) == (0x0028_0010, 0x0028_0011)
    for place in (2, 8, 13, 16, 20):
        assert not holds(run, data[:place] + b"*" + data[place + 1 :], 2)
    assert holds(run, data[:5] + b"***" + data[8:], 2)


def test_a_head_is_learnt_once_it_was_met_often():
    known = HeaderTemplates()
    assert [known.met(b"a") for _ in range(5)] == [False, False, False, True, True]
    known.learn(b"a", [part(b"a"), part(b"b")])
    assert holds(known.known[b"a"], b"a..b..")


def test_a_head_that_begins_nothing_is_remembered_as_such():
    known = HeaderTemplates()
    known.learn(b"a", [part(b"a")])
    assert known.known == {}
    assert known.hopeless == {b"a"}


def test_what_varies_ends_a_run():
    known = HeaderTemplates()
    known.learn(b"a", [part(b"a"), part(b"b"), part(b"c"), part(b"d")])
    assert [known.missed(b"a") for _ in range(4)] == [False, False, False, True]
    known.learn(b"a", [part(b"a"), part(b"b"), part(b"c", 4), part(b"d")])
    assert known.known[b"a"].parts == [part(b"a"), part(b"b")]
    known.learn(b"a", [part(b"a"), part(b"b", 6)])
    assert known.known == {}
    assert known.hopeless == {b"a"}


@pytest.mark.parametrize("wanted", [None, ROWS])
def test_the_memory_is_bounded(monkeypatch, wanted):
    monkeypatch.setattr(header_templates, "_MAX_TEMPLATES", 20)
    monkeypatch.setattr(header_templates, "_MAX_KEYS", 30)
    known = HeaderTemplates()
    for number in range(200):
        key = b"%d" % number
        known.met(key + b"*")
        known.learn(key, [part(key, 2, wanted), part(b"b")])
        known.learn(key + b"-", [])
        assert len(known.known) <= 20
        assert len(known.hopeless) + len(known._met) <= 31


def test_learning_comes_to_an_end(monkeypatch):
    monkeypatch.setattr(header_templates, "_MAX_TRIES", 10)
    known = HeaderTemplates()
    for number in range(10):
        known.learn(b"%d" % number, [part(b"%d" % number), part(b"b")])
    assert not any(known.met(b"new") for _ in range(20))
    assert not any(known.missed(b"5") for _ in range(20))
