"""Certificates: each for one purpose, of one federation, and in its time."""

import datetime as dt

import pytest
from cryptography import x509
from cryptography.x509.oid import ExtendedKeyUsageOID

from hilum.common.errors import ConfigError
from hilum.common.security import certificates
from hilum.common.security.certificates import (
    check_root,
    check_server_certificate,
    check_site_certificate,
    covered_hosts,
    make_root,
    make_server_certificate,
    make_site_certificate,
)
from hilum.common.security.keys import fingerprint, new_key, public_bytes
from papers_by_hand import extension

# Certificates: each for one purpose.


def test_the_root_signs_and_is_no_server_or_site(root):
    check_root(root, "root.crt")
    assert extension(root, x509.BasicConstraints).ca
    assert extension(root, x509.BasicConstraints).path_length == 0
    usage = extension(root, x509.KeyUsage)
    assert usage.key_cert_sign
    assert not usage.digital_signature


def test_a_server_certificate_is_for_servers_under_all_its_names(root, root_key):
    key = new_key()
    made = make_server_certificate(
        key.public_key(), ["federation.example", "10.0.0.7", "::1"], root, root_key
    )
    assert covered_hosts(made) == ["federation.example", "localhost", "10.0.0.7", "::1", "127.0.0.1"]
    assert list(extension(made, x509.ExtendedKeyUsage)) == [ExtendedKeyUsageOID.SERVER_AUTH]
    assert not extension(made, x509.BasicConstraints).ca
    check_server_certificate(made, root, key.public_key(), ["federation.example", "localhost"], "server.crt")
    with pytest.raises(
        ConfigError, match=r"not for other\.example; `hilum admin renew --host other\.example`"
    ):
        check_server_certificate(made, root, key.public_key(), ["other.example"], "server.crt")
    with pytest.raises(ConfigError, match="not a site's certificate"):
        check_site_certificate(made, root, key.public_key(), "site.crt")


def test_a_site_certificate_is_for_clients_and_lasts_90_days(root, root_key):
    key = new_key()
    made = make_site_certificate("st-elsewhere", key.public_key(), root, root_key)
    assert list(extension(made, x509.ExtendedKeyUsage)) == [ExtendedKeyUsageOID.CLIENT_AUTH]
    assert certificates.days_left(made) == 90
    check_site_certificate(made, root, key.public_key(), "site.crt")
    with pytest.raises(ConfigError, match="not a server's certificate"):
        check_server_certificate(made, root, key.public_key(), [], "server.crt")


def test_another_federations_certificate_is_refused_even_under_the_same_name(root, root_key):
    key, other_key = new_key(), new_key()
    twin = make_root(other_key, "Hilum federation test")
    made = make_site_certificate("st-elsewhere", key.public_key(), twin, other_key)
    with pytest.raises(ConfigError, match="is it of another federation"):
        check_site_certificate(made, root, key.public_key(), "site.crt")


def test_a_certificate_for_another_key_names_both_fingerprints(root, root_key):
    mine, other = new_key(), new_key()
    made = make_site_certificate("st-elsewhere", other.public_key(), root, root_key)
    with pytest.raises(ConfigError) as caught:
        check_site_certificate(made, root, mine.public_key(), "site.crt")
    for key in (mine, other):
        assert fingerprint(public_bytes(key.public_key())) in str(caught.value)


@pytest.mark.parametrize(
    ("shift", "sentence"),
    [
        (dt.timedelta(days=91), "expired on .*, and this machine's clock says"),
        (dt.timedelta(hours=-2), "set the clock"),
    ],
)
def test_dates_are_checked_and_a_wrong_clock_is_named(root, root_key, monkeypatch, shift, sentence):
    key = new_key()
    made = make_site_certificate("st-elsewhere", key.public_key(), root, root_key)

    then = dt.datetime.now(dt.UTC) + shift

    class Later(dt.datetime):
        @classmethod
        def now(cls, zone=None):
            return then

    monkeypatch.setattr(certificates.dt, "datetime", Later)
    with pytest.raises(ConfigError, match=sentence):
        check_site_certificate(made, root, key.public_key(), "site.crt")


def test_a_clock_that_is_20_minutes_behind_can_use_a_fresh_certificate(root):
    assert root.not_valid_before_utc < dt.datetime.now(dt.UTC) - dt.timedelta(minutes=20)


@pytest.mark.parametrize(
    "host", ["https://a.example", "a.example:9443", "", "a b", "x" * 254, "ü.example", "a..b"]
)
def test_what_is_no_host_gets_no_certificate(root, root_key, host):
    with pytest.raises(ConfigError, match="neither a host name nor an address"):
        make_server_certificate(new_key().public_key(), [host], root, root_key)
