"""The registry of sites: a name, a key and a certificate are one, and a change is seen at the next request."""

import multiprocessing
import os
import signal
import stat
import subprocess
import sys
import time

import pytest
from sqlalchemy import event

import elsewhere
from hilum.common.errors import ConfigError, DamagedError, RunError
from hilum.common.security.certificates import der_of, make_root, make_site_certificate
from hilum.common.security.keys import fingerprint, new_key, public_bytes
from hilum.common.security.requests import SiteRequest
from hilum.server.sites import GRACE_S, SiteRegistry

DAY_S = 86_400.0


class Clock:
    def __init__(self):
        self.now = time.time()

    def __call__(self):
        return self.now


@pytest.fixture(scope="module")
def authority():
    key = new_key()
    return make_root(key, "root"), key


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def path(tmp_path):
    return tmp_path / "federation" / "sites.sqlite"


@pytest.fixture
def registry(path, clock):
    opened = SiteRegistry(path, clock)
    yield opened
    opened.close()


@pytest.fixture
def approve(registry, authority):
    def run(name, key, *, registry=registry, **options):
        request = SiteRequest(name, key.public_key())
        return der_of(
            registry.approve(
                request, lambda name, public: make_site_certificate(name, public, *authority), **options
            )
        )

    return run


def test_only_a_certificate_that_was_entered_is_known(registry, approve, authority):
    key = new_key()
    assert registry.name_of(approve("one", key)) == "one"
    signed_but_never_entered = make_site_certificate("one", key.public_key(), *authority)
    assert registry.name_of(der_of(signed_but_never_entered)) is None
    assert registry.name_of(b"") is None
    assert registry.name_of(os.urandom(800)) is None


def test_the_file_is_its_owners_alone_whatever_the_umask(path):
    before = os.umask(0)
    try:
        registry = SiteRegistry(path)
        registry.sites()
        modes = {file.name: stat.S_IMODE(file.stat().st_mode) for file in path.parent.iterdir()}
        registry.close()
    finally:
        os.umask(before)
    assert modes["sites.sqlite"] == 0o600
    assert set(modes.values()) == {0o600}
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700


def test_a_revocation_by_another_process_is_seen_at_the_next_call(registry, approve, path):
    one, two = approve("one", new_key()), approve("two", new_key())
    assert (registry.name_of(one), registry.name_of(two)) == ("one", "two")
    process = multiprocessing.get_context("spawn").Process(target=elsewhere.revoke, args=(path, "one"))
    process.start()
    process.join(60)
    assert process.exitcode == 0
    assert (registry.name_of(one), registry.name_of(two)) == (None, "two")


def test_an_approval_by_another_connection_is_seen_at_the_next_call(registry, approve, path):
    assert registry.name_of(b"x") is None
    other = SiteRegistry(path)
    certificate = approve("one", new_key(), registry=other)
    other.close()
    assert registry.name_of(certificate) == "one"


def test_a_certificate_is_good_within_its_dates_alone(registry, approve, clock):
    certificate = approve("one", new_key())
    clock.now += 89 * DAY_S
    assert registry.name_of(certificate) == "one"
    clock.now += 2 * DAY_S
    assert registry.name_of(certificate) is None
    clock.now -= 92 * DAY_S
    assert registry.name_of(certificate) is None


def test_the_older_certificate_is_good_until_the_newer_is_first_seen(registry, approve, clock):
    key = new_key()
    older = approve("one", key)
    assert registry.name_of(older) == "one"
    clock.now += 60
    newer = approve("one", key)
    clock.now += 60
    assert registry.name_of(older) == "one"
    assert registry.name_of(newer) == "one"
    assert registry.name_of(older) is None
    assert registry.name_of(newer) == "one"


def test_the_older_certificate_is_good_for_seven_days_at_most(registry, approve, clock):
    key = new_key()
    older = approve("one", key)
    newer = approve("one", key)
    clock.now += GRACE_S - 1
    assert registry.name_of(older) == "one"
    clock.now += 2
    assert registry.name_of(older) is None
    assert registry.name_of(newer) == "one"


def test_a_key_has_one_name_and_a_name_one_key(registry, approve):
    key = new_key()
    first = approve("one", key)
    with pytest.raises(ConfigError, match=r"asks with the key of one .* a key has one name"):
        approve("two", key)
    with pytest.raises(ConfigError, match="has another key") as caught:
        approve("one", new_key())
    assert fingerprint(public_bytes(key.public_key())) in str(caught.value)
    assert "--replace" in str(caught.value)
    assert [site.name for site in registry.sites()] == ["one"]
    assert registry.name_of(first) == "one"


def test_replacing_a_key_ends_the_earlier_one_at_once_and_for_good(registry, approve):
    stolen, fresh = new_key(), new_key()
    before = approve("one", stolen)
    after = approve("one", fresh, replace=True)
    assert (registry.name_of(before), registry.name_of(after)) == (None, "one")
    with pytest.raises(ConfigError, match="with a key that was replaced"):
        approve("one", stolen, replace=True)
    with pytest.raises(ConfigError, match="asks with the key of one"):
        approve("two", stolen)
    assert [site.fingerprint for site in registry.sites()] == [fingerprint(public_bytes(fresh.public_key()))]


def test_a_revoked_key_never_comes_back_but_the_site_may_with_a_new_one(registry, approve):
    key = new_key()
    certificate = approve("one", key)
    registry.revoke("one")
    assert registry.name_of(certificate) is None
    with pytest.raises(ConfigError, match="revoked already"):
        registry.revoke("one")
    with pytest.raises(ConfigError, match="with a key that was revoked"):
        approve("one", key)
    with pytest.raises(ConfigError, match="and was revoked on"):
        approve("one", new_key())
    assert [site.status for site in registry.sites()] == ["revoked"]
    again = approve("one", new_key(), replace=True)
    assert (registry.name_of(certificate), registry.name_of(again)) == (None, "one")
    assert [site.status for site in registry.sites()] == ["approved"]


def test_names_that_differ_by_capitals_alone_are_refused(approve):
    approve("St-Elsewhere", new_key())
    with pytest.raises(ConfigError, match="differs from St-Elsewhere by capital letters alone"):
        approve("st-elsewhere", new_key())


def test_an_unknown_name_is_told_with_the_nearest(registry, approve):
    approve("st-elsewhere", new_key())
    with pytest.raises(ConfigError, match="did you mean st-elsewhere"):
        registry.revoke("st-elsewher")
    with pytest.raises(ConfigError, match="hilum admin sites"):
        registry.check_approved(["quite-another"])
    registry.check_approved(["st-elsewhere"])
    registry.revoke("st-elsewhere")
    with pytest.raises(ConfigError, match="was revoked on"):
        registry.check_approved(["st-elsewhere"])


def test_a_failing_signature_leaves_no_trace(registry):
    def fail(_name, _public):
        raise ConfigError("root.key", ["is away"])

    with pytest.raises(ConfigError, match="is away"):
        registry.approve(SiteRequest("one", new_key().public_key()), fail)
    assert registry.sites() == []


def test_answering_a_request_asks_the_file_only_whether_it_has_changed(registry, approve):
    certificate = approve("one", new_key())
    registry.name_of(certificate)
    registry.name_of(certificate)  # reads once more: its own note of the first use was a change
    asked = []
    event.listen(registry._database.engine, "before_cursor_execute", lambda *facts: asked.append(facts[2]))
    for _ in range(3):
        assert registry.name_of(certificate) == "one"
    assert asked == ["PRAGMA data_version"] * 3


def test_a_locked_database_delays_no_second_request(registry, approve, path, monkeypatch):
    monkeypatch.setattr("hilum.server.sites._BUSY_S", 0.05)
    slow = SiteRegistry(path)
    certificate = approve("one", new_key(), registry=slow)
    tries = []
    note = slow._note_first_use
    monkeypatch.setattr(slow, "_note_first_use", lambda *facts: (tries.append(facts), note(*facts)))
    with registry._database.writing():
        for _ in range(
            2
        ):  # its first use can't be noted, which is no reason to refuse, or to try at each call
            assert slow.name_of(certificate) == "one"
    assert len(tries) == 1
    slow.close()


def test_a_file_that_is_no_database_is_told(path):
    path.parent.mkdir()
    path.write_bytes(b"this is not a database" * 100)
    with pytest.raises(DamagedError, match=r"sites\.sqlite .* is damaged"):
        SiteRegistry(path)


def test_tables_of_a_later_version_are_refused(path):
    import sqlite3

    SiteRegistry(path).close()
    with sqlite3.connect(path) as connection:
        connection.execute("PRAGMA user_version = 99")
    connection.close()
    with pytest.raises(RunError, match="later Hilum"):
        SiteRegistry(path)


APPROVE_FOREVER = """
import sys
from pathlib import Path
from hilum.common.security.certificates import make_root, make_site_certificate
from hilum.common.security.keys import new_key
from hilum.common.security.requests import SiteRequest
from hilum.server.sites import SiteRegistry

key = new_key()
root = make_root(key, "root")
registry = SiteRegistry(Path(sys.argv[1]))
number = 0
while True:
    request = SiteRequest(f"{sys.argv[2]}-{number}", new_key().public_key())
    registry.approve(request, lambda name, public: make_site_certificate(name, public, root, key))
    print(request.name, flush=True)
    number += 1
"""


def test_a_kill_9_during_approvals_leaves_each_whole_or_absent(path, registry):
    for attempt in range(4):
        process = subprocess.Popen(
            [sys.executable, "-c", APPROVE_FOREVER, path, f"site{attempt}"], stdout=subprocess.PIPE, text=True
        )
        assert process.stdout.readline().startswith("site")
        time.sleep(0.03 * attempt)
        process.send_signal(signal.SIGKILL)
        told = process.stdout.read().split()
        process.wait()
        names = {site.name for site in registry.sites()}  # raises if a key has no certificate
        assert names >= set(told)
