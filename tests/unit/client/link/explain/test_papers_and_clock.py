"""The site's own files and clock, told before anything is sent, and how often a line is said."""

import logging
import re

import pytest

from federation_papers import Papers, identity_of
from fleet_server import FleetServer
from hilum.client.link.explain import clock_line
from hilum.client.link.fleet_client import FleetClient
from hilum.client.link.teller import Teller
from hilum.common.errors import ConfigError
from link_causes import DAY, MINUTE

# The site's own files: told before anything is sent.


def break_root(papers, cert, key):
    papers.root_path.write_text("no certificate")


def break_certificate(papers, cert, key):
    cert.write_text("no certificate")


def swap(papers, cert, key):
    text = cert.read_text()
    cert.write_text(key.read_text())
    key.write_text(text)


def no_key(papers, cert, key):
    key.write_text("no key")


def hidden_key(papers, cert, key):
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.hazmat.primitives.serialization import BestAvailableEncryption, Encoding, PrivateFormat

    hidden = BestAvailableEncryption(b"secret")
    made = ec.generate_private_key(ec.SECP384R1())
    key.write_bytes(made.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, hidden))


def other_key(papers, cert, key):
    key.write_bytes(Papers(papers.folder / "more").site()[1].read_bytes())


def open_key(papers, cert, key):
    key.chmod(0o644)


def other_root(papers, cert, key):
    papers.root_path.write_bytes(Papers(papers.folder / "more", "other").root_path.read_bytes())


def site_as_root(papers, cert, key):
    papers.root_path.write_bytes(cert.read_bytes())


@pytest.mark.parametrize(
    ("harm", "source", "words"),
    [
        (lambda papers, *_: papers.root_path.unlink(), "root.crt", "no such file"),
        (lambda _, cert, _key: cert.unlink(), "site-a.crt", "no such file"),
        (lambda _, _cert, key: key.unlink(), "site-a.key", "no such file"),
        (break_root, "root.crt", "not a certificate"),
        (site_as_root, "root.crt", "not an authority's"),
        (break_certificate, "site-a.crt", "not a certificate"),
        (swap, "site-a.crt", "not a certificate"),
        (no_key, "site-a.key", "no private key"),
        (hidden_key, "site-a.key", "password"),
        (open_key, "site-a.key", "chmod 600"),
        (other_key, "site-a.crt", "key"),
        (other_root, "site-a.crt", "root"),
    ],
)
def test_papers_that_do_not_fit_are_named(papers, harm, source, words):
    pair = papers.site()
    harm(papers, *pair)
    with pytest.raises(ConfigError, match=re.escape(source)) as refused:
        identity_of(papers, pair=pair)
    assert words in str(refused.value)


def test_papers_of_another_name_or_time_are_named(papers):
    with pytest.raises(ConfigError, match="is for 'site-b', and the site file says"):
        identity_of(papers, pair=papers.site("site-b"), name="site-a")
    with pytest.raises(ConfigError, match="expired on"):
        identity_of(papers, pair=papers.site(ends=-DAY))
    with pytest.raises(ConfigError, match="set the clock"):
        identity_of(papers, pair=papers.site(begins=20 * MINUTE))


def test_a_servers_certificate_is_no_sites(papers):
    with pytest.raises(ConfigError, match="a site's"):
        identity_of(papers, pair=papers.server())


# Clocks, and how often a line is said.


@pytest.mark.parametrize(("ahead_s", "words"), [(1200, "20 minutes ahead of"), (-1200, "20 minutes behind")])
def test_a_clock_that_is_off_is_told_in_minutes(papers, ahead_s, words):
    with FleetServer(papers, clock_s=-ahead_s) as server:
        client = FleetClient(identity_of(papers, f"localhost:{server.port}"))
        client.activate()
        client.close()
    assert f"this machine's clock is {words} the server's" in clock_line(client.clock_ahead_s)


def test_a_clock_that_is_right_is_not_mentioned(papers):
    with FleetServer(papers) as server:
        client = FleetClient(identity_of(papers, f"localhost:{server.port}"))
        client.activate()
        client.close()
    assert abs(client.clock_ahead_s) < 2
    assert clock_line(client.clock_ahead_s) is None
    assert clock_line(None) is None


def test_the_same_trouble_is_told_once_a_minute_with_a_count(caplog):
    now = [0.0]
    teller = Teller(logging.getLogger("hilum.test"), now_s=lambda: now[0])
    caplog.set_level(logging.INFO, "hilum.test")
    for second in range(0, 125, 5):
        now[0] = second
        teller.trouble("cannot reach it", f"trying again in {second} s")
    assert caplog.messages == [
        "cannot reach it; trying again in 0 s",
        "cannot reach it (11 more times since); trying again in 60 s",
        "cannot reach it (11 more times since); trying again in 120 s",
    ]
    teller.trouble("another trouble", "")
    teller.tell("connected")
    teller.trouble("another trouble", "")
    assert caplog.messages[3:] == ["another trouble", "connected", "another trouble"]
