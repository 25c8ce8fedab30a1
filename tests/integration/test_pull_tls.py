"""`hilum site pull` from a service that asks for the site's certificate, and what it says when TLS does not agree."""

import json
import socket
import ssl
import threading
from datetime import timedelta

import pytest

from certificates import Authority
from dicomweb_service import one_error, stored

EXPIRED = timedelta(days=-1)


@pytest.fixture
def hospital(tmp_path):
    return Authority(tmp_path / "hospital")


@pytest.fixture
def secured(serve, hospital):
    """Start a service with a certificate; with `clients`, it asks for one that these signed."""

    def start(clients=None, **about):
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        pair = hospital.sign("pacs", **about)
        context.load_cert_chain(pair.cert, pair.key)
        if clients is not None:
            context.load_verify_locations(clients.path)
            context.verify_mode = ssl.CERT_REQUIRED
        return serve().secure(context)

    return start


@pytest.fixture
def pull(run_hilum, tmp_path):
    """Pull with options; whatever happens, no identifier is shown."""

    def run(service, **files):
        options = [word for name, file in files.items() for word in (f"--{name.replace('_', '-')}", file)]
        done = run_hilum("site", "pull", service.url, *options, "--json")
        uids = [row[k] for row in service.rows.values() for k in range(3)]
        for marker in ("ZZPHI", str(tmp_path), *uids):
            assert marker not in done.stdout + done.stderr
        return done

    return run


def refused(done, service, tmp_path, *expected):
    one_error(done, *expected)
    assert done.stdout == ""
    assert stored(tmp_path) == []
    assert service.headers == []  # nothing was sent, not even the token


def test_a_site_that_shows_its_certificate_may_pull(pull, secured, hospital, tmp_path):
    service, site = secured(clients=hospital), hospital.sign("ZZPHI-site")
    done = pull(service, ca=hospital.path, client_cert=site.cert, client_key=site.key)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["pull"]["fetched"] == len(stored(tmp_path)) == 13


def test_certificate_and_key_may_stand_in_one_file(pull, secured, hospital, tmp_path):
    service, site = secured(clients=hospital), hospital.sign("ZZPHI-site")
    both = tmp_path / "both.pem"
    both.write_bytes(site.key.read_bytes() + site.cert.read_bytes())
    done = pull(service, ca=hospital.path, client_cert=both)
    assert json.loads(done.stdout)["pull"]["fetched"] == 13, done.stderr


def test_a_service_that_asks_for_a_certificate_lets_nobody_else_in(pull, secured, hospital, tmp_path):
    service = secured(clients=hospital)
    refused(pull(service, ca=hospital.path), service, tmp_path, "TLS", "--client-cert")
    stranger = Authority(tmp_path / "elsewhere", "ZZPHI other").sign("ZZPHI-site")
    done = pull(service, ca=hospital.path, client_cert=stranger.cert, client_key=stranger.key)
    refused(done, service, tmp_path, "TLS", "--client-cert")


def test_an_expired_certificate_of_the_site_is_refused(pull, secured, hospital, tmp_path):
    service, site = secured(clients=hospital), hospital.sign("ZZPHI-site", ends=EXPIRED)
    done = pull(service, ca=hospital.path, client_cert=site.cert, client_key=site.key)
    refused(done, service, tmp_path, "TLS", "--client-cert")


def test_a_service_of_another_authority_is_not_believed(pull, secured, tmp_path):
    service, other = secured(), Authority(tmp_path / "elsewhere", "ZZPHI other")
    refused(pull(service, ca=other.path), service, tmp_path, "unable to get local issuer certificate", "--ca")


def test_an_expired_certificate_of_the_service_is_named(pull, secured, hospital, tmp_path):
    service = secured(ends=EXPIRED)
    refused(pull(service, ca=hospital.path), service, tmp_path, "certificate has expired")


def test_a_certificate_of_another_host_is_named(pull, secured, hospital, tmp_path):
    service = secured(host="zzphi.example")
    done = pull(service, ca=hospital.path)
    refused(done, service, tmp_path, "mismatch", "name in the address")
    assert "zzphi" not in done.stderr


@pytest.mark.parametrize("wrong", ["other_key", "hidden_key", "no_key", "der", "swapped", "folder"])
def test_files_that_are_no_pair_are_refused_before_anything_is_sent(pull, secured, hospital, tmp_path, wrong):
    service, site = secured(clients=hospital), hospital.sign("ZZPHI-site")
    cert, key = site.cert, site.key
    if wrong == "other_key":
        key = hospital.sign("other").key
    elif wrong == "hidden_key":
        key = hospital.sign("ZZPHI-site", password=b"ZZPHI").key
    elif wrong == "no_key":
        key = cert
    elif wrong == "der":
        cert = tmp_path / "site.der"
        cert.write_bytes(ssl.PEM_cert_to_DER_cert(site.cert.read_text()))
    elif wrong == "swapped":
        cert, key = key, cert
    else:
        key = tmp_path
    done = pull(service, ca=hospital.path, client_cert=cert, client_key=key)
    expected = "--client-key" if wrong == "folder" else "--client-cert and --client-key are not a pair"
    refused(done, service, tmp_path, expected)


def test_https_to_a_port_that_speaks_http_says_so(pull, serve, tmp_path):
    service = serve()
    service.secured = True  # the address alone says so
    refused(pull(service), service, tmp_path, "speaks no TLS", "port")


def test_http_to_a_port_that_speaks_https_says_so(pull, secured, tmp_path):
    service = secured()
    service.secured = False
    refused(pull(service), service, tmp_path, "did not answer", "https://")


def test_a_server_of_old_tls_alone_is_refused(pull, serve, tmp_path):
    """A peer that answers the greeting with TLS 1.0's number, as an old gateway does."""
    service = serve()
    with socket.create_server(("127.0.0.1", 0)) as old:

        def answer():
            connection, _ = old.accept()
            with connection:
                connection.recv(4096)
                connection.sendall(b"\x15\x03\x01\x00\x02\x02\x46")  # fatal alert 70, protocol version

        threading.Thread(target=answer, daemon=True).start()
        service.secured, service.server_address = True, old.getsockname()
        done = pull(service)
    refused(done, service, tmp_path, "TLS with the server failed", "protocol version")
