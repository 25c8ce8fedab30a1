"""Sending to archives of the tests' own: a DICOMweb service and a C-STORE receiver, which can also misbehave."""

import json
import re
import ssl
import threading
from email import message_from_bytes
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from io import BytesIO

import numpy as np
import pydicom
import pytest
from pynetdicom import AE, evt

from certificates import Authority
from hilum.client.intake.network.bounded_http import ServiceError
from hilum.client.intake.network.send_options import store_target, stow_target
from hilum.client.predictions.delivery import Delivery, deliver
from hilum.client.predictions.dicom.report import report_of
from hilum.client.predictions.results import Classes
from hilum.common.errors import ConfigError, DataError
from hilum.common.progress import progress_bar
from predicting import MAKING, sources_of

SR = "1.2.840.10008.5.1.4.1.1.88.33"
NO_FILES = {"token_file": None, "ca": None, "client_cert": None, "client_key": None}


@pytest.fixture
def reports(tmp_path, dicom):
    """Three reports of three images."""
    rng = np.random.default_rng(0)
    for name in range(3):
        dicom(tmp_path / "dicom" / f"{name}.dcm", rng.integers(0, 999, (20, 30)).astype(np.uint16))
    _workspace, found = sources_of(tmp_path / "dicom", tmp_path / "state")
    paths = []
    (tmp_path / "sr").mkdir()
    for _item, source in found:
        made = report_of(source, Classes(("ill",), (0.5,)), MAKING)
        paths.append(tmp_path / "sr" / f"{made.SOPInstanceUID}.dcm")
        made.save_as(paths[-1])
    return sorted(paths)


class Archive(ThreadingHTTPServer):
    """Takes what STOW-RS brings. `answer(number)` may give a status or a failure reason instead."""

    daemon_threads = True

    def __init__(self, answer=lambda number: None):
        super().__init__(("127.0.0.1", 0), Store)
        self.answer, self.held, self.headers, self.scheme = answer, {}, [], "http"
        threading.Thread(target=self.serve_forever, daemon=True).start()

    @property
    def url(self):
        return f"{self.scheme}://127.0.0.1:{self.server_address[1]}/dicom-web"

    def handle_error(self, *_):
        pass

    def __exit__(self, *_):
        self.shutdown()
        self.server_close()


class Store(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.headers.append(dict(self.headers))
        wrong = self.server.answer(len(self.server.headers))
        [part] = message_from_bytes(
            b"Content-Type: " + self.headers["Content-Type"].encode() + b"\r\n\r\n" + body
        ).get_payload()
        sent = pydicom.dcmread(BytesIO(part.get_payload(decode=True)))
        named = {
            "00081150": {"vr": "UI", "Value": [sent.SOPClassUID]},
            "00081155": {"vr": "UI", "Value": [sent.SOPInstanceUID]},
        }
        if isinstance(wrong, tuple):
            self.reply(
                409,
                {"00081198": {"vr": "SQ", "Value": [{**named, "00081197": {"vr": "US", "Value": [*wrong]}}]}},
            )
        elif wrong is not None:
            self.reply(wrong, {})
        else:
            self.server.held[sent.SOPInstanceUID] = sent
            self.reply(200, {"00081199": {"vr": "SQ", "Value": [named]}})

    def reply(self, status, dataset):
        content = json.dumps(dataset).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/dicom+json; charset=utf-8")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)


def by_web(url, **options):
    return Delivery(stow=stow_target(url, **{**NO_FILES, "insecure_http": False, **options}))


def test_every_object_is_stored_and_a_second_time_stays_one(reports, monkeypatch):
    monkeypatch.setenv("HILUM_DICOMWEB_TOKEN", "sesame")
    with Archive() as archive:
        for _ in range(2):
            [done] = deliver(reports, by_web(archive.url), progress_bar)
            assert (done.way, done.stored, done.problems) == ("STOW-RS", 3, {})
        assert set(archive.held) == {path.stem for path in reports}
        assert {one["Authorization"] for one in archive.headers} == {"Bearer sesame"}
        assert all(one["Content-Type"].startswith("multipart/related") for one in archive.headers)
        assert all(re.fullmatch(r"127\.0\.0\.1:\d+", one["Host"]) for one in archive.headers)


@pytest.mark.parametrize(
    ("answer", "problem"),
    [((0x0122,), "sop_class_not_taken"), ((0xA701,), "out_of_resources"), ((0x1234,), "status_1234"),
     (413, "too_large"), (415, "not_taken_by_server"), (400, "not_understood"), (202, "not_confirmed")],
)  # fmt: skip
def test_what_one_object_is_refused_for_is_told_and_the_others_are_sent(reports, answer, problem):
    with Archive(lambda number: answer if number == 2 else None) as archive:
        [done] = deliver(reports, by_web(archive.url), progress_bar)
    assert (done.stored, done.problems) == (2, {problem: 1})
    assert done.instances[f"sr/{reports[1].name}"] == problem


@pytest.mark.parametrize(
    ("status", "words"), [(401, "refused the login"), (403, "right to store"), (404, "may offer no STOW-RS")]
)
def test_a_service_that_can_not_be_used_ends_it(reports, status, words):
    with Archive(lambda number: status) as archive, pytest.raises(ServiceError, match=words):
        deliver(reports, by_web(archive.url), progress_bar)


def test_tls_is_checked(reports, tmp_path):
    authority = Authority(tmp_path / "authority")
    pair = authority.sign("server")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pair.cert, pair.key)
    with Archive() as archive:
        archive.socket = context.wrap_socket(archive.socket, server_side=True, do_handshake_on_connect=False)
        archive.scheme = "https"
        [done] = deliver(reports, by_web(archive.url, ca=authority.path), progress_bar)
        assert done.stored == 3
        with pytest.raises(ServiceError, match="TLS with the server failed"):
            deliver(reports, by_web(archive.url), progress_bar)


def archive_of(status=0, classes=(SR,), title="PACS", tls=None):
    held = []
    entity = AE(ae_title=title)
    entity.require_called_aet = True
    for sop_class in classes:
        entity.add_supported_context(sop_class)

    def take(event):
        held.append(event.dataset.SOPInstanceUID)
        return status

    server = entity.start_server(
        ("127.0.0.1", 0), block=False, evt_handlers=[(evt.EVT_C_STORE, take)], ssl_context=tls
    )
    return server, held


def by_store(server, **options):
    told = {"called": "PACS", "calling": "HILUM", "tls": False, "ca": None, "cert": None, "key": None}
    return Delivery(store=store_target(f"127.0.0.1:{server.server_address[1]}", **{**told, **options}))


@pytest.mark.parametrize(
    ("status", "problems"),
    [(0x0000, {}), (0xB007, {}), (0xA700, {"out_of_resources": 3}), (0xC001, {"not_understood": 3})],
)
def test_c_store_tells_what_the_archive_answers(reports, status, problems):
    server, held = archive_of(status)
    try:
        [done] = deliver(reports, by_store(server), progress_bar)
    finally:
        server.shutdown()
    assert sorted(held) == sorted(path.stem for path in reports)
    assert (done.way, done.stored, done.problems) == ("C-STORE", 3 - sum(problems.values()), problems)


def test_c_store_with_tls(reports, tmp_path):
    authority = Authority(tmp_path / "authority")
    pair = authority.sign("server")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pair.cert, pair.key)
    server, _held = archive_of(tls=context)
    try:
        [done] = deliver(reports, by_store(server, tls=True, ca=authority.path), progress_bar)
        assert done.stored == 3
    finally:
        server.shutdown()


def test_an_archive_that_takes_no_reports_or_calls_itself_otherwise_is_told(reports):
    server, _held = archive_of(classes=("1.2.840.10008.5.1.4.1.1.2",))
    try:
        with pytest.raises(ServiceError, match="takes segmentations and structured reports"):
            deliver(reports, by_store(server), progress_bar)
        with pytest.raises(ServiceError, match=r"itself as OTHER \(--called\)"):
            deliver(reports, by_store(server, called="OTHER"), progress_bar)
    finally:
        server.shutdown()
    with pytest.raises(ServiceError, match="can't be reached"):
        deliver(reports, by_store(server), progress_bar)


@pytest.mark.parametrize("where", ["pacs", "pacs:", ":104", "pacs:0", "pacs:65536", "pacs:x"])
def test_an_address_that_is_none_is_refused(where):
    with pytest.raises(DataError, match="HOST:PORT"):
        store_target(where, called="A", calling="B", tls=False, ca=None, cert=None, key=None)


def test_certificates_without_tls_are_refused(tmp_path):
    with pytest.raises(ConfigError, match="--store-tls"):
        store_target("pacs:104", called="A", calling="B", tls=False, ca=tmp_path, cert=None, key=None)
