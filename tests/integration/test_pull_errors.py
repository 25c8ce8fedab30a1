"""What a site engineer provokes first: `hilum site pull` from a service that is away, breaks off, or runs out of something."""

import json
import re
import threading
import time
from types import SimpleNamespace

import pytest

from dicomweb_service import one_error, stored
from hilum.client.intake.network import bounded_http
from hilum.client.intake.network.bounded_http import ServiceError
from hilum.client.intake.network.pull import pull
from hilum.client.intake.network.pull_options import PullRequest
from hilum.client.intake.sources import inbox
from hilum.client.intake.sources.inbox import Inbox, NoRoomError
from hilum.client.state.workspace import Workspace
from hilum.common.progress import progress_bar

MULTIPART = "multipart/related; boundary=x"


@pytest.fixture
def pulled(tmp_path, monkeypatch):
    """Pull within this process, without the long waits between two tries."""
    monkeypatch.setattr(bounded_http, "_FIRST_WAIT_S", 0.001)

    def run(url):
        with Inbox(Workspace(tmp_path / "hilum-home" / "site"), reserve_bytes=0) as box:
            report = pull(PullRequest(url), box, progress_bar, threading.Event())
            assert list(box.incoming.iterdir()) == []
            return report

    return run


def spoil_one(answer):
    """A fault that gives one object, and always the same, another answer."""
    bad = []

    def fault(path, count):
        if "/instances/" in path and not bad:
            bad.append(path)
        return answer if bad and path == bad[0] else None

    return fault


@pytest.mark.parametrize(
    ("answer", "code"),
    [
        ((MULTIPART, [b"--x\r\n\r\n" + bytes(5000)]), "broken_off"),
        ((MULTIPART, [b"--x\r\n\r\nDICM\r\n--x"]), "broken_off"),
        ((MULTIPART, [b"--x\n\nDICM\n--x--"]), "broken_off"),
        ((MULTIPART, [b"--other\r\n\r\nDICM\r\n--other--"]), "broken_off"),
        ((MULTIPART, []), "broken_off"),
        ((MULTIPART, [b"HTTP" * 100_000]), "not_dicom"),
        (("multipart/related", [b"--x\r\n\r\nDICM\r\n--x--"]), "not_dicom"),
        (("multipart/related; boundary=\xe4", [b"--x\r\n\r\nDICM\r\n--x--"]), "not_dicom"),
        ((MULTIPART, [b"--x\r\n\r\nDICM\r\n--x--"]), "another_object"),
        (("", [b"DICM"]), "not_dicom"),
        (500, "server_error"),
        (410, "not_found"),
        (406, "not_acceptable"),
        (418, "refused"),
        (299, "refused"),
        (777, "refused"),
        ("hang up", "broken_off"),
        ("too short", "broken_off"),
        ("not gzip", "damaged"),
    ],
)
def test_one_object_that_is_never_sent_whole_holds_nothing_else_up(pulled, serve, tmp_path, answer, code):
    report = pulled(serve(fault=spoil_one(answer)).url)
    assert (report.listed, report.fetched, report.failed) == (13, 12, {code: 1})
    assert len(stored(tmp_path)) == 12


def test_a_service_that_goes_away_ends_the_pull_and_what_came_stays(pulled, serve, tmp_path):
    service = serve()
    service.fault = lambda path, count: "hang up" if len(stored(tmp_path)) >= 4 else None
    with pytest.raises(ServiceError, match="did not answer, or broke off"):
        pulled(service.url)
    came = len(stored(tmp_path))
    assert 4 <= came < 13
    service.fault = lambda path, count: None
    report = pulled(service.url)
    assert (report.had, report.fetched) == (came, 13 - came)
    assert set(service.sent.values()) == {1}


def test_a_token_that_expires_during_the_pull_is_told_and_a_new_one_goes_on(run_hilum, serve, tmp_path):
    service = serve(page=100)
    service.fault = lambda path, count: (
        401 if "ZZPHI-old" in service.headers[-1]["Authorization"] and len(stored(tmp_path)) >= 4 else None
    )
    (tmp_path / "token").write_text("ZZPHI-old")
    done = run_hilum("site", "pull", service.url, "--token-file", "token")
    one_error(done, "refused the login (401)", "expired", "run again")
    assert "ZZPHI" not in done.stdout + done.stderr
    came = len(stored(tmp_path))
    assert 4 <= came < 13
    (tmp_path / "token").write_text("ZZPHI-new")
    report = json.loads(run_hilum("site", "pull", service.url, "--token-file", "token", "--json").stdout)
    assert (report["pull"]["had"], report["pull"]["fetched"]) == (came, 13 - came)
    assert report["catalogue"]["instances"] == 13
    assert set(service.sent.values()) == {1}


def test_rights_to_search_alone_fetch_nothing_and_say_why(run_hilum, serve, tmp_path):
    service = serve(fault=lambda path, count: 403 if "/instances/" in path else None)
    done = run_hilum("site", "pull", service.url)
    one_error(done, "13 of 13 objects could not be had")
    assert re.search(r"^ +13 could not be had: forbidden$", done.stdout, re.MULTILINE)
    assert stored(tmp_path) == []


def test_a_disk_that_fills_up_during_the_pull_ends_it_and_what_came_is_whole(
    pulled, serve, tmp_path, monkeypatch
):
    room = iter([1 << 40] * 9)  # each object asks twice
    monkeypatch.setattr(inbox.shutil, "disk_usage", lambda _path: SimpleNamespace(free=next(room, -1)))
    service = serve()
    with pytest.raises(NoRoomError, match="nearly full"):
        pulled(service.url)
    monkeypatch.undo()
    came = stored(tmp_path)
    assert 1 <= len(came) <= 4
    assert {path.read_bytes() for path in came} <= {row[5].read_bytes() for row in service.rows.values()}
    assert list((tmp_path / "hilum-home" / "site" / "incoming").iterdir()) == []


def trickle(head):
    """A byte now and then for ever: no single wait is long."""
    yield head
    while True:
        time.sleep(0.02)
        yield b" "


def test_a_query_that_trickles_in_has_a_latest_time(pulled, serve, monkeypatch):
    monkeypatch.setattr(bounded_http, "_JSON_DEADLINE_S", 0.3)
    with pytest.raises(ServiceError, match="too_slow"):
        pulled(serve(fault=lambda path, count: ("application/dicom+json", trickle(b"["))).url)


def test_an_object_that_trickles_in_has_a_latest_time(pulled, serve, tmp_path, monkeypatch):
    monkeypatch.setattr(bounded_http, "_OBJECT_DEADLINE_S", 0.3)
    report = pulled(serve(fault=spoil_one((MULTIPART, trickle(b"--x\r\n\r\n")))).url)
    assert (report.fetched, report.failed) == (12, {"too_slow": 1})


def test_a_host_that_nobody_knows_is_one_line(pulled, capfd):
    with pytest.raises(ServiceError, match="did not answer") as error:
        pulled("https://zzphi.invalid/dicom-web")
    assert "zzphi" not in str(error.value) + capfd.readouterr().err
