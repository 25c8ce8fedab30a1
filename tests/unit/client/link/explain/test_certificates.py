"""The certificate of the server is wrong, or the server does not take that of the site."""

import ssl

import pytest

from federation_papers import Papers, identity_of, server_context
from fleet_server import FleetServer, Raw, http
from hilum.client.link.explain import Patience
from link_causes import MINUTE, cause_at, cause_of, listening, says

# Its certificate.


def test_the_certificate_of_another_federation_is_final_until_the_server_was_known(papers, tmp_path):
    other = Papers(tmp_path / "other", "other federation")
    with FleetServer(papers, tls=server_context(other)) as server:
        words = ("not of this federation", "root.crt")
        says(cause_of(papers, server), "other_federation", *words, patience=Patience.NEVER)
        says(cause_of(papers, server, known=True), "other_federation", *words)


def test_a_root_of_the_same_name_is_another_federation_too(papers, tmp_path):
    other = Papers(tmp_path / "other")
    with FleetServer(papers, tls=server_context(other)) as server:
        says(cause_of(papers, server), "other_federation", patience=Patience.NEVER)


def test_a_host_that_the_certificate_does_not_name(papers):
    pair = papers.server(names=["federation.example"])
    with FleetServer(papers, tls=server_context(papers, pair)) as server:
        says(cause_of(papers, server), "other_host", "not for localhost", "hilum admin renew --host")


def test_a_sites_certificate_is_no_servers(papers):
    pair = papers.site("impostor", names=["localhost"])
    with FleetServer(papers, tls=server_context(papers, pair)) as server:
        assert cause_of(papers, server).code in {"no_server", "other_host"}


def test_a_servers_certificate_that_has_expired(papers):
    pair = papers.server(ends=-20 * MINUTE)
    with FleetServer(papers, tls=server_context(papers, pair)) as server:
        says(
            cause_of(papers, server), "server_expired", "has expired", "20 minutes apart", "hilum admin renew"
        )


def test_a_servers_certificate_that_is_not_valid_yet(papers):
    pair = papers.server(begins=20 * MINUTE)
    with FleetServer(papers, tls=server_context(papers, pair)) as server:
        cause = cause_of(papers, server)
        says(cause, "server_not_yet", "not valid yet", "20 minutes apart", "set the clock")


def test_the_dates_of_a_certificate_that_the_root_did_not_sign_are_not_repeated(papers, tmp_path):
    """Whoever answers may not put words into the log."""
    from hilum.client.link.explain import _certificate_shown

    other = Papers(tmp_path / "other")
    with FleetServer(papers, tls=server_context(other)) as server:
        assert _certificate_shown(identity_of(papers, f"localhost:{server.port}")) is None
    with FleetServer(papers) as server:
        assert _certificate_shown(identity_of(papers, f"localhost:{server.port}")) is not None


# This site's certificate.


def tls12(context):
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    return context


@pytest.mark.parametrize("limit", [lambda context: context, tls12], ids=["TLS 1.3", "TLS 1.2"])
def test_a_server_that_does_not_accept_this_sites_certificate(papers, tmp_path, limit):
    """With TLS 1.3 the alert comes only when the site reads."""
    other = Papers(tmp_path / "other", "another")
    context = limit(server_context(papers))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*papers.server())
    context.load_verify_locations(other.root_path)
    context.verify_mode = ssl.CERT_REQUIRED
    with FleetServer(papers, tls=limit(context)) as server:
        cause = cause_of(papers, server)
    says(cause, "not_accepted", "not accept this site's certificate", "site-a is approved")


@pytest.mark.parametrize(
    ("number", "words"),
    [(44, "revoked"), (45, "has expired"), (46, "does not know"), (42, "not valid"), (48, "federation")],
)
def test_each_alert_about_the_certificate_has_its_own_words(papers, number, words):
    """RFC 8446, 6.2. A TLS server in memory sends the alert after its handshake, as one with a revocation list does."""

    def answer(connection):
        context = server_context(papers)
        context.verify_mode = ssl.CERT_NONE
        context.maximum_version = ssl.TLSVersion.TLSv1_2
        connection.recv(65536)
        connection.sendall(bytes([0x15, 3, 3, 0, 2, 2, number]))

    with listening(answer) as port:
        says(cause_at(identity_of(papers, f"localhost:{port}")), "not_accepted", words)


def test_an_expired_certificate_of_this_site_is_final_and_named_first(papers):
    identity = identity_of(papers, "localhost:1")
    cert, _ = papers.site(ends=-MINUTE)
    from cryptography import x509

    object.__setattr__(identity, "certificate", x509.load_pem_x509_certificate(cert.read_bytes()))
    words = ("this site's certificate expired", "hilum site join", "clock says")
    says(cause_at(identity), "own_expired", *words, patience=Patience.NEVER)


def test_a_certificate_that_is_not_approved_or_revoked(papers):
    with FleetServer(papers) as server:
        server.script["activate-node"] = lambda *_: http(401, b"unknown", "text/plain")
        says(
            cause_of(papers, server),
            "not_admitted",
            "401",
            "not approved yet, is revoked",
            "ask the federation",
        )


def test_a_server_that_hangs_up_without_a_word(papers):
    with FleetServer(papers) as server:
        server.script["activate-node"] = lambda *_: Raw(b"")
        words = ("without an answer", "site-a is approved", "out of date")
        says(cause_of(papers, server, known=True), "closed", *words)
        cause = cause_of(papers, server, answered=True)
        says(cause, "cut", "was cut", patience=Patience.SOON)
