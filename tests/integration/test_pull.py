"""`hilum site pull` against a DICOMweb service of the test's own, which can also misbehave."""

import json
import os
import signal
import ssl
import subprocess
import sys
import time
from pathlib import Path

import pytest

from dicomweb_service import one_error, stored
from hilum.client.intake.indexing.index import index_archive
from hilum.client.state.workspace import Workspace
from hilum.common.progress import NullProgress
from hilum.server.admin.authority import init_federation

TOKEN = "ZZPHI-secret-token"


@pytest.mark.parametrize("bare", [False, True])
def test_a_pull_gives_the_catalogue_of_the_folder(run_hilum, serve, archive, tmp_path, bare):
    service = serve(bare=bare)
    done = run_hilum("site", "pull", service.url, "--json")
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert report["pull"] | {"fetched_bytes": 0} == {
        "listed": 13, "had": 0, "fetched": 13, "failed": {}, "fetched_bytes": 0,
    }  # fmt: skip
    assert sorted(p.read_bytes() for p in stored(tmp_path)) == sorted(
        p.read_bytes() for p in archive.rglob("*.dcm")
    )
    expected = index_archive(archive, Workspace(tmp_path / "other"), NullProgress())
    found = report["catalogue"]
    assert (found["files"], found["instances"], found["volumes"]) == (13, 13, 1)
    assert found["skipped"] == expected.counts.skipped
    again = json.loads(run_hilum("site", "pull", service.url, "--json").stdout)
    assert (again["pull"]["had"], again["pull"]["fetched"], again["catalogue"]["decoded"]) == (13, 0, 0)
    assert set(service.sent.values()) == {1}
    uids = [row[k] for row in service.rows.values() for k in range(3)]
    for text in (done.stdout, done.stderr, *(str(p) for p in stored(tmp_path))):
        assert not any(uid in text for uid in uids)
        assert "ZZPHI" not in text


def test_what_was_removed_from_the_inbox_is_not_pulled_again(run_hilum, serve, tmp_path):
    service = serve()
    before = json.loads(run_hilum("site", "pull", service.url, "--json").stdout)["catalogue"]
    done = run_hilum("site", "empty-inbox", "--older-than", 0, "--json")
    assert json.loads(done.stdout)["removed"] == 13, done.stdout
    assert stored(tmp_path) == []
    again = json.loads(run_hilum("site", "pull", service.url, "--json").stdout)
    assert (again["pull"]["had"], again["pull"]["fetched"]) == (13, 0)
    assert again["catalogue"] == {**before, "decoded": 0}
    assert set(service.sent.values()) == {1}


def test_filters_narrow_the_pull(run_hilum, serve):
    service = serve()

    def fetched(*words):
        return json.loads(run_hilum("site", "pull", service.url, "--json", *words).stdout)["pull"]

    assert fetched("--modality", "CT", "--limit", 3)["fetched"] == 3
    assert fetched("--modality", "CT")["fetched"] == 5
    assert fetched("--modality", "MR", "--modality", "CT") == {
        "listed": 8, "had": 8, "fetched": 0, "failed": {}, "fetched_bytes": 0,
    }  # fmt: skip
    assert fetched("--study-date", "20230101-20230101")["fetched"] == 3


def test_the_token_is_sent_and_never_shown(run_hilum, serve, tmp_path):
    service = serve()
    (tmp_path / "token").write_text(f"{TOKEN}\n")
    done = run_hilum("site", "pull", service.url, "--token-file", "token")
    assert done.returncode == 0, done.stderr
    assert {headers["Authorization"] for headers in service.headers} == {f"Bearer {TOKEN}"}
    assert TOKEN not in done.stdout + done.stderr


def test_an_answer_of_500_is_asked_again(run_hilum, serve):
    service = serve(fault=lambda path, count: 503 if count <= 2 and path.endswith(("studies", "0")) else None)
    done = run_hilum("site", "pull", service.url, "--json")
    assert json.loads(done.stdout)["pull"]["fetched"] == 13, done.stderr
    assert service.counts["/dicom-web/studies"] >= 3


@pytest.mark.parametrize(
    ("fault", "expected"),
    [
        (lambda path, count: 401, "refused the login (401)"),
        (lambda path, count: 403, "forbids the query (403)"),
        (lambda path, count: 404, "not a DICOMweb service (404)"),
        (lambda path, count: 302, "redirects (302)"),
        (lambda path, count: ("text/html", [b"<html>"]), "answered text/html instead of DICOM JSON"),
        (lambda path, count: ("application/json", [b"[" * 100_000]), "not DICOM JSON"),
        (lambda path, count: ("application/json", [b'"ZZPHI"']), "not a list of DICOM JSON"),
        (lambda path, count: ("application/json", [b"[ZZPHI"]), "not DICOM JSON"),
        (lambda path, count: ("application/json", iter(lambda: b" " * 100_000, b"")), "too_large"),
    ],
    ids=["401", "403", "404", "302", "html", "deep", "text", "broken", "endless"],
)
def test_an_unusable_service_is_one_line(run_hilum, serve, fault, expected):
    done = run_hilum("site", "pull", serve(fault=fault).url, timeout_s=120)
    one_error(done, expected)
    assert "ZZPHI" not in done.stderr


def test_a_refused_connection_is_one_line(run_hilum, serve):
    service = serve()
    service.__exit__()
    one_error(run_hilum("site", "pull", service.url, timeout_s=120), "did not answer")


@pytest.mark.parametrize(
    ("answer", "code"),
    [
        (404, "not_found"),
        (403, "forbidden"),
        (("text/html", [b"<html>"]), "not_dicom"),
        (("application/dicom", [b"x" * 500]), "another_object"),
        (
            ("multipart/related; boundary=x", [b"--x\r\n\r\nDICM\r\n--x\r\n\r\nDICM\r\n--x--"]),
            "several_objects",
        ),
    ],
)
def test_an_object_that_can_not_be_had_is_counted_and_the_rest_is_fetched(
    run_hilum, serve, tmp_path, answer, code
):
    bad = []

    def fault(path, count):
        if "/instances/" in path:
            bad.append(path) if not bad else None
            return answer if path == bad[0] else None
        return None

    service = serve(fault=fault)
    done = run_hilum("site", "pull", service.url, "--json")
    one_error(done, "1 of 13 objects could not be had")
    report = json.loads(done.stdout)
    assert (report["pull"]["fetched"], report["pull"]["failed"]) == (12, {code: 1})
    assert len(stored(tmp_path)) == 12
    service.fault = lambda path, count: None
    assert json.loads(run_hilum("site", "pull", service.url, "--json").stdout)["pull"]["fetched"] == 1


def test_another_instance_than_asked_is_not_believed(run_hilum, serve, archive, tmp_path):
    service = serve()
    first, second = list(service.rows)[:2]
    service.rows[first] = (*service.rows[first][:5], service.rows[second][5])
    report = json.loads(run_hilum("site", "pull", service.url, "--json").stdout)
    assert report["pull"]["failed"] == {"another_object": 1}
    assert len(stored(tmp_path)) == 12


@pytest.mark.parametrize("uid", ["../../../../tmp/ZZPHI", "1.2/../3", "1" * 65, "", None, 7])
def test_a_uid_that_is_none_goes_into_no_address_and_no_name(run_hilum, serve, tmp_path, uid):
    service = serve(page=100)
    body = json.dumps([{"0020000D": {"Value": [uid]}}]).encode()
    service.fault = lambda path, count: (
        ("application/json", [body]) if path.endswith("/studies") and count == 1 else None
    )
    done = run_hilum("site", "pull", service.url, "--json")
    assert json.loads(done.stdout)["pull"]["failed"] == {"bad_uid": 1}
    assert stored(tmp_path) == []
    assert set(service.counts) == {"/dicom-web/studies"}


def test_a_list_that_repeats_itself_for_ever_ends(run_hilum, serve):
    service = serve()
    uid = next(iter(service.rows.values()))[0]
    body = json.dumps([{"0020000D": {"Value": [uid]}}]).encode()
    service.fault = lambda path, count: ("application/json", [body]) if path.endswith("/studies") else None
    report = json.loads(run_hilum("site", "pull", service.url, "--json").stdout)
    assert report["pull"]["failed"] == {}
    assert service.counts["/dicom-web/studies"] == 2


def test_a_connection_that_breaks_inside_an_object_is_asked_again(run_hilum, serve, tmp_path):
    def fault(path, count):
        if "/instances/" in path and count == 1:
            return ("multipart/related; boundary=x", [b"--x\r\n\r\n" + bytes(5000)])
        return None

    service = serve(fault=fault)
    report = json.loads(run_hilum("site", "pull", service.url, "--json").stdout)
    assert (report["pull"]["fetched"], report["pull"]["failed"]) == (13, {})
    assert len(stored(tmp_path)) == 13


def test_a_full_disk_ends_the_pull_with_one_line(run_hilum, serve, tmp_path):
    one_error(run_hilum("site", "pull", serve().url, "--keep-free", 10**7), "nearly full")
    assert stored(tmp_path) == []


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["http://pacs.example/x"], "unencrypted"),
        (["https://ZZPHI:ZZPHI@pacs.example/x"], "--token-file"),
        (["ftp://pacs.example"], "malformed"),
        (["https://pacs.example:port/"], "malformed"),
        (["https://x/", "--modality", "ct'"], "--modality"),
        (["https://x/", "--study-date", "2024"], "--study-date"),
        (["https://x/", "--limit", "0"], "--limit"),
        (["https://x/", "--token-file", "none"], "--token-file"),
        (["https://x/", "--token-file", "."], "--token-file"),
        (["https://x/", "--ca", "empty"], "--ca"),
        (["https://x/", "--ca", "."], "--ca"),
        (["https://x/", "--token-file", "empty"], "token is empty"),
    ],
)
def test_wrong_options_are_one_line(run_hilum, tmp_path, words, expected):
    (tmp_path / "empty").touch()
    done = run_hilum("site", "pull", *words)
    one_error(done, expected)
    assert "ZZPHI" not in done.stderr


def test_tls_is_checked(run_hilum, serve, tmp_path):
    keys = init_federation(tmp_path / "keys", ["127.0.0.1"], 1).path
    service = serve()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(keys / "server.crt", keys / "server.key")
    service.socket = context.wrap_socket(service.socket, server_side=True)
    url = service.url.replace("http:", "https:")
    one_error(run_hilum("site", "pull", url), "TLS with the server failed (certificate verify failed")
    done = run_hilum("site", "pull", url, "--ca", keys / "root.crt", "--json")
    assert json.loads(done.stdout)["pull"]["fetched"] == 13, done.stderr


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_a_pull_that_was_ended_fetches_nothing_twice(run_hilum, serve, tmp_path, number):
    service = serve(wait_s=0.15)
    environment = {**os.environ, "HILUM_HOME": str(tmp_path / "hilum-home")}
    command = [str(Path(sys.executable).parent / "hilum"), "site", "pull", service.url]
    with subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True) as process:
        while len(stored(tmp_path)) < 4:
            time.sleep(0.01)
            assert process.poll() is None
        process.send_signal(number)
        text = process.stderr.read()
    before = {path.stem for path in stored(tmp_path)}
    assert len(before) < 13
    assert process.returncode == (-9 if number == signal.SIGKILL else 4), text
    names = Workspace(tmp_path / "hilum-home" / "site").pseudonyms()
    kept = [uid for uid in service.rows if names.of("sop", uid) in before]
    once = {uid: service.sent[uid] for uid in kept}
    report = json.loads(run_hilum("site", "pull", service.url, "--json").stdout)
    assert report["pull"]["had"] == len(before)
    assert report["catalogue"]["instances"] == 13
    assert {uid: service.sent[uid] for uid in kept} == once == dict.fromkeys(kept, 1)
    assert list((tmp_path / "hilum-home" / "site" / "incoming").iterdir()) == []
