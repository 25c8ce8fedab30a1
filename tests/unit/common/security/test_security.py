"""A site's key and papers: what is made fits, what does not fit is refused with its own sentence."""

import datetime as dt
import os
import stat
import tomllib

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed448, ed25519, rsa
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
from hypothesis import given, settings
from hypothesis import strategies as st

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
    pem_of,
)
from hilum.common.security.keys import (
    MAX_PAPER_BYTES,
    fingerprint,
    new_key,
    public_bytes,
    read_site_key,
    read_study_key,
    write_paper,
    write_private_key,
)
from hilum.common.security.link_file import LinkFile, read_link_file
from hilum.common.security.requests import MAX_REQUEST_BYTES, make_request, read_request
from hilum.common.security.site_folder import enroll, join, link_table, put_into_site_file
from hilum.common.signing import public_text


def mode(path):
    return stat.S_IMODE(path.stat().st_mode)


@pytest.fixture
def root_key():
    return new_key()


@pytest.fixture
def root(root_key):
    return make_root(root_key, "Hilum federation test")


@pytest.fixture
def study_key():
    return public_text(ed25519.Ed25519PrivateKey.generate().public_key())


@pytest.fixture
def approve(root, root_key, study_key):
    """The admin's part, in a line: a link file for the request that lies in a folder."""

    def run(folder, path, **changes):
        request = read_request((folder / "site.csr").read_bytes(), "site.csr")
        facts = {
            "server": "federation.example:9443",
            "study_key": study_key,
            "root": root,
            "certificate": make_site_certificate(request.name, request.public_key, root, root_key),
        }
        LinkFile(**{**facts, **changes}).write(path)
        return path

    return run


def extension(certificate, kind):
    return certificate.extensions.get_extension_for_class(kind).value


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


def by_sentence(value):
    """The name of a case: keys and requests are made anew each time, and no name."""
    return value if isinstance(value, str) else ""


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


# Keys.


def test_a_key_is_written_for_its_owner_alone_whatever_the_umask_and_never_over_another(tmp_path):
    before = os.umask(0)
    try:
        write_private_key(tmp_path / "site.key", new_key())
    finally:
        os.umask(before)
    assert mode(tmp_path / "site.key") == 0o600
    first = (tmp_path / "site.key").read_bytes()
    with pytest.raises(ConfigError, match="never overwritten"):
        write_private_key(tmp_path / "site.key", new_key())
    assert (tmp_path / "site.key").read_bytes() == first
    assert [path.name for path in tmp_path.iterdir()] == ["site.key"]


def test_a_key_that_others_may_read_is_refused(tmp_path):
    write_private_key(tmp_path / "site.key", new_key())
    (tmp_path / "site.key").chmod(0o640)
    with pytest.raises(ConfigError, match="chmod 600"):
        read_site_key(tmp_path / "site.key")


def stored(key, password=None, form=PrivateFormat.PKCS8):
    hidden = BestAvailableEncryption(password) if password else NoEncryption()
    return key.private_bytes(Encoding.PEM, form, hidden)


RSA = rsa.generate_private_key(65537, 2048)
ED25519 = ed25519.Ed25519PrivateKey.generate()


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (stored(ED25519), "holds an Ed25519 key; expected an elliptic-curve key on P-384"),
        (stored(ED25519, form=PrivateFormat.OpenSSH), "holds an Ed25519 key"),
        (stored(RSA), "holds an RSA key of 2048 bits"),
        (stored(ec.generate_private_key(ec.SECP521R1())), "holds an elliptic-curve key on secp521r1"),
        (stored(new_key(), b"secret"), "is protected by a password"),
        (b"", "holds no private key"),
        (os.urandom(32), "holds no private key"),
        (b"-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n", "holds no private key"),
        (b"x" * (MAX_PAPER_BYTES + 1), "is longer than"),
    ],
    ids=by_sentence,
)
def test_a_wrong_key_is_named_for_what_it_is(tmp_path, content, sentence):
    path = tmp_path / "site.key"
    path.write_bytes(content)
    path.chmod(0o600)
    with pytest.raises(ConfigError, match=sentence):
        read_site_key(path)


def test_an_openssh_key_on_the_right_curve_is_taken(tmp_path):
    key = new_key()
    (tmp_path / "site.key").write_bytes(stored(key, form=PrivateFormat.OpenSSH))
    (tmp_path / "site.key").chmod(0o600)
    assert public_bytes(read_site_key(tmp_path / "site.key").public_key()) == public_bytes(key.public_key())


def test_studies_are_signed_with_an_ed25519_key_alone(tmp_path):
    write_private_key(tmp_path / "study.key", ED25519)
    assert public_text(read_study_key(tmp_path / "study.key").public_key()) == public_text(
        ED25519.public_key()
    )
    write_private_key(tmp_path / "other.key", new_key())
    with pytest.raises(ConfigError, match="holds an elliptic-curve key on P-384; expected an Ed25519 key"):
        read_study_key(tmp_path / "other.key")


def test_a_fingerprint_can_be_read_out_and_differs_by_key():
    spoken = fingerprint(public_bytes(new_key().public_key()))
    assert [len(group) for group in spoken.split(" ")] == [4] * 8
    assert spoken != fingerprint(public_bytes(new_key().public_key()))


# Requests: a stranger's file.


def csr(key, *names, algorithm=None, extensions=()):
    attributes = [x509.NameAttribute(NameOID.COMMON_NAME, name) for name in names]
    builder = x509.CertificateSigningRequestBuilder().subject_name(x509.Name(attributes))
    for one in extensions:
        builder = builder.add_extension(one, critical=True)
    return builder.sign(key, algorithm).public_bytes(Encoding.PEM)


P384 = new_key()
GOOD = make_request("st-elsewhere", P384)


def test_a_good_request_gives_name_and_key():
    request = read_request(GOOD, "site.csr")
    assert request.name == "st-elsewhere"
    assert request.fingerprint == fingerprint(public_bytes(P384.public_key()))
    p256 = ec.generate_private_key(ec.SECP256R1())
    assert read_request(csr(p256, "a", algorithm=hashes.SHA256()), "site.csr").name == "a"


def test_nothing_that_a_request_asks_for_beyond_name_and_key_is_granted(root, root_key):
    wishes = [
        x509.BasicConstraints(ca=True, path_length=None),
        x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]),
        x509.SubjectAlternativeName([x509.DNSName("federation.example")]),
    ]
    asked = read_request(csr(P384, "a", algorithm=hashes.SHA384(), extensions=wishes), "site.csr")
    made = make_site_certificate(asked.name, asked.public_key, root, root_key)
    assert not extension(made, x509.BasicConstraints).ca
    assert list(extension(made, x509.ExtendedKeyUsage)) == [ExtendedKeyUsageOID.CLIENT_AUTH]
    with pytest.raises(x509.ExtensionNotFound):
        extension(made, x509.SubjectAlternativeName)


def forged():
    """The name of one request with the signature of another."""
    other = x509.load_pem_x509_csr(make_request("st-elsewhera", P384))
    der = x509.load_pem_x509_csr(GOOD).public_bytes(Encoding.DER)
    changed = der.replace(b"st-elsewhere", b"st-elsewhera")
    assert changed != der
    assert other.is_signature_valid
    return x509.load_der_x509_csr(changed).public_bytes(Encoding.PEM)


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (csr(ED25519, "a"), "is for an Ed25519 key; expected an elliptic-curve key on P-384 or P-256"),
        (csr(ed448.Ed448PrivateKey.generate(), "a"), "is for an Ed448 key"),
        (csr(RSA, "a", algorithm=hashes.SHA256()), "is for an RSA key of 2048 bits"),
        (csr(ec.generate_private_key(ec.SECP521R1()), "a", algorithm=hashes.SHA384()), "on secp521r1"),
        (csr(ec.generate_private_key(ec.SECP256K1()), "a", algorithm=hashes.SHA384()), "on secp256k1"),
        (csr(P384, algorithm=hashes.SHA384()), "has 0 common names"),
        (csr(P384, "a", "b", algorithm=hashes.SHA384()), "has 2 common names"),
        (csr(P384, "../../etc", algorithm=hashes.SHA384()), r"the name '\.\./\.\./etc' is not one"),
        (csr(P384, "st elsewhere", algorithm=hashes.SHA384()), "is not one"),
        (csr(P384, "name\n", algorithm=hashes.SHA384()), "is not one"),
        (csr(P384, "\x1b[31m", algorithm=hashes.SHA384()), "is not one"),
        (csr(P384, "шпиталь", algorithm=hashes.SHA384()), "is not one"),
        (forged(), "is not signed by the key that it is for"),
        (stored(P384), "is a private key, which must not leave its site"),
        (
            P384.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo),
            "is a bare public key",
        ),
        (P384.public_key().public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH), "is an OpenSSH key"),
        (ED25519.public_key().public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH), "is an OpenSSH key"),
        (pem_of(make_root(P384, "a")), "is a certificate, not a request"),
        (b"", "is not a request"),
        (b"\0" * 1000, "is not a request"),
        (GOOD[: len(GOOD) // 2], "is not a request"),
        (GOOD + b" " * MAX_REQUEST_BYTES, "is longer than 16 KiB"),
    ],
    ids=by_sentence,
)
def test_every_other_request_is_refused_with_its_own_sentence(content, sentence):
    with pytest.raises(ConfigError, match=sentence) as caught:
        read_request(content, "site.csr")
    assert str(caught.value).isprintable()


@settings(max_examples=300, deadline=None)
@given(st.integers(0, len(GOOD) - 1), st.binary(min_size=1, max_size=8))
def test_a_request_with_changed_bytes_is_refused_or_the_same(at, junk):
    changed = GOOD[:at] + junk + GOOD[at + len(junk) :]
    try:
        request = read_request(changed, "site.csr")
    except ConfigError:
        return
    assert request.name == "st-elsewhere"
    assert public_bytes(request.public_key) == public_bytes(P384.public_key())


# Enrolment and joining.


def test_enrolling_makes_a_key_and_a_request_and_twice_keeps_the_key(tmp_path):
    first = enroll(tmp_path / "papers", "st-elsewhere")
    again = enroll(tmp_path / "papers", "st-elsewhere")
    assert (first.fresh, again.fresh) == (True, False)
    assert first.fingerprint == again.fingerprint
    assert mode(tmp_path / "papers") == 0o700
    assert mode(tmp_path / "papers" / "site.key") == 0o600
    request = read_request(first.request.read_bytes(), "site.csr")
    assert (request.name, request.fingerprint) == ("st-elsewhere", first.fingerprint)


def test_papers_in_a_folder_that_others_use_leave_it_as_it_is(tmp_path):
    """Root may well do this in /tmp."""
    shared = tmp_path / "shared"
    shared.mkdir()
    shared.chmod(0o1777)
    enroll(shared, "st-elsewhere")
    assert stat.S_IMODE(shared.stat().st_mode) == 0o1777
    assert [mode(path) for path in sorted(shared.iterdir())] == [0o600, 0o600]
    write_paper(shared / "new" / "paper", b"x")
    assert mode(shared / "new") == 0o700


def test_enrolling_does_not_touch_another_kind_of_key(tmp_path):
    (tmp_path / "site.key").write_bytes(os.urandom(32))
    (tmp_path / "site.key").chmod(0o600)
    before = (tmp_path / "site.key").read_bytes()
    with pytest.raises(ConfigError, match="holds no private key"):
        enroll(tmp_path, "st-elsewhere")
    assert (tmp_path / "site.key").read_bytes() == before


def test_a_folder_that_can_not_be_written_is_named_as_that(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match="can't be written"):
        enroll(tmp_path / "file" / "papers", "st-elsewhere")


def test_joining_puts_the_papers_beside_the_key(tmp_path, approve, root):
    enroll(tmp_path, "st-elsewhere")
    link = join(tmp_path, approve(tmp_path, tmp_path / "st-elsewhere.link.toml"))
    assert link.name == "st-elsewhere"
    assert (tmp_path / "root.crt").read_bytes() == pem_of(root)
    assert x509.load_pem_x509_certificate((tmp_path / "site.crt").read_bytes()) == link.certificate
    table = tomllib.loads(link_table(link, tmp_path, tmp_path))["link"]
    assert table == {
        "server": "federation.example:9443",
        "root_certificate": "root.crt",
        "certificate": "site.crt",
        "key": "site.key",
        "study_key": link.study_key,
    }
    elsewhere = tomllib.loads(link_table(link, tmp_path, tmp_path / "conf"))["link"]
    assert elsewhere["key"] == str(tmp_path / "site.key")


def test_a_link_file_holds_no_path_and_no_secret(tmp_path, approve):
    enroll(tmp_path, "st-elsewhere")
    text = approve(tmp_path, tmp_path / "x.link.toml").read_text()
    assert str(tmp_path) not in text
    assert "PRIVATE" not in text


def test_joining_without_the_key_or_with_anothers_link_changes_nothing(tmp_path, approve):
    enroll(tmp_path / "one", "one")
    enroll(tmp_path / "two", "two")
    link = approve(tmp_path / "one", tmp_path / "one.link.toml")
    with pytest.raises(ConfigError, match="hilum site enroll --name one"):
        join(tmp_path / "empty", link)
    with pytest.raises(ConfigError, match="is for another key"):
        join(tmp_path / "two", link)
    assert sorted(path.name for path in (tmp_path / "two").iterdir()) == ["site.csr", "site.key"]


def test_a_folder_that_belongs_to_another_federation_stays_with_it(tmp_path, approve):
    enroll(tmp_path, "one")
    join(tmp_path, approve(tmp_path, tmp_path / "one.link.toml"))
    before = (tmp_path / "root.crt").read_bytes()
    other_key = new_key()
    other = make_root(other_key, "another")
    request = read_request((tmp_path / "site.csr").read_bytes(), "site.csr")
    theirs = make_site_certificate("one", request.public_key, other, other_key)
    path = approve(tmp_path, tmp_path / "theirs.link.toml", root=other, certificate=theirs)
    with pytest.raises(ConfigError, match="belongs to another federation"):
        join(tmp_path, path)
    assert (tmp_path / "root.crt").read_bytes() == before


def test_a_link_files_certificate_must_be_of_its_root(tmp_path, approve):
    enroll(tmp_path, "one")
    other = make_root(new_key(), "another")
    with pytest.raises(ConfigError, match="is it of another federation"):
        join(tmp_path, approve(tmp_path, tmp_path / "x.link.toml", root=other))


def test_a_leaf_is_no_root(tmp_path, approve, root, root_key):
    enroll(tmp_path, "one")
    leaf = make_site_certificate("one", new_key().public_key(), root, root_key)
    with pytest.raises(ConfigError, match="is not an authority's certificate"):
        join(tmp_path, approve(tmp_path, tmp_path / "x.link.toml", root=leaf))


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("", "holds no table"),
        ("[link", "holds no table"),
        ("link = 3", "must hold"),
        ("[link]\nserver = 'a:1'", "must hold certificate, root_certificate, server, study_key"),
        ("\xff\xfe", "certificate"),
        ("x" * (MAX_PAPER_BYTES + 1), "is longer than"),
        ("a = " + "[" * 5000, "holds no table"),
    ],
)
def test_what_is_no_link_file_is_refused(tmp_path, text, sentence):
    (tmp_path / "x.link.toml").write_bytes(text.encode("latin-1"))
    with pytest.raises(ConfigError, match="holds no table" if text.startswith("\xff") else sentence):
        read_link_file(tmp_path / "x.link.toml")


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"server": "https://a.example/"}, "is not HOST:PORT"),
        ({"study_key": "ed25519:AAAA"}, "is not an Ed25519 public key"),
    ],
)
def test_a_link_files_fields_are_checked(tmp_path, approve, change, sentence):
    enroll(tmp_path, "one")
    with pytest.raises(ConfigError, match=sentence):
        join(tmp_path, approve(tmp_path, tmp_path / "x.link.toml", **change))


# The site file keeps every other line.

TABLE = '[link]\nserver = "b:2"\nkey = "site.key"\n'


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ('[site]\nname = "one"', '[site]\nname = "one"\n\n' + TABLE),
        ('[site]\nname = "one"\n\n[link]\nserver = "a:1"\n', '[site]\nname = "one"\n\n' + TABLE),
        (
            '# ours\n[site]\nname = "one"  # us\n[link]  # old\nserver = "a:1"\n\n# who\n[policy]\nmax_rounds = 3\n',
            '# ours\n[site]\nname = "one"  # us\n' + TABLE + "\n# who\n[policy]\nmax_rounds = 3\n",
        ),
    ],
)
def test_the_link_goes_into_the_site_file_and_every_other_line_stays(tmp_path, before, after):
    path = tmp_path / "site.toml"
    path.write_text(before)
    path.chmod(0o640)
    put_into_site_file(path, TABLE, "one")
    assert path.read_text() == after
    assert mode(path) == 0o640
    put_into_site_file(path, TABLE, "one")
    assert path.read_text() == after


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ('[site]\nname = "two"\n', "the certificate is for 'one'"),
        ("[site\n", "is not valid TOML"),
        ('link = {server = "a:1"}\n', "is not written as one"),
        ('[site]\nname = "one"\n[link]\nserver = """\n[policy]\n"""\n', "is not written as one"),
    ],
)
def test_a_site_file_that_can_not_take_the_link_is_left_as_it_is(tmp_path, text, sentence):
    path = tmp_path / "site.toml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=sentence):
        put_into_site_file(path, TABLE, "one")
    assert path.read_text() == text
